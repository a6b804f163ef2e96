//! Removing from the index: packs, and what callers no longer want.

use std::ops::ControlFlow;

use cairn_format::ids::{ChunkId, PackId};

use super::db::{OWN_LOADING, OWN_TALLY, Table};
use super::index::{BATCH_BYTES, RocksIndex, sort_and_thin};
use super::layers::Batch;
use super::record::{Tally, decode_number, encode_gone, number_key, other_key};
use crate::index::local::{GonePack, IndexError, LocalIndex as _, PackNumber};

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
    pub(super) fn forget_unfinished(&self, forget: Forget) -> Result<(), IndexError> {
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

    /// Forgets a pack in one step.
    pub(super) fn remove(&self, tally: &mut Tally, id: &PackId) -> Result<bool, IndexError> {
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

    fn has_memos(&self) -> Result<bool, IndexError> {
        let mut any = false;
        self.layers.scan(Table::Memos, &[], &[], &mut |_, _| {
            any = true;
            Ok(ControlFlow::Break(()))
        })?;
        Ok(any)
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

    /// Removes the pairs of a table that are not to be kept; returns their number. What was removed
    /// before a failure stays so.
    pub(super) fn retain(
        &self,
        table: Table,
        mut keep: impl FnMut(&[u8], &[u8]) -> Result<bool, IndexError>,
    ) -> Result<u64, IndexError> {
        let _tally = self.tally.lock();
        let mut removed = 0;
        let mut batch = self.layers.batch();
        self.layers.scan(table, &[], &[], &mut |key, value| {
            if !keep(key, value)? {
                batch.delete(table, key)?;
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
}
