//! Reading ahead of those who decode, and handing out what they do next, in order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use parking_lot::Mutex;

use super::plan::{Batch, Part, Plan, Step};
use super::whole::WholePacks;
use crate::index::local::{ChunkPlace, PackNumber};
use crate::pipeline::budget::{Budget, Share};
use crate::repo::chunks::ChunkReader;
use crate::timings::{Stage, Timings};

/// What is read ahead of the workers, sealed bytes; a single batch may be longer.
pub(super) const READ_AHEAD_BYTES_MAX: usize = 32 << 20;
/// Batches that are read and wait for a worker.
const BATCHES_READ_MAX: usize = 2;

/// Bytes of a pack, from an offset on.
pub(super) struct Piece {
    pack: PackNumber,
    pub(super) offset: u64,
    pub(super) sealed: Bytes,
}

impl Piece {
    /// Whether a frame lies in it.
    pub(super) fn holds(&self, place: &ChunkPlace) -> bool {
        let part = Part::of(place);
        let end = self.offset + self.sealed.len() as u64;
        self.pack == part.pack && self.offset <= part.start && part.end <= end
    }
}

/// A batch with its sealed bytes; what could not be read is not among them.
pub(super) struct ReadBatch<'p> {
    batch: &'p Batch,
    pub(super) pieces: Vec<Piece>,
}

/// A batch on its way to the workers.
pub(super) struct Sent<'p> {
    number: usize,
    read: ReadBatch<'p>,
    /// Until a worker takes it up.
    share: Share<'p>,
}

/// Reads batches, and what else is needed.
pub(super) struct Reading<'s, 'r> {
    pub(super) reader: &'s ChunkReader<'r>,
    pub(super) plan: &'s Plan,
    pub(super) whole: &'s WholePacks<'s, 'r>,
    /// What is read ahead.
    pub(super) ahead: &'s Budget,
    /// The batch that is read next.
    pub(super) next: Mutex<usize>,
}

impl<'s> Reading<'s, '_> {
    /// Reads batches until there are no more, or `stop` is set.
    pub(super) fn read_ahead(&self, sender: &SyncSender<Sent<'s>>, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            // Shares go out in the order of the batches, which is that in which they come back: so
            // no batch waits for one that can only be taken up after it.
            let mut next = self.next.lock();
            let number = *next;
            let Some(batch) = self.plan.batches.get(number) else { return };
            *next += 1;
            let share = self.ahead.share(usize::try_from(batch.bytes()).unwrap_or(usize::MAX));
            drop(next);
            let sent = Sent { number, read: self.read(batch), share };
            let _waiting = self.reader.timings().waiting(Stage::Fetch);
            if sender.send(sent).is_err() {
                return;
            }
        }
    }

    fn read(&self, batch: &'s Batch) -> ReadBatch<'s> {
        let mut pieces = Vec::with_capacity(batch.parts.len());
        for piece in batch.parts.iter().filter_map(|part| self.piece(*part)) {
            self.whole.add(piece.pack, piece.offset, &piece.sealed);
            pieces.push(piece);
        }
        ReadBatch { batch, pieces }
    }

    /// The sealed bytes of one frame.
    pub(super) fn frame(&self, place: &ChunkPlace) -> Option<Piece> {
        self.piece(Part::of(place))
    }

    fn piece(&self, part: Part) -> Option<Piece> {
        let pack = self.plan.packs.get(&part.pack)?;
        let (offset, sealed) = self.reader.range(pack, part.start, part.end).ok()?;
        if !self.reader.repository().store().is_near() {
            // Here, so that no worker waits for it; what is wrong with it they find out.
            let _opener = self.reader.opener(pack);
        }
        Some(Piece { pack: part.pack, offset, sealed })
    }
}

/// Steps for the workers, in order, however the batches come.
pub(super) struct Queue<'p> {
    receiver: Receiver<Sent<'p>>,
    /// Batches that came before their turn.
    early: BTreeMap<usize, Sent<'p>>,
    /// The batch that comes next.
    next: usize,
    current: Option<Arc<ReadBatch<'p>>>,
    /// Of the current batch.
    steps: Range<usize>,
}

impl<'p> Queue<'p> {
    /// An empty queue, and where batches go into it.
    pub(super) fn new() -> (SyncSender<Sent<'p>>, Self) {
        let (sender, receiver) = sync_channel(BATCHES_READ_MAX);
        (sender, Self { receiver, early: BTreeMap::new(), next: 0, current: None, steps: 0..0 })
    }

    /// The next step, with what was read for it; waits for that. `None` when there are no more.
    pub(super) fn next(
        &mut self,
        plan: &Plan,
        timings: &Timings,
    ) -> Option<(Step, Arc<ReadBatch<'p>>)> {
        loop {
            if let (Some(number), Some(read)) = (self.steps.next(), &self.current) {
                let step = plan.steps.get(number)?;
                return Some((*step, Arc::clone(read)));
            }
            self.current = None;
            let waiting = timings.waiting(Stage::Decode);
            while !self.early.contains_key(&self.next)
                && let Ok(sent) = self.receiver.recv()
            {
                self.early.insert(sent.number, sent);
            }
            drop(waiting);
            // When everything has come and one is missing, its reader has failed.
            let Sent { number, read, share } = self.early.pop_first()?.1;
            drop(share);
            self.next = number + 1;
            self.steps = read.batch.steps.clone();
            self.current = Some(Arc::new(read));
        }
    }
}
