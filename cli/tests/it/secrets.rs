//! Where keys come from, and where they never go.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::env::TestEnv;

#[test]
fn a_repository_that_is_missing_is_told_before_a_key_is_asked_for() {
    let mut env = TestEnv::with_passphrase();
    env.unset("CAIRN_PASSWORD");
    let run = env.run(["snapshots"]);
    assert_eq!(run.code, 10, "{run:?}");
    let (_, result) = env.json(["snapshots"]);
    assert_eq!(result["exit_code"], 10);
    assert!(result["hint"].is_string(), "{result}");
}

#[test]
fn without_a_terminal_a_key_must_be_named() {
    let mut env = TestEnv::with_passphrase();
    env.unset("CAIRN_PASSWORD");
    let run = env.run(["init"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("no terminal to ask"), "{run:?}");
    assert!(run.stderr.contains("--password-file"), "{run:?}");
    assert!(!env.path("repo").exists());
}

#[test]
fn secrets_that_cannot_be_used_are_refused_before_anything_is_made() {
    let mut env = TestEnv::with_passphrase();
    env.unset("CAIRN_PASSWORD");
    env.write("empty", "\n");
    for (arguments, reason) in [
        (["--password-file", "empty"], "holds no passphrase"),
        (["--password-file", "missing"], "cannot read the password file missing"),
        (["--password-command", "echo oops >&2; exit 7"], "exit status: 7"),
        (["--password-command", "true"], "is empty"),
        (["--key-file", "missing"], "cannot read the key file missing"),
        (["--identity-file", "empty"], ""),
    ] {
        let run = env.run(["init"].iter().chain(&arguments));
        assert_eq!(run.code, 2, "{run:?}");
        assert!(run.stderr.contains(reason), "{run:?}");
        assert!(!env.path("repo").exists(), "{arguments:?}");
    }
}

#[test]
fn an_identity_is_secret_and_never_overwritten() {
    let env = TestEnv::bare();
    let public = env.ok(["key", "new-recipient", "identity"]);
    let secret = fs::read_to_string(env.path("identity")).unwrap();
    assert!(!public.contains(secret.trim()));
    let mode = fs::metadata(env.path("identity")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = env.run(["key", "new-recipient", "identity"]);
    assert_eq!(again.code, 2, "{again:?}");
    assert_eq!(fs::read_to_string(env.path("identity")).unwrap(), secret);
}
