//! A repository in a folder of the local file system (or of one mounted from elsewhere).
//!
//! An object is written to a file below `tmp/`, made durable, moved to its name without
//! replacing anything, and the folder is made durable: whatever moment the machine stops at,
//! the object is wholly there or not at all. Below the repository's folder no symbolic link is
//! followed. Only the owner can read what is written.

mod clock;
mod folders;
mod read;
mod temp;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use cairn_format::names::{Folder, ObjectName};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, FlockOperation};
use rustix::io::{Errno, retry_on_intr};

use super::disk::{Disk, Kernel};
use super::error::{Place, StoreError};
use super::lock::KeptFor;
use super::{Each, Found, Listing, Put, Store, judge_existing};
use temp::Temp;

pub use temp::Sweep;

/// Objects as files below one folder. Any number of processes may use the folder at once.
pub struct LocalStore {
    location: String,
    root: OwnedFd,
    disk: Box<dyn Disk>,
    /// Folders whose entries up to the root this handle has made durable. A folder may have
    /// been created by a process that died before it could; there are a few hundred at most.
    durable_folders: Mutex<HashSet<String>>,
    /// Where an fsync failed first. Nothing is written after that.
    broken: OnceLock<Place>,
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStore").field("location", &self.location).finish_non_exhaustive()
    }
}

/// A file's name, and the folder it lies in relative to the root (empty for the root).
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl LocalStore {
    /// Opens the repository in a folder.
    ///
    /// # Errors
    /// [`StoreError::NoRepository`] when the folder or its `format` object is not there, as when
    /// a file system is not mounted; and the failures of the file system.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let store = Self::attach(path, Box::new(Kernel))?;
        match store.size(&ObjectName::Format) {
            Ok(_) => Ok(store),
            Err(StoreError::NotFound { .. }) => Err(StoreError::NoRepository {
                location: store.location,
                why: "the folder holds no object named `format`",
            }),
            Err(error) => Err(error),
        }
    }

    /// Prepares a folder for a new repository, creating it and its parents where absent. A
    /// repository that is there already, whole or in part, is opened.
    ///
    /// # Errors
    /// [`StoreError::Occupied`] when the folder holds something that belongs to no repository;
    /// [`StoreError::BadLocation`] when it is not a folder; and the failures of the file system.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        folders::create_all(path, &Kernel)?;
        Self::open_new(path)
    }

    /// Opens a folder in which a repository could be made.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn open_new(path: &Path) -> Result<Self, StoreError> {
        let store = Self::attach(path, Box::new(Kernel))?;
        store.refuse_foreign()?;
        Ok(store)
    }

    fn attach(path: &Path, disk: Box<dyn Disk>) -> Result<Self, StoreError> {
        let location = path.display().to_string();
        let root = folders::open_root(path, &location)?;
        Ok(Self {
            location,
            root,
            disk,
            durable_folders: Mutex::default(),
            broken: OnceLock::new(),
        })
    }

    fn place(&self, name: &ObjectName) -> Place {
        Place::object(&self.location, name)
    }

    fn refuse_if_broken(&self) -> Result<(), StoreError> {
        match self.broken.get() {
            None => Ok(()),
            Some(place) => Err(StoreError::FsyncFailed {
                place: place.clone(),
                source: "an earlier attempt failed, and another proves nothing".into(),
            }),
        }
    }

    /// Makes a file or folder durable. A failure is final for this handle: the kernel may have
    /// dropped the data and would report the next attempt as a success.
    fn fsync(&self, file: BorrowedFd<'_>, place: &Place) -> Result<(), StoreError> {
        retry_on_intr(|| self.disk.fsync(file)).map_err(|errno| {
            self.broken.get_or_init(|| place.clone());
            StoreError::FsyncFailed {
                place: place.clone(),
                source: std::io::Error::from(errno).into(),
            }
        })
    }

    /// Compares the object that has the name, if any, with what is to be written. The same
    /// bytes are made durable: whoever wrote them may have died before that. What the medium does not
    /// give is replaced, as what is damaged is.
    fn existing(
        &self,
        folder: BorrowedFd<'_>,
        name: &ObjectName,
        data: &[u8],
    ) -> Result<Option<Found>, StoreError> {
        let path = name.to_string();
        let judge = |same| judge_existing(|| self.place(name), name, data, same);
        let file = match self.open_object(folder, split(&path).1, name) {
            Ok(Some((file, _))) => file,
            Ok(None) => return Ok(None),
            Err(StoreError::Unreadable { .. }) => return judge(false).map(Some),
            Err(error) => return Err(error),
        };
        let found = judge(self.holds(&file, name, data)?)?;
        if found == Found::Same {
            self.fsync(file.as_fd(), &self.place(name))?;
            self.fsync(folder, &self.place(name))?;
        }
        Ok(Some(found))
    }

    /// Moves a finished file to a name that is not taken; false when it is.
    fn move_new(
        &self,
        temp: &mut Temp<'_>,
        folder: BorrowedFd<'_>,
        name: &ObjectName,
    ) -> Result<bool, StoreError> {
        let path = name.to_string();
        let to = (folder, split(&path).1);
        let moved = match self.disk.rename_new(temp.place(), to) {
            Ok(()) => {
                temp.moved();
                Ok(())
            }
            // The file system cannot refuse to replace while renaming: link, and let the
            // unfinished name be removed.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                match self.disk.link(temp.place(), to) {
                    Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP | Errno::MLINK) => {
                        self.move_locked(temp, to, name)
                    }
                    linked => linked,
                }
            }
            Err(errno) => Err(errno),
        };
        match moved {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(StoreError::from_errno("move into place", self.place(name), errno)),
        }
    }

    /// The last resort, on file systems without hard links (exFAT): only among processes that
    /// use the same kernel is the check safe. That matters for `format` alone; any other name
    /// stands for the same bytes whoever writes them.
    fn move_locked(
        &self,
        temp: &mut Temp<'_>,
        to: (BorrowedFd<'_>, &str),
        name: &ObjectName,
    ) -> Result<(), Errno> {
        // A lock belongs to an open file description: one of our own, so that threads which
        // share this store exclude one another too.
        let guard = self.walk("")?;
        match retry_on_intr(|| rustix::fs::flock(&guard, FlockOperation::LockExclusive)) {
            Ok(()) => {}
            Err(_) if name.content_hash().is_some() => {}
            Err(errno) => return Err(errno),
        }
        match rustix::fs::statat(to.0, to.1, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => return Err(Errno::EXIST),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        self.disk.rename(temp.place(), to)?;
        temp.moved();
        Ok(())
    }

    fn replace(
        &self,
        temp: &mut Temp<'_>,
        folder: BorrowedFd<'_>,
        name: &ObjectName,
    ) -> Result<(), StoreError> {
        let path = name.to_string();
        self.disk
            .rename(temp.place(), (folder, split(&path).1))
            .map_err(|errno| StoreError::from_errno("replace", self.place(name), errno))?;
        temp.moved();
        Ok(())
    }
}

impl Store for LocalStore {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn is_near(&self) -> bool {
        true
    }

    fn sweep(&self, _: &dyn Fn(&str) -> bool) -> Result<u64, StoreError> {
        self.refuse_if_broken()?;
        Ok(self.sweep_temp()?.removed)
    }

    fn kept_for(&self) -> Result<KeptFor, StoreError> {
        Ok(KeptFor::Nothing)
    }

    fn now_ms(&self) -> Result<Option<i64>, StoreError> {
        self.server_ms()
    }

    fn taken_ms(&self, name: &ObjectName) -> Result<Option<i64>, StoreError> {
        self.modified_ms(name)
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        let (file, bytes) = self.open_to_read(name)?;
        if bytes > bytes_max {
            return Err(StoreError::TooLarge { place: self.place(name), bytes, bytes_max });
        }
        self.read_exactly(&file, name, 0, bytes)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        let (file, bytes) = self.open_to_read(name)?;
        let available = bytes.saturating_sub(offset);
        if available < len {
            return Err(StoreError::Short {
                place: self.place(name),
                offset,
                wanted: len,
                available,
            });
        }
        self.read_exactly(&file, name, offset, len)
    }

    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        self.refuse_if_broken()?;
        let path = name.to_string();
        let folder = self.make_folder(split(&path).0, &self.place(name))?;
        let folder = folder.as_fd();
        let mut found = self.existing(folder, name, data)?;
        if found == Some(Found::Same) {
            return Ok(Put::AlreadyThere);
        }
        let mut temp = self.write_temp(&self.place(name), data)?;
        if found.is_none() && !self.move_new(&mut temp, folder, name)? {
            // Somebody else was faster. The file may also have been deleted since: then ours is
            // the only one again.
            found = self.existing(folder, name, data)?;
            match found {
                Some(Found::Same) => return Ok(Put::AlreadyThere),
                Some(Found::Replace) => {}
                None => {
                    let _somebody_else_again = self.move_new(&mut temp, folder, name)?;
                }
            }
        }
        if found == Some(Found::Replace) {
            self.replace(&mut temp, folder, name)?;
        }
        self.fsync(folder, &self.place(name))?;
        Ok(Put::Written)
    }

    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        Ok(self.open_to_read(name)?.1)
    }

    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        self.list_folder(folder, each)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.refuse_if_broken()?;
        let path = name.to_string();
        let (folder, file) = split(&path);
        let folder = match self.walk(folder) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(StoreError::from_errno("delete", self.place(name), errno)),
        };
        match self.disk.unlink(folder.as_fd(), file) {
            // Also when it is gone: whoever removed it may have died before that was durable.
            Ok(()) | Err(Errno::NOENT) => self.fsync(folder.as_fd(), &self.place(name)),
            Err(errno) => Err(StoreError::from_errno("delete", self.place(name), errno)),
        }
    }
}
