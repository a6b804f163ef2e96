//! The error contract every module's error type fulfils.

/// What an error owes the person who meets it, besides the fact in its `Display`.
pub trait Explain: std::error::Error {
    /// Stable dotted name for scripts, e.g. `store.unreachable`; never changes once released.
    fn code(&self) -> &'static str;

    /// What kind of failure it is; decides the exit code.
    fn class(&self) -> Class;

    /// The next step for the person, where one is known. No full stop; it follows `hint: `.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Kinds of failure, one for each exit code of the command-line contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The operation failed (exit 1).
    Failed,
    /// The request itself is wrong (exit 2).
    Usage,
    /// Refused before anything was changed (exit 4).
    Refused,
    /// Stored data is damaged or missing (exit 5).
    Damage,
    /// There is no repository at the place named (exit 10).
    NoRepository,
    /// Somebody else is at work and waiting did not help (exit 11).
    Busy,
    /// The key does not open the repository, or may not do this (exit 12).
    WrongKey,
    /// The storage cannot be reached (exit 13).
    Unreachable,
}

use cairn_format::error::FormatError;
use cairn_format::ids::{ChunkId, PackId, RepositoryId, SnapshotId};

use crate::frame::FrameError;
use crate::index::local::IndexError;
use crate::ops::erase::EraseError;
use crate::retention::RetentionError;
use crate::seal::error::SealError;
use crate::source::error::SourceError;
use crate::store::StoreError;
use crate::target::error::TargetError;

/// Anything an operation can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Keys and seals.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The local index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The source of a backup.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The target of a restore.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Compression.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Erasure.
    #[error(transparent)]
    Erase(#[from] EraseError),
    /// Retention: what to forget.
    #[error(transparent)]
    Retention(#[from] RetentionError),
    /// An object does not say what its kind must say.
    #[error("{object}: {error}")]
    Format {
        /// The object.
        object: String,
        /// What is wrong with it.
        error: FormatError,
    },
    /// An object's bytes are not those its name stands for.
    #[error("{object} does not have the content its name stands for")]
    Hash {
        /// The object.
        object: String,
    },
    /// An object cannot be opened or its signature does not hold.
    #[error("{object}: {error}")]
    Sealed {
        /// The object.
        object: String,
        /// What is wrong with it.
        error: SealError,
    },
    /// No repository at the place named.
    #[error("there is no cairn repository at {location}")]
    NoRepository {
        /// The place.
        location: String,
    },
    /// `init` found one there already.
    #[error("{location} holds a cairn repository already")]
    RepositoryExists {
        /// The place.
        location: String,
    },
    /// No key slot opens with the secret given.
    #[error("none of the {slots} key slots of {location} opens with the secret given")]
    WrongKey {
        /// The place.
        location: String,
        /// Number of slots tried.
        slots: usize,
    },
    /// Trying a key slot would take too much memory.
    #[error("key slot {slot} asks for {memory_kib} KiB of memory")]
    SlotTooCostly {
        /// The slot.
        slot: String,
        /// What it asks for.
        memory_kib: u32,
    },
    /// The repository has no key slots, or none that can be read.
    #[error("{location} has no readable key slot")]
    NoKeySlots {
        /// The place.
        location: String,
    },
    /// The repository has no valid config.
    #[error("{location} has no valid config object")]
    NoConfig {
        /// The place.
        location: String,
    },
    /// The repository has another owner than this host remembers.
    #[error("{location} has the id of a repository known here, but another owner's key")]
    OwnerChanged {
        /// The place.
        location: String,
    },
    /// Where a copy of the repository was to be there is another repository.
    #[error("{location} holds repository {found}, which is no copy of {expected}")]
    OtherRepository {
        /// The place.
        location: String,
        /// What is there.
        found: RepositoryId,
        /// What was to be there.
        expected: RepositoryId,
    },
    /// A replica is the home copy itself, or was made of it by copying files.
    #[error("{location} has the identity of the home copy at {home}")]
    SameCopy {
        /// The place of the replica.
        location: String,
        /// The place of the home copy.
        home: String,
    },
    /// A replication would do what is hardly meant.
    #[error("{message}")]
    ReplicateRefused {
        /// Why.
        message: String,
        /// The next step.
        hint: String,
    },
    /// There is no replica, and nobody asked for a new one.
    #[error("no replica at {location}")]
    NoReplica {
        /// The place.
        location: String,
    },
    /// Where a copy of a repository was known there is another.
    #[error("{location} held {expected}, and now holds {found}")]
    PlaceChanged {
        /// The place.
        location: String,
        /// What was there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Where a repository was known there is none.
    #[error("{location} held repository {repository}, and now holds none")]
    PlaceEmpty {
        /// The place.
        location: String,
        /// The repository that was there.
        repository: String,
    },
    /// The key may not do what was asked.
    #[error("this key has the role {role}, which cannot {action}")]
    Role {
        /// The key's role.
        role: &'static str,
        /// What was asked.
        action: &'static str,
    },
    /// The index knows no place of a chunk.
    #[error("chunk {} is in no pack", chunk.short())]
    ChunkMissing {
        /// The chunk.
        chunk: ChunkId,
    },
    /// A chunk's bytes are not those its id stands for.
    #[error("chunk {} in pack {pack} does not have the content its id stands for", chunk.short())]
    ChunkHash {
        /// The chunk.
        chunk: ChunkId,
        /// The pack.
        pack: PackId,
    },
    /// A frame cannot be read.
    #[error("frame {frame} of pack {pack}: {message}")]
    FrameDamaged {
        /// The pack.
        pack: PackId,
        /// Number of the frame.
        frame: u32,
        /// What is wrong.
        message: String,
    },
    /// A pack cannot be read.
    #[error("pack {pack}: {message}")]
    PackDamaged {
        /// The pack.
        pack: PackId,
        /// What is wrong.
        message: String,
    },
    /// A pack is not in the store.
    #[error("pack {pack} is missing from the store")]
    PackMissing {
        /// The pack.
        pack: PackId,
    },
    /// The index has changed since it named a place.
    #[error("a place in the index is out of date")]
    PlaceStale,
    /// A tomb cannot be read.
    #[error("{tomb} cannot be read, and may condemn what is relied on: {message}")]
    TombDamaged {
        /// The object.
        tomb: String,
        /// What is wrong with it.
        message: String,
    },
    /// A collection cannot tell what is needed.
    #[error("{object} cannot be relied on, so what is needed is not known: {message}")]
    LivenessUnknown {
        /// The object.
        object: String,
        /// What is wrong with it.
        message: String,
    },
    /// A collection would delete more than is likely meant.
    #[error("{message}")]
    CollectRefused {
        /// Why.
        message: String,
        /// The next step.
        hint: String,
    },
    /// A collection would delete what a snapshot needs that this host has seen and that is gone.
    #[error("what snapshot {} needs would be deleted: {message}", snapshot.short())]
    RolledBack {
        /// The snapshot.
        snapshot: SnapshotId,
        /// How many there are like it, with it.
        missed: usize,
        /// How it was seen.
        message: String,
    },
    /// Part of a file's content cannot be had.
    #[error("the content of {path} cannot be had: {message}")]
    ContentDamaged {
        /// The file.
        path: String,
        /// Why.
        message: String,
    },
    /// A base stands in a frame that has bases itself.
    #[error("frame {frame} of pack {pack} has a base that needs a base itself")]
    BaseDepth {
        /// The pack.
        pack: PackId,
        /// Number of the frame.
        frame: u32,
    },
    /// A base of a frame stands nowhere where it could serve.
    #[error("base {} of frame {frame} of pack {pack} is in no pack", base.short())]
    BaseMissing {
        /// The pack.
        pack: PackId,
        /// The frame.
        frame: u32,
        /// The base.
        base: ChunkId,
    },
    /// Names of a directory came out of order.
    #[error("the entry {name} is not in order within its directory")]
    TreeOrder {
        /// The entry.
        name: String,
    },
    /// A tree node says something impossible.
    #[error("tree node {} is not valid: {message}", node.short())]
    TreeNode {
        /// The node.
        node: ChunkId,
        /// What is wrong.
        message: String,
    },
    /// No snapshot fits the selector.
    #[error("no snapshot fits {selector:?}")]
    NoSnapshot {
        /// As given.
        selector: String,
    },
    /// Several snapshots fit the selector.
    #[error("{selector:?} fits {} snapshots: {}", candidates.len(), list(candidates))]
    AmbiguousSnapshot {
        /// As given.
        selector: String,
        /// Those that fit, newest first.
        candidates: Vec<SnapshotId>,
    },
    /// The selector cannot be understood.
    #[error("{selector:?} is not a way to name a snapshot: {message}")]
    Selector {
        /// As given.
        selector: String,
        /// What is wrong.
        message: String,
    },
    /// The snapshot has no such path.
    #[error("snapshot {} has no {path}", snapshot.short())]
    NoPath {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The path.
        path: String,
    },
    /// The path is not of the kind needed.
    #[error("{path} in snapshot {} is not {expected}", snapshot.short())]
    PathKind {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The path.
        path: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A request that contradicts itself or asks for nothing.
    #[error("{message}")]
    Usage {
        /// What is wrong with it.
        message: String,
        /// The next step.
        hint: Option<String>,
    },
    /// Packs this backup relies on were condemned while it ran.
    #[error(
        "{packs} packs this backup relies on were collected while it ran; it is not acknowledged"
    )]
    Condemned {
        /// How many.
        packs: usize,
    },
    /// Snapshots could not be completed on a replica, again and again.
    #[error(
        "{snapshots} snapshots are not acknowledged in the replica: each time they were copied, what they rely on was collected there, or the store lost the acknowledgement"
    )]
    CopyCondemned {
        /// How many.
        snapshots: usize,
    },
    /// No key slot fits a prefix.
    #[error("no key slot's id begins with {prefix}")]
    NoSlot {
        /// As given.
        prefix: String,
    },
    /// Several key slots fit a prefix.
    #[error("{prefix} fits {count} key slots")]
    AmbiguousSlot {
        /// As given.
        prefix: String,
        /// How many.
        count: usize,
    },
    /// Removing the slot would lock everyone out.
    #[error("key slot {slot} is the last one that opens everything")]
    LastOwner {
        /// The slot.
        slot: String,
    },
    /// The stream that output goes to failed.
    #[error("cannot write the output: {0}")]
    Output(std::io::Error),
    /// The person asked to stop.
    #[error("stopped on request")]
    Cancelled,
    /// A thread of the engine ended unexpectedly.
    #[error("internal failure in {part}: this is a defect in cairn")]
    Internal {
        /// Which part.
        part: &'static str,
    },
}

fn list(candidates: &[SnapshotId]) -> String {
    const SHOWN_MAX: usize = 8;
    let mut text =
        candidates.iter().take(SHOWN_MAX).map(SnapshotId::short).collect::<Vec<_>>().join(", ");
    if candidates.len() > SHOWN_MAX {
        text.push_str(", ...");
    }
    text
}

impl Error {
    /// Adds the object's name to what the codec found.
    pub fn format(object: impl ToString) -> impl FnOnce(FormatError) -> Self {
        let object = object.to_string();
        move |error| Self::Format { object, error }
    }

    /// Adds the object's name to what opening it found.
    pub fn sealed(object: impl ToString) -> impl FnOnce(SealError) -> Self {
        let object = object.to_string();
        move |error| Self::Sealed { object, error }
    }

    /// True when what an index named is not there any more: another look may find it elsewhere,
    /// since collections copy what is needed before they delete.
    #[must_use]
    pub fn has_vanished(&self) -> bool {
        matches!(self, Self::PackMissing { .. } | Self::PlaceStale)
    }

    /// True when the store does not answer, whatever was tried.
    #[must_use]
    pub const fn is_out_of_reach(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_out_of_reach())
    }

    /// True when stored data is damaged or missing: what does not depend on it can go on.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        self.class() == Class::Damage
    }
}

impl Explain for Error {
    fn code(&self) -> &'static str {
        match self {
            Self::Store(error) => error.code(),
            Self::Seal(error) | Self::Sealed { error, .. } => error.code(),
            Self::Index(error) => error.code(),
            Self::Source(error) => error.code(),
            Self::Target(error) => error.code(),
            Self::Frame(error) => error.code(),
            Self::Retention(error) => error.code(),
            Self::Erase(error) => error.code(),
            Self::Format { error, .. } => match error {
                FormatError::Version { .. } | FormatError::Required { .. } => "format.newer",
                _ => "format.invalid",
            },
            Self::Hash { .. } => "object.hash",
            Self::NoRepository { .. } => "repository.none",
            Self::RepositoryExists { .. } => "repository.exists",
            Self::WrongKey { .. } => "key.wrong",
            Self::SlotTooCostly { .. } => "key.costly",
            Self::NoKeySlots { .. } => "key.none",
            Self::NoConfig { .. } => "repository.config",
            Self::OwnerChanged { .. } => "repository.owner",
            Self::OtherRepository { .. } => "replica.other",
            Self::SameCopy { .. } => "replica.same",
            Self::ReplicateRefused { .. } => "replica.refused",
            Self::NoReplica { .. } => "replica.none",
            Self::PlaceChanged { .. } => "place.changed",
            Self::PlaceEmpty { .. } => "place.empty",
            Self::Role { .. } => "key.role",
            Self::ChunkMissing { .. } => "chunk.missing",
            Self::ChunkHash { .. } => "chunk.hash",
            Self::FrameDamaged { .. } => "frame.damaged",
            Self::PackDamaged { .. } => "pack.damaged",
            Self::PackMissing { .. } => "pack.missing",
            Self::PlaceStale => "index.stale",
            Self::TombDamaged { .. } => "tomb.damaged",
            Self::LivenessUnknown { .. } => "gc.unknown",
            Self::CollectRefused { .. } => "gc.refused",
            Self::RolledBack { .. } => "gc.rolled_back",
            Self::ContentDamaged { .. } => "content.damaged",
            Self::BaseDepth { .. } => "frame.base_depth",
            Self::BaseMissing { .. } => "frame.base_missing",
            Self::TreeOrder { .. } => "tree.order",
            Self::TreeNode { .. } => "tree.node",
            Self::NoSnapshot { .. } => "snapshot.none",
            Self::AmbiguousSnapshot { .. } => "snapshot.ambiguous",
            Self::Selector { .. } => "snapshot.selector",
            Self::NoPath { .. } => "path.none",
            Self::PathKind { .. } => "path.kind",
            Self::Usage { .. } => "usage",
            Self::Condemned { .. } => "backup.condemned",
            Self::CopyCondemned { .. } => "replicate.condemned",
            Self::NoSlot { .. } => "key.no_slot",
            Self::AmbiguousSlot { .. } => "key.ambiguous_slot",
            Self::LastOwner { .. } => "key.last_owner",
            Self::Output(_) => "output",
            Self::Cancelled => "cancelled",
            Self::Internal { .. } => "internal",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Store(error) => error.class(),
            Self::Seal(error) => error.class(),
            Self::Index(error) => error.class(),
            Self::Source(error) => error.class(),
            Self::Target(error) => error.class(),
            Self::Frame(error) => error.class(),
            Self::Retention(error) => error.class(),
            Self::Erase(error) => error.class(),
            Self::Format { error, .. } => match error {
                FormatError::Version { .. } | FormatError::Required { .. } => Class::Refused,
                _ => Class::Damage,
            },
            Self::Sealed { .. }
            | Self::Hash { .. }
            | Self::SlotTooCostly { .. }
            | Self::NoKeySlots { .. }
            | Self::NoConfig { .. }
            | Self::ChunkMissing { .. }
            | Self::ChunkHash { .. }
            | Self::FrameDamaged { .. }
            | Self::PackDamaged { .. }
            | Self::PackMissing { .. }
            | Self::PlaceStale
            | Self::TombDamaged { .. }
            | Self::LivenessUnknown { .. }
            | Self::ContentDamaged { .. }
            | Self::BaseDepth { .. }
            | Self::BaseMissing { .. }
            | Self::TreeOrder { .. }
            | Self::TreeNode { .. } => Class::Damage,
            Self::NoRepository { .. } | Self::NoReplica { .. } | Self::PlaceEmpty { .. } => {
                Class::NoRepository
            }
            Self::WrongKey { .. } | Self::Role { .. } => Class::WrongKey,
            Self::RepositoryExists { .. }
            | Self::OwnerChanged { .. }
            | Self::OtherRepository { .. }
            | Self::SameCopy { .. }
            | Self::ReplicateRefused { .. }
            | Self::PlaceChanged { .. }
            | Self::CollectRefused { .. }
            | Self::RolledBack { .. }
            | Self::LastOwner { .. } => Class::Refused,
            Self::NoSnapshot { .. }
            | Self::NoPath { .. }
            | Self::Condemned { .. }
            | Self::CopyCondemned { .. }
            | Self::Output(_)
            | Self::Cancelled
            | Self::Internal { .. } => Class::Failed,
            Self::AmbiguousSnapshot { .. }
            | Self::Selector { .. }
            | Self::PathKind { .. }
            | Self::Usage { .. }
            | Self::NoSlot { .. }
            | Self::AmbiguousSlot { .. } => Class::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Store(error) => return error.hint(),
            Self::Seal(error) | Self::Sealed { error, .. } => return error.hint(),
            Self::Index(error) => return error.hint(),
            Self::Source(error) => return error.hint(),
            Self::Target(error) => return error.hint(),
            Self::Frame(error) => return error.hint(),
            Self::Retention(error) => return error.hint(),
            Self::Erase(error) => return error.hint(),
            Self::Usage { hint, .. } => return hint.clone(),
            Self::CollectRefused { hint, .. } | Self::ReplicateRefused { hint, .. } => {
                return Some(hint.clone());
            }
            Self::RolledBack { snapshot, missed, .. } => {
                let others = match missed {
                    0 | 1 => "",
                    _ => " (`cairn verify` names the others)",
                };
                return Some(format!(
                    "nothing was deleted; run it again, as the list may have lacked it only now. If it is gone still, look for it in another copy, or among older versions at the storage; if it is meant to be gone, `cairn forget {}`{others}, then collect again",
                    snapshot.short()
                ));
            }
            Self::NoReplica { .. } => {
                "check the name, and whether the disk is mounted; `cairn replicate --to URL --create` makes a new one"
            }
            Self::PlaceStale => "run it again",
            Self::TombDamaged { .. } => {
                "copy it back from another copy of this repository; restores are not affected"
            }
            Self::LivenessUnknown { .. } => {
                "nothing was deleted; `cairn verify --level full` names what is affected; a snapshot that cannot be repaired is given up by `cairn forget` with the first 8 digits of its id, and collections go on then"
            }
            Self::Format {
                error: FormatError::Version { .. } | FormatError::Required { .. },
                ..
            } => "use the cairn that wrote it, or a newer one; nothing was changed",
            Self::NoRepository { .. } => {
                "check the location, and that its disk is mounted; `cairn init` makes a new one"
            }
            Self::RepositoryExists { .. } => "use it as it is, or choose another place",
            Self::WrongKey { .. } => {
                "check the passphrase or key file; `cairn key list` shows which slots there are"
            }
            Self::OwnerChanged { .. } => {
                "it may be forged: do not restore from it; if you know that it is right, run `cairn cache clear`"
            }
            Self::OtherRepository { .. } => {
                "a replica lies in a place of its own; nothing was changed"
            }
            Self::SameCopy { .. } => {
                "name another place; if it is a copy of the files, delete the objects in its folder replica/ first"
            }
            Self::PlaceChanged { .. } => {
                "is it the right disk or bucket? If the other copy was put there on purpose, run `cairn cache forget-place`"
            }
            Self::PlaceEmpty { .. } => {
                "is the disk mounted, and the bucket the right one? If it was removed on purpose, run `cairn cache forget-place`"
            }
            Self::Role { .. } => "use an owner's key, or one whose role may do this",
            Self::ChunkMissing { .. } => {
                "`cairn repair index` reads the packs anew; `cairn verify` names what is affected"
            }
            Self::Format { .. }
            | Self::Hash { .. }
            | Self::ChunkHash { .. }
            | Self::FrameDamaged { .. }
            | Self::PackDamaged { .. }
            | Self::PackMissing { .. }
            | Self::ContentDamaged { .. }
            | Self::BaseDepth { .. }
            | Self::BaseMissing { .. }
            | Self::TreeNode { .. } => {
                "`cairn verify --level full` names everything affected; a replica has it, if there is one: `--fallback`, `cairn repair --from`; `--keep-going` restores the rest"
            }
            Self::SlotTooCostly { .. } => {
                "it was passed over; cairn makes slots that ask for 65536 KiB: remove it if nobody here made it"
            }
            Self::NoKeySlots { .. } | Self::NoConfig { .. } => {
                "copy the folders keys/ and config/ back from another copy of this repository"
            }
            Self::NoSnapshot { .. } => "`cairn snapshots` lists them",
            Self::AmbiguousSnapshot { .. } => "give more digits of the id",
            Self::Selector { .. } => {
                "use an id's first digits, latest, latest~1, job:NAME or @2026-08-01T12:00"
            }
            Self::NoPath { .. } => "`cairn ls SNAPSHOT` shows its paths",
            Self::Condemned { .. } => "run the backup again; what was stored is used",
            Self::CopyCondemned { .. } => {
                "run the replication again when nobody collects there; what was copied is used"
            }
            Self::NoSlot { .. } | Self::AmbiguousSlot { .. } => "`cairn key list` shows the slots",
            Self::LastOwner { .. } => "add another owner's key first: `cairn key add`",
            Self::Internal { .. } => "please report it with the command and its output",
            Self::PathKind { .. } | Self::TreeOrder { .. } | Self::Output(_) | Self::Cancelled => {
                return None;
            }
        };
        Some(hint.to_owned())
    }
}
