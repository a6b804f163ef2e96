//! `cairn lock …`

use cairn_engine::ops::lock::{self, LockOptions, LockReport};
use cairn_engine::store::lock::LockMode;
use serde_json::json;

use super::{App, Finished, forget};
use crate::arguments::{Lock, LockArguments, Mode, Within};
use crate::exit_code::ExitCode;
use crate::session::{self, Show};
use crate::ui::errors::{CliError, Failure};
use crate::ui::format;

/// Of a window, the part below which an alarm is due unless told otherwise: what is left when an
/// extension that is due every quarter has failed twice.
const WARN_PARTS: u64 = 4;
/// Objects that are named for people.
const NAMED: usize = 10;

pub(super) fn run(app: &App, command: &Lock) -> Result<Finished, Failure> {
    let (arguments, mode, extend) = match command {
        Lock::Extend(extend) => (&extend.which, extend.mode, !extend.dry_run),
        Lock::Status(status) => (&status.which, Mode::Compliance, false),
    };
    let options = options(arguments, mode)?;
    let session = session::open(app, Show::Progress)?;
    let report = if extend {
        lock::extend(&session.repository, &options)?
    } else {
        lock::status(&session.repository, &options)?
    };
    drop(session.shown);
    show(app, &report, extend)
}

fn options(arguments: &LockArguments, mode: Mode) -> Result<LockOptions, Failure> {
    let usage = |problem: &str, hint| CliError::Usage { problem: problem.to_owned(), hint };
    let within_ms = match arguments.erase_within {
        Within::Never => None,
        Within::Milliseconds(within_ms) => Some(within_ms),
    };
    let window_ms = match (arguments.window, within_ms) {
        (Some(Within::Milliseconds(window_ms)), _) => window_ms,
        (Some(Within::Never), _) => {
            return Err(usage("--for never is no time", "say how far ahead locks reach").into());
        }
        (None, Some(within_ms)) => within_ms,
        (None, None) => {
            return Err(usage("--for is missing", "say how far ahead locks reach").into());
        }
    };
    if within_ms.is_some_and(|within_ms| window_ms > within_ms) {
        return Err(usage(
            "locks would outlast what --erase-within promises",
            "shorten --for, or say with --erase-within that what expired may stay for so long",
        )
        .into());
    }
    let warn_ms = match arguments.warn_below {
        Some(Within::Milliseconds(warn_ms)) => warn_ms,
        Some(Within::Never) => 0,
        None => window_ms / WARN_PARTS,
    };
    let rules = forget::rules(&arguments.keep)?;
    let mode = match mode {
        Mode::Compliance => LockMode::Compliance,
        Mode::Governance => LockMode::Governance,
    };
    Ok(LockOptions { window_ms, warn_ms, mode, rules, job: arguments.job.clone() })
}

fn show(app: &App, report: &LockReport, extend: bool) -> Result<Finished, Failure> {
    let objects = format::plural(report.objects, "object", "objects");
    let snapshots = format::plural(report.snapshots, "snapshot", "snapshots");
    let were = if extend { "extended" } else { "due to be extended" };
    app.printer.summary(&format!(
        "locks: {objects} of {snapshots}, {} {were}, {} not locked before",
        format::count(report.extended),
        format::count(report.unlocked),
    ))?;
    for name in report.lapsing_names.iter().take(NAMED) {
        app.printer.note(&format!("lapsing: {name}"));
    }
    for name in report.absent_names.iter().take(NAMED) {
        app.printer.note(&format!("not there: {name}"));
    }
    let mut finished = Finished::with(json!({
        "dry_run": !extend,
        "snapshots": report.snapshots,
        "objects": report.objects,
        "unlocked": report.unlocked,
        "extended": report.extended,
        "earliest": report.earliest_ms.filter(|earliest_ms| *earliest_ms > i64::MIN).map(format::rfc3339),
        "lapsing": report.lapsing,
        "lapsing_names":
            report.lapsing_names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "absent": report.absent,
        "absent_names": report.absent_names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "withheld": report.withheld.iter().map(|one| one.subject.clone()).collect::<Vec<_>>(),
    }));
    // First: of reasons that are as grave the first stays.
    if report.absent > 0 || !report.withheld.is_empty() {
        let what = format::plural(report.absent, "object is needed and", "objects are needed and");
        let withheld = report.withheld.len() as u64;
        let lost = format::plural(withheld, "snapshot is missing", "snapshots are missing");
        let fact = format!(
            "{what} not there, {lost} or incomplete, and nobody removed them as cairn does; their locks run \
             out: delete the marks of deletion at the storage, which show what is still locked below, \
             change the credentials that set them, and run `cairn verify`"
        );
        finished = finished.but(ExitCode::Stale, "lock.absent", fact);
    }
    if report.lapsing > 0 {
        let what = format::plural(report.lapsing, "object is needed and", "objects are needed and");
        let fact = format!("{what} not locked, or not for long: run `cairn lock extend`");
        finished = finished.but(ExitCode::Stale, "lock.lapsing", fact);
    }
    Ok(finished)
}
