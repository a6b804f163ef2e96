//! Reads the tree of a snapshot: directories in order, one path, a file's extents. Memory is bound
//! by the depth of the tree, not by its size.

use std::ops::{ControlFlow, Range};

use bytes::Bytes;
use cairn_format::error::FormatError;
use cairn_format::ids::ChunkId;
use cairn_format::limits::PATH_DEPTH_MAX;
use cairn_format::node::{DirectoryChild, DirectoryNode, ExtentNode};
use cairn_format::tree::{Content, Entry, Extent, Extents, Node};

use crate::error::Error;

/// Gives the plaintext of tree nodes.
pub trait NodeSource: Sync {
    /// The node's plaintext, checked against its id.
    ///
    /// # Errors
    /// When it is missing or damaged.
    fn node(&self, id: &ChunkId) -> Result<Bytes, Error>;

    /// Says which nodes are asked for next, in their order, before those that were said earlier. A
    /// source behind a network may read them ahead.
    fn expect(&self, ids: &mut dyn Iterator<Item = ChunkId>) {
        let _ = ids;
    }
}

/// What a visitor of a tree wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// Go on, also into the directory just shown.
    Descend,
    /// Go on, but not into the directory just shown.
    Skip,
}

/// Receives a tree, depth first, in the order of names.
pub trait Visitor {
    /// An entry; `path` is absolute and ends in its name.
    ///
    /// # Errors
    /// Ends the walk.
    fn entry(&mut self, path: &[u8], entry: &Entry) -> Result<Visit, Error>;

    /// The directory at `path` ends.
    ///
    /// # Errors
    /// Ends the walk.
    fn leave(&mut self, path: &[u8], entry: &Entry) -> Result<(), Error> {
        let _ = (path, entry);
        Ok(())
    }

    /// Whether the extents of the files it is shown are read next.
    fn reads_content(&self) -> bool {
        false
    }

    /// Part of the directory at `path` cannot be read.
    ///
    /// # Errors
    /// Ends the walk; the default does.
    fn damaged(&mut self, path: &[u8], error: Error) -> Result<(), Error> {
        let _ = path;
        Err(error)
    }
}

fn invalid(node: ChunkId) -> impl FnOnce(FormatError) -> Error {
    move |error| Error::TreeNode { node, message: error.to_string() }
}

fn contradiction(node: ChunkId, message: &str) -> Error {
    Error::TreeNode { node, message: message.to_owned() }
}

/// Gives the entries of one directory one by one, in order. Holds no more than one leaf of it.
/// An error is damage or a failure; the entries that follow it can be had all the same.
pub struct Listing<'n> {
    nodes: &'n dyn NodeSource,
    /// Nodes still to be read, the next one last, with what their parent says of each.
    stack: Vec<(ChunkId, Option<Expected>)>,
    leaf: (ChunkId, std::vec::IntoIter<Entry>),
    last: Vec<u8>,
    /// Entries before the next one.
    position: u64,
    /// Entries that are left out from here on.
    skip: u64,
    /// What of its entries is read next.
    next: Next,
}

/// What of the entries of a directory is read when they are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Nothing,
    Directories,
    Everything,
}

impl Next {
    fn of(self, entry: &Entry) -> Option<ChunkId> {
        match &entry.node {
            Node::Directory(node) => Some(*node).filter(|_| self != Self::Nothing),
            Node::File(Content { extents: Extents::Tree(node), .. }) => {
                Some(*node).filter(|_| self == Self::Everything)
            }
            _ => None,
        }
    }
}

impl<'n> Listing<'n> {
    /// The entries of the directory whose node is `root`.
    #[must_use]
    pub fn new(nodes: &'n dyn NodeSource, root: ChunkId) -> Self {
        Self {
            nodes,
            stack: vec![(root, None)],
            leaf: (root, Vec::new().into_iter()),
            last: Vec::new(),
            position: 0,
            skip: 0,
            next: Next::Nothing,
        }
    }

    /// The same, beginning with entry number `first`, counted from 0. What comes before is not read.
    #[must_use]
    pub fn starting_at(nodes: &'n dyn NodeSource, root: ChunkId, first: u64) -> Self {
        Self { skip: first, ..Self::new(nodes, root) }
    }

    /// Number of the next entry, also when some before it could not be read.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Takes a leaf, without the entries that are to be left out.
    fn enter_leaf(&mut self, id: ChunkId, mut entries: Vec<Entry>) {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(entries.len());
        self.skip -= skipped as u64;
        self.position += skipped as u64;
        entries.drain(..skipped);
        self.nodes.expect(&mut entries.iter().filter_map(|entry| self.next.of(entry)));
        self.leaf = (id, entries.into_iter());
    }

    /// Takes the children of an inner node, without those that are to be left out whole.
    fn enter_inner(
        &mut self,
        level: u8,
        mut children: Vec<DirectoryChild>,
        expected: Option<Expected>,
    ) {
        let mut skipped = 0;
        for child in &children {
            if child.entries > self.skip {
                break;
            }
            self.skip -= child.entries;
            self.position = self.position.saturating_add(child.entries);
            skipped += 1;
        }
        children.drain(..skipped);
        self.nodes.expect(&mut children.iter().map(|child| child.node));
        let mut before = expected.and_then(|expected| expected.before);
        for child in children.into_iter().rev() {
            let end = before.replace(child.first_name.clone());
            self.stack.push((child.node, Some(Expected::of(level, child, end))));
        }
    }
}

impl Iterator for Listing<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.leaf.1.next() {
                // Names are never empty.
                self.position = self.position.saturating_add(1);
                if self.last >= entry.name {
                    self.position = self.position.saturating_add(self.leaf.1.len() as u64);
                    self.leaf.1 = Vec::new().into_iter();
                    return Some(Err(contradiction(self.leaf.0, "its names are not in order")));
                }
                self.last.clone_from(&entry.name);
                return Some(Ok(entry));
            }
            let (id, expected) = self.stack.pop()?;
            let entries = expected.as_ref().map_or(0, |expected| expected.entries);
            match read_directory_node(self.nodes, &id, expected.as_ref()) {
                Ok(DirectoryNode::Leaf(entries)) => self.enter_leaf(id, entries),
                Ok(DirectoryNode::Inner { level, children }) => {
                    self.enter_inner(level, children, expected);
                }
                Err(error) => {
                    self.position = self.position.saturating_add(entries);
                    // Of what cannot be read as much is left out as would have been of it.
                    self.skip = 0;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// What a parent says of a node below it.
struct Expected {
    level: u8,
    first_name: Vec<u8>,
    /// All names come before this one. Without it nodes could overlap, and a few of them make a
    /// directory whose reading never ends.
    before: Option<Vec<u8>>,
    entries: u64,
}

impl Expected {
    fn of(parent_level: u8, child: DirectoryChild, before: Option<Vec<u8>>) -> Self {
        let DirectoryChild { first_name, entries, .. } = child;
        Self { level: parent_level - 1, first_name, before, entries }
    }
}

fn read_directory_node(
    nodes: &dyn NodeSource,
    id: &ChunkId,
    expected: Option<&Expected>,
) -> Result<DirectoryNode, Error> {
    let node = DirectoryNode::decode(&nodes.node(id)?).map_err(invalid(*id))?;
    let Some(expected) = expected else { return Ok(node) };
    let (level, first, last, entries) = match &node {
        DirectoryNode::Leaf(entries) => (
            0,
            entries.first().map(|entry| &entry.name),
            entries.last().map(|entry| &entry.name),
            Some(entries.len() as u64),
        ),
        DirectoryNode::Inner { level, children } => (
            *level,
            children.first().map(|child| &child.first_name),
            children.last().map(|child| &child.first_name),
            sum(children.iter().map(|child| child.entries)),
        ),
    };
    let fits = level == expected.level
        && first == Some(&expected.first_name)
        && expected.before.as_ref().is_none_or(|before| last < Some(before))
        && entries == Some(expected.entries);
    if fits { Ok(node) } else { Err(contradiction(*id, "it is not what its parent states")) }
}

/// The entry of one name in a directory.
///
/// # Errors
/// When a node on the way is missing or damaged.
pub fn lookup(nodes: &dyn NodeSource, root: &ChunkId, name: &[u8]) -> Result<Option<Entry>, Error> {
    let (mut id, mut expected) = (*root, None);
    loop {
        match read_directory_node(nodes, &id, expected.as_ref())? {
            DirectoryNode::Leaf(entries) => {
                return Ok(entries.into_iter().find(|entry| entry.name == name));
            }
            DirectoryNode::Inner { level, mut children } => {
                let after = children.partition_point(|child| child.first_name.as_slice() <= name);
                let Some(index) = after.checked_sub(1) else { return Ok(None) };
                let next = children.get(after).map(|child| child.first_name.clone());
                let before = next.or(expected.and_then(|expected: Expected| expected.before));
                let child = children.swap_remove(index);
                (id, expected) = (child.node, Some(Expected::of(level, child, before)));
            }
        }
    }
}

/// The entry at an absolute path; `None` when there is none. The root itself (`/`) has no entry.
///
/// # Errors
/// When a node on the way is missing or damaged.
pub fn lookup_path(
    nodes: &dyn NodeSource,
    root: &ChunkId,
    path: &[u8],
) -> Result<Option<Entry>, Error> {
    let mut directory = *root;
    let mut found: Option<Entry> = None;
    for name in components(path) {
        if let Some(entry) = &found {
            let Node::Directory(node) = &entry.node else { return Ok(None) };
            directory = *node;
        }
        match lookup(nodes, &directory, name)? {
            Some(entry) => found = Some(entry),
            None => return Ok(None),
        }
    }
    Ok(found)
}

/// The names along a path, empty ones left out.
pub fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

/// Shows everything below a directory node to a visitor. `path` is the directory's own path, without
/// a trailing slash (empty for the root).
///
/// # Errors
/// Whatever the visitor fails with.
pub fn walk(
    nodes: &dyn NodeSource,
    root: &ChunkId,
    path: &mut Vec<u8>,
    visitor: &mut dyn Visitor,
) -> Result<(), Error> {
    // An explicit stack: a hostile tree may be nested more deeply than a thread's stack bears.
    let next = if visitor.reads_content() { Next::Everything } else { Next::Directories };
    let listing = Listing { next, ..Listing::new(nodes, *root) };
    let mut levels = vec![Level { listing, above: None, path_bytes: path.len() }];
    while let Some(level) = levels.last_mut() {
        path.truncate(level.path_bytes);
        match level.listing.next() {
            Some(Ok(entry)) => {
                path.push(b'/');
                path.extend_from_slice(&entry.name);
                let visit = visitor.entry(path, &entry)?;
                let Node::Directory(node) = entry.node else { continue };
                if visit == Visit::Skip {
                    continue;
                }
                if levels.len() > PATH_DEPTH_MAX as usize {
                    visitor.damaged(path, too_deep(node))?;
                    visitor.leave(path, &entry)?;
                } else {
                    let listing = Listing { next, ..Listing::new(nodes, node) };
                    levels.push(Level { listing, above: Some(entry), path_bytes: path.len() });
                }
            }
            Some(Err(error)) if error.is_damage() => visitor.damaged(path, error)?,
            Some(Err(error)) => return Err(error),
            None => {
                let entry = levels.pop().and_then(|level| level.above);
                if let Some(entry) = entry {
                    visitor.leave(path, &entry)?;
                }
            }
        }
    }
    Ok(())
}

/// A directory that is being walked.
struct Level<'n> {
    listing: Listing<'n>,
    /// Its entry in the directory above; none for the first.
    above: Option<Entry>,
    /// Length of its path.
    path_bytes: usize,
}

/// What is wrong with a directory below [`PATH_DEPTH_MAX`] others.
pub fn too_deep(node: ChunkId) -> Error {
    contradiction(node, "directories are nested too deeply")
}

/// Shows the extents of a file in order, with the offset of each.
///
/// # Errors
/// When a node is missing or damaged or the extents do not add up to the file; else whatever `each`
/// fails with.
pub fn extents(
    nodes: &dyn NodeSource,
    content: &Content,
    each: &mut dyn FnMut(u64, Extent) -> Result<(), Error>,
) -> Result<(), Error> {
    extents_within(nodes, content, 0..content.bytes, &mut |offset, extent| {
        each(offset, extent).map(|()| ControlFlow::Continue(()))
    })
}

/// Shows those extents of a file that have bytes in `range`, in order, with the offset of each, until
/// `each` says that it has seen enough. Only the nodes that name them are read.
///
/// # Errors
/// As [`extents`], of the nodes that are read.
pub fn extents_within(
    nodes: &dyn NodeSource,
    content: &Content,
    range: Range<u64>,
    each: &mut dyn FnMut(u64, Extent) -> Result<ControlFlow<()>, Error>,
) -> Result<(), Error> {
    let touches =
        |offset: u64, bytes: u64| offset < range.end && offset.saturating_add(bytes) > range.start;
    let mut show = |offset: &mut u64, extents: &[Extent]| {
        for extent in extents {
            if touches(*offset, extent.bytes()) && each(*offset, *extent)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            *offset = offset.saturating_add(extent.bytes());
        }
        Ok::<_, Error>(ControlFlow::Continue(()))
    };
    let mut offset = 0_u64;
    let root = match &content.extents {
        Extents::Inline(extents) => return show(&mut offset, extents).map(|_| ()),
        Extents::Tree(root) => *root,
    };
    let mut stack = vec![(root, None::<u8>, content.bytes)];
    while let Some((id, level, bytes)) = stack.pop() {
        if bytes > 0 && !touches(offset, bytes) {
            offset = offset.saturating_add(bytes);
            continue;
        }
        let node = ExtentNode::decode(&nodes.node(&id)?).map_err(invalid(id))?;
        let (found, sum) = match &node {
            ExtentNode::Leaf(extents) => (0, sum(extents.iter().map(Extent::bytes))),
            ExtentNode::Inner { level, children } => {
                (*level, sum(children.iter().map(|child| child.bytes)))
            }
        };
        if level.is_some_and(|level| level != found) {
            return Err(contradiction(id, "its level is not the one its parent states"));
        }
        if sum != Some(bytes) {
            return Err(contradiction(id, "its extents do not add up"));
        }
        match node {
            ExtentNode::Leaf(extents) => {
                if show(&mut offset, &extents)?.is_break() {
                    return Ok(());
                }
            }
            ExtentNode::Inner { level, children } => {
                let mut at = offset;
                nodes.expect(&mut children.iter().filter_map(|child| {
                    let begin = at;
                    at = at.saturating_add(child.bytes);
                    touches(begin, child.bytes).then_some(child.node)
                }));
                let below = level - 1;
                stack.extend(children.iter().rev().map(|c| (c.node, Some(below), c.bytes)));
            }
        }
    }
    Ok(())
}

fn sum(mut lengths: impl Iterator<Item = u64>) -> Option<u64> {
    lengths.try_fold(0_u64, |sum, bytes| sum.checked_add(bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use cairn_format::tree::Meta;

    use super::*;

    #[derive(Default)]
    struct Nodes {
        nodes: HashMap<ChunkId, Bytes>,
        reads: AtomicUsize,
    }

    impl Nodes {
        /// Puts a node and returns how a parent mentions it.
        fn put(&mut self, node: &DirectoryNode) -> DirectoryChild {
            let (first_name, entries) = match node {
                DirectoryNode::Leaf(entries) => (&entries[0].name, entries.len() as u64),
                DirectoryNode::Inner { children, .. } => {
                    (&children[0].first_name, children.iter().map(|child| child.entries).sum())
                }
            };
            let bytes = node.encode();
            let id = ChunkId::from_bytes(*blake3::hash(&bytes).as_bytes());
            self.nodes.insert(id, bytes.into());
            DirectoryChild { first_name: first_name.clone(), node: id, entries }
        }
    }

    impl NodeSource for Nodes {
        fn node(&self, id: &ChunkId) -> Result<Bytes, Error> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.nodes.get(id).cloned().ok_or_else(|| contradiction(*id, "it is missing"))
        }
    }

    fn leaf(name: &[u8]) -> DirectoryNode {
        let (node, meta) = (Node::Fifo, Meta::default());
        DirectoryNode::Leaf(vec![Entry { name: name.to_vec(), node, meta }])
    }

    #[test]
    fn nodes_that_overlap_their_neighbours_are_not_entered() {
        // On each level two nodes mention the same two below, behind a first name of their own.
        let mut nodes = Nodes::default();
        let mut below = [nodes.put(&leaf(b"x")), nodes.put(&leaf(b"y"))];
        for level in 1..=8 {
            below = [100 - 2 * level, 101 - 2 * level].map(|first| {
                let mut own = nodes.put(&leaf(&[first]));
                for above in 1..level {
                    let node = DirectoryNode::Inner { level: above, children: vec![own] };
                    own = nodes.put(&node);
                }
                let [one, other] = below.clone();
                nodes.put(&DirectoryNode::Inner { level, children: vec![own, one, other] })
            });
        }
        let root = below[0].node;
        let mut last = Vec::new();
        let mut damaged = 0;
        for entry in Listing::new(&nodes, root) {
            match entry {
                Ok(entry) => {
                    assert!(last < entry.name);
                    last = entry.name;
                }
                Err(error) => {
                    assert!(error.is_damage());
                    damaged += 1;
                }
            }
        }
        assert!(damaged > 0);
        let (reads, all) = (nodes.reads.into_inner(), nodes.nodes.len());
        assert!(reads <= 2 * all, "{reads} reads of {all} nodes");
    }
}
