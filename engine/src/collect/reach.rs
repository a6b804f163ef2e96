//! Walks everything a directory reaches, node by node: no node is read that the visitor has seen
//! before, at whatever level it stands.

use cairn_format::error::FormatError;
use cairn_format::ids::ChunkId;
use cairn_format::node::{DirectoryNode, ExtentNode};
use cairn_format::tree::{Extent, Extents, Node};

use super::memo::record::NodeKind;
use crate::error::Error;
use crate::tree::reader::NodeSource;

/// Data chunks shown at once.
const CHUNKS_SHOWN: usize = 1024;

/// Is shown what is reached.
pub trait Reach {
    /// A tree node: true to read it and go on below.
    ///
    /// # Errors
    /// Ends the walk.
    fn node(&mut self, id: &ChunkId) -> Result<bool, Error>;

    /// Data chunks with their lengths in bytes.
    ///
    /// # Errors
    /// Ends the walk.
    fn data(&mut self, chunks: &[(ChunkId, u32)]) -> Result<(), Error>;

    /// A node that [`Self::node`] asked for cannot be had: what is below it is not known.
    ///
    /// # Errors
    /// Ends the walk.
    fn unreadable(&mut self, id: &ChunkId, error: Error) -> Result<(), Error>;
}

/// What a node points to.
#[derive(Debug, Default)]
pub struct Found {
    /// Nodes, in the order in which it names them.
    pub nodes: Vec<(ChunkId, NodeKind)>,
    /// Data chunks with their lengths in bytes.
    pub data: Vec<(ChunkId, u32)>,
}

/// Reads a node.
///
/// # Errors
/// As [`NodeSource::node`]; [`Error::TreeNode`].
pub fn read_node(nodes: &dyn NodeSource, id: &ChunkId, kind: NodeKind) -> Result<Found, Error> {
    let bytes = nodes.node(id)?;
    let found = match kind {
        NodeKind::Directory => directory(&bytes),
        NodeKind::Extents => extents(&bytes),
    };
    found.map_err(|error| Error::TreeNode { node: *id, message: error.to_string() })
}

/// Shows everything below `root`, a directory's node, and the node itself.
///
/// What parents say of the nodes below them is not compared, as reading a snapshot does: more may
/// be shown than a reader would find, never less.
///
/// # Errors
/// Whatever the visitor fails with; failures of the store or the cache that are not damage.
pub fn reach(nodes: &dyn NodeSource, root: ChunkId, visitor: &mut dyn Reach) -> Result<(), Error> {
    // An explicit stack: a hostile tree may be nested more deeply than a thread's stack bears.
    let mut stack = vec![(root, NodeKind::Directory)];
    let mut data = Vec::new();
    while let Some((id, kind)) = stack.pop() {
        if !visitor.node(&id)? {
            continue;
        }
        match read_node(nodes, &id, kind) {
            Ok(found) => {
                stack.extend(found.nodes.into_iter().rev());
                data.extend(found.data);
            }
            Err(error) if error.is_damage() => visitor.unreadable(&id, error)?,
            Err(error) => return Err(error),
        }
        if data.len() >= CHUNKS_SHOWN {
            visitor.data(&data)?;
            data.clear();
        }
    }
    visitor.data(&data)
}

fn directory(bytes: &[u8]) -> Result<Found, FormatError> {
    let mut found = Found::default();
    match DirectoryNode::decode(bytes)? {
        DirectoryNode::Inner { children, .. } => {
            found.nodes.extend(children.iter().map(|child| (child.node, NodeKind::Directory)));
        }
        DirectoryNode::Leaf(entries) => {
            for entry in entries {
                match entry.node {
                    Node::Directory(node) => found.nodes.push((node, NodeKind::Directory)),
                    Node::File(content) => match content.extents {
                        Extents::Tree(node) => found.nodes.push((node, NodeKind::Extents)),
                        Extents::Inline(extents) => {
                            found.data.extend(extents.iter().filter_map(chunk));
                        }
                    },
                    _ => {}
                }
            }
        }
    }
    Ok(found)
}

fn extents(bytes: &[u8]) -> Result<Found, FormatError> {
    let mut found = Found::default();
    match ExtentNode::decode(bytes)? {
        ExtentNode::Inner { children, .. } => {
            found.nodes.extend(children.iter().map(|child| (child.node, NodeKind::Extents)));
        }
        ExtentNode::Leaf(extents) => found.data.extend(extents.iter().filter_map(chunk)),
    }
    Ok(found)
}

fn chunk(extent: &Extent) -> Option<(ChunkId, u32)> {
    match extent {
        Extent::Chunk { id, bytes } => Some((*id, *bytes)),
        Extent::Hole { .. } => None,
    }
}
