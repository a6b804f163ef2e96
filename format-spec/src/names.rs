//! Object names: where each kind of object lives in a store (SPEC §4).
//!
//! A name is parsed before it is used, and only names that this module writes parse, so a
//! listing can never lead outside the repository.

use core::fmt;

use crate::error::FormatError;
use crate::hex;
use crate::ids::{ObjectHash, PackId, SegmentId, SessionId, SlotId, SnapshotId};

/// Longest object name, bytes: that of an ack.
pub const OBJECT_NAME_BYTES_MAX: u32 = 5 + 64 + 1 + 64;

/// What a pack holds. Data and tree frames never share a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PackKind {
    /// Chunks of files and streams.
    Data,
    /// Tree nodes: directories and lists of extents.
    Tree,
}

/// The name of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectName {
    /// `format`
    Format,
    /// `config/<hash>`
    Config(ObjectHash),
    /// `keys/<hash>`
    Key(SlotId),
    /// `packs/data/<2 digits>/<hash>` or `packs/tree/<2 digits>/<hash>`
    Pack(PackKind, PackId),
    /// `index/<hash>`
    Index(SegmentId),
    /// `snapshots/<time, 16 digits>-<hash>`
    Snapshot {
        /// Milliseconds since 1970 by the writer's clock: sorts, and is never trusted.
        time_ms: u64,
        /// Hash of the stored bytes.
        id: SnapshotId,
    },
    /// `acks/<snapshot>-<hash>`
    Ack {
        /// The snapshot acknowledged.
        snapshot: SnapshotId,
        /// Hash of the stored bytes.
        hash: ObjectHash,
    },
    /// `leases/<session>-<hash>`
    Lease {
        /// The session the lease speaks for.
        session: SessionId,
        /// Hash of the stored bytes.
        hash: ObjectHash,
    },
    /// `tombs/<time, 16 digits>-<hash>`
    Tomb {
        /// Milliseconds since 1970 by the collector's clock: sorts, and is never trusted.
        time_ms: u64,
        /// Hash of the stored bytes.
        hash: ObjectHash,
    },
    /// `receipts/<sequence, 16 digits>-<hash>`
    Receipt {
        /// Position in the chain of receipts.
        sequence: u64,
        /// Hash of the stored bytes.
        hash: ObjectHash,
    },
    /// `replica/<hash>`
    Replica(ObjectHash),
}

/// A folder of objects that can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Folder {
    /// `config/`
    Config,
    /// `keys/`
    Keys,
    /// `packs/data/`
    DataPacks,
    /// `packs/tree/`
    TreePacks,
    /// `index/`
    Index,
    /// `snapshots/`
    Snapshots,
    /// `acks/`
    Acks,
    /// `leases/`
    Leases,
    /// `tombs/`
    Tombs,
    /// `receipts/`
    Receipts,
    /// `replica/`
    Replica,
}

impl Folder {
    /// Every folder of a repository.
    pub const ALL: [Self; 11] = [
        Self::Config,
        Self::Keys,
        Self::DataPacks,
        Self::TreePacks,
        Self::Index,
        Self::Snapshots,
        Self::Acks,
        Self::Leases,
        Self::Tombs,
        Self::Receipts,
        Self::Replica,
    ];

    /// The folder's path from the root of the repository, ending in `/`.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Config => "config/",
            Self::Keys => "keys/",
            Self::DataPacks => "packs/data/",
            Self::TreePacks => "packs/tree/",
            Self::Index => "index/",
            Self::Snapshots => "snapshots/",
            Self::Acks => "acks/",
            Self::Leases => "leases/",
            Self::Tombs => "tombs/",
            Self::Receipts => "receipts/",
            Self::Replica => "replica/",
        }
    }
}

impl ObjectName {
    /// The folder the object is listed in; `None` for `format`, which lies at the root.
    #[must_use]
    pub const fn folder(&self) -> Option<Folder> {
        Some(match self {
            Self::Format => return None,
            Self::Config(_) => Folder::Config,
            Self::Key(_) => Folder::Keys,
            Self::Pack(PackKind::Data, _) => Folder::DataPacks,
            Self::Pack(PackKind::Tree, _) => Folder::TreePacks,
            Self::Index(_) => Folder::Index,
            Self::Snapshot { .. } => Folder::Snapshots,
            Self::Ack { .. } => Folder::Acks,
            Self::Lease { .. } => Folder::Leases,
            Self::Tomb { .. } => Folder::Tombs,
            Self::Receipt { .. } => Folder::Receipts,
            Self::Replica(_) => Folder::Replica,
        })
    }

    /// BLAKE3 that the stored bytes must have; `None` for `format`, which checks itself.
    #[must_use]
    pub const fn content_hash(&self) -> Option<[u8; 32]> {
        Some(match self {
            Self::Format => return None,
            Self::Config(hash) | Self::Replica(hash) => *hash.as_bytes(),
            Self::Key(id) => *id.as_bytes(),
            Self::Pack(_, id) => *id.as_bytes(),
            Self::Index(id) => *id.as_bytes(),
            Self::Snapshot { id, .. } => *id.as_bytes(),
            Self::Ack { hash, .. }
            | Self::Lease { hash, .. }
            | Self::Tomb { hash, .. }
            | Self::Receipt { hash, .. } => *hash.as_bytes(),
        })
    }

    /// Parses a path as [`fmt::Display`] writes it, and nothing else.
    ///
    /// # Errors
    /// [`FormatError::Value`] or [`FormatError::Hex`] when the path is not an object's name.
    pub fn parse(path: &str) -> Result<Self, FormatError> {
        if path == "format" {
            return Ok(Self::Format);
        }
        let bad = || FormatError::Value { what: "object name" };
        let folder = Folder::ALL
            .into_iter()
            .find(|folder| path.starts_with(folder.path()))
            .ok_or_else(bad)?;
        let rest = path.strip_prefix(folder.path()).ok_or_else(bad)?;
        let pair = || rest.split_once('-').ok_or_else(bad);
        Ok(match folder {
            Folder::Config => Self::Config(ObjectHash::from_hex(rest)?),
            Folder::Keys => Self::Key(SlotId::from_hex(rest)?),
            Folder::DataPacks => Self::Pack(PackKind::Data, parse_sharded(rest)?),
            Folder::TreePacks => Self::Pack(PackKind::Tree, parse_sharded(rest)?),
            Folder::Index => Self::Index(SegmentId::from_hex(rest)?),
            Folder::Snapshots => {
                let (time, id) = pair()?;
                Self::Snapshot { time_ms: parse_u64(time)?, id: SnapshotId::from_hex(id)? }
            }
            Folder::Acks => {
                let (snapshot, hash) = pair()?;
                Self::Ack {
                    snapshot: SnapshotId::from_hex(snapshot)?,
                    hash: ObjectHash::from_hex(hash)?,
                }
            }
            Folder::Leases => {
                let (session, hash) = pair()?;
                Self::Lease {
                    session: SessionId::from_hex(session)?,
                    hash: ObjectHash::from_hex(hash)?,
                }
            }
            Folder::Tombs => {
                let (time, hash) = pair()?;
                Self::Tomb { time_ms: parse_u64(time)?, hash: ObjectHash::from_hex(hash)? }
            }
            Folder::Receipts => {
                let (sequence, hash) = pair()?;
                Self::Receipt { sequence: parse_u64(sequence)?, hash: ObjectHash::from_hex(hash)? }
            }
            Folder::Replica => Self::Replica(ObjectHash::from_hex(rest)?),
        })
    }
}

fn parse_sharded(rest: &str) -> Result<PackId, FormatError> {
    let bad = FormatError::Value { what: "pack name" };
    let (shard, hash) = rest.split_once('/').ok_or(bad.clone())?;
    if !hash.starts_with(shard) || shard.len() != 2 {
        return Err(bad);
    }
    PackId::from_hex(hash)
}

fn parse_u64(text: &str) -> Result<u64, FormatError> {
    hex::decode::<8>(text).map(u64::from_be_bytes)
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = self.folder().map_or("", Folder::path);
        match self {
            Self::Format => f.write_str("format"),
            Self::Config(hash) | Self::Replica(hash) => write!(f, "{folder}{hash}"),
            Self::Key(id) => write!(f, "{folder}{id}"),
            Self::Pack(_, id) => {
                let hash = id.to_hex();
                write!(f, "{folder}{}/{hash}", hash.get(..2).unwrap_or_default())
            }
            Self::Index(id) => write!(f, "{folder}{id}"),
            Self::Snapshot { time_ms, id } => write!(f, "{folder}{time_ms:016x}-{id}"),
            Self::Ack { snapshot, hash } => write!(f, "{folder}{snapshot}-{hash}"),
            Self::Lease { session, hash } => write!(f, "{folder}{session}-{hash}"),
            Self::Tomb { time_ms, hash } => write!(f, "{folder}{time_ms:016x}-{hash}"),
            Self::Receipt { sequence, hash } => write!(f, "{folder}{sequence:016x}-{hash}"),
        }
    }
}
