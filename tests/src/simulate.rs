//! Writers, collections and a forgetter at work on one repository, their store calls interleaved
//! under a seed, with deaths; and an oracle that looks after every change that could lose something.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_engine::chunk::CHUNKER_DEFAULT;
use cairn_engine::collect::Weakness;
use cairn_engine::context::{Context, Silent};
use cairn_engine::error::Error;
use cairn_engine::ops::backup::{self, BackupOptions, BackupSource};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::repo::{InitOptions, Repository, init, keys};
use cairn_engine::retention::RetentionError;
use cairn_engine::seal::SeededRandom;
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::{Store, StoreError};
use cairn_format::certificate::Role;
use cairn_format::limits::PACK_BYTES_MIN;
use cairn_format::names::{Folder, ObjectName};
use cairn_format::record::ChunkerSettings;
use parking_lot::Mutex;

use crate::lab::{Lab, OWNER, TestClock, copy_of, new_key, unlock};
use crate::seed::{Seed, noise};
use crate::turns::{Change, Crash, TurnStore, Turns};

mod oracle;

/// Contents that sources are made of: few, so that writers share them.
const BLOBS: u64 = 12;
/// Calls within which an actor may die.
const CRASH_CALLS_MAX: u64 = 90;

/// Contents that resemble each other, so that they are stored as what differs.
const ALIKE: u64 = 3;
/// Distance between the bytes in which they differ.
const DIFFERENCE_EVERY: usize = 900;

/// What a file of the simulation holds.
fn blob(number: u64) -> Vec<u8> {
    let family = number / ALIKE;
    let bytes = if family.is_multiple_of(2) { 24_000 } else { 3_000 + 300 * family };
    let mut content = noise(usize::try_from(bytes).unwrap_or_default(), family);
    let own = noise(content.len(), BLOBS + number);
    let apart = usize::try_from(number % ALIKE).unwrap_or_default() * DIFFERENCE_EVERY / 2;
    if apart > 0 {
        for (byte, own) in content.iter_mut().zip(own).skip(apart).step_by(DIFFERENCE_EVERY) {
            *byte = own;
        }
    }
    content
}

/// What one actor does.
#[derive(Clone, Debug)]
enum Task {
    /// Backs up these blobs.
    Backup { job: String, blobs: BTreeSet<u64>, stream: bool },
    /// Collects.
    Gc { max_dead: f64, leases: bool },
    /// Forgets the oldest snapshot.
    Forget,
    /// Reads every acknowledged snapshot.
    Read,
}

#[derive(Clone, Debug)]
struct ActorPlan {
    key: &'static str,
    tasks: Vec<Task>,
    /// Opens the repository once, or for every task.
    warm: bool,
    crash: Option<Crash>,
}

/// A repository to start from; making it is the slow part.
pub struct World {
    lab: Lab,
    store: MemoryStore,
}

/// Name of the key that backs up and cannot read.
const WRITER: &str = "writer";
/// Name of the key that collects and cannot back up.
const MAINTAINER: &str = "maintainer";

/// How a run went.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// Store calls.
    pub calls: u64,
    /// Snapshots acknowledged at the end.
    pub snapshots: usize,
    /// Backups that were told that their packs were collected, and had to be run again.
    pub turned_away: u64,
    /// Chunks that writers stored anew, and chunks that collections rescued.
    pub repaired: u64,
    /// Chunks that were stored against others.
    pub deltas: u64,
    /// Chunks that collections stored against others than before.
    pub rebased: u64,
    /// Sources that were read again.
    pub repeats: u64,
    /// Chunks that collections copied for snapshots that appeared meanwhile.
    pub rescued: u64,
    /// Packs deleted.
    pub deleted: u64,
    /// Actors that died.
    pub deaths: u64,
}

impl Course {
    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.snapshots += other.snapshots;
        self.turned_away += other.turned_away;
        self.repaired += other.repaired;
        self.deltas += other.deltas;
        self.rebased += other.rebased;
        self.repeats += other.repeats;
        self.rescued += other.rescued;
        self.deleted += other.deleted;
        self.deaths += other.deaths;
    }
}

/// What all actors of a run share.
struct Scene {
    world: Arc<World>,
    store: MemoryStore,
    seed: u64,
    expected: Mutex<BTreeMap<String, BTreeMap<String, Vec<u8>>>>,
    violations: Mutex<Vec<String>>,
    course: Mutex<Course>,
    weakness: Option<Weakness>,
    folder: PathBuf,
}

impl World {
    /// A repository with two snapshots of which parts are shared, made by two hosts.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn new() -> Self {
        let lab = Lab::new(77);
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
        let world = Self { lab, store };
        let owner = world.open(Arc::new(world.store.clone()), OWNER, 1);
        keys::add(&owner, &new_key(WRITER, Role::Writer)).expect("a key");
        keys::add(&owner, &new_key(MAINTAINER, Role::Maintainer)).expect("a key");
        world
    }

    /// Opens the repository with an index of its own, in memory.
    fn open(&self, store: Arc<dyn Store>, key: &str, seed: u64) -> Repository {
        self.try_open(store, key, seed).expect("the repository opens")
    }

    fn try_open(&self, store: Arc<dyn Store>, key: &str, seed: u64) -> Result<Repository, Error> {
        let context = Context {
            clock: Arc::new(TestClock::starting_at(clock_of(seed))),
            random: Arc::new(SeededRandom::new(seed)),
            monitor: Arc::new(Silent),
            cache_dir: PathBuf::new(),
            ..self.lab.context.clone()
        };
        Repository::open(store, &unlock(key), &context)
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// When the clock of an actor begins: some are years off, which must not matter.
fn clock_of(seed: u64) -> i64 {
    const YEARS_MS: i64 = 10 * 365 * 24 * 60 * 60 * 1000;
    let offset = match Seed::of(seed).below(8) {
        0 => YEARS_MS,
        1 => -YEARS_MS,
        2 => 60 * 60 * 1000,
        _ => 0,
    };
    TestClock::START_MS + offset + i64::try_from(seed % 997).unwrap_or_default() * 1000
}

/// A folder whose path is the same in every run of a seed, since paths are part of what is stored.
fn sources_folder(lab: &Lab, number: u64, weakness: Option<Weakness>) -> PathBuf {
    let name = match weakness {
        None => format!("cairn-simulation-{number}"),
        Some(weakness) => format!("cairn-simulation-{weakness:?}-{number}"),
    };
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let fixed = parent.join(&name);
    if std::fs::create_dir(&fixed).is_ok() { fixed } else { lab.path(&name) }
}

/// Runs `work` where everything is done by one thread, so that it is the same every time.
fn alone<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.expect("a thread").install(work)
}

fn plan(seed: &mut Seed) -> Vec<ActorPlan> {
    let mut actors = Vec::new();
    let some = |seed: &mut Seed| {
        let count = 1 + seed.below(5);
        (0..count).map(|_| seed.below(BLOBS)).collect::<BTreeSet<u64>>()
    };
    for number in 0..1 + seed.below(3) {
        let tasks = (0..1 + seed.below(3)).map(|round| Task::Backup {
            job: format!("writer-{number}-{round}"),
            blobs: some(seed),
            stream: seed.below(4) == 0,
        });
        let tasks = tasks.collect();
        let key = if seed.below(3) == 0 { WRITER } else { OWNER };
        actors.push(ActorPlan { key, tasks, warm: seed.below(2) == 0, crash: None });
    }
    for _ in 0..1 + seed.below(2) {
        let tasks = (0..1 + seed.below(2)).map(|_| Task::Gc {
            max_dead: if seed.below(3) == 0 { 30.0 } else { 0.0 },
            leases: seed.below(6) == 0,
        });
        let tasks = tasks.collect();
        let key = if seed.below(2) == 0 { MAINTAINER } else { OWNER };
        actors.push(ActorPlan { key, tasks, warm: seed.below(2) == 0, crash: None });
    }
    let tasks = (0..1 + seed.below(3)).map(|_| Task::Forget).collect();
    actors.push(ActorPlan { key: OWNER, tasks, warm: true, crash: None });
    if seed.below(2) == 0 {
        let tasks = vec![Task::Read; 1 + usize::from(seed.below(2) == 0)];
        actors.push(ActorPlan { key: OWNER, tasks, warm: true, crash: None });
    }
    let count = actors.len() as u64;
    if seed.below(2) == 0 {
        let victim = usize::try_from(seed.below(count)).unwrap_or_default();
        let crash = Crash { call: seed.below(CRASH_CALLS_MAX), after: seed.below(2) == 0 };
        if let Some(victim) = actors.get_mut(victim) {
            victim.crash = Some(crash);
        }
    }
    actors
}

/// Runs one simulation.
///
/// # Errors
/// What was violated.
pub fn run(world: &Arc<World>, number: u64, weakness: Option<Weakness>) -> Result<Course, String> {
    let mut seed = Seed::of(number);
    // SplitMix64 of neighbouring seeds is not alike, but its first numbers are spent here anyway.
    let _first = seed.next();
    let folder = sources_folder(&world.lab, number, weakness);
    let scene = Arc::new(Scene {
        world: Arc::clone(world),
        store: copy_of(&world.store),
        seed: number,
        expected: Mutex::default(),
        violations: Mutex::default(),
        course: Mutex::default(),
        weakness,
        folder: folder.clone(),
    });
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    scene.prepare(&mut seed);
    let actors = plan(&mut seed);
    let turns = Turns::new(seed.next(), actors.len());
    play(&scene, &actors, &turns);
    let outcome = alone(|| scene.judge());
    let _left = std::fs::remove_dir_all(&folder);
    let violations = scene.violations.lock().clone();
    match (violations.first(), outcome) {
        (Some(violation), _) => Err(format!("seed {number}: {violation}; {actors:?}")),
        (None, Err(violation)) => Err(format!("seed {number}: {violation}; {actors:?}")),
        (None, Ok(())) => {
            let mut course = scene.course.lock().clone();
            course.calls = (0..actors.len()).map(|actor| turns.calls(actor)).sum();
            Ok(course)
        }
    }
}

impl Scene {
    fn violation(&self, what: String) {
        self.violations.lock().push(what);
    }

    /// Snapshots to begin with. Two hosts that know nothing of each other may store one chunk twice.
    fn prepare(&self, seed: &mut Seed) {
        alone(|| {
            let rounds = 1 + seed.below(3);
            let hosts = (0..2).map(|host| {
                self.world.open(Arc::new(self.store.clone()), OWNER, self.seed ^ (host + 1) << 40)
            });
            let hosts = hosts.collect::<Vec<_>>();
            for host in &hosts {
                host.catalog().expect("an index");
            }
            for round in 0..rounds {
                for (number, host) in hosts.iter().enumerate() {
                    let blobs = (0..1 + seed.below(6)).map(|_| seed.below(BLOBS)).collect();
                    let job = format!("before-{number}-{round}");
                    let task = Task::Backup { job, blobs, stream: false };
                    if let Task::Backup { job, blobs, stream } = &task {
                        self.back_up(host, job, blobs, *stream).expect("a backup alone");
                    }
                }
            }
        });
    }

    fn act(&self, number: usize, actor: &ActorPlan, store: &TurnStore, turns: &Turns) {
        let mut open: Option<Repository> = None;
        let seed = self.seed ^ ((number as u64 + 3) << 48);
        for (round, task) in actor.tasks.iter().enumerate() {
            // Twice: once more after a death.
            for attempt in 0..2_u64 {
                let salt = seed ^ ((round as u64 + 1) << 32) ^ (attempt << 24);
                let outcome = match open.take() {
                    Some(repository) => Ok(repository),
                    None => self.world.try_open(Arc::new(store.clone()), actor.key, salt),
                };
                let outcome = outcome.and_then(|repository| {
                    let outcome = self.perform(&repository, task);
                    if actor.warm {
                        open = Some(repository);
                    }
                    outcome
                });
                if turns.restart(number) {
                    self.course.lock().deaths += 1;
                    continue;
                }
                if let Err(error) = outcome {
                    self.excuse(task, actor, &error);
                }
                break;
            }
        }
    }

    /// Errors that are right; all others are violations.
    fn excuse(&self, task: &Task, actor: &ActorPlan, error: &Error) {
        let right = match (task, error) {
            (Task::Backup { .. }, Error::Condemned { .. }) => {
                self.course.lock().turned_away += 1;
                true
            }
            // The forgetter took it for the oldest as soon as it was acknowledged.
            (Task::Backup { .. }, Error::Retention(RetentionError::Forgotten { .. })) => true,
            _ => false,
        };
        if !right {
            self.violation(format!(
                "{task:?} with the key {} failed: {error} ({error:?})",
                actor.key
            ));
        }
    }

    fn perform(&self, repository: &Repository, task: &Task) -> Result<(), Error> {
        match task {
            Task::Backup { job, blobs, stream } => self.back_up(repository, job, blobs, *stream),
            Task::Gc { max_dead, leases } => {
                let report = gc::run(
                    repository,
                    &GcOptions {
                        max_dead_percent: *max_dead,
                        erase_within_ms: None,
                        max_delete_percent: 100.0,
                        compact: false,
                        honour_leases: *leases,
                        weakness: self.weakness,
                    },
                )?;
                let mut course = self.course.lock();
                course.rescued += report.chunks_rescued;
                course.rebased += report.chunks_rebased;
                course.deleted += report.packs_deleted;
                if !report.still_there.is_empty() || !report.damaged.is_empty() {
                    drop(course);
                    self.violation(format!("a collection reports {report:?}"));
                }
                Ok(())
            }
            Task::Forget => forget_oldest(repository.store()).map_err(Error::from),
            Task::Read => self.read_all(repository),
        }
    }

    fn back_up(
        &self,
        repository: &Repository,
        job: &str,
        blobs: &BTreeSet<u64>,
        stream: bool,
    ) -> Result<(), Error> {
        let files = blobs.iter().map(|number| (format!("blob-{number:02}"), blob(*number)));
        let files = files.collect::<BTreeMap<_, _>>();
        let sources = if stream {
            let streams = files.iter().map(|(name, content)| BackupSource::Stream {
                name: name.clone(),
                reader: Box::new(Cursor::new(content.clone())),
            });
            streams.collect()
        } else {
            // One folder for each writer, so that files are recognised the next time.
            let writer = job.rsplit_once('-').map_or(job, |(writer, _)| writer);
            let folder = self.folder.join(writer);
            write_files(&folder, &files);
            vec![BackupSource::Path(folder)]
        };
        self.expected.lock().insert(job.to_owned(), files);
        let mut options = BackupOptions::new(job, sources);
        options.weakness = self.weakness;
        let report = backup::run(repository, options)?;
        let mut course = self.course.lock();
        course.repaired += report.chunks_repaired;
        course.repeats += report.repeats;
        course.deltas += report.deltas.chunks;
        Ok(())
    }
}

/// Lets all actors work at once.
fn play(scene: &Arc<Scene>, actors: &[ActorPlan], turns: &Arc<Turns>) {
    for (number, actor) in actors.iter().enumerate() {
        if let Some(crash) = actor.crash {
            turns.crash(number, crash);
        }
    }
    std::thread::scope(|threads| {
        for (number, actor) in actors.iter().enumerate() {
            let (turns, scene) = (Arc::clone(turns), Arc::clone(scene));
            let store = TurnStore {
                inner: scene.store.clone(),
                turns: Arc::clone(&turns),
                actor: number,
                watch: watcher(&scene),
            };
            threads.spawn(move || {
                let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    alone(|| scene.act(number, actor, &store, &turns));
                }));
                // Whatever happened: the others wait for this one's turn to end.
                turns.finish(number);
                if acted.is_err() {
                    scene.violation(format!("actor {number} panicked"));
                }
            });
        }
    });
}

/// Looks at the store after every change that could lose something: a pack that is deleted, a
/// snapshot that is acknowledged.
fn watcher(scene: &Arc<Scene>) -> Arc<crate::turns::Watch> {
    let scene = Arc::clone(scene);
    Arc::new(move |name, change| {
        let matters = matches!(
            (name, change),
            (ObjectName::Pack(..), Change::Delete) | (ObjectName::Ack { .. }, Change::Put)
        );
        if matters {
            // In a thread of its own: a worker that waits takes up other work, which would wait for
            // the turn that this one has.
            std::thread::scope(|threads| {
                threads.spawn(|| scene.look(&format!("after {change:?} of {name}")));
            });
        }
    })
}

fn write_files(folder: &Path, files: &BTreeMap<String, Vec<u8>>) {
    std::fs::create_dir_all(folder).expect("a folder");
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        if !files.contains_key(&entry.file_name().to_string_lossy().into_owned()) {
            std::fs::remove_file(entry.path()).expect("a file is removed");
        }
    }
    for (name, content) in files {
        let path = folder.join(name);
        // What is there already has the same content: it stays as it is, and is recognised.
        if !path.exists() {
            std::fs::write(&path, content).expect("a file");
            crate::tree::age(&path);
        }
    }
}

/// Forgets the oldest acknowledged snapshot: its acknowledgement first.
fn forget_oldest(store: &dyn Store) -> Result<(), StoreError> {
    let mut acks = BTreeMap::new();
    store.list(Folder::Acks, &mut |name, _| {
        if let ObjectName::Ack { snapshot, .. } = name {
            acks.insert(snapshot, name);
        }
        Ok(())
    })?;
    let mut oldest: Option<(u64, ObjectName, ObjectName)> = None;
    store.list(Folder::Snapshots, &mut |name, _| {
        if let ObjectName::Snapshot { time_ms, id } = name
            && let Some(ack) = acks.get(&id)
            && oldest.as_ref().is_none_or(|(known, _, _)| time_ms < *known)
        {
            oldest = Some((time_ms, name, *ack));
        }
        Ok(())
    })?;
    if let Some((_, snapshot, ack)) = oldest {
        store.delete(&ack)?;
        store.delete(&snapshot)?;
    }
    Ok(())
}
