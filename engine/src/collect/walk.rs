//! Marks what snapshots need with the help of [`super::memo`]: a node of which it is remembered what
//! it points to is not read, and its chunks are not looked up. Nodes are taken pack by pack, so that
//! what is remembered of a pack is read once; the newest packs first, because nodes are stored before
//! those that point to them.
//!
//! Where it is remembered what a span of snapshots reaches beyond those before it, not even that is
//! walked ([`super::spans`]), but for one span, chosen at random, to compare.
//!
//! Nothing here decides in doubt. Whatever is not as it should be is [`Halt::Unclear`], and found out
//! by reading everything (`mark.rs`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cairn_format::ids::{ChunkId, WriterId};
use cairn_format::segment::NAMESPACE_TRUSTED;

use super::mark::{Marked, in_order, is_missing};
use super::marks::{Marks, WORD_BITS};
use super::memo::record::{Edges, Name, NodeKind, PACK_CHUNKS_MAX, Run};
use super::memo::span::Span;
use super::memo::{Memos, Packs, SpanKey, Standing};
use super::reach::{Found, read_node};
use super::reached::Reached;
use super::recall::{Recall, Sample};
use super::spans::{is_same, key_of, spans};
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::local::{ChunkPlace, IndexError, PackNumber};
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
    /// What is remembered is not so.
    False,
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

/// A walk through all snapshots.
struct Walk<'w, 'm, 'a> {
    repository: &'a Repository,
    catalog: &'a Catalog,
    packs: &'w Packs,
    marked: &'m mut Marked<'a>,
    recall: Recall<'w, 'a>,
    /// What snapshots before these reach.
    before: HashMap<WriterId, Reached>,
    /// What these reach beyond that, as far as they were walked, and which nodes were not followed
    /// because those before do.
    span: Span,
    /// Nodes of these that had to be looked up, by the places they are read from.
    elsewhere: Reached,
    namespace: WriterId,
    /// Chunks may be missing.
    tolerant: bool,
    /// Nodes whose turn has not come.
    pending: BTreeMap<PackNumber, Vec<(u32, NodeKind)>>,
    /// Nodes that are named by packs that are gone, or that have to be looked up for another reason.
    nodes_by_id: BTreeMap<PackNumber, BTreeSet<(u32, NodeKind)>>,
    /// What has to be looked up in order to mark it.
    by_id: Marks,
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
    /// What all snapshots reach.
    pub(super) reached: HashMap<WriterId, Reached>,
    /// The spans that snapshots are in.
    pub(super) spans: HashSet<SpanKey>,
    pub(super) moved: HashMap<(WriterId, Name), Name>,
    pub(super) too_many_moved: bool,
    pub(super) named: HashSet<PackNumber>,
}

/// Whether these are all snapshots that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// They are: it is remembered what spans of them reach.
    All,
    /// Some are left out.
    Some,
}

/// Marks everything that the snapshots reach.
pub(super) fn walk<'w, 'a>(
    repository: &'a Repository,
    memos: &'w Memos<'a>,
    packs: &'w Packs,
    (snapshots, scope): (&[SnapshotInfo], Scope),
    marked: &mut Marked<'a>,
) -> Result<Walked<'w, 'a>, Halt> {
    let catalog = marked.catalog();
    let mut walk = Walk {
        repository,
        catalog,
        packs,
        marked,
        recall: Recall::new(memos, Sample::new(repository)?),
        before: HashMap::new(),
        span: Span::default(),
        elsewhere: Reached::default(),
        namespace: NAMESPACE_TRUSTED,
        tolerant: false,
        pending: BTreeMap::new(),
        nodes_by_id: BTreeMap::new(),
        by_id: Marks::default(),
        moved: HashMap::new(),
        too_many_moved: false,
        named: HashSet::new(),
    };
    let order = in_order(snapshots);
    let alike = |a: &&SnapshotInfo, b: &&SnapshotInfo| {
        (a.acknowledged, a.namespace) == (b.acknowledged, b.namespace)
    };
    let groups = || order.chunk_by(alike);
    let assured = groups().filter(|group| group.iter().all(|one| one.acknowledged));
    let mut compared = walk.recall.choose(assured.flat_map(spans).count());
    let mut known = HashSet::new();
    for group in groups() {
        let Some(first) = group.first() else { continue };
        walk.namespace = first.namespace;
        walk.tolerant = !first.acknowledged;
        if walk.tolerant {
            walk.marked.end_of_assured();
        }
        let reader = repository.chunk_reader(first.namespace)?;
        // What some snapshots may lack is not remembered as what they reach.
        if walk.tolerant || scope == Scope::Some {
            walk.follow_all(&reader, group)?;
            walk.take_in()?;
        } else {
            for span in spans(group) {
                let key = key_of(first.namespace, span);
                known.insert(key);
                walk.enter_span(&reader, key, span, compared == Some(0))?;
                compared = compared.and_then(|compared| compared.checked_sub(1));
            }
        }
        walk.mark_by_id()?;
    }
    walk.recall.flush(catalog)?;
    let Walk { recall, before, moved, too_many_moved, named, .. } = walk;
    Ok(Walked { recall, reached: before, spans: known, moved, too_many_moved, named })
}

impl Walk<'_, '_, '_> {
    /// Takes in what a span of snapshots reaches: as it is remembered, unless that is to be `compared`.
    fn enter_span(
        &mut self,
        reader: &ChunkReader<'_>,
        key: SpanKey,
        snapshots: &[&SnapshotInfo],
        compared: bool,
    ) -> Result<(), Halt> {
        self.repository.check_cancelled()?;
        let remembered = self.recall.memos.span(key)?.filter(|span| self.holds(span));
        match remembered {
            Some(span) if !compared => self.span = span,
            Some(span) => {
                self.follow_all(reader, snapshots)?;
                if !self.is_so(&span.own)? {
                    return Err(Halt::False);
                }
            }
            None => {
                self.follow_all(reader, snapshots)?;
                if self.lasts(&self.span) {
                    self.recall.memos.put_span(key, &self.span)?;
                }
            }
        }
        self.take_in()
    }

    /// Whether what is remembered of a span holds where these snapshots come before it.
    fn holds(&self, span: &Span) -> bool {
        let before = self.before();
        let trusted = self.before.get(&NAMESPACE_TRUSTED);
        let trusted = trusted.filter(|_| self.namespace != NAMESPACE_TRUSTED);
        self.lasts(span)
            && [NodeKind::Directory, NodeKind::Extents].into_iter().all(|kind| {
                let before = before.iter().map(|reached| reached.nodes(kind)).collect::<Vec<_>>();
                // What trusted snapshots reach is not looked up in the namespace of a writer.
                let twice = |trusted: &Reached| span.own.nodes(kind).meets(trusted.nodes(kind));
                span.skipped.nodes(kind).is_within(&before) && !trusted.is_some_and(twice)
            })
    }

    /// Whether what was walked is so whatever becomes of the packs. A writer's nodes may also be read
    /// from trusted packs, where those that trusted snapshots reach are not followed.
    fn lasts(&self, span: &Span) -> bool {
        let mut nodes =
            [&span.own.directories, &span.own.extents].into_iter().flat_map(Marks::packs);
        self.namespace == NAMESPACE_TRUSTED
            || nodes.all(|pack| self.packs.standing(pack) == Standing::Direct)
    }

    /// What snapshots before these reach, as far as it serves them.
    fn before(&self) -> Vec<&Reached> {
        let of = |namespace| self.before.get(namespace);
        let own = Some(&self.namespace).filter(|own| **own != NAMESPACE_TRUSTED);
        of(&NAMESPACE_TRUSTED).into_iter().chain(own.and_then(of)).collect()
    }

    fn is_before(&self, name: Name, kind: NodeKind) -> bool {
        let has = |namespace| {
            self.before.get(namespace).is_some_and(|reached| reached.has_node(name, kind))
        };
        has(&NAMESPACE_TRUSTED) || has(&self.namespace)
    }

    /// Whether what was just walked is what is remembered of it, by whatever names.
    fn is_so(&mut self, remembered: &Reached) -> Result<bool, Halt> {
        if is_same(&self.span.own, remembered, &self.before()) {
            return Ok(true);
        }
        let before = self.before().into_iter().cloned().collect::<Vec<_>>();
        let before = before.iter().map(|reached| self.settled(reached));
        let before = before.collect::<Result<Vec<_>, _>>()?;
        let own = std::mem::take(&mut self.span.own);
        let (walked, remembered) = (self.settled(&own)?, self.settled(remembered)?);
        self.span.own = own;
        Ok(is_same(&walked, &remembered, &before.iter().collect::<Vec<_>>()))
    }

    /// The same chunks by the names of the places that they are read from now.
    fn settled(&mut self, reached: &Reached) -> Result<Reached, Halt> {
        let mut settled = Reached::default();
        for (from, to) in reached.kinds().into_iter().zip(settled.kinds_mut()) {
            for (pack, words) in from.words() {
                if self.packs.standing(pack) == Standing::Direct {
                    to.set_words(pack, words);
                    continue;
                }
                let ids = self.catalog.ids_in(pack)?.ok_or(Halt::Useless)?;
                let named =
                    from.positions(pack).into_iter().map(|at| ids.get(at).map(|(id, _)| *id));
                let named = named.collect::<Option<Vec<_>>>().ok_or(Halt::Useless)?;
                for place in self.catalog.places(&named, self.namespace)? {
                    let place = place.ok_or(Halt::Unclear)?;
                    to.set(place.pack, self.marked.position(&place)?);
                }
            }
        }
        Ok(settled)
    }

    /// Marks what was walked or remembered, and counts it among what snapshots before the next reach.
    fn take_in(&mut self) -> Result<(), Halt> {
        let Span { own, .. } = std::mem::take(&mut self.span);
        for marks in own.kinds() {
            for (pack, words) in marks.words() {
                let used = words.iter().rposition(|word| *word != 0);
                let Some((last, word)) = used.and_then(|at| Some((at, words.get(at)?))) else {
                    continue;
                };
                let end = (last + 1) * WORD_BITS - word.leading_zeros() as usize;
                match self.standing(pack, end)? {
                    Standing::Direct => self.marked.live.set_words(pack, words),
                    standing => {
                        if standing == Standing::Gone {
                            self.named.insert(pack);
                        }
                        self.by_id.set_words(pack, words);
                    }
                }
            }
        }
        self.before.entry(self.namespace).or_default().add(&own);
        self.elsewhere = Reached::default();
        Ok(())
    }

    /// How chunks of a pack are found of which the last has a position below `end`.
    fn standing(&self, pack: PackNumber, end: usize) -> Result<Standing, Halt> {
        let standing = self.packs.standing(pack);
        let listed = match standing {
            // Its length is found out when it is looked up.
            Standing::Gone => PACK_CHUNKS_MAX,
            _ => self.packs.chunks(pack) as usize,
        };
        if end <= listed { Ok(standing) } else { Err(Halt::Useless) }
    }

    /// Walks everything that snapshots reach beyond those before them.
    fn follow_all(
        &mut self,
        reader: &ChunkReader<'_>,
        snapshots: &[&SnapshotInfo],
    ) -> Result<(), Halt> {
        let roots = snapshots.iter().map(|one| one.record.root).collect::<Vec<_>>();
        for roots in roots.chunks(LOOKUPS) {
            for place in self.catalog.first_places(roots, self.namespace)? {
                match place {
                    Some(place) => {
                        let name = self.name(&place)?;
                        self.visit(name, NodeKind::Directory)?;
                    }
                    None => self.missing()?,
                }
            }
        }
        loop {
            if let Some((pack, nodes)) = self.pending.pop_last() {
                self.repository.check_cancelled()?;
                self.take(reader, pack, nodes)?;
            } else if !self.enter_by_id()? {
                return Ok(());
            }
        }
    }

    fn missing(&self) -> Result<(), Halt> {
        if self.tolerant { Ok(()) } else { Err(Halt::Unclear) }
    }

    fn name(&mut self, place: &ChunkPlace) -> Result<Name, Halt> {
        let position = u32::try_from(self.marked.position(place)?).map_err(|_| Halt::Unclear)?;
        Ok(Name { pack: place.pack, position })
    }

    /// Puts a node among those to be followed unless it was met before.
    fn visit(&mut self, name: Name, kind: NodeKind) -> Result<(), Halt> {
        let standing = self.standing(name.pack, name.position as usize + 1)?;
        if self.is_before(name, kind) {
            self.span.skipped.add_node(name, kind);
        } else if self.span.own.add_node(name, kind) {
            match standing {
                Standing::Direct => {
                    self.pending.entry(name.pack).or_default().push((name.position, kind));
                }
                Standing::Gone | Standing::ById => {
                    self.nodes_by_id.entry(name.pack).or_default().insert((name.position, kind));
                }
            }
        }
        Ok(())
    }

    /// Looks up nodes that are named by packs they are not read from; false when there are none.
    fn enter_by_id(&mut self) -> Result<bool, Halt> {
        let Some((pack, nodes)) = self.nodes_by_id.pop_first() else { return Ok(false) };
        let all = self.catalog.ids_in(pack)?.ok_or(Halt::Useless)?;
        let ids = nodes.iter().map(|(position, _)| all.get(*position as usize).map(|(id, _)| *id));
        let ids = ids.collect::<Option<Vec<_>>>().ok_or(Halt::Useless)?;
        for ((_, kind), place) in nodes.iter().zip(self.catalog.places(&ids, self.namespace)?) {
            let Some(place) = place else {
                self.missing()?;
                continue;
            };
            let name = self.name(&place)?;
            if self.is_before(name, *kind) {
                self.span.skipped.add_node(name, *kind);
            } else if self.elsewhere.add_node(name, *kind) {
                self.pending.entry(name.pack).or_default().push((name.position, *kind));
            }
        }
        Ok(true)
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
            names.insert(id, (self.name(&place)?, place.bytes));
        }
        Ok(names)
    }

    /// Notes what a node points to.
    fn follow(&mut self, edges: &Edges) -> Result<(), Halt> {
        for (kind, name) in &edges.nodes {
            self.visit(*name, *kind)?;
        }
        for Run { first: Name { pack, position }, count } in &edges.data {
            let from = *position as usize;
            let to = from + *count as usize;
            self.standing(*pack, to)?;
            self.span.own.data.set_all(*pack, from..to);
        }
        Ok(())
    }

    /// Looks up and marks what is named by packs it is not read from.
    fn mark_by_id(&mut self) -> Result<(), Halt> {
        let by_id = std::mem::take(&mut self.by_id);
        let mut packs = by_id.packs().collect::<Vec<_>>();
        packs.sort_unstable();
        for pack in packs {
            self.repository.check_cancelled()?;
            let all = self.catalog.ids_in(pack)?.ok_or(Halt::Useless)?;
            for positions in by_id.positions(pack).chunks(LOOKUPS) {
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
                    let to = u32::try_from(self.marked.set(id, &place, self.namespace)?);
                    let to = to.map_err(|_| Halt::Unclear)?;
                    let position = u32::try_from(*at).map_err(|_| Halt::Unclear)?;
                    let (from, to) =
                        (Name { pack, position }, Name { pack: place.pack, position: to });
                    self.note_node_elsewhere(from, to);
                    self.note_moved(from, to);
                }
            }
        }
        Ok(())
    }

    /// A node that was reached was reached by the place it is read from, too.
    fn note_node_elsewhere(&mut self, from: Name, to: Name) {
        let Some(reached) = self.before.get_mut(&self.namespace) else { return };
        for kind in [NodeKind::Directory, NodeKind::Extents] {
            if reached.has_node(from, kind) {
                reached.add_node(to, kind);
            }
        }
    }

    /// Keeps in mind where a chunk of a pack that is gone is found from now on.
    fn note_moved(&mut self, from: Name, to: Name) {
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
