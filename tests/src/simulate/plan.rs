//! Who does what in a simulation.

use std::collections::BTreeSet;

use super::{MAINTAINER, WRITER};
use crate::lab::OWNER;
use crate::seed::{Seed, noise};
use crate::turns::Crash;

/// Contents that sources are made of: few, so that writers share them.
pub(super) const BLOBS: u64 = 12;
/// Calls within which an actor may die.
const CRASH_CALLS_MAX: u64 = 90;

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

/// What one actor does.
#[derive(Clone, Debug)]
pub(super) enum Task {
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
pub(super) struct ActorPlan {
    pub(super) key: &'static str,
    pub(super) tasks: Vec<Task>,
    /// Opens the repository once, or for every task.
    pub(super) warm: bool,
    pub(super) crash: Option<Crash>,
    /// Asks again when a call failed.
    pub(super) patient: bool,
}

impl ActorPlan {
    /// Whether it collects.
    pub(super) fn collects(&self) -> bool {
        self.tasks.iter().any(|task| matches!(task, Task::Gc { .. }))
    }
}

pub(super) fn plan(seed: &mut Seed) -> Vec<ActorPlan> {
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
        actors.push(ActorPlan {
            key,
            tasks,
            warm: seed.below(2) == 0,
            crash: None,
            patient: false,
        });
    }
    for _ in 0..1 + seed.below(2) {
        let tasks = (0..1 + seed.below(2)).map(|_| Task::Gc {
            max_dead: if seed.below(3) == 0 { 30.0 } else { 0.0 },
            leases: seed.below(6) == 0,
        });
        let tasks = tasks.collect();
        let key = if seed.below(2) == 0 { MAINTAINER } else { OWNER };
        actors.push(ActorPlan {
            key,
            tasks,
            warm: seed.below(2) == 0,
            crash: None,
            patient: false,
        });
    }
    let tasks = (0..1 + seed.below(3)).map(|_| Task::Forget).collect();
    actors.push(ActorPlan { key: OWNER, tasks, warm: true, crash: None, patient: false });
    if seed.below(2) == 0 {
        let tasks = vec![Task::Read; 1 + usize::from(seed.below(2) == 0)];
        actors.push(ActorPlan { key: OWNER, tasks, warm: true, crash: None, patient: false });
    }
    for actor in &mut actors {
        actor.patient = seed.below(2) == 0;
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
