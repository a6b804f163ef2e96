//! Goal: exit codes mean what is documented, and a failing command or a refused request makes no
//! snapshot.
//! Method: each code brought about once, with the number of snapshots before and after.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use cairn_tests::compare::{assert_same, look};
use cairn_tests::lab::inside;
use cairn_tests::process::{Cairn, Ran, cairn_path, files_below};
use cairn_tests::seed::noise;
use cairn_tests::tree;

fn snapshots(cairn: &Cairn) -> usize {
    cairn.run(["snapshots", "--json"]).expect(0).json("snapshot").len()
}

#[test]
fn a_command_that_fails_makes_no_snapshot() {
    let cairn = Cairn::with_repository();
    cairn.run(["backup", "--command", "--stdin-name", "dump", "--", "echo", "whole"]).expect(0);
    assert_eq!(snapshots(&cairn), 1);
    for script in ["echo half; exit 3", "echo half; kill -9 $$"] {
        let arguments = ["backup", "--command", "--stdin-name", "dump", "--", "sh", "-c", script];
        let ran = cairn.run(arguments).expect(1);
        assert!(ran.stderr.contains("sh"), "it does not name the command: {ran:#?}");
    }
    cairn.run(["backup", "--command", "--", "no-such-program-anywhere"]).expect(1);
    assert_eq!(snapshots(&cairn), 1);
    cairn.run(["verify", "--level", "full"]).expect(0);
    let dumped = cairn.run(["dump", "latest:/dump"]).expect(0);
    assert_eq!(dumped.stdout, "whole\n");
}

#[test]
fn unreadable_files_are_reported_and_the_rest_is_stored() {
    let cairn = Cairn::with_repository();
    let source = cairn.path("source");
    tree::small(&source, 10, 1);
    let secret = source.join("secret");
    std::fs::write(&secret, "nobody may read this").expect("a file");
    std::fs::create_dir(source.join("closed")).expect("a folder");
    std::fs::write(source.join("closed/inside"), "nor this").expect("a file");
    let set = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("its mode");
    };
    set(&secret, 0);
    set(&source.join("closed"), 0);
    // Root without the capabilities that let it read everything is an owner like any other.
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = cairn.command("setpriv");
        command.arg("--bounding-set=-dac_override,-dac_read_search").arg(cairn_path());
        command
    } else {
        cairn.command(cairn_path())
    };
    command.args(["backup", "--json"]).arg(&source);
    let ran = Ran::from(command.output().expect("it starts")).expect(3);
    for name in ["secret", "closed"] {
        assert!(ran.stdout.contains(name) || ran.stderr.contains(name), "{name}: {ran:#?}");
    }
    set(&source.join("closed"), 0o755);
    std::fs::remove_file(&secret).expect("removed");
    let target = cairn.restored("latest", "target");
    let restored = inside(&target, &source);
    assert!(!restored.join("secret").exists(), "a file that could not be read is not there");
    set(&restored.join("closed"), 0o755);
    std::fs::remove_dir_all(source.join("closed")).expect("removed");
    std::fs::remove_dir_all(restored.join("closed")).expect("it is there, empty");
    for folder in [&source, &restored] {
        tree::age(folder);
    }
    assert_same(&source, &restored);
}

#[test]
fn what_is_wrong_decides_the_code() {
    let cairn = Cairn::with_repository();
    let source = cairn.path("source");
    tree::small(&source, 10, 1);
    let source = source.to_str().expect("UTF-8");
    cairn.run(["backup", source]).expect(0);
    cairn.run(["backup"]).expect(2);
    cairn.run(["backup", "--no-such-option", source]).expect(2);
    cairn.run(["backup", "/no/such/path/anywhere"]).expect(1);
    cairn.run(["backup", source, "/no/such/path/anywhere"]).expect(3);
    cairn.run(["ls", "latest~x"]).expect(2);
    cairn.run(["ls", "latest~99"]).expect(1);
    cairn.run(["init"]).expect(4);
    std::fs::create_dir(cairn.path("full")).expect("a folder");
    std::fs::write(cairn.path("full/mine"), "precious").expect("a file");
    cairn.run(["restore", "latest", "--target", "full"]).expect(4);
    assert_eq!(std::fs::read_dir(cairn.path("full")).expect("the folder").count(), 1);
    cairn.run(["snapshots", "--repo", "nowhere"]).expect(10);
    let mut command = cairn.cairn(["snapshots"]);
    command.env("CAIRN_PASSWORD", "wrong");
    Ran::from(command.output().expect("it starts")).expect(12);
    assert_eq!(snapshots(&cairn), 2);
}

#[test]
fn damage_is_code_5_everything_else_restores_and_the_object_is_named() {
    let cairn = Cairn::with_repository();
    let source = cairn.path("source");
    tree::everything(&source, 1);
    let shown = source.to_str().expect("UTF-8").to_owned();
    cairn.run(["backup", &shown]).expect(0);
    let packs = files_below(&cairn.path("repository/packs/data"));
    let damaged = packs.iter().max_by_key(|path| std::fs::metadata(path).map_or(0, |m| m.len()));
    let damaged = damaged.expect("a pack");
    let mut data = std::fs::read(damaged).expect("the pack");
    // In the middle of its frames.
    let middle = data.len() / 2;
    data[middle] ^= 1;
    std::fs::set_permissions(damaged, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    std::fs::write(damaged, data).expect("damaged");
    let name = damaged.file_name().expect("a name").to_str().expect("UTF-8");
    let ran = cairn.run(["verify", "--level", "full", "--json"]).expect(5);
    assert!(ran.stdout.contains(name), "{ran:#?}");
    let ran = cairn.run(["restore", "latest", "--target", "strict"]).expect(5);
    assert!(!ran.stderr.is_empty());
    let ran = cairn.run(["restore", "latest", "--target", "rest", "--keep-going", "--json"]);
    let ran = ran.expect(5);
    let (before, after) = (look(&source), look(&inside(&cairn.path("rest"), &source)));
    let same = |path: &&PathBuf| {
        after.get(*path).map(|seen| &seen.content) == Some(&before[*path].content)
    };
    let (whole, damaged): (Vec<_>, Vec<_>) = before.keys().partition(same);
    assert!(!whole.is_empty() && !damaged.is_empty(), "{damaged:?}");
    for path in damaged {
        let name = path.file_name().expect("a name").to_string_lossy();
        // As JSON writes it.
        let name = serde_json::to_string(&name).expect("a string");
        let said = ran.stdout.contains(name.trim_matches('"'));
        assert!(said, "{name} is damaged and not named: {ran:#?}");
    }
    cairn.run(["snapshots"]).expect(0);
}

/// Listing many snapshots gives each of them, in order, quickly enough to be usable.
#[test]
fn many_snapshots_are_listed() {
    use cairn_engine::context::{Context, Silent, SystemClock};
    use cairn_engine::ops::backup::{self, BackupOptions, BackupSource};
    use cairn_engine::repo::Repository;
    use cairn_engine::seal::{OsRandom, SecretBytes, Unlock};
    use cairn_engine::store::local::LocalStore;
    use std::sync::Arc;
    const SNAPSHOTS: usize = 300;
    let cairn = Cairn::with_repository();
    let source = cairn.path("source");
    std::fs::create_dir(&source).expect("a folder");
    std::fs::write(source.join("file"), noise(1_000, 1)).expect("a file");
    tree::settle(&source);
    let store = LocalStore::open(&cairn.path("repository")).expect("it is there");
    let context = Context {
        clock: Arc::new(SystemClock),
        random: Arc::new(OsRandom::new().expect("a generator")),
        monitor: Arc::new(Silent),
        host: "host".to_owned(),
        user: "user".to_owned(),
        program: "cairn-tests".to_owned(),
        cache_dir: cairn.path("cache"),
        index_memory_bytes: 16 << 20,
        timings: cairn_engine::timings::Timings::default(),
    };
    let passphrase = SecretBytes::new(cairn_tests::process::PASSPHRASE.as_bytes().to_vec());
    let unlock = Unlock::Passphrase(passphrase);
    let repository = Repository::open(Arc::new(store), &unlock, &context).expect("it opens");
    for number in 0..SNAPSHOTS {
        let sources = vec![BackupSource::Path(source.clone())];
        let options = BackupOptions::new(&format!("job-{}", number % 7), sources);
        backup::run(&repository, options).expect("the backup");
    }
    drop(repository);
    let listed = cairn.run(["snapshots", "--json"]).expect(0).json("snapshot");
    assert_eq!(listed.len(), SNAPSHOTS);
    let times =
        listed.iter().map(|value| value["time"].as_str().expect("a time")).collect::<Vec<_>>();
    assert!(times.is_sorted(), "oldest first");
    let of_job = cairn.run(["snapshots", "--json", "--job", "job-3"]).expect(0).json("snapshot");
    assert_eq!(of_job.len(), SNAPSHOTS.div_ceil(7).min(43));
}
