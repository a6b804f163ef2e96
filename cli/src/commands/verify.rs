//! `cairn verify`

use std::os::unix::ffi::OsStrExt as _;

use cairn_engine::ops::verify::{self, Finding, Level, Scope, VerifyOptions, VerifyReport};
use serde_json::{Map, Value, json};

use super::{App, Finished};
use crate::arguments::{self, Verify};
use crate::exit_code::ExitCode;
use crate::session::{self, Show};
use crate::ui::errors::Failure;
use crate::ui::{format, json as objects};

pub(super) fn run(app: &App, arguments: &Verify) -> Result<Finished, Failure> {
    let session = session::open(app, Show::Progress)?;
    let selected = arguments
        .snapshots
        .iter()
        .map(|selector| session::select(&session, selector.as_bytes()))
        .collect::<Result<Vec<_>, _>>()?;
    let options = VerifyOptions {
        level: match arguments.level {
            arguments::Level::Structure => Level::Structure,
            arguments::Level::Sample => Level::Sample { percent: arguments.sample_percent },
            arguments::Level::Full => Level::Full,
        },
        snapshots: if selected.is_empty() { Scope::All } else { Scope::Snapshots(selected) },
    };
    let report = verify::run(&session.repository, &options)?;
    drop(session.shown);
    show(app, &report)
}

fn show(app: &App, report: &VerifyReport) -> Result<Finished, Failure> {
    for finding in &report.findings {
        app.printer.event(&object(finding))?;
        app.printer.line(&line(finding))?;
    }
    let oldest = match report.oldest_unverified_ms {
        Some(time_ms) => format!(", oldest check {}", format::local_time(time_ms)),
        None => String::new(),
    };
    app.printer.summary(&format!(
        "verified {} of {} packs, {} read, {} never verified{oldest}: {}",
        format::count(report.packs_checked),
        format::count(report.packs_total),
        format::bytes(report.bytes_checked),
        format::count(report.never_verified),
        match report.findings.len() {
            0 => "no damage found".to_owned(),
            1 => "1 finding".to_owned(),
            many => format!("{many} findings"),
        },
    ))?;
    let finished = Finished::with(json!({
        "packs_checked": report.packs_checked,
        "packs_total": report.packs_total,
        "bytes_checked": report.bytes_checked,
        "never_verified": report.never_verified,
        "oldest_verified": report.oldest_unverified_ms.map(format::rfc3339),
        "findings": report.findings.len(),
    }));
    if report.findings.is_empty() {
        return Ok(finished);
    }
    let fact = "the repository is damaged".to_owned();
    Ok(finished.but(ExitCode::Damage, "repository.damaged", fact))
}

fn object(finding: &Finding) -> Map<String, Value> {
    let mut object = objects::object("finding");
    object.insert("code".into(), finding.code.into());
    object.insert("object".into(), finding.object.as_str().into());
    object.insert("message".into(), finding.message.as_str().into());
    let affected: Vec<Value> = finding
        .affected
        .iter()
        .map(|(snapshot, path)| {
            let mut place = Map::new();
            place.insert("snapshot".into(), snapshot.to_hex().into());
            objects::insert_path(&mut place, "path", path);
            Value::Object(place)
        })
        .collect();
    object.insert("affected".into(), affected.into());
    object
}

fn line(finding: &Finding) -> String {
    let mut line = format!(
        "damaged: {}: {}",
        format::name(finding.object.as_bytes()),
        format::name(finding.message.as_bytes())
    );
    for (snapshot, path) in &finding.affected {
        line.push_str(&format!("\n  affects {}:{}", snapshot.short(), format::name(path)));
    }
    line
}
