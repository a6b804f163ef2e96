//! Goal: peak memory of backup, verify and restore stays within 256 MiB whatever is backed up.
//! Method: about 1 GiB in one large file, many small ones and a sparse one; the kernel's figure of
//! each process. Nothing is asserted about time.

use std::io::Write as _;
use std::path::Path;

use cairn_tests::process::{Cairn, Used, measure};
use cairn_tests::say;
use cairn_tests::seed::noise;
use cairn_tests::tree;

const MEMORY_BYTES_MAX: u64 = 256 << 20;
const LARGE_BYTES: usize = 900 << 20;
const SMALL_FILES: usize = 10_000;

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
