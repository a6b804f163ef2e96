//! Makes and updates replicas: copies of the repository in other places, each complete by itself, with
//! rules of its own for which snapshots it keeps.
//!
//! A replica is written as a backup writes: packs, segments, snapshots, a look at the tombs there,
//! acknowledgements of its own. So it is sound wherever this ends, and whatever runs beside it. The
//! acknowledgement of the home copy speaks of the home copy only, and tombs concern the packs of the
//! copy they lie in: what a pack's name says is the same everywhere, whether it is to go is not. A
//! pack that either side has condemned is never copied as it is.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use cairn_format::ids::{ReplicaId, SessionId, SnapshotId};
use cairn_format::segment::PackSection;

use self::carry::{Carried, Carrier};
use self::decide::{Decision, Likes, decide};
use self::join::join;
use self::memory::Memory;
use self::need::Need;
use self::reads::Reads;
use super::forget;
use super::gc::{self, GcOptions, GcReport, MAX_DELETE_PERCENT_DEFAULT};
use super::shard::Shard;
use super::snapshots::{self, SnapshotInfo};
use crate::collect::Weakness;
use crate::collect::due::{Past, is_due};
use crate::collect::lease::HeldLease;
use crate::context::Remark;
use crate::error::{Error, Explain};
use crate::index::segments;
use crate::repo::{Repository, intent};
use crate::retention::Policy;
use crate::seal::random;
use crate::store::memory::MemoryStore;
use crate::store::patient::{GivingUp, Patience, Patient};
use crate::store::traffic::Traffic;
use crate::store::{Store, StoreError};

mod carry;
mod decide;
mod join;
mod memory;
mod need;
mod pass;
mod reads;
mod share;

pub use self::pass::{Brought, Handover, back_up};

/// How long expired data may stay on a replica unless told otherwise, milliseconds.
pub const ERASE_WITHIN_MS_DEFAULT: u64 = 72 * 60 * 60 * 1000;

/// How often what a replica lacks is looked for again, when a collection changes it meanwhile.
const ROUNDS_MAX: usize = 4;

/// Opens the place of a replica. Called once, by the thread that writes it, so that a place that
/// cannot be reached holds up no other.
#[derive(Clone)]
pub struct Opener(Arc<dyn Fn() -> Result<Arc<dyn Store>, Error> + Send + Sync>);

impl Opener {
    /// What opens it: for a replica that is not there yet, an empty place.
    pub fn new(open: impl Fn() -> Result<Arc<dyn Store>, Error> + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener")
    }
}

/// A replica that is to be made or updated.
#[derive(Clone, Debug)]
pub struct Target {
    /// What it is called in reports.
    pub name: String,
    /// Where it is.
    pub open: Opener,
    /// What the place is remembered by on this host, if it is. Of one that is not, nothing is known
    /// of what expired there, so that each replication collects.
    pub place: Option<String>,
    /// Which snapshots it keeps; `None`: those of home.
    pub rules: Option<Policy>,
    /// Only snapshots of this job.
    pub job: Option<String>,
    /// Only this snapshot, whatever else is there; nothing is forgotten.
    pub only: Option<SnapshotId>,
    /// How long after it expired data may stay there, milliseconds: a collection runs there when it
    /// would be late at the next replication. `None`: none ever runs.
    pub erase_within_ms: Option<u64>,
    /// Refuse to free more than this share of its packs, percent.
    pub max_delete_percent: f64,
    /// Without rules: also forget what home lacks and never said is to go. Otherwise that stays, as
    /// home may have lost it.
    pub forget_missing: bool,
    /// This host's clock is right: see [`forget::ForgetOptions`].
    pub trust_clock: bool,
    /// How long its place may get nowhere before it is given up. `None`: for as long as it likes.
    pub patience: Option<Patience>,
    /// Who brings packs there while a backup runs: [`back_up`] sets it.
    #[doc(hidden)]
    pub handover: Option<Handover>,
    /// Weakens the protocol, for tests of the simulator.
    #[doc(hidden)]
    pub weakness: Option<Weakness>,
}

impl Target {
    /// A replica that has what home has.
    #[must_use]
    pub fn new(name: &str, store: Arc<dyn Store>) -> Self {
        Self::at(name, Opener::new(move || Ok(Arc::clone(&store))))
    }

    /// The same in a place that has to be opened.
    #[must_use]
    pub fn at(name: &str, open: Opener) -> Self {
        Self {
            name: name.to_owned(),
            open,
            place: None,
            rules: None,
            job: None,
            only: None,
            erase_within_ms: Some(ERASE_WITHIN_MS_DEFAULT),
            max_delete_percent: MAX_DELETE_PERCENT_DEFAULT,
            forget_missing: false,
            trust_clock: false,
            patience: None,
            handover: None,
            weakness: None,
        }
    }

    /// Opens its place.
    fn open(&self) -> Result<Arc<dyn Store>, Error> {
        match self.patience {
            None => (self.open.0)(),
            Some(patience) => self.open_patiently(patience, &|_| ()),
        }
    }

    /// Opens its place, to be waited for so long; `note` is told by what it can be given up.
    fn open_patiently(
        &self,
        patience: Patience,
        note: &dyn Fn(GivingUp),
    ) -> Result<Arc<dyn Store>, Error> {
        let open = Arc::clone(&self.open.0);
        Ok(Arc::new(Patient::open(&self.name, patience, note, move || open())?))
    }
}

/// What happened to one replica.
#[derive(Debug, Default)]
pub struct Done {
    /// Whether it was made now.
    pub created: bool,
    /// Snapshots it is to have.
    pub wanted: u64,
    /// Snapshots it got; with a dry run, is to get.
    pub copied: Vec<SnapshotId>,
    /// Snapshots of which others have yet to bring something: only when a share was brought.
    pub waiting: Vec<SnapshotId>,
    /// Snapshots it could not get because of damage at home.
    pub damaged: Vec<Remark>,
    /// Snapshots that it keeps though home lacks them, because home never said that they are to go.
    pub spared: Vec<SnapshotId>,
    /// Snapshots that were forgotten there; with a dry run, are to be.
    pub forgotten: u64,
    /// Chunks it lacked.
    pub chunks: u64,
    /// Their bytes, before compression.
    pub bytes_plain: u64,
    /// Of the chunks, those that are there for the sake of others.
    pub chunks_held: u64,
    /// Packs put as they are at home.
    pub packs_moved: u64,
    /// Packs written with what was wanted of others.
    pub packs_written: u64,
    /// Bytes of both.
    pub bytes_written: u64,
    /// The collection that ran there.
    pub collected: Option<GcReport>,
    /// Since when expired data may be there.
    pub dead_since_ms: Option<i64>,
    /// Requests to it, where they are counted.
    pub traffic: Option<Traffic>,
    /// Milliseconds it took.
    pub elapsed_ms: u64,
}

impl Done {
    /// What it left undone, for those who look only later.
    fn trouble(&self) -> Option<String> {
        let mut troubles = Vec::new();
        if !self.damaged.is_empty() {
            let count = self.damaged.len();
            troubles
                .push(format!("{count} snapshots could not be copied because of damage at home"));
        }
        if !self.spared.is_empty() {
            let count = self.spared.len();
            troubles.push(format!("home lacks {count} snapshots that nobody forgot there"));
        }
        if self.collected.as_ref().is_some_and(|report| !is_clean(report)) {
            troubles.push("not all that expired could be erased".to_owned());
        }
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }

    /// Adds packs that were brought.
    fn note(&mut self, carried: &Carried) {
        self.packs_moved += carried.packs_moved;
        self.packs_written += carried.packs_written;
        self.bytes_written += carried.bytes_written;
    }
}

/// What came of one replica.
#[derive(Debug)]
pub struct Outcome {
    /// What it is called.
    pub name: String,
    /// What happened, or why nothing more did.
    pub done: Result<Done, Error>,
}

/// What came of a replication.
#[derive(Debug, Default)]
pub struct ReplicateReport {
    /// Of each replica, in the order they were named.
    pub replicas: Vec<Outcome>,
    /// Whole packs read from home.
    pub packs_read: u64,
    /// Their bytes.
    pub bytes_read: u64,
}

/// Updates replicas, all at once: none waits for another, and each fails for itself.
///
/// # Errors
/// [`Error::Role`] for keys of other roles than owner and maintainer; failures of the home copy
/// before it begins. What goes wrong with one replica is in its [`Outcome`].
pub fn run(home: &Repository, targets: &[Target], dry_run: bool) -> Result<ReplicateReport, Error> {
    run_shard(home, targets, dry_run, Shard::ALL)
}

/// The same for a share: packs of home whose names fall to it are brought to the replicas. A snapshot
/// is made visible there by whoever finds that nothing of it is lacking any more, so by the last of
/// the hosts that bring something, or by more than one of them; what lacks something waits
/// ([`Done::waiting`]). Nothing is collected on a replica while something waits.
///
/// # Errors
/// As [`run`].
pub fn run_shard(
    home: &Repository,
    targets: &[Target],
    dry_run: bool,
    shard: Shard,
) -> Result<ReplicateReport, Error> {
    home.require_collect("replicate")?;
    home.monitor().stage("replicate", None);
    home.current_catalog()?.require_sound_tombs()?;
    let reads = Reads::new(home, targets.len());
    let replicas = targets.len() as u64;
    let work = |number, target| {
        let undecided = Undecided { reads: &reads, number, open: true };
        let memory = Memory::new(home, target, dry_run);
        let reads = &reads;
        One { home, target, number, replicas, reads, dry_run, shard, memory }.run(undecided)
    };
    let outcomes = match targets {
        // By the caller's thread, and by as many workers as it has been given.
        [target] => vec![Ok(work(0, target))],
        _ => std::thread::scope(|scope| {
            let work = &work;
            let threads = targets.iter().enumerate();
            let threads = threads.map(|(number, target)| scope.spawn(move || work(number, target)));
            let threads = threads.collect::<Vec<_>>();
            threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
        }),
    };
    let replicas = targets.iter().zip(outcomes).map(|(target, done)| Outcome {
        name: target.name.clone(),
        done: done.unwrap_or(Err(Error::Internal { part: "a replication" })),
    });
    let replicas = replicas.collect();
    let (packs_read, bytes_read) = reads.total();
    Ok(ReplicateReport { replicas, packs_read, bytes_read })
}

/// Says that a replica has decided what it wants when it has not said so by its end.
struct Undecided<'a> {
    reads: &'a Reads<'a>,
    number: usize,
    open: bool,
}

impl Undecided<'_> {
    fn decide(&mut self, packs: &[cairn_format::ids::PackId]) {
        if std::mem::take(&mut self.open) {
            self.reads.decided(self.number, packs);
        }
    }
}

impl Drop for Undecided<'_> {
    fn drop(&mut self) {
        self.decide(&[]);
    }
}

/// The replication to one replica.
struct One<'a> {
    home: &'a Repository,
    target: &'a Target,
    number: usize,
    /// How many are written at once: they share the memory for indexes.
    replicas: u64,
    reads: &'a Reads<'a>,
    dry_run: bool,
    shard: Shard,
    memory: Memory<'a>,
}

impl One<'_> {
    fn run(&self, undecided: Undecided<'_>) -> Result<Done, Error> {
        let began = Instant::now();
        let opened = self.target.open();
        let outcome = match &opened {
            Ok(store) => self.update(store, undecided),
            Err(_) => Ok(Done::default()),
        };
        let outcome =
            opened.and_then(|store| outcome.map(|done| Done { traffic: store.traffic(), ..done }));
        let failure = match &outcome {
            Ok(done) => done.trouble(),
            Err(error) => Some(error.to_string()),
        };
        let single = self.target.only.is_some();
        self.memory.change(|state| {
            state.tried_ms = state.tried_ms.max(self.memory.now_ms);
            // A single snapshot that was copied says nothing of all the others.
            match single {
                true => state.failure_single.clone_from(&failure),
                false => (state.failure, state.failure_single) = (failure.clone(), None),
            }
        });
        outcome.map(|done| Done {
            elapsed_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            ..done
        })
    }

    fn warn(&self, code: &'static str, error: &dyn std::fmt::Display) {
        self.home.monitor().warn(Remark {
            code,
            subject: self.target.name.clone(),
            message: error.to_string(),
        });
    }

    fn update(&self, store: &Arc<dyn Store>, undecided: Undecided<'_>) -> Result<Done, Error> {
        let (memory, home) = (&self.memory, self.home);
        let store = self.store(store)?;
        let check = |present: &[ReplicaId]| match memory.place() {
            Some((places, place)) => places.require_same(place, home.id(), present),
            None => Ok(()),
        };
        let joined = join(home, &store, &memory.state().slots, self.dry_run, &check)?;
        let mut context = home.context.clone();
        context.index_memory_bytes /= self.replicas.max(1);
        if self.dry_run && joined.created {
            // Of a copy that is gone at the end nothing is to be remembered.
            context.cache_dir = PathBuf::new();
        }
        let replica = home.open_copy(store, &context)?;
        if let Some((places, place)) = memory.place() {
            places.check(place, &replica)?;
        }
        if !self.dry_run {
            let slots = joined.slots.iter().map(|slot| slot.to_hex()).collect::<Vec<_>>();
            memory.change(|state| {
                state.tried_ms = state.tried_ms.max(memory.now_ms);
                state.slots.clone_from(&slots);
            });
            replica.vault().sweep();
        }
        replica.catalog()?.require_sound_tombs()?;
        let decision = decide(home, &replica, self.target)?;
        if !decision.copy.is_empty() {
            // The index may be older than the snapshots that were listed now.
            home.refresh_catalog()?;
        }
        let mut done = Done { created: joined.created, wanted: decision.wanted, ..Done::default() };
        done.damaged.clone_from(&decision.damaged);
        done.spared.clone_from(&decision.spared);
        if self.dry_run {
            return self.imagine(&replica, decision, done);
        }
        let brought = self.target.handover.as_ref().map(Handover::brought).unwrap_or_default();
        done.packs_moved += brought.packs;
        done.bytes_written += brought.bytes;
        let receipts = self.account_for(&replica, joined.created)?;
        match self.shard.is_all() {
            true => self.copy(&replica, &decision, undecided, &mut done)?,
            false => self.copy_share(&replica, &decision, undecided, &mut done)?,
        }
        let receipts = match &decision.forget {
            None => receipts,
            Some(plan) => {
                memory.note_dead();
                done.forgotten = forget::run(&replica, plan)?.removed;
                intent::sequence(&replica)?
            }
        };
        self.tidy(&replica);
        self.note(&decision, &done);
        self.collect(&replica, &decision, &mut done)?;
        if self.target.only.is_none() {
            let own = done.collected.as_ref().map_or(0, |report| report.receipts.len() as u64);
            memory.change(|state| state.receipts = Some(receipts.saturating_add(own)));
        }
        brought.end();
        done.dead_since_ms = memory.state().dead_since_ms;
        Ok(done)
    }

    /// Finds out whether something may have expired there of which this host does not know: it
    /// remembers nothing of a replica that was there before, or there are receipts of others. Returns
    /// the highest sequence of receipts.
    fn account_for(&self, replica: &Repository, created: bool) -> Result<u64, Error> {
        if self.target.only.is_some() {
            return Ok(0);
        }
        let sequence = intent::sequence(replica)?;
        match self.memory.state().receipts {
            _ if created => {}
            None => self.memory.change(|state| state.unclear = true),
            Some(known) if known != sequence => self.memory.note_dead(),
            Some(_) => {}
        }
        Ok(sequence)
    }

    /// Notes what was brought.
    fn note(&self, decision: &Decision, done: &Done) {
        let now_ms = self.memory.now_ms;
        let missing = decision.copy.len().saturating_sub(done.copied.len()) as u64;
        let (whole, sound) = (done.waiting.is_empty(), done.damaged.is_empty());
        let single = self.target.only.is_some();
        self.memory.change(|state| {
            state.bytes_total = state.bytes_total.saturating_add(done.bytes_written);
            if !single {
                state.bytes_last = done.bytes_written;
                state.snapshots = decision.wanted.saturating_sub(missing);
            }
            if !single && whole {
                state.ran_ms = state.ran_ms.max(Some(now_ms));
            }
            if !single && whole && sound {
                state.done_ms = state.done_ms.max(Some(now_ms));
            }
            if whole && sound && missing == 0 && !decision.incomplete {
                state.newest_ms = state.newest_ms.max(decision.newest_ms);
            }
        });
    }

    /// The store; for a dry run one in memory where there is no replica yet.
    fn store(&self, store: &Arc<dyn Store>) -> Result<Arc<dyn Store>, Error> {
        match store.size(&cairn_format::names::ObjectName::Format) {
            Err(StoreError::NotFound { .. }) if self.dry_run => Ok(Arc::new(MemoryStore::new())),
            Err(StoreError::NotFound { .. }) => {
                if let Some((places, place)) = self.memory.place() {
                    places.require_unknown(place)?;
                }
                Ok(Arc::clone(store))
            }
            Ok(_) => Ok(Arc::clone(store)),
            Err(error) => Err(error.into()),
        }
    }

    fn imagine(
        &self,
        replica: &Repository,
        decision: Decision,
        mut done: Done,
    ) -> Result<Done, Error> {
        let need = self.need(replica, &decision.copy, &decision, &[])?;
        (done.chunks, done.bytes_plain, done.chunks_held) = (need.chunks, need.bytes, need.held);
        done.copied = need::ids(&decision.copy);
        done.forgotten = decision.forget.map_or(0, |plan| plan.going());
        Ok(done)
    }

    /// What these snapshots need that the replica lacks.
    fn need<'n>(
        &'n self,
        replica: &'n Repository,
        snapshots: &[SnapshotInfo],
        decision: &Decision,
        copied: &[SnapshotId],
    ) -> Result<Need<'n>, Error> {
        let mut need = Need::new(self.home, replica)?;
        if snapshots.is_empty() {
            return Ok(need);
        }
        let mut likes = Likes::new(self.home, &decision.both);
        for snapshot in decision.copy.iter().filter(|one| copied.contains(&one.id)) {
            likes.add(snapshot);
        }
        for (nth, snapshot) in snapshots.iter().enumerate() {
            need.add(nth, snapshot, likes.of(snapshot)?.as_ref())?;
        }
        need.add_bases()?;
        Ok(need)
    }

    /// Copies the snapshots that the replica lacks; where something at home is damaged, one by one, so
    /// that only those fail that need it.
    fn copy(
        &self,
        replica: &Repository,
        decision: &Decision,
        mut undecided: Undecided<'_>,
        done: &mut Done,
    ) -> Result<(), Error> {
        let session = SessionId::from_bytes(random::array(self.home.context.random.as_ref())?);
        if decision.copy.is_empty() {
            return Ok(());
        }
        let lease = HeldLease::take(replica.vault(), session, "replicate");
        let mut left = decision.copy.clone();
        let mut attempts = 0;
        while !left.is_empty() {
            match self.copy_some(replica, &left, decision, session, &lease, &mut undecided, done) {
                Ok(open) => left.retain(|one| open.contains(&one.id)),
                Err(error) if error.has_vanished() && attempts + 1 < ROUNDS_MAX => {
                    // A collection at home, or there, has moved it.
                    self.home.refresh_catalog()?;
                    replica.refresh_catalog()?;
                }
                Err(error) if error.is_damage() => {
                    left.retain(|one| !done.copied.contains(&one.id));
                    self.copy_each(replica, &left, decision, session, &lease, done)?;
                    break;
                }
                Err(error) => return Err(error),
            }
            left.retain(|one| !done.copied.contains(&one.id));
            attempts += 1;
            if attempts == ROUNDS_MAX && !left.is_empty() {
                return Err(Error::Condemned { packs: left.len() });
            }
        }
        lease.end();
        Ok(())
    }

    fn copy_each(
        &self,
        replica: &Repository,
        snapshots: &[SnapshotInfo],
        decision: &Decision,
        session: SessionId,
        lease: &HeldLease<'_>,
        done: &mut Done,
    ) -> Result<(), Error> {
        for snapshot in snapshots {
            let one = std::slice::from_ref(snapshot);
            let mut copy_it = || {
                let mut decided = Undecided { reads: self.reads, number: self.number, open: false };
                self.copy_some(replica, one, decision, session, lease, &mut decided, done)
            };
            let mut copied = copy_it();
            for _ in 1..ROUNDS_MAX {
                if !copied.as_ref().is_err_and(Error::has_vanished) {
                    break;
                }
                // A collection at home, or there, has moved it.
                self.home.refresh_catalog()?;
                replica.refresh_catalog()?;
                copied = copy_it();
            }
            match copied {
                Ok(_) => {}
                Err(error)
                    if error.is_damage() && snapshots::is_forgotten(self.home, snapshot)? => {}
                Err(error) if error.is_damage() => {
                    let remark = Remark {
                        code: error.code(),
                        subject: format!("snapshot {}", snapshot.id),
                        message: format!("it cannot be copied: {error}"),
                    };
                    self.home.monitor().warn(remark.clone());
                    done.damaged.push(remark);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Copies snapshots; returns those that have to be looked at again.
    #[expect(clippy::too_many_arguments, reason = "what one attempt needs of all the others")]
    fn copy_some(
        &self,
        replica: &Repository,
        snapshots: &[SnapshotInfo],
        decision: &Decision,
        session: SessionId,
        lease: &HeldLease<'_>,
        undecided: &mut Undecided<'_>,
        done: &mut Done,
    ) -> Result<Vec<SnapshotId>, Error> {
        let leftovers = leftovers(replica)?;
        let need = self.need(replica, snapshots, decision, &done.copied)?;
        if need.held > 0 {
            self.memory.note_dead();
        }
        let mut whole = Vec::new();
        for number in need.packs.values().flatten() {
            if need.whole(*number)? {
                whole.push(self.home.catalog()?.pack(*number)?.id);
            }
        }
        whole.sort_unstable();
        whole.dedup();
        undecided.decide(&whole);
        let carrier = self.carrier(replica, session, lease)?;
        let mut carried = Carried::default();
        let outcome = carrier.carry(&need, snapshots, leftovers, &mut carried);
        self.reads.withdraw(self.number);
        done.chunks += need.chunks;
        done.bytes_plain += need.bytes;
        done.chunks_held += need.held;
        done.note(&carried);
        done.copied.extend(carried.acknowledged);
        outcome?;
        Ok(carried.open)
    }

    fn carrier<'c>(
        &'c self,
        replica: &'c Repository,
        session: SessionId,
        lease: &'c HeldLease<'c>,
    ) -> Result<Carrier<'c>, Error> {
        Ok(Carrier {
            home: self.home,
            replica,
            catalog: replica.catalog()?,
            reads: self.reads,
            number: self.number,
            session,
            lease,
            weakness: self.target.weakness,
        })
    }

    /// Collects on the replica when that is due.
    fn collect(
        &self,
        replica: &Repository,
        decision: &Decision,
        done: &mut Done,
    ) -> Result<(), Error> {
        let now_ms = self.memory.now_ms;
        // What others have brought for snapshots that are not visible yet is needed by nobody.
        if self.target.only.is_some() || !done.waiting.is_empty() {
            return Ok(());
        }
        let Some(within_ms) = self.target.erase_within_ms else { return Ok(()) };
        let state = self.memory.state();
        let last_ms = self.memory.last_ms.unwrap_or(now_ms);
        let past = Past { last_ms, dead_since_ms: state.dead_since_ms, ..Past::default() };
        let due = |_| is_due(Some(&past), &HashSet::new(), now_ms, within_ms);
        if !state.unclear && !state.dead_since_ms.is_some_and(due) {
            return Ok(());
        }
        let report = self.collect_intended(replica, decision, &done.copied)?;
        if is_clean(&report) {
            self.memory.note_clean(&state);
        }
        done.collected = Some(report);
        Ok(())
    }

    /// Collects. What would free more than may be freed is meant all the same where the replica lists
    /// everything that it is to have: then nothing goes but what was forgotten there, or was never
    /// complete.
    fn collect_intended(
        &self,
        replica: &Repository,
        decision: &Decision,
        copied: &[SnapshotId],
    ) -> Result<GcReport, Error> {
        let max_delete_percent = self.target.max_delete_percent;
        let options = GcOptions { max_delete_percent, ..GcOptions::default() };
        let refused = match gc::run(replica, &options) {
            Err(refused @ Error::CollectRefused { .. }) => refused,
            outcome => return outcome,
        };
        let stay = decision.stay.iter().chain(copied).copied().collect::<HashSet<_>>();
        if stay.is_empty() || !decide::lists_all(replica, &stay)? {
            return Err(refused);
        }
        let plan = gc::plan(replica, &options)?;
        if plan.snapshots < stay.len() as u64 {
            return Err(refused);
        }
        let share = plan.bytes_freed as f64 * 100.0 / plan.bytes_total.max(1) as f64;
        // Between this and everything, so that a list that is lost only now still stops it.
        let max_delete_percent = (share + 1.0).min(f64::midpoint(share, 100.0));
        gc::run(replica, &GcOptions { max_delete_percent, ..options })
    }

    /// Merges segments there: it must not undo what was done when it fails.
    fn tidy(&self, replica: &Repository) {
        let merged = segments::merge(replica.vault())
            .and_then(|merged| replica.catalog()?.note_merge(&merged));
        if let Err(error) = merged {
            self.warn("index.merge", &error);
        }
    }
}

/// Whether nothing that expired is left there, as far as is known.
fn is_clean(report: &GcReport) -> bool {
    report.still_there.is_empty()
        && report.versions_kept.is_empty()
        && report.damaged.is_empty()
        && report.plan.packs_spared == 0
}

/// What runs before put on the replica and did not name, to be named by this one. Looked for before it
/// is decided what is lacking: what is gone again is not relied on, and packs of writers' keys are
/// put once more.
fn leftovers(replica: &Repository) -> Result<Vec<PackSection>, Error> {
    let leftovers = replica.catalog()?.leftover_sections(replica.vault())?;
    replica.catalog()?.find_condemned()?;
    Ok(leftovers)
}
