//! What services can do, and opendal cannot ask them for: locks on objects, and how long what is
//! deleted can be brought back.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use cairn_format::names::ObjectName;

use super::{ObjectStore, RequestKind};
use crate::store::error::{Place, StoreError};
use crate::store::lock::{KeptFor, LockMode, Locked, no_locks};

/// The answer to a request.
pub(in crate::store) type Answer<'a, T> =
    Pin<Box<dyn Future<Output = opendal::Result<T>> + Send + 'a>>;

/// Requests of one kind of service. Paths are those of objects below the root.
pub(in crate::store) trait Beyond: Debug + Send + Sync {
    /// Until when an object is locked, or a version of it.
    fn locked<'a>(&'a self, path: &'a str, version: Option<&'a str>) -> Option<Answer<'a, Locked>> {
        let _ = (path, version);
        None
    }

    /// Locks an object, or extends its lock.
    fn lock<'a>(&'a self, path: &'a str, until_ms: i64, mode: LockMode) -> Option<Answer<'a, ()>> {
        let _ = (path, until_ms, mode);
        None
    }

    /// How long what is deleted is kept.
    fn kept_for(&self) -> Option<Answer<'_, KeptFor>> {
        None
    }
}

impl ObjectStore {
    fn no_locks(&self) -> StoreError {
        no_locks(self.location.clone())
    }

    /// A service that does not know the question keeps no locks.
    fn or_no_locks(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::NotOffered { .. } => self.no_locks(),
            error => error,
        }
    }

    /// As [`crate::store::Store::locked`].
    pub(super) fn locked_until(&self, name: &ObjectName) -> Result<Locked, StoreError> {
        let path = name.to_string();
        let request = self.beyond.as_ref().and_then(|beyond| beyond.locked(&path, None));
        let request = request.ok_or_else(|| self.no_locks())?;
        let answer = self.wait(RequestKind::Look, || self.place(name), 0, request);
        answer.map_err(|error| self.or_no_locks(error))
    }

    /// Until when a version is locked that is not to be deleted; not locked where that is not said.
    pub(super) fn version_locked(&self, name: &ObjectName, version: &str) -> Locked {
        let path = name.to_string();
        let request = self.beyond.as_ref().and_then(|beyond| beyond.locked(&path, Some(version)));
        let Some(request) = request else { return Locked::No };
        self.wait(RequestKind::Look, || self.place(name), 0, request).unwrap_or(Locked::No)
    }

    /// As [`crate::store::Store::lock`].
    pub(super) fn lock_until(
        &self,
        name: &ObjectName,
        until_ms: i64,
        mode: LockMode,
    ) -> Result<(), StoreError> {
        let path = name.to_string();
        let request = self.beyond.as_ref().and_then(|beyond| beyond.lock(&path, until_ms, mode));
        let request = request.ok_or_else(|| self.no_locks())?;
        let answer = self.wait(RequestKind::Other, || self.place(name), 0, request);
        answer.map_err(|error| self.or_no_locks(error))
    }

    /// How long what is deleted is kept. Asked for once; a service that does not answer, or refuses to,
    /// keeps it for an unknown time.
    pub(super) fn asked_kept_for(&self) -> KeptFor {
        *self.kept_for.get_or_init(|| {
            let request = self.beyond.as_ref().and_then(|beyond| beyond.kept_for());
            let Some(request) = request else { return KeptFor::Unknown };
            let place = || Place::root(&self.location);
            self.wait(RequestKind::Other, place, 0, request).unwrap_or(KeptFor::Unknown)
        })
    }
}
