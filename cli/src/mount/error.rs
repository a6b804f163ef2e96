//! Why snapshots cannot be mounted.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use cairn_engine::error::{Class, Explain};
use rustix::io::Errno;

use super::Access;
use super::place::DEVICE;
use crate::ui::errors::Failure;

/// Why snapshots cannot be mounted at a directory.
#[derive(Debug)]
pub enum MountError {
    /// It is not there.
    Missing(PathBuf),
    /// It is something else.
    NotDirectory(PathBuf),
    /// There is something in it.
    NotEmpty(PathBuf),
    /// Something is mounted there.
    Occupied(PathBuf),
    /// A process served it that is gone.
    Dead(PathBuf),
    /// It cannot be looked at.
    Look(PathBuf, io::Error),
    /// The kernel has no file systems in user space, or this process none of its device.
    NoDevice(io::Error),
    /// Without root a helper mounts, and it is not installed.
    NoHelper,
    /// Without root others may look only where the system's settings allow it.
    OthersRefused(PathBuf),
    /// The right to mount is missing.
    Refused(PathBuf, io::Error),
    /// Anything else.
    Failed(PathBuf, io::Error),
}

impl MountError {
    /// What kept a directory from being mounted.
    pub(super) fn of(directory: &Path, access: Access, error: io::Error) -> Self {
        let root = rustix::process::geteuid().is_root();
        let text = error.to_string();
        let path = directory.to_path_buf();
        match error.kind() {
            io::ErrorKind::NotFound if Path::new(DEVICE).exists() => Self::NoHelper,
            io::ErrorKind::NotFound => Self::NoDevice(error),
            _ if access == Access::Everybody && text.contains("user_allow_other") => {
                Self::OthersRefused(path)
            }
            _ if Errno::from_io_error(&error) == Some(Errno::NODEV) => Self::NoDevice(error),
            io::ErrorKind::PermissionDenied if root => Self::Refused(path, error),
            io::ErrorKind::PermissionDenied => Self::NoDevice(error),
            _ => Self::Failed(path, error),
        }
    }
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "there is no directory {}", path.display()),
            Self::NotDirectory(path) => write!(f, "{} is not a directory", path.display()),
            Self::NotEmpty(path) => {
                write!(f, "{} is not empty, and a mount would hide what is in it", path.display())
            }
            Self::Occupied(path) => {
                write!(f, "{} is a mount point already", path.display())
            }
            Self::Dead(path) => {
                write!(f, "{} is a mount whose process is gone", path.display())
            }
            Self::Look(path, _) => write!(f, "cannot look at {}", path.display()),
            Self::NoDevice(_) => write!(f, "cannot use {DEVICE}, which mounting takes"),
            Self::NoHelper => {
                f.write_str("cannot mount without root: the program fusermount3 is not installed")
            }
            Self::OthersRefused(path) => {
                write!(f, "cannot mount at {} for other users", path.display())
            }
            Self::Refused(path, _) | Self::Failed(path, _) => {
                write!(f, "cannot mount at {}", path.display())
            }
        }
    }
}

impl std::error::Error for MountError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Look(_, error)
            | Self::NoDevice(error)
            | Self::Refused(_, error)
            | Self::Failed(_, error) => Some(error),
            Self::Missing(_)
            | Self::NotDirectory(_)
            | Self::NotEmpty(_)
            | Self::Occupied(_)
            | Self::Dead(_)
            | Self::NoHelper
            | Self::OthersRefused(_) => None,
        }
    }
}

impl Explain for MountError {
    fn code(&self) -> &'static str {
        match self {
            Self::Missing(_) => "mount.missing",
            Self::NotDirectory(_) => "mount.not_directory",
            Self::NotEmpty(_) => "mount.not_empty",
            Self::Occupied(_) => "mount.occupied",
            Self::Dead(_) => "mount.dead",
            Self::Look(..) => "mount.look",
            Self::NoDevice(_) => "mount.no_device",
            Self::NoHelper => "mount.no_helper",
            Self::OthersRefused(_) => "mount.others",
            Self::Refused(..) => "mount.refused",
            Self::Failed(..) => "mount.failed",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Missing(_) | Self::NotDirectory(_) | Self::Look(..) => Class::Usage,
            Self::NotEmpty(_) | Self::Occupied(_) | Self::Dead(_) => Class::Refused,
            Self::NoDevice(_)
            | Self::NoHelper
            | Self::OthersRefused(_)
            | Self::Refused(..)
            | Self::Failed(..) => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Missing(path) => return Some(format!("make it: mkdir {}", path.display())),
            Self::NotDirectory(_) | Self::NotEmpty(_) => "name an empty directory",
            Self::Occupied(path) => {
                return Some(format!(
                    "name another directory, or end what is there: umount {}",
                    path.display()
                ));
            }
            Self::Dead(path) => {
                return Some(format!(
                    "end it: umount {0}, or without root: fusermount3 -u {0}",
                    path.display()
                ));
            }
            Self::NoDevice(_) => {
                "load the kernel's module: modprobe fuse; a container needs \
                 --device /dev/fuse --cap-add SYS_ADMIN; without mounting, `cairn restore` and \
                 `cairn dump` bring files back"
            }
            Self::NoHelper => {
                "install it: apt install fuse3 (Debian and its kin), or mount as root"
            }
            Self::OthersRefused(_) => {
                "root allows it to everybody with the line user_allow_other in /etc/fuse.conf; or \
                 mount without --allow-other"
            }
            Self::Refused(..) => {
                "a container needs --device /dev/fuse --cap-add SYS_ADMIN; without mounting, \
                 `cairn restore` and `cairn dump` bring files back"
            }
            Self::Look(..) | Self::Failed(..) => return None,
        };
        Some(hint.to_owned())
    }
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        Self::of(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let failure = Failure::from(MountError::NoHelper);
        assert_eq!(failure.code, "mount.no_helper");
        assert!(failure.lines().contains("fusermount3"), "{}", failure.lines());
        assert!(failure.lines().contains("apt install fuse3"), "{}", failure.lines());
        let refused = io::Error::new(
            io::ErrorKind::PermissionDenied,
            "option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf",
        );
        let error = MountError::of(Path::new("/mnt"), Access::Everybody, refused);
        assert!(matches!(error, MountError::OthersRefused(_)), "{error:?}");
        let gone = io::Error::from_raw_os_error(Errno::NODEV.raw_os_error());
        let error = MountError::of(Path::new("/mnt"), Access::Owner, gone);
        assert!(matches!(error, MountError::NoDevice(_)), "{error:?}");
    }
}
