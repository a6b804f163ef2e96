//! What a place does against deletion: locks on objects, and keeping what is deleted for a while.

use super::error::StoreError;

/// Who may end a lock before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Whoever has a right of its own for that.
    Governance,
    /// Nobody.
    Compliance,
}

impl LockMode {
    /// Its name, as S3 writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }
}

/// What a place says of an object's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locked {
    /// It can be deleted, as far as the place says.
    No,
    /// It cannot be deleted for good before this time, milliseconds since 1970.
    Until(i64),
}

impl Locked {
    /// Until when; the beginning of time for an object that is not locked.
    #[must_use]
    pub const fn until_ms(self) -> i64 {
        match self {
            Self::No => i64::MIN,
            Self::Until(until_ms) => until_ms,
        }
    }
}

/// How long a place keeps what is deleted, where it does not show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptFor {
    /// Not at all.
    Nothing,
    /// For so many milliseconds.
    Milliseconds(u64),
    /// As older versions, until somebody deletes those.
    Versions,
    /// It does not say, or not to these credentials.
    Unknown,
}

impl KeptFor {
    /// Stable name, for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Milliseconds(_) => "time",
            Self::Versions => "versions",
            Self::Unknown => "unknown",
        }
    }
}

/// That a place keeps no locks, or none that can be set for one object.
pub(super) const fn no_locks(location: String) -> StoreError {
    StoreError::NoLocks { location }
}
