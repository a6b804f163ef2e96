//! The contract of [`Store`], run against every implementation, and the test kit itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_format::ids::{ObjectHash, PackId, SessionId, SnapshotId};
use cairn_format::names::{Folder, ObjectName, PackKind};
use parking_lot::Mutex;

use super::fault::{Fault, FaultStore, Plan};
use super::local::LocalStore;
use super::lock::{KeptFor, LockMode, Locked};
use super::memory::MemoryStore;
use super::patient::{Patience, Patient};
use super::profile::Profile;
use super::record::{CallKind, RecordStore};
use super::retry::{Guarded, Pacer, Policy};
use super::together::Ahead;
use super::traffic::Traffic;
use super::{Keeping, Purged, Put, Store, StoreError};
use crate::error::{Class, Explain};

/// A pack with these bytes, under its true name.
pub(super) fn pack(data: &[u8]) -> ObjectName {
    ObjectName::Pack(PackKind::Data, PackId::from_bytes(*blake3::hash(data).as_bytes()))
}

/// Every folder's kind of object, under its true name.
fn one_of_each(data: &[u8]) -> Vec<ObjectName> {
    let hash = *blake3::hash(data).as_bytes();
    let object = ObjectHash::from_bytes(hash);
    let snapshot = SnapshotId::from_bytes(hash);
    let mut names = vec![
        ObjectName::Config(object),
        ObjectName::Key(cairn_format::ids::SlotId::from_bytes(hash)),
        ObjectName::Pack(PackKind::Data, PackId::from_bytes(hash)),
        ObjectName::Pack(PackKind::Tree, PackId::from_bytes(hash)),
        ObjectName::Index(cairn_format::ids::SegmentId::from_bytes(hash)),
        ObjectName::Snapshot { time_ms: 7, id: snapshot },
        ObjectName::Ack { snapshot, hash: object },
    ];
    names.extend([
        ObjectName::Lease { session: SessionId::from_bytes([3; 16]), hash: object },
        ObjectName::Tomb { time_ms: u64::MAX, hash: object },
        ObjectName::Receipt { sequence: 0, hash: object },
        ObjectName::Replica(object),
    ]);
    names
}

fn listed(store: &dyn Store, folder: Folder) -> Vec<(ObjectName, u64)> {
    let mut found = Vec::new();
    let listing = store
        .list(folder, &mut |name, bytes| {
            found.push((name, bytes));
            Ok(())
        })
        .unwrap();
    assert_eq!(listing.objects, found.len() as u64);
    found.sort_unstable();
    found.dedup();
    found
}

/// What every store promises. `store` is empty; `damage` puts bytes under a name as a broken
/// medium would.
fn contract(store: &dyn Store, damage: &dyn Fn(&ObjectName, &[u8])) {
    absent_objects(store);
    whole_and_ranged_reads(store);
    puts_are_write_once(store, damage);
    format_is_created_once(store);
    every_folder_lists_its_own(store);
    deletes_are_repeatable(store);
    equal_puts_at_once(store);
}

fn absent_objects(store: &dyn Store) {
    let name = pack(b"nowhere");
    for error in [
        store.get(&name, 10).unwrap_err(),
        store.get_range(&name, 0, 1).unwrap_err(),
        store.size(&name).unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::NotFound { .. }), "{error:?}");
        assert_eq!(error.class(), Class::Damage);
        assert!(error.to_string().contains(&name.to_string()), "{error}");
        assert!(error.to_string().contains(&store.location()), "{error}");
        assert!(!error.is_transient());
    }
    let error = store.get(&ObjectName::Format, 10).unwrap_err();
    assert_eq!(error.class(), Class::NoRepository);
    for folder in Folder::ALL {
        assert_eq!(listed(store, folder), []);
    }
}

fn whole_and_ranged_reads(store: &dyn Store) {
    let data: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    let name = pack(&data);
    let len = data.len() as u64;
    assert_eq!(store.put(&name, &data).unwrap(), Put::Written);
    assert_eq!(store.size(&name).unwrap(), len);
    assert_eq!(store.get(&name, len).unwrap(), data);
    let error = store.get(&name, len - 1).unwrap_err();
    assert!(
        matches!(error, StoreError::TooLarge { bytes_max, .. } if bytes_max == len - 1),
        "{error:?}"
    );
    assert_eq!(store.get_range(&name, 0, len).unwrap(), data);
    assert_eq!(store.get_range(&name, 1000, 251).unwrap(), data[1000..1251]);
    assert_eq!(store.get_range(&name, len - 1, 1).unwrap(), data[data.len() - 1..]);
    assert_eq!(store.get_range(&name, 5, 0).unwrap().len(), 0);
    assert_eq!(store.get_range(&name, len, 0).unwrap().len(), 0);
    for (offset, wanted, there) in
        [(0, len + 1, len), (len - 1, 2, 1), (len, 1, 0), (u64::MAX, 1, 0), (1, u64::MAX, len - 1)]
    {
        match store.get_range(&name, offset, wanted).unwrap_err() {
            StoreError::Short { available, .. } => assert_eq!(available, there),
            other => panic!("{other:?}"),
        }
    }
    let empty = pack(b"");
    assert_eq!(store.put(&empty, b"").unwrap(), Put::Written);
    assert_eq!(store.get(&empty, 0).unwrap().len(), 0);
    assert_eq!(store.size(&empty).unwrap(), 0);
}

fn puts_are_write_once(store: &dyn Store, damage: &dyn Fn(&ObjectName, &[u8])) {
    let data = b"the right bytes";
    let name = pack(data);
    assert_eq!(store.put(&name, data).unwrap(), Put::Written);
    assert_eq!(store.put(&name, data).unwrap(), Put::AlreadyThere);
    // Bytes that do not match the name never replace any.
    let error = store.put(&name, b"some wrong bytes").unwrap_err();
    assert!(matches!(error, StoreError::WrongName { .. }), "{error:?}");
    assert_eq!(store.get(&name, 100).unwrap(), &data[..]);
    // Damage of every shape is replaced by the right ones.
    for damaged in [&b"the right bytez"[..], b"the right", b"", b"the right bytes and more"] {
        damage(&name, damaged);
        assert_eq!(store.get(&name, 100).unwrap(), damaged);
        assert_eq!(store.put(&name, data).unwrap(), Put::Written);
        assert_eq!(store.get(&name, 100).unwrap(), &data[..]);
    }
}

fn format_is_created_once(store: &dyn Store) {
    let name = ObjectName::Format;
    assert_eq!(store.put(&name, b"first").unwrap(), Put::Written);
    assert_eq!(store.put(&name, b"first").unwrap(), Put::AlreadyThere);
    for other in [&b"other"[..], b"", b"first and more"] {
        let error = store.put(&name, other).unwrap_err();
        assert!(matches!(error, StoreError::Exists { .. }), "{error:?}");
        assert_eq!(error.class(), Class::Refused);
    }
    assert_eq!(store.get(&name, 5).unwrap(), &b"first"[..]);
}

fn every_folder_lists_its_own(store: &dyn Store) {
    let data = b"one of each";
    for name in one_of_each(data) {
        assert_eq!(store.put(&name, data).unwrap(), Put::Written);
    }
    for name in one_of_each(data) {
        let found = listed(store, name.folder().unwrap());
        assert!(found.contains(&(name, data.len() as u64)), "{name} in {found:?}");
        assert!(found.iter().all(|(other, _)| other.folder() == name.folder()));
    }
    let mut seen = 0;
    let error = store
        .list(Folder::DataPacks, &mut |name, _| {
            seen += 1;
            Err(StoreError::Stopped { place: super::error::Place::object("here", &name) })
        })
        .unwrap_err();
    assert!(matches!(error, StoreError::Stopped { .. }), "{error:?}");
    assert_eq!(seen, 1);
}

fn deletes_are_repeatable(store: &dyn Store) {
    let data = b"short-lived";
    let name = pack(data);
    store.delete(&name).unwrap();
    store.put(&name, data).unwrap();
    store.delete(&name).unwrap();
    assert!(matches!(store.get(&name, 100), Err(StoreError::NotFound { .. })));
    assert!(!listed(store, Folder::DataPacks).iter().any(|(other, _)| *other == name));
    store.delete(&name).unwrap();
    assert_eq!(store.put(&name, data).unwrap(), Put::Written);
}

fn equal_puts_at_once(store: &dyn Store) {
    let data = vec![42; 100_000];
    let name = pack(&data);
    std::thread::scope(|scope| {
        let puts: Vec<_> = (0..8).map(|_| scope.spawn(|| store.put(&name, &data))).collect();
        for put in puts {
            put.join().unwrap().unwrap();
        }
    });
    assert_eq!(store.get(&name, 100_000).unwrap(), data);
    assert_eq!(store.put(&name, &data).unwrap(), Put::AlreadyThere);
}

#[test]
fn memory_keeps_the_contract() {
    let store = MemoryStore::new();
    contract(&store, &|name, data| store.overwrite(*name, Bytes::copy_from_slice(data)));
}

#[test]
fn local_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::create(&folder.path().join("new/repository")).unwrap();
    contract(&store, &|name, data| {
        let path = folder.path().join("new/repository").join(name.to_string());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, data).unwrap();
    });
    let left_over = std::fs::read_dir(folder.path().join("new/repository/tmp")).unwrap().count();
    assert_eq!(left_over, 0);
}

#[test]
fn wrappers_keep_the_contract() {
    let memory = MemoryStore::new();
    let store = Arc::new(Guarded::new(
        RecordStore::new(FaultStore::new(memory.clone(), Plan::new())),
        Policy { calls_max: 2, ..Policy::default() },
    ));
    let damage = |name: &ObjectName, data: &[u8]| {
        memory.overwrite(*name, Bytes::copy_from_slice(data));
    };
    contract(&store, &damage);
    for name in memory.names() {
        memory.delete(&name).unwrap();
    }
    contract(&Patient::new(store, Patience::default()), &damage);
}

#[cfg(feature = "object-stores")]
mod objects {
    use super::super::object::ObjectStore;
    use super::super::options::TimeLimits;
    use super::*;

    #[test]
    fn opendal_memory_keeps_the_contract() {
        let operator = opendal::Operator::new(opendal::services::Memory::default()).unwrap();
        let store = ObjectStore::new(operator.clone(), "memory", TimeLimits::default());
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        contract(&store, &|name, data| {
            let path = name.to_string();
            runtime.block_on(operator.write(&path, data.to_vec())).unwrap();
        });
    }

    #[test]
    fn opendal_folder_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let unfinished = tempfile::tempdir_in(folder.path()).unwrap();
        // Without this opendal writes in place, and equal puts at once spoil one another.
        let service = opendal::services::Fs::default()
            .root(folder.path().to_str().unwrap())
            .atomic_write_dir(unfinished.path().to_str().unwrap());
        let operator = opendal::Operator::new(service).unwrap();
        let store = ObjectStore::new(operator, "folder", TimeLimits::default());
        contract(&store, &|name, data| {
            std::fs::write(folder.path().join(name.to_string()), data).unwrap();
        });
    }
}

/// Notes the pauses instead of making them.
#[derive(Debug, Default)]
struct Noted(Mutex<Vec<Duration>>);

impl Pacer for Noted {
    fn pause(&self, duration: Duration) {
        self.0.lock().push(duration);
    }

    fn random(&self) -> u64 {
        0
    }
}

const POLICY: Policy = Policy { attempts_max: 4, pause_ms: 100, pause_ms_max: 300, calls_max: 2 };

fn guarded(plan: Plan) -> (Guarded<FaultStore<MemoryStore>>, Arc<Noted>) {
    let noted = Arc::new(Noted::default());
    let pacer: Arc<dyn Pacer> = noted.clone();
    (Guarded::with_pacer(FaultStore::new(MemoryStore::new(), plan), POLICY, pacer), noted)
}

#[test]
fn transient_failures_are_retried_with_growing_pauses() {
    let plan = (0..3).fold(Plan::new(), |plan, call| plan.at(call, Fault::FailBefore));
    let (store, noted) = guarded(plan);
    assert_eq!(store.put(&pack(b"x"), b"x").unwrap(), Put::Written);
    assert_eq!(*noted.0.lock(), [100, 200, 300].map(Duration::from_millis));
    assert_eq!(store.inner().calls().len(), 4);
}

#[test]
fn retries_end() {
    let (store, noted) = guarded(Plan::new().every(CallKind::Get, Fault::FailBefore));
    let error = store.get(&pack(b"x"), 1).unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    assert_eq!(error.class(), Class::Unreachable);
    assert_eq!((store.inner().calls().len(), noted.0.lock().len()), (4, 3));
}

#[test]
fn final_failures_are_not_retried() {
    let (store, noted) = guarded(Plan::new().every(CallKind::Put, Fault::Full));
    assert!(matches!(store.put(&pack(b"x"), b"x"), Err(StoreError::Full { .. })));
    assert!(matches!(store.size(&pack(b"x")), Err(StoreError::NotFound { .. })));
    assert_eq!((store.inner().calls().len(), noted.0.lock().len()), (2, 0));
}

#[test]
fn a_put_whose_answer_was_lost_succeeds() {
    for name in [pack(b"x"), ObjectName::Format] {
        let (store, _) = guarded(Plan::new().at(0, Fault::FailAfter));
        assert_eq!(store.put(&name, b"x").unwrap(), Put::Written);
        assert_eq!(store.get(&name, 1).unwrap(), &b"x"[..]);
    }
    // The first put of `format` was carried out; what is there is ours, so no other's wins.
    let (store, _) = guarded(Plan::new().at(0, Fault::FailAfter));
    store.put(&ObjectName::Format, b"x").unwrap();
    assert!(matches!(store.put(&ObjectName::Format, b"y"), Err(StoreError::Exists { .. })));
}

#[test]
fn a_torn_put_is_found_by_the_next_and_replaced() {
    let (store, _) = guarded(Plan::new().at(0, Fault::TornPut { bytes: 2 }));
    let name = pack(b"whole");
    assert_eq!(store.put(&name, b"whole").unwrap(), Put::Written);
    assert_eq!(store.size(&name).unwrap(), 2);
    assert_eq!(store.put(&name, b"whole").unwrap(), Put::Written);
    assert_eq!(store.get(&name, 5).unwrap(), &b"whole"[..]);
}

#[test]
fn a_listing_ended_by_its_caller_is_not_begun_again() {
    let (store, noted) = guarded(Plan::new());
    store.put(&pack(b"x"), b"x").unwrap();
    let mut seen = 0;
    let result = store.list(Folder::DataPacks, &mut |name, _| {
        seen += 1;
        Err(StoreError::Timeout {
            place: super::error::Place::object("elsewhere", &name),
            after: Duration::from_secs(1),
        })
    });
    assert!(matches!(result, Err(StoreError::Timeout { .. })));
    assert_eq!((seen, noted.0.lock().len()), (1, 0));
    // One that failed by itself is, and everything comes (again).
    let (store, noted) = guarded(Plan::new().nth(CallKind::List, 0, Fault::FailAfter));
    store.put(&pack(b"x"), b"x").unwrap();
    let mut seen = 0;
    let listing = store.list(Folder::DataPacks, &mut |_, _| {
        seen += 1;
        Ok(())
    });
    assert_eq!((listing.unwrap().objects, seen, noted.0.lock().len()), (1, 2, 1));
}

#[test]
fn pauses_stay_between_half_and_whole() {
    for (attempt, whole) in [(0, 100), (1, 200), (2, 300), (63, 300), (64, 300), (u32::MAX, 300)] {
        for random in [0, 1, 49, 50, 149, 150, 12_345, u64::MAX] {
            let pause = POLICY.pause(attempt, random).as_millis();
            assert!((whole / 2..=whole).contains(&pause), "{attempt} {random} {pause}");
        }
    }
}

/// Notes how many callers are inside at once.
#[derive(Debug)]
struct Crowd {
    inner: MemoryStore,
    inside: Mutex<(usize, usize)>,
}

impl Store for Crowd {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        {
            let mut inside = self.inside.lock();
            inside.0 += 1;
            inside.1 = inside.1.max(inside.0);
        }
        std::thread::yield_now();
        std::thread::sleep(Duration::from_millis(1));
        self.inside.lock().0 -= 1;
        self.inner.get(name, bytes_max)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        self.inner.get_range(name, offset, len)
    }
    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        self.inner.put(name, data)
    }
    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.inner.size(name)
    }
    fn list(&self, folder: Folder, each: super::Each<'_>) -> Result<super::Listing, StoreError> {
        self.inner.list(folder, each)
    }
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

#[test]
fn no_more_callers_than_allowed_are_inside() {
    let crowd = Crowd { inner: MemoryStore::new(), inside: Mutex::default() };
    let store = Guarded::new(crowd, POLICY);
    let name = pack(b"x");
    store.put(&name, b"x").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| (0..5).for_each(|_| drop(store.get(&name, 1).unwrap())));
        }
    });
    let (inside, most) = *store.inner().inside.lock();
    assert_eq!(inside, 0);
    assert!((1..=2).contains(&most), "{most}");
    // A listing may call the store it lists, however few are allowed.
    let store = Guarded::new(MemoryStore::new(), Policy { calls_max: 0, ..POLICY });
    store.put(&name, b"x").unwrap();
    let listing = store.list(Folder::DataPacks, &mut |name, _| store.get(&name, 1).map(drop));
    assert_eq!(listing.unwrap().objects, 1);
}

#[test]
fn after_a_crash_every_call_fails_and_the_medium_keeps_what_it_had() {
    let memory = MemoryStore::new();
    let plan = Plan::new().nth(CallKind::Put, 1, Fault::CrashAfter);
    let store = FaultStore::new(memory.clone(), plan);
    store.put(&pack(b"one"), b"one").unwrap();
    assert!(matches!(store.put(&pack(b"two"), b"two"), Err(StoreError::Crashed { call: 1, .. })));
    assert!(store.crashed());
    assert!(matches!(store.put(&pack(b"3"), b"3"), Err(StoreError::Crashed { call: 2, .. })));
    assert!(matches!(store.get(&pack(b"one"), 3), Err(StoreError::Crashed { .. })));
    assert!(matches!(
        store.list(Folder::Index, &mut |_, _| Ok(())),
        Err(StoreError::Crashed { .. })
    ));
    let mut names = [pack(b"one"), pack(b"two")];
    names.sort_unstable();
    assert_eq!(memory.names(), names);
    assert_eq!(store.calls().len(), 5);
}

#[test]
fn lies_of_the_medium_are_as_planned() {
    let plan = Plan::new()
        .nth(CallKind::Put, 0, Fault::LostPut)
        .nth(CallKind::Get, 0, Fault::FlipBit { bit: 9 })
        .nth(CallKind::Delete, 0, Fault::LostDelete)
        .at(4, Fault::Crash);
    let store = FaultStore::new(MemoryStore::new(), plan);
    assert_eq!(store.put(&pack(b"ab"), b"ab").unwrap(), Put::Written);
    assert!(store.inner().names().is_empty());
    store.put(&pack(b"ab"), b"ab").unwrap();
    assert_eq!(store.get(&pack(b"ab"), 2).unwrap(), &b"a`"[..]);
    store.delete(&pack(b"ab")).unwrap();
    assert_eq!(store.inner().names(), [pack(b"ab")]);
    assert!(matches!(store.delete(&pack(b"ab")), Err(StoreError::Crashed { call: 4, .. })));
    assert_eq!(store.inner().names(), [pack(b"ab")]);
}

#[test]
fn calls_and_bytes_are_counted() {
    let store = RecordStore::new(MemoryStore::new());
    let name = pack(b"four");
    store.put(&name, b"four").unwrap();
    store.get(&name, 4).unwrap();
    store.get_range(&name, 1, 2).unwrap();
    store.get(&name, 3).unwrap_err();
    store.size(&name).unwrap();
    store.list(Folder::DataPacks, &mut |_, _| Ok(())).unwrap();
    store.delete(&name).unwrap();
    let tallies = store.take();
    assert_eq!((tallies.put.calls, tallies.put.bytes), (1, 4));
    assert_eq!((tallies.get.calls, tallies.get.failed, tallies.get.bytes), (2, 1, 4));
    assert_eq!((tallies.get_range.calls, tallies.get_range.bytes), (1, 2));
    assert_eq!(tallies.calls(), 7);
    assert_eq!(store.tallies().calls(), 0);
}

/// A store that has something to say to everything.
#[derive(Debug)]
struct Telling(MemoryStore);

impl Store for Telling {
    fn location(&self) -> String {
        "telling".to_owned()
    }
    fn is_near(&self) -> bool {
        true
    }
    fn traffic(&self) -> Option<Traffic> {
        Some(Traffic::default())
    }
    fn probe(&self) -> Result<Option<Profile>, StoreError> {
        Ok(Some(Profile::default()))
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
    fn list(&self, folder: Folder, each: super::Each<'_>) -> Result<super::Listing, StoreError> {
        self.0.list(folder, each)
    }
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.0.delete(name)
    }
    fn kept(&self, _: Folder, each: &mut dyn FnMut(ObjectName)) -> Result<Keeping, StoreError> {
        each(ObjectName::Format);
        Ok(Keeping::Shown)
    }
    fn purge(&self, _: Folder, may_go: &dyn Fn(&ObjectName) -> bool) -> Result<Purged, StoreError> {
        Ok(Purged { removed: u64::from(may_go(&ObjectName::Format)), ..Purged::default() })
    }
    fn kept_for(&self) -> Result<KeptFor, StoreError> {
        Ok(KeptFor::Versions)
    }
    fn locked(&self, _: &ObjectName) -> Result<Locked, StoreError> {
        Ok(Locked::Until(1))
    }
    fn lock(&self, _: &ObjectName, _: i64, _: LockMode) -> Result<(), StoreError> {
        Ok(())
    }
    fn unfinished(&self, each: &mut dyn FnMut(&str, u64)) -> Result<(), StoreError> {
        each("unfinished", 2);
        Ok(())
    }
    fn now_ms(&self) -> Result<Option<i64>, StoreError> {
        Ok(Some(3))
    }
    fn taken_ms(&self, _: &ObjectName) -> Result<Option<i64>, StoreError> {
        Ok(Some(4))
    }
    fn sweep(&self, is_dead: &dyn Fn(&str) -> bool) -> Result<u64, StoreError> {
        Ok(u64::from(is_dead("unfinished")))
    }
}

/// What a store says besides what objects it has.
fn said(store: &dyn Store) -> String {
    let name = ObjectName::Format;
    let (mut kept, mut unfinished) = (Vec::new(), Vec::new());
    let keeping = store.kept(Folder::Acks, &mut |name| kept.push(name)).unwrap();
    store.unfinished(&mut |name, bytes| unfinished.push((name.to_owned(), bytes))).unwrap();
    format!(
        "{} {} {} {:?} {keeping:?} {kept:?} {:?} {:?} {:?} {:?} {unfinished:?} {:?} {:?} {:?}",
        store.location(),
        store.is_near(),
        store.traffic().is_some(),
        store.probe().unwrap(),
        store.purge(Folder::Acks, &|_| true).unwrap(),
        store.kept_for().unwrap(),
        store.locked(&name).ok(),
        store.lock(&name, 0, LockMode::Governance).is_ok(),
        store.now_ms().unwrap(),
        store.taken_ms(&name).unwrap(),
        store.sweep(&|_| true).unwrap(),
    )
}

#[test]
fn wrappers_pass_on_whatever_the_store_inside_says() {
    let telling = || Telling(MemoryStore::new());
    let truth = said(&telling());
    assert_ne!(truth, said(&MemoryStore::new()));
    assert_eq!(said(&FaultStore::new(telling(), Plan::new())), truth);
    assert_eq!(said(&RecordStore::new(telling())), truth);
    assert_eq!(said(&Guarded::new(telling(), POLICY)), truth);
    assert_eq!(said(&Ahead::of(&telling(), &[Folder::Acks])), truth);
    assert_eq!(said(&Arc::new(telling())), truth);
    let boxed: Box<dyn Store> = Box::new(telling());
    assert_eq!(said(&boxed), truth);
}
