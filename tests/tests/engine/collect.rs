//! Goal: a collection takes what no snapshot needs and nothing else, says so, and stops where it
//! cannot be told what is needed.
//! Method: a repository in which much is dead (`cairn_tests::garbage`), damage, and faults of the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_engine::error::{Class, Explain as _};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::snapshots;
use cairn_engine::repo::keys;
use cairn_engine::store::Store as _;
use cairn_engine::store::fault::{Fault, FaultStore, Plan};
use cairn_engine::store::record::CallKind;
use cairn_format::certificate::Role;
use cairn_format::ids::PackId;
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::pack::{ChunkRef, Codec};
use cairn_tests::compare::{assert_same_tree, look};
use cairn_tests::craft::{Craft, compress_against, entry, file};
use cairn_tests::garbage::{Scene, everything, forget, pack_bytes, packs, take_away};
use cairn_tests::lab::{
    Lab, TestClock, alone, back_up, copy_of, inside, new_key, object, select, verify_full,
};
use cairn_tests::odd::{Deletes, Odd};
use cairn_tests::seed::noise;
use cairn_tests::tree;
use parking_lot::Mutex;

#[test]
fn a_collection_frees_what_is_dead_and_says_so() {
    let scene = Scene::new(61);
    let before = pack_bytes(&scene.store);
    let report = scene.collect(&scene.store, "collector").expect("it collects");
    assert!(report.packs_deleted > 0 && report.packs_written > 0, "{report:?}");
    assert_eq!(report.receipts.len(), 1);
    assert!(pack_bytes(&scene.store) + 800_000 < before);
    scene.assert_kept(&scene.store, "fresh");
    let again = scene.collect(&scene.store, "collector").expect("it collects");
    assert_eq!((again.packs_deleted, again.packs_written), (0, 0), "{again:?}");
    assert!(again.receipts.is_empty());
    // What the deleted packs' host still has in its index does not mislead it.
    let maker = scene.lab.open(&scene.store, "maker");
    let (target, _) = scene.lab.restore(&maker, &scene.kept, false).expect("it restores");
    assert_same_tree(&scene.tree, &inside(&target, &scene.source));
    let more = back_up(&maker, &scene.source).expect("a backup");
    assert_eq!(more.statistics.bytes_new, 0, "what was copied is found");
}

/// Every object that says what is needed, damaged in turn: nothing is deleted.
#[test]
fn damage_to_what_says_what_is_needed_stops_a_collection() {
    let scene = Scene::new(63);
    let mut struck = 0;
    for name in scene.store.names() {
        let says = matches!(
            name,
            ObjectName::Snapshot { .. }
                | ObjectName::Index(_)
                | ObjectName::Pack(PackKind::Tree, _)
        );
        if !says {
            continue;
        }
        let store = copy_of(&scene.store);
        let mut bytes = object(&store, &name).to_vec();
        let middle = bytes.len() / 2;
        // A tree pack may be dead where it is struck: all of its frames are.
        let strike = if matches!(name, ObjectName::Pack(..)) {
            192..middle * 2 - 100
        } else {
            middle..middle + 1
        };
        bytes[strike].iter_mut().for_each(|byte| *byte ^= 1);
        store.overwrite(name, bytes.into());
        let before = packs(&store);
        let outcome = scene.collect(&store, &format!("cache-{struck}"));
        struck += 1;
        match outcome {
            Err(error) => {
                assert_eq!(error.class(), Class::Damage, "{name}: {error}");
                assert_eq!(packs(&store), before, "{name}: something was deleted");
            }
            // The tree of the snapshot that is gone: nobody needs it.
            Ok(_) => assert!(matches!(name, ObjectName::Pack(..)), "{name} was not missed"),
        }
    }
    assert!(struck >= 5);
}

#[test]
fn a_listing_that_lacks_snapshots_is_not_believed() {
    let scene = Scene::new(64);
    // The snapshot is gone, and its acknowledgement says that it was not forgotten.
    let store = copy_of(&scene.store);
    let of = |name: &ObjectName| matches!(name, ObjectName::Snapshot { .. });
    for name in store.names().into_iter().filter(of) {
        store.delete(&name).expect("deleted");
    }
    let before = packs(&store);
    let error = scene.collect(&store, "one").expect_err("it must stop");
    assert_eq!(error.class(), Class::Damage, "{error}");
    assert_eq!(packs(&store), before);
    // Both listings are empty: nothing is deleted without being told twice.
    let store = copy_of(&scene.store);
    take_away(&store, &scene.kept);
    let options = GcOptions { max_delete_percent: 99.0, ..everything() };
    let repository = scene.lab.open(&store, "two");
    let error = gc::run(&repository, &options).expect_err("it must refuse");
    assert_eq!(error.class(), Class::Refused, "{error}");
    assert_eq!(packs(&store), before);
}

#[test]
fn a_pack_that_the_store_does_not_list_stops_a_collection() {
    let scene = Scene::new(65);
    let hidden = packs(&scene.store).into_iter().next().expect("a pack");
    let bytes = object(&scene.store, &hidden);
    scene.store.delete(&hidden).expect("deleted");
    let before = packs(&scene.store);
    let error = scene.collect(&scene.store, "one").expect_err("it must stop");
    assert_eq!(error.class(), Class::Damage, "{error}");
    assert_eq!(packs(&scene.store), before);
    scene.store.overwrite(hidden, bytes);
    scene.collect(&scene.store, "one").expect("it collects");
    scene.assert_kept(&scene.store, "fresh");
}

#[test]
fn a_damaged_tomb_stops_collections_and_backups_but_no_restore() {
    let scene = Scene::new(66);
    scene.collect(&scene.store, "one").expect("it collects");
    let is_tomb = |name: &ObjectName| matches!(name, ObjectName::Tomb { .. });
    let tomb = scene.store.names().into_iter().find(is_tomb).expect("a tomb");
    let mut bytes = object(&scene.store, &tomb).to_vec();
    bytes[250] ^= 1;
    scene.store.overwrite(tomb, bytes.into());
    let error = scene.collect(&scene.store, "two").expect_err("it must stop");
    assert_eq!(error.class(), Class::Damage, "{error}");
    let repository = scene.lab.open(&scene.store, "three");
    let error = back_up(&repository, &scene.source).expect_err("it must stop");
    assert_eq!(error.class(), Class::Damage, "{error}");
    drop(repository);
    scene.assert_kept(&scene.store, "four");
}

#[test]
fn a_delete_that_lies_is_found_out_and_gets_no_receipt() {
    let scene = Scene::new(67);
    let lies = Odd::new(scene.store.clone()).deleting(Deletes::Stays);
    let report = scene.collect(&lies, "one").expect("it runs");
    assert!(!report.still_there.is_empty() && report.receipts.is_empty(), "{report:?}");
    assert_eq!(report.packs_deleted, 0);
    // The next one, on a store that does as it says, completes it.
    let report = scene.collect(&scene.store, "two").expect("it collects");
    assert!(report.packs_deleted > 0 && report.still_there.is_empty(), "{report:?}");
    assert_eq!(report.receipts.len(), 1);
    scene.assert_kept(&scene.store, "fresh");
}

#[test]
fn packs_that_come_back_are_deleted_again_and_relied_on_by_nobody() {
    let scene = Scene::new(68);
    let old = packs(&scene.store).into_iter().map(|name| (name, object(&scene.store, &name)));
    let old = old.collect::<Vec<_>>();
    scene.collect(&scene.store, "one").expect("it collects");
    let left = packs(&scene.store);
    for (name, bytes) in &old {
        scene.store.overwrite(*name, bytes.clone());
    }
    std::fs::write(scene.source.join("going"), noise(900_000, 68 ^ 1)).expect("a file");
    let repository = scene.lab.open(&scene.store, "writer");
    let backed_up = back_up(&repository, &scene.source).expect("a backup");
    assert!(backed_up.statistics.bytes_new >= 900_000, "it relies on what came back");
    drop(repository);
    let report = scene.collect(&scene.store, "two").expect("it collects");
    assert_eq!(
        report.packs_deleted as usize,
        old.iter().filter(|(name, _)| !left.contains(name)).count()
    );
    assert_eq!(report.receipts.len(), 1);
    scene.assert_kept(&scene.store, "fresh");
}

#[test]
fn sessions_at_work_are_spared_and_the_dead_only_for_a_day() {
    let scene = Scene::new(69);
    scene.collect(&scene.store, "one").expect("it collects");
    std::fs::write(scene.source.join("more"), noise(3_000_000, 9)).expect("a file");
    // It dies when its packs are durable, before any segment names them.
    let plan = Plan::new().nth(CallKind::Put, 3, Fault::Crash);
    let faulty = FaultStore::new(scene.store.clone(), plan);
    back_up(&scene.lab.open(&faulty, "dying"), &scene.source).expect_err("it died");
    let before = packs(&scene.store);
    let options = GcOptions { honour_leases: true, ..everything() };
    let report = gc::run(&scene.lab.open(&scene.store, "two"), &options).expect("it collects");
    assert!(report.plan.packs_spared > 0 && report.packs_deleted == 0, "{report:?}");
    assert_eq!(packs(&scene.store), before);
    scene.lab.clock.set_ms(TestClock::START_MS + 2 * 24 * 60 * 60 * 1000);
    let report = gc::run(&scene.lab.open(&scene.store, "three"), &options).expect("it collects");
    assert!(report.packs_deleted > 0, "{report:?}");
    scene.assert_kept(&scene.store, "fresh");
}

/// What an erasure spares is no reason for the next one, until whoever was spared is done.
#[test]
fn sessions_at_work_do_not_make_every_collection_an_erasure() {
    const HOUR_MS: i64 = 3_600_000;
    let scene = Scene::new(72);
    let host = scene.lab.open(&scene.store, "host");
    let options = GcOptions {
        max_dead_percent: 90.0,
        erase_within_ms: Some(20 * HOUR_MS.unsigned_abs()),
        honour_leases: true,
        ..everything()
    };
    let at = |hours: i64| scene.lab.clock.set_ms(TestClock::START_MS + hours * HOUR_MS);
    gc::run(&host, &options).expect("it collects");
    for hour in 1..5 {
        at(hour);
        // Always another one is at work: as if each died without ending its lease.
        let name = format!("more-{hour}");
        std::fs::write(scene.source.join(&name), noise(3_000_000, 9)).expect("a file");
        let plan = Plan::new().nth(CallKind::Put, 3, Fault::Crash);
        let faulty = FaultStore::new(scene.store.clone(), plan);
        let dying = scene.lab.open(&faulty, &format!("dying-{hour}"));
        back_up(&dying, &scene.source).expect_err("it died");
        std::fs::remove_file(scene.source.join(&name)).expect("removed");
        let report = gc::run(&host, &options).expect("it collects");
        assert!(report.plan.packs_spared > 0 && !report.plan.erases, "hour {hour}: {report:?}");
    }
    // When all leases have run out, what they spared goes.
    at(29);
    let report = gc::run(&host, &options).expect("it collects");
    assert!(report.plan.erases && report.packs_deleted > 0, "{report:?}");
    at(30);
    let report = gc::run(&host, &options).expect("it collects");
    assert!(!report.plan.erases && report.plan.packs_spared == 0, "{report:?}");
    scene.assert_kept(&scene.store, "fresh");
}

/// Frames that lean on bases: bases that no snapshot needs go, and what leaned on them is stored
/// anew; with patience for dead data they stay.
#[test]
fn bases_that_must_go_take_nothing_with_them() {
    for (max_dead, goes) in [(0.0, true), (100.0, false)] {
        let lab = Lab::new(70);
        let store = lab.memory();
        let owner = lab.open(&store, "maker");
        let base = noise(60_000, 1);
        let changed = [&base[..59_000], b"changed".as_slice()].concat();
        let mut craft = Craft::new(&owner);
        let base_id = craft.chunk(&base).expect("a chunk");
        let root = craft.directory(&[entry("base", file(base_id, 60_000))]).expect("a directory");
        let first = craft.publish(root).expect("a snapshot");
        let mut craft = Craft::new(&owner);
        let id = owner.vault().keys.chunk_id(&changed);
        let stored = compress_against(&base, &changed);
        let bytes = u32::try_from(changed.len()).expect("short");
        craft
            .frame(
                PackKind::Data,
                Codec::Zstd,
                &stored,
                vec![ChunkRef { id, bytes }],
                vec![ChunkRef { id: base_id, bytes: 60_000 }],
            )
            .expect("a frame");
        let root = craft.directory(&[entry("changed", file(id, bytes))]).expect("a directory");
        craft.publish(root).expect("a snapshot");
        drop(owner);
        let repository = lab.open(&store, "collector");
        let listed = snapshots::list(&repository).expect("a list");
        let first = listed.iter().find(|snapshot| snapshot.id == first).expect("the first");
        forget(&repository, &store, first);
        let options = GcOptions { max_dead_percent: max_dead, ..everything() };
        gc::run(&repository, &options).expect("it collects");
        drop(repository);
        let fresh = lab.open(&store, "fresh");
        let found = verify_full(&fresh);
        assert!(found.findings.is_empty(), "{:?}", found.findings);
        let snapshot = select(&fresh, "latest");
        let content = fresh.data_chunks(&snapshot, &[id]).expect("it is read");
        assert_eq!(content.concat(), changed);
        let base_is_there = fresh.data_chunks(&snapshot, &[base_id]).is_ok();
        assert_eq!(base_is_there, !goes, "at most {max_dead} % dead");
    }
}

/// Restores that run while packs are collected under them end equal.
#[test]
fn a_restore_survives_the_collection_of_what_it_reads() {
    let scene = Scene::new(71);
    let reader = scene.lab.open(&scene.store, "reader");
    // Its index is opened, and from then on out of date.
    let snapshot = select(&reader, "latest");
    scene.collect(&scene.store, "collector").expect("it collects");
    let (target, report) = scene.lab.restore(&reader, &snapshot, false).expect("it restores");
    assert_eq!((report.failure_count, report.damage_count), (0, 0), "{report:?}");
    assert_same_tree(&scene.tree, &inside(&target, &scene.source));
}

#[test]
fn only_owners_and_maintainers_collect() {
    let scene = Scene::new(72);
    let owner = scene.lab.open(&scene.store, "maker");
    for (name, role) in [("w", Role::Writer), ("r", Role::Reader), ("m", Role::Maintainer)] {
        keys::add(&owner, &new_key(name, role)).expect("a key");
    }
    drop(owner);
    let before = packs(&scene.store);
    for name in ["w", "r"] {
        let repository = scene.lab.try_open(&scene.store, name, name).expect("it opens");
        let error = gc::run(&repository, &everything()).expect_err("it may not");
        assert_eq!(error.class(), Class::WrongKey);
        assert_eq!(packs(&scene.store), before);
    }
    let repository = scene.lab.try_open(&scene.store, "m", "m").expect("it opens");
    let planned = gc::plan(&repository, &everything()).expect("a plan");
    assert!(planned.bytes_freed >= 900_000, "{planned:?}");
    assert_eq!(packs(&scene.store), before, "a plan changes nothing");
    gc::run(&repository, &everything()).expect("it collects");
    scene.assert_kept(&scene.store, "fresh");
}

#[test]
fn more_dead_than_likely_is_refused() {
    let scene = Scene::new(73);
    let before = packs(&scene.store);
    let options = GcOptions { max_delete_percent: 5.0, ..everything() };
    let repository = scene.lab.open(&scene.store, "one");
    let error = gc::run(&repository, &options).expect_err("it must refuse");
    assert_eq!(error.class(), Class::Refused, "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("--max-delete")));
    assert_eq!(packs(&scene.store), before);
}

/// A pack cannot be read while no segment names it, for a moment: another collection has stored it and
/// is about to name it. It is not taken for rubbish when that has happened.
#[test]
fn what_could_not_be_read_for_a_moment_and_is_needed_stays() {
    let (mut read, scene) = (0, Scene::new(70));
    scene.collect(&scene.store, "collector").expect("it collects");
    for pack in packs(&scene.store) {
        let store = copy_of(&scene.store);
        let is_segment = |name: &ObjectName| matches!(name, ObjectName::Index(_));
        let held = store.names().into_iter().filter(|name| *name == pack || is_segment(name));
        let held = held.map(|name| (name, object(&store, &name))).collect::<Vec<_>>();
        for (name, bytes) in &held {
            store.delete(name).expect("deleted");
            if *name == pack {
                let mut damaged = bytes.to_vec();
                damaged.iter_mut().rev().take(40).for_each(|byte| *byte ^= 1);
                store.put(name, &damaged).expect("put");
            }
        }
        // From the listing on that follows its being read all is as it should be.
        let (seen, whole) = (AtomicBool::new(false), store.clone());
        let relists = move |kind, name: Option<&ObjectName>| {
            let reads = matches!(kind, CallKind::Get | CallKind::GetRange);
            if reads && name == Some(&pack) {
                seen.store(true, Ordering::SeqCst);
            }
            kind == CallKind::List && seen.load(Ordering::SeqCst)
        };
        let odd = Odd::new(store.clone()).before(relists, move || {
            held.into_iter().for_each(|(name, bytes)| whole.overwrite(name, bytes));
        });
        let collector = scene.lab.open(&odd, &format!("collector-{pack}").replace('/', "-"));
        let _stopped_or_done = gc::run(&collector, &everything());
        drop(collector);
        if odd.has_acted() {
            read += 1;
            assert!(packs(&store).contains(&pack), "{pack} was taken for rubbish");
            scene.assert_kept(&store, &format!("fresh-{pack}").replace('/', "-"));
        }
    }
    assert!(read > 1, "{read}");
}

fn is_pack_deletion(kind: CallKind, name: Option<&ObjectName>) -> bool {
    kind == CallKind::Delete && matches!(name, Some(ObjectName::Pack(..)))
}

/// What a backup finds condemned when it begins was condemned by somebody who may have looked for
/// snapshots already: what changed is not stored against it.
#[test]
fn nothing_is_stored_against_what_is_condemned() {
    let scene = Scene::new(69);
    let mut content = noise(900_000, 69 ^ 1);
    content.iter_mut().step_by(50_000).for_each(|byte| *byte ^= 1);
    std::fs::write(scene.source.join("like-what-goes"), content).expect("a file");
    tree::settle(&scene.source);
    // The host that stored what goes knows what resembles it.
    let (maker, source) = (scene.lab.open(&scene.store, "maker"), scene.source.clone());
    let newest = Arc::new(Mutex::new(None));
    let made = Arc::clone(&newest);
    let store = Odd::new(scene.store.clone()).before(is_pack_deletion, move || {
        let report = back_up(&maker, &source).expect("a backup");
        *made.lock() = report.snapshot;
    });
    alone(|| scene.collect(&store, "collector")).expect("it collects");
    let newest = newest.lock().take().expect("a backup was made meanwhile");
    let reader = scene.lab.open(&scene.store, "reader");
    let (target, _) = scene.lab.restore(&reader, &newest, false).expect("it restores");
    assert_same_tree(&look(&scene.source), &inside(&target, &scene.source));
}

/// What is dead may stay for a while where taking it out costs more than it frees, and no longer.
#[test]
fn what_expired_is_gone_when_it_is_due() {
    const HOUR_MS: i64 = 3_600_000;
    let mut scene = Scene::new(70);
    let clock = Arc::new(TestClock::starting_at(TestClock::START_MS));
    scene.lab.context.clock = Arc::clone(&clock) as _;
    let host = scene.lab.open(&scene.store, "host");
    let options = GcOptions {
        max_dead_percent: 90.0,
        erase_within_ms: Some(72 * 60 * 60 * 1000),
        ..everything()
    };
    let first = gc::run(&host, &options).expect("it collects");
    assert!(first.plan.erases && first.packs_written > 0, "nothing is known: {first:?}");
    // Part of what was stored together goes.
    let newest = {
        let file = scene.source.join("part");
        std::fs::write(&file, noise(500_000, 1)).expect("a file");
        std::fs::write(scene.source.join("other"), noise(600_000, 2)).expect("a file");
        tree::settle(&scene.source);
        let gone = back_up(&host, &scene.source).expect("a backup").snapshot.expect("a snapshot");
        std::fs::remove_file(file).expect("removed");
        tree::settle(&scene.source);
        let newest = back_up(&host, &scene.source).expect("a backup").snapshot;
        forget(&host, &scene.store, &gone);
        newest.expect("a snapshot")
    };
    for hours in [1, 30, 36] {
        clock.set_ms(TestClock::START_MS + hours * HOUR_MS);
        let report = gc::run(&host, &options).expect("it collects");
        assert!(!report.plan.erases && report.plan.bytes_left > 400_000, "{report:?}");
        assert_eq!(report.plan.dead_since_ms, Some(TestClock::START_MS), "{report:?}");
    }
    clock.set_ms(TestClock::START_MS + 60 * HOUR_MS);
    let due = gc::run(&host, &options).expect("it collects");
    assert!(due.plan.erases && due.plan.bytes_freed > 400_000, "{due:?}");
    let after = gc::run(&host, &options).expect("it collects");
    assert!(!after.plan.erases && after.plan.bytes_left == 0, "{after:?}");
    let (target, _) = scene.lab.restore(&host, &newest, false).expect("it restores");
    assert_same_tree(&look(&scene.source), &inside(&target, &scene.source));
}

/// What nobody can read is weighed with the rest of what would be deleted.
#[test]
fn a_collection_does_not_delete_more_than_it_may_because_it_is_unreadable() {
    let lab = Lab::new(87);
    let store = lab.memory();
    let source = lab.path("source");
    tree::small(&source, 8, 87);
    back_up(&lab.open(&store, "maker"), &source).expect("a backup");
    let junk = noise(4_000_000, 87);
    let id = PackId::from_bytes(*blake3::hash(&junk).as_bytes());
    store.put(&ObjectName::Pack(PackKind::Data, id), &junk).expect("it is put");
    let before = store.names();
    let collect = |percent| {
        let options = GcOptions { max_delete_percent: percent, ..GcOptions::default() };
        gc::run(&lab.open(&store, "collector"), &options)
    };
    let refused = collect(50.0).expect_err("it is too much");
    assert_eq!((refused.code(), refused.class()), ("gc.refused", Class::Refused), "{refused}");
    assert!(refused.to_string().contains("1 snapshot"), "{refused}");
    let packs_of = |names: Vec<ObjectName>| {
        let is_pack = |name: &ObjectName| matches!(name, ObjectName::Pack(..));
        names.into_iter().filter(is_pack).collect::<Vec<_>>()
    };
    assert_eq!(packs_of(store.names()), packs_of(before));
    assert!(!store.names().iter().any(|name| matches!(name, ObjectName::Tomb { .. })));
    assert_eq!(collect(100.0).expect("it collects").packs_deleted, 1);
}
