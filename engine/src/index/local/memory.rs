//! The twin of the local index without files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::path::PathBuf;

use cairn_format::ids::{ChunkId, PackId, SegmentId};
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::{
    BulkLoad, ChunkPlace, Counts, EachPack, GonePack, IndexError, LedgerEntry, LocalIndex,
    MemoChange, NewPack, PackNumber, PackRecord, PackState, SketchEntry, SketchSlot,
};

/// A local index that lives and dies with the process; its memory follows what it holds.
#[derive(Default)]
pub struct MemoryIndex {
    /// Taken by every write before `state`, and by a load for as long as it lasts.
    writer: Mutex<()>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    next: u32,
    packs: BTreeMap<PackNumber, (PackRecord, NewPack)>,
    numbers: HashMap<PackId, PackNumber>,
    chunks: HashMap<ChunkId, BTreeMap<PackNumber, ChunkPlace>>,
    pending: BTreeMap<PackNumber, PackId>,
    segments: BTreeSet<SegmentId>,
    files: HashMap<[u8; 32], Vec<u8>>,
    ledger: HashMap<PackId, LedgerEntry>,
    meta: HashMap<String, Vec<u8>>,
    sketches: HashMap<SketchSlot, SketchEntry>,
    memos: BTreeMap<Vec<u8>, Vec<u8>>,
    objects: BTreeMap<Vec<u8>, Vec<u8>>,
    gone: BTreeMap<PackNumber, GonePack>,
}

impl MemoryIndex {
    /// An empty index.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl State {
    /// Adds a pack that is not known yet.
    fn insert(&mut self, pack: &NewPack) -> Result<PackNumber, IndexError> {
        let chunks = pack.check()?;
        let number = PackNumber(self.next);
        self.next = self
            .next
            .checked_add(1)
            .ok_or_else(|| IndexError::Exhausted { folder: PathBuf::from("(memory)") })?;
        for (id, place) in pack.places(number) {
            let known = self.chunks.entry(id).or_default().entry(number).or_insert(place);
            if place.counts_before(known) {
                *known = place;
            }
        }
        self.numbers.insert(pack.id, number);
        self.packs.insert(number, (pack.record(chunks), pack.clone()));
        Ok(number)
    }

    fn remove(&mut self, id: &PackId) -> bool {
        let Some(number) = self.numbers.remove(id) else { return false };
        if let Some((_, pack)) = self.packs.remove(&number) {
            for (chunk, _) in pack.places(number) {
                if let Some(places) = self.chunks.get_mut(&chunk) {
                    places.remove(&number);
                    if places.is_empty() {
                        self.chunks.remove(&chunk);
                    }
                }
            }
            if !self.memos.is_empty() {
                let chunks = pack.places(number).map(|(id, place)| (id, place.bytes)).collect();
                self.gone.insert(number, GonePack { writer: pack.writer, chunks });
            }
        }
        self.pending.remove(&number);
        self.ledger.remove(id);
        true
    }
}

fn change(table: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: &[MemoChange]) {
    for (key, value) in changes {
        match value {
            Some(value) => table.insert(key.clone(), value.clone()),
            None => table.remove(key),
        };
    }
}

/// The keys that begin with `prefix`, ascending.
fn keys_of(table: &BTreeMap<Vec<u8>, Vec<u8>>, prefix: &[u8]) -> Vec<Vec<u8>> {
    let keys = table.range(prefix.to_vec()..).map(|(key, _)| key);
    keys.take_while(|key| key.starts_with(prefix)).cloned().collect()
}

impl LocalIndex for MemoryIndex {
    fn lookup_many(
        &self,
        ids: &[ChunkId],
        out: &mut Vec<Option<ChunkPlace>>,
    ) -> Result<(), IndexError> {
        let state = self.state.read();
        out.clear();
        out.extend(ids.iter().map(|id| {
            state
                .chunks
                .get(id)
                .and_then(|places| places.first_key_value())
                .map(|(_, place)| *place)
        }));
        Ok(())
    }

    fn copies(&self, id: &ChunkId) -> Result<Vec<ChunkPlace>, IndexError> {
        let state = self.state.read();
        Ok(state.chunks.get(id).into_iter().flat_map(BTreeMap::values).copied().collect())
    }

    fn pack(&self, number: PackNumber) -> Result<Option<PackRecord>, IndexError> {
        Ok(self.state.read().packs.get(&number).map(|(record, _)| *record))
    }

    fn pack_number(&self, id: &PackId) -> Result<Option<PackNumber>, IndexError> {
        Ok(self.state.read().numbers.get(id).copied())
    }

    fn frame_bases(
        &self,
        pack: PackNumber,
        frame_number: u32,
    ) -> Result<Vec<(ChunkId, u32)>, IndexError> {
        let state = self.state.read();
        let frame = usize::try_from(frame_number)
            .ok()
            .and_then(|frame| state.packs.get(&pack)?.1.frames.get(frame));
        Ok(frame.map(|frame| frame.bases.clone()).unwrap_or_default())
    }

    fn add_pack(&self, pack: &NewPack, pack_state: PackState) -> Result<PackNumber, IndexError> {
        let _writer = self.writer.lock();
        let mut state = self.state.write();
        if let Some(&number) = state.numbers.get(&pack.id) {
            if pack_state == PackState::Committed {
                state.pending.remove(&number);
            }
            return Ok(number);
        }
        let number = state.insert(pack)?;
        if pack_state == PackState::Pending {
            state.pending.insert(number, pack.id);
        }
        Ok(number)
    }

    fn commit_packs(&self, packs: &[PackId], segment: &SegmentId) -> Result<(), IndexError> {
        let _writer = self.writer.lock();
        let mut state = self.state.write();
        for id in packs {
            if let Some(number) = state.numbers.get(id).copied() {
                state.pending.remove(&number);
            }
        }
        state.segments.insert(*segment);
        Ok(())
    }

    fn pending_packs(&self) -> Result<Vec<PackId>, IndexError> {
        Ok(self.state.read().pending.values().copied().collect())
    }

    fn remove_pack(&self, id: &PackId) -> Result<bool, IndexError> {
        let _writer = self.writer.lock();
        Ok(self.state.write().remove(id))
    }

    fn begin_load(&self) -> Result<Box<dyn BulkLoad + '_>, IndexError> {
        let writer = self.writer.lock();
        Ok(Box::new(Load {
            index: self,
            added: Vec::new(),
            committed: Vec::new(),
            _writer: writer,
        }))
    }

    fn segments(&self) -> Result<Vec<SegmentId>, IndexError> {
        Ok(self.state.read().segments.iter().copied().collect())
    }

    fn add_segment(&self, id: &SegmentId) -> Result<(), IndexError> {
        let _writer = self.writer.lock();
        self.state.write().segments.insert(*id);
        Ok(())
    }

    fn remove_segment(&self, id: &SegmentId) -> Result<(), IndexError> {
        let _writer = self.writer.lock();
        self.state.write().segments.remove(id);
        Ok(())
    }

    fn get_file(&self, key: &[u8; 32]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.state.read().files.get(key).cloned())
    }

    fn put_files(&self, files: &[([u8; 32], Vec<u8>)]) -> Result<(), IndexError> {
        let _writer = self.writer.lock();
        self.state.write().files.extend(files.iter().cloned());
        Ok(())
    }

    fn retain_files(
        &self,
        keep: &mut dyn FnMut(&[u8; 32], &[u8]) -> bool,
    ) -> Result<u64, IndexError> {
        let _writer = self.writer.lock();
        let mut removed = 0;
        self.state.write().files.retain(|key, value| {
            let kept = keep(key, value);
            removed += u64::from(!kept);
            kept
        });
        Ok(removed)
    }

    fn ledger_get(&self, id: &PackId) -> Result<Option<LedgerEntry>, IndexError> {
        Ok(self.state.read().ledger.get(id).copied())
    }

    fn ledger_put(&self, entries: &[(PackId, LedgerEntry)]) -> Result<(), IndexError> {
        let _writer = self.writer.lock();
        let mut state = self.state.write();
        for (id, entry) in entries {
            if state.numbers.contains_key(id) {
                state.ledger.insert(*id, *entry);
            }
        }
        Ok(())
    }

    fn for_each_pack(&self, each: &mut EachPack<'_>) -> Result<(), IndexError> {
        // A copy, so that `each` may write to the index.
        let state = self.state.read();
        let packs: Vec<_> = state
            .packs
            .iter()
            .map(|(number, (record, _))| (*number, *record, state.ledger.get(&record.id).copied()))
            .collect();
        drop(state);
        for (number, record, entry) in packs {
            if each(number, &record, entry).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn for_each_chunk_of_pack(
        &self,
        number: PackNumber,
        each: &mut dyn FnMut(&ChunkId, &ChunkPlace) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        let pack = self.state.read().packs.get(&number).map(|(_, pack)| pack.clone());
        for (id, place) in pack.iter().flat_map(|pack| pack.places(number)) {
            if each(&id, &place).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn get_sketches(&self, slots: &[SketchSlot]) -> Result<Vec<Option<SketchEntry>>, IndexError> {
        let state = self.state.read();
        Ok(slots.iter().map(|slot| state.sketches.get(slot).copied()).collect())
    }

    fn forget_sketches(
        &self,
        is_gone: &mut dyn FnMut(&ChunkId) -> bool,
    ) -> Result<u64, IndexError> {
        let _writer = self.writer.lock();
        let mut removed = 0;
        self.state.write().sketches.retain(|_, entry| {
            let gone = is_gone(&entry.chunk);
            removed += u64::from(gone);
            !gone
        });
        Ok(removed)
    }

    fn compact(&self) -> Result<bool, IndexError> {
        Ok(true)
    }

    fn put_sketches(&self, entries: &[(SketchSlot, SketchEntry)]) -> Result<(), IndexError> {
        let _writer = self.writer.lock();
        self.state.write().sketches.extend(entries.iter().copied());
        Ok(())
    }

    fn get_memo(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.state.read().memos.get(key).cloned())
    }

    fn put_memos(&self, changes: &[MemoChange]) -> Result<(), IndexError> {
        let _writer = self.writer.lock();
        change(&mut self.state.write().memos, changes);
        Ok(())
    }

    fn memo_keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, IndexError> {
        Ok(keys_of(&self.state.read().memos, prefix))
    }

    fn get_object(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.state.read().objects.get(key).cloned())
    }

    fn put_objects(&self, changes: &[MemoChange]) -> Result<(), IndexError> {
        let _writer = self.writer.lock();
        change(&mut self.state.write().objects, changes);
        Ok(())
    }

    fn object_keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, IndexError> {
        Ok(keys_of(&self.state.read().objects, prefix))
    }

    fn gone_pack(&self, number: PackNumber) -> Result<Option<GonePack>, IndexError> {
        Ok(self.state.read().gone.get(&number).cloned())
    }

    fn gone_packs(&self) -> Result<Vec<PackNumber>, IndexError> {
        Ok(self.state.read().gone.keys().copied().collect())
    }

    fn forget_gone_packs(&self, numbers: &[PackNumber]) -> Result<(), IndexError> {
        let _writer = self.writer.lock();
        let mut state = self.state.write();
        for number in numbers {
            state.gone.remove(number);
        }
        Ok(())
    }

    fn next_number(&self) -> Result<PackNumber, IndexError> {
        Ok(PackNumber(self.state.read().next))
    }

    fn counts(&self) -> Result<Counts, IndexError> {
        let mut counts = Counts::default();
        for (record, _) in self.state.read().packs.values() {
            counts.packs += 1;
            counts.frames += u64::from(record.frames);
            counts.chunks += u64::from(record.chunks);
            counts.pack_bytes += u64::from(record.bytes);
        }
        Ok(counts)
    }

    fn meta_get(&self, name: &str) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.state.read().meta.get(name).cloned())
    }

    fn meta_put(&self, name: &str, value: &[u8]) -> Result<(), IndexError> {
        let _writer = self.writer.lock();
        self.state.write().meta.insert(name.to_owned(), value.to_owned());
        Ok(())
    }
}

/// A load into a [`MemoryIndex`].
struct Load<'a> {
    index: &'a MemoryIndex,
    /// What dropping takes back.
    added: Vec<PackId>,
    /// Known packs that the end of the load commits.
    committed: Vec<PackNumber>,
    _writer: MutexGuard<'a, ()>,
}

impl BulkLoad for Load<'_> {
    fn add(&mut self, pack: &NewPack) -> Result<(), IndexError> {
        let mut state = self.index.state.write();
        if let Some(&number) = state.numbers.get(&pack.id) {
            self.committed.push(number);
        } else {
            state.insert(pack)?;
            self.added.push(pack.id);
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, segments: &[SegmentId]) -> Result<(), IndexError> {
        let mut state = self.index.state.write();
        for number in &self.committed {
            state.pending.remove(number);
        }
        state.segments.extend(segments);
        self.added.clear();
        Ok(())
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        let mut state = self.index.state.write();
        for id in &self.added {
            state.remove(id);
        }
    }
}
