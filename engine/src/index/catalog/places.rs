//! Where chunks are, and whether a snapshot may rely on them: a chunk may stand in several packs,
//! of which some are damaged, condemned, or not named yet.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use cairn_format::ids::{ChunkId, PackId, WriterId};
use cairn_format::names::PackKind;
use cairn_format::pack::ChunkRef;
use cairn_format::segment::NAMESPACE_TRUSTED;

use super::{Catalog, local_key};
use crate::error::Error;
use crate::index::local::{ChunkPlace, PackNumber};

/// Name under which packs that verify found damaged are remembered.
const SUSPECTS_NAME: &str = "suspects";

/// Frames of which it is remembered whether their bases can be relied on.
const SOUND_MAX: usize = 1 << 18;

/// Identifies a frame in one catalog.
pub(super) type FrameKey = (PackNumber, u32);

/// Packs that are read from only where there is no other, at one moment.
pub struct Avoided {
    suspects: Arc<HashSet<PackNumber>>,
    condemned: Arc<HashSet<PackNumber>>,
    unnamed: Arc<HashSet<PackNumber>>,
}

impl Avoided {
    /// True when every pack is as good as any other.
    fn is_empty(&self) -> bool {
        self.suspects.is_empty() && self.condemned.is_empty() && self.unnamed.is_empty()
    }

    /// What speaks against a pack; 0 when a snapshot may rely on it. Damage weighs most, then that
    /// it will be deleted, then that only this host knows of it.
    fn rank(&self, pack: PackNumber) -> u8 {
        u8::from(self.suspects.contains(&pack)) << 2
            | u8::from(self.condemned.contains(&pack)) << 1
            | u8::from(self.unnamed.contains(&pack))
    }

    fn lasts(&self, place: &ChunkPlace) -> bool {
        self.lasts_in(place.pack)
    }

    /// Whether nothing speaks against a pack.
    #[must_use]
    pub fn lasts_in(&self, pack: PackNumber) -> bool {
        self.rank(pack) == 0
    }
}

impl Catalog {
    /// Packs that are read from only where there is no other, as it stands now.
    #[must_use]
    pub fn avoided(&self) -> Avoided {
        Avoided {
            suspects: Arc::clone(&self.suspects.read()),
            condemned: Arc::clone(&self.condemned_here.read()),
            unnamed: Arc::clone(&self.unnamed.read()),
        }
    }

    /// Whether each chunk may be relied on by a writer of this namespace. Only packs that are its
    /// own or trusted count, and of these only such as are not condemned, in which verify found no
    /// damage, and which others can find; the same goes for the packs that hold the bases of frames.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn known(&self, ids: &[ChunkId], namespace: WriterId) -> Result<Vec<bool>, Error> {
        let places = self.places(ids, namespace)?;
        let avoided = self.avoided();
        let mut known = Vec::with_capacity(places.len());
        for (id, place) in ids.iter().zip(places) {
            known.push(match place {
                None => false,
                Some(place) if !avoided.lasts(&place) => false,
                Some(place) if !place.based => true,
                Some(place) => {
                    self.has_sound_bases(&place, &avoided)?
                        || self.has_sound_copy(*id, namespace, &avoided)?
                }
            });
        }
        Ok(known)
    }

    /// Whether a snapshot may rely on what stands in a place: see [`Self::known`].
    #[must_use]
    pub fn lasts(&self, place: &ChunkPlace) -> bool {
        self.avoided().lasts(place)
    }

    /// The chunks that a pack lists, with their lengths in bytes, in the order of its directory; also
    /// of a pack that was removed, while that is remembered.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn ids_in(&self, number: PackNumber) -> Result<Option<Vec<(ChunkId, u32)>>, Error> {
        let (writer, mut chunks) = match self.index.pack(number)? {
            Some(record) => {
                let mut chunks = Vec::with_capacity(record.chunks as usize);
                self.index.for_each_chunk_of_pack(number, &mut |id, place| {
                    chunks.push((*id, place.bytes));
                    ControlFlow::Continue(())
                })?;
                (record.writer, chunks)
            }
            None => match self.index.gone_pack(number)? {
                Some(gone) => (gone.writer, gone.chunks),
                None => return Ok(None),
            },
        };
        // The local key's mask is its own inverse.
        chunks.iter_mut().for_each(|(id, _)| *id = local_key(*id, writer));
        Ok(Some(chunks))
    }

    /// As [`Self::lasts`], and so do the bases of its frame.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn may_be_relied_on(&self, place: &ChunkPlace) -> Result<bool, Error> {
        let avoided = self.avoided();
        Ok(avoided.lasts(place) && (!place.based || self.has_sound_bases(place, &avoided)?))
    }

    fn has_sound_copy(
        &self,
        id: ChunkId,
        namespace: WriterId,
        avoided: &Avoided,
    ) -> Result<bool, Error> {
        for copy in self.copies(id, namespace)? {
            if avoided.lasts(&copy) && (!copy.based || self.has_sound_bases(&copy, avoided)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether every base of a frame may be relied on. A session that died may have left frames
    /// whose bases were collected since: nobody needed them.
    fn has_sound_bases(&self, place: &ChunkPlace, avoided: &Avoided) -> Result<bool, Error> {
        let key = (place.pack, place.frame_number);
        if let Some(sound) = self.sound.lock().get(&key) {
            return Ok(*sound);
        }
        let kind = self.pack(place.pack)?.kind;
        let (bases, namespace) = self.bases(place)?;
        let ids = bases.iter().map(|base| base.id).collect::<Vec<_>>();
        let mut sound = true;
        for (base, first) in bases.iter().zip(self.places(&ids, namespace)?) {
            let found = match first {
                Some(first) => self.base_place(base, kind, first, namespace)?,
                None => None,
            };
            sound = sound && found.is_some_and(|place| avoided.lasts(&place));
        }
        let mut known = self.sound.lock();
        if known.len() >= SOUND_MAX {
            known.clear();
        }
        known.insert(key, sound);
        Ok(sound)
    }

    /// The bases of a pack's frames that must not be relied on, because they are not in a frame
    /// without bases of a pack that lasts.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn bases_at_risk(&self, pack: PackNumber) -> Result<BTreeSet<ChunkId>, Error> {
        let record = self.pack(pack)?;
        let avoided = self.avoided();
        let mut at_risk = BTreeSet::new();
        for base in self.frames(pack)?.iter().flat_map(|frame| &frame.bases) {
            let copies = self.base_copies(base, record.kind, record.writer)?;
            if !copies.first().is_some_and(|place| avoided.lasts(place)) {
                at_risk.insert(base.id);
            }
        }
        Ok(at_risk)
    }

    /// Whether any pack that is not condemned lists a data chunk, among trusted ones or this key's
    /// own.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn is_stored(&self, id: ChunkId) -> Result<bool, Error> {
        let condemned = self.condemned_here();
        let copies = self.copies(id, NAMESPACE_TRUSTED)?;
        Ok(copies.iter().any(|place| !condemned.contains(&place.pack)))
    }

    /// Every place of a chunk that a reader of this namespace may use, the best first: those in
    /// packs that last, then those of the namespace's own.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn copies(&self, id: ChunkId, namespace: WriterId) -> Result<Vec<ChunkPlace>, Error> {
        let mut copies = Vec::new();
        if namespace != NAMESPACE_TRUSTED {
            copies = self.index.copies(&local_key(id, namespace))?;
        }
        copies.extend(self.index.copies(&id)?);
        let avoided = self.avoided();
        copies.sort_by_key(|place| avoided.rank(place.pack));
        Ok(copies)
    }

    /// The place of each chunk: in the namespace of the snapshot's writer, else among trusted
    /// packs; in a pack that is damaged or condemned only if there is no other.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn places(
        &self,
        ids: &[ChunkId],
        namespace: WriterId,
    ) -> Result<Vec<Option<ChunkPlace>>, Error> {
        let mut places = self.first_places(ids, namespace)?;
        let avoided = self.avoided();
        if !avoided.is_empty() {
            for (id, place) in ids.iter().zip(&mut places) {
                if place.is_some_and(|place| !avoided.lasts(&place)) {
                    *place = self.copies(*id, namespace)?.into_iter().next();
                }
            }
        }
        Ok(places)
    }

    /// The first place of each chunk, whatever speaks against it: in the pack of the namespace's own
    /// that was added first, else in the trusted one. It stays the same until that pack is removed,
    /// or the namespace gets a copy of its own.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn first_places(
        &self,
        ids: &[ChunkId],
        namespace: WriterId,
    ) -> Result<Vec<Option<ChunkPlace>>, Error> {
        let mut places = Vec::with_capacity(ids.len());
        if namespace == NAMESPACE_TRUSTED {
            self.index.lookup_many(ids, &mut places)?;
            return Ok(places);
        }
        let own = ids.iter().map(|id| local_key(*id, namespace)).collect::<Vec<_>>();
        self.index.lookup_many(&own, &mut places)?;
        let mut trusted = Vec::with_capacity(ids.len());
        self.index.lookup_many(ids, &mut trusted)?;
        for (place, other) in places.iter_mut().zip(trusted) {
            *place = place.or(other);
        }
        Ok(places)
    }

    /// The bases of a frame with the namespace they are looked up in.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn bases(&self, place: &ChunkPlace) -> Result<(Vec<ChunkRef>, WriterId), Error> {
        let pack = self.pack(place.pack)?;
        let bases = self.index.frame_bases(place.pack, place.frame_number)?;
        let bases = bases.into_iter().map(|(id, bytes)| ChunkRef { id, bytes }).collect();
        Ok((bases, pack.writer))
    }

    /// The place of a chunk as a base of frames of this kind: in a frame without bases (SPEC §6.3),
    /// in a pack that is damaged or condemned only if there is no other. `first` is where
    /// [`Self::places`] found it; only if that does not fit, other copies are looked at.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn base_place(
        &self,
        base: &ChunkRef,
        kind: PackKind,
        first: ChunkPlace,
        namespace: WriterId,
    ) -> Result<Option<ChunkPlace>, Error> {
        if self.fits_as_base(base, kind, &first)? {
            return Ok(Some(first));
        }
        Ok(self.base_copies(base, kind, namespace)?.into_iter().next())
    }

    /// Every place of a chunk that may serve as a base of frames of this kind, the best first.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn base_copies(
        &self,
        base: &ChunkRef,
        kind: PackKind,
        namespace: WriterId,
    ) -> Result<Vec<ChunkPlace>, Error> {
        let mut fitting = Vec::new();
        for copy in self.copies(base.id, namespace)? {
            if self.fits_as_base(base, kind, &copy)? {
                fitting.push(copy);
            }
        }
        Ok(fitting)
    }

    /// The first place of a chunk among trusted packs that may serve as a base of frames of this kind,
    /// whatever speaks against it. It stays the same until its pack is removed.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn first_base_place(
        &self,
        base: &ChunkRef,
        kind: PackKind,
    ) -> Result<Option<ChunkPlace>, Error> {
        for copy in self.index.copies(&base.id)? {
            if self.fits_as_base(base, kind, &copy)? {
                return Ok(Some(copy));
            }
        }
        Ok(None)
    }

    fn fits_as_base(
        &self,
        base: &ChunkRef,
        kind: PackKind,
        place: &ChunkPlace,
    ) -> Result<bool, Error> {
        let same = !place.based && place.bytes == base.bytes;
        Ok(same && self.pack(place.pack)?.kind == kind)
    }

    /// Whether verify, on this host, found packs damaged that are still in the index.
    #[must_use]
    pub fn has_suspects(&self) -> bool {
        !self.suspects.read().is_empty()
    }

    /// Packs in which verify found damage on this host, and that are still in the index.
    #[must_use]
    pub fn suspects(&self) -> Arc<HashSet<PackNumber>> {
        Arc::clone(&self.suspects.read())
    }

    /// Notes what verify found: packs that are damaged or missing, and packs that are sound.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn note_verified(&self, damaged: &[PackId], sound: &[PackId]) -> Result<(), Error> {
        let before = self.suspect_ids()?;
        let mut after = before.clone();
        after.retain(|id| !sound.contains(id));
        after.extend(damaged.iter().copied());
        if after == before {
            return Ok(());
        }
        let encoded = after.iter().flat_map(|id| *id.as_bytes()).collect::<Vec<_>>();
        self.index.meta_put(SUSPECTS_NAME, &encoded)?;
        self.find_suspects()
    }

    fn suspect_ids(&self) -> Result<BTreeSet<PackId>, Error> {
        let encoded = self.index.meta_get(SUSPECTS_NAME)?.unwrap_or_default();
        Ok(encoded.chunks(PackId::LEN).filter_map(|id| PackId::from_slice(id).ok()).collect())
    }

    /// Finds out which packs of the local index verify found damaged.
    pub(super) fn find_suspects(&self) -> Result<(), Error> {
        let mut numbers = HashSet::new();
        for id in self.suspect_ids()? {
            numbers.extend(self.index.pack_number(&id)?);
        }
        *self.suspects.write() = Arc::new(numbers);
        self.sound.lock().clear();
        Ok(())
    }
}
