//! Builds one directory's node from its entries, in order, splitting large directories by content
//! so that a change touches few nodes (SPEC §9).

use cairn_format::ids::ChunkId;
use cairn_format::node::{DirectoryChild, DirectoryNode};
use cairn_format::tree::Entry;

use super::NodeSink;
use super::levels::{Child, Levels};
use crate::error::Error;

/// Bytes of entries from which a leaf may end.
const LEAF_BYTES_MIN: usize = 8 << 10;
/// Bytes of entries at which a leaf ends in any case.
const LEAF_BYTES_MAX: usize = 256 << 10;
/// A leaf ends after a name whose hash is divisible by this.
const LEAF_CUT_DIVISOR: u16 = 32;
/// Children of an inner node: a few hundred leaves a node.
const INNER_CHILDREN_MIN: usize = 64;
const INNER_CHILDREN_MAX: usize = 512;
const INNER_CUT_DIVISOR: u16 = 256;

const _: () = assert!(
    LEAF_BYTES_MAX + cairn_format::limits::ENTRY_BYTES_MAX as usize
        <= cairn_format::limits::NODE_BYTES_MAX as usize
);

fn first_pair(bytes: &[u8; 32]) -> u16 {
    let [low, high, ..] = *bytes;
    u16::from_le_bytes([low, high])
}

impl Child for DirectoryChild {
    fn node(&self) -> &ChunkId {
        &self.node
    }

    fn ends(&self, items: usize) -> bool {
        let cut = first_pair(self.node.as_bytes()).is_multiple_of(INNER_CUT_DIVISOR);
        items >= INNER_CHILDREN_MAX || (items >= INNER_CHILDREN_MIN && cut)
    }

    fn join(level: u8, children: Vec<Self>, nodes: &mut dyn NodeSink) -> Result<Self, Error> {
        let entries = children.iter().map(|child| child.entries).sum();
        let first_name = children.first().map(|c| c.first_name.clone()).unwrap_or_default();
        let node = nodes.put_node(DirectoryNode::Inner { level, children }.encode())?;
        Ok(Self { first_name, node, entries })
    }
}

/// Collects the entries of one directory, ascending by name.
#[derive(Debug, Default)]
pub struct DirectoryList {
    leaf: Vec<Vec<u8>>,
    leaf_bytes: usize,
    leaf_first: Vec<u8>,
    last: Vec<u8>,
    levels: Levels<DirectoryChild>,
}

impl DirectoryList {
    /// Appends an entry; its name must come after those before it.
    ///
    /// # Errors
    /// [`Error::TreeOrder`] when it does not; else whatever `nodes` fails with.
    pub fn push(&mut self, entry: &Entry, nodes: &mut dyn NodeSink) -> Result<(), Error> {
        if !self.last.is_empty() && entry.name <= self.last {
            return Err(Error::TreeOrder {
                name: String::from_utf8_lossy(&entry.name).into_owned(),
            });
        }
        self.last.clone_from(&entry.name);
        if self.leaf.is_empty() {
            self.leaf_first.clone_from(&entry.name);
        }
        let bytes = entry.encode();
        self.leaf_bytes += bytes.len();
        self.leaf.push(bytes);
        let may_end = self.leaf_bytes >= LEAF_BYTES_MIN
            && first_pair(blake3::hash(&entry.name).as_bytes()).is_multiple_of(LEAF_CUT_DIVISOR);
        if may_end || self.leaf_bytes >= LEAF_BYTES_MAX { self.end_leaf(nodes) } else { Ok(()) }
    }

    /// The directory's node.
    ///
    /// # Errors
    /// Whatever `nodes` fails with.
    pub fn finish(mut self, nodes: &mut dyn NodeSink) -> Result<ChunkId, Error> {
        if self.levels.is_empty() {
            return nodes.put_node(self.take_leaf());
        }
        if !self.leaf.is_empty() {
            self.end_leaf(nodes)?;
        }
        self.levels.finish(nodes)
    }

    fn take_leaf(&mut self) -> Vec<u8> {
        self.leaf_bytes = 0;
        let entries = std::mem::take(&mut self.leaf);
        DirectoryNode::encode_leaf(entries.iter().map(Vec::as_slice))
    }

    fn end_leaf(&mut self, nodes: &mut dyn NodeSink) -> Result<(), Error> {
        let entries = self.leaf.len() as u64;
        let node = nodes.put_node(self.take_leaf())?;
        let first_name = std::mem::take(&mut self.leaf_first);
        self.levels.add_leaf(DirectoryChild { first_name, node, entries }, nodes)
    }
}
