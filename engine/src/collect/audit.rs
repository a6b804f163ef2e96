//! Looking whether what was deleted is gone: by name, in listings, and among the older versions that
//! a place keeps. Once right after the deletion, and once more at least a day later, because a write
//! that was on its way for long can bring an object back.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use cairn_format::names::{Folder, ObjectName};
use cairn_format::receipt::{Audit, AuditMethod, AuditResult};

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

/// Deletes what the place keeps of objects that are deleted: older versions and the marks of their
/// deletion. What it may not delete is warned about.
///
/// # Errors
/// Failures of the store.
pub fn purge(vault: &Vault) -> Result<Purged, Error> {
    let mut all = Purged::default();
    for folder in FOLDERS {
        vault.check_cancelled()?;
        all.add(&vault.store.purge(folder)?);
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
        delete(vault, &back)?;
        purge(vault)?;
        let again = look(vault, back.iter().copied().collect())?;
        audited.receipts.extend(write(vault, chain, &again, "deleted again")?);
        audited.still_there.extend(again.still.iter().chain(&again.kept));
        audited.reappeared = back;
    }
    audited.confirmed = found.gone.len() as u64;
    found.still.clear();
    audited.receipts.extend(write(vault, chain, &found, "audit")?);
    Ok(audited)
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
    if look.gone.is_empty() { Ok(Vec::new()) } else { chain.write(vault, look, note) }
}

/// When objects were seen to be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The first time, milliseconds since 1970.
    pub first_ms: i64,
    /// The last time.
    pub last_ms: i64,
    /// The place may have kept it at the last look, without showing it.
    pub hidden: bool,
}

impl Seen {
    /// What the audits of a receipt show; nothing when they do not show that all is gone.
    #[must_use]
    pub fn of(audits: &[Audit]) -> Option<Self> {
        let gone = |audit: &&Audit| audit.result == AuditResult::Gone;
        let by_name = audits.iter().filter(gone).any(|one| one.method == AuditMethod::ByName);
        let listed = audits.iter().filter(gone).any(|one| one.method != AuditMethod::ByName);
        let there = audits.iter().any(|audit| audit.result == AuditResult::StillThere);
        let first_ms = audits.iter().map(|audit| audit.time_ms).min()?;
        let last_ms = audits.iter().map(|audit| audit.time_ms).max()?;
        let hidden = audits.iter().any(|audit| audit.result == AuditResult::Unknown);
        (by_name && listed && !there).then_some(Self { first_ms, last_ms, hidden })
    }

    /// Takes account of another look.
    pub fn add(&mut self, other: &Self) {
        self.first_ms = self.first_ms.min(other.first_ms);
        if other.last_ms >= self.last_ms {
            (self.last_ms, self.hidden) = (other.last_ms, other.hidden);
        }
    }

    /// Whether two looks, a day or more apart, found it gone.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.last_ms.saturating_sub(self.first_ms) >= AUDIT_GAP_MS
    }

    /// Whether a second look would say more than the first.
    #[must_use]
    pub fn is_due(&self, now_ms: i64) -> bool {
        !self.is_confirmed() && now_ms.saturating_sub(self.first_ms) >= AUDIT_GAP_MS
    }
}

/// By name, when each was seen to be gone.
pub type SeenByName = BTreeMap<ObjectName, Seen>;
