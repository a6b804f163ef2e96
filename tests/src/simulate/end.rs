//! What must hold when all is done: nothing dead is left, the index says what the packs say, and
//! every deletion has a receipt.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use cairn_engine::collect::reach::{Reach, reach};
use cairn_engine::error::Error;
use cairn_engine::index::catalog::list_packs;
use cairn_engine::ops::erase::{self, EraseError, EraseOptions};
use cairn_engine::ops::erasure::{self, ErasureOptions, Reason};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::snapshots::{self, SnapshotInfo};
use cairn_engine::ops::verify::{self, Level, VerifyOptions};
use cairn_engine::pack::reader::PackReader;
use cairn_engine::repo::Repository;
use cairn_engine::store::lock::KeptFor;
use cairn_format::ids::{ChunkId, SnapshotId};
use cairn_format::names::{Folder, ObjectName};
use cairn_format::receipt::Receipt;

use super::Scene;
use super::mutant::{Mutant, Tamper};
use super::needed::{Needed, content_of};
use super::site::{Place, Site};
use crate::contents::contents;
use crate::lab::OWNER;
use crate::service::{KEPT_FOR_MS, Profile};

impl Scene {
    /// After everything: erasures are completed, damage is healed, and one more collection leaves
    /// exactly what is needed, and an index that says what the packs say; then the same of the
    /// replica, after one more replication.
    pub(super) fn judge(&self) -> Result<(), String> {
        for site in [&self.home, &self.replica] {
            for (name, change) in site.service.get_well() {
                self.note(site.place, None, &name, &change);
            }
        }
        self.look(Place::Home, "at the end");
        self.look(Place::Replica, "at the end");
        if !self.violations.lock().is_empty() {
            return Ok(());
        }
        self.mend_services();
        self.heal_at_last()?;
        self.erase_at_last()?;
        let packs = self.packs();
        self.collect_at_last(&self.home)?;
        self.look(Place::Home, "after the last collection");
        let left = self.packs();
        let deleted = packs.into_iter().filter(|(name, _)| !left.contains_key(name));
        self.tamper(&deleted.collect::<Vec<_>>());
        if self.is(Mutant::Tamper(Tamper::Reported)) {
            self.look(Place::Home, "after the end");
        }
        self.judge_site(&self.home)?;
        self.judge_replica()
    }

    /// What was damaged is healed through services of which nothing is torn or lost: what those cost
    /// is seen to with the last collection, where nothing was damaged.
    fn mend_services(&self) {
        if self.is_harmed() {
            for site in [&self.home, &self.replica] {
                site.service.remove_torn();
                site.service.bring_back();
                self.forget_again(site);
            }
        }
    }

    /// What erasures were to take out is nowhere in the end, whatever became of them.
    fn erase_at_last(&self) -> Result<(), String> {
        const ATTEMPTS_MAX: u64 = 40;
        let erasing = self.erasing.lock().clone();
        if self.is(Mutant::ErasesNothing) || erasing.is_empty() {
            return Ok(());
        }
        if self.strikes() > 0 {
            self.home.service.remove_torn();
            self.home.service.bring_back();
            self.forget_again(&self.home);
        }
        // An acknowledgement that a lock kept when it was taken back: whoever is told of it does it now.
        let there = self.home.snapshots();
        let bare = self.home.acks().into_iter().filter(|id| !there.contains(id));
        bare.for_each(|id| self.home.forget(id));
        for (number, name) in erasing.iter().enumerate() {
            for attempt in 0..ATTEMPTS_MAX {
                let salt = 100 + 100 * number as u64 + attempt;
                match self.erase_late(name, salt) {
                    Ok(waiting) if waiting.is_empty() => break,
                    Err(Error::Erase(EraseError::NothingMatches { .. })) => break,
                    // Of a backup that died anything may be missing: it has to be forgotten first.
                    Err(Error::Erase(EraseError::Unreadable { object, .. }))
                        if attempt + 1 < ATTEMPTS_MAX =>
                    {
                        let acknowledged = self.home.acknowledged();
                        // Or only an acknowledgement is left that could not be taken back.
                        let known = self.home.snapshots().into_iter().chain(self.home.acks());
                        let damaged = known
                            .into_iter()
                            .find(|id| object.contains(&id.to_hex()) && !acknowledged.contains(id));
                        let damaged = damaged.ok_or(format!("{object} cannot be erased from"))?;
                        self.home.forget(damaged);
                    }
                    outcome => return Err(format!("{name} cannot be erased: {outcome:?}")),
                }
            }
        }
        let fresh = self.world.open(self.home.truth(), OWNER, 31);
        let listed = snapshots::list(&fresh).map_err(|error| error.to_string())?;
        for snapshot in listed.iter().filter(|snapshot| snapshot.acknowledged) {
            let held = contents(&fresh, snapshot)?;
            if let Some(name) = held.keys().find(|name| erasing.contains(*name)) {
                return Err(format!("{name} was erased, and snapshot {} has it", snapshot.id));
            }
        }
        Ok(())
    }

    /// Erases, long after everything. Returns what has to be waited for.
    fn erase_late(&self, name: &str, salt: u64) -> Result<Vec<SnapshotId>, Error> {
        let owner = self.world.open_late(self.home.truth(), salt)?;
        let options = EraseOptions {
            paths: vec![format!("**/{name}").into_bytes()],
            collect: false,
            max_delete_percent: 100.0,
            ..EraseOptions::default()
        };
        let plan = erase::plan(&owner, &options, None)?;
        Ok(erase::run(&owner, &options, plan)?.waiting)
    }

    /// What must hold of a copy when nothing works on it any more.
    fn judge_site(&self, site: &Site) -> Result<(), String> {
        let place = site.place.name();
        let text = |error: Error| format!("{place}, at the end: {error}");
        let fresh = self.world.open(site.truth(), OWNER, 7);
        let listed = snapshots::list(&fresh).map_err(text)?;
        self.course.lock().snapshots += listed.iter().filter(|s| s.acknowledged).count();
        let report =
            verify::run(&fresh, &VerifyOptions { level: Level::Structure }).map_err(text)?;
        let sound = report.findings.is_empty() || listed.iter().any(|s| !s.acknowledged);
        // All that is wrong: of what was tampered with each part is to be noticed.
        let wrong = [
            index_is_whole(&fresh).map_err(text)?,
            self.nothing_dead(site, &fresh, &listed).map_err(text)?,
            deletions_are_receipted(&fresh).map_err(text)?,
            versions_are_purged(site, &fresh).map_err(text)?,
            if sound { Ok(()) } else { Err(format!("verify finds {:?}", report.findings)) },
        ];
        let wrong = wrong.into_iter().filter_map(Result::err).collect::<Vec<_>>();
        if wrong.is_empty() {
            return Ok(());
        }
        self.picture.lock().get_or_insert_with(|| self.draw());
        Err(format!("{place}: {}", wrong.join("; ")))
    }

    /// After one more replication and a collection the replica has what home has, or what its rules
    /// keep, and nothing besides.
    fn judge_replica(&self) -> Result<(), String> {
        if !self.replica.is_there() || self.trial.mutant.is_some() {
            return Ok(());
        }
        self.replicate_at_last()?;
        let follows = self.plan.keep.is_none();
        let here = self.home.standing();
        // What it gave up now was not noted.
        self.replica.reported.lock().retain(|id, _| follows && here.contains(id));
        self.collect_at_last(&self.replica)?;
        self.look(Place::Replica, "after the last collection");
        let there = self.replica.standing();
        // Whoever died between an acknowledgement and its record has left a record, which goes when it
        // is a day old, and from the replica then.
        let left = self.home.snapshots();
        let more = there.difference(&here).any(|id| !left.contains(id));
        if follows && (more || !here.is_subset(&there)) {
            return Err(format!("home has {here:?}, and the replica {there:?}"));
        }
        let firsts = here.iter().filter(|id| self.first(**id) != **id).map(|id| self.first(*id));
        if let Some(first) = firsts.into_iter().find(|first| there.contains(first)) {
            return Err(format!("the replica has {first}, which was erased from"));
        }
        self.judge_site(&self.replica)
    }

    /// Replicates. Where the services did things that stop that until a person has seen to them, it is
    /// done then.
    fn replicate_at_last(&self) -> Result<(), String> {
        let replicate = |salt| -> Result<(), Error> {
            let home = self.world.open_late(self.home.truth(), salt)?;
            match self.replicate(&home, self.replica.truth()) {
                // Everything that there was has been given up.
                Err(Error::ReplicateRefused { .. }) if self.home.standing().is_empty() => {
                    self.replica.standing().into_iter().for_each(|id| self.replica.forget(id));
                    Ok(())
                }
                outcome => outcome,
            }
        };
        let outcome = replicate(41);
        if self.strikes() == 0 {
            return outcome.map_err(|error| format!("the last replication: {error}"));
        }
        self.replica.service.remove_torn();
        self.replica.service.bring_back();
        self.forget_again(&self.replica);
        // Of what came back the records may have been deleted meanwhile.
        remove_bare_acks(&self.replica);
        replicate(42).map_err(|error| format!("the last replication of all: {error}"))
    }

    /// Collects. Where the service did things that stop a collection until a person has seen to them,
    /// that is done then.
    fn collect_at_last(&self, site: &Site) -> Result<(), String> {
        let (toll, outcome) = (site.service.toll(), self.last_collection(site, 6));
        let place = site.place.name();
        if toll.strikes() == 0 {
            return outcome.map_err(|error| format!("{place}, the last collection: {error}"));
        }
        if let Err(error) = outcome {
            self.course.lock().stopped += 1;
            let told = error.to_string();
            let named = |name: &ObjectName| told.contains(&name.to_string());
            if !toll.torn.is_empty() && !toll.torn.iter().any(named) {
                return Err(format!("the last collection names nothing that is torn: {told}"));
            }
            let stops = !toll.torn.is_empty() || !toll.lost.is_empty();
            let profile = site.service.profile();
            if !stops && profile != Profile::Late && profile.keeps_its_word() {
                return Err(format!("{place}, the last collection: {told}"));
            }
        }
        site.service.remove_torn();
        site.service.bring_back();
        if site.place == Place::Home {
            self.forget_again(site);
        }
        if !site.service.profile().keeps_its_word() {
            // Whoever forgot a snapshot was not shown its acknowledgement.
            remove_bare_acks(site);
        }
        self.last_collection(site, 8)
            .map_err(|error| format!("{place}, the last collection of all: {error}"))
    }

    fn last_collection(&self, site: &Site, salt: u64) -> Result<(), Error> {
        let owner = self.world.open(self.heedless(site.truth()), OWNER, site.salt(salt));
        let options =
            GcOptions { max_delete_percent: 100.0, honour_leases: false, ..GcOptions::default() };
        gc::run(&owner, &options)?;
        // What it found damaged stays while something in it is needed, with whatever else is in it.
        let catalog = owner.catalog()?;
        let suspects = catalog.suspects();
        let packs = suspects.iter().map(|number| Ok(catalog.pack(*number)?.id));
        *site.damaged.lock() = packs.collect::<Result<_, Error>>()?;
        Ok(())
    }

    /// What was forgotten and came back is forgotten once more.
    fn forget_again(&self, site: &Site) {
        let forgotten = site.forgotten.lock().clone();
        for name in site.names(&[Folder::Acks, Folder::Snapshots]) {
            if let ObjectName::Ack { snapshot: id, .. } | ObjectName::Snapshot { id, .. } = name
                && forgotten.contains(&id)
            {
                site.set(&name, None);
            }
        }
    }

    fn packs(&self) -> BTreeMap<ObjectName, Bytes> {
        let truth = self.home.truth();
        let names = self.home.names(&[Folder::DataPacks, Folder::TreePacks]).into_iter();
        names.map(|name| (name, truth.get(&name, u64::MAX).expect("it is there"))).collect()
    }

    fn nothing_dead(
        &self,
        site: &Site,
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
        let damaged = site.damaged.lock().clone();
        for (id, section) in sections.into_iter().filter(|(id, _)| !damaged.contains(id)) {
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
                    let why = match held {
                        Ok(held) if content.explains(&held) => None,
                        Ok(held) => Some(format!("{} bytes that nothing needs", held.len())),
                        Err(error) => Some(error.to_string()),
                    };
                    if let Some(why) = why {
                        let base = if bases.contains(&chunk.id) { "a base" } else { "no base" };
                        let what = format!(
                            "pack {id} still holds the dead chunk {}, {base}: {why} ({} needed \
                             chunks cannot be read)",
                            chunk.id, content.unread
                        );
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

/// Removes acknowledgements of snapshots whose records are gone.
fn remove_bare_acks(site: &Site) {
    let there = site.snapshots();
    for name in site.names(&[Folder::Acks]) {
        if matches!(name, ObjectName::Ack { snapshot, .. } if !there.contains(&snapshot)) {
            site.set(&name, None);
        }
    }
}

/// Nothing is kept as an older version of what nothing needs, and the report on erasure says so; or says
/// for how long it may be, where that is not shown.
fn versions_are_purged(site: &Site, repository: &Repository) -> Result<Result<(), String>, Error> {
    let profile = site.service.profile();
    if !matches!(profile, Profile::Versioned | Profile::SoftDelete) {
        return Ok(Ok(()));
    }
    let report =
        erasure::run(repository, &ErasureOptions { dead: false, ..ErasureOptions::default() })?;
    if !profile.shows_versions() {
        let right = report.kept_for == KeptFor::Milliseconds(KEPT_FOR_MS);
        let said = format!("the report says that {:?} is kept", report.kept_for);
        return Ok(if right { Ok(()) } else { Err(said) });
    }
    let catalog = repository.catalog()?;
    let (there, acks) = (site.snapshots(), site.acks());
    // What nobody has named may belong to somebody who is at work.
    let at_work = !site.names(&[Folder::Leases]).is_empty();
    let needless = |name: &ObjectName| match name {
        ObjectName::Pack(_, id) => !at_work || catalog.is_condemned(id),
        ObjectName::Snapshot { id, .. } | ObjectName::Ack { snapshot: id, .. } => {
            !there.contains(id) && !acks.contains(id)
        }
        ObjectName::Index(_) => true,
        _ => false,
    };
    Ok(match site.service.kept_bytes_of().iter().find(|name| needless(name)) {
        Some(name) => Err(format!("{name} is kept as an older version, and nothing needs it")),
        None => match report.pending.iter().find(|one| one.reason == Reason::Versions) {
            Some(pending) => Err(format!("the report says that versions are kept: {pending:?}")),
            None => Ok(()),
        },
    })
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
