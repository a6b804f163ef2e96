//! Walks everything a directory reaches, node by node: no node is read that the visitor has seen
//! before, at whatever level it stands.

use cairn_format::error::FormatError;
use cairn_format::ids::ChunkId;
use cairn_format::node::{DirectoryNode, ExtentNode};
use cairn_format::tree::{Extent, Extents, Node};

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

/// What a node describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A directory.
    Directory,
    /// The content of a file.
    Extents,
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
    let mut stack = vec![(root, Kind::Directory)];
    let mut data = Vec::new();
    while let Some((id, kind)) = stack.pop() {
        if !visitor.node(&id)? {
            continue;
        }
        let read = nodes.node(&id).and_then(|bytes| match kind {
            Kind::Directory => directory(&bytes, &mut stack, &mut data).map_err(invalid(id)),
            Kind::Extents => extents(&bytes, &mut stack, &mut data).map_err(invalid(id)),
        });
        match read {
            Ok(()) => {}
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

pub(crate) fn invalid(node: ChunkId) -> impl FnOnce(FormatError) -> Error {
    move |error| Error::TreeNode { node, message: error.to_string() }
}

pub(crate) fn directory(
    bytes: &[u8],
    stack: &mut Vec<(ChunkId, Kind)>,
    data: &mut Vec<(ChunkId, u32)>,
) -> Result<(), FormatError> {
    match DirectoryNode::decode(bytes)? {
        DirectoryNode::Inner { children, .. } => {
            stack.extend(children.iter().rev().map(|child| (child.node, Kind::Directory)));
        }
        DirectoryNode::Leaf(entries) => {
            for entry in entries {
                match entry.node {
                    Node::Directory(node) => stack.push((node, Kind::Directory)),
                    Node::File(content) => match content.extents {
                        Extents::Tree(node) => stack.push((node, Kind::Extents)),
                        Extents::Inline(extents) => data.extend(extents.iter().filter_map(chunk)),
                    },
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

pub(crate) fn extents(
    bytes: &[u8],
    stack: &mut Vec<(ChunkId, Kind)>,
    data: &mut Vec<(ChunkId, u32)>,
) -> Result<(), FormatError> {
    match ExtentNode::decode(bytes)? {
        ExtentNode::Inner { children, .. } => {
            stack.extend(children.iter().rev().map(|child| (child.node, Kind::Extents)));
        }
        ExtentNode::Leaf(extents) => data.extend(extents.iter().filter_map(chunk)),
    }
    Ok(())
}

fn chunk(extent: &Extent) -> Option<(ChunkId, u32)> {
    match extent {
        Extent::Chunk { id, bytes } => Some((*id, *bytes)),
        Extent::Hole { .. } => None,
    }
}
