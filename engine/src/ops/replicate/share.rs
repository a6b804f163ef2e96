//! What one of several hosts does for a replica: it brings the packs that fall to it, and makes visible
//! what it then finds to be complete.
//!
//! Each host puts packs and segments first and looks afterwards, so of those that bring the last parts
//! of a snapshot at least one sees all of them (SPEC section 12 on listings). Whoever sees them does what
//! a replication does that finds everything there already.

use cairn_format::ids::SessionId;

use super::carry::{Carried, Carrier};
use super::{Decision, Done, One, ROUNDS_MAX, Undecided, leftovers};
use crate::collect::lease::HeldLease;
use crate::context::Remark;
use crate::error::{Error, Explain};
use crate::ops::snapshots::{self, SnapshotInfo};
use crate::repo::Repository;
use crate::seal::random;

impl One<'_> {
    pub(super) fn copy_share(
        &self,
        replica: &Repository,
        decision: &Decision,
        mut undecided: Undecided<'_>,
        done: &mut Done,
    ) -> Result<(), Error> {
        if decision.copy.is_empty() {
            return Ok(());
        }
        let session = SessionId::from_bytes(random::array(self.home.context.random.as_ref())?);
        let lease = HeldLease::take(replica.vault(), session, "replicate");
        let carrier = self.carrier(replica, session, &lease)?;
        match self.bring(&carrier, &decision.copy, decision, Some(&mut undecided), done) {
            // Then only those snapshots fail that need what is damaged.
            Err(error) if error.is_damage() => {
                for snapshot in &decision.copy {
                    let one = std::slice::from_ref(snapshot);
                    let brought = self.bring(&carrier, one, decision, None, done);
                    self.pass_over(snapshot, brought, done)?;
                }
            }
            brought => brought?,
        }
        replica.refresh_catalog()?;
        for snapshot in &decision.copy {
            lease.renew();
            let mut shown = self.show(&carrier, snapshot, decision, done);
            for _ in 1..ROUNDS_MAX {
                if !shown.as_ref().is_err_and(Error::has_vanished) {
                    break;
                }
                self.home.refresh_catalog()?;
                replica.refresh_catalog()?;
                shown = self.show(&carrier, snapshot, decision, done);
            }
            self.pass_over(snapshot, shown, done)?;
        }
        lease.end();
        Ok(())
    }

    /// Brings what falls to this share.
    fn bring(
        &self,
        carrier: &Carrier<'_>,
        snapshots: &[SnapshotInfo],
        decision: &Decision,
        mut undecided: Option<&mut Undecided<'_>>,
        done: &mut Done,
    ) -> Result<(), Error> {
        for attempt in 1.. {
            let leftovers = leftovers(carrier.replica)?;
            let need = self.need(carrier.replica, snapshots, decision, &[])?;
            if need.held > 0 {
                self.memory.note_dead();
            }
            let catalog = self.home.catalog()?;
            let mut whole = Vec::new();
            for number in need.packs.values().flatten() {
                let id = catalog.pack(*number)?.id;
                if self.shard.takes(id.as_bytes()) && need.whole(*number)? {
                    whole.push(id);
                }
            }
            whole.sort_unstable();
            whole.dedup();
            if let Some(undecided) = undecided.as_deref_mut() {
                undecided.decide(&whole);
            }
            let mut carried = Carried::default();
            let outcome = carrier.bring(&need, self.shard, leftovers, &mut carried);
            self.reads.withdraw(self.number);
            done.chunks = done.chunks.max(need.chunks);
            done.bytes_plain = done.bytes_plain.max(need.bytes);
            done.chunks_held = done.chunks_held.max(need.held);
            done.note(&carried);
            match outcome {
                Err(error) if error.has_vanished() && attempt < ROUNDS_MAX => {
                    // A collection at home, or there, has moved it.
                    self.home.refresh_catalog()?;
                    carrier.replica.refresh_catalog()?;
                }
                outcome => return outcome,
            }
        }
        Ok(())
    }

    /// Makes a snapshot visible if nothing of it is lacking.
    fn show(
        &self,
        carrier: &Carrier<'_>,
        snapshot: &SnapshotInfo,
        decision: &Decision,
        done: &mut Done,
    ) -> Result<(), Error> {
        let one = std::slice::from_ref(snapshot);
        let leftovers = leftovers(carrier.replica)?;
        let need = self.need(carrier.replica, one, decision, &done.copied)?;
        let mut carried = Carried::default();
        if need.packs.is_empty() {
            let outcome = carrier.carry(&need, one, leftovers, &mut carried);
            done.copied.append(&mut carried.acknowledged);
            outcome?;
        }
        if !need.packs.is_empty() || !carried.open.is_empty() {
            done.waiting.push(snapshot.id);
        }
        Ok(())
    }

    /// Notes damage at home that keeps a snapshot from being copied, once.
    fn pass_over(
        &self,
        snapshot: &SnapshotInfo,
        outcome: Result<(), Error>,
        done: &mut Done,
    ) -> Result<(), Error> {
        let error = match outcome {
            Err(error) if error.is_damage() => error,
            other => return other,
        };
        let subject = format!("snapshot {}", snapshot.id);
        let known = done.damaged.iter().any(|remark| remark.subject == subject);
        if known || snapshots::is_forgotten(self.home, snapshot)? {
            return Ok(());
        }
        let message = format!("it cannot be copied: {error}");
        let remark = Remark { code: error.code(), subject, message };
        self.home.monitor().warn(remark.clone());
        done.damaged.push(remark);
        Ok(())
    }
}
