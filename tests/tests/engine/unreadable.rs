//! Goal: what a medium does not give of an object (a bad sector) is damage to that object and to nothing
//! else: it is named, read around, healed, and holds up nothing that does not need it.
//! Method: a store that refuses to read some bytes of objects until they are put again; restores,
//! verify, repair, replications and collections of repositories with parity, with a replica, and
//! with neither.

use std::collections::BTreeSet;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use cairn_engine::ops::snapshots::SnapshotInfo;
use cairn_engine::ops::{gc, heal, replicate};
use cairn_engine::parity::per_mille;
use cairn_engine::repo::Repository;
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::tree::reader;
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::tree::{Extent, Node};
use cairn_tests::compare::{assert_same_tree, wrong_contents};
use cairn_tests::lab::{inside, object, select, verify_full};
use cairn_tests::odd::Odd;
use cairn_tests::seed::noise;

use crate::replicate::{Home, everything, only, packs, target};

/// Length of a bad sector, bytes.
const SECTOR: u64 = 4096;

/// Content that is like nothing else and compresses well, so that a pack has several frames.
fn letters(bytes: usize, seed: u64) -> Vec<u8> {
    noise(bytes, seed).into_iter().map(|byte| b'a' + byte % 2).collect()
}

/// Where the chunk in the middle of a file lies: its pack, and the bytes of its frame.
fn frame_of(
    repository: &Repository,
    snapshot: &SnapshotInfo,
    path: &Path,
) -> (ObjectName, Range<u64>) {
    let nodes = repository.nodes(snapshot).expect("a reader");
    let root = &snapshot.record.root;
    let entry = reader::lookup_path(&nodes, root, path.as_os_str().as_bytes()).expect("a tree");
    let Node::File(content) = entry.expect("it is there").node else { panic!("it is a file") };
    let mut ids = Vec::new();
    let each = &mut |_, extent| {
        if let Extent::Chunk { id, .. } = extent {
            ids.push(id);
        }
        Ok(())
    };
    reader::extents(&nodes, &content, each).expect("its extents");
    let middle = ids[ids.len() / 2];
    let place = nodes.locate(&[middle]).expect("the index")[0].expect("it is stored");
    let pack = repository.catalog().expect("the index").pack(place.pack).expect("it is known");
    let start = u64::from(place.frame_offset);
    (ObjectName::Pack(pack.kind, pack.id), start..start + u64::from(place.frame_bytes))
}

/// A home copy of which parts cannot be read.
fn on_bad_medium(home: &Home) -> Odd<MemoryStore> {
    Odd::new(home.store.clone())
}

/// Restores everything, going on past damage; whatever is not said to be damaged is as it was. Returns
/// how many entries are damaged.
fn damaged(home: &Home, repository: &Repository, snapshot: &SnapshotInfo) -> u64 {
    let (target, report) = home.lab.restore(repository, snapshot, true).expect("it goes on");
    let place = inside(&target, &home.source);
    let tree = &home.trees[&snapshot.id];
    if report.damage_count == 0 {
        assert_same_tree(tree, &place);
    } else {
        let wrong = wrong_contents(tree, &place);
        assert!(wrong.len() as u64 <= report.damage_count, "{wrong:?}: {:?}", report.damaged);
    }
    std::fs::remove_dir_all(target).expect("removed");
    report.damage_count
}

#[test]
fn a_bad_sector_of_a_pack_costs_what_lies_there_and_nothing_else() {
    let mut home = Home::new(60);
    for number in 0..16 {
        let file = home.source.join(format!("many-{number:02}"));
        std::fs::write(file, letters(1 << 20, number)).expect("a file");
    }
    let snapshot = home.back_up(1);
    // Frames have two of these files, and packs some frames.
    let (name, frame) = frame_of(&home.open(), &snapshot, &home.source.join("many-08"));
    let length = object(&home.store, &name).len() as u64;
    let middle = (frame.start + frame.end) / 2;
    let mut in_frame = 0;
    let files = home.trees[&snapshot.id].len() as u64;
    for (what, bad, lost) in [
        ("a byte of a frame", middle..middle + 1, 1..=4),
        ("a sector of a frame", middle..middle + SECTOR, 1..=4),
        ("the locator", length - 1..length, 0..=0),
        // Without keys nothing of it can be read.
        ("the header", 0..1, 2..=files),
        ("all of it", 0..length, 2..=files),
    ] {
        let medium = on_bad_medium(&home);
        medium.spoil(name, bad);
        let repository = home.lab.open(&medium, "fresh");
        let found = damaged(&home, &repository, &snapshot);
        assert!(lost.contains(&found), "{what}: {found} entries are damaged");
        match what {
            "a byte of a frame" => in_frame = found,
            "the header" => assert!(found > in_frame, "other frames were not read: {found}"),
            _ => {}
        }
        // The first of them ends it unless it is told to go on.
        let ended = home.lab.restore(&repository, &snapshot, false);
        assert_eq!(
            ended.as_ref().err().map(|error| error.is_damage()),
            (found > 0).then_some(true)
        );
        let report = verify_full(&repository);
        assert_eq!(report.affected_count, found, "{what}: {:?}", report.affected);
        assert!(report.packs_checked == report.packs_total, "{what}: it ended early");
        let named = name.to_string();
        let codes = report.findings.iter().filter(|found| found.object.contains(&named));
        let codes = codes.map(|found| found.code).collect::<BTreeSet<_>>();
        assert!(codes.contains("store.unreadable"), "{what}: {:?}", report.findings);
        drop(repository);
        std::fs::remove_dir_all(home.lab.cache("fresh")).expect("removed");
    }
}

#[test]
fn parity_gives_what_the_medium_does_not_whatever_is_done() {
    let mut home = Home::with_parity(61, Some(per_mille(100)));
    let first = home.back_up(1);
    home.back_up(2);
    home.back_up(3);
    let all = home.ids();
    let store = home.store.clone();
    let spoil = |medium: &Odd<MemoryStore>| {
        for (number, name) in packs(&store).into_iter().enumerate() {
            let length = object(&store, &name).len() as u64;
            // The header, what follows it, and parity itself.
            // Of a small pack little is enough to hit more than one of its two shards.
            let behind = if matches!(name, ObjectName::Pack(PackKind::Data, _)) { 520 } else { 0 };
            let at = [0, behind, length - 10][number % 3];
            medium.spoil(name, at..at + 10);
        }
        assert!(medium.spoilt().len() > 2);
    };
    let medium = on_bad_medium(&home);
    spoil(&medium);
    let repository = home.lab.open(&medium, "reads");
    for id in &all {
        let snapshot = select(&repository, &id.to_hex());
        assert_eq!(damaged(&home, &repository, &snapshot), 0);
    }
    let replica = MemoryStore::new();
    let done = replicate::run(&repository, &[target(&replica)], false).expect("it runs");
    let done = only(done).expect("it is replicated");
    assert!(done.damaged.is_empty() && done.copied.len() == 3, "{:?}", done.damaged);
    home.assert_holds(&replica, &all);
    let report = verify_full(&repository);
    let found = (report.packs_healable, report.affected_count);
    assert_eq!(found, (medium.spoilt().len() as u64, 0), "{:?}", report.findings);
    let healed = heal::run(&repository, false).expect("it heals");
    assert_eq!(healed.packs_from_parity, found.0, "{healed:?}");
    assert!(healed.lost.is_empty() && healed.chunks == 0, "{healed:?}");
    assert!(medium.spoilt().is_empty(), "{:?}", medium.spoilt());
    assert!(verify_full(&repository).findings.is_empty());
    // And a collection copies out of it what is still needed.
    spoil(&medium);
    drop(repository);
    home.forget(first.id);
    let repository = home.lab.open(&medium, "collects");
    let report = gc::run(&repository, &everything()).expect("a collection");
    assert!(report.damaged.is_empty(), "{:?}", report.damaged);
    for id in all.iter().filter(|id| **id != first.id) {
        let snapshot = select(&repository, &id.to_hex());
        assert_eq!(damaged(&home, &repository, &snapshot), 0);
    }
}

#[test]
fn repair_puts_what_a_replica_has_in_the_place_of_what_cannot_be_read() {
    let mut home = Home::new(62);
    home.back_up(1);
    home.back_up(2);
    let all = home.ids();
    let replica = MemoryStore::new();
    home.replicate_to(&replica);
    let medium = on_bad_medium(&home);
    for name in home.store.names() {
        let middle = object(&home.store, &name).len() as u64 / 2;
        if matches!(name, ObjectName::Pack(..) | ObjectName::Snapshot { .. }) {
            medium.spoil(name, middle..middle + 1);
        }
    }
    let mut repository = home.lab.open(&medium, "heals");
    assert!(!verify_full(&repository).findings.is_empty());
    let copy = repository.open_copy(Arc::new(replica.clone()), &repository.context.clone());
    repository.add_fallback(copy.expect("it is a copy"));
    // Read around first, without anything being changed.
    let bad = medium.spoilt();
    let healed = heal::run(&repository, false).expect("it heals");
    assert!(healed.lost.is_empty(), "{:?}", healed.lost);
    assert_eq!((healed.snapshots.len(), healed.packs as usize), (2, bad.len() - 2), "{healed:?}");
    assert!(medium.spoilt().is_empty(), "{:?}", medium.spoilt());
    assert!(verify_full(&repository).findings.is_empty());
    drop(repository);
    let store = home.store.clone();
    home.assert_holds(&store, &all);
}

#[test]
fn what_needs_nothing_unreadable_is_replicated_and_collected() {
    let mut home = Home::new(63);
    let only_first = home.source.join("only-first");
    std::fs::write(&only_first, letters(6 << 20, 3)).expect("a file");
    let first = home.back_up(1);
    std::fs::remove_file(&only_first).expect("removed");
    let second = home.back_up(2);
    let (name, frame) = frame_of(&home.open(), &first, &only_first);
    let medium = on_bad_medium(&home);
    medium.spoil(name, frame.start..frame.end);
    let repository = home.lab.open(&medium, "bad");
    let replica = MemoryStore::new();
    let done = replicate::run(&repository, &[target(&replica)], false).expect("it runs");
    let done = only(done).expect("it is replicated");
    assert_eq!(done.copied, [second.id]);
    assert_eq!(done.damaged.len(), 1, "{:?}", done.damaged);
    home.assert_holds(&replica, &[second.id].into());
    // A collection that comes upon it says so, and gives nothing up.
    assert!(damaged(&home, &repository, &first) > 0);
    let before = packs(&home.store);
    let collected = gc::run(&repository, &everything()).expect("it goes on past it");
    assert!(packs(&home.store).contains(&name) || !before.contains(&name), "{collected:?}");
    assert_eq!(damaged(&home, &repository, &first), 1);
    assert_eq!(damaged(&home, &repository, &second), 0);
    drop(repository);
    // Where nothing needs it any more it goes.
    home.forget(first.id);
    let repository = home.lab.open(&medium, "bad");
    gc::run(&repository, &everything()).expect("a collection");
    assert_eq!(damaged(&home, &repository, &second), 0);
    assert!(!packs(&home.store).contains(&name));
}

#[test]
fn a_pack_that_no_segment_names_and_that_cannot_be_read_is_left_alone() {
    let mut home = Home::new(64);
    let snapshot = home.back_up(1);
    let bytes = noise(5_000, 1);
    let id = cairn_format::ids::PackId::from_bytes(*blake3::hash(&bytes).as_bytes());
    let name = ObjectName::Pack(PackKind::Data, id);
    home.store.overwrite(name, bytes.into());
    let medium = on_bad_medium(&home);
    medium.spoil(name, 0..5_000);
    let repository = home.lab.open(&medium, "bad");
    gc::run(&repository, &everything()).expect("a collection");
    assert!(packs(&home.store).contains(&name), "it may be what a segment that comes late names");
    assert_eq!(damaged(&home, &repository, &snapshot), 0);
}
