//! The local index over RocksDB.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::PathBuf;

use cairn_format::ids::{ChunkId, PackId, SegmentId};
use parking_lot::Mutex;

use super::db::{Budget, OWN_LOADING, OWN_TALLY, Table};
use super::handover;
use super::layers::{Batch, Layers};
use super::load::Load;
use super::nearby::{Nearby, PACK_CHUNKS_MAX, SHADOWED_CHUNKS_MAX, Shadowed};
use super::open::{self, Guard};
use super::record::{
    Tally, base_key, decode_bases, decode_gone, decode_ledger, decode_number, decode_place,
    decode_record, decode_sketch, encode_bases, encode_gone, encode_layout, encode_ledger,
    encode_place, encode_record, encode_sketch, layout_places, number_key, other_key, slot_key,
};
use crate::index::local::{
    BulkLoad, ChunkPlace, Counts, EachPack, GonePack, IndexError, LedgerEntry, LocalIndex,
    MemoChange, NewPack, PackNumber, PackRecord, PackState, SketchEntry, SketchSlot,
};

/// Keys looked up at once.
const LOOKUP_BATCH: usize = 512;
/// Pairs read at once where a caller is shown all of them.
const SCAN_BATCH: usize = 512;
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

/// Which unfinished packs to forget.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Forget {
    /// Those of a load that was not finished.
    Loading,
    /// Those too that no segment names: they belong to the process that writes the base, and
    /// might never be named.
    LoadingAndPending,
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

    fn forget_unfinished(&self, forget: Forget) -> Result<(), IndexError> {
        let mut tally = self.tally.lock();
        if let Some(value) = self.layers.get(Table::Own, OWN_LOADING)? {
            let first = decode_number(&value)
                .ok_or_else(|| self.layers.corrupt("its load mark makes no sense"))?;
            self.take_back(&mut tally, first)?;
        }
        if forget == Forget::LoadingAndPending {
            for id in self.pending_packs()? {
                self.remove(&mut tally, &id)?;
            }
        }
        Ok(())
    }

    /// Removes all packs from `first` on, and the mark of their load.
    pub(super) fn take_back(&self, tally: &mut Tally, first: PackNumber) -> Result<(), IndexError> {
        let mut from = Some(first);
        while let Some(first) = from {
            let page = self.records_from(first)?;
            from = page.last().and_then(|(number, _)| number.0.checked_add(1)).map(PackNumber);
            for (_, record) in page {
                self.remove(tally, &record.id)?;
            }
        }
        let mut batch = self.layers.batch();
        batch.delete(Table::Own, OWN_LOADING)?;
        batch.write()
    }

    fn record(&self, value: &[u8]) -> Result<PackRecord, IndexError> {
        decode_record(value).ok_or_else(|| self.layers.corrupt("a pack record makes no sense"))
    }

    pub(super) fn place(&self, value: &[u8]) -> Result<ChunkPlace, IndexError> {
        decode_place(value).ok_or_else(|| self.layers.corrupt("a chunk's place makes no sense"))
    }

    pub(super) fn number_of(&self, id: &PackId) -> Result<Option<PackNumber>, IndexError> {
        let Some(value) = self.layers.get(Table::Numbers, id.as_bytes())? else { return Ok(None) };
        decode_number(&value)
            .map(Some)
            .ok_or_else(|| self.layers.corrupt("a pack number makes no sense"))
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

    /// For chunks in ascending order: which have a place already.
    pub(super) fn known<'c>(
        &self,
        chunks: impl Iterator<Item = &'c ChunkId>,
    ) -> Result<Vec<Option<ChunkPlace>>, IndexError> {
        let keys: Vec<&[u8]> = chunks.map(|id| id.as_bytes().as_slice()).collect();
        let mut places = vec![None; keys.len()];
        for (keys, places) in keys.chunks(LOOKUP_BATCH).zip(places.chunks_mut(LOOKUP_BATCH)) {
            self.layers.get_sorted(Table::Chunks, keys, &mut |position, value| {
                if let Some(place) = places.get_mut(position) {
                    *place = Some(self.place(value)?);
                }
                Ok(())
            })?;
        }
        Ok(places)
    }

    /// The chunks a pack lists, in the order of its directory.
    fn listed(&self, number: PackNumber) -> Result<Vec<(ChunkId, ChunkPlace)>, IndexError> {
        let mut listed = Vec::new();
        self.for_each_chunk_of_pack(number, &mut |id, place| {
            listed.push((*id, *place));
            ControlFlow::Continue(())
        })?;
        Ok(listed)
    }

    fn has_memos(&self) -> Result<bool, IndexError> {
        let mut any = false;
        self.layers.scan(Table::Memos, &[], &[], &mut |_, _| {
            any = true;
            Ok(ControlFlow::Break(()))
        })?;
        Ok(any)
    }

    /// Forgets a pack in one step.
    fn remove(&self, tally: &mut Tally, id: &PackId) -> Result<bool, IndexError> {
        let Some(number) = self.number_of(id)? else { return Ok(false) };
        let key = number_key(number);
        let record = self
            .layers
            .get(Table::Records, &key)?
            .ok_or_else(|| self.layers.corrupt("a numbered pack has no record"))?;
        let record = self.record(&record)?;
        let mut listed = self.listed(number)?;
        let mut batch = self.layers.batch();
        if self.has_memos()? {
            let chunks = listed.iter().map(|(id, place)| (*id, place.bytes)).collect();
            let gone = GonePack { writer: record.writer, chunks };
            batch.put(Table::Gone, &key, &encode_gone(&gone))?;
        }
        sort_and_thin(&mut listed);
        let known = self.known(listed.iter().map(|(id, _)| id))?;
        for ((chunk, _), known) in listed.iter().zip(known) {
            if known.is_some_and(|place| place.pack == number) {
                self.promote(&mut batch, chunk)?;
            } else {
                batch.delete(Table::Others, &other_key(chunk, number))?;
            }
        }
        self.layers.scan(Table::Bases, &key, &key, &mut |key, _| {
            batch.delete(Table::Bases, key).map(ControlFlow::Continue)
        })?;
        batch.delete(Table::Records, &key)?;
        batch.delete(Table::Numbers, id.as_bytes())?;
        batch.delete(Table::Layouts, &key)?;
        batch.delete(Table::Pending, &key)?;
        batch.delete(Table::Ledger, id.as_bytes())?;
        let mut counted = *tally;
        counted.discount(&record);
        batch.put(Table::Own, OWN_TALLY, &counted.encode())?;
        batch.write()?;
        *tally = counted;
        self.nearby.removed(number);
        Ok(true)
    }

    fn find_shadowed(&self) -> Result<Shadowed, IndexError> {
        let (mut packs, mut chunks) = (HashSet::new(), 0);
        self.layers.scan(Table::Others, &[], &[], &mut |key, _| {
            let number = decode_number(key.get(ChunkId::LEN..).unwrap_or_default())
                .ok_or_else(|| self.layers.corrupt("a further place makes no sense"))?;
            packs.insert(number);
            chunks += 1;
            Ok(match chunks < SHADOWED_CHUNKS_MAX {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })
        })?;
        let known = chunks < SHADOWED_CHUNKS_MAX;
        Ok(if known { Shadowed::Packs(packs) } else { Shadowed::TooMany })
    }

    /// Reads directories that are worth it.
    fn learn(&self, packs: Vec<PackNumber>) -> Result<(), IndexError> {
        if packs.is_empty() {
            return Ok(());
        }
        let generation = self.nearby.generation();
        if self.nearby.wants_shadowed() {
            self.nearby.set_shadowed(self.find_shadowed()?, generation);
        }
        for number in packs {
            let mut chunks = Vec::new();
            self.for_each_chunk_of_pack(number, &mut |id, place| {
                chunks.push((*id, *place));
                match chunks.len() <= PACK_CHUNKS_MAX {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            })?;
            self.nearby.keep(number, chunks, generation);
        }
        Ok(())
    }

    /// Replaces the first place of a chunk by its next one, if it has another.
    fn promote(&self, batch: &mut Batch<'_>, chunk: &ChunkId) -> Result<(), IndexError> {
        let mut next = None;
        let prefix = chunk.as_bytes();
        self.layers.scan(Table::Others, prefix, prefix, &mut |key, value| {
            next = Some((key.to_vec(), value.to_vec()));
            Ok(ControlFlow::Break(()))
        })?;
        match next {
            None => batch.delete(Table::Chunks, prefix),
            Some((key, value)) => {
                batch.put(Table::Chunks, prefix, &value)?;
                batch.delete(Table::Others, &key)
            }
        }
    }
}

/// Sorts places by chunk and pack, and keeps the first place of a chunk in each pack.
pub(super) fn sort_and_thin(places: &mut Vec<(ChunkId, ChunkPlace)>) {
    // A stable sort keeps the order of the directory.
    places.sort_by_key(|(id, place)| (*id, place.pack));
    places.dedup_by_key(|(id, place)| (*id, place.pack));
}

impl LocalIndex for RocksIndex {
    fn lookup_many(
        &self,
        ids: &[ChunkId],
        out: &mut Vec<Option<ChunkPlace>>,
    ) -> Result<(), IndexError> {
        out.clear();
        out.resize(ids.len(), None);
        let mut others = self.nearby.answer(ids, out);
        if others.is_empty() {
            return Ok(());
        }
        let id = |position: &usize| ids.get(*position);
        others.sort_unstable_by_key(id);
        let known = self.known(others.iter().filter_map(id))?;
        for (position, place) in others.into_iter().zip(&known) {
            if let Some(slot) = out.get_mut(position) {
                *slot = *place;
            }
        }
        self.learn(self.nearby.note(known.into_iter().flatten()))
    }

    fn copies(&self, id: &ChunkId) -> Result<Vec<ChunkPlace>, IndexError> {
        let first = self.layers.get(Table::Chunks, id.as_bytes())?;
        let mut copies = Vec::from_iter(first.map(|value| self.place(&value)).transpose()?);
        let prefix = id.as_bytes();
        self.layers.scan(Table::Others, prefix, prefix, &mut |_, value| {
            copies.push(self.place(value)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(copies)
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
        let _tally = self.tally.lock();
        let mut removed = 0;
        let mut batch = self.layers.batch();
        self.layers.scan(Table::Files, &[], &[], &mut |key, value| {
            let name =
                key.try_into().map_err(|_| self.layers.corrupt("a file's key makes no sense"))?;
            if !keep(name, value.get(1..).unwrap_or_default()) {
                batch.delete(Table::Files, key)?;
                removed += 1;
                if batch.bytes() > BATCH_BYTES {
                    std::mem::replace(&mut batch, self.layers.batch()).write()?;
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        batch.write()?;
        Ok(removed)
    }

    fn forget_sketches(
        &self,
        is_gone: &mut dyn FnMut(&ChunkId) -> bool,
    ) -> Result<u64, IndexError> {
        let _tally = self.tally.lock();
        let mut removed = 0;
        let mut batch = self.layers.batch();
        self.layers.scan(Table::Sketches, &[], &[], &mut |key, value| {
            let gone = decode_sketch(value).is_none_or(|entry| is_gone(&entry.chunk));
            if gone {
                batch.delete(Table::Sketches, key)?;
                removed += 1;
                if batch.bytes() > BATCH_BYTES {
                    std::mem::replace(&mut batch, self.layers.batch()).write()?;
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        batch.write()?;
        Ok(removed)
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
        let mut from = Some(PackNumber(0));
        while let Some(first) = from {
            let page = self.records_from(first)?;
            let ledger = self.ledger_of(&page)?;
            from = page.last().and_then(|(number, _)| number.0.checked_add(1)).map(PackNumber);
            for ((number, record), entry) in page.iter().zip(ledger) {
                if each(*number, record, entry).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn for_each_chunk_of_pack(
        &self,
        number: PackNumber,
        each: &mut dyn FnMut(&ChunkId, &ChunkPlace) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        let Some(layout) = self.layers.get(Table::Layouts, &number_key(number))? else {
            return Ok(());
        };
        for listed in layout_places(&layout, number) {
            let (id, place) =
                listed.ok_or_else(|| self.layers.corrupt("a pack's directory makes no sense"))?;
            if each(&id, &place).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn get_sketches(&self, slots: &[SketchSlot]) -> Result<Vec<Option<SketchEntry>>, IndexError> {
        let mut sorted = slots.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let keys = sorted.iter().map(|slot| slot_key(*slot)).collect::<Vec<_>>();
        let mut found = vec![None; sorted.len()];
        for (keys, found) in keys.chunks(LOOKUP_BATCH).zip(found.chunks_mut(LOOKUP_BATCH)) {
            let keys = keys.iter().map(|key| key.as_slice()).collect::<Vec<_>>();
            self.layers.get_sorted(Table::Sketches, &keys, &mut |position, value| {
                if let Some(slot) = found.get_mut(position) {
                    // What makes no sense is no hint.
                    *slot = decode_sketch(value);
                }
                Ok(())
            })?;
        }
        let entry = |slot| sorted.binary_search(slot).ok().and_then(|at| *found.get(at)?);
        Ok(slots.iter().map(entry).collect())
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
        let _tally = self.tally.lock();
        let mut batch = self.layers.batch();
        for (key, value) in changes {
            match value {
                Some(value) => batch.put(Table::Memos, key, &wrap_value(value))?,
                None => batch.delete(Table::Memos, key)?,
            }
        }
        batch.write()
    }

    fn memo_keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, IndexError> {
        let mut keys = Vec::new();
        self.layers.scan(Table::Memos, prefix, prefix, &mut |key, _| {
            keys.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(keys)
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

    fn counts(&self) -> Result<Counts, IndexError> {
        // Not from `tally`, which a load may hold for long.
        let value = self.layers.get(Table::Own, OWN_TALLY)?;
        value.map_or(Ok(Counts::default()), |value| {
            Tally::decode(&value)
                .map(|tally| tally.counts)
                .ok_or_else(|| self.layers.corrupt("its counts make no sense"))
        })
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

impl RocksIndex {
    pub(super) fn ledger(&self, value: &[u8]) -> Result<LedgerEntry, IndexError> {
        decode_ledger(value).ok_or_else(|| self.layers.corrupt("a ledger entry makes no sense"))
    }

    /// The next pack records from a number on, at most [`SCAN_BATCH`].
    fn records_from(&self, first: PackNumber) -> Result<Vec<(PackNumber, PackRecord)>, IndexError> {
        let mut page = Vec::with_capacity(SCAN_BATCH);
        self.layers.scan(Table::Records, &[], &number_key(first), &mut |key, value| {
            let number = decode_number(key)
                .ok_or_else(|| self.layers.corrupt("a pack number makes no sense"))?;
            page.push((number, self.record(value)?));
            Ok(match page.len() < SCAN_BATCH {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })
        })?;
        Ok(page)
    }

    fn ledger_of(
        &self,
        page: &[(PackNumber, PackRecord)],
    ) -> Result<Vec<Option<LedgerEntry>>, IndexError> {
        let mut entries = vec![None; page.len()];
        let mut sorted: Vec<(&PackId, &mut Option<LedgerEntry>)> =
            page.iter().map(|(_, record)| &record.id).zip(&mut entries).collect();
        sorted.sort_unstable_by_key(|(id, _)| **id);
        let keys: Vec<[u8; 32]> = sorted.iter().map(|(id, _)| *id.as_bytes()).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_slice()).collect();
        self.layers.get_sorted(Table::Ledger, &keys, &mut |position, value| {
            if let Some((_, entry)) = sorted.get_mut(position) {
                **entry = Some(self.ledger(value)?);
            }
            Ok(())
        })?;
        Ok(entries)
    }
}

fn wrap_value(value: &[u8]) -> Vec<u8> {
    [&[VALUE], value].concat()
}

fn unwrap_value(mut stored: Vec<u8>) -> Vec<u8> {
    stored.drain(..1.min(stored.len()));
    stored
}
