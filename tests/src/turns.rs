//! Lets actors share a service call by call, in an order that follows from a seed: at each call the
//! turn goes to another actor or stays. What an actor does between calls is its own.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::store::error::Place;
use cairn_engine::store::lock::KeptFor;
use cairn_engine::store::{Each, Keeping, Listing, Purged, Put, Store, StoreError};
use cairn_format::names::{Folder, ObjectName};
use parking_lot::{Condvar, Mutex};

use crate::seed::Seed;
use crate::service::{Change, Line};

/// One in so many turns puts an actor to sleep for a while.
const SLEEP_ONE_IN: u64 = 40;
/// Calls of others during which it sleeps, at most.
const SLEEP_CALLS_MAX: u64 = 60;

/// When an actor's process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// The call, counted from 0 over the actor's calls.
    pub call: u64,
    /// Whether that call is carried out.
    pub after: bool,
}

#[derive(Debug, Default)]
struct Actor {
    finished: bool,
    calls: u64,
    crash: Option<Crash>,
    dead: bool,
    sleeps_until: u64,
}

struct State {
    seed: Seed,
    actors: Vec<Actor>,
    current: usize,
    busy: bool,
    calls: u64,
    /// How many of four turns stay where they are.
    stay: u64,
    /// Every call so far.
    trace: String,
}

/// Hands out turns.
pub struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turns")
    }
}

/// What an actor is told when its turn comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Go,
    Die(u64),
    GoAndDie(u64),
    /// It died before.
    Dead(u64),
}

impl Turns {
    /// Turns for so many actors.
    #[must_use]
    pub fn new(seed: u64, actors: usize) -> Arc<Self> {
        let mut seed = Seed::of(seed);
        let current = usize::try_from(seed.below(actors.max(1) as u64)).unwrap_or_default();
        let stay = seed.below(4);
        let actors = (0..actors).map(|_| Actor::default()).collect();
        let trace = String::new();
        let state = State { seed, actors, current, busy: false, calls: 0, stay, trace };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Lets an actor die at a call of its own.
    pub fn crash(&self, actor: usize, crash: Crash) {
        if let Some(actor) = self.state.lock().actors.get_mut(actor) {
            actor.crash = Some(crash);
        }
    }

    /// The actor lives again, as another process. True when it had died.
    pub fn restart(&self, actor: usize) -> bool {
        let mut state = self.state.lock();
        state.actors.get_mut(actor).is_some_and(|actor| {
            actor.crash = None;
            std::mem::take(&mut actor.dead)
        })
    }

    /// Calls made by an actor so far.
    #[must_use]
    pub fn calls(&self, actor: usize) -> u64 {
        self.state.lock().actors.get(actor).map_or(0, |actor| actor.calls)
    }

    /// Every call so far, one in a line, for whoever looks into a violation.
    #[must_use]
    pub fn trace(&self) -> String {
        self.state.lock().trace.clone()
    }

    fn note(&self, line: &str) {
        let trace = &mut self.state.lock().trace;
        trace.push_str(line);
        trace.push('\n');
    }

    /// The actor makes no more calls.
    pub fn finish(&self, actor: usize) {
        let mut state = self.state.lock();
        if let Some(own) = state.actors.get_mut(actor) {
            own.finished = true;
        }
        if state.current == actor {
            state.next();
        }
        self.changed.notify_all();
    }

    fn enter(&self, actor: usize) -> Order {
        let mut state = self.state.lock();
        while state.current != actor || state.busy {
            self.changed.wait(&mut state);
        }
        state.busy = true;
        state.calls += 1;
        let Some(own) = state.actors.get_mut(actor) else { return Order::Go };
        let call = own.calls;
        own.calls += 1;
        if own.dead {
            return Order::Dead(call);
        }
        match own.crash {
            Some(crash) if crash.call == call => {
                own.dead = true;
                if crash.after { Order::GoAndDie(call) } else { Order::Die(call) }
            }
            _ => Order::Go,
        }
    }

    fn leave(&self) {
        let mut state = self.state.lock();
        state.busy = false;
        state.next();
        self.changed.notify_all();
    }
}

impl State {
    fn next(&mut self) {
        let calls = self.calls;
        let stays = self.actors.get(self.current).is_some_and(|actor| !actor.finished);
        if stays && self.seed.below(4) < self.stay {
            return;
        }
        if self.seed.below(SLEEP_ONE_IN) == 0 {
            let until = calls + self.seed.below(SLEEP_CALLS_MAX);
            if let Some(actor) = self.actors.get_mut(self.current) {
                actor.sleeps_until = until;
            }
        }
        let mut able = Vec::new();
        let mut asleep = Vec::new();
        for (number, actor) in self.actors.iter().enumerate().filter(|(_, a)| !a.finished) {
            if actor.sleeps_until > calls { asleep.push(number) } else { able.push(number) }
        }
        let among = if able.is_empty() { asleep } else { able };
        if !among.is_empty() {
            let index = usize::try_from(self.seed.below(among.len() as u64)).unwrap_or_default();
            self.current = among.get(index).copied().unwrap_or_default();
        }
    }
}

/// Is told of every call that changed what is there, while nobody else has the turn.
pub type Watch = dyn Fn(&ObjectName, &Change, Whose) + Send + Sync;

/// Whose call it was that changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Of the actor whose turn it is.
    Own,
    /// A call of some actor that is carried out only now.
    Late,
}

/// One actor's way to the store.
#[derive(Clone)]
pub struct TurnStore {
    /// Its way to the service that all share.
    pub line: Line,
    /// Who has the turn.
    pub turns: Arc<Turns>,
    /// This actor.
    pub actor: usize,
    /// Looks at the store after each change.
    pub watch: Arc<Watch>,
}

impl fmt::Debug for TurnStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TurnStore({})", self.actor)
    }
}

/// What a call would change.
type Changing<'a> = Option<(&'a ObjectName, Change)>;

impl TurnStore {
    /// Does something while nobody else has the turn. False when the actor is dead.
    pub fn between(&self, what: &str, act: impl FnOnce()) -> bool {
        let done = self.turn(format_args!("{what}"), None, || {
            act();
            Ok(())
        });
        done.is_ok()
    }

    fn turn<T>(
        &self,
        what: fmt::Arguments<'_>,
        changing: Changing<'_>,
        call: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let order = self.turns.enter(self.actor);
        for (name, change) in self.line.service().catch_up() {
            self.turns.note(&format!("late: {change} of {name}"));
            (self.watch)(&name, &change, Whose::Late);
        }
        let outcome = match order {
            Order::Dead(number) => Err(crashed(number)),
            Order::Die(number) => {
                if let Some((name, Change::Put(data))) = &changing {
                    self.line.service().die_putting(name, data);
                }
                Err(crashed(number))
            }
            Order::Go | Order::GoAndDie(_) => {
                let outcome = call();
                // Also of one that failed: it may have been carried out.
                if let Some((name, change)) = &changing {
                    (self.watch)(name, change, Whose::Own);
                }
                match order {
                    Order::GoAndDie(number) => Err(crashed(number)),
                    _ => outcome,
                }
            }
        };
        let failed = outcome.as_ref().err().map(|error| format!(": {error}")).unwrap_or_default();
        let place = self.line.location();
        self.turns.note(&format!("actor {} {order:?} {place}: {what}{failed}", self.actor));
        self.turns.leave();
        outcome
    }
}

fn crashed(call: u64) -> StoreError {
    StoreError::Crashed { place: Place::object("memory", &ObjectName::Format), call }
}

impl Store for TurnStore {
    fn location(&self) -> String {
        self.line.location()
    }

    fn is_near(&self) -> bool {
        self.line.is_near()
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.turn(format_args!("get {name}"), None, || self.line.get(name, bytes_max))
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        self.turn(format_args!("get_range {name} {offset}+{len}"), None, || {
            self.line.get_range(name, offset, len)
        })
    }

    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        let change = Change::Put(Bytes::copy_from_slice(data));
        self.turn(format_args!("put {name}"), Some((name, change)), || self.line.put(name, data))
    }

    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.turn(format_args!("size {name}"), None, || self.line.size(name))
    }

    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        self.turn(format_args!("list {folder:?}"), None, || self.line.list(folder, each))
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.turn(format_args!("delete {name}"), Some((name, Change::Delete)), || {
            self.line.delete(name)
        })
    }
    /// Takes a turn where something is kept that can be shown.
    fn kept(
        &self,
        folder: Folder,
        each: &mut dyn FnMut(ObjectName),
    ) -> Result<Keeping, StoreError> {
        if !self.line.service().profile().shows_versions() {
            return self.line.kept(folder, each);
        }
        self.turn(format_args!("kept {folder:?}"), None, || self.line.kept(folder, each))
    }

    fn purge(
        &self,
        folder: Folder,
        may_go: &dyn Fn(&ObjectName) -> bool,
    ) -> Result<Purged, StoreError> {
        if !self.line.service().profile().shows_versions() {
            return self.line.purge(folder, may_go);
        }
        self.turn(format_args!("purge {folder:?}"), None, || {
            // Just before each purge, when all has been decided, somebody deletes something.
            let stolen = self.line.service().steal(folder);
            let mut gone = BTreeSet::new();
            let outcome = self.line.purge_and_show(folder, may_go, &mut |name| {
                gone.insert(*name);
            });
            let mut told = |name: &ObjectName| (self.watch)(name, &Change::Purge, Whose::Own);
            if let Some(stolen) = stolen {
                // Whatever else went is looked at with what was stolen in its place.
                gone.take(stolen.name()).iter().for_each(&mut told);
                self.line.service().give_back(stolen);
            }
            gone.iter().for_each(told);
            outcome
        })
    }

    fn kept_for(&self) -> Result<KeptFor, StoreError> {
        self.line.kept_for()
    }
}
