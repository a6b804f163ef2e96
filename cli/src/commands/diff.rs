//! `cairn diff`

use cairn_engine::ops::diff::{self, Difference};
use serde_json::json;

use super::{App, Finished};
use crate::arguments::Diff;
use crate::session::{self, Show};
use crate::ui::errors::Failure;
use crate::ui::{format, json as objects};

pub(super) fn run(app: &App, arguments: &Diff) -> Result<Finished, Failure> {
    let session = session::open(app, Show::Nothing)?;
    let (old, old_path) = session::select_path(&session, &arguments.old)?;
    let (new, new_path) = session::select_path(&session, &arguments.new)?;
    let path = new_path.or(old_path);
    let each = &mut |difference: &Difference| {
        let (word, sign, path) = describe(difference);
        app.printer.event(&objects::Difference::new(word, path))?;
        Ok(app.printer.line(&format!("{sign} {}", format::name(path)))?)
    };
    let summary = diff::run(&session.repository, &old, &new, path.as_deref(), each)?;
    app.printer.note(&format!(
        "{} added ({}), {} removed ({}), {} changed, {} with other metadata only",
        format::count(summary.added),
        format::bytes(summary.bytes_added),
        format::count(summary.removed),
        format::bytes(summary.bytes_removed),
        format::count(summary.changed),
        format::count(summary.metadata),
    ));
    Ok(Finished::with(json!({
        "old": old.id.to_hex(),
        "new": new.id.to_hex(),
        "added": summary.added,
        "removed": summary.removed,
        "changed": summary.changed,
        "metadata": summary.metadata,
        "bytes_added": summary.bytes_added,
        "bytes_removed": summary.bytes_removed,
    })))
}

/// The word for programs, the sign for people, and the path.
fn describe(difference: &Difference) -> (&'static str, char, &[u8]) {
    match difference {
        Difference::Added { path, .. } => ("added", '+', path),
        Difference::Removed { path, .. } => ("removed", '-', path),
        Difference::Changed { path, kind: true, .. } => ("kind", 'T', path),
        Difference::Changed { path, content: true, .. } => ("content", 'M', path),
        Difference::Changed { path, .. } => ("metadata", 'm', path),
    }
}
