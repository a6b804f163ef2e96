//! Goal: forgetting removes what the rules say and nothing else, whatever clocks, writers' dates,
//! listings and deletions do; and wherever it ends, nothing looks damaged and it can be run again.
//! Method: one real backup, and copies of its record with other times, jobs and signers; forget
//! over stores that fail, lie or hide; compare what is left.

use std::collections::BTreeSet;
use std::path::Path;

use cairn_engine::error::{Class, Error, Explain as _};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions, ForgetPlan, ForgetReport};
use cairn_engine::repo::{Repository, keys};
use cairn_engine::retention::{Age, Policy, Rule, Verdict, zone};
use cairn_engine::store::Store as _;
use cairn_engine::store::fault::{Fault, FaultStore, Plan};
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::record::CallKind;
use cairn_format::certificate::Role;
use cairn_format::envelope::Kind;
use cairn_format::ids::{ObjectHash, SnapshotId};
use cairn_format::names::ObjectName;
use cairn_format::record::{Ack, Snapshot};
use cairn_tests::lab::{Lab, TestClock, back_up, copy_of, new_key, verify_full};
use cairn_tests::odd::Odd;

mod clocks;
mod freed;
mod orphans;
mod rolled_back;
mod stores;
mod writers;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
const YEAR_MS: i64 = 365 * DAY_MS;

const NOW_MS: i64 = TestClock::START_MS + 400 * DAY_MS;

/// A repository, and the record of a real snapshot made in it.
struct Scene {
    lab: Lab,
    store: MemoryStore,
    record: Snapshot,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let lab = Lab::new(seed);
        let store = lab.memory();
        let source = lab.path("source");
        std::fs::create_dir(&source).expect("a folder");
        std::fs::write(source.join("file"), "content").expect("a file");
        let made = back_up(&lab.open(&store, "maker"), &source).expect("a backup");
        let record = made.snapshot.expect("a snapshot").record;
        lab.clock.set_ms(NOW_MS);
        let owner = lab.open(&store, "maker");
        keys::add(&owner, &new_key("host", Role::Writer)).expect("a writer");
        keys::add(&owner, &new_key("other", Role::Writer)).expect("a writer");
        keys::add(&owner, &new_key("reader", Role::Reader)).expect("a reader");
        keys::add(&owner, &new_key("maintainer", Role::Maintainer)).expect("a maintainer");
        Self { lab, store, record }
    }

    /// One snapshot a day for so many days up to now, by the owner, instead of the real one.
    fn with_days(seed: u64, days: i64) -> (Self, Vec<SnapshotId>) {
        let scene = Self::new(seed);
        for name in scene.store.names() {
            if matches!(name, ObjectName::Snapshot { .. } | ObjectName::Ack { .. }) {
                scene.store.delete(&name).expect("the real one");
            }
        }
        let ids = (0..days).rev().map(|day| scene.put("owner", NOW_MS - day * DAY_MS)).collect();
        (scene, ids)
    }

    fn as_key(&self, key: &str) -> Repository {
        let name = format!("cache-{key}");
        self.lab.try_open(&self.store, key, &name).expect("it opens")
    }

    /// A snapshot of the job by a key, committed at that time and acknowledged.
    fn put(&self, key: &str, time_ms: i64) -> SnapshotId {
        self.put_as(key, time_ms, |_| {})
    }

    fn put_as(&self, key: &str, time_ms: i64, change: impl FnOnce(&mut Snapshot)) -> SnapshotId {
        let id = self.put_unacknowledged(key, time_ms, change);
        self.acknowledge(key, id);
        id
    }

    fn put_unacknowledged(
        &self,
        key: &str,
        time_ms: i64,
        change: impl FnOnce(&mut Snapshot),
    ) -> SnapshotId {
        let repository = self.as_key(key);
        let mut record = Snapshot {
            started_ms: time_ms,
            finished_ms: time_ms,
            previous: None,
            ..self.record.clone()
        };
        change(&mut record);
        let object = repository.seal_signed(Kind::Snapshot, &record.encode()).expect("sealed");
        let id = SnapshotId::from_bytes(*blake3::hash(&object).as_bytes());
        let name_ms = u64::try_from(time_ms).unwrap_or_default();
        self.store.put(&ObjectName::Snapshot { time_ms: name_ms, id }, &object).expect("put");
        id
    }

    fn acknowledge(&self, key: &str, snapshot: SnapshotId) {
        let repository = self.as_key(key);
        let session = self.record.session;
        let ack = Ack { snapshot, time_ms: NOW_MS, tombs_digest: [0; 32], session };
        let object = repository.seal_signed(Kind::Ack, &ack.encode()).expect("sealed");
        let hash = ObjectHash::from_bytes(*blake3::hash(&object).as_bytes());
        self.store.put(&ObjectName::Ack { snapshot, hash }, &object).expect("put");
    }

    fn listed(&self) -> BTreeSet<SnapshotId> {
        listed(&self.store)
    }

    /// Plans and does it as the owner; returns both.
    fn forget(&self, options: &ForgetOptions) -> Result<(ForgetPlan, ForgetReport), Error> {
        forget_in(&self.as_key("owner"), options)
    }
}

fn forget_in(
    repository: &Repository,
    options: &ForgetOptions,
) -> Result<(ForgetPlan, ForgetReport), Error> {
    let plan = forget::plan(repository, options)?;
    let report = forget::run(repository, &plan)?;
    Ok((plan, report))
}

fn listed(store: &MemoryStore) -> BTreeSet<SnapshotId> {
    store
        .names()
        .into_iter()
        .filter_map(|name| match name {
            ObjectName::Snapshot { id, .. } => Some(id),
            _ => None,
        })
        .collect()
}

fn rules(rules: &[Rule]) -> ForgetOptions {
    let zone = zone("UTC").expect("known everywhere");
    ForgetOptions::new(Choice::Rules(Policy::new(rules.to_vec(), zone).expect("rules")))
}

fn named(ids: &[SnapshotId]) -> ForgetOptions {
    ForgetOptions::new(Choice::Named(ids.iter().map(SnapshotId::to_hex).collect()))
}

fn verdict(plan: &ForgetPlan, id: SnapshotId) -> Verdict {
    let planned = plan.series.iter().flat_map(|series| &series.snapshots);
    let mut planned = planned.filter(|planned| planned.snapshot.id == id);
    planned.next().expect("it is in the plan").verdict.clone()
}

fn last(count: u32) -> ForgetOptions {
    rules(&[Rule::Last(count)])
}

fn within(days: u32) -> ForgetOptions {
    rules(&[Rule::Within(Age::days(days))])
}

/// What is wrong with a run that must be refused before anything changes.
fn refused(scene: &Scene, options: &ForgetOptions) -> Error {
    let before = scene.store.names();
    let error = scene.forget(options).expect_err("it is refused");
    assert_eq!(scene.store.names(), before, "{error}");
    error
}

#[test]
fn what_no_rule_keeps_is_gone_with_its_acknowledgement_and_the_rest_is_sound() {
    let (scene, ids) = Scene::with_days(71, 10);
    let before = scene.store.names();
    let plan = forget::plan(&scene.as_key("maintainer"), &last(3)).expect("a plan");
    assert_eq!((plan.kept(), plan.going()), (3, 7));
    assert_eq!(scene.store.names(), before, "a plan changes nothing");
    let report = forget::run(&scene.as_key("maintainer"), &plan).expect("it is done");
    assert_eq!(report, ForgetReport { removed: 7, acknowledged: 7 });
    assert_eq!(scene.listed(), ids[7..].iter().copied().collect());
    let acks = scene.store.names().into_iter();
    assert_eq!(acks.filter(|name| matches!(name, ObjectName::Ack { .. })).count(), 3);
    assert!(verify_full(&scene.as_key("owner")).findings.is_empty());
    let (plan, report) = scene.forget(&last(3)).expect("again");
    assert_eq!((plan.going(), report.removed), (0, 0));
}

#[test]
fn jobs_do_not_affect_each_other_and_paths_play_no_part() {
    let (scene, ids) = Scene::with_days(72, 2);
    let other =
        scene.put_as("owner", NOW_MS - 50 * DAY_MS, |record| "b".clone_into(&mut record.job));
    let moved = scene.put_as("owner", NOW_MS - 49 * DAY_MS, |record| {
        "b".clone_into(&mut record.job);
        record.paths = vec![b"/elsewhere".to_vec()];
        "elsewhere".clone_into(&mut record.host);
    });
    let only = ForgetOptions { job: Some("b".to_owned()), ..last(1) };
    let (plan, _) = scene.forget(&only).expect("done");
    assert_eq!(plan.series.len(), 1);
    assert!(!scene.listed().contains(&other) && scene.listed().contains(&moved));
    assert!(ids.iter().all(|id| scene.listed().contains(id)), "of another job");
    let none = ForgetOptions { job: Some("no such job".to_owned()), ..last(1) };
    assert!(matches!(refused(&scene, &none), Error::NoSnapshot { .. }));
}

#[test]
fn only_who_may_delete_forgets() {
    let (scene, _) = Scene::with_days(73, 3);
    for (key, allowed) in
        [("host", false), ("reader", false), ("maintainer", true), ("owner", true)]
    {
        let plan = forget::plan(&scene.as_key(key), &last(1));
        assert_eq!(plan.is_ok(), allowed, "{key}");
        if let Err(error) = plan {
            assert_eq!((error.class(), error.code()), (Class::WrongKey, "key.role"));
        }
    }
}

/// Whatever call it dies or fails at: nothing looks damaged, nothing that stays is touched, and
/// running it again ends where an undisturbed run ends.
#[test]
fn ended_at_any_call_it_leaves_no_damage_and_completes_when_run_again() {
    let (scene, ids) = Scene::with_days(74, 6);
    let options = last(2);
    let expected = ids[4..].iter().copied().collect::<BTreeSet<_>>();
    let recorded = FaultStore::new(copy_of(&scene.store), Plan::new());
    let repository = scene.lab.open(&recorded, "recorded");
    forget_in(&repository, &options).expect("undisturbed");
    drop(repository);
    let calls = recorded.calls();
    let deletions = calls.iter().filter(|call| call.kind == CallKind::Delete).count();
    assert_eq!(deletions, 8, "four snapshots and their acknowledgements");
    for (number, call) in calls.iter().enumerate() {
        for fault in [Fault::Crash, Fault::CrashAfter, Fault::FailBefore, Fault::FailAfter] {
            // Of what is not there, there is no answer to lose.
            if fault == Fault::FailAfter && call.kind == CallKind::Size {
                continue;
            }
            let what = format!("{fault:?} at call {number} ({call:?})");
            let store = copy_of(&scene.store);
            let faulty = FaultStore::new(store.clone(), Plan::new().at(number as u64, fault));
            let cache = format!("cache-{number}");
            let outcome = scene
                .lab
                .try_open(&faulty, "owner", &cache)
                .and_then(|repository| forget_in(&repository, &options));
            assert!(outcome.is_err(), "{what}: it cannot have gone well");
            assert!(expected.is_subset(&listed(&store)), "{what}: too much is gone");
            let fresh = scene.lab.open(&store, "fresh");
            let report = verify_full(&fresh);
            assert!(report.findings.is_empty(), "{what}: {:?}", report.findings);
            assert!(report.unacknowledged <= 1, "{what}: {}", report.unacknowledged);
            forget_in(&fresh, &options).expect("run again");
            assert_eq!(listed(&store), expected, "{what}");
            drop(fresh);
            remove(&scene.lab.cache("fresh"));
            remove(&scene.lab.cache(&cache));
        }
    }
}

fn remove(folder: &Path) {
    // A run that failed early has made none.
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn names_mean_one_snapshot_each_and_the_last_of_a_job_stays() {
    let (scene, ids) = Scene::with_days(81, 3);
    let ambiguous = ForgetOptions::new(Choice::Named(vec![String::new()]));
    assert_eq!(refused(&scene, &ambiguous).class(), Class::Usage);
    let digits = scene.listed().into_iter().map(|id| id.to_hex()[..1].to_owned());
    let digits = digits.collect::<Vec<_>>();
    let twice = digits.iter().find(|one| digits.iter().filter(|other| other == one).count() > 1);
    if let Some(digit) = twice {
        let ambiguous = ForgetOptions::new(Choice::Named(vec![digit.clone()]));
        assert!(matches!(refused(&scene, &ambiguous), Error::AmbiguousSnapshot { .. }));
    }
    let none = ForgetOptions::new(Choice::Named(vec!["ffffffffffff".to_owned()]));
    assert!(matches!(refused(&scene, &none), Error::NoSnapshot { .. }));
    scene.forget(&named(&ids[..1])).expect("one");
    assert_eq!(scene.listed().len(), 2);
    let all = scene.listed().into_iter().collect::<Vec<_>>();
    let error = refused(&scene, &named(&all));
    assert_eq!((error.class(), error.code()), (Class::Refused, "snapshot.last"));
    let even = ForgetOptions { remove_last: true, ..named(&all) };
    scene.forget(&even).expect("told so");
    assert!(scene.listed().is_empty());
    let (plan, _) = scene.forget(&last(1)).expect("there is nothing to do");
    assert_eq!((plan.kept(), plan.going()), (0, 0));
}

impl Scene {
    fn over(&self, store: &Odd<MemoryStore>) -> Repository {
        self.lab.try_open(store, "owner", "odd").expect("it opens")
    }

    fn odd(&self) -> Odd<MemoryStore> {
        Odd::new(self.store.clone())
    }

    fn snapshot_names(&self) -> Vec<ObjectName> {
        let names = self.store.names().into_iter();
        names.filter(|name| matches!(name, ObjectName::Snapshot { .. })).collect()
    }
}
