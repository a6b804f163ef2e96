//! Goal: whatever processes work on one repository at once, and whichever of them are killed when,
//! what a backup reported done and nobody forgot restores byte by byte; nothing is damaged, nothing
//! piles up, and nobody waits for the dead.
//! Method: half of all processes are killed at moments that follow from a printed seed, some are
//! stopped for a while; now and then everything rests and is looked at. `make torture` does this for
//! longer.

use std::time::Duration;

use cairn_tests::process::Cairn;
use cairn_tests::seed::Seed;
use cairn_tests::torture::{Plan, report, run};

#[test]
fn processes_killed_at_any_moment_lose_nothing_that_was_reported_done() {
    let seed = Seed::new();
    let plan = Plan {
        seed: seed.value(),
        duration: Duration::from_secs(12),
        quiet_every: Duration::from_secs(6),
        on_disk: false,
    };
    let course = run(&plan);
    let told = report(&plan, &course);
    assert!(course.violations.is_empty(), "{told}");
    cairn_tests::say(&told);
    assert!(course.killed() > 0 && course.reported > 0 && course.compared > 0, "{told}");
}

#[test]
fn what_dead_writers_left_unfinished_is_swept_by_backups_and_collections() {
    let cairn = Cairn::with_repository();
    std::fs::write(cairn.path("file"), "content").expect("a file");
    for arguments in [&["backup", "file"][..], &["gc"]] {
        let left = cairn.path("repository/tmp").join(format!("put-{}", "0".repeat(32)));
        std::fs::write(&left, "unfinished").expect("a file");
        cairn.run(arguments).expect(0);
        assert!(!left.exists(), "{arguments:?}");
    }
}
