//! Writers, collections, a forgetter, erasures, replications to a second store, and one who heals what
//! another damages, at work on one repository, their store calls interleaved under a seed, with deaths,
//! on services of every kind; and an oracle that looks after every change that could lose something.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use cairn_engine::repo::Repository;
use cairn_engine::store::memory::MemoryStore;
use cairn_format::ids::SnapshotId;
use cairn_format::names::ObjectName;
use parking_lot::Mutex;

use crate::lab::{OWNER, alone, memory_folder};
use crate::seed::Seed;
use crate::service::{Change, Profile, Service};
use crate::turns::{TurnStore, Turns, Watch, Whose};

mod end;
mod harm;
pub mod mutant;
mod needed;
mod oracle;
mod picture;
mod plan;
mod site;
mod tasks;
mod world;

use mutant::Mutant;
use plan::{ActorPlan, Plan, Task, plan};
use site::{Place, Site};
use tasks::Verdict;
pub use world::World;

/// How often an actor does a task again that failed for what the service did.
const ATTEMPTS_MAX: u64 = 3;

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
    /// Calls that went wrong by the profile, and older versions that were made.
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
    /// Snapshots that were erased, or erased from.
    pub erased: u64,
    /// Snapshots that were copied to the replica.
    pub copied: u64,
    /// Packs, chunks and records that were healed from the replica.
    pub healed: u64,
    /// Older versions and marks of deletions that were purged.
    pub purged: u64,
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
        self.erased += other.erased;
        self.copied += other.copied;
        self.healed += other.healed;
        self.purged += other.purged;
        self.stopped += other.stopped;
    }
}

/// What is known of a snapshot.
#[derive(Clone, Debug)]
struct Known {
    /// What tells which files it holds.
    tag: String,
    job: String,
    /// What it was before any erasure.
    first: SnapshotId,
}

/// What all actors of a run share.
struct Scene {
    world: Arc<World>,
    home: Site,
    replica: Site,
    trial: Trial,
    plan: Plan,
    /// For the keys.
    owner: Repository,
    /// Files of backups, by their tags.
    expected: Mutex<BTreeMap<String, BTreeMap<String, Vec<u8>>>>,
    known: Mutex<BTreeMap<SnapshotId, Known>>,
    /// Snapshots that were acknowledged anywhere at any time.
    acknowledged: Mutex<BTreeSet<SnapshotId>>,
    /// What was forgotten, or erased as a whole: what it was first.
    given_up: Mutex<BTreeSet<SnapshotId>>,
    /// Files of which an erasure has begun.
    erasing: Mutex<BTreeSet<String>>,
    /// Files of which an erasure was reported complete, with the snapshots that were there when it
    /// began.
    erased: Mutex<Vec<(String, BTreeSet<SnapshotId>)>>,
    /// How often something was damaged.
    harms: AtomicU64,
    /// What each actor is doing.
    doing: Mutex<BTreeMap<usize, Task>>,
    /// Data keys of objects that were put.
    data_keys: Mutex<BTreeMap<[u8; 32], ObjectName>>,
    violations: Mutex<Vec<String>>,
    /// What both copies held at the first violation.
    picture: Mutex<Option<String>>,
    course: Mutex<Course>,
    folder: PathBuf,
}

/// An actor's ways to the copies.
struct Ways {
    home: TurnStore,
    replica: TurnStore,
}

impl Ways {
    fn to(&self, place: Place) -> &TurnStore {
        match place {
            Place::Home => &self.home,
            Place::Replica => &self.replica,
        }
    }
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
    let mut plan = plan(&mut seed, trial.mutant.and_then(Mutant::cast));
    if !trial.collects {
        plan.actors.retain(ActorPlan::only_adds);
        plan.replicated = false;
    }
    let service = Service::new(Place::Home.name(), &world.store, trial.profile, service_seed);
    let nothing = MemoryStore::new();
    let replica = Service::new(Place::Replica.name(), &nothing, trial.profile, !service_seed);
    let scene = Arc::new(Scene {
        world: Arc::clone(world),
        owner: world.open(service.truth(), OWNER, 4),
        home: Site::new(Place::Home, service),
        replica: Site::new(Place::Replica, replica),
        trial: *trial,
        plan,
        expected: Mutex::default(),
        known: Mutex::default(),
        acknowledged: Mutex::default(),
        given_up: Mutex::default(),
        erasing: Mutex::default(),
        erased: Mutex::default(),
        harms: AtomicU64::new(0),
        doing: Mutex::default(),
        data_keys: Mutex::default(),
        violations: Mutex::default(),
        picture: Mutex::default(),
        course: Mutex::default(),
        folder: folder.path().to_owned(),
    });
    scene.prepare(&mut seed);
    let turns = Turns::new(seed.next(), scene.plan.actors.len());
    play(&scene, &turns);
    let outcome = alone(|| scene.judge());
    let violation = scene.violations.lock().first().cloned().or(outcome.err());
    if let Some(violation) = violation {
        let Trial { seed, profile, .. } = trial;
        let mut told = format!("profile {}, seed {seed}: {violation}", profile.name());
        if trial.mutant.is_none() {
            let path = std::env::temp_dir()
                .join(format!("cairn-simulation-{}-{seed}.calls", profile.name()));
            let picture = scene.picture.lock().take().unwrap_or_default();
            let trace = format!("{:#?}\n{}\n{picture}", scene.plan, turns.trace());
            if std::fs::write(&path, trace).is_ok() {
                told = format!("{told}; calls: {}", path.display());
            }
        }
        return Err(told);
    }
    let mut course = scene.course.lock().clone();
    course.calls = (0..scene.plan.actors.len()).map(|actor| turns.calls(actor)).sum();
    let versions = [&scene.home, &scene.replica].map(|site| site.service.versions());
    course.strikes = scene.strikes() + versions.iter().map(|(made, _)| made).sum::<u64>();
    course.purged = versions.iter().map(|(_, purged)| purged).sum();
    Ok(course)
}

impl Scene {
    fn violation(&self, what: String) {
        if self.trial.mutant.is_none() {
            self.picture.lock().get_or_insert_with(|| self.draw());
        }
        self.violations.lock().push(what);
    }

    /// Snapshots to begin with. Two hosts that know nothing of each other may store one chunk twice.
    fn prepare(&self, seed: &mut Seed) {
        alone(|| {
            let rounds = 1 + seed.below(3);
            let hosts = (0..2).map(|host| {
                self.world.open(self.home.truth(), OWNER, self.trial.seed ^ (host + 1) << 40)
            });
            let hosts = hosts.collect::<Vec<_>>();
            for host in &hosts {
                host.catalog().expect("an index");
            }
            for round in 0..rounds {
                for (number, host) in hosts.iter().enumerate() {
                    let blobs = (0..1 + seed.below(6)).map(|_| seed.below(plan::BLOBS)).collect();
                    let tag = format!("before-{number}-{round}");
                    self.back_up(host, &tag, &blobs, false).expect("a backup alone");
                }
            }
            if let (true, Some(host)) = (self.plan.replicated, hosts.first()) {
                self.replicate(host, self.replica.truth()).expect("a replication alone");
            }
        });
    }

    fn act(&self, number: usize, actor: &ActorPlan, ways: &Ways, turns: &Turns) {
        let mut open: Option<Repository> = None;
        let seed = self.trial.seed ^ ((number as u64 + 3) << 48);
        for (round, task) in actor.tasks.iter().enumerate() {
            self.doing.lock().insert(number, task.clone());
            // More than once: after a death, and after failures of the service.
            for attempt in 0..ATTEMPTS_MAX {
                let salt = seed ^ ((round as u64 + 1) << 32) ^ (attempt << 24);
                let salt = if self.is(Mutant::RepeatedRandom) { seed } else { salt };
                let outcome = match open.take() {
                    Some(repository) => Ok(repository),
                    None => {
                        let way = self.way(actor, ways.to(actor.place));
                        self.world.try_open(way, actor.key, salt)
                    }
                };
                let outcome = outcome.and_then(|mut repository| {
                    let outcome = self.perform(&mut repository, task, actor, ways);
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
                // There is no replica yet, or was none when this looked: another may have made it since.
                let early = actor.place == Place::Replica
                    && (!self.replica.is_there()
                        || matches!(error, cairn_engine::error::Error::NoRepository { .. }));
                match self.excuse(number, task, &error) {
                    _ if early => break,
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
}

/// Lets all actors work at once.
fn play(scene: &Arc<Scene>, turns: &Arc<Turns>) {
    for (number, actor) in scene.plan.actors.iter().enumerate() {
        if let Some(crash) = actor.crash {
            turns.crash(number, crash);
        }
    }
    std::thread::scope(|threads| {
        for (number, actor) in scene.plan.actors.iter().enumerate() {
            let (turns, scene) = (Arc::clone(turns), Arc::clone(scene));
            let way = |place| TurnStore {
                line: scene.site(place).service.line(number),
                turns: Arc::clone(&turns),
                actor: number,
                watch: watcher(&scene, place, number),
            };
            let ways = Ways { home: way(Place::Home), replica: way(Place::Replica) };
            threads.spawn(move || {
                let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    alone(|| scene.act(number, actor, &ways, &turns));
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
fn watcher(scene: &Arc<Scene>, place: Place, actor: usize) -> Arc<Watch> {
    let scene = Arc::clone(scene);
    Arc::new(move |name, change, whose| {
        let actor = (whose == Whose::Own).then_some(actor);
        let matters = match (name, change) {
            (ObjectName::Pack(..), Change::Delete) | (ObjectName::Ack { .. }, Change::Put(_)) => {
                true
            }
            // What somebody had deleted could be brought back so far.
            (_, Change::Purge) => {
                let site = scene.site(place);
                site.service.is_stolen(name) || site.harmed.lock().contains_key(name)
            }
            _ => false,
        };
        scene.note(place, actor, name, change);
        if matters {
            // In a thread of its own: a worker that waits takes up other work, which would wait for
            // the turn that this one has.
            let when = format!("after {change} of {name}");
            let looked =
                std::thread::scope(|threads| threads.spawn(|| scene.look(place, &when)).join());
            if looked.is_err() {
                // Everybody else waits for this turn to end.
                scene.violation(format!("{when}: the oracle panicked"));
            }
        }
    })
}
