//! Arguments of `gc`.

use clap::Args;

use super::values::{Within, parse_share, parse_within};

/// `gc`
#[derive(Args, Debug)]
pub struct Gc {
    /// How many percent of what stays may be data that no snapshot needs, and whether what others
    /// are stored against may stay for their sake; 0 leaves none of it
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = parse_share)]
    pub max_dead: f64,
    /// Leave no expired data for longer than this, whatever --max-dead says: `72h`, `7d`, or `never`.
    /// Needs a collection at least as often [default: what the configuration file says, else 72h]
    #[arg(long, value_name = "TIME", value_parser = parse_within)]
    pub erase_within: Option<Within>,
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
