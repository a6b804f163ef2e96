//! What can go wrong while writing a restored tree.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::error::{Class, Explain};

/// A failure to write to the restore's target. Paths are shown quoted with control characters
/// escaped: a hostile tree must not reach a terminal raw.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// A name in the tree that is no name: empty, `.`, `..`, too long, or with `/` or NUL.
    #[error("{name:?} cannot be the name of an entry")]
    UnsafeName {
        /// The name, lossily.
        name: String,
    },
    /// Deeper than [`cairn_format::limits::PATH_DEPTH_MAX`].
    #[error("{path:?} is nested deeper than {levels_max} directories")]
    TooDeep {
        /// The entry.
        path: PathBuf,
        /// The limit.
        levels_max: u32,
    },
    /// The target is not a directory.
    #[error("the target {path:?} is not a directory")]
    NotADirectory {
        /// The target.
        path: PathBuf,
    },
    /// The target holds something already.
    #[error("the target {path:?} is not empty")]
    NotEmpty {
        /// The target.
        path: PathBuf,
    },
    /// Permissions and attributes are set through `/proc/self/fd`, and it is not mounted.
    #[error("{path:?} is not a proc file system")]
    NoProc {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Something is there and may not be overwritten.
    #[error("{path:?} exists already")]
    Exists {
        /// The entry.
        path: PathBuf,
    },
    /// A directory is where something else should be; directories are never removed.
    #[error("a directory is where {path:?} should be restored")]
    DirectoryInTheWay {
        /// The entry.
        path: PathBuf,
    },
    /// A symbolic link or something else stands where a directory of the path should be, or the
    /// entry is not what was created before.
    #[error("{path:?} was replaced by something else during the restore")]
    Replaced {
        /// The entry.
        path: PathBuf,
    },
    /// Device nodes are restored only on request.
    #[error("the device node {path:?} is left out")]
    DeviceLeftOut {
        /// The entry.
        path: PathBuf,
    },
    /// A write beyond the length the file was created with.
    #[error("{bytes} bytes at {offset} lie outside of {path:?}, which has {file_bytes} bytes")]
    OutOfBounds {
        /// The file.
        path: PathBuf,
        /// Where the write starts.
        offset: u64,
        /// Its length.
        bytes: u64,
        /// The file's length.
        file_bytes: u64,
    },
    /// The set-user-id or set-group-id bit is not set, because the owner is not the recorded one.
    #[error(
        "the set-id permission of {path:?} is left out, because its owner is not the recorded one"
    )]
    SetIdLeftOut {
        /// The entry.
        path: PathBuf,
    },
    /// The medium is full.
    #[error("no space left to {action} {path:?}")]
    Full {
        /// What was to be done, as a verb.
        action: &'static str,
        /// To what.
        path: PathBuf,
    },
    /// Any other failure of the operating system.
    #[error("cannot {action} {path:?}: {cause}")]
    Io {
        /// What was to be done, as a verb.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        cause: io::Error,
    },
}

impl TargetError {
    /// The error for an operating system's answer about a path.
    pub(crate) fn io(action: &'static str, path: &Path, cause: Errno) -> Self {
        let path = path.to_path_buf();
        match cause {
            Errno::NOSPC | Errno::DQUOT => Self::Full { action, path },
            cause => Self::Io { action, path, cause: cause.into() },
        }
    }

    /// Whether going on with other entries is pointless: the medium is full, read-only or broken.
    #[must_use]
    pub fn stops_restore(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Io { cause, .. } => {
                let stopping = [Errno::IO, Errno::ROFS, Errno::NODEV, Errno::NXIO];
                stopping.iter().any(|errno| cause.raw_os_error() == Some(errno.raw_os_error()))
            }
            _ => false,
        }
    }
}

impl Explain for TargetError {
    fn code(&self) -> &'static str {
        match self {
            Self::UnsafeName { .. } => "target.unsafe_name",
            Self::TooDeep { .. } => "target.too_deep",
            Self::NotADirectory { .. } => "target.not_a_directory",
            Self::NotEmpty { .. } => "target.not_empty",
            Self::NoProc { .. } => "target.no_proc",
            Self::Exists { .. } => "target.exists",
            Self::DirectoryInTheWay { .. } => "target.directory_in_the_way",
            Self::Replaced { .. } => "target.replaced",
            Self::DeviceLeftOut { .. } => "target.device_left_out",
            Self::OutOfBounds { .. } => "target.out_of_bounds",
            Self::SetIdLeftOut { .. } => "target.set_id_left_out",
            Self::Full { .. } => "target.full",
            Self::Io { .. } => "target.io",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::UnsafeName { .. } | Self::OutOfBounds { .. } => Class::Damage,
            Self::NotADirectory { .. } | Self::NotEmpty { .. } | Self::NoProc { .. } => {
                Class::Refused
            }
            Self::TooDeep { .. }
            | Self::Exists { .. }
            | Self::DirectoryInTheWay { .. }
            | Self::Replaced { .. }
            | Self::DeviceLeftOut { .. }
            | Self::SetIdLeftOut { .. }
            | Self::Full { .. }
            | Self::Io { .. } => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotEmpty { .. } => {
                Some("name an empty directory, or use --delta to bring this one up to date".into())
            }
            Self::NotADirectory { .. } => Some("name a directory with --target".into()),
            Self::NoProc { .. } => Some("mount /proc".into()),
            Self::Exists { .. } => Some("use --delta to overwrite what differs".into()),
            Self::DirectoryInTheWay { .. } => Some("move it away and restore again".into()),
            Self::Full { .. } => Some("free some space, then restore again with --delta".into()),
            Self::DeviceLeftOut { .. } => Some("restore as root with device nodes allowed".into()),
            Self::SetIdLeftOut { .. } => Some("restore as root to keep owners".into()),
            Self::UnsafeName { .. }
            | Self::TooDeep { .. }
            | Self::Replaced { .. }
            | Self::OutOfBounds { .. }
            | Self::Io { .. } => None,
        }
    }
}
