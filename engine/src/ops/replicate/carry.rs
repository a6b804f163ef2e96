//! Carries what a replica lacks to it, and names it there: packs, segments, snapshots, a look at the
//! tombs, acknowledgements (SPEC section 10), so that a collection there may run beside it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use cairn_format::ids::{PackId, SessionId, SnapshotId};
use cairn_format::limits::RECORD_BYTES_MAX;
use cairn_format::names::ObjectName;
use cairn_format::segment::PackSection;
use parking_lot::Mutex;

use super::need::Need;
use super::reads::Reads;
use crate::collect::Weakness;
use crate::collect::copy::Copier;
use crate::collect::copy::transfer::{Frames, Origin};
use crate::collect::lease::HeldLease;
use crate::context::Counter;
use crate::error::Error;
use crate::index::catalog::{Before, Catalog};
use crate::index::local::PackNumber;
use crate::ops::acknowledge::{Acknowledged, Visible, acknowledge};
use crate::ops::backup::prove::{Claim, Proof};
use crate::ops::shard::Shard;
use crate::ops::snapshots::SnapshotInfo;
use crate::pack::reader::PackReader;
use crate::repo::Repository;
use crate::repo::vault::read_object;
use crate::store::memory::MemoryStore;
use crate::store::{Put, StoreError};

/// Packs put at once to one replica, at most.
const PUTS_AT_ONCE: u64 = 2;
/// Packs put at once to all replicas together, but for one to each: all of them are held in memory.
const PUTS_AT_ONCE_ALL: u64 = 4;
/// After so many packs they are named, and the snapshots that are complete are published.
const PUBLISH_PACKS: usize = 64;

/// One replica that is being written.
pub(super) struct Carrier<'a> {
    pub(super) home: &'a Repository,
    pub(super) replica: &'a Repository,
    pub(super) catalog: &'a Catalog,
    pub(super) reads: &'a Reads<'a>,
    /// Which replica it is, for the reads.
    pub(super) number: usize,
    /// How many are written at once.
    pub(super) replicas: u64,
    pub(super) session: SessionId,
    pub(super) lease: &'a HeldLease<'a>,
    pub(super) weakness: Option<Weakness>,
}

/// What was carried.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// Packs put as they are.
    pub(super) packs_moved: u64,
    /// Packs written with frames of others.
    pub(super) packs_written: u64,
    /// Their bytes.
    pub(super) bytes_written: u64,
    /// Snapshots acknowledged, with their records and acknowledgements.
    pub(super) acknowledged: Vec<(SnapshotId, ObjectName, ObjectName)>,
    /// Snapshots whose acknowledgement the store took and does not have.
    pub(super) lost: Vec<SnapshotId>,
    /// Snapshots that somebody forgot on the replica meanwhile.
    pub(super) let_go: Vec<SnapshotId>,
    /// Snapshots of which something was collected on the replica meanwhile.
    pub(super) open: Vec<SnapshotId>,
    /// Snapshots that were forgotten at home meanwhile.
    pub(super) gone: Vec<SnapshotId>,
}

impl Carrier<'_> {
    /// Copies what `need` has marked, and publishes the snapshots, which are those it was made from,
    /// in the same order. `leftovers` are packs on the replica that `need` relied on and no segment
    /// names yet.
    ///
    /// # Errors
    /// Damage at home that no other pack makes good; failures of either store or cache. What was
    /// published until then is on the replica.
    pub(super) fn carry(
        &self,
        need: &Need<'_>,
        snapshots: &[SnapshotInfo],
        mut leftovers: Vec<PackSection>,
        carried: &mut Carried,
    ) -> Result<(), Error> {
        let before = self.catalog.standing()?;
        let mut copier = Copier::new(self.replica, self.catalog, self.session)?;
        let (mut done, mut packs) = (BTreeSet::new(), Vec::new());
        let (mut waiting, mut whole, mut partly) = (Vec::new(), Vec::new(), Vec::new());
        let last = snapshots.len().saturating_sub(1);
        for (nth, snapshot) in snapshots.iter().enumerate() {
            for number in need.packs.get(&nth).into_iter().flatten() {
                if done.insert(*number) {
                    let list = if self.may_move(need, *number)? { &mut whole } else { &mut partly };
                    list.push(*number);
                }
            }
            waiting.push(snapshot);
            if nth < last && whole.len() + partly.len() < PUBLISH_PACKS {
                continue;
            }
            let mut sections = std::mem::take(&mut leftovers);
            self.move_whole(&whole, &mut sections, &mut partly, carried)?;
            self.take_parts(need, &partly, &mut copier)?;
            packs.extend(sections.iter().map(|section| section.id));
            packs.extend(copier.finish(sections)?);
            self.publish(need, &waiting, (before, &packs), carried)?;
            waiting.clear();
            whole.clear();
            partly.clear();
        }
        carried.packs_written += copier.packs_written;
        carried.bytes_written += copier.bytes_written;
        Ok(())
    }

    /// Copies what falls to a share of what `need` has marked, and names it there with `leftovers`.
    /// Publishes nothing.
    ///
    /// # Errors
    /// As [`Self::carry`].
    pub(super) fn bring(
        &self,
        need: &Need<'_>,
        shard: Shard,
        leftovers: Vec<PackSection>,
        carried: &mut Carried,
    ) -> Result<(), Error> {
        let catalog = self.home.catalog()?;
        let mut copier = Copier::new(self.replica, self.catalog, self.session)?;
        let mut sections = leftovers;
        let (mut whole, mut partly) = (Vec::new(), Vec::new());
        for number in need.packs.values().flatten().collect::<BTreeSet<_>>() {
            if shard.takes(catalog.pack(*number)?.id.as_bytes()) {
                let list = if self.may_move(need, *number)? { &mut whole } else { &mut partly };
                list.push(*number);
            }
        }
        for whole in whole.chunks(PUBLISH_PACKS) {
            self.move_whole(whole, &mut sections, &mut partly, carried)?;
            copier.finish(std::mem::take(&mut sections))?;
        }
        self.take_parts(need, &partly, &mut copier)?;
        copier.finish(sections)?;
        carried.packs_written += copier.packs_written;
        carried.bytes_written += copier.bytes_written;
        Ok(())
    }

    /// Whether a pack goes as it is: all of it is wanted, and it is condemned on neither side.
    fn may_move(&self, need: &Need<'_>, number: PackNumber) -> Result<bool, Error> {
        let catalog = self.home.catalog()?;
        let id = catalog.pack(number)?.id;
        Ok(!catalog.is_condemned(&id) && !self.catalog.is_condemned(&id) && need.whole(number)?)
    }

    /// Puts packs as they are. One that is damaged at home is left to be taken apart.
    fn move_whole(
        &self,
        packs: &[PackNumber],
        sections: &mut Vec<PackSection>,
        partly: &mut Vec<PackNumber>,
        carried: &mut Carried,
    ) -> Result<(), Error> {
        let next = AtomicUsize::new(0);
        let moved = Mutex::new((Vec::new(), Vec::new(), 0));
        let work = || -> Result<(), Error> {
            while let Some(number) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.home.check_cancelled()?;
                self.lease.renew();
                match self.move_one(*number) {
                    Ok((section, bytes)) => {
                        let (sections, _, total) = &mut *moved.lock();
                        sections.push(section);
                        *total += bytes;
                    }
                    Err(error) if error.is_damage() && !error.has_vanished() => {
                        moved.lock().1.push(*number);
                    }
                    Err(error) => {
                        next.store(packs.len(), Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
            Ok(())
        };
        let outcomes = std::thread::scope(|scope| {
            let threads = (PUTS_AT_ONCE_ALL / self.replicas.max(1)).clamp(1, PUTS_AT_ONCE);
            let threads =
                (0..threads.min(packs.len() as u64)).map(|_| scope.spawn(work)).collect::<Vec<_>>();
            threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
        });
        for outcome in outcomes {
            outcome.map_err(|_| Error::Internal { part: "copying packs" })??;
        }
        let (mut found, mut damaged, bytes) = moved.into_inner();
        found.sort_by_key(|section: &PackSection| section.id);
        damaged.sort_unstable();
        carried.packs_moved += found.len() as u64;
        carried.bytes_written += bytes;
        sections.append(&mut found);
        partly.append(&mut damaged);
        Ok(())
    }

    /// Reads a pack, whose hash is compared with its name, and puts it; returns what its own
    /// directory says, and the bytes that were written.
    fn move_one(&self, number: PackNumber) -> Result<(PackSection, u64), Error> {
        let record = self.home.catalog()?.pack(number)?;
        let name = ObjectName::Pack(record.kind, record.id);
        let bytes = self.reads.pack(self.number, record.kind, record.id)?;
        let length = bytes.len() as u64;
        let shelf = MemoryStore::new();
        shelf.overwrite(name, bytes.clone());
        let reader = PackReader::new(&shelf, &self.home.keys);
        let section = reader.directory(record.kind, record.id, length, &self.home.trust)?;
        // What is missing was found in the index: what a pack really holds is in its directory.
        if section.frames != self.home.catalog()?.frames(number)? {
            let message = "the index describes it otherwise than its directory".to_owned();
            return Err(Error::PackDamaged { pack: record.id, message });
        }
        let put = self.replica.store().put_shared(&name, &bytes)?;
        self.catalog.add_pending(&section)?;
        let monitor = self.replica.monitor();
        if put == Put::AlreadyThere {
            return Ok((section, 0));
        }
        monitor.count(Counter::PacksStored, 1);
        monitor.count(Counter::BytesStored, length);
        Ok((section, length))
    }

    /// Takes what is wanted out of packs: frames without bases first.
    fn take_parts(
        &self,
        need: &Need<'_>,
        packs: &[PackNumber],
        copier: &mut Copier<'_>,
    ) -> Result<(), Error> {
        let catalog = self.home.catalog()?;
        let origin = Origin { repository: self.home, catalog, wanted: &need.marks };
        for frames in [Frames::Plain, Frames::Based] {
            for number in packs {
                self.lease.renew();
                let none: Option<Bytes> = None;
                copier.transfer(origin, *number, frames, none)?;
            }
        }
        Ok(())
    }

    /// Puts snapshots, looks at the tombs again, and acknowledges those whose content is there.
    fn publish(
        &self,
        need: &Need<'_>,
        snapshots: &[&SnapshotInfo],
        (before, packs): (Before, &[PackId]),
        carried: &mut Carried,
    ) -> Result<(), Error> {
        let vault = self.replica.vault();
        self.lease.renew();
        let mut visible = Vec::new();
        for snapshot in snapshots {
            let name = snapshot.name();
            match read_object(self.home.store(), &name, RECORD_BYTES_MAX) {
                Ok(object) => {
                    vault.store.put(&name, &object)?;
                    visible.push((*snapshot, name));
                }
                Err(Error::Store(StoreError::NotFound { .. })) => carried.gone.push(snapshot.id),
                Err(error) => return Err(error),
            }
        }
        if visible.is_empty() {
            return Ok(());
        }
        if self.weakness != Some(Weakness::Precheck) {
            self.catalog.sync_keeping(vault)?;
        }
        self.catalog.require_sound_tombs()?;
        let quiet = self.catalog.condemned_since(&before) == 0
            && need.relied.stands(self.replica.store(), self.catalog)?;
        for (snapshot, name) in visible {
            let proof = match quiet {
                true => Proof::Complete(0),
                false => Claim {
                    repository: self.replica,
                    catalog: self.catalog,
                    session: self.session,
                    root: snapshot.record.root,
                    namespace: snapshot.namespace,
                    before,
                    packs,
                    relied: &need.relied,
                }
                .prove()?,
            };
            match proof {
                Proof::Complete(_) => {
                    let (id, job) = (snapshot.id, snapshot.record.job.as_str());
                    let visible = Visible { id, name: &name, job };
                    match acknowledge(vault, self.catalog, self.session, visible)? {
                        Acknowledged::Stands(ack) => carried.acknowledged.push((id, name, ack)),
                        // Somebody forgot it on the replica meanwhile: it is not to be brought back.
                        Acknowledged::Forgotten => carried.let_go.push(id),
                        Acknowledged::Lost => carried.lost.push(id),
                    }
                }
                Proof::Open(_) => carried.open.push(snapshot.id),
            }
        }
        Ok(())
    }
}
