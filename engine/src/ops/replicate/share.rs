//! What one of several hosts does for a replica: it brings the packs that fall to it, and makes visible
//! what it then finds to be complete.
//!
//! Each host puts packs and segments first and looks afterwards, so of those that bring the last parts
//! of a snapshot at least one sees all of them (SPEC section 12 on listings). Whoever sees them does what
//! a replication does that finds everything there already.

use super::carry::Carried;
use super::copy::Copying;
use super::reads::Undecided;
use super::report::Done;
use crate::error::Error;
use crate::ops::snapshots::SnapshotInfo;

impl Copying<'_> {
    pub(super) fn copy_share(
        &self,
        undecided: &mut Undecided<'_>,
        done: &mut Done,
    ) -> Result<(), Error> {
        match self.bring(&self.decision.copy, Some(undecided), done) {
            // Then only those snapshots fail that need what is damaged.
            Err(error) if error.is_damage() => {
                for snapshot in &self.decision.copy {
                    let brought = self.bring(std::slice::from_ref(snapshot), None, done);
                    self.pass_over(snapshot, brought, done)?;
                }
            }
            brought => brought?,
        }
        self.replica.refresh_catalog()?;
        for snapshot in &self.decision.copy {
            self.carrier.lease.renew();
            let shown = self.again(|| self.show(snapshot, done));
            self.pass_over(snapshot, shown, done)?;
        }
        Ok(())
    }

    /// Brings what falls to this share.
    fn bring(
        &self,
        snapshots: &[SnapshotInfo],
        mut undecided: Option<&mut Undecided<'_>>,
        done: &mut Done,
    ) -> Result<(), Error> {
        let shard = self.one.shard;
        self.again(|| {
            let leftovers = self.leftovers()?;
            let need = self.need(snapshots, true)?;
            if need.held > 0 {
                self.one.memory.note_dead();
            }
            if let Some(undecided) = undecided.as_deref_mut() {
                undecided.decide(&need, |pack| shard.takes(pack.as_bytes()))?;
            }
            let mut carried = Carried::default();
            let outcome = self.carrier.bring(&need, shard, leftovers, &mut carried);
            self.one.reads.withdraw(self.one.number);
            done.chunks = done.chunks.max(need.chunks);
            done.bytes_plain = done.bytes_plain.max(need.bytes);
            done.chunks_held = done.chunks_held.max(need.held);
            done.note(&carried);
            outcome
        })
    }

    /// Makes a snapshot visible if nothing of it is lacking.
    fn show(&self, snapshot: &SnapshotInfo, done: &mut Done) -> Result<(), Error> {
        // What was found gone is not taken for stored again because a snapshot there had it.
        for rely in [true, false] {
            let leftovers = self.leftovers()?;
            let need = self.need(std::slice::from_ref(snapshot), rely)?;
            if !need.packs.is_empty() {
                break;
            }
            let mut carried = Carried::default();
            let outcome =
                self.carrier.carry(&need, std::slice::from_ref(snapshot), leftovers, &mut carried);
            self.settle(&carried, done);
            outcome?;
            if carried.open.is_empty() && carried.lost.is_empty() {
                return Ok(());
            }
        }
        done.waiting.push(snapshot.id);
        Ok(())
    }
}
