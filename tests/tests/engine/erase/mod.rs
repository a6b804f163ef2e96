//! Goal: what is erased is gone from every snapshot and from the store, what is not is as it was,
//! and an erasure that ends anywhere is completed by the next.
//! Method: trees with everything in them, compared before and after; a death at every store call;
//! forgetting, backups and other erasures beside it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_engine::error::{Class, Error, Explain as _};
use cairn_engine::ops::backup::{self, BackupOptions, BackupSource};
use cairn_engine::ops::erase::{self, EraseError, EraseOptions, EraseReport, Fate};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::snapshots::{self, SnapshotInfo};
use cairn_engine::repo::{Repository, keys};
use cairn_engine::retention::{Cause, Policy, Rule, Verdict, zone};
use cairn_engine::store::Store as _;
use cairn_engine::store::fault::{Call, Fault, FaultStore, Plan};
use cairn_engine::store::local::LocalStore;
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::record::CallKind;
use cairn_engine::tree::reader::{extents, lookup_path};
use cairn_format::certificate::Role;
use cairn_format::envelope::Cipher;
use cairn_format::names::{Folder, ObjectName};
use cairn_format::tree::{Extent, Node};
use cairn_tests::compare::{Tree, assert_same_tree, look};
use cairn_tests::garbage::everything;
use cairn_tests::lab::{
    Lab, OWNER, TestClock, alone, back_up, copy_of, inside, new_key, select, verify_full,
};
use cairn_tests::odd::Odd;
use cairn_tests::seed::noise;
use cairn_tests::tree;

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
fn an_erasure_that_dies_at_any_call_is_completed_by_the_next() {
    let scene = Scene::new(302, |root, seed| {
        tree::small(root, 12, seed);
        std::fs::write(root.join("folder/secret"), noise(400_000, seed)).expect("a file");
    });
    let gone: [&[u8]; 1] = [b"folder/secret"];
    let options = below(&scene.source, &gone);
    let erase = |store: &dyn Fn(&str) -> Result<Repository, Error>, cache: &str| {
        run(&store(cache)?, &options)
    };
    let recorded = FaultStore::new(copy_of(&scene.store), Plan::new());
    let open = |cache: &str| scene.lab.try_open(&recorded, OWNER, cache);
    erase(&open, "recorded").expect("it erases");
    let calls = recorded.calls();
    let changes = calls.iter().filter(|call| matches!(call.kind, CallKind::Put | CallKind::Delete));
    assert!(changes.count() > 15);
    for (number, call) in calls.iter().enumerate() {
        let faults: &[Fault] = match call.kind {
            CallKind::Put => &[Fault::Crash, Fault::CrashAfter, Fault::FailAfter, Fault::Full],
            CallKind::Delete => &[Fault::Crash, Fault::CrashAfter, Fault::FailAfter],
            // Nothing changes between two changes: one death is like another.
            _ => &[],
        };
        for fault in faults {
            let store = copy_of(&scene.store);
            let cache = format!("cache-{number}");
            let faulty = FaultStore::new(store.clone(), Plan::new().at(number as u64, *fault));
            let open = |cache: &str| scene.lab.try_open(&faulty, OWNER, cache);
            let _outcome = erase(&open, &cache);
            // Every snapshot is there, before or after: whoever looks for one by time finds it.
            let repository = scene.lab.open(&store, "fresh");
            let listed = list(&repository);
            for tree in 0..scene.trees.len() {
                let time_ms = listed
                    .iter()
                    .filter(|one| one.acknowledged && one.record.sequence == tree as u64 + 1);
                assert!(time_ms.count() >= 1, "{fault:?} at {call:?} lost a snapshot");
            }
            drop(repository);
            let _none = std::fs::remove_dir_all(scene.lab.cache("fresh"));
            // By the host that died, or by another.
            let next = if number % 2 == 0 { cache.as_str() } else { "other" };
            let open = |cache: &str| scene.lab.try_open(&store, OWNER, cache);
            match erase(&open, next) {
                Ok(_) => {}
                // It was all done but for garbage.
                Err(Error::Erase(EraseError::NothingMatches { .. })) => {
                    let repository = scene.lab.open(&store, next);
                    let all = GcOptions { max_delete_percent: 100.0, ..GcOptions::default() };
                    gc::run(&repository, &all).expect("it collects");
                }
                Err(error) => panic!("{fault:?} at {call:?}: {error}"),
            }
            scene.assert_left(&store, &gone);
            for used in [cache.as_str(), "other"] {
                let _none = std::fs::remove_dir_all(scene.lab.cache(used));
            }
        }
    }
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

/// The state in which a death leaves an erasure: a snapshot is there before and after.
#[test]
fn forgetting_beside_an_erasure_keeps_what_stands_for_the_others() {
    let scene = Scene::new(306, |root, seed| tree::small(root, 8, seed));
    let options = below(&scene.source, &[b"text"]);
    let recorded = FaultStore::new(copy_of(&scene.store), Plan::new());
    let repository = scene.lab.open(&recorded, "recorded");
    run(&repository, &options).expect("it erases");
    let calls = recorded.calls();
    let mut deletes = calls.iter().filter(|call| call.kind == CallKind::Delete);
    let first_ack = deletes.position(|call| matches!(call.name, Some(ObjectName::Ack { .. })));
    let first_ack = first_ack.expect("an acknowledgement goes") as u64;
    drop(repository);
    let store = copy_of(&scene.store);
    let dies = Plan::new().nth(CallKind::Delete, first_ack, Fault::Crash);
    let repository = scene.lab.open(&FaultStore::new(store.clone(), dies), "dies");
    run(&repository, &options).unwrap_err();
    drop(repository);
    let repository = scene.lab.open(&store, "other");
    let both = list(&repository);
    assert_eq!(both.len(), 6);
    let plan = keep_last(&repository, 1);
    let verdicts = plan.series.iter().flat_map(|series| &series.snapshots);
    for planned in verdicts {
        let remade = !planned.snapshot.former().is_empty();
        match &planned.verdict {
            Verdict::Keep(_) => assert!(remade && planned.snapshot.record.sequence == 3),
            Verdict::Go(Cause::MadeAnew { by }) => {
                assert!(!remade && both.iter().any(|one| one.id == *by));
            }
            Verdict::Go(_) => assert!(remade && planned.snapshot.record.sequence < 3),
        }
    }
    assert_eq!(plan.kept(), 1);
    forget::run(&repository, &plan).expect("forgotten");
    let left = list(&repository);
    assert_eq!(left.len(), 1);
    let (target, report) = scene.lab.restore(&repository, &left[0], false).expect("it restores");
    assert_eq!(report.failure_count, 0);
    let expected = without(&scene.trees[2], &[b"text"]);
    assert_same_tree(&expected, &inside(&target, &scene.source));
}

#[test]
fn two_erasures_at_once_end_with_one_of_each() {
    let scene = Scene::new(307, |root, seed| tree::small(root, 8, seed));
    let (one, two) = (scene.lab.open(&scene.store, "one"), scene.lab.open(&scene.store, "two"));
    let (first, second) = (below(&scene.source, &[b"text"]), below(&scene.source, &[b"link"]));
    // Both look, then both do what they planned.
    let plans = (
        erase::plan(&one, &first, None).expect("a plan"),
        erase::plan(&two, &second, None).expect("a plan"),
    );
    erase::run(&one, &first, plans.0).expect("erased");
    // What it was to be made of is gone: planned anew it goes on.
    let outcome = erase::run(&two, &second, plans.1);
    if outcome.is_err() {
        run(&two, &second).expect("erased");
    }
    scene.assert_left(&scene.store, &[b"text", b"link"]);
}

#[test]
fn a_backup_that_may_be_at_work_is_waited_for() {
    let scene = Scene::new(308, |root, seed| tree::small(root, 8, seed));
    let repository = scene.lab.open(&scene.store, "eraser");
    let latest = select(&repository, "latest");
    scene.lab.clock.set_ms(latest.record.finished_ms + 1_000);
    let ack = |name: &ObjectName| matches!(name, ObjectName::Ack { snapshot, .. } if *snapshot == latest.id);
    for name in scene.store.names().iter().filter(|name| ack(name)) {
        scene.store.delete(name).expect("deleted");
    }
    let options = below(&scene.source, &[b"text"]);
    let report = run(&repository, &options).expect("erased");
    assert_eq!((report.snapshots.len(), report.waiting.as_slice()), (2, &[latest.id][..]));
    scene.lab.clock.set_ms(latest.record.finished_ms + 90_000_000);
    let report = run(&repository, &options).expect("erased");
    assert_eq!((report.snapshots.len(), report.waiting.len()), (1, 0));
    let left = list(&repository);
    let acknowledged = left.iter().map(|one| one.acknowledged).collect::<Vec<_>>();
    assert_eq!(acknowledged, [true, true, false]);
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

/// The files below a folder that hold any of these bytes.
fn holding(folder: &Path, needles: &[Vec<u8>]) -> Vec<PathBuf> {
    let files = cairn_tests::process::files_below(folder).into_iter();
    let holds = |path: &PathBuf| {
        let data = std::fs::read(path).expect("a file");
        needles
            .iter()
            .any(|needle| data.windows(needle.len()).any(|window| window == needle.as_slice()))
    };
    files.filter(holds).collect()
}

#[test]
fn neither_cache_nor_repository_names_what_was_erased() {
    let lab = Lab::new(310);
    let place = lab.path("repository");
    let store = Arc::new(LocalStore::create(&place).expect("a folder"));
    lab.init(store.as_ref(), Cipher::Aes256Gcm);
    let source = lab.path("source");
    tree::small(&source, 30, 310);
    let open = |cache: &str| lab.open(&store, cache);
    let repository = open("cache");
    back_up(&repository, &source).expect("a backup");
    // Of few chunks, of many, and what resembles something that is stored.
    std::fs::write(source.join("folder/secret"), noise(300_000, 1)).expect("a file");
    std::fs::write(source.join("large secret"), noise(3_000_000, 2)).expect("a file");
    let mut alike = noise(300_000, 1);
    alike[200_000] ^= 1;
    std::fs::write(source.join("alike secret"), alike).expect("a file");
    tree::settle(&source);
    let all = back_up(&repository, &source).expect("a backup").snapshot.expect("a snapshot");
    let mut ids = Vec::new();
    let nodes = repository.nodes(&all).expect("nodes");
    for name in ["folder/secret", "large secret", "alike secret"] {
        let path = source.join(name);
        let entry = lookup_path(&nodes, &all.record.root, path.as_os_str().as_bytes());
        let Node::File(content) = entry.expect("read").expect("there").node else {
            panic!("{name}")
        };
        extents(&nodes, &content, &mut |_, extent| {
            if let Extent::Chunk { id, .. } = extent {
                ids.push(id.as_bytes().to_vec());
            }
            Ok(())
        })
        .expect("extents");
    }
    drop(nodes);
    let packs = |store: &LocalStore| {
        let mut packs = BTreeSet::new();
        for folder in [Folder::DataPacks, Folder::TreePacks] {
            let mut each = |name, _| {
                packs.insert(name);
                Ok(())
            };
            store.list(folder, &mut each).expect("a list");
        }
        packs
    };
    let before = packs(&store);
    drop(repository);
    assert!(!holding(&lab.cache("cache"), &ids).is_empty(), "the cache names chunks");
    let repository = open("cache");
    let options = below(&source, &[b"folder/secret", b"large secret", b"alike secret"]);
    let report = run(&repository, &options).expect("it erases");
    assert!(report.cache_clean && report.chunks_kept == 0);
    assert_eq!(report.receipts.len(), 1);
    drop(repository);
    // The journal of the cache begins anew when it is opened.
    drop(open("cache").catalog().map(|_| ()));
    let after = packs(&store);
    let gone = before.difference(&after).filter_map(ObjectName::content_hash);
    ids.extend(gone.map(|hash| hash.to_vec()));
    assert!(ids.len() > 40, "{}", ids.len());
    for folder in [lab.cache("cache"), place] {
        let found = holding(&folder, &ids);
        assert!(found.is_empty(), "{found:?}");
    }
    // The cache is still of use.
    let repository = open("cache");
    std::fs::remove_file(source.join("folder/secret")).expect("removed");
    let again = back_up(&repository, &source).expect("a backup");
    assert!(again.statistics.bytes_new > 3_000_000, "{:?}", again.statistics);
    assert!(verify_full(&repository).findings.is_empty());
}

/// What was stored and not named is known to the host that died, and to nobody else.
#[test]
fn what_an_interrupted_erasure_has_stored_is_named_by_the_next() {
    let scene = Scene::new(312, |root, seed| tree::small(root, 8, seed));
    let options = below(&scene.source, &[b"text"]);
    let recorded = FaultStore::new(copy_of(&scene.store), Plan::new());
    run(&scene.lab.open(&recorded, "recorded"), &options).expect("it erases");
    let names =
        |call: &Call| call.kind == CallKind::Put && matches!(call.name, Some(ObjectName::Index(_)));
    let number = recorded.calls().iter().position(names).expect("a segment is put") as u64;
    let store = copy_of(&scene.store);
    let faulty = FaultStore::new(store.clone(), Plan::new().at(number, Fault::FailBefore));
    let repository = scene.lab.open(&faulty, "eraser");
    run(&repository, &options).expect_err("the segment is not put");
    let options = EraseOptions { collect: false, ..options };
    run(&repository, &options).expect("it erases");
    drop(repository);
    scene.assert_left(&store, &[b"text"]);
}

/// What another host does in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Collects,
    BacksUp,
    Forgets,
    Erases,
}

#[test]
fn whatever_others_do_between_two_changes_nothing_is_lost_and_nothing_comes_back() {
    let scene = Scene::new(311, |root, seed| {
        tree::small(root, 6, seed);
        std::fs::write(root.join("folder/secret"), noise(200_000, seed)).expect("a file");
    });
    let gone: [&[u8]; 1] = [b"folder/secret"];
    let options = below(&scene.source, &gone);
    let recorded = FaultStore::new(copy_of(&scene.store), Plan::new());
    run(&scene.lab.open(&recorded, "recorded"), &options).expect("it erases");
    let calls = recorded.calls();
    let changes = calls.iter().filter(|call| matches!(call.kind, CallKind::Put | CallKind::Delete));
    for number in 0..changes.count() as u64 {
        use Meanwhile::{BacksUp, Collects, Erases, Forgets};
        for meanwhile in [Collects, BacksUp, Forgets, Erases] {
            let store = copy_of(&scene.store);
            let other = scene.lab.open(&store, "other");
            let (source, own) = (scene.source.clone(), options.clone());
            let act = move || match meanwhile {
                Collects => gc::run(&other, &everything()).map(drop).expect("it collects"),
                BacksUp => back_up(&other, &source).map(drop).expect("a backup"),
                Forgets => {
                    let plan = keep_last(&other, 2);
                    forget::run(&other, &plan).map(drop).expect("forgotten");
                }
                // What the one has begun, the other may find half done.
                Erases => drop(run(&other, &own)),
            };
            let count = AtomicU64::new(0);
            let changes = |kind| matches!(kind, CallKind::Put | CallKind::Delete);
            let between = Odd::new(store.clone()).before(
                move |kind, _| changes(kind) && count.fetch_add(1, Ordering::SeqCst) == number,
                act,
            );
            let repository = scene.lab.open(&between, "eraser");
            let outcome = alone(|| run(&repository, &options));
            drop(repository);
            let what = format!("{meanwhile:?} before change {number}");
            // It may have to be run again, and then there may be nothing left to do.
            let repository = scene.lab.open(&store, "after");
            match run(&repository, &options) {
                Ok(_) | Err(Error::Erase(EraseError::NothingMatches { .. })) => {}
                Err(error) => panic!("{what}: {error}; before: {outcome:?}"),
            }
            let listed = list(&repository);
            let expected = match meanwhile {
                Forgets => 2..=3,
                BacksUp => 4..=4,
                Collects | Erases => 3..=3,
            };
            assert!(expected.contains(&listed.len()), "{what}: {} snapshots", listed.len());
            for snapshot in &listed {
                assert!(snapshot.acknowledged, "{what}");
                let (target, report) =
                    scene.lab.restore(&repository, snapshot, false).expect("it restores");
                assert_eq!(report.failure_count, 0, "{what}: {:?}", report.failures);
                let sequence = usize::try_from(snapshot.record.sequence).expect("a small number");
                let tree = scene.trees.get(sequence - 1).filter(|_| snapshot.record.host == "host");
                if let Some(tree) = tree.filter(|_| listed.len() < 4) {
                    assert_same_tree(&without(tree, &gone), &inside(&target, &scene.source));
                }
                assert!(!inside(&target, &scene.source).join("folder/secret").exists(), "{what}");
                std::fs::remove_dir_all(target).expect("removed");
            }
            let found = verify_full(&repository);
            assert!(found.findings.is_empty(), "{what}: {:?}", found.findings);
            drop(repository);
            for cache in ["other", "eraser", "after"] {
                let _none = std::fs::remove_dir_all(scene.lab.cache(cache));
            }
        }
    }
}
