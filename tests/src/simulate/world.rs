//! The repository that simulations begin with.

use std::path::PathBuf;
use std::sync::Arc;

use cairn_engine::chunk::CHUNKER_DEFAULT;
use cairn_engine::context::{Context, Silent};
use cairn_engine::error::Error;
use cairn_engine::repo::{InitOptions, Repository, init, keys};
use cairn_engine::seal::{SeededRandom, memo};
use cairn_engine::store::Store;
use cairn_engine::store::memory::MemoryStore;
use cairn_format::certificate::Role;
use cairn_format::limits::PACK_BYTES_MIN;
use cairn_format::record::ChunkerSettings;

use crate::lab::{Lab, OWNER, TestClock, new_key, unlock};
use crate::seed::Seed;

/// Name of the key that backs up and cannot read.
pub(super) const WRITER: &str = "writer";
/// Name of the key that collects and cannot back up.
pub(super) const MAINTAINER: &str = "maintainer";

/// How many years clocks of actors are off, at most.
const YEARS_OFF: i64 = 10;
const YEAR_MS: i64 = 365 * 24 * 60 * 60 * 1000;

/// A repository to start from; making it is the slow part.
pub struct World {
    lab: Lab,
    pub(super) store: MemoryStore,
}

impl World {
    /// A repository with three keys.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn new() -> Self {
        memo::remember_results();
        let lab = Lab::new(77);
        let store = MemoryStore::new();
        let options = InitOptions {
            pack_bytes: PACK_BYTES_MIN,
            chunker: ChunkerSettings {
                bytes_min: 1024,
                bytes_avg: 4096,
                bytes_max: 16384,
                ..CHUNKER_DEFAULT
            },
            ..InitOptions::new(new_key(OWNER, Role::Owner))
        };
        init(&store, &options, &lab.context).expect("the repository is made");
        let world = Self { lab, store };
        let owner = world.open(Arc::new(world.store.clone()), OWNER, 1);
        keys::add(&owner, &new_key(WRITER, Role::Writer)).expect("a key");
        keys::add(&owner, &new_key(MAINTAINER, Role::Maintainer)).expect("a key");
        world
    }

    /// Opens the repository with an index of its own, in memory.
    pub(super) fn open(&self, store: Arc<dyn Store>, key: &str, seed: u64) -> Repository {
        self.try_open(store, key, seed).expect("the repository opens")
    }

    pub(super) fn try_open(
        &self,
        store: Arc<dyn Store>,
        key: &str,
        seed: u64,
    ) -> Result<Repository, Error> {
        self.open_at(store, key, seed, clock_of(seed))
    }

    /// As an owner whose clock is ahead of all others by far more than a day.
    pub(super) fn open_late(&self, store: Arc<dyn Store>, seed: u64) -> Result<Repository, Error> {
        self.open_at(store, OWNER, seed, TestClock::START_MS + (YEARS_OFF + 1) * YEAR_MS)
    }

    fn open_at(
        &self,
        store: Arc<dyn Store>,
        key: &str,
        seed: u64,
        clock_ms: i64,
    ) -> Result<Repository, Error> {
        let context = Context {
            clock: Arc::new(TestClock::starting_at(clock_ms)),
            random: Arc::new(SeededRandom::new(seed)),
            monitor: Arc::new(Silent),
            cache_dir: PathBuf::new(),
            ..self.lab.context.clone()
        };
        Repository::open(store, &unlock(key), &context)
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// When the clock of an actor begins: some are years off, which must not matter.
fn clock_of(seed: u64) -> i64 {
    const YEARS_MS: i64 = YEARS_OFF * YEAR_MS;
    let offset = match Seed::of(seed).below(8) {
        0 => YEARS_MS,
        1 => -YEARS_MS,
        2 => 60 * 60 * 1000,
        _ => 0,
    };
    TestClock::START_MS + offset + i64::try_from(seed % 997).unwrap_or_default() * 1000
}
