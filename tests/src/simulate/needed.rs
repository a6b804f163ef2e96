//! The content that snapshots need, to tell whether a chunk that none of them names holds anything
//! else: patches hold bytes of needed chunks, and nothing but them.

use std::collections::HashSet;

use cairn_engine::collect::reach::{Reach, reach};
use cairn_engine::error::Error;
use cairn_engine::ops::snapshots::SnapshotInfo;
use cairn_engine::repo::Repository;
use cairn_format::ids::ChunkId;

/// Bytes that are compared at once where content is looked for.
const WINDOW_BYTES: usize = 16;

/// The content of everything that snapshots need.
pub(super) struct Needed {
    windows: HashSet<[u8; WINDOW_BYTES]>,
    /// Chunks that are needed and cannot be read: of snapshots that were never acknowledged.
    pub(super) unread: u64,
}

impl Needed {
    pub(super) fn read(repository: &Repository, snapshots: &[SnapshotInfo]) -> Result<Self, Error> {
        let (mut windows, mut unread) = (HashSet::new(), 0);
        for snapshot in snapshots {
            let mut data = Data::default();
            reach(&repository.nodes(snapshot)?, snapshot.record.root, &mut data)?;
            for chunk in data.ids {
                let Ok(chunks) = repository.data_chunks(snapshot, &[chunk]) else {
                    unread += 1;
                    continue;
                };
                let chunks = chunks.iter().flat_map(|chunk| chunk.windows(WINDOW_BYTES));
                windows.extend(chunks.filter_map(<[u8]>::first_chunk));
            }
        }
        Ok(Self { windows, unread })
    }

    /// Whether each byte of `content` stands somewhere, with others around it.
    pub(super) fn explains(&self, content: &[u8]) -> bool {
        let mut explained = 0;
        for (at, window) in content.windows(WINDOW_BYTES).enumerate() {
            if window.first_chunk().is_some_and(|window| self.windows.contains(window)) {
                explained = at + WINDOW_BYTES;
            } else if at >= explained {
                return false;
            }
        }
        explained == content.len()
    }
}

/// The data chunks of a snapshot.
#[derive(Default)]
struct Data {
    ids: HashSet<ChunkId>,
}

impl Reach for Data {
    fn node(&mut self, _: &ChunkId) -> Result<bool, Error> {
        Ok(true)
    }
    fn data(&mut self, chunks: &[(ChunkId, u32)]) -> Result<(), Error> {
        self.ids.extend(chunks.iter().map(|(id, _)| *id));
        Ok(())
    }
    fn unreadable(&mut self, _: &ChunkId, _: Error) -> Result<(), Error> {
        Ok(())
    }
}

/// A chunk that no snapshot needs, from whichever namespace has it.
pub(super) fn content_of(
    repository: &Repository,
    snapshots: &[SnapshotInfo],
    chunk: ChunkId,
) -> Result<Vec<u8>, Error> {
    let mut found = Err(Error::ChunkMissing { chunk });
    for snapshot in snapshots {
        found = repository.data_chunks(snapshot, &[chunk]);
        if found.is_ok() {
            break;
        }
    }
    Ok(found?.first().map(|content| content.to_vec()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_explains_itself() {
        let content = (0..2_000_u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect::<Vec<_>>();
        let windows = content.windows(WINDOW_BYTES).filter_map(<[u8]>::first_chunk).copied();
        let needed = Needed { windows: windows.collect(), unread: 0 };
        let pieces = [&content[100..116], &content[5_000..5_333], &content[7..60]].concat();
        assert!(needed.explains(&pieces) && needed.explains(&[]));
        let mut other = pieces.clone();
        other[100] ^= 1;
        assert!(!needed.explains(&other));
        assert!(!needed.explains(&[&content[..64], &[7, 7][..]].concat()));
        assert!(!needed.explains(&content[..15]));
    }
}
