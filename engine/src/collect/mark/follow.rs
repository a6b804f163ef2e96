//! From what is needed to what it is stored against: which bases stay, which frames are stored anew
//! because theirs go, and which chunks are then tried against others.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use cairn_format::ids::{ChunkId, SessionId, WriterId};
use cairn_format::names::PackKind;
use cairn_format::pack::ChunkRef;
use cairn_format::segment::NAMESPACE_TRUSTED;

use super::super::bases::{BasedFrame, Bases};
use super::super::memo::record::Name;
use super::super::memo::{Memos, Packs, Standing};
use super::super::tried::Tried;
use super::Marked;
use crate::error::Error;
use crate::index::local::{ChunkPlace, PackNumber, PackRecord};

/// Bases of which it is noted that they go, at most: about sixty bytes each.
const LOSSES_MAX: usize = 1 << 19;
/// Bytes that it takes to remember one chunk of a frame that is tried again, or one base of it.
const TRIED_BYTES: usize = 100;
/// What all of them together may take, bytes: others are not tried again.
const TRIED_BYTES_MAX: usize = 32 << 20;

impl Marked<'_> {
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
            if !self.fresh && (keep || !self.renew(&memos, sessions)?) {
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
        self.losses.clear();
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
                && !self.renewed.get(base.pack, base.position as usize)
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
            let renewed = self.is_renewed(place)?;
            if renewed && keep {
                self.settle(id, place)?;
            }
            let needed = self.is_needed(id, namespace)? && (keep || !renewed);
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
                if self.losses.len() < LOSSES_MAX {
                    let first = self.losses.entry(id).or_insert(pack);
                    *first = pack.min(*first);
                }
            }
        }
        Ok(())
    }

    /// Has those chunks tried once more that were stored whole, where a base goes that they were tried
    /// against and an older frame needs another one for it. True when there are more than before.
    fn renew(&mut self, memos: &Memos<'_>, sessions: &HashSet<SessionId>) -> Result<bool, Error> {
        let mut more = false;
        if self.losses.is_empty() {
            return Ok(more);
        }
        Tried::for_each(memos, &mut |tried| {
            let losses = tried.bases.iter().filter_map(|base| self.losses.get(&base.id));
            let Some(first) = losses.min().copied() else { return Ok(ControlFlow::Continue(())) };
            let mut news = false;
            for chunk in &tried.chunks {
                let copies = self.catalog.base_copies(chunk, PackKind::Data, NAMESPACE_TRUSTED)?;
                let Some(place) = copies.first().filter(|place| place.pack > first) else {
                    continue;
                };
                let record = self.catalog.pack(place.pack)?;
                let fixed = sessions.contains(&record.session)
                    || record.writer != NAMESPACE_TRUSTED
                    || self.doubtful.contains(&place.pack)
                    || self.settled.contains(&chunk.id);
                let position = self.layouts.position(place)?;
                if fixed || !self.live.get(place.pack, position) {
                    continue;
                }
                if self.renewed.set(place.pack, position) {
                    news = true;
                    self.tried.insert(chunk.id, Arc::clone(&tried));
                }
            }
            if news {
                more = true;
                self.tried_bytes += (tried.chunks.len() + tried.bases.len()) * TRIED_BYTES;
            }
            Ok(match self.tried_bytes < TRIED_BYTES_MAX {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })
        })?;
        Ok(more)
    }

    fn is_renewed(&mut self, place: &ChunkPlace) -> Result<bool, Error> {
        Ok(self.renewed.get(place.pack, self.layouts.position(place)?))
    }

    /// Lets a chunk stay as it is, for good.
    fn settle(&mut self, id: ChunkId, place: &ChunkPlace) -> Result<(), Error> {
        let position = self.layouts.position(place)?;
        self.renewed.unset(place.pack, position);
        self.tried.remove(&id);
        self.fresh |= self.settled.insert(id);
        Ok(())
    }

    /// What a chunk in this place was tried against, if it is tried once more.
    pub(in crate::collect) fn tried(
        &self,
        id: ChunkId,
        pack: PackNumber,
        position: usize,
    ) -> Option<&Arc<Tried>> {
        self.tried.get(&id).filter(|_| self.renewed.get(pack, position))
    }

    /// Whether what stands in a place stays there or, as it is, in the pack it is copied to.
    ///
    /// # Errors
    /// Failures of the cache.
    pub(in crate::collect) fn stays_as_base(&mut self, place: &ChunkPlace) -> Result<bool, Error> {
        Ok(self.is_live(place)? && !self.is_renewed(place)?)
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
