//! Local caches, and standard output that nobody reads.

use std::fs;
use std::process::Stdio;

use crate::env::TestEnv;

const REPOSITORY: &str = "00112233445566778899aabbccddeeff";

#[test]
fn caches_are_shown_and_cleared_and_nothing_else_is() {
    let env = TestEnv::bare();
    assert_eq!(env.ok(["cache", "show"]), "");
    env.write(&format!("home/.cache/cairn/{REPOSITORY}/index/a"), vec![0; 2048]);
    env.write("home/.cache/cairn/notes.txt", "mine");
    env.write("home/.cache/cairn/photos/a", "mine too");
    let shown = env.ok(["cache", "show"]);
    assert!(shown.contains(REPOSITORY) && shown.contains("2.0 KiB"), "{shown}");
    let (objects, result) = env.json(["cache", "clear", "--dry-run"]);
    assert_eq!(objects[0]["bytes"], 2048);
    assert_eq!(result["report"]["deleted"], false);
    assert_eq!(env.run(["cache", "clear", "ffff"]).code, 2);
    env.ok(["cache", "clear", "0011"]);
    let mut left: Vec<_> = fs::read_dir(env.path("home/.cache/cairn"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["notes.txt", "photos"]);
}

#[test]
fn a_reader_that_goes_away_ends_the_output_quietly() {
    let env = TestEnv::bare();
    let mut child = env.command(["completions", "bash"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_full_disk_behind_standard_output_is_a_failure() {
    let env = TestEnv::bare();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = env.command(["completions", "bash"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("error: cannot write to standard output"), "{stderr}");
}
