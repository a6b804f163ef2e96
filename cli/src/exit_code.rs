//! Exit codes: a documented part of the command line's contract. Scripts depend on the numbers.

use cairn_engine::error::Class;

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExitCode {
    /// Everything asked for was done.
    #[default]
    Done,
    /// It failed.
    Failed,
    /// The request or the configuration is wrong.
    Usage,
    /// Done, but some of the source could not be read.
    Unread,
    /// Refused before anything was changed.
    Refused,
    /// Stored data is damaged or missing.
    Damage,
    /// An objective is missed: something is overdue.
    Stale,
    /// There is no repository at the place named.
    NoRepository,
    /// Somebody else is at work, and waiting did not help.
    Busy,
    /// The key does not open the repository, or may not do this.
    WrongKey,
    /// The storage cannot be reached.
    Unreachable,
    /// Ended by a signal of that number: Ctrl-C (2), termination (15), hang-up (1).
    Signal(u8),
}

/// What a process that died of a signal adds to the signal's number, by the shell's convention.
const SIGNAL_BASE: u8 = 128;

/// Number of the signal that tells that nobody reads the output any more.
pub const SIGPIPE: u8 = 13;

impl ExitCode {
    /// Every code that has a number of its own, as help and manual list them.
    pub const DOCUMENTED: [(Self, &'static str); 11] = [
        (Self::Done, "done"),
        (Self::Failed, "failed"),
        (Self::Usage, "wrong usage or configuration"),
        (Self::Unread, "done, but some of the source could not be read"),
        (Self::Refused, "refused before anything was changed"),
        (Self::Damage, "damage found in the repository"),
        (Self::Stale, "stale: something is overdue"),
        (Self::NoRepository, "no repository at that place"),
        (Self::Busy, "busy: somebody else is at work"),
        (Self::WrongKey, "wrong key, or the key may not do this"),
        (Self::Unreachable, "storage unreachable"),
    ];

    /// The number the process exits with.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unread => 3,
            Self::Refused => 4,
            Self::Damage => 5,
            Self::Stale => 6,
            Self::NoRepository => 10,
            Self::Busy => 11,
            Self::WrongKey => 12,
            Self::Unreachable => 13,
            Self::Signal(signal) => SIGNAL_BASE.saturating_add(signal),
        }
    }

    /// The graver of two outcomes of one run.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        if other.severity() > self.severity() { other } else { self }
    }

    fn severity(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Unread => 1,
            Self::Stale => 2,
            Self::Refused => 3,
            Self::Usage => 4,
            Self::Busy => 5,
            Self::Unreachable => 6,
            Self::NoRepository => 7,
            Self::WrongKey => 8,
            Self::Failed => 9,
            Self::Damage => 10,
            Self::Signal(_) => 11,
        }
    }
}

impl From<Class> for ExitCode {
    fn from(class: Class) -> Self {
        match class {
            Class::Failed => Self::Failed,
            Class::Usage => Self::Usage,
            Class::Refused => Self::Refused,
            Class::Damage => Self::Damage,
            Class::NoRepository => Self::NoRepository,
            Class::Busy => Self::Busy,
            Class::WrongKey => Self::WrongKey,
            Class::Unreachable => Self::Unreachable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_contract() {
        let numbers: Vec<u8> = ExitCode::DOCUMENTED.iter().map(|(code, _)| code.number()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 10, 11, 12, 13]);
        assert_eq!(ExitCode::Signal(2).number(), 130);
        assert_eq!(ExitCode::Signal(15).number(), 143);
    }

    #[test]
    fn the_most_severe_wins_in_either_order() {
        for (mild, grave) in [
            (ExitCode::Done, ExitCode::Unread),
            (ExitCode::Unread, ExitCode::Failed),
            (ExitCode::Failed, ExitCode::Damage),
            (ExitCode::Damage, ExitCode::Signal(2)),
        ] {
            assert_eq!(mild.worst(grave), grave);
            assert_eq!(grave.worst(mild), grave);
        }
    }
}
