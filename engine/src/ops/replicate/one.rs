//! The update of one replica: what it lacks is copied, what it is no longer to have is forgotten there,
//! and what expired is collected when that is due.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use cairn_format::ids::{ReplicaId, SnapshotId};
use cairn_format::names::ObjectName;

use super::copy::{Copying, lacking};
use super::decide::{self, Decision, decide};
use super::join::join;
use super::memory::Memory;
use super::need;
use super::pass::Handover;
use super::reads::{Reads, Undecided};
use super::report::{Done, is_clean};
use super::target::Target;
use crate::collect::due::{Past, is_due};
use crate::context::Remark;
use crate::error::Error;
use crate::index::segments;
use crate::ops::forget;
use crate::ops::gc::{self, GcOptions, GcReport};
use crate::ops::shard::Shard;
use crate::repo::{Repository, intent};
use crate::store::memory::MemoryStore;
use crate::store::{Store, StoreError};

/// The replication to one replica.
pub(super) struct One<'a> {
    pub(super) home: &'a Repository,
    pub(super) target: &'a Target,
    /// Which one it is, for the reads.
    pub(super) number: usize,
    /// How many are written at once: they share the memory for indexes.
    pub(super) replicas: u64,
    pub(super) reads: &'a Reads<'a>,
    pub(super) dry_run: bool,
    pub(super) shard: Shard,
    pub(super) memory: Memory<'a>,
}

impl One<'_> {
    pub(super) fn run(&self, undecided: Undecided<'_>) -> Result<Done, Error> {
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
        Copying::run(self, &replica, &decision, undecided, &mut done)?;
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
        match store.size(&ObjectName::Format) {
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
        let lacking = lacking(self.home, replica, &decision.copy, &decision.both)?;
        (done.chunks, done.bytes_plain, done.chunks_held) =
            (lacking.chunks, lacking.bytes, lacking.held);
        done.copied = need::ids(&decision.copy);
        done.forgotten = decision.forget.map_or(0, |plan| plan.going());
        Ok(done)
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
