//! Chunks of another copy of the repository into new packs of this one: frames as they are stored
//! where all of a frame is wanted and its bases are here, else what is wanted of them.

use bytes::Bytes;
use cairn_format::envelope::HEADER_BYTES;
use cairn_format::names::PackKind;
use cairn_format::pack::{ChunkRef, Codec, FrameDescription};
use cairn_format::segment::NAMESPACE_TRUSTED;
use parking_lot::Mutex;

use super::{Copier, NewFrame, Source, only, place_of};
use crate::collect::marks::Marks;
use crate::delta::{LISTING_BYTES, patch};
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::local::{ChunkPlace, PackNumber, PackRecord};
use crate::repo::Repository;
use crate::repo::chunks::{ChunkReader, Wanted, single};

/// Where chunks come from.
#[derive(Clone, Copy)]
pub struct Origin<'o> {
    /// The other copy.
    pub repository: &'o Repository,
    /// Its index.
    pub catalog: &'o Catalog,
    /// What is wanted, by where it is there.
    pub wanted: &'o Marks,
}

/// Which frames of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// Those without bases: they come first, so that the others find their bases.
    Plain,
    /// Those with bases.
    Based,
}

/// A pack that chunks are taken out of.
struct Taken<'t, 'o> {
    origin: Origin<'o>,
    source: Source<'t, 'o>,
}

impl Copier<'_> {
    /// Copies what is wanted of a pack of another copy; `whole` is the pack, if it is at hand. Returns
    /// how many chunks that were.
    ///
    /// # Errors
    /// Damage of what is wanted that no other pack there makes good; failures of either store or
    /// cache.
    pub fn transfer(
        &mut self,
        origin: Origin<'_>,
        number: PackNumber,
        frames: Frames,
        whole: Option<Bytes>,
    ) -> Result<u64, Error> {
        let record = origin.catalog.pack(number)?;
        let reader = origin.repository.chunk_reader(record.writer)?;
        let described = origin.catalog.frames(number)?;
        let source = Source::new(&reader, &record, whole.unwrap_or_default());
        let mut taken = Taken { origin, source };
        let parts = parts_of(origin, number, &described)?;
        let mut copied = 0;
        for (at, part) in parts.iter().enumerate() {
            let patches_next = parts.get(at + 1).is_some_and(|next| next.count > 0 && next.patched);
            let kind = if part.frame.bases.is_empty() { Frames::Plain } else { Frames::Based };
            // A patch goes with the frame that it was made for.
            if part.count == 0 || kind != frames || (kind == Frames::Plain && patches_next) {
                continue;
            }
            origin.repository.check_cancelled()?;
            let patch = at.checked_sub(1).and_then(|before| parts.get(before));
            let patch = patch.filter(|patch| part.patched && patch.count > 0);
            if let Some(patch) = patch {
                self.make_room_for(record.kind, [patch.frame, part.frame])?;
                self.transfer_frame(&mut taken, patch, false)?;
                copied += patch.count as u64;
            }
            self.transfer_frame(&mut taken, part, patch.is_some())?;
            copied += part.count as u64;
        }
        Ok(copied)
    }

    fn transfer_frame(
        &mut self,
        taken: &mut Taken<'_, '_>,
        part: &FramePart<'_>,
        own_patch: bool,
    ) -> Result<(), Error> {
        let FramePart { place, frame, wanted, .. } = part;
        let (mut stored, mut plain) = (Vec::new(), Vec::new());
        let offset = u64::from(place.frame_offset);
        let source = &mut taken.source;
        let opened = source.fill(offset, offset + u64::from(place.frame_bytes)).and_then(|()| {
            let range = (source.start, source.bytes.as_ref());
            source.reader.open_frame(source.record, place, frame, range, &mut stored, &mut plain)
        });
        match opened {
            Ok(()) => {}
            Err(error) if error.is_damage() && !error.has_vanished() => {
                return self.transfer_copies(taken, place, frame, wanted);
            }
            Err(error) => return Err(error),
        }
        let Source { reader, record, .. } = taken.source;
        let kind = record.kind;
        let bases = self.bases_here(kind, frame)?;
        if bases && wanted.iter().all(|wanted| *wanted) {
            let (chunks, bases) = (frame.chunks.clone(), frame.bases.clone());
            self.note_open(&chunks, &bases);
            let moved = NewFrame { chunks, bases, own_patch };
            return self.add_frame(kind, (frame.codec, &stored), moved);
        }
        let part = only(frame, wanted, &mut plain)?;
        if bases && !part.bases.is_empty() {
            let prefix = prefix_of(taken.origin, reader, record, &part.bases)?;
            let listing_bytes = part.bases.len() * LISTING_BYTES;
            let stored = match prefix {
                Some(prefix) => self.codec.encode_based(&plain, &prefix, listing_bytes)?,
                None => None,
            };
            if let Some(stored) = stored.map(<[u8]>::to_vec) {
                // A patch may hold bytes of chunks that are not wanted: it is one no longer.
                let (chunks, bases) = (part.chunks, part.bases);
                let new = NewFrame { chunks, bases, ..NewFrame::default() };
                return self.add_frame(kind, (Codec::Zstd, &stored), new);
            }
        }
        self.note_open(&part.chunks, &[]);
        self.add_chunks(kind, &part.chunks, &plain)
    }

    /// Chunks of a frame that is damaged, out of other packs.
    fn transfer_copies(
        &mut self,
        taken: &Taken<'_, '_>,
        place: &ChunkPlace,
        frame: &FrameDescription,
        wanted: &[bool],
    ) -> Result<(), Error> {
        let kind = taken.source.record.kind;
        let mut offset = 0;
        let mut chunks = Vec::new();
        for (chunk, is_wanted) in frame.chunks.iter().zip(wanted) {
            if *is_wanted {
                let place = ChunkPlace { offset, bytes: chunk.bytes, ..*place };
                chunks.push(Wanted { id: chunk.id, place, tag: () });
            }
            offset += chunk.bytes;
        }
        let found = Mutex::new(Vec::new());
        taken.source.reader.fetch(chunks, &|run, content| {
            let content = content?;
            let copies = single(run, content).map(|(wanted, chunk)| (wanted.id, chunk.to_vec()));
            found.lock().extend(copies);
            Ok(())
        })?;
        for (id, chunk) in found.into_inner() {
            self.open.insert(id);
            self.add_chunk(kind, id, &chunk)?;
        }
        Ok(())
    }

    /// Notes chunks that can serve as bases as soon as the pack that is open is put.
    fn note_open(&mut self, chunks: &[ChunkRef], bases: &[ChunkRef]) {
        if bases.is_empty() {
            self.open.extend(chunks.iter().map(|chunk| chunk.id));
        }
    }

    /// Whether every base of a frame is here, in a frame without bases of a pack that lasts.
    fn bases_here(&mut self, kind: PackKind, frame: &FrameDescription) -> Result<bool, Error> {
        for base in &frame.bases {
            if self.has_base(kind, base)? {
                continue;
            }
            if !self.open.contains(&base.id) {
                return Ok(false);
            }
            self.end_frame(kind)?;
            self.put(kind)?;
            if !self.has_base(kind, base)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn has_base(&self, kind: PackKind, base: &ChunkRef) -> Result<bool, Error> {
        let copies = self.catalog.base_copies(base, kind, NAMESPACE_TRUSTED)?;
        Ok(copies.first().is_some_and(|place| self.catalog.lasts(place)))
    }
}

/// A frame, and what is wanted of it.
struct FramePart<'f> {
    frame: &'f FrameDescription,
    place: ChunkPlace,
    wanted: Vec<bool>,
    /// How many of its chunks are wanted.
    count: usize,
    /// Whether the frame before it is a patch that was made for it.
    patched: bool,
}

/// The frames of a pack.
fn parts_of<'f>(
    origin: Origin<'_>,
    number: PackNumber,
    frames: &'f [FrameDescription],
) -> Result<Vec<FramePart<'f>>, Error> {
    let (mut offset, mut position, mut before) = (HEADER_BYTES as u64, 0, None);
    let mut parts = Vec::with_capacity(frames.len());
    for (frame_number, frame) in (0_u32..).zip(frames) {
        let positions = position..position + frame.chunks.len();
        position = positions.end;
        let wanted = positions.map(|at| origin.wanted.get(number, at)).collect::<Vec<_>>();
        parts.push(FramePart {
            frame,
            place: place_of(number, frame_number, offset, frame)?,
            count: wanted.iter().filter(|wanted| **wanted).count(),
            wanted,
            patched: !frame.bases.is_empty() && patch::is_patched(before, &frame.bases),
        });
        offset += u64::from(frame.sealed_bytes);
        before = Some(frame);
    }
    Ok(parts)
}

/// The content of bases in a row; `None` when one of them cannot be had there.
fn prefix_of(
    origin: Origin<'_>,
    reader: &ChunkReader<'_>,
    record: &PackRecord,
    bases: &[ChunkRef],
) -> Result<Option<Vec<u8>>, Error> {
    let mut prefix = Vec::new();
    for base in bases {
        let copies = origin.catalog.base_copies(base, record.kind, record.writer)?;
        let mut found = None;
        for place in copies {
            match reader.base(base.id, &place) {
                Ok(content) => {
                    found = Some(content);
                    break;
                }
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        let Some(content) = found else { return Ok(None) };
        prefix.extend_from_slice(&content);
    }
    Ok(Some(prefix))
}
