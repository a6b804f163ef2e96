//! What leaves the feeder, in its order: batches of chunks to the workers, steps to the assembler.

use std::sync::mpsc::Sender;

use cairn_format::names::PackKind;
use cairn_format::tree::Extent;
use parking_lot::Mutex;

use crate::context::Counter;
use crate::error::Error;
use crate::ops::backup::assemble::{FileNumber, Message, Step};
use crate::pipeline::budget::Budget;
use crate::pipeline::failure::Failure;
use crate::pipeline::ingest::{Batch, Ingest};
use crate::repo::Vault;
use crate::timings::Stage;

/// Batches under way to and in the workers, bytes.
const BATCHES_BYTES_MAX: usize = 24 << 20;
/// Steps under way to the assembler.
const STEPS_MAX: usize = 8192;
/// Messages to the assembler that are sent at once.
const OUTBOX_MAX: usize = 256;
/// Emptied batches kept for reuse.
const SPARE_BATCHES_MAX: usize = 12;

/// What feeder and workers share.
pub struct Shared<'a> {
    pub ingest: &'a Ingest<'a>,
    pub vault: &'a Vault,
    pub steps: Budget,
    batches: Budget,
    failure: &'a Failure,
    spare: Mutex<Vec<Batch>>,
}

impl<'a> Shared<'a> {
    /// Nothing under way yet. Why a task fails is noted in `failure`.
    pub fn new(ingest: &'a Ingest<'a>, vault: &'a Vault, failure: &'a Failure) -> Self {
        Self {
            ingest,
            vault,
            steps: Budget::new(STEPS_MAX),
            batches: Budget::new(BATCHES_BYTES_MAX),
            failure,
            spare: Mutex::default(),
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        self.failure.check()?;
        self.vault.check_cancelled()
    }

    /// What a worker does with a batch.
    fn work(&self, filled: Filled, messages: &Sender<Vec<Message>>) {
        let Filled { mut batch, parts } = filled;
        let bytes = batch.data.len();
        let stored = self.failure.check().and_then(|()| self.ingest.store(PackKind::Data, &batch));
        match stored {
            Ok(ids) => {
                let mut known = ids.into_iter().zip(batch.chunks.iter().copied());
                let parts = parts.into_iter().map(|Part { file, part, chunks }| {
                    let extents = known.by_ref().take(chunks);
                    let extents = extents.map(|(id, bytes)| Extent::Chunk { id, bytes }).collect();
                    Message::Part { file, part, extents }
                });
                // The assembler is gone only when the backup has failed already.
                let _ = messages.send(parts.collect());
            }
            Err(error) => {
                self.failure.note(error);
                let _ = messages.send(vec![Message::Failed]);
            }
        }
        batch.data.clear();
        batch.chunks.clear();
        batch.hints.clear();
        let mut spare = self.spare.lock();
        if spare.len() < SPARE_BATCHES_MAX {
            spare.push(batch);
        }
        drop(spare);
        self.batches.give(bytes);
    }
}

/// A run of chunks of one file in a batch.
pub(super) struct Part {
    pub(super) file: FileNumber,
    pub(super) part: u32,
    pub(super) chunks: usize,
}

/// A batch, and which file each run of its chunks belongs to.
struct Filled {
    batch: Batch,
    parts: Vec<Part>,
}

/// Where a feeder puts what it has read. Workers run in `scope`.
pub(super) struct Outlet<'a, 's, 'scope> {
    pub(super) shared: &'scope Shared<'a>,
    scope: &'s rayon::Scope<'scope>,
    messages: Sender<Vec<Message>>,
    /// What is to be sent next.
    outbox: Vec<Message>,
    /// What is being filled.
    pub(super) batch: Batch,
    /// Whose chunks are in it.
    pub(super) parts: Vec<Part>,
    /// Bytes read into batches.
    pub(super) bytes_read: u64,
}

impl<'a, 's, 'scope> Outlet<'a, 's, 'scope>
where
    'a: 'scope,
{
    /// Nothing in it yet.
    pub(super) fn new(
        shared: &'scope Shared<'a>,
        scope: &'s rayon::Scope<'scope>,
        messages: Sender<Vec<Message>>,
    ) -> Self {
        Self {
            shared,
            scope,
            messages,
            outbox: Vec::new(),
            batch: Batch::default(),
            parts: Vec::new(),
            bytes_read: 0,
        }
    }

    /// Forgets bytes that are in no chunk, and chunks that are in no part: their file is given up.
    pub(super) fn drop_uncut(&mut self) {
        let chunks = self.parts.iter().map(|part| part.chunks).sum();
        self.batch.chunks.truncate(chunks);
        self.batch.hints.truncate(chunks);
        let bytes = self.batch.chunks.iter().map(|bytes| *bytes as usize).sum();
        self.batch.data.truncate(bytes);
    }

    /// Hands the current batch over, up to `bytes`; what is behind them moves to the next.
    pub(super) fn next_batch(&mut self, bytes: usize) -> Result<(), Error> {
        let tail = self.batch.data.get(bytes..).unwrap_or_default();
        let mut next = self.shared.spare.lock().pop().unwrap_or_default();
        next.data.extend_from_slice(tail);
        self.batch.data.truncate(bytes);
        self.hand_over(next)
    }

    /// Hands the current batch over; no file is being cut.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        let next = self.shared.spare.lock().pop().unwrap_or_default();
        self.hand_over(next)
    }

    fn hand_over(&mut self, next: Batch) -> Result<(), Error> {
        self.shared.check()?;
        let batch = std::mem::replace(&mut self.batch, next);
        let parts = std::mem::take(&mut self.parts);
        if batch.chunks.is_empty() {
            return Ok(());
        }
        // Before the parts, which must not come before the file they belong to.
        self.send()?;
        let waiting = self.shared.vault.context.timings.waiting(Stage::Read);
        self.shared.batches.take(batch.data.len());
        drop(waiting);
        let (shared, messages) = (self.shared, self.messages.clone());
        self.scope.spawn(move |_| shared.work(Filled { batch, parts }, &messages));
        Ok(())
    }

    pub(super) fn step(&mut self, step: Step) -> Result<(), Error> {
        if !self.shared.steps.try_take(1) {
            // The assembler may be waiting for what is in the current batch. While a file is
            // being cut no step is sent, so the batch holds whole chunks only.
            self.flush()?;
            self.send()?;
            self.shared.steps.take(1);
        }
        self.post(Message::Step(step))
    }

    pub(super) fn post(&mut self, message: Message) -> Result<(), Error> {
        self.outbox.push(message);
        if self.outbox.len() < OUTBOX_MAX { Ok(()) } else { self.send() }
    }

    pub(super) fn send(&mut self) -> Result<(), Error> {
        let messages = std::mem::take(&mut self.outbox);
        self.messages.send(messages).map_err(|_| Error::Cancelled)
    }

    pub(super) fn count(&self, counter: Counter, amount: u64) {
        self.shared.vault.monitor().count(counter, amount);
    }
}
