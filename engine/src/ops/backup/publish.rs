//! The end of a backup: the snapshot is put, what it relies on is checked once more, and it is
//! acknowledged (SPEC §10). Also what this host remembers of its own snapshots.

use cairn_format::envelope::Kind;
use cairn_format::ids::{SessionId, SnapshotId};
use cairn_format::limits::RECORD_BYTES_MAX;
use cairn_format::names::ObjectName;
use cairn_format::record::{Snapshot, Statistics};

use super::Written;
use super::prepare::usage;
use super::prove::{Claim, Proof};
use crate::collect::Weakness;
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::ops::acknowledge::{Acknowledged, Visible, acknowledge};
use crate::ops::snapshots::SnapshotInfo;
use crate::repo::Repository;
use crate::retention::RetentionError;

/// Name under which the newest snapshot of a job by this host is remembered.
fn latest_name(job: &str) -> String {
    format!("latest/{}", blake3::hash(job.as_bytes()).to_hex())
}

const SEQUENCE_NAME: &str = "writer/sequence";
const PREVIOUS_NAME: &str = "writer/previous";

/// The newest snapshot of a job that this host made, if it is still listed.
///
/// # Errors
/// Failures of the cache.
pub fn latest_of(
    catalog: &Catalog,
    job: &str,
    listed: &[ObjectName],
) -> Result<Vec<SnapshotId>, Error> {
    let noted = catalog.index().meta_get(&latest_name(job))?;
    Ok(noted
        .and_then(|bytes| SnapshotId::from_slice(&bytes).ok())
        .filter(|latest| {
            listed
                .iter()
                .any(|name| matches!(name, ObjectName::Snapshot { id, .. } if id == latest))
        })
        .into_iter()
        .collect())
}

/// Remembers a snapshot as the newest of its job and of this writer.
///
/// # Errors
/// Failures of the cache.
pub fn remember_latest(catalog: &Catalog, snapshot: &SnapshotInfo) -> Result<(), Error> {
    let index = catalog.index();
    index.meta_put(&latest_name(&snapshot.record.job), snapshot.id.as_bytes())?;
    index.meta_put(PREVIOUS_NAME, snapshot.id.as_bytes())?;
    Ok(index.meta_put(SEQUENCE_NAME, &snapshot.record.sequence.to_le_bytes())?)
}

/// The record of the snapshot.
///
/// # Errors
/// Failures of the cache.
pub fn describe(
    repository: &Repository,
    catalog: &Catalog,
    session: SessionId,
    started_ms: i64,
    written: &Written,
) -> Result<Snapshot, Error> {
    let index = catalog.index();
    let sequence = index
        .meta_get(SEQUENCE_NAME)?
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_le_bytes);
    let previous = index.meta_get(PREVIOUS_NAME)?;
    let context = &repository.context;
    let (assembled, fed) = (&written.assembled, &written.fed);
    Ok(Snapshot {
        started_ms,
        finished_ms: context.clock.now_ms(),
        job: written.job.clone(),
        host: context.host.clone(),
        user: context.user.clone(),
        paths: written.paths.clone(),
        tags: written.tags.clone(),
        root: assembled.root,
        sequence: sequence.saturating_add(1),
        session,
        previous: previous.and_then(|bytes| SnapshotId::from_slice(&bytes).ok()),
        parents: written.parents.clone(),
        statistics: Statistics {
            files: assembled.files,
            directories: assembled.directories,
            others: assembled.others,
            bytes_total: assembled.bytes_total,
            bytes_read: fed.bytes_read,
            bytes_new: written.bytes_new,
            bytes_stored: written.bytes_stored,
            unread: fed.unread,
        },
        program: context.program.clone(),
        sources: written.records.clone(),
        excludes: written.excludes.clone(),
        remade: None,
    })
}

/// What came of publishing.
pub enum Published {
    /// The snapshot is acknowledged.
    Acknowledged {
        /// The snapshot.
        snapshot: Box<SnapshotInfo>,
        /// Its acknowledgement.
        ack: ObjectName,
        /// Chunks that were stored anew for it.
        chunks_repaired: u64,
    },
    /// Packs that it may rely on were condemned meanwhile, so many of them: it is not acknowledged.
    Open {
        /// The snapshot.
        name: ObjectName,
        /// How many packs.
        packs: usize,
    },
}

/// Puts the snapshot, checks that nothing it relies on was condemned meanwhile, acknowledges it, and
/// looks whether it is there still.
///
/// # Errors
/// [`RetentionError::Forgotten`]; failures of the store. Then the snapshot is not acknowledged.
pub fn publish(
    repository: &Repository,
    catalog: &Catalog,
    session: SessionId,
    record: Snapshot,
    written: &Written,
) -> Result<Published, Error> {
    let vault = repository.vault();
    let object = vault.seal_signed(Kind::Snapshot, &record.encode())?;
    if object.len() > RECORD_BYTES_MAX as usize {
        let hint = "name fewer paths: a directory instead of its files";
        return Err(usage("the description of the snapshot is too long", hint));
    }
    let id = SnapshotId::from_bytes(*blake3::hash(&object).as_bytes());
    let name_time_ms = u64::try_from(record.started_ms).unwrap_or_default();
    let name = ObjectName::Snapshot { time_ms: name_time_ms, id };
    vault.store.put(&name, &object)?;
    let claim = Claim {
        repository,
        catalog,
        session,
        root: record.root,
        namespace: repository.own_namespace()?,
        before: written.before,
        packs: &written.packs,
        relied: &written.relied,
    };
    let proof = match written.weakness {
        Some(Weakness::Precheck) => Proof::Complete(0),
        _ => claim.prove()?,
    };
    let copied = match proof {
        Proof::Complete(copied) => copied,
        Proof::Open(packs) => return Ok(Published::Open { name, packs }),
    };
    let visible = Visible { id, name: &name, job: &record.job };
    let Acknowledged::Stands(ack) = acknowledge(vault, catalog, session, visible)? else {
        return Err(RetentionError::Forgotten { snapshot: id }.into());
    };
    let signer = vault.keys.signer()?;
    let snapshot = SnapshotInfo {
        id,
        name_time_ms,
        record,
        writer: signer.writer_id(),
        writer_name: signer.certificate().name.clone(),
        namespace: vault.own_namespace()?,
        acknowledged: true,
    };
    Ok(Published::Acknowledged { snapshot: Box::new(snapshot), ack, chunks_repaired: copied })
}
