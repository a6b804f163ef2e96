//! What comes free when snapshots go.

use std::collections::HashSet;
use std::ops::ControlFlow;

use cairn_format::names::PackKind;

use super::ForgetPlan;
use crate::collect::due::Past;
use crate::collect::needed::bytes_needed_by_others;
use crate::error::Error;
use crate::ops::snapshots::SnapshotInfo;
use crate::repo::Repository;

/// Bytes of trees up to which [`measure`] reads them where no collection remembers what they say: in a
/// store nearby, and behind a network.
const TREE_BYTES_MAX: u64 = 64 << 20;
const TREE_BYTES_MAX_FAR: u64 = 8 << 20;

/// About how many stored bytes only snapshots need that go, so that a collection can free them: to be
/// asked before they do. `None` where that cannot be told: what is needed is damaged; or, unless
/// `thorough`, no collection has run on this host, whose memory would tell, and there are too many
/// trees to read them for this. Changes nothing.
///
/// # Errors
/// Failures of the store and the cache; [`Error::Cancelled`].
pub fn measure(
    repository: &Repository,
    plan: &ForgetPlan,
    thorough: bool,
) -> Result<Option<u64>, Error> {
    if plan.going() == 0 {
        return Ok(Some(0));
    }
    repository.monitor().stage("forget: measuring", None);
    let catalog = repository.current_catalog()?;
    if !thorough && Past::read(catalog)?.is_none() {
        let mut tree_bytes = 0;
        catalog.index().for_each_pack(&mut |_, record, _| {
            if record.kind == PackKind::Tree {
                tree_bytes += u64::from(record.bytes);
            }
            ControlFlow::Continue(())
        })?;
        let is_near = repository.store().is_near();
        if tree_bytes > if is_near { TREE_BYTES_MAX } else { TREE_BYTES_MAX_FAR } {
            return Ok(None);
        }
    }
    let planned = plan.series.iter().flat_map(|series| &series.snapshots);
    let going = planned.filter(|one| !one.verdict.keeps()).map(|one| one.snapshot.id);
    let going = going.collect::<HashSet<_>>();
    let there = plan.listed.iter().filter(|one| plan.objects.records.contains_key(&one.id));
    let there = there.cloned().collect::<Vec<_>>();
    let stays = |one: &SnapshotInfo| !going.contains(&one.id);
    match bytes_needed_by_others(repository, catalog, &there, stays) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Error::LivenessUnknown { .. }) => Ok(None),
        Err(error) if error.is_damage() => Ok(None),
        Err(error) => Err(error),
    }
}
