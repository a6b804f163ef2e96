//! Writing the content of restored files, in any order and from any thread.

use std::sync::Arc;

use cairn_format::tree::LinkGroup;
use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::contain::SafePath;
use super::create::{Target, look, proc_path};
use super::error::TargetError;

/// What a hole is made of: the block of every common file system.
const BLOCK_BYTES: u64 = 4096;

/// Zeros written at once where a hole cannot be made.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A file made by [`Target::create`]. Holds nothing open.
#[derive(Clone, Debug)]
pub struct TargetFile {
    pub(super) id: u64,
    pub(super) path: SafePath,
    pub(super) inode: (u64, u64),
    pub(super) link: Option<LinkGroup>,
    pub(super) bytes: u64,
    /// So many of its first bytes were there before and may be anything; the others are zero.
    pub(super) existing_bytes: u64,
}

impl TargetFile {
    /// Its full length.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// So many of its first bytes were there before the restore: worth comparing. Beyond them the
    /// file reads as zeros until it is written.
    #[must_use]
    pub fn existing_bytes(&self) -> u64 {
        self.existing_bytes
    }
}

impl Target {
    /// Writes bytes at an offset. In a new file blocks of zeros are left out where the options
    /// ask for it; then nothing may have been written there before.
    ///
    /// # Errors
    /// Fails beyond the file's length, if the file was replaced, or if writing fails; a full
    /// medium is [`TargetError::Full`].
    pub fn write_at(
        &self,
        file: &TargetFile,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), TargetError> {
        self.check_bounds(file, offset, bytes.len() as u64)?;
        let open = self.opened(file)?;
        if !self.options.zeros_to_holes || offset < file.existing_bytes {
            return self.write_all(file, &open, offset, bytes);
        }
        for (offset, run) in runs_not_zero(offset, bytes) {
            self.write_all(file, &open, offset, run)?;
        }
        Ok(())
    }

    /// Writes bytes at an offset unless they are there already; says whether it wrote.
    ///
    /// # Errors
    /// Like [`Self::write_at`], and if reading fails.
    pub fn write_if_different(
        &self,
        file: &TargetFile,
        offset: u64,
        bytes: &[u8],
    ) -> Result<bool, TargetError> {
        if offset < file.existing_bytes {
            let mut there = vec![0; bytes.len()];
            let read = self.read_at(file, offset, &mut there)?;
            if read == bytes.len() && there == bytes {
                return Ok(false);
            }
        }
        self.write_at(file, offset, bytes)?;
        Ok(true)
    }

    /// Reads at an offset until the buffer is full or the file ends; returns the bytes read.
    ///
    /// # Errors
    /// Fails if the file was replaced or cannot be read.
    pub fn read_at(
        &self,
        file: &TargetFile,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, TargetError> {
        let open = self.opened(file)?;
        let mut done = 0;
        while let Some(room) = buffer.get_mut(done..).filter(|room| !room.is_empty()) {
            match rustix::io::pread(&*open, room, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.failed(file, "read", error)),
            }
        }
        Ok(done)
    }

    /// Makes a range read as zeros: a hole where the file system can, else written zeros. Costs
    /// nothing where the file is new.
    ///
    /// # Errors
    /// Like [`Self::write_at`].
    pub fn clear(&self, file: &TargetFile, offset: u64, bytes: u64) -> Result<(), TargetError> {
        self.check_bounds(file, offset, bytes)?;
        let end = (offset + bytes).min(file.existing_bytes);
        if offset >= end {
            return Ok(());
        }
        let open = self.opened(file)?;
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&*open, punch, offset, end - offset) {
            Ok(()) => return Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            Err(error) => return Err(self.failed(file, "make a hole in", error)),
        }
        let mut at = offset;
        while at < end {
            let step = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZEROS.len());
            self.write_all(file, &open, at, ZEROS.get(..step).unwrap_or_default())?;
            at += step as u64;
        }
        Ok(())
    }

    /// Closes a file that will not be written any more, if it is still open. Never needed: the
    /// number of open files is bounded.
    pub fn close(&self, file: &TargetFile) {
        self.open.close(file.id);
        self.open_direct.close(file.id);
    }

    /// The open file, opened anew where it was closed to stay within the bound.
    pub(super) fn opened(&self, file: &TargetFile) -> Result<Arc<OwnedFd>, TargetError> {
        if let Some(open) = self.open.get(file.id) {
            return Ok(open);
        }
        let slot = self.root.slot(&file.path)?;
        let (handle, stat) = look(&slot)?;
        // Inode numbers are used again, so the number alone does not tell.
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let same = (stat.st_dev, stat.st_ino) == file.inode;
        if !regular || !same || self.has_foreign_names(&stat, file.link) {
            return Err(TargetError::Replaced { path: slot.path });
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let opened = rustix::fs::open(proc_path(&handle), flags, Mode::empty())
            .map_err(|error| slot.failed("open", error))?;
        Ok(self.open.put(file.id, opened))
    }

    fn write_all(
        &self,
        file: &TargetFile,
        open: &OwnedFd,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), TargetError> {
        let mut done = 0;
        while let Some(left) = bytes.get(done..).filter(|left| !left.is_empty()) {
            match rustix::io::pwrite(open, left, offset + done as u64) {
                Ok(0) => return Err(self.failed(file, "write", Errno::IO)),
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.failed(file, "write", error)),
            }
        }
        Ok(())
    }

    pub(super) fn check_bounds(
        &self,
        file: &TargetFile,
        offset: u64,
        bytes: u64,
    ) -> Result<(), TargetError> {
        if offset.checked_add(bytes).is_some_and(|end| end <= file.bytes) {
            return Ok(());
        }
        let path = file.path.below(self.path());
        Err(TargetError::OutOfBounds { path, offset, bytes, file_bytes: file.bytes })
    }

    fn failed(&self, file: &TargetFile, action: &'static str, error: Errno) -> TargetError {
        TargetError::io(action, &file.path.below(self.path()), error)
    }
}

/// The runs of blocks that are not all zero, with their offsets.
fn runs_not_zero(offset: u64, bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let mut runs = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < bytes.len() {
        let in_block = (offset + at as u64) % BLOCK_BYTES;
        let step = usize::try_from(BLOCK_BYTES - in_block).unwrap_or(usize::MAX);
        let end = bytes.len().min(at.saturating_add(step));
        let zero = bytes.get(at..end).unwrap_or_default().iter().all(|byte| *byte == 0);
        if zero {
            push_run(&mut runs, offset, start, bytes.get(start..at));
            start = end;
        }
        at = end;
    }
    push_run(&mut runs, offset, start, bytes.get(start..));
    runs
}

fn push_run<'a>(runs: &mut Vec<(u64, &'a [u8])>, offset: u64, start: usize, run: Option<&'a [u8]>) {
    if let Some(run) = run.filter(|run| !run.is_empty()) {
        runs.push((offset + start as u64, run));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_cover_everything_but_zeros(
            offset in 0..20_000_u64,
            pieces in proptest::collection::vec((any::<bool>(), 1..9000_usize), 0..8),
        ) {
            let bytes: Vec<u8> = pieces
                .iter()
                .flat_map(|(zero, length)| vec![if *zero { 0 } else { 7 }; *length])
                .collect();
            let mut rebuilt = vec![0; bytes.len()];
            let mut last_end = None;
            for (at, run) in runs_not_zero(offset, &bytes) {
                let start = (at - offset) as usize;
                prop_assert!(!run.is_empty() && last_end.is_none_or(|end| end < start));
                last_end = Some(start + run.len());
                rebuilt[start..start + run.len()].copy_from_slice(run);
            }
            prop_assert_eq!(rebuilt, bytes);
        }
    }

    #[test]
    fn whole_blocks_of_zeros_are_left_out() {
        let mut bytes = vec![0; 3 * 4096];
        assert!(runs_not_zero(0, &bytes).is_empty());
        bytes[4096] = 1;
        let runs = runs_not_zero(0, &bytes);
        assert_eq!(runs.len(), 1);
        assert_eq!((runs[0].0, runs[0].1.len()), (4096, 4096));
    }
}
