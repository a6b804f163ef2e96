//! Objects in any storage that opendal reaches.
//!
//! Every request has a time limit and is abandoned when it passes; asking again is
//! [`super::retry::Guarded`]'s business. Nothing rests on a conditional write: some servers
//! ignore the condition silently, so what was written is looked at afterwards.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use cairn_format::names::{Folder, ObjectName};
use futures_core::Stream;
use opendal::options::{ListOptions, ReadOptions, WriteOptions};
use opendal::{Buffer, EntryMode, ErrorKind, Operator};
use parking_lot::Mutex;
use rustix::io::Errno;
use tokio::runtime::{Handle, Runtime};

use super::error::{Cause, Place, StoreError};
use super::{Each, Found, Listing, Put, Store, judge_existing};

/// Threads that drive requests; they wait more than they work.
const RUNTIME_THREADS: usize = 2;

/// How long a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// Allowed to every request, in milliseconds.
    pub answer_ms: u64,
    /// Slowest transfer that is waited for, in bytes a second: adds to the limit of requests
    /// that move data.
    pub bytes_per_s_min: u64,
}

impl Default for TimeLimits {
    /// Thirty seconds, and as long as 64 KiB/s take.
    fn default() -> Self {
        Self { answer_ms: 30_000, bytes_per_s_min: 64 << 10 }
    }
}

impl TimeLimits {
    /// The limit of a request that moves this many bytes.
    #[must_use]
    pub const fn of(&self, bytes: u64) -> Duration {
        let rate = if self.bytes_per_s_min == 0 { 1 } else { self.bytes_per_s_min };
        let moving_ms = bytes.saturating_mul(1000) / rate;
        Duration::from_millis(self.answer_ms.saturating_add(moving_ms))
    }
}

/// Objects behind an [`Operator`]. Calls block the calling thread and must not be made from
/// within an asynchronous task.
pub struct ObjectStore {
    operator: Operator,
    location: String,
    limits: TimeLimits,
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
        Self { operator, location: location.into(), limits, runtime: Mutex::new(None) }
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
        action: &'static str,
        place: impl Fn() -> Place,
        bytes: u64,
        request: impl Future<Output = opendal::Result<T>>,
    ) -> Result<T, StoreError> {
        let after = self.limits.of(bytes);
        let answer =
            self.handle()?.block_on(async move { tokio::time::timeout(after, request).await });
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(from_opendal(action, place(), &error)),
            Err(_) => Err(StoreError::Timeout { place: place(), after }),
        }
    }

    fn stat(&self, name: &ObjectName) -> Result<u64, StoreError> {
        let path = name.to_string();
        let found = self.wait("look at", || self.place(name), 0, self.operator.stat(&path))?;
        match found.mode() {
            EntryMode::DIR => {
                Err(StoreError::NotAnObject { place: self.place(name), found: "a folder" })
            }
            EntryMode::FILE | EntryMode::Unknown => Ok(found.content_length()),
        }
    }

    /// Compares the object that has the name, if any, with what is to be written.
    fn existing(&self, name: &ObjectName, data: &[u8]) -> Result<Option<Found>, StoreError> {
        let len = data.len() as u64;
        let same = match self.stat(name) {
            Ok(bytes) if bytes == len => match self.get(name, len) {
                Ok(stored) => stored == data,
                Err(StoreError::TooLarge { .. }) => false,
                Err(StoreError::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            },
            Ok(_) => false,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        judge_existing(|| self.place(name), name, data, same).map(Some)
    }

    fn write(&self, name: &ObjectName, data: &[u8], new: bool) -> Result<(), WriteFailure> {
        let path = name.to_string();
        let conditional = new && self.operator.info().capability().write_with_if_not_exists;
        let options = WriteOptions { if_not_exists: conditional, ..WriteOptions::default() };
        let bytes = Bytes::copy_from_slice(data);
        let request = async {
            match self.operator.write_options(&path, bytes, options).await {
                Ok(_) => Ok(true),
                Err(error)
                    if conditional
                        && matches!(
                            error.kind(),
                            ErrorKind::ConditionNotMatch | ErrorKind::AlreadyExists
                        ) =>
                {
                    Ok(false)
                }
                Err(error) => Err(error),
            }
        };
        match self.wait("write", || self.place(name), data.len() as u64, request) {
            Ok(true) => Ok(()),
            Ok(false) => Err(WriteFailure::Taken),
            Err(error) => Err(WriteFailure::Store(error)),
        }
    }

    /// Looks at what was written: its size, and for `format`, which another may have written at
    /// the same moment, its bytes.
    fn confirm(&self, name: &ObjectName, data: &[u8]) -> Result<(), StoreError> {
        let sent = data.len() as u64;
        let found = self.stat(name)?;
        if name.content_hash().is_none() {
            let same = found == sent && self.get(name, sent)? == data;
            return judge_existing(|| self.place(name), name, data, same).map(|_| ());
        }
        if found != sent {
            return Err(StoreError::BadWrite { place: self.place(name), sent, found });
        }
        Ok(())
    }
}

/// Why a write did not happen.
enum WriteFailure {
    /// The name was taken meanwhile.
    Taken,
    Store(StoreError),
}

/// What one step of reading a stream brought.
async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

/// Sorts opendal's errors. Their contexts are left out of messages: they hold URLs, whose
/// queries may be signed, and whole answers.
fn from_opendal(action: &'static str, place: Place, error: &opendal::Error) -> StoreError {
    let mut text = format!("{}: {}", error.kind(), error.message());
    let mut full = false;
    let mut innermost = error.source();
    while let Some(inner) = innermost {
        full |= inner
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
            .map(Errno::from_raw_os_error)
            .is_some_and(|errno| matches!(errno, Errno::NOSPC | Errno::DQUOT | Errno::FBIG));
        if inner.source().is_none() {
            text = format!("{text}: {inner}");
        }
        innermost = inner.source();
    }
    let source: Cause = text.into();
    match error.kind() {
        _ if full => StoreError::Full { place, source },
        ErrorKind::NotFound => StoreError::NotFound { place },
        ErrorKind::PermissionDenied => StoreError::Denied { place, source },
        ErrorKind::RateLimited => StoreError::Throttled { place, source },
        ErrorKind::IsADirectory => StoreError::NotAnObject { place, found: "a folder" },
        // Two writers met; the one who asks again finds the other's object.
        ErrorKind::Conflict => StoreError::Unreachable { place, source },
        _ if error.is_temporary() => StoreError::Unreachable { place, source },
        _ => StoreError::Io { action, place, source },
    }
}

impl Store for ObjectStore {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        let path = name.to_string();
        // One request, whatever the size: the stream is dropped when it goes on for too long.
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
        self.wait("read", || self.place(name), bytes_max, request)?
            .map_err(|bytes| StoreError::TooLarge { place: self.place(name), bytes, bytes_max })
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
                self.wait("read", || self.place(name), len, request).map(Some)
            }
            None => Ok(None),
        };
        match result {
            Ok(Some(data)) if data.len() as u64 == len => Ok(data.to_bytes()),
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

    /// Puts as [`Store::put`] says. Whether a damaged object is replaced atomically is the
    /// service's affair. Two that create `format` at the same moment exclude one another only
    /// where the service keeps its word about conditional writes.
    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        let found = self.existing(name, data)?;
        if found == Some(Found::Same) {
            return Ok(Put::AlreadyThere);
        }
        let new = found.is_none() && name.content_hash().is_none();
        match self.write(name, data, new) {
            Ok(()) => self.confirm(name, data).map(|()| Put::Written),
            Err(WriteFailure::Taken) => self.confirm(name, data).map(|()| Put::AlreadyThere),
            Err(WriteFailure::Store(error)) => Err(error),
        }
    }

    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.stat(name)
    }

    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        let place = || Place::folder(&self.location, folder);
        let options = ListOptions {
            recursive: matches!(folder, Folder::DataPacks | Folder::TreePacks),
            ..ListOptions::default()
        };
        let mut listing = Listing::default();
        let opened = self.operator.lister_options(folder.path(), options);
        let mut lister = match self.wait("list", place, 0, opened) {
            Err(StoreError::NotFound { .. }) => return Ok(listing),
            opened => opened?,
        };
        let mut step = || {
            let entry = async { next(&mut lister).await.transpose() };
            self.wait("list", place, 0, entry)
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
        match self.wait("delete", || self.place(name), 0, self.operator.delete(&path)) {
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
            .wait("read", place, 0, std::future::pending::<opendal::Result<()>>())
            .unwrap_err();
        assert!(matches!(error, StoreError::Timeout { .. }), "{error:?}");
        assert!(error.is_transient());
    }

    #[test]
    fn time_limits_grow_with_the_bytes_and_never_overflow() {
        let limits = TimeLimits { answer_ms: 1000, bytes_per_s_min: 1000 };
        assert_eq!(limits.of(0), Duration::from_secs(1));
        assert_eq!(limits.of(5000), Duration::from_secs(6));
        let none = TimeLimits { answer_ms: u64::MAX, bytes_per_s_min: 0 };
        assert_eq!(none.of(u64::MAX), Duration::from_millis(u64::MAX));
    }

    #[test]
    fn errors_of_services_are_sorted() {
        let sorted = |error: opendal::Error| from_opendal("write", Place::root("here"), &error);
        let plain = |kind| sorted(opendal::Error::new(kind, "in its words"));
        assert!(matches!(plain(ErrorKind::NotFound), StoreError::NotFound { .. }));
        assert!(matches!(plain(ErrorKind::PermissionDenied), StoreError::Denied { .. }));
        assert!(matches!(plain(ErrorKind::RateLimited), StoreError::Throttled { .. }));
        assert!(matches!(plain(ErrorKind::Conflict), StoreError::Unreachable { .. }));
        assert!(matches!(plain(ErrorKind::Unexpected), StoreError::Io { .. }));
        let temporary = opendal::Error::new(ErrorKind::Unexpected, "x").set_temporary();
        assert!(sorted(temporary).is_transient());
        // A full disk does not empty by asking again, whatever opendal says.
        let full = opendal::Error::new(ErrorKind::Unexpected, "x")
            .set_temporary()
            .set_source(io::Error::from(Errno::NOSPC));
        let full = sorted(full);
        assert!(matches!(full, StoreError::Full { .. }) && !full.is_transient(), "{full:?}");
    }

    #[test]
    fn signed_urls_stay_out_of_messages() {
        let error = opendal::Error::new(ErrorKind::Unexpected, "send http request")
            .with_context("uri", "https://host/?sig=hunter2");
        let error = from_opendal("read", Place::root("azblob://c"), &error);
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("send http request"), "{source}");
        assert!(!format!("{error} {error:?} {source}").contains("hunter2"));
    }
}
