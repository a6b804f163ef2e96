//! Real servers, started by the test that needs them on a free port of loopback, with their data
//! in a temporary folder, and gone with it.

pub mod azurite;
pub mod gcs;
pub mod http;
pub mod moto;
pub mod proxy;
pub mod sshd;
pub mod webdav;

use std::ffi::OsString;
use std::io::{Read as _, Seek as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Where a repository can be made, and what `cairn` must be told to reach it.
#[derive(Clone, Debug)]
pub struct Target {
    /// For `--repo`.
    pub url: String,
    /// The environment.
    pub environment: Vec<(&'static str, OsString)>,
    /// Port of loopback where the server listens.
    pub port: u16,
}

impl Target {
    /// The same target under another URL.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// The same with a variable set, replacing one of that name.
    #[must_use]
    pub fn with(&self, name: &'static str, value: impl Into<OsString>) -> Self {
        let mut target = self.without(name);
        target.environment.push((name, value.into()));
        target
    }

    /// The same without a variable.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let mut target = self.clone();
        target.environment.retain(|(other, _)| *other != name);
        target
    }
}

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(60);
/// Time between two looks whether it does.
const LOOK: Duration = Duration::from_millis(50);

/// Runs a program for as long as its standard input stays open: also a test that is killed leaves
/// no server behind.
const KEEPER: &str = r#"exec 3<&0; "$@" </dev/null 3<&- & server=$!
cat <&3 >/dev/null; kill "$server" 2>/dev/null; wait "$server""#;

/// A server that ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    keeper: Child,
    log: std::fs::File,
    /// Its port of loopback.
    pub port: u16,
}

/// A port that was free just now.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

impl Server {
    /// Starts `command`, which listens on `port`, in `folder`, where it may keep what it likes.
    ///
    /// # Panics
    /// With what it wrote, when it does not answer in time.
    #[must_use]
    pub fn start(command: &Command, port: u16, folder: &Path) -> Self {
        let log_path = folder.join("server.log");
        let log = std::fs::File::create(&log_path).expect("a log");
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "sh"]).arg(command.get_program()).args(command.get_args());
        keeper
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        keeper.env("TMPDIR", folder).env("HOME", folder);
        keeper.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        keeper.current_dir(folder).stdin(Stdio::piped());
        keeper.stdout(log.try_clone().expect("the log")).stderr(log.try_clone().expect("the log"));
        let keeper = keeper.spawn().expect("sh starts");
        let log = std::fs::File::open(&log_path).expect("the log");
        let mut server = Self { keeper, log, port };
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = server.keeper.try_wait().expect("it can be asked").is_some();
            if ended || begun.elapsed() > START {
                panic!("{:?} does not answer: {}", command.get_program(), server.log());
            }
            sleep(LOOK);
        }
        server
    }

    /// What it wrote so far.
    ///
    /// # Panics
    /// When that cannot be read.
    #[must_use]
    pub fn log(&mut self) -> String {
        let mut text = Vec::new();
        self.log.rewind().expect("the log");
        self.log.read_to_end(&mut text).expect("the log");
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ended = self.keeper.wait();
    }
}
