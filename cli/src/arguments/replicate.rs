//! Arguments of `replicate`.

use std::ffi::OsString;

use clap::Args;

use cairn_engine::ops::shard::Shard;

use super::keep::Keep;
use super::values::{GiveUp, Within, parse_give_up, parse_share, parse_within};
use crate::help;

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
    /// Without rules: also forget on the replica what home lacks and nobody forgot there. Otherwise
    /// that stays on the replica, and the exit code is 5: home may have lost it
    #[arg(long, help_heading = "Which snapshots", conflicts_with = "status")]
    pub forget_missing: bool,
    /// This host's clock is right: see `forget`
    #[arg(long, help_heading = "Which snapshots")]
    pub trust_clock: bool,
    /// Leave no expired data on the replica for longer than this: `72h`, `7d`, or `never`. Needs a
    /// replication at least as often [default: 72h]
    #[arg(long, value_name = "TIME", value_parser = parse_within)]
    pub erase_within: Option<Within>,
    /// Refuse to free more than this share of the replica, unless it lists everything that it is to
    /// have: what rules or home let go is meant to go, however much it is
    #[arg(long, value_name = "PERCENT", default_value = "50", value_parser = parse_share)]
    pub max_delete: f64,
    /// Give a replica up whose place gets nowhere for so long: `90s`, `15m`, `2h`, or `never`. The next
    /// run brings it what is missing [default: 15m, or what the configuration file says of it]
    #[arg(long, value_name = "TIME", value_parser = parse_give_up)]
    pub give_up_after: Option<GiveUp>,
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
