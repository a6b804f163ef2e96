//! Wrong usage: exit code 2, the reason on standard error, and with `--json` also an object.

use crate::env::{Run, TestEnv};

fn assert_usage(run: &Run, reason: &str) {
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.starts_with("error: "), "{run:?}");
    assert!(run.stderr.contains(reason), "{reason} is missing: {run:?}");
}

#[test]
fn conflicts_and_gaps_are_refused() {
    let env = TestEnv::new();
    for (arguments, reason) in [
        (vec!["backup"], "there is nothing to back up"),
        (vec!["backup", "--stdin"], "--stdin-name"),
        (vec!["backup", "--stdin", "--stdin-name", "a", "--command"], "cannot be used with"),
        (vec!["backup", "--command"], "--command names no command"),
        (vec!["backup", "--", "pg_dump"], "--command"),
        (vec!["backup", "--files-from", "missing"], "cannot read the list of paths missing"),
        (
            vec!["backup", "--stdin", "--stdin-name", "a", "--files-from", "-"],
            "standard input is asked for twice",
        ),
        (vec!["backup", ".", "--compression-level", "99"], "99 is not in 1..=19"),
        (vec!["backup", ".", "--exclude-larger-than", "12parsec"], "no known unit"),
        (vec!["restore", "latest"], "--target"),
        (vec!["verify", "--level", "sample", "--sample-percent", "0"], "0 is not above 0"),
        (vec!["find"], "<PATTERN>"),
        (vec!["stats", "-q", "-v"], "cannot be used with"),
        (vec!["key", "add", "--new-key-file", "a", "--recipient", "b"], "cannot be used with"),
        (vec!["stats", "--password-file", "a", "--key-file", "b"], "both name a key"),
        (vec!["stats", "--index-memory", "1KiB"], "too small"),
        (vec!["snapshots", "--wat"], "--wat"),
        (vec!["wat"], "wat"),
    ] {
        let run = env.run(&arguments);
        assert_usage(&run, reason);
        assert!(run.stdout.is_empty(), "{run:?}");
    }
}

#[test]
fn an_empty_list_of_paths_is_nothing_to_back_up() {
    let env = TestEnv::new();
    let run = env.run_with_input(["backup", "--files-from", "-"], b"\n\n");
    assert_usage(&run, "there is nothing to back up");
}

#[test]
fn wrong_usage_is_an_object_too() {
    let env = TestEnv::new();
    for arguments in [vec!["--wat"], vec!["wat"], vec!["backup"], vec!["dump", "latest:/a"]] {
        let (objects, result) = env.json(&arguments);
        assert!(objects.is_empty());
        assert_eq!(result["exit_code"], 2);
        assert!(result["code"].as_str().unwrap().starts_with("usage."), "{result}");
        assert!(!result["message"].as_str().unwrap().is_empty());
    }
    // After `--` it belongs to the command that is backed up.
    let run = env.run(["backup", "--wat", "--command", "--", "tool", "--json"]);
    assert_usage(&run, "--wat");
    assert!(run.stdout.is_empty());
}

#[test]
fn a_repository_must_be_named() {
    let mut env = TestEnv::new();
    env.unset("CAIRN_REPO");
    let run = env.run(["snapshots"]);
    assert_usage(&run, "no repository is named");
    assert!(run.stderr.contains("  hint: name it with --repo or CAIRN_REPO"));
}

#[test]
fn colour_is_asked_for_or_absent() {
    let mut env = TestEnv::new();
    env.unset("CAIRN_REPO");
    assert!(!env.run(["snapshots"]).stderr.contains('\x1b'));
    assert!(env.run(["snapshots", "--color", "always"]).stderr.contains("\x1b[1;31merror:"));
    assert!(!env.run(["snapshots", "--color", "never"]).stderr.contains('\x1b'));
}
