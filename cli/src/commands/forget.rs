//! `cairn forget`

use cairn_engine::context::{Clock as _, SystemClock};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions, ForgetPlan, Series};
use cairn_engine::ops::snapshots::{self, SnapshotInfo};
use cairn_engine::retention::{
    Age, Period, Policy, Reason, Rule, Simulation, Verdict, simulate, zone,
};
use serde_json::json;

use super::{App, Finished};
use crate::arguments::{Forget, Keep, Within};
use crate::exit_code::ExitCode;
use crate::session::{self, Show};
use crate::settings;
use crate::ui::errors::Failure;
use crate::ui::table::{Align, Table};
use crate::ui::{format, json as objects};

/// Months that a simulation shows unless told otherwise: a year, and one more to see it end.
const SIMULATED_MONTHS: u32 = 13;

pub(super) fn run(app: &App, arguments: &Forget) -> Result<Finished, Failure> {
    if arguments.simulate {
        return imagine(app, arguments);
    }
    let by_rules = arguments.snapshots.is_empty();
    let mut job = arguments.job.clone();
    let choice = match (by_rules, rules(&arguments.keep)?) {
        (true, Some(policy)) => Choice::Rules(policy),
        (true, None) => {
            let home = settings::home(&app.global, &app.environment)?;
            let of_file = home.as_ref().map_or(Ok(None), |home| rules(&home.keep))?;
            job = job.or(home.and_then(|home| home.job));
            match of_file {
                Some(policy) => Choice::Rules(policy),
                None => return keep_all(app, job.as_deref(), arguments.dry_run),
            }
        }
        (false, _) => Choice::Named(arguments.snapshots.clone()),
    };
    let within = settings::erase_within(arguments.erase_within, &app.global, &app.environment)?;
    let options = ForgetOptions {
        job,
        trust_clock: arguments.trust_clock,
        remove_last: arguments.remove_last,
        join_writers: arguments.join_writers,
        ..ForgetOptions::new(choice)
    };
    let session = session::open(app, Show::Progress)?;
    let plan = forget::plan(&session.repository, &options)?;
    // While what goes is there.
    let bytes_freed = forget::measure(&session.repository, &plan, arguments.measure)?;
    drop(session.shown);
    // First, so that a failure half-way leaves the person with what was meant to go.
    show(app, &plan)?;
    if !arguments.dry_run {
        forget::run(&session.repository, &plan)?;
    }
    let freed = Freed {
        bytes: bytes_freed,
        gone_by_ms: match within {
            Within::Milliseconds(within_ms) if plan.going() > 0 => {
                Some(SystemClock.now_ms().saturating_add_unsigned(within_ms))
            }
            Within::Milliseconds(_) | Within::Never => None,
        },
    };
    summary(app, &plan, &freed, arguments.dry_run)?;
    let damaged = plan.damaged.len() as u64;
    let mut report = json!({
        "dry_run": arguments.dry_run,
        "simulated": false,
        "kept": plan.kept(),
        "removed": plan.going(),
        "damaged": damaged,
    });
    if let Some(report) = report.as_object_mut() {
        if by_rules {
            report.insert("reference".to_owned(), format::rfc3339(plan.reference_ms).into());
            let uncounted = plan.uncounted.iter().map(|silence| {
                json!({
                    "from": format::rfc3339(silence.from_ms),
                    "until": format::rfc3339(silence.until_ms),
                })
            });
            report.insert("uncounted".to_owned(), uncounted.collect());
        }
        report.extend(freed.bytes.map(|bytes| ("bytes_freed".to_owned(), bytes.into())));
        let gone_by = freed.gone_by_ms.map(|gone_by_ms| format::rfc3339(gone_by_ms).into());
        report.extend(gone_by.map(|gone_by| ("gone_by".to_owned(), gone_by)));
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

/// What comes free because of what goes, and when.
struct Freed {
    /// Stored bytes, about, where that is known.
    bytes: Option<u64>,
    /// When they are gone at the latest, if collections run as they should; milliseconds since 1970.
    gone_by_ms: Option<i64>,
}

/// Without a rule everything is kept.
fn keep_all(app: &App, job: Option<&str>, dry_run: bool) -> Result<Finished, Failure> {
    let session = session::open(app, Show::Progress)?;
    let found = snapshots::list(&session.repository)?;
    drop(session.shown);
    let of_job = |one: &&SnapshotInfo| job.is_none_or(|job| job == one.record.job);
    let kept = found.iter().filter(of_job).count() as u64;
    app.printer.summary(&format!(
        "kept {}, and forgot none: there is no rule, and without one everything is kept",
        format::plural(kept, "snapshot", "snapshots"),
    ))?;
    app.printer.note(
        "Rules say what to keep, e.g. --keep-within 30d --keep-monthly 12, or in the configuration \
         file; `cairn forget --help` has them all, and --simulate shows what they keep.",
    );
    Ok(Finished::with(json!({
        "dry_run": dry_run,
        "simulated": false,
        "kept": kept,
        "removed": 0,
        "damaged": 0,
        "bytes_freed": 0,
    })))
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
        let why = match plan.has_no_record(id) {
            true => "its record is gone",
            false => "its record cannot be read",
        };
        app.printer.event(&objects::Retention::bare(*id, why))?;
        app.printer.line(&format!("{}  forget  {why}", id.short()))?;
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

fn summary(app: &App, plan: &ForgetPlan, freed: &Freed, dry_run: bool) -> Result<(), Failure> {
    let going = format::plural(plan.going(), "snapshot", "snapshots");
    let kept = format::count(plan.kept());
    app.printer.summary(&match dry_run {
        true => format!("would forget {going}, would keep {kept}"),
        false => format!("forgot {going}, kept {kept}"),
    })?;
    for silence in &plan.uncounted {
        app.printer.note(&format!(
            "From {} to {} nothing was backed up, or a clock was set ahead: that time does not count \
             as age. With --trust-clock it does.",
            format::local_time(silence.from_ms),
            format::local_time(silence.until_ms),
        ));
    }
    if plan.going() == 0 {
        return Ok(());
    }
    let bytes = match freed.bytes {
        Some(bytes) => format!("About {} that nothing else needs come free", format::bytes(bytes)),
        None => "How much comes free is not known before `cairn gc` has run here (--measure reads \
                 all trees to find out); it comes free"
            .to_owned(),
    };
    let when = match freed.gone_by_ms {
        None => String::new(),
        Some(gone_by_ms) => format!(
            ": by {} at the latest where that runs at least as often as --erase-within says, but for \
             what a backup at work or a lock keeps",
            format::local_time(gone_by_ms),
        ),
    };
    app.printer.note(&format!("{bytes} with `cairn gc`{when}."));
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
