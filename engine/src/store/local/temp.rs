//! Unfinished files of the local store. A writer holds a lock on its file, so that left-overs
//! of dead processes can be told from files in use without any clock.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cairn_format::hex;
use rustix::fs::{Dir, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::super::disk::Disk;
use super::super::error::{Place, StoreError};
use super::LocalStore;
use super::folders::TEMPORARY;

/// What the names of unfinished files begin with; 32 random hexadecimal digits follow.
const PREFIX: &str = "put-";
/// Random bytes in the name of an unfinished file.
const RANDOM_BYTES: usize = 16;
/// How often a new name is tried when a sweep takes the file before it is locked.
const NAMES_MAX: u32 = 16;

/// What [`LocalStore::sweep_temp`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Left-overs removed.
    pub removed: u64,
    /// Files left alone: in use, or not the store's own.
    pub kept: u64,
}

/// An unfinished file; removed when dropped unless it was moved.
pub(super) struct Temp<'a> {
    disk: &'a dyn Disk,
    folder: OwnedFd,
    name: String,
    file: OwnedFd,
    moved: bool,
}

impl Temp<'_> {
    pub(super) fn place(&self) -> (BorrowedFd<'_>, &str) {
        (self.folder.as_fd(), &self.name)
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The file has another name now.
    pub(super) const fn moved(&mut self) {
        self.moved = true;
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        if !self.moved {
            // What cannot be removed now is left to a sweep.
            let _left_over = self.disk.unlink(self.folder.as_fd(), &self.name);
        }
    }
}

fn random_name() -> Result<String, Errno> {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(|_| Errno::IO)?;
    Ok(format!("{PREFIX}{}", hex::encode(&random)))
}

fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|digits| hex::decode::<RANDOM_BYTES>(digits).is_ok())
}

impl LocalStore {
    /// Writes and makes durable an unfinished file for an object.
    pub(super) fn write_temp(&self, place: &Place, data: &[u8]) -> Result<Temp<'_>, StoreError> {
        let fail = |errno| StoreError::from_errno("write", place.clone(), errno);
        let temp = self.create_temp(place)?;
        let mut rest = data;
        while !rest.is_empty() {
            match retry_on_intr(|| self.disk.write(temp.file.as_fd(), rest)) {
                Ok(0) => return Err(fail(Errno::IO)),
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(errno) => return Err(fail(errno)),
            }
        }
        match self.disk.finish(temp.file.as_fd()) {
            // Some file systems know no permissions; the object is no less durable for it.
            Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(errno) => return Err(fail(errno)),
        }
        self.fsync(temp.file.as_fd(), place)?;
        Ok(temp)
    }

    fn create_temp(&self, place: &Place) -> Result<Temp<'_>, StoreError> {
        let fail = |errno| StoreError::from_errno("write", place.clone(), errno);
        for _ in 0..NAMES_MAX {
            let folder = self.make_folder(TEMPORARY, &Place::temporary(&self.location))?;
            let name = random_name().map_err(fail)?;
            let file = match self.disk.create(folder.as_fd(), &name) {
                Ok(file) => file,
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(fail(errno)),
            };
            let temp = Temp { disk: &*self.disk, folder, name, file, moved: false };
            match rustix::fs::flock(&temp.file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                // A sweep came between creating and locking, and is about to remove the file.
                Err(Errno::WOULDBLOCK) => continue,
                // No locks here: then no sweep can take one either, and it removes nothing.
                Err(_) => return Ok(temp),
            }
            if rustix::fs::fstat(&temp.file).map_err(fail)?.st_nlink > 0 {
                return Ok(temp);
            }
        }
        Err(fail(Errno::BUSY))
    }

    /// Removes unfinished files whose writers are dead. Safe at any time, in any process: a
    /// file somebody is writing is locked and stays. On file systems without locks nothing is
    /// removed.
    ///
    /// # Errors
    /// The failures of the file system.
    pub fn sweep_temp(&self) -> Result<Sweep, StoreError> {
        let fail = |errno| StoreError::from_errno("sweep", Place::temporary(&self.location), errno);
        let mut sweep = Sweep::default();
        let folder = match self.walk(TEMPORARY) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Ok(sweep),
            Err(errno) => return Err(fail(errno)),
        };
        for entry in Dir::read_from(&folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            match entry.file_name().to_str() {
                Ok("." | "..") => {}
                Ok(name) if is_ours(name) => match self.remove_if_unused(&folder, name) {
                    Ok(true) => sweep.removed += 1,
                    Ok(false) => sweep.kept += 1,
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(fail(errno)),
                },
                _ => sweep.kept += 1,
            }
        }
        Ok(sweep)
    }

    fn remove_if_unused(&self, folder: &OwnedFd, name: &str) -> Result<bool, Errno> {
        // Network file systems lock only what is open for writing; a finished file that was
        // never moved cannot be opened so by its owner.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(folder, name, flags | OFlags::RDWR, Mode::empty()) {
            Err(Errno::ACCESS) => {
                rustix::fs::openat(folder, name, flags | OFlags::RDONLY, Mode::empty())?
            }
            Err(Errno::LOOP | Errno::ISDIR) => return Ok(false),
            opened => opened?,
        };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(false);
        }
        // The name is random and never used again: if the file was moved since, nothing is
        // removed.
        self.disk.unlink(folder.as_fd(), name)?;
        Ok(true)
    }
}
