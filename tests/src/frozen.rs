//! Frozen repositories: small ones that a version of cairn wrote and every later one must read.
//!
//! `format-spec/repos/v1` holds one for each cipher, one with snapshots that were made anew by an
//! erasure, and one with parity, each made once by `cargo run --release -p cairn-tests --example freeze`. Each has
//! snapshots of an owner, of a writer that cannot read, and one whose frames have bases;
//! `<name>.txt` says what each restores to.

use std::path::{Path, PathBuf};

use crate::reader::source_root;

/// The passphrase of every frozen repository.
pub const PASSPHRASE: &str = "frozen";
/// Where the source of the frozen snapshots was.
pub const SOURCE: &str = "/tmp/cairn-frozen";
/// The ciphers, as their repositories are called.
pub const CIPHERS: [&str; 2] = ["aes", "xchacha"];
/// One of which snapshots were made anew without this path of the source.
pub const REMADE: &str = "remade";
/// What was erased there.
pub const ERASED: &str = "folder/text";
/// One whose packs have parity.
pub const PARITY: &str = "parity";
/// Every frozen repository.
pub const REPOSITORIES: [&str; 4] = ["aes", "xchacha", REMADE, PARITY];
/// Paths above the source, whose metadata is of the machine and no part of the promise.
pub const LEFT_OUT: [&str; 2] = ["", "tmp"];

/// The folder of the repositories that version 1 of the format wrote.
#[must_use]
pub fn folder() -> PathBuf {
    source_root().join("format-spec/repos/v1")
}

/// Copies a folder of plain files; the frozen ones are not to be touched.
///
/// # Panics
/// When that is not possible.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its kind").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}
