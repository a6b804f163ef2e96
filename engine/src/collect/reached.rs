//! What snapshots reach, by the names that memos have for chunks: tree nodes, as what they are read,
//! and data.

use super::marks::Marks;
use super::memo::record::{Name, NodeKind};
use crate::index::local::PackNumber;

/// Chunks that were reached. A node that is read as a directory and as content stands in both.
#[derive(Clone, Debug, Default)]
pub struct Reached {
    /// Nodes, as part of directories.
    pub directories: Marks,
    /// Nodes, as part of the content of files.
    pub extents: Marks,
    /// Data chunks.
    pub data: Marks,
}

impl Reached {
    /// Nodes of one kind.
    #[must_use]
    pub fn nodes(&self, kind: NodeKind) -> &Marks {
        match kind {
            NodeKind::Directory => &self.directories,
            NodeKind::Extents => &self.extents,
        }
    }

    /// Adds a node; true when it was not there.
    pub fn add_node(&mut self, name: Name, kind: NodeKind) -> bool {
        let nodes = match kind {
            NodeKind::Directory => &mut self.directories,
            NodeKind::Extents => &mut self.extents,
        };
        nodes.set(name.pack, name.position as usize)
    }

    /// Whether a node is there.
    #[must_use]
    pub fn has_node(&self, name: Name, kind: NodeKind) -> bool {
        self.nodes(kind).get(name.pack, name.position as usize)
    }

    /// How many nodes of a pack are there; those of two kinds count twice.
    #[must_use]
    pub fn nodes_in(&self, pack: PackNumber) -> u64 {
        self.directories.count_in(pack) + self.extents.count_in(pack)
    }

    /// Everything, kind by kind: directories, extents, data.
    #[must_use]
    pub fn kinds(&self) -> [&Marks; 3] {
        [&self.directories, &self.extents, &self.data]
    }

    /// As [`Self::kinds`].
    pub fn kinds_mut(&mut self) -> [&mut Marks; 3] {
        [&mut self.directories, &mut self.extents, &mut self.data]
    }

    /// The packs that chunks are named by; some more than once.
    pub fn packs(&self) -> impl Iterator<Item = PackNumber> + '_ {
        self.kinds().into_iter().flat_map(Marks::packs)
    }

    /// Adds what another reaches.
    pub fn add(&mut self, other: &Self) {
        for (marks, more) in self.kinds_mut().into_iter().zip(other.kinds()) {
            for (pack, words) in more.words() {
                marks.set_words(pack, words);
            }
        }
    }
}
