//! `cairn ls`

use cairn_engine::ops::ls;
use cairn_format::tree::{Entry, Node};
use serde_json::json;

use super::{App, Finished};
use crate::arguments::Ls;
use crate::session::{self, Show};
use crate::ui::errors::Failure;
use crate::ui::{format, json as objects};

pub(super) fn run(app: &App, arguments: &Ls) -> Result<Finished, Failure> {
    let session = session::open(app, Show::Nothing)?;
    let (snapshot, path) = session::select_path(&session, &arguments.snapshot)?;
    let mut entries: u64 = 0;
    ls::run(
        &session.repository,
        &snapshot,
        path.as_deref().unwrap_or(b"/"),
        arguments.recursive,
        &mut |path, entry| {
            entries += 1;
            app.printer.event(&objects::Entry::new(path, entry))?;
            let line = if arguments.long { long(path, entry) } else { short(path, entry) };
            Ok(app.printer.line(&line)?)
        },
    )?;
    Ok(Finished::with(json!({ "snapshot": snapshot.id.to_hex(), "entries": entries })))
}

/// The path, with a slash if it is a directory.
pub(super) fn short(path: &[u8], entry: &Entry) -> String {
    let mut line = format::name(path);
    if matches!(entry.node, Node::Directory(_)) && !line.ends_with('/') {
        line.push('/');
    }
    line
}

fn long(path: &[u8], entry: &Entry) -> String {
    let meta = &entry.meta;
    let owner = |name: &Option<String>, number: u32| match name {
        Some(name) => format::name(name.as_bytes()),
        None => number.to_string(),
    };
    let size = match &entry.node {
        Node::File(content) => format::bytes(content.bytes),
        Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
            format!("{major}, {minor}")
        }
        Node::Directory(_) | Node::Symlink(_) | Node::Fifo | Node::Socket => String::new(),
    };
    let milliseconds = meta
        .mtime
        .seconds
        .saturating_mul(1000)
        .saturating_add(i64::from(meta.mtime.nanoseconds / 1_000_000));
    let mut line = format!(
        "{} {:<8} {:<8} {size:>10} {} {}",
        format::mode(&entry.node, meta.mode),
        owner(&meta.user, meta.uid),
        owner(&meta.group, meta.gid),
        format::local_time(milliseconds),
        short(path, entry),
    );
    if let Node::Symlink(target) = &entry.node {
        line.push_str(" -> ");
        line.push_str(&format::name(target));
    }
    line
}
