//! Builds a file's list of extents as they become known, in memory that does not grow with the
//! file: full nodes are handed on at once (SPEC §9).

use cairn_format::ids::ChunkId;
use cairn_format::limits::{INLINE_EXTENTS_MAX, NODE_LEVELS_MAX};
use cairn_format::node::{ExtentChild, ExtentNode};
use cairn_format::tree::{Content, Extent, Extents};

use super::NodeSink;
use super::levels::{Child, Levels};
use crate::error::Error;

/// Items from which a node may end.
const NODE_ITEMS_MIN: usize = 64;
/// Items at which a node ends in any case.
const NODE_ITEMS_MAX: usize = 1024;
/// A node ends after an item whose id is divisible by this: on average so many items later.
const NODE_CUT_DIVISOR: u16 = 256;

const _: () = assert!(NODE_ITEMS_MAX <= cairn_format::limits::EXTENT_NODE_ITEMS_MAX as usize);

fn ends_node(id: &ChunkId, items: usize) -> bool {
    let [low, high, ..] = *id.as_bytes();
    items >= NODE_ITEMS_MAX
        || (items >= NODE_ITEMS_MIN
            && u16::from_le_bytes([low, high]).is_multiple_of(NODE_CUT_DIVISOR))
}

impl Child for ExtentChild {
    fn node(&self) -> &ChunkId {
        &self.node
    }

    fn ends(&self, items: usize) -> bool {
        ends_node(&self.node, items)
    }

    fn join(level: u8, children: Vec<Self>, nodes: &mut dyn NodeSink) -> Result<Self, Error> {
        let bytes = children.iter().map(|child| child.bytes).sum();
        debug_assert!(u32::from(level) <= NODE_LEVELS_MAX);
        let node = nodes.put_node(ExtentNode::Inner { level, children }.encode())?;
        Ok(Self { node, bytes })
    }
}

/// Collects the extents of one file, in order.
#[derive(Debug, Default)]
pub struct ExtentList {
    bytes: u64,
    leaf: Vec<Extent>,
    levels: Levels<ExtentChild>,
}

impl ExtentList {
    /// Appends an extent; holes that touch become one.
    ///
    /// # Errors
    /// Whatever `nodes` fails with.
    pub fn push(&mut self, extent: Extent, nodes: &mut dyn NodeSink) -> Result<(), Error> {
        self.bytes += extent.bytes();
        if let (Extent::Hole { bytes: more }, Some(Extent::Hole { bytes })) =
            (extent, self.leaf.last_mut())
        {
            *bytes += more;
            return Ok(());
        }
        self.leaf.push(extent);
        if let Extent::Chunk { id, .. } = extent
            && ends_node(&id, self.leaf.len())
        {
            self.end_leaf(nodes)?;
        }
        Ok(())
    }

    /// The content. Few extents stand in it themselves.
    ///
    /// # Errors
    /// Whatever `nodes` fails with.
    pub fn finish(mut self, nodes: &mut dyn NodeSink) -> Result<Content, Error> {
        let bytes = self.bytes;
        if self.levels.is_empty() && self.leaf.len() <= INLINE_EXTENTS_MAX as usize {
            return Ok(Content { bytes, extents: Extents::Inline(self.leaf) });
        }
        if !self.leaf.is_empty() {
            self.end_leaf(nodes)?;
        }
        Ok(Content { bytes, extents: Extents::Tree(self.levels.finish(nodes)?) })
    }

    fn end_leaf(&mut self, nodes: &mut dyn NodeSink) -> Result<(), Error> {
        let leaf = std::mem::take(&mut self.leaf);
        let bytes = leaf.iter().map(Extent::bytes).sum();
        let node = nodes.put_node(ExtentNode::Leaf(leaf).encode())?;
        self.levels.add_leaf(ExtentChild { node, bytes }, nodes)
    }
}
