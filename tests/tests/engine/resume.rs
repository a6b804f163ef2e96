//! Goal: what was done before an interruption is not done again; a delta restore writes only what
//! differs.
//! Method: count the bytes that go to the store, and those written to the target.

use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use cairn_engine::context::Counter;
use cairn_engine::ops::backup::{self, BackupOptions, BackupSource};
use cairn_engine::ops::restore::{self, RestoreOptions};
use cairn_engine::store::fault::{Fault, FaultStore, Plan};
use cairn_engine::store::record::{CallKind, RecordStore};
use cairn_tests::compare::{assert_same, look};
use cairn_tests::lab::{Lab, StopAfter, back_up, inside, select, verify_full};
use cairn_tests::seed::noise;
use cairn_tests::tree;
use std::sync::Arc;

const FILES: usize = 12;
const FILE_BYTES: usize = 1 << 20;

/// A source of files that do not compress.
fn make_source(lab: &Lab) -> std::path::PathBuf {
    let source = lab.path("source");
    std::fs::create_dir(&source).expect("a folder");
    for number in 0..FILES {
        std::fs::write(source.join(format!("{number:02}")), noise(FILE_BYTES, number as u64))
            .expect("a file");
    }
    tree::settle(&source);
    source
}

#[test]
fn an_interrupted_backup_stores_only_the_rest_when_it_runs_again() {
    let lab = Lab::new(31);
    let store = lab.memory();
    let source = make_source(&lab);
    // The process dies before its eighth put: a lease and six packs of about a mebibyte are durable.
    let plan = Plan::new().nth(CallKind::Put, 7, Fault::Crash);
    let faulty = FaultStore::new(store.clone(), plan);
    back_up(&lab.open(&faulty, "cache"), &source).expect_err("it died");
    let recorded = RecordStore::new(store.clone());
    let repository = lab.open(&recorded, "cache");
    let _opening = recorded.take();
    let report = back_up(&repository, &source).expect("the next run completes");
    let put_bytes = recorded.tallies().put.bytes;
    let total_bytes = (FILES * FILE_BYTES) as u64;
    assert!(report.packs_resumed >= 5, "{report:?}");
    assert!(put_bytes < total_bytes - 5 * (900 << 10), "{put_bytes} bytes were put again");
    let (target, _) = lab.restore(&repository, &select(&repository, "latest"), false).expect("ok");
    assert_same(&source, &inside(&target, &source));
    drop(repository);
    let fresh = lab.open(&store, "fresh");
    let found = verify_full(&fresh);
    assert!(found.findings.is_empty(), "{:?}", found.findings);
    // What the first run left is named in a segment: nobody has to look for it.
    let unlisted = fresh.catalog().expect("the index").unlisted_packs(fresh.vault());
    assert!(unlisted.expect("a list").is_empty());
}

/// A host that lost its cache, or another one, finds the packs of the interrupted run by rebuilding
/// its index.
#[test]
fn packs_of_an_interrupted_run_serve_others_after_the_index_is_rebuilt() {
    let lab = Lab::new(32);
    let store = lab.memory();
    let source = make_source(&lab);
    let plan = Plan::new().nth(CallKind::Put, 7, Fault::Crash);
    let faulty = FaultStore::new(store.clone(), plan);
    back_up(&lab.open(&faulty, "cache"), &source).expect_err("it died");
    let repository = lab.open(&store, "other");
    let repaired = cairn_engine::ops::repair_index::run(&repository, false).expect("it repairs");
    assert!(repaired.packs_added >= 5, "{repaired:?}");
    let report = back_up(&repository, &source).expect("the next run completes");
    assert!(report.statistics.bytes_new < (FILES * FILE_BYTES) as u64 / 2 + (2 << 20));
    let found = verify_full(&lab.open(&store, "fresh"));
    assert!(found.findings.is_empty(), "{:?}", found.findings);
}

#[test]
fn an_interrupted_restore_continues_and_ends_equal() {
    let lab = Lab::new(33);
    let store = lab.memory();
    let source = make_source(&lab);
    tree::everything(&source.join("more"), 8);
    back_up(&lab.open(&store, "cache"), &source).expect("the backup");
    let monitor = Arc::new(StopAfter::new(5 << 20, Some(Counter::BytesRestored)));
    let stopping = lab.open_watched(&store, "stopping", monitor);
    let target = lab.path("target");
    let options = RestoreOptions::new(select(&stopping, "latest"), target.clone());
    restore::run(&stopping, &options).expect_err("it was told to stop");
    drop(stopping);

    let repository = lab.open(&store, "cache");
    let other = RestoreOptions { path: Some(b"/other".to_vec()), ..options.clone() };
    assert!(restore::plan(&repository, &other).is_err(), "it is not the restore that was begun");
    restore::plan(&repository, &options).expect("it may be continued");
    let report = restore::run(&repository, &options).expect("it continues");
    assert!(report.resumed && report.failure_count == 0, "{report:?}");
    assert!(report.bytes_kept >= 4 << 20, "{report:?}");
    assert_same(&source, &inside(&target, &source));
    let left = std::fs::read_dir(&target).expect("the target").count();
    assert_eq!(left, 1, "the note that it is under way is gone");
    let again = restore::run(&repository, &options).expect_err("it is done, and not empty");
    assert_eq!(cairn_engine::error::Explain::class(&again), cairn_engine::error::Class::Refused);
}

#[test]
fn a_delta_restore_writes_only_what_differs() {
    let lab = Lab::new(34);
    let store = lab.memory();
    let source = lab.path("source");
    tree::everything(&source, 6);
    // Over 20 MB, page-like: 64 KiB chunks.
    std::fs::write(source.join("pages"), noise(20 << 20, 3)).expect("a file");
    tree::settle(&source);
    let repository = lab.open(&store, "cache");
    back_up(&repository, &source).expect("the backup");
    let mut before = look(&source);

    let file = std::fs::OpenOptions::new().write(true).open(source.join("pages")).expect("a file");
    file.write_all_at(b"changed", 10 << 20).expect("a change");
    file.set_len(15 << 20).expect("shorter");
    drop(file);
    std::fs::remove_file(source.join("empty")).expect("removed");
    std::fs::remove_file(source.join("link")).expect("removed");
    std::fs::write(source.join("link"), "a file now").expect("a file");
    std::fs::write(source.join("second-name"), "both names change").expect("a change");
    std::fs::File::create(source.join("sparse"))
        .and_then(|file| file.write_all_at(&noise(20_000_000, 5), 0))
        .expect("no holes any more");
    let inode = std::fs::metadata(source.join("pages")).expect("the file").ino();

    let options = RestoreOptions {
        path: Some(source.as_os_str().as_encoded_bytes().to_vec()),
        delta: true,
        ..RestoreOptions::new(select(&repository, "latest"), source.clone())
    };
    let report = restore::run(&repository, &options).expect("the delta restore");
    assert_eq!(report.failure_count, 0, "{:?}", report.failures);
    let mut after = look(&source);
    // The target itself is not part of what a path names.
    before.remove(Path::new(""));
    after.remove(Path::new(""));
    let found = cairn_tests::compare::differences(&before, &after);
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(std::fs::metadata(source.join("pages")).expect("the file").ino(), inode);
    // 5 MiB that were cut off, one chunk that changed, `large` (2.5 MB), the data of `sparse`.
    let bound = (5 << 20) + (1 << 20) + 2_500_000 + 310_000 + (256 << 10);
    assert!(report.bytes_written <= bound, "{} bytes were written", report.bytes_written);
    assert!(report.bytes_kept >= 14 << 20, "{report:?}");
}

/// The unchanged tree is neither read again nor written again.
#[test]
fn a_delta_restore_of_nothing_new_writes_nothing() {
    let lab = Lab::new(35);
    let store = lab.memory();
    let source = lab.path("source");
    tree::everything(&source, 6);
    // A file with several names is written anew: one of them may lie outside of the target.
    std::fs::remove_file(source.join("second-name")).expect("removed");
    tree::settle(&source);
    let repository = lab.open(&store, "cache");
    let sources = vec![BackupSource::Path(source.clone())];
    backup::run(&repository, BackupOptions::new("job", sources)).expect("the backup");
    let (target, _) = lab.restore(&repository, &select(&repository, "latest"), false).expect("ok");
    let mut options = RestoreOptions::new(select(&repository, "latest"), target.clone());
    options.delta = true;
    let report = restore::run(&repository, &options).expect("the delta restore");
    assert_eq!((report.bytes_written, report.failure_count), (0, 0), "{report:?}");
    assert_same(&source, &inside(&target, &source));
}
