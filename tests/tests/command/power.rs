//! Goal: what `cairn` reports done is there after the power was cut: repositories, snapshots,
//! restored files, erasures. What was interrupted is no damage, and the next run completes it.
//! Method: repository, cache and targets lie on a file system whose power can be cut
//! (`cairn_tests::powercut`): what was not made durable is lost in part or wholly. Where it cannot be
//! mounted, these tests fail and say what is missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cairn_tests::compare::{Tree, assert_same_tree, differences, look};
use cairn_tests::lab::inside;
use cairn_tests::powercut::PowerCut;
use cairn_tests::process::{Cairn, Ran};
use cairn_tests::say;
use cairn_tests::seed::{Seed, noise};
use cairn_tests::tree;

/// Cuts of each test.
const CUTS: u64 = 8;
/// What takes the place of the kernel's boot id, which a cut changes.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A repository on a disk whose power can be cut, and what is backed up beside it.
struct Scene {
    cairn: Cairn,
    disk: PowerCut,
    seed: Seed,
    boot: u64,
    /// How long a backup takes.
    usual: Duration,
}

impl Scene {
    fn new() -> Self {
        let cairn = Cairn::new();
        let disk = PowerCut::mount(&cairn.path("disk")).unwrap_or_else(|error| {
            panic!(
                "no power can be cut: mounting a file system takes /dev/fuse and root, or \
                 CAP_SYS_ADMIN in a container (docker run --device /dev/fuse --cap-add SYS_ADMIN): \
                 {error}"
            )
        });
        std::fs::write(cairn.path("key"), [9; 32]).expect("a key file");
        let mut scene =
            Self { cairn, disk, seed: Seed::new(), boot: 0, usual: Duration::from_millis(400) };
        scene.restart();
        scene
    }

    fn source(&self) -> PathBuf {
        self.cairn.path("source")
    }

    fn change_source(&mut self) {
        let source = self.source();
        if !source.exists() {
            tree::small(&source, 20, 1);
        }
        let number = self.seed.next();
        std::fs::write(source.join("new"), noise(3_000_000, number)).expect("a file");
        tree::settle(&source);
    }

    /// Another boot of the machine.
    fn restart(&mut self) {
        self.boot += 1;
        std::fs::write(self.cairn.path("boot"), format!("boot-{}\n", self.boot)).expect("a file");
    }

    fn cut(&mut self) {
        self.disk.cut(&mut self.seed);
        self.restart();
    }

    /// `cairn` on the disk, with the boot id of this boot.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.cairn.command("unshare");
        let script = format!("mount --bind boot {BOOT_ID} && exec \"$0\" \"$@\"");
        command.args(["--mount", "sh", "-c", &script]);
        command.arg(cairn_tests::process::cairn_path()).args(arguments);
        command.env_remove("CAIRN_PASSWORD").env("CAIRN_KEY_FILE", self.cairn.path("key"));
        command.env("CAIRN_REPO", self.cairn.path("disk/repository"));
        command.env("CAIRN_CACHE_DIR", self.cairn.path("disk/cache"));
        command
    }

    #[track_caller]
    fn done(&self, arguments: &[&str]) -> Ran {
        let ran = Ran::from(self.command(arguments).output().expect("unshare starts"));
        assert_eq!(ran.code, Some(0), "{arguments:?} {:?}: {ran:#?}", self.seed);
        ran
    }

    /// Runs a command and kills it at some moment; true when it had ended well before.
    fn risk(&mut self, arguments: &[&str]) -> bool {
        let after = self.usual.mul_f64(self.seed.below(1_500) as f64 / 1_000.0);
        let mut command = self.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("unshare starts");
        std::thread::sleep(after);
        // It may have ended already: then there is nothing to kill.
        let _ended = child.kill();
        let status = child.wait().expect("it ends");
        // An erasure ends with 1 while a lease of one before spares packs.
        let right = matches!(status.code(), Some(0) | None)
            || (arguments.first() == Some(&"erase") && status.code() == Some(1));
        assert!(right, "{arguments:?}: {status}");
        status.success()
    }

    #[track_caller]
    fn restores(&self, snapshot: &str, expected: &Tree) {
        let target = self.cairn.path("target");
        let shown = target.to_str().expect("UTF-8");
        self.done(&["restore", snapshot, "--target", shown]);
        assert_same_tree(expected, &inside(&target, &self.source()));
        std::fs::remove_dir_all(target).expect("the folder is removed");
    }
}

fn newest(ran: &Ran) -> String {
    let snapshots = ran.json("snapshot");
    snapshots.last().and_then(|one| one["id"].as_str()).unwrap_or_default().to_owned()
}

#[test]
fn backups_reported_done_restore_after_a_power_cut() {
    let mut scene = Scene::new();
    scene.done(&["init", "--pack-size", "1MiB"]);
    scene.cut();
    let source = scene.source();
    let shown = source.to_str().expect("UTF-8").to_owned();
    let mut kept = Vec::<(String, Tree)>::new();
    let mut interrupted = 0;
    for _ in 0..CUTS {
        scene.change_source();
        let begun = Instant::now();
        if scene.seed.below(2) == 0 {
            let ran = scene.done(&["backup", &shown, "--json"]);
            scene.usual = begun.elapsed();
            kept.push((newest(&ran), look(&source)));
        } else {
            let done = scene.risk(&["backup", &shown]);
            interrupted += u64::from(!done);
        }
        if scene.seed.below(2) == 0 {
            scene.risk(&["gc", "--max-delete", "100", "--ignore-leases"]);
        }
        scene.cut();
        for (snapshot, tree) in &kept {
            scene.restores(snapshot, tree);
        }
        scene.done(&["verify", "--level", "full"]);
    }
    // What was interrupted is in nobody's way.
    let ran = scene.done(&["backup", &shown, "--json"]);
    scene.done(&["gc", "--max-delete", "100", "--ignore-leases"]);
    scene.cut();
    scene.done(&["verify", "--level", "full", "--cache-dir", "fresh"]);
    scene.restores(&newest(&ran), &look(&source));
    assert!(scene.disk.fsyncs() > 0);
    say(&format!(
        "{CUTS} cuts, {interrupted} backups interrupted, {} kept: {:?}",
        kept.len(),
        scene.seed
    ));
}

#[test]
fn restored_files_are_there_after_a_power_cut_and_interrupted_restores_complete() {
    let mut scene = Scene::new();
    scene.change_source();
    let source = scene.source();
    let expected = look(&source);
    scene.done(&["init", "--pack-size", "1MiB"]);
    scene.done(&["backup", source.to_str().expect("UTF-8")]);
    for number in 0..CUTS {
        let target = scene.cairn.path(&format!("disk/deep/target-{number}"));
        let shown = target.to_str().expect("UTF-8").to_owned();
        let arguments = ["restore", "latest", "--target", &shown];
        let begun = Instant::now();
        let done = if scene.seed.below(2) == 0 {
            scene.done(&arguments);
            scene.usual = begun.elapsed();
            true
        } else {
            scene.risk(&arguments)
        };
        scene.cut();
        if !done {
            let ran = Ran::from(scene.command(&arguments).output().expect("unshare starts"));
            // It had been done when it was killed: then the target is refused as it is not empty.
            assert!(matches!(ran.code, Some(0 | 4)), "{ran:#?} {:?}", scene.seed);
            scene.cut();
        }
        assert_same_tree(&expected, &inside(&target, &source));
    }
}

/// Whether an erasure did all but delete packs of one that was killed: its lease is there still.
fn spares(ran: &Ran) -> bool {
    ran.code == Some(1) && ran.stderr.contains("spared for sessions at work")
}

#[test]
fn erasures_reported_done_are_done_after_a_power_cut_and_interrupted_ones_complete() {
    let mut scene = Scene::new();
    scene.done(&["init", "--pack-size", "1MiB"]);
    let source = scene.source();
    let person = source.join("person");
    let [shown, erased] = [&source, &person].map(|path| path.to_str().expect("UTF-8").to_owned());
    let erase = ["erase", "--path", &erased, "--max-delete", "100"];
    let collect = ["gc", "--max-dead", "0", "--max-delete", "100", "--ignore-leases"];
    let mut interrupted = 0;
    for number in 0..CUTS {
        scene.change_source();
        std::fs::write(&person, noise(2_000_000, number)).expect("a file");
        tree::settle(&source);
        let mut expected = look(&source);
        expected.remove(Path::new("person"));
        scene.done(&["backup", &shown]);
        let begun = Instant::now();
        let done = if number == 0 || scene.seed.below(4) == 0 {
            let ran = Ran::from(scene.command(&erase).output().expect("unshare starts"));
            assert!(ran.code == Some(0) || spares(&ran), "{ran:#?} {:?}", scene.seed);
            scene.usual = begun.elapsed();
            ran.code == Some(0)
        } else {
            scene.risk(&erase)
        };
        scene.cut();
        scene.done(&["verify", "--level", "full"]);
        if !done {
            interrupted += 1;
            let ran = Ran::from(scene.command(&erase).output().expect("unshare starts"));
            // It had come as far as its collection when it was killed: then there is nothing to erase.
            assert!(spares(&ran) || matches!(ran.code, Some(0 | 4)), "{ran:#?} {:?}", scene.seed);
            scene.done(&collect);
            scene.cut();
        }
        let again = Ran::from(scene.command(&erase).output().expect("unshare starts"));
        assert_eq!(again.code, Some(4), "{again:#?} {:?}", scene.seed);
        scene.restores("latest", &expected);
    }
    scene.done(&["verify", "--level", "full", "--cache-dir", "fresh"]);
    say(&format!("{CUTS} cuts, {interrupted} erasures interrupted: {:?}", scene.seed));
}

/// Whether a snapshot reported done is lost or damaged after a cut.
fn is_lost(scene: &Scene, snapshot: &str, expected: &Tree, source: &Path) -> bool {
    let target = scene.cairn.path("target-lost");
    let shown = target.to_str().expect("UTF-8");
    let mut command = scene.command(&["restore", snapshot, "--target", shown]);
    let ran = Ran::from(command.output().expect("unshare starts"));
    ran.code != Some(0) || !differences(expected, &look(&inside(&target, source))).is_empty()
}

#[test]
fn a_disk_that_ignores_fsync_is_found_out() {
    let mut scene = Scene::new();
    scene.done(&["init", "--pack-size", "1MiB"]);
    scene.disk.lie();
    scene.change_source();
    let source = scene.source();
    let expected = look(&source);
    let mut found = false;
    for _ in 0..CUTS {
        let shown = source.to_str().expect("UTF-8").to_owned();
        let ran = Ran::from(scene.command(&["backup", &shown, "--json"]).output().expect("starts"));
        if ran.code != Some(0) {
            found = true;
            break;
        }
        scene.cut();
        if is_lost(&scene, &newest(&ran), &expected, &source) {
            found = true;
            break;
        }
        std::fs::remove_dir_all(scene.cairn.path("target-lost")).expect("removed");
    }
    assert!(found, "nothing is lost although nothing was made durable: {:?}", scene.seed);
}
