//! Replicas through the command: by place and by name, places that are not what they were, and copies
//! that are made together with a backup.

use std::fs;

use serde_json::Value;

use crate::env::{TestEnv, files_below};

fn with_snapshot() -> TestEnv {
    let env = TestEnv::new();
    env.ok(["init"]);
    env.write("source/file", "content");
    env.ok(["backup", "source"]);
    env
}

/// The objects of one type.
fn of_type<'o>(objects: &'o [Value], kind: &str) -> Vec<&'o Value> {
    objects.iter().filter(|object| object["type"] == kind).collect()
}

#[test]
fn a_replica_restores_where_home_is_gone() {
    let mut env = with_snapshot();
    let (objects, planned) = env.json(["replicate", "--to", "copy", "--create", "--dry-run"]);
    assert_eq!(of_type(&objects, "replica")[0]["copied"].as_array().unwrap().len(), 1);
    assert_eq!(planned["report"]["dry_run"], true);
    assert!(!env.path("copy").exists());
    let (objects, _) = env.json(["replicate", "--to", "copy", "--create"]);
    let replica = of_type(&objects, "replica")[0];
    assert_eq!((&replica["created"], &replica["wanted"]), (&true.into(), &1.into()));
    assert!(replica["packs_moved"].as_u64().unwrap() > 0 && replica["packs_written"] == 0);
    let text = env.ok(["replicate", "--to", "copy"]);
    assert!(text.starts_with("copy: 0 snapshots copied"), "{text}");
    fs::remove_dir_all(env.path("repo")).unwrap();
    fs::remove_dir_all(env.path("home/.cache")).unwrap();
    env.set("CAIRN_REPO", "copy");
    env.ok(["verify", "--level", "full"]);
    env.ok(["restore", "latest", "--target", "target"]);
    let source = env.path("source/file");
    let restored = env.path("target").join(source.strip_prefix("/").unwrap());
    assert_eq!(fs::read(restored).unwrap(), b"content");
    env.ok(["backup", "source"]);
}

#[test]
fn named_replicas_have_rules_and_a_state() {
    let env = with_snapshot();
    let config = format!(
        "[[replica]]\nname = \"all\"\nurl = \"{}\"\n[[replica]]\nname = \"last\"\nurl = \"{}\"\n\
         keep-last = 1\n[[replica]]\nname = \"other\"\nurl = \"/x\"\nrepo = \"/elsewhere\"\n",
        env.path("all").display(),
        env.path("last").display()
    );
    env.write("home/.config/cairn/config.toml", config);
    let (states, _) = env.json(["replicate", "--status"]);
    assert_eq!(of_type(&states, "replica_state").len(), 2);
    assert!(states.iter().all(|state| state["known"] == false));
    env.write("source/file", "changed");
    env.ok(["backup", "source"]);
    let (objects, _) = env.json(["replicate", "--create"]);
    let wanted =
        of_type(&objects, "replica").iter().map(|one| one["wanted"].clone()).collect::<Vec<_>>();
    assert_eq!(wanted, [2, 1]);
    env.write("source/file", "changed again");
    env.ok(["backup", "source"]);
    env.ok(["replicate", "last", "--quiet"]);
    let (states, _) = env.json(["replicate", "--status"]);
    assert!(states[0]["behind_s"].is_u64() && states[1]["behind_s"] == 0, "{states:?}");
    assert_eq!((&states[0]["snapshots"], &states[1]["snapshots"]), (&2.into(), &1.into()));
    assert!(env.ok(["replicate", "--status"]).contains("LAST SUCCESS"));
    let unknown = env.run(["replicate", "nobody"]);
    assert_eq!(unknown.code, 2, "{unknown:?}");
    env.write("home/.config/cairn/config.toml", "[[replica]]\nname = 1\n");
    let broken = env.run(["replicate"]);
    assert_eq!(broken.code, 2, "{broken:?}");
    assert!(broken.stderr.contains("config.toml"), "{broken:?}");
}

#[test]
fn one_replica_that_fails_holds_up_no_other() {
    let env = with_snapshot();
    env.write("blocked", "a file where a folder should be");
    let arguments =
        ["--json", "replicate", "--create", "--to", "one", "--to", "blocked", "--to", "two"];
    let run = env.run(arguments);
    let (objects, result) = run.objects();
    let done =
        of_type(&objects, "replica").iter().map(|one| one["done"].clone()).collect::<Vec<_>>();
    assert_eq!(done, [true, false, true]);
    assert_ne!(run.code, 0);
    assert_eq!(result["report"]["failed"].as_array().unwrap().len(), 1);
    assert!(run.stderr.contains("error: blocked:"), "{run:?}");
}

#[test]
fn a_place_that_is_not_what_it_was_is_refused() {
    let mut env = with_snapshot();
    env.ok(["replicate", "--to", "copy", "--create"]);
    // As if the disk were not mounted.
    fs::rename(env.path("copy"), env.path("away")).unwrap();
    fs::create_dir(env.path("copy")).unwrap();
    for create in [None, Some("--create")] {
        let refused = env.run(["replicate", "--to", "copy"].into_iter().chain(create));
        assert_eq!(refused.code, 10, "{refused:?}");
        assert!(refused.stderr.contains("mounted"), "{refused:?}");
    }
    assert!(fs::read_dir(env.path("copy")).unwrap().next().is_none());
    let refused = env.run(["init", "--repo", "copy"]);
    assert_eq!(refused.code, 10, "{refused:?}");
    let refused = env.run(["snapshots", "--repo", "copy"]);
    assert_eq!(refused.code, 10, "{refused:?}");
    assert!(refused.stderr.contains("held repository"), "{refused:?}");
    // Another copy of the same repository, and another repository.
    env.ok(["replicate", "--to", "second", "--create"]);
    fs::remove_dir(env.path("copy")).unwrap();
    fs::rename(env.path("second"), env.path("copy")).unwrap();
    let refused = env.run(["snapshots", "--repo", "copy"]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert_eq!(env.run(["replicate", "--to", "copy"]).code, 4);
    env.ok(["cache", "forget-place", "--repo", "copy"]);
    env.ok(["snapshots", "--repo", "copy"]);
    env.ok(["replicate", "--to", "copy"]);
    env.ok(["init", "--repo", "foreign"]);
    assert_eq!(env.run(["replicate", "--to", "foreign"]).code, 4);
    env.set("CAIRN_REPO", env.path("away"));
    env.ok(["verify", "--level", "full"]);
}

#[test]
fn a_backup_copies_its_snapshot_at_once_and_is_done_without() {
    let env = with_snapshot();
    // A backup makes no new replica.
    let run = env.run(["backup", "source", "--also", "one"]);
    assert_eq!(run.code, 10, "{run:?}");
    assert!(run.stderr.contains("--create") && !env.path("one").exists(), "{run:?}");
    env.ok(["replicate", "--create", "--to", "one", "--to", "two"]);
    env.write("source/file", "left out");
    env.ok(["backup", "source"]);
    env.write("source/file", "more");
    let (objects, result) = env.json(["backup", "source", "--also", "one", "--also", "two"]);
    let id = result["report"]["snapshot"].clone();
    for replica in of_type(&objects, "replica") {
        assert_eq!(replica["copied"], Value::from(vec![id.clone()]));
    }
    let (listed, _) = env.json(["snapshots", "--repo", "two"]);
    assert_eq!(of_type(&listed, "snapshot").len(), 3);
    env.ok(["verify", "--repo", "one", "--level", "full"]);
    env.write("blocked", "a file where a folder should be");
    env.write("source/file", "even more");
    let run = env.run(["--json", "backup", "source", "--also", "blocked", "--also", "one"]);
    let (objects, result) = run.objects();
    assert_ne!(run.code, 0);
    assert!(result["report"]["snapshot"].is_string());
    assert_eq!(of_type(&objects, "replica")[1]["done"], true);
    // What was left out comes with the next replication.
    let (objects, _) = env.json(["replicate", "--to", "one"]);
    assert_eq!(of_type(&objects, "replica")[0]["copied"].as_array().unwrap().len(), 1);
}

#[test]
fn what_home_lost_is_kept_on_a_replica_and_told() {
    let env = with_snapshot();
    for content in ["second", "third"] {
        env.write("source/file", content);
        env.ok(["backup", "source"]);
    }
    env.ok(["replicate", "--create", "--to", "copy"]);
    let (listed, _) = env.json(["snapshots"]);
    let id = of_type(&listed, "snapshot")[1]["id"].as_str().unwrap().to_owned();
    for folder in ["repo/snapshots", "repo/acks"] {
        for file in files_below(&env.path(folder)) {
            if file.to_string_lossy().contains(&id) {
                fs::remove_file(file).unwrap();
            }
        }
    }
    for _ in 0..2 {
        let run = env.run(["--json", "replicate", "--to", "copy"]);
        assert_eq!(run.code, 5, "{run:?}");
        assert!(run.stderr.contains("--forget-missing"), "{run:?}");
        let (objects, result) = run.objects();
        let replica = of_type(&objects, "replica")[0];
        assert_eq!(replica["spared"], Value::from(vec![id.clone()]));
        assert_eq!((&replica["forgotten"], &result["report"]["spared"]), (&0.into(), &1.into()));
    }
    let state = env.run(["replicate", "--status", "--to", "copy"]);
    assert_eq!(state.code, 1, "{state:?}");
    let (listed, _) = env.json(["snapshots", "--repo", "copy"]);
    assert_eq!(of_type(&listed, "snapshot").len(), 3);
    let (objects, _) = env.json(["replicate", "--to", "copy", "--forget-missing"]);
    assert_eq!(of_type(&objects, "replica")[0]["forgotten"], 1);
    env.ok(["replicate", "--status", "--to", "copy"]);
}

#[test]
fn what_expired_for_too_long_is_told() {
    let env = with_snapshot();
    let replicate = ["replicate", "--to", "copy", "--keep-last", "1"];
    env.ok(replicate.into_iter().chain(["--create"]));
    env.write("source/file", "changed");
    env.ok(["backup", "source"]);
    env.ok(replicate);
    let status = ["replicate", "--json", "--status", "--to", "copy"];
    let state = |code: i32| {
        let run = env.run(status);
        assert_eq!(run.code, code, "{run:?}");
        of_type(&run.objects().0, "replica_state")[0].clone()
    };
    let young = state(0);
    assert_eq!((young["dead_since"].is_string(), &young["overdue"]), (true, &false.into()));
    // Four days go by, as far as is remembered.
    let mut found = 0;
    for file in files_below(&env.path("home/.cache/cairn/places")) {
        let Ok(mut place) = serde_json::from_slice::<Value>(&fs::read(&file).unwrap()) else {
            continue;
        };
        if let Some(since_ms) = place["replication"]["dead_since_ms"].as_i64() {
            place["replication"]["dead_since_ms"] = (since_ms - 4 * 24 * 3_600_000).into();
            fs::write(&file, place.to_string()).unwrap();
            found += 1;
        }
    }
    assert_eq!(found, 1);
    assert_eq!(state(6)["overdue"], true);
    assert!(env.run(["replicate", "--status", "--to", "copy"]).text().contains("OVERDUE"));
}

#[test]
fn a_new_replica_is_made_only_when_it_is_asked_for() {
    let env = with_snapshot();
    for dry_run in [None, Some("--dry-run")] {
        let run = env.run(["replicate", "--to", "copy"].into_iter().chain(dry_run));
        assert_eq!(run.code, 10, "{run:?}");
        assert!(run.stderr.contains("no replica at copy"), "{run:?}");
        assert!(run.stderr.contains("--create"), "{run:?}");
        assert!(!env.path("copy").exists());
    }
    // An empty folder is where a disk would be mounted.
    fs::create_dir(env.path("disk")).unwrap();
    assert_eq!(env.run(["replicate", "--to", "disk"]).code, 10);
    assert!(fs::read_dir(env.path("disk")).unwrap().next().is_none());
    // Asked for, but not where it is said to be.
    for dry_run in [None, Some("--dry-run")] {
        let arguments = ["replicate", "--create", "--to", "absent/copy"];
        let run = env.run(arguments.into_iter().chain(dry_run));
        assert_eq!(run.code, 10, "{run:?}");
        assert!(run.stderr.contains("the folder above it does not exist"), "{run:?}");
        assert!(!env.path("absent").exists());
    }
    env.ok(["replicate", "--create", "--to", "disk"]);
    // Where there is one it means nothing.
    env.ok(["replicate", "--create", "--to", "disk"]);
    env.ok(["replicate", "--to", "disk"]);
}

#[test]
fn a_writers_key_cannot_replicate() {
    let mut env = with_snapshot();
    let key = env.write("home/writer", "fedcba9876543210fedcba9876543210");
    let key = key.to_str().unwrap();
    env.ok(["key", "add", "--role", "writer", "--new-key-file", key]);
    env.set("CAIRN_KEY_FILE", key);
    assert_eq!(env.run(["replicate", "--to", "copy"]).code, 12);
    let refused = env.run(["backup", "source", "--also", "copy"]);
    assert_eq!(refused.code, 12, "{refused:?}");
    assert!(!env.path("copy").exists());
}

#[test]
fn a_share_that_brought_its_part_is_done_and_says_what_waits_for_others() {
    let env = with_snapshot();
    for content in ["second", "third"] {
        env.write("source/file", content);
        env.ok(["backup", "source"]);
    }
    // Of six packs at least one falls to another of so many shares.
    let share = |part: &str| {
        let run = env.run(["replicate", "--to", "copy", "--create", "--shard", part, "--json"]);
        assert_eq!(run.code, 0, "{run:?}");
        assert!(run.stderr.contains("when the other shares have brought the rest"), "{run:?}");
        run.objects().1["report"]["waiting"].as_u64().unwrap()
    };
    assert!(share("1/64") > 0);
    let (_, whole) = env.json(["replicate", "--to", "copy"]);
    assert_eq!(whole["report"]["waiting"], 0);
}
