//! Takes batches of cut plaintext through identification, look-up, compression and sealing. Each
//! batch is one task that runs to completion on one core, while its data is in that core's cache.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_format::ids::{ChunkId, SessionId, WriterId};
use cairn_format::limits::FRAME_CHUNKS_MAX;
use cairn_format::names::PackKind;
use cairn_format::pack::{ChunkRef, Codec};
use parking_lot::Mutex;

use super::buffer::Buffer;
use super::inflight::InFlight;
use super::upload::Uploader;
use crate::context::Counter;
use crate::delta::{Attempt, DeltaReport, Deltas, EncodedFrame, Hint, NewChunk};
use crate::error::Error;
use crate::frame::FrameCodec;
use crate::index::catalog::Catalog;
use crate::ops::backup::Relied;
use crate::pack::builder::PackBuilder;
use crate::repo::Vault;
use crate::timings::{Stage, Timings};

/// Plaintext of a full batch, and so of a full frame, bytes. On the demo's dump frames of 2 MiB take
/// 8 % less than frames of 1 MiB at the same speed; larger ones cost more to read one chunk of.
pub const BATCH_BYTES: usize = 2 << 20;

/// Tree packs are closed at this length, bytes: they are read whole when a tree is.
pub const TREE_PACK_BYTES_MAX: u32 = 8 << 20;

const _: () = assert!(BATCH_BYTES <= cairn_format::limits::FRAME_PLAIN_BYTES_MAX as usize);

/// Chunks of plaintext, one after another.
#[derive(Debug, Default)]
pub struct Batch {
    /// The plaintext.
    pub data: Buffer,
    /// Lengths of the chunks, in order; they add up to the plaintext.
    pub chunks: Vec<u32>,
    /// What is known of each chunk; nothing of those that are not mentioned.
    pub hints: Vec<Hint>,
}

impl Batch {
    /// True when no further chunk should be added.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.data.len() >= BATCH_BYTES || self.chunks.len() >= FRAME_CHUNKS_MAX as usize
    }
}

/// What storing needs to know, shared by all tasks of one backup.
pub struct Ingest<'a> {
    vault: &'a Vault,
    catalog: &'a Catalog,
    uploader: &'a Uploader<'a>,
    in_flight: &'a InFlight,
    relied: &'a Relied,
    session: SessionId,
    namespace: WriterId,
    level: i32,
    deltas: Option<Deltas<'a>>,
    data_pack: Mutex<Option<PackBuilder>>,
    tree_pack: Mutex<Option<PackBuilder>>,
    bytes_new: AtomicU64,
    chunks_new: AtomicU64,
}

thread_local! {
    static CODEC: RefCell<Option<(i32, FrameCodec)>> = const { RefCell::new(None) };
}

/// Runs `work` with this thread's codec for the level.
fn with_codec<R>(
    level: i32,
    timings: &Timings,
    work: impl FnOnce(&mut FrameCodec) -> Result<R, Error>,
) -> Result<R, Error> {
    CODEC.with(|cell| {
        let mut slot = cell.borrow_mut();
        let codec = match &mut *slot {
            Some((known, codec)) if *known == level => codec,
            other => &mut other.insert((level, FrameCodec::new(level)?)).1,
        };
        codec.timings = timings.clone();
        work(codec)
    })
}

/// A frame to be added to a pack.
struct NewFrame<S> {
    codec: Codec,
    /// What is sealed.
    stored: S,
    chunks: Vec<ChunkRef>,
    bases: Vec<ChunkRef>,
}

fn references(chunks: &[NewChunk<'_>]) -> Vec<ChunkRef> {
    let length = |chunk: &NewChunk<'_>| u32::try_from(chunk.data.len()).unwrap_or(u32::MAX);
    chunks.iter().map(|chunk| ChunkRef { id: chunk.id, bytes: length(chunk) }).collect()
}

fn concat(chunks: &[NewChunk<'_>]) -> Vec<u8> {
    chunks.iter().map(|chunk| chunk.data).collect::<Vec<_>>().concat()
}

/// What storing works with.
#[derive(Clone, Copy)]
pub struct Beside<'a> {
    /// The repository's store and keys.
    pub vault: &'a Vault,
    /// Its index.
    pub catalog: &'a Catalog,
    /// Takes the packs.
    pub uploader: &'a Uploader<'a>,
    /// Chunks that are on their way.
    pub in_flight: &'a InFlight,
    /// Notes the chunks that are found stored already.
    pub relied: &'a Relied,
}

impl<'a> Ingest<'a> {
    /// Storing for one session.
    ///
    /// # Errors
    /// When the key cannot write.
    pub fn new(
        beside: Beside<'a>,
        session: SessionId,
        level: i32,
        deltas: Option<Deltas<'a>>,
    ) -> Result<Self, Error> {
        let Beside { vault, catalog, uploader, in_flight, relied } = beside;
        Ok(Self {
            vault,
            catalog,
            uploader,
            in_flight,
            relied,
            session,
            namespace: vault.own_namespace()?,
            level,
            deltas,
            data_pack: Mutex::default(),
            tree_pack: Mutex::default(),
            bytes_new: AtomicU64::new(0),
            chunks_new: AtomicU64::new(0),
        })
    }

    /// Stores what is new of a batch; returns the ids of all its chunks, in order.
    ///
    /// When it returns, new chunks are in a pack that is filled or under way; they are durable
    /// after [`Self::flush`] and the uploader's end.
    ///
    /// # Errors
    /// Failures of the store or the cache; a frame that does not decode to what went in.
    pub fn store(&self, kind: PackKind, batch: &Batch) -> Result<Vec<ChunkId>, Error> {
        let timings = &self.vault.context.timings;
        let span = timings.span(Stage::Hash, batch.data.len() as u64);
        let mut rest = batch.data.as_slice();
        let mut ids = Vec::with_capacity(batch.chunks.len());
        let mut slices = Vec::with_capacity(batch.chunks.len());
        for (index, bytes) in batch.chunks.iter().enumerate() {
            let (chunk, tail) = rest
                .split_at_checked(*bytes as usize)
                .ok_or(Error::Internal { part: "a batch of chunks" })?;
            rest = tail;
            ids.push(match batch.hints.get(index) {
                Some(Hint { former: Some(id), same: true, .. }) => *id,
                _ => self.id_of(kind, chunk),
            });
            slices.push(chunk);
        }
        drop(span);
        if let Some(deltas) = &self.deltas {
            deltas.note_unchanged(&ids, &batch.hints);
        }
        let span = timings.span(Stage::Index, 0);
        let new = self.claim_new(&ids)?;
        drop(span);
        let hint = |index| batch.hints.get(index).copied().unwrap_or_default();
        let new = new
            .into_iter()
            .filter_map(|index| {
                let (id, data) = (*ids.get(index)?, *slices.get(index)?);
                Some(NewChunk { id, data, hint: hint(index) })
            })
            .collect::<Vec<_>>();
        if new.is_empty() {
            return Ok(ids);
        }
        let bytes = new.iter().map(|chunk| chunk.data.len() as u64).sum::<u64>();
        if kind == PackKind::Data {
            self.bytes_new.fetch_add(bytes, Ordering::Relaxed);
            self.vault.monitor().count(Counter::BytesNew, bytes);
        }
        self.chunks_new.fetch_add(new.len() as u64, Ordering::Relaxed);
        let based = self.store_deltas(kind, &new)?;
        let rest = new.iter().enumerate().filter(|(index, _)| !based.contains(index));
        let rest = rest.map(|(_, chunk)| *chunk).collect::<Vec<_>>();
        let chunks = references(&rest);
        if rest.len() == ids.len() {
            self.store_frame(kind, &batch.data, chunks)?;
        } else if !rest.is_empty() {
            self.store_frame(kind, &concat(&rest), chunks)?;
        }
        Ok(ids)
    }

    /// Stores those chunks against bases for which that pays; returns their positions.
    fn store_deltas(&self, kind: PackKind, new: &[NewChunk<'_>]) -> Result<HashSet<usize>, Error> {
        let mut based = HashSet::new();
        let Some(deltas) = &self.deltas else { return Ok(based) };
        let timings = &self.vault.context.timings;
        let bytes = new.iter().map(|chunk| chunk.data.len() as u64).sum();
        let span = timings.span(Stage::Search, bytes);
        let found = deltas.find(kind, new)?;
        drop(span);
        let mut from = 0;
        loop {
            let span = timings.span(Stage::Search, 0);
            let attempt = deltas.next_attempt(kind, new, &found, &mut from)?;
            drop(span);
            let Some(attempt) = attempt else { break };
            let stored = self.store_attempt(kind, new, &attempt)?;
            deltas.note(new, &found, &attempt, stored);
            if stored.is_some() {
                based.extend(attempt.chunks);
            }
        }
        deltas.remember(new, &found)?;
        Ok(based)
    }

    /// Stores a frame against its bases, with its patch, if that pays; returns what both take.
    fn store_attempt(
        &self,
        kind: PackKind,
        new: &[NewChunk<'_>],
        attempt: &Attempt,
    ) -> Result<Option<usize>, Error> {
        let chosen = attempt.chunks.iter().filter_map(|&index| new.get(index)).copied();
        let chunks = references(&chosen.collect::<Vec<_>>());
        with_codec(self.level, &self.vault.context.timings, |codec| {
            let encoded = attempt.encode(chunks, codec, &|data| self.id_of(kind, data))?;
            let Some(frames) = encoded else { return Ok(None) };
            let bytes = frames.iter().map(|frame| frame.stored.len()).sum();
            let frames = frames.into_iter().map(|frame| {
                let EncodedFrame { codec, stored, chunks, bases } = frame;
                NewFrame { codec, stored, chunks, bases }
            });
            self.add_frames(kind, frames.collect::<Vec<_>>())?;
            Ok(Some(bytes))
        })
    }

    fn id_of(&self, kind: PackKind, chunk: &[u8]) -> ChunkId {
        match kind {
            PackKind::Data => self.vault.keys.chunk_id(chunk),
            PackKind::Tree => self.vault.keys.tree_id(chunk),
        }
    }

    /// Positions of the chunks that this caller must store.
    fn claim_new(&self, ids: &[ChunkId]) -> Result<Vec<usize>, Error> {
        let claimed =
            (0..ids.len()).filter(|&i| ids.get(i).is_some_and(|id| self.in_flight.claim(id)));
        let claimed = claimed.collect::<Vec<_>>();
        let wanted = claimed.iter().filter_map(|&i| ids.get(i).copied()).collect::<Vec<_>>();
        let known = self.relied.known(self.catalog, &wanted, self.namespace)?;
        let mut new = Vec::with_capacity(claimed.len());
        for ((index, id), known) in claimed.into_iter().zip(wanted).zip(known) {
            if known {
                self.in_flight.release(&id);
            } else {
                new.push(index);
            }
        }
        Ok(new)
    }

    fn store_frame(
        &self,
        kind: PackKind,
        plain: &[u8],
        chunks: Vec<ChunkRef>,
    ) -> Result<(), Error> {
        with_codec(self.level, &self.vault.context.timings, |encoder| {
            let (codec, stored) = encoder.encode(plain)?;
            self.add_frames(kind, [NewFrame { codec, stored, chunks, bases: Vec::new() }])
        })
    }

    /// Adds frames to one pack, so that none of them is ever there without the ones before it.
    fn add_frames<S: AsRef<[u8]>>(
        &self,
        kind: PackKind,
        frames: impl AsRef<[NewFrame<S>]> + IntoIterator<Item = NewFrame<S>>,
    ) -> Result<(), Error> {
        let all = frames.as_ref().iter();
        let (stored, names) = all.fold((0, 0), |(stored, names), frame| {
            let named = frame.chunks.len() + frame.bases.len();
            (stored + frame.stored.as_ref().len(), names + named)
        });
        let (slot, bytes_max) = match kind {
            PackKind::Data => (&self.data_pack, self.vault.config.pack_bytes),
            PackKind::Tree => {
                let bytes = self.vault.config.pack_bytes.min(TREE_PACK_BYTES_MAX);
                (&self.tree_pack, bytes)
            }
        };
        loop {
            let mut open = slot.lock();
            match open.as_mut() {
                Some(builder) if builder.fits(frames.as_ref().len(), stored, names) => {
                    let _sealing = self.vault.context.timings.span(Stage::Seal, stored as u64);
                    for frame in frames {
                        let NewFrame { codec, stored, chunks, bases } = frame;
                        builder.add(codec, stored.as_ref(), chunks, bases)?;
                    }
                    return Ok(());
                }
                Some(_) => {
                    let full = open.take();
                    drop(open);
                    self.upload(full)?;
                }
                None => {
                    let waiting = self.vault.context.timings.waiting(Stage::Seal);
                    let buffer = self.uploader.buffer();
                    drop(waiting);
                    *open = Some(self.vault.pack(kind, buffer, bytes_max).inspect_err(|_| {
                        // The buffer is gone, and others may wait for one.
                        self.uploader.free(Vec::new());
                    })?);
                }
            }
        }
    }

    fn upload(&self, builder: Option<PackBuilder>) -> Result<(), Error> {
        let Some(builder) = builder.filter(|builder| !builder.is_empty()) else { return Ok(()) };
        let signer = self.vault.keys.signer()?;
        let sealing = self.vault.context.timings.span(Stage::Seal, 0);
        let finished = builder.finish(signer, self.session, self.namespace);
        drop(sealing);
        match finished {
            Ok(pack) => {
                let _waiting = self.vault.context.timings.waiting(Stage::Seal);
                self.uploader.put(pack)
            }
            Err(error) => {
                // The buffer is gone with the pack, and others may wait for one.
                self.uploader.free(Vec::new());
                Err(error)
            }
        }
    }

    /// Hands the packs that are not full yet to the uploader.
    ///
    /// # Errors
    /// As [`Self::store`].
    pub fn flush(&self) -> Result<(), Error> {
        for slot in [&self.data_pack, &self.tree_pack] {
            let open = slot.lock().take();
            self.upload(open)?;
        }
        Ok(())
    }

    /// Ends the search for bases and says what it brought; nothing where none was made.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn finish_deltas(&self) -> Result<DeltaReport, Error> {
        self.deltas.as_ref().map_or_else(|| Ok(DeltaReport::default()), Deltas::finish)
    }

    /// Plaintext of data chunks that were not known before, bytes.
    #[must_use]
    pub fn bytes_new(&self) -> u64 {
        self.bytes_new.load(Ordering::Relaxed)
    }

    /// Chunks of either kind that were not known before.
    #[must_use]
    pub fn chunks_new(&self) -> u64 {
        self.chunks_new.load(Ordering::Relaxed)
    }
}
