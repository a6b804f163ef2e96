//! Decoded frames that are kept at hand: those of tree nodes, and those that hold bases.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
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

/// Decoded frames.
pub(super) type FrameCache = ByteCache<FrameKey>;

/// Plaintext that is kept at hand up to a number of bytes, the least recently added going first.
pub(crate) struct ByteCache<K> {
    kept: HashMap<K, Bytes>,
    order: VecDeque<K>,
    bytes: usize,
    bytes_max: usize,
}

impl<K: Copy + Eq + Hash> ByteCache<K> {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { kept: HashMap::new(), order: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub(crate) fn get(&self, key: K) -> Option<Bytes> {
        self.kept.get(&key).cloned()
    }

    pub(crate) fn put(&mut self, key: K, plain: Bytes) {
        self.bytes += plain.len();
        if let Some(old) = self.kept.insert(key, plain) {
            self.bytes -= old.len();
        } else {
            self.order.push_back(key);
        }
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.kept.remove(&oldest).map_or(0, |plain| plain.len());
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
