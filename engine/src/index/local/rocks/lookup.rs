//! Looking things up in the index: where chunks are, what packs hold, what is remembered of them.

use std::collections::HashSet;
use std::ops::ControlFlow;

use cairn_format::ids::{ChunkId, PackId};

use super::db::Table;
use super::index::RocksIndex;
use super::nearby::{PACK_CHUNKS_MAX, SHADOWED_CHUNKS_MAX, Shadowed};
use super::record::{
    decode_ledger, decode_number, decode_place, decode_record, decode_sketch, layout_places,
    number_key, slot_key,
};
use crate::index::local::{
    ChunkPlace, EachPack, IndexError, LedgerEntry, PackNumber, PackRecord, SketchEntry, SketchSlot,
};

/// Keys looked up at once.
const LOOKUP_BATCH: usize = 512;
/// Pairs read at once where a caller is shown all of them.
const SCAN_BATCH: usize = 512;

impl RocksIndex {
    pub(super) fn record(&self, value: &[u8]) -> Result<PackRecord, IndexError> {
        decode_record(value).ok_or_else(|| self.layers.corrupt("a pack record makes no sense"))
    }

    pub(super) fn place(&self, value: &[u8]) -> Result<ChunkPlace, IndexError> {
        decode_place(value).ok_or_else(|| self.layers.corrupt("a chunk's place makes no sense"))
    }

    pub(super) fn ledger(&self, value: &[u8]) -> Result<LedgerEntry, IndexError> {
        decode_ledger(value).ok_or_else(|| self.layers.corrupt("a ledger entry makes no sense"))
    }

    pub(super) fn number_of(&self, id: &PackId) -> Result<Option<PackNumber>, IndexError> {
        let Some(value) = self.layers.get(Table::Numbers, id.as_bytes())? else { return Ok(None) };
        decode_number(&value)
            .map(Some)
            .ok_or_else(|| self.layers.corrupt("a pack number makes no sense"))
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

    /// Where chunks are, first places; what is near them is learnt.
    pub(super) fn places(
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
            self.each_listed(number, &mut |id, place| {
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

    /// All places of a chunk, the first one first.
    pub(super) fn all_places(&self, id: &ChunkId) -> Result<Vec<ChunkPlace>, IndexError> {
        let first = self.layers.get(Table::Chunks, id.as_bytes())?;
        let mut copies = Vec::from_iter(first.map(|value| self.place(&value)).transpose()?);
        let prefix = id.as_bytes();
        self.layers.scan(Table::Others, prefix, prefix, &mut |_, value| {
            copies.push(self.place(value)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(copies)
    }

    /// The chunks a pack lists, in the order of its directory.
    pub(super) fn listed(
        &self,
        number: PackNumber,
    ) -> Result<Vec<(ChunkId, ChunkPlace)>, IndexError> {
        let mut listed = Vec::new();
        self.each_listed(number, &mut |id, place| {
            listed.push((*id, *place));
            ControlFlow::Continue(())
        })?;
        Ok(listed)
    }

    /// Shows what a pack lists, in the order of its directory.
    pub(super) fn each_listed(
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

    /// The next pack records from a number on, at most [`SCAN_BATCH`].
    pub(super) fn records_from(
        &self,
        first: PackNumber,
    ) -> Result<Vec<(PackNumber, PackRecord)>, IndexError> {
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

    /// Shows all packs, a page of them at a time.
    pub(super) fn each_pack(&self, each: &mut EachPack<'_>) -> Result<(), IndexError> {
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

    /// What stands in slots, in their order.
    pub(super) fn sketches(
        &self,
        slots: &[SketchSlot],
    ) -> Result<Vec<Option<SketchEntry>>, IndexError> {
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
}
