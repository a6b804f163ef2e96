//! The tree of a snapshot: entries, directory nodes, and lists of extents (SPEC §9).
//!
//! Everything here comes from authenticated bytes, and is still bounded and checked: a hostile
//! writer may sign a hostile tree.

use crate::ids::ChunkId;

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// One path component; never empty, `.`, `..`, and without `/` and NUL. Any other bytes.
    pub name: Vec<u8>,
    /// What it is, with what only that kind has.
    pub node: Node,
    /// Owner, permissions, times, extended attributes.
    pub meta: Meta,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A regular file (a stream that was backed up is one too).
    File(Content),
    /// A directory; its entries are in the node that the id names.
    Directory(ChunkId),
    /// A symbolic link; the target is any bytes without NUL, never followed by cairn.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket; recorded, restored as a socket node.
    Socket,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device node (not its content; a device that was backed up as data is a `File`).
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// The bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Length in bytes; equals the sum of all extents.
    pub bytes: u64,
    /// Where the bytes are.
    pub extents: Extents,
}

/// The extents of a file, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extents {
    /// Few enough to stand in the entry itself ([`crate::limits::INLINE_EXTENTS_MAX`]).
    Inline(Vec<Extent>),
    /// The root of a tree of extent nodes, itself a tree chunk.
    Tree(ChunkId),
}

/// A run of bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// A chunk.
    Chunk {
        /// Its id.
        id: ChunkId,
        /// Its length in bytes, 1 to [`crate::limits::CHUNK_BYTES_MAX`].
        bytes: u32,
    },
    /// A hole of a sparse file.
    Hole {
        /// Its length in bytes, at least 1.
        bytes: u64,
    },
}

impl Extent {
    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match *self {
            Self::Chunk { bytes, .. } => u64::from(bytes),
            Self::Hole { bytes } => bytes,
        }
    }
}

/// What a restore needs besides the content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits including set-uid, set-gid and sticky: 0 to 0o7777.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Owner's name where the host knew one.
    pub user: Option<String>,
    /// Group's name where the host knew one.
    pub group: Option<String>,
    /// Modification time.
    pub mtime: Timestamp,
    /// For files with more than one link: which names belong together.
    pub link: Option<LinkGroup>,
    /// Extended attributes, sorted by name; POSIX ACLs are among them
    /// (`system.posix_acl_access`, `system.posix_acl_default`).
    pub xattrs: Vec<Xattr>,
}

/// A point in time: seconds since 1970-01-01T00:00:00Z and nanoseconds (below 10^9) after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since the epoch; negative before it.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// Names that were links to one file at the source: equal groups within one snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkGroup {
    /// Device number at the source.
    pub device: u64,
    /// Inode number at the source.
    pub inode: u64,
}

/// One extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// Full name with its namespace, e.g. `user.comment`.
    pub name: Vec<u8>,
    /// Value, any bytes.
    pub value: Vec<u8>,
}
