//! Uploads finished packs beside everything else, a few at a time, and names them in index
//! segments from time to time, so that an interrupted backup has lost little and memory stays flat.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_format::ids::PackId;
use cairn_format::names::ObjectName;
use cairn_format::segment::PackSection;
use parking_lot::{Condvar, Mutex};

use super::inflight::InFlight;
use crate::collect::lease::HeldLease;
use crate::context::Counter;
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::segments;
use crate::pack::builder::BuiltPack;
use crate::repo::Vault;

/// Packs waiting or being uploaded at once. Each holds its bytes in memory.
const PACKS_UNDER_WAY_MAX: usize = 2;
/// Threads that upload.
pub const UPLOAD_THREADS: usize = 2;
/// Chunks after which the packs so far are named in a segment.
const CHUNKS_PER_SEGMENT: usize = 100_000;
/// Buffers of packs kept for reuse.
const SPARE_BUFFERS_MAX: usize = 2;

#[derive(Default)]
struct Queue {
    waiting: VecDeque<BuiltPack>,
    uploading: usize,
    closed: bool,
    failure: Option<Error>,
    failed: bool,
}

/// Takes finished packs to the store.
pub struct Uploader<'a> {
    vault: &'a Vault,
    catalog: &'a Catalog,
    in_flight: &'a InFlight,
    queue: Mutex<Queue>,
    changed: Condvar,
    unnamed: Mutex<Unnamed>,
    spare: Mutex<Vec<Vec<u8>>>,
    bytes_stored: AtomicU64,
    lease: &'a HeldLease<'a>,
    packs: Mutex<Vec<PackId>>,
}

/// Packs that are durable and in no segment yet.
#[derive(Default)]
struct Unnamed {
    sections: Vec<PackSection>,
    chunks: usize,
}

impl<'a> Uploader<'a> {
    /// An uploader without work; [`Self::run`] must be running on [`UPLOAD_THREADS`] threads.
    #[must_use]
    pub fn new(
        vault: &'a Vault,
        catalog: &'a Catalog,
        in_flight: &'a InFlight,
        lease: &'a HeldLease<'a>,
    ) -> Self {
        Self {
            vault,
            catalog,
            in_flight,
            queue: Mutex::default(),
            changed: Condvar::new(),
            unnamed: Mutex::default(),
            spare: Mutex::default(),
            bytes_stored: AtomicU64::new(0),
            lease,
            packs: Mutex::default(),
        }
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

    /// A buffer for the next pack.
    pub fn buffer(&self) -> Vec<u8> {
        self.spare.lock().pop().unwrap_or_default()
    }

    /// Hands a pack over; waits while too many are under way.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when an upload has failed: [`Self::finish`] says why.
    pub fn put(&self, pack: BuiltPack) -> Result<(), Error> {
        let mut queue = self.queue.lock();
        while !queue.failed && queue.waiting.len() + queue.uploading >= PACKS_UNDER_WAY_MAX {
            self.changed.wait(&mut queue);
        }
        if queue.failed {
            return Err(queue.failure.take().unwrap_or(Error::Cancelled));
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
                self.changed.wait(&mut queue);
            };
            let skip = queue.failed;
            drop(queue);
            let outcome = if skip { Ok(()) } else { self.upload(pack) };
            let mut queue = self.queue.lock();
            queue.uploading -= 1;
            if let Err(error) = outcome {
                queue.failed = true;
                queue.failure.get_or_insert(error);
            }
            self.changed.notify_all();
        }
    }

    fn upload(&self, pack: BuiltPack) -> Result<(), Error> {
        let BuiltPack { section, bytes } = pack;
        self.vault.store.put(&ObjectName::Pack(section.kind, section.id), &bytes)?;
        let stored = bytes.len() as u64;
        self.bytes_stored.fetch_add(stored, Ordering::Relaxed);
        self.vault.monitor().count(Counter::PacksStored, 1);
        self.vault.monitor().count(Counter::BytesStored, stored);
        {
            let mut spare = self.spare.lock();
            if spare.len() < SPARE_BUFFERS_MAX {
                spare.push(bytes);
            }
        }
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

    /// After all threads ended: names the remaining packs and returns the bytes stored.
    ///
    /// # Errors
    /// Why an upload failed.
    pub fn finish(&self) -> Result<u64, Error> {
        {
            let mut queue = self.queue.lock();
            if queue.failed {
                return Err(queue.failure.take().unwrap_or(Error::Cancelled));
            }
        }
        let rest = std::mem::take(&mut *self.unnamed.lock());
        self.name(rest.sections)?;
        Ok(self.bytes_stored.load(Ordering::Relaxed))
    }

    /// Why an upload failed, if one did and nobody has heard of it yet.
    #[must_use]
    pub fn take_failure(&self) -> Option<Error> {
        self.queue.lock().failure.take()
    }
}

fn chunks_of(section: &PackSection) -> usize {
    section.frames.iter().map(|frame| frame.chunks.len()).sum()
}
