//! The part of help and manual that belongs to no single option.

use crate::exit_code::ExitCode;
use crate::settings;

/// What `forget --help` says about the rules.
pub const FORGET: &str = "\
A snapshot stays if any rule keeps it; without a rule everything is kept. Where no rule is given,
those of the configuration file are taken: its section [retention] has the options by their names,
as keep-daily = 30, erase-within = \"72h\", job, time-zone; and repo, where it is for that one only.
Rules apply to each job, within a job to each writer's key, and only to acknowledged snapshots. Its
time is when it was committed, and ages are counted back from the newest commit in the repository.

Of each hour, day, ISO week, month or year the newest is kept; periods without a snapshot do not
count. The newest snapshot of a job and those tagged `pin` always stay. What a forgotten snapshot
held stays stored until `cairn gc` collects it.

Refused (exit 4), changing nothing: a clock that is more than 5 minutes off the storage's; snapshots
in the future; an incomplete listing. Where the storage is this machine's own disk, and so cannot
tell whether the clock is right, a pause between backups that is longer than usual does not count as
age, and one of more than 35 days and longer than the rules reach back is refused. With
--trust-clock all of that counts.";

/// After the options of `mount`.
pub const MOUNT: &str = "\
Below DIR are:
  snapshots/TIME-ID/   each snapshot with its full paths, as `restore` would make them; times in UTC
  jobs/JOB/            links to those of one job, and to its latest
  latest               a link to the newest

It stays in the foreground, reads only what is looked at, and ends with Ctrl-C, SIGTERM, or
`umount DIR` (without root: `fusermount3 -u DIR`). Snapshots that are made meanwhile appear within a
minute, forgotten ones vanish. A file that is damaged gives an I/O error, and a line on standard
error says why; everything else can be read. Exit code 5 if there were such.

It takes /dev/fuse, and without root the program fusermount3 (Debian: apt install fuse3). Root's
mounts, and those with --allow-other, obey modes and owners; anybody else's mount is for that user
alone, who holds the key and may read all of it. Set-id bits and devices have no effect.";

/// After the options of `erase`.
pub const ERASE: &str = "\
Snapshots that hold such paths are made anew without them: same times, job, host, tags and history,
signed by whoever erases, which takes an owner's or maintainer's key. Everything else in them is as
it was. Then what no snapshot needs any more is deleted, with signed receipts.

What other paths hold as well stays stored for their sake, and is counted. What is still at the
source comes back with the next backup. Nothing is asked; --dry-run shows what would go. It can be
interrupted and run again.

Refused (exit 4), changing nothing: a path that is in no snapshot; one that does not begin at the
root (write /path or '**/path'); a pattern that is also the name of an entry; that nothing is left.";

/// After the options of `erasure report`.
pub const ERASURE: &str = "\
Receipts are signed, and each names the one before. Their objects were looked for by name, in
listings, and where the storage keeps versions among these; they count as confirmed once that was
done twice, a day or more apart. `cairn gc` looks for the second time by itself.

Exit code 6 when something is pending for longer than it may, 5 when receipts are missing or do not
hold.";

/// What `replicate --help` says about replicas.
pub const REPLICATE: &str = "\
A replica is a complete repository with the same keys: every command works on it alone, with
--repo, also where the home copy is gone. Without rules it gets every acknowledged snapshot, and
forgets what came from home and was forgotten or erased there; what home merely lacks stays, with
exit code 5: copy it back (--repo REPLICA replicate --to HOME), or say with --forget-missing that it
is meant to be gone. With rules it keeps what these keep of the
snapshots of both together, so that it may keep longer than home does. Rules are those of `forget`.

A new replica is made only with --create: without it a disk that is not mounted, or a name that is
misspelt, would get everything anew. It goes for the replicas of the configuration file as well;
`backup --also` makes none.

What it lacks is found out by comparing trees; packs of which everything is wanted go as they are.
Several replicas are written at once, and none waits for another: one that fails ends with its own
error, and the exit code is the gravest of all. One whose place gets nowhere for --give-up-after is
given up, with exit code 13. Interrupted anywhere, run it again.

The configuration file names replicas:

  [[replica]]
  name = \"offsite\"
  url = \"s3://bucket/prefix\"
  keep-monthly = 12
  erase-within = \"72h\"

with the keys name, url, repo (only of this repository), job, keep-last, keep-hourly, keep-daily,
keep-weekly, keep-monthly, keep-yearly, keep-within, keep-within-hourly, keep-within-daily,
keep-within-weekly, keep-within-monthly, keep-within-yearly, keep-tag (a list), time-zone,
erase-within, max-delete and trust-clock.

It also says what places are reached with that are in another region, at another vendor or on
another host than home; these hold for --to, --also, --fallback, --from and --repo as well:

  [[place]]
  url = \"s3://bucket/prefix\"
  [place.env]
  AWS_REGION = \"eu-central-1\"
  AWS_ACCESS_KEY_ID = \"AKIA...\"
  AWS_SECRET_ACCESS_KEY = { file = \"/etc/cairn/second-region.key\" }

for all that lies below url; of several the longest counts. Such a place gets the variables that are
named there, in the place of those of the environment, and nothing else: none of the environment, no
profile but one that AWS_PROFILE names, no identity of the machine. Secrets are kept elsewhere: in a
file = \"...\", in a variable env = \"...\", or printed by a command = \"...\". With the line
inherit-credentials = true the credentials are those of the environment; only regions, endpoints,
accounts and buckets may be named.

What a provider bills for requests may stand there, for `cairn stats --requests` to say what they cost:

  [[price]]
  url = \"s3://bucket\"
  currency = \"USD\"
  per-thousand = { write = 0.005, list = 0.005, read = 0.0004, look = 0.0004 }
  per-gb-received = 0.09

with per-gb-sent, and requests of the kinds delete and other; what is not named is free.";

/// What locks are, how long they reach, and who may set them.
pub const LOCK: &str = "\
On S3 with Object Lock switched on for the bucket. What a restore cannot do without is locked: packs,
snapshots, acknowledgements, keys, configuration. Nobody can then delete it for good before its time,
whatever credentials they have come by; a deletion only hides it behind a mark.

Best give the bucket a default retention as well: it locks what is written at once. `lock extend` then
keeps in step what is still needed. An object is asked to be locked once in a quarter of --for, and
at least three quarters are left afterwards to what is needed for longer. With rules, those of
`forget`, what only snapshots need that go sooner is locked no longer than until then.

Locks reach no further than --erase-within, so that what is forgotten can still be erased in time.
`lock status` ends with exit code 6 when something is needed and its lock is about to lapse, or it
has none: run it from monitoring. Both end with 6 when something is needed and not there, or a snapshot
that this host has seen is gone and nobody forgot it: somebody may have hidden it behind a mark of
deletion, and its lock runs out below that. Delete the marks at the storage. The key needs s3:GetObjectRetention and s3:PutObjectRetention.";

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
    text.push_str(
        "  A [[place]] of the configuration file is reached with what is named there instead: see \
         `cairn\n  replicate --help`.\n",
    );
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
