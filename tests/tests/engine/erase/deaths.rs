//! Erasures that die: the next one completes them, and what they leave is counted once.

use cairn_engine::error::Error;
use cairn_engine::ops::erase::{EraseError, EraseOptions};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::repo::Repository;
use cairn_engine::retention::{Cause, RetentionError, Verdict};
use cairn_engine::store::fault::{Call, Fault, FaultStore, Plan};
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::record::CallKind;
use cairn_format::names::ObjectName;
use cairn_tests::compare::assert_same_tree;
use cairn_tests::lab::{OWNER, copy_of, inside, object, select};
use cairn_tests::seed::noise;
use cairn_tests::tree;

use super::{Scene, below, keep_last, list, run, without};

#[test]
fn an_erasure_that_dies_at_any_call_is_completed_by_the_next() {
    let scene = Scene::new(302, |root, seed| {
        tree::small(root, 12, seed);
        std::fs::write(root.join("folder/secret"), noise(400_000, seed)).expect("a file");
    });
    let gone: [&[u8]; 1] = [b"folder/secret"];
    let options = below(&scene.source, &gone);
    let erase = |store: &dyn Fn(&str) -> Result<Repository, Error>, cache: &str| {
        run(&store(cache)?, &options)
    };
    let recorded = FaultStore::new(copy_of(&scene.store), Plan::new());
    let open = |cache: &str| scene.lab.try_open(&recorded, OWNER, cache);
    erase(&open, "recorded").expect("it erases");
    let calls = recorded.calls();
    let changes = calls.iter().filter(|call| matches!(call.kind, CallKind::Put | CallKind::Delete));
    assert!(changes.count() > 15);
    for (number, call) in calls.iter().enumerate() {
        let stands_for =
            matches!(call.name, Some(ObjectName::Snapshot { .. } | ObjectName::Ack { .. }));
        let faults: &[Fault] = match call.kind {
            CallKind::Put if stands_for => {
                &[Fault::Crash, Fault::CrashAfter, Fault::FailAfter, Fault::Full, Fault::LostPut]
            }
            CallKind::Put => &[Fault::Crash, Fault::CrashAfter, Fault::FailAfter, Fault::Full],
            CallKind::Delete => &[Fault::Crash, Fault::CrashAfter, Fault::FailAfter],
            // Nothing changes between two changes: one death is like another.
            _ => &[],
        };
        for fault in faults {
            let store = copy_of(&scene.store);
            let cache = format!("cache-{number}");
            let faulty = FaultStore::new(store.clone(), Plan::new().at(number as u64, *fault));
            let open = |cache: &str| scene.lab.try_open(&faulty, OWNER, cache);
            let _outcome = erase(&open, &cache);
            // Every snapshot is there, before or after: whoever looks for one by time finds it.
            let repository = scene.lab.open(&store, "fresh");
            let listed = list(&repository);
            for tree in 0..scene.trees.len() {
                let time_ms = listed
                    .iter()
                    .filter(|one| one.acknowledged && one.record.sequence == tree as u64 + 1);
                assert!(time_ms.count() >= 1, "{fault:?} at {call:?} lost a snapshot");
            }
            drop(repository);
            let _none = std::fs::remove_dir_all(scene.lab.cache("fresh"));
            // By the host that died, or by another.
            let next = if number % 2 == 0 { cache.as_str() } else { "other" };
            let open = |cache: &str| scene.lab.try_open(&store, OWNER, cache);
            match erase(&open, next) {
                Ok(_) => {}
                // It was all done but for garbage.
                Err(Error::Erase(EraseError::NothingMatches { .. })) => {
                    let repository = scene.lab.open(&store, next);
                    let all = GcOptions { max_delete_percent: 100.0, ..GcOptions::default() };
                    gc::run(&repository, &all).expect("it collects");
                }
                Err(error) => panic!("{fault:?} at {call:?}: {error}"),
            }
            scene.assert_left(&store, &gone);
            for used in [cache.as_str(), "other"] {
                let _none = std::fs::remove_dir_all(scene.lab.cache(used));
            }
        }
    }
}

/// The repository as an erasure leaves it that has acknowledged what it made, and dies.
fn dead_before_removal(scene: &Scene) -> MemoryStore {
    let options = below(&scene.source, &[b"text"]);
    let recorded = FaultStore::new(copy_of(&scene.store), Plan::new());
    let repository = scene.lab.open(&recorded, "recorded");
    run(&repository, &options).expect("it erases");
    let calls = recorded.calls();
    let mut deletes = calls.iter().filter(|call| call.kind == CallKind::Delete);
    let first_ack = deletes.position(|call| matches!(call.name, Some(ObjectName::Ack { .. })));
    let first_ack = first_ack.expect("an acknowledgement goes") as u64;
    drop(repository);
    let store = copy_of(&scene.store);
    let dies = Plan::new().nth(CallKind::Delete, first_ack, Fault::Crash);
    let died = run(&scene.lab.open(&FaultStore::new(store.clone(), dies), "dies"), &options);
    assert!(died.is_err());
    store
}

#[test]
fn who_names_snapshots_beside_an_interrupted_erasure_means_each_once() {
    let scene = Scene::new(316, |root, seed| tree::small(root, 8, seed));
    let store = dead_before_removal(&scene);
    let repository = scene.lab.open(&store, "other");
    let both = list(&repository);
    assert!(both.len() == 6 && both.iter().all(|one| one.acknowledged));
    for (selector, sequence) in [("latest", 3), ("latest~1", 2), ("job:job~2", 1)] {
        let selected = select(&repository, selector);
        assert_eq!(
            (selected.record.sequence, selected.former().len()),
            (sequence, 1),
            "{selector}"
        );
    }
    let plan = |names: &[&str]| {
        let names = names.iter().map(ToString::to_string).collect();
        forget::plan(&repository, &ForgetOptions::new(Choice::Named(names)))
    };
    let going = |names: &[&str]| {
        let plan = plan(names).expect("a plan");
        let going = plan.series.iter().flat_map(|series| &series.snapshots);
        going.map(|one| one.snapshot.record.sequence).collect::<Vec<_>>()
    };
    assert_eq!(going(&["latest~1"]), [2, 2]);
    // By the id of either.
    for one in both.iter().filter(|one| one.record.sequence == 1) {
        assert_eq!(going(&[&one.id.to_hex()]), [1, 1]);
    }
    let error = plan(&["latest", "latest~1", "latest~2"]).unwrap_err();
    assert!(matches!(error, Error::Retention(RetentionError::Last { .. })), "{error:?}");
    forget::run(&repository, &plan(&["latest~1"]).expect("a plan")).expect("forgotten");
    run(&repository, &below(&scene.source, &[b"text"])).expect("it is completed");
    let left = list(&repository).iter().map(|one| one.record.sequence).collect::<Vec<_>>();
    assert_eq!(left, [1, 3]);
}

/// Two erasures that looked at the same snapshots have each acknowledged what they made of them, and
/// died: nobody may count them twice.
#[test]
fn what_two_erasures_made_of_a_snapshot_counts_once() {
    let scene = Scene::new(317, |root, seed| tree::small(root, 8, seed));
    let store = copy_of(&scene.store);
    for path in [b"text", b"link"] {
        let own = copy_of(&scene.store);
        run(&scene.lab.open(&own, "own"), &below(&scene.source, &[path])).expect("it erases");
        for name in own.names() {
            use ObjectName::{Ack, Index, Pack, Snapshot};
            if matches!(name, Pack(..) | Index(_) | Snapshot { .. } | Ack { .. }) {
                store.overwrite(name, object(&own, &name));
            }
        }
        let _none = std::fs::remove_dir_all(scene.lab.cache("own"));
    }
    let repository = scene.lab.open(&store, "other");
    let all = list(&repository);
    assert!(all.len() == 9 && all.iter().all(|one| one.acknowledged));
    for (selector, sequence) in [("latest", 3), ("latest~1", 2), ("job:job~2", 1)] {
        assert_eq!(select(&repository, selector).record.sequence, sequence, "{selector}");
    }
    let named = ForgetOptions::new(Choice::Named(vec!["latest~1".to_owned()]));
    let named = forget::plan(&repository, &named).expect("a plan");
    assert_eq!(named.going(), 3);
    let plan = keep_last(&repository, 2);
    let kept = plan.series.iter().flat_map(|series| &series.snapshots);
    let kept = kept.filter(|one| one.verdict.keeps());
    let mut kept = kept.map(|one| one.snapshot.record.sequence).collect::<Vec<_>>();
    kept.sort_unstable();
    assert_eq!(kept, [2, 2, 3, 3]);
    forget::run(&repository, &plan).expect("forgotten");
    for path in [b"text", b"link"] {
        run(&repository, &below(&scene.source, &[path])).expect("it is completed");
    }
    let left = list(&repository);
    assert_eq!(left.iter().map(|one| one.record.sequence).collect::<Vec<_>>(), [2, 3]);
    for snapshot in &left {
        let outcome = scene.lab.restore(&repository, snapshot, false);
        let (target, report) = outcome.expect("it restores");
        assert_eq!(report.failure_count, 0);
        let sequence = usize::try_from(snapshot.record.sequence).expect("a small number");
        let expected = without(&scene.trees[sequence - 1], &[b"text", b"link"]);
        assert_same_tree(&expected, &inside(&target, &scene.source));
        std::fs::remove_dir_all(target).expect("removed");
    }
}

/// The state in which a death leaves an erasure: a snapshot is there before and after.
#[test]
fn forgetting_beside_an_erasure_keeps_what_stands_for_the_others() {
    let scene = Scene::new(306, |root, seed| tree::small(root, 8, seed));
    let store = dead_before_removal(&scene);
    let repository = scene.lab.open(&store, "other");
    let both = list(&repository);
    assert_eq!(both.len(), 6);
    let plan = keep_last(&repository, 1);
    let verdicts = plan.series.iter().flat_map(|series| &series.snapshots);
    for planned in verdicts {
        let remade = !planned.snapshot.former().is_empty();
        match &planned.verdict {
            Verdict::Keep(_) => assert!(remade && planned.snapshot.record.sequence == 3),
            Verdict::Go(Cause::MadeAnew { by }) => {
                assert!(!remade && both.iter().any(|one| one.id == *by));
            }
            Verdict::Go(_) => assert!(remade && planned.snapshot.record.sequence < 3),
        }
    }
    assert_eq!(plan.kept(), 1);
    forget::run(&repository, &plan).expect("forgotten");
    let left = list(&repository);
    assert_eq!(left.len(), 1);
    let (target, report) = scene.lab.restore(&repository, &left[0], false).expect("it restores");
    assert_eq!(report.failure_count, 0);
    let expected = without(&scene.trees[2], &[b"text"]);
    assert_same_tree(&expected, &inside(&target, &scene.source));
}

/// What was stored and not named is known to the host that died, and to nobody else.
#[test]
fn what_an_interrupted_erasure_has_stored_is_named_by_the_next() {
    let scene = Scene::new(312, |root, seed| tree::small(root, 8, seed));
    let options = below(&scene.source, &[b"text"]);
    let recorded = FaultStore::new(copy_of(&scene.store), Plan::new());
    run(&scene.lab.open(&recorded, "recorded"), &options).expect("it erases");
    let names =
        |call: &Call| call.kind == CallKind::Put && matches!(call.name, Some(ObjectName::Index(_)));
    let number = recorded.calls().iter().position(names).expect("a segment is put") as u64;
    let store = copy_of(&scene.store);
    let faulty = FaultStore::new(store.clone(), Plan::new().at(number, Fault::FailBefore));
    let repository = scene.lab.open(&faulty, "eraser");
    run(&repository, &options).expect_err("the segment is not put");
    let options = EraseOptions { collect: false, ..options };
    run(&repository, &options).expect("it erases");
    drop(repository);
    scene.assert_left(&store, &[b"text"]);
}
