//! A repository and its surroundings for tests through the library: fixed clock, seeded
//! randomness, caches in a folder of their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use bytes::Bytes;
use cairn_engine::context::{Clock, Context, Counter, Monitor, Remark, Silent};
use cairn_engine::error::Error;
use cairn_engine::ops::backup::{self, BackupOptions, BackupReport, BackupSource};
use cairn_engine::ops::restore::{self, RestoreOptions, RestoreReport};
use cairn_engine::ops::snapshots::{self, SnapshotInfo};
use cairn_engine::ops::verify::{self, Level, VerifyOptions, VerifyReport};
use cairn_engine::parity::Parity;
use cairn_engine::repo::{InitOptions, NewKey, Repository, init};
use cairn_engine::seal::{Lock, SecretBytes, SeededRandom, Unlock};
use cairn_engine::store::Store;
use cairn_engine::store::memory::MemoryStore;
use cairn_format::certificate::Role;
use cairn_format::envelope::Cipher;
use cairn_format::limits::PACK_BYTES_MIN;
use cairn_format::names::ObjectName;
use parking_lot::Mutex;
use rustix::fs::{XattrFlags, setxattr};

/// A clock that stands still unless told otherwise, milliseconds since 1970.
#[derive(Debug)]
pub struct TestClock(AtomicI64);

impl TestClock {
    /// Where clocks of a [`Lab`] begin: in 2033, after every time a file of a test can have.
    pub const START_MS: i64 = 2_000_000_000_000;

    /// A clock that begins at a time.
    #[must_use]
    pub const fn starting_at(now_ms: i64) -> Self {
        Self(AtomicI64::new(now_ms))
    }

    /// Sets the time.
    pub fn set_ms(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        // A little later at every look, as clocks are.
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// Keeps the warnings it is told.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<Vec<Remark>>);

impl Warnings {
    /// Those kept so far.
    #[must_use]
    pub fn all(&self) -> Vec<Remark> {
        self.0.lock().clone()
    }
}

impl Monitor for Warnings {
    fn count(&self, _: Counter, _: u64) {}
    fn stage(&self, _: &'static str, _: Option<(Counter, u64)>) {}
    fn warn(&self, remark: Remark) {
        self.0.lock().push(remark);
    }
}

/// Asks to stop when so much was counted.
#[derive(Debug)]
pub struct StopAfter {
    left: AtomicU64,
    what: Option<Counter>,
}

impl StopAfter {
    /// After this amount of one counter, or of all of them together.
    #[must_use]
    pub const fn new(amount: u64, what: Option<Counter>) -> Self {
        Self { left: AtomicU64::new(amount), what }
    }
}

impl Monitor for StopAfter {
    fn count(&self, counter: Counter, amount: u64) {
        if self.what.is_none_or(|what| what == counter) {
            let left = self.left.load(Ordering::SeqCst);
            self.left.store(left.saturating_sub(amount), Ordering::SeqCst);
        }
    }
    fn stage(&self, _: &'static str, _: Option<(Counter, u64)>) {}
    fn warn(&self, _: Remark) {}
    fn is_cancelled(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

/// A folder for sources, targets and caches, and what repositories are opened with.
pub struct Lab {
    folder: tempfile::TempDir,
    /// What every repository of this lab is opened with, but for the cache folder.
    pub context: Context,
    /// Its clock.
    pub clock: Arc<TestClock>,
}

/// Room in memory from which on labs are there, bytes.
const MEMORY_FOLDER_BYTES_MIN: u64 = 2 << 30;

/// A folder in memory, where the machine has room for it and it keeps extended attributes: making
/// a hundred thousand small files durable is not what these tests are about.
#[must_use]
pub fn memory_folder() -> Option<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(memory).ok()?;
    if room.f_bavail.saturating_mul(room.f_frsize) < MEMORY_FOLDER_BYTES_MIN {
        return None;
    }
    let folder = tempfile::tempdir_in(memory).ok()?;
    setxattr(folder.path(), "user.probe", b"value", XattrFlags::empty()).ok()?;
    Some(folder)
}

/// Material of the key file called `name`.
fn key_material(name: &str) -> SecretBytes {
    SecretBytes::new(blake3::hash(name.as_bytes()).as_bytes().to_vec())
}

/// A key file that [`unlock`] of the same name opens. Costs no Argon2.
#[must_use]
pub fn lock(name: &str) -> Lock {
    Lock::KeyFile(key_material(name))
}

/// Opens what [`lock`] of this name locked.
#[must_use]
pub fn unlock(name: &str) -> Unlock {
    Unlock::KeyFile(key_material(name))
}

/// Writes the owner's key file into the lab's folder; returns its path.
///
/// # Panics
/// When that is not possible.
#[must_use]
pub fn write_key_file(lab: &Lab) -> String {
    let path = lab.path("owner.key");
    std::fs::write(&path, blake3::hash(OWNER.as_bytes()).as_bytes()).expect("a file");
    path.into_os_string().into_string().expect("a temporary path is UTF-8")
}

/// A key that is to be added.
#[must_use]
pub fn new_key(name: &str, role: Role) -> NewKey {
    NewKey { label: name.to_owned(), role, lock: lock(name) }
}

/// Name of the key every lab's repository is made with.
pub const OWNER: &str = "owner";

impl Lab {
    /// A lab whose random bytes follow from `seed`.
    ///
    /// # Panics
    /// When there is no room for temporary files.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let folder = memory_folder().map_or_else(tempfile::tempdir, Ok);
        let folder = folder.expect("a temporary folder");
        let clock = Arc::new(TestClock(AtomicI64::new(TestClock::START_MS)));
        let context = Context {
            clock: clock.clone(),
            random: Arc::new(SeededRandom::new(seed)),
            monitor: Arc::new(Silent),
            host: "host".to_owned(),
            user: "user".to_owned(),
            program: "cairn-tests".to_owned(),
            cache_dir: folder.path().join("cache"),
            index_memory_bytes: 16 << 20,
            timings: cairn_engine::timings::Timings::default(),
        };
        Self { folder, context, clock }
    }

    /// A path in the lab's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder of the cache of this name.
    #[must_use]
    pub fn cache(&self, name: &str) -> PathBuf {
        self.path(name)
    }

    /// Makes a repository with the smallest packs.
    ///
    /// # Panics
    /// When that fails.
    pub fn init(&self, store: &dyn Store, cipher: Cipher) {
        self.init_with(store, cipher, None);
    }

    /// The same, with parity.
    ///
    /// # Panics
    /// When that fails.
    pub fn init_with(&self, store: &dyn Store, cipher: Cipher, parity: Option<Parity>) {
        let options = InitOptions {
            cipher,
            pack_bytes: PACK_BYTES_MIN,
            parity,
            ..InitOptions::new(new_key(OWNER, Role::Owner))
        };
        init(store, &options, &self.context).expect("the repository is made");
    }

    /// A new repository in memory.
    #[must_use]
    pub fn memory(&self) -> MemoryStore {
        let store = MemoryStore::new();
        self.init(&store, Cipher::Aes256Gcm);
        store
    }

    /// Opens a repository as its owner, with the cache of this name.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn open(&self, store: &(impl Store + Clone + 'static), cache: &str) -> Repository {
        self.try_open(store, OWNER, cache).expect("the repository opens")
    }

    /// Opens a repository with a key and a cache.
    ///
    /// # Errors
    /// Those of [`Repository::open`].
    pub fn try_open(
        &self,
        store: &(impl Store + Clone + 'static),
        key: &str,
        cache: &str,
    ) -> Result<Repository, Error> {
        let context = Context { cache_dir: self.cache(cache), ..self.context.clone() };
        Repository::open(Arc::new(store.clone()), &unlock(key), &context)
    }

    /// Opens a repository as its owner, with the cache of this name and a monitor.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn open_watched(
        &self,
        store: &(impl Store + Clone + 'static),
        cache: &str,
        monitor: Arc<dyn Monitor>,
    ) -> Repository {
        let context = Context { cache_dir: self.cache(cache), monitor, ..self.context.clone() };
        let opened = Repository::open(Arc::new(store.clone()), &unlock(OWNER), &context);
        opened.expect("the repository opens")
    }

    /// Opens a repository with a key and an index in memory: as a host that knows nothing.
    ///
    /// # Errors
    /// Those of [`Repository::open`].
    pub fn open_alone(&self, store: Arc<dyn Store>, key: &str) -> Result<Repository, Error> {
        let context = Context { cache_dir: PathBuf::new(), ..self.context.clone() };
        Repository::open(store, &unlock(key), &context)
    }

    /// Restores a snapshot into a new folder; returns the folder and the report.
    ///
    /// # Errors
    /// Those of [`restore::run`].
    pub fn restore(
        &self,
        repository: &Repository,
        snapshot: &SnapshotInfo,
        keep_going: bool,
    ) -> Result<(PathBuf, RestoreReport), Error> {
        let target = tempfile::Builder::new()
            .prefix("restored-")
            .tempdir_in(self.folder.path())
            .expect("a folder to restore to")
            .keep();
        let options =
            RestoreOptions { keep_going, ..RestoreOptions::new(snapshot.clone(), target.clone()) };
        restore::run(repository, &options).map(|report| (target, report))
    }
}

/// Does something by one thread of its own: the same every time, and without taking up the work of
/// others where it waits for them.
///
/// # Panics
/// When there can be no further thread.
pub fn alone<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.expect("a thread").install(work)
}

/// Backs up one path as the job `job`.
///
/// # Errors
/// Those of [`backup::run`].
pub fn back_up(repository: &Repository, source: &Path) -> Result<BackupReport, Error> {
    let source = BackupSource::Path(source.to_path_buf());
    backup::run(repository, BackupOptions::new("job", vec![source]))
}

/// Verifies everything.
///
/// # Panics
/// When that is not possible.
#[must_use]
pub fn verify_full(repository: &Repository) -> VerifyReport {
    verify::run(repository, &VerifyOptions { level: Level::Full }).expect("verify runs")
}

/// The snapshot a selector means.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn select(repository: &Repository, selector: &str) -> SnapshotInfo {
    snapshots::select(repository, selector).expect("the snapshot is there")
}

/// Where a source lies in a folder it was restored to.
#[must_use]
pub fn inside(target: &Path, source: &Path) -> PathBuf {
    target.join(source.strip_prefix("/").unwrap_or(source))
}

/// A store in memory with the same objects, which then go their own ways.
///
/// # Panics
/// Never: what is named is there.
#[must_use]
pub fn copy_of(store: &MemoryStore) -> MemoryStore {
    let copy = MemoryStore::new();
    for name in store.names() {
        copy.overwrite(name, object(store, &name));
    }
    copy
}

/// An object's bytes.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn object(store: &dyn Store, name: &ObjectName) -> Bytes {
    store.get(name, u64::MAX).expect("the object is there")
}
