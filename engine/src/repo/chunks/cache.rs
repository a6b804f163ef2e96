//! Decoded frames that are kept at hand: those of tree nodes, and those that hold bases.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use cairn_format::names::PackKind;
use parking_lot::Mutex;

use super::ChunkReader;
use crate::context::Counter;
use crate::error::Error;
use crate::index::local::{ChunkPlace, PackNumber, PackRecord};
use crate::seal::PartOpener;

/// Identifies a frame in one catalog.
pub(super) type FrameKey = (PackNumber, u32);

/// Decoded frames, the least recently added going first.
pub(super) struct FrameCache {
    frames: HashMap<FrameKey, Bytes>,
    order: VecDeque<FrameKey>,
    bytes: usize,
    bytes_max: usize,
}

impl FrameCache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { frames: HashMap::new(), order: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub(super) fn get(&self, key: FrameKey) -> Option<Bytes> {
        self.frames.get(&key).cloned()
    }

    pub(super) fn put(&mut self, key: FrameKey, frame: Bytes) {
        self.bytes += frame.len();
        if let Some(old) = self.frames.insert(key, frame) {
            self.bytes -= old.len();
        } else {
            self.order.push_back(key);
        }
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.frames.remove(&oldest).map_or(0, |frame| frame.len());
        }
    }
}

impl ChunkReader<'_> {
    /// What opens a pack, and the sealed bytes around a frame of it with the offset at which they
    /// begin.
    fn around(
        &self,
        pack: &PackRecord,
        place: &ChunkPlace,
    ) -> Result<(Arc<PartOpener>, (u64, Bytes)), Error> {
        if pack.kind == PackKind::Tree && !self.repository.store().is_near() {
            // First: what begins at the front of the pack holds its keys.
            let read = self.tree_block(pack, place)?;
            return Ok((self.packs.opener(pack.kind, pack.id)?, read));
        }
        Ok((self.packs.opener(pack.kind, pack.id)?, self.frame_range(pack, place)?))
    }

    /// The sealed bytes of a frame, and little else.
    fn frame_range(&self, pack: &PackRecord, place: &ChunkPlace) -> Result<(u64, Bytes), Error> {
        let start = u64::from(place.frame_offset);
        let end = start + u64::from(place.frame_bytes);
        let total = u64::from(pack.bytes);
        let read = self.packs.range(pack.kind, pack.id, total, start, end)?;
        self.repository.monitor().count(Counter::BytesFetched, read.1.len() as u64);
        Ok(read)
    }

    /// A frame's plaintext, from the cache or the store.
    pub(super) fn cached_frame(
        &self,
        cache: &Mutex<FrameCache>,
        pack: &PackRecord,
        place: &ChunkPlace,
    ) -> Result<Bytes, Error> {
        let key = (place.pack, place.frame_number);
        if let Some(frame) = cache.lock().get(key) {
            return Ok(frame);
        }
        let (opener, (offset, sealed)) = self.around(pack, place)?;
        let (mut scratch, mut plain) = (Vec::new(), Vec::new());
        let decoded =
            self.decode_frame(pack, place, &opener, offset, &sealed, &mut scratch, &mut plain);
        if decoded.is_err() && self.ahead.lock().forget(place) {
            // Altered where it lies, or only on its way here?
            let (offset, sealed) = self.frame_range(pack, place)?;
            self.decode_frame(pack, place, &opener, offset, &sealed, &mut scratch, &mut plain)?;
        } else {
            decoded?;
        }
        let frame = Bytes::from(plain);
        cache.lock().put(key, frame.clone());
        Ok(frame)
    }
}
