//! The part of help and manual that belongs to no single option.

use crate::exit_code::ExitCode;
use crate::settings;

/// What `forget --help` says about the rules.
pub const FORGET: &str = "\
A snapshot stays if any rule keeps it; without a rule nothing is forgotten. Rules apply to each
job, within a job to each writer's key, and only to acknowledged snapshots. Its time is when it was
committed, and ages are counted back from the newest commit in the repository.

Of each hour, day, ISO week, month or year the newest is kept; periods without a snapshot do not
count. The newest snapshot of a job and those tagged `pin` always stay. What a forgotten snapshot
held stays stored until `cairn gc` collects it.

Refused (exit 4), changing nothing: snapshots in the future; a gap in the commits that is longer
than the rules reach back, as a wrong clock leaves; an incomplete listing.";

/// What `replicate --help` says about replicas.
pub const REPLICATE: &str = "\
A replica is a complete repository with the same keys: every command works on it alone, with
--repo, also where the home copy is gone. Without rules it gets every acknowledged snapshot, and
forgets what came from home and was forgotten there; with rules it keeps what these keep of the
snapshots of both together, so that it may keep longer than home does. Rules are those of `forget`.

What it lacks is found out by comparing trees; packs of which everything is wanted go as they are.
Several replicas are written at once, and none waits for another: one that fails ends with its own
error, and the exit code is the gravest of all. Interrupted anywhere, run it again.

The configuration file names replicas:

  [[replica]]
  name = \"offsite\"
  url = \"s3://bucket/prefix\"
  keep-monthly = 12
  erase-within = \"72h\"

with the keys name, url, repo (only of this repository), job, keep-last, keep-hourly, keep-daily,
keep-weekly, keep-monthly, keep-yearly, keep-within, keep-tag (a list), time-zone, erase-within and
max-delete.";

/// Environment variables and exit codes, as a block of text.
#[must_use]
pub fn environment_and_exit_codes() -> String {
    let mut text = String::from("Environment (options win over variables):\n");
    for (name, meaning) in settings::VARIABLES {
        text.push_str(&format!("  {name:<23} {meaning}\n"));
    }
    text.push_str(
        "\nRemote storage is reached with what is found here, never with what is in the URL:\n",
    );
    for (kind, found) in settings::STORAGE_VARIABLES {
        text.push_str(&format!("  {kind:<11} {found}\n"));
    }
    text.push_str("\nExit codes (of several, the gravest):\n");
    for (code, meaning) in ExitCode::DOCUMENTED {
        text.push_str(&format!("  {:<4} {meaning}\n", code.number()));
    }
    text.push_str("  130, 143  ended by Ctrl-C, by a request to terminate\n");
    text.push_str("  141  standard output was closed before everything was written\n");
    text.push_str(
        "\nData goes to standard output, everything else to standard error. With --json every\n\
         line of standard output is a JSON object, and the last one has the type `result`.",
    );
    text
}
