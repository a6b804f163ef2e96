//! What a service keeps of objects that were deleted or replaced: a bucket with versions, where a deletion
//! puts a mark above them, and what lies below the topmost mark is the object again once that is gone.

use std::collections::BTreeMap;

use bytes::Bytes;
use cairn_engine::store::lock::KeptFor;
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::{Each, Keeping, Listing, Purged, Put, Store, StoreError};
use cairn_format::names::{Folder, ObjectName};
use parking_lot::Mutex;

/// How long deleted objects are kept where versions are not shown, milliseconds.
pub const KEPT_FOR_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// What tells one version from all others, of any object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VersionId(u64);

/// An older version of an object, or the mark of a deletion.
#[derive(Debug)]
struct Version {
    id: VersionId,
    /// `None`: it is a mark.
    data: Option<Bytes>,
}

/// An object that somebody deleted who has no business here.
#[derive(Debug)]
pub struct Stolen {
    pub(super) name: ObjectName,
    data: Bytes,
    mark: VersionId,
}

impl Stolen {
    /// What was stolen.
    #[must_use]
    pub const fn name(&self) -> &ObjectName {
        &self.name
    }
}

#[derive(Debug, Default)]
struct Older {
    /// Of each object, the oldest first; the object itself is not among them.
    versions: BTreeMap<ObjectName, Vec<Version>>,
    /// Versions and marks made so far.
    made: u64,
    /// Of these, purged.
    purged: u64,
}

/// Objects in memory, with their older versions.
#[derive(Debug)]
pub(super) struct Versioned {
    objects: MemoryStore,
    /// Whether versions can be listed and deleted.
    shown: bool,
    older: Mutex<Older>,
}

impl Versioned {
    pub(super) fn new(objects: MemoryStore, shown: bool) -> Self {
        Self { objects, shown, older: Mutex::default() }
    }

    /// The objects, where changes leave no versions.
    pub(super) fn bare(&self) -> MemoryStore {
        self.objects.clone()
    }

    /// Versions and marks made and purged so far.
    pub(super) fn counts(&self) -> (u64, u64) {
        let older = self.older.lock();
        (older.made, older.purged)
    }

    fn is_there(&self, name: &ObjectName) -> bool {
        self.objects.size(name).is_ok()
    }

    fn keep(&self, name: &ObjectName, data: Option<Bytes>) {
        let mut older = self.older.lock();
        older.made += 1;
        let id = VersionId(older.made);
        older.versions.entry(*name).or_default().push(Version { id, data });
    }

    /// Objects that are not there and of which bytes are kept.
    pub(super) fn kept_bytes_of(&self) -> Vec<ObjectName> {
        let older = self.older.lock();
        let has_bytes = |versions: &[Version]| versions.iter().any(|one| one.data.is_some());
        let kept = older.versions.iter().filter(|(_, versions)| has_bytes(versions));
        kept.map(|(name, _)| *name).filter(|name| !self.is_there(name)).collect()
    }

    /// What is to be deleted, in this order: marks last, so that nothing comes back.
    pub(super) fn to_purge(
        &self,
        folder: Folder,
        may_go: &dyn Fn(&ObjectName) -> bool,
    ) -> Vec<(ObjectName, VersionId)> {
        let older = self.older.lock();
        let (mut going, mut marks) = (Vec::new(), Vec::new());
        for (name, versions) in &older.versions {
            if name.folder() != Some(folder) || self.is_there(name) || !may_go(name) {
                continue;
            }
            for version in versions {
                let list = if version.data.is_some() { &mut going } else { &mut marks };
                list.push((*name, version.id));
            }
        }
        going.extend(marks);
        going
    }

    /// Deletes a version for good.
    pub(super) fn remove(&self, name: &ObjectName, id: VersionId) {
        if self.take_out(name, id) {
            self.older.lock().purged += 1;
        }
    }

    /// As whoever has no business here deletes an object: what was there lies below a mark now.
    pub(super) fn steal(&self, name: &ObjectName) -> Option<Stolen> {
        let data = self.objects.get(name, u64::MAX).ok()?;
        self.delete(name).ok()?;
        let older = self.older.lock();
        let mark = older.versions.get(name)?.last()?.id;
        Some(Stolen { name: *name, data, mark })
    }

    /// It is there again, whatever was purged meanwhile.
    pub(super) fn give_back(&self, stolen: Stolen) {
        self.take_out(&stolen.name, stolen.mark);
        if !self.is_there(&stolen.name) {
            self.objects.overwrite(stolen.name, stolen.data);
        }
    }

    /// Removes a version; false when there is none of that id.
    fn take_out(&self, name: &ObjectName, id: VersionId) -> bool {
        let mut older = self.older.lock();
        let older = &mut *older;
        let Some(versions) = older.versions.get_mut(name) else { return false };
        let Some(at) = versions.iter().position(|version| version.id == id) else { return false };
        let was_top = at + 1 == versions.len();
        versions.remove(at);
        if was_top
            && !self.is_there(name)
            && let Some(data) = versions.pop_if(|top| top.data.is_some()).and_then(|top| top.data)
        {
            self.objects.overwrite(*name, data);
        }
        if versions.is_empty() {
            older.versions.remove(name);
        }
        true
    }
}

impl Store for Versioned {
    fn location(&self) -> String {
        self.objects.location()
    }

    fn is_near(&self) -> bool {
        self.objects.is_near()
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.objects.get(name, bytes_max)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        self.objects.get_range(name, offset, len)
    }

    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        let before = self.objects.get(name, u64::MAX).ok();
        let put = self.objects.put(name, data)?;
        if let (Put::Written, Some(before)) = (put, before) {
            self.keep(name, Some(before));
        }
        Ok(put)
    }

    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.objects.size(name)
    }

    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        self.objects.list(folder, each)
    }

    /// Also of what is not there: as with S3, that puts one more mark.
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        if let Ok(before) = self.objects.get(name, u64::MAX) {
            self.objects.delete(name)?;
            self.keep(name, Some(before));
        }
        self.keep(name, None);
        Ok(())
    }

    fn kept(
        &self,
        folder: Folder,
        each: &mut dyn FnMut(ObjectName),
    ) -> Result<Keeping, StoreError> {
        if !self.shown {
            return Ok(Keeping::Hidden);
        }
        let names = self.older.lock().versions.keys().copied().collect::<Vec<_>>();
        names.into_iter().filter(|name| name.folder() == Some(folder)).for_each(each);
        Ok(Keeping::Shown)
    }

    fn purge(
        &self,
        folder: Folder,
        may_go: &dyn Fn(&ObjectName) -> bool,
    ) -> Result<Purged, StoreError> {
        if !self.shown {
            return Ok(Purged::default());
        }
        let going = self.to_purge(folder, may_go);
        going.iter().for_each(|(name, id)| self.remove(name, *id));
        Ok(Purged { removed: going.len() as u64, ..Purged::default() })
    }

    fn kept_for(&self) -> Result<KeptFor, StoreError> {
        Ok(if self.shown { KeptFor::Versions } else { KeptFor::Milliseconds(KEPT_FOR_MS) })
    }
}

#[cfg(test)]
mod tests {
    use cairn_format::ids::PackId;
    use cairn_format::names::PackKind;

    use super::*;

    fn pack(content: &[u8]) -> ObjectName {
        ObjectName::Pack(PackKind::Data, PackId::from_bytes(*blake3::hash(content).as_bytes()))
    }

    fn purge(store: &Versioned, may_go: bool) -> u64 {
        store.purge(Folder::DataPacks, &|_| may_go).expect("a purge").removed
    }

    #[test]
    fn what_is_deleted_or_replaced_stays_until_it_is_purged() {
        let store = Versioned::new(MemoryStore::new(), true);
        let name = pack(b"right");
        store.objects.overwrite(name, Bytes::from_static(b"wrong"));
        store.put(&name, b"right").expect("a put");
        assert_eq!((store.counts(), purge(&store, true)), ((1, 0), 0), "it is there");
        store.delete(&name).expect("a deletion");
        assert_eq!(store.kept_bytes_of(), [name]);
        assert_eq!(purge(&store, false), 0);
        assert_eq!(store.counts(), (3, 0), "two versions and a mark");
        assert_eq!(purge(&store, true), 3);
        assert!(store.kept_bytes_of().is_empty() && store.size(&name).is_err());
    }

    #[test]
    fn what_was_stolen_is_there_again_whether_or_not_it_was_purged() {
        for purged in [false, true] {
            let store = Versioned::new(MemoryStore::new(), true);
            let name = pack(b"right");
            store.put(&name, b"right").expect("a put");
            let stolen = store.steal(&name).expect("it was there");
            assert_eq!(
                (store.kept_bytes_of(), purge(&store, purged)),
                (vec![name], 2 * u64::from(purged))
            );
            store.give_back(stolen);
            assert_eq!(store.get(&name, 100).expect("it is back"), b"right".as_slice());
            assert!(store.to_purge(Folder::DataPacks, &|_| true).is_empty());
        }
    }

    #[test]
    fn without_its_mark_a_version_is_the_object_again() {
        let store = Versioned::new(MemoryStore::new(), true);
        let name = pack(b"right");
        store.put(&name, b"right").expect("a put");
        store.delete(&name).expect("a deletion");
        let mark = store.to_purge(Folder::DataPacks, &|_| true).pop().expect("a mark");
        store.remove(&mark.0, mark.1);
        assert_eq!(store.get(&name, 100).expect("it is back"), b"right".as_slice());
    }
}
