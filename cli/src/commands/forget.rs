//! `cairn forget`

use cairn_engine::context::{Clock as _, SystemClock};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions, ForgetPlan, Series};
use cairn_engine::retention::{
    Age, Period, Policy, Reason, Rule, Simulation, Verdict, simulate, zone,
};
use serde_json::json;

use super::{App, Finished};
use crate::arguments::{Forget, Keep};
use crate::exit_code::ExitCode;
use crate::session::{self, Show};
use crate::ui::errors::Failure;
use crate::ui::table::{Align, Table};
use crate::ui::{format, json as objects};

/// Months that a simulation shows unless told otherwise: a year, and one more to see it end.
const SIMULATED_MONTHS: u32 = 13;

pub(super) fn run(app: &App, arguments: &Forget) -> Result<Finished, Failure> {
    if arguments.simulate {
        return imagine(app, arguments);
    }
    let choice = match arguments.snapshots.is_empty() {
        true => Choice::Rules(policy(&arguments.keep)?),
        false => Choice::Named(arguments.snapshots.clone()),
    };
    let by_rules = arguments.snapshots.is_empty();
    let options = ForgetOptions {
        job: arguments.job.clone(),
        trust_clock: arguments.trust_clock,
        remove_last: arguments.remove_last,
        join_writers: arguments.join_writers,
        ..ForgetOptions::new(choice)
    };
    let session = session::open(app, Show::Progress)?;
    let plan = forget::plan(&session.repository, &options)?;
    drop(session.shown);
    // First, so that a failure half-way leaves the person with what was meant to go.
    show(app, &plan)?;
    if !arguments.dry_run {
        forget::run(&session.repository, &plan)?;
    }
    summary(app, &plan, arguments.dry_run)?;
    let damaged = plan.damaged.len() as u64;
    let mut report = json!({
        "dry_run": arguments.dry_run,
        "simulated": false,
        "kept": plan.kept(),
        "removed": plan.going(),
        "damaged": damaged,
    });
    if by_rules && let Some(report) = report.as_object_mut() {
        report.insert("reference".to_owned(), format::rfc3339(plan.reference_ms).into());
    }
    let finished = Finished::with(report);
    // Whoever names what is damaged knows.
    if damaged == 0 || !by_rules {
        return Ok(finished);
    }
    let what = format::plural(damaged, "object is", "objects are");
    let fact = format!("{what} missing or cannot be read; they were left as they are");
    Ok(finished.but(ExitCode::Damage, "repository.damaged", fact))
}

/// The rules that the options stand for, if there are any.
pub(super) fn rules(keep: &Keep) -> Result<Option<Policy>, Failure> {
    if keep.is_empty() { Ok(None) } else { policy(keep).map(Some) }
}

/// The rules that the options stand for.
fn policy(keep: &Keep) -> Result<Policy, Failure> {
    let counts = [
        (Period::Hourly, keep.keep_hourly),
        (Period::Daily, keep.keep_daily),
        (Period::Weekly, keep.keep_weekly),
        (Period::Monthly, keep.keep_monthly),
        (Period::Yearly, keep.keep_yearly),
    ];
    let ages = [
        (Period::Hourly, keep.keep_within_hourly),
        (Period::Daily, keep.keep_within_daily),
        (Period::Weekly, keep.keep_within_weekly),
        (Period::Monthly, keep.keep_within_monthly),
        (Period::Yearly, keep.keep_within_yearly),
    ];
    let counts = counts.into_iter();
    let counts = counts.filter_map(|(period, count)| Some(Rule::Newest(period, count?)));
    let ages = ages.into_iter();
    let ages = ages.filter_map(|(period, age)| Some(Rule::NewestWithin(period, age?)));
    let mut rules = Vec::new();
    rules.extend(keep.keep_last.map(Rule::Last));
    rules.extend(counts);
    rules.extend(keep.keep_within.map(Rule::Within));
    rules.extend(ages);
    rules.extend(keep.keep_tags.iter().cloned().map(Rule::Tag));
    let zone = zone(keep.time_zone.as_deref().unwrap_or("UTC")).map_err(session::engine)?;
    Policy::new(rules, zone).map_err(session::engine)
}

fn show(app: &App, plan: &ForgetPlan) -> Result<(), Failure> {
    for series in &plan.series {
        app.printer.line(&heading(series))?;
        let mut table = Table::new(&COLUMNS);
        for planned in &series.snapshots {
            app.printer.event(&objects::Retention::new(series, planned))?;
            let (what, why) = match &planned.verdict {
                Verdict::Keep(reasons) => ("keep", because(reasons)),
                Verdict::Go(cause) => ("forget", cause.to_string()),
            };
            let committed = format::local_time(planned.snapshot.record.finished_ms);
            table.row(vec![
                planned.snapshot.id.short(),
                committed,
                what.to_owned(),
                format::name(why.as_bytes()),
            ]);
        }
        for line in table.lines() {
            app.printer.line(&line)?;
        }
    }
    for id in &plan.bare {
        app.printer.event(&objects::Retention::bare(*id))?;
        app.printer.line(&format!("{}  forget  its record cannot be read", id.short()))?;
    }
    Ok(())
}

const COLUMNS: [(&str, Align); 4] =
    [("ID", Align::Left), ("COMMITTED", Align::Left), ("", Align::Left), ("WHY", Align::Left)];

fn heading(series: &Series) -> String {
    let job = format::name(series.job.as_bytes());
    match &series.writer {
        None => format!("job {job}"),
        Some(_) => format!("job {job}, key {}", format::name(series.writer_name.as_bytes())),
    }
}

fn because(reasons: &[Reason]) -> String {
    reasons.iter().map(Reason::to_string).collect::<Vec<_>>().join(", ")
}

fn summary(app: &App, plan: &ForgetPlan, dry_run: bool) -> Result<(), Failure> {
    let going = format::plural(plan.going(), "snapshot", "snapshots");
    let kept = format::count(plan.kept());
    app.printer.summary(&match dry_run {
        true => format!("would forget {going}, would keep {kept}"),
        false => format!("forgot {going}, kept {kept}"),
    })?;
    if plan.going() > 0 {
        app.printer.note("Their space comes back with `cairn gc`.");
    }
    Ok(())
}

fn imagine(app: &App, arguments: &Forget) -> Result<Finished, Failure> {
    let policy = policy(&arguments.keep)?;
    let simulation = Simulation {
        start_ms: SystemClock.now_ms(),
        every: arguments.simulate_every.unwrap_or(Age::hours(1)),
        length: arguments.simulate_for.unwrap_or(Age::months(SIMULATED_MONTHS)),
    };
    let (kept, backups) = simulate(&policy, &simulation).map_err(session::engine)?;
    let mut table = Table::new(&[("TIME", Align::Left), ("WHY", Align::Left)]);
    for one in &kept {
        app.printer.event(&objects::SimulatedBackup::from(one))?;
        table.row(vec![format::local_time(one.time_ms), because(&one.reasons)]);
    }
    for line in table.lines() {
        app.printer.line(&line)?;
    }
    let left = kept.len() as u64;
    app.printer.summary(&format!(
        "of {}, every {} for {}, {} would be left",
        format::plural(u64::from(backups), "backup", "backups"),
        simulation.every,
        simulation.length,
        format::count(left),
    ))?;
    Ok(Finished::with(json!({
        "dry_run": true,
        "simulated": true,
        "backups": backups,
        "kept": left,
        "removed": u64::from(backups).saturating_sub(left),
    })))
}
