//! Where a stream is cut into chunks, the unit of deduplication.
//!
//! Content-defined cutting (FastCDC 2020, Xia et al., TPDS 2020) finds the same cuts again after
//! insertions and deletions; aligned cutting suits files made of pages, where nothing moves and a
//! scan would only cost time (`shared research: limits 3`). Cuts are keyed by the repository, see
//! SPEC §8.8 and §13 for what that does and does not hide.

use cairn_format::record::ChunkerSettings;
use fastcdc::v2020::{Normalization, cut_gear, select_masks};

/// Chunk sizes of content-defined cutting unless `init` is told otherwise.
pub const CHUNKER_DEFAULT: ChunkerSettings = ChunkerSettings {
    algorithm: 1,
    normalisation: 2,
    bytes_min: 16 << 10,
    bytes_avg: 64 << 10,
    bytes_max: 256 << 10,
};

/// Chunk of page files and devices unless `init` is told otherwise, bytes.
pub const ALIGNED_BYTES_DEFAULT: u32 = 64 << 10;

/// Decides where chunks end.
#[derive(Clone)]
pub enum Cutter {
    /// By content.
    Content(Box<ContentCutter>),
    /// At multiples of so many bytes.
    Aligned(u32),
}

impl Cutter {
    /// Largest chunk it makes, bytes. A caller must offer that much unless the stream ends before.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        match self {
            Self::Content(cutter) => cutter.settings.bytes_max as usize,
            Self::Aligned(bytes) => *bytes as usize,
        }
    }

    /// Length of the chunk that starts at the front of `data`, at least 1 for non-empty data.
    ///
    /// `data` holds [`Self::bytes_max`] bytes or everything up to the end of the stream; then the
    /// cut depends on nothing but the bytes from the chunk's start, so a stream is cut alike
    /// however it was read.
    #[must_use]
    pub fn next(&self, data: &[u8]) -> usize {
        match self {
            Self::Content(cutter) => cutter.next(data),
            Self::Aligned(bytes) => data.len().min(*bytes as usize),
        }
    }
}

/// FastCDC with the repository's own gear table.
#[derive(Clone)]
pub struct ContentCutter {
    settings: ChunkerSettings,
    mask_small: u64,
    mask_large: u64,
    gear: [u64; 256],
    gear_shifted: [u64; 256],
}

impl ContentCutter {
    /// A cutter with the given table (SPEC §8.8).
    #[must_use]
    pub fn new(settings: ChunkerSettings, gear: [u64; 256]) -> Self {
        let level = match settings.normalisation {
            0 => Normalization::Level0,
            1 => Normalization::Level1,
            2 => Normalization::Level2,
            _ => Normalization::Level3,
        };
        let (mask_small, mask_large) = select_masks(settings.bytes_avg as usize, level);
        let gear_shifted = gear.map(|value| value << 1);
        Self { settings, mask_small, mask_large, gear, gear_shifted }
    }

    fn next(&self, data: &[u8]) -> usize {
        let (_, length) = cut_gear(
            data,
            self.settings.bytes_min as usize,
            self.settings.bytes_avg as usize,
            self.settings.bytes_max as usize,
            self.mask_small,
            self.mask_large,
            self.mask_small << 1,
            self.mask_large << 1,
            &self.gear,
            &self.gear_shifted,
        );
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content() -> Cutter {
        let mut gear = [0; 256];
        let mut state = blake3::Hasher::new().finalize_xof();
        for value in &mut gear {
            let mut bytes = [0; 8];
            state.fill(&mut bytes);
            *value = u64::from_le_bytes(bytes);
        }
        let settings =
            ChunkerSettings { bytes_min: 256, bytes_avg: 1024, bytes_max: 4096, ..CHUNKER_DEFAULT };
        Cutter::Content(Box::new(ContentCutter::new(settings, gear)))
    }

    /// Cuts `data` as a reader does that gets it in pieces of `step` bytes.
    fn cuts(cutter: &Cutter, data: &[u8], step: usize) -> Vec<usize> {
        let (mut start, mut available, mut lengths) = (0, 0, Vec::new());
        while start < data.len() {
            available = (available + step).min(data.len());
            while available - start >= cutter.bytes_max()
                || (available == data.len() && start < available)
            {
                let length = cutter.next(&data[start..available]);
                lengths.push(length);
                start += length;
            }
        }
        lengths
    }

    fn noise(bytes: usize, seed: u64) -> Vec<u8> {
        let mut data = vec![0; bytes];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
        data
    }

    proptest! {
        #[test]
        fn cuts_do_not_depend_on_how_the_stream_arrives(
            seed: u64, bytes in 0_usize..40_000, step in 1_usize..9_000, aligned: bool,
        ) {
            let cutter = if aligned { Cutter::Aligned(4096) } else { content() };
            let data = noise(bytes, seed);
            let whole = cuts(&cutter, &data, bytes.max(1));
            prop_assert_eq!(&whole, &cuts(&cutter, &data, step));
            prop_assert_eq!(whole.iter().sum::<usize>(), bytes);
            prop_assert!(whole.iter().all(|length| (1..=cutter.bytes_max()).contains(length)));
        }
    }

    #[test]
    fn an_insertion_moves_few_cuts() {
        let cutter = content();
        let before = noise(400_000, 7);
        let mut after = before.clone();
        after.splice(200_000..200_000, *b"inserted");
        let pieces = |data: &[u8]| {
            let mut rest = data;
            cuts(&cutter, data, data.len())
                .into_iter()
                .map(|length| {
                    let (piece, tail) = rest.split_at(length);
                    rest = tail;
                    piece.to_vec()
                })
                .collect::<std::collections::HashSet<_>>()
        };
        let (before, after) = (pieces(&before), pieces(&after));
        let changed = after.difference(&before).count();
        assert!(changed <= 8, "{changed} of {} chunks changed", after.len());
    }

    #[test]
    fn another_table_cuts_elsewhere() {
        let data = noise(100_000, 1);
        let Cutter::Content(mut other) = content() else { unreachable!() };
        other.gear.reverse();
        other.gear_shifted.reverse();
        let ours = cuts(&content(), &data, data.len());
        assert_ne!(ours, cuts(&Cutter::Content(other), &data, data.len()));
    }
}
