//! What is meant to be gone. That a store lists something no more does not say why: somebody removed
//! it, or the store lost it, was rolled back, or withholds it. So whoever removes snapshots or key
//! slots for good says so first, in a receipt without audits (SPEC section 8.6): signed, chained, and
//! for this copy only. Other copies go by that, and keep what is merely missing.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;

use cairn_format::ids::{ObjectHash, SlotId, SnapshotId};
use cairn_format::names::ObjectName;

use super::receipts::{self, Order, RECEIPT_NAMES_MAX, ReadReceipt, Signed};
use super::{Repository, Vault, identity};
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::objects::Said as _;
use crate::store::StoreError;

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
/// Failures of the store and the cache. Receipts that cannot be read say nothing.
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
    let index = repository.open_catalog().map(Catalog::index);
    receipts::for_each(vault, index, Order::NewestFirst, &mut |_, read| {
        repository.check_cancelled()?;
        match read {
            Ok(read) if own.contains(&read.record.replica) => {
                let subjects = read.record.deleted.iter().filter_map(Subject::of);
                found.extend(subjects.filter(|subject| wanted.contains(subject)));
            }
            Ok(_) | Err(Error::Store(StoreError::NotFound { .. })) => {}
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
        let all = found.len() == wanted.len();
        Ok(if all { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(found)
}

/// The highest sequence that names of receipts of a copy say; 0 when there is none.
///
/// # Errors
/// Failures of the store.
pub fn sequence(repository: &Repository) -> Result<u64, Error> {
    Ok(match receipts::list(repository.vault())?.last() {
        Some((ObjectName::Receipt { sequence, .. }, _)) => *sequence,
        _ => 0,
    })
}

/// The newest receipt that holds.
fn newest(vault: &Vault) -> Result<Option<(u64, ObjectHash)>, Error> {
    for (name, _) in receipts::list(vault)?.iter().rev() {
        let ObjectName::Receipt { hash, .. } = *name else { continue };
        match ReadReceipt::read(vault, name) {
            Ok(read) => return Ok(Some((read.record.sequence, hash))),
            Err(Error::Store(StoreError::NotFound { .. })) => {}
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
