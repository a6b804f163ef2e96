//! What is weakened on purpose, so that tests can show that the simulator would notice: the protocol
//! itself, an engine that does not listen to its store, and what is there behind everybody's back.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_engine::collect::Weakness;
use cairn_engine::collect::sweep::condemn;
use cairn_engine::error::Error;
use cairn_engine::ops::erase::EraseReport;
use cairn_engine::repo::Repository;
use cairn_engine::store::lock::KeptFor;
use cairn_engine::store::retry::{Guarded, Pacer, Policy};
use cairn_engine::store::{Each, Keeping, Listing, Purged, Put, Store, StoreError};
use cairn_format::envelope::HEADER_BYTES;
use cairn_format::ids::SessionId;
use cairn_format::names::{Folder, ObjectName};
use cairn_format::record::TombReason;
use parking_lot::Mutex;

use super::Scene;
use super::plan::{ActorPlan, Cast};
use crate::lab::OWNER;
use crate::turns::TurnStore;

/// What is weakened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The protocol of collection.
    Protocol(Weakness),
    /// How the engine takes what its store says.
    Careless(Careless),
    /// What is there.
    Tamper(Tamper),
    /// The random source begins anew with every process.
    RepeatedRandom,
    /// The oracle takes lost objects for lost, whoever was told that they are there.
    CountsLosses,
    /// A replication does not list the replica's tombs after its snapshots are visible.
    HastyReplication,
    /// An erasure reports done without having done anything.
    ErasesNothing,
    /// A replication forgets what home has.
    ForgetsOnReplica,
    /// What heals condemns damaged packs without having stored elsewhere what is needed of them.
    HealsNothing,
    /// What heals takes any bytes for those of a damaged pack.
    HealsWrongly,
    /// A reader does not ask the replica for what is damaged.
    ReadsNotAround,
}

impl Mutant {
    /// Which operations there have to be for it to make a difference, if it matters.
    pub(super) fn cast(self) -> Option<Cast> {
        let (erases, copies, harms) = match self {
            Self::ErasesNothing | Self::Tamper(Tamper::Remade) => (true, false, false),
            Self::HastyReplication | Self::ForgetsOnReplica | Self::Tamper(Tamper::ReplicaPack) => {
                (false, true, false)
            }
            Self::HealsNothing | Self::HealsWrongly | Self::ReadsNotAround => (false, true, true),
            _ => return None,
        };
        Some(Cast { erases, copies, harms })
    }
}

/// What an engine might not listen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Careless {
    /// That a put failed.
    Puts,
    /// That a listing broke off.
    Lists,
    /// That a listing repeats an entry: takes it for the end.
    Repeats,
    /// That a deletion failed, and that an object is there still.
    Deletions,
    /// That older versions are kept: purges none.
    Versions,
    /// That older versions are kept of what is needed: purges all.
    NeededVersions,
}

/// What happens to the objects besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tamper {
    /// A pack is deleted that nobody has condemned.
    NeededPack,
    /// A bit of such a pack is not what it was.
    FlippedBit,
    /// Such a pack is deleted on the replica.
    ReplicaPack,
    /// What an erasure has made of a snapshot is gone.
    Remade,
    /// After the last collection a pack that it deleted is there again.
    DeadPack,
    /// After the last collection the segments are gone.
    Segments,
    /// After the last collection the receipts are gone.
    Receipts,
    /// After the last collection a snapshot that was reported done is gone.
    Reported,
}

/// Does not wait.
#[derive(Debug)]
struct AtOnce;

impl Pacer for AtOnce {
    fn pause(&self, _: Duration) {}

    fn random(&self) -> u64 {
        0
    }
}

impl Scene {
    /// An actor's way to the store.
    pub(super) fn way(&self, actor: &ActorPlan, store: &TurnStore) -> Arc<dyn Store> {
        let store = self.heedless(Arc::new(store.clone()));
        if !actor.patient {
            return store;
        }
        let policy = Policy { attempts_max: 2, ..Policy::default() };
        Arc::new(Guarded::with_pacer(store, policy, Arc::new(AtOnce)))
    }

    /// A store as an engine takes it that does not listen to it, if it does not.
    pub(super) fn heedless(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        match self.trial.mutant {
            Some(Mutant::Careless(careless)) => {
                Arc::new(Heedless { inner: store, careless, deleted: Arc::default() })
            }
            _ => store,
        }
    }

    /// Deletes or damages a pack that nobody has condemned, before something is forgotten.
    pub(super) fn tamper_with_a_pack(&self) {
        let tamper = match self.trial.mutant {
            Some(Mutant::Tamper(
                tamper @ (Tamper::NeededPack | Tamper::FlippedBit | Tamper::ReplicaPack),
            )) => tamper,
            _ => return,
        };
        let site = if tamper == Tamper::ReplicaPack { &self.replica } else { &self.home };
        let truth = site.truth();
        if !site.is_there() {
            return;
        }
        let owner = self.world.open(Arc::clone(&truth), OWNER, 8);
        let catalog = owner.catalog().expect("an index");
        let mut found = None;
        let looked = catalog.index().for_each_pack(&mut |_, record, _| {
            if !catalog.is_condemned(&record.id) {
                found = Some(ObjectName::Pack(record.kind, record.id));
            }
            ControlFlow::Continue(())
        });
        looked.expect("packs");
        let Some(name) = found else { return };
        let Ok(data) = truth.get(&name, u64::MAX) else { return };
        truth.delete(&name).expect("it is deleted");
        if tamper == Tamper::FlippedBit {
            let mut data = Vec::from(data);
            if let Some(byte) = data.get_mut(HEADER_BYTES + 1) {
                *byte ^= 1;
            }
            truth.put(&name, &data).expect("it is put");
        }
    }

    /// What happens after the last collection.
    pub(super) fn tamper(&self, deleted: &[(ObjectName, Bytes)]) {
        let Some(Mutant::Tamper(tamper)) = self.trial.mutant else { return };
        let truth = self.home.truth();
        let all = |folder| {
            let mut names = Vec::new();
            let listed = truth.list(folder, &mut |name, _| {
                names.push(name);
                Ok(())
            });
            listed.expect("a list");
            names
        };
        let gone = match tamper {
            Tamper::NeededPack | Tamper::FlippedBit | Tamper::ReplicaPack | Tamper::Remade => {
                Vec::new()
            }
            Tamper::DeadPack => {
                if let Some((name, data)) = deleted.first() {
                    truth.put(name, data).expect("it is put");
                }
                Vec::new()
            }
            Tamper::Segments => all(Folder::Index),
            Tamper::Receipts => all(Folder::Receipts),
            Tamper::Reported => [all(Folder::Acks), all(Folder::Snapshots)].concat(),
        };
        for name in gone {
            truth.delete(&name).expect("it is deleted");
        }
    }
}

impl Scene {
    /// Removes what an erasure has made of a snapshot.
    pub(super) fn tamper_with_erased(&self, report: &EraseReport) {
        if !self.is(Mutant::Tamper(Tamper::Remade)) {
            return;
        }
        for id in report.snapshots.iter().filter_map(|erased| erased.becomes) {
            self.home.forget(id);
        }
    }

    /// Forgets the newest snapshot of the replica.
    pub(super) fn forget_on_replica(&self, replica: &dyn Store) -> Result<(), StoreError> {
        let newest = self.replica.acknowledged().into_iter().next_back();
        for name in self.replica.names(&[Folder::Acks, Folder::Snapshots]) {
            if let ObjectName::Ack { snapshot: id, .. } | ObjectName::Snapshot { id, .. } = name
                && Some(id) == newest
            {
                replica.delete(&name)?;
            }
        }
        Ok(())
    }

    /// Condemns what is damaged, and does nothing for what is needed of it.
    pub(super) fn condemn_damaged(&self, home: &Repository) -> Result<(), Error> {
        let harmed = self.home.harmed.lock().keys().copied().collect::<Vec<_>>();
        let packs = harmed.into_iter().filter_map(|name| match name {
            ObjectName::Pack(kind, id) => Some((kind, id)),
            _ => None,
        });
        let session = SessionId::from_bytes([7; 16]);
        condemn(home.vault(), session, TombReason::Damaged, &packs.collect(), &[])
    }

    /// Puts something in place of what is damaged.
    pub(super) fn put_wrong_bytes(&self, home: &Repository) -> Result<(), Error> {
        let harmed = self.home.harmed.lock().keys().copied().collect::<Vec<_>>();
        for name in harmed {
            home.store().put(&name, b"something else")?;
        }
        Ok(())
    }
}

/// What an engine would be that does not listen to its store.
#[derive(Debug)]
struct Heedless {
    inner: Arc<dyn Store>,
    careless: Careless,
    deleted: Arc<Mutex<BTreeSet<ObjectName>>>,
}

impl Heedless {
    fn overlooks(&self, name: &ObjectName) -> bool {
        self.careless == Careless::Deletions && self.deleted.lock().contains(name)
    }
}

impl Store for Heedless {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn is_near(&self) -> bool {
        self.inner.is_near()
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.inner.get(name, bytes_max)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        self.inner.get_range(name, offset, len)
    }

    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        match self.inner.put(name, data) {
            Err(StoreError::Unreachable { .. }) if self.careless == Careless::Puts => {
                Ok(Put::Written)
            }
            answer => answer,
        }
    }

    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        let answer = self.inner.size(name);
        match (&answer, self.overlooks(name)) {
            (Ok(_), true) => Err(StoreError::NotFound {
                place: cairn_engine::store::error::Place::object("memory", name),
            }),
            _ => answer,
        }
    }

    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        let mut seen = BTreeSet::new();
        let mut ended = false;
        let answer = self.inner.list(folder, &mut |name, bytes| {
            ended |= self.careless == Careless::Repeats && !seen.insert(name);
            if ended || self.overlooks(&name) { Ok(()) } else { each(name, bytes) }
        });
        match answer {
            Err(StoreError::Unreachable { .. }) if self.careless == Careless::Lists => {
                Ok(Listing::default())
            }
            answer => answer,
        }
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.deleted.lock().insert(*name);
        match self.inner.delete(name) {
            Err(StoreError::Denied { .. } | StoreError::Unreachable { .. })
                if self.careless == Careless::Deletions =>
            {
                Ok(())
            }
            answer => answer,
        }
    }
    fn kept(
        &self,
        folder: Folder,
        each: &mut dyn FnMut(ObjectName),
    ) -> Result<Keeping, StoreError> {
        self.inner.kept(folder, each)
    }

    fn purge(
        &self,
        folder: Folder,
        may_go: &dyn Fn(&ObjectName) -> bool,
    ) -> Result<Purged, StoreError> {
        match self.careless {
            Careless::Versions => Ok(Purged::default()),
            Careless::NeededVersions => self.inner.purge(folder, &|_| true),
            _ => self.inner.purge(folder, may_go),
        }
    }

    fn kept_for(&self) -> Result<KeptFor, StoreError> {
        self.inner.kept_for()
    }
}
