//! Makes trees to back up.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

use crate::seed::noise;

/// When the files of [`everything`] were last changed: long ago, so that they count as settled.
fn long_ago() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000, 123_456_789)
}

/// Sets the modification time of a file or directory to long ago.
///
/// # Panics
/// When that is not possible.
pub fn age(path: &Path) {
    let file = fs::File::open(path).expect("what was made can be opened");
    file.set_modified(long_ago()).expect("its time can be set");
}

/// A small tree of a few kinds: about `files` files and 40 KiB.
///
/// # Panics
/// When it cannot be made.
pub fn small(root: &Path, files: usize, seed: u64) {
    fs::create_dir_all(root.join("folder/below")).expect("a folder");
    for number in 0..files {
        let content = noise(number * 701 % 6_000, seed + number as u64);
        let folder = if number % 3 == 0 { "folder/below" } else { "folder" };
        fs::write(root.join(folder).join(format!("file-{number:03}")), content).expect("a file");
    }
    fs::write(root.join("text"), "customer,order\n".repeat(1_000)).expect("a file");
    std::os::unix::fs::symlink("text", root.join("link")).expect("a link");
}

/// A tree with everything a restore promises to bring back.
///
/// # Panics
/// When it cannot be made.
pub fn everything(root: &Path, seed: u64) {
    fs::create_dir_all(root.join("deep/er/empty")).expect("a folder");
    fs::write(root.join("deep/large"), noise(2_500_000, seed)).expect("a file");
    fs::write(root.join("deep/er/text"), "customer,order\n".repeat(40_000)).expect("a file");
    fs::write(root.join("empty"), "").expect("a file");
    for number in 0..60 {
        let content = noise(number * 61, seed ^ number as u64);
        fs::write(root.join(format!("small-{number:03}")), content).expect("a file");
    }
    odd_names(root);
    std::os::unix::fs::symlink("deep/large", root.join("link")).expect("a link");
    std::os::unix::fs::symlink("nowhere/at all", root.join("dangling")).expect("a link");
    fs::hard_link(root.join("deep/large"), root.join("second-name")).expect("a link");
    sparse(&root.join("sparse"), seed);
    mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).expect("a FIFO");
    for (name, mode) in [("private", 0o600), ("program", 0o755), ("sticky", 0o1644)] {
        fs::write(root.join(name), name).expect("a file");
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).expect("its mode");
    }
    setxattr(root.join("program"), "user.comment", b"\x00any\xff", XattrFlags::empty())
        .expect("the temporary folder takes extended attributes");
    settle(root);
}

/// Names that programs tend to get wrong.
fn odd_names(root: &Path) {
    let folder = root.join("names");
    fs::create_dir(&folder).expect("a folder");
    let longest = [b'x'; 255];
    let names: [&[u8]; 12] = [
        b"not \xff\xfe UTF-8",
        b"line\nfeed",
        b" space at both ends ",
        b"-rf",
        b"back\\slash",
        b"quote\"'`$(id)",
        b"...",
        b"con:aux|nul?*",
        b"\x01\x1b[31mcontrol",
        "combining e\u{301} and \u{e9}".as_bytes(),
        b"tab\tand\rreturn",
        &longest,
    ];
    for name in names {
        fs::write(folder.join(OsStr::from_bytes(name)), name).expect("a file");
    }
}

/// A file of 20 MB with data at its start, in its middle and not at its end.
///
/// # Panics
/// When it cannot be made.
pub fn sparse(path: &Path, seed: u64) {
    let file = fs::File::create(path).expect("a file");
    file.write_all_at(&noise(10_000, seed ^ 1), 0).expect("its start");
    file.write_all_at(&noise(300_000, seed ^ 2), 9_000_000).expect("its middle");
    file.set_len(20_000_000).expect("its length");
}

/// Sets all modification times to long ago, children before their directories.
///
/// # Panics
/// When that is not possible.
pub fn settle(root: &Path) {
    for entry in fs::read_dir(root).expect("a folder") {
        let path = entry.expect("an entry").path();
        let kind = fs::symlink_metadata(&path).expect("an entry").file_type();
        if kind.is_dir() {
            settle(&path);
        } else if kind.is_file() {
            age(&path);
        }
    }
    age(root);
}
