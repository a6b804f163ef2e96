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
//!
//! **This host's clock** dates its backups and may be ahead without contradicting anything that they
//! say. So the store is asked what time it has, and a difference stops everything. Where the store has
//! no clock of its own, time without a backup counts for no age ([`Silence`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cairn_format::ids::{SnapshotId, WriterId};
use cairn_format::names::ObjectName;
use cairn_format::segment::NAMESPACE_TRUSTED;

use self::evidence::{Evidence, Seen, Taken};
use super::snapshots::SnapshotInfo;
use crate::context::Remark;
use crate::error::Error;
use crate::repo::Repository;
use crate::retention::{
    Ages, CLOCK_SKEW_MS, Candidate, Cause, Commit, Doubt, Policy, RetentionError, Silence,
    Standing, Verdict, apply_by, silences,
};

mod carry;
pub(in crate::ops) mod evidence;
mod freed;
mod named;
pub(in crate::ops) mod orphans;

pub use self::carry::run;
pub(super) use self::carry::{remove, remove_late_acks};
pub use self::freed::measure;
pub(in crate::ops) use self::named::select_bare;

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
    /// This host's clock is right: the store is not asked for its own, snapshots in the future are
    /// kept and passed over instead of stopping everything, ages are counted from now, and time
    /// without backups is none of a clock's doing.
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

    /// Whether a job's snapshots may go.
    fn concerns(&self, job: &str) -> bool {
        self.job.as_ref().is_none_or(|wanted| wanted == job)
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
    /// Time without a backup that was not counted as age, so that some rule keeps more, newest
    /// first.
    pub uncounted: Vec<Silence>,
    /// Snapshots and acknowledgements that are missing or cannot be read, which unless named stay
    /// as they are; and what this host has seen before that is gone.
    pub damaged: Vec<Remark>,
    /// Every snapshot that can be read, also of other jobs.
    listed: Vec<SnapshotInfo>,
    objects: Objects,
    seen: Option<Seen>,
}

impl ForgetPlan {
    /// Snapshots that stay, of those considered.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.verdicts().filter(|verdict| verdict.keeps()).count() as u64
    }

    /// Whether there is no record of a snapshot that was named, rather than one that cannot be read.
    #[must_use]
    pub fn has_no_record(&self, id: &SnapshotId) -> bool {
        !self.objects.records.contains_key(id)
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
/// refused; what [`crate::ops::snapshots::select`] says of names; failures of the store or the cache.
pub fn plan(repository: &Repository, options: &ForgetOptions) -> Result<ForgetPlan, Error> {
    repository.require_collect("forget snapshots")?;
    repository.monitor().stage("forget: snapshots", None);
    // Also compares the owner's key with the one remembered, before anything is deleted.
    let catalog = repository.catalog()?;
    let known = evidence::gather(repository)?;
    match &options.choice {
        Choice::Named(names) => named::by_name(repository, options, known, names),
        Choice::These(ids) => named::these(repository, options, known, ids),
        Choice::Rules(policy) => {
            let clock = look_at_clocks(repository, &[repository], options)?;
            let seen = Seen::load(catalog)?;
            by_rules(repository, options, policy, known, seen, &clock)
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
    let clock = look_at_clocks(home, &[home, copy], options)?;
    let seen = Seen::load(copy.catalog()?)?;
    // Home says when it took them: a replica takes everything late.
    by_rules(home, options, policy, known, seen, &clock)
}

/// This host's clock.
struct Clock {
    now_ms: i64,
    /// A store has a clock of its own that says the same, or a person says that it is right.
    is_right: bool,
}

/// Compares this host's clock with those of the stores that have one.
///
/// # Errors
/// [`RetentionError::Skew`]; failures of the stores.
fn look_at_clocks(
    repository: &Repository,
    copies: &[&Repository],
    options: &ForgetOptions,
) -> Result<Clock, Error> {
    let clock = &repository.context.clock;
    if options.trust_clock {
        return Ok(Clock { now_ms: clock.now_ms(), is_right: true });
    }
    let mut is_right = false;
    for copy in copies {
        let before_ms = clock.now_ms();
        let Some(theirs_ms) = copy.store().now_ms()? else { continue };
        // The answer may have been long on its way.
        let nearest_ms = theirs_ms.clamp(before_ms, clock.now_ms().max(before_ms));
        let ahead_ms = nearest_ms.saturating_sub(theirs_ms);
        if ahead_ms.abs() > CLOCK_SKEW_MS {
            let (location, ahead_s) = (copy.store().location(), ahead_ms / 1_000);
            return Err(RetentionError::Skew { location, ahead_s }.into());
        }
        is_right = true;
    }
    Ok(Clock { now_ms: clock.now_ms(), is_right })
}

/// What rules make of the snapshots.
struct Judged {
    standings: HashMap<SnapshotId, Standing>,
    series: Vec<Series>,
    ages: Ages,
    /// Commits that count: time, snapshot.
    counted: Vec<(i64, SnapshotId)>,
}

impl Judged {
    fn is_anything_to_go(&self) -> bool {
        let mut planned = self.series.iter().flat_map(|series| &series.snapshots);
        planned.any(|one| !one.verdict.keeps())
    }
}

/// Decides by rules. `home` is asked when it took the records, if it matters.
fn by_rules(
    home: &Repository,
    options: &ForgetOptions,
    policy: &Policy,
    known: Known,
    mut seen: Seen,
    clock: &Clock,
) -> Result<ForgetPlan, Error> {
    let mut judged = judge(options, policy, &known, (&seen, &Taken::new()), clock)?;
    // What is found to be late counts no more: less goes then, never more.
    if judged.is_anything_to_go() {
        let taken = evidence::look_when_taken(home, &known, &seen)?;
        if !taken.is_empty() {
            judged = judge(options, policy, &known, (&seen, &taken), clock)?;
        }
    }
    let Judged { standings, series, ages, counted } = judged;
    if let (Some(job), true) = (&options.job, series.is_empty()) {
        return Err(Error::NoSnapshot { selector: format!("job:{job}") });
    }
    seen.update(&known.listed, &standings);
    let Known { listed, mut damaged, rolled_back, objects, .. } = known;
    damaged.extend(rolled_back);
    let plan = ForgetPlan {
        series,
        bare: Vec::new(),
        reference_ms: ages.reference_ms,
        uncounted: ages.uncounted(policy),
        damaged,
        listed,
        objects,
        seen: Some(seen),
    };
    if plan.going() > 0 && !clock.is_right {
        refuse_gap(policy, plan.reference_ms, counted)?;
    }
    Ok(plan)
}

fn judge(
    options: &ForgetOptions,
    policy: &Policy,
    known: &Known,
    (seen, taken): (&Seen, &Taken),
    clock: &Clock,
) -> Result<Judged, RetentionError> {
    let now_ms = clock.now_ms;
    let standings = Evidence { known, seen, taken, now_ms }.standings();
    let standing = |id: &SnapshotId| standings.get(id).copied().unwrap_or(Standing::Unacknowledged);
    let replaced = known.replaced();
    if !options.trust_clock {
        let concerned = known.listed.iter().filter(|one| options.concerns(&one.record.job));
        refuse_future(concerned, standing, now_ms)?;
    }
    let counts = |one: &&SnapshotInfo| standing(&one.id) == Standing::Acknowledged;
    let counted = known.listed.iter().filter(counts);
    let counted = counted.map(|one| (one.record.finished_ms, one.id)).collect::<Vec<_>>();
    let newest_ms = counted.iter().map(|(time_ms, _)| *time_ms).max();
    let reference_ms = if options.trust_clock { now_ms } else { newest_ms.unwrap_or(now_ms) };
    let mut ages = Ages::since(reference_ms);
    if !clock.is_right {
        let commits = known.listed.iter().filter(counts).map(commit);
        ages.silences = silences(&commits.collect::<Vec<_>>());
    }
    let mut series = Vec::new();
    for ((job, namespace), members) in group(known.listed.clone(), options.join_writers) {
        if !options.concerns(&job) {
            continue;
        }
        // What an erasure made anew counts once.
        let (gone, members) =
            members.into_iter().partition::<Vec<_>, _>(|one| replaced.contains_key(&one.id));
        let (members, twins) = apart(members, |one| counts(&one));
        let candidates = members
            .iter()
            .map(|snapshot| Candidate {
                id: snapshot.id,
                time_ms: known.age_of(snapshot, reference_ms),
                tags: snapshot.record.tags.clone(),
                standing: standing(&snapshot.id),
            })
            .collect::<Vec<_>>();
        let verdicts = apply_by(policy, &ages, &candidates, options.remove_last);
        let of = members.iter().zip(&verdicts).filter(|(one, _)| counts(one));
        let of = of.map(|(one, verdict)| (one.origin(), verdict.clone()));
        let of = of.collect::<HashMap<_, _>>();
        let twins = twins.into_iter().filter_map(|twin| {
            let verdict = of.get(&twin.origin())?.clone();
            Some((twin, verdict))
        });
        let twins = twins.collect::<Vec<_>>();
        let planned = members.into_iter().zip(verdicts).chain(twins);
        let planned = planned.map(|(snapshot, verdict)| Planned { snapshot, verdict });
        let gone = gone.into_iter().filter_map(|snapshot| {
            let cause = Cause::MadeAnew { by: *replaced.get(&snapshot.id)? };
            Some(Planned { snapshot, verdict: Verdict::Go(cause) })
        });
        series.push(described(job, namespace, gone.chain(planned).collect()));
    }
    Ok(Judged { standings, series, ages, counted })
}

/// Takes twins apart: what several erasures at once made of the same snapshot counts once, and shares
/// its fate, until one of them has made one of all. Those that stay first are in their order.
fn apart(
    members: Vec<SnapshotInfo>,
    counts: impl Fn(&SnapshotInfo) -> bool,
) -> (Vec<SnapshotInfo>, Vec<SnapshotInfo>) {
    let last = members.iter().filter(|one| counts(one)).map(|one| (one.origin(), one.id));
    let last = last.collect::<HashMap<_, _>>();
    members.into_iter().partition(|one| !counts(one) || last.get(&one.origin()) == Some(&one.id))
}

/// A snapshot as evidence that time has passed.
fn commit(snapshot: &SnapshotInfo) -> Commit<(&str, WriterId, &str)> {
    let record = &snapshot.record;
    Commit {
        time_ms: record.finished_ms,
        series: (&record.job, snapshot.writer, &record.host),
        sequence: record.sequence,
    }
}

/// Refuses when an acknowledged snapshot lies in the future. One of a job that was not chosen stops
/// nothing: it counts for no rule, and whoever signs it shall not keep other jobs from being thinned
/// out.
fn refuse_future<'a>(
    concerned: impl Iterator<Item = &'a SnapshotInfo>,
    standing: impl Fn(&SnapshotId) -> Standing,
    now_ms: i64,
) -> Result<(), RetentionError> {
    let future = concerned
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
/// back, and nothing says that this host's clock is right: nobody makes pauses that long unaware.
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
