//! Blocks of files that come in pieces: the end of one run and the beginning of the next.
//!
//! Written through the page cache each piece would wait for all writing past it to the same file,
//! and hold that up: the kernel lets only whole blocks be written beside one another.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::file::TargetFile;

/// Blocks gathered at once: 16 MiB with a block of 4 KiB.
const EDGES_MAX: usize = 4096;

/// A block some bytes of which are known.
pub(super) struct Edge {
    pub(super) file: TargetFile,
    /// Where the block begins in the file, bytes.
    pub(super) offset: u64,
    /// The bytes of the block, as far as the file goes.
    pub(super) block: Vec<u8>,
    /// The pieces that are known: beginning and end in the block.
    known: Vec<(usize, usize)>,
}

impl Edge {
    /// The pieces that are known, with their places in the file.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let piece = |(from, to): &(usize, usize)| {
            Some((self.offset + *from as u64, self.block.get(*from..*to)?))
        };
        self.known.iter().filter_map(piece)
    }
}

/// A piece does not lie within one block of its file.
#[derive(Debug)]
pub(super) struct OutOfBlock;

/// Blocks that are not complete yet.
#[derive(Default)]
pub(super) struct Edges {
    blocks: HashMap<(u64, u64), Edge>,
}

impl Edges {
    /// Adds a piece that lies within one block of `align` bytes. Returns the block when that makes
    /// it complete.
    ///
    /// # Errors
    /// When the piece does not lie within one block of the file.
    pub(super) fn add(
        &mut self,
        file: &TargetFile,
        offset: u64,
        piece: &[u8],
        align: usize,
    ) -> Result<Option<Edge>, OutOfBlock> {
        let start = offset - offset % align as u64;
        let from = usize::try_from(offset - start).map_err(|_| OutOfBlock)?;
        let entry = self.blocks.entry((file.id, start));
        let mut entry = match entry {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => {
                let bytes = (align as u64).min(file.bytes.saturating_sub(start));
                let block = vec![0; usize::try_from(bytes).map_err(|_| OutOfBlock)?];
                let file = file.clone();
                entry.insert_entry(Edge { file, offset: start, block, known: Vec::new() })
            }
        };
        let edge = entry.get_mut();
        let room = edge.block.get_mut(from..from + piece.len()).ok_or(OutOfBlock)?;
        room.copy_from_slice(piece);
        edge.known.push((from, from + piece.len()));
        // No byte of a file is written twice, so the lengths tell.
        let known = edge.known.iter().map(|(from, to)| to - from).sum::<usize>();
        Ok((known >= edge.block.len()).then(|| entry.remove()))
    }

    /// Takes all blocks out when there are too many, or at the end.
    pub(super) fn drain(&mut self, end: bool) -> Vec<Edge> {
        if end || self.blocks.len() >= EDGES_MAX {
            self.blocks.drain().map(|(_, edge)| edge).collect()
        } else {
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::contain::SafePath;

    const ALIGN: usize = 4096;

    fn file(bytes: u64) -> TargetFile {
        let path = SafePath::root().join(b"f").unwrap();
        TargetFile { id: 1, path, inode: (0, 0), link: None, bytes, existing_bytes: 0 }
    }

    #[test]
    fn a_block_is_complete_when_all_its_pieces_are_there() {
        let (mut edges, file) = (Edges::default(), file(10_000));
        assert!(edges.add(&file, 4096 + 100, &[2; 3996], ALIGN).unwrap().is_none());
        assert!(edges.add(&file, 8192, &[3; 1000], ALIGN).unwrap().is_none());
        let edge = edges.add(&file, 4096, &[1; 100], ALIGN).unwrap().unwrap();
        assert_eq!((edge.offset, edge.block.len()), (4096, 4096));
        assert_eq!((edge.block[99], edge.block[100]), (1, 2));
        // The file ends in the last block.
        let edge = edges.add(&file, 9192, &[4; 808], ALIGN).unwrap().unwrap();
        assert_eq!((edge.offset, edge.block.len(), edge.block[1807]), (8192, 1808, 4));
        assert!(edges.drain(true).is_empty());
    }

    #[test]
    fn what_stays_incomplete_is_given_back_in_pieces() {
        let (mut edges, file) = (Edges::default(), file(10_000));
        edges.add(&file, 10, &[1; 20], ALIGN).unwrap();
        edges.add(&file, 4000, &[2; 96], ALIGN).unwrap();
        assert!(edges.drain(false).is_empty());
        let rest = edges.drain(true);
        let pieces = rest.iter().flat_map(Edge::pieces).collect::<Vec<_>>();
        assert_eq!(pieces, [(10, &[1; 20][..]), (4000, &[2; 96][..])]);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut edges, file) = (Edges::default(), file(1 << 40));
        for block in 0..EDGES_MAX as u64 {
            assert!(edges.drain(false).is_empty());
            edges.add(&file, block * 4096, &[1], ALIGN).unwrap();
        }
        assert_eq!(edges.drain(false).len(), EDGES_MAX);
        assert!(edges.add(&file, 5000, &[1; 4000], ALIGN).is_err());
    }
}
