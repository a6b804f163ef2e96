//! `cairn verify`

use cairn_engine::ops::shard::Shard;
use cairn_engine::ops::verify::{self, Level, VerifyOptions, VerifyReport};
use serde_json::json;

use super::{App, Finished};
use crate::arguments::{self, Verify};
use crate::exit_code::ExitCode;
use crate::session::{self, Show};
use crate::ui::errors::Failure;
use crate::ui::{format, json as objects, timings};

pub(super) fn run(app: &App, arguments: &Verify) -> Result<Finished, Failure> {
    let session = session::open(app, Show::progress(arguments.timings))?;
    let options = VerifyOptions {
        level: match arguments.level {
            arguments::Level::Structure => Level::Structure,
            arguments::Level::Sample => Level::Sample { percent: arguments.sample_percent },
            arguments::Level::Full => Level::Full,
        },
    };
    let shard = arguments.shard;
    let report = verify::run_shard(&session.repository, &options, shard)?;
    drop(session.shown);
    timings::show(&app.printer, &session.repository.context.timings)?;
    show(app, &report, shard)
}

fn show(app: &App, report: &VerifyReport, shard: Shard) -> Result<Finished, Failure> {
    for finding in &report.findings {
        app.printer.event(&objects::Finding::from(finding))?;
        let object = format::name(finding.object.as_bytes());
        let message = format::name(finding.message.as_bytes());
        app.printer.line(&format!("damaged: {object}: {message}"))?;
    }
    for place in &report.affected {
        app.printer.event(&objects::Affected::from(place))?;
        let path = format::name(&place.path);
        app.printer.line(&format!("affected: {}:{path}", place.snapshot.short()))?;
    }
    let unlisted = report.affected_count.saturating_sub(report.affected.len() as u64);
    if unlisted > 0 {
        app.printer.line(&format!("affected: {} more", format::count(unlisted)))?;
    }
    summary(app, report, shard)?;
    let findings = report.findings.len() as u64;
    let finished = Finished::with(json!({
        "shard": (!shard.is_all()).then(|| shard.to_string()),
        "snapshots": report.snapshots,
        "unacknowledged": report.unacknowledged,
        "packs_checked": report.packs_checked,
        "packs_total": report.packs_total,
        "bytes_checked": report.bytes_checked,
        "packs_healable": report.packs_healable,
        "never_verified": report.never_verified,
        "oldest_verified": oldest_ms(report).map(format::rfc3339),
        "findings": findings,
        "affected": report.affected_count,
        "elapsed_ms": report.elapsed_ms.max(0),
    }));
    if findings == 0 && report.affected_count == 0 {
        return Ok(finished);
    }
    let fact = format!(
        "the repository is damaged: {}, {} affected",
        format::plural(findings, "finding", "findings"),
        format::plural(report.affected_count, "path", "paths"),
    );
    Ok(finished.but(ExitCode::Damage, "repository.damaged", fact))
}

fn summary(app: &App, report: &VerifyReport, shard: Shard) -> Result<(), Failure> {
    let age = match oldest_ms(report) {
        Some(time_ms) => format!("oldest check {}", format::local_time(time_ms)),
        None => format!("{} never read", format::plural(report.never_verified, "pack", "packs")),
    };
    let outcome = match report.findings.is_empty() && report.affected_count == 0 {
        true => "no damage found",
        false => "damage found",
    };
    let part = if shard.is_all() { String::new() } else { format!("share {shard}: ") };
    app.printer.summary(&format!(
        "{part}verified {}, read {} of {} ({}), {age}: {outcome}",
        format::plural(report.snapshots, "snapshot", "snapshots"),
        format::count(report.packs_checked),
        format::plural(report.packs_total, "pack", "packs"),
        format::bytes(report.bytes_checked),
    ))?;
    if report.packs_healable > 0 {
        app.printer.note(&format!(
            "{} can be read around, and made whole out of parity: `cairn repair`",
            format::plural(report.packs_healable, "damaged pack", "damaged packs"),
        ));
    }
    if report.unacknowledged > 0 {
        app.printer.note(&format!(
            "{} not acknowledged: interrupted at the very end",
            format::plural(report.unacknowledged, "snapshot is", "snapshots are"),
        ));
    }
    Ok(())
}

fn oldest_ms(report: &VerifyReport) -> Option<i64> {
    report.oldest_verified_ms.and_then(|time_ms| i64::try_from(time_ms).ok())
}
