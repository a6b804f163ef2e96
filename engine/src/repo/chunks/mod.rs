//! Chunks out of a repository: places are looked up, frames read and decoded, and every chunk is
//! checked against its id.

mod ahead;
mod bases;
mod cache;
mod elsewhere;
mod fetch;
mod rescued;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use cairn_format::ids::{ChunkId, WriterId};
use cairn_format::limits::TAG_BYTES;
use cairn_format::names::PackKind;
use cairn_format::pack::{Codec, FrameDescription};
use cairn_format::segment::PackSection;
use parking_lot::Mutex;

use self::ahead::TreeAhead;
pub(crate) use self::cache::ByteCache;
use self::cache::FrameCache;
use self::elsewhere::Elsewhere;
pub use self::elsewhere::Fallback;
pub use self::fetch::{Deliver, Wanted, single};
pub(super) use self::rescued::Rescued;
use super::Repository;
use crate::context::Counter;
use crate::error::Error;
use crate::frame::{COMPRESSION_LEVEL_DEFAULT, FrameCodec};
use crate::index::catalog::Catalog;
use crate::index::local::{ChunkPlace, PackRecord};
use crate::ops::snapshots::SnapshotInfo;
use crate::pack::reader::PackReader;
use crate::seal::Part;
use crate::store::away::Away;
use crate::timings::{Stage, Timings};
use crate::tree::reader::NodeSource;

/// How often chunks are looked up again whose pack was collected while they were read.
const ROUNDS_MAX: usize = 4;
/// Plaintext of tree frames kept at hand, bytes.
const TREE_CACHE_BYTES: usize = 12 << 20;
/// Plaintext of frames that hold bases kept at hand, bytes.
const BASE_CACHE_BYTES: usize = 24 << 20;

/// Reads chunks on behalf of one snapshot's readers.
pub struct ChunkReader<'a> {
    repository: &'a Repository,
    catalog: &'a Catalog,
    namespace: WriterId,
    packs: PackReader<'a>,
    tree_cache: Mutex<FrameCache>,
    base_cache: Mutex<FrameCache>,
    /// Of tree packs in a store behind a network.
    ahead: Mutex<TreeAhead>,
    /// The index was brought up to date because a chunk was not found: once is enough.
    looked_again: AtomicBool,
    /// Other copies of the repository, for what this one cannot give.
    elsewhere: Vec<Elsewhere<'a>>,
}

thread_local! {
    static CODEC: std::cell::RefCell<Option<FrameCodec>> = const { std::cell::RefCell::new(None) };
}

fn with_codec<R>(work: impl FnOnce(&mut FrameCodec) -> Result<R, Error>) -> Result<R, Error> {
    CODEC.with(|cell| {
        let mut codec = cell.borrow_mut();
        if codec.is_none() {
            *codec = Some(FrameCodec::new(COMPRESSION_LEVEL_DEFAULT)?);
        }
        codec.as_mut().map_or(Err(Error::Internal { part: "the frame decoder" }), work)
    })
}

impl Repository {
    /// Reads chunks as the writer of `snapshot` named them.
    ///
    /// # Errors
    /// When the key cannot read, or the index cannot be opened.
    pub fn chunk_reader(&self, namespace: WriterId) -> Result<ChunkReader<'_>, Error> {
        self.require_read("read content")?;
        Ok(ChunkReader {
            repository: self,
            catalog: self.catalog()?,
            namespace,
            packs: PackReader::new(self.store(), &self.vault().keys).unless_away(self.away()),
            tree_cache: Mutex::new(FrameCache::new(TREE_CACHE_BYTES)),
            base_cache: Mutex::new(FrameCache::new(BASE_CACHE_BYTES)),
            ahead: Mutex::default(),
            looked_again: AtomicBool::new(false),
            elsewhere: (self.fallbacks().iter())
                .map(|fallback| Elsewhere::new(fallback, namespace))
                .collect(),
        })
    }

    /// The tree nodes of a snapshot.
    ///
    /// # Errors
    /// As [`Self::chunk_reader`].
    pub fn nodes(&self, snapshot: &SnapshotInfo) -> Result<ChunkReader<'_>, Error> {
        self.chunk_reader(snapshot.namespace)
    }

    /// The plaintext of data chunks, in the order asked for.
    ///
    /// # Errors
    /// When one is missing or damaged.
    pub fn data_chunks(
        &self,
        snapshot: &SnapshotInfo,
        ids: &[ChunkId],
    ) -> Result<Vec<Bytes>, Error> {
        let found = Mutex::new(vec![Bytes::new(); ids.len()]);
        self.chunk_reader(snapshot.namespace)?.each_data_chunk(ids, &|nth, chunk| {
            let chunk = Bytes::copy_from_slice(chunk?);
            if let Some(slot) = found.lock().get_mut(nth) {
                *slot = chunk;
            }
            Ok(())
        })?;
        Ok(found.into_inner())
    }
}

/// Receives the plaintext of a chunk by its number among those asked for, or why it cannot be had. An
/// error ends the reading.
pub type EachChunk<'a> = &'a (dyn Fn(usize, Result<&[u8], Error>) -> Result<(), Error> + Sync);

impl ChunkReader<'_> {
    /// Reads data chunks on all cores, each frame once, and shows each to `each`, in no certain order.
    ///
    /// # Errors
    /// Whatever `each` fails with; failures of the store or the cache.
    pub fn each_data_chunk(&self, ids: &[ChunkId], each: EachChunk<'_>) -> Result<(), Error> {
        let places = self.locate(ids)?;
        let mut wanted = Vec::with_capacity(ids.len());
        for (tag, (id, place)) in ids.iter().zip(places).enumerate() {
            match place {
                Some(place) => wanted.push(Wanted { id: *id, place, tag }),
                None => match self.elsewhere(id) {
                    Some(chunk) => each(tag, Ok(&chunk))?,
                    None => each(tag, Err(Error::ChunkMissing { chunk: *id }))?,
                },
            }
        }
        self.fetch(wanted, &|run, content| match content {
            Ok(content) => {
                single(run, content).try_for_each(|(wanted, chunk)| each(wanted.tag, Ok(chunk)))
            }
            // What cannot be had comes one by one.
            Err(error) => run.first().map_or(Ok(()), |wanted| each(wanted.tag, Err(error))),
        })
    }

    /// The plaintext of one data chunk. The frame it stands in is kept at hand for a while: for those
    /// who read here and there.
    ///
    /// # Errors
    /// When it is missing or damaged; failures of the store or the cache.
    pub fn data_chunk(&self, id: &ChunkId) -> Result<Bytes, Error> {
        self.one_chunk(id, PackKind::Data)
    }

    /// One chunk from a pack of this kind, through the cache of decoded frames: where a collection has
    /// moved it to, or a copy of it, when it is not where it was or damaged there; from another copy of
    /// the repository when the store does not answer.
    fn one_chunk(&self, id: &ChunkId, kind: PackKind) -> Result<Bytes, Error> {
        let mut looked_for = HashSet::new();
        for _ in 0..ROUNDS_MAX {
            let place = self.locate(std::slice::from_ref(id))?.into_iter().next().flatten();
            let Some(place) = place else {
                return self.elsewhere(id).ok_or(Error::ChunkMissing { chunk: *id });
            };
            let read = self.catalog.pack(place.pack).and_then(|pack| {
                if pack.kind == kind {
                    self.chunk_at(*id, &place)
                } else {
                    Err(Error::ChunkHash { chunk: *id, pack: pack.id })
                }
            });
            match read {
                Err(error) if error.has_vanished() && looked_for.insert(place.pack) => {
                    let looked = self.catalog.look_again(self.repository.vault(), place.pack);
                    if let Err(error) = looked {
                        return self.elsewhere_instead(id, error);
                    }
                }
                Err(error) if error.is_damage() => {
                    return self.copy_of(*id, &place)?.ok_or(error);
                }
                Err(error) if error.is_out_of_reach() => {
                    match self.elsewhere_instead(id, error) {
                        // Nobody else has it either.
                        Err(_) if self.repository.away().is_some_and(Away::relent) => {}
                        outcome => return outcome,
                    }
                }
                outcome => return outcome,
            }
        }
        Err(Error::PlaceStale)
    }

    /// Where chunks lie. When one is not found the index is brought up to date, once: a writer whose
    /// packs were collected stores chunks anew before it acknowledges.
    ///
    /// # Errors
    /// Failures of the store or the cache.
    pub fn locate(&self, ids: &[ChunkId]) -> Result<Vec<Option<ChunkPlace>>, Error> {
        let places = self.catalog.places(ids, self.namespace)?;
        if places.iter().all(Option::is_some) || self.looked_again.swap(true, Ordering::AcqRel) {
            return Ok(places);
        }
        match self.catalog.sync_keeping(self.repository.vault()) {
            // What is not known here other copies may know.
            Err(error) if error.is_out_of_reach() && self.has_others() => {
                self.repository.say_away(&error);
                Ok(places)
            }
            synced => {
                synced?;
                self.catalog.places(ids, self.namespace)
            }
        }
    }

    /// A chunk from another place than the one where it is damaged, out of the parity of its packs,
    /// or from another copy of the repository, if one of them gives it.
    fn copy_of(&self, id: ChunkId, damaged: &ChunkPlace) -> Result<Option<Bytes>, Error> {
        match self.copy_here(id, damaged) {
            Ok(Some(chunk)) => Ok(Some(chunk)),
            Ok(None) => Ok(self.elsewhere(&id)),
            Err(error) => self.elsewhere_instead(&id, error).map(Some),
        }
    }

    /// The same from this copy of the repository alone.
    fn copy_here(&self, id: ChunkId, damaged: &ChunkPlace) -> Result<Option<Bytes>, Error> {
        let copies = self.catalog.copies(id, self.namespace)?;
        for place in copies.iter().filter(|place| *place != damaged) {
            match self.chunk_at(id, place) {
                Ok(chunk) => return Ok(Some(chunk)),
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        self.rescued_chunk(id, std::iter::once(damaged).chain(&copies))
    }

    /// Reads a chunk from this very place, without the help of parity.
    ///
    /// # Errors
    /// Damage there; failures of the store or the cache.
    pub fn check_at(&self, id: ChunkId, place: &ChunkPlace) -> Result<(), Error> {
        self.chunk_at(id, place).map(|_| ())
    }

    /// One chunk, through the cache of decoded frames.
    fn chunk_at(&self, id: ChunkId, place: &ChunkPlace) -> Result<Bytes, Error> {
        let pack = self.catalog.pack(place.pack)?;
        let cache = match pack.kind {
            PackKind::Tree => &self.tree_cache,
            PackKind::Data => &self.base_cache,
        };
        let frame = self.cached_frame(cache, &pack, place)?;
        let chunk = self.slice(&pack, id, place, &frame)?;
        Ok(frame.slice_ref(chunk))
    }

    /// Opens and decompresses one frame out of a range of its pack.
    #[expect(clippy::too_many_arguments, reason = "buffers are passed in to be reused")]
    fn decode_frame(
        &self,
        pack: &PackRecord,
        place: &ChunkPlace,
        opener: &crate::seal::PartOpener,
        offset: u64,
        sealed: &[u8],
        scratch: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let prefix = if place.based { self.base_prefix(pack, place)? } else { Vec::new() };
        self.decode_against(pack, place, opener, (offset, sealed), &prefix, scratch, plain)
    }

    /// The same with its bases at hand, concatenated; empty for a frame without.
    #[expect(clippy::too_many_arguments, reason = "buffers are passed in to be reused")]
    pub(super) fn decode_against(
        &self,
        pack: &PackRecord,
        place: &ChunkPlace,
        opener: &crate::seal::PartOpener,
        (offset, sealed): (u64, &[u8]),
        prefix: &[u8],
        scratch: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let damaged = |message: String| Error::FrameDamaged {
            pack: pack.id,
            frame: place.frame_number,
            message,
        };
        let start = usize::try_from(u64::from(place.frame_offset) - offset).unwrap_or(usize::MAX);
        let frame = sealed
            .get(start..)
            .and_then(|rest| rest.get(..place.frame_bytes as usize))
            .ok_or_else(|| damaged("it lies outside of what was read".to_owned()))?;
        let opening = self.timings().span(Stage::Open, frame.len() as u64);
        scratch.clear();
        scratch.extend_from_slice(frame);
        let stored = opener
            .open_in_place(Part::Frame(u64::from(place.frame_number)), scratch)
            .map_err(|error| damaged(error.to_string()))?;
        drop(opening);
        let _decoding = self.timings().span(Stage::Decode, u64::from(place.plain_bytes));
        let codec = Codec::from_byte(place.codec).map_err(|error| damaged(error.to_string()))?;
        with_codec(|decoder| {
            decoder
                .decode(codec, stored, place.plain_bytes, prefix, plain)
                .map_err(|error| damaged(error.to_string()))
        })
    }

    /// The index.
    pub(super) fn catalog(&self) -> &Catalog {
        self.catalog
    }

    pub(super) fn timings(&self) -> &Timings {
        &self.repository.context.timings
    }

    /// The repository.
    pub(super) fn repository(&self) -> &Repository {
        self.repository
    }

    /// What opens the parts of a pack.
    ///
    /// # Errors
    /// As [`PackReader::opener`].
    pub fn opener(
        &self,
        pack: &PackRecord,
    ) -> Result<std::sync::Arc<crate::seal::PartOpener>, Error> {
        self.packs.opener(pack.kind, pack.id)
    }

    /// What the pack's own directory says.
    ///
    /// # Errors
    /// As [`PackReader::directory`].
    pub fn directory(&self, pack: &PackRecord) -> Result<PackSection, Error> {
        let trust = &self.repository.vault().trust;
        self.packs.directory(pack.kind, pack.id, u64::from(pack.bytes), trust)
    }

    /// Decodes a frame out of part of its pack (`range`: its offset, its bytes), or out of what the
    /// pack's parity gives, and checks every chunk of it. `stored` is then what was sealed, `plain`
    /// the plaintext of its chunks.
    ///
    /// # Errors
    /// When the frame does not open or decode, or a chunk is not what its id says.
    pub fn open_frame(
        &self,
        pack: &PackRecord,
        place: &ChunkPlace,
        frame: &FrameDescription,
        range: (u64, &[u8]),
        stored: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let opened = self.packs.opener(pack.kind, pack.id).and_then(|opener| {
            self.decode_frame(pack, place, &opener, range.0, range.1, stored, plain)
        });
        match opened {
            Err(error) if error.is_damage() && !error.has_vanished() => {
                let Some(whole) = self.rescued_pack(place.pack, pack)? else { return Err(error) };
                self.decode_frame(pack, place, &whole.opener, 0, &whole.bytes, stored, plain)?;
            }
            other => other?,
        }
        stored.truncate((place.frame_bytes.saturating_sub(TAG_BYTES)) as usize);
        let mut offset = 0;
        for chunk in &frame.chunks {
            let place = ChunkPlace { offset, bytes: chunk.bytes, ..*place };
            self.slice(pack, chunk.id, &place, plain)?;
            offset += chunk.bytes;
        }
        Ok(())
    }

    /// Part of a pack, as [`PackReader::range`] gives it.
    ///
    /// # Errors
    /// As there.
    pub fn range(&self, pack: &PackRecord, start: u64, end: u64) -> Result<(u64, Bytes), Error> {
        let mut span = self.timings().span(Stage::Fetch, 0);
        let read = self.packs.range(pack.kind, pack.id, u64::from(pack.bytes), start, end)?;
        span.bytes(read.1.len() as u64);
        self.repository.monitor().count(Counter::BytesFetched, read.1.len() as u64);
        Ok(read)
    }

    /// The same; nothing where the pack was cut short before that.
    ///
    /// # Errors
    /// As [`Self::range`], other damage than this.
    pub fn range_left(
        &self,
        pack: &PackRecord,
        start: u64,
        end: u64,
    ) -> Result<(u64, Bytes), Error> {
        match self.range(pack, start, end) {
            Err(error) if error.is_damage() && !error.has_vanished() => Ok((start, Bytes::new())),
            other => other,
        }
    }

    /// Decodes a frame out of part of its pack (`range`: its offset, its bytes) and returns the
    /// chunks that are not what their ids say.
    ///
    /// # Errors
    /// When the frame does not open or decode.
    pub fn check_frame(
        &self,
        pack: &PackRecord,
        place: &ChunkPlace,
        frame: &FrameDescription,
        opener: &crate::seal::PartOpener,
        range: (u64, &[u8]),
    ) -> Result<Vec<ChunkId>, Error> {
        let (mut scratch, mut plain) = (Vec::new(), Vec::new());
        self.decode_frame(pack, place, opener, range.0, range.1, &mut scratch, &mut plain)?;
        Ok(self.wrong_chunks(pack, place, frame, &plain))
    }

    /// The chunks of a decoded frame that are not what their ids say.
    pub fn wrong_chunks(
        &self,
        pack: &PackRecord,
        place: &ChunkPlace,
        frame: &FrameDescription,
        plain: &[u8],
    ) -> Vec<ChunkId> {
        let mut wrong = Vec::new();
        let mut offset = 0;
        for chunk in &frame.chunks {
            let place = ChunkPlace { offset, bytes: chunk.bytes, ..*place };
            if self.slice(pack, chunk.id, &place, plain).is_err() {
                wrong.push(chunk.id);
            }
            offset += chunk.bytes;
        }
        wrong
    }

    /// One chunk out of a decoded frame, checked against its id.
    fn slice<'f>(
        &self,
        pack: &PackRecord,
        id: ChunkId,
        place: &ChunkPlace,
        frame: &'f [u8],
    ) -> Result<&'f [u8], Error> {
        let start = place.offset as usize;
        let chunk = frame.get(start..).and_then(|rest| rest.get(..place.bytes as usize));
        let keys = &self.repository.vault().keys;
        let matches = |chunk: &[u8]| match pack.kind {
            PackKind::Data => keys.chunk_id(chunk) == id,
            PackKind::Tree => keys.tree_id(chunk) == id,
        };
        chunk.filter(|chunk| matches(chunk)).ok_or(Error::ChunkHash { chunk: id, pack: pack.id })
    }
}

impl NodeSource for ChunkReader<'_> {
    fn expect(&self, ids: &mut dyn Iterator<Item = ChunkId>) {
        if !self.repository.store().is_near() {
            self.ahead.lock().expect(ids);
        }
    }

    fn node(&self, id: &ChunkId) -> Result<Bytes, Error> {
        self.one_chunk(id, PackKind::Tree)
    }
}
