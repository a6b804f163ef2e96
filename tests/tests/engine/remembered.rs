//! Goal: tombs and receipts are read from the store once for each host, and what this host remembers of
//! them says neither more nor less than the store: a list of a folder decides what counts.
//! Method: collections and backups of hosts that keep their cache, over a store that notes its calls;
//! tombs and receipts taken away and damaged, what is remembered falsified, a signer revoked.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cairn_engine::index::catalog::Catalog;
use cairn_engine::ops::erasure::{self, ErasureOptions};
use cairn_engine::ops::gc::{self, GcOptions, GcReport};
use cairn_engine::repo::{Repository, Vault};
use cairn_engine::store::Store;
use cairn_engine::store::fault::{FaultStore, Plan};
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::record::CallKind;
use cairn_format::ids::PackId;
use cairn_format::names::{Folder, ObjectName, PackKind};
use cairn_tests::garbage::{Scene, everything, forget};
use cairn_tests::lab::{OWNER, back_up, object};
use cairn_tests::seed::noise;
use cairn_tests::tree;

type Noting = FaultStore<MemoryStore>;

fn noting(scene: &Scene) -> Noting {
    FaultStore::new(scene.store.clone(), Plan::new())
}

/// What was read of a folder.
fn read(store: &Noting, folder: Folder) -> Vec<ObjectName> {
    let gets = store.calls().into_iter().filter(|call| call.kind == CallKind::Get);
    gets.filter_map(|call| call.name).filter(|name| name.folder() == Some(folder)).collect()
}

fn all(scene: &Scene, folder: Folder) -> BTreeSet<ObjectName> {
    let names = scene.store.names().into_iter();
    names.filter(|name| name.folder() == Some(folder)).collect()
}

/// Another host makes something dead, and collects it.
fn make_another_tomb(scene: &Scene, number: u64) {
    let other = scene.lab.open(&scene.store, "other");
    std::fs::write(scene.source.join("going"), noise(900_000, number)).expect("a file");
    tree::settle(&scene.source);
    let gone = back_up(&other, &scene.source).expect("a backup").snapshot.expect("a snapshot");
    forget(&other, &scene.store, &gone);
    let report = gc::run(&other, &everything()).expect("it collects");
    assert!(report.packs_deleted > 0, "{report:?}");
}

/// A collection by a host, which remembers what it has read, and what was read for it.
fn collect(scene: &Scene, cache: &str) -> (GcReport, Noting) {
    let store = noting(scene);
    let report = gc::run(&scene.lab.open(&store, cache), &everything()).expect("it collects");
    (report, store)
}

fn condemned(repository: &Repository) -> HashMap<PackId, PackKind> {
    repository.catalog().expect("an index").condemned()
}

#[test]
fn tombs_and_receipts_are_read_once_by_each_host() {
    let scene = Scene::new(800);
    for number in 1..4 {
        make_another_tomb(&scene, number);
    }
    let (tombs, receipts) = (all(&scene, Folder::Tombs), all(&scene, Folder::Receipts));
    assert!(tombs.len() >= 3 && receipts.len() >= 3, "{tombs:?} {receipts:?}");
    let (_, store) = collect(&scene, "host");
    let first = read(&store, Folder::Tombs);
    assert!(first.len() >= tombs.len(), "{first:?}");
    assert_eq!(read(&store, Folder::Receipts).len(), receipts.len());

    // What others have added since, and that only.
    make_another_tomb(&scene, 4);
    let new = |folder, before: &BTreeSet<ObjectName>| {
        all(&scene, folder).difference(before).copied().collect::<BTreeSet<_>>()
    };
    let (new_tombs, new_receipts) = (new(Folder::Tombs, &tombs), new(Folder::Receipts, &receipts));
    let (_, store) = collect(&scene, "host");
    assert_eq!(read(&store, Folder::Tombs).into_iter().collect::<BTreeSet<_>>(), new_tombs);
    assert_eq!(read(&store, Folder::Receipts).into_iter().collect::<BTreeSet<_>>(), new_receipts);

    // A backup, a collection and whoever merely reads need none of them again.
    let store = noting(&scene);
    std::fs::write(scene.source.join("more"), noise(100_000, 9)).expect("a file");
    back_up(&scene.lab.open(&store, "host"), &scene.source).expect("a backup");
    assert_eq!(read(&store, Folder::Tombs), []);
    let (_, store) = collect(&scene, "host");
    assert_eq!((read(&store, Folder::Tombs), read(&store, Folder::Receipts)), (vec![], vec![]));
    let here = condemned(&scene.lab.open(&noting(&scene), "host"));

    // What is condemned is the same for a host that knows nothing, and for one whose cache was lost.
    let store = noting(&scene);
    assert_eq!(condemned(&scene.lab.open(&store, "fresh")), here);
    assert_eq!(read(&store, Folder::Tombs).len(), all(&scene, Folder::Tombs).len());
    std::fs::remove_dir_all(scene.lab.cache("host")).expect("removed");
    let store = noting(&scene);
    assert_eq!(condemned(&scene.lab.open(&store, "host")), here);
    assert_eq!(read(&store, Folder::Tombs).len(), all(&scene, Folder::Tombs).len());
}

#[test]
fn what_is_not_listed_does_not_count_and_is_forgotten() {
    let scene = Scene::new(801);
    make_another_tomb(&scene, 1);
    collect(&scene, "host");
    let before = condemned(&scene.lab.open(&scene.store, "host"));
    assert!(!before.is_empty());
    let tombs = all(&scene, Folder::Tombs);
    let kept = tombs.iter().map(|name| (*name, object(&scene.store, name))).collect::<Vec<_>>();
    tombs.iter().for_each(|name| scene.store.delete(name).expect("deleted"));
    let host = scene.lab.open(&scene.store, "host");
    assert_eq!(condemned(&host), HashMap::new());
    let remembered = host.catalog().expect("an index").index().object_keys(b"tombs/");
    assert_eq!(remembered.expect("keys"), Vec::<Vec<u8>>::new());
    drop(host);
    // It was forgotten: what comes back is read.
    kept.into_iter().for_each(|(name, bytes)| scene.store.overwrite(name, bytes));
    let store = noting(&scene);
    assert_eq!(condemned(&scene.lab.open(&store, "host")), before);
    assert_eq!(read(&store, Folder::Tombs).into_iter().collect::<BTreeSet<_>>(), tombs);

    let receipts = all(&scene, Folder::Receipts);
    receipts.iter().for_each(|name| scene.store.delete(name).expect("deleted"));
    let (report, _) = collect(&scene, "host");
    // What was condemned and is gone has no receipt any more, and gets one.
    assert_eq!(report.receipts.len(), 1, "{report:?}");
    let host = scene.lab.open(&scene.store, "host");
    let remembered = host.catalog().expect("an index").index().object_keys(b"receipts/");
    assert_eq!(remembered.expect("keys"), Vec::<Vec<u8>>::new());
}

#[test]
fn what_is_remembered_falsely_counts_as_not_remembered() {
    let scene = Scene::new(802);
    make_another_tomb(&scene, 1);
    collect(&scene, "host");
    let host = scene.lab.open(&scene.store, "host");
    let truth = condemned(&host);
    let index = host.catalog().expect("an index").index();
    let keys = index.object_keys(b"tombs/").expect("keys");
    let values = keys.iter().map(|key| index.get_object(key).expect("a value").expect("a value"));
    let values = values.collect::<Vec<_>>();
    // The longest names packs.
    let long = (0..keys.len()).max_by_key(|number| values[*number].len()).expect("a tomb");
    let mut falsified = Vec::new();
    for at in [0, values[long].len() / 2, values[long].len() - 1] {
        let mut value = values[long].clone();
        value[at] ^= 1;
        falsified.push(value);
    }
    // What is true of another one; less than what it says; nothing.
    falsified.push(values[(long + 1) % values.len()].clone());
    falsified.push(values[long][..values[long].len() - 33].to_vec());
    falsified.push(Vec::new());
    drop(host);
    for value in falsified {
        let host = scene.lab.open(&scene.store, "host");
        let index = host.catalog().expect("an index").index();
        index.put_objects(&[(keys[long].clone(), Some(value))]).expect("written");
        drop(host);
        let store = noting(&scene);
        assert_eq!(condemned(&scene.lab.open(&store, "host")), truth);
        assert_eq!(read(&store, Folder::Tombs).len(), 1, "{:?}", read(&store, Folder::Tombs));
    }
}

#[test]
fn what_a_signer_said_who_was_revoked_is_judged_anew() {
    let scene = Scene::new(803);
    make_another_tomb(&scene, 1);
    collect(&scene, "host");
    let host = scene.lab.open(&scene.store, "host");
    assert!(!condemned(&host).is_empty());
    let vault = host.vault();
    let owner = vault.keys.signer().expect("a signer").writer_id();
    let mut trust = vault.trust.clone();
    trust.revoked.push((owner, 0));
    let revoked = Vault {
        store: Arc::clone(&vault.store),
        keys: vault.keys.clone(),
        trust,
        config: vault.config.clone(),
        cipher: vault.cipher,
        context: vault.context.clone(),
    };
    let replica = host.replicas().expect("an identity").first().copied();
    drop(host);
    let catalog = Catalog::open(&revoked, replica).expect("an index");
    assert_eq!(catalog.condemned(), HashMap::new());
}

/// A collection goes on from what this host has read; what reports is about what is there.
#[test]
fn a_report_reads_receipts_that_are_remembered() {
    let scene = Scene::new(804);
    make_another_tomb(&scene, 1);
    collect(&scene, "host");
    let receipts = all(&scene, Folder::Receipts);
    let damaged = *receipts.first().expect("a receipt");
    let mut bytes = object(&scene.store, &damaged).to_vec();
    bytes[100] ^= 1;
    scene.store.overwrite(damaged, bytes.into());
    let (_, store) = collect(&scene, "host");
    assert_eq!(read(&store, Folder::Receipts), []);
    let host = scene.lab.open(&scene.store, "host");
    let report = erasure::run(&host, &ErasureOptions::default()).expect("a report");
    assert_eq!(report.unsound.len(), 1, "{:?}", report.unsound);
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Leases that nobody ends: each collection reads them, so they go, but not by the word of a clock.
#[test]
fn leases_of_the_dead_go_when_they_were_seen_for_a_day() {
    let scene = Scene::new(805);
    let start_ms = cairn_tests::lab::TestClock::START_MS;
    let at = |days: i64, hours: i64| {
        scene.lab.clock.set_ms(start_ms + days * DAY_MS + hours * DAY_MS / 24);
    };
    let leases = || all(&scene, Folder::Leases);
    let options = GcOptions { honour_leases: true, ..everything() };
    let collect = |cache| gc::run(&scene.lab.open(&scene.store, cache), &options);
    let die = |number: u64| {
        std::fs::write(scene.source.join("more"), noise(3_000_000, number)).expect("a file");
        let plan = Plan::new().nth(CallKind::Put, 3, cairn_engine::store::fault::Fault::Crash);
        let faulty = FaultStore::new(scene.store.clone(), plan);
        let dying = scene.lab.open_alone(Arc::new(faulty), OWNER).expect("it opens");
        back_up(&dying, &scene.source).expect_err("it died");
    };
    die(1);
    let dead = leases();
    assert_eq!(dead.len(), 1);
    let mut damaged = object(&scene.store, dead.first().expect("a lease")).to_vec();
    damaged[250] ^= 1;
    let hash = cairn_format::ids::ObjectHash::from_bytes([7; 32]);
    let session = cairn_format::ids::SessionId::from_bytes([7; 16]);
    scene.store.overwrite(ObjectName::Lease { session, hash }, damaged.into());
    assert_eq!(leases().len(), 2);

    // By a clock that is years ahead nothing goes, and by the right one it still spares.
    at(3650, 0);
    collect("wrong").expect("it collects");
    assert_eq!(leases().len(), 2);
    at(0, 1);
    die(2);
    let plan = gc::plan(&scene.lab.open(&scene.store, "wrong"), &options).expect("a plan");
    assert!(plan.packs_spared > 0, "{plan:?}");
    assert_eq!(leases().len(), 3);

    // A plan removes nothing, however old they are.
    at(5, 0);
    collect("host").expect("it collects");
    at(5, 23);
    collect("host").expect("it collects");
    assert_eq!(leases().len(), 3, "not before a day is over");
    at(6, 1);
    die(3);
    gc::plan(&scene.lab.open(&scene.store, "host"), &options).expect("a plan");
    assert_eq!(leases().len(), 4);
    // Who is at work keeps its own.
    collect("host").expect("it collects");
    let left = leases();
    assert_eq!(left.len(), 1, "{left:?}");
    let plan = gc::plan(&scene.lab.open(&scene.store, "host"), &options).expect("a plan");
    assert!(plan.packs_spared > 0, "{plan:?}");
    scene.assert_kept(&scene.store, "fresh");
}
