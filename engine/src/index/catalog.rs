//! The catalog: the local index kept in step with the segments in the store, and look-ups through
//! it. It answers "is this chunk stored, and where"; it never decides a deletion.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use cairn_format::envelope::{HEADER_BYTES, Header, Keying};
use cairn_format::ids::{ChunkId, PackId, ReplicaId, SegmentId, WriterId};
use cairn_format::names::{Folder, ObjectName, PackKind};
use cairn_format::pack::{ChunkRef, Codec, FrameDescription};
use cairn_format::segment::{NAMESPACE_TRUSTED, PackSection};
use parking_lot::{Mutex, RwLock};

use super::local::{
    self, CopyId, LocalIndex, LocalOptions, NewFrame, NewPack, PackNumber, PackRecord, PackState,
};
use super::segments;
use crate::context::Remark;
use crate::error::Error;
use crate::repo::Vault;
use crate::store::{StoreError, together};

mod forgotten;
mod places;
mod since;
mod tombs;

pub use forgotten::Forgotten;
pub use since::Before;

/// How often the list of segments is read again when one vanishes meanwhile.
const LISTINGS_MAX: usize = 10;

/// Name under which the owner's key is remembered.
const OWNER_NAME: &str = "owner";

/// Where chunks are.
pub struct Catalog {
    index: Arc<dyn LocalIndex>,
    state: Mutex<State>,
    /// Condemned packs that the local index still has: their chunks may be needed until whoever
    /// collects them has copied them.
    condemned_here: RwLock<Arc<HashSet<PackNumber>>>,
    /// Packs that no segment names and that this key cannot name: a snapshot must not rely on them.
    unnamed: RwLock<Arc<HashSet<PackNumber>>>,
    /// Packs in which verify found damage on this host.
    suspects: RwLock<Arc<HashSet<PackNumber>>>,
    /// Whether the bases of frames that were asked for can be relied on.
    sound: Mutex<HashMap<places::FrameKey, bool>>,
    /// What was forgotten since the cache was clean, if anything was.
    forgotten: Mutex<Option<Forgotten>>,
    /// Namespace of what this key writes, if it can.
    own: Option<WriterId>,
}

/// What was seen in the store when the catalog was brought up to date.
#[derive(Default)]
struct State {
    condemned: HashMap<PackId, PackKind>,
    /// Tombs listed last.
    tombs: BTreeSet<ObjectName>,
    /// Tombs that were read, or that do not count.
    tombs_read: HashSet<ObjectName>,
    /// Whether it was forgotten what is remembered of tombs that are not there.
    tombs_tidied: bool,
    damaged_tombs: Vec<Remark>,
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
    /// Opens the local index of this copy of the repository, and loads what it lacks.
    ///
    /// # Errors
    /// Failures of the store or of the cache folder.
    pub fn open(vault: &Vault, replica: Option<ReplicaId>) -> Result<Self, Error> {
        let options = LocalOptions {
            memory_bytes: usize::try_from(vault.context.index_memory_bytes).unwrap_or(usize::MAX),
        };
        let copy = CopyId { repository: vault.id(), replica };
        let opened = local::open(&vault.context.cache_dir, copy, options)?;
        if let Some(reason) = &opened.rebuilt_because {
            vault.monitor().warn(Remark {
                code: "index.rebuilt",
                subject: vault.context.cache_dir.display().to_string(),
                message: format!("the local index is loaded anew: {reason}"),
            });
        }
        let catalog = Self {
            index: opened.index,
            state: Mutex::default(),
            condemned_here: RwLock::default(),
            unnamed: RwLock::default(),
            suspects: RwLock::default(),
            sound: Mutex::default(),
            forgotten: Mutex::default(),
            own: vault.own_namespace().ok(),
        };
        catalog.check_owner(vault)?;
        catalog.sync(vault)?;
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

    /// Brings the local index up to date: segments first, then tombs (SPEC §10). Packs that are
    /// condemned and gone are forgotten.
    ///
    /// # Errors
    /// Failures of the store or of the cache folder. Damaged segments and tombs are warned about.
    pub fn sync(&self, vault: &Vault) -> Result<(), Error> {
        self.sync_keeping(vault)?;
        if self.forget_deleted(vault)? {
            // What was needed of them was copied and named before they went, but maybe after segments
            // were listed.
            self.sync_all_segments(vault)?;
            self.find_condemned()?;
        }
        Ok(())
    }

    /// As [`Self::sync`], but remembers packs that are condemned and gone: for whoever relies on
    /// chunks and has to tell which of them are concerned.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub fn sync_keeping(&self, vault: &Vault) -> Result<(), Error> {
        self.sync_all_segments(vault)?;
        if self.sync_tombs(vault)? {
            // What replaces condemned packs was named before the tombs were put: a list of segments
            // from before them may lack it.
            self.sync_all_segments(vault)?;
        }
        self.find_condemned()
    }

    fn sync_all_segments(&self, vault: &Vault) -> Result<(), Error> {
        // What was not there before a list was asked for is passed over, should the list have it: a
        // store may go on to list what was deleted, as distributed ones do while a node catches up.
        // What replaced it was there before it went, and is in that list; its name never returns.
        let mut absent = HashSet::new();
        for _ in 0..LISTINGS_MAX {
            let before = absent.len();
            self.sync_segments(vault, &mut absent)?;
            if absent.len() == before {
                return Ok(());
            }
        }
        Err(Error::Internal { part: "the list of index segments" })
    }

    /// Loads every segment that is listed and not known to be absent; adds those that vanished.
    fn sync_segments(&self, vault: &Vault, absent: &mut HashSet<SegmentId>) -> Result<(), Error> {
        let mut listed = segments::list(vault)?;
        listed.retain(|id, _| !absent.contains(id));
        let loaded = self.index.segments()?.into_iter().collect::<HashSet<_>>();
        for gone in loaded.iter().filter(|id| !listed.contains_key(*id)) {
            self.index.remove_segment(gone)?;
        }
        let mut missing = listed.iter().filter(|(id, _)| !loaded.contains(*id)).collect::<Vec<_>>();
        // Larger ones first: they are merges, and what they replace need not be read.
        missing.sort_by_key(|(id, bytes)| (std::cmp::Reverse(**bytes), **id));
        let mut replaced = HashSet::new();
        let mut damaged = Vec::new();
        let mut missing = missing.into_iter().map(|(id, bytes)| (*id, *bytes)).peekable();
        loop {
            let mut wave = Vec::new();
            let mut wave_bytes = 0;
            while let Some((id, bytes)) = missing.next_if(|(id, bytes)| {
                let room = wave.len() < together::calls_at_once(vault.store())
                    && wave_bytes + bytes <= together::WAVE_BYTES_MAX;
                wave.is_empty() || room || replaced.contains(id)
            }) {
                if replaced.contains(&id) {
                    self.index.add_segment(&id)?;
                } else {
                    wave.push(id);
                    wave_bytes += bytes;
                }
            }
            if wave.is_empty() {
                break;
            }
            vault.check_cancelled()?;
            let read = together::map(vault.store(), &wave, |id| segments::read(vault, *id));
            for (id, read) in wave.iter().zip(read) {
                if replaced.contains(id) {
                    self.index.add_segment(id)?;
                    continue;
                }
                match read {
                    Ok(Some(read)) => {
                        replaced.extend(read.segment.replaces.iter().copied());
                        self.load(*id, &read.segment.packs)?;
                    }
                    Ok(None) => {
                        absent.insert(*id);
                    }
                    Err(error) if error.is_damage() => {
                        let remark = Remark::of(ObjectName::Index(*id), &error);
                        vault.monitor().warn(remark.clone());
                        damaged.push(remark);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        self.state.lock().damaged_segments = damaged;
        Ok(())
    }

    fn load(&self, id: SegmentId, packs: &[PackSection]) -> Result<(), Error> {
        let mut load = self.index.begin_load()?;
        for section in packs {
            load.add(&new_pack(section))?;
        }
        load.finish(&[id])?;
        Ok(())
    }

    /// A pack by its number.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn pack(&self, number: PackNumber) -> Result<PackRecord, Error> {
        self.index.pack(number)?.ok_or(Error::PlaceStale)
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
        // Whoever writes a segment anew may do so before this host has read the one it replaces.
        for pack in packs {
            if self.index.pack_number(&pack.id)?.is_none() {
                self.add_pending(pack)?;
            }
        }
        let ids = packs.iter().map(|pack| pack.id).collect::<Vec<_>>();
        self.index.commit_packs(&ids, &segment)?;
        Ok(())
    }

    /// Notes the outcome of a merge. What it wrote counts as loaded only where all that was merged
    /// was: other hosts may have put some of it since this one looked.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn note_merge(&self, merged: &segments::Merged) -> Result<(), Error> {
        let loaded = self.index.segments()?.into_iter().collect::<HashSet<_>>();
        if merged.replaced.iter().all(|id| loaded.contains(id)) {
            for id in &merged.written {
                self.index.add_segment(id)?;
            }
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
            if self.is_condemned(&id) {
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
            Err(
                StoreError::NotFound { .. }
                | StoreError::Short { .. }
                | StoreError::Unreadable { .. },
            ) => return Ok(None),
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
        for (id, (kind, bytes)) in list_packs(vault)? {
            if self.index.pack_number(&id)?.is_none() && !self.is_condemned(&id) {
                unlisted.insert((kind, id, bytes));
            }
        }
        Ok(unlisted.into_iter().collect())
    }
}

/// The packs in the store, with kind and size in bytes.
///
/// # Errors
/// When the store cannot be listed.
pub fn list_packs(vault: &Vault) -> Result<BTreeMap<PackId, (PackKind, u64)>, Error> {
    let mut packs = BTreeMap::new();
    for folder in [Folder::DataPacks, Folder::TreePacks] {
        vault.store.list(folder, &mut |name, bytes| {
            if let ObjectName::Pack(kind, id) = name {
                packs.insert(id, (kind, bytes));
            }
            Ok(())
        })?;
    }
    Ok(packs)
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
