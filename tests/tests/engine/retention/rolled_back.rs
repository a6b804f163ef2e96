//! A store that shows an older state of itself.

use cairn_engine::context::Clock as _;
use cairn_engine::error::{Class, Error, Explain as _};
use cairn_engine::ops::erase::{self, EraseOptions};
use cairn_engine::ops::erasure::{self, ErasureOptions};
use cairn_engine::ops::forget;
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::repo::Repository;
use cairn_engine::store::Store as _;
use cairn_engine::store::memory::MemoryStore;
use cairn_format::envelope::Kind;
use cairn_format::ids::{ObjectHash, SnapshotId, WriterId};
use cairn_format::names::ObjectName;
use cairn_format::record::Config;
use cairn_tests::garbage::{packs, take_away};
use cairn_tests::lab::{Lab, back_up, copy_of, object, verify_full};
use cairn_tests::seed::noise;
use cairn_tests::tree;

use super::{NOW_MS, Scene, forget_in, last, listed, named};

/// A store that shows an older state of itself is found out by a host that saw the newer one, and
/// by no other. It says so until somebody says that the snapshot is to be gone.
#[test]
fn a_series_that_ends_earlier_than_before_is_told_by_hosts_that_saw_it() {
    let (scene, _) = Scene::with_days(77, 3);
    let older = copy_of(&scene.store);
    let newest = scene.put("owner", NOW_MS + 1);
    let of_other_job = scene.put_as("owner", NOW_MS, |record| "other".clone_into(&mut record.job));
    let codes = |repository: &Repository| {
        let findings = verify_full(repository).findings.into_iter();
        let mut codes = findings.map(|one| (one.code, one.object)).collect::<Vec<_>>();
        codes.sort_unstable();
        codes
    };
    assert_eq!(codes(&scene.as_key("owner")), []);
    let rolled_back = |id: SnapshotId| ("snapshot.rolled_back", format!("snapshot {id}"));
    let owner = || scene.lab.try_open(&older, "owner", "cache-owner").expect("it opens");
    let mut both = [rolled_back(newest), rolled_back(of_other_job)];
    both.sort_unstable();
    assert_eq!(codes(&owner()), both);
    assert_eq!(codes(&owner()), both, "it goes on to say so");
    assert_eq!(codes(&scene.lab.open(&older, "fresh")), [], "who never saw it cannot tell");
    let plan = forget::plan(&owner(), &last(9)).expect("a plan");
    assert_eq!(plan.damaged.iter().filter(|one| one.code == "snapshot.rolled_back").count(), 2);
    let (plan, _) = forget_in(&owner(), &named(&[of_other_job])).expect("it is to be gone");
    assert_eq!((plan.going(), &plan.bare[..]), (1, &[of_other_job][..]));
    assert_eq!(codes(&owner()), [rolled_back(newest)]);
    // The store shows all of it again; what this host then forgets by name is not missed.
    assert_eq!(codes(&scene.as_key("owner")), []);
    scene.forget(&named(&[newest])).expect("forgotten");
    assert_eq!(codes(&scene.as_key("owner")), []);
    // Neither is what the rules let go.
    let next = scene.put("owner", NOW_MS + 2);
    assert_eq!(codes(&scene.as_key("owner")), []);
    forget_in(&scene.lab.open(&scene.store, "elsewhere"), &last(1)).expect("by another host");
    assert!(scene.listed().contains(&next));
    assert_eq!(codes(&scene.as_key("owner")), []);
}

/// The store shows a config from before a key was revoked.
#[test]
fn a_config_older_than_one_seen_before_is_told() {
    let (scene, _) = Scene::with_days(78, 1);
    let older = copy_of(&scene.store);
    let owner = scene.as_key("owner");
    let config = Config {
        generation: 2,
        revoked: vec![(WriterId::from_bytes([7; 16]), NOW_MS)],
        ..owner.config.clone()
    };
    let object = owner.seal_signed(Kind::Config, &config.encode()).expect("sealed");
    let hash = ObjectHash::from_bytes(*blake3::hash(&object).as_bytes());
    scene.store.put(&ObjectName::Config(hash), &object).expect("put");
    drop(owner);
    assert_eq!(verify_full(&scene.as_key("owner")).findings, []);
    let owner = scene.lab.try_open(&older, "owner", "cache-owner").expect("it opens");
    let findings = verify_full(&owner).findings;
    assert_eq!(findings.iter().map(|one| one.code).collect::<Vec<_>>(), ["config.rolled_back"]);
}

/// What a snapshot needs that this host has seen is not collected because the store withholds the
/// snapshot: neither by a collection nor by an erasure's, until somebody says that it is to be gone.
#[test]
fn what_a_withheld_snapshot_needs_is_collected_by_nobody_who_saw_it() {
    let lab = Lab::new(79);
    let store = lab.memory();
    let source = lab.path("source");
    tree::small(&source, 8, 79);
    for day in 0..2 {
        std::fs::write(source.join("diary"), noise(50_000, day)).expect("a file");
        back_up(&lab.open(&store, "host"), &source).expect("a backup");
    }
    std::fs::write(source.join("new"), noise(90_000, 79)).expect("a file");
    let newest = back_up(&lab.open(&store, "host"), &source).expect("a backup");
    let newest = newest.snapshot.expect("a snapshot");
    let options = GcOptions { max_delete_percent: 99.0, ..GcOptions::default() };
    let collect = |store: &MemoryStore, cache| gc::run(&lab.open(store, cache), &options);
    collect(&store, "host").expect("it collects, and has seen it");
    let withholding = copy_of(&store);
    take_away(&withholding, &newest);
    let elsewhere = copy_of(&withholding);
    let before = packs(&withholding);
    let refused = |error: Error| {
        assert_eq!((error.code(), error.class()), ("gc.rolled_back", Class::Refused), "{error}");
        let hint = error.hint().expect("a next step");
        assert!(hint.contains(&format!("cairn forget {}", newest.id.short())), "{hint}");
    };
    refused(collect(&withholding, "host").expect_err("it is refused"));
    let plan = gc::plan(&lab.open(&withholding, "host"), &options);
    refused(plan.expect_err("it is refused"));
    let named_latest = EraseOptions { snapshots: vec!["latest".to_owned()], ..Default::default() };
    let erase = EraseOptions { max_delete_percent: 99.0, ..named_latest };
    let erased = |store: &MemoryStore, cache| {
        let repository = lab.open(store, cache);
        let plan = erase::plan(&repository, &erase, None).expect("a plan");
        erase::run(&repository, &erase, plan).expect("erased")
    };
    refused(erased(&withholding, "host").uncollected.expect("it is refused"));
    assert_eq!(packs(&withholding), before);
    let collected = collect(&elsewhere, "fresh").expect("who never saw it cannot tell");
    assert!(collected.packs_deleted > 0);
    // Somebody says that it is to be gone.
    forget_in(&lab.open(&withholding, "host"), &named(&[newest.id])).expect("forgotten");
    assert!(collect(&withholding, "host").expect("it collects").packs_deleted > 0);
    // What was erased elsewhere is not missed: a receipt says so.
    collect(&store, "third").expect("it has seen it");
    erased(&store, "other");
    assert!(!listed(&store).contains(&newest.id));
    collect(&store, "third").expect("it collects");
}

/// The same goes for a snapshot that is not the newest: whoever saw it misses it, though the ones
/// after it are there.
#[test]
fn a_withheld_snapshot_in_the_midst_is_missed() {
    let lab = Lab::new(84);
    let store = lab.memory();
    let source = lab.path("source");
    tree::small(&source, 8, 84);
    let mut days = (0..3).map(|day| {
        std::fs::write(source.join("diary"), noise(50_000, day)).expect("a file");
        let report = back_up(&lab.open(&store, "host"), &source).expect("a backup");
        report.snapshot.expect("a snapshot")
    });
    let (_, withheld, _) = (days.next(), days.next().expect("a day"), days.next());
    let options = GcOptions { max_delete_percent: 99.0, ..GcOptions::default() };
    let collect = |store: &MemoryStore, cache| gc::run(&lab.open(store, cache), &options);
    collect(&store, "host").expect("it collects, and has seen it");
    let withholding = copy_of(&store);
    take_away(&withholding, &withheld);
    let withheld = withheld.id;
    let before = packs(&withholding);
    for attempt in 0..2 {
        let refused = collect(&withholding, "host").expect_err("it is refused");
        assert_eq!((refused.code(), refused.class()), ("gc.rolled_back", Class::Refused));
        let hint = refused.hint().expect("a next step");
        assert!(hint.contains(&format!("cairn forget {}", withheld.short())), "{attempt}: {hint}");
    }
    assert_eq!(packs(&withholding), before);
    let findings = verify_full(&lab.open(&withholding, "host")).findings;
    let told = findings.into_iter().map(|one| (one.code, one.object)).collect::<Vec<_>>();
    assert_eq!(told, [("snapshot.rolled_back", format!("snapshot {withheld}"))]);
    assert_eq!(verify_full(&lab.open(&store, "host")).findings, [], "it is there again");
    forget_in(&lab.open(&withholding, "host"), &named(&[withheld])).expect("forgotten");
    assert!(collect(&withholding, "host").expect("it collects").packs_deleted > 0);
    assert_eq!(verify_full(&lab.open(&withholding, "host")).findings, []);
}

/// Of two erasures that came out alike one outcome goes; a host that saw only what that was before
/// does not miss it, though the other outcome has been forgotten since.
#[test]
fn what_a_twin_of_an_erasure_was_before_is_not_missed() {
    let lab = Lab::new(83);
    let store = lab.memory();
    let source = lab.path("source");
    tree::small(&source, 8, 83);
    for name in ["one", "two"] {
        std::fs::write(source.join(name), noise(50_000, 83)).expect("a file");
    }
    tree::settle(&source);
    back_up(&lab.open(&store, "host"), &source).expect("a backup");
    let erase = |store: &MemoryStore, cache: &str, name: &str| {
        let path = source.join(name).into_os_string().into_encoded_bytes();
        let options = EraseOptions {
            paths: vec![path],
            max_delete_percent: 100.0,
            collect: false,
            ..EraseOptions::default()
        };
        let repository = lab.open(store, cache);
        let plan = erase::plan(&repository, &options, None).expect("a plan");
        erase::run(&repository, &options, plan).map(|_| ()).expect("erased");
        lab.clock.set_ms(lab.clock.now_ms() + 1_000);
    };
    let other = copy_of(&store);
    erase(&store, "first", "one");
    erase(&other, "second", "two");
    // Hosts that see one of them, and nothing after it.
    assert_eq!(verify_full(&lab.open(&store, "saw one")).findings, []);
    assert_eq!(verify_full(&lab.open(&other, "saw other")).findings, []);
    erase(&store, "first", "two");
    erase(&other, "second", "one");
    // None of them has come to its receipt, only to what it says before it deletes.
    for (store, cache) in [(&store, "first"), (&other, "second")] {
        let options = ErasureOptions { dead: false, ..ErasureOptions::default() };
        let report = erasure::run(&lab.open(store, cache), &options).expect("a report");
        for link in report.receipts.iter().filter(|link| !link.record.audits.is_empty()) {
            store.delete(&link.name).expect("deleted");
        }
    }
    for name in other.names().into_iter().filter(|name| store.size(name).is_err()) {
        store.put(&name, &object(&other, &name)).expect("put");
    }
    let both = listed(&store);
    assert_eq!(both.len(), 2);
    // One finds them alike, and the other forgets what stays.
    erase(&store, "first", "one");
    let left = listed(&store);
    assert_eq!(left.len(), 1);
    let named = forget::ForgetOptions {
        remove_last: true,
        ..named(&left.iter().copied().collect::<Vec<_>>())
    };
    forget_in(&lab.open(&store, "first"), &named).expect("forgotten");
    let options = GcOptions { max_delete_percent: 100.0, ..GcOptions::default() };
    for host in ["saw one", "saw other"] {
        gc::run(&lab.open(&store, host), &options).expect("nothing is missed");
    }
}
