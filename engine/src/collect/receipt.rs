//! Receipts: signed, chained statements of what was deleted and how its absence was seen
//! (SPEC section 8.6).

use std::collections::HashSet;

use cairn_format::ids::{ObjectHash, PackId, ReplicaId};
use cairn_format::limits::TOMB_BYTES_MAX;
use cairn_format::names::{Folder, ObjectName};
use cairn_format::receipt::{Audit, ReceiptRecord};

use super::audit::{Saw, SeenByName};
use crate::context::Remark;
use crate::error::Error;
use crate::repo::vault::read_object;
use crate::repo::{Vault, identity};
use crate::store::{StoreError, together};

/// Names in one receipt, at most: with up to 140 bytes each it stays below the limit.
pub const RECEIPT_NAMES_MAX: usize = 50_000;

/// What the receipts so far say.
#[derive(Debug, Default)]
pub struct Chain {
    /// The newest: its sequence and hash.
    last: Option<(u64, ObjectHash)>,
    /// Packs that receipts name, also such as were found again.
    pub packs: HashSet<PackId>,
    /// When each object that receipts name was seen to be gone.
    pub seen: SeenByName,
    /// The receipts that can be read, in the order of their sequence.
    pub receipts: Vec<Link>,
    /// Those that cannot be read, or were not signed by somebody who may.
    pub unsound: Vec<Remark>,
}

/// A receipt in the chain, but for the names in it.
#[derive(Clone, Debug)]
pub struct Link {
    /// The object.
    pub name: ObjectName,
    /// Its hash.
    pub hash: ObjectHash,
    /// What it says, without the names.
    pub record: ReceiptRecord,
    /// How many objects it names.
    pub objects: u64,
    /// Name of the key that signed it.
    pub signer: String,
}

/// What is wrong with the chain of a replica's receipts, if anything is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainCheck {
    /// Receipts whose predecessor is not there: it was deleted, or is held back.
    pub broken: Vec<ObjectName>,
    /// Receipts that follow one that another follows as well, as those of two collections do that
    /// end at once. Both count.
    pub forks: u64,
}

/// Reads the receipts. Those that cannot be read are warned about: they prove nothing.
///
/// # Errors
/// Failures of the store.
pub fn read_chain(vault: &Vault) -> Result<Chain, Error> {
    let mut names = Vec::new();
    vault.store.list(Folder::Receipts, &mut |name, bytes| {
        if let ObjectName::Receipt { sequence, hash } = name {
            names.push((sequence, hash, name, bytes));
        }
        Ok(())
    })?;
    let mut chain = Chain::default();
    // In their order: what was found again was gone before.
    names.sort_unstable_by_key(|(sequence, hash, ..)| (*sequence, *hash));
    names.dedup_by_key(|(.., name, _)| *name);
    let mut left = names.as_slice();
    while !left.is_empty() {
        let (wave, rest) =
            left.split_at(together::wave(vault.store(), left.iter().map(|(.., bytes)| *bytes)));
        left = rest;
        let read = together::map(vault.store(), wave, |(.., name, _)| read(vault, name));
        for ((_, hash, name, _), read) in wave.iter().zip(read) {
            match read {
                Ok((record, signer)) => chain.take(*name, *hash, record, signer),
                Err(Error::Store(StoreError::NotFound { .. })) => {}
                Err(error) if error.is_damage() => {
                    let remark = Remark::of(name, &error);
                    vault.monitor().warn(remark.clone());
                    chain.unsound.push(remark);
                }
                Err(error) => return Err(error),
            }
        }
    }
    chain.receipts.sort_by_key(|link| (link.record.sequence, link.hash));
    Ok(chain)
}

/// Reads a receipt that somebody signed who may; also returns the name of the key.
///
/// # Errors
/// Damage; failures of the store.
pub fn read(vault: &Vault, name: &ObjectName) -> Result<(ReceiptRecord, String), Error> {
    let object = read_object(vault.store.as_ref(), name, TOMB_BYTES_MAX)?;
    let (writer, receipt) = vault.trust.verify_receipt(&object).map_err(Error::sealed(name))?;
    vault.trust.check_not_revoked(&writer, receipt.record.time_ms).map_err(Error::sealed(name))?;
    Ok((receipt.record, writer.name))
}

impl Chain {
    /// Takes account of a receipt.
    fn take(&mut self, name: ObjectName, hash: ObjectHash, record: ReceiptRecord, signer: String) {
        self.last = self.last.max(Some((record.sequence, hash)));
        let saw = Saw::of(&record.audits);
        for name in &record.deleted {
            if let ObjectName::Pack(_, id) = name {
                self.packs.insert(*id);
            }
            match (&saw, self.seen.get_mut(name)) {
                (Some(saw), Some(known)) => known.add(saw),
                (Some(Saw::Gone(seen)), None) => {
                    self.seen.insert(*name, *seen);
                }
                (Some(Saw::There(_)) | None, _) => {}
            }
        }
        let objects = record.deleted.len() as u64;
        let record = ReceiptRecord { deleted: Vec::new(), ..record };
        self.receipts.push(Link { name, hash, record, objects, signer });
    }

    /// Whether every receipt follows one that is there.
    #[must_use]
    pub fn check(&self) -> ChainCheck {
        let known = self.receipts.iter().map(|link| (link.hash, link.record.sequence));
        let known = known.collect::<HashSet<_>>();
        let mut followed = HashSet::new();
        let mut check = ChainCheck::default();
        for link in &self.receipts {
            let before = (link.record.replica, link.record.previous, link.record.sequence);
            check.forks += u64::from(!followed.insert(before));
            let Some(previous) = link.record.previous else { continue };
            if !known.contains(&(previous, link.record.sequence.saturating_sub(1))) {
                check.broken.push(link.name);
            }
        }
        check
    }

    /// Adds receipts for what was seen of objects that were deleted; returns them.
    ///
    /// # Errors
    /// Failures of the store.
    pub fn write(
        &mut self,
        vault: &Vault,
        names: &[ObjectName],
        audits: &[Audit],
        note: &str,
    ) -> Result<Vec<ObjectName>, Error> {
        let replica = identity::ensure(vault.store(), vault.id(), &vault.context)?;
        let mut written = Vec::new();
        for names in names.chunks(RECEIPT_NAMES_MAX) {
            let signed = Signed::new(vault, replica, self.last, names, audits, note)?;
            vault.store.put(&signed.name, &signed.object)?;
            let (_, hash) = signed.place;
            let signer = vault.keys.signer()?.certificate().name.clone();
            self.take(signed.name, hash, signed.record, signer);
            written.push(signed.name);
        }
        Ok(written)
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
    record: ReceiptRecord,
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
