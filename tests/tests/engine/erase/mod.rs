//! Goal: what is erased is gone from every snapshot and from the store, what is not is as it was,
//! and an erasure that ends anywhere is completed by the next.
//! Method: trees with everything in them, compared before and after; a death at every store call;
//! forgetting, backups and other erasures beside it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cairn_engine::error::{Class, Error, Explain as _};
use cairn_engine::ops::backup::{self, BackupOptions, BackupSource};
use cairn_engine::ops::erase::{self, EraseError, EraseOptions, EraseReport, Fate};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::snapshots::{self, SnapshotInfo};
use cairn_engine::repo::{Repository, keys};
use cairn_engine::retention::{Policy, Rule, zone};
use cairn_engine::store::memory::MemoryStore;
use cairn_format::certificate::Role;
use cairn_format::names::ObjectName;
use cairn_tests::compare::{Tree, assert_same_tree, look};
use cairn_tests::lab::{Lab, TestClock, back_up, inside, new_key, select, verify_full};
use cairn_tests::seed::noise;
use cairn_tests::tree;

mod beside;
mod deaths;
mod traces;

/// Erases these paths below a folder, whatever share of the repository that is.
fn below(source: &Path, names: &[&[u8]]) -> EraseOptions {
    let path = |name: &&[u8]| [source.as_os_str().as_bytes(), b"/", name].concat();
    EraseOptions {
        paths: names.iter().map(path).collect(),
        max_delete_percent: 100.0,
        ..EraseOptions::default()
    }
}

fn run(repository: &Repository, options: &EraseOptions) -> Result<EraseReport, Error> {
    let plan = erase::plan(repository, options, None)?;
    erase::run(repository, options, plan)
}

/// What is left of a tree.
fn without(tree: &Tree, names: &[&[u8]]) -> Tree {
    let gone = |path: &Path| names.iter().any(|name| path.starts_with(OsStr::from_bytes(name)));
    let mut left = tree.clone();
    left.retain(|path, _| !gone(path));
    // The first of several names of a file may be gone.
    for seen in left.values_mut() {
        seen.same_as = seen.same_as.take().filter(|first| !gone(first));
    }
    left
}

fn list(repository: &Repository) -> Vec<SnapshotInfo> {
    snapshots::list(repository).expect("a list")
}

struct Scene {
    lab: Lab,
    store: MemoryStore,
    source: PathBuf,
    /// What each snapshot holds, oldest first.
    trees: Vec<Tree>,
}

impl Scene {
    /// Three snapshots of a tree that changes.
    fn new(seed: u64, make: fn(&Path, u64)) -> Self {
        let lab = Lab::new(seed);
        let store = lab.memory();
        let source = lab.path("source");
        make(&source, seed);
        let mut trees = Vec::new();
        let repository = lab.open(&store, "maker");
        for day in 0..3 {
            std::fs::write(source.join("diary"), noise(70_000, day)).expect("a file");
            tree::settle(&source);
            trees.push(look(&source));
            back_up(&repository, &source).expect("a backup");
            lab.clock.set_ms(TestClock::START_MS + (day as i64 + 1) * 86_400_000);
        }
        drop(repository);
        Self { lab, store, source, trees }
    }

    /// Every snapshot is there, whole, without these entries, for a host that knows nothing.
    fn assert_left(&self, store: &MemoryStore, names: &[&[u8]]) {
        let repository = self.lab.open(store, "fresh");
        let listed = list(&repository);
        assert_eq!(listed.len(), self.trees.len());
        for (snapshot, tree) in listed.iter().zip(&self.trees) {
            assert!(snapshot.acknowledged);
            let (target, report) =
                self.lab.restore(&repository, snapshot, false).expect("it restores");
            assert_eq!(report.failure_count, 0, "{:?}", report.failures);
            assert_same_tree(&without(tree, names), &inside(&target, &self.source));
            std::fs::remove_dir_all(target).expect("removed");
        }
        let found = verify_full(&repository);
        assert!(found.findings.is_empty(), "{:?}", found.findings);
        drop(repository);
        let _none = std::fs::remove_dir_all(self.lab.cache("fresh"));
    }
}

#[test]
fn paths_go_from_every_snapshot_and_all_else_stays() {
    let scene = Scene::new(300, tree::everything);
    let repository = scene.lab.open(&scene.store, "eraser");
    let before = list(&repository);
    let gone: [&[u8]; 6] = [
        b"deep/large",
        b"sparse",
        b"names/not \xff\xfe UTF-8",
        b"names/ space at both ends ",
        b"names/back\\slash",
        b"pipe",
    ];
    let options = below(&scene.source, &gone);
    let report = run(&repository, &options).expect("it erases");
    assert_eq!(report.snapshots.len(), 3);
    assert!(report.waiting.is_empty() && report.uncollected.is_none());
    let collection = report.collection.expect("a collection");
    assert!(collection.packs_deleted > 0 && !collection.receipts.is_empty());
    for (erased, before) in report.snapshots.iter().zip(&before) {
        assert_eq!((erased.id, erased.fate), (before.id, Fate::Remade));
        assert_eq!((erased.tally.files, erased.tally.others), (5, 1));
    }
    let after = list(&repository);
    for (after, before) in after.iter().zip(&before) {
        let (new, old) = (&after.record, &before.record);
        assert_eq!((new.started_ms, new.finished_ms), (old.started_ms, old.finished_ms));
        assert_eq!((&new.job, &new.host, &new.paths), (&old.job, &old.host, &old.paths));
        assert_eq!((new.sequence, new.previous), (old.sequence, old.previous));
        assert_eq!(after.former(), [before.id]);
        assert_eq!(new.statistics.files, old.statistics.files - 5);
        // The other name of the large file keeps its bytes, and they are still stored.
        let sparse = 20_000_000;
        assert!(new.statistics.bytes_total + sparse < old.statistics.bytes_total + 1_000);
        assert!(new.statistics.bytes_total + sparse + 100_000 > old.statistics.bytes_total);
        // The old id is still understood.
        assert_eq!(select(&repository, &before.id.to_hex()[..12]).id, after.id);
    }
    assert!(report.chunks > Some(report.chunks_kept) && report.chunks_kept > 0);
    drop(repository);
    scene.assert_left(&scene.store, &gone);
}

#[test]
fn nothing_is_left_that_a_repository_without_it_would_not_have() {
    let scene = Scene::new(301, |root, seed| tree::small(root, 30, seed));
    let secret = scene.source.join("folder/secret");
    std::fs::create_dir(&secret).expect("a folder");
    std::fs::write(secret.join("file"), noise(700_000, 9)).expect("a file");
    tree::settle(&scene.source);
    let repository = scene.lab.open(&scene.store, "eraser");
    back_up(&repository, &scene.source).expect("a backup");
    let report = run(&repository, &below(&scene.source, &[b"folder/secret"])).expect("erased");
    assert_eq!(report.snapshots.len(), 1);
    assert_eq!((report.chunks_kept, report.chunks > Some(5)), (0, true));
    // Another one is told that there is nothing.
    let error = run(&repository, &below(&scene.source, &[b"folder/secret"])).unwrap_err();
    assert!(matches!(error, Error::Erase(EraseError::NothingMatches { .. })), "{error:?}");
    assert_eq!(error.class(), Class::Refused);
    // Patterns are understood as such, and a directory goes with everything below it.
    let options =
        EraseOptions { paths: vec![b"**/below/file-*".to_vec()], ..below(&scene.source, &[]) };
    assert_eq!(run(&repository, &options).expect("erased").snapshots.len(), 4);
    let left = gc::plan(&repository, &GcOptions::default()).expect("a plan");
    assert_eq!((left.packs_dead, left.packs_repacked, left.packs_condemned), (0, 0, 0));
    let twice = list(&repository);
    assert_eq!(twice.last().map(|last| last.former().len()), Some(2));
    let found = verify_full(&repository);
    assert!(found.findings.is_empty(), "{:?}", found.findings);
}

#[test]
fn snapshots_and_jobs_go_as_a_whole() {
    let scene = Scene::new(303, |root, seed| tree::small(root, 10, seed));
    let repository = scene.lab.open(&scene.store, "eraser");
    let named = |names: &[&str]| EraseOptions {
        snapshots: names.iter().map(ToString::to_string).collect(),
        max_delete_percent: 100.0,
        ..EraseOptions::default()
    };
    // `latest` means one snapshot, however often it is looked.
    let report = run(&repository, &named(&["latest"])).expect("erased");
    assert_eq!(report.snapshots.len(), 1);
    assert_eq!(list(&repository).len(), 2);
    let other = BackupSource::Path(scene.source.join("folder"));
    backup::run(&repository, BackupOptions::new("other", vec![other])).expect("a backup");
    let options = EraseOptions { job: Some("job".to_owned()), ..named(&[]) };
    assert_eq!(run(&repository, &options).expect("erased").snapshots.len(), 2);
    assert_eq!(list(&repository).len(), 1);
    assert!(matches!(run(&repository, &options), Err(Error::NoSnapshot { .. })));
    let careful = EraseOptions { max_delete_percent: 99.0, ..named(&["latest"]) };
    let error = run(&repository, &careful).unwrap_err();
    assert!(matches!(error, Error::Erase(EraseError::NothingLeft)), "{error:?}");
    let nothing = erase::plan(&repository, &EraseOptions::default(), None).unwrap_err();
    assert!(matches!(nothing, Error::Erase(EraseError::NothingNamed)));
    // A snapshot of which nothing is left goes as a whole.
    let options = EraseOptions { paths: vec![b"/*".to_vec()], ..named(&[]) };
    let report = run(&repository, &options).expect("erased");
    assert_eq!(report.snapshots.first().map(|one| one.fate), Some(Fate::Goes));
    assert!(list(&repository).is_empty());
    let packs = scene.store.names().into_iter().filter(|name| matches!(name, ObjectName::Pack(..)));
    assert_eq!(packs.count(), 0);
}

#[test]
fn streams_are_erased_and_their_names_with_them() {
    let lab = Lab::new(304);
    let store = lab.memory();
    let repository = lab.open(&store, "cache");
    for (name, seed) in [("alice.sql", 1), ("bob.sql", 2)] {
        let reader = Box::new(std::io::Cursor::new(noise(300_000, seed)));
        let source = BackupSource::Stream { name: name.to_owned(), reader };
        backup::run(&repository, BackupOptions::new("dumps", vec![source])).expect("a backup");
    }
    let options = EraseOptions {
        paths: vec![b"/alice.sql".to_vec()],
        max_delete_percent: 100.0,
        ..EraseOptions::default()
    };
    let report = run(&repository, &options).expect("erased");
    assert_eq!(report.snapshots.first().map(|one| one.fate), Some(Fate::Goes));
    let left = list(&repository);
    assert_eq!(left.len(), 1);
    assert!(left.iter().all(|one| one.record.sources.iter().all(|s| s.name == "bob.sql")));
}

/// Keeps the newest of a job, whoever signed it.
fn keep_last(repository: &Repository, count: u32) -> forget::ForgetPlan {
    let utc = zone("UTC").expect("a zone");
    let policy = Policy::new(vec![Rule::Last(count)], utc).expect("a policy");
    forget::plan(repository, &ForgetOptions::new(Choice::Rules(policy))).expect("a plan")
}

#[test]
fn what_a_writer_made_stays_its_own_and_a_writer_erases_nothing() {
    let lab = Lab::new(305);
    let store = lab.memory();
    let owner = lab.open(&store, "owner");
    keys::add(&owner, &new_key("writer", Role::Writer)).expect("a key");
    keys::add(&owner, &new_key("maintainer", Role::Maintainer)).expect("a key");
    let writer = lab.try_open(&store, "writer", "writer").expect("it opens");
    let source = lab.path("source");
    tree::small(&source, 10, 4);
    std::fs::write(source.join("secret"), noise(200_000, 5)).expect("a file");
    for day in 0..3 {
        std::fs::write(source.join("diary"), noise(50_000, day)).expect("a file");
        back_up(&writer, &source).expect("a backup");
    }
    let options = below(&source, &[b"secret"]);
    let refused = run(&writer, &options).unwrap_err();
    assert_eq!(refused.class(), Class::WrongKey);
    let maintainer = lab.try_open(&store, "maintainer", "maintainer").expect("it opens");
    let before = list(&maintainer);
    run(&maintainer, &options).expect("erased");
    let after = list(&maintainer);
    for (new, old) in after.iter().zip(&before) {
        assert_eq!((new.writer, new.namespace), (old.writer, old.namespace));
        assert_eq!(new.writer_name, old.writer_name);
    }
    std::fs::remove_file(source.join("secret")).expect("removed");
    let last = back_up(&writer, &source).expect("a backup").snapshot.expect("a snapshot");
    assert_eq!(last.record.previous, before.last().map(|one| one.id));
    let found = verify_full(&maintainer);
    assert!(found.findings.is_empty(), "{:?}", found.findings);
    let (target, report) = lab.restore(&maintainer, &after[2], false).expect("it restores");
    assert_eq!(report.failure_count, 0);
    assert!(!inside(&target, &source).join("secret").exists());
    // One series, of which rules keep as many as they say.
    let plan = keep_last(&owner, 2);
    assert_eq!((plan.series.len(), plan.kept(), plan.going()), (1, 2, 2));
}

#[test]
fn nothing_is_erased_where_something_cannot_be_read() {
    let scene = Scene::new(309, |root, seed| tree::small(root, 8, seed));
    let repository = scene.lab.open(&scene.store, "eraser");
    let name =
        scene.store.names().into_iter().find(|name| matches!(name, ObjectName::Snapshot { .. }));
    let name = name.expect("a snapshot");
    let mut object = cairn_tests::lab::object(&scene.store, &name).to_vec();
    object[300] ^= 1;
    scene.store.overwrite(name, object.into());
    let before = scene.store.names().into_iter().collect::<BTreeSet<_>>();
    let error = run(&repository, &below(&scene.source, &[b"text"])).unwrap_err();
    assert!(matches!(error, Error::Erase(EraseError::Unreadable { .. })), "{error:?}");
    assert_eq!(scene.store.names().into_iter().collect::<BTreeSet<_>>(), before);
}
