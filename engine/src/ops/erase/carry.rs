//! Doing what the plan of an erasure says: new nodes and snapshots first, then the former ones go.

use std::collections::{HashMap, HashSet};

use cairn_format::ids::SnapshotId;
use cairn_format::names::ObjectName;

use super::paths::Paths;
use super::plan::{ErasePlan, Fate, Planned};
use super::remake::Remaker;
use super::tree::{Outcome, Surgery, Tally, count_rest};
use super::{EraseOptions, EraseReport, Erased, Noted};
use crate::error::Error;
use crate::ops::forget::orphans::{Orphan, remove_orphans};
use crate::ops::forget::{remove, remove_late_acks};
use crate::ops::rollback;
use crate::ops::snapshots;
use crate::repo::{Repository, intent};
use crate::store::StoreError;

/// Snapshots that are acknowledged and were not when it was planned.
fn late_acks(repository: &Repository, plan: &ErasePlan) -> Result<HashSet<SnapshotId>, Error> {
    if plan.snapshots.iter().all(|planned| planned.acknowledged) {
        return Ok(HashSet::new());
    }
    let mut acknowledged = snapshots::list_acknowledged(repository)?;
    acknowledged.retain(|id| !plan.objects.acks.contains_key(id));
    Ok(acknowledged)
}

/// Does what a plan says.
///
/// # Errors
/// [`EraseError::Incomplete`](super::EraseError::Incomplete) when what was stored for it was
/// collected meanwhile; failures of the store.
pub(super) fn out(
    repository: &Repository,
    plan: &ErasePlan,
    options: &EraseOptions,
    paths: &mut Paths,
    noted: &mut Noted,
    report: &mut EraseReport,
) -> Result<(), Error> {
    repository.monitor().stage("erase: making snapshots anew", None);
    let mut remaker = Remaker::new(repository, options.weakness)?;
    let outcomes = take_out(repository, plan, &mut remaker, paths, noted)?;
    let mut made = HashMap::new();
    for (planned, outcome) in outcomes {
        let nodes = repository.nodes(&planned.snapshot)?;
        let rest = match outcome.tally.shared {
            true => Some(count_rest(&nodes, planned.snapshot.record.root, paths)?),
            false => None,
        };
        let claims = is_claimed(plan, planned).then(|| claims(plan, planned));
        let draft = match remaker.draft(&planned.snapshot, claims, &outcome, rest, paths) {
            Err(Error::Store(StoreError::NotFound { .. })) => continue,
            draft => draft?,
        };
        made.insert(planned.snapshot.id, (planned.acknowledged, draft));
    }
    for planned in plan.snapshots.iter().filter(|planned| planned.fate == Fate::Settled) {
        if is_claimed(plan, planned) {
            remaker.adopt(&planned.snapshot, claims(plan, planned));
        }
    }
    let became = remaker.publish(&made)?;
    remove_former(repository, plan, &became, noted, report)
}

/// Takes out of each snapshot what is to be erased, as new nodes; gives the outcome for those that
/// are made anew.
fn take_out<'p>(
    repository: &Repository,
    plan: &'p ErasePlan,
    remaker: &mut Remaker<'_>,
    paths: &mut Paths,
    noted: &mut Noted,
) -> Result<Vec<(&'p Planned, Outcome)>, Error> {
    let mut surgery = Surgery::new(paths, true);
    surgery.chunks = noted.chunks.take();
    let mut namespace = None;
    let mut outcomes = Vec::new();
    for planned in plan.snapshots.iter().filter(|planned| planned.fate != Fate::Waits) {
        repository.check_cancelled()?;
        let own = planned.snapshot.namespace;
        if namespace.replace(own) != Some(own) {
            surgery.forget();
        }
        // Of a snapshot that goes as a whole the chunks are noted by the same way.
        if planned.tally.entries() > 0 {
            let nodes = repository.nodes(&planned.snapshot)?;
            let mut sink = remaker.sink(own);
            let root = planned.snapshot.record.root;
            let outcome = match surgery.operate(&nodes, root, &mut sink, None) {
                // Others removed it, and it is seen to when it is looked again.
                Err(_) if snapshots::is_forgotten(repository, &planned.snapshot)? => continue,
                outcome => outcome?,
            };
            if planned.fate == Fate::Remade {
                outcomes.push((planned, outcome));
            }
        }
    }
    noted.chunks = surgery.chunks.take();
    Ok(outcomes)
}

/// Whether it counts only because what it was made of does.
fn is_claimed(plan: &ErasePlan, planned: &Planned) -> bool {
    planned.acknowledged && !plan.acknowledged.contains(&planned.snapshot.id)
}

/// What is there of those that count: records and acknowledgements.
fn claims(plan: &ErasePlan, planned: &Planned) -> Vec<ObjectName> {
    let counts = |id: &&SnapshotId| plan.objects.acks.contains_key(*id);
    planned.before.iter().filter(counts).flat_map(|id| plan.objects.names(*id)).collect()
}

/// Whether something stands for it, and nobody was told that it is there.
fn is_unclaimed(planned: &Planned) -> bool {
    matches!(planned.fate, Fate::Remade | Fate::Settled) && !planned.acknowledged
}

/// Removes what has been made anew, or goes, and notes it; what nothing stands for yet stays.
fn remove_former(
    repository: &Repository,
    plan: &ErasePlan,
    became: &HashMap<SnapshotId, SnapshotId>,
    noted: &mut Noted,
    report: &mut EraseReport,
) -> Result<(), Error> {
    repository.monitor().stage("erase: removing", None);
    let late = late_acks(repository, plan)?;
    let stays = |planned: &Planned| {
        let id = planned.snapshot.id;
        let must_become = match planned.fate {
            Fate::Remade => true,
            Fate::Settled => planned.acknowledged && !plan.acknowledged.contains(&id),
            Fate::Goes => false,
            Fate::Waits => return true,
        };
        // Nothing stands for it after all: it stays until that is so.
        if must_become && !became.contains_key(&id) {
            return true;
        }
        // Its backup acknowledged it meanwhile: what stands for it has to be acknowledged first.
        let is_late = |id: &SnapshotId| late.contains(id);
        is_unclaimed(planned) && (is_late(&id) || planned.before.iter().any(is_late))
    };
    let going = plan.snapshots.iter().filter(|planned| !stays(planned)).collect::<Vec<_>>();
    // All of it, also what a snapshot that stays was made of: that may go by another hand before this
    // comes to its receipt, and with it whatever else would say so.
    let goes = going.iter().flat_map(|planned| planned.goes()).chain(plan.bare.iter().copied());
    intent::declare(repository, &goes.flat_map(|id| plan.objects.records_of(id)).collect())?;
    for planned in going {
        repository.check_cancelled()?;
        let (id, unclaimed) = (planned.snapshot.id, is_unclaimed(planned));
        let gone = planned.goes().collect();
        rollback::removed(repository, &gone)?;
        if planned.leftover {
            // Or it is none, if it is acknowledged by now: then it is looked at once more.
            let orphan = Orphan::of(&planned.snapshot, &plan.objects);
            if !remove_orphans(repository, &[orphan])?.is_empty() {
                continue;
            }
            noted.records.extend(plan.objects.names(id));
        } else {
            // An acknowledgement that comes even now counts for what was made of it, when it is looked
            // again; of what goes as a whole it goes too.
            let objects = match unclaimed {
                true => plan.objects.of_these(&gone),
                false => plan.objects.with_late_acks(repository, &gone)?,
            };
            for id in &gone {
                remove(repository, &objects, *id)?;
                noted.records.extend(objects.names(*id));
            }
            if !unclaimed {
                remove_late_acks(repository, &gone)?;
            }
        }
        report.snapshots.push(Erased {
            id: planned.snapshot.id,
            fate: planned.fate,
            becomes: became.get(&planned.snapshot.id).copied(),
            tally: planned.tally,
        });
    }
    rollback::removed(repository, &plan.bare.iter().copied().collect())?;
    for id in &plan.bare {
        remove(repository, &plan.objects, *id)?;
        noted.records.extend(plan.objects.names(*id));
        let tally = Tally::default();
        report.snapshots.push(Erased { id: *id, fate: Fate::Goes, becomes: None, tally });
    }
    Ok(())
}
