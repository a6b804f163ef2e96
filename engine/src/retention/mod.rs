//! Which snapshots stay and which go: the rules, and what follows from them. No I/O and no clock:
//! everything that decides is given.
//!
//! **Series.** Rules are applied to one series at a time: the snapshots of one job whose writers
//! may affect each other (`ops::forget` says which). Paths and hosts play no part.
//!
//! **Time.** The time of a snapshot is when it was committed: field 3, `finished`, of its signed
//! record. Ages are counted back from a *reference*, usually the newest commit in the repository,
//! so that a clock that runs ahead makes nothing old. A commit by such a clock does not either: time
//! that no backup bears witness to does not count ([`Silence`]) unless the clock is known to be right.
//!
//! **Rules.** A snapshot stays if any rule keeps it.
//!
//! | rule | keeps |
//! |---|---|
//! | last N | the N newest |
//! | hourly, daily, weekly, monthly, yearly N | the newest of each of the N newest periods in which there is a snapshot |
//! | within AGE | everything not older than AGE |
//! | within-hourly AGE, ... | the newest of each period among those not older than AGE |
//! | tag T | everything with the tag |
//!
//! What carries the tag [`PIN`] stays under every policy, and so does the newest acknowledged
//! snapshot of a series unless the caller says otherwise. Periods without a snapshot do not count
//! against N: a host that was off for a week loses no week of history. Periods are those of a
//! calendar in one time zone: hours of the clock (a repeated hour in autumn is two), days from
//! midnight, ISO weeks from Monday, months and years. AGE is subtracted on the same calendar, so
//! that `1mo` before 31 March is 28 (or 29) February at the same time of day; the boundary stays.
//!
//! **The newest of each period** is kept rather than the oldest, so that a rule's choice for a
//! period that is over never changes. Hence (`tests.rs` proves each by property): applying a
//! policy after every backup keeps the same as applying it once at the end; applying it twice
//! removes nothing more; more rules, or larger numbers, never remove more; the order in which
//! snapshots are listed plays no part; and a snapshot that is kept is also kept when others are
//! not seen, so that an incomplete listing removes nothing that a complete one would keep.
//!
//! **What does not count.** Only acknowledged snapshots count. One that is not is kept while it
//! is younger than [`UNACKNOWLEDGED_GRACE_MS`] or a rule would keep it if it counted; then it goes.
//! One whose date cannot be believed ([`Doubt`]) counts for no rule, so that it pushes out nothing, and is
//! kept until somebody names it.

mod apply;
mod calendar;
pub mod error;
mod lasting;
mod policy;
mod silence;
mod simulate;
#[cfg(test)]
mod tests;

pub use apply::{Candidate, Cause, Doubt, Reason, Standing, Verdict, apply, apply_by};
pub use calendar::{Age, Period, zone};
pub use error::RetentionError;
pub use lasting::lasting;
pub use policy::{PIN, Policy, Rule};
pub use silence::{Ages, Commit, Silence, silences};
pub use simulate::{SIMULATED_BACKUPS_MAX, Simulated, Simulation, simulate};

/// Difference of two clocks that is nothing to worry about, milliseconds.
pub const CLOCK_SKEW_MS: i64 = 5 * 60 * 1_000;

/// How long a snapshot without acknowledgement is left alone whatever the rules say,
/// milliseconds: its backup may be about to acknowledge it. Safety does not rest on it; a
/// backup looks again after it has acknowledged.
pub const UNACKNOWLEDGED_GRACE_MS: i64 = 24 * 60 * 60 * 1_000;
