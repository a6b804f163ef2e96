//! One process of the program: started, perhaps stopped for a while or killed, and waited for.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::process::{Cairn, cairn_path};
use crate::seed::Seed;

/// A process that takes longer waits for somebody. Far more than any takes on a busy machine.
const HANGS_AFTER: Duration = Duration::from_secs(240);
/// How often it is looked whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long a process is taken to run before one of its kind has ended.
const USUAL_AT_FIRST: Duration = Duration::from_millis(300);
/// Longest time for which a process is stopped, milliseconds.
const PAUSE_MS_MAX: u64 = 1_500;

/// What is done to a process.
#[derive(Clone, Copy, Debug)]
pub(super) enum Disturbance {
    /// Nothing.
    None,
    /// `kill -9` after so long.
    Kill(Duration),
    /// It is stopped after so long, for so long.
    Pause(Duration, Duration),
}

/// How a process ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
    /// It was killed before it ended by itself.
    pub(super) killed: bool,
    pub(super) paused: bool,
    /// It was killed because it did not end.
    pub(super) hung: bool,
}

impl Ended {
    /// The last line of its JSON output.
    pub(super) fn result(&self) -> Option<serde_json::Value> {
        let mut lines =
            self.stdout.lines().rev().filter_map(|line| serde_json::from_str(line).ok());
        lines.find(|value: &serde_json::Value| value["type"] == "result")
    }
}

/// The command among the arguments.
pub(super) fn command_name(arguments: &[&str]) -> &'static str {
    const NAMES: [&str; 7] = ["backup", "gc", "forget", "erase", "restore", "verify", "init"];
    let command = arguments.first().copied().unwrap_or_default();
    NAMES.into_iter().find(|name| *name == command).unwrap_or("other")
}

/// Starts processes, and knows how long they usually take.
pub(super) struct Runner {
    folder: PathBuf,
    environment: Vec<(&'static str, std::ffi::OsString)>,
    usual: Mutex<Vec<(&'static str, Duration)>>,
}

impl Runner {
    /// With a key file: a passphrase would cost half a second each time.
    pub(super) fn new(cairn: &Cairn) -> Self {
        let key = cairn.path("key");
        std::fs::write(&key, [7; 32]).expect("a key file");
        let mut environment = cairn.environment();
        environment.retain(|(name, _)| *name != "CAIRN_PASSWORD");
        environment.push(("CAIRN_KEY_FILE", key.into()));
        Self { folder: cairn.path(""), environment, usual: Mutex::default() }
    }

    /// Kills every other process and stops every eighth, at a moment within the usual time.
    pub(super) fn disturbance(&self, seed: &mut Seed, arguments: &[&str]) -> Disturbance {
        let usual = self.usual(command_name(arguments));
        let after = usual.mul_f64(seed.below(1_200) as f64 / 1_000.0);
        match seed.below(8) {
            0..4 => Disturbance::Kill(after),
            4 => Disturbance::Pause(after, Duration::from_millis(seed.below(PAUSE_MS_MAX))),
            _ => Disturbance::None,
        }
    }

    fn usual(&self, command: &'static str) -> Duration {
        let usual = self.usual.lock();
        let known = usual.iter().find(|(name, _)| *name == command);
        known.map_or(USUAL_AT_FIRST, |(_, usual)| *usual)
    }

    /// Half of it is the newest time.
    fn learn(&self, command: &'static str, took: Duration) {
        let mut usual = self.usual.lock();
        match usual.iter_mut().find(|(name, _)| *name == command) {
            Some((_, known)) => *known = (*known + took) / 2,
            None => usual.push((command, took)),
        }
    }

    /// Runs a process to its end, whichever that is. Its output goes to files named after the
    /// worker, which has one process at a time.
    pub(super) fn run(
        &self,
        worker: &str,
        arguments: &[&str],
        input: Option<Vec<u8>>,
        disturbance: Disturbance,
    ) -> Ended {
        let [stdout, stderr] = ["stdout", "stderr"].map(|what| {
            let path = self.folder.join(format!("{worker}.{what}"));
            (File::create(&path).expect("a file for its output"), path)
        });
        let mut command = Command::new(cairn_path());
        command.args(arguments).env_clear().envs(self.environment.iter().cloned());
        command.current_dir(&self.folder).stdout(stdout.0).stderr(stderr.0);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let begun = Instant::now();
        let mut child = command.spawn().expect("the program starts");
        let (paused, hung, status) = std::thread::scope(|threads| {
            if let Some((mut pipe, input)) = child.stdin.take().zip(input) {
                // One that is killed does not read to the end.
                threads.spawn(move || {
                    let _cut = pipe.write_all(&input);
                });
            }
            wait(&mut child, begun, disturbance)
        });
        let took = begun.elapsed();
        if status.code().is_some() && !paused {
            self.learn(command_name(arguments), took);
        }
        let read = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into();
        Ended {
            code: status.code(),
            stdout: read(stdout.1),
            stderr: read(stderr.1),
            // A process that ends by another signal crashed.
            killed: status.signal() == Some(libc::SIGKILL),
            paused,
            hung,
        }
    }
}

/// Waits for the end of a process, and disturbs it on the way: whether it was paused, whether it
/// hung, and how it ended.
fn wait(
    child: &mut Child,
    begun: Instant,
    disturbance: Disturbance,
) -> (bool, bool, std::process::ExitStatus) {
    let mut paused = false;
    let mut hung = false;
    loop {
        if let Some(status) = child.try_wait().expect("the process is ours") {
            return (paused, hung, status);
        }
        let elapsed = begun.elapsed();
        match disturbance {
            Disturbance::Kill(after) if elapsed >= after => {
                child.kill().expect("it is ours, and not waited for");
            }
            Disturbance::Pause(after, pause) if elapsed >= after && !paused => {
                paused = true;
                signal(child, rustix::process::Signal::STOP);
                std::thread::sleep(pause);
                signal(child, rustix::process::Signal::CONT);
            }
            _ if elapsed >= HANGS_AFTER => {
                hung = true;
                child.kill().expect("it is ours, and not waited for");
            }
            _ => {}
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let id = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let id = id.expect("a process has an id");
    // Not waited for yet: the id is still this process's, even if it has ended.
    rustix::process::kill_process(id, signal).expect("the process is ours");
}
