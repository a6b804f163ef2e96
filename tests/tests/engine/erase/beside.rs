//! Erasures beside forgetting, backups, collections and each other.

use std::sync::atomic::{AtomicU64, Ordering};

use cairn_engine::error::Error;
use cairn_engine::ops::erase::{self, EraseError};
use cairn_engine::ops::forget;
use cairn_engine::ops::gc;
use cairn_engine::store::Store as _;
use cairn_engine::store::fault::{FaultStore, Plan};
use cairn_engine::store::record::CallKind;
use cairn_format::names::ObjectName;
use cairn_tests::compare::assert_same_tree;
use cairn_tests::garbage::everything;
use cairn_tests::lab::{alone, back_up, copy_of, inside, select, verify_full};
use cairn_tests::odd::Odd;
use cairn_tests::seed::noise;
use cairn_tests::tree;

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
