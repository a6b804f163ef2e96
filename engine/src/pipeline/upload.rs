//! Uploads finished packs beside everything else, a few at a time, and names them in index
//! segments from time to time, so that an interrupted backup has lost little and memory stays flat.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cairn_format::ids::PackId;
use cairn_format::names::ObjectName;
use cairn_format::segment::PackSection;
use parking_lot::{Condvar, Mutex};

use super::failure::Failure;
use super::inflight::InFlight;
use crate::collect::lease::HeldLease;
use crate::context::Counter;
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::segments;
use crate::pack::builder::BuiltPack;
use crate::repo::Vault;
use crate::timings::Stage;

/// Packs waiting or being uploaded at once. Each holds its bytes in memory.
const PACKS_UNDER_WAY_MAX: usize = 2;
/// Threads that upload.
pub const UPLOAD_THREADS: usize = 2;
/// Chunks after which the packs so far are named in a segment.
const CHUNKS_PER_SEGMENT: usize = 100_000;
/// Buffers of packs: being filled, waiting, under way, and kept for reuse. They are most of the
/// memory of a backup.
const BUFFERS_MAX: usize = 3;

/// Two may be filled at once, of data and of nodes; the others are on their way and come back.
const _: () = assert!(BUFFERS_MAX > 2);

/// Is shown packs as they become durable.
pub trait PackTap: Send + Sync {
    /// A pack was put. Must not wait for anything: the backup does so meanwhile. Bytes that are held on to
    /// are so beside the buffers of the backup.
    fn show(&self, section: &PackSection, bytes: &Bytes);
}

#[derive(Default)]
struct Buffers {
    /// In use.
    used: usize,
    spare: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<BuiltPack>,
    uploading: usize,
    closed: bool,
    failed: bool,
}

/// Takes finished packs to the store.
pub struct Uploader<'a> {
    vault: &'a Vault,
    catalog: &'a Catalog,
    in_flight: &'a InFlight,
    failure: &'a Failure,
    queue: Mutex<Queue>,
    changed: Condvar,
    unnamed: Mutex<Unnamed>,
    buffers: Mutex<Buffers>,
    buffer_freed: Condvar,
    bytes_stored: AtomicU64,
    lease: &'a HeldLease<'a>,
    packs: Mutex<Vec<PackId>>,
    tap: Option<Arc<dyn PackTap>>,
}

/// Packs that are durable and in no segment yet.
#[derive(Default)]
struct Unnamed {
    sections: Vec<PackSection>,
    chunks: usize,
}

impl<'a> Uploader<'a> {
    /// An uploader without work; [`Self::run`] must be running on [`UPLOAD_THREADS`] threads. Why
    /// an upload fails is noted in `failure`.
    #[must_use]
    pub fn new(
        vault: &'a Vault,
        catalog: &'a Catalog,
        in_flight: &'a InFlight,
        failure: &'a Failure,
        lease: &'a HeldLease<'a>,
    ) -> Self {
        Self {
            vault,
            catalog,
            in_flight,
            failure,
            queue: Mutex::default(),
            changed: Condvar::new(),
            unnamed: Mutex::default(),
            buffers: Mutex::default(),
            buffer_freed: Condvar::new(),
            bytes_stored: AtomicU64::new(0),
            lease,
            packs: Mutex::default(),
            tap: None,
        }
    }

    /// Shows each pack that is put to `tap`.
    #[must_use]
    pub fn shown_to(mut self, tap: Option<Arc<dyn PackTap>>) -> Self {
        self.tap = tap;
        self
    }

    /// Packs that an earlier, interrupted run left: they are named with the next segment.
    pub fn adopt(&self, sections: Vec<PackSection>) {
        self.packs.lock().extend(sections.iter().map(|section| section.id));
        let mut unnamed = self.unnamed.lock();
        unnamed.chunks += sections.iter().map(chunks_of).sum::<usize>();
        unnamed.sections.extend(sections);
    }

    /// The packs stored or taken over so far.
    #[must_use]
    pub fn packs(&self) -> Vec<PackId> {
        self.packs.lock().clone()
    }

    /// A buffer for the next pack; waits while too many are in use. It comes back when the pack is
    /// uploaded.
    pub fn buffer(&self) -> Vec<u8> {
        let mut buffers = self.buffers.lock();
        while buffers.used >= BUFFERS_MAX {
            self.buffer_freed.wait(&mut buffers);
        }
        buffers.used += 1;
        buffers.spare.pop().unwrap_or_default()
    }

    /// Takes a buffer back, or notes that one is lost (any other will do).
    pub fn free(&self, buffer: Vec<u8>) {
        let mut buffers = self.buffers.lock();
        buffers.used = buffers.used.saturating_sub(1);
        if buffers.used + buffers.spare.len() < BUFFERS_MAX {
            buffers.spare.push(buffer);
        }
        self.buffer_freed.notify_all();
    }

    /// Hands a pack over; waits while too many are under way.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when an upload has failed.
    pub fn put(&self, pack: BuiltPack) -> Result<(), Error> {
        let mut queue = self.queue.lock();
        while !queue.failed && queue.waiting.len() + queue.uploading >= PACKS_UNDER_WAY_MAX {
            self.changed.wait(&mut queue);
        }
        if queue.failed {
            drop(queue);
            self.free(pack.bytes);
            return Err(Error::Cancelled);
        }
        queue.waiting.push_back(pack);
        self.changed.notify_all();
        Ok(())
    }

    /// Uploads until [`Self::close`] and everything is done.
    pub fn run(&self) {
        loop {
            let mut queue = self.queue.lock();
            let pack = loop {
                if let Some(pack) = queue.waiting.pop_front() {
                    queue.uploading += 1;
                    break pack;
                }
                if queue.closed {
                    return;
                }
                let _waiting = self.vault.context.timings.waiting(Stage::Upload);
                self.changed.wait(&mut queue);
            };
            let skip = queue.failed;
            drop(queue);
            let BuiltPack { section, bytes } = pack;
            let capacity = bytes.capacity();
            let bytes = Bytes::from(bytes);
            let outcome = if skip { Ok(()) } else { self.upload(section, &bytes, capacity) };
            // Who was shown them may need them for longer.
            self.free(if bytes.is_unique() { bytes.into() } else { Vec::new() });
            let mut queue = self.queue.lock();
            queue.uploading -= 1;
            if let Err(error) = outcome {
                queue.failed = true;
                self.failure.note(error);
            }
            self.changed.notify_all();
        }
    }

    fn upload(&self, section: PackSection, bytes: &Bytes, capacity: usize) -> Result<(), Error> {
        let span = self.vault.context.timings.span(Stage::Upload, bytes.len() as u64);
        self.vault.store.put(&ObjectName::Pack(section.kind, section.id), bytes)?;
        drop(span);
        if let Some(tap) = &self.tap {
            // Who holds on to bytes holds the buffer, however little of it they are.
            match bytes.len() < capacity / 2 {
                true => tap.show(&section, &Bytes::copy_from_slice(bytes)),
                false => tap.show(&section, bytes),
            }
        }
        let stored = bytes.len() as u64;
        self.bytes_stored.fetch_add(stored, Ordering::Relaxed);
        self.vault.monitor().count(Counter::PacksStored, 1);
        self.vault.monitor().count(Counter::BytesStored, stored);
        self.packs.lock().push(section.id);
        self.lease.renew();
        // First found in the index, then released: in between it counts as known either way.
        self.catalog.add_pending(&section)?;
        for chunk in section.frames.iter().flat_map(|frame| &frame.chunks) {
            self.in_flight.release(&chunk.id);
        }
        let mut unnamed = self.unnamed.lock();
        unnamed.chunks += chunks_of(&section);
        unnamed.sections.push(section);
        if unnamed.chunks >= CHUNKS_PER_SEGMENT {
            let full = std::mem::take(&mut *unnamed);
            drop(unnamed);
            self.name(full.sections)?;
        }
        Ok(())
    }

    fn name(&self, sections: Vec<PackSection>) -> Result<(), Error> {
        for (segment, packs) in segments::write(self.vault, 0, &[], sections)? {
            self.catalog.commit(segment, &packs)?;
        }
        Ok(())
    }

    /// Says that no more packs come. The threads in [`Self::run`] end when all are uploaded.
    pub fn close(&self) {
        self.queue.lock().closed = true;
        self.changed.notify_all();
    }

    /// After all threads ended and nothing failed: names the remaining packs and returns the bytes stored.
    ///
    /// # Errors
    /// Failures of the store.
    pub fn finish(&self) -> Result<u64, Error> {
        let rest = std::mem::take(&mut *self.unnamed.lock());
        self.name(rest.sections)?;
        Ok(self.bytes_stored.load(Ordering::Relaxed))
    }
}

fn chunks_of(section: &PackSection) -> usize {
    section.frames.iter().map(|frame| frame.chunks.len()).sum()
}
