//! Replicas: what came of them, and what is known of them.

use cairn_engine::error::Explain;
use cairn_engine::ops::replicate;
use cairn_engine::repo::places::Replication;
use serde::Serialize;

use crate::ui::format;

/// What came of one replica.
#[derive(Debug, Serialize)]
pub struct Replica<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    url: &'a str,
    done: bool,
    dry_run: bool,
    error: Option<String>,
    code: Option<&'static str>,
    created: bool,
    wanted: u64,
    copied: Vec<String>,
    waiting: u64,
    damaged: u64,
    spared: Vec<String>,
    forgotten: u64,
    chunks: u64,
    bytes_plain: u64,
    packs_moved: u64,
    packs_written: u64,
    bytes_written: u64,
    bytes_erased: u64,
    dead_since: Option<String>,
    requests: Option<u64>,
    elapsed_ms: u64,
}

impl<'a> Replica<'a> {
    /// What happened to the replica at this place.
    #[must_use]
    pub fn new(url: &'a str, outcome: &'a replicate::Outcome, dry_run: bool) -> Self {
        let (none, error) = (replicate::Done::default(), outcome.done.as_ref().err());
        let done = outcome.done.as_ref().unwrap_or(&none);
        Self {
            kind: "replica",
            name: &outcome.name,
            url,
            done: error.is_none(),
            dry_run,
            error: error.map(ToString::to_string),
            code: error.map(Explain::code),
            created: done.created,
            wanted: done.wanted,
            copied: done.copied.iter().map(|id| id.to_hex()).collect(),
            waiting: done.waiting.len() as u64,
            damaged: done.damaged.len() as u64,
            spared: done.spared.iter().map(|id| id.to_hex()).collect(),
            forgotten: done.forgotten,
            chunks: done.chunks,
            bytes_plain: done.bytes_plain,
            packs_moved: done.packs_moved,
            packs_written: done.packs_written,
            bytes_written: done.bytes_written,
            bytes_erased: done.collected.as_ref().map_or(0, |report| report.bytes_deleted),
            dead_since: done.dead_since_ms.map(format::rfc3339),
            requests: done.traffic.map(|traffic| traffic.total().sent),
            elapsed_ms: done.elapsed_ms,
        }
    }
}

/// What this host knows of a replica.
#[derive(Debug, Serialize)]
pub struct ReplicaState<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    url: &'a str,
    known: bool,
    snapshots: u64,
    newest: Option<String>,
    behind_s: Option<u64>,
    tried: Option<String>,
    succeeded: Option<String>,
    bytes_last: u64,
    bytes_total: u64,
    dead_since: Option<String>,
    overdue: bool,
    error: Option<String>,
}

impl<'a> ReplicaState<'a> {
    /// The state of a replica beside a home copy whose newest snapshot is of that time; what expired
    /// there before `expired_ms` is overdue.
    #[must_use]
    pub fn new(
        name: &'a str,
        url: &'a str,
        known: Option<&Replication>,
        newest_ms: Option<i64>,
        expired_ms: Option<i64>,
    ) -> Self {
        let none = Replication::default();
        let state = known.unwrap_or(&none);
        let behind = newest_ms.zip(state.newest_ms).map(|(home, there)| home.saturating_sub(there));
        Self {
            kind: "replica_state",
            name,
            url,
            known: known.is_some(),
            snapshots: state.snapshots,
            newest: state.newest_ms.map(format::rfc3339),
            behind_s: behind.map(|ms| ms.max(0).unsigned_abs() / 1000),
            tried: known.map(|known| format::rfc3339(known.tried_ms)),
            succeeded: state.done_ms.map(format::rfc3339),
            bytes_last: state.bytes_last,
            bytes_total: state.bytes_total,
            dead_since: state.dead_since_ms.map(format::rfc3339),
            overdue: state.dead_since_ms.zip(expired_ms).is_some_and(|(dead, last)| dead < last),
            error: state.failure.clone().or_else(|| state.failure_single.clone()),
        }
    }

    /// By how much its newest snapshot is older than that of home, seconds.
    #[must_use]
    pub fn behind_s(&self) -> Option<u64> {
        self.behind_s
    }

    /// Why the last replication to it failed, or what it left undone.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Whether expired data may be there for longer than it may.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.overdue
    }
}
