//! What is backed up: a small tree with pages and text in it, and a stream, changed each time.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::seed::{Seed, noise};

/// Name of the stream in its snapshots.
pub(super) const STREAM_NAME: &str = "dump.sql";
/// Length of a page, bytes.
const PAGE_BYTES: usize = 8192;
/// Pages of the file that changes in place.
const PAGES: u64 = 160;
/// Small files.
const FILES: u64 = 24;
/// Lines of a stream.
const LINES: u64 = 24_000;
/// Bytes of a file that comes and goes as a whole, at most.
const WHOLE_BYTES_MAX: u64 = 900_000;
/// Workers have files in common: their contents follow from so few numbers.
const CONTENTS: u64 = 6;

/// A tree, or the text of a stream.
pub(super) struct Source {
    path: PathBuf,
    /// Each line of the stream as a number.
    lines: Vec<u64>,
}

impl Source {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, lines: Vec::new() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Changes some of the tree, which is made first if it is not there.
    pub(super) fn change(&self, seed: &mut Seed) {
        let folder = self.path.join("folder");
        fs::create_dir_all(&folder).expect("a folder");
        let mut options = fs::File::options();
        let options = options.create(true).truncate(false).write(true);
        let pages = options.open(self.path.join("pages")).expect("a file");
        let fresh = pages.metadata().expect("a file").len() == 0;
        for page in 0..PAGES {
            if fresh || seed.below(12) == 0 {
                let content = noise(PAGE_BYTES / 2, seed.below(1 << 20));
                let offset = page * PAGE_BYTES as u64 + seed.below(PAGE_BYTES as u64 / 2);
                pages.write_all_at(&content, offset).expect("a page");
            }
        }
        for number in 0..FILES {
            let path = folder.join(format!("file-{number:02}"));
            match seed.below(8) {
                0 if path.exists() => fs::remove_file(&path).expect("a file is removed"),
                1 => {
                    let content = noise(usize::try_from(number * 613).unwrap_or(0), seed.next());
                    fs::write(&path, content).expect("a file");
                }
                _ => {}
            }
        }
        let content = seed.below(CONTENTS);
        let bytes = usize::try_from(WHOLE_BYTES_MAX * (content + 1) / CONTENTS).unwrap_or(0);
        fs::write(self.path.join("whole"), noise(bytes, content)).expect("a file");
    }

    /// The stream, changed in some places, its lines moved by what was put in.
    pub(super) fn stream(&mut self, seed: &mut Seed) -> Vec<u8> {
        if self.lines.is_empty() {
            self.lines = (0..LINES).map(|_| seed.next()).collect();
        }
        for _ in 0..40 {
            let at = usize::try_from(seed.below(self.lines.len() as u64)).unwrap_or(0);
            match seed.below(3) {
                0 => self.lines.insert(at, seed.next()),
                1 => {
                    self.lines.remove(at);
                }
                _ => {
                    if let Some(line) = self.lines.get_mut(at) {
                        *line = seed.next();
                    }
                }
            }
        }
        let lines = self.lines.iter();
        let lines = lines.map(|line| format!("insert into orders values ({line}, {:x});\n", !line));
        lines.collect::<String>().into_bytes()
    }
}
