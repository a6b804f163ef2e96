//! Whether a directory can be mounted at: looked at before anybody types a passphrase.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::io::Errno;

use super::error::MountError;

/// The kernel's device.
pub(super) const DEVICE: &str = "/dev/fuse";

/// Refuses a directory that cannot be mounted at, or should not be.
///
/// # Errors
/// [`MountError`], each for what is wrong with it.
pub fn check(directory: &Path) -> Result<(), MountError> {
    let path = || directory.to_path_buf();
    let failed = |error: io::Error| match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => MountError::Missing(path()),
        Some(Errno::NOTDIR) => MountError::NotDirectory(path()),
        Some(Errno::NOTCONN) => MountError::Dead(path()),
        _ => MountError::Look(path(), error),
    };
    let meta = fs::metadata(directory).map_err(failed)?;
    if !meta.is_dir() {
        return Err(MountError::NotDirectory(path()));
    }
    let above = fs::metadata(directory.join("..")).map_err(failed)?;
    // The root of all is its own parent.
    if above.dev() != meta.dev() || above.ino() == meta.ino() {
        return Err(MountError::Occupied(path()));
    }
    if fs::read_dir(directory).map_err(failed)?.next().is_some() {
        return Err(MountError::NotEmpty(path()));
    }
    if let Err(error) = fs::metadata(DEVICE) {
        return Err(MountError::NoDevice(error));
    }
    Ok(())
}

/// Takes what is mounted at a directory out of sight, also while it is in use. Takes root.
///
/// # Errors
/// What the kernel says.
pub(super) fn detach(directory: &Path) -> io::Result<()> {
    let path = CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: the pointer is to a string that ends in NUL and lives until the call returns.
    let status = unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_would_be_hidden_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("place");
        assert!(matches!(check(&place), Err(MountError::Missing(_))));
        fs::write(&place, "").unwrap();
        assert!(matches!(check(&place), Err(MountError::NotDirectory(_))));
        assert!(matches!(check(folder.path()), Err(MountError::NotEmpty(_))));
        assert!(matches!(check(Path::new("/proc")), Err(MountError::Occupied(_))));
        assert!(matches!(check(Path::new("/")), Err(MountError::Occupied(_))));
    }
}
