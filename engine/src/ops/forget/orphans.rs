//! Snapshots that go because nobody acknowledged them: left by backups, replications and erasures
//! that died.
//!
//! One may be acknowledged while it goes, by a process that was only slow. Whoever acknowledges looks
//! afterwards whether the record is there; whoever removes the record looks afterwards whether there
//! is an acknowledgement, and puts it back if there is. One of them sees the other, so nothing is lost
//! that was reported to be done.

use std::collections::HashSet;

use bytes::Bytes;
use cairn_format::ids::SnapshotId;
use cairn_format::limits::RECORD_BYTES_MAX;
use cairn_format::names::ObjectName;

use super::carry::delete_surely;
use super::{Objects, evidence};
use crate::error::Error;
use crate::repo::Repository;
use crate::repo::vault::read_object;
use crate::store::StoreError;

/// Records that are taken away, and held in memory, before acknowledgements are listed.
const BATCH: usize = 64;

/// Removes snapshots that were not acknowledged. Returns those that stay, because they are by now.
///
/// # Errors
/// Damage of a record; failures of the store; as [`super::run`]. What was removed while it could not be
/// told whether it is acknowledged is put back as far as the store allows.
pub(in crate::ops) fn remove_orphans(
    repository: &Repository,
    objects: &Objects,
    ids: &[SnapshotId],
) -> Result<HashSet<SnapshotId>, Error> {
    let mut stay = HashSet::new();
    for batch in ids.chunks(BATCH) {
        repository.check_cancelled()?;
        stay.extend(remove_batch(repository, objects, batch)?);
    }
    Ok(stay)
}

fn remove_batch(
    repository: &Repository,
    objects: &Objects,
    ids: &[SnapshotId],
) -> Result<HashSet<SnapshotId>, Error> {
    let store = repository.store();
    let mut held: Vec<(SnapshotId, ObjectName, Bytes)> = Vec::new();
    for id in ids {
        for name in objects.records.get(id).into_iter().flatten() {
            match read_object(store, name, RECORD_BYTES_MAX) {
                Ok(record) => held.push((*id, *name, record)),
                Err(Error::Store(StoreError::NotFound { .. })) => {}
                Err(error) => return Err(error),
            }
        }
    }
    let removed = held.iter().try_for_each(|(_, name, _)| delete_surely(repository, name));
    let mut acknowledged = HashSet::new();
    let listed = evidence::list_acks(repository, &mut |id, _| {
        if ids.contains(&id) {
            acknowledged.insert(id);
        }
    });
    // Without the list any of them may be acknowledged.
    let unknown = listed.is_err();
    let back = held.iter().filter(|(id, ..)| unknown || acknowledged.contains(id));
    let put = back.map(|(_, name, record)| store.put(name, record)).collect::<Vec<_>>();
    removed.and(listed)?;
    put.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(acknowledged)
}
