//! Snapshots made anew: their trees stored, their records put, what they need looked for, and
//! acknowledged (SPEC sections 8.2 and 10).

use std::collections::{BTreeSet, HashMap, HashSet};

use cairn_format::envelope::Kind;
use cairn_format::ids::{ChunkId, SessionId, SnapshotId, WriterId};
use cairn_format::limits::{NODE_BYTES_MAX, RECORD_BYTES_MAX};
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::record::{Remade, Snapshot, SourceKind, SourceRecord};
use cairn_format::segment::PackSection;

use super::error::EraseError;
use super::paths::Paths;
use super::tree::{Outcome, Tally};
use crate::collect::Weakness;
use crate::collect::copy::Copier;
use crate::collect::lease::HeldLease;
use crate::collect::reach::{Reach, reach};
use crate::error::Error;
use crate::index::catalog::{Before, Catalog};
use crate::ops::acknowledge::{Acknowledged, Visible, acknowledge};
use crate::ops::forget::orphans::{Orphan, remove_orphans};
use crate::ops::snapshots::SnapshotInfo;
use crate::repo::Repository;
use crate::repo::chunks::{Wanted, single};
use crate::seal::random;
use crate::store::any_is_there;
use crate::tree::NodeSink;

/// Former ids in one record, at most: the oldest are left out of what is erased from so often.
const FORMER_MAX: usize = 1_000;
/// How often it is looked again after chunks were stored anew.
const ROUNDS_MAX: usize = 8;
/// Chunks that are stored anew at once, at most.
const MISSING_MAX: usize = 200_000;

/// A snapshot that is to be put.
pub(super) struct Draft {
    record: Snapshot,
    /// As of [`Made`].
    stands_for: Vec<Vec<ObjectName>>,
    name_time_ms: u64,
    namespace: WriterId,
}

/// A snapshot that is visible in the place of others.
struct Made {
    id: SnapshotId,
    name: ObjectName,
    job: String,
    root: ChunkId,
    namespace: WriterId,
    /// Of each of these something has to be there, or it was forgotten what this stands for: records and
    /// acknowledgements that were there when it was looked.
    stands_for: Vec<Vec<ObjectName>>,
    /// Records of those it was made of.
    former: Vec<ObjectName>,
}

/// Makes snapshots anew.
pub(super) struct Remaker<'a> {
    repository: &'a Repository,
    catalog: &'a Catalog,
    session: SessionId,
    /// How packs stood when it began.
    before: Before,
    lease: HeldLease<'a>,
    copier: Copier<'a>,
    /// Packs that an interrupted run of this host has stored and no segment names: they are relied on.
    leftovers: Vec<PackSection>,
    /// Nodes that were stored by this.
    stored: HashSet<ChunkId>,
    to_settle: Vec<Made>,
    weakness: Option<Weakness>,
}

impl<'a> Remaker<'a> {
    /// Takes a lease.
    ///
    /// # Errors
    /// [`Error::TombDamaged`]; failures of the store or the cache.
    pub fn new(repository: &'a Repository, weakness: Option<Weakness>) -> Result<Self, Error> {
        let catalog = repository.current_catalog()?;
        catalog.require_sound_tombs()?;
        let session = SessionId::from_bytes(random::array(repository.context.random.as_ref())?);
        Ok(Self {
            repository,
            catalog,
            session,
            before: catalog.standing()?,
            lease: HeldLease::take(repository.vault(), session, "erase"),
            copier: Copier::new(repository, catalog, session)?,
            leftovers: catalog.leftover_sections(repository.vault())?,
            stored: HashSet::new(),
            to_settle: Vec::new(),
            weakness,
        })
    }

    /// Where nodes of snapshots of a namespace are stored.
    pub fn sink(&mut self, namespace: WriterId) -> Nodes<'_, 'a> {
        Nodes { remaker: self, namespace }
    }

    /// The record of a snapshot made anew. `claims` is what that counts for which is not acknowledged
    /// itself.
    ///
    /// # Errors
    /// Damage of the record before; failures of the store.
    pub fn draft(
        &self,
        before: &SnapshotInfo,
        claims: Option<Vec<ObjectName>>,
        outcome: &Outcome,
        rest: Option<Tally>,
        paths: &Paths,
    ) -> Result<Draft, Error> {
        let vault = self.repository.vault();
        let name = before.name();
        let mut former = before.former().to_vec();
        former.push(before.id);
        former.drain(..former.len().saturating_sub(FORMER_MAX));
        let certificate = match &before.record.remade {
            Some(remade) => remade.certificate.clone(),
            None => vault.read_signed(Kind::Snapshot, &name, RECORD_BYTES_MAX)?.certificate,
        };
        let mut record = before.record.clone();
        record.root = outcome.node;
        record.remade = Some(Remade { certificate, time_ms: vault.context.clock.now_ms(), former });
        record.paths.retain(|path| !paths.cover(path));
        record.sources.retain(|source| !paths.cover(&path_of(source)));
        let (counts, gone) = (&mut record.statistics, &outcome.tally);
        let (files, directories, others, bytes) = match rest {
            Some(rest) => (rest.files, rest.directories, rest.others, rest.bytes),
            None => (
                counts.files.saturating_sub(gone.files),
                counts.directories.saturating_sub(gone.directories),
                counts.others.saturating_sub(gone.others),
                counts.bytes_total.saturating_sub(gone.bytes),
            ),
        };
        (counts.files, counts.directories) = (files, directories);
        (counts.others, counts.bytes_total) = (others, bytes);
        let (name_time_ms, namespace) = (before.name_time_ms, before.namespace);
        let stands_for = std::iter::once(vec![name]).chain(claims).collect();
        Ok(Draft { record, stands_for, name_time_ms, namespace })
    }

    /// Takes a snapshot that an interrupted erasure put, to be acknowledged. `before` are the records and
    /// acknowledgements in whose place it was put, as far as they are there.
    pub fn adopt(&mut self, snapshot: &SnapshotInfo, before: Vec<ObjectName>) {
        let (id, root) = (snapshot.id, snapshot.record.root);
        let name = ObjectName::Snapshot { time_ms: snapshot.name_time_ms, id };
        let (job, namespace) = (snapshot.record.job.clone(), snapshot.namespace);
        let former = snapshot.former().iter().map(|id| snapshot.name_of(*id)).collect();
        let stands_for = vec![before];
        self.to_settle.push(Made { id, name, job, root, namespace, stands_for, former });
    }

    /// Puts what was drafted, proves that all of it is there, and acknowledges what is to be.
    /// Returns what became of each; nothing of those that others removed meanwhile. What was adopted
    /// and acknowledged became itself.
    ///
    /// # Errors
    /// [`EraseError::Incomplete`]; failures of the store and the cache. What was not acknowledged
    /// then does not count.
    pub fn publish(
        mut self,
        drafts: &HashMap<SnapshotId, (bool, Draft)>,
    ) -> Result<HashMap<SnapshotId, SnapshotId>, Error> {
        let vault = self.repository.vault();
        self.copier.finish(std::mem::take(&mut self.leftovers))?;
        self.lease.renew();
        let mut became = HashMap::new();
        let (mut needed, mut unclaimed) = (Vec::new(), Vec::new());
        for (before, (acknowledged, draft)) in drafts {
            let object = vault.seal_signed(Kind::Snapshot, &draft.record.encode())?;
            let id = SnapshotId::from_bytes(*blake3::hash(&object).as_bytes());
            let name = ObjectName::Snapshot { time_ms: draft.name_time_ms, id };
            vault.store.put(&name, &object)?;
            became.insert(*before, id);
            let (root, namespace) = (draft.record.root, draft.namespace);
            let (job, stands_for) = (draft.record.job.clone(), draft.stands_for.clone());
            let former = draft.record.remade.iter().flat_map(|remade| &remade.former);
            let time_ms = draft.name_time_ms;
            let former = former.map(|id| ObjectName::Snapshot { time_ms, id: *id }).collect();
            let put = if *acknowledged { &mut needed } else { &mut unclaimed };
            put.push(Made { id, name, job, root, namespace, stands_for, former });
        }
        let adopted = std::mem::take(&mut self.to_settle);
        let adopted_ids = adopted.iter().map(|made| made.id).collect::<HashSet<_>>();
        needed.extend(adopted);
        if let Err(error) = self.prove(&needed) {
            // Nobody relies on what was not acknowledged; another erasure may have taken it over.
            let own = needed.iter().filter(|made| !adopted_ids.contains(&made.id));
            own.chain(&unclaimed).try_for_each(|made| self.let_go(made).map(drop))?;
            return Err(error);
        }
        for made in &unclaimed {
            if self.is_forgotten(made)? {
                became.retain(|_, id| *id != made.id);
            }
        }
        for made in &needed {
            if self.is_forgotten(made)? || !self.acknowledge(made)? {
                became.retain(|_, id| *id != made.id);
            } else if adopted_ids.contains(&made.id) {
                became.insert(made.id, made.id);
            }
        }
        self.lease.end();
        Ok(became)
    }

    /// Whether what a snapshot was made of was forgotten meanwhile: then it goes too, and must not come
    /// back. What is forgotten after this look and before the acknowledgement does: that cannot be taken
    /// back, as it may have served another erasure to remove what was there before.
    fn is_forgotten(&self, made: &Made) -> Result<bool, Error> {
        for names in &made.stands_for {
            // Another erasure that took it over acknowledged it before it removed the one before.
            if !any_is_there(self.repository.store(), names)? {
                return self.let_go(made);
            }
        }
        Ok(false)
    }

    /// Removes a record that this or an interrupted erasure put, unless it counts, or does by the time that
    /// it is gone; true if it is removed.
    fn let_go(&self, made: &Made) -> Result<bool, Error> {
        let orphan = Orphan::new(made.id, made.name, made.former.clone());
        Ok(remove_orphans(self.repository, &[orphan])?.is_empty())
    }

    /// Acknowledges a snapshot; false when it does not stand.
    fn acknowledge(&self, made: &Made) -> Result<bool, Error> {
        let visible = Visible { id: made.id, name: &made.name, job: &made.job };
        let vault = self.repository.vault();
        let outcome = acknowledge(vault, self.catalog, self.session, visible)?;
        Ok(matches!(outcome, Acknowledged::Stands(_)))
    }

    /// Sees to it, after the snapshots are visible, that nothing they need is only in packs that
    /// are condemned. The snapshots before need the same, but a collection that lists snapshots
    /// while one takes the place of another may see neither.
    fn prove(&mut self, needed: &[Made]) -> Result<(), Error> {
        if self.weakness == Some(Weakness::Precheck) {
            return Ok(());
        }
        for _ in 0..ROUNDS_MAX {
            self.catalog.sync_keeping(self.repository.vault())?;
            self.catalog.require_sound_tombs()?;
            let missing = self.missing(needed)?;
            if missing.is_empty() {
                // What took the place of packs that go has to be there.
                let vault = self.repository.vault();
                if self.catalog.condemned_since(&self.before) == 0
                    || self.catalog.forget_lost_since(vault, &self.before, &[])?
                {
                    return Ok(());
                }
                continue;
            }
            for (namespace, chunks) in missing {
                self.copy(namespace, &chunks.into_iter().collect::<Vec<_>>())?;
            }
        }
        Err(EraseError::Incomplete { chunks: 1 }.into())
    }

    /// The chunks that only condemned packs hold, by namespace.
    fn missing(&self, needed: &[Made]) -> Result<HashMap<WriterId, BTreeSet<ChunkId>>, Error> {
        let mut missing = HashMap::<WriterId, BTreeSet<ChunkId>>::new();
        let mut seen = HashMap::<WriterId, HashSet<ChunkId>>::new();
        for snapshot in needed {
            self.repository.check_cancelled()?;
            self.lease.renew();
            let namespace = snapshot.namespace;
            let nodes = self.repository.chunk_reader(namespace)?;
            let mut walk = Walk {
                catalog: self.catalog,
                namespace,
                seen: seen.entry(namespace).or_default(),
                missing: missing.entry(namespace).or_default(),
            };
            reach(&nodes, snapshot.root, &mut walk)?;
        }
        missing.retain(|_, chunks| !chunks.is_empty());
        Ok(missing)
    }

    /// Stores chunks anew out of condemned packs.
    fn copy(&mut self, namespace: WriterId, missing: &[ChunkId]) -> Result<(), Error> {
        let reader = self.repository.chunk_reader(namespace)?;
        let mut wanted = Vec::with_capacity(missing.len());
        let mut lost = 0;
        for (id, place) in missing.iter().zip(self.catalog.places(missing, namespace)?) {
            let pack = place.and_then(|place| self.catalog.pack(place.pack).ok());
            match (place, pack) {
                (Some(place), Some(pack)) => {
                    wanted.push(Wanted { id: *id, place, tag: pack.kind });
                }
                _ => lost += 1,
            }
        }
        if lost > 0 {
            return Err(EraseError::Incomplete { chunks: lost }.into());
        }
        let copier = parking_lot::Mutex::new(&mut self.copier);
        reader.fetch(wanted, &|run, content| {
            let mut copier = copier.lock();
            let content = content.map_err(|error| match error.is_damage() {
                true => EraseError::Incomplete { chunks: 1 }.into(),
                false => error,
            })?;
            single(run, content)
                .try_for_each(|(wanted, chunk)| copier.add_chunk(wanted.tag, wanted.id, chunk))
        })?;
        self.copier.finish(Vec::new())?;
        Ok(())
    }
}

/// The path at which a snapshot has what came from a source.
fn path_of(source: &SourceRecord) -> Vec<u8> {
    match source.kind {
        SourceKind::Files => source.name.clone().into_bytes(),
        SourceKind::Stdin | SourceKind::Command => format!("/{}", source.name).into_bytes(),
    }
}

/// Stores nodes that are not there yet.
pub(super) struct Nodes<'s, 'a> {
    remaker: &'s mut Remaker<'a>,
    namespace: WriterId,
}

impl NodeSink for Nodes<'_, '_> {
    fn put_node(&mut self, node: Vec<u8>) -> Result<ChunkId, Error> {
        let remaker = &mut *self.remaker;
        if node.len() > NODE_BYTES_MAX as usize {
            return Err(Error::Internal { part: "the tree builder" });
        }
        let id = remaker.repository.keys.tree_id(&node);
        let known = remaker.stored.contains(&id)
            || remaker.catalog.known(&[id], self.namespace)?.first() == Some(&true);
        if !known {
            remaker.copier.add_chunk(PackKind::Tree, id, &node)?;
            remaker.stored.insert(id);
        }
        Ok(id)
    }
}

/// Looks at every chunk of a snapshot.
struct Walk<'w> {
    catalog: &'w Catalog,
    namespace: WriterId,
    seen: &'w mut HashSet<ChunkId>,
    missing: &'w mut BTreeSet<ChunkId>,
}

impl Walk<'_> {
    fn look(&mut self, ids: &[ChunkId]) -> Result<(), Error> {
        if self.missing.len() > MISSING_MAX {
            return Ok(());
        }
        let known = self.catalog.known(ids, self.namespace)?;
        let missing = ids.iter().zip(known).filter(|(_, known)| !known);
        self.missing.extend(missing.map(|(id, _)| *id));
        Ok(())
    }
}

impl Reach for Walk<'_> {
    fn node(&mut self, id: &ChunkId) -> Result<bool, Error> {
        if !self.seen.insert(*id) {
            return Ok(false);
        }
        self.look(&[*id])?;
        Ok(true)
    }

    fn data(&mut self, chunks: &[(ChunkId, u32)]) -> Result<(), Error> {
        let ids = chunks.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        self.look(&ids)
    }

    /// A node that this stored, and that was collected before a snapshot named it.
    fn unreadable(&mut self, _: &ChunkId, _: Error) -> Result<(), Error> {
        Err(EraseError::Incomplete { chunks: 1 }.into())
    }
}
