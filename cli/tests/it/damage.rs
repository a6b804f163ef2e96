//! Damage: found, named, exit 5; everything else still comes back.

use std::fs;
use std::path::{Path, PathBuf};

use crate::env::TestEnv;

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    files
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
    let pack = files_below(&env.path("repo/packs")).remove(0);
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
