//! Arguments of `erase` and `erasure report`.

use std::ffi::OsString;

use clap::{Args, Subcommand};

use super::values::{Within, parse_share, parse_within};
use crate::help;

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
    /// What is pending for longer than this is overdue: `72h`, `7d`, or `never` [default: what the
    /// configuration file says, else 72h]
    #[arg(long, value_name = "TIME", value_parser = parse_within)]
    pub erase_within: Option<Within>,
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
