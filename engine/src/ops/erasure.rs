//! What is known of what was erased: the receipts and whether they hold together, and what is
//! pending, and why. With [`ErasureOptions::audit`] also looks once more whether what was deleted is
//! gone, and deletes what has come back.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use cairn_format::envelope::Kind;
use cairn_format::ids::PackId;
use cairn_format::limits::TOMB_BYTES_MAX;
use cairn_format::names::{Folder, ObjectName};
use cairn_format::record::Tomb;

use super::forget::evidence;
use super::gc::{self, GcOptions, GcPlan};
use crate::collect::audit::{AUDIT_GAP_MS, Audited, Disposable, audit_again};
use crate::collect::receipt::{ChainCheck, Link, read_chain};
use crate::collect::unfinished;
use crate::context::Remark;
use crate::error::Error;
use crate::index::catalog::{Catalog, list_packs};
use crate::repo::Repository;
use crate::store::Keeping;
use crate::store::lock::KeptFor;

/// How long Google keeps deleted objects unless it is told otherwise, milliseconds; taken for every
/// place that neither shows what it keeps nor says for how long.
pub const KEPT_FOR_MS_DEFAULT: u64 = 7 * 24 * 60 * 60 * 1_000;

/// What to tell.
#[derive(Clone, Copy, Debug)]
pub struct ErasureOptions {
    /// How soon what expired must be gone, milliseconds; what is pending for longer is overdue.
    /// `None`: nothing is.
    pub erase_within_ms: Option<u64>,
    /// How long the place keeps deleted objects that it does not show, milliseconds; `None`: what it
    /// says itself, else [`KEPT_FOR_MS_DEFAULT`].
    pub kept_for_ms: Option<u64>,
    /// Look once more for everything that receipts name, and write down what was seen.
    pub audit: bool,
    /// Also find out what no snapshot needs and is still stored. It takes as long as the first half
    /// of a collection.
    pub dead: bool,
}

impl Default for ErasureOptions {
    fn default() -> Self {
        Self { erase_within_ms: None, kept_for_ms: None, audit: false, dead: true }
    }
}

/// Why something that expired may still be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Snapshots of which an interrupted erasure made others, and that are still there.
    Unfinished,
    /// Data that no snapshot needs, left by a laxer collection, or not collected yet.
    Dead,
    /// Packs of sessions at work, which a collection spares.
    Spared,
    /// Packs that were found damaged, and stay while anything in them is needed.
    Damaged,
    /// Packs that are condemned and still there.
    Condemned,
    /// Objects that receipts say are gone, and that are there.
    Reappeared,
    /// Deleted objects of which the store keeps older versions.
    Versions,
    /// Deleted objects that the store may keep, without showing it.
    Hidden,
    /// Objects that were seen to be gone only once, and a day ago or more.
    Unaudited,
    /// This host's cache, while it names what is gone.
    Cache,
    /// What writers left unfinished that died, or are writing.
    Leftovers,
}

impl Reason {
    /// Stable name, for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unfinished => "unfinished",
            Self::Dead => "dead",
            Self::Spared => "spared",
            Self::Damaged => "damaged",
            Self::Condemned => "condemned",
            Self::Reappeared => "reappeared",
            Self::Versions => "versions",
            Self::Hidden => "hidden",
            Self::Unaudited => "unaudited",
            Self::Cache => "cache",
            Self::Leftovers => "leftovers",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Unfinished => "run the same `cairn erase` again",
            Self::Dead | Self::Condemned => "run `cairn gc --max-dead 0`",
            Self::Spared => "run `cairn gc --max-dead 0` when these sessions have ended",
            Self::Damaged => "run `cairn verify` and a backup that stores it anew, then `cairn gc`",
            Self::Reappeared => "run `cairn erasure report --audit`, which deletes it again",
            Self::Versions => "end the lock, or let the key delete versions; then run `cairn gc`",
            Self::Hidden => HIDDEN_HINT,
            Self::Unaudited => "run `cairn gc`, or `cairn erasure report --audit`",
            Self::Leftovers => {
                "run `cairn gc`: it removes what this host still sees half a day after it saw it first"
            }
            Self::Cache => {
                "run `cairn gc --max-dead 0` on this host while nothing else uses its cache, or `cairn cache clear`"
            }
        }
    }
}

/// Something that is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Why.
    pub reason: Reason,
    /// How many objects, or snapshots.
    pub count: u64,
    /// Their bytes, where that is known.
    pub bytes: Option<u64>,
    /// Since when, milliseconds since 1970, where that is known.
    pub since_ms: Option<i64>,
    /// When it is over by itself, milliseconds since 1970, where it is.
    pub until_ms: Option<i64>,
    /// Whether it has been so for longer than it may.
    pub overdue: bool,
}

/// What to do where it is not known whether the place keeps what is deleted.
const HIDDEN_HINT: &str = "see at the storage whether it keeps what is deleted, and for how long, and say so with --kept-for; to be told, let the key read the settings of the bucket or account";

impl Pending {
    /// What a person has to do about it.
    #[must_use]
    pub const fn hint(&self, kept_for: KeptFor) -> &'static str {
        match (self.reason, kept_for) {
            (Reason::Hidden, KeptFor::Milliseconds(_)) => {
                "soft delete keeps it that long, and nothing ends that sooner for what is deleted already; switch soft delete off at the storage if later erasures must be final at once"
            }
            (Reason::Hidden, KeptFor::Versions) => {
                "the storage keeps versions, for ever unless somebody deletes them: delete those that are not current there, by a lifecycle rule or by hand, and suspend versioning"
            }
            (reason, _) => reason.hint(),
        }
    }
}

/// What was found.
#[derive(Debug)]
pub struct ErasureReport {
    /// How long the place keeps deleted objects that it does not show, as it says or was said.
    pub kept_for: KeptFor,
    /// The receipts that hold and prove something, by sequence: without those that only say that
    /// something is meant to go.
    pub receipts: Vec<Link>,
    /// Whether each follows one that is there.
    pub chain: ChainCheck,
    /// Receipts that cannot be read, or were not signed by somebody who may.
    pub unsound: Vec<Remark>,
    /// Objects that receipts name.
    pub objects: u64,
    /// Of these, seen to be gone twice, a day or more apart, by name and in listings.
    pub confirmed: u64,
    /// What is pending, by reason.
    pub pending: Vec<Pending>,
    /// What a second look brought, if there was one.
    pub audited: Option<Audited>,
}

impl ErasureReport {
    /// Whether anything is pending for longer than it may.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.pending.iter().any(|pending| pending.overdue)
    }

    /// Whether receipts are missing or unsound.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        !self.unsound.is_empty() || !self.chain.broken.is_empty()
    }
}

/// Tells what was erased and what is pending.
///
/// # Errors
/// [`Error::Role`] for a key that cannot read, and for an audit unless it is an owner's or
/// maintainer's; failures of the store and the cache.
pub fn run(repository: &Repository, options: &ErasureOptions) -> Result<ErasureReport, Error> {
    repository.require_read("report on erasure")?;
    if options.audit {
        repository.require_collect("audit what was erased")?;
    }
    repository.monitor().stage("erasure: looking", None);
    let catalog = repository.current_catalog()?;
    let vault = repository.vault();
    // A report is about what is there, not about what this host has read of it.
    let mut chain = read_chain(vault, None)?;
    let audited = match options.audit {
        true => Some(audit_again(vault, catalog, &mut chain, true)?),
        false => None,
    };
    let kept_for = match options.kept_for_ms {
        Some(0) => KeptFor::Nothing,
        Some(kept_ms) => KeptFor::Milliseconds(kept_ms),
        None => repository.store().kept_for()?,
    };
    let inquiry =
        Inquiry { repository, catalog, options, kept_for, now_ms: vault.context.clock.now_ms() };
    let mut pending = Vec::new();
    inquiry.unfinished(&mut pending)?;
    inquiry.stored(&chain.seen, &mut pending)?;
    inquiry.receipts(&chain.seen, &mut pending)?;
    let names_gone_since_ms = catalog.names_gone_since_ms()?;
    let count = u64::from(names_gone_since_ms.is_some());
    pending.extend(inquiry.pending(Reason::Cache, count, None, names_gone_since_ms));
    let unfinished = unfinished::look(vault, catalog)?;
    let since_ms = unfinished.values().map(|one| one.since_ms).min();
    let bytes = unfinished.values().map(|one| one.bytes).sum();
    let count = unfinished.len() as u64;
    pending.extend(inquiry.pending(Reason::Leftovers, count, Some(bytes), since_ms));
    if options.dead {
        inquiry.dead(&mut pending)?;
    }
    pending.sort_by_key(|pending| pending.reason);
    let check = chain.check();
    chain.receipts.retain(|link| !link.record.audits.is_empty());
    Ok(ErasureReport {
        kept_for,
        chain: check,
        objects: chain.seen.len() as u64,
        confirmed: chain.seen.values().filter(|seen| seen.is_confirmed()).count() as u64,
        receipts: chain.receipts,
        unsound: chain.unsound,
        pending,
        audited,
    })
}

/// What the report is made with.
struct Inquiry<'a> {
    repository: &'a Repository,
    catalog: &'a Catalog,
    options: &'a ErasureOptions,
    kept_for: KeptFor,
    now_ms: i64,
}

type SeenByName = crate::collect::audit::SeenByName;

impl Inquiry<'_> {
    fn is_overdue(&self, since_ms: Option<i64>) -> bool {
        let (Some(within_ms), Some(since_ms)) = (self.options.erase_within_ms, since_ms) else {
            return false;
        };
        let within_ms = i64::try_from(within_ms).unwrap_or(i64::MAX);
        self.now_ms.saturating_sub(since_ms) > within_ms
    }

    fn pending(
        &self,
        reason: Reason,
        count: u64,
        bytes: Option<u64>,
        since_ms: Option<i64>,
    ) -> Option<Pending> {
        let overdue = self.is_overdue(since_ms);
        (count > 0).then_some(Pending { reason, count, bytes, since_ms, until_ms: None, overdue })
    }

    /// Snapshots that are there before and after an erasure.
    fn unfinished(&self, pending: &mut Vec<Pending>) -> Result<(), Error> {
        let known = evidence::gather(self.repository)?;
        let replaced = known.replaced();
        let old = known.listed.iter().filter(|one| replaced.contains_key(&one.id)).count() as u64;
        let made = known.listed.iter().filter_map(|one| one.record.remade.as_ref());
        let since_ms = made.map(|remade| remade.time_ms).min().filter(|_| old > 0);
        pending.extend(self.pending(Reason::Unfinished, old, None, since_ms));
        Ok(())
    }

    /// Packs that are there though they are condemned or were deleted, and other objects that came
    /// back.
    fn stored(&self, seen: &SeenByName, pending: &mut Vec<Pending>) -> Result<(), Error> {
        let vault = self.repository.vault();
        let present = list_packs(vault)?;
        let since = self.condemned_since()?;
        let (mut condemned, mut back) = (Vec::new(), Vec::new());
        for (id, (kind, bytes)) in &present {
            if let Some(seen) = seen.get(&ObjectName::Pack(*kind, *id)) {
                back.push((*bytes, Some(seen.first_ms)));
            } else if self.catalog.is_condemned(id) {
                condemned.push((*bytes, since.get(id).copied()));
            }
        }
        for folder in [Folder::Index, Folder::Snapshots, Folder::Acks] {
            vault.store.list(folder, &mut |name, bytes| {
                if let Some(seen) = seen.get(&name) {
                    back.push((bytes, Some(seen.first_ms)));
                }
                Ok(())
            })?;
        }
        for (reason, found) in [(Reason::Condemned, condemned), (Reason::Reappeared, back)] {
            let bytes = found.iter().map(|(bytes, _)| bytes).sum();
            let since_ms = found.iter().filter_map(|(_, since_ms)| *since_ms).min();
            let mut one = self.pending(reason, found.len() as u64, Some(bytes), since_ms);
            if let Some(one) = one.as_mut().filter(|one| one.reason == Reason::Reappeared) {
                // It was said to be gone.
                one.overdue = self.options.erase_within_ms.is_some();
            }
            pending.extend(one);
        }
        Ok(())
    }

    /// When packs were condemned.
    fn condemned_since(&self) -> Result<BTreeMap<PackId, i64>, Error> {
        let vault = self.repository.vault();
        let mut names = Vec::new();
        vault.store.list(Folder::Tombs, &mut |name, _| {
            names.push(name);
            Ok(())
        })?;
        let mut since = BTreeMap::new();
        for name in names {
            // What cannot be read was warned about when the index was brought up to date.
            let Ok(signed) = vault.read_signed(Kind::Tomb, &name, TOMB_BYTES_MAX) else { continue };
            let Ok(tomb) = Tomb::decode(&signed.record) else { continue };
            for (_, pack) in tomb.packs {
                let known = since.entry(pack).or_insert(tomb.time_ms);
                *known = (*known).min(tomb.time_ms);
            }
        }
        Ok(since)
    }

    /// What the receipts leave open.
    fn receipts(&self, seen: &SeenByName, pending: &mut Vec<Pending>) -> Result<(), Error> {
        let due = seen.values().filter(|seen| seen.is_due(self.now_ms));
        let since = due.map(|seen| seen.first_ms.saturating_add(AUDIT_GAP_MS)).collect::<Vec<_>>();
        let oldest = since.iter().copied().min();
        pending.extend(self.pending(Reason::Unaudited, since.len() as u64, None, oldest));
        let kept_ms = match self.kept_for {
            KeptFor::Nothing => 0,
            KeptFor::Milliseconds(kept_ms) => i64::try_from(kept_ms).unwrap_or(i64::MAX),
            KeptFor::Versions => i64::MAX,
            KeptFor::Unknown => i64::try_from(KEPT_FOR_MS_DEFAULT).unwrap_or(i64::MAX),
        };
        let hidden = seen
            .values()
            .filter(|seen| seen.hidden && self.now_ms.saturating_sub(seen.first_ms) < kept_ms);
        let hidden = hidden.map(|seen| seen.first_ms).collect::<Vec<_>>();
        let newest = hidden.iter().copied().max();
        let one =
            self.pending(Reason::Hidden, hidden.len() as u64, None, hidden.iter().copied().min());
        let until_ms = newest.and_then(|newest| newest.checked_add(kept_ms));
        pending.extend(one.map(|one| Pending { until_ms, ..one }));
        pending.extend(self.pending(Reason::Versions, self.versions()?, None, None));
        Ok(())
    }

    /// How many objects are gone, and needed by nothing, and kept as older versions.
    fn versions(&self) -> Result<u64, Error> {
        let (vault, store) = (self.repository.vault(), self.repository.store());
        let condemned = self.catalog.condemned().into_keys().collect();
        let disposable = Disposable::find(vault, self.catalog, condemned, HashSet::new(), None)?;
        let mut versions = 0;
        for folder in [Folder::DataPacks, Folder::TreePacks, Folder::Index, Folder::Snapshots] {
            let mut kept = HashSet::new();
            let keeping = store.kept(folder, &mut |name| {
                kept.insert(name);
            })?;
            if keeping != Keeping::Shown || kept.is_empty() {
                continue;
            }
            store.list(folder, &mut |name, _| {
                kept.remove(&name);
                Ok(())
            })?;
            for name in &kept {
                versions += u64::from(disposable.has(name));
            }
        }
        Ok(versions)
    }

    /// What no snapshot needs.
    fn dead(&self, pending: &mut Vec<Pending>) -> Result<(), Error> {
        let options = GcOptions { max_dead_percent: 0.0, ..GcOptions::default() };
        let plan: GcPlan = gc::look(self.repository, &options)?;
        let dead = plan.packs_dead + plan.packs_repacked;
        pending.extend(self.pending(
            Reason::Dead,
            dead,
            Some(plan.bytes_freed),
            plan.dead_since_ms,
        ));
        pending.extend(self.pending(Reason::Spared, plan.packs_spared, None, None));
        let mut damaged = 0;
        self.catalog.index().for_each_pack(&mut |_, _, ledger| {
            damaged += u64::from(ledger.is_some_and(|ledger| !ledger.ok));
            ControlFlow::Continue(())
        })?;
        pending.extend(self.pending(Reason::Damaged, damaged, None, None));
        Ok(())
    }
}
