//! Frames that were tried against bases and stored whole, because that did not pay: what they were
//! tried against is remembered. When those bases go, what takes their place is nearer to what was
//! tried, and a repository that only ever held what stays would have stored it against that. So it is
//! tried again.
//!
//! What is remembered decides only what is looked at again; where it is lost, space is lost.

use std::ops::ControlFlow;
use std::sync::Arc;

use cairn_format::codec::{Reader, Writer};
use cairn_format::ids::ChunkId;
use cairn_format::limits::{FRAME_BASES_MAX, FRAME_CHUNKS_MAX};
use cairn_format::pack::ChunkRef;

use super::memo::Memos;
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::local::MemoChange;

/// A frame that was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Its chunks, which stand in frames without bases.
    pub chunks: Vec<ChunkRef>,
    /// What they were tried against.
    pub bases: Vec<ChunkRef>,
}

impl Tried {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        for list in [&self.chunks, &self.bases] {
            out.count(list.len());
            for chunk in list {
                out.raw(chunk.id.as_bytes()).varint(chunk.bytes.into());
            }
        }
        out.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Reader::new(bytes, "memo");
        let mut list = |most: u32| {
            let count = fields.varint().ok().filter(|count| *count <= u64::from(most))?;
            let mut chunks = Vec::new();
            for _ in 0..count {
                let id = ChunkId::from_bytes(fields.array().ok()?);
                chunks.push(ChunkRef { id, bytes: u32::try_from(fields.varint().ok()?).ok()? });
            }
            Some(chunks)
        };
        Some(Self { chunks: list(FRAME_CHUNKS_MAX)?, bases: list(FRAME_BASES_MAX)? })
    }

    /// What is to be remembered of it; `None` where there is nothing to be tried again.
    pub fn change(&self, memos: &Memos<'_>) -> Option<MemoChange> {
        let first = self.chunks.first().filter(|_| !self.bases.is_empty())?;
        Some(memos.change(Memos::tried_key(&first.id), &[], &self.encode()))
    }

    /// Shows each frame that is remembered.
    ///
    /// # Errors
    /// Failures of the cache; those of `each`.
    pub fn for_each(
        memos: &Memos<'_>,
        each: &mut dyn FnMut(Arc<Self>) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        for key in memos.tried_keys()? {
            let Some(value) = memos.get(&key, &[])? else { continue };
            if let Some(tried) = Self::decode(&value)
                && each(Arc::new(tried))?.is_break()
            {
                break;
            }
        }
        Ok(())
    }
}

/// Forgets what nothing follows from any more, and with it the names of what was erased: chunks and
/// bases that are in no pack.
///
/// # Errors
/// Failures of the cache.
pub(super) fn forget_gone(memos: &Memos<'_>, catalog: &Catalog) -> Result<(), Error> {
    let mut changes = Vec::new();
    for key in memos.tried_keys()? {
        let tried = memos.get(&key, &[])?.and_then(|value| Tried::decode(&value));
        let Some(tried) = tried else {
            changes.push((key, None));
            continue;
        };
        let mut left = Tried::default();
        for (from, to) in [(&tried.chunks, &mut left.chunks), (&tried.bases, &mut left.bases)] {
            for chunk in from {
                if !catalog.index().copies(&chunk.id)?.is_empty() {
                    to.push(*chunk);
                }
            }
        }
        if left != tried {
            changes.push((key, None));
            changes.extend(left.change(memos));
        }
    }
    memos.put(&changes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_was_tried_is_read_as_written(
            chunks in proptest::collection::vec((any::<[u8; 32]>(), any::<u32>()), 0..9),
            bases in proptest::collection::vec((any::<[u8; 32]>(), any::<u32>()), 0..9),
        ) {
            let list = |list: Vec<([u8; 32], u32)>| {
                let chunk = |(id, bytes)| ChunkRef { id: ChunkId::from_bytes(id), bytes };
                list.into_iter().map(chunk).collect::<Vec<_>>()
            };
            let tried = Tried { chunks: list(chunks), bases: list(bases) };
            prop_assert_eq!(Tried::decode(&tried.encode()), Some(tried));
        }

        #[test]
        fn nothing_is_read_out_of_nonsense(bytes in proptest::collection::vec(any::<u8>(), 0..99)) {
            if let Some(tried) = Tried::decode(&bytes) {
                prop_assert!(tried.chunks.len() + tried.bases.len() <= bytes.len());
            }
        }
    }
}
