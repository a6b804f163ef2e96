//! The objects of `--json`, one a line. Their schemas are published in `cli/schema/` and tested
//! against what the program prints. Names stay; new fields may be added.
//!
//! Sizes are bytes, times RFC 3339 in UTC. A path is text; if its bytes are not UTF-8, the text
//! has replacement characters, and the field with the suffix `_hex` has the bytes.

use cairn_engine::context::Remark;
use cairn_format::hex;
use cairn_format::record;
use cairn_format::tree::{Entry as TreeEntry, Node};
use serde::Serialize;
use serde_json::{Map, Value};

use super::errors::Failure;
use super::format;
use crate::exit_code::ExitCode;

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
        Self { kind: "result", v: VERSION, command, exit_code, code, message, hint: None, report }
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
        }
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

/// A time and a count of a snapshot's record, as its fields.
pub struct SnapshotFields<'a> {
    /// Id in hexadecimal.
    pub id: String,
    /// The time that its name has, milliseconds since 1970.
    pub time_ms: i64,
    /// The record.
    pub record: &'a record::Snapshot,
    /// Id of the key that signed it.
    pub writer: String,
    /// Name of that key.
    pub writer_name: &'a str,
    /// Whether it was proven complete after it became visible.
    pub acknowledged: bool,
}

/// A snapshot.
#[must_use]
pub fn snapshot(fields: &SnapshotFields<'_>) -> Value {
    let record = fields.record;
    let statistics = &record.statistics;
    let mut object = object("snapshot");
    object.insert("id".into(), fields.id.as_str().into());
    object.insert("time".into(), format::rfc3339(fields.time_ms).into());
    object.insert("started".into(), format::rfc3339(record.started_ms).into());
    object.insert("finished".into(), format::rfc3339(record.finished_ms).into());
    object.insert("job".into(), record.job.as_str().into());
    object.insert("host".into(), record.host.as_str().into());
    object.insert("user".into(), record.user.as_str().into());
    object.insert("tags".into(), record.tags.clone().into());
    insert_paths(&mut object, "paths", &record.paths);
    object.insert("files".into(), statistics.files.into());
    object.insert("directories".into(), statistics.directories.into());
    object.insert("others".into(), statistics.others.into());
    object.insert("unread".into(), statistics.unread.into());
    object.insert("bytes_total".into(), statistics.bytes_total.into());
    object.insert("bytes_read".into(), statistics.bytes_read.into());
    object.insert("bytes_new".into(), statistics.bytes_new.into());
    object.insert("bytes_stored".into(), statistics.bytes_stored.into());
    let parents: Vec<String> = record.parents.iter().map(|id| id.to_hex()).collect();
    object.insert("parents".into(), parents.into());
    object.insert("sequence".into(), record.sequence.into());
    object.insert("writer".into(), fields.writer.as_str().into());
    object.insert("writer_name".into(), fields.writer_name.into());
    object.insert("acknowledged".into(), fields.acknowledged.into());
    object.insert("program".into(), record.program.as_str().into());
    Value::Object(object)
}

/// An entry of a tree, of `ls` and `find`.
#[must_use]
pub fn entry(path: &[u8], entry: &TreeEntry) -> Map<String, Value> {
    let mut object = object("entry");
    insert_path(&mut object, "path", path);
    object.insert("kind".into(), kind(&entry.node).into());
    match &entry.node {
        Node::File(content) => {
            object.insert("bytes".into(), content.bytes.into());
        }
        Node::Symlink(target) => insert_path(&mut object, "target", target),
        Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
            object.insert("major".into(), (*major).into());
            object.insert("minor".into(), (*minor).into());
        }
        Node::Directory(_) | Node::Fifo | Node::Socket => {}
    }
    let meta = &entry.meta;
    object.insert("mode".into(), format!("{:04o}", meta.mode).into());
    object.insert("uid".into(), meta.uid.into());
    object.insert("gid".into(), meta.gid.into());
    if let Some(user) = &meta.user {
        object.insert("user".into(), user.as_str().into());
    }
    if let Some(group) = &meta.group {
        object.insert("group".into(), group.as_str().into());
    }
    let mtime = format::rfc3339_nanoseconds(meta.mtime.seconds, meta.mtime.nanoseconds);
    object.insert("mtime".into(), mtime.into());
    object
}

/// The word for what an entry is.
#[must_use]
pub fn kind(node: &Node) -> &'static str {
    match node {
        Node::File(_) => "file",
        Node::Directory(_) => "directory",
        Node::Symlink(_) => "symlink",
        Node::Fifo => "fifo",
        Node::Socket => "socket",
        Node::CharDevice { .. } => "char_device",
        Node::BlockDevice { .. } => "block_device",
    }
}

/// An object of a type, to be filled.
#[must_use]
pub fn object(kind: &str) -> Map<String, Value> {
    Map::from_iter([("type".to_owned(), Value::from(kind))])
}

/// Adds a path, and its bytes if they are not UTF-8.
pub fn insert_path(object: &mut Map<String, Value>, name: &str, path: &[u8]) {
    object.insert(name.to_owned(), String::from_utf8_lossy(path).into());
    if str::from_utf8(path).is_err() {
        object.insert(format!("{name}_hex"), hex::encode(path).into());
    }
}

fn insert_paths(object: &mut Map<String, Value>, name: &str, paths: &[Vec<u8>]) {
    let lossy: Vec<String> =
        paths.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    object.insert(name.to_owned(), lossy.into());
    if paths.iter().any(|path| str::from_utf8(path).is_err()) {
        let bytes: Vec<String> = paths.iter().map(|path| hex::encode(path)).collect();
        object.insert(format!("{name}_hex"), bytes.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_keep_bytes_that_are_not_text() {
        let mut object = object("entry");
        insert_path(&mut object, "path", b"a\xff");
        assert_eq!(object["path"], "a\u{fffd}");
        assert_eq!(object["path_hex"], "61ff");
        insert_path(&mut object, "target", b"plain");
        assert!(!object.contains_key("target_hex"));
    }
}
