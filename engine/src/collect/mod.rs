//! Collection of what no snapshot needs, beside writers, readers and other collections, without
//! locks and without trust in clocks (SPEC section 10).
//!
//! A writer puts its snapshot, then lists tombs; a collection puts its tombs, then lists snapshots.
//! Whichever comes second sees the other. If the writer comes second it finds its packs condemned,
//! and stores or finds their chunks elsewhere before it acknowledges. If the collection comes second
//! it finds the snapshot, and copies its chunks out of the packs that it has condemned before it
//! deletes them. Two collections that condemn the two copies of a chunk are no different: each lists
//! tombs after its own are visible, so at least one of them finds both copies condemned, and copies
//! the chunk. Tombs are for ever and pack names never return, so nothing has to be undone, and a
//! collection that was interrupted anywhere is completed by the next.

pub mod audit;
mod bases;
pub mod choose;
pub mod confirm;
pub mod copy;
pub mod due;
pub mod lease;
pub mod mark;
pub mod marks;
pub mod memo;
pub mod needed;
pub mod reach;
pub mod reached;
mod recall;
pub mod receipt;
mod spans;
pub mod successors;
pub mod survey;
pub mod sweep;
pub mod tidy;
pub mod tried;
pub mod unfinished;
mod walk;

/// Test kit: ways to weaken the protocol, each of which loses data. Tests of the simulator use them
/// to show that it would notice.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// A writer does not list tombs after its snapshot is visible.
    Precheck,
    /// A collection does not list snapshots after its tombs are visible.
    NoResweep,
    /// A collection looks for copies with the list of tombs from before it put its own.
    StaleTombs,
    /// A collection drops a copy of a chunk without having read the one it keeps.
    UnreadCopies,
}
