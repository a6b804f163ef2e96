//! Collects garbage: what no snapshot needs is deleted, beside any number of backups, restores and
//! other collections. [`crate::collect`] says why that is safe.
//!
//! A collection that ends early, at whatever step, leaves nothing undone that the next one does not
//! complete, and nothing that it would have to undo.

use std::collections::{HashMap, HashSet};

use cairn_format::ids::{PackId, SessionId};
use cairn_format::names::{ObjectName, PackKind};

use self::condemn::junk;
use self::find::{Found, find, refuse_unlikely};
use crate::collect::Weakness;
use crate::collect::due::{Left, Past, after, is_due};
use crate::collect::lease::{self, HeldLease};
use crate::collect::mark::Thoroughness;
use crate::collect::tidy::clean_index;
use crate::collect::unfinished;
use crate::context::Remark;
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::ops::backup::cache::forget_gone;
use crate::ops::rollback;
use crate::repo::Repository;
use crate::seal::random;
mod condemn;
mod find;
mod sweep;

/// Largest share of all stored bytes that is deleted without being told to, percent.
pub const MAX_DELETE_PERCENT_DEFAULT: f64 = 50.0;

/// How to collect.
#[derive(Clone, Debug)]
pub struct GcOptions {
    /// How much of what stays may be dead, percent of its bytes. 0: nothing that no snapshot needs
    /// is left anywhere.
    pub max_dead_percent: f64,
    /// How long after it expired data may stay because of [`Self::max_dead_percent`], milliseconds:
    /// a collection after which it would be late leaves nothing dead. `None`: as long as it likes.
    pub erase_within_ms: Option<u64>,
    /// Refuse to free more than this share of all bytes in packs, percent. With 100, and only then,
    /// a repository without any snapshot is emptied.
    pub max_delete_percent: f64,
    /// Spare what sessions at work have stored: they would store it again.
    pub honour_leases: bool,
    /// Read everything that says what is needed, whatever earlier collections remember of it.
    pub full_mark: bool,
    /// Test kit.
    #[doc(hidden)]
    pub weakness: Option<Weakness>,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            max_dead_percent: 0.0,
            erase_within_ms: None,
            max_delete_percent: MAX_DELETE_PERCENT_DEFAULT,
            honour_leases: true,
            full_mark: false,
            weakness: None,
        }
    }
}

impl GcOptions {
    /// Whether chunks that only deltas need stay for their sake.
    fn keeps_bases(&self) -> bool {
        self.max_dead_percent > 0.0
    }

    fn thoroughness(&self) -> Thoroughness {
        if self.full_mark { Thoroughness::Anew } else { Thoroughness::Remembering }
    }

    /// The options of a collection that leaves nothing dead, where that is due.
    fn when_due(&self, past: Option<&Past>, at_work: &HashSet<SessionId>, now_ms: i64) -> Self {
        let due = self.erase_within_ms.is_some_and(|within| is_due(past, at_work, now_ms, within));
        Self { max_dead_percent: if due { 0.0 } else { self.max_dead_percent }, ..self.clone() }
    }
}

/// What a collection would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcPlan {
    /// Snapshots that are kept.
    pub snapshots: u64,
    /// Of these, not acknowledged.
    pub unacknowledged: u64,
    /// Packs in the index that are not condemned.
    pub packs_total: u64,
    /// Their bytes.
    pub bytes_total: u64,
    /// Packs without anything that is needed.
    pub packs_dead: u64,
    /// Packs whose needed content is copied first.
    pub packs_repacked: u64,
    /// Packs that earlier collections condemned and did not delete.
    pub packs_condemned: u64,
    /// Packs spared because a session at work wrote them.
    pub packs_spared: u64,
    /// Bytes that come free, about.
    pub bytes_freed: u64,
    /// Bytes that are copied, about.
    pub bytes_copied: u64,
    /// Dead bytes that stay, about.
    pub bytes_left: u64,
    /// Bytes of chunks that stay because others are stored against them, and for nothing else.
    pub bytes_held: u64,
    /// Whether everything dead goes, because it is due or because nothing may stay.
    pub erases: bool,
    /// Since when there may be dead data, milliseconds since 1970, as far as this host knows.
    pub dead_since_ms: Option<i64>,
}

/// What a collection did.
#[derive(Clone, Debug, Default)]
pub struct GcReport {
    /// What it was to do.
    pub plan: GcPlan,
    /// Packs deleted, also those that earlier collections condemned.
    pub packs_deleted: u64,
    /// Their bytes.
    pub bytes_deleted: u64,
    /// Packs written.
    pub packs_written: u64,
    /// Their bytes.
    pub bytes_written: u64,
    /// Chunks copied because a snapshot came to need them after their packs were condemned.
    pub chunks_rescued: u64,
    /// Chunks stored against others than before, because what they were stored against went.
    pub chunks_rebased: u64,
    /// Segments written.
    pub segments_written: u64,
    /// Segments deleted.
    pub segments_removed: u64,
    /// Receipts written.
    pub receipts: Vec<ObjectName>,
    /// Objects that the store said it deleted, and that are still there. No receipt names them.
    pub still_there: Vec<ObjectName>,
    /// Objects that are deleted, and of which the store keeps older versions and refuses to delete
    /// them. No receipt names them.
    pub versions_kept: Vec<ObjectName>,
    /// When the last lock on such versions ends, milliseconds since 1970, where nothing but locks
    /// keeps them.
    pub versions_locked_until_ms: Option<i64>,
    /// Objects that receipts of at least a day ago name, and that were seen to be gone once more.
    pub confirmed: u64,
    /// Objects that receipts name, that had come back, and were deleted again.
    pub reappeared: Vec<ObjectName>,
    /// Packs that could not be copied because they are damaged, and so stay.
    pub damaged: Vec<Remark>,
    /// Whether this host's cache names nothing that is gone, as far as is known. It is cleaned when
    /// everything dead goes; another process that has it open prevents that.
    pub cache_clean: bool,
    /// Milliseconds it took by the wall clock.
    pub elapsed_ms: i64,
}

impl GcReport {
    /// Whether nothing dead is left anywhere, as far as is known, but in packs that were spared.
    fn left_nothing(&self, found: &Found<'_>) -> bool {
        let chosen = &found.chosen;
        self.plan.erases
            && chosen.bytes_left == 0
            && found.marked.bytes_held == 0
            && self.still_there.is_empty()
            && self.versions_kept.is_empty()
            && self.damaged.is_empty()
            && self.cache_clean
            // What was rescued was copied with what it is stored against, needed or not.
            && self.chunks_rescued == 0
    }

    /// Adds what another collection did after this one. The plan stays.
    fn add(&mut self, next: Self) {
        self.packs_deleted += next.packs_deleted;
        self.bytes_deleted += next.bytes_deleted;
        self.packs_written += next.packs_written;
        self.bytes_written += next.bytes_written;
        self.chunks_rescued += next.chunks_rescued;
        self.chunks_rebased += next.chunks_rebased;
        self.segments_written += next.segments_written;
        self.segments_removed += next.segments_removed;
        self.receipts.extend(next.receipts);
        self.confirmed += next.confirmed;
        self.reappeared.extend(next.reappeared);
        self.damaged.extend(next.damaged);
        // It looked at all of these again.
        self.still_there = next.still_there;
        self.versions_kept = next.versions_kept;
        self.versions_locked_until_ms = next.versions_locked_until_ms;
        self.cache_clean = next.cache_clean;
        self.elapsed_ms += next.elapsed_ms;
    }
}

/// Condemned packs.
type Condemned = HashMap<PackId, PackKind>;

/// A collection that is changing the store.
struct Collection<'a, 'l> {
    repository: &'a Repository,
    catalog: &'a Catalog,
    session: SessionId,
    options: &'l GcOptions,
    lease: &'l HeldLease<'l>,
}

/// Says what a collection would do. Changes nothing in the store.
///
/// # Errors
/// As [`run`].
pub fn plan(repository: &Repository, options: &GcOptions) -> Result<GcPlan, Error> {
    repository.require_collect("collect garbage")?;
    let seen = rollback::seen(repository)?;
    let found = look_at(repository, options)?;
    rollback::refuse_missed(repository, seen, &found.survey.snapshots)?;
    Ok(found.plan)
}

/// As [`plan`], for any key that can read.
pub(super) fn look(repository: &Repository, options: &GcOptions) -> Result<GcPlan, Error> {
    Ok(look_at(repository, options)?.plan)
}

fn look_at<'a>(repository: &'a Repository, options: &GcOptions) -> Result<Found<'a>, Error> {
    let session = SessionId::from_bytes([0; 16]);
    let catalog = repository.catalog()?;
    let past = Past::read(catalog)?;
    let now_ms = repository.context.clock.now_ms();
    let (found, _) = find(repository, catalog, session, options, past.as_ref(), now_ms)?;
    Ok(found)
}

/// Collects.
///
/// # Errors
/// [`Error::Role`]; [`Error::LivenessUnknown`] and [`Error::TombDamaged`] when it cannot be told what
/// is needed; [`Error::RolledBack`] when this host has seen a snapshot that is gone and
/// that nobody removed;
/// [`Error::CollectRefused`] when more would be deleted than the options allow; failures
/// of the store and the cache. What was not deleted then is deleted by the next collection.
pub fn run(repository: &Repository, options: &GcOptions) -> Result<GcReport, Error> {
    repository.require_collect("collect garbage")?;
    let mut report = run_once(repository, options)?;
    if report.plan.erases && report.chunks_rescued > 0 {
        report.add(run_once(repository, options)?);
    }
    Ok(report)
}

fn run_once(repository: &Repository, options: &GcOptions) -> Result<GcReport, Error> {
    let started_ms = repository.context.clock.now_ms();
    let catalog = repository.catalog()?;
    let session = SessionId::from_bytes(random::array(repository.context.random.as_ref())?);
    unfinished::sweep(repository.vault(), catalog)?;
    let past = Past::read(catalog)?;
    let seen = rollback::seen(repository)?;
    let (mut found, options) =
        find(repository, catalog, session, options, past.as_ref(), started_ms)?;
    let options = &options;
    rollback::refuse_missed(repository, seen, &found.survey.snapshots)?;
    refuse_unlikely(&found, &junk(&found, catalog)?, options)?;
    let held = HeldLease::take(repository.vault(), session, "gc");
    let collection = Collection { repository, catalog, session, options, lease: &held };
    let mut report = GcReport { plan: found.plan, ..GcReport::default() };
    let own = match collection.condemn(&mut found, &mut report) {
        Err(error @ Error::CollectRefused { .. }) => {
            // Nothing was begun that others should spare.
            held.end();
            return Err(error);
        }
        condemned => condemned?,
    };
    collection.sweep(&found, &own, &mut report)?;
    held.end();
    lease::sweep(repository.vault(), catalog, &found.survey.idle_leases)?;
    clean_cache(repository, catalog, &mut report)?;
    let left = Left {
        nothing: report.left_nothing(&found),
        packs_below: found.packs_below,
        spared: found.chosen.spared_sessions.clone(),
    };
    after(past.as_ref(), started_ms, &left).write(catalog)?;
    report.elapsed_ms = repository.context.clock.now_ms() - started_ms;
    Ok(report)
}

/// Removes from this host's cache what names chunks that are stored no more, and writes it anew; what an
/// earlier collection did not live to clean, or another host deleted, is cleaned as well.
fn clean_cache(
    repository: &Repository,
    catalog: &Catalog,
    report: &mut GcReport,
) -> Result<(), Error> {
    report.cache_clean = catalog.names_gone_since_ms()?.is_none();
    if report.cache_clean || !report.plan.erases {
        return Ok(());
    }
    repository.monitor().stage("gc: writing the cache anew", None);
    forget_gone(catalog, catalog.take_forgotten())?;
    report.cache_clean = clean_index(repository, catalog)?;
    if report.cache_clean {
        catalog.note_clean()?;
    }
    Ok(())
}
