//! Goal: damage to any object is found and named by verify; what it does not touch still restores;
//! nothing wrong is ever restored unsaid.
//! Method: a matrix of object kinds and damages over copies of one repository; each case is
//! looked at by a host that knows nothing and by one that knew the repository before.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cairn_engine::error::{Class, Explain as _};
use cairn_engine::ops::restore::RestoreReport;
use cairn_engine::ops::snapshots::{self, SnapshotInfo};
use cairn_engine::ops::verify::VerifyReport;
use cairn_engine::ops::{backup, repair_index};
use cairn_engine::repo::{Repository, keys};
use cairn_engine::seal::Part;
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::tree::reader::{self, Visit, Visitor};
use cairn_format::certificate::Role;
use cairn_format::envelope::HEADER_BYTES;
use cairn_format::ids::{ChunkId, PackId};
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::pack::{LOCATOR_BYTES, Locator};
use cairn_format::tree::{Entry, Extent, Node};
use cairn_tests::compare::{Tree, differences, look};
use cairn_tests::damage::{Damage, swap};
use cairn_tests::lab::{Lab, OWNER, back_up, copy_of, inside, new_key, object, verify_full};
use cairn_tests::seed::{Seed, noise};
use cairn_tests::tree;

/// The name of the second owner's key.
const OTHER: &str = "other";

/// A path as reports show it.
fn shown(path: &Path) -> PathBuf {
    path.to_string_lossy().into_owned().into()
}

struct Scene {
    lab: Lab,
    store: MemoryStore,
    source: PathBuf,
    /// What each snapshot holds, oldest first.
    trees: Vec<Tree>,
    seed: Seed,
    round: usize,
}

/// One damaged copy and the cache folders that look at it.
struct Case {
    store: MemoryStore,
    fresh: String,
    what: String,
}

impl Scene {
    fn new() -> Self {
        let seed = Seed::new();
        let lab = Lab::new(seed.value());
        let store = lab.memory();
        let source = lab.path("source");
        let repository = lab.open(&store, "maker");
        keys::add(&repository, &new_key(OTHER, Role::Owner)).expect("a second key");
        let mut trees = Vec::new();
        tree::everything(&source, 1);
        for number in 0..2 {
            if number == 1 {
                std::fs::write(source.join("deep/new"), noise(1_200_000, 5)).expect("a file");
                std::fs::remove_file(source.join("small-007")).expect("removed");
                tree::settle(&source);
            }
            trees.push(look(&source));
            let report = back_up(&repository, &source).expect("the backup");
            assert_eq!(report.unread_count, 0, "{:?}", report.unread);
        }
        Self { lab, store, source, trees, seed, round: 0 }
    }

    fn case(&mut self, what: String) -> Case {
        self.round += 1;
        Case { store: copy_of(&self.store), fresh: format!("fresh-{}", self.round), what }
    }

    fn damaged(&mut self, name: &ObjectName, damage: Damage) -> Case {
        let case = self.case(format!("{damage:?} of {name}, {:?}", self.seed));
        damage.apply(&case.store, name, &mut self.seed);
        case
    }

    fn names(&self, wanted: impl Fn(&ObjectName) -> bool) -> Vec<ObjectName> {
        self.store.names().into_iter().filter(wanted).collect()
    }

    /// The damages that suit any object of this one's length.
    fn damages(&self, name: &ObjectName) -> Vec<Damage> {
        let bytes = object(&self.store, name).len();
        vec![
            Damage::Truncate(0),
            Damage::Truncate(bytes / 2),
            Damage::Truncate(bytes - 1),
            Damage::Flip { from: 0, to: 64 },
            Damage::Flip { from: 64, to: bytes },
            Damage::Append,
            Damage::Garbage,
            Damage::Delete,
        ]
    }

    /// Restores every snapshot that is listed, going on past damage, and fails when something
    /// differs from what was backed up without being reported. Returns what was reported damaged.
    fn restore_all(&self, repository: &Repository, what: &str) -> BTreeSet<(usize, PathBuf)> {
        let mut damaged = BTreeSet::new();
        for snapshot in snapshots::list(repository).expect("a list") {
            let number = usize::try_from(snapshot.record.sequence - 1).expect("a small number");
            let (target, report) =
                self.lab.restore(repository, &snapshot, true).expect("a restore that goes on");
            let paths = self.assert_honest(&self.trees[number], &target, &report, what);
            damaged.extend(paths.into_iter().map(|path| (number, path)));
            std::fs::remove_dir_all(target).expect("the folder is removed");
        }
        damaged
    }

    /// Everything is as it was or reported; returns the reported paths, relative to the source.
    fn assert_honest(
        &self,
        tree: &Tree,
        target: &Path,
        report: &RestoreReport,
        what: &str,
    ) -> BTreeSet<PathBuf> {
        let place = inside(target, &self.source);
        let reported = report
            .damaged
            .iter()
            .map(|remark| {
                let path = Path::new(&remark.subject);
                let below = path.strip_prefix(target).unwrap_or(path);
                let below = below.strip_prefix("/").unwrap_or(below);
                let source = self.source.strip_prefix("/").expect("an absolute path");
                // Damage above the source touches all of it.
                below.strip_prefix(source).unwrap_or(Path::new("")).to_path_buf()
            })
            .collect::<BTreeSet<_>>();
        assert_eq!(report.damage_count, reported.len() as u64, "{what}: {:?}", report.damaged);
        let mut after = if place.exists() { look(&place) } else { Tree::new() };
        let mut before = tree.clone();
        let touched = |path: &Path| reported.iter().any(|damaged| shown(path).starts_with(damaged));
        // A directory that is not complete has another time, and files lose the links to it.
        let above = |path: &Path| reported.iter().any(|damaged| damaged.starts_with(shown(path)));
        for side in [&mut before, &mut after] {
            side.retain(|path, _| !touched(path) && !above(path));
            side.values_mut().for_each(|seen| seen.same_as = None);
        }
        let found = differences(&before, &after);
        assert!(found.is_empty(), "{what}: restored wrongly and not reported: {found:#?}");
        reported
    }

    /// What verify says, having named the object.
    fn assert_named(&self, repository: &Repository, name: &ObjectName, what: &str) -> VerifyReport {
        let report = verify_full(repository);
        let id = match name {
            ObjectName::Snapshot { id, .. } => id.to_hex(),
            other => other.to_string(),
        };
        let named = report.findings.iter().any(|finding| finding.object.contains(&id));
        assert!(named, "{what}: verify does not name it: {:?}", report.findings);
        report
    }

    /// A cache that knew the repository before it was damaged.
    fn warm(&self, case: &Case) -> Repository {
        let cache = format!("{}-warm", case.fresh);
        drop(self.lab.open(&self.store, &cache).catalog().map(|_| ()));
        self.lab.open(&case.store, &cache)
    }

    fn end(&self, case: &Case) {
        for cache in [case.fresh.clone(), format!("{}-warm", case.fresh)] {
            let folder = self.lab.cache(&cache);
            if folder.exists() {
                std::fs::remove_dir_all(folder).expect("the cache is removed");
            }
        }
    }
}

#[test]
fn a_damaged_format_object_is_refused() {
    let mut scene = Scene::new();
    for damage in scene.damages(&ObjectName::Format) {
        let case = scene.damaged(&ObjectName::Format, damage);
        let opened = scene.lab.try_open(&case.store, OWNER, &case.fresh);
        let error = opened.err().expect(&case.what);
        let expected = match damage {
            Damage::Delete => error.class() == Class::NoRepository,
            // Bits of the version or of the features look like a newer version.
            Damage::Flip { .. } => matches!(error.class(), Class::Damage | Class::Refused),
            _ => error.class() == Class::Damage,
        };
        assert!(expected, "{}: {error}", case.what);
    }
}

#[test]
fn a_damaged_config_is_named_and_one_that_is_left_is_used() {
    let mut scene = Scene::new();
    let name = scene.names(|name| matches!(name, ObjectName::Config(_))).remove(0);
    for damage in scene.damages(&name) {
        let case = scene.damaged(&name, damage);
        let error = scene.lab.try_open(&case.store, OWNER, &case.fresh).err().expect(&case.what);
        assert_eq!(error.class(), Class::Damage, "{}: {error}", case.what);
    }
    let case = scene.case("a config that is no config beside the right one".to_owned());
    let other = ObjectName::parse(&format!("config/{}", "ab".repeat(32))).expect("a name");
    case.store.overwrite(other, object(&case.store, &name));
    let repository = scene.lab.open(&case.store, &case.fresh);
    scene.assert_named(&repository, &other, &case.what);
    assert!(scene.restore_all(&repository, &case.what).is_empty());
}

#[test]
fn a_damaged_key_slot_is_named_and_the_other_key_opens() {
    let mut scene = Scene::new();
    let slots = scene.names(|name| matches!(name, ObjectName::Key(_)));
    for name in &slots {
        for damage in scene.damages(name) {
            let case = scene.damaged(name, damage);
            let opened =
                [OWNER, OTHER].map(|key| scene.lab.try_open(&case.store, key, &case.fresh));
            let [one, other] = opened;
            let (repository, error) = match (one, other) {
                (Ok(repository), Err(error)) | (Err(error), Ok(repository)) => (repository, error),
                _ => panic!("{}: not exactly one key opens", case.what),
            };
            assert!(matches!(error.class(), Class::WrongKey | Class::Damage), "{error}");
            if damage != Damage::Delete {
                scene.assert_named(&repository, name, &case.what);
            }
            assert!(scene.restore_all(&repository, &case.what).is_empty());
            drop(repository);
            scene.end(&case);
        }
    }
    let case = scene.case("both slots damaged".to_owned());
    for name in &slots {
        Damage::Garbage.apply(&case.store, name, &mut scene.seed);
    }
    let error = scene.lab.try_open(&case.store, OWNER, &case.fresh).err().expect(&case.what);
    assert_eq!(error.class(), Class::Damage, "{error}");
}

#[test]
fn a_damaged_snapshot_or_ack_is_named_and_the_others_restore() {
    let mut scene = Scene::new();
    let names =
        scene.names(|name| matches!(name, ObjectName::Snapshot { .. } | ObjectName::Ack { .. }));
    for name in names {
        for damage in scene.damages(&name) {
            let case = scene.damaged(&name, damage);
            let repository = scene.lab.open(&case.store, &case.fresh);
            let is_ack = matches!(name, ObjectName::Ack { .. });
            if is_ack && damage == Damage::Delete {
                assert_eq!(verify_full(&repository).unacknowledged, 1, "{}", case.what);
            } else {
                scene.assert_named(&repository, &name, &case.what);
            }
            assert!(scene.restore_all(&repository, &case.what).is_empty(), "{}", case.what);
            let left = snapshots::list(&repository).expect("a list").len();
            assert_eq!(left, if is_ack { 2 } else { 1 }, "{}", case.what);
            drop(repository);
            scene.end(&case);
        }
    }
}

#[test]
fn damaged_index_segments_are_named_and_rebuilt_from_the_packs() {
    let mut scene = Scene::new();
    let names = scene.names(|name| matches!(name, ObjectName::Index(_)));
    assert_eq!(names.len(), 2);
    for name in names {
        for damage in scene.damages(&name) {
            let case = scene.damaged(&name, damage);
            // Who knew the repository before still restores everything.
            let warm = scene.warm(&case);
            assert!(scene.restore_all(&warm, &case.what).is_empty(), "{}", case.what);
            if damage != Damage::Delete {
                scene.assert_named(&warm, &name, &format!("{}, warm", case.what));
            }
            drop(warm);
            let repository = scene.lab.open(&case.store, &case.fresh);
            if damage == Damage::Delete {
                assert!(!verify_full(&repository).findings.is_empty(), "{}", case.what);
            } else {
                scene.assert_named(&repository, &name, &case.what);
            }
            assert!(!scene.restore_all(&repository, &case.what).is_empty(), "{}", case.what);
            drop(repository);
            let repository = scene.lab.open(&case.store, &case.fresh);
            repair_index::run(&repository, false).expect("the repair runs");
            drop(repository);
            let repository = scene.lab.open(&case.store, &format!("{}-warm", case.fresh));
            let report = verify_full(&repository);
            assert!(report.findings.is_empty(), "{}: {:?}", case.what, report.findings);
            assert!(scene.restore_all(&repository, &case.what).is_empty());
            drop(repository);
            scene.end(&case);
        }
    }
}

/// The byte ranges of a pack: header, each frame, filler, directory, locator.
struct Regions {
    frames: Vec<(usize, usize)>,
    filler: (usize, usize),
    directory: (usize, usize),
    locator: (usize, usize),
}

fn regions(scene: &Scene, repository: &Repository, kind: PackKind, id: PackId) -> Regions {
    let catalog = repository.catalog().expect("the index");
    let number = catalog.index().pack_number(&id).expect("the index").expect("the pack is known");
    let pack = catalog.pack(number).expect("the pack is known");
    let chunks = repository.chunk_reader(pack.writer).expect("a reader");
    let bytes = object(&scene.store, &ObjectName::Pack(kind, id));
    let locator_at = bytes.len() - LOCATOR_BYTES as usize;
    let mut sealed = bytes[locator_at..].to_vec();
    let opener = chunks.opener(&pack).expect("the header is sound");
    let plain = opener.open_in_place(Part::Locator, &mut sealed).expect("the locator is sound");
    let locator = Locator::decode(plain, bytes.len() as u64).expect("the locator is sound");
    let mut at = HEADER_BYTES;
    let frames = chunks.directory(&pack).expect("the directory is sound").frames;
    let frames = frames
        .iter()
        .map(|frame| {
            let start = at;
            at += frame.sealed_bytes as usize;
            (start, at)
        })
        .collect();
    let directory = locator.directory_offset as usize;
    Regions {
        frames,
        filler: (at, directory),
        directory: (directory, locator_at),
        locator: (locator_at, bytes.len()),
    }
}

/// Paths, relative to the source, of the files of a snapshot that have chunks in a pack.
fn files_in(
    scene: &Scene,
    repository: &Repository,
    snapshot: &SnapshotInfo,
    pack: PackId,
) -> BTreeSet<PathBuf> {
    struct Collect<'a> {
        repository: &'a Repository,
        snapshot: &'a SnapshotInfo,
        pack: PackId,
        found: BTreeSet<PathBuf>,
        prefix: &'a Path,
    }
    impl Visitor for Collect<'_> {
        fn entry(
            &mut self,
            path: &[u8],
            entry: &Entry,
        ) -> Result<Visit, cairn_engine::error::Error> {
            use std::os::unix::ffi::OsStrExt as _;
            let Node::File(content) = &entry.node else { return Ok(Visit::Descend) };
            let nodes = self.repository.nodes(self.snapshot)?;
            let mut ids: Vec<ChunkId> = Vec::new();
            reader::extents(&nodes, content, &mut |_, extent| {
                if let Extent::Chunk { id, .. } = extent {
                    ids.push(id);
                }
                Ok(())
            })?;
            let catalog = self.repository.catalog()?;
            for place in nodes.locate(&ids)?.into_iter().flatten() {
                if catalog.pack(place.pack)?.id == self.pack {
                    let path = Path::new(std::ffi::OsStr::from_bytes(path));
                    let below = path.strip_prefix(self.prefix).unwrap_or(path);
                    self.found.insert(shown(below));
                }
            }
            Ok(Visit::Descend)
        }
    }
    let mut collect =
        Collect { repository, snapshot, pack, found: BTreeSet::new(), prefix: &scene.source };
    let nodes = repository.nodes(snapshot).expect("a reader");
    reader::walk(&nodes, &snapshot.record.root, &mut Vec::new(), &mut collect).expect("a walk");
    collect.found
}

#[test]
fn damage_in_every_region_of_a_pack_is_named_and_touches_only_what_lies_there() {
    let mut scene = Scene::new();
    let pristine = scene.lab.open(&scene.store, "pristine");
    let listed = snapshots::list(&pristine).expect("a list");
    for name in scene.names(|name| matches!(name, ObjectName::Pack(..))) {
        let ObjectName::Pack(kind, id) = name else { continue };
        let parts = regions(&scene, &pristine, kind, id);
        let bytes = object(&scene.store, &name).len();
        let (from, to) = parts.frames[scene.seed.below(parts.frames.len() as u64) as usize];
        let mut damages = vec![
            (Damage::Flip { from: 0, to: HEADER_BYTES }, true),
            (Damage::Flip { from, to }, true),
            (Damage::Flip { from: parts.directory.0, to: parts.directory.1 }, false),
            (Damage::Flip { from: parts.locator.0, to: parts.locator.1 }, false),
            (Damage::Truncate(0), true),
            (Damage::Truncate(HEADER_BYTES - 1), true),
            (Damage::Truncate(from + 1), true),
            // No frame is lost, whatever else was to be read in the same request.
            (Damage::Truncate(parts.filler.0), false),
            (Damage::Truncate(bytes - 1), false),
            (Damage::Append, false),
            (Damage::Garbage, true),
            (Damage::Delete, true),
        ];
        if parts.filler.0 < parts.filler.1 {
            damages.push((Damage::Flip { from: parts.filler.0, to: parts.filler.1 }, false));
        }
        let in_pack = listed
            .iter()
            .enumerate()
            .flat_map(|(number, snapshot)| {
                let files = files_in(&scene, &pristine, snapshot, id);
                files.into_iter().map(move |path| (number, path))
            })
            .collect::<BTreeSet<_>>();
        for (damage, may_touch) in damages {
            let case = scene.damaged(&name, damage);
            let repository = scene.lab.open(&case.store, &case.fresh);
            let report = scene.assert_named(&repository, &name, &case.what);
            let damaged = scene.restore_all(&repository, &case.what);
            if kind == PackKind::Data {
                assert!(damaged.is_subset(&in_pack), "{}: {damaged:?}", case.what);
                let affected = report
                    .affected
                    .iter()
                    .map(|affected| {
                        use std::os::unix::ffi::OsStrExt as _;
                        let number = listed.iter().position(|s| s.id == affected.snapshot);
                        let path = Path::new(std::ffi::OsStr::from_bytes(&affected.path));
                        let below = path.strip_prefix(&scene.source).unwrap_or(path);
                        (number.expect("it is listed"), shown(below))
                    })
                    .collect::<BTreeSet<_>>();
                assert_eq!(affected, damaged, "{}: verify and restore disagree", case.what);
            }
            assert!(may_touch || damaged.is_empty(), "{}: {damaged:?}", case.what);
            drop(repository);
            scene.end(&case);
        }
    }
}

#[test]
fn two_objects_of_a_kind_exchanged_are_both_named() {
    let mut scene = Scene::new();
    let kinds: [fn(&ObjectName) -> bool; 6] = [
        |name| matches!(name, ObjectName::Pack(PackKind::Data, _)),
        |name| matches!(name, ObjectName::Pack(PackKind::Tree, _)),
        |name| matches!(name, ObjectName::Index(_)),
        |name| matches!(name, ObjectName::Snapshot { .. }),
        |name| matches!(name, ObjectName::Ack { .. }),
        |name| matches!(name, ObjectName::Key(_)),
    ];
    for kind in kinds {
        let names = scene.names(kind);
        let [one, other, ..] = names.as_slice() else { panic!("two of a kind: {names:?}") };
        let case = scene.case(format!("{one} and {other} exchanged"));
        swap(&case.store, one, other);
        // Slots are found by what opens them, and these do: each says of itself what it is.
        match scene.lab.try_open(&case.store, OWNER, &case.fresh) {
            Ok(repository) => {
                scene.assert_named(&repository, one, &case.what);
                scene.assert_named(&repository, other, &case.what);
                scene.restore_all(&repository, &case.what);
            }
            Err(error) => assert_eq!(error.class(), Class::Damage, "{}: {error}", case.what),
        }
        scene.end(&case);
    }
}

/// Goal: what verify found unreadable on this host is not relied on by its next backup where that
/// can be known, and whatever is relied on wrongly is reported, never restored wrongly.
/// Method: damage each data pack; back up the same source from the host that verified, and from
/// one that did not; restore the new snapshot.
#[test]
fn a_backup_beside_damage_is_honest() {
    let mut scene = Scene::new();
    let names = scene.names(|name| matches!(name, ObjectName::Pack(PackKind::Data, _)));
    for name in names {
        for damage in [Damage::Delete, Damage::Garbage] {
            let case = scene.damaged(&name, damage);
            let repository = scene.lab.open(&case.store, &case.fresh);
            let source = backup::BackupSource::Path(scene.source.clone());
            let options = backup::BackupOptions::new("job", vec![source]);
            let options = backup::BackupOptions { reread: true, ..options };
            let report = backup::run(&repository, options).expect("the backup");
            let snapshot = report.snapshot.expect("a snapshot");
            let (target, restored) =
                scene.lab.restore(&repository, &snapshot, true).expect("a restore that goes on");
            let tree = scene.trees[1].clone();
            scene.assert_honest(&tree, &target, &restored, &case.what);
            scene.assert_named(&repository, &name, &case.what);
            std::fs::remove_dir_all(target).expect("the folder is removed");
            drop(repository);
            scene.end(&case);
        }
    }
}

/// What verify found damaged is stored anew by the next backup of the same files, and then every
/// snapshot restores, on this host and on one that knows nothing of the damage.
#[test]
fn a_backup_after_verify_found_damage_heals_it() {
    let mut scene = Scene::new();
    for name in scene.names(|name| matches!(name, ObjectName::Pack(..))) {
        for damage in [Damage::Delete, Damage::Garbage] {
            let case = scene.damaged(&name, damage);
            // The backup before filled the file cache: nothing is to be believed on its word.
            let repository = scene.warm(&case);
            back_up(&repository, &scene.source).expect("the backup before verify");
            scene.assert_named(&repository, &name, &case.what);
            let report = back_up(&repository, &scene.source).expect("the backup after verify");
            assert_eq!(report.unread_count, 0, "{}: {:?}", case.what, report.unread);
            let affected = scene.assert_named(&repository, &name, &case.what).affected;
            let newest = report.snapshot.expect("a snapshot");
            let touched = affected.iter().any(|affected| affected.snapshot == newest.id);
            assert!(!touched, "{}: {affected:?}", case.what);
            let other = scene.lab.open(&case.store, &case.fresh);
            for repository in [&repository, &other] {
                let (target, restored) =
                    scene.lab.restore(repository, &newest, false).expect("it restores");
                assert_eq!(restored.damage_count, 0, "{}: {:?}", case.what, restored.damaged);
                let found = differences(&scene.trees[1], &look(&inside(&target, &scene.source)));
                assert!(found.is_empty(), "{}: {found:#?}", case.what);
                std::fs::remove_dir_all(target).expect("the folder is removed");
            }
            drop((repository, other));
            scene.end(&case);
        }
    }
}
