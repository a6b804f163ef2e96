//! What is wrong with a policy, or stops it from being applied.

use cairn_format::ids::SnapshotId;

use crate::error::{Class, Explain};

/// Why snapshots are not forgotten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetentionError {
    /// An age cannot be understood.
    #[error("{text:?} is not an age: {problem}")]
    Age {
        /// As given.
        text: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A time zone is not known here.
    #[error("the time zone {name:?} is not known to this machine")]
    Zone {
        /// As given.
        name: String,
    },
    /// No rule was given.
    #[error("no rule is given, and without one everything is kept")]
    NoRule,
    /// A rule keeps nothing.
    #[error("{rule} 0 keeps nothing")]
    Zero {
        /// Name of the rule.
        rule: String,
    },
    /// A simulation is too long.
    #[error("the simulation has no end within {backups_max} backups")]
    Simulation {
        /// Most backups.
        backups_max: u32,
    },
    /// A snapshot lies in the future of this host's clock.
    #[error(
        "snapshot {} of job {job:?} was committed {ahead_s} s after now, by this host's clock: \
         one of the two clocks is wrong",
        snapshot.short()
    )]
    Future {
        /// The newest of them.
        snapshot: SnapshotId,
        /// Its job.
        job: String,
        /// How far it is ahead, seconds.
        ahead_s: i64,
    },
    /// This host's clock and the store's differ.
    #[error(
        "this host's clock is {} the clock of {location}: one of the two is wrong",
        apart(*ahead_s)
    )]
    Skew {
        /// The place.
        location: String,
        /// How far this host's clock is ahead, seconds; negative where it is behind.
        ahead_s: i64,
    },
    /// Commits jump ahead by more than the rules reach back.
    #[error(
        "snapshot {} was committed {days} days after any before it, longer than the rules reach \
         back: either nothing was backed up for that time, or a clock was wrong",
        snapshot.short()
    )]
    Gap {
        /// The first after the gap.
        snapshot: SnapshotId,
        /// Length of the gap, days.
        days: i64,
    },
    /// The store's listing lacks snapshots that are there.
    #[error("{location} lists {listed} snapshots and {acknowledged} acknowledgements: {problem}")]
    Listing {
        /// The place.
        location: String,
        /// Snapshots listed.
        listed: usize,
        /// Snapshots that acknowledgements name.
        acknowledged: usize,
        /// What shows that something is missing.
        problem: String,
    },
    /// The last acknowledged snapshot of a job was named.
    #[error("snapshot {} is the last acknowledged one of job {job:?}", snapshot.short())]
    Last {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Its job.
        job: String,
    },
    /// The store said that an object was deleted, and it is there.
    #[error("{object} is still there although {location} said that it was deleted")]
    Undeleted {
        /// The object.
        object: String,
        /// The place.
        location: String,
    },
    /// A snapshot vanished while its backup was about to end.
    #[error(
        "snapshot {} is gone before its backup ended: it was forgotten, or the store lost it",
        snapshot.short()
    )]
    Forgotten {
        /// The snapshot.
        snapshot: SnapshotId,
    },
}

fn apart(ahead_s: i64) -> String {
    let which = if ahead_s < 0 { "behind" } else { "ahead of" };
    format!("{} s {which}", ahead_s.unsigned_abs())
}

impl Explain for RetentionError {
    fn code(&self) -> &'static str {
        match self {
            Self::Age { .. } => "retention.age",
            Self::Zone { .. } => "retention.zone",
            Self::NoRule => "retention.no_rule",
            Self::Zero { .. } => "retention.zero",
            Self::Simulation { .. } => "retention.simulation",
            Self::Future { .. } => "clock.future",
            Self::Skew { .. } => "clock.skew",
            Self::Gap { .. } => "clock.gap",
            Self::Listing { .. } => "store.listing",
            Self::Last { .. } => "snapshot.last",
            Self::Undeleted { .. } => "store.undeleted",
            Self::Forgotten { .. } => "backup.forgotten",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Age { .. }
            | Self::Zone { .. }
            | Self::NoRule
            | Self::Zero { .. }
            | Self::Simulation { .. } => Class::Usage,
            Self::Future { .. }
            | Self::Skew { .. }
            | Self::Gap { .. }
            | Self::Listing { .. }
            | Self::Last { .. } => Class::Refused,
            Self::Undeleted { .. } | Self::Forgotten { .. } => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Age { .. } => return None,
            Self::Zone { .. } => "use UTC, local, or a name like Europe/Berlin",
            Self::NoRule => {
                "say what to keep, e.g. --keep-daily 30 --keep-monthly 12, or name snapshots"
            }
            Self::Zero { .. } => "leave the rule out, or give it a number from 1",
            Self::Simulation { .. } => "make it shorter, or the time between backups longer",
            Self::Future { snapshot, .. } => {
                let short = snapshot.short();
                return Some(format!(
                    "set this host's clock; if it is right, `cairn forget {short}` removes that \
                     snapshot, and --trust-clock goes on beside it; nothing was changed"
                ));
            }
            Self::Skew { .. } => {
                "set this host's clock, which also dates its backups; if it is right, repeat it \
                 with --trust-clock; nothing was changed"
            }
            Self::Gap { .. } => {
                "look at `cairn snapshots`; if these times are right, repeat it with \
                 --trust-clock; nothing was changed"
            }
            Self::Listing { .. } => {
                "check that the whole repository is there and its disk is mounted, then run \
                 `cairn verify`; nothing was changed"
            }
            Self::Last { .. } => "if it shall go all the same, repeat it with --remove-last",
            Self::Undeleted { .. } => {
                "check whether the storage keeps old versions or locks objects, then run it again"
            }
            Self::Forgotten { .. } => "run the backup again; what was stored is used",
        };
        Some(hint.to_owned())
    }
}
