//! Where objects lie: one trait, the stores behind it, and what makes them safe to use.
//!
//! Every object but `format` is named by the BLAKE3 of its stored bytes and written once, so
//! writing one twice is harmless and a damaged one may be replaced by the right bytes. Nothing
//! here relies on a wall clock, on an exclusive lock or on a conditional write of a server.

pub mod away;
mod disk;
pub mod error;
pub mod fault;
pub mod forward;
pub mod local;
pub mod location;
pub mod lock;
pub mod memory;
#[cfg(feature = "object-stores")]
pub mod object;
pub mod options;
#[cfg(feature = "object-stores")]
mod pace;
pub mod patient;
pub mod profile;
pub mod record;
#[cfg(feature = "object-stores")]
mod remote;
pub mod retry;
/// Whether one of these objects is there, as the store says of each: a list may go on to show what was
/// deleted.
///
/// # Errors
/// Failures of the store.
pub fn any_is_there(store: &dyn Store, names: &[ObjectName]) -> Result<bool, StoreError> {
    for name in names {
        match store.size(name) {
            Ok(_) => return Ok(true),
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
pub mod together;
pub mod traffic;

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use cairn_format::names::{Folder, ObjectName};

use lock::{KeptFor, LockMode, Locked};

pub use error::StoreError;

/// What a put found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object was written (or a damaged one of that name was replaced).
    Written,
    /// The same bytes were there already under that name; they are durable now.
    AlreadyThere,
}

/// What a listing met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Objects reported, duplicates included.
    pub objects: u64,
    /// Entries passed over because their names are not names of objects of the folder.
    pub foreign: u64,
}

/// What a place keeps of objects beside those that it lists; the greater one hides more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keeping {
    /// Nothing that is known of: what is not listed is gone.
    #[default]
    Nothing,
    /// Older versions, if any, and all of them were shown.
    Shown,
    /// It may keep deleted objects for a while, and cannot or may not be asked for them.
    Hidden,
}

/// What became of older versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Versions and marks of deletion that were deleted.
    pub removed: u64,
    /// Those that the place refused to delete: they are locked, or the credentials do not allow it.
    pub refused: u64,
    /// Of these, those that it says are locked.
    pub locked: u64,
    /// When the last of these locks ends, milliseconds since 1970.
    pub locked_until_ms: Option<i64>,
}

impl Purged {
    /// Adds what became of others.
    pub fn add(&mut self, other: &Self) {
        self.removed += other.removed;
        self.refused += other.refused;
        self.locked += other.locked;
        self.locked_until_ms = self.locked_until_ms.max(other.locked_until_ms);
    }

    /// When everything that was refused can be deleted, milliseconds since 1970; nothing where
    /// nothing was refused, or something for another reason than a lock.
    #[must_use]
    pub fn all_locked_until_ms(&self) -> Option<i64> {
        self.locked_until_ms.filter(|_| self.locked == self.refused)
    }
}

/// Takes one listed object: its name and its size in bytes. An error ends the listing and is
/// returned by it; [`StoreError::Stopped`] is for callers that merely saw enough.
pub type Each<'a> = &'a mut dyn FnMut(ObjectName, u64) -> Result<(), StoreError>;

/// A place that keeps objects. Calls block; a store may be used by any number of threads, and
/// the place behind it by any number of processes and hosts at once.
///
/// All sizes and offsets are in bytes.
pub trait Store: Send + Sync + Debug {
    /// The place, for messages. Never contains credentials.
    fn location(&self) -> String;

    /// Whether reading a little costs little: no request over a network, nothing to be paid for.
    /// Only then what was stored earlier is read during a backup, to store what changed of it.
    fn is_near(&self) -> bool {
        false
    }

    /// The requests made so far, where requests are counted.
    fn traffic(&self) -> Option<traffic::Traffic> {
        None
    }

    /// Tries out what the place can do, where that is not known: writes a small object that
    /// belongs to no repository, and deletes it.
    ///
    /// # Errors
    /// [`StoreError::Unfit`] when what was written cannot be read or listed; and the failures of
    /// the place itself.
    fn probe(&self) -> Result<Option<profile::Profile>, StoreError> {
        Ok(None)
    }

    /// Reads a whole object of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] when the object is larger, without having read more than that
    /// many bytes; [`StoreError::NotFound`]; and the failures of the place itself.
    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError>;

    /// Reads exactly `len` bytes from `offset`. The caller bounds `len`: that much is allocated
    /// once the object is known to be long enough.
    ///
    /// # Errors
    /// [`StoreError::Short`] when the object ends before `offset + len`;
    /// [`StoreError::NotFound`]; and the failures of the place itself.
    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError>;

    /// Writes an object; it is durable once this returns `Ok`.
    ///
    /// An object already there is read and compared, so a put may always be repeated, also when
    /// it is unknown whether an earlier one was carried out. The same bytes are
    /// [`Put::AlreadyThere`]. Other bytes under a name that is a content hash are damage, and
    /// are replaced, provided that `data` has that hash.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when `format` is there with other bytes;
    /// [`StoreError::WrongName`] when other bytes are there and `data` does not match its name
    /// either; [`StoreError::Full`], [`StoreError::FsyncFailed`], and the other failures of the
    /// place. After an error the object may or may not be there, but never in part under its
    /// name where the place can replace files atomically.
    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError>;

    /// As [`Self::put`], of bytes that may be held on to: a store that needs them for longer than the
    /// call makes no copy.
    ///
    /// # Errors
    /// As there.
    fn put_shared(&self, name: &ObjectName, data: &Bytes) -> Result<Put, StoreError> {
        self.put(name, data)
    }

    /// Size of an object.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it is absent; and the failures of the place itself.
    fn size(&self, name: &ObjectName) -> Result<u64, StoreError>;

    /// Calls `each` for every object of the folder, in any order; an object may be reported
    /// more than once, and one written or deleted meanwhile may be reported or not. A folder
    /// that does not exist is empty. `each` must not assume that it may call this store.
    ///
    /// # Errors
    /// What `each` returns, and the failures of the place itself.
    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError>;

    /// Deletes an object, durably; one that is absent is no error.
    ///
    /// # Errors
    /// The failures of the place itself.
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError>;

    /// Shows every object of the folder of which the place keeps something though it was deleted or
    /// written again. Some may come twice.
    ///
    /// # Errors
    /// The failures of the place itself; not that it may not be asked, which is
    /// [`Keeping::Hidden`].
    fn kept(
        &self,
        folder: Folder,
        each: &mut dyn FnMut(ObjectName),
    ) -> Result<Keeping, StoreError> {
        let _ = (folder, each);
        Ok(Keeping::Nothing)
    }

    /// Deletes for good what [`Self::kept`] shows of the objects of which `may_go` is true, as far as
    /// the place allows it: older versions, and the marks of deletion above them. Of an object that
    /// is there nothing is deleted. Where nothing is kept there is nothing to do.
    ///
    /// # Errors
    /// The failures of the place itself; not a refusal, which is counted.
    fn purge(
        &self,
        folder: Folder,
        may_go: &dyn Fn(&ObjectName) -> bool,
    ) -> Result<Purged, StoreError> {
        let _ = (folder, may_go);
        Ok(Purged::default())
    }

    /// How long the place keeps deleted objects that [`Self::kept`] does not show.
    ///
    /// # Errors
    /// The failures of the place itself; not that it does not say, which is [`KeptFor::Unknown`].
    fn kept_for(&self) -> Result<KeptFor, StoreError> {
        Ok(KeptFor::Unknown)
    }

    /// Until when the place refuses to delete an object for good.
    ///
    /// # Errors
    /// [`StoreError::NoLocks`] where locks cannot be set; [`StoreError::NotFound`]; and the failures of
    /// the place itself.
    fn locked(&self, name: &ObjectName) -> Result<Locked, StoreError> {
        let _ = name;
        Err(lock::no_locks(self.location()))
    }

    /// Locks an object until then, milliseconds since 1970, or extends its lock. A lock is never
    /// shortened, and of a mode only the stronger can take its place.
    ///
    /// # Errors
    /// As [`Self::locked`]; and when the object is locked for longer.
    fn lock(&self, name: &ObjectName, until_ms: i64, mode: LockMode) -> Result<(), StoreError> {
        let _ = (name, until_ms, mode);
        Err(lock::no_locks(self.location()))
    }

    /// Calls `each` with the name and the size in bytes of whatever writers left unfinished, or are
    /// writing, where the place does not let these be told from each other. Names are used once.
    ///
    /// # Errors
    /// The failures of the place itself.
    fn unfinished(&self, each: &mut dyn FnMut(&str, u64)) -> Result<(), StoreError> {
        let _ = each;
        Ok(())
    }

    /// The time by the place's own clock, milliseconds since 1970; `None` where it has none but this
    /// machine's, or does not tell.
    ///
    /// # Errors
    /// The failures of the place itself.
    fn now_ms(&self) -> Result<Option<i64>, StoreError> {
        Ok(None)
    }

    /// When the place took an object, by its own account, milliseconds since 1970; `None` where it
    /// does not tell. Of an object that was copied there as it is, when it was copied.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; and the failures of the place itself.
    fn taken_ms(&self, name: &ObjectName) -> Result<Option<i64>, StoreError> {
        let _ = name;
        Ok(None)
    }

    /// Removes what writers that died left unfinished, where the place lets that be told from what
    /// others are writing, and of what [`Self::unfinished`] shows that of which `is_dead` is true;
    /// returns how much was removed. A writer that is alive after all fails and writes it again. Stores
    /// that keep nothing unfinished have nothing to do.
    ///
    /// # Errors
    /// The failures of the place itself. Nothing depends on what was not removed.
    fn sweep(&self, is_dead: &dyn Fn(&str) -> bool) -> Result<u64, StoreError> {
        let _ = is_dead;
        Ok(0)
    }
}

macro_rules! forward {
    ($pointer:ident) => {
        impl<S: Store + ?Sized> Store for $pointer<S> {
            $crate::forward_to_store!(self => **self);
            fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
                (**self).get(name, bytes_max)
            }
            fn get_range(
                &self,
                name: &ObjectName,
                offset: u64,
                len: u64,
            ) -> Result<Bytes, StoreError> {
                (**self).get_range(name, offset, len)
            }
            fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
                (**self).put(name, data)
            }
            fn put_shared(&self, name: &ObjectName, data: &Bytes) -> Result<Put, StoreError> {
                (**self).put_shared(name, data)
            }
            fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
                (**self).size(name)
            }
            fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
                (**self).list(folder, each)
            }
            fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
                (**self).delete(name)
            }
        }
    };
}

forward!(Arc);
forward!(Box);

/// What to do with an object of the same name that a put finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Same,
    Replace,
}

/// The rule of [`Store::put`] for an object that is already there.
pub(crate) fn judge_existing(
    place: impl FnOnce() -> error::Place,
    name: &ObjectName,
    data: &[u8],
    same: bool,
) -> Result<Found, StoreError> {
    if same {
        return Ok(Found::Same);
    }
    match name.content_hash() {
        None => Err(StoreError::Exists { place: place() }),
        Some(hash) if *blake3::hash(data).as_bytes() == hash => Ok(Found::Replace),
        Some(_) => Err(StoreError::WrongName { place: place() }),
    }
}
