//! Which chunks a new one is to be compressed against: names are turned into places in frames
//! without bases, and their neighbours are added where content moves.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use cairn_format::ids::{ChunkId, WriterId};
use cairn_format::names::PackKind;
use cairn_format::pack::ChunkRef;
use parking_lot::Mutex;

use super::{Base, CHUNK_BYTES_MIN, NewChunk};
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::local::{ChunkPlace, PackNumber};

/// Directories of packs kept at hand, and the most chunks that one of them may list: together at
/// most 12 MiB.
const LAYOUTS_MAX: usize = 8;
const LAYOUT_CHUNKS_MAX: u32 = 20_000;

/// The chunks of a pack in order.
type Layout = Vec<(ChunkId, ChunkPlace)>;

/// Turns candidates into bases.
pub(super) struct Finder<'a> {
    catalog: &'a Catalog,
    namespace: WriterId,
    layouts: Mutex<VecDeque<(PackNumber, Arc<Layout>)>>,
}

/// Bases of frames that were looked up for one batch.
#[derive(Default)]
struct Chains {
    frames: HashMap<(PackNumber, u32), Vec<ChunkRef>>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(catalog: &'a Catalog, namespace: WriterId) -> Self {
        Self { catalog, namespace, layouts: Mutex::default() }
    }

    /// For each chunk its bases, the one most like it first. `alike` names chunks of like content.
    pub(super) fn bases(
        &self,
        kind: PackKind,
        chunks: &[NewChunk<'_>],
        alike: &[Option<ChunkId>],
    ) -> Result<Vec<Vec<Base>>, Error> {
        let mut ids = alike.iter().flatten().copied().collect::<Vec<_>>();
        ids.extend(chunks.iter().filter_map(|chunk| chunk.hint.former));
        ids.sort_unstable();
        ids.dedup();
        let places = self.catalog.places(&ids, self.namespace)?;
        let known = ids
            .into_iter()
            .zip(places)
            .filter_map(|(id, place)| Some((id, place?)))
            .collect::<HashMap<_, _>>();
        let mut chains = Chains::default();
        let mut found = Vec::with_capacity(chunks.len());
        let mut last: Option<Base> = None;
        for (chunk, alike) in chunks.iter().zip(alike) {
            let mut base = None;
            if chunk.data.len() >= CHUNK_BYTES_MIN {
                for id in [*alike, chunk.hint.former].into_iter().flatten() {
                    if let (None, Some(place)) = (&base, known.get(&id)) {
                        base = self.resolve(kind, id, *place, &mut chains)?;
                    }
                }
                if base.is_none()
                    && chunk.hint.moves
                    && let Some(last) = last
                {
                    base = self.beside(&last, 1)?;
                }
            }
            let mut bases = Vec::new();
            if let Some(base) = base {
                bases.push(base);
                if chunk.hint.moves {
                    bases.extend(self.beside(&base, -1)?);
                    bases.extend(self.beside(&base, 1)?);
                }
            }
            last = base;
            found.push(bases);
        }
        Ok(found)
    }

    /// The chunk itself, if it lies in a frame without bases; else the part of its frame's bases
    /// that lies where it lies in its frame.
    fn resolve(
        &self,
        kind: PackKind,
        id: ChunkId,
        place: ChunkPlace,
        chains: &mut Chains,
    ) -> Result<Option<Base>, Error> {
        let itself = ChunkRef { id, bytes: place.bytes };
        if !place.based {
            let place = self.catalog.base_place(&itself, kind, place, self.namespace)?;
            return Ok(self.if_it_lasts(id, place));
        }
        let key = (place.pack, place.frame_number);
        let bases = match chains.frames.get(&key) {
            Some(bases) => bases,
            None => {
                let (bases, _) = self.catalog.bases(&place)?;
                chains.frames.entry(key).or_insert(bases)
            }
        };
        let Some(base) = counterpart(bases, &place) else { return Ok(None) };
        let first = self.catalog.places(&[base.id], self.namespace)?.into_iter().next().flatten();
        let Some(first) = first else { return Ok(None) };
        let place = self.catalog.base_place(&base, kind, first, self.namespace)?;
        Ok(self.if_it_lasts(base.id, place))
    }

    /// A base in a condemned pack can still be read and is about to be deleted: what the backup relies
    /// on is looked at again only where it was condemned since the backup began.
    fn if_it_lasts(&self, id: ChunkId, place: Option<ChunkPlace>) -> Option<Base> {
        place.filter(|place| self.catalog.lasts(place)).map(|place| Base { id, place })
    }

    /// The chunk that lies beside a base in its frame: before (-1) or behind it (1).
    fn beside(&self, base: &Base, step: isize) -> Result<Option<Base>, Error> {
        let Some(layout) = self.layout(base.place.pack)? else { return Ok(None) };
        let key = |place: &ChunkPlace| (place.frame_number, place.offset);
        let wanted = key(&base.place);
        let Ok(at) = layout.binary_search_by_key(&wanted, |(_, place)| key(place)) else {
            return Ok(None);
        };
        let neighbour = at.checked_add_signed(step).and_then(|at| layout.get(at));
        Ok(neighbour
            .filter(|(_, place)| place.frame_number == base.place.frame_number)
            .map(|(id, place)| Base { id: *id, place: *place }))
    }

    fn layout(&self, pack: PackNumber) -> Result<Option<Arc<Layout>>, Error> {
        if let Some((_, layout)) = self.layouts.lock().iter().find(|(number, _)| *number == pack) {
            return Ok(Some(Arc::clone(layout)));
        }
        let record = self.catalog.pack(pack)?;
        // Ids of other namespaces are kept under other keys.
        if record.chunks > LAYOUT_CHUNKS_MAX || record.writer != self.namespace {
            return Ok(None);
        }
        let mut layout = Vec::with_capacity(record.chunks as usize);
        self.catalog.index().for_each_chunk_of_pack(pack, &mut |id, place| {
            layout.push((*id, *place));
            ControlFlow::Continue(())
        })?;
        let layout = Arc::new(layout);
        let mut layouts = self.layouts.lock();
        if layouts.len() >= LAYOUTS_MAX {
            layouts.pop_front();
        }
        layouts.push_back((pack, Arc::clone(&layout)));
        Ok(Some(layout))
    }
}

/// Of a frame's bases the one that lies where the middle of a chunk lies in the frame. Frames of
/// page files have one base for each chunk, of the same length: there it is exact.
fn counterpart(bases: &[ChunkRef], place: &ChunkPlace) -> Option<ChunkRef> {
    let total = bases.iter().map(|base| u64::from(base.bytes)).sum::<u64>();
    let middle = u64::from(place.offset) + u64::from(place.bytes) / 2;
    let wanted =
        (u128::from(middle) * u128::from(total)).checked_div(u128::from(place.plain_bytes))?;
    let mut end = 0_u128;
    bases.iter().copied().find(|base| {
        end += u128::from(base.bytes);
        wanted < end
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bases(lengths: &[u32]) -> Vec<ChunkRef> {
        let made = (0_u8..).zip(lengths);
        made.map(|(n, bytes)| ChunkRef { id: ChunkId::from_bytes([n; 32]), bytes: *bytes })
            .collect()
    }

    fn place(offset: u32, bytes: u32, plain_bytes: u32) -> ChunkPlace {
        ChunkPlace {
            pack: PackNumber(1),
            frame_number: 0,
            frame_offset: 0,
            frame_bytes: 1,
            plain_bytes,
            codec: 1,
            based: true,
            offset,
            bytes,
        }
    }

    proptest! {
        #[test]
        fn chunks_with_a_base_each_find_their_own(lengths in prop::collection::vec(1_u32..100_000, 1..20)) {
            let (bases, total) = (bases(&lengths), lengths.iter().sum());
            let mut offset = 0;
            for (length, base) in lengths.iter().zip(&bases) {
                prop_assert_eq!(counterpart(&bases, &place(offset, *length, total)), Some(*base));
                offset += length;
            }
        }

        #[test]
        fn whatever_an_index_says_a_base_of_the_frame_is_found_or_none(
            lengths in prop::collection::vec(any::<u32>(), 0..4), offset: u32, bytes: u32, plain: u32,
        ) {
            let bases = bases(&lengths);
            let found = counterpart(&bases, &place(offset, bytes, plain));
            prop_assert!(found.is_none_or(|base| bases.contains(&base)));
        }
    }
}
