//! Copies the snapshots that a replica lacks, and looks again where a collection, at home or there, moves
//! meanwhile what is copied or relied on.

use cairn_format::ids::{SessionId, SnapshotId};
use cairn_format::names::ObjectName;
use cairn_format::segment::PackSection;

use super::carry::{Carried, Carrier};
use super::decide::{Decision, Likes};
use super::need::Need;
use super::one::One;
use super::reads::Undecided;
use super::report::Done;
use crate::collect::lease::HeldLease;
use crate::context::Remark;
use crate::error::{Error, Explain};
use crate::index::catalog::Before;
use crate::ops::snapshots::{self, SnapshotInfo};
use crate::repo::Repository;
use crate::seal::random;

/// How often what a replica lacks is looked for again, when a collection changes it meanwhile.
const ROUNDS_MAX: usize = 4;

/// The copying of snapshots to one replica.
pub(super) struct Copying<'a> {
    pub(super) one: &'a One<'a>,
    pub(super) replica: &'a Repository,
    pub(super) decision: &'a Decision,
    pub(super) carrier: Carrier<'a>,
}

impl<'a> Copying<'a> {
    /// Copies what is to be copied, or the share of it that falls to this host. `before` is how packs
    /// stood on the replica before its snapshots were listed.
    ///
    /// # Errors
    /// [`Error::CopyCondemned`] where collections there take away what is relied on, again and again;
    /// failures of either store or cache. Damage at home is noted in `done`.
    pub(super) fn run(
        one: &'a One<'a>,
        replica: &'a Repository,
        (decision, before): (&'a Decision, Before),
        mut undecided: Undecided<'_>,
        done: &mut Done,
    ) -> Result<(), Error> {
        if decision.copy.is_empty() {
            return Ok(());
        }
        let session = SessionId::from_bytes(random::array(one.home.context.random.as_ref())?);
        let lease = HeldLease::take(replica.vault(), session, "replicate");
        let carrier = Carrier {
            home: one.home,
            replica,
            catalog: replica.catalog()?,
            reads: one.reads,
            number: one.number,
            session,
            lease: &lease,
            before,
            weakness: one.target.weakness,
        };
        let copying = Copying { one, replica, decision, carrier };
        match one.shard.is_all() {
            true => copying.copy(&mut undecided, done)?,
            false => copying.copy_share(&mut undecided, done)?,
        }
        lease.end();
        Ok(())
    }

    /// Copies all; where something at home is damaged, one by one, so that only those fail that need it.
    fn copy(&self, undecided: &mut Undecided<'_>, done: &mut Done) -> Result<(), Error> {
        match self.copy_all(&self.decision.copy, Some(undecided), done) {
            Err(error) if error.is_damage() => {}
            outcome => return outcome,
        }
        for snapshot in &self.decision.copy {
            let copied = self.copy_all(std::slice::from_ref(snapshot), None, done);
            self.pass_over(snapshot, copied, done)?;
        }
        Ok(())
    }

    fn copy_all(
        &self,
        snapshots: &[SnapshotInfo],
        mut undecided: Option<&mut Undecided<'_>>,
        done: &mut Done,
    ) -> Result<(), Error> {
        let mut left = snapshots.to_vec();
        for round in 0..ROUNDS_MAX {
            // The second time nothing is taken for stored because a snapshot there has it.
            let rely = round == 0;
            let open =
                self.again(|| self.copy_some(&left, rely, undecided.as_deref_mut(), done))?;
            left.retain(|one| open.contains(&one.id));
            if left.is_empty() {
                return Ok(());
            }
        }
        Err(Error::CopyCondemned { snapshots: left.len() })
    }

    /// Copies those of the snapshots that were not copied yet; returns those that have to be looked at
    /// again.
    fn copy_some(
        &self,
        snapshots: &[SnapshotInfo],
        rely: bool,
        undecided: Option<&mut Undecided<'_>>,
        done: &mut Done,
    ) -> Result<Vec<SnapshotId>, Error> {
        let left = snapshots.iter().filter(|one| !done.copied.contains(&one.id));
        let left = left.cloned().collect::<Vec<_>>();
        let leftovers = self.leftovers()?;
        let need = self.need(&left, rely, &done.copied)?;
        if let Some(undecided) = undecided {
            undecided.decide(&need, |_| true)?;
        }
        let mut carried = Carried::default();
        let outcome = self.carrier.carry(&need, &left, leftovers, &mut carried);
        self.one.reads.withdraw(self.one.number);
        done.chunks += need.chunks;
        done.bytes_plain += need.bytes;
        done.chunks_held += need.held;
        done.note(&carried);
        done.copied.extend(carried.acknowledged);
        outcome?;
        Ok(carried.open)
    }

    /// Attempts something again where a collection, at home or there, has moved what it reads.
    pub(super) fn again<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        for _ in 1..ROUNDS_MAX {
            match attempt() {
                Err(error) if error.has_vanished() => {
                    self.one.home.refresh_catalog()?;
                    self.replica.refresh_catalog()?;
                }
                outcome => return outcome,
            }
        }
        attempt()
    }

    /// What these snapshots need that the replica lacks; `rely`: what others have that are on either side,
    /// or `copied` by now, is taken for stored there. Where some of it is there for the sake of others, it
    /// is noted that it may expire there.
    pub(super) fn need(
        &self,
        snapshots: &[SnapshotInfo],
        rely: bool,
        copied: &[SnapshotId],
    ) -> Result<Need<'a>, Error> {
        let (mut both, mut likes) = (self.decision.both.as_slice(), Vec::new());
        match rely {
            true => likes
                .extend(self.decision.copy.iter().filter(|one| copied.contains(&one.id)).cloned()),
            false => both = &[],
        }
        let need = lacking(self.one.home, self.replica, snapshots, both, &likes)?;
        if need.held > 0 {
            self.one.memory.note_dead();
        }
        Ok(need)
    }

    /// What runs before put on the replica and did not name, to be named by this one. Looked for before
    /// it is decided what is lacking: what is gone again is not relied on, and packs of writers' keys
    /// are put once more.
    pub(super) fn leftovers(&self) -> Result<Vec<PackSection>, Error> {
        let leftovers = self.carrier.catalog.leftover_sections(self.replica.vault())?;
        self.carrier.catalog.find_condemned()?;
        Ok(leftovers)
    }

    /// Notes damage at home that keeps a snapshot from being copied, once.
    pub(super) fn pass_over(
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
        if known || snapshots::is_forgotten(self.one.home, snapshot)? {
            return Ok(());
        }
        let message = format!("it cannot be copied: {error}");
        let remark = Remark { code: error.code(), subject, message };
        self.one.home.monitor().warn(remark.clone());
        done.damaged.push(remark);
        Ok(())
    }
}

/// What these snapshots need that the replica lacks. `both` are on either side, and so are `copied` by
/// now: what they have is taken for stored there.
///
/// # Errors
/// Damage at home; failures of either store or cache.
pub(super) fn lacking<'n>(
    home: &'n Repository,
    replica: &'n Repository,
    snapshots: &[SnapshotInfo],
    both: &[ObjectName],
    copied: &[SnapshotInfo],
) -> Result<Need<'n>, Error> {
    let mut need = Need::new(home, replica)?;
    if snapshots.is_empty() {
        return Ok(need);
    }
    let mut likes = Likes::new(home, both);
    for snapshot in copied {
        likes.add(snapshot);
    }
    for (nth, snapshot) in snapshots.iter().enumerate() {
        need.add(nth, snapshot, likes.of(snapshot)?.as_ref())?;
    }
    need.add_bases()?;
    Ok(need)
}
