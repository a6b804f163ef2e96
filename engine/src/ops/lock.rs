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

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cairn_format::ids::SnapshotId;
use cairn_format::names::{Folder, ObjectName};
use parking_lot::Mutex;

use super::snapshots::{self, SnapshotInfo};
use crate::collect::needed::packs_needed;
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
    let found = snapshots::list(repository)?;
    let needed = found.into_iter().filter(|one| one.acknowledged).collect::<Vec<_>>();
    let until = ends.of_snapshots(&needed, options);
    let objects = objects(repository, &needed, &until, ends.last_ms)?;
    let bound_ms = now_ms.saturating_add(i64::try_from(options.warn_ms).unwrap_or(i64::MAX));
    let report = LockReport {
        snapshots: until.len() as u64,
        objects: objects.len() as u64,
        ..LockReport::default()
    };
    let mode = extend.then_some(options.mode);
    let walk = Walk { repository, mode, now_ms, bound_ms, report: Mutex::new(report) };
    repository.monitor().stage(if extend { "lock: extending" } else { "lock: looking" }, None);
    walk.run(objects)
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
}

impl Walk<'_> {
    fn run(self, objects: Vec<(ObjectName, i64)>) -> Result<LockReport, Error> {
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
            None => Ok(self.report.into_inner()),
        }
    }

    fn one(&self, name: &ObjectName, end_ms: i64) -> Result<(), Error> {
        let store = self.repository.store();
        let locked_ms = match store.locked(name) {
            // Deleted beside this.
            Err(StoreError::NotFound { .. }) => return Ok(()),
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
                Err(StoreError::NotFound { .. }) => return Ok(()),
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
