//! What is meant to be gone. That a store lists something no more does not say why: somebody removed
//! it, or the store lost it, was rolled back, or withholds it. So whoever removes snapshots or key
//! slots for good says so first, in a receipt without audits (SPEC section 8.6): signed, chained, and
//! for this copy only. Other copies go by that, and keep what is merely missing.

use std::collections::{BTreeSet, HashSet};

use cairn_format::ids::{ObjectHash, SlotId, SnapshotId};
use cairn_format::names::{Folder, ObjectName};

use super::{Repository, Vault, identity};
use crate::collect::receipt::{self, RECEIPT_NAMES_MAX, Signed};
use crate::error::Error;
use crate::store::{StoreError, together};

/// How often a receipt is put that the store then does not have.
const PUTS_MAX: usize = 2;
/// What such a receipt says to people.
const NOTE: &str = "meant to go";

/// What a statement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A snapshot.
    Snapshot(SnapshotId),
    /// A key slot.
    Key(SlotId),
}

impl Subject {
    const fn of(name: &ObjectName) -> Option<Self> {
        match name {
            ObjectName::Snapshot { id, .. } => Some(Self::Snapshot(*id)),
            ObjectName::Ack { snapshot, .. } => Some(Self::Snapshot(*snapshot)),
            ObjectName::Key(id) => Some(Self::Key(*id)),
            _ => None,
        }
    }
}

/// Says that these objects are meant to go from this copy. To be called before they are deleted:
/// whoever dies in between has said it, and what is there still is there.
///
/// # Errors
/// The key may not sign receipts; failures of the store, also when it does not have what it said it
/// stored.
pub fn declare(repository: &Repository, names: &BTreeSet<ObjectName>) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let vault = repository.vault();
    let replica = identity::ensure(vault.store(), vault.id(), &vault.context)?;
    let mut last = newest(vault)?;
    let names = names.iter().copied().collect::<Vec<_>>();
    for names in names.chunks(RECEIPT_NAMES_MAX) {
        let signed = Signed::new(vault, replica, last, names, &[], NOTE)?;
        put(vault, &signed.name, &signed.object)?;
        last = Some(signed.place);
    }
    Ok(())
}

/// Puts it, and looks whether it is there.
fn put(vault: &Vault, name: &ObjectName, object: &[u8]) -> Result<(), Error> {
    for attempt in 1.. {
        vault.store.put(name, object)?;
        match vault.store.size(name) {
            Ok(_) => break,
            Err(StoreError::NotFound { .. }) if attempt < PUTS_MAX => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Of these, those that somebody who may has declared to go from this copy, or that a receipt of this
/// copy says are gone.
///
/// # Errors
/// Failures of the store. Receipts that cannot be read say nothing.
pub fn declared(
    repository: &Repository,
    wanted: &HashSet<Subject>,
) -> Result<HashSet<Subject>, Error> {
    let mut found = HashSet::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    let vault = repository.vault();
    // A receipt of another copy says nothing of this one, wherever it was put.
    let own = identity::list(vault.store(), vault.id())?;
    for some in list(vault)?.chunks(together::CALLS_AT_ONCE) {
        repository.check_cancelled()?;
        for read in together::map(vault.store(), some, |name| receipt::read(vault, name)) {
            match read {
                Ok((record, _)) if own.contains(&record.replica) => {
                    let subjects = record.deleted.iter().filter_map(Subject::of);
                    found.extend(subjects.filter(|subject| wanted.contains(subject)));
                }
                Ok(_) | Err(Error::Store(StoreError::NotFound { .. })) => {}
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        if found.len() == wanted.len() {
            break;
        }
    }
    Ok(found)
}

/// The highest sequence that names of receipts of a copy say; 0 when there is none.
///
/// # Errors
/// Failures of the store.
pub fn sequence(repository: &Repository) -> Result<u64, Error> {
    Ok(match list(repository.vault())?.first() {
        Some(ObjectName::Receipt { sequence, .. }) => *sequence,
        _ => 0,
    })
}

/// The receipts, the newest first as far as their names say.
fn list(vault: &Vault) -> Result<Vec<ObjectName>, Error> {
    let mut names = BTreeSet::new();
    vault.store.list(Folder::Receipts, &mut |name, _| {
        if let ObjectName::Receipt { sequence, hash } = name {
            names.insert((sequence, hash));
        }
        Ok(())
    })?;
    let newest_first = names.into_iter().rev();
    Ok(newest_first.map(|(sequence, hash)| ObjectName::Receipt { sequence, hash }).collect())
}

/// The newest receipt that holds.
fn newest(vault: &Vault) -> Result<Option<(u64, ObjectHash)>, Error> {
    for name in list(vault)? {
        let ObjectName::Receipt { hash, .. } = name else { continue };
        match receipt::read(vault, &name) {
            Ok((record, _)) => return Ok(Some((record.sequence, hash))),
            Err(Error::Store(StoreError::NotFound { .. })) => {}
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
