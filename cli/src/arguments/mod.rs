//! The command line, defined once: parser, help, manual pages and completions come from here. Each
//! command, or family of commands, has a file of its own; what applies to all of them is here.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

pub use self::backup::{Backup, Profile};
pub use self::cache::{Cache, CacheClear};
pub use self::erase::{Erase, Erasure, ErasureReport};
pub use self::forget::Forget;
pub use self::gc::Gc;
pub use self::generate::{Completions, Man};
pub use self::init::{Cipher, Init};
pub use self::keep::Keep;
pub use self::key::{Key, KeyAdd, KeyNewRecipient, KeyRemove, Role};
pub use self::lock::{Lock, LockArguments, LockExtend, LockStatus, Mode};
pub use self::mount::Mount;
pub use self::repair::{Repair, RepairCommand, RepairIndex};
pub use self::replicate::Replicate;
pub use self::restore::Restore;
pub use self::snapshots::{Diff, Dump, Find, Ls, Snapshots};
pub use self::stats::Stats;
use self::values::parse_rate;
pub use self::values::{GiveUp, ParityShare, Within};
pub(crate) use self::values::{parse_give_up, parse_within};
pub use self::verify::{Level, Verify};
use crate::help;
use crate::ui::format::parse_bytes;

mod backup;
mod cache;
mod erase;
mod forget;
mod gc;
mod generate;
mod init;
mod keep;
mod key;
mod lock;
mod mount;
mod repair;
mod replicate;
mod restore;
mod snapshots;
mod stats;
mod values;
mod verify;

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
    /// Configuration file: replicas by name, and what places are reached with
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
    /// Show snapshots as read-only directories, until they are unmounted
    Mount(Mount),
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }
}
