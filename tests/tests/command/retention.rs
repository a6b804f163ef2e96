//! Goal: `cairn forget` says what it keeps and why, does what it says, refuses what it must with
//! the documented codes, and a dry run or a simulation touches nothing.
//! Method: the real program over a repository of a few snapshots.

use std::path::PathBuf;

use cairn_tests::process::{Cairn, Ran, files_below};

/// A repository with so many snapshots of the job `crm`, the first tagged `pin`.
fn with_snapshots(count: usize) -> Cairn {
    let cairn = Cairn::with_repository();
    std::fs::write(cairn.path("file"), "content").expect("a file");
    for number in 0..count {
        let mut arguments = vec!["backup", "file", "--job", "crm"];
        if number == 0 {
            arguments.extend(["--tag", "pin"]);
        }
        cairn.run(arguments).expect(0);
    }
    cairn
}

fn objects(cairn: &Cairn) -> Vec<PathBuf> {
    files_below(&cairn.path("repository"))
}

fn ids(cairn: &Cairn) -> Vec<String> {
    let listed = cairn.run(["snapshots", "--json"]).expect(0).json("snapshot");
    listed.iter().map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
}

fn code(ran: &Ran) -> String {
    let results = ran.json("result");
    results[0]["code"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn rules_keep_and_say_why() {
    let cairn = with_snapshots(5);
    let all = ids(&cairn);
    let before = objects(&cairn);
    let planned = cairn.run(["forget", "--keep-last", "2", "--dry-run", "--json"]).expect(0);
    assert_eq!(objects(&cairn), before, "a dry run changes nothing");
    let verdicts = planned.json("retention");
    assert_eq!(verdicts.len(), 5);
    for (verdict, id) in verdicts.iter().zip(&all) {
        assert_eq!(verdict["id"], id.as_str(), "oldest first");
    }
    assert_eq!(verdicts[0]["reasons"][0]["code"], "pin");
    assert_eq!(verdicts[1]["keep"], false);
    assert_eq!(verdicts[1]["reasons"][0]["code"], "beyond");
    assert_eq!(verdicts[4]["reasons"][0]["code"], "keep-last");
    assert_eq!(verdicts[4]["reasons"][0]["nth"], 1);
    let report = &planned.json("result")[0]["report"];
    assert_eq!((&report["kept"], &report["removed"]), (&3.into(), &2.into()));
    assert_eq!(report["dry_run"], true);

    let shown = cairn.run(["forget", "--keep-last", "2", "--job", "crm"]).expect(0);
    assert!(shown.stdout.contains("job crm"), "{shown:#?}");
    assert!(shown.stdout.contains("tag pin") && shown.stdout.contains("keep-last 2/2"));
    assert!(shown.stdout.contains("forgot 2 snapshots, kept 3"), "{shown:#?}");
    assert_eq!(ids(&cairn), [&all[0], &all[3], &all[4]].map(Clone::clone));
    cairn.run(["verify", "--level", "full"]).expect(0);
    cairn.run(["forget", "--keep-last", "2"]).expect(0);
    assert_eq!(ids(&cairn).len(), 3);
}

#[test]
fn what_is_no_request_is_refused() {
    let cairn = with_snapshots(2);
    let before = objects(&cairn);
    for (arguments, expected) in [
        (vec!["forget", "--keep-last", "0"], 2),
        (vec!["forget", "--keep-within", "30m"], 2),
        (vec!["forget", "--keep-within", ""], 2),
        (vec!["forget", "--keep-daily", "1", "--time-zone", "Nowhere/Land"], 2),
        (vec!["forget", "latest", "--keep-last", "1"], 2),
        (vec!["forget", "latest", "--job", "crm"], 2),
        (vec!["forget", "--simulate"], 2),
        (vec!["forget", "--keep-last", "1", "--simulate-every", "1h"], 2),
        (vec!["forget", "--keep-last", "1", "--job", "nobody"], 1),
        (vec!["forget", "ffffffffffff"], 1),
        (vec!["forget", "x"], 2),
        (vec!["forget", "latest", "latest~1"], 4),
    ] {
        let ran = cairn.run(&arguments).expect(expected);
        assert!(ran.stderr.starts_with("error: "), "{arguments:?}: {ran:#?}");
        assert_eq!(objects(&cairn), before, "{arguments:?}");
    }
    let last = cairn.run(["forget", "latest", "latest~1", "--json"]).expect(4);
    assert_eq!(code(&last), "snapshot.last");
}

#[test]
fn without_a_rule_everything_is_kept() {
    let cairn = with_snapshots(2);
    let before = objects(&cairn);
    let ran = cairn.run(["forget"]).expect(0);
    assert!(ran.stdout.contains("kept 2 snapshots, and forgot none"), "{ran:#?}");
    assert!(ran.stderr.contains("--keep-within 30d"), "it says what rules there are: {ran:#?}");
    for arguments in [vec!["forget", "--json"], vec!["forget", "--job", "crm", "--json"]] {
        let report = &cairn.run(arguments).expect(0).json("result")[0]["report"];
        assert_eq!((&report["kept"], &report["removed"]), (&2.into(), &0.into()));
    }
    assert_eq!(objects(&cairn), before);
}

#[test]
fn it_says_how_much_comes_free_and_when() {
    let cairn = with_snapshots(1);
    for name in ["one", "two", "three"] {
        std::fs::write(cairn.path("own"), name.repeat(200_000)).expect("a file");
        cairn.run(["backup", "own", "--job", "other"]).expect(0);
    }
    let arguments = ["forget", "--keep-last", "1", "--job", "other", "--dry-run"];
    let report =
        cairn.run(arguments.iter().chain(&["--json"])).expect(0).json("result")[0]["report"]
            .clone();
    let bytes = report["bytes_freed"].as_u64().expect("bytes");
    assert!((50..600_000).contains(&bytes), "what two files take, compressed: {bytes}");
    let gone_by = report["gone_by"].as_str().expect("a time").to_owned();
    let shown = cairn.run(arguments).expect(0);
    assert!(shown.stderr.contains("come free with `cairn gc`: by 20"), "{shown:#?}");
    let later = cairn.run(arguments.iter().chain(&["--erase-within", "30d", "--json"])).expect(0);
    let later = &later.json("result")[0]["report"]["gone_by"];
    assert!(later.as_str().is_some_and(|later| *later > *gone_by), "{later} after {gone_by}");
    let never = cairn.run(arguments.iter().chain(&["--erase-within", "never", "--json"])).expect(0);
    assert!(never.json("result")[0]["report"]["gone_by"].is_null());
}

#[test]
fn snapshots_are_forgotten_by_name() {
    let cairn = with_snapshots(3);
    let all = ids(&cairn);
    let ran = cairn.run(["forget", "latest~1", "--json"]).expect(0);
    let verdicts = ran.json("retention");
    assert_eq!(verdicts.len(), 1);
    assert_eq!(verdicts[0]["id"], all[1].as_str());
    assert_eq!(verdicts[0]["reasons"][0]["code"], "named");
    assert_eq!(ids(&cairn), [all[0].clone(), all[2].clone()]);
    cairn.run(["forget", &all[0], &all[2], "--remove-last"]).expect(0);
    assert!(ids(&cairn).is_empty());
    cairn.run(["forget", "--keep-last", "1"]).expect(0);
    cairn.run(["verify"]).expect(0);
}

#[test]
fn keys_that_may_not_delete_are_refused() {
    let cairn = with_snapshots(2);
    for role in ["writer", "reader", "maintainer"] {
        let file = cairn.path(role);
        std::fs::write(&file, role.repeat(8)).expect("a key file");
        let file = file.to_str().expect("UTF-8").to_owned();
        cairn.run(["key", "add", "--role", role, "--new-key-file", &file]).expect(0);
        let mut command = cairn.cairn(["forget", "--keep-last", "1", "--key-file", &file]);
        command.env_remove("CAIRN_PASSWORD");
        let ran = Ran::from(command.output().expect("it starts"));
        ran.expect(if role == "maintainer" { 0 } else { 12 });
    }
    assert_eq!(ids(&cairn).len(), 2, "one pinned, one the newest");
}

#[test]
fn a_simulation_needs_no_repository() {
    let cairn = Cairn::new();
    let arguments =
        ["forget", "--simulate", "--keep-within", "30d", "--keep-within-monthly", "12mo"];
    let ran = cairn.run(arguments.iter().chain(&["--json"])).expect(0);
    let kept = ran.json("simulated");
    let report = &ran.json("result")[0]["report"];
    assert_eq!(report["kept"], kept.len());
    assert_eq!(report["simulated"], true);
    // Thirty days of hours with both ends, and the newest of eleven or twelve months before.
    assert!((30 * 24 + 12..=30 * 24 + 13).contains(&kept.len()), "{}", kept.len());
    assert!(report["backups"].as_u64().is_some_and(|backups| backups > 395 * 24));
    let ran = cairn.run(arguments).expect(0);
    assert!(ran.stdout.contains("every 1h for 13mo"), "{ran:#?}");
    assert!(!cairn.path("repository").exists());
    let daily = ["forget", "--simulate", "--keep-daily", "7", "--simulate-every", "1d"];
    let ran = cairn.run(daily.iter().chain(&["--simulate-for", "1y", "--json"])).expect(0);
    assert_eq!(ran.json("simulated").len(), 7);
}

#[test]
fn a_listing_that_lost_its_snapshots_is_refused() {
    let cairn = with_snapshots(2);
    let folder = cairn.path("repository/snapshots");
    std::fs::rename(&folder, cairn.path("aside")).expect("gone");
    std::fs::create_dir(&folder).expect("empty");
    let ran = cairn.run(["forget", "--keep-last", "1", "--json"]).expect(4);
    assert_eq!(code(&ran), "store.listing");
    std::fs::remove_dir(&folder).expect("empty");
    std::fs::rename(cairn.path("aside"), &folder).expect("back");
    assert_eq!(ids(&cairn).len(), 2);
}

#[test]
fn the_rules_of_home_may_stand_in_the_configuration_file() {
    let cairn = with_snapshots(4);
    let file = cairn.path("config.toml").to_str().expect("UTF-8").to_owned();
    let write = |text: &str| std::fs::write(&file, text).expect("a file");
    let forget = |more: &[&str]| {
        let arguments = ["forget", "--config", &file, "--dry-run", "--json"];
        let ran = cairn.run(arguments.iter().chain(more)).expect(0);
        ran.json("result")[0]["report"].clone()
    };
    write("[retention]\nkeep-last = 2\nerase-within = \"never\"\n");
    let report = forget(&[]);
    assert_eq!((&report["kept"], &report["removed"]), (&3.into(), &1.into()));
    assert!(report["gone_by"].is_null(), "{report}");
    // Options come first.
    let report = forget(&["--keep-last", "1", "--erase-within", "72h"]);
    assert_eq!((&report["kept"], &report["removed"]), (&2.into(), &2.into()));
    assert!(!report["gone_by"].is_null(), "{report}");
    // Of another repository, and of another job.
    write("[retention]\nrepo = \"/elsewhere\"\nkeep-last = 1\n");
    assert_eq!(forget(&[])["removed"], 0);
    write("[retention]\njob = \"crm\"\nkeep-last = 1\n");
    assert_eq!(forget(&[])["removed"], 2);
    write("[retention]\nkeep-lots = 1\n");
    let ran = cairn.run(["forget", "--config", &file]).expect(2);
    assert!(ran.stderr.contains("keep-lots"), "{ran:#?}");
    cairn.run(["gc", "--config", &file]).expect(2);
    // A collection erases as soon as the file says, and the report tells by when that had to be.
    write("[retention]\nkeep-last = 1\nerase-within = \"1h\"\n");
    cairn.run(["forget", "--config", &file]).expect(0);
    cairn.run(["gc", "--config", &file]).expect(0);
    cairn.run(["erasure", "report", "--config", &file]).expect(0);
    cairn.run(["verify", "--level", "full"]).expect(0);
}
