//! The objects of `--json`, one a line. Their schemas are published in `cli/schema/` and tested
//! against what the program prints. Names stay; new fields may be added.
//!
//! Sizes are bytes, times RFC 3339 in UTC. A path is text; if its bytes are not UTF-8, the text
//! has replacement characters, and the field with the suffix `_hex` has the bytes.

use std::borrow::Cow;

use cairn_engine::collect::receipt::Link;
use cairn_engine::context::Remark;
use cairn_engine::index::local::CopyId;
use cairn_engine::ops::forget::{Planned, Series};
use cairn_engine::ops::snapshots::SnapshotInfo;
use cairn_engine::ops::verify;
use cairn_engine::ops::{erase, erasure};
use cairn_engine::repo::keys::SlotInfo;
use cairn_engine::retention::{Reason, Simulated, Verdict};
use cairn_format::hex;
use cairn_format::ids::SnapshotId;
use cairn_format::receipt::{AuditMethod, AuditResult};
use cairn_format::tree::{Entry as TreeEntry, Node};
use serde::Serialize;
use serde_json::{Map, Value};

use super::errors::Failure;
use super::format;
use crate::exit_code::ExitCode;

mod mounted;
mod replica;

pub use mounted::Mounted;
pub use replica::{Replica, ReplicaState};

/// Version of the objects; it changes only if a name or a meaning does.
pub const VERSION: u32 = 1;

/// The last line of every run.
#[derive(Debug, Serialize)]
pub struct Outcome<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    v: u32,
    command: &'a str,
    exit_code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<Value>,
}

impl<'a> Outcome<'a> {
    /// The result of a command that did what it could: its code other than 0 has a reason.
    #[must_use]
    pub fn finished(
        command: &'a str,
        exit: ExitCode,
        reason: Option<(&'a str, &'a str)>,
        report: Option<&'a Value>,
    ) -> Self {
        let (code, message) = reason.unzip();
        let exit_code = exit.number();
        Self {
            kind: "result",
            v: VERSION,
            command,
            exit_code,
            code,
            message,
            hint: None,
            report,
            requests: None,
        }
    }

    /// The result of a command that failed.
    #[must_use]
    pub fn failed(command: &'a str, failure: &'a Failure) -> Self {
        Self {
            kind: "result",
            v: VERSION,
            command,
            exit_code: failure.exit.number(),
            code: Some(failure.code),
            message: Some(&failure.message),
            hint: failure.hint.as_deref(),
            report: None,
            requests: None,
        }
    }

    /// The same, with the requests made to the storage.
    #[must_use]
    pub fn with_requests(self, requests: Option<Value>) -> Self {
        Self { requests, ..self }
    }
}

/// A warning about one thing; the command went on.
#[derive(Debug, Serialize)]
pub struct Warning<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    code: &'a str,
    subject: &'a str,
    message: &'a str,
}

impl<'a> From<&'a Remark> for Warning<'a> {
    fn from(remark: &'a Remark) -> Self {
        Self {
            kind: "warning",
            code: remark.code,
            subject: &remark.subject,
            message: &remark.message,
        }
    }
}

/// How far a command is; at most one a second.
#[derive(Debug, Serialize)]
pub struct Progress {
    /// Always `progress`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What is being done.
    pub stage: &'static str,
    /// Time since the command began, milliseconds.
    pub elapsed_ms: u64,
    /// What the total counts, and the total; missing while it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// How much of the total is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    /// Time left by the pace of the last seconds, milliseconds; missing while it would be a guess.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_ms: Option<u64>,
    /// Everything counted so far, by name.
    pub counters: Map<String, Value>,
}

/// A snapshot.
#[derive(Debug, Serialize)]
pub struct Snapshot<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    time: String,
    started: String,
    finished: String,
    job: &'a str,
    host: &'a str,
    user: &'a str,
    tags: &'a [String],
    paths: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paths_hex: Option<Vec<String>>,
    files: u64,
    directories: u64,
    others: u64,
    unread: u64,
    bytes_total: u64,
    bytes_read: u64,
    bytes_new: u64,
    bytes_stored: u64,
    parents: Vec<String>,
    sequence: u64,
    writer: String,
    writer_name: &'a str,
    acknowledged: bool,
    program: &'a str,
}

impl<'a> From<&'a SnapshotInfo> for Snapshot<'a> {
    fn from(snapshot: &'a SnapshotInfo) -> Self {
        let record = &snapshot.record;
        let statistics = &record.statistics;
        let is_text = |path: &Vec<u8>| str::from_utf8(path).is_ok();
        Self {
            kind: "snapshot",
            id: snapshot.id.to_hex(),
            time: format::rfc3339(time_ms(snapshot)),
            started: format::rfc3339(record.started_ms),
            finished: format::rfc3339(record.finished_ms),
            job: &record.job,
            host: &record.host,
            user: &record.user,
            tags: &record.tags,
            paths: record.paths.iter().map(|path| String::from_utf8_lossy(path)).collect(),
            paths_hex: (!record.paths.iter().all(is_text))
                .then(|| record.paths.iter().map(|path| hex::encode(path)).collect()),
            files: statistics.files,
            directories: statistics.directories,
            others: statistics.others,
            unread: statistics.unread,
            bytes_total: statistics.bytes_total,
            bytes_read: statistics.bytes_read,
            bytes_new: statistics.bytes_new,
            bytes_stored: statistics.bytes_stored,
            parents: record.parents.iter().map(SnapshotId::to_hex).collect(),
            sequence: record.sequence,
            writer: snapshot.writer.to_hex(),
            writer_name: &snapshot.writer_name,
            acknowledged: snapshot.acknowledged,
            program: &record.program,
        }
    }
}

/// The time a snapshot is known by, milliseconds since 1970.
#[must_use]
pub fn time_ms(snapshot: &SnapshotInfo) -> i64 {
    i64::try_from(snapshot.name_time_ms).unwrap_or(i64::MAX)
}

/// A path as it stands in objects.
#[derive(Debug, Serialize)]
pub struct Path<'a> {
    path: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
}

impl<'a> From<&'a [u8]> for Path<'a> {
    fn from(path: &'a [u8]) -> Self {
        Self { path: String::from_utf8_lossy(path), path_hex: hex_unless_text(path) }
    }
}

fn hex_unless_text(bytes: &[u8]) -> Option<String> {
    str::from_utf8(bytes).is_err().then(|| hex::encode(bytes))
}

/// An entry of a tree, of `ls` and `find`.
#[derive(Debug, Serialize)]
pub struct Entry<'a> {
    #[serde(rename = "type")]
    object: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(flatten)]
    path: Path<'a>,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    major: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    minor: Option<u32>,
    mode: String,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    mtime: String,
}

impl<'a> Entry<'a> {
    /// An entry at a path.
    #[must_use]
    pub fn new(path: &'a [u8], entry: &'a TreeEntry) -> Self {
        let meta = &entry.meta;
        let (mut bytes, mut target, mut device) = (None, None, None);
        let kind = match &entry.node {
            Node::File(content) => {
                bytes = Some(content.bytes);
                "file"
            }
            Node::Directory(_) => "directory",
            Node::Symlink(to) => {
                target = Some(to.as_slice());
                "symlink"
            }
            Node::Fifo => "fifo",
            Node::Socket => "socket",
            Node::CharDevice { major, minor } => {
                device = Some((*major, *minor));
                "char_device"
            }
            Node::BlockDevice { major, minor } => {
                device = Some((*major, *minor));
                "block_device"
            }
        };
        let (major, minor) = device.unzip();
        Self {
            object: "entry",
            snapshot: None,
            time: None,
            path: path.into(),
            kind,
            bytes,
            target: target.map(String::from_utf8_lossy),
            target_hex: target.and_then(hex_unless_text),
            major,
            minor,
            mode: format!("{:04o}", meta.mode),
            uid: meta.uid,
            gid: meta.gid,
            user: meta.user.as_deref(),
            group: meta.group.as_deref(),
            mtime: format::rfc3339_nanoseconds(meta.mtime.seconds, meta.mtime.nanoseconds),
        }
    }

    /// The same, saying which snapshot it is in.
    #[must_use]
    pub fn in_snapshot(mut self, snapshot: &SnapshotInfo) -> Self {
        self.snapshot = Some(snapshot.id.to_hex());
        self.time = Some(format::rfc3339(time_ms(snapshot)));
        self
    }
}

/// A path that differs between two snapshots.
#[derive(Debug, Serialize)]
pub struct Difference<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    change: &'static str,
    #[serde(flatten)]
    path: Path<'a>,
}

impl<'a> Difference<'a> {
    /// What happened to a path, in one word.
    #[must_use]
    pub fn new(change: &'static str, path: &'a [u8]) -> Self {
        Self { kind: "difference", change, path: path.into() }
    }
}

/// Something damaged or missing.
#[derive(Debug, Serialize)]
pub struct Finding<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    code: &'a str,
    object: &'a str,
    message: &'a str,
}

impl<'a> From<&'a verify::Finding> for Finding<'a> {
    fn from(finding: &'a verify::Finding) -> Self {
        Self {
            kind: "finding",
            code: finding.code,
            object: &finding.object,
            message: &finding.message,
        }
    }
}

/// A path that damage touches.
#[derive(Debug, Serialize)]
pub struct Affected<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    snapshot: String,
    #[serde(flatten)]
    path: Path<'a>,
}

impl<'a> From<&'a verify::Affected> for Affected<'a> {
    fn from(place: &'a verify::Affected) -> Self {
        let path = place.path.as_slice().into();
        Self { kind: "affected", snapshot: place.snapshot.to_hex(), path }
    }
}

/// What happens to a snapshot, and why.
#[derive(Debug, Serialize)]
pub struct Retention<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    committed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    writer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    writer_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a [String]>,
    keep: bool,
    reasons: Vec<RetentionReason>,
}

impl<'a> Retention<'a> {
    /// A snapshot of a series.
    #[must_use]
    pub fn new(series: &'a Series, planned: &'a Planned) -> Self {
        let snapshot = &planned.snapshot;
        Self {
            kind: "retention",
            id: snapshot.id.to_hex(),
            time: Some(format::rfc3339(time_ms(snapshot))),
            committed: Some(format::rfc3339(snapshot.record.finished_ms)),
            job: Some(&series.job),
            writer: Some(snapshot.writer.to_hex()),
            writer_name: Some(&snapshot.writer_name),
            tags: Some(&snapshot.record.tags),
            keep: planned.verdict.keeps(),
            reasons: match &planned.verdict {
                Verdict::Keep(reasons) => reasons.iter().map(RetentionReason::from).collect(),
                Verdict::Go(cause) => {
                    let (code, message) = (cause.code().to_owned(), cause.to_string());
                    vec![RetentionReason { code, message, nth: None, period: None }]
                }
            },
        }
    }

    /// A snapshot of which nothing but the id is known, and why not; it goes because it was named.
    #[must_use]
    pub fn bare(id: SnapshotId, why: &str) -> Self {
        let (code, message) = ("named".to_owned(), why.to_owned());
        Self {
            kind: "retention",
            id: id.to_hex(),
            time: None,
            committed: None,
            job: None,
            writer: None,
            writer_name: None,
            tags: None,
            keep: false,
            reasons: vec![RetentionReason { code, message, nth: None, period: None }],
        }
    }
}

/// One reason for which a snapshot stays or goes.
#[derive(Debug, Serialize)]
pub struct RetentionReason {
    code: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    nth: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<String>,
}

impl From<&Reason> for RetentionReason {
    fn from(reason: &Reason) -> Self {
        let (nth, period) = match reason {
            Reason::Rule { nth, period, .. } => (*nth, period.clone()),
            Reason::Pinned | Reason::Newest | Reason::Unacknowledged | Reason::Doubtful(_) => {
                (None, None)
            }
        };
        Self { code: reason.code(), message: reason.to_string(), nth, period }
    }
}

/// A snapshot that was erased from.
#[derive(Debug, Serialize)]
pub struct Erased {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    fate: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    becomes: Option<String>,
    files: u64,
    directories: u64,
    others: u64,
    bytes: u64,
}

impl From<&erase::Erased> for Erased {
    fn from(erased: &erase::Erased) -> Self {
        let tally = &erased.tally;
        Self {
            kind: "erased",
            id: erased.id.to_hex(),
            fate: erased.fate.name(),
            becomes: erased.becomes.map(|id| id.to_hex()),
            files: tally.files,
            directories: tally.directories,
            others: tally.others,
            bytes: tally.bytes,
        }
    }
}

/// A receipt of deletion that holds.
#[derive(Debug, Serialize)]
pub struct Receipt<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    sequence: u64,
    time: String,
    signer: &'a str,
    replica: String,
    objects: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    audits: Vec<AuditOf>,
}

/// A look at the store after a deletion.
#[derive(Debug, Serialize)]
struct AuditOf {
    time: String,
    method: &'static str,
    result: &'static str,
}

impl<'a> From<&'a Link> for Receipt<'a> {
    fn from(link: &'a Link) -> Self {
        let audits = link.record.audits.iter().map(|audit| AuditOf {
            time: format::rfc3339(audit.time_ms),
            method: match audit.method {
                AuditMethod::ByName => "by-name",
                AuditMethod::ByListing => "by-listing",
                AuditMethod::ByVersionListing => "by-version-listing",
            },
            result: match audit.result {
                AuditResult::Gone => "gone",
                AuditResult::StillThere => "still-there",
                AuditResult::Unknown => "unknown",
            },
        });
        Self {
            kind: "receipt",
            name: link.name.to_string(),
            sequence: link.record.sequence,
            time: format::rfc3339(link.record.time_ms),
            signer: &link.signer,
            replica: link.record.replica.to_hex(),
            objects: link.objects,
            note: link.record.note.as_deref(),
            audits: audits.collect(),
        }
    }
}

/// Something that expired and may still be stored.
#[derive(Debug, Serialize)]
pub struct Pending {
    #[serde(rename = "type")]
    kind: &'static str,
    reason: &'static str,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    overdue: bool,
    hint: &'static str,
}

impl From<&erasure::Pending> for Pending {
    fn from(pending: &erasure::Pending) -> Self {
        Self {
            kind: "pending",
            reason: pending.reason.name(),
            count: pending.count,
            bytes: pending.bytes,
            since: pending.since_ms.map(format::rfc3339),
            until: pending.until_ms.map(format::rfc3339),
            overdue: pending.overdue,
            hint: pending.reason.hint(),
        }
    }
}

/// An imagined backup that the rules would still keep.
#[derive(Debug, Serialize)]
pub struct SimulatedBackup {
    #[serde(rename = "type")]
    kind: &'static str,
    time: String,
    reasons: Vec<RetentionReason>,
}

impl From<&Simulated> for SimulatedBackup {
    fn from(simulated: &Simulated) -> Self {
        Self {
            kind: "simulated",
            time: format::rfc3339(simulated.time_ms),
            reasons: simulated.reasons.iter().map(RetentionReason::from).collect(),
        }
    }
}

/// A key slot; what is not readable of a damaged one is missing.
#[derive(Debug, Serialize)]
pub struct Key<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    damaged: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
}

impl<'a> From<&'a SlotInfo> for Key<'a> {
    fn from(slot: &'a SlotInfo) -> Self {
        let head = slot.head.as_ref();
        Self {
            kind: "key",
            id: slot.id.to_hex(),
            damaged: head.is_none(),
            role: head.map(|head| head.role.name()),
            method: head.map(|head| head.method.name()),
            label: head.map(|head| head.label.as_str()),
            created: head.map(|head| format::rfc3339(head.created_ms)),
        }
    }
}

/// The local cache of one copy of a repository.
#[derive(Debug, Serialize)]
pub struct Cache {
    #[serde(rename = "type")]
    kind: &'static str,
    repository: String,
    copy: Option<String>,
    bytes: u64,
}

impl Cache {
    /// A cache of that size.
    #[must_use]
    pub fn new(copy: CopyId, bytes: u64) -> Self {
        let CopyId { repository, replica } = copy;
        let copy = replica.map(|replica| replica.to_hex());
        Self { kind: "cache", repository: repository.to_hex(), copy, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_keep_bytes_that_are_not_text() {
        let odd = serde_json::to_value(Difference::new("added", b"a\xff")).unwrap();
        assert_eq!(odd["path"], "a\u{fffd}");
        assert_eq!(odd["path_hex"], "61ff");
        let plain = serde_json::to_string(&Difference::new("added", b"a")).unwrap();
        assert_eq!(plain, r#"{"type":"difference","change":"added","path":"a"}"#);
    }
}
