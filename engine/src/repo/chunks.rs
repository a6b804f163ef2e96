//! Chunks out of a repository: places are looked up, frames read in pack order and in parallel,
//! decoded, and every chunk is checked against its id.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use cairn_format::ids::{ChunkId, WriterId};
use cairn_format::limits::{FRAME_BASE_BYTES_MAX, TAG_BYTES};
use cairn_format::names::PackKind;
use cairn_format::pack::{ChunkRef, Codec, FrameDescription};
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
/// Frames of one range that a task decodes one after another.
const FRAMES_PER_TASK_MIN: usize = 4;
/// Plaintext of tree frames kept at hand, bytes.
const TREE_CACHE_BYTES: usize = 12 << 20;
/// Plaintext of frames that hold bases kept at hand, bytes.
const BASE_CACHE_BYTES: usize = 24 << 20;

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
                    self.deliver_copy(&wanted, missing, deliver)?;
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

    fn run<T: Sync>(
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
                    let error = Error::PackDamaged { pack: pack.id, message: message.clone() };
                    self.deliver_copy(wanted, error, deliver)?;
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.repository.monitor().count(Counter::BytesFetched, sealed.len() as u64);
        // Frames with bases are short where they are stored and long where they are used: one range
        // may hold enough of them for all cores.
        fetch.frames.par_iter().with_min_len(FRAMES_PER_TASK_MIN).try_for_each_init(
            || (Vec::new(), Vec::new()),
            |(scratch, plain), frame| {
                self.repository.check_cancelled()?;
                let Some(first) = frame.first() else { return Ok(()) };
                let place = &first.place;
                let outcome =
                    self.decode_frame(&pack, place, &opener, offset, &sealed, scratch, plain);
                if let Err(error) = &outcome
                    && !error.is_damage()
                {
                    return outcome;
                }
                for wanted in frame {
                    let chunk = match &outcome {
                        Ok(()) => self.slice(&pack, wanted.id, &wanted.place, plain),
                        Err(error) => Err(again(error, &pack, place)),
                    };
                    match chunk {
                        Err(error) => self.deliver_copy(wanted, error, deliver)?,
                        chunk => deliver(wanted, chunk)?,
                    }
                }
                Ok(())
            },
        )
    }

    /// Delivers a damaged chunk from another pack that holds it too, or the damage.
    fn deliver_copy<T>(
        &self,
        wanted: &Wanted<T>,
        damage: Error,
        deliver: Deliver<'_, T>,
    ) -> Result<(), Error> {
        match self.copy_of(wanted.id, &wanted.place)? {
            Some(chunk) => deliver(wanted, Ok(&chunk)),
            None => deliver(wanted, Err(damage)),
        }
    }

    /// A chunk from another place than the one where it is damaged, if there is a sound one.
    fn copy_of(&self, id: ChunkId, damaged: &ChunkPlace) -> Result<Option<Bytes>, Error> {
        for place in self.catalog.copies(id, self.namespace)? {
            if place == *damaged {
                continue;
            }
            match self.chunk_at(id, &place) {
                Ok(chunk) => return Ok(Some(chunk)),
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Reads a chunk from this very place.
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
        let ids = bases.iter().map(|base| base.id).collect::<Vec<_>>();
        let places = self.catalog.places(&ids, namespace)?;
        let mut prefix = Vec::new();
        for (base, found) in bases.iter().zip(places) {
            let first = match found {
                Some(found) => self.base_at(pack, place, base, &found),
                None => Err(Error::ChunkMissing { chunk: base.id }),
            };
            match first {
                Ok(bytes) => prefix.extend_from_slice(&bytes),
                Err(error) if error.is_damage() => {
                    match self.base_elsewhere(pack, place, base, namespace)? {
                        Some(copy) => prefix.extend_from_slice(&copy),
                        None => return Err(self.no_base(pack, place, base, namespace, error)?),
                    }
                }
                Err(error) => return Err(error),
            }
            if prefix.len() > FRAME_BASE_BYTES_MAX as usize {
                return Err(Error::BaseDepth { pack: pack.id, frame: place.frame_number });
            }
        }
        Ok(prefix)
    }

    /// Why a base cannot be had: it is damaged wherever it stands, or stands nowhere.
    fn no_base(
        &self,
        pack: &PackRecord,
        place: &ChunkPlace,
        base: &ChunkRef,
        namespace: WriterId,
        damage: Error,
    ) -> Result<Error, Error> {
        if !self.catalog.base_copies(base, pack.kind, namespace)?.is_empty() {
            return Ok(damage);
        }
        Ok(Error::BaseMissing { pack: pack.id, frame: place.frame_number, base: base.id })
    }

    /// A base from whichever of its places is sound, also from where a collection copied it to
    /// meanwhile; `None` when there is none.
    fn base_elsewhere(
        &self,
        pack: &PackRecord,
        place: &ChunkPlace,
        base: &ChunkRef,
        namespace: WriterId,
    ) -> Result<Option<Bytes>, Error> {
        let mut looked_for = HashSet::new();
        for _ in 0..ROUNDS_MAX {
            let mut vanished = Vec::new();
            for copy in self.catalog.copies(base.id, namespace)? {
                match self.base_at(pack, place, base, &copy) {
                    Ok(bytes) => return Ok(Some(bytes)),
                    Err(error) if error.has_vanished() => vanished.push(copy.pack),
                    Err(error) if error.is_damage() => {}
                    Err(error) => return Err(error),
                }
            }
            vanished.retain(|pack| looked_for.insert(*pack));
            if vanished.is_empty() {
                break;
            }
            for pack in vanished {
                self.catalog.look_again(self.repository.vault(), pack)?;
            }
        }
        Ok(None)
    }

    /// The plaintext of a base from one of its places, if that may serve as one (SPEC §6.3).
    fn base_at(
        &self,
        pack: &PackRecord,
        place: &ChunkPlace,
        base: &ChunkRef,
        found: &ChunkPlace,
    ) -> Result<Bytes, Error> {
        if found.based {
            return Err(Error::BaseDepth { pack: pack.id, frame: place.frame_number });
        }
        let home = self.catalog.pack(found.pack)?;
        if home.kind != pack.kind || found.bytes != base.bytes {
            return Err(Error::ChunkHash { chunk: base.id, pack: home.id });
        }
        let frame = self.cached_frame(&self.base_cache, &home, found)?;
        let chunk = self.slice(&home, base.id, found, &frame)?;
        Ok(frame.slice_ref(chunk))
    }

    /// The plaintext of a chunk that is to be a base, out of a frame without bases; neighbours asked
    /// for one after another cost one read.
    ///
    /// # Errors
    /// When its pack or frame is missing or damaged.
    pub fn base(&self, id: ChunkId, place: &ChunkPlace) -> Result<Bytes, Error> {
        let pack = self.catalog.pack(place.pack)?;
        if place.based {
            return Err(Error::BaseDepth { pack: pack.id, frame: place.frame_number });
        }
        let frame = self.cached_frame(&self.base_cache, &pack, place)?;
        Ok(frame.slice_ref(self.slice(&pack, id, place, &frame)?))
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
        let mut looked_for = HashSet::new();
        for _ in 0..ROUNDS_MAX {
            let place = self.locate(std::slice::from_ref(id))?.into_iter().next().flatten();
            let place = place.ok_or(Error::ChunkMissing { chunk: *id })?;
            let read = self.catalog.pack(place.pack).and_then(|pack| match pack.kind {
                PackKind::Tree => self.chunk_at(*id, &place),
                PackKind::Data => Err(Error::ChunkHash { chunk: *id, pack: pack.id }),
            });
            match read {
                Err(error) if error.has_vanished() && looked_for.insert(place.pack) => {
                    self.catalog.look_again(self.repository.vault(), place.pack)?;
                }
                Err(error) if error.is_damage() => {
                    return self.copy_of(*id, &place)?.ok_or(error);
                }
                outcome => return outcome,
            }
        }
        Err(Error::PlaceStale)
    }
}
