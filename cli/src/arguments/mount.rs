//! Arguments of `mount`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::help;

/// `mount`
#[derive(Args, Debug)]
#[command(after_long_help = help::MOUNT)]
pub struct Mount {
    /// Empty directory at which snapshots are shown
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub directory: PathBuf,
    /// Only this snapshot
    #[arg(long, value_name = "SNAP", conflicts_with_all = ["job", "tags"])]
    pub snapshot: Option<String>,
    /// Only snapshots of this job
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// Only snapshots with this tag; if repeated, with all of them
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Owners by number, not by name
    #[arg(long)]
    pub numeric_owner: bool,
    /// Let other users look as well, as far as the modes and owners of what they look at allow it
    #[arg(long)]
    pub allow_other: bool,
    /// Another copy of the repository: what is damaged, missing or out of reach in this one is read
    /// from there; may be repeated
    #[arg(long, value_name = "URL")]
    pub fallback: Vec<OsString>,
}
