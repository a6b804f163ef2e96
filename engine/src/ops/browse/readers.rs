//! Readers of chunks, one for each writer whose snapshots are read: few at once, since each keeps
//! some megabytes at hand, and anew after a while, since each brings the index up to date only once.

use std::sync::Arc;

use cairn_format::ids::WriterId;
use parking_lot::Mutex;

use super::shelf::Shown;
use crate::error::Error;
use crate::repo::Repository;
use crate::repo::chunks::ChunkReader;

/// Readers that are kept.
const READERS_MAX: usize = 2;
/// How long one is used, milliseconds.
const USED_MS_MAX: i64 = 60_000;

struct Kept<'r> {
    namespace: WriterId,
    made_ms: i64,
    reader: Arc<ChunkReader<'r>>,
}

/// The readers, the one used last at the end.
pub(super) struct Readers<'r> {
    repository: &'r Repository,
    kept: Mutex<Vec<Kept<'r>>>,
}

impl<'r> Readers<'r> {
    pub(super) fn new(repository: &'r Repository) -> Self {
        Self { repository, kept: Mutex::default() }
    }

    /// The reader of a snapshot.
    pub(super) fn of(&self, shown: &Shown) -> Result<Arc<ChunkReader<'r>>, Error> {
        let namespace = shown.info.namespace;
        let now_ms = self.repository.context.clock.now_ms();
        let mut kept = self.kept.lock();
        kept.retain(|one| (0..USED_MS_MAX).contains(&now_ms.saturating_sub(one.made_ms)));
        let found = kept.iter().position(|one| one.namespace == namespace);
        let one = match found {
            Some(at) => kept.remove(at),
            None => {
                let reader = Arc::new(self.repository.chunk_reader(namespace)?);
                Kept { namespace, made_ms: now_ms, reader }
            }
        };
        let reader = Arc::clone(&one.reader);
        if kept.len() >= READERS_MAX {
            kept.remove(0);
        }
        kept.push(one);
        Ok(reader)
    }
}
