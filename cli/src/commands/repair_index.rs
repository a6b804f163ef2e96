//! `cairn repair index`

use cairn_engine::ops::repair_index;
use serde_json::json;

use super::{App, Finished};
use crate::arguments::RepairIndex;
use crate::exit_code::ExitCode;
use crate::session::{self, Show};
use crate::ui::errors::Failure;
use crate::ui::format;

pub(super) fn run(app: &App, arguments: &RepairIndex) -> Result<Finished, Failure> {
    let session = session::open(app, Show::Progress)?;
    let report = repair_index::run(&session.repository, arguments.dry_run)?;
    drop(session.shown);
    app.printer.summary(&format!(
        "index{}: {} added, {} written, {} removed",
        if arguments.dry_run { " (dry run)" } else { "" },
        format::plural(report.packs_added, "pack", "packs"),
        format::plural(report.segments_written, "segment", "segments"),
        format::count(report.segments_removed),
    ))?;
    let unreadable = report.unreadable.len() as u64;
    let finished = Finished::with(json!({
        "dry_run": arguments.dry_run,
        "packs_added": report.packs_added,
        "segments_written": report.segments_written,
        "segments_removed": report.segments_removed,
        "unreadable": unreadable,
    }));
    if unreadable == 0 {
        return Ok(finished);
    }
    let what = format::plural(unreadable, "pack", "packs");
    let fact = format!("{what} could not be read, so that the index does not list what they hold");
    Ok(finished.but(ExitCode::Damage, "repository.damaged", fact))
}
