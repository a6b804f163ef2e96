//! Erasures beside forgetting, backups, collections and each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_engine::error::Error;
use cairn_engine::ops::erase::{self, EraseError};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions};
use cairn_engine::ops::gc;
use cairn_engine::ops::snapshots::SnapshotInfo;
use cairn_engine::retention::Verdict;
use cairn_engine::store::Store as _;
use cairn_engine::store::fault::{Call, Fault, FaultStore, Plan};
use cairn_engine::store::record::CallKind;
use cairn_format::names::ObjectName;
use cairn_tests::compare::assert_same_tree;
use cairn_tests::garbage::everything;
use cairn_tests::lab::{alone, back_up, copy_of, inside, object, select, verify_full};
use cairn_tests::odd::Odd;
use cairn_tests::seed::noise;
use cairn_tests::tree;
use parking_lot::Mutex;

use super::{Scene, below, keep_last, list, run, without};

#[test]
fn two_erasures_at_once_end_with_one_of_each() {
    let scene = Scene::new(307, |root, seed| tree::small(root, 8, seed));
    let (one, two) = (scene.lab.open(&scene.store, "one"), scene.lab.open(&scene.store, "two"));
    let (first, second) = (below(&scene.source, &[b"text"]), below(&scene.source, &[b"link"]));
    // Both look, then both do what they planned.
    let plans = (
        erase::plan(&one, &first, None).expect("a plan"),
        erase::plan(&two, &second, None).expect("a plan"),
    );
    erase::run(&one, &first, plans.0).expect("erased");
    // What it was to be made of is gone: planned anew it goes on.
    let outcome = erase::run(&two, &second, plans.1);
    if outcome.is_err() {
        run(&two, &second).expect("erased");
    }
    scene.assert_left(&scene.store, &[b"text", b"link"]);
}

#[test]
fn a_backup_that_may_be_at_work_is_waited_for() {
    let scene = Scene::new(308, |root, seed| tree::small(root, 8, seed));
    let repository = scene.lab.open(&scene.store, "eraser");
    let latest = select(&repository, "latest");
    scene.lab.clock.set_ms(latest.record.finished_ms + 1_000);
    let ack = |name: &ObjectName| matches!(name, ObjectName::Ack { snapshot, .. } if *snapshot == latest.id);
    for name in scene.store.names().iter().filter(|name| ack(name)) {
        scene.store.delete(name).expect("deleted");
    }
    let options = below(&scene.source, &[b"text"]);
    let report = run(&repository, &options).expect("erased");
    assert_eq!((report.snapshots.len(), report.waiting.as_slice()), (2, &[latest.id][..]));
    scene.lab.clock.set_ms(latest.record.finished_ms + 90_000_000);
    let report = run(&repository, &options).expect("erased");
    assert_eq!((report.snapshots.len(), report.waiting.len()), (1, 0));
    let left = list(&repository);
    let acknowledged = left.iter().map(|one| one.acknowledged).collect::<Vec<_>>();
    assert_eq!(acknowledged, [true, true, false]);
}

/// What another host does in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Collects,
    BacksUp,
    Forgets,
    Erases,
}

#[test]
fn whatever_others_do_between_two_changes_nothing_is_lost_and_nothing_comes_back() {
    let scene = Scene::new(311, |root, seed| {
        tree::small(root, 6, seed);
        std::fs::write(root.join("folder/secret"), noise(200_000, seed)).expect("a file");
    });
    let gone: [&[u8]; 1] = [b"folder/secret"];
    let options = below(&scene.source, &gone);
    let recorded = FaultStore::new(copy_of(&scene.store), Plan::new());
    run(&scene.lab.open(&recorded, "recorded"), &options).expect("it erases");
    let calls = recorded.calls();
    let changes = calls.iter().filter(|call| matches!(call.kind, CallKind::Put | CallKind::Delete));
    for number in 0..changes.count() as u64 {
        use Meanwhile::{BacksUp, Collects, Erases, Forgets};
        for meanwhile in [Collects, BacksUp, Forgets, Erases] {
            let store = copy_of(&scene.store);
            let other = scene.lab.open(&store, "other");
            let (source, own) = (scene.source.clone(), options.clone());
            let act = move || match meanwhile {
                Collects => gc::run(&other, &everything()).map(drop).expect("it collects"),
                BacksUp => back_up(&other, &source).map(drop).expect("a backup"),
                Forgets => {
                    let plan = keep_last(&other, 2);
                    forget::run(&other, &plan).map(drop).expect("forgotten");
                }
                // What the one has begun, the other may find half done.
                Erases => drop(run(&other, &own)),
            };
            let count = AtomicU64::new(0);
            let changes = |kind| matches!(kind, CallKind::Put | CallKind::Delete);
            let between = Odd::new(store.clone()).before(
                move |kind, _| changes(kind) && count.fetch_add(1, Ordering::SeqCst) == number,
                act,
            );
            let repository = scene.lab.open(&between, "eraser");
            let outcome = alone(|| run(&repository, &options));
            drop(repository);
            let what = format!("{meanwhile:?} before change {number}");
            // It may have to be run again, and then there may be nothing left to do.
            let repository = scene.lab.open(&store, "after");
            match run(&repository, &options) {
                Ok(_) | Err(Error::Erase(EraseError::NothingMatches { .. })) => {}
                Err(error) => panic!("{what}: {error}; before: {outcome:?}"),
            }
            let listed = list(&repository);
            let expected = match meanwhile {
                Forgets => 2..=3,
                BacksUp => 4..=4,
                Collects | Erases => 3..=3,
            };
            assert!(expected.contains(&listed.len()), "{what}: {} snapshots", listed.len());
            for snapshot in &listed {
                assert!(snapshot.acknowledged, "{what}");
                let (target, report) =
                    scene.lab.restore(&repository, snapshot, false).expect("it restores");
                assert_eq!(report.failure_count, 0, "{what}: {:?}", report.failures);
                let sequence = usize::try_from(snapshot.record.sequence).expect("a small number");
                let tree = scene.trees.get(sequence - 1).filter(|_| snapshot.record.host == "host");
                if let Some(tree) = tree.filter(|_| listed.len() < 4) {
                    assert_same_tree(&without(tree, &gone), &inside(&target, &scene.source));
                }
                assert!(!inside(&target, &scene.source).join("folder/secret").exists(), "{what}");
                std::fs::remove_dir_all(target).expect("removed");
            }
            let found = verify_full(&repository);
            assert!(found.findings.is_empty(), "{what}: {:?}", found.findings);
            drop(repository);
            for cache in ["other", "eraser", "after"] {
                let _none = std::fs::remove_dir_all(scene.lab.cache(cache));
            }
        }
    }
}

/// Another erasure takes over what one has put and not acknowledged yet, and removes what was there
/// before; then the one cannot read any more. It leaves what is no longer its own.
#[test]
fn an_erasure_that_fails_removes_nothing_that_another_has_taken_over() {
    let scene = Scene::new(313, |root, seed| tree::small(root, 6, seed));
    let gone: [&[u8]; 1] = [b"text"];
    let options = below(&scene.source, &gone);
    let is_record = |name: &ObjectName| matches!(name, ObjectName::Snapshot { .. });
    let mut taken_over = 0;
    for call in 0.. {
        let store = copy_of(&scene.store);
        let count = AtomicU64::new(0);
        let half_done = Arc::new(Mutex::new(Vec::new()));
        let way = Odd::new(store.clone());
        let (other, own) = (scene.lab.open(&store, "other"), options.clone());
        let (spoilt, looked, found) = (way.clone(), store.clone(), Arc::clone(&half_done));
        let way = way.before(
            move |_, _| count.fetch_add(1, Ordering::SeqCst) == call,
            move || {
                found.lock().extend(looked.names().into_iter().filter(is_record));
                drop(run(&other, &own));
                for name in looked.names() {
                    if matches!(name, ObjectName::Pack(..)) {
                        spoilt.spoil(name, 0..u64::MAX);
                    }
                }
            },
        );
        let repository = scene.lab.open(&way, "eraser");
        let outcome = alone(|| run(&repository, &options));
        drop(repository);
        if !way.has_acted() {
            break;
        }
        let repository = scene.lab.open(&store, "after");
        let before = list(&scene.lab.open(&scene.store, "before"));
        let new = |name: &ObjectName| !before.iter().any(|one| one.name() == *name);
        let stands =
            |one: &SnapshotInfo| one.acknowledged && half_done.lock().contains(&one.name());
        let takes_over = |one: &SnapshotInfo| stands(one) && new(&one.name());
        if outcome.is_err() && list(&repository).iter().any(takes_over) {
            taken_over += 1;
        }
        match run(&repository, &options) {
            Ok(_) | Err(Error::Erase(EraseError::NothingMatches { .. })) => {}
            Err(error) => panic!("call {call}: {error}; before: {outcome:?}"),
        }
        drop(repository);
        let left = list(&scene.lab.open(&store, "after"));
        assert_eq!(left.len(), 3, "call {call}: {outcome:?}");
        scene.assert_left(&store, &gone);
        for cache in ["other", "eraser", "after", "before"] {
            let _none = std::fs::remove_dir_all(scene.lab.cache(cache));
        }
    }
    assert!(taken_over > 3, "{taken_over}");
}

/// An erasure died when it had put its snapshots; while the next takes them over, one of those that
/// they were made of is forgotten.
#[test]
fn what_is_forgotten_while_an_erasure_is_completed_does_not_come_back() {
    let scene = Scene::new(314, |root, seed| tree::small(root, 6, seed));
    let options = below(&scene.source, &[b"text"]);
    let recorded = FaultStore::new(copy_of(&scene.store), Plan::new());
    run(&scene.lab.open(&recorded, "recorded"), &options).expect("it erases");
    let is_ack = |call: &Call| {
        call.kind == CallKind::Put && matches!(call.name, Some(ObjectName::Ack { .. }))
    };
    let first_ack = recorded.calls().iter().position(is_ack).expect("one is put") as u64;
    let begun = copy_of(&scene.store);
    let dies = FaultStore::new(begun.clone(), Plan::new().at(first_ack, Fault::Crash));
    run(&scene.lab.open(&dies, "dies"), &options).unwrap_err();
    let put = list(&scene.lab.open(&begun, "begun"));
    assert_eq!((put.len(), put.iter().filter(|one| one.acknowledged).count()), (6, 3));
    let goes = put.iter().find(|one| one.acknowledged).expect("the first").id;
    // By another erasure what the dead one has put is made anew once more.
    let ways: [(bool, &[u8]); 3] = [(true, b"text"), (false, b"text"), (false, b"link")];
    for (by_name, path) in ways {
        let options = below(&scene.source, &[path]);
        let (mut forgotten, mut back) = (0, 0);
        for call in 0.. {
            let store = copy_of(&begun);
            let (count, other) = (AtomicU64::new(0), scene.lab.open(&store, "other"));
            let removed = Arc::new(Mutex::new(false));
            let done = Arc::clone(&removed);
            let way = Odd::new(store.clone()).before(
                move |_, _| count.fetch_add(1, Ordering::SeqCst) == call,
                move || {
                    let named = ForgetOptions::new(Choice::Named(vec![goes.to_hex()]));
                    let plan = match by_name {
                        true => forget::plan(&other, &named).expect("a plan"),
                        false => keep_last(&other, 2),
                    };
                    let goes = plan.series.iter().flat_map(|series| &series.snapshots);
                    let goes = goes.filter(|one| matches!(one.verdict, Verdict::Go(_)));
                    let first = goes.filter(|one| one.snapshot.record.sequence == 1).count();
                    *done.lock() = first > 0 && forget::run(&other, &plan).is_ok();
                },
            );
            let repository = scene.lab.open(&way, "eraser");
            let outcome = alone(|| run(&repository, &options));
            drop(repository);
            if !way.has_acted() {
                break;
            }
            let repository = scene.lab.open(&store, "after");
            match run(&repository, &options) {
                Ok(_) | Err(Error::Erase(EraseError::NothingMatches { .. })) => {}
                Err(error) => panic!("call {call}: {error}; before: {outcome:?}"),
            }
            let left = list(&repository);
            let stand = left.iter().filter(|one| one.acknowledged);
            let mut sequences = stand.map(|one| one.record.sequence).collect::<Vec<_>>();
            sequences.sort_unstable();
            match *removed.lock() {
                true if sequences == [2, 3] => forgotten += 1,
                // Forgotten when that had been looked at, and before it was acknowledged.
                true => back += 1,
                false => assert_eq!(sequences, [1, 2, 3], "call {call}: {outcome:?}"),
            }
            drop(repository);
            for cache in ["other", "eraser", "after"] {
                let _none = std::fs::remove_dir_all(scene.lab.cache(cache));
            }
        }
        let few = if by_name { 0 } else { 4 };
        assert!(
            forgotten > 40 && back <= few,
            "by name: {by_name}, {path:?}; {forgotten} were forgotten, and {back} came back"
        );
    }
}

/// A snapshot is taken for an orphan and made anew. Its backup was only slow and acknowledges it, and
/// another erasure removes its record, as what was made of it is there.
#[test]
fn what_a_late_acknowledgement_counts_for_stays() {
    let scene = Scene::new(315, |root, seed| tree::small(root, 6, seed));
    let options = below(&scene.source, &[b"text"]);
    let before = list(&scene.lab.open(&scene.store, "before"));
    let latest = before.last().expect("a snapshot").clone();
    scene.lab.clock.set_ms(latest.record.finished_ms + 90_000_000);
    let is_ack = |name: &ObjectName| matches!(name, ObjectName::Ack { snapshot, .. } if *snapshot == latest.id);
    let ack = scene.store.names().into_iter().find(is_ack).expect("it is acknowledged");
    let late = object(&scene.store, &ack);
    scene.store.delete(&ack).expect("deleted");
    let mut taken = 0;
    for call in 0.. {
        let store = copy_of(&scene.store);
        let (count, other) = (AtomicU64::new(0), store.clone());
        let (repository, acted) = (scene.lab.open(&store, "other"), Arc::new(Mutex::new(false)));
        let (done, late, latest) = (Arc::clone(&acted), late.clone(), latest.clone());
        let way = Odd::new(store.clone()).before(
            move |_, _| count.fetch_add(1, Ordering::SeqCst) == call,
            move || {
                let made =
                    |one: &SnapshotInfo| one.former().contains(&latest.id) && !one.acknowledged;
                if list(&repository).iter().any(made) {
                    other.overwrite(ack, late);
                    let _gone = other.delete(&latest.name());
                    *done.lock() = true;
                }
            },
        );
        let repository = scene.lab.open(&way, "eraser");
        let outcome = alone(|| run(&repository, &options));
        drop(repository);
        if !way.has_acted() {
            break;
        }
        if *acted.lock() {
            taken += 1;
            let repository = scene.lab.open(&store, "after");
            match run(&repository, &options) {
                Ok(_) | Err(Error::Erase(EraseError::NothingMatches { .. })) => {}
                Err(error) => panic!("call {call}: {error}; before: {outcome:?}"),
            }
            drop(repository);
            scene.assert_left(&store, &[b"text"]);
        }
        for cache in ["other", "eraser", "after"] {
            let _none = std::fs::remove_dir_all(scene.lab.cache(cache));
        }
    }
    assert!(taken > 10, "{taken}");
}
