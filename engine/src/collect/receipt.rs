//! Receipts: signed, chained statements of what was deleted and how its absence was seen
//! (SPEC section 8.6).

use std::collections::HashSet;
use std::ops::ControlFlow;

use cairn_format::ids::{ObjectHash, PackId};
use cairn_format::names::ObjectName;
use cairn_format::receipt::{Audit, ReceiptRecord};

use super::audit::{Saw, SeenByName};
use crate::context::Remark;
use crate::error::Error;
use crate::index::local::LocalIndex;
use crate::repo::receipts::{self, Order, RECEIPT_NAMES_MAX, ReadReceipt, Signed};
use crate::repo::{Vault, identity};
use crate::store::StoreError;

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

/// Reads the receipts, but for those that `index` remembers; without one all of them come from the
/// store. Those that cannot be read are warned about: they prove nothing.
///
/// # Errors
/// Failures of the store and the cache.
pub fn read_chain(vault: &Vault, index: Option<&dyn LocalIndex>) -> Result<Chain, Error> {
    let mut chain = Chain::default();
    // In their order: what was found again was gone before.
    receipts::for_each(vault, index, Order::OldestFirst, &mut |name, read| {
        let ObjectName::Receipt { hash, .. } = *name else {
            return Ok(ControlFlow::Continue(()));
        };
        match read {
            Ok(ReadReceipt { record, signer }) => chain.take(*name, hash, record, signer),
            Err(Error::Store(StoreError::NotFound { .. })) => {}
            Err(error) if error.is_damage() => {
                let remark = Remark::of(name, &error);
                vault.monitor().warn(remark.clone());
                chain.unsound.push(remark);
            }
            Err(error) => return Err(error),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    chain.receipts.sort_by_key(|link| (link.record.sequence, link.hash));
    Ok(chain)
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
