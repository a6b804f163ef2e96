//! The real `cairn` program in surroundings of its own.

use crate::lab::memory_folder;
use crate::servers::Target;
use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

/// The passphrase of every repository made here.
pub const PASSPHRASE: &str = "correct horse battery staple";

/// Where `cairn` was built, beside the test that runs.
///
/// # Panics
/// With what to do, when it is not there.
#[must_use]
pub fn cairn_path() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its own path");
    let folder = test.ancestors().find(|folder| folder.join("cairn").is_file());
    match folder {
        Some(folder) => folder.join("cairn"),
        None => panic!("no `cairn` beside {}: run `cargo build --release` first", test.display()),
    }
}

/// A folder with a repository, a cache and whatever a test makes there, and nothing of the
/// environment the test was started in.
pub struct Cairn {
    folder: tempfile::TempDir,
    more: Vec<(&'static str, OsString)>,
}

/// What a run of the program did.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// Fails unless it exited with this code.
    ///
    /// # Panics
    /// With what it wrote.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// The JSON objects on standard output of this type.
    ///
    /// # Panics
    /// When a line is no JSON object.
    #[must_use]
    pub fn json(&self, kind: &str) -> Vec<serde_json::Value> {
        let lines = self.stdout.lines().map(|line| {
            serde_json::from_str::<serde_json::Value>(line)
                .unwrap_or_else(|error| panic!("{line:?} is no JSON: {error}"))
        });
        lines.filter(|value| value["type"] == kind).collect()
    }
}

impl Cairn {
    /// An empty folder.
    ///
    /// # Panics
    /// When there is no room for it.
    #[must_use]
    pub fn new() -> Self {
        Self::in_folder(memory_folder().map_or_else(tempfile::tempdir, Ok))
    }

    /// An empty folder on disk, for what is too much to keep in memory.
    ///
    /// # Panics
    /// When there is no room for it.
    #[must_use]
    pub fn on_disk() -> Self {
        Self::in_folder(tempfile::tempdir())
    }

    fn in_folder(folder: std::io::Result<tempfile::TempDir>) -> Self {
        let cairn = Self { folder: folder.expect("a temporary folder"), more: Vec::new() };
        std::fs::create_dir(cairn.path("home")).expect("a folder");
        cairn
    }

    /// Uses a repository on a server from now on.
    pub fn set_target(&mut self, target: &Target) {
        self.more = target.environment.clone();
        self.more.push(("CAIRN_REPO", target.url.clone().into()));
    }

    /// A folder with a new repository of the smallest packs.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn with_repository() -> Self {
        let cairn = Self::new();
        cairn.init();
        cairn
    }

    /// Makes the repository, of the smallest packs.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn init(&self) {
        self.run(["init", "--pack-size", "1MiB"]).expect(0);
    }

    /// A path in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Keeps the folder for whoever looks into a failure; returns where it is.
    #[must_use]
    pub fn keep(self) -> PathBuf {
        self.folder.keep()
    }

    /// The environment the program gets.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut all: Vec<(&'static str, OsString)> = vec![
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
            ("HOME", self.path("home").into()),
            ("LC_ALL", "C".into()),
            ("TZ", "UTC".into()),
            ("CAIRN_REPO", self.path("repository").into()),
            ("CAIRN_CACHE_DIR", self.path("cache").into()),
            ("CAIRN_PASSWORD", PASSPHRASE.into()),
        ];
        // Of two that have the same name, the later one counts.
        all.extend(self.more.iter().cloned());
        all
    }

    /// Any program with that environment and no input.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.environment()).current_dir(self.folder.path());
        command.stdin(Stdio::null());
        command
    }

    /// `cairn` with these arguments.
    #[must_use]
    pub fn cairn<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.command(cairn_path());
        command.args(arguments);
        command
    }

    /// Runs `cairn` to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        self.cairn(arguments).output().expect("cairn starts").into()
    }

    /// Runs a script of the shell, in which `cairn` is the program and `$1` onwards are
    /// `arguments`, in mounts of its own: what it mounts vanishes with it. Works as root, and as
    /// anyone where the kernel allows namespaces to everyone.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run_with_mounts<A: AsRef<OsStr>>(
        &self,
        script: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Ran {
        let mut command = self.command("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let text = format!("cairn() {{ \"$CAIRN\" \"$@\"; }}\n{script}");
        command.args(["--mount", "sh", "-c"]).arg(text).arg("sh").args(arguments);
        command.env("CAIRN", cairn_path());
        command.output().expect("unshare starts").into()
    }

    /// Restores a snapshot into a new folder and returns it.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    #[must_use]
    pub fn restored(&self, snapshot: &str, name: &str) -> PathBuf {
        let target = self.path(name);
        let arguments = ["restore".as_ref(), snapshot.as_ref(), "--target".as_ref()];
        self.run(arguments.into_iter().chain([target.as_os_str()])).expect(0);
        target
    }
}

impl Default for Cairn {
    fn default() -> Self {
        Self::new()
    }
}

/// What a finished process used at most.
#[derive(Debug)]
pub struct Used {
    /// How it ended.
    pub status: ExitStatus,
    /// Largest resident set, bytes.
    pub memory_bytes: u64,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// Runs a command to its end and says how much memory it took at its peak. Its standard output
/// goes nowhere.
///
/// # Panics
/// When it cannot be started or waited for.
#[must_use]
#[expect(clippy::zombie_processes, reason = "`wait4` below waits for it")]
pub fn measure(command: &mut Command) -> Used {
    command.stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().expect("the program starts");
    let mut stderr = String::new();
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_string(&mut stderr).expect("its messages are read");
    }
    let (status, memory_bytes) = wait4(&child);
    Used { status, memory_bytes, stderr }
}

/// Waits for a child and takes what the kernel says it used.
fn wait4(child: &Child) -> (ExitStatus, u64) {
    let pid = libc::pid_t::try_from(child.id()).expect("a process id");
    let mut status = 0;
    // SAFETY: `rusage` is plain numbers, for which zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals of the right types, and `pid` is a child of this
    // process that nobody else waits for.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    assert_eq!(waited, pid, "wait4: {}", std::io::Error::last_os_error());
    let kib = u64::try_from(usage.ru_maxrss).unwrap_or_default();
    (ExitStatus::from_raw(status), kib << 10)
}

/// Where the repository's files are, sorted.
///
/// # Panics
/// When they cannot be listed.
#[must_use]
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}
