//! Removing what a plan says is to go: acknowledgements first, each deletion looked after.

use std::collections::{HashMap, HashSet};

use cairn_format::ids::SnapshotId;
use cairn_format::names::ObjectName;

use super::orphans::{Orphan, remove_orphans};
use super::{ForgetPlan, ForgetReport, Objects, Planned, evidence};
use crate::error::Error;
use crate::ops::{rollback, snapshots};
use crate::repo::{Repository, intent};
use crate::retention::{Cause, RetentionError, Verdict};
use crate::store::StoreError;

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
    let (mut orphans, going): (Vec<_>, Vec<_>) = planned.partition(is_orphan);
    let going = going.into_iter().map(|one| one.snapshot.id).chain(plan.bare.iter().copied());
    let mut going = going.collect::<Vec<_>>();
    if !orphans.is_empty() {
        // Their backups have taken long, and reported success.
        let late = snapshots::list_acknowledged(repository)?;
        orphans.retain(|one| !late.contains(&one.snapshot.id));
    }
    let orphan_ids = orphans.iter().map(|one| one.snapshot.id).collect::<Vec<_>>();
    // First, so that a copy that follows this one goes by it wherever this ends.
    intent::declare(repository, &plan.meant(&going))?;
    rollback::removed(repository, &going.iter().chain(&orphan_ids).copied().collect())?;
    let objects = plan.objects.with_late_acks(repository, &going.iter().copied().collect())?;
    for id in &going {
        repository.check_cancelled()?;
        report.acknowledged += u64::from(remove(repository, &objects, *id)?);
    }
    if !going.is_empty() {
        remove_late_acks(repository, &going.iter().copied().collect())?;
    }
    let orphans = orphans.iter().map(|one| Orphan::of(&one.snapshot, &plan.objects));
    let stay = remove_orphans(repository, &orphans.collect::<Vec<_>>())?;
    going.extend(orphan_ids.into_iter().filter(|id| !stay.contains(id)));
    report.removed = going.len() as u64;
    if let Some(seen) = &plan.seen {
        seen.without(&going).save(repository.catalog()?)?;
    }
    Ok(report)
}

/// Removes one snapshot; true if it had acknowledgements.
pub(in crate::ops) fn remove(
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
pub(super) fn delete_surely(repository: &Repository, name: &ObjectName) -> Result<(), Error> {
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
pub(in crate::ops) fn remove_late_acks(
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
