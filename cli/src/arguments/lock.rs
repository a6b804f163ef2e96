//! Arguments of `lock extend` and `lock status`.

use clap::{Args, Subcommand, ValueEnum};

use super::keep::Keep;
use super::values::{Within, parse_within};
use crate::help;

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
