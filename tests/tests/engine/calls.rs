//! Goal: whatever store call an operation fails or dies at, before or after it was carried out, nothing
//! is lost, and running it again completes it.
//! Method: as SQLite tests: the calls of each operation are recorded once; then it is run again from the
//! same state once for every call and fault, looked at by a host that knows nothing, run again, and
//! looked at again. Backups of trees by the host that failed are in `crash.rs`, forgetting is in
//! `retention/`.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::error::{Error, Explain as _};
use cairn_engine::ops::erase::{self, EraseError, EraseOptions};
use cairn_engine::ops::replicate::{self, Target};
use cairn_engine::ops::verify::{self, Level, VerifyOptions};
use cairn_engine::ops::{gc, heal, repair_index, snapshots};
use cairn_engine::repo::{Repository, keys};
use cairn_engine::store::Store;
use cairn_engine::store::fault::{Call, Fault, FaultStore, Plan};
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::record::CallKind;
use cairn_format::certificate::Role;
use cairn_format::names::{ObjectName, PackKind};
use cairn_tests::contents::contents;
use cairn_tests::garbage::{Scene, everything, packs};
use cairn_tests::ground::{Ground, WRITER, back_up, files};
use cairn_tests::lab::{OWNER, copy_of, new_key, object};
use cairn_tests::odd::Odd;
use parking_lot::Mutex;

/// What is run, what must be there throughout, and what when it is complete.
struct Scenario<'a> {
    ground: &'a Ground,
    /// Snapshots that are there whatever happens.
    there: &'a [&'a str],
    /// Does it, on the way of a store.
    run: &'a dyn Fn(Arc<dyn Store>) -> Result<(), Error>,
    /// Looks at a store where it was done.
    done: &'a dyn Fn(&MemoryStore, &str),
}

/// A store that is a plain copy of the one in memory, and the way to it.
type Prepared = (MemoryStore, Arc<dyn Store>);

impl Scenario<'_> {
    /// Runs it with every fault at every call. At least so many calls must have been struck.
    fn at_every_call(&self, calls_min: usize) {
        let prepare = |store: &MemoryStore, faulty: FaultStore<MemoryStore>| {
            (store.clone(), Arc::new(faulty) as Arc<dyn Store>)
        };
        self.at_every_call_prepared(calls_min, &prepare);
    }

    fn at_every_call_prepared(
        &self,
        calls_min: usize,
        prepare: &dyn Fn(&MemoryStore, FaultStore<MemoryStore>) -> Prepared,
    ) {
        let strike = |plan: Plan| {
            let copy = copy_of(&self.ground.store);
            let faulty = FaultStore::new(copy.clone(), plan);
            let (store, way) = prepare(&copy, faulty.clone());
            let outcome = (self.run)(way);
            (store, faulty, outcome)
        };
        let (store, recorded, outcome) = strike(Plan::new());
        outcome.expect("it runs undisturbed");
        (self.done)(&store, "undisturbed");
        let calls = recorded.calls();
        assert!(calls.len() >= calls_min, "only {} calls", calls.len());
        for (number, call) in calls.iter().enumerate() {
            let changes = matches!(call.kind, CallKind::Put | CallKind::Delete);
            let before = [Fault::FailBefore, Fault::Crash];
            let after = [Fault::FailAfter, Fault::CrashAfter];
            for fault in before.into_iter().chain(after.into_iter().filter(|_| changes)) {
                let what = format!("{fault:?} at call {number} ({call:?})");
                let (store, _, outcome) = strike(Plan::new().at(number as u64, fault));
                self.ground.assert_there(&store, self.there, &what);
                if outcome.is_ok() {
                    (self.done)(&store, &format!("{what}, which it took"));
                }
                let again = (self.run)(Arc::new(store.clone()));
                again.unwrap_or_else(|error| panic!("{what}, run again: {error}"));
                self.ground.assert_there(&store, self.there, &what);
                (self.done)(&store, &what);
            }
        }
    }
}

fn as_key(ground: &Ground, store: Arc<dyn Store>, key: &str) -> Result<Repository, Error> {
    ground.lab.open_alone(store, key)
}

#[test]
fn the_first_backup() {
    let ground = Ground::new(301);
    let run = |store| back_up(&as_key(&ground, store, OWNER)?, "one").map(|_| ());
    let done = |store: &MemoryStore, what: &str| {
        ground.assert_there(store, &["one"], what);
        ground.assert_sound(store, what);
    };
    Scenario { ground: &ground, there: &[], run: &run, done: &done }.at_every_call(12);
}

/// Only the host that stored the first knows what the second resembles.
#[test]
fn a_backup_that_stores_what_differs() {
    let ground = Ground::with(302, &["before"]);
    let both = |store| {
        let host = as_key(&ground, store, OWNER)?;
        back_up(&host, "one")?;
        back_up(&host, "two")
    };
    let run = |store| both(store).map(|_| ());
    let done = |store: &MemoryStore, what: &str| {
        ground.assert_there(store, &["before", "one", "two"], what);
        ground.assert_sound(store, what);
    };
    let report = both(Arc::new(copy_of(&ground.store))).expect("a backup");
    assert!(report.deltas.chunks > 0, "nothing is stored as a delta");
    let scenario = Scenario { ground: &ground, there: &["before"], run: &run, done: &done };
    scenario.at_every_call(20);
}

#[test]
fn a_backup_by_a_key_that_cannot_read() {
    let ground = Ground::with(303, &["one"]);
    let run = |store| back_up(&as_key(&ground, store, WRITER)?, "two").map(|_| ());
    let done = |store: &MemoryStore, what: &str| {
        ground.assert_there(store, &["one", "two"], what);
        ground.assert_sound(store, what);
    };
    Scenario { ground: &ground, there: &["one"], run: &run, done: &done }.at_every_call(10);
}

#[test]
fn a_backup_after_one_that_was_never_acknowledged() {
    let ground = Ground::with(304, &["one", "two"]);
    let listed = snapshots::list(&ground.owner()).expect("a list");
    let two = listed.iter().find(|snapshot| snapshot.record.job == "two").expect("two").id;
    let of_two =
        |name: &ObjectName| matches!(name, ObjectName::Ack { snapshot, .. } if *snapshot == two);
    for ack in ground.names(of_two) {
        ground.store.delete(&ack).expect("deleted");
    }
    let run = |store| back_up(&as_key(&ground, store, OWNER)?, "two").map(|_| ());
    let done = |store: &MemoryStore, what: &str| {
        ground.assert_there(store, &["one", "two"], what);
        ground.assert_sound(store, what);
    };
    Scenario { ground: &ground, there: &["one"], run: &run, done: &done }.at_every_call(12);
}

/// The next backup but one merges segments.
#[test]
fn a_backup_that_merges_segments() {
    let ground = Ground::with(305, &["one", "two"]);
    // Each by a host that does not merge what it has not seen.
    for name in ["three", "four", "five", "six"] {
        back_up(&ground.owner(), name).expect("a backup");
    }
    let there = ["one", "two", "three", "four", "five", "six"];
    let run = |store| back_up(&as_key(&ground, store, OWNER)?, "seven").map(|_| ());
    let done = |store: &MemoryStore, what: &str| {
        ground.assert_there(store, &[&there[..], &["seven"]].concat(), what);
        ground.assert_sound(store, what);
    };
    Scenario { ground: &ground, there: &there, run: &run, done: &done }.at_every_call(12);
}

fn collect(ground: &Ground, store: Arc<dyn Store>) -> Result<gc::GcReport, Error> {
    gc::run(&as_key(ground, store, OWNER)?, &everything())
}

/// Everything dead is gone, and a further collection finds nothing to do.
fn assert_collected(ground: &Ground, store: &MemoryStore, what: &str) {
    ground.assert_sound(store, what);
    let again = collect(ground, Arc::new(store.clone())).expect("it collects");
    assert_eq!((again.packs_deleted, again.packs_written), (0, 0), "{what}: {again:?}");
    let unsaid = packs(store).len() as u64;
    assert_eq!(again.plan.packs_total, unsaid, "{what}: {again:?}");
}

#[test]
fn a_collection_of_dead_packs_and_of_packs_that_are_dead_in_part() {
    let scene = Scene::new(62);
    let recorded = FaultStore::new(copy_of(&scene.store), Plan::new());
    let report = scene.collect(&recorded, "recorded").expect("it collects");
    assert!(report.plan.packs_repacked > 0 && report.packs_deleted > 0, "{report:?}");
    let calls = recorded.calls();
    assert!(calls.iter().filter(|call| call.kind == CallKind::Delete).count() >= 3);
    for (number, call) in calls.iter().enumerate() {
        let mut faults = vec![Fault::Crash, Fault::FailBefore];
        match call.kind {
            CallKind::Put => faults.extend([Fault::CrashAfter, Fault::FailAfter, Fault::Full]),
            CallKind::Delete => faults.extend([Fault::CrashAfter, Fault::FailAfter]),
            _ => {}
        }
        for fault in faults {
            let store = copy_of(&scene.store);
            let cache = format!("cache-{number}-{fault:?}").replace([' ', '{', '}', ':'], "");
            let faulty = FaultStore::new(store.clone(), Plan::new().at(number as u64, fault));
            let _outcome = scene.collect(&faulty, &cache);
            scene.assert_kept(&store, "fresh");
            // By the host that died, or by another.
            let next = if number % 2 == 0 { cache.as_str() } else { "other" };
            scene.collect(&store, next).expect("the next collection completes");
            scene.assert_kept(&store, "fresh");
            let left = scene.collect(&store, "third").expect("it collects");
            assert_eq!(left.packs_deleted, 0, "{fault:?} at {call:?} left something");
            for used in [cache.as_str(), "other", "third"] {
                let _none = std::fs::remove_dir_all(scene.lab.cache(used));
            }
        }
    }
}

#[test]
fn a_collection_that_takes_bases_away() {
    let ground = Ground::with(307, &["one", "two", "three", "four", "five"]);
    ground.forget("one");
    let report = collect(&ground, Arc::new(copy_of(&ground.store))).expect("it collects");
    assert!(report.plan.packs_dead > 0 && report.plan.packs_repacked > 0, "{report:?}");
    assert!(report.chunks_rebased > 0, "{report:?}");
    let run = |store| collect(&ground, store).map(|_| ());
    let done = |store: &MemoryStore, what: &str| assert_collected(&ground, store, what);
    let there = ["two", "three", "four", "five"];
    Scenario { ground: &ground, there: &there, run: &run, done: &done }.at_every_call(30);
}

#[test]
fn a_collection_after_one_that_died() {
    for nth in [0, 1] {
        let ground = Ground::with(308, &["one", "two", "three"]);
        ground.forget("one");
        let dying = Plan::new().nth(CallKind::Delete, nth, Fault::Crash);
        let dying = FaultStore::new(ground.store.clone(), dying);
        collect(&ground, Arc::new(dying)).expect_err("it dies");
        assert!(!ground.names(|name| matches!(name, ObjectName::Tomb { .. })).is_empty());
        let run = |store| collect(&ground, store).map(|_| ());
        let done = |store: &MemoryStore, what: &str| assert_collected(&ground, store, what);
        let there = ["two", "three"];
        Scenario { ground: &ground, there: &there, run: &run, done: &done }.at_every_call(20);
    }
}

/// A snapshot appears that needs what is just being condemned; its writer has not looked for tombs
/// again.
#[test]
fn a_collection_that_rescues() {
    let ground = Ground::with(309, &["one", "two"]);
    let late = copy_of(&ground.store);
    // By a host that knows what the first one stored.
    back_up(&ground.owner_of(&late), "one").expect("a backup");
    let known = ground.store.names().into_iter().collect::<BTreeSet<_>>();
    let of_late = late.names().into_iter().filter(|name| !known.contains(name));
    let (acks, others): (Vec<_>, Vec<_>) =
        of_late.partition(|name| matches!(name, ObjectName::Ack { .. }));
    let with_bytes = |names: Vec<ObjectName>| {
        names.into_iter().map(|name| (name, object(&late, &name))).collect::<Vec<(_, Bytes)>>()
    };
    let (acks, others) = (with_bytes(acks), with_bytes(others));
    ground.forget("one");
    let run = |store| collect(&ground, store).map(|_| ());
    let prepare = |copy: &MemoryStore, faulty: FaultStore<MemoryStore>| {
        let (into, others) = (copy.clone(), others.clone());
        let is_tomb = |kind, name: Option<&ObjectName>| {
            kind == CallKind::Put && matches!(name, Some(ObjectName::Tomb { .. }))
        };
        let odd = Odd::new(faulty).before(is_tomb, move || {
            for (name, bytes) in others {
                into.overwrite(name, bytes);
            }
        });
        (copy.clone(), Arc::new(odd) as Arc<dyn Store>)
    };
    let rescued = copy_of(&ground.store);
    let (_, way) = prepare(&rescued, FaultStore::new(rescued.clone(), Plan::new()));
    let report = collect(&ground, way).expect("it collects");
    assert!(report.chunks_rescued > 0, "{report:?}");
    let done = |store: &MemoryStore, what: &str| {
        let store = copy_of(store);
        let listed = snapshots::list(&ground.owner_of(&store)).expect("a list");
        if listed.iter().any(|snapshot| snapshot.record.job == "one") {
            // Now its writer looks, finds all of it, and acknowledges.
            for (name, bytes) in &acks {
                store.overwrite(*name, bytes.clone());
            }
            ground.assert_there(&store, &["one"], what);
        }
        ground.assert_sound(&store, what);
    };
    let scenario = Scenario { ground: &ground, there: &["two"], run: &run, done: &done };
    scenario.at_every_call_prepared(30, &prepare);
}

#[test]
fn a_repair_of_the_index() {
    let ground = Ground::with(310, &["one"]);
    for name in ["two", "three"] {
        back_up(&ground.owner(), name).expect("a backup");
    }
    let segments = ground.names(|name| matches!(name, ObjectName::Index(_)));
    assert!(segments.len() >= 2);
    ground.store.delete(&segments[0]).expect("deleted");
    let mut damaged = object(&ground.store, &segments[1]).to_vec();
    damaged[250] ^= 1;
    ground.store.overwrite(segments[1], damaged.into());
    let run = |store| repair_index::run(&as_key(&ground, store, OWNER)?, false).map(|_| ());
    let done = |store: &MemoryStore, what: &str| {
        ground.assert_there(store, &["one", "two", "three"], what);
        ground.assert_sound(store, what);
        let again = repair_index::run(&ground.owner_of(store), true).expect("it runs");
        assert_eq!((again.packs_added, again.segments_removed), (0, 0), "{what}");
    };
    Scenario { ground: &ground, there: &[], run: &run, done: &done }.at_every_call(8);
}

#[test]
fn adding_a_key() {
    let ground = Ground::with(311, &["one"]);
    let run = |store| {
        keys::add(&as_key(&ground, store, OWNER)?, &new_key("other", Role::Reader)).map(|_| ())
    };
    let done = |store: &MemoryStore, what: &str| {
        let other = as_key(&ground, Arc::new(store.clone()), "other");
        let other = other.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(snapshots::list(&other).expect("a list").len(), 1, "{what}");
        ground.assert_sound(store, what);
    };
    Scenario { ground: &ground, there: &["one"], run: &run, done: &done }.at_every_call(3);
}

#[test]
fn removing_a_key() {
    let ground = Ground::with(312, &["one"]);
    let slot = keys::add(&ground.owner(), &new_key("other", Role::Reader)).expect("a key").to_hex();
    let run = |store| match keys::remove(&as_key(&ground, store, OWNER)?, &slot, false) {
        // It had been carried out.
        Err(Error::NoSlot { .. }) => Ok(()),
        removed => removed.map(|_| ()),
    };
    let done = |store: &MemoryStore, what: &str| {
        let other = as_key(&ground, Arc::new(store.clone()), "other");
        assert!(other.is_err(), "{what}: the key still opens");
        ground.assert_sound(store, what);
    };
    Scenario { ground: &ground, there: &["one"], run: &run, done: &done }.at_every_call(3);
}

/// Verify finds what is damaged, and the backup after it stores that anew.
#[test]
fn a_verification_that_finds_damage_and_the_backup_that_heals_it() {
    let ground = Ground::with(313, &["one", "two"]);
    let damaged = ground.names(|name| matches!(name, ObjectName::Pack(PackKind::Data, _)))[0];
    let mut bytes = object(&ground.store, &damaged).to_vec();
    bytes[192..].iter_mut().step_by(500).for_each(|byte| *byte ^= 1);
    ground.store.overwrite(damaged, bytes.into());
    let run = |store| {
        let host = as_key(&ground, store, OWNER)?;
        let report = verify::run(&host, &VerifyOptions { level: Level::Full })?;
        assert!(!report.findings.is_empty(), "the damage is overlooked");
        for name in ["one", "two"] {
            back_up(&host, name)?;
        }
        Ok(())
    };
    let done = |store: &MemoryStore, what: &str| {
        let host = ground.owner_of(store);
        // So that this host, too, passes over the copy that is damaged.
        let report = verify::run(&host, &VerifyOptions { level: Level::Full }).expect("it runs");
        assert!(report.findings.iter().all(|found| found.object == damaged.to_string()), "{what}");
        let listed = snapshots::list(&host).expect("a list");
        for name in ["one", "two"] {
            let newest = listed.iter().rev().find(|snapshot| snapshot.record.job == name);
            let held = contents(&host, newest.expect("a snapshot"));
            assert!(held == Ok(files(name)), "{what}: {name}: {:?}", held.err());
        }
    };
    Scenario { ground: &ground, there: &[], run: &run, done: &done }.at_every_call(20);
}

/// Takes a file out of a snapshot, or the whole of it.
fn erase_one(owner: &Repository, paths: Vec<Vec<u8>>) -> Result<(), Error> {
    let options = EraseOptions {
        job: Some("one".to_owned()),
        paths,
        max_delete_percent: 100.0,
        ..EraseOptions::default()
    };
    let done =
        erase::plan(owner, &options, None).and_then(|plan| erase::run(owner, &options, plan));
    match done {
        // It had been carried out.
        Err(Error::Erase(EraseError::NothingMatches { .. }) | Error::NoSnapshot { .. }) => {
            // Only the collection may be left to do.
            gc::run(owner, &everything()).map(|_| ())
        }
        done => done?.uncollected.map_or(Ok(()), Err),
    }
}

#[test]
fn an_erasure_of_a_path() {
    let ground = Ground::with(316, &["one", "two"]);
    let run = |store| erase_one(&as_key(&ground, store, OWNER)?, vec![b"/own".to_vec()]);
    let done = |store: &MemoryStore, what: &str| {
        let owner = ground.owner_of(store);
        let listed = snapshots::list(&owner).expect("a list");
        let ones = listed.iter().filter(|one| one.record.job == "one").collect::<Vec<_>>();
        assert!(ones.len() == 1 && ones[0].acknowledged, "{what}: {}", ones.len());
        let mut left = files("one");
        left.remove("own");
        assert_eq!(contents(&owner, ones[0]), Ok(left), "{what}");
        ground.assert_there(store, &["two"], what);
        // What a session that died has stored is spared for a day.
        collect(&ground, Arc::new(store.clone())).expect("it collects");
        assert_collected(&ground, store, what);
    };
    Scenario { ground: &ground, there: &["two"], run: &run, done: &done }.at_every_call(40);
}

#[test]
fn an_erasure_of_a_whole_snapshot() {
    let ground = Ground::with(317, &["one", "two"]);
    let run = |store| erase_one(&as_key(&ground, store, OWNER)?, Vec::new());
    let done = |store: &MemoryStore, what: &str| {
        let listed = snapshots::list(&ground.owner_of(store)).expect("a list");
        assert!(listed.iter().all(|one| one.record.job == "two"), "{what}");
        assert_collected(&ground, store, what);
    };
    Scenario { ground: &ground, there: &["two"], run: &run, done: &done }.at_every_call(20);
}

fn replicate_to(home: &Repository, replica: Arc<dyn Store>) -> Result<(), Error> {
    let report = replicate::run(home, &[Target::new("replica", replica)], false)?;
    report.replicas.into_iter().try_for_each(|outcome| {
        let done = outcome.done?;
        assert!(done.damaged.is_empty(), "{:?}", done.damaged);
        Ok(())
    })
}

/// The calls are those to home.
#[test]
fn a_replication_to_a_new_replica() {
    let ground = Ground::with(318, &["one", "two"]);
    let replica = Mutex::new(MemoryStore::new());
    let run = |store| {
        let replica = Arc::new(replica.lock().clone());
        replicate_to(&as_key(&ground, store, OWNER)?, replica)
    };
    let done = |_: &MemoryStore, what: &str| {
        let there = std::mem::take(&mut *replica.lock());
        ground.assert_there(&there, &["one", "two"], what);
        ground.assert_sound(&there, what);
    };
    let there = ["one", "two"];
    Scenario { ground: &ground, there: &there, run: &run, done: &done }.at_every_call(12);
}

/// The calls are those to the replica, which gets one snapshot and gives up another.
#[test]
fn a_replication_that_brings_a_replica_up_to_date() {
    let home = Ground::with(319, &["one", "two"]);
    let replica = MemoryStore::new();
    replicate_to(&home.owner(), Arc::new(replica.clone())).expect("a replication");
    home.forget("one");
    back_up(&home.owner(), "three").expect("a backup");
    let there = Ground { store: replica, ..Ground::with(319, &[]) };
    let run = |store| replicate_to(&home.owner(), store);
    let done = |store: &MemoryStore, what: &str| {
        there.assert_there(store, &["two", "three"], what);
        there.assert_sound(store, what);
        let listed = snapshots::list(&there.owner_of(store)).expect("a list");
        // One that has lost its acknowledgement is an orphan, and goes when it is a day old.
        let mut left = listed.iter().filter(|one| one.acknowledged);
        assert!(left.all(|one| one.record.job != "one"), "{what}");
    };
    Scenario { ground: &there, there: &["two"], run: &run, done: &done }.at_every_call(20);
}

/// What is damaged is healed from a copy that has the same packs, and from one that has the same chunks
/// in others.
#[test]
fn healing_from_another_copy() {
    for differently_packed in [false, true] {
        let ground = Ground::with(320, &["zero", "one", "two"]);
        ground.forget("zero");
        let other = MemoryStore::new();
        replicate_to(&ground.owner(), Arc::new(other.clone())).expect("a replication");
        if differently_packed {
            collect(&ground, Arc::new(ground.store.clone())).expect("it collects");
        }
        for name in ground.names(|name| matches!(name, ObjectName::Pack(..))) {
            let mut bytes = object(&ground.store, &name).to_vec();
            bytes[192..].iter_mut().step_by(500).for_each(|byte| *byte ^= 1);
            ground.store.overwrite(name, bytes.into());
        }
        let run = |store| {
            let mut host = as_key(&ground, store, OWNER)?;
            let copy = host.open_copy(Arc::new(other.clone()), &host.context.clone())?;
            host.add_fallback(copy);
            verify::run(&host, &VerifyOptions { level: Level::Full })?;
            let lost = heal::run(&host, false)?.lost;
            assert!(lost.is_empty(), "{lost:?}");
            Ok(())
        };
        let done = |store: &MemoryStore, what: &str| {
            ground.assert_there(store, &["one", "two"], what);
            let store = copy_of(store);
            collect(&ground, Arc::new(store.clone())).expect("it collects");
            ground.assert_there(&store, &["one", "two"], what);
            ground.assert_sound(&store, what);
        };
        Scenario { ground: &ground, there: &[], run: &run, done: &done }.at_every_call(15);
    }
}

/// What was stored and not named is known to the host that failed, and to nobody else.
#[test]
fn what_interrupted_healing_has_stored_is_named_by_the_next() {
    let ground = Ground::with(321, &["zero", "one", "two"]);
    ground.forget("zero");
    let other = Arc::new(copy_of(&ground.store));
    collect(&ground, Arc::<MemoryStore>::clone(&other)).expect("it collects");
    let wanted = |name: &ObjectName| matches!(name, ObjectName::Pack(PackKind::Data, _));
    for name in ground.names(wanted) {
        ground.store.delete(&name).expect("deleted");
    }
    let open = |store: FaultStore<MemoryStore>| {
        let mut host = as_key(&ground, Arc::new(store), OWNER).expect("it opens");
        let other = Arc::<MemoryStore>::clone(&other);
        let copy = host.open_copy(other, &host.context.clone()).expect("a copy");
        host.add_fallback(copy);
        host
    };
    let recorded = FaultStore::new(copy_of(&ground.store), Plan::new());
    heal::run(&open(recorded.clone()), false).expect("it heals");
    let is_segment =
        |call: &Call| call.kind == CallKind::Put && matches!(call.name, Some(ObjectName::Index(_)));
    let number = recorded.calls().iter().position(is_segment).expect("a segment is put");
    let plan = Plan::new().at(number as u64, Fault::FailBefore);
    let host = open(FaultStore::new(ground.store.clone(), plan));
    heal::run(&host, false).expect_err("the segment is not put");
    assert!(heal::run(&host, false).expect("it heals").lost.is_empty());
    ground.assert_there(&ground.store, &["one", "two"], "healed");
}

/// The loop itself must be able to fail: an operation that forgets to look at an answer is found out.
#[test]
fn an_operation_that_ignores_a_failure_is_found_out() {
    let ground = Ground::new(314);
    let run = |store: Arc<dyn Store>| {
        // It reports success whatever happened.
        let _ignored = as_key(&ground, store, OWNER).and_then(|host| back_up(&host, "one"));
        Ok(())
    };
    let done = |store: &MemoryStore, what: &str| ground.assert_there(store, &["one"], what);
    let scenario = Scenario { ground: &ground, there: &[], run: &run, done: &done };
    let found =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scenario.at_every_call(1)));
    let told = found.expect_err("it is not found out");
    let told = told.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(told.contains("is not there"), "{told}");
}

/// What stops an operation is told with a code of its own and a next step, not as damage.
#[test]
fn a_failure_of_the_store_is_told_as_such() {
    let ground = Ground::with(315, &["one"]);
    let faulty =
        FaultStore::new(copy_of(&ground.store), Plan::new().nth(CallKind::Put, 1, Fault::Full));
    let host = as_key(&ground, Arc::new(faulty), OWNER).expect("it opens");
    let error = back_up(&host, "two").expect_err("it is full");
    assert_eq!(error.code(), "store.full", "{error}");
    assert!(error.hint().is_some());
}
