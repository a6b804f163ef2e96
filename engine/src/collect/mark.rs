//! Marks what snapshots need. Whatever cannot be told stops the collection: what is not known to
//! be dead is alive.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cairn_format::ids::{ChunkId, WriterId};
use cairn_format::segment::NAMESPACE_TRUSTED;

use super::marks::{Layouts, Marks};
use super::memo::Memos;
use super::reach::{Reach, reach};
use super::tidy::tidy;
use super::tried::Tried;
use super::walk::{Halt, Scope, walk};
use crate::context::Remark;
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::local::{ChunkPlace, PackNumber};
use crate::ops::snapshots::{self, SnapshotInfo};
use crate::repo::Repository;

mod follow;

/// What is needed, as far as it was marked.
pub struct Marked<'a> {
    repository: &'a Repository,
    catalog: &'a Catalog,
    layouts: Layouts<'a>,
    /// Chunks that snapshots need, each in the place it is read from.
    pub live: Marks,
    /// A mark was set since this was last looked at.
    fresh: bool,
    /// Bytes of chunks that no snapshot needs, and that are kept as bases.
    pub bytes_held: u64,
    /// Frames with bases that no snapshot needs: they are stored anew when bases must go.
    pub orphans: HashSet<(PackNumber, u32)>,
    /// What is marked only because it is a patch.
    patches: Marks,
    /// Frames that were found to be orphans: with a frame that is stored anew its patch goes.
    unpatched: HashSet<(PackNumber, u32)>,
    /// Chunks that stand in frames without bases, and are tried once more against others: they do not
    /// stay as bases where they are.
    pub renewed: Marks,
    /// What those were tried against before.
    tried: HashMap<ChunkId, Arc<Tried>>,
    /// About how many bytes that takes.
    tried_bytes: usize,
    /// Chunks that must stay as they are.
    settled: HashSet<ChunkId>,
    /// Bases that go, with the first pack in which a frame is an orphan for it.
    losses: HashMap<ChunkId, PackNumber>,
    /// Packs that were found damaged: they stay while anything in them is needed, and every copy of
    /// that is kept.
    pub doubtful: HashSet<PackNumber>,
    /// Frames whose bases are gone: what is needed of them is kept elsewhere.
    broken: HashSet<(PackNumber, u32)>,
    /// What acknowledged snapshots need, if that is less than all that is marked: their chunks must
    /// be there, those of others may be missing.
    assured: Option<Marks>,
}

/// How to find out what is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thoroughness {
    /// What earlier collections found nodes to point to is not read again.
    Remembering,
    /// What they remember is forgotten first: everything is read.
    Anew,
    /// Nothing is remembered, neither before nor after: every chunk of every snapshot is looked up by
    /// itself. The other ways must mark the same.
    Careful,
}

impl<'a> Marked<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        catalog: &'a Catalog,
        doubtful: &HashSet<PackNumber>,
    ) -> Self {
        Self {
            repository,
            catalog,
            layouts: Layouts::new(catalog),
            live: Marks::default(),
            fresh: false,
            bytes_held: 0,
            orphans: HashSet::new(),
            patches: Marks::default(),
            unpatched: HashSet::new(),
            renewed: Marks::default(),
            tried: HashMap::new(),
            tried_bytes: 0,
            settled: HashSet::new(),
            losses: HashMap::new(),
            doubtful: doubtful.clone(),
            broken: HashSet::new(),
            assured: None,
        }
    }

    /// Says that acknowledged snapshots are marked, and those follow whose chunks may be missing.
    pub(super) fn end_of_assured(&mut self) {
        if self.assured.is_none() {
            self.assured = Some(self.live.clone());
        }
    }

    /// Whether an acknowledged snapshot may need a chunk, in whichever of these places.
    fn is_assured(&mut self, copies: &[ChunkPlace]) -> Result<bool, Error> {
        let Some(assured) = &self.assured else { return Ok(true) };
        for copy in copies {
            if assured.get(copy.pack, self.layouts.position(copy)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a frame has lost a base: what acknowledged snapshots need of it is kept elsewhere.
    pub(super) fn is_broken(&self, pack: PackNumber, frame: u32) -> bool {
        self.broken.contains(&(pack, frame))
    }

    /// The index.
    pub(super) fn catalog(&self) -> &'a Catalog {
        self.catalog
    }

    /// Position of a chunk in the directory of its pack.
    pub(super) fn position(&mut self, place: &ChunkPlace) -> Result<usize, Error> {
        self.layouts.position(place)
    }
}

/// The order in which snapshots are marked: acknowledged ones first, so that what others may lack is
/// never passed over for their sake. Then trusted ones first: what they were found to need serves
/// every namespace. Then the oldest first: what is remembered of them is what they reach beyond those
/// before.
pub(super) fn in_order(snapshots: &[SnapshotInfo]) -> Vec<&SnapshotInfo> {
    let mut order = snapshots.iter().collect::<Vec<_>>();
    order.sort_by_key(|one| {
        let namespace = (one.namespace != NAMESPACE_TRUSTED, one.namespace);
        (!one.acknowledged, namespace, one.name_time_ms, one.id)
    });
    order
}

/// Marks everything that these snapshots reach.
///
/// A snapshot that is not acknowledged may lack chunks: its writer, if it lives, proves that all of
/// them are there before it acknowledges. What it still has is kept for it.
///
/// # Errors
/// [`Error::LivenessUnknown`] when a chunk of an acknowledged snapshot is in no pack, or a tree
/// cannot be read; failures of the store and the cache.
pub fn mark<'a>(
    repository: &'a Repository,
    catalog: &'a Catalog,
    snapshots: &[SnapshotInfo],
    doubtful: &HashSet<PackNumber>,
    how: Thoroughness,
) -> Result<Marked<'a>, Error> {
    let memos = Memos::new(repository.vault(), catalog);
    if how == Thoroughness::Anew {
        memos.clear()?;
    }
    let attempts = if how == Thoroughness::Careful { 0 } else { ATTEMPTS };
    for attempt in 0..attempts {
        if attempt > 0 {
            // The index may be older than what a writer did to acknowledge its snapshot.
            repository.refresh_catalog()?;
        }
        match mark_remembering(repository, catalog, snapshots, doubtful, &memos) {
            Ok(marked) => return Ok(marked),
            Err(Halt::Unclear) => {}
            Err(Halt::Useless) => memos.clear()?,
            Err(Halt::False) => {
                memos.clear()?;
                warn_of_false(repository);
            }
            Err(Halt::Failed(error)) => return Err(error),
        }
    }
    mark_carefully(repository, catalog, snapshots, doubtful)
}

/// Walks with what is remembered, and compares some of it with what is stored.
fn mark_remembering<'a>(
    repository: &'a Repository,
    catalog: &'a Catalog,
    snapshots: &[SnapshotInfo],
    doubtful: &HashSet<PackNumber>,
    memos: &Memos<'a>,
) -> Result<Marked<'a>, Halt> {
    let mut marked = Marked::new(repository, catalog, doubtful);
    let packs = memos.open(catalog, &|pack| doubtful.contains(&pack))?;
    let all = (snapshots, Scope::All);
    let mut walked = walk(repository, memos, &packs, all, &mut marked)?;
    match walked.recall.compare(repository, catalog) {
        Ok(true) => {}
        Ok(false) => return Err(Halt::False),
        Err(error) if error.is_damage() || error.has_vanished() => return Err(Halt::Unclear),
        Err(error) => return Err(error.into()),
    }
    tidy(&mut walked, catalog, &packs, marked.live.count())?;
    Ok(marked)
}

fn warn_of_false(repository: &Repository) {
    repository.monitor().warn(Remark {
        code: "gc.memo",
        subject: repository.context.cache_dir.display().to_string(),
        message:
            "what this host remembers of tree nodes is not what they say; it is forgotten, and \
                  everything is read"
                .to_owned(),
    });
}

/// Marks with nothing but what the store says.
fn mark_carefully<'a>(
    repository: &'a Repository,
    catalog: &'a Catalog,
    snapshots: &[SnapshotInfo],
    doubtful: &HashSet<PackNumber>,
) -> Result<Marked<'a>, Error> {
    let mut marked = Marked::new(repository, catalog, doubtful);
    let (mut seen_trusted, mut seen_own) = (Marks::default(), Marks::default());
    let mut namespace = NAMESPACE_TRUSTED;
    for snapshot in in_order(snapshots) {
        repository.check_cancelled()?;
        if snapshot.namespace != namespace {
            namespace = snapshot.namespace;
            seen_own.clear();
        }
        if !snapshot.acknowledged {
            marked.end_of_assured();
        }
        let nodes = repository.nodes(snapshot)?;
        let mut walk = Walk {
            repository,
            marked: &mut marked,
            seen_trusted: &mut seen_trusted,
            seen_own: &mut seen_own,
            namespace,
            tolerant: !snapshot.acknowledged,
            object: format!("snapshot {}", snapshot.id),
        };
        match reach(&nodes, snapshot.record.root, &mut walk) {
            Err(Error::LivenessUnknown { .. })
                if snapshots::is_forgotten(repository, snapshot)? => {}
            outcome => outcome?,
        }
    }
    Ok(marked)
}

/// How often it is tried to mark with what is remembered.
const ATTEMPTS: usize = 2;
/// How often a place is looked up that a collection beside this one takes away meanwhile.
const LOOKUPS_MAX: usize = 4;

struct Walk<'w, 'a> {
    repository: &'w Repository,
    marked: &'w mut Marked<'a>,
    seen_trusted: &'w mut Marks,
    seen_own: &'w mut Marks,
    namespace: WriterId,
    /// Chunks may be missing.
    tolerant: bool,
    object: String,
}

impl Walk<'_, '_> {
    fn unknown(&self, error: &Error) -> Error {
        Error::LivenessUnknown { object: self.object.clone(), message: error.to_string() }
    }

    /// Marks a chunk; returns its place and position, `None` when it is missing and may be.
    fn mark(
        &mut self,
        id: ChunkId,
        place: Option<ChunkPlace>,
    ) -> Result<Option<(ChunkPlace, usize)>, Error> {
        let (mut place, mut refreshed) = (place, self.tolerant);
        for _ in 0..LOOKUPS_MAX {
            let Some(found) = place else {
                if refreshed {
                    let missing = Error::ChunkMissing { chunk: id };
                    return if self.tolerant { Ok(None) } else { Err(self.unknown(&missing)) };
                }
                // The index may be older than what its writer did to acknowledge it.
                refreshed = true;
                self.repository.refresh_catalog()?;
                place = self.marked.catalog.places(&[id], self.namespace)?.pop().flatten();
                continue;
            };
            match self.marked.set(id, &found, self.namespace) {
                Ok(position) => return Ok(Some((found, position))),
                Err(error) if error.has_vanished() => {
                    self.repository.refresh_catalog()?;
                    place = self.marked.catalog.places(&[id], self.namespace)?.pop().flatten();
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::PlaceStale)
    }
}

impl Reach for Walk<'_, '_> {
    fn node(&mut self, id: &ChunkId) -> Result<bool, Error> {
        let place = self.marked.catalog.places(&[*id], self.namespace)?.pop().flatten();
        let Some((place, position)) = self.mark(*id, place)? else { return Ok(false) };
        if self.seen_trusted.get(place.pack, position) {
            return Ok(false);
        }
        let seen = match self.namespace {
            NAMESPACE_TRUSTED => &mut *self.seen_trusted,
            _ => &mut *self.seen_own,
        };
        Ok(seen.set(place.pack, position))
    }

    fn data(&mut self, chunks: &[(ChunkId, u32)]) -> Result<(), Error> {
        self.repository.check_cancelled()?;
        let ids = chunks.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        let places = self.marked.catalog.places(&ids, self.namespace)?;
        for ((id, bytes), place) in chunks.iter().zip(places) {
            if place.is_some_and(|place| place.bytes != *bytes) {
                let message = format!("chunk {} has another length than it needs", id.short());
                return Err(Error::LivenessUnknown { object: self.object.clone(), message });
            }
            self.mark(*id, place)?;
        }
        Ok(())
    }

    fn unreadable(&mut self, _: &ChunkId, error: Error) -> Result<(), Error> {
        if self.tolerant && is_missing(&error) { Ok(()) } else { Err(self.unknown(&error)) }
    }
}

/// Whether a chunk cannot be had because it, or what it is stored against, is not there.
pub(crate) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::ChunkMissing { .. } | Error::BaseMissing { .. }) || error.has_vanished()
}

impl Marked<'_> {
    /// Marks a chunk in a place; returns its position.
    pub(super) fn set(
        &mut self,
        id: ChunkId,
        place: &ChunkPlace,
        namespace: WriterId,
    ) -> Result<usize, Error> {
        let position = self.lean_on(id, place, namespace)?;
        self.patches.unset(place.pack, position);
        Ok(position)
    }

    /// As [`Self::set`], of what is needed no longer when the frames that name it are stored anew.
    fn lean_on(
        &mut self,
        id: ChunkId,
        place: &ChunkPlace,
        namespace: WriterId,
    ) -> Result<usize, Error> {
        let position = self.layouts.position(place)?;
        self.fresh |= self.live.set(place.pack, position);
        if self.doubtful.contains(&place.pack) {
            self.keep_copies(id, namespace)?;
        }
        Ok(position)
    }

    /// Marks every copy of a chunk; true when one was not marked before.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn keep_copies(&mut self, id: ChunkId, namespace: WriterId) -> Result<bool, Error> {
        let mut fresh = false;
        for copy in self.catalog.copies(id, namespace)? {
            let position = self.layouts.position(&copy)?;
            fresh |= self.live.set(copy.pack, position);
            self.patches.unset(copy.pack, position);
        }
        self.fresh |= fresh;
        Ok(fresh)
    }

    /// Notes that a pack was found damaged: it stays, and so does every other copy of what is needed
    /// of it. True when that is news.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn distrust(&mut self, number: PackNumber) -> Result<bool, Error> {
        if !self.doubtful.insert(number) {
            return Ok(false);
        }
        let namespace = self.catalog.pack(number)?.writer;
        let chunks = self.catalog.frames(number)?.into_iter().flat_map(|frame| frame.chunks);
        for (position, chunk) in chunks.enumerate() {
            if self.live.get(number, position) {
                self.keep_copies(chunk.id, namespace)?;
            }
        }
        Ok(true)
    }

    /// Whether a place is marked.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn is_live(&mut self, place: &ChunkPlace) -> Result<bool, Error> {
        Ok(self.live.get(place.pack, self.layouts.position(place)?))
    }

    /// Whether a trusted copy of a chunk is kept, or copied, because it is marked; one in a pack that
    /// was found damaged, or in a frame that has lost a base, does not count.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn has_trusted(&mut self, id: ChunkId) -> Result<bool, Error> {
        for place in self.catalog.copies(id, NAMESPACE_TRUSTED)? {
            let doubtful = self.doubtful.contains(&place.pack)
                || self.broken.contains(&(place.pack, place.frame_number));
            if !doubtful && self.is_live(&place)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
