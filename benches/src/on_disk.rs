//! A repository on a local disk that is made once and used by several programs, under a clock that they
//! set.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use cairn_engine::chunk::CHUNKER_DEFAULT;
use cairn_engine::context::{Clock, Context, INDEX_MEMORY_BYTES_DEFAULT, Monitor};
use cairn_engine::repo::{InitOptions, NewKey, Repository, init};
use cairn_engine::seal::{Lock, OsRandom, Role, SecretBytes, Unlock};
use cairn_engine::store::local::LocalStore;
use cairn_engine::timings::Timings;
use cairn_format::record::ChunkerSettings;

/// Whatever went wrong: who runs a benchmark is told, nobody handles it.
pub type Failure = Box<dyn std::error::Error>;

/// Milliseconds of an hour.
pub const HOUR_MS: i64 = 3_600_000;

/// Somewhen in 2033, milliseconds since 1970.
const START_MS: i64 = 2_000_000_000_000;

/// A key file costs nothing to open; Argon2's price is not what is measured.
const KEY: [u8; 32] = [7; 32];

/// A clock that is a millisecond on whenever it is looked at.
pub struct SetClock(AtomicI64);

impl SetClock {
    /// So many hours after the beginning.
    #[must_use]
    pub const fn at_hour(hour: i64) -> Self {
        Self(AtomicI64::new(START_MS + hour * HOUR_MS))
    }

    /// Lets time pass.
    pub fn advance_ms(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now_ms(&self) -> i64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

fn secret() -> SecretBytes {
    SecretBytes::new(KEY.to_vec())
}

/// Surroundings of a repository below `work`.
///
/// # Errors
/// When there is no randomness.
pub fn context(
    work: &Path,
    clock: Arc<dyn Clock>,
    monitor: Arc<dyn Monitor>,
) -> Result<Context, Failure> {
    Ok(Context {
        clock,
        random: Arc::new(OsRandom::new()?),
        monitor,
        host: "bench".into(),
        user: "bench".into(),
        program: "cairn-benches".into(),
        cache_dir: work.join("cache"),
        index_memory_bytes: INDEX_MEMORY_BYTES_DEFAULT,
        timings: Timings::default(),
    })
}

/// Whether there is one below `work`.
#[must_use]
pub fn is_made(work: &Path) -> bool {
    work.join("repository").exists()
}

/// Makes one whose chunks have this many bytes in the mean.
///
/// # Errors
/// When there is one, or the disk fails.
pub fn make(work: &Path, chunk_bytes: u32, context: &Context) -> Result<(), Failure> {
    let key = NewKey { label: "bench".into(), role: Role::Owner, lock: Lock::KeyFile(secret()) };
    let (bytes_min, bytes_max) = (chunk_bytes / 4, chunk_bytes * 4);
    let chunker =
        ChunkerSettings { bytes_min, bytes_avg: chunk_bytes, bytes_max, ..CHUNKER_DEFAULT };
    let options = InitOptions { chunker, ..InitOptions::new(key) };
    init(&LocalStore::create(&work.join("repository"))?, &options, context)?;
    Ok(())
}

/// Opens it, as a command does.
///
/// # Errors
/// When there is none.
pub fn open(work: &Path, context: &Context) -> Result<Repository, Failure> {
    let store = LocalStore::open(&work.join("repository"))?;
    Ok(Repository::open(Arc::new(store), &Unlock::KeyFile(secret()), context)?)
}

/// What the kernel tells of this process's memory in a line of its status, MiB: `VmRSS:`, `VmHWM:`.
///
/// # Errors
/// When it does not tell.
pub fn memory_mib(line: &str) -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|each| each.strip_prefix(line));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kib.ok_or("there is no such line")? >> 10)
}

/// Writes a line of results.
pub fn say(line: &str) {
    // Whoever closed the other end does not want to know.
    let _lost = writeln!(std::io::stdout(), "{line}");
}
