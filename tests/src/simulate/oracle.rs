//! The oracle: what must hold of the store at any time.

use std::collections::BTreeSet;

use cairn_engine::error::Error;
use cairn_engine::ops::snapshots::{self, SnapshotInfo};
use cairn_engine::repo::Repository;
use cairn_engine::seal::envelope::data_key_fingerprint;
use cairn_engine::store::StoreError;
use cairn_format::envelope::HEADER_BYTES;
use cairn_format::ids::SnapshotId;
use cairn_format::names::ObjectName;
use cairn_format::receipt::{AuditMethod, AuditResult, Receipt, ReceiptRecord};

use super::Scene;
use super::mutant::Mutant;
use super::plan::{ActorPlan, Task};
use super::site::{Place, Site};
use crate::contents::contents;
use crate::lab::OWNER;
use crate::service::{Change, Profile};

impl Scene {
    /// Takes note of a change while nobody else has the turn. `actor` is who made it just now.
    pub(super) fn note(
        &self,
        place: Place,
        actor: Option<usize>,
        name: &ObjectName,
        change: &Change,
    ) {
        let site = self.site(place);
        if let (Change::Put(data), Some(hash)) = (change, name.content_hash())
            && *blake3::hash(data).as_bytes() != hash
        {
            self.violation(format!("{name} is put with bytes of another name"));
        }
        match (name, change) {
            (_, Change::Delete) => {
                // The deletion may have failed, or been for show.
                if !matches!(site.truth().size(name), Err(StoreError::NotFound { .. })) {
                    return;
                }
                if let ObjectName::Ack { snapshot, .. } = name {
                    if let (Place::Replica, Some(actor)) = (place, actor) {
                        self.judge_forgetting(actor, *snapshot);
                    }
                    site.forgotten.lock().insert(*snapshot);
                }
                if let ObjectName::Snapshot { id, .. } = name
                    && site.lost_ack(*id)
                {
                    // Its acknowledgement would have gone before.
                    if let (Place::Replica, Some(actor)) = (place, actor) {
                        self.judge_forgetting(actor, *id);
                    }
                    site.forgotten.lock().insert(*id);
                }
                site.deleted.lock().insert(*name);
                site.put_again.lock().remove(name);
                if actor.is_some() {
                    // From now on what it held has to be elsewhere.
                    site.harmed.lock().remove(name);
                }
            }
            (_, Change::Purge) => {
                if !site.service.is_stolen(name) {
                    site.harmed.lock().remove(name);
                }
            }
            (ObjectName::Receipt { .. }, Change::Put(data)) => {
                self.believe_receipt(site, name, data);
                self.note_data_key(name, data);
            }
            (ObjectName::Ack { snapshot, .. }, Change::Put(data)) => {
                self.acknowledged.lock().insert(*snapshot);
                self.note_data_key(name, data);
            }
            (_, Change::Put(data)) => {
                let collects =
                    |actor: usize| self.plan.actors.get(actor).is_some_and(ActorPlan::collects);
                if matches!(name, ObjectName::Pack(..))
                    && actor.is_some_and(collects)
                    && site.truth().size(name).is_err()
                {
                    let acknowledged = self.acknowledged.lock().clone();
                    site.lost_when.lock().entry(*name).or_insert(acknowledged);
                }
                if site.deleted.lock().contains(name) {
                    site.put_again.lock().insert(*name);
                    site.came_back.lock().insert(*name);
                }
                // What was there before, and was damaged, may have been part of it only.
                if site.truth().get(name, u64::MAX).is_ok_and(|there| there == *data) {
                    site.harmed.lock().remove(name);
                }
                self.note_data_key(name, data);
            }
        }
    }

    /// A replica gives up only what home has given up, or what its own rules do not keep.
    fn judge_forgetting(&self, actor: usize, snapshot: SnapshotId) {
        let replicates = matches!(self.doing.lock().get(&actor), Some(Task::Replicate));
        if replicates && self.home.forgotten.lock().contains(&snapshot) {
            return;
        }
        // Its record was lost: it is no snapshot without.
        let lost =
            |name: &ObjectName| matches!(name, ObjectName::Snapshot { id, .. } if *id == snapshot);
        if self.replica.service.toll().lost.keys().any(lost) {
            return;
        }
        let known = self.known.lock();
        let Some(own) = known.get(&snapshot) else { return };
        let acknowledged = self.acknowledged.lock();
        let others = known.iter().filter(|(id, other)| {
            **id != snapshot && other.job == own.job && acknowledged.contains(*id)
        });
        let made_anew = others.clone().any(|(_, other)| other.first == own.first);
        let kept = self.plan.keep.is_some_and(|keep| others.count() >= keep as usize);
        let ruled = self.plan.keep.is_some() && (made_anew || kept);
        if !(replicates && ruled) {
            self.violation(format!("the replica gave up snapshot {snapshot}, which home has"));
        }
    }

    /// No two objects are sealed with one key: so no key meets a nonce twice, since within an object
    /// nonces are counted.
    fn note_data_key(&self, name: &ObjectName, data: &[u8]) {
        let sealed = matches!(
            name,
            ObjectName::Pack(..)
                | ObjectName::Index(_)
                | ObjectName::Snapshot { .. }
                | ObjectName::Ack { .. }
                | ObjectName::Lease { .. }
                | ObjectName::Tomb { .. }
        );
        if !sealed {
            return;
        }
        let header = data.get(..HEADER_BYTES).unwrap_or_default();
        match data_key_fingerprint(header, &self.owner.keys) {
            Ok(fingerprint) => {
                let before = self.data_keys.lock().insert(fingerprint, *name);
                if let Some(other) = before.filter(|other| other != name) {
                    self.violation(format!("{name} is sealed with the data key of {other}"));
                }
            }
            Err(error) => {
                self.violation(format!("{name} cannot be opened when it is put: {error}"))
            }
        }
    }

    /// What a receipt says is gone is not there when it is put, unless somebody put it again since.
    fn believe_receipt(&self, site: &Site, name: &ObjectName, data: &[u8]) {
        // What comes back by itself may do so between the look and the receipt.
        if site.service.profile() == Profile::Late {
            return;
        }
        let receipt: Result<(_, Receipt), _> = self.owner.trust.verify_receipt(data);
        match receipt {
            // It only says what is meant to go.
            Ok((_, receipt)) if receipt.record.audits.is_empty() => {}
            Ok((_, receipt)) => {
                let truth = site.truth();
                let again = site.put_again.lock().clone();
                let mut gone = receipt.record.deleted.iter().filter(|name| !again.contains(name));
                let there = gone.find(|name| truth.size(name).is_ok());
                if let Some(there) = there {
                    self.violation(format!("{name} says that {there} is gone, and it is there"));
                }
                self.believe_versions(site, name, &receipt.record);
            }
            Err(error) => self.violation(format!("{name} does not hold when it is put: {error}")),
        }
    }

    /// Of what it says is gone nothing is kept as an older version, or may be without being shown,
    /// which it says.
    fn believe_versions(&self, site: &Site, name: &ObjectName, receipt: &ReceiptRecord) {
        if receipt.audits.iter().any(|audit| audit.result == AuditResult::StillThere) {
            return;
        }
        let profile = site.service.profile();
        let expected = match profile {
            Profile::Versioned => AuditResult::Gone,
            Profile::SoftDelete => AuditResult::Unknown,
            _ => return,
        };
        let by_versions =
            receipt.audits.iter().filter(|audit| audit.method == AuditMethod::ByVersionListing);
        let results = by_versions.map(|audit| audit.result).collect::<Vec<_>>();
        if results.is_empty() || results.iter().any(|result| *result != expected) {
            self.violation(format!("{name} says {results:?} of older versions"));
        }
        if !profile.shows_versions() {
            return;
        }
        // What came back may have been deleted again since.
        let again = site.came_back.lock().clone();
        let kept = site.service.kept_bytes_of().into_iter();
        let mut kept = kept.filter(|one| receipt.deleted.contains(one) && !again.contains(one));
        if let Some(kept) = kept.next() {
            self.violation(format!("{name} says that {kept} is gone, and a version is there"));
        }
    }

    /// Every acknowledged snapshot that a copy has can be read there by whoever knows nothing, and
    /// holds what was backed up, but for what was erased; every snapshot that was reported done is
    /// there, unless it was given up.
    pub(super) fn look(&self, place: Place, when: &str) {
        let site = self.site(place);
        // What a service loses of what a backup stored cannot be had back; what it loses of what a
        // collection stored must not cost anything.
        let counts = |_: &ObjectName, actor: usize| {
            self.is(Mutant::CountsLosses)
                || self.plan.actors.get(actor).is_some_and(ActorPlan::collects)
        };
        let when = format!("{}, {when}", place.name());
        site.service
            .without_loss(counts, || Self::as_before_harm(site, || self.look_now(site, &when)));
    }

    fn look_now(&self, site: &Site, when: &str) {
        if !site.is_there() {
            return;
        }
        let opened = self.world.try_open(site.truth(), OWNER, 5);
        let listed = opened.and_then(|repository| {
            let (listed, _) = snapshots::list_all(&repository)?;
            Ok((repository, listed))
        });
        let (repository, listed) = match listed {
            Ok(listed) => listed,
            Err(error) => {
                return self.violation(format!("{when}: snapshots cannot be listed: {error}"));
            }
        };
        let forgotten = site.forgotten.lock().clone();
        let mut there = BTreeSet::new();
        for snapshot in &listed {
            self.know(snapshot);
        }
        for snapshot in listed.iter().filter(|snapshot| snapshot.acknowledged) {
            there.insert(self.first(snapshot.id));
            there.insert(snapshot.id);
            if forgotten.contains(&snapshot.id) {
                // It came back after it was forgotten.
                continue;
            }
            if let Err(what) = self.compare(&repository, snapshot, site.place == Place::Home)
                && !self.relies_on_lost(site, snapshot)
            {
                let tag = snapshot.record.tags.join(" ");
                self.violation(format!(
                    "{when}: the acknowledged snapshot of {tag} is lost: {what}"
                ));
            }
        }
        let reported = site.reported.lock().clone();
        let lost = reported.iter().find(|(id, tag)| match site.place {
            Place::Home => {
                let first = self.first(**id);
                !there.contains(&first)
                    && !self.given_up.lock().contains(&first)
                    && !self.is_erased(tag)
            }
            Place::Replica => !there.contains(*id) && !forgotten.contains(*id),
        });
        if let Some((_, tag)) = lost {
            self.violation(format!("{when}: the snapshot of {tag} is lost: it was reported done"));
        }
    }

    /// Whether a snapshot can be read but for packs that collections stored and that were lost before it
    /// was acknowledged: it found them in the index, as what backups stored.
    fn relies_on_lost(&self, site: &Site, snapshot: &SnapshotInfo) -> bool {
        let lost = site.lost_when.lock().clone();
        if lost.is_empty() {
            return false;
        }
        let late =
            |name: &ObjectName| lost.get(name).is_some_and(|then| !then.contains(&snapshot.id));
        site.service.without_loss(
            |name, _| !late(name),
            || {
                let opened = self.world.try_open(site.truth(), OWNER, 6);
                let home = site.place == Place::Home;
                opened.is_ok_and(|repository| self.compare(&repository, snapshot, home).is_ok())
            },
        )
    }

    /// Whether of a snapshot nothing need be left but empty folders.
    fn is_erased(&self, tag: &str) -> bool {
        let erasing = self.erasing.lock();
        let expected = self.expected.lock();
        expected.get(tag).is_some_and(|files| files.keys().all(|name| erasing.contains(name)))
    }

    /// Reads every acknowledged snapshot on the way of an actor; `around` what is damaged. One that
    /// cannot be read, and that nobody has forgotten meanwhile, is a violation.
    pub(super) fn read_all(&self, repository: &Repository, around: bool) -> Result<(), Error> {
        let covered = |id| around && self.is_covered(id);
        let listed = snapshots::list(repository)?;
        let before = listed.iter().map(|one| covered(one.id)).collect::<Vec<_>>();
        for (snapshot, before) in listed.iter().zip(before).filter(|(one, _)| one.acknowledged) {
            let Err(what) = self.compare(repository, snapshot, false) else { continue };
            let name = snapshot.name();
            let excused = self.is_harmed() && !(before && covered(snapshot.id));
            match repository.store().size(&name) {
                Ok(_) if excused || self.strikes() > 0 => {
                    // What the oracle finds lost it says itself.
                    return Err(Error::ChunkMissing { chunk: snapshot.record.root });
                }
                Ok(_) => {
                    let tag = snapshot.record.tags.join(" ");
                    self.violation(format!("a reader cannot read the snapshot of {tag}: {what}"));
                }
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn compare(
        &self,
        repository: &Repository,
        snapshot: &SnapshotInfo,
        erased: bool,
    ) -> Result<(), String> {
        let found = contents(repository, snapshot)?;
        let tag = snapshot.record.tags.first().cloned().unwrap_or_default();
        let Some(expected) = self.expected.lock().get(&tag).cloned() else { return Ok(()) };
        if let Some((name, _)) = found.iter().find(|(name, held)| expected.get(*name) != Some(held))
        {
            return Err(format!("its file {name} differs"));
        }
        let remade = !snapshot.former().is_empty();
        let erasing = self.erasing.lock().clone();
        let missing = expected.keys().filter(|name| !found.contains_key(*name));
        if let Some(name) = missing.into_iter().find(|name| !(remade && erasing.contains(*name))) {
            return Err(format!("its file {name} is missing"));
        }
        if erased {
            let was_there = |before: &BTreeSet<SnapshotId>| {
                before.contains(&snapshot.id)
                    || snapshot.former().iter().any(|id| before.contains(id))
            };
            let all = self.erased.lock();
            let left =
                all.iter().find(|(name, before)| found.contains_key(name) && was_there(before));
            if let Some((name, _)) = left {
                return Err(format!("it still holds {name}, which was erased"));
            }
        }
        Ok(())
    }
}
