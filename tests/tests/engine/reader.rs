//! Goal: the independent reader, which knows the format's text and no code of this project,
//! restores what the engine stored, from the index and from the packs alone.
//! Method: repositories of both ciphers on disk; one with frames that have bases in an order that
//! this version's writer does not choose; both restore, and what they restore is compared.

use std::sync::Arc;

use cairn_engine::error::Error;
use cairn_engine::ops::snapshots;
use cairn_engine::store::local::LocalStore;
use cairn_format::envelope::Cipher;
use cairn_format::names::PackKind;
use cairn_format::pack::{ChunkRef, Codec};
use cairn_format::tree::{Content, Extent, Extents, Node};
use cairn_tests::compare::assert_same;
use cairn_tests::craft::{Craft, compress_against, entry};
use cairn_tests::lab::{Lab, back_up, inside, verify_full, write_key_file};
use cairn_tests::seed::noise;
use cairn_tests::{reader, tree};

#[test]
fn the_independent_reader_restores_either_cipher_from_the_index_and_from_packs() {
    for (number, cipher) in [Cipher::Aes256Gcm, Cipher::XChaCha20Poly1305].into_iter().enumerate() {
        let lab = Lab::new(80 + number as u64);
        let folder = lab.path("repository");
        let store = Arc::new(LocalStore::create(&folder).expect("a folder"));
        lab.init(&store, cipher);
        let source = lab.path("source");
        tree::everything(&source, 2);
        let repository = lab.open(&store, "cache");
        back_up(&repository, &source).expect("the first backup");
        std::fs::write(source.join("deep/new"), noise(700_000, 9)).expect("a file");
        tree::settle(&source);
        let report = back_up(&repository, &source).expect("the second backup");
        let id = report.snapshot.expect("a snapshot").id.to_hex();
        let key = write_key_file(&lab);
        for from_packs in [false, true] {
            let target = lab.path(&format!("target-{from_packs}"));
            reader::restore(&folder, ["--key-file", &key], &id, &target, from_packs);
            assert_same(&source, &inside(&target, &source));
        }
    }
}

/// A file of pages of which some changed, each stored against its former self.
#[test]
fn frames_with_bases_are_read_by_the_engine_and_by_the_independent_reader() {
    const PAGES: usize = 24;
    const PAGE_BYTES: usize = 64 << 10;
    let lab = Lab::new(82);
    let folder = lab.path("repository");
    let store = Arc::new(LocalStore::create(&folder).expect("a folder"));
    lab.init(&store, Cipher::Aes256Gcm);
    let repository = lab.open(&store, "cache");
    let old = (0..PAGES).map(|page| noise(PAGE_BYTES, page as u64)).collect::<Vec<_>>();
    let mut new = old.clone();
    for (number, page) in new.iter_mut().enumerate() {
        page[number * 100] ^= 0xff;
    }
    let publish = || -> Result<(), Error> {
        let mut craft = Craft::new(&repository);
        let keys = &repository.vault().keys;
        let reference =
            |data: &[u8]| ChunkRef { id: keys.chunk_id(data), bytes: data.len() as u32 };
        for page in &old {
            craft.chunk(page)?;
        }
        // Two new pages a frame, with the two old ones as bases, their order exchanged.
        for (new, old) in new.chunks(2).zip(old.chunks(2)) {
            let plain = new.concat();
            let bases = [&old[1], &old[0]];
            let prefix = bases.map(|page| page.as_slice()).concat();
            let stored = compress_against(&prefix, &plain);
            assert!(stored.len() < 1_000, "{} bytes: not a delta", stored.len());
            let chunks = new.iter().map(|page| reference(page)).collect();
            let bases = bases.map(|page| reference(page)).to_vec();
            craft.frame(PackKind::Data, Codec::Zstd, &stored, chunks, bases)?;
        }
        let file = |pages: &[Vec<u8>]| {
            let chunk = |page: &Vec<u8>| {
                let ChunkRef { id, bytes } = reference(page);
                Extent::Chunk { id, bytes }
            };
            let extents = Extents::Inline(pages.iter().take(16).map(chunk).collect());
            Node::File(Content { bytes: (16 * PAGE_BYTES) as u64, extents })
        };
        let root = craft.directory(&[
            entry("new-first", file(&new)),
            entry("new-last", file(&new[PAGES - 16..])),
            entry("old", file(&old)),
        ])?;
        craft.publish(root).map(|_| ())
    };
    publish().expect("it can be stored");

    let other = lab.open(&store, "other");
    let found = verify_full(&other);
    assert!(found.findings.is_empty(), "{:?}", found.findings);
    let snapshot = snapshots::select(&other, "latest").expect("it is there");
    let (target, report) = lab.restore(&other, &snapshot, false).expect("it restores");
    assert_eq!(report.failure_count, 0, "{:?}", report.failures);
    let read = |name: &str| std::fs::read(target.join(name)).expect("it is there");
    assert!(read("new-first") == new[..16].concat());
    assert!(read("new-last") == new[PAGES - 16..].concat());
    assert!(read("old") == old[..16].concat());
    let key = write_key_file(&lab);
    for from_packs in [false, true] {
        let theirs = lab.path(&format!("target-{from_packs}"));
        let id = snapshot.id.to_hex();
        reader::restore(&folder, ["--key-file", &key], &id, &theirs, from_packs);
        // The target itself is not part of the snapshot.
        for folder in [&target, &theirs] {
            tree::age(folder);
        }
        std::fs::set_permissions(&theirs, std::fs::metadata(&target).expect("it").permissions())
            .expect("its mode");
        assert_same(&target, &theirs);
    }
}

/// Two hosts store the same chunk, one as a delta and one whole; the second one's copy is a base.
#[test]
fn a_base_is_read_from_the_copy_that_has_no_base_itself() {
    for delta_first in [true, false] {
        let lab = Lab::new(83);
        let folder = lab.path("repository");
        let store = Arc::new(LocalStore::create(&folder).expect("a folder"));
        lab.init(&store, Cipher::Aes256Gcm);
        let repository = lab.open(&store, "cache");
        let keys = &repository.vault().keys;
        let reference =
            |data: &[u8]| ChunkRef { id: keys.chunk_id(data), bytes: data.len() as u32 };
        let pages = (0..3_u8).map(|version| {
            let mut page = noise(64 << 10, 1);
            page[7_000] ^= version;
            page
        });
        let [first, second, third] = pages.collect::<Vec<_>>().try_into().expect("three");
        let against = |craft: &mut Craft<'_>, base: &[u8], new: &[u8]| {
            let stored = compress_against(base, new);
            assert!(stored.len() < 1_000, "{} bytes: not a delta", stored.len());
            let (chunks, bases) = (vec![reference(new)], vec![reference(base)]);
            craft.frame(PackKind::Data, Codec::Zstd, &stored, chunks, bases).expect("stored");
        };
        let file = |page: &[u8]| {
            let ChunkRef { id, bytes } = reference(page);
            cairn_tests::craft::file(id, bytes)
        };
        let one = || {
            let mut craft = Craft::new(&repository);
            craft.chunk(&first).expect("stored");
            against(&mut craft, &first, &second);
            let root = craft.directory(&[entry("page", file(&second))]).expect("a tree");
            craft.publish(root).expect("a snapshot");
        };
        let other = || {
            let mut craft = Craft::new(&repository);
            craft.chunk(&second).expect("stored");
            against(&mut craft, &second, &third);
            let root = craft.directory(&[entry("page", file(&third))]).expect("a tree");
            craft.publish(root).expect("a snapshot")
        };
        let snapshot = if delta_first {
            one();
            other()
        } else {
            let snapshot = other();
            one();
            snapshot
        };
        for cache in ["cache", "fresh"] {
            let reading = lab.open(&store, cache);
            let found = snapshots::list(&reading).expect("a list");
            let found = found.into_iter().find(|found| found.id == snapshot).expect("it is there");
            let (target, _) = lab.restore(&reading, &found, false).expect("it restores");
            assert!(std::fs::read(target.join("page")).expect("it is there") == third);
            let checked = verify_full(&reading);
            assert!(checked.findings.is_empty(), "{:?}", checked.findings);
            if cache == "cache" {
                continue;
            }
            let key = write_key_file(&lab);
            for from_packs in [false, true] {
                let theirs = lab.path(&format!("target-{from_packs}"));
                let id = snapshot.to_hex();
                reader::restore(&folder, ["--key-file", &key], &id, &theirs, from_packs);
                assert!(std::fs::read(theirs.join("page")).expect("it is there") == third);
            }
        }
    }
}
