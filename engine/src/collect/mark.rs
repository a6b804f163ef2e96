//! Marks what snapshots need. Whatever cannot be told stops the collection: what is not known to
//! be dead is alive.

use std::collections::HashSet;
use std::ops::ControlFlow;

use cairn_format::ids::{ChunkId, SessionId, WriterId};
use cairn_format::pack::{ChunkRef, FrameDescription};
use cairn_format::segment::NAMESPACE_TRUSTED;

use super::marks::{Layouts, Marks};
use super::reach::{Reach, reach};
use crate::delta::patch;
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::local::{ChunkPlace, PackNumber, PackRecord};
use crate::ops::snapshots::{self, SnapshotInfo};
use crate::repo::Repository;

/// What is needed, as far as it was marked.
pub struct Marked<'a> {
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
    /// Packs that were found damaged: they stay while anything in them is needed, and every copy of
    /// that is kept.
    pub doubtful: HashSet<PackNumber>,
    /// Frames whose bases are gone: what is needed of them is kept elsewhere.
    broken: HashSet<(PackNumber, u32)>,
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
) -> Result<Marked<'a>, Error> {
    let mut marked = Marked {
        catalog,
        layouts: Layouts::new(catalog),
        live: Marks::default(),
        fresh: false,
        bytes_held: 0,
        orphans: HashSet::new(),
        doubtful: doubtful.clone(),
        broken: HashSet::new(),
    };
    let mut order = snapshots.iter().collect::<Vec<_>>();
    // Acknowledged ones first, so that what others may lack is never passed over for their sake.
    // Then trusted ones first: what they were found to need serves every namespace.
    order.sort_by_key(|snapshot| {
        (!snapshot.acknowledged, snapshot.namespace != NAMESPACE_TRUSTED, snapshot.namespace)
    });
    let (mut seen_trusted, mut seen_own) = (Marks::default(), Marks::default());
    let mut namespace = NAMESPACE_TRUSTED;
    for snapshot in order {
        repository.check_cancelled()?;
        if snapshot.namespace != namespace {
            namespace = snapshot.namespace;
            seen_own.clear();
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
        let missing = matches!(error, Error::ChunkMissing { .. }) || error.has_vanished();
        if missing && self.tolerant { Ok(()) } else { Err(self.unknown(&error)) }
    }
}

impl Marked<'_> {
    /// Marks a chunk in a place; returns its position.
    fn set(
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
        loop {
            self.fresh = false;
            self.follow_once(&packs, keep, sessions)?;
            // What was marked on the way may stand in frames with bases itself.
            if !self.fresh {
                return Ok(());
            }
        }
    }

    fn follow_once(
        &mut self,
        packs: &[(PackNumber, PackRecord)],
        keep: bool,
        sessions: &HashSet<SessionId>,
    ) -> Result<(), Error> {
        let catalog = self.catalog;
        self.orphans.clear();
        let mut based = Vec::new();
        for (number, record) in packs {
            let number = *number;
            let at_work = sessions.contains(&record.session);
            if !self.live.any(number) && !at_work {
                continue;
            }
            let keep = keep || at_work || self.doubtful.contains(&number);
            let (mut frames, mut position) = (Vec::new(), 0);
            catalog.index().for_each_chunk_of_pack(number, &mut |_, place| {
                if place.based {
                    let live = at_work || self.live.get(number, position);
                    let last = frames.last().map(|(frame, _, _)| *frame);
                    if last != Some(place.frame_number) {
                        frames.push((place.frame_number, false, true));
                    }
                    if let Some((_, any, all)) = frames.last_mut() {
                        *any |= live;
                        *all &= live;
                    }
                }
                position += 1;
                ControlFlow::Continue(())
            })?;
            frames.retain(|(_, any, _)| *any);
            if frames.is_empty() {
                continue;
            }
            let described = catalog.frames(number)?;
            for (frame, _, all) in frames {
                let before = frame.checked_sub(1).and_then(|at| described.get(at as usize));
                let bases = described.get(frame as usize).map(|frame| frame.bases.as_slice());
                if all && patch::is_patched(before, bases.unwrap_or_default()) {
                    self.keep_patch(before, record)?;
                }
                based.push((number, record, frame, keep));
            }
        }
        // Patches are needed by later frames too, whichever of them comes first.
        for (number, record, frame, keep) in based {
            self.follow_frame(number, record, frame, keep)?;
        }
        Ok(())
    }

    /// Keeps the patch of a frame that is needed whole: it holds nothing else.
    fn keep_patch(
        &mut self,
        patch: Option<&FrameDescription>,
        record: &PackRecord,
    ) -> Result<(), Error> {
        for base in patch.into_iter().flat_map(|patch| &patch.chunks) {
            let copies = self.catalog.base_copies(base, record.kind, record.writer)?;
            if let Some(place) = copies.first() {
                self.set(base.id, place, record.writer)?;
            }
        }
        Ok(())
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
                self.set(id, place, namespace)?;
            } else {
                self.orphans.insert((pack, frame));
            }
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
                    return Err(Error::LivenessUnknown {
                        object: format!("frame {frame} of pack {}", record.id),
                        message: Error::ChunkMissing { chunk: base }.to_string(),
                    });
                }
                self.keep_copies(chunk.id, record.writer)?;
                let mut elsewhere = false;
                for copy in copies.iter().filter(|copy| copy.pack != pack) {
                    elsewhere |= !self.doubtful.contains(&copy.pack)
                        && self.catalog.may_be_relied_on(copy)?;
                }
                if elsewhere {
                    self.live.unset(pack, at);
                }
            }
        }
        Ok(())
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
