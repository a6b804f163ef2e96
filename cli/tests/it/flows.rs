//! From `init` to `diff`: what people and programs see when all goes well, and when it does not.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use serde_json::Value;

use crate::env::TestEnv;

/// A repository with two snapshots of `data`, of the jobs `one` and `two`.
fn with_two_snapshots() -> (TestEnv, [String; 2]) {
    let env = TestEnv::new();
    env.ok(["init"]);
    env.write("data/a.txt", "alpha");
    env.write("data/sub/b.txt", "beta");
    let first = backup(&env, &["data", "--job", "one", "--tag", "x", "--tag", "y"]);
    env.write("data/a.txt", "alpha, changed");
    env.write("data/new.txt", "new");
    std::fs::remove_file(env.path("data/sub/b.txt")).unwrap();
    let second = backup(&env, &["data", "--job", "two"]);
    (env, [first, second])
}

fn backup(env: &TestEnv, arguments: &[&str]) -> String {
    let (objects, result) = env.json(["backup"].iter().chain(arguments));
    assert_eq!(result["exit_code"], 0, "{result}");
    let id = result["report"]["snapshot"].as_str().unwrap().to_owned();
    let made = objects.iter().find(|object| object["type"] == "snapshot").unwrap();
    assert_eq!(made["id"], id);
    id
}

fn ids(objects: &[Value]) -> Vec<&str> {
    objects.iter().filter_map(|object| object["id"].as_str()).collect()
}

fn paths(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.split_once("/data").map(|(_, rest)| rest)).collect()
}

#[test]
fn init_makes_a_repository_once() {
    let env = TestEnv::new();
    assert!(env.ok(["init"]).starts_with("made repository "));
    let again = env.run(["init"]);
    assert_eq!(again.code, 4, "{again:?}");
    assert!(again.stderr.contains("hint: "), "{again:?}");
}

#[test]
fn init_takes_either_cipher() {
    for cipher in ["aes-256-gcm", "xchacha20-poly1305"] {
        let env = TestEnv::new();
        let (_, result) = env.json(["init", "--cipher", cipher]);
        assert_eq!(result["report"]["cipher"], cipher);
        env.write("data/a", "content");
        backup(&env, &["data"]);
        let path = format!("latest:{}", env.path("data/a").display());
        assert_eq!(env.ok(["dump", &path]), "content");
    }
}

#[test]
fn a_backup_says_what_it_did_in_one_line() {
    let env = TestEnv::new();
    env.ok(["init"]);
    env.write("data/a", "content");
    let run = env.run(["backup", "data", "--job", "pg/main"]);
    let text = run.text();
    assert!(text.starts_with("backup pg/main "), "{text}");
    assert!(text.contains(" read, ") && text.contains(" new, ") && text.contains(" stored, "));
    assert_eq!(text.lines().count(), 1);
    assert_eq!(env.ok(["-q", "backup", "data"]), "");
}

#[test]
fn a_dry_run_stores_nothing() {
    let env = TestEnv::new();
    env.ok(["init"]);
    env.write("data/a", "content");
    let (objects, result) = env.json(["backup", "data", "--dry-run"]);
    assert!(objects.iter().all(|object| object["type"] != "snapshot"));
    assert_eq!(result["report"]["snapshot"], Value::Null);
    assert_eq!(result["report"]["dry_run"], true);
    assert_eq!(env.ok(["snapshots"]), "");
}

#[test]
fn snapshots_are_forgotten_as_planned() {
    let (env, [first, second]) = with_two_snapshots();
    let third = backup(&env, &["data", "--job", "two"]);
    let rules = ["--keep-yearly", "3"];
    let (planned, result) = env.json(["forget", "--dry-run"].iter().chain(&rules));
    assert_eq!(ids(&planned), [&first, &second, &third]);
    assert_eq!(result["report"]["removed"], 1, "{result}");
    let superseded = planned.iter().find(|object| object["keep"] == false).unwrap();
    assert_eq!(superseded["id"], second);
    assert_eq!(superseded["reasons"][0]["code"], "superseded");
    assert_eq!(env.ok(["snapshots"]).lines().count(), 4);
    let (done, _) = env.json(["forget"].iter().chain(&rules));
    assert_eq!(done, planned);
    let (left, _) = env.json(["snapshots"]);
    assert_eq!(ids(&left), [&first, &third]);
    let (gone, _) = env.json(["forget", "--remove-last", &first[..8]]);
    assert_eq!(ids(&gone), [&first]);
    let (simulated, result) = env.json(["forget", "--simulate", "--keep-hourly", "5"]);
    assert_eq!(simulated.len(), 5);
    assert_eq!(result["report"]["kept"], 5);
}

#[test]
fn snapshots_are_listed_and_filtered() {
    let (env, [first, second]) = with_two_snapshots();
    let (objects, result) = env.json(["snapshots"]);
    assert_eq!(ids(&objects), [&first, &second]);
    assert_eq!(result["report"]["snapshots"], 2);
    assert_eq!(objects[0]["job"], "one");
    assert_eq!(objects[0]["tags"], serde_json::json!(["x", "y"]));
    assert_eq!(objects[0]["user"], "tester");
    assert_eq!(objects[0]["acknowledged"], true);
    assert_eq!(objects[0]["files"], 2);
    for (arguments, expected) in [
        (vec!["--job", "one"], vec![&first]),
        (vec!["--tag", "x", "--tag", "y"], vec![&first]),
        (vec!["--tag", "x", "--tag", "z"], vec![]),
        (vec!["--last", "1"], vec![&second]),
        (vec!["--host", "elsewhere"], vec![]),
    ] {
        let (objects, _) = env.json(["snapshots"].iter().chain(&arguments));
        assert_eq!(ids(&objects), expected, "{arguments:?}");
    }
    let table = env.ok(["snapshots"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("ID        TIME"), "{table}");
    assert!(lines[1].starts_with(&first[..8]) && lines[1].contains("x,y"), "{table}");
    assert!(lines[2].starts_with(&second[..8]) && lines[2].contains("+00:00"), "{table}");
}

#[test]
fn the_job_is_the_host_unless_named() {
    let mut env = TestEnv::new();
    env.ok(["init"]);
    env.write("data/a", "content");
    backup(&env, &["data", "--host", "db1"]);
    env.set("CAIRN_JOB", "nightly");
    backup(&env, &["data", "--host", "db1"]);
    let (objects, _) = env.json(["snapshots", "--host", "db1"]);
    assert_eq!([&objects[0]["job"], &objects[1]["job"]], ["db1", "nightly"]);
}

#[test]
fn entries_are_listed_briefly_at_length_and_deeply() {
    let (env, [first, _]) = with_two_snapshots();
    let data = format!("{}:{}", &first[..12], env.path("data").display());
    assert_eq!(paths(&env.ok(["ls", &data])), ["/a.txt", "/sub/"]);
    assert_eq!(paths(&env.ok(["ls", "-R", &data])), ["/a.txt", "/sub/", "/sub/b.txt"]);
    let long = env.ok(["ls", "-l", &data]);
    assert!(long.starts_with("-rw-r--r-- "), "{long}");
    assert!(long.contains(" 5 B ") && long.contains("\ndrwxr-xr-x "), "{long}");
    let (objects, result) = env.json(["ls", "-R", &data]);
    assert_eq!(result["report"]["entries"], 3);
    assert_eq!(objects[0]["kind"], "file");
    assert_eq!(objects[0]["bytes"], 5);
    assert_eq!(objects[1]["kind"], "directory");
    assert_eq!(env.run(["ls", "latest:/nowhere"]).code, 1);
}

#[test]
fn names_that_are_not_text_survive() {
    let env = TestEnv::new();
    env.ok(["init"]);
    env.write("data/plain", "");
    std::fs::write(env.path("data").join(OsStr::from_bytes(b"\xff\x1b[31m")), "odd").unwrap();
    backup(&env, &["data"]);
    let data = format!("latest:{}", env.path("data").display());
    let (objects, _) = env.json(["ls", &data]);
    let odd = objects.iter().find(|object| object.get("path_hex").is_some()).unwrap();
    assert!(odd["path"].as_str().unwrap().ends_with("\u{fffd}\u{1b}[31m"));
    assert!(odd["path_hex"].as_str().unwrap().ends_with("2fff1b5b33316d"));
    let text = env.ok(["ls", &data]);
    assert!(text.contains("/\\xff\\x1b[31m\n"), "{text:?}");
    let mut path = data.into_bytes();
    path.extend_from_slice(b"/\xff\x1b[31m");
    assert_eq!(env.ok([OsStr::new("dump"), OsStr::from_bytes(&path)]), "odd");
}

#[test]
fn entries_are_found_in_all_snapshots() {
    let (env, [first, second]) = with_two_snapshots();
    let text = env.ok(["find", "a.txt"]);
    let expected = |id: &str| format!("{}:{}\n", &id[..8], env.path("data/a.txt").display());
    assert_eq!(text, format!("{}{}", expected(&first), expected(&second)));
    let (objects, result) = env.json(["find", "*.txt", "--job", "one"]);
    assert_eq!(result["report"]["entries"], 2);
    assert!(objects.iter().all(|object| object["snapshot"] == first.as_str()));
    let (_, result) = env.json(["find", "b.txt", "--snapshot", "latest"]);
    assert_eq!(result["report"]["entries"], 0);
}

#[test]
fn differences_are_named() {
    let (env, [first, second]) = with_two_snapshots();
    let run = env.run(["diff", &first, &second]);
    assert_eq!(run.code, 0, "{run:?}");
    let text = run.text();
    let signs: Vec<String> = text
        .lines()
        .map(|line| line.replacen(&env.path("data").display().to_string(), "", 1))
        .collect();
    assert!(signs.contains(&"M /a.txt".to_owned()), "{signs:?}");
    assert!(signs.contains(&"+ /new.txt".to_owned()), "{signs:?}");
    assert!(signs.contains(&"- /sub/b.txt".to_owned()), "{signs:?}");
    assert!(run.stderr.contains("1 added"), "{run:?}");
    let (objects, result) = env.json(["diff", &first, &second]);
    assert_eq!(result["report"]["added"], 1);
    assert_eq!(result["report"]["removed"], 1);
    assert!(objects.iter().any(|object| object["change"] == "content"));
    assert_eq!(env.ok(["diff", "latest", "latest"]), "");
}

#[test]
fn snapshots_are_named_in_many_ways() {
    let (env, [first, second]) = with_two_snapshots();
    let file = env.path("data/a.txt");
    let dump = |selector: &str| env.ok(["dump", &format!("{selector}:{}", file.display())]);
    for selector in [&first, &first[..16], "latest~1", "job:one"] {
        assert_eq!(dump(selector), "alpha", "{selector}");
    }
    for selector in [&second, "latest", "job:two", "@2100-01-01"] {
        assert_eq!(dump(selector), "alpha, changed", "{selector}");
    }
    assert_eq!(env.run(["ls", "latest~7"]).code, 1);
    assert_eq!(env.run(["ls", "job:three"]).code, 1);
    assert_eq!(env.run(["ls", "@yesterday-ish"]).code, 2);
    assert_eq!(env.run(["ls", "@1999-01-01"]).code, 1);
}

#[test]
fn an_ambiguous_name_lists_the_candidates() {
    let env = TestEnv::new();
    env.ok(["init"]);
    env.write("data/a", "content");
    // Seventeen ids cannot have seventeen different first digits.
    for _ in 0..17 {
        backup(&env, &["data"]);
    }
    let (objects, _) = env.json(["snapshots"]);
    let ids = ids(&objects);
    let shares = |digit: &&str| ids.iter().filter(|id| id.starts_with(*digit)).count() > 1;
    let digit = ids.iter().map(|id| &id[..1]).find(shares).unwrap();
    let run = env.run(["ls", digit]);
    assert_eq!(run.code, 2, "{run:?}");
    for id in ids.iter().filter(|id| id.starts_with(digit)) {
        assert!(run.stderr.contains(&id[..8]), "{id} is missing: {run:?}");
    }
}

#[test]
fn a_dump_is_the_bytes_and_nothing_else() {
    let env = TestEnv::new();
    env.ok(["init"]);
    let content: Vec<u8> = (0..3_000_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
    env.write("data/big", &content);
    backup(&env, &["data"]);
    let run = env.run(["dump", &format!("latest:{}", env.path("data/big").display())]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout == content);
    assert_eq!(env.run(["dump", "latest"]).code, 2);
    assert_eq!(env.run(["dump", "latest:/nowhere"]).code, 1);
    let folder = env.run(["dump", &format!("latest:{}", env.path("data").display())]);
    assert_eq!(folder.code, 2, "{folder:?}");
}

#[test]
fn stats_add_up() {
    let (env, _) = with_two_snapshots();
    let (_, result) = env.json(["stats"]);
    let report = &result["report"];
    assert_eq!(report["snapshots"], 2);
    let bytes = |name: &str| report[name].as_u64().unwrap();
    let parts =
        ["bytes_stored_data", "bytes_stored_tree", "bytes_stored_index", "bytes_stored_other"];
    assert_eq!(bytes("bytes_stored"), parts.iter().map(|name| bytes(name)).sum::<u64>());
    assert!(bytes("bytes_stored_data") > 0);
    assert!(env.ok(["stats"]).contains("data packs"));
}

#[test]
fn a_reader_that_goes_away_ends_a_listing_quietly() {
    let (env, _) = with_two_snapshots();
    for arguments in [vec!["ls", "-R", "latest"], vec!["--json", "snapshots"]] {
        let mut child = env.command(&arguments).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(141), "{arguments:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    }
}

#[test]
fn timings_name_the_stages_and_the_limit_only_when_asked() {
    let env = TestEnv::new();
    env.ok(["init"]);
    env.write("data/text.txt", "the same again, ".repeat(20_000));
    let commands: [(&[&str], &[&str]); 3] = [
        (&["backup", "data"], &["read", "hash", "compress", "check", "seal", "upload"]),
        (&["restore", "latest", "--target", "out"], &["fetch", "open", "decode", "check", "write"]),
        (&["verify", "--level", "full"], &["hash", "fetch", "open", "decode", "check"]),
    ];
    for (command, stages) in commands {
        let (objects, result) = env.json(command.iter().chain(&["--timings"]));
        assert_eq!(result["exit_code"], 0, "{result}");
        let timings = objects.iter().find(|object| object["type"] == "timings").unwrap();
        let seen = timings["stages"].as_array().unwrap();
        for stage in stages {
            assert!(seen.iter().any(|time| time["stage"] == *stage), "{stage}: {timings}");
        }
    }
    let run = env.run(["verify", "--level", "full", "--timings", "--quiet"]);
    assert!(run.stderr.contains("the limit: ") && run.stderr.contains("decode"), "{run:?}");
    let (objects, _) = env.json(["verify", "--level", "full"]);
    assert!(objects.iter().all(|object| object["type"] != "timings"));
}
