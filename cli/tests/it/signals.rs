//! Ctrl-C and termination: 128 and the signal's number, and no half of a snapshot.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::env::TestEnv;

/// Longest that a signal may take to be seen, generously.
const PATIENCE: Duration = Duration::from_secs(60);

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

fn wait(child: &mut Child) -> Option<i32> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    panic!("it did not end");
}

/// A backup of a command that has begun to write and never ends by itself.
fn endless(env: &TestEnv) -> Child {
    let script = "touch begun; while :; do echo line; sleep 0.05; done";
    let arguments = ["backup", "--command", "--", "sh", "-c", script];
    let child = env.command(arguments).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while !env.path("begun").exists() {
        assert!(began.elapsed() < PATIENCE, "the command never began");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

#[test]
fn the_first_signal_ends_cleanly() {
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let env = TestEnv::new();
        env.ok(["init"]);
        let mut child = endless(&env);
        signal(&child, name);
        assert_eq!(wait(&mut child), Some(code), "{name}");
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert!(stderr.contains("error: "), "{stderr}");
        assert_eq!(env.ok(["snapshots"]), "");
    }
}

#[test]
fn the_second_signal_ends_at_once() {
    let env = TestEnv::new();
    env.ok(["init"]);
    // Its standard input stays open and silent, so that it has nothing to notice a request by.
    let arguments = ["backup", "--stdin", "--stdin-name", "x"];
    let mut child = env.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    let mut code = None;
    while code.is_none() && began.elapsed() < PATIENCE {
        signal(&child, "TERM");
        std::thread::sleep(Duration::from_millis(50));
        code = child.try_wait().unwrap().map(|status| status.code());
    }
    // Already over, unless the test fails.
    let _ = child.kill();
    child.wait().unwrap();
    // Before the handlers are set, the signal itself ends the process.
    assert!(matches!(code, Some(Some(143) | None)), "{code:?}");
}
