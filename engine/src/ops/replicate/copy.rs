//! Copies the snapshots that a replica lacks, and looks again where a collection, at home or there, moves
//! meanwhile what is copied or relied on.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};

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
    settled: RefCell<Settled>,
}

/// What has been settled since it was decided what to copy.
struct Settled {
    /// Records of snapshots on both sides, and their acknowledgements on the replica.
    both: BTreeMap<ObjectName, ObjectName>,
    /// Snapshots that need not be copied any more: they were, or somebody forgot them there meanwhile.
    over: HashSet<SnapshotId>,
}

impl<'a> Copying<'a> {
    /// Copies what is to be copied, or the share of it that falls to this host.
    ///
    /// # Errors
    /// [`Error::CopyCondemned`] where collections there take away what is relied on, again and again;
    /// failures of either store or cache. Damage at home is noted in `done`.
    pub(super) fn run(
        one: &'a One<'a>,
        replica: &'a Repository,
        decision: &'a Decision,
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
            replicas: one.replicas,
            session,
            lease: &lease,
            weakness: one.target.weakness,
        };
        let settled = Settled { both: decision.both.clone(), over: HashSet::new() };
        let copying = Copying { one, replica, decision, carrier, settled: RefCell::new(settled) };
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
        let mut unfinished = 0;
        for snapshot in self.left(&self.decision.copy) {
            match self.copy_all(std::slice::from_ref(&snapshot), None, done) {
                Err(Error::CopyCondemned { snapshots }) => unfinished += snapshots,
                copied => self.pass_over(&snapshot, copied, done)?,
            }
        }
        match unfinished {
            0 => Ok(()),
            snapshots => Err(Error::CopyCondemned { snapshots }),
        }
    }

    fn copy_all(
        &self,
        snapshots: &[SnapshotInfo],
        mut undecided: Option<&mut Undecided<'_>>,
        done: &mut Done,
    ) -> Result<(), Error> {
        let mut rely = true;
        for _ in 0..ROUNDS_MAX {
            let open = self.again(|| {
                self.copy_some(&self.left(snapshots), rely, undecided.as_deref_mut(), done)
            })?;
            // What was found gone is not taken for stored again because a snapshot there had it.
            rely &= open.is_empty();
            if self.left(snapshots).is_empty() {
                return Ok(());
            }
        }
        Err(Error::CopyCondemned { snapshots: self.left(snapshots).len() })
    }

    /// Copies snapshots; returns those that rely on what was collected meanwhile.
    fn copy_some(
        &self,
        snapshots: &[SnapshotInfo],
        rely: bool,
        undecided: Option<&mut Undecided<'_>>,
        done: &mut Done,
    ) -> Result<Vec<SnapshotId>, Error> {
        let leftovers = self.leftovers()?;
        let need = self.need(snapshots, rely)?;
        if need.held > 0 {
            self.one.memory.note_dead();
        }
        if let Some(undecided) = undecided {
            undecided.decide(&need, |_| true)?;
        }
        let mut carried = Carried::default();
        let outcome = self.carrier.carry(&need, snapshots, leftovers, &mut carried);
        self.one.reads.withdraw(self.one.number);
        done.chunks += need.chunks;
        done.bytes_plain += need.bytes;
        done.chunks_held += need.held;
        done.note(&carried);
        self.settle(&carried, done);
        outcome?;
        Ok(carried.open)
    }

    /// Those of the snapshots that are not settled.
    fn left(&self, snapshots: &[SnapshotInfo]) -> Vec<SnapshotInfo> {
        let over = &self.settled.borrow().over;
        snapshots.iter().filter(|one| !over.contains(&one.id)).cloned().collect()
    }

    /// Notes what needs nothing more.
    pub(super) fn settle(&self, carried: &Carried, done: &mut Done) {
        let mut settled = self.settled.borrow_mut();
        settled.over.extend(carried.gone.iter().chain(&carried.let_go));
        for (id, record, ack) in &carried.acknowledged {
            settled.over.insert(*id);
            settled.both.insert(*record, *ack);
            done.copied.push(*id);
        }
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

    /// What these snapshots need that the replica lacks; `rely`: what others have that are on either side by
    /// now is taken for stored there.
    pub(super) fn need(&self, snapshots: &[SnapshotInfo], rely: bool) -> Result<Need<'a>, Error> {
        match rely {
            true => lacking(self.one.home, self.replica, snapshots, &self.settled.borrow().both),
            false => lacking(self.one.home, self.replica, snapshots, &BTreeMap::new()),
        }
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

/// What these snapshots need that the replica lacks. What those have is taken for stored there that are on
/// `both` sides.
///
/// # Errors
/// Damage at home; failures of either store or cache.
pub(super) fn lacking<'n>(
    home: &'n Repository,
    replica: &'n Repository,
    snapshots: &[SnapshotInfo],
    both: &BTreeMap<ObjectName, ObjectName>,
) -> Result<Need<'n>, Error> {
    let mut need = Need::new(home, replica)?;
    if snapshots.is_empty() {
        return Ok(need);
    }
    let mut likes = Likes::new(home, both);
    for (nth, snapshot) in snapshots.iter().enumerate() {
        need.add(nth, snapshot, likes.of(snapshot)?.as_ref())?;
    }
    need.add_bases()?;
    Ok(need)
}
