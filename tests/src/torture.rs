//! Real processes at work on one repository, killed at random moments: backups of trees and
//! streams, collections, forgetting, erasures, restores and verifications, some with a cache of their own and
//! some with one that all share. What a backup reported done and nobody forgot or erased must restore byte by
//! byte, whatever died meanwhile.
//!
//! When processes die follows from a seed; how far they got by then does not. A violation says what
//! happened, and the seed makes it likely to happen again.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use crate::compare::{self, Tree};
use crate::lab::inside;
use crate::process::Cairn;
use crate::seed::Seed;

mod process;
mod quiet;
mod source;

use process::{Disturbance, Ended, Runner};
use source::{STREAM_NAME, Source};

/// The cache folder that processes share.
const SHARED_CACHE: &str = "cache-shared";
/// Snapshots of a job that the forgetter leaves alone, the newest ones.
const NEWEST_SPARED: usize = 2;
/// Longest pause of a worker between two processes, milliseconds.
const IDLE_MS_MAX: u64 = 250;

/// How long, and how.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What all choices follow from.
    pub seed: u64,
    /// How long processes run and die.
    pub duration: Duration,
    /// After so long everything rests, and is looked at.
    pub quiet_every: Duration,
    /// On disk, where making things durable takes time, instead of in memory.
    pub on_disk: bool,
}

/// How processes of one kind fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Started.
    pub started: u64,
    /// Killed before they ended.
    pub killed: u64,
    /// Stopped for a while, and continued.
    pub paused: u64,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// Processes, by command.
    pub processes: BTreeMap<&'static str, Tally>,
    /// Backups that reported success.
    pub reported: u64,
    /// Backups that were told that their packs were collected, and had to be run again.
    pub turned_away: u64,
    /// Snapshots that were forgotten or erased.
    pub forgotten: u64,
    /// Restores that were compared with what had been backed up.
    pub compared: u64,
    /// Quiet points.
    pub quiet: u64,
    /// Unfinished files that gc found in the store at quiet points, in all.
    pub unfinished: u64,
    /// Collections that said a pack is damaged because the base of a delta in it is gone.
    pub alarms: u64,
    /// What went wrong.
    pub violations: Vec<String>,
}

impl Course {
    /// Processes that were killed.
    #[must_use]
    pub fn killed(&self) -> u64 {
        self.processes.values().map(|tally| tally.killed).sum()
    }
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let started = self.processes.values().map(|tally| tally.started).sum::<u64>();
        write!(f, "{started} processes, {} killed (", self.killed())?;
        for (number, (command, tally)) in self.processes.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            let Tally { started, killed, paused } = tally;
            write!(f, "{comma}{command} {started}/{killed}/{paused} started/killed/paused")?;
        }
        write!(
            f,
            "); {} backups reported done, {} turned away; {} snapshots forgotten or erased; {} restores \
             compared; {} quiet points, {} unfinished files swept; {} alarms for lost bases; \
             {} violations",
            self.reported,
            self.turned_away,
            self.forgotten,
            self.compared,
            self.quiet,
            self.unfinished,
            self.alarms,
            self.violations.len()
        )
    }
}

/// What a snapshot has to restore to.
#[derive(Clone, Debug)]
enum Expected {
    /// This tree, which was at this path.
    Tree(PathBuf, Tree),
    /// A stream with this hash.
    Stream(blake3::Hash),
}

impl Expected {
    /// What differs in a folder that the snapshot was restored to; empty when nothing does.
    fn differences(&self, target: &Path) -> String {
        match self {
            Self::Tree(source, before) => {
                let restored = inside(target, source);
                if !restored.is_dir() {
                    return format!("{} is not there", restored.display());
                }
                compare::differences(before, &compare::look(&restored)).join("\n")
            }
            Self::Stream(hash) => match std::fs::read(target.join(STREAM_NAME)) {
                Ok(content) if blake3::hash(&content) == *hash => String::new(),
                Ok(content) => format!("{} other bytes", content.len()),
                Err(error) => error.to_string(),
            },
        }
    }
}

/// A snapshot whose backup reported success, and that nobody forgot or erased.
#[derive(Clone, Debug)]
struct Kept {
    job: String,
    /// Rises with every one.
    number: u64,
    expected: Expected,
    /// Processes that are reading it: it is not forgotten meanwhile.
    readers: u32,
}

/// What all workers share.
struct Scene {
    cairn: Cairn,
    runner: Runner,
    until: Instant,
    /// Workers hold it to read while one of their processes runs.
    quiet: RwLock<()>,
    kept: Mutex<BTreeMap<String, Kept>>,
    course: Mutex<Course>,
}

/// Lets processes run and die.
///
/// # Panics
/// When the surroundings fail: no room, no processes.
#[must_use]
pub fn run(plan: &Plan) -> Course {
    let cairn = if plan.on_disk { Cairn::on_disk() } else { Cairn::new() };
    let runner = Runner::new(&cairn);
    let scene = Scene {
        cairn,
        runner,
        until: Instant::now() + plan.duration,
        quiet: RwLock::new(()),
        kept: Mutex::default(),
        course: Mutex::default(),
    };
    scene.done("init", &["init", "--pack-size", "1MiB"]);
    let workers: [(&str, Act); 8] = [
        ("tree-1", Scene::back_up_tree),
        ("tree-2", Scene::back_up_tree),
        ("stream", Scene::back_up_stream),
        ("gc-1", Scene::collect),
        ("gc-2", Scene::collect),
        ("forget", Scene::forget),
        ("restore", Scene::restore),
        ("verify", Scene::verify),
    ];
    std::thread::scope(|threads| {
        for (number, (name, act)) in workers.into_iter().enumerate() {
            let mut worker = Worker::new(name, plan.seed, number as u64, &scene);
            let scene = &scene;
            threads.spawn(move || {
                while Instant::now() < scene.until && !scene.is_broken() {
                    let awake = scene.quiet.read();
                    act(scene, &mut worker);
                    drop(awake);
                    let idle = worker.seed.below(IDLE_MS_MAX);
                    std::thread::sleep(Duration::from_millis(idle));
                }
            });
        }
        scene.watch(plan.quiet_every);
    });
    scene.rest(true);
    let mut course = scene.course.into_inner();
    if plan.on_disk && !course.violations.is_empty() {
        course.violations.push(format!("kept in {}", scene.cairn.keep().display()));
    }
    course
}

/// What a worker does again and again.
type Act = fn(&Scene, &mut Worker);

/// One that starts a process after another.
struct Worker {
    name: &'static str,
    seed: Seed,
    source: Source,
}

impl Worker {
    fn new(name: &'static str, seed: u64, number: u64, scene: &Scene) -> Self {
        let seed = Seed::of(seed.wrapping_mul(1_000_003).wrapping_add(number));
        Self { name, seed, source: Source::new(scene.cairn.path(name)) }
    }

    /// The shared cache or one's own.
    fn cache(&mut self) -> String {
        match self.seed.below(2) {
            0 => SHARED_CACHE.to_owned(),
            _ => format!("cache-{}", self.name),
        }
    }
}

impl Scene {
    fn violation(&self, text: String) {
        crate::say(&text);
        self.course.lock().violations.push(text);
    }

    fn is_broken(&self) -> bool {
        !self.course.lock().violations.is_empty()
    }

    /// Runs a command that nothing disturbs and that has to end well.
    fn done(&self, worker: &str, arguments: &[&str]) -> Option<Ended> {
        let ended = self.runner.run(worker, arguments, None, Disturbance::None);
        self.count(arguments, &ended);
        if ended.code == Some(0) {
            return Some(ended);
        }
        self.violation(format!("`cairn {}`: {ended:?}", arguments.join(" ")));
        None
    }

    /// Runs a command that is killed, paused or left alone; `None` when it was killed.
    fn risk(&self, worker: &mut Worker, arguments: &[&str]) -> Option<Ended> {
        let disturbance = self.runner.disturbance(&mut worker.seed, arguments);
        let ended = self.runner.run(worker.name, arguments, None, disturbance);
        self.count(arguments, &ended);
        (!ended.killed).then_some(ended)
    }

    fn count(&self, arguments: &[&str], ended: &Ended) {
        let mut course = self.course.lock();
        let command = process::command_name(arguments);
        let tally = course.processes.entry(command).or_default();
        tally.started += 1;
        tally.killed += u64::from(ended.killed);
        tally.paused += u64::from(ended.paused);
        drop(course);
        if ended.hung {
            self.violation(format!("`cairn {}` does not end: {ended:?}", arguments.join(" ")));
        }
    }

    fn unless_done(&self, arguments: &[&str], ended: Option<&Ended>) {
        if let Some(ended) = ended.filter(|ended| ended.code != Some(0)) {
            self.violation(format!("`cairn {}`: {ended:?}", arguments.join(" ")));
        }
    }

    /// Notes what a backup reported, whether or not it was killed after that.
    fn note_backup(&self, job: &str, expected: Expected, ended: &Ended) {
        let snapshot = ended.result().and_then(|result| {
            let snapshot = result["report"]["snapshot"].as_str()?.to_owned();
            (result["exit_code"] == 0 || ended.code == Some(0)).then_some(snapshot)
        });
        match snapshot {
            Some(snapshot) => {
                let mut course = self.course.lock();
                course.reported += 1;
                let number = course.reported;
                drop(course);
                let kept = Kept { job: job.to_owned(), number, expected, readers: 0 };
                self.kept.lock().insert(snapshot, kept);
            }
            None if ended.killed => {}
            // Its packs were collected while it ran, and a stream cannot be read again.
            None if ended.stderr.contains("collected while") => {
                self.course.lock().turned_away += 1;
            }
            None => self.violation(format!("a backup of the job {job} failed: {ended:?}")),
        }
    }

    fn back_up_tree(&self, worker: &mut Worker) {
        worker.source.change(&mut worker.seed);
        let path = worker.source.path().to_owned();
        let expected = Expected::Tree(path.clone(), compare::look(&path));
        let shown = path.to_str().unwrap_or_default();
        let cache = worker.cache();
        let name = worker.name;
        let arguments = ["backup", shown, "--job", name, "--json", "--cache-dir", &cache];
        let disturbance = self.runner.disturbance(&mut worker.seed, &arguments);
        let ended = self.runner.run(name, &arguments, None, disturbance);
        self.count(&arguments, &ended);
        self.note_backup(name, expected, &ended);
    }

    fn back_up_stream(&self, worker: &mut Worker) {
        let stream = worker.source.stream(&mut worker.seed);
        let expected = Expected::Stream(blake3::hash(&stream));
        let cache = worker.cache();
        let name = worker.name;
        let arguments = ["backup", "--stdin", "--stdin-name", STREAM_NAME, "--job", name];
        let arguments = [&arguments[..], &["--json", "--cache-dir", &cache]].concat();
        let disturbance = self.runner.disturbance(&mut worker.seed, &arguments);
        let ended = self.runner.run(name, &arguments, Some(stream), disturbance);
        self.count(&arguments, &ended);
        self.note_backup(name, expected, &ended);
    }

    fn collect(&self, worker: &mut Worker) {
        let cache = worker.cache();
        let dead = if worker.seed.below(2) == 0 { "0" } else { "25" };
        let mut arguments = vec!["gc", "--max-delete", "100", "--max-dead", dead];
        arguments.extend(["--cache-dir", &cache]);
        // What the dead have stored is spared for a day otherwise.
        if worker.seed.below(2) == 0 {
            arguments.push("--ignore-leases");
        }
        let ended = self.risk(worker, &arguments);
        self.unless_collected(&arguments, ended.as_ref());
    }

    /// A collection that finds a delta without its base in a pack that it wants to copy says that the
    /// pack is damaged, and leaves it. That is counted: whether anything is lost shows at the next
    /// quiet point.
    fn unless_collected(&self, arguments: &[&str], ended: Option<&Ended>) {
        let alarm =
            |ended: &&Ended| ended.code == Some(5) && ended.stderr.contains("is in no pack");
        match ended.filter(alarm) {
            Some(_) => self.course.lock().alarms += 1,
            None => self.unless_done(arguments, ended),
        }
    }

    /// Forgets or erases a snapshot that is none of the newest of its job, and that nobody is reading.
    fn forget(&self, worker: &mut Worker) {
        let Some(snapshot) = self.expendable(&mut worker.seed) else { return };
        let cache = worker.cache();
        if worker.seed.below(3) == 0 {
            let arguments = ["erase", "--snapshot", &snapshot, "--max-delete", "100"];
            let arguments = [&arguments[..], &["--cache-dir", &cache]].concat();
            let ended = self.risk(worker, &arguments);
            // What sessions at work have stored may hold some of it, which the erasure says.
            let spared = |ended: &Ended| {
                ended.code == Some(1) && ended.stderr.contains("spared for sessions at work")
            };
            let ended = ended.filter(|ended| !spared(ended));
            return self.unless_collected(&arguments, ended.as_ref());
        }
        let arguments = ["forget", &snapshot, "--cache-dir", &cache];
        let ended = self.risk(worker, &arguments);
        self.unless_done(&arguments, ended.as_ref());
    }

    fn expendable(&self, seed: &mut Seed) -> Option<String> {
        let mut kept = self.kept.lock();
        let mut expendable = Vec::new();
        for (id, one) in kept.iter().filter(|(_, one)| one.readers == 0) {
            let newer = kept.values().filter(|o| o.job == one.job && o.number > one.number);
            if newer.count() >= NEWEST_SPARED {
                expendable.push(id.clone());
            }
        }
        let snapshot = pick(&expendable, seed)?;
        kept.remove(&snapshot);
        self.course.lock().forgotten += 1;
        Some(snapshot)
    }

    /// Restores a snapshot; when that is killed, the same command completes it.
    fn restore(&self, worker: &mut Worker) {
        let Some((snapshot, expected)) = self.hold(&mut worker.seed) else { return };
        let cache = worker.cache();
        let target = self.cairn.path(&format!("target-{}", worker.name));
        let shown = target.to_str().unwrap_or_default();
        let arguments = ["restore", &snapshot, "--target", shown, "--cache-dir", &cache];
        let mut ended = self.risk(worker, &arguments);
        if ended.is_none() {
            ended = self.risk(worker, &arguments);
            // It had been done, and the target is refused because it is not empty.
            ended = ended.filter(|ended| ended.code != Some(4));
        }
        self.unless_done(&arguments, ended.as_ref());
        if ended.is_some_and(|ended| ended.code == Some(0)) {
            self.compare(&snapshot, &expected, &target);
        }
        if let Some(kept) = self.kept.lock().get_mut(&snapshot) {
            kept.readers -= 1;
        }
        remove(&target);
    }

    fn hold(&self, seed: &mut Seed) -> Option<(String, Expected)> {
        let mut kept = self.kept.lock();
        let ids = kept.keys().cloned().collect::<Vec<_>>();
        let snapshot = pick(&ids, seed)?;
        let one = kept.get_mut(&snapshot)?;
        one.readers += 1;
        Some((snapshot, one.expected.clone()))
    }

    fn compare(&self, snapshot: &str, expected: &Expected, target: &Path) {
        let differences = expected.differences(target);
        self.course.lock().compared += 1;
        if !differences.is_empty() {
            self.violation(format!("snapshot {snapshot} was restored wrongly: {differences}"));
        }
    }

    fn verify(&self, worker: &mut Worker) {
        let cache = worker.cache();
        let level = if worker.seed.below(2) == 0 { "full" } else { "structure" };
        let arguments = ["verify", "--level", level, "--cache-dir", &cache];
        let ended = self.risk(worker, &arguments);
        self.unless_done(&arguments, ended.as_ref());
    }
}

fn pick(among: &[String], seed: &mut Seed) -> Option<String> {
    let index = seed.below(among.len().max(1) as u64);
    among.get(usize::try_from(index).unwrap_or_default()).cloned()
}

/// Removes a folder if it is there.
fn remove(folder: &Path) {
    if folder.exists() {
        std::fs::remove_dir_all(folder).expect("a folder is removed");
    }
}

/// What went wrong, for a test that fails.
#[must_use]
pub fn report(plan: &Plan, course: &Course) -> String {
    let mut text = format!("seed {}: {course}", plan.seed);
    for violation in &course.violations {
        let _in_memory = write!(text, "\n{violation}");
    }
    text
}
