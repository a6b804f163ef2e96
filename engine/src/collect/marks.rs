//! Which chunks of which packs are needed: one bit for each chunk that a pack lists, so that a
//! hundred million of them take a few tens of mebibytes.

use std::collections::{HashMap, VecDeque};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::local::{ChunkPlace, PackNumber};

/// What layouts of packs that are kept at hand may take, bytes: four million chunks.
const LAYOUTS_BYTES_MAX: usize = 32 << 20;
/// What one takes besides eight bytes for each chunk of its pack, about.
const LAYOUT_BYTES: usize = 128;

/// Bits of one word.
pub const WORD_BITS: usize = u64::BITS as usize;

/// Bits for chunks, by pack and position in the pack's directory.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    packs: HashMap<PackNumber, Vec<u64>>,
}

impl Marks {
    /// Sets a bit; true when it was not set before.
    pub fn set(&mut self, pack: PackNumber, position: usize) -> bool {
        let words = self.packs.entry(pack).or_default();
        let word = position / WORD_BITS;
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        let Some(bits) = words.get_mut(word) else { return false };
        let bit = 1 << (position % WORD_BITS);
        let fresh = *bits & bit == 0;
        *bits |= bit;
        fresh
    }

    /// Sets the bits of positions that follow one another.
    pub fn set_all(&mut self, pack: PackNumber, positions: Range<usize>) {
        if positions.is_empty() {
            return;
        }
        let words = self.packs.entry(pack).or_default();
        let (first, last) = (positions.start / WORD_BITS, (positions.end - 1) / WORD_BITS);
        if words.len() <= last {
            words.resize(last + 1, 0);
        }
        for (number, word) in words.iter_mut().enumerate().take(last + 1).skip(first) {
            let from = positions.start.saturating_sub(number * WORD_BITS);
            let to = (positions.end - number * WORD_BITS).min(WORD_BITS);
            // `to` is at least 1, and more than `from`.
            *word |= (u64::MAX >> (WORD_BITS - to)) & (u64::MAX << from);
        }
    }

    /// Sets the bits that are set in words, which begin with position 0.
    pub fn set_words(&mut self, pack: PackNumber, more: &[u64]) {
        if more.is_empty() {
            return;
        }
        let words = self.packs.entry(pack).or_default();
        if words.len() < more.len() {
            words.resize(more.len(), 0);
        }
        words.iter_mut().zip(more).for_each(|(word, more)| *word |= more);
    }

    /// The words of each pack, in no order of packs; there may be words without bits.
    pub fn words(&self) -> impl Iterator<Item = (PackNumber, &[u64])> {
        self.packs.iter().map(|(pack, words)| (*pack, words.as_slice()))
    }

    /// Whether every bit is set in one of `others` as well.
    #[must_use]
    pub fn is_within(&self, others: &[&Self]) -> bool {
        self.words().all(|(pack, words)| {
            words.iter().enumerate().all(|(at, word)| {
                let set = others.iter().fold(0, |set, other| set | other.word(pack, at));
                word & !set == 0
            })
        })
    }

    /// Whether a bit is set here and in `other`.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.words().any(|(pack, words)| {
            words.iter().enumerate().any(|(at, word)| word & other.word(pack, at) != 0)
        })
    }

    fn word(&self, pack: PackNumber, at: usize) -> u64 {
        self.packs.get(&pack).and_then(|words| words.get(at)).copied().unwrap_or_default()
    }

    /// The positions whose bits are set, ascending.
    #[must_use]
    pub fn positions(&self, pack: PackNumber) -> Vec<usize> {
        let words = self.packs.get(&pack).map(Vec::as_slice).unwrap_or_default();
        let bits = |(number, word): (usize, &u64)| {
            let word = *word;
            let set = (0..WORD_BITS).filter(move |bit| word & (1 << bit) != 0);
            set.map(move |bit| number * WORD_BITS + bit)
        };
        words.iter().enumerate().flat_map(bits).collect()
    }

    /// Clears the bits of a pack; returns the positions of those that were set, ascending.
    pub fn take(&mut self, pack: PackNumber) -> Vec<usize> {
        let positions = self.positions(pack);
        self.packs.remove(&pack);
        positions
    }

    /// Bits set in a pack.
    #[must_use]
    pub fn count_in(&self, pack: PackNumber) -> u64 {
        let words = self.packs.get(&pack).map(Vec::as_slice).unwrap_or_default();
        words.iter().map(|bits| u64::from(bits.count_ones())).sum()
    }

    /// Stands for which bits of a pack are set.
    #[must_use]
    pub fn digest(&self, pack: PackNumber) -> [u8; 32] {
        let words = self.packs.get(&pack).map(Vec::as_slice).unwrap_or_default();
        // Words without bits at the end are as good as absent.
        let used = words.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        let mut hasher = blake3::Hasher::new();
        for word in words.iter().take(used) {
            hasher.update(&word.to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// Clears a bit.
    pub fn unset(&mut self, pack: PackNumber, position: usize) {
        let word = self.packs.get_mut(&pack).and_then(|words| words.get_mut(position / WORD_BITS));
        if let Some(bits) = word {
            *bits &= !(1 << (position % WORD_BITS));
        }
    }

    /// Whether a bit is set.
    #[must_use]
    pub fn get(&self, pack: PackNumber, position: usize) -> bool {
        let word = self.packs.get(&pack).and_then(|words| words.get(position / WORD_BITS));
        word.is_some_and(|bits| bits & (1 << (position % WORD_BITS)) != 0)
    }

    /// Whether any bit of a pack is set.
    #[must_use]
    pub fn any(&self, pack: PackNumber) -> bool {
        self.packs.get(&pack).is_some_and(|words| words.iter().any(|bits| *bits != 0))
    }

    /// The packs that have bits, in no order.
    pub fn packs(&self) -> impl Iterator<Item = PackNumber> + '_ {
        self.packs.keys().copied()
    }

    /// Bits set in all packs.
    #[must_use]
    pub fn count(&self) -> u64 {
        let words = self.packs.values().flatten();
        words.map(|bits| u64::from(bits.count_ones())).sum()
    }

    /// Clears every bit.
    pub fn clear(&mut self) {
        self.packs.clear();
    }
}

/// Positions of chunks in the directories of their packs.
pub struct Layouts<'a> {
    catalog: &'a Catalog,
    known: HashMap<PackNumber, Arc<Vec<(u32, u32)>>>,
    order: VecDeque<PackNumber>,
    /// What they take.
    bytes: usize,
}

impl<'a> Layouts<'a> {
    /// Nothing read yet.
    #[must_use]
    pub fn new(catalog: &'a Catalog) -> Self {
        Self { catalog, known: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }

    fn of(&mut self, pack: PackNumber) -> Result<Arc<Vec<(u32, u32)>>, Error> {
        if let Some(layout) = self.known.get(&pack) {
            return Ok(Arc::clone(layout));
        }
        let mut layout = Vec::new();
        self.catalog.index().for_each_chunk_of_pack(pack, &mut |_, place| {
            layout.push((place.frame_number, place.offset));
            ControlFlow::Continue(())
        })?;
        layout.shrink_to_fit();
        let layout = Arc::new(layout);
        self.bytes += bytes_of(&layout);
        while self.bytes > LAYOUTS_BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.known.remove(&oldest).map_or(0, |layout| bytes_of(&layout));
        }
        self.known.insert(pack, Arc::clone(&layout));
        self.order.push_back(pack);
        Ok(layout)
    }

    /// Position of a chunk among all that its pack lists, from 0.
    ///
    /// # Errors
    /// [`Error::PlaceStale`] when the pack lists no chunk there; failures of the cache.
    pub fn position(&mut self, place: &ChunkPlace) -> Result<usize, Error> {
        // In the order of a directory both frame and offset ascend.
        let layout = self.of(place.pack)?;
        layout.binary_search(&(place.frame_number, place.offset)).map_err(|_| Error::PlaceStale)
    }
}

fn bytes_of(layout: &[(u32, u32)]) -> usize {
    size_of_val(layout) + LAYOUT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_kept_apart_by_pack_and_position() {
        let mut marks = Marks::default();
        let (one, other) = (PackNumber(1), PackNumber(2));
        for position in [0, 63, 64, 1000] {
            assert!(marks.set(one, position));
            assert!(!marks.set(one, position));
            assert!(marks.get(one, position) && !marks.get(other, position));
        }
        assert!(!marks.get(one, 1) && !marks.get(one, 65) && !marks.get(one, 100_000));
        assert!(marks.any(one) && !marks.any(other));
        assert_eq!(marks.count(), 4);
        marks.unset(one, 63);
        marks.unset(one, 5_000);
        marks.unset(other, 63);
        assert!(!marks.get(one, 63) && marks.get(one, 64));
        assert_eq!(marks.count(), 3);
        marks.clear();
        assert!(!marks.any(one) && marks.count() == 0);
    }

    #[test]
    fn sets_are_compared_bit_by_bit() {
        let of = |bits: &[(u32, usize)]| {
            let mut marks = Marks::default();
            bits.iter().for_each(|(pack, at)| {
                marks.set(PackNumber(*pack), *at);
            });
            marks
        };
        let (some, one, other) =
            (of(&[(1, 3), (2, 200)]), of(&[(1, 3), (1, 4)]), of(&[(2, 200), (3, 0)]));
        assert!(some.is_within(&[&one, &other]) && !some.is_within(&[&one]));
        assert!(!some.is_within(&[]) && Marks::default().is_within(&[]));
        assert!(some.meets(&one) && some.meets(&other) && !one.meets(&other));
        let mut both = one.clone();
        other.words().for_each(|(pack, words)| both.set_words(pack, words));
        assert_eq!(both.count(), 4);
        assert!(one.is_within(&[&both]) && other.is_within(&[&both]) && !both.is_within(&[&one]));
    }

    #[test]
    fn a_range_is_set_as_its_positions_are() {
        let pack = PackNumber(3);
        for (from, to) in [(0, 0), (0, 1), (5, 64), (63, 65), (64, 128), (1, 200), (130, 131)] {
            let (mut at_once, mut singly) = (Marks::default(), Marks::default());
            at_once.set_all(pack, from..to);
            (from..to).for_each(|position| assert!(singly.set(pack, position)));
            assert_eq!(at_once.positions(pack), (from..to).collect::<Vec<_>>());
            assert_eq!(singly.positions(pack), at_once.positions(pack));
            assert_eq!(at_once.count_in(pack), (to - from) as u64);
        }
    }
}
