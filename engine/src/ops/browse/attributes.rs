//! What is shown of an entry besides its name and content: as a restore would make it.

use std::collections::HashMap;
use std::ops::ControlFlow;

use cairn_format::ids::ChunkId;
use cairn_format::tree::{Content, Entry, Extent, Extents, Meta, Node, Timestamp};
use parking_lot::Mutex;

use super::inodes::Place;
use super::links::Links;
use super::shelf::{self, Shelves};
use crate::error::Error;
use crate::ops::snapshots::SnapshotInfo;
use crate::target::{OwnerIds, Owners};
use crate::tree::reader::{self, NodeSource};

/// Extents of a file that are looked at to tell how much of it are holes, in a store nearby and in one
/// behind a network, which gives so many with one or two requests.
const EXTENTS_NEAR_MAX: u32 = 1 << 16;
const EXTENTS_FAR_MAX: u32 = 1 << 10;
/// Files of which it is remembered how much of them is stored.
const SIZES_MAX: usize = 1 << 14;
/// Unit in which files take room, bytes.
const BLOCK_BYTES: u64 = 4096;
/// Permissions of directories that are in no snapshot, and of the first one of each.
const TOP_MODE: u32 = 0o555;
/// Permissions of links, which nobody looks at.
const LINK_MODE: u32 = 0o777;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl Kind {
    pub(super) fn of(node: &Node) -> Self {
        match node {
            Node::File(_) => Self::File,
            Node::Directory(_) => Self::Directory,
            Node::Symlink(_) => Self::Symlink,
            Node::Fifo => Self::Fifo,
            Node::Socket => Self::Socket,
            Node::CharDevice { .. } => Self::CharDevice,
            Node::BlockDevice { .. } => Self::BlockDevice,
        }
    }
}

/// What is known of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Its number. Names of one file have one.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length of a file or of a link's target, bytes.
    pub bytes: u64,
    /// Room that a file takes, bytes: without its holes, in whole blocks of 4 KiB.
    pub bytes_occupied: u64,
    /// Names that a file has in the snapshot; of directories always 1, which says nothing.
    pub links: u32,
    /// When it was changed last.
    pub mtime: Timestamp,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// It never changes: it stands in a snapshot.
    pub lasting: bool,
}

/// Makes attributes.
pub(super) struct Looks {
    owner: (u32, u32),
    owners: Owners,
    owner_ids: OwnerIds,
    links: Links,
    /// Bytes without holes, by the node of the extents.
    sizes: Mutex<HashMap<ChunkId, u64>>,
}

impl Looks {
    pub(super) fn new(owner: (u32, u32), numeric_owner: bool) -> Self {
        let owners = if numeric_owner { Owners::ByNumber } else { Owners::ByName };
        Self {
            owner,
            owners,
            owner_ids: OwnerIds::default(),
            links: Links::default(),
            sizes: Mutex::default(),
        }
    }

    /// Of an entry in a snapshot. What is damaged of it is left for whoever reads it.
    pub(super) fn describe(
        &self,
        nodes: &dyn NodeSource,
        near: bool,
        number: u64,
        snapshot: &SnapshotInfo,
        entry: &Entry,
    ) -> Attributes {
        let Meta { mode, mtime, link, .. } = entry.meta;
        let (uid, gid) = self.owner_ids.of(&entry.meta, self.owners);
        let (bytes, stored) = match &entry.node {
            Node::File(content) => (content.bytes, self.stored(nodes, near, content)),
            Node::Symlink(target) => (target.len() as u64, 0),
            _ => (0, 0),
        };
        let device = match entry.node {
            Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
                (major, minor)
            }
            _ => (0, 0),
        };
        let kind = Kind::of(&entry.node);
        let links = match link.filter(|_| kind != Kind::Directory) {
            Some(group) => self.links.count(nodes, near, snapshot, group),
            None => 1,
        };
        Attributes {
            number,
            kind,
            mode: if kind == Kind::Symlink { LINK_MODE } else { mode },
            uid,
            gid,
            bytes,
            bytes_occupied: stored.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES),
            links,
            mtime,
            device,
            lasting: true,
        }
    }

    /// Of what is in no snapshot, and of the first directory of one.
    pub(super) fn top(&self, number: u64, place: &Place, shelves: &Shelves) -> Attributes {
        let (kind, bytes) = match place {
            Place::Link { key } => {
                (Kind::Symlink, shelves.target(*key).map_or(0, |target| target.len() as u64))
            }
            _ => (Kind::Directory, 0),
        };
        let time_ms = match place {
            Place::Tree { folder: Some(folder), .. } => shelf::time_ms(&folder.shown.info),
            Place::Job(_, job) => shelves.time_ms(Some(job)),
            _ => shelves.time_ms(None),
        };
        let nanoseconds = time_ms.rem_euclid(1000).unsigned_abs() * 1_000_000;
        Attributes {
            number,
            kind,
            mode: if kind == Kind::Symlink { LINK_MODE } else { TOP_MODE },
            uid: self.owner.0,
            gid: self.owner.1,
            bytes,
            bytes_occupied: 0,
            links: 1,
            mtime: Timestamp {
                seconds: time_ms.div_euclid(1000),
                nanoseconds: u32::try_from(nanoseconds).unwrap_or_default(),
            },
            device: (0, 0),
            lasting: false,
        }
    }

    /// Bytes of a file without its holes. Of a file of very many extents those behind the first ones
    /// are taken for data.
    fn stored(&self, nodes: &dyn NodeSource, near: bool, content: &Content) -> u64 {
        let Extents::Tree(root) = content.extents else {
            return count_stored(nodes, content, u32::MAX).unwrap_or(content.bytes);
        };
        if let Some(stored) = self.sizes.lock().get(&root) {
            return *stored;
        }
        let extents_max = if near { EXTENTS_NEAR_MAX } else { EXTENTS_FAR_MAX };
        // Who reads the file is told what is wrong with it.
        let Ok(stored) = count_stored(nodes, content, extents_max) else { return content.bytes };
        let mut sizes = self.sizes.lock();
        if sizes.len() >= SIZES_MAX {
            sizes.clear();
        }
        sizes.insert(root, stored);
        stored
    }
}

fn count_stored(nodes: &dyn NodeSource, content: &Content, extents_max: u32) -> Result<u64, Error> {
    let (mut stored, mut left) = (content.bytes, extents_max);
    reader::extents_within(nodes, content, 0..content.bytes, &mut |_, extent| {
        if let Extent::Hole { bytes } = extent {
            stored = stored.saturating_sub(bytes);
        }
        left -= 1;
        Ok(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(stored)
}
