//! Loading many packs: their chunks are sorted and ingested as finished table files.
//!
//! A crash at any point must not leave a chunk's place in a pack that is not there, least of all
//! one whose number is then given to another pack. So a load leaves a mark before its first pack,
//! makes the packs' records durable before it ingests places that point to them, and takes the
//! mark away together with noting the segments. Whoever finds the mark removes the packs.

use cairn_format::ids::{ChunkId, SegmentId};
use parking_lot::MutexGuard;

use super::db::{OWN_LOADING, Table};
use super::index::{RocksIndex, sort_and_thin};
use super::record::{PLACE_BYTES, Tally, encode_place, number_key, other_key};
use crate::index::local::{BulkLoad, ChunkPlace, IndexError, NewPack, PackNumber};

/// A load that is under way.
pub(super) struct Load<'a> {
    index: &'a RocksIndex,
    tally: MutexGuard<'a, Tally>,
    first: PackNumber,
    /// Known packs that the end of the load commits.
    committed: Vec<PackNumber>,
    /// Places not yet written.
    places: Vec<(ChunkId, ChunkPlace)>,
    places_max: usize,
    finished: bool,
}

impl<'a> Load<'a> {
    pub(super) fn begin(index: &'a RocksIndex) -> Result<Self, IndexError> {
        let tally = index.tally.lock();
        let first = PackNumber(tally.next);
        let mut batch = index.layers.batch();
        batch.put(Table::Own, OWN_LOADING, &number_key(first))?;
        batch.write()?;
        // Sorting and looking up take as much again as the places themselves.
        let places_max = index.budget.sort_bytes() / 2 / size_of::<(ChunkId, ChunkPlace)>();
        let (committed, places) = (Vec::new(), Vec::new());
        Ok(Self { index, tally, first, committed, places, places_max, finished: false })
    }

    /// Writes the places collected so far: chunks that have no place yet go into a table file,
    /// the others among the further places.
    fn write_places(&mut self) -> Result<(), IndexError> {
        if self.places.is_empty() {
            return Ok(());
        }
        let layers = &self.index.layers;
        let mut places = std::mem::take(&mut self.places);
        sort_and_thin(&mut places);
        let mut batch = layers.batch();
        let mut fresh: Vec<([u8; 32], [u8; PLACE_BYTES])> = Vec::new();
        let known = self.index.known(places.iter().map(|(id, _)| id))?;
        let mut previous = None;
        for ((id, place), known) in places.iter().zip(known) {
            let value = encode_place(place);
            if known.is_some() || previous == Some(id) {
                batch.put(Table::Others, &other_key(id, place.pack), &value)?;
            } else {
                fresh.push((*id.as_bytes(), value));
            }
            previous = Some(id);
        }
        places.clear();
        self.places = places;
        batch.write()?;
        // The records of the packs, before anything points to them.
        layers.flush(Table::Records)?;
        if fresh.is_empty() {
            return Ok(());
        }
        let file = self.index.scratch.join(super::open::LOAD_FILE);
        let pairs = fresh.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
        layers.ingest(Table::Chunks, pairs, &file)
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
        if self.places.len() >= self.places_max { self.write_places() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>, segments: &[SegmentId]) -> Result<(), IndexError> {
        self.write_places()?;
        let mut batch = self.index.layers.batch();
        for number in &self.committed {
            batch.delete(Table::Pending, &number_key(*number))?;
        }
        for segment in segments {
            batch.put(Table::Segments, segment.as_bytes(), &[1])?;
        }
        batch.delete(Table::Own, OWN_LOADING)?;
        batch.write()?;
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
