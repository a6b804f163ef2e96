//! Locks on what snapshots need, so that nobody can delete it for good before its time, whatever
//! credentials they have come by: whether they hold, and extending them in time.
//!
//! **What is locked.** Whatever a restore cannot do without: packs, snapshots and their acknowledgements,
//! keys, configuration, `format`. Segments of the index are not: packs tell what is in them, and
//! `repair index` writes segments anew. Nor are leases and tombs.
//!
//! **Until when.** As long as a snapshot needs it, but no longer ahead than the window: so that what
//! is forgotten, or erased, is gone within a window at the most. With rules, only until the rules let
//! go of the last snapshot that needs it, should backups go on as they came. Ends lie on a grid of a
//! quarter of the window, so that an object is asked to be locked once in a quarter, and each
//! run leaves at least three quarters to what is needed for longer.
//!
//! **What is not there.** A lock does not keep anybody from hiding an object behind a mark of deletion, and
//! the version below it is then not extended any more: what is needed and not there, and what snapshots
//! this host has seen or somebody acknowledged and are gone, is an alarm, whatever else holds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cairn_format::ids::SnapshotId;
use cairn_format::names::{Folder, ObjectName};
use parking_lot::Mutex;

use super::rollback;
use super::snapshots::{self, SnapshotInfo};
use crate::collect::needed::packs_needed;
use crate::context::{Counter, Remark};
use crate::error::Error;
use crate::repo::Repository;
use crate::retention::{Candidate, Policy, Standing, lasting};
use crate::store::StoreError;
use crate::store::lock::LockMode;

/// Parts of a window that locks end on.
const PARTS: i64 = 4;
/// Shortest window, milliseconds: below it clocks that differ a little make locks pointless.
pub const WINDOW_MS_MIN: u64 = 60 * 60 * 1_000;
/// Requests at once.
const THREADS: usize = 16;
/// Objects that are named when their locks lapse.
const NAMED_MAX: usize = 100;

/// What to lock, and for how long.
#[derive(Clone, Debug)]
pub struct LockOptions {
    /// How far ahead locks reach, milliseconds; at least [`WINDOW_MS_MIN`].
    pub window_ms: u64,
    /// An alarm is due for what is needed and locked for less than this, milliseconds.
    pub warn_ms: u64,
    /// Who may end the locks.
    pub mode: LockMode,
    /// What decides which snapshots are needed for how long; without it each is for good.
    pub rules: Option<Policy>,
    /// The rules are for the snapshots of this job only.
    pub job: Option<String>,
}

/// What became of locks, or how they stand.
#[derive(Clone, Debug, Default)]
pub struct LockReport {
    /// Snapshots that are needed.
    pub snapshots: u64,
    /// Objects that they need.
    pub objects: u64,
    /// Of these, not locked when they were looked at.
    pub unlocked: u64,
    /// Of these, locked or locked for longer now; when only looking, due to be.
    pub extended: u64,
    /// The earliest end of a lock that was found on an object that is needed beyond it,
    /// milliseconds since 1970.
    pub earliest_ms: Option<i64>,
    /// How many objects are needed and locked for too short a time, or not at all.
    pub lapsing: u64,
    /// Some of them.
    pub lapsing_names: Vec<ObjectName>,
    /// How many objects are needed and not there, though nobody collected them.
    pub absent: u64,
    /// Some of them.
    pub absent_names: Vec<ObjectName>,
    /// Snapshots that are gone, or cannot be read, or are not acknowledged any more, though nobody here
    /// removed them: what they need is not known, and not locked for longer.
    pub withheld: Vec<Remark>,
}

/// Extends the locks that are due.
///
/// # Errors
/// [`StoreError::NoLocks`] where there are none; [`Error::Role`] for keys that cannot read;
/// [`Error::LivenessUnknown`] when it cannot be told what is needed; failures of the store and the
/// cache. What was locked by then stays locked.
pub fn extend(repository: &Repository, options: &LockOptions) -> Result<LockReport, Error> {
    go_through(repository, options, true)
}

/// Looks at the locks of everything that is needed. Changes nothing.
///
/// # Errors
/// As [`extend`].
pub fn status(repository: &Repository, options: &LockOptions) -> Result<LockReport, Error> {
    go_through(repository, options, false)
}

fn go_through(
    repository: &Repository,
    options: &LockOptions,
    extend: bool,
) -> Result<LockReport, Error> {
    repository.require_read("look at locks")?;
    if options.window_ms < WINDOW_MS_MIN {
        return Err(Error::Usage {
            message: "locks for less than an hour protect nothing".to_owned(),
            hint: Some("give a longer time with --for".to_owned()),
        });
    }
    // Before anything takes time: whether there are locks at all.
    repository.store().locked(&ObjectName::Format)?;
    repository.monitor().stage("lock: looking", None);
    let now_ms = repository.context.clock.now_ms();
    let ends = Ends::of(now_ms, options.window_ms);
    let (found, withheld) = snapshots_there(repository)?;
    let needed = found.into_iter().filter(|one| one.acknowledged).collect::<Vec<_>>();
    let until = ends.of_snapshots(&needed, options);
    let objects = objects(repository, &needed, &until, ends.last_ms)?;
    let bound_ms = now_ms.saturating_add(i64::try_from(options.warn_ms).unwrap_or(i64::MAX));
    let report = LockReport {
        snapshots: until.len() as u64,
        objects: objects.len() as u64,
        withheld,
        ..LockReport::default()
    };
    let mode = extend.then_some(options.mode);
    let (report, absent) = (Mutex::new(report), Mutex::default());
    let walk = Walk { repository, mode, now_ms, bound_ms, report, absent };
    repository.monitor().stage(if extend { "lock: extending" } else { "lock: looking" }, None);
    let (mut report, absent) = walk.run(objects)?;
    for name in needed_still(repository, absent)? {
        report.absent += 1;
        if report.absent_names.len() < NAMED_MAX {
            report.absent_names.push(name);
        }
    }
    Ok(report)
}

/// The snapshots that are there and can be read, and what is to be said of others.
fn snapshots_there(repository: &Repository) -> Result<(Vec<SnapshotInfo>, Vec<Remark>), Error> {
    // Before the lists: another process of this host may acknowledge one meanwhile.
    let seen = rollback::seen(repository)?;
    // Before the snapshots: whoever forgets one removes its acknowledgement first.
    let acks = list_acks(repository)?;
    let (found, mut withheld) = snapshots::list_all(repository)?;
    let damaged = withheld.iter().filter_map(|remark| ObjectName::parse(&remark.subject).ok());
    let damaged = damaged.filter_map(|name| match name {
        ObjectName::Snapshot { id, .. } => Some(id),
        _ => None,
    });
    let records = damaged.chain(found.iter().map(|one| one.id)).collect::<HashSet<_>>();
    let mut missed = Vec::new();
    for (snapshot, name) in acks.iter().filter(|(snapshot, _)| !records.contains(*snapshot)) {
        match repository.store().size(name) {
            Err(StoreError::NotFound { .. }) => {}
            Ok(_) => missed.push(Remark {
                code: "snapshot.missing",
                subject: format!("snapshot {snapshot}"),
                message: "it was acknowledged, and is not in the store".to_owned(),
            }),
            Err(error) => return Err(error.into()),
        }
    }
    for id in rollback::unacknowledged(repository, &seen, &found)? {
        missed.push(Remark {
            code: "snapshot.unacknowledged",
            subject: format!("snapshot {id}"),
            message: "this host has seen it acknowledged, and its acknowledgement is gone"
                .to_owned(),
        });
    }
    for remark in &missed {
        repository.monitor().count(Counter::Findings, 1);
        repository.monitor().warn(remark.clone());
    }
    withheld.extend(missed);
    withheld.extend(rollback::compare(repository, &found, &records)?);
    Ok((found, withheld))
}

fn list_acks(repository: &Repository) -> Result<BTreeMap<SnapshotId, ObjectName>, Error> {
    let mut acks = BTreeMap::new();
    repository.store().list(Folder::Acks, &mut |name, _| {
        if let ObjectName::Ack { snapshot, .. } = name {
            acks.insert(snapshot, name);
        }
        Ok(())
    })?;
    Ok(acks)
}

/// Of what was needed and is not there, what nobody removed as it should be removed meanwhile: packs are
/// condemned before they are deleted, acknowledgements go before their snapshots, key slots when somebody
/// says so.
fn needed_still(
    repository: &Repository,
    absent: Vec<ObjectName>,
) -> Result<Vec<ObjectName>, Error> {
    if absent.is_empty() {
        return Ok(absent);
    }
    let catalog = repository.current_catalog()?;
    let acks = list_acks(repository)?;
    let is_needed = |name: &ObjectName| match name {
        ObjectName::Pack(_, id) => !catalog.is_condemned(id),
        ObjectName::Snapshot { id, .. } => acks.contains_key(id),
        ObjectName::Ack { .. } | ObjectName::Key(_) => false,
        _ => true,
    };
    Ok(absent.into_iter().filter(is_needed).collect())
}

/// The times at which locks may end.
struct Ends {
    now_ms: i64,
    /// Ascending, the last being as far ahead as locks reach; milliseconds since 1970.
    times_ms: Vec<i64>,
    last_ms: i64,
}

impl Ends {
    fn of(now_ms: i64, window_ms: u64) -> Self {
        let window_ms = i64::try_from(window_ms).unwrap_or(i64::MAX / 2);
        let part_ms = (window_ms / PARTS).max(1);
        let number = |time_ms: i64| time_ms.div_euclid(part_ms);
        let (first, last) = (number(now_ms) + 1, number(now_ms.saturating_add(window_ms)));
        let times_ms = (first..=last).map(|number| number.saturating_mul(part_ms));
        Self { now_ms, times_ms: times_ms.collect(), last_ms: last.saturating_mul(part_ms) }
    }

    /// Until when each snapshot is needed that is.
    fn of_snapshots(
        &self,
        snapshots: &[SnapshotInfo],
        options: &LockOptions,
    ) -> HashMap<SnapshotId, i64> {
        let mut until =
            snapshots.iter().map(|one| (one.id, self.last_ms)).collect::<HashMap<_, _>>();
        let Some(rules) = &options.rules else { return until };
        let mut jobs = BTreeMap::<&str, Vec<Candidate>>::new();
        for one in snapshots {
            if options.job.as_ref().is_some_and(|job| *job != one.record.job) {
                continue;
            }
            jobs.entry(&one.record.job).or_default().push(Candidate {
                id: one.id,
                time_ms: one.record.finished_ms,
                tags: one.record.tags.clone(),
                standing: Standing::Acknowledged,
            });
        }
        let times_ms = [&[self.now_ms], self.times_ms.as_slice()].concat();
        for candidates in jobs.values() {
            let kept = lasting(rules, candidates, &times_ms);
            for (candidate, kept) in candidates.iter().zip(kept) {
                // The first time that does not find it ends it; one that is to go now needs nothing.
                match kept.checked_sub(1) {
                    Some(after) => {
                        let end_ms = self.times_ms.get(after).copied().unwrap_or(self.last_ms);
                        until.insert(candidate.id, end_ms);
                    }
                    None => {
                        until.remove(&candidate.id);
                    }
                }
            }
        }
        until
    }
}

/// Everything that is needed, and until when.
fn objects(
    repository: &Repository,
    snapshots: &[SnapshotInfo],
    until: &HashMap<SnapshotId, i64>,
    last_ms: i64,
) -> Result<Vec<(ObjectName, i64)>, Error> {
    let mut objects = BTreeMap::new();
    if !snapshots.is_empty() {
        let ends = until.values().copied().collect::<BTreeSet<_>>();
        let catalog = repository.current_catalog()?;
        // What only the shortest-lived need comes first, and is overwritten by what lives longer.
        for end_ms in ends {
            repository.check_cancelled()?;
            let last = |one: &&SnapshotInfo| until.get(&one.id).is_some_and(|of| *of == end_ms);
            let lasting = snapshots.iter().filter(last).cloned().collect::<Vec<_>>();
            for (pack, kind) in packs_needed(repository, catalog, &lasting)? {
                objects.insert(ObjectName::Pack(kind, pack), end_ms);
            }
        }
    }
    objects.insert(ObjectName::Format, last_ms);
    for folder in [Folder::Config, Folder::Keys, Folder::Snapshots, Folder::Acks] {
        repository.store().list(folder, &mut |name, _| {
            let end_ms = match &name {
                ObjectName::Snapshot { id, .. } => until.get(id).copied(),
                ObjectName::Ack { snapshot, .. } => until.get(snapshot).copied(),
                _ => Some(last_ms),
            };
            if let Some(end_ms) = end_ms {
                objects.insert(name, end_ms);
            }
            Ok(())
        })?;
    }
    Ok(objects.into_iter().collect())
}

/// One look at each object.
struct Walk<'a> {
    repository: &'a Repository,
    /// `None`: nothing is changed.
    mode: Option<LockMode>,
    now_ms: i64,
    /// What is needed has to be locked until then.
    bound_ms: i64,
    report: Mutex<LockReport>,
    /// What was not there.
    absent: Mutex<Vec<ObjectName>>,
}

impl Walk<'_> {
    fn run(self, objects: Vec<(ObjectName, i64)>) -> Result<(LockReport, Vec<ObjectName>), Error> {
        let left = Mutex::new(objects.into_iter());
        let failed = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    loop {
                        let next = left.lock().next();
                        let Some((name, end_ms)) = next else { return };
                        let done = self.repository.check_cancelled();
                        if let Err(error) = done.and_then(|()| self.one(&name, end_ms)) {
                            failed.lock().get_or_insert(error);
                            *left.lock() = Vec::new().into_iter();
                            return;
                        }
                    }
                });
            }
        });
        match failed.into_inner() {
            Some(error) => Err(error),
            None => {
                let mut absent = self.absent.into_inner();
                absent.sort();
                Ok((self.report.into_inner(), absent))
            }
        }
    }

    fn one(&self, name: &ObjectName, end_ms: i64) -> Result<(), Error> {
        let store = self.repository.store();
        let locked_ms = match store.locked(name) {
            // Deleted beside this, or hidden: that is looked into at the end.
            Err(StoreError::NotFound { .. }) => {
                self.absent.lock().push(*name);
                return Ok(());
            }
            locked => locked?.until_ms(),
        };
        let mut report = self.report.lock();
        report.unlocked += u64::from(locked_ms <= self.now_ms);
        if locked_ms >= end_ms {
            return Ok(());
        }
        let earliest_ms = report.earliest_ms.map_or(locked_ms, |known| known.min(locked_ms));
        report.earliest_ms = Some(earliest_ms);
        if locked_ms < end_ms.min(self.bound_ms) && self.mode.is_none() {
            report.lapsing += 1;
            if report.lapsing_names.len() < NAMED_MAX {
                report.lapsing_names.push(*name);
            }
        }
        drop(report);
        if let Some(mode) = self.mode {
            match store.lock(name, end_ms, mode) {
                Err(StoreError::NotFound { .. }) => {
                    self.absent.lock().push(*name);
                    return Ok(());
                }
                locked => locked?,
            }
        }
        self.report.lock().extended += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_end_on_a_grid_and_never_beyond_the_window() {
        let hour_ms = 60 * 60 * 1_000;
        for now_ms in [0, 1, 17 * hour_ms + 5, 1_700_000_000_000] {
            let ends = Ends::of(now_ms, 72 * 60 * 60 * 1_000);
            assert!(ends.last_ms <= now_ms + 72 * hour_ms && ends.last_ms > now_ms + 54 * hour_ms);
            assert_eq!(ends.times_ms.last(), Some(&ends.last_ms));
            assert!(ends.times_ms.first().is_some_and(|first| *first > now_ms));
            assert!(ends.times_ms.iter().all(|time| time % (18 * hour_ms) == 0));
        }
        // The same end as long as no part of the window has passed.
        let part = 18 * hour_ms;
        let at = |now_ms| Ends::of(now_ms, 72 * 60 * 60 * 1_000).last_ms;
        assert_eq!(at(part * 10), at(part * 11 - 1));
        assert_eq!(at(part * 10) + part, at(part * 11));
    }
}
