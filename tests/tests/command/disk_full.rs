//! Goal: a full disk for the store, the cache or the target is said, named and leaves nothing
//! broken; with room again the same command completes.
//! Method: a tmpfs of a few MiB, mounted for the one process in a mount namespace of its own; and,
//! where neither root nor a namespace may mount, a limit on the length of files, which every user
//! can set.

use cairn_tests::compare::assert_same;
use cairn_tests::lab::inside;
use cairn_tests::process::{Cairn, Ran};
use cairn_tests::say;
use cairn_tests::seed::noise;
use cairn_tests::tree;

const SOURCE_BYTES: usize = 12 << 20;

fn scene() -> (Cairn, std::path::PathBuf) {
    let cairn = Cairn::with_repository();
    let source = cairn.path("source");
    tree::small(&source, 20, 1);
    std::fs::write(source.join("large"), noise(SOURCE_BYTES, 2)).expect("a file");
    tree::settle(&source);
    (cairn, source)
}

fn assert_says_full(ran: &Ran) {
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    let said = ["space", "full"].iter().any(|word| ran.stderr.contains(word));
    assert!(said, "the reason is not told: {ran:#?}");
}

/// Whether this user may mount in a namespace. Where not, the tests of file limits stand alone,
/// and say so.
fn can_mount(cairn: &Cairn) -> bool {
    let ran = cairn.run_with_mounts("mount -t tmpfs none \"$1\"", ["home"]);
    if ran.code != Some(0) {
        say(&format!("no mounts here, only file limits are tested: {}", ran.stderr.trim()));
    }
    ran.code == Some(0)
}

#[test]
fn a_full_store_is_told_and_the_backup_completes_with_room_again() {
    let (cairn, source) = scene();
    if !can_mount(&cairn) {
        return a_store_that_takes_no_long_files(&cairn, &source);
    }
    // The repository is copied into a small file system and back again when that is full.
    let script = r#"
        cp -a repository saved && mount -t tmpfs -o size=5m none repository &&
        cp -a saved/. repository/ && cairn backup "$1"; code=$?
        cairn verify --level full --cache-dir fresh || exit 99
        rm -rf saved && cp -a repository saved; exit $code"#;
    let ran = cairn.run_with_mounts(script, [&source]);
    assert_says_full(&ran);
    std::fs::remove_dir_all(cairn.path("repository")).expect("removed");
    std::fs::rename(cairn.path("saved"), cairn.path("repository")).expect("renamed");
    cairn.run(["snapshots", "--json"]).expect(0);
    let source_shown = source.to_str().expect("a temporary path is UTF-8");
    cairn.run(["backup", source_shown]).expect(0);
    assert_same(&source, &inside(&cairn.restored("latest", "target"), &source));
    cairn.run(["verify", "--level", "full"]).expect(0);
}

fn a_store_that_takes_no_long_files(cairn: &Cairn, source: &std::path::Path) {
    let mut command = cairn.command("sh");
    // In blocks of 512 bytes: packs are longer, records are not. Without the trap the signal kills.
    command.args(["-c", "trap '' XFSZ; ulimit -f 512; exec \"$0\" backup \"$1\""]);
    command.arg(cairn_tests::process::cairn_path()).arg(source);
    let ran = Ran::from(command.output().expect("sh starts"));
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    cairn.run(["backup", source.to_str().expect("UTF-8")]).expect(0);
    assert_same(source, &inside(&cairn.restored("latest", "target-limited"), source));
}

#[test]
fn a_limit_on_the_length_of_files_is_told_and_the_backup_completes_without_it() {
    let (cairn, source) = scene();
    a_store_that_takes_no_long_files(&cairn, &source);
}

#[test]
fn a_full_target_is_told_and_the_restore_completes_with_room_again() {
    let (cairn, source) = scene();
    cairn.run(["backup", source.to_str().expect("UTF-8")]).expect(0);
    std::fs::create_dir(cairn.path("target")).expect("a folder");
    if can_mount(&cairn) {
        // What is there when it is full goes to where there is room.
        let script = r#"
            mount -t tmpfs -o size=5m none target && cairn restore latest --target target; code=$?
            mkdir after && cp -a target/. after/ || exit 98; exit $code"#;
        let ran = cairn.run_with_mounts(script, [""; 0]);
        assert_says_full(&ran);
        cairn.run(["restore", "latest", "--target", "after"]).expect(0);
        assert_same(&source, &inside(&cairn.path("after"), &source));
    }
    let mut command = cairn.command("sh");
    command
        .args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$0\" restore latest --target limited"]);
    command.arg(cairn_tests::process::cairn_path());
    let ran = Ran::from(command.output().expect("sh starts"));
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    // Files too long for the file system are reported one by one: that restore is over.
    cairn.run(["restore", "latest", "--target", "limited", "--delta"]).expect(0);
    assert_same(&source, &inside(&cairn.path("limited"), &source));
}

#[test]
fn a_full_cache_is_told_and_costs_no_data() {
    let (cairn, source) = scene();
    let shown = source.to_str().expect("UTF-8");
    cairn.run(["backup", shown]).expect(0);
    if can_mount(&cairn) {
        let script = r#"
            mkdir small && mount -t tmpfs -o size=256k none small || exit 98
            cairn backup --reread --cache-dir small "$1"; exit $?"#;
        let ran = cairn.run_with_mounts(script, [shown]);
        // A cache may do with less than it wants; what it may not do is fail in silence.
        if ran.code != Some(0) {
            assert_says_full(&ran);
        }
    }
    let mut command = cairn.command("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" ls latest --cache-dir limited"]);
    command.arg(cairn_tests::process::cairn_path());
    let ran = Ran::from(command.output().expect("sh starts"));
    assert!(matches!(ran.code, Some(0 | 1)), "{ran:#?}");
    assert!(ran.code == Some(0) || ran.stderr.contains("limited"), "{ran:#?}");
    cairn.run(["backup", shown]).expect(0);
    cairn.run(["verify", "--level", "full"]).expect(0);
    assert_same(&source, &inside(&cairn.restored("latest", "target"), &source));
}
