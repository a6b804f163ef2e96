//! `cairn stats`

use cairn_engine::ops::stats;
use serde_json::json;

use super::{App, Finished};
use crate::session::{self, Show};
use crate::ui::errors::Failure;
use crate::ui::format;
use crate::ui::table::{Align, Table};

pub(super) fn run(app: &App) -> Result<Finished, Failure> {
    let session = session::open(app, Show::Progress)?;
    let report = stats::run(&session.repository)?;
    drop(session.shown);
    let stored = report.bytes_stored_data + report.bytes_stored_tree + report.bytes_stored_index;
    let mut table =
        Table::new(&[("", Align::Left), ("COUNT", Align::Right), ("STORED", Align::Right)]);
    let mut row = |what: &str, count: u64, bytes: Option<u64>| {
        let bytes = bytes.map(format::bytes).unwrap_or_default();
        table.row(vec![what.to_owned(), format::count(count), bytes]);
    };
    row("snapshots", report.snapshots, None);
    row("data packs", report.packs_data, Some(report.bytes_stored_data));
    row("tree packs", report.packs_tree, Some(report.bytes_stored_tree));
    row("index segments", report.segments, Some(report.bytes_stored_index));
    row("key slots", report.slots, None);
    row("chunks", report.chunks, None);
    for line in table.lines() {
        app.printer.line(&line)?;
    }
    app.printer.line(&format!(
        "unique content {}, stored {}, compressed {}",
        format::bytes(report.bytes_plain),
        format::bytes(stored),
        format::ratio(report.bytes_plain, stored).unwrap_or_else(|| "-".to_owned()),
    ))?;
    Ok(Finished::with(json!({
        "repository": session.repository.id().to_hex(),
        "snapshots": report.snapshots,
        "packs_data": report.packs_data,
        "packs_tree": report.packs_tree,
        "segments": report.segments,
        "slots": report.slots,
        "chunks": report.chunks,
        "bytes_plain": report.bytes_plain,
        "bytes_stored": stored,
        "bytes_stored_data": report.bytes_stored_data,
        "bytes_stored_tree": report.bytes_stored_tree,
        "bytes_stored_index": report.bytes_stored_index,
    })))
}
