//! Which snapshots a replica is to have: those it lacks are copied, those that it is no longer to
//! have are forgotten there.
//!
//! With rules, these are applied to the snapshots of both copies together, as `forget` applies
//! them: what home has forgotten goes on to count. Without rules a replica follows home: it gets
//! every acknowledged snapshot, and forgets what came from home and was forgotten or erased there,
//! which home's receipts say ([`crate::repo::intent`]). What home merely lacks stays: home may have
//! lost it, or have been rolled back, and this is the last copy. What was backed up to the replica
//! itself stays as well.

use std::collections::{BTreeMap, HashMap, HashSet};

use cairn_format::ids::SnapshotId;
use cairn_format::names::ObjectName;

use super::Target;
use crate::context::{Counter, Remark};
use crate::error::{Error, Explain};
use crate::ops::forget::evidence::{acknowledged_by, list_acks};
use crate::ops::forget::{self, Choice, ForgetOptions, ForgetPlan};
use crate::ops::snapshots::{self, SnapshotInfo};
use crate::repo::Repository;
use crate::repo::intent::{self, Subject};
use crate::retention::UNACKNOWLEDGED_GRACE_MS;
use crate::store::StoreError;

/// What is to happen to the snapshots of a replica.
pub(super) struct Decision {
    /// Snapshots to be copied, oldest first.
    pub(super) copy: Vec<SnapshotInfo>,
    /// Records of snapshots that are acknowledged on both sides, and an acknowledgement of each on the
    /// replica: what is copied may be like them.
    pub(super) both: BTreeMap<ObjectName, ObjectName>,
    /// Snapshots that cannot be read.
    pub(super) damaged: Vec<Remark>,
    /// What is to be forgotten on the replica.
    pub(super) forget: Option<ForgetPlan>,
    /// Snapshots that the replica is to have.
    pub(super) wanted: u64,
    /// Of these, what home lacks and never said is to go.
    pub(super) spared: Vec<SnapshotId>,
    /// Those that are acknowledged on the replica and stay.
    pub(super) stay: HashSet<SnapshotId>,
    /// Whether the replica lacks others than those that are copied.
    pub(super) incomplete: bool,
    /// When the newest of them was committed, as far as it was looked at.
    pub(super) newest_ms: Option<i64>,
}

/// Names of the snapshots and acknowledgements of one copy.
struct Names {
    records: BTreeMap<SnapshotId, ObjectName>,
    acks: HashMap<SnapshotId, Vec<ObjectName>>,
    acknowledged: HashSet<SnapshotId>,
}

impl Names {
    fn list(repository: &Repository) -> Result<Self, Error> {
        let mut acks = HashMap::<_, Vec<_>>::new();
        // First: whoever forgets a snapshot removes its acknowledgement first.
        list_acks(repository, &mut |snapshot, name| {
            acks.entry(snapshot).or_default().push(name);
        })?;
        let mut records = BTreeMap::new();
        for name in snapshots::list_names(repository)? {
            if let ObjectName::Snapshot { id, .. } = name {
                records.insert(id, name);
            }
        }
        let acknowledged = acks.keys().copied().collect();
        Ok(Self { records, acks, acknowledged })
    }

    fn has(&self, id: &SnapshotId) -> bool {
        self.records.contains_key(id) && self.acks.contains_key(id)
    }

    fn acks(&self, id: &SnapshotId) -> &[ObjectName] {
        self.acks.get(id).map(Vec::as_slice).unwrap_or_default()
    }

    /// Reads a snapshot; `None` when it is gone by now, or damaged.
    fn read(
        &self,
        repository: &Repository,
        id: &SnapshotId,
        damaged: &mut Vec<Remark>,
    ) -> Result<Option<SnapshotInfo>, Error> {
        let Some(name) = self.records.get(id) else { return Ok(None) };
        match snapshots::read(repository, name, &self.acknowledged) {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(Error::Store(StoreError::NotFound { .. })) => Ok(None),
            Err(error) if error.is_damage() => {
                let remark = Remark {
                    code: error.code(),
                    subject: name.to_string(),
                    message: error.to_string(),
                };
                repository.monitor().warn(remark.clone());
                damaged.push(remark);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Decides.
///
/// # Errors
/// [`Error::ReplicateRefused`] when home lists nothing; what the rules refuse; failures of either
/// store or cache.
pub(super) fn decide(
    home: &Repository,
    replica: &Repository,
    target: &Target,
) -> Result<Decision, Error> {
    // The replica first: another replication may copy what home has got meanwhile, and what is then not
    // at home would look as if it had been forgotten there.
    let there = Names::list(replica)?;
    let here = Names::list(home)?;
    if let Some(id) = target.only {
        return one(home, &here, &there, id);
    }
    let both = both(&here, &there);
    match &target.rules {
        None => follow(home, replica, target, &here, &there, both),
        Some(policy) => {
            let mut options = ForgetOptions::new(Choice::Rules(policy.clone()));
            options.job.clone_from(&target.job);
            options.trust_clock = target.trust_clock;
            let mut plan = forget::plan_copy(home, replica, &options)?;
            let (mut copy, mut wanted, mut newest_ms) = (Vec::new(), 0, None);
            let mut stay = HashSet::new();
            for one in plan.series.iter().flat_map(|series| &series.snapshots) {
                let id = one.snapshot.id;
                if !one.verdict.keeps() || !(here.has(&id) || there.has(&id)) {
                    continue;
                }
                wanted += 1;
                newest_ms = newest_ms.max(Some(one.snapshot.record.finished_ms));
                if there.has(&id) {
                    stay.insert(id);
                } else if acknowledged_by(home, here.acks(&id), &one.snapshot)?.is_some() {
                    copy.push(one.snapshot.clone());
                }
            }
            copy.sort_by_key(|one| (one.record.started_ms, one.id));
            plan.retain_present();
            let damaged = plan.damaged.clone();
            let forget = (plan.going() > 0).then_some(plan);
            let (spared, incomplete) = (Vec::new(), false);
            Ok(Decision {
                copy,
                both,
                damaged,
                forget,
                wanted,
                spared,
                stay,
                incomplete,
                newest_ms,
            })
        }
    }
}

/// Records of snapshots that are acknowledged on both sides, and an acknowledgement of each on the replica.
fn both(here: &Names, there: &Names) -> BTreeMap<ObjectName, ObjectName> {
    let of_both = here.records.iter().filter(|(id, _)| here.has(id) && there.has(id));
    of_both.filter_map(|(id, name)| Some((*name, *there.acks(id).first()?))).collect()
}

/// A single snapshot, whatever else is there.
fn one(home: &Repository, here: &Names, there: &Names, id: SnapshotId) -> Result<Decision, Error> {
    let mut damaged = Vec::new();
    let mut copy = Vec::new();
    if !there.has(&id) {
        copy.extend(here.read(home, &id, &mut damaged)?);
    }
    let newest_ms = copy.iter().map(|snapshot| snapshot.record.finished_ms).max();
    let wanted = there.records.keys().filter(|id| there.has(id)).count() + copy.len();
    let both = both(here, there);
    let lacks = |other: &SnapshotId| *other != id && here.has(other) && !there.has(other);
    Ok(Decision {
        copy,
        both,
        damaged,
        forget: None,
        wanted: wanted as u64,
        spared: Vec::new(),
        stay: HashSet::new(),
        incomplete: here.records.keys().any(lacks),
        newest_ms,
    })
}

/// Home's snapshots, and nothing that came from home and was forgotten or erased there.
fn follow(
    home: &Repository,
    replica: &Repository,
    target: &Target,
    here: &Names,
    there: &Names,
    both: BTreeMap<ObjectName, ObjectName>,
) -> Result<Decision, Error> {
    let of_job = |one: &SnapshotInfo| target.job.as_ref().is_none_or(|job| one.record.job == *job);
    let (mut copy, mut newest_ms, mut damaged) = (Vec::new(), None, Vec::new());
    let mut wanted = both.len() as u64;
    for id in here.records.keys().filter(|id| here.has(id) && !there.has(id)) {
        let Some(snapshot) = here.read(home, id, &mut damaged)?.filter(of_job) else { continue };
        if acknowledged_by(home, here.acks(id), &snapshot)?.is_some() {
            wanted += 1;
            newest_ms = newest_ms.max(Some(snapshot.record.finished_ms));
            copy.push(snapshot);
        }
    }
    copy.sort_by_key(|one| (one.record.started_ms, one.id));
    let oldest_ms = home.context.clock.now_ms().saturating_sub(UNACKNOWLEDGED_GRACE_MS);
    let (mut gone, mut orphans, mut unread) = (HashSet::new(), HashSet::new(), Vec::new());
    for id in there.records.keys().filter(|id| !here.records.contains_key(id)) {
        // Whoever forgets a snapshot removes its acknowledgement first: the record of this one was
        // lost at home, and can be had from the replica.
        if here.acks.contains_key(id) {
            wanted += 1;
            continue;
        }
        let Some(snapshot) = there.read(replica, id, &mut unread)?.filter(of_job) else { continue };
        match acknowledged_by(replica, there.acks(id), &snapshot)? {
            // Whoever backs up acknowledges with the session that the snapshot names.
            Some(session) if session != snapshot.record.session => {
                gone.insert(snapshot.id);
            }
            // Nobody was told that it is here: left by somebody who died.
            None if snapshot.record.finished_ms < oldest_ms => {
                orphans.insert(snapshot.id);
            }
            _ => wanted += 1,
        }
    }
    if !gone.is_empty() && !here.records.keys().any(|id| here.has(id)) {
        return Err(Error::ReplicateRefused {
            message: format!(
                "{} lists no acknowledged snapshot, so everything that came from it would be forgotten in {}",
                home.store().location(),
                replica.store().location()
            ),
            hint: "check that the home copy is the right place and whole; to empty the replica, forget its snapshots there".to_owned(),
        });
    }
    let spared = match target.forget_missing {
        true => Vec::new(),
        false => unsaid(home, here, &gone)?,
    };
    warn_spared(home, replica, &spared);
    wanted += spared.len() as u64;
    gone.retain(|id| spared.binary_search(id).is_err());
    gone.extend(orphans);
    let stays = |id: &&SnapshotId| there.has(id) && !gone.contains(*id);
    let stay = there.records.keys().filter(stays).copied().collect();
    let forget = match gone.is_empty() {
        true => None,
        false => {
            // Another replication may have put in their place what erasures made of them.
            let mut options = ForgetOptions::new(Choice::These(gone));
            options.remove_last = true;
            Some(forget::plan(replica, &options)?)
        }
    };
    let incomplete = false;
    Ok(Decision { copy, both, damaged, forget, wanted, spared, stay, incomplete, newest_ms })
}

/// Whether a copy lists all of these, each with an acknowledgement.
///
/// # Errors
/// Failures of its store.
pub(super) fn lists_all(repository: &Repository, ids: &HashSet<SnapshotId>) -> Result<bool, Error> {
    let names = Names::list(repository)?;
    Ok(ids.iter().all(|id| names.has(id)))
}

/// Of snapshots that home lacks, those of which nobody said there that they are to go.
///
/// # Errors
/// Failures of home's store.
fn unsaid(
    home: &Repository,
    here: &Names,
    gone: &HashSet<SnapshotId>,
) -> Result<Vec<SnapshotId>, Error> {
    let subjects = gone.iter().copied().map(Subject::Snapshot).collect();
    let said = intent::declared(home, &subjects)?;
    let mut unsaid = gone.clone();
    unsaid.retain(|id| !said.contains(&Subject::Snapshot(*id)));
    if !unsaid.is_empty() {
        // What an erasure made of them says so as well, also where it died before its receipt.
        for name in here.records.iter().filter(|(id, _)| here.has(id)).map(|(_, name)| name) {
            match snapshots::read(home, name, &here.acknowledged) {
                Ok(made) => unsaid.retain(|id| !made.former().contains(id)),
                Err(Error::Store(StoreError::NotFound { .. })) => {}
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
    }
    let mut unsaid = unsaid.into_iter().collect::<Vec<_>>();
    unsaid.sort_unstable();
    Ok(unsaid)
}

/// Says that the replica keeps what home lacks.
fn warn_spared(home: &Repository, replica: &Repository, spared: &[SnapshotId]) {
    let Some(first) = spared.first() else { return };
    let (here, there) = (home.store().location(), replica.store().location());
    let others = match spared.len() {
        1 => String::new(),
        all => format!(" and {} more", all - 1),
    };
    replica.monitor().count(Counter::Findings, spared.len() as u64);
    replica.monitor().warn(Remark {
        code: "replica.spared",
        subject: format!("snapshot {first}{others}"),
        message: format!(
            "{here} lacks what {there} has, and nobody said there that it is to go: it stays in \
             {there}. If home lost it, or was rolled back, copy it back with `cairn --repo {there} \
             replicate --to {here}`; if it is meant to be gone, run `cairn replicate \
             --forget-missing`"
        ),
    });
}

/// Snapshots of home that are compared with one that is new, at most.
const LIKE_MAX: usize = 12;

/// A snapshot that is on both sides, and that a new one is like.
#[derive(Clone)]
pub(super) struct Like {
    pub(super) snapshot: SnapshotInfo,
    /// An acknowledgement of it on the replica.
    pub(super) ack: ObjectName,
}

/// Finds snapshots that are on both sides and that new ones are like.
pub(super) struct Likes<'a> {
    home: &'a Repository,
    /// Their records and acknowledgements, the newest first.
    names: Vec<(ObjectName, ObjectName)>,
    read: HashMap<ObjectName, Option<SnapshotInfo>>,
}

impl<'a> Likes<'a> {
    /// `both`: records of snapshots that are on both sides, and their acknowledgements on the replica.
    pub(super) fn new(home: &'a Repository, both: &BTreeMap<ObjectName, ObjectName>) -> Self {
        let names = both.iter().rev().map(|(record, ack)| (*record, *ack)).collect();
        Self { home, names, read: HashMap::new() }
    }

    /// The one that a new snapshot is most likely like: the last of its job before it; else the
    /// nearest of some.
    ///
    /// # Errors
    /// Failures of the store that are not damage.
    pub(super) fn of(&mut self, snapshot: &SnapshotInfo) -> Result<Option<Like>, Error> {
        let new = snapshot.name();
        // Names sort by time.
        let before = self.names.partition_point(|(name, _)| *name > new);
        let (after, before) = self.names.split_at(before);
        let order = before.iter().chain(after.iter().rev()).take(LIKE_MAX);
        let mut second = None;
        for (name, ack) in order.copied().collect::<Vec<_>>() {
            let Some(found) = self.read(&name)? else { continue };
            if found.namespace != snapshot.namespace {
                continue;
            }
            let like = Like { snapshot: found, ack };
            if like.snapshot.record.job == snapshot.record.job {
                return Ok(Some(like));
            }
            second.get_or_insert(like);
        }
        Ok(second)
    }

    fn read(&mut self, name: &ObjectName) -> Result<Option<SnapshotInfo>, Error> {
        if let Some(known) = self.read.get(name) {
            return Ok(known.clone());
        }
        let found = match snapshots::read(self.home, name, &HashSet::new()) {
            Ok(snapshot) => Some(snapshot),
            Err(Error::Store(StoreError::NotFound { .. })) => None,
            Err(error) if error.is_damage() => None,
            Err(error) => return Err(error),
        };
        self.read.insert(*name, found.clone());
        Ok(found)
    }
}
