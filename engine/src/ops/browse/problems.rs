//! What cannot be read is told to the person once, with the file and the next step.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_format::ids::SnapshotId;
use parking_lot::Mutex;

use super::inodes::Folder;
use crate::context::Remark;
use crate::error::{Error, Explain as _};
use crate::ops::snapshots::is_forgotten;
use crate::repo::Repository;

/// So many files are told by name.
const TOLD_MAX: usize = 200;
/// Files of which it is remembered that they were counted.
const COUNTED_MAX: usize = 100_000;

/// Why something cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// There is no such entry.
    #[error("there is no such entry")]
    Absent,
    /// What was looked into is no directory.
    #[error("it is not a directory")]
    NotDirectory,
    /// It is of another kind than what was asked for.
    #[error("it is of another kind")]
    OtherKind,
    /// The snapshot was forgotten meanwhile, and what it needed is gone.
    #[error("the snapshot was forgotten, and what it needed is collected")]
    Forgotten,
    /// It cannot be read; the person was told why.
    #[error(transparent)]
    Failed(Error),
}

/// What was told and counted.
#[derive(Default)]
pub(super) struct Problems {
    told: Mutex<Told>,
    damaged: AtomicU64,
    failed: AtomicU64,
}

#[derive(Default)]
struct Told {
    paths: HashSet<Vec<u8>>,
    forgotten: HashSet<SnapshotId>,
    more: bool,
}

impl Problems {
    /// How many entries are damaged, and how many failed otherwise.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.damaged.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// Tells that something of an entry, or of the folder itself, cannot be read.
    pub(super) fn tell(
        &self,
        repository: &Repository,
        folder: &Folder,
        name: Option<&[u8]>,
        error: Error,
    ) -> ViewError {
        if matches!(error, Error::Cancelled) {
            return ViewError::Failed(error);
        }
        let damage = error.is_damage();
        // Whoever cannot tell takes it for damage.
        if damage && is_forgotten(repository, &folder.shown.info).unwrap_or(false) {
            self.tell_forgotten(repository, folder);
            return ViewError::Forgotten;
        }
        let mut path = folder.path();
        if let Some(name) = name {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        let mut told = self.told.lock();
        if told.paths.len() >= COUNTED_MAX || !told.paths.insert(path.clone()) {
            return ViewError::Failed(error);
        }
        let counter = if damage { &self.damaged } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        let message = if told.paths.len() <= TOLD_MAX {
            let step = if damage { Some(DAMAGE_STEP.to_owned()) } else { error.hint() };
            step.map_or_else(|| error.to_string(), |step| format!("{error}; {step}"))
        } else if told.more {
            return ViewError::Failed(error);
        } else {
            told.more = true;
            format!("{error}; what else cannot be read is not named any more")
        };
        drop(told);
        let subject = String::from_utf8_lossy(&path).into_owned();
        repository.monitor().warn(Remark { code: error.code(), subject, message });
        ViewError::Failed(error)
    }

    fn tell_forgotten(&self, repository: &Repository, folder: &Folder) {
        let shown = &folder.shown;
        let mut told = self.told.lock();
        let full = told.forgotten.len() >= TOLD_MAX;
        if full || !told.forgotten.insert(shown.info.id) {
            return;
        }
        drop(told);
        repository.monitor().warn(Remark {
            code: "snapshot.forgotten",
            subject: format!("snapshots/{}", shown.name),
            message: "it was forgotten while it was shown, and what it needed is collected"
                .to_owned(),
        });
    }
}

/// What to do about damage.
const DAMAGE_STEP: &str = "`--fallback URL` reads on from another copy, `cairn verify --level full` \
                           names everything affected, `cairn repair` heals what can be healed";
