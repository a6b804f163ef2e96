//! What can go wrong with the local index.

use std::path::{Path, PathBuf};

use cairn_format::ids::PackId;

use crate::error::{Class, Explain};

/// A failure of the local index. None of them means that the repository is damaged.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The files hold something they cannot hold. The next open starts with an empty index.
    #[error("local index {} is damaged: {reason}", folder.display())]
    Corrupt {
        /// The index's folder in the cache.
        folder: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The disk that holds the cache is full.
    #[error("no space left for the local index in {}", folder.display())]
    NoSpace {
        /// The index's folder in the cache.
        folder: PathBuf,
    },
    /// The database refuses or failed, without a sign of damage.
    #[error("local index {} failed: {reason}", folder.display())]
    Store {
        /// The index's folder in the cache.
        folder: PathBuf,
        /// What the database says.
        reason: String,
    },
    /// A file or folder of the cache cannot be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A pack to be added breaks a limit of the format.
    #[error("pack {pack} cannot be indexed: {reason}")]
    Invalid {
        /// The pack.
        pack: PackId,
        /// The limit.
        reason: &'static str,
    },
    /// Every pack number was given: the index has to be rebuilt to give them anew.
    #[error("local index {} has no pack numbers left", folder.display())]
    Exhausted {
        /// The index's folder in the cache.
        folder: PathBuf,
    },
}

impl IndexError {
    /// Wraps an error of the file system; a full disk gets its own kind.
    #[cfg(feature = "local-index")]
    pub(super) fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<> {
        use std::io::ErrorKind;
        let path = path.to_owned();
        move |source| match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::NoSpace { folder: path },
            _ => Self::Io { action, path, source },
        }
    }

    /// The folder that may be deleted to be rid of the trouble.
    fn folder(&self) -> Option<&Path> {
        match self {
            Self::Corrupt { folder, .. }
            | Self::NoSpace { folder }
            | Self::Store { folder, .. }
            | Self::Exhausted { folder } => Some(folder),
            Self::Io { .. } | Self::Invalid { .. } => None,
        }
    }
}

impl Explain for IndexError {
    fn code(&self) -> &'static str {
        match self {
            Self::Corrupt { .. } => "index.local.corrupt",
            Self::NoSpace { .. } => "index.local.no_space",
            Self::Store { .. } => "index.local.failed",
            Self::Io { .. } => "index.local.io",
            Self::Invalid { .. } => "index.local.invalid_pack",
            Self::Exhausted { .. } => "index.local.exhausted",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Corrupt { .. }
            | Self::NoSpace { .. }
            | Self::Store { .. }
            | Self::Io { .. }
            | Self::Exhausted { .. } => Class::Failed,
            Self::Invalid { .. } => Class::Damage,
        }
    }

    fn hint(&self) -> Option<String> {
        let folder = self.folder().map(|folder| folder.display().to_string()).unwrap_or_default();
        match self {
            Self::Corrupt { .. } => Some(
                "run the command again: the local index is a cache and will be rebuilt from the \
                 repository"
                    .to_owned(),
            ),
            Self::NoSpace { .. } => {
                Some(format!("free some space, or choose another cache folder than {folder}"))
            }
            Self::Store { .. } | Self::Exhausted { .. } => Some(format!(
                "the local index is a cache: {folder} can be deleted while no cairn runs, and \
                 will be rebuilt"
            )),
            Self::Io { path, .. } => Some(format!(
                "check the permissions of {}, or choose another cache folder",
                path.display()
            )),
            Self::Invalid { .. } => None,
        }
    }
}
