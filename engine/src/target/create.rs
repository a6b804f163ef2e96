//! The first pass: making the entries of a restored tree.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cairn_format::tree::{LinkGroup, Meta, Node};
use parking_lot::Mutex;
use rustix::fd::{AsRawFd as _, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::contain::{Root, SafePath, Slot};
use super::error::TargetError;
use super::file::TargetFile;
use super::finish::OwnerIds;
use super::open_files::OpenFiles;
use crate::timings::{Stage, Timings};

/// Where open files are reachable by path.
pub(super) const PROC_FD: &str = "/proc/self/fd";

/// What a formatter leaves in an empty file system.
const LOST_AND_FOUND: &str = "lost+found";

/// How often an entry is created again after something in its way was removed.
const TRIES_MAX: usize = 16;

/// What is done where something is already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// It is left alone and reported. Directories are entered.
    Never,
    /// A file of the recorded length and modification time is taken for whole: [`Target::finish`]
    /// sets the time after the content. Everything else is treated like [`Self::Delta`]. After a
    /// crash of the machine use that instead.
    IfDifferent,
    /// Files keep the blocks that are right already; other things are replaced. A directory is
    /// never removed, and what is not in the tree is left alone.
    Delta,
}

/// How recorded owners are found on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// By name where one was recorded and is known here, else by number. Needs root.
    ByName,
    /// By number. Needs root, or that they are the process's own.
    ByNumber,
    /// Everything belongs to the process; set-id bits only where that is the recorded owner.
    Ignore,
}

/// How a tree is written.
#[derive(Clone, Copy, Debug)]
pub struct TargetOptions {
    /// What is done where something is already.
    pub overwrite: Overwrite,
    /// Allow a target that is not empty; [`Overwrite::IfDifferent`] and `Delta` do so anyway.
    pub allow_non_empty: bool,
    /// Make device nodes.
    pub devices: bool,
    /// How owners are found.
    pub owners: Owners,
    /// Leave runs of zeros in new files unwritten, so that they become holes.
    pub zeros_to_holes: bool,
    /// Most files kept open between writes.
    pub open_files_max: usize,
}

impl Default for TargetOptions {
    /// Refuses to overwrite; keeps owners if the process is root.
    fn default() -> Self {
        let root = rustix::process::geteuid().is_root();
        Self {
            overwrite: Overwrite::Never,
            allow_non_empty: false,
            devices: root,
            owners: if root { Owners::ByName } else { Owners::Ignore },
            zeros_to_holes: false,
            open_files_max: 128,
        }
    }
}

/// What [`Target::create`] made of an entry.
#[derive(Debug)]
pub enum Created {
    /// A directory.
    Directory {
        /// It was there before.
        existed: bool,
    },
    /// A file whose content is to be written now, in any order.
    File(TargetFile),
    /// A file that is whole already ([`Overwrite::IfDifferent`]).
    Kept,
    /// Another name of an entry created before; it has no content of its own to write.
    Linked,
    /// A symbolic link, pipe, socket or device node.
    Node,
}

/// The first name under which an inode with several names was created.
struct LinkHome {
    path: SafePath,
    inode: (u64, u64),
    kind: FileType,
    /// Inodes that had the role before, where the file system could not give them more names.
    earlier: Vec<(u64, u64)>,
}

/// A directory being filled with a restored tree. Usable from several threads at once.
///
/// Memory grows with the number of files that have several names, nothing else.
pub struct Target {
    pub(super) root: Root,
    pub(super) options: TargetOptions,
    pub(super) open: OpenFiles,
    /// Of these, some a second time, to be written past the page cache.
    pub(super) open_direct: OpenFiles,
    /// The file system does not do that.
    pub(super) direct_refused: AtomicBool,
    pub(super) owner_ids: OwnerIds,
    pub(super) timings: Timings,
    links: Mutex<HashMap<LinkGroup, LinkHome>>,
    /// A directory of each other file system mounted beneath the target, to be synced as well.
    pub(super) mounted: Mutex<BTreeMap<u64, OwnedFd>>,
    device: u64,
    files: AtomicU64,
}

/// Says whether a restore into this directory would start, without changing anything: it is
/// missing, or is a directory that is empty or may hold something by the options.
///
/// # Errors
/// Fails if not, or if it cannot be looked at.
pub fn check_target(path: &Path, options: &TargetOptions) -> Result<(), TargetError> {
    let failed =
        |cause| TargetError::Io { action: "look at the target", path: path.to_path_buf(), cause };
    let mut entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return Err(TargetError::NotADirectory { path: path.to_path_buf() });
        }
        Err(error) => return Err(failed(error)),
    };
    if options.allow_non_empty || options.overwrite != Overwrite::Never {
        return Ok(());
    }
    entries.try_for_each(|entry| {
        if entry.map_err(failed)?.file_name() == LOST_AND_FOUND {
            return Ok(());
        }
        Err(TargetError::NotEmpty { path: path.to_path_buf() })
    })
}

impl Target {
    /// Opens the target, making it (accessible to the process's user only) where it is missing.
    ///
    /// # Errors
    /// Fails where [`check_target`] does, if it cannot be made, or if `/proc` is not mounted.
    pub fn open(path: &Path, options: TargetOptions) -> Result<Self, TargetError> {
        check_target(path, &options)?;
        let proc = rustix::fs::statfs(PROC_FD);
        if proc.map_or(true, |proc| proc.f_type != rustix::fs::PROC_SUPER_MAGIC) {
            return Err(TargetError::NoProc { path: PROC_FD.into() });
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|cause| {
            TargetError::Io { action: "make the target", path: path.to_path_buf(), cause }
        })?;
        let root = Root::open(path)?;
        let stat = rustix::fs::fstat(root.directory())
            .map_err(|error| TargetError::io("look at the target", path, error))?;
        Ok(Self {
            root,
            options,
            open: OpenFiles::new(options.open_files_max),
            open_direct: OpenFiles::new(options.open_files_max),
            direct_refused: AtomicBool::new(false),
            owner_ids: OwnerIds::default(),
            timings: Timings::default(),
            links: Mutex::default(),
            mounted: Mutex::default(),
            device: stat.st_dev,
            files: AtomicU64::new(0),
        })
    }

    /// The same, with its times taken.
    #[must_use]
    pub fn timed(self, timings: Timings) -> Self {
        Self { timings, ..self }
    }

    /// Where it is, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Makes an entry, accessible to the process's user only until [`Self::finish`]. The
    /// directories above must have been made. Of `node` only the kind and what is in the entry
    /// itself counts; chunk ids are not looked at.
    ///
    /// # Errors
    /// Fails if something is in the way, the kind is not allowed, the path leads through
    /// anything but directories, or the operating system refuses. Other entries can still be
    /// made unless [`TargetError::stops_restore`].
    pub fn create(
        &self,
        path: &SafePath,
        node: &Node,
        meta: &Meta,
    ) -> Result<Created, TargetError> {
        let _writing = self.timings.span(Stage::Write, 0);
        let directory = matches!(node, Node::Directory(_));
        if directory && path.names().is_empty() {
            return Ok(Created::Directory { existed: true });
        }
        let slot = self.root.slot(path)?;
        if directory {
            return self.create_directory(&slot);
        }
        if matches!(node, Node::CharDevice { .. } | Node::BlockDevice { .. })
            && !self.options.devices
        {
            return Err(TargetError::DeviceLeftOut { path: slot.path });
        }
        let Some(group) = meta.link else {
            return self.create_leaf(path, &slot, node, meta).map(|(created, _)| created);
        };
        // Held while creating, so that two names of one group cannot both become the first.
        let mut links = self.links.lock();
        if let Some(home) = links.get(&group).filter(|home| home.kind == kind_of(node))
            && self.link(&slot, home)?
        {
            return Ok(Created::Linked);
        }
        let (created, inode) = self.create_leaf(path, &slot, node, meta)?;
        let mut home =
            LinkHome { path: path.clone(), inode, kind: kind_of(node), earlier: Vec::new() };
        if let Some(before) = links.remove(&group) {
            home.earlier = before.earlier;
            home.earlier.push(before.inode);
        }
        links.insert(group, home);
        Ok(created)
    }

    /// Whether this inode is the one that the names of a group share.
    pub(super) fn is_home(&self, group: LinkGroup, stat: &Stat) -> bool {
        let inode = (stat.st_dev, stat.st_ino);
        let links = self.links.lock();
        links.get(&group).is_some_and(|home| home.inode == inode || home.earlier.contains(&inode))
    }

    fn create_directory(&self, slot: &Slot<'_>) -> Result<Created, TargetError> {
        for _ in 0..TRIES_MAX {
            match rustix::fs::mkdirat(slot.parent(), slot.name, Mode::RWXU) {
                Ok(()) => return Ok(Created::Directory { existed: false }),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(slot.failed("make the directory", error)),
            }
            let (handle, stat) = look(slot)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                self.enter_existing(slot, &handle, &stat)?;
                return Ok(Created::Directory { existed: true });
            }
            self.remove(slot, &stat)?;
        }
        Err(slot.failed("make the directory", Errno::EXIST))
    }

    /// Makes an existing directory writable, and remembers the file system it is on.
    fn enter_existing(
        &self,
        slot: &Slot<'_>,
        handle: &OwnedFd,
        stat: &Stat,
    ) -> Result<(), TargetError> {
        let own = stat.st_uid == rustix::process::geteuid().as_raw();
        let mode = Mode::from_raw_mode(stat.st_mode);
        if own && !mode.contains(Mode::RWXU) {
            rustix::fs::chmod(proc_path(handle), mode | Mode::RWXU)
                .map_err(|error| slot.failed("make writable", error))?;
        }
        if stat.st_dev != self.device && !self.mounted.lock().contains_key(&stat.st_dev) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = rustix::fs::open(proc_path(handle), flags, Mode::empty())
                .map_err(|error| slot.failed("open", error))?;
            self.mounted.lock().insert(stat.st_dev, directory);
        }
        Ok(())
    }

    /// Makes anything but a directory; also returns its inode.
    fn create_leaf(
        &self,
        path: &SafePath,
        slot: &Slot<'_>,
        node: &Node,
        meta: &Meta,
    ) -> Result<(Created, (u64, u64)), TargetError> {
        if let Node::File(content) = node {
            return self.create_file(path, slot, content.bytes, meta);
        }
        for _ in 0..TRIES_MAX {
            match make_node(slot, node) {
                Ok(()) => {
                    let (_, stat) = look(slot)?;
                    return Ok((Created::Node, (stat.st_dev, stat.st_ino)));
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(slot.failed("make", error)),
            }
            let (_, stat) = look(slot)?;
            self.remove(slot, &stat)?;
        }
        Err(slot.failed("make", Errno::EXIST))
    }

    fn create_file(
        &self,
        path: &SafePath,
        slot: &Slot<'_>,
        bytes: u64,
        meta: &Meta,
    ) -> Result<(Created, (u64, u64)), TargetError> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let private = Mode::RUSR | Mode::WUSR;
        for _ in 0..TRIES_MAX {
            match rustix::fs::openat(slot.parent(), slot.name, flags, private) {
                Ok(file) => return self.adopt(path, slot, file, bytes, 0, meta),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(slot.failed("make the file", error)),
            }
            let (handle, stat) = look(slot)?;
            let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if regular && self.is_whole(&stat, bytes, meta) {
                return Ok((Created::Kept, (stat.st_dev, stat.st_ino)));
            }
            // Writing in place would change every other name of the file, within the target or
            // not, so only a file with one name is.
            if regular
                && stat.st_nlink == 1
                && self.options.overwrite != Overwrite::Never
                && let Ok(file) = take_over(&handle, &stat)
            {
                return self.adopt(path, slot, file, bytes, stat.st_size.unsigned_abs(), meta);
            }
            self.remove(slot, &stat)?;
        }
        Err(slot.failed("make the file", Errno::EXIST))
    }

    /// Whether an existing file can be taken for restored already.
    fn is_whole(&self, stat: &Stat, bytes: u64, meta: &Meta) -> bool {
        self.options.overwrite == Overwrite::IfDifferent
            && u64::try_from(stat.st_size) == Ok(bytes)
            && stat.st_mtime == meta.mtime.seconds
            && stat.st_mtime_nsec == u64::from(meta.mtime.nanoseconds)
            && (stat.st_nlink == 1 || meta.link.is_some())
    }

    /// Gives a file its length and makes it known.
    fn adopt(
        &self,
        path: &SafePath,
        slot: &Slot<'_>,
        file: OwnedFd,
        bytes: u64,
        existing_bytes: u64,
        meta: &Meta,
    ) -> Result<(Created, (u64, u64)), TargetError> {
        if existing_bytes != bytes {
            rustix::fs::ftruncate(&file, bytes)
                .map_err(|error| slot.failed("set the length of", error))?;
        }
        let stat = rustix::fs::fstat(&file).map_err(|error| slot.failed("look at", error))?;
        let inode = (stat.st_dev, stat.st_ino);
        let id = self.files.fetch_add(1, Ordering::Relaxed);
        self.open.put(id, file);
        let file = TargetFile {
            id,
            path: path.clone(),
            inode,
            link: meta.link,
            bytes,
            existing_bytes: existing_bytes.min(bytes),
        };
        Ok((Created::File(file), inode))
    }

    /// Removes what is in the way, if that is allowed; never a directory.
    fn remove(&self, slot: &Slot<'_>, stat: &Stat) -> Result<(), TargetError> {
        if self.options.overwrite == Overwrite::Never {
            return Err(TargetError::Exists { path: slot.path.clone() });
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(TargetError::DirectoryInTheWay { path: slot.path.clone() });
        }
        match rustix::fs::unlinkat(slot.parent(), slot.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(slot.failed("remove", error)),
        }
    }

    /// Makes another name for an inode; false where the file system cannot.
    fn link(&self, slot: &Slot<'_>, home: &LinkHome) -> Result<bool, TargetError> {
        let from = self.root.slot(&home.path)?;
        for _ in 0..TRIES_MAX {
            let linked = rustix::fs::linkat(
                from.parent(),
                from.name,
                slot.parent(),
                slot.name,
                AtFlags::empty(),
            );
            match linked {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(Errno::PERM | Errno::MLINK | Errno::XDEV | Errno::OPNOTSUPP) => {
                    return Ok(false);
                }
                Err(error) => return Err(slot.failed("link", error)),
            }
            let (_, stat) = look(slot)?;
            if home.inode == (stat.st_dev, stat.st_ino) {
                return Ok(true);
            }
            if linked.is_ok() {
                // The first name was replaced meanwhile; whatever it is now gets no new name.
                let _ = rustix::fs::unlinkat(slot.parent(), slot.name, AtFlags::empty());
                return Err(TargetError::Replaced { path: from.path });
            }
            self.remove(slot, &stat)?;
        }
        Err(slot.failed("link", Errno::EXIST))
    }
}

/// The path under which the kernel gives access to an open handle.
pub(super) fn proc_path(handle: &OwnedFd) -> String {
    format!("{PROC_FD}/{}", handle.as_raw_fd())
}

/// A handle to the entry itself, and what it is.
pub(super) fn look(slot: &Slot<'_>) -> Result<(OwnedFd, Stat), TargetError> {
    let handle = slot.handle().map_err(|error| slot.failed("look at", error))?;
    let stat = rustix::fs::fstat(&handle).map_err(|error| slot.failed("look at", error))?;
    Ok((handle, stat))
}

/// Opens an existing file for writing, private to the process's user first.
fn take_over(handle: &OwnedFd, stat: &Stat) -> Result<OwnedFd, Errno> {
    let me = rustix::process::geteuid();
    if stat.st_uid != me.as_raw() {
        rustix::fs::chownat(handle, "", Some(me), None, AtFlags::EMPTY_PATH)?;
    }
    let path = proc_path(handle);
    rustix::fs::chmod(&path, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

pub(super) fn kind_of(node: &Node) -> FileType {
    match node {
        Node::File(_) => FileType::RegularFile,
        Node::Directory(_) => FileType::Directory,
        Node::Symlink(_) => FileType::Symlink,
        Node::Fifo => FileType::Fifo,
        Node::Socket => FileType::Socket,
        Node::CharDevice { .. } => FileType::CharacterDevice,
        Node::BlockDevice { .. } => FileType::BlockDevice,
    }
}

fn make_node(slot: &Slot<'_>, node: &Node) -> Result<(), Errno> {
    let private = Mode::RUSR | Mode::WUSR;
    let device = match node {
        Node::Symlink(target) => {
            return rustix::fs::symlinkat(target.as_slice(), slot.parent(), slot.name);
        }
        Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
            rustix::fs::makedev(*major, *minor)
        }
        Node::Fifo | Node::Socket | Node::File(_) | Node::Directory(_) => 0,
    };
    rustix::fs::mknodat(slot.parent(), slot.name, kind_of(node), private, device)
}
