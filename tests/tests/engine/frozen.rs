//! Goal: what an earlier version of cairn wrote is read for ever.
//! Method: restore every snapshot of the frozen repositories, with the present code and with the
//! independent reader, and compare with what was written down when they were made.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_engine::ops::snapshots;
use cairn_engine::repo::Repository;
use cairn_engine::seal::{SecretBytes, Unlock};
use cairn_engine::store::local::LocalStore;
use cairn_tests::compare::{listing, look};
use cairn_tests::frozen::{ERASED, LEFT_OUT, PASSPHRASE, REMADE, REPOSITORIES, copy, folder};
use cairn_tests::lab::{Lab, back_up, verify_full};
use cairn_tests::{reader, tree};

/// The listing of each snapshot, by its id.
fn expected(cipher: &str) -> BTreeMap<String, String> {
    let path = folder().join(format!("{cipher}.txt"));
    let text = std::fs::read_to_string(&path).expect("what was written down");
    let mut snapshots = BTreeMap::new();
    for part in text.split("snapshot ").skip(1) {
        let (id, lines) = part.split_once('\n').expect("an id");
        snapshots.insert(id.to_owned(), lines.to_owned());
    }
    assert_eq!(snapshots.len(), 3, "an owner's, a writer's, one with bases");
    snapshots
}

#[test]
fn frozen_repositories_restore_to_what_was_written_down() {
    for cipher in REPOSITORIES {
        let lab = Lab::new(90);
        let place = lab.path("repository");
        copy(&folder().join(cipher), &place);
        let store = LocalStore::open(&place).expect("it is there");
        let unlock = Unlock::Passphrase(SecretBytes::new(PASSPHRASE.as_bytes().to_vec()));
        let repository =
            Repository::open(Arc::new(store), &unlock, &lab.context).expect("it opens");
        let found = verify_full(&repository);
        assert!(found.findings.is_empty(), "{cipher}: {:?}", found.findings);
        let mut expected = expected(cipher);
        for snapshot in snapshots::list(&repository).expect("a list") {
            let is_remade = cipher == REMADE && snapshot.record.job == "frozen";
            assert_eq!(snapshot.former().len(), usize::from(is_remade), "{cipher}");
            let (target, report) = lab.restore(&repository, &snapshot, false).expect("it restores");
            assert_eq!(report.failure_count, 0, "{cipher}: {:?}", report.failures);
            let wanted = expected.remove(&snapshot.id.to_hex()).expect("it was written down");
            assert_eq!(listing(&look(&target), &LEFT_OUT), wanted, "{cipher} {}", snapshot.id);
            assert!(cipher != REMADE || !wanted.contains(ERASED));
        }
        assert!(expected.is_empty(), "{cipher} lacks {:?}", expected.keys());
        // And it is still a repository like any other.
        let source = lab.path("source");
        tree::small(&source, 5, 1);
        back_up(&repository, &source).expect("the backup");
        let found = verify_full(&repository);
        assert!(found.findings.is_empty(), "{cipher}: {:?}", found.findings);
    }
}

#[test]
fn the_independent_reader_restores_frozen_repositories() {
    for cipher in REPOSITORIES {
        let lab = Lab::new(91);
        let password = lab.path("password");
        std::fs::write(&password, PASSPHRASE).expect("a file");
        let password = password.to_str().expect("a temporary path is UTF-8");
        for (id, wanted) in expected(cipher) {
            for from_packs in [false, true] {
                let target = lab.path(&format!("{}-{from_packs}", &id[..8]));
                let place = folder().join(cipher);
                reader::restore(&place, ["--password-file", password], &id, &target, from_packs);
                assert_eq!(listing(&look(&target), &LEFT_OUT), wanted, "{cipher} {id}");
            }
        }
    }
}
