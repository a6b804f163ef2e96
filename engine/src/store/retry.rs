//! Retries, their pauses, and the number of calls in flight.
//!
//! The split: a time limit belongs to the store, which alone can abandon a request (the
//! object store does; a system call of the local store cannot be abandoned), and comes out of
//! it as [`StoreError::Timeout`]. This wrapper stands outside of that and decides whether to
//! ask again. Asking again is safe for every call, also when it is unknown whether the first
//! was carried out: by the contract of [`Store::put`] a put compares with what is there.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_format::names::{Folder, ObjectName};
use parking_lot::{Condvar, Mutex};

use super::lock::{KeptFor, LockMode, Locked};
use super::profile::Profile;
use super::traffic::Traffic;
use super::{Each, Keeping, Listing, Purged, Put, Store, StoreError};

/// How often, and how fast, a store is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Attempts in all, the first included; at least one is made.
    pub attempts_max: u32,
    /// Pause before the second attempt, doubled before each further one, in milliseconds.
    pub pause_ms: u64,
    /// Longest pause, in milliseconds.
    pub pause_ms_max: u64,
    /// Most calls in flight at once, listings not counted; at least one.
    pub calls_max: usize,
}

impl Default for Policy {
    /// Seven attempts over about half a minute, sixteen calls at once.
    fn default() -> Self {
        Self { attempts_max: 7, pause_ms: 500, pause_ms_max: 15_000, calls_max: 16 }
    }
}

impl Policy {
    /// The pause after a failed attempt, counted from 0: doubled each time up to the limit, of
    /// which a random part of up to one half is taken away, so that many clients do not come
    /// back at once.
    #[must_use]
    pub fn pause(&self, attempt: u32, random: u64) -> Duration {
        let doubled =
            1u64.checked_shl(attempt).map_or(u64::MAX, |f| self.pause_ms.saturating_mul(f));
        let whole = doubled.min(self.pause_ms_max);
        let off = random % (whole / 2 + 1);
        Duration::from_millis(whole - off)
    }
}

/// Waits, and rolls the dice: replaced in tests.
pub trait Pacer: Send + Sync + Debug {
    /// Lets the calling thread wait.
    fn pause(&self, duration: Duration);

    /// A random number; need not be unpredictable.
    fn random(&self) -> u64;
}

/// Really waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemPacer;

impl Pacer for SystemPacer {
    fn pause(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn random(&self) -> u64 {
        // Without randomness the pauses are whole: slower, not wrong.
        getrandom::u64().unwrap_or_default()
    }
}

/// Admits a number of callers at once.
#[derive(Debug)]
struct Gate {
    free: Mutex<usize>,
    freed: Condvar,
}

/// The right to be in flight, given back when dropped.
struct Permit<'a>(&'a Gate);

impl Gate {
    fn enter(&self) -> Permit<'_> {
        let mut free = self.free.lock();
        self.freed.wait_while(&mut free, |free| *free == 0);
        *free -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.freed.notify_one();
    }
}

/// A store that is asked again after transient failures, and by a limited number of callers.
#[derive(Debug)]
pub struct Guarded<S> {
    inner: S,
    policy: Policy,
    pacer: Arc<dyn Pacer>,
    gate: Gate,
}

impl<S: Store> Guarded<S> {
    /// Guards `inner`, waiting for real.
    #[must_use]
    pub fn new(inner: S, policy: Policy) -> Self {
        Self::with_pacer(inner, policy, Arc::new(SystemPacer))
    }

    /// Guards `inner`, with pauses as `pacer` makes them.
    #[must_use]
    pub fn with_pacer(inner: S, policy: Policy, pacer: Arc<dyn Pacer>) -> Self {
        let gate = Gate { free: Mutex::new(policy.calls_max.max(1)), freed: Condvar::new() };
        Self { inner, policy, pacer, gate }
    }

    /// The store inside.
    #[must_use]
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// Asks until an answer comes that time would not change.
    fn persist<T>(
        &self,
        mut attempt: impl FnMut(u32) -> Result<T, StoreError>,
        may_retry: impl Fn(&StoreError) -> bool,
    ) -> Result<T, StoreError> {
        let mut number = 0;
        loop {
            let result = attempt(number);
            let last = number.saturating_add(1) >= self.policy.attempts_max;
            match result {
                Err(error) if error.is_transient() && !last && may_retry(&error) => {
                    self.pacer.pause(self.policy.pause(number, self.pacer.random()));
                    number = number.saturating_add(1);
                }
                result => return result,
            }
        }
    }

    /// Makes a call that [`Store`] does not know, asked again as those that it does.
    pub(super) fn ask<T>(
        &self,
        call: impl Fn(&S) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.guarded(|| call(&self.inner))
    }

    fn guarded<T>(&self, call: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.persist(
            |_| {
                let _permit = self.gate.enter();
                call()
            },
            |_| true,
        )
    }
}

impl<S: Store> Store for Guarded<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn is_near(&self) -> bool {
        self.inner.is_near()
    }

    fn traffic(&self) -> Option<Traffic> {
        self.inner.traffic()
    }

    fn probe(&self) -> Result<Option<Profile>, StoreError> {
        self.guarded(|| self.inner.probe())
    }

    fn unfinished(&self, each: &mut dyn FnMut(&str, u64)) -> Result<(), StoreError> {
        self.inner.unfinished(each)
    }

    fn sweep(&self, is_dead: &dyn Fn(&str) -> bool) -> Result<u64, StoreError> {
        self.inner.sweep(is_dead)
    }

    /// Lists, beginning anew after a transient failure: what was shown before comes again.
    fn kept(
        &self,
        folder: Folder,
        each: &mut dyn FnMut(ObjectName),
    ) -> Result<Keeping, StoreError> {
        self.persist(|_| self.inner.kept(folder, each), |_| true)
    }

    fn purge(
        &self,
        folder: Folder,
        may_go: &dyn Fn(&ObjectName) -> bool,
    ) -> Result<Purged, StoreError> {
        self.persist(|_| self.inner.purge(folder, may_go), |_| true)
    }

    fn kept_for(&self) -> Result<KeptFor, StoreError> {
        self.guarded(|| self.inner.kept_for())
    }

    fn now_ms(&self) -> Result<Option<i64>, StoreError> {
        self.guarded(|| self.inner.now_ms())
    }

    fn taken_ms(&self, name: &ObjectName) -> Result<Option<i64>, StoreError> {
        self.guarded(|| self.inner.taken_ms(name))
    }

    fn locked(&self, name: &ObjectName) -> Result<Locked, StoreError> {
        self.guarded(|| self.inner.locked(name))
    }

    fn lock(&self, name: &ObjectName, until_ms: i64, mode: LockMode) -> Result<(), StoreError> {
        self.guarded(|| self.inner.lock(name, until_ms, mode))
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.guarded(|| self.inner.get(name, bytes_max))
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        self.guarded(|| self.inner.get_range(name, offset, len))
    }

    /// Puts, and asks again after transient failures. An earlier attempt whose answer was lost
    /// may be what a later one finds there: that is reported as [`Put::Written`].
    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        self.persist(
            |number| {
                let _permit = self.gate.enter();
                let put = self.inner.put(name, data)?;
                Ok(if number > 0 { Put::Written } else { put })
            },
            |_| true,
        )
    }

    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.guarded(|| self.inner.size(name))
    }

    /// Lists, beginning anew after a transient failure: objects seen before come again. Takes
    /// no part in the limit on calls in flight, so that `each` may call the store.
    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        let refused = std::cell::Cell::new(false);
        self.persist(
            |_| {
                self.inner.list(folder, &mut |name, bytes| {
                    each(name, bytes).inspect_err(|_| refused.set(true))
                })
            },
            |_| !refused.get(),
        )
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.guarded(|| self.inner.delete(name))
    }
}
