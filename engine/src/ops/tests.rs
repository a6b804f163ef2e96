//! Goal: what is backed up comes back, through the public operations, over a store in memory.
//! Method: make a tree, back it up, change it, back it up again, restore both, compare.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_format::certificate::Role;
use cairn_format::envelope::Cipher;
use cairn_format::slot::Argon2Costs;

use super::backup::{self, BackupOptions, BackupSource};
use super::restore::{self, RestoreOptions};
use super::verify::{self, Level, VerifyOptions};
use super::{repair_index, snapshots};
use crate::context::{Context, Silent, SystemClock};
use crate::repo::{InitOptions, NewKey, Repository, init, keys};
use crate::seal::{Lock, SecretBytes, SeededRandom, Unlock};
use crate::store::Store;
use crate::store::memory::MemoryStore;

struct Fixture {
    folder: tempfile::TempDir,
    store: MemoryStore,
    context: Context,
}

fn lock(passphrase: &str) -> Lock {
    Lock::Passphrase {
        passphrase: SecretBytes::new(passphrase.into()),
        costs: Argon2Costs { memory_kib: 19 * 1024, passes: 2, lanes: 1 },
    }
}

fn unlock(passphrase: &str) -> Unlock {
    Unlock::Passphrase(SecretBytes::new(passphrase.into()))
}

impl Fixture {
    fn new(cipher: Cipher) -> Self {
        Self::with_packs(cipher, 1 << 20)
    }

    fn with_packs(cipher: Cipher, pack_bytes: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let context = Context {
            clock: Arc::new(SystemClock),
            random: Arc::new(SeededRandom::new(7)),
            monitor: Arc::new(Silent),
            host: "host".into(),
            user: "user".into(),
            program: "test".into(),
            cache_dir: folder.path().join("cache"),
            index_memory_bytes: 16 << 20,
            timings: crate::timings::Timings::default(),
        };
        let store = MemoryStore::new();
        let key = NewKey { label: "first".into(), role: Role::Owner, lock: lock("secret") };
        let options = InitOptions { cipher, pack_bytes, ..InitOptions::new(key) };
        init(&store, &options, &context).unwrap();
        Self { folder, store, context }
    }

    fn open(&self) -> Repository {
        self.open_with("secret", "cache")
    }

    fn open_with(&self, passphrase: &str, cache: &str) -> Repository {
        let context = Context { cache_dir: self.folder.path().join(cache), ..self.context.clone() };
        Repository::open(Arc::new(self.store.clone()), &unlock(passphrase), &context).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn restore(&self, repository: &Repository, selector: &str, source: &Path) -> PathBuf {
        let snapshot = snapshots::select(repository, selector).unwrap();
        let target = self.path(&format!("restored-{}", snapshot.id.short()));
        let options = RestoreOptions::new(snapshot, target.clone());
        let report = restore::run(repository, &options).unwrap();
        assert_eq!(report.failure_count, 0, "{:?}", report.failures);
        target.join(source.strip_prefix("/").unwrap())
    }
}

fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
    data
}

fn make_tree(root: &Path) {
    std::fs::create_dir_all(root.join("deep/er/empty")).unwrap();
    std::fs::write(root.join("deep/large"), noise(9_000_000, 1)).unwrap();
    std::fs::write(root.join("deep/er/text"), "customer,order\n".repeat(200_000)).unwrap();
    std::fs::write(root.join("empty"), "").unwrap();
    for number in 0..300 {
        std::fs::write(root.join(format!("small-{number:03}")), noise(number * 7, number as u64))
            .unwrap();
    }
    std::os::unix::fs::symlink("deep/large", root.join("link")).unwrap();
    std::fs::hard_link(root.join("deep/large"), root.join("second-name")).unwrap();
}

fn contents(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let below = path.strip_prefix(root).unwrap().to_path_buf();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                found.push((below, b"directory".to_vec()));
                folders.push(path);
            } else if meta.is_symlink() {
                let target = std::fs::read_link(&path).unwrap();
                found.push((below, target.as_os_str().as_encoded_bytes().to_vec()));
            } else {
                found.push((below, std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn two_backups_restore_to_what_was_there_with_either_cipher() {
    for cipher in [Cipher::Aes256Gcm, Cipher::XChaCha20Poly1305] {
        let fixture = Fixture::new(cipher);
        let source = fixture.path("source");
        make_tree(&source);
        let repository = fixture.open();
        let options = || BackupOptions::new("job", vec![BackupSource::Path(source.clone())]);
        let first = backup::run(&repository, options()).unwrap();
        assert_eq!(first.unread_count, 0, "{:?}", first.unread);
        let before = contents(&source);

        std::fs::write(source.join("deep/er/text"), "another,order\n".repeat(200_000)).unwrap();
        std::fs::remove_file(source.join("small-007")).unwrap();
        std::fs::write(source.join("new"), noise(5_000, 9)).unwrap();
        let second = backup::run(&repository, options()).unwrap();
        assert!(second.statistics.bytes_new < 4_000_000, "{:?}", second.statistics);
        let after = contents(&source);

        // A new process with an empty cache sees the same.
        let fresh = fixture.open_with("secret", "other-cache");
        assert_eq!(contents(&fixture.restore(&fresh, "latest~1", &source)), before);
        assert_eq!(contents(&fixture.restore(&fresh, "latest", &source)), after);
        let report = verify::run(&fresh, &VerifyOptions { level: Level::Full }).unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        assert_eq!(report.packs_checked, report.packs_total);
    }
}

#[test]
fn an_unchanged_tree_stores_almost_nothing() {
    let fixture = Fixture::new(Cipher::Aes256Gcm);
    let source = fixture.path("source");
    make_tree(&source);
    std::thread::sleep(std::time::Duration::from_millis(2_200));
    let repository = fixture.open();
    let options = || BackupOptions::new("job", vec![BackupSource::Path(source.clone())]);
    backup::run(&repository, options()).unwrap();
    let second = backup::run(&repository, options()).unwrap();
    assert_eq!(second.statistics.bytes_read, 0);
    assert_eq!(second.statistics.bytes_new, 0);
    assert_eq!(second.statistics.files, 304);
}

#[test]
fn the_index_is_rebuilt_from_packs_alone() {
    let fixture = Fixture::new(Cipher::Aes256Gcm);
    let source = fixture.path("source");
    make_tree(&source);
    let repository = fixture.open();
    let options = BackupOptions::new("job", vec![BackupSource::Path(source.clone())]);
    backup::run(&repository, options).unwrap();
    for name in fixture.store.names() {
        if matches!(name, cairn_format::names::ObjectName::Index(_)) {
            fixture.store.delete(&name).unwrap();
        }
    }
    let fresh = fixture.open_with("secret", "empty-cache");
    let report = repair_index::run(&fresh, false).unwrap();
    assert!(report.packs_added > 1 && report.segments_written == 1, "{report:?}");
    let again = fixture.open_with("secret", "third-cache");
    assert_eq!(contents(&fixture.restore(&again, "latest", &source)), contents(&source));
}

#[test]
fn a_writer_backs_up_and_deduplicates_but_cannot_read() {
    let fixture = Fixture::new(Cipher::Aes256Gcm);
    let source = fixture.path("source");
    make_tree(&source);
    let owner = fixture.open();
    let key = NewKey { label: "host".into(), role: Role::Writer, lock: lock("writer") };
    keys::add(&owner, &key).unwrap();

    let writer = fixture.open_with("writer", "writer-cache");
    let options = || BackupOptions::new("job", vec![BackupSource::Path(source.clone())]);
    backup::run(&writer, options()).unwrap();
    let fresh = fixture.open_with("writer", "second-writer-cache");
    let second = backup::run(&fresh, options()).unwrap();
    assert!(second.statistics.bytes_read > 0);
    assert_eq!(second.statistics.bytes_new, 0, "its own chunks are known to it");
    assert!(snapshots::list(&writer).is_err());

    let owner = fixture.open_with("secret", "owner-cache");
    assert_eq!(contents(&fixture.restore(&owner, "latest", &source)), contents(&source));
    let own = backup::run(&owner, options()).unwrap();
    assert!(own.statistics.bytes_new > 9_000_000, "an owner does not rely on a writer's packs");
}

#[test]
fn several_streams_stand_in_one_snapshot() {
    let fixture = Fixture::new(Cipher::Aes256Gcm);
    let repository = fixture.open();
    let stream = |name: &str, text: &str| BackupSource::Command {
        name: name.into(),
        argv: ["printf".into(), text.into()].to_vec(),
    };
    let sources = vec![stream("b.sql", "second"), stream("a.sql", "first")];
    backup::run(&repository, BackupOptions::new("dumps", sources)).unwrap();
    let snapshot = snapshots::select(&repository, "latest").unwrap();
    for (path, text) in [("/a.sql", "first"), ("/b.sql", "second")] {
        let mut out = Vec::new();
        super::dump::run(&repository, &snapshot, path.as_bytes(), &mut out).unwrap();
        assert_eq!(out, text.as_bytes());
    }
    let broken = vec![
        stream("a.sql", "first"),
        BackupSource::Command { name: "b.sql".into(), argv: vec!["false".into()] },
    ];
    assert!(backup::run(&repository, BackupOptions::new("dumps", broken)).is_err());
    assert_eq!(snapshots::list(&repository).unwrap().len(), 1);
}

/// Goal: verify reads packs whose last frame and whose end lie in different reads; it once computed
/// a negative length there. Method: packs of every length around the size of a read.
#[test]
fn packs_that_end_just_behind_a_read_verify() {
    let fixture = Fixture::with_packs(Cipher::Aes256Gcm, 32 << 20);
    let repository = fixture.open();
    for step in 0..40 {
        let data = noise((4 << 20) - 320_000 + step * 8_192, step as u64);
        let reader = Box::new(std::io::Cursor::new(data));
        let source = BackupSource::Stream { name: "stream".into(), reader };
        backup::run(&repository, BackupOptions::new("job", vec![source])).unwrap();
    }
    let report = verify::run(&repository, &VerifyOptions { level: Level::Full }).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(report.packs_checked, report.packs_total);
}
