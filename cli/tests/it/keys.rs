//! Keys: adding, listing, removing; wrong ones; roles.

use std::fs;

use serde_json::Value;

use crate::env::{PASSPHRASE, TestEnv};

fn ready() -> TestEnv {
    let env = TestEnv::with_passphrase();
    env.ok(["init"]);
    env.write("data/a", "content");
    env
}

#[test]
fn a_wrong_passphrase_is_12() {
    let mut env = ready();
    env.set("CAIRN_PASSWORD", "wrong");
    let (_, result) = env.json(["snapshots"]);
    assert_eq!(result["exit_code"], 12, "{result}");
    assert!(result["hint"].is_string());
}

#[test]
fn every_kind_of_key_opens() {
    let mut env = ready();
    env.write("password", "second\n");
    env.write("key", [7; 64]);
    env.ok(["key", "add", "--new-password-file", "password", "--label", "file"]);
    env.ok(["key", "add", "--new-key-file", "key"]);
    env.ok(["key", "add", "--new-key-command", "echo from a vault, and quite long enough"]);
    let public = env.ok(["key", "new-recipient", "identity"]);
    env.ok(["key", "add", "--recipient", public.trim()]);
    env.unset("CAIRN_PASSWORD");
    for arguments in [
        ["--password-file", "password"],
        ["--password-command", "cat password"],
        ["--key-file", "key"],
        ["--key-command", "echo from a vault, and quite long enough"],
        ["--identity-file", "identity"],
    ] {
        env.ok(["snapshots"].iter().chain(&arguments));
    }
    let (objects, result) = env.json(["key", "list"]);
    assert_eq!(result["report"]["keys"], 5);
    let methods: Vec<&Value> = objects.iter().map(|object| &object["method"]).collect();
    for method in ["passphrase", "key file", "command", "recipient"] {
        assert!(methods.contains(&&Value::from(method)), "{method}");
    }
    assert!(env.ok(["key", "list"]).contains("file"));
}

#[test]
fn a_key_is_removed_and_the_last_one_is_not() {
    let mut env = ready();
    env.write("password", "second");
    let (_, result) = env.json(["key", "add", "--new-password-file", "password"]);
    let slot = result["report"]["slot"].as_str().unwrap().to_owned();
    env.ok(["key", "remove", &slot[..12], "--dry-run"]);
    env.ok(["key", "remove", &slot[..12]]);
    env.unset("CAIRN_PASSWORD");
    assert_eq!(env.run(["snapshots", "--password-file", "password"]).code, 12);
    env.set("CAIRN_PASSWORD", PASSPHRASE);
    let (objects, _) = env.json(["key", "list"]);
    let last = objects[0]["id"].as_str().unwrap();
    assert_eq!(env.run(["key", "remove", last]).code, 4);
    assert_eq!(env.run(["key", "remove", "ffffffffffff"]).code, 2);
}

#[test]
fn a_writer_backs_up_and_reads_nothing() {
    let mut env = ready();
    env.write("password", "writer");
    env.ok(["key", "add", "--role", "writer", "--new-password-file", "password"]);
    env.unset("CAIRN_PASSWORD");
    env.set("CAIRN_PASSWORD_FILE", env.path("password"));
    env.ok(["backup", "data"]);
    let (_, again) = env.json(["backup", "data", "--reread"]);
    assert_eq!(again["report"]["bytes_new"], 0, "{again}");
    let file = format!("latest:{}", env.path("data/a").display());
    for arguments in [
        vec!["dump", &file],
        vec!["ls", "latest"],
        vec!["restore", "latest", "--target", "out"],
        vec!["key", "remove", "00"],
    ] {
        assert_eq!(env.run(&arguments).code, 12, "{arguments:?}");
    }
    env.unset("CAIRN_PASSWORD_FILE");
    env.set("CAIRN_PASSWORD", PASSPHRASE);
    assert_eq!(env.ok(["dump", &file]), "content");
}

#[test]
fn an_identity_that_is_none_is_refused() {
    let mut env = ready();
    env.unset("CAIRN_PASSWORD");
    env.write("identity", "nonsense\n");
    let run = env.run(["snapshots", "--identity-file", "identity"]);
    assert!(matches!(run.code, 2 | 12), "{run:?}");
    assert!(!run.stderr.contains("nonsense"), "{run:?}");
    assert!(fs::read_dir(env.path("repo")).is_ok());
}

#[test]
fn a_dry_run_makes_no_repository_and_adds_no_key() {
    let env = TestEnv::with_passphrase();
    env.ok(["init", "--dry-run"]);
    assert_eq!(env.run(["snapshots"]).code, 10);
    let (_, made) = env.json(["init", "--dry-run"]);
    assert_eq!(made["report"]["repository"], Value::Null);
    env.ok(["init"]);
    assert_eq!(env.run(["init", "--dry-run"]).code, 4);
    env.write("password", "second");
    let (_, added) = env.json(["key", "add", "--new-password-file", "password", "--dry-run"]);
    assert_eq!(added["report"]["dry_run"], true);
    let (keys, _) = env.json(["key", "list"]);
    assert_eq!(keys.len(), 1);
}
