//! Deltas: new chunks are stored against chunks they resemble, so that what is stored follows what
//! changed (SPEC §6.3; the measurements behind it are in the changes' history).
//!
//! What a chunk was is found by place, the chunk that held the same offset of the same file in the
//! snapshot before, and by sketch, the chunk that shares most content wherever it lies. Bases lie in
//! frames without bases: what was itself stored as a delta stands in with all bases of its frame.
//!
//! Deltas against the first day alone would repeat all changes since, every day. So the bytes of a
//! frame that no base explains are stored beside it as a *patch*, a chunk like any other in a frame
//! without bases, which the frame names as one more base; the frame itself is copies and little
//! else. The next day finds the patch among the bases of what the chunk was, and has to pay for
//! what is new that day, and for the copies. Changes that lie near each other are taken into a patch
//! in one piece, with what lies between, so that one copy fetches them.
//!
//! All of this is an optimisation: where a base cannot be had cheaply, the chunk is stored as it is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cairn_format::ids::{ChunkId, WriterId};
use cairn_format::limits::{FRAME_BASE_BYTES_MAX, FRAME_BASES_MAX, FRAME_PLAIN_BYTES_MAX};
use cairn_format::names::PackKind;
use cairn_format::pack::ChunkRef;
use parking_lot::Mutex;

pub use self::attempt::{Attempt, EncodedFrame};
use self::find::Finder;
use self::luck::{Lucks, Miss, Subject};
use self::sketch::{Sketch, Sketcher};
use crate::collect::memo::Memos;
use crate::collect::tried::Tried;
use crate::context::Remark;
use crate::error::{Error, Explain};
use crate::index::catalog::Catalog;
use crate::index::local::{ChunkPlace, MemoChange, PackNumber, SketchEntry, SketchSlot};
use crate::repo::Repository;
use crate::repo::chunks::ChunkReader;

mod attempt;
mod find;
mod luck;
pub mod parse;
pub mod patch;
pub mod sketch;

/// Plaintext of a frame of copies, bytes: naming bases and patches costs less, the longer it is.
pub const FRAME_BYTES: usize = FRAME_PLAIN_BYTES_MAX as usize;
/// Plaintext of a frame of tree nodes with bases, bytes.
pub const TREE_FRAME_BYTES: usize = 512 << 10;
/// Bases that are looked at for one frame, bytes. Most are left out again.
pub const PREFIX_BYTES_MAX: usize = 12 << 20;
/// The same of tree nodes, which are left to zstd's own search, bytes.
pub const TREE_PREFIX_BYTES_MAX: usize = 2 << 20;
/// Chunks shorter than this are not worth a look for a base, bytes: naming it costs 70.
const CHUNK_BYTES_MIN: usize = 2 << 10;
/// A frame is read for its bases when it is at most so many times as long as the new chunks that
/// use them.
const READ_FACTOR_MAX: u64 = 64;
/// Slots of each super-feature. All together they take at most 600 MB of the cache.
const SLOTS: u64 = 1 << 22;
/// Sketches written at once.
const SKETCHES_PER_WRITE: usize = 3 << 10;
/// What stands for a file's number where nodes of the tree are stored.
pub const TREE: u64 = u64::MAX;
/// Bytes that naming one base costs in the pack's directory and in a segment.
pub const LISTING_BYTES: usize = 70;

// A patch is no longer than the frame.
const _: () = assert!(PREFIX_BYTES_MAX + FRAME_BYTES <= FRAME_BASE_BYTES_MAX as usize);

/// What is known of a chunk besides its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// The number of the file that it is part of, from 1 on; [`TREE`] of tree nodes.
    pub file: u64,
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
    /// What is to be remembered of frames that were tried and stored whole.
    declined: Mutex<Vec<MemoChange>>,
    lucks: Lucks,
    frames_declined: AtomicU64,
    chunks: AtomicU64,
    bytes: AtomicU64,
    bytes_stored: AtomicU64,
}

/// What was found for the chunks of a batch.
pub struct Found {
    sketches: Vec<Option<Sketch>>,
    /// For each chunk whether its sketch told of another one.
    alike: Vec<bool>,
    /// For each chunk the bases it may have.
    bases: Vec<Arc<[Base]>>,
}

/// Slots and entries of a sketch that names `chunk`.
fn entries(sketch: &Sketch, chunk: ChunkId) -> impl Iterator<Item = (SketchSlot, SketchEntry)> {
    (0_u64..).zip(*sketch).map(move |(number, feature)| {
        let slot = number * SLOTS + feature % SLOTS;
        let check = (feature >> 32) as u32;
        (SketchSlot(u32::try_from(slot).unwrap_or(u32::MAX)), SketchEntry { check, chunk })
    })
}

/// The chunks from `from` on that go into the next frame to try, with all their bases, and where to
/// go on.
fn choose(
    kind: PackKind,
    chunks: &[NewChunk<'_>],
    found: &Found,
    from: &mut usize,
) -> (Vec<usize>, Vec<Base>) {
    let (frame_bytes_max, prefix_bytes_max) = match kind {
        PackKind::Data => (FRAME_BYTES, PREFIX_BYTES_MAX),
        PackKind::Tree => (TREE_FRAME_BYTES, TREE_PREFIX_BYTES_MAX),
    };
    let mut chosen = Vec::new();
    let mut taken: HashSet<ChunkId> = HashSet::new();
    let mut bases_of_all: Vec<Base> = Vec::new();
    let (mut bytes, mut prefix_bytes) = (0, 0);
    while let (Some(chunk), Some(bases)) = (chunks.get(*from), found.bases.get(*from)) {
        let new = bases.iter().filter(|base| !taken.contains(&base.id)).collect::<Vec<_>>();
        let new_bytes = new.iter().map(|base| base.place.bytes as usize).sum::<usize>();
        let full = bytes + chunk.data.len() > frame_bytes_max
            || prefix_bytes + new_bytes > prefix_bytes_max
            || taken.len() + new.len() >= FRAME_BASES_MAX as usize;
        if full && !chosen.is_empty() {
            break;
        }
        *from += 1;
        if bases.is_empty() || full {
            continue;
        }
        chosen.push(*from - 1);
        bytes += chunk.data.len();
        prefix_bytes += new_bytes;
        for base in new {
            if taken.insert(base.id) {
                bases_of_all.push(*base);
            }
        }
    }
    (chosen, bases_of_all)
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
            declined: Mutex::default(),
            lucks: Lucks::default(),
            frames_declined: AtomicU64::new(0),
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
        let alike = alike.iter().map(Option::is_some).collect();
        Ok(Found { sketches, alike, bases })
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
    fn drop_dear(&self, chunks: &[NewChunk<'_>], bases: &mut [Arc<[Base]>]) {
        let key = |base: &Base| (base.place.pack, base.place.frame_number);
        let mut served: HashMap<(PackNumber, u32), u64> = HashMap::new();
        for (chunk, bases) in chunks.iter().zip(bases.iter()) {
            let mut frames = bases.iter().map(key).collect::<Vec<_>>();
            frames.sort_unstable();
            frames.dedup();
            for frame in frames {
                *served.entry(frame).or_default() += chunk.data.len() as u64;
            }
        }
        let unreadable = self.unreadable.lock();
        let fair = |base: &Base| {
            let served = served.get(&key(base)).copied().unwrap_or_default();
            u64::from(base.place.plain_bytes) <= served.saturating_mul(READ_FACTOR_MAX)
                && !unreadable.contains(&key(base))
        };
        for list in bases {
            if !list.iter().all(fair) {
                *list = list.iter().filter(|base| fair(base)).copied().collect();
            }
        }
    }

    /// Notes which files are, in part, what they were: there bases are of use.
    pub fn note_unchanged(&self, ids: &[ChunkId], hints: &[Hint]) {
        let mut last = None;
        for (id, hint) in ids.iter().zip(hints) {
            if hint.former == Some(*id) && last != Some(hint.file) {
                self.lucks.alike(hint.file);
                last = Some(hint.file);
            }
        }
    }

    /// What it is that is tried with those chunks.
    fn subject(chunks: &[NewChunk<'_>], found: &Found, chosen: &[usize]) -> Subject {
        let file = |index: Option<&usize>| {
            index.and_then(|&index| chunks.get(index)).map_or(0, |chunk| chunk.hint.file)
        };
        let (first, last) = (file(chosen.first()), file(chosen.last()));
        let by_sketch = chosen.iter().any(|&index| found.alike.get(index) == Some(&true));
        Subject { file: if first == last { first } else { 0 }, by_sketch }
    }

    /// The next frame to try: chunks from `from` on that have bases, and where to go on. `None` when
    /// there are no more.
    ///
    /// # Errors
    /// Failures of the cache; [`Error::Cancelled`]. A base that cannot be read is done without.
    pub fn next_attempt(
        &self,
        kind: PackKind,
        chunks: &[NewChunk<'_>],
        found: &Found,
        from: &mut usize,
    ) -> Result<Option<Attempt>, Error> {
        loop {
            let (chosen, bases) = choose(kind, chunks, found, from);
            if chosen.is_empty() {
                return Ok(None);
            }
            if !self.lucks.is_promising(Self::subject(chunks, found, &chosen)) {
                continue;
            }
            let parts = chosen.iter().filter_map(|&index| chunks.get(index));
            let plain = parts.map(|chunk| chunk.data).collect::<Vec<_>>().concat();
            let mut attempt = Attempt { chunks: chosen, ..Attempt::of(plain) };
            self.fetch(bases, &mut attempt)?;
            attempt.prepare(kind);
            return Ok(Some(attempt));
        }
    }

    /// Fetches the bases of a frame, in the order in which they lie, older packs first: so patches
    /// come last. One that cannot be had is left out.
    fn fetch(&self, mut bases: Vec<Base>, attempt: &mut Attempt) -> Result<(), Error> {
        bases.sort_by_key(|b| (b.place.pack, b.place.frame_number, b.place.offset));
        attempt.prefix.reserve(bases.iter().map(|base| base.place.bytes as usize).sum());
        for base in &bases {
            let content = match self.reader.base(base.id, &base.place) {
                Ok(content) => content,
                Err(error @ (Error::Cancelled | Error::Index(_))) => return Err(error),
                Err(error) => {
                    self.give_up(base, &error);
                    continue;
                }
            };
            let named = ChunkRef { id: base.id, bytes: base.place.bytes };
            attempt.add_base(named, &content, base.place.pack);
        }
        Ok(())
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
    pub fn note(
        &self,
        chunks: &[NewChunk<'_>],
        found: &Found,
        attempt: &Attempt,
        bytes_stored: Option<usize>,
    ) {
        let subject = Self::subject(chunks, found, &attempt.chunks);
        let Some(bytes_stored) = bytes_stored else {
            let stranger = attempt.bases.is_empty();
            self.lucks.missed(subject, if stranger { Miss::Stranger } else { Miss::Unpaid });
            self.frames_declined.fetch_add(1, Ordering::Relaxed);
            self.declined.lock().extend(self.tried(chunks, attempt));
            return;
        };
        self.lucks.alike(subject.file);
        let lengths = attempt.chunks.iter().filter_map(|&index| chunks.get(index));
        let bytes = lengths.map(|chunk| chunk.data.len() as u64).sum();
        self.chunks.fetch_add(attempt.chunks.len() as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes_stored.fetch_add(bytes_stored as u64, Ordering::Relaxed);
    }

    /// What is to be remembered of a frame for which bases did not pay: a collection may try others.
    fn tried(&self, chunks: &[NewChunk<'_>], attempt: &Attempt) -> Option<MemoChange> {
        attempt.copies.as_ref()?;
        let chosen = attempt.chunks.iter().filter_map(|&index| chunks.get(index));
        let named = chosen.filter_map(|chunk| {
            Some(ChunkRef { id: chunk.id, bytes: u32::try_from(chunk.data.len()).ok()? })
        });
        let tried = Tried { chunks: named.collect(), bases: attempt.bases.clone() };
        tried.change(&Memos::new(self.repository.vault(), self.catalog))
    }

    /// Writes the sketches of a batch that is stored. What was stored as a delta leads to its bases.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn remember(&self, chunks: &[NewChunk<'_>], found: &Found) -> Result<(), Error> {
        let sketches = chunks.iter().zip(&found.sketches);
        let mut new = sketches
            .filter_map(|(chunk, sketch)| Some((chunk.id, sketch.as_ref()?)))
            .flat_map(|(id, sketch)| entries(sketch, id))
            .collect();
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
        self.catalog.index().put_memos(&std::mem::take(&mut *self.declined.lock()))?;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(DeltaReport {
            chunks: load(&self.chunks),
            bytes: load(&self.bytes),
            bytes_stored: load(&self.bytes_stored),
            frames_declined: load(&self.frames_declined),
        })
    }

    /// The namespace bases are looked up in.
    #[must_use]
    pub const fn namespace(&self) -> WriterId {
        self.namespace
    }
}
