//! `cairn mount`

use std::os::unix::ffi::OsStrExt as _;

use cairn_engine::ops::browse::{View, ViewOptions};
use serde_json::json;

use super::{App, Finished, restore};
use crate::arguments::Mount;
use crate::exit_code::ExitCode;
use crate::mount::{self, Access, Ended};
use crate::session::{self, Show};
use crate::ui::errors::{CliError, Failure};
use crate::ui::{format, json as objects};

pub(super) fn run(app: &App, arguments: &Mount) -> Result<Finished, Failure> {
    // Before the passphrase is asked for.
    mount::check(&arguments.directory)?;
    let mut session = session::open(app, Show::Progress)?;
    for url in &arguments.fallback {
        session::add_fallback(app, &mut session, url)?;
    }
    let repository = &session.repository;
    let user = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let options = ViewOptions {
        snapshot: arguments.snapshot.clone(),
        job: arguments.job.clone(),
        tags: arguments.tags.clone(),
        numeric_owner: arguments.numeric_owner,
        owner: user,
    };
    let view = View::open(repository, options)?;
    drop(session.shown);
    let directory = &arguments.directory;
    let access = if arguments.allow_other { Access::Everybody } else { Access::Owner };
    let name = format::name(directory.as_os_str().as_bytes());
    let asked = app.interrupt.flag();
    let (ended, view) = mount::serve(view, directory, access, &asked, |view| {
        mounted(app, arguments, view).map_err(Failure::from)
    })?;
    let report = view.report();
    let (snapshots, damaged, failed) = (view.snapshots(), report.damaged, report.failed);
    drop(view);
    if ended == Ended::AskedInUse {
        app.printer.note(&format!("{name} was in use: what still reads there gets errors"));
    }
    app.printer.summary(&format!("unmounted {name}: {} read", format::bytes(report.bytes_read)))?;
    let elsewhere = restore::note_elsewhere(app, repository);
    let mut finished = Finished::with(json!({
        "snapshots": snapshots,
        "bytes_read": report.bytes_read,
        "damaged": damaged,
        "failed": failed,
        "chunks_elsewhere": elsewhere,
        "in_use": ended == Ended::AskedInUse,
    }));
    if failed > 0 {
        let what = format::plural(failed, "file or directory", "files or directories");
        let fact = format!("{what} could not be read");
        finished = finished.but(ExitCode::Failed, "mount.unread", fact);
    }
    if damaged > 0 {
        let what = format::plural(damaged, "file or directory", "files or directories");
        let fact = format!("{what} could not be read, because the repository is damaged");
        finished = finished.but(ExitCode::Damage, "repository.damaged", fact);
    }
    Ok(finished)
}

/// Says that it is there, and how it is ended.
fn mounted(app: &App, arguments: &Mount, view: &View<'_>) -> Result<(), CliError> {
    let directory = arguments.directory.as_os_str().as_bytes();
    let name = format::name(directory);
    app.printer.event(&objects::Mounted::new(directory, view.snapshots()))?;
    let count = format::plural(view.snapshots() as u64, "snapshot", "snapshots");
    let end = if rustix::process::geteuid().is_root() { "umount" } else { "fusermount3 -u" };
    app.printer.summary(&format!("mounted at {name}: {count}, read-only"))?;
    app.printer.flush()?;
    app.printer.note(&format!("it ends with Ctrl-C, or `{end} {name}`"));
    Ok(())
}
