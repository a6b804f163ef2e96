//! The system calls by which the local store reads and changes the disk, as a seam for faults: a
//! full disk, a bad sector, a failing fsync or a file system without `RENAME_NOREPLACE` cannot be
//! had in every place the tests run.

use std::fmt::Debug;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Result;

/// Permissions of folders: the owner's alone.
pub(super) const FOLDER_MODE: Mode = Mode::RWXU;
/// Permissions of a file that is being written.
const UNFINISHED_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Permissions of a finished object, which nobody changes any more.
const FINISHED_MODE: Mode = Mode::RUSR;

/// What is read of the disk, and changed on it. Names are single components, relative to an open folder.
pub(super) trait Disk: Send + Sync + Debug {
    /// Creates a file that is not there yet, for reading and writing.
    fn create(&self, folder: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(folder, name, flags, UNFINISHED_MODE)
    }

    /// Reads from an offset on and appends it, as much as there is room for or less; returns how many
    /// bytes these were, 0 at the end.
    fn read_at(&self, file: BorrowedFd<'_>, bytes: &mut Vec<u8>, offset: u64) -> Result<usize> {
        rustix::io::pread(file, rustix::buffer::spare_capacity(bytes), offset)
    }

    /// Writes some of `data` at the file's end.
    fn write(&self, file: BorrowedFd<'_>, data: &[u8]) -> Result<usize> {
        rustix::io::write(file, data)
    }

    /// Takes the right to write away.
    fn finish(&self, file: BorrowedFd<'_>) -> Result<()> {
        rustix::fs::fchmod(file, FINISHED_MODE)
    }

    /// Makes a file's content, or a folder's entries, durable.
    fn fsync(&self, file: BorrowedFd<'_>) -> Result<()> {
        rustix::fs::fsync(file)
    }

    /// Moves a file to a name that is not taken; `EXIST` when it is.
    fn rename_new(&self, from: (BorrowedFd<'_>, &str), to: (BorrowedFd<'_>, &str)) -> Result<()> {
        rustix::fs::renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE)
    }

    /// Gives a file a second name that is not taken; `EXIST` when it is.
    fn link(&self, from: (BorrowedFd<'_>, &str), to: (BorrowedFd<'_>, &str)) -> Result<()> {
        rustix::fs::linkat(from.0, from.1, to.0, to.1, AtFlags::empty())
    }

    /// Moves a file, replacing what has the name.
    fn rename(&self, from: (BorrowedFd<'_>, &str), to: (BorrowedFd<'_>, &str)) -> Result<()> {
        rustix::fs::renameat(from.0, from.1, to.0, to.1)
    }

    /// Removes a file.
    fn unlink(&self, folder: BorrowedFd<'_>, name: &str) -> Result<()> {
        rustix::fs::unlinkat(folder, name, AtFlags::empty())
    }

    /// Creates a folder; `EXIST` when it is there.
    fn create_folder(&self, folder: BorrowedFd<'_>, name: &str) -> Result<()> {
        rustix::fs::mkdirat(folder, name, FOLDER_MODE)
    }
}

/// The disk itself.
#[derive(Debug)]
pub(super) struct Kernel;

impl Disk for Kernel {}
