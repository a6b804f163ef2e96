//! The last step of whatever makes a snapshot stand: a backup, an erasure that makes one anew, a
//! replication (SPEC section 10).

use cairn_format::envelope::Kind;
use cairn_format::ids::{ObjectHash, SessionId, SnapshotId};
use cairn_format::names::ObjectName;
use cairn_format::record::Ack;

use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::repo::vault::Vault;
use crate::store::StoreError;

/// What came of acknowledging a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// It and its acknowledgement are there.
    Stands,
    /// Its record is gone, and the acknowledgement is taken back: this process may have been paused for
    /// long, and its snapshot been taken for an orphan or forgotten.
    Forgotten,
    /// The store took the acknowledgement and does not have it. What is not acknowledged is taken for an
    /// orphan sooner or later, so nothing may rest on this snapshot.
    Lost,
}

/// Puts an acknowledgement of the snapshot `name`, and looks whether both are there. Everything that
/// the snapshot needs has to be proven before.
///
/// # Errors
/// Failures of the store.
pub(super) fn acknowledge(
    vault: &Vault,
    catalog: &Catalog,
    session: SessionId,
    (snapshot, name): (SnapshotId, &ObjectName),
) -> Result<Acknowledged, Error> {
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
    if !is_there(vault, &ack)? {
        return Ok(Acknowledged::Lost);
    }
    if !is_there(vault, name)? {
        vault.store.delete(&ack)?;
        return Ok(Acknowledged::Forgotten);
    }
    Ok(Acknowledged::Stands)
}

fn is_there(vault: &Vault, name: &ObjectName) -> Result<bool, Error> {
    match vault.store.size(name) {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
