//! Inner nodes of a tree that is built from its leaves up, in order: a level hands a node on as soon as
//! it is full, so that few children are held at a time.

use cairn_format::ids::ChunkId;

use super::NodeSink;
use crate::error::Error;

/// What an inner node says of a node below it.
pub(super) trait Child: Sized {
    /// The node below.
    fn node(&self) -> &ChunkId;

    /// Whether the inner node ends after this child, of which it is the last of so many.
    fn ends(&self, items: usize) -> bool;

    /// What a level higher says of an inner node with these children, and that node.
    fn join(level: u8, children: Vec<Self>, nodes: &mut dyn NodeSink) -> Result<Self, Error>;
}

/// The children of the inner nodes that are not complete, lowest level first.
#[derive(Debug)]
pub(super) struct Levels<C>(Vec<Vec<C>>);

impl<C> Default for Levels<C> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<C: Child> Levels<C> {
    /// Whether no leaf has been added.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the next leaf.
    ///
    /// # Errors
    /// Whatever `nodes` fails with.
    pub(super) fn add_leaf(&mut self, leaf: C, nodes: &mut dyn NodeSink) -> Result<(), Error> {
        self.add(0, leaf, nodes)
    }

    fn add(&mut self, level: usize, child: C, nodes: &mut dyn NodeSink) -> Result<(), Error> {
        if self.0.len() <= level {
            self.0.resize_with(level + 1, Vec::new);
        }
        let Some(children) = self.0.get_mut(level) else { return Ok(()) };
        let ends = child.ends(children.len() + 1);
        children.push(child);
        if ends { self.end(level, nodes) } else { Ok(()) }
    }

    fn end(&mut self, level: usize, nodes: &mut dyn NodeSink) -> Result<(), Error> {
        let children = self.0.get_mut(level).map(std::mem::take).unwrap_or_default();
        let number = u8::try_from(level + 1).unwrap_or(u8::MAX);
        let joined = C::join(number, children, nodes)?;
        self.add(level + 1, joined, nodes)
    }

    /// The root over all leaves, of which there is at least one.
    ///
    /// # Errors
    /// Whatever `nodes` fails with.
    pub(super) fn finish(mut self, nodes: &mut dyn NodeSink) -> Result<ChunkId, Error> {
        let mut level = 0;
        loop {
            let is_top = level + 1 >= self.0.len();
            match self.0.get(level).map(Vec::as_slice) {
                Some([root]) if is_top => return Ok(*root.node()),
                Some([]) | None => {}
                Some(_) => self.end(level, nodes)?,
            }
            level += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_format::tree::{Entry, Extent, Extents, Meta, Node};

    use super::*;
    use crate::tree::directory::DirectoryList;
    use crate::tree::extents::ExtentList;

    #[derive(Default)]
    struct Counted(usize);

    impl NodeSink for Counted {
        fn put_node(&mut self, node: Vec<u8>) -> Result<ChunkId, Error> {
            self.0 += 1;
            Ok(ChunkId::from_bytes(*blake3::hash(&node).as_bytes()))
        }
    }

    /// The same content has to become the same nodes in every version of this program, or all trees
    /// are stored anew. What is expected was computed when this was written.
    #[test]
    fn large_trees_consist_of_the_nodes_they_always_did() {
        let mut nodes = Counted::default();
        let mut list = DirectoryList::default();
        for number in 0..30_000 {
            let name = format!("entry-{number:08}").into_bytes();
            let entry = Entry { name, node: Node::Fifo, meta: Meta::default() };
            list.push(&entry, &mut nodes).unwrap();
        }
        let root = list.finish(&mut nodes).unwrap();
        let expected = "73518780e5b2ef8445dabd9ab76fa42ea1e0f50eb80851425fee54646f8aec01";
        assert_eq!((nodes.0, root.to_hex().as_str()), (73, expected));

        let mut nodes = Counted::default();
        let mut list = ExtentList::default();
        for number in 0..30_000_u64 {
            let id = ChunkId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes());
            let bytes = 1_000 + number as u32 % 7;
            list.push(Extent::Chunk { id, bytes }, &mut nodes).unwrap();
            if number % 1_000 == 7 {
                list.push(Extent::Hole { bytes: 4_096 }, &mut nodes).unwrap();
            }
        }
        let content = list.finish(&mut nodes).unwrap();
        let Extents::Tree(root) = content.extents else { panic!("{content:?}") };
        let expected = "117e3874e63540cc29016aa5147861b1414512ba0b377cd6ee5018a52bda07df";
        assert_eq!((nodes.0, root.to_hex().as_str()), (97, expected));
    }
}
