//! Marks what snapshots need with the help of [`super::memo`]: a node of which it is remembered what
//! it points to is not read, and its chunks are not looked up. Nodes are taken pack by pack, so that
//! what is remembered of a pack is read once; the newest packs first, because nodes are stored before
//! those that point to them.
//!
//! Nothing here decides in doubt. Whatever is not as it should be is [`Halt::Unclear`], and found out
//! by reading everything (`mark.rs`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cairn_format::ids::{ChunkId, WriterId};
use cairn_format::segment::NAMESPACE_TRUSTED;

use super::mark::{Marked, in_order, is_missing};
use super::marks::Marks;
use super::memo::record::{Edges, Name, NodeKind, Run};
use super::memo::{Memos, Packs, Standing};
use super::reach::{Found, read_node};
use super::recall::{Recall, Sample};
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::local::ChunkPlace;
use crate::index::local::{IndexError, PackNumber};
use crate::ops::snapshots::SnapshotInfo;
use crate::repo::Repository;
use crate::repo::chunks::ChunkReader;

/// Chunks looked up at once.
const LOOKUPS: usize = 1 << 14;
/// Chunks found elsewhere than they are remembered in, of which that is kept in mind, at most.
pub(super) const MOVED_MAX: usize = 1 << 20;

/// Why a walk ended early.
pub(super) enum Halt {
    /// As an error ends a collection.
    Failed(Error),
    /// Only reading everything can tell.
    Unclear,
    /// What is remembered cannot be used.
    Useless,
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        // A pack was removed beside this.
        if error.has_vanished() { Self::Unclear } else { Self::Failed(error) }
    }
}

impl From<IndexError> for Halt {
    fn from(error: IndexError) -> Self {
        Self::Failed(error.into())
    }
}

/// Nodes that were met: as part of directories, and of files.
#[derive(Default)]
pub(super) struct Seen {
    directories: Marks,
    extents: Marks,
}

impl Seen {
    fn of(&mut self, kind: NodeKind) -> &mut Marks {
        match kind {
            NodeKind::Directory => &mut self.directories,
            NodeKind::Extents => &mut self.extents,
        }
    }

    /// Whether a node was met.
    pub(super) fn has(&self, pack: PackNumber, position: u32, kind: NodeKind) -> bool {
        let marks = match kind {
            NodeKind::Directory => &self.directories,
            NodeKind::Extents => &self.extents,
        };
        marks.get(pack, position as usize)
    }

    /// How many nodes of a pack were met; those met as two kinds count twice.
    pub(super) fn count(&self, pack: PackNumber) -> u64 {
        self.directories.count_in(pack) + self.extents.count_in(pack)
    }
}

/// What is to be looked up of one pack.
#[derive(Default)]
struct ById {
    nodes: BTreeSet<(u32, NodeKind)>,
    data: Marks,
}

/// A walk through all snapshots.
struct Walk<'w, 'm, 'a> {
    repository: &'a Repository,
    catalog: &'a Catalog,
    packs: &'w Packs,
    marked: &'m mut Marked<'a>,
    recall: Recall<'w, 'a>,
    seen: HashMap<WriterId, Seen>,
    namespace: WriterId,
    /// Chunks may be missing.
    tolerant: bool,
    /// Nodes whose turn has not come.
    pending: BTreeMap<PackNumber, Vec<(u32, NodeKind)>>,
    /// What is named by packs that are gone, or that have to be looked up for another reason.
    by_id: BTreeMap<PackNumber, ById>,
    /// Where chunks are found by now whose pack is gone.
    moved: HashMap<(WriterId, Name), Name>,
    /// More moved than are kept in mind.
    too_many_moved: bool,
    /// Packs that are gone and that nodes were found to name.
    named: HashSet<PackNumber>,
}

/// A node that was read.
struct Read {
    position: u32,
    kind: NodeKind,
    found: Found,
}

/// What a walk leaves for those who keep memos in order.
pub(super) struct Walked<'w, 'a> {
    pub(super) recall: Recall<'w, 'a>,
    pub(super) seen: HashMap<WriterId, Seen>,
    pub(super) moved: HashMap<(WriterId, Name), Name>,
    pub(super) too_many_moved: bool,
    pub(super) named: HashSet<PackNumber>,
}

/// Marks everything that the snapshots reach.
pub(super) fn walk<'w, 'a>(
    repository: &'a Repository,
    memos: &'w Memos<'a>,
    packs: &'w Packs,
    snapshots: &[SnapshotInfo],
    marked: &mut Marked<'a>,
) -> Result<Walked<'w, 'a>, Halt> {
    let catalog = marked.catalog();
    let mut walk = Walk {
        repository,
        catalog,
        packs,
        marked,
        recall: Recall::new(memos, Sample::new(repository)?),
        seen: HashMap::new(),
        namespace: NAMESPACE_TRUSTED,
        tolerant: false,
        pending: BTreeMap::new(),
        by_id: BTreeMap::new(),
        moved: HashMap::new(),
        too_many_moved: false,
        named: HashSet::new(),
    };
    let order = in_order(snapshots);
    let alike = |a: &&SnapshotInfo, b: &&SnapshotInfo| {
        (a.acknowledged, a.namespace) == (b.acknowledged, b.namespace)
    };
    for group in order.chunk_by(alike) {
        let Some(first) = group.first() else { continue };
        walk.namespace = first.namespace;
        walk.tolerant = !first.acknowledged;
        if walk.tolerant {
            walk.marked.end_of_assured();
        }
        let reader = repository.chunk_reader(first.namespace)?;
        let roots = group.iter().map(|one| (one.record.root, NodeKind::Directory)).collect();
        walk.run(&reader, roots)?;
    }
    walk.recall.flush(catalog)?;
    let Walk { recall, seen, moved, too_many_moved, named, .. } = walk;
    Ok(Walked { recall, seen, moved, too_many_moved, named })
}

impl Walk<'_, '_, '_> {
    fn run(
        &mut self,
        reader: &ChunkReader<'_>,
        roots: Vec<(ChunkId, NodeKind)>,
    ) -> Result<(), Halt> {
        self.enter(&roots)?;
        loop {
            if let Some((pack, nodes)) = self.pending.pop_last() {
                self.repository.check_cancelled()?;
                self.take(reader, pack, nodes)?;
            } else if !self.enter_by_id()? {
                break;
            }
        }
        self.mark_by_id()
    }

    fn missing(&self) -> Result<(), Halt> {
        if self.tolerant { Ok(()) } else { Err(Halt::Unclear) }
    }

    /// Looks up nodes, marks them, and puts those not met before among the pending.
    fn enter(&mut self, nodes: &[(ChunkId, NodeKind)]) -> Result<Vec<Option<Name>>, Halt> {
        let mut found = Vec::with_capacity(nodes.len());
        for nodes in nodes.chunks(LOOKUPS) {
            let ids = nodes.iter().map(|(id, _)| *id).collect::<Vec<_>>();
            for ((id, kind), place) in nodes.iter().zip(self.catalog.places(&ids, self.namespace)?)
            {
                let Some(place) = place else {
                    self.missing()?;
                    found.push(None);
                    continue;
                };
                let name = self.set(*id, &place)?;
                self.visit(name, *kind);
                found.push(Some(name));
            }
        }
        Ok(found)
    }

    fn set(&mut self, id: ChunkId, place: &ChunkPlace) -> Result<Name, Halt> {
        let position = self.marked.set(id, place, self.namespace)?;
        let position = u32::try_from(position).map_err(|_| Halt::Unclear)?;
        Ok(Name { pack: place.pack, position })
    }

    /// Puts a node among the pending unless it was met before.
    fn visit(&mut self, name: Name, kind: NodeKind) {
        let Name { pack, position } = name;
        let met = self.seen.get(&NAMESPACE_TRUSTED);
        if met.is_some_and(|seen| seen.has(pack, position, kind)) {
            return;
        }
        let seen = self.seen.entry(self.namespace).or_default();
        if seen.of(kind).set(pack, position as usize) {
            self.pending.entry(pack).or_default().push((position, kind));
        }
    }

    /// Follows what nodes of one pack point to; reads those of which that is not remembered.
    fn take(
        &mut self,
        reader: &ChunkReader<'_>,
        pack: PackNumber,
        mut nodes: Vec<(u32, NodeKind)>,
    ) -> Result<(), Halt> {
        nodes.sort_unstable();
        self.recall.enter(self.catalog, self.namespace, pack)?;
        let mut unknown = Vec::new();
        for (position, kind) in nodes {
            match self.recall.recall(self.namespace, pack, position, kind) {
                Some(edges) => self.follow(&edges)?,
                None => unknown.push((position, kind)),
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let ids = self.catalog.ids_in(pack)?.ok_or(Halt::Unclear)?;
        let (mut read, mut count) = (Vec::new(), 0);
        for (position, kind) in unknown {
            self.repository.check_cancelled()?;
            let (id, _) = ids.get(position as usize).ok_or(Halt::Unclear)?;
            match read_node(reader, id, kind) {
                Ok(found) => {
                    count += found.nodes.len() + found.data.len();
                    read.push(Read { position, kind, found });
                }
                Err(error) if error.is_damage() => {
                    if !(self.tolerant && is_missing(&error)) {
                        return Err(Halt::Unclear);
                    }
                }
                Err(error) => return Err(error.into()),
            }
            if count >= LOOKUPS {
                self.learn(pack, std::mem::take(&mut read))?;
                count = 0;
            }
        }
        self.learn(pack, read)
    }

    /// Follows nodes that were read, and remembers what they point to.
    fn learn(&mut self, pack: PackNumber, read: Vec<Read>) -> Result<(), Halt> {
        let names = self.names(&read)?;
        for Read { position, kind, found } in read {
            let mut edges = Edges::default();
            let mut whole = true;
            for (id, kind) in found.nodes {
                match names.get(&id) {
                    Some((name, _)) => edges.nodes.push((kind, *name)),
                    None => whole = false,
                }
            }
            for (id, bytes) in found.data {
                match names.get(&id) {
                    Some((_, length)) if *length != bytes => return Err(Halt::Unclear),
                    Some((name, _)) => edges.add_data(*name),
                    None => whole = false,
                }
            }
            self.follow(&edges)?;
            if whole {
                self.recall.learn(self.namespace, pack, position, kind, &edges);
            } else {
                self.missing()?;
            }
        }
        Ok(())
    }

    /// What chunks are called that nodes point to, and how long they are. What is missing is left out.
    fn names(&mut self, read: &[Read]) -> Result<HashMap<ChunkId, (Name, u32)>, Halt> {
        let all = read.iter().flat_map(|read| {
            let nodes = read.found.nodes.iter().map(|(id, _)| *id);
            nodes.chain(read.found.data.iter().map(|(id, _)| *id))
        });
        let ids = all.collect::<HashSet<_>>().into_iter().collect::<Vec<_>>();
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(LOOKUPS) {
            let places = self.catalog.first_places(ids, self.namespace)?;
            found.extend(ids.iter().zip(places).filter_map(|(id, place)| Some((*id, place?))));
        }
        // Pack by pack, so that each directory is read once.
        found.sort_unstable_by_key(|(_, place)| (place.pack, place.frame_number, place.offset));
        let mut names = HashMap::with_capacity(found.len());
        for (id, place) in found {
            let position = self.marked.position(&place)?;
            let position = u32::try_from(position).map_err(|_| Halt::Unclear)?;
            names.insert(id, (Name { pack: place.pack, position }, place.bytes));
        }
        Ok(names)
    }

    /// Marks what a node points to.
    fn follow(&mut self, edges: &Edges) -> Result<(), Halt> {
        for (kind, name) in &edges.nodes {
            match self.packs.standing(name.pack) {
                Standing::Direct if name.position < self.packs.chunks(name.pack) => {
                    self.marked.live.set(name.pack, name.position as usize);
                    self.visit(*name, *kind);
                }
                Standing::Direct => return Err(Halt::Useless),
                standing => {
                    self.note_gone(name.pack, standing);
                    let by_id = self.by_id.entry(name.pack).or_default();
                    by_id.nodes.insert((name.position, *kind));
                }
            }
        }
        for Run { first, count } in &edges.data {
            let (pack, from) = (first.pack, first.position as usize);
            let to = from + *count as usize;
            match self.packs.standing(pack) {
                Standing::Direct if to <= self.packs.chunks(pack) as usize => {
                    self.marked.live.set_all(pack, from..to);
                }
                Standing::Direct => return Err(Halt::Useless),
                standing => {
                    self.note_gone(pack, standing);
                    let listed = match standing {
                        // Its length is found out when it is looked up.
                        Standing::Gone => GONE_CHUNKS_MAX,
                        _ => self.packs.chunks(pack) as usize,
                    };
                    if to > listed {
                        return Err(Halt::Useless);
                    }
                    self.by_id.entry(pack).or_default().data.set_all(pack, from..to);
                }
            }
        }
        Ok(())
    }

    fn note_gone(&mut self, pack: PackNumber, standing: Standing) {
        if standing == Standing::Gone {
            self.named.insert(pack);
        }
    }

    /// Looks up the nodes that are named by packs they are not read from; false when there are none.
    fn enter_by_id(&mut self) -> Result<bool, Halt> {
        let mut any = false;
        let packs = self.by_id.iter().filter(|(_, by_id)| !by_id.nodes.is_empty());
        for pack in packs.map(|(pack, _)| *pack).collect::<Vec<_>>() {
            let Some(by_id) = self.by_id.get_mut(&pack) else { continue };
            let nodes = std::mem::take(&mut by_id.nodes);
            let ids = self.catalog.ids_in(pack)?.ok_or(Halt::Useless)?;
            let mut wanted = Vec::with_capacity(nodes.len());
            for (position, kind) in &nodes {
                let (id, _) = ids.get(*position as usize).ok_or(Halt::Useless)?;
                wanted.push((*id, *kind));
            }
            let found = self.enter(&wanted)?;
            for ((position, _), name) in nodes.into_iter().zip(found) {
                self.note_moved(Name { pack, position }, name);
            }
            any = true;
        }
        Ok(any)
    }

    /// Looks up and marks the data chunks that are named by packs they are not read from.
    fn mark_by_id(&mut self) -> Result<(), Halt> {
        for (pack, by_id) in std::mem::take(&mut self.by_id) {
            self.repository.check_cancelled()?;
            let wanted = by_id.data.positions(pack);
            if wanted.is_empty() {
                continue;
            }
            let all = self.catalog.ids_in(pack)?.ok_or(Halt::Useless)?;
            for positions in wanted.chunks(LOOKUPS) {
                let chunks = positions.iter().map(|at| all.get(*at).copied());
                let chunks = chunks.collect::<Option<Vec<_>>>().ok_or(Halt::Useless)?;
                let ids = chunks.iter().map(|(id, _)| *id).collect::<Vec<_>>();
                let places = self.catalog.places(&ids, self.namespace)?;
                for ((at, (id, bytes)), place) in positions.iter().zip(chunks).zip(places) {
                    let Some(place) = place else {
                        self.missing()?;
                        continue;
                    };
                    if place.bytes != bytes {
                        return Err(Halt::Unclear);
                    }
                    let name = self.set(id, &place)?;
                    let position = u32::try_from(*at).map_err(|_| Halt::Unclear)?;
                    self.note_moved(Name { pack, position }, Some(name));
                }
            }
        }
        Ok(())
    }

    /// Keeps in mind where a chunk of a pack that is gone is found from now on.
    fn note_moved(&mut self, from: Name, to: Option<Name>) {
        let Some(to) = to else { return };
        // Only a place that nothing speaks against is the first one.
        let lasts = self.packs.standing(to.pack) == Standing::Direct;
        if lasts && self.packs.standing(from.pack) == Standing::Gone {
            if self.moved.len() < MOVED_MAX {
                self.moved.insert((self.namespace, from), to);
            } else {
                self.too_many_moved = true;
            }
        }
    }
}

/// Chunks that a pack can list, at most: each takes more than a byte of its directory.
const GONE_CHUNKS_MAX: usize = cairn_format::limits::PACK_BYTES_MAX as usize;
