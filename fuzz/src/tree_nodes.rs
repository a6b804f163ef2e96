//! Nodes of a snapshot's tree, from raw bytes and from values that a backup could meet.

use std::collections::{BTreeMap, HashMap};

use arbitrary::{Result as Made, Unstructured};
use bytes::Bytes;
use cairn_engine::error::Error;
use cairn_engine::tree::NodeSink;
use cairn_engine::tree::directory::DirectoryList;
use cairn_engine::tree::extents::ExtentList;
use cairn_engine::tree::reader::{self, Listing, NodeSource};
use cairn_format::codec::{Reader, Writer};
use cairn_format::error::FormatError;
use cairn_format::ids::ChunkId;
use cairn_format::limits::{
    CHUNK_BYTES_MAX, EXTENT_NODE_ITEMS_MAX, FILE_BYTES_MAX, INLINE_EXTENTS_MAX, NAME_BYTES_MAX,
    NODE_BYTES_MAX,
};
use cairn_format::node::{DirectoryNode, ExtentNode, decode_content, encode_content, is_name};
use cairn_format::tree::{
    Content, Entry, Extent, Extents, LinkGroup, Meta, Node, Timestamp, Xattr,
};

use crate::memory::bounded;
use crate::spelling::{exact, known_fields};

/// Highest tag of an entry's fields.
const ENTRY_TAG_MAX: u64 = 9;

/// See the module.
pub fn run(data: &[u8]) {
    let Some((selector, bytes)) = data.split_first() else { return };
    match selector % 7 {
        0 => directory_node(bytes),
        1 => extent_node(bytes),
        2 => entry(bytes),
        3 => content(bytes),
        4 => drop(made_up_leaf(&mut Unstructured::new(bytes))),
        5 => drop(built_directory(&mut Unstructured::new(bytes))),
        _ => drop(built_file(&mut Unstructured::new(bytes))),
    }
}

/// An entry's bytes without the fields that a later version may add.
fn without_unknown(bytes: &[u8]) -> Vec<u8> {
    let mut reader = Reader::new(bytes, "entry");
    let head = |reader: &mut Reader<'_>| -> Result<usize, FormatError> {
        reader.u8()?;
        reader.bytes("name", NAME_BYTES_MAX)?;
        for _ in 0..5 {
            reader.varint()?;
        }
        Ok(bytes.len() - reader.remaining())
    };
    let (head, fields) = bytes.split_at(head(&mut reader).expect("it was decoded"));
    [head, &known_fields(fields, ENTRY_TAG_MAX)].concat()
}

fn check_extents(extents: &[Extent], count_max: u32) -> u64 {
    assert!(extents.len() <= count_max as usize);
    let mut sum = 0_u64;
    for (index, extent) in extents.iter().enumerate() {
        assert!(extent.bytes() > 0);
        if let Extent::Chunk { bytes, .. } = extent {
            assert!(*bytes <= CHUNK_BYTES_MAX);
        } else {
            assert!(!matches!(extents.get(index + 1), Some(Extent::Hole { .. })));
        }
        sum = sum.saturating_add(extent.bytes());
    }
    sum
}

fn check_content(content: &Content) {
    assert!(content.bytes <= FILE_BYTES_MAX);
    if let Extents::Inline(extents) = &content.extents {
        assert_eq!(check_extents(extents, INLINE_EXTENTS_MAX), content.bytes);
    }
}

fn check_entry(entry: &Entry) {
    assert!(is_name(&entry.name));
    assert!(entry.meta.mode <= 0o7777 && entry.meta.mtime.nanoseconds < 1_000_000_000);
    assert!(entry.meta.xattrs.is_sorted_by(|one, next| one.name < next.name));
    match &entry.node {
        Node::File(content) => check_content(content),
        Node::Symlink(target) => assert!(!target.is_empty() && !target.contains(&0)),
        Node::Directory(_) => assert!(entry.meta.link.is_none()),
        _ => {}
    }
}

fn entry(bytes: &[u8]) {
    let Ok(entry) = bounded(bytes.len(), || Entry::decode(bytes)) else { return };
    check_entry(&entry);
    assert_eq!(entry.encode(), without_unknown(bytes));
}

fn directory_node(bytes: &[u8]) {
    let Ok(node) = bounded(bytes.len(), || DirectoryNode::decode(bytes)) else { return };
    match &node {
        DirectoryNode::Leaf(entries) => {
            entries.iter().for_each(check_entry);
            assert!(entries.is_sorted_by(|one, next| one.name < next.name));
            let mut reader = Reader::new(&bytes[1..], "leaf");
            let count = reader.varint().expect("it was decoded");
            let known = (0..count)
                .map(|_| without_unknown(reader.bytes("entry", NODE_BYTES_MAX).expect("decoded")))
                .collect::<Vec<_>>();
            let joined = DirectoryNode::encode_leaf(known.iter().map(Vec::as_slice));
            assert_eq!(node.encode(), joined);
        }
        DirectoryNode::Inner { children, .. } => {
            assert!(!children.is_empty());
            assert!(children.iter().all(|child| is_name(&child.first_name) && child.entries > 0));
            assert!(children.is_sorted_by(|one, next| one.first_name < next.first_name));
            assert_eq!(node.encode(), bytes);
        }
    }
}

fn extent_node(bytes: &[u8]) {
    match exact(bytes, ExtentNode::decode, ExtentNode::encode) {
        Some(ExtentNode::Leaf(extents)) => {
            assert!(check_extents(&extents, EXTENT_NODE_ITEMS_MAX) > 0);
        }
        Some(ExtentNode::Inner { children, .. }) => {
            assert!((1..=EXTENT_NODE_ITEMS_MAX as usize).contains(&children.len()));
            assert!(children.iter().all(|child| child.bytes > 0));
        }
        None => {}
    }
}

fn content(bytes: &[u8]) {
    let encode = |content: &Content| {
        let mut writer = Writer::new();
        encode_content(content, &mut writer);
        writer.into_bytes()
    };
    if let Some(content) = exact(bytes, decode_content, encode) {
        check_content(&content);
    }
}

fn make_name(input: &mut Unstructured<'_>) -> Made<Vec<u8>> {
    let mut name = input.arbitrary::<Vec<u8>>()?;
    name.truncate(NAME_BYTES_MAX as usize - 1);
    for byte in &mut name {
        if matches!(byte, b'/' | 0) {
            *byte = b'_';
        }
    }
    if !is_name(&name) {
        name.push(b'x');
    }
    Ok(name)
}

fn make_extents(input: &mut Unstructured<'_>, count_max: u32) -> Made<Vec<Extent>> {
    let count = input.int_in_range(0..=count_max)?;
    let mut extents = Vec::new();
    for _ in 0..count {
        let hole =
            input.arbitrary::<bool>()? && !matches!(extents.last(), Some(Extent::Hole { .. }));
        extents.push(if hole {
            Extent::Hole { bytes: input.int_in_range(1..=1 << 40)? }
        } else {
            let id = ChunkId::from_bytes(*blake3::hash(&[input.arbitrary()?]).as_bytes());
            Extent::Chunk { id, bytes: input.int_in_range(1..=CHUNK_BYTES_MAX)? }
        });
    }
    Ok(extents)
}

fn make_node(input: &mut Unstructured<'_>) -> Made<Node> {
    Ok(match input.arbitrary::<u8>()? % 8 {
        0 => Node::Directory(ChunkId::from_bytes(input.arbitrary()?)),
        1 => {
            let mut target = input.arbitrary::<Vec<u8>>()?;
            target.retain(|byte| *byte != 0);
            target.push(b't');
            Node::Symlink(target)
        }
        2 => Node::Fifo,
        3 => Node::Socket,
        4 => Node::CharDevice { major: input.arbitrary()?, minor: input.arbitrary()? },
        5 => Node::BlockDevice { major: input.arbitrary()?, minor: input.arbitrary()? },
        6 => {
            let extents = Extents::Tree(ChunkId::from_bytes(input.arbitrary()?));
            Node::File(Content { bytes: input.int_in_range(0..=FILE_BYTES_MAX)?, extents })
        }
        _ => {
            let extents = make_extents(input, INLINE_EXTENTS_MAX)?;
            let bytes = extents.iter().map(Extent::bytes).sum();
            Node::File(Content { bytes, extents: Extents::Inline(extents) })
        }
    })
}

fn make_entry(input: &mut Unstructured<'_>) -> Made<Entry> {
    let node = make_node(input)?;
    let is_directory = matches!(node, Node::Directory(_));
    let label = |input: &mut Unstructured<'_>| -> Made<Option<String>> {
        Ok(input.arbitrary::<Option<String>>()?.filter(|label| label.len() <= 255))
    };
    let link = |input: &mut Unstructured<'_>| -> Made<LinkGroup> {
        Ok(LinkGroup { device: input.arbitrary()?, inode: input.arbitrary()? })
    };
    let mut xattrs = BTreeMap::new();
    for _ in 0..input.int_in_range(0..=3)? {
        xattrs.insert(make_name(input)?, input.arbitrary::<Vec<u8>>()?);
    }
    let meta = Meta {
        mode: input.int_in_range(0..=0o7777)?,
        uid: input.arbitrary()?,
        gid: input.arbitrary()?,
        user: label(input)?,
        group: label(input)?,
        mtime: Timestamp {
            seconds: input.arbitrary()?,
            nanoseconds: input.int_in_range(0..=999_999_999)?,
        },
        link: if !is_directory && input.arbitrary()? { Some(link(input)?) } else { None },
        xattrs: xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect(),
    };
    Ok(Entry { name: make_name(input)?, node, meta })
}

/// A leaf that a backup could write is read as it was.
fn made_up_leaf(input: &mut Unstructured<'_>) -> Made<()> {
    let mut entries = BTreeMap::new();
    for _ in 0..input.int_in_range(0..=12)? {
        let entry = make_entry(input)?;
        entries.insert(entry.name.clone(), entry);
    }
    let leaf = DirectoryNode::Leaf(entries.into_values().collect());
    assert_eq!(DirectoryNode::decode(&leaf.encode()).as_ref(), Ok(&leaf));
    Ok(())
}

/// Nodes in memory.
#[derive(Default)]
pub struct Nodes(HashMap<ChunkId, Bytes>);

impl NodeSink for Nodes {
    fn put_node(&mut self, node: Vec<u8>) -> Result<ChunkId, Error> {
        assert!(node.len() <= NODE_BYTES_MAX as usize, "a node of {} bytes", node.len());
        let id = ChunkId::from_bytes(*blake3::hash(&node).as_bytes());
        self.0.insert(id, node.into());
        Ok(id)
    }
}

impl NodeSource for Nodes {
    fn node(&self, id: &ChunkId) -> Result<Bytes, Error> {
        let missing = || Error::TreeNode { node: *id, message: "missing".to_owned() };
        self.0.get(id).cloned().ok_or_else(missing)
    }
}

/// How many items: rarely so many that there are several nodes, because that takes long.
fn made_count(input: &mut Unstructured<'_>) -> Made<u32> {
    let most = if input.arbitrary::<u8>()? == 0xa5 { 1000 } else { 60 };
    input.int_in_range(0..=most)
}

/// A directory that the builder splits is read entry by entry as it was.
fn built_directory(input: &mut Unstructured<'_>) -> Made<()> {
    let count = made_count(input)?;
    let padding = input.int_in_range(0..=300_usize)?;
    let template = make_entry(input)?;
    let names = (0..count).map(|number| {
        let mut name = number.wrapping_mul(0x9e37_79b1).to_be_bytes().map(|byte| byte | 1).to_vec();
        name.retain(|byte| *byte != b'/');
        name.extend(std::iter::repeat_n(b'p', padding + 1));
        name
    });
    let names = names.collect::<std::collections::BTreeSet<_>>();
    let entries = names.into_iter().map(|name| Entry { name, ..template.clone() });
    let entries = entries.collect::<Vec<_>>();
    let (mut nodes, mut list) = (Nodes::default(), DirectoryList::default());
    for entry in &entries {
        list.push(entry, &mut nodes).expect("memory takes nodes");
    }
    let root = list.finish(&mut nodes).expect("memory takes nodes");
    let read = Listing::new(&nodes, root).collect::<Result<Vec<_>, _>>();
    let read = read.expect("an honest directory");
    assert!(read == entries);
    for entry in entries.iter().step_by(97) {
        let found = reader::lookup(&nodes, &root, &entry.name).expect("an honest directory");
        assert_eq!(found.as_ref(), Some(entry));
    }
    Ok(())
}

/// A file that the builder splits is read extent by extent as it was.
fn built_file(input: &mut Unstructured<'_>) -> Made<()> {
    let count = 2 * made_count(input)?;
    let pattern = make_extents(input, 40)?;
    let pattern = (0..count).zip(pattern.iter().cycle());
    let (mut nodes, mut list) = (Nodes::default(), ExtentList::default());
    let mut joined: Vec<Extent> = Vec::new();
    for (number, extent) in pattern {
        let extent = match *extent {
            Extent::Chunk { bytes, .. } => {
                let id = *blake3::hash(&number.to_le_bytes()).as_bytes();
                Extent::Chunk { id: ChunkId::from_bytes(id), bytes }
            }
            hole => hole,
        };
        list.push(extent, &mut nodes).expect("memory takes nodes");
        match (joined.last_mut(), extent) {
            (Some(Extent::Hole { bytes }), Extent::Hole { bytes: more }) => *bytes += more,
            _ => joined.push(extent),
        }
    }
    let content = list.finish(&mut nodes).expect("memory takes nodes");
    let mut end = 0;
    let mut read: Vec<Extent> = Vec::new();
    let mut each = |offset: u64, extent: Extent| {
        assert_eq!(offset, end);
        end += extent.bytes();
        match (read.last_mut(), extent) {
            (Some(Extent::Hole { bytes }), Extent::Hole { bytes: more }) => *bytes += more,
            _ => read.push(extent),
        }
        Ok(())
    };
    reader::extents(&nodes, &content, &mut each).expect("an honest file");
    assert!(read == joined && end == content.bytes);
    Ok(())
}
