//! Goal: `kill -9` at any moment of a backup or restore loses nothing that was reported done; the
//! same command run again completes.
//! Method: kill at random moments within the time an undisturbed run takes; the seed is printed.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cairn_tests::compare::assert_same;
use cairn_tests::lab::inside;
use cairn_tests::process::Cairn;
use cairn_tests::seed::{Seed, noise};
use cairn_tests::tree;

const ROUNDS: usize = 10;

/// Runs a command and kills it after `after`; true when it was dead before it ended by itself.
fn kill_after(mut command: Command, after: Duration) -> bool {
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    std::thread::sleep(after);
    // It may have ended already: then there is nothing to kill, and that is fine.
    let _ended = child.kill();
    child.wait().expect("it ends").code().is_none()
}

fn timed(cairn: &Cairn, arguments: &[&str]) -> Duration {
    let start = Instant::now();
    cairn.run(arguments).expect(0);
    start.elapsed()
}

fn make_source(cairn: &Cairn, round: u64) -> PathBuf {
    let source = cairn.path("source");
    if round == 0 {
        tree::everything(&source, 1);
    }
    std::fs::write(source.join("deep/new"), noise(20 << 20, round)).expect("a file");
    tree::settle(&source);
    source
}

#[test]
fn a_backup_killed_at_any_moment_is_completed_by_the_next() {
    let mut seed = Seed::new();
    let cairn = Cairn::with_repository();
    let source = make_source(&cairn, 0);
    let shown = source.to_str().expect("a temporary path is UTF-8").to_owned();
    let usual = timed(&cairn, &["backup", &shown]);
    let mut killed = 0;
    for round in 1..=ROUNDS {
        make_source(&cairn, round as u64);
        for _ in 0..2 {
            let after = usual.mul_f64(seed.below(1_000) as f64 / 1_000.0);
            killed += usize::from(kill_after(cairn.cairn(["backup", &shown]), after));
        }
        // Whatever is listed now restores; what was there before is there still.
        cairn.run(["verify", "--level", "full"]).expect(0);
        if round % 5 == 0 {
            cairn.run(["backup", &shown]).expect(0);
            let target = cairn.restored("latest", &format!("target-{round}"));
            assert_same(&source, &inside(&target, &source));
            std::fs::remove_dir_all(target).expect("the folder is removed");
        }
    }
    assert!(killed > 0, "not one of {} runs was killed in time: {seed:?}", 2 * ROUNDS);
    cairn.run(["verify", "--level", "full", "--cache-dir", "fresh"]).expect(0);
    // Temporary files of the dead do not pile up for ever, and are no objects.
    let listed = cairn.run(["snapshots", "--json"]).expect(0);
    assert!(listed.json("snapshot").len() > ROUNDS / 5, "{listed:?}");
}

#[test]
fn a_restore_killed_at_any_moment_is_completed_by_the_next() {
    let mut seed = Seed::new();
    let cairn = Cairn::with_repository();
    let source = make_source(&cairn, 0);
    let shown = source.to_str().expect("a temporary path is UTF-8").to_owned();
    cairn.run(["backup", &shown]).expect(0);
    let usual = timed(&cairn, &["restore", "latest", "--target", "usual"]);
    let mut killed = 0;
    for round in 0..ROUNDS {
        let target = format!("target-{round}");
        let arguments = ["restore", "latest", "--target", &target];
        for _ in 0..2 {
            let after = usual.mul_f64(seed.below(1_000) as f64 / 1_000.0);
            let dead = kill_after(cairn.cairn(arguments), after);
            killed += usize::from(dead);
            if !dead {
                break;
            }
        }
        // It continues, or was done: then the target is refused as it is not empty.
        let again = cairn.run(arguments);
        assert!(matches!(again.code, Some(0 | 4)), "{again:#?}");
        assert_same(&source, &inside(&cairn.path(&target), &source));
        std::fs::remove_dir_all(cairn.path(&target)).expect("the folder is removed");
    }
    assert!(killed > 0, "not one run was killed in time: {seed:?}");
}
