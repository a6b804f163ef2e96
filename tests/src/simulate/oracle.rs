//! The oracle: what must hold of the store at any time, and what when all is done.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use cairn_engine::collect::reach::{Reach, reach};
use cairn_engine::error::Error;
use cairn_engine::index::catalog::list_packs;
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::snapshots::{self, SnapshotInfo};
use cairn_engine::ops::verify::{self, Level, VerifyOptions};
use cairn_engine::pack::reader::PackReader;
use cairn_engine::repo::Repository;
use cairn_engine::store::StoreError;
use cairn_engine::tree::reader::{self, Visit, Visitor};
use cairn_format::ids::ChunkId;
use cairn_format::names::{Folder, ObjectName};
use cairn_format::receipt::Receipt;
use cairn_format::tree::{Content, Entry, Extent, Node};

use super::Scene;
use crate::lab::OWNER;

impl Scene {
    /// Every acknowledged snapshot that is there can be read by whoever knows nothing, and holds
    /// what was backed up.
    pub(super) fn look(&self, when: &str) {
        let repository = self.world.open(Arc::new(self.store.clone()), OWNER, 5);
        let listed = match snapshots::list(&repository) {
            Ok(listed) => listed,
            Err(error) => {
                return self.violation(format!("{when}: snapshots cannot be listed: {error}"));
            }
        };
        for snapshot in listed.iter().filter(|snapshot| snapshot.acknowledged) {
            if let Err(what) = self.compare(&repository, snapshot) {
                let job = &snapshot.record.job;
                self.violation(format!(
                    "{when}: the acknowledged snapshot of {job} is lost: {what}"
                ));
            }
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
        let nodes = repository.nodes(snapshot).map_err(|error| error.to_string())?;
        let mut files = Files { found: BTreeMap::new() };
        reader::walk(&nodes, &snapshot.record.root, &mut Vec::new(), &mut files)
            .map_err(|error| error.to_string())?;
        let mut contents = BTreeMap::new();
        for (name, content) in files.found {
            let mut ids = Vec::new();
            reader::extents(&nodes, &content, &mut |_, extent| {
                if let Extent::Chunk { id, .. } = extent {
                    ids.push(id);
                }
                Ok(())
            })
            .map_err(|error| error.to_string())?;
            let chunks = repository.data_chunks(snapshot, &ids).map_err(|e| e.to_string())?;
            contents.insert(name, chunks.concat());
        }
        match self.expected.lock().get(&snapshot.record.job) {
            Some(expected) if *expected != contents => Err("its files differ".to_owned()),
            _ => Ok(()),
        }
    }

    /// After everything: one more collection leaves exactly what is needed, and an index that says
    /// what the packs say.
    pub(super) fn judge(&self) -> Result<(), String> {
        self.look("at the end");
        if !self.violations.lock().is_empty() {
            return Ok(());
        }
        let text = |error: Error| format!("at the end: {error}");
        let owner = self.world.open(Arc::new(self.store.clone()), OWNER, 6);
        let options =
            GcOptions { max_delete_percent: 100.0, honour_leases: false, ..GcOptions::default() };
        gc::run(&owner, &options).map_err(text)?;
        self.look("after the last collection");
        let fresh = self.world.open(Arc::new(self.store.clone()), OWNER, 7);
        let report =
            verify::run(&fresh, &VerifyOptions { level: Level::Structure }).map_err(text)?;
        let incomplete = snapshots::list(&fresh).map_err(text)?;
        self.course.lock().snapshots = incomplete.iter().filter(|s| s.acknowledged).count();
        let all_acknowledged = incomplete.iter().all(|snapshot| snapshot.acknowledged);
        if all_acknowledged && !report.findings.is_empty() {
            return Err(format!("verify finds {:?}", report.findings));
        }
        self.nothing_dead(&fresh, &incomplete).map_err(text)??;
        index_is_whole(&fresh).map_err(text)??;
        deletions_are_receipted(&fresh).map_err(text)?
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
        for (id, (kind, bytes)) in list_packs(repository.vault())? {
            let section = reader.directory(kind, id, bytes, &repository.trust)?;
            for chunk in section.frames.iter().flat_map(|frame| &frame.chunks) {
                if !live.ids.contains(&chunk.id) {
                    // A patch holds bytes of what is needed, and nothing else.
                    let content = match &needed {
                        Some(content) => content,
                        None => needed.insert(Needed::read(repository, listed)?),
                    };
                    if !content.explains(&content_of(repository, listed, chunk.id)?) {
                        let what = format!("pack {id} still holds the dead chunk {}", chunk.id);
                        return Ok(Err(what));
                    }
                }
                // A writer's own copy serves nobody else: there may be a trusted one beside it.
                if !held.insert((section.namespace, chunk.id)) {
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

/// Bytes that are compared at once where content is looked for.
const WINDOW_BYTES: usize = 16;

/// The content of everything that snapshots need.
struct Needed {
    windows: HashSet<[u8; WINDOW_BYTES]>,
}

impl Needed {
    fn read(repository: &Repository, snapshots: &[SnapshotInfo]) -> Result<Self, Error> {
        let mut windows = HashSet::new();
        for snapshot in snapshots {
            let mut data = Data::default();
            reach(&repository.nodes(snapshot)?, snapshot.record.root, &mut data)?;
            for chunk in data.ids {
                let Ok(chunks) = repository.data_chunks(snapshot, &[chunk]) else { continue };
                let chunks = chunks.iter().flat_map(|chunk| chunk.windows(WINDOW_BYTES));
                windows.extend(chunks.filter_map(<[u8]>::first_chunk));
            }
        }
        Ok(Self { windows })
    }

    /// Whether each byte of `content` stands somewhere, with others around it.
    fn explains(&self, content: &[u8]) -> bool {
        let mut explained = 0;
        for (at, window) in content.windows(WINDOW_BYTES).enumerate() {
            if window.first_chunk().is_some_and(|window| self.windows.contains(window)) {
                explained = at + WINDOW_BYTES;
            } else if at >= explained {
                return false;
            }
        }
        explained == content.len()
    }
}

/// The data chunks of a snapshot.
#[derive(Default)]
struct Data {
    ids: HashSet<ChunkId>,
}

impl Reach for Data {
    fn node(&mut self, _: &ChunkId) -> Result<bool, Error> {
        Ok(true)
    }
    fn data(&mut self, chunks: &[(ChunkId, u32)]) -> Result<(), Error> {
        self.ids.extend(chunks.iter().map(|(id, _)| *id));
        Ok(())
    }
    fn unreadable(&mut self, _: &ChunkId, _: Error) -> Result<(), Error> {
        Ok(())
    }
}

/// A chunk that no snapshot needs, from whichever namespace has it.
fn content_of(
    repository: &Repository,
    snapshots: &[SnapshotInfo],
    chunk: ChunkId,
) -> Result<Vec<u8>, Error> {
    let mut found = Err(Error::ChunkMissing { chunk });
    for snapshot in snapshots {
        found = repository.data_chunks(snapshot, &[chunk]);
        if found.is_ok() {
            break;
        }
    }
    Ok(found?.first().map(|content| content.to_vec()).unwrap_or_default())
}

struct Files {
    found: BTreeMap<String, Content>,
}

impl Visitor for Files {
    fn entry(&mut self, _: &[u8], entry: &Entry) -> Result<Visit, Error> {
        if let Node::File(content) = &entry.node {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            self.found.insert(name, content.clone());
        }
        Ok(Visit::Descend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_explains_itself() {
        let content =
            (0..2_000_u32).flat_map(|n| (n * 2_654_435).to_le_bytes()).collect::<Vec<_>>();
        let windows = content.windows(WINDOW_BYTES).filter_map(<[u8]>::first_chunk).copied();
        let needed = Needed { windows: windows.collect() };
        let pieces = [&content[100..116], &content[5_000..5_333], &content[7..60]].concat();
        assert!(needed.explains(&pieces) && needed.explains(&[]));
        let mut other = pieces.clone();
        other[100] ^= 1;
        assert!(!needed.explains(&other));
        assert!(!needed.explains(&[&content[..64], &[7, 7][..]].concat()));
        assert!(!needed.explains(&content[..15]));
    }
}
