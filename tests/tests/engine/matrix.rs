//! Goal: every cell of ARCHITECTURE's table of operations beside each other.
//! Method: one operation runs from beginning to end between two store calls of another, at moments all
//! over the other's course, each by a host of its own; then a host that knows nothing looks. What runs
//! truly at once is in `together.rs`, in `simulate.rs`, and among real processes in
//! `tests/command/killed.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cairn_engine::collect::Weakness;
use cairn_engine::error::{Error, Explain as _};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::verify::{self, Level, VerifyOptions};
use cairn_engine::ops::{repair_index, snapshots};
use cairn_engine::repo::{Repository, keys};
use cairn_engine::retention::{Policy, Rule, zone};
use cairn_engine::store::Store;
use cairn_engine::store::memory::MemoryStore;
use cairn_format::certificate::Role;
use cairn_format::names::ObjectName;
use cairn_tests::contents::contents;
use cairn_tests::garbage::{everything, packs};
use cairn_tests::ground::{Ground, back_up, files};
use cairn_tests::lab::{Lab, OWNER, alone, copy_of, new_key};
use cairn_tests::odd::Odd;

/// Moments of one operation at which the other runs, at most.
const MOMENTS_MAX: usize = 14;
/// What is there before: two snapshots of one job, of which rules keep the newer, one of another, and
/// what only a forgotten one needed.
const BEFORE: [&str; 3] = ["one.1", "one.2", "two"];
/// What stays whatever is done.
const STAYS: [&str; 2] = ["one.2", "two"];
/// What was forgotten, and is backed up again: such a backup relies on what collections delete.
const GONE: &str = "zero";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Backup,
    Read,
    Verify,
    RepairIndex,
    Keys,
    Forget,
    Gc,
    /// A collection that does not list snapshots again: for the test of this test.
    WeakGc,
}

impl Operation {
    const ALL: [Self; 7] = [
        Self::Backup,
        Self::Read,
        Self::Verify,
        Self::RepairIndex,
        Self::Keys,
        Self::Forget,
        Self::Gc,
    ];

    /// Does it; `number` tells two of a kind apart.
    fn run(self, repository: &Repository, number: usize) -> Result<(), Error> {
        match self {
            Self::Backup => back_up(repository, GONE).map(|_| ()),
            Self::Read => read(repository),
            Self::Verify => {
                let report = verify::run(repository, &VerifyOptions { level: Level::Full })?;
                assert!(report.findings.is_empty(), "verify finds {:?}", report.findings);
                Ok(())
            }
            Self::RepairIndex => repair_index::run(repository, false).map(|_| ()),
            Self::Keys => {
                keys::add(repository, &new_key(&new_name(number), Role::Reader))?;
                let slots = keys::list(repository.store())?.into_iter();
                let old = |label: &str| label == "old";
                let mut old =
                    slots.filter(|slot| slot.head.as_ref().is_some_and(|h| old(&h.label)));
                match old.next().map(|slot| keys::remove(repository, &slot.id.to_hex(), false)) {
                    // The other was faster.
                    None | Some(Err(Error::NoSlot { .. })) => Ok(()),
                    Some(removed) => removed.map(|_| ()),
                }
            }
            Self::Forget => {
                let zone = zone("UTC").expect("known everywhere");
                let policy = Policy::new(vec![Rule::Last(1)], zone).expect("a rule");
                let plan = forget::plan(repository, &ForgetOptions::new(Choice::Rules(policy)))?;
                forget::run(repository, &plan).map(|_| ())
            }
            Self::Gc => gc::run(repository, &everything()).map(|_| ()),
            Self::WeakGc => {
                let weakness = Some(Weakness::NoResweep);
                gc::run(repository, &GcOptions { weakness, ..everything() }).map(|_| ())
            }
        }
    }
}

fn new_name(number: usize) -> String {
    format!("new-{number}")
}

/// Reads every snapshot that rules keep.
fn read(repository: &Repository) -> Result<(), Error> {
    let listed = snapshots::list(repository)?;
    for name in STAYS {
        let tagged = |tags: &[String]| tags.iter().any(|tag| tag == name);
        let snapshot = listed.iter().find(|snapshot| tagged(&snapshot.record.tags));
        let held = contents(repository, snapshot.expect("it stays"));
        assert!(held == Ok(files(name)), "{name}: {:?}", held.err());
    }
    Ok(())
}

fn ground(seed: u64) -> Ground {
    let ground = Ground::with(seed, &[GONE, "one.1", "one.2", "two"]);
    ground.forget(GONE);
    keys::add(&ground.owner(), &new_key("old", Role::Reader)).expect("a key");
    // A pack that no segment names, so that there is something to repair.
    let known = ground.store.names().into_iter().collect::<BTreeSet<_>>();
    let twin = copy_of(&ground.store);
    back_up(&ground.owner_of(&twin), "leftover").expect("a backup");
    for name in packs(&twin).into_iter().filter(|name| !known.contains(name)) {
        ground.store.overwrite(name, cairn_tests::lab::object(&twin, &name));
    }
    ground.assert_there(&ground.store, &BEFORE, "before");
    ground
}

fn open(lab: &Lab, store: Arc<dyn Store>) -> Repository {
    lab.open_alone(store, OWNER).expect("it opens")
}

/// One operation runs between two calls of the other.
fn beside(ground: &Ground, outer: Operation, inner: Operation, call: usize) -> (MemoryStore, bool) {
    let what = format!("{inner:?} before call {call} of {outer:?}");
    let store = copy_of(&ground.store);
    let (other, lab, told) = (store.clone(), Lab::new(7_000 + call as u64), what.clone());
    let count = AtomicUsize::new(0);
    let way = Odd::new(store.clone()).before(
        move |_, _| count.fetch_add(1, Ordering::SeqCst) == call,
        move || {
            let done = inner.run(&open(&lab, Arc::new(other)), 1);
            done.unwrap_or_else(|error| panic!("{told}: the inner one: {error}"));
        },
    );
    let repository = open(&ground.lab, Arc::new(way.clone()));
    if let Err(error) = alone(|| outer.run(&repository, 0)) {
        // The one error that is right: it says so, and running it again completes it.
        let collected = matches!(error, Error::Condemned { .. });
        assert!(collected && outer == Operation::Backup, "{what}: {error} ({})", error.code());
        outer.run(&repository, 0).unwrap_or_else(|error| panic!("{what}, again: {error}"));
    }
    (store, way.has_acted())
}

fn judge(ground: &Ground, store: &MemoryStore, pair: [Operation; 2], what: &str) {
    let mut there = STAYS.map(str::to_owned).to_vec();
    if pair.contains(&Operation::Backup) {
        there.push(GONE.to_owned());
    }
    if !pair.contains(&Operation::Forget) {
        there.push(BEFORE[0].to_owned());
    }
    let there = there.iter().map(String::as_str).collect::<Vec<_>>();
    ground.assert_there(store, &there, what);
    ground.assert_sound(store, what);
    let owner = ground.owner_of(store);
    if pair.contains(&Operation::Forget) {
        let listed = snapshots::list(&owner).expect("a list");
        let old = listed.iter().filter(|s| s.record.tags.iter().any(|tag| tag == BEFORE[0]));
        assert_eq!(old.count(), 0, "{what}: it was not forgotten");
    }
    for (number, operation) in pair.into_iter().enumerate() {
        if operation == Operation::Keys {
            let key = ground.lab.open_alone(Arc::new(store.clone()), &new_name(number));
            assert!(key.is_ok(), "{what}: the new key does not open");
            let key = ground.lab.open_alone(Arc::new(store.clone()), "old");
            assert!(key.is_err(), "{what}: the old key opens");
        }
    }
    // Whatever is left, the next collection takes, and nothing else.
    gc::run(&owner, &everything()).unwrap_or_else(|error| panic!("{what}, collected: {error}"));
    let again = gc::run(&ground.owner_of(store), &everything()).expect("it collects");
    assert_eq!((again.packs_deleted, again.packs_written), (0, 0), "{what}: {again:?}");
    ground.assert_there(store, &there, what);
    ground.assert_sound(store, what);
    let tombs = store.names().into_iter().any(|name| matches!(name, ObjectName::Tomb { .. }));
    assert!(tombs, "{what}: nothing was ever collected");
}

/// All cells of a row.
fn row(outer: Operation, seed: u64) {
    let ground = ground(seed);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let way = Odd::new(copy_of(&ground.store)).before(
        move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            false
        },
        || {},
    );
    outer.run(&open(&ground.lab, Arc::new(way)), 0).expect("it runs alone");
    let calls = calls.load(Ordering::SeqCst);
    assert!(calls > 2, "{outer:?} makes {calls} calls");
    for inner in Operation::ALL {
        let mut acted = 0;
        for call in (0..calls).step_by(calls.div_ceil(MOMENTS_MAX)) {
            let (store, has_acted) = beside(&ground, outer, inner, call);
            acted += usize::from(has_acted);
            let what = format!("{inner:?} before call {call} of {outer:?}");
            if has_acted {
                judge(&ground, &store, [outer, inner], &what);
            }
        }
        assert!(acted > 1, "{inner:?} was never beside {outer:?}");
    }
}

#[test]
fn a_backup_beside_each() {
    row(Operation::Backup, 501);
}

#[test]
fn readers_beside_each() {
    row(Operation::Read, 502);
}

#[test]
fn a_verification_beside_each() {
    row(Operation::Verify, 503);
}

#[test]
fn a_repair_of_the_index_beside_each() {
    row(Operation::RepairIndex, 504);
}

#[test]
fn changes_of_keys_beside_each() {
    row(Operation::Keys, 505);
}

#[test]
fn forgetting_beside_each() {
    row(Operation::Forget, 506);
}

#[test]
fn a_collection_beside_each() {
    row(Operation::Gc, 507);
}

/// What must never happen is noticed when it does.
#[test]
fn a_collection_that_does_not_look_again_beside_a_backup_is_noticed() {
    let ground = ground(508);
    let noticed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for call in 0..60 {
            let (store, has_acted) = beside(&ground, Operation::WeakGc, Operation::Backup, call);
            if has_acted {
                judge(&ground, &store, [Operation::WeakGc, Operation::Backup], "weakened");
            }
        }
    }));
    let told = noticed.expect_err("a weakened collection lost nothing");
    let told = told.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(told.starts_with("weakened") && told.contains(GONE), "{told}");
}
