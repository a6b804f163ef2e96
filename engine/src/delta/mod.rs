//! Deltas: new chunks are stored against chunks they resemble, so that what is stored follows what
//! changed (SPEC §6.3; the measurements behind it are in the changes' history).
//!
//! A base is found by place, the chunk that held the same offset of the same file in the snapshot
//! before, and by sketch, the chunk that shares most content wherever it lies. Bases lie in frames
//! without bases: what was itself stored as a delta stands in with its own base. All of this is an
//! optimisation: where a base cannot be had cheaply, the chunk is stored as it is.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cairn_format::ids::{ChunkId, WriterId};
use cairn_format::limits::{FRAME_BASE_BYTES_MAX, FRAME_BASES_MAX};
use cairn_format::names::PackKind;
use cairn_format::pack::ChunkRef;
use parking_lot::Mutex;

use self::find::Finder;
use self::sketch::{Sketch, Sketcher};
use crate::context::Remark;
use crate::error::{Error, Explain};
use crate::index::catalog::Catalog;
use crate::index::local::{ChunkPlace, PackNumber, SketchEntry, SketchSlot};
use crate::repo::Repository;
use crate::repo::chunks::ChunkReader;

mod find;
pub mod sketch;

/// Plaintext of a frame with bases, bytes. With 256 and 128 KiB the dumps measured took 11 and up to 62 % more,
/// page files up to 3 %, at about the same CPU time; without long-distance matching dumps took 62 to 160 %
/// more and page files between 3 % less and 47 % more, at a tenth to a quarter less CPU time.
const FRAME_BYTES: usize = 512 << 10;
/// Bases of one frame, bytes.
pub const PREFIX_BYTES_MAX: usize = 2 << 20;
/// Chunks shorter than this are not worth a look for a base, bytes: naming it costs 70.
const CHUNK_BYTES_MIN: usize = 2 << 10;
/// A frame is read for its bases when it is at most so many times as long as the new chunks that
/// use them.
const READ_FACTOR_MAX: u64 = 64;
/// Frames tried before it is asked whether trying pays.
const TRIES_MIN: u64 = 16;
/// Where fewer than one in so many tries pays, only one in so many is tried.
const TRIES_PER_SUCCESS_MAX: u64 = 8;
/// Slots of each super-feature. All together they take at most 600 MB of the cache.
const SLOTS: u64 = 1 << 22;
/// Sketches written at once.
const SKETCHES_PER_WRITE: usize = 3 << 10;
/// Bytes that naming one base costs in the pack's directory and in a segment.
pub const LISTING_BYTES: usize = 70;

const _: () = assert!(PREFIX_BYTES_MAX <= FRAME_BASE_BYTES_MAX as usize);

/// What is known of a chunk besides its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// The chunk that held its place in the snapshot before.
    pub former: Option<ChunkId>,
    /// It is that chunk: its id was computed and is the same.
    pub same: bool,
    /// Content moves about in what it is part of: similar chunks are looked for by their sketches.
    pub moves: bool,
}

/// A chunk that is to be stored.
#[derive(Clone, Copy, Debug)]
pub struct NewChunk<'a> {
    /// Its id.
    pub id: ChunkId,
    /// Its content.
    pub data: &'a [u8],
    /// What else is known.
    pub hint: Hint,
}

/// A chunk that can be had as a base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Base {
    id: ChunkId,
    place: ChunkPlace,
}

/// A frame to be tried: which chunks, and what they are compressed against.
pub struct Attempt {
    /// Positions of its chunks among those asked about, ascending.
    pub chunks: Vec<usize>,
    /// The bases, in order.
    pub bases: Vec<ChunkRef>,
    /// Their content.
    pub prefix: Vec<u8>,
}

impl Attempt {
    /// Bytes that naming its bases costs.
    #[must_use]
    pub fn listing_bytes(&self) -> usize {
        self.bases.len() * LISTING_BYTES
    }
}

/// What deltas did in one backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeltaReport {
    /// Chunks stored against bases.
    pub chunks: u64,
    /// Their plaintext, bytes.
    pub bytes: u64,
    /// What they take, bytes.
    pub bytes_stored: u64,
    /// Frames that were tried and stored without bases instead.
    pub frames_declined: u64,
}

/// Finds and fetches bases for one backup; shared by its workers.
pub struct Deltas<'a> {
    catalog: &'a Catalog,
    reader: ChunkReader<'a>,
    repository: &'a Repository,
    namespace: WriterId,
    sketcher: Sketcher,
    finder: Finder<'a>,
    /// Frames that could not be read: not asked for again.
    unreadable: Mutex<HashSet<(PackNumber, u32)>>,
    warned: AtomicBool,
    sketches: Mutex<Vec<(SketchSlot, SketchEntry)>>,
    tries: AtomicU64,
    successes: AtomicU64,
    chunks: AtomicU64,
    bytes: AtomicU64,
    bytes_stored: AtomicU64,
}

/// What was found for the chunks of a batch.
pub struct Found {
    sketches: Vec<Option<Sketch>>,
    /// For each chunk its bases, the one most like it first.
    bases: Vec<Vec<Base>>,
}

/// Slots and entries of a sketch that names `chunk`.
fn entries(sketch: &Sketch, chunk: ChunkId) -> impl Iterator<Item = (SketchSlot, SketchEntry)> {
    (0_u64..).zip(*sketch).map(move |(number, feature)| {
        let slot = number * SLOTS + feature % SLOTS;
        let check = (feature >> 32) as u32;
        (SketchSlot(u32::try_from(slot).unwrap_or(u32::MAX)), SketchEntry { check, chunk })
    })
}

impl<'a> Deltas<'a> {
    /// Deltas for one backup; `None` where the key cannot read or the store is not near, so that
    /// no base is at hand at a fair price.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn new(repository: &'a Repository) -> Result<Option<Self>, Error> {
        let keys = &repository.vault().keys;
        if !keys.can_read() || !repository.store().is_near() {
            return Ok(None);
        }
        let catalog = repository.catalog()?;
        let namespace = repository.vault().own_namespace()?;
        Ok(Some(Self {
            catalog,
            reader: repository.chunk_reader(namespace)?,
            repository,
            namespace,
            sketcher: Sketcher::new(*keys.gear_table()?),
            finder: Finder::new(catalog, namespace),
            unreadable: Mutex::default(),
            warned: AtomicBool::new(false),
            sketches: Mutex::default(),
            tries: AtomicU64::new(0),
            successes: AtomicU64::new(0),
            chunks: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            bytes_stored: AtomicU64::new(0),
        }))
    }

    /// Looks for bases. What is found may turn out not to pay.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn find(&self, kind: PackKind, chunks: &[NewChunk<'_>]) -> Result<Found, Error> {
        let sketches = chunks
            .iter()
            .map(|chunk| {
                let wanted = chunk.hint.moves && chunk.data.len() >= CHUNK_BYTES_MIN;
                wanted.then(|| self.sketcher.sketch(chunk.data)).flatten()
            })
            .collect::<Vec<_>>();
        let alike = self.look_up(&sketches)?;
        let mut bases = self.finder.bases(kind, chunks, &alike)?;
        self.drop_dear(chunks, &mut bases);
        Ok(Found { sketches, bases })
    }

    /// For each sketch the chunk that most of its super-features name.
    fn look_up(&self, sketches: &[Option<Sketch>]) -> Result<Vec<Option<ChunkId>>, Error> {
        let unknown = ChunkId::from_bytes([0; 32]);
        let asked = sketches.iter().flatten().flat_map(|sketch| entries(sketch, unknown));
        let (slots, checks): (Vec<_>, Vec<_>) =
            asked.map(|(slot, entry)| (slot, entry.check)).unzip();
        if slots.is_empty() {
            return Ok(vec![None; sketches.len()]);
        }
        let found = self.catalog.index().get_sketches(&slots)?;
        let named = found.into_iter().zip(checks).map(|(entry, check)| {
            entry.filter(|entry| entry.check == check).map(|entry| entry.chunk)
        });
        let named = named.collect::<Vec<_>>();
        let mut groups = named.chunks(sketch::SUPER_FEATURES);
        Ok(sketches
            .iter()
            .map(|sketch| {
                sketch.as_ref()?;
                let group = groups.next()?;
                let votes = |id: &ChunkId| group.iter().flatten().filter(|o| *o == id).count();
                // Of several with as many votes the first.
                group.iter().rev().flatten().max_by_key(|id| votes(id)).copied()
            })
            .collect())
    }

    /// Forgets bases in frames that are too long to be read for the few chunks that use them, and
    /// those in frames known to be unreadable.
    fn drop_dear(&self, chunks: &[NewChunk<'_>], bases: &mut [Vec<Base>]) {
        let key = |base: &Base| (base.place.pack, base.place.frame_number);
        let mut served: HashMap<(PackNumber, u32), u64> = HashMap::new();
        for (chunk, bases) in chunks.iter().zip(bases.iter()) {
            if let Some(base) = bases.first() {
                *served.entry(key(base)).or_default() += chunk.data.len() as u64;
            }
        }
        let unreadable = self.unreadable.lock();
        for list in bases {
            list.retain(|base| {
                let served = served.get(&key(base)).copied().unwrap_or_default();
                u64::from(base.place.plain_bytes) <= served.saturating_mul(READ_FACTOR_MAX)
                    && !unreadable.contains(&key(base))
            });
        }
    }

    /// Whether to try the next frame. Where content only seems alike, trying costs without end.
    fn is_promising(&self) -> bool {
        let (tries, successes) =
            (self.tries.load(Ordering::Relaxed), self.successes.load(Ordering::Relaxed));
        tries < TRIES_MIN
            || successes.saturating_mul(TRIES_PER_SUCCESS_MAX) >= tries
            || tries.is_multiple_of(TRIES_PER_SUCCESS_MAX)
    }

    /// The next frame to try: chunks from `from` on that have bases, and where to go on. `None` when
    /// there are no more.
    ///
    /// # Errors
    /// Failures of the cache; [`Error::Cancelled`]. A base that cannot be read is done without.
    pub fn next_attempt(
        &self,
        chunks: &[NewChunk<'_>],
        found: &Found,
        from: &mut usize,
    ) -> Result<Option<Attempt>, Error> {
        let mut attempt = Attempt { chunks: Vec::new(), bases: Vec::new(), prefix: Vec::new() };
        let mut taken: HashSet<ChunkId> = HashSet::new();
        let mut bytes = 0;
        while let (Some(chunk), Some(bases)) = (chunks.get(*from), found.bases.get(*from)) {
            let new = bases.iter().filter(|base| !taken.contains(&base.id));
            let new_bytes = new.map(|base| base.place.bytes as usize).sum::<usize>();
            let full = bytes + chunk.data.len() > FRAME_BYTES
                || attempt.prefix.len() + new_bytes > PREFIX_BYTES_MAX
                || attempt.bases.len() + bases.len() > FRAME_BASES_MAX as usize;
            if full && !attempt.chunks.is_empty() {
                break;
            }
            let position = *from;
            *from += 1;
            let mut usable = !bases.is_empty() && new_bytes <= PREFIX_BYTES_MAX;
            if usable && attempt.chunks.is_empty() && !self.is_promising() {
                self.tries.fetch_add(1, Ordering::Relaxed);
                usable = false;
            }
            if usable && self.fetch(bases, &mut taken, &mut attempt)? {
                attempt.chunks.push(position);
                bytes += chunk.data.len();
            }
        }
        Ok((!attempt.chunks.is_empty()).then_some(attempt))
    }

    /// Adds the bases of one chunk to a frame, in the order in which they lie. False when the one
    /// most like it cannot be had.
    fn fetch(
        &self,
        bases: &[Base],
        taken: &mut HashSet<ChunkId>,
        attempt: &mut Attempt,
    ) -> Result<bool, Error> {
        let main = bases.first().map(|base| base.id);
        let mut ordered = bases.to_vec();
        ordered.sort_by_key(|b| (b.place.pack, b.place.frame_number, b.place.offset));
        for base in ordered {
            if taken.contains(&base.id) {
                continue;
            }
            let content = match self.reader.base(base.id, &base.place) {
                Ok(content) => content,
                Err(error @ (Error::Cancelled | Error::Index(_))) => return Err(error),
                Err(error) => {
                    self.give_up(&base, &error);
                    if Some(base.id) == main {
                        return Ok(false);
                    }
                    continue;
                }
            };
            taken.insert(base.id);
            attempt.prefix.extend_from_slice(&content);
            attempt.bases.push(ChunkRef { id: base.id, bytes: base.place.bytes });
        }
        Ok(true)
    }

    /// Remembers a frame that cannot be read; says so once.
    fn give_up(&self, base: &Base, error: &Error) {
        self.unreadable.lock().insert((base.place.pack, base.place.frame_number));
        if !self.warned.swap(true, Ordering::Relaxed) {
            self.repository.monitor().warn(Remark {
                code: "delta.base",
                subject: format!("chunk {}", base.id.short()),
                message: format!(
                    "{}: what changed since is stored whole instead of against it ({})",
                    error,
                    error.code()
                ),
            });
        }
    }

    /// Notes how a frame was stored: `bytes_stored`, or `None` without its bases.
    pub fn note(&self, chunks: &[NewChunk<'_>], attempt: &Attempt, bytes_stored: Option<usize>) {
        self.tries.fetch_add(1, Ordering::Relaxed);
        let Some(bytes_stored) = bytes_stored else { return };
        let lengths = attempt.chunks.iter().filter_map(|&index| chunks.get(index));
        let bytes = lengths.map(|chunk| chunk.data.len() as u64).sum();
        self.successes.fetch_add(1, Ordering::Relaxed);
        self.chunks.fetch_add(attempt.chunks.len() as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes_stored.fetch_add(bytes_stored as u64, Ordering::Relaxed);
    }

    /// Writes the sketches of a batch that is stored. Those of the chunks in `based` name their
    /// bases, which are the better bases for what comes next.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn remember(
        &self,
        chunks: &[NewChunk<'_>],
        found: &Found,
        based: &HashSet<usize>,
    ) -> Result<(), Error> {
        let mut new = Vec::new();
        for (index, (chunk, sketch)) in chunks.iter().zip(&found.sketches).enumerate() {
            let Some(sketch) = sketch else { continue };
            let base = found.bases.get(index).and_then(|bases| bases.first());
            let named = match base {
                Some(base) if based.contains(&index) => base.id,
                _ => chunk.id,
            };
            new.extend(entries(sketch, named));
        }
        let mut waiting = self.sketches.lock();
        waiting.append(&mut new);
        if waiting.len() < SKETCHES_PER_WRITE {
            return Ok(());
        }
        let full = std::mem::take(&mut *waiting);
        drop(waiting);
        Ok(self.catalog.index().put_sketches(&full)?)
    }

    /// Writes what is left, and says what was done.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn finish(&self) -> Result<DeltaReport, Error> {
        let rest = std::mem::take(&mut *self.sketches.lock());
        self.catalog.index().put_sketches(&rest)?;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(DeltaReport {
            chunks: load(&self.chunks),
            bytes: load(&self.bytes),
            bytes_stored: load(&self.bytes_stored),
            frames_declined: load(&self.tries).saturating_sub(load(&self.successes)),
        })
    }

    /// The namespace bases are looked up in.
    #[must_use]
    pub const fn namespace(&self) -> WriterId {
        self.namespace
    }
}
