//! Marks what snapshots need. Whatever cannot be told stops the collection: what is not known to
//! be dead is alive.

use std::collections::HashSet;
use std::ops::ControlFlow;

use cairn_format::ids::{ChunkId, SessionId, WriterId};
use cairn_format::pack::ChunkRef;
use cairn_format::segment::NAMESPACE_TRUSTED;

use super::bases::{BasedFrame, Bases};
use super::marks::{Layouts, Marks};
use super::memo::record::Name;
use super::memo::{Memos, Packs, Standing};
use super::reach::{Reach, reach};
use super::tidy::tidy;
use super::walk::{Halt, walk};
use crate::context::Remark;
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::local::{ChunkPlace, PackNumber, PackRecord};
use crate::ops::snapshots::{self, SnapshotInfo};
use crate::repo::Repository;

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
    fn new(
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
/// every namespace.
pub(super) fn in_order(snapshots: &[SnapshotInfo]) -> Vec<&SnapshotInfo> {
    let mut order = snapshots.iter().collect::<Vec<_>>();
    order.sort_by_key(|snapshot| {
        (!snapshot.acknowledged, snapshot.namespace != NAMESPACE_TRUSTED, snapshot.namespace)
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
    let mut walked = walk(repository, memos, &packs, snapshots, &mut marked)?;
    match walked.recall.compare(repository, catalog) {
        Ok(true) => {}
        Ok(false) => {
            memos.clear()?;
            repository.monitor().warn(Remark {
                code: "gc.memo",
                subject: repository.context.cache_dir.display().to_string(),
                message: "what this host remembers of tree nodes is not what they say; it is \
                          forgotten, and everything is read"
                    .to_owned(),
            });
            return Err(Halt::Unclear);
        }
        Err(error) if error.is_damage() || error.has_vanished() => return Err(Halt::Unclear),
        Err(error) => return Err(error.into()),
    }
    tidy(&mut walked, catalog, &packs, marked.live.count())?;
    Ok(marked)
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
pub(super) fn is_missing(error: &Error) -> bool {
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

    /// Follows live frames to their bases. Those that snapshots need, and patches of frames that are
    /// needed whole, are kept where they can be read as bases; of those that none needs, the frame is
    /// noted as an orphan, or the base is kept too: with `keep`, and for frames in packs that stay
    /// because they are damaged or were stored by `sessions` at work.
    ///
    /// # Errors
    /// [`Error::LivenessUnknown`] when a base is nowhere; failures of the cache.
    pub fn follow_bases(&mut self, keep: bool, sessions: &HashSet<SessionId>) -> Result<(), Error> {
        let mut packs = Vec::new();
        self.catalog.index().for_each_pack(&mut |number, record, _| {
            packs.push((number, *record));
            ControlFlow::Continue(())
        })?;
        let vault = self.repository.vault();
        let memos = Memos::new(vault, self.catalog);
        // How packs stand now: this may be called again after more were found damaged.
        let now = self.catalog.avoided();
        let mut standings = Packs::default();
        for (number, record) in &packs {
            standings.note(*number, record, !now.lasts_in(*number));
        }
        let mut bases = Bases::new(self.catalog, &memos, &standings);
        loop {
            self.fresh = false;
            self.follow_once(&packs, &standings, &mut bases, keep, sessions)?;
            // What was marked on the way may stand in frames with bases itself.
            if !self.fresh {
                return bases.flush();
            }
        }
    }

    fn follow_once(
        &mut self,
        packs: &[(PackNumber, PackRecord)],
        standings: &Packs,
        bases: &mut Bases<'_, '_>,
        keep: bool,
        sessions: &HashSet<SessionId>,
    ) -> Result<(), Error> {
        self.orphans.clear();
        // Patches are needed by later frames too, whichever of them comes first.
        let mut leaning = Vec::new();
        for (number, record) in packs {
            let at_work = sessions.contains(&record.session);
            if !self.live.any(*number) && !at_work {
                continue;
            }
            let frames = bases.of(*number, record)?;
            for frame in frames.iter().filter(|frame| frame.patch > 0) {
                let stays = !self.unpatched.contains(&(*number, frame.number));
                let whole = at_work || self.chunks_of(*number, frame).all(|live| live);
                if stays && whole && !self.stays_as_it_is(frame, standings) {
                    self.keep_patch(*number, record, frame)?;
                }
            }
            if !frames.is_empty() {
                leaning.push((*number, record));
            }
        }
        for (number, record) in leaning {
            let at_work = sessions.contains(&record.session);
            let keep = keep || at_work || self.doubtful.contains(&number);
            for frame in bases.of(number, record)? {
                let live = at_work || self.chunks_of(number, &frame).any(|live| live);
                if live && !self.stays_as_it_is(&frame, standings) {
                    self.follow_frame(number, record, frame.number, keep)?;
                    self.drop_patch(number, record, &frame)?;
                }
            }
        }
        Ok(())
    }

    /// Which chunks of a frame are live.
    fn chunks_of(&self, pack: PackNumber, frame: &BasedFrame) -> impl Iterator<Item = bool> + '_ {
        let positions = frame.first..frame.first.saturating_add(frame.count);
        positions.map(move |at| self.live.get(pack, at as usize))
    }

    /// Keeps the patch of a frame that is needed whole: it holds nothing else.
    fn keep_patch(
        &mut self,
        pack: PackNumber,
        record: &PackRecord,
        frame: &BasedFrame,
    ) -> Result<(), Error> {
        let bases = self.catalog.index().frame_bases(pack, frame.number)?;
        for (id, bytes) in bases.into_iter().rev().take(frame.patch as usize) {
            let base = ChunkRef { id, bytes };
            let copies = self.catalog.base_copies(&base, record.kind, record.writer)?;
            if let Some(place) = copies.first() {
                let news = !self.is_live(place)?;
                let position = self.lean_on(id, place, record.writer)?;
                if news {
                    self.patches.set(place.pack, position);
                }
            }
        }
        Ok(())
    }

    /// Lets the patch of an orphan go, once: if another frame has the same patch, that marks it again.
    /// What lies behind, in the order in which packs are followed, then finds that base gone too; for
    /// what lies before, everything is followed once more.
    fn drop_patch(
        &mut self,
        pack: PackNumber,
        record: &PackRecord,
        frame: &BasedFrame,
    ) -> Result<(), Error> {
        let key = (pack, frame.number);
        if frame.patch == 0 || !self.orphans.contains(&key) || !self.unpatched.insert(key) {
            return Ok(());
        }
        let bases = self.catalog.index().frame_bases(pack, frame.number)?;
        for (id, bytes) in bases.into_iter().rev().take(frame.patch as usize) {
            let base = ChunkRef { id, bytes };
            let copies = self.catalog.base_copies(&base, record.kind, record.writer)?;
            for place in copies {
                let position = self.layouts.position(&place)?;
                if self.patches.get(place.pack, position) {
                    self.patches.unset(place.pack, position);
                    self.live.unset(place.pack, position);
                    self.fresh = true;
                }
            }
        }
        Ok(())
    }

    /// Whether every base of a frame is live in the place that it is read from.
    fn stays_as_it_is(&self, frame: &BasedFrame, standings: &Packs) -> bool {
        let stays = |base: &Name| {
            standings.standing(base.pack) == Standing::Direct
                && !self.doubtful.contains(&base.pack)
                && self.live.get(base.pack, base.position as usize)
        };
        !frame.bases.is_empty() && frame.bases.iter().all(stays)
    }

    fn follow_frame(
        &mut self,
        pack: PackNumber,
        record: &PackRecord,
        frame: u32,
        keep: bool,
    ) -> Result<(), Error> {
        let namespace = record.writer;
        for (id, bytes) in self.catalog.index().frame_bases(pack, frame)? {
            let base = ChunkRef { id, bytes };
            let copies = self.catalog.base_copies(&base, record.kind, namespace)?;
            let Some(place) = copies.first() else {
                self.rely_on_copies(pack, record, frame, id)?;
                continue;
            };
            let needed = self.is_needed(id, namespace)?;
            if needed || keep {
                if !needed {
                    self.bytes_held += u64::from(bytes);
                }
                match keep {
                    true => self.set(id, place, namespace)?,
                    false => self.lean_on(id, place, namespace)?,
                };
                if needed {
                    self.keep_once(id, place, namespace)?;
                }
            } else {
                self.orphans.insert((pack, frame));
            }
        }
        Ok(())
    }

    /// What stays as a base need not be kept where it stands besides: it is read from here.
    fn keep_once(
        &mut self,
        id: ChunkId,
        kept: &ChunkPlace,
        namespace: WriterId,
    ) -> Result<(), Error> {
        let trusted = self.catalog.pack(kept.pack)?.writer == NAMESPACE_TRUSTED;
        if !trusted || self.doubtful.contains(&kept.pack) || !self.catalog.lasts(kept) {
            return Ok(());
        }
        for copy in self.catalog.copies(id, namespace)? {
            if copy == *kept || self.doubtful.contains(&copy.pack) || !self.is_live(&copy)? {
                continue;
            }
            let position = self.layouts.position(&copy)?;
            self.live.unset(copy.pack, position);
            // What was stored beside it there may have to be looked at otherwise.
            self.fresh = true;
        }
        Ok(())
    }

    /// A frame has lost a base: what is needed of it must stand elsewhere too, and is kept there and
    /// no longer here.
    fn rely_on_copies(
        &mut self,
        pack: PackNumber,
        record: &PackRecord,
        frame: u32,
        base: ChunkId,
    ) -> Result<(), Error> {
        self.broken.insert((pack, frame));
        let frames = self.catalog.frames(pack)?;
        let mut position = 0;
        for (number, description) in (0_u32..).zip(&frames) {
            for chunk in &description.chunks {
                let at = position;
                position += 1;
                if number != frame || !self.live.get(pack, at) {
                    continue;
                }
                let copies = self.catalog.copies(chunk.id, record.writer)?;
                if copies.iter().all(|copy| copy.pack == pack) {
                    if !self.is_assured(&copies)? {
                        // Its writer has to find out before it acknowledges, if it lives.
                        continue;
                    }
                    return Err(Error::LivenessUnknown {
                        object: format!("frame {frame} of pack {}", record.id),
                        message: Error::ChunkMissing { chunk: base }.to_string(),
                    });
                }
                if let Some(copy) = self.sound_copy(&copies, pack)? {
                    self.set(chunk.id, &copy, record.writer)?;
                    self.live.unset(pack, at);
                } else {
                    self.keep_copies(chunk.id, record.writer)?;
                }
            }
        }
        Ok(())
    }

    /// The best of these copies outside of a pack that can be read and stays as it is.
    fn sound_copy(
        &self,
        copies: &[ChunkPlace],
        outside: PackNumber,
    ) -> Result<Option<ChunkPlace>, Error> {
        for copy in copies.iter().filter(|copy| copy.pack != outside) {
            let doubtful =
                self.doubtful.contains(&copy.pack) || self.is_broken(copy.pack, copy.frame_number);
            if !doubtful && self.catalog.may_be_relied_on(copy)? {
                return Ok(Some(*copy));
            }
        }
        Ok(None)
    }

    /// Whether a snapshot needs the chunk, wherever it is read from.
    fn is_needed(&mut self, id: ChunkId, namespace: WriterId) -> Result<bool, Error> {
        for place in self.catalog.copies(id, namespace)? {
            if self.is_live(&place)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
