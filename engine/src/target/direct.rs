//! Large new files are written past the page cache.
//!
//! What is restored must reach the medium before the restore says so, and is rarely read again at
//! once: copying it into the page cache costs more than half of the processor time of such a
//! restore, drives out what others use, and leaves all writing to the end. So whole blocks are
//! copied to aligned buffers and written by threads of their own while others decode. Content is put
//! together by regions of a mebibyte first; of those that stay incomplete whole blocks are written,
//! and blocks that come in pieces are put together. Blocks that stay incomplete go through the page
//! cache, and no block goes both ways. Where the file system does not do this, everything goes
//! through it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::create::{Target, proc_path};
use super::edges::{Edge, Edges, OutOfBlock};
use super::error::TargetError;
use super::file::TargetFile;
use super::line::{Giver, Line};
use super::regions::{Added, OPEN_MAX, Region, Regions, by_region};
use crate::timings::Stage;

/// What offsets, lengths and memory are multiples of: no common device has larger blocks.
const ALIGN_BYTES: usize = 4096;
/// Written at once.
pub(super) const REGION_BYTES: usize = 1 << 20;
/// Buffers of this length: those that are being filled, and those on their way into a file.
const BLOCKS: usize = OPEN_MAX + 8;
/// Threads that write: each waits for the device most of the time, and devices are fast only when
/// they are given much at once.
const WRITERS: usize = 8;
/// Files from this length on are written so; smaller ones are read soon or cost little.
const FILE_BYTES_MIN: u64 = 4 << 20;

/// Memory to be written, at an aligned address.
#[derive(Default)]
pub(super) struct Block {
    memory: Vec<u8>,
    start: usize,
}

impl Block {
    /// Puts content at a place; what does not fit is left out.
    pub(super) fn put(&mut self, at: usize, content: &[u8]) {
        if self.memory.is_empty() {
            self.memory = vec![0; REGION_BYTES + ALIGN_BYTES];
            self.start = self.memory.as_ptr().align_offset(ALIGN_BYTES).min(ALIGN_BYTES);
        }
        let room = self.memory.get_mut(self.start + at..self.start + at + content.len());
        if let Some(room) = room {
            room.copy_from_slice(content);
        }
    }

    pub(super) fn content(&self, range: Range<usize>) -> &[u8] {
        self.memory.get(self.start + range.start..self.start + range.end).unwrap_or_default()
    }
}

/// Whole blocks on their way into a file.
struct Job {
    file: TargetFile,
    direct: Arc<OwnedFd>,
    /// Where the memory belongs in the file, bytes.
    offset: u64,
    block: Block,
    /// What of it is to be written.
    ranges: Vec<Range<usize>>,
}

/// Takes content for files; see [`Target::writing`].
pub struct Sink<'t> {
    target: &'t Target,
    jobs: Giver<'t, Job>,
    free: &'t Line<Block>,
    regions: Mutex<Regions>,
    edges: Mutex<Edges>,
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

/// Cuts a run into the end of a block, whole blocks, and the beginning of a block.
fn split(offset: u64, bytes: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let in_block = usize::try_from(offset % ALIGN_BYTES as u64).unwrap_or_default();
    let head = (ALIGN_BYTES - in_block) % ALIGN_BYTES;
    let (head, rest) = bytes.split_at(head.min(bytes.len()));
    let (blocks, tail) = rest.split_at(rest.len() - rest.len() % ALIGN_BYTES);
    (head, blocks, tail)
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
        let jobs = Line::new([]);
        let free = Line::new((0..BLOCKS).map(|_| Block::default()));
        let outcome = std::thread::scope(|threads| {
            let sink = Sink {
                target: self,
                jobs: jobs.giver(),
                free: &free,
                regions: Mutex::default(),
                edges: Mutex::default(),
                failure: &failure,
            };
            for _ in 0..WRITERS {
                let (freed, jobs, failure) = (free.giver(), &jobs, &failure);
                threads.spawn(move || self.write_jobs(jobs, &freed, failure));
            }
            let outcome = work(&sink);
            match sink.finish() {
                Err(error) if outcome.is_ok() => Err(error.into()),
                _ => outcome,
            }
        });
        match failure.first.into_inner() {
            Some(error) => outcome.and(Err(error.into())),
            None => outcome,
        }
    }

    fn write_jobs(&self, jobs: &Line<Job>, freed: &Giver<'_, Block>, failure: &Failure) {
        while let Some(job) = jobs.take() {
            for range in &job.ranges {
                if !failure.any.load(Ordering::Acquire)
                    && let Err(error) = self.write_direct(&job, range)
                {
                    failure.note(error);
                }
            }
            freed.give(job.block);
        }
    }

    fn write_direct(&self, job: &Job, range: &Range<usize>) -> Result<(), TargetError> {
        let content = job.block.content(range.clone());
        let offset = job.offset + range.start as u64;
        let _writing = self.timings.span(Stage::Write, content.len() as u64);
        let mut done = 0;
        while let Some(rest) = content.get(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pwrite(&*job.direct, rest, offset + done as u64) {
                Ok(written) if written > 0 && written % ALIGN_BYTES == 0 => done += written,
                Err(Errno::INTR) => {}
                Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO)) => {
                    let path = job.file.path.below(self.path());
                    return Err(TargetError::io("write", &path, error));
                }
                // This file system or device wants something else.
                Ok(_) | Err(_) => {
                    self.direct_refused.store(true, Ordering::Relaxed);
                    return self.write_at(&job.file, offset + done as u64, rest);
                }
            }
        }
        Ok(())
    }

    /// Lets the file system lay out a file that will be written wholly, without holes: finding room
    /// for every block by itself costs twice the time of writing it. Only advice: where it fails,
    /// writing shows what is wrong.
    pub fn reserve(&self, file: &TargetFile) {
        if let (Some(_), Ok(open)) = (self.opened_direct(file), self.opened(file)) {
            let flags = FallocateFlags::KEEP_SIZE;
            let _advice = rustix::fs::fallocate(&*open, flags, 0, file.bytes);
        }
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
    /// What cannot be: the threads that write have ended, or a piece lies where it was not cut.
    fn gone(&self, file: &TargetFile) -> TargetError {
        TargetError::io("write", &file.path.below(self.target.path()), Errno::IO)
    }

    /// Writes bytes at an offset unless they are there already; says whether it did. What comes of
    /// large files may still be under way. No byte of a file may be written twice.
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
        let Some(direct) = self.target.opened_direct(file) else {
            let _writing = self.target.timings.span(Stage::Write, bytes.len() as u64);
            return self.target.write_if_different(file, offset, bytes);
        };
        self.target.check_bounds(file, offset, bytes.len() as u64)?;
        for (at, piece) in by_region(offset, bytes) {
            self.put(file, &direct, at, piece)?;
        }
        Ok(true)
    }

    /// Puts a piece into its region; writes the region when it is complete, or an older one when
    /// there are too many. Nobody waits for memory who holds some.
    fn put(
        &self,
        file: &TargetFile,
        direct: &Arc<OwnedFd>,
        offset: u64,
        piece: &[u8],
    ) -> Result<(), TargetError> {
        let mut regions = self.regions.lock();
        let mut added = regions.add(file, offset, piece);
        let mut oldest = None;
        if matches!(added, Added::NoRegion) {
            drop(regions);
            let block = self.free_block(file)?;
            regions = self.regions.lock();
            added = regions.add(file, offset, piece);
            if matches!(added, Added::NoRegion) {
                oldest = regions.open(Region::new(file, direct, offset, block));
                added = regions.add(file, offset, piece);
            } else {
                // Another one has opened it meanwhile.
                self.free.put(block);
            }
        }
        drop(regions);
        let complete = match added {
            Added::Complete(region) => Some(region),
            Added::Partly | Added::NoRegion => None,
        };
        complete.into_iter().chain(oldest).try_for_each(|region| self.write_region(region))
    }

    /// Writes what is known of a region: whole blocks at once, and parts of blocks when these are
    /// complete.
    fn write_region(&self, region: Region) -> Result<(), TargetError> {
        let (Region { file, direct, offset, block, .. }, known) = region.known();
        let (mut ranges, mut parts) = (Vec::with_capacity(known.len()), Vec::new());
        for range in known {
            let at = offset + range.start as u64;
            let content = block.content(range.clone());
            let (head, blocks, tail) = split(at, content);
            let from = range.start + head.len();
            if !blocks.is_empty() {
                ranges.push(from..from + blocks.len());
            }
            for (at, part) in [(at, head), (offset + (from + blocks.len()) as u64, tail)] {
                if !part.is_empty() {
                    parts.push((at, part.to_vec()));
                }
            }
        }
        let again = Arc::clone(&direct);
        self.jobs.give(Job { file: file.clone(), direct, offset, block, ranges });
        parts.into_iter().try_for_each(|(at, part)| self.gather(&file, &again, at, &part))
    }

    /// Adds part of a block; writes the block when it is complete.
    fn gather(
        &self,
        file: &TargetFile,
        direct: &Arc<OwnedFd>,
        offset: u64,
        piece: &[u8],
    ) -> Result<(), TargetError> {
        let mut edges = self.edges.lock();
        let complete =
            edges.add(file, offset, piece, ALIGN_BYTES).map_err(|OutOfBlock| self.gone(file))?;
        let too_many = edges.drain(false);
        drop(edges);
        self.write_edges(too_many)?;
        match complete {
            Some(edge) if edge.block.len() == ALIGN_BYTES => {
                let mut block = self.free_block(file)?;
                block.put(0, &edge.block);
                let (file, direct, offset) = (edge.file, Arc::clone(direct), edge.offset);
                let ranges = std::iter::once(0..ALIGN_BYTES).collect();
                self.jobs.give(Job { file, direct, offset, block, ranges });
                Ok(())
            }
            // The last block of a file is shorter.
            Some(edge) => self.write_edges(vec![edge]),
            None => Ok(()),
        }
    }

    /// Memory that is free; waits for it.
    fn free_block(&self, file: &TargetFile) -> Result<Block, TargetError> {
        let _waiting = self.target.timings.waiting(Stage::Write);
        self.free.take().ok_or_else(|| self.gone(file))
    }

    /// Writes what is left.
    fn finish(&self) -> Result<(), TargetError> {
        let rest = self.regions.lock().drain();
        rest.into_iter().try_for_each(|region| self.write_region(region))?;
        let rest = self.edges.lock().drain(true);
        self.write_edges(rest)
    }

    /// Writes parts of blocks through the page cache.
    fn write_edges(&self, edges: Vec<Edge>) -> Result<(), TargetError> {
        for edge in edges {
            for (offset, piece) in edge.pieces() {
                let _writing = self.target.timings.span(Stage::Write, piece.len() as u64);
                self.target.write_at(&edge.file, offset, piece)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_split_where_blocks_begin_and_end() {
        let run = vec![7; 20_000];
        let lengths = |offset, bytes: usize| {
            let (head, blocks, tail) = split(offset, &run[..bytes]);
            (head.len(), blocks.len(), tail.len())
        };
        assert_eq!(lengths(0, 8192), (0, 8192, 0));
        assert_eq!(lengths(1, 8192), (4095, 4096, 1));
        assert_eq!(lengths(4095, 4098), (1, 4096, 1));
        assert_eq!(lengths(10, 20), (20, 0, 0));
        assert_eq!(lengths(4090, 20), (6, 0, 14));
        assert_eq!(lengths(8192, 20_000), (0, 16_384, 3616));
    }
}
