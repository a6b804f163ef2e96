//! The last step of whatever makes a snapshot stand: a backup, an erasure that makes one anew, a
//! replication (SPEC section 10).

use cairn_format::envelope::Kind;
use cairn_format::ids::{ObjectHash, SessionId, SnapshotId};
use cairn_format::names::ObjectName;
use cairn_format::record::Ack;

use super::rollback;
use crate::context::Remark;
use crate::error::{Error, Explain as _};
use crate::index::catalog::Catalog;
use crate::repo::vault::Vault;
use crate::store::any_is_there;

/// What came of acknowledging a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// It and this acknowledgement are there.
    Stands(ObjectName),
    /// Its record is gone, and the acknowledgement is taken back: this process may have been paused for
    /// long, and its snapshot been taken for an orphan or forgotten.
    Forgotten,
    /// The store took the acknowledgement and does not have it. What is not acknowledged is taken for an
    /// orphan sooner or later, so nothing may rest on this snapshot.
    Lost,
}

/// A snapshot whose record is visible.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visible<'a> {
    /// Its id.
    pub(super) id: SnapshotId,
    /// Its record.
    pub(super) name: &'a ObjectName,
    /// Its job.
    pub(super) job: &'a str,
}

/// Puts an acknowledgement of the snapshot, and looks whether both are there. Everything that it needs has
/// to be proven before. Hosts whose key may collect remember it, so that their next collection misses it
/// where a list does not have it yet.
///
/// # Errors
/// Failures of the store.
pub(super) fn acknowledge(
    vault: &Vault,
    catalog: &Catalog,
    session: SessionId,
    made: Visible<'_>,
) -> Result<Acknowledged, Error> {
    let snapshot = made.id;
    let ack = Ack {
        snapshot,
        time_ms: vault.context.clock.now_ms(),
        tombs_digest: catalog.tombs_digest(),
        session,
    };
    let object = vault.seal_signed(Kind::Ack, &ack.encode())?;
    let hash = ObjectHash::from_bytes(*blake3::hash(&object).as_bytes());
    let ack = ObjectName::Ack { snapshot, hash };
    vault.store.put(&ack, &object)?;
    if !any_is_there(vault.store.as_ref(), &[ack])? {
        return Ok(Acknowledged::Lost);
    }
    if !any_is_there(vault.store.as_ref(), &[*made.name])? {
        vault.store.delete(&ack)?;
        return Ok(Acknowledged::Forgotten);
    }
    if vault.keys.can_collect()
        && let Err(error) = rollback::acknowledged(catalog, made.job, snapshot)
    {
        vault.monitor().warn(Remark {
            code: error.code(),
            subject: format!("snapshot {snapshot}"),
            message: format!("it is safe, and this host cannot remember it: {error}"),
        });
    }
    Ok(Acknowledged::Stands(ack))
}
