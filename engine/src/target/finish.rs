//! The second pass: owners, permissions, attributes, times; and durability.

use std::collections::HashMap;
use std::ffi::CString;

use cairn_format::tree::{LinkGroup, Meta, Node, Xattr};
use nix::unistd::{Group, User};
use parking_lot::Mutex;
use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, openat,
};
use rustix::io::Errno;

use super::contain::{SafePath, Slot};
use super::create::{Owners, Target, kind_of, look, proc_path};
use super::error::TargetError;
use crate::timings::Stage;

/// Room for a list of attribute names; the kernel gives no more.
const NAMES_BYTES: usize = 64 << 10;
/// Room that is tried first.
const NAMES_BYTES_USUAL: usize = 1 << 10;

/// Numbers of users and groups by name, looked up once each.
#[derive(Default)]
pub(crate) struct OwnerIds {
    users: Mutex<HashMap<String, Option<u32>>>,
    groups: Mutex<HashMap<String, Option<u32>>>,
}

impl OwnerIds {
    /// The owner an entry should have here.
    pub(crate) fn of(&self, meta: &Meta, owners: Owners) -> (u32, u32) {
        if owners != Owners::ByName {
            return (meta.uid, meta.gid);
        }
        let user = meta.user.as_ref().and_then(|name| {
            *self.users.lock().entry(name.clone()).or_insert_with(|| {
                User::from_name(name).ok().flatten().map(|user| user.uid.as_raw())
            })
        });
        let group = meta.group.as_ref().and_then(|name| {
            *self.groups.lock().entry(name.clone()).or_insert_with(|| {
                Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
            })
        });
        (user.unwrap_or(meta.uid), group.unwrap_or(meta.gid))
    }
}

/// The entry that gets its metadata, and what went wrong so far.
struct Finishing<'a> {
    handle: OwnedFd,
    /// The handle is good for content too: the kernel takes it for everything, without a path.
    open: bool,
    kind: FileType,
    shown: std::path::PathBuf,
    meta: &'a Meta,
    problems: Vec<TargetError>,
}

impl Target {
    /// Gives an entry what was recorded of it. To be called when its content is written, for a
    /// directory when everything in it is finished; every name of a linked file may be finished.
    /// The path of the target itself is allowed.
    ///
    /// Returns what could not be applied; the rest is. An owner that may not be given, or an
    /// attribute the file system cannot hold, is no reason to lose the others.
    #[must_use]
    pub fn finish(&self, path: &SafePath, node: &Node, meta: &Meta) -> Vec<TargetError> {
        let _finishing = self.timings.span(Stage::Finish, 0);
        match self.finishing(path, node, meta) {
            Ok(mut entry) => {
                self.apply(&mut entry);
                entry.problems
            }
            Err(error) => vec![error],
        }
    }

    /// Gives a file that was just made here, and that is still open, what was recorded of it, as
    /// [`Self::finish`] does; its content is to be written before.
    pub(super) fn finish_open(
        &self,
        file: OwnedFd,
        path: &SafePath,
        meta: &Meta,
    ) -> Vec<TargetError> {
        let _finishing = self.timings.span(Stage::Finish, 0);
        let (kind, shown) = (FileType::RegularFile, path.below(self.path()));
        let mut entry =
            Finishing { handle: file, open: true, kind, shown, meta, problems: Vec::new() };
        self.apply(&mut entry);
        entry.problems
    }

    fn apply(&self, entry: &mut Finishing<'_>) {
        let owner = self.owner_ids.of(entry.meta, self.options.owners);
        if self.options.owners != Owners::Ignore {
            entry.set_owner(owner);
        }
        // After the owner, whose change drops capabilities and set-id bits.
        entry.set_xattrs();
        entry.set_mode(owner);
        entry.set_times();
    }

    /// Makes everything written durable, on every file system beneath the target.
    ///
    /// # Errors
    /// Fails if anything written since the target was opened could not be made durable.
    pub fn sync(&self) -> Result<(), TargetError> {
        let _syncing = self.timings.span(Stage::Sync, 0);
        let failed = |error| TargetError::io("make durable what is in", self.path(), error);
        rustix::fs::syncfs(self.root.directory()).map_err(failed)?;
        let mut ignored = ignores_syncfs(self.root.directory()).map_err(failed)?;
        for directory in self.mounted.lock().values() {
            rustix::fs::syncfs(directory).map_err(failed)?;
            ignored |= ignores_syncfs(directory.as_fd()).map_err(failed)?;
        }
        if ignored {
            sync_below(self.root.directory()).map_err(failed)?;
            sync_above(self.root.directory()).map_err(failed)?;
        }
        Ok(())
    }

    /// Finds the entry and makes sure that it is the one that was created.
    fn finishing<'a>(
        &self,
        path: &SafePath,
        node: &Node,
        meta: &'a Meta,
    ) -> Result<Finishing<'a>, TargetError> {
        let shown = path.below(self.path());
        let (handle, stat) = if path.names().is_empty() {
            let failed = |error: std::io::Error| TargetError::Io {
                action: "look at",
                path: shown.clone(),
                cause: error,
            };
            let handle = self.root.directory().try_clone_to_owned().map_err(failed)?;
            let stat = rustix::fs::fstat(&handle).map_err(|error| failed(error.into()))?;
            (handle, stat)
        } else {
            let slot: Slot<'_> = self.root.slot(path)?;
            look(&slot)?
        };
        let kind = kind_of(node);
        if FileType::from_raw_mode(stat.st_mode) != kind || self.has_foreign_names(&stat, meta.link)
        {
            return Err(TargetError::Replaced { path: shown });
        }
        Ok(Finishing { handle, open: false, kind, shown, meta, problems: Vec::new() })
    }

    /// Whether the inode has names that the restore did not give it: what is changed here would
    /// change there, perhaps outside of the target.
    pub(super) fn has_foreign_names(&self, stat: &Stat, link: Option<LinkGroup>) -> bool {
        let several =
            stat.st_nlink > 1 && FileType::from_raw_mode(stat.st_mode) != FileType::Directory;
        several && !link.is_some_and(|group| self.is_home(group, stat))
    }
}

/// What `statfs` calls file systems in user space.
const FUSE_SUPER_MAGIC: i64 = 0x6573_5546;

/// Whether `syncfs` says that all is durable without having told the file system: the kernel tells
/// file systems in user space of `fsync` only.
fn ignores_syncfs(directory: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(rustix::fs::fstatfs(directory)?.f_type == FUSE_SUPER_MAGIC)
}

/// Makes every file and directory below a directory durable, one by one, and the directory itself.
fn sync_below(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    // Each with the names in it that are still to be visited: depth costs no stack.
    let mut open = vec![(directory.try_clone_to_owned().map_err(errno)?, names_in(directory)?)];
    while let Some((directory, names)) = open.last_mut() {
        let Some((name, kind)) = names.pop() else {
            rustix::fs::fsync(&*directory)?;
            open.pop();
            continue;
        };
        match kind {
            FileType::Directory => {
                let below = openat(&*directory, &name, flags | OFlags::DIRECTORY, Mode::empty())?;
                let names = names_in(below.as_fd())?;
                open.push((below, names));
            }
            FileType::RegularFile => {
                let file = match openat(&*directory, &name, flags, Mode::empty()) {
                    // Its owner may not read it, but perhaps write.
                    Err(Errno::ACCESS) => {
                        openat(&*directory, &name, flags | OFlags::WRONLY, Mode::empty())?
                    }
                    opened => opened?,
                };
                rustix::fs::fsync(file)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes the entries that lead to a directory durable, as far up as its file system goes.
fn sync_above(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut stat = rustix::fs::fstat(directory)?;
    let mut below = directory.try_clone_to_owned().map_err(errno)?;
    loop {
        let above = openat(&below, "..", flags, Mode::empty())?;
        let next = rustix::fs::fstat(&above)?;
        if next.st_dev != stat.st_dev || next.st_ino == stat.st_ino {
            return Ok(());
        }
        rustix::fs::fsync(&above)?;
        (below, stat) = (above, next);
    }
}

/// Names and kinds of what is in a directory.
fn names_in(directory: BorrowedFd<'_>) -> Result<Vec<(CString, FileType)>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        names.push((name.to_owned(), kind));
    }
    Ok(names)
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

impl Finishing<'_> {
    fn check(&mut self, action: &'static str, result: Result<(), Errno>) {
        if let Err(error) = result {
            self.problems.push(TargetError::io(action, &self.shown, error));
        }
    }

    fn stat(&self) -> Result<Stat, Errno> {
        rustix::fs::fstat(&self.handle)
    }

    fn set_owner(&mut self, (uid, gid): (u32, u32)) {
        let same = self.stat().is_ok_and(|stat| (stat.st_uid, stat.st_gid) == (uid, gid));
        // The largest number means "leave as it is" to the kernel.
        if same || uid == u32::MAX || gid == u32::MAX {
            return;
        }
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let flags = AtFlags::EMPTY_PATH;
        let changed = rustix::fs::chownat(&self.handle, "", Some(uid), Some(gid), flags);
        self.check("set the owner of", changed);
    }

    fn set_xattrs(&mut self) {
        let path = proc_path(&self.handle);
        for name in self.surplus_xattrs(&path) {
            let name = name.as_slice();
            let removed = match self.open {
                true => rustix::fs::fremovexattr(&self.handle, name),
                false => rustix::fs::removexattr(&path, name),
            };
            match removed {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(error) => self.check("remove an attribute of", Err(error)),
            }
        }
        for Xattr { name, value } in &self.meta.xattrs {
            let (name, flags) = (name.as_slice(), XattrFlags::empty());
            let set = match self.open {
                true => rustix::fs::fsetxattr(&self.handle, name, value, flags),
                false => rustix::fs::setxattr(&path, name, value, flags),
            };
            self.check("set an attribute of", set);
        }
    }

    /// Attributes that are there but not recorded: inherited from a directory's default ACL, or
    /// left of a former file. Labels that the system gives by itself are left alone.
    fn surplus_xattrs(&self, path: &str) -> Vec<Vec<u8>> {
        let list = |names: &mut [u8]| match self.open {
            true => rustix::fs::flistxattr(&self.handle, names),
            false => rustix::fs::listxattr(path, names),
        };
        // Most have none, or few.
        let mut names = vec![0; NAMES_BYTES_USUAL];
        let bytes = match list(&mut names) {
            Err(Errno::RANGE) => {
                names.resize(NAMES_BYTES, 0);
                list(&mut names).unwrap_or(0)
            }
            answer => answer.unwrap_or(0),
        };
        let ours: [&[u8]; 4] =
            [b"user.", b"trusted.", b"system.posix_acl_", b"security.capability"];
        names
            .get(..bytes)
            .unwrap_or_default()
            .split(|byte| *byte == 0)
            .filter(|name| ours.iter().any(|prefix| name.starts_with(prefix)))
            .filter(|name| !self.meta.xattrs.iter().any(|xattr| xattr.name == *name))
            .map(<[u8]>::to_vec)
            .collect()
    }

    fn set_mode(&mut self, (uid, gid): (u32, u32)) {
        if self.kind == FileType::Symlink {
            return;
        }
        let recorded = Mode::from_raw_mode(self.meta.mode & 0o7777);
        let mut mode = recorded;
        match self.stat() {
            Ok(stat) => {
                if stat.st_uid != uid {
                    mode -= Mode::SUID;
                }
                if stat.st_gid != gid {
                    mode -= Mode::SGID;
                }
            }
            Err(_) => mode -= Mode::SUID | Mode::SGID,
        }
        if mode != recorded {
            self.problems.push(TargetError::SetIdLeftOut { path: self.shown.clone() });
        }
        let set = match self.open {
            true => rustix::fs::fchmod(&self.handle, mode),
            false => rustix::fs::chmod(proc_path(&self.handle), mode),
        };
        self.check("set the permissions of", set);
    }

    fn set_times(&mut self) {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
            last_modification: Timespec {
                tv_sec: self.meta.mtime.seconds,
                tv_nsec: i64::from(self.meta.mtime.nanoseconds),
            },
        };
        let handle = self.handle.as_fd();
        if self.open {
            return self.check("set the times of", rustix::fs::futimens(handle, &times));
        }
        let set = match rustix::fs::utimensat(handle, "", &times, AtFlags::EMPTY_PATH) {
            // Before Linux 5.8; the link to the handle leads to the entry itself.
            Err(Errno::INVAL | Errno::NOENT) if self.kind != FileType::Symlink => {
                let path = proc_path(&self.handle);
                rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::empty())
            }
            answer => answer,
        };
        self.check("set the times of", set);
    }
}
