//! Chunks that this session is storing and whose pack is not durable yet. Two workers that meet
//! the same new chunk store it once.

use std::collections::HashSet;

use cairn_format::ids::ChunkId;
use parking_lot::Mutex;

const SHARDS: usize = 64;

/// The set of chunks under way. It holds at most what the packs in flight hold.
#[derive(Debug)]
pub struct InFlight {
    shards: Vec<Mutex<HashSet<ChunkId>>>,
}

impl Default for InFlight {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl InFlight {
    fn shard(&self, id: &ChunkId) -> &Mutex<HashSet<ChunkId>> {
        // Ids are uniformly distributed: the last byte picks the shard, the map hashes the rest.
        let [.., last] = *id.as_bytes();
        &self.shards[usize::from(last) % SHARDS]
    }

    /// True when the caller is the first to claim the chunk, and must store it or release it.
    #[must_use]
    pub fn claim(&self, id: &ChunkId) -> bool {
        self.shard(id).lock().insert(*id)
    }

    /// Ends a claim: the chunk is found in the index from now on, or was never stored.
    pub fn release(&self, id: &ChunkId) {
        self.shard(id).lock().remove(id);
    }
}
