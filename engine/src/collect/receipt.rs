//! Receipts: signed, chained statements of what was deleted and how its absence was seen
//! (SPEC section 8.6).

use std::collections::HashSet;

use cairn_format::ids::{ObjectHash, PackId, ReplicaId};
use cairn_format::limits::{RECORD_BYTES_MAX, TOMB_BYTES_MAX};
use cairn_format::names::{Folder, ObjectName};
use cairn_format::receipt::{Audit, AuditMethod, AuditResult, ReceiptRecord, Replica};

use crate::context::Remark;
use crate::error::Error;
use crate::repo::Vault;
use crate::repo::vault::read_object;
use crate::seal::random;
use crate::store::StoreError;

/// Names in one receipt, at most: with up to 140 bytes each it stays below the limit.
const RECEIPT_NAMES_MAX: usize = 50_000;

/// What the receipts so far say.
#[derive(Debug, Default)]
pub struct Chain {
    /// The newest: its sequence and hash.
    last: Option<(u64, ObjectHash)>,
    /// Packs that receipts name.
    pub packs: HashSet<PackId>,
}

/// Reads the receipts. Those that cannot be read are warned about: they prove nothing.
///
/// # Errors
/// Failures of the store.
pub fn read_chain(vault: &Vault) -> Result<Chain, Error> {
    let mut names = Vec::new();
    vault.store.list(Folder::Receipts, &mut |name, _| {
        names.push(name);
        Ok(())
    })?;
    let mut chain = Chain::default();
    for name in names {
        let ObjectName::Receipt { hash, .. } = name else { continue };
        match read(vault, &name) {
            Ok(record) => {
                chain.last = chain.last.max(Some((record.sequence, hash)));
                chain.packs.extend(record.deleted.iter().filter_map(|name| match name {
                    ObjectName::Pack(_, id) => Some(*id),
                    _ => None,
                }));
            }
            Err(Error::Store(StoreError::NotFound { .. })) => {}
            Err(error) if error.is_damage() => vault.monitor().warn(Remark::of(name, &error)),
            Err(error) => return Err(error),
        }
    }
    Ok(chain)
}

fn read(vault: &Vault, name: &ObjectName) -> Result<ReceiptRecord, Error> {
    let object = read_object(vault.store.as_ref(), name, TOMB_BYTES_MAX)?;
    let (writer, receipt) = vault.trust.verify_receipt(&object).map_err(Error::sealed(name))?;
    vault.trust.check_not_revoked(&writer, receipt.record.time_ms).map_err(Error::sealed(name))?;
    Ok(receipt.record)
}

impl Chain {
    /// Adds receipts for objects whose absence was seen by name and in listings; returns them.
    ///
    /// # Errors
    /// Failures of the store.
    pub fn write(
        &mut self,
        vault: &Vault,
        names: &[ObjectName],
        seen_ms: [i64; 2],
        note: &str,
    ) -> Result<Vec<ObjectName>, Error> {
        let replica = replica(vault)?;
        let mut written = Vec::new();
        for names in names.chunks(RECEIPT_NAMES_MAX) {
            let methods = [AuditMethod::ByName, AuditMethod::ByListing];
            let audits = methods.into_iter().zip(seen_ms);
            let record = ReceiptRecord {
                sequence: self.last.map_or(1, |(sequence, _)| sequence.saturating_add(1)),
                previous: self.last.map(|(_, hash)| hash),
                replica,
                deleted: names.to_vec(),
                audits: audits
                    .map(|(method, time_ms)| Audit { time_ms, method, result: AuditResult::Gone })
                    .collect(),
                time_ms: vault.context.clock.now_ms(),
                note: Some(note.to_owned()),
            };
            let sequence = record.sequence;
            let object = vault.keys.signer()?.sign_receipt(vault.id(), record)?.encode();
            let hash = ObjectHash::from_bytes(*blake3::hash(&object).as_bytes());
            let name = ObjectName::Receipt { sequence, hash };
            vault.store.put(&name, &object)?;
            self.last = Some((sequence, hash));
            written.push(name);
        }
        Ok(written)
    }
}

/// The identity of this copy of the repository; it is given one when it has none yet. Of several
/// the oldest counts, so that everyone ends with the same.
fn replica(vault: &Vault) -> Result<ReplicaId, Error> {
    let mut names = Vec::new();
    vault.store.list(Folder::Replica, &mut |name, _| {
        names.push(name);
        Ok(())
    })?;
    let mut found = Vec::new();
    for name in names {
        let object = match read_object(vault.store.as_ref(), &name, RECORD_BYTES_MAX) {
            Ok(object) => object,
            Err(error) if error.is_damage() => continue,
            Err(error) => return Err(error),
        };
        match Replica::parse(&object) {
            Ok(replica) if replica.repository == vault.id() => {
                found.push((replica.created_ms, replica.replica));
            }
            _ => {}
        }
    }
    if let Some((_, replica)) = found.into_iter().min() {
        return Ok(replica);
    }
    let replica = Replica {
        repository: vault.id(),
        replica: ReplicaId::from_bytes(random::array(vault.context.random.as_ref())?),
        created_ms: vault.context.clock.now_ms(),
        description: None,
    };
    let object = replica.encode();
    let hash = ObjectHash::from_bytes(*blake3::hash(&object).as_bytes());
    vault.store.put(&ObjectName::Replica(hash), &object)?;
    Ok(replica.replica)
}
