//! What takes the place of bases that must go: chunks that were stored against them, and that are
//! now stored whole. Later versions of the same content are then stored against these.

use std::collections::HashMap;

use cairn_format::ids::ChunkId;
use cairn_format::pack::{ChunkRef, FrameDescription};

/// Bases that are remembered, at most: about a hundred bytes each. Frames with other bases are
/// stored whole.
const BASES_MAX: usize = 1 << 20;

/// Chunks of one frame, by number of the frame, first and last.
#[derive(Clone, Copy)]
struct Part {
    frame: u32,
    first: u16,
    last: u16,
}

/// For each base that goes, the chunks that lie where it lay.
#[derive(Default)]
pub struct Successors {
    frames: Vec<Vec<ChunkRef>>,
    parts: HashMap<ChunkId, Part>,
}

impl Successors {
    /// Notes that the chunks of `frame` were stored whole. They follow those of its bases that have
    /// no successors yet, each the chunks that lie in the frame where it lies among the bases.
    pub fn note(&mut self, frame: &FrameDescription) {
        let total = frame.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum::<u64>().max(1);
        let bases = frame.bases.iter().map(|base| u64::from(base.bytes)).sum::<u64>().max(1);
        let Ok(number) = u32::try_from(self.frames.len()) else { return };
        let (mut offset, mut noted) = (0, false);
        for base in &frame.bases {
            let (from, to) = (offset, offset + u64::from(base.bytes));
            offset = to;
            if self.parts.contains_key(&base.id) || self.parts.len() >= BASES_MAX {
                continue;
            }
            let first = chunk_at(&frame.chunks, from * total / bases);
            let last = chunk_at(&frame.chunks, (to * total / bases).saturating_sub(1));
            if let (Ok(first), Ok(last)) = (u16::try_from(first), u16::try_from(last)) {
                self.parts.insert(base.id, Part { frame: number, first, last });
                noted = true;
            }
        }
        if noted {
            self.frames.push(frame.chunks.clone());
        }
    }

    /// What follows a base; empty when nothing does.
    #[must_use]
    pub fn of(&self, base: &ChunkId) -> &[ChunkRef] {
        let Some(part) = self.parts.get(base) else { return &[] };
        let frame = self.frames.get(part.frame as usize);
        frame
            .and_then(|chunks| chunks.get(usize::from(part.first)..=usize::from(part.last)))
            .unwrap_or_default()
    }
}

/// Index of the chunk that holds the byte at `offset` of all of them; the last for what is behind.
fn chunk_at(chunks: &[ChunkRef], offset: u64) -> usize {
    let mut end = 0;
    let within = |chunk: &ChunkRef| {
        end += u64::from(chunk.bytes);
        offset < end
    };
    chunks.iter().position(within).unwrap_or_else(|| chunks.len().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use cairn_format::pack::Codec;

    use super::*;

    fn chunk(number: u8, bytes: u32) -> ChunkRef {
        ChunkRef { id: ChunkId::from_bytes([number; 32]), bytes }
    }

    fn frame(chunks: Vec<ChunkRef>, bases: Vec<ChunkRef>) -> FrameDescription {
        FrameDescription { codec: Codec::Zstd, sealed_bytes: 1, chunks, bases }
    }

    #[test]
    fn what_lies_where_a_base_lay_follows_it() {
        let mut successors = Successors::default();
        let chunks = vec![chunk(1, 100), chunk(2, 100), chunk(3, 200)];
        successors
            .note(&frame(chunks.clone(), vec![chunk(11, 200), chunk(12, 50), chunk(13, 150)]));
        assert_eq!(successors.of(&chunk(11, 0).id), &chunks[..2]);
        assert_eq!(successors.of(&chunk(12, 0).id), &chunks[2..]);
        assert_eq!(successors.of(&chunk(13, 0).id), &chunks[2..]);
        assert!(successors.of(&chunk(14, 0).id).is_empty());
        // The first to follow stays.
        successors.note(&frame(vec![chunk(4, 10)], vec![chunk(13, 5), chunk(14, 5)]));
        assert_eq!(successors.of(&chunk(13, 0).id), &chunks[2..]);
        assert_eq!(successors.of(&chunk(14, 0).id), &[chunk(4, 10)]);
        successors.note(&frame(Vec::new(), vec![chunk(15, 0)]));
        assert!(successors.of(&chunk(15, 0).id).is_empty());
    }
}
