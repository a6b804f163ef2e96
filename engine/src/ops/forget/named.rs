//! What goes because it is named, whatever rules say.

use std::collections::HashSet;

use cairn_format::ids::SnapshotId;

use super::{ForgetOptions, ForgetPlan, Known, Planned, described, group};
use crate::error::Error;
use crate::ops::rollback;
use crate::ops::snapshots::{self, SnapshotInfo};
use crate::repo::Repository;
use crate::retention::{Cause, RetentionError, Verdict};

/// Shortest first digits by which a snapshot whose record cannot be read may be named.
const BARE_DIGITS_MIN: usize = 8;

/// What goes when a person names these.
pub(super) fn by_name(
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
    // Erasures that are under way, or were interrupted, have made others of them already: who names one
    // that counts, or that something stands for, means that too, and what it stands for.
    let counts = |one: &&SnapshotInfo| known.acknowledged.contains(&one.id);
    let is_meant = |one: &&SnapshotInfo| {
        named.contains(&one.id) || one.former().iter().any(|id| named.contains(id))
    };
    let meant = known.listed.iter().filter(counts).filter(is_meant);
    let origins = meant.map(SnapshotInfo::origin).collect::<HashSet<_>>();
    let family = known.listed.iter().filter(|one| origins.contains(&one.origin()));
    named.extend(family.map(|one| one.id));
    of_ids(repository, options, known, &named, bare)
}

/// What goes when these snapshots do; those among them that nobody acknowledged go as orphans do, as
/// nobody has named them.
pub(super) fn these(
    repository: &Repository,
    options: &ForgetOptions,
    known: Known,
    ids: &HashSet<SnapshotId>,
) -> Result<ForgetPlan, Error> {
    let mut plan = of_ids(repository, options, known, ids, Vec::new())?;
    let acks = &plan.objects.acks;
    let planned = plan.series.iter_mut().flat_map(|series| &mut series.snapshots);
    for one in planned.filter(|one| !acks.contains_key(&one.snapshot.id)) {
        one.verdict = Verdict::Go(Cause::Unacknowledged);
    }
    Ok(plan)
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
    let Known { listed, mut damaged, rolled_back, objects, .. } = known;
    damaged.extend(rolled_back);
    let (reference_ms, uncounted) = (repository.context.clock.now_ms(), Vec::new());
    let seen = None;
    Ok(ForgetPlan { series, bare, reference_ms, uncounted, damaged, listed, objects, seen })
}

/// The snapshot whose record is missing or cannot be read and whose id begins so; `gone` are those
/// of which nothing is left.
pub(in crate::ops) fn select_bare(
    known: &Known,
    gone: &[SnapshotId],
    digits: &str,
) -> Option<SnapshotId> {
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
