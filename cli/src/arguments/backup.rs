//! Arguments of `backup`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::values::{GiveUp, parse_give_up};
use crate::ui::format::parse_bytes;

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
    /// Give a place of --also up that gets nowhere for so long: `90s`, `15m`, `2h`, or `never`. The
    /// next run brings it what is missing
    #[arg(long, value_name = "TIME", value_parser = parse_give_up, default_value = "15m", requires = "also", help_heading = "Snapshot")]
    pub give_up_after: GiveUp,
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
