//! `cairn gc`

use std::io;

use cairn_engine::context::{Clock as _, SystemClock};
use cairn_engine::ops::gc::{self, GcOptions, GcPlan, GcReport};
use serde_json::json;

use super::{App, Finished};
use crate::arguments::{Gc, Within};
use crate::exit_code::ExitCode;
use crate::session::{self, Show};
use crate::settings;
use crate::ui::errors::Failure;
use crate::ui::format;

/// How nice a collection is to other processes of this machine, as `nice` counts: it has time, and a
/// backup beside it does not.
const NICENESS: i32 = 10;

/// Gives way to other processes; a process that is nicer already stays so. Threads that begin later do
/// the same.
fn give_way() -> io::Result<()> {
    let nicer = rustix::process::getpriority_process(None)?.max(NICENESS);
    Ok(rustix::process::setpriority_process(None, nicer)?)
}

pub(super) fn run(app: &App, arguments: &Gc) -> Result<Finished, Failure> {
    if let Err(error) = give_way() {
        app.printer.note(&format!("other processes are not given way to: {error}"));
    }
    let within = settings::erase_within(arguments.erase_within, &app.global, &app.environment)?;
    let session = session::open(app, Show::Progress)?;
    let options = GcOptions {
        max_dead_percent: arguments.max_dead,
        erase_within_ms: match within {
            Within::Never => None,
            Within::Milliseconds(within_ms) => Some(within_ms),
        },
        max_delete_percent: arguments.max_delete,
        honour_leases: !arguments.ignore_leases,
        full_mark: arguments.full_mark,
        ..GcOptions::default()
    };
    // Before anything changes: what cannot be deleted in time is better not promised.
    super::target::try_lock(session.repository.store(), within)?;
    let report = if arguments.dry_run {
        GcReport { plan: gc::plan(&session.repository, &options)?, ..GcReport::default() }
    } else {
        gc::run(&session.repository, &options)?
    };
    drop(session.shown);
    show(app, &report, within, arguments.dry_run)
}

fn show(app: &App, report: &GcReport, within: Within, dry_run: bool) -> Result<Finished, Failure> {
    let plan = &report.plan;
    if dry_run {
        app.printer.summary(&format!(
            "gc (dry run): {} of {} would go, {} would be written anew: about {} freed, {} copied",
            format::plural(plan.packs_dead + plan.packs_condemned, "pack", "packs"),
            format::count(plan.packs_total + plan.packs_condemned),
            format::plural(plan.packs_repacked, "pack", "packs"),
            format::bytes(plan.bytes_freed),
            format::bytes(plan.bytes_copied),
        ))?;
    } else {
        app.printer.summary(&format!(
            "gc: {} deleted ({}), {} written ({}), {}",
            format::plural(report.packs_deleted, "pack", "packs"),
            format::bytes(report.bytes_deleted),
            format::plural(report.packs_written, "pack", "packs"),
            format::bytes(report.bytes_written),
            format::plural(report.receipts.len() as u64, "receipt", "receipts"),
        ))?;
    }
    notes(app, plan);
    if plan.erases && !dry_run && !report.cache_clean {
        app.printer.note(
            "The cache of this host is in use and still names what is gone: the next `cairn gc \
             --max-dead 0`, or `cairn cache clear`, ends that.",
        );
    }
    if let Some(until_ms) = report.versions_locked_until_ms {
        app.printer.note(&format!(
            "versions of {} that were deleted are locked until {} at the latest: a collection after that deletes them for good",
            format::plural(report.versions_kept.len() as u64, "object", "objects"),
            format::local_time(until_ms),
        ));
    }
    Ok(finish(report, dry_run, latest_ms(within)))
}

/// Until when what expires now may stay, milliseconds since 1970.
pub(super) fn latest_ms(within: Within) -> i64 {
    match within {
        Within::Never => i64::MAX,
        Within::Milliseconds(within_ms) => SystemClock.now_ms().saturating_add_unsigned(within_ms),
    }
}

fn notes(app: &App, plan: &GcPlan) {
    if plan.erases {
        app.printer.note("erased: of what expired nothing is meant to stay");
    } else if plan.bytes_left + plan.bytes_held > 0 {
        app.printer.note(&format!(
            "{} that no snapshot needs stay until they are due: {} beside what is needed, {} because other data is stored against them",
            format::bytes(plan.bytes_left + plan.bytes_held),
            format::bytes(plan.bytes_left),
            format::bytes(plan.bytes_held),
        ));
    }
    if plan.packs_spared > 0 {
        app.printer.note(&format!(
            "{} of sessions at work were spared",
            format::plural(plan.packs_spared, "pack", "packs")
        ));
    }
    if plan.unacknowledged > 0 {
        app.printer.note(&format!(
            "{} not acknowledged, and kept: what they need is not collected",
            format::plural(plan.unacknowledged, "snapshot is", "snapshots are")
        ));
    }
}

fn finish(report: &GcReport, dry_run: bool, latest_ms: i64) -> Finished {
    let plan = &report.plan;
    let names = |names: &[cairn_format::names::ObjectName]| {
        names.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let finished = Finished::with(json!({
        "dry_run": dry_run,
        "snapshots": plan.snapshots,
        "unacknowledged": plan.unacknowledged,
        "packs_total": plan.packs_total,
        "bytes_total": plan.bytes_total,
        "packs_dead": plan.packs_dead,
        "packs_repacked": plan.packs_repacked,
        "packs_condemned": plan.packs_condemned,
        "packs_spared": plan.packs_spared,
        "bytes_freed": plan.bytes_freed,
        "bytes_copied": plan.bytes_copied,
        "bytes_left": plan.bytes_left,
        "bytes_held": plan.bytes_held,
        "erases": plan.erases,
        "dead_since_ms": plan.dead_since_ms,
        "packs_deleted": report.packs_deleted,
        "bytes_deleted": report.bytes_deleted,
        "packs_written": report.packs_written,
        "bytes_written": report.bytes_written,
        "chunks_rescued": report.chunks_rescued,
        "chunks_rebased": report.chunks_rebased,
        "segments_written": report.segments_written,
        "segments_removed": report.segments_removed,
        "receipts": names(&report.receipts),
        "still_there": names(&report.still_there),
        "versions_kept": names(&report.versions_kept),
        "versions_locked_until_ms": report.versions_locked_until_ms,
        "confirmed": report.confirmed,
        "reappeared": names(&report.reappeared),
        "damaged": report.damaged.len(),
        "cache_clean": report.cache_clean,
        "elapsed_ms": report.elapsed_ms.max(0),
    }));
    match verdict(report, latest_ms) {
        Some((exit, code, fact)) => finished.but(exit, code, fact),
        None => finished,
    }
}

/// Why not everything is gone that was to go, if that is so; until `latest_ms` it may stay locked.
pub(super) fn verdict(
    report: &GcReport,
    latest_ms: i64,
) -> Option<(ExitCode, &'static str, String)> {
    if !report.damaged.is_empty() {
        let what = format::plural(report.damaged.len() as u64, "pack", "packs");
        let fact = format!("{what} could not be copied because of damage, and stay as they are");
        return Some((ExitCode::Damage, "repository.damaged", fact));
    }
    // What locks keep for as long as they may is what they are for.
    match report.versions_locked_until_ms {
        Some(until_ms) if until_ms > latest_ms => {
            let until = format::local_time(until_ms);
            let fact = format!(
                "what is deleted stays locked until {until}, longer than `--erase-within` allows; \
                 `cairn lock extend --for` sets shorter locks from now on"
            );
            return Some((ExitCode::Stale, "gc.locked", fact));
        }
        Some(_) => return still_there(report),
        None => {}
    }
    if !report.versions_kept.is_empty() {
        let what = format::plural(report.versions_kept.len() as u64, "object", "objects");
        let fact = format!(
            "the store keeps versions of {what} that were deleted, and refuses to delete them; no \
             lock is known that keeps them: give the credentials the right to delete versions, and \
             to see until when they are locked"
        );
        return Some((ExitCode::Failed, "gc.versions", fact));
    }
    still_there(report)
}

/// Says what the store did not delete that said it had.
fn still_there(report: &GcReport) -> Option<(ExitCode, &'static str, String)> {
    if report.still_there.is_empty() {
        return None;
    }
    let what = format::plural(report.still_there.len() as u64, "object", "objects");
    let fact = format!("the store said that it deleted {what}, and still has what it deleted");
    Some((ExitCode::Failed, "gc.still_there", fact))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_gives_way_and_what_is_nicer_stays_so() {
        // What is said of a thread holds for it and those it begins.
        let of = |nice: i32| {
            std::thread::spawn(move || -> io::Result<i32> {
                rustix::process::setpriority_process(None, nice)?;
                give_way()?;
                let begun = std::thread::spawn(|| rustix::process::getpriority_process(None));
                Ok(begun.join().expect("it ends")?)
            })
        };
        assert_eq!(of(0).join().expect("it ends").expect("it may"), NICENESS);
        assert_eq!(of(NICENESS + 5).join().expect("it ends").expect("it may"), NICENESS + 5);
    }
}
