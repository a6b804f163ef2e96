//! A repository in memory with a few small snapshots of streams, for tests that run one operation
//! very often.

use std::io::Cursor;
use std::sync::Arc;

use cairn_engine::chunk::CHUNKER_DEFAULT;
use cairn_engine::error::Error;
use cairn_engine::ops::backup::{self, BackupOptions, BackupReport, BackupSource};
use cairn_engine::ops::snapshots;
use cairn_engine::ops::verify::{self, Level, VerifyOptions};
use cairn_engine::repo::{InitOptions, Repository, init, keys};
use cairn_engine::store::memory::MemoryStore;
use cairn_format::certificate::Role;
use cairn_format::limits::PACK_BYTES_MIN;
use cairn_format::names::ObjectName;
use cairn_format::record::ChunkerSettings;

use crate::contents::{Files, contents};
use crate::lab::{Lab, OWNER, new_key};
use crate::seed::noise;

/// Bytes between those in which contents that are alike differ.
const DIFFERENCE_EVERY: usize = 900;
/// A key that backs up and cannot read.
pub const WRITER: &str = "writer";

/// A repository in memory, and what was backed up to it.
pub struct Ground {
    /// Surroundings.
    pub lab: Lab,
    /// The repository.
    pub store: MemoryStore,
}

/// What backups of this name hold: a file of their own, one that all share, and one that is like that
/// of others.
#[must_use]
pub fn files(name: &str) -> Files {
    let number = u64::from(name.bytes().fold(7_u8, |sum, byte| sum.wrapping_mul(31) ^ byte));
    let mut alike = noise(24_000, 1);
    let own = noise(alike.len(), number);
    let offset = usize::try_from(number).unwrap_or_default() % DIFFERENCE_EVERY;
    for (byte, own) in alike.iter_mut().zip(own).skip(offset).step_by(DIFFERENCE_EVERY) {
        *byte = own;
    }
    let own = noise(20_000, 1_000 + number);
    let shared = noise(30_000, 2);
    [("alike", alike), ("own", own), ("shared", shared)]
        .map(|(name, content)| (name.to_owned(), content))
        .into()
}

/// The job of a backup of this name: what stands before a dot.
fn job_of(name: &str) -> &str {
    name.split_once('.').map_or(name, |(job, _)| job)
}

/// Backs up what backups of this name hold, as streams, with the name for a tag.
///
/// # Errors
/// Those of [`backup::run`].
pub fn back_up(repository: &Repository, name: &str) -> Result<BackupReport, Error> {
    let sources = files(name).into_iter().map(|(name, content)| BackupSource::Stream {
        name,
        reader: Box::new(Cursor::new(content)),
    });
    let mut options = BackupOptions::new(job_of(name), sources.collect());
    options.tags = vec![name.to_owned()];
    backup::run(repository, options)
}

impl Ground {
    /// An empty repository with small chunks, and a key for writers.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let lab = Lab::new(seed);
        let store = MemoryStore::new();
        let sizes = ChunkerSettings {
            bytes_min: 1024,
            bytes_avg: 4096,
            bytes_max: 16384,
            ..CHUNKER_DEFAULT
        };
        let options = InitOptions {
            pack_bytes: PACK_BYTES_MIN,
            chunker: sizes,
            ..InitOptions::new(new_key(OWNER, Role::Owner))
        };
        init(&store, &options, &lab.context).expect("the repository is made");
        let ground = Self { lab, store };
        keys::add(&ground.owner(), &new_key(WRITER, Role::Writer)).expect("a key");
        ground
    }

    /// With these snapshots, made by hosts of which the next knows what the one before stored.
    ///
    /// # Panics
    /// When they cannot be made.
    #[must_use]
    pub fn with(seed: u64, names: &[&str]) -> Self {
        let ground = Self::new(seed);
        let host = ground.owner();
        for name in names {
            back_up(&host, name).expect("a backup");
        }
        drop(host);
        ground
    }

    /// The owner, as a host that knows nothing.
    ///
    /// # Panics
    /// When it does not open.
    #[must_use]
    pub fn owner(&self) -> Repository {
        self.owner_of(&self.store)
    }

    /// As [`Self::owner`], of another store.
    ///
    /// # Panics
    /// When it does not open.
    #[must_use]
    pub fn owner_of(&self, store: &MemoryStore) -> Repository {
        self.lab.open_alone(Arc::new(store.clone()), OWNER).expect("it opens")
    }

    /// Forgets the snapshot of this name.
    ///
    /// # Panics
    /// When there is none.
    pub fn forget(&self, name: &str) {
        let listed = snapshots::list(&self.owner()).expect("a list");
        let found =
            listed.iter().find(|snapshot| snapshot.record.tags.iter().any(|tag| tag == name));
        let found = found.expect("the snapshot");
        crate::garbage::forget(&self.owner(), &self.store, found);
    }

    /// Names of some objects.
    pub fn names(&self, wanted: impl Fn(&ObjectName) -> bool) -> Vec<ObjectName> {
        self.store.names().into_iter().filter(wanted).collect()
    }

    /// Snapshots of these names are there, acknowledged, and hold what was backed up.
    ///
    /// # Panics
    /// When one is not, or something else cannot be read.
    pub fn assert_there(&self, store: &MemoryStore, names: &[&str], what: &str) {
        let fresh = self.owner_of(store);
        let (listed, remarks) = snapshots::list_all(&fresh).expect("a list");
        assert!(remarks.is_empty(), "{what}: {remarks:?}");
        for name in names {
            let found =
                listed.iter().filter(|snapshot| snapshot.record.tags.iter().any(|tag| tag == name));
            let mut acknowledged = found.filter(|snapshot| snapshot.acknowledged).peekable();
            assert!(acknowledged.peek().is_some(), "{what}: {name} is not there");
            for snapshot in acknowledged {
                let held = contents(&fresh, snapshot);
                assert!(held == Ok(files(name)), "{what}: {name}: {:?}", held.err());
            }
        }
    }

    /// Verify finds nothing.
    ///
    /// # Panics
    /// When it does.
    pub fn assert_sound(&self, store: &MemoryStore, what: &str) {
        let report = verify::run(&self.owner_of(store), &VerifyOptions { level: Level::Full });
        let findings = report.expect("verify runs").findings;
        assert!(findings.is_empty(), "{what}: {findings:?}");
    }
}
