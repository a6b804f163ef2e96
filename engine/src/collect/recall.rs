//! What is remembered, while a collection marks: sheets at hand, and some nodes chosen at random that
//! are compared with what is stored.

use std::collections::{HashMap, VecDeque};

use cairn_format::ids::{ChunkId, WriterId};

use super::memo::Memos;
use super::memo::record::{Edges, NODE_BYTES, Name, NodeKind, Sheet};
use super::reach::{Found, read_node};
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::local::PackNumber;
use crate::repo::Repository;
use crate::repo::chunks::ChunkReader;
use crate::seal::random;

/// Memory for sheets at hand, bytes; the largest may take as much again.
const SHEETS_BYTES: usize = 48 << 20;
/// Nodes that are compared in each collection.
const SAMPLE_NODES: usize = 256;
/// And one of so many.
const SAMPLE_ONE_IN: u64 = 1_000;
/// And so many in all, at most.
const SAMPLE_MAX: usize = 1 << 14;
/// Of what a compared node points to, so many are compared.
const SAMPLE_EDGES: u64 = 8;

/// A sheet at hand.
#[derive(Default)]
struct Slot {
    sheet: Sheet,
    bytes: usize,
    /// It has to be written.
    fresh: bool,
}

/// Whose nodes a sheet is about.
pub(super) type SheetKey = (WriterId, PackNumber);

/// Memos at hand.
pub(super) struct Recall<'w, 'a> {
    pub(super) memos: &'w Memos<'a>,
    sheets: HashMap<SheetKey, Slot>,
    order: VecDeque<SheetKey>,
    bytes: usize,
    sample: Sample,
}

impl<'w, 'a> Recall<'w, 'a> {
    pub(super) fn new(memos: &'w Memos<'a>, sample: Sample) -> Self {
        let (sheets, order) = (HashMap::new(), VecDeque::new());
        Self { memos, sheets, order, bytes: 0, sample }
    }

    /// Gets the sheet of a pack at hand.
    pub(super) fn enter(
        &mut self,
        catalog: &Catalog,
        namespace: WriterId,
        pack: PackNumber,
    ) -> Result<(), Error> {
        let key = (namespace, pack);
        if self.sheets.contains_key(&key) {
            return Ok(());
        }
        while self.bytes > SHEETS_BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            self.put_away(catalog, oldest)?;
        }
        let sheet = self.memos.sheet(namespace, pack, &catalog.pack(pack)?.id)?;
        let bytes = sheet.memory_bytes();
        self.bytes += bytes;
        self.sheets.insert(key, Slot { sheet, bytes, fresh: false });
        self.order.push_back(key);
        Ok(())
    }

    /// One of so many, by its number from 0.
    pub(super) fn choose(&mut self, count: usize) -> Option<usize> {
        usize::try_from(self.sample.next().checked_rem(count as u64)?).ok()
    }

    /// What a node of a pack at hand points to, if that is remembered.
    pub(super) fn recall(
        &mut self,
        namespace: WriterId,
        pack: PackNumber,
        position: u32,
        kind: NodeKind,
    ) -> Option<Edges> {
        let edges = self.look(namespace, pack, position, kind)?;
        self.sample.offer(Chosen { namespace, pack, position, kind });
        Some(edges)
    }

    fn look(
        &self,
        namespace: WriterId,
        pack: PackNumber,
        position: u32,
        kind: NodeKind,
    ) -> Option<Edges> {
        let slot = self.sheets.get(&(namespace, pack))?;
        Edges::decode(pack, slot.sheet.nodes.get(&(position, kind))?)
    }

    /// Remembers what a node of a pack at hand points to.
    pub(super) fn learn(
        &mut self,
        namespace: WriterId,
        pack: PackNumber,
        position: u32,
        kind: NodeKind,
        edges: &Edges,
    ) {
        if let Some(slot) = self.sheets.get_mut(&(namespace, pack)) {
            let edges = edges.encode(pack);
            let bytes = edges.len() + NODE_BYTES;
            slot.sheet.nodes.insert((position, kind), edges);
            slot.fresh = true;
            slot.bytes += bytes;
            self.bytes += bytes;
        }
    }

    fn put_away(&mut self, catalog: &Catalog, key: SheetKey) -> Result<(), Error> {
        let Some(slot) = self.sheets.remove(&key) else { return Ok(()) };
        self.bytes -= slot.bytes;
        let (namespace, pack) = key;
        if slot.fresh {
            let id = catalog.pack(pack)?.id;
            self.memos.put_sheet(namespace, pack, &id, &slot.sheet)?;
        }
        Ok(())
    }

    /// Writes what is new.
    pub(super) fn flush(&mut self, catalog: &Catalog) -> Result<(), Error> {
        while let Some(oldest) = self.order.pop_front() {
            self.put_away(catalog, oldest)?;
        }
        Ok(())
    }

    /// Compares nodes chosen at random with what is remembered of them; false when they differ.
    pub(super) fn compare(
        &mut self,
        repository: &Repository,
        catalog: &Catalog,
    ) -> Result<bool, Error> {
        let chosen = self.sample.take();
        let mut expected: Vec<(Name, ChunkId, Option<u32>)> = Vec::new();
        let mut reader: Option<(WriterId, ChunkReader<'_>)> = None;
        for Chosen { namespace, pack, position, kind } in chosen {
            repository.check_cancelled()?;
            self.enter(catalog, namespace, pack)?;
            let Some(edges) = self.look(namespace, pack, position, kind) else { return Ok(false) };
            let ids = catalog.ids_in(pack)?.unwrap_or_default();
            let Some((id, _)) = ids.get(position as usize) else { return Ok(false) };
            let nodes = match reader.take() {
                Some((reads_for, nodes)) if reads_for == namespace => nodes,
                _ => repository.chunk_reader(namespace)?,
            };
            let found = read_node(&nodes, id, kind)?;
            reader = Some((namespace, nodes));
            if !self.expect(&edges, &found, &mut expected) {
                return Ok(false);
            }
        }
        expected.sort_unstable();
        for named in expected.chunk_by(|(a, ..), (b, ..)| a.pack == b.pack) {
            let Some((first, ..)) = named.first() else { continue };
            let ids = catalog.ids_in(first.pack)?.unwrap_or_default();
            let same = |(name, id, bytes): &(Name, ChunkId, Option<u32>)| {
                ids.get(name.position as usize).is_some_and(|(found, length)| {
                    found == id && bytes.is_none_or(|bytes| bytes == *length)
                })
            };
            if !named.iter().all(same) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Notes for some of what a node points to which chunks its names must stand for; false when
    /// there are more or fewer than names.
    fn expect(
        &mut self,
        edges: &Edges,
        found: &Found,
        expected: &mut Vec<(Name, ChunkId, Option<u32>)>,
    ) -> bool {
        let names = edges.data_names().collect::<Vec<_>>();
        let kinds = edges.nodes.iter().map(|(kind, _)| *kind);
        if names.len() != found.data.len() || !kinds.eq(found.nodes.iter().map(|(_, kind)| *kind)) {
            return false;
        }
        let nodes = edges.nodes.iter().zip(&found.nodes);
        let nodes = nodes.map(|((_, name), (id, _))| (*name, *id, None));
        let data = names.iter().zip(&found.data);
        let data = data.map(|(name, (id, bytes))| (*name, *id, Some(*bytes)));
        let all = nodes.chain(data).collect::<Vec<_>>();
        for _ in 0..SAMPLE_EDGES {
            expected.extend(self.sample.one_of(&all));
        }
        true
    }
}

/// A node that is to be compared.
#[derive(Clone, Copy)]
struct Chosen {
    namespace: WriterId,
    pack: PackNumber,
    position: u32,
    kind: NodeKind,
}

/// Nodes chosen at random.
pub(super) struct Sample {
    state: u64,
    offered: u64,
    chosen: Vec<Chosen>,
    more: Vec<Chosen>,
}

impl Sample {
    /// None chosen yet.
    pub(super) fn new(repository: &Repository) -> Result<Self, Error> {
        let seed = random::array(repository.context.random.as_ref())?;
        let (chosen, more) = (Vec::new(), Vec::new());
        Ok(Self { state: u64::from_le_bytes(seed), offered: 0, chosen, more })
    }

    /// SplitMix64: nothing depends on its being hard to foretell.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let at = self.next().checked_rem(all.len() as u64)?;
        all.get(usize::try_from(at).ok()?).copied()
    }

    fn offer(&mut self, node: Chosen) {
        self.offered += 1;
        if self.chosen.len() < SAMPLE_NODES {
            self.chosen.push(node);
        } else {
            // Each that was offered is among the chosen with the same probability.
            let at = usize::try_from(self.next() % self.offered).unwrap_or(usize::MAX);
            if let Some(slot) = self.chosen.get_mut(at) {
                *slot = node;
            }
        }
        if self.next().is_multiple_of(SAMPLE_ONE_IN) && self.more.len() < SAMPLE_MAX {
            self.more.push(node);
        }
    }

    /// Those chosen, in the order in which they are stored.
    fn take(&mut self) -> Vec<Chosen> {
        let mut chosen = std::mem::take(&mut self.chosen);
        chosen.append(&mut self.more);
        let order = |node: &Chosen| (node.namespace, node.pack, node.position, node.kind);
        chosen.sort_unstable_by_key(order);
        chosen.dedup_by_key(|node| order(node));
        chosen
    }
}
