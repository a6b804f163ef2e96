//! Older versions that a service keeps of objects that were deleted or written again, and the marks
//! of their deletion.

use std::collections::HashSet;
use std::sync::Arc;

use cairn_format::names::{Folder, ObjectName};
use opendal::options::{DeleteOptions, ListOptions};
use parking_lot::Mutex;

use super::{ObjectStore, RequestKind, next};
use crate::store::error::{Place, StoreError};
use crate::store::lock::{KeptFor, Locked};
use crate::store::{Keeping, Purged};

/// How a service treats what is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) enum Deleted {
    /// It is gone, as far as this program could know.
    #[default]
    Gone,
    /// It may stay as an older version, which can be listed and deleted.
    Versions,
    /// It may stay for a while, where this program cannot see it.
    Hidden,
}

/// Until when the object is locked that was looked at last, milliseconds since 1970: only the
/// headers of the answer tell, which the layers above do not hand on. Clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct LockSeen(Arc<Mutex<Option<i64>>>);

impl LockSeen {
    /// Notes what a header says; nothing is noted of one that makes no sense.
    pub(in crate::store) fn note(&self, header: &str) {
        if let Ok(until) = header.parse::<jiff::Timestamp>() {
            *self.0.lock() = Some(until.as_millisecond());
        }
    }

    /// What was noted; it is forgotten then.
    pub(super) fn take(&self) -> Option<i64> {
        self.0.lock().take()
    }
}

/// What a listing of versions shows of an object.
struct Version {
    name: ObjectName,
    id: String,
    is: VersionIs,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum VersionIs {
    /// The object as it is there.
    Current,
    /// An older version.
    Older,
    /// The mark of a deletion.
    Mark,
}

/// Whether an answer means that the service does not know the question, or does not answer this key.
fn is_refusal(error: &StoreError) -> bool {
    !error.is_transient() && !matches!(error, StoreError::NoContainer { .. })
}

impl ObjectStore {
    /// Calls `each` for every version and mark; [`Keeping::Hidden`] where they cannot be known.
    fn for_each_version(
        &self,
        folder: Folder,
        each: &mut dyn FnMut(Version),
    ) -> Result<Keeping, StoreError> {
        let capability = self.operator.info().capability();
        match self.deleted {
            Deleted::Gone => return Ok(Keeping::Nothing),
            Deleted::Hidden if self.asked_kept_for() == KeptFor::Nothing => {
                return Ok(Keeping::Nothing);
            }
            Deleted::Versions if capability.list_with_versions => {}
            Deleted::Versions | Deleted::Hidden => return Ok(Keeping::Hidden),
        }
        let place = || Place::folder(&self.location, folder);
        let options = ListOptions {
            recursive: true,
            versions: true,
            deleted: true,
            ..ListOptions::default()
        };
        let opened = self.operator.lister_options(folder.path(), options);
        let mut lister = match self.wait(RequestKind::List, place, 0, opened) {
            Err(StoreError::NotFound { .. }) => return Ok(Keeping::Shown),
            Err(error) if is_refusal(&error) => return Ok(Keeping::Hidden),
            opened => opened?,
        };
        loop {
            let entry = async { next(&mut lister).await.transpose() };
            let entry = match self.wait(RequestKind::List, place, 0, entry) {
                Err(StoreError::NotFound { .. }) | Ok(None) => return Ok(Keeping::Shown),
                Err(error) if is_refusal(&error) => return Ok(Keeping::Hidden),
                Err(error) => return Err(error),
                Ok(Some(entry)) => entry,
            };
            let metadata = entry.metadata();
            let is = match (metadata.is_deleted(), metadata.is_current()) {
                (true, _) => VersionIs::Mark,
                (false, Some(false)) => VersionIs::Older,
                // What is there must never be taken for an older version of itself.
                (false, _) => VersionIs::Current,
            };
            let name = ObjectName::parse(entry.path()).ok();
            let name = name.filter(|name| name.folder() == Some(folder));
            let id = metadata.version().or((is == VersionIs::Current).then_some(""));
            if let (Some(name), Some(id)) = (name, id) {
                each(Version { name, id: id.to_owned(), is });
            }
        }
    }

    /// As [`crate::store::Store::kept`].
    pub(super) fn kept_versions(
        &self,
        folder: Folder,
        each: &mut dyn FnMut(ObjectName),
    ) -> Result<Keeping, StoreError> {
        self.for_each_version(folder, &mut |version| {
            if version.is != VersionIs::Current {
                each(version.name);
            }
        })
    }

    /// As [`crate::store::Store::purge`].
    pub(super) fn purge_versions(
        &self,
        folder: Folder,
        may_go: &dyn Fn(&ObjectName) -> bool,
    ) -> Result<Purged, StoreError> {
        let (mut marks, mut versions) = (Vec::new(), Vec::new());
        let mut there = HashSet::new();
        self.for_each_version(folder, &mut |version| match version.is {
            VersionIs::Current => {
                there.insert(version.name);
            }
            _ if !may_go(&version.name) => {}
            VersionIs::Older => versions.push(version),
            VersionIs::Mark => marks.push(version),
        })?;
        // What is there may be what somebody put over the object.
        versions.retain(|version| !there.contains(&version.name));
        marks.retain(|mark| !there.contains(&mark.name));
        let mut purged = Purged::default();
        // Marks last: without its mark a version that is left would be the object again.
        let mut refused = HashSet::new();
        for version in versions {
            if self.delete_version(&version, &mut purged)? {
                refused.insert(version.name);
            }
        }
        for mark in marks.into_iter().filter(|mark| !refused.contains(&mark.name)) {
            self.delete_version(&mark, &mut purged)?;
        }
        Ok(purged)
    }

    /// Deletes a version; true when that is refused.
    fn delete_version(&self, version: &Version, purged: &mut Purged) -> Result<bool, StoreError> {
        let options =
            DeleteOptions { version: Some(version.id.clone()), ..DeleteOptions::default() };
        let path = version.name.to_string();
        let request = self.operator.delete_options(&path, options);
        match self.wait(RequestKind::Delete, || self.place(&version.name), 0, request) {
            Ok(()) => purged.removed += 1,
            Err(StoreError::NotFound { .. }) => {}
            Err(error) if is_refusal(&error) => {
                purged.refused += 1;
                if let Locked::Until(until_ms) = self.version_locked(&version.name, &version.id) {
                    purged.locked += 1;
                    purged.locked_until_ms = purged.locked_until_ms.max(Some(until_ms));
                }
                return Ok(true);
            }
            Err(error) => return Err(error),
        }
        Ok(false)
    }
}
