//! Decoded frames that are kept at hand: those of tree nodes, and those that hold bases.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;

use super::ChunkReader;
use crate::context::Counter;
use crate::error::Error;
use crate::index::local::{ChunkPlace, PackNumber, PackRecord};

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
        let opener = self.packs.opener(pack.kind, pack.id)?;
        let start = u64::from(place.frame_offset);
        let end = start + u64::from(place.frame_bytes);
        let total = u64::from(pack.bytes);
        let (offset, sealed) = self.packs.range(pack.kind, pack.id, total, start, end)?;
        self.repository.monitor().count(Counter::BytesFetched, sealed.len() as u64);
        let (mut scratch, mut plain) = (Vec::new(), Vec::new());
        self.decode_frame(pack, place, &opener, offset, &sealed, &mut scratch, &mut plain)?;
        let frame = Bytes::from(plain);
        cache.lock().put(key, frame.clone());
        Ok(frame)
    }
}
