//! Replicas whose places do not answer: they are given up, and nobody else waits for them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_engine::error::{Class, Explain as _};
use cairn_engine::ops::replicate::{Opener, Target};
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::patient::Patience;
use cairn_engine::store::{Each, Listing, Put, Store, StoreError};
use cairn_format::names::{Folder, ObjectName};
use parking_lot::{Condvar, Mutex};

use super::{Home, only, target};

/// Long enough for nobody to wait for it; ends a test that waits after all.
pub(super) const HANGS: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Calls {
    made: u64,
    /// From this one on none is answered.
    hang_from: Option<u64>,
    /// Only packs that are put count.
    packs_only: bool,
}

/// A store that does not answer from some call on, until it is let go.
#[derive(Clone, Debug, Default)]
pub(super) struct Hanging {
    pub(super) inner: MemoryStore,
    calls: Arc<(Mutex<Calls>, Condvar)>,
}

impl Hanging {
    pub(super) fn from(call: u64) -> Self {
        let hanging = Self::default();
        hanging.calls.0.lock().hang_from = Some(call);
        hanging
    }

    /// Holds every pack that is put to what is there already.
    pub(super) fn at_packs(inner: &MemoryStore) -> Self {
        let hanging = Self { inner: inner.clone(), ..Self::default() };
        *hanging.calls.0.lock() = Calls { made: 0, hang_from: Some(0), packs_only: true };
        hanging
    }

    /// Answers no call from this one on, of those to come.
    pub(super) fn hang(&self, call: u64) {
        let mut calls = self.calls.0.lock();
        calls.hang_from = Some(calls.made + call);
    }

    pub(super) fn made(&self) -> u64 {
        self.calls.0.lock().made
    }

    pub(super) fn let_go(&self) {
        self.calls.0.lock().hang_from = None;
        self.calls.1.notify_all();
    }

    fn enter(&self) {
        self.enter_with(false);
    }

    fn enter_with(&self, pack: bool) {
        let (calls, let_go) = &*self.calls;
        let mut calls = calls.lock();
        if calls.packs_only && !pack {
            return;
        }
        let number = calls.made;
        calls.made += 1;
        let hangs = |calls: &mut Calls| calls.hang_from.is_some_and(|from| number >= from);
        if let_go.wait_while_for(&mut calls, hangs, HANGS).timed_out() {
            calls.hang_from = None;
        }
    }
}

impl Store for Hanging {
    fn location(&self) -> String {
        "a place that hangs".to_owned()
    }
    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.enter();
        self.inner.get(name, bytes_max)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        self.enter();
        self.inner.get_range(name, offset, len)
    }
    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        self.enter_with(matches!(name, ObjectName::Pack(..)));
        self.inner.put(name, data)
    }
    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.enter();
        self.inner.size(name)
    }
    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        self.enter();
        self.inner.list(folder, each)
    }
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.enter();
        self.inner.delete(name)
    }
}

/// Gives up soon.
pub(super) const SOON: Patience = Patience { stall_ms: 700, bytes_per_s_min: 1 << 40 };

#[test]
fn a_replica_that_hangs_is_given_up_at_whatever_call_it_does() {
    let mut home = Home::new(31);
    let wanted = [1, 2].map(|change| home.back_up(change).id).into_iter().collect();
    let whole = Hanging::default();
    home.replicate_to(&whole);
    let calls = whole.made();
    assert!(calls > 20, "{calls} calls are too few to choose from");
    for part in 0..10 {
        let hanging = Hanging::from(calls * part / 10);
        let good = MemoryStore::new();
        let patient =
            Target { name: "hanging".to_owned(), patience: Some(SOON), ..target(&hanging) };
        let report = home.replicate(&[patient, target(&good)]);
        let [hung, other] = report.replicas.try_into().expect("two replicas");
        let error = hung.done.expect_err("nobody waited for it");
        assert_eq!((error.code(), error.class()), ("store.given_up", Class::Unreachable));
        let copied = other.done.expect("the other one").copied;
        assert_eq!(copied.into_iter().collect::<BTreeSet<_>>(), wanted);
        // What was left behind is carried out late, beside what comes next.
        hanging.let_go();
        only(home.replicate(&[target(&hanging)])).expect("it is back");
        home.assert_holds(&hanging.inner, &wanted);
        if part == 0 {
            home.assert_holds(&good, &wanted);
        }
    }
}

#[test]
fn a_place_that_cannot_even_be_opened_is_given_up() {
    let mut home = Home::new(32);
    home.back_up(1);
    let hanging = Hanging::from(0);
    let opened = hanging.clone();
    let open = Opener::new(move || {
        opened.enter();
        Ok(Arc::new(opened.clone()))
    });
    let patient = Target { patience: Some(SOON), ..Target::at("far away", open) };
    let error = only(home.replicate(&[patient])).expect_err("nobody waited for it");
    assert_eq!(error.code(), "store.given_up");
    assert!(error.to_string().starts_with("far away "), "{error}");
    hanging.let_go();
}
