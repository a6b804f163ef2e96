//! Chunks from other copies of the repository, where this one cannot give them.

use std::collections::HashSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use cairn_format::ids::{ChunkId, WriterId};

use super::ChunkReader;
use crate::context::Remark;
use crate::error::Error;
use crate::repo::Repository;

/// Packs that vanish while a chunk is looked for, before it is given up: collections move a chunk once
/// each.
const PACKS_LOOKED_FOR_MAX: usize = 16;

/// Another copy that is read where this one is damaged.
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

    fn chunk(&self, id: &ChunkId) -> Option<Bytes> {
        let failed = |error: Error| {
            self.fallback.say("fallback.failed", format!("it cannot stand in: {error}"));
        };
        let reader = self.reader.get_or_init(|| {
            let reader = self.fallback.repository.chunk_reader(self.namespace);
            reader.map_err(failed).ok()
        });
        let found = reader.as_ref()?.any_copy(id).map_err(failed).ok().flatten()?;
        self.fallback.chunks.fetch_add(1, Ordering::Relaxed);
        self.fallback.say(
            "fallback.used",
            "what is damaged or missing in the repository is read from there".to_owned(),
        );
        Some(found)
    }
}

impl ChunkReader<'_> {
    /// A chunk from another copy of the repository, if there is one that has it.
    #[must_use]
    pub fn elsewhere(&self, id: &ChunkId) -> Option<Bytes> {
        self.elsewhere.iter().find_map(|copy| copy.chunk(id))
    }

    /// A chunk from whichever of its places is sound, also from where a collection moved it since this
    /// copy's index was read.
    fn any_copy(&self, id: &ChunkId) -> Result<Option<Bytes>, Error> {
        let mut looked_for = HashSet::new();
        loop {
            // Brings the index up to date when the chunk is not known.
            self.locate(std::slice::from_ref(id))?;
            let copies = self.catalog.copies(*id, self.namespace)?;
            let mut vanished = Vec::new();
            for place in &copies {
                match self.chunk_at(*id, place) {
                    Ok(chunk) => return Ok(Some(chunk)),
                    Err(error) if error.has_vanished() => vanished.push(place.pack),
                    Err(error) if error.is_damage() => {}
                    Err(error) => return Err(error),
                }
            }
            vanished.retain(|pack| looked_for.insert(*pack));
            if vanished.is_empty() || looked_for.len() > PACKS_LOOKED_FOR_MAX {
                return self.rescued_chunk(*id, &copies);
            }
            for pack in vanished {
                self.catalog.look_again(self.repository.vault(), pack)?;
            }
        }
    }
}
