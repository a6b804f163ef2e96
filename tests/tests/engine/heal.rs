//! Goal: what is damaged or missing in one copy is healed from another, or read from there while
//! restoring; what neither has is named, and nothing is given up for it.
//! Method: packs and records of a home copy are damaged and deleted, with replicas that hold the same
//! packs and replicas that hold the same chunks in others.

use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use cairn_engine::context::Clock as _;
use cairn_engine::ops::forget::{self, Choice, ForgetOptions};
use cairn_engine::ops::{dump, gc, heal};
use cairn_engine::repo::Repository;
use cairn_engine::store::Store as _;
use cairn_engine::store::memory::MemoryStore;
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::pack::{ChunkRef, Codec};
use cairn_tests::compare::assert_same_tree;
use cairn_tests::craft::{Craft, compress_against, entry, file};
use cairn_tests::garbage::{everything, forget};
use cairn_tests::lab::{Lab, alone, copy_of, inside, object, select, verify_full};
use cairn_tests::odd::Odd;
use cairn_tests::seed::noise;

use crate::replicate::{Home, packs};

/// Damages a pack in its middle.
fn damage(store: &MemoryStore, name: ObjectName) {
    let mut bytes = object(store, &name).to_vec();
    let middle = bytes.len() / 2;
    bytes[300..middle].fill(0);
    store.overwrite(name, Bytes::from(bytes));
}

/// The home copy, with a replica that stands in for it.
fn with_fallback(home: &Home, replica: &MemoryStore) -> Repository {
    let mut repository = home.open();
    let copy = repository.open_copy(Arc::new(replica.clone()), &repository.context.clone());
    repository.add_fallback(copy.expect("it is a copy"));
    repository
}

#[test]
fn what_is_damaged_or_missing_at_home_is_healed_from_a_replica() {
    for differently_packed in [false, true] {
        let mut home = Home::new(20);
        let first = home.back_up(1);
        home.back_up(2);
        home.back_up(3);
        let replica = MemoryStore::new();
        home.replicate_to(&replica);
        if differently_packed {
            // What home has written anew since, the replica has in other packs.
            home.forget(first.id);
            home.collect();
            assert!(!packs(&home.store).is_subset(&packs(&replica)));
        }
        let all = home.ids();
        let own = packs(&home.store).into_iter().collect::<Vec<_>>();
        for (number, name) in own.iter().enumerate() {
            match number % 3 {
                0 => damage(&home.store, *name),
                1 => home.store.delete(name).expect("it is deleted"),
                _ => {}
            }
        }
        let names = home.store.names();
        let record = names.iter().rfind(|name| matches!(name, ObjectName::Snapshot { .. }));
        let record = *record.expect("a snapshot");
        home.store.overwrite(record, Bytes::from_static(b"nonsense"));
        assert!(!verify_full(&home.open()).findings.is_empty());
        let repository = with_fallback(&home, &replica);
        let planned = heal::run(&repository, true).expect("a plan");
        assert_eq!((planned.snapshots.len(), planned.packs > 0), (1, true));
        let healed = heal::run(&repository, false).expect("it heals");
        assert!(healed.lost.is_empty(), "{:?}", healed.lost);
        if differently_packed {
            assert!(healed.chunks > 0 && healed.packs_condemned > 0, "{healed:?}");
        } else {
            assert_eq!((healed.chunks, healed.packs_condemned), (0, 0), "{healed:?}");
            assert!(packs(&home.store) == packs(&replica));
        }
        drop(repository);
        home.collect();
        let store = home.store.clone();
        home.assert_holds(&store, &all);
        let again = heal::run(&with_fallback(&home, &replica), false).expect("nothing to do");
        assert_eq!((again.packs, again.chunks, again.snapshots.len()), (0, 0, 0), "{again:?}");
    }
}

/// Whenever somebody forgets a snapshot while it is healed: its record does not come back, be it one
/// that was damaged or one that was sound.
#[test]
fn what_is_forgotten_while_it_is_healed_does_not_come_back() {
    let mut home = Home::new(29);
    let goes = home.back_up(1).id;
    home.back_up(2);
    let replica = MemoryStore::new();
    home.replicate_to(&replica);
    let is_its = |name: &ObjectName| matches!(name, ObjectName::Snapshot { id, .. } if *id == goes);
    for damaged in [false, true] {
        for call in 0.. {
            let store = copy_of(&home.store);
            if damaged {
                let name = store.names().into_iter().find(is_its).expect("its record");
                store.overwrite(name, Bytes::from_static(b"nonsense"));
            }
            let (calls, twin, beside) = (AtomicUsize::new(0), Lab::new(2_900), store.clone());
            twin.clock.set_ms(home.lab.clock.now_ms());
            let way = Odd::new(store.clone()).before(
                move |_, _| calls.fetch_add(1, Ordering::SeqCst) == call,
                move || {
                    let repository = twin.open(&beside, "beside");
                    let named = Choice::Named(vec![goes.to_hex()]);
                    let plan = forget::plan(&repository, &ForgetOptions::new(named));
                    forget::run(&repository, &plan.expect("a plan")).expect("forgotten");
                },
            );
            let cache = format!("healer-{damaged}-{call}");
            let mut healer = home.lab.open(&way, &cache);
            let copy = healer.open_copy(Arc::new(replica.clone()), &healer.context.clone());
            healer.add_fallback(copy.expect("it is a copy"));
            let report = alone(|| heal::run(&healer, false)).expect("it heals");
            assert!(report.lost.is_empty(), "{damaged}, call {call}: {:?}", report.lost);
            drop(healer);
            if !way.has_acted() {
                assert!(call > 10, "{call}");
                break;
            }
            assert!(!store.names().iter().any(is_its), "{damaged}, call {call}: it is back");
        }
    }
}

#[test]
fn what_no_copy_has_is_named_and_nothing_is_given_up() {
    let mut home = Home::new(21);
    home.back_up(1);
    let replica = MemoryStore::new();
    home.replicate_to(&replica);
    std::fs::write(home.source.join("later"), noise(300_000, 4)).expect("a file");
    home.back_up(2);
    let later = packs(&home.store).difference(&packs(&replica)).copied().collect::<Vec<_>>();
    assert!(!later.is_empty());
    for name in &later {
        damage(&home.store, *name);
    }
    assert!(!verify_full(&home.open()).findings.is_empty());
    let report = heal::run(&with_fallback(&home, &replica), false).expect("it runs");
    assert!(!report.lost.is_empty() && report.packs_condemned == 0, "{report:?}");
    assert!(later.iter().all(|name| home.store.size(name).is_ok()));
}

#[test]
fn a_restore_reads_from_a_replica_what_home_cannot_give() {
    let mut home = Home::new(22);
    let snapshot = home.back_up(1);
    let replica = MemoryStore::new();
    home.replicate_to(&replica);
    let own = packs(&home.store).into_iter().collect::<Vec<_>>();
    for (number, name) in own.iter().enumerate() {
        match number % 2 {
            0 => damage(&home.store, *name),
            _ => home.store.delete(name).expect("it is deleted"),
        }
    }
    let tree = home.trees[&snapshot.id].clone();
    let restores = |home: &Home, repository: &Repository| {
        let outcome = home.lab.restore(repository, &snapshot, true);
        let (target, report) = outcome.ok()?;
        if report.failure_count + report.damage_count > 0 {
            return None;
        }
        assert_same_tree(&tree, &inside(&target, &home.source));
        Some(())
    };
    assert_eq!(restores(&home, &home.open()), None);
    let repository = with_fallback(&home, &replica);
    assert_eq!(restores(&home, &repository), Some(()));
    assert!(repository.fallbacks().iter().all(|copy| copy.chunks() > 0));
    // Not even the index knows anything of what it held.
    for name in home.store.names() {
        if matches!(name, ObjectName::Index(_) | ObjectName::Pack(..)) {
            home.store.delete(&name).expect("it is deleted");
        }
    }
    let mut blank = home.lab.open(&home.store, "blank");
    assert_eq!(restores(&home, &blank), None);
    let copy = blank.open_copy(Arc::new(replica.clone()), &blank.context.clone());
    blank.add_fallback(copy.expect("it is a copy"));
    assert_eq!(restores(&home, &blank), Some(()));
    // Nor does it for one who wants a single file.
    let path = home.source.join("text");
    let dumped = |repository: &Repository| {
        let mut out = Vec::new();
        dump::run(repository, &snapshot, path.as_os_str().as_bytes(), &mut out).map(|_| out)
    };
    let expected = dumped(&repository).expect("it is read");
    assert!(dumped(&home.lab.open(&home.store, "other blank")).is_err());
    assert!(!expected.is_empty() && dumped(&blank).expect("it is read") == expected);
}

/// A frame stands against two chunks, of which a collection of the replica has dropped one, and moved
/// the other and what is wanted: that the frame is of no use any more tells where it went.
#[test]
fn what_a_collection_of_the_replica_moved_is_found_though_not_all_its_bases_are() {
    let lab = Lab::new(2_901);
    let store = lab.memory();
    let owner = lab.open(&store, "maker");
    let (kept, dropped) = (noise(60_000, 1), noise(60_000, 2));
    let mut craft = Craft::new(&owner);
    let mut reference = |data: &[u8]| ChunkRef {
        id: craft.chunk(data).expect("a chunk"),
        bytes: u32::try_from(data.len()).expect("short"),
    };
    let bases = vec![reference(&kept), reference(&dropped)];
    let one = file(bases[0].id, bases[0].bytes);
    let two = file(bases[1].id, bases[1].bytes);
    let root = craft.directory(&[entry("one", one), entry("two", two)]).expect("a directory");
    craft.publish(root).expect("a snapshot");
    let before = packs(&store);

    let changed = [&kept[..59_000], b"changed", &dropped[..59_000], b"too"].concat();
    let (first, second) = changed.split_at(59_007);
    let chunks = [first, second].map(|chunk| ChunkRef {
        id: owner.vault().keys.chunk_id(chunk),
        bytes: u32::try_from(chunk.len()).expect("short"),
    });
    let mut craft = Craft::new(&owner);
    let stored = compress_against(&[&kept[..], &dropped[..]].concat(), &changed);
    craft.frame(PackKind::Data, Codec::Zstd, &stored, chunks.to_vec(), bases).expect("a frame");
    let node = file(chunks[0].id, chunks[0].bytes);
    let root = craft.directory(&[entry("changed", node)]).expect("a directory");
    craft.publish(root).expect("a snapshot");
    let is_data = |name: &&ObjectName| matches!(name, ObjectName::Pack(PackKind::Data, _));
    let frames = packs(&store).difference(&before).copied().collect::<Vec<_>>();
    let of_frame = frames.iter().find(is_data).expect("it holds the frame");

    // The replica is read before that, and once more while the collection has deleted the bases only.
    let replica = copy_of(&store);
    let mut home = lab.open(&store, "home");
    let copy = home.open_copy(Arc::new(replica.clone()), &home.context.clone()).expect("a copy");
    copy.catalog().expect("its index");
    let collector = lab.open(&replica, "collector");
    let going = select(&collector, "latest~1");
    forget(&collector, &replica, &going);
    gc::run(&collector, &everything()).expect("it collects");
    assert!(replica.size(of_frame).is_err());
    replica.overwrite(*of_frame, object(&store, of_frame));
    for name in before.iter().filter(is_data) {
        assert!(replica.size(name).is_err());
        damage(&store, *name);
    }
    let snapshot = select(&home, "latest");
    let read = |home: &Repository| home.data_chunks(&snapshot, &[chunks[0].id]);
    let error = read(&home).expect_err("home has not got it");
    assert!(error.is_damage(), "{error}");
    home.add_fallback(copy);
    assert!(read(&home).expect("the replica has it").concat() == first);
}

#[test]
fn keys_that_are_damaged_are_healed_and_those_removed_stay_away() {
    let mut home = Home::new(23);
    home.back_up(1);
    let mut slots = Vec::new();
    for name in ["second", "removed"] {
        let key = cairn_tests::lab::new_key(name, cairn_format::certificate::Role::Owner);
        slots.push(cairn_engine::repo::keys::add(&home.open(), &key).expect("a key"));
    }
    let replica = MemoryStore::new();
    home.replicate_to(&replica);
    let all = home.ids();
    assert!(verify_full(&home.open()).findings.is_empty());
    cairn_engine::repo::keys::remove(&home.open(), &slots[1].to_hex(), false).expect("removed");
    let sound = cairn_tests::lab::copy_of(&home.store);
    home.store.overwrite(ObjectName::Key(slots[0]), Bytes::from_static(b"nonsense"));
    let alone = heal::run(&home.open(), false);
    assert!(alone.is_err(), "there is nothing to heal from");
    let repository = with_fallback(&home, &replica);
    for dry_run in [true, false] {
        let healed = heal::run(&repository, dry_run).expect("it heals");
        assert_eq!(healed.objects, [ObjectName::Key(slots[0])], "{healed:?}");
        assert_eq!(healed.lost.len(), 0, "{healed:?}");
    }
    let there = |store: &MemoryStore| {
        let others = |name: &ObjectName| !matches!(name, ObjectName::Lease { .. });
        let names = store.names().into_iter().filter(others);
        names.map(|name| (name, object(store, &name))).collect::<Vec<_>>()
    };
    assert!(there(&home.store) == there(&sound), "something else came, or is not what it was");
    let again = heal::run(&repository, false).expect("nothing to do");
    assert!(again.objects.is_empty(), "{again:?}");
    drop(repository);
    let store = home.store.clone();
    home.assert_holds(&store, &all);
}
