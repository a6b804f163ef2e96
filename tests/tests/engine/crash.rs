//! Goal: whatever store call a backup dies or fails at, the repository opens, verifies, and holds
//! every snapshot that was reported done; running the backup again completes it.
//! Method: record the calls of one backup over a repository with a snapshot in it; replay it from
//! the same state once for every call and fault; then look at the store with another cache (a
//! host that knows nothing) and with the same one (the host that failed).

use std::path::{Path, PathBuf};

use cairn_engine::ops::repair_index;
use cairn_engine::ops::snapshots::{self, SnapshotInfo};
use cairn_engine::store::fault::{Call, Fault, FaultStore, Plan};
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::record::CallKind;
use cairn_format::names::ObjectName;
use cairn_tests::compare::{Tree, assert_same_tree, look};
use cairn_tests::lab::{Lab, back_up, copy_of, inside, verify_full};
use cairn_tests::tree;

/// A repository with one snapshot, and a source that has changed since.
struct Scene {
    lab: Lab,
    store: MemoryStore,
    source: PathBuf,
    first: Tree,
    second: Tree,
    calls: Vec<Call>,
    round: usize,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::new(11);
        let store = lab.memory();
        let source = lab.path("source");
        tree::small(&source, 30, 1);
        tree::settle(&source);
        let first = look(&source);
        back_up(&lab.open(&store, "maker"), &source).expect("the first backup");
        tree::small(&source.join("more"), 400, 77);
        std::fs::write(source.join("text"), "other\n".repeat(3_000)).expect("a change");
        tree::settle(&source);
        let second = look(&source);
        let mut scene = Self { lab, store, source, first, second, calls: Vec::new(), round: 0 };
        let recorded = FaultStore::new(copy_of(&scene.store), Plan::new());
        let repository = scene.lab.open(&recorded, "recorded");
        back_up(&repository, &scene.source).expect("the backup that is replayed");
        scene.calls = recorded.calls();
        scene
    }

    /// Runs the second backup with a fault at call `number`; returns the store as it is left, the
    /// name of the cache used, the snapshot if one was reported, and the call that was struck.
    fn strike(
        &mut self,
        number: usize,
        fault: Fault,
    ) -> (MemoryStore, String, Option<SnapshotInfo>, Option<Call>) {
        self.round += 1;
        let cache = format!("cache-{}", self.round);
        let store = copy_of(&self.store);
        let faulty = FaultStore::new(store.clone(), Plan::new().at(number as u64, fault));
        let reported = self
            .lab
            .try_open(&faulty, cairn_tests::lab::OWNER, &cache)
            .and_then(|repository| back_up(&repository, &self.source))
            .ok()
            .and_then(|report| report.snapshot);
        // Packs are uploaded by two threads: which one a number meets may differ.
        let struck = faulty.calls().get(number).copied();
        (store, cache, reported, struck)
    }

    fn assert_restores(&self, store: &MemoryStore, cache: &str, id: &SnapshotInfo, tree: &Tree) {
        let repository = self.lab.open(store, cache);
        let (target, report) =
            self.lab.restore(&repository, id, false).expect("what was reported restores");
        assert_eq!(report.failure_count, 0, "{:?}", report.failures);
        assert_same_tree(tree, &inside(&target, &self.source));
        remove(&target);
    }

    /// After a fault that the backup noticed or that had no effect: nothing is damaged, and
    /// running again completes.
    fn assert_recovers(&mut self, number: usize, fault: Fault) {
        let (store, cache, reported, _) = self.strike(number, fault);
        let fresh = format!("{cache}-fresh");
        let what = format!("{fault:?} at call {number} ({:?})", self.calls.get(number));
        let repository = self.lab.open(&store, &fresh);
        let report = verify_full(&repository);
        assert!(report.findings.is_empty(), "{what}: {:?}", report.findings);
        let listed = snapshots::list(&repository).expect("snapshots are listed");
        let before = listed.first().expect("the first snapshot").clone();
        drop(repository);
        self.assert_restores(&store, &fresh, &before, &self.first);
        if let Some(reported) = &reported {
            assert!(
                listed.iter().any(|listed| listed.id == reported.id && listed.acknowledged),
                "{what}: a reported snapshot is not there"
            );
            self.assert_restores(&store, &fresh, reported, &self.second);
        }
        // The host that failed runs again.
        let repository = self.lab.open(&store, &cache);
        let again = back_up(&repository, &self.source).expect("the next run completes");
        drop(repository);
        let again = again.snapshot.expect("a snapshot");
        self.assert_restores(&store, &fresh, &again, &self.second);
        let report = verify_full(&self.lab.open(&store, &fresh));
        assert!(report.findings.is_empty(), "{what}, run again: {:?}", report.findings);
        remove(&self.lab.cache(&cache));
        remove(&self.lab.cache(&fresh));
    }
}

fn remove(folder: &Path) {
    std::fs::remove_dir_all(folder).expect("the folder is removed");
}

#[test]
fn a_crash_before_or_after_any_call_loses_nothing() {
    let mut scene = Scene::new();
    assert!(scene.calls.iter().filter(|call| call.kind == CallKind::Put).count() >= 5);
    for number in 0..scene.calls.len() {
        scene.assert_recovers(number, Fault::Crash);
        if scene.calls[number].kind == CallKind::Put {
            scene.assert_recovers(number, Fault::CrashAfter);
        }
    }
}

#[test]
fn a_call_that_fails_once_loses_nothing_whether_or_not_it_was_carried_out() {
    let mut scene = Scene::new();
    for number in 0..scene.calls.len() {
        scene.assert_recovers(number, Fault::FailBefore);
        if scene.calls[number].kind == CallKind::Put {
            scene.assert_recovers(number, Fault::FailAfter);
            scene.assert_recovers(number, Fault::Full);
        }
    }
}

/// A store that lies about a put is found out: verify names the object, or, where nothing else
/// names it, the writer misses its snapshot; the first snapshot is untouched throughout.
#[test]
fn a_put_that_was_lost_or_torn_is_found_and_named() {
    let mut scene = Scene::new();
    for number in 0..scene.calls.len() {
        // Nothing depends on a lease.
        let is_lease = matches!(scene.calls[number].name, Some(ObjectName::Lease { .. }));
        if scene.calls[number].kind != CallKind::Put || is_lease {
            continue;
        }
        for fault in [Fault::LostPut, Fault::TornPut { bytes: 100 }] {
            let (store, cache, reported, struck) = scene.strike(number, fault);
            let call = struck.expect("the call was made");
            let what = format!("{fault:?} at {call:?}");
            let kind = call.name.expect("a put has a name");
            let repository = scene.lab.open(&store, &format!("{cache}-fresh"));
            let report = verify_full(&repository);
            let named = match (&kind, fault) {
                // What a lost segment said is said again.
                (ObjectName::Index(_), Fault::LostPut) => {
                    reported.is_some() && report.findings.is_empty()
                }
                // The writer looks for both after it has acknowledged the snapshot.
                (ObjectName::Ack { .. }, Fault::LostPut) => {
                    reported.is_none() && report.unacknowledged == 1
                }
                (ObjectName::Snapshot { .. }, Fault::LostPut) => {
                    reported.is_none() && report.findings.is_empty()
                }
                _ => report.findings.iter().any(|found| found.object == kind.to_string()),
            };
            assert!(named, "{what}: {:?}", report.findings);
            let first = snapshots::list(&repository).expect("a list").remove(0);
            drop(repository);
            scene.assert_restores(&store, &format!("{cache}-fresh"), &first, &scene.first);
            if matches!(kind, ObjectName::Index(_)) {
                // A lost segment loses nothing: the packs say it all.
                let repository = scene.lab.open(&store, &format!("{cache}-fresh"));
                repair_index::run(&repository, false).expect("the index is repaired");
                drop(repository);
                let reported = reported.expect("the writer did not notice");
                scene.assert_restores(&store, &format!("{cache}-other"), &reported, &scene.second);
            }
            remove(&scene.lab.cache(&cache));
        }
    }
}
