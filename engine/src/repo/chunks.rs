//! Chunks out of a repository: places are looked up, frames read in pack order and in parallel,
//! decoded, and every chunk is checked against its id.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use cairn_format::ids::{ChunkId, WriterId};
use cairn_format::limits::{FRAME_BASE_BYTES_MAX, TAG_BYTES};
use cairn_format::names::PackKind;
use cairn_format::pack::{Codec, FrameDescription};
use cairn_format::segment::PackSection;
use parking_lot::Mutex;
use rayon::prelude::*;

use super::Repository;
use crate::context::Counter;
use crate::error::Error;
use crate::frame::{COMPRESSION_LEVEL_DEFAULT, FrameCodec};
use crate::index::catalog::Catalog;
use crate::index::local::{ChunkPlace, PackNumber, PackRecord};
use crate::ops::snapshots::SnapshotInfo;
use crate::pack::reader::PackReader;
use crate::seal::Part;
use crate::tree::reader::NodeSource;

/// Sealed bytes fetched with one request, at most.
const FETCH_BYTES_MAX: u64 = 4 << 20;
/// Bytes between two wanted frames that are fetched rather than skipped.
const FETCH_GAP_BYTES: u64 = 64 << 10;
/// How often chunks are looked up again whose pack was collected while they were read.
const ROUNDS_MAX: usize = 4;
/// Plaintext of tree frames kept at hand, bytes.
const TREE_CACHE_BYTES: usize = 12 << 20;
/// Plaintext of frames that hold bases kept at hand, bytes.
const BASE_CACHE_BYTES: usize = 12 << 20;

/// Identifies a frame in one catalog.
type FrameKey = (PackNumber, u32);

/// Decoded frames, the least recently added going first.
struct FrameCache {
    frames: HashMap<FrameKey, Bytes>,
    order: VecDeque<FrameKey>,
    bytes: usize,
    bytes_max: usize,
}

impl FrameCache {
    fn new(bytes_max: usize) -> Self {
        Self { frames: HashMap::new(), order: VecDeque::new(), bytes: 0, bytes_max }
    }

    fn get(&self, key: FrameKey) -> Option<Bytes> {
        self.frames.get(&key).cloned()
    }

    fn put(&mut self, key: FrameKey, frame: Bytes) {
        self.bytes += frame.len();
        if let Some(old) = self.frames.insert(key, frame) {
            self.bytes -= old.len();
        } else {
            self.order.push_back(key);
        }
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.frames.remove(&oldest).map_or(0, |frame| frame.len());
        }
    }
}

/// A chunk that is wanted, and where its bytes go.
pub struct Wanted<T> {
    /// The chunk.
    pub id: ChunkId,
    /// Where it lies.
    pub place: ChunkPlace,
    /// Whatever the caller needs to know what it is for.
    pub tag: T,
}

/// Frames of one pack that are fetched with one request.
struct Fetch<T> {
    pack: PackRecord,
    start: u64,
    end: u64,
    frames: Vec<Vec<Wanted<T>>>,
}

/// Reads chunks on behalf of one snapshot's readers.
pub struct ChunkReader<'a> {
    repository: &'a Repository,
    catalog: &'a Catalog,
    namespace: WriterId,
    packs: PackReader<'a>,
    tree_cache: Mutex<FrameCache>,
    base_cache: Mutex<FrameCache>,
    /// The index was brought up to date because a chunk was not found: once is enough.
    looked_again: AtomicBool,
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
            packs: PackReader::new(self.store(), &self.vault().keys),
            tree_cache: Mutex::new(FrameCache::new(TREE_CACHE_BYTES)),
            base_cache: Mutex::new(FrameCache::new(BASE_CACHE_BYTES)),
            looked_again: AtomicBool::new(false),
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
        let reader = self.chunk_reader(snapshot.namespace)?;
        let places = reader.locate(ids)?;
        let wanted = ids.iter().zip(places).enumerate().map(|(tag, (id, place))| {
            place
                .map(|place| Wanted { id: *id, place, tag })
                .ok_or(Error::ChunkMissing { chunk: *id })
        });
        let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
        let found = Mutex::new(vec![Bytes::new(); ids.len()]);
        reader.fetch(wanted, &|wanted, bytes| {
            let copy = Bytes::copy_from_slice(bytes?);
            if let Some(slot) = found.lock().get_mut(wanted.tag) {
                *slot = copy;
            }
            Ok(())
        })?;
        Ok(found.into_inner())
    }
}

/// Receives each wanted chunk: its plaintext, or why it cannot be had. An error ends the fetch.
pub type Deliver<'a, T> =
    &'a (dyn Fn(&Wanted<T>, Result<&[u8], Error>) -> Result<(), Error> + Sync);

impl ChunkReader<'_> {
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
        self.catalog.sync_keeping(self.repository.vault())?;
        self.catalog.places(ids, self.namespace)
    }

    /// Fetches chunks in pack order, in parallel, each frame once. Those whose pack a collection
    /// deletes meanwhile are looked up again, and fetched from where they were copied to.
    ///
    /// # Errors
    /// Whatever `deliver` fails with; failures of the store that are not damage.
    pub fn fetch<T: Send + Sync>(
        &self,
        mut wanted: Vec<Wanted<T>>,
        deliver: Deliver<'_, T>,
    ) -> Result<(), Error> {
        for _ in 0..ROUNDS_MAX {
            let vanished = Mutex::new(Vec::new());
            let fetches = self.plan(wanted, &vanished)?;
            fetches.into_par_iter().with_max_len(1).try_for_each(|fetch| {
                self.repository.check_cancelled()?;
                self.run(fetch, deliver, &vanished)
            })?;
            wanted = self.find_again(vanished.into_inner(), deliver)?;
            if wanted.is_empty() {
                return Ok(());
            }
        }
        wanted.iter().try_for_each(|wanted| deliver(wanted, Err(Error::PlaceStale)))
    }

    /// Looks up chunks again whose pack is gone; says so of those that are nowhere else.
    fn find_again<T>(
        &self,
        vanished: Vec<Wanted<T>>,
        deliver: Deliver<'_, T>,
    ) -> Result<Vec<Wanted<T>>, Error> {
        if vanished.is_empty() {
            return Ok(vanished);
        }
        let packs = vanished.iter().map(|wanted| wanted.place.pack).collect::<BTreeSet<_>>();
        for pack in packs {
            self.catalog.look_again(self.repository.vault(), pack)?;
        }
        let ids = vanished.iter().map(|wanted| wanted.id).collect::<Vec<_>>();
        let mut found = Vec::with_capacity(ids.len());
        for (wanted, place) in vanished.into_iter().zip(self.locate(&ids)?) {
            match place {
                Some(place) if place.pack != wanted.place.pack => {
                    found.push(Wanted { place, ..wanted });
                }
                Some(place) => {
                    let missing = match self.catalog.pack(place.pack) {
                        Ok(pack) => Error::PackMissing { pack: pack.id },
                        Err(error) => error,
                    };
                    deliver(&wanted, Err(missing))?;
                }
                None => deliver(&wanted, Err(Error::ChunkMissing { chunk: wanted.id }))?,
            }
        }
        Ok(found)
    }

    fn plan<T>(
        &self,
        mut wanted: Vec<Wanted<T>>,
        vanished: &Mutex<Vec<Wanted<T>>>,
    ) -> Result<Vec<Fetch<T>>, Error> {
        wanted.sort_by_key(|w| (w.place.pack, w.place.frame_number, w.place.offset));
        let mut fetches: Vec<Fetch<T>> = Vec::new();
        let mut last: Option<FrameKey> = None;
        for item in wanted {
            let place = item.place;
            let key = (place.pack, place.frame_number);
            let start = u64::from(place.frame_offset);
            let end = start + u64::from(place.frame_bytes);
            let same_pack = last.is_some_and(|(pack, _)| pack == place.pack);
            match fetches.last_mut() {
                Some(fetch) if last == Some(key) => {
                    if let Some(frame) = fetch.frames.last_mut() {
                        frame.push(item);
                    }
                }
                Some(fetch)
                    if same_pack
                        && start <= fetch.end + FETCH_GAP_BYTES
                        && end - fetch.start <= FETCH_BYTES_MAX =>
                {
                    fetch.end = end;
                    fetch.frames.push(vec![item]);
                }
                _ => {
                    let pack = match fetches.last() {
                        Some(fetch) if same_pack => Ok(fetch.pack),
                        _ => self.catalog.pack(place.pack),
                    };
                    let pack = match pack {
                        Ok(pack) => pack,
                        Err(error) if error.has_vanished() => {
                            vanished.lock().push(item);
                            last = None;
                            continue;
                        }
                        Err(error) => return Err(error),
                    };
                    fetches.push(Fetch { pack, start, end, frames: vec![vec![item]] });
                }
            }
            last = Some(key);
        }
        Ok(fetches)
    }

    fn run<T>(
        &self,
        fetch: Fetch<T>,
        deliver: Deliver<'_, T>,
        vanished: &Mutex<Vec<Wanted<T>>>,
    ) -> Result<(), Error> {
        let pack = fetch.pack;
        let read = self.packs.opener(pack.kind, pack.id).and_then(|opener| {
            let total = u64::from(pack.bytes);
            let range = self.packs.range(pack.kind, pack.id, total, fetch.start, fetch.end)?;
            Ok((opener, range))
        });
        let (opener, (offset, sealed)) = match read {
            Ok(read) => read,
            Err(error) if error.has_vanished() => {
                vanished.lock().extend(fetch.frames.into_iter().flatten());
                return Ok(());
            }
            Err(error) if error.is_damage() => {
                let message = match error {
                    Error::PackDamaged { message, .. } => message,
                    other => other.to_string(),
                };
                for wanted in fetch.frames.iter().flatten() {
                    deliver(
                        wanted,
                        Err(Error::PackDamaged { pack: pack.id, message: message.clone() }),
                    )?;
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.repository.monitor().count(Counter::BytesFetched, sealed.len() as u64);
        let mut scratch = Vec::new();
        let mut plain = Vec::new();
        for frame in &fetch.frames {
            let Some(first) = frame.first() else { continue };
            let outcome = self.decode_frame(
                &pack,
                &first.place,
                &opener,
                offset,
                &sealed,
                &mut scratch,
                &mut plain,
            );
            for wanted in frame {
                match &outcome {
                    Ok(()) => deliver(wanted, self.slice(&pack, wanted.id, &wanted.place, &plain))?,
                    Err(error) => deliver(wanted, Err(again(error, &pack, &first.place)))?,
                }
            }
            if let Err(error) = outcome
                && !error.is_damage()
            {
                return Err(error);
            }
        }
        Ok(())
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
        scratch.clear();
        scratch.extend_from_slice(frame);
        let stored = opener
            .open_in_place(Part::Frame(u64::from(place.frame_number)), scratch)
            .map_err(|error| damaged(error.to_string()))?;
        let codec = Codec::from_byte(place.codec).map_err(|error| damaged(error.to_string()))?;
        let prefix = if place.based { self.base_prefix(pack, place)? } else { Vec::new() };
        with_codec(|decoder| {
            decoder
                .decode(codec, stored, place.plain_bytes, &prefix, plain)
                .map_err(|error| damaged(error.to_string()))
        })
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

    /// Decodes a frame out of part of its pack (`range`: its offset, its bytes), and checks every
    /// chunk of it. `stored` is then what was sealed, `plain` the plaintext of its chunks.
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
        let opener = self.packs.opener(pack.kind, pack.id)?;
        self.decode_frame(pack, place, &opener, range.0, range.1, stored, plain)?;
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
        let read = self.packs.range(pack.kind, pack.id, u64::from(pack.bytes), start, end)?;
        self.repository.monitor().count(Counter::BytesFetched, read.1.len() as u64);
        Ok(read)
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
        let mut wrong = Vec::new();
        let mut offset = 0;
        for chunk in &frame.chunks {
            let place = ChunkPlace { offset, bytes: chunk.bytes, ..*place };
            if self.slice(pack, chunk.id, &place, &plain).is_err() {
                wrong.push(chunk.id);
            }
            offset += chunk.bytes;
        }
        Ok(wrong)
    }

    /// The concatenated bases of a frame.
    fn base_prefix(&self, pack: &PackRecord, place: &ChunkPlace) -> Result<Vec<u8>, Error> {
        let (bases, namespace) = self.catalog.bases(place)?;
        let mut prefix = Vec::new();
        for base in bases {
            // Copies in frames that have bases themselves do not count (SPEC section 6.3).
            let find = || self.catalog.base_place(base.id, namespace);
            let (home, found, frame) = self.frame_of(&self.base_cache, base.id, &find)?;
            if found.based {
                return Err(Error::BaseDepth { pack: pack.id, frame: place.frame_number });
            }
            if home.kind != pack.kind || found.bytes != base.bytes {
                return Err(Error::ChunkHash { chunk: base.id, pack: home.id });
            }
            prefix.extend_from_slice(self.slice(&home, base.id, &found, &frame)?);
            if prefix.len() > FRAME_BASE_BYTES_MAX as usize {
                return Err(Error::BaseDepth { pack: pack.id, frame: place.frame_number });
            }
        }
        Ok(prefix)
    }

    /// The frame that holds a chunk, found by `find`: once more where its pack is gone.
    fn frame_of(
        &self,
        cache: &Mutex<FrameCache>,
        id: ChunkId,
        find: &dyn Fn() -> Result<Option<ChunkPlace>, Error>,
    ) -> Result<(PackRecord, ChunkPlace, Bytes), Error> {
        let mut tried = None;
        for _ in 0..ROUNDS_MAX {
            let place = find()?.ok_or(Error::ChunkMissing { chunk: id })?;
            let read = self
                .catalog
                .pack(place.pack)
                .and_then(|pack| Ok((pack, self.cached_frame(cache, &pack, &place)?)));
            match read {
                Ok((pack, frame)) => return Ok((pack, place, frame)),
                Err(error) if error.has_vanished() && tried != Some(place.pack) => {
                    tried = Some(place.pack);
                    self.catalog.look_again(self.repository.vault(), place.pack)?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::PlaceStale)
    }

    /// A frame's plaintext, from the cache or the store.
    fn cached_frame(
        &self,
        cache: &Mutex<FrameCache>,
        pack: &PackRecord,
        place: &ChunkPlace,
    ) -> Result<Bytes, Error> {
        let key = (place.pack, place.frame_number);
        if let Some(frame) = cache.lock().get(key) {
            return Ok(frame);
        }
        let opener = self.packs.opener(pack.kind, pack.id)?;
        let start = u64::from(place.frame_offset);
        let end = start + u64::from(place.frame_bytes);
        let total = u64::from(pack.bytes);
        let (offset, sealed) = self.packs.range(pack.kind, pack.id, total, start, end)?;
        self.repository.monitor().count(Counter::BytesFetched, sealed.len() as u64);
        let (mut scratch, mut plain) = (Vec::new(), Vec::new());
        self.decode_frame(pack, place, &opener, offset, &sealed, &mut scratch, &mut plain)?;
        let frame = Bytes::from(plain);
        cache.lock().put(key, frame.clone());
        Ok(frame)
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

/// The same damage once more, for the next chunk of the frame.
fn again(error: &Error, pack: &PackRecord, place: &ChunkPlace) -> Error {
    let message = match error {
        Error::FrameDamaged { message, .. } => message.clone(),
        other => other.to_string(),
    };
    Error::FrameDamaged { pack: pack.id, frame: place.frame_number, message }
}

impl NodeSource for ChunkReader<'_> {
    fn node(&self, id: &ChunkId) -> Result<Bytes, Error> {
        let find = || Ok(self.locate(std::slice::from_ref(id))?.into_iter().next().flatten());
        let (pack, place, frame) = self.frame_of(&self.tree_cache, *id, &find)?;
        let chunk = self.slice(&pack, *id, &place, &frame)?;
        if pack.kind != PackKind::Tree {
            return Err(Error::ChunkHash { chunk: *id, pack: pack.id });
        }
        Ok(frame.slice_ref(chunk))
    }
}
