//! The tree of a snapshot: building its nodes during a backup, reading them afterwards.

use cairn_format::ids::ChunkId;

use crate::error::Error;

pub mod directory;
pub mod extents;
mod levels;
pub mod reader;

/// Takes finished tree nodes for storing.
pub trait NodeSink {
    /// Hands a node's plaintext on and names it.
    ///
    /// # Errors
    /// When the node cannot be stored.
    fn put_node(&mut self, node: Vec<u8>) -> Result<ChunkId, Error>;
}
