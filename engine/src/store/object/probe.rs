//! Finding out what a service can do, with one small object that is deleted again.

use bytes::Bytes;
use opendal::options::{DeleteOptions, ListOptions, WriteOptions};
use opendal::{Entry, ErrorKind};

use super::unfinished::FOLDER;
use super::{ObjectStore, RequestKind, next};
use crate::store::error::{Place, StoreError};
use crate::store::lock::KeptFor;
use crate::store::profile::{Found, Profile};

/// What the name of that object begins with.
pub(super) const PROBE: &str = "probe-";
/// What the object holds first, and what is offered in its place.
const CONTENT: &[u8] = b"cairn tries what this storage can do\n";
const OTHER: &[u8] = b"another content\n";

impl ObjectStore {
    /// Tries the service out. Whatever it cannot do is part of the answer; an error means that it
    /// could not be asked.
    pub(super) fn try_out(&self) -> Result<Profile, StoreError> {
        let random = getrandom::u64().unwrap_or_default();
        let path = format!("{FOLDER}{PROBE}{random:016x}");
        let place = || Place::temporary(&self.location);
        let write = self.operator.write(&path, Bytes::from_static(CONTENT));
        self.wait(RequestKind::Write, place, CONTENT.len() as u64, write)?;
        let mut profile = Profile::default();
        let tried = self.try_written(&path, &mut profile);
        // In any case.
        let deleted = self.wait(RequestKind::Delete, place, 0, self.operator.delete(&path));
        tried?;
        deleted?;
        self.try_deleted(&path, &mut profile)?;
        Ok(profile)
    }

    /// What can be told while the object is there.
    fn try_written(&self, path: &str, profile: &mut Profile) -> Result<(), StoreError> {
        profile.reads_after_write = Found::from(self.content(path)?.as_deref() == Some(CONTENT));
        profile.locked_ms = self.locked_ms(path);
        let there = self.entries(path, ListOptions::default())?;
        profile.lists_after_write = Found::from(!there.is_empty());
        if self.operator.info().capability().write_with_if_not_exists {
            profile.conditional_writes = self.try_condition(path)?;
        }
        Ok(())
    }

    /// For how long the object is locked, which was just written; 0 where nothing says so.
    fn locked_ms(&self, path: &str) -> u64 {
        let _before = self.lock_seen.take();
        let place = || Place::temporary(&self.location);
        let looked = self.wait(RequestKind::Look, place, 0, self.operator.stat(path));
        let until_ms = self.lock_seen.take().filter(|_| looked.is_ok());
        let left_ms = until_ms.map(|until| until - jiff::Timestamp::now().as_millisecond());
        left_ms.and_then(|left| u64::try_from(left).ok()).unwrap_or_default()
    }

    fn try_condition(&self, path: &str) -> Result<Found, StoreError> {
        let place = || Place::temporary(&self.location);
        let request = async {
            let options = WriteOptions { if_not_exists: true, ..WriteOptions::default() };
            match self.operator.write_options(path, Bytes::from_static(OTHER), options).await {
                Ok(_) => Ok(false),
                Err(error) => match error.kind() {
                    ErrorKind::ConditionNotMatch | ErrorKind::AlreadyExists => Ok(true),
                    _ if super::errors::refuses_condition(&error) => Ok(false),
                    _ => Err(error),
                },
            }
        };
        let refused = self.wait(RequestKind::Write, place, OTHER.len() as u64, request)?;
        Ok(Found::from(refused && self.content(path)?.as_deref() == Some(CONTENT)))
    }

    /// What can be told once the object is deleted.
    fn try_deleted(&self, path: &str, profile: &mut Profile) -> Result<(), StoreError> {
        if !self.entries(path, ListOptions::default())?.is_empty() || self.content(path)?.is_some()
        {
            profile.lists_after_write = Found::No;
        }
        match self.asked_kept_for() {
            KeptFor::Nothing => {
                (profile.soft_delete, profile.versions) = (Found::No, Found::No);
            }
            KeptFor::Milliseconds(_) => profile.soft_delete = Found::Yes,
            KeptFor::Versions => profile.versions = Found::Yes,
            KeptFor::Unknown => {}
        }
        let capability = self.operator.info().capability();
        if capability.list_with_versions {
            let options = ListOptions { versions: true, ..ListOptions::default() };
            // Not every credential may ask, and not every compatible service knows the question.
            let Ok(versions) = self.entries(path, options) else { return Ok(()) };
            let kept: Vec<String> = versions
                .iter()
                .filter_map(|entry| entry.metadata().version())
                .filter(|version| !version.is_empty() && *version != "null")
                .map(str::to_owned)
                .collect();
            profile.versions = Found::from(!kept.is_empty());
            if !kept.is_empty() && capability.delete_with_version {
                profile.versions_locked = self.delete_versions(path, kept)?;
            }
        }
        if capability.list_with_deleted && profile.versions != Found::Yes {
            let options = ListOptions { deleted: true, ..ListOptions::default() };
            if let Ok(deleted) = self.entries(path, options) {
                profile.soft_delete = Found::from(!deleted.is_empty());
            }
        }
        Ok(())
    }

    /// Deletes versions of the object; says whether that is refused.
    fn delete_versions(&self, path: &str, versions: Vec<String>) -> Result<Found, StoreError> {
        let place = || Place::temporary(&self.location);
        for version in versions {
            let options = DeleteOptions { version: Some(version), ..DeleteOptions::default() };
            let request = self.operator.delete_options(path, options);
            match self.wait(RequestKind::Delete, place, 0, request) {
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                Err(StoreError::Denied { .. }) => return Ok(Found::Yes),
                Err(error) if error.is_transient() => return Err(error),
                Err(_) => return Ok(Found::Unknown),
            }
        }
        Ok(Found::No)
    }

    /// Content of the object; `None` when it is not there.
    fn content(&self, path: &str) -> Result<Option<Bytes>, StoreError> {
        let place = || Place::temporary(&self.location);
        let request = self.operator.read(path);
        match self.wait(RequestKind::Read, place, CONTENT.len() as u64, request) {
            Ok(data) => Ok(Some(data.to_bytes())),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a listing has of the object.
    fn entries(&self, path: &str, options: ListOptions) -> Result<Vec<Entry>, StoreError> {
        let place = || Place::temporary(&self.location);
        let request = async {
            let mut lister = self.operator.lister_options(FOLDER, options).await?;
            let mut found = Vec::new();
            while let Some(entry) = next(&mut lister).await {
                let entry = entry?;
                if entry.path() == path {
                    found.push(entry);
                }
            }
            Ok(found)
        };
        match self.wait(RequestKind::List, place, 0, request) {
            Err(StoreError::NotFound { .. }) => Ok(Vec::new()),
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::options::TimeLimits;

    #[test]
    fn a_plain_service_reads_and_lists_and_nothing_is_left() {
        let operator = opendal::Operator::new(opendal::services::Memory::default()).unwrap();
        let store = ObjectStore::new(operator, "memory", TimeLimits::default());
        let profile = store.try_out().unwrap();
        assert_eq!(profile.reads_after_write, Found::Yes);
        assert_eq!(profile.lists_after_write, Found::Yes);
        assert_ne!(profile.versions, Found::Yes);
        let left = store.operator.list(FOLDER);
        let left = store.wait(RequestKind::List, || Place::root("memory"), 0, left).unwrap();
        assert!(left.iter().all(|entry| entry.path().ends_with('/')), "{left:?}");
    }
}
