//! Arguments of what shows snapshots and what is in them: `snapshots`, `ls`, `find`, `diff`, `dump`.

use std::ffi::OsString;

use clap::Args;

/// `snapshots`
#[derive(Args, Debug)]
pub struct Snapshots {
    /// Only of this job
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// Only with this tag; if repeated, with all of them
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Only of this host
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Only the newest N of those
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
}

/// `ls`
#[derive(Args, Debug)]
pub struct Ls {
    /// Snapshot, and the path in it: a unique prefix of its id, `latest`, `latest~1`,
    /// `job:NAME` or `@TIME`
    #[arg(value_name = "SNAP[:/PATH]")]
    pub snapshot: OsString,
    /// Show mode, owner, size and time
    #[arg(short, long)]
    pub long: bool,
    /// Show everything below
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// `find`
#[derive(Args, Debug)]
pub struct Find {
    /// Globs; one with a slash is matched against the whole path, else against the name
    #[arg(value_name = "PATTERN", required = true)]
    pub patterns: Vec<String>,
    /// Only in snapshots of this job
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// Only in this snapshot
    #[arg(long, value_name = "SNAP", conflicts_with = "job")]
    pub snapshot: Option<String>,
}

/// `diff`
#[derive(Args, Debug)]
pub struct Diff {
    /// The older snapshot
    #[arg(value_name = "A")]
    pub old: OsString,
    /// The newer snapshot, and the path that is compared
    #[arg(value_name = "B[:/PATH]")]
    pub new: OsString,
}

/// `dump`
#[derive(Args, Debug)]
pub struct Dump {
    /// Snapshot and the file in it
    #[arg(value_name = "SNAP:/PATH")]
    pub source: OsString,
    /// Another copy of the repository: what is damaged, missing or out of reach in this one is read
    /// from there; may be repeated
    #[arg(long, value_name = "URL")]
    pub fallback: Vec<OsString>,
}
