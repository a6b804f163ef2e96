//! What is left of what was erased, byte for byte: in the store and in this host's cache.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_engine::ops::erasure::{self, ErasureOptions, Reason};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::snapshots::SnapshotInfo;
use cairn_engine::repo::Repository;
use cairn_engine::store::Store as _;
use cairn_engine::store::local::LocalStore;
use cairn_engine::tree::reader::{extents, lookup_path};
use cairn_format::envelope::Cipher;
use cairn_format::ids::PackId;
use cairn_format::names::{Folder, ObjectName};
use cairn_format::tree::{Extent, Node};
use cairn_tests::lab::{Lab, back_up, verify_full};
use cairn_tests::seed::noise;
use cairn_tests::tree;

use super::{below, run};

/// The files below a folder that hold any of these bytes.
fn holding(folder: &Path, needles: &[Vec<u8>]) -> Vec<PathBuf> {
    let files = cairn_tests::process::files_below(folder).into_iter();
    let holds = |path: &PathBuf| {
        let data = std::fs::read(path).expect("a file");
        needles
            .iter()
            .any(|needle| data.windows(needle.len()).any(|window| window == needle.as_slice()))
    };
    files.filter(holds).collect()
}

/// The ids of the chunks of these files, as they are stored.
fn ids_of(
    repository: &Repository,
    snapshot: &SnapshotInfo,
    source: &Path,
    names: &[&str],
) -> Vec<Vec<u8>> {
    let mut ids = Vec::new();
    let nodes = repository.nodes(snapshot).expect("nodes");
    for name in names {
        let path = source.join(name);
        let entry = lookup_path(&nodes, &snapshot.record.root, path.as_os_str().as_bytes());
        let Node::File(content) = entry.expect("read").expect("there").node else {
            panic!("{name}")
        };
        extents(&nodes, &content, &mut |_, extent| {
            if let Extent::Chunk { id, .. } = extent {
                ids.push(id.as_bytes().to_vec());
            }
            Ok(())
        })
        .expect("extents");
    }
    ids
}

#[test]
fn neither_cache_nor_repository_names_what_was_erased() {
    let lab = Lab::new(310);
    let place = lab.path("repository");
    let store = Arc::new(LocalStore::create(&place).expect("a folder"));
    lab.init(store.as_ref(), Cipher::Aes256Gcm);
    let source = lab.path("source");
    tree::small(&source, 30, 310);
    let open = |cache: &str| lab.open(&store, cache);
    let repository = open("cache");
    back_up(&repository, &source).expect("a backup");
    // Of few chunks, of many, and what resembles something that is stored.
    std::fs::write(source.join("folder/secret"), noise(300_000, 1)).expect("a file");
    std::fs::write(source.join("large secret"), noise(3_000_000, 2)).expect("a file");
    let mut alike = noise(300_000, 1);
    alike[200_000] ^= 1;
    std::fs::write(source.join("alike secret"), alike).expect("a file");
    tree::settle(&source);
    let all = back_up(&repository, &source).expect("a backup").snapshot.expect("a snapshot");
    let names = ["folder/secret", "large secret", "alike secret"];
    let mut ids = ids_of(&repository, &all, &source, &names);
    let packs = |store: &LocalStore| {
        let mut packs = BTreeSet::new();
        for folder in [Folder::DataPacks, Folder::TreePacks] {
            let mut each = |name, _| {
                packs.insert(name);
                Ok(())
            };
            store.list(folder, &mut each).expect("a list");
        }
        packs
    };
    let before = packs(&store);
    drop(repository);
    assert!(!holding(&lab.cache("cache"), &ids).is_empty(), "the cache names chunks");
    let repository = open("cache");
    let options = below(&source, &[b"folder/secret", b"large secret", b"alike secret"]);
    let report = run(&repository, &options).expect("it erases");
    assert!(report.cache_clean && report.chunks_kept == 0);
    assert_eq!(report.receipts.len(), 1);
    drop(repository);
    // The journal of the cache begins anew when it is opened.
    drop(open("cache").catalog().map(|_| ()));
    let after = packs(&store);
    let gone = before.difference(&after).filter_map(ObjectName::content_hash).collect::<Vec<_>>();
    let found = holding(&lab.cache("cache"), &ids);
    assert!(found.is_empty(), "{found:?}");
    ids.extend(gone.iter().map(|hash| hash.to_vec()));
    assert!(ids.len() > 40, "{}", ids.len());
    let found = holding(&place, &ids);
    assert!(found.is_empty(), "{found:?}");
    // The cache is still of use. It names packs that are gone only as tombs and receipts do.
    let repository = open("cache");
    let catalog = repository.catalog().expect("an index");
    for id in gone.into_iter().map(PackId::from_bytes) {
        assert!(catalog.is_condemned(&id));
        assert_eq!(catalog.index().pack_number(&id).expect("looked up"), None);
    }
    std::fs::remove_file(source.join("folder/secret")).expect("removed");
    let again = back_up(&repository, &source).expect("a backup");
    assert!(again.statistics.bytes_new > 3_000_000, "{:?}", again.statistics);
    assert!(verify_full(&repository).findings.is_empty());
}

/// A repository on a disk, and a source of which the newest snapshot holds what is to go.
struct Disk {
    lab: Lab,
    store: Arc<LocalStore>,
    source: PathBuf,
    /// Chunks that only that snapshot needs.
    ids: Vec<Vec<u8>>,
}

impl Disk {
    /// The second version of a file has something in common with the first, and too little for a delta.
    fn new(seed: u64) -> Self {
        let lab = Lab::new(seed);
        let store = Arc::new(LocalStore::create(&lab.path("repository")).expect("a folder"));
        lab.init(store.as_ref(), Cipher::Aes256Gcm);
        let source = lab.path("source");
        tree::small(&source, 10, seed);
        let first = noise(1_000_000, seed);
        std::fs::write(source.join("file"), &first).expect("a file");
        tree::settle(&source);
        let repository = lab.open(&store, "cache");
        back_up(&repository, &source).expect("a backup");
        let mut second = noise(first.len(), seed ^ 1);
        for (new, old) in second.chunks_mut(10_000).zip(first.chunks(10_000)) {
            new[..3_000].copy_from_slice(&old[..3_000]);
        }
        std::fs::write(source.join("file"), second).expect("a file");
        tree::settle(&source);
        let made = back_up(&repository, &source).expect("a backup").snapshot.expect("a snapshot");
        let tried = repository.catalog().expect("an index").index().memo_keys(b"t");
        assert!(!tried.expect("keys").is_empty(), "it was tried against the first, and declined");
        let ids = ids_of(&repository, &made, &source, &["file"]);
        assert!(ids.len() > 4, "{}", ids.len());
        std::fs::write(source.join("file"), first).expect("a file");
        tree::settle(&source);
        back_up(&repository, &source).expect("a backup");
        drop(repository);
        Self { lab, store, source, ids }
    }

    fn open(&self) -> Repository {
        self.lab.open(&self.store, "cache")
    }

    fn forget(&self) {
        let repository = self.open();
        let named = ForgetOptions::new(Choice::Named(vec!["latest~1".to_owned()]));
        let plan = forget::plan(&repository, &named).expect("a plan");
        forget::run(&repository, &plan).expect("forgotten");
    }

    fn cache_holds(&self) -> Vec<PathBuf> {
        // The journal of the cache begins anew when it is opened.
        drop(self.open().catalog().map(|_| ()));
        holding(&self.lab.cache("cache"), &self.ids)
    }
}

/// Also where nothing was erased by name, and of what was tried as a base and declined.
#[test]
fn the_cache_does_not_name_what_expired_once_it_is_collected() {
    let disk = Disk::new(311);
    assert!(!disk.cache_holds().is_empty(), "the cache names chunks");
    disk.forget();
    let report = gc::run(&disk.open(), &GcOptions::default()).expect("it collects");
    assert!(report.packs_deleted > 0 && report.cache_clean);
    assert_eq!(disk.cache_holds(), Vec::<PathBuf>::new());
    let erasure = erasure::run(&disk.open(), &ErasureOptions::default()).expect("a report");
    assert!(erasure.pending.is_empty(), "{:?}", erasure.pending);
    // What stays is recognised.
    let again = back_up(&disk.open(), &disk.source).expect("a backup");
    assert_eq!(again.statistics.bytes_read, 0, "{:?}", again.statistics);
}

#[test]
fn a_cache_that_was_in_use_is_cleaned_by_the_next_collection() {
    let disk = Disk::new(312);
    disk.forget();
    let keeper = disk.open();
    keeper.catalog().expect("the index is open");
    let report = gc::run(&disk.open(), &GcOptions::default()).expect("it collects");
    assert!(report.packs_deleted > 0 && !report.cache_clean);
    drop(keeper);
    let pending = || {
        let report = erasure::run(&disk.open(), &ErasureOptions::default()).expect("a report");
        report.pending.iter().map(|pending| pending.reason).collect::<Vec<_>>()
    };
    assert_eq!(pending(), [Reason::Cache]);
    let report = gc::run(&disk.open(), &GcOptions::default()).expect("it collects");
    assert_eq!((report.packs_deleted, report.cache_clean), (0, true));
    assert_eq!(disk.cache_holds(), Vec::<PathBuf>::new());
    assert_eq!(pending(), []);
}
