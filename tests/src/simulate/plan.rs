//! Who does what in a simulation.

use std::collections::BTreeSet;

use super::harm::Harm;
use super::site::Place;
use super::world::{MAINTAINER, WRITER};
use crate::lab::OWNER;
use crate::seed::{Seed, noise};
use crate::turns::Crash;

/// Contents that sources are made of: few, so that writers share them.
pub(super) const BLOBS: u64 = 12;
/// Calls within which an actor may die.
const CRASH_CALLS_MAX: u64 = 90;
/// As many for operations that take longer.
const CRASH_CALLS_LONG_MAX: u64 = 260;

/// Contents that resemble each other, so that they are stored as what differs.
const ALIKE: u64 = 3;
/// Distance between the bytes in which they differ.
const DIFFERENCE_EVERY: usize = 900;

/// What a file of the simulation holds.
pub(super) fn blob(number: u64) -> Vec<u8> {
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

/// What the file of a content is called.
pub(super) fn blob_name(number: u64) -> String {
    format!("blob-{number:02}")
}

/// What is erased.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unwanted {
    /// A file, out of every snapshot.
    Blob(u64),
    /// The latest snapshot.
    Latest,
}

/// What one actor does.
#[derive(Clone, Debug)]
pub(super) enum Task {
    /// Backs up these blobs. Tags are unique.
    Backup { tag: String, blobs: BTreeSet<u64>, stream: bool },
    /// Collects.
    Gc { max_dead: f64, leases: bool },
    /// Forgets the oldest snapshot.
    Forget,
    /// Reads every acknowledged snapshot; around what is damaged with the replica.
    Read { around: bool },
    /// Erases, and collects then or leaves that to others.
    Erase { what: Unwanted, collect: bool },
    /// Brings the replica up to date.
    Replicate,
    /// Damages something.
    Harm { at: Place, harm: Harm, nth: u64 },
    /// Looks for damage, and heals it from the replica.
    Heal,
}

#[derive(Clone, Debug)]
pub(super) struct ActorPlan {
    pub(super) key: &'static str,
    /// The copy that it works on.
    pub(super) place: Place,
    pub(super) tasks: Vec<Task>,
    /// Opens the repository once, or for every task.
    pub(super) warm: bool,
    pub(super) crash: Option<Crash>,
    /// Asks again when a call failed.
    pub(super) patient: bool,
}

impl ActorPlan {
    fn new(key: &'static str, warm: bool, tasks: Vec<Task>) -> Self {
        Self { key, place: Place::Home, tasks, warm, crash: None, patient: false }
    }

    /// Whether it collects.
    pub(super) fn collects(&self) -> bool {
        self.tasks.iter().any(|task| matches!(task, Task::Gc { .. }))
    }

    /// Whether it does only what services that do not keep their word about listings allow.
    pub(super) fn only_adds(&self) -> bool {
        let adds = |task: &Task| {
            matches!(task, Task::Backup { .. } | Task::Forget | Task::Read { around: false })
        };
        self.tasks.iter().all(adds)
    }

    /// Whether its operations make many calls.
    fn takes_long(&self) -> bool {
        let long = |task: &Task| matches!(task, Task::Erase { .. } | Task::Replicate | Task::Heal);
        self.tasks.iter().any(long)
    }
}

/// Who does what.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) actors: Vec<ActorPlan>,
    /// There is a replica from the beginning.
    pub(super) replicated: bool,
    /// So many snapshots of each job the replica keeps by its own rule; without, it follows home.
    pub(super) keep: Option<u32>,
}

/// Who else is at work but writers, collections, a forgetter and a reader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cast {
    pub(super) erases: bool,
    pub(super) copies: bool,
    /// Only with copies to heal from.
    pub(super) harms: bool,
}

impl Cast {
    fn any(seed: &mut Seed) -> Self {
        let (erases, copies, harms) = match seed.below(8) {
            0 | 1 => (false, false, false),
            2 => (true, false, false),
            3 => (false, true, false),
            4 | 5 => (true, true, false),
            6 => (false, true, true),
            _ => (true, true, true),
        };
        Self { erases, copies, harms }
    }
}

/// A plan with these, or with any.
pub(super) fn plan(seed: &mut Seed, cast: Option<Cast>) -> Plan {
    let any = Cast::any(seed);
    let Cast { erases, copies, harms } = cast.unwrap_or(any);
    let mut plan = Plan { actors: common(seed, if copies { 2 } else { 3 }), ..Plan::default() };
    if erases {
        plan.actors.extend(erasers(seed));
    }
    if copies {
        plan.replicated = harms || seed.below(2) == 0;
        plan.keep = (seed.below(3) == 0).then(|| 1 + (seed.below(2) == 0) as u32);
        plan.actors.extend(replicators(seed));
    }
    if harms {
        plan.actors.extend(healers(seed));
    }
    for actor in &mut plan.actors {
        actor.patient = seed.below(2) == 0;
    }
    let count = plan.actors.len() as u64;
    if seed.below(2) == 0 {
        let victim = usize::try_from(seed.below(count)).unwrap_or_default();
        if let Some(victim) = plan.actors.get_mut(victim) {
            let calls = if victim.takes_long() { CRASH_CALLS_LONG_MAX } else { CRASH_CALLS_MAX };
            let crash = Crash { call: seed.below(calls), after: seed.below(2) == 0 };
            victim.crash = Some(crash);
        }
    }
    plan
}

fn owner_or_maintainer(seed: &mut Seed) -> &'static str {
    if seed.below(2) == 0 { MAINTAINER } else { OWNER }
}

/// Writers, collections, a forgetter and a reader.
fn common(seed: &mut Seed, writers_max: u64) -> Vec<ActorPlan> {
    let mut actors = Vec::new();
    let some = |seed: &mut Seed| {
        let count = 1 + seed.below(5);
        (0..count).map(|_| seed.below(BLOBS)).collect::<BTreeSet<u64>>()
    };
    for number in 0..1 + seed.below(writers_max) {
        let tasks = (0..1 + seed.below(3)).map(|round| Task::Backup {
            tag: format!("writer-{number}-{round}"),
            blobs: some(seed),
            stream: seed.below(4) == 0,
        });
        let tasks = tasks.collect();
        let key = if seed.below(3) == 0 { WRITER } else { OWNER };
        actors.push(ActorPlan::new(key, seed.below(2) == 0, tasks));
    }
    for _ in 0..1 + seed.below(2) {
        actors.push(collector(seed));
    }
    let tasks = (0..1 + seed.below(3)).map(|_| Task::Forget).collect();
    actors.push(ActorPlan::new(OWNER, true, tasks));
    if seed.below(2) == 0 {
        let tasks = vec![Task::Read { around: false }; 1 + usize::from(seed.below(2) == 0)];
        actors.push(ActorPlan::new(OWNER, true, tasks));
    }
    actors
}

fn collector(seed: &mut Seed) -> ActorPlan {
    let tasks = (0..1 + seed.below(2)).map(|_| Task::Gc {
        max_dead: if seed.below(3) == 0 { 30.0 } else { 0.0 },
        leases: seed.below(6) == 0,
    });
    let tasks = tasks.collect();
    ActorPlan::new(owner_or_maintainer(seed), seed.below(2) == 0, tasks)
}

fn erasers(seed: &mut Seed) -> Vec<ActorPlan> {
    let mut actors = Vec::new();
    for _ in 0..1 + u64::from(seed.below(3) == 0) {
        let tasks = (0..1 + seed.below(2)).map(|_| Task::Erase {
            what: match seed.below(5) {
                0 => Unwanted::Latest,
                _ => Unwanted::Blob(seed.below(BLOBS)),
            },
            collect: seed.below(3) > 0,
        });
        let tasks = tasks.collect();
        actors.push(ActorPlan::new(owner_or_maintainer(seed), seed.below(2) == 0, tasks));
    }
    actors
}

/// Those who write the replica, and those who collect there.
fn replicators(seed: &mut Seed) -> Vec<ActorPlan> {
    let mut actors = Vec::new();
    for _ in 0..1 + u64::from(seed.below(3) == 0) {
        let tasks = (0..1 + seed.below(3)).map(|_| Task::Replicate).collect();
        actors.push(ActorPlan::new(owner_or_maintainer(seed), seed.below(2) == 0, tasks));
    }
    if seed.below(2) == 0 {
        actors.push(ActorPlan { place: Place::Replica, ..collector(seed) });
    }
    if seed.below(3) == 0 {
        actors.push(ActorPlan::new(OWNER, true, vec![Task::Read { around: true }]));
    }
    actors
}

/// One who damages things, and one who heals them.
fn healers(seed: &mut Seed) -> Vec<ActorPlan> {
    let tasks = (0..1 + seed.below(2)).map(|_| Task::Harm {
        at: if seed.below(5) == 0 { Place::Replica } else { Place::Home },
        harm: Harm::ALL[usize::try_from(seed.below(Harm::ALL.len() as u64)).unwrap_or_default()],
        nth: seed.next(),
    });
    let harmer = ActorPlan::new(OWNER, true, tasks.collect());
    let tasks = vec![Task::Heal; 1 + usize::from(seed.below(3) == 0)];
    let healer = ActorPlan::new(owner_or_maintainer(seed), seed.below(2) == 0, tasks);
    vec![harmer, healer]
}
