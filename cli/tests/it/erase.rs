//! Erasures through the command.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use crate::env::{TestEnv, files_below};

fn noise(seed: u32) -> Vec<u8> {
    let number = |n: u32| (n ^ seed).wrapping_mul(2_654_435_761).to_le_bytes();
    (0..100_000_u32).flat_map(number).collect()
}

/// Two snapshots of a tree with somebody in it; returns the path to erase.
fn env() -> (TestEnv, String) {
    let env = TestEnv::new();
    env.ok(["init"]);
    env.write("source/kept", noise(1));
    env.write("source/home/alice b/letter", noise(2));
    env.write("source/home/alice b/copy of kept", noise(1));
    env.ok(["backup", "source", "--job", "people"]);
    env.write("source/diary", noise(3));
    env.ok(["backup", "source", "--job", "people", "--tag", "monthly"]);
    let path = env.path("source/home/alice b").into_os_string().into_string().unwrap();
    (env, path)
}

#[test]
fn a_person_is_erased_from_every_snapshot() {
    let (env, path) = env();
    let (events, plan) = env.json(["erase", "--path", &path, "--dry-run"]);
    let shown = events.iter().filter(|event| event["type"] == "entry").collect::<Vec<_>>();
    assert_eq!(shown.len(), 2);
    assert!(shown.iter().all(|entry| entry["path"] == path.as_str()), "{shown:?}");
    assert_eq!((&plan["report"]["remade"], &plan["report"]["files"]), (&2.into(), &4.into()));
    assert_eq!(env.json(["snapshots"]).0.len(), 2);
    env.ok(["ls", &format!("latest:{path}")]);

    let (events, done) = env.json(["erase", "--path", &path]);
    let report = &done["report"];
    assert_eq!((&report["remade"], &report["removed"]), (&2.into(), &0.into()), "{done}");
    assert!(report["packs_deleted"].as_u64().unwrap() > 0, "{done}");
    // For what was stored, and for the records of snapshots.
    assert_eq!(report["receipts"].as_array().unwrap().len(), 2);
    // What is elsewhere too stays, and is said to.
    assert!(report["chunks_kept"].as_u64().unwrap() > 0, "{done}");
    assert!(report["chunks"].as_u64() > report["chunks_kept"].as_u64(), "{done}");
    let erased = events.iter().filter(|event| event["type"] == "erased").collect::<Vec<_>>();
    assert_eq!(erased.len(), 2);
    for event in &erased {
        let short = &event["id"].as_str().unwrap()[..10];
        env.ok(["ls", short]);
        assert_ne!(event["becomes"], event["id"]);
    }
    let (listed, _) = env.json(["snapshots"]);
    assert_eq!(listed.last().unwrap()["tags"][0], "monthly");
    assert_eq!(env.run(["ls", &format!("latest:{path}")]).code, 1);
    env.ok(["verify", "--level", "full"]);
    env.ok(["restore", "latest", "--target", "target"]);

    let again = env.run(["erase", "--path", &path]);
    assert_eq!(again.code, 4, "{again:?}");
    assert!(again.stderr.contains("alice b"), "{again:?}");
}

#[test]
fn what_is_not_plainly_meant_is_refused() {
    let (env, path) = env();
    for (arguments, code) in [
        (&["erase"][..], 2),
        (&["erase", "--path", "home/alice b"], 4),
        (&["erase", "--path", "/"], 2),
        (&["erase", "--path", "/absent", "--path", &path], 4),
        (&["erase", "--job", "absent"], 1),
        (&["erase", "--snapshot", "latest", "latest~1"], 4),
        (&["erase", "--path", &path, "--job", "absent"], 1),
    ] {
        let ran = env.run(arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
    }
    assert_eq!(env.json(["snapshots"]).0.len(), 2);
    env.ok(["ls", &format!("latest:{path}")]);
}

#[test]
fn garbage_can_be_left_and_names_need_not_be_utf_8() {
    let (env, path) = env();
    let odd = env.path("source").join(OsStr::from_bytes(b"odd \xff\n name"));
    fs::write(&odd, noise(9)).unwrap();
    env.ok(["backup", "source", "--job", "people"]);
    let left = env.run([
        OsStr::new("erase"),
        OsStr::new("--no-gc"),
        OsStr::new("--path"),
        odd.as_os_str(),
        OsStr::new(&path),
    ]);
    assert_eq!(left.code, 0, "{left:?}");
    assert!(left.stderr.contains("gc --max-dead 0"), "{left:?}");
    let (_, plan) = env.json(["gc", "--dry-run", "--max-dead", "0"]);
    assert!(plan["report"]["bytes_freed"].as_u64().unwrap() > 400_000, "{plan}");
    env.ok(["gc", "--max-dead", "0", "--max-delete", "100"]);
    env.ok(["verify", "--level", "full"]);
    let (_, gone) = env.json(["erase", "--job", "people", "--max-delete", "100"]);
    assert_eq!(gone["report"]["removed"], 3);
}

#[test]
fn what_was_erased_is_reported() {
    let (env, path) = env();
    let repository = env.path("repo");
    let packs = files_below(&repository.join("packs")).into_iter();
    let packs = packs.map(|path| (fs::read(&path).unwrap(), path)).collect::<Vec<_>>();
    let (_, nothing) = env.json(["erasure", "report"]);
    assert_eq!((&nothing["report"]["receipts"], &nothing["exit_code"]), (&0.into(), &0.into()));
    env.ok(["erase", "--path", &path]);
    let (events, done) = env.json(["erasure", "report"]);
    let receipts = events.iter().filter(|event| event["type"] == "receipt").collect::<Vec<_>>();
    assert_eq!(receipts.len(), 2, "{events:?}");
    assert!(receipts.iter().all(|receipt| receipt["audits"][0]["result"] == "gone"));
    assert_eq!((&done["report"]["pending"], &done["exit_code"]), (&0.into(), &0.into()), "{done}");
    let shown = env.ok(["erasure", "report"]);
    assert!(shown.contains("confirmed twice") && shown.contains("owner"), "{shown}");

    // A pack comes back.
    let (bytes, back) = packs.iter().find(|(_, path)| !path.exists()).unwrap();
    fs::create_dir_all(back.parent().unwrap()).unwrap();
    fs::write(back, bytes).unwrap();
    let overdue = env.run(["erasure", "report"]);
    assert_eq!(overdue.code, 6, "{overdue:?}");
    assert!(overdue.text().contains("OVERDUE reappeared: 1"), "{overdue:?}");
    let (_, audited) = env.json(["erasure", "report", "--audit"]);
    assert_eq!(audited["report"]["reappeared"], 1, "{audited}");
    assert_eq!(audited["exit_code"], 0, "{audited}");
    assert!(!back.exists());

    // A receipt is taken away.
    let receipts = files_below(&repository.join("receipts"));
    fs::remove_file(&receipts[1]).unwrap();
    let gap = env.run(["erasure", "report", "--receipts-only"]);
    assert_eq!(gap.code, 5, "{gap:?}");
    assert!(gap.text().contains("gap"), "{gap:?}");
}
