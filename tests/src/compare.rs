//! Compares two trees: kinds, bytes, holes, links, owners, modes, times, extended attributes.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{getxattr, lgetxattr, listxattr, llistxattr};
use rustix::io::Errno;

/// What is at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The kind, in one word.
    pub kind: &'static str,
    /// Hash of the bytes, or of the link's target; empty for others.
    pub content: String,
    /// Length of a file, bytes.
    pub bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Modification time.
    pub mtime: (i64, i64),
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path, in order, that is the same file.
    pub same_as: Option<PathBuf>,
    /// True when a file takes clearly less room than its length.
    pub has_holes: bool,
}

/// Everything below a folder, by path relative to it; the folder itself has the empty path.
pub type Tree = BTreeMap<PathBuf, Seen>;

/// Looks at everything below a folder.
///
/// # Panics
/// When something cannot be read.
#[must_use]
pub fn look(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut paths = vec![PathBuf::new()];
    while let Some(below) = paths.pop() {
        let path = root.join(&below);
        let meta = fs::symlink_metadata(&path).unwrap_or_else(|error| fail(&path, &error));
        if meta.is_dir() {
            let entries = fs::read_dir(&path).unwrap_or_else(|error| fail(&path, &error));
            paths.extend(entries.map(|entry| {
                let entry = entry.unwrap_or_else(|error| fail(&path, &error));
                below.join(entry.file_name())
            }));
        }
        tree.insert(below, seen(&path, &meta));
    }
    let mut first = HashMap::new();
    for (path, seen) in &mut tree {
        let meta = fs::symlink_metadata(root.join(path)).unwrap_or_else(|error| fail(path, &error));
        if meta.nlink() > 1 && !meta.is_dir() {
            let known = first.entry((meta.dev(), meta.ino())).or_insert_with(|| path.clone());
            seen.same_as = Some(known.clone());
        }
    }
    tree
}

fn fail(path: &Path, error: &dyn std::fmt::Display) -> ! {
    panic!("{}: {error}", path.display())
}

fn seen(path: &Path, meta: &fs::Metadata) -> Seen {
    let kind = meta.file_type();
    let (kind, content) = if kind.is_dir() {
        ("directory", String::new())
    } else if kind.is_symlink() {
        let target = fs::read_link(path).unwrap_or_else(|error| fail(path, &error));
        ("link", format!("{}", target.display()))
    } else if kind.is_file() {
        let data = fs::read(path).unwrap_or_else(|error| fail(path, &error));
        ("file", blake3::hash(&data).to_hex().to_string())
    } else if kind.is_fifo() {
        ("fifo", String::new())
    } else if kind.is_socket() {
        ("socket", String::new())
    } else {
        ("device", format!("{}", meta.rdev()))
    };
    let is_file = kind == "file";
    Seen {
        kind,
        content,
        bytes: if is_file { meta.len() } else { 0 },
        mode: if kind == "link" { 0 } else { meta.mode() & 0o7777 },
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        xattrs: xattrs(path, kind == "link"),
        same_as: None,
        has_holes: is_file && meta.blocks() * 512 + (64 << 10) < meta.len(),
    }
}

fn xattrs(path: &Path, is_link: bool) -> BTreeMap<Vec<u8>, Vec<u8>> {
    const BYTES_MAX: usize = 64 << 10;
    let mut names = vec![0_u8; BYTES_MAX];
    let listed = if is_link {
        llistxattr(path, names.as_mut_slice())
    } else {
        listxattr(path, names.as_mut_slice())
    };
    let bytes = match listed {
        Ok(bytes) => bytes,
        Err(Errno::NOTSUP) => 0,
        Err(error) => fail(path, &error),
    };
    let mut found = BTreeMap::new();
    for name in names.get(..bytes).unwrap_or_default().split(|byte| *byte == 0) {
        if name.is_empty() {
            continue;
        }
        let mut value = vec![0_u8; BYTES_MAX];
        let read = if is_link {
            lgetxattr(path, name, value.as_mut_slice())
        } else {
            getxattr(path, name, value.as_mut_slice())
        };
        value.truncate(read.unwrap_or_else(|error| fail(path, &error)));
        found.insert(name.to_vec(), value);
    }
    found
}

/// Every difference between two trees, in words; empty when they are the same.
#[must_use]
pub fn differences(before: &Tree, after: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, old) in before {
        match after.get(path) {
            None => found.push(format!("{} is not there", path.display())),
            Some(new) if new != old => {
                found.push(format!("{}: {old:?} became {new:?}", path.display()));
            }
            Some(_) => {}
        }
    }
    for path in after.keys().filter(|path| !before.contains_key(*path)) {
        found.push(format!("{} was not there", path.display()));
    }
    found
}

/// Fails when two folders are not the same.
///
/// # Panics
/// With every difference.
#[track_caller]
pub fn assert_same(before: &Path, after: &Path) {
    assert_same_tree(&look(before), after);
}

/// Fails when a folder is not what was seen.
///
/// # Panics
/// With every difference.
#[track_caller]
pub fn assert_same_tree(before: &Tree, after: &Path) {
    let found = differences(before, &look(after));
    assert!(found.is_empty(), "{} differs:\n{}", after.display(), found.join("\n"));
}

/// Paths of files that are there and whose bytes differ from those they had, for restores of
/// which it is known that they are not complete.
#[must_use]
pub fn wrong_contents(before: &Tree, after: &Path) -> Vec<PathBuf> {
    let mut wrong = Vec::new();
    for (path, new) in look(after) {
        let same = before.get(&path).is_some_and(|old| {
            (old.kind, &old.content, old.bytes) == (new.kind, &new.content, new.bytes)
        });
        if !same {
            wrong.push(path);
        }
    }
    wrong
}

/// A line for each path but those left out: what no restore may get wrong, on any machine. Owners
/// and holes depend on who restores where.
#[must_use]
pub fn listing(tree: &Tree, left_out: &[&str]) -> String {
    let mut text = String::new();
    for (path, seen) in tree {
        if left_out.iter().any(|left_out| path == Path::new(left_out)) {
            continue;
        }
        let Seen { kind, content, bytes, mode, mtime, xattrs, same_as, .. } = seen;
        let escaped = |path: &Path| path.as_os_str().as_encoded_bytes().escape_ascii().to_string();
        let mut line = format!(
            "{kind} {mode:04o} {}.{:09} {bytes} {} {}",
            mtime.0,
            mtime.1,
            if content.is_empty() { "-" } else { content },
            escaped(path)
        );
        for (name, value) in xattrs.iter().filter(|(name, _)| name.starts_with(b"user.")) {
            line += &format!(" {}={}", name.escape_ascii(), value.escape_ascii());
        }
        if let Some(first) = same_as.as_ref().filter(|first| *first != path) {
            line += &format!(" same as {}", escaped(first));
        }
        text += &line;
        text.push('\n');
    }
    text
}
