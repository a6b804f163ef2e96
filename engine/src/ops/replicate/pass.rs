//! Packs of a backup on their way to replicas while it runs: home is written and read once.
//!
//! What is put here is what a replication that died has put: packs that no segment names, which the
//! replication after the backup finds, names, and relies on, or finds condemned and copies. Nothing
//! else is written but a lease, so nothing is visible on a replica before all of it is there, and
//! whatever is not brought here, is brought then. So a replica that cannot keep up loses nothing but
//! its head start: packs are passed over where its queue is full, and nobody waits for it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cairn_format::ids::SessionId;
use cairn_format::names::ObjectName;
use cairn_format::segment::PackSection;
use parking_lot::{Condvar, Mutex};

use super::join::join;
use super::memory::Memory;
use super::{Opener, ReplicateReport, Target, run};
use crate::collect::lease::HeldLease;
use crate::error::Error;
use crate::ops::backup::{self, BackupOptions, BackupReport};
use crate::pipeline::upload::PackTap;
use crate::repo::Repository;
use crate::store::patient::{GivingUp, Patience};
use crate::store::{Put, Store};

/// Packs that wait for one replica, bytes; a single one may be larger.
const WAITING_BYTES_MAX: u64 = 32 << 20;
/// Packs that wait for replicas or are on their way, bytes, each counted once. Beyond that a replica gets
/// one only when it has none: beside one that hangs the others get one at a time.
const PASSED_BYTES_MAX: u64 = 64 << 20;

/// Bytes of packs that are held.
type Held = Arc<AtomicU64>;

/// A pack that is durable at home.
struct Passed {
    section: PackSection,
    bytes: Bytes,
    held: Held,
}

impl Passed {
    fn new(section: &PackSection, bytes: &Bytes, held: &Held) -> Self {
        held.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Self { section: section.clone(), bytes: bytes.clone(), held: Arc::clone(held) }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes.len() as u64, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Arc<Passed>>,
    bytes: u64,
    /// One is on its way.
    busy: bool,
    /// Nothing comes any more.
    closed: bool,
    /// Nothing is taken any more.
    left: bool,
}

/// What waits for one replica.
#[derive(Default)]
struct Line {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Line {
    /// Whether one of so many bytes may wait; `fits` unless packs take too much memory already.
    fn has_room(&self, bytes: u64, fits: bool) -> bool {
        let queue = self.queue.lock();
        let nothing_waits = queue.waiting.is_empty();
        let few = nothing_waits || queue.bytes.saturating_add(bytes) <= WAITING_BYTES_MAX;
        !queue.left && if fits { few } else { nothing_waits && !queue.busy }
    }

    fn add(&self, pack: &Arc<Passed>) {
        let mut queue = self.queue.lock();
        if !queue.left {
            queue.bytes = queue.bytes.saturating_add(pack.bytes.len() as u64);
            queue.waiting.push_back(Arc::clone(pack));
        }
        self.changed.notify_all();
    }

    fn close(&self) {
        self.queue.lock().closed = true;
        self.changed.notify_all();
    }

    /// Nothing is taken any more: what waits is let go.
    fn leave(&self) {
        let mut queue = self.queue.lock();
        *queue = Queue { left: true, ..Queue::default() };
    }

    /// Waits for the next one; `None` when nothing comes any more.
    fn next(&self) -> Option<Arc<Passed>> {
        let mut queue = self.queue.lock();
        queue.busy = false;
        loop {
            if let Some(pack) = queue.waiting.pop_front() {
                queue.bytes = queue.bytes.saturating_sub(pack.bytes.len() as u64);
                queue.busy = true;
                return Some(pack);
            }
            if queue.closed {
                return None;
            }
            self.changed.wait(&mut queue);
        }
    }
}

/// Shows packs to all lines that have room.
struct Lines {
    lines: Vec<Line>,
    held: Held,
    /// Two packs that become durable at once are shown one after the other.
    showing: Mutex<()>,
}

impl Lines {
    fn new(count: usize) -> Self {
        let lines = std::iter::repeat_with(Line::default).take(count).collect();
        Self { lines, held: Held::default(), showing: Mutex::default() }
    }
}

impl PackTap for Lines {
    fn show(&self, section: &PackSection, bytes: &Bytes) {
        let _showing = self.showing.lock();
        let (held, length) = (self.held.load(Ordering::Relaxed), bytes.len() as u64);
        let fits = held.saturating_add(length) <= PASSED_BYTES_MAX;
        let ready = self.lines.iter().filter(|line| line.has_room(length, fits));
        let ready = ready.collect::<Vec<_>>();
        if ready.is_empty() {
            return;
        }
        let pack = Arc::new(Passed::new(section, bytes, &self.held));
        for line in ready {
            line.add(&pack);
        }
    }
}

/// Closes the lines, however the backup ends.
struct Closing<'a>(&'a Lines);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.lines.iter().for_each(Line::close);
    }
}

/// What was brought to a replica while the backup ran.
#[derive(Clone, Default)]
pub struct Brought {
    /// Packs that were put.
    pub(super) packs: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// The replica's store, and leases there that say that this is at work.
    leases: Vec<(Arc<dyn Store>, ObjectName)>,
}

impl fmt::Debug for Brought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Brought").field("packs", &self.packs).finish_non_exhaustive()
    }
}

impl Brought {
    /// Ends the leases. A key that may not delete leaves them: they run out by themselves.
    pub(super) fn end(self) {
        for (store, lease) in self.leases {
            let _left = store.delete(&lease);
        }
    }
}

/// Takes the store from who brought packs there, once, and what was brought.
#[derive(Clone, Default)]
pub struct Handover(Arc<(Mutex<Handed>, Condvar)>);

#[derive(Default)]
struct Handed {
    store: Option<Result<Arc<dyn Store>, Error>>,
    brought: Brought,
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handover")
    }
}

impl Handover {
    fn give(&self, store: Result<Arc<dyn Store>, Error>, brought: Brought) {
        *self.0.0.lock() = Handed { store: Some(store), brought };
        self.0.1.notify_all();
    }

    /// Waits for the store.
    fn store(&self) -> Result<Arc<dyn Store>, Error> {
        let mut handed = self.0.0.lock();
        loop {
            match handed.store.take() {
                Some(store) => return store,
                None => self.0.1.wait(&mut handed),
            }
        }
    }

    /// What was brought; nothing the second time.
    pub(super) fn brought(&self) -> Brought {
        std::mem::take(&mut self.0.0.lock().brought)
    }
}

/// Hands over in any case, so that nobody waits for who has panicked.
struct Giving<'a>(Option<&'a Handover>);

impl Giving<'_> {
    fn give(mut self, store: Result<Arc<dyn Store>, Error>, brought: Brought) {
        if let Some(handover) = self.0.take() {
            handover.give(store, brought);
        }
    }
}

impl Drop for Giving<'_> {
    fn drop(&mut self) {
        if let Some(handover) = self.0.take() {
            let failed = Err(Error::Internal { part: "copying while a backup runs" });
            handover.give(failed, Brought::default());
        }
    }
}

/// Backs up, and copies the snapshot to replicas: its packs while they are made, as far as the replicas
/// keep up, and the rest when it is acknowledged. No replica holds the backup up.
///
/// # Errors
/// Those of [`backup::run`]. What became of the copies is told beside the backup: `None` where there is
/// no snapshot to copy; else as [`run`].
pub fn back_up(
    home: &Repository,
    options: BackupOptions,
    targets: &[Target],
) -> Result<(BackupReport, Option<Result<ReplicateReport, Error>>), Error> {
    if targets.is_empty() {
        return Ok((backup::run(home, options)?, None));
    }
    let lines = Arc::new(Lines::new(targets.len()));
    let places = targets.iter().map(|_| Place::default()).collect::<Vec<_>>();
    let replicas = targets.len() as u64;
    std::thread::scope(|scope| {
        for ((target, line), place) in targets.iter().zip(&lines.lines).zip(&places) {
            let bringer = Bringer { home, target, replicas, line, place };
            scope.spawn(move || bringer.run());
        }
        let closing = Closing(&lines);
        let tap = Some(Arc::clone(&lines) as Arc<dyn PackTap>);
        let backed_up = backup::run(home, BackupOptions { tap, ..options });
        drop(closing);
        let only = match &backed_up {
            Ok(BackupReport { snapshot: Some(snapshot), .. }) => snapshot.id,
            // What is on its way somewhere is not waited for.
            _ => {
                places.iter().for_each(Place::abandon);
                return Ok((backed_up?, None));
            }
        };
        let targets = targets.iter().zip(&places).map(|(target, place)| {
            let handover = place.handover.clone();
            let open = Opener::new(move || handover.store());
            Target {
                open,
                only: Some(only),
                // The store has its own already.
                patience: None,
                handover: Some(place.handover.clone()),
                ..target.clone()
            }
        });
        let copies = run(home, &targets.collect::<Vec<_>>(), false);
        if copies.is_err() {
            places.iter().for_each(Place::abandon);
        }
        Ok((backed_up?, Some(copies)))
    })
}

/// Where packs of a backup go.
#[derive(Default)]
struct Place {
    handover: Handover,
    opened: Mutex<Opened>,
}

#[derive(Default)]
struct Opened {
    giving_up: Option<GivingUp>,
    abandoned: bool,
}

impl Place {
    /// Waits for nothing there any more, if waiting has a limit at all.
    fn abandon(&self) {
        let mut opened = self.opened.lock();
        opened.abandoned = true;
        if let Some(giving_up) = &opened.giving_up {
            giving_up.now();
        }
    }
}

/// Brings packs to one replica while a backup runs.
struct Bringer<'a> {
    home: &'a Repository,
    target: &'a Target,
    replicas: u64,
    line: &'a Line,
    place: &'a Place,
}

impl Bringer<'_> {
    fn run(&self) {
        let giving = Giving(Some(&self.place.handover));
        let patience = self.target.patience.unwrap_or(Patience::ENDLESS);
        let store = self.target.open_patiently(patience, &|giving_up| {
            let mut opened = self.place.opened.lock();
            if opened.abandoned {
                giving_up.now();
            }
            opened.giving_up = Some(giving_up);
        });
        let mut brought = Brought::default();
        if let Ok(store) = &store {
            // Whatever goes wrong here, goes wrong again when the snapshot is copied, and is told then.
            let _told_later = self.bring(store, &mut brought);
        }
        self.line.leave();
        giving.give(store, brought);
    }

    fn bring(&self, store: &Arc<dyn Store>, brought: &mut Brought) -> Result<(), Error> {
        let (home, memory) = (self.home, Memory::new(self.home, self.target, false));
        // A place that is not the right one gets nothing.
        let joined = join(home, store, &memory.state().slots, true, &|present| {
            memory
                .place()
                .map_or(Ok(()), |(places, place)| places.require_same(place, home.id(), present))
        })?;
        if joined.created {
            return Ok(());
        }
        let mut context = home.context.clone();
        context.index_memory_bytes /= self.replicas.max(1);
        let replica = home.open_copy(Arc::clone(store), &context)?;
        if let Some((places, place)) = memory.place() {
            places.check(place, &replica)?;
        }
        let mut leases = HashMap::new();
        let outcome = self.put_all(&replica, &mut leases, brought);
        let names = leases.into_values().filter_map(HeldLease::leave);
        brought.leases = names.map(|name| (Arc::clone(store), name)).collect();
        outcome
    }

    /// Puts what comes. Packs say which session made them: a collection there spares those of sessions
    /// at work, so each has a lease.
    fn put_all<'r>(
        &self,
        replica: &'r Repository,
        leases: &mut HashMap<SessionId, HeldLease<'r>>,
        brought: &mut Brought,
    ) -> Result<(), Error> {
        let catalog = replica.catalog()?;
        catalog.require_sound_tombs()?;
        while let Some(pack) = self.line.next() {
            let Passed { section, bytes, .. } = &*pack;
            let known = catalog.index().pack_number(&section.id)?.is_some();
            if known || catalog.is_condemned(&section.id) {
                continue;
            }
            let take = || HeldLease::take(replica.vault(), section.session, "backup");
            leases.entry(section.session).or_insert_with(take).renew();
            let name = ObjectName::Pack(section.kind, section.id);
            let put = replica.store().put_shared(&name, bytes)?;
            catalog.add_pending(section)?;
            if put == Put::Written {
                brought.packs += 1;
                brought.bytes = brought.bytes.saturating_add(bytes.len() as u64);
            }
        }
        Ok(())
    }
}
