//! Goal: what a collection remembers of tree nodes changes nothing of what it finds to be needed.
//! Method: histories under seeds - backups of two hosts and of a writer's key, deaths, forgetting,
//! collections by two hosts, some of which die, damage that verify found, packs that are gone from the
//! index - and after every step what is marked with memos is compared with what is marked without.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_engine::chunk::CHUNKER_DEFAULT;
use cairn_engine::collect::choose::{Chosen, choose};
use cairn_engine::collect::mark::{Marked, Thoroughness, mark};
use cairn_engine::collect::memo::Memos;
use cairn_engine::collect::memo::record::{Edges, Name, NodeKind, Sheet};
use cairn_engine::collect::reached::Reached;
use cairn_engine::collect::survey::{Survey, survey};
use cairn_engine::context::Context;
use cairn_engine::error::{Error, Explain as _};
use cairn_engine::index::catalog::list_packs;
use cairn_engine::index::local::{LedgerEntry, PackNumber, PackRecord};
use cairn_engine::ops::backup::{self, BackupOptions, BackupSource};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::pack::reader::PackReader;
use cairn_engine::repo::{InitOptions, Repository, init, keys};
use cairn_engine::store::Store as _;
use cairn_engine::store::fault::{Fault, FaultStore, Plan};
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::record::CallKind;
use cairn_format::certificate::Role;
use cairn_format::ids::{PackId, SessionId, WriterId};
use cairn_format::limits::PACK_BYTES_MIN;
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::record::ChunkerSettings;
use cairn_format::segment::NAMESPACE_TRUSTED;
use cairn_tests::lab::{Lab, OWNER, Warnings, copy_of, new_key, unlock};
use cairn_tests::seed::{Seed, noise};
use cairn_tests::tree;

/// Histories, and steps of each.
const HISTORIES: u64 = 24;
const STEPS: usize = 36;
const STEPS_AT_FIRST: usize = 14;
const WRITER: &str = "writer";

struct Scene {
    lab: Lab,
    store: MemoryStore,
    /// What the collector opens the repository with; its monitor keeps warnings.
    context: Context,
    warnings: Arc<Warnings>,
    seed: Seed,
}

/// What was marked, in a form that can be compared.
#[derive(Debug, PartialEq)]
struct Seen {
    live: BTreeMap<PackNumber, Vec<usize>>,
    orphans: BTreeSet<(PackNumber, u32)>,
    bytes_held: u64,
    /// Packs that would go, with their dead bytes.
    going: Vec<(PackNumber, u64)>,
    bytes_left: u64,
}

fn seen(marked: &Marked<'_>, chosen: &Chosen) -> Seen {
    let packs = marked.live.packs().filter(|pack| marked.live.any(*pack));
    let going = chosen.dead.iter().chain(&chosen.repack);
    Seen {
        going: going.map(|going| (going.number, going.bytes_dead)).collect(),
        bytes_left: chosen.bytes_left,
        live: packs.map(|pack| (pack, marked.live.positions(pack))).collect(),
        orphans: marked.orphans.iter().copied().collect(),
        bytes_held: marked.bytes_held,
    }
}

impl Scene {
    fn new(seed: u64, kept: bool) -> Self {
        let lab = Lab::new(seed);
        let store = MemoryStore::new();
        let options = InitOptions {
            pack_bytes: PACK_BYTES_MIN,
            chunker: ChunkerSettings {
                bytes_min: 1024,
                bytes_avg: 4096,
                bytes_max: 16384,
                ..CHUNKER_DEFAULT
            },
            ..InitOptions::new(new_key(OWNER, Role::Owner))
        };
        init(&store, &options, &lab.context).expect("the repository is made");
        let owner = lab.open(&store, "maker");
        keys::add(&owner, &new_key(WRITER, Role::Writer)).expect("a key");
        let warnings = Arc::new(Warnings::default());
        // Half of them with an index in memory, which is gone with the repository that opened it.
        let cache_dir = if kept { lab.cache("collector") } else { PathBuf::new() };
        let context = Context { cache_dir, monitor: warnings.clone(), ..lab.context.clone() };
        Self { lab, store, context, warnings, seed: Seed::of(seed) }
    }

    fn collector(&self) -> Repository {
        Repository::open(Arc::new(self.store.clone()), &unlock(OWNER), &self.context)
            .expect("the repository opens")
    }

    /// Changes some files of a host: few contents, so that hosts share them; some resemble others.
    fn change(&mut self, host: &str) -> PathBuf {
        let root = self.lab.path(host);
        for _ in 0..1 + self.seed.below(4) {
            let folder = root.join(format!("folder-{}", self.seed.below(3)));
            std::fs::create_dir_all(&folder).expect("a folder");
            let path = folder.join(format!("file-{}", self.seed.below(4)));
            let (family, own) = (self.seed.below(4), self.seed.below(5));
            let mut content = noise(if family == 0 { 150_000 } else { 9_000 }, family);
            let at = usize::try_from(own).expect("small") * 1_700;
            content[at..at + 900].copy_from_slice(&noise(900, 100 + own));
            std::fs::write(&path, content).expect("a file");
            if self.seed.below(5) == 0 {
                std::fs::remove_file(&path).expect("removed");
            }
        }
        tree::settle(&root);
        root
    }

    fn back_up(&mut self, host: &str, key: &str, plan: Plan) {
        let source = self.change(host);
        let store = FaultStore::new(self.store.clone(), plan);
        // One that dies leaves a snapshot that is not acknowledged, or packs that nothing names.
        let Ok(repository) = self.lab.try_open(&store, key, host) else { return };
        let options = BackupOptions::new(host, vec![BackupSource::Path(source)]);
        let _outcome = backup::run(&repository, options);
    }

    fn collect(&mut self, repository: &Repository) {
        let options = GcOptions {
            max_dead_percent: self.pick(&[0.0, 0.0, 20.0, 100.0]).unwrap_or_default(),
            max_delete_percent: 100.0,
            honour_leases: false,
            full_mark: self.seed.below(6) == 0,
            ..GcOptions::default()
        };
        // What was lost on purpose stops it.
        let _outcome = gc::run(repository, &options);
    }

    fn forget(&mut self) {
        let is_ack = |name: &ObjectName| matches!(name, ObjectName::Ack { .. });
        let acks = self.store.names().into_iter().filter(is_ack).collect::<Vec<_>>();
        let Some(ObjectName::Ack { snapshot, .. }) = self.pick(&acks) else { return };
        let of = |name: &ObjectName| match name {
            ObjectName::Ack { snapshot: id, .. } => *id == snapshot,
            // Some only lose their acknowledgement.
            ObjectName::Snapshot { id, .. } => *id == snapshot,
            _ => false,
        };
        let only_ack = self.seed.below(5) == 0;
        for name in self.store.names().into_iter().filter(of) {
            if !only_ack || is_ack(&name) {
                self.store.delete(&name).expect("deleted");
            }
        }
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let at = self.seed.next().checked_rem(all.len() as u64)?;
        all.get(usize::try_from(at).ok()?).copied()
    }

    fn pick_pack(&mut self, repository: &Repository) -> Option<PackId> {
        let packs = packs_of(repository).into_iter().map(|(_, id)| id).collect::<Vec<_>>();
        self.pick(&packs)
    }

    /// Does one thing; returns what it was.
    fn step(&mut self, number: usize, repository: &mut Repository, kept: bool) -> String {
        // Enough snapshots at first that what is remembered of some of them is not compared.
        let what = if number < STEPS_AT_FIRST { self.seed.below(9) } else { self.seed.below(20) };
        match what {
            0..=4 => self.back_up("one", OWNER, Plan::new()),
            5..=6 => self.back_up("two", OWNER, Plan::new()),
            7..=8 => self.back_up("three", WRITER, Plan::new()),
            9 => {
                let put = self.seed.below(9);
                let plan = Plan::new().nth(CallKind::Put, put, Fault::Crash);
                let key = if self.seed.below(2) == 0 { OWNER } else { WRITER };
                self.back_up("four", key, plan);
            }
            10..=12 => self.forget(),
            13..=14 => self.collect(repository),
            15 => {
                let other = self.lab.open(&self.store, "other");
                self.collect(&other);
            }
            16 => {
                let plan = Plan::new().at(20 + self.seed.below(60), Fault::Crash);
                let store = FaultStore::new(self.store.clone(), plan);
                if let Ok(dying) = self.lab.try_open(&store, OWNER, "dying") {
                    self.collect(&dying);
                }
            }
            17 => {
                let pack = self.pick_pack(repository).into_iter().collect::<Vec<_>>();
                let catalog = repository.catalog().expect("an index");
                match self.seed.below(3) {
                    0 => catalog.note_verified(&pack, &[]).expect("noted"),
                    1 => catalog.note_verified(&[], &pack).expect("noted"),
                    // Found damaged once, and not in doubt by now: all its copies count.
                    _ => {
                        let entry = LedgerEntry { level: 2, verified_ms: 1, ok: false };
                        let entries = pack.into_iter().map(|id| (id, entry)).collect::<Vec<_>>();
                        catalog.index().ledger_put(&entries).expect("noted");
                    }
                }
            }
            18 => {
                // The next look adopts it again, under another number.
                if let Some(pack) = self.pick_pack(repository) {
                    let index = repository.catalog().expect("an index").index();
                    assert!(index.remove_pack(&pack).expect("removed"));
                }
            }
            _ if kept => {
                // The index is opened anew. Two at once would be a shared one.
                let closed = self.lab.open(&self.store, "elsewhere");
                drop(std::mem::replace(repository, closed));
                *repository = self.collector();
            }
            _ => {}
        }
        format!("step {what}")
    }

    /// What the collector marks in each way; `None` where it cannot look.
    fn compare(&mut self, repository: &Repository, when: &str) -> Option<bool> {
        let catalog = repository.catalog().expect("an index");
        let own = SessionId::from_bytes([9; 16]);
        // Before what was removed from the index is adopted again, now and then.
        let looked = match self.seed.below(3) {
            0 => {
                let (snapshots, _) = cairn_engine::ops::snapshots::list_all(repository).ok()?;
                Survey { snapshots, doubtful: suspects(repository), ..Survey::default() }
            }
            _ => survey(repository, catalog, own, false).ok()?,
        };
        let keep = self.seed.below(2) == 0;
        let mut ways = vec![Thoroughness::Careful, Thoroughness::Remembering];
        ways.extend([Thoroughness::Remembering, Thoroughness::Careful]);
        if self.seed.below(8) == 0 {
            ways.extend([Thoroughness::Anew, Thoroughness::Remembering]);
        }
        let mut first: Option<Result<Seen, &'static str>> = None;
        for how in ways {
            let outcome = self.mark(repository, &looked, how, keep);
            let outcome = outcome.map_err(|error| error.code());
            match &first {
                None => first = Some(outcome),
                Some(first) => assert_eq!(&outcome, first, "{when}: {how:?}"),
            }
        }
        Some(first.is_some_and(|outcome| outcome.is_ok()))
    }

    fn mark(
        &self,
        repository: &Repository,
        looked: &Survey,
        how: Thoroughness,
        keep: bool,
    ) -> Result<Seen, Error> {
        let catalog = repository.catalog()?;
        let mut marked = mark(repository, catalog, &looked.snapshots, &looked.doubtful, how)?;
        marked.follow_bases(keep, &HashSet::new())?;
        let memos = Memos::new(repository.vault(), catalog);
        let max_dead_percent = if keep { 10.0 } else { 0.0 };
        Ok(seen(&marked, &choose(catalog, looked, &marked, &memos, max_dead_percent)?))
    }
}

fn suspects(repository: &Repository) -> HashSet<PackNumber> {
    repository.catalog().expect("an index").suspects().iter().copied().collect()
}

#[test]
fn marks_are_the_same_with_and_without_what_is_remembered() {
    let (mut compared, mut failed) = (0, 0);
    for history in 0..HISTORIES {
        let kept = history % 2 == 0;
        let mut scene = Scene::new(5_000 + history, kept);
        let mut repository = scene.collector();
        for step in 0..STEPS {
            let what = scene.step(step, &mut repository, kept);
            match scene.compare(&repository, &format!("history {history}, {step}: {what}")) {
                Some(true) => compared += 1,
                Some(false) => failed += 1,
                None => {}
            }
        }
        let warned = scene.warnings.all();
        assert!(!warned.iter().any(|remark| remark.code == "gc.memo"), "{warned:?}");
    }
    // Otherwise nothing was compared.
    cairn_tests::say(&format!("{compared} compared, {failed} failed alike"));
    assert!(compared > 100 && failed > 0);
}

/// A repository with three snapshots of one host, of which memos are complete.
fn remembered(seed: u64) -> (Scene, Repository) {
    let mut scene = Scene::new(seed, true);
    for _ in 0..3 {
        scene.back_up("one", OWNER, Plan::new());
    }
    let repository = scene.collector();
    assert_eq!(scene.compare(&repository, "at first"), Some(true));
    (scene, repository)
}

#[test]
fn a_memo_that_is_damaged_is_not_believed() {
    let (mut scene, repository) = remembered(1);
    let index = repository.catalog().expect("an index").index();
    let keys = index.memo_keys(&[]).expect("keys");
    assert!(keys.len() > 3);
    for key in keys {
        let Some(value) = index.get_memo(&key).expect("a memo") else { continue };
        for at in [0, value.len() / 2, value.len().saturating_sub(1)] {
            let mut damaged = value.clone();
            let Some(byte) = damaged.get_mut(at) else { continue };
            *byte ^= 4;
            index.put_memos(&[(key.clone(), Some(damaged))]).expect("put");
            assert_eq!(scene.compare(&repository, "with damage"), Some(true));
        }
    }
    assert!(scene.warnings.all().is_empty(), "a bad checksum is no bad memo");
}

/// One whose snapshots are all in one span, which is then the one that is compared. Where a span ends
/// depends on the snapshots' ids, which no seed decides.
fn remembered_in_one_span(seed: u64) -> (Scene, Repository) {
    for attempt in 0..100 {
        let (scene, repository) = remembered(seed + attempt * 1_000);
        let catalog = repository.catalog().expect("an index");
        let spans = Memos::new(repository.vault(), catalog).spans().expect("spans").len();
        if spans == 1 {
            return (scene, repository);
        }
    }
    panic!("three snapshots are in one span three times of four");
}

/// Puts, with a checksum that holds, what nodes do not say.
fn falsify(repository: &Repository, change: &dyn Fn(&mut Edges)) -> usize {
    let catalog = repository.catalog().expect("an index");
    let memos = Memos::new(repository.vault(), catalog);
    let mut changed = 0;
    for (namespace, pack) in memos.sheets().expect("sheets") {
        let id = catalog.pack(pack).expect("a pack").id;
        let mut sheet: Sheet = memos.sheet(namespace, pack, &id).expect("a sheet");
        for bytes in sheet.nodes.values_mut() {
            let mut edges = Edges::decode(pack, bytes).expect("edges");
            let before = edges.clone();
            change(&mut edges);
            changed += usize::from(edges != before);
            *bytes = edges.encode(pack);
        }
        memos.put_sheet(namespace, pack, &id, &sheet).expect("put");
    }
    changed
}

#[test]
fn memos_that_are_false_are_found_out_and_everything_is_read() {
    type Change = fn(&mut Edges);
    let changes: [Change; 4] = [
        |edges| edges.data.truncate(edges.data.len().saturating_sub(1)),
        |edges| edges.nodes.truncate(edges.nodes.len().saturating_sub(1)),
        |edges| edges.data.iter_mut().for_each(|run| run.first.position ^= 1),
        |edges| edges.nodes.iter_mut().for_each(|(_, name)| name.pack = PackNumber(900_000)),
    ];
    for (number, change) in changes.iter().enumerate() {
        let (mut scene, repository) = remembered(20 + number as u64);
        assert!(falsify(&repository, change) > 0);
        assert_eq!(scene.compare(&repository, &format!("change {number}")), Some(true));
    }
    // One that can be followed is found by comparing.
    let (scene, repository) = remembered(2);
    falsify(&repository, &|edges| edges.data.truncate(edges.data.len().saturating_sub(1)));
    gc::run(&repository, &GcOptions::default()).expect("it collects");
    assert!(scene.warnings.all().iter().any(|remark| remark.code == "gc.memo"));
}

#[test]
fn what_spans_are_said_to_reach_is_compared() {
    type Change = fn(&mut Reached);
    let less: Change = |reached| {
        let packs = reached.data.packs().collect::<Vec<_>>();
        packs.into_iter().for_each(|pack| reached.data.unset(pack, 0));
    };
    let more: Change = |reached| {
        reached.directories.set(PackNumber(0), 0);
    };
    let unfounded: Change = |reached| {
        reached.extents.set(PackNumber(900_000), 0);
    };
    let none: Change = |reached| *reached = Reached::default();
    // What cannot be looked up is noticed before it is compared.
    let changes = [(less, true), (more, true), (none, true), (unfounded, false)];
    for (number, (change, is_false)) in changes.into_iter().enumerate() {
        let (mut scene, repository) = remembered_in_one_span(40 + number as u64);
        let catalog = repository.catalog().expect("an index");
        let memos = Memos::new(repository.vault(), catalog);
        for key in memos.spans().expect("spans") {
            let mut span = memos.span(key).expect("a span").expect("it is remembered");
            change(&mut span.own);
            memos.put_span(key, &span).expect("put");
        }
        assert_eq!(scene.compare(&repository, &format!("change {number}")), Some(true));
        let warned = scene.warnings.all();
        let told = warned.iter().any(|remark| remark.code == "gc.memo");
        assert_eq!(told, is_false, "change {number}: {warned:?}");
    }
}

#[test]
fn a_span_does_not_outlast_what_it_leans_on() {
    // Two spans, of which the second skips what the first reaches; the first then reaches nothing.
    let mut scene = Scene::new(60, true);
    let repository = scene.collector();
    let catalog = repository.catalog().expect("an index");
    let memos = Memos::new(repository.vault(), catalog);
    let leaning = |memos: &Memos<'_>| {
        let spans = memos.spans().expect("spans").into_iter();
        let spans = spans.map(|key| memos.span(key).expect("a span").expect("remembered"));
        spans.filter(|span| span.skipped.directories.count() > 0).count()
    };
    for round in 0.. {
        assert!(round < 100, "ids that end a span are one of eight");
        scene.back_up("one", OWNER, Plan::new());
        assert_eq!(scene.compare(&repository, "in the beginning"), Some(true));
        if memos.spans().expect("spans").len() > 1 && leaning(&memos) > 0 {
            break;
        }
    }
    // From the oldest on, one by one.
    let names = scene.store.names();
    let snapshots = names.iter().filter_map(|name| match name {
        ObjectName::Snapshot { time_ms, id } => Some((*time_ms, *id, name)),
        _ => None,
    });
    let mut snapshots = snapshots.collect::<Vec<_>>();
    snapshots.sort();
    for (_, id, name) in snapshots {
        let is_ack = |name: &&ObjectName| matches!(name, ObjectName::Ack { snapshot, .. } if *snapshot == id);
        for name in names.iter().filter(is_ack).chain([name]) {
            scene.store.delete(name).expect("deleted");
        }
        assert_eq!(scene.compare(&repository, "after the oldest went"), Some(true));
    }
    assert_eq!(memos.spans().expect("spans"), []);
}

#[test]
fn numbers_that_stand_for_other_packs_than_before_are_found_out() {
    let (mut scene, repository) = remembered(3);
    let index = repository.catalog().expect("an index").index();
    let memos = index.memo_keys(&[]).expect("keys").into_iter();
    let memos = memos.map(|key| (key.clone(), index.get_memo(&key).expect("a memo")));
    let memos = memos.collect::<Vec<_>>();
    // As if the index had been rebuilt and the memos were left: the same packs in another order.
    scene.context.cache_dir = scene.lab.cache("rebuilt");
    number_backwards(&scene, &repository);
    let rebuilt = scene.collector();
    let catalog = rebuilt.catalog().expect("an index");
    let packs = packs_of(&rebuilt);
    let number_before = |id: &PackId| index.pack_number(id).expect("a number");
    assert!(packs.iter().any(|(number, id)| number_before(id) != Some(*number)));
    catalog.index().put_memos(&memos).expect("put");
    assert_eq!(scene.compare(&rebuilt, "with memos of another index"), Some(true));
}

fn packs_of(repository: &Repository) -> Vec<(PackNumber, PackId)> {
    let mut packs = Vec::new();
    let index = repository.catalog().expect("an index").index();
    let each = &mut |number: PackNumber, record: &PackRecord, _| {
        packs.push((number, record.id));
        ControlFlow::Continue(())
    };
    index.for_each_pack(each).expect("packs");
    packs
}

/// Lets the collector's index give the numbers of data packs the other way round than `repository`
/// did; tree packs keep theirs, so that their sheets fit.
fn number_backwards(scene: &Scene, repository: &Repository) {
    let bare = copy_of(&scene.store);
    for name in bare.names().into_iter().filter(|name| matches!(name, ObjectName::Index(_))) {
        bare.delete(&name).expect("deleted");
    }
    let numbered = packs_of(repository);
    let all = list_packs(repository.vault()).expect("packs");
    let is_data = |id: &PackId| all.get(id).is_some_and(|(kind, _)| *kind == PackKind::Data);
    let data = numbered.iter().map(|(_, id)| *id).filter(is_data).collect::<Vec<_>>();
    assert!(data.len() > 1);
    let mut backwards = data.into_iter().rev();
    let rebuilt = Repository::open(Arc::new(bare), &unlock(OWNER), &scene.context);
    let rebuilt = rebuilt.expect("the repository opens");
    let reader = PackReader::new(rebuilt.store(), &rebuilt.keys);
    let catalog = rebuilt.catalog().expect("an index");
    for (_, id) in numbered {
        let id = if is_data(&id) { backwards.next().expect("as many") } else { id };
        let (kind, bytes) = all.get(&id).expect("a pack");
        let section = reader.directory(*kind, id, *bytes, &rebuilt.trust).expect("a directory");
        catalog.add_pending(&section).expect("added");
    }
}

#[test]
fn nothing_is_remembered_of_what_is_gone() {
    let (mut scene, repository) = remembered(4);
    for _ in 0..3 {
        scene.forget();
    }
    scene.back_up("two", OWNER, Plan::new());
    let options =
        GcOptions { max_delete_percent: 100.0, honour_leases: false, ..GcOptions::default() };
    for _ in 0..2 {
        gc::run(&repository, &options).expect("it collects");
    }
    assert_eq!(scene.compare(&repository, "after all"), Some(true));
    let catalog = repository.catalog().expect("an index");
    let memos = Memos::new(repository.vault(), catalog);
    let sheets = memos.sheets().expect("sheets");
    assert!(!sheets.is_empty());
    for (namespace, pack) in sheets {
        assert_eq!(namespace, NAMESPACE_TRUSTED);
        assert!(catalog.pack(pack).is_ok(), "a sheet of a pack that is gone");
    }
    let gone = catalog.index().gone_packs().expect("packs");
    assert!(gone.is_empty(), "{gone:?} are remembered, and nothing names them");
    // And no segment was passed over that describes a pack that is gone.
    let fresh = scene.lab.open(&scene.store, "fresh");
    let present = list_packs(fresh.vault()).expect("packs");
    assert!(packs_of(&fresh).iter().all(|(_, id)| present.contains_key(id)));
}

#[test]
fn a_writers_own_copy_takes_the_place_of_a_trusted_one() {
    // Directly: what the writer's node was found to have in a trusted pack, the writer stores itself.
    let (mut scene, repository) = remembered(6);
    copy_folder(&scene.lab.path("one"), &scene.lab.path("three"));
    scene.back_up("three", WRITER, Plan::new());
    assert_eq!(scene.compare(&repository, "with a writer"), Some(true));
    let catalog = repository.catalog().expect("an index");
    let memos = Memos::new(repository.vault(), catalog);
    let writers = |memos: &Memos<'_>| {
        let sheets = memos.sheets().expect("sheets").into_iter();
        sheets.filter(|(namespace, _)| *namespace != NAMESPACE_TRUSTED).collect::<Vec<_>>()
    };
    let before: Vec<(WriterId, PackNumber)> = writers(&memos);
    assert!(!before.is_empty());
    // A host of the same key that knows of no trusted pack: it stores everything.
    copy_into_writers_packs(&scene, Path::new("three"));
    assert_eq!(scene.compare(&repository, "with copies of its own"), Some(true));
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("copied");
        }
    }
}

/// Backs up what a host has, with the writer's key, reading everything and relying on nothing.
fn copy_into_writers_packs(scene: &Scene, host: &Path) {
    let hidden = scene.lab.try_open(&scene.store, WRITER, "hidden").expect("it opens");
    let catalog = hidden.catalog().expect("an index");
    let packs = packs_of(&hidden).into_iter().map(|(_, id)| id).collect::<Vec<_>>();
    // As if each of them had been found damaged: chunks are stored anew.
    catalog.note_verified(&packs, &[]).expect("noted");
    let source = BackupSource::Path(scene.lab.path(host.to_str().expect("a name")));
    let mut options = BackupOptions::new("three", vec![source]);
    options.reread = true;
    let report = backup::run(&hidden, options).expect("a backup");
    assert!(report.statistics.bytes_new > 0);
}

#[test]
fn names_are_those_of_chunks() {
    // The smallest case, by hand: what is learned of a node is what it says.
    let (_scene, repository) = remembered(7);
    let catalog = repository.catalog().expect("an index");
    let memos = Memos::new(repository.vault(), catalog);
    let (mut named, mut nodes) = (0, 0);
    for (namespace, pack) in memos.sheets().expect("sheets") {
        let id = catalog.pack(pack).expect("a pack").id;
        let ids = catalog.ids_in(pack).expect("ids").expect("a directory");
        let reader = repository.chunk_reader(namespace).expect("a reader");
        let sheet = memos.sheet(namespace, pack, &id).expect("a sheet");
        for ((position, kind), bytes) in &sheet.nodes {
            let edges = Edges::decode(pack, bytes).expect("edges");
            let node = ids[*position as usize].0;
            let found = cairn_engine::collect::reach::read_node(&reader, &node, *kind);
            let found = found.expect("a node");
            let chunk = |name: Name| {
                let ids = catalog.ids_in(name.pack).expect("ids").expect("a directory");
                ids[name.position as usize]
            };
            let below = edges.nodes.iter().map(|(kind, name)| (chunk(*name).0, *kind));
            assert_eq!(below.collect::<Vec<(_, NodeKind)>>(), found.nodes);
            assert_eq!(edges.data_names().map(chunk).collect::<Vec<_>>(), found.data);
            named += found.data.len() + found.nodes.len();
            nodes += 1;
        }
    }
    assert!(nodes > 3 && named > 30, "{nodes} nodes name {named} chunks");
}
