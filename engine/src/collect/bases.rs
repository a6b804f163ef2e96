//! Which frames of a pack have bases, and where these are read from: remembered for each pack, so that
//! a collection need not go through every chunk and look up every base to find that all are live.

use std::collections::HashMap;
use std::ops::ControlFlow;

use cairn_format::codec::{Reader, Writer};
use cairn_format::ids::ChunkId;
use cairn_format::names::PackKind;
use cairn_format::pack::ChunkRef;
use cairn_format::segment::NAMESPACE_TRUSTED;

use super::marks::Layouts;
use super::memo::record::Name;
use super::memo::{Memos, Packs, Standing};
use crate::delta::patch;
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::local::{MemoChange, PackNumber, PackRecord};

/// Bases of which it is kept in mind where they are, at most: about a hundred bytes each.
const PLACES_MAX: usize = 1 << 18;
/// What is remembered is written when there is so much of it, bytes.
const WRITE_BYTES: usize = 1 << 20;

/// A frame that has bases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BasedFrame {
    /// Its number in the pack.
    pub(super) number: u32,
    /// Position of its first chunk among all of the pack.
    pub(super) first: u32,
    /// How many chunks it has.
    pub(super) count: u32,
    /// How many of its bases, counted from the last, are its own patch.
    pub(super) patch: u32,
    /// The first place of each base where it can serve as one, whatever speaks against it; empty when
    /// one is nowhere, and where that may change.
    pub(super) bases: Vec<Name>,
}

fn encode(home: PackNumber, frames: &[BasedFrame]) -> Vec<u8> {
    let mut out = Writer::new();
    let mut last = (i64::from(home.0), 0);
    for frame in frames {
        out.varint(frame.number.into()).varint(frame.first.into()).varint(frame.count.into());
        out.varint(frame.patch.into()).count(frame.bases.len());
        for base in &frame.bases {
            let (pack, position) = (i64::from(base.pack.0), i64::from(base.position));
            out.zigzag(pack - last.0).zigzag(position - last.1);
            last = (pack, position);
        }
    }
    out.into_bytes()
}

fn decode(home: PackNumber, bytes: &[u8]) -> Option<Vec<BasedFrame>> {
    let mut fields = Reader::new(bytes, "memo");
    let number = |fields: &mut Reader<'_>| u32::try_from(fields.varint().ok()?).ok();
    let mut last = (i64::from(home.0), 0_i64);
    let mut frames = Vec::new();
    while !fields.is_empty() {
        let (frame, first) = (number(&mut fields)?, number(&mut fields)?);
        let (count, patch) = (number(&mut fields)?, number(&mut fields)?);
        let bases = number(&mut fields)?;
        first.checked_add(count)?;
        let mut frame = BasedFrame { number: frame, first, count, patch, bases: Vec::new() };
        for _ in 0..bases {
            let pack = last.0.checked_add(fields.zigzag().ok()?)?;
            let position = last.1.checked_add(fields.zigzag().ok()?)?;
            last = (pack, position);
            let (pack, position) = (u32::try_from(pack).ok()?, u32::try_from(position).ok()?);
            frame.bases.push(Name { pack: PackNumber(pack), position });
        }
        frames.push(frame);
    }
    Some(frames)
}

/// What is known of bases.
pub(super) struct Bases<'w, 'a> {
    catalog: &'a Catalog,
    memos: &'w Memos<'a>,
    packs: &'w Packs,
    layouts: Layouts<'a>,
    /// Where bases are, as far as they were looked up.
    places: HashMap<(ChunkId, u32, PackKind), Option<Name>>,
    changes: Vec<MemoChange>,
    bytes: usize,
}

impl<'w, 'a> Bases<'w, 'a> {
    pub(super) fn new(catalog: &'a Catalog, memos: &'w Memos<'a>, packs: &'w Packs) -> Self {
        let layouts = Layouts::new(catalog);
        let (places, changes) = (HashMap::new(), Vec::new());
        Self { catalog, memos, packs, layouts, places, changes, bytes: 0 }
    }

    /// The frames of a pack that have bases.
    ///
    /// # Errors
    /// Failures of the cache.
    pub(super) fn of(
        &mut self,
        pack: PackNumber,
        record: &PackRecord,
    ) -> Result<Vec<BasedFrame>, Error> {
        let key = Memos::bases_key(pack);
        let known = self.memos.get(&key, record.id.as_bytes())?;
        if let Some(frames) = known.and_then(|known| decode(pack, &known))
            && frames.iter().all(|frame| self.is_current(frame))
        {
            return Ok(frames);
        }
        let frames = self.look_up(pack, record)?;
        // One that is nowhere today may be found tomorrow.
        if frames.iter().all(|frame| !frame.bases.is_empty()) {
            let change = self.memos.change(key, record.id.as_bytes(), &encode(pack, &frames));
            self.bytes += change.1.as_ref().map_or(0, Vec::len);
            self.changes.push(change);
            if self.bytes > WRITE_BYTES {
                self.flush()?;
            }
        }
        Ok(frames)
    }

    /// Writes what is new.
    ///
    /// # Errors
    /// Failures of the cache.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.bytes = 0;
        self.memos.put(&std::mem::take(&mut self.changes))
    }

    /// Whether what is remembered of a frame names packs that are there.
    fn is_current(&self, frame: &BasedFrame) -> bool {
        frame.bases.iter().all(|base| {
            self.packs.standing(base.pack) != Standing::Gone
                && base.position < self.packs.chunks(base.pack)
        })
    }

    fn look_up(&mut self, pack: PackNumber, record: &PackRecord) -> Result<Vec<BasedFrame>, Error> {
        let (mut frames, mut position) = (Vec::<BasedFrame>::new(), 0);
        self.catalog.index().for_each_chunk_of_pack(pack, &mut |_, place| {
            if place.based {
                match frames.last_mut() {
                    Some(frame) if frame.number == place.frame_number => frame.count += 1,
                    _ => frames.push(BasedFrame {
                        number: place.frame_number,
                        first: position,
                        count: 1,
                        patch: 0,
                        bases: Vec::new(),
                    }),
                }
            }
            position += 1;
            ControlFlow::Continue(())
        })?;
        if frames.is_empty() {
            return Ok(frames);
        }
        let described = self.catalog.frames(pack)?;
        for frame in &mut frames {
            let at = frame.number as usize;
            let before = at.checked_sub(1).and_then(|before| described.get(before));
            let bases = described.get(at).map(|frame| frame.bases.as_slice());
            if patch::is_patched(before, bases.unwrap_or_default()) {
                let chunks = before.map_or(0, |before| before.chunks.len());
                frame.patch = u32::try_from(chunks).unwrap_or(u32::MAX);
            }
        }
        // In a writer's namespace a copy of its own may come before those of today.
        if record.writer == NAMESPACE_TRUSTED {
            for frame in &mut frames {
                frame.bases = self.bases(pack, frame.number, record.kind)?;
            }
        }
        Ok(frames)
    }

    fn bases(&mut self, pack: PackNumber, frame: u32, kind: PackKind) -> Result<Vec<Name>, Error> {
        let mut names = Vec::new();
        for (id, bytes) in self.catalog.index().frame_bases(pack, frame)? {
            let known = self.places.get(&(id, bytes, kind)).copied();
            let name = match known {
                Some(name) => name,
                None => {
                    let name = self.find(&ChunkRef { id, bytes }, kind)?;
                    if self.places.len() >= PLACES_MAX {
                        self.places.clear();
                    }
                    self.places.insert((id, bytes, kind), name);
                    name
                }
            };
            match name {
                Some(name) => names.push(name),
                None => return Ok(Vec::new()),
            }
        }
        Ok(names)
    }

    fn find(&mut self, base: &ChunkRef, kind: PackKind) -> Result<Option<Name>, Error> {
        let Some(place) = self.catalog.first_base_place(base, kind)? else { return Ok(None) };
        let position = self.layouts.position(&place)?;
        let position = u32::try_from(position).map_err(|_| Error::PlaceStale)?;
        Ok(Some(Name { pack: place.pack, position }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn frames_are_read_as_written(
            home in any::<u32>(),
            frames in proptest::collection::vec(
                (any::<u32>(), 0_u32..1 << 31, 0_u32..1 << 31, any::<u32>(),
                    proptest::collection::vec((any::<u32>(), any::<u32>()), 0..5)), 0..5),
        ) {
            let home = PackNumber(home);
            let name = |(pack, position)| Name { pack: PackNumber(pack), position };
            let frames = frames.into_iter().map(|(number, first, count, patch, bases)| {
                BasedFrame { number, first, count, patch, bases: bases.into_iter().map(name).collect() }
            });
            let frames = frames.collect::<Vec<_>>();
            prop_assert_eq!(decode(home, &encode(home, &frames)), Some(frames));
        }

        #[test]
        fn nothing_is_read_out_of_nonsense(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(frames) = decode(PackNumber(3), &bytes) {
                prop_assert!(frames.len() <= bytes.len());
            }
        }
    }
}
