//! What a replica lacks: the trees of the snapshots it is to get are walked at home, beside the tree
//! of a snapshot that it has already, so that only what differs is read. What is below a node that
//! both have is there.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use cairn_format::ids::{ChunkId, PackId, SnapshotId, WriterId};
use cairn_format::pack::ChunkRef;
use rayon::prelude::*;

use super::decide::Like;
use crate::collect::marks::{Layouts, Marks};
use crate::collect::memo::record::NodeKind;
use crate::collect::reach::{Found, read_node};
use crate::delta::patch;
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::local::{ChunkPlace, PackNumber};
use crate::ops::backup::relied::Relied;
use crate::ops::snapshots::SnapshotInfo;
use crate::repo::Repository;
use crate::repo::chunks::ChunkReader;
use crate::tree::reader::NodeSource as _;

/// Nodes that are read at once.
const NODES_AT_ONCE: usize = 256;
/// Chunks that are looked up at once.
const CHUNKS_AT_ONCE: usize = 4096;

type Node = (ChunkId, NodeKind);

/// What became of a base that the replica lacks.
enum Added {
    /// It is copied anyway.
    Known,
    /// It is copied too.
    New,
    /// It is nowhere.
    Nothing,
}

/// What has to be copied for some snapshots.
pub(super) struct Need<'a> {
    home: &'a Repository,
    catalog: &'a Catalog,
    layouts: Layouts<'a>,
    replica: &'a Catalog,
    /// What the replica lacks, by where it is at home.
    pub(super) marks: Marks,
    /// Chunks marked, and their bytes.
    pub(super) chunks: u64,
    pub(super) bytes: u64,
    /// Chunks that are copied because others are stored against them, and for nothing else.
    pub(super) held: u64,
    /// Packs with frames whose bases are nowhere: they are not copied as they are.
    broken: HashSet<PackNumber>,
    /// Nodes that were walked, by whose snapshots' namespace.
    seen: HashSet<(ChunkId, WriterId)>,
    /// Packs that each snapshot needs something of, and none before it does.
    pub(super) packs: BTreeMap<usize, BTreeSet<PackNumber>>,
    /// What is on the replica already, and relied on.
    pub(super) relied: Relied,
}

impl<'a> Need<'a> {
    pub(super) fn new(home: &'a Repository, replica: &'a Repository) -> Result<Self, Error> {
        let catalog = home.catalog()?;
        Ok(Self {
            home,
            catalog,
            layouts: Layouts::new(catalog),
            replica: replica.catalog()?,
            marks: Marks::default(),
            chunks: 0,
            bytes: 0,
            held: 0,
            broken: HashSet::new(),
            seen: HashSet::new(),
            packs: BTreeMap::new(),
            relied: Relied::default(),
        })
    }

    /// Adds what the `nth` snapshot needs. `like` is on the replica, whole.
    ///
    /// # Errors
    /// [`Error::ChunkMissing`] and other damage at home; failures of either store or cache.
    pub(super) fn add(
        &mut self,
        nth: usize,
        snapshot: &SnapshotInfo,
        like: Option<&Like>,
    ) -> Result<(), Error> {
        let reader = self.home.nodes(snapshot)?;
        let namespace = snapshot.namespace;
        let mut theirs = HashSet::new();
        let mut old: Vec<Node> = Vec::new();
        // Another writer's chunks may stand in packs that this one does not see.
        if let Some(like) = like.filter(|like| like.snapshot.namespace == namespace) {
            self.relied.note_ack(like.ack);
            theirs.insert(like.snapshot.record.root);
            old.push((like.snapshot.record.root, NodeKind::Directory));
        }
        let mut new = vec![(snapshot.record.root, NodeKind::Directory)];
        while !new.is_empty() {
            self.home.check_cancelled()?;
            let front = new.iter().map(|(id, _)| *id).collect::<HashSet<_>>();
            old.retain(|(id, _)| !front.contains(id));
            new.retain(|(id, _)| !theirs.contains(id) && self.seen.insert((*id, namespace)));
            let ids = new.iter().map(|(id, _)| (*id, None)).collect::<Vec<_>>();
            self.want(nth, namespace, &ids)?;
            let mut next = Vec::new();
            for nodes in new.chunks(NODES_AT_ONCE) {
                let mut data = Vec::new();
                for found in read(&reader, nodes) {
                    let found = found?;
                    next.extend(found.nodes);
                    data.extend(found.data);
                }
                let data = data.into_iter().map(|(id, bytes)| (id, Some(bytes)));
                let data = data.collect::<Vec<_>>();
                for data in data.chunks(CHUNKS_AT_ONCE) {
                    self.want(nth, namespace, data)?;
                }
            }
            new = next;
            old = if new.is_empty() { Vec::new() } else { step(&reader, &old)? };
            theirs.extend(old.iter().map(|(id, _)| *id));
        }
        Ok(())
    }

    /// Marks those of the chunks that the replica lacks.
    fn want(
        &mut self,
        nth: usize,
        namespace: WriterId,
        chunks: &[(ChunkId, Option<u32>)],
    ) -> Result<(), Error> {
        let ids = chunks.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        let known = self.relied.known(self.replica, &ids, namespace)?;
        let lacking = chunks.iter().zip(known).filter(|(_, known)| !known);
        let lacking = lacking.map(|(chunk, _)| *chunk).collect::<Vec<_>>();
        let ids = lacking.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        let places = self.catalog.places(&ids, namespace)?;
        for ((id, bytes), place) in lacking.into_iter().zip(places) {
            let place = place.ok_or(Error::ChunkMissing { chunk: id })?;
            if bytes.is_some_and(|bytes| bytes != place.bytes) {
                let pack = self.catalog.pack(place.pack)?.id;
                return Err(Error::ChunkHash { chunk: id, pack });
            }
            self.mark(nth, &place)?;
        }
        Ok(())
    }

    fn mark(&mut self, nth: usize, place: &ChunkPlace) -> Result<bool, Error> {
        let position = self.layouts.position(place)?;
        let fresh = self.marks.set(place.pack, position);
        if fresh {
            self.chunks += 1;
            self.bytes += u64::from(place.bytes);
            self.packs.entry(nth).or_default().insert(place.pack);
        }
        Ok(fresh)
    }

    /// Adds the bases of frames that are copied and that the replica lacks: they come along, so that
    /// the frames can stay as they are stored.
    ///
    /// # Errors
    /// Failures of the caches.
    pub(super) fn add_bases(&mut self) -> Result<(), Error> {
        let packs =
            self.packs.iter().flat_map(|(nth, packs)| packs.iter().map(|pack| (*nth, *pack)));
        for (nth, number) in packs.collect::<Vec<_>>() {
            let record = self.catalog.pack(number)?;
            let (mut position, mut before) = (0, None);
            for frame in &self.catalog.frames(number)? {
                let patch = before.replace(frame);
                let patch = patch.filter(|patch| patch::is_patched(Some(*patch), &frame.bases));
                let positions = position..position + frame.chunks.len();
                position = positions.end;
                if frame.bases.is_empty()
                    || !positions.into_iter().any(|at| self.marks.get(number, at))
                {
                    continue;
                }
                for base in &frame.bases {
                    let here = self.replica.base_copies(base, record.kind, record.writer)?;
                    if here.first().is_some_and(|place| self.replica.lasts(place)) {
                        continue;
                    }
                    match self.add_base(nth, base, record.kind, record.writer)? {
                        Added::Nothing => {
                            self.broken.insert(number);
                        }
                        // A collection keeps patches for as long as their frames.
                        Added::New if patch.is_none_or(|patch| !patch.chunks.contains(base)) => {
                            self.held += 1;
                        }
                        Added::New | Added::Known => {}
                    }
                }
            }
        }
        Ok(())
    }

    fn add_base(
        &mut self,
        nth: usize,
        base: &ChunkRef,
        kind: cairn_format::names::PackKind,
        namespace: WriterId,
    ) -> Result<Added, Error> {
        let copies = self.catalog.base_copies(base, kind, namespace)?;
        for copy in &copies {
            let position = self.layouts.position(copy)?;
            if self.marks.get(copy.pack, position) {
                return Ok(Added::Known);
            }
        }
        let Some(place) = copies.first() else { return Ok(Added::Nothing) };
        self.mark(nth, place)?;
        Ok(Added::New)
    }

    /// Whether everything that a pack holds is copied.
    ///
    /// # Errors
    /// Failures of the cache.
    pub(super) fn whole(&self, number: PackNumber) -> Result<bool, Error> {
        let chunks = self.catalog.pack(number)?.chunks as usize;
        Ok(!self.broken.contains(&number)
            && (0..chunks).all(|position| self.marks.get(number, position)))
    }

    /// Packs of home of which everything is wanted, in order.
    ///
    /// # Errors
    /// Failures of the cache.
    pub(super) fn whole_packs(&self) -> Result<BTreeSet<PackId>, Error> {
        let mut whole = BTreeSet::new();
        for number in self.packs.values().flatten() {
            if self.whole(*number)? {
                whole.insert(self.catalog.pack(*number)?.id);
            }
        }
        Ok(whole)
    }
}

/// What nodes name: further nodes, and chunks of data.
fn read(reader: &ChunkReader<'_>, nodes: &[Node]) -> Vec<Result<Found, Error>> {
    reader.expect(&mut nodes.iter().map(|(id, _)| *id));
    nodes.par_iter().map(|(id, kind)| read_node(reader, id, *kind)).collect()
}

/// The nodes below these. One that cannot be read is passed over: nothing is known by it then.
fn step(reader: &ChunkReader<'_>, nodes: &[Node]) -> Result<Vec<Node>, Error> {
    let mut below = Vec::new();
    for nodes in nodes.chunks(NODES_AT_ONCE) {
        for found in read(reader, nodes) {
            match found {
                Ok(found) => below.extend(found.nodes),
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(below)
}

/// Ids of snapshots.
pub(super) fn ids(snapshots: &[SnapshotInfo]) -> Vec<SnapshotId> {
    snapshots.iter().map(|snapshot| snapshot.id).collect()
}
