//! What only an index in files has to promise: crashes, damage, several processes, bounded memory.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::index::local::tests::{chunk_id, content, new_pack, pack_id, segment_id};
use crate::index::local::{
    IndexError, LedgerEntry, LocalIndex, LocalOptions, MemoryIndex, Opened, PackState,
};
use cairn_format::ids::{ChunkId, RepositoryId};

/// Tells a process that was started from this test binary what to do.
const ROLE: &str = "CAIRN_TEST_LOCAL_INDEX_ROLE";
const CACHE: &str = "CAIRN_TEST_LOCAL_INDEX_CACHE";
pub(super) const SMALL: LocalOptions =
    LocalOptions { memory_bytes: LocalOptions::MEMORY_BYTES_MIN };

pub(super) fn repository() -> RepositoryId {
    RepositoryId::from_bytes([7; 16])
}

pub(super) fn open_in(cache: &Path) -> Opened {
    open(cache, repository().into(), SMALL).unwrap()
}

fn root(cache: &Path) -> std::path::PathBuf {
    cache.join(repository().to_hex())
}

pub(super) fn overlays(cache: &Path) -> usize {
    let names = fs::read_dir(root(cache)).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("overlay-")).count()
}

fn found(index: &dyn LocalIndex, chunks: &[u64]) -> Vec<bool> {
    let ids: Vec<ChunkId> = chunks.iter().copied().map(chunk_id).collect();
    let mut out = Vec::new();
    index.lookup_many(&ids, &mut out).unwrap();
    out.iter().map(Option::is_some).collect()
}

/// Not a test of its own: what a process started by [`start`] does.
#[test]
fn child() {
    let (Ok(role), Some(cache)) = (std::env::var(ROLE), std::env::var_os(CACHE)) else { return };
    let cache = Path::new(&cache);
    let opened = open_in(cache);
    match role.as_str() {
        "pending" => {
            opened.index.add_pack(&new_pack(1, &[vec![1, 2]]), PackState::Pending).unwrap();
            opened.index.add_pack(&new_pack(2, &[vec![3]]), PackState::Pending).unwrap();
            opened.index.commit_packs(&[pack_id(1)], &segment_id(1)).unwrap();
        }
        "second" => {
            assert!(opened.shared, "the parent has it open");
            assert_eq!(opened.rebuilt_because, None);
            assert_eq!(found(opened.index.as_ref(), &[1, 9]), [true, false]);
            opened.index.add_pack(&new_pack(9, &[vec![9]]), PackState::Pending).unwrap();
            assert_eq!(found(opened.index.as_ref(), &[1, 9]), [true, true]);
        }
        "loading" => {
            opened.index.add_pack(&new_pack(1, &[vec![1]]), PackState::Committed).unwrap();
            let mut load = opened.index.begin_load().unwrap();
            for number in 100..140 {
                let chunks = (0..1000).map(|chunk| number * 1000 + chunk).chain([1]).collect();
                load.add(&new_pack(number, &[chunks])).unwrap();
            }
            assert_eq!(opened.index.counts().unwrap().packs, 41, "they are there already");
            fs::write(cache.join("ready"), b"").unwrap();
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        other => panic!("no role {other}"),
    }
    fs::write(cache.join("ready"), b"").unwrap();
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Runs a process up to the point where it says that it is ready.
fn start(role: &str, cache: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["index::local::rocks::tests::child", "--exact", "--nocapture"])
        .env(ROLE, role)
        .env(CACHE, cache)
        .spawn()
        .unwrap();
    while !cache.join("ready").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the process ended early");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn pending_packs_survive_the_death_of_the_process() {
    let cache = tempfile::tempdir().unwrap();
    kill(start("pending", cache.path()));
    let opened = open_in(cache.path());
    assert!(!opened.shared && opened.rebuilt_because.is_none());
    assert_eq!(opened.index.pending_packs().unwrap(), [pack_id(2)]);
    assert_eq!(opened.index.segments().unwrap(), [segment_id(1)]);
    assert_eq!(found(opened.index.as_ref(), &[1, 2, 3, 4]), [true, true, true, false]);
}

#[test]
fn a_load_that_was_killed_is_taken_back() {
    let cache = tempfile::tempdir().unwrap();
    kill(start("loading", cache.path()));
    let opened = open_in(cache.path());
    let index = opened.index.as_ref();
    assert_eq!(opened.rebuilt_because, None);
    assert_eq!(found(index, &[1, 100_000, 120_500, 139_999]), [true, false, false, false]);
    assert_eq!(index.counts().unwrap().packs, 1);
    // Numbers are not given again.
    let number = index.add_pack(&new_pack(2, &[vec![2]]), PackState::Committed).unwrap();
    assert!(number.0 > 40, "{number:?}");
}

#[test]
fn a_second_process_neither_waits_nor_disturbs() {
    let cache = tempfile::tempdir().unwrap();
    let first = open_in(cache.path());
    first.index.add_pack(&new_pack(1, &[vec![1]]), PackState::Committed).unwrap();
    let second = start("second", cache.path());
    assert_eq!(overlays(cache.path()), 1);
    first.index.add_pack(&new_pack(2, &[vec![2]]), PackState::Pending).unwrap();
    kill(second);
    assert_eq!(overlays(cache.path()), 1, "nobody could tidy up");
    // The next to come does, while the first goes on.
    let third = open_in(cache.path());
    assert!(third.shared);
    assert_eq!(overlays(cache.path()), 1);
    drop(third);
    assert_eq!(overlays(cache.path()), 0);
    assert_eq!(found(first.index.as_ref(), &[1, 2, 9]), [true, true, false]);
    drop(first);
    let again = open_in(cache.path());
    assert!(!again.shared && again.rebuilt_because.is_none());
    assert_eq!(found(again.index.as_ref(), &[1, 2, 9]), [true, true, false]);
}

#[test]
fn what_a_second_process_sees_has_no_holes() {
    let cache = tempfile::tempdir().unwrap();
    let first = open_in(cache.path());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A tiny write buffer and loads between: tables and logs change all the time.
            for round in 0..200_u64 {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let segment = segment_id(u8::try_from(round).unwrap());
                let packs = (round * 4..round * 4 + 4).map(|number| {
                    new_pack(number, &[(number * 100..number * 100 + 100).collect()])
                });
                if round % 2 == 0 {
                    let mut load = first.index.begin_load().unwrap();
                    packs.for_each(|pack| load.add(&pack).unwrap());
                    load.finish(&[segment]).unwrap();
                } else {
                    for pack in packs {
                        first.index.add_pack(&pack, PackState::Committed).unwrap();
                    }
                    first.index.add_segment(&segment).unwrap();
                }
            }
        });
        for _ in 0..12 {
            let second = open_in(cache.path());
            assert!(second.shared);
            for segment in second.index.segments().unwrap() {
                let round = u64::from(segment.as_bytes()[0]);
                let chunks: Vec<u64> = (round * 400..round * 400 + 400).collect();
                assert_eq!(found(second.index.as_ref(), &chunks), [true; 400], "round {round}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_a_second_process_learned_of_files_and_packs_is_handed_over() {
    let cache = tempfile::tempdir().unwrap();
    let entry = |verified_ms| LedgerEntry { level: 1, verified_ms, ok: true };
    let file = |number: u8| ([number; 32], vec![number]);
    let first = open_in(cache.path());
    for number in 1..4 {
        let pack = new_pack(number, &[vec![number]]);
        first.index.add_pack(&pack, PackState::Committed).unwrap();
    }
    first.index.put_files(&[file(1), file(2)]).unwrap();
    let second = open_in(cache.path());
    second.index.put_files(&[file(3)]).unwrap();
    second.index.retain_files(&mut |key, _| *key != [1; 32]).unwrap();
    second.index.add_pack(&new_pack(9, &[vec![9]]), PackState::Pending).unwrap();
    let verified = [(pack_id(1), entry(5)), (pack_id(2), entry(5)), (pack_id(9), entry(5))];
    second.index.ledger_put(&verified).unwrap();
    first.index.ledger_put(&[(pack_id(2), entry(7)), (pack_id(3), entry(7))]).unwrap();
    drop(second);
    let third = open_in(cache.path());
    assert!(third.shared);
    drop((first, third));
    let next = open_in(cache.path());
    assert!(!next.shared);
    let files = [1, 2, 3].map(|number| next.index.get_file(&[number; 32]).unwrap());
    assert_eq!(files, [None, Some(vec![2]), Some(vec![3])]);
    let ledger = [1, 2, 3, 9].map(|number| next.index.ledger_get(&pack_id(number)).unwrap());
    assert_eq!(ledger, [Some(entry(5)), Some(entry(7)), Some(entry(7)), None]);
    assert_eq!(found(next.index.as_ref(), &[1, 9]), [true, false]);
    let left = fs::read_dir(root(cache.path())).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.filter(|name| name.to_string_lossy().contains('-')).count(), 0);
}

/// An index with something in every table, in table files and in the log.
fn fill(index: &dyn LocalIndex) {
    let pack = |number: u64| new_pack(number, &[(number * 50..number * 50 + 60).collect()]);
    for number in 30..35 {
        index.add_pack(&pack(number), PackState::Committed).unwrap();
    }
    index.add_segment(&segment_id(2)).unwrap();
    let mut load = index.begin_load().unwrap();
    for number in 0..30 {
        load.add(&pack(number)).unwrap();
    }
    load.finish(&[segment_id(1)]).unwrap();
    index.put_files(&[([1; 32], vec![1; 100])]).unwrap();
    for number in 35..40 {
        index.add_pack(&pack(number), PackState::Pending).unwrap();
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Whatever was done to the files: what the index says is true, and it can be used again.
fn check_damaged(cache: &Path, damage: &str) {
    let truth = MemoryIndex::new();
    fill(&truth);
    let chunks: Vec<ChunkId> = (0..2010).map(chunk_id).collect();
    let (mut expected, mut got) = (Vec::new(), Vec::new());
    truth.lookup_many(&chunks, &mut expected).unwrap();
    let opened = open_in(cache);
    let mut seen_damage = false;
    match opened.index.lookup_many(&chunks, &mut got) {
        Ok(()) => {
            for (got, expected) in got.iter().zip(&expected) {
                assert!(got.is_none() || got == expected, "{damage}: false claim {got:?}");
            }
            for segment in opened.index.segments().unwrap() {
                let range = if segment == segment_id(1) { 0..1510 } else { 1500..1760 };
                let holes = got[range].iter().filter(|place| place.is_none()).count();
                assert_eq!(holes, 0, "{damage}: {segment:?} is loaded, but not all of it");
            }
        }
        Err(IndexError::Corrupt { .. }) => seen_damage = true,
        Err(error) => panic!("{damage}: {error}"),
    }
    drop(opened);
    let again = open_in(cache);
    if seen_damage {
        assert!(again.rebuilt_because.is_some(), "{damage}: not noted");
        assert_eq!(again.index.segments().unwrap(), []);
    }
    let index = again.index.as_ref();
    for number in 0..40 {
        match index.remove_pack(&pack_id(number)) {
            Ok(_) | Err(IndexError::Corrupt { .. }) => {}
            Err(error) => panic!("{damage}: {error}"),
        }
    }
    drop(again);
    let last = open_in(cache);
    last.index.add_pack(&new_pack(99, &[vec![9999]]), PackState::Committed).unwrap();
    assert_eq!(found(last.index.as_ref(), &[9999]), [true]);
}

#[test]
fn damaged_files_cost_the_index_but_never_more() {
    let original = tempfile::tempdir().unwrap();
    let opened = open_in(original.path());
    fill(opened.index.as_ref());
    drop(opened);
    let files: Vec<_> = fs::read_dir(root(original.path()).join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| !name.to_string_lossy().starts_with("LOG"))
        .collect();
    assert!(files.iter().any(|name| name.to_string_lossy().ends_with(".sst")), "{files:?}");
    let mut cases = 0;
    for name in &files {
        let cuts = (0..10).map(|tenth| format!("cut to {tenth} tenths"));
        let ways = ["flip head", "flip middle", "flip tail", "garbage", "gone"].map(str::to_owned);
        for way in ways.into_iter().chain(cuts) {
            let copy = tempfile::tempdir().unwrap();
            copy_tree(original.path(), copy.path());
            let path = root(copy.path()).join("db").join(name);
            let mut bytes = fs::read(&path).unwrap();
            let length = bytes.len();
            let flip = |bytes: &mut Vec<u8>, at: usize| {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 0x55;
                }
            };
            match way.as_str() {
                "flip head" => flip(&mut bytes, 5),
                "flip middle" => flip(&mut bytes, length / 2),
                "flip tail" => flip(&mut bytes, length.saturating_sub(9)),
                cut if cut.starts_with("cut") => {
                    let tenth: usize = cut[7..8].parse().unwrap();
                    bytes.truncate(length * tenth / 10);
                }
                _ => bytes.iter_mut().zip((0_u8..=255).cycle()).for_each(|(b, n)| *b = n ^ 0xa7),
            }
            fs::write(&path, &bytes).unwrap();
            if way == "gone" {
                fs::remove_file(&path).unwrap();
            }
            check_damaged(copy.path(), &format!("{} {way}", name.to_string_lossy()));
            cases += 1;
        }
    }
    assert!(cases >= 15 * 4);
}

#[test]
fn a_second_process_does_without_a_damaged_base() {
    let cache = tempfile::tempdir().unwrap();
    let first = open_in(cache.path());
    fill(first.index.as_ref());
    for entry in fs::read_dir(root(cache.path()).join("db")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            fs::write(path, b"no table").unwrap();
        }
    }
    let second = open_in(cache.path());
    assert!(second.shared && second.rebuilt_because.is_some());
    assert_eq!(second.index.segments().unwrap(), []);
    second.index.add_pack(&new_pack(99, &[vec![9999]]), PackState::Committed).unwrap();
    assert_eq!(found(second.index.as_ref(), &[9999, 1]), [true, false]);
}

#[test]
fn the_index_of_another_repository_is_not_believed() {
    let (cache, other) = (tempfile::tempdir().unwrap(), RepositoryId::from_bytes([8; 16]));
    let opened = open_in(cache.path());
    fill(opened.index.as_ref());
    drop(opened);
    fs::rename(root(cache.path()), cache.path().join(other.to_hex())).unwrap();
    let opened = open(cache.path(), other.into(), SMALL).unwrap();
    assert!(opened.rebuilt_because.unwrap().contains("another repository"));
    assert_eq!(content(opened.index.as_ref()).unwrap(), content(&MemoryIndex::new()).unwrap());
}

#[test]
fn destroying_makes_the_next_one_start_empty_even_while_in_use() {
    let cache = tempfile::tempdir().unwrap();
    let first = open_in(cache.path());
    fill(first.index.as_ref());
    destroy(cache.path(), repository().into()).unwrap();
    assert_eq!(found(first.index.as_ref(), &[1]), [true], "the user is not disturbed");
    let second = open_in(cache.path());
    assert!(second.shared && second.rebuilt_because.is_some());
    assert_eq!(found(second.index.as_ref(), &[1]), [false]);
    drop((first, second));
    let opened = open_in(cache.path());
    assert!(!opened.shared && opened.rebuilt_because.is_some());
    assert_eq!(opened.index.counts().unwrap().packs, 0);
    fill(opened.index.as_ref());
    drop(opened);
    destroy(cache.path(), repository().into()).unwrap();
    let opened = open_in(cache.path());
    assert_eq!(opened.index.counts().unwrap().packs, 0);
    destroy(&cache.path().join("nothing"), repository().into()).unwrap();
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let file = cache.path().join("file");
    fs::write(&file, b"").unwrap();
    let Err(error) = open(&file, repository().into(), SMALL) else { panic!("opened below a file") };
    assert!(error.to_string().contains("file"), "{error}");
}

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn memory_stays_bounded_while_millions_of_chunks_are_loaded() {
    const PACKS: u64 = 3000;
    const CHUNKS: u64 = 1000;
    let cache = tempfile::tempdir().unwrap();
    let opened =
        open(cache.path(), repository().into(), LocalOptions { memory_bytes: 32 << 20 }).unwrap();
    let before = resident();
    let mut peak = 0;
    let mut load = opened.index.begin_load().unwrap();
    for pack in 0..PACKS {
        load.add(&new_pack(pack, &[(pack * CHUNKS..(pack + 1) * CHUNKS).collect()])).unwrap();
        peak = peak.max(resident());
    }
    load.finish(&[segment_id(1)]).unwrap();
    for round in 0..300 {
        let chunks: Vec<u64> =
            (0..512).map(|n| (n * 5_857 + round * 9_973) % (PACKS * CHUNKS)).collect();
        assert_eq!(found(opened.index.as_ref(), &chunks), [true; 512]);
        peak = peak.max(resident());
    }
    assert_eq!(opened.index.counts().unwrap().chunks, PACKS * CHUNKS);
    let grown = peak.saturating_sub(before) >> 20;
    println!("grew by {grown} MiB");
    // Other tests of the same process run meanwhile, and the allocator keeps some: hence three times the cap.
    assert!(grown < 96 + 64, "grew by {grown} MiB");
}
