//! What home lost: a replica that follows home forgets what was forgotten or erased there, and keeps
//! what home merely lacks.

use std::collections::BTreeSet;

use cairn_engine::ops::erase::{self, EraseOptions};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions};
use cairn_engine::ops::replicate::{self, Done, Target};
use cairn_engine::repo::Repository;
use cairn_engine::retention::Rule;
use cairn_engine::store::Store as _;
use cairn_engine::store::fault::{Fault, FaultStore, Plan};
use cairn_engine::store::memory::MemoryStore;
use cairn_format::ids::SnapshotId;
use cairn_format::names::ObjectName;
use cairn_tests::compare::look;
use cairn_tests::lab::{back_up, copy_of, object};

use super::{DAY_MS, Home, acknowledged, only, policy, target};

/// Replicates to a place that is remembered, with what home is for whoever has this cache.
fn follow(home: &Home, cache: &str, replica: &MemoryStore, forget_missing: bool) -> Done {
    let repository = home.lab.open(&home.store, cache);
    let target = Target { place: Some("there".to_owned()), forget_missing, ..target(replica) };
    let report = replicate::run(&repository, &[target], false).expect("it runs");
    only(report).expect("a replication")
}

/// Everything of these snapshots leaves the store, and no trace stays.
pub(super) fn lose(store: &MemoryStore, ids: &[SnapshotId]) {
    for name in store.names() {
        let lost = match &name {
            ObjectName::Snapshot { id, .. } => ids.contains(id),
            ObjectName::Ack { snapshot, .. } => ids.contains(snapshot),
            _ => false,
        };
        if lost {
            store.delete(&name).expect("it is deleted");
        }
    }
}

#[test]
fn what_a_rolled_back_home_lacks_stays_on_a_replica() {
    // By the host that has seen it all, and by one that has seen nothing and backs up first.
    for cache in ["home", "anew"] {
        let mut home = Home::new(40);
        let first = home.back_up(1);
        home.back_up(2);
        let before = copy_of(&home.store);
        let lost = [home.back_up(3).id, home.back_up(4).id];
        let replica = MemoryStore::new();
        follow(&home, "home", &replica, false);
        let mut all = home.ids();
        home.store = before;
        if cache == "anew" {
            let repository = home.lab.open(&home.store, cache);
            home.pass(DAY_MS);
            let report = back_up(&repository, &home.source).expect("a backup");
            let snapshot = report.snapshot.expect("a snapshot");
            home.trees.insert(snapshot.id, look(&home.source));
            all.insert(snapshot.id);
        }
        for _ in 0..3 {
            home.pass(5 * DAY_MS);
            let done = follow(&home, cache, &replica, false);
            let spared = done.spared.iter().copied().collect::<BTreeSet<_>>();
            assert_eq!((spared, done.forgotten), (lost.into(), 0), "{cache}");
            assert_eq!(done.wanted, all.len() as u64);
        }
        home.assert_holds(&replica, &all);
        // What is forgotten goes all the same, and the rest if that is said to be meant.
        forget(&home.lab.open(&home.store, cache), first.id);
        assert_eq!(follow(&home, cache, &replica, false).forgotten, 1);
        let done = follow(&home, cache, &replica, true);
        assert_eq!((done.spared.len(), done.forgotten), (0, 2));
        all.retain(|id| !lost.contains(id) && *id != first.id);
        home.assert_holds(&replica, &all);
    }
}

fn forget(repository: &Repository, id: SnapshotId) {
    let options =
        ForgetOptions { remove_last: true, ..ForgetOptions::new(Choice::Named(vec![id.to_hex()])) };
    let plan = forget::plan(repository, &options).expect("a plan");
    forget::run(repository, &plan).expect("it is forgotten");
}

#[test]
fn snapshots_that_home_lists_no_more_stay_on_a_replica() {
    let mut home = Home::new(41);
    let ids = [1, 2, 3].map(|change| home.back_up(change).id);
    let replica = MemoryStore::new();
    follow(&home, "home", &replica, false);
    lose(&home.store, &ids[1..2]);
    home.pass(10 * DAY_MS);
    let done = follow(&home, "home", &replica, false);
    assert_eq!((done.spared.as_slice(), done.forgotten), (&ids[1..2], 0));
    home.assert_holds(&replica, &ids.into());
    // Home gets it back from there, and then nothing is amiss.
    let there = home.lab.open(&replica, "there");
    let back = replicate::run(&there, &[target(&home.store)], false).expect("it runs");
    assert_eq!(only(back).expect("a replication").copied, ids[1..2]);
    assert_eq!(home.ids(), ids.into());
    assert!(follow(&home, "home", &replica, false).spared.is_empty());
}

#[test]
fn what_was_forgotten_or_erased_goes_whoever_replicates() {
    let mut home = Home::new(42);
    let ids = [1, 2, 3, 4].map(|change| home.back_up(change).id);
    let replica = MemoryStore::new();
    follow(&home, "home", &replica, false);
    home.forget(ids[0]);
    let options = EraseOptions {
        snapshots: vec![ids[1].to_hex()],
        collect: false,
        ..EraseOptions::default()
    };
    let repository = home.open();
    let plan = erase::plan(&repository, &options, None).expect("a plan");
    erase::run(&repository, &options, plan).expect("it erases");
    drop(repository);
    // A host that has seen none of it.
    let done = follow(&home, "anew", &replica, false);
    assert_eq!((done.forgotten, done.spared.len()), (2, 0));
    home.assert_holds(&replica, &ids[2..].iter().copied().collect());
}

#[test]
fn of_two_erasures_that_came_out_alike_one_outcome_goes_from_replicas_too() {
    let mut home = Home::new(46);
    home.back_up(1);
    let text = home.source.join("text").into_os_string().into_encoded_bytes();
    let options = EraseOptions {
        paths: vec![text],
        max_delete_percent: 100.0,
        collect: false,
        ..EraseOptions::default()
    };
    let erase = |home: &Home, store: &MemoryStore, cache: &str| {
        let repository = home.lab.open(store, cache);
        let plan = erase::plan(&repository, &options, None).expect("a plan");
        erase::run(&repository, &options, plan).expect("it erases");
    };
    // Each as if it had not seen the other.
    let other = copy_of(&home.store);
    erase(&home, &home.store, "one");
    home.pass(DAY_MS);
    erase(&home, &other, "two");
    for name in other.names().into_iter().filter(|name| home.store.size(name).is_err()) {
        home.store.put(&name, &object(&other, &name)).expect("it is put");
    }
    assert_eq!(home.ids().len(), 2);
    let replica = MemoryStore::new();
    follow(&home, "home", &replica, false);
    let (whole, before) = (home.store.clone(), copy_of(&replica));
    let mut died_late = 0;
    // It may die before its receipt.
    for call in 0..120 {
        home.store = copy_of(&whole);
        let dying = FaultStore::new(home.store.clone(), Plan::new().at(call, Fault::CrashAfter));
        let cache = format!("dies-{call}");
        let Ok(repository) = home.lab.try_open(&dying, cairn_tests::lab::OWNER, &cache) else {
            continue;
        };
        let erased = erase::plan(&repository, &options, None)
            .and_then(|plan| erase::run(&repository, &options, plan));
        drop(repository);
        let records = |name: &ObjectName| matches!(name, ObjectName::Snapshot { .. });
        if home.store.names().iter().filter(|name| records(name)).count() > 1 {
            continue;
        }
        died_late += usize::from(erased.is_err());
        let replica = copy_of(&before);
        let done = follow(&home, &cache, &replica, false);
        assert_eq!((done.forgotten, done.spared.len()), (1, 0), "call {call}");
        assert_eq!(acknowledged(&home.lab.open(&replica, "there")), home.ids());
        if erased.is_ok() {
            break;
        }
    }
    assert!(died_late > 0, "it never died after the removal");
}

#[test]
fn a_forgetting_that_died_at_any_call_has_said_what_it_meant() {
    let mut home = Home::new(43);
    let ids = [1, 2].map(|change| home.back_up(change).id);
    let begun = MemoryStore::new();
    follow(&home, "home", &begun, false);
    let whole = home.store.clone();
    let mut gone = 0;
    for call in 0..40 {
        home.store = copy_of(&whole);
        let dying = FaultStore::new(home.store.clone(), Plan::new().at(call, Fault::CrashAfter));
        let cache = format!("dies-{call}");
        let Ok(repository) = home.lab.try_open(&dying, cairn_tests::lab::OWNER, &cache) else {
            continue;
        };
        let options = ForgetOptions::new(Choice::Named(vec![ids[0].to_hex()]));
        let _died =
            forget::plan(&repository, &options).and_then(|plan| forget::run(&repository, &plan));
        drop(repository);
        let is_record =
            |name: &ObjectName| matches!(name, ObjectName::Snapshot { id, .. } if *id == ids[0]);
        if home.store.names().iter().any(is_record) {
            continue;
        }
        gone += 1;
        let replica = copy_of(&begun);
        let repository = home.lab.open(&home.store, &format!("{cache}-next"));
        let report = replicate::run(&repository, &[target(&replica)], false).expect("it runs");
        let done = only(report).expect("a replication");
        assert_eq!((done.forgotten, done.spared.len()), (1, 0), "{call}");
    }
    assert!(gone > 1, "{gone}");
}

#[test]
fn what_another_copy_forgot_says_nothing_of_home() {
    let mut home = Home::new(44);
    let ids = [1, 2].map(|change| home.back_up(change).id);
    let (following, ruled) = (MemoryStore::new(), MemoryStore::new());
    follow(&home, "home", &following, false);
    home.replicate_to(&ruled);
    let rules = Target { rules: policy(vec![Rule::Last(1)]), ..target(&ruled) };
    let done = only(home.replicate(&[rules])).expect("a replication");
    assert_eq!((done.forgotten, acknowledged(&home.lab.open(&ruled, "ruled")).len()), (1, 1));
    // Whoever runs home's store takes a snapshot away, and puts there what the other copy says of it.
    for name in ruled.names() {
        if matches!(name, ObjectName::Receipt { .. }) {
            home.store.overwrite(name, object(&ruled, &name));
        }
    }
    lose(&home.store, &ids[..1]);
    let done = follow(&home, "home", &following, false);
    assert_eq!((done.spared.as_slice(), done.forgotten), (&ids[..1], 0));
    home.assert_holds(&following, &ids.into());
}
