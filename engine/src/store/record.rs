//! Test kit: counts the calls to a store and the bytes they move, so that a test can assert
//! what an operation costs.

use std::sync::Arc;

use bytes::Bytes;
use cairn_format::names::{Folder, ObjectName};
use parking_lot::Mutex;

use super::{Each, Listing, Put, Store, StoreError};

/// The kinds of calls of [`Store`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallKind {
    /// [`Store::get`]
    Get,
    /// [`Store::get_range`]
    GetRange,
    /// [`Store::put`]
    Put,
    /// [`Store::size`]
    Size,
    /// [`Store::list`]
    List,
    /// [`Store::delete`]
    Delete,
}

/// Calls of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls made, failed ones included.
    pub calls: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Bytes moved by those that did not: read, or given to a put.
    pub bytes: u64,
}

/// Calls by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    /// [`Store::get`]
    pub get: Tally,
    /// [`Store::get_range`]
    pub get_range: Tally,
    /// [`Store::put`]
    pub put: Tally,
    /// [`Store::size`]
    pub size: Tally,
    /// [`Store::list`]
    pub list: Tally,
    /// [`Store::delete`]
    pub delete: Tally,
}

impl Tallies {
    /// All calls of all kinds.
    #[must_use]
    pub const fn calls(&self) -> u64 {
        self.get.calls
            + self.get_range.calls
            + self.put.calls
            + self.size.calls
            + self.list.calls
            + self.delete.calls
    }

    const fn of(&mut self, kind: CallKind) -> &mut Tally {
        match kind {
            CallKind::Get => &mut self.get,
            CallKind::GetRange => &mut self.get_range,
            CallKind::Put => &mut self.put,
            CallKind::Size => &mut self.size,
            CallKind::List => &mut self.list,
            CallKind::Delete => &mut self.delete,
        }
    }
}

/// A store that counts what is asked of the one inside. Clones share the counts.
#[derive(Clone, Debug)]
pub struct RecordStore<S> {
    inner: S,
    tallies: Arc<Mutex<Tallies>>,
}

impl<S: Store> RecordStore<S> {
    /// Counts the calls to `inner` from zero.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self { inner, tallies: Arc::default() }
    }

    /// What was counted so far.
    #[must_use]
    pub fn tallies(&self) -> Tallies {
        *self.tallies.lock()
    }

    /// What was counted since the last call of this function; counts from zero again.
    #[must_use]
    pub fn take(&self) -> Tallies {
        std::mem::take(&mut *self.tallies.lock())
    }

    fn count<T>(
        &self,
        kind: CallKind,
        bytes: impl FnOnce(&T) -> u64,
        result: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut tallies = self.tallies.lock();
        let tally = tallies.of(kind);
        tally.calls += 1;
        match &result {
            Ok(value) => tally.bytes += bytes(value),
            Err(_) => tally.failed += 1,
        }
        result
    }
}

impl<S: Store> Store for RecordStore<S> {
    crate::forward_to_store!(self => self.inner);

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.count(CallKind::Get, |data| data.len() as u64, self.inner.get(name, bytes_max))
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        let result = self.inner.get_range(name, offset, len);
        self.count(CallKind::GetRange, |data| data.len() as u64, result)
    }

    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        self.count(CallKind::Put, |_| data.len() as u64, self.inner.put(name, data))
    }

    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.count(CallKind::Size, |_| 0, self.inner.size(name))
    }

    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        self.count(CallKind::List, |_| 0, self.inner.list(folder, each))
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.count(CallKind::Delete, |()| 0, self.inner.delete(name))
    }
}
