//! What a collection finds: snapshots, packs, who is at work. A listing that contradicts another
//! stops it, since a store that forgets to list a snapshot must not get its content deleted.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;

use cairn_format::ids::{PackId, SessionId, SnapshotId};
use cairn_format::names::{Folder, ObjectName, PackKind};
use cairn_format::segment::PackSection;

use super::lease;
use crate::context::Remark;
use crate::error::Error;
use crate::index::catalog::{Catalog, list_packs};
use crate::index::local::PackNumber;
use crate::ops::snapshots::{self, SnapshotInfo};
use crate::pack::reader::PackReader;
use crate::repo::Repository;
use crate::store::StoreError;

/// How often packs are compared with the index while other collections delete some.
const ROUNDS_MAX: usize = 8;
/// How often snapshots are listed while others forget some.
const LISTINGS_MAX: usize = 32;

/// What is there.
#[derive(Default)]
pub struct Survey {
    /// All snapshots, oldest first.
    pub snapshots: Vec<SnapshotInfo>,
    /// All packs in the store, with kind and size in bytes.
    pub present: BTreeMap<PackId, (PackKind, u64)>,
    /// Packs that no segment named, and that were read.
    pub adopted: Vec<PackSection>,
    /// Packs that no segment names, and whose directory cannot be read.
    pub junk: Vec<(PackKind, PackId)>,
    /// Sessions at work.
    pub sessions: HashSet<SessionId>,
    /// Leases that spare nothing, where leases were looked at.
    pub idle_leases: BTreeSet<ObjectName>,
    /// Packs that were found damaged when they were last verified on this host.
    pub doubtful: HashSet<PackNumber>,
}

/// Looks at everything.
///
/// # Errors
/// [`Error::LivenessUnknown`] when something that says what is needed is damaged, missing, or
/// contradicted; [`Error::TombDamaged`]; failures of the store and the cache.
pub fn survey(
    repository: &Repository,
    catalog: &Catalog,
    own: SessionId,
    honour_leases: bool,
) -> Result<Survey, Error> {
    let snapshots = list_snapshots(repository, catalog, &[])?;
    let vault = repository.vault();
    let mut survey = Survey { snapshots, ..Survey::default() };
    if honour_leases {
        let leases = lease::look(vault)?;
        (survey.sessions, survey.idle_leases) = (leases.at_work, leases.idle);
        survey.sessions.remove(&own);
    }
    for _ in 0..ROUNDS_MAX {
        list(repository, catalog, &mut survey)?;
        let Some(wrong) = check_packs(catalog, &mut survey)? else { return Ok(survey) };
        // It may have been collected since the tombs were listed.
        catalog.sync_keeping(vault)?;
        if !catalog.is_condemned(&wrong.pack) {
            return Err(wrong.error);
        }
    }
    Err(Error::PlaceStale)
}

/// Lists packs, and reads the directories of those that no segment names.
///
/// # Errors
/// Failures of the store and the cache.
pub fn list(repository: &Repository, catalog: &Catalog, survey: &mut Survey) -> Result<(), Error> {
    let vault = repository.vault();
    survey.present = list_packs(vault)?;
    survey.adopted.clear();
    survey.junk.clear();
    catalog.forget_absent(vault, &survey.present)?;
    adopt(repository, catalog, survey)
}

/// All snapshots; the index is then at least as new as their list. Records among `known`, which were
/// read before, are not read again: they are written once.
///
/// # Errors
/// As [`survey`].
pub fn list_snapshots(
    repository: &Repository,
    catalog: &Catalog,
    known: &[SnapshotInfo],
) -> Result<Vec<SnapshotInfo>, Error> {
    // Before the snapshots: whoever forgets one removes its acknowledgement first.
    let mut acknowledged = Vec::new();
    repository.store().list(Folder::Acks, &mut |name, _| {
        if let ObjectName::Ack { snapshot, .. } = name {
            acknowledged.push((snapshot, name));
        }
        Ok(())
    })?;
    let found = list_records(repository, known)?;
    let listed = found.iter().map(|snapshot| snapshot.id).collect::<HashSet<SnapshotId>>();
    for (snapshot, name) in acknowledged.into_iter().filter(|(id, _)| !listed.contains(id)) {
        match repository.store().size(&name) {
            Err(StoreError::NotFound { .. }) => {}
            Ok(_) => {
                return Err(Error::LivenessUnknown {
                    object: format!("snapshot {snapshot}"),
                    message: "it was acknowledged, and the store does not list it".to_owned(),
                });
            }
            Err(error) => return Err(error.into()),
        }
    }
    catalog.require_sound_tombs()?;
    if let Some(remark) = catalog.damaged_segments().into_iter().next() {
        return Err(Error::LivenessUnknown { object: remark.subject, message: remark.message });
    }
    Ok(found)
}

/// The snapshots that are listed. One that is gone before it was read may have been relied on until then
/// by another that became visible after the list: so what is there is listed again. What was gone before
/// a list was asked for is passed over, should the list have it: a store may go on to list what was
/// deleted.
fn list_records(
    repository: &Repository,
    known: &[SnapshotInfo],
) -> Result<Vec<SnapshotInfo>, Error> {
    let mut known = known.to_vec();
    let mut gone = HashSet::new();
    for _ in 0..LISTINGS_MAX {
        let listed = snapshots::list_known(repository, &known)?;
        if let Some(remark) = listed.damaged.first() {
            let Remark { subject, message, .. } = remark.clone();
            return Err(Error::LivenessUnknown { object: subject, message });
        }
        let before = gone.len();
        gone.extend(listed.vanished());
        if gone.len() == before {
            return Ok(listed.found);
        }
        known = listed.found;
    }
    Err(Error::LivenessUnknown {
        object: "the list of snapshots".to_owned(),
        message:
            "snapshots go on to vanish while they are read: run it again when nobody forgets any"
                .to_owned(),
    })
}

/// Reads the directories of packs that the index does not know: left by an interrupted writer,
/// being written, condemned by an interrupted collection, or described by a segment that is lost.
///
/// # Errors
/// Failures of the store and the cache.
pub fn adopt(repository: &Repository, catalog: &Catalog, survey: &mut Survey) -> Result<(), Error> {
    let vault = repository.vault();
    let reader = PackReader::new(repository.store(), &vault.keys);
    // Those that only this host's index knows are as good as unknown: nobody else would find them.
    let pending = catalog.index().pending_packs()?.into_iter().collect::<HashSet<_>>();
    let mut named = HashSet::new();
    catalog.index().for_each_pack(&mut |_, record, _| {
        if !pending.contains(&record.id) {
            named.insert(record.id);
        }
        ControlFlow::Continue(())
    })?;
    for (id, (kind, bytes)) in survey.present.iter().filter(|(id, _)| !named.contains(*id)) {
        vault.check_cancelled()?;
        match reader.directory(*kind, *id, *bytes, &vault.trust) {
            Ok(section) => {
                catalog.add_pending(&section)?;
                if !catalog.is_condemned(id) {
                    survey.adopted.push(section);
                }
            }
            Err(error) if error.has_vanished() => {}
            // What a medium does not give now it may give later: it is left alone, as nobody needs it.
            Err(error @ Error::Store(StoreError::Unreadable { .. })) => {
                vault.monitor().warn(Remark::of(ObjectName::Pack(*kind, *id), &error));
            }
            Err(error) if error.is_damage() => survey.junk.push((*kind, *id)),
            Err(error) => return Err(error),
        }
    }
    catalog.find_condemned()
}

/// The packs in the store, among them every one that the index names and nobody has condemned. To be
/// asked before anything is deleted: what takes its place may have been acknowledged and lost.
///
/// # Errors
/// [`Error::LivenessUnknown`] when one is missing; failures of the store and the cache.
pub fn require_present(
    repository: &Repository,
    catalog: &Catalog,
) -> Result<BTreeMap<PackId, (PackKind, u64)>, Error> {
    let vault = repository.vault();
    for _ in 0..ROUNDS_MAX {
        let mut survey = Survey { present: list_packs(vault)?, ..Survey::default() };
        let Some(wrong) = check_packs(catalog, &mut survey)? else { return Ok(survey.present) };
        catalog.sync_keeping(vault)?;
        if !catalog.is_condemned(&wrong.pack) {
            return Err(wrong.error);
        }
    }
    Err(Error::PlaceStale)
}

/// Every pack that the index names is there, with its length; those found damaged or missing are
/// noted.
fn check_packs(catalog: &Catalog, survey: &mut Survey) -> Result<Option<Wrong>, Error> {
    let (condemned, suspects) = (catalog.condemned_here(), catalog.suspects());
    let mut wrong = None;
    let (present, doubtful) = (&survey.present, &mut survey.doubtful);
    catalog.index().for_each_pack(&mut |number, record, ledger| {
        if condemned.contains(&number) {
            return ControlFlow::Continue(());
        }
        if ledger.is_some_and(|ledger| !ledger.ok) || suspects.contains(&number) {
            doubtful.insert(number);
        }
        match present.get(&record.id) {
            // Verify has said so already, and what it held may have been stored anew.
            None if doubtful.contains(&number) => ControlFlow::Continue(()),
            Some((kind, bytes)) if *kind == record.kind && *bytes == u64::from(record.bytes) => {
                ControlFlow::Continue(())
            }
            other => {
                wrong = Some((*record, other.map(|(_, bytes)| *bytes)));
                ControlFlow::Break(())
            }
        }
    })?;
    let Some((record, bytes)) = wrong else { return Ok(None) };
    let message = match bytes {
        None => "the index names it, and the store does not list it".to_owned(),
        Some(bytes) => format!("it has {bytes} bytes where {} belong", record.bytes),
    };
    let object = ObjectName::Pack(record.kind, record.id).to_string();
    Ok(Some(Wrong { pack: record.id, error: Error::LivenessUnknown { object, message } }))
}

/// A pack that is not as the index says.
struct Wrong {
    pack: PackId,
    error: Error,
}
