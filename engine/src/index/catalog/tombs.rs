//! Condemned packs: which tombs name, which of them the local index still has, and when it forgets
//! them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use cairn_format::codec::Writer;
use cairn_format::envelope::Kind;
use cairn_format::ids::PackId;
use cairn_format::limits::TOMB_BYTES_MAX;
use cairn_format::names::{Folder, ObjectName, PackKind};
use cairn_format::record::Tomb;

use super::{Catalog, list_packs};
use crate::context::Remark;
use crate::error::Error;
use crate::index::local::PackNumber;
use crate::index::objects::{Origin, Remembered, Said};
use crate::repo::Vault;
use crate::seal::Role;
use crate::store::StoreError;

/// Stands before the packs of a tomb that counts, where it is remembered.
const COUNTS: u8 = 1;
/// What is remembered of each pack, bytes: its kind and id.
const PACK_BYTES: usize = 1 + PackId::LEN;

impl Catalog {
    /// Lists tombs and takes account of those not seen before; true when one had to be read that this
    /// host had never read. One that cannot be read is warned about and kept in mind: see
    /// [`Self::require_sound_tombs`].
    ///
    /// # Errors
    /// Failures of the store and the cache.
    pub fn sync_tombs(&self, vault: &Vault) -> Result<bool, Error> {
        let mut listed = BTreeMap::new();
        vault.store.list(Folder::Tombs, &mut |name, bytes| {
            listed.insert(name, bytes);
            Ok(())
        })?;
        let remembered = Remembered::new(vault, Some(self.index()));
        let mut state = self.state.lock();
        let mut any = false;
        state.damaged_tombs.clear();
        let new = listed.iter().filter(|(name, _)| !state.tombs_read.contains(*name));
        let new = new.map(|(name, bytes)| (*name, *bytes)).collect::<Vec<_>>();
        remembered.for_each(&new, &mut |name, origin, said: Result<Condemns, Error>| {
            match said {
                Ok(Condemns(packs)) => {
                    // What this host read earlier was put before this process listed segments.
                    any |= packs.is_some() && origin == Origin::Store;
                    state.tombs_read.insert(*name);
                    let packs = packs.into_iter().flatten();
                    state.condemned.extend(packs.map(|(kind, pack)| (pack, kind)));
                }
                Err(Error::Store(StoreError::NotFound { .. })) => {}
                Err(error) if error.is_damage() => {
                    let remark = Remark::of(name, &error);
                    vault.monitor().warn(remark.clone());
                    state.damaged_tombs.push(remark);
                }
                Err(error) => return Err(error),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        state.tombs = listed.into_keys().collect();
        if !state.tombs_tidied {
            let listed = state.tombs.iter().copied().collect();
            remembered.keep_only(Folder::Tombs, &listed)?;
            state.tombs_tidied = true;
        }
        Ok(any)
    }

    /// Finds out which packs of the local index are condemned, and which may not be relied on for
    /// other reasons. To be called whenever that may have changed.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn find_condemned(&self) -> Result<(), Error> {
        let state = self.state.lock();
        let mut here = HashSet::new();
        for id in state.condemned.keys() {
            here.extend(self.index.pack_number(id)?);
        }
        *self.condemned_here.write() = Arc::new(here);
        drop(state);
        let mut unnamed = HashSet::new();
        for id in self.index.pending_packs()? {
            if let Some(number) = self.index.pack_number(&id)?
                && self.index.pack(number)?.is_some_and(|pack| Some(pack.writer) != self.own)
            {
                unnamed.insert(number);
            }
        }
        *self.unnamed.write() = Arc::new(unnamed);
        self.find_suspects()
    }

    /// Forgets packs that are condemned and no longer in the store; true when there were any.
    pub(super) fn forget_deleted(&self, vault: &Vault) -> Result<bool, Error> {
        let here = Arc::clone(&self.condemned_here.read());
        // A collection deletes them one after another: while the first is there it is not done.
        let Some(first) = here.iter().min() else { return Ok(false) };
        if let Some(pack) = self.index.pack(*first)?
            && vault.store.size(&ObjectName::Pack(pack.kind, pack.id)).is_ok()
        {
            return Ok(false);
        }
        self.forget_absent(vault, &list_packs(vault)?)
    }

    /// Forgets condemned packs that are not among these; true when there were any.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn forget_absent(
        &self,
        vault: &Vault,
        present: &BTreeMap<PackId, (PackKind, u64)>,
    ) -> Result<bool, Error> {
        let here = Arc::clone(&self.condemned_here.read());
        let now_ms = vault.context.clock.now_ms();
        let mut any = false;
        for number in here.iter() {
            if let Some(pack) = self.index.pack(*number)?
                && !present.contains_key(&pack.id)
            {
                self.forget_pack(*number, &pack.id, now_ms)?;
                any = true;
            }
        }
        self.find_condemned()?;
        Ok(any)
    }

    /// Brings the index up to date after a pack was found missing, and forgets the pack if it was
    /// collected: its chunks are then found where they were copied to.
    ///
    /// # Errors
    /// Failures of the store and the cache.
    pub fn look_again(&self, vault: &Vault, missing: PackNumber) -> Result<(), Error> {
        self.sync_keeping(vault)?;
        if let Some(pack) = self.index.pack(missing)?
            && self.is_condemned(&pack.id)
            && let Err(StoreError::NotFound { .. }) =
                vault.store.size(&ObjectName::Pack(pack.kind, pack.id))
        {
            self.forget_pack(missing, &pack.id, vault.context.clock.now_ms())?;
            self.find_condemned()?;
        }
        Ok(())
    }

    /// Refuses to go on where a tomb could not be read: to pass it over could be to rely on what
    /// is being deleted.
    ///
    /// # Errors
    /// [`Error::TombDamaged`].
    pub fn require_sound_tombs(&self) -> Result<(), Error> {
        match self.state.lock().damaged_tombs.first() {
            None => Ok(()),
            Some(Remark { subject, message, .. }) => {
                Err(Error::TombDamaged { tomb: subject.clone(), message: message.clone() })
            }
        }
    }

    /// True when a tomb condemns the pack.
    #[must_use]
    pub fn is_condemned(&self, pack: &PackId) -> bool {
        self.state.lock().condemned.contains_key(pack)
    }

    /// All packs that tombs condemn, whether or not they are still there.
    #[must_use]
    pub fn condemned(&self) -> HashMap<PackId, PackKind> {
        self.state.lock().condemned.clone()
    }

    /// How many packs are condemned: when it has not grown, none was.
    #[must_use]
    pub fn condemned_count(&self) -> usize {
        self.state.lock().condemned.len()
    }

    /// Test kit: goes back to what was known of tombs at an earlier time, for a protocol that is
    /// to be found wrong.
    #[doc(hidden)]
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn pretend_condemned(&self, condemned: HashMap<PackId, PackKind>) -> Result<(), Error> {
        self.state.lock().condemned = condemned;
        self.find_condemned()
    }

    /// BLAKE3 of the sorted, concatenated names of the tombs seen last (SPEC §8.3).
    #[must_use]
    pub fn tombs_digest(&self) -> [u8; 32] {
        let names =
            self.state.lock().tombs.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let mut hasher = blake3::Hasher::new();
        for name in names {
            hasher.update(name.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// The condemned packs that the local index still has.
    #[must_use]
    pub fn condemned_here(&self) -> Arc<HashSet<PackNumber>> {
        Arc::clone(&self.condemned_here.read())
    }
}

/// The packs that a tomb condemns; `None` for one that does not count.
struct Condemns(Option<Vec<(PackKind, PackId)>>);

impl Said for Condemns {
    fn read(vault: &Vault, name: &ObjectName) -> Result<Self, Error> {
        let signed = vault.read_signed(Kind::Tomb, name, TOMB_BYTES_MAX)?;
        if !matches!(signed.writer.role, Role::Owner | Role::Maintainer) {
            return Ok(Self(None));
        }
        let tomb = Tomb::decode(&signed.record).map_err(Error::format(name))?;
        let counts = vault.trust.check_not_revoked(&signed.writer, tomb.time_ms).is_ok();
        Ok(Self(counts.then_some(tomb.packs)))
    }

    /// Nothing for one that does not count; else a byte 1, and of each pack its kind and id.
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        if let Some(packs) = &self.0 {
            out.u8(COUNTS);
            for (kind, id) in packs {
                out.u8(kind.to_byte()).raw(id.as_bytes());
            }
        }
        out.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let Some((first, packs)) = bytes.split_first() else { return Some(Self(None)) };
        let (packs, rest) = packs.as_chunks::<PACK_BYTES>();
        if *first != COUNTS || !rest.is_empty() {
            return None;
        }
        let pack = |pack: &[u8; PACK_BYTES]| {
            let (kind, id) = pack.split_first()?;
            Some((PackKind::from_byte(*kind).ok()?, PackId::from_slice(id).ok()?))
        };
        Some(Self(Some(packs.iter().map(pack).collect::<Option<_>>()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tomb_says_is_remembered_and_nonsense_is_nothing() {
        let pack = |kind, byte| (kind, PackId::from_bytes([byte; PackId::LEN]));
        let two = vec![pack(PackKind::Data, 1), pack(PackKind::Tree, 2)];
        for said in [None, Some(Vec::new()), Some(two)] {
            let bytes = Condemns(said.clone()).encode();
            assert_eq!(Condemns::decode(&bytes).map(|known| known.0), Some(said));
        }
        let bytes = Condemns(Some(vec![pack(PackKind::Data, 3)])).encode();
        for end in [2, bytes.len() - 1] {
            assert!(Condemns::decode(&bytes[..end]).is_none(), "{end}");
        }
        for at in [0, 1] {
            let mut other = bytes.clone();
            other[at] = 9;
            assert!(Condemns::decode(&other).is_none(), "{at}");
        }
    }
}
