//! Trees without what is erased: new directory nodes from there up to the root, everything else is
//! shared with the tree before.

use std::collections::{BTreeMap, HashMap, HashSet};

use cairn_format::ids::ChunkId;
use cairn_format::limits::PATH_DEPTH_MAX;
use cairn_format::tree::{Content, Entry, Extent, LinkGroup, Node};

use super::paths::Paths;
use crate::error::Error;
use crate::tree::NodeSink;
use crate::tree::directory::DirectoryList;
use crate::tree::reader::{self, Listing, NodeSource, Visit, Visitor};

/// Directories of which it is remembered what came of them: most are the same in many snapshots.
const REMEMBERED_MAX: usize = 100_000;
/// Chunks of what was erased that are remembered, at most: to tell afterwards which are still there.
const CHUNKS_MAX: usize = 500_000;

/// What was taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Files and streams.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Everything else.
    pub others: u64,
    /// Bytes in the files, holes included.
    pub bytes: u64,
    /// Some are names of files that have several, so that the rest has to be counted anew.
    pub(super) shared: bool,
}

impl Tally {
    /// Entries of any kind.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.files + self.directories + self.others
    }

    fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.directories += other.directories;
        self.others += other.others;
        self.bytes += other.bytes;
        self.shared |= other.shared;
    }
}

/// What became of a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    /// Its node, which is another one where something was taken out.
    pub node: ChunkId,
    /// Something was taken out.
    pub changed: bool,
    /// Something is left but directories that led to what was taken out.
    pub kept: bool,
    /// What was taken out.
    pub tally: Tally,
}

/// Is shown what is taken out, by path.
pub type EachTaken<'a> = &'a mut dyn FnMut(&[u8], &Entry) -> Result<(), Error>;

/// Takes entries out of trees.
pub(super) struct Surgery<'p> {
    paths: &'p mut Paths,
    /// What became of directories, by node and path.
    done: HashMap<(ChunkId, Vec<u8>), Outcome>,
    /// What is below directories that were taken out.
    counted: HashMap<ChunkId, Tally>,
    /// Chunks of files that were taken out; `None` when they are too many, or not wanted.
    pub chunks: Option<HashSet<ChunkId>>,
}

/// A directory that is being looked at.
struct Level<'n> {
    listing: Listing<'n>,
    node: ChunkId,
    name: Vec<u8>,
    path_bytes: usize,
    replaced: BTreeMap<Vec<u8>, ChunkId>,
    outcome: Outcome,
}

impl<'n> Level<'n> {
    fn new(nodes: &'n dyn NodeSource, node: ChunkId, name: &[u8], path_bytes: usize) -> Self {
        let tally = Tally::default();
        Self {
            listing: Listing::new(nodes, node),
            node,
            name: name.to_vec(),
            path_bytes,
            replaced: BTreeMap::new(),
            outcome: Outcome { node, changed: false, kept: false, tally },
        }
    }

    fn take(&mut self, name: &[u8], below: &Outcome) {
        self.outcome.kept |= below.kept;
        if below.changed {
            self.outcome.changed = true;
            self.outcome.tally.add(&below.tally);
            self.replaced.insert(name.to_vec(), below.node);
        }
    }
}

impl<'p> Surgery<'p> {
    /// Takes out these paths.
    pub fn new(paths: &'p mut Paths, notes_chunks: bool) -> Self {
        let chunks = notes_chunks.then(HashSet::new);
        Self { paths, done: HashMap::new(), counted: HashMap::new(), chunks }
    }

    /// Forgets what was learned of trees: those of another namespace may have other nodes.
    pub fn forget(&mut self) {
        self.done.clear();
    }

    /// Makes the tree anew whose root is `root`, handing new nodes on.
    ///
    /// # Errors
    /// Damage: what cannot be read cannot be told to hold nothing; whatever `sink` and `each` fail
    /// with.
    pub fn operate(
        &mut self,
        nodes: &dyn NodeSource,
        root: ChunkId,
        sink: &mut dyn NodeSink,
        mut each: Option<EachTaken<'_>>,
    ) -> Result<Outcome, Error> {
        let mut path = Vec::new();
        // An explicit stack: a hostile tree may be nested more deeply than a thread's stack bears.
        let mut levels = vec![Level::new(nodes, root, b"", 0)];
        while let Some(level) = levels.last_mut() {
            path.truncate(level.path_bytes);
            let Some(entry) = level.listing.next().transpose()? else {
                let Some(level) = levels.pop() else { break };
                let outcome = self.finish(nodes, &level, &path, sink)?;
                // Whoever wants to be shown everything is shown it in every tree.
                let may_skip = each.is_none() || !outcome.changed;
                if may_skip && self.done.len() < REMEMBERED_MAX {
                    self.done.insert((level.node, path.clone()), outcome);
                }
                match levels.last_mut() {
                    Some(above) => above.take(&level.name, &outcome),
                    None => return Ok(outcome),
                }
                continue;
            };
            path.push(b'/');
            path.extend_from_slice(&entry.name);
            let directory = match &entry.node {
                Node::Directory(node) => Some(*node),
                _ => None,
            };
            if self.paths.takes(&path, directory.is_some()) {
                level.outcome.changed = true;
                level.outcome.tally.add(&self.count(nodes, &path, &entry)?);
                if let Some(each) = &mut each {
                    each(&path, &entry)?;
                }
                continue;
            }
            let Some(node) = directory.filter(|_| self.paths.may_be_below(&path)) else {
                level.outcome.kept = true;
                continue;
            };
            if let Some(known) = self.done.get(&(node, path.clone())) {
                level.take(&entry.name, known);
                continue;
            }
            if levels.len() > PATH_DEPTH_MAX as usize {
                return Err(reader::too_deep(node));
            }
            levels.push(Level::new(nodes, node, &entry.name, path.len()));
        }
        Err(Error::Internal { part: "erasing paths" })
    }

    /// The end of a directory: its new node, if it has one.
    fn finish(
        &mut self,
        nodes: &dyn NodeSource,
        level: &Level<'_>,
        path: &[u8],
        sink: &mut dyn NodeSink,
    ) -> Result<Outcome, Error> {
        if !level.outcome.changed {
            return Ok(Outcome { kept: true, ..level.outcome });
        }
        let mut list = DirectoryList::default();
        let mut below = path.to_vec();
        for entry in Listing::new(nodes, level.node) {
            let mut entry = entry?;
            below.truncate(path.len());
            below.push(b'/');
            below.extend_from_slice(&entry.name);
            if self.paths.takes(&below, matches!(entry.node, Node::Directory(_))) {
                continue;
            }
            if let Some(node) = level.replaced.get(&entry.name) {
                entry.node = Node::Directory(*node);
            }
            list.push(&entry, sink)?;
        }
        Ok(Outcome { node: list.finish(sink)?, ..level.outcome })
    }

    fn counter<'a>(&'a mut self, nodes: &'a dyn NodeSource) -> Counter<'a> {
        Counter { nodes, tally: Tally::default(), chunks: &mut self.chunks }
    }

    /// Counts an entry that is taken out, and everything below it.
    fn count(
        &mut self,
        nodes: &dyn NodeSource,
        path: &[u8],
        entry: &Entry,
    ) -> Result<Tally, Error> {
        let Node::Directory(node) = &entry.node else {
            let mut counter = self.counter(nodes);
            counter.entry(path, entry)?;
            return Ok(counter.tally);
        };
        let mut tally = Tally { directories: 1, ..Tally::default() };
        if let Some(known) = self.counted.get(node) {
            tally.add(known);
            return Ok(tally);
        }
        let mut counter = self.counter(nodes);
        reader::walk(nodes, node, &mut path.to_vec(), &mut counter)?;
        let below = counter.tally;
        if self.counted.len() < REMEMBERED_MAX {
            self.counted.insert(*node, below);
        }
        tally.add(&below);
        Ok(tally)
    }
}

/// Counts what goes, and notes its chunks.
struct Counter<'a> {
    nodes: &'a dyn NodeSource,
    tally: Tally,
    chunks: &'a mut Option<HashSet<ChunkId>>,
}

impl Counter<'_> {
    fn note(&mut self, content: &Content) -> Result<(), Error> {
        let Some(chunks) = self.chunks.as_mut() else { return Ok(()) };
        let noted = reader::extents(self.nodes, content, &mut |_, extent| {
            if let Extent::Chunk { id, .. } = extent {
                chunks.insert(id);
            }
            Ok(())
        });
        match noted {
            // What cannot be read goes as well.
            Err(error) if error.is_damage() => {}
            noted => noted?,
        }
        if chunks.len() > CHUNKS_MAX {
            *self.chunks = None;
        }
        Ok(())
    }
}

impl Visitor for Counter<'_> {
    fn entry(&mut self, _: &[u8], entry: &Entry) -> Result<Visit, Error> {
        match &entry.node {
            Node::Directory(_) => self.tally.directories += 1,
            Node::File(content) => {
                self.tally.files += 1;
                self.tally.bytes += content.bytes;
                self.tally.shared |= entry.meta.link.is_some();
                self.note(content)?;
            }
            _ => self.tally.others += 1,
        }
        Ok(Visit::Descend)
    }

    fn damaged(&mut self, _: &[u8], _: Error) -> Result<(), Error> {
        // It goes, whatever it was; what is left is counted anew.
        self.tally.shared = true;
        Ok(())
    }
}

/// Counts everything that paths leave of a tree, as a backup would: of a file with several names
/// the bytes once.
///
/// # Errors
/// As [`Surgery::operate`].
pub(super) fn count_rest(
    nodes: &dyn NodeSource,
    root: ChunkId,
    paths: &mut Paths,
) -> Result<Tally, Error> {
    let mut rest = Rest { paths, tally: Tally::default(), groups: HashSet::new() };
    reader::walk(nodes, &root, &mut Vec::new(), &mut rest)?;
    Ok(rest.tally)
}

struct Rest<'p> {
    paths: &'p mut Paths,
    tally: Tally,
    groups: HashSet<LinkGroup>,
}

impl Visitor for Rest<'_> {
    fn entry(&mut self, path: &[u8], entry: &Entry) -> Result<Visit, Error> {
        if self.paths.takes(path, matches!(entry.node, Node::Directory(_))) {
            return Ok(Visit::Skip);
        }
        match &entry.node {
            Node::Directory(_) => self.tally.directories += 1,
            Node::File(content) => {
                self.tally.files += 1;
                if entry.meta.link.is_none_or(|group| self.groups.insert(group)) {
                    self.tally.bytes += content.bytes;
                }
            }
            _ => self.tally.others += 1,
        }
        Ok(Visit::Descend)
    }
}
