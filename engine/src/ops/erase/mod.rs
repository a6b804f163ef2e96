//! Erases chosen data out of all snapshots: whole snapshots, or paths, of which the snapshots that
//! hold them are made anew without.
//!
//! **Order.** New tree nodes, then the segments that name them, then the new snapshots; then tombs
//! are listed and everything the new snapshots need is looked for, as a backup does; then they are
//! acknowledged; then the acknowledgements of those before go, and their records last. Wherever this
//! ends, each snapshot is there before or after, or both: an acknowledged new one stands for the one
//! before (SPEC section 8.2), and running it again goes on from there. At the end everything is
//! looked at once more, for what others made meanwhile, and garbage is collected with nothing left.

use std::collections::{BTreeSet, HashSet};

use cairn_format::ids::{ChunkId, SnapshotId};
use cairn_format::names::ObjectName;

pub use self::error::EraseError;
pub use self::paths::Paths;
use self::plan::look;
pub use self::plan::{EachErased, ErasePlan, Fate, Planned, plan};
pub use self::tree::Tally;
use super::gc::{self, GcOptions, GcReport, MAX_DELETE_PERCENT_DEFAULT};
use crate::collect::Weakness;
use crate::collect::audit;
use crate::collect::receipt::read_chain;
use crate::error::Error;
use crate::repo::Repository;

mod carry;
mod error;
mod paths;
mod plan;
mod remake;
mod tree;

/// How often it is looked again for what others made meanwhile.
const ROUNDS_MAX: usize = 4;

/// What to erase.
#[derive(Clone, Debug)]
pub struct EraseOptions {
    /// Only these snapshots; without [`Self::paths`] they go as a whole. Named as in
    /// [`super::snapshots::select`]; one whose record is damaged by at least 8 digits.
    pub snapshots: Vec<String>,
    /// Only snapshots of this job; without [`Self::paths`] all of them go.
    pub job: Option<String>,
    /// Absolute paths, byte for byte, or patterns in gitignore syntax.
    pub paths: Vec<Vec<u8>>,
    /// Collect garbage afterwards, leaving nothing dead. Without it what was erased stays stored
    /// until that is done.
    pub collect: bool,
    /// As in [`GcOptions::max_delete_percent`]. With 100, and only then, no snapshot need be left.
    pub max_delete_percent: f64,
    /// Weakens the protocol, for tests of the simulator.
    #[doc(hidden)]
    pub weakness: Option<Weakness>,
}

impl Default for EraseOptions {
    fn default() -> Self {
        Self {
            snapshots: Vec::new(),
            job: None,
            paths: Vec::new(),
            collect: true,
            max_delete_percent: MAX_DELETE_PERCENT_DEFAULT,
            weakness: None,
        }
    }
}

/// A snapshot that was erased from.
#[derive(Clone, Debug)]
pub struct Erased {
    /// The snapshot as it was.
    pub id: SnapshotId,
    /// What happened to it.
    pub fate: Fate,
    /// The snapshot that stands for it; `None` of one that went.
    pub becomes: Option<SnapshotId>,
    /// What was taken out.
    pub tally: Tally,
}

/// What was done.
#[derive(Debug, Default)]
pub struct EraseReport {
    /// The snapshots, in the order it was done.
    pub snapshots: Vec<Erased>,
    /// Snapshots that may be of a backup at work, and hold what is to be erased: it is to be run
    /// again when that has ended.
    pub waiting: Vec<SnapshotId>,
    /// What the collection did; `None` when there was none.
    pub collection: Option<GcReport>,
    /// Why the collection was refused or failed, if it was.
    pub uncollected: Option<Error>,
    /// Chunks of the files that were taken out; `None` when they were too many to be remembered, or
    /// snapshots went as a whole.
    pub chunks: Option<u64>,
    /// Of these, chunks that other entries hold as well, and that are stored for their sake.
    pub chunks_kept: u64,
    /// Receipts for the records of snapshots and acknowledgements that were deleted.
    pub receipts: Vec<ObjectName>,
    /// Of these records, what the store still has, or keeps as older versions.
    pub records_kept: Vec<ObjectName>,
    /// Whether nothing of what was erased is left in this host's cache; another process that has it
    /// open prevents that.
    pub cache_clean: bool,
    /// Milliseconds it took by the wall clock.
    pub elapsed_ms: i64,
}

/// Erases what a plan says, and whatever comes up meanwhile. May be ended at any point and planned
/// anew.
///
/// # Errors
/// As [`plan`]; [`EraseError::Incomplete`]; [`EraseError::Unfinished`]; failures of the store. What was
/// done until then stays done.
pub fn run(
    repository: &Repository,
    options: &EraseOptions,
    plan: ErasePlan,
) -> Result<EraseReport, Error> {
    repository.require_collect("erase")?;
    let started_ms = repository.context.clock.now_ms();
    let mut report = EraseReport::default();
    let mut paths = Paths::parse(&options.paths)?;
    let mut noted = Noted { chunks: Some(HashSet::new()), ..Noted::default() };
    // Names such as `latest` mean what they meant when it was planned.
    let named = plan.named.iter().map(SnapshotId::to_hex).collect();
    let again = EraseOptions { snapshots: named, ..options.clone() };
    let rounds = if options.only_named() { 1 } else { ROUNDS_MAX };
    let mut plan = plan;
    let mut left = 0;
    for round in 0.. {
        if round > 0 {
            plan = match look(repository, &again, &mut paths, None) {
                // What was named is gone.
                Err(Error::NoSnapshot { .. }) => break,
                plan => plan?,
            };
        }
        let waits = plan.snapshots.iter().filter(|planned| planned.fate == Fate::Waits);
        report.waiting = waits.map(|planned| planned.snapshot.id).collect();
        if plan.is_done() {
            break;
        }
        if round == rounds {
            left = plan.still_there(repository)?;
            break;
        }
        match carry::out(repository, &plan, options, &mut paths, &mut noted, &mut report) {
            // A collection that spares no session took away what was stored for it: once more.
            Err(Error::Erase(EraseError::Incomplete { .. })) if round + 1 < rounds => {}
            outcome => outcome?,
        }
        if options.only_named() {
            break;
        }
    }
    prove(repository, &noted, &mut report)?;
    if left > 0 {
        return Err(EraseError::Unfinished { snapshots: left }.into());
    }
    if options.collect {
        let collect = GcOptions {
            max_dead_percent: 0.0,
            erase_within_ms: None,
            max_delete_percent: options.max_delete_percent,
            ..GcOptions::default()
        };
        match gc::run(repository, &collect) {
            Ok(collection) => report.collection = Some(collection),
            Err(error @ Error::Cancelled) => return Err(error),
            Err(error) => report.uncollected = Some(error),
        }
    }
    // Of snapshots that went as a whole nobody asked what is in them.
    noted.chunks = noted.chunks.filter(|_| !paths.is_empty());
    report.chunks = noted.chunks.as_ref().map(|chunks| chunks.len() as u64);
    if let Some(collection) = &report.collection {
        report.cache_clean = collection.cache_clean;
        count_kept(repository, &noted, &mut report)?;
    }
    report.elapsed_ms = repository.context.clock.now_ms() - started_ms;
    Ok(report)
}

impl EraseOptions {
    /// Whether snapshots were named that go as a whole: nothing of that can come up again.
    fn only_named(&self) -> bool {
        self.paths.is_empty() && !self.snapshots.is_empty()
    }
}

/// What was taken out and deleted.
#[derive(Default)]
struct Noted {
    /// Chunks of files; `None` when they are too many.
    chunks: Option<HashSet<ChunkId>>,
    /// Records and acknowledgements of snapshots.
    records: BTreeSet<ObjectName>,
}

/// Writes receipts for the records that were deleted.
fn prove(repository: &Repository, noted: &Noted, report: &mut EraseReport) -> Result<(), Error> {
    if noted.records.is_empty() {
        return Ok(());
    }
    let vault = repository.vault();
    repository.monitor().stage("erase: proving", None);
    // What else is kept may be needed: the collection looks at that first.
    audit::purge(vault, &|name| Ok(noted.records.contains(name)))?;
    let look = audit::look(vault, noted.records.clone())?;
    let index = repository.catalog()?.index();
    let mut chain = read_chain(vault, Some(index))?;
    report.receipts = audit::write(vault, &mut chain, &look, "erase")?;
    report.records_kept = look.still.into_iter().chain(look.kept).collect();
    Ok(())
}

/// Counts what other entries hold as well, now that everything dead is gone.
fn count_kept(
    repository: &Repository,
    noted: &Noted,
    report: &mut EraseReport,
) -> Result<(), Error> {
    let catalog = repository.current_catalog()?;
    for id in noted.chunks.iter().flatten() {
        report.chunks_kept += u64::from(catalog.is_stored(*id)?);
    }
    Ok(())
}
