//! `cairn restore`

use cairn_engine::ops::restore::{self, RestoreOptions, RestoreReport};
use serde_json::json;

use super::{App, Finished};
use crate::arguments::Restore;
use crate::exit_code::ExitCode;
use crate::session::{self, Show};
use crate::ui::errors::Failure;
use crate::ui::format;

pub(super) fn run(app: &App, arguments: &Restore) -> Result<Finished, Failure> {
    let session = session::open(app, Show::Progress)?;
    let (snapshot, path) = session::select_path(&session, &arguments.source)?;
    let id = snapshot.id;
    let options = RestoreOptions {
        snapshot,
        path,
        target: arguments.target.clone(),
        delta: arguments.delta,
        overwrite: arguments.overwrite,
        keep_going: arguments.keep_going,
        devices: arguments.devices,
        numeric_owner: arguments.numeric_owner,
    };
    if arguments.dry_run {
        let plan = restore::plan(&session.repository, &options)?;
        drop(session.shown);
        app.printer.summary(&format!(
            "restore {} into {}: would write {} in {}",
            id.short(),
            options.target.display(),
            format::bytes(plan.bytes_total),
            format::plural(plan.files, "file", "files"),
        ))?;
        return Ok(Finished::with(json!({
            "snapshot": id.to_hex(),
            "dry_run": true,
            "files": plan.files,
            "directories": plan.directories,
            "others": plan.others,
            "bytes_total": plan.bytes_total,
        })));
    }
    let report = restore::run(&session.repository, &options)?;
    drop(session.shown);
    app.printer.summary(&format!(
        "restored {} into {}: {}, {} written, {} kept, {}",
        id.short(),
        format::name(options.target.as_os_str().as_encoded_bytes()),
        format::plural(report.files, "file", "files"),
        format::bytes(report.bytes_written),
        format::bytes(report.bytes_kept),
        format::duration(report.elapsed_ms),
    ))?;
    Ok(finished(&id.to_hex(), &report))
}

fn finished(snapshot: &str, report: &RestoreReport) -> Finished {
    let mut finished = Finished::with(json!({
        "snapshot": snapshot,
        "dry_run": false,
        "files": report.files,
        "directories": report.directories,
        "others": report.others,
        "bytes_total": report.bytes_total,
        "bytes_written": report.bytes_written,
        "bytes_kept": report.bytes_kept,
        "bytes_holes": report.holes,
        "failures": report.failure_count,
        "damaged": report.damaged_count,
        "elapsed_ms": report.elapsed_ms,
    }));
    if report.failure_count > 0 {
        let what = format::plural(report.failure_count, "entry", "entries");
        let fact = format!("{what} could not be restored as they were");
        finished = finished.but(ExitCode::Failed, "restore.incomplete", fact);
    }
    if report.damaged_count > 0 {
        let what = format::plural(report.damaged_count, "file", "files");
        let fact = format!("{what} could not be restored, because the repository is damaged");
        finished = finished.but(ExitCode::Damage, "repository.damaged", fact);
    }
    finished
}
