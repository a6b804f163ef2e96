//! What the kernel asks for, and how it is answered.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use cairn_engine::ops::browse::{Attributes, Kind, OpenFile, ViewError};
use cairn_format::tree::Timestamp;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};

use super::directory::{Opening, Piece};
use super::{Handle, Job, Scene, lock};

/// How long the kernel remembers what never changes, and what may.
const LASTING: Duration = Duration::from_secs(60 * 60);
const PASSING: Duration = Duration::from_secs(1);
/// What programs are told to read at once, bytes.
const READ_BYTES: u32 = 128 << 10;
/// Unit in which the kernel counts the room that files take, bytes.
const SECTOR_BYTES: u64 = 512;
/// Longest name, bytes.
const NAME_BYTES_MAX: u32 = cairn_format::limits::NAME_BYTES_MAX;
/// Longest list of names of attributes that the kernel takes, bytes.
const NAMES_BYTES_MAX: usize = 64 << 10;

/// Hands requests to those who answer them.
pub(super) struct Dispatch(SyncSender<Job>);

impl Dispatch {
    pub(super) fn new(jobs: SyncSender<Job>) -> Self {
        Self(jobs)
    }

    fn hand(&self, job: impl for<'s, 'r> FnOnce(&'s Scene<'r>) + Send + 'static) {
        // Where nobody answers any more the kernel gets an error for it when it is dropped.
        let _dropped = self.0.send(Some(Box::new(job)));
    }
}

/// What a program is told.
pub(super) fn errno(error: ViewError) -> Errno {
    match error {
        ViewError::Absent => Errno::ENOENT,
        ViewError::NotDirectory => Errno::ENOTDIR,
        ViewError::OtherKind => Errno::EINVAL,
        ViewError::Forgotten => Errno::ESTALE,
        ViewError::Failed(_) => Errno::EIO,
    }
}

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// How long the kernel may remember something.
pub(super) fn lifetime(found: &Attributes) -> Duration {
    if found.lasting { LASTING } else { PASSING }
}

fn time(stamp: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(stamp.seconds.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let seconds =
        if stamp.seconds < 0 { epoch.checked_sub(whole) } else { epoch.checked_add(whole) };
    let rest = Duration::from_nanos(u64::from(stamp.nanoseconds));
    seconds.and_then(|seconds| seconds.checked_add(rest)).unwrap_or(epoch)
}

/// The number of a device as the kernel writes it in 32 bits.
fn device_number((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

pub(super) fn attributes(found: &Attributes) -> FileAttr {
    let mtime = time(found.mtime);
    FileAttr {
        ino: INodeNo(found.number),
        size: found.bytes,
        blocks: found.bytes_occupied / SECTOR_BYTES,
        atime: mtime,
        mtime,
        ctime: mtime,
        crtime: mtime,
        kind: file_type(found.kind),
        perm: u16::try_from(found.mode & 0o7777).unwrap_or_default(),
        nlink: found.links,
        uid: found.uid,
        gid: found.gid,
        rdev: device_number(found.device),
        blksize: READ_BYTES,
        flags: 0,
    }
}

/// Of an entry of which nothing but its name counts.
pub(super) fn dot_attributes(number: u64) -> FileAttr {
    let epoch = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(number),
        size: 0,
        blocks: 0,
        atime: epoch,
        mtime: epoch,
        ctime: epoch,
        crtime: epoch,
        kind: FileType::Directory,
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: READ_BYTES,
        flags: 0,
    }
}

/// Answers with a value of an attribute, or how long it is.
fn value(data: &[u8], room: u32, reply: ReplyXattr) {
    match u32::try_from(data.len()) {
        Ok(_) if data.len() > NAMES_BYTES_MAX => reply.error(Errno::E2BIG),
        Ok(bytes) if room == 0 => reply.size(bytes),
        Ok(bytes) if bytes <= room => reply.data(data),
        _ => reply.error(Errno::ERANGE),
    }
}

impl Scene<'_> {
    fn file(&self, handle: FileHandle) -> Option<Arc<OpenFile>> {
        match self.handle(handle.0) {
            Some(Handle::File(file)) => Some(file),
            Some(Handle::Directory(_)) | None => None,
        }
    }

    fn list(
        &self,
        directory: INodeNo,
        handle: FileHandle,
        cookie: u64,
        piece: &mut impl Piece,
    ) -> Result<(), Errno> {
        let Some(Handle::Directory(opening)) = self.handle(handle.0) else {
            return Err(Errno::EBADF);
        };
        lock(&opening).fill(&self.view, directory.0, cookie, piece)
    }
}

impl Filesystem for Dispatch {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
        ];
        for capability in wanted {
            // An older kernel does without.
            let _unknown = config.add_capabilities(capability);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_bytes().to_vec();
        self.hand(move |scene| match scene.view.lookup(parent.0, &name) {
            Ok(found) => reply.entry(&lifetime(&found), &attributes(&found), Generation(0)),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, nlookup: u64) {
        self.hand(move |scene| scene.view.forget(ino.0, nlookup));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.hand(move |scene| match scene.view.attributes(ino.0) {
            Ok(found) => reply.attr(&lifetime(&found), &attributes(&found)),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        self.hand(move |scene| match scene.view.link_target(ino.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.hand(move |scene| match scene.view.open_file(ino.0) {
            // Its content is always the same, so the kernel may keep what it has of it.
            Ok(file) => {
                let handle = scene.open(Handle::File(Arc::new(file)));
                reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(error) => reply.error(errno(error)),
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.hand(move |scene| {
            let Some(file) = scene.file(handle) else { return reply.error(Errno::EBADF) };
            match scene.view.read(&file, offset, size as usize) {
                Ok(bytes) => {
                    reply.data(&bytes);
                    scene.view.read_ahead(&file);
                }
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let hole = match whence {
            libc::SEEK_HOLE => true,
            libc::SEEK_DATA => false,
            _ => return reply.error(Errno::EINVAL),
        };
        self.hand(move |scene| {
            let Some(file) = scene.file(handle) else { return reply.error(Errno::EBADF) };
            let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
            match scene.view.seek(&file, offset, hole) {
                Ok(found) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
                Err(ViewError::Absent) => reply.error(Errno::ENXIO),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.hand(move |scene| {
            scene.close(handle.0);
            reply.ok();
        });
    }

    /// There is nothing to be written.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.hand(move |scene| {
            let opening = Arc::new(Mutex::new(Opening::default()));
            let handle = scene.open(Handle::Directory(opening));
            reply.opened(FileHandle(handle), FopenFlags::empty());
        });
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.hand(move |scene| match scene.list(ino, handle, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.hand(move |scene| match scene.list(ino, handle, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        });
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.hand(move |scene| {
            scene.close(handle.0);
            reply.ok();
        });
    }

    /// Nothing can be written, so there is no room and none is free.
    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, READ_BYTES, NAME_BYTES_MAX, READ_BYTES);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.as_bytes().to_vec();
        self.hand(move |scene| match scene.view.xattrs(ino.0) {
            Ok(xattrs) => match xattrs.into_iter().find(|xattr| xattr.name == name) {
                Some(xattr) => value(&xattr.value, size, reply),
                None => reply.error(Errno::ENODATA),
            },
            Err(error) => reply.error(errno(error)),
        });
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.hand(move |scene| match scene.view.xattrs(ino.0) {
            Ok(xattrs) => {
                let mut names = Vec::new();
                for xattr in xattrs {
                    names.extend_from_slice(&xattr.name);
                    names.push(0);
                }
                value(&names, size, reply);
            }
            Err(error) => reply.error(errno(error)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_devices_are_what_the_kernel_takes() {
        let before = Timestamp { seconds: -2, nanoseconds: 500_000_000 };
        let since = SystemTime::UNIX_EPOCH.duration_since(time(before));
        assert_eq!(since.ok(), Some(Duration::from_millis(1_500)));
        let after = Timestamp { seconds: 7, nanoseconds: 9 };
        let since = time(after).duration_since(SystemTime::UNIX_EPOCH);
        assert_eq!(since.ok(), Some(Duration::new(7, 9)));
        let never = Timestamp { seconds: i64::MIN, nanoseconds: 0 };
        assert!(time(never) <= SystemTime::UNIX_EPOCH);
        for (major, minor) in [(8, 1), (259, 70_000), (4_095, 1_048_575)] {
            let number = device_number((major, minor));
            // As the kernel reads it.
            let read = ((number & 0xf_ff00) >> 8, (number & 0xff) | ((number >> 12) & 0xf_ff00));
            assert_eq!(read, (major, minor));
        }
    }
}
