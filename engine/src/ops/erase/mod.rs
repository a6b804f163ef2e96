//! Erases chosen data out of all snapshots: whole snapshots, or paths, of which the snapshots that
//! hold them are made anew without.
//!
//! **Order.** New tree nodes, then the segments that name them, then the new snapshots; then tombs
//! are listed and everything the new snapshots need is looked for, as a backup does; then they are
//! acknowledged; then the acknowledgements of those before go, and their records last. Wherever this
//! ends, each snapshot is there before or after, or both: an acknowledged new one stands for the one
//! before (SPEC section 8.2), and running it again goes on from there. At the end everything is
//! looked at once more, for what others made meanwhile, and garbage is collected with nothing left.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cairn_format::ids::{ChunkId, SnapshotId};
use cairn_format::names::ObjectName;
use cairn_format::tree::Entry;

pub use self::error::EraseError;
pub use self::paths::Paths;
use self::remake::Remaker;
pub use self::tree::Tally;
use self::tree::{Surgery, count_rest};
use super::backup::cache::forget_erased;
use super::forget::evidence;
use super::forget::{Known, Objects, remove, remove_late_acks, select_bare};
use super::gc::{self, GcOptions, GcReport, MAX_DELETE_PERCENT_DEFAULT};
use super::rollback;
use super::snapshots::{self, SnapshotInfo};
use crate::collect::Weakness;
use crate::collect::audit;
use crate::collect::receipt::read_chain;
use crate::collect::tidy::clean_index;
use crate::error::Error;
use crate::repo::Repository;
use crate::retention::UNACKNOWLEDGED_GRACE_MS;
use crate::store::StoreError;
use crate::tree::NodeSink;

mod error;
mod paths;
mod remake;
mod tree;

/// How often it is looked again for what others made meanwhile.
const ROUNDS_MAX: usize = 4;

/// What to erase.
#[derive(Clone, Debug)]
pub struct EraseOptions {
    /// Only these snapshots; without [`Self::paths`] they go as a whole. Named as in
    /// [`snapshots::select`]; one whose record is damaged by at least 8 digits.
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

/// What happens to a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes as a whole.
    Goes,
    /// It is made anew without some entries.
    Remade,
    /// An interrupted erasure made it anew already: what it was before goes.
    Settled,
    /// It is not acknowledged and young: the backup that makes it may be at work. It stays as it is.
    Waits,
}

impl Fate {
    /// Stable name, for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Goes => "goes",
            Self::Remade => "remade",
            Self::Settled => "settled",
            Self::Waits => "waits",
        }
    }
}

/// A snapshot that is concerned.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The snapshot.
    pub snapshot: SnapshotInfo,
    /// What happens to it.
    pub fate: Fate,
    /// What is taken out of it; nothing of one that goes as a whole because it was named.
    pub tally: Tally,
    /// Snapshots that are there beside it and that it stands for: they go.
    before: Vec<SnapshotId>,
    /// Whether what stands for it is to be acknowledged.
    acknowledged: bool,
    /// It was left incomplete by an erasure that died; what it was to stand for is there.
    leftover: bool,
}

/// What would happen.
#[derive(Debug)]
pub struct ErasePlan {
    /// Snapshots that are concerned, oldest first.
    pub snapshots: Vec<Planned>,
    /// Snapshots that were named and whose records cannot be read; they go.
    pub bare: Vec<SnapshotId>,
    /// Snapshots that were looked at.
    pub considered: u64,
    /// Snapshots that would be left.
    pub left: u64,
    /// What was named, if anything was.
    named: Vec<SnapshotId>,
    objects: Objects,
    acknowledged: HashSet<SnapshotId>,
}

impl ErasePlan {
    /// Snapshots with this fate; those that were named and cannot be read go.
    #[must_use]
    pub fn count(&self, fate: Fate) -> u64 {
        let bare = if fate == Fate::Goes { self.bare.len() } else { 0 };
        (self.snapshots.iter().filter(|planned| planned.fate == fate).count() + bare) as u64
    }

    fn is_done(&self) -> bool {
        self.bare.is_empty() && self.snapshots.iter().all(|planned| planned.fate == Fate::Waits)
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

/// Is shown what is taken out of which snapshot, by path.
pub type EachErased<'f> = dyn FnMut(&SnapshotInfo, &[u8], &Entry) -> Result<(), Error> + 'f;

/// Says what would be erased. Changes nothing. With `each` every entry is shown that is taken out
/// of a snapshot that is made anew; of directories nothing below them.
///
/// # Errors
/// [`Error::Role`] unless the key is an owner's or maintainer's; [`Error::Erase`] when it is refused;
/// what [`snapshots::select`] says of names; failures of the store or the cache.
pub fn plan(
    repository: &Repository,
    options: &EraseOptions,
    each: Option<&mut EachErased<'_>>,
) -> Result<ErasePlan, Error> {
    repository.require_collect("erase")?;
    if options.snapshots.is_empty() && options.job.is_none() && options.paths.is_empty() {
        return Err(EraseError::NothingNamed.into());
    }
    let mut paths = Paths::parse(&options.paths)?;
    repository.monitor().stage("erase: looking", None);
    let plan = look(repository, options, &mut paths, each)?;
    // Whoever erased it before, and was interrupted, may come back for the rest.
    let settles = |one: &Planned| one.fate == Fate::Settled || one.leftover;
    if !plan.snapshots.iter().any(settles) {
        paths.check_met(plan.considered)?;
    }
    if plan.left == 0 && options.max_delete_percent < 100.0 {
        return Err(EraseError::NothingLeft.into());
    }
    Ok(plan)
}

/// Erases what a plan says, and whatever comes up meanwhile. May be ended at any point and planned
/// anew.
///
/// # Errors
/// As [`plan`]; [`EraseError::Incomplete`]; failures of the store. What was done until then stays done.
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
    for round in 0..rounds {
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
        match erase(repository, &plan, options, &mut paths, &mut noted, &mut report) {
            // A collection that spares no session took away what was stored for it: once more.
            Err(Error::Erase(EraseError::Incomplete { .. })) if round + 1 < rounds => {}
            outcome => outcome?,
        }
    }
    prove(repository, &noted, &mut report)?;
    if options.collect {
        let collect = GcOptions {
            max_dead_percent: 0.0,
            erase_within_ms: None,
            max_delete_percent: options.max_delete_percent,
            compact: false,
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
    if report.collection.is_some() {
        clean_cache(repository, &mut noted, &mut report)?;
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
    /// Nodes of their lists of extents.
    nodes: HashSet<ChunkId>,
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
    audit::purge(vault)?;
    let look = audit::look(vault, noted.records.clone())?;
    report.receipts = audit::write(vault, &mut read_chain(vault)?, &look, "erase")?;
    report.records_kept = look.still.into_iter().chain(look.kept).collect();
    Ok(())
}

/// Removes from this host's cache what names chunks that are stored no more, and writes it anew.
fn clean_cache(
    repository: &Repository,
    noted: &mut Noted,
    report: &mut EraseReport,
) -> Result<(), Error> {
    repository.monitor().stage("erase: writing the cache anew", None);
    let catalog = repository.current_catalog()?;
    if let Some(chunks) = &mut noted.chunks {
        let mut kept = Vec::new();
        for id in chunks.iter() {
            if catalog.is_stored(*id)? {
                kept.push(*id);
            }
        }
        report.chunks_kept = kept.len() as u64;
        for id in kept {
            chunks.remove(&id);
        }
        // Lists of extents that are the same elsewhere are read from there again.
        chunks.extend(&noted.nodes);
    }
    let listed = snapshots::list_names(repository)?.into_iter();
    let listed = listed.filter_map(|name| match name {
        ObjectName::Snapshot { id, .. } => Some(id),
        _ => None,
    });
    forget_erased(catalog, noted.chunks.as_ref(), &listed.collect())?;
    report.cache_clean = clean_index(repository, catalog)?;
    Ok(())
}

/// Snapshots that belong together: one, and what it was before.
struct Family {
    head: SnapshotInfo,
    before: Vec<SnapshotId>,
    /// Whether one of those is still there, and not only its acknowledgement.
    is_there_before: bool,
    /// Whether any of them is.
    acknowledged: bool,
    /// Whether the head is.
    acknowledged_itself: bool,
}

/// Sorts snapshots by what they were before.
fn families(known: &Known) -> Vec<Family> {
    let listed = known.listed.iter().map(|one| one.id).collect::<HashSet<_>>();
    let former = known.listed.iter().flat_map(SnapshotInfo::former).collect::<HashSet<_>>();
    let mut families = BTreeMap::<usize, Family>::new();
    // Two erasures at once may have made the same snapshot anew, with the same outcome.
    let mut twins = HashMap::<(SnapshotId, ChunkId), usize>::new();
    for (number, head) in known.listed.iter().enumerate() {
        if former.contains(&head.id) {
            continue;
        }
        let acknowledged = known.acknowledged.contains(&head.id);
        // An acknowledgement that was put while its snapshot was taken for an orphan and went, counts
        // for what was made of it.
        let is_late = |id: &SnapshotId| !listed.contains(id) && known.objects.acks.contains_key(id);
        let counts = |id: &SnapshotId| known.acknowledged.contains(id) || is_late(id);
        let before = head.former().iter().copied();
        let before = before.filter(|id| listed.contains(id) || counts(id)).collect::<Vec<_>>();
        let is_there_before = before.iter().any(|id| listed.contains(id));
        if let Some(first) = head.former().first().filter(|_| acknowledged) {
            match twins.get(&(*first, head.record.root)).and_then(|twin| families.get_mut(twin)) {
                Some(twin) if !twin.before.contains(&head.id) => {
                    twin.before.push(head.id);
                    twin.before.extend(before);
                    continue;
                }
                _ => {
                    twins.insert((*first, head.record.root), number);
                }
            }
        }
        let acknowledged_itself = acknowledged;
        let acknowledged = acknowledged || before.iter().any(counts);
        let head = head.clone();
        let family = Family { head, before, is_there_before, acknowledged, acknowledged_itself };
        families.insert(number, family);
    }
    families.into_values().collect()
}

/// What is chosen of the families, and of what cannot be read.
fn choose(known: &Known, options: &EraseOptions) -> Result<Chosen, Error> {
    let (mut named, mut bare) = (HashSet::new(), Vec::new());
    for name in &options.snapshots {
        match snapshots::select_from(known.listed.clone(), name) {
            Ok(snapshot) => {
                named.insert(snapshot.id);
            }
            Err(Error::NoSnapshot { selector }) if options.paths.is_empty() => {
                let id = select_bare(known, &[], name).ok_or(Error::NoSnapshot { selector })?;
                bare.extend(Some(id).filter(|id| !bare.contains(id)));
            }
            Err(error) => return Err(error),
        }
    }
    let mut families = families(known);
    families.retain(|family| {
        let is_named = |id: &SnapshotId| named.contains(id);
        let by_name = options.snapshots.is_empty()
            || is_named(&family.head.id)
            || family.before.iter().any(is_named);
        let job = &family.head.record.job;
        by_name && options.job.as_ref().is_none_or(|wanted| wanted == job)
    });
    if let (Some(job), true, true) = (&options.job, families.is_empty(), bare.is_empty()) {
        return Err(Error::NoSnapshot { selector: format!("job:{job}") });
    }
    Ok(Chosen { families, bare, named: named.into_iter().collect() })
}

/// What an erasure is about.
struct Chosen {
    families: Vec<Family>,
    bare: Vec<SnapshotId>,
    named: Vec<SnapshotId>,
}

/// What is known of the snapshots. Of one that another erasure replaces meanwhile a listing may show
/// neither: then it is listed again, so that what is erased is not overlooked in the new one.
fn gather(repository: &Repository) -> Result<Known, Error> {
    let mut known = evidence::gather(repository)?;
    for _ in 1..ROUNDS_MAX {
        let read = known.listed.iter().map(|one| one.id).collect::<HashSet<_>>();
        let mut unread = known.objects.records.iter().filter(|(id, _)| !read.contains(*id));
        let vanished = unread.try_fold(false, |any, (_, names)| -> Result<bool, Error> {
            for name in names {
                match repository.store().size(name) {
                    Err(StoreError::NotFound { .. }) => return Ok(true),
                    Err(error) => return Err(error.into()),
                    // It is damaged.
                    Ok(_) => {}
                }
            }
            Ok(any)
        })?;
        if !vanished {
            break;
        }
        known = evidence::gather(repository)?;
    }
    Ok(known)
}

/// Looks at what is there.
fn look(
    repository: &Repository,
    options: &EraseOptions,
    paths: &mut Paths,
    mut each: Option<&mut EachErased<'_>>,
) -> Result<ErasePlan, Error> {
    repository.current_catalog()?;
    let known = gather(repository)?;
    let Chosen { families, bare, named } = choose(&known, options)?;
    // What cannot be read may hold what is meant; where snapshots are named, only these count.
    if let Some(remark) =
        known.damaged.first().filter(|_| !paths.is_empty() && options.snapshots.is_empty())
    {
        let (object, message) = (remark.subject.clone(), remark.message.clone());
        return Err(EraseError::Unreadable { object, message }.into());
    }
    let considered = families.len() as u64;
    let all = known.listed.iter().map(|one| one.id).collect::<HashSet<_>>();
    let mut planned = Vec::new();
    let mut surgery = Surgery::new(paths, false);
    let mut namespace = None;
    for family in families {
        repository.check_cancelled()?;
        if namespace.replace(family.head.namespace) != Some(family.head.namespace) {
            surgery.forget();
        }
        let each = each.as_mut().map(|each| &mut **each as &mut EachErased<'_>);
        planned.extend(judge(repository, options, &mut surgery, family, each)?);
    }
    let mut going = bare.iter().copied().collect::<HashSet<_>>();
    for one in &planned {
        going.extend(Some(one.snapshot.id).filter(|_| one.fate == Fate::Goes));
        going.extend(&one.before);
    }
    let left = all.difference(&going).count() as u64;
    let Known { objects, acknowledged, .. } = known;
    Ok(ErasePlan { snapshots: planned, bare, considered, left, named, objects, acknowledged })
}

/// What happens to one snapshot; `None` when nothing does.
fn judge(
    repository: &Repository,
    options: &EraseOptions,
    surgery: &mut Surgery<'_>,
    family: Family,
    each: Option<&mut EachErased<'_>>,
) -> Result<Option<Planned>, Error> {
    let Family { head, before, is_there_before, acknowledged, acknowledged_itself } = family;
    let planned = |fate, tally| {
        let (snapshot, before) = (head.clone(), before.clone());
        Planned { snapshot, fate, tally, before, acknowledged, leftover: false }
    };
    if options.paths.is_empty() {
        return Ok(Some(planned(Fate::Goes, Tally::default())));
    }
    let nodes = repository.nodes(&head)?;
    let mut ids = NodeIds { repository };
    let root = head.record.root;
    let outcome = match each {
        Some(each) => {
            let mut show = |path: &[u8], entry: &_| each(&head, path, entry);
            surgery.operate(&nodes, root, &mut ids, Some(&mut show))
        }
        None => surgery.operate(&nodes, root, &mut ids, None),
    };
    let outcome = match outcome {
        // It was forgotten meanwhile.
        Err(error) if error.is_damage() && snapshots::is_forgotten(repository, &head)? => {
            return Ok(None);
        }
        // Left by an erasure that died before it could find out that this is not complete: it goes,
        // and what it was to stand for is looked at next.
        Err(error) if error.is_damage() && !acknowledged_itself && is_there_before => {
            let leftover = planned(Fate::Goes, Tally::default());
            return Ok(Some(Planned { before: Vec::new(), leftover: true, ..leftover }));
        }
        Err(error) if error.is_damage() => {
            let object = format!("snapshot {}", head.id);
            return Err(EraseError::Unreadable { object, message: error.to_string() }.into());
        }
        outcome => outcome?,
    };
    let young = repository.context.clock.now_ms().saturating_sub(head.record.finished_ms)
        < UNACKNOWLEDGED_GRACE_MS;
    let fate = match (outcome.changed, outcome.kept) {
        (false, _) if before.is_empty() => return Ok(None),
        (false, _) => Fate::Settled,
        _ if !acknowledged && young => Fate::Waits,
        (true, false) => Fate::Goes,
        (true, true) => Fate::Remade,
    };
    Ok(Some(planned(fate, outcome.tally)))
}

/// Names nodes without storing them.
struct NodeIds<'a> {
    repository: &'a Repository,
}

impl NodeSink for NodeIds<'_> {
    fn put_node(&mut self, node: Vec<u8>) -> Result<ChunkId, Error> {
        Ok(self.repository.keys.tree_id(&node))
    }
}

/// Snapshots that are acknowledged and were not when it was planned.
fn late_acks(repository: &Repository, plan: &ErasePlan) -> Result<HashSet<SnapshotId>, Error> {
    if plan.snapshots.iter().all(|planned| planned.acknowledged) {
        return Ok(HashSet::new());
    }
    let mut acknowledged = snapshots::list_acknowledged(repository)?;
    acknowledged.retain(|id| !plan.objects.acks.contains_key(id));
    Ok(acknowledged)
}

/// Does what a plan says.
fn erase(
    repository: &Repository,
    plan: &ErasePlan,
    options: &EraseOptions,
    paths: &mut Paths,
    noted: &mut Noted,
    report: &mut EraseReport,
) -> Result<(), Error> {
    repository.monitor().stage("erase: making snapshots anew", None);
    let mut remaker = Remaker::new(repository, options.weakness)?;
    let mut surgery = Surgery::new(paths, true);
    surgery.chunks = noted.chunks.take();
    let mut namespace = None;
    let mut drafts = Vec::new();
    for planned in plan.snapshots.iter().filter(|planned| planned.fate != Fate::Waits) {
        repository.check_cancelled()?;
        let own = planned.snapshot.namespace;
        if namespace.replace(own) != Some(own) {
            surgery.forget();
        }
        // Of a snapshot that goes as a whole the chunks are noted by the same way.
        if planned.tally.entries() > 0 {
            let nodes = repository.nodes(&planned.snapshot)?;
            let mut sink = remaker.sink(own);
            let root = planned.snapshot.record.root;
            let outcome = match surgery.operate(&nodes, root, &mut sink, None) {
                // Others removed it, and it is seen to when it is looked again.
                Err(_) if snapshots::is_forgotten(repository, &planned.snapshot)? => continue,
                outcome => outcome?,
            };
            if planned.fate == Fate::Remade {
                drafts.push((planned, outcome));
            }
        }
    }
    noted.chunks = surgery.chunks.take();
    noted.nodes.extend(surgery.nodes.drain());
    let mut made = HashMap::new();
    for (planned, outcome) in drafts {
        let nodes = repository.nodes(&planned.snapshot)?;
        let rest = match outcome.tally.shared {
            true => Some(count_rest(&nodes, planned.snapshot.record.root, paths)?),
            false => None,
        };
        let draft = match remaker.draft(&planned.snapshot, &outcome, rest, paths) {
            Err(Error::Store(StoreError::NotFound { .. })) => continue,
            draft => draft?,
        };
        made.insert(planned.snapshot.id, (planned.acknowledged, draft));
    }
    for planned in plan.snapshots.iter().filter(|planned| planned.fate == Fate::Settled) {
        let to_acknowledge =
            planned.acknowledged && !plan.acknowledged.contains(&planned.snapshot.id);
        remaker.adopt(&planned.snapshot, to_acknowledge);
    }
    let became = remaker.publish(&made)?;
    repository.monitor().stage("erase: removing", None);
    let late = late_acks(repository, plan)?;
    for planned in plan.snapshots.iter().filter(|planned| planned.fate != Fate::Waits) {
        repository.check_cancelled()?;
        let id = planned.snapshot.id;
        let must_become = match planned.fate {
            Fate::Remade => true,
            Fate::Settled => planned.acknowledged && !plan.acknowledged.contains(&id),
            Fate::Goes | Fate::Waits => false,
        };
        // Nothing stands for it after all: it stays until that is so.
        if must_become && !became.contains_key(&id) {
            continue;
        }
        // Its backup acknowledged it meanwhile: what stands for it has to be acknowledged first.
        let stands = matches!(planned.fate, Fate::Remade | Fate::Settled);
        let unclaimed = stands && !planned.acknowledged;
        let is_late = |id: &SnapshotId| late.contains(id);
        if unclaimed && (is_late(&id) || planned.before.iter().any(is_late)) {
            continue;
        }
        let old = Some(planned.snapshot.id).filter(|_| planned.fate != Fate::Settled);
        let gone = planned.before.iter().copied().chain(old).collect();
        rollback::removed(repository, &gone)?;
        for id in &gone {
            remove(repository, &plan.objects, *id)?;
            noted.records.extend(plan.objects.names(*id));
        }
        // One that comes even now counts for what was made of it, when it is looked again.
        if !unclaimed {
            remove_late_acks(repository, &gone)?;
        }
        report.snapshots.push(Erased {
            id: planned.snapshot.id,
            fate: planned.fate,
            becomes: became.get(&planned.snapshot.id).copied(),
            tally: planned.tally,
        });
    }
    rollback::removed(repository, &plan.bare.iter().copied().collect())?;
    for id in &plan.bare {
        remove(repository, &plan.objects, *id)?;
        noted.records.extend(plan.objects.names(*id));
        let tally = Tally::default();
        report.snapshots.push(Erased { id: *id, fate: Fate::Goes, becomes: None, tally });
    }
    Ok(())
}
