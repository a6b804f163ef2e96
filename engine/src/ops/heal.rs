//! Heals a copy of the repository: damaged packs out of their own parity, where that gives them; what
//! else is damaged or missing from another copy, by the name of the object where that has the very
//! same, else chunk by chunk.
//!
//! A pack is put again under its name, in the place of the damaged one, only when its bytes are those
//! that the name stands for.
//!
//! What is damaged inside of packs is known from `verify`; what is missing or has another length is
//! found here.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use cairn_format::ids::{ChunkId, PackId, SessionId, SnapshotId, WriterId};
use cairn_format::limits::RECORD_BYTES_MAX;
use cairn_format::names::{Folder, ObjectName, PackKind};
use cairn_format::record::TombReason;
use parking_lot::Mutex;

use super::forget::evidence::list_acks;
use super::forget::orphans::{Orphan, remove_orphans};
use super::snapshots::{self, SnapshotInfo};
use crate::collect::copy::Copier;
use crate::collect::lease::HeldLease;
use crate::collect::reach::{Reach, reach};
use crate::collect::sweep::condemn;
use crate::context::{Counter, Remark};
use crate::error::Error;
use crate::index::catalog::{Catalog, list_packs};
use crate::index::local::LedgerEntry;
use crate::parity::read_pack;
use crate::repo::chunks::{Wanted, single};
use crate::repo::intent::{self, Subject};
use crate::repo::vault::read_object;
use crate::repo::{Fallback, Repository};
use crate::seal::random;
use crate::store::{StoreError, any_is_there};

/// Chunks that are looked up at once.
const CHUNKS_AT_ONCE: usize = 4096;
/// Content of chunks that is held at once until it is stored, bytes.
const HELD_BYTES_MAX: u64 = 32 << 20;

/// What was healed; with a dry run, what is to be.
#[derive(Clone, Debug, Default)]
pub struct HealReport {
    /// Snapshots whose records were fetched.
    pub snapshots: Vec<SnapshotId>,
    /// Key slots and settings that were fetched.
    pub objects: Vec<ObjectName>,
    /// Packs that were fetched as they are. With a dry run: packs that are damaged or missing.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Packs that were made whole out of their own parity.
    pub packs_from_parity: u64,
    /// Their bytes.
    pub parity_pack_bytes: u64,
    /// Chunks that were stored anew.
    pub chunks: u64,
    /// Of these, chunks that came from the other copy.
    pub chunks_fetched: u64,
    /// Bytes of packs written for them.
    pub bytes_written: u64,
    /// Packs that are damaged for good, and condemned: what is needed of them stands elsewhere.
    pub packs_condemned: u64,
    /// What could not be had from anywhere.
    pub lost: Vec<Remark>,
}

/// Heals: out of parity, and from the copy that was added to `home` by [`Repository::add_fallback`],
/// if one was.
///
/// # Errors
/// [`Error::Role`] for keys of other roles than owner and maintainer; [`Error::Usage`] without either
/// parity or another copy; failures of either store or cache. What was healed until then stays.
pub fn run(home: &Repository, dry_run: bool) -> Result<HealReport, Error> {
    home.require_collect("repair the repository")?;
    let other = home.fallbacks().first();
    if other.is_none() && home.vault().config.parity.is_none() {
        let message = "no other copy is named, and packs have no parity".to_owned();
        let hint = "name another copy with --from, or use `cairn repair index`".to_owned();
        return Err(Error::Usage { message, hint: Some(hint) });
    }
    home.current_catalog()?.require_sound_tombs()?;
    let heal = Heal { home, catalog: home.catalog()?, other };
    let mut report = HealReport::default();
    heal.records(dry_run, &mut report)?;
    let damaged = heal.damaged_packs()?;
    if dry_run {
        report.packs = damaged.len() as u64;
        heal.keys_and_settings(dry_run, &mut report)?;
        return Ok(report);
    }
    let left = heal.packs(&damaged, &mut report)?;
    heal.chunks(&left, &mut report)?;
    heal.keys_and_settings(dry_run, &mut report)?;
    report.chunks_fetched = other.map_or(0, Fallback::chunks);
    Ok(report)
}

struct Heal<'a> {
    home: &'a Repository,
    catalog: &'a Catalog,
    other: Option<&'a Fallback>,
}

type Packs = BTreeSet<(PackKind, PackId, u64)>;

impl Heal<'_> {
    /// Fetches records of snapshots that are damaged, or missing though they were acknowledged.
    fn records(&self, dry_run: bool, report: &mut HealReport) -> Result<(), Error> {
        self.home.monitor().stage("repair: snapshots", None);
        let mut acks = BTreeMap::<SnapshotId, Vec<ObjectName>>::new();
        list_acks(self.home, &mut |id, name| acks.entry(id).or_default().push(name))?;
        let mut bad = Vec::new();
        let mut listed = HashSet::new();
        for name in snapshots::list_names(self.home)? {
            let ObjectName::Snapshot { id, .. } = name else { continue };
            listed.insert(id);
            match read_object(self.home.store(), &name, RECORD_BYTES_MAX) {
                Ok(_) | Err(Error::Store(StoreError::NotFound { .. })) => {}
                Err(error) if error.is_damage() => bad.push(name),
                Err(error) => return Err(error),
            }
        }
        let mut missing = HashSet::new();
        for (id, names) in acks.iter().filter(|(id, _)| !listed.contains(*id)) {
            // Whoever forgets one in between removes its acknowledgement first.
            if any_is_there(self.home.store(), names)? {
                missing.insert(*id);
            }
        }
        let Some(other) = self.other.map(Fallback::repository) else {
            for name in bad {
                let error = Error::Hash { object: name.to_string() };
                report.lost.push(Remark::of(name, &error));
            }
            report.lost.extend(missing.into_iter().map(|id| Remark {
                code: "snapshot.missing",
                subject: format!("snapshot {id}"),
                message: "it was acknowledged, and is not in the store".to_owned(),
            }));
            return Ok(());
        };
        if !missing.is_empty() {
            let there = snapshots::list_names(other)?;
            bad.extend(there.into_iter().filter(
                |name| matches!(name, ObjectName::Snapshot { id, .. } if missing.contains(id)),
            ));
        }
        let mut fetched = HashMap::new();
        for name in bad {
            let ObjectName::Snapshot { id, .. } = name else { continue };
            match read_object(other.store(), &name, RECORD_BYTES_MAX) {
                Ok(object) => {
                    if !dry_run {
                        self.home.store().put(&name, &object)?;
                    }
                    fetched.insert(id, name);
                }
                Err(error) if is_absent(&error) => report.lost.push(Remark::of(name, &error)),
                Err(error) => return Err(error),
            }
        }
        if !dry_run {
            self.take_back(&mut fetched, &acks)?;
        }
        report.snapshots.extend(fetched.into_keys());
        Ok(())
    }

    /// Takes back records of snapshots that were acknowledged, as `acks` says, and that somebody removed
    /// on purpose before their records were put.
    fn take_back(
        &self,
        fetched: &mut HashMap<SnapshotId, ObjectName>,
        acks: &BTreeMap<SnapshotId, Vec<ObjectName>>,
    ) -> Result<(), Error> {
        let subjects = fetched.keys().copied().map(Subject::Snapshot).collect();
        for subject in intent::declared(self.home, &subjects)? {
            let Subject::Snapshot(id) = subject else { continue };
            let (Some(name), Some(acks)) = (fetched.get(&id), acks.get(&id)) else { continue };
            // Said long ago of one that came back since: it is acknowledged still.
            if any_is_there(self.home.store(), acks)? {
                continue;
            }
            if remove_orphans(self.home, &[Orphan::new(id, *name, Vec::new())])?.is_empty() {
                fetched.remove(&id);
            }
        }
        Ok(())
    }

    /// Fetches key slots and settings that are damaged, each the very object that its name stands for.
    /// What is not there somebody may have removed on purpose, and it does not come back.
    fn keys_and_settings(&self, dry_run: bool, report: &mut HealReport) -> Result<(), Error> {
        let other = self.other.map(Fallback::repository);
        for (name, damage) in self.damaged_in(&[Folder::Config, Folder::Keys])? {
            let there = match other {
                Some(other) => read_object(other.store(), &name, RECORD_BYTES_MAX),
                None => Err(damage),
            };
            match there {
                Ok(object) => {
                    if !dry_run {
                        self.home.store().put(&name, &object)?;
                    }
                    report.objects.push(name);
                }
                Err(error) if is_absent(&error) => report.lost.push(Remark::of(name, &error)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The objects of these folders that are there and damaged.
    fn damaged_in(&self, folders: &[Folder]) -> Result<Vec<(ObjectName, Error)>, Error> {
        let mut names = BTreeSet::new();
        for folder in folders {
            self.home.store().list(*folder, &mut |name, _| {
                names.insert(name);
                Ok(())
            })?;
        }
        let mut damaged = Vec::new();
        for name in names {
            match read_object(self.home.store(), &name, RECORD_BYTES_MAX) {
                Ok(_) | Err(Error::Store(StoreError::NotFound { .. })) => {}
                Err(error) if error.is_damage() => damaged.push((name, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(damaged)
    }

    /// Packs that verify found damaged, that are missing, or that have another length.
    fn damaged_packs(&self) -> Result<Packs, Error> {
        let present = list_packs(self.home.vault())?;
        let (condemned, suspects) = (self.catalog.condemned_here(), self.catalog.suspects());
        let mut damaged = BTreeSet::new();
        self.catalog.index().for_each_pack(&mut |number, record, ledger| {
            let length = present.get(&record.id).map(|(_, bytes)| *bytes);
            let sound = length == Some(u64::from(record.bytes))
                && !suspects.contains(&number)
                && ledger.is_none_or(|ledger| ledger.ok);
            if !sound && !condemned.contains(&number) {
                damaged.insert((record.kind, record.id, u64::from(record.bytes)));
            }
            ControlFlow::Continue(())
        })?;
        let ids = damaged.iter().map(|(_, id, _)| *id).collect::<Vec<_>>();
        self.catalog.note_verified(&ids, &[])?;
        Ok(damaged)
    }

    /// Makes packs whole out of their parity, or fetches them as they are where the other copy has
    /// them; returns the rest.
    fn packs(&self, damaged: &Packs, report: &mut HealReport) -> Result<Packs, Error> {
        let total = damaged.iter().map(|(_, _, bytes)| bytes).sum();
        self.home.monitor().stage("repair: packs", Some((Counter::BytesFetched, total)));
        let mut left = Packs::new();
        for (kind, id, bytes) in damaged {
            self.home.check_cancelled()?;
            let name = ObjectName::Pack(*kind, *id);
            if self.out_of_parity(*kind, *id, report)? {
                continue;
            }
            let Some(other) = self.other else {
                left.insert((*kind, *id, *bytes));
                continue;
            };
            match read_pack(other.repository().store(), *kind, *id) {
                Ok((pack, _)) => {
                    self.home.monitor().count(Counter::BytesFetched, pack.len() as u64);
                    self.home.store().put(&name, &pack)?;
                    self.note_sound(*id)?;
                    report.packs += 1;
                    report.pack_bytes += pack.len() as u64;
                }
                Err(error) if is_absent(&error) => {
                    left.insert((*kind, *id, *bytes));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(left)
    }

    /// Makes a damaged pack whole out of its parity; false where that cannot be.
    fn out_of_parity(
        &self,
        kind: PackKind,
        id: PackId,
        report: &mut HealReport,
    ) -> Result<bool, Error> {
        if self.home.vault().config.parity.is_none() {
            return Ok(false);
        }
        match read_pack(self.home.store(), kind, id) {
            Ok((pack, damage)) => {
                self.home.monitor().count(Counter::BytesFetched, pack.len() as u64);
                if damage.is_some() {
                    self.home.store().put(&ObjectName::Pack(kind, id), &pack)?;
                    report.packs_from_parity += 1;
                    report.parity_pack_bytes += pack.len() as u64;
                }
                self.note_sound(id)?;
                Ok(true)
            }
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Notes that a pack is what its name stands for.
    fn note_sound(&self, id: PackId) -> Result<(), Error> {
        if let Some(entry) = self.catalog.index().ledger_get(&id)? {
            self.catalog.index().ledger_put(&[(id, LedgerEntry { ok: true, ..entry })])?;
        }
        self.catalog.note_verified(&[], &[id])
    }

    /// Stores chunks anew that snapshots need and that stand nowhere where they can be relied on, and
    /// condemns the packs that are then of no use.
    fn chunks(&self, left: &Packs, report: &mut HealReport) -> Result<(), Error> {
        self.home.monitor().stage("repair: looking for chunks", None);
        // What an interrupted run of this host has stored and no segment names is relied on, if it is
        // still there.
        let mut leftovers = self.catalog.leftover_sections(self.home.vault())?;
        let mut wanted = self.wanted(report)?;
        let session = SessionId::from_bytes(random::array(self.home.context.random.as_ref())?);
        let lease = HeldLease::take(self.home.vault(), session, "repair");
        let mut copier = Copier::new(self.home, self.catalog, session)?;
        // First what others may be stored against: then those can be read where they are.
        for plain in [true, false] {
            lease.renew();
            let mut now = HashMap::new();
            for ((id, namespace), kind) in &wanted {
                let place = self.catalog.places(&[*id], *namespace)?.pop().flatten();
                if !plain || place.is_none_or(|place| !place.based) {
                    now.insert((*id, *namespace), *kind);
                }
            }
            self.store(&now, &mut copier, report)?;
            copier.finish(std::mem::take(&mut leftovers))?;
            self.catalog.find_condemned()?;
            wanted.retain(|key, _| !now.contains_key(key));
            for key in wanted.keys().copied().collect::<Vec<_>>() {
                if self.catalog.known(&[key.0], key.1)?.first() == Some(&true) {
                    wanted.remove(&key);
                }
            }
        }
        report.bytes_written = copier.bytes_written;
        if report.lost.is_empty() && !left.is_empty() {
            let packs = left.iter().map(|(kind, id, _)| (*kind, *id)).collect::<BTreeSet<_>>();
            condemn(self.home.vault(), session, TombReason::Damaged, &packs, &[])?;
            report.packs_condemned = packs.len() as u64;
            self.catalog.sync_keeping(self.home.vault())?;
        }
        lease.end();
        Ok(())
    }

    /// Chunks of snapshots that stand nowhere where they can be relied on.
    fn wanted(&self, report: &mut HealReport) -> Result<Wants, Error> {
        let (listed, remarks) = snapshots::list_all(self.home)?;
        report.lost.extend(remarks);
        let mut walk = Walk {
            catalog: self.catalog,
            namespace: WriterId::from_bytes([0; 16]),
            seen: HashSet::new(),
            wanted: Wants::new(),
            lost: None,
        };
        for snapshot in &listed {
            self.home.check_cancelled()?;
            walk.namespace = snapshot.namespace;
            let nodes = self.home.nodes(snapshot)?;
            reach(&nodes, snapshot.record.root, &mut walk)?;
            if let Some(error) = walk.lost.take().filter(|_| snapshot.acknowledged) {
                report.lost.push(lost(snapshot, &error));
            }
        }
        Ok(walk.wanted)
    }

    /// Stores chunks anew, from wherever they can be had.
    fn store(
        &self,
        wanted: &Wants,
        copier: &mut Copier<'_>,
        report: &mut HealReport,
    ) -> Result<(), Error> {
        let mut by_namespace: HashMap<WriterId, Vec<(ChunkId, PackKind)>> = HashMap::new();
        for ((id, namespace), kind) in wanted {
            by_namespace.entry(*namespace).or_default().push((*id, *kind));
        }
        for (namespace, chunks) in by_namespace {
            let reader = self.home.chunk_reader(namespace)?;
            let mut here = Vec::new();
            for chunks in chunks.chunks(CHUNKS_AT_ONCE) {
                self.home.check_cancelled()?;
                let ids = chunks.iter().map(|(id, _)| *id).collect::<Vec<_>>();
                for ((id, kind), place) in chunks.iter().zip(reader.locate(&ids)?) {
                    match (place, place.is_none().then(|| reader.elsewhere(id)).flatten()) {
                        (Some(place), _) => here.push(Wanted { id: *id, place, tag: *kind }),
                        (None, Some(chunk)) => {
                            copier.add_chunk(*kind, *id, &chunk)?;
                            report.chunks += 1;
                        }
                        (None, None) => report.lost.push(lost_chunk(*id)),
                    }
                }
            }
            // In the order of the packs: no frame is decoded for more than two groups.
            here.sort_by_key(|one| (one.place.pack, one.place.frame_number, one.place.offset));
            for group in groups(here, HELD_BYTES_MAX) {
                let found: Mutex<Vec<(ChunkId, PackKind, Bytes)>> = Mutex::default();
                let missing = Mutex::new(Vec::new());
                reader.fetch(group, &|run, content| {
                    match content {
                        Ok(content) => {
                            found.lock().extend(single(run, content).map(|(wanted, chunk)| {
                                (wanted.id, wanted.tag, Bytes::copy_from_slice(chunk))
                            }))
                        }
                        Err(error) if error.is_damage() => {
                            missing.lock().extend(run.iter().map(|one| lost_chunk(one.id)));
                        }
                        Err(error) => return Err(error),
                    }
                    Ok(())
                })?;
                for (id, kind, chunk) in found.into_inner() {
                    copier.add_chunk(kind, id, &chunk)?;
                    report.chunks += 1;
                }
                report.lost.extend(missing.into_inner());
            }
        }
        Ok(())
    }
}

/// Chunks by namespace, with what they are.
type Wants = HashMap<(ChunkId, WriterId), PackKind>;

fn lost(snapshot: &SnapshotInfo, error: &Error) -> Remark {
    Remark::of(format!("snapshot {}", snapshot.id), error)
}

fn lost_chunk(id: ChunkId) -> Remark {
    Remark::of(format!("chunk {id}"), &Error::ChunkMissing { chunk: id })
}

/// Cuts a list of chunks into groups whose content is no longer than this; one chunk that is longer is
/// a group of its own.
fn groups<T>(wanted: Vec<Wanted<T>>, bytes_max: u64) -> Vec<Vec<Wanted<T>>> {
    let mut groups: Vec<Vec<Wanted<T>>> = Vec::new();
    let mut bytes = 0;
    for one in wanted {
        bytes += u64::from(one.place.bytes);
        match groups.last_mut().filter(|_| bytes <= bytes_max) {
            Some(group) => group.push(one),
            None => {
                bytes = u64::from(one.place.bytes);
                groups.push(vec![one]);
            }
        }
    }
    groups
}

/// Whether a copy does not have something, or has it damaged.
fn is_absent(error: &Error) -> bool {
    error.is_damage() || matches!(error, Error::Store(StoreError::NotFound { .. }))
}

struct Walk<'a> {
    catalog: &'a Catalog,
    namespace: WriterId,
    seen: HashSet<(ChunkId, WriterId)>,
    wanted: Wants,
    /// A node that neither copy can give.
    lost: Option<Error>,
}

impl Walk<'_> {
    fn look(&mut self, ids: &[ChunkId], kind: PackKind) -> Result<(), Error> {
        let known = self.catalog.known(ids, self.namespace)?;
        for (id, _) in ids.iter().zip(known).filter(|(_, known)| !known) {
            self.wanted.insert((*id, self.namespace), kind);
        }
        Ok(())
    }
}

impl Reach for Walk<'_> {
    fn node(&mut self, id: &ChunkId) -> Result<bool, Error> {
        if !self.seen.insert((*id, self.namespace)) {
            return Ok(false);
        }
        self.look(&[*id], PackKind::Tree)?;
        Ok(true)
    }

    fn data(&mut self, chunks: &[(ChunkId, u32)]) -> Result<(), Error> {
        let ids = chunks.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        self.look(&ids, PackKind::Data)
    }

    fn unreadable(&mut self, id: &ChunkId, error: Error) -> Result<(), Error> {
        self.wanted.remove(&(*id, self.namespace));
        self.lost = Some(error);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::local::{ChunkPlace, PackNumber};

    #[test]
    fn what_is_held_at_once_is_bounded_by_its_bytes() {
        let wanted = |bytes: &u32| Wanted {
            id: ChunkId::from_bytes([0; 32]),
            place: ChunkPlace {
                pack: PackNumber(0),
                frame_number: 0,
                frame_offset: 0,
                frame_bytes: 0,
                plain_bytes: *bytes,
                codec: 0,
                based: false,
                offset: 0,
                bytes: *bytes,
            },
            tag: (),
        };
        let lengths = |of: &[u32], bytes_max| {
            let grouped = groups(of.iter().map(wanted).collect(), bytes_max).into_iter();
            let group = |group: Vec<Wanted<()>>| group.iter().map(|one| one.place.bytes).collect();
            grouped.map(group).collect::<Vec<Vec<u32>>>()
        };
        assert_eq!(lengths(&[], 10), Vec::<Vec<u32>>::new());
        assert_eq!(lengths(&[4, 6, 1, 9, 11, 2], 10), [vec![4, 6], vec![1, 9], vec![11], vec![2]]);
        // As many as were held at once before, of the longest there are.
        let all = vec![cairn_format::limits::CHUNK_BYTES_MAX; CHUNKS_AT_ONCE];
        for group in lengths(&all, HELD_BYTES_MAX) {
            assert!(group.iter().map(|bytes| u64::from(*bytes)).sum::<u64>() <= HELD_BYTES_MAX);
        }
    }
}
