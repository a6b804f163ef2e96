//! What came of a replication.

use cairn_format::ids::SnapshotId;

use super::carry::Carried;
use crate::context::Remark;
use crate::error::Error;
use crate::ops::gc::GcReport;
use crate::store::traffic::Traffic;

/// What happened to one replica.
#[derive(Debug, Default)]
pub struct Done {
    /// Whether it was made now.
    pub created: bool,
    /// Snapshots it is to have.
    pub wanted: u64,
    /// Snapshots it got; with a dry run, is to get.
    pub copied: Vec<SnapshotId>,
    /// Snapshots of which others have yet to bring something: only when a share was brought.
    pub waiting: Vec<SnapshotId>,
    /// Snapshots it could not get because of damage at home.
    pub damaged: Vec<Remark>,
    /// Snapshots that it keeps though home lacks them, because home never said that they are to go.
    pub spared: Vec<SnapshotId>,
    /// Snapshots that were forgotten there; with a dry run, are to be.
    pub forgotten: u64,
    /// Chunks it lacked.
    pub chunks: u64,
    /// Their bytes, before compression.
    pub bytes_plain: u64,
    /// Of the chunks, those that are there for the sake of others.
    pub chunks_held: u64,
    /// Packs put as they are at home.
    pub packs_moved: u64,
    /// Packs written with what was wanted of others.
    pub packs_written: u64,
    /// Bytes of both.
    pub bytes_written: u64,
    /// The collection that ran there.
    pub collected: Option<GcReport>,
    /// Since when expired data may be there.
    pub dead_since_ms: Option<i64>,
    /// Requests to it, where they are counted.
    pub traffic: Option<Traffic>,
    /// Milliseconds it took.
    pub elapsed_ms: u64,
}

impl Done {
    /// What it left undone, for those who look only later.
    pub(super) fn trouble(&self) -> Option<String> {
        let mut troubles = Vec::new();
        if !self.damaged.is_empty() {
            let count = self.damaged.len();
            troubles
                .push(format!("{count} snapshots could not be copied because of damage at home"));
        }
        if !self.spared.is_empty() {
            let count = self.spared.len();
            troubles.push(format!("home lacks {count} snapshots that nobody forgot there"));
        }
        if self.collected.as_ref().is_some_and(|report| !is_clean(report)) {
            troubles.push("not all that expired could be erased".to_owned());
        }
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }

    /// Adds packs that were brought.
    pub(super) fn note(&mut self, carried: &Carried) {
        self.packs_moved += carried.packs_moved;
        self.packs_written += carried.packs_written;
        self.bytes_written += carried.bytes_written;
    }
}

/// What came of one replica.
#[derive(Debug)]
pub struct Outcome {
    /// What it is called.
    pub name: String,
    /// What happened, or why nothing more did.
    pub done: Result<Done, Error>,
}

/// What came of a replication.
#[derive(Debug, Default)]
pub struct ReplicateReport {
    /// Of each replica, in the order they were named.
    pub replicas: Vec<Outcome>,
    /// Whole packs read from home.
    pub packs_read: u64,
    /// Their bytes.
    pub bytes_read: u64,
}

/// Whether nothing that expired is left there, as far as is known.
pub(super) fn is_clean(report: &GcReport) -> bool {
    report.still_there.is_empty()
        && report.versions_kept.is_empty()
        && report.damaged.is_empty()
        && report.plan.packs_spared == 0
}
