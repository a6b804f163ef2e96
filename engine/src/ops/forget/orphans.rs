//! Snapshots that go because nobody acknowledged them: left by backups, replications and erasures
//! that died.
//!
//! One may be acknowledged while it goes, by a process that was only slow. Whoever acknowledges looks
//! afterwards whether the record is there; whoever removes the record looks afterwards whether there
//! is an acknowledgement, and puts it back if there is. One of them sees the other, so nothing is lost
//! that was reported to be done.
//!
//! What an erasure made anew counts too where a snapshot that it was made of is acknowledged and its
//! record is gone: somebody took that for an orphan when its backup was only slow, and left what was made
//! of it to stand for it.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use cairn_format::ids::SnapshotId;
use cairn_format::limits::RECORD_BYTES_MAX;
use cairn_format::names::ObjectName;

use super::carry::delete_surely;
use super::{Objects, evidence};
use crate::error::Error;
use crate::ops::snapshots::SnapshotInfo;
use crate::repo::Repository;
use crate::repo::vault::read_object;
use crate::store::{Store, StoreError, any_is_there};

/// Records that are taken away, and held in memory, before acknowledgements are listed.
const BATCH: usize = 64;

/// A snapshot that nobody acknowledged.
pub(in crate::ops) struct Orphan {
    id: SnapshotId,
    records: Vec<ObjectName>,
    /// Records of those it was made of.
    former: Vec<ObjectName>,
}

impl Orphan {
    /// This one; `objects` has its records.
    pub(in crate::ops) fn of(snapshot: &SnapshotInfo, objects: &Objects) -> Self {
        let records = objects.records.get(&snapshot.id).cloned().unwrap_or_default();
        let former = snapshot.former().iter().map(|id| snapshot.name_of(*id)).collect();
        Self { id: snapshot.id, records, former }
    }

    /// One with this record, made of those with the others.
    pub(in crate::ops) fn new(id: SnapshotId, record: ObjectName, former: Vec<ObjectName>) -> Self {
        Self { id, records: vec![record], former }
    }

    /// Whether it counts after all.
    ///
    /// # Errors
    /// Failures of the store.
    fn stands(&self, store: &dyn Store, acks: &Acks) -> Result<bool, Error> {
        if acks.contains_key(&self.id) {
            return Ok(true);
        }
        let claims = self.former.iter().filter_map(|name| match name {
            ObjectName::Snapshot { id, .. } => acks.get(id),
            _ => None,
        });
        let claims = claims.flatten().copied().collect::<Vec<_>>();
        // One of them that is there counts itself, or what was made of it last. A list may go on to show
        // an acknowledgement that was forgotten with its record: it is asked for.
        Ok(!claims.is_empty()
            && !any_is_there(store, &self.former)?
            && any_is_there(store, &claims)?)
    }
}

/// Acknowledgements by snapshots.
type Acks = HashMap<SnapshotId, Vec<ObjectName>>;

/// Removes snapshots that were not acknowledged. Returns those that stay, because they are by now.
///
/// # Errors
/// Damage of a record; failures of the store; as [`super::run`]. What was removed while it could not be
/// told whether it is acknowledged is put back as far as the store allows.
pub(in crate::ops) fn remove_orphans(
    repository: &Repository,
    orphans: &[Orphan],
) -> Result<HashSet<SnapshotId>, Error> {
    let mut stay = HashSet::new();
    for batch in orphans.chunks(BATCH) {
        repository.check_cancelled()?;
        stay.extend(remove_batch(repository, batch)?);
    }
    Ok(stay)
}

fn remove_batch(repository: &Repository, orphans: &[Orphan]) -> Result<HashSet<SnapshotId>, Error> {
    let store = repository.store();
    let mut stay = standing(repository, orphans)?;
    let mut held: Vec<(&Orphan, ObjectName, Bytes)> = Vec::new();
    for orphan in orphans.iter().filter(|orphan| !stay.contains(&orphan.id)) {
        for name in &orphan.records {
            match read_object(store, name, RECORD_BYTES_MAX) {
                Ok(record) => held.push((orphan, *name, record)),
                Err(Error::Store(StoreError::NotFound { .. })) => {}
                Err(error) => return Err(error),
            }
        }
    }
    let removed = held.iter().try_for_each(|(_, name, _)| delete_surely(repository, name));
    let standing = standing(repository, orphans);
    // Without the list any of them may be acknowledged.
    let stands = |id| standing.as_ref().map_or(true, |standing| standing.contains(id));
    let back = held.iter().filter(|(orphan, ..)| stands(&orphan.id));
    let put = back.map(|(_, name, record)| store.put(name, record)).collect::<Vec<_>>();
    removed?;
    stay.extend(standing?);
    put.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(stay)
}

/// Which of them count after all.
fn standing(repository: &Repository, orphans: &[Orphan]) -> Result<HashSet<SnapshotId>, Error> {
    let former = orphans.iter().flat_map(|orphan| &orphan.former).filter_map(|name| match name {
        ObjectName::Snapshot { id, .. } => Some(*id),
        _ => None,
    });
    let asked = orphans.iter().map(|orphan| orphan.id).chain(former).collect::<HashSet<_>>();
    let mut acks = Acks::new();
    evidence::list_acks(repository, &mut |id, name| {
        if asked.contains(&id) {
            acks.entry(id).or_default().push(name);
        }
    })?;
    let mut standing = HashSet::new();
    for orphan in orphans {
        if orphan.stands(repository.store(), &acks)? {
            standing.insert(orphan.id);
        }
    }
    Ok(standing)
}
