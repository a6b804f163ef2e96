//! What a backup reads: lists, filters, streams, commands, and what cannot be read.

use std::fs;
use std::time::Duration;

use crate::env::TestEnv;

/// After that time a file is recognised as unchanged.
const SETTLED: Duration = Duration::from_millis(3100);

fn ready() -> TestEnv {
    let env = TestEnv::new();
    env.ok(["init"]);
    env
}

/// Paths below the test's folder in the latest snapshot.
fn listed(env: &TestEnv) -> Vec<String> {
    let below = format!("{}/", env.path("").display());
    let below = below.replace("//", "/");
    let text = env.ok(["ls", "-R", "latest"]);
    text.lines()
        .filter_map(|line| line.strip_prefix(&below))
        .filter(|path| !path.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn standard_input_becomes_a_file() {
    let env = ready();
    let content = "line\n".repeat(100_000);
    let run =
        env.run_with_input(["backup", "--stdin", "--stdin-name", "dump.sql"], content.as_bytes());
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(env.ok(["dump", "latest:/dump.sql"]), content);
}

#[test]
fn a_command_becomes_a_file_named_like_it() {
    let env = ready();
    env.ok(["backup", "--command", "--", "/bin/echo", "--json", "hello world"]);
    assert_eq!(env.ok(["dump", "latest:/echo"]), "--json hello world\n");
    env.ok(["backup", "--command", "--stdin-name", "greeting", "--", "echo", "hi"]);
    assert_eq!(env.ok(["dump", "latest:/greeting"]), "hi\n");
}

#[test]
fn several_streams_stand_in_one_snapshot() {
    let env = ready();
    let streams = ["--stream", "b.sql=echo second", "--stream", "a.sql=printf first | cat"];
    env.ok(["backup", "--job", "dumps"].iter().chain(&streams));
    assert_eq!(env.ok(["dump", "latest:/a.sql"]), "first");
    assert_eq!(env.ok(["dump", "latest:/b.sql"]), "second\n");

    let run = env.run(["backup", "--stream", "a.sql=echo whole", "--stream", "b.sql=exit 3"]);
    assert_eq!(run.code, 1, "{run:?}");
    let run = env.run(["backup", "--stream", "nameless"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert_eq!(env.ok(["snapshots"]).lines().count(), 2, "a heading and one snapshot");
}

#[test]
fn a_command_that_fails_makes_no_snapshot() {
    let env = ready();
    for command in [vec!["sh", "-c", "echo half; exit 3"], vec!["/no/such/program"]] {
        let arguments = ["--json", "backup", "--command", "--"];
        let run = env.run(arguments.iter().chain(&command));
        assert_eq!(run.code, 1, "{run:?}");
        let (_, result) = run.objects();
        assert!(result["message"].as_str().unwrap().contains(command[0]), "{result}");
    }
    assert_eq!(env.ok(["snapshots"]), "");
}

#[test]
fn a_command_does_not_inherit_the_passphrase() {
    let env = TestEnv::with_passphrase();
    env.ok(["init"]);
    assert!(env.has("CAIRN_PASSWORD"));
    env.ok(["backup", "--command", "--", "sh", "-c", "echo ${CAIRN_PASSWORD-gone}"]);
    assert_eq!(env.ok(["dump", "latest:/sh"]), "gone\n");
}

#[test]
fn paths_come_from_lists() {
    let env = ready();
    for name in ["a", "b", "c\nd"] {
        env.write(&format!("data/{name}"), name);
    }
    env.write("lines", "data/a\n\ndata/b\n");
    env.write("nul", "data/c\nd\0");
    env.ok(["backup", "--files-from", "lines", "--files-from0", "nul"]);
    assert_eq!(listed(&env), ["data/", "data/a", "data/b", "data/c\\x0ad"]);
    let run = env.run_with_input(["backup", "--files-from", "-"], b"data/b\n");
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(listed(&env), ["data/", "data/b"]);
}

#[test]
fn filters_leave_out() {
    let env = ready();
    for name in ["a.txt", "a.o", "b.tmp", "keep/a.o"] {
        env.write(&format!("data/{name}"), name);
    }
    env.write("data/large", vec![1; 5000]);
    env.write("data/cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n");
    env.write("data/cache/thing", "x");
    env.write("ignore", "# comment\n*.tmp\n");
    env.ok([
        "backup",
        "data",
        "--exclude",
        "*.o",
        "--exclude-file",
        "ignore",
        "--exclude-larger-than",
        "4KiB",
        "--exclude-caches",
    ]);
    let expected = ["data/", "data/a.txt", "data/cache/", "data/cache/CACHEDIR.TAG", "data/keep/"];
    assert_eq!(listed(&env), expected);
}

#[test]
fn profiles_store_the_same_content() {
    let env = ready();
    let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    env.write("data/a", &content);
    for profile in ["cdc", "aligned", "fixed"] {
        env.ok(["backup", "data", "--profile", profile, "--reread", "--compression-level", "1"]);
        let run = env.run(["dump", &format!("latest:{}", env.path("data/a").display())]);
        assert!(run.stdout == content, "{profile}");
    }
}

#[test]
fn what_cannot_be_read_is_named_and_ends_with_3() {
    let env = ready();
    env.write("data/good", "good");
    // Reading the first byte of a process's memory fails, for everyone.
    let run = env.run(["--json", "backup", "data", "/proc/1/mem", "/proc/self/mem"]);
    assert_eq!(run.code, 3, "{run:?}");
    let (objects, result) = run.objects();
    assert_eq!(result["code"], "source.unread", "{result}");
    assert!(result["report"]["unread"].as_u64().unwrap() > 0);
    let warning = objects.iter().find(|object| object["type"] == "warning").unwrap();
    assert!(warning["subject"].as_str().unwrap().contains("/mem"), "{warning}");
    assert!(run.stderr.contains("(exit 3)"), "{run:?}");
    let good = format!("latest:{}", env.path("data/good").display());
    assert_eq!(env.ok(["dump", &good]), "good");
    assert!(env.ok(["snapshots"]).contains("unread)"));
}

#[test]
fn a_second_backup_stores_next_to_nothing() {
    let env = ready();
    let content: Vec<u8> =
        (0..500_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    env.write("data/a", &content);
    // A file that changed a moment ago is read again, because it may have changed since.
    std::thread::sleep(SETTLED);
    let (_, first) = env.json(["backup", "data"]);
    let (_, second) = env.json(["backup", "data"]);
    assert!(first["report"]["bytes_new"].as_u64().unwrap() >= content.len() as u64);
    assert_eq!(second["report"]["bytes_new"], 0);
    assert_eq!(second["report"]["bytes_read"], 0);
    let (_, third) = env.json(["backup", "data", "--reread"]);
    assert_eq!(third["report"]["bytes_read"], content.len() as u64);
    assert_eq!(third["report"]["bytes_new"], 0);
    fs::remove_dir_all(env.path("home/.cache")).unwrap();
    let (_, fourth) = env.json(["backup", "data", "--reread"]);
    assert_eq!(fourth["report"]["bytes_new"], 0, "without the cache");
}

/// Files of the kernel have the length 0 whatever they hold.
#[test]
fn a_file_that_hides_its_length_is_read_to_its_end() {
    let env = TestEnv::with_passphrase();
    env.ok(["init"]);
    env.ok(["backup", "/proc/version"]);
    let expected = std::fs::read_to_string("/proc/version").unwrap();
    assert_eq!(env.ok(["dump", "latest:/proc/version"]), expected);
}
