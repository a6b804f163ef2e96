//! Quiet points: nothing runs, and everything is looked at.

use std::path::Path;
use std::time::{Duration, Instant};

use super::process::Disturbance;
use super::{SHARED_CACHE, Scene, remove};
use crate::process::files_below;

/// How often it is looked whether the next quiet point has come.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The worker that quiet points run their processes as.
const WORKER: &str = "quiet";
/// A cache that is made and removed at each quiet point.
const FRESH_CACHE: &str = "cache-fresh";
/// What the folder of a process's own view of a shared cache begins with.
const OVERLAY_PREFIX: &str = "overlay-";

impl Scene {
    /// Has everything rest now and then, until the end.
    pub(super) fn watch(&self, every: Duration) {
        let mut next = Instant::now() + every;
        while Instant::now() < self.until && !self.is_broken() {
            std::thread::sleep(LOOK_EVERY);
            if Instant::now() >= next {
                let _rest = self.quiet.write();
                self.rest(false);
                next = Instant::now() + every;
            }
        }
    }

    /// Looks at everything while nothing runs: every snapshot restores, nothing is damaged, a
    /// collection works and sweeps what the dead left, and then all is as before.
    pub(super) fn rest(&self, last: bool) {
        if self.is_broken() {
            if last {
                self.look_once_more();
            }
            return;
        }
        self.course.lock().quiet += 1;
        self.done(WORKER, &["verify", "--level", "full", "--cache-dir", FRESH_CACHE]);
        if last {
            self.restore_all(SHARED_CACHE);
        }
        let unfinished = self.unfinished();
        self.course.lock().unfinished += unfinished as u64;
        let collection =
            ["gc", "--max-delete", "100", "--ignore-leases", "--cache-dir", SHARED_CACHE];
        let ended = self.runner.run(WORKER, &collection, None, Disturbance::None);
        self.count(&collection, &ended);
        self.unless_collected(&collection, Some(&ended));
        let left = self.unfinished();
        if left > 0 {
            self.violation(format!(
                "of {unfinished} unfinished files of dead processes {left} are there after a \
                 collection"
            ));
        }
        self.look_for_overlays();
        self.restore_all(FRESH_CACHE);
        self.done(WORKER, &["verify", "--level", "full", "--cache-dir", SHARED_CACHE]);
        remove(&self.cairn.path(FRESH_CACHE));
    }

    /// After a violation: what is wrong when nothing runs any more.
    fn look_once_more(&self) {
        self.done(WORKER, &["verify", "--level", "full", "--cache-dir", FRESH_CACHE]);
        self.restore_all(FRESH_CACHE);
    }

    fn unfinished(&self) -> usize {
        let folder = self.cairn.path("repository/tmp");
        if folder.is_dir() { files_below(&folder).len() } else { 0 }
    }

    /// What dead processes left in the cache is gone when another has opened it.
    fn look_for_overlays(&self) {
        let left = count_folders(&self.cairn.path(SHARED_CACHE), OVERLAY_PREFIX);
        if left > 0 {
            self.violation(format!("{left} overlays of dead processes are in the shared cache"));
        }
    }

    fn restore_all(&self, cache: &str) {
        let kept = self.kept.lock().clone();
        let target = self.cairn.path("target-quiet");
        for (snapshot, one) in kept {
            let shown = target.to_str().unwrap_or_default();
            let arguments = ["restore", &snapshot, "--target", shown, "--cache-dir", cache];
            if self.done(WORKER, &arguments).is_some() {
                self.compare(&snapshot, &one.expected, &target);
            }
            remove(&target);
        }
    }
}

/// Folders anywhere below whose names begin so.
fn count_folders(folder: &Path, prefix: &str) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let paths = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    paths
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            usize::from(name.starts_with(prefix)) + count_folders(&path, prefix)
        })
        .sum()
}
