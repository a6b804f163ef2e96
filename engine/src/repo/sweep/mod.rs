//! Decodes many frames, each of them once: a frame that others were compressed against is decoded
//! when its neighbours in the pack are, and what needs it follows at once.
//!
//! Whatever does not go smoothly here (something missing, damaged or moved) is left to the caller,
//! who has [`ChunkReader::fetch`]'s careful way for it. So nothing here tells damage apart.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_format::limits::FRAME_BASE_BYTES_MAX;
use parking_lot::Mutex;

use self::kept::{Claim, Found, Kept};
use self::plan::{BasePart, Plan, Step, distinct};
use self::queue::{Piece, Queue, READ_AHEAD_BYTES_MAX, ReadBatch, Reading};
use self::whole::WholePacks;
use super::chunks::ChunkReader;
use crate::error::Error;
use crate::index::local::{ChunkPlace, PackNumber};
use crate::pipeline::budget::Budget;

mod kept;
mod plan;
mod queue;
mod whole;

/// Sealed bytes read with one request, at most; a single frame may be longer.
const READ_BYTES_MAX: u64 = 4 << 20;
/// Bytes between two wanted frames that are read rather than skipped.
const READ_GAP_BYTES: u64 = 64 << 10;
/// Threads that read ahead from a store on this machine, and from one behind a network.
const READERS_NEAR: usize = 1;
const READERS_FAR: usize = 16;
/// Frames whose bases one thread looks up.
const LOOKUP_FRAMES_MIN: usize = 16;

/// A frame that is wanted.
pub struct FrameTask<J> {
    /// Where it lies; `offset` and `bytes` do not count.
    pub place: ChunkPlace,
    /// What it is wanted for.
    pub job: J,
}

/// Receives the plaintext of a frame, and says whether it is what it should be.
pub type Receive<'a, J> = &'a (dyn Fn(&FrameTask<J>, &[u8]) -> Result<bool, Error> + Sync);

/// Buffers of one worker.
#[derive(Default)]
struct Buffers {
    scratch: Vec<u8>,
    plain: Vec<u8>,
    prefix: Vec<u8>,
}

impl ChunkReader<'_> {
    /// Decodes frames on all cores, reading ahead, and shows each to `receive`, in no certain
    /// order. Returns the jobs of those that could not be had or were not what they should be.
    /// No two tasks may be of the same frame.
    ///
    /// # Errors
    /// Whatever `receive` fails with, and being asked to stop. Failures of the store and of the
    /// cache leave jobs over.
    pub fn sweep<J: Send + Sync>(
        &self,
        tasks: Vec<FrameTask<J>>,
        receive: Receive<'_, J>,
    ) -> Result<Vec<J>, Error> {
        self.sweep_packs(tasks, &[], receive).map(|(left, _)| left)
    }

    /// The same; reads certain packs as a whole besides, and says of each whether its bytes are
    /// those its name stands for, and its parity is what follows from them.
    ///
    /// # Errors
    /// As [`Self::sweep`].
    pub fn sweep_packs<J: Send + Sync>(
        &self,
        tasks: Vec<FrameTask<J>>,
        whole: &[PackNumber],
        receive: Receive<'_, J>,
    ) -> Result<(Vec<J>, HashMap<PackNumber, bool>), Error> {
        let plan = self.plan_sweep(&tasks, whole);
        let is_near = self.repository().store().is_near();
        let readers = if is_near { READERS_NEAR } else { READERS_FAR };
        let whole = WholePacks::new(self, whole, &plan.packs);
        let ahead = Budget::new(READ_AHEAD_BYTES_MAX);
        let sweep = Sweep {
            reader: self,
            done: tasks.iter().map(|_| AtomicBool::new(false)).collect(),
            tasks: &tasks,
            plan: &plan,
            reading: Reading {
                reader: self,
                plan: &plan,
                whole: &whole,
                ahead: &ahead,
                next: Mutex::new(0),
            },
            receive,
            kept: Kept::new(plan.users()),
            stop: AtomicBool::new(false),
        };
        sweep.run(readers)?;
        let done = sweep.done;
        whole.finish(readers.max(rayon::current_num_threads()));
        self.repository().check_cancelled()?;
        let left = tasks.into_iter().zip(done).filter(|(_, done)| !done.load(Ordering::Acquire));
        Ok((left.map(|(task, _)| task.job).collect(), whole.outcome()))
    }
}

/// A sweep under way.
struct Sweep<'s, 'r, J> {
    reader: &'s ChunkReader<'r>,
    tasks: &'s [FrameTask<J>],
    done: Vec<AtomicBool>,
    plan: &'s Plan,
    reading: Reading<'s, 'r>,
    receive: Receive<'s, J>,
    kept: Kept,
    stop: AtomicBool,
}

/// A step that somebody has taken on.
struct Taken<'k, 'p> {
    step: Step,
    read: Arc<ReadBatch<'p>>,
    /// To decode a frame that others need.
    claim: Option<Claim<'k>>,
}

impl<'s, J: Send + Sync> Sweep<'s, '_, J> {
    fn run(&self, readers: usize) -> Result<(), Error> {
        let workers = rayon::current_num_threads().min(self.plan.steps.len());
        let (sender, queue) = Queue::new();
        // Of the workers only: when all of them are gone, nobody waits for ever to send.
        let queue = Arc::new(Mutex::new(queue));
        std::thread::scope(|threads| {
            let spawn = |_| {
                let queue = Arc::clone(&queue);
                threads.spawn(move || self.work(&queue))
            };
            let workers = (0..workers).map(spawn).collect::<Vec<_>>();
            drop(queue);
            for _ in 0..readers.min(self.plan.batches.len()) {
                let sender = sender.clone();
                threads.spawn(move || self.reading.read_ahead(&sender, &self.stop));
            }
            drop(sender);
            let mut outcome = Ok(());
            for worker in workers {
                let ended = worker.join().unwrap_or(Err(Error::Internal { part: "the decoder" }));
                outcome = outcome.and(ended);
            }
            outcome
        })
    }

    fn work(&self, queue: &Mutex<Queue<'s>>) -> Result<(), Error> {
        let mut buffers = Buffers::default();
        while let Some(taken) = self.take(queue) {
            // Also after a failure everything is received: nobody may wait for ever to send.
            if self.stop.load(Ordering::Relaxed) {
                continue;
            }
            let cancelled = self.reader.repository().check_cancelled();
            if let Err(error) = cancelled.and_then(|()| self.decode(taken, &mut buffers)) {
                self.stop.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    }

    /// The next step. Whoever takes one that others need has claimed it before they can ask.
    fn take(&self, queue: &Mutex<Queue<'s>>) -> Option<Taken<'_, 's>> {
        let mut queue = queue.lock();
        let (step, read) = queue.next(self.plan, self.reader.timings())?;
        let claim = match step {
            Step::Node(number) => self.kept.claim(number),
            Step::Based(_) => None,
        };
        Some(Taken { step, read, claim })
    }

    fn decode(&self, taken: Taken<'_, '_>, buffers: &mut Buffers) -> Result<(), Error> {
        match taken.step {
            Step::Node(number) => self.decode_node(&taken.read, number, taken.claim, buffers),
            Step::Based(number) => self.decode_based(&taken.read, number, buffers),
        }
    }

    fn decode_node(
        &self,
        read: &ReadBatch<'_>,
        number: u32,
        claim: Option<Claim<'_>>,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        let Some(node) = self.plan.nodes.get(number as usize) else { return Ok(()) };
        let Buffers { scratch, plain, .. } = buffers;
        match claim {
            Some(claim) => {
                let mut plain = claim.buffer();
                if self.open(&read.pieces, &node.place, &[], scratch, &mut plain) {
                    // Before it is handed over: others may wait for it.
                    let plain = claim.keep(plain);
                    self.hand_over(node.task, &plain)?;
                }
            }
            None => {
                if node.task.is_some() && self.open(&read.pieces, &node.place, &[], scratch, plain)
                {
                    self.hand_over(node.task, plain)?;
                }
            }
        }
        Ok(())
    }

    fn decode_based(
        &self,
        read: &ReadBatch<'_>,
        number: u32,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        let Some(based) = self.plan.based.get(number as usize) else { return Ok(()) };
        let nodes = distinct(&based.parts);
        let frames = nodes.iter().map(|node| Some((*node, self.base_frame(*node)?)));
        let frames = frames.collect::<Option<HashMap<_, _>>>();
        let Buffers { scratch, plain, prefix } = buffers;
        let bases = frames.as_ref().and_then(|frames| prefix_of(&based.parts, frames, prefix));
        let opened =
            bases.is_some_and(|bases| self.open(&read.pieces, &based.place, bases, scratch, plain));
        drop(frames);
        self.kept.release(&nodes, number);
        if opened { self.hand_over(Some(based.task), plain) } else { Ok(()) }
    }

    /// A frame that is needed as a base: from memory, or read again when it had to go.
    fn base_frame(&self, number: u32) -> Option<Arc<Vec<u8>>> {
        let claim = match self.kept.get(number) {
            Found::Plain(frame) => return Some(frame),
            Found::Failed => return None,
            Found::Absent(claim) => claim,
        };
        let place = self.plan.nodes.get(number as usize)?.place;
        let pieces = [self.reading.frame(&place)?];
        let mut plain = claim.buffer();
        let opened = self.open(&pieces, &place, &[], &mut Vec::new(), &mut plain);
        opened.then(|| claim.keep(plain))
    }

    /// Opens and decompresses a frame; false when that does not succeed.
    fn open(
        &self,
        pieces: &[Piece],
        place: &ChunkPlace,
        prefix: &[u8],
        scratch: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> bool {
        let piece = pieces.iter().find(|piece| piece.holds(place));
        let (Some(pack), Some(piece)) = (self.plan.packs.get(&place.pack), piece) else {
            return false;
        };
        let Ok(opener) = self.reader.opener(pack) else { return false };
        let range = (piece.offset, &piece.sealed[..]);
        self.reader.decode_against(pack, place, &opener, range, prefix, scratch, plain).is_ok()
    }

    fn hand_over(&self, task: Option<usize>, plain: &[u8]) -> Result<(), Error> {
        if let Some(number) = task
            && let (Some(task), Some(done)) = (self.tasks.get(number), self.done.get(number))
            && (self.receive)(task, plain)?
        {
            done.store(true, Ordering::Release);
        }
        Ok(())
    }
}

/// The concatenated bases, without copying where they lie side by side in one frame; `None` when
/// they lie outside of theirs.
fn prefix_of<'f>(
    parts: &[BasePart],
    frames: &'f HashMap<u32, Arc<Vec<u8>>>,
    buffer: &'f mut Vec<u8>,
) -> Option<&'f [u8]> {
    let (first, last) = (parts.first()?, parts.last()?);
    let side_by_side = parts.windows(2).all(|pair| match pair {
        [a, b] => a.node == b.node && a.offset.checked_add(a.bytes) == Some(b.offset),
        _ => false,
    });
    let end = |part: &BasePart| part.offset as usize + part.bytes as usize;
    if side_by_side {
        return frames.get(&first.node)?.get(first.offset as usize..end(last));
    }
    buffer.clear();
    let bytes = parts.iter().map(|part| u64::from(part.bytes)).sum::<u64>();
    if bytes > u64::from(FRAME_BASE_BYTES_MAX) {
        return None;
    }
    for part in parts {
        buffer.extend_from_slice(frames.get(&part.node)?.get(part.offset as usize..end(part))?);
    }
    Some(buffer)
}
