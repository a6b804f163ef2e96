//! Goal: what was deleted is proven to be gone, what is pending is told, and what comes back is
//! deleted again (faults 10, 11, 13 and 14 of storage).
//! Method: collections over stores in memory that keep versions, hide what they keep, lie about
//! deletions or bring objects back; receipts taken away and damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::error::{Class, Error, Explain as _};
use cairn_engine::ops::erasure::{self, ErasureOptions, ErasureReport, Pending, Reason};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions};
use cairn_engine::ops::gc::{self, GcOptions, GcReport};
use cairn_engine::repo::{Repository, keys};
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::{Each, Keeping, Listing, Purged, Put, Store, StoreError};
use cairn_format::certificate::Role;
use cairn_format::names::{Folder, ObjectName};
use cairn_tests::lab::{Lab, OWNER, TestClock, back_up, new_key, object, select, verify_full};
use cairn_tests::seed::noise;
use cairn_tests::tree;
use parking_lot::Mutex;

const HOUR_MS: i64 = 3_600_000;
/// When the locks of [`Treats::Locked`] end.
const LOCKED_UNTIL_MS: i64 = TestClock::START_MS + 1_000 * HOUR_MS;

/// How a store treats what is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treats {
    /// It is gone.
    Gone,
    /// It is kept as an older version.
    Versions,
    /// The same, and versions may not be deleted.
    Locked,
    /// It is kept where nobody sees it.
    Hidden,
    /// It stays, whatever the answer says.
    Stays,
}

/// A store in memory that treats what is deleted in its own way.
#[derive(Clone, Debug)]
struct Keeper {
    inner: MemoryStore,
    treats: Treats,
    kept: Arc<Mutex<BTreeMap<ObjectName, Bytes>>>,
}

impl Keeper {
    fn kept_packs(&self) -> usize {
        self.kept.lock().keys().filter(|name| matches!(name, ObjectName::Pack(..))).count()
    }
}

impl Store for Keeper {
    fn location(&self) -> String {
        format!("keeper {:?}", self.treats)
    }

    fn is_near(&self) -> bool {
        true
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.inner.get(name, bytes_max)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        self.inner.get_range(name, offset, len)
    }

    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        self.inner.put(name, data)
    }

    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.inner.size(name)
    }

    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        self.inner.list(folder, each)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        if self.treats == Treats::Stays && matches!(name, ObjectName::Pack(..)) {
            return Ok(());
        }
        if let Ok(data) = self.inner.get(name, u64::MAX) {
            self.kept.lock().insert(*name, data);
        }
        self.inner.delete(name)
    }

    fn kept(
        &self,
        folder: Folder,
        each: &mut dyn FnMut(ObjectName),
    ) -> Result<Keeping, StoreError> {
        match self.treats {
            Treats::Gone | Treats::Stays => Ok(Keeping::Nothing),
            Treats::Hidden => Ok(Keeping::Hidden),
            Treats::Versions | Treats::Locked => {
                let kept = self.kept.lock();
                kept.keys().filter(|name| name.folder() == Some(folder)).copied().for_each(each);
                Ok(Keeping::Shown)
            }
        }
    }

    fn purge(&self, folder: Folder) -> Result<Purged, StoreError> {
        let mut kept = self.kept.lock();
        let before = kept.len() as u64;
        match self.treats {
            Treats::Versions => {
                kept.retain(|name, _| name.folder() != Some(folder));
                Ok(Purged { removed: before - kept.len() as u64, ..Purged::default() })
            }
            Treats::Locked => {
                let refused = kept.keys().filter(|name| name.folder() == Some(folder)).count();
                let refused = refused as u64;
                let locked_until_ms = (refused > 0).then_some(LOCKED_UNTIL_MS);
                Ok(Purged { refused, locked: refused, locked_until_ms, removed: 0 })
            }
            _ => Ok(Purged::default()),
        }
    }
}

struct Scene {
    lab: Lab,
    store: Keeper,
    source: PathBuf,
}

impl Scene {
    /// A repository of which a snapshot was forgotten.
    fn new(seed: u64, treats: Treats) -> Self {
        let lab = Lab::new(seed);
        let store = Keeper { inner: lab.memory(), treats, kept: Arc::default() };
        let source = lab.path("source");
        tree::small(&source, 12, seed);
        std::fs::write(source.join("going"), noise(600_000, seed)).expect("a file");
        let scene = Self { lab, store, source };
        let repository = scene.open();
        back_up(&repository, &scene.source).expect("a backup");
        std::fs::remove_file(scene.source.join("going")).expect("removed");
        std::fs::write(scene.source.join("later"), noise(200_000, seed ^ 1)).expect("a file");
        back_up(&repository, &scene.source).expect("a backup");
        scene.forget("latest~1");
        scene
    }

    fn open(&self) -> Repository {
        self.lab.open(&self.store, "cache")
    }

    fn forget(&self, name: &str) {
        let repository = self.open();
        let named = ForgetOptions::new(Choice::Named(vec![name.to_owned()]));
        let plan = forget::plan(&repository, &named).expect("a plan");
        forget::run(&repository, &plan).expect("forgotten");
    }

    fn collect(&self) -> GcReport {
        let all = GcOptions { max_delete_percent: 100.0, ..GcOptions::default() };
        gc::run(&self.open(), &all).expect("it collects")
    }

    fn report(&self, audit: bool) -> ErasureReport {
        let within = ErasureOptions { erase_within_ms: Some(72 * 3_600_000), ..Default::default() };
        let options = ErasureOptions { audit, ..within };
        erasure::run(&self.open(), &options).expect("a report")
    }

    fn later(&self, hours: i64) {
        self.lab.clock.set_ms(TestClock::START_MS + hours * HOUR_MS);
    }

    fn packs(&self) -> BTreeSet<ObjectName> {
        let names = self.store.inner.names().into_iter();
        names.filter(|name| matches!(name, ObjectName::Pack(..))).collect()
    }

    fn receipts(&self) -> Vec<ObjectName> {
        let names = self.store.inner.names().into_iter();
        names.filter(|name| matches!(name, ObjectName::Receipt { .. })).collect()
    }
}

fn find(report: &ErasureReport, reason: Reason) -> Option<Pending> {
    report.pending.iter().find(|pending| pending.reason == reason).copied()
}

fn reasons(report: &ErasureReport) -> Vec<Reason> {
    report.pending.iter().map(|pending| pending.reason).collect()
}

#[test]
fn what_is_dead_is_told_and_what_is_gone_is_confirmed_a_day_later() {
    let scene = Scene::new(400, Treats::Gone);
    let before = scene.report(false);
    let dead = find(&before, Reason::Dead).expect("dead data");
    assert!(dead.bytes > Some(500_000) && !dead.overdue, "{dead:?}");
    assert_eq!((before.receipts.len(), before.objects), (0, 0));
    // A lax collection leaves it, and some day that is too long.
    let lax = GcOptions { max_dead_percent: 100.0, ..GcOptions::default() };
    gc::run(&scene.open(), &lax).expect("it collects");
    scene.later(100);
    let late = find(&scene.report(false), Reason::Dead).map(|dead| dead.overdue);
    let left = find(&scene.report(false), Reason::Dead);
    assert!(late == Some(true) || left.is_none(), "{left:?}");
    scene.collect();
    let after = scene.report(false);
    assert!(after.pending.is_empty() && !after.is_damaged(), "{:?}", after.pending);
    assert!(after.objects > 0 && after.confirmed == 0 && after.chain.forks == 0);
    scene.later(100 + 25);
    let due = find(&scene.report(false), Reason::Unaudited).expect("a second look is due");
    assert_eq!((due.count, due.overdue), (after.objects, false));
    scene.later(100 + 24 + 80);
    assert_eq!(find(&scene.report(false), Reason::Unaudited).map(|due| due.overdue), Some(true));
    let second = scene.collect();
    assert_eq!(second.confirmed, after.objects);
    let confirmed = scene.report(false);
    assert_eq!((confirmed.confirmed, confirmed.pending.len()), (after.objects, 0));
    assert_eq!(confirmed.receipts.len(), after.receipts.len() + second.receipts.len());
    // Nothing is looked for a third time.
    assert_eq!((scene.collect().confirmed, scene.collect().receipts.len()), (0, 0));
}

/// Fault 11: a write that was on its way for long brings a deleted pack back.
#[test]
fn what_comes_back_is_found_and_deleted_again() {
    let scene = Scene::new(401, Treats::Gone);
    let before = scene.packs();
    scene.collect();
    let gone = before.difference(&scene.packs()).copied().collect::<Vec<_>>();
    let back = *gone.first().expect("a pack was deleted");
    let bytes = scene.store.kept.lock().get(&back).cloned().expect("it was there");
    scene.store.inner.overwrite(back, bytes.clone());
    let found = find(&scene.report(false), Reason::Reappeared).expect("it is found");
    assert!(found.overdue && found.count == 1 && found.bytes == Some(bytes.len() as u64));
    let receipts = scene.receipts().len();
    let audited = scene.report(true);
    let audit = audited.audited.as_ref().expect("an audit");
    assert_eq!((audit.reappeared.as_slice(), audit.still_there.len()), (&[back][..], 0));
    assert_eq!(audit.confirmed, audited.objects - 1);
    assert!(audited.pending.is_empty(), "{:?}", audited.pending);
    assert!(!scene.packs().contains(&back) && scene.receipts().len() == receipts + 2);
    // A collection does it by itself.
    scene.store.inner.overwrite(back, bytes);
    let collected = scene.collect();
    assert_eq!(collected.packs_deleted, 1);
    assert!(!scene.packs().contains(&back));
    let repository = scene.open();
    assert!(verify_full(&repository).findings.is_empty());
    assert!(select(&repository, "latest").acknowledged);
}

/// Fault 10: the store says that it deleted something, and has it still.
#[test]
fn a_deletion_that_lies_is_no_receipt_and_becomes_overdue() {
    let scene = Scene::new(402, Treats::Stays);
    let collected = scene.collect();
    assert!(!collected.still_there.is_empty() && collected.packs_deleted == 0);
    let report = scene.report(false);
    let condemned = find(&report, Reason::Condemned).expect("condemned packs");
    assert_eq!((condemned.count, condemned.overdue), (collected.still_there.len() as u64, false));
    scene.later(80);
    assert!(scene.report(false).is_overdue());
}

/// Fault 13: older versions.
#[test]
fn older_versions_are_deleted_and_looked_for() {
    let scene = Scene::new(403, Treats::Versions);
    // The forgotten snapshot is one already.
    assert!(!scene.store.kept.lock().is_empty());
    let collected = scene.collect();
    assert!(!collected.receipts.is_empty() && collected.versions_kept.is_empty());
    // But for the lease that ended after it.
    let left = scene.store.kept.lock().keys().copied().collect::<Vec<_>>();
    assert!(matches!(left.as_slice(), [] | [ObjectName::Lease { .. }]), "{left:?}");
    let report = scene.report(false);
    assert!(report.pending.is_empty(), "{:?}", report.pending);
    let methods = report.receipts.iter().map(|link| link.record.audits.len()).collect::<Vec<_>>();
    assert_eq!(methods, [3], "by name, by listing, by version");
}

#[test]
fn versions_that_are_locked_are_in_no_receipt() {
    let scene = Scene::new(404, Treats::Locked);
    let collected = scene.collect();
    assert!(!collected.versions_kept.is_empty());
    assert_eq!(collected.versions_locked_until_ms, Some(LOCKED_UNTIL_MS));
    let packs = scene.store.kept_packs() as u64;
    let report = scene.report(false);
    assert!(report.objects == 0 && packs > 0);
    let versions = find(&report, Reason::Versions).expect("versions");
    assert!(versions.count >= packs);
    // Once the lock has ended, the next collection completes it.
    let scene =
        Scene { store: Keeper { treats: Treats::Versions, ..scene.store.clone() }, ..scene };
    let collected = scene.collect();
    assert!(collected.versions_kept.is_empty() && !collected.receipts.is_empty());
    assert_eq!(collected.versions_locked_until_ms, None);
    let report = scene.report(false);
    assert!(report.objects >= packs && report.pending.is_empty(), "{:?}", report.pending);
}

/// Fault 13: soft delete that nobody can see.
#[test]
fn what_may_be_hidden_is_pending_until_it_cannot_be() {
    let scene = Scene::new(405, Treats::Hidden);
    let collected = scene.collect();
    assert!(!collected.receipts.is_empty());
    let report = scene.report(false);
    let hidden = find(&report, Reason::Hidden).expect("it may be kept");
    let week_ms = 7 * 24 * HOUR_MS;
    let until_ms = hidden.until_ms.expect("an end");
    assert!((week_ms..week_ms + HOUR_MS).contains(&(until_ms - TestClock::START_MS)));
    scene.later(8 * 24);
    assert_eq!(reasons(&scene.report(false)), [Reason::Unaudited]);
    let confirmed = scene.report(true);
    assert!(confirmed.pending.is_empty(), "{:?}", confirmed.pending);
    assert_eq!(confirmed.confirmed, confirmed.objects);
}

#[test]
fn receipts_that_are_taken_away_or_damaged_are_missed() {
    let scene = Scene::new(406, Treats::Gone);
    scene.collect();
    for hours in [30, 60] {
        scene.later(hours);
        std::fs::write(scene.source.join("later"), noise(200_000, hours.unsigned_abs()))
            .expect("a file");
        back_up(&scene.open(), &scene.source).expect("a backup");
        scene.forget("latest~1");
        scene.collect();
    }
    let whole = scene.report(false);
    assert!(whole.receipts.len() >= 3 && !whole.is_damaged());
    let names = scene.receipts();
    let second = *names.get(1).expect("a second");
    let bytes = object(&scene.store, &second);
    scene.store.inner.delete(&second).expect("deleted");
    let gap = scene.report(false);
    assert!(gap.is_damaged() && gap.chain.broken.len() == 1, "{:?}", gap.chain);
    let mut damaged = bytes.to_vec();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    scene.store.inner.overwrite(second, damaged.into());
    let unsound = scene.report(false);
    assert_eq!((unsound.unsound.len(), unsound.chain.broken.len()), (1, 1));
}

#[test]
fn readers_may_ask_and_only_maintainers_audit() {
    let scene = Scene::new(407, Treats::Gone);
    let owner = scene.open();
    for (name, role) in [("reader", Role::Reader), ("writer", Role::Writer)] {
        keys::add(&owner, &new_key(name, role)).expect("a key");
    }
    scene.collect();
    let as_key = |name: &str, audit: bool| {
        let repository = scene.lab.try_open(&scene.store, name, name).expect("it opens");
        erasure::run(&repository, &ErasureOptions { audit, ..ErasureOptions::default() })
    };
    let report = as_key("reader", false).expect("a report");
    assert!(report.objects > 0 && report.pending.is_empty(), "{:?}", report.pending);
    let refused = |outcome: Result<ErasureReport, Error>| {
        assert_eq!(outcome.err().map(|error| error.class()), Some(Class::WrongKey));
    };
    refused(as_key("reader", true));
    refused(as_key("writer", false));
    assert!(as_key(OWNER, true).is_ok());
}
