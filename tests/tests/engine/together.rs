//! Goal: any number of writers and readers use one repository at once, and nobody disturbs
//! another.
//! Method: threads that each open the repository on their own, with a cache of their own or a
//! shared one, back up, merge segments, restore and verify at the same time.

use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_engine::ops::backup::{self, BackupOptions, BackupSource};
use cairn_engine::ops::snapshots;
use cairn_engine::repo::keys;
use cairn_engine::store::Store;
use cairn_engine::store::local::LocalStore;
use cairn_format::certificate::Role;
use cairn_format::envelope::Cipher;
use cairn_format::names::{Folder, ObjectName};
use cairn_tests::compare::assert_same;
use cairn_tests::lab::{Lab, OWNER, back_up, inside, new_key, select, verify_full};
use cairn_tests::seed::noise;
use cairn_tests::tree;

const WRITERS: usize = 4;
const ROUNDS: usize = 3;

/// A source for each writer; half of what is in it is the same for all.
fn sources(lab: &Lab) -> Vec<PathBuf> {
    (0..WRITERS)
        .map(|number| {
            let source = lab.path(&format!("source-{number}"));
            tree::small(&source, 40, 1);
            std::fs::write(source.join("shared"), noise(900_000, 4)).expect("a file");
            std::fs::write(source.join("own"), noise(200_000, 50 + number as u64)).expect("a file");
            tree::settle(&source);
            source
        })
        .collect()
}

fn all_write(
    lab: &Lab,
    store: &(impl Store + Clone + 'static),
    cache: impl Fn(usize) -> String + Sync,
) {
    let sources = sources(lab);
    let barrier = Barrier::new(WRITERS);
    std::thread::scope(|threads| {
        for (number, source) in sources.iter().enumerate() {
            let (barrier, cache) = (&barrier, &cache);
            threads.spawn(move || {
                let repository = lab.open(store, &cache(number));
                barrier.wait();
                for round in 0..ROUNDS {
                    std::fs::write(
                        source.join(format!("round-{round}")),
                        noise(50_000, round as u64),
                    )
                    .expect("a file");
                    let options = BackupOptions::new(
                        &format!("job-{number}"),
                        vec![BackupSource::Path(source.clone())],
                    );
                    backup::run(&repository, options).expect("the backup");
                }
            });
        }
    });
    let repository = lab.open(store, "afterwards");
    assert_eq!(snapshots::list(&repository).expect("a list").len(), WRITERS * ROUNDS);
    for (number, source) in sources.iter().enumerate() {
        let snapshot = select(&repository, &format!("job:job-{number}"));
        let (target, report) = lab.restore(&repository, &snapshot, false).expect("it restores");
        assert_eq!(report.failure_count, 0, "{:?}", report.failures);
        assert_same(source, &inside(&target, source));
    }
    let report = verify_full(&repository);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(report.unacknowledged, 0);
}

#[test]
fn several_hosts_back_up_to_one_repository_at_once() {
    let lab = Lab::new(21);
    let store = lab.memory();
    all_write(&lab, &store, |number| format!("cache-{number}"));
}

#[test]
fn several_processes_of_one_host_share_a_cache() {
    let lab = Lab::new(22);
    let store = lab.memory();
    all_write(&lab, &store, |_| "cache".to_owned());
}

#[test]
fn several_writers_share_a_folder_on_disk() {
    let lab = Lab::new(23);
    let folder = lab.path("repository");
    let store = LocalStore::create(&folder).expect("a folder");
    lab.init(&store, Cipher::XChaCha20Poly1305);
    let store = std::sync::Arc::new(store);
    all_write(&lab, &store, |number| format!("cache-{}", number % 2));
}

/// Owners and role-1 writers back up the same data at once: each can rely on what it may, all
/// snapshots restore for an owner, and no writer reads.
#[test]
fn writers_that_cannot_read_work_beside_owners() {
    let lab = Lab::new(24);
    let store = lab.memory();
    {
        let owner = lab.open(&store, "maker");
        keys::add(&owner, &new_key("one", Role::Writer)).expect("a key");
        keys::add(&owner, &new_key("two", Role::Writer)).expect("a key");
    }
    let source = lab.path("source");
    tree::everything(&source, 9);
    std::thread::scope(|threads| {
        for (number, key) in [OWNER, "one", "two"].into_iter().enumerate() {
            let (lab, store, source) = (&lab, &store, &source);
            threads.spawn(move || {
                let cache = format!("cache-{number}");
                for _ in 0..2 {
                    let repository = lab.try_open(store, key, &cache).expect("it opens");
                    let options = BackupOptions {
                        reread: true,
                        ..BackupOptions::new(key, vec![BackupSource::Path(source.clone())])
                    };
                    backup::run(&repository, options).expect("the backup");
                }
                let repository = lab.try_open(store, key, &cache).expect("it opens");
                assert_eq!(snapshots::list(&repository).is_ok(), key == OWNER);
            });
        }
    });
    let owner = lab.open(&store, "afterwards");
    let listed = snapshots::list(&owner).expect("a list");
    assert_eq!(listed.len(), 6);
    for snapshot in listed {
        let (target, report) = lab.restore(&owner, &snapshot, false).expect("it restores");
        assert_eq!(report.failure_count, 0, "{:?}", report.failures);
        assert_same(&source, &inside(&target, &source));
    }
    let report = verify_full(&owner);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

/// Readers that open, list, restore and verify while writers add and merge segments.
#[test]
fn readers_are_not_disturbed_by_a_writer_that_merges() {
    let lab = Lab::new(25);
    let store = lab.memory();
    let source = lab.path("source");
    tree::small(&source, 20, 5);
    back_up(&lab.open(&store, "writer"), &source).expect("the first backup");
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let writer = threads.spawn(|| {
            let source = lab.path("changing");
            tree::small(&source, 5, 7);
            for round in 0..24 {
                std::fs::write(source.join("text"), noise(3_000, round)).expect("a file");
                back_up(&lab.open(&store, "writer"), &source).expect("the backup");
            }
        });
        let reader = threads.spawn(|| {
            let mut rounds = 0;
            while rounds < 2 || !done.load(Ordering::SeqCst) {
                rounds += 1;
                let repository = lab.open(&store, &format!("reader-{rounds}"));
                let first = snapshots::list(&repository).expect("a list").remove(0);
                let (target, _) = lab.restore(&repository, &first, false).expect("it restores");
                assert_same(&source, &inside(&target, &source));
                std::fs::remove_dir_all(target).expect("the folder is removed");
                let report = verify_full(&repository);
                assert!(report.findings.is_empty(), "{:?}", report.findings);
            }
        });
        let written = writer.join();
        done.store(true, Ordering::SeqCst);
        reader.join().expect("the reader");
        written.expect("the writer");
    });
    let mut segments = 0;
    store
        .list(Folder::Index, &mut |_, _| {
            segments += 1;
            Ok(())
        })
        .expect("a list");
    assert!(segments <= 8, "25 backups left {segments} segments");
}

#[test]
fn a_snapshot_whose_writer_died_before_it_looked_for_its_chunks_is_no_damage() {
    let lab = Lab::new(91);
    let store = lab.memory();
    let source = lab.path("source");
    tree::small(&source, 5, 1);
    back_up(&lab.open(&store, "writer"), &source).expect("a backup");
    // What it relied on was collected before the snapshot was put.
    for name in store.names() {
        if matches!(name, ObjectName::Pack(..) | ObjectName::Index(_)) {
            store.delete(&name).expect("deleted");
        }
    }
    let acknowledged = verify_full(&lab.open(&store, "first"));
    assert!(acknowledged.affected_count > 0 && !acknowledged.findings.is_empty());
    let acks = store.names().into_iter().filter(|name| matches!(name, ObjectName::Ack { .. }));
    for ack in acks {
        store.delete(&ack).expect("deleted");
    }
    let report = verify_full(&lab.open(&store, "second"));
    assert_eq!((report.findings.len(), report.affected_count), (0, 0), "{report:?}");
    assert_eq!((report.snapshots, report.unacknowledged), (1, 1));
}
