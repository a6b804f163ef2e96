//! What expires on a replica is erased there in time, whatever this host remembers: also where a
//! replication died, where its memory was lost, and where others replicate as well.

use std::sync::Arc;

use cairn_engine::error::{Error, Explain as _};
use cairn_engine::ops::gc;
use cairn_engine::ops::replicate::{self, Done, Opener, Target};
use cairn_engine::repo::places::{Places, Replication};
use cairn_engine::retention::Rule;
use cairn_engine::store::Store;
use cairn_engine::store::fault::{Fault, FaultStore, Plan};
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::record::CallKind;
use cairn_format::names::ObjectName;
use cairn_tests::lab::copy_of;
use cairn_tests::odd::{Deletes, Odd};
use cairn_tests::seed::noise;
use cairn_tests::tree;

use super::lost::lose;
use super::{DAY_MS, HOUR_MS, Home, everything, only, policy, target};

const PLACE: &str = "there";

/// A replica that keeps the newest, in a place that is remembered.
fn newest(store: &(impl Store + Clone + 'static)) -> Target {
    Target { place: Some(PLACE.to_owned()), rules: policy(vec![Rule::Last(1)]), ..target(store) }
}

fn places(home: &Home, cache: &str) -> Places {
    Places::new(&home.lab.cache(cache)).expect("a memory of places")
}

fn state(home: &Home) -> Replication {
    let place = places(home, "home").recall(PLACE).expect("the place is known");
    place.replication.expect("there were replications")
}

fn run(home: &Home, cache: &str, target: Target) -> Result<Done, Error> {
    let repository = home.lab.open(&home.store, cache);
    only(replicate::run(&repository, &[target], false).expect("it runs"))
}

/// Whether something on a replica is needed by no snapshot.
fn has_dead(home: &Home, replica: &MemoryStore) -> bool {
    let alone = home.lab.open(replica, "dead");
    let plan = gc::plan(&alone, &everything()).expect("a plan");
    drop(alone);
    std::fs::remove_dir_all(home.lab.cache("dead")).expect("removed");
    plan.packs_dead > 0 || plan.bytes_freed > 0 || plan.packs_condemned > 0
}

/// Home with two snapshots, the first of them on a replica.
fn begun(seed: u64) -> (Home, MemoryStore) {
    let mut home = Home::new(seed);
    home.back_up(1);
    let replica = MemoryStore::new();
    run(&home, "home", newest(&replica)).expect("a replication");
    home.back_up(2);
    (home, replica)
}

#[test]
fn what_expired_is_erased_though_the_replication_died_after_it_was_forgotten() {
    let (home, begun) = begun(50);
    let whole = copy_of(&begun);
    let counted = FaultStore::new(copy_of(&whole), Plan::new());
    // A memory of its own each time, as it was.
    let remembered = places(&home, "home").recall(PLACE).expect("it is known");
    run(&home, "home", newest(&counted)).expect("a replication");
    let calls = counted.calls().len() as u64;
    let now_ms = home.now_ms;
    for call in calls.saturating_sub(24)..calls {
        home.lab.clock.set_ms(now_ms);
        let replica = copy_of(&whole);
        let cache = format!("dies-{call}");
        places(&home, &cache).remember(&remembered).expect("remembered");
        let dying = FaultStore::new(replica.clone(), Plan::new().at(call, Fault::CrashAfter));
        let _died = run(&home, &cache, newest(&dying));
        home.lab.clock.set_ms(now_ms + 10 * DAY_MS);
        run(&home, &cache, newest(&replica)).expect("a replication");
        assert!(!has_dead(&home, &replica), "{call} of {calls}");
    }
}

#[test]
fn what_expired_is_erased_though_nothing_is_remembered_of_it() {
    let (home, replica) = begun(51);
    assert_eq!(run(&home, "home", newest(&replica)).expect("a replication").forgotten, 1);
    assert!(has_dead(&home, &replica));
    std::fs::remove_dir_all(home.lab.cache("home")).expect("removed");
    let done = run(&home, "home", newest(&replica)).expect("a replication");
    assert!(done.collected.is_some() && done.dead_since_ms.is_none());
    assert!(!has_dead(&home, &replica));
    // Once is enough.
    assert!(run(&home, "home", newest(&replica)).expect("a replication").collected.is_none());
}

#[test]
fn what_another_host_forgot_there_is_erased() {
    let (mut home, replica) = begun(52);
    assert_eq!(run(&home, "other", newest(&replica)).expect("a replication").forgotten, 1);
    // The other host collects when it is due, and never comes again.
    home.back_up(3);
    assert_eq!(run(&home, "other", newest(&replica)).expect("a replication").forgotten, 1);
    assert!(has_dead(&home, &replica));
    home.pass(HOUR_MS);
    assert!(run(&home, "home", newest(&replica)).expect("a replication").forgotten == 0);
    home.pass(4 * DAY_MS);
    run(&home, "home", newest(&replica)).expect("a replication");
    assert!(!has_dead(&home, &replica));
}

#[test]
fn a_copy_beside_it_does_not_undo_what_is_remembered() {
    let (mut home, replica) = begun(53);
    let snapshot = home.back_up(3);
    let (memory, store) = (places(&home, "home"), replica.clone());
    let open = Opener::new(move || {
        // Meanwhile a replication forgets something, and writes that down.
        let mut place = memory.recall(PLACE).expect("it is known");
        let replication = place.replication.get_or_insert_default();
        (replication.dead_since_ms, replication.dead_notes) = (Some(77), 9);
        memory.remember(&place).expect("it is remembered");
        Ok(Arc::new(store.clone()) as Arc<dyn Store>)
    });
    let also = Target {
        place: Some(PLACE.to_owned()),
        only: Some(snapshot.id),
        ..Target::at("also", open)
    };
    run(&home, "home", also).expect("a copy");
    assert_eq!(state(&home).dead_since_ms, Some(77));
}

#[test]
fn an_erasure_that_is_refused_is_not_done() {
    let (mut home, replica) = begun(54);
    let locked = Odd::new(replica).deleting(Deletes::Locked);
    run(&home, "home", newest(&locked)).expect("a replication");
    home.pass(10 * DAY_MS);
    let done = run(&home, "home", newest(&locked)).expect("a replication");
    assert!(!done.collected.expect("a collection").versions_kept.is_empty());
    assert!(done.dead_since_ms.is_some());
    assert!(state(&home).failure.is_some());
}

#[test]
fn what_the_rules_of_a_replica_let_go_is_meant_however_much_it_is() {
    let mut home = Home::new(55);
    let replica = MemoryStore::new();
    let careful =
        || Target { max_delete_percent: gc::MAX_DELETE_PERCENT_DEFAULT, ..newest(&replica) };
    for change in 1..5 {
        std::fs::write(home.source.join("new"), noise(900_000, change)).expect("a file");
        tree::settle(&home.source);
        home.back_up(change);
        run(&home, "home", careful()).expect("a replication");
    }
    home.pass(10 * DAY_MS);
    let done = run(&home, "home", careful()).expect("a replication");
    let plan = done.collected.expect("a collection").plan;
    assert!(plan.bytes_freed * 2 > plan.bytes_total, "{plan:?}");
    assert!(done.dead_since_ms.is_none() && !has_dead(&home, &replica));
}

/// A host that copied the snapshot misses it; one that has never seen it there goes by what is to be there.
#[test]
fn a_replica_that_does_not_list_what_it_is_to_have_is_not_emptied() {
    for (host, code) in [("home", "gc.rolled_back"), ("other", "gc.refused")] {
        let (mut home, replica) = begun(56);
        home.pass(10 * DAY_MS);
        let newest_id = home.back_up(3).id;
        let alone = Target { only: Some(newest_id), ..newest(&replica) };
        run(&home, "home", alone).expect("it is copied");
        let kept = replica.clone();
        // When it forgets what the rules let go, the store loses the other one.
        let is_receipt = |kind, name: Option<&ObjectName>| {
            kind == CallKind::Put && matches!(name, Some(ObjectName::Receipt { .. }))
        };
        let losing = Odd::new(replica.clone()).before(is_receipt, move || {
            lose(&kept, &[newest_id]);
        });
        let max_delete_percent = gc::MAX_DELETE_PERCENT_DEFAULT;
        let careful = Target { max_delete_percent, ..newest(&losing) };
        let before = super::packs(&replica);
        let refused = run(&home, host, careful).expect_err("it is refused");
        assert!(losing.has_acted());
        assert_eq!(refused.code(), code);
        assert!(super::packs(&replica).is_superset(&before));
        let place = places(&home, host).recall(PLACE).expect("the place is known");
        assert!(place.replication.expect("there were replications").dead_since_ms.is_some());
    }
}
