//! `cairn find`

use cairn_engine::ops::find::{self, FindOptions};
use serde_json::json;

use super::ls::short;
use super::{App, Finished};
use crate::arguments::Find;
use crate::session::{self, Show};
use crate::ui::errors::Failure;
use crate::ui::json as objects;

pub(super) fn run(app: &App, arguments: &Find) -> Result<Finished, Failure> {
    let session = session::open(app, Show::Nothing)?;
    let options = FindOptions {
        patterns: arguments.patterns.clone(),
        job: arguments.job.clone(),
        snapshot: arguments.snapshot.clone(),
    };
    let mut entries: u64 = 0;
    find::run(&session.repository, &options, &mut |snapshot, path, entry| {
        entries += 1;
        app.printer.event(&objects::Entry::new(path, entry).in_snapshot(snapshot))?;
        Ok(app.printer.line(&format!("{}:{}", snapshot.id.short(), short(path, entry)))?)
    })?;
    Ok(Finished::with(json!({ "entries": entries })))
}
