//! Folders of the local store: opened one component at a time, so that no symbolic link below
//! the root is ever followed, and created durably.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use cairn_format::names::{Folder, ObjectName};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::super::disk::Disk;
use super::super::error::{Place, StoreError};
use super::super::{Each, Listing};
use super::LocalStore;

/// The folder of unfinished files, below the root.
pub(super) const TEMPORARY: &str = "tmp";
/// What file systems put at the root of a fresh volume.
const LOST_AND_FOUND: &str = "lost+found";

const FOLDER_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens the repository's folder. It may itself be a symbolic link: that is the user's word.
pub(super) fn open_root(path: &Path, location: &str) -> Result<OwnedFd, StoreError> {
    let absent = |why| StoreError::NoRepository { location: location.to_owned(), why };
    match rustix::fs::openat(CWD, path, FOLDER_FLAGS, Mode::empty()) {
        Ok(root) => Ok(root),
        Err(Errno::NOENT) => Err(absent("the folder does not exist")),
        Err(Errno::NOTDIR) => Err(absent("it is not a folder")),
        Err(errno) => Err(StoreError::from_errno("open", Place::root(location), errno)),
    }
}

/// Creates a folder and its missing parents, durably.
pub(super) fn create_all(path: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
    let location = path.display().to_string();
    let fail = |errno| match errno {
        Errno::NOTDIR => StoreError::BadLocation {
            location: location.clone(),
            why: "it, or a folder above it, is something else",
        },
        errno => StoreError::from_errno("create", Place::root(&location), errno),
    };
    let mut missing: Vec<&Path> = Vec::new();
    for ancestor in path.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()) {
        match rustix::fs::statat(CWD, ancestor, AtFlags::empty()) {
            Ok(_) => break,
            Err(Errno::NOENT) => missing.push(ancestor),
            Err(errno) => return Err(fail(errno)),
        }
    }
    for folder in missing.into_iter().rev() {
        let parent = match folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let parent = rustix::fs::openat(CWD, &parent, FOLDER_FLAGS, Mode::empty()).map_err(fail)?;
        match rustix::fs::mkdirat(CWD, folder, super::super::disk::FOLDER_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(fail(errno)),
        }
        disk.fsync(parent.as_fd()).map_err(|errno| StoreError::FsyncFailed {
            place: Place::root(&location),
            source: io::Error::from(errno).into(),
        })?;
    }
    match rustix::fs::openat(CWD, path, FOLDER_FLAGS, Mode::empty()) {
        Ok(_) => Ok(()),
        Err(errno) => Err(fail(errno)),
    }
}

/// Whether an entry of the root can be a repository's: the first component of a known path.
fn belongs(name: &str) -> bool {
    let first = |path: &'static str| path.split('/').next() == Some(name);
    name == TEMPORARY
        || name == LOST_AND_FOUND
        || name == "format"
        || Folder::ALL.iter().any(|folder| first(folder.path()))
}

fn is_shard(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Sums up what a listing meets while it goes through the folders.
struct Walk<'a, 'b> {
    location: &'a str,
    folder: Folder,
    each: Each<'b>,
    listing: Listing,
}

impl LocalStore {
    /// Opens a folder below the root; the empty path opens the root anew.
    pub(super) fn walk(&self, path: &str) -> Result<OwnedFd, Errno> {
        let flags = FOLDER_FLAGS | OFlags::NOFOLLOW;
        let mut current = rustix::fs::openat(&self.root, ".", flags, Mode::empty())?;
        for component in path.split('/').filter(|component| !component.is_empty()) {
            current = rustix::fs::openat(&current, component, flags, Mode::empty())?;
        }
        Ok(current)
    }

    /// Opens a folder below the root, creates what is missing, and makes the chain of folders
    /// up to the root durable unless this handle did so before.
    pub(super) fn make_folder(&self, path: &str, place: &Place) -> Result<OwnedFd, StoreError> {
        let fail = |errno| StoreError::from_errno("create the folder of", place.clone(), errno);
        let durable = self.durable_folders.lock().contains(path);
        let mut current = self.walk("").map_err(fail)?;
        for component in path.split('/').filter(|component| !component.is_empty()) {
            let flags = FOLDER_FLAGS | OFlags::NOFOLLOW;
            let mut created = false;
            let mut next = rustix::fs::openat(&current, component, flags, Mode::empty());
            if next.as_ref().err() == Some(&Errno::NOENT) {
                match self.disk.create_folder(current.as_fd(), component) {
                    Ok(()) => created = true,
                    Err(Errno::EXIST) => {}
                    Err(errno) => return Err(fail(errno)),
                }
                next = rustix::fs::openat(&current, component, flags, Mode::empty());
            }
            if created || !durable {
                self.fsync(current.as_fd(), place)?;
            }
            current = next.map_err(fail)?;
        }
        if !durable {
            self.durable_folders.lock().insert(path.to_owned());
        }
        Ok(current)
    }

    /// Refuses a folder with entries that belong to no repository, unless it is one.
    pub(super) fn refuse_foreign(&self) -> Result<(), StoreError> {
        let fail = |errno| StoreError::from_errno("list", Place::root(&self.location), errno);
        let mut foreign = None;
        for entry in Dir::read_from(&self.root).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            match entry.file_name().to_string_lossy().as_ref() {
                "." | ".." => {}
                "format" => return Ok(()),
                name if belongs(name) => {}
                name => foreign = Some(name.to_owned()),
            }
        }
        match foreign {
            None => Ok(()),
            Some(found) => Err(StoreError::Occupied { location: self.location.clone(), found }),
        }
    }

    pub(super) fn list_folder(
        &self,
        folder: Folder,
        each: Each<'_>,
    ) -> Result<Listing, StoreError> {
        let mut walk = Walk { location: &self.location, folder, each, listing: Listing::default() };
        let opened = match self.walk(folder.path()) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return Ok(walk.listing),
            Err(errno) => return Err(walk.fail(errno)),
        };
        match folder {
            Folder::DataPacks | Folder::TreePacks => walk.shards(&opened)?,
            Folder::Config
            | Folder::Keys
            | Folder::Index
            | Folder::Snapshots
            | Folder::Acks
            | Folder::Leases
            | Folder::Tombs
            | Folder::Receipts
            | Folder::Replica => walk.objects(&opened, folder.path())?,
        }
        Ok(walk.listing)
    }
}

impl Walk<'_, '_> {
    fn fail(&self, errno: Errno) -> StoreError {
        StoreError::from_errno("list", Place::folder(self.location, self.folder), errno)
    }

    /// Calls `visit` with the name and status of every entry; one that vanishes is passed over.
    fn entries(
        &mut self,
        opened: &OwnedFd,
        mut visit: impl FnMut(&mut Self, Option<&str>, FileType, u64) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for entry in Dir::read_from(opened).map_err(|errno| self.fail(errno))? {
            let entry = entry.map_err(|errno| self.fail(errno))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match rustix::fs::statat(opened, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(self.fail(errno)),
            };
            let bytes = u64::try_from(stat.st_size).unwrap_or_default();
            visit(self, name.to_str().ok(), FileType::from_raw_mode(stat.st_mode), bytes)?;
        }
        Ok(())
    }

    fn shards(&mut self, opened: &OwnedFd) -> Result<(), StoreError> {
        self.entries(opened, |walk, name, kind, _| match (name, kind) {
            (Some(name), FileType::Directory) if is_shard(name) => {
                let flags = FOLDER_FLAGS | OFlags::NOFOLLOW;
                match rustix::fs::openat(opened, name, flags, Mode::empty()) {
                    Ok(shard) => walk.objects(&shard, &format!("{}{name}/", walk.folder.path())),
                    Err(Errno::NOENT) => Ok(()),
                    Err(errno) => Err(walk.fail(errno)),
                }
            }
            // Passing it over would make its packs look lost.
            (Some(name), FileType::Symlink) if is_shard(name) => Err(walk.fail(Errno::LOOP)),
            _ => {
                walk.listing.foreign += 1;
                Ok(())
            }
        })
    }

    fn objects(&mut self, opened: &OwnedFd, prefix: &str) -> Result<(), StoreError> {
        self.entries(opened, |walk, name, kind, bytes| {
            let object = name
                .filter(|_| kind == FileType::RegularFile)
                .and_then(|name| ObjectName::parse(&format!("{prefix}{name}")).ok());
            match object {
                Some(object) => {
                    walk.listing.objects += 1;
                    (walk.each)(object, bytes)
                }
                None => {
                    walk.listing.foreign += 1;
                    Ok(())
                }
            }
        })
    }
}
