//! A hermetic place for one test: its own home, cache, repository and environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::schema;

/// The key of most tests' repositories.
const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The passphrase where one is used.
pub const PASSPHRASE: &str = "correct horse battery staple";

/// All files below a folder, sorted.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Everything one test may touch.
pub struct TestEnv {
    folder: TempDir,
    variables: BTreeMap<OsString, OsString>,
}

/// What a run left behind.
#[derive(Debug)]
pub struct Run {
    /// Exit code; signals show as -1.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl TestEnv {
    /// An empty environment: no repository is named, no key is given.
    pub fn bare() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("home")).unwrap();
        let mut env = Self { folder, variables: BTreeMap::new() };
        let home = env.path("home");
        env.set("HOME", home);
        env.set("TZ", "UTC");
        env.set("COLUMNS", "100");
        env.set("PATH", std::env::var_os("PATH").unwrap_or_default());
        env.set("USER", "tester");
        env
    }

    /// A repository is named, but not made; its key is a file, because that opens quickly.
    pub fn new() -> Self {
        let mut env = Self::bare();
        let repository = env.path("repo");
        env.set("CAIRN_REPO", repository);
        let key = env.write("home/key", KEY);
        env.set("CAIRN_KEY_FILE", key);
        env
    }

    /// A repository and [`PASSPHRASE`] are named, but the repository is not made.
    pub fn with_passphrase() -> Self {
        let mut env = Self::new();
        env.unset("CAIRN_KEY_FILE");
        env.set("CAIRN_PASSWORD", PASSPHRASE);
        env
    }

    /// Whether a variable is set.
    pub fn has(&self, name: &str) -> bool {
        self.variables.contains_key(OsStr::new(name))
    }

    /// Sets a variable for later runs.
    pub fn set(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.variables.insert(name.into(), value.as_ref().to_owned());
    }

    /// Unsets a variable for later runs.
    pub fn unset(&mut self, name: &str) {
        self.variables.remove(OsStr::new(name));
    }

    /// A path in the test's folder.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, and the folders above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// `cairn` with arguments, to be run by the caller.
    pub fn command<I>(&self, arguments: I) -> Command
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
        command
            .args(arguments)
            .env_clear()
            .envs(&self.variables)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs `cairn` with arguments.
    pub fn run<I>(&self, arguments: I) -> Run
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        Run::from(self.command(arguments).output().unwrap())
    }

    /// Runs `cairn`, feeding its standard input.
    pub fn run_with_input<I>(&self, arguments: I, input: &[u8]) -> Run
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || {
            // A program that refuses its input closes the pipe early.
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        Run::from(output)
    }

    /// Runs `cairn`, which must succeed; returns standard output as text.
    pub fn ok<I>(&self, arguments: I) -> String
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let run = self.run(arguments);
        assert_eq!(run.code, 0, "{run:?}");
        run.text()
    }

    /// Runs `cairn --json`; returns the objects, checked against their schemas, and the result.
    pub fn json<I>(&self, arguments: I) -> (Vec<Value>, Value)
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let arguments: Vec<OsString> =
            arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        self.run([OsString::from("--json")].iter().chain(&arguments)).objects()
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let run = Self {
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        let shown = format!("{}{}", String::from_utf8_lossy(&run.stdout), run.stderr);
        for secret in [PASSPHRASE, KEY] {
            assert!(!shown.contains(secret), "a secret was printed: {shown}");
        }
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        run
    }
}

impl Run {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    /// Standard output as objects; the last one is the result, and agrees with the exit code.
    pub fn objects(&self) -> (Vec<Value>, Value) {
        let text = self.text();
        assert!(text.ends_with('\n'), "{self:?}");
        let mut objects: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for object in &objects {
            schema::check_object(object);
        }
        let result = objects.pop().unwrap();
        assert_eq!(result["type"], "result", "{self:?}");
        assert_eq!(result["exit_code"], self.code, "{self:?}");
        assert!(objects.iter().all(|object| object["type"] != "result"), "{self:?}");
        (objects, result)
    }
}
