//! Large new files are written past the page cache.
//!
//! What is restored must reach the medium before the restore says so, and is rarely read again at
//! once: copying it into the page cache costs more than half of the processor time of such a
//! restore, drives out what others use, and leaves all writing to the end. So whole blocks are
//! copied to aligned buffers and written by threads of their own while others decode; what is less
//! than a block at either end of a run goes through the page cache. No block is written both ways.
//! Where the file system does not do this, everything goes through the page cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::create::{Target, proc_path};
use super::error::TargetError;
use super::file::TargetFile;

/// What offsets, lengths and memory are multiples of: no common device has larger blocks.
const ALIGN_BYTES: usize = 4096;
/// Written at once.
const BLOCK_BYTES: usize = 1 << 20;
/// Blocks under way; the memory this takes.
const BLOCKS: usize = 8;
/// Threads that write.
const WRITERS: usize = 4;
/// Files from this length on are written so; smaller ones are read soon or cost little.
const FILE_BYTES_MIN: u64 = 4 << 20;
/// Runs from this length on; smaller ones would be many small writes.
const RUN_BYTES_MIN: usize = 64 << 10;

/// Memory to be written, at an aligned address.
#[derive(Default)]
struct Block {
    memory: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl Block {
    fn fill(&mut self, content: &[u8]) {
        if self.memory.is_empty() {
            self.memory = vec![0; BLOCK_BYTES + ALIGN_BYTES];
            self.start = self.memory.as_ptr().align_offset(ALIGN_BYTES).min(ALIGN_BYTES);
        }
        self.bytes = content.len();
        if let Some(room) = self.memory.get_mut(self.start..self.start + content.len()) {
            room.copy_from_slice(content);
        }
    }

    fn content(&self) -> &[u8] {
        self.memory.get(self.start..self.start + self.bytes).unwrap_or_default()
    }
}

/// A block on its way into a file.
struct Job {
    file: TargetFile,
    direct: Arc<OwnedFd>,
    offset: u64,
    block: Block,
}

/// Takes content for files; see [`Target::writing`].
pub struct Sink<'t> {
    target: &'t Target,
    jobs: SyncSender<Job>,
    free: Mutex<Receiver<Block>>,
    failure: &'t Failure,
}

/// The first failure of a writer.
#[derive(Default)]
struct Failure {
    any: AtomicBool,
    first: Mutex<Option<TargetError>>,
}

impl Failure {
    fn note(&self, error: TargetError) {
        self.any.store(true, Ordering::Release);
        self.first.lock().get_or_insert(error);
    }
}

/// The part of a run that fills whole blocks: where it begins and ends in the run.
fn whole_blocks(offset: u64, bytes: usize) -> Option<(usize, usize)> {
    let align = ALIGN_BYTES as u64;
    let head = usize::try_from(offset.next_multiple_of(align) - offset).ok()?;
    let tail = usize::try_from((offset + bytes as u64) % align).ok()?;
    let end = bytes.checked_sub(tail)?;
    (head + RUN_BYTES_MIN <= end).then_some((head, end))
}

impl Target {
    /// Lets `work` write content through a [`Sink`]; when this returns it is all written, though
    /// not durable.
    ///
    /// # Errors
    /// Whatever `work` fails with; else the first failure to write.
    pub fn writing<R, E: From<TargetError>>(
        &self,
        work: impl FnOnce(&Sink<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        let failure = Failure::default();
        let (jobs, waiting) = sync_channel(BLOCKS);
        let (freed, free) = sync_channel(BLOCKS);
        for _ in 0..BLOCKS {
            // There is room for all of them.
            let _ = freed.try_send(Block::default());
        }
        let waiting = Mutex::new(waiting);
        let outcome = std::thread::scope(|threads| {
            for _ in 0..WRITERS {
                let freed = freed.clone();
                threads.spawn(|| self.write_jobs(&waiting, freed, &failure));
            }
            drop(freed);
            let sink = Sink { target: self, jobs, free: Mutex::new(free), failure: &failure };
            work(&sink)
        });
        match failure.first.into_inner() {
            Some(error) => outcome.and(Err(error.into())),
            None => outcome,
        }
    }

    fn write_jobs(
        &self,
        waiting: &Mutex<Receiver<Job>>,
        freed: SyncSender<Block>,
        failure: &Failure,
    ) {
        loop {
            let Ok(job) = waiting.lock().recv() else { return };
            if !failure.any.load(Ordering::Acquire)
                && let Err(error) = self.write_direct(&job)
            {
                failure.note(error);
            }
            // Nobody waits for it any more when this fails.
            let _ = freed.send(job.block);
        }
    }

    fn write_direct(&self, job: &Job) -> Result<(), TargetError> {
        let content = job.block.content();
        let mut done = 0;
        while let Some(rest) = content.get(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pwrite(&*job.direct, rest, job.offset + done as u64) {
                Ok(written) if written > 0 && written % ALIGN_BYTES == 0 => done += written,
                Err(Errno::INTR) => {}
                Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO)) => {
                    let path = job.file.path.below(self.path());
                    return Err(TargetError::io("write", &path, error));
                }
                // This file system or device wants something else.
                Ok(_) | Err(_) => {
                    self.direct_refused.store(true, Ordering::Relaxed);
                    return self.write_at(&job.file, job.offset + done as u64, rest);
                }
            }
        }
        Ok(())
    }

    /// The file opened to be written past the page cache, if that is to be done and can be.
    fn opened_direct(&self, file: &TargetFile) -> Option<Arc<OwnedFd>> {
        let fit = file.existing_bytes == 0 && file.bytes >= FILE_BYTES_MIN;
        if !fit || self.options.zeros_to_holes || self.direct_refused.load(Ordering::Relaxed) {
            return None;
        }
        if let Some(open) = self.open_direct.get(file.id) {
            return Some(open);
        }
        // The path leads to the very file that is open already.
        let open = self.opened(file).ok()?;
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        match rustix::fs::open(proc_path(&open), flags, Mode::empty()) {
            Ok(direct) => Some(self.open_direct.put(file.id, direct)),
            Err(_) => {
                self.direct_refused.store(true, Ordering::Relaxed);
                None
            }
        }
    }
}

impl Sink<'_> {
    /// The threads that write have ended before their time.
    fn gone(&self, file: &TargetFile) -> TargetError {
        TargetError::io("write", &file.path.below(self.target.path()), Errno::IO)
    }

    /// Writes bytes at an offset unless they are there already; says whether it did. What comes of
    /// large files may still be under way.
    ///
    /// # Errors
    /// As [`Target::write_if_different`]; a failure may be of what was written before.
    pub fn write_if_different(
        &self,
        file: &TargetFile,
        offset: u64,
        bytes: &[u8],
    ) -> Result<bool, TargetError> {
        if self.failure.any.load(Ordering::Acquire)
            && let Some(error) = self.failure.first.lock().take()
        {
            return Err(error);
        }
        let Some((head, end)) = whole_blocks(offset, bytes.len()) else {
            return self.target.write_if_different(file, offset, bytes);
        };
        let Some(direct) = self.target.opened_direct(file) else {
            return self.target.write_if_different(file, offset, bytes);
        };
        self.target.check_bounds(file, offset, bytes.len() as u64)?;
        let blocks = bytes.get(head..end).unwrap_or_default();
        let mut at = offset + head as u64;
        for part in blocks.chunks(BLOCK_BYTES) {
            let Ok(mut block) = self.free.lock().recv() else { return Err(self.gone(file)) };
            block.fill(part);
            let job = Job { file: file.clone(), direct: Arc::clone(&direct), offset: at, block };
            at += part.len() as u64;
            self.jobs.send(job).map_err(|_| self.gone(file))?;
        }
        for (at, part) in [(0, bytes.get(..head)), (end, bytes.get(end..))] {
            if let Some(part) = part.filter(|part| !part.is_empty()) {
                self.target.write_at(file, offset + at as u64, part)?;
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_are_what_lies_between_the_multiples() {
        let blocks = |offset, bytes| whole_blocks(offset, bytes);
        assert_eq!(blocks(0, 65_536), Some((0, 65_536)));
        assert_eq!(blocks(1, 65_536 + 4095), Some((4095, 65_536 + 4095)));
        assert_eq!(blocks(4095, 65_538), Some((1, 65_537)));
        assert_eq!(blocks(0, 65_535), None);
        assert_eq!(blocks(1, 65_536), None);
        assert_eq!(blocks(4097, 10), None);
        assert_eq!(blocks(8192, 200_000), Some((0, 196_608)));
    }
}
