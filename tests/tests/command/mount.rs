//! Goal: `cairn mount` shows each snapshot as it was backed up to any program, reads around damage
//! with another copy and says without one what is damaged, and is gone when it has ended, however that
//! came about.
//! Method: the program mounts, and trees are compared, read at random and in parallel, damaged and
//! unmounted. Where nothing can be mounted, these tests fail and say what is missing.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use cairn_tests::compare::{assert_same, look};
use cairn_tests::lab::inside;
use cairn_tests::process::{Cairn, Ran, files_below};
use cairn_tests::seed::{Seed, noise};
use cairn_tests::tree;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

/// A mount, which ends with the test.
struct Mounted {
    child: Child,
    output: BufReader<ChildStdout>,
    at: PathBuf,
}

fn is_mount(at: &Path) -> bool {
    let above = fs::metadata(at.join("..")).expect("a folder");
    // One that nobody serves any more cannot be looked at.
    fs::metadata(at).map_or(true, |meta| meta.dev() != above.dev())
}

impl Mounted {
    /// Mounts at a new folder of this name; returns when it is there.
    fn new(cairn: &Cairn, name: &str, more: &[&str]) -> Self {
        let at = cairn.path(name);
        fs::create_dir_all(&at).expect("a folder");
        let arguments = [&["mount", name, "--json"], more].concat();
        let mut command = cairn.cairn(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("cairn starts");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let mut mounted = Self { child, output, at };
        let mut line = String::new();
        while !line.contains("\"type\":\"mounted\"") {
            line.clear();
            mounted.output.read_line(&mut line).expect("its output is text");
            assert!(
                line.contains("\"type\":\"mounted\"") || line.contains("\"type\":\"progress\""),
                "not mounted: this takes /dev/fuse and root, or CAP_SYS_ADMIN in a container \
                 (docker run --device /dev/fuse --cap-add SYS_ADMIN): {line}"
            );
        }
        mounted
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("it runs");
    }

    /// What the newest snapshot has of a source.
    fn latest(&self, source: &Path) -> PathBuf {
        inside(&self.at.join("latest"), source)
    }

    /// Waits for its end, which it was told of.
    fn ended(mut self) -> Ran {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.output.read_to_string(&mut stdout).expect("its output is text");
        let mut messages = self.child.stderr.take().expect("its messages");
        messages.read_to_string(&mut stderr).expect("they are text");
        let code = self.child.wait().expect("it ends").code();
        assert!(!is_mount(&self.at), "it is mounted still");
        Ran { code, stdout, stderr }
    }

    fn end(self) -> Ran {
        self.signal(Signal::TERM);
        self.ended()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _killed = self.child.kill();
            let _waited = self.child.wait();
        }
        if is_mount(&self.at) {
            let _left = Command::new("umount").arg("-l").arg(&self.at).status();
        }
    }
}

fn result(ran: &Ran) -> serde_json::Value {
    ran.json("result").pop().expect("a result")
}

#[test]
fn snapshots_are_shown_as_they_were_backed_up() {
    let cairn = Cairn::with_repository();
    let source = cairn.path("source");
    tree::everything(&source, 80);
    fs::hard_link(source.join("deep/large"), source.join("deep/third")).expect("a link");
    let device = makedev(259, 70_000);
    mknodat(CWD, source.join("device"), FileType::BlockDevice, Mode::RUSR, device)
        .expect("a device");
    std::os::unix::net::UnixListener::bind(source.join("socket")).expect("a socket");
    tree::settle(&source);
    cairn.run(["backup", "source", "--job", "a/b"]).expect(0);
    let mounted = Mounted::new(&cairn, "shown", &[]);
    let latest = mounted.latest(&source);
    assert_same(&source, &latest);
    let names = |path: &Path| {
        let entries = fs::read_dir(path).expect("a folder");
        let names = entries.map(|one| one.expect("an entry").file_name().into_string());
        let mut names = names.collect::<Result<Vec<_>, _>>().expect("text");
        names.sort();
        names
    };
    assert_eq!(names(&mounted.at), ["jobs", "latest", "snapshots"]);
    assert_eq!(names(&mounted.at.join("jobs")), ["a%2Fb"]);
    assert_same(&source, &inside(&mounted.at.join("jobs/a%2Fb/latest"), &source));
    let large = fs::metadata(latest.join("deep/large")).expect("a file");
    assert_eq!(large.nlink(), 3);
    assert_eq!(large.ino(), fs::metadata(latest.join("second-name")).expect("a file").ino());
    let sparse = fs::metadata(latest.join("sparse")).expect("a file");
    assert!(sparse.blocks() * 512 < 1_000_000 && sparse.len() == 20_000_000);
    // A copy is as sparse, made by a program that asks where the holes are.
    let copied = cairn.path("copied");
    let mut copy = cairn.command("cp");
    copy.args(["--archive", "--sparse=auto"]).arg(&latest).arg(&copied);
    let copied_all = Ran::from(copy.output().expect("cp starts"));
    assert_eq!(copied_all.code, Some(0), "{copied_all:?}");
    assert_same(&source, &copied);
    let refused = fs::write(latest.join("new"), "").expect_err("it is read-only");
    assert_eq!(Errno::from_io_error(&refused), Some(Errno::ROFS));
    let ran = mounted.end().expect(0);
    let report = &result(&ran)["report"];
    assert_eq!((&report["snapshots"], &report["damaged"]), (&1.into(), &0.into()), "{report}");
    assert!(report["bytes_read"].as_u64() > Some(2_500_000), "{report}");
}

#[test]
fn large_files_are_read_at_random_and_by_many_at_once() {
    let cairn = Cairn::with_repository();
    let source = cairn.path("source");
    fs::create_dir(&source).expect("a folder");
    let mut expected = noise(30_000_000, 81);
    for day in 0..2 {
        // The second day is stored as what changed.
        for byte in expected.iter_mut().skip(day * 1_000).step_by(50_000) {
            *byte ^= 0x55;
        }
        fs::write(source.join("large"), &expected).expect("a file");
        cairn.run(["backup", "source"]).expect(0);
    }
    let mounted = Mounted::new(&cairn, "shown", &[]);
    let path = mounted.latest(&source).join("large");
    std::thread::scope(|threads| {
        for reader in 0..4_u64 {
            let (path, expected) = (&path, &expected);
            threads.spawn(move || {
                let file = fs::File::open(path).expect("it opens");
                let mut seed = Seed::of(reader);
                for _ in 0..100 {
                    let at = seed.below(expected.len() as u64);
                    let bytes = 1 + seed.below(200_000) as usize;
                    let bytes = bytes.min(expected.len() - at as usize);
                    let mut read = vec![0; bytes];
                    file.read_exact_at(&mut read, at).expect("it is read");
                    assert!(read == expected[at as usize..][..bytes], "{bytes} at {at}");
                }
                assert!(fs::read(path).expect("it is read") == *expected);
            });
        }
    });
    mounted.end().expect(0);
}

/// Damages every data pack of a repository in its middle.
fn damage(cairn: &Cairn, repository: &str) {
    for path in files_below(&cairn.path(repository).join("packs/data")) {
        let mut bytes = fs::read(&path).expect("a pack");
        let middle = bytes.len() / 2;
        bytes[300..middle].fill(0);
        fs::write(&path, bytes).expect("it is damaged");
    }
}

#[test]
fn damage_is_told_without_another_copy_and_made_good_with_one() {
    let cairn = Cairn::with_repository();
    let source = cairn.path("source");
    tree::everything(&source, 82);
    cairn.run(["backup", "source"]).expect(0);
    cairn.run(["replicate", "--to", "replica", "--create"]).expect(0);
    damage(&cairn, "repository");
    let expected = look(&source);
    let mounted = Mounted::new(&cairn, "shown", &[]);
    let latest = mounted.latest(&source);
    let (mut good, mut bad) = (0, 0);
    let other_name =
        |path: &PathBuf, first: &Option<PathBuf>| first.as_ref().is_some_and(|first| first != path);
    for (path, seen) in expected.iter().filter(|(_, seen)| seen.kind == "file") {
        if other_name(path, &seen.same_as) {
            continue;
        }
        match fs::read(latest.join(path)) {
            Ok(bytes) => {
                assert_eq!(blake3::hash(&bytes).to_hex().as_str(), seen.content, "{path:?}");
                good += 1;
            }
            Err(error) => {
                assert_eq!(Errno::from_io_error(&error), Some(Errno::IO), "{path:?}");
                bad += 1;
            }
        }
    }
    assert!(good > 0 && bad > 0, "{good} {bad}");
    let ran = mounted.end().expect(5);
    assert_eq!(result(&ran)["report"]["damaged"], bad);
    let told = ran.stderr.lines().filter(|line| line.contains("--fallback")).collect::<Vec<_>>();
    assert_eq!(told.len(), bad, "{told:#?}");
    assert!(told.iter().all(|line| line.contains("source/") && line.contains("pack")));

    let mounted = Mounted::new(&cairn, "shown", &["--fallback", "replica"]);
    assert_same(&source, &mounted.latest(&source));
    let ran = mounted.end().expect(0);
    assert!(result(&ran)["report"]["chunks_elsewhere"].as_u64() > Some(0), "{ran:#?}");
    let said = ran.stderr.matches("is read from there").count();
    assert_eq!(said, 1, "it is said once: {}", ran.stderr);

    // Nothing but the replica is left.
    fs::remove_dir_all(cairn.path("repository")).expect("it is gone");
    let mounted = Mounted::new(&cairn, "shown", &["--repo", "replica"]);
    assert_same(&source, &mounted.latest(&source));
    mounted.end().expect(0);
}

#[test]
fn snapshots_that_are_made_meanwhile_can_be_chosen_by_job() {
    let cairn = Cairn::with_repository();
    for name in ["one", "two"] {
        tree::small(&cairn.path(name), 5, 83);
        cairn.run(["backup", name, "--job", name]).expect(0);
    }
    let mounted = Mounted::new(&cairn, "shown", &["--job", "one"]);
    assert_eq!(fs::read_dir(mounted.at.join("snapshots")).expect("a folder").count(), 1);
    assert!(mounted.at.join("jobs/one/latest").exists());
    assert!(!mounted.at.join("jobs/two").exists());
    mounted.end().expect(0);
}

#[test]
fn it_is_gone_however_it_ends() {
    let cairn = Cairn::with_repository();
    let source = cairn.path("source");
    tree::small(&source, 5, 84);
    cairn.run(["backup", "source"]).expect(0);
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mounted = Mounted::new(&cairn, "shown", &[]);
        assert_same(&source, &mounted.latest(&source));
        mounted.signal(signal);
        mounted.ended().expect(0);
    }
    // By somebody else.
    let mounted = Mounted::new(&cairn, "shown", &[]);
    let status = cairn.command("umount").arg(&mounted.at).status().expect("umount starts");
    assert!(status.success());
    mounted.ended().expect(0);
    // While it is in use.
    let mounted = Mounted::new(&cairn, "shown", &[]);
    let mut user = cairn.command("sleep");
    let mut user = user.arg("100").current_dir(mounted.latest(&source)).spawn().expect("it starts");
    mounted.signal(Signal::TERM);
    let ran = mounted.ended().expect(0);
    assert_eq!(result(&ran)["report"]["in_use"], true);
    user.kill().expect("it runs");
    user.wait().expect("it ends");
    // What a killed one leaves is told from a folder, and ended as is said.
    let mounted = Mounted::new(&cairn, "shown", &[]);
    mounted.signal(Signal::KILL);
    while fs::metadata(&mounted.at).is_ok() {
        std::thread::yield_now();
    }
    let ran = cairn.run(["mount", "shown", "--json"]).expect(4);
    assert_eq!(result(&ran)["code"], "mount.dead", "{ran:?}");
    let status = cairn.command("umount").arg(&mounted.at).status().expect("umount starts");
    assert!(status.success());
}

#[test]
fn a_place_that_cannot_be_mounted_at_is_refused_before_anything_else() {
    let cairn = Cairn::with_repository();
    tree::small(&cairn.path("source"), 5, 85);
    cairn.run(["backup", "source"]).expect(0);
    fs::create_dir(cairn.path("shown")).expect("a folder");
    let refused = |place: &str, exit: i32, code: &str| {
        let ran = cairn.run(["mount", place, "--repo", "nowhere", "--json"]).expect(exit);
        let result = result(&ran);
        assert_eq!(result["code"], code, "{result}");
        assert!(result["hint"].is_string(), "{result}");
    };
    refused("missing", 2, "mount.missing");
    refused("source/text", 2, "mount.not_directory");
    refused("source", 4, "mount.not_empty");
    refused("shown", 10, "store.no_repository");
    let mounted = Mounted::new(&cairn, "shown", &["--snapshot", "latest"]);
    refused("shown", 4, "mount.occupied");
    mounted.end().expect(0);
    let ran = cairn.run(["mount", "shown", "--snapshot", "latest~7"]).expect(1);
    assert!(ran.stderr.contains("latest~7"), "{}", ran.stderr);
    assert!(!is_mount(&cairn.path("shown")));
}
