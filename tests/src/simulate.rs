//! Writers, collections and a forgetter at work on one repository, their store calls interleaved
//! under a seed, with deaths, on services of every kind; and an oracle that looks after every change
//! that could lose something.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_engine::chunk::CHUNKER_DEFAULT;
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
use cairn_format::ids::SnapshotId;
use cairn_format::limits::PACK_BYTES_MIN;
use cairn_format::names::{Folder, ObjectName};
use cairn_format::record::ChunkerSettings;
use parking_lot::Mutex;

use crate::lab::{Lab, OWNER, TestClock, alone, memory_folder, new_key, unlock};
use crate::seed::Seed;
use crate::service::{Profile, Service};
use crate::turns::{Change, TurnStore, Turns};

mod end;
pub mod mutant;
mod needed;
mod oracle;
mod plan;

use mutant::Mutant;
use plan::{ActorPlan, Task, blob, plan};

/// How often an actor does a task again that failed for what the service did.
const ATTEMPTS_MAX: u64 = 3;

/// A repository to start from; making it is the slow part.
pub struct World {
    lab: Lab,
    store: MemoryStore,
}

/// Name of the key that backs up and cannot read.
const WRITER: &str = "writer";
/// Name of the key that collects and cannot back up.
const MAINTAINER: &str = "maintainer";

/// One simulation.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// What everything follows from, but for the hashes of objects: sources lie in a folder of their
    /// own, whose name and times are part of what is stored.
    pub seed: u64,
    /// The service.
    pub profile: Profile,
    /// Whether there are collections beside the writers.
    pub collects: bool,
    /// What is weakened on purpose.
    pub mutant: Option<Mutant>,
}

impl Trial {
    /// Everything as it should be, on a service of this profile.
    #[must_use]
    pub const fn new(seed: u64, profile: Profile) -> Self {
        Self { seed, profile, collects: true, mutant: None }
    }
}

/// How a run went.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// Store calls.
    pub calls: u64,
    /// Calls that went wrong by the profile.
    pub strikes: u64,
    /// Tasks that failed for that.
    pub failed: u64,
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
    /// Last collections that were stopped by what the service had done, until that was put right.
    pub stopped: u64,
}

impl Course {
    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.strikes += other.strikes;
        self.failed += other.failed;
        self.snapshots += other.snapshots;
        self.turned_away += other.turned_away;
        self.repaired += other.repaired;
        self.deltas += other.deltas;
        self.rebased += other.rebased;
        self.repeats += other.repeats;
        self.rescued += other.rescued;
        self.deleted += other.deleted;
        self.deaths += other.deaths;
        self.stopped += other.stopped;
    }
}

/// What all actors of a run share.
struct Scene {
    world: Arc<World>,
    service: Service,
    trial: Trial,
    actors: Vec<ActorPlan>,
    /// For the keys.
    owner: Repository,
    expected: Mutex<BTreeMap<String, BTreeMap<String, Vec<u8>>>>,
    /// Snapshots that backups reported done.
    reported: Mutex<BTreeMap<SnapshotId, String>>,
    /// Snapshots whose acknowledgement was deleted.
    forgotten: Mutex<BTreeSet<SnapshotId>>,
    /// Data keys of objects that were put.
    data_keys: Mutex<BTreeMap<[u8; 32], ObjectName>>,
    violations: Mutex<Vec<String>>,
    course: Mutex<Course>,
    folder: PathBuf,
}

impl World {
    /// A repository with three keys.
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

/// Runs one simulation.
///
/// # Errors
/// What was violated, and where all calls are written down.
///
/// # Panics
/// When there is no room for temporary files.
pub fn run(world: &Arc<World>, trial: &Trial) -> Result<Course, String> {
    let mut seed = Seed::of(trial.seed);
    // SplitMix64 of neighbouring seeds is not alike, but its first numbers are spent here anyway.
    let service_seed = seed.next();
    let folder = memory_folder().map_or_else(tempfile::tempdir, Ok).expect("a folder");
    let mut actors = plan(&mut seed);
    if !trial.collects {
        actors.retain(|actor| !actor.collects());
    }
    let service = Service::new(&world.store, trial.profile, service_seed);
    let scene = Arc::new(Scene {
        world: Arc::clone(world),
        owner: world.open(service.truth(), OWNER, 4),
        service,
        trial: *trial,
        actors,
        expected: Mutex::default(),
        reported: Mutex::default(),
        forgotten: Mutex::default(),
        data_keys: Mutex::default(),
        violations: Mutex::default(),
        course: Mutex::default(),
        folder: folder.path().to_owned(),
    });
    scene.prepare(&mut seed);
    let turns = Turns::new(seed.next(), scene.actors.len());
    play(&scene, &turns);
    let outcome = alone(|| scene.judge());
    let violation = scene.violations.lock().first().cloned().or(outcome.err());
    if let Some(violation) = violation {
        let Trial { seed, profile, .. } = trial;
        let mut told = format!("profile {}, seed {seed}: {violation}", profile.name());
        if trial.mutant.is_none() {
            let path = std::env::temp_dir()
                .join(format!("cairn-simulation-{}-{seed}.calls", profile.name()));
            let trace = format!("{:#?}\n{}", scene.actors, turns.trace());
            if std::fs::write(&path, trace).is_ok() {
                told = format!("{told}; calls: {}", path.display());
            }
        }
        return Err(told);
    }
    let mut course = scene.course.lock().clone();
    course.calls = (0..scene.actors.len()).map(|actor| turns.calls(actor)).sum();
    course.strikes = scene.service.toll().strikes();
    Ok(course)
}

/// What an error means.
enum Verdict {
    /// It is what must happen.
    Right,
    /// The service is the cause: it is tried again.
    Trouble,
    Wrong,
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
                self.world.open(self.service.truth(), OWNER, self.trial.seed ^ (host + 1) << 40)
            });
            let hosts = hosts.collect::<Vec<_>>();
            for host in &hosts {
                host.catalog().expect("an index");
            }
            for round in 0..rounds {
                for (number, host) in hosts.iter().enumerate() {
                    let blobs = (0..1 + seed.below(6)).map(|_| seed.below(plan::BLOBS)).collect();
                    let job = format!("before-{number}-{round}");
                    self.back_up(host, &job, &blobs, false).expect("a backup alone");
                }
            }
        });
    }

    fn act(&self, number: usize, actor: &ActorPlan, store: &TurnStore, turns: &Turns) {
        let mut open: Option<Repository> = None;
        let seed = self.trial.seed ^ ((number as u64 + 3) << 48);
        for (round, task) in actor.tasks.iter().enumerate() {
            // More than once: after a death, and after failures of the service.
            for attempt in 0..ATTEMPTS_MAX {
                let salt = seed ^ ((round as u64 + 1) << 32) ^ (attempt << 24);
                let salt = if self.is(Mutant::RepeatedRandom) { seed } else { salt };
                let outcome = match open.take() {
                    Some(repository) => Ok(repository),
                    None => self.world.try_open(self.way(actor, store), actor.key, salt),
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
                    if actor.patient {
                        // Its index is lost with it; the other's is as if it were on disk.
                        open = None;
                    }
                    continue;
                }
                let Err(error) = outcome else { break };
                match self.excuse(number, task, &error) {
                    Verdict::Right => break,
                    Verdict::Trouble => self.course.lock().failed += 1,
                    Verdict::Wrong => {
                        let key = actor.key;
                        self.violation(format!("{task:?} with {key} failed: {error} ({error:?})"));
                        break;
                    }
                }
            }
        }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.trial.mutant == Some(mutant)
    }

    /// Whether calls of an actor may fail for what the service did, to it or to others.
    fn in_trouble(&self, actor: usize) -> bool {
        let (toll, profile) = (self.service.toll(), self.service.profile());
        match profile {
            Profile::Strong | Profile::Unordered | Profile::Versioned | Profile::SoftDelete => {
                false
            }
            _ if profile.strikes_one() => toll.of_actor.contains_key(&actor),
            _ => toll.strikes() > 0,
        }
    }

    /// Errors that are right; all others are violations.
    fn excuse(&self, actor: usize, task: &Task, error: &Error) -> Verdict {
        match (task, error) {
            (Task::Backup { .. }, Error::Condemned { .. }) => {
                self.course.lock().turned_away += 1;
                Verdict::Right
            }
            // The forgetter took it for the oldest as soon as it was acknowledged.
            (Task::Backup { .. }, Error::Retention(RetentionError::Forgotten { .. })) => {
                Verdict::Right
            }
            _ if self.in_trouble(actor) => Verdict::Trouble,
            _ => Verdict::Wrong,
        }
    }

    fn perform(&self, repository: &Repository, task: &Task) -> Result<(), Error> {
        match task {
            Task::Backup { job, blobs, stream } => self.back_up(repository, job, blobs, *stream),
            Task::Gc { max_dead, leases } => self.collect(repository, *max_dead, *leases),
            Task::Forget => {
                self.tamper_with_a_pack();
                forget_oldest(repository.store()).map_err(Error::from)
            }
            Task::Read => self.read_all(repository),
        }
    }

    fn collect(&self, repository: &Repository, max_dead: f64, leases: bool) -> Result<(), Error> {
        let weakness = match self.trial.mutant {
            Some(Mutant::Protocol(weakness)) => Some(weakness),
            _ => None,
        };
        let options = GcOptions {
            max_dead_percent: max_dead,
            max_delete_percent: 100.0,
            honour_leases: leases,
            weakness,
            ..GcOptions::default()
        };
        let report = gc::run(repository, &options)?;
        let mut course = self.course.lock();
        course.rescued += report.chunks_rescued;
        course.rebased += report.chunks_rebased;
        course.deleted += report.packs_deleted;
        drop(course);
        let odd = !report.still_there.is_empty() || !report.damaged.is_empty();
        let toll = self.service.toll();
        if odd && toll.of_actor.is_empty() && toll.late == 0 {
            self.violation(format!("a collection reports {report:?}"));
        }
        Ok(())
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
        if let Some(Mutant::Protocol(weakness)) = self.trial.mutant {
            options.weakness = Some(weakness);
        }
        let report = backup::run(repository, options)?;
        if let Some(snapshot) = report.snapshot {
            self.reported.lock().insert(snapshot.id, job.to_owned());
        }
        let mut course = self.course.lock();
        course.repaired += report.chunks_repaired;
        course.repeats += report.repeats;
        course.deltas += report.deltas.chunks;
        Ok(())
    }
}

/// Lets all actors work at once.
fn play(scene: &Arc<Scene>, turns: &Arc<Turns>) {
    for (number, actor) in scene.actors.iter().enumerate() {
        if let Some(crash) = actor.crash {
            turns.crash(number, crash);
        }
    }
    std::thread::scope(|threads| {
        for (number, actor) in scene.actors.iter().enumerate() {
            let (turns, scene) = (Arc::clone(turns), Arc::clone(scene));
            let store = TurnStore {
                line: scene.service.line(number),
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
        scene.note(name, change);
        let matters = matches!(
            (name, change),
            (ObjectName::Pack(..), Change::Delete) | (ObjectName::Ack { .. }, Change::Put(_))
        );
        if matters {
            // In a thread of its own: a worker that waits takes up other work, which would wait for
            // the turn that this one has.
            std::thread::scope(|threads| {
                threads.spawn(|| scene.look(&format!("after {change} of {name}")));
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
    crate::tree::age(folder);
}

/// Forgets the oldest acknowledged snapshot: its acknowledgement first, which must be gone before
/// the record goes.
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
        if matches!(store.size(&ack), Err(StoreError::NotFound { .. })) {
            store.delete(&snapshot)?;
        }
    }
    Ok(())
}
