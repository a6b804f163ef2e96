//! What this host saw of a copy of the repository, to notice that its store was rolled back, or lost or
//! withholds something: of a snapshot that is gone together with its acknowledgement nothing that
//! remains says so (SPEC section 13), so only those can tell who remember. Whoever removes a snapshot
//! that was acknowledged says so first, in a receipt; what is gone without that is missed. Kept in the
//! cache: without it nothing is remembered.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use cairn_format::ids::SnapshotId;
use cairn_format::names::ObjectName;

use super::snapshots::{self, SnapshotInfo};
use crate::context::{Counter, Remark};
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::repo::Repository;
use crate::repo::intent::{self, Subject};

/// Name under which it is kept in the local index.
const NAME: &str = "rollback/seen";
/// Version of how it is kept.
const VERSION: u8 = 2;

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Generation of the config.
    generation: u64,
    /// Acknowledged snapshots, by job.
    snapshots: BTreeMap<String, BTreeSet<SnapshotId>>,
}

/// Compares what is there with what this host saw before, warns about what went backwards, and
/// remembers what is there. `records` are the ids of all snapshots that are listed, also of those
/// that cannot be read.
///
/// # Errors
/// Failures of the store and the cache.
pub(super) fn compare(
    repository: &Repository,
    listed: &[SnapshotInfo],
    records: &HashSet<SnapshotId>,
) -> Result<Vec<Remark>, Error> {
    let before = seen(repository)?;
    let mut records = records.clone();
    if !before.missing(&records).is_empty() {
        // Another process of this host may have seen since what was made since.
        let names = snapshots::list_names(repository)?.into_iter();
        records.extend(names.filter_map(|name| match name {
            ObjectName::Snapshot { id, .. } => Some(id),
            _ => None,
        }));
    }
    let Compared { missed, mut remarks } = look(repository, before, listed, &records)?;
    remarks.extend(missed.into_iter().map(|(_, remark)| remark));
    for remark in &remarks {
        repository.monitor().count(Counter::Findings, 1);
        repository.monitor().warn(remark.clone());
    }
    Ok(remarks)
}

/// What this host has seen until now.
///
/// # Errors
/// Failures of the cache.
pub(super) fn seen(repository: &Repository) -> Result<Seen, Error> {
    Seen::load(repository.catalog()?)
}

/// Refuses to collect what is missed here: the store may have lost the snapshots, or withhold them, and
/// what they need is stored still. `seen` was asked for before `listed`: all of it has to be in it.
///
/// # Errors
/// [`Error::RolledBack`]; failures of the store and the cache.
pub(super) fn refuse_missed(
    repository: &Repository,
    seen: Seen,
    listed: &[SnapshotInfo],
) -> Result<(), Error> {
    let records = listed.iter().map(|one| one.id).collect();
    let missed = look(repository, seen, listed, &records)?.missed;
    match missed.first() {
        None => Ok(()),
        Some((id, remark)) => Err(Error::RolledBack {
            snapshot: *id,
            missed: missed.len(),
            message: remark.message.clone(),
        }),
    }
}

/// What was found.
struct Compared {
    /// Snapshots that were seen and are not there, and what is to be said of each.
    missed: Vec<(SnapshotId, Remark)>,
    /// What else went backwards.
    remarks: Vec<Remark>,
}

/// Compares what is there with what this host saw before, and remembers what is there. What is meant to
/// be gone, as receipts or what stands for it say, is not missed.
fn look(
    repository: &Repository,
    before: Seen,
    listed: &[SnapshotInfo],
    records: &HashSet<SnapshotId>,
) -> Result<Compared, Error> {
    let catalog = repository.catalog()?;
    let mut now = before.clone();
    let remarks = now.advance_generation(repository.vault().config.generation);
    let acknowledged = || listed.iter().filter(|one| one.acknowledged);
    let became = acknowledged().flat_map(SnapshotInfo::former).copied().collect();
    now.remove(&became);
    let mut missed = now.missing(records);
    if !missed.is_empty() {
        let subjects = missed.iter().copied().map(Subject::Snapshot).collect();
        let meant = intent::declared(repository, &subjects)?;
        let is_meant = |id: &SnapshotId| meant.contains(&Subject::Snapshot(*id));
        let gone = missed.iter().copied().filter(is_meant).collect::<HashSet<_>>();
        missed.retain(|id| !gone.contains(id));
        now.remove(&gone);
    }
    for one in acknowledged() {
        now.snapshots.entry(one.record.job.clone()).or_default().insert(one.id);
    }
    if now != before {
        now.save(catalog)?;
    }
    Ok(Compared { missed: now.missed(&missed), remarks })
}

/// Remembers a snapshot that this host has acknowledged: a list may lack it when this host next asks for
/// one.
///
/// # Errors
/// Failures of the cache.
pub(super) fn acknowledged(catalog: &Catalog, job: &str, made: SnapshotId) -> Result<(), Error> {
    let mut seen = Seen::load(catalog)?;
    let new = seen.snapshots.entry(job.to_owned()).or_default().insert(made);
    if new { seen.save(catalog) } else { Ok(()) }
}

/// Snapshots that were seen and are not listed now, whose ids begin so.
///
/// # Errors
/// Failures of the cache.
pub(super) fn missing(repository: &Repository, digits: &str) -> Result<Vec<SnapshotId>, Error> {
    Ok(seen(repository)?.ids().filter(|id| id.to_hex().starts_with(digits)).collect())
}

/// Snapshots that were seen acknowledged, are listed, and are acknowledged no more, though nobody said
/// that they are meant to go. `seen` was asked for before acknowledgements were listed.
///
/// # Errors
/// Failures of the store and the cache.
pub(super) fn unacknowledged(
    repository: &Repository,
    seen: &Seen,
    listed: &[SnapshotInfo],
) -> Result<Vec<SnapshotId>, Error> {
    let seen = seen.ids().collect::<HashSet<_>>();
    let gone = listed.iter().filter(|one| !one.acknowledged && seen.contains(&one.id));
    let mut gone = gone.map(|one| one.id).collect::<Vec<_>>();
    let subjects = gone.iter().copied().map(Subject::Snapshot).collect();
    let meant = intent::declared(repository, &subjects)?;
    gone.retain(|id| !meant.contains(&Subject::Snapshot(*id)));
    Ok(gone)
}

/// Forgets having seen these: this host removed them.
///
/// # Errors
/// Failures of the cache.
pub(super) fn removed(repository: &Repository, gone: &HashSet<SnapshotId>) -> Result<(), Error> {
    let catalog = repository.catalog()?;
    let mut seen = Seen::load(catalog)?;
    if seen.remove(gone) { seen.save(catalog) } else { Ok(()) }
}

impl Seen {
    /// What this host remembers; nothing if it cannot be understood.
    fn load(catalog: &Catalog) -> Result<Self, Error> {
        let bytes = catalog.index().meta_get(NAME)?.unwrap_or_default();
        Ok(Self::decode(&bytes).unwrap_or_default())
    }

    fn save(&self, catalog: &Catalog) -> Result<(), Error> {
        Ok(catalog.index().meta_put(NAME, &self.encode())?)
    }

    fn ids(&self) -> impl Iterator<Item = SnapshotId> {
        self.snapshots.values().flatten().copied()
    }

    /// What was seen and is not among these.
    fn missing(&self, records: &HashSet<SnapshotId>) -> BTreeSet<SnapshotId> {
        self.ids().filter(|id| !records.contains(id)).collect()
    }

    /// Forgets having seen these; true if any of them was.
    fn remove(&mut self, gone: &HashSet<SnapshotId>) -> bool {
        let before = self.ids().count();
        for seen in self.snapshots.values_mut() {
            seen.retain(|id| !gone.contains(id));
        }
        self.snapshots.retain(|_, seen| !seen.is_empty());
        self.ids().count() != before
    }

    /// Takes over a newer generation, and tells of an older one.
    fn advance_generation(&mut self, generation: u64) -> Vec<Remark> {
        let mut remarks = Vec::new();
        if generation < self.generation {
            remarks.push(Remark {
                code: "config.rolled_back",
                subject: format!("config of generation {generation}"),
                message: format!(
                    "this host has seen generation {}: keys that were revoked since may count \
                     again; the store lost or withholds the newer config",
                    self.generation
                ),
            });
        }
        self.generation = self.generation.max(generation);
        remarks
    }

    /// What is to be said of those that are missed.
    fn missed(&self, missed: &BTreeSet<SnapshotId>) -> Vec<(SnapshotId, Remark)> {
        let mut found = Vec::new();
        for (job, seen) in &self.snapshots {
            for id in seen.intersection(missed) {
                let remark = Remark {
                    code: "snapshot.rolled_back",
                    subject: format!("snapshot {id}"),
                    message: format!(
                        "this host has seen it acknowledged, of job {job}, and it is gone: nobody \
                         said that it is meant to go, so the store lost or withholds it. If it is \
                         meant to be gone, forget it by its id"
                    ),
                };
                found.push((*id, remark));
            }
        }
        found
    }

    /// `u8` version, u64 generation; then of each job u8 length of its name, the name, u32 number of
    /// snapshots, their ids.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.generation.to_le_bytes());
        for (job, seen) in &self.snapshots {
            let Ok(job_bytes) = u8::try_from(job.len()) else { continue };
            let Ok(number) = u32::try_from(seen.len()) else { continue };
            bytes.push(job_bytes);
            bytes.extend(job.as_bytes());
            bytes.extend(number.to_le_bytes());
            bytes.extend(seen.iter().flat_map(|id| id.as_bytes()));
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (generation, mut rest) = rest.split_first_chunk()?;
        if *version != VERSION {
            return None;
        }
        let mut seen = Self { generation: u64::from_le_bytes(*generation), ..Self::default() };
        while !rest.is_empty() {
            let (job_bytes, after) = rest.split_first()?;
            let (job, after) = after.split_at_checked(usize::from(*job_bytes))?;
            let (number, after) = after.split_first_chunk()?;
            let ids_bytes = usize::try_from(u32::from_le_bytes(*number)).ok()?;
            let (ids, after) = after.split_at_checked(ids_bytes.checked_mul(SnapshotId::LEN)?)?;
            let (ids, _) = ids.as_chunks::<{ SnapshotId::LEN }>();
            let ids = ids.iter().copied().map(SnapshotId::from_bytes).collect();
            seen.snapshots.insert(String::from_utf8(job.to_vec()).ok()?, ids);
            rest = after;
        }
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_remembered_and_nonsense_is_nothing() {
        let ids =
            |bytes: &[u8]| bytes.iter().map(|one| SnapshotId::from_bytes([*one; 32])).collect();
        let seen = Seen {
            generation: 7,
            snapshots: [("db".to_owned(), ids(&[1])), ("two".to_owned(), ids(&[2, 9]))].into(),
        };
        let bytes = seen.encode();
        assert_eq!(Seen::decode(&bytes), Some(seen));
        for end in [0, 1, 8, 10, bytes.len() - 1] {
            assert_eq!(Seen::decode(&bytes[..end]), None, "{end}");
        }
        let mut other = bytes;
        other[0] = 1;
        assert_eq!(Seen::decode(&other), None);
    }
}
