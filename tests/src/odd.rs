//! Stores that are odd as a test wants them: that hide objects from listings, keep what they say they
//! deleted, or let something happen before a call.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::store::record::CallKind;
use cairn_engine::store::{Each, Listing, Put, Store, StoreError};
use cairn_format::names::{Folder, ObjectName};
use parking_lot::Mutex;

use crate::lab::alone;

/// Something to be done once.
pub type Act = Box<dyn FnOnce() + Send>;

/// Whether it is this call.
type When = dyn Fn(CallKind, Option<&ObjectName>) -> bool + Send + Sync;

/// A store with oddities. Clones share them.
#[derive(Clone)]
pub struct Odd<S> {
    inner: S,
    hidden: Arc<Mutex<BTreeSet<ObjectName>>>,
    keeps: bool,
    when: Arc<When>,
    act: Arc<Mutex<Option<Act>>>,
}

impl<S: Store> fmt::Debug for Odd<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Odd({:?})", self.inner)
    }
}

impl<S: Store> Odd<S> {
    /// Nothing is odd.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            hidden: Arc::default(),
            keeps: false,
            when: Arc::new(|_, _| false),
            act: Arc::default(),
        }
    }

    /// Listings lack these objects.
    #[must_use]
    pub fn hiding(self, names: impl IntoIterator<Item = ObjectName>) -> Self {
        self.hidden.lock().extend(names);
        self
    }

    /// Deletions say that they were done, and are not.
    #[must_use]
    pub fn keeping(self) -> Self {
        Self { keeps: true, ..self }
    }

    /// Before the first call of which `when` is true something is done, by a thread of its own. Whoever
    /// calls should be [`alone`] too: of two workers that share work, one that waits here would keep what
    /// the other takes up.
    #[must_use]
    pub fn before(
        self,
        when: impl Fn(CallKind, Option<&ObjectName>) -> bool + Send + Sync + 'static,
        act: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self { when: Arc::new(when), act: Arc::new(Mutex::new(Some(Box::new(act)))), ..self }
    }

    /// Whether what was to happen before a call has happened.
    #[must_use]
    pub fn has_acted(&self) -> bool {
        self.act.lock().is_none()
    }

    fn call(&self, kind: CallKind, name: Option<&ObjectName>) {
        let act = (self.when)(kind, name).then(|| self.act.lock().take()).flatten();
        if let Some(act) = act {
            std::thread::spawn(|| alone(act)).join().expect("it is done");
        }
    }
}

impl<S: Store> Store for Odd<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn is_near(&self) -> bool {
        self.inner.is_near()
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.call(CallKind::Get, Some(name));
        self.inner.get(name, bytes_max)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        self.call(CallKind::GetRange, Some(name));
        self.inner.get_range(name, offset, len)
    }

    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        self.call(CallKind::Put, Some(name));
        self.inner.put(name, data)
    }

    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.call(CallKind::Size, Some(name));
        self.inner.size(name)
    }

    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        self.call(CallKind::List, None);
        let hidden = self.hidden.lock().clone();
        self.inner.list(folder, &mut |name, bytes| {
            if hidden.contains(&name) { Ok(()) } else { each(name, bytes) }
        })
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.call(CallKind::Delete, Some(name));
        if self.keeps { Ok(()) } else { self.inner.delete(name) }
    }
}
