//! Goal: the read-only view shows each snapshot as a restore would make it, wherever and however it is
//! read; follows what is made and forgotten meanwhile; and what is damaged or cannot be reached costs
//! what it touches, with a reason told once.
//! Method: views of repositories in memory are walked through, and compared with the source; packs are
//! damaged, moved by collections and made unreachable while they are open.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::ops::browse::{Attributes, Kind, ROOT, View, ViewError, ViewOptions};
use cairn_engine::repo::Repository;
use cairn_engine::store::fault::{Fault, FaultStore, Plan};
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::record::CallKind;
use cairn_format::names::{ObjectName, PackKind};
use cairn_tests::compare::{Seen, Tree, differences, look};
use cairn_tests::lab::{Lab, Warnings, back_up, object};
use cairn_tests::seed::{Seed, noise};
use cairn_tests::tree;

use crate::replicate::{Home, packs};

/// Room for as many entries as the kernel asks for at once.
const BATCH: usize = 7;
/// Longer than a list of snapshots is taken for fresh.
const WHILE_MS: i64 = 61_000;

fn open(repository: &Repository) -> View<'_> {
    View::open(repository, ViewOptions::default()).expect("a view")
}

/// The entry at a path below the first directory; links are not followed.
fn find(view: &View<'_>, path: &Path) -> Result<Attributes, ViewError> {
    let mut found = view.attributes(ROOT)?;
    for name in path {
        found = view.lookup(found.number, name.as_encoded_bytes())?;
    }
    Ok(found)
}

/// Where a source lies in the newest snapshot.
fn inside_latest(view: &View<'_>, source: &Path) -> PathBuf {
    let link = find(view, Path::new("latest")).expect("a link");
    let target = view.link_target(link.number).expect("its target");
    let target = PathBuf::from(String::from_utf8(target).expect("a name"));
    target.join(source.strip_prefix("/").expect("an absolute path"))
}

/// Everything in a directory, in pieces.
fn names(view: &View<'_>, directory: u64) -> Vec<Vec<u8>> {
    let (mut names, mut first) = (Vec::new(), 0);
    loop {
        let batch = view.list(directory, first, BATCH).expect("a list");
        assert!(!batch.damaged);
        names.extend(batch.entries.iter().map(|entry| entry.name.clone()));
        if batch.end {
            return names;
        }
        first = batch.next;
    }
}

fn content(view: &View<'_>, number: u64, piece: usize) -> Result<Vec<u8>, ViewError> {
    let file = view.open_file(number)?;
    let mut content = Vec::new();
    loop {
        let read = view.read(&file, content.len() as u64, piece)?;
        view.read_ahead(&file);
        if read.is_empty() {
            return Ok(content);
        }
        content.extend(read);
    }
}

/// What is seen of an entry, as [`look`] sees it in a folder.
fn seen(view: &View<'_>, found: &Attributes) -> Seen {
    let (kind, content) = match found.kind {
        Kind::File => {
            let bytes = content(view, found.number, 100_000).expect("it is read");
            assert_eq!(bytes.len() as u64, found.bytes);
            ("file", blake3::hash(&bytes).to_hex().to_string())
        }
        Kind::Directory => ("directory", String::new()),
        Kind::Symlink => {
            let target = view.link_target(found.number).expect("a target");
            assert_eq!(target.len() as u64, found.bytes);
            ("link", String::from_utf8_lossy(&target).into_owned())
        }
        Kind::Fifo => ("fifo", String::new()),
        Kind::Socket => ("socket", String::new()),
        Kind::CharDevice | Kind::BlockDevice => ("device", format!("{:?}", found.device)),
    };
    let is_file = kind == "file";
    let xattrs = view.xattrs(found.number).expect("attributes");
    Seen {
        kind,
        content,
        bytes: if is_file { found.bytes } else { 0 },
        mode: if kind == "link" { 0 } else { found.mode },
        owner: (found.uid, found.gid),
        mtime: (found.mtime.seconds, i64::from(found.mtime.nanoseconds)),
        xattrs: xattrs.into_iter().map(|xattr| (xattr.name, xattr.value)).collect(),
        same_as: None,
        has_holes: is_file && found.bytes_occupied + (64 << 10) < found.bytes,
    }
}

/// Everything below a directory of the view.
fn look_at(view: &View<'_>, top: Attributes) -> Tree {
    let mut tree = Tree::new();
    let mut numbers = BTreeMap::new();
    let mut left = vec![(PathBuf::new(), top)];
    while let Some((path, found)) = left.pop() {
        if found.kind == Kind::Directory {
            for name in names(view, found.number) {
                let below = view.lookup(found.number, &name).expect("what was listed is there");
                left.push((path.join(std::ffi::OsStr::from_bytes(&name)), below));
            }
        }
        numbers.insert(path.clone(), found);
        tree.insert(path, seen(view, &found));
    }
    let (mut first, mut names) = (HashMap::new(), HashMap::<u64, u32>::new());
    for (path, seen) in &mut tree {
        let found = &numbers[path];
        if found.links > 1 {
            *names.entry(found.number).or_default() += 1;
            let known = first.entry(found.number).or_insert_with(|| path.clone());
            seen.same_as = Some(known.clone());
        }
    }
    for found in numbers.values().filter(|found| found.links > 1) {
        assert_eq!(found.links, names[&found.number], "names of a file");
    }
    tree
}

fn assert_shows(view: &View<'_>, source: &Path, expected: &Tree) {
    let top = find(view, &inside_latest(view, source)).expect("it is there");
    let found = differences(expected, &look_at(view, top));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_snapshot_is_shown_as_it_was_backed_up() {
    let lab = Lab::new(70);
    let store = lab.memory();
    let source = lab.path("source");
    tree::everything(&source, 70);
    std::fs::hard_link(source.join("deep/large"), source.join("deep/third")).expect("a link");
    tree::settle(&source);
    let repository = lab.open(&store, "home");
    back_up(&repository, &source).expect("a backup");
    let view = open(&repository);
    assert_shows(&view, &source, &look(&source));
    assert_eq!((view.report().damaged, view.report().failed), (0, 0));
    // Each name leads to the same, whether it was forgotten in between or not.
    let path = inside_latest(&view, &source).join("deep/er/text");
    let first = find(&view, &path).expect("it is there");
    view.forget(first.number, u64::MAX);
    assert!(matches!(view.attributes(first.number), Err(ViewError::Absent)));
    assert_eq!(find(&view, &path).expect("it is there"), first);
    assert!(matches!(find(&view, &path.with_file_name("none")), Err(ViewError::Absent)));
    let below = view.lookup(first.number, b"below");
    assert!(matches!(below, Err(ViewError::NotDirectory)));
    assert!(matches!(view.open_file(ROOT), Err(ViewError::OtherKind)));
}

#[test]
fn files_are_read_anywhere_by_many_at_once() {
    let lab = Lab::new(71);
    let store = lab.memory();
    let source = lab.path("source");
    std::fs::create_dir_all(&source).expect("a folder");
    let large = noise(9_000_000, 71);
    std::fs::write(source.join("large"), &large).expect("a file");
    tree::sparse(&source.join("sparse"), 71);
    tree::settle(&source);
    let sparse = std::fs::read(source.join("sparse")).expect("a file");
    let repository = lab.open(&store, "home");
    back_up(&repository, &source).expect("a backup");
    let view = open(&repository);
    let path = inside_latest(&view, &source);
    for (name, expected) in [("large", &large), ("sparse", &sparse)] {
        let number = find(&view, &path.join(name)).expect("it is there").number;
        let shared = view.open_file(number).expect("it opens");
        std::thread::scope(|threads| {
            for reader in 0..4_u64 {
                let (view, shared) = (&view, &shared);
                threads.spawn(move || {
                    let mut seed = Seed::of(reader);
                    for _ in 0..60 {
                        let at = seed.below(expected.len() as u64 + 1_000) as usize;
                        let bytes = seed.below(300_000) as usize;
                        let read = view.read(shared, at as u64, bytes).expect("it is read");
                        view.read_ahead(shared);
                        let end = (at + bytes).min(expected.len());
                        assert!(read == expected[at.min(end)..end], "{name}, {bytes} at {at}");
                    }
                    assert!(content(view, number, 131_072).expect("it is read") == *expected);
                });
            }
        });
    }
    // Holes are told from data, and take no room.
    let found = find(&view, &path.join("sparse")).expect("it is there");
    assert!(found.bytes_occupied < 1_000_000, "{found:?}");
    let file = view.open_file(found.number).expect("it opens");
    let hole = view.seek(&file, 0, true).expect("a hole");
    let data = view.seek(&file, hole, false).expect("data behind it");
    assert!(
        (10_000..9_000_000).contains(&hole) && data > hole && data <= 9_000_000,
        "{hole} {data}"
    );
    assert!(matches!(view.seek(&file, 10_000_000, false), Err(ViewError::Absent)));
    assert_eq!(view.seek(&file, 19_999_999, true).expect("a hole"), 19_999_999);
    assert!(matches!(view.seek(&file, 20_000_000, true), Err(ViewError::Absent)));
}

#[test]
fn large_directories_are_listed_from_anywhere() {
    let lab = Lab::new(72);
    let store = lab.memory();
    let source = lab.path("source");
    std::fs::create_dir_all(&source).expect("a folder");
    let mut expected = Vec::new();
    for number in 0..3_000 {
        let name = format!("entry-{number:05}-with-a-name-that-takes-some-room");
        std::fs::write(source.join(&name), "").expect("a file");
        expected.push(name.into_bytes());
    }
    let repository = lab.open(&store, "home");
    back_up(&repository, &source).expect("a backup");
    let view = open(&repository);
    let directory = find(&view, &inside_latest(&view, &source)).expect("it is there").number;
    assert!(names(&view, directory) == expected);
    for first in [1, 299, 1_024, 2_998, 2_999, 3_000, 9_000] {
        let batch = view.list(directory, first as u64, usize::MAX).expect("a list");
        let found = batch.entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>();
        assert!(found == expected[first.min(3_000)..], "from {first}");
        assert!(batch.end && !batch.damaged);
    }
}

#[test]
fn snapshots_come_and_go_while_they_are_shown() {
    let mut home = Home::new(73);
    std::fs::write(home.source.join("gone"), noise(60_000, 73)).expect("a file");
    let first = home.back_up(1);
    std::fs::remove_file(home.source.join("gone")).expect("removed");
    let repository = home.lab.open(&home.store, "viewer");
    let view = open(&repository);
    let old = inside_latest(&view, &home.source);
    let shown = |view: &View<'_>, path: &str| {
        let directory = find(view, Path::new(path)).expect("a directory").number;
        names(view, directory)
    };
    assert_eq!(shown(&view, "snapshots").len(), 1);
    assert_eq!(shown(&view, ""), [&b"jobs"[..], b"latest", b"snapshots"]);
    home.back_up(2);
    home.pass(WHILE_MS);
    assert_eq!(shown(&view, "snapshots").len(), 2);
    let of_job = shown(&view, "jobs/job");
    assert_eq!((of_job.len(), of_job.last().map(Vec::as_slice)), (3, Some(&b"latest"[..])));
    let expected = look(&home.source);
    assert_shows(&view, &home.source, &expected);
    // What is open when it is forgotten is told from what is damaged.
    let file = find(&view, &old.join("gone")).expect("it is there").number;
    let file = view.open_file(file).expect("it opens");
    home.forget(first.id);
    home.collect();
    // What is at hand can be read for a while.
    home.pass(WHILE_MS);
    let read = view.read(&file, 0, 10);
    assert!(matches!(read, Err(ViewError::Forgotten)), "{read:?}");
    assert_eq!(shown(&view, "snapshots").len(), 1);
    assert!(matches!(find(&view, &old), Err(ViewError::Absent)));
    assert_eq!(shown(&view, "jobs/job").len(), 2);
    // And what others needed of it was moved.
    assert_shows(&view, &home.source, &expected);
    assert_eq!((view.report().damaged, view.report().failed), (0, 0));
}

#[test]
fn what_is_shown_can_be_chosen() {
    let mut home = Home::new(74);
    let ids = [1, 2, 3].map(|change| home.back_up(change).id);
    let repository = home.open();
    let count =
        |options: ViewOptions| View::open(&repository, options).map(|view| view.snapshots()).ok();
    let only = |text: &str| ViewOptions { snapshot: Some(text.into()), ..ViewOptions::default() };
    assert_eq!(count(ViewOptions::default()), Some(3));
    assert_eq!(count(only("latest~1")), Some(1));
    assert_eq!(count(only(&ids[0].to_hex())), Some(1));
    assert_eq!(count(only("latest~3")), None);
    let job = |name: &str| ViewOptions { job: Some(name.into()), ..ViewOptions::default() };
    assert_eq!((count(job("job")), count(job("other"))), (Some(3), Some(0)));
    let tags = ViewOptions { tags: vec!["none".into()], ..ViewOptions::default() };
    assert_eq!(count(tags), Some(0));
}

/// Damages every data pack of a store in its middle.
fn damage_data(store: &MemoryStore) {
    for name in packs(store) {
        if let ObjectName::Pack(PackKind::Data, _) = name {
            let mut bytes = object(store, &name).to_vec();
            let middle = bytes.len() / 2;
            bytes[300..middle].fill(0);
            store.overwrite(name, Bytes::from(bytes));
        }
    }
}

#[test]
fn damage_costs_what_it_touches_and_another_copy_makes_it_good() {
    let mut home = Home::new(75);
    home.back_up(1);
    let replica = MemoryStore::new();
    home.replicate_to(&replica);
    damage_data(&home.store);
    let warnings = Arc::new(Warnings::default());
    let mut repository = home.lab.open_watched(&home.store, "viewer", warnings.clone());
    let expected = look(&home.source);
    let view = open(&repository);
    let top = inside_latest(&view, &home.source);
    let (mut good, mut bad) = (0, 0);
    for (path, seen) in expected.iter().filter(|(_, seen)| seen.kind == "file") {
        let found = find(&view, &top.join(path)).expect("names are not damaged");
        for _ in 0..2 {
            match content(&view, found.number, 65_536) {
                Ok(bytes) => {
                    assert_eq!(blake3::hash(&bytes).to_hex().as_str(), seen.content);
                    good += 1;
                }
                Err(ViewError::Failed(error)) => {
                    assert!(error.is_damage(), "{error}");
                    bad += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(good > 0 && bad > 0, "{good} {bad}");
    let told = warnings.all();
    assert_eq!(told.len() as u64, view.report().damaged, "{told:#?}");
    assert_eq!(view.report().damaged * 2, bad);
    for remark in &told {
        assert!(remark.subject.contains("snapshots/"), "{remark:?}");
        assert!(remark.message.contains("pack") && remark.message.contains("--fallback"));
    }
    drop(view);
    let copy = repository.open_copy(Arc::new(replica), &repository.context.clone());
    repository.add_fallback(copy.expect("it is a copy"));
    let view = open(&repository);
    assert_shows(&view, &home.source, &expected);
    assert_eq!(view.report().damaged, 0);
    let used = warnings.all().iter().filter(|one| one.code == "fallback.used").count();
    assert_eq!(used, 1, "it is said once");
}

#[test]
fn a_damaged_directory_gives_what_is_left_of_it() {
    let mut home = Home::new(76);
    // More than goes into one frame.
    for number in 0..12_000 {
        let name = format!("entry-{number:05}-with-a-name-that-takes-some-room");
        std::fs::write(home.source.join("folder").join(name), "").expect("a file");
    }
    home.back_up(1);
    let repository = home.lab.open(&home.store, "viewer");
    let view = open(&repository);
    let folder = inside_latest(&view, &home.source).join("folder");
    let all = names(&view, find(&view, &folder).expect("it is there").number).len();
    drop(view);
    let trees = packs(&home.store);
    let trees = trees.iter().filter(|name| matches!(name, ObjectName::Pack(PackKind::Tree, _)));
    let name = *trees.max_by_key(|name| object(&home.store, name).len()).expect("a tree pack");
    let whole = object(&home.store, &name);
    // Wherever it is damaged: the way there, some of it, or nothing that is needed for it.
    let mut partly = 0;
    for at in (400..whole.len()).step_by(whole.len() / 12) {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1;
        home.store.overwrite(name, Bytes::from(bytes));
        let view = open(&repository);
        let Ok(found) = find(&view, &folder) else { continue };
        let batch = view.list(found.number, 0, usize::MAX).expect("damage does not end it");
        let left = batch.entries.len();
        assert!(batch.end && batch.damaged == (left < all), "{left} of {all}");
        assert_eq!(view.report().damaged, u64::from(batch.damaged));
        partly += u32::from(batch.damaged && left > 0);
        // From behind what is damaged it goes on all the same.
        if let Some(last) = batch.entries.last() {
            let again = view.list(found.number, last.next - 1, usize::MAX).expect("a list");
            assert_eq!(again.entries.first().map(|entry| &entry.name), Some(&last.name));
        }
    }
    assert!(partly > 0);
}

#[test]
fn a_store_that_cannot_be_reached_is_no_damage() {
    let mut home = Home::new(77);
    home.back_up(1);
    let warnings = Arc::new(Warnings::default());
    let store = FaultStore::new(home.store.clone(), Plan::new());
    let repository = home.lab.open_watched(&store, "viewer", warnings.clone());
    let view = open(&repository);
    let path = inside_latest(&view, &home.source).join("large");
    let number = find(&view, &path).expect("it is there").number;
    let away = Plan::new()
        .every(CallKind::GetRange, Fault::FailBefore)
        .every(CallKind::Get, Fault::FailBefore)
        .every(CallKind::List, Fault::FailBefore);
    store.set_plan(away);
    for _ in 0..2 {
        let failed = content(&view, number, 65_536);
        assert!(matches!(&failed, Err(ViewError::Failed(error)) if !error.is_damage()));
    }
    assert_eq!((view.report().damaged, view.report().failed), (0, 1));
    // The list is shown as it was.
    home.pass(WHILE_MS);
    let snapshots = find(&view, Path::new("snapshots")).expect("a directory").number;
    assert_eq!(names(&view, snapshots).len(), 1);
    assert_eq!(warnings.all().len(), 2, "{:#?}", warnings.all());
    store.set_plan(Plan::new());
    let expected = std::fs::read(home.source.join("large")).expect("a file");
    assert!(content(&view, number, 65_536).expect("it is there again") == expected);
}
