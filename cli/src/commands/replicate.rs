//! `cairn replicate`

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use cairn_engine::context::Context;
use cairn_engine::error::Error;
use cairn_engine::ops::replicate::{
    self, Done, ERASE_WITHIN_MS_DEFAULT, Opener, Outcome, ReplicateReport, Target,
};
use cairn_engine::ops::shard::Shard;
use cairn_engine::ops::snapshots;
use cairn_engine::repo::Repository;
use cairn_engine::repo::places::{Place, Places, Replication};
use cairn_engine::store::location::Location;
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::patient::Patience;
use cairn_engine::store::{Store, StoreError};
use serde_json::json;

use super::{App, Finished, forget, gc};
use crate::arguments::{Backup, GiveUp, Replicate, Within};
use crate::exit_code::ExitCode;
use crate::places::Reach;
use crate::replicas::Replica;
use crate::session::{self, Show};
use crate::settings;
use crate::ui::errors::{CliError, Failure};
use crate::ui::table::{Align, Table};
use crate::ui::{format, json as objects};

/// Of a rate that is limited, one place has no less than this part: others share it, and calls that
/// wait for their turn wait beside each other.
const LIMIT_SHARES: u64 = 16;

pub(super) fn run(app: &App, arguments: &Replicate) -> Result<Finished, Failure> {
    let chosen = choose(app, arguments)?;
    let session =
        session::open(app, if arguments.status { Show::Nothing } else { Show::Progress })?;
    if arguments.status {
        return status(app, &session.repository, &chosen);
    }
    let context = &session.repository.context;
    let targets = chosen.iter().map(|replica| target(app, replica, arguments, context));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    let (dry_run, shard) = (arguments.dry_run, arguments.shard);
    let report = replicate::run_shard(&session.repository, &targets, dry_run, shard)?;
    drop(session.shown);
    let places = chosen.iter().map(|replica| (replica.url.clone(), within(replica)));
    show(app, &places.collect::<Vec<_>>(), &report, (dry_run, shard))
}

/// The replicas that are meant: those of `--to`, else those of the configuration file.
fn choose(app: &App, arguments: &Replicate) -> Result<Vec<Replica>, Failure> {
    if !arguments.to.is_empty() {
        let replicas = arguments.to.iter().map(|url| {
            let url = url.to_str().map(str::to_owned).ok_or_else(|| CliError::Usage {
                problem: format!("--to {} is not UTF-8", url.display()),
                hint: "name the place otherwise",
            })?;
            Ok(Replica {
                name: url.clone(),
                url,
                repo: None,
                job: arguments.job.clone(),
                keep: arguments.keep.clone(),
                erase_within: arguments.erase_within,
                max_delete: arguments.max_delete,
                trust_clock: false,
                give_up_after: None,
            })
        });
        return replicas.collect::<Result<Vec<_>, Failure>>();
    }
    let home = settings::repository(&app.global, &app.environment)?;
    let of_home =
        |replica: &&Replica| replica.repo.as_ref().is_none_or(|repo| OsStr::new(repo) == home);
    let all = app.config()?.replicas.iter();
    let mut replicas = all.filter(of_home).cloned().collect::<Vec<_>>();
    if let Some(unknown) =
        arguments.names.iter().find(|name| replicas.iter().all(|known| known.name != **name))
    {
        return Err(CliError::Usage {
            problem: format!("no replica of this repository is called {unknown:?}"),
            hint: "name it in the configuration file, or give its place with --to",
        }
        .into());
    }
    if !arguments.names.is_empty() {
        replicas.retain(|replica| arguments.names.contains(&replica.name));
    }
    if replicas.is_empty() {
        return Err(CliError::Usage {
            problem: "no replica is named".to_owned(),
            hint: "give a place with --to, or name replicas in the configuration file",
        }
        .into());
    }
    Ok(replicas)
}

/// What the engine is to do for a replica.
fn target(
    app: &App,
    replica: &Replica,
    arguments: &Replicate,
    context: &Context,
) -> Result<Target, Failure> {
    let location = Location::parse(OsStr::new(&replica.url)).map_err(session::engine)?;
    let rules = forget::rules(&replica.keep)?;
    let erase_within_ms = match within(replica) {
        Within::Never => None,
        Within::Milliseconds(within_ms) => Some(within_ms),
    };
    let place = session::place(&location);
    let (context, reach) = (context.clone(), session::reach(app, &location)?);
    let absent = match (arguments.create, arguments.dry_run) {
        (false, _) => Absent::Refuse,
        (true, true) => Absent::Imagine,
        (true, false) => Absent::Create { erase_within_ms },
    };
    let open = Opener::new(move || open(&location, &context, &reach, absent));
    Ok(Target {
        place,
        rules,
        job: replica.job.clone(),
        erase_within_ms,
        max_delete_percent: replica.max_delete,
        forget_missing: arguments.forget_missing,
        trust_clock: arguments.trust_clock || replica.trust_clock,
        patience: patience(
            app,
            arguments.give_up_after.or(replica.give_up_after).unwrap_or_default(),
        ),
        ..Target::at(&replica.name, open)
    })
}

/// How long expired data may stay on a replica.
fn within(replica: &Replica) -> Within {
    replica.erase_within.unwrap_or(Within::Milliseconds(ERASE_WITHIN_MS_DEFAULT))
}

/// How long a place is waited for. What it is sent at a rate that was asked for is not its fault.
fn patience(app: &App, give_up: GiveUp) -> Option<Patience> {
    let GiveUp::AfterMs(stall_ms) = give_up else { return None };
    let usual = Patience { stall_ms, ..Patience::default() };
    let limits = [app.global.limit_upload, app.global.limit_download];
    let slowest = limits.into_iter().flatten().map(|rate| rate.get() / LIMIT_SHARES).min();
    let bytes_per_s_min = slowest.unwrap_or(u64::MAX).min(usual.bytes_per_s_min);
    Some(Patience { bytes_per_s_min, ..usual })
}

/// What happens where there is no replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absent {
    /// Nothing: nobody asked for a new one.
    Refuse,
    /// One is made in memory, to tell what it would get.
    Imagine,
    /// One is made, where no lock outlasts what expired data may.
    Create {
        /// Milliseconds; `None`: for good.
        erase_within_ms: Option<u64>,
    },
}

/// Opens the place of a replica, or prepares it for a new one: only where that was asked for, and never
/// where one was known.
fn open(
    location: &Location,
    context: &Context,
    reach: &Reach,
    absent: Absent,
) -> Result<Arc<dyn Store>, Error> {
    let remote = &reach.options_of_copy()?;
    match location.open(remote) {
        Err(StoreError::NoRepository { .. }) => {}
        opened => return Ok(opened?),
    }
    if let (Some(places), Some(place)) = (Places::new(&context.cache_dir), session::place(location))
    {
        places.require_unknown(&place)?;
    }
    let erase_within_ms = match absent {
        Absent::Refuse => return Err(Error::NoReplica { location: location.to_string() }),
        Absent::Imagine => {
            location.require_parent()?;
            let found = location.check_create(remote)?;
            return Ok(found.unwrap_or_else(|| Arc::new(MemoryStore::new())));
        }
        Absent::Create { erase_within_ms } => erase_within_ms,
    };
    location.require_parent()?;
    let store = location.create(remote)?;
    if let (Some(profile), Some(within_ms)) = (store.probe()?, erase_within_ms) {
        profile.check_lock(&store.location(), within_ms)?;
    }
    Ok(store)
}

/// The replicas that `backup --also` names.
///
/// # Errors
/// When one of them is no place, or the key may not copy.
pub(super) fn also(
    app: &App,
    arguments: &Backup,
    home: &Repository,
) -> Result<Vec<Target>, Failure> {
    let urls = &arguments.also;
    if !urls.is_empty() {
        home.require_collect("copy snapshots to other places")?;
    }
    let context = &home.context;
    let targets = urls.iter().map(|url| {
        let location = Location::parse(url).map_err(session::engine)?;
        let place = session::place(&location);
        let (context, reach) = (context.clone(), session::reach(app, &location)?);
        let open = Opener::new(move || open(&location, &context, &reach, Absent::Refuse));
        let patience = patience(app, arguments.give_up_after);
        Ok(Target { place, patience, ..Target::at(&url.to_string_lossy(), open) })
    });
    targets.collect()
}

/// Adds what came of the copies to what came of the backup.
///
/// # Errors
/// When the output fails.
pub(super) fn add(
    app: &App,
    urls: &[OsString],
    copies: Result<ReplicateReport, Error>,
    mut backup: Finished,
) -> Result<Finished, Failure> {
    let report = match copies {
        Ok(report) => report,
        Err(error) => {
            let failure = Failure::from(error);
            app.printer.failure(&failure);
            return Ok(backup.but(failure.exit, failure.code, failure.message));
        }
    };
    let places = urls.iter().map(|url| (url.to_string_lossy().into_owned(), Within::Never));
    let copied = show(app, &places.collect::<Vec<_>>(), &report, (false, Shard::ALL))?;
    if let Some((code, fact)) = copied.reason {
        let exit = backup.exit.worst(copied.exit);
        backup = backup.but(exit, code, fact);
    }
    Ok(backup)
}

fn show(
    app: &App,
    places: &[(String, Within)],
    report: &ReplicateReport,
    (dry_run, shard): (bool, Shard),
) -> Result<Finished, Failure> {
    if let Some(cancelled) = cancelled(report) {
        return Err(cancelled);
    }
    let (mut worst, mut failed, mut damaged, mut waiting) = (ExitCode::Done, Vec::new(), 0, 0);
    let mut spared = 0;
    let mut unerased: Option<(ExitCode, &'static str, String)> = None;
    let part = (!shard.is_all()).then(|| shard.to_string());
    let mut first: Option<Failure> = None;
    for ((url, within), outcome) in places.iter().zip(&report.replicas) {
        app.printer.event(&objects::Replica::new(url, outcome, dry_run))?;
        match &outcome.done {
            Ok(done) => {
                let share = part.as_ref().map(|part| format!("share {part}: "));
                let line = line(outcome, done, dry_run);
                app.printer.line(&format!("{}{line}", share.unwrap_or_default()))?;
                waiting += done.waiting.len() as u64;
                damaged += done.damaged.len() as u64;
                spared += done.spared.len() as u64;
                let collected = done.collected.as_ref();
                let verdict =
                    collected.and_then(|report| gc::verdict(report, gc::latest_ms(*within)));
                if let Some((exit, code, fact)) = verdict
                    && unerased.as_ref().is_none_or(|(known, ..)| known.worst(exit) != *known)
                {
                    unerased = Some((exit, code, format!("{}: {fact}", outcome.name)));
                }
            }
            Err(error) => {
                let mut failure = Failure::of(error);
                failure.message = format!("{}: {}", outcome.name, failure.message);
                worst = worst.worst(failure.exit);
                app.printer.failure(&failure);
                failed.push(outcome.name.clone());
                first.get_or_insert(failure);
            }
        }
    }
    let all = report.replicas.len() as u64;
    if waiting > 0 {
        app.printer.note(&format!(
            "{} visible when the other shares have brought the rest.",
            format::plural(waiting, "snapshot becomes", "snapshots become"),
        ));
    }
    let finished = Finished::with(json!({
        "dry_run": dry_run,
        "shard": part,
        "waiting": waiting,
        "replicas": all,
        "failed": failed,
        "damaged": damaged,
        "spared": spared,
        "packs_read": report.packs_read,
        "bytes_read": report.bytes_read,
    }));
    if let Some(first) = first {
        let fact = format!(
            "{} of {} could not be brought up to date",
            failed.len(),
            format::plural(all, "replica", "replicas"),
        );
        return Ok(finished.but(worst, first.code, fact));
    }
    if damaged > 0 {
        let what = format::plural(damaged, "snapshot", "snapshots");
        let fact = format!("{what} could not be copied because of damage in the home copy");
        return Ok(finished.but(ExitCode::Damage, "repository.damaged", fact));
    }
    if spared > 0 {
        let what = format::plural(spared, "snapshot", "snapshots");
        let fact = format!(
            "home lacks {what} that nobody forgot there; replicas keep what it lacks (copy it back from \
             there, or say with --forget-missing that it is meant to be gone)"
        );
        return Ok(finished.but(ExitCode::Damage, "replica.spared", fact));
    }
    match unerased {
        Some((exit, code, fact)) => Ok(finished.but(exit, code, fact)),
        None => Ok(finished),
    }
}

/// Whoever asked to stop is not told of every replica.
fn cancelled(report: &ReplicateReport) -> Option<Failure> {
    let mut errors = report.replicas.iter().filter_map(|outcome| outcome.done.as_ref().err());
    errors.find(|error| matches!(error, Error::Cancelled)).map(|error| Failure::of(error))
}

fn line(outcome: &Outcome, done: &Done, dry_run: bool) -> String {
    let name = format::name(outcome.name.as_bytes());
    let copied = format::plural(done.copied.len() as u64, "snapshot", "snapshots");
    if dry_run {
        return format!(
            "{name} (dry run): {copied} to copy, {} of content it lacks, {} to forget, {} in the end",
            format::bytes(done.bytes_plain),
            format::count(done.forgotten),
            format::count(done.wanted),
        );
    }
    let mut text = format!(
        "{name}: {copied} copied, {} in {}, {} forgotten, {} there, {}",
        format::bytes(done.bytes_written),
        format::plural(done.packs_moved + done.packs_written, "pack", "packs"),
        format::count(done.forgotten),
        format::count(done.wanted.saturating_sub(done.waiting.len() as u64)),
        format::duration(done.elapsed_ms),
    );
    if !done.waiting.is_empty() {
        let waiting = done.waiting.len() as u64;
        text.push_str(&format!(", {} incomplete", format::count(waiting)));
    }
    if !done.spared.is_empty() {
        text.push_str(&format!(
            ", {} kept that home lacks",
            format::count(done.spared.len() as u64)
        ));
    }
    if let Some(collected) = &done.collected {
        text.push_str(&format!(", {} erased", format::bytes(collected.bytes_deleted)));
    }
    if let Some(traffic) = &done.traffic {
        let requests = traffic.total();
        text.push_str(&format!(", {}", format::plural(requests.sent, "request", "requests")));
    }
    text
}

const COLUMNS: [(&str, Align); 8] = [
    ("REPLICA", Align::Left),
    ("SNAPSHOTS", Align::Right),
    ("NEWEST", Align::Left),
    ("BEHIND", Align::Right),
    ("LAST SUCCESS", Align::Left),
    ("WRITTEN", Align::Right),
    ("EXPIRED SINCE", Align::Left),
    ("", Align::Left),
];

/// What this host knows of its replicas; asks none of them.
fn status(app: &App, home: &Repository, chosen: &[Replica]) -> Result<Finished, Failure> {
    let newest_ms = newest(home)?;
    let places = Places::new(&home.context.cache_dir);
    let mut table = Table::new(&COLUMNS);
    let (mut failing, mut overdue) = (0_u64, 0_u64);
    let now_ms = home.context.clock.now_ms();
    for replica in chosen {
        let location = Location::parse(OsStr::new(&replica.url)).map_err(session::engine)?;
        let place = session::place(&location);
        let known = places.as_ref().zip(place).and_then(|(places, place)| places.recall(&place));
        let known = known.and_then(|Place { replication, .. }| replication);
        let expired_ms = match within(replica) {
            Within::Never => None,
            Within::Milliseconds(within_ms) => Some(now_ms.saturating_sub_unsigned(within_ms)),
        };
        let (name, url) = (&replica.name, &replica.url);
        let state = objects::ReplicaState::new(name, url, known.as_ref(), newest_ms, expired_ms);
        failing += u64::from(state.error().is_some());
        overdue += u64::from(state.is_overdue());
        app.printer.event(&state)?;
        table.row(row(name, known.as_ref(), &state));
    }
    for line in table.lines() {
        app.printer.line(&line)?;
    }
    Ok(Finished::with(json!({
        "dry_run": true,
        "shard": null,
        "waiting": 0,
        "replicas": chosen.len(),
        "failed": [],
        "damaged": 0,
        "spared": 0,
        "packs_read": 0,
        "bytes_read": 0,
    })))
    .map(|finished| match (failing, overdue) {
        (0, 0) => finished,
        (0, _) => finished.but(
            ExitCode::Stale,
            "replicate.overdue",
            format!(
                "expired data may be on {} for longer than it may",
                format::plural(overdue, "replica", "replicas")
            ),
        ),
        _ => finished.but(
            ExitCode::Failed,
            "replicate.failing",
            format!(
                "the last replication to {} failed, or left something undone",
                format::plural(failing, "replica", "replicas")
            ),
        ),
    })
}

fn row(name: &str, known: Option<&Replication>, state: &objects::ReplicaState<'_>) -> Vec<String> {
    let name = format::name(name.as_bytes());
    let Some(known) = known else {
        let mut cells = vec![String::new(); COLUMNS.len()];
        cells[0] = name;
        cells[COLUMNS.len() - 1] = "never replicated from this host".to_owned();
        return cells;
    };
    let time = |ms: Option<i64>| ms.map(format::local_time).unwrap_or_default();
    vec![
        name,
        format::count(known.snapshots),
        time(known.newest_ms),
        state.behind_s().map(|s| format::duration(s.saturating_mul(1000))).unwrap_or_default(),
        time(known.done_ms),
        format::bytes(known.bytes_total),
        match state.is_overdue() {
            true => format!("{} OVERDUE", time(known.dead_since_ms)),
            false => time(known.dead_since_ms),
        },
        state.error().map(|text| format!("failed: {}", format::text(text))).unwrap_or_default(),
    ]
}

/// When the newest acknowledged snapshot at home was committed.
fn newest(home: &Repository) -> Result<Option<i64>, Failure> {
    let listed = snapshots::list(home)?;
    let acknowledged = listed.iter().filter(|snapshot| snapshot.acknowledged);
    Ok(acknowledged.map(|snapshot| snapshot.record.finished_ms).max())
}
