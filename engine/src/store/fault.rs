//! Test kit: a store that fails as planned. Every call is numbered, so that a test can let an
//! operation fail, or its process die, at each call in turn.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cairn_format::names::{Folder, ObjectName};
use parking_lot::Mutex;

use super::error::Place;
use super::record::CallKind;
use super::{Each, Listing, Put, Store, StoreError};

/// What goes wrong. What does not suit a call (a bit flip in a put, say) leaves it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails as unreachable, without effect.
    FailBefore,
    /// The call is carried out, and its answer is lost: it fails as unreachable.
    FailAfter,
    /// A put fails for want of space, without effect.
    Full,
    /// The process dies before the call: it and all later ones fail with
    /// [`StoreError::Crashed`].
    Crash,
    /// The call is carried out, and the process dies before it learns of that.
    CrashAfter,
    /// A put claims success, and only this many bytes of the object are there.
    TornPut {
        /// Bytes kept; at most the object's length.
        bytes: u64,
    },
    /// A put claims success, and nothing is there.
    LostPut,
    /// A deletion claims success, and the object is there still.
    LostDelete,
    /// What a get or ranged get returns differs in one bit.
    FlipBit {
        /// Which bit; taken modulo the number of bits returned.
        bit: u64,
    },
}

/// When a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// The call of this number, counted from 0 over all kinds.
    Call(u64),
    /// The call of this number among those of one kind, counted from 0.
    Nth(CallKind, u64),
    /// Every call of a kind.
    Every(CallKind),
}

/// Which calls go wrong, and how. The first rule that suits a call decides.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    rules: Vec<(When, Fault)>,
}

impl Plan {
    /// Nothing goes wrong.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault at a call, counted from 0 over all kinds.
    #[must_use]
    pub fn at(mut self, call: u64, fault: Fault) -> Self {
        self.rules.push((When::Call(call), fault));
        self
    }

    /// Adds a fault at the `nth` call of a kind, counted from 0.
    #[must_use]
    pub fn nth(mut self, kind: CallKind, nth: u64, fault: Fault) -> Self {
        self.rules.push((When::Nth(kind, nth), fault));
        self
    }

    /// Adds a fault at every call of a kind.
    #[must_use]
    pub fn every(mut self, kind: CallKind, fault: Fault) -> Self {
        self.rules.push((When::Every(kind), fault));
        self
    }
}

/// One call that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its kind.
    pub kind: CallKind,
    /// The object, or `None` for a listing.
    pub name: Option<ObjectName>,
    /// The fault that struck it.
    pub fault: Option<Fault>,
}

#[derive(Debug, Default)]
struct State {
    plan: Plan,
    calls: Vec<Call>,
    calls_of: BTreeMap<CallKind, u64>,
    crashed: bool,
}

/// A store whose calls fail as planned. Clones share the plan and the count: they are handles
/// of one process.
#[derive(Clone, Debug)]
pub struct FaultStore<S> {
    inner: S,
    state: Arc<Mutex<State>>,
}

/// What a call is to do.
enum Course {
    Run,
    Struck(Fault),
}

impl<S: Store> FaultStore<S> {
    /// Lets calls to `inner` fail as planned.
    #[must_use]
    pub fn new(inner: S, plan: Plan) -> Self {
        Self { inner, state: Arc::new(Mutex::new(State { plan, ..State::default() })) }
    }

    /// The store inside, which no fault strikes.
    #[must_use]
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// The calls made so far, in order of their numbers.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state.lock().calls.clone()
    }

    /// Lets later calls fail as another plan says. Numbers of calls go on.
    pub fn set_plan(&self, plan: Plan) {
        self.state.lock().plan = plan;
    }

    /// Whether the simulated process is dead.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.state.lock().crashed
    }

    /// Numbers the call and tells what happens to it.
    fn enter(&self, kind: CallKind, name: Option<ObjectName>, place: Place) -> Entered {
        let mut state = self.state.lock();
        let number = state.calls.len() as u64;
        let of_kind = state.calls_of.entry(kind).or_default();
        let nth = *of_kind;
        *of_kind += 1;
        let rule = state.plan.rules.iter().find(|(when, _)| match *when {
            When::Call(call) => call == number,
            When::Nth(of, call) => of == kind && call == nth,
            When::Every(of) => of == kind,
        });
        let fault = rule.map(|(_, fault)| *fault);
        state.calls.push(Call { kind, name, fault });
        let course = if state.crashed {
            Course::Struck(Fault::Crash)
        } else {
            fault.map_or(Course::Run, Course::Struck)
        };
        if matches!(course, Course::Struck(Fault::Crash | Fault::CrashAfter)) {
            state.crashed = true;
        }
        Entered { number, place, course }
    }

    fn on_object(&self, kind: CallKind, name: &ObjectName) -> Entered {
        self.enter(kind, Some(*name), Place::object(self.inner.location(), name))
    }
}

/// A numbered call.
struct Entered {
    number: u64,
    place: Place,
    course: Course,
}

impl Entered {
    fn unreachable(self) -> StoreError {
        StoreError::Unreachable {
            place: self.place,
            source: format!("simulated failure of call {}", self.number).into(),
        }
    }

    fn crashed(self) -> StoreError {
        StoreError::Crashed { place: self.place, call: self.number }
    }

    /// Carries the call out, or not, by the faults that suit every kind.
    fn run<T>(self, call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.course {
            Course::Struck(Fault::FailBefore) => Err(self.unreachable()),
            Course::Struck(Fault::FailAfter) => {
                call()?;
                Err(self.unreachable())
            }
            Course::Struck(Fault::Crash) => Err(self.crashed()),
            Course::Struck(Fault::CrashAfter) => {
                // How it went is what a dead process does not learn.
                let _unknown = call();
                Err(self.crashed())
            }
            Course::Run
            | Course::Struck(
                Fault::Full
                | Fault::TornPut { .. }
                | Fault::LostPut
                | Fault::LostDelete
                | Fault::FlipBit { .. },
            ) => call(),
        }
    }

    fn read(self, call: impl FnOnce() -> Result<Bytes, StoreError>) -> Result<Bytes, StoreError> {
        let flip = match self.course {
            Course::Struck(Fault::FlipBit { bit }) => Some(bit),
            _ => None,
        };
        let data = self.run(call)?;
        match flip {
            Some(bit) if !data.is_empty() => {
                let mut data = Vec::from(data);
                let bit = bit % (data.len() as u64 * 8);
                if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| data.get_mut(at)) {
                    *byte ^= 1 << (bit % 8);
                }
                Ok(data.into())
            }
            _ => Ok(data),
        }
    }
}

impl<S: Store> Store for FaultStore<S> {
    crate::forward_to_store!(self => self.inner);

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.on_object(CallKind::Get, name).read(|| self.inner.get(name, bytes_max))
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        self.on_object(CallKind::GetRange, name).read(|| self.inner.get_range(name, offset, len))
    }

    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        let entered = self.on_object(CallKind::Put, name);
        match entered.course {
            Course::Struck(Fault::Full) => Err(StoreError::Full {
                place: entered.place,
                source: format!("simulated failure of call {}", entered.number).into(),
            }),
            Course::Struck(Fault::LostPut) => Ok(Put::Written),
            Course::Struck(Fault::TornPut { bytes }) => {
                let kept = usize::try_from(bytes).unwrap_or(usize::MAX).min(data.len());
                self.inner.put(name, data.get(..kept).unwrap_or_default())
            }
            _ => entered.run(|| self.inner.put(name, data)),
        }
    }

    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.on_object(CallKind::Size, name).run(|| self.inner.size(name))
    }

    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        self.enter(CallKind::List, None, Place::folder(self.inner.location(), folder))
            .run(|| self.inner.list(folder, each))
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let entered = self.on_object(CallKind::Delete, name);
        match entered.course {
            Course::Struck(Fault::LostDelete) => Ok(()),
            _ => entered.run(|| self.inner.delete(name)),
        }
    }
}
