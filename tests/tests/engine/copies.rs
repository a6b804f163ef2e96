//! Goal: of several copies of what is needed one that can be read stays, whoever collects.
//! Method: every pack damaged, or lost, in turn; found by one host, healed by a backup, and collected
//! by a host that knows of neither.

use std::sync::Arc;

use cairn_engine::collect::Weakness;
use cairn_engine::ops::backup::{self, BackupOptions, BackupSource};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::snapshots::SnapshotInfo;
use cairn_engine::repo::Repository;
use cairn_engine::store::Store as _;
use cairn_engine::store::memory::MemoryStore;
use cairn_format::names::{ObjectName, PackKind};
use cairn_tests::compare::assert_same_tree;
use cairn_tests::garbage::{Scene, everything, forget, pack_bytes, packs};
use cairn_tests::lab::{Warnings, copy_of, inside, object, verify_full};

/// A copy of a store in which one object is damaged behind its header.
fn copy_with_damage(store: &MemoryStore, damaged: ObjectName) -> MemoryStore {
    let copy = copy_of(store);
    let mut bytes = object(&copy, &damaged).to_vec();
    bytes[192..].iter_mut().step_by(1000).for_each(|byte| *byte ^= 1);
    copy.overwrite(damaged, bytes.into());
    copy
}

/// One host finds damage, and what was damaged is stored anew. Another, which knows nothing of
/// that, collects: of the copies it must keep one that can be read. Returns whether the snapshot is
/// whole then.
fn is_whole_after_healing(scene: &Scene, damaged: ObjectName, weakness: Option<Weakness>) -> bool {
    let store = copy_with_damage(&scene.store, damaged);
    let cache = |host: &str| format!("{host}-{damaged}-{weakness:?}").replace('/', "-");
    let healer = scene.lab.open(&store, &cache("healer"));
    let healing = heal(scene, &healer, &damaged);
    let stays = one_that_is_healed(scene, &healer, &store, &damaged, healing);
    drop(healer);
    let collector = scene.lab.open(&store, &cache("collector"));
    // Packs that are dead in part stay: nothing of them is read for being copied.
    let options = GcOptions { weakness, max_dead_percent: 90.0, ..everything() };
    let collected = gc::run(&collector, &options);
    assert!(collected.is_ok() || weakness.is_some(), "{damaged}: {collected:?}");
    drop(collector);
    let reader = scene.lab.open(&store, &cache("reader"));
    let Ok((target, report)) = scene.lab.restore(&reader, &stays, true) else { return false };
    if report.failure_count > 0 || report.damage_count > 0 {
        return false;
    }
    assert_same_tree(&scene.tree, &inside(&target, &scene.source));
    true
}

/// Finds the damage, and backs up once more.
fn heal(scene: &Scene, healer: &Repository, damaged: &ObjectName) -> SnapshotInfo {
    assert!(!verify_full(healer).findings.is_empty(), "{damaged} was damaged");
    let mut options = BackupOptions::new("job", vec![BackupSource::Path(scene.source.clone())]);
    options.reread = true;
    backup::run(healer, options).expect("a backup").snapshot.expect("a snapshot")
}

/// Forgets all but one of the snapshots that the damage concerned: of files every chunk is stored
/// anew, so that the older one is whole; of folders those that have not changed since.
fn one_that_is_healed(
    scene: &Scene,
    host: &Repository,
    store: &MemoryStore,
    damaged: &ObjectName,
    healing: SnapshotInfo,
) -> SnapshotInfo {
    let (goes, stays) = match damaged {
        ObjectName::Pack(PackKind::Tree, _) => (scene.kept.clone(), healing),
        _ => (healing, scene.kept.clone()),
    };
    forget(host, store, &goes);
    stays
}

#[test]
fn of_several_copies_one_that_can_be_read_is_kept() {
    let scene = Scene::new(67);
    let mut lost = 0;
    for damaged in packs(&scene.store) {
        assert!(is_whole_after_healing(&scene, damaged, None), "{damaged}");
        let weakened = is_whole_after_healing(&scene, damaged, Some(Weakness::UnreadCopies));
        lost += usize::from(!weakened);
    }
    assert!(lost > 0, "a collection that reads no copies would not be noticed");
}

/// What is needed of the damaged pack stands elsewhere: the collection that finds the damage out takes
/// it, and everything that only it needed, at once.
#[test]
fn a_damaged_pack_goes_with_the_collection_that_finds_it() {
    let scene = Scene::new(69);
    let is_data = |name: &ObjectName| matches!(name, ObjectName::Pack(PackKind::Data, _));
    let mut found = 0;
    for damaged in packs(&scene.store).into_iter().filter(is_data) {
        let store = copy_with_damage(&scene.store, damaged);
        let cache = |host: &str| format!("{host}-{damaged}").replace('/', "-");
        let healer = scene.lab.open(&store, &cache("healer"));
        let healing = heal(&scene, &healer, &damaged);
        one_that_is_healed(&scene, &healer, &store, &damaged, healing);
        drop(healer);
        let warnings = Arc::new(Warnings::default());
        let collector = scene.lab.open_watched(&store, &cache("collector"), warnings.clone());
        gc::run(&collector, &everything()).expect("it collects");
        drop(collector);
        let named = damaged.to_string();
        found += warnings.all().iter().filter(|remark| remark.subject == named).count();
        assert!(!packs(&store).contains(&damaged), "{damaged} is still there");
        let reader = scene.lab.open(&store, &cache("reader"));
        assert!(verify_full(&reader).findings.is_empty());
        let left = pack_bytes(&store);
        gc::run(&reader, &everything()).expect("it collects");
        assert_eq!(pack_bytes(&store), left, "nothing was left for another collection");
    }
    assert!(found > 0, "no collection found any damage");
}

#[test]
fn a_pack_that_verify_found_missing_and_that_was_healed_stops_no_collection() {
    let scene = Scene::new(68);
    for damaged in packs(&scene.store) {
        let store = copy_of(&scene.store);
        store.delete(&damaged).expect("deleted");
        let cache = |host: &str| format!("{host}-{damaged}").replace('/', "-");
        let host = scene.lab.open(&store, &cache("host"));
        let healing = heal(&scene, &host, &damaged);
        let stays = one_that_is_healed(&scene, &host, &store, &damaged, healing);
        gc::run(&host, &everything()).expect("it collects");
        drop(host);
        // Whoever knows nothing finds no word of the pack that is lost.
        let other = scene.lab.open(&store, &cache("other"));
        gc::run(&other, &everything()).expect("it collects");
        assert!(verify_full(&other).findings.is_empty());
        let (target, _) = scene.lab.restore(&other, &stays, false).expect("it restores");
        assert_same_tree(&scene.tree, &inside(&target, &scene.source));
    }
}
