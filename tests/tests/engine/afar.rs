//! Goal: from a store behind a network the same is read as from one nearby, no tree
//! node and no header is asked for twice, and what an answer altered on its way costs is another request.
//! Method: snapshots whose trees lie in many packs, behind a store that notes each range it is asked
//! for and, in one test, alters the first answer about each pack of tree nodes.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::{Each, Listing, Put, Store, StoreError};
use cairn_format::envelope::HEADER_BYTES;
use cairn_format::names::{Folder, ObjectName, PackKind};
use cairn_tests::compare::assert_same;
use cairn_tests::lab::{Lab, OWNER, back_up, inside, select, verify_full};
use cairn_tests::seed::noise;
use cairn_tests::tree;
use parking_lot::Mutex;

/// Folders of the source, and backups of it: each changes what is in one of them.
const FOLDERS: usize = 12;

/// A store behind a network.
#[derive(Debug)]
struct Far {
    inner: MemoryStore,
    ranges: Mutex<Vec<(ObjectName, u64, u64)>>,
    /// Packs of tree nodes whose first answer is still to be altered; none at all without.
    altered: Option<Mutex<HashSet<ObjectName>>>,
}

impl Far {
    fn new(inner: MemoryStore, alters: bool) -> Arc<Self> {
        let altered = alters.then(Mutex::default);
        Arc::new(Self { inner, ranges: Mutex::default(), altered })
    }
}

impl Store for Far {
    fn location(&self) -> String {
        "afar".to_owned()
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.inner.get(name, bytes_max)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        self.ranges.lock().push((*name, offset, len));
        let data = self.inner.get_range(name, offset, len)?;
        match (name, &self.altered) {
            (ObjectName::Pack(PackKind::Tree, _), Some(altered))
                if altered.lock().insert(*name) =>
            {
                Ok(data.iter().map(|byte| byte ^ 1).collect())
            }
            _ => Ok(data),
        }
    }

    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        self.inner.put(name, data)
    }

    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.inner.size(name)
    }

    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        self.inner.list(folder, each)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

/// A repository whose newest tree lies in as many packs as there were backups, and its source.
fn many_packs(lab: &Lab) -> (MemoryStore, PathBuf) {
    let store = lab.memory();
    let source = lab.path("source");
    for folder in 0..FOLDERS {
        let folder = source.join(format!("folder-{folder}/deep/deeper"));
        std::fs::create_dir_all(&folder).expect("a folder");
        // Of so many chunks that their list is a node of its own.
        std::fs::write(folder.join("large"), noise(3 << 20, 1)).expect("a file");
        tree::small(&folder, 5, 3);
    }
    let repository = lab.open(&store, "near");
    for number in 0..FOLDERS {
        let folder = source.join(format!("folder-{number}/deep/deeper"));
        let mut data = noise(3 << 20, 1);
        data[number << 10..(number + 9) << 10].fill(number as u8);
        std::fs::write(folder.join("large"), data).expect("a file");
        tree::settle(&source);
        back_up(&repository, &source).expect("a backup");
    }
    (store, source)
}

fn tree_packs(ranges: &[(ObjectName, u64, u64)]) -> Vec<(ObjectName, u64, u64)> {
    let is_tree = |name: &ObjectName| matches!(name, ObjectName::Pack(PackKind::Tree, _));
    ranges.iter().filter(|(name, _, _)| is_tree(name)).copied().collect()
}

#[test]
fn a_restore_from_afar_asks_for_no_tree_node_and_no_header_twice() {
    let lab = Lab::new(90);
    let (store, source) = many_packs(&lab);
    let far = Far::new(store, false);
    let repository = lab.open_alone(far.clone(), OWNER).expect("it opens");
    let snapshot = select(&repository, "latest");
    let (target, report) = lab.restore(&repository, &snapshot, false).expect("it is restored");
    assert_eq!(report.damage_count, 0);
    assert_same(&source, &inside(&target, &source));
    let ranges = far.ranges.lock().clone();
    let trees = tree_packs(&ranges);
    let packs = trees.iter().map(|(name, _, _)| *name).collect::<HashSet<_>>();
    assert!(packs.len() >= FOLDERS, "the trees lie in {} packs", packs.len());
    assert_eq!(trees.len(), packs.len(), "a small pack is read at once: {trees:?}");
    // The keys of a pack come with what is read of its beginning.
    let headers = ranges.iter().filter(|(_, _, len)| *len == HEADER_BYTES as u64);
    let needless = headers.filter(|(name, _, _)| {
        ranges
            .iter()
            .any(|(other, offset, len)| other == name && *offset == 0 && *len > HEADER_BYTES as u64)
    });
    assert_eq!(needless.count(), 0, "{ranges:?}");
    assert!(verify_full(&repository).findings.is_empty());
}

#[test]
fn tree_nodes_that_were_altered_on_their_way_are_asked_for_again() {
    let lab = Lab::new(91);
    let (store, source) = many_packs(&lab);
    let far = Far::new(store, true);
    let repository = lab.open_alone(far.clone(), OWNER).expect("it opens");
    let snapshot = select(&repository, "latest");
    let (target, _) = lab.restore(&repository, &snapshot, false).expect("it is restored");
    assert_same(&source, &inside(&target, &source));
    let altered = far.altered.as_ref().map(|altered| altered.lock().len()).unwrap_or_default();
    assert!(altered >= FOLDERS, "{altered} were altered");
}
