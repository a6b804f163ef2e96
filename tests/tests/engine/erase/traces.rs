//! What is left of what was erased, byte for byte: in the store and in this host's cache.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_engine::store::Store as _;
use cairn_engine::store::local::LocalStore;
use cairn_engine::tree::reader::{extents, lookup_path};
use cairn_format::envelope::Cipher;
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
    let mut ids = Vec::new();
    let nodes = repository.nodes(&all).expect("nodes");
    for name in ["folder/secret", "large secret", "alike secret"] {
        let path = source.join(name);
        let entry = lookup_path(&nodes, &all.record.root, path.as_os_str().as_bytes());
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
    drop(nodes);
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
    let gone = before.difference(&after).filter_map(ObjectName::content_hash);
    ids.extend(gone.map(|hash| hash.to_vec()));
    assert!(ids.len() > 40, "{}", ids.len());
    for folder in [lab.cache("cache"), place] {
        let found = holding(&folder, &ids);
        assert!(found.is_empty(), "{found:?}");
    }
    // The cache is still of use.
    let repository = open("cache");
    std::fs::remove_file(source.join("folder/secret")).expect("removed");
    let again = back_up(&repository, &source).expect("a backup");
    assert!(again.statistics.bytes_new > 3_000_000, "{:?}", again.statistics);
    assert!(verify_full(&repository).findings.is_empty());
}
