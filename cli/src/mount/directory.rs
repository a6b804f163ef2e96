//! Listing directories in the pieces that the kernel asks for.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use cairn_engine::ops::browse::{Batch, Listed, View};
use fuser::{Errno, FileType, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use super::requests::{attributes, errno, file_type, lifetime};

/// Entries that are taken out of the view at once.
const BATCH_ENTRIES: usize = 512;
/// What the kernel counts before the first entry of the view: `.` and `..`.
const DOTS: u64 = 2;

/// A directory that is open, with entries around those that were asked for last.
#[derive(Default)]
pub(super) struct Opening {
    batch: Batch,
    /// Number of the batch's first entry.
    first: u64,
    filled: bool,
    /// Something could not be read so far.
    damaged: bool,
}

/// A piece of a directory that the kernel has room for.
pub(super) trait Piece {
    /// Adds `.` or `..`; true when there is no room.
    fn dot(&mut self, directory: u64, cookie: u64, name: &str) -> bool;

    /// Adds an entry; true when there is no room.
    fn entry(&mut self, view: &View<'_>, directory: u64, cookie: u64, entry: &Listed) -> bool;
}

impl Piece for ReplyDirectory {
    fn dot(&mut self, directory: u64, cookie: u64, name: &str) -> bool {
        self.add(INodeNo(directory), cookie, FileType::Directory, name)
    }

    fn entry(&mut self, _: &View<'_>, _: u64, cookie: u64, entry: &Listed) -> bool {
        let name = OsStr::from_bytes(&entry.name);
        self.add(INodeNo(entry.number()), cookie, file_type(entry.kind), name)
    }
}

impl Piece for ReplyDirectoryPlus {
    fn dot(&mut self, directory: u64, cookie: u64, name: &str) -> bool {
        // The kernel takes nothing of these but the name.
        let attributes = super::requests::dot_attributes(directory);
        let none = std::time::Duration::ZERO;
        self.add(INodeNo(directory), cookie, name, &none, &attributes, Generation(0))
    }

    fn entry(&mut self, view: &View<'_>, directory: u64, cookie: u64, entry: &Listed) -> bool {
        // Whoever asks for what cannot be told gets the error then; its name is there.
        let Ok(found) = view.adopt(directory, entry) else {
            let mut unknown = super::requests::dot_attributes(0);
            unknown.kind = file_type(entry.kind);
            let none = std::time::Duration::ZERO;
            let name = OsStr::from_bytes(&entry.name);
            return self.add(INodeNo(0), cookie, name, &none, &unknown, Generation(0));
        };
        let (lasts, shown) = (lifetime(&found), attributes(&found));
        let name = OsStr::from_bytes(&entry.name);
        let full = self.add(INodeNo(found.number), cookie, name, &lasts, &shown, Generation(0));
        if full {
            view.forget(found.number, 1);
        }
        full
    }
}

impl Opening {
    /// Fills a piece with what follows the entry of this cookie; 0 is the beginning.
    pub(super) fn fill(
        &mut self,
        view: &View<'_>,
        directory: u64,
        cookie: u64,
        piece: &mut impl Piece,
    ) -> Result<(), Errno> {
        let dots = [(1, "."), (DOTS, "..")];
        for (number, name) in dots.into_iter().filter(|(number, _)| *number > cookie) {
            if piece.dot(directory, number, name) {
                return Ok(());
            }
        }
        let mut added = cookie < DOTS;
        let mut next = cookie.saturating_sub(DOTS);
        if next == 0 {
            // From the beginning, as of now.
            *self = Self::default();
        }
        loop {
            if !self.filled || !(self.first..=self.batch.next).contains(&next) {
                self.take(view, directory, next)?;
            }
            for entry in self.batch.entries.iter().filter(|entry| entry.next > next) {
                if piece.entry(view, directory, entry.next + DOTS, entry) {
                    return Ok(());
                }
                added = true;
            }
            if self.batch.end {
                // Everything that can be had comes first.
                return if self.damaged && !added { Err(Errno::EIO) } else { Ok(()) };
            }
            next = self.batch.next;
            self.take(view, directory, next)?;
        }
    }

    fn take(&mut self, view: &View<'_>, directory: u64, first: u64) -> Result<(), Errno> {
        self.batch = view.list(directory, first, BATCH_ENTRIES).map_err(errno)?;
        self.first = first;
        self.filled = true;
        self.damaged |= self.batch.damaged;
        Ok(())
    }
}
