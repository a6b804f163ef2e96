//! Stores that are odd as a test wants them: that hide objects from listings, treat what is deleted in
//! a way of their own, cannot be read in places, or let something happen before a call.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::context::Clock as _;
use cairn_engine::store::error::Place;
use cairn_engine::store::lock::{LockMode, Locked};
use cairn_engine::store::record::CallKind;
use cairn_engine::store::{Each, Keeping, Listing, Purged, Put, Store, StoreError};
use cairn_format::names::{Folder, ObjectName};
use parking_lot::Mutex;

use crate::lab::{TestClock, alone};

/// Something to be done once.
pub type Act = Box<dyn FnOnce() + Send>;

/// Whether it is this call.
type When = dyn Fn(CallKind, Option<&ObjectName>) -> bool + Send + Sync;

/// When the locks of [`Deletes::Locked`] end.
pub const LOCKED_UNTIL_MS: i64 = TestClock::START_MS + 1_000 * 3_600_000;

/// What becomes of an object that is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletes {
    /// It is gone.
    Gone,
    /// It is kept as an older version.
    Versions,
    /// The same, and versions may not be deleted.
    Locked,
    /// It is kept where nobody sees it.
    Hidden,
    /// It stays, whatever the answer says.
    Stays,
    /// A pack stays, whatever the answer says; other objects are gone.
    PacksStay,
    /// It is gone, and listings go on to show it, as those of a distributed store do while a node
    /// catches up.
    Lingers,
}

/// Until when objects are locked, milliseconds since 1970.
pub type Locks = Arc<Mutex<BTreeMap<ObjectName, i64>>>;

/// A store with oddities. Clones share what is hidden, what was deleted and what is to happen.
#[derive(Clone)]
pub struct Odd<S> {
    inner: S,
    hidden: Arc<Mutex<BTreeSet<ObjectName>>>,
    deletes: Option<Deletes>,
    deleted: Arc<Mutex<BTreeMap<ObjectName, Bytes>>>,
    unreadable: Arc<Mutex<BTreeMap<ObjectName, Range<u64>>>>,
    when: Arc<When>,
    act: Arc<Mutex<Option<Act>>>,
    clock: Option<Arc<TestClock>>,
    taken: Arc<Mutex<BTreeMap<ObjectName, i64>>>,
    locks: Option<Locks>,
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
            deletes: None,
            deleted: Arc::default(),
            unreadable: Arc::default(),
            when: Arc::new(|_, _| false),
            act: Arc::default(),
            clock: None,
            taken: Arc::default(),
            locks: None,
        }
    }

    /// Objects can be locked, as in a bucket that keeps versions: they can be deleted nevertheless, and
    /// what is deleted is locked no longer here, where no older version is kept.
    #[must_use]
    pub fn with_locks(self, locks: Locks) -> Self {
        Self { locks: Some(locks), ..self }
    }

    /// The store has a clock of its own.
    #[must_use]
    pub fn with_clock(self, clock: Arc<TestClock>) -> Self {
        Self { clock: Some(clock), ..self }
    }

    /// The store says that it took these objects then, milliseconds since 1970.
    pub fn take(&self, taken: impl IntoIterator<Item = (ObjectName, i64)>) {
        self.taken.lock().extend(taken);
    }

    /// Listings lack these objects.
    #[must_use]
    pub fn hiding(self, names: impl IntoIterator<Item = ObjectName>) -> Self {
        self.hidden.lock().extend(names);
        self
    }

    /// Objects that are deleted are treated this way from now on.
    #[must_use]
    pub fn deleting(self, deletes: Deletes) -> Self {
        Self { deletes: Some(deletes), ..self }
    }

    /// The medium does not give these bytes of an object, as of a bad sector, until the object is put
    /// again.
    pub fn spoil(&self, name: ObjectName, bytes: Range<u64>) {
        self.unreadable.lock().insert(name, bytes);
    }

    /// Objects that the medium does not give in part or whole.
    #[must_use]
    pub fn spoilt(&self) -> BTreeSet<ObjectName> {
        self.unreadable.lock().keys().copied().collect()
    }

    /// Refuses to read these bytes of an object when one of them is in a bad place.
    fn read_medium(&self, name: &ObjectName, bytes: &Range<u64>) -> Result<(), StoreError> {
        let is_bad = |bad: &Range<u64>| bad.start < bytes.end && bytes.start < bad.end;
        match self.unreadable.lock().get(name).filter(|bad| is_bad(bad)) {
            None => Ok(()),
            Some(_) => Err(StoreError::Unreadable {
                place: Place::object(self.inner.location(), name),
                source: "a bad sector".into(),
            }),
        }
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

    /// Keeps what an object is now as an older version of it, as when it is about to be written again.
    ///
    /// # Panics
    /// When it is not there.
    pub fn keep_version(&self, name: &ObjectName) {
        let bytes = self.inner.get(name, u64::MAX).expect("it is there");
        self.deleted.lock().insert(*name, bytes);
    }

    /// What was deleted, and not purged since. Without [`Self::deleting`] nothing is remembered.
    #[must_use]
    pub fn deleted(&self) -> BTreeMap<ObjectName, Bytes> {
        self.deleted.lock().clone()
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

    fn now_ms(&self) -> Result<Option<i64>, StoreError> {
        Ok(self.clock.as_ref().map(|clock| clock.now_ms()))
    }

    fn taken_ms(&self, name: &ObjectName) -> Result<Option<i64>, StoreError> {
        Ok(self.taken.lock().get(name).copied())
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.call(CallKind::Get, Some(name));
        self.read_medium(name, &(0..self.inner.size(name)?))?;
        self.inner.get(name, bytes_max)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        self.call(CallKind::GetRange, Some(name));
        self.read_medium(name, &(offset..offset + len))?;
        self.inner.get_range(name, offset, len)
    }

    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        self.call(CallKind::Put, Some(name));
        let put = self.inner.put(name, data)?;
        let replaced = self.unreadable.lock().remove(name).is_some();
        Ok(if replaced { Put::Written } else { put })
    }

    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.call(CallKind::Size, Some(name));
        self.inner.size(name)
    }

    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        self.call(CallKind::List, None);
        let hidden = self.hidden.lock().clone();
        let mut listing = self.inner.list(folder, &mut |name, bytes| {
            if hidden.contains(&name) { Ok(()) } else { each(name, bytes) }
        })?;
        if self.deletes == Some(Deletes::Lingers) {
            for (name, bytes) in self.deleted().into_iter().filter(|(name, _)| is_in(name, folder))
            {
                listing.objects += 1;
                each(name, bytes.len() as u64)?;
            }
        }
        Ok(listing)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.call(CallKind::Delete, Some(name));
        let stays = match self.deletes {
            Some(Deletes::Stays) => true,
            Some(Deletes::PacksStay) => matches!(name, ObjectName::Pack(..)),
            _ => false,
        };
        if stays {
            return Ok(());
        }
        if self.deletes.is_some()
            && let Ok(bytes) = self.inner.get(name, u64::MAX)
        {
            self.deleted.lock().insert(*name, bytes);
        }
        self.unreadable.lock().remove(name);
        if let Some(locks) = &self.locks {
            locks.lock().remove(name);
        }
        self.inner.delete(name)
    }

    fn locked(&self, name: &ObjectName) -> Result<Locked, StoreError> {
        let Some(locks) = &self.locks else { return self.inner.locked(name) };
        self.call(CallKind::Size, Some(name));
        self.inner.size(name)?;
        let until_ms = locks.lock().get(name).copied();
        Ok(until_ms.map_or(Locked::No, Locked::Until))
    }

    fn lock(&self, name: &ObjectName, until_ms: i64, mode: LockMode) -> Result<(), StoreError> {
        let Some(locks) = &self.locks else { return self.inner.lock(name, until_ms, mode) };
        self.call(CallKind::Put, Some(name));
        self.inner.size(name)?;
        let mut locks = locks.lock();
        let until = locks.entry(*name).or_insert(until_ms);
        *until = until_ms.max(*until);
        Ok(())
    }

    fn kept(
        &self,
        folder: Folder,
        each: &mut dyn FnMut(ObjectName),
    ) -> Result<Keeping, StoreError> {
        match self.deletes {
            None => self.inner.kept(folder, each),
            Some(Deletes::Hidden) => Ok(Keeping::Hidden),
            Some(Deletes::Versions | Deletes::Locked) => {
                self.deleted().into_keys().filter(|name| is_in(name, folder)).for_each(each);
                Ok(Keeping::Shown)
            }
            Some(_) => Ok(Keeping::Nothing),
        }
    }

    fn purge(
        &self,
        folder: Folder,
        may_go: &dyn Fn(&ObjectName) -> bool,
    ) -> Result<Purged, StoreError> {
        let mut deleted = self.deleted.lock();
        let goes = |name: &ObjectName| {
            is_in(name, folder) && may_go(name) && self.inner.size(name).is_err()
        };
        let goes = deleted.keys().copied().filter(goes).collect::<BTreeSet<_>>();
        let concerned = goes.len() as u64;
        match self.deletes {
            None => self.inner.purge(folder, may_go),
            Some(Deletes::Versions) => {
                deleted.retain(|name, _| !goes.contains(name));
                Ok(Purged { removed: concerned, ..Purged::default() })
            }
            Some(Deletes::Locked) => {
                let locked_until_ms = (concerned > 0).then_some(LOCKED_UNTIL_MS);
                Ok(Purged { refused: concerned, locked: concerned, locked_until_ms, removed: 0 })
            }
            Some(_) => Ok(Purged::default()),
        }
    }
}

fn is_in(name: &ObjectName, folder: Folder) -> bool {
    name.folder() == Some(folder)
}
