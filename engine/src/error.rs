//! The error contract every module's error type fulfils.

/// What an error owes the person who meets it, besides the fact in its `Display`.
pub trait Explain: std::error::Error {
    /// Stable dotted name for scripts, e.g. `store.unreachable`; never changes once released.
    fn code(&self) -> &'static str;

    /// What kind of failure it is; decides the exit code.
    fn class(&self) -> Class;

    /// The next step for the person, where one is known. No full stop; it follows `hint: `.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Kinds of failure, one for each exit code of the command-line contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The operation failed (exit 1).
    Failed,
    /// The request itself is wrong (exit 2).
    Usage,
    /// Refused before anything was changed (exit 4).
    Refused,
    /// Stored data is damaged or missing (exit 5).
    Damage,
    /// There is no repository at the place named (exit 10).
    NoRepository,
    /// Somebody else is at work and waiting did not help (exit 11).
    Busy,
    /// The key does not open the repository, or may not do this (exit 12).
    WrongKey,
    /// The storage cannot be reached (exit 13).
    Unreachable,
}
