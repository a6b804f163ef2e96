//! What must hold when all is done: nothing dead is left, the index says what the packs say, and
//! every deletion has a receipt.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use cairn_engine::collect::reach::{Reach, reach};
use cairn_engine::error::Error;
use cairn_engine::index::catalog::list_packs;
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::snapshots::{self, SnapshotInfo};
use cairn_engine::ops::verify::{self, Level, VerifyOptions};
use cairn_engine::pack::reader::PackReader;
use cairn_engine::repo::Repository;
use cairn_format::ids::ChunkId;
use cairn_format::names::{Folder, ObjectName};
use cairn_format::receipt::Receipt;

use super::Scene;
use super::mutant::{Mutant, Tamper};
use super::needed::{Needed, content_of};
use crate::lab::OWNER;
use crate::service::Profile;
use crate::turns::Change;

impl Scene {
    /// After everything: one more collection leaves exactly what is needed, and an index that says
    /// what the packs say.
    pub(super) fn judge(&self) -> Result<(), String> {
        for (name, put) in self.service.get_well() {
            self.note(&name, &put.map_or(Change::Delete, Change::Put));
        }
        self.look("at the end");
        if !self.violations.lock().is_empty() {
            return Ok(());
        }
        let packs = self.packs();
        self.collect_at_last()?;
        self.look("after the last collection");
        let left = self.packs();
        let deleted = packs.into_iter().filter(|(name, _)| !left.contains_key(name));
        self.tamper(&deleted.collect::<Vec<_>>());
        if self.is(Mutant::Tamper(Tamper::Reported)) {
            self.look("after the end");
        }
        let text = |error: Error| format!("at the end: {error}");
        let fresh = self.world.open(self.service.truth(), OWNER, 7);
        let listed = snapshots::list(&fresh).map_err(text)?;
        self.course.lock().snapshots = listed.iter().filter(|s| s.acknowledged).count();
        let report =
            verify::run(&fresh, &VerifyOptions { level: Level::Structure }).map_err(text)?;
        let sound = report.findings.is_empty() || listed.iter().any(|s| !s.acknowledged);
        // All that is wrong: of what was tampered with each part is to be noticed.
        let wrong = [
            index_is_whole(&fresh).map_err(text)?,
            self.nothing_dead(&fresh, &listed).map_err(text)?,
            deletions_are_receipted(&fresh).map_err(text)?,
            if sound { Ok(()) } else { Err(format!("verify finds {:?}", report.findings)) },
        ];
        let wrong = wrong.into_iter().filter_map(Result::err).collect::<Vec<_>>();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// Collects. Where the service did things that stop a collection until a person has seen to them,
    /// that is done then.
    fn collect_at_last(&self) -> Result<(), String> {
        let (toll, outcome) = (self.service.toll(), self.last_collection());
        if toll.strikes() == 0 {
            return outcome.map_err(|error| format!("the last collection: {error}"));
        }
        if let Err(error) = outcome {
            self.course.lock().stopped += 1;
            let told = error.to_string();
            let named = |name: &ObjectName| told.contains(&name.to_string());
            if !toll.torn.is_empty() && !toll.torn.iter().any(named) {
                return Err(format!("the last collection names nothing that is torn: {told}"));
            }
            let stops = !toll.torn.is_empty() || !toll.lost.is_empty();
            if !stops && self.service.profile() != Profile::Late {
                return Err(format!("the last collection: {told}"));
            }
        }
        self.service.remove_torn();
        self.service.bring_back();
        self.forget_again();
        self.last_collection().map_err(|error| format!("the last collection of all: {error}"))
    }

    fn last_collection(&self) -> Result<(), Error> {
        let owner = self.world.open(self.service.truth(), OWNER, 6);
        let options =
            GcOptions { max_delete_percent: 100.0, honour_leases: false, ..GcOptions::default() };
        gc::run(&owner, &options).map(|_| ())
    }

    /// What was forgotten and came back is forgotten once more.
    fn forget_again(&self) {
        let (truth, forgotten) = (self.service.truth(), self.forgotten.lock());
        let mut names = Vec::new();
        for folder in [Folder::Acks, Folder::Snapshots] {
            let listed = truth.list(folder, &mut |name, _| {
                if let ObjectName::Ack { snapshot: id, .. } | ObjectName::Snapshot { id, .. } = name
                    && forgotten.contains(&id)
                {
                    names.push(name);
                }
                Ok(())
            });
            listed.expect("a list");
        }
        for name in names {
            truth.delete(&name).expect("it is deleted");
        }
    }

    fn packs(&self) -> BTreeMap<ObjectName, Bytes> {
        let truth = self.service.truth();
        let mut names = Vec::new();
        for folder in [Folder::DataPacks, Folder::TreePacks] {
            let listed = truth.list(folder, &mut |name, _| {
                names.push(name);
                Ok(())
            });
            listed.expect("a list");
        }
        let read = |name| (name, truth.get(&name, u64::MAX).expect("it is there"));
        names.into_iter().map(read).collect()
    }

    fn nothing_dead(
        &self,
        repository: &Repository,
        listed: &[SnapshotInfo],
    ) -> Result<Result<(), String>, Error> {
        let mut live = Live::default();
        for snapshot in listed {
            reach(&repository.nodes(snapshot)?, snapshot.record.root, &mut live)?;
        }
        let reader = PackReader::new(repository.store(), &repository.keys);
        let mut held = HashSet::new();
        let mut needed = None;
        let (mut sections, mut bases) = (Vec::new(), HashSet::new());
        for (id, (kind, bytes)) in list_packs(repository.vault())? {
            let section = reader.directory(kind, id, bytes, &repository.trust)?;
            bases.extend(section.frames.iter().flat_map(|frame| &frame.bases).map(|base| base.id));
            sections.push((id, section));
        }
        for (id, section) in sections {
            let chunks = section.frames.iter().flat_map(|frame| {
                frame.chunks.iter().map(|chunk| (chunk, !frame.bases.is_empty()))
            });
            for (chunk, based) in chunks {
                if !live.ids.contains(&chunk.id) {
                    // A patch holds bytes of what is needed, and nothing else.
                    let content = match &needed {
                        Some(content) => content,
                        None => needed.insert(Needed::read(repository, listed)?),
                    };
                    let held = content_of(repository, listed, chunk.id);
                    if !held.is_ok_and(|held| content.explains(&held)) {
                        let what = format!("pack {id} still holds the dead chunk {}", chunk.id);
                        return Ok(Err(what));
                    }
                }
                // A writer's own copy serves nobody else: there may be a trusted one beside it. And
                // what is read from a frame with bases may be named as a base, which stands in one
                // without.
                let key = |based| (section.namespace, chunk.id, based);
                let other = held.contains(&key(!based)) && !bases.contains(&chunk.id);
                if !held.insert(key(based)) || other {
                    return Ok(Err(format!("chunk {} is held twice", chunk.id)));
                }
            }
        }
        Ok(Ok(()))
    }
}

/// The packs in the store are those that segments describe, and they say the same.
fn index_is_whole(repository: &Repository) -> Result<Result<(), String>, Error> {
    let catalog = repository.catalog()?;
    let reader = PackReader::new(repository.store(), &repository.keys);
    let mut present = list_packs(repository.vault())?;
    let mut indexed = Vec::new();
    catalog.index().for_each_pack(&mut |number, record, _| {
        indexed.push((number, *record));
        std::ops::ControlFlow::Continue(())
    })?;
    for (number, record) in indexed {
        let Some((kind, bytes)) = present.remove(&record.id) else {
            return Ok(Err(format!("the index names pack {}, which is gone", record.id)));
        };
        let section = reader.directory(kind, record.id, bytes, &repository.trust)?;
        if section.frames != catalog.frames(number)? {
            return Ok(Err(format!("the index describes pack {} otherwise", record.id)));
        }
    }
    Ok(match present.into_keys().next() {
        Some(id) => Err(format!("no segment names pack {id}")),
        None => Ok(()),
    })
}

/// Every pack that was condemned and is gone stands in a receipt whose signature holds.
fn deletions_are_receipted(repository: &Repository) -> Result<Result<(), String>, Error> {
    let mut names = Vec::new();
    repository.store().list(Folder::Receipts, &mut |name, _| {
        names.push(name);
        Ok(())
    })?;
    let mut said = HashSet::new();
    let mut hashes = HashSet::new();
    let mut chain = Vec::new();
    for name in names {
        let object = repository.store().get(&name, u64::MAX)?;
        let (_, receipt): (_, Receipt) =
            repository.trust.verify_receipt(&object).map_err(Error::sealed(name))?;
        hashes.insert(*blake3::hash(&object).as_bytes());
        chain.push(receipt.record.previous);
        said.extend(receipt.record.deleted);
    }
    if let Some(lost) = chain.into_iter().flatten().find(|hash| !hashes.contains(hash.as_bytes())) {
        return Ok(Err(format!("the chain of receipts lacks {lost}")));
    }
    let condemned = repository.catalog()?.condemned();
    for (id, kind) in condemned {
        if !said.contains(&ObjectName::Pack(kind, id)) {
            return Ok(Err(format!("no receipt says that pack {id} is gone")));
        }
    }
    Ok(Ok(()))
}

#[derive(Default)]
struct Live {
    ids: HashSet<ChunkId>,
}

impl Reach for Live {
    fn node(&mut self, id: &ChunkId) -> Result<bool, Error> {
        Ok(self.ids.insert(*id))
    }
    fn data(&mut self, chunks: &[(ChunkId, u32)]) -> Result<(), Error> {
        self.ids.extend(chunks.iter().map(|(id, _)| *id));
        Ok(())
    }
    fn unreadable(&mut self, _: &ChunkId, _: Error) -> Result<(), Error> {
        // A snapshot that was never acknowledged may lack what it likes.
        Ok(())
    }
}
