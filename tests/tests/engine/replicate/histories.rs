//! Replications that die, run at once, or follow long histories of both sides.

use std::collections::BTreeSet;
use std::sync::Arc;

use cairn_engine::ops::gc;
use cairn_engine::ops::replicate::{self, Target};
use cairn_engine::ops::snapshots;
use cairn_engine::retention::Rule;
use cairn_engine::store::Store;
use cairn_engine::store::fault::{Fault, FaultStore, Plan};
use cairn_engine::store::memory::MemoryStore;
use cairn_format::names::{Folder, ObjectName};
use cairn_tests::lab::{OWNER, copy_of, verify_full};
use cairn_tests::seed::Seed;

use super::{HOUR_MS, Home, acknowledged, everything, only, policy, target};

#[test]
fn two_replications_at_once_complete_one_another() {
    let mut home = Home::new(13);
    for change in 1..4 {
        home.back_up(change);
    }
    let replica = MemoryStore::new();
    let (one, other) = (home.open(), home.lab.open(&home.store, "other host"));
    std::thread::scope(|scope| {
        for repository in [&one, &other] {
            let target = target(&replica);
            scope.spawn(move || {
                let report = replicate::run(repository, &[target], false).expect("it runs");
                only(report).expect("a replication");
            });
        }
    });
    drop((one, other));
    let all = home.ids();
    home.assert_holds(&replica, &all);
}

#[test]
fn a_replication_that_dies_at_any_call_is_completed_by_the_next() {
    let mut home = Home::new(14);
    home.back_up(1);
    home.back_up(2);
    let begun = MemoryStore::new();
    home.replicate_to(&begun);
    home.back_up(3);
    let all = home.ids();
    for (from, step) in [(MemoryStore::new(), 2), (begun, 3)] {
        let counted = FaultStore::new(copy_of(&from), Plan::new());
        home.replicate_to(&counted);
        let calls = counted.calls().len() as u64;
        for call in (0..calls).step_by(step) {
            for fault in [Fault::Crash, Fault::CrashAfter] {
                let replica = copy_of(&from);
                let dying = FaultStore::new(replica.clone(), Plan::new().at(call, fault));
                // Every round has a copy of the same identity: they must not share a cache.
                let cache = format!("dies-{call}-{fault:?}");
                let repository = home.lab.open(&home.store, &cache);
                let died = replicate::run(&repository, &[target(&dying)], false);
                // What only tidies up may fail unnoticed.
                let _died = only(died.expect("it runs"));
                if replica.size(&ObjectName::Format).is_ok() {
                    let alone = home.lab.open(&replica, &format!("{cache}-alone"));
                    let there = acknowledged(&alone);
                    let report = verify_full(&alone);
                    assert!(report.findings.is_empty(), "{call}: {:?}", report.findings);
                    assert!(there.is_subset(&all));
                }
                let report = replicate::run(&repository, &[target(&replica)], false);
                only(report.expect("it runs")).expect("it is completed");
                drop(repository);
                let _none = std::fs::remove_dir_all(home.lab.cache(&cache));
                if call % 6 == 0 {
                    home.assert_holds(&replica, &all);
                }
            }
        }
    }
}

#[test]
fn histories_end_in_replicas_that_hold_what_their_rules_want() {
    let mut seeds = Seed::new();
    for _ in 0..6 {
        history(seeds.next());
    }
}

/// Backups, forgetting and collections at home, collections on the replicas, replications that die.
fn history(seed: u64) {
    cairn_tests::say(&format!("history {seed}"));
    let mut random = Seed::of(seed);
    let mut home = Home::new(seed);
    home.back_up(1);
    let (mirror, ruled) = (MemoryStore::new(), MemoryStore::new());
    let rules = |store: Arc<dyn Store>| Target {
        rules: policy(vec![Rule::Last(2)]),
        max_delete_percent: 100.0,
        erase_within_ms: Some((5 * HOUR_MS).unsigned_abs()),
        ..Target::new("ruled", store)
    };
    for step in 0..14 {
        match random.below(7) {
            0 | 1 => drop(home.back_up(random.below(1_000))),
            2 => {
                let ids = home.ids();
                if ids.len() > 1 {
                    let nth = random.below(ids.len() as u64 - 1) as usize;
                    home.forget(*ids.iter().nth(nth).expect("a snapshot"));
                }
            }
            3 => home.collect(),
            4 => {
                for (store, cache) in [(&mirror, "home"), (&ruled, "other")] {
                    if store.size(&ObjectName::Format).is_ok() {
                        gc::run(&home.lab.open(store, cache), &everything()).expect("collected");
                    }
                }
            }
            _ => {
                let dies = |random: &mut Seed| {
                    let fault =
                        [Fault::Crash, Fault::CrashAfter, Fault::FailAfter, Fault::FailBefore];
                    let fault = fault[random.below(4) as usize];
                    Plan::new().at(random.below(60), fault)
                };
                let one = FaultStore::new(mirror.clone(), dies(&mut random));
                let two = FaultStore::new(ruled.clone(), dies(&mut random));
                let at_home = FaultStore::new(home.store.clone(), dies(&mut random));
                if let Ok(repository) = home.lab.try_open(&at_home, OWNER, "dying") {
                    let targets = [target(&one), rules(Arc::new(two))];
                    let _any = replicate::run(&repository, &targets, false);
                }
            }
        }
        home.pass(HOUR_MS);
        if step % 5 == 4 {
            for store in [&mirror, &ruled] {
                if store.size(&ObjectName::Format).is_ok() {
                    let there = acknowledged(&home.lab.open(store, "glance"));
                    home.assert_holds(store, &there);
                }
            }
        }
    }
    let report = home.replicate(&[target(&mirror), rules(Arc::new(ruled.clone()))]);
    for replica in report.replicas {
        replica.done.expect("a replication");
    }
    let all = home.ids();
    home.assert_holds(&mirror, &all);
    let newest = {
        let mut listed = snapshots::list(&home.open()).expect("listed");
        listed.retain(|one| one.acknowledged);
        listed.sort_by_key(|one| one.record.finished_ms);
        listed.iter().rev().take(1).map(|one| one.id).collect::<BTreeSet<_>>()
    };
    let there = acknowledged(&home.lab.open(&ruled, "glance"));
    assert!(there.len() <= 2 && there.is_superset(&newest), "{there:?}");
    home.assert_holds(&ruled, &there);
    let listing = |store: &MemoryStore| {
        let mut names = 0;
        store
            .list(Folder::Index, &mut |_, _| {
                names += 1;
                Ok(())
            })
            .expect("listed");
        names
    };
    assert!(listing(&mirror) < 40);
}
