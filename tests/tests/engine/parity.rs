//! Goal: with parity, damage to any part of a pack costs nothing as long as it is not too much, and
//! is reported, whatever is done with the repository; more than that is said, and costs no more than
//! it must.
//! Method: a matrix of the regions of packs and of operations; packs with exactly as many damaged shards
//! as parity gives back, and with one more.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::context::Context;
use cairn_engine::error::{Class, Explain as _};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::{heal, repair_index, stats};
use cairn_engine::parity::{Parity, per_mille};
use cairn_engine::repo::Repository;
use cairn_engine::store::Store as _;
use cairn_engine::store::fault::{Fault, FaultStore, Plan};
use cairn_engine::store::memory::MemoryStore;
use cairn_format::names::ObjectName;
use cairn_format::parity::{PARITY_FOOTER_BYTES, ParityLayout};
use cairn_tests::lab::{OWNER, Warnings, copy_of, object, verify_full};

use crate::replicate::{Home, packs};

/// Ten percent, and shards of 4 KiB in the small packs of these tests.
const PARITY: Parity = per_mille(100);

fn layout(store: &MemoryStore, name: &ObjectName) -> ParityLayout {
    let bytes = object(store, name).len() as u64;
    ParityLayout::of_object(bytes, PARITY).expect("a pack with parity")
}

fn alter(store: &MemoryStore, name: ObjectName, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = object(store, &name).to_vec();
    change(&mut bytes);
    store.overwrite(name, Bytes::from(bytes));
}

fn flip(range: Range<u64>) -> impl Fn(&mut Vec<u8>) {
    move |pack| {
        for at in range.clone() {
            pack[at as usize] ^= 0x55;
        }
    }
}

/// A change of a pack that may be met.
type Change = Box<dyn Fn(&mut Vec<u8>)>;

/// Everything that is no more than parity makes good, by the part of the pack that it hits.
fn damages(layout: ParityLayout) -> Vec<(&'static str, Change)> {
    let end = layout.protected_bytes;
    let shard = u64::from(layout.shard_bytes);
    let spare = u64::from(layout.recovery);
    let (front, back) = (layout.front_record(), layout.back_record());
    let footer = u64::from(PARITY_FOOTER_BYTES);
    let whole = move |pack: &mut Vec<u8>, length: u64| pack.truncate(pack.len() - length as usize);
    let mut all: Vec<(&'static str, Change)> = vec![
        ("the header", Box::new(flip(0..192))),
        ("a bit of the header", Box::new(flip(30..31))),
        ("the first frame", Box::new(flip(200..201))),
        ("a frame", Box::new(flip(end / 2..end / 2 + 20))),
        ("the directory", Box::new(flip(end - 60..end - 59))),
        ("the locator", Box::new(flip(end - 20..end - 10))),
        ("the footer in front", Box::new(flip(front.start..front.start + footer))),
        ("the hashes in front", Box::new(flip(front.start + footer..front.end))),
        ("a recovery shard", Box::new(flip(front.end + 5..front.end + 6))),
        ("the hashes behind", Box::new(flip(back.start..back.end - footer))),
        ("the footer behind", Box::new(flip(back.end - footer..back.end))),
        ("its last byte", Box::new(move |pack| whole(pack, 1))),
        ("its parity but for the hashes", Box::new(move |pack| whole(pack, back.end - front.end))),
        ("bytes that follow", Box::new(|pack| pack.extend_from_slice(b"something"))),
        ("as many shards as may be", Box::new(flip(0..(spare * shard).min(end)))),
        (
            "the header and the end",
            Box::new(move |pack| {
                flip(0..1)(pack);
                whole(pack, footer / 2);
            }),
        ),
    ];
    if layout.data < 2 {
        // Header and end of the data are one shard, so the rest would be the same again.
        all.truncate(15);
    }
    all
}

/// Does something with a repository that says what it warns of.
fn with_warnings<R>(
    home: &Home,
    store: &MemoryStore,
    work: impl FnOnce(&Repository) -> R,
) -> (R, Vec<&'static str>) {
    let warnings = Arc::new(Warnings::default());
    let context = Context {
        cache_dir: std::path::PathBuf::new(),
        monitor: warnings.clone(),
        ..home.lab.context.clone()
    };
    let unlock = cairn_tests::lab::unlock(OWNER);
    let repository = Repository::open(Arc::new(store.clone()), &unlock, &context);
    let outcome = work(&repository.expect("it opens"));
    (outcome, warnings.all().into_iter().map(|remark| remark.code).collect())
}

/// The repository of the tests: whole frames, small ones, and deltas.
fn protected(seed: u64) -> Home {
    let mut home = Home::with_parity(seed, Some(PARITY));
    home.back_up(1);
    home.back_up(2);
    home
}

/// The largest data pack and the largest pack of trees.
fn largest(store: &MemoryStore) -> Vec<ObjectName> {
    let mut all = packs(store).into_iter().collect::<Vec<_>>();
    all.sort_by_key(|name| std::cmp::Reverse(object(store, name).len()));
    let kind = |name: &ObjectName| match name {
        ObjectName::Pack(kind, _) => *kind,
        other => panic!("{other} is no pack"),
    };
    let first = all[0];
    let other = all.into_iter().find(|name| kind(name) != kind(&first));
    vec![first, other.expect("packs of both kinds")]
}

fn same_packs(one: &MemoryStore, other: &MemoryStore) -> bool {
    packs(one) == packs(other)
        && packs(one).iter().all(|name| object(one, name) == object(other, name))
}

#[test]
fn damage_to_any_part_of_a_pack_is_found_read_around_and_healed() {
    let mut home = protected(30);
    let sound = copy_of(&home.store);
    let all = home.ids();
    assert_eq!(packs(&sound).len(), packs(&home.store).len());
    for name in largest(&sound) {
        for (part, change) in damages(layout(&sound, &name)) {
            let what = format!("{part} of {name}");
            let store = copy_of(&sound);
            alter(&store, name, &change);
            assert!(!same_packs(&store, &sound), "{what}");

            // Reading around it.
            let snapshots = home.trees.keys().copied().collect::<Vec<_>>();
            for id in snapshots {
                let (restored, said) = with_warnings(&home, &store, |repository| {
                    let snapshot = cairn_tests::lab::select(repository, &id.to_hex());
                    home.lab.restore(repository, &snapshot, false)
                });
                let (target, report) = restored.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!((report.failure_count, report.damage_count), (0, 0), "{what}");
                let place = cairn_tests::lab::inside(&target, &home.source);
                cairn_tests::compare::assert_same_tree(&home.trees[&id], &place);
                std::fs::remove_dir_all(target).expect("removed");
                assert!(said.iter().all(|code| *code == "parity.used"), "{what}: {said:?}");
                assert!(!said.is_empty() || part != "the header", "{what}");
            }
            // Not a byte has changed by that.
            assert!(!same_packs(&store, &sound), "{what}");

            // A replica gets it as it should be.
            let replica = MemoryStore::new();
            let damaged = std::mem::replace(&mut home.store, store.clone());
            let done = home.replicate_to(&replica);
            home.store = damaged;
            assert!(done.damaged.is_empty(), "{what}: {:?}", done.damaged);
            assert!(same_packs(&replica, &sound), "{what}");

            // The index out of damaged packs.
            let bare = copy_of(&store);
            for name in bare.names() {
                if matches!(name, ObjectName::Index(_)) {
                    bare.delete(&name).expect("deleted");
                }
            }
            with_warnings(&home, &bare, |repository| {
                let report = repair_index::run(repository, false).expect("it is repaired");
                assert!(report.unreadable.is_empty(), "{what}: {:?}", report.unreadable);
            });

            // Verify finds it, and says that it costs nothing; then repair heals it.
            let cache = format!("heal-{}", what.len());
            let repository = home.lab.open(&store, &cache);
            let report = verify_full(&repository);
            let named = |object: &str| object.contains(&name.to_string());
            assert!(report.findings.iter().any(|found| named(&found.object)), "{what}: {report:?}");
            assert!(report.findings.iter().all(|found| named(&found.object)), "{what}: {report:?}");
            // What only has something behind it is told by its length.
            let healable = u64::from(part != "bytes that follow");
            let found = (report.packs_healable, report.affected_count);
            assert_eq!(found, (healable, 0), "{what}: {report:?}");
            let healed = heal::run(&repository, false).expect("it heals");
            assert_eq!(healed.packs_from_parity, 1, "{what}: {healed:?}");
            assert!(healed.lost.is_empty() && healed.chunks == 0, "{what}: {healed:?}");
            assert!(same_packs(&store, &sound), "{what}");
            let again = heal::run(&repository, false).expect("nothing to do");
            assert_eq!(again.packs_from_parity, 0, "{what}");
            assert!(verify_full(&repository).findings.is_empty(), "{what}");
            drop(repository);
            std::fs::remove_dir_all(home.lab.cache(&cache)).expect("removed");
        }
    }
    home.assert_holds(&sound, &all);
}

#[test]
fn verify_tells_damaged_parity_from_damaged_data() {
    let home = protected(31);
    let name = largest(&home.store)[0];
    let layout = layout(&home.store, &name);
    let codes = |change: Change| {
        let store = copy_of(&home.store);
        alter(&store, name, change);
        let (report, _) = with_warnings(&home, &store, verify_full);
        report.findings.iter().map(|found| found.code).collect::<BTreeSet<_>>()
    };
    let front = layout.front_record();
    for parity in [front.clone(), layout.recovery_shard(0), layout.back_record()] {
        assert_eq!(codes(Box::new(flip(parity.start..parity.start + 1))), ["pack.parity"].into());
    }
    // Without either copy of what says where it is, parity is of no use.
    let back = layout.back_record();
    let found = codes(Box::new(move |pack| {
        flip(front.clone())(pack);
        flip(back.clone())(pack);
        flip(500..501)(pack);
    }));
    assert!(found.contains("parity.exceeded") && !found.contains("pack.healable"), "{found:?}");
    // Filler and frames are data.
    let found = codes(Box::new(flip(500..501)));
    assert!(found.contains("pack.healable") && !found.contains("pack.parity"), "{found:?}");
}

#[test]
fn what_parity_cannot_give_back_is_named_and_comes_from_another_copy() {
    let mut home = protected(32);
    let replica = MemoryStore::new();
    home.replicate_to(&replica);
    let sound = copy_of(&home.store);
    let all = home.ids();
    let name = largest(&sound)[0];
    let layout = layout(&sound, &name);
    let lost = u64::from(layout.recovery) + 1;
    alter(&home.store, name, |pack| {
        for shard in 0..lost {
            // Every second one, so that much else of it can be read.
            let shard = layout.data_shard((shard * 2) as u16);
            flip(shard.start + 300..shard.start + 310)(pack);
        }
    });
    let damaged = copy_of(&home.store);
    let (report, _) = with_warnings(&home, &damaged, verify_full);
    let exceeded = report.findings.iter().find(|found| found.code == "parity.exceeded");
    let message = &exceeded.expect("it is said").message;
    assert!(message.contains(&format!("{lost} of its {}", layout.shards())), "{message}");
    assert!(report.packs_healable == 0 && report.affected_count > 0, "{report:?}");
    let (restored, said) = with_warnings(&home, &damaged, |repository| {
        let snapshot = cairn_tests::lab::select(repository, "latest");
        home.lab.restore(repository, &snapshot, true).expect("it goes on").1
    });
    assert!(restored.damage_count > 0 && said.contains(&"parity.exceeded"), "{said:?}");

    // Alone nothing is given up.
    let repository = home.lab.open(&home.store, "alone");
    assert!(!verify_full(&repository).findings.is_empty());
    let report = heal::run(&repository, false).expect("it runs");
    assert!(!report.lost.is_empty(), "{report:?}");
    assert_eq!((report.packs_from_parity, report.packs_condemned), (0, 0), "{report:?}");
    assert!(object(&home.store, &name) == object(&damaged, &name));
    drop(repository);

    // Of another copy it is the very same pack, also where that one needs its parity for it.
    alter(&replica, name, flip(0..100));
    let mut repository = home.lab.open(&home.store, "alone");
    let copy = repository.open_copy(Arc::new(replica), &repository.context.clone());
    repository.add_fallback(copy.expect("it is a copy"));
    let report = heal::run(&repository, false).expect("it heals");
    assert!(report.lost.is_empty() && report.packs == 1, "{report:?}");
    assert!(object(&home.store, &name) == object(&sound, &name));
    drop(repository);
    let store = home.store.clone();
    home.assert_holds(&store, &all);
}

#[test]
fn without_parity_and_another_copy_there_is_nothing_to_repair_from() {
    let mut home = Home::new(33);
    home.back_up(1);
    let error = heal::run(&home.open(), false).expect_err("it is refused");
    assert_eq!(error.class(), Class::Usage);
}

#[test]
fn every_pack_that_is_written_has_parity_whoever_writes_it() {
    let mut home = protected(34);
    let first = home.back_up(3);
    home.back_up(4);
    let assert_all = |store: &MemoryStore, what: &str| {
        for name in packs(store) {
            let found = ParityLayout::of_object(object(store, &name).len() as u64, PARITY);
            assert!(found.is_some(), "{what}: {name}");
        }
    };
    assert_all(&home.store, "backup");
    let before = packs(&home.store);
    home.forget(first.id);
    home.collect();
    assert!(!packs(&home.store).is_subset(&before), "something was copied");
    assert_all(&home.store, "gc");
    let (report, _) = with_warnings(&home, &home.store, |repository| {
        stats::run(repository).expect("it is counted")
    });
    let expected = packs(&home.store)
        .iter()
        .map(|name| {
            let layout = layout(&home.store, name);
            layout.object_bytes() - layout.protected_bytes
        })
        .sum::<u64>();
    assert_eq!((report.parity, report.parity_bytes), (Some(PARITY), expected));
    let replica = MemoryStore::new();
    home.replicate_to(&replica);
    assert_all(&replica, "replicate");
}

#[test]
fn a_collection_copies_out_of_damaged_packs_what_parity_gives() {
    let mut home = protected(35);
    let going = home.back_up(3);
    home.back_up(4);
    home.forget(going.id);
    let all = home.ids();
    // Each is damaged in its first frame and in its header.
    for name in packs(&home.store) {
        alter(&home.store, name, flip(150..260));
    }
    let options =
        GcOptions { max_delete_percent: 100.0, max_dead_percent: 0.0, ..GcOptions::default() };
    let (_, said) = with_warnings(&home, &home.store, |repository| {
        gc::run(repository, &options).expect("a collection")
    });
    assert!(said.contains(&"parity.used"), "{said:?}");
    let repository = home.lab.open(&home.store, "healer");
    assert_eq!(verify_full(&repository).affected_count, 0);
    let healed = heal::run(&repository, false).expect("it heals");
    assert!(healed.lost.is_empty() && healed.chunks == 0, "{healed:?}");
    drop(repository);
    let store = home.store.clone();
    home.assert_holds(&store, &all);
}

#[test]
fn a_repair_that_dies_at_any_call_leaves_packs_as_they_were_or_whole() {
    let home = protected(36);
    let sound = copy_of(&home.store);
    let damaged = copy_of(&sound);
    for name in packs(&damaged) {
        alter(&damaged, name, flip(100..200));
    }
    let heal = |store: &MemoryStore, plan: Plan, cache: &str| {
        let repository = home.lab.open(store, cache);
        assert!(!verify_full(&repository).findings.is_empty());
        drop(repository);
        let store = FaultStore::new(store.clone(), plan);
        let outcome = home
            .lab
            .try_open(&store, OWNER, cache)
            .and_then(|repository| heal::run(&repository, false));
        (outcome, store.calls().len() as u64)
    };
    let store = copy_of(&damaged);
    let (outcome, calls) = heal(&store, Plan::new(), "counts");
    outcome.expect("it heals");
    assert!(same_packs(&store, &sound));
    for call in 0..calls {
        let store = copy_of(&damaged);
        let fault = if call % 2 == 0 { Fault::Crash } else { Fault::CrashAfter };
        let cache = format!("dies-{call}");
        let _died = heal(&store, Plan::new().at(call, fault), &cache);
        for name in packs(&sound) {
            let bytes = object(&store, &name);
            let known = bytes == object(&sound, &name) || bytes == object(&damaged, &name);
            assert!(known, "{call}: {name} is something else");
        }
        let repository = home.lab.open(&store, &cache);
        heal::run(&repository, false).expect("it is completed");
        assert!(same_packs(&store, &sound), "{call}");
        drop(repository);
        std::fs::remove_dir_all(home.lab.cache(&cache)).expect("removed");
    }
}
