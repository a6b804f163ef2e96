//! What takes the place of bases that must go: what holds now the content that was copied from them.
//! Later versions of the same content are then stored against that.

use std::collections::HashMap;
use std::ops::Range;

use cairn_format::ids::ChunkId;
use cairn_format::pack::ChunkRef;

/// Successors that are remembered, at most: about 150 bytes each. What has none is stored whole.
const SUCCESSORS_MAX: usize = 1 << 20;
/// Successors of one base, at most.
const OF_ONE_MAX: usize = 1 << 10;

/// What holds part of a base.
struct Holder {
    chunk: ChunkRef,
    /// Which part of the base, bytes; not all of it need be held.
    from: u32,
    to: u32,
}

/// For each base that goes, the chunks that hold what was copied from it.
#[derive(Default)]
pub struct Successors {
    of: HashMap<ChunkId, Vec<Holder>>,
    count: usize,
}

impl Successors {
    /// Notes that what was copied from part of a base stands in a chunk now.
    pub fn note(&mut self, base: ChunkId, part: Range<u32>, chunk: ChunkRef) {
        let full = self.count >= SUCCESSORS_MAX;
        if full && !self.of.contains_key(&base) {
            return;
        }
        let known = self.of.entry(base).or_default();
        if let Some(known) = known.iter_mut().rev().find(|known| known.chunk == chunk) {
            (known.from, known.to) = (known.from.min(part.start), known.to.max(part.end));
        } else if !full && known.len() < OF_ONE_MAX {
            known.push(Holder { chunk, from: part.start, to: part.end });
            self.count += 1;
        }
    }

    /// What follows part of a base, and how many bytes of it each may hold; empty when nothing does.
    pub fn of(&self, base: &ChunkId, part: Range<u32>) -> impl Iterator<Item = (ChunkRef, u32)> {
        let known = self.of.get(base).map(Vec::as_slice).unwrap_or_default();
        known.iter().filter_map(move |known| {
            let bytes = known.to.min(part.end).checked_sub(known.from.max(part.start))?;
            (bytes > 0).then_some((known.chunk, bytes))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(number: u32) -> ChunkRef {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_le_bytes());
        ChunkRef { id: ChunkId::from_bytes(id), bytes: 100 }
    }

    #[test]
    fn what_holds_the_content_of_a_base_follows_it() {
        let mut successors = Successors::default();
        let base = chunk(1).id;
        successors.note(base, 0..40, chunk(11));
        successors.note(base, 40..60, chunk(12));
        successors.note(base, 70..80, chunk(11));
        let of = |part| successors.of(&base, part).collect::<Vec<_>>();
        assert_eq!(of(0..100), [(chunk(11), 80), (chunk(12), 20)]);
        assert_eq!(of(75..100), [(chunk(11), 5)]);
        assert!(of(80..100).is_empty() && of(5..5).is_empty());
        assert!(successors.of(&chunk(2).id, 0..100).next().is_none());
        for number in 20..2_000 {
            successors.note(base, 0..1, chunk(number));
        }
        assert_eq!(successors.of(&base, 0..1).count(), OF_ONE_MAX - 1);
    }
}
