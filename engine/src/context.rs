//! What the engine is given instead of reaching for it: the clock, randomness, who is asking, and
//! where progress goes. Everything that a test wants to control stands here.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Explain;
use crate::timings::Timings;

/// The wall clock. Never trusted for safety; retention and display only.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> i64;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        jiff::Timestamp::now().as_millisecond()
    }
}

/// What is counted while an operation runs; one meaning each, so that progress, reports and tests
/// read the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Counter {
    /// Entries seen in the source, of any kind.
    EntriesScanned,
    /// Regular files and streams finished.
    FilesDone,
    /// Files recognised as unchanged without reading them.
    FilesUnchanged,
    /// Bytes in files recognised as unchanged.
    BytesUnchanged,
    /// Bytes read from the source.
    BytesRead,
    /// Bytes in chunks that were not known before.
    BytesNew,
    /// Bytes put into the store.
    BytesStored,
    /// Packs put into the store.
    PacksStored,
    /// Bytes fetched from the store.
    BytesFetched,
    /// Bytes written to a restore target.
    BytesRestored,
    /// Files and other entries restored.
    EntriesRestored,
    /// Packs verified.
    PacksVerified,
    /// Bytes of packs verified.
    BytesVerified,
    /// Damaged or missing things found.
    Findings,
}

/// A remark on one thing, made while the operation goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Stable dotted name, e.g. `source.unreadable`.
    pub code: &'static str,
    /// The thing: a path, an object name.
    pub subject: String,
    /// The fact.
    pub message: String,
}

impl Remark {
    /// What an error says of a thing.
    pub fn of(subject: impl ToString, error: &(impl Explain + ToString)) -> Self {
        Self { code: error.code(), subject: subject.to_string(), message: error.to_string() }
    }
}

/// Receives progress. Called from many threads.
pub trait Monitor: Send + Sync {
    /// Adds to a counter.
    fn count(&self, counter: Counter, amount: u64);
    /// The stage that begins now, and the total of its leading counter where it is known.
    fn stage(&self, name: &'static str, total: Option<(Counter, u64)>);
    /// A warning: the operation continues, the thing named is not as wished.
    fn warn(&self, remark: Remark);
    /// Whether [`Self::total`] is worth a second walk through the source.
    fn wants_total(&self) -> bool {
        false
    }
    /// The total of the leading counter of the present stage, found while it runs.
    fn total(&self, _counter: Counter, _total: u64) {}
    /// True when the person asked to stop; operations end soon and cleanly.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Forgets everything it is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn count(&self, _: Counter, _: u64) {}
    fn stage(&self, _: &'static str, _: Option<(Counter, u64)>) {}
    fn warn(&self, _: Remark) {}
}

/// Surroundings of every operation.
#[derive(Clone)]
pub struct Context {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Source of all randomness.
    pub random: Arc<dyn crate::seal::random::Random>,
    /// Where progress goes.
    pub monitor: Arc<dyn Monitor>,
    /// Name of this host.
    pub host: String,
    /// Name of the user.
    pub user: String,
    /// Program and version, recorded in snapshots.
    pub program: String,
    /// Folder for local caches; one sub-folder a repository is made in it.
    pub cache_dir: PathBuf,
    /// Memory the local index may use, bytes.
    pub index_memory_bytes: u64,
    /// Where the time goes, for those who ask.
    pub timings: Timings,
}

/// Memory the local index may use unless told otherwise, bytes.
pub const INDEX_MEMORY_BYTES_DEFAULT: u64 = 48 << 20;

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("host", &self.host)
            .field("user", &self.user)
            .field("cache_dir", &self.cache_dir)
            .finish_non_exhaustive()
    }
}
