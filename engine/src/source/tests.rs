//! Tests of walking and reading together, on real file trees.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, FileType, Mode};

use super::error::SourceError;
use super::file::{FileReader, Place, Segment, Stillness};
use super::filter::FileSourceOptions;
use super::walk::{Event, Leaf, LeafKind, LeftOut, OPEN_DIRECTORIES_MAX, Walk};
use crate::error::Explain as _;

/// A scratch directory by its real path.
fn scratch() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap();
    (dir, real)
}

fn options(root: &Path) -> FileSourceOptions {
    FileSourceOptions { roots: vec![root.to_path_buf()], ..FileSourceOptions::default() }
}

fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn fifo(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
}

/// The walk as lines: `+dir`, `-`, `leaf`, `!unreadable`, relative to `base`, ancestors left out.
fn lines(walk: &mut Walk, base: &Path) -> Vec<String> {
    let mut depth_above = 0;
    let mut out = Vec::new();
    let relative =
        |path: &Path| path.strip_prefix(base).map(|rest| rest.to_string_lossy().into_owned()).ok();
    let mut inside = Vec::new();
    for event in walk {
        match event {
            Event::Enter { path, name, .. } => {
                assert_eq!(path.file_name().unwrap().as_bytes(), name);
                match relative(&path).filter(|rest| !rest.is_empty()) {
                    Some(rest) => {
                        out.push(format!("+{rest}"));
                        inside.push(true);
                    }
                    None => {
                        depth_above += 1;
                        assert_eq!(path.components().count(), depth_above + 1);
                        inside.push(false);
                    }
                }
            }
            Event::Leave => {
                if inside.pop().unwrap() {
                    out.push("-".into());
                }
            }
            Event::Leaf(leaf) => out.push(relative(&leaf.path).unwrap()),
            Event::Unreadable { path, error } => {
                out.push(format!("!{} {}", relative(&path).unwrap(), error.code()));
            }
            Event::Incomplete { path, error } => panic!("{path:?}: {error}"),
            Event::Followed { root, real } => {
                out.push(format!("{} is {}", relative(&root).unwrap(), relative(&real).unwrap()))
            }
        }
    }
    assert!(inside.is_empty());
    out
}

fn walked(options: FileSourceOptions, base: &Path) -> Vec<String> {
    lines(&mut Walk::new(options).unwrap(), base)
}

fn leaves(root: &Path) -> BTreeMap<PathBuf, Leaf> {
    Walk::new(options(root))
        .unwrap()
        .filter_map(|event| match event {
            Event::Leaf(leaf) => Some((leaf.path.clone(), *leaf)),
            _ => None,
        })
        .collect()
}

#[test]
fn entries_come_depth_first_in_byte_order() {
    let (_dir, base) = scratch();
    for name in ["b/z", "b/a", "a", "b.txt", "B"] {
        write(&base.join(name), b"x");
    }
    std::fs::create_dir(base.join("empty")).unwrap();
    let expected = ["B", "a", "+b", "b/a", "b/z", "-", "b.txt", "+empty", "-"];
    assert_eq!(walked(options(&base), &base), expected);
}

#[test]
fn several_roots_share_one_hierarchy() {
    let (_dir, base) = scratch();
    for name in ["a/1", "a/2", "b/c/3", "b/d/4"] {
        write(&base.join(name), b"x");
    }
    let roots = ["b/d", "a/2", "gone", "b/d/4"].map(|name| base.join(name)).to_vec();
    let got = walked(FileSourceOptions { roots, ..FileSourceOptions::default() }, &base);
    let expected = ["!gone source.missing", "+a", "a/2", "-", "+b", "+b/d", "b/d/4", "-", "-"];
    assert_eq!(got, expected);
}

#[test]
fn a_root_that_is_a_link_brings_link_and_content() {
    let (_dir, base) = scratch();
    write(&base.join("disk/data/file"), b"x");
    symlink("disk/data", base.join("data")).unwrap();
    let expected = ["data is disk/data", "data", "+disk", "+disk/data", "disk/data/file", "-", "-"];
    assert_eq!(walked(options(&base.join("data")), &base), expected);
}

#[test]
fn no_root_is_an_error() {
    assert!(matches!(Walk::new(FileSourceOptions::default()), Err(SourceError::NoRoots)));
}

#[test]
fn every_kind_is_recognised() {
    let (_dir, base) = scratch();
    write(&base.join("file"), b"12345");
    std::fs::hard_link(base.join("file"), base.join("file2")).unwrap();
    symlink("/nowhere/\u{e9}", base.join("dangling")).unwrap();
    fifo(&base.join("pipe"));
    rustix::fs::mknodat(CWD, base.join("socket"), FileType::Socket, Mode::RWXU, 0).unwrap();
    let odd = base.join(OsStr::from_bytes(b"odd\xff\n\x1b"));
    write(&odd, b"");
    std::fs::set_permissions(&odd, PermissionsExt::from_mode(0o4751)).unwrap();

    let leaves = leaves(&base);
    let kind = |name: &str| &leaves[&base.join(name)].kind;
    assert!(matches!(kind("file"), LeafKind::File { bytes: 5, .. }));
    assert!(
        matches!(kind("dangling"), LeafKind::Symlink { target } if target == "/nowhere/\u{e9}".as_bytes())
    );
    assert!(matches!(kind("pipe"), LeafKind::Fifo));
    assert!(matches!(kind("socket"), LeafKind::Socket));
    assert_eq!(leaves[&odd].meta.mode, 0o4751);
    assert_eq!(leaves[&odd].name, b"odd\xff\n\x1b");
    let link = |name: &str| leaves[&base.join(name)].meta.link;
    assert!(link("file").is_some() && link("file") == link("file2"));
    assert_eq!(link("pipe"), None);
}

#[test]
fn metadata_is_read_exactly() {
    let (_dir, base) = scratch();
    let path = base.join("file");
    write(&path, b"x");
    let flags = rustix::fs::XattrFlags::empty();
    for (name, value) in [("user.b", &b"two\0"[..]), ("user.a", b""), ("user.c", &[7; 500])] {
        rustix::fs::setxattr(&path, name, value, flags).unwrap();
    }
    let time = rustix::fs::Timespec { tv_sec: -5, tv_nsec: 123_456_789 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();

    let leaf = &leaves(&base)[&path];
    assert_eq!((leaf.meta.mtime.seconds, leaf.meta.mtime.nanoseconds), (-5, 123_456_789));
    assert_eq!(leaf.meta.uid, rustix::process::geteuid().as_raw());
    let xattrs: Vec<_> = leaf
        .meta
        .xattrs
        .iter()
        .filter(|xattr| xattr.name.starts_with(b"user."))
        .map(|xattr| (xattr.name.as_slice(), xattr.value.len()))
        .collect();
    assert_eq!(xattrs, [(&b"user.a"[..], 0), (b"user.b", 4), (b"user.c", 500)]);
}

#[test]
fn names_of_attributes_that_fill_more_than_the_first_answer_are_all_read() {
    let (_dir, base) = scratch();
    let path = base.join("file");
    write(&path, b"x");
    // 1,320 bytes of names, with the zeros that end them.
    let names = (0..20).map(|number| format!("user.{number:060}")).collect::<Vec<_>>();
    for name in &names {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&path, name.as_str(), b"", flags).unwrap();
    }
    let leaf = &leaves(&base)[&path];
    let read = leaf.meta.xattrs.iter().map(|xattr| String::from_utf8_lossy(&xattr.name));
    assert!(read.filter(|name| name.starts_with("user.")).eq(names));
}

#[test]
fn filters_leave_out_what_they_name() {
    let (_dir, base) = scratch();
    for name in ["keep.txt", "a.tmp", "sub/b.tmp", "sub/keep.txt", "node_modules/x/y"] {
        write(&base.join(name), b"x");
    }
    write(&base.join("cache/CACHEDIR.TAG"), b"Signature: 8a477f597d28d172789f06886806bc55\n#\n");
    write(&base.join("cache/blob"), b"x");
    write(&base.join("fake/CACHEDIR.TAG"), b"Signature: something else, as long as the real");
    write(&base.join("fake/blob"), b"x");
    write(&base.join("large"), &[0; 101]);
    write(&base.join("small"), &[0; 100]);
    let mut walk = Walk::new(FileSourceOptions {
        // The root itself is called like an excluded thing.
        excludes: vec!["*.tmp".into(), "node_modules/".into(), base.display().to_string()],
        exclude_caches: true,
        exclude_larger_than: Some(100),
        ..options(&base)
    })
    .unwrap();
    let expected = [
        "+cache",
        "cache/CACHEDIR.TAG",
        "-",
        "+fake",
        "fake/CACHEDIR.TAG",
        "fake/blob",
        "-",
        "keep.txt",
        "small",
        "+sub",
        "sub/keep.txt",
        "-",
    ];
    assert_eq!(lines(&mut walk, &base), expected);
    assert_eq!(walk.left_out(), LeftOut { entries: 4, mounts: 0, caches: 1 });
    let named = base.join("a.tmp");
    let excludes = vec!["*.tmp".into()];
    let got = walked(FileSourceOptions { excludes, ..options(&named) }, &base);
    assert_eq!(got, ["a.tmp"], "what is named is backed up");
}

#[test]
fn what_vanishes_is_reported_and_the_rest_read() {
    let (_dir, base) = scratch();
    for name in ["a/1", "b/2", "c"] {
        write(&base.join(name), b"x");
    }
    let mut walk = Walk::new(options(&base)).unwrap();
    walk.by_ref().find(|e| matches!(e, Event::Enter { path, .. } if *path == base)).unwrap();
    std::fs::remove_dir_all(base.join("b")).unwrap();
    let rest: Vec<Event> = walk.collect();
    assert!(rest.iter().any(|event| matches!(
        event,
        Event::Unreadable { path, error: SourceError::Missing { .. } } if *path == base.join("b")
    )));
    assert!(rest.iter().any(|e| matches!(e, Event::Leaf(leaf) if leaf.path == base.join("c"))));
}

#[test]
fn a_directory_that_may_not_be_listed_is_kept_and_reported() {
    if rustix::process::geteuid().is_root() {
        return; // Root may list everything.
    }
    let (_dir, base) = scratch();
    write(&base.join("closed/x"), b"x");
    write(&base.join("open"), b"x");
    let closed = base.join("closed");
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o000)).unwrap();
    let got = walked(options(&base), &base);
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(got, ["+closed", "!closed source.denied", "-", "open"]);
}

#[test]
fn deep_trees_are_walked_with_few_open_directories() {
    let (_dir, base) = scratch();
    let levels = OPEN_DIRECTORIES_MAX * 3;
    let mut path = base.clone();
    for _ in 0..levels {
        path.push("d");
        std::fs::create_dir(&path).unwrap();
        // Comes after the directory below, so its own must be open again by then.
        std::fs::write(path.join("z"), b"x").unwrap();
    }
    assert_eq!(leaves(&base).len(), levels);

    // A directory moved away while the walk is deep inside: the way back is found by name.
    let mut walk = Walk::new(options(&base)).unwrap();
    let count = |event: &Event| usize::from(matches!(event, Event::Leaf(_)));
    walk.by_ref().find(|event| count(event) == 1).unwrap();
    let moved: PathBuf = base.iter().chain(std::iter::repeat_n(OsStr::new("d"), 20)).collect();
    std::fs::rename(&moved, base.join("elsewhere")).unwrap();
    let rest: Vec<Event> = walk.collect();
    assert!(!rest.iter().any(|event| matches!(event, Event::Unreadable { .. })));
    assert_eq!(rest.iter().map(count).sum::<usize>(), levels - 1);
}

#[test]
fn a_hundred_thousand_names_in_one_directory() {
    let (_dir, base) = scratch();
    // Links, because new files take long to make; few enough to each for every file system.
    let mut first = PathBuf::new();
    for number in 0..100_000 {
        let path = base.join(format!("{number:x}"));
        if number % 20_000 == 0 {
            std::fs::File::create(&path).unwrap();
            first = path;
        } else {
            std::fs::hard_link(&first, path).unwrap();
        }
    }
    let mut last = Vec::new();
    let mut count = 0;
    for event in Walk::new(options(&base)).unwrap() {
        if let Event::Leaf(leaf) = event {
            assert!(last < leaf.name);
            last = leaf.name;
            count += 1;
        }
    }
    assert_eq!(count, 100_000);
}

#[test]
fn a_directory_swapped_for_a_link_leads_nowhere() {
    let (_dir, base) = scratch();
    let (_outside, secret) = scratch();
    write(&secret.join("secret"), b"x");
    let (victim, aside) = (base.join("victim"), base.join("aside"));
    write(&victim.join("harmless"), b"x");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::fs::rename(&victim, &aside).unwrap();
                symlink(&secret, &victim).unwrap();
                std::fs::remove_file(&victim).unwrap();
                std::fs::rename(&aside, &victim).unwrap();
            }
        });
        for _ in 0..500 {
            let found = leaves(&base).into_keys().any(|path| path.ends_with("secret"));
            if found {
                stop.store(true, Ordering::Relaxed);
            }
            assert!(!found);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Every byte of a file by its segments.
fn read_all(reader: &mut FileReader) -> (Vec<u8>, Vec<Segment>) {
    let (mut content, mut segments) = (Vec::new(), Vec::new());
    while let Some(segment) = reader.next_segment().unwrap() {
        segments.push(segment);
        match segment {
            Segment::Hole { offset, bytes } => {
                assert_eq!(offset, content.len() as u64);
                content.resize(content.len() + bytes as usize, 0);
            }
            Segment::Data { offset, bytes } => {
                assert_eq!(offset, content.len() as u64);
                let mut buffer = vec![0; 10_000];
                loop {
                    match reader.read_into(&mut buffer).unwrap() {
                        0 => break,
                        read => content.extend_from_slice(&buffer[..read]),
                    }
                }
                assert!(content.len() as u64 <= offset + bytes);
            }
        }
    }
    (content, segments)
}

fn reader(path: &Path) -> FileReader {
    FileReader::open(&Place::at(path, true).unwrap()).unwrap()
}

#[test]
fn files_with_and_without_holes_are_read_exactly() {
    let (_dir, base) = scratch();
    let path = base.join("sparse");
    let file = std::fs::File::create(&path).unwrap();
    let bytes = 8 << 20;
    file.set_len(bytes).unwrap();
    let mut expected = vec![0; bytes as usize];
    for offset in [0_usize, 1 << 20, (5 << 20) + 77] {
        std::os::unix::fs::FileExt::write_all_at(&file, b"island", offset as u64).unwrap();
        expected[offset..offset + 6].copy_from_slice(b"island");
    }
    let mut sparse = reader(&path);
    let (content, segments) = read_all(&mut sparse);
    assert!(content == expected);
    assert!(segments.len() > 4, "{segments:?}");
    assert_eq!(sparse.finish().unwrap(), Stillness::Unchanged);

    let mut plain = FileReader::open(&Place::at(&path, false).unwrap()).unwrap();
    let (content, segments) = read_all(&mut plain);
    assert!(content == expected);
    assert_eq!(segments, [Segment::Data { offset: 0, bytes }]);
    let mut middle = [0; 6];
    assert_eq!(plain.read_at(1 << 20, &mut middle).unwrap(), 6);
    assert_eq!(&middle, b"island");
    assert_eq!(plain.read_at(bytes - 2, &mut middle).unwrap(), 2);

    write(&base.join("empty"), b"");
    assert_eq!(read_all(&mut reader(&base.join("empty"))), (Vec::new(), Vec::new()));
    file.set_len(0).unwrap();
    file.set_len(1 << 20).unwrap();
    assert_eq!(read_all(&mut reader(&path)).1, [Segment::Hole { offset: 0, bytes: 1 << 20 }]);
}

#[test]
fn a_file_that_moves_while_it_is_read_is_told() {
    let (_dir, base) = scratch();
    let path = base.join("file");
    let fresh = || {
        write(&path, &[1; 100_000]);
        reader(&path)
    };
    let file = fresh();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(50_000).unwrap();
    let mut buffer = vec![0; 100_000];
    assert_eq!(file.read_at(0, &mut buffer).unwrap(), 50_000);
    assert!(matches!(file.finish(), Ok(Stillness::Shrunk(now)) if now.bytes == 50_000));

    let mut file = fresh();
    std::io::Write::write_all(
        &mut std::fs::OpenOptions::new().append(true).open(&path).unwrap(),
        b"more",
    )
    .unwrap();
    assert_eq!(read_all(&mut file).0.len(), 100_000, "what was appended is not read");
    assert!(matches!(file.finish(), Ok(Stillness::Grown(now)) if now.bytes == 100_004));

    let file = fresh();
    let before = file.fingerprint();
    // The content's time is set back, as some tools do; the change time tells nevertheless.
    let time = rustix::fs::Timespec { tv_sec: before.mtime.0, tv_nsec: before.mtime.1.into() };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    loop {
        // The clock of the file system may not have ticked yet.
        std::fs::write(&path, [2; 100_000]).unwrap();
        rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
        match file.finish().unwrap() {
            Stillness::Unchanged => {}
            Stillness::Changed(now) => {
                assert_eq!(now.mtime, before.mtime);
                assert!(!now.unchanged_since(&before));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn only_the_file_that_was_met_is_opened() {
    let (_dir, base) = scratch();
    let path = base.join("file");
    write(&path, b"met");
    let place = Place::at(&path, true).unwrap();
    write(&base.join("other"), b"other");
    let refused = |place: &Place| match FileReader::open(place) {
        Err(error) => error.code(),
        Ok(reader) => panic!("{:?}", reader.path()),
    };
    std::fs::rename(base.join("other"), &path).unwrap();
    assert_eq!(refused(&place), "source.replaced");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(refused(&place), "source.missing");
    symlink("/etc/passwd", &path).unwrap();
    assert_eq!(refused(&place), "source.replaced");
    std::fs::remove_file(&path).unwrap();
    // Would block for ever if it were opened like a file.
    fifo(&path);
    assert_eq!(refused(&place), "source.replaced");
}

#[test]
fn a_root_that_is_a_device_is_read() {
    // Whatever block device there is and may be read; machines without one have nothing to test.
    let readable =
        std::fs::read_dir("/sys/class/block").into_iter().flatten().flatten().find_map(|entry| {
            let path = Path::new("/dev").join(entry.file_name());
            let size = std::fs::read_to_string(entry.path().join("size")).ok()?;
            let sectors: u64 = size.trim().parse().ok()?;
            (sectors > 0 && std::fs::File::open(&path).is_ok()).then_some((path, sectors * 512))
        });
    let Some((path, bytes)) = readable else { return };
    let leaves = leaves(&path);
    let LeafKind::DeviceData { place } = &leaves[&path].kind else { panic!("{leaves:?}") };
    let mut device = FileReader::open(place).unwrap();
    assert!(device.is_device());
    assert_eq!(device.bytes(), bytes);
    assert_eq!(device.next_segment().unwrap(), Some(Segment::Data { offset: 0, bytes }));
    assert_eq!(device.read_into(&mut [0; 4096]).unwrap(), 4096);
    assert_eq!(device.finish().unwrap(), Stillness::Unchanged);
}

#[test]
fn mount_points_are_kept_but_not_entered() {
    let (_dir, base) = scratch();
    write(&base.join("on/own"), b"x");
    let mount = |kind: &str, at: &Path| {
        std::fs::create_dir_all(at).unwrap();
        std::process::Command::new("mount")
            .args(["-t", kind, "none"])
            .arg(at)
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let (tmpfs, proc) = (base.join("tmpfs"), base.join("zproc"));
    if !mount("tmpfs", &tmpfs) {
        return; // Only root may mount, and not everywhere.
    }
    let proc_mounted = mount("proc", &proc);
    write(&tmpfs.join("file"), b"x");
    let one = walked(FileSourceOptions { one_file_system: true, ..options(&base) }, &base);
    let all = walked(options(&base), &base);
    let roots = vec![base.clone(), tmpfs.clone()];
    let named =
        walked(FileSourceOptions { roots, one_file_system: true, ..Default::default() }, &base);
    for at in [&tmpfs, &proc] {
        std::process::Command::new("umount").arg(at).status().unwrap();
    }
    assert!(proc_mounted);
    assert_eq!(one, ["+on", "on/own", "-", "+tmpfs", "-", "+zproc", "-"]);
    assert_eq!(all, ["+on", "on/own", "-", "+tmpfs", "tmpfs/file", "-", "+zproc", "-"]);
    assert_eq!(named, all, "a mount point named as a root is entered");
}
