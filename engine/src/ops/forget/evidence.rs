//! What snapshots are there, which are acknowledged, and whose dates can be believed.

use std::collections::{BTreeMap, HashMap, HashSet};

use cairn_format::envelope::Kind;
use cairn_format::ids::{SessionId, SnapshotId, WriterId};
use cairn_format::limits::RECORD_BYTES_MAX;
use cairn_format::names::{Folder, ObjectName};
use cairn_format::record::Ack;
use cairn_format::segment::NAMESPACE_TRUSTED;
use rayon::prelude::*;

use super::{Known, Objects};
use crate::context::{Counter, Remark};
use crate::error::{Error, Explain};
use crate::index::catalog::Catalog;
use crate::ops::rollback;
use crate::ops::snapshots::{self, SnapshotInfo};
use crate::repo::Repository;
use crate::retention::{CLOCK_SKEW_MS, Doubt, RetentionError, Standing};
use crate::seal::Role;
use crate::store::{StoreError, together};

/// Reads every snapshot and every acknowledgement.
///
/// # Errors
/// [`RetentionError::Listing`]; failures of the store.
pub(in crate::ops) fn gather(repository: &Repository) -> Result<Known, Error> {
    let mut objects = Objects::default();
    // Acknowledgements first: whoever adds a snapshot puts it before its acknowledgement.
    list_acks(repository, &mut |snapshot, name| {
        objects.acks.entry(snapshot).or_default().push(name);
    })?;
    for name in snapshots::list_names(repository)? {
        if let ObjectName::Snapshot { id, .. } = name {
            objects.records.entry(id).or_default().push(name);
        }
    }
    let (mut listed, mut damaged) = snapshots::list_all(repository)?;
    listed.retain(|snapshot| objects.records.contains_key(&snapshot.id));
    let mut missing = missing(repository, &objects)?;
    // An acknowledgement that came late counts for what was made of its snapshot: see `erase`.
    let former = listed.iter().flat_map(SnapshotInfo::former).collect::<HashSet<_>>();
    missing.retain(|id| !former.contains(id));
    if objects.records.is_empty() && !missing.is_empty() {
        return Err(RetentionError::Listing {
            location: repository.store().location(),
            listed: 0,
            acknowledged: objects.acks.len(),
            problem: "what is acknowledged must be there".to_owned(),
        }
        .into());
    }
    let mut remark = |code, subject: String, message: String| {
        let remark = Remark { code, subject, message };
        repository.monitor().count(Counter::Findings, 1);
        repository.monitor().warn(remark.clone());
        damaged.push(remark);
    };
    for snapshot in missing {
        let message = "it was acknowledged, and is not in the store".to_owned();
        remark("snapshot.missing", format!("snapshot {snapshot}"), message);
    }
    let mut acknowledged = HashSet::new();
    for (id, name, outcome) in read_acks(repository, &objects, &listed) {
        match outcome {
            Ok(true) => {
                acknowledged.insert(id);
            }
            Ok(false) | Err(Error::Store(StoreError::NotFound { .. })) => {}
            Err(error) if error.is_damage() => {
                remark(error.code(), name.to_string(), error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    let records = objects.records.keys().copied().collect();
    let rolled_back = rollback::compare(repository, &listed, &records)?;
    Ok(Known { listed, damaged, rolled_back, objects, acknowledged })
}

/// What is known of the snapshots of the home copy and of another copy together. The objects are
/// those of the other copy; of its records only those are read that the home copy lacks.
///
/// # Errors
/// As [`gather`].
pub(super) fn gather_both(home: &Repository, copy: &Repository) -> Result<Known, Error> {
    let Known { mut listed, mut damaged, mut acknowledged, .. } = gather(home)?;
    let mut objects = Objects::default();
    list_acks(copy, &mut |snapshot, name| {
        objects.acks.entry(snapshot).or_default().push(name);
    })?;
    let at_home = listed.iter().map(|snapshot| snapshot.id).collect::<HashSet<_>>();
    let mut others = Vec::new();
    let acks = objects.acks.keys().copied().collect::<HashSet<_>>();
    for name in snapshots::list_names(copy)? {
        let ObjectName::Snapshot { id, .. } = name else { continue };
        objects.records.entry(id).or_default().push(name);
        if at_home.contains(&id) {
            continue;
        }
        match snapshots::read(copy, &name, &acks) {
            Ok(snapshot) => others.push(snapshot),
            Err(Error::Store(StoreError::NotFound { .. })) => {}
            Err(error) if error.is_damage() => damaged.push(Remark {
                code: error.code(),
                subject: name.to_string(),
                message: error.to_string(),
            }),
            Err(error) => return Err(error),
        }
    }
    for (id, name, outcome) in read_acks(copy, &objects, &others) {
        match outcome {
            Ok(true) => {
                acknowledged.insert(id);
            }
            Ok(false) | Err(Error::Store(StoreError::NotFound { .. })) => {}
            Err(error) if error.is_damage() => damaged.push(Remark {
                code: error.code(),
                subject: name.to_string(),
                message: error.to_string(),
            }),
            Err(error) => return Err(error),
        }
    }
    listed.extend(others);
    listed.sort_by_key(|one| (one.record.started_ms, one.name_time_ms, one.id));
    // What home has seen and lacks was warned of; it is no damage of the other copy.
    let rolled_back = Vec::new();
    Ok(Known { listed, damaged, rolled_back, objects, acknowledged })
}

/// The session of the first of these acknowledgements that holds.
///
/// # Errors
/// Failures of the store that are not damage.
pub(in crate::ops) fn acknowledged_by(
    repository: &Repository,
    names: &[ObjectName],
    snapshot: &SnapshotInfo,
) -> Result<Option<SessionId>, Error> {
    for name in names {
        match acknowledges(repository, name, snapshot) {
            Ok(Some(session)) => return Ok(Some(session)),
            Ok(None) | Err(Error::Store(StoreError::NotFound { .. })) => {}
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Calls `each` for every acknowledgement; some may come twice.
///
/// # Errors
/// Failures of the store.
pub(in crate::ops) fn list_acks(
    repository: &Repository,
    each: &mut dyn FnMut(SnapshotId, ObjectName),
) -> Result<(), Error> {
    let mut seen = HashSet::new();
    repository.store().list(Folder::Acks, &mut |name, _| {
        if let ObjectName::Ack { snapshot, .. } = name
            && seen.insert(name)
        {
            each(snapshot, name);
        }
        Ok(())
    })?;
    Ok(())
}

/// Snapshots that are acknowledged, still, and not listed.
fn missing(repository: &Repository, objects: &Objects) -> Result<Vec<SnapshotId>, Error> {
    let mut missing = Vec::new();
    for (id, names) in objects.acks.iter().filter(|(id, _)| !objects.records.contains_key(*id)) {
        for name in names {
            match repository.store().size(name) {
                // Forgotten by somebody else meanwhile.
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    missing.push(*id);
                    break;
                }
            }
        }
    }
    missing.sort_unstable();
    Ok(missing)
}

/// Opens the acknowledgements of these snapshots and tells whether they hold.
fn read_acks(
    repository: &Repository,
    objects: &Objects,
    listed: &[SnapshotInfo],
) -> Vec<(SnapshotId, ObjectName, Result<bool, Error>)> {
    let pairs = listed
        .iter()
        .flat_map(|snapshot| {
            let names = objects.acks.get(&snapshot.id).into_iter().flatten();
            names.map(move |name| (snapshot, *name))
        })
        .collect::<Vec<_>>();
    pairs
        .into_par_iter()
        .map(|(snapshot, name)| {
            let session = acknowledges(repository, &name, snapshot);
            (snapshot.id, name, session.map(|session| session.is_some()))
        })
        .collect()
}

/// The session of an acknowledgement, if it is by somebody who may give it (SPEC section 8.3).
fn acknowledges(
    repository: &Repository,
    name: &ObjectName,
    snapshot: &SnapshotInfo,
) -> Result<Option<SessionId>, Error> {
    let signed = repository.read_signed(Kind::Ack, name, RECORD_BYTES_MAX)?;
    let ack = Ack::decode(&signed.record).map_err(Error::format(name))?;
    let trust = &repository.vault().trust;
    trust.check_not_revoked(&signed.writer, ack.time_ms).map_err(Error::sealed(name))?;
    if ack.snapshot != snapshot.id {
        return Err(Error::Hash { object: name.to_string() });
    }
    let may = match signed.writer.role {
        Role::Owner | Role::Maintainer => true,
        Role::Writer => snapshot.record.remade.is_none() && signed.writer.id == snapshot.writer,
        Role::Reader => false,
    };
    Ok(may.then_some(ack.session))
}

/// What dates are judged by.
pub(super) struct Evidence<'a> {
    /// The snapshots.
    pub known: &'a Known,
    /// What this host has seen before.
    pub seen: &'a Seen,
    /// When the store took records of writers' keys, of which some were not seen before.
    pub taken: &'a Taken,
    /// This host's clock.
    pub now_ms: i64,
}

impl Evidence<'_> {
    /// Whether each snapshot counts.
    pub(super) fn standings(&self) -> HashMap<SnapshotId, Standing> {
        let behind = self.behind_their_predecessors();
        let late = self.taken_late();
        let latest_ms = self.now_ms.saturating_add(CLOCK_SKEW_MS);
        let standing = |snapshot: &SnapshotInfo| {
            if !self.known.acknowledged.contains(&snapshot.id) {
                Standing::Unacknowledged
            } else if snapshot.record.finished_ms > latest_ms {
                Standing::Doubtful(Doubt::Future)
            } else if behind.contains(&snapshot.id) {
                Standing::Doubtful(Doubt::Backwards)
            } else if late.contains(&snapshot.id) || self.seen.is_late(snapshot) {
                Standing::Doubtful(Doubt::Late)
            } else {
                Standing::Acknowledged
            }
        };
        self.known.listed.iter().map(|snapshot| (snapshot.id, standing(snapshot))).collect()
    }

    /// Snapshots of writers' keys that this host has not seen before, and that the store took after it
    /// had taken some that are dated after them.
    fn taken_late(&self) -> HashSet<SnapshotId> {
        let latest_ms = self.now_ms.saturating_add(CLOCK_SKEW_MS);
        let mut by_writer = HashMap::<WriterId, Vec<(i64, &SnapshotInfo)>>::new();
        for snapshot in self.known.listed.iter().filter(|one| one.record.remade.is_none()) {
            if let Some(taken_ms) = self.taken.get(&snapshot.id) {
                by_writer.entry(snapshot.namespace).or_default().push((*taken_ms, snapshot));
            }
        }
        let mut late = HashSet::new();
        for mut members in by_writer.into_values() {
            members.sort_by_key(|(taken_ms, _)| *taken_ms);
            let (mut newest_ms, mut before) = (i64::MIN, members.iter().peekable());
            for (taken_ms, snapshot) in &members {
                let long_before = |one: &&(i64, _)| one.0.saturating_add(TAKEN_LATE_MS) < *taken_ms;
                while let Some((their_ms, other)) = before.next_if(long_before) {
                    let date_ms = other.record.finished_ms;
                    // What was dated ahead of the store's clock tells nothing.
                    if date_ms <= latest_ms.min(their_ms.saturating_add(CLOCK_SKEW_MS)) {
                        newest_ms = newest_ms.max(date_ms);
                    }
                }
                let date_ms = snapshot.record.finished_ms;
                if date_ms < newest_ms.saturating_sub(CLOCK_SKEW_MS)
                    && !self.seen.snapshots.contains(&snapshot.id)
                {
                    late.insert(snapshot.id);
                }
            }
        }
        late
    }

    /// Snapshots dated before one that their writer made earlier, by the chain of field 16. Only
    /// the same writer's predecessors count, and none in the future.
    fn behind_their_predecessors(&self) -> HashSet<SnapshotId> {
        let latest_ms = self.now_ms.saturating_add(CLOCK_SKEW_MS);
        let former = self.known.listed.iter();
        let former = former.flat_map(|one| one.former().iter().map(move |id| (*id, one)));
        let own = self.known.listed.iter().map(|one| (one.id, one));
        // An id that an erasure replaced stands for the new snapshot, where the old one is gone.
        let by_id = former.chain(own).collect::<HashMap<_, _>>();
        // The newest date of each snapshot and its predecessors.
        let mut newest_ms = HashMap::<SnapshotId, i64>::new();
        let mut behind = HashSet::new();
        for snapshot in &self.known.listed {
            let (mut chain, mut next) = (Vec::new(), Some(snapshot));
            while let Some(one) = next.filter(|one| !newest_ms.contains_key(&one.id)) {
                // Hashes cannot name each other in a circle; if they did, this would end it.
                newest_ms.insert(one.id, i64::MIN);
                chain.push(one);
                let previous = one.record.previous.and_then(|id| by_id.get(&id).copied());
                next = previous.filter(|previous| previous.writer == one.writer);
            }
            let mut high_ms = next.and_then(|one| newest_ms.get(&one.id).copied());
            for one in chain.into_iter().rev() {
                let time_ms = one.record.finished_ms;
                if high_ms.is_some_and(|high| time_ms.saturating_add(CLOCK_SKEW_MS) < high) {
                    behind.insert(one.id);
                }
                if time_ms <= latest_ms {
                    high_ms = Some(high_ms.map_or(time_ms, |high| high.max(time_ms)));
                }
                newest_ms.insert(one.id, high_ms.unwrap_or(i64::MIN));
            }
        }
        behind
    }
}

/// When the store took records, by its own account, milliseconds since 1970. What a writer dates back
/// it can only put now.
pub(super) type Taken = HashMap<SnapshotId, i64>;

/// How much later than a newer one of its writer a record must have been taken to have been dated back,
/// milliseconds: records that were copied to where they are were all taken in about that time.
const TAKEN_LATE_MS: i64 = 60 * 60 * 1_000;

/// Asks the store when it took the records of writers' keys, where this host sees some of them for the
/// first time and so cannot tell by itself whether they are late.
///
/// # Errors
/// Failures of the store.
pub(super) fn look_when_taken(
    repository: &Repository,
    known: &Known,
    seen: &Seen,
) -> Result<Taken, Error> {
    let by_writers = known.listed.iter().filter(|one| one.namespace != NAMESPACE_TRUSTED);
    let by_writers = by_writers.collect::<Vec<_>>();
    let new = by_writers.iter().filter(|one| !seen.snapshots.contains(&one.id));
    let new = new.map(|one| one.namespace).collect::<HashSet<_>>();
    let concerned = by_writers.into_iter().filter(|one| new.contains(&one.namespace));
    let concerned = concerned.collect::<Vec<_>>();
    let store = repository.store();
    let looked = together::map(store, &concerned, |one| {
        let name = one.name();
        (one.id, store.taken_ms(&name))
    });
    let mut taken = Taken::new();
    for (id, taken_ms) in looked {
        match taken_ms {
            Ok(taken_ms) => taken.extend(taken_ms.map(|taken_ms| (id, taken_ms))),
            // Forgotten beside this, or of the other copy.
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(taken)
}

/// Name under which [`Seen`] is kept in the local index.
const SEEN_NAME: &str = "retention/seen";

/// Snapshots of writers' keys that this host has seen, and how new they were. What appears later
/// with an older date was dated back, or held back by the store. Kept in the cache: without it there
/// is only what the store says ([`Taken`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    newest_ms: BTreeMap<WriterId, i64>,
    snapshots: HashSet<SnapshotId>,
}

impl Seen {
    /// What this host remembers; nothing if it cannot be understood.
    ///
    /// # Errors
    /// Failures of the cache.
    pub(super) fn load(catalog: &Catalog) -> Result<Self, Error> {
        let bytes = catalog.index().meta_get(SEEN_NAME)?.unwrap_or_default();
        Ok(Self::decode(&bytes).unwrap_or_default())
    }

    /// Remembers it.
    ///
    /// # Errors
    /// Failures of the cache.
    pub(super) fn save(&self, catalog: &Catalog) -> Result<(), Error> {
        Ok(catalog.index().meta_put(SEEN_NAME, &self.encode())?)
    }

    /// Adds what is there now, but for dates that are not believed.
    pub(super) fn update(
        &mut self,
        listed: &[SnapshotInfo],
        standings: &HashMap<SnapshotId, Standing>,
    ) {
        for snapshot in listed.iter().filter(|one| one.namespace != NAMESPACE_TRUSTED) {
            if standings.get(&snapshot.id) == Some(&Standing::Acknowledged) {
                let newest_ms = self.newest_ms.entry(snapshot.namespace).or_insert(i64::MIN);
                *newest_ms = (*newest_ms).max(snapshot.record.finished_ms);
                self.snapshots.insert(snapshot.id);
            }
        }
    }

    /// The same without snapshots that are gone.
    pub(super) fn without(&self, gone: &[SnapshotId]) -> Self {
        let mut rest = self.clone();
        for id in gone {
            rest.snapshots.remove(id);
        }
        rest
    }

    fn is_late(&self, snapshot: &SnapshotInfo) -> bool {
        let newest_ms = self.newest_ms.get(&snapshot.namespace);
        snapshot.namespace != NAMESPACE_TRUSTED
            // An owner or maintainer vouches for the date of what was made anew.
            && snapshot.record.remade.is_none()
            && !self.snapshots.contains(&snapshot.id)
            && newest_ms.is_some_and(|newest| {
                snapshot.record.finished_ms < newest.saturating_sub(CLOCK_SKEW_MS)
            })
    }

    /// `u8 1`, u32 number of writers, each id and i64; then the snapshots' ids.
    fn encode(&self) -> Vec<u8> {
        let writers = u32::try_from(self.newest_ms.len()).unwrap_or(u32::MAX);
        let mut bytes = vec![1];
        bytes.extend(writers.to_le_bytes());
        for (writer, newest_ms) in &self.newest_ms {
            bytes.extend(writer.as_bytes());
            bytes.extend(newest_ms.to_le_bytes());
        }
        for snapshot in &self.snapshots {
            bytes.extend(snapshot.as_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (writers, mut rest) = rest.split_first_chunk()?;
        let mut seen = Self::default();
        if *version != 1 {
            return None;
        }
        for _ in 0..u32::from_le_bytes(*writers) {
            let (writer, after) = rest.split_first_chunk::<{ WriterId::LEN }>()?;
            let (newest_ms, after) = after.split_first_chunk()?;
            seen.newest_ms.insert(WriterId::from_bytes(*writer), i64::from_le_bytes(*newest_ms));
            rest = after;
        }
        let (ids, torn) = rest.as_chunks::<{ SnapshotId::LEN }>();
        seen.snapshots = ids.iter().map(|id| SnapshotId::from_bytes(*id)).collect();
        torn.is_empty().then_some(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_remembered_and_nonsense_is_nothing() {
        let seen = Seen {
            newest_ms: [(WriterId::from_bytes([3; 16]), -7), (WriterId::from_bytes([4; 16]), 9)]
                .into(),
            snapshots: [SnapshotId::from_bytes([5; 32]), SnapshotId::from_bytes([6; 32])].into(),
        };
        let bytes = seen.encode();
        assert_eq!(Seen::decode(&bytes), Some(seen));
        for end in [0, 1, 4, 20, bytes.len() - 1] {
            assert_eq!(Seen::decode(&bytes[..end]), None, "{end}");
        }
        let mut other = bytes.clone();
        other[0] = 2;
        assert_eq!(Seen::decode(&other), None);
        assert_eq!(Seen::decode(&[1, 255, 255, 255, 255]), None);
    }
}
