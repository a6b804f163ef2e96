//! Calls that do not depend on one another, made at once where the answer of each is long on its way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use cairn_format::limits::RECORD_BYTES_MAX;
use cairn_format::names::{Folder, ObjectName};
use parking_lot::Mutex;

use super::{Each, Listing, Put, Store, StoreError};

/// Calls of one operation to a store behind a network that are under way at once.
pub const CALLS_AT_ONCE: usize = 16;
/// What [`Ahead`] reads of all folders together, at most: objects, and bytes.
const AHEAD_OBJECTS_MAX: usize = 64;
const AHEAD_BYTES_MAX: u64 = 8 << 20;

/// How many calls to a store are worth making at once: one where answers come at once.
#[must_use]
pub fn calls_at_once(store: &dyn Store) -> usize {
    if store.is_near() { 1 } else { CALLS_AT_ONCE }
}

/// Objects that are asked for at once take no more than this as they are stored, bytes, unless one alone
/// does.
pub const WAVE_BYTES_MAX: u64 = 16 << 20;

/// How many of the first objects of these sizes are to be asked for at once: at least one, where there
/// are any.
pub fn wave(store: &dyn Store, sizes: impl Iterator<Item = u64>) -> usize {
    let mut bytes: u64 = 0;
    let fit = |size: &u64| {
        bytes = bytes.saturating_add(*size);
        bytes <= WAVE_BYTES_MAX
    };
    sizes.take(calls_at_once(store)).take_while(fit).count().max(1)
}

/// What `call` says of each item, in their order: one after another at a store nearby, else up to
/// [`CALLS_AT_ONCE`] at once, each in a thread of its own.
pub fn map<T: Sync, R: Send>(
    store: &dyn Store,
    items: &[T],
    call: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let threads = calls_at_once(store).min(items.len());
    if threads <= 1 {
        return items.iter().map(call).collect();
    }
    let next = AtomicUsize::new(0);
    let said = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(number) else { return };
                    let one = call(item);
                    said.lock().push((number, one));
                }
            });
        }
    });
    let mut said = said.into_inner();
    said.sort_unstable_by_key(|(number, _)| *number);
    said.into_iter().map(|(_, one)| one).collect()
}

/// Two calls: the first before the second at a store nearby, else both at once.
pub fn both<A: Send, B: Send>(
    store: &dyn Store,
    one: impl FnOnce() -> A + Send,
    other: impl FnOnce() -> B + Send,
) -> (A, B) {
    if store.is_near() {
        let first = one();
        return (first, other());
    }
    std::thread::scope(|scope| {
        let first = scope.spawn(one);
        let second = other();
        match first.join() {
            Ok(first) => (first, second),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A store of which some folders of small objects were read before anybody asked, once each: those
/// who ask next get what was found, without waiting. What could not be had is asked for again when
/// its turn comes, and then it is told why. Of a store nearby nothing is read ahead.
#[derive(Debug)]
pub struct Ahead<'s> {
    store: &'s dyn Store,
    folders: Mutex<HashMap<Folder, Vec<(ObjectName, u64)>>>,
    objects: Mutex<HashMap<ObjectName, Bytes>>,
}

impl<'s> Ahead<'s> {
    /// Lists these folders at once, then reads what they hold at once.
    #[must_use]
    pub fn of(store: &'s dyn Store, folders: &[Folder]) -> Self {
        let ahead = Self { store, folders: Mutex::default(), objects: Mutex::default() };
        if store.is_near() {
            return ahead;
        }
        let list = |folder: &Folder| {
            let mut found = Vec::new();
            let listed = store.list(*folder, &mut |name, bytes| {
                found.push((name, bytes));
                Ok(())
            });
            listed.ok().map(|_| (*folder, found))
        };
        let listed = map(store, folders, list).into_iter().flatten().collect::<HashMap<_, _>>();
        let mut left = AHEAD_BYTES_MAX;
        let mut names = Vec::new();
        for (name, bytes) in listed.values().flatten().take(AHEAD_OBJECTS_MAX) {
            // What is larger is no record; whoever asks for it is told so.
            if *bytes > u64::from(RECORD_BYTES_MAX) {
                continue;
            }
            let Some(rest) = left.checked_sub(*bytes) else { break };
            left = rest;
            names.push(*name);
        }
        let get = |name: &ObjectName| Some((*name, store.get(name, RECORD_BYTES_MAX.into()).ok()?));
        let objects = map(store, &names, get).into_iter().flatten().collect();
        *ahead.folders.lock() = listed;
        *ahead.objects.lock() = objects;
        ahead
    }

    /// Whether the next listing of that folder was made ahead.
    #[must_use]
    pub fn has_listed(&self, folder: Folder) -> bool {
        self.folders.lock().contains_key(&folder)
    }
}

impl Store for Ahead<'_> {
    crate::forward_to_store!(self => self.store);

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        let known = self.objects.lock().remove(name);
        match known.filter(|object| object.len() as u64 <= bytes_max) {
            Some(object) => Ok(object),
            None => self.store.get(name, bytes_max),
        }
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        self.store.get_range(name, offset, len)
    }

    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        self.store.put(name, data)
    }

    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.store.size(name)
    }

    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        let known = self.folders.lock().remove(&folder);
        let Some(known) = known else { return self.store.list(folder, each) };
        let objects = known.len() as u64;
        for (name, bytes) in known {
            each(name, bytes)?;
        }
        Ok(Listing { objects, foreign: 0 })
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.store.delete(name)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    use cairn_format::ids::ObjectHash;
    use parking_lot::Condvar;

    use super::super::memory::MemoryStore;
    use super::super::record::RecordStore;
    use super::*;

    /// How long a call waits for others to be under way: never, if they are.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A store behind a network.
    #[derive(Debug)]
    struct Far(RecordStore<MemoryStore>);

    impl Store for Far {
        fn location(&self) -> String {
            self.0.location()
        }
        fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
            self.0.get(name, bytes_max)
        }
        fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
            self.0.get_range(name, offset, len)
        }
        fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
            self.0.put(name, data)
        }
        fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
            self.0.size(name)
        }
        fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
            self.0.list(folder, each)
        }
        fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
            self.0.delete(name)
        }
    }

    fn far() -> Far {
        Far(RecordStore::new(MemoryStore::new()))
    }

    fn config(data: &[u8]) -> ObjectName {
        ObjectName::Config(ObjectHash::from_bytes(*blake3::hash(data).as_bytes()))
    }

    #[test]
    fn calls_from_afar_are_under_way_at_once_and_their_answers_in_order() {
        let under_way = (Mutex::new(0), Condvar::new());
        let items = (0..3 * CALLS_AT_ONCE).collect::<Vec<_>>();
        let said = map(&far(), &items, |item| {
            // The first ones only go on when all of them have begun.
            let mut begun = under_way.0.lock();
            *begun += 1;
            under_way.1.notify_all();
            let late = |begun: &mut usize| *begun < CALLS_AT_ONCE;
            let waited = under_way.1.wait_while_for(&mut begun, late, PATIENCE);
            assert!(!waited.timed_out());
            item * 2
        });
        assert_eq!(said, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        let begun = (Mutex::new(0), Condvar::new());
        let call = || {
            let mut number = begun.0.lock();
            *number += 1;
            begun.1.notify_all();
            !begun.1.wait_while_for(&mut number, |number| *number < 2, PATIENCE).timed_out()
        };
        assert_eq!(both(&far(), call, call), (true, true));
    }

    #[test]
    fn calls_to_a_store_nearby_come_one_after_another() {
        let under_way = AtomicU64::new(0);
        let said = map(&MemoryStore::new(), &[1, 2, 3], |item| {
            assert_eq!(under_way.fetch_add(1, Ordering::SeqCst), 0);
            under_way.fetch_sub(1, Ordering::SeqCst);
            *item
        });
        assert_eq!(said, [1, 2, 3]);
        let order = Mutex::new(Vec::new());
        both(&MemoryStore::new(), || order.lock().push(1), || order.lock().push(2));
        assert_eq!(order.into_inner(), [1, 2]);
    }

    #[test]
    fn what_was_read_ahead_is_given_once_and_the_rest_is_asked_for() {
        let store = far();
        let (small, large) = (b"small".to_vec(), vec![7; RECORD_BYTES_MAX as usize + 1]);
        for data in [&small, &large] {
            store.put(&config(data), data).unwrap();
        }
        let list = |ahead: &Ahead<'_>| {
            let mut names = Vec::new();
            ahead
                .list(Folder::Config, &mut |name, _| {
                    names.push(name);
                    Ok(())
                })
                .unwrap();
            names.len()
        };
        let ahead = Ahead::of(&store, &[Folder::Config]);
        let before = store.0.tallies();
        assert!(ahead.has_listed(Folder::Config) && !ahead.has_listed(Folder::Keys));
        assert_eq!(list(&ahead), 2);
        assert_eq!(ahead.get(&config(&small), 100).unwrap(), small);
        assert_eq!(store.0.tallies().calls(), before.calls());
        // A second time, and what is no record: as if nothing had been read ahead.
        assert_eq!(list(&ahead), 2);
        assert_eq!(ahead.get(&config(&small), 100).unwrap(), small);
        assert_eq!(ahead.get(&config(&large), large.len() as u64).unwrap(), large);
        assert_eq!(store.0.tallies().get.calls, before.get.calls + 2);
        let limited = Ahead::of(&store, &[Folder::Config]);
        let refused = limited.get(&config(&small), 2);
        assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    }
}
