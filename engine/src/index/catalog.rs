//! The catalog: the local index kept in step with the segments in the store, and look-ups through
//! it. It answers "is this chunk stored, and where"; it never decides a deletion.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use cairn_format::envelope::{HEADER_BYTES, Header, Keying, Kind};
use cairn_format::ids::{ChunkId, PackId, SegmentId, WriterId};
use cairn_format::limits::TOMB_BYTES_MAX;
use cairn_format::names::{Folder, ObjectName, PackKind};
use cairn_format::pack::{ChunkRef, Codec, FrameDescription};
use cairn_format::record::Tomb;
use cairn_format::segment::{NAMESPACE_TRUSTED, PackSection};
use parking_lot::{Mutex, RwLock};

use super::local::{
    self, ChunkPlace, LocalIndex, LocalOptions, NewFrame, NewPack, PackNumber, PackRecord,
    PackState,
};
use super::segments;
use crate::context::Remark;
use crate::error::{Error, Explain};
use crate::repo::Vault;
use crate::seal::Role;
use crate::store::StoreError;

/// How often the list of segments is read again when one vanishes meanwhile.
const LISTINGS_MAX: usize = 10;

/// Name under which the owner's key is remembered.
const OWNER_NAME: &str = "owner";

/// Name under which packs that verify found damaged are remembered.
const SUSPECTS_NAME: &str = "suspects";

/// Where chunks are.
pub struct Catalog {
    index: Arc<dyn LocalIndex>,
    state: Mutex<State>,
    suspects: RwLock<HashSet<PackNumber>>,
}

/// What was seen in the store when the catalog was brought up to date.
#[derive(Default)]
struct State {
    condemned: HashSet<PackId>,
    tombs: BTreeSet<ObjectName>,
    damaged_segments: Vec<Remark>,
}

/// Chunks of role-1 writers are kept apart by the key they are stored under locally: an id of
/// theirs is never found by others (SPEC §7).
fn local_key(id: ChunkId, namespace: WriterId) -> ChunkId {
    if namespace == NAMESPACE_TRUSTED {
        return id;
    }
    let mask = blake3::hash(namespace.as_bytes());
    let mut bytes = *id.as_bytes();
    for (byte, mask) in bytes.iter_mut().zip(mask.as_bytes()) {
        *byte ^= mask;
    }
    ChunkId::from_bytes(bytes)
}

impl Catalog {
    /// Opens the local index and loads what it lacks.
    ///
    /// # Errors
    /// Failures of the store or of the cache folder.
    pub fn open(vault: &Vault) -> Result<Self, Error> {
        let options = LocalOptions {
            memory_bytes: usize::try_from(vault.context.index_memory_bytes).unwrap_or(usize::MAX),
        };
        let opened = local::open(&vault.context.cache_dir, vault.id(), options)?;
        if let Some(reason) = &opened.rebuilt_because {
            vault.monitor().warn(Remark {
                code: "index.rebuilt",
                subject: vault.context.cache_dir.display().to_string(),
                message: format!("the local index is loaded anew: {reason}"),
            });
        }
        let catalog =
            Self { index: opened.index, state: Mutex::default(), suspects: RwLock::default() };
        catalog.check_owner(vault)?;
        catalog.sync(vault)?;
        let suspects = catalog.suspect_ids()?;
        *catalog.suspects.write() = catalog.numbers(&suspects)?;
        Ok(catalog)
    }

    /// Compares the owner's key with the one remembered from earlier runs: whoever knows a
    /// recipient's public key could put a forged repository in the place of the real one (SPEC §13).
    fn check_owner(&self, vault: &Vault) -> Result<(), Error> {
        match self.index.meta_get(OWNER_NAME)? {
            None => Ok(self.index.meta_put(OWNER_NAME, &vault.config.owner_key)?),
            Some(known) if known == vault.config.owner_key => Ok(()),
            Some(_) => Err(Error::OwnerChanged { location: vault.store.location() }),
        }
    }

    /// The local index itself.
    #[must_use]
    pub fn index(&self) -> &dyn LocalIndex {
        self.index.as_ref()
    }

    /// Segments that could not be read when the catalog was last brought up to date.
    #[must_use]
    pub fn damaged_segments(&self) -> Vec<Remark> {
        self.state.lock().damaged_segments.clone()
    }

    /// Brings the local index up to date: segments first, then tombs (SPEC §10).
    ///
    /// # Errors
    /// Failures of the store or of the cache folder. Damaged segments are warned about.
    pub fn sync(&self, vault: &Vault) -> Result<(), Error> {
        let mut attempt = 0;
        while !self.sync_segments(vault)? {
            attempt += 1;
            if attempt == LISTINGS_MAX {
                return Err(Error::Internal { part: "the list of index segments" });
            }
        }
        self.sync_tombs(vault)?;
        Ok(())
    }

    /// True when every listed segment is loaded; false when one vanished.
    fn sync_segments(&self, vault: &Vault) -> Result<bool, Error> {
        let listed = segments::list(vault)?;
        let loaded = self.index.segments()?.into_iter().collect::<HashSet<_>>();
        for gone in loaded.iter().filter(|id| !listed.contains_key(*id)) {
            self.index.remove_segment(gone)?;
        }
        let mut missing = listed.iter().filter(|(id, _)| !loaded.contains(*id)).collect::<Vec<_>>();
        // Larger ones first: they are merges, and what they replace need not be read.
        missing.sort_by_key(|(id, bytes)| (std::cmp::Reverse(**bytes), **id));
        let mut replaced = HashSet::new();
        let mut damaged = Vec::new();
        for (id, _) in missing {
            if replaced.contains(id) {
                self.index.add_segment(id)?;
                continue;
            }
            vault.check_cancelled()?;
            match segments::read(vault, *id) {
                Ok(Some(read)) => {
                    replaced.extend(read.segment.replaces.iter().copied());
                    self.load(*id, &read.segment.packs)?;
                }
                Ok(None) => return Ok(false),
                Err(error) if error.is_damage() => {
                    let remark = Remark {
                        code: error.code(),
                        subject: ObjectName::Index(*id).to_string(),
                        message: error.to_string(),
                    };
                    vault.monitor().warn(remark.clone());
                    damaged.push(remark);
                }
                Err(error) => return Err(error),
            }
        }
        self.state.lock().damaged_segments = damaged;
        Ok(true)
    }

    fn load(&self, id: SegmentId, packs: &[PackSection]) -> Result<(), Error> {
        let mut load = self.index.begin_load()?;
        for section in packs {
            load.add(&new_pack(section))?;
        }
        load.finish(&[id])?;
        Ok(())
    }

    /// Reads tombs not seen before and forgets the packs they condemn; returns how many of those
    /// were known.
    ///
    /// # Errors
    /// Failures of the store; a tomb that cannot be read: to pass it over could be to rely on what
    /// is being deleted.
    pub fn sync_tombs(&self, vault: &Vault) -> Result<usize, Error> {
        let mut listed = BTreeSet::new();
        vault.store.list(Folder::Tombs, &mut |name, _| {
            listed.insert(name);
            Ok(())
        })?;
        let mut known = 0;
        let mut state = self.state.lock();
        for name in &listed {
            if state.tombs.contains(name) {
                continue;
            }
            let signed = match vault.read_signed(Kind::Tomb, name, TOMB_BYTES_MAX) {
                Ok(signed) => signed,
                Err(Error::Store(StoreError::NotFound { .. })) => continue,
                Err(error) => return Err(error),
            };
            if matches!(signed.writer.role, Role::Owner | Role::Maintainer) {
                let tomb = Tomb::decode(&signed.record).map_err(Error::format(name))?;
                if vault.trust.check_not_revoked(&signed.writer, tomb.time_ms).is_err() {
                    continue;
                }
                for (_, pack) in tomb.packs {
                    known += usize::from(self.index.remove_pack(&pack)?);
                    state.condemned.insert(pack);
                }
            }
        }
        state.tombs = listed;
        Ok(known)
    }

    /// BLAKE3 of the sorted, concatenated names of the tombs seen last (SPEC §8.3).
    #[must_use]
    pub fn tombs_digest(&self) -> [u8; 32] {
        let names =
            self.state.lock().tombs.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let mut hasher = blake3::Hasher::new();
        for name in names {
            hasher.update(name.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// Whether each chunk may be relied on by a writer of this namespace. Only packs that are its
    /// own or trusted count, and none in which verify found damage: what lies there is stored anew.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn known(&self, ids: &[ChunkId], namespace: WriterId) -> Result<Vec<bool>, Error> {
        let places = self.places(ids, namespace)?;
        let suspects = self.suspects.read().clone();
        let mut known = Vec::with_capacity(places.len());
        for place in places {
            known.push(match place {
                Some(_) if suspects.is_empty() => true,
                Some(place) => {
                    !suspects.contains(&place.pack)
                        && (!place.based || self.has_sound_bases(&place, &suspects)?)
                }
                None => false,
            });
        }
        Ok(known)
    }

    /// Whether every base of a frame has a copy outside of the packs that are suspect.
    fn has_sound_bases(
        &self,
        place: &ChunkPlace,
        suspects: &HashSet<PackNumber>,
    ) -> Result<bool, Error> {
        let kind = self.pack(place.pack)?.kind;
        let (bases, namespace) = self.bases(place)?;
        for base in bases {
            let mut sound = false;
            for copy in self.copies(base.id, namespace)? {
                sound = sound
                    || (!suspects.contains(&copy.pack)
                        && !copy.based
                        && copy.bytes == base.bytes
                        && self.pack(copy.pack)?.kind == kind);
            }
            if !sound {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether verify, on this host, found packs damaged that are still in the index.
    #[must_use]
    pub fn has_suspects(&self) -> bool {
        !self.suspects.read().is_empty()
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
        *self.suspects.write() = self.numbers(&after)?;
        Ok(())
    }

    fn suspect_ids(&self) -> Result<BTreeSet<PackId>, Error> {
        let encoded = self.index.meta_get(SUSPECTS_NAME)?.unwrap_or_default();
        Ok(encoded.chunks(PackId::LEN).filter_map(|id| PackId::from_slice(id).ok()).collect())
    }

    fn numbers(&self, packs: &BTreeSet<PackId>) -> Result<HashSet<PackNumber>, Error> {
        let mut numbers = HashSet::new();
        for id in packs {
            numbers.extend(self.index.pack_number(id)?);
        }
        Ok(numbers)
    }

    /// Every place of a chunk that a reader of this namespace may use, the best first: those in
    /// packs not found damaged, then those of the namespace's own.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn copies(&self, id: ChunkId, namespace: WriterId) -> Result<Vec<ChunkPlace>, Error> {
        let mut copies = Vec::new();
        if namespace != NAMESPACE_TRUSTED {
            copies = self.index.copies(&local_key(id, namespace))?;
        }
        copies.extend(self.index.copies(&id)?);
        let suspects = self.suspects.read();
        copies.sort_by_key(|place| suspects.contains(&place.pack));
        Ok(copies)
    }

    /// The place of each chunk: in the namespace of the snapshot's writer, else among trusted
    /// packs; in a pack that verify found damaged only if there is no other.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn places(
        &self,
        ids: &[ChunkId],
        namespace: WriterId,
    ) -> Result<Vec<Option<ChunkPlace>>, Error> {
        let mut places = self.first_places(ids, namespace)?;
        let suspects = self.suspects.read().clone();
        if !suspects.is_empty() {
            for (id, place) in ids.iter().zip(&mut places) {
                if place.is_some_and(|place| suspects.contains(&place.pack)) {
                    *place = self.copies(*id, namespace)?.into_iter().next();
                }
            }
        }
        Ok(places)
    }

    fn first_places(
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

    /// The place of a chunk as a base of frames of this kind: in a frame without bases (SPEC §6.3).
    /// `first` is where [`Self::places`] found it; only if that does not fit, other copies are
    /// looked at.
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
        let fits = |place: &ChunkPlace| -> Result<bool, Error> {
            let same = !place.based && place.bytes == base.bytes;
            Ok(same && self.pack(place.pack)?.kind == kind)
        };
        if fits(&first)? {
            return Ok(Some(first));
        }
        let mut keys = vec![local_key(base.id, namespace), base.id];
        keys.dedup();
        for key in keys {
            for place in self.index.copies(&key)? {
                if fits(&place)? {
                    return Ok(Some(place));
                }
            }
        }
        Ok(None)
    }

    /// A pack by its number.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn pack(&self, number: PackNumber) -> Result<PackRecord, Error> {
        self.index.pack(number)?.ok_or(Error::Internal { part: "the local index" })
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

    /// Notes a pack that is durable in the store but in no segment yet.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn add_pending(&self, section: &PackSection) -> Result<(), Error> {
        self.index.add_pack(&new_pack(section), PackState::Pending)?;
        Ok(())
    }

    /// Notes that a segment in the store describes these packs.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn commit(&self, segment: SegmentId, packs: &[PackSection]) -> Result<(), Error> {
        let ids = packs.iter().map(|pack| pack.id).collect::<Vec<_>>();
        self.index.commit_packs(&ids, &segment)?;
        Ok(())
    }

    /// Notes the outcome of a merge.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn note_merge(&self, merged: &segments::Merged) -> Result<(), Error> {
        for id in &merged.written {
            self.index.add_segment(id)?;
        }
        for id in &merged.removed {
            self.index.remove_segment(id)?;
        }
        Ok(())
    }

    /// What segments would say of the packs that an interrupted run left durable but unnamed, and
    /// that are still in the store. Others are forgotten.
    ///
    /// # Errors
    /// Failures of the store or the cache.
    pub fn leftover_sections(&self, vault: &Vault) -> Result<Vec<PackSection>, Error> {
        let own = vault.own_namespace()?;
        let mut sections = Vec::new();
        for id in self.index.pending_packs()? {
            let record = match self.index.pack_number(&id)? {
                Some(number) => self.index.pack(number)?.map(|record| (number, record)),
                None => None,
            };
            let Some((number, record)) = record else { continue };
            if record.writer != own {
                continue;
            }
            match self.leftover_section(vault, number, &record)? {
                Some(section) => sections.push(section),
                None => {
                    self.index.remove_pack(&id)?;
                }
            }
        }
        Ok(sections)
    }

    fn leftover_section(
        &self,
        vault: &Vault,
        number: PackNumber,
        record: &PackRecord,
    ) -> Result<Option<PackSection>, Error> {
        let name = ObjectName::Pack(record.kind, record.id);
        let header = match vault.store.get_range(&name, 0, HEADER_BYTES as u64) {
            Ok(header) => Header::parse(&header).map_err(Error::format(name))?,
            Err(StoreError::NotFound { .. } | StoreError::Short { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Keying::Domain { domain, .. } = header.keying else { return Ok(None) };
        let frames = self.frames(number)?;
        Ok(Some(PackSection {
            id: record.id,
            kind: record.kind,
            domain,
            epoch: header.epoch,
            bytes: record.bytes,
            namespace: record.writer,
            session: record.session,
            frames,
        }))
    }

    /// The frames of a pack as the local index remembers them.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn frames(&self, number: PackNumber) -> Result<Vec<FrameDescription>, Error> {
        let pack = self.pack(number)?;
        let mut frames: BTreeMap<u32, FrameDescription> = BTreeMap::new();
        let mut bad_codec = None;
        self.index.for_each_chunk_of_pack(number, &mut |id, place| {
            let codec = match Codec::from_byte(place.codec) {
                Ok(codec) => codec,
                Err(error) => {
                    bad_codec = Some(error);
                    return ControlFlow::Break(());
                }
            };
            let frame = frames.entry(place.frame_number).or_insert_with(|| FrameDescription {
                codec,
                sealed_bytes: place.frame_bytes,
                chunks: Vec::new(),
                bases: Vec::new(),
            });
            // The local key's mask is its own inverse.
            frame.chunks.push(ChunkRef { id: local_key(*id, pack.writer), bytes: place.bytes });
            ControlFlow::Continue(())
        })?;
        if let Some(error) = bad_codec {
            return Err(Error::Format { object: pack.id.to_string(), error });
        }
        for (number_in_pack, frame) in &mut frames {
            let bases = self.index.frame_bases(number, *number_in_pack)?;
            frame.bases = bases.into_iter().map(|(id, bytes)| ChunkRef { id, bytes }).collect();
        }
        Ok(frames.into_values().collect())
    }

    /// Packs in the store that the index does not know, with their sizes in bytes: left by an
    /// interrupted writer, being written now, or described by a segment that is lost.
    ///
    /// # Errors
    /// Failures of the store or the cache.
    pub fn unlisted_packs(&self, vault: &Vault) -> Result<Vec<(PackKind, PackId, u64)>, Error> {
        let mut unlisted = BTreeSet::new();
        for folder in [Folder::DataPacks, Folder::TreePacks] {
            let mut packs = Vec::new();
            vault.store.list(folder, &mut |name, bytes| {
                if let ObjectName::Pack(kind, id) = name {
                    packs.push((kind, id, bytes));
                }
                Ok(())
            })?;
            for pack in packs {
                if self.index.pack_number(&pack.1)?.is_none()
                    && !self.state.lock().condemned.contains(&pack.1)
                {
                    unlisted.insert(pack);
                }
            }
        }
        Ok(unlisted.into_iter().collect())
    }
}

/// A section as the local index takes it.
fn new_pack(section: &PackSection) -> NewPack {
    let mut offset = HEADER_BYTES as u32;
    let frames = section
        .frames
        .iter()
        .map(|frame| {
            let start = offset;
            offset = offset.saturating_add(frame.sealed_bytes);
            NewFrame {
                offset: start,
                sealed_bytes: frame.sealed_bytes,
                plain_bytes: frame.plain_bytes(),
                codec: frame.codec.to_byte(),
                chunks: frame
                    .chunks
                    .iter()
                    .map(|chunk| (local_key(chunk.id, section.namespace), chunk.bytes))
                    .collect(),
                bases: frame.bases.iter().map(|base| (base.id, base.bytes)).collect(),
            }
        })
        .collect();
    NewPack {
        id: section.id,
        kind: section.kind,
        bytes: section.bytes,
        writer: section.namespace,
        session: section.session,
        frames,
    }
}
