//! The command line, defined once: parser, help, manual pages and completions come from here.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use cairn_engine::ops::shard::Shard;
use cairn_engine::parity::PARITY_PER_MILLE_MAX;
use cairn_engine::retention::Age;

use crate::help;
use crate::ui::format::parse_bytes;

/// Back up, restore and verify large data: deduplicated, compressed, encrypted.
#[derive(Debug, Parser)]
#[command(
    name = "cairn",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    after_long_help = help::environment_and_exit_codes(),
    max_term_width = 100
)]
pub struct Arguments {
    /// What applies to every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What applies to every command.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// The repository: a path, or URL such as s3://bucket/prefix, azblob://container/prefix,
    /// gcs://bucket/prefix, sftp://user@host/path or webdav://host/path
    #[arg(short, long, global = true, value_name = "URL", help_heading = "Repository and key")]
    pub repo: Option<OsString>,
    /// Read the passphrase from a file (one trailing newline is dropped)
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Repository and key")]
    pub password_file: Option<PathBuf>,
    /// Read the passphrase from the output of a command, run by `/bin/sh -c`
    #[arg(long, global = true, value_name = "COMMAND", value_hint = ValueHint::CommandString, help_heading = "Repository and key")]
    pub password_command: Option<OsString>,
    /// Use the content of a file as key, byte by byte
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Repository and key")]
    pub key_file: Option<PathBuf>,
    /// Use the output of a command as key (e.g. a KMS client), run by `/bin/sh -c`
    #[arg(long, global = true, value_name = "COMMAND", value_hint = ValueHint::CommandString, help_heading = "Repository and key")]
    pub key_command: Option<OsString>,
    /// Use an X25519 identity made by `key new-recipient`
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Repository and key")]
    pub identity_file: Option<PathBuf>,
    /// Folder for local caches
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Repository and key")]
    pub cache_dir: Option<PathBuf>,
    /// Configuration file: replicas by name
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Repository and key")]
    pub config: Option<PathBuf>,
    /// Memory the local index may use
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Repository and key")]
    pub index_memory: Option<u64>,
    /// Most bytes of objects sent in a second, in the mean over a pack; to remote storage only
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_rate, help_heading = "Remote storage")]
    pub limit_upload: Option<NonZeroU64>,
    /// Most bytes of objects received in a second, in the mean
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_rate, help_heading = "Remote storage")]
    pub limit_download: Option<NonZeroU64>,
    /// Most requests at once, listings not counted [default: 16]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Remote storage")]
    pub connections: Option<u16>,
    /// Print one JSON object a line on standard output, the last one with the result
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// Only data, warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,
    /// Say more
    #[arg(short, long, global = true, help_heading = "Output")]
    pub verbose: bool,
    /// When to colour
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Output"
    )]
    pub color: Color,
}

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set or TERM is `dumb`.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new repository
    Init(Init),
    /// Make a snapshot of files, of standard input, or of a command's output
    Backup(Box<Backup>),
    /// List snapshots
    Snapshots(Snapshots),
    /// List the entries of a snapshot
    Ls(Ls),
    /// Find entries by name or path in many snapshots
    Find(Find),
    /// Show what differs between two snapshots
    Diff(Diff),
    /// Write the content of one file to standard output
    Dump(Dump),
    /// Bring back a snapshot, a directory or a file
    Restore(Restore),
    /// Check that the repository holds what its snapshots need
    Verify(Verify),
    /// Forget snapshots that no rule keeps, or those that are named
    Forget(Box<Forget>),
    /// Delete what no snapshot needs
    Gc(Gc),
    /// Erase snapshots, a job, or paths out of all snapshots, for good
    Erase(Erase),
    /// Show what was erased and what is pending
    #[command(subcommand)]
    Erasure(Erasure),
    /// Make or update copies of the repository in other places
    Replicate(Box<Replicate>),
    /// Extend the locks on what snapshots need, or see whether they hold
    #[command(subcommand)]
    Lock(Lock),
    /// Show what the repository holds and what it costs
    Stats(Stats),
    /// Manage the keys that open the repository
    #[command(subcommand)]
    Key(Key),
    /// Repair what `verify --level full` found damaged, or the index
    Repair(Repair),
    /// Manage local caches; deleting them costs time, never data
    #[command(subcommand)]
    Cache(Cache),
    /// Print a completion script
    Completions(Completions),
    /// Write the manual pages into a folder
    Man(Man),
    /// Show the version
    Version,
}

/// `init`
#[derive(Args, Debug)]
pub struct Init {
    /// Cipher of everything stored; by default AES-256-GCM where the processor has AES
    #[arg(long, value_name = "CIPHER")]
    pub cipher: Option<Cipher>,
    /// Name of the first key, for people
    #[arg(long, value_name = "TEXT", default_value = "owner")]
    pub label: String,
    /// Length at which a pack is closed
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub pack_size: Option<u64>,
    /// Add parity to each pack, so that damage of up to about this share of a pack heals without
    /// another copy: 0.1% to 50%. It costs as much room
    #[arg(long, value_name = "PERCENT", value_parser = parse_parity)]
    pub parity: Option<ParityShare>,
    /// How soon what expired must be gone: storage that locks objects for longer is refused. `72h`,
    /// `7d`, or `never`
    #[arg(long, value_name = "TIME", default_value = "72h", value_parser = parse_within)]
    pub erase_within: Within,
    /// Say what would be made
    #[arg(long)]
    pub dry_run: bool,
}

/// Ciphers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cipher {
    /// Fastest where the processor has AES.
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    /// Fast everywhere.
    #[value(name = "xchacha20-poly1305")]
    XChaCha20Poly1305,
}

/// `backup`
#[derive(Args, Debug)]
pub struct Backup {
    /// Files, directories and devices
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// Back up standard input
    #[arg(long, requires = "stdin_name", conflicts_with = "command", help_heading = "Source")]
    pub stdin: bool,
    /// Name of the stream in the snapshot
    #[arg(long, value_name = "NAME", help_heading = "Source")]
    pub stdin_name: Option<String>,
    /// Back up the output of the command after `--`; if it fails, there is no snapshot
    #[arg(long, help_heading = "Source")]
    pub command: bool,
    /// The command of --command
    #[arg(last = true, value_name = "CMD", requires = "command", value_hint = ValueHint::CommandWithArguments)]
    pub argv: Vec<OsString>,
    /// Also back up the output of a command line, run by `/bin/sh -c`, as a stream of that name;
    /// may be repeated. If one fails, there is no snapshot
    #[arg(long = "stream", value_name = "NAME=COMMAND", help_heading = "Source")]
    pub streams: Vec<String>,

    /// Read paths from a file, one a line; `-` is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Source")]
    pub files_from: Vec<PathBuf>,
    /// Read paths from a file, separated by NUL; `-` is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Source")]
    pub files_from0: Vec<PathBuf>,
    /// Name of the job, which retention and comparison go by [default: the host's name]
    #[arg(long, value_name = "NAME", help_heading = "Snapshot")]
    pub job: Option<String>,
    /// Tag of the snapshot; may be repeated
    #[arg(long = "tag", value_name = "TAG", help_heading = "Snapshot")]
    pub tags: Vec<String>,
    /// Host to record instead of this one
    #[arg(long, value_name = "NAME", help_heading = "Snapshot")]
    pub host: Option<String>,
    /// Leave out what matches, in gitignore syntax; may be repeated
    #[arg(long = "exclude", value_name = "GLOB", help_heading = "Filter")]
    pub excludes: Vec<String>,
    /// Leave out what matches a line of the file
    #[arg(long = "exclude-file", value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Filter")]
    pub exclude_files: Vec<PathBuf>,
    /// Leave out files longer than this
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Filter")]
    pub exclude_larger_than: Option<u64>,
    /// Leave out the content of directories marked with CACHEDIR.TAG
    #[arg(long, help_heading = "Filter")]
    pub exclude_caches: bool,
    /// Do not cross into other file systems
    #[arg(short = 'x', long, help_heading = "Filter")]
    pub one_file_system: bool,
    /// Cut all content this way instead of choosing for each file
    #[arg(long, value_name = "PROFILE", help_heading = "Reading and storing")]
    pub profile: Option<Profile>,
    /// Read files again that seem unchanged
    #[arg(long, help_heading = "Reading and storing")]
    pub reread: bool,
    /// Store chunks that changed whole, not as deltas against what was there before
    #[arg(long, help_heading = "Reading and storing")]
    pub no_delta: bool,
    /// Zstandard level, 1 to 19 [default: 3]
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(i32).range(1..=19), help_heading = "Reading and storing")]
    pub compression_level: Option<i32>,
    /// Also copy the snapshot to this place when it is done; may be repeated. A place that fails does
    /// not undo the backup
    #[arg(long, value_name = "URL", conflicts_with = "dry_run", help_heading = "Snapshot")]
    pub also: Vec<OsString>,
    /// Say what would be backed up
    #[arg(long, help_heading = "Reading and storing")]
    pub dry_run: bool,
    /// Say at the end where the time went, and what limited it
    #[arg(long)]
    pub timings: bool,
}

/// How content is cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Where the content says; for dumps, archives, documents.
    Cdc,
    /// Page by page; for the files of databases.
    Aligned,
    /// Fixed lengths; for devices and disk images.
    Fixed,
}

/// `snapshots`
#[derive(Args, Debug)]
pub struct Snapshots {
    /// Only of this job
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// Only with this tag; if repeated, with all of them
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Only of this host
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Only the newest N of those
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
}

/// `ls`
#[derive(Args, Debug)]
pub struct Ls {
    /// Snapshot, and the path in it: a unique prefix of its id, `latest`, `latest~1`,
    /// `job:NAME` or `@TIME`
    #[arg(value_name = "SNAP[:/PATH]")]
    pub snapshot: OsString,
    /// Show mode, owner, size and time
    #[arg(short, long)]
    pub long: bool,
    /// Show everything below
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// `find`
#[derive(Args, Debug)]
pub struct Find {
    /// Globs; one with a slash is matched against the whole path, else against the name
    #[arg(value_name = "PATTERN", required = true)]
    pub patterns: Vec<String>,
    /// Only in snapshots of this job
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// Only in this snapshot
    #[arg(long, value_name = "SNAP", conflicts_with = "job")]
    pub snapshot: Option<String>,
}

/// `diff`
#[derive(Args, Debug)]
pub struct Diff {
    /// The older snapshot
    #[arg(value_name = "A")]
    pub old: OsString,
    /// The newer snapshot, and the path that is compared
    #[arg(value_name = "B[:/PATH]")]
    pub new: OsString,
}

/// `dump`
#[derive(Args, Debug)]
pub struct Dump {
    /// Snapshot and the file in it
    #[arg(value_name = "SNAP:/PATH")]
    pub source: OsString,
    /// Another copy of the repository: what is damaged or missing in this one is read from there; may
    /// be repeated
    #[arg(long, value_name = "URL")]
    pub fallback: Vec<OsString>,
}

/// `restore`
#[derive(Args, Debug)]
pub struct Restore {
    /// Snapshot: its full paths are made below the target; with a path: that directory's content
    #[arg(value_name = "SNAP[:/PATH]")]
    pub source: OsString,
    /// Directory to restore into; made if missing
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub target: PathBuf,
    /// Bring an existing tree to the snapshot's state, writing only what differs
    #[arg(long)]
    pub delta: bool,
    /// Restore into a directory that is not empty, replacing what is in the way
    #[arg(long)]
    pub overwrite: bool,
    /// Go on after damage and restore everything not touched by it
    #[arg(long)]
    pub keep_going: bool,
    /// Make device nodes even if not root; root always does
    #[arg(long)]
    pub devices: bool,
    /// Owners by number, not by name
    #[arg(long)]
    pub numeric_owner: bool,
    /// Another copy of the repository: what is damaged or missing in this one is read from there; may
    /// be repeated
    #[arg(long, value_name = "URL")]
    pub fallback: Vec<OsString>,
    /// Say at the end where the time went, and what limited it
    #[arg(long)]
    pub timings: bool,
    /// Say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// `verify`
#[derive(Args, Debug)]
pub struct Verify {
    /// How thoroughly
    #[arg(long, value_name = "LEVEL", default_value = "structure")]
    pub level: Level,
    /// How many percent of the packs a sample reads, those first that were verified longest ago
    #[arg(long, value_name = "N", default_value = "10", value_parser = parse_percent)]
    pub sample_percent: f64,
    /// Only share I of N: several hosts verify a part each, and all of them everything
    #[arg(long, value_name = "I/N", default_value = "1/1", hide_default_value = true)]
    pub shard: Shard,
    /// Say at the end where the time went, and what limited it
    #[arg(long)]
    pub timings: bool,
}

/// `gc`
#[derive(Args, Debug)]
pub struct Gc {
    /// How many percent of what stays may be data that no snapshot needs, and whether what others
    /// are stored against may stay for their sake; 0 leaves none of it
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = parse_share)]
    pub max_dead: f64,
    /// Leave no expired data for longer than this, whatever --max-dead says: `72h`, `7d`, or `never`.
    /// Needs a collection at least as often
    #[arg(long, value_name = "TIME", default_value = "72h", value_parser = parse_within)]
    pub erase_within: Within,
    /// Refuse to free more than this share of the repository
    #[arg(long, value_name = "PERCENT", default_value = "50", value_parser = parse_share)]
    pub max_delete: f64,
    /// Collect also what a backup at work has stored but not yet named in a snapshot: it stores that
    /// again. Leases of processes that died run out after a day
    #[arg(long)]
    pub ignore_leases: bool,
    /// Read everything that says what is needed, whatever this host remembers of it from earlier
    /// collections; what it remembers is forgotten
    #[arg(long)]
    pub full_mark: bool,
    /// Say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// `erase`
#[derive(Args, Debug)]
#[command(after_long_help = help::ERASE)]
#[command(group = clap::ArgGroup::new("what").multiple(true).required(true))]
pub struct Erase {
    /// Erase these paths: as `cairn ls` shows them, or patterns such as '/srv/**/alice.*'
    #[arg(long = "path", value_name = "PATH", num_args = 1.., group = "what")]
    pub paths: Vec<OsString>,
    /// Erase all snapshots of this job; with --path, these paths from them only
    #[arg(long, value_name = "NAME", group = "what")]
    pub job: Option<String>,
    /// Erase these snapshots: first digits of ids, `latest~1`, `job:NAME` or `@TIME`; with --path,
    /// these paths from them only
    #[arg(long = "snapshot", value_name = "SNAP", num_args = 1.., group = "what")]
    pub snapshots: Vec<String>,
    /// Refuse to free more than this share of the repository; 100 allows that no snapshot is left
    #[arg(long, value_name = "PERCENT", default_value = "50", value_parser = parse_share)]
    pub max_delete: f64,
    /// Leave it to the next `cairn gc --max-dead 0` to delete what was erased
    #[arg(long)]
    pub no_gc: bool,
    /// Say what would be erased, entry by entry
    #[arg(long)]
    pub dry_run: bool,
}

/// `erasure …`
#[derive(Debug, Subcommand)]
pub enum Erasure {
    /// Say what was deleted and how often its absence was seen, what is pending, and why
    Report(ErasureReport),
}

/// `erasure report`
#[derive(Args, Debug)]
#[command(after_long_help = help::ERASURE)]
pub struct ErasureReport {
    /// What is pending for longer than this is overdue: `72h`, `7d`, or `never`
    #[arg(long, value_name = "TIME", default_value = "72h", value_parser = parse_within)]
    pub erase_within: Within,
    /// How long the storage keeps deleted objects that it does not show (soft delete on Google and
    /// Azure): `7d`, or `never` when it is switched off [default: what the storage says, else 7d]
    #[arg(long, value_name = "TIME", value_parser = parse_within)]
    pub kept_for: Option<Within>,
    /// Look once more for everything that receipts name, delete what has come back, and write down
    /// what was seen
    #[arg(long)]
    pub audit: bool,
    /// Do not find out what no snapshot needs and is still stored, which takes as long as marking
    /// for a collection
    #[arg(long)]
    pub receipts_only: bool,
}

/// How thoroughly `verify` looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Everything is there and has its length; snapshots, trees and index fit together.
    Structure,
    /// The same, and a share of the packs is read and decoded.
    Sample,
    /// The same, and every pack is read and decoded.
    Full,
}

/// `forget`
#[derive(Args, Clone, Debug, Default)]
#[command(after_long_help = help::FORGET)]
pub struct Forget {
    /// Snapshots to forget whatever the rules say: first digits of ids, `latest~1`, `job:NAME`
    /// or `@TIME`
    #[arg(value_name = "SNAP", conflicts_with_all = ["rules", "job", "simulate"])]
    pub snapshots: Vec<String>,
    /// The rules.
    #[command(flatten)]
    pub keep: Keep,
    /// Only snapshots of this job
    #[arg(long, value_name = "NAME", help_heading = "Which snapshots")]
    pub job: Option<String>,
    /// Take all keys that signed snapshots of a job for one, e.g. after a host got a new key
    #[arg(long, help_heading = "Which snapshots")]
    pub join_writers: bool,
    /// Even forget the last acknowledged snapshot of a job
    #[arg(long, help_heading = "Which snapshots")]
    pub remove_last: bool,
    /// This host's clock is right: keep snapshots that lie in its future and go on, and count
    /// ages from now
    #[arg(long, help_heading = "Which snapshots")]
    pub trust_clock: bool,
    /// Say what would be forgotten
    #[arg(long)]
    pub dry_run: bool,
    /// Show what the rules would keep of imagined backups, from now on; needs no repository
    #[arg(long, conflicts_with_all = ["job", "dry_run"], help_heading = "Simulation")]
    pub simulate: bool,
    /// Time between imagined backups [default: 1h]
    #[arg(long, value_name = "AGE", requires = "simulate", help_heading = "Simulation")]
    pub simulate_every: Option<Age>,
    /// How long they are made [default: 13mo]
    #[arg(long, value_name = "AGE", requires = "simulate", help_heading = "Simulation")]
    pub simulate_for: Option<Age>,
}

/// The rules of a retention policy.
#[derive(Args, Clone, Debug, Default)]
#[group(id = "rules", multiple = true)]
pub struct Keep {
    /// Keep the N newest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Rules")]
    pub keep_last: Option<u32>,
    /// Keep the newest of each of the last N hours in which there is one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Rules")]
    pub keep_hourly: Option<u32>,
    /// Likewise, of days
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Rules")]
    pub keep_daily: Option<u32>,
    /// Likewise, of ISO weeks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Rules")]
    pub keep_weekly: Option<u32>,
    /// Likewise, of months
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Rules")]
    pub keep_monthly: Option<u32>,
    /// Likewise, of years
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Rules")]
    pub keep_yearly: Option<u32>,
    /// Keep everything not older than e.g. 36h, 30d, 2w, 12mo, 1y
    #[arg(long, value_name = "AGE", help_heading = "Rules")]
    pub keep_within: Option<Age>,
    /// Keep the newest of each hour not older than this
    #[arg(long, value_name = "AGE", help_heading = "Rules")]
    pub keep_within_hourly: Option<Age>,
    /// Likewise, of each day
    #[arg(long, value_name = "AGE", help_heading = "Rules")]
    pub keep_within_daily: Option<Age>,
    /// Likewise, of each ISO week
    #[arg(long, value_name = "AGE", help_heading = "Rules")]
    pub keep_within_weekly: Option<Age>,
    /// Likewise, of each month
    #[arg(long, value_name = "AGE", help_heading = "Rules")]
    pub keep_within_monthly: Option<Age>,
    /// Likewise, of each year
    #[arg(long, value_name = "AGE", help_heading = "Rules")]
    pub keep_within_yearly: Option<Age>,
    /// Keep what has this tag; may be repeated. The tag `pin` is always kept
    #[arg(long = "keep-tag", value_name = "TAG", help_heading = "Rules")]
    pub keep_tags: Vec<String>,
    /// Whose calendar has the hours, days and months: UTC, local, or e.g. Europe/Berlin
    /// [default: UTC]
    #[arg(long, value_name = "ZONE", help_heading = "Rules")]
    pub time_zone: Option<String>,
}

/// `replicate`
#[derive(Args, Debug)]
#[command(after_long_help = help::REPLICATE)]
pub struct Replicate {
    /// Replicas of the configuration file [default: all of them]
    #[arg(value_name = "NAME", conflicts_with_all = ["to", "rules", "job", "erase_within", "max_delete"])]
    pub names: Vec<String>,
    /// Place of a replica. May be repeated: what is read is read once for all
    #[arg(long, value_name = "URL")]
    pub to: Vec<OsString>,
    /// Make a new replica where there is none; without it that is refused, as of a disk that is not
    /// mounted or a name that is misspelt. The folder above it must be there
    #[arg(long, conflicts_with = "status")]
    pub create: bool,
    /// The rules.
    #[command(flatten)]
    pub keep: Keep,
    /// Only snapshots of this job
    #[arg(long, value_name = "NAME", help_heading = "Which snapshots")]
    pub job: Option<String>,
    /// This host's clock is right: see `forget`
    #[arg(long, help_heading = "Which snapshots")]
    pub trust_clock: bool,
    /// Leave no expired data on the replica for longer than this: `72h`, `7d`, or `never`. Needs a
    /// replication at least as often [default: 72h]
    #[arg(long, value_name = "TIME", value_parser = parse_within)]
    pub erase_within: Option<Within>,
    /// Refuse to free more than this share of the replica
    #[arg(long, value_name = "PERCENT", default_value = "50", value_parser = parse_share)]
    pub max_delete: f64,
    /// Show what is known of the replicas on this host, without asking them
    #[arg(long, conflicts_with = "dry_run")]
    pub status: bool,
    /// Only share I of N: several hosts bring a part each. Whoever finds a snapshot complete makes it
    /// visible there
    #[arg(long, value_name = "I/N", default_value = "1/1", hide_default_value = true)]
    pub shard: Shard,
    /// Say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// `lock …`
#[derive(Debug, Subcommand)]
pub enum Lock {
    /// Lock what snapshots need against deletion, for a time ahead: run it daily, beside `gc`
    Extend(LockExtend),
    /// See whether everything that is needed is locked for long enough; changes nothing
    Status(LockStatus),
}

/// `lock extend`
#[derive(Args, Debug)]
#[command(after_long_help = help::LOCK)]
pub struct LockExtend {
    /// What is locked, and for how long.
    #[command(flatten)]
    pub which: LockArguments,
    /// Who may end a lock before its time: `compliance` nobody, `governance` whoever has
    /// s3:BypassGovernanceRetention. What is locked in the stronger mode stays so
    #[arg(long, value_name = "MODE", default_value = "compliance")]
    pub mode: Mode,
    /// Say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// `lock status`
#[derive(Args, Debug)]
#[command(after_long_help = help::LOCK)]
pub struct LockStatus {
    /// What is locked, and for how long.
    #[command(flatten)]
    pub which: LockArguments,
}

/// What is locked, and for how long.
#[derive(Args, Debug)]
pub struct LockArguments {
    /// How far ahead locks reach; at most as long as --erase-within, which is also the default
    #[arg(long = "for", value_name = "TIME", value_parser = parse_within)]
    pub window: Option<Within>,
    /// How long what expired may stay: locks do not outlast it. `72h`, `31d`, or `never`
    #[arg(long, value_name = "TIME", default_value = "72h", value_parser = parse_within)]
    pub erase_within: Within,
    /// With `status` or --dry-run, end with exit code 6 when something is needed and locked for less
    /// than this [default: a quarter of --for]
    #[arg(long, value_name = "TIME", value_parser = parse_within)]
    pub warn_below: Option<Within>,
    /// The rules.
    #[command(flatten)]
    pub keep: Keep,
    /// The rules go for this job only; what others need is locked for the whole time
    #[arg(long, value_name = "NAME", requires = "rules", help_heading = "Rules")]
    pub job: Option<String>,
}

/// Who may end a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Nobody.
    Compliance,
    /// Whoever has a right of its own for that.
    Governance,
}

/// `stats`
#[derive(Args, Debug)]
pub struct Stats {
    /// Also try out what the storage can do, with a small object that is deleted again
    #[arg(long)]
    pub probe: bool,
    /// Also show how many requests this command made, and the bytes they moved
    #[arg(long)]
    pub requests: bool,
}

/// `key …`
#[derive(Debug, Subcommand)]
pub enum Key {
    /// List the key slots; needs no key
    List,
    /// Add a key
    Add(KeyAdd),
    /// Remove a key
    Remove(KeyRemove),
    /// Make an X25519 identity in a new file, and print its public half
    NewRecipient(KeyNewRecipient),
}

/// `key add`
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("new").multiple(false))]
pub struct KeyAdd {
    /// What the key may do
    #[arg(long, value_name = "ROLE", default_value = "owner")]
    pub role: Role,
    /// Name of the key, for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub label: String,
    /// The new passphrase is in this file
    #[arg(long, value_name = "FILE", group = "new", value_hint = ValueHint::FilePath)]
    pub new_password_file: Option<PathBuf>,
    /// The new passphrase is the output of this command
    #[arg(long, value_name = "COMMAND", group = "new")]
    pub new_password_command: Option<OsString>,
    /// The new key is this file's content
    #[arg(long, value_name = "FILE", group = "new", value_hint = ValueHint::FilePath)]
    pub new_key_file: Option<PathBuf>,
    /// The new key is this command's output
    #[arg(long, value_name = "COMMAND", group = "new")]
    pub new_key_command: Option<OsString>,
    /// The new key is the identity with this public half
    #[arg(long, value_name = "PUBLIC", group = "new")]
    pub recipient: Option<String>,
    /// Say what would be added
    #[arg(long)]
    pub dry_run: bool,
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Everything, also managing keys.
    Owner,
    /// Backs up, and can read nothing.
    Writer,
    /// Lists, restores and verifies.
    Reader,
    /// A reader that also collects garbage.
    Maintainer,
}

/// `key remove`
#[derive(Args, Debug)]
pub struct KeyRemove {
    /// A unique prefix of the slot's id
    #[arg(value_name = "SLOT")]
    pub slot: String,
    /// Say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// `key new-recipient`
#[derive(Args, Debug)]
pub struct KeyNewRecipient {
    /// File to make; it must not exist
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

/// `repair …`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Repair {
    /// Another copy: what is damaged or missing here is fetched from there. Packs that their own
    /// parity makes whole need none
    #[arg(long, value_name = "URL")]
    pub from: Option<OsString>,
    /// Say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// What else to repair.
    #[command(subcommand)]
    pub command: Option<RepairCommand>,
}

/// What else is repaired.
#[derive(Debug, Subcommand)]
pub enum RepairCommand {
    /// Rebuild the index from the packs
    Index(RepairIndex),
}

/// `repair index`
#[derive(Args, Debug)]
pub struct RepairIndex {
    /// Say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// `cache …`
#[derive(Debug, Subcommand)]
pub enum Cache {
    /// Show the caches and their sizes
    Show,
    /// Delete the caches
    Clear(CacheClear),
    /// Forget which copy was found at the place that --repo names: another one may be there now
    ForgetPlace,
}

/// `cache clear`
#[derive(Args, Debug)]
pub struct CacheClear {
    /// Only the cache of this repository id, or a unique prefix of it
    #[arg(value_name = "REPOSITORY")]
    pub repository: Option<String>,
    /// Say what would be deleted
    #[arg(long)]
    pub dry_run: bool,
}

/// `completions`
#[derive(Args, Debug)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `man`
#[derive(Args, Debug)]
pub struct Man {
    /// Folder for the pages; made if missing
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub folder: PathBuf,
}

/// Reads a number of bytes in a second, at least one.
fn parse_rate(text: &str) -> Result<NonZeroU64, String> {
    NonZeroU64::new(parse_bytes(text)?).ok_or_else(|| "nothing would ever move".to_owned())
}

/// Reads a share: more than 0, at most 100.
fn parse_percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    let usable = percent > 0.0 && percent <= 100.0;
    usable.then_some(percent).ok_or_else(|| format!("{text} is not above 0 and at most 100"))
}

/// How much parity packs have, thousandths of their data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParityShare(pub u16);

/// Reads a share such as `8%` or `2.5%`, with at most one decimal.
fn parse_parity(text: &str) -> Result<ParityShare, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let share = (digits(whole) && digits(tenths) && tenths.len() == 1)
        .then(|| format!("{whole}{tenths}").parse::<u16>().ok())
        .flatten()
        .filter(|share| (1..=PARITY_PER_MILLE_MAX).contains(share));
    share.map(ParityShare).ok_or_else(|| "expected 0.1% to 50%, such as 8% or 2.5%".to_owned())
}

/// Reads a share: 0 to 100.
/// How long expired data may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// As long as it likes.
    Never,
    /// So long, milliseconds.
    Milliseconds(u64),
}

pub(crate) fn parse_within(text: &str) -> Result<Within, String> {
    const HOUR_MS: u64 = 60 * 60 * 1000;
    if text == "never" {
        return Ok(Within::Never);
    }
    let units = [("h", HOUR_MS), ("d", 24 * HOUR_MS), ("w", 7 * 24 * HOUR_MS)];
    let parsed = units.into_iter().find_map(|(unit, unit_ms)| {
        let number = text.strip_suffix(unit)?.parse::<u64>().ok()?;
        number.checked_mul(unit_ms).filter(|_| number > 0)
    });
    parsed
        .map(Within::Milliseconds)
        .ok_or_else(|| "expected a time such as 72h, 7d, or never".to_owned())
}

fn parse_share(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    let usable = (0.0..=100.0).contains(&percent);
    usable.then_some(percent).ok_or_else(|| format!("{text} is not between 0 and 100"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }
}
