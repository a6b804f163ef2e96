//! Arguments of `cache`.

use clap::{Args, Subcommand};

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
