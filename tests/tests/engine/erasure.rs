//! Goal: what was deleted is proven to be gone, what is pending is told, and what comes back is
//! deleted again (faults 10, 11, 13 and 14 of storage).
//! Method: collections over stores in memory that keep versions, hide what they keep, lie about
//! deletions or bring objects back; receipts taken away and damaged.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use cairn_engine::error::{Class, Error, Explain as _};
use cairn_engine::ops::erase::{self, EraseOptions};
use cairn_engine::ops::erasure::{self, ErasureOptions, ErasureReport, Pending, Reason};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions};
use cairn_engine::ops::gc::{self, GcOptions, GcReport};
use cairn_engine::repo::{Repository, keys};
use cairn_engine::store::Store as _;
use cairn_engine::store::memory::MemoryStore;
use cairn_format::certificate::Role;
use cairn_format::envelope::Cipher;
use cairn_format::names::{ObjectName, PackKind};
use cairn_tests::lab::{Lab, OWNER, TestClock, back_up, new_key, object, select, verify_full};
use cairn_tests::odd::{Deletes, LOCKED_UNTIL_MS, Odd};
use cairn_tests::seed::noise;
use cairn_tests::service::conditions;
use cairn_tests::tree;

const HOUR_MS: i64 = 3_600_000;

struct Scene {
    lab: Lab,
    memory: MemoryStore,
    store: Odd<MemoryStore>,
    source: PathBuf,
}

impl Scene {
    /// A repository of which a snapshot was forgotten.
    fn new(seed: u64, deletes: Deletes) -> Self {
        let lab = Lab::new(seed);
        let memory = lab.memory();
        let store = Odd::new(memory.clone()).deleting(deletes);
        let source = lab.path("source");
        tree::small(&source, 12, seed);
        std::fs::write(source.join("going"), noise(600_000, seed)).expect("a file");
        let scene = Self { lab, memory, store, source };
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

    /// A report that does not look what is needed.
    fn report_without_dead(&self) -> ErasureReport {
        let options = ErasureOptions { dead: false, ..ErasureOptions::default() };
        erasure::run(&self.open(), &options).expect("a report")
    }

    fn later(&self, hours: i64) {
        self.lab.clock.set_ms(TestClock::START_MS + hours * HOUR_MS);
    }

    fn packs(&self) -> BTreeSet<ObjectName> {
        let names = self.memory.names().into_iter();
        names.filter(|name| matches!(name, ObjectName::Pack(..))).collect()
    }

    fn receipts(&self) -> Vec<ObjectName> {
        let names = self.memory.names().into_iter();
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
    let scene = Scene::new(400, Deletes::Gone);
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
    let scene = Scene::new(401, Deletes::Gone);
    let before = scene.packs();
    scene.collect();
    let gone = before.difference(&scene.packs()).copied().collect::<Vec<_>>();
    let back = *gone.first().expect("a pack was deleted");
    let bytes = scene.store.deleted().remove(&back).expect("it was there");
    scene.memory.overwrite(back, bytes.clone());
    let found = find(&scene.report(false), Reason::Reappeared).expect("it is found");
    assert!(found.overdue && found.count == 1 && found.bytes == Some(bytes.len() as u64));
    let receipts = scene.receipts().len();
    let audited = scene.report(true);
    let audit = audited.audited.as_ref().expect("an audit");
    assert_eq!((audit.reappeared.as_slice(), audit.still_there.len()), (&[back][..], 0));
    assert_eq!(audit.confirmed, audited.objects - 1);
    // It was read while it was there.
    assert_eq!(reasons(&audited), [Reason::Cache]);
    assert!(!scene.packs().contains(&back) && scene.receipts().len() == receipts + 3);
    // A collection does it by itself.
    scene.memory.overwrite(back, bytes);
    let collected = scene.collect();
    assert_eq!(collected.packs_deleted, 1);
    assert!(!scene.packs().contains(&back));
    assert_eq!(reasons(&scene.report(false)), []);
    let repository = scene.open();
    assert!(verify_full(&repository).findings.is_empty());
    assert!(select(&repository, "latest").acknowledged);
}

/// Fault 10: the store says that it deleted something, and has it still.
#[test]
fn a_deletion_that_lies_is_no_receipt_and_becomes_overdue() {
    let scene = Scene::new(402, Deletes::PacksStay);
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
    let scene = Scene::new(403, Deletes::Versions);
    // The forgotten snapshot is one already.
    assert!(!scene.store.deleted().is_empty());
    let collected = scene.collect();
    assert!(!collected.receipts.is_empty() && collected.versions_kept.is_empty());
    // But for the lease that ended after it.
    let left = scene.store.deleted().into_keys().collect::<Vec<_>>();
    assert!(matches!(left.as_slice(), [] | [ObjectName::Lease { .. }]), "{left:?}");
    let report = scene.report(false);
    assert!(report.pending.is_empty(), "{:?}", report.pending);
    let methods = report.receipts.iter().map(|link| link.record.audits.len()).collect::<Vec<_>>();
    assert_eq!(methods, [3], "by name, by listing, by version");
}

#[test]
fn versions_that_are_locked_are_in_no_receipt() {
    let scene = Scene::new(404, Deletes::Locked);
    let collected = scene.collect();
    assert!(!collected.versions_kept.is_empty());
    assert_eq!(collected.versions_locked_until_ms, Some(LOCKED_UNTIL_MS));
    let is_pack = |name: &&ObjectName| matches!(name, ObjectName::Pack(..));
    let packs = scene.store.deleted().keys().filter(is_pack).count() as u64;
    let report = scene.report(false);
    assert!(report.objects == 0 && packs > 0);
    let versions = find(&report, Reason::Versions).expect("versions");
    assert!(versions.count >= packs);
    // Once the lock has ended, the next collection completes it.
    let scene = Scene { store: scene.store.clone().deleting(Deletes::Versions), ..scene };
    let collected = scene.collect();
    assert!(collected.versions_kept.is_empty() && !collected.receipts.is_empty());
    assert_eq!(collected.versions_locked_until_ms, None);
    let report = scene.report(false);
    assert!(report.objects >= packs && report.pending.is_empty(), "{:?}", report.pending);
}

/// Fault 13: soft delete that nobody can see.
#[test]
fn what_may_be_hidden_is_pending_until_it_cannot_be() {
    let scene = Scene::new(405, Deletes::Hidden);
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
    let scene = Scene::new(406, Deletes::Gone);
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
    scene.memory.delete(&second).expect("deleted");
    let gap = scene.report(false);
    assert!(gap.is_damaged() && gap.chain.broken.len() == 1, "{:?}", gap.chain);
    let mut damaged = bytes.to_vec();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    scene.memory.overwrite(second, damaged.into());
    let unsound = scene.report(false);
    assert_eq!((unsound.unsound.len(), unsound.chain.broken.len()), (1, 1));
}

#[test]
fn readers_may_ask_and_only_maintainers_audit() {
    let scene = Scene::new(407, Deletes::Gone);
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

/// The packs that the newest snapshot's content is read from.
fn needed(scene: &Scene) -> Vec<ObjectName> {
    scene.collect();
    let data = |name: &ObjectName| matches!(name, ObjectName::Pack(PackKind::Data, _));
    scene.packs().into_iter().filter(data).collect()
}

/// Somebody with a stolen key deletes what is needed: where older versions are kept it can be brought
/// back, and no collection or erasure takes that away.
#[test]
fn older_versions_of_what_is_needed_outlive_collections_and_erasures() {
    for verified in [false, true] {
        let scene = Scene::new(408, Deletes::Versions);
        let packs = needed(&scene);
        for name in ["next", "last"] {
            std::fs::write(scene.source.join(name), noise(1_000, 5)).expect("a file");
            back_up(&scene.open(), &scene.source).expect("a backup");
        }
        let pack = *packs.first().expect("a pack");
        let whole = object(&scene.memory, &pack);
        scene.store.delete(&pack).expect("a mark is put over it");
        if verified {
            let findings = verify_full(&scene.open()).findings;
            let missing = findings.iter().find(|one| one.code == "pack.missing");
            let message = &missing.expect("it is missing").message;
            assert!(message.contains("older versions"), "{message}");
        }
        // What nobody needs goes, and its versions too.
        scene.forget("latest~2");
        let all = GcOptions { max_delete_percent: 100.0, ..GcOptions::default() };
        let collected = gc::run(&scene.open(), &all);
        assert_eq!(collected.is_ok(), verified, "{collected:?}");
        assert!(find(&scene.report_without_dead(), Reason::Versions).is_none() || !verified);
        assert!(scene.store.deleted().get(&pack) == Some(&whole), "{verified}");
        // An erasure takes away what it deleted, and nothing else.
        let erase = EraseOptions { snapshots: vec!["latest".to_owned()], ..Default::default() };
        let repository = scene.open();
        let plan = erase::plan(&repository, &erase, None).expect("a plan");
        let going = plan.snapshots.iter().map(|one| one.snapshot.id).collect::<Vec<_>>();
        let report = erase::run(&repository, &erase, plan).expect("erased");
        assert!(!report.receipts.is_empty() && report.records_kept.is_empty());
        let kept = scene.store.deleted();
        let of_erased = |name: &ObjectName| matches!(name, ObjectName::Snapshot { id, .. } if going.contains(id));
        assert!(!kept.keys().any(of_erased));
        assert!(kept.get(&pack) == Some(&whole), "{verified}");
        drop(repository);
        scene.memory.overwrite(pack, whole);
        let repository = scene.open();
        assert!(verify_full(&repository).findings.is_empty());
    }
}

/// Something else of the same length is put over a pack that is needed.
#[test]
fn older_versions_of_what_was_replaced_outlive_collections() {
    let scene = Scene::new(409, Deletes::Versions);
    let packs = needed(&scene);
    std::fs::write(scene.source.join("more"), noise(300_000, 6)).expect("a file");
    back_up(&scene.open(), &scene.source).expect("a backup");
    let pack = *packs.first().expect("a pack");
    let whole = object(&scene.memory, &pack);
    scene.store.keep_version(&pack);
    scene.memory.overwrite(pack, noise(whole.len(), 7).into());
    std::fs::remove_file(scene.source.join("more")).expect("removed");
    back_up(&scene.open(), &scene.source).expect("a backup");
    scene.forget("latest~1");
    assert!(scene.collect().packs_deleted > 0);
    assert!(scene.store.deleted().get(&pack) == Some(&whole));
    let versions = find(&scene.report_without_dead(), Reason::Versions);
    assert_eq!(versions, None, "what is needed is not pending");
}

/// Without its acknowledgement a snapshot is taken for an orphan some day.
#[test]
fn the_older_version_of_a_lost_acknowledgement_stays_while_its_snapshot_is_there() {
    let scene = Scene::new(410, Deletes::Versions);
    let names = scene.memory.names();
    let ack = names.into_iter().find(|name| matches!(name, ObjectName::Ack { .. }));
    let ack = ack.expect("an acknowledgement");
    scene.store.delete(&ack).expect("a mark is put over it");
    assert!(scene.collect().packs_deleted > 0);
    assert!(scene.store.deleted().contains_key(&ack));
}

/// One look before it came back and one after are not two that found it gone.
#[test]
fn what_came_back_is_looked_for_anew() {
    for collects in [false, true] {
        let scene = Scene::new(411, Deletes::Gone);
        let before = scene.packs();
        scene.collect();
        let gone = before.difference(&scene.packs()).copied().collect::<Vec<_>>();
        let back = *gone.first().expect("a pack was deleted");
        let bytes = scene.store.deleted().remove(&back).expect("it was there");
        let objects = scene.report(false).objects;
        scene.later(30);
        scene.memory.overwrite(back, bytes);
        let reappeared = match collects {
            true => scene.collect().reappeared,
            false => scene.report(true).audited.expect("an audit").reappeared,
        };
        assert_eq!(reappeared, [back]);
        let report = scene.report(false);
        assert_eq!((report.objects, report.confirmed), (objects, objects - 1));
        assert_eq!(find(&report, Reason::Reappeared), None);
        scene.later(55);
        assert_eq!(scene.collect().confirmed, 1, "the second look since it came back");
        assert_eq!(scene.report(false).confirmed, objects);
    }
}

/// What writers that died left where objects are written under another name is told, and goes; what
/// one may be writing, and what others put there, stays.
#[test]
fn what_dead_writers_left_under_other_names_goes() {
    let lab = Lab::new(412);
    let (store, service) = conditions::service_and_way();
    let store = Arc::new(store);
    lab.init(store.as_ref(), Cipher::Aes256Gcm);
    let collect = || gc::run(&lab.open(&store, "cache"), &GcOptions::default()).expect("collects");
    let (dead, alive) = ("tmp/write-0123456789abcdef", "tmp/write-0123456789abcdee");
    let foreign = "tmp/somebody's";
    for (name, bytes) in
        [(dead, 3_000_000), (alive, 10), ("tmp/probe-00112233445566aa", 5), (foreign, 5)]
    {
        service.write(name, noise(bytes, 1));
    }
    let leftovers = || {
        let report = erasure::run(&lab.open(&store, "cache"), &ErasureOptions::default());
        find(&report.expect("a report"), Reason::Leftovers).map(|one| (one.count, one.bytes))
    };
    assert_eq!(leftovers(), Some((3, Some(3_000_015))));
    collect();
    assert_eq!(leftovers(), Some((3, Some(3_000_015))), "they may be at work");
    lab.clock.set_ms(TestClock::START_MS + 11 * HOUR_MS);
    service.write(alive, noise(11, 1));
    collect();
    assert_eq!(leftovers(), Some((3, Some(3_000_016))));
    lab.clock.set_ms(TestClock::START_MS + 13 * HOUR_MS);
    collect();
    assert_eq!(leftovers(), Some((1, Some(11))), "it grew since it was seen first");
    lab.clock.set_ms(TestClock::START_MS + 24 * HOUR_MS);
    collect();
    assert_eq!(leftovers(), None);
    assert_eq!(service.names("tmp/"), [foreign]);
}
