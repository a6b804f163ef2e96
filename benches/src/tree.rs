//! A tree of files as a server has them: a dump, page files, what does not compress, and many
//! small files.

use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::data::{noise, pages, text};

/// A file system in memory, where the platform has one.
const MEMORY_FOLDER: &str = "/dev/shm";

const SMALL_FILES: u64 = 4096;
const FILES_PER_FOLDER: u64 = 128;

/// A folder that goes with the value, in memory where possible: disks are not what is measured.
///
/// # Panics
/// When no folder can be made.
#[must_use]
pub fn scratch() -> TempDir {
    let memory = Path::new(MEMORY_FOLDER);
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a benchmark needs a temporary folder")
}

/// The tree, about `bytes` long.
pub struct SourceTree {
    folder: TempDir,
    bytes: u64,
}

impl SourceTree {
    /// Makes it: a quarter each of dump, pages, noise, and files of up to twice their mean.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let folder = scratch();
        let quarter = bytes / 4;
        std::fs::write(folder.path().join("dump.sql"), text(quarter, 1))?;
        std::fs::write(folder.path().join("16384"), pages(quarter, 2))?;
        std::fs::write(folder.path().join("photos.tar"), noise(quarter, 3))?;
        let small = write_small_files(&folder.path().join("small"), quarter)?;
        Ok(Self { folder, bytes: 3 * quarter as u64 + small })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Length of all files, bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Returns the bytes written.
fn write_small_files(root: &Path, bytes: usize) -> io::Result<u64> {
    let mean = bytes as u64 / SMALL_FILES;
    let mut written = 0;
    for number in 0..SMALL_FILES {
        let folder = root.join(format!("{:04}", number / FILES_PER_FOLDER));
        if number % FILES_PER_FOLDER == 0 {
            std::fs::create_dir_all(&folder)?;
        }
        // A full period of odd steps: every length from 0 to twice the mean.
        let length = 2 * mean * (number * 1237 % SMALL_FILES) / SMALL_FILES;
        let content = match number % 4 {
            0 => noise(length as usize, number),
            _ => text(length as usize, number),
        };
        std::fs::write(folder.join(format!("{number}.dat")), content)?;
        written += length;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_about_as_long_as_asked_for_and_says_how_long() {
        let tree = SourceTree::new(16 << 20).expect("a tree");
        let (mut folders, mut bytes) = (vec![tree.path()], 0);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let entry = entry.expect("an entry");
                let meta = entry.metadata().expect("metadata");
                if meta.is_dir() {
                    folders.push(entry.path());
                } else {
                    bytes += meta.len();
                }
            }
        }
        assert_eq!(bytes, tree.bytes());
        assert!(bytes.abs_diff(16 << 20) < 1 << 18, "{bytes} bytes");
    }
}
