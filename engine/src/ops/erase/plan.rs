//! What an erasure would do: which snapshots are concerned, and what becomes of each. Looks, and
//! changes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use cairn_format::ids::{ChunkId, SnapshotId};
use cairn_format::names::ObjectName;
use cairn_format::tree::Entry;

use super::error::EraseError;
use super::paths::Paths;
use super::tree::{Surgery, Tally};
use super::{EraseOptions, ROUNDS_MAX};
use crate::error::Error;
use crate::ops::forget::evidence;
use crate::ops::forget::{Known, Objects, select_bare};
use crate::ops::snapshots::{self, SnapshotInfo};
use crate::repo::Repository;
use crate::retention::UNACKNOWLEDGED_GRACE_MS;
use crate::store::StoreError;
use crate::tree::NodeSink;

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
    pub(super) before: Vec<SnapshotId>,
    /// Whether what stands for it is to be acknowledged.
    pub(super) acknowledged: bool,
    /// It was left incomplete by an erasure that died; what it was to stand for is there.
    pub(super) leftover: bool,
}

impl Planned {
    /// What goes with it, if it does not wait.
    pub(super) fn goes(&self) -> impl Iterator<Item = SnapshotId> {
        let itself = Some(self.snapshot.id).filter(|_| self.fate != Fate::Settled);
        self.before.iter().copied().chain(itself)
    }
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
    pub(super) named: Vec<SnapshotId>,
    pub(super) objects: Objects,
    pub(super) acknowledged: HashSet<SnapshotId>,
}

impl ErasePlan {
    /// Snapshots with this fate; those that were named and cannot be read go.
    #[must_use]
    pub fn count(&self, fate: Fate) -> u64 {
        let bare = if fate == Fate::Goes { self.bare.len() } else { 0 };
        (self.snapshots.iter().filter(|planned| planned.fate == fate).count() + bare) as u64
    }

    pub(super) fn is_done(&self) -> bool {
        self.bare.is_empty() && self.snapshots.iter().all(|planned| planned.fate == Fate::Waits)
    }

    /// How many of those that are to be made anew or to go the store has: listings may go on to show
    /// what was deleted.
    ///
    /// # Errors
    /// Failures of the store.
    pub(super) fn still_there(&self, repository: &Repository) -> Result<usize, Error> {
        let mut there = 0;
        for planned in &self.snapshots {
            let (id, time_ms) = (planned.snapshot.id, planned.snapshot.name_time_ms);
            if !matches!(planned.fate, Fate::Remade | Fate::Goes) {
                continue;
            }
            match repository.store().size(&ObjectName::Snapshot { time_ms, id }) {
                Ok(_) => there += 1,
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(there)
    }
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
        let family = Family {
            head: head.clone(),
            before,
            is_there_before,
            acknowledged,
            acknowledged_itself,
        };
        families.insert(number, family);
    }
    families.into_values().collect()
}

/// What an erasure is about.
struct Chosen {
    families: Vec<Family>,
    bare: Vec<SnapshotId>,
    named: Vec<SnapshotId>,
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
pub(super) fn look(
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
