//! Goal: where a region goes while something is restored or read, another copy gives what home does not,
//! without each read waiting for home; what is known of snapshots comes from there too where home lost it.
//! Method: home copies whose stores go away at some call, come back, or deny access, and whose records of
//! snapshots are damaged or deleted.

use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_engine::error::{Class, Explain as _};
use cairn_engine::ops::{dump, snapshots};
use cairn_engine::repo::Repository;
use cairn_engine::store::fault::{Fault, FaultStore, Plan};
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::record::CallKind;
use cairn_engine::store::{Store, StoreError};
use cairn_format::ids::SnapshotId;
use cairn_format::names::{ObjectName, PackKind};
use cairn_tests::compare::assert_same_tree;
use cairn_tests::lab::{Warnings, alone, copy_of, inside, select};
use cairn_tests::odd::Odd;

use crate::replicate::{Home, packs};

/// Opens a home copy whose warnings are kept, with a replica that stands in for it.
fn with_others(
    home: &Home,
    store: &(impl Store + Clone + 'static),
    cache: &str,
    replicas: &[&MemoryStore],
) -> (Repository, Arc<Warnings>) {
    let warnings = Arc::new(Warnings::default());
    let mut repository = home.lab.open_watched(store, cache, warnings.clone());
    for replica in replicas {
        let context = repository.context.clone();
        let copy = repository.open_copy(Arc::new((*replica).clone()), &context);
        repository.add_fallback(copy.expect("it is a copy"));
    }
    (repository, warnings)
}

fn said(warnings: &Warnings, code: &str) -> usize {
    warnings.all().iter().filter(|remark| remark.code == code).count()
}

/// A store that answers no call about packs any more from the `nth` read of a data pack on.
fn going(store: &MemoryStore, nth: u64) -> (Odd<FaultStore<MemoryStore>>, FaultStore<MemoryStore>) {
    let faults = FaultStore::new(store.clone(), Plan::new());
    let goes = faults.clone();
    let reads = AtomicU64::new(0);
    let is_it = move |kind: CallKind, name: Option<&ObjectName>| {
        let pack = matches!(name, Some(ObjectName::Pack(PackKind::Data, _)));
        kind == CallKind::GetRange && pack && reads.fetch_add(1, Ordering::SeqCst) == nth
    };
    let away = || {
        let kinds = [CallKind::Get, CallKind::GetRange, CallKind::Size, CallKind::List];
        kinds.into_iter().fold(Plan::new(), |plan, kind| plan.every(kind, Fault::FailBefore))
    };
    (Odd::new(faults.clone()).before(is_it, move || goes.set_plan(away())), faults)
}

#[test]
fn a_restore_goes_on_from_another_copy_when_home_goes_away() {
    let mut home = Home::new(70);
    home.back_up(1);
    let snapshot = home.back_up(2);
    let replica = MemoryStore::new();
    home.replicate_to(&replica);
    let tree = home.trees[&snapshot.id].clone();
    for nth in 0..3 {
        let (store, faults) = going(&home.store, nth);
        let (repository, warnings) = with_others(&home, &store, "goes", &[&replica]);
        let restored = alone(|| home.lab.restore(&repository, &snapshot, false));
        let (target, report) = restored.expect("it is restored");
        assert_eq!((report.failure_count, report.damage_count), (0, 0));
        assert_same_tree(&tree, &inside(&target, &home.source));
        assert!(repository.fallbacks()[0].chunks() > 0, "home gave everything");
        for code in ["store.unreachable", "fallback.used"] {
            assert_eq!(said(&warnings, code), 1, "{:?}", warnings.all());
        }
        // Each of these may take half a minute.
        let unanswered = faults.calls().iter().filter(|call| call.fault.is_some()).count();
        assert!(unanswered <= 6, "home was asked {unanswered} times");
        drop(repository);
        std::fs::remove_dir_all(home.lab.cache("goes")).expect("removed");
        // Alone it ends, and says why.
        let (store, _) = going(&home.store, nth);
        let (repository, _) = with_others(&home, &store, "goes", &[]);
        let error = alone(|| home.lab.restore(&repository, &snapshot, true)).expect_err("it ends");
        assert_eq!(error.class(), Class::Unreachable, "{error}");
        drop(repository);
        std::fs::remove_dir_all(home.lab.cache("goes")).expect("removed");
    }
    // Nor is home's absence told as damage where the other copy does not have it either.
    for name in packs(&replica) {
        if matches!(name, ObjectName::Pack(PackKind::Data, _)) {
            replica.delete(&name).expect("it is deleted");
        }
    }
    let (store, _) = going(&home.store, 0);
    let (repository, _) = with_others(&home, &store, "goes", &[&replica]);
    let error = alone(|| home.lab.restore(&repository, &snapshot, true)).expect_err("it ends");
    assert_eq!(error.class(), Class::Unreachable, "{error}");
}

#[test]
fn single_reads_come_from_another_copy_while_home_is_away() {
    let mut home = Home::new(71);
    let snapshot = home.back_up(1);
    let replica = MemoryStore::new();
    home.replicate_to(&replica);
    let path = home.source.join("text");
    let (store, _) = going(&home.store, 0);
    let (repository, warnings) = with_others(&home, &store, "goes", &[&replica]);
    let mut out = Vec::new();
    let dumped = dump::run(&repository, &snapshot, path.as_os_str().as_bytes(), &mut out);
    dumped.expect("it is read");
    assert!(out == std::fs::read(&path).expect("the file"));
    // Of a directory that was not looked at before, too.
    let other = home.source.join("large");
    let mut out = Vec::new();
    let dumped = dump::run(&repository, &snapshot, other.as_os_str().as_bytes(), &mut out);
    dumped.expect("it is read");
    assert!(out == std::fs::read(&other).expect("the file"));
    assert_eq!(said(&warnings, "store.unreachable"), 1, "{:?}", warnings.all());
}

/// Denies access to some objects.
#[derive(Clone, Debug)]
struct Denies(MemoryStore);

impl Store for Denies {
    fn location(&self) -> String {
        self.0.location()
    }
    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<bytes::Bytes, StoreError> {
        self.0.get(name, bytes_max)
    }
    fn get_range(
        &self,
        name: &ObjectName,
        offset: u64,
        len: u64,
    ) -> Result<bytes::Bytes, StoreError> {
        if matches!(name, ObjectName::Pack(PackKind::Data, _)) {
            let place = cairn_engine::store::error::Place::object(self.location(), name);
            return Err(StoreError::Denied { place, source: "not these credentials".into() });
        }
        self.0.get_range(name, offset, len)
    }
    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<cairn_engine::store::Put, StoreError> {
        self.0.put(name, data)
    }
    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.0.size(name)
    }
    fn list(
        &self,
        folder: cairn_format::names::Folder,
        each: cairn_engine::store::Each<'_>,
    ) -> Result<cairn_engine::store::Listing, StoreError> {
        self.0.list(folder, each)
    }
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.0.delete(name)
    }
}

#[test]
fn what_home_denies_comes_from_another_copy() {
    let mut home = Home::new(72);
    let snapshot = home.back_up(1);
    let replica = MemoryStore::new();
    home.replicate_to(&replica);
    // One that is far: nodes and packs are read ahead of who needs them.
    let (repository, warnings) =
        with_others(&home, &Denies(home.store.clone()), "denied", &[&replica]);
    let (target, report) = home.lab.restore(&repository, &snapshot, false).expect("a restore");
    assert_eq!(report.damage_count, 0);
    assert_same_tree(&home.trees[&snapshot.id], &inside(&target, &home.source));
    assert_eq!(said(&warnings, "store.denied"), 1, "{:?}", warnings.all());
}

#[test]
fn a_snapshot_of_which_home_lost_the_record_is_restored_from_another_copy() {
    let mut home = Home::new(73);
    let first = home.back_up(1);
    let newest = home.back_up(2);
    let replica = MemoryStore::new();
    home.replicate_to(&replica);
    let record = |id: SnapshotId| {
        let all = home.store.names().into_iter();
        let is_it =
            |name: &ObjectName| matches!(name, ObjectName::Snapshot { id: it, .. } if *it == id);
        let mut found = all.filter(is_it);
        found.next().expect("its record")
    };
    for damage in [true, false] {
        let store = copy_of(&home.store);
        match damage {
            true => store.overwrite(record(newest.id), bytes::Bytes::from_static(b"nonsense")),
            false => store.delete(&record(newest.id)).expect("it is deleted"),
        }
        // Without another copy the one before is the latest there is.
        let (alone, _) = with_others(&home, &store, "lost", &[]);
        assert_eq!(select(&alone, "latest").id, first.id);
        assert!(snapshots::select(&alone, &newest.id.to_hex()).is_err());
        drop(alone);
        let (repository, warnings) = with_others(&home, &store, "lost", &[&replica]);
        for selector in ["latest", "job:job", &newest.id.to_hex()[..12]] {
            let found = select(&repository, selector);
            assert_eq!((found.id, found.acknowledged), (newest.id, true), "{selector}");
        }
        assert_eq!(said(&warnings, "fallback.snapshot"), 3, "{:?}", warnings.all());
        let (target, _) = home.lab.restore(&repository, &newest, false).expect("a restore");
        assert_same_tree(&home.trees[&newest.id], &inside(&target, &home.source));
        // What is as it should be is not asked for there.
        assert_eq!(select(&repository, &first.id.to_hex()).id, first.id);
        assert_eq!(said(&warnings, "fallback.snapshot"), 3, "{:?}", warnings.all());
    }
    // What home has forgotten does not come back but by its id.
    home.forget(newest.id);
    let (repository, warnings) = with_others(&home, &home.store, "lost", &[&replica]);
    assert_eq!(select(&repository, "latest").id, first.id);
    assert_eq!(said(&warnings, "fallback.snapshot"), 0, "{:?}", warnings.all());
    assert_eq!(select(&repository, &newest.id.to_hex()).id, newest.id);
    assert_eq!(said(&warnings, "fallback.snapshot"), 1, "{:?}", warnings.all());
}
