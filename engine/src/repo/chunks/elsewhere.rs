//! Chunks from other copies of the repository, where this one cannot give them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use cairn_format::ids::{ChunkId, WriterId};
use parking_lot::Mutex;

use super::{ChunkReader, Deliver, Wanted, single};
use crate::context::Remark;
use crate::error::Error;
use crate::repo::Repository;

/// How often a chunk is looked for where more became known of it, before it is given up: collections
/// move a chunk once each.
const LOOKS_MAX: usize = 16;

/// Another copy that is read where this one is damaged, or does not answer.
pub struct Fallback {
    repository: Repository,
    /// Chunks it gave.
    chunks: AtomicU64,
    /// It was said that it is read, or that it cannot be.
    said: AtomicBool,
}

impl Fallback {
    pub(in crate::repo) fn new(repository: Repository) -> Self {
        Self { repository, chunks: AtomicU64::new(0), said: AtomicBool::new(false) }
    }

    /// The copy.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Chunks it gave so far.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.chunks.load(Ordering::Relaxed)
    }

    fn say(&self, code: &'static str, message: String) {
        if !self.said.swap(true, Ordering::Relaxed) {
            let subject = self.repository.store().location();
            self.repository.monitor().warn(Remark { code, subject, message });
        }
    }
}

/// One of them, on behalf of a reader.
pub(super) struct Elsewhere<'a> {
    fallback: &'a Fallback,
    namespace: WriterId,
    /// Opened when it is first needed; `None` when it cannot be.
    reader: OnceLock<Option<ChunkReader<'a>>>,
}

impl<'a> Elsewhere<'a> {
    pub(super) fn new(fallback: &'a Fallback, namespace: WriterId) -> Self {
        Self { fallback, namespace, reader: OnceLock::new() }
    }

    fn failed(&self, error: &Error) {
        self.fallback.say("fallback.failed", format!("it cannot stand in: {error}"));
    }

    fn reader(&self) -> Option<&ChunkReader<'a>> {
        let reader = self.reader.get_or_init(|| {
            let reader = self.fallback.repository.chunk_reader(self.namespace);
            reader.map_err(|error| self.failed(&error)).ok()
        });
        reader.as_ref()
    }

    fn gave(&self) {
        self.fallback.chunks.fetch_add(1, Ordering::Relaxed);
        self.fallback.say(
            "fallback.used",
            "what the repository does not give is read from there".to_owned(),
        );
    }

    fn chunk(&self, id: &ChunkId) -> Option<Bytes> {
        let found =
            self.reader()?.any_copy(id).map_err(|error| self.failed(&error)).ok().flatten()?;
        self.gave();
        Some(found)
    }

    /// Delivers what this copy gives of many chunks, and returns the others.
    fn chunks<T: Send + Sync>(
        &self,
        wanted: Vec<Wanted<T>>,
        deliver: Deliver<'_, T>,
    ) -> Result<Vec<Wanted<T>>, Error> {
        let Some(reader) = self.reader() else { return Ok(wanted) };
        let ids = wanted.iter().map(|wanted| wanted.id).collect::<Vec<_>>();
        let places = match reader.locate(&ids) {
            Ok(places) => places,
            Err(error) => {
                self.failed(&error);
                return Ok(wanted);
            }
        };
        let given = wanted.iter().map(|_| AtomicBool::new(false)).collect::<Vec<_>>();
        // What whoever receives it has against it is not this copy's failure.
        let refused = Mutex::new(None);
        let there = wanted.iter().zip(places).enumerate().filter_map(|(tag, (wanted, place))| {
            let place = place.filter(|place| place.bytes == wanted.place.bytes)?;
            Some(Wanted { id: wanted.id, place, tag })
        });
        let fetched = reader.fetch(there.collect(), &|run, content| {
            let Ok(content) = content else { return Ok(()) };
            for (there, chunk) in single(run, content) {
                let (Some(one), Some(given)) = (wanted.get(there.tag), given.get(there.tag)) else {
                    return Err(Error::Internal { part: "reading from another copy" });
                };
                if let Err(error) = deliver(std::slice::from_ref(one), Ok(chunk)) {
                    refused.lock().get_or_insert(error);
                    return Err(Error::Cancelled);
                }
                given.store(true, Ordering::Release);
                self.gave();
            }
            Ok(())
        });
        if let Some(error) = refused.into_inner() {
            return Err(error);
        }
        match fetched {
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(error) => self.failed(&error),
            Ok(()) => {}
        }
        let left =
            wanted.into_iter().zip(given).filter(|(_, given)| !given.load(Ordering::Acquire));
        Ok(left.map(|(wanted, _)| wanted).collect())
    }
}

impl ChunkReader<'_> {
    /// A chunk from another copy of the repository, if there is one that has it.
    #[must_use]
    pub fn elsewhere(&self, id: &ChunkId) -> Option<Bytes> {
        self.elsewhere.iter().find_map(|copy| copy.chunk(id))
    }

    /// A chunk from another copy of the repository where this one does not answer; else what was wrong.
    pub(super) fn elsewhere_instead(&self, id: &ChunkId, error: Error) -> Result<Bytes, Error> {
        if !error.is_out_of_reach() || !self.has_others() {
            return Err(error);
        }
        self.repository.say_away(&error);
        self.elsewhere(id).ok_or(error)
    }

    /// Delivers what other copies of the repository give of many chunks, and returns the others.
    pub(super) fn fetch_elsewhere<T: Send + Sync>(
        &self,
        mut wanted: Vec<Wanted<T>>,
        deliver: Deliver<'_, T>,
    ) -> Result<Vec<Wanted<T>>, Error> {
        for copy in &self.elsewhere {
            if !wanted.is_empty() {
                wanted = copy.chunks(wanted, deliver)?;
            }
        }
        Ok(wanted)
    }

    /// Whether there are other copies to be asked.
    pub(super) fn has_others(&self) -> bool {
        !self.elsewhere.is_empty()
    }

    /// A chunk from whichever of its places is sound, also from where a collection moved it since this
    /// copy's index was read.
    fn any_copy(&self, id: &ChunkId) -> Result<Option<Bytes>, Error> {
        // Brings the index up to date when the chunk is not known.
        self.locate(std::slice::from_ref(id))?;
        let mut copies = self.catalog.copies(*id, self.namespace)?;
        for _ in 0..LOOKS_MAX {
            let mut vanished = Vec::new();
            for place in &copies {
                match self.chunk_at(*id, place) {
                    Ok(chunk) => return Ok(Some(chunk)),
                    Err(error) if error.has_vanished() => vanished.push(place.pack),
                    Err(error) if error.is_damage() => {}
                    Err(error) => return Err(error),
                }
            }
            for pack in vanished {
                self.catalog.look_again(self.repository.vault(), pack)?;
            }
            // Not only then is more known: looking for a frame's bases may have told of this chunk too.
            let known = self.catalog.copies(*id, self.namespace)?;
            if known == copies {
                break;
            }
            copies = known;
        }
        self.rescued_chunk(*id, &copies)
    }
}
