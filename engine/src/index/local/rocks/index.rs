//! The local index over RocksDB: adding to it, and what callers ask of it. Look-ups are in `lookup`,
//! removals in `remove`.

use std::ops::ControlFlow;
use std::path::PathBuf;

use cairn_format::ids::{ChunkId, PackId, SegmentId};
use parking_lot::Mutex;

use super::db::{Budget, OWN_TALLY, Table};
use super::handover;
use super::layers::{Batch, Layers};
use super::load::Load;
use super::nearby::Nearby;
use super::open::{self, Guard};
use super::record::{
    Tally, base_key, decode_bases, decode_gone, decode_number, decode_sketch, encode_bases,
    encode_layout, encode_ledger, encode_place, encode_record, encode_sketch, number_key,
    other_key, slot_key,
};
use super::remove::Forget;
use crate::index::local::{
    BulkLoad, ChunkPlace, Counts, EachPack, GonePack, IndexError, LedgerEntry, LocalIndex,
    MemoChange, NewPack, PackNumber, PackRecord, PackState, SketchEntry, SketchSlot,
};

/// Largest set of changes made at once where they need not be atomic, bytes.
pub(super) const BATCH_BYTES: usize = 1 << 20;
/// Stands before values of callers, which may be empty: see `Layers`.
const VALUE: u8 = 1;

/// A local index in files.
pub(super) struct RocksIndex {
    pub(super) layers: Layers,
    pub(super) budget: Budget,
    /// Taken by every write, and by a load for as long as it lasts.
    pub(super) tally: Mutex<Tally>,
    /// Where files to be ingested are built; on the database's file system.
    pub(super) scratch: PathBuf,
    pub(super) nearby: Nearby,
    /// Last: given back after the databases are closed. Set when opening succeeded.
    pub(super) guard: Option<Guard>,
}

impl Drop for RocksIndex {
    fn drop(&mut self) {
        self.note_manifest();
        if let Some(Guard::Overlay { handover, .. }) = &mut self.guard {
            // Without it other processes' work is merely repeated.
            *handover = handover::prepare(&self.layers).unwrap_or_default();
        }
    }
}

impl RocksIndex {
    pub(super) fn new(
        layers: Layers,
        budget: Budget,
        scratch: PathBuf,
        forget: Forget,
    ) -> Result<Self, IndexError> {
        let tally = match layers.get(Table::Own, OWN_TALLY)? {
            None => Tally::default(),
            Some(value) => {
                Tally::decode(&value).ok_or_else(|| layers.corrupt("its counts make no sense"))?
            }
        };
        let (tally, nearby) = (Mutex::new(tally), Nearby::default());
        let index = Self { layers, budget, tally, scratch, nearby, guard: None };
        index.forget_unfinished(forget)?;
        Ok(index)
    }

    /// See [`open::note_manifest`].
    pub(super) fn note_manifest(&self) {
        if let Some(Guard::Primary { .. }) = self.guard {
            open::note_manifest(self.layers.root());
        }
    }

    /// Gives a new pack its number, and puts everything but its chunks' places into `batch`.
    pub(super) fn put_pack(
        &self,
        batch: &mut Batch<'_>,
        tally: &mut Tally,
        pack: &NewPack,
    ) -> Result<PackNumber, IndexError> {
        let chunks = pack.check()?;
        let number = PackNumber(tally.next);
        tally.next = tally
            .next
            .checked_add(1)
            .ok_or_else(|| IndexError::Exhausted { folder: self.layers.root().to_owned() })?;
        let record = pack.record(chunks);
        tally.count(&record);
        let key = number_key(number);
        batch.put(Table::Records, &key, &encode_record(&record))?;
        batch.put(Table::Numbers, pack.id.as_bytes(), &key)?;
        batch.put(Table::Layouts, &key, &encode_layout(pack, chunks))?;
        for (frame_number, frame) in (0_u32..).zip(&pack.frames) {
            if !frame.bases.is_empty() {
                let bases = encode_bases(&frame.bases);
                batch.put(Table::Bases, &base_key(number, frame_number), &bases)?;
            }
        }
        batch.put(Table::Own, OWN_TALLY, &tally.encode())?;
        Ok(number)
    }

    fn change(&self, table: Table, changes: &[MemoChange]) -> Result<(), IndexError> {
        let _tally = self.tally.lock();
        let mut batch = self.layers.batch();
        for (key, value) in changes {
            match value {
                Some(value) => batch.put(table, key, &wrap_value(value))?,
                None => batch.delete(table, key)?,
            }
        }
        batch.write()
    }

    /// The keys of a table that begin with `prefix`, ascending.
    fn keys_of(&self, table: Table, prefix: &[u8]) -> Result<Vec<Vec<u8>>, IndexError> {
        let mut keys = Vec::new();
        self.layers.scan(table, prefix, prefix, &mut |key, _| {
            keys.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(keys)
    }

    /// The tally as it was written last: not the one that a load may hold for long.
    fn last_tally(&self) -> Result<Tally, IndexError> {
        let value = self.layers.get(Table::Own, OWN_TALLY)?;
        value.map_or(Ok(Tally::default()), |value| {
            Tally::decode(&value).ok_or_else(|| self.layers.corrupt("its counts make no sense"))
        })
    }
}

/// Sorts places by chunk and pack, and keeps the place of a chunk in each pack that counts.
pub(super) fn sort_and_thin(places: &mut Vec<(ChunkId, ChunkPlace)>) {
    // A stable sort keeps the order of the directory.
    places.sort_by_key(|(id, place)| (*id, place.pack, place.based));
    places.dedup_by_key(|(id, place)| (*id, place.pack));
}

impl LocalIndex for RocksIndex {
    fn lookup_many(
        &self,
        ids: &[ChunkId],
        out: &mut Vec<Option<ChunkPlace>>,
    ) -> Result<(), IndexError> {
        self.places(ids, out)
    }

    fn copies(&self, id: &ChunkId) -> Result<Vec<ChunkPlace>, IndexError> {
        self.all_places(id)
    }

    fn pack(&self, number: PackNumber) -> Result<Option<PackRecord>, IndexError> {
        let value = self.layers.get(Table::Records, &number_key(number))?;
        value.map(|value| self.record(&value)).transpose()
    }

    fn pack_number(&self, id: &PackId) -> Result<Option<PackNumber>, IndexError> {
        self.number_of(id)
    }

    fn frame_bases(
        &self,
        pack: PackNumber,
        frame_number: u32,
    ) -> Result<Vec<(ChunkId, u32)>, IndexError> {
        match self.layers.get(Table::Bases, &base_key(pack, frame_number))? {
            None => Ok(Vec::new()),
            Some(value) => decode_bases(&value)
                .ok_or_else(|| self.layers.corrupt("a list of base chunks makes no sense")),
        }
    }

    fn add_pack(&self, pack: &NewPack, state: PackState) -> Result<PackNumber, IndexError> {
        let mut tally = self.tally.lock();
        let mut batch = self.layers.batch();
        if let Some(number) = self.number_of(&pack.id)? {
            if state == PackState::Committed {
                batch.delete(Table::Pending, &number_key(number))?;
                batch.write()?;
            }
            return Ok(number);
        }
        let mut counted = *tally;
        let number = self.put_pack(&mut batch, &mut counted, pack)?;
        if state == PackState::Pending {
            batch.put(Table::Pending, &number_key(number), pack.id.as_bytes())?;
        }
        let mut places: Vec<_> = pack.places(number).collect();
        sort_and_thin(&mut places);
        let known = self.known(places.iter().map(|(id, _)| id))?;
        let shadowed = known.iter().any(Option::is_some);
        for ((id, place), known) in places.iter().zip(known) {
            let value = encode_place(place);
            match known {
                None => batch.put(Table::Chunks, id.as_bytes(), &value)?,
                Some(_) => batch.put(Table::Others, &other_key(id, number), &value)?,
            }
        }
        batch.write()?;
        *tally = counted;
        if shadowed {
            self.nearby.shadowed(number);
        }
        Ok(number)
    }

    fn commit_packs(&self, packs: &[PackId], segment: &SegmentId) -> Result<(), IndexError> {
        let _tally = self.tally.lock();
        let mut batch = self.layers.batch();
        for id in packs {
            if let Some(number) = self.number_of(id)? {
                batch.delete(Table::Pending, &number_key(number))?;
            }
        }
        batch.put(Table::Segments, segment.as_bytes(), &[VALUE])?;
        batch.write()
    }

    fn pending_packs(&self) -> Result<Vec<PackId>, IndexError> {
        let mut pending = Vec::new();
        self.layers.scan(Table::Pending, &[], &[], &mut |_, value| {
            let id = PackId::from_slice(value)
                .map_err(|_| self.layers.corrupt("a pending pack makes no sense"))?;
            pending.push(id);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(pending)
    }

    fn remove_pack(&self, id: &PackId) -> Result<bool, IndexError> {
        self.remove(&mut self.tally.lock(), id)
    }

    fn begin_load(&self) -> Result<Box<dyn BulkLoad + '_>, IndexError> {
        Ok(Box::new(Load::begin(self)?))
    }

    fn segments(&self) -> Result<Vec<SegmentId>, IndexError> {
        let mut segments = Vec::new();
        self.layers.scan(Table::Segments, &[], &[], &mut |key, _| {
            let id = SegmentId::from_slice(key)
                .map_err(|_| self.layers.corrupt("a segment's name makes no sense"))?;
            segments.push(id);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(segments)
    }

    fn add_segment(&self, id: &SegmentId) -> Result<(), IndexError> {
        self.commit_packs(&[], id)
    }

    fn remove_segment(&self, id: &SegmentId) -> Result<(), IndexError> {
        let _tally = self.tally.lock();
        let mut batch = self.layers.batch();
        batch.delete(Table::Segments, id.as_bytes())?;
        batch.write()
    }

    fn get_file(&self, key: &[u8; 32]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.layers.get(Table::Files, key)?.map(unwrap_value))
    }

    fn put_files(&self, files: &[([u8; 32], Vec<u8>)]) -> Result<(), IndexError> {
        let _tally = self.tally.lock();
        let mut batch = self.layers.batch();
        for (key, value) in files {
            batch.put(Table::Files, key, &wrap_value(value))?;
        }
        batch.write()
    }

    fn retain_files(
        &self,
        keep: &mut dyn FnMut(&[u8; 32], &[u8]) -> bool,
    ) -> Result<u64, IndexError> {
        self.retain(Table::Files, |key, value| {
            let name =
                key.try_into().map_err(|_| self.layers.corrupt("a file's key makes no sense"))?;
            Ok(keep(name, value.get(1..).unwrap_or_default()))
        })
    }

    fn forget_sketches(
        &self,
        is_gone: &mut dyn FnMut(&ChunkId) -> bool,
    ) -> Result<u64, IndexError> {
        self.retain(Table::Sketches, |_, value| {
            Ok(decode_sketch(value).is_some_and(|entry| !is_gone(&entry.chunk)))
        })
    }

    fn compact(&self) -> Result<bool, IndexError> {
        let Some(Guard::Primary { .. }) = self.guard else { return Ok(false) };
        let _tally = self.tally.lock();
        self.layers.top().compact()?;
        Ok(true)
    }

    fn ledger_get(&self, id: &PackId) -> Result<Option<LedgerEntry>, IndexError> {
        let value = self.layers.get(Table::Ledger, id.as_bytes())?;
        value.map(|value| self.ledger(&value)).transpose()
    }

    fn ledger_put(&self, entries: &[(PackId, LedgerEntry)]) -> Result<(), IndexError> {
        let _tally = self.tally.lock();
        let mut batch = self.layers.batch();
        for (id, entry) in entries {
            if self.number_of(id)?.is_some() {
                batch.put(Table::Ledger, id.as_bytes(), &encode_ledger(entry))?;
            }
        }
        batch.write()
    }

    fn for_each_pack(&self, each: &mut EachPack<'_>) -> Result<(), IndexError> {
        self.each_pack(each)
    }

    fn for_each_chunk_of_pack(
        &self,
        number: PackNumber,
        each: &mut dyn FnMut(&ChunkId, &ChunkPlace) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        self.each_listed(number, each)
    }

    fn get_sketches(&self, slots: &[SketchSlot]) -> Result<Vec<Option<SketchEntry>>, IndexError> {
        self.sketches(slots)
    }

    fn put_sketches(&self, entries: &[(SketchSlot, SketchEntry)]) -> Result<(), IndexError> {
        let _tally = self.tally.lock();
        let mut batch = self.layers.batch();
        for (slot, entry) in entries {
            batch.put(Table::Sketches, &slot_key(*slot), &encode_sketch(entry))?;
        }
        batch.write()
    }

    fn get_memo(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.layers.get(Table::Memos, key)?.map(unwrap_value))
    }

    fn put_memos(&self, changes: &[MemoChange]) -> Result<(), IndexError> {
        self.change(Table::Memos, changes)
    }

    fn memo_keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, IndexError> {
        self.keys_of(Table::Memos, prefix)
    }

    fn get_object(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.layers.get(Table::Objects, key)?.map(unwrap_value))
    }

    fn put_objects(&self, changes: &[MemoChange]) -> Result<(), IndexError> {
        self.change(Table::Objects, changes)
    }

    fn object_keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, IndexError> {
        self.keys_of(Table::Objects, prefix)
    }

    fn gone_pack(&self, number: PackNumber) -> Result<Option<GonePack>, IndexError> {
        let value = self.layers.get(Table::Gone, &number_key(number))?;
        let decode = |value: Vec<u8>| {
            decode_gone(&value).ok_or_else(|| self.layers.corrupt("a removed pack makes no sense"))
        };
        value.map(decode).transpose()
    }

    fn gone_packs(&self) -> Result<Vec<PackNumber>, IndexError> {
        let mut numbers = Vec::new();
        self.layers.scan(Table::Gone, &[], &[], &mut |key, _| {
            let number = decode_number(key)
                .ok_or_else(|| self.layers.corrupt("a pack number makes no sense"))?;
            numbers.push(number);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(numbers)
    }

    fn forget_gone_packs(&self, numbers: &[PackNumber]) -> Result<(), IndexError> {
        let _tally = self.tally.lock();
        let mut batch = self.layers.batch();
        for number in numbers {
            batch.delete(Table::Gone, &number_key(*number))?;
        }
        batch.write()
    }

    fn next_number(&self) -> Result<PackNumber, IndexError> {
        self.last_tally().map(|tally| PackNumber(tally.next))
    }

    fn counts(&self) -> Result<Counts, IndexError> {
        self.last_tally().map(|tally| tally.counts)
    }

    fn meta_get(&self, name: &str) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.layers.get(Table::Names, name.as_bytes())?.map(unwrap_value))
    }

    fn meta_put(&self, name: &str, value: &[u8]) -> Result<(), IndexError> {
        let _tally = self.tally.lock();
        let mut batch = self.layers.batch();
        batch.put(Table::Names, name.as_bytes(), &wrap_value(value))?;
        batch.write()
    }
}

fn wrap_value(value: &[u8]) -> Vec<u8> {
    [&[VALUE], value].concat()
}

fn unwrap_value(mut stored: Vec<u8>) -> Vec<u8> {
    stored.drain(..1.min(stored.len()));
    stored
}
