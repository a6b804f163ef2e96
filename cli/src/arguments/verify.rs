//! Arguments of `verify`.

use clap::{Args, ValueEnum};

use cairn_engine::ops::shard::Shard;

use super::values::parse_percent;

/// `verify`
#[derive(Args, Debug)]
pub struct Verify {
    /// How thoroughly
    #[arg(long, value_name = "LEVEL", default_value = "structure")]
    pub level: Level,
    /// How many percent of the packs a sample reads, those first that were verified longest ago
    #[arg(long, value_name = "N", default_value = "10", value_parser = parse_percent)]
    pub sample_percent: f64,
    /// Only share I of N: several hosts verify a part each, and all of them everything
    #[arg(long, value_name = "I/N", default_value = "1/1", hide_default_value = true)]
    pub shard: Shard,
    /// Say at the end where the time went, and what limited it
    #[arg(long)]
    pub timings: bool,
}

/// How thoroughly `verify` looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Everything is there and has its length; snapshots, trees and index fit together.
    Structure,
    /// The same, and a share of the packs is read and decoded.
    Sample,
    /// The same, and every pack is read and decoded.
    Full,
}
