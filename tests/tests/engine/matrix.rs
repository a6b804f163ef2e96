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
use cairn_engine::ops::browse::{Kind, ROOT, View, ViewError, ViewOptions};
use cairn_engine::ops::erase::{self, EraseError, EraseOptions};
use cairn_engine::ops::erasure::{self, ErasureOptions};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::heal;
use cairn_engine::ops::lock::{self, LockOptions};
use cairn_engine::ops::replicate::{self, Target};
use cairn_engine::ops::verify::{self, Level, VerifyOptions};
use cairn_engine::ops::{repair_index, snapshots};
use cairn_engine::repo::{Repository, keys};
use cairn_engine::retention::{Policy, Rule, zone};
use cairn_engine::store::Store;
use cairn_engine::store::lock::LockMode;
use cairn_engine::store::memory::MemoryStore;
use cairn_format::certificate::Role;
use cairn_format::names::{ObjectName, PackKind};
use cairn_tests::contents::{Files, contents};
use cairn_tests::garbage::{everything, packs};
use cairn_tests::ground::{Ground, back_up, files};
use cairn_tests::lab::{Lab, OWNER, alone, copy_of, new_key, object};
use cairn_tests::odd::{Locks, Odd};
use parking_lot::Mutex;

/// Moments of one operation at which the other runs, at most.
const MOMENTS_MAX: usize = 14;
/// As many for operations that make many calls.
const MOMENTS_OF_LONG_MAX: usize = 9;
/// What is there before: two snapshots of one job, of which rules keep the newer, one of another, and
/// what only a forgotten one needed.
const BEFORE: [&str; 3] = ["one.1", "one.2", "two"];
/// What stays whatever is done.
const STAYS: [&str; 2] = ["one.2", "two"];
/// What was forgotten, and is backed up again: such a backup relies on what collections delete.
const GONE: &str = "zero";
/// What erasures take a file out of.
const SPARE: &str = "spare";
/// That file.
const UNWANTED: &str = "own";
/// What only the other copy has, and replications to this one bring.
const EXTRA: &str = "extra";
/// How far ahead locks reach.
const LOCKED_FOR_MS: u64 = 40 * 24 * 60 * 60 * 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Backup,
    Read,
    /// A view that is opened and read through, as a mounted one is.
    Mount,
    Verify,
    RepairIndex,
    Keys,
    /// Extends the locks of what is needed.
    Lock,
    Forget,
    Gc,
    Erase,
    /// Looks once more for what receipts name, and deletes what came back.
    Audit,
    /// To a new replica.
    ReplicateFromHere,
    /// What only the other copy has.
    ReplicateToHere,
    /// From the other copy, which has what is damaged here.
    Heal,
    /// A collection that does not list snapshots again: for the test of this test.
    WeakGc,
    /// An erasure that does not list tombs again: for the same.
    WeakErase,
}

impl Operation {
    const ALL: [Self; 14] = [
        Self::Backup,
        Self::Read,
        Self::Mount,
        Self::Verify,
        Self::RepairIndex,
        Self::Keys,
        Self::Lock,
        Self::Forget,
        Self::Gc,
        Self::ReplicateFromHere,
        Self::ReplicateToHere,
        Self::Erase,
        Self::Audit,
        Self::Heal,
    ];

    /// What ARCHITECTURE's table calls it.
    fn label(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Read => "restore, dump, ls, find, diff",
            Self::Mount => "mount",
            Self::Verify => "verify",
            Self::RepairIndex => "repair index",
            Self::Keys => "key add/remove",
            Self::Lock => "lock extend",
            Self::Forget => "forget",
            Self::Gc | Self::WeakGc => "gc",
            Self::Erase | Self::WeakErase => "erase",
            Self::Audit => "erasure report --audit",
            Self::ReplicateFromHere => "replicate from here",
            Self::ReplicateToHere => "replicate to here",
            Self::Heal => "heal",
        }
    }

    /// Whether it makes many calls.
    fn is_long(self) -> bool {
        let long = [Self::Erase, Self::ReplicateFromHere, Self::ReplicateToHere, Self::Heal];
        long.contains(&self)
    }

    /// Errors that are right beside others: it says so, and running it again completes it.
    fn may_fail_with(self, error: &Error) -> bool {
        match self {
            Self::Backup => matches!(error, Error::Condemned { .. }),
            Self::ReplicateFromHere | Self::ReplicateToHere => {
                matches!(error, Error::CopyCondemned { .. })
            }
            Self::Erase => matches!(error, Error::Erase(EraseError::Incomplete { .. })),
            _ => false,
        }
    }

    /// Does it; `number` tells two of a kind apart.
    fn run(self, field: &Field, repository: &mut Repository, number: usize) -> Result<(), Error> {
        match self {
            Self::Backup => back_up(repository, GONE).map(|_| ()),
            Self::Read => read(field, repository),
            Self::Mount => {
                for name in STAYS {
                    let tags = vec![name.to_owned()];
                    let options = ViewOptions { tags, ..ViewOptions::default() };
                    let view = View::open(repository, options)?;
                    let mut seen = Files::new();
                    let all = look(&view, ROOT, &mut seen);
                    let right = all.is_ok() && seen == files(name);
                    assert!(right || (field.is_damaged && all.is_err()), "{name}: {all:?}");
                }
                Ok(())
            }
            Self::Lock => {
                let options = LockOptions {
                    window_ms: LOCKED_FOR_MS,
                    warn_ms: LOCKED_FOR_MS / 2,
                    mode: LockMode::Governance,
                    rules: None,
                    job: None,
                };
                let report = lock::extend(repository, &options)?;
                assert_eq!((report.lapsing, report.absent), (0, 0), "{report:?}");
                assert!(report.withheld.is_empty(), "{:?}", report.withheld);
                assert!(report.snapshots >= STAYS.len() as u64, "{report:?}");
                Ok(())
            }
            Self::Audit => {
                let options = ErasureOptions { audit: true, ..ErasureOptions::default() };
                let report = erasure::run(repository, &options)?;
                assert!(report.unsound.is_empty() && report.audited.is_some(), "{report:?}");
                Ok(())
            }
            Self::Verify => {
                let report = verify::run(repository, &VerifyOptions { level: Level::Full })?;
                let findings = report.findings;
                assert!(field.is_damaged || findings.is_empty(), "verify finds {findings:?}");
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
            Self::Erase => erase(repository, None),
            Self::WeakErase => erase(repository, Some(Weakness::Precheck)),
            Self::ReplicateFromHere => {
                let replica = MemoryStore::new();
                let target = Target::new("new", Arc::new(replica.clone()));
                replicate(repository, target, field.is_damaged)?;
                field.ground.assert_there(&replica, &STAYS, "a replica of here");
                field.ground.assert_sound(&replica, "a replica of here");
                Ok(())
            }
            Self::ReplicateToHere => {
                let other = field.ground.owner_of(&field.other);
                let listed = snapshots::list(&other)?;
                let extra = listed.iter().find(|one| one.record.job == EXTRA).expect("it is there");
                // By the way that is watched.
                let here = Arc::clone(&repository.vault().store);
                let target = Target { only: Some(extra.id), ..Target::new("here", here) };
                replicate(&other, target, false)
            }
            Self::Heal => {
                let other = Arc::new(copy_of(&field.other));
                let copy = repository.open_copy(other, &repository.context.clone())?;
                repository.add_fallback(copy);
                verify::run(repository, &VerifyOptions { level: Level::Full })?;
                let report = heal::run(repository, false)?;
                assert!(report.lost.is_empty(), "{:?}", report.lost);
                Ok(())
            }
            Self::WeakGc => {
                let weakness = Some(Weakness::NoResweep);
                gc::run(repository, &GcOptions { weakness, ..everything() }).map(|_| ())
            }
        }
    }
}

/// Takes a file out of a snapshot, if that is still to be done.
fn erase(repository: &Repository, weakness: Option<Weakness>) -> Result<(), Error> {
    let options = EraseOptions {
        job: Some(SPARE.to_owned()),
        paths: vec![format!("/{UNWANTED}").into_bytes()],
        max_delete_percent: 100.0,
        weakness,
        ..EraseOptions::default()
    };
    let done = erase::plan(repository, &options, None)
        .and_then(|plan| erase::run(repository, &options, plan));
    match done {
        Err(Error::Erase(EraseError::NothingMatches { .. })) => Ok(()),
        Ok(report) => {
            assert!(report.waiting.is_empty(), "{:?}", report.waiting);
            report.uncollected.map_or(Ok(()), Err)
        }
        Err(error) => Err(error),
    }
}

fn replicate(home: &Repository, target: Target, is_damaged: bool) -> Result<(), Error> {
    for outcome in replicate::run(home, &[target], false)?.replicas {
        let damaged = outcome.done?.damaged;
        assert!(is_damaged || damaged.is_empty(), "{damaged:?}");
        if !damaged.is_empty() {
            // It says so, and has to be run again.
            return Err(Error::CopyCondemned { snapshots: damaged.len() });
        }
    }
    Ok(())
}

fn new_name(number: usize) -> String {
    format!("new-{number}")
}

/// Reads the files below a directory of a view; those of snapshots that stand twice once.
fn look(view: &View<'_>, directory: u64, files: &mut Files) -> Result<(), ViewError> {
    let batch = view.list(directory, 0, 1_000)?;
    if batch.damaged {
        return Err(ViewError::Absent);
    }
    for listed in batch.entries {
        let found = view.lookup(directory, &listed.name)?;
        match found.kind {
            Kind::Directory => look(view, found.number, files)?,
            Kind::File => {
                let file = view.open_file(found.number)?;
                let bytes = usize::try_from(found.bytes).expect("it is small");
                let mut content = Vec::new();
                while content.len() < bytes {
                    let part = view.read(&file, content.len() as u64, 10_000)?;
                    assert!(!part.is_empty(), "a file ends early");
                    content.extend(part);
                }
                files.insert(String::from_utf8_lossy(&listed.name).into_owned(), content);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Reads every snapshot that rules keep.
fn read(field: &Field, repository: &Repository) -> Result<(), Error> {
    let listed = snapshots::list(repository)?;
    for name in STAYS {
        let tagged = |tags: &[String]| tags.iter().any(|tag| tag == name);
        let snapshot = listed.iter().find(|snapshot| tagged(&snapshot.record.tags));
        let held = contents(repository, snapshot.expect("it stays"));
        let right = held == Ok(files(name)) || (field.is_damaged && held.is_err());
        assert!(right, "{name}: {:?}", held.err());
    }
    Ok(())
}

/// Two copies of a repository.
struct Field {
    /// This one, on which the operations run.
    ground: Ground,
    /// The other, which holds all that this one does, and more.
    other: MemoryStore,
    /// Something here is damaged until it is healed.
    is_damaged: bool,
}

impl Field {
    fn new(seed: u64) -> Self {
        let ground = Ground::with(seed, &[GONE, "one.1", "one.2", "two", SPARE]);
        let other = MemoryStore::new();
        let target = Target::new("other", Arc::new(other.clone()));
        replicate(&ground.owner(), target, false).expect("a copy");
        back_up(&ground.owner_of(&other), EXTRA).expect("a backup");
        ground.forget(GONE);
        keys::add(&ground.owner(), &new_key("old", Role::Reader)).expect("a key");
        // A pack that no segment names, so that there is something to repair.
        let known = ground.store.names().into_iter().collect::<BTreeSet<_>>();
        let twin = copy_of(&ground.store);
        back_up(&ground.owner_of(&twin), "leftover").expect("a backup");
        for name in packs(&twin).into_iter().filter(|name| !known.contains(name)) {
            ground.store.overwrite(name, object(&twin, &name));
        }
        ground.assert_there(&ground.store, &BEFORE, "before");
        Self { ground, other, is_damaged: false }
    }

    /// With a pack here that is damaged, and whole in the other copy.
    fn damaged(seed: u64) -> Self {
        let field = Self::new(seed);
        let store = &field.ground.store;
        let whole = |name: &ObjectName| {
            let alike = |other: &MemoryStore| other.size(name).is_ok();
            matches!(name, ObjectName::Pack(PackKind::Data, _)) && alike(&field.other)
        };
        let damage = |name: ObjectName| {
            let copy = copy_of(store);
            let mut bytes = object(&copy, &name).to_vec();
            bytes.iter_mut().skip(300).step_by(500).for_each(|byte| *byte ^= 1);
            copy.overwrite(name, bytes.into());
            copy
        };
        let names = store.names().into_iter().filter(whole);
        let mut needed = names.filter(|name| {
            let fresh = field.ground.owner_of(&damage(*name));
            let report = verify::run(&fresh, &VerifyOptions { level: Level::Full });
            report.expect("it runs").findings.len() > 1
        });
        let name = needed.next_back().expect("a pack that is needed");
        store.overwrite(name, object(&damage(name), &name));
        Self { is_damaged: true, ..field }
    }
}

fn open(lab: &Lab, store: Arc<dyn Store>) -> Repository {
    lab.open_alone(store, OWNER).expect("it opens")
}

/// A store whose objects can be locked, as those of [`Operation::Lock`] have to be.
fn lockable(store: &MemoryStore, locks: &Locks) -> Odd<MemoryStore> {
    Odd::new(store.clone()).with_locks(Arc::clone(locks))
}

/// One operation runs between two calls of the other.
fn beside(field: &Field, outer: Operation, inner: Operation, call: usize) -> (MemoryStore, bool) {
    let what = format!("{inner:?} before call {call} of {outer:?}");
    let store = copy_of(&field.ground.store);
    let heals = [outer, inner].contains(&Operation::Heal);
    // What is damaged stops others until it is healed; then they complete.
    let may_fail = |operation: Operation, error: &Error| {
        operation.may_fail_with(error) || (heals && error.is_damage())
    };
    let (locks, lab) = (Locks::default(), Lab::new(7_000 + call as u64));
    let other = lockable(&store, &locks);
    let count = AtomicUsize::new(0);
    let failed = Arc::new(Mutex::new(None));
    let twin = Field {
        ground: Ground { lab: Lab::new(8_000 + call as u64), store: store.clone() },
        other: copy_of(&field.other),
        is_damaged: field.is_damaged,
    };
    let inner_failed = Arc::clone(&failed);
    let way = lockable(&store, &locks).before(
        move |_, _| count.fetch_add(1, Ordering::SeqCst) == call,
        move || {
            let done = inner.run(&twin, &mut open(&lab, Arc::new(other)), 1);
            *inner_failed.lock() = done.err();
        },
    );
    let mut repository = open(&field.ground.lab, Arc::new(way.clone()));
    if let Err(error) = alone(|| outer.run(field, &mut repository, 0)) {
        assert!(may_fail(outer, &error), "{what}: {error} ({})", error.code());
        if heals {
            heal_now(field, &store);
        }
        let again = outer.run(field, &mut repository, 0);
        again.unwrap_or_else(|error| panic!("{what}, again: {error}"));
    }
    if let Some(error) = failed.lock().take() {
        assert!(may_fail(inner, &error), "{what}: the inner one: {error} ({})", error.code());
        if heals {
            heal_now(field, &store);
        }
        let mut repository = open(&field.ground.lab, Arc::new(lockable(&store, &locks)));
        let again = inner.run(field, &mut repository, 1);
        again.unwrap_or_else(|error| panic!("{what}, the inner one again: {error}"));
    }
    if heals {
        heal_now(field, &store);
    }
    (store, way.has_acted())
}

/// Whatever came between: nothing is damaged any more.
fn heal_now(field: &Field, store: &MemoryStore) {
    Operation::Heal.run(field, &mut field.ground.owner_of(store), 9).expect("it heals");
}

fn judge(field: &Field, store: &MemoryStore, pair: [Operation; 2], what: &str) {
    let ground = &field.ground;
    let mut there = STAYS.map(str::to_owned).to_vec();
    if pair.contains(&Operation::Backup) {
        there.push(GONE.to_owned());
    }
    if !pair.contains(&Operation::Forget) {
        there.push(BEFORE[0].to_owned());
    }
    if pair.contains(&Operation::ReplicateToHere) {
        there.push(EXTRA.to_owned());
    }
    if !pair.iter().any(|one| matches!(one, Operation::Erase | Operation::WeakErase)) {
        there.push(SPARE.to_owned());
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
    if pair.iter().any(|one| matches!(one, Operation::Erase | Operation::WeakErase)) {
        let listed = snapshots::list(&owner).expect("a list");
        let of_job = listed.iter().filter(|one| one.record.job == SPARE).collect::<Vec<_>>();
        assert_eq!(of_job.len(), 1, "{what}");
        let mut left = files(SPARE);
        left.remove(UNWANTED);
        assert!(of_job[0].acknowledged, "{what}");
        assert_eq!(contents(&owner, of_job[0]), Ok(left), "{what}");
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
    let (sound, damaged) = (Field::new(seed), Field::damaged(seed + 100));
    let of = |pair: [Operation; 2]| {
        if pair.contains(&Operation::Heal) { &damaged } else { &sound }
    };
    let field = of([outer, outer]);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let way = lockable(&copy_of(&field.ground.store), &Locks::default()).before(
        move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            false
        },
        || {},
    );
    outer.run(field, &mut open(&field.ground.lab, Arc::new(way)), 0).expect("it runs alone");
    let calls = calls.load(Ordering::SeqCst);
    assert!(calls > 2, "{outer:?} makes {calls} calls");
    for inner in Operation::ALL {
        let mut acted = 0;
        let field = of([outer, inner]);
        let long = outer.is_long() || inner.is_long();
        let moments = if long { MOMENTS_OF_LONG_MAX } else { MOMENTS_MAX };
        for call in (0..calls).step_by(calls.div_ceil(moments)) {
            let (store, has_acted) = beside(field, outer, inner, call);
            acted += usize::from(has_acted);
            let what = format!("{inner:?} before call {call} of {outer:?}");
            if has_acted {
                judge(field, &store, [outer, inner], &what);
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
fn a_mounted_view_beside_each() {
    row(Operation::Mount, 514);
}

#[test]
fn extending_locks_beside_each() {
    row(Operation::Lock, 515);
}

#[test]
fn an_audit_beside_each() {
    row(Operation::Audit, 516);
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

#[test]
fn an_erasure_beside_each() {
    row(Operation::Erase, 509);
}

#[test]
fn a_replication_from_here_beside_each() {
    row(Operation::ReplicateFromHere, 510);
}

#[test]
fn a_replication_to_here_beside_each() {
    row(Operation::ReplicateToHere, 511);
}

#[test]
fn healing_beside_each() {
    row(Operation::Heal, 512);
}

/// What must never happen is noticed when it does.
fn is_noticed(seed: u64, weak: Operation, inner: Operation) -> String {
    let field = Field::new(seed);
    let noticed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for call in 0..90 {
            let (store, has_acted) = beside(&field, weak, inner, call);
            if has_acted {
                judge(&field, &store, [weak, inner], "weakened");
            }
        }
    }));
    let told = noticed.expect_err("what is weakened lost nothing");
    told.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn a_collection_that_does_not_look_again_beside_a_backup_is_noticed() {
    let told = is_noticed(508, Operation::WeakGc, Operation::Backup);
    assert!(told.starts_with("weakened") && told.contains(GONE), "{told}");
}

#[test]
fn an_erasure_that_does_not_look_again_beside_a_collection_is_noticed() {
    let told = is_noticed(513, Operation::WeakErase, Operation::Gc);
    assert!(told.contains("is in no pack") || told.starts_with("weakened"), "{told}");
}

#[test]
fn architecture_has_a_cell_for_each_pair() {
    let page = include_str!("../../../ARCHITECTURE.md");
    let cells = |line: &str| {
        let line = line.trim().trim_start_matches('|').trim_end_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    };
    let table = page.lines().skip_while(|line| !line.starts_with("| | backup |"));
    let table = table.take_while(|line| line.starts_with('|')).map(cells).collect::<Vec<_>>();
    let labels = Operation::ALL.map(|operation| operation.label().to_owned());
    let (head, rows) = table.split_first().expect("a table");
    assert_eq!(head.get(1..), Some(labels.as_slice()));
    // Below the line under the head.
    let rows = rows.get(1..).expect("rows");
    assert_eq!(rows.iter().map(|row| row[0].clone()).collect::<Vec<_>>(), labels);
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(row.len(), labels.len() + 1, "{}", row[0]);
        for (other, cell) in row.iter().skip(1).enumerate() {
            assert!(cell.starts_with("ok") || cell == "-", "{} beside {}", row[0], labels[other]);
            assert_eq!(*cell, rows[other][at + 1], "{} and {}", row[0], labels[other]);
        }
    }
}
