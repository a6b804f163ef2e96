//! Opening: folders, locks, damage, and the process that comes second.
//!
//! ```text
//! <cache>/<repository>-<copy>/
//!     lock                      held by the process that writes `db`
//!     db/                       RocksDB
//!     manifest                  how long RocksDB's list of tables was at least
//!     damaged                   says that `db` must not be used again
//!     load-*                    files of a load that is under way
//!     old-<random>/             about to be deleted
//!     handover-<random>/        what an overlay leaves: see `handover`
//!     overlay-<pid>-<random>/   what another process keeps for itself, until it ends
//!         lock                  held by that process
//!         db/                   RocksDB
//! ```
//!
//! Locks are advisory locks of the system: they end with their process, so no clock is needed to
//! recognise what a dead process left.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::db::{Access, Budget, Db, OWN_IDENTITY, Table, Trouble, trouble};
use super::handover;
use super::index::RocksIndex;
use super::layers::Layers;
use super::remove::Forget;
use crate::index::local::{CopyId, IndexError, LocalOptions, Opened};

/// Layout of the database; another number means that it is begun anew.
const LAYOUT: u32 = 2;
const LOCK: &str = "lock";
pub(super) const DATABASE: &str = "db";
const DAMAGED: &str = "damaged";
const MANIFEST: &str = "manifest";
const OLD: &str = "old-";
const OVERLAY: &str = "overlay-";
/// Begins the names of files that a load builds.
pub(super) const LOAD_FILES: &str = "load-";
/// How often the second process tries to read a database that changes under it.
const BASE_ATTEMPTS: u32 = 20;
/// Pause between these attempts: less than half a second in all.
const BASE_PAUSE: Duration = Duration::from_millis(20);
/// How often a folder or lock is tried again when another process removes it meanwhile.
const RACE_ATTEMPTS: u32 = 16;

/// What an open index holds until its databases are closed.
pub(super) enum Guard {
    /// The right to write the database.
    Primary {
        /// Given back when dropped.
        _lock: HeldLock,
    },
    /// A folder that ends with the index.
    Overlay {
        /// Shows other processes that the folder is in use.
        _lock: HeldLock,
        /// The folder.
        folder: PathBuf,
        /// Its name while it waits for the next process that writes the database; `None` when
        /// nothing in it is worth that.
        handover: Option<PathBuf>,
    },
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Self::Overlay { folder, handover, .. } = self {
            // What fails here is left for the next process to sweep.
            let _ = match handover {
                Some(name) => fs::rename(folder, name),
                None => fs::remove_dir_all(folder),
            };
        }
    }
}

/// See [`crate::index::local::open`].
pub(in crate::index::local) fn open(
    cache: &Path,
    copy: CopyId,
    options: LocalOptions,
) -> Result<Opened, IndexError> {
    let root = cache.join(copy.folder());
    let lock = make_folder_and_lock(&root)?;
    sweep(&root, lock.is_some())?;
    match lock {
        Some(lock) => open_primary(&root, lock, copy, options),
        None => open_overlay(&root, copy, options),
    }
}

/// See [`crate::index::local::destroy`].
pub(in crate::index::local) fn destroy(cache: &Path, copy: CopyId) -> Result<(), IndexError> {
    let root = cache.join(copy.folder());
    if !root.exists() {
        return Ok(());
    }
    let lock = make_folder_and_lock(&root)?;
    note_damage(&root, "it was to be deleted");
    if lock.is_some() {
        discard_database(&root)?;
        sweep(&root, true)?;
    }
    Ok(())
}

/// Notes that the database must not be used again. Nothing can be done when this fails.
pub(super) fn note_damage(root: &Path, reason: &str) {
    let _ = fs::write(root.join(DAMAGED), reason);
}

fn open_primary(
    root: &Path,
    lock: HeldLock,
    copy: CopyId,
    options: LocalOptions,
) -> Result<Opened, IndexError> {
    let mut rebuilt_because = damage_noted(root);
    if rebuilt_because.is_some() {
        discard_database(root)?;
    }
    let mut index = match try_primary(root, copy, options) {
        Ok(index) => index,
        Err(Unusable::Failed(error)) => return Err(error),
        Err(Unusable::Damaged(reason)) => {
            rebuilt_because = Some(reason);
            discard_database(root)?;
            try_primary(root, copy, options).map_err(|again| match again {
                Unusable::Failed(error) => error,
                Unusable::Damaged(reason) => IndexError::Store { folder: root.to_owned(), reason },
            })?
        }
    };
    handover::take_all(&index, root, copy, options)?;
    index.guard = Some(Guard::Primary { _lock: lock });
    Ok(Opened { index: Arc::new(index), rebuilt_because, shared: false })
}

/// Why a database cannot be used.
pub(super) enum Unusable {
    /// A new one helps.
    Damaged(String),
    /// A new one would fail as well.
    Failed(IndexError),
}

impl From<IndexError> for Unusable {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Corrupt { reason, .. } => Self::Damaged(reason),
            error => Self::Failed(error),
        }
    }
}

/// At opening, everything that is not the system's refusal counts as damage: a database that
/// does not open is of no use.
fn unusable(root: &Path, error: &rocksdb::Error) -> Unusable {
    let folder = root.to_owned();
    let reason = error.as_ref().to_owned();
    match trouble(&error.kind(), error.as_ref()) {
        Trouble::Space => Unusable::Failed(IndexError::NoSpace { folder }),
        Trouble::Refusal => Unusable::Failed(IndexError::Store { folder, reason }),
        Trouble::Damage | Trouble::Other => Unusable::Damaged(reason),
    }
}

pub(super) fn try_primary(
    root: &Path,
    copy: CopyId,
    options: LocalOptions,
) -> Result<RocksIndex, Unusable> {
    if manifest_is_cut(root) {
        return Err(Unusable::Damaged("its list of tables was cut".to_owned()));
    }
    let budget = Budget::new(options);
    let path = root.join(DATABASE);
    let db = Db::open(&path, root, &path, Access::Kept, &budget)
        .map_err(|error| unusable(root, &error))?;
    if db.is_new() {
        put_identity(&db, copy)?;
    } else {
        check_identity(&db, copy)?;
    }
    let layers = Layers::new(db, None);
    Ok(RocksIndex::new(layers, budget, root.to_owned(), Forget::Loading)?)
}

fn identity(copy: CopyId) -> Vec<u8> {
    [LAYOUT.to_le_bytes().as_slice(), copy.to_bytes().as_slice()].concat()
}

fn put_identity(db: &Db, copy: CopyId) -> Result<(), IndexError> {
    let mut batch = rocksdb::WriteBatch::default();
    db.put(&mut batch, Table::Own, OWN_IDENTITY, &identity(copy))?;
    db.write(batch)
}

pub(super) fn check_identity(db: &Db, copy: CopyId) -> Result<(), Unusable> {
    let stored = db.get(Table::Own, OWN_IDENTITY)?;
    match stored {
        Some(stored) if stored == identity(copy) => Ok(()),
        Some(stored) if stored.get(..4) == Some(LAYOUT.to_le_bytes().as_slice()) => {
            Err(Unusable::Damaged("it belongs to another repository".to_owned()))
        }
        Some(_) => Err(Unusable::Damaged("it has another layout".to_owned())),
        None => Err(Unusable::Damaged("it does not say whose it is".to_owned())),
    }
}

fn open_overlay(root: &Path, copy: CopyId, options: LocalOptions) -> Result<Opened, IndexError> {
    let (folder, lock) = make_overlay(root)?;
    let guard = Guard::Overlay { _lock: lock, folder: folder.clone(), handover: None };
    let (mut base, mut rebuilt_because) = match open_base(root, &folder, copy, options) {
        Ok(base) => (Some(base), None),
        Err(reason) => (None, Some(reason)),
    };
    loop {
        let over_base = base.is_some();
        match try_overlay(root, &folder, copy, options, base.take()) {
            Ok(mut index) => {
                index.guard = Some(guard);
                return Ok(Opened { index: Arc::new(index), rebuilt_because, shared: true });
            }
            // The base turned out damaged: do without.
            Err(Unusable::Damaged(reason)) if over_base => {
                rebuilt_because = Some(reason);
                remove_tree(&folder.join(DATABASE))?;
            }
            Err(Unusable::Damaged(reason)) => {
                return Err(IndexError::Store { folder: root.to_owned(), reason });
            }
            Err(Unusable::Failed(error)) => return Err(error),
        }
    }
}

fn try_overlay(
    root: &Path,
    folder: &Path,
    copy: CopyId,
    options: LocalOptions,
    base: Option<(Db, Budget)>,
) -> Result<RocksIndex, Unusable> {
    let (base, budget) = match base {
        Some((base, budget)) => (Some(base), budget),
        None => (None, Budget::new(options)),
    };
    let path = folder.join(DATABASE);
    let top = Db::open(&path, root, &path, Access::Private, &budget)
        .map_err(|error| unusable(root, &error))?;
    put_identity(&top, copy)?;
    let layers = Layers::new(top, base);
    Ok(RocksIndex::new(layers, budget, folder.to_owned(), Forget::LoadingAndPending)?)
}

/// Opens the database another process writes, as it is at one moment; or says why that is
/// not possible.
fn open_base(
    root: &Path,
    overlay: &Path,
    copy: CopyId,
    options: LocalOptions,
) -> Result<(Db, Budget), String> {
    let path = root.join(DATABASE);
    let mut reason = "another process is just creating it".to_owned();
    for attempt in 0..BASE_ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(BASE_PAUSE);
        }
        if let Some(noted) = damage_noted(root) {
            reason = noted;
            continue;
        }
        let Some(before) = manifest(&path) else { continue };
        let budget = Budget::new(options);
        match Db::open(&path, root, overlay, Access::ReadOnly, &budget) {
            Err(error) => reason = error.into_string(),
            // RocksDB reads first the list of table files, then the logs. Were the newest log
            // turned into a table between the two, its content would be missing, while later
            // logs' would be there. Such a step changes the list.
            Ok(_) if manifest(&path) != Some(before) => {
                reason = "another process changes it all the time".to_owned();
            }
            Ok(base) => match check_identity(&base, copy) {
                Ok(()) => return Ok((base, budget)),
                Err(Unusable::Damaged(damage)) => reason = damage,
                Err(Unusable::Failed(error)) => reason = error.to_string(),
            },
        }
    }
    Err(reason)
}

/// Name and length of RocksDB's list of table files.
fn manifest(database: &Path) -> Option<(String, u64)> {
    let name = fs::read_to_string(database.join("CURRENT")).ok()?.trim_end().to_owned();
    let length = fs::metadata(database.join(&name)).ok()?.len();
    Some((name, length))
}

/// Notes how long the list of table files is. RocksDB takes a list that was cut for a shorter
/// one: then tables would be forgotten while the log goes on from them.
pub(super) fn note_manifest(root: &Path) {
    if let Some((name, length)) = manifest(&root.join(DATABASE)) {
        // Without the note a cut is not found, which takes a second mishap to matter.
        let _ = fs::write(root.join(MANIFEST), format!("{name} {length}"));
    }
}

/// Whether the list of table files is shorter than it was.
fn manifest_is_cut(root: &Path) -> bool {
    let Some((name, length)) = manifest(&root.join(DATABASE)) else { return false };
    let noted = fs::read_to_string(root.join(MANIFEST)).unwrap_or_default();
    noted.split_once(' ').is_some_and(|(noted_name, noted_length)| {
        noted_name == name && noted_length.parse::<u64>().is_ok_and(|noted| length < noted)
    })
}

fn damage_noted(root: &Path) -> Option<String> {
    let noted = fs::read(root.join(DAMAGED)).ok()?;
    Some(String::from_utf8_lossy(&noted).into_owned())
}

/// Makes the folder, and takes its lock unless another process holds it.
fn make_folder_and_lock(root: &Path) -> Result<Option<HeldLock>, IndexError> {
    for _ in 0..RACE_ATTEMPTS {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(IndexError::io("create the folder", root))?;
        match take_lock(root)? {
            Lock::Taken(lock) => return Ok(Some(lock)),
            Lock::Busy => return Ok(None),
            Lock::Gone => {}
        }
    }
    Err(IndexError::io("lock", root)(ErrorKind::ResourceBusy.into()))
}

/// A lock that ends when this is dropped, and not later: a process that is just being started has
/// copies of all open files until it executes its program, and a copy would hold the lock.
pub(super) struct HeldLock(File);

impl Drop for HeldLock {
    fn drop(&mut self) {
        // If this fails, the lock ends when the last copy of the file is closed.
        let _ = self.0.unlock();
    }
}

enum Lock {
    Taken(HeldLock),
    Busy,
    /// The folder was removed meanwhile.
    Gone,
}

fn take_lock(folder: &Path) -> Result<Lock, IndexError> {
    let path = folder.join(LOCK);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let lock = match options.open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Lock::Gone),
        Err(error) => return Err(IndexError::io("open", &path)(error)),
    };
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Lock::Busy),
        Err(TryLockError::Error(error)) => return Err(IndexError::io("lock", &path)(error)),
    }
    // Locked, but is it still the file of that name?
    let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    let lock = HeldLock(lock);
    match (lock.0.metadata(), fs::metadata(&path)) {
        (Ok(held), Ok(named)) if same(&held, &named) => Ok(Lock::Taken(lock)),
        _ => Ok(Lock::Gone),
    }
}

fn make_overlay(root: &Path) -> Result<(PathBuf, HeldLock), IndexError> {
    for _ in 0..RACE_ATTEMPTS {
        let name = format!("{OVERLAY}{}-{}", std::process::id(), random_name(root)?);
        let folder = root.join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(IndexError::io("create the folder", &folder))?;
        if let Lock::Taken(lock) = take_lock(&folder)? {
            return Ok((folder, lock));
        }
        // Another process took it for a dead one's: leave it to that one.
    }
    Err(IndexError::io("lock an overlay in", root)(ErrorKind::ResourceBusy.into()))
}

pub(super) fn random_name(root: &Path) -> Result<String, IndexError> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)
        .map_err(|error| IndexError::io("choose a name in", root)(io::Error::other(error)))?;
    Ok(cairn_format::hex::encode(&random))
}

/// Puts the database aside and deletes it. Only for the holder of the lock. A process that
/// reads it keeps its open files.
fn discard_database(root: &Path) -> Result<(), IndexError> {
    let path = root.join(DATABASE);
    // Renamed first, so that a half-deleted database is never found under its name.
    let old = root.join(format!("{OLD}{}", random_name(root)?));
    match fs::rename(&path, &old) {
        Ok(()) => remove_tree(&old)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(IndexError::io("move away", &path)(error)),
    }
    let noted = root.join(DAMAGED);
    match fs::remove_file(&noted) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(IndexError::io("delete", &noted)(error))
        }
        _ => Ok(()),
    }
}

/// Deletes what dead processes left.
fn sweep(root: &Path, primary: bool) -> Result<(), IndexError> {
    let list = |error| IndexError::io("list", root)(error);
    for entry in fs::read_dir(root).map_err(list)? {
        let entry = entry.map_err(list)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with(OVERLAY) {
            if let Lock::Taken(lock) = take_lock(&entry.path())? {
                match remove_tree(&entry.path()) {
                    // Another process made the lock anew when it was deleted here: it sweeps too.
                    Err(IndexError::Io { source, .. })
                        if source.kind() == ErrorKind::DirectoryNotEmpty => {}
                    outcome => outcome?,
                }
                drop(lock);
            }
        } else if primary && name.starts_with(OLD) {
            remove_tree(&entry.path())?;
        } else if primary && name.starts_with(LOAD_FILES) {
            fs::remove_file(entry.path()).map_err(IndexError::io("delete", &entry.path()))?;
        }
    }
    Ok(())
}

pub(super) fn remove_tree(path: &Path) -> Result<(), IndexError> {
    let outcome = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match outcome {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(IndexError::io("delete", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dead_processes_left_is_swept_by_many_at_once() {
        let root = tempfile::tempdir().unwrap();
        for _ in 0..200 {
            for _ in 0..8 {
                let folder =
                    root.path().join(format!("{OVERLAY}1-{}", random_name(root.path()).unwrap()));
                fs::create_dir_all(folder.join("database")).unwrap();
                for name in [LOCK, "one", "two", "database/three"] {
                    fs::write(folder.join(name), name).unwrap();
                }
            }
            std::thread::scope(|scope| {
                let sweepers = [(); 4].map(|()| scope.spawn(|| sweep(root.path(), false)));
                for sweeper in sweepers {
                    sweeper.join().unwrap().unwrap();
                }
            });
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_copy_of_the_open_file_does_not_keep_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let Lock::Taken(held) = take_lock(folder.path()).unwrap() else { panic!("it is free") };
        assert!(matches!(take_lock(folder.path()).unwrap(), Lock::Busy));
        // As a process has that is being started by another thread.
        let copy = held.0.try_clone().unwrap();
        drop(held);
        assert!(matches!(take_lock(folder.path()).unwrap(), Lock::Taken(_)));
        drop(copy);
    }
}
