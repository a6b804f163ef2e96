//! Arguments of `repair`, of packs and of the index.

use std::ffi::OsString;

use clap::{Args, Subcommand};

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
