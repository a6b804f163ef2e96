//! Goal: forgetting removes what the rules say and nothing else, whatever clocks, writers' dates,
//! listings and deletions do; and wherever it ends, nothing looks damaged and it can be run again.
//! Method: one real backup, and copies of its record with other times, jobs and signers; forget
//! over stores that fail, lie or hide; compare what is left.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use cairn_engine::error::{Class, Error, Explain as _};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions, ForgetPlan, ForgetReport};
use cairn_engine::ops::snapshots;
use cairn_engine::repo::{Repository, keys};
use cairn_engine::retention::{Age, Cause, Doubt, Period, Policy, Reason, Rule, Verdict, zone};
use cairn_engine::store::fault::{Fault, FaultStore, Plan};
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::record::CallKind;
use cairn_engine::store::{Each, Listing, Put, Store, StoreError};
use cairn_format::certificate::Role;
use cairn_format::envelope::Kind;
use cairn_format::ids::{ObjectHash, SnapshotId, WriterId};
use cairn_format::names::{Folder, ObjectName};
use cairn_format::record::{Ack, Config, Snapshot};
use cairn_tests::lab::{Lab, TestClock, back_up, copy_of, new_key, verify_full};

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

/// A store that shows an older state of itself is found out by a host that saw the newer one, and
/// by no other. It says so until somebody says that the snapshot is to be gone.
#[test]
fn a_series_that_ends_earlier_than_before_is_told_by_hosts_that_saw_it() {
    let (scene, _) = Scene::with_days(77, 3);
    let older = copy_of(&scene.store);
    let newest = scene.put("owner", NOW_MS + 1);
    let of_other_job = scene.put_as("owner", NOW_MS, |record| "other".clone_into(&mut record.job));
    let codes = |repository: &Repository| {
        let findings = verify_full(repository).findings.into_iter();
        let mut codes = findings.map(|one| (one.code, one.object)).collect::<Vec<_>>();
        codes.sort_unstable();
        codes
    };
    assert_eq!(codes(&scene.as_key("owner")), []);
    let rolled_back = |id: SnapshotId| ("snapshot.rolled_back", format!("snapshot {id}"));
    let owner = || scene.lab.try_open(&older, "owner", "cache-owner").expect("it opens");
    let mut both = [rolled_back(newest), rolled_back(of_other_job)];
    both.sort_unstable();
    assert_eq!(codes(&owner()), both);
    assert_eq!(codes(&owner()), both, "it goes on to say so");
    assert_eq!(codes(&scene.lab.open(&older, "fresh")), [], "who never saw it cannot tell");
    let plan = forget::plan(&owner(), &last(9)).expect("a plan");
    assert_eq!(plan.damaged.iter().filter(|one| one.code == "snapshot.rolled_back").count(), 2);
    let (plan, _) = forget_in(&owner(), &named(&[of_other_job])).expect("it is to be gone");
    assert_eq!((plan.going(), &plan.bare[..]), (1, &[of_other_job][..]));
    assert_eq!(codes(&owner()), [rolled_back(newest)]);
    // The store shows all of it again; what this host then forgets by name is not missed.
    assert_eq!(codes(&scene.as_key("owner")), []);
    scene.forget(&named(&[newest])).expect("forgotten");
    assert_eq!(codes(&scene.as_key("owner")), []);
    // Neither is what the rules let go.
    let next = scene.put("owner", NOW_MS + 2);
    assert_eq!(codes(&scene.as_key("owner")), []);
    forget_in(&scene.lab.open(&scene.store, "elsewhere"), &last(1)).expect("by another host");
    assert!(scene.listed().contains(&next));
    assert_eq!(codes(&scene.as_key("owner")), []);
}

/// The store shows a config from before a key was revoked.
#[test]
fn a_config_older_than_one_seen_before_is_told() {
    let (scene, _) = Scene::with_days(78, 1);
    let older = copy_of(&scene.store);
    let owner = scene.as_key("owner");
    let config = Config {
        generation: 2,
        revoked: vec![(WriterId::from_bytes([7; 16]), NOW_MS)],
        ..owner.config.clone()
    };
    let object = owner.seal_signed(Kind::Config, &config.encode()).expect("sealed");
    let hash = ObjectHash::from_bytes(*blake3::hash(&object).as_bytes());
    scene.store.put(&ObjectName::Config(hash), &object).expect("put");
    drop(owner);
    assert_eq!(verify_full(&scene.as_key("owner")).findings, []);
    let owner = scene.lab.try_open(&older, "owner", "cache-owner").expect("it opens");
    let findings = verify_full(&owner).findings;
    assert_eq!(findings.iter().map(|one| one.code).collect::<Vec<_>>(), ["config.rolled_back"]);
}

/// A clock that is ten years ahead makes nothing old; one that is ten years behind sees snapshots
/// in the future, and stops.
#[test]
fn clocks_that_are_off_by_ten_years_evict_nothing() {
    let (scene, ids) = Scene::with_days(75, 5);
    scene.lab.clock.set_ms(NOW_MS + 10 * YEAR_MS);
    let (plan, _) = scene.forget(&within(30)).expect("done");
    assert_eq!(plan.reference_ms, NOW_MS);
    assert!(ids.iter().all(|id| scene.listed().contains(id)));
    scene.lab.clock.set_ms(NOW_MS - 10 * YEAR_MS);
    let error = refused(&scene, &last(1));
    assert_eq!((error.class(), error.code()), (Class::Refused, "clock.future"));
    assert!(error.hint().is_some_and(|hint| hint.contains("--trust-clock")));
    // Five minutes are nothing to worry about.
    scene.lab.clock.set_ms(NOW_MS - 4 * 60 * 1_000);
    assert!(scene.forget(&last(5)).is_ok());
    scene.lab.clock.set_ms(NOW_MS - 6 * 60 * 1_000);
    assert_eq!(refused(&scene, &last(5)).code(), "clock.future");
}

/// A backup made while the clock was ten years ahead does not make the others old, neither then
/// nor when the clock is right again.
#[test]
fn a_backup_by_a_clock_ten_years_ahead_evicts_nothing() {
    let (scene, ids) = Scene::with_days(76, 40);
    let then_ms = NOW_MS + 10 * YEAR_MS;
    scene.lab.clock.set_ms(then_ms);
    let wrong = scene.put("owner", then_ms);
    let error = refused(&scene, &within(30));
    assert_eq!((error.class(), error.code()), (Class::Refused, "clock.gap"));
    // Another one an hour later changes nothing.
    scene.lab.clock.set_ms(then_ms + DAY_MS);
    scene.put("owner", then_ms + DAY_MS);
    assert_eq!(refused(&scene, &within(30)).code(), "clock.gap");
    let trusting = ForgetOptions { trust_clock: true, ..within(30) };
    let plan = forget::plan(&scene.as_key("owner"), &trusting).expect("a plan");
    assert_eq!(plan.kept(), 2);
    // The clock is right again.
    scene.lab.clock.set_ms(NOW_MS);
    let error = refused(&scene, &within(30));
    assert_eq!(error.code(), "clock.future");
    let plan = forget::plan(&scene.as_key("owner"), &trusting).expect("a plan");
    let future = Verdict::Keep(vec![Reason::Doubtful(Doubt::Future)]);
    assert_eq!(verdict(&plan, wrong), future);
    assert!(verdict(&plan, ids[20]).keeps() && !verdict(&plan, ids[0]).keeps());
    scene.forget(&named(&[wrong])).expect("what the hint says");
}

/// A writer's key signs snapshots of the owner's job, with whatever dates: the owner's stay.
#[test]
fn a_writer_pushes_out_nothing_that_another_key_signed() {
    let (scene, ids) = Scene::with_days(77, 5);
    let others = scene.put("other", NOW_MS - 3 * DAY_MS);
    for minute in 0..50 {
        scene.put("host", NOW_MS - minute * 60_000);
    }
    let (plan, _) = scene.forget(&last(5)).expect("done");
    assert_eq!(plan.series.len(), 3);
    assert!(ids.iter().chain([&others]).all(|id| scene.listed().contains(id)));
    assert_eq!(plan.kept(), 5 + 1 + 5);
    let joined = ForgetOptions { join_writers: true, ..last(5) };
    let (plan, _) = scene.forget(&joined).expect("done");
    assert_eq!((plan.series.len(), plan.kept()), (1, 5));
}

/// A stolen key dates snapshots back, to be the newest of every past day: what was there when
/// snapshots were last forgotten stays.
#[test]
fn snapshots_that_are_dated_back_push_out_nothing() {
    let scene = Scene::new(78);
    let honest = (0..7)
        .rev()
        .map(|day| scene.put("host", NOW_MS - day * DAY_MS - 60_000))
        .collect::<Vec<_>>();
    let daily = rules(&[Rule::Newest(Period::Daily, 7)]);
    scene.forget(&daily).expect("done");
    let mut forged = Vec::new();
    for day in 1..20 {
        forged.push(scene.put("host", NOW_MS - day * DAY_MS + 60_000));
    }
    for _ in 0..2 {
        let (plan, _) = scene.forget(&daily).expect("done");
        assert!(honest.iter().all(|id| scene.listed().contains(id)));
        let late = Verdict::Keep(vec![Reason::Doubtful(Doubt::Late)]);
        assert!(forged.iter().all(|id| verdict(&plan, *id) == late));
    }
    // They go when they are named.
    scene.forget(&named(&forged)).expect("done");
    assert!(forged.iter().all(|id| !scene.listed().contains(id)));
}

/// By the chain of predecessors this shows even to a host that has seen nothing before.
#[test]
fn a_snapshot_dated_before_its_predecessor_counts_for_nothing() {
    let scene = Scene::new(79);
    let first = scene.put("host", NOW_MS - 2 * DAY_MS);
    let second = scene.put_as("host", NOW_MS - 9 * DAY_MS, |record| record.previous = Some(first));
    let third = scene.put_as("host", NOW_MS - 8 * DAY_MS, |record| record.previous = Some(second));
    let fourth = scene.put_as("host", NOW_MS - DAY_MS, |record| record.previous = Some(third));
    let plan = forget::plan(&scene.as_key("owner"), &last(1)).expect("a plan");
    let backwards = Verdict::Keep(vec![Reason::Doubtful(Doubt::Backwards)]);
    assert_eq!(verdict(&plan, second), backwards);
    assert_eq!(verdict(&plan, third), backwards);
    assert!(verdict(&plan, fourth).keeps());
    assert_eq!(verdict(&plan, first), Verdict::Go(Cause::Beyond));
}

#[test]
fn an_acknowledgement_by_another_writer_does_not_count() {
    let scene = Scene::new(80);
    let honest = scene.put("host", NOW_MS - 5 * DAY_MS);
    let pending = scene.put_unacknowledged("host", NOW_MS - 2 * DAY_MS, |_| {});
    scene.acknowledge("other", pending);
    let plan = forget::plan(&scene.as_key("owner"), &last(1)).expect("a plan");
    assert!(verdict(&plan, honest).keeps());
    assert_eq!(verdict(&plan, pending), Verdict::Keep(vec![Reason::Unacknowledged]));
    scene.acknowledge("maintainer", pending);
    let plan = forget::plan(&scene.as_key("owner"), &last(1)).expect("a plan");
    assert!(verdict(&plan, pending).keeps() && !verdict(&plan, honest).keeps());
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

/// A store in memory that does not do what it says, in one way.
#[derive(Clone, Debug)]
struct Twisted {
    inner: MemoryStore,
    twist: Twist,
}

#[derive(Clone, Debug)]
enum Twist {
    /// Deletions succeed without effect.
    LyingDelete,
    /// These do not appear in listings.
    Hide(BTreeSet<ObjectName>),
    /// Snapshots vanish when their acknowledgements are put.
    VanishAtAck,
    /// This object appears when any is deleted.
    AppearAtDelete(ObjectName, Bytes),
}

impl Store for Twisted {
    fn location(&self) -> String {
        "twisted".to_owned()
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.inner.get(name, bytes_max)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        self.inner.get_range(name, offset, len)
    }

    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        if let (Twist::VanishAtAck, ObjectName::Ack { snapshot, .. }) = (&self.twist, name) {
            for name in self.inner.names() {
                if matches!(name, ObjectName::Snapshot { id, .. } if id == *snapshot) {
                    self.inner.delete(&name)?;
                }
            }
        }
        self.inner.put(name, data)
    }

    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.inner.size(name)
    }

    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        self.inner.list(folder, &mut |name, bytes| match &self.twist {
            Twist::Hide(hidden) if hidden.contains(&name) => Ok(()),
            _ => each(name, bytes),
        })
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        match &self.twist {
            Twist::LyingDelete => Ok(()),
            Twist::AppearAtDelete(other, bytes) if other != name => {
                self.inner.overwrite(*other, bytes.clone());
                self.inner.delete(name)
            }
            _ => self.inner.delete(name),
        }
    }
}

impl Scene {
    fn twisted(&self, twist: Twist) -> Repository {
        let store = Twisted { inner: self.store.clone(), twist };
        self.lab.try_open(&store, "owner", "twisted").expect("it opens")
    }

    fn snapshot_names(&self) -> Vec<ObjectName> {
        let names = self.store.names().into_iter();
        names.filter(|name| matches!(name, ObjectName::Snapshot { .. })).collect()
    }
}

#[test]
fn a_deletion_that_did_not_happen_is_told_and_the_record_stays() {
    let (scene, _) = Scene::with_days(82, 3);
    let before = scene.store.names();
    let error = forget_in(&scene.twisted(Twist::LyingDelete), &last(1)).expect_err("found out");
    assert_eq!((error.class(), error.code()), (Class::Failed, "store.undeleted"));
    assert!(error.to_string().contains("acks/"), "{error}");
    assert_eq!(scene.store.names(), before);
}

#[test]
fn an_empty_listing_does_not_mean_that_there_are_no_snapshots() {
    let (scene, _) = Scene::with_days(83, 3);
    let all = scene.snapshot_names().into_iter().collect();
    let error = forget_in(&scene.twisted(Twist::Hide(all)), &last(1)).expect_err("refused");
    assert_eq!((error.class(), error.code()), (Class::Refused, "store.listing"));
}

/// Whichever snapshot a listing lacks: nothing goes that would stay with all of them in sight,
/// and what is missing is named.
#[test]
fn a_partial_listing_removes_nothing_that_a_whole_one_keeps() {
    let (scene, _) = Scene::with_days(84, 12);
    let options = rules(&[Rule::Newest(Period::Daily, 4), Rule::Newest(Period::Weekly, 2)]);
    let whole = forget::plan(&scene.as_key("owner"), &options).expect("a plan");
    for hidden in scene.snapshot_names() {
        let repository = scene.twisted(Twist::Hide([hidden].into()));
        let plan = forget::plan(&repository, &options).expect("a plan");
        let ObjectName::Snapshot { id, .. } = hidden else { panic!("a snapshot's name") };
        assert_eq!(plan.damaged[0].code, "snapshot.missing");
        assert!(plan.damaged.iter().all(|one| one.subject.contains(&id.to_hex())));
        for planned in plan.series.iter().flat_map(|series| &series.snapshots) {
            let kept = verdict(&whole, planned.snapshot.id).keeps();
            assert!(!kept || planned.verdict.keeps(), "{hidden} hidden: {planned:?}");
        }
    }
}

/// A snapshot that was lost, and its acknowledgement not, is named by `verify` until somebody
/// accepts the loss by naming it.
#[test]
fn the_loss_of_a_snapshot_can_be_accepted() {
    let (scene, ids) = Scene::with_days(85, 3);
    let lost =
        scene.snapshot_names().into_iter().find(|name| name.to_string().contains(&ids[0].to_hex()));
    scene.store.delete(&lost.expect("it is there")).expect("lost");
    assert_eq!(verify_full(&scene.as_key("owner")).findings.len(), 1);
    let (plan, _) = scene.forget(&last(3)).expect("the others");
    assert_eq!(plan.damaged.len(), 1);
    assert_eq!(verify_full(&scene.as_key("owner")).findings.len(), 1);
    let short = ForgetOptions::new(Choice::Named(vec![ids[0].to_hex()[..6].to_owned()]));
    assert!(matches!(refused(&scene, &short), Error::NoSnapshot { .. }));
    let (plan, _) = scene.forget(&named(&ids[..1])).expect("accepted");
    assert_eq!(plan.bare, [ids[0]]);
    assert!(verify_full(&scene.as_key("owner")).findings.is_empty());
}

/// A store that shows one snapshot under two names, one of them with another time, changes
/// nothing, and both names go.
#[test]
fn a_snapshot_under_two_names_is_one() {
    let (scene, ids) = Scene::with_days(86, 3);
    let oldest =
        scene.snapshot_names().into_iter().find(|name| name.to_string().contains(&ids[0].to_hex()));
    let bytes = scene.store.get(&oldest.expect("it is there"), u64::MAX).expect("its bytes");
    let time_ms = u64::try_from(NOW_MS + YEAR_MS).expect("a time");
    scene.store.overwrite(ObjectName::Snapshot { time_ms, id: ids[0] }, bytes);
    let (plan, report) = scene.forget(&last(2)).expect("done");
    assert_eq!((plan.kept(), report.removed), (2, 1));
    assert_eq!(scene.snapshot_names().len(), 2);
    assert!(verify_full(&scene.as_key("owner")).findings.is_empty());
}

/// A backup that was paused so long that its snapshot was taken for an orphan does not report
/// success.
#[test]
fn a_backup_whose_snapshot_was_forgotten_fails_and_leaves_no_acknowledgement() {
    let scene = Scene::new(87);
    let before =
        scene.store.names().into_iter().filter(|name| matches!(name, ObjectName::Ack { .. }));
    let before = before.collect::<Vec<_>>();
    let repository = scene.twisted(Twist::VanishAtAck);
    let error = back_up(&repository, &scene.lab.path("source")).expect_err("it fails");
    assert_eq!(error.code(), "backup.forgotten");
    let after =
        scene.store.names().into_iter().filter(|name| matches!(name, ObjectName::Ack { .. }));
    assert_eq!(after.collect::<Vec<_>>(), before);
    assert!(verify_full(&scene.as_key("owner")).findings.is_empty());
    assert_eq!(snapshots::list(&scene.as_key("owner")).expect("a list").len(), 1);
}

/// An orphan goes when it is old and no rule would keep it; one that a backup may be about to
/// acknowledge is left alone.
#[test]
fn orphans_go_and_young_ones_stay() {
    let (scene, ids) = Scene::with_days(88, 3);
    let old = scene.put_unacknowledged("owner", NOW_MS - 5 * DAY_MS, |_| {});
    let young = scene.put_unacknowledged("owner", NOW_MS - DAY_MS / 2, |_| {});
    scene.forget(&last(1)).expect("done");
    let left = [ids[2], young].into_iter().collect::<BTreeSet<_>>();
    assert_eq!(scene.listed(), left);
    assert!(!scene.listed().contains(&old));
}

/// A backup took longer than a day, and reports success between a plan and its execution.
#[test]
fn an_orphan_that_is_acknowledged_after_it_was_planned_stays() {
    let (scene, _) = Scene::with_days(92, 3);
    let orphan = scene.put_unacknowledged("owner", NOW_MS - 5 * DAY_MS, |_| {});
    let repository = scene.as_key("owner");
    let plan = forget::plan(&repository, &last(3)).expect("a plan");
    assert_eq!(verdict(&plan, orphan), Verdict::Go(Cause::Unacknowledged));
    scene.acknowledge("owner", orphan);
    let removed = forget::run(&repository, &plan).expect("done").removed;
    assert_eq!(removed, 0);
    let listed = snapshots::list(&scene.as_key("owner")).expect("a list");
    assert!(listed.iter().any(|snapshot| snapshot.id == orphan && snapshot.acknowledged));
}

/// A backup that was paused acknowledges its snapshot in the moment in which it is removed as an
/// orphan, and dies: no acknowledgement without a snapshot is left.
#[test]
fn an_orphan_that_is_acknowledged_while_it_is_removed_leaves_nothing_behind() {
    let (scene, ids) = Scene::with_days(89, 3);
    let orphan = scene.put_unacknowledged("owner", NOW_MS - 5 * DAY_MS, |_| {});
    scene.acknowledge("owner", orphan);
    let ack = scene
        .store
        .names()
        .into_iter()
        .find(|name| matches!(name, ObjectName::Ack { snapshot, .. } if *snapshot == orphan));
    let ack = ack.expect("it is there");
    let bytes = scene.store.get(&ack, u64::MAX).expect("its bytes");
    scene.store.delete(&ack).expect("deleted");
    let repository = scene.twisted(Twist::AppearAtDelete(ack, bytes));
    let (plan, _) = forget_in(&repository, &last(3)).expect("done");
    assert_eq!(verdict(&plan, orphan), Verdict::Go(Cause::Unacknowledged));
    assert_eq!(scene.listed(), ids.into_iter().collect());
    assert!(!scene.store.names().contains(&ack));
    assert!(verify_full(&scene.as_key("owner")).findings.is_empty());
}
