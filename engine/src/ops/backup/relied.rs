//! What a backup relies on without having stored it itself: chunks it found in the index, and
//! snapshots through which files were recognised. When packs are condemned while it runs, these
//! are what has to be looked for again.

use std::collections::HashSet;

use cairn_format::ids::{ChunkId, WriterId};
use cairn_format::names::ObjectName;
use parking_lot::Mutex;

use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::store::{Store, StoreError, together};

/// Chunks that are remembered: they take about 40 bytes each. Whoever relies on more and can read
/// walks the snapshot's tree instead.
const CHUNKS_MAX: usize = 500_000;

/// Notes what is relied on; shared by all tasks of a backup.
#[derive(Debug, Default)]
pub struct Relied {
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    chunks: HashSet<ChunkId>,
    more: bool,
    acks: HashSet<ObjectName>,
}

impl Relied {
    /// Whether each chunk may be relied on. Those that may are then relied on.
    ///
    /// # Errors
    /// As [`Catalog::known`].
    pub fn known(
        &self,
        catalog: &Catalog,
        ids: &[ChunkId],
        namespace: WriterId,
    ) -> Result<Vec<bool>, Error> {
        let known = catalog.known(ids, namespace)?;
        self.note(ids.iter().zip(&known).filter(|(_, known)| **known).map(|(id, _)| *id));
        Ok(known)
    }

    /// Notes chunks that are relied on.
    fn note(&self, ids: impl Iterator<Item = ChunkId>) {
        let mut noted = self.noted.lock();
        for id in ids {
            if noted.chunks.len() >= CHUNKS_MAX && !noted.chunks.contains(&id) {
                noted.more = true;
                return;
            }
            noted.chunks.insert(id);
        }
    }

    /// Notes that the content of a snapshot is relied on as a whole, for as long as this acknowledgement of
    /// it is there: whoever forgets it removes that first, and its name never returns.
    pub fn note_ack(&self, name: ObjectName) {
        self.noted.lock().acks.insert(name);
    }

    /// The chunks relied on; `None` when they are more than are remembered.
    #[must_use]
    pub fn chunks(&self) -> Option<Vec<ChunkId>> {
        let noted = self.noted.lock();
        (!noted.more).then(|| noted.chunks.iter().copied().collect())
    }

    /// Whether the snapshots that are relied on as a whole stand, each asked for by name: a list may go on
    /// to show what was deleted. To be asked once what relies on them is visible. Nothing is deleted where
    /// nothing was condemned, so nothing is asked there.
    ///
    /// # Errors
    /// Failures of the store.
    pub fn stands(&self, store: &dyn Store, catalog: &Catalog) -> Result<bool, Error> {
        if catalog.condemned_count() == 0 {
            return Ok(true);
        }
        let mut names = self.noted.lock().acks.iter().copied().collect::<Vec<_>>();
        names.sort_unstable();
        for found in together::map(store, &names, |name| store.size(name)) {
            match found {
                Ok(_) => {}
                Err(StoreError::NotFound { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_chunks_are_not_taken_for_few() {
        let id = |number: usize| {
            ChunkId::from_bytes(*blake3::hash(&(number as u64).to_le_bytes()).as_bytes())
        };
        let relied = Relied::default();
        relied.note((0..CHUNKS_MAX).map(id));
        relied.note((0..CHUNKS_MAX).map(id));
        assert_eq!(relied.chunks().map(|chunks| chunks.len()), Some(CHUNKS_MAX));
        relied.note([id(CHUNKS_MAX)].into_iter());
        assert_eq!(relied.chunks(), None);
    }
}
