//! Collects garbage: what no snapshot needs is deleted, beside any number of backups, restores and
//! other collections. [`crate::collect`] says why that is safe.
//!
//! A collection that ends early, at whatever step, leaves nothing undone that the next one does not
//! complete, and nothing that it would have to undo.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;

use cairn_format::ids::{PackId, SessionId, SnapshotId};
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::record::TombReason;
use cairn_format::segment::PackSection;

use super::snapshots::SnapshotInfo;
use crate::collect::Weakness;
use crate::collect::audit;
use crate::collect::choose::{Candidate, Chosen, choose};
use crate::collect::confirm::Confirmer;
use crate::collect::copy::Copier;
use crate::collect::due::{Left, Past, after, is_due};
use crate::collect::lease::HeldLease;
use crate::collect::mark::{Marked, Thoroughness, is_missing, mark};
use crate::collect::memo::Memos;
use crate::collect::receipt::read_chain;
use crate::collect::survey::{Survey, list, list_snapshots, require_present, survey};
use crate::collect::sweep::{condemn, delete, rewrite_segments};
use crate::collect::tidy::clean_index;
use crate::context::{Counter, Remark};
use crate::error::Error;
use crate::index::catalog::{Catalog, list_packs};
use crate::index::local::PackNumber;
use crate::repo::Repository;
use crate::seal::random;

/// How often what is needed is looked for again when another collection changes it meanwhile.
const ROUNDS_MAX: usize = 8;

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
    /// When everything dead went, also write this host's index anew, without what was removed.
    pub compact: bool,
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
            compact: true,
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
        self.elapsed_ms += next.elapsed_ms;
    }
}

/// What was found out before anything is changed.
struct Found<'a> {
    survey: Survey,
    marked: Marked<'a>,
    /// How many packs were in doubt when it was marked.
    doubted: usize,
    chosen: Chosen,
    /// Packs that tombs condemned already.
    condemned: Condemned,
    /// Packs with lower numbers were there.
    packs_below: u32,
    plan: GcPlan,
}

/// Condemned packs.
type Condemned = HashMap<PackId, PackKind>;

/// Says what a collection would do. Changes nothing in the store.
///
/// # Errors
/// As [`run`].
pub fn plan(repository: &Repository, options: &GcOptions) -> Result<GcPlan, Error> {
    repository.require_collect("collect garbage")?;
    look(repository, options)
}

/// As [`plan`], for any key that can read.
pub(super) fn look(repository: &Repository, options: &GcOptions) -> Result<GcPlan, Error> {
    let session = SessionId::from_bytes([0; 16]);
    let catalog = repository.catalog()?;
    let past = Past::read(catalog)?;
    let now_ms = repository.context.clock.now_ms();
    let (found, _) = find(repository, catalog, session, options, past.as_ref(), now_ms)?;
    Ok(found.plan)
}

/// Collects.
///
/// # Errors
/// [`Error::Role`]; [`Error::LivenessUnknown`] and [`Error::TombDamaged`] when it cannot be told what
/// is needed; [`Error::CollectRefused`] when more would be deleted than the options allow; failures
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
    repository.vault().sweep();
    let past = Past::read(catalog)?;
    let (mut found, options) =
        find(repository, catalog, session, options, past.as_ref(), started_ms)?;
    let options = &options;
    refuse_unlikely(&found, options)?;
    let lease = HeldLease::take(repository.vault(), session, "gc");
    let collection = Collection { repository, catalog, session, options, lease: &lease };
    let mut report = GcReport { plan: found.plan, ..GcReport::default() };
    let own = collection.condemn(&mut found, &mut report)?;
    collection.sweep(&found, &own, &mut report)?;
    lease.end();
    let left = Left {
        nothing: report.left_nothing(&found),
        packs_below: found.packs_below,
        spared: found.chosen.spared_sessions.clone(),
    };
    after(past.as_ref(), started_ms, &left).write(catalog)?;
    if options.compact && report.plan.erases && report.packs_deleted > 0 {
        repository.monitor().stage("gc: writing the cache anew", None);
        clean_index(repository, catalog)?;
    }
    report.elapsed_ms = repository.context.clock.now_ms() - started_ms;
    Ok(report)
}

/// Finds out what is to go, and the options in force: whether everything has to depends on who is at
/// work.
fn find<'a>(
    repository: &'a Repository,
    catalog: &'a Catalog,
    session: SessionId,
    options: &GcOptions,
    past: Option<&Past>,
    now_ms: i64,
) -> Result<(Found<'a>, GcOptions), Error> {
    repository.monitor().stage("gc: looking", None);
    let survey = survey(repository, catalog, session, options.honour_leases)?;
    let options = options.when_due(past, &survey.sessions, now_ms);
    let mut packs_below = 0;
    catalog.index().for_each_pack(&mut |number, _, _| {
        packs_below = number.0.saturating_add(1);
        ControlFlow::Continue(())
    })?;
    repository.monitor().stage("gc: marking", None);
    let how = options.thoroughness();
    let mut marked = mark(repository, catalog, &survey.snapshots, &survey.doubtful, how)?;
    marked.follow_bases(options.keeps_bases(), &survey.sessions)?;
    let memos = Memos::new(repository.vault(), catalog);
    let chosen = choose(catalog, &survey, &marked, &memos, options.max_dead_percent)?;
    let condemned = catalog.condemned();
    let copied = |candidate: &Candidate| {
        u64::from(candidate.record.bytes).saturating_sub(candidate.bytes_dead)
    };
    let plan = GcPlan {
        snapshots: survey.snapshots.len() as u64,
        unacknowledged: survey.snapshots.iter().filter(|s| !s.acknowledged).count() as u64,
        packs_total: chosen.packs,
        bytes_total: chosen.bytes,
        packs_dead: chosen.dead.len() as u64,
        packs_repacked: chosen.repack.len() as u64,
        packs_condemned: survey.present.keys().filter(|id| condemned.contains_key(*id)).count()
            as u64,
        packs_spared: chosen.spared,
        bytes_freed: chosen.bytes_freed(),
        bytes_copied: chosen.repack.iter().map(copied).sum(),
        bytes_left: chosen.bytes_left,
        bytes_held: marked.bytes_held,
        erases: !options.keeps_bases(),
        dead_since_ms: past.map(|past| past.dead_since_ms.unwrap_or(past.last_ms)),
    };
    let doubted = marked.doubtful.len();
    Ok((Found { survey, marked, doubted, chosen, condemned, packs_below, plan }, options))
}

impl<'a> Found<'a> {
    /// Chooses once more after marks were added. What was found damaged since it was marked is
    /// needed from elsewhere from then on, where it stands elsewhere too: it is marked anew.
    fn choose_again(
        &mut self,
        repository: &'a Repository,
        catalog: &'a Catalog,
        options: &GcOptions,
    ) -> Result<(), Error> {
        if self.marked.doubtful.len() > self.doubted {
            let (snapshots, doubtful) = (&self.survey.snapshots, &self.marked.doubtful);
            let how = Thoroughness::Remembering;
            self.marked = mark(repository, catalog, snapshots, doubtful, how)?;
            self.doubted = self.marked.doubtful.len();
        }
        self.marked.follow_bases(options.keeps_bases(), &self.survey.sessions)?;
        let memos = Memos::new(repository.vault(), catalog);
        let max_dead_percent = options.max_dead_percent;
        self.chosen = choose(catalog, &self.survey, &self.marked, &memos, max_dead_percent)?;
        Ok(())
    }
}

/// Refuses what is more likely a mistake, or a store that lists nothing, than what is meant.
fn refuse_unlikely(found: &Found<'_>, options: &GcOptions) -> Result<(), Error> {
    let plan = &found.plan;
    let all = options.max_delete_percent >= 100.0;
    if plan.snapshots == 0 && plan.packs_total > 0 && !all {
        return Err(Error::CollectRefused {
            message: "the store lists no snapshot, so everything would be deleted".to_owned(),
            hint: "check that this is the right place and that it is whole; `--max-delete 100` empties it".to_owned(),
        });
    }
    let share = plan.bytes_freed as f64 * 100.0 / (plan.bytes_total.max(1)) as f64;
    if share > options.max_delete_percent && !all {
        return Err(Error::CollectRefused {
            message: format!(
                "{share:.0} % of all bytes in packs would be deleted, more than {:.0} %",
                options.max_delete_percent
            ),
            hint: "`cairn snapshots` shows what is kept; if that is right, raise `--max-delete`"
                .to_owned(),
        });
    }
    Ok(())
}

/// A collection that is changing the store.
struct Collection<'a, 'l> {
    repository: &'a Repository,
    catalog: &'a Catalog,
    session: SessionId,
    options: &'l GcOptions,
    lease: &'l HeldLease<'l>,
}

impl<'a> Collection<'a, '_> {
    /// Copies what is live of packs that go, and condemns them.
    fn condemn(&self, found: &mut Found<'a>, report: &mut GcReport) -> Result<Condemned, Error> {
        let bytes = found.plan.bytes_copied;
        self.repository.monitor().stage("gc: copying", Some((Counter::BytesFetched, bytes)));
        let mut copier = Copier::new(self.repository, self.catalog, self.session)?;
        let mut retried = HashSet::new();
        let repacked = loop {
            self.confirm(found)?;
            if let Some(repacked) = self.copy(found, &mut copier, &mut retried, report)? {
                break repacked;
            }
            found.choose_again(self.repository, self.catalog, self.options)?;
        };
        let dead = found.chosen.dead.iter().map(|pack| (pack.record.kind, pack.record.id));
        let dead = dead.collect::<BTreeSet<_>>();
        let going = dead.iter().chain(&repacked).map(|(_, id)| *id).collect::<HashSet<_>>();
        let replacements = copier.finish(self.to_be_named(found, &going)?)?;
        (report.packs_written, report.bytes_written) = (copier.packs_written, copier.bytes_written);
        report.chunks_rebased = copier.chunks_rebased;
        let vault = self.repository.vault();
        condemn(vault, self.session, TombReason::Unreferenced, &dead, &[])?;
        condemn(vault, self.session, TombReason::Repacked, &repacked, &replacements)?;
        let junk = self.junk(found)?;
        // Descriptions of what is lost go with the next segments.
        let lost = found.chosen.lost.iter().copied().collect::<BTreeSet<_>>();
        condemn(
            vault,
            self.session,
            TombReason::Damaged,
            &lost.union(&junk).copied().collect(),
            &[],
        )?;
        Ok([dead, repacked, junk, lost]
            .into_iter()
            .flatten()
            .map(|(kind, id)| (id, kind))
            .collect())
    }

    /// Packs that no segment names and that cannot be read. They may be what a session at work is
    /// storing; and what could not be read once may have been named meanwhile, and be needed.
    fn junk(&self, found: &Found<'_>) -> Result<BTreeSet<(PackKind, PackId)>, Error> {
        let mut junk = BTreeSet::new();
        if !found.survey.sessions.is_empty() {
            return Ok(junk);
        }
        for (kind, id) in &found.survey.junk {
            let known = self.catalog.index().pack_number(id)?.is_some();
            if !known && !found.condemned.contains_key(id) {
                junk.insert((*kind, *id));
            }
        }
        Ok(junk)
    }

    /// Whether something that was condemned unread is named by a segment by now.
    fn condemned_what_is_named(&self, found: &Found<'_>, own: &Condemned) -> Result<bool, Error> {
        for (_, id) in found.survey.junk.iter().filter(|(_, id)| own.contains_key(id)) {
            if self.catalog.index().pack_number(id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sees to it that copies of chunks that go are not the only ones that can be read.
    fn confirm(&self, found: &mut Found<'a>) -> Result<(), Error> {
        if self.options.weakness == Some(Weakness::UnreadCopies) {
            return Ok(());
        }
        let mut confirmer = Confirmer::new(self.repository, self.catalog, self.session);
        loop {
            let chosen = found.chosen.dead.iter().chain(&found.chosen.repack);
            let going = chosen.map(|going| (going.number, going.record)).collect::<Vec<_>>();
            if !confirmer.confirm(&going, &mut found.marked)? {
                return Ok(());
            }
            found.choose_again(self.repository, self.catalog, self.options)?;
        }
    }

    /// Copies what is live of packs that go; `None` when one of them turned out to be damaged, and
    /// it has to be chosen anew.
    fn copy(
        &self,
        found: &mut Found<'_>,
        copier: &mut Copier<'_>,
        retried: &mut HashSet<PackNumber>,
        report: &mut GcReport,
    ) -> Result<Option<BTreeSet<(PackKind, PackId)>>, Error> {
        let mut repacked = BTreeSet::new();
        for candidate in &found.chosen.repack {
            self.lease.renew();
            match copier.copy_live(candidate.number, &candidate.record, &mut found.marked) {
                Ok(_) => {
                    repacked.insert((candidate.record.kind, candidate.record.id));
                }
                // It is not condemned, whatever became of it.
                Err(error) if error.has_vanished() => {}
                // The base was collected since the index was looked at: what needs it stands
                // elsewhere then, and that is found when it is chosen again.
                Err(Error::BaseMissing { .. }) if retried.insert(candidate.number) => {
                    self.catalog.sync(self.repository.vault())?;
                    return Ok(None);
                }
                Err(error) if error.is_damage() => {
                    report.damaged.push(self.damaged(candidate, &error));
                    self.catalog.note_verified(&[candidate.record.id], &[])?;
                    found.marked.distrust(candidate.number)?;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(repacked))
    }

    /// Packs that no segment names and that stay: whoever needs them must find them. Sessions at
    /// work name their own, unless somebody needs them already.
    fn to_be_named(
        &self,
        found: &Found<'_>,
        going: &HashSet<PackId>,
    ) -> Result<Vec<PackSection>, Error> {
        let mut named = self.needed(&found.survey, &found.marked)?;
        let known = named.iter().map(|section| section.id).collect::<HashSet<_>>();
        let idle = |pack: &&PackSection| !found.survey.sessions.contains(&pack.session);
        let others = found.survey.adopted.iter().filter(idle);
        named.extend(others.filter(|pack| !known.contains(&pack.id)).cloned());
        named.retain(|pack| !going.contains(&pack.id));
        Ok(named)
    }

    /// Packs that no segment names, and that hold something marked.
    fn needed(&self, seen: &Survey, marked: &Marked<'_>) -> Result<Vec<PackSection>, Error> {
        let mut needed = Vec::new();
        for section in &seen.adopted {
            let number = self.catalog.index().pack_number(&section.id)?;
            if number.is_some_and(|number| marked.live.any(number)) {
                needed.push(section.clone());
            }
        }
        Ok(needed)
    }

    fn damaged(&self, candidate: &Candidate, error: &Error) -> Remark {
        let remark =
            Remark::of(ObjectName::Pack(candidate.record.kind, candidate.record.id), error);
        self.repository.monitor().warn(remark.clone());
        remark
    }

    /// Looks again at everything, rescues what became live, and deletes.
    fn sweep(
        &self,
        found: &Found<'_>,
        own: &Condemned,
        report: &mut GcReport,
    ) -> Result<(), Error> {
        let vault = self.repository.vault();
        self.repository.monitor().stage("gc: looking again", None);
        // Tombs first: only what was condemned before snapshots are listed may be deleted.
        self.catalog.sync_keeping(vault)?;
        self.catalog.require_sound_tombs()?;
        let condemned = self.catalog.condemned();
        if self.options.weakness != Some(Weakness::NoResweep) {
            self.rescue(found, own, report)?;
        }
        self.lease.renew();
        self.repository.monitor().stage("gc: deleting", None);
        let present = require_present(self.repository, self.catalog)?;
        let rewritten = rewrite_segments(self.repository, self.catalog, &condemned)?;
        report.segments_written = rewritten.written;
        report.segments_removed = rewritten.removed.len() as u64;
        let mut names = Vec::new();
        for (id, (kind, bytes)) in present.iter().filter(|(id, _)| condemned.contains_key(*id)) {
            names.push(ObjectName::Pack(*kind, *id));
            report.bytes_deleted += bytes;
        }
        report.packs_deleted = names.len() as u64;
        delete(vault, &names)?;
        let segments = rewritten.removed.into_iter().map(ObjectName::Index);
        self.prove(names.into_iter().chain(segments).collect(), &condemned, report)
    }

    /// Lists snapshots, tombs and the index again, and copies chunks of which every copy is in a
    /// condemned pack.
    fn rescue(
        &self,
        found: &Found<'_>,
        own: &Condemned,
        report: &mut GcReport,
    ) -> Result<(), Error> {
        let mut known = self.catalog.condemned();
        known.retain(|id, _| own.contains_key(id) || found.condemned.contains_key(id));
        let mut last = Error::PlaceStale;
        for _ in 0..ROUNDS_MAX {
            let before = &found.survey.snapshots;
            let snapshots = list_snapshots(self.repository, self.catalog, before)?;
            if self.options.weakness == Some(Weakness::StaleTombs) {
                self.catalog.pretend_condemned(known.clone())?;
            }
            // With the same snapshots and no tombs but its own, nothing can have come to need what
            // was condemned.
            if found.plan.packs_condemned == 0
                && !self.condemned_what_is_named(found, own)?
                && identities(&snapshots) == identities(&found.survey.snapshots)
                && self.catalog.condemned() == known
            {
                return Ok(());
            }
            let mut seen = Survey { snapshots, ..Survey::default() };
            list(self.repository, self.catalog, &mut seen)?;
            let doubtful = &found.marked.doubtful;
            // What the first look has read is not read again.
            let how = Thoroughness::Remembering;
            let mut marked = mark(self.repository, self.catalog, &seen.snapshots, doubtful, how)?;
            marked.follow_bases(true, &HashSet::new())?;
            self.confirm_condemned(&mut marked)?;
            match self.copy_condemned(&seen, &mut marked, report) {
                Ok(()) => return Ok(()),
                // Another collection deleted it, or its base: it has copied what is needed before.
                Err(error) if is_missing(&error) => {
                    self.catalog.sync_keeping(self.repository.vault())?;
                    last = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Sees to it that what goes with condemned packs can be read elsewhere, or is copied.
    fn confirm_condemned(&self, marked: &mut Marked<'_>) -> Result<(), Error> {
        if self.options.weakness == Some(Weakness::UnreadCopies) {
            return Ok(());
        }
        let condemned = self.catalog.condemned_here();
        let mut going = Vec::new();
        self.catalog.index().for_each_pack(&mut |number, record, _| {
            if condemned.contains(&number) {
                going.push((number, *record));
            }
            ControlFlow::Continue(())
        })?;
        let mut confirmer = Confirmer::new(self.repository, self.catalog, self.session);
        while confirmer.confirm(&going, marked)? {
            marked.follow_bases(true, &HashSet::new())?;
        }
        Ok(())
    }

    fn copy_condemned(
        &self,
        seen: &Survey,
        marked: &mut Marked<'_>,
        report: &mut GcReport,
    ) -> Result<(), Error> {
        for number in marked.live.packs() {
            // A pack that was deleted since it was marked: what was read from it is elsewhere, and
            // has to be found there before the other copies go.
            self.catalog.pack(number)?;
        }
        let condemned = self.catalog.condemned_here();
        let mut packs = Vec::new();
        self.catalog.index().for_each_pack(&mut |number, record, _| {
            if condemned.contains(&number) && marked.live.any(number) {
                packs.push((number, *record));
            }
            ControlFlow::Continue(())
        })?;
        // What is read from packs that no segment names yet: whoever stores them may not live to
        // name them.
        let unnamed = self.needed(seen, marked)?;
        if packs.is_empty() && unnamed.is_empty() {
            return Ok(());
        }
        let mut copier = Copier::new(self.repository, self.catalog, self.session)?;
        for (number, record) in packs {
            self.lease.renew();
            report.chunks_rescued += copier.copy_live(number, &record, marked)?;
        }
        copier.finish(unnamed)?;
        report.packs_written += copier.packs_written;
        report.bytes_written += copier.bytes_written;
        Ok(())
    }

    /// Looks twice whether what was deleted is gone, and writes receipts for what is.
    fn prove(
        &self,
        names: Vec<ObjectName>,
        condemned: &Condemned,
        report: &mut GcReport,
    ) -> Result<(), Error> {
        let vault = self.repository.vault();
        self.repository.monitor().stage("gc: proving", None);
        let mut chain = read_chain(vault)?;
        let present = list_packs(vault)?;
        self.catalog.forget_absent(&present)?;
        // What an interrupted collection deleted and did not live to say.
        let unsaid = condemned
            .iter()
            .filter(|(id, _)| !present.contains_key(*id) && !chain.packs.contains(*id))
            .map(|(id, kind)| ObjectName::Pack(*kind, *id));
        let all = names.into_iter().chain(unsaid).collect::<BTreeSet<_>>();
        let now_ms = vault.context.clock.now_ms();
        // A lock that has ended is not why they are kept.
        report.versions_locked_until_ms =
            audit::purge(vault)?.all_locked_until_ms().filter(|until_ms| *until_ms > now_ms);
        let look = audit::look(vault, all)?;
        for name in &look.still {
            self.repository.monitor().warn(Remark {
                code: "gc.still_there",
                subject: name.to_string(),
                message: "it was deleted, and the store still has or lists it: no receipt names it until \
                          that ends, which the next collection looks for".to_owned(),
            });
        }
        let packs = look.still.iter().filter(|name| matches!(name, ObjectName::Pack(..))).count();
        report.packs_deleted = report.packs_deleted.saturating_sub(packs as u64);
        report.receipts = audit::write(vault, &mut chain, &look, "gc")?;
        (report.still_there, report.versions_kept) = (look.still, look.kept);
        let audited = audit::audit_again(vault, self.catalog, &mut chain, false)?;
        report.receipts.extend(audited.receipts);
        report.still_there.extend(audited.still_there);
        (report.confirmed, report.reappeared) = (audited.confirmed, audited.reappeared);
        Ok(())
    }
}

/// What tells one state of the snapshots from another.
fn identities(snapshots: &[SnapshotInfo]) -> HashSet<(SnapshotId, bool)> {
    snapshots.iter().map(|snapshot| (snapshot.id, snapshot.acknowledged)).collect()
}
