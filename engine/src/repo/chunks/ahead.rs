//! Tree nodes from a store behind a network: more of a pack than one node is read with a request, and
//! what is asked for next is read at the same time.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use cairn_format::ids::ChunkId;
use cairn_format::names::PackKind;

use super::ChunkReader;
use crate::context::Counter;
use crate::error::Error;
use crate::index::local::{ChunkPlace, PackNumber, PackRecord};
use crate::pack::reader::RANGE_STEP_BYTES;
use crate::store::together;

/// What is read of a tree pack begins and ends at multiples of this, bytes.
const BLOCK_BYTES: u64 = 4 * RANGE_STEP_BYTES;
/// Blocks kept at hand, bytes.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// Blocks that are read at once, bytes.
const READ_BYTES_MAX: u64 = 4 << 20;
/// Nodes of which it is remembered that they are asked for next.
const EXPECTED_MAX: usize = 1 << 14;
/// How many of these are looked up at once.
const LOOKED_UP_MAX: usize = 256;

/// Blocks at hand, and what is asked for next.
#[derive(Default)]
pub(super) struct TreeAhead {
    blocks: HashMap<PackNumber, Vec<Block>>,
    /// Packs of the blocks, the oldest first.
    order: VecDeque<PackNumber>,
    bytes: usize,
    expected: VecDeque<ChunkId>,
}

/// Sealed bytes of a pack, from an offset on.
#[derive(Clone)]
struct Block {
    offset: u64,
    sealed: Bytes,
}

/// What is read with one request.
#[derive(Clone, Copy)]
struct Span {
    pack: PackRecord,
    number: PackNumber,
    start: u64,
    end: u64,
}

/// Where a frame lies in its pack.
fn frame_of(place: &ChunkPlace) -> (u64, u64) {
    let start = u64::from(place.frame_offset);
    (start, start + u64::from(place.frame_bytes))
}

impl Block {
    fn holds(&self, start: u64, end: u64) -> bool {
        self.offset <= start && end <= self.offset + self.sealed.len() as u64
    }
}

impl Span {
    /// The blocks around a frame.
    fn around(pack: PackRecord, place: &ChunkPlace) -> Self {
        let (start, end) = frame_of(place);
        let to = end.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES).min(u64::from(pack.bytes));
        // A frame that lies outside of its pack is asked for as it is, and refused.
        let end = to.max(end);
        Self { pack, number: place.pack, start: start / BLOCK_BYTES * BLOCK_BYTES, end }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.number == other.number && self.start < other.end && other.start < self.end
    }
}

impl TreeAhead {
    fn find(&self, place: &ChunkPlace) -> Option<&Block> {
        let (start, end) = frame_of(place);
        self.blocks.get(&place.pack)?.iter().find(|block| block.holds(start, end))
    }

    fn put(&mut self, pack: PackNumber, block: Block) {
        self.bytes += block.sealed.len();
        self.blocks.entry(pack).or_default().push(block);
        self.order.push_back(pack);
        while self.bytes > KEPT_BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            let Some(blocks) = self.blocks.get_mut(&oldest) else { continue };
            // Of each pack in the order in which they came.
            if !blocks.is_empty() {
                self.bytes -= blocks.remove(0).sealed.len();
            }
            if blocks.is_empty() {
                self.blocks.remove(&oldest);
            }
        }
    }

    /// Forgets the block that holds a frame; false when none is at hand.
    pub(super) fn forget(&mut self, place: &ChunkPlace) -> bool {
        let (start, end) = frame_of(place);
        let Some(blocks) = self.blocks.get_mut(&place.pack) else { return false };
        let before = blocks.len();
        let bytes = &mut self.bytes;
        blocks.retain(|block| {
            let keep = !block.holds(start, end);
            *bytes -= if keep { 0 } else { block.sealed.len() };
            keep
        });
        blocks.len() < before
    }

    /// Notes what is asked for next, before what was noted earlier.
    pub(super) fn expect(&mut self, ids: &mut dyn Iterator<Item = ChunkId>) {
        let ids = ids.take(EXPECTED_MAX).collect::<Vec<_>>();
        self.expected.truncate(EXPECTED_MAX - ids.len());
        for id in ids.into_iter().rev() {
            self.expected.push_front(id);
        }
    }

    fn next_expected(&mut self) -> Vec<ChunkId> {
        let count = self.expected.len().min(LOOKED_UP_MAX);
        self.expected.drain(..count).collect()
    }

    /// Puts back what there was no room for.
    fn expect_again(&mut self, ids: &[ChunkId]) {
        self.expect(&mut ids.iter().copied());
    }
}

impl ChunkReader<'_> {
    /// The sealed bytes around a frame of a tree pack, with the offset at which they begin: at hand,
    /// or read now, along with what is asked for next.
    ///
    /// # Errors
    /// As [`Self::range`].
    pub(super) fn tree_block(
        &self,
        pack: &PackRecord,
        place: &ChunkPlace,
    ) -> Result<(u64, Bytes), Error> {
        if let Some(block) = self.ahead.lock().find(place) {
            return Ok((block.offset, block.sealed.clone()));
        }
        let mut spans = vec![Span::around(*pack, place)];
        self.add_expected(&mut spans);
        let store = self.repository.store();
        let read = together::map(store, &spans, |span| {
            let read = self.packs.range(
                span.pack.kind,
                span.pack.id,
                u64::from(span.pack.bytes),
                span.start,
                span.end,
            );
            if let Ok((_, sealed)) = &read {
                self.repository.monitor().count(Counter::BytesFetched, sealed.len() as u64);
            }
            read
        });
        let mut wanted = Err(Error::Internal { part: "reading tree nodes ahead" });
        for (nth, (span, read)) in spans.iter().zip(read).enumerate() {
            if let Ok((offset, sealed)) = &read {
                let block = Block { offset: *offset, sealed: sealed.clone() };
                self.ahead.lock().put(span.number, block);
            }
            // What else could not be read is asked for when its turn comes.
            if nth == 0 {
                wanted = read;
            }
        }
        wanted
    }

    /// Adds what is asked for next to what is read, as far as it is not at hand.
    fn add_expected(&self, spans: &mut Vec<Span>) {
        let mut bytes = spans.iter().map(|span| span.end - span.start).sum::<u64>();
        loop {
            let ids = self.ahead.lock().next_expected();
            if ids.is_empty() {
                return;
            }
            // Without places nothing is read ahead.
            let Ok(places) = self.catalog.places(&ids, self.namespace) else { return };
            let mut seen = HashSet::new();
            for (nth, place) in places.iter().enumerate() {
                let Some(place) = place else { continue };
                let at_hand = || {
                    let key = (place.pack, place.frame_number);
                    self.ahead.lock().find(place).is_some()
                        || self.tree_cache.lock().get(key).is_some()
                };
                if !seen.insert((place.pack, place.frame_number)) || at_hand() {
                    continue;
                }
                let Ok(pack) = self.catalog.pack(place.pack) else { continue };
                let span = Span::around(pack, place);
                if pack.kind != PackKind::Tree || spans.iter().any(|one| one.overlaps(&span)) {
                    continue;
                }
                bytes += span.end - span.start;
                if spans.len() >= together::CALLS_AT_ONCE || bytes > READ_BYTES_MAX {
                    self.ahead.lock().expect_again(ids.get(nth..).unwrap_or_default());
                    return;
                }
                spans.push(span);
            }
        }
    }
}
