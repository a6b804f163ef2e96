//! What this host saw of a copy of the repository, to notice that its store was rolled back: the
//! store's operator can withhold objects and leave no trace in what remains (SPEC section 13), so
//! only those can tell who remember. Rules never let the newest snapshot of a series go; that a
//! series ends earlier than before means that somebody named its end to forget or erase it, which a
//! receipt says, or that the store lost or withholds it. Kept in the cache: without it nothing is
//! remembered.

use std::collections::{BTreeMap, HashSet};

use cairn_format::ids::{SnapshotId, WriterId};
use cairn_format::names::ObjectName;

use super::snapshots::{self, SnapshotInfo};
use crate::context::{Counter, Remark};
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::repo::Repository;
use crate::repo::intent::{self, Subject};
use crate::retention::CLOCK_SKEW_MS;

/// Name under which it is kept in the local index.
const NAME: &str = "rollback/seen";

/// The newest acknowledged snapshot of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Newest {
    id: SnapshotId,
    finished_ms: i64,
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Generation of the config.
    generation: u64,
    /// By namespace and job.
    newest: BTreeMap<(WriterId, String), Newest>,
}

/// Compares what is there with what this host saw before, warns about what went backwards, and
/// remembers what is there. `records` are the ids of all snapshots that are listed, also of those
/// that cannot be read.
///
/// # Errors
/// Failures of the cache.
pub(super) fn compare(
    repository: &Repository,
    listed: &[SnapshotInfo],
    records: &HashSet<SnapshotId>,
) -> Result<Vec<Remark>, Error> {
    let Compared { missed, mut remarks } = look(repository, listed, records)?;
    remarks.extend(missed.into_iter().map(|(_, remark)| remark));
    for remark in &remarks {
        repository.monitor().count(Counter::Findings, 1);
        repository.monitor().warn(remark.clone());
    }
    Ok(remarks)
}

/// Refuses to collect what is missed here: the store may have lost the snapshots, or withhold them, and
/// what they need is stored still.
///
/// # Errors
/// [`Error::RolledBack`]; failures of the store and the cache.
pub(super) fn refuse_missed(repository: &Repository, listed: &[SnapshotInfo]) -> Result<(), Error> {
    let records = listed.iter().map(|one| one.id).collect();
    let mut missed = look(repository, listed, &records)?.missed;
    if missed.is_empty() {
        return Ok(());
    }
    // Another process may have seen since what was made since.
    let there = snapshots::list_names(repository)?.into_iter().filter_map(|name| match name {
        ObjectName::Snapshot { id, .. } => Some(id),
        _ => None,
    });
    let there = there.collect::<HashSet<_>>();
    missed.retain(|(id, _)| !there.contains(id));
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
/// be gone, as receipts say, is not missed.
fn look(
    repository: &Repository,
    listed: &[SnapshotInfo],
    records: &HashSet<SnapshotId>,
) -> Result<Compared, Error> {
    let catalog = repository.catalog()?;
    let before = Seen::load(catalog)?;
    let mut now = before.clone();
    let latest_ms = repository.context.clock.now_ms().saturating_add(CLOCK_SKEW_MS);
    let generation = repository.vault().config.generation;
    let mut compared = now.advance(generation, latest_ms, listed, records);
    let missed = compared.missed.iter().map(|(id, _)| Subject::Snapshot(*id)).collect();
    let meant = intent::declared(repository, &missed)?;
    compared.missed.retain(|(id, _)| !meant.contains(&Subject::Snapshot(*id)));
    if !meant.is_empty() {
        now.newest.retain(|_, newest| !meant.contains(&Subject::Snapshot(newest.id)));
        // What is the newest without them.
        now.advance(generation, latest_ms, listed, records);
    }
    if now != before {
        now.save(catalog)?;
    }
    Ok(compared)
}

/// Snapshots that were seen and are not listed now, whose ids begin so.
///
/// # Errors
/// Failures of the cache.
pub(super) fn missing(repository: &Repository, digits: &str) -> Result<Vec<SnapshotId>, Error> {
    let seen = Seen::load(repository.catalog()?)?;
    let ids = seen.newest.values().map(|one| one.id);
    Ok(ids.filter(|id| id.to_hex().starts_with(digits)).collect())
}

/// Snapshots that were seen acknowledged, are listed, and are acknowledged no more.
///
/// # Errors
/// Failures of the cache.
pub(super) fn unacknowledged(
    repository: &Repository,
    listed: &[SnapshotInfo],
) -> Result<Vec<SnapshotId>, Error> {
    let seen = Seen::load(repository.catalog()?)?;
    let seen = seen.newest.values().map(|one| one.id).collect::<HashSet<_>>();
    let gone = listed.iter().filter(|one| !one.acknowledged && seen.contains(&one.id));
    Ok(gone.map(|one| one.id).collect())
}

/// Forgets having seen these: this host removed them.
///
/// # Errors
/// Failures of the cache.
pub(super) fn removed(repository: &Repository, gone: &HashSet<SnapshotId>) -> Result<(), Error> {
    let catalog = repository.catalog()?;
    let mut seen = Seen::load(catalog)?;
    let before = seen.newest.len();
    seen.newest.retain(|_, newest| !gone.contains(&newest.id));
    if seen.newest.len() == before { Ok(()) } else { seen.save(catalog) }
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

    /// Takes over what is newer than what was seen, and tells what is older. What is dated after
    /// `latest_ms` is not believed.
    fn advance(
        &mut self,
        generation: u64,
        latest_ms: i64,
        listed: &[SnapshotInfo],
        records: &HashSet<SnapshotId>,
    ) -> Compared {
        let (mut missed, mut remarks) = (Vec::new(), Vec::new());
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
        let mut newest = BTreeMap::<_, Newest>::new();
        let counts = |one: &&SnapshotInfo| one.acknowledged && one.record.finished_ms <= latest_ms;
        for one in listed.iter().filter(counts) {
            let found = Newest { id: one.id, finished_ms: one.record.finished_ms };
            let known = newest.entry((one.namespace, one.record.job.clone())).or_insert(found);
            if (known.finished_ms, known.id) < (found.finished_ms, found.id) {
                *known = found;
            }
        }
        for (series, seen) in &self.newest {
            let end = newest.get(series);
            if records.contains(&seen.id)
                || end.is_some_and(|end| end.finished_ms >= seen.finished_ms)
            {
                continue;
            }
            let left = match end {
                Some(end) => format!("the newest there is now is {}", end.id),
                None => "there is none now".to_owned(),
            };
            let remark = Remark {
                code: "snapshot.rolled_back",
                subject: format!("snapshot {}", seen.id),
                message: format!(
                    "this host has seen it as the newest of job {}, and it is gone; {left}: nobody \
                     said that it is meant to go, so the store lost or withholds it. If it is \
                     meant to be gone, forget it by its id",
                    series.1
                ),
            };
            missed.push((seen.id, remark));
        }
        for (series, found) in newest {
            let known = self.newest.entry(series).or_insert(found);
            if known.finished_ms <= found.finished_ms {
                *known = found;
            }
        }
        Compared { missed, remarks }
    }

    /// `u8 1`, u64 generation; then of each series its namespace, the newest snapshot's id and i64
    /// time, u8 length of the job's name, the name.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![1];
        bytes.extend(self.generation.to_le_bytes());
        for ((namespace, job), newest) in &self.newest {
            let Ok(job_bytes) = u8::try_from(job.len()) else { continue };
            bytes.extend(namespace.as_bytes());
            bytes.extend(newest.id.as_bytes());
            bytes.extend(newest.finished_ms.to_le_bytes());
            bytes.push(job_bytes);
            bytes.extend(job.as_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (generation, mut rest) = rest.split_first_chunk()?;
        if *version != 1 {
            return None;
        }
        let mut seen = Self { generation: u64::from_le_bytes(*generation), ..Self::default() };
        while !rest.is_empty() {
            let (namespace, after) = rest.split_first_chunk::<{ WriterId::LEN }>()?;
            let (id, after) = after.split_first_chunk::<{ SnapshotId::LEN }>()?;
            let (finished_ms, after) = after.split_first_chunk()?;
            let (job_bytes, after) = after.split_first()?;
            let (job, after) = after.split_at_checked(usize::from(*job_bytes))?;
            let series = (WriterId::from_bytes(*namespace), String::from_utf8(job.to_vec()).ok()?);
            let finished_ms = i64::from_le_bytes(*finished_ms);
            seen.newest.insert(series, Newest { id: SnapshotId::from_bytes(*id), finished_ms });
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
        let series = |byte, job: &str| (WriterId::from_bytes([byte; 16]), job.to_owned());
        let newest =
            |byte, finished_ms| Newest { id: SnapshotId::from_bytes([byte; 32]), finished_ms };
        let seen = Seen {
            generation: 7,
            newest: [(series(0, "db"), newest(1, -5)), (series(3, "two"), newest(2, 9))].into(),
        };
        let bytes = seen.encode();
        assert_eq!(Seen::decode(&bytes), Some(seen));
        for end in [0, 1, 8, 10, bytes.len() - 1] {
            assert_eq!(Seen::decode(&bytes[..end]), None, "{end}");
        }
        let mut other = bytes;
        other[0] = 2;
        assert_eq!(Seen::decode(&other), None);
    }
}
