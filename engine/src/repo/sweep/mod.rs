//! Decodes many frames, each of them once: a frame that others were compressed against is decoded
//! when its neighbours in the pack are, and what needs it follows at once.
//!
//! Whatever does not go smoothly here (something missing, damaged or moved) is left to the caller,
//! who has [`ChunkReader::fetch`]'s careful way for it. So nothing here tells damage apart.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use cairn_format::limits::FRAME_BASE_BYTES_MAX;
use parking_lot::Mutex;

use self::plan::{BasePart, Based, Batch, Part, Plan, distinct};
use self::whole::PackHash;
use super::chunks::ChunkReader;
use crate::context::Counter;
use crate::error::Error;
use crate::index::local::{ChunkPlace, PackNumber};
use crate::pipeline::budget::{Budget, Share};
use crate::timings::Stage;

mod plan;
mod whole;

/// Sealed bytes read with one request, at most; a single frame may be longer.
const READ_BYTES_MAX: u64 = 4 << 20;
/// Bytes between two wanted frames that are read rather than skipped.
const READ_GAP_BYTES: u64 = 64 << 10;
/// Frames with bases that one batch decodes, at most.
const BATCH_BASED_MAX: usize = 256;
/// Memory of frames that are still needed as bases, bytes.
const KEPT_BYTES_MAX: usize = 40 << 20;
/// Buffers of frames that are gone which are kept for those to come.
const SPARE_MAX: usize = 8;
/// Threads that read ahead from a store on this machine, and from one behind a network.
const READERS_NEAR: usize = 1;
const READERS_FAR: usize = 16;
/// What these read ahead of the workers, sealed bytes; a single batch may be longer.
const READ_AHEAD_BYTES_MAX: usize = 32 << 20;
/// Frames whose bases one thread looks up.
const LOOKUP_FRAMES_MIN: usize = 16;
/// Batches that are read and wait for a worker.
const BATCHES_READ_MAX: usize = 2;

/// A frame that is wanted.
pub struct FrameTask<J> {
    /// Where it lies; `offset` and `bytes` do not count.
    pub place: ChunkPlace,
    /// What it is wanted for.
    pub job: J,
}

/// Receives the plaintext of a frame, and says whether it is what it should be.
pub type Receive<'a, J> = &'a (dyn Fn(&FrameTask<J>, &[u8]) -> Result<bool, Error> + Sync);

/// Bytes of a pack, from an offset on.
struct Piece {
    pack: PackNumber,
    offset: u64,
    sealed: Bytes,
}

/// A batch with its sealed bytes; what could not be read is not among them.
struct ReadBatch<'p> {
    batch: &'p Batch,
    pieces: Vec<Piece>,
    /// Until a worker takes it up.
    share: Option<Share<'p>>,
}

impl Piece {
    fn holds(&self, part: Part) -> bool {
        let end = self.offset + self.sealed.len() as u64;
        self.pack == part.pack && self.offset <= part.start && part.end <= end
    }
}

/// Where a sealed frame lies.
fn part_of(place: &ChunkPlace) -> Part {
    let start = u64::from(place.frame_offset);
    Part { pack: place.pack, start, end: start + u64::from(place.frame_bytes) }
}

/// Frames that are still needed as bases, the oldest going first when there are too many.
#[derive(Default)]
struct Kept {
    frames: HashMap<u32, Arc<Vec<u8>>>,
    order: VecDeque<u32>,
    bytes: usize,
    /// Memory of frames that are gone, for those to come.
    spare: Vec<Vec<u8>>,
}

impl Kept {
    /// Keeps the plaintext of a frame. What is much shorter than its buffer gets one of its length:
    /// patches of some hundred bytes follow frames of megabytes.
    fn put(&mut self, node: u32, mut plain: Vec<u8>) -> Arc<Vec<u8>> {
        if plain.capacity() / 2 > plain.len() {
            let short = plain.as_slice().to_vec();
            self.reuse(std::mem::replace(&mut plain, short));
        }
        let frame = Arc::new(plain);
        self.bytes += frame.capacity();
        if let Some(old) = self.frames.insert(node, Arc::clone(&frame)) {
            self.bytes -= old.capacity();
        } else {
            self.order.push_back(node);
        }
        while self.bytes > KEPT_BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.remove(oldest);
        }
        frame
    }

    fn remove(&mut self, node: u32) {
        if let Some(frame) = self.frames.remove(&node) {
            self.bytes -= frame.capacity();
            if let Ok(plain) = Arc::try_unwrap(frame) {
                self.reuse(plain);
            }
        }
    }

    fn reuse(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(buffer);
        }
    }
}

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
        let ahead = Budget::new(READ_AHEAD_BYTES_MAX);
        let sweep = Sweep {
            reader: self,
            done: tasks.iter().map(|_| AtomicBool::new(false)).collect(),
            tasks: &tasks,
            plan: &plan,
            ahead: &ahead,
            hashes: whole
                .iter()
                .map(|pack| (*pack, Mutex::new(self.hash_of(&plan, pack))))
                .collect(),
            receive,
            kept: Mutex::default(),
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        };
        sweep.run()?;
        let sound = |(number, hash): (PackNumber, Mutex<PackHash>)| {
            let sound = plan.packs.get(&number).is_some_and(|pack| hash.into_inner().is(pack));
            (number, sound)
        };
        let sound = sweep.hashes.into_iter().map(sound).collect();
        let done = sweep.done;
        let left = tasks.into_iter().zip(done).filter(|(_, done)| !done.load(Ordering::Acquire));
        Ok((left.map(|(task, _)| task.job).collect(), sound))
    }
}

impl ChunkReader<'_> {
    /// What a pack that is read as a whole is compared with: its name, and its parity.
    fn hash_of(&self, plan: &Plan, number: &PackNumber) -> PackHash {
        let parity = self.repository().vault().config.parity;
        match parity.zip(plan.packs.get(number)) {
            Some((parity, pack)) => PackHash::with_parity(pack, parity),
            None => PackHash::default(),
        }
    }
}

/// A sweep under way.
struct Sweep<'s, 'r, J> {
    reader: &'s ChunkReader<'r>,
    tasks: &'s [FrameTask<J>],
    done: Vec<AtomicBool>,
    plan: &'s Plan,
    /// What is read ahead.
    ahead: &'s Budget,
    /// Of packs that are read as a whole.
    hashes: HashMap<PackNumber, Mutex<PackHash>>,
    receive: Receive<'s, J>,
    kept: Mutex<Kept>,
    /// The batch that is read next.
    next: AtomicUsize,
    stop: AtomicBool,
}

impl<'s, J: Send + Sync> Sweep<'s, '_, J> {
    fn run(&self) -> Result<(), Error> {
        let workers = rayon::current_num_threads().min(self.plan.batches.len());
        let readers =
            if self.reader.repository().store().is_near() { READERS_NEAR } else { READERS_FAR };
        let (sender, receiver) = sync_channel(BATCHES_READ_MAX);
        // Of the workers only: when all of them are gone, nobody waits for ever to send.
        let receiver = Arc::new(Mutex::new(receiver));
        std::thread::scope(|threads| {
            let spawn = |_| {
                let receiver = Arc::clone(&receiver);
                threads.spawn(move || self.work(&receiver))
            };
            let workers = (0..workers).map(spawn).collect::<Vec<_>>();
            drop(receiver);
            for _ in 0..readers.min(self.plan.batches.len()) {
                let sender = sender.clone();
                threads.spawn(move || self.read_ahead(&sender));
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

    fn read_ahead(&self, sender: &SyncSender<ReadBatch<'s>>) {
        while !self.stop.load(Ordering::Relaxed)
            && let Some(batch) = self.plan.batches.get(self.next.fetch_add(1, Ordering::Relaxed))
        {
            let share = self.ahead.share(self.bytes_of(batch));
            let read = ReadBatch { share: Some(share), ..self.read(batch) };
            let _waiting = self.reader.timings().waiting(Stage::Fetch);
            if sender.send(read).is_err() {
                return;
            }
        }
    }

    /// What is read for a batch, about, bytes.
    fn bytes_of(&self, batch: &Batch) -> usize {
        let part = batch.part.map_or(0, |part| part.end.saturating_sub(part.start));
        let based = self.plan.based.get(batch.based.clone()).unwrap_or_default();
        let based = based.iter().filter_map(|based| self.tasks.get(based.task));
        let based = based.map(|task| u64::from(task.place.frame_bytes)).sum::<u64>();
        usize::try_from(part.saturating_add(based)).unwrap_or(usize::MAX)
    }

    /// Reads what a batch needs; frames with bases of the same pack that lie near to each other at
    /// once.
    fn read(&self, batch: &'s Batch) -> ReadBatch<'s> {
        let mut pieces = Vec::new();
        if let Some(part) = batch.part
            && let Some(piece) = self.piece(part)
        {
            if let Some(hash) = self.hashes.get(&part.pack) {
                let mut span = self.reader.timings().span(Stage::Hash, 0);
                let new = hash.lock().add(piece.offset, &piece.sealed);
                span.bytes(new);
                drop(span);
                self.reader.repository().monitor().count(Counter::BytesVerified, new);
            }
            pieces.push(piece);
        }
        let based = self.plan.based.get(batch.based.clone()).unwrap_or_default();
        let mut places = based
            .iter()
            .filter_map(|based| self.tasks.get(based.task))
            .map(|task| task.place)
            .collect::<Vec<_>>();
        places.sort_by_key(|place| (place.pack, place.frame_offset));
        let mut part: Option<Part> = None;
        for place in places {
            let next = part_of(&place);
            match &mut part {
                Some(part)
                    if part.pack == next.pack
                        && next.start <= part.end + READ_GAP_BYTES
                        && next.end - part.start <= READ_BYTES_MAX =>
                {
                    part.end = next.end;
                }
                _ => pieces.extend(part.replace(next).and_then(|part| self.piece(part))),
            }
        }
        pieces.extend(part.and_then(|part| self.piece(part)));
        ReadBatch { batch, pieces, share: None }
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

    fn work(&self, receiver: &Mutex<Receiver<ReadBatch<'s>>>) -> Result<(), Error> {
        let mut buffers = Buffers::default();
        loop {
            let waiting = self.reader.timings().waiting(Stage::Decode);
            let Ok(mut read) = receiver.lock().recv() else { return Ok(()) };
            drop(waiting);
            drop(read.share.take());
            // Also after a failure everything is received: nobody may wait for ever to send.
            if self.stop.load(Ordering::Relaxed) {
                continue;
            }
            if let Err(error) = self.decode(&read, &mut buffers) {
                self.stop.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
    }

    fn decode(&self, read: &ReadBatch<'_>, buffers: &mut Buffers) -> Result<(), Error> {
        for number in read.batch.nodes.clone() {
            self.reader.repository().check_cancelled()?;
            self.decode_node(read, number, buffers)?;
        }
        for based in self.plan.based.get(read.batch.based.clone()).unwrap_or_default() {
            self.reader.repository().check_cancelled()?;
            self.decode_based(read, based, buffers)?;
        }
        Ok(())
    }

    fn decode_node(
        &self,
        read: &ReadBatch<'_>,
        number: usize,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        let Some(node) = self.plan.nodes.get(number) else { return Ok(()) };
        let is_base = node.uses.load(Ordering::Relaxed) > 0;
        if node.task.is_none() && !is_base {
            return Ok(());
        }
        let mut plain = std::mem::take(&mut buffers.plain);
        if is_base {
            buffers.plain = plain;
            plain = self.kept.lock().spare.pop().unwrap_or_default();
        }
        if !self.open(&read.pieces, &node.place, &[], &mut buffers.scratch, &mut plain) {
            return Ok(());
        }
        if let Some(task) = node.task {
            self.hand_over(task, &plain)?;
        }
        if is_base {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            self.kept.lock().put(number, plain);
        } else {
            buffers.plain = plain;
        }
        Ok(())
    }

    fn decode_based(
        &self,
        read: &ReadBatch<'_>,
        based: &Based,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        let Some(task) = self.tasks.get(based.task) else { return Ok(()) };
        let nodes = distinct(&based.parts);
        let frames = nodes.iter().map(|node| Some((*node, self.base_frame(*node)?)));
        if let Some(frames) = frames.collect::<Option<HashMap<_, _>>>() {
            let mut prefix = std::mem::take(&mut buffers.prefix);
            if let Some(bases) = prefix_of(&based.parts, &frames, &mut prefix) {
                let mut plain = std::mem::take(&mut buffers.plain);
                let opened =
                    self.open(&read.pieces, &task.place, bases, &mut buffers.scratch, &mut plain);
                if opened {
                    self.hand_over(based.task, &plain)?;
                }
                buffers.plain = plain;
            }
            buffers.prefix = prefix;
        }
        for number in nodes {
            let uses = self.plan.nodes.get(number as usize).map(|node| &node.uses);
            if uses.is_some_and(|uses| uses.fetch_sub(1, Ordering::AcqRel) == 1) {
                self.kept.lock().remove(number);
            }
        }
        Ok(())
    }

    /// A frame that is needed as a base: from memory, or read again when it had to go.
    fn base_frame(&self, number: u32) -> Option<Arc<Vec<u8>>> {
        if let Some(frame) = self.kept.lock().frames.get(&number) {
            return Some(Arc::clone(frame));
        }
        let place = self.plan.nodes.get(number as usize)?.place;
        let pieces = [self.piece(part_of(&place))?];
        let mut plain = self.kept.lock().spare.pop().unwrap_or_default();
        if !self.open(&pieces, &place, &[], &mut Vec::new(), &mut plain) {
            return None;
        }
        Some(self.kept.lock().put(number, plain))
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
        let part = part_of(place);
        let piece = pieces.iter().find(|piece| piece.holds(part));
        let (Some(pack), Some(piece)) = (self.plan.packs.get(&place.pack), piece) else {
            return false;
        };
        let Ok(opener) = self.reader.opener(pack) else { return false };
        let range = (piece.offset, &piece.sealed[..]);
        self.reader.decode_against(pack, place, &opener, range, prefix, scratch, plain).is_ok()
    }

    fn hand_over(&self, number: usize, plain: &[u8]) -> Result<(), Error> {
        if let (Some(task), Some(done)) = (self.tasks.get(number), self.done.get(number))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_frames_in_long_buffers_keep_no_memory_they_do_not_need() {
        let mut kept = Kept::default();
        for node in 0..200 {
            let mut plain = kept.spare.pop().unwrap_or_default();
            plain.clear();
            plain.reserve_exact(4 << 20);
            plain.resize(if node % 2 == 0 { 4 << 20 } else { 300 }, 7);
            assert_eq!(kept.put(node, plain).len() == 300, node % 2 == 1);
            let held = kept.frames.values().map(|frame| frame.capacity()).sum::<usize>();
            assert_eq!(held, kept.bytes);
            assert!(held <= KEPT_BYTES_MAX && kept.spare.len() <= SPARE_MAX, "{held}");
        }
        for node in 0..200 {
            kept.remove(node);
        }
        assert!(kept.bytes == 0 && kept.frames.is_empty() && kept.spare.len() <= SPARE_MAX);
    }
}
