//! A store that is waited for only as long as something comes of it: one of several copies must not
//! hold up what is done for all of them, however its place fails to answer.
//!
//! The limits of single requests ([`super::options::TimeLimits`]) do not do for that: a server may
//! answer each request just in time, and a system call on a file system whose server is gone may
//! never return. So each call is made by a thread of its own, which can be left behind, and the time
//! that calls take is held against what they bring.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_format::names::{Folder, ObjectName};
use parking_lot::Mutex;

use super::error::Place;
use super::lock::{KeptFor, LockMode, Locked};
use super::profile::Profile;
use super::traffic::Traffic;
use super::{Each, Keeping, Listing, Purged, Put, Store, StoreError};
use crate::error::Error;

/// An answer makes up for this part of the whole time: a place that takes longer for each, on the
/// average, gets nowhere. With a quarter of an hour, 15 seconds.
const ANSWERS: u64 = 60;
/// Entries of a listing that come together; they count as an answer.
const BATCH: usize = 1000;
/// How often it is looked whether somebody else gave up, milliseconds.
const LOOK_MS: u64 = 500;
/// Longer than anybody waits, and short enough to be added up, milliseconds.
const WHOLE_MS_MAX: u64 = 10 * 365 * 24 * 60 * 60 * 1000;

/// How long a place is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long it may get nowhere, milliseconds. What it does not use up is not saved.
    pub stall_ms: u64,
    /// What moves slower than this is as good as nothing, bytes a second.
    pub bytes_per_s_min: u64,
}

impl Default for Patience {
    /// A quarter of an hour, and as long as 64 KiB/s take.
    fn default() -> Self {
        Self { stall_ms: 15 * 60 * 1000, bytes_per_s_min: 64 << 10 }
    }
}

impl Patience {
    /// As long as it likes.
    pub const ENDLESS: Self = Self { stall_ms: u64::MAX, bytes_per_s_min: 1 };

    fn whole_us(&self) -> i64 {
        micros(Duration::from_millis(self.stall_ms.min(WHOLE_MS_MAX)))
    }

    fn answer_us(&self) -> i64 {
        micros(Duration::from_millis(self.stall_ms.min(WHOLE_MS_MAX) / ANSWERS))
    }

    /// What moving so many bytes may take.
    fn moving_us(&self, bytes: u64) -> i64 {
        let ms = bytes.saturating_mul(1000) / self.bytes_per_s_min.max(1);
        micros(Duration::from_millis(ms.min(WHOLE_MS_MAX)))
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// The time that is left, microseconds.
#[derive(Debug)]
struct Account {
    left: i64,
    /// What may be left at most: the whole, and what calls under way were given.
    most: i64,
    under_way: u32,
    /// Until when the time was counted.
    settled: Instant,
    given_up: bool,
}

impl Account {
    /// Counts the time until now, if somebody waited.
    fn settle(&mut self, now: Instant) {
        if self.under_way > 0 {
            let took = now.saturating_duration_since(self.settled);
            self.left = self.left.saturating_sub(micros(took));
        }
        self.settled = now;
    }

    /// A call begins that is given so much more time.
    fn begin(&mut self, now: Instant, given: i64) {
        self.settle(now);
        self.under_way = self.under_way.saturating_add(1);
        self.most = self.most.saturating_add(given);
        self.left = self.left.saturating_add(given);
    }

    /// Something came.
    fn earn(&mut self, now: Instant, earned: i64) {
        self.settle(now);
        self.left = self.left.saturating_add(earned).min(self.most);
    }

    /// A call ended that was given so much.
    fn end(&mut self, now: Instant, given: i64) {
        self.settle(now);
        self.under_way = self.under_way.saturating_sub(1);
        self.most = self.most.saturating_sub(given);
        self.left = self.left.min(self.most);
    }
}

/// What a call has to say.
enum Said<Q, T> {
    Asked(Q),
    Done(T),
}

/// How a call asks who made it; `None` when nobody waits for it any more.
type Ask<'a, Q, A> = &'a dyn Fn(Q) -> Option<A>;

/// Waits, until it gives up: then for nothing any more.
struct Waiter {
    location: String,
    patience: Patience,
    account: Mutex<Account>,
}

/// A call under way, which ends when it is dropped.
struct Turn<'a> {
    waiter: &'a Waiter,
    given: i64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.waiter.account.lock().end(Instant::now(), self.given);
    }
}

impl Waiter {
    fn new(location: String, patience: Patience) -> Self {
        let whole = patience.whole_us();
        let account = Account {
            left: whole,
            most: whole,
            under_way: 0,
            settled: Instant::now(),
            given_up: false,
        };
        Self { location, patience, account: Mutex::new(account) }
    }

    fn given_up(&self) -> StoreError {
        let after = Duration::from_millis(self.patience.stall_ms);
        StoreError::GivenUp { location: self.location.clone(), after }
    }

    fn lost(&self, source: super::error::Cause) -> StoreError {
        StoreError::Io { action: "ask", place: Place::root(&self.location), source }
    }

    /// The time left, unless it is given up.
    fn left(&self) -> Result<Duration, StoreError> {
        let mut account = self.account.lock();
        account.settle(Instant::now());
        account.given_up |= account.left <= 0;
        match u64::try_from(account.left) {
            Ok(left) if !account.given_up => Ok(Duration::from_micros(left)),
            _ => Err(self.given_up()),
        }
    }

    fn receive<M>(&self, receiver: &Receiver<M>) -> Result<M, StoreError> {
        loop {
            let look = Duration::from_millis(LOOK_MS);
            match receiver.recv_timeout(self.left()?.min(look)) {
                Ok(message) => return Ok(message),
                // Others may have brought something meanwhile, or given up.
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.lost("the call ended without an answer".into()));
                }
            }
        }
    }

    /// Makes a call that moves so many bytes, in a thread of its own, and answers what it asks.
    fn converse<Q, A, T>(
        &self,
        bytes: u64,
        call: impl FnOnce(Ask<'_, Q, A>) -> T + Send + 'static,
        mut answer: impl FnMut(Q) -> A,
    ) -> Result<T, StoreError>
    where
        Q: Send + 'static,
        A: Send + 'static,
        T: Send + 'static,
    {
        self.left()?;
        let (say, hear) = mpsc::channel();
        let (reply, replies) = mpsc::channel();
        let work = move || {
            let ask = |question| {
                say.send(Said::Asked(question)).ok()?;
                replies.recv().ok()
            };
            let done = call(&ask);
            // Nobody may be waiting for it any more.
            let _left = say.send(Said::Done(done));
        };
        let given = self.patience.moving_us(bytes);
        self.account.lock().begin(Instant::now(), given);
        let turn = Turn { waiter: self, given };
        let thread = std::thread::Builder::new().name("cairn-patient".to_owned()).spawn(work);
        thread.map_err(|error| self.lost(error.into()))?;
        let done = loop {
            match self.receive(&hear)? {
                Said::Asked(question) => {
                    self.came(0);
                    let _gone = reply.send(answer(question));
                }
                Said::Done(done) => break done,
            }
        };
        self.came(0);
        drop(turn);
        Ok(done)
    }

    /// An answer came, with so many bytes that were not expected.
    fn came(&self, bytes: u64) {
        let earned = self.patience.answer_us().saturating_add(self.patience.moving_us(bytes));
        self.account.lock().earn(Instant::now(), earned);
    }
}

/// Gives a place up before its time.
#[derive(Clone)]
pub struct GivingUp(Arc<Waiter>);

impl GivingUp {
    /// Does so: whoever waits for it stops soon, and nobody begins to.
    pub fn now(&self) {
        self.0.account.lock().given_up = true;
    }
}

/// A store that is given up when nothing comes of it for too long: from then on every call fails at
/// once with [`StoreError::GivenUp`]. What a call that was left behind does later is what the call
/// may do whose answer is lost.
pub struct Patient {
    inner: Arc<dyn Store>,
    waiter: Arc<Waiter>,
}

impl fmt::Debug for Patient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patient").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Patient {
    /// Waits for this store.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, patience: Patience) -> Self {
        let waiter = Arc::new(Waiter::new(inner.location(), patience));
        Self { inner, waiter }
    }

    /// Opens a store, for which it does not wait longer either, and waits for it from then on.
    /// `location` names it; `note` is told, before it is opened, by what it can be given up.
    ///
    /// # Errors
    /// Those of `open`; [`StoreError::GivenUp`].
    pub fn open(
        location: &str,
        patience: Patience,
        note: &dyn Fn(GivingUp),
        open: impl FnOnce() -> Result<Arc<dyn Store>, Error> + Send + 'static,
    ) -> Result<Self, Error> {
        let waiter = Arc::new(Waiter::new(location.to_owned(), patience));
        note(GivingUp(Arc::clone(&waiter)));
        let opened = waiter.converse(0, move |_: Ask<'_, (), ()>| open(), |()| ())?;
        Ok(Self { inner: opened?, waiter })
    }

    /// Makes a call.
    fn call<T: Send + 'static>(
        &self,
        bytes: u64,
        call: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask(bytes, move |store, _: Ask<'_, (), ()>| call(store), |()| ())
    }

    /// Makes a call that asks back.
    fn ask<Q, A, T>(
        &self,
        bytes: u64,
        call: impl FnOnce(&dyn Store, Ask<'_, Q, A>) -> Result<T, StoreError> + Send + 'static,
        answer: impl FnMut(Q) -> A,
    ) -> Result<T, StoreError>
    where
        Q: Send + 'static,
        A: Send + 'static,
        T: Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        self.waiter.converse(bytes, move |ask| call(inner.as_ref(), ask), answer)?
    }

    /// Makes a call that shows entries, which come in batches; `each` says whether to go on.
    fn show<E, T>(
        &self,
        call: impl FnOnce(&dyn Store, &mut dyn FnMut(E) -> bool) -> Result<T, StoreError>
        + Send
        + 'static,
        mut each: impl FnMut(E) -> bool,
    ) -> Result<T, StoreError>
    where
        E: Send + 'static,
        T: Send + 'static,
    {
        let call = move |store: &dyn Store, ask: Ask<'_, Vec<E>, bool>| {
            let mut batch = Vec::new();
            let shown = call(store, &mut |entry| {
                batch.push(entry);
                batch.len() < BATCH || ask(std::mem::take(&mut batch)) == Some(true)
            })?;
            if !batch.is_empty() {
                ask(batch);
            }
            Ok(shown)
        };
        self.ask(0, call, |batch: Vec<E>| batch.into_iter().all(&mut each))
    }
}

impl Store for Patient {
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
        self.call(0, |store| store.probe())
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        let name = *name;
        let read = self.call(0, move |store| store.get(&name, bytes_max))?;
        self.waiter.came(read.len() as u64);
        Ok(read)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        let name = *name;
        self.call(len, move |store| store.get_range(&name, offset, len))
    }

    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        self.put_shared(name, &Bytes::copy_from_slice(data))
    }

    fn put_shared(&self, name: &ObjectName, data: &Bytes) -> Result<Put, StoreError> {
        let (name, data) = (*name, data.clone());
        self.call(data.len() as u64, move |store| store.put(&name, &data))
    }

    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        let name = *name;
        self.call(0, move |store| store.size(&name))
    }

    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        let mut refused = None;
        let listed = self.show(
            move |store, show| {
                store.list(folder, &mut |name, bytes| match show((name, bytes)) {
                    true => Ok(()),
                    false => {
                        Err(StoreError::Stopped { place: Place::folder(store.location(), folder) })
                    }
                })
            },
            |(name, bytes)| {
                refused = each(name, bytes).err();
                refused.is_none()
            },
        );
        refused.map_or(listed, Err)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let name = *name;
        self.call(0, move |store| store.delete(&name))
    }

    fn kept(
        &self,
        folder: Folder,
        each: &mut dyn FnMut(ObjectName),
    ) -> Result<Keeping, StoreError> {
        self.show(
            move |store, show| {
                store.kept(folder, &mut |name| {
                    show(name);
                })
            },
            |name| {
                each(name);
                true
            },
        )
    }

    fn purge(
        &self,
        folder: Folder,
        may_go: &dyn Fn(&ObjectName) -> bool,
    ) -> Result<Purged, StoreError> {
        self.ask(
            0,
            move |store, ask: Ask<'_, ObjectName, bool>| {
                store.purge(folder, &|name| ask(*name) == Some(true))
            },
            |name| may_go(&name),
        )
    }

    fn kept_for(&self) -> Result<KeptFor, StoreError> {
        self.call(0, |store| store.kept_for())
    }

    fn locked(&self, name: &ObjectName) -> Result<Locked, StoreError> {
        let name = *name;
        self.call(0, move |store| store.locked(&name))
    }

    fn lock(&self, name: &ObjectName, until_ms: i64, mode: LockMode) -> Result<(), StoreError> {
        let name = *name;
        self.call(0, move |store| store.lock(&name, until_ms, mode))
    }

    fn unfinished(&self, each: &mut dyn FnMut(&str, u64)) -> Result<(), StoreError> {
        self.show(
            |store, show| {
                store.unfinished(&mut |name, bytes| {
                    show((name.to_owned(), bytes));
                })
            },
            |(name, bytes)| {
                each(&name, bytes);
                true
            },
        )
    }

    fn now_ms(&self) -> Result<Option<i64>, StoreError> {
        self.call(0, |store| store.now_ms())
    }

    fn taken_ms(&self, name: &ObjectName) -> Result<Option<i64>, StoreError> {
        let name = *name;
        self.call(0, move |store| store.taken_ms(&name))
    }

    fn sweep(&self, is_dead: &dyn Fn(&str) -> bool) -> Result<u64, StoreError> {
        self.ask(
            0,
            |store, ask: Ask<'_, String, bool>| {
                store.sweep(&|name| ask(name.to_owned()) == Some(true))
            },
            |name| is_dead(&name),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn account(patience: Patience) -> Account {
        let waiter = Waiter::new("there".to_owned(), patience);
        waiter.account.into_inner()
    }

    /// A minute, an answer a second, a thousand bytes a second.
    const MINUTE: Patience = Patience { stall_ms: 60_000, bytes_per_s_min: 1000 };

    #[test]
    fn a_place_that_drips_uses_up_its_time_and_one_that_answers_gets_it_back() {
        let begin = Instant::now();
        let at = |s: u64| begin + Duration::from_secs(s);
        let mut account = account(MINUTE);
        account.settled = begin;
        // Each answer takes five seconds, and makes up for one.
        for nth in 0..15 {
            account.begin(at(nth * 10), 0);
            account.earn(at(nth * 10 + 5), MINUTE.answer_us());
            account.end(at(nth * 10 + 5), 0);
        }
        // What nobody waited for does not count: the other five.
        assert_eq!(account.left, 0);
        // Quick answers bring it back, up to the whole and no further.
        for nth in 0..100 {
            account.begin(at(200 + nth), 0);
            account.earn(at(200 + nth), MINUTE.answer_us());
            account.end(at(200 + nth), 0);
        }
        assert_eq!(account.left, 60 * SECOND);
    }

    #[test]
    fn what_moves_much_is_given_the_time_for_it() {
        let begin = Instant::now();
        let at = |s: u64| begin + Duration::from_secs(s);
        let mut account = account(MINUTE);
        account.settled = begin;
        let given = MINUTE.moving_us(100_000);
        account.begin(begin, given);
        account.settle(at(150));
        assert_eq!(account.left, 10 * SECOND);
        account.end(at(150), given);
        assert_eq!((account.left, account.most), (10 * SECOND, 60 * SECOND));
        // Two at once take their time once.
        account.begin(at(200), 0);
        account.begin(at(200), 0);
        account.settle(at(205));
        assert_eq!(account.left, 5 * SECOND);
    }

    #[test]
    fn limits_of_any_size_are_added_up() {
        let endless = Patience { stall_ms: u64::MAX, bytes_per_s_min: 0 };
        let mut account = account(endless);
        for _ in 0..100 {
            account.begin(Instant::now(), endless.moving_us(u64::MAX));
        }
        account.earn(Instant::now(), endless.answer_us());
        assert!(account.left > 0 && account.left <= account.most);
    }
}
