//! Goal: peak memory of backup, verify and restore stays within 256 MiB whatever is backed up.
//! Method: about 1 GiB in one large file, many small ones and a sparse one; a dump over several days,
//! most of which is stored as deltas; the kernel's figure of each process. Nothing is asserted about
//! time.

use std::io::{BufWriter, Write as _};
use std::path::Path;

use cairn_tests::process::{Cairn, Used, files_below, measure};
use cairn_tests::say;
use cairn_tests::seed::noise;
use cairn_tests::tree;

const MEMORY_BYTES_MAX: u64 = 256 << 20;
const LARGE_BYTES: usize = 900 << 20;
const SMALL_FILES: usize = 10_000;
/// Rows of the dump on its first day, 110 bytes each, and days.
const ROWS: u64 = 1_600_000;
const DAYS: u64 = 4;
/// One of so many rows is another the next day, and one of so many is followed by a new one.
const ROWS_PER_EDIT: u64 = 250;
const ROWS_PER_INSERTION: u64 = 9_000;

fn make_source(source: &Path) {
    std::fs::create_dir(source).expect("a folder");
    let mut large = std::fs::File::create(source.join("large")).expect("a file");
    let part_bytes = 8 << 20;
    for part in 0..LARGE_BYTES / part_bytes {
        // A third is new and does not compress, a third compresses well, a third was seen before:
        // the store should not take longer than the test is worth.
        let data = match part % 3 {
            0 => noise(part_bytes, part as u64),
            1 => noise(part_bytes, part as u64).into_iter().map(|byte| byte & 3).collect(),
            _ => noise(part_bytes, part as u64 - 2),
        };
        large.write_all(&data).expect("written");
    }
    for folder in 0..SMALL_FILES / 1_000 {
        let path = source.join(format!("folder-{folder:02}"));
        std::fs::create_dir(&path).expect("a folder");
        for number in 0..1_000 {
            let content = noise(100 + number * 9, (folder * 1_000 + number) as u64);
            std::fs::write(path.join(format!("{number:04}")), content).expect("a file");
        }
    }
    tree::sparse(&source.join("sparse"), 1);
}

fn assert_modest(what: &str, used: &Used) {
    assert!(used.status.success(), "{what}: {used:#?}");
    say(&format!("{what}: {} MiB", used.memory_bytes >> 20));
    assert!(used.memory_bytes > 4 << 20, "{what}: the figure is not believable: {used:?}");
    assert!(used.memory_bytes <= MEMORY_BYTES_MAX, "{what}: {} MiB", used.memory_bytes >> 20);
}

#[test]
fn a_gibibyte_is_backed_up_verified_and_restored_within_256_mib() {
    let cairn = Cairn::on_disk();
    cairn.run(["init"]).expect(0);
    let source = cairn.path("source");
    make_source(&source);
    let source = source.to_str().expect("UTF-8").to_owned();
    let run = |arguments: &[&str]| measure(&mut cairn.cairn(arguments));
    assert_modest("backup", &run(&["backup", &source]));
    assert_modest("backup again", &run(&["backup", "--reread", &source]));
    std::fs::remove_dir_all(&source).expect("the disk may be small");
    assert_modest("verify", &run(&["verify", "--level", "full"]));
    assert_modest("index anew", &run(&["ls", "latest", "--cache-dir", "fresh"]));
    assert_modest("restore", &run(&["restore", "latest", "--target", "target"]));
    let large = std::fs::metadata(cairn.path("target").join(&source[1..]).join("large"));
    assert_eq!(large.expect("it is there").len(), LARGE_BYTES as u64 / (8 << 20) * (8 << 20));
}

/// A number that looks random and always is the same.
fn random(seed: u64) -> u64 {
    let mixed = (seed ^ (seed >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Writes the dump of a day.
fn write_dump(path: &Path, day: u64) {
    let mut dump = BufWriter::new(std::fs::File::create(path).expect("a file"));
    let mut write = |row: u64, version: u64| {
        let [a, b] = [1, 2].map(|n| random(random(row) ^ random(version << 8 | n)));
        writeln!(dump, "{row}\t{a:020}\tcustomer of Hamburg, to be called back\t{b:020}\topen")
            .expect("written");
    };
    for row in 0..ROWS {
        let edited =
            (1..=day).rev().find(|day| random(row << 8 | day).is_multiple_of(ROWS_PER_EDIT));
        write(row, edited.unwrap_or_default());
        for day in 1..=day {
            if random(row << 16 | day).is_multiple_of(ROWS_PER_INSERTION) {
                write(row, day << 32);
            }
        }
    }
    dump.flush().expect("written");
}

fn stored_bytes(cairn: &Cairn) -> u64 {
    let files = files_below(&cairn.path("repository"));
    files.iter().map(|file| std::fs::metadata(file).expect("it is there").len()).sum()
}

#[test]
fn days_of_a_dump_are_verified_and_restored_within_256_mib_each_frame_decoded_once() {
    let cairn = Cairn::on_disk();
    cairn.run(["init"]).expect(0);
    let dump = cairn.path("dump.sql");
    let path = dump.to_str().expect("UTF-8").to_owned();
    let run = |arguments: &[&str]| measure(&mut cairn.cairn(arguments));
    write_dump(&dump, 0);
    assert_modest("backup", &run(&["backup", &path]));
    let first_day = stored_bytes(&cairn);
    for day in 1..DAYS {
        write_dump(&dump, day);
        assert_modest("backup of a day of changes", &run(&["backup", &path]));
    }
    let deltas = stored_bytes(&cairn) - first_day;
    assert!(deltas < first_day / 5, "{deltas} bytes beside {first_day}: that is no deltas");
    assert_modest("verify", &run(&["verify", "--level", "full"]));
    assert_modest("restore", &run(&["restore", "latest", "--target", "target"]));
    let restored = cairn.path("target").join(&path[1..]);
    let same = std::fs::read(&restored).expect("restored") == std::fs::read(&dump).expect("a dump");
    assert!(same, "{}", restored.display());
    assert_each_frame_is_decoded_once(&cairn);
}

fn assert_each_frame_is_decoded_once(cairn: &Cairn) {
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    let snapshots = cairn.run(["snapshots", "--json"]).expect(0).json("snapshot");
    let new = snapshots.iter().map(|snapshot| number(&snapshot["bytes_new"])).sum::<u64>();
    let stats = cairn.run(["stats", "--json"]).expect(0).json("result");
    let all = new + number(&stats[0]["report"]["patch_bytes"]);
    let decoded = |arguments: &[&str]| {
        let timings = cairn.run(arguments).expect(0).json("timings");
        let stages = timings[0]["stages"].as_array().expect("a list");
        let stage = stages.iter().find(|stage| stage["stage"] == "decode");
        number(&stage.expect("it decodes")["bytes"])
    };
    let verified = decoded(&["verify", "--level", "full", "--timings", "--json"]);
    let restored = decoded(&["restore", "latest", "--target", "again", "--timings", "--json"]);
    say(&format!("decoded of {all}: {verified} to verify, {restored} to restore"));
    // A fiftieth for tree nodes.
    assert!(verified >= all && verified <= all / 50 * 51, "{verified} bytes decoded of {all}");
    assert!(restored <= verified, "{restored} bytes decoded of {verified}");
}
