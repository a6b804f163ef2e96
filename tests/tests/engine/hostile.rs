//! Goal: a snapshot that an owner with bad intentions signed restores without a write outside of
//! the target, in bounded time and memory, with what is wrong reported.
//! Method: write such snapshots by hand; restore them into a folder beside which there is bait;
//! compare everything outside of the folder afterwards. Names that no entry can have (`..`, `/`,
//! NUL, none) are refused by the codec, and tested there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_engine::error::{Class, Error, Explain as _};
use cairn_engine::ops::restore::{self, RestoreOptions, RestoreReport};
use cairn_engine::ops::snapshots;
use cairn_engine::repo::Repository;
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::tree::reader::{self, Visit, Visitor};
use cairn_format::ids::ChunkId;
use cairn_format::limits::PATH_DEPTH_MAX;
use cairn_format::names::PackKind;
use cairn_format::node::{DirectoryChild, DirectoryNode, ExtentNode};
use cairn_format::pack::{ChunkRef, Codec};
use cairn_format::tree::{Content, Entry, Extent, Extents, Node};
use cairn_tests::compare::{Tree, assert_same_tree, look};
use cairn_tests::craft::{Craft, entry, file, meta};
use cairn_tests::lab::{Lab, StopAfter, verify_full};

struct Scene {
    lab: Lab,
    store: MemoryStore,
    bait: Tree,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::new(3);
        let store = lab.memory();
        let outside = lab.path("outside");
        std::fs::create_dir(&outside).expect("a folder");
        std::fs::write(outside.join("bait"), "untouched").expect("a file");
        let bait = look(&outside);
        Self { lab, store, bait }
    }

    fn outside(&self) -> PathBuf {
        self.lab.path("outside")
    }

    /// Publishes what `make` builds and opens the repository anew.
    fn publish(&self, make: impl FnOnce(&mut Craft<'_>) -> Result<ChunkId, Error>) -> Repository {
        let repository = self.lab.open(&self.store, "crafting");
        let mut craft = Craft::new(&repository);
        let root = make(&mut craft).expect("it can be stored");
        craft.publish(root).expect("it can be published");
        drop(repository);
        self.lab.open(&self.store, "reading")
    }

    /// Restores the newest snapshot into `target`, made before, and checks what lies beside it.
    fn restore(
        &self,
        repository: &Repository,
        target: &Path,
        keep_going: bool,
    ) -> Result<RestoreReport, Error> {
        let snapshot = snapshots::select(repository, "latest").expect("it is there");
        let mut options = RestoreOptions::new(snapshot, target.to_path_buf());
        options.keep_going = keep_going;
        let outcome = restore::run(repository, &options);
        assert_same_tree(&self.bait, &self.outside());
        outcome
    }
}

#[test]
fn a_link_out_of_the_target_is_made_and_never_followed() {
    let scene = Scene::new();
    let outside = scene.outside();
    let repository = scene.publish(|craft| {
        let data = craft.chunk(b"malice")?;
        let inner = craft.directory(&[entry("bait", file(data, 6))])?;
        let away = Node::Symlink(outside.as_os_str().as_encoded_bytes().to_vec());
        craft.directory(&[
            entry("absolute", away),
            entry("inner", Node::Directory(inner)),
            entry("relative", Node::Symlink(b"../outside".to_vec())),
            entry("to-file", Node::Symlink(b"../outside/bait".to_vec())),
        ])
    });
    let target = scene.lab.path("target");
    let report = scene.restore(&repository, &target, false).expect("it restores");
    assert_eq!(report.failure_count, 0, "{:?}", report.failures);
    let link = std::fs::read_link(target.join("absolute")).expect("the link is there");
    assert_eq!(link, outside, "links are restored as they were");
}

/// Two entries of one name, the first a link out, the second a directory with a file: a restore
/// that trusted the order would write through the link.
#[test]
fn a_directory_after_a_link_of_the_same_name_is_not_entered_through_it() {
    let scene = Scene::new();
    let repository = scene.publish(|craft| {
        let data = craft.chunk(b"malice")?;
        let inner = craft.directory(&[entry("bait", file(data, 6))])?;
        let link = craft.directory(&[entry("name", Node::Symlink(b"../outside".to_vec()))])?;
        let folder = craft.directory(&[entry("name", Node::Directory(inner))])?;
        // One leaf with both is refused by the codec, so they stand in two.
        let child = |node| DirectoryChild { first_name: b"name".to_vec(), node, entries: 1 };
        let inner = DirectoryNode::Inner { level: 1, children: vec![child(link), child(folder)] };
        craft.node(&inner.encode())
    });
    let target = scene.lab.path("target");
    let outcome = scene.restore(&repository, &target, true);
    assert!(
        outcome.as_ref().map_or_else(Error::is_damage, |report| report.damage_count > 0),
        "{outcome:?}"
    );
    assert!(!verify_full(&repository).findings.is_empty());
}

/// What somebody puts into the target while or before it is restored is no way out either.
#[test]
fn a_link_that_is_in_the_target_already_is_not_followed() {
    let scene = Scene::new();
    let repository = scene.publish(|craft| {
        let data = craft.chunk(b"malice")?;
        let inner = craft.directory(&[entry("bait", file(data, 6))])?;
        craft.directory(&[entry("bait", file(data, 6)), entry("folder", Node::Directory(inner))])
    });
    let target = scene.lab.path("target");
    std::fs::create_dir(&target).expect("a folder");
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, target.join(name));
    link("../outside", "folder").expect("a link");
    link("../outside/bait", "bait").expect("a link");
    let snapshot = snapshots::select(&repository, "latest").expect("it is there");
    for (delta, overwrite) in [(true, false), (false, true)] {
        let mut options = RestoreOptions::new(snapshot.clone(), target.clone());
        (options.delta, options.overwrite) = (delta, overwrite);
        restore::run(&repository, &options).expect("what is in the way is replaced");
        assert_same_tree(&scene.bait, &scene.outside());
        assert_eq!(std::fs::read(target.join("folder/bait")).expect("the file"), b"malice");
    }
}

struct Count(u64);

impl Visitor for Count {
    fn entry(&mut self, _: &[u8], _: &Entry) -> Result<Visit, Error> {
        self.0 += 1;
        Ok(Visit::Descend)
    }

    fn damaged(&mut self, _: &[u8], error: Error) -> Result<(), Error> {
        if error.is_damage() { Ok(()) } else { Err(error) }
    }
}

#[test]
fn nesting_beyond_the_limit_is_damage_and_the_stack_holds() {
    let scene = Scene::new();
    let repository = scene.publish(|craft| {
        let mut node = craft.directory(&[])?;
        for _ in 0..PATH_DEPTH_MAX + 100 {
            node = craft.directory(&[entry("d", Node::Directory(node))])?;
        }
        Ok(node)
    });
    let snapshot = snapshots::select(&repository, "latest").expect("it is there");
    let nodes = repository.nodes(&snapshot).expect("a reader");
    let mut count = Count(0);
    reader::walk(&nodes, &snapshot.record.root, &mut Vec::new(), &mut count).expect("it ends");
    assert!(count.0 >= u64::from(PATH_DEPTH_MAX) && count.0 <= u64::from(PATH_DEPTH_MAX) + 2);
    let report = verify_full(&repository);
    assert!(report.findings.iter().any(|f| f.message.contains("nested")), "{report:?}");
    let outcome = scene.restore(&repository, &scene.lab.path("target"), true);
    let said =
        outcome.as_ref().map_or(true, |report| report.damage_count + report.failure_count > 0);
    assert!(said, "{outcome:?}");
}

/// 2^60 entries in 60 nodes.
#[test]
fn a_tree_that_shares_itself_is_verified_in_linear_time() {
    let scene = Scene::new();
    let repository = scene.publish(|craft| {
        let mut node = craft.directory(&[])?;
        for _ in 0..60 {
            let twice = [entry("a", Node::Directory(node)), entry("b", Node::Directory(node))];
            node = craft.directory(&twice)?;
        }
        Ok(node)
    });
    let report = verify_full(&repository);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(report.snapshots, 1);
    // A restore of it would take for ever, but stops when it is told to.
    drop(repository);
    let lab = scene.lab;
    let stops = Arc::new(StopAfter::new(3_000, None));
    let repository = lab.open_watched(&scene.store, "stopping", stops);
    let snapshot = snapshots::select(&repository, "latest").expect("it is there");
    let error = lab.restore(&repository, &snapshot, true).expect_err("it was told to stop");
    assert!(matches!(error, Error::Cancelled), "{error}");
}

/// The same with something damaged at its bottom: only so many of its paths can be named.
#[test]
fn a_tree_that_shares_damage_is_verified_in_bounded_time() {
    let scene = Scene::new();
    let repository = scene.publish(|craft| {
        let missing = file(ChunkId::from_bytes([5; 32]), 5);
        let mut node = craft.directory(&[entry("file", missing)])?;
        for _ in 0..60 {
            let twice = [entry("a", Node::Directory(node)), entry("b", Node::Directory(node))];
            node = craft.directory(&twice)?;
        }
        Ok(node)
    });
    let report = verify_full(&repository);
    assert!(report.affected_count >= 1_000 && !report.findings.is_empty(), "{report:?}");
}

#[test]
fn device_nodes_and_set_id_files_are_made_only_as_told() {
    let scene = Scene::new();
    let repository = scene.publish(|craft| {
        let data = craft.chunk(b"#!/bin/sh\n")?;
        let mut set_id = entry("set-id", file(data, 10));
        set_id.meta = meta(0o6755);
        set_id.meta.uid = 12_345;
        craft.directory(&[
            entry("device", Node::BlockDevice { major: 7, minor: 250 }),
            entry("null", Node::CharDevice { major: 1, minor: 3 }),
            set_id,
        ])
    });
    let target = scene.lab.path("target");
    let snapshot = snapshots::select(&repository, "latest").expect("it is there");
    let mut options = RestoreOptions::new(snapshot, target.clone());
    options.devices = false;
    let report = restore::run(&repository, &options).expect("it restores");
    assert!(report.failure_count >= 2, "devices left out are reported: {:?}", report.failures);
    let seen = look(&target);
    assert!(!seen.contains_key(Path::new("device")) && !seen.contains_key(Path::new("null")));
    let set_id = &seen[Path::new("set-id")];
    // Never set-id for an owner it was not recorded with.
    assert!(set_id.owner.0 == 12_345 || set_id.mode & 0o6000 == 0, "{set_id:?}");
}

/// An entry that says other lengths than its chunks have.
#[test]
fn lying_lengths_are_reported_and_nothing_is_written_beyond_a_file() {
    let scene = Scene::new();
    let repository = scene.publish(|craft| {
        let data = craft.chunk(b"twelve bytes")?;
        let good = craft.chunk(b"good")?;
        let long = Extents::Inline(vec![Extent::Chunk { id: data, bytes: 1 << 20 }]);
        let short = Extents::Inline(vec![Extent::Chunk { id: data, bytes: 1 }]);
        let nothing = ChunkId::from_bytes([9; 32]);
        let leaf = ExtentNode::Leaf(vec![Extent::Chunk { id: data, bytes: 12 }]).encode();
        let tree = Extents::Tree(craft.node(&leaf)?);
        let content = |bytes, extents| Node::File(Content { bytes, extents });
        craft.directory(&[
            entry("good", file(good, 4)),
            entry("long", content(1 << 20, long)),
            entry("missing", file(nothing, 5)),
            entry("short", content(1, short)),
            entry("tree", content(1 << 40, tree)),
        ])
    });
    let target = scene.lab.path("target");
    let strict = scene.restore(&repository, &scene.lab.path("strict"), false);
    assert_eq!(strict.expect_err("damage ends it").class(), Class::Damage);
    let report = scene.restore(&repository, &target, true).expect("it goes on");
    assert_eq!(report.damage_count, 4, "{:?}", report.damaged);
    assert_eq!(std::fs::read(target.join("good")).expect("the file"), b"good");
    assert_eq!(verify_full(&repository).affected_count, 4);
}

#[test]
fn a_sparse_file_of_eight_exbibytes_ends_without_filling_anything() {
    let scene = Scene::new();
    let repository = scene.publish(|craft| {
        let data = craft.chunk(b"end")?;
        let hole = (1_u64 << 63) - 4;
        let extents = Extents::Inline(vec![
            Extent::Hole { bytes: hole },
            Extent::Chunk { id: data, bytes: 3 },
        ]);
        let good = craft.chunk(b"good")?;
        craft.directory(&[
            entry("good", file(good, 4)),
            entry("huge", Node::File(Content { bytes: hole + 3, extents })),
        ])
    });
    let target = scene.lab.path("target");
    let outcome = scene.restore(&repository, &target, true);
    // A file system that cannot hold the length says so; one that can has a hole.
    let said = match &outcome {
        Ok(report) => {
            let blocks = std::fs::metadata(target.join("huge"))
                .map_or(0, |meta| std::os::unix::fs::MetadataExt::blocks(&meta));
            assert!(blocks < 1_000, "{blocks}");
            report.failure_count + report.damage_count > 0 || target.join("huge").exists()
        }
        Err(error) => matches!(error, Error::Target(_)),
    };
    assert!(said, "{outcome:?}");
    assert_eq!(std::fs::read(target.join("good")).expect("the other file"), b"good");
}

/// Frames that decode to something else than they state: a bomb, and a lie.
#[test]
fn frames_that_decompress_to_more_than_they_state_are_damage() {
    let scene = Scene::new();
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).expect("zeros compress");
    let repository = scene.publish(|craft| {
        let plain = b"stated".to_vec();
        let id = craft.chunk(&plain)?;
        // A second chunk whose frame claims a mebibyte and holds 64.
        let claimed = ChunkId::from_bytes([8; 32]);
        let chunks = vec![ChunkRef { id: claimed, bytes: 1 << 20 }];
        craft.frame(PackKind::Data, Codec::Zstd, &bomb, chunks, Vec::new())?;
        let garbage = ChunkId::from_bytes([6; 32]);
        let chunks = vec![ChunkRef { id: garbage, bytes: 700 }];
        craft.frame(PackKind::Data, Codec::Zstd, b"no zstd at all", chunks, Vec::new())?;
        craft.directory(&[
            entry("bomb", file(claimed, 1 << 20)),
            entry("garbage", file(garbage, 700)),
            entry("good", file(id, 6)),
        ])
    });
    let target = scene.lab.path("target");
    let report = scene.restore(&repository, &target, true).expect("it goes on");
    assert_eq!(report.damage_count, 2, "{:?}", report.damaged);
    assert_eq!(std::fs::read(target.join("good")).expect("the file"), b"stated");
    let found = verify_full(&repository);
    assert_eq!(found.affected_count, 2, "{:?}", found.findings);
}
