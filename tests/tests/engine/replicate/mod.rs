//! Goal: a replica is a complete repository that holds exactly the snapshots its rules want, each as
//! it was backed up, whatever happened to either side and wherever replications died.
//! Method: histories of backups, forgetting and collections under seeds, with replications at random
//! moments whose stores die at random calls; replicas are looked at alone, with empty caches.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use cairn_engine::error::{Class, Error, Explain as _};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::replicate::{self, Done, ReplicateReport, Target};
use cairn_engine::ops::snapshots::{self, SnapshotInfo};
use cairn_engine::parity::Parity;
use cairn_engine::repo::Repository;
use cairn_engine::retention::{Period, Policy, Rule, zone};
use cairn_engine::store::Store;
use cairn_engine::store::fault::{Fault, FaultStore, Plan};
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::record::CallKind;
use cairn_format::envelope::Cipher;
use cairn_format::ids::SnapshotId;
use cairn_format::names::ObjectName;
use cairn_tests::compare::{Tree, assert_same_tree, look};
use cairn_tests::lab::{Lab, TestClock, back_up, inside, verify_full};
use cairn_tests::seed::noise;
use cairn_tests::tree;

mod expired;
mod hangs;
mod histories;
mod keys;
mod lost;
mod pass;
mod refused;

const HOUR_MS: i64 = 60 * 60 * 1000;

const DAY_MS: i64 = 24 * HOUR_MS;

/// A home copy, and what each of its snapshots held.
pub(crate) struct Home {
    pub(crate) lab: Lab,
    pub(crate) store: MemoryStore,
    pub(crate) source: PathBuf,
    pub(crate) trees: BTreeMap<SnapshotId, Tree>,
    now_ms: i64,
    caches: u64,
}

impl Home {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_parity(seed, None)
    }

    pub(crate) fn with_parity(seed: u64, parity: Option<Parity>) -> Self {
        let lab = Lab::new(seed);
        let store = MemoryStore::new();
        lab.init_with(&store, Cipher::Aes256Gcm, parity);
        let source = lab.path("source");
        tree::small(&source, 20, seed);
        std::fs::write(source.join("large"), noise(700_000, seed ^ 7)).expect("a file");
        let trees = BTreeMap::new();
        Self { lab, store, source, trees, now_ms: TestClock::START_MS, caches: 0 }
    }

    pub(crate) fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.lab.clock.set_ms(self.now_ms);
    }

    pub(crate) fn open(&self) -> Repository {
        self.lab.open(&self.store, "home")
    }

    /// Changes a little of everything; what is there then.
    pub(crate) fn change(&mut self, change: u64) -> Tree {
        self.pass(HOUR_MS);
        let text = (0..3_000).map(|row| format!("{row},{}\n", row * change % 977));
        std::fs::write(self.source.join("text"), text.collect::<String>()).expect("a change");
        std::fs::write(self.source.join(format!("new-{}", change % 5)), noise(40_000, change))
            .expect("a change");
        let mut large = noise(700_000, 7);
        for byte in large.iter_mut().skip(1_000 * change as usize % 600_000).take(3_000) {
            *byte ^= change as u8 | 1;
        }
        std::fs::write(self.source.join("large"), large).expect("a change");
        tree::settle(&self.source);
        look(&self.source)
    }

    /// Changes a little of everything, and backs up.
    pub(crate) fn back_up(&mut self, change: u64) -> SnapshotInfo {
        let tree = self.change(change);
        let report = back_up(&self.open(), &self.source).expect("a backup");
        let snapshot = report.snapshot.expect("a snapshot");
        self.trees.insert(snapshot.id, tree);
        snapshot
    }

    pub(crate) fn forget(&self, id: SnapshotId) {
        let home = self.open();
        let options = ForgetOptions {
            remove_last: true,
            ..ForgetOptions::new(Choice::Named(vec![id.to_hex()]))
        };
        let plan = forget::plan(&home, &options).expect("a plan");
        forget::run(&home, &plan).expect("it is forgotten");
    }

    pub(crate) fn collect(&self) {
        gc::run(&self.open(), &everything()).expect("a collection");
    }

    pub(crate) fn ids(&self) -> BTreeSet<SnapshotId> {
        acknowledged(&self.open())
    }

    pub(crate) fn replicate(&self, targets: &[Target]) -> ReplicateReport {
        replicate::run(&self.open(), targets, false).expect("replications run")
    }

    pub(crate) fn replicate_to(&self, store: &(impl Store + Clone + 'static)) -> Done {
        only(self.replicate(&[target(store)])).expect("it is replicated")
    }

    /// Looks at a replica as a host does that knows nothing: it is sound, and holds these snapshots
    /// as they were.
    pub(crate) fn assert_holds(&mut self, store: &MemoryStore, wanted: &BTreeSet<SnapshotId>) {
        self.caches += 1;
        let cache = format!("alone-{}", self.caches);
        let alone = self.lab.open(store, &cache);
        let listed = snapshots::list(&alone).expect("it lists");
        assert_eq!(acknowledged(&alone), *wanted);
        let report = verify_full(&alone);
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        for snapshot in listed.iter().filter(|one| one.acknowledged) {
            let (target, report) = self.lab.restore(&alone, snapshot, false).expect("a restore");
            assert_eq!(report.failure_count, 0, "{:?}", report.failures);
            let tree = self.trees.get(&snapshot.id).expect("a snapshot of this test");
            assert_same_tree(tree, &inside(&target, &self.source));
            std::fs::remove_dir_all(target).expect("removed");
        }
        drop(alone);
        let _none = std::fs::remove_dir_all(self.lab.cache(&cache));
    }
}

/// Options that let everything dead go.
pub(crate) fn everything() -> GcOptions {
    GcOptions { max_delete_percent: 100.0, ..GcOptions::default() }
}

fn acknowledged(repository: &Repository) -> BTreeSet<SnapshotId> {
    let listed = snapshots::list(repository).expect("snapshots are listed");
    listed.iter().filter(|one| one.acknowledged).map(|one| one.id).collect()
}

pub(crate) fn target(store: &(impl Store + Clone + 'static)) -> Target {
    Target { max_delete_percent: 100.0, ..Target::new("replica", Arc::new(store.clone())) }
}

fn policy(rules: Vec<Rule>) -> Option<Policy> {
    Some(Policy::new(rules, zone("UTC").expect("a zone")).expect("a policy"))
}

pub(crate) fn only(report: ReplicateReport) -> Result<Done, Error> {
    let mut replicas = report.replicas;
    assert_eq!(replicas.len(), 1);
    replicas.pop().expect("one replica").done
}

pub(crate) fn packs(store: &MemoryStore) -> BTreeSet<ObjectName> {
    let is_pack = |name: &ObjectName| matches!(name, ObjectName::Pack(..));
    store.names().into_iter().filter(is_pack).collect()
}

#[test]
fn a_replica_is_complete_by_itself() {
    let mut home = Home::new(1);
    for change in 1..4 {
        home.back_up(change);
    }
    let replica = MemoryStore::new();
    let done = home.replicate_to(&replica);
    assert!(done.created && done.copied.len() == 3 && done.damaged.is_empty());
    assert_eq!((done.packs_written, done.chunks_held), (0, 0), "packs go as they are");
    assert_eq!(packs(&replica), packs(&home.store));
    let all = home.ids();
    home.assert_holds(&replica, &all);
    // Nothing is left to do, and nothing is done.
    let before = replica.names();
    let again = home.replicate_to(&replica);
    assert!(!again.created && again.copied.is_empty() && again.bytes_written == 0);
    assert_eq!(replica.names(), before);
    // The home copy is gone, and so is the machine: everything works on the replica.
    home.store = replica.clone();
    let lone = home.back_up(9);
    home.forget(*all.first().expect("a snapshot"));
    home.collect();
    let mut left = all.clone();
    left.remove(all.first().expect("a snapshot"));
    left.insert(lone.id);
    home.assert_holds(&replica, &left);
}

#[test]
fn what_one_more_snapshot_costs_follows_the_change() {
    let mut home = Home::new(2);
    let replica = MemoryStore::new();
    let mut calls = Vec::new();
    for change in 1..15 {
        home.back_up(change);
        let counted = FaultStore::new(replica.clone(), Plan::new());
        let target = Target { place: Some("there".to_owned()), ..target(&counted) };
        let done = only(home.replicate(&[target])).expect("it is replicated");
        assert_eq!(done.copied.len(), 1);
        calls.push(counted.calls());
    }
    let gets = |calls: &[cairn_engine::store::fault::Call]| {
        calls.iter().filter(|call| matches!(call.kind, CallKind::Get | CallKind::GetRange)).count()
    };
    let (few, many) = (&calls[2], &calls[13]);
    // Merging segments reads a few of them now and then.
    assert!(gets(many) <= gets(few) + 12, "{} and {} reads", gets(few), gets(many));
    assert!(many.len() < 60, "{} calls", many.len());
    let all = home.ids();
    home.assert_holds(&replica, &all);
}

#[test]
fn a_replica_follows_home_and_keeps_what_was_backed_up_to_it() {
    let mut home = Home::new(3);
    let first = home.back_up(1);
    home.back_up(2);
    let replica = MemoryStore::new();
    home.replicate_to(&replica);
    let at_home = home.store.clone();
    home.store = replica.clone();
    let own = home.back_up(3);
    home.store = at_home;
    home.forget(first.id);
    home.collect();
    let done = home.replicate_to(&replica);
    assert_eq!((done.forgotten, done.wanted), (1, 2));
    let mut wanted = home.ids();
    wanted.insert(own.id);
    home.assert_holds(&replica, &wanted);
    // Nothing that home does not list goes when it lists nothing at all.
    for id in home.ids() {
        home.forget(id);
    }
    let refused = only(home.replicate(&[target(&replica)])).expect_err("it is refused");
    assert_eq!((refused.code(), refused.class()), ("replica.refused", Class::Refused));
    home.assert_holds(&replica, &wanted);
}

#[test]
fn rules_count_what_home_has_forgotten() {
    let mut home = Home::new(4);
    let replica = MemoryStore::new();
    let rules = || Target {
        rules: policy(vec![Rule::Newest(Period::Daily, 3), Rule::Tag("kept".to_owned())]),
        ..target(&replica)
    };
    let mut newest_of_day = Vec::new();
    for day in 0..6 {
        let mut last = home.back_up(day * 10 + 1);
        home.pass(DAY_MS / 3);
        last = Some(home.back_up(day * 10 + 2)).filter(|_| day != 9).unwrap_or(last);
        newest_of_day.push(last.id);
        // Home keeps the newest only.
        for id in home.ids().into_iter().filter(|id| *id != last.id) {
            home.forget(id);
        }
        home.collect();
        let report = home.replicate(&[rules()]);
        only(report).expect("it is replicated");
        let wanted = newest_of_day.iter().rev().take(3).copied().collect::<BTreeSet<_>>();
        home.assert_holds(&replica, &wanted);
        home.pass(DAY_MS - 2 * HOUR_MS - DAY_MS / 3);
    }
    assert_eq!(home.ids().len(), 1);
}

#[test]
fn what_expired_is_gone_within_its_time_also_where_a_replica_was_away() {
    let mut home = Home::new(5);
    let replica = MemoryStore::new();
    let within = |within_ms: i64| Target {
        rules: policy(vec![Rule::Last(1)]),
        erase_within_ms: Some(within_ms.unsigned_abs()),
        ..target(&replica)
    };
    let cache = home.lab.cache("home");
    let place = |target: Target| Target { place: Some("here".to_owned()), ..target };
    assert!(cache.starts_with(home.lab.path("")));
    let mut dead_at_most_ms = 0;
    for change in 1..30 {
        home.back_up(change);
        home.pass(5 * HOUR_MS);
        let done = only(home.replicate(&[place(within(24 * HOUR_MS))])).expect("a replication");
        let since_ms = done.dead_since_ms.unwrap_or(home.now_ms);
        dead_at_most_ms = dead_at_most_ms.max(home.now_ms - since_ms);
    }
    assert!(dead_at_most_ms > 6 * HOUR_MS && dead_at_most_ms <= 24 * HOUR_MS, "{dead_at_most_ms}");
    home.back_up(99);
    home.pass(30 * DAY_MS);
    let done = only(home.replicate(&[place(within(24 * HOUR_MS))])).expect("a replication");
    assert!(done.collected.is_some() && done.dead_since_ms.is_none());
    let alone = home.lab.open(&replica, "dead");
    let plan = gc::plan(&alone, &everything()).expect("a plan");
    assert!(plan.packs_dead == 0 && plan.bytes_freed == 0, "{plan:?}");
}

#[test]
fn of_packs_of_which_little_is_wanted_only_that_is_copied() {
    let mut home = Home::new(6);
    for change in 1..9 {
        home.back_up(change * 31);
    }
    let newest = home.back_up(1_000);
    let replica = MemoryStore::new();
    let rules = Target { rules: policy(vec![Rule::Last(1)]), ..target(&replica) };
    let done = only(home.replicate(&[rules])).expect("a replication");
    assert!(done.packs_written > 0, "{done:?}");
    let bytes = |store: &MemoryStore| {
        packs(store).iter().map(|name| store.size(name).expect("it is there")).sum::<u64>()
    };
    assert!(bytes(&replica) < bytes(&home.store));
    home.assert_holds(&replica, &BTreeSet::from([newest.id]));
    // What comes later goes on top of it, and the next is a delta against what is there.
    let next = home.back_up(1_001);
    let done = home.replicate_to(&replica);
    assert!(done.copied.contains(&next.id));
    let all = home.ids();
    home.assert_holds(&replica, &all);
}

#[test]
fn packs_are_read_once_for_all_replicas_and_a_dead_one_holds_up_none() {
    let mut home = Home::new(7);
    home.back_up(1);
    home.back_up(2);
    let stores = [MemoryStore::new(), MemoryStore::new(), MemoryStore::new()];
    let dead = FaultStore::new(MemoryStore::new(), Plan::new().nth(CallKind::Put, 6, Fault::Crash));
    let mut targets = stores.iter().map(target).collect::<Vec<_>>();
    targets.insert(1, Target::new("dead", Arc::new(dead)));
    let report = home.replicate(&targets);
    assert_eq!(report.packs_read, packs(&home.store).len() as u64);
    let failed = report.replicas.iter().filter(|one| one.done.is_err());
    assert_eq!(failed.map(|one| one.name.as_str()).collect::<Vec<_>>(), ["dead"]);
    let all = home.ids();
    for store in &stores {
        home.assert_holds(store, &all);
    }
}

#[test]
fn a_home_copy_that_has_no_identity_yet_is_given_one() {
    let mut home = Home::new(23);
    let identities = |store: &MemoryStore| {
        let is_identity = |name: &ObjectName| matches!(name, ObjectName::Replica(_));
        store.names().into_iter().filter(is_identity).collect::<BTreeSet<_>>()
    };
    for name in identities(&home.store) {
        home.store.delete(&name).expect("it is deleted");
    }
    home.back_up(1);
    let replica = MemoryStore::new();
    home.replicate_to(&replica);
    home.back_up(2);
    assert_eq!(home.replicate_to(&replica).copied.len(), 1);
    let (own, other) = (identities(&home.store), identities(&replica));
    assert!(own.len() == 1 && other.len() == 1 && own != other);
    let all = home.ids();
    home.assert_holds(&replica, &all);
    let store = home.store.clone();
    home.assert_holds(&store, &all);
}

#[test]
fn a_dry_run_changes_nothing() {
    let mut home = Home::new(12);
    home.back_up(1);
    let replica = MemoryStore::new();
    let imagine = |home: &Home| {
        let report = replicate::run(&home.open(), &[target(&replica)], true).expect("a dry run");
        only(report).expect("a plan")
    };
    let done = imagine(&home);
    assert!(replica.names().is_empty());
    assert!(done.created && done.copied.len() == 1 && done.bytes_plain > 0);
    home.replicate_to(&replica);
    home.back_up(2);
    let before = replica.names();
    assert_eq!(imagine(&home).copied.len(), 1);
    assert_eq!(replica.names(), before);
}
