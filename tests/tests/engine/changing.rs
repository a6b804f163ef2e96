//! Goal: a file that changes while it is read is stored exactly as it was at some moment, or is
//! reported.
//! Method: threads that append to, cut, replace, rewrite and remove files while backups run; each
//! file's content says whether it is of one piece.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_engine::ops::backup::{self, BackupOptions, BackupReport, BackupSource};
use cairn_engine::ops::snapshots::SnapshotInfo;
use cairn_tests::lab::{Lab, inside, verify_full};
use cairn_tests::seed::{Seed, noise};

const FILES: usize = 6;
const FILE_BYTES: usize = 3 << 20;
const ROUNDS: usize = 8;
/// Files that grow do so up to here, bytes.
const LONGEST_BYTES: u64 = 8 << 20;

/// Backs the folder up again and again while `disturb` works on the file it is given.
fn while_disturbed(
    seed: u64,
    disturb: impl Fn(&Path, &mut Seed) + Sync,
    check: impl Fn(&Path, &Path, bool),
) {
    let lab = Lab::new(seed);
    let store = lab.memory();
    let source = lab.path("source");
    std::fs::create_dir(&source).expect("a folder");
    for number in 0..FILES {
        std::fs::write(source.join(format!("{number}")), noise(FILE_BYTES, number as u64))
            .expect("a file");
    }
    let repository = lab.open(&store, "cache");
    let done = AtomicBool::new(false);
    let reports = std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut seed = Seed::new();
            while !done.load(Ordering::SeqCst) {
                let number = seed.below(FILES as u64);
                disturb(&source.join(format!("{number}")), &mut seed);
            }
        });
        let reports = (0..ROUNDS)
            .map(|_| {
                let sources = vec![BackupSource::Path(source.clone())];
                let options = BackupOptions::new("job", sources);
                backup::run(&repository, options)
            })
            .collect::<Vec<_>>();
        done.store(true, Ordering::SeqCst);
        reports
    });
    for report in reports {
        let report = report.expect("changing files are no failure");
        check_one(&lab, &repository, &report, &source, &check);
    }
    let found = verify_full(&lab.open(&store, "fresh"));
    assert!(found.findings.is_empty(), "{:?}", found.findings);
}

fn check_one(
    lab: &Lab,
    repository: &cairn_engine::repo::Repository,
    report: &BackupReport,
    source: &Path,
    check: &impl Fn(&Path, &Path, bool),
) {
    let snapshot: &SnapshotInfo = report.snapshot.as_ref().expect("a snapshot");
    let (target, restored) = lab.restore(repository, snapshot, false).expect("it restores");
    assert_eq!(restored.failure_count, 0, "{:?}", restored.failures);
    for number in 0..FILES {
        let path = source.join(format!("{number}"));
        let shown = path.display().to_string();
        let reported = report.unread.iter().any(|remark| remark.subject == shown);
        check(&path, &inside(&target, &path), reported);
    }
    assert_eq!(report.unread_count, report.unread.len() as u64);
    std::fs::remove_dir_all(target).expect("the folder is removed");
}

/// The original content of the file with this path.
fn original(path: &Path) -> Vec<u8> {
    let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
    noise(FILE_BYTES, number.expect("a number"))
}

#[test]
fn growing_files_are_stored_up_to_a_length_they_had() {
    while_disturbed(
        71,
        |path, seed| {
            let file = std::fs::OpenOptions::new().append(true).open(path);
            let mut file = file.expect("it is there");
            // Bounded, because backups would take the longer the longer they take.
            if file.metadata().expect("it is there").len() < LONGEST_BYTES {
                let more = vec![7; 1 + seed.below(5_000) as usize];
                file.write_all(&more).expect("appended");
            }
            std::thread::sleep(std::time::Duration::from_micros(200));
        },
        |path, restored, reported| {
            assert!(!reported, "{}: what only grew is whole", path.display());
            let data = std::fs::read(restored).expect("it was there all the time");
            assert!(data.len() >= FILE_BYTES, "{} bytes", data.len());
            assert!(data[..FILE_BYTES] == original(path), "its beginning never changed");
            assert!(data[FILE_BYTES..].iter().all(|byte| *byte == 7));
        },
    );
}

#[test]
fn shrinking_and_regrowing_files_are_exact_or_reported() {
    while_disturbed(
        72,
        |path, seed| {
            let file = std::fs::OpenOptions::new().write(true).open(path).expect("it is there");
            file.set_len(seed.below(FILE_BYTES as u64)).expect("cut");
            std::fs::write(path, original(path)).expect("written anew");
        },
        |path, restored, reported| {
            // At every moment it was a beginning of the original.
            let exact = std::fs::read(restored).is_ok_and(|data| original(path).starts_with(&data));
            assert!(exact || reported, "{}: neither exact nor reported", path.display());
        },
    );
}

#[test]
fn files_that_vanish_are_reported_or_absent_and_never_in_part() {
    while_disturbed(
        73,
        |path, _| {
            std::fs::remove_file(path).expect("removed");
            let beside = path.with_extension("new");
            std::fs::write(&beside, original(path)).expect("written");
            std::fs::rename(&beside, path).expect("renamed");
        },
        |path, restored, reported| match std::fs::read(restored) {
            Ok(data) => assert!(data == original(path) || reported, "{}", path.display()),
            // Gone before the folder was listed: then nobody knew of it.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        },
    );
}

/// Replaced by rename, as editors and databases do: the old or the new, whole.
#[test]
fn replaced_files_are_stored_whole() {
    let versions = |path: &Path| {
        let mut other = original(path);
        other.iter_mut().for_each(|byte| *byte ^= 0xff);
        [original(path), other]
    };
    while_disturbed(
        74,
        |path, seed| {
            let beside = path.with_extension("new");
            let [one, other] = versions(path);
            let data = if seed.below(2) == 0 { one } else { other };
            std::fs::write(&beside, data).expect("written");
            std::fs::rename(&beside, path).expect("renamed");
        },
        |path, restored, reported| {
            let data = std::fs::read(restored).ok();
            let whole = data.is_some_and(|data| versions(path).contains(&data));
            assert!(whole || reported, "{}: neither whole nor reported", path.display());
        },
    );
}

/// Rewritten in place without rest: no single moment can be read, and that is said.
#[test]
fn files_rewritten_in_place_are_exact_or_reported() {
    while_disturbed(
        75,
        |path, seed| {
            use std::os::unix::fs::FileExt as _;
            let file = std::fs::OpenOptions::new().write(true).open(path).expect("it is there");
            let fill = vec![seed.below(256) as u8; FILE_BYTES];
            file.write_all_at(&fill, 0).expect("rewritten");
        },
        |path, restored, reported| {
            let data = std::fs::read(restored).expect("it was there all the time");
            let exact = data == original(path)
                || data.first().is_some_and(|first| data.iter().all(|byte| byte == first));
            assert!(exact || reported, "{}: a mixture that was not reported", path.display());
        },
    );
}

/// Rewritten in place while something is appended, up to a bound: the length alone says "grown".
#[test]
fn files_rewritten_in_place_and_extended_are_exact_or_reported() {
    while_disturbed(
        76,
        |path, seed| {
            use std::os::unix::fs::FileExt as _;
            let file = std::fs::OpenOptions::new().write(true).open(path).expect("it is there");
            let bytes = file.metadata().expect("it is there").len();
            if bytes + 512 > LONGEST_BYTES {
                file.set_len(FILE_BYTES as u64).expect("cut");
            }
            let fill = vec![seed.below(256) as u8; FILE_BYTES];
            file.write_all_at(&fill, 0).expect("rewritten");
            file.write_all_at(&fill[..512], bytes.min(LONGEST_BYTES - 512)).expect("appended");
        },
        |path, restored, reported| {
            let data = std::fs::read(restored).expect("it was there all the time");
            // Whole is what one rewriting left, or was about to replace.
            let head = data.get(..FILE_BYTES).unwrap_or(&data);
            let exact = head == original(path)
                || head.first().is_some_and(|first| head.iter().all(|byte| byte == first));
            assert!(exact || reported, "{}: a mixture that was not reported", path.display());
        },
    );
}
