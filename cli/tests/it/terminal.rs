//! On a terminal: prompts that do not show the answer, and moving progress. The terminal is made
//! by `script` of util-linux.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use crate::env::{PASSPHRASE, TestEnv};

/// Runs a command line on a terminal; gives one answer to each prompt, when it appears. Returns
/// the exit code and all that the terminal showed.
fn on_terminal(env: &TestEnv, line: &str, answers: &[&str]) -> (i32, String) {
    let binary = env!("CARGO_BIN_EXE_cairn");
    // Only the environment is taken from it.
    let template = env.command([""; 0]);
    let variables = template.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let mut child = Command::new("script")
        .args(["-q", "-e", "-c", &format!("{binary} {line}"), "/dev/null"])
        .env_clear()
        .envs(variables)
        .current_dir(env.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keyboard = child.stdin.take().unwrap();
    let mut screen = child.stdout.take().unwrap();
    let (mut shown, mut answered, mut seen) = (Vec::new(), answers.iter(), 0);
    let mut buffer = [0; 4096];
    loop {
        let length = screen.read(&mut buffer).unwrap();
        if length == 0 {
            break;
        }
        shown.extend_from_slice(&buffer[..length]);
        let prompts = String::from_utf8_lossy(&shown).matches(": ").count();
        if shown.ends_with(b": ") && prompts > seen {
            seen = prompts;
            if let Some(answer) = answered.next() {
                writeln!(keyboard, "{answer}").unwrap();
            }
        }
    }
    let code = child.wait().unwrap().code().unwrap();
    (code, String::from_utf8(shown).unwrap())
}

fn bare() -> TestEnv {
    let mut env = TestEnv::with_passphrase();
    env.unset("CAIRN_PASSWORD");
    env.set("TERM", "xterm");
    env
}

#[test]
fn a_new_passphrase_is_asked_for_twice_and_never_shown() {
    let env = bare();
    let (code, shown) = on_terminal(&env, "init", &[PASSPHRASE, PASSPHRASE]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("passphrase: ") && shown.contains("passphrase, again: "), "{shown}");
    assert!(!shown.contains(PASSPHRASE), "{shown}");
    let (code, shown) = on_terminal(&env, "key list", &[]);
    assert_eq!(code, 0, "{shown}");
    let (code, shown) = on_terminal(&env, "snapshots", &[PASSPHRASE]);
    assert_eq!(code, 0, "{shown}");
    assert!(!shown.contains("again"), "{shown}");
}

#[test]
fn answers_that_differ_change_nothing() {
    let env = bare();
    let (code, shown) = on_terminal(&env, "init", &["one", "other"]);
    assert_eq!(code, 2, "{shown}");
    assert!(shown.contains("the two passphrases differ"), "{shown}");
    assert!(!env.path("repo").exists());
    let (code, shown) = on_terminal(&env, "init", &[""]);
    assert_eq!(code, 2, "{shown}");
    assert!(!env.path("repo").exists());
}

#[test]
fn binary_data_is_not_poured_over_a_terminal() {
    let mut env = TestEnv::new();
    env.set("TERM", "xterm");
    env.ok(["init"]);
    env.write("data/text", "text\n");
    env.write("data/binary", b"\x1b]0;owned\x07\x00");
    env.ok(["backup", "data"]);
    let dump = |name: &str| {
        let path = env.path(name);
        on_terminal(&env, &format!("dump latest:{}", path.display()), &[])
    };
    assert_eq!(dump("data/text"), (0, "text\r\n".to_owned()));
    let (code, shown) = dump("data/binary");
    assert_eq!(code, 2, "{shown}");
    assert!(!shown.contains("owned"), "{shown}");
}

#[test]
fn errors_are_coloured_unless_it_is_not_wanted() {
    let mut env = bare();
    env.unset("CAIRN_REPO");
    let (_, shown) = on_terminal(&env, "snapshots", &[]);
    assert!(shown.contains("\x1b[1;31merror:"), "{shown}");
    env.set("NO_COLOR", "1");
    let (_, shown) = on_terminal(&env, "snapshots", &[]);
    assert!(shown.contains("error:") && !shown.contains('\x1b'), "{shown}");
}
