//! The rules of a retention policy: a group of `forget`, `replicate` and `lock`.

use clap::Args;

use cairn_engine::retention::Age;

/// The rules of a retention policy.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[group(id = "rules", multiple = true)]
pub struct Keep {
    /// Keep the N newest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Rules")]
    pub keep_last: Option<u32>,
    /// Keep the newest of each of the last N hours in which there is one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Rules")]
    pub keep_hourly: Option<u32>,
    /// Likewise, of days
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Rules")]
    pub keep_daily: Option<u32>,
    /// Likewise, of ISO weeks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Rules")]
    pub keep_weekly: Option<u32>,
    /// Likewise, of months
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Rules")]
    pub keep_monthly: Option<u32>,
    /// Likewise, of years
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Rules")]
    pub keep_yearly: Option<u32>,
    /// Keep everything not older than e.g. 36h, 30d, 2w, 12mo, 1y
    #[arg(long, value_name = "AGE", help_heading = "Rules")]
    pub keep_within: Option<Age>,
    /// Keep the newest of each hour not older than this
    #[arg(long, value_name = "AGE", help_heading = "Rules")]
    pub keep_within_hourly: Option<Age>,
    /// Likewise, of each day
    #[arg(long, value_name = "AGE", help_heading = "Rules")]
    pub keep_within_daily: Option<Age>,
    /// Likewise, of each ISO week
    #[arg(long, value_name = "AGE", help_heading = "Rules")]
    pub keep_within_weekly: Option<Age>,
    /// Likewise, of each month
    #[arg(long, value_name = "AGE", help_heading = "Rules")]
    pub keep_within_monthly: Option<Age>,
    /// Likewise, of each year
    #[arg(long, value_name = "AGE", help_heading = "Rules")]
    pub keep_within_yearly: Option<Age>,
    /// Keep what has this tag; may be repeated. The tag `pin` is always kept
    #[arg(long = "keep-tag", value_name = "TAG", help_heading = "Rules")]
    pub keep_tags: Vec<String>,
    /// Whose calendar has the hours, days and months: UTC, local, or e.g. Europe/Berlin
    /// [default: UTC]
    #[arg(long, value_name = "ZONE", help_heading = "Rules")]
    pub time_zone: Option<String>,
}

impl Keep {
    /// Whether no rule is given.
    pub fn is_empty(&self) -> bool {
        Self { time_zone: None, ..self.clone() } == Self::default()
    }
}
