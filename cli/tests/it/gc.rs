//! Collections through the command.

use std::fs;

use crate::env::TestEnv;

fn packs(env: &TestEnv) -> u64 {
    env.json(["stats"]).1["report"]["bytes_stored_data"].as_u64().unwrap()
}

#[test]
fn gc_deletes_what_no_snapshot_needs_and_says_so() {
    let env = TestEnv::new();
    env.ok(["init"]);
    let noise: Vec<u8> =
        (0..400_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    env.write("source/kept", &noise[..300_000]);
    env.write("source/gone", &noise[300_000..]);
    let (_, first) = env.json(["backup", "source"]);
    fs::remove_file(env.path("source/gone")).unwrap();
    env.ok(["backup", "source"]);
    let before = packs(&env);
    let (_, nothing) = env.json(["gc"]);
    assert_eq!(nothing["report"]["packs_deleted"], 0);
    env.ok(["forget", first["report"]["snapshot"].as_str().unwrap()]);

    let (_, plan) = env.json(["gc", "--dry-run", "--max-delete", "100"]);
    assert_eq!(plan["report"]["dry_run"], true);
    assert!(plan["report"]["bytes_freed"].as_u64().unwrap() > 200_000, "{plan}");
    assert_eq!(packs(&env), before);
    let refused = env.run(["gc"]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("--max-delete"), "{refused:?}");
    assert_eq!(packs(&env), before);

    let (_, done) = env.json(["gc", "--max-delete", "100"]);
    let report = &done["report"];
    assert!(report["packs_deleted"].as_u64().unwrap() > 0, "{done}");
    assert_eq!(report["receipts"].as_array().unwrap().len(), 1);
    assert!(packs(&env) < before / 2);
    env.ok(["verify", "--level", "full"]);
    env.ok(["restore", "latest", "--target", "target"]);
    assert!(env.ok(["gc"]).is_empty() || env.run(["gc"]).code == 0);
}

#[test]
fn gc_of_a_repository_without_snapshots_is_refused() {
    let env = TestEnv::new();
    env.ok(["init"]);
    env.write("source/file", "content");
    let (_, first) = env.json(["backup", "source"]);
    env.ok(["forget", "--remove-last", first["report"]["snapshot"].as_str().unwrap()]);
    let refused = env.run(["gc"]);
    assert_eq!(refused.code, 4, "{refused:?}");
    let (_, emptied) = env.json(["gc", "--max-delete", "100"]);
    assert_eq!(emptied["report"]["snapshots"], 0);
    assert_eq!(packs(&env), 0);
}

#[test]
fn keys_that_may_not_collect_are_told() {
    let env = TestEnv::new();
    env.ok(["init"]);
    env.write("source/file", "content");
    env.ok(["backup", "source"]);
    env.write("reader.key", "the reader's key, long enough to be one");
    env.ok(["key", "add", "--role", "reader", "--new-key-file", "reader.key"]);
    let run = env.run(["gc", "--key-file", "reader.key"]);
    assert_eq!(run.code, 12, "{run:?}");
    assert!(run.stderr.contains("collect garbage"), "{run:?}");
}
