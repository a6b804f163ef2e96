//! Tombs and receipts: small, many, never changed, and every process needs what all of them say. What
//! one was found to say is remembered in the local index under its name, which contains the hash of its
//! bytes, so that only those are read from the store that this host has not read yet.
//!
//! The list of a folder says what is there: what is remembered and not listed does not count, and is
//! forgotten. Nothing is remembered but what was authenticated when it was read. It stands under a
//! checksum with a key that derives from the repository's, over the name, over what it was judged by,
//! and over what it says: what does not fit counts as not remembered, and so does everything once
//! somebody is revoked.

use std::collections::HashSet;
use std::ops::ControlFlow;

use cairn_format::names::{Folder, ObjectName};

use super::local::{LocalIndex, MemoChange};
use crate::error::Error;
use crate::repo::Vault;
use crate::seal::MEMO_CHECK_BYTES;
use crate::store::together;

/// Part of every checksum; another number means that nothing is remembered.
const LAYOUT: u8 = 1;
/// Objects that are forgotten at once.
const FORGOTTEN_AT_ONCE: usize = 4096;

/// What an object says that can be remembered.
pub trait Said: Sized + Send {
    /// Reads it from the store, and authenticates it.
    ///
    /// # Errors
    /// Damage; failures of the store.
    fn read(vault: &Vault, name: &ObjectName) -> Result<Self, Error>;

    /// What is remembered of it.
    fn encode(&self) -> Vec<u8>;

    /// Undoes [`Self::encode`]; `None` for anything else.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// Where it is known from what an object says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This host read it earlier.
    Memory,
    /// It was read just now, or could not be.
    Store,
}

/// Shown an object in its turn; may break off.
pub type EachSaid<'e, T> =
    dyn FnMut(&ObjectName, Origin, Result<T, Error>) -> Result<ControlFlow<()>, Error> + 'e;

/// What this host remembers of objects in one copy of a repository.
pub struct Remembered<'a> {
    vault: &'a Vault,
    /// None where nothing is to be believed but the store.
    index: Option<&'a dyn LocalIndex>,
    /// Hash of what decides whose signatures count.
    judged_by: [u8; 32],
}

impl<'a> Remembered<'a> {
    /// What the local index of this copy remembers; nothing, and nothing is added to it, without one.
    #[must_use]
    pub fn new(vault: &'a Vault, index: Option<&'a dyn LocalIndex>) -> Self {
        let mut revoked = vault.trust.revoked.clone();
        revoked.sort_unstable_by_key(|(writer, time_ms)| (*writer.as_bytes(), *time_ms));
        let mut judged_by = blake3::Hasher::new();
        judged_by.update(&[LAYOUT]).update(&vault.trust.owner);
        for (writer, time_ms) in revoked {
            judged_by.update(writer.as_bytes()).update(&time_ms.to_le_bytes());
        }
        Self { vault, index, judged_by: judged_by.finalize().into() }
    }

    /// Shows what each of these objects says, in their order; those that are not remembered are read from
    /// the store, as many at once as is worth it and no more than [`together::WAVE_BYTES_MAX`] bytes.
    /// Names come with the sizes of the objects in bytes.
    ///
    /// # Errors
    /// Failures of the cache; those of `each`, which also gets what goes wrong in the store.
    pub fn for_each<T: Said>(
        &self,
        objects: &[(ObjectName, u64)],
        each: &mut EachSaid<'_, T>,
    ) -> Result<(), Error> {
        let store = self.vault.store();
        let mut left = objects;
        while !left.is_empty() {
            let sizes = left.iter().map(|(_, bytes)| *bytes);
            let (wave, rest) = left.split_at(together::wave(store, sizes));
            left = rest;
            let known = wave.iter().map(|(name, _)| self.get::<T>(name));
            let known = known.collect::<Result<Vec<_>, Error>>()?;
            let unknown = wave.iter().zip(&known).filter(|(_, known)| known.is_none());
            let unknown = unknown.map(|((name, _), _)| *name).collect::<Vec<_>>();
            let read = together::map(store, &unknown, |name| T::read(self.vault, name));
            let sound = unknown.iter().zip(&read).filter_map(|(name, read)| {
                let said = read.as_ref().ok()?;
                Some(self.change(name, &said.encode()))
            });
            self.put(&sound.collect::<Vec<_>>())?;
            let mut read = read.into_iter();
            for ((name, _), known) in wave.iter().zip(known) {
                let (origin, said) = match known {
                    Some(known) => (Origin::Memory, Ok(known)),
                    None => {
                        let missing = || Err(Error::Internal { part: "reading objects at once" });
                        (Origin::Store, read.next().unwrap_or_else(missing))
                    }
                };
                if each(name, origin, said)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Forgets what is remembered of objects of a folder that are not among those listed there.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn keep_only(&self, folder: Folder, listed: &HashSet<ObjectName>) -> Result<(), Error> {
        let Some(index) = self.index else { return Ok(()) };
        let is_listed = |key: &[u8]| {
            let name = std::str::from_utf8(key).ok().and_then(|name| ObjectName::parse(name).ok());
            name.is_some_and(|name| listed.contains(&name))
        };
        let mut keys = index.object_keys(folder.path().as_bytes())?;
        keys.retain(|key| !is_listed(key));
        for keys in keys.chunks(FORGOTTEN_AT_ONCE) {
            let gone = keys.iter().map(|key| (key.clone(), None)).collect::<Vec<_>>();
            self.put(&gone)?;
        }
        Ok(())
    }

    fn get<T: Said>(&self, name: &ObjectName) -> Result<Option<T>, Error> {
        let Some(index) = self.index else { return Ok(None) };
        let key = key(name);
        let Some(value) = index.get_object(&key)? else { return Ok(None) };
        let Some((check, body)) = value.split_first_chunk::<MEMO_CHECK_BYTES>() else {
            return Ok(None);
        };
        Ok((*check == self.check(&key, body)).then(|| T::decode(body)).flatten())
    }

    fn change(&self, name: &ObjectName, body: &[u8]) -> MemoChange {
        let key = key(name);
        let value = [self.check(&key, body).as_slice(), body].concat();
        (key, Some(value))
    }

    fn put(&self, changes: &[MemoChange]) -> Result<(), Error> {
        match self.index {
            Some(index) if !changes.is_empty() => Ok(index.put_objects(changes)?),
            _ => Ok(()),
        }
    }

    fn check(&self, key: &[u8], body: &[u8]) -> [u8; MEMO_CHECK_BYTES] {
        self.vault.keys.memo_check([key, &self.judged_by, body])
    }
}

fn key(name: &ObjectName) -> Vec<u8> {
    name.to_string().into_bytes()
}
