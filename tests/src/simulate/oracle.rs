//! The oracle: what must hold of the store at any time.

use cairn_engine::error::Error;
use cairn_engine::ops::snapshots::{self, SnapshotInfo};
use cairn_engine::repo::Repository;
use cairn_engine::seal::envelope::data_key_fingerprint;
use cairn_engine::store::StoreError;
use cairn_format::envelope::HEADER_BYTES;
use cairn_format::names::ObjectName;
use cairn_format::receipt::Receipt;

use super::Scene;
use super::mutant::Mutant;
use crate::contents::contents;
use crate::lab::OWNER;
use crate::service::Profile;
use crate::turns::Change;

impl Scene {
    /// Takes note of a change while nobody else has the turn.
    pub(super) fn note(&self, name: &ObjectName, change: &Change) {
        match (name, change) {
            (ObjectName::Ack { snapshot, .. }, Change::Delete) => {
                // The deletion may have failed, or been for show.
                let absent =
                    matches!(self.service.truth().size(name), Err(StoreError::NotFound { .. }));
                if absent {
                    self.forgotten.lock().insert(*snapshot);
                }
            }
            (ObjectName::Receipt { .. }, Change::Put(data)) => {
                self.believe_receipt(name, data);
                self.note_data_key(name, data);
            }
            (_, Change::Put(data)) => self.note_data_key(name, data),
            (_, Change::Delete) => {}
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

    /// What a receipt says is gone is not there when it is put.
    fn believe_receipt(&self, name: &ObjectName, data: &[u8]) {
        // What comes back by itself may do so between the look and the receipt.
        if self.service.profile() == Profile::Late {
            return;
        }
        let receipt: Result<(_, Receipt), _> = self.owner.trust.verify_receipt(data);
        match receipt {
            Ok((_, receipt)) => {
                let truth = self.service.truth();
                let there = receipt.record.deleted.iter().find(|name| truth.size(name).is_ok());
                if let Some(there) = there {
                    self.violation(format!("{name} says that {there} is gone, and it is there"));
                }
            }
            Err(error) => self.violation(format!("{name} does not hold when it is put: {error}")),
        }
    }

    /// Every acknowledged snapshot that is there can be read by whoever knows nothing, and holds
    /// what was backed up; every snapshot that was reported done is there, unless it was forgotten.
    pub(super) fn look(&self, when: &str) {
        // What a service loses of what a backup stored cannot be had back; what it loses of what a
        // collection stored must not cost anything.
        let counts = |actor: usize| {
            self.is(Mutant::CountsLosses)
                || self.actors.get(actor).is_some_and(super::ActorPlan::collects)
        };
        self.service.without_loss(counts, || self.look_now(when));
    }

    fn look_now(&self, when: &str) {
        let repository = self.world.open(self.service.truth(), OWNER, 5);
        let (listed, _) = match snapshots::list_all(&repository) {
            Ok(listed) => listed,
            Err(error) => {
                return self.violation(format!("{when}: snapshots cannot be listed: {error}"));
            }
        };
        let forgotten = self.forgotten.lock().clone();
        let mut reported = self.reported.lock().clone();
        reported.retain(|id, _| !forgotten.contains(id));
        for snapshot in listed.iter().filter(|snapshot| snapshot.acknowledged) {
            reported.remove(&snapshot.id);
            if forgotten.contains(&snapshot.id) {
                // It came back after it was forgotten.
                continue;
            }
            if let Err(what) = self.compare(&repository, snapshot) {
                let job = &snapshot.record.job;
                self.violation(format!(
                    "{when}: the acknowledged snapshot of {job} is lost: {what}"
                ));
            }
        }
        if let Some(job) = reported.values().next() {
            self.violation(format!("{when}: the snapshot of {job} is lost: it was reported done"));
        }
    }

    /// Reads every acknowledged snapshot on the way of an actor. One that cannot be read, and that
    /// nobody has forgotten meanwhile, is a violation.
    pub(super) fn read_all(&self, repository: &Repository) -> Result<(), Error> {
        let listed = snapshots::list(repository)?;
        for snapshot in listed.iter().filter(|snapshot| snapshot.acknowledged) {
            let Err(what) = self.compare(repository, snapshot) else { continue };
            let name = ObjectName::Snapshot { time_ms: snapshot.name_time_ms, id: snapshot.id };
            match repository.store().size(&name) {
                Ok(_) if self.service.toll().strikes() > 0 => {
                    // What the oracle finds lost it says itself.
                    return Err(Error::ChunkMissing { chunk: snapshot.record.root });
                }
                Ok(_) => {
                    let job = &snapshot.record.job;
                    self.violation(format!("a reader cannot read the snapshot of {job}: {what}"));
                }
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn compare(&self, repository: &Repository, snapshot: &SnapshotInfo) -> Result<(), String> {
        let found = contents(repository, snapshot)?;
        match self.expected.lock().get(&snapshot.record.job) {
            Some(expected) if *expected != found => Err("its files differ".to_owned()),
            _ => Ok(()),
        }
    }
}
