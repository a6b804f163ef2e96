//! Loading many packs: their chunks are sorted outside of memory, written as finished table
//! files and taken over in one step.
//!
//! A crash at any point must not leave a chunk's place in a pack that is not there, least of all
//! one whose number is then given to another pack. So a load leaves a mark before its first pack,
//! makes the packs' records durable before it takes over places that point to them, and takes the
//! mark away together with noting the segments. Whoever finds the mark removes the packs.

use cairn_format::ids::{ChunkId, SegmentId};
use parking_lot::MutexGuard;

use super::db::{OWN_LOADING, Table, TableFiles};
use super::index::{BATCH_BYTES, RocksIndex, sort_and_thin};
use super::layers::Batch;
use super::record::{PLACE_BYTES, Tally, encode_place, number_key, other_key};
use super::spill::Spill;
use crate::index::local::{BulkLoad, ChunkPlace, IndexError, NewPack, PackNumber};

/// Chunks of a load that is so small that a table file does not pay.
const SMALL_LOAD: usize = 1 << 10;
/// Chunks looked up and written at once.
const GROUP: usize = 1 << 12;

/// Writes the first place of a chunk.
type Fresh<'f, 'a> =
    dyn FnMut(&mut Batch<'a>, &ChunkId, &[u8; PLACE_BYTES]) -> Result<(), IndexError> + 'f;

/// A load that is under way.
pub(super) struct Load<'a> {
    index: &'a RocksIndex,
    tally: MutexGuard<'a, Tally>,
    first: PackNumber,
    /// Whether there was nothing before, so that no chunk can have a place yet.
    was_empty: bool,
    /// Known packs that the end of the load commits.
    committed: Vec<PackNumber>,
    /// Places not yet spilled.
    places: Vec<(ChunkId, ChunkPlace)>,
    places_max: usize,
    spill: Option<Spill>,
    finished: bool,
}

impl<'a> Load<'a> {
    pub(super) fn begin(index: &'a RocksIndex) -> Result<Self, IndexError> {
        let tally = index.tally.lock();
        let first = PackNumber(tally.next);
        let was_empty = tally.counts.packs == 0;
        let mut batch = index.layers.batch();
        batch.put(Table::Own, OWN_LOADING, &number_key(first))?;
        batch.write()?;
        // Sorting takes as much again as half the places.
        let places_max = index.budget.sort_bytes() / 3 * 2 / size_of::<(ChunkId, ChunkPlace)>();
        let (committed, places) = (Vec::new(), Vec::new());
        let (spill, finished) = (None, false);
        Ok(Self { index, tally, first, was_empty, committed, places, places_max, spill, finished })
    }

    fn spill_places(&mut self) -> Result<(), IndexError> {
        sort_and_thin(&mut self.places);
        let spill = match &mut self.spill {
            Some(spill) => spill,
            none => none.insert(Spill::create(&self.index.scratch)?),
        };
        spill.add_run(&self.places)?;
        self.places.clear();
        Ok(())
    }

    /// Places the chunks of a load that fits into memory.
    fn place_small(&mut self) -> Result<(), IndexError> {
        sort_and_thin(&mut self.places);
        let mut batch = self.index.layers.batch();
        let mut previous = None;
        self.place_group(&self.places, &mut previous, &mut batch, &mut |batch, id, value| {
            batch.put(Table::Chunks, id.as_bytes(), value)
        })?;
        batch.write()
    }

    /// Places the chunks that were spilled.
    fn place_spilled(&mut self) -> Result<(), IndexError> {
        self.spill_places()?;
        self.places.shrink_to_fit();
        let layers = &self.index.layers;
        let Some(spill) = &self.spill else { return Ok(()) };
        let mut merged = spill.merge(self.index.budget.sort_bytes())?;
        let mut files = TableFiles::new(layers.top(), Table::Chunks, &self.index.scratch);
        let mut batch = layers.batch();
        let mut previous = None;
        let mut group = Vec::with_capacity(GROUP);
        loop {
            group.clear();
            while group.len() < GROUP {
                match merged.next(self.index)? {
                    Some(place) => group.push(place),
                    None => break,
                }
            }
            if group.is_empty() {
                break;
            }
            self.place_group(&group, &mut previous, &mut batch, &mut |_, id, value| {
                files.put(id.as_bytes(), value)
            })?;
            if batch.bytes() > BATCH_BYTES {
                std::mem::replace(&mut batch, layers.batch()).write()?;
            }
        }
        batch.write()?;
        // The records of the packs, before anything points to them.
        layers.flush(Table::Records)?;
        files.ingest()
    }

    /// For places in order: those that are the first of their chunk go to `fresh`, the others
    /// among the further places. `previous` is the chunk before.
    fn place_group(
        &self,
        group: &[(ChunkId, ChunkPlace)],
        previous: &mut Option<ChunkId>,
        batch: &mut Batch<'a>,
        fresh: &mut Fresh<'_, 'a>,
    ) -> Result<(), IndexError> {
        let known = match self.was_empty {
            true => vec![None; group.len()],
            false => self.index.known(group.iter().map(|(id, _)| id))?,
        };
        for ((id, place), known) in group.iter().zip(known) {
            let value = encode_place(place);
            if known.is_some() || *previous == Some(*id) {
                batch.put(Table::Others, &other_key(id, place.pack), &value)?;
            } else {
                fresh(batch, id, &value)?;
            }
            *previous = Some(*id);
        }
        Ok(())
    }
}

impl BulkLoad for Load<'_> {
    fn add(&mut self, pack: &NewPack) -> Result<(), IndexError> {
        if let Some(number) = self.index.number_of(&pack.id)? {
            self.committed.push(number);
            return Ok(());
        }
        let mut counted = *self.tally;
        let mut batch = self.index.layers.batch();
        let number = self.index.put_pack(&mut batch, &mut counted, pack)?;
        batch.write()?;
        *self.tally = counted;
        self.places.extend(pack.places(number));
        // Only between packs: a chunk that one pack lists twice must meet itself in the sort.
        if self.places.len() >= self.places_max { self.spill_places() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>, segments: &[SegmentId]) -> Result<(), IndexError> {
        if self.spill.is_none() && self.places.len() <= SMALL_LOAD {
            self.place_small()?;
        } else {
            self.place_spilled()?;
        }
        let mut batch = self.index.layers.batch();
        for number in &self.committed {
            batch.delete(Table::Pending, &number_key(*number))?;
        }
        for segment in segments {
            batch.put(Table::Segments, segment.as_bytes(), &[1])?;
        }
        batch.delete(Table::Own, OWN_LOADING)?;
        batch.write()?;
        self.index.nearby.reset();
        self.finished = true;
        self.index.note_manifest();
        Ok(())
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // If this fails, the mark makes the next open do it.
            let _ = self.index.take_back(&mut self.tally, self.first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::local::rocks::open::try_primary;
    use crate::index::local::tests::{chunk_id, new_pack, segment_id};
    use crate::index::local::{LocalIndex, LocalOptions, PackState};
    use cairn_format::ids::RepositoryId;

    #[test]
    fn a_load_that_ends_between_chunks_and_segments_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let copy = RepositoryId::from_bytes([7; 16]).into();
        let open = || try_primary(folder.path(), copy, LocalOptions::default()).ok().unwrap();
        let place = |index: &RocksIndex, chunk| {
            let mut out = Vec::new();
            index.lookup_many(&[chunk_id(chunk)], &mut out).unwrap();
            out.pop().unwrap()
        };
        let index = open();
        let old = index.add_pack(&new_pack(1, &[vec![1, 2]]), PackState::Committed).unwrap();
        let mut load = Load::begin(&index).unwrap();
        for number in 2..42 {
            let chunks = (number * 1000..number * 1000 + 1000).chain([1]).collect();
            load.add(&new_pack(number, &[chunks])).unwrap();
        }
        load.place_spilled().unwrap();
        // As if the process died here: nothing of the load is undone or concluded.
        std::mem::forget(load);
        assert!(place(&index, 2000).is_some());
        drop(index);
        let index = open();
        assert_eq!(place(&index, 2000), None);
        assert_eq!(place(&index, 1).map(|place| place.pack), Some(old));
        assert_eq!(index.counts().unwrap().packs, 1);
        // Done again, it holds; and no number was given twice.
        let mut load = index.begin_load().unwrap();
        load.add(&new_pack(2, &[vec![2000]])).unwrap();
        load.finish(&[segment_id(1)]).unwrap();
        assert!(place(&index, 2000).unwrap().pack.0 > 40);
    }
}
