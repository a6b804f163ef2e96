//! `cairn restore`

use cairn_engine::ops::restore::{self, RestoreOptions, RestoreReport};
use cairn_engine::repo::{Fallback, Repository};
use serde_json::json;

use super::{App, Finished};
use crate::arguments::Restore;
use crate::exit_code::ExitCode;
use crate::session::{self, Show};
use crate::ui::errors::Failure;
use crate::ui::{format, timings};

pub(super) fn run(app: &App, arguments: &Restore) -> Result<Finished, Failure> {
    let mut session = session::open(app, Show::progress(arguments.timings))?;
    for url in &arguments.fallback {
        session::add_fallback(app, &mut session, url)?;
    }
    let (snapshot, path) = session::select_path(&session, &arguments.source)?;
    let id = snapshot.id;
    let mut options = RestoreOptions::new(snapshot, arguments.target.clone());
    options.path = path;
    options.delta = arguments.delta;
    options.overwrite = arguments.overwrite;
    options.keep_going = arguments.keep_going;
    options.devices |= arguments.devices;
    options.numeric_owner = arguments.numeric_owner;
    let target = format::name(arguments.target.as_os_str().as_encoded_bytes());
    if arguments.dry_run {
        let plan = restore::plan(&session.repository, &options)?;
        drop(session.shown);
        app.printer.summary(&format!(
            "restore {} into {target} (dry run): {} in {} and {}",
            id.short(),
            format::bytes(plan.bytes_total),
            format::plural(plan.files, "file", "files"),
            format::plural(plan.directories, "directory", "directories"),
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
    timings::show(&app.printer, &session.repository.context.timings)?;
    // The clock may have been set back meanwhile.
    let elapsed_ms = report.elapsed_ms.max(0).cast_unsigned();
    app.printer.summary(&format!(
        "restored {} into {target}: {}, {} written, {} kept, {}",
        id.short(),
        format::plural(report.files, "file", "files"),
        format::bytes(report.bytes_written),
        format::bytes(report.bytes_kept),
        format::duration(elapsed_ms),
    ))?;
    if report.resumed {
        app.printer.note("an interrupted restore was continued");
    }
    let elsewhere = note_elsewhere(app, &session.repository);
    Ok(finished(&id.to_hex(), &report, elsewhere, elapsed_ms))
}

/// Says how many chunks came from other copies; returns it.
pub(super) fn note_elsewhere(app: &App, repository: &Repository) -> u64 {
    let elsewhere = repository.fallbacks().iter().map(Fallback::chunks).sum();
    if elsewhere > 0 {
        app.printer.note(&format!(
            "{} that are damaged or missing here came from another copy: `cairn repair --from` heals them",
            format::plural(elsewhere, "chunk", "chunks")
        ));
    }
    elsewhere
}

fn finished(snapshot: &str, report: &RestoreReport, elsewhere: u64, elapsed_ms: u64) -> Finished {
    let mut finished = Finished::with(json!({
        "snapshot": snapshot,
        "dry_run": false,
        "files": report.files,
        "directories": report.directories,
        "others": report.others,
        "bytes_total": report.bytes_total,
        "bytes_written": report.bytes_written,
        "bytes_kept": report.bytes_kept,
        "files_kept": report.files_kept,
        "resumed": report.resumed,
        "chunks_elsewhere": elsewhere,
        "failures": report.failure_count,
        "damaged": report.damage_count,
        "elapsed_ms": elapsed_ms,
    }));
    if report.failure_count > 0 {
        let what = format::plural(report.failure_count, "entry", "entries");
        let fact = format!("{what} could not be restored as they were");
        finished = finished.but(ExitCode::Failed, "restore.incomplete", fact);
    }
    if report.damage_count > 0 {
        let what = format::plural(report.damage_count, "entry is", "entries are");
        let fact = format!("{what} missing or incomplete, because the repository is damaged");
        finished = finished.but(ExitCode::Damage, "repository.damaged", fact);
    }
    finished
}
