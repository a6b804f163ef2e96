//! Encoding of tree nodes: directory nodes, extent nodes, entries (SPEC §9).

use crate::codec::{Reader, Writer};
use crate::error::FormatError;
use crate::ids::ChunkId;
use crate::limits::{
    CHUNK_BYTES_MAX, ENTRY_BYTES_MAX, EXTENT_NODE_ITEMS_MAX, FILE_BYTES_MAX, INLINE_EXTENTS_MAX,
    LABEL_BYTES_MAX, NAME_BYTES_MAX, NODE_LEVELS_MAX, SYMLINK_BYTES_MAX, XATTR_BYTES_MAX,
};
use crate::tree::{Content, Entry, Extent, Extents, LinkGroup, Meta, Node, Timestamp, Xattr};

const DIRECTORY_LEAF: u8 = b'D';
const DIRECTORY_INNER: u8 = b'I';
const EXTENT_LEAF: u8 = b'E';
const EXTENT_INNER: u8 = b'J';

/// Bytes of the smallest entry in a leaf: its length, kind, a name of one byte, and five numbers.
const ENTRY_BYTES_MIN: usize = 1 + 1 + 2 + 5;

/// A node of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryNode {
    /// Entries, ascending by name.
    Leaf(Vec<Entry>),
    /// Nodes one level below, ascending by first name.
    Inner {
        /// 1 above leaves.
        level: u8,
        /// The children.
        children: Vec<DirectoryChild>,
    },
}

/// A child of an inner directory node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryChild {
    /// Name of the first entry below it.
    pub first_name: Vec<u8>,
    /// The node.
    pub node: ChunkId,
    /// Number of entries below it.
    pub entries: u64,
}

/// A node of a file's list of extents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtentNode {
    /// Extents, in order.
    Leaf(Vec<Extent>),
    /// Nodes one level below, in order.
    Inner {
        /// 1 above leaves.
        level: u8,
        /// The children.
        children: Vec<ExtentChild>,
    },
}

/// A child of an inner extent node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentChild {
    /// The node.
    pub node: ChunkId,
    /// Bytes of the file below it.
    pub bytes: u64,
}

/// True when `name` may be one component of a path: 1 to [`NAME_BYTES_MAX`] bytes, not `.` or
/// `..`, without `/` and NUL.
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX as usize
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

impl DirectoryNode {
    /// The node's plaintext.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Self::Leaf(entries) => {
                writer.u8(DIRECTORY_LEAF).count(entries.len());
                for entry in entries {
                    writer.bytes(&entry.encode());
                }
            }
            Self::Inner { level, children } => {
                writer.u8(DIRECTORY_INNER).u8(*level).count(children.len());
                for child in children {
                    writer
                        .bytes(&child.first_name)
                        .raw(child.node.as_bytes())
                        .varint(child.entries);
                }
            }
        }
        writer.into_bytes()
    }

    /// Joins encoded entries into the plaintext of a leaf; for builders that keep entries encoded.
    #[must_use]
    pub fn encode_leaf<'a>(entries: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(DIRECTORY_LEAF).count(entries.len());
        for entry in entries {
            writer.bytes(entry);
        }
        writer.into_bytes()
    }

    /// Reads a node's plaintext.
    ///
    /// # Errors
    /// Any [`FormatError`]: unsafe or unordered names, wrong sizes, unknown kinds.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, "directory node");
        let node = match reader.u8()? {
            DIRECTORY_LEAF => {
                let count = reader.count("entries of directory", ENTRY_BYTES_MIN)?;
                let mut entries: Vec<Entry> = Vec::with_capacity(count);
                for _ in 0..count {
                    let entry = Entry::decode(reader.bytes("entry", ENTRY_BYTES_MAX)?)?;
                    if entries.last().is_some_and(|last| last.name >= entry.name) {
                        return Err(FormatError::Value { what: "order of names" });
                    }
                    entries.push(entry);
                }
                Self::Leaf(entries)
            }
            DIRECTORY_INNER => {
                let level = decode_level(&mut reader)?;
                let count = reader.count("children of directory node", 3 + ChunkId::LEN)?;
                let mut children: Vec<DirectoryChild> = Vec::with_capacity(count);
                for _ in 0..count {
                    let first_name = reader.bytes("name", NAME_BYTES_MAX)?.to_vec();
                    let node = ChunkId::from_bytes(reader.array()?);
                    let entries = reader.varint()?;
                    let ordered = children.last().is_none_or(|last| last.first_name < first_name);
                    if !is_name(&first_name) || !ordered {
                        return Err(FormatError::Value { what: "order of names" });
                    }
                    if entries == 0 {
                        return Err(FormatError::Value { what: "entries below a directory node" });
                    }
                    children.push(DirectoryChild { first_name, node, entries });
                }
                if children.is_empty() {
                    return Err(FormatError::Missing { what: "children of directory node" });
                }
                Self::Inner { level, children }
            }
            _ => return Err(FormatError::Magic { what: "directory node" }),
        };
        reader.finish()?;
        Ok(node)
    }
}

fn decode_level(reader: &mut Reader<'_>) -> Result<u8, FormatError> {
    let level = reader.u8()?;
    if (1..=NODE_LEVELS_MAX).contains(&u32::from(level)) {
        Ok(level)
    } else {
        Err(FormatError::Limit {
            what: "level of node",
            limit: u64::from(NODE_LEVELS_MAX),
            found: u64::from(level),
        })
    }
}

impl ExtentNode {
    /// The node's plaintext.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Self::Leaf(extents) => {
                writer.u8(EXTENT_LEAF);
                encode_extents(extents, &mut writer);
            }
            Self::Inner { level, children } => {
                writer.u8(EXTENT_INNER).u8(*level).count(children.len());
                for child in children {
                    writer.raw(child.node.as_bytes()).varint(child.bytes);
                }
            }
        }
        writer.into_bytes()
    }

    /// Reads a node's plaintext.
    ///
    /// # Errors
    /// Any [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, "extent node");
        let node = match reader.u8()? {
            EXTENT_LEAF => {
                let extents = decode_extents(&mut reader, EXTENT_NODE_ITEMS_MAX)?;
                if extents.is_empty() {
                    return Err(FormatError::Missing { what: "extents of extent node" });
                }
                Self::Leaf(extents)
            }
            EXTENT_INNER => {
                let level = decode_level(&mut reader)?;
                let count = reader.count("children of extent node", ChunkId::LEN + 1)?;
                if count == 0 || count > EXTENT_NODE_ITEMS_MAX as usize {
                    return Err(FormatError::Limit {
                        what: "children of extent node",
                        limit: u64::from(EXTENT_NODE_ITEMS_MAX),
                        found: count as u64,
                    });
                }
                let children = (0..count)
                    .map(|_| {
                        let node = ChunkId::from_bytes(reader.array()?);
                        let bytes = decode_file_bytes(&mut reader)?;
                        if bytes == 0 {
                            return Err(FormatError::Value { what: "bytes below an extent node" });
                        }
                        Ok(ExtentChild { node, bytes })
                    })
                    .collect::<Result<_, FormatError>>()?;
                Self::Inner { level, children }
            }
            _ => return Err(FormatError::Magic { what: "extent node" }),
        };
        reader.finish()?;
        Ok(node)
    }
}

/// The length of a file or of a part of one.
fn decode_file_bytes(reader: &mut Reader<'_>) -> Result<u64, FormatError> {
    let found = reader.varint()?;
    if found <= FILE_BYTES_MAX {
        Ok(found)
    } else {
        Err(FormatError::Limit { what: "length of file", limit: FILE_BYTES_MAX, found })
    }
}

fn encode_extents(extents: &[Extent], writer: &mut Writer) {
    writer.count(extents.len());
    for extent in extents {
        match extent {
            Extent::Chunk { id, bytes } => {
                writer.varint(u64::from(*bytes) << 1).raw(id.as_bytes());
            }
            Extent::Hole { bytes } => {
                writer.varint((bytes << 1) | 1);
            }
        }
    }
}

fn decode_extents(reader: &mut Reader<'_>, count_max: u32) -> Result<Vec<Extent>, FormatError> {
    let count = reader.count("extents", 1)?;
    if count > count_max as usize {
        return Err(FormatError::Limit {
            what: "extents",
            limit: u64::from(count_max),
            found: count as u64,
        });
    }
    let mut extents = Vec::with_capacity(count);
    for _ in 0..count {
        let word = reader.varint()?;
        let (bytes, is_hole) = (word >> 1, word & 1 == 1);
        let bad = FormatError::Value { what: "length of extent" };
        let extent = if is_hole {
            if matches!(extents.last(), Some(Extent::Hole { .. })) {
                return Err(FormatError::Value { what: "order of holes" });
            }
            Extent::Hole { bytes }
        } else {
            let bytes = u32::try_from(bytes).map_err(|_| bad.clone())?;
            if bytes > CHUNK_BYTES_MAX {
                return Err(bad);
            }
            Extent::Chunk { id: ChunkId::from_bytes(reader.array()?), bytes }
        };
        if extent.bytes() == 0 {
            return Err(bad);
        }
        extents.push(extent);
    }
    Ok(extents)
}

/// The extents of a file of so many bytes that stand in its entry.
fn decode_inline(reader: &mut Reader<'_>, bytes: u64) -> Result<Extents, FormatError> {
    let extents = decode_extents(reader, INLINE_EXTENTS_MAX)?;
    let sum = extents.iter().try_fold(0_u64, |sum, extent| sum.checked_add(extent.bytes()));
    if sum == Some(bytes) {
        Ok(Extents::Inline(extents))
    } else {
        Err(FormatError::Value { what: "length of file" })
    }
}

/// Appends a file's content in the form an entry's field 1 or 3 has, with the tag before it: for
/// local caches.
pub fn encode_content(content: &Content, writer: &mut Writer) {
    match &content.extents {
        Extents::Inline(extents) => {
            writer.u8(1).varint(content.bytes);
            encode_extents(extents, writer);
        }
        Extents::Tree(node) => {
            writer.u8(3).varint(content.bytes).raw(node.as_bytes());
        }
    }
}

/// Reads what [`encode_content`] wrote.
///
/// # Errors
/// Any [`FormatError`].
pub fn decode_content(bytes: &[u8]) -> Result<Content, FormatError> {
    let mut reader = Reader::new(bytes, "content");
    let tag = reader.u8()?;
    let bytes = decode_file_bytes(&mut reader)?;
    let extents = match tag {
        1 => decode_inline(&mut reader, bytes)?,
        3 => Extents::Tree(ChunkId::from_bytes(reader.array()?)),
        _ => return Err(FormatError::Value { what: "content" }),
    };
    reader.finish()?;
    Ok(Content { bytes, extents })
}

mod kind {
    pub const FILE: u8 = 1;
    pub const DIRECTORY: u8 = 2;
    pub const SYMLINK: u8 = 3;
    pub const FIFO: u8 = 4;
    pub const CHAR_DEVICE: u8 = 5;
    pub const BLOCK_DEVICE: u8 = 6;
    pub const SOCKET: u8 = 7;
}

impl Node {
    const fn kind(&self) -> u8 {
        match self {
            Self::File(_) => kind::FILE,
            Self::Directory(_) => kind::DIRECTORY,
            Self::Symlink(_) => kind::SYMLINK,
            Self::Fifo => kind::FIFO,
            Self::CharDevice { .. } => kind::CHAR_DEVICE,
            Self::BlockDevice { .. } => kind::BLOCK_DEVICE,
            Self::Socket => kind::SOCKET,
        }
    }
}

impl Entry {
    /// The entry's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let meta = &self.meta;
        let mut writer = Writer::new();
        writer
            .u8(self.node.kind())
            .bytes(&self.name)
            .varint(u64::from(meta.mode))
            .varint(u64::from(meta.uid))
            .varint(u64::from(meta.gid))
            .zigzag(meta.mtime.seconds)
            .varint(u64::from(meta.mtime.nanoseconds));
        if let Node::File(Content { bytes, extents: Extents::Inline(extents) }) = &self.node {
            writer.field(1, |w| {
                w.varint(*bytes);
                encode_extents(extents, w);
            });
        }
        if let Some(user) = &meta.user {
            writer.field(2, |w| {
                w.str(user);
            });
        }
        if let Node::File(Content { bytes, extents: Extents::Tree(node) }) = &self.node {
            writer.field(3, |w| {
                w.varint(*bytes).raw(node.as_bytes());
            });
        }
        if let Some(group) = &meta.group {
            writer.field(4, |w| {
                w.str(group);
            });
        }
        if let Node::Directory(node) = &self.node {
            writer.field(5, |w| {
                w.raw(node.as_bytes());
            });
        }
        if let Some(link) = &meta.link {
            writer.field(6, |w| {
                w.varint(link.device).varint(link.inode);
            });
        }
        if let Node::Symlink(target) = &self.node {
            writer.field(7, |w| {
                w.raw(target);
            });
        }
        if !meta.xattrs.is_empty() {
            writer.field(8, |w| {
                w.count(meta.xattrs.len());
                for xattr in &meta.xattrs {
                    w.bytes(&xattr.name).bytes(&xattr.value);
                }
            });
        }
        if let Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } = &self.node {
            writer.field(9, |w| {
                w.varint(u64::from(*major)).varint(u64::from(*minor));
            });
        }
        writer.into_bytes()
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// Any [`FormatError`]: an unsafe name, a field that its kind must or must not have, lengths
    /// that do not add up.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, "entry");
        let kind = reader.u8()?;
        let name = reader.bytes("name", NAME_BYTES_MAX)?.to_vec();
        if !is_name(&name) {
            return Err(FormatError::Value { what: "name" });
        }
        let mut meta = Meta {
            mode: reader.bounded("mode", 0o7777)?,
            uid: reader.bounded("owner", u32::MAX)?,
            gid: reader.bounded("group", u32::MAX)?,
            mtime: Timestamp {
                seconds: reader.zigzag()?,
                nanoseconds: reader.bounded("nanoseconds", 999_999_999)?,
            },
            ..Meta::default()
        };
        let mut fields = Fields::default();
        reader.fields(|tag, value| fields.read(tag, value, &mut meta))?;
        let node = fields.into_node(kind, &meta)?;
        Ok(Self { name, node, meta })
    }
}

/// The fields of an entry that only some kinds have.
#[derive(Default)]
struct Fields {
    content: Option<Content>,
    directory: Option<ChunkId>,
    symlink: Option<Vec<u8>>,
    device: Option<(u32, u32)>,
}

impl Fields {
    fn read(
        &mut self,
        tag: u64,
        value: &mut Reader<'_>,
        meta: &mut Meta,
    ) -> Result<bool, FormatError> {
        match tag {
            1 => {
                let bytes = decode_file_bytes(value)?;
                let extents = decode_inline(value, bytes)?;
                self.content = Some(Content { bytes, extents });
            }
            2 => meta.user = Some(value.str("user name", LABEL_BYTES_MAX)?),
            3 => {
                if self.content.is_some() {
                    return Err(FormatError::Value { what: "content of file" });
                }
                let bytes = decode_file_bytes(value)?;
                let extents = Extents::Tree(ChunkId::from_bytes(value.array()?));
                self.content = Some(Content { bytes, extents });
            }
            4 => meta.group = Some(value.str("group name", LABEL_BYTES_MAX)?),
            5 => self.directory = Some(ChunkId::from_bytes(value.array()?)),
            6 => {
                meta.link = Some(LinkGroup { device: value.varint()?, inode: value.varint()? });
            }
            7 => {
                let target = value.take_rest();
                let fits = (1..=SYMLINK_BYTES_MAX as usize).contains(&target.len());
                if !fits || target.contains(&0) {
                    return Err(FormatError::Value { what: "symlink target" });
                }
                self.symlink = Some(target.to_vec());
            }
            8 => meta.xattrs = decode_xattrs(value)?,
            9 => {
                self.device = Some((
                    value.bounded("major number", u32::MAX)?,
                    value.bounded("minor number", u32::MAX)?,
                ));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn into_node(self, kind: u8, meta: &Meta) -> Result<Node, FormatError> {
        let node = match (kind, self.content, self.directory, self.symlink, self.device) {
            (kind::FILE, Some(content), None, None, None) => Node::File(content),
            (kind::DIRECTORY, None, Some(node), None, None) if meta.link.is_none() => {
                Node::Directory(node)
            }
            (kind::SYMLINK, None, None, Some(target), None) => Node::Symlink(target),
            (kind::FIFO, None, None, None, None) => Node::Fifo,
            (kind::SOCKET, None, None, None, None) => Node::Socket,
            (kind::CHAR_DEVICE, None, None, None, Some((major, minor))) => {
                Node::CharDevice { major, minor }
            }
            (kind::BLOCK_DEVICE, None, None, None, Some((major, minor))) => {
                Node::BlockDevice { major, minor }
            }
            _ => return Err(FormatError::Value { what: "kind of entry and its fields" }),
        };
        Ok(node)
    }
}

fn decode_xattrs(value: &mut Reader<'_>) -> Result<Vec<Xattr>, FormatError> {
    let count = value.count("extended attributes", 3)?;
    let mut budget = XATTR_BYTES_MAX;
    let mut xattrs: Vec<Xattr> = Vec::with_capacity(count);
    for _ in 0..count {
        let name = value.bytes("name of extended attribute", budget)?.to_vec();
        budget -= name.len() as u32;
        let content = value.bytes("value of extended attribute", budget)?.to_vec();
        budget -= content.len() as u32;
        let ordered = xattrs.last().is_none_or(|last| last.name < name);
        if name.is_empty() || name.contains(&0) || !ordered {
            return Err(FormatError::Value { what: "name of extended attribute" });
        }
        xattrs.push(Xattr { name, value: content });
    }
    if xattrs.is_empty() {
        return Err(FormatError::Missing { what: "extended attributes" });
    }
    Ok(xattrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_whose_extents_do_not_add_up_is_refused() {
        let extents = vec![
            Extent::Chunk { id: ChunkId::from_bytes([1; 32]), bytes: 100 },
            Extent::Hole { bytes: 900 },
        ];
        for bytes in [0, 999, 1000, 1001] {
            let content = Content { bytes, extents: Extents::Inline(extents.clone()) };
            let mut writer = Writer::new();
            encode_content(&content, &mut writer);
            let read = decode_content(writer.as_bytes());
            if bytes == 1000 {
                assert_eq!(read, Ok(content));
            } else {
                assert_eq!(read, Err(FormatError::Value { what: "length of file" }));
            }
        }
    }
}
