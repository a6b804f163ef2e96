//! Walking the roots: every entry once, depth first, in byte order within a directory.
//!
//! The full hierarchy from `/` downward is named, so that the directories above a root keep
//! their metadata. A symbolic link on the way to a root is recorded as the link it is, and the
//! place it leads to is backed up under its real path ([`Event::Followed`] says so): nothing is
//! missing and the recorded tree is the real one. No other link is followed. Every entry is
//! reached from the open directory above it, without following links, so a directory that is
//! swapped for a link during the walk leads nowhere.
//!
//! Memory: the names of the directories between `/` and the current one. Open files: at most
//! [`OPEN_DIRECTORIES_MAX`] directories and one more, besides what the receiver of the events
//! holds in [`Place`]s.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_format::limits::{NAME_BYTES_MAX, PATH_DEPTH_MAX};
use cairn_format::tree::Meta;
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::error::SourceError;
use super::file::Place;
use super::filter::{CACHEDIR_SIGNATURE, CACHEDIR_TAG, Excludes, FileSourceOptions};
use super::listing::Listing;
use super::meta::{Fingerprint, PROC_FD, XattrReader, length, meta_of};
use super::owners::OwnerNames;
use super::roots::{Roots, Wanted};

/// Most directories a walk keeps open; those above are reopened on the way back.
pub const OPEN_DIRECTORIES_MAX: usize = 64;

/// What a walk meets, in order.
#[derive(Debug)]
pub enum Event {
    /// A directory begins; its entries follow, then [`Event::Leave`].
    Enter {
        /// Absolute path.
        path: PathBuf,
        /// Its last component.
        name: Vec<u8>,
        /// Owner, permissions, times, attributes.
        meta: Box<Meta>,
    },
    /// Anything but a directory.
    Leaf(Box<Leaf>),
    /// The directory last entered and not yet left ends.
    Leave,
    /// This entry, or for a directory already entered its remaining names, cannot be read.
    Unreadable {
        /// Absolute path.
        path: PathBuf,
        /// Why.
        error: SourceError,
    },
    /// The next entry is there, but lacks something (an attribute).
    Incomplete {
        /// Absolute path.
        path: PathBuf,
        /// What and why.
        error: SourceError,
    },
    /// A root leads through symbolic links: the links are recorded as such, and what the root
    /// means is recorded under its real path.
    Followed {
        /// The root, made absolute.
        root: PathBuf,
        /// Where it really is.
        real: PathBuf,
    },
}

/// An entry that is not a directory.
#[derive(Debug)]
pub struct Leaf {
    /// Absolute path.
    pub path: PathBuf,
    /// Its last component.
    pub name: Vec<u8>,
    /// Owner, permissions, times, attributes.
    pub meta: Meta,
    /// For recognising it next time.
    pub fingerprint: Fingerprint,
    /// What it is.
    pub kind: LeafKind,
}

/// What a leaf is.
#[derive(Debug)]
pub enum LeafKind {
    /// A regular file.
    File {
        /// Its length when it was met.
        bytes: u64,
        /// How to open it.
        place: Place,
    },
    /// A block device whose content is to be read.
    DeviceData {
        /// How to open it.
        place: Place,
    },
    /// A symbolic link.
    Symlink {
        /// What it says.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// How much a walk left out on request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Entries that a pattern or the size limit excluded; a directory counts once.
    pub entries: u64,
    /// Mount points not entered.
    pub mounts: u64,
    /// Cache directories of which only the tag was kept.
    pub caches: u64,
}

/// A directory the walk is in.
struct Level {
    directory: Option<Arc<OwnedFd>>,
    device: u64,
    inode: u64,
    names: Listing,
    /// Everything in it is wanted, not only `below`.
    all: bool,
    /// Names in it that are roots or lead to such.
    below: BTreeMap<Vec<u8>, Wanted>,
    /// Device of the root above, for staying on one file system.
    root_device: u64,
}

/// The walk; an iterator of [`Event`]s that never fails as a whole.
pub struct Walk {
    options: FileSourceOptions,
    excludes: Excludes,
    owners: OwnerNames,
    xattrs: Option<XattrReader>,
    levels: Vec<Level>,
    /// Path of the innermost level.
    path: PathBuf,
    pending: VecDeque<Event>,
    left_out: LeftOut,
}

impl Walk {
    /// Resolves the roots and prepares the walk.
    ///
    /// # Errors
    /// Fails if there is no root, a pattern is malformed or an exclude file cannot be read. A
    /// root that is missing is an event, not an error.
    pub fn new(options: FileSourceOptions) -> Result<Self, SourceError> {
        if options.roots.is_empty() {
            return Err(SourceError::NoRoots);
        }
        let excludes = Excludes::compile(&options)?;
        let roots = Roots::resolve(&options.roots);
        let mut pending = VecDeque::new();
        for (path, error) in roots.unreadable {
            pending.push_back(Event::Unreadable { path, error });
        }
        for (root, real) in roots.followed {
            pending.push_back(Event::Followed { root, real });
        }
        let xattrs = XattrReader::new();
        if xattrs.is_none() {
            let path = PathBuf::from(PROC_FD);
            let error = SourceError::NoProc { path: path.clone() };
            pending.push_back(Event::Incomplete { path, error });
        }
        let mut walk = Self {
            options,
            excludes,
            owners: OwnerNames::default(),
            xattrs,
            levels: Vec::new(),
            path: PathBuf::from("/"),
            pending,
            left_out: LeftOut::default(),
        };
        walk.start(roots.wanted)?;
        Ok(walk)
    }

    /// What was left out so far, on request.
    #[must_use]
    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }

    fn start(&mut self, wanted: Wanted) -> Result<(), SourceError> {
        let top = Path::new("/");
        if !wanted.root && wanted.below.is_empty() {
            return Ok(());
        }
        let failed = |error| SourceError::io("open", top, error);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(top, flags, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&directory).map_err(failed)?;
        self.push(directory, &stat, wanted.root, wanted.below, stat.st_dev);
        Ok(())
    }

    /// Enters an open directory whose path is already `self.path`.
    fn push(
        &mut self,
        directory: OwnedFd,
        stat: &Stat,
        all: bool,
        below: BTreeMap<Vec<u8>, Wanted>,
        root_device: u64,
    ) {
        let mut names =
            if all { self.names(&directory, stat, root_device) } else { Listing::default() };
        names.add(below.keys().map(Vec::as_slice));
        self.levels.push(Level {
            directory: Some(Arc::new(directory)),
            device: stat.st_dev,
            inode: stat.st_ino,
            names,
            all,
            below,
            root_device,
        });
        let surplus = self.levels.len().checked_sub(OPEN_DIRECTORIES_MAX + 1);
        if let Some(level) = surplus.and_then(|index| self.levels.get_mut(index)) {
            level.directory = None;
        }
    }

    /// The names to visit in a directory everything of which is wanted.
    fn names(&mut self, directory: &OwnedFd, stat: &Stat, root_device: u64) -> Listing {
        if stat.st_dev != root_device
            && (self.options.one_file_system
                || (!self.options.kernel_file_systems && is_kernel_file_system(directory)))
        {
            self.left_out.mounts += 1;
            return Listing::default();
        }
        let (names, failure) = Listing::read(directory.as_fd());
        if let Some(error) = failure {
            let error = SourceError::io("list", &self.path, error);
            self.pending.push_back(Event::Unreadable { path: self.path.clone(), error });
        }
        let tag = CACHEDIR_TAG.as_bytes();
        if self.options.exclude_caches && names.contains(tag) && is_cache(directory) {
            self.left_out.caches += 1;
            let mut only = Listing::default();
            only.add(std::iter::once(tag));
            return only;
        }
        names
    }

    /// Looks at the next name of the innermost directory.
    fn step(&mut self) -> Option<()> {
        let level = self.levels.last_mut()?;
        let Some(name) = level.names.next().map(<[u8]>::to_vec) else {
            self.leave();
            return Some(());
        };
        let Some(directory) = level.directory.clone() else {
            // Not reopened; reported when that failed.
            level.names = Listing::default();
            return Some(());
        };
        let wanted = level.below.remove(&name);
        let path = self.path.join(OsStr::from_bytes(&name));
        if let Err(error) = self.visit(&directory, &name, &path, wanted) {
            self.pending.push_back(Event::Unreadable { path, error });
        }
        Some(())
    }

    /// `wanted` says that the name is a root or leads to one.
    fn visit(
        &mut self,
        parent: &Arc<OwnedFd>,
        name: &[u8],
        path: &Path,
        wanted: Option<Wanted>,
    ) -> Result<(), SourceError> {
        if name.len() > NAME_BYTES_MAX as usize {
            let path = path.to_path_buf();
            return Err(SourceError::NameTooLong { path, bytes_max: NAME_BYTES_MAX });
        }
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| SourceError::io("look at", path, e))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let root = wanted.as_ref().is_some_and(|wanted| wanted.root);
        let parent_all = self.levels.last().is_some_and(|level| level.all);
        let all = root || (parent_all && !self.leaves_out(path, kind, &stat));
        if !all && wanted.is_none() {
            self.left_out.entries += 1;
            return Ok(());
        }
        if kind == FileType::Directory {
            let below = wanted.map(|wanted| wanted.below).unwrap_or_default();
            return self.enter(parent, name, path, root, all, below);
        }
        if !all {
            // It was a directory on the way to a root when the roots were resolved.
            return Err(SourceError::Replaced { path: path.to_path_buf() });
        }
        self.leaf(parent, name, path, &stat, root)
    }

    fn leaves_out(&self, path: &Path, kind: FileType, stat: &Stat) -> bool {
        let too_long = kind == FileType::RegularFile
            && self.options.exclude_larger_than.is_some_and(|bytes| length(stat) > bytes);
        too_long || self.excludes.leaves_out(path, kind == FileType::Directory)
    }

    fn enter(
        &mut self,
        parent: &Arc<OwnedFd>,
        name: &[u8],
        path: &Path,
        root: bool,
        all: bool,
        below: BTreeMap<Vec<u8>, Wanted>,
    ) -> Result<(), SourceError> {
        if self.levels.len() > PATH_DEPTH_MAX as usize {
            let path = path.to_path_buf();
            return Err(SourceError::TooDeep { path, levels_max: PATH_DEPTH_MAX });
        }
        let (directory, denied) = open_directory(parent, name, path)?;
        let stat =
            rustix::fs::fstat(&directory).map_err(|e| SourceError::io("look at", path, e))?;
        let mut meta = meta_of(&stat, &mut self.owners);
        self.read_xattrs(&directory, None, path, &mut meta);
        self.pending.push_back(Event::Enter {
            path: path.to_path_buf(),
            name: name.to_vec(),
            meta: Box::new(meta),
        });
        let listed = all && denied.is_none();
        if let (Some(error), true) = (denied, all) {
            self.pending.push_back(Event::Unreadable { path: path.to_path_buf(), error });
        }
        let above = self.levels.last().map_or(stat.st_dev, |level| level.root_device);
        let root_device = if root || !all { stat.st_dev } else { above };
        self.path.push(OsStr::from_bytes(name));
        self.push(directory, &stat, listed, below, root_device);
        Ok(())
    }

    fn leaf(
        &mut self,
        parent: &Arc<OwnedFd>,
        name: &[u8],
        path: &Path,
        stat: &Stat,
        root: bool,
    ) -> Result<(), SourceError> {
        let mut meta = meta_of(stat, &mut self.owners);
        let place = || Place::new(Arc::clone(parent), name, path, stat, self.options.detect_holes);
        let major = rustix::fs::major(stat.st_rdev);
        let minor = rustix::fs::minor(stat.st_rdev);
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => LeafKind::File { bytes: length(stat), place: place() },
            FileType::BlockDevice if root || self.options.read_devices => {
                LeafKind::DeviceData { place: place() }
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())
                    .map_err(|e| SourceError::io("read the link", path, e))?;
                LeafKind::Symlink { target: target.into_bytes() }
            }
            FileType::Fifo => LeafKind::Fifo,
            FileType::Socket => LeafKind::Socket,
            FileType::CharacterDevice => LeafKind::CharDevice { major, minor },
            FileType::BlockDevice => LeafKind::BlockDevice { major, minor },
            FileType::Directory | FileType::Unknown => {
                return Err(SourceError::Replaced { path: path.to_path_buf() });
            }
        };
        self.read_xattrs(parent, Some(name), path, &mut meta);
        self.pending.push_back(Event::Leaf(Box::new(Leaf {
            path: path.to_path_buf(),
            name: name.to_vec(),
            meta,
            fingerprint: Fingerprint::of(stat),
            kind,
        })));
        Ok(())
    }

    fn read_xattrs(
        &mut self,
        directory: &OwnedFd,
        name: Option<&[u8]>,
        path: &Path,
        meta: &mut Meta,
    ) {
        let Some(reader) = self.xattrs.as_mut() else { return };
        let (xattrs, failures) = reader.read(directory.as_fd(), name, path);
        meta.xattrs = xattrs;
        for error in failures {
            self.pending.push_back(Event::Incomplete { path: path.to_path_buf(), error });
        }
    }

    fn leave(&mut self) {
        let Some(left) = self.levels.pop() else { return };
        if self.levels.is_empty() {
            return;
        }
        self.pending.push_back(Event::Leave);
        self.path.pop();
        if self.levels.last().is_some_and(|level| level.directory.is_none()) {
            self.reopen(left.directory.as_deref());
        }
    }

    /// Opens the innermost directory again after its descendants took its place among the open
    /// ones: from the child just left, or if that was moved away, from the top.
    fn reopen(&mut self, child: Option<&OwnedFd>) {
        let Some(level) = self.levels.last_mut() else { return };
        let same = |directory: &OwnedFd| {
            rustix::fs::fstat(directory)
                .is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (level.device, level.inode))
        };
        let above = child.and_then(|child| open_node(child, OsStr::new("..")).ok());
        let opened = above.filter(same).or_else(|| descend(&self.path).ok().filter(same));
        match opened {
            Some(directory) => level.directory = Some(Arc::new(directory)),
            None => {
                level.names = Listing::default();
                let path = self.path.clone();
                let error = SourceError::Replaced { path: path.clone() };
                self.pending.push_back(Event::Unreadable { path, error });
            }
        }
    }
}

impl Iterator for Walk {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            self.step()?;
        }
    }
}

/// Opens a directory for listing. Where that is forbidden, it is opened for looking at it only,
/// and the reason is returned beside it, so that the entry itself is not lost.
fn open_directory(
    parent: &OwnedFd,
    name: &[u8],
    path: &Path,
) -> Result<(OwnedFd, Option<SourceError>), SourceError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut opened = rustix::fs::openat(parent, name, flags | OFlags::NOATIME, Mode::empty());
    // Only the owner may ask not to touch the access time.
    if opened.as_ref().is_err_and(|e| *e == Errno::PERM) {
        opened = rustix::fs::openat(parent, name, flags, Mode::empty());
    }
    match opened {
        Ok(directory) => Ok((directory, None)),
        Err(Errno::LOOP | Errno::NOTDIR) => Err(SourceError::Replaced { path: path.to_path_buf() }),
        Err(error) => {
            let denied = SourceError::io("list", path, error);
            match open_node(parent, OsStr::from_bytes(name)) {
                Ok(directory) if error == Errno::ACCESS => Ok((directory, Some(denied))),
                _ => Err(denied),
            }
        }
    }
}

/// Opens a directory only as a place to start from; needs no permission to list it.
fn open_node(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Opens a directory from the top, step by step, without following links.
fn descend(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open("/", flags, Mode::empty())?;
    path.iter().skip(1).try_fold(top, |directory, name| open_node(&directory, name))
}

fn is_cache(directory: &OwnedFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(tag) = rustix::fs::openat(directory, CACHEDIR_TAG, flags, Mode::empty()) else {
        return false;
    };
    let mut start = [0; CACHEDIR_SIGNATURE.len()];
    matches!(rustix::io::read(&tag, &mut start), Ok(read) if read == start.len())
        && start == *CACHEDIR_SIGNATURE
}

/// Magic numbers of file systems whose files are made by the kernel when read
/// (`linux/magic.h`).
const KERNEL_FILE_SYSTEMS: [rustix::fs::FsWord; 15] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x1cd1,      // devpts
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0x6265_6570, // configfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0xcafe_4a11, // bpf
    0x6165_676c, // pstore
    0xde5e_81e4, // efivarfs
    0x1980_0202, // mqueue
    0xf97c_ff8c, // selinuxfs
    0x4249_4e4d, // binfmt_misc
];

fn is_kernel_file_system(directory: &OwnedFd) -> bool {
    rustix::fs::fstatfs(directory).is_ok_and(|facts| KERNEL_FILE_SYSTEMS.contains(&facts.f_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a directory swapped for a link comes down to, without the race.
    #[test]
    fn a_link_is_not_opened_as_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        std::fs::write(dir.path().join("file"), b"").unwrap();
        let parent = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let open = |name: &str| open_directory(&parent, name.as_bytes(), Path::new(name));
        assert!(matches!(open("real"), Ok((_, None))));
        for name in ["link", "file"] {
            assert!(matches!(open(name), Err(SourceError::Replaced { .. })), "{name}");
        }
        assert!(descend(&dir.path().canonicalize().unwrap().join("real")).is_ok());
        assert!(descend(&dir.path().canonicalize().unwrap().join("link")).is_err());
    }
}
