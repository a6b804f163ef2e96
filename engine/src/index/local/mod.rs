//! The local index: what this host remembers of one repository, so that it need not ask the store.
//!
//! It is a cache in the strict sense. Deleting it costs time, never data: everything in it can be
//! loaded again from the repository's index segments, except packs of an interrupted run (they
//! are uploaded again), the file cache (files are read again) and the verify ledger (packs are
//! verified again). It never decides a deletion. Its memory is capped by
//! [`LocalOptions::memory_bytes`] whatever the size of the repository.
//!
//! What it claims is what its callers told it. A place it returns may be stale when another host
//! collected garbage meanwhile, so whoever relies on a chunk being stored resolves
//! [`ChunkPlace::pack`] to its [`PackId`] and checks that against the packs the store has.
//!
//! [`MemoryIndex`] is the twin without files: for simulation, and for builds without RocksDB.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use cairn_format::ids::{ChunkId, PackId, ReplicaId, RepositoryId, SegmentId, SessionId, WriterId};
use cairn_format::limits::{PACK_BYTES_MAX, PACK_FRAMES_MAX};
use cairn_format::names::PackKind;

mod age;
mod error;
mod memory;
#[cfg(feature = "local-index")]
mod rocks;
#[cfg(test)]
mod tests;

pub use error::IndexError;
pub use memory::MemoryIndex;

/// Which copy of which repository an index is of. Copies of one repository hold different packs, so
/// what one of them has says nothing of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CopyId {
    /// The repository.
    pub repository: RepositoryId,
    /// The copy; `None` for one that was never given an identity.
    pub replica: Option<ReplicaId>,
}

impl CopyId {
    /// Name of its folder in the folder of caches.
    #[must_use]
    pub fn folder(&self) -> String {
        match self.replica {
            None => self.repository.to_hex(),
            Some(replica) => format!("{}-{}", self.repository.to_hex(), replica.to_hex()),
        }
    }

    /// The copy whose folder has this name.
    #[must_use]
    pub fn of_folder(name: &str) -> Option<Self> {
        let (repository, replica) = match name.split_once('-') {
            None => (name, None),
            Some((repository, replica)) => (repository, Some(ReplicaId::from_hex(replica).ok()?)),
        };
        Some(Self { repository: RepositoryId::from_hex(repository).ok()?, replica })
    }

    #[cfg(feature = "local-index")]
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.repository.as_bytes().to_vec();
        bytes.extend(self.replica.iter().flat_map(|replica| *replica.as_bytes()));
        bytes
    }
}

impl From<RepositoryId> for CopyId {
    fn from(repository: RepositoryId) -> Self {
        Self { repository, replica: None }
    }
}

/// Stands for a pack in one opened index, in four bytes instead of thirty-two.
///
/// Numbers rise in the order packs are added and are never given twice, but they mean nothing
/// outside the index that gave them: another process, another host or a rebuilt index uses others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackNumber(pub u32);

/// Where a chunk lies: all that is needed to fetch, open and decode its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkPlace {
    /// The pack that holds it.
    pub pack: PackNumber,
    /// Position of the frame among the pack's frames, from 0.
    pub frame_number: u32,
    /// Where the sealed frame begins in the pack, bytes.
    pub frame_offset: u32,
    /// Length of the sealed frame, bytes.
    pub frame_bytes: u32,
    /// Length of the frame's plaintext, bytes.
    pub plain_bytes: u32,
    /// How the frame is compressed, as its directory entry says.
    pub codec: u8,
    /// Whether the frame needs base chunks to decode; see [`LocalIndex::frame_bases`].
    pub based: bool,
    /// Where the chunk begins in the frame's plaintext, bytes.
    pub offset: u32,
    /// Length of the chunk, bytes.
    pub bytes: u32,
}

impl ChunkPlace {
    /// Whether it is this place that counts of two in one pack, where `other` is listed first: what
    /// stands in a frame without bases can be read as a base too.
    fn counts_before(&self, other: &Self) -> bool {
        self.pack == other.pack && !self.based && other.based
    }
}

/// What is known of a pack as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackRecord {
    /// Its name.
    pub id: PackId,
    /// What it holds.
    pub kind: PackKind,
    /// Length of the stored object, bytes.
    pub bytes: u32,
    /// Who signed for it.
    pub writer: WriterId,
    /// The run that wrote it.
    pub session: SessionId,
    /// How many frames it has.
    pub frames: u32,
    /// How many chunks its directory lists.
    pub chunks: u32,
}

/// A pack to be remembered, as its directory describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPack {
    /// Its name.
    pub id: PackId,
    /// What it holds.
    pub kind: PackKind,
    /// Length of the stored object, bytes; at most [`PACK_BYTES_MAX`].
    pub bytes: u32,
    /// Who signed for it.
    pub writer: WriterId,
    /// The run that wrote it.
    pub session: SessionId,
    /// Its frames in order; at most [`PACK_FRAMES_MAX`].
    pub frames: Vec<NewFrame>,
}

/// One frame of a [`NewPack`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFrame {
    /// Where the sealed frame begins in the pack, bytes.
    pub offset: u32,
    /// Length of the sealed frame, bytes.
    pub sealed_bytes: u32,
    /// Length of the plaintext, bytes.
    pub plain_bytes: u32,
    /// How it is compressed, as its directory entry says.
    pub codec: u8,
    /// Its chunks with their lengths in bytes, in the order of the plaintext.
    pub chunks: Vec<(ChunkId, u32)>,
    /// The base chunks it was compressed against, with their lengths in bytes; usually none.
    pub bases: Vec<(ChunkId, u32)>,
}

/// Whether other hosts can find a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackState {
    /// It is durable in the store, but no index segment names it yet.
    Pending,
    /// An index segment in the store names it.
    Committed,
}

/// The newest verification of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// How thoroughly it was verified; the numbers are the verify operation's.
    pub level: u8,
    /// When, in milliseconds since 1970 by this host's clock.
    pub verified_ms: u64,
    /// Whether it was found intact.
    pub ok: bool,
}

/// A pack as [`LocalIndex::least_verified`] returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackAge {
    /// Its number in this index.
    pub number: PackNumber,
    /// What is known of it.
    pub record: PackRecord,
    /// Its newest verification, if there was one.
    pub verified: Option<LedgerEntry>,
}

/// Where a super-feature of a chunk's sketch is kept. There are only so many slots, and what is
/// written to one replaces what was there: that bounds them, and lets go of the oldest by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SketchSlot(pub u32);

/// What a slot says: chunks with this super-feature resemble that chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SketchEntry {
    /// Bits of the super-feature that the slot does not tell.
    pub check: u32,
    /// The chunk to be used as base.
    pub chunk: ChunkId,
}

/// How much an index holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packs, pending ones included.
    pub packs: u64,
    /// Frames of these packs.
    pub frames: u64,
    /// Chunks that these packs list: a chunk that two packs hold counts twice.
    pub chunks: u64,
    /// Stored length of these packs, bytes.
    pub pack_bytes: u64,
}

/// How an index is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalOptions {
    /// Memory for cached blocks, filters, write buffers and sorting, bytes. Smaller values than
    /// [`LocalOptions::MEMORY_BYTES_MIN`] count as that.
    pub memory_bytes: usize,
}

impl LocalOptions {
    /// The least memory an index works with, bytes.
    pub const MEMORY_BYTES_MIN: usize = 8 << 20;
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self { memory_bytes: 48 << 20 }
    }
}

/// What is still known of a pack that was removed: so much that whoever named chunks by their
/// positions in it can tell which they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GonePack {
    /// Who signed for it.
    pub writer: WriterId,
    /// The chunks it listed with their lengths in bytes, in the order of its directory.
    pub chunks: Vec<(ChunkId, u32)>,
}

/// One change of the memos, or of what objects say: a key, and the value to keep under it or `None` for
/// none.
pub type MemoChange = (Vec<u8>, Option<Vec<u8>>);

/// Is shown a pack and its newest verification, and says whether to go on.
pub type EachPack<'a> =
    dyn FnMut(PackNumber, &PackRecord, Option<LedgerEntry>) -> ControlFlow<()> + 'a;

/// What [`open`] found.
pub struct Opened {
    /// The index, ready for use.
    pub index: Arc<dyn LocalIndex>,
    /// Why it starts without anything, where it was not simply new: damage, another repository's
    /// files, an older format. A fact for a log line.
    pub rebuilt_because: Option<String>,
    /// Whether another process has the index open for writing. This one then reads what was there
    /// when it opened, without that one's pending packs, and keeps what it writes for itself: that
    /// is gone when the index is dropped, except file cache and ledger, which the next process
    /// that opens the index for writing takes over. Its pending packs are gone too.
    pub shared: bool,
}

/// Opens the index of a copy of a repository below the folder `cache`, or begins an empty one. With an empty
/// path nothing is kept: the index is in memory and gone when it is dropped.
///
/// The caller then compares [`LocalIndex::segments`] with the segments in the store, and loads or
/// removes what differs. Damage never makes this fail: a damaged index is deleted and begun anew.
///
/// # Errors
/// When the folder cannot be written: see [`IndexError`].
#[cfg(feature = "local-index")]
pub fn open(
    cache: &Path,
    copy: impl Into<CopyId>,
    options: LocalOptions,
) -> Result<Opened, IndexError> {
    if cache.as_os_str().is_empty() {
        let index = Arc::new(MemoryIndex::new());
        return Ok(Opened { index, rebuilt_because: None, shared: false });
    }
    rocks::open(cache, copy.into(), options)
}

/// Begins an empty index in memory: this build has no other.
///
/// # Errors
/// None.
#[cfg(not(feature = "local-index"))]
pub fn open(
    _cache: &Path,
    _copy: impl Into<CopyId>,
    _options: LocalOptions,
) -> Result<Opened, IndexError> {
    let rebuilt_because = Some("this build keeps its index in memory".to_owned());
    Ok(Opened { index: Arc::new(MemoryIndex::new()), rebuilt_because, shared: false })
}

/// Makes the next [`open`] start empty, and deletes the files unless another process uses them.
///
/// # Errors
/// When the folder cannot be written: see [`IndexError`].
#[cfg(feature = "local-index")]
pub fn destroy(cache: &Path, copy: impl Into<CopyId>) -> Result<(), IndexError> {
    rocks::destroy(cache, copy.into())
}

/// Does nothing: this build keeps no files.
///
/// # Errors
/// None.
#[cfg(not(feature = "local-index"))]
pub fn destroy(_cache: &Path, _copy: impl Into<CopyId>) -> Result<(), IndexError> {
    Ok(())
}

/// The index of one repository on this host.
///
/// Reads may run on any number of threads; writes wait for each other. Each write is atomic and
/// survives the death of the process, but not always a loss of power: then the newest writes are
/// gone together, in order, so that what is left never names something that is not there.
///
/// Every method fails with [`IndexError::Corrupt`] on damaged files (the next [`open`] starts
/// empty), [`IndexError::NoSpace`] on a full disk and [`IndexError::Store`] otherwise.
pub trait LocalIndex: Send + Sync {
    /// Looks up many chunks at once, which is several times faster than one by one: replaces
    /// `out` by the place of each, in the order of `ids`.
    ///
    /// Of a chunk that several packs hold, it is the place in the pack added first.
    ///
    /// # Errors
    /// See the trait.
    fn lookup_many(
        &self,
        ids: &[ChunkId],
        out: &mut Vec<Option<ChunkPlace>>,
    ) -> Result<(), IndexError>;

    /// All places of one chunk, in the order their packs were added.
    ///
    /// # Errors
    /// See the trait.
    fn copies(&self, id: &ChunkId) -> Result<Vec<ChunkPlace>, IndexError>;

    /// What is known of a pack.
    ///
    /// # Errors
    /// See the trait.
    fn pack(&self, number: PackNumber) -> Result<Option<PackRecord>, IndexError>;

    /// The number a pack goes by.
    ///
    /// # Errors
    /// See the trait.
    fn pack_number(&self, id: &PackId) -> Result<Option<PackNumber>, IndexError>;

    /// The base chunks of a frame with their lengths in bytes; empty when it has none.
    ///
    /// # Errors
    /// See the trait.
    fn frame_bases(
        &self,
        pack: PackNumber,
        frame_number: u32,
    ) -> Result<Vec<(ChunkId, u32)>, IndexError>;

    /// Remembers a pack. One that is known already keeps its number, and becomes committed if
    /// `state` says so.
    ///
    /// # Errors
    /// [`IndexError::Invalid`] when the pack breaks a limit; otherwise see the trait.
    fn add_pack(&self, pack: &NewPack, state: PackState) -> Result<PackNumber, IndexError>;

    /// Notes in one step that `segment` names these packs and is loaded. Packs that are not
    /// known are passed over.
    ///
    /// # Errors
    /// See the trait.
    fn commit_packs(&self, packs: &[PackId], segment: &SegmentId) -> Result<(), IndexError>;

    /// The packs that no index segment names yet, in the order they were added: what an
    /// interrupted run left, and what the present one added.
    ///
    /// # Errors
    /// See the trait.
    fn pending_packs(&self) -> Result<Vec<PackId>, IndexError>;

    /// Forgets a pack, its ledger entry, and the places in it. A chunk that another pack holds
    /// too is then found there. Returns whether the pack was known. While there are memos, what the
    /// pack held is still told by [`LocalIndex::gone_pack`].
    ///
    /// # Errors
    /// See the trait.
    fn remove_pack(&self, id: &PackId) -> Result<bool, IndexError>;

    /// Begins to load many packs, much faster than by [`LocalIndex::add_pack`].
    ///
    /// Other writes wait until the load is finished or dropped, also those of the same thread:
    /// do not write through the index meanwhile.
    ///
    /// # Errors
    /// See the trait.
    fn begin_load(&self) -> Result<Box<dyn BulkLoad + '_>, IndexError>;

    /// The index segments that are loaded, in ascending order.
    ///
    /// # Errors
    /// See the trait.
    fn segments(&self) -> Result<Vec<SegmentId>, IndexError>;

    /// Notes that all packs of a segment are loaded: call it after adding them.
    ///
    /// # Errors
    /// See the trait.
    fn add_segment(&self, id: &SegmentId) -> Result<(), IndexError>;

    /// Forgets that a segment was loaded; its packs stay.
    ///
    /// # Errors
    /// See the trait.
    fn remove_segment(&self, id: &SegmentId) -> Result<(), IndexError>;

    /// Reads one entry of the file cache. Keys and values are the caller's.
    ///
    /// # Errors
    /// See the trait.
    fn get_file(&self, key: &[u8; 32]) -> Result<Option<Vec<u8>>, IndexError>;

    /// Writes entries of the file cache.
    ///
    /// # Errors
    /// See the trait.
    fn put_files(&self, files: &[([u8; 32], Vec<u8>)]) -> Result<(), IndexError>;

    /// Removes the entries of the file cache that `keep` refuses; returns how many. `keep` must
    /// not use the index.
    ///
    /// # Errors
    /// See the trait.
    fn retain_files(
        &self,
        keep: &mut dyn FnMut(&[u8; 32], &[u8]) -> bool,
    ) -> Result<u64, IndexError>;

    /// The newest verification of a pack.
    ///
    /// # Errors
    /// See the trait.
    fn ledger_get(&self, id: &PackId) -> Result<Option<LedgerEntry>, IndexError>;

    /// Notes verifications. Packs that are not known are passed over.
    ///
    /// # Errors
    /// See the trait.
    fn ledger_put(&self, entries: &[(PackId, LedgerEntry)]) -> Result<(), IndexError>;

    /// Shows every pack in the order of the numbers, until `each` breaks off. The index may be
    /// written meanwhile, also by `each`.
    ///
    /// # Errors
    /// See the trait.
    fn for_each_pack(&self, each: &mut EachPack<'_>) -> Result<(), IndexError>;

    /// Shows every chunk a pack lists, in the order of its directory, until `each` breaks off.
    /// Shows nothing when the pack is not known.
    ///
    /// # Errors
    /// See the trait.
    fn for_each_chunk_of_pack(
        &self,
        number: PackNumber,
        each: &mut dyn FnMut(&ChunkId, &ChunkPlace) -> ControlFlow<()>,
    ) -> Result<(), IndexError>;
    /// What slots hold, in the order asked for. It is a hint that may be stale or wrong.
    ///
    /// # Errors
    /// See the trait.
    fn get_sketches(&self, slots: &[SketchSlot]) -> Result<Vec<Option<SketchEntry>>, IndexError>;

    /// Fills slots; of several entries for one slot the last stays.
    ///
    /// # Errors
    /// See the trait.
    fn put_sketches(&self, entries: &[(SketchSlot, SketchEntry)]) -> Result<(), IndexError>;

    /// Reads one memo: what a collection remembers for the next one. Keys and values are the
    /// caller's. In an index that [`Opened::shared`] tells of, memos that are written are gone with it.
    ///
    /// # Errors
    /// See the trait.
    fn get_memo(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;

    /// Writes and deletes memos in one step.
    ///
    /// # Errors
    /// See the trait.
    fn put_memos(&self, changes: &[MemoChange]) -> Result<(), IndexError>;

    /// The keys of memos that begin with `prefix`, in ascending order.
    ///
    /// # Errors
    /// See the trait.
    fn memo_keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, IndexError>;

    /// Reads what is remembered of an object in the store. Keys and values are the caller's. Unlike
    /// memos, this has no part in what is remembered of packs that were removed.
    ///
    /// # Errors
    /// See the trait.
    fn get_object(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;

    /// Remembers and forgets what objects say, in one step. In an index that [`Opened::shared`] tells
    /// of, what is written is gone with it.
    ///
    /// # Errors
    /// See the trait.
    fn put_objects(&self, changes: &[MemoChange]) -> Result<(), IndexError>;

    /// The keys of objects of which something is remembered that begin with `prefix`, in ascending
    /// order.
    ///
    /// # Errors
    /// See the trait.
    fn object_keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, IndexError>;

    /// What is known of a pack that was removed while there were memos, until it is forgotten by
    /// [`LocalIndex::forget_gone_packs`].
    ///
    /// # Errors
    /// See the trait.
    fn gone_pack(&self, number: PackNumber) -> Result<Option<GonePack>, IndexError>;

    /// The packs that [`LocalIndex::gone_pack`] knows, in ascending order.
    ///
    /// # Errors
    /// See the trait.
    fn gone_packs(&self) -> Result<Vec<PackNumber>, IndexError>;

    /// Forgets packs that were removed altogether.
    ///
    /// # Errors
    /// See the trait.
    fn forget_gone_packs(&self, numbers: &[PackNumber]) -> Result<(), IndexError>;
    /// Removes sketches of chunks for which `is_gone` holds; returns how many. `is_gone` must not
    /// use the index.
    ///
    /// # Errors
    /// See the trait.
    fn forget_sketches(&self, is_gone: &mut dyn FnMut(&ChunkId) -> bool)
    -> Result<u64, IndexError>;

    /// Writes the files anew, so that nothing is left in them of what was removed: until then it
    /// is only marked as removed. The journal of the files still names the bounds of those before,
    /// until the index is opened the next time. False, and nothing done, while another process
    /// writes the index. Takes as long as reading and writing all of it.
    ///
    /// # Errors
    /// See the trait.
    fn compact(&self) -> Result<bool, IndexError>;

    /// How much the index holds.
    ///
    /// # Errors
    /// See the trait.
    fn counts(&self) -> Result<Counts, IndexError>;

    /// The number that the next pack added gets, or a lower one.
    ///
    /// # Errors
    /// See the trait.
    fn next_number(&self) -> Result<PackNumber, IndexError>;

    /// Reads a value that the caller keeps here under a name of its own.
    ///
    /// # Errors
    /// See the trait.
    fn meta_get(&self, name: &str) -> Result<Option<Vec<u8>>, IndexError>;

    /// Keeps a value under a name.
    ///
    /// # Errors
    /// See the trait.
    fn meta_put(&self, name: &str, value: &[u8]) -> Result<(), IndexError>;

    /// The packs that most need verifying, at most `limit`: first those never verified, then
    /// those found damaged, then the others from the oldest verification on. Memory follows
    /// `limit`, not the size of the repository.
    ///
    /// # Errors
    /// See the trait.
    fn least_verified(&self, limit: usize) -> Result<Vec<PackAge>, IndexError> {
        age::least_verified(self, limit)
    }
}

/// A load of many packs that is under way. Dropping it takes back everything it added.
///
/// Packs may be seen before it is finished; their chunks are surely found only afterwards.
pub trait BulkLoad {
    /// Adds a committed pack. One that is known already becomes committed.
    ///
    /// # Errors
    /// As [`LocalIndex::add_pack`]. After an error the load can only be dropped.
    fn add(&mut self, pack: &NewPack) -> Result<(), IndexError>;

    /// Keeps the packs, and notes in the same step that these segments are loaded.
    ///
    /// # Errors
    /// See [`LocalIndex`]; then nothing of the load is kept.
    fn finish(self: Box<Self>, segments: &[SegmentId]) -> Result<(), IndexError>;
}

impl NewPack {
    /// Checks the limits that the index relies on, and counts the chunks listed.
    fn check(&self) -> Result<u32, IndexError> {
        let invalid = |reason| IndexError::Invalid { pack: self.id, reason };
        if self.bytes > PACK_BYTES_MAX {
            return Err(invalid("it is larger than a pack may be"));
        }
        if self.frames.len() > PACK_FRAMES_MAX as usize {
            return Err(invalid("it has more frames than a pack may have"));
        }
        let mut chunks = 0_u32;
        for frame in &self.frames {
            if frame.offset.checked_add(frame.sealed_bytes).is_none_or(|end| end > self.bytes) {
                return Err(invalid("a frame ends outside the pack"));
            }
            let listed = frame.chunks.iter().map(|(_, bytes)| u64::from(*bytes)).sum::<u64>();
            if listed > u64::from(frame.plain_bytes) {
                return Err(invalid("the chunks of a frame are longer than its plaintext"));
            }
            chunks = u32::try_from(frame.chunks.len())
                .ok()
                .and_then(|more| chunks.checked_add(more))
                .ok_or_else(|| invalid("it lists too many chunks"))?;
        }
        Ok(chunks)
    }

    fn record(&self, chunks: u32) -> PackRecord {
        PackRecord {
            id: self.id,
            kind: self.kind,
            bytes: self.bytes,
            writer: self.writer,
            session: self.session,
            frames: u32::try_from(self.frames.len()).unwrap_or(u32::MAX),
            chunks,
        }
    }

    /// Every chunk listed with its place, in the order of the directory. Call after
    /// [`Self::check`], which rules out that offsets overflow.
    fn places(&self, pack: PackNumber) -> impl Iterator<Item = (ChunkId, ChunkPlace)> + '_ {
        (0_u32..).zip(&self.frames).flat_map(move |(frame_number, frame)| {
            frame.chunks.iter().scan(0_u32, move |end, &(id, bytes)| {
                let offset = *end;
                *end = offset.saturating_add(bytes);
                let place = ChunkPlace {
                    pack,
                    frame_number,
                    frame_offset: frame.offset,
                    frame_bytes: frame.sealed_bytes,
                    plain_bytes: frame.plain_bytes,
                    codec: frame.codec,
                    based: !frame.bases.is_empty(),
                    offset,
                    bytes,
                };
                Some((id, place))
            })
        })
    }
}
