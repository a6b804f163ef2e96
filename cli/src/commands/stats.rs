//! `cairn stats`

use cairn_engine::ops::stats;
use cairn_engine::parity;
use serde_json::json;

use super::{App, Finished, requests, target};
use crate::arguments::Stats;
use crate::session::{self, Show};
use crate::ui::errors::Failure;
use crate::ui::format;
use crate::ui::table::{Align, Table};

pub(super) fn run(app: &App, arguments: &Stats) -> Result<Finished, Failure> {
    let session = session::open(app, Show::Progress)?;
    let report = stats::run(&session.repository)?;
    let location = session::location(app)?;
    let (profile, tried_ms) = match arguments.probe {
        true => (target::try_out(app, session.repository.store(), &location)?, None),
        false => target::recall(app, &location).map(|tried| (tried.profile, tried.at_ms)).unzip(),
    };
    drop(session.shown);
    let mut table =
        Table::new(&[("", Align::Left), ("COUNT", Align::Right), ("SIZE", Align::Right)]);
    let stored = report.bytes_stored();
    for (what, count, bytes) in [
        ("snapshots", Some(report.snapshots), Some(report.bytes_protected)),
        ("data packs", Some(report.packs_data), Some(report.bytes_data)),
        ("tree packs", Some(report.packs_tree), Some(report.bytes_tree)),
        ("index segments", Some(report.segments), Some(report.bytes_index)),
        ("other objects", None, Some(report.bytes_other)),
        ("chunks", Some(report.chunks), None),
        ("frames", Some(report.frames), None),
        ("held as deltas", Some(report.delta_chunks), Some(report.delta_bytes)),
        ("  stored as", None, Some(report.delta_bytes_stored)),
        ("  instead of about", None, Some(report.delta_bytes_whole)),
        ("  needing bases", Some(report.base_chunks), Some(report.base_bytes)),
        ("  of them patches", Some(report.patch_chunks), Some(report.patch_bytes)),
        ("    stored as", None, Some(report.patch_bytes_stored)),
        ("stored", None, Some(stored)),
        ("  of it parity", None, report.parity.map(|_| report.parity_bytes)),
    ] {
        if count.is_none() && bytes.is_none() {
            continue;
        }
        table.row(vec![
            what.to_owned(),
            count.map(format::count).unwrap_or_default(),
            bytes.map(format::bytes).unwrap_or_default(),
        ]);
    }
    for line in table.lines() {
        app.printer.line(&line)?;
    }
    if let Some(ratio) = format::ratio(report.bytes_protected, stored) {
        app.printer.line(&format!("ratio of all snapshots to what is stored: {ratio}"))?;
    }
    if let Some(profile) = &profile {
        let when = tried_ms.map(|at_ms| format!(" (tried out {})", format::local_time(at_ms)));
        app.printer.line(&format!("{}{}", target::line(profile), when.unwrap_or_default()))?;
    }
    let history = if arguments.requests { requests::history(app) } else { None };
    for line in history.iter().flat_map(requests::History::lines) {
        app.printer.line(&line)?;
    }
    Ok(Finished::with(json!({
        "repository": session.repository.id().to_hex(),
        "snapshots": report.snapshots,
        "bytes_protected": report.bytes_protected,
        "packs_data": report.packs_data,
        "packs_tree": report.packs_tree,
        "segments": report.segments,
        "chunks": report.chunks,
        "frames": report.frames,
        "delta_chunks": report.delta_chunks,
        "delta_bytes": report.delta_bytes,
        "delta_bytes_stored": report.delta_bytes_stored,
        "delta_bytes_whole": report.delta_bytes_whole,
        "base_chunks": report.base_chunks,
        "base_bytes": report.base_bytes,
        "patch_chunks": report.patch_chunks,
        "patch_bytes": report.patch_bytes,
        "patch_bytes_stored": report.patch_bytes_stored,
        "bytes_stored": stored,
        "bytes_stored_data": report.bytes_data,
        "bytes_stored_tree": report.bytes_tree,
        "bytes_stored_index": report.bytes_index,
        "bytes_stored_other": report.bytes_other,
        "bytes_stored_parity": report.parity_bytes,
        "parity_percent": report.parity.map(parity::percent),
        "storage": target::report(profile.as_ref()),
        "storage_tried": tried_ms.map(format::rfc3339),
        "requests": history.map(|history| history.report()),
    })))
}
