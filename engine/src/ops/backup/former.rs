//! What files consisted of when they were backed up last: the nearest bases for what changed in
//! them (see `crate::delta`). Read along with the file, one node at a time.

use cairn_format::ids::{ChunkId, SnapshotId};
use cairn_format::names::ObjectName;
use cairn_format::node::ExtentNode;
use cairn_format::tree::{Content, Entry, Extent, Extents, Node};

use super::cache::Recogniser;
use crate::ops::snapshots;
use crate::repo::Repository;
use crate::repo::chunks::ChunkReader;
use crate::tree::reader::{self, NodeSource};

/// Finds the former content of files.
pub struct Formers<'a> {
    parent: Option<Parent<'a>>,
}

struct Parent<'a> {
    nodes: ChunkReader<'a>,
    root: ChunkId,
}

impl<'a> Formers<'a> {
    /// Knows nothing: deltas are not wanted, or cannot be made.
    pub const fn none() -> Self {
        Self { parent: None }
    }

    /// Of the files in the snapshot before. What cannot be read of it is done without.
    pub fn new(repository: &'a Repository, latest: &[SnapshotId], listed: &[ObjectName]) -> Self {
        let is_latest = |name: &&ObjectName| matches!(name, ObjectName::Snapshot { id, .. } if latest.contains(id));
        let parent = listed.iter().find(is_latest).and_then(|name| {
            let snapshot = snapshots::read(repository, name, &Default::default()).ok()?;
            let nodes = repository.nodes(&snapshot).ok()?;
            Some(Parent { nodes, root: snapshot.record.root })
        });
        Self { parent }
    }

    /// The former content of the file at `path`: as the cache remembers it, else as the snapshot
    /// before has it.
    pub fn of(&self, cached: Option<(&Recogniser<'_>, &[u8; 32])>, path: &[u8]) -> Former<'_> {
        let Some(parent) = &self.parent else { return Former::default() };
        let cached = cached.and_then(|(recogniser, key)| recogniser.former(key));
        let content = cached.or_else(|| {
            match reader::lookup_path(&parent.nodes, &parent.root, path).ok()?? {
                Entry { node: Node::File(content), .. } => Some(content),
                _ => None,
            }
        });
        content.map_or_else(Former::default, |content| Former::new(&parent.nodes, content))
    }
}

/// The former chunks of one file, asked for from its beginning to its end.
#[derive(Default)]
pub struct Former<'f> {
    nodes: Option<&'f dyn NodeSource>,
    /// Nodes still to be read, the next one last, with the level each has.
    waiting: Vec<(ChunkId, Option<u8>)>,
    leaf: std::vec::IntoIter<Extent>,
    /// The extent behind `present`, once it was looked at.
    behind: Option<Extent>,
    /// Where the extent `present` ends.
    end: u64,
    present: Option<ChunkId>,
    /// Its length, bytes.
    present_bytes: u64,
}

impl<'f> Former<'f> {
    fn new(nodes: &'f dyn NodeSource, content: Content) -> Self {
        let former = Self { nodes: Some(nodes), ..Self::default() };
        match content.extents {
            Extents::Inline(extents) => Self { leaf: extents.into_iter(), ..former },
            Extents::Tree(root) => Self { waiting: vec![(root, None)], ..former },
        }
    }

    /// The chunk that held the middle of `bytes` bytes from `offset` on.
    pub fn at(&mut self, offset: u64, bytes: u32) -> Option<ChunkId> {
        self.go_to(offset.saturating_add(u64::from(bytes) / 2));
        self.present
    }

    /// The chunk that began exactly at `offset`, with its length in bytes, if another one followed
    /// it: the last one before a hole or the end was cut by that, not by what it holds.
    pub fn starting_at(&mut self, offset: u64) -> Option<(ChunkId, u32)> {
        self.go_to(offset);
        let id = self.present?;
        if self.end.checked_sub(self.present_bytes) != Some(offset) {
            return None;
        }
        self.behind = self.next();
        let bytes = u32::try_from(self.present_bytes).ok()?;
        matches!(self.behind, Some(Extent::Chunk { .. })).then_some((id, bytes))
    }

    fn go_to(&mut self, position: u64) {
        while position >= self.end {
            match self.next() {
                Some(extent) => {
                    self.present_bytes = extent.bytes();
                    self.end = self.end.saturating_add(self.present_bytes);
                    self.present = match extent {
                        Extent::Chunk { id, .. } => Some(id),
                        Extent::Hole { .. } => None,
                    };
                }
                None => {
                    (self.end, self.present) = (u64::MAX, None);
                }
            }
        }
    }

    fn next(&mut self) -> Option<Extent> {
        if let Some(extent) = self.behind.take() {
            return Some(extent);
        }
        loop {
            if let Some(extent) = self.leaf.next() {
                return Some(extent);
            }
            let (id, level) = self.waiting.pop()?;
            let node = ExtentNode::decode(&self.nodes?.node(&id).ok()?).ok()?;
            match node {
                ExtentNode::Leaf(extents) if level.is_none_or(|level| level == 0) => {
                    self.leaf = extents.into_iter();
                }
                ExtentNode::Inner { level: found, children }
                    if level.is_none_or(|level| level == found) =>
                {
                    let below = found.checked_sub(1)?;
                    self.waiting
                        .extend(children.into_iter().rev().map(|child| (child.node, Some(below))));
                }
                ExtentNode::Leaf(_) | ExtentNode::Inner { .. } => return None,
            }
        }
    }
}
