//! What the index forgot because it was deleted in the store: until the cache is written anew its
//! files go on to name that, and so do its entries of files and its sketches. That this is so is kept
//! in the cache; what it was, as long as this process runs.

use std::collections::HashSet;

use cairn_format::ids::{ChunkId, PackId};

use super::Catalog;
use crate::error::Error;
use crate::index::local::PackNumber;

/// Name under which it is kept since when the cache names what is gone: i64, milliseconds since 1970;
/// empty when it does not.
const NAME: &str = "forgotten/since";
/// Chunks that are remembered, at most: about 48 MiB.
const CHUNKS_MAX: usize = 1 << 20;

/// Chunks of packs that were forgotten.
#[derive(Clone, Debug)]
pub enum Forgotten {
    /// These, and no others; some may be stored elsewhere.
    These(HashSet<ChunkId>),
    /// It is not known which.
    Unknown,
}

impl Catalog {
    /// Since when the cache names what was deleted in the store, milliseconds since 1970.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn names_gone_since_ms(&self) -> Result<Option<i64>, Error> {
        let since = self.index.meta_get(NAME)?.unwrap_or_default();
        Ok(since.try_into().ok().map(i64::from_le_bytes))
    }

    /// Takes what was forgotten since the cache was clean. What is forgotten from then on is not known
    /// until it is clean again.
    #[must_use]
    pub fn take_forgotten(&self) -> Forgotten {
        self.forgotten.lock().replace(Forgotten::Unknown).unwrap_or(Forgotten::Unknown)
    }

    /// Notes that the cache names nothing that is gone.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn note_clean(&self) -> Result<(), Error> {
        let mut forgotten = self.forgotten.lock();
        self.index.meta_put(NAME, &[])?;
        *forgotten = None;
        Ok(())
    }

    /// Forgets a pack that was deleted in the store.
    pub(super) fn forget_pack(
        &self,
        number: PackNumber,
        id: &PackId,
        now_ms: i64,
    ) -> Result<(), Error> {
        let mut forgotten = self.forgotten.lock();
        if forgotten.is_none() {
            let known = self.names_gone_since_ms()?;
            if known.is_none() {
                // First: whoever dies now has removed nothing yet.
                self.index.meta_put(NAME, &now_ms.to_le_bytes())?;
            }
            *forgotten = Some(match known {
                None => Forgotten::These(HashSet::new()),
                Some(_) => Forgotten::Unknown,
            });
        }
        if let Some(Forgotten::These(chunks)) = forgotten.as_mut() {
            let ids = self.ids_in(number)?.unwrap_or_default();
            if chunks.len() + ids.len() <= CHUNKS_MAX {
                chunks.extend(ids.into_iter().map(|(id, _)| id));
            } else {
                *forgotten = Some(Forgotten::Unknown);
            }
        }
        self.index.remove_pack(id)?;
        Ok(())
    }
}
