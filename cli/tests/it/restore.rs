//! `restore`: where things land, what is refused.

use std::fs;
use std::path::Path;

use crate::env::TestEnv;

fn ready() -> TestEnv {
    let env = TestEnv::new();
    env.ok(["init"]);
    env.write("data/a.txt", "alpha");
    env.write("data/sub/b.txt", "beta");
    env.ok(["backup", "data"]);
    env
}

fn below(target: &Path, path: &Path) -> std::path::PathBuf {
    target.join(path.strip_prefix("/").unwrap())
}

#[test]
fn a_snapshot_brings_its_full_paths() {
    let env = ready();
    let text = env.ok(["restore", "latest", "--target", "out"]);
    assert!(text.starts_with("restored "), "{text}");
    let file = below(&env.path("out"), &env.path("data/sub/b.txt"));
    assert_eq!(fs::read_to_string(file).unwrap(), "beta");
}

#[test]
fn a_directory_brings_its_content() {
    let env = ready();
    let source = format!("latest:{}", env.path("data").display());
    let (_, result) = env.json(["restore", &source, "--target", "out"]);
    assert_eq!(result["exit_code"], 0, "{result}");
    assert_eq!(result["report"]["files"], 2);
    assert_eq!(result["report"]["bytes_written"], 9);
    assert_eq!(fs::read_to_string(env.path("out/a.txt")).unwrap(), "alpha");
    assert_eq!(fs::read_to_string(env.path("out/sub/b.txt")).unwrap(), "beta");
}

#[test]
fn a_target_that_is_not_empty_is_refused() {
    let env = ready();
    env.write("out/precious", "mine");
    let run = env.run(["restore", "latest", "--target", "out"]);
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.stderr.contains("out"), "{run:?}");
    assert_eq!(fs::read_dir(env.path("out")).unwrap().count(), 1);
    env.ok(["restore", "latest", "--target", "out", "--overwrite"]);
    assert_eq!(fs::read_to_string(env.path("out/precious")).unwrap(), "mine");
}

#[test]
fn a_delta_writes_only_what_differs() {
    let env = ready();
    let source = format!("latest:{}", env.path("data").display());
    env.ok(["restore", &source, "--target", "out"]);
    fs::write(env.path("out/a.txt"), "ALPHA").unwrap();
    let (_, result) = env.json(["restore", &source, "--target", "out", "--delta"]);
    assert_eq!(result["exit_code"], 0, "{result}");
    assert!(result["report"]["bytes_written"].as_u64().unwrap() < 9, "{result}");
    assert_eq!(fs::read_to_string(env.path("out/a.txt")).unwrap(), "alpha");
}

#[test]
fn a_dry_run_writes_nothing() {
    let env = ready();
    let (_, result) = env.json(["restore", "latest", "--target", "out", "--dry-run"]);
    assert_eq!(result["report"]["dry_run"], true);
    assert_eq!(result["report"]["files"], 2);
    assert!(!env.path("out").exists());
}

#[test]
fn a_path_that_is_not_there_is_named() {
    let env = ready();
    let run = env.run(["restore", "latest:/nowhere", "--target", "out"]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("/nowhere"), "{run:?}");
}
