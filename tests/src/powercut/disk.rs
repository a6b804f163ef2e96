//! What a disk holds, and what of that a power cut leaves. Everything is in memory.
//!
//! Only this is promised, as POSIX has it: after `fsync` of a file its content and attributes last;
//! after `fsync` of a folder its entries do. A file that was made durable may still lose its name. Of
//! everything else a cut leaves a random part: each 512 bytes of a changed file are old or new, its
//! length is old, new, or between, and each change of a folder happened or not, in any combination,
//! but for this: a rename happens in both folders or in neither, unless one of them was made durable.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use rustix::io::Errno;

use crate::seed::Seed;

/// What a disk writes as a whole, bytes.
const SECTOR_BYTES: usize = 512;
/// The root folder.
pub(super) const ROOT: u64 = 1;

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Link,
}

/// Attributes of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: SystemTime,
    pub(super) ctime: SystemTime,
    pub(super) xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// What is lost, or not, as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Image {
    data: Vec<u8>,
    meta: Option<Meta>,
}

#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) kind: Kind,
    pub(super) meta: Meta,
    /// Of a file its content, of a link where it leads.
    pub(super) data: Vec<u8>,
    pub(super) entries: BTreeMap<OsString, u64>,
    durable: Image,
    durable_entries: BTreeMap<OsString, u64>,
}

/// One entry of one folder, as a change leaves it.
#[derive(Clone, Debug)]
struct Edit {
    folder: u64,
    name: OsString,
    inode: Option<u64>,
}

/// A disk whose power can be cut.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    inodes: BTreeMap<u64, Inode>,
    next: u64,
    /// Changes of folders that are not durable, in order.
    pending: Vec<Vec<Edit>>,
    /// Every `fsync` is ignored: what a disk that lies, or a program without them, would do.
    pub(super) lies: bool,
    /// Calls of `fsync`.
    pub(super) fsyncs: u64,
}

impl Disk {
    pub(super) fn new(meta: Meta) -> Self {
        let mut disk = Self {
            inodes: BTreeMap::new(),
            next: ROOT,
            pending: Vec::new(),
            lies: false,
            fsyncs: 0,
        };
        disk.add(Kind::Folder, meta, Vec::new());
        disk
    }

    fn add(&mut self, kind: Kind, meta: Meta, data: Vec<u8>) -> u64 {
        let number = self.next;
        self.next += 1;
        // Folders and links come with their entry, as a whole.
        let durable = match kind {
            Kind::File => Image::default(),
            Kind::Folder | Kind::Link => Image { data: data.clone(), meta: Some(meta.clone()) },
        };
        let (entries, durable_entries) = (BTreeMap::new(), BTreeMap::new());
        self.inodes.insert(number, Inode { kind, meta, data, entries, durable, durable_entries });
        number
    }

    pub(super) fn get(&self, inode: u64) -> Result<&Inode, Errno> {
        self.inodes.get(&inode).ok_or(Errno::NOENT)
    }

    pub(super) fn get_mut(&mut self, inode: u64) -> Result<&mut Inode, Errno> {
        self.inodes.get_mut(&inode).ok_or(Errno::NOENT)
    }

    pub(super) fn lookup(&self, folder: u64, name: &OsStr) -> Result<u64, Errno> {
        self.get(folder)?.entries.get(name).copied().ok_or(Errno::NOENT)
    }

    /// How many names an inode has.
    pub(super) fn links(&self, inode: u64) -> u32 {
        let folders = self.inodes.values().map(|folder| &folder.entries);
        let names = folders.flat_map(BTreeMap::values).filter(|named| **named == inode).count();
        let own = usize::from(self.get(inode).is_ok_and(|inode| inode.kind == Kind::Folder));
        u32::try_from(names + own).unwrap_or(u32::MAX)
    }

    fn change(&mut self, edits: Vec<Edit>, now: SystemTime) -> Result<(), Errno> {
        for edit in &edits {
            let folder = self.get_mut(edit.folder)?;
            folder.meta.mtime = now;
            folder.meta.ctime = now;
            match edit.inode {
                Some(inode) => folder.entries.insert(edit.name.clone(), inode),
                None => folder.entries.remove(&edit.name),
            };
        }
        self.pending.push(edits);
        Ok(())
    }

    pub(super) fn make(
        &mut self,
        folder: u64,
        name: &OsStr,
        kind: Kind,
        meta: Meta,
        data: Vec<u8>,
    ) -> Result<u64, Errno> {
        if self.lookup(folder, name).is_ok() {
            return Err(Errno::EXIST);
        }
        let now = meta.ctime;
        let inode = self.add(kind, meta, data);
        self.change(vec![Edit { folder, name: name.into(), inode: Some(inode) }], now)?;
        Ok(inode)
    }

    pub(super) fn link(
        &mut self,
        inode: u64,
        folder: u64,
        name: &OsStr,
        now: SystemTime,
    ) -> Result<(), Errno> {
        if self.lookup(folder, name).is_ok() {
            return Err(Errno::EXIST);
        }
        self.change(vec![Edit { folder, name: name.into(), inode: Some(inode) }], now)
    }

    pub(super) fn remove(
        &mut self,
        folder: u64,
        name: &OsStr,
        now: SystemTime,
    ) -> Result<(), Errno> {
        let inode = self.lookup(folder, name)?;
        if !self.get(inode)?.entries.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.change(vec![Edit { folder, name: name.into(), inode: None }], now)
    }

    pub(super) fn rename(
        &mut self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        replace: bool,
        now: SystemTime,
    ) -> Result<(), Errno> {
        let inode = self.lookup(from.0, from.1)?;
        match self.lookup(to.0, to.1) {
            Ok(_) if !replace => return Err(Errno::EXIST),
            Ok(there) if there == inode => return Ok(()),
            Ok(there) if !self.get(there)?.entries.is_empty() => return Err(Errno::NOTEMPTY),
            Ok(_) | Err(_) => {}
        }
        let edits = vec![
            Edit { folder: from.0, name: from.1.into(), inode: None },
            Edit { folder: to.0, name: to.1.into(), inode: Some(inode) },
        ];
        self.change(edits, now)
    }

    /// Makes a file's content, or a folder's entries, durable.
    pub(super) fn fsync(&mut self, inode: u64) -> Result<(), Errno> {
        self.fsyncs += 1;
        if self.lies {
            return self.get(inode).map(|_| ());
        }
        let file = self.get_mut(inode)?;
        file.durable = Image { data: file.data.clone(), meta: Some(file.meta.clone()) };
        let mut applied = Vec::new();
        for edits in &mut self.pending {
            applied.extend(edits.extract_if(.., |edit| edit.folder == inode));
        }
        self.pending.retain(|edits| !edits.is_empty());
        self.apply(applied);
        Ok(())
    }

    fn apply(&mut self, edits: Vec<Edit>) {
        for Edit { folder, name, inode } in edits {
            if let Some(folder) = self.inodes.get_mut(&folder) {
                match inode {
                    Some(inode) => folder.durable_entries.insert(name, inode),
                    None => folder.durable_entries.remove(&name),
                };
            }
        }
    }

    /// Cuts the power: what is left is what the next start finds.
    pub(super) fn cut(&mut self, seed: &mut Seed) {
        // Of a hundred changes none, all, or about a half.
        let share = seed.below(5).min(2);
        for edits in std::mem::take(&mut self.pending) {
            if happened(share, seed) {
                self.apply(edits);
            }
        }
        for inode in self.inodes.values_mut() {
            if inode.kind == Kind::File {
                let share = seed.below(5).min(2);
                let meta = match &inode.durable.meta {
                    Some(meta) if !happened(share, seed) => meta.clone(),
                    _ => inode.meta.clone(),
                };
                inode.data = torn(&inode.durable.data, &inode.data, share, seed);
                inode.meta = meta;
            }
            inode.entries = inode.durable_entries.clone();
        }
        self.forget_unnamed();
        for inode in self.inodes.values_mut() {
            inode.durable = Image { data: inode.data.clone(), meta: Some(inode.meta.clone()) };
        }
    }

    /// A name may lead to what is not there: folders are made with their entries.
    fn forget_unnamed(&mut self) {
        let mut reached = BTreeSet::new();
        let mut folders = vec![ROOT];
        while let Some(number) = folders.pop() {
            if let Some(inode) = self.inodes.get(&number).filter(|_| reached.insert(number)) {
                folders.extend(inode.entries.values());
            }
        }
        self.inodes.retain(|number, _| reached.contains(number));
    }
}

/// Whether one of several changes happened: 0 none, 1 all, 2 about a half.
fn happened(share: u64, seed: &mut Seed) -> bool {
    match share {
        0 => false,
        1 => true,
        _ => seed.below(2) == 0,
    }
}

/// A file of which some sectors are old and some new.
fn torn(old: &[u8], new: &[u8], share: u64, seed: &mut Seed) -> Vec<u8> {
    let (short, long) = (old.len().min(new.len()), old.len().max(new.len()));
    let bytes = match share {
        0 => old.len(),
        1 => new.len(),
        _ => short + usize::try_from(seed.below((long - short + 1) as u64)).unwrap_or_default(),
    };
    let mut data = old.to_vec();
    data.resize(bytes, 0);
    for (number, sector) in data.chunks_mut(SECTOR_BYTES).enumerate() {
        let at = number * SECTOR_BYTES;
        let written = new.get(at..new.len().min(at + sector.len())).unwrap_or_default();
        match sector.get_mut(..written.len()) {
            Some(there) if there != written && happened(share, seed) => {
                there.copy_from_slice(written);
            }
            _ => {}
        }
    }
    data
}
