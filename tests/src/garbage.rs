//! A repository in which much is dead, and what collections of it need: for tests of what goes and
//! what stays.

use std::collections::BTreeSet;
use std::path::PathBuf;

use cairn_engine::error::Error;
use cairn_engine::ops::gc::{self, GcOptions, GcReport};
use cairn_engine::ops::snapshots::SnapshotInfo;
use cairn_engine::repo::{Repository, intent};
use cairn_engine::store::Store;
use cairn_engine::store::memory::MemoryStore;
use cairn_format::names::ObjectName;

use crate::compare::{Tree, assert_same_tree, look};
use crate::lab::{Lab, OWNER, back_up, inside, object, verify_full};
use crate::seed::noise;
use crate::tree;

/// A repository with two snapshots, of which the first is forgotten: much of it is dead.
pub struct Scene {
    /// Surroundings.
    pub lab: Lab,
    /// The repository.
    pub store: MemoryStore,
    /// What was backed up.
    pub source: PathBuf,
    /// The snapshot that was kept.
    pub kept: SnapshotInfo,
    /// What is in it.
    pub tree: Tree,
}

impl Scene {
    /// Made from a seed.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let lab = Lab::new(seed);
        let store = lab.memory();
        let source = lab.path("source");
        tree::small(&source, 40, seed);
        std::fs::write(source.join("going"), noise(900_000, seed ^ 1)).expect("a file");
        std::fs::write(source.join("large"), noise(1_500_000, seed ^ 2)).expect("a file");
        tree::settle(&source);
        let repository = lab.open(&store, "maker");
        let gone = back_up(&repository, &source).expect("a backup").snapshot.expect("a snapshot");
        std::fs::remove_file(source.join("going")).expect("removed");
        std::fs::write(source.join("text"), "other\n".repeat(4_000)).expect("a change");
        tree::settle(&source);
        let tree = look(&source);
        let kept = back_up(&repository, &source).expect("a backup").snapshot.expect("a snapshot");
        forget(&repository, &store, &gone);
        drop(repository);
        Self { lab, store, source, kept, tree }
    }

    /// The snapshot that was kept is there, whole, for a host that knows nothing.
    ///
    /// # Panics
    /// When it is not.
    pub fn assert_kept(&self, store: &MemoryStore, cache: &str) {
        let repository = self.lab.open(store, cache);
        let (target, report) =
            self.lab.restore(&repository, &self.kept, false).expect("what is kept restores");
        assert_eq!(report.failure_count, 0, "{:?}", report.failures);
        assert_same_tree(&self.tree, &inside(&target, &self.source));
        std::fs::remove_dir_all(target).expect("removed");
        let found = verify_full(&repository);
        assert!(found.findings.is_empty(), "{:?}", found.findings);
        drop(repository);
        let _none = std::fs::remove_dir_all(self.lab.cache(cache));
    }

    /// A collection of everything dead, on the way of `store`.
    ///
    /// # Errors
    /// Those of [`gc::run`].
    pub fn collect(
        &self,
        store: &(impl Store + Clone + 'static),
        cache: &str,
    ) -> Result<GcReport, Error> {
        gc::run(&self.lab.try_open(store, OWNER, cache)?, &everything())
    }
}

/// Options that let everything dead go.
#[must_use]
pub fn everything() -> GcOptions {
    GcOptions { max_delete_percent: 100.0, honour_leases: false, ..GcOptions::default() }
}

/// Removes a snapshot as whoever forgets does: says so, and then its acknowledgement first.
///
/// # Panics
/// When it is not there, or not acknowledged.
pub fn forget(repository: &Repository, store: &MemoryStore, snapshot: &SnapshotInfo) {
    let name = snapshot.name();
    intent::declare(repository, &[name].into()).expect("it is said");
    take_away(store, snapshot);
}

/// Removes a snapshot as a store that loses it with its acknowledgement, or withholds both.
///
/// # Panics
/// When it is not there, or not acknowledged.
pub fn take_away(store: &MemoryStore, snapshot: &SnapshotInfo) {
    let of = |name: &ObjectName| match name {
        ObjectName::Ack { snapshot: id, .. } | ObjectName::Snapshot { id, .. } => {
            *id == snapshot.id
        }
        _ => false,
    };
    let mut names = store.names().into_iter().filter(of).collect::<Vec<_>>();
    names.sort_by_key(|name| matches!(name, ObjectName::Snapshot { .. }));
    assert_eq!(names.len(), 2);
    for name in names {
        store.delete(&name).expect("deleted");
    }
}

/// Bytes of all packs.
#[must_use]
pub fn pack_bytes(store: &MemoryStore) -> usize {
    let packs = store.names().into_iter().filter(|name| matches!(name, ObjectName::Pack(..)));
    packs.map(|name| object(store, &name).len()).sum()
}

/// All packs.
#[must_use]
pub fn packs(store: &MemoryStore) -> BTreeSet<ObjectName> {
    store.names().into_iter().filter(|name| matches!(name, ObjectName::Pack(..))).collect()
}
