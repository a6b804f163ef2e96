//! Backups whose packs go to replicas while they are made.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_engine::error::{Error, Explain as _};
use cairn_engine::ops::backup::{BackupOptions, BackupReport, BackupSource};
use cairn_engine::ops::gc;
use cairn_engine::ops::replicate::{self, ReplicateReport, Target};
use cairn_engine::repo::Repository;
use cairn_engine::store::error::Place;
use cairn_engine::store::fault::{Fault, FaultStore, Plan};
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::{Each, Listing, Put, Store, StoreError};
use cairn_format::ids::SnapshotId;
use cairn_format::names::{Folder, ObjectName};
use cairn_tests::compare::Tree;
use cairn_tests::seed::noise;

use super::hangs::{HANGS, Hanging, SOON};
use super::{HOUR_MS, Home, acknowledged, everything, only, packs, target};

type Both = Result<(BackupReport, Option<Result<ReplicateReport, Error>>), Error>;

/// Backs up what is there, and copies it.
fn run(home: &Home, repository: &Repository, targets: Vec<Target>) -> Both {
    let source = BackupSource::Path(home.source.clone());
    replicate::back_up(repository, BackupOptions::new("job", vec![source]), &targets)
}

/// What came of both, where both began.
fn both(home: &mut Home, tree: Tree, targets: Vec<Target>) -> (SnapshotId, ReplicateReport) {
    let (report, copies) = run(home, &home.open(), targets).expect("a backup");
    let id = report.snapshot.expect("a snapshot").id;
    home.trees.insert(id, tree);
    (id, copies.expect("there is something to copy").expect("replications run"))
}

#[test]
fn what_a_backup_stores_is_not_read_again_for_its_copies() {
    let mut home = Home::new(41);
    home.back_up(1);
    let replicas = [MemoryStore::new(), MemoryStore::new()];
    for replica in &replicas {
        home.replicate_to(replica);
    }
    let tree = home.change(2);
    let (id, report) = both(&mut home, tree, replicas.iter().map(target).collect());
    assert_eq!((report.packs_read, report.bytes_read), (0, 0));
    let wanted = home.ids();
    for (outcome, replica) in report.replicas.into_iter().zip(&replicas) {
        let done = outcome.done.expect("a copy");
        assert_eq!(done.copied, [id]);
        assert!(done.packs_moved >= 2 && done.packs_written == 0 && done.bytes_written > 3_000);
        assert_eq!(packs(replica), packs(&home.store));
        let leases = |name: &ObjectName| matches!(name, ObjectName::Lease { .. });
        assert!(!replica.names().iter().any(leases), "a lease is left");
        home.assert_holds(replica, &wanted);
    }
}

#[test]
fn a_replica_that_does_not_answer_costs_the_backup_and_the_others_nothing() {
    let mut home = Home::new(42);
    home.back_up(1);
    let whole = Hanging::default();
    home.replicate_to(&whole);
    let before = whole.made();
    let tree = home.change(2);
    both(&mut home, tree, vec![target(&whole)]);
    let calls = whole.made() - before;
    for part in 0..6 {
        let (hanging, good) = (Hanging::default(), MemoryStore::new());
        for store in [&hanging.inner, &good] {
            home.replicate_to(store);
        }
        hanging.hang(calls * part / 6);
        let patient = Target { patience: Some(SOON), ..target(&hanging) };
        let tree = home.change(3 + part);
        let (id, report) = both(&mut home, tree, vec![patient, target(&good)]);
        let [hung, other] = report.replicas.try_into().expect("two replicas");
        assert_eq!(hung.done.expect_err("nobody waited for it").code(), "store.given_up");
        assert_eq!(other.done.expect("the other one").copied, [id]);
        assert!(home.ids().contains(&id));
        hanging.let_go();
        home.replicate_to(&hanging);
        let wanted = home.ids();
        home.assert_holds(&hanging.inner, &wanted);
    }
}

#[test]
fn a_replica_that_cannot_keep_up_gets_the_rest_when_the_backup_is_done() {
    let mut home = Home::new(43);
    home.back_up(1);
    let replica = MemoryStore::new();
    home.replicate_to(&replica);
    // One pack on its way, one that waits, and more than there is room for.
    std::fs::write(home.source.join("huge"), noise(72 << 20, 5)).expect("a file");
    let tree = home.change(2);
    let held = Hanging::at_packs(&replica);
    let (store, before) = (home.store.clone(), acks(&home.store));
    let waits = held.clone();
    // It takes no pack before home has its snapshot: a backup that waited for it would wait for ever.
    let letting_go = std::thread::spawn(move || {
        let began = Instant::now();
        while acks(&store) == before && began.elapsed() < HANGS {
            std::thread::sleep(Duration::from_millis(10));
        }
        waits.let_go();
        acks(&store) > before
    });
    let (_, report) = both(&mut home, tree, vec![target(&held)]);
    assert!(letting_go.join().expect("it ends"), "the backup waited for a replica");
    assert!(report.packs_read > 0, "there was room for everything");
    let done = only(report).expect("a copy");
    assert!(done.bytes_written > 72 << 20);
    let wanted = home.ids();
    home.assert_holds(&replica, &wanted);
}

fn acks(store: &MemoryStore) -> usize {
    store.names().iter().filter(|name| matches!(name, ObjectName::Ack { .. })).count()
}

#[test]
fn wherever_either_side_dies_a_replica_shows_only_what_is_complete() {
    let mut home = Home::new(44);
    let first = home.back_up(1).id;
    let counted = FaultStore::new(MemoryStore::new(), Plan::new());
    home.replicate_to(&counted);
    let before = counted.calls().len();
    let at_home = FaultStore::new(home.store.clone(), Plan::new());
    let tree = home.change(2);
    let (report, copies) =
        run(&home, &home.lab.open(&at_home, "home"), vec![target(&counted)]).expect("a backup");
    home.trees.insert(report.snapshot.expect("a snapshot").id, tree);
    only(copies.expect("copies").expect("replications run")).expect("a copy");
    let (there, here) = (counted.calls().len() - before, at_home.calls().len());
    for part in 0..10 {
        let replica = MemoryStore::new();
        home.replicate_to(&replica);
        let known = home.ids();
        let dying = |calls: usize, dies: bool| match dies {
            true => Plan::new().at((calls * (part / 2) / 5) as u64, Fault::Crash),
            false => Plan::new(),
        };
        let away = FaultStore::new(replica.clone(), dying(there, part % 2 == 0));
        let near = FaultStore::new(home.store.clone(), dying(here, part % 2 == 1));
        let tree = home.change(3 + part as u64);
        // A call may come too late to be one that kills.
        let opened = home.lab.try_open(&near, "owner", "home");
        if let Ok(repository) = opened {
            let _outcome = run(&home, &repository, vec![target(&away)]);
        }
        for id in home.ids().difference(&known) {
            home.trees.insert(*id, tree.clone());
        }
        let shown = acknowledged(&home.lab.open(&replica, &format!("look-{part}")));
        assert!(shown.contains(&first) && shown.is_superset(&known), "{shown:?}");
        home.assert_holds(&replica, &shown);
        home.replicate_to(&replica);
        let wanted = home.ids();
        home.assert_holds(&replica, &wanted);
    }
}

/// A store that takes no snapshots: it fails a backup when the replica has so many packs.
#[derive(Clone, Debug)]
struct Nearly {
    inner: MemoryStore,
    replica: MemoryStore,
    packs: usize,
}

impl Store for Nearly {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn is_near(&self) -> bool {
        true
    }
    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.inner.get(name, bytes_max)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        self.inner.get_range(name, offset, len)
    }
    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        match name {
            ObjectName::Snapshot { .. } => {
                let began = Instant::now();
                while packs(&self.replica).len() < self.packs && began.elapsed() < HANGS {
                    std::thread::sleep(Duration::from_millis(10));
                }
                let place = Place::object(self.location(), name);
                Err(StoreError::Full { place, source: "no snapshots".into() })
            }
            _ => self.inner.put(name, data),
        }
    }
    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.inner.size(name)
    }
    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        self.inner.list(folder, each)
    }
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

#[test]
fn packs_of_a_backup_at_work_are_spared_on_a_replica_and_go_when_it_died() {
    let mut home = Home::new(45);
    home.back_up(1);
    let replica = MemoryStore::new();
    home.replicate_to(&replica);
    let before = packs(&replica);
    let segments = |store: &MemoryStore| {
        store.names().into_iter().filter(|name| matches!(name, ObjectName::Index(_))).count()
    };
    let named = segments(&replica);
    let tree = home.change(2);
    let (inner, replica_seen) = (home.store.clone(), replica.clone());
    let nearly = Nearly { inner, replica: replica_seen, packs: before.len() + 2 };
    let repository = home.lab.open(&nearly, "home");
    let failed = run(&home, &repository, vec![target(&replica)]).expect_err("it has no snapshot");
    assert_eq!(failed.code(), "store.full");
    drop(repository);
    let brought = packs(&replica).difference(&before).copied().collect::<BTreeSet<_>>();
    assert!(brought.len() >= 2, "nothing was brought");
    assert_eq!(segments(&replica), named, "what is not complete was named");
    // A collection there, by a host that knows of nothing, while the lease stands and afterwards.
    let collect = |cache: &str| {
        gc::run(&home.lab.open(&replica, cache), &everything()).expect("a collection");
        packs(&replica).intersection(&brought).count()
    };
    assert_eq!(collect("other-1"), brought.len());
    home.pass(25 * HOUR_MS);
    let collect = |cache: &str| {
        gc::run(&home.lab.open(&replica, cache), &everything()).expect("a collection");
        packs(&replica).intersection(&brought).count()
    };
    assert_eq!(collect("other-2"), 0);
    let (_, report) = both(&mut home, tree, vec![target(&replica)]);
    only(report).expect("a copy");
    let wanted = home.ids();
    home.assert_holds(&replica, &wanted);
}
