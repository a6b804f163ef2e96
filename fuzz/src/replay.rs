//! Runs every seed, and every input that ever was a finding, without a fuzzer.

use crate::seeds::folder;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 9] = [
    ("records", crate::records::run),
    ("tree_nodes", crate::tree_nodes::run),
    ("pack_parts", crate::pack_parts::run),
    ("parity", crate::parity::run),
    ("plain_objects", crate::plain_objects::run),
    ("sealed_objects", crate::sealed_objects::run),
    ("frames", crate::frames::run),
    ("texts", crate::texts::run),
    ("hostile_tree", crate::hostile_tree::run),
];

#[test]
fn seeds_and_regressions_pass() {
    let mut count = 0;
    for (target, run) in TARGETS {
        for of in ["seeds", "regressions"] {
            // There is a folder of regressions only for targets that had one.
            let Ok(files) = std::fs::read_dir(folder(of, target)) else { continue };
            for file in files {
                let path = file.unwrap().path();
                eprintln!("{}", path.display());
                run(&std::fs::read(&path).unwrap());
                count += 1;
            }
        }
    }
    assert!(count > 100, "only {count} inputs were found");
}
