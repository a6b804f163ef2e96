//! `cairn find`

use cairn_engine::ops::find::{self, FindOptions};
use serde_json::json;

use super::ls::short;
use super::snapshots::time_ms;
use super::{App, Finished};
use crate::arguments::Find;
use crate::session::{self, Show};
use crate::ui::errors::Failure;
use crate::ui::{format, json as objects};

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
        let mut object = objects::entry(path, entry);
        object.insert("snapshot".into(), snapshot.id.to_hex().into());
        object.insert("time".into(), format::rfc3339(time_ms(snapshot)).into());
        app.printer.event(&object)?;
        Ok(app.printer.line(&format!("{}:{}", snapshot.id.short(), short(path, entry)))?)
    })?;
    Ok(Finished::with(json!({ "entries": entries })))
}
