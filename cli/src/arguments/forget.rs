//! Arguments of `forget`.

use clap::Args;

use cairn_engine::retention::Age;

use super::keep::Keep;
use super::values::{Within, parse_within};
use crate::help;

/// `forget`
#[derive(Args, Clone, Debug)]
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
    /// This host's clock is right: do not ask the storage for its own, keep snapshots that lie in the
    /// future and go on, count ages from now, and time without backups too
    #[arg(long, help_heading = "Which snapshots")]
    pub trust_clock: bool,
    /// How long what expires now may stay stored, as `cairn gc` is told: `72h`, `7d`, or `never`; to
    /// say when it is gone [default: what the configuration file says, else 72h]
    #[arg(long, value_name = "TIME", value_parser = parse_within, conflicts_with = "simulate")]
    pub erase_within: Option<Within>,
    /// Find out what comes free even where no collection has run on this host, so that all trees
    /// have to be read
    #[arg(long, conflicts_with = "simulate")]
    pub measure: bool,
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
