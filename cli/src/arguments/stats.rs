//! Arguments of `stats`.

use clap::Args;

/// `stats`
#[derive(Args, Debug)]
pub struct Stats {
    /// Also try out what the storage can do, with a small object that is deleted again
    #[arg(long)]
    pub probe: bool,
    /// Also show how many requests this host's commands made here in a month, and the bytes they moved
    #[arg(long)]
    pub requests: bool,
}
