//! What takes the place of bases that must go: what holds now the content that was copied from them.
//! Later versions of the same content are then stored against that.

use std::collections::HashMap;
use std::ops::Range;

use cairn_format::ids::ChunkId;
use cairn_format::pack::ChunkRef;

/// Successors that are remembered, at most: about 110 bytes each. What has none is stored whole.
const SUCCESSORS_MAX: usize = 1 << 20;
/// Successors of one base, at most.
const OF_ONE_MAX: usize = 1 << 10;
/// No further successor.
const NONE: u32 = u32::MAX;

/// Stands for an id. Two that begin alike cost a look at what is of no use.
fn beginning(id: &ChunkId) -> u64 {
    id.as_bytes().first_chunk().copied().map_or(0, u64::from_le_bytes)
}

/// What holds part of a base.
struct Holder {
    /// Its number among the chunks.
    chunk: u32,
    /// Which part of the base, bytes; not all of it need be held.
    from: u32,
    to: u32,
    /// The one that was noted before, of the same base.
    before: u32,
}

/// For each base that goes, the chunks that hold what was copied from it.
#[derive(Default)]
pub struct Successors {
    /// By base, the holder that was noted last.
    of: HashMap<u64, u32>,
    holders: Vec<Holder>,
    chunks: Vec<ChunkRef>,
    numbers: HashMap<u64, u32>,
}

impl Successors {
    /// Notes that what was copied from part of a base stands in a chunk now.
    pub fn note(&mut self, base: ChunkId, part: Range<u32>, chunk: ChunkRef) {
        let last = self.of.get(&beginning(&base)).copied().unwrap_or(NONE);
        let (mut at, mut count) = (last, 0);
        while let Some(holder) = self.holders.get_mut(at as usize) {
            if self.chunks.get(holder.chunk as usize) == Some(&chunk) {
                (holder.from, holder.to) = (holder.from.min(part.start), holder.to.max(part.end));
                return;
            }
            (at, count) = (holder.before, count + 1);
        }
        let Ok(new) = u32::try_from(self.holders.len()) else { return };
        if self.holders.len() >= SUCCESSORS_MAX || count >= OF_ONE_MAX {
            return;
        }
        let Some(number) = self.number(chunk) else { return };
        self.holders.push(Holder { chunk: number, from: part.start, to: part.end, before: last });
        self.of.insert(beginning(&base), new);
    }

    fn number(&mut self, chunk: ChunkRef) -> Option<u32> {
        let key = beginning(&chunk.id);
        if let Some(number) = self.numbers.get(&key) {
            let known = self.chunks.get(*number as usize);
            return known.filter(|known| **known == chunk).map(|_| *number);
        }
        let number = u32::try_from(self.chunks.len()).ok()?;
        self.chunks.push(chunk);
        self.numbers.insert(key, number);
        Some(number)
    }

    /// What follows part of a base, and how many bytes of it each may hold, what was noted last first;
    /// empty when nothing does.
    pub fn of(&self, base: &ChunkId, part: Range<u32>) -> impl Iterator<Item = (ChunkRef, u32)> {
        let last = self.of.get(&beginning(base)).copied().unwrap_or(NONE);
        let next = |holder: &&Holder| self.holders.get(holder.before as usize);
        std::iter::successors(self.holders.get(last as usize), next).filter_map(move |holder| {
            let bytes = holder.to.min(part.end).checked_sub(holder.from.max(part.start))?;
            let chunk = self.chunks.get(holder.chunk as usize)?;
            (bytes > 0).then_some((*chunk, bytes))
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
        assert_eq!(of(0..100), [(chunk(12), 20), (chunk(11), 80)]);
        assert_eq!(of(75..100), [(chunk(11), 5)]);
        assert!(of(80..100).is_empty() && of(5..5).is_empty());
        assert!(successors.of(&chunk(2).id, 0..100).next().is_none());
        for number in 20..2_000 {
            successors.note(base, 0..1, chunk(number));
        }
        // One of all holds another part only.
        assert_eq!(successors.of(&base, 0..1).count(), OF_ONE_MAX - 1);
    }
}
