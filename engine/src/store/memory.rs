//! A store in memory, for simulation and tests. Clones share the objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cairn_format::names::{Folder, ObjectName};
use parking_lot::RwLock;

use super::error::{Place, StoreError};
use super::lock::KeptFor;
use super::{Each, Found, Listing, Put, Store, judge_existing};

/// Objects in memory, gone with the last clone.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    objects: Arc<RwLock<BTreeMap<ObjectName, Bytes>>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The names of all objects, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<ObjectName> {
        self.objects.read().keys().copied().collect()
    }

    /// Puts bytes under a name without the rules of [`Store::put`], as damage would.
    pub fn overwrite(&self, name: ObjectName, data: Bytes) {
        self.objects.write().insert(name, data);
    }

    fn place(name: &ObjectName) -> Place {
        Place::object("memory", name)
    }

    fn find(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        let objects = self.objects.read();
        objects.get(name).cloned().ok_or_else(|| StoreError::NotFound { place: Self::place(name) })
    }
}

impl Store for MemoryStore {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn is_near(&self) -> bool {
        true
    }

    fn kept_for(&self) -> Result<KeptFor, StoreError> {
        Ok(KeptFor::Nothing)
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        let object = self.find(name)?;
        let bytes = object.len() as u64;
        if bytes > bytes_max {
            return Err(StoreError::TooLarge { place: Self::place(name), bytes, bytes_max });
        }
        Ok(object)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        let object = self.find(name)?;
        let available = (object.len() as u64).saturating_sub(offset);
        let range = usize::try_from(offset).ok().zip(usize::try_from(len).ok());
        match range {
            // Within memory, since what is available is.
            Some((from, count)) if len <= available => Ok(match count {
                0 => Bytes::new(),
                count => object.slice(from..from + count),
            }),
            _ => {
                Err(StoreError::Short { place: Self::place(name), offset, wanted: len, available })
            }
        }
    }

    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        let mut objects = self.objects.write();
        if let Some(object) = objects.get(name)
            && judge_existing(|| Self::place(name), name, data, object == data)? == Found::Same
        {
            return Ok(Put::AlreadyThere);
        }
        objects.insert(*name, Bytes::copy_from_slice(data));
        Ok(Put::Written)
    }

    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        Ok(self.find(name)?.len() as u64)
    }

    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        // A copy, so that `each` may call the store.
        let listed: Vec<(ObjectName, u64)> = self
            .objects
            .read()
            .iter()
            .filter(|(name, _)| name.folder() == Some(folder))
            .map(|(name, object)| (*name, object.len() as u64))
            .collect();
        for (name, bytes) in &listed {
            each(*name, *bytes)?;
        }
        Ok(Listing { objects: listed.len() as u64, foreign: 0 })
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.objects.write().remove(name);
        Ok(())
    }
}
