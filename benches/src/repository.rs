//! A repository in memory, with its local index in a folder that goes with it.

use std::path::PathBuf;
use std::sync::Arc;

use cairn_engine::context::{Context, INDEX_MEMORY_BYTES_DEFAULT, Silent, SystemClock};
use cairn_engine::error::Error;
use cairn_engine::ops::backup::{self, BackupOptions, BackupReport, BackupSource};
use cairn_engine::repo::{InitOptions, NewKey, Repository, init};
use cairn_engine::seal::{Lock, Role, SecretBytes, SeededRandom, Unlock};
use cairn_engine::store::memory::MemoryStore;
use tempfile::TempDir;

use crate::tree::scratch;

/// A key file costs nothing to open; Argon2's price is not what is measured.
const KEY: [u8; 32] = [7; 32];

/// An open repository, and what has to live as long as it.
pub struct InMemory {
    /// The repository.
    pub repository: Repository,
    _cache: TempDir,
}

impl InMemory {
    /// A new and empty repository with the usual settings.
    ///
    /// # Errors
    /// When the engine fails, or there is no room for the local index.
    pub fn new() -> Result<Self, Error> {
        let cache = scratch();
        let context = Context {
            clock: Arc::new(SystemClock),
            random: Arc::new(SeededRandom::new(1)),
            monitor: Arc::new(Silent),
            host: "bench".into(),
            user: "bench".into(),
            program: "cairn-benches".into(),
            cache_dir: cache.path().to_owned(),
            index_memory_bytes: INDEX_MEMORY_BYTES_DEFAULT,
            timings: cairn_engine::timings::Timings::default(),
        };
        let store = MemoryStore::new();
        let secret = || SecretBytes::new(KEY.to_vec());
        let lock = Lock::KeyFile(secret());
        let key = NewKey { label: "bench".into(), role: Role::Owner, lock };
        init(&store, &InitOptions::new(key), &context)?;
        let repository = Repository::open(Arc::new(store), &Unlock::KeyFile(secret()), &context)?;
        Ok(Self { repository, _cache: cache })
    }

    /// Backs `source` up; with `reread` also what seems unchanged is read.
    ///
    /// # Errors
    /// When the backup fails.
    pub fn back_up(&self, source: PathBuf, reread: bool) -> Result<BackupReport, Error> {
        let sources = vec![BackupSource::Path(source)];
        let options = BackupOptions { reread, ..BackupOptions::new("bench", sources) };
        backup::run(&self.repository, options)
    }
}
