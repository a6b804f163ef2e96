//! Regions of large files whose content comes in pieces, from many frames at about the same time:
//! put together they are written at once, where each piece would be a write by itself.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use rustix::fd::OwnedFd;

use super::direct::{Block, REGION_BYTES};
use super::file::TargetFile;

/// Regions that are put together at once. What belongs to one comes within the time of a few frames.
pub(super) const OPEN_MAX: usize = 16;

/// A region some bytes of which are known.
pub(super) struct Region {
    pub(super) file: TargetFile,
    pub(super) direct: Arc<OwnedFd>,
    /// Where it begins in the file, bytes.
    pub(super) offset: u64,
    pub(super) block: Block,
    /// Its length, bytes: less at the end of a file.
    bytes: usize,
    /// What is known of it.
    known: Vec<Range<usize>>,
    /// How many were opened before it.
    age: u64,
}

/// Where a piece went.
pub(super) enum Added {
    /// Its region is not open.
    NoRegion,
    /// Into its region, more of which is still to come.
    Partly,
    /// Into its region, all of which is known now.
    Complete(Region),
}

/// Regions that are not complete yet.
#[derive(Default)]
pub(super) struct Regions {
    open: HashMap<(u64, u64), Region>,
    opened: u64,
}

/// Cuts a run into pieces that lie in one region each.
pub(super) fn by_region(mut offset: u64, mut bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        let room = REGION_BYTES - in_region(offset);
        let (piece, rest) = bytes.split_at(room.min(bytes.len()));
        let at = offset;
        offset += piece.len() as u64;
        bytes = rest;
        (!piece.is_empty()).then_some((at, piece))
    })
}

fn in_region(offset: u64) -> usize {
    usize::try_from(offset % REGION_BYTES as u64).unwrap_or_default()
}

impl Region {
    /// The region that holds an offset of a file; nothing is known of it.
    pub(super) fn new(file: &TargetFile, direct: &Arc<OwnedFd>, offset: u64, block: Block) -> Self {
        let offset = offset - in_region(offset) as u64;
        let left = file.bytes.saturating_sub(offset);
        let bytes = usize::try_from(left).unwrap_or(REGION_BYTES).min(REGION_BYTES);
        let (file, direct) = (file.clone(), Arc::clone(direct));
        Self { file, direct, offset, block, bytes, known: Vec::new(), age: 0 }
    }

    /// What is known, as long as it goes, in order.
    pub(super) fn known(mut self) -> (Self, Vec<Range<usize>>) {
        let mut known = std::mem::take(&mut self.known);
        known.sort_unstable_by_key(|range| range.start);
        let mut joined: Vec<Range<usize>> = Vec::with_capacity(known.len());
        for range in known {
            match joined.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => joined.push(range),
            }
        }
        (self, joined)
    }

    fn add(&mut self, offset: u64, piece: &[u8]) {
        let at = in_region(offset);
        self.block.put(at, piece);
        self.known.push(at..at + piece.len());
    }

    fn is_complete(&self) -> bool {
        // No byte of a file is written twice, so the lengths tell.
        self.known.iter().map(Range::len).sum::<usize>() >= self.bytes
    }
}

impl Regions {
    /// Adds a piece that lies in one region, if that is open.
    pub(super) fn add(&mut self, file: &TargetFile, offset: u64, piece: &[u8]) -> Added {
        let key = (file.id, offset - in_region(offset) as u64);
        let Some(region) = self.open.get_mut(&key) else { return Added::NoRegion };
        region.add(offset, piece);
        if !region.is_complete() {
            return Added::Partly;
        }
        self.open.remove(&key).map_or(Added::NoRegion, Added::Complete)
    }

    /// Opens a region that is not open. Returns the one opened longest ago when there are too many.
    pub(super) fn open(&mut self, region: Region) -> Option<Region> {
        let mut oldest = None;
        if self.open.len() >= OPEN_MAX {
            let by_age = self.open.iter().min_by_key(|(_, region)| region.age);
            oldest = by_age.map(|(key, _)| *key).and_then(|key| self.open.remove(&key));
        }
        let age = self.opened;
        self.opened += 1;
        self.open.insert((region.file.id, region.offset), Region { age, ..region });
        oldest
    }

    /// Takes all of them out.
    pub(super) fn drain(&mut self) -> Vec<Region> {
        self.open.drain().map(|(_, region)| region).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::contain::SafePath;

    fn file(bytes: u64) -> TargetFile {
        let path = SafePath::root().join(b"f").unwrap();
        TargetFile { id: 1, path, inode: (0, 0), link: None, bytes, existing_bytes: 0 }
    }

    fn new(file: &TargetFile, offset: u64) -> Region {
        let direct = Arc::new(OwnedFd::from(tempfile::tempfile().unwrap()));
        Region::new(file, &direct, offset, Block::default())
    }

    const REGION: u64 = REGION_BYTES as u64;

    #[test]
    fn runs_are_cut_where_regions_begin() {
        let run = vec![7; 3 * REGION_BYTES];
        let cut = by_region(REGION - 5, &run).map(|(at, piece)| (at, piece.len()));
        let expected = [
            (REGION - 5, 5),
            (REGION, REGION_BYTES),
            (2 * REGION, REGION_BYTES),
            (3 * REGION, REGION_BYTES - 5),
        ];
        assert_eq!(cut.collect::<Vec<_>>(), expected);
        assert_eq!(by_region(9, &[]).count(), 0);
    }

    #[test]
    fn a_region_is_complete_when_all_its_pieces_are_there() {
        let file = file(REGION + 1000);
        let mut regions = Regions::default();
        assert!(matches!(regions.add(&file, REGION + 300, &[2; 700]), Added::NoRegion));
        assert!(regions.open(new(&file, REGION + 300)).is_none());
        assert!(matches!(regions.add(&file, REGION + 300, &[2; 700]), Added::Partly));
        assert!(matches!(regions.add(&file, 300, &[2; 700]), Added::NoRegion));
        let Added::Complete(region) = regions.add(&file, REGION, &[1; 300]) else { panic!() };
        assert_eq!(region.offset, REGION);
        let (region, known) = region.known();
        assert_eq!(known, std::iter::once(0..1000).collect::<Vec<_>>());
        assert_eq!(region.block.content(299..301), [1, 2]);
        assert!(regions.drain().is_empty());
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let file = file(1 << 40);
        let mut regions = Regions::default();
        for number in 0..OPEN_MAX as u64 {
            assert!(regions.open(new(&file, number * REGION)).is_none());
            for at in [5000, 10, 5100] {
                assert!(matches!(
                    regions.add(&file, number * REGION + at, &[1; 100]),
                    Added::Partly
                ));
            }
        }
        let oldest = regions.open(new(&file, 1 << 39)).unwrap();
        assert_eq!(oldest.offset, 0);
        assert_eq!(oldest.known().1, [10..110, 5000..5200]);
        assert_eq!(regions.drain().len(), OPEN_MAX);
    }
}
