//! How memos are written: what tree nodes point to, as names of a few bits each.
//!
//! Whatever is decoded comes from a disk; that its checksum holds is not taken to mean that it makes
//! sense. A decoder returns `None` rather than guess.

use std::collections::BTreeMap;

use cairn_format::codec::{Reader, Writer};

use crate::index::local::PackNumber;

/// Stands for a chunk: the pack that held it first when this was written, and its position in the
/// directory of that pack. Packs never change and numbers are never given twice, so it stands for
/// the same chunk for ever, wherever that is read from by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The pack.
    pub pack: PackNumber,
    /// Position among all chunks that the pack lists, from 0.
    pub position: u32,
}

/// Chunks that a pack can list, at most: each takes more than a byte of its directory.
pub const PACK_CHUNKS_MAX: usize = cairn_format::limits::PACK_BYTES_MAX as usize;

/// As what a node is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeKind {
    /// As part of a directory.
    Directory,
    /// As part of the content of a file.
    Extents,
}

/// Chunks that follow one another in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first.
    pub first: Name,
    /// How many, at least 1.
    pub count: u32,
}

/// What a node points to, in the order in which it says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edges {
    /// Nodes.
    pub nodes: Vec<(NodeKind, Name)>,
    /// Data chunks.
    pub data: Vec<Run>,
}

impl Edges {
    /// Adds a data chunk.
    pub fn add_data(&mut self, name: Name) {
        match self.data.last_mut() {
            Some(Run { first, count })
                if first.pack == name.pack
                    && first.position.checked_add(*count) == Some(name.position) =>
            {
                *count += 1;
            }
            _ => self.data.push(Run { first: name, count: 1 }),
        }
    }

    /// The names of all data chunks.
    pub fn data_names(&self) -> impl Iterator<Item = Name> + '_ {
        self.data.iter().flat_map(|run| {
            let Run { first: Name { pack, position }, count } = *run;
            (position..position.saturating_add(count)).map(move |position| Name { pack, position })
        })
    }

    /// As bytes; `home` is the pack that holds the node.
    #[must_use]
    pub fn encode(&self, home: PackNumber) -> Vec<u8> {
        let mut out = Writer::new();
        let mut last = Last { pack: i64::from(home.0), position: 0 };
        out.count(self.nodes.len());
        for (kind, name) in &self.nodes {
            out.u8(u8::from(*kind == NodeKind::Extents));
            last.put(&mut out, *name, 1);
        }
        out.count(self.data.len());
        for Run { first, count } in &self.data {
            last.put(&mut out, *first, *count);
            out.varint(u64::from(*count));
        }
        out.into_bytes()
    }

    /// Out of bytes.
    #[must_use]
    pub fn decode(home: PackNumber, bytes: &[u8]) -> Option<Self> {
        let mut fields = Reader::new(bytes, "memo");
        let mut last = Last { pack: i64::from(home.0), position: 0 };
        let mut edges = Self::default();
        for _ in 0..fields.varint().ok()? {
            let kind = kind_of(fields.u8().ok()?)?;
            edges.nodes.push((kind, last.take(&mut fields)?));
            last.position += 1;
        }
        for _ in 0..fields.varint().ok()? {
            let first = last.take(&mut fields)?;
            let count = u32::try_from(fields.varint().ok()?).ok().filter(|count| *count > 0)?;
            first.position.checked_add(count)?;
            last.position += i64::from(count);
            edges.data.push(Run { first, count });
        }
        fields.take_rest().is_empty().then_some(edges)
    }
}

fn kind_of(byte: u8) -> Option<NodeKind> {
    match byte {
        0 => Some(NodeKind::Directory),
        1 => Some(NodeKind::Extents),
        _ => None,
    }
}

/// What the next name is written against.
struct Last {
    pack: i64,
    position: i64,
}

impl Last {
    fn put(&mut self, out: &mut Writer, name: Name, count: u32) {
        let (pack, position) = (i64::from(name.pack.0), i64::from(name.position));
        out.zigzag(pack - self.pack).zigzag(position - self.position);
        *self = Self { pack, position: position + i64::from(count) };
    }

    fn take(&mut self, fields: &mut Reader<'_>) -> Option<Name> {
        let pack = self.pack.checked_add(fields.zigzag().ok()?)?;
        let position = self.position.checked_add(fields.zigzag().ok()?)?;
        *self = Self { pack, position };
        let (pack, position) = (u32::try_from(pack).ok()?, u32::try_from(position).ok()?);
        Some(Name { pack: PackNumber(pack), position })
    }
}

/// Memory that a node takes in a [`Sheet`] beside what it points to, about, bytes.
pub const NODE_BYTES: usize = 64;

/// What is remembered of the nodes of one tree pack, by position and kind: encoded [`Edges`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sheet {
    /// The nodes.
    pub nodes: BTreeMap<(u32, NodeKind), Vec<u8>>,
}

impl Sheet {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        let mut end = 0;
        for ((position, kind), edges) in &self.nodes {
            // Two kinds of one node follow one another.
            out.varint(u64::from(position - end));
            out.u8(u8::from(*kind == NodeKind::Extents));
            out.bytes(edges);
            end = *position;
        }
        out.into_bytes()
    }

    /// Out of bytes.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Reader::new(bytes, "memo");
        let mut sheet = Self::default();
        let mut end = 0_u32;
        while !fields.is_empty() {
            end = end.checked_add(u32::try_from(fields.varint().ok()?).ok()?)?;
            let kind = kind_of(fields.u8().ok()?)?;
            let edges = fields.bytes("a memo", u32::MAX).ok()?;
            sheet.nodes.insert((end, kind), edges.to_vec());
        }
        Some(sheet)
    }

    /// Memory it takes, about, bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.nodes.values().map(|edges| edges.len() + NODE_BYTES).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> impl Strategy<Value = Name> {
        let number = || prop_oneof![0_u32..9, any::<u32>()];
        (number(), number()).prop_map(|(pack, position)| Name { pack: PackNumber(pack), position })
    }

    fn kinds() -> impl Strategy<Value = NodeKind> {
        prop_oneof![Just(NodeKind::Directory), Just(NodeKind::Extents)]
    }

    fn all_edges() -> impl Strategy<Value = Edges> {
        let nodes = proptest::collection::vec((kinds(), names()), 0..9);
        let runs = (names(), 1_u32..5)
            .prop_filter("it ends", |(name, count)| name.position.checked_add(*count).is_some())
            .prop_map(|(first, count)| Run { first, count });
        let data = proptest::collection::vec(runs, 0..9);
        (nodes, data).prop_map(|(nodes, data)| Edges { nodes, data })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_was_written_is_read(home in any::<u32>(), edges in all_edges()) {
            let home = PackNumber(home);
            prop_assert_eq!(Edges::decode(home, &edges.encode(home)), Some(edges));
        }

        #[test]
        fn sheets_are_read_as_written(
            nodes in proptest::collection::btree_map(
                (prop_oneof![0_u32..9, any::<u32>()], kinds()),
                proptest::collection::vec(any::<u8>(), 0..9), 0..9),
        ) {
            let sheet = Sheet { nodes };
            prop_assert_eq!(Sheet::decode(&sheet.encode()), Some(sheet));
        }

        #[test]
        fn nothing_is_read_out_of_anything_but_what_was_written(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            // Neither panics, nor takes memory that the bytes do not account for.
            let _sheet = Sheet::decode(&bytes);
            if let Some(edges) = Edges::decode(PackNumber(3), &bytes) {
                prop_assert!(edges.nodes.len() + edges.data.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn chunks_in_a_row_take_one_run() {
        let mut edges = Edges::default();
        let name = |pack, position| Name { pack: PackNumber(pack), position };
        let all = [name(1, 5), name(1, 6), name(1, 7), name(2, 8), name(1, 8), name(1, 8)];
        all.iter().for_each(|name| edges.add_data(*name));
        assert_eq!(edges.data.len(), 4);
        assert_eq!(edges.data_names().collect::<Vec<_>>(), all);
    }
}
