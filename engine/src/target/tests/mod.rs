//! Tests of restoring whole trees.

mod direct;
mod hostile;
mod small;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cairn_format::ids::ChunkId;
use cairn_format::tree::{Content, Extents, LinkGroup, Meta, Node, Timestamp, Xattr};
use rustix::fs::{CWD, FileType, Mode};

use super::contain::SafePath;
use super::create::{Created, Overwrite, Target, TargetOptions};
use super::error::TargetError;
use crate::source::file::{FileReader, Segment};
use crate::source::filter::FileSourceOptions;
use crate::source::walk::{Event, LeafKind, Walk};

/// One entry as it was backed up, with its content: data at offsets, everything else zero.
#[derive(Clone, Debug, PartialEq)]
struct Item {
    node: Node,
    meta: Meta,
    data: Vec<(u64, Vec<u8>)>,
}

type Tree = BTreeMap<PathBuf, Item>;

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap();
    (dir, real)
}

/// A file system in memory, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// Mounted here, of so many MiB; `None` where that is not possible: only root may mount, and not
    /// everywhere.
    fn tmpfs(place: &Path, mib: u32) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "none"])
            .arg(place)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then(|| Self(place.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A test that failed may still have it open: its message counts.
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn am_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn directory() -> Node {
    Node::Directory(ChunkId::from_bytes([0; 32]))
}

fn file(bytes: u64) -> Node {
    Node::File(Content { bytes, extents: Extents::Inline(Vec::new()) })
}

fn meta(mode: u32) -> Meta {
    Meta {
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: Timestamp { seconds: 1_000_000_000, nanoseconds: 123_456_789 },
        ..Meta::default()
    }
}

fn safe(path: &str) -> SafePath {
    path.split('/').fold(SafePath::root(), |path, name| path.join(name.as_bytes()).unwrap())
}

fn safe_path(path: &Path) -> SafePath {
    path.iter().fold(SafePath::root(), |path, name| path.join(name.as_bytes()).unwrap())
}

/// Reads a tree the way a backup does.
fn backup(base: &Path) -> Tree {
    let options =
        FileSourceOptions { roots: vec![base.to_path_buf()], ..FileSourceOptions::default() };
    let mut tree = Tree::new();
    for event in Walk::new(options).unwrap() {
        let (path, item) = match event {
            Event::Enter { path, meta, .. } => {
                (path, Item { node: directory(), meta: *meta, data: Vec::new() })
            }
            Event::Leaf(leaf) => {
                let mut data = Vec::new();
                let node = match leaf.kind {
                    LeafKind::File { bytes, place } => {
                        let mut reader = FileReader::open(&place).unwrap();
                        while let Some(segment) = reader.next_segment().unwrap() {
                            if let Segment::Data { offset, bytes } = segment {
                                let mut run = vec![0; bytes as usize];
                                assert_eq!(reader.read_into(&mut run).unwrap(), run.len());
                                data.push((offset, run));
                            }
                        }
                        file(bytes)
                    }
                    LeafKind::Symlink { target } => Node::Symlink(target),
                    LeafKind::Fifo => Node::Fifo,
                    LeafKind::Socket => Node::Socket,
                    LeafKind::CharDevice { major, minor } => Node::CharDevice { major, minor },
                    LeafKind::BlockDevice { major, minor } => Node::BlockDevice { major, minor },
                    LeafKind::DeviceData { .. } => panic!("not asked for"),
                };
                (leaf.path, Item { node, meta: leaf.meta, data })
            }
            Event::Leave => continue,
            other => panic!("{other:?}"),
        };
        if let Ok(path) = path.strip_prefix(base).map(Path::to_path_buf) {
            tree.insert(path, item);
        }
    }
    tree
}

/// Restores the way an operation does: entries, content back to front, metadata bottom up.
fn restore(target: &Target, tree: &Tree) -> Vec<TargetError> {
    let mut files = Vec::new();
    for (path, item) in tree {
        match target.create(&safe_path(path), &item.node, &item.meta).unwrap() {
            Created::File(file) => files.push((file, item)),
            Created::Directory { .. } | Created::Linked | Created::Node | Created::Kept => {}
        }
    }
    for (file, item) in files.iter().rev() {
        let mut end = file.bytes();
        for (offset, data) in item.data.iter().rev() {
            let after = offset + data.len() as u64;
            target.clear(file, after, end - after).unwrap();
            for (index, piece) in data.chunks(5000).enumerate().rev() {
                target.write_if_different(file, offset + index as u64 * 5000, piece).unwrap();
            }
            end = *offset;
        }
        target.clear(file, 0, end).unwrap();
    }
    let problems = tree
        .iter()
        .rev()
        .flat_map(|(path, item)| target.finish(&safe_path(path), &item.node, &item.meta))
        .collect();
    target.sync().unwrap();
    problems
}

/// Everything a tree can hold.
fn everything(base: &Path) {
    std::fs::create_dir_all(base.join("dir/deep/er")).unwrap();
    std::fs::write(base.join("dir/file"), b"content").unwrap();
    std::fs::write(base.join("empty"), b"").unwrap();
    std::fs::write(base.join("dir/deep/long"), [0xa5; 70_001]).unwrap();
    let sparse = std::fs::File::create(base.join("sparse")).unwrap();
    sparse.set_len(10 << 20).unwrap();
    sparse.write_all_at(b"in the middle", 5 << 20).unwrap();
    std::fs::write(base.join(OsStr::from_bytes(b"odd \xff\n*")), b"odd").unwrap();
    symlink("/nowhere", base.join("dangling")).unwrap();
    symlink("../..", base.join("dir/relative")).unwrap();
    symlink("/etc/passwd", base.join("dir/absolute")).unwrap();
    std::fs::hard_link(base.join("dir/file"), base.join("zz hard link")).unwrap();
    std::fs::hard_link(base.join("dangling"), base.join("linked link")).unwrap();
    for (name, kind) in [("pipe", FileType::Fifo), ("socket", FileType::Socket)] {
        rustix::fs::mknodat(CWD, base.join(name), kind, Mode::RWXU, 0).unwrap();
    }
    let flags = rustix::fs::XattrFlags::empty();
    for name in ["dir/file", "dir/deep"] {
        rustix::fs::setxattr(base.join(name), "user.comment", b"kept\0", flags).unwrap();
    }
    if am_root() {
        let device = rustix::fs::makedev(1, 3);
        let at = base.join("null");
        rustix::fs::mknodat(CWD, at, FileType::CharacterDevice, Mode::RWXU, device).unwrap();
        std::os::unix::fs::lchown(base.join("empty"), Some(12345), Some(54321)).unwrap();
        std::os::unix::fs::lchown(base.join("dangling"), Some(1), Some(2)).unwrap();
        std::os::unix::fs::lchown(base.join("pipe"), Some(1), Some(2)).unwrap();
    }
    let acl = ["user:12345:r--,default:group:54321:rwx", "user:12345:rw-"];
    for (acl, name) in acl.into_iter().zip(["dir", "dir/file"]) {
        // Where the tool or the file system does not know them, there are none to restore.
        let _ = Command::new("setfacl").args(["-m", acl]).arg(base.join(name)).status();
    }
    for (name, mode) in [
        ("empty", 0o6755),
        ("dir/deep/long", 0o400),
        ("sparse", 0o640),
        ("pipe", 0o622),
        ("dir/deep/er", 0o1777),
        ("dir/deep", 0o555),
    ] {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(base.join(name), permissions).unwrap();
    }
    let time = |tv_sec, tv_nsec| rustix::fs::Timespec { tv_sec, tv_nsec };
    for (name, at) in [
        ("dangling", time(7, 999_999_999)),
        ("dir/deep/er", time(-3, 5)),
        ("dir/deep/long", time(1_600_000_000, 1)),
        ("dir", time(1_500_000_000, 987_654_321)),
    ] {
        let times = rustix::fs::Timestamps { last_access: at, last_modification: at };
        let nofollow = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(CWD, base.join(name), &times, nofollow).unwrap();
    }
}

/// Inode numbers differ; which names share one must not.
fn with_plain_links(tree: &Tree) -> Tree {
    let mut groups = BTreeMap::new();
    let mut tree = tree.clone();
    for item in tree.values_mut() {
        if let Some(link) = item.meta.link.as_mut() {
            let next = groups.len() as u64;
            let inode = *groups.entry((link.device, link.inode)).or_insert(next);
            *link = LinkGroup { device: 0, inode };
        }
    }
    tree.remove(Path::new(""));
    tree
}

fn assert_same(left: &Tree, right: &Tree) {
    let (left, right) = (with_plain_links(left), with_plain_links(right));
    assert_eq!(left.keys().collect::<Vec<_>>(), right.keys().collect::<Vec<_>>());
    for (path, item) in &left {
        let other = &right[path];
        assert_eq!((&item.node, &item.meta), (&other.node, &other.meta), "{path:?}");
        assert!(item.data == other.data, "content of {path:?}");
    }
}

fn target(path: &Path, options: TargetOptions) -> Target {
    Target::open(path, options).unwrap()
}

#[test]
fn a_tree_with_everything_comes_back_exactly() {
    let (_dir, base) = scratch();
    everything(&base);
    let tree = backup(&base);
    for by_component in [false, true] {
        let (_dir, place) = scratch();
        let options = TargetOptions { open_files_max: 2, ..TargetOptions::default() };
        let target = target(&place.join("new"), options);
        if by_component {
            target.root.resolve_by_component();
        }
        let problems = restore(&target, &tree);
        assert!(problems.is_empty(), "{problems:?}");
        assert_same(&tree, &backup(&place.join("new")));
        let sparse = std::fs::metadata(place.join("new/sparse")).unwrap();
        assert!(sparse.blocks() * 512 < 1 << 20, "the hole is a hole");

        // Once more over the same, in both ways.
        for overwrite in [Overwrite::IfDifferent, Overwrite::Delta] {
            let again = Target::open(
                &place.join("new"),
                TargetOptions { overwrite, ..TargetOptions::default() },
            );
            let problems = restore(&again.unwrap(), &tree);
            assert!(problems.is_empty(), "{problems:?}");
            assert_same(&tree, &backup(&place.join("new")));
        }
    }
}

#[test]
fn a_differing_tree_is_brought_up_to_date() {
    let (_dir, base) = scratch();
    everything(&base);
    let tree = backup(&base);
    let (_place, place) = scratch();
    std::fs::create_dir(place.join("dir")).unwrap();
    std::fs::write(place.join("sparse"), vec![0xee; 12 << 20]).unwrap();
    std::fs::write(place.join("dir/file"), b"shorter").unwrap();
    std::fs::set_permissions(place.join("dir/file"), PermissionsExt::from_mode(0o000)).unwrap();
    symlink("elsewhere", place.join("dangling")).unwrap();
    std::fs::write(place.join("pipe"), b"no pipe").unwrap();
    symlink("/etc", place.join("dir/deep")).unwrap();
    std::fs::write(place.join("untouched"), b"mine").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(place.join("sparse"), "user.stale", b"x", flags).unwrap();
    let options = TargetOptions { overwrite: Overwrite::Delta, ..TargetOptions::default() };
    let problems = restore(&target(&place, options), &tree);
    assert!(problems.is_empty(), "{problems:?}");
    let mut got = backup(&place);
    assert!(got.remove(Path::new("untouched")).is_some());
    assert_same(&tree, &got);
}

#[test]
fn unchanged_blocks_are_not_written() {
    let (_dir, place) = scratch();
    std::fs::write(place.join("file"), [[1; 100], [2; 100]].concat()).unwrap();
    let options = TargetOptions { overwrite: Overwrite::Delta, ..TargetOptions::default() };
    let target = target(&place, options);
    let Created::File(file) = target.create(&safe("file"), &file(300), &meta(0o600)).unwrap()
    else {
        panic!()
    };
    assert_eq!((file.existing_bytes(), file.bytes()), (200, 300));
    assert!(!target.write_if_different(&file, 0, &[1; 100]).unwrap());
    assert!(target.write_if_different(&file, 100, &[3; 100]).unwrap());
    assert!(target.write_if_different(&file, 200, &[4; 100]).unwrap());
    let expected = [[1; 100], [3; 100], [4; 100]].concat();
    assert_eq!(std::fs::read(place.join("file")).unwrap(), expected);
}

#[test]
fn a_finished_file_is_kept_and_others_are_not() {
    let (_dir, place) = scratch();
    let options = TargetOptions { overwrite: Overwrite::IfDifferent, ..TargetOptions::default() };
    let target = target(&place, options);
    let (path, node, meta) = (safe("file"), file(4), meta(0o640));
    let first = target.create(&path, &node, &meta).unwrap();
    let Created::File(first) = first else { panic!() };
    target.write_at(&first, 0, b"data").unwrap();
    // Not finished: a restore that was cut short here must write it again.
    assert!(matches!(target.create(&path, &node, &meta), Ok(Created::File(_))));
    assert!(target.finish(&path, &node, &meta).is_empty());
    assert!(matches!(target.create(&path, &node, &meta), Ok(Created::Kept)));
    assert!(matches!(target.create(&path, &file(5), &meta), Ok(Created::File(_))));
}

#[test]
fn many_threads_write_one_file_with_few_open() {
    let (_dir, place) = scratch();
    let target = target(&place, TargetOptions { open_files_max: 2, ..TargetOptions::default() });
    let files: Vec<_> = (0..10)
        .map(|number| {
            match target.create(&safe(&number.to_string()), &file(64_000), &meta(0o600)).unwrap() {
                Created::File(file) => file,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let (files, target) = (&files, &target);
            scope.spawn(move || {
                for block in (0..64_u64).rev().filter(|block| block % 4 == u64::from(thread)) {
                    for file in files {
                        target.write_at(file, block * 1000, &[block as u8 + 1; 1000]).unwrap();
                    }
                }
            });
        }
    });
    let expected: Vec<u8> = (1..=64).flat_map(|block| [block; 1000]).collect();
    for number in 0..10 {
        assert!(std::fs::read(place.join(number.to_string())).unwrap() == expected);
    }
}

#[test]
fn zeros_become_holes_on_request() {
    let (_dir, place) = scratch();
    let options = TargetOptions { zeros_to_holes: true, ..TargetOptions::default() };
    let target = target(&place, options);
    let Created::File(file) = target.create(&safe("file"), &file(4 << 20), &meta(0o600)).unwrap()
    else {
        panic!()
    };
    let mut content = vec![0; 4 << 20];
    content[1 << 20] = 1;
    for (index, chunk) in content.chunks(64 << 10).enumerate() {
        target.write_at(&file, index as u64 * (64 << 10), chunk).unwrap();
    }
    target.sync().unwrap();
    assert!(std::fs::read(place.join("file")).unwrap() == content);
    assert!(std::fs::metadata(place.join("file")).unwrap().blocks() * 512 <= 64 << 10);
}

#[test]
fn owners_are_found_by_name_first() {
    if !am_root() {
        return; // Only root may give files away.
    }
    let (_dir, place) = scratch();
    let target = target(&place, TargetOptions::default());
    let root = Some("root".to_string());
    let named = Meta { uid: 4242, gid: 4242, user: root.clone(), group: root, ..meta(0o644) };
    let unknown = Meta { user: Some("no such user here".into()), group: None, ..named.clone() };
    for (name, meta, owner) in [("named", named, (0, 0)), ("unknown", unknown, (4242, 4242))] {
        target.create(&safe(name), &file(0), &meta).unwrap();
        assert!(target.finish(&safe(name), &file(0), &meta).is_empty());
        let found = std::fs::metadata(place.join(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), owner, "{name}");
    }
}

#[test]
fn what_cannot_be_applied_is_reported_and_the_rest_applied() {
    let (_dir, place) = scratch();
    let target = target(&place, TargetOptions::default());
    let attribute = Xattr { name: b"nonsense.name".to_vec(), value: b"x".to_vec() };
    let meta = Meta { xattrs: vec![attribute], ..meta(0o640) };
    target.create(&safe("file"), &file(0), &meta).unwrap();
    let problems = target.finish(&safe("file"), &file(0), &meta);
    assert!(
        matches!(&problems[..], [TargetError::Io { action, .. }] if action.contains("attribute"))
    );
    let found = std::fs::metadata(place.join("file")).unwrap();
    assert_eq!((found.mode() & 0o7777, found.mtime()), (0o640, meta.mtime.seconds));
}

#[test]
fn a_full_medium_is_named_and_stops() {
    let (_dir, place) = scratch();
    let Some(mounted) = Mounted::tmpfs(&place, 1) else { return };
    let target = target(&place, TargetOptions::default());
    let created = target.create(&safe("large"), &file(8 << 20), &meta(0o600)).unwrap();
    let Created::File(file) = created else { panic!() };
    let result = target.write_at(&file, 0, &vec![1; 8 << 20]);
    drop(target);
    drop(mounted);
    match result.unwrap_err() {
        error @ TargetError::Full { .. } => {
            assert!(error.stops_restore());
            assert!(error.to_string().contains("large"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn file_systems_mounted_beneath_are_synced_too() {
    let (_dir, place) = scratch();
    std::fs::create_dir(place.join("sub")).unwrap();
    let Some(mounted) = Mounted::tmpfs(&place.join("sub"), 1) else { return };
    let options = TargetOptions { overwrite: Overwrite::Delta, ..TargetOptions::default() };
    let target = target(&place, options);
    let link = Some(LinkGroup { device: 1, inode: 1 });
    let linked = Meta { link, ..meta(0o600) };
    target.create(&safe("sub"), &directory(), &meta(0o755)).unwrap();
    // Names of one file on two file systems: each gets the content.
    assert!(matches!(target.create(&safe("a"), &file(0), &linked), Ok(Created::File(_))));
    assert!(matches!(target.create(&safe("sub/b"), &file(0), &linked), Ok(Created::File(_))));
    for name in ["c", "sub/d"] {
        target.create(&safe(name), &file(0), &linked).unwrap();
    }
    let problems: Vec<_> = ["a", "c", "sub/b", "sub/d"]
        .into_iter()
        .flat_map(|name| target.finish(&safe(name), &file(0), &linked))
        .collect();
    let synced = target.sync();
    let mounts = target.mounted.lock().len();
    drop(target);
    drop(mounted);
    synced.unwrap();
    assert_eq!((mounts, problems.len()), (1, 0));
}
