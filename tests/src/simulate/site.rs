//! One copy of the repository: the service it lies on, and what is known of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::repo::read_format;
use cairn_engine::store::Store;
use cairn_format::ids::{PackId, SnapshotId};
use cairn_format::names::{Folder, ObjectName};
use parking_lot::Mutex;

use super::Scene;
use crate::service::{Profile, Service};

/// Which copy of the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The one that is written.
    Home,
    /// The one that is replicated to.
    Replica,
}

impl Place {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Replica => "replica",
        }
    }
}

/// A copy of the repository.
pub(super) struct Site {
    pub(super) place: Place,
    pub(super) service: Service,
    /// Snapshots whose acknowledgement was deleted.
    pub(super) forgotten: Mutex<BTreeSet<SnapshotId>>,
    /// Of these, those that a person gave up without a word.
    pub(super) unsaid: Mutex<BTreeSet<SnapshotId>>,
    /// Packs that were put once more after they had been deleted: replicating and healing do, when
    /// what they hold is needed again.
    pub(super) put_again: Mutex<BTreeSet<ObjectName>>,
    /// Objects that were ever put once more.
    pub(super) came_back: Mutex<BTreeSet<ObjectName>>,
    /// Objects that were deleted.
    pub(super) deleted: Mutex<BTreeSet<ObjectName>>,
    /// Snapshots that were reported done, with their tags.
    pub(super) reported: Mutex<BTreeMap<SnapshotId, String>>,
    /// Objects that were damaged and that no actor has deleted since, as they were.
    pub(super) harmed: Mutex<BTreeMap<ObjectName, Bytes>>,
    /// Packs that collections put and the service lost, with the snapshots that were acknowledged then.
    pub(super) lost_when: Mutex<BTreeMap<ObjectName, BTreeSet<SnapshotId>>>,
    /// Packs that the last collection found damaged, and that may stay therefore.
    pub(super) damaged: Mutex<HashSet<PackId>>,
}

impl Site {
    pub(super) fn new(place: Place, service: Service) -> Self {
        Self {
            place,
            service,
            forgotten: Mutex::default(),
            unsaid: Mutex::default(),
            put_again: Mutex::default(),
            came_back: Mutex::default(),
            deleted: Mutex::default(),
            reported: Mutex::default(),
            harmed: Mutex::default(),
            lost_when: Mutex::default(),
            damaged: Mutex::default(),
        }
    }

    /// What is really there.
    pub(super) fn truth(&self) -> Arc<dyn Store> {
        self.service.truth()
    }

    /// A salt for this copy: sessions at both that drew the same numbers would have one id, and take
    /// what the other stored for their own.
    pub(super) fn salt(&self, salt: u64) -> u64 {
        match self.place {
            Place::Home => salt,
            Place::Replica => salt + 1_000_000,
        }
    }

    /// Whether there is a repository.
    pub(super) fn is_there(&self) -> bool {
        read_format(self.truth().as_ref()).is_ok()
    }

    /// Names of all objects in some folders.
    pub(super) fn names(&self, folders: &[Folder]) -> Vec<ObjectName> {
        let mut names = Vec::new();
        for folder in folders {
            let listed = self.truth().list(*folder, &mut |name, _| {
                names.push(name);
                Ok(())
            });
            listed.expect("a list");
        }
        names.sort();
        names
    }

    /// Snapshots that have a record there.
    pub(super) fn snapshots(&self) -> BTreeSet<SnapshotId> {
        let names = self.names(&[Folder::Snapshots]).into_iter();
        let ids = names.filter_map(|name| match name {
            ObjectName::Snapshot { id, .. } => Some(id),
            _ => None,
        });
        ids.collect()
    }

    /// Snapshots that have an acknowledgement there.
    pub(super) fn acks(&self) -> BTreeSet<SnapshotId> {
        let names = self.names(&[Folder::Acks]).into_iter();
        let ids = names.filter_map(|name| match name {
            ObjectName::Ack { snapshot, .. } => Some(snapshot),
            _ => None,
        });
        ids.collect()
    }

    /// Snapshots that are acknowledged there.
    pub(super) fn standing(&self) -> BTreeSet<SnapshotId> {
        let there = self.snapshots();
        self.acks().into_iter().filter(|id| there.contains(id)).collect()
    }

    /// As [`Self::standing`], without those that were forgotten before and came back.
    pub(super) fn acknowledged(&self) -> BTreeSet<SnapshotId> {
        let forgotten = self.forgotten.lock();
        self.standing().into_iter().filter(|id| !forgotten.contains(id)).collect()
    }

    /// Whether the service lost an acknowledgement of a snapshot, and none is there.
    pub(super) fn lost_ack(&self, snapshot: SnapshotId) -> bool {
        let is_its = |name: &ObjectName| matches!(name, ObjectName::Ack { snapshot: id, .. } if *id == snapshot);
        self.service.toll().lost.keys().any(is_its)
            && !self.names(&[Folder::Acks]).iter().any(is_its)
    }

    /// Puts an object in place of whatever is there; `None`: nothing is.
    pub(super) fn set(&self, name: &ObjectName, data: Option<&Bytes>) {
        let truth = self.truth();
        truth.delete(name).expect("it is deleted");
        if let Some(data) = data {
            truth.put(name, data).expect("it is put");
        }
    }

    /// As [`Self::set`], without leaving older versions.
    pub(super) fn pretend(&self, name: &ObjectName, data: Option<&Bytes>) {
        let bare = self.service.bare();
        bare.delete(name).expect("it is deleted");
        if let Some(data) = data {
            bare.put(name, data).expect("it is put");
        }
    }

    /// Removes a snapshot as whoever forgets does, for good.
    pub(super) fn forget(&self, snapshot: SnapshotId) {
        self.remove(snapshot);
        self.forgotten.lock().insert(snapshot);
        self.unsaid.lock().insert(snapshot);
    }

    /// Removes a snapshot, which may be copied there again.
    pub(super) fn remove(&self, snapshot: SnapshotId) {
        for name in self.names(&[Folder::Acks, Folder::Snapshots]) {
            if let ObjectName::Ack { snapshot: id, .. } | ObjectName::Snapshot { id, .. } = name
                && id == snapshot
            {
                self.set(&name, None);
            }
        }
    }

    /// Whether calls of an actor may fail for what the service did, to it or to others.
    pub(super) fn troubles(&self, actor: usize) -> bool {
        let (toll, profile) = (self.service.toll(), self.service.profile());
        match profile {
            Profile::Strong | Profile::Unordered | Profile::Lingering | Profile::SoftDelete => {
                false
            }
            _ if profile.strikes_one() => toll.of_actor.contains_key(&actor),
            _ => toll.strikes() > 0,
        }
    }
}

impl Scene {
    pub(super) fn site(&self, place: Place) -> &Site {
        match place {
            Place::Home => &self.home,
            Place::Replica => &self.replica,
        }
    }

    /// Calls that went wrong anywhere.
    pub(super) fn strikes(&self) -> u64 {
        self.home.service.toll().strikes() + self.replica.service.toll().strikes()
    }
}
