//! Arguments of `restore`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};

/// `restore`
#[derive(Args, Debug)]
pub struct Restore {
    /// Snapshot: its full paths are made below the target; with a path: that directory's content
    #[arg(value_name = "SNAP[:/PATH]")]
    pub source: OsString,
    /// Directory to restore into; made if missing
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub target: PathBuf,
    /// Bring an existing tree to the snapshot's state, writing only what differs
    #[arg(long)]
    pub delta: bool,
    /// Restore into a directory that is not empty, replacing what is in the way
    #[arg(long)]
    pub overwrite: bool,
    /// Go on after damage and restore everything not touched by it
    #[arg(long)]
    pub keep_going: bool,
    /// Make device nodes even if not root; root always does
    #[arg(long)]
    pub devices: bool,
    /// Owners by number, not by name
    #[arg(long)]
    pub numeric_owner: bool,
    /// Another copy of the repository: what is damaged, missing or out of reach in this one is read
    /// from there; may be repeated
    #[arg(long, value_name = "URL")]
    pub fallback: Vec<OsString>,
    /// Say at the end where the time went, and what limited it
    #[arg(long)]
    pub timings: bool,
    /// Say what would be done
    #[arg(long)]
    pub dry_run: bool,
}
