//! Objects in any storage that opendal reaches.
//!
//! Every request has a time limit and is abandoned when it passes; asking again is
//! [`super::retry::Guarded`]'s business. Nothing rests on a conditional write: some servers
//! ignore the condition silently, so what was written is looked at afterwards.

mod beyond;
mod clock;
mod errors;
mod probe;
mod unfinished;
mod versions;
mod write;

use std::fmt;
use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use cairn_format::format_object::FORMAT_BYTES;
use cairn_format::names::{Folder, ObjectName};
use futures_core::Stream;
use opendal::options::{ListOptions, ReadOptions};
use opendal::{Buffer, EntryMode, Operator};
use parking_lot::Mutex;
use tokio::runtime::{Handle, Runtime};

use super::error::{Place, StoreError};
use super::lock::{KeptFor, LockMode, Locked};
use super::options::TimeLimits;
use super::pace::Pace;
use super::profile::{Found, Profile};
use super::traffic::{Meter, RequestKind, Traffic};
use super::{Each, Keeping, Listing, Purged, Put, Store};

pub(super) use beyond::{Answer, Beyond};
pub(super) use clock::ClockSeen;
pub(super) use errors::from_opendal;
pub(super) use versions::{Deleted, LockSeen};
pub(super) use write::{base64, note_sent_sum};

/// Threads that drive requests; they wait more than they work.
const RUNTIME_THREADS: usize = 2;
/// How often an object is written that is not found as it was sent.
const WRITES_MAX: u32 = 3;

/// Names that a service gives to the rights that requests take, for messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights {
    /// To read an object, and to see its size.
    pub(super) read: &'static str,
    pub(super) write: &'static str,
    pub(super) list: &'static str,
    pub(super) delete: &'static str,
}

impl Rights {
    const fn of(&self, kind: RequestKind) -> Option<&'static str> {
        match kind {
            RequestKind::Read | RequestKind::Look => Some(self.read),
            RequestKind::Write => Some(self.write),
            RequestKind::List => Some(self.list),
            RequestKind::Delete => Some(self.delete),
            RequestKind::Other => None,
        }
    }
}

/// Objects behind an [`Operator`]. Calls block the calling thread and must not be made from
/// within an asynchronous task.
pub struct ObjectStore {
    operator: Operator,
    location: String,
    limits: TimeLimits,
    meter: Meter,
    upload: Option<Arc<Pace>>,
    download: Option<Arc<Pace>>,
    /// Whether [`Self::meter`] is kept by what sends the requests, which knows each of them.
    metered_below: bool,
    /// Whether the service shows an object under its name while it is still being written.
    writes_in_place: bool,
    /// Whether a write on a condition takes more requests than another.
    condition_is_dear: bool,
    /// What becomes of objects that are deleted.
    deleted: Deleted,
    /// Until when what was looked at last is locked.
    lock_seen: LockSeen,
    /// Set where the service has a clock of its own.
    clock_seen: Option<ClockSeen>,
    /// What its rights are called, where they have names.
    rights: Option<Rights>,
    /// What opendal cannot ask for, where there is something.
    beyond: Option<Box<dyn Beyond>>,
    /// What it said of how long deleted objects are kept.
    kept_for: OnceLock<KeptFor>,
    /// Set when the service was found not to know conditional writes.
    unconditional: AtomicBool,
    /// Set when an entity tag was found that looks like an MD5 sum and is none.
    tags_are_other: AtomicBool,
    /// What `format` holds, read when the place was asked for the first time: for the first that
    /// reads it.
    format_seen: Mutex<Option<Bytes>>,
    /// Started by the first call; `None` again only while being dropped.
    runtime: Mutex<Option<Runtime>>,
}

impl fmt::Debug for ObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStore").field("location", &self.location).finish_non_exhaustive()
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        // Abandoned requests must not hold up the end of the process.
        if let Some(runtime) = self.runtime.get_mut().take() {
            runtime.shutdown_background();
        }
    }
}

impl ObjectStore {
    /// Keeps objects below the operator's root. `location` names it in messages and must not
    /// contain credentials.
    #[must_use]
    pub fn new(operator: Operator, location: impl Into<String>, limits: TimeLimits) -> Self {
        Self {
            operator,
            location: location.into(),
            limits,
            meter: Meter::default(),
            upload: None,
            download: None,
            metered_below: false,
            writes_in_place: false,
            condition_is_dear: false,
            deleted: Deleted::default(),
            lock_seen: LockSeen::default(),
            clock_seen: None,
            rights: None,
            beyond: None,
            kept_for: OnceLock::new(),
            unconditional: AtomicBool::new(false),
            tags_are_other: AtomicBool::new(false),
            format_seen: Mutex::new(None),
            runtime: Mutex::new(None),
        }
    }

    /// Whether there is a `format` object. It is read, and kept for whoever reads it next.
    pub(super) fn meet(&self) -> Result<bool, StoreError> {
        match self.get_once(&ObjectName::Format, FORMAT_BYTES as u64) {
            Ok(format) => {
                *self.format_seen.lock() = Some(format);
                Ok(true)
            }
            // Whoever reads it is told what is wrong with it.
            Err(StoreError::TooLarge { .. }) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes the count of requests from what sends them, instead of counting calls.
    pub(super) fn set_meter(&mut self, meter: Meter) {
        self.meter = meter;
        self.metered_below = true;
    }

    /// Limits the bytes of objects that are sent and received in a second.
    pub(super) fn set_rates(&mut self, upload: Option<Arc<Pace>>, download: Option<Arc<Pace>>) {
        (self.upload, self.download) = (upload, download);
    }

    /// Says that a write on a condition takes more requests than another: only `format` is then
    /// written so.
    pub(super) const fn set_condition_is_dear(&mut self) {
        self.condition_is_dear = true;
    }

    /// Where what sends the requests notes that objects are locked.
    pub(super) fn set_lock_seen(&mut self, lock_seen: LockSeen) {
        self.lock_seen = lock_seen;
    }

    /// Says what the rights are called that requests take.
    pub(super) const fn set_rights(&mut self, rights: Rights) {
        self.rights = Some(rights);
    }

    /// Names the right that is missing.
    fn with_right(&self, kind: RequestKind, error: StoreError) -> StoreError {
        let right = self.rights.as_ref().and_then(|rights| rights.of(kind));
        match (error, right) {
            (StoreError::Denied { place, source }, Some(right)) => {
                let source = format!("{source} (to {} it takes {right})", action(kind)).into();
                StoreError::Denied { place, source }
            }
            (error, _) => error,
        }
    }

    /// Adds the requests that opendal does not know.
    pub(super) fn set_beyond(&mut self, beyond: Box<dyn Beyond>) {
        self.beyond = Some(beyond);
    }

    /// Says what the service does with objects that are deleted.
    pub(super) const fn set_deleted(&mut self, deleted: Deleted) {
        self.deleted = deleted;
    }

    /// Says that the service shows an object while it is being written: objects are then written
    /// under another name and renamed.
    pub(super) const fn set_writes_in_place(&mut self) {
        self.writes_in_place = true;
    }

    /// Objects in memory, by way of opendal: for tests of this code.
    ///
    /// # Errors
    /// [`StoreError::Io`] when opendal refuses.
    pub fn memory() -> Result<Self, StoreError> {
        let operator = Operator::new(opendal::services::Memory::default())
            .map_err(|error| from_opendal("open", Place::root("memory"), &error))?;
        Ok(Self::new(operator, "memory", TimeLimits::default()))
    }

    fn place(&self, name: &ObjectName) -> Place {
        Place::object(&self.location, name)
    }

    fn handle(&self) -> Result<Handle, StoreError> {
        let mut runtime = self.runtime.lock();
        if let Some(runtime) = &*runtime {
            return Ok(runtime.handle().clone());
        }
        let started = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .thread_name("cairn-store")
            .enable_all()
            .build()
            .map_err(|error| StoreError::Io {
                action: "start threads for",
                place: Place::root(&self.location),
                source: error.into(),
            })?;
        Ok(runtime.insert(started).handle().clone())
    }

    /// Waits for a request, for as long as moving `bytes` may take.
    fn wait<T>(
        &self,
        kind: RequestKind,
        place: impl Fn() -> Place,
        bytes: u64,
        request: impl Future<Output = opendal::Result<T>>,
    ) -> Result<T, StoreError> {
        let after = self.limits.of(bytes);
        if let (RequestKind::Write, Some(pace)) = (kind, &self.upload) {
            pace.admit(bytes);
        }
        if !self.metered_below {
            self.meter.sent(kind, if kind == RequestKind::Write { bytes } else { 0 });
        }
        let answer =
            self.handle()?.block_on(async move { tokio::time::timeout(after, request).await });
        if !self.metered_below && !matches!(answer, Ok(Ok(_))) {
            self.meter.failed(kind);
        }
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let error = from_opendal(action(kind), place(), &error);
                Err(self.with_right(kind, error))
            }
            Err(_) => Err(StoreError::Timeout { place: place(), after }),
        }
    }

    /// Counts what was read, where nobody else does, and lets it take its time.
    fn received(&self, data: &[u8]) {
        if let Some(pace) = &self.download {
            pace.admit(data.len() as u64);
        }
        if !self.metered_below {
            self.meter.received(RequestKind::Read, data.len() as u64);
        }
    }

    fn stat(&self, name: &ObjectName) -> Result<u64, StoreError> {
        let path = name.to_string();
        let found =
            self.wait(RequestKind::Look, || self.place(name), 0, self.operator.stat(&path))?;
        match found.mode() {
            EntryMode::DIR => {
                Err(StoreError::NotAnObject { place: self.place(name), found: "a folder" })
            }
            EntryMode::FILE | EntryMode::Unknown => Ok(found.content_length()),
        }
    }

    /// Reads a whole object by one request, whatever its size: the stream is dropped when it goes
    /// on for too long.
    fn get_once(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        let path = name.to_string();
        let request = async {
            let mut stream = self.operator.reader(&path).await?.into_stream(..).await?;
            let mut pieces: Vec<Bytes> = Vec::new();
            let mut bytes = 0;
            while let Some(piece) = next(&mut stream).await {
                let piece = piece?;
                bytes += piece.len() as u64;
                if bytes > bytes_max {
                    return Ok(Err(bytes));
                }
                pieces.extend(piece);
            }
            Ok(Ok(Buffer::from(pieces).to_bytes()))
        };
        let read = self.wait(RequestKind::Read, || self.place(name), bytes_max, request)?;
        let data = read.map_err(|bytes| StoreError::TooLarge {
            place: self.place(name),
            bytes,
            bytes_max,
        })?;
        self.received(&data);
        Ok(data)
    }
}

/// What a request does, for messages.
const fn action(kind: RequestKind) -> &'static str {
    match kind {
        RequestKind::Read => "read",
        RequestKind::Write => "write",
        RequestKind::Look => "look at",
        RequestKind::List => "list",
        RequestKind::Delete => "delete",
        RequestKind::Other => "ask for",
    }
}

/// What one step of reading a stream brought.
async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

impl Store for ObjectStore {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        if *name == ObjectName::Format
            && let Some(seen) = self.format_seen.lock().take()
            && seen.len() as u64 <= bytes_max
        {
            return Ok(seen);
        }
        let data = self.get_once(name, bytes_max)?;
        // Altered where it lies, or only on its way here?
        match name.content_hash() {
            Some(hash) if *blake3::hash(&data).as_bytes() != hash => self.get_once(name, bytes_max),
            Some(_) | None => Ok(data),
        }
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        let path = name.to_string();
        let short = |available| StoreError::Short {
            place: self.place(name),
            offset,
            wanted: len,
            available,
        };
        let end = offset.checked_add(len);
        let result = match end.filter(|_| len > 0) {
            Some(end) => {
                let options = ReadOptions { range: (offset..end).into(), ..ReadOptions::default() };
                let request = self.operator.read_options(&path, options);
                self.wait(RequestKind::Read, || self.place(name), len, request).map(Some)
            }
            None => Ok(None),
        };
        match result {
            Ok(Some(data)) if data.len() as u64 == len => {
                let data = data.to_bytes();
                self.received(&data);
                Ok(data)
            }
            Err(error @ StoreError::NotFound { .. }) => Err(error),
            // Services differ in what they answer beyond the end: look where it is.
            result => {
                let available = self.stat(name)?.saturating_sub(offset);
                match result {
                    _ if available < len => Err(short(available)),
                    Err(error) => Err(error),
                    Ok(None) => Ok(Bytes::new()),
                    Ok(Some(data)) => Err(short(data.len() as u64)),
                }
            }
        }
    }

    /// Puts as [`Store::put`] says. Two that create `format` at the same moment exclude one another
    /// only where the service keeps its word about conditional writes.
    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        self.format_seen.lock().take();
        let mut written = 1;
        loop {
            match self.put_once(name, data) {
                // Something on the way altered it: what the service did is known, so again.
                Err(StoreError::BadWrite { .. } | StoreError::Altered { .. })
                    if written < WRITES_MAX =>
                {
                    written += 1;
                }
                Ok(_) if written > 1 => return Ok(Put::Written),
                result => return result,
            }
        }
    }

    fn traffic(&self) -> Option<Traffic> {
        Some(self.meter.traffic())
    }

    fn probe(&self) -> Result<Option<Profile>, StoreError> {
        let profile = self.try_out()?;
        let why = match (profile.reads_after_write, profile.lists_after_write) {
            (Found::No, _) => "what was written cannot be read",
            (_, Found::No) => "listings do not have what was written, or have what was deleted",
            _ => return Ok(Some(profile)),
        };
        Err(StoreError::Unfit { location: self.location.clone(), why })
    }

    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.stat(name)
    }

    fn unfinished(&self, each: &mut dyn FnMut(&str, u64)) -> Result<(), StoreError> {
        self.each_unfinished(each)
    }

    fn sweep(&self, is_dead: &dyn Fn(&str) -> bool) -> Result<u64, StoreError> {
        self.remove_unfinished(is_dead)
    }

    fn kept(
        &self,
        folder: Folder,
        each: &mut dyn FnMut(ObjectName),
    ) -> Result<Keeping, StoreError> {
        self.kept_versions(folder, each)
    }

    fn purge(
        &self,
        folder: Folder,
        may_go: &dyn Fn(&ObjectName) -> bool,
    ) -> Result<Purged, StoreError> {
        self.purge_versions(folder, may_go)
    }

    fn kept_for(&self) -> Result<KeptFor, StoreError> {
        Ok(match self.deleted {
            Deleted::Gone | Deleted::Versions => KeptFor::Nothing,
            Deleted::Hidden => self.asked_kept_for(),
        })
    }

    fn now_ms(&self) -> Result<Option<i64>, StoreError> {
        self.asked_now_ms()
    }

    fn taken_ms(&self, name: &ObjectName) -> Result<Option<i64>, StoreError> {
        self.asked_taken_ms(name)
    }

    fn locked(&self, name: &ObjectName) -> Result<Locked, StoreError> {
        self.locked_until(name)
    }

    fn lock(&self, name: &ObjectName, until_ms: i64, mode: LockMode) -> Result<(), StoreError> {
        self.lock_until(name, until_ms, mode)
    }

    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        let place = || Place::folder(&self.location, folder);
        let options = ListOptions {
            recursive: matches!(folder, Folder::DataPacks | Folder::TreePacks),
            ..ListOptions::default()
        };
        let mut listing = Listing::default();
        let opened = self.operator.lister_options(folder.path(), options);
        let mut lister = match self.wait(RequestKind::List, place, 0, opened) {
            Err(StoreError::NotFound { .. }) => return Ok(listing),
            opened => opened?,
        };
        let mut step = || {
            let entry = async { next(&mut lister).await.transpose() };
            self.wait(RequestKind::List, place, 0, entry)
        };
        while let Some(entry) = step()? {
            if entry.path().ends_with('/') {
                continue;
            }
            let object = ObjectName::parse(entry.path());
            let Some(name) = object.ok().filter(|name| name.folder() == Some(folder)) else {
                listing.foreign += 1;
                continue;
            };
            let bytes = match entry.metadata().mode() {
                EntryMode::FILE => entry.metadata().content_length(),
                EntryMode::DIR | EntryMode::Unknown => match self.stat(&name) {
                    Err(StoreError::NotFound { .. }) => continue,
                    found => found?,
                },
            };
            listing.objects += 1;
            each(name, bytes)?;
        }
        Ok(listing)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let path = name.to_string();
        match self.wait(RequestKind::Delete, || self.place(name), 0, self.operator.delete(&path)) {
            Err(StoreError::NotFound { .. }) => Ok(()),
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_an_answer_is_abandoned() {
        let limits = TimeLimits { answer_ms: 5, bytes_per_s_min: 1 << 20 };
        let operator = Operator::new(opendal::services::Memory::default()).unwrap();
        let store = ObjectStore::new(operator, "nowhere", limits);
        let place = || Place::root("nowhere");
        let error = store
            .wait(RequestKind::Read, place, 0, std::future::pending::<opendal::Result<()>>())
            .unwrap_err();
        assert!(matches!(error, StoreError::Timeout { .. }), "{error:?}");
        assert!(error.is_transient());
    }
}
