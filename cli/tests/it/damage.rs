//! Damage: found, named, exit 5; everything else still comes back.

use std::fs;
use std::path::{Path, PathBuf};

use crate::env::{TestEnv, files_below};

fn largest_below(folder: &Path) -> PathBuf {
    let files = files_below(folder).into_iter();
    files.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

/// A repository, and its largest pack, which holds the content of `data/victim`.
fn ready() -> (TestEnv, PathBuf) {
    let env = TestEnv::new();
    env.ok(["init"]);
    env.write("data/other", "safe and sound");
    env.ok(["backup", "data"]);
    let random: Vec<u8> =
        (0..300_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    env.write("data/victim", random);
    env.ok(["backup", "data"]);
    let pack = largest_below(&env.path("repo/packs"));
    (env, pack)
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let mut permissions = fs::metadata(path).unwrap().permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "a file of a test")]
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn an_intact_repository_verifies() {
    let (env, _) = ready();
    for level in ["structure", "sample", "full"] {
        let (objects, result) = env.json(["verify", "--level", level]);
        assert_eq!(result["exit_code"], 0, "{result}");
        assert!(objects.iter().all(|object| object["type"] != "finding"));
    }
    assert!(env.ok(["verify", "--level", "full"]).contains("no damage found"));
    env.ok(["verify", "--level", "sample", "--sample-percent", "0.5"]);
}

#[test]
fn a_flipped_bit_is_found_and_the_rest_comes_back() {
    let (env, pack) = ready();
    flip(&pack);
    let (objects, result) = env.json(["verify", "--level", "full"]);
    assert_eq!(result["exit_code"], 5, "{result}");
    let finding = objects.iter().find(|object| object["type"] == "finding").unwrap();
    let name = pack.file_name().unwrap().to_str().unwrap();
    assert!(finding["object"].as_str().unwrap().contains(name), "{finding}");
    let run = env.run(["verify", "--level", "full"]);
    assert!(run.text().contains("/data/victim"), "{run:?}");

    let stopped = env.run(["restore", "latest", "--target", "stopped"]);
    assert_eq!(stopped.code, 5, "{stopped:?}");
    let source = format!("latest:{}", env.path("data").display());
    let (_, result) = env.json(["restore", &source, "--target", "out", "--keep-going"]);
    assert_eq!(result["exit_code"], 5, "{result}");
    assert_eq!(fs::read_to_string(env.path("out/other")).unwrap(), "safe and sound");
    let victim = format!("latest:{}", env.path("data/victim").display());
    assert_eq!(env.run(["dump", &victim]).code, 5);
}

#[test]
fn a_missing_pack_is_found_by_structure_alone() {
    let (env, pack) = ready();
    fs::remove_file(&pack).unwrap();
    let (_, result) = env.json(["verify"]);
    assert_eq!(result["exit_code"], 5, "{result}");
}

#[test]
fn a_lost_index_is_rebuilt_from_the_packs() {
    let (env, _) = ready();
    fs::remove_dir_all(env.path("repo/index")).unwrap();
    fs::create_dir(env.path("repo/index")).unwrap();
    fs::remove_dir_all(env.path("home/.cache")).unwrap();
    let (_, plan) = env.json(["repair", "index", "--dry-run"]);
    assert_eq!(plan["report"]["dry_run"], true);
    assert!(files_below(&env.path("repo/index")).is_empty());
    let text = env.ok(["repair", "index"]);
    assert!(text.starts_with("index: "), "{text}");
    env.ok(["restore", "latest", "--target", "out"]);
}

#[test]
fn with_parity_a_flipped_bit_is_read_around_and_repaired() {
    let env = TestEnv::new();
    for wrong in ["60%", "0", "8.25", "eight", "-1", "8 %"] {
        assert_eq!(env.run(["init", "--parity", wrong]).code, 2, "{wrong}");
    }
    let (_, result) = env.json(["init", "--parity", "12.5%"]);
    assert_eq!(result["report"]["parity_percent"], 12.5);
    let random: Vec<u8> =
        (0..300_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    env.write("data/victim", random);
    env.ok(["backup", "data"]);
    let (_, result) = env.json(["stats"]);
    assert_eq!(result["report"]["parity_percent"], 12.5);
    let parity = result["report"]["bytes_stored_parity"].as_u64().unwrap();
    let stored = result["report"]["bytes_stored_data"].as_u64().unwrap();
    assert!(stored / 20 < parity && parity < stored / 2, "{result}");
    assert!(env.ok(["stats"]).contains("of it parity"));

    let pack = largest_below(&env.path("repo/packs"));
    let sound = fs::read(&pack).unwrap();
    flip(&pack);
    let victim = format!("latest:{}", env.path("data/victim").display());
    let dumped = env.run(["dump", &victim]);
    assert_eq!(dumped.code, 0, "{dumped:?}");
    let (objects, result) = env.json(["restore", "latest", "--target", "out"]);
    assert_eq!(result["exit_code"], 0, "{result}");
    assert!(objects.iter().any(|object| object["code"] == "parity.used"), "{objects:?}");
    let (_, result) = env.json(["verify", "--level", "full"]);
    assert_eq!(result["exit_code"], 5, "{result}");
    assert_eq!(result["report"]["packs_healable"], 1);
    assert_eq!(result["report"]["affected"], 0);
    assert!(env.run(["verify", "--level", "full"]).stderr.contains("cairn repair"));
    let (_, result) = env.json(["repair", "--dry-run"]);
    assert_eq!(result["report"]["packs"], 1);
    let (_, result) = env.json(["repair"]);
    assert_eq!(result["report"]["packs_from_parity"], 1, "{result}");
    assert!(fs::read(&pack).unwrap() == sound);
    env.ok(["verify", "--level", "full"]);
}

#[test]
fn without_parity_and_another_copy_repair_says_what_it_needs() {
    let (env, _) = ready();
    let run = env.run(["repair"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("--from"), "{run:?}");
}

#[test]
fn shares_of_a_verification_say_which_they_are() {
    let (env, _) = ready();
    let reports = [1, 2].map(|number| {
        let (_, result) =
            env.json(["verify", "--level", "full", "--shard", &format!("{number}/2")]);
        assert_eq!(result["report"]["shard"], format!("{number}/2"));
        result["report"]["packs_checked"].as_u64().unwrap()
    });
    let (_, result) = env.json(["verify", "--level", "full"]);
    assert!(result["report"]["shard"].is_null());
    assert_eq!(result["report"]["packs_checked"], reports[0] + reports[1]);
    assert!(env.ok(["verify", "--shard", "2/2"]).starts_with("share 2/2: "));
    for wrong in ["0/2", "3/2", "2", "1/0"] {
        assert_eq!(env.run(["verify", "--shard", wrong]).code, 2, "{wrong}");
    }
}

#[test]
fn a_file_is_dumped_from_another_copy_where_this_one_is_damaged() {
    let (env, pack) = ready();
    env.ok(["replicate", "--to", "copy", "--create"]);
    flip(&pack);
    let file = format!("latest:{}", env.path("data/victim").display());
    assert_eq!(env.run(["dump", &file]).code, 5);
    let dumped = env.run(["dump", &file, "--fallback", "copy"]);
    assert_eq!(dumped.code, 0, "{}", dumped.stderr);
    assert!(dumped.stdout == fs::read(env.path("data/victim")).unwrap());
    assert!(dumped.stderr.contains("came from another copy"), "{}", dumped.stderr);
}

#[test]
fn a_restore_reads_another_copy_where_this_one_is_damaged_and_does_without_one_that_is_not_there() {
    let (env, pack) = ready();
    env.ok(["replicate", "--to", "copy", "--create"]);
    let source = format!("latest:{}", env.path("data").display());
    // All is well here: a fallback that is not there is no reason to fail.
    let restore = ["restore", &source, "--target", "without", "--fallback", "absent"];
    let run = env.run(restore);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("absent") && run.stderr.contains("left out"), "{run:?}");
    // One that is something else is a mistake.
    env.ok(["init", "--repo", "foreign"]);
    let restore = ["restore", &source, "--target", "never", "--fallback", "foreign"];
    assert_eq!(env.run(restore).code, 4);
    assert_eq!(
        env.run(["restore", &source, "--target", "never", "--fallback", "nonsense://place"]).code,
        2
    );
    assert!(!env.path("never").exists());
    flip(&pack);
    let restore =
        ["restore", &source, "--target", "out", "--fallback", "absent", "--fallback", "copy"];
    let (objects, result) = env.json(restore);
    assert_eq!(result["exit_code"], 0, "{result}");
    assert!(result["report"]["chunks_elsewhere"].as_u64().unwrap() > 0, "{result}");
    assert!(objects.iter().any(|object| object["code"] == "fallback.used"), "{objects:?}");
    assert!(
        fs::read(env.path("out/victim")).unwrap() == fs::read(env.path("data/victim")).unwrap()
    );
    // The record of the snapshot itself.
    let newest = files_below(&env.path("repo/snapshots")).into_iter().max().unwrap();
    fs::remove_file(&newest).unwrap();
    let restore = ["restore", &source, "--target", "again", "--fallback", "copy"];
    let (objects, result) = env.json(restore);
    assert_eq!(result["exit_code"], 0, "{result}");
    assert!(objects.iter().any(|object| object["code"] == "fallback.snapshot"), "{objects:?}");
    assert!(env.path("again/victim").exists());
    // To heal from a place that is not there is another matter.
    assert_eq!(env.run(["repair", "--from", "absent"]).code, 10);
}
