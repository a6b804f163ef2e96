//! `cairn erase`

use std::os::unix::ffi::OsStrExt as _;

use cairn_engine::error::Explain as _;
use cairn_engine::ops::erase::{
    self, EraseOptions, ErasePlan, EraseReport, Erased, Fate, Planned, Tally,
};
use serde_json::{Value, json};

use super::ls::short;
use super::{App, Finished};
use crate::arguments::Erase;
use crate::exit_code::ExitCode;
use crate::session::{self, Show};
use crate::ui::errors::Failure;
use crate::ui::table::{Align, Table};
use crate::ui::{format, json as objects};

pub(super) fn run(app: &App, arguments: &Erase) -> Result<Finished, Failure> {
    let options = EraseOptions {
        snapshots: arguments.snapshots.clone(),
        job: arguments.job.clone(),
        paths: arguments.paths.iter().map(|path| path.as_bytes().to_vec()).collect(),
        collect: !arguments.no_gc,
        max_delete_percent: arguments.max_delete,
        ..EraseOptions::default()
    };
    let session = session::open(app, Show::Progress)?;
    if arguments.dry_run {
        let plan = erase::plan(
            &session.repository,
            &options,
            Some(&mut |snapshot, path, entry| {
                app.printer.event(&objects::Entry::new(path, entry).in_snapshot(snapshot))?;
                Ok(app.printer.line(&format!("{}:{}", snapshot.id.short(), short(path, entry)))?)
            }),
        )?;
        drop(session.shown);
        return show_plan(app, &plan);
    }
    let plan = erase::plan(&session.repository, &options, None)?;
    let report = erase::run(&session.repository, &options, plan)?;
    drop(session.shown);
    show_report(app, &report)
}

const COLUMNS: [(&str, Align); 6] = [
    ("ID", Align::Left),
    ("", Align::Left),
    ("BECOMES", Align::Left),
    ("FILES", Align::Right),
    ("ENTRIES", Align::Right),
    ("BYTES", Align::Right),
];

fn row(erased: &Erased) -> Vec<String> {
    let Tally { files, bytes, .. } = erased.tally;
    vec![
        erased.id.short(),
        erased.fate.name().to_owned(),
        erased.becomes.map(|id| id.short()).unwrap_or_default(),
        format::count(files),
        format::count(erased.tally.entries()),
        format::bytes(bytes),
    ]
}

fn show(app: &App, snapshots: &[Erased]) -> Result<(), Failure> {
    let mut table = Table::new(&COLUMNS);
    for erased in snapshots {
        app.printer.event(&objects::Erased::from(erased))?;
        table.row(row(erased));
    }
    for line in table.lines() {
        app.printer.line(&line)?;
    }
    Ok(())
}

fn show_plan(app: &App, plan: &ErasePlan) -> Result<Finished, Failure> {
    let planned = |planned: &Planned| Erased {
        id: planned.snapshot.id,
        fate: planned.fate,
        becomes: None,
        tally: planned.tally,
    };
    let bare = plan.bare.iter().map(|id| Erased {
        id: *id,
        fate: Fate::Goes,
        becomes: None,
        tally: Tally::default(),
    });
    let snapshots = plan.snapshots.iter().map(planned).chain(bare).collect::<Vec<_>>();
    show(app, &snapshots)?;
    app.printer.summary(&format!(
        "erase (dry run): {} would be made anew, {} would go, {} would be left as they are",
        format::plural(
            plan.count(Fate::Remade) + plan.count(Fate::Settled),
            "snapshot",
            "snapshots"
        ),
        format::count(plan.count(Fate::Goes)),
        format::count(plan.considered - plan.snapshots.len() as u64 + plan.count(Fate::Waits)),
    ))?;
    Ok(Finished::with(report(&snapshots, true, json!({ "waiting": plan.count(Fate::Waits) }))))
}

fn report(snapshots: &[Erased], dry_run: bool, rest: Value) -> Value {
    let count = |fate: Fate| snapshots.iter().filter(|erased| erased.fate == fate).count() as u64;
    let sum = |of: fn(&Tally) -> u64| snapshots.iter().map(|erased| of(&erased.tally)).sum::<u64>();
    let mut report = json!({
        "dry_run": dry_run,
        "remade": count(Fate::Remade) + count(Fate::Settled),
        "removed": count(Fate::Goes),
        "files": sum(|tally| tally.files),
        "entries": sum(Tally::entries),
        "bytes": sum(|tally| tally.bytes),
    });
    if let (Some(report), Value::Object(rest)) = (report.as_object_mut(), rest) {
        report.extend(rest);
    }
    report
}

fn show_report(app: &App, done: &EraseReport) -> Result<Finished, Failure> {
    show(app, &done.snapshots)?;
    let names = |names: &[cairn_format::names::ObjectName]| {
        names.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let gc = done.collection.as_ref();
    let own = gc.map_or_else(Vec::new, |gc| names(&gc.receipts));
    let receipts = [names(&done.receipts), own].concat();
    let kept = gc.map_or_else(Vec::new, |gc| names(&gc.versions_kept));
    let kept = [names(&done.records_kept), kept].concat();
    let rest = json!({
        "waiting": done.waiting.len(),
        "collected": gc.is_some(),
        "packs_deleted": gc.map_or(0, |gc| gc.packs_deleted),
        "bytes_deleted": gc.map_or(0, |gc| gc.bytes_deleted),
        "packs_spared": gc.map_or(0, |gc| gc.plan.packs_spared),
        "receipts": receipts,
        "still_there": names(gc.map_or(&[], |gc| &gc.still_there)),
        "versions_kept": kept,
        "cache_clean": done.cache_clean,
        "damaged": gc.map_or(0, |gc| gc.damaged.len()),
        "chunks": done.chunks,
        "chunks_kept": done.chunks_kept,
        "elapsed_ms": done.elapsed_ms.max(0),
    });
    let remade = done.snapshots.iter().filter(|erased| erased.becomes.is_some()).count() as u64;
    app.printer.summary(&format!(
        "erased from {}, {} of them as a whole; {} deleted, {}",
        format::plural(done.snapshots.len() as u64, "snapshot", "snapshots"),
        format::count((done.snapshots.len() as u64).saturating_sub(remade)),
        format::bytes(gc.map_or(0, |gc| gc.bytes_deleted)),
        format::plural(
            gc.map_or(0, |gc| gc.receipts.len() as u64) + done.receipts.len() as u64,
            "receipt",
            "receipts",
        ),
    ))?;
    if gc.is_none() && done.uncollected.is_none() {
        app.printer.note("It is stored until `cairn gc --max-dead 0` has run.");
    }
    if gc.is_some() && !done.cache_clean {
        app.printer.note(
            "The cache of this host was in use and still names what was erased: `cairn cache \
             clear`, or the next collection, ends that.",
        );
    }
    if done.chunks_kept > 0 {
        app.printer.note(&format!(
            "{} of what was erased stay stored: other paths or snapshots hold the same content",
            format::plural(done.chunks_kept, "chunk", "chunks"),
        ));
    }
    Ok(finish(done, Finished::with(report(&done.snapshots, false, rest))))
}

/// What is not done yet, and how it goes on.
fn finish(done: &EraseReport, finished: Finished) -> Finished {
    let mut finished = finished;
    if !done.waiting.is_empty() {
        let what = format::plural(done.waiting.len() as u64, "snapshot holds", "snapshots hold");
        let fact = format!(
            "{what} what is to be erased and may be of a backup at work; erase again when it has \
             ended, at the latest after a day"
        );
        finished = finished.but(ExitCode::Failed, "erase.waiting", fact);
    }
    if let Some(error) = &done.uncollected {
        let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        let fact = format!(
            "what was erased is still stored: {error}{hint}; then run `cairn gc --max-dead 0`"
        );
        finished = finished.but(ExitCode::Failed, "erase.uncollected", fact);
    }
    let versions = done.collection.as_ref().map_or(0, |gc| gc.versions_kept.len());
    if versions + done.records_kept.len() > 0 {
        let what = format::plural((versions + done.records_kept.len()) as u64, "object", "objects");
        let fact = format!(
            "the store keeps {what} that were deleted, or versions of them, and refuses to delete \
             them"
        );
        finished = finished.but(ExitCode::Failed, "gc.versions", fact);
    }
    let Some(gc) = &done.collection else { return finished };
    if !gc.damaged.is_empty() {
        let what = format::plural(gc.damaged.len() as u64, "pack", "packs");
        let fact = format!("{what} could not be copied because of damage, and stay as they are");
        finished = finished.but(ExitCode::Damage, "repository.damaged", fact);
    }
    if !gc.still_there.is_empty() {
        let what = format::plural(gc.still_there.len() as u64, "object", "objects");
        let fact = format!("the store said that it deleted {what}, and still has what it deleted");
        finished = finished.but(ExitCode::Failed, "gc.still_there", fact);
    }
    if gc.plan.packs_spared > 0 {
        let what = format::plural(gc.plan.packs_spared, "pack was", "packs were");
        let fact = format!(
            "{what} spared for sessions at work and may hold what was erased; run `cairn gc \
             --max-dead 0` when they have ended"
        );
        finished = finished.but(ExitCode::Failed, "erase.spared", fact);
    }
    finished
}
