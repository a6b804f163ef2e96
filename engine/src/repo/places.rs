//! What this host remembers of the places it has found repositories in: which copy was there. So a
//! wrong bucket, or the empty folder where a disk should be mounted, is not taken for the copy
//! that belongs there. Like the local index it is a cache: without it nothing is noticed, and
//! nothing is lost.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use cairn_format::ids::{ReplicaId, RepositoryId};
use serde::{Deserialize, Serialize};

use super::Repository;
use crate::context::Remark;
use crate::error::Error;
use crate::index::local::{self, CopyId};

/// Folder below the folder of caches.
const FOLDER: &str = "places";
/// Digits of the hash of a location that name its file.
const NAME_DIGITS: usize = 32;
/// Longest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// File that is locked while one of the others is changed.
const LOCK: &str = "lock";

/// What was found in a place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The place, as a URL or an absolute path.
    pub location: String,
    /// Id of the repository, hexadecimal.
    pub repository: String,
    /// Id of the copy, hexadecimal, if it had one.
    pub replica: Option<String>,
    /// The owner's public key, hexadecimal.
    pub owner_key: String,
    /// When it was last seen there, milliseconds since 1970.
    pub seen_ms: i64,
    /// What came of replications to it.
    #[serde(default)]
    pub replication: Option<Replication>,
}

/// What this host knows of its replications to a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Replication {
    /// When the last one began, milliseconds since 1970.
    pub tried_ms: i64,
    /// When the last one began after which it had everything that it is to have.
    pub done_ms: Option<i64>,
    /// When the last one began that went through everything, also where something could not be
    /// copied.
    pub ran_ms: Option<i64>,
    /// Snapshots that the rules want and that were there after that one.
    pub snapshots: u64,
    /// When the newest snapshot was committed up to which it has all that it is to have.
    pub newest_ms: Option<i64>,
    /// Bytes of packs written to it by the last one.
    pub bytes_last: u64,
    /// Bytes of packs written to it by all of them.
    pub bytes_total: u64,
    /// Since when data of snapshots that were forgotten may be there.
    pub dead_since_ms: Option<i64>,
    /// How often it was noted that something expires there.
    pub dead_notes: u64,
    /// Whether something may have expired there of which this host does not know.
    pub unclear: bool,
    /// The highest sequence of receipts there that this host accounts for: with others, somebody else
    /// has forgotten something there.
    pub receipts: Option<u64>,
    /// Key slots that came from the home copy, hexadecimal.
    pub slots: Vec<String>,
    /// Why the last one failed, or what it left undone.
    pub failure: Option<String>,
    /// The same of the last one that copied a single snapshot.
    pub failure_single: Option<String>,
}

/// Name of the file in which something is remembered of a place, whatever its location consists of.
#[must_use]
pub fn file_name(location: &str) -> String {
    let mut name = blake3::hash(location.as_bytes()).to_hex().to_string();
    name.truncate(NAME_DIGITS);
    name
}

/// Replaces a file of the cache as a whole, and makes its folder: who reads it meanwhile has the one or
/// the other. Not made durable.
///
/// # Errors
/// When the folder cannot be written.
pub fn replace_file(file: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let unfinished = file.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&unfinished, content)?;
    fs::rename(&unfinished, file)
}

/// The memory of places of one host.
#[derive(Clone, Debug)]
pub struct Places {
    folder: PathBuf,
}

impl Places {
    /// The memory in a folder of caches; `None` when nothing is kept.
    #[must_use]
    pub fn new(cache_dir: &Path) -> Option<Self> {
        (!cache_dir.as_os_str().is_empty()).then(|| Self { folder: cache_dir.join(FOLDER) })
    }

    fn file(&self, location: &str) -> PathBuf {
        self.folder.join(file_name(location))
    }

    /// What was found in a place; nothing if that is not known, or cannot be understood.
    #[must_use]
    pub fn recall(&self, location: &str) -> Option<Place> {
        let place = read(&self.file(location))?;
        (place.location == location).then_some(place)
    }

    /// Everything remembered, sorted by location.
    #[must_use]
    pub fn all(&self) -> Vec<Place> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut places = entries.filter_map(|entry| read(&entry.path())).collect::<Vec<_>>();
        places.sort_by(|one, other| one.location.cmp(&other.location));
        places
    }

    /// Remembers what is in a place.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn remember(&self, place: &Place) -> io::Result<()> {
        let _held = self.hold()?;
        self.write(place)
    }

    /// Changes what is known of replications to a place, as it stands by now; returns it. Nothing
    /// where the place is not known.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn change(
        &self,
        location: &str,
        change: impl FnOnce(&mut Replication),
    ) -> io::Result<Option<Replication>> {
        let _held = self.hold()?;
        let Some(mut place) = self.recall(location) else { return Ok(None) };
        change(place.replication.get_or_insert_default());
        self.write(&place)?;
        Ok(place.replication)
    }

    /// Keeps other processes and threads from changing anything while it is held. File systems that
    /// lock nothing keep nobody.
    fn hold(&self) -> io::Result<fs::File> {
        fs::create_dir_all(&self.folder)?;
        let file = fs::File::options().create(true).append(true).open(self.folder.join(LOCK))?;
        match file.lock() {
            Err(error) if error.kind() != ErrorKind::Unsupported => Err(error),
            _ => Ok(file),
        }
    }

    fn write(&self, place: &Place) -> io::Result<()> {
        replace_file(&self.file(&place.location), &serde_json::to_vec_pretty(place)?)
    }

    /// Forgets what was in a place; false when nothing was known.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn forget(&self, location: &str) -> io::Result<bool> {
        match fs::remove_file(self.file(location)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Forgets every place that held a repository whose id begins so.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn forget_repository(&self, prefix: &str) -> io::Result<()> {
        for place in self.all().iter().filter(|place| place.repository.starts_with(prefix)) {
            self.forget(&place.location)?;
        }
        Ok(())
    }

    /// Refuses to take a place for empty in which a repository was known.
    ///
    /// # Errors
    /// [`Error::PlaceEmpty`].
    pub fn require_unknown(&self, location: &str) -> Result<(), Error> {
        match self.recall(location) {
            None => Ok(()),
            Some(place) => Err(Error::PlaceEmpty {
                location: location.to_owned(),
                repository: place.repository,
            }),
        }
    }

    /// Refuses a place where another copy was known than there is, of which these are the identities:
    /// before anything is changed there.
    ///
    /// # Errors
    /// [`Error::PlaceChanged`].
    pub fn require_same(
        &self,
        location: &str,
        repository: RepositoryId,
        present: &[ReplicaId],
    ) -> Result<(), Error> {
        match self.recall(location) {
            Some(known) => self.compare(&known, repository, present),
            None => Ok(()),
        }
    }

    /// Compares an opened repository with what was in its place before, and remembers it. To be called
    /// before its index is opened.
    ///
    /// # Errors
    /// [`Error::PlaceChanged`], [`Error::OwnerChanged`]; failures of the store. What cannot be
    /// written down is warned about.
    pub fn check(&self, location: &str, repository: &Repository) -> Result<(), Error> {
        let id = repository.id();
        let owner_key = hex(&repository.config.owner_key);
        let present = repository.replicas()?;
        self.require_same(location, id, present)?;
        let same = |place: &Place| place.repository == id.to_hex();
        if self.all().iter().any(|place| same(place) && place.owner_key != owner_key) {
            return Err(Error::OwnerChanged { location: location.to_owned() });
        }
        self.distrust_moved(location, repository, present.first().copied())?;
        let place = Place {
            location: location.to_owned(),
            repository: id.to_hex(),
            replica: present.first().map(ReplicaId::to_hex),
            owner_key,
            seen_ms: repository.context.clock.now_ms(),
            replication: None,
        };
        let remembered = self.hold().and_then(|_held| {
            // What came of replications may have been written meanwhile.
            let replication = self.recall(location).and_then(|known| known.replication);
            self.write(&Place { replication, ..place })
        });
        if let Err(error) = remembered {
            repository.monitor().warn(Remark {
                code: "place.remember",
                subject: location.to_owned(),
                message: format!("which copy is there is not remembered: {error}"),
            });
        }
        Ok(())
    }

    /// Files of a repository may have been copied, identity and all. So what the local index says of a
    /// copy is believed only where that copy was seen last.
    fn distrust_moved(
        &self,
        location: &str,
        repository: &Repository,
        replica: Option<ReplicaId>,
    ) -> Result<(), Error> {
        let (id, hex) = (repository.id().to_hex(), replica.map(|replica| replica.to_hex()));
        let all = self.all();
        let same = all.iter().filter(|place| place.repository == id && place.replica == hex);
        let last = same.max_by_key(|place| place.seen_ms);
        if last.is_none_or(|last| last.location == location) {
            return Ok(());
        }
        let copy = CopyId { repository: repository.id(), replica };
        Ok(local::destroy(&repository.context.cache_dir, copy)?)
    }

    fn compare(&self, known: &Place, id: RepositoryId, present: &[ReplicaId]) -> Result<(), Error> {
        let changed = |expected: String, found: String| {
            Err(Error::PlaceChanged { location: known.location.clone(), expected, found })
        };
        if known.repository != id.to_hex() {
            return changed(
                format!("repository {}", known.repository),
                format!("repository {}", id.to_hex()),
            );
        }
        let Some(expected) = &known.replica else { return Ok(()) };
        if present.iter().any(|replica| replica.to_hex() == *expected) {
            return Ok(());
        }
        let found = match present.first() {
            Some(replica) => format!("copy {}", replica.to_hex()),
            None => "a copy without identity".to_owned(),
        };
        changed(format!("copy {expected}"), found)
    }
}

fn read(path: &Path) -> Option<Place> {
    if fs::metadata(path).ok()?.len() > FILE_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_found_again_and_can_be_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::new(folder.path()).unwrap();
        let place = Place {
            location: "/a".to_owned(),
            repository: "00".to_owned(),
            replication: Some(Replication { bytes_last: 7, ..Replication::default() }),
            ..Place::default()
        };
        assert_eq!(places.recall("/a"), None);
        places.remember(&place).unwrap();
        places.remember(&Place { location: "/b".to_owned(), ..place.clone() }).unwrap();
        assert_eq!(places.recall("/a"), Some(place));
        assert_eq!(places.all().len(), 2);
        assert!(places.require_unknown("/a").is_err());
        assert!(places.forget("/a").unwrap() && !places.forget("/a").unwrap());
        assert!(places.require_unknown("/a").is_ok());
        places.forget_repository("01").unwrap();
        assert_eq!(places.all().len(), 1);
        places.forget_repository("0").unwrap();
        assert!(places.all().is_empty());
        assert!(Places::new(Path::new("")).is_none());
    }

    #[test]
    fn what_cannot_be_understood_is_not_known() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::new(folder.path()).unwrap();
        fs::create_dir_all(folder.path().join(FOLDER)).unwrap();
        fs::write(places.file("/a"), b"{").unwrap();
        assert_eq!(places.recall("/a"), None);
        assert!(places.all().is_empty());
    }
}
