//! `cairn snapshots`

use cairn_engine::ops::snapshots::{self, SnapshotInfo};
use serde_json::json;

use super::{App, Finished};
use crate::arguments::Snapshots;
use crate::session::{self, Show};
use crate::ui::errors::Failure;
use crate::ui::table::{Align, Table};
use crate::ui::{format, json as objects};

pub(super) fn run(app: &App, arguments: &Snapshots) -> Result<Finished, Failure> {
    let session = session::open(app, Show::Nothing)?;
    let mut found = snapshots::list(&session.repository)?;
    found.retain(|snapshot| matches(snapshot, arguments));
    found.sort_by_key(|snapshot| (snapshot.name_time_ms, snapshot.id));
    let hidden = arguments.last.map_or(0, |last| found.len().saturating_sub(last));
    let listed = found.get(hidden..).unwrap_or_default();
    for snapshot in listed {
        app.printer.event(&objects::Snapshot::from(snapshot))?;
    }
    if !app.printer.is_json() && !listed.is_empty() {
        for line in table(listed).lines() {
            app.printer.line(&line)?;
        }
    }
    Ok(Finished::with(json!({ "snapshots": listed.len() })))
}

fn matches(snapshot: &SnapshotInfo, arguments: &Snapshots) -> bool {
    let record = &snapshot.record;
    arguments.job.as_ref().is_none_or(|job| *job == record.job)
        && arguments.host.as_ref().is_none_or(|host| *host == record.host)
        && arguments.tags.iter().all(|tag| record.tags.contains(tag))
}

fn table(listed: &[SnapshotInfo]) -> Table {
    let mut table = Table::new(&[
        ("ID", Align::Left),
        ("TIME", Align::Left),
        ("JOB", Align::Left),
        ("HOST", Align::Left),
        ("SIZE", Align::Right),
        ("NEW", Align::Right),
        ("STORED", Align::Right),
        ("TAGS", Align::Left),
        ("PATHS", Align::Left),
    ]);
    for snapshot in listed {
        let record = &snapshot.record;
        let statistics = &record.statistics;
        let tags: Vec<String> =
            record.tags.iter().map(|tag| format::name(tag.as_bytes())).collect();
        let paths: Vec<String> = record.paths.iter().map(|path| format::name(path)).collect();
        let mut remarks = paths.join(", ");
        if statistics.unread > 0 {
            remarks.push_str(&format!(" ({} unread)", format::count(statistics.unread)));
        }
        if !snapshot.acknowledged {
            remarks.push_str(" (not acknowledged)");
        }
        table.row(vec![
            snapshot.id.short(),
            format::local_time(objects::time_ms(snapshot)),
            format::name(record.job.as_bytes()),
            format::name(record.host.as_bytes()),
            format::bytes(statistics.bytes_total),
            format::bytes(statistics.bytes_new),
            format::bytes(statistics.bytes_stored),
            tags.join(","),
            remarks,
        ]);
    }
    table
}
