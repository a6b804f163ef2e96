//! Key slots: adding, listing, removing, and finding the one a secret opens.

use std::collections::BTreeSet;

use cairn_format::certificate::Role;
use cairn_format::ids::{RepositoryId, SlotId};
use cairn_format::limits::RECORD_BYTES_MAX;
use cairn_format::names::{Folder, ObjectName};
use cairn_format::slot::{SLOT_HEAD_BYTES, SlotHead, SlotMethod};

use super::{Repository, intent, read_format};
use crate::context::{Context, Remark};
use crate::error::Error;
use crate::seal::derive::Grant;
use crate::seal::slot::{NewSlot, create_slot, open_slot};
use crate::seal::{Keys, Lock, SlotOutcome, SlotPayload, Unlock};
use crate::store::Store;

/// A key to be added.
#[derive(Debug)]
pub struct NewKey {
    /// For people, at most 63 bytes.
    pub label: String,
    /// What it may do.
    pub role: Role,
    /// What opens it.
    pub lock: Lock,
}

/// What a slot says without being opened.
#[derive(Clone, Debug)]
pub struct SlotInfo {
    /// Its id.
    pub id: SlotId,
    /// Label, role, method, creation time; `None` when it is damaged.
    pub head: Option<SlotHead>,
}

/// Lists the key slots; needs no key.
///
/// # Errors
/// [`Error::NoRepository`]; failures of the store.
pub fn list(store: &dyn Store) -> Result<Vec<SlotInfo>, Error> {
    read_format(store)?;
    list_before_format(store)
}

/// As [`list`], also of a copy that is being made.
///
/// # Errors
/// Failures of the store.
pub(crate) fn list_before_format(store: &dyn Store) -> Result<Vec<SlotInfo>, Error> {
    let mut slots = Vec::new();
    for (id, bytes) in read_slots(store)? {
        let head = bytes.as_deref().ok().and_then(|slot| {
            slot.get(..SLOT_HEAD_BYTES).and_then(|head| SlotHead::parse(head).ok())
        });
        slots.push(SlotInfo { id, head });
    }
    slots.sort_by_key(|slot| (slot.head.as_ref().map(|head| head.created_ms), slot.id));
    Ok(slots)
}

type ReadSlot = (SlotId, Result<Vec<u8>, Error>);

fn read_slots(store: &dyn Store) -> Result<Vec<ReadSlot>, Error> {
    let mut ids = Vec::new();
    store.list(Folder::Keys, &mut |name, _| {
        if let ObjectName::Key(id) = name {
            ids.push(id);
        }
        Ok(())
    })?;
    ids.sort();
    ids.dedup();
    ids.into_iter()
        .map(|id| match super::vault::read_object(store, &ObjectName::Key(id), RECORD_BYTES_MAX) {
            Ok(bytes) => Ok((id, Ok(bytes.to_vec()))),
            Err(error) if error.is_damage() => Ok((id, Err(error))),
            Err(error) => Err(error),
        })
        .collect()
}

/// Memory that trying a key slot may take, KiB: slots that ask for more are passed over.
const TRIED_MEMORY_KIB_MAX: u32 = 1 << 20;

/// Memory that trying the slot takes, KiB.
fn memory_kib(slot: &[u8]) -> u32 {
    let head = slot.get(..SLOT_HEAD_BYTES).and_then(|head| SlotHead::parse(head).ok());
    match head.map(|head| head.method) {
        Some(SlotMethod::Passphrase { costs, .. }) => costs.memory_kib,
        _ => 0,
    }
}

/// Opens the slot that the secret fits.
pub(super) fn unlock(
    store: &dyn Store,
    repository: RepositoryId,
    unlock: &Unlock,
    context: &Context,
) -> Result<SlotPayload, Error> {
    let mut tried = 0;
    let mut slots = read_slots(store)?;
    // Whoever can put objects can put a slot that costs gigabytes to try.
    slots.sort_by_key(|(_, slot)| slot.as_ref().map_or(0, |slot| memory_kib(slot)));
    for (id, slot) in slots {
        let name = ObjectName::Key(id);
        let outcome = slot.and_then(|slot| {
            let memory_kib = memory_kib(&slot);
            if memory_kib > TRIED_MEMORY_KIB_MAX {
                return Err(Error::SlotTooCostly { slot: id.short(), memory_kib });
            }
            open_slot(repository, &id, &slot, unlock).map_err(Error::sealed(name))
        });
        match outcome {
            Ok(SlotOutcome::Opened(payload)) => return Ok(*payload),
            Ok(SlotOutcome::NotThisKey) => tried += 1,
            // One bad slot must not lock out those who hold another.
            Err(error) => context.monitor.warn(Remark::of(name, &error)),
        }
    }
    let location = store.location();
    if tried == 0 {
        Err(Error::NoKeySlots { location })
    } else {
        Err(Error::WrongKey { location, slots: tried })
    }
}

/// Seals the keys that a role gets into a new slot.
pub(super) fn seal_slot(
    repository: RepositoryId,
    keys: &Keys,
    new: &NewKey,
    context: &Context,
) -> Result<Vec<u8>, Error> {
    let created_ms = context.clock.now_ms();
    let random = context.random.as_ref();
    let domains = [(0, keys.epoch())];
    let grant =
        Grant { role: new.role, domains: &domains, name: &new.label, issued_ms: created_ms };
    let payload = keys.grant(&grant, random)?;
    let slot = NewSlot { repository, created_ms, label: &new.label };
    Ok(create_slot(&slot, &payload, &new.lock, random)?)
}

/// What would be stored for a key; only an owner can make it.
///
/// # Errors
/// [`Error::Role`]; a label or costs that cannot be used.
pub fn plan_add(repository: &Repository, new: &NewKey) -> Result<Vec<u8>, Error> {
    repository.require_owner("add keys")?;
    seal_slot(repository.id(), &repository.keys, new, &repository.context)
}

/// Adds a key; only an owner can.
///
/// # Errors
/// As [`plan_add`]; failures of the store.
pub fn add(repository: &Repository, new: &NewKey) -> Result<SlotId, Error> {
    let slot = plan_add(repository, new)?;
    let id = crate::seal::slot::slot_id(&slot);
    repository.store.put(&ObjectName::Key(id), &slot)?;
    Ok(id)
}

/// Removes the slot whose id begins with `prefix`; with `dry_run` only says which. Whoever copied
/// the keys while the slot was there keeps them.
///
/// # Errors
/// [`Error::Role`], [`Error::NoSlot`], [`Error::AmbiguousSlot`], [`Error::LastOwner`].
pub fn remove(repository: &Repository, prefix: &str, dry_run: bool) -> Result<SlotInfo, Error> {
    repository.require_owner("remove keys")?;
    let slots = list(repository.store())?;
    let mut fitting =
        slots.iter().filter(|slot| slot.id.to_hex().starts_with(&prefix.to_ascii_lowercase()));
    let chosen = fitting
        .next()
        .filter(|_| !prefix.is_empty())
        .ok_or_else(|| Error::NoSlot { prefix: prefix.to_owned() })?;
    let others = fitting.count();
    if others > 0 {
        return Err(Error::AmbiguousSlot { prefix: prefix.to_owned(), count: others + 1 });
    }
    let opens_all = |slot: &SlotInfo| slot.head.as_ref().is_some_and(|h| h.role == Role::Owner);
    let owners = slots.iter().filter(|slot| opens_all(slot)).count();
    if opens_all(chosen) && owners == 1 {
        return Err(Error::LastOwner { slot: chosen.id.short() });
    }
    if !dry_run {
        let name = ObjectName::Key(chosen.id);
        // Other copies drop it by that, also where nobody remembers where they had it from.
        intent::declare(repository, &BTreeSet::from([name]))?;
        repository.store.delete(&name)?;
    }
    Ok(chosen.clone())
}
