//! Forgets snapshots: those that no rule of a policy keeps, or those that are named. What they
//! hold stays stored until garbage is collected.
//!
//! **Order.** For every snapshot its acknowledgements go first and its record last, and each is
//! looked for after it was deleted. Wherever this ends, what is left is a snapshot without an
//! acknowledgement, which is no damage; running it again goes on from there. Before anything goes it
//! is said that it is meant to ([`crate::repo::intent`]).
//!
//! **Series.** A policy is applied to each job; within a job, snapshots of owners and maintainers
//! are one series, and those of every writer's key are one of their own: who can only write can
//! push out only what the same key signed. Dates that cannot be believed count for nothing
//! ([`crate::retention::Doubt`]), and ages are counted from the newest commit in the repository, so neither a clock
//! that is wrong nor one that lies makes snapshots old.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cairn_format::ids::{SnapshotId, WriterId};
use cairn_format::names::ObjectName;
use cairn_format::segment::NAMESPACE_TRUSTED;

use self::evidence::{Evidence, Seen};
use self::orphans::remove_orphans;
use super::rollback;
use super::snapshots::{self, SnapshotInfo};
use crate::context::Remark;
use crate::error::Error;
use crate::repo::{Repository, intent};
use crate::retention::{Candidate, Cause, Doubt, Policy, RetentionError, Standing, Verdict, apply};
use crate::store::StoreError;

pub(in crate::ops) mod evidence;
pub(in crate::ops) mod orphans;

/// Shortest first digits by which a snapshot whose record cannot be read may be named.
const BARE_DIGITS_MIN: usize = 8;

/// Shortest time without a commit that is taken for the jump of a clock, milliseconds.
const GAP_MS_MIN: i64 = 35 * DAY_MS;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// What is to go.
#[derive(Clone, Debug)]
pub enum Choice {
    /// What no rule keeps.
    Rules(Policy),
    /// These: first digits of ids, `latest~1`, `job:NAME`, `@TIME`. One whose record is missing
    /// or damaged is named by at least 8 digits.
    Named(Vec<String>),
    /// Exactly these. What is not there any more is passed over, and what stands for it stays.
    These(HashSet<SnapshotId>),
}

/// What to forget, and how careful to be.
#[derive(Clone, Debug)]
pub struct ForgetOptions {
    /// What is to go.
    pub choice: Choice,
    /// Only snapshots of this job.
    pub job: Option<String>,
    /// This host's clock is right: snapshots in its future are kept and passed over instead of
    /// stopping everything, ages are counted from now, and a long time without backups is none
    /// of a clock's doing.
    pub trust_clock: bool,
    /// The last acknowledged snapshot of a series may go as well.
    pub remove_last: bool,
    /// All keys of a job are one series.
    pub join_writers: bool,
}

impl ForgetOptions {
    /// The careful way.
    #[must_use]
    pub const fn new(choice: Choice) -> Self {
        Self { choice, job: None, trust_clock: false, remove_last: false, join_writers: false }
    }
}

/// A snapshot and what happens to it.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The snapshot.
    pub snapshot: SnapshotInfo,
    /// What happens to it, and why.
    pub verdict: Verdict,
}

/// Snapshots that a policy thins out together.
#[derive(Clone, Debug)]
pub struct Series {
    /// Their job.
    pub job: String,
    /// The writer's key that signed them; `None` for owners and maintainers.
    pub writer: Option<WriterId>,
    /// Name of the key that signed the newest.
    pub writer_name: String,
    /// Oldest first. Of snapshots that were named, only those.
    pub snapshots: Vec<Planned>,
}

/// What would happen.
#[derive(Debug)]
pub struct ForgetPlan {
    /// By job.
    pub series: Vec<Series>,
    /// Snapshots that were named and whose records are missing or cannot be read; they go.
    pub bare: Vec<SnapshotId>,
    /// What ages are counted back from, milliseconds since 1970.
    pub reference_ms: i64,
    /// Snapshots and acknowledgements that are missing or cannot be read, which unless named stay
    /// as they are; and what this host has seen before that is gone.
    pub damaged: Vec<Remark>,
    objects: Objects,
    seen: Option<Seen>,
}

impl ForgetPlan {
    /// Snapshots that stay, of those considered.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.verdicts().filter(|verdict| verdict.keeps()).count() as u64
    }

    /// Snapshots that go.
    #[must_use]
    pub fn going(&self) -> u64 {
        let going = self.verdicts().filter(|verdict| !verdict.keeps()).count();
        (going + self.bare.len()) as u64
    }

    /// Leaves out snapshots of which this copy has nothing: they cannot be forgotten there.
    pub(super) fn retain_present(&mut self) {
        let objects = &self.objects;
        let has =
            |id: &SnapshotId| objects.records.contains_key(id) || objects.acks.contains_key(id);
        for series in &mut self.series {
            series.snapshots.retain(|one| has(&one.snapshot.id));
        }
    }

    /// The records of these, and of what erasures made them of.
    fn meant(&self, going: &[SnapshotId]) -> BTreeSet<ObjectName> {
        let planned = self.series.iter().flat_map(|series| &series.snapshots);
        let going = going.iter().copied().collect::<HashSet<_>>();
        let gone = planned.map(|one| &one.snapshot).filter(|one| going.contains(&one.id));
        let former = gone.flat_map(SnapshotInfo::former).copied().collect::<Vec<_>>();
        going.into_iter().chain(former).flat_map(|id| self.objects.records_of(id)).collect()
    }

    fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.series.iter().flat_map(|series| &series.snapshots).map(|planned| &planned.verdict)
    }
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForgetReport {
    /// Snapshots that are gone.
    pub removed: u64,
    /// Of these, whose acknowledgements went first.
    pub acknowledged: u64,
}

/// Where the objects of each snapshot are. A hostile store may show one under several names.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) records: HashMap<SnapshotId, Vec<ObjectName>>,
    pub(super) acks: HashMap<SnapshotId, Vec<ObjectName>>,
}

/// Everything that is known of the snapshots.
pub(super) struct Known {
    pub(super) listed: Vec<SnapshotInfo>,
    pub(super) damaged: Vec<Remark>,
    /// What this host has seen and is gone.
    pub(super) rolled_back: Vec<Remark>,
    pub(super) objects: Objects,
    /// Whose acknowledgement was opened, and holds.
    pub(super) acknowledged: HashSet<SnapshotId>,
}

impl Objects {
    /// Every object of a snapshot.
    pub(super) fn names(&self, id: SnapshotId) -> Vec<ObjectName> {
        let of = |names: &HashMap<SnapshotId, Vec<ObjectName>>| {
            names.get(&id).cloned().unwrap_or_default()
        };
        [of(&self.acks), of(&self.records)].concat()
    }

    /// The records of a snapshot; a name for it where there is none.
    pub(super) fn records_of(&self, id: SnapshotId) -> Vec<ObjectName> {
        let none = || vec![ObjectName::Snapshot { time_ms: 0, id }];
        self.records.get(&id).cloned().unwrap_or_else(none)
    }

    /// The objects of some snapshots.
    pub(super) fn of_these(&self, ids: &HashSet<SnapshotId>) -> Self {
        let of = |names: &HashMap<SnapshotId, Vec<ObjectName>>| {
            let theirs = names.iter().filter(|(id, _)| ids.contains(*id));
            theirs.map(|(id, names)| (*id, names.clone())).collect()
        };
        Self { records: of(&self.records), acks: of(&self.acks) }
    }

    /// As [`Self::of_these`], with acknowledgements that came since to those that had none: they have
    /// to go before the records.
    ///
    /// # Errors
    /// Failures of the store.
    pub(super) fn with_late_acks(
        &self,
        repository: &Repository,
        ids: &HashSet<SnapshotId>,
    ) -> Result<Self, Error> {
        let mut found = self.of_these(ids);
        if ids.iter().all(|id| found.acks.contains_key(id)) {
            return Ok(found);
        }
        evidence::list_acks(repository, &mut |id, name| {
            if ids.contains(&id) && !self.acks.contains_key(&id) {
                found.acks.entry(id).or_default().push(name);
            }
        })?;
        Ok(found)
    }
}

impl Known {
    /// The time that a snapshot's age is counted from: what an erasure is making anew is as young as
    /// the erasure, and no orphan while what it is made of is there.
    fn age_of(&self, snapshot: &SnapshotInfo, reference_ms: i64) -> i64 {
        let finished_ms = snapshot.record.finished_ms;
        let remade = snapshot.record.remade.as_ref();
        match remade.filter(|_| !self.acknowledged.contains(&snapshot.id)) {
            None => finished_ms,
            Some(remade) if self.listed.iter().any(|one| remade.former.contains(&one.id)) => {
                reference_ms
            }
            Some(remade) => finished_ms.max(remade.time_ms),
        }
    }

    /// Snapshots of which an erasure made others that are acknowledged: each with the new one. They
    /// count no more, and are left of an erasure that was interrupted, or is under way.
    pub(super) fn replaced(&self) -> HashMap<SnapshotId, SnapshotId> {
        let counts = |one: &&SnapshotInfo| self.acknowledged.contains(&one.id);
        let remade = self.listed.iter().filter(counts);
        remade.flat_map(|one| one.former().iter().map(|former| (*former, one.id))).collect()
    }
}

/// Decides what goes. Changes nothing.
///
/// # Errors
/// [`Error::Role`] unless the key is an owner's or maintainer's; [`Error::Retention`] when it is
/// refused; what [`snapshots::select`] says of names; failures of the store or the cache.
pub fn plan(repository: &Repository, options: &ForgetOptions) -> Result<ForgetPlan, Error> {
    repository.require_collect("forget snapshots")?;
    repository.monitor().stage("forget: snapshots", None);
    // Also compares the owner's key with the one remembered, before anything is deleted.
    let catalog = repository.catalog()?;
    let known = evidence::gather(repository)?;
    match &options.choice {
        Choice::Named(names) => by_name(repository, options, known, names),
        Choice::These(ids) => of_ids(repository, options, known, ids, Vec::new()),
        Choice::Rules(policy) => {
            let now_ms = repository.context.clock.now_ms();
            let seen = Seen::load(catalog)?;
            by_rules(options, policy, known, seen, now_ms)
        }
    }
}

/// Decides what another copy of the repository keeps and what goes from it: the rules are applied to
/// the snapshots of both as if they were one, so that what is forgotten here goes on to count
/// there. [`run`] on the copy removes what goes.
///
/// # Errors
/// As [`plan`].
pub fn plan_copy(
    home: &Repository,
    copy: &Repository,
    options: &ForgetOptions,
) -> Result<ForgetPlan, Error> {
    copy.require_collect("forget snapshots")?;
    let Choice::Rules(policy) = &options.choice else { return plan(copy, options) };
    let known = evidence::gather_both(home, copy)?;
    let seen = Seen::load(copy.catalog()?)?;
    by_rules(options, policy, known, seen, home.context.clock.now_ms())
}

fn by_rules(
    options: &ForgetOptions,
    policy: &Policy,
    known: Known,
    mut seen: Seen,
    now_ms: i64,
) -> Result<ForgetPlan, Error> {
    let evidence = Evidence { known: &known, seen: &seen, now_ms };
    let standings = evidence.standings();
    let standing = |id: &SnapshotId| standings.get(id).copied().unwrap_or(Standing::Unacknowledged);
    let replaced = known.replaced();
    if !options.trust_clock {
        refuse_future(&known.listed, standing, now_ms)?;
    }
    let counted = known
        .listed
        .iter()
        .filter(|snapshot| standing(&snapshot.id) == Standing::Acknowledged)
        .map(|snapshot| (snapshot.record.finished_ms, snapshot.id))
        .collect::<Vec<_>>();
    let newest_ms = counted.iter().map(|(time_ms, _)| *time_ms).max();
    let reference_ms = if options.trust_clock { now_ms } else { newest_ms.unwrap_or(now_ms) };
    let mut series = Vec::new();
    for ((job, namespace), members) in group(known.listed.clone(), options.join_writers) {
        if options.job.as_ref().is_some_and(|wanted| *wanted != job) {
            continue;
        }
        // What an erasure made anew counts once.
        let (gone, members) =
            members.into_iter().partition::<Vec<_>, _>(|one| replaced.contains_key(&one.id));
        let candidates = members
            .iter()
            .map(|snapshot| Candidate {
                id: snapshot.id,
                time_ms: known.age_of(snapshot, reference_ms),
                tags: snapshot.record.tags.clone(),
                standing: standing(&snapshot.id),
            })
            .collect::<Vec<_>>();
        let verdicts = apply(policy, reference_ms, &candidates, options.remove_last);
        let planned = members.into_iter().zip(verdicts);
        let planned = planned.map(|(snapshot, verdict)| Planned { snapshot, verdict });
        let gone = gone.into_iter().filter_map(|snapshot| {
            let cause = Cause::MadeAnew { by: *replaced.get(&snapshot.id)? };
            Some(Planned { snapshot, verdict: Verdict::Go(cause) })
        });
        series.push(described(job, namespace, gone.chain(planned).collect()));
    }
    if let (Some(job), true) = (&options.job, series.is_empty()) {
        return Err(Error::NoSnapshot { selector: format!("job:{job}") });
    }
    seen.update(&known.listed, &standings);
    let Known { mut damaged, rolled_back, objects, .. } = known;
    damaged.extend(rolled_back);
    let bare = Vec::new();
    let plan = ForgetPlan { series, bare, reference_ms, damaged, objects, seen: Some(seen) };
    if plan.going() > 0 && !options.trust_clock {
        refuse_gap(policy, reference_ms, counted)?;
    }
    Ok(plan)
}

/// Refuses when an acknowledged snapshot lies in the future.
fn refuse_future(
    listed: &[SnapshotInfo],
    standing: impl Fn(&SnapshotId) -> Standing,
    now_ms: i64,
) -> Result<(), RetentionError> {
    let future = listed
        .iter()
        .filter(|snapshot| standing(&snapshot.id) == Standing::Doubtful(Doubt::Future))
        .max_by_key(|snapshot| snapshot.record.finished_ms);
    match future {
        None => Ok(()),
        Some(snapshot) => Err(RetentionError::Future {
            snapshot: snapshot.id,
            job: snapshot.record.job.clone(),
            ahead_s: snapshot.record.finished_ms.saturating_sub(now_ms) / 1_000,
        }),
    }
}

/// Refuses when the commits that ages are counted from follow a gap longer than the rules reach
/// back: a single backup by a clock that is ahead would make everything before it old.
fn refuse_gap(
    policy: &Policy,
    reference_ms: i64,
    mut counted: Vec<(i64, SnapshotId)>,
) -> Result<(), RetentionError> {
    let Some(horizon_ms) = policy.horizon_ms(reference_ms) else { return Ok(()) };
    counted.sort_unstable();
    let within = counted.partition_point(|(time_ms, _)| *time_ms < horizon_ms);
    let before = within.checked_sub(1).and_then(|last| counted.get(last));
    let (Some((before_ms, _)), Some((after_ms, snapshot))) = (before, counted.get(within)) else {
        return Ok(());
    };
    let gap_ms = after_ms.saturating_sub(*before_ms);
    if gap_ms <= reference_ms.saturating_sub(horizon_ms).max(GAP_MS_MIN) {
        return Ok(());
    }
    Err(RetentionError::Gap { snapshot: *snapshot, days: gap_ms / DAY_MS })
}

fn by_name(
    repository: &Repository,
    options: &ForgetOptions,
    known: Known,
    names: &[String],
) -> Result<ForgetPlan, Error> {
    let (mut named, mut bare) = (HashSet::new(), Vec::new());
    for name in names {
        match snapshots::select_from(known.listed.clone(), name) {
            Ok(snapshot) => {
                named.insert(snapshot.id);
            }
            Err(Error::NoSnapshot { selector }) => {
                let gone = rollback::missing(repository, &name.to_ascii_lowercase())?;
                let id = select_bare(&known, &gone, name).ok_or(Error::NoSnapshot { selector })?;
                if !bare.contains(&id) {
                    bare.push(id);
                }
            }
            Err(error) => return Err(error),
        }
    }
    of_ids(repository, options, known, &named, bare)
}

/// What goes when these snapshots do, and those of which there is no record that can be read.
fn of_ids(
    repository: &Repository,
    options: &ForgetOptions,
    known: Known,
    named: &HashSet<SnapshotId>,
    bare: Vec<SnapshotId>,
) -> Result<ForgetPlan, Error> {
    let mut series = Vec::new();
    for ((job, namespace), members) in group(known.listed.clone(), options.join_writers) {
        let counts = |snapshot: &SnapshotInfo| known.acknowledged.contains(&snapshot.id);
        let stays = members.iter().any(|one| counts(one) && !named.contains(&one.id));
        let last = members.iter().rev().find(|one| counts(one) && named.contains(&one.id));
        if let (Some(last), false, false) = (last, stays, options.remove_last) {
            return Err(RetentionError::Last { snapshot: last.id, job }.into());
        }
        let going = members.into_iter().filter(|one| named.contains(&one.id));
        let going = going
            .map(|snapshot| Planned { snapshot, verdict: Verdict::Go(Cause::Named) })
            .collect::<Vec<_>>();
        if !going.is_empty() {
            series.push(described(job, namespace, going));
        }
    }
    let Known { mut damaged, rolled_back, objects, .. } = known;
    damaged.extend(rolled_back);
    let reference_ms = repository.context.clock.now_ms();
    Ok(ForgetPlan { series, bare, reference_ms, damaged, objects, seen: None })
}

/// The snapshot whose record is missing or cannot be read and whose id begins so; `gone` are those
/// of which nothing is left.
pub(super) fn select_bare(known: &Known, gone: &[SnapshotId], digits: &str) -> Option<SnapshotId> {
    let readable = known.listed.iter().map(|snapshot| snapshot.id).collect::<HashSet<_>>();
    let objects = &known.objects;
    let mut fitting = objects
        .records
        .keys()
        .chain(objects.acks.keys())
        .chain(gone)
        .filter(|id| !readable.contains(*id))
        .filter(|id| id.to_hex().starts_with(&digits.to_ascii_lowercase()))
        .copied()
        .collect::<Vec<_>>();
    fitting.sort_unstable();
    fitting.dedup();
    match fitting.as_slice() {
        [one] if digits.len() >= BARE_DIGITS_MIN => Some(*one),
        _ => None,
    }
}

/// Snapshots by series, each oldest commit first, and each snapshot once.
fn group(
    listed: Vec<SnapshotInfo>,
    join_writers: bool,
) -> BTreeMap<(String, WriterId), Vec<SnapshotInfo>> {
    let mut series = BTreeMap::<_, Vec<SnapshotInfo>>::new();
    let mut grouped = HashSet::new();
    for snapshot in listed {
        if grouped.insert(snapshot.id) {
            let namespace = if join_writers { NAMESPACE_TRUSTED } else { snapshot.namespace };
            series.entry((snapshot.record.job.clone(), namespace)).or_default().push(snapshot);
        }
    }
    for members in series.values_mut() {
        members.sort_by_key(|snapshot| (snapshot.record.finished_ms, snapshot.id));
    }
    series
}

fn described(job: String, namespace: WriterId, snapshots: Vec<Planned>) -> Series {
    let newest = snapshots.last();
    Series {
        job,
        writer: (namespace != NAMESPACE_TRUSTED).then_some(namespace),
        writer_name: newest.map(|one| one.snapshot.writer_name.clone()).unwrap_or_default(),
        snapshots,
    }
}

/// Does what the plan says. May be ended at any point and planned anew.
///
/// # Errors
/// Failures of the store; [`RetentionError::Undeleted`]; [`Error::Cancelled`]. What was removed
/// until then is gone, and the rest untouched but for at most one snapshot without its
/// acknowledgement.
pub fn run(repository: &Repository, plan: &ForgetPlan) -> Result<ForgetReport, Error> {
    repository.require_collect("forget snapshots")?;
    repository.monitor().stage("forget: removing", None);
    let mut report = ForgetReport::default();
    let planned = plan.series.iter().flat_map(|series| &series.snapshots);
    let planned = planned.filter(|one| !one.verdict.keeps());
    let is_orphan = |one: &&Planned| {
        one.verdict == Verdict::Go(Cause::Unacknowledged)
            && !plan.objects.acks.contains_key(&one.snapshot.id)
    };
    let (orphans, going): (Vec<_>, Vec<_>) = planned.partition(is_orphan);
    let mut orphans = orphans.into_iter().map(|one| one.snapshot.id).collect::<Vec<_>>();
    let going = going.into_iter().map(|one| one.snapshot.id).chain(plan.bare.iter().copied());
    let mut going = going.collect::<Vec<_>>();
    if !orphans.is_empty() {
        // Their backups have taken long, and reported success.
        let late = snapshots::list_acknowledged(repository)?;
        orphans.retain(|id| !late.contains(id));
    }
    // First, so that a copy that follows this one goes by it wherever this ends.
    intent::declare(repository, &plan.meant(&going))?;
    rollback::removed(repository, &going.iter().chain(&orphans).copied().collect())?;
    let objects = plan.objects.with_late_acks(repository, &going.iter().copied().collect())?;
    for id in &going {
        repository.check_cancelled()?;
        report.acknowledged += u64::from(remove(repository, &objects, *id)?);
    }
    if !going.is_empty() {
        remove_late_acks(repository, &going.iter().copied().collect())?;
    }
    let stay = remove_orphans(repository, &plan.objects, &orphans)?;
    going.extend(orphans.into_iter().filter(|id| !stay.contains(id)));
    report.removed = going.len() as u64;
    if let Some(seen) = &plan.seen {
        seen.without(&going).save(repository.catalog()?)?;
    }
    Ok(report)
}

/// Removes one snapshot; true if it had acknowledgements.
pub(super) fn remove(
    repository: &Repository,
    objects: &Objects,
    id: SnapshotId,
) -> Result<bool, Error> {
    let names =
        |of: &HashMap<SnapshotId, Vec<ObjectName>>| of.get(&id).cloned().unwrap_or_default();
    let acks = names(&objects.acks);
    // An acknowledgement without its snapshot would look like a snapshot that was lost.
    for name in acks.iter().chain(&names(&objects.records)) {
        delete_surely(repository, name)?;
    }
    Ok(!acks.is_empty())
}

/// Deletes an object, and looks whether it is gone.
fn delete_surely(repository: &Repository, name: &ObjectName) -> Result<(), Error> {
    let store = repository.store();
    store.delete(name)?;
    match store.size(name) {
        Err(StoreError::NotFound { .. }) => Ok(()),
        Ok(_) => {
            let (object, location) = (name.to_string(), store.location());
            Err(RetentionError::Undeleted { object, location }.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// A backup that was paused may have acknowledged its snapshot just before the record went, or put its
/// acknowledgement again because it was not told that the first was stored, which is why that was
/// found. It looks for the record after that, fails where it is gone, and removes its
/// acknowledgement; here it is removed for one that died meanwhile, or looked before.
pub(super) fn remove_late_acks(
    repository: &Repository,
    removed: &HashSet<SnapshotId>,
) -> Result<(), Error> {
    let mut late = Vec::new();
    evidence::list_acks(repository, &mut |snapshot, name| {
        if removed.contains(&snapshot) {
            late.push(name);
        }
    })?;
    late.iter().try_for_each(|name| delete_surely(repository, name))
}
