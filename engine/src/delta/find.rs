//! Which chunks a new one may be stored against: names are turned into places in frames without
//! bases, and their neighbours are added where content moves.

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
    frames: HashMap<(PackNumber, u32), Arc<[Base]>>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(catalog: &'a Catalog, namespace: WriterId) -> Self {
        Self { catalog, namespace, layouts: Mutex::default() }
    }

    /// For each chunk the bases it may have. `alike` names chunks of like content.
    pub(super) fn bases(
        &self,
        kind: PackKind,
        chunks: &[NewChunk<'_>],
        alike: &[Option<ChunkId>],
    ) -> Result<Vec<Arc<[Base]>>, Error> {
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
        let mut last: Arc<[Base]> = Arc::default();
        for (chunk, alike) in chunks.iter().zip(alike) {
            let mut bases: Arc<[Base]> = Arc::default();
            if chunk.data.len() >= CHUNK_BYTES_MIN {
                for id in [*alike, chunk.hint.former].into_iter().flatten() {
                    if let (true, Some(place)) = (bases.is_empty(), known.get(&id)) {
                        bases = self.resolve(kind, id, *place, chunk.hint.moves, &mut chains)?;
                    }
                }
                if bases.is_empty() && chunk.hint.moves {
                    // What was put between others is most like what follows them, or like them.
                    let next = last.last().map(|last| self.beside(last, 1)).transpose()?;
                    let beside = self.around(next.flatten(), true)?;
                    found.push(if beside.is_empty() { last } else { beside });
                    last = Arc::default();
                    continue;
                }
            }
            last = Arc::clone(&bases);
            found.push(bases);
        }
        Ok(found)
    }

    /// The chunk itself, if it lies in a frame without bases, and what lies beside it if it
    /// `moves`; else all bases of its frame: what is not of use there is found out later.
    fn resolve(
        &self,
        kind: PackKind,
        id: ChunkId,
        place: ChunkPlace,
        moves: bool,
        chains: &mut Chains,
    ) -> Result<Arc<[Base]>, Error> {
        if !place.based {
            let itself = ChunkRef { id, bytes: place.bytes };
            let place = self.catalog.base_place(&itself, kind, place, self.namespace)?;
            return self.around(self.if_it_lasts(id, place), moves);
        }
        let key = (place.pack, place.frame_number);
        if let Some(bases) = chains.frames.get(&key) {
            return Ok(Arc::clone(bases));
        }
        let (named, _) = self.catalog.bases(&place)?;
        let ids = named.iter().map(|base| base.id).collect::<Vec<_>>();
        let places = self.catalog.places(&ids, self.namespace)?;
        let mut bases = Vec::with_capacity(named.len());
        for (base, first) in named.iter().zip(places) {
            let Some(first) = first else { continue };
            let place = self.catalog.base_place(base, kind, first, self.namespace)?;
            bases.extend(self.if_it_lasts(base.id, place));
        }
        let bases = Arc::<[Base]>::from(bases);
        chains.frames.insert(key, Arc::clone(&bases));
        Ok(bases)
    }

    /// A base in a condemned pack can still be read and is about to be deleted: what the backup relies
    /// on is looked at again only where it was condemned since the backup began.
    fn if_it_lasts(&self, id: ChunkId, place: Option<ChunkPlace>) -> Option<Base> {
        place.filter(|place| self.catalog.lasts(place)).map(|place| Base { id, place })
    }

    /// A base, with its neighbours if content `moves`, in the order in which they lie.
    fn around(&self, base: Option<Base>, moves: bool) -> Result<Arc<[Base]>, Error> {
        let Some(base) = base else { return Ok(Arc::default()) };
        if !moves {
            return Ok(Arc::from([base]));
        }
        let neighbours = [self.beside(&base, -1)?, Some(base), self.beside(&base, 1)?];
        Ok(neighbours.into_iter().flatten().collect())
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
