//! `cairn repair`

use cairn_engine::ops::heal;
use serde_json::json;

use super::{App, Finished, repair_index};
use crate::arguments::{Repair, RepairCommand};
use crate::exit_code::ExitCode;
use crate::session::{self, Show};
use crate::ui::errors::Failure;
use crate::ui::format;

pub(super) fn run(app: &App, arguments: &Repair) -> Result<Finished, Failure> {
    match (&arguments.command, &arguments.from) {
        (Some(RepairCommand::Index(index)), _) => repair_index::run(app, index),
        (None, from) => {
            let mut session = session::open(app, Show::Progress)?;
            if let Some(from) = from {
                session::add_copy(app, &mut session, from)?;
            }
            let report = heal::run(&session.repository, arguments.dry_run)?;
            drop(session.shown);
            show(app, &report, arguments.dry_run)
        }
    }
}

fn show(app: &App, report: &heal::HealReport, dry_run: bool) -> Result<Finished, Failure> {
    let snapshots = format::plural(report.snapshots.len() as u64, "snapshot", "snapshots");
    let packs = format::plural(report.packs, "pack", "packs");
    if !report.objects.is_empty() {
        let what = if dry_run { "to be healed" } else { "healed" };
        app.printer.note(&format!(
            "{what}: {}",
            format::plural(
                report.objects.len() as u64,
                "key slot or setting",
                "key slots and settings"
            ),
        ));
    }
    app.printer.summary(&match dry_run {
        true => format!("repair (dry run): {snapshots} and {packs} are damaged or missing"),
        false => format!(
            "repaired: {} made whole out of parity; {snapshots}, {packs} ({}) and {} fetched, {} stored \
             anew, {} given up",
            format::plural(report.packs_from_parity, "pack", "packs"),
            format::bytes(report.pack_bytes),
            format::plural(report.chunks_fetched, "chunk", "chunks"),
            format::count(report.chunks),
            format::plural(report.packs_condemned, "pack", "packs"),
        ),
    })?;
    if report.packs_condemned > 0 {
        app.printer.note("`cairn gc` deletes the packs that were given up.");
    }
    for remark in &report.lost {
        app.printer.warning(remark);
    }
    let lost = report.lost.len() as u64;
    let finished = Finished::with(json!({
        "dry_run": dry_run,
        "snapshots": report.snapshots.iter().map(|id| id.to_hex()).collect::<Vec<_>>(),
        "objects": report.objects.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "packs": report.packs,
        "pack_bytes": report.pack_bytes,
        "packs_from_parity": report.packs_from_parity,
        "parity_pack_bytes": report.parity_pack_bytes,
        "chunks": report.chunks,
        "chunks_fetched": report.chunks_fetched,
        "bytes_written": report.bytes_written,
        "packs_condemned": report.packs_condemned,
        "lost": lost,
    }));
    if lost == 0 {
        return Ok(finished);
    }
    let what = format::plural(lost, "thing", "things");
    let fact = format!("{what} could not be had from anywhere");
    Ok(finished.but(ExitCode::Damage, "repository.damaged", fact))
}
