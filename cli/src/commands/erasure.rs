//! `cairn erasure report`

use cairn_engine::ops::erasure::{self, ErasureOptions, ErasureReport, Pending};
use cairn_engine::store::lock::KeptFor;
use serde_json::json;

use super::{App, Finished};
use crate::arguments::{self, Within};
use crate::exit_code::ExitCode;
use crate::session::{self, Show};
use crate::settings;
use crate::ui::errors::Failure;
use crate::ui::table::{Align, Table};
use crate::ui::{format, json as objects};

pub(super) fn run(app: &App, arguments: &arguments::ErasureReport) -> Result<Finished, Failure> {
    let within = settings::erase_within(arguments.erase_within, &app.global, &app.environment)?;
    let session = session::open(app, Show::Progress)?;
    let options = ErasureOptions {
        erase_within_ms: milliseconds(within),
        kept_for_ms: arguments.kept_for.map(|kept| milliseconds(kept).unwrap_or(0)),
        audit: arguments.audit,
        dead: !arguments.receipts_only,
    };
    let report = erasure::run(&session.repository, &options)?;
    drop(session.shown);
    show(app, &report)?;
    Ok(finish(&report))
}

fn milliseconds(within: Within) -> Option<u64> {
    match within {
        Within::Never => None,
        Within::Milliseconds(within_ms) => Some(within_ms),
    }
}

fn show(app: &App, report: &ErasureReport) -> Result<(), Failure> {
    let mut table = Table::new(&[
        ("RECEIPT", Align::Right),
        ("TIME", Align::Left),
        ("OBJECTS", Align::Right),
        ("SIGNED BY", Align::Left),
        ("NOTE", Align::Left),
    ]);
    for link in &report.receipts {
        app.printer.event(&objects::Receipt::from(link))?;
        table.row(vec![
            link.record.sequence.to_string(),
            format::local_time(link.record.time_ms),
            format::count(link.objects),
            format::text(&link.signer),
            format::text(link.record.note.as_deref().unwrap_or_default()),
        ]);
    }
    for line in table.lines() {
        app.printer.line(&line)?;
    }
    for pending in &report.pending {
        app.printer.event(&objects::Pending::from(pending))?;
        app.printer.line(&describe(pending, report.kept_for))?;
    }
    for remark in &report.unsound {
        app.printer.line(&format!("unsound: {}: {}", remark.subject, remark.message))?;
    }
    for name in &report.chain.broken {
        app.printer.line(&format!("gap: the receipt before {name} is missing"))?;
    }
    if let Some(audited) = &report.audited {
        app.printer.summary(&format!(
            "audit: {} seen to be gone once more, {} had come back, {}",
            format::plural(audited.confirmed, "object", "objects"),
            format::count(audited.reappeared.len() as u64),
            format::plural(audited.receipts.len() as u64, "receipt", "receipts"),
        ))?;
    }
    app.printer.summary(&format!(
        "{} named by {}, {} confirmed twice; {} pending, {} overdue",
        format::plural(report.objects, "deleted object", "deleted objects"),
        format::plural(report.receipts.len() as u64, "receipt", "receipts"),
        format::count(report.confirmed),
        format::count(report.pending.len() as u64),
        format::count(overdue(report)),
    ))?;
    Ok(())
}

fn overdue(report: &ErasureReport) -> u64 {
    report.pending.iter().filter(|pending| pending.overdue).count() as u64
}

/// One line for people: what, how much, since when, and what to do.
fn describe(pending: &Pending, kept_for: KeptFor) -> String {
    let mut line = format!(
        "{} {}: {}",
        if pending.overdue { "OVERDUE" } else { "pending" },
        pending.reason.name(),
        format::count(pending.count),
    );
    if let Some(bytes) = pending.bytes {
        line.push_str(&format!(", {}", format::bytes(bytes)));
    }
    if let Some(since_ms) = pending.since_ms {
        line.push_str(&format!(", since {}", format::local_time(since_ms)));
    }
    if let Some(until_ms) = pending.until_ms {
        line.push_str(&format!(", until {}", format::local_time(until_ms)));
    }
    format!("{line} ({})", pending.hint(kept_for))
}

fn finish(report: &ErasureReport) -> Finished {
    let finished = Finished::with(json!({
        "receipts": report.receipts.len(),
        "objects": report.objects,
        "confirmed": report.confirmed,
        "pending": report.pending.len(),
        "overdue": overdue(report),
        "unsound": report.unsound.len(),
        "gaps": report.chain.broken.len(),
        "forks": report.chain.forks,
        "kept_for": report.kept_for.name(),
        "kept_for_ms": match report.kept_for {
            KeptFor::Milliseconds(kept_ms) => Some(kept_ms),
            KeptFor::Nothing | KeptFor::Versions | KeptFor::Unknown => None,
        },
        "audited": report.audited.is_some(),
        "reappeared": report.audited.as_ref().map_or(0, |audited| audited.reappeared.len()),
        "still_there": report.audited.as_ref().map_or(0, |audited| audited.still_there.len()),
    }));
    let mut finished = finished;
    if report.is_damaged() {
        let count = (report.unsound.len() + report.chain.broken.len()) as u64;
        let what = format::plural(count, "receipt is", "receipts are");
        let fact =
            format!("{what} missing or cannot be relied on: not all that was deleted is proven");
        finished = finished.but(ExitCode::Damage, "erasure.receipts", fact);
    }
    if report.is_overdue() {
        let fact = "something is pending for longer than it may".to_owned();
        finished = finished.but(ExitCode::Stale, "erasure.overdue", fact);
    }
    finished
}
