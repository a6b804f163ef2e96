//! The disk's face to the kernel.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};
use parking_lot::{Mutex, MutexGuard};

use super::disk::{Disk, Inode, Kind, Meta};

/// How long the kernel may remember an answer: only it changes anything.
const TTL: Duration = Duration::from_secs(60);
/// What the disk says it has room for, blocks of 4 KiB.
const BLOCKS: u64 = 1 << 20;
/// Length of a block, bytes.
const BLOCK_BYTES: u32 = 4096;
/// Longest file, bytes: what is written to the disk is held in memory.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The disk as a file system.
pub(super) struct Mounted {
    pub(super) disk: Arc<Mutex<Disk>>,
    /// What folders held when they were opened, by handle.
    opened: Mutex<BTreeMap<u64, Vec<Listed>>>,
}

/// An entry of a folder.
type Listed = (OsString, u64, FileType);

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

fn kind_of(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Folder => FileType::Directory,
        Kind::Link => FileType::Symlink,
    }
}

fn attributes(disk: &Disk, number: u64, inode: &Inode) -> FileAttr {
    let bytes = inode.data.len() as u64;
    let Meta { mode, uid, gid, mtime, ctime, .. } = inode.meta;
    FileAttr {
        ino: INodeNo(number),
        size: bytes,
        blocks: bytes.div_ceil(512),
        atime: mtime,
        mtime,
        ctime,
        crtime: ctime,
        kind: kind_of(inode.kind),
        perm: u16::try_from(mode & 0o7777).unwrap_or_default(),
        nlink: disk.links(number),
        uid,
        gid,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

fn new_meta(request: &Request, mode: u32, umask: u32) -> Meta {
    let now = SystemTime::now();
    let (uid, gid) = (request.uid(), request.gid());
    let mode = mode & !umask & 0o7777;
    Meta { mode, uid, gid, mtime: now, ctime: now, xattrs: BTreeMap::new() }
}

impl Mounted {
    pub(super) fn new(disk: Arc<Mutex<Disk>>) -> Self {
        Self { disk, opened: Mutex::default() }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock()
    }

    fn entry(&self, found: Result<u64, rustix::io::Errno>, reply: ReplyEntry) {
        let disk = self.disk();
        match found.and_then(|number| Ok((number, disk.get(number)?))) {
            Ok((number, inode)) => {
                reply.entry(&TTL, &attributes(&disk, number, inode), Generation(0));
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn make(
        &self,
        (parent, name): (INodeNo, &OsStr),
        kind: Kind,
        meta: Meta,
        data: Vec<u8>,
    ) -> Result<u64, rustix::io::Errno> {
        self.disk().make(parent.0, name, kind, meta, data)
    }
}

fn empty(outcome: Result<(), rustix::io::Errno>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

/// Answers with a value of an attribute, or how long it is.
fn value(data: &[u8], room: u32, reply: ReplyXattr) {
    match u32::try_from(data.len()) {
        Ok(bytes) if room == 0 => reply.size(bytes),
        Ok(bytes) if bytes <= room => reply.data(data),
        _ => reply.error(Errno::ERANGE),
    }
}

impl Filesystem for Mounted {
    fn init(&mut self, _: &Request, _: &mut KernelConfig) -> std::io::Result<()> {
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.disk().lookup(parent.0, name);
        self.entry(found, reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let disk = self.disk();
        match disk.get(ino.0) {
            Ok(inode) => reply.attr(&TTL, &attributes(&disk, ino.0, inode)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = self.disk();
        let Ok(inode) = disk.get_mut(ino.0) else { return reply.error(Errno::ENOENT) };
        let meta = &mut inode.meta;
        meta.ctime = SystemTime::now();
        meta.mode = mode.unwrap_or(meta.mode) & 0o7777;
        meta.uid = uid.unwrap_or(meta.uid);
        meta.gid = gid.unwrap_or(meta.gid);
        if let Some(size) = size {
            if size > FILE_BYTES_MAX {
                return reply.error(Errno::EFBIG);
            }
            inode.data.resize(usize::try_from(size).unwrap_or_default(), 0);
            meta.mtime = meta.ctime;
        }
        match mtime {
            Some(TimeOrNow::SpecificTime(time)) => meta.mtime = time,
            Some(TimeOrNow::Now) => meta.mtime = meta.ctime,
            None => {}
        }
        if let Ok(inode) = disk.get(ino.0) {
            reply.attr(&TTL, &attributes(&disk, ino.0, inode));
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.disk().get(ino.0) {
            Ok(inode) => reply.data(&inode.data),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let meta = new_meta(request, mode, umask);
        let made = self.make((parent, name), Kind::Folder, meta, Vec::new());
        self.entry(made, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.disk().remove(parent.0, name, SystemTime::now()), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.disk().remove(parent.0, name, SystemTime::now()), reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = target.as_os_str().as_encoded_bytes().to_vec();
        let made = self.make((parent, name), Kind::Link, new_meta(request, 0o777, 0), target);
        self.entry(made, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            return reply.error(Errno::EINVAL);
        }
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        let (from, to) = ((parent.0, name), (newparent.0, newname));
        empty(self.disk().rename(from, to, replace, SystemTime::now()), reply);
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let linked = self.disk().link(ino.0, newparent.0, newname, SystemTime::now());
        self.entry(linked.map(|()| ino.0), reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let meta = new_meta(request, mode, umask);
        let made = self.make((parent, name), Kind::File, meta, Vec::new());
        let disk = self.disk();
        match made.and_then(|number| Ok((number, disk.get(number)?))) {
            Ok((number, inode)) => {
                let attributes = attributes(&disk, number, inode);
                let (handle, flags) = (FileHandle(0), FopenFlags::empty());
                reply.created(&TTL, &attributes, Generation(0), handle, flags);
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk().get(ino.0) {
            Ok(inode) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(inode.data.len());
                let to = from.saturating_add(size as usize).min(inode.data.len());
                reply.data(inode.data.get(from..to).unwrap_or_default());
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let end = offset.saturating_add(data.len() as u64);
        if end > FILE_BYTES_MAX {
            return reply.error(Errno::EFBIG);
        }
        let mut disk = self.disk();
        let Ok(inode) = disk.get_mut(ino.0) else { return reply.error(Errno::ENOENT) };
        let [from, to] = [offset, end].map(|at| usize::try_from(at).unwrap_or_default());
        if inode.data.len() < to {
            inode.data.resize(to, 0);
        }
        if let Some(there) = inode.data.get_mut(from..to) {
            there.copy_from_slice(data);
        }
        inode.meta.mtime = SystemTime::now();
        inode.meta.ctime = inode.meta.mtime;
        reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX));
    }

    /// Closing makes nothing durable.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.disk().fsync(ino.0), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.disk().fsync(ino.0), reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let disk = self.disk();
        let Ok(inode) = disk.get(ino.0) else { return reply.error(Errno::ENOENT) };
        let own = [".", ".."].map(|name| (OsString::from(name), ino.0, FileType::Directory));
        let mut listed = Vec::from(own);
        for (name, number) in &inode.entries {
            let kind = disk.get(*number).map_or(FileType::RegularFile, |inode| kind_of(inode.kind));
            listed.push((name.clone(), *number, kind));
        }
        let mut opened = self.opened.lock();
        let handle = opened.last_key_value().map_or(1, |(last, _)| last + 1);
        opened.insert(handle, listed);
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.opened.lock().remove(&handle.0);
        reply.ok();
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let opened = self.opened.lock();
        let listed = opened.get(&handle.0).map(Vec::as_slice).unwrap_or_default();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (name, number, kind)) in (1..).zip(listed).skip(from) {
            if reply.add(INodeNo(*number), at, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(
            BLOCKS,
            BLOCKS / 2,
            BLOCKS / 2,
            BLOCKS,
            BLOCKS / 2,
            BLOCK_BYTES,
            255,
            BLOCK_BYTES,
        );
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        _: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let mut disk = self.disk();
        let set = disk.get_mut(ino.0).map(|inode| {
            inode.meta.xattrs.insert(name.to_owned(), value.to_vec());
        });
        empty(set, reply);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.disk().get(ino.0).map(|inode| inode.meta.xattrs.get(name)) {
            Ok(Some(data)) => value(data, size, reply),
            Ok(None) => reply.error(Errno::ENODATA),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let mut names = Vec::new();
        if let Ok(inode) = self.disk().get(ino.0) {
            for name in inode.meta.xattrs.keys() {
                names.extend_from_slice(name.as_encoded_bytes());
                names.push(0);
            }
        }
        value(&names, size, reply);
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut disk = self.disk();
        let removed = disk.get_mut(ino.0).and_then(|inode| {
            inode.meta.xattrs.remove(name).map(|_| ()).ok_or(rustix::io::Errno::NODATA)
        });
        empty(removed, reply);
    }
}
