//! Looking whether what was deleted is gone: by name, in listings, and among the older versions that
//! a place keeps. Once right after the deletion, and once more at least a day later, because a write
//! that was on its way for long can bring an object back.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use cairn_format::ids::{PackId, SessionId, SnapshotId};
use cairn_format::names::{Folder, ObjectName};
use cairn_format::receipt::{Audit, AuditMethod, AuditResult};

use super::lease::sessions_at_work;
use super::receipt::Chain;
use super::sweep::{delete, still_listed, still_there};
use crate::context::Remark;
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::repo::Vault;
use crate::store::{Keeping, Purged};

/// Time between two looks for the second to say more than the first, milliseconds.
pub const AUDIT_GAP_MS: i64 = 24 * 60 * 60 * 1_000;

/// Folders of what expires.
const FOLDERS: [Folder; 6] = [
    Folder::DataPacks,
    Folder::TreePacks,
    Folder::Index,
    Folder::Snapshots,
    Folder::Acks,
    Folder::Leases,
];

/// What was found of objects that were deleted.
#[derive(Debug, Default)]
pub struct Look {
    /// Those that are gone, as far as can be told.
    pub gone: Vec<ObjectName>,
    /// Those that are there.
    pub still: Vec<ObjectName>,
    /// Those that are not there, and of which the place keeps older versions.
    pub kept: Vec<ObjectName>,
    /// How those that are gone were looked for.
    pub audits: Vec<Audit>,
}

/// Looks for objects.
///
/// # Errors
/// Failures of the store.
pub fn look(vault: &Vault, names: BTreeSet<ObjectName>) -> Result<Look, Error> {
    let all = names.into_iter().collect::<Vec<_>>();
    if all.is_empty() {
        return Ok(Look::default());
    }
    let now_ms = || vault.context.clock.now_ms();
    let audit = |method, result| Audit { time_ms: now_ms(), method, result };
    let there = still_there(vault, &all)?;
    let mut audits = vec![audit(AuditMethod::ByName, AuditResult::Gone)];
    let listed = still_listed(vault, &all)?;
    audits.push(audit(AuditMethod::ByListing, AuditResult::Gone));
    let wanted = all.iter().copied().collect::<HashSet<_>>();
    let folders = all.iter().filter_map(ObjectName::folder).collect::<BTreeSet<_>>();
    let (mut versions, mut keeping) = (HashSet::new(), Keeping::Nothing);
    for folder in folders {
        let found = vault.store.kept(folder, &mut |name| {
            if wanted.contains(&name) {
                versions.insert(name);
            }
        })?;
        keeping = keeping.max(found);
    }
    match keeping {
        Keeping::Nothing => {}
        Keeping::Shown => audits.push(audit(AuditMethod::ByVersionListing, AuditResult::Gone)),
        Keeping::Hidden => audits.push(audit(AuditMethod::ByVersionListing, AuditResult::Unknown)),
    }
    let mut look = Look { audits, ..Look::default() };
    for name in all {
        let list = if there.contains(&name) || listed.contains(&name) {
            &mut look.still
        } else if versions.contains(&name) {
            &mut look.kept
        } else {
            &mut look.gone
        };
        list.push(name);
    }
    Ok(look)
}

/// Of which absent objects nothing need be kept, when a place keeps older versions. Somebody else may
/// have deleted what is needed, or put something in its place, and older versions are what that is
/// undone with: so they stay but of what nothing needs.
pub struct Disposable {
    /// Packs that were condemned before it was seen to that nothing needs them.
    condemned: HashSet<PackId>,
    /// Packs that nobody has named or is going to name.
    orphans: HashSet<PackId>,
    /// Records and acknowledgements of snapshots that are neither there, nor were when it was looked
    /// what is needed, nor are acknowledged.
    gone: HashSet<ObjectName>,
}

impl Disposable {
    /// What may go when nothing needs these condemned packs, every acknowledged snapshot was found
    /// complete, and these snapshots are spared whether they are there or not. `own` is the session
    /// that asks, if it has a lease.
    ///
    /// # Errors
    /// Failures of the store and the cache.
    pub fn find(
        vault: &Vault,
        catalog: &Catalog,
        condemned: HashSet<PackId>,
        mut snapshots: HashSet<SnapshotId>,
        own: Option<SessionId>,
    ) -> Result<Self, Error> {
        // Before it is looked what is there, who is at work, and what is named: of what somebody stores,
        // names and acknowledges after that a version may be kept as well when it comes to deleting
        // them, and be needed.
        let kept = kept_of_unnamed(vault, catalog)?;
        for folder in [Folder::Acks, Folder::Snapshots] {
            vault.store.list(folder, &mut |name, _| {
                if let ObjectName::Ack { snapshot: id, .. } | ObjectName::Snapshot { id, .. } = name
                {
                    snapshots.insert(id);
                }
                Ok(())
            })?;
        }
        let (mut orphans, mut gone) = (HashSet::new(), HashSet::new());
        for name in kept {
            match name {
                ObjectName::Pack(_, id) => {
                    orphans.insert(id);
                }
                ObjectName::Snapshot { id, .. } | ObjectName::Ack { snapshot: id, .. }
                    if !snapshots.contains(&id) =>
                {
                    gone.insert(name);
                }
                _ => {}
            }
        }
        if !orphans.is_empty() {
            // Who is at work no more has named what it stored.
            if sessions_at_work(vault)?.into_iter().any(|session| Some(session) != own) {
                orphans.clear();
            } else {
                catalog.sync_keeping(vault)?;
                let mut unnamed = HashSet::new();
                for id in orphans {
                    if is_unnamed(catalog, &id)? {
                        unnamed.insert(id);
                    }
                }
                orphans = unnamed;
            }
        }
        Ok(Self { condemned, orphans, gone })
    }

    /// Whether nothing need be kept of an object that is not there.
    #[must_use]
    pub fn has(&self, name: &ObjectName) -> bool {
        match name {
            // One that no segment names was left by somebody who died, and went: what is
            // acknowledged was found without it.
            ObjectName::Pack(_, id) => self.condemned.contains(id) || self.orphans.contains(id),
            ObjectName::Snapshot { .. } | ObjectName::Ack { .. } => self.gone.contains(name),
            // Packs tell what segments say, and nobody needs leases.
            ObjectName::Index(_) | ObjectName::Lease { .. } => true,
            _ => false,
        }
    }
}

/// Whether a pack is neither condemned nor named by a segment, as far as is known.
fn is_unnamed(catalog: &Catalog, id: &PackId) -> Result<bool, Error> {
    Ok(!catalog.is_condemned(id) && catalog.index().pack_number(id)?.is_none())
}

/// Records, acknowledgements, and packs without a name, of which the place keeps older versions.
fn kept_of_unnamed(vault: &Vault, catalog: &Catalog) -> Result<HashSet<ObjectName>, Error> {
    let mut kept = HashSet::new();
    for folder in [Folder::DataPacks, Folder::TreePacks, Folder::Snapshots, Folder::Acks] {
        let mut all = HashSet::new();
        let keeping = vault.store.kept(folder, &mut |name| {
            all.insert(name);
        })?;
        if keeping != Keeping::Shown {
            return Ok(HashSet::new());
        }
        for name in all {
            let counts = match &name {
                ObjectName::Pack(_, id) => is_unnamed(catalog, id)?,
                _ => true,
            };
            if counts {
                kept.insert(name);
            }
        }
    }
    Ok(kept)
}

/// Deletes what the place keeps of deleted objects of which `may_go` is true: older versions and the
/// marks of their deletion. What it may not delete is warned about.
///
/// # Errors
/// Failures of the store; those of `may_go`.
pub fn purge(
    vault: &Vault,
    may_go: &dyn Fn(&ObjectName) -> Result<bool, Error>,
) -> Result<Purged, Error> {
    let mut all = Purged::default();
    for folder in FOLDERS {
        vault.check_cancelled()?;
        // What cannot be told stays, and the failure is that of the whole.
        let failed = Cell::new(None);
        let judge = |name: &ObjectName| {
            may_go(name).unwrap_or_else(|error| {
                failed.set(Some(error));
                false
            })
        };
        all.add(&vault.store.purge(folder, &judge)?);
        if let Some(error) = failed.take() {
            return Err(error);
        }
    }
    // That locks hold is what they are for: it is told at the end, and no reason to worry.
    if all.refused > all.locked {
        vault.monitor().warn(Remark {
            code: "gc.versions",
            subject: vault.store.location(),
            message: format!(
                "it keeps {} older versions of deleted objects and refuses to delete them, {} of \
                 them because of a lock, as far as the credentials let that be seen",
                all.refused, all.locked
            ),
        });
    }
    Ok(all)
}

/// What a second look brought.
#[derive(Debug, Default)]
pub struct Audited {
    /// Receipts written.
    pub receipts: Vec<ObjectName>,
    /// Objects that were seen to be gone once more.
    pub confirmed: u64,
    /// Objects that had come back, and were deleted again.
    pub reappeared: Vec<ObjectName>,
    /// Of these, those that the store still has.
    pub still_there: Vec<ObjectName>,
}

/// Looks once more for what receipts say is gone: for what has been looked for only once and a day
/// ago, or for everything. What has come back is deleted again; new receipts say what was seen.
///
/// # Errors
/// Failures of the store.
pub fn audit_again(
    vault: &Vault,
    catalog: &Catalog,
    chain: &mut Chain,
    everything: bool,
) -> Result<Audited, Error> {
    let now_ms = vault.context.clock.now_ms();
    let due = chain.seen.iter().filter(|(_, seen)| everything || seen.is_due(now_ms));
    let due = due.map(|(name, _)| *name).collect::<BTreeSet<_>>();
    let mut audited = Audited::default();
    if due.is_empty() {
        return Ok(audited);
    }
    let mut found = look(vault, due)?;
    // A pack is deleted because it was condemned, not because a receipt names it.
    let may_go = |name: &ObjectName| match name {
        ObjectName::Pack(_, id) => catalog.is_condemned(id),
        ObjectName::Index(_) | ObjectName::Snapshot { .. } | ObjectName::Ack { .. } => true,
        _ => false,
    };
    let back = found.still.iter().chain(&found.kept).copied().filter(may_go);
    let back = back.collect::<Vec<_>>();
    if !back.is_empty() {
        for name in &back {
            vault.monitor().warn(Remark {
                code: "erasure.reappeared",
                subject: name.to_string(),
                message: "it was deleted, and has come back: it is deleted again".to_owned(),
            });
        }
        note_back(vault, chain, &found.still, AuditMethod::ByName)?;
        note_back(vault, chain, &found.kept, AuditMethod::ByVersionListing)?;
        delete(vault, &back)?;
        let back_again = back.iter().copied().collect::<BTreeSet<_>>();
        purge(vault, &|name| Ok(back_again.contains(name)))?;
        let again = look(vault, back_again)?;
        audited.receipts.extend(write(vault, chain, &again, "deleted again")?);
        audited.still_there.extend(again.still.iter().chain(&again.kept));
        audited.reappeared = back;
    }
    audited.confirmed = found.gone.len() as u64;
    found.still.clear();
    audited.receipts.extend(write(vault, chain, &found, "audit")?);
    Ok(audited)
}

/// Says of objects that receipts say are gone that they were found again, before they are deleted once
/// more: their looks begin anew. Returns them.
///
/// # Errors
/// Failures of the store.
pub fn note_back(
    vault: &Vault,
    chain: &mut Chain,
    there: &[ObjectName],
    method: AuditMethod,
) -> Result<Vec<ObjectName>, Error> {
    let was_gone = |name: &&ObjectName| chain.seen.get(*name).is_some_and(|seen| !seen.is_back);
    let back = there.iter().filter(was_gone).copied().collect::<Vec<_>>();
    let time_ms = vault.context.clock.now_ms();
    let audits = [Audit { time_ms, method, result: AuditResult::StillThere }];
    if !back.is_empty() {
        chain.write(vault, &back, &audits, "found again")?;
    }
    Ok(back)
}

/// Writes receipts for what is gone.
///
/// # Errors
/// Failures of the store.
pub fn write(
    vault: &Vault,
    chain: &mut Chain,
    look: &Look,
    note: &str,
) -> Result<Vec<ObjectName>, Error> {
    match look.gone.as_slice() {
        [] => Ok(Vec::new()),
        gone => chain.write(vault, gone, &look.audits, note),
    }
}

/// What a receipt says that was seen of the objects it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saw {
    /// They were gone, by name and in listings.
    Gone(Seen),
    /// At least one was there, at this time, milliseconds since 1970.
    There(i64),
}

impl Saw {
    /// What these audits show; nothing when they do not show enough.
    #[must_use]
    pub fn of(audits: &[Audit]) -> Option<Self> {
        let there = audits.iter().filter(|audit| audit.result == AuditResult::StillThere);
        if let Some(there_ms) = there.map(|audit| audit.time_ms).max() {
            return Some(Self::There(there_ms));
        }
        let gone = |audit: &&Audit| audit.result == AuditResult::Gone;
        let by_name = audits.iter().filter(gone).any(|one| one.method == AuditMethod::ByName);
        let listed = audits.iter().filter(gone).any(|one| one.method != AuditMethod::ByName);
        let first_ms = audits.iter().map(|audit| audit.time_ms).min()?;
        let last_ms = audits.iter().map(|audit| audit.time_ms).max()?;
        let hidden = audits.iter().any(|audit| audit.result == AuditResult::Unknown);
        let seen = Seen { first_ms, last_ms, hidden, is_back: false };
        (by_name && listed).then_some(Self::Gone(seen))
    }
}

/// When objects were seen to be gone, since they were there last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The first time, milliseconds since 1970; of one that is back, when that was seen.
    pub first_ms: i64,
    /// The last time.
    pub last_ms: i64,
    /// The place may have kept it at the last look, without showing it.
    pub hidden: bool,
    /// It was there after it had been gone, and has not been seen to be gone since.
    pub is_back: bool,
}

impl Seen {
    /// Takes account of what the next receipt says.
    pub fn add(&mut self, saw: &Saw) {
        match saw {
            // Looks before that say nothing any more.
            Saw::There(there_ms) => {
                let there_ms = *there_ms;
                *self =
                    Self { first_ms: there_ms, last_ms: there_ms, hidden: false, is_back: true };
            }
            Saw::Gone(other) if self.is_back => {
                *self = Self {
                    first_ms: self.first_ms.max(other.first_ms),
                    last_ms: self.last_ms.max(other.last_ms),
                    ..*other
                };
            }
            Saw::Gone(other) => {
                self.first_ms = self.first_ms.min(other.first_ms);
                if other.last_ms >= self.last_ms {
                    (self.last_ms, self.hidden) = (other.last_ms, other.hidden);
                }
            }
        }
    }

    /// Whether two looks, a day or more apart, found it gone, and none between them that it was there.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        !self.is_back && self.last_ms.saturating_sub(self.first_ms) >= AUDIT_GAP_MS
    }

    /// Whether a look would say more than those before.
    #[must_use]
    pub fn is_due(&self, now_ms: i64) -> bool {
        self.is_back || !self.is_confirmed() && now_ms.saturating_sub(self.first_ms) >= AUDIT_GAP_MS
    }
}

/// By name, when each was seen to be gone.
pub type SeenByName = BTreeMap<ObjectName, Seen>;
