//! Trees that a hostile holder of a key wrote: reading one ends, in time that fits its size.

use std::collections::HashMap;
use std::sync::Mutex;

use arbitrary::{Result as Made, Unstructured};
use bytes::Bytes;
use cairn_engine::error::Error;
use cairn_engine::tree::reader::{self, Listing, NodeSource, Visit, Visitor};
use cairn_format::ids::ChunkId;
use cairn_format::limits::PATH_DEPTH_MAX;
use cairn_format::node::{DirectoryChild, DirectoryNode, ExtentChild, ExtentNode, is_name};
use cairn_format::tree::{Content, Entry, Extent, Extents, Meta, Node};

/// Nodes read, and entries and extents shown, before the reader is told to stop, besides two for
/// each node: directories that are named twice on each level make a tree with more paths than can
/// be walked.
const STEPS_MAX: u64 = 1_500;
/// Paths with more levels are not taken apart, because that takes long.
const CHECKED_LEVELS_MAX: usize = 64;

/// Hostile nodes in memory, of which each can name only earlier ones, as hashes enforce.
#[derive(Default)]
struct Nodes {
    by_id: HashMap<ChunkId, Bytes>,
    ids: Vec<ChunkId>,
    reads: Mutex<u64>,
}

impl Nodes {
    fn put(&mut self, node: Vec<u8>) -> ChunkId {
        let id = ChunkId::from_bytes(*blake3::hash(&node).as_bytes());
        if self.by_id.insert(id, node.into()).is_none() {
            self.ids.push(id);
        }
        id
    }

    /// An earlier node, mostly a late one; rarely one that is not there.
    fn pick(&self, input: &mut Unstructured<'_>) -> Made<ChunkId> {
        let back = usize::from(input.arbitrary::<u8>()?);
        let index = self.ids.len().checked_sub(back + 1);
        let id = index.and_then(|index| self.ids.get(index)).or_else(|| self.ids.last());
        Ok(id.copied().unwrap_or(ChunkId::from_bytes([0xee; 32])))
    }

    fn steps_max(&self) -> u64 {
        STEPS_MAX + 2 * self.ids.len() as u64
    }

    fn reads(&self) -> u64 {
        self.reads.lock().map_or(0, |reads| *reads)
    }

    /// Children of all inner nodes of directories together.
    fn children(&self) -> u64 {
        let nodes = self.by_id.values().filter_map(|node| DirectoryNode::decode(node).ok());
        nodes
            .map(|node| match node {
                DirectoryNode::Leaf(_) => 0,
                DirectoryNode::Inner { children, .. } => children.len() as u64,
            })
            .sum()
    }
}

impl NodeSource for Nodes {
    fn node(&self, id: &ChunkId) -> Result<Bytes, Error> {
        let mut reads = self.reads.lock().map_err(|_| Error::Cancelled)?;
        *reads += 1;
        if *reads > self.steps_max() {
            return Err(Error::Cancelled);
        }
        let missing = || Error::TreeNode { node: *id, message: "missing".to_owned() };
        self.by_id.get(id).cloned().ok_or_else(missing)
    }
}

/// Checks what is shown.
struct Checker<'n> {
    nodes: &'n Nodes,
    shown: u64,
    /// Lengths of the paths of the directories entered.
    open: Vec<usize>,
}

impl Visitor for Checker<'_> {
    fn entry(&mut self, path: &[u8], entry: &Entry) -> Result<Visit, Error> {
        self.shown += 1;
        if self.shown > self.nodes.steps_max() {
            return Err(Error::Cancelled);
        }
        assert!(is_name(&entry.name) && path.ends_with(&entry.name) && path.starts_with(b"/"));
        let levels = self.open.len();
        assert!(levels <= PATH_DEPTH_MAX as usize);
        if levels < CHECKED_LEVELS_MAX {
            assert_eq!(reader::components(path).count(), levels + 1);
        }
        match &entry.node {
            Node::File(content) => {
                drop(extents(self.nodes, content));
                Ok(Visit::Descend)
            }
            Node::Directory(_) if entry.name == b"skip" => Ok(Visit::Skip),
            Node::Directory(_) => {
                self.open.push(path.len());
                Ok(Visit::Descend)
            }
            _ => Ok(Visit::Descend),
        }
    }

    fn leave(&mut self, path: &[u8], _: &Entry) -> Result<(), Error> {
        assert_eq!(self.open.pop(), Some(path.len()));
        Ok(())
    }

    fn damaged(&mut self, _: &[u8], _: Error) -> Result<(), Error> {
        Ok(())
    }
}

/// See the module.
pub fn run(data: &[u8]) {
    read(&mut Unstructured::new(data)).ok();
}

fn read(input: &mut Unstructured<'_>) -> Made<()> {
    let mut nodes = Nodes::default();
    for _ in 0..input.int_in_range(1..=24)? {
        make_node(input, &mut nodes)?;
    }
    let Some(root) = nodes.ids.last().copied() else { return Ok(()) };
    one_directory(&nodes, &root);
    let mut visitor = Checker { nodes: &nodes, shown: 0, open: Vec::new() };
    *nodes.reads.lock().expect("one thread") = 0;
    drop(reader::walk(&nodes, &root, &mut Vec::new(), &mut visitor));
    *nodes.reads.lock().expect("one thread") = 0;
    let path = input.bytes(input.len())?;
    if let Ok(Some(entry)) = reader::lookup_path(&nodes, &root, path) {
        assert_eq!(reader::components(path).last(), Some(entry.name.as_slice()));
    }
    let content = Content { bytes: 1 << 20, extents: Extents::Tree(root) };
    drop(extents(&nodes, &content));
    Ok(())
}

/// Reading one directory shows names in order, and takes no more reads than it has nodes with
/// their mentions.
fn one_directory(nodes: &Nodes, root: &ChunkId) {
    *nodes.reads.lock().expect("one thread") = 0;
    let mut last: Option<Vec<u8>> = None;
    let mut damaged = 0_u64;
    let mut failure = None;
    for entry in Listing::new(nodes, *root) {
        match entry {
            Ok(entry) => {
                assert!(last.as_ref().is_none_or(|last| *last < entry.name), "names out of order");
                last = Some(entry.name);
            }
            Err(error) if error.is_damage() => damaged += 1,
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    let limit = 1 + nodes.children();
    let reads = nodes.reads();
    assert!(reads <= limit, "{reads} reads of a directory with {limit} mentions: {failure:?}");
    assert!(damaged <= limit);
}

/// Extents come one behind another, none is empty, and not more than the file has.
fn extents(nodes: &Nodes, content: &Content) -> Result<(), Error> {
    let (mut end, mut steps, mut since) = (0_u64, 0_u64, nodes.reads());
    let outcome = reader::extents(nodes, content, &mut |offset, extent| {
        assert!(offset == end && extent.bytes() > 0);
        assert!(nodes.reads() - since <= 9, "nodes without extents");
        since = nodes.reads();
        end += extent.bytes();
        assert!(end <= content.bytes);
        steps += 1;
        if steps > nodes.steps_max() { Err(Error::Cancelled) } else { Ok(()) }
    });
    assert!(outcome.is_err() || end == content.bytes);
    outcome
}

fn make_node(input: &mut Unstructured<'_>, nodes: &mut Nodes) -> Made<()> {
    let node = match input.arbitrary::<u8>()? % 9 {
        0..=2 => leaf(input, nodes)?,
        3 | 4 => inner(input, nodes)?,
        5 => ExtentNode::Leaf(extent_list(input)?).encode(),
        6 => extent_inner(input, nodes)?,
        7 => return deep(input, nodes),
        _ => return overlapping(input, nodes),
    };
    nodes.put(node);
    Ok(())
}

fn name(input: &mut Unstructured<'_>) -> Made<Vec<u8>> {
    Ok(match input.arbitrary::<u8>()? {
        0 => b"skip".to_vec(),
        1 => b"a/b".to_vec(),
        2 => Vec::new(),
        byte => vec![byte],
    })
}

fn entry(input: &mut Unstructured<'_>, nodes: &Nodes) -> Made<Entry> {
    let name = name(input)?;
    let node = match input.arbitrary::<u8>()? % 6 {
        0 | 1 => Node::Directory(nodes.pick(input)?),
        2 => {
            let extents = Extents::Tree(nodes.pick(input)?);
            Node::File(Content { bytes: input.arbitrary::<u64>()? >> 8, extents })
        }
        3 => {
            let extents = extent_list(input)?;
            let bytes =
                extents.iter().fold(0_u64, |sum, extent| sum.saturating_add(extent.bytes()));
            Node::File(Content { bytes, extents: Extents::Inline(extents) })
        }
        4 => Node::Symlink(b"../../etc".to_vec()),
        _ => Node::Fifo,
    };
    Ok(Entry { name, node, meta: Meta::default() })
}

fn leaf(input: &mut Unstructured<'_>, nodes: &Nodes) -> Made<Vec<u8>> {
    let count = input.int_in_range(0..=4)?;
    let entries = (0..count).map(|_| entry(input, nodes)).collect::<Made<Vec<_>>>()?;
    let mut entries = entries;
    if input.ratio(7, 8)? {
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        entries.dedup_by(|one, other| one.name == other.name);
    }
    Ok(DirectoryNode::Leaf(entries).encode())
}

/// Mostly saying of the children what is so, so that more than the root is read.
fn inner(input: &mut Unstructured<'_>, nodes: &Nodes) -> Made<Vec<u8>> {
    let mut level = input.int_in_range(0..=9)?;
    let count = input.int_in_range(0..=6)?;
    let mut children: Vec<DirectoryChild> = Vec::new();
    for _ in 0..count {
        let node = nodes.pick(input)?;
        let child = nodes.by_id.get(&node).map(|node| DirectoryNode::decode(node));
        let (first_name, entries) = match child {
            Some(Ok(child)) if input.ratio(31, 32)? => match child {
                DirectoryNode::Leaf(list) => {
                    level = 1;
                    (list.first().map(|entry| entry.name.clone()), list.len() as u64)
                }
                DirectoryNode::Inner { level: below, children } => {
                    level = below + 1;
                    let entries = children
                        .iter()
                        .fold(0, |sum: u64, child| sum.saturating_add(child.entries));
                    (children.first().map(|child| child.first_name.clone()), entries)
                }
            },
            _ => (None, input.arbitrary()?),
        };
        let first_name = match first_name {
            Some(first_name) => first_name,
            None => name(input)?,
        };
        children.push(DirectoryChild { first_name, node, entries });
    }
    children.sort_by(|one, other| one.first_name.cmp(&other.first_name));
    children.dedup_by(|one, other| one.first_name == other.first_name);
    Ok(DirectoryNode::Inner { level, children }.encode())
}

/// Nodes of directories of which each mentions the two below it, and one of its own before them,
/// as many levels as there may be: they overlap, and are never read again and again.
fn overlapping(input: &mut Unstructured<'_>, nodes: &mut Nodes) -> Made<()> {
    let leaf = |nodes: &mut Nodes, name: u8| {
        let entry = Entry { name: vec![name], node: Node::Fifo, meta: Meta::default() };
        let node = nodes.put(DirectoryNode::Leaf(vec![entry]).encode());
        DirectoryChild { first_name: vec![name], node, entries: 1 }
    };
    let mut below = [leaf(nodes, 0xf0), leaf(nodes, 0xf1)];
    for level in 1..=input.int_in_range(1..=8_u8)? {
        below = [0xe0 - 2 * level, 0xe1 - 2 * level].map(|first| {
            let mut own = leaf(nodes, first);
            for above in 1..level {
                let inner = DirectoryNode::Inner { level: above, children: vec![own.clone()] };
                own.node = nodes.put(inner.encode());
            }
            let [one, other] = below.clone();
            let entries = 1 + one.entries + other.entries;
            let inner = DirectoryNode::Inner { level, children: vec![own, one, other] };
            DirectoryChild { first_name: vec![first], node: nodes.put(inner.encode()), entries }
        });
    }
    Ok(())
}

fn extent_list(input: &mut Unstructured<'_>) -> Made<Vec<Extent>> {
    let count = input.int_in_range(0..=5)?;
    (0..count)
        .map(|_| {
            Ok(match input.arbitrary::<u8>()? {
                0..=100 => Extent::Hole { bytes: input.arbitrary::<u64>()? >> 2 },
                byte => Extent::Chunk { id: ChunkId::from_bytes([byte; 32]), bytes: byte.into() },
            })
        })
        .collect()
}

/// Mostly with the lengths that the children have, so that more than the root is read.
fn extent_inner(input: &mut Unstructured<'_>, nodes: &Nodes) -> Made<Vec<u8>> {
    let count = input.int_in_range(0..=6)?;
    let mut level = input.int_in_range(0..=9)?;
    let mut children = Vec::new();
    for _ in 0..count {
        let node = nodes.pick(input)?;
        let mut bytes = input.arbitrary()?;
        if let Some(Ok(child)) = nodes.by_id.get(&node).map(|node| ExtentNode::decode(node)) {
            let sum = |lengths: &mut dyn Iterator<Item = u64>| lengths.fold(0, u64::saturating_add);
            let (below, sum) = match child {
                ExtentNode::Leaf(extents) => (0, sum(&mut extents.iter().map(Extent::bytes))),
                ExtentNode::Inner { level, children } => {
                    (level, sum(&mut children.iter().map(|child| child.bytes)))
                }
            };
            if input.ratio(15, 16)? {
                (level, bytes) = (below + 1, sum);
            }
        }
        children.push(ExtentChild { node, bytes });
    }
    Ok(ExtentNode::Inner { level, children }.encode())
}

/// Directories nested to about the limit.
fn deep(input: &mut Unstructured<'_>, nodes: &mut Nodes) -> Made<()> {
    let levels = match input.arbitrary::<u16>()? {
        0xdee9 => PATH_DEPTH_MAX + u32::from(input.arbitrary::<u8>()?) - 128,
        levels => u32::from(levels) % 64,
    };
    let mut below = nodes.pick(input)?;
    for _ in 0..levels {
        let entry =
            Entry { name: b"d".to_vec(), node: Node::Directory(below), meta: Meta::default() };
        below = nodes.put(DirectoryNode::Leaf(vec![entry]).encode());
    }
    Ok(())
}
