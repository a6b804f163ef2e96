//! Goal: a replica is a complete repository that holds exactly the snapshots its rules want, each as
//! it was backed up, whatever happened to either side and wherever replications died.
//! Method: histories of backups, forgetting and collections under seeds, with replications at random
//! moments whose stores die at random calls; replicas are looked at alone, with empty caches.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::error::{Class, Error, Explain as _};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::replicate::{self, Done, ReplicateReport, Target};
use cairn_engine::ops::snapshots::{self, SnapshotInfo};
use cairn_engine::parity::Parity;
use cairn_engine::repo::{Repository, keys};
use cairn_engine::retention::{Period, Policy, Rule, zone};
use cairn_engine::store::Store;
use cairn_engine::store::fault::{Fault, FaultStore, Plan};
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::record::CallKind;
use cairn_format::certificate::Role;
use cairn_format::envelope::Cipher;
use cairn_format::ids::SnapshotId;
use cairn_format::names::{Folder, ObjectName};
use cairn_tests::compare::{Tree, assert_same_tree, look};
use cairn_tests::lab::{
    Lab, OWNER, TestClock, back_up, copy_of, inside, new_key, object, verify_full,
};
use cairn_tests::seed::{Seed, noise};
use cairn_tests::tree;

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

    /// Changes a little of everything, and backs up.
    pub(crate) fn back_up(&mut self, change: u64) -> SnapshotInfo {
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
        let tree = look(&self.source);
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
fn everything() -> GcOptions {
    GcOptions { max_delete_percent: 100.0, ..GcOptions::default() }
}

fn acknowledged(repository: &Repository) -> BTreeSet<SnapshotId> {
    let listed = snapshots::list(repository).expect("snapshots are listed");
    listed.iter().filter(|one| one.acknowledged).map(|one| one.id).collect()
}

fn target(store: &(impl Store + Clone + 'static)) -> Target {
    Target { max_delete_percent: 100.0, ..Target::new("replica", Arc::new(store.clone())) }
}

fn policy(rules: Vec<Rule>) -> Option<Policy> {
    Some(Policy::new(rules, zone("UTC").expect("a zone")).expect("a policy"))
}

fn only(report: ReplicateReport) -> Result<Done, Error> {
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
        let done = home.replicate_to(&counted);
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
fn damage_at_home_costs_only_the_snapshots_that_need_it() {
    let mut home = Home::new(8);
    let sound = home.back_up(1);
    std::fs::write(home.source.join("broken"), noise(300_000, 77)).expect("a file");
    let broken = home.back_up(2);
    std::fs::remove_file(home.source.join("broken")).expect("removed");
    let after = home.back_up(3);
    // The largest pack of the second backup has nothing but that file in it, or nearly so.
    let of_second = {
        let repository = home.open();
        let catalog = repository.catalog().expect("the index");
        let mut found = None;
        catalog
            .index()
            .for_each_pack(&mut |_, record, _| {
                if record.session == broken.record.session
                    && record.kind == cairn_format::names::PackKind::Data
                {
                    found = Some(ObjectName::Pack(record.kind, record.id));
                }
                std::ops::ControlFlow::Continue(())
            })
            .expect("the index is read");
        found.expect("a pack")
    };
    let mut bytes = object(&home.store, &of_second).to_vec();
    let end = bytes.len() * 3 / 4;
    bytes[400..end].fill(0);
    home.store.overwrite(of_second, Bytes::from(bytes));
    let replica = MemoryStore::new();
    let done = home.replicate_to(&replica);
    assert!(!done.damaged.is_empty(), "{done:?}");
    let copied = done.copied.iter().copied().collect::<BTreeSet<_>>();
    assert!(copied.contains(&sound.id) && !copied.contains(&broken.id), "{done:?}");
    assert!(copied.len() + done.damaged.len() == 3 && after.acknowledged);
    home.assert_holds(&replica, &copied);
}

#[test]
fn what_is_no_replica_is_refused() {
    let mut home = Home::new(9);
    home.back_up(1);
    let refused = |home: &Home, store: &MemoryStore| {
        let before = store.names();
        let error = only(home.replicate(&[target(store)])).expect_err("it is refused");
        assert_eq!(store.names(), before);
        (error.code(), error.class())
    };
    // Another repository, the home copy itself, a copy of its files, and a newer format.
    assert_eq!(refused(&home, &home.lab.memory()), ("replica.other", Class::Refused));
    assert_eq!(refused(&home, &home.store), ("replica.same", Class::Refused));
    assert_eq!(refused(&home, &copy_of(&home.store)), ("replica.same", Class::Refused));
    let newer = MemoryStore::new();
    let mut format = object(&home.store, &ObjectName::Format).to_vec();
    format[16] = 2;
    let hash = *blake3::hash(&format[..64]).as_bytes();
    format[64..].copy_from_slice(&hash);
    newer.overwrite(ObjectName::Format, Bytes::from(format));
    assert_eq!(refused(&home, &newer), ("format.newer", Class::Refused));
    // A key that may not.
    let owner = home.open();
    keys::add(&owner, &new_key("reader", Role::Reader)).expect("a key");
    drop(owner);
    let reader = home.lab.try_open(&home.store, "reader", "home").expect("it opens");
    let error = replicate::run(&reader, &[], false).expect_err("it is refused");
    assert_eq!(error.class(), Class::WrongKey);
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
fn keys_that_are_added_or_removed_at_home_are_so_on_the_replica() {
    let mut home = Home::new(10);
    home.back_up(1);
    let replica = MemoryStore::new();
    let remembered = || Target { place: Some("there".to_owned()), ..target(&replica) };
    let slot = keys::add(&home.open(), &new_key("reader", Role::Reader)).expect("a key");
    only(home.replicate(&[remembered()])).expect("a replication");
    assert!(home.lab.try_open(&replica, "reader", "reader").is_ok());
    // What somebody added to the replica itself stays.
    let there = home.lab.open(&replica, "there");
    keys::add(&there, &new_key("only-there", Role::Owner)).expect("a key");
    keys::remove(&home.open(), &slot.to_hex(), false).expect("removed");
    only(home.replicate(&[remembered()])).expect("a replication");
    assert!(home.lab.try_open(&replica, "reader", "reader").is_err());
    assert!(home.lab.try_open(&replica, "only-there", "there").is_ok());
    assert!(home.lab.try_open(&replica, OWNER, "there").is_ok());
}

#[test]
fn snapshots_of_writers_keys_are_replicated() {
    let mut home = Home::new(11);
    home.back_up(1);
    keys::add(&home.open(), &new_key("writer", Role::Writer)).expect("a key");
    tree::small(&home.source.join("of-writer"), 30, 5);
    tree::settle(&home.source);
    let writer = home.lab.try_open(&home.store, "writer", "writer").expect("it opens");
    let snapshot = back_up(&writer, &home.source).expect("a backup").snapshot.expect("a snapshot");
    home.trees.insert(snapshot.id, look(&home.source));
    drop(writer);
    home.back_up(2);
    for rules in [None, policy(vec![Rule::Last(1)])] {
        let replica = MemoryStore::new();
        let target = Target { rules, ..target(&replica) };
        only(home.replicate(&[target])).expect("a replication");
        let wanted = acknowledged(&home.lab.open(&replica, "look"));
        assert!(wanted.contains(&snapshot.id));
        home.assert_holds(&replica, &wanted);
    }
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
