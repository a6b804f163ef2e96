//! Receipts as they lie in the store: listing, reading and signing them (SPEC section 8.6). What follows
//! from them is told by `intent`, of what is meant to go, and by `collect::receipt`, of what is gone.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use cairn_format::codec::{Reader, Writer};
use cairn_format::ids::{ObjectHash, ReplicaId};
use cairn_format::limits::{LABEL_BYTES_MAX, TOMB_BYTES_MAX};
use cairn_format::names::{Folder, ObjectName};
use cairn_format::receipt::{Audit, ReceiptRecord};

use super::Vault;
use super::vault::read_object;
use crate::error::Error;
use crate::index::local::LocalIndex;
use crate::index::objects::{Remembered, Said};

/// Names in one receipt, at most: with up to 140 bytes each it stays below the limit.
pub const RECEIPT_NAMES_MAX: usize = 50_000;

/// A receipt that was signed by somebody who may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadReceipt {
    /// What it says.
    pub record: ReceiptRecord,
    /// Name of the key that signed it.
    pub signer: String,
}

/// Shown a receipt in its turn, or why it cannot be read; may break off.
pub type EachReceipt<'e> =
    dyn FnMut(&ObjectName, Result<ReadReceipt, Error>) -> Result<ControlFlow<()>, Error> + 'e;

/// In which order receipts are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The one with the lowest sequence first, as far as names tell.
    OldestFirst,
    /// The other way round.
    NewestFirst,
}

/// The receipts with their sizes in bytes, in the order of their sequences and hashes as their names
/// tell them.
///
/// # Errors
/// Failures of the store.
pub fn list(vault: &Vault) -> Result<Vec<(ObjectName, u64)>, Error> {
    let mut names = BTreeMap::new();
    vault.store.list(Folder::Receipts, &mut |name, bytes| {
        if let ObjectName::Receipt { sequence, hash } = name {
            names.insert((sequence, hash), bytes);
        }
        Ok(())
    })?;
    let name = |((sequence, hash), bytes)| (ObjectName::Receipt { sequence, hash }, bytes);
    Ok(names.into_iter().map(name).collect())
}

/// Shows each receipt that is there, or why it cannot be read, until `each` breaks off. What `index`
/// remembers is not read again; without one all of them come from the store.
///
/// # Errors
/// Failures of the store, when it cannot be listed, and of the cache; those of `each`.
pub fn for_each(
    vault: &Vault,
    index: Option<&dyn LocalIndex>,
    order: Order,
    each: &mut EachReceipt<'_>,
) -> Result<(), Error> {
    let mut listed = list(vault)?;
    if order == Order::NewestFirst {
        listed.reverse();
    }
    let remembered = Remembered::new(vault, index);
    let there = listed.iter().map(|(name, _)| *name).collect::<HashSet<_>>();
    remembered.keep_only(Folder::Receipts, &there)?;
    remembered.for_each(&listed, &mut |name, _, said| each(name, said))
}

impl Said for ReadReceipt {
    fn read(vault: &Vault, name: &ObjectName) -> Result<Self, Error> {
        let object = read_object(vault.store.as_ref(), name, TOMB_BYTES_MAX)?;
        let (writer, receipt) = vault.trust.verify_receipt(&object).map_err(Error::sealed(name))?;
        let time_ms = receipt.record.time_ms;
        vault.trust.check_not_revoked(&writer, time_ms).map_err(Error::sealed(name))?;
        Ok(Self { record: receipt.record, signer: writer.name })
    }

    /// The name of the key, then the record.
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.str(&self.signer).raw(&self.record.encode());
        out.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Reader::new(bytes, "memo");
        let signer = fields.str("memo", LABEL_BYTES_MAX).ok()?;
        Some(Self { record: ReceiptRecord::decode(fields.take_rest()).ok()?, signer })
    }
}

/// A receipt that follows another, ready to be put.
pub struct Signed {
    /// Its name.
    pub name: ObjectName,
    /// Its sequence and hash: what the next one follows.
    pub place: (u64, ObjectHash),
    /// Its bytes.
    pub object: Vec<u8>,
    /// What it says.
    pub record: ReceiptRecord,
}

impl Signed {
    /// Signs one for at most [`RECEIPT_NAMES_MAX`] names; `last` is the one before.
    ///
    /// # Errors
    /// The key may not sign receipts.
    pub fn new(
        vault: &Vault,
        replica: ReplicaId,
        last: Option<(u64, ObjectHash)>,
        names: &[ObjectName],
        audits: &[Audit],
        note: &str,
    ) -> Result<Self, Error> {
        let sequence = last.map_or(1, |(sequence, _)| sequence.saturating_add(1));
        let record = ReceiptRecord {
            sequence,
            previous: last.map(|(_, hash)| hash),
            replica,
            deleted: names.to_vec(),
            audits: audits.to_vec(),
            time_ms: vault.context.clock.now_ms(),
            note: Some(note.to_owned()),
        };
        let object = vault.keys.signer()?.sign_receipt(vault.id(), record.clone())?.encode();
        let hash = ObjectHash::from_bytes(*blake3::hash(&object).as_bytes());
        let name = ObjectName::Receipt { sequence, hash };
        Ok(Self { name, place: (sequence, hash), object, record })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_receipt_says_is_remembered_and_nonsense_is_nothing() {
        let record = ReceiptRecord {
            sequence: 2,
            previous: Some(ObjectHash::from_bytes([3; ObjectHash::LEN])),
            replica: ReplicaId::from_bytes([4; ReplicaId::LEN]),
            deleted: vec![ObjectName::Format],
            audits: Vec::new(),
            time_ms: -5,
            note: None,
        };
        let read = ReadReceipt { record, signer: "owner".to_owned() };
        let bytes = read.encode();
        assert_eq!(ReadReceipt::decode(&bytes), Some(read));
        for end in [0, 3, bytes.len() - 1] {
            assert_eq!(ReadReceipt::decode(&bytes[..end]), None, "{end}");
        }
    }
}
