//! Makes a copy of a repository, without any snapshot yet, or brings the settings and key slots of one
//! up to date.

use std::collections::BTreeSet;
use std::sync::Arc;

use cairn_format::certificate::Role;
use cairn_format::ids::{ReplicaId, SlotId};
use cairn_format::limits::RECORD_BYTES_MAX;
use cairn_format::names::{Folder, ObjectName};

use crate::context::Remark;
use crate::error::Error;
use crate::repo::intent::{self, Subject};
use crate::repo::vault::read_object;
use crate::repo::{Repository, identity, keys, read_format, read_format_bytes};
use crate::store::{Store, StoreError};

/// Key slots that were copied, and removed.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// Whether the copy was made now.
    pub(super) created: bool,
    /// Slots at home.
    pub(super) slots: Vec<SlotId>,
}

/// Makes sure that the store holds a copy of home with its settings and key slots; with `look_only`
/// nothing is changed where there is one. Before anything is changed `check` is asked about the
/// identities that are there. `format` is put last: until then there is no repository. Slots that are
/// gone at home are removed: those that came from there earlier (`known`), and those that were removed
/// there, which home's receipts say.
///
/// # Errors
/// What `check` refuses; [`Error::OtherRepository`]; [`Error::SameCopy`]; a copy of a newer format; damage of home's settings
/// or slots where a new copy would have no owner's slot; failures of either store.
pub(super) fn join(
    home: &Repository,
    store: &Arc<dyn Store>,
    known: &[String],
    look_only: bool,
    check: &dyn Fn(&[ReplicaId]) -> Result<(), Error>,
) -> Result<Joined, Error> {
    let mut joined = Joined::default();
    match store.size(&ObjectName::Format) {
        Ok(_) => refuse_others(home, store.as_ref(), look_only, check)?,
        Err(StoreError::NotFound { .. }) => joined.created = true,
        Err(error) => return Err(error.into()),
    }
    if look_only && !joined.created {
        return Ok(joined);
    }
    let mut damaged = Vec::new();
    // What is there of a copy that was never completed may be there in part.
    let anew = joined.created;
    copy_missing(home, store.as_ref(), Folder::Config, anew, &mut damaged)?;
    let slots = copy_missing(home, store.as_ref(), Folder::Keys, anew, &mut damaged)?;
    joined.slots = slots
        .iter()
        .filter_map(|name| match name {
            ObjectName::Key(id) => Some(*id),
            _ => None,
        })
        .collect();
    identity::ensure(store.as_ref(), home.id(), &home.context)?;
    if joined.created {
        // One that no owner can open by itself is none; what was damaged may be so on the way only.
        if let Some(error) = damaged.pop() {
            let slots = keys::list_before_format(store.as_ref())?;
            if !slots.iter().any(is_owner) || list(store.as_ref(), Folder::Config)?.is_empty() {
                return Err(error);
            }
        }
        // What was damaged on the way must not become the copy's.
        let (_, format) = read_format_bytes(home.store())?;
        store.put(&ObjectName::Format, &format)?;
    } else {
        drop_slots(home, store.as_ref(), &joined.slots, known)?;
    }
    Ok(joined)
}

/// Refuses what is no copy of home, and home itself.
fn refuse_others(
    home: &Repository,
    store: &dyn Store,
    look_only: bool,
    check: &dyn Fn(&[ReplicaId]) -> Result<(), Error>,
) -> Result<(), Error> {
    let (format, hash) = read_format(store)?;
    if format.repository != home.id() || hash != home.config.format_hash {
        return Err(Error::OtherRepository {
            location: store.location(),
            found: format.repository,
            expected: home.id(),
        });
    }
    let present = identity::list(store, home.id())?;
    check(&present)?;
    let mut own = identity::list(home.store(), home.id())?;
    if own.is_empty() && !look_only {
        own.push(identity::give(home.store(), home.id(), &home.context)?);
    }
    if present.iter().any(|replica| own.contains(replica)) {
        return Err(Error::SameCopy { location: store.location(), home: home.store().location() });
    }
    Ok(())
}

fn list(store: &dyn Store, folder: Folder) -> Result<BTreeSet<ObjectName>, Error> {
    let mut names = BTreeSet::new();
    store.list(folder, &mut |name, _| {
        names.insert(name);
        Ok(())
    })?;
    Ok(names)
}

/// Copies what a folder of home has and the copy lacks, or with `anew` all of it; returns what home
/// has. Objects that are damaged at home are passed over, and noted.
fn copy_missing(
    home: &Repository,
    store: &dyn Store,
    folder: Folder,
    anew: bool,
    damaged: &mut Vec<Error>,
) -> Result<BTreeSet<ObjectName>, Error> {
    let (here, there) = (list(home.store(), folder)?, list(store, folder)?);
    for name in here.iter().filter(|name| anew || !there.contains(*name)) {
        match read_object(home.store(), name, RECORD_BYTES_MAX) {
            Ok(object) => {
                store.put(name, &object)?;
            }
            Err(Error::Store(StoreError::NotFound { .. })) => {}
            Err(error) if error.is_damage() => {
                home.monitor().warn(Remark::of(name, &error));
                damaged.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(here)
}

fn is_owner(slot: &keys::SlotInfo) -> bool {
    slot.head.as_ref().is_some_and(|head| head.role == Role::Owner)
}

/// Removes slots that came from home and are gone there. Those that somebody added to the copy itself
/// stay, and so does the last one of an owner.
fn drop_slots(
    home: &Repository,
    store: &dyn Store,
    here: &[SlotId],
    known: &[String],
) -> Result<(), Error> {
    let there = keys::list(store)?;
    let extra = there.iter().map(|slot| slot.id).filter(|id| !here.contains(id));
    let (remembered, unknown) = extra.partition::<Vec<_>, _>(|id| known.contains(&id.to_hex()));
    let unknown = unknown.into_iter().map(Subject::Key).collect();
    let said = intent::declared(home, &unknown)?;
    let goes = |id: &SlotId| remembered.contains(id) || said.contains(&Subject::Key(*id));
    if !there.iter().any(|slot| is_owner(slot) && !goes(&slot.id)) {
        return Ok(());
    }
    for slot in there.iter().filter(|slot| goes(&slot.id)) {
        store.delete(&ObjectName::Key(slot.id))?;
        home.monitor().warn(Remark {
            code: "replica.key_removed",
            subject: store.location(),
            message: format!("key slot {} is gone at home, and was removed", slot.id.short()),
        });
    }
    Ok(())
}
