//! The hash of packs of which parts are read in any order, and the proof of their parity.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use cairn_format::parity::ParityLayout;
use cairn_format::record::Parity;
use parking_lot::Mutex;

use super::READ_BYTES_MAX;
use super::plan::Part;
use crate::context::Counter;
use crate::index::local::{PackNumber, PackRecord};
use crate::parity::ParityProof;
use crate::repo::chunks::ChunkReader;
use crate::timings::Stage;

/// What waits for what comes before it in its pack, bytes of all packs together. Beyond that what
/// comes before is read at once, and once more when it is its turn.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// Packs that are read as a whole, besides whatever else is done with what they hold.
pub(super) struct WholePacks<'s, 'r> {
    reader: &'s ChunkReader<'r>,
    packs: HashMap<PackNumber, (PackRecord, Mutex<PackHash>)>,
    /// Bytes that wait, in all packs.
    waiting: AtomicUsize,
}

impl<'s, 'r> WholePacks<'s, 'r> {
    /// These packs; those that nothing is known of are left out.
    pub(super) fn new(
        reader: &'s ChunkReader<'r>,
        whole: &[PackNumber],
        known: &HashMap<PackNumber, PackRecord>,
    ) -> Self {
        let parity = reader.repository().vault().config.parity;
        let known = whole.iter().filter_map(|number| Some((*number, *known.get(number)?)));
        let packs = known.map(|(number, pack)| {
            let hash = parity.map(|parity| PackHash::with_parity(&pack, parity));
            (number, (pack, Mutex::new(hash.unwrap_or_default())))
        });
        Self { reader, packs: packs.collect(), waiting: AtomicUsize::new(0) }
    }

    /// Takes note of part of a pack that was read from an offset on.
    pub(super) fn add(&self, number: PackNumber, offset: u64, part: &Bytes) {
        let Some((_, hash)) = self.packs.get(&number) else { return };
        self.note(hash, offset, part);
        if self.waiting.load(Ordering::Relaxed) > WAITING_BYTES_MAX {
            self.fill(number, true);
        }
    }

    fn note(&self, hash: &Mutex<PackHash>, offset: u64, part: &Bytes) {
        let mut span = self.reader.timings().span(Stage::Hash, 0);
        let mut hash = hash.lock();
        let before = hash.waiting_bytes();
        let new = hash.add(offset, part);
        let after = hash.waiting_bytes();
        drop(hash);
        self.waiting.fetch_add(after, Ordering::Relaxed);
        self.waiting.fetch_sub(before, Ordering::Relaxed);
        span.bytes(new);
        self.reader.repository().monitor().count(Counter::BytesVerified, new);
    }

    /// Reads what was not read of a pack: up to what waits already, or to its end.
    fn fill(&self, number: PackNumber, only_holes: bool) {
        let Some((pack, hash)) = self.packs.get(&number) else { return };
        let total = u64::from(pack.bytes);
        loop {
            let hole = hash.lock().hole();
            let end = if only_holes { hole.1 } else { hole.1.or(Some(total)) };
            let Some(end) = end.filter(|end| hole.0 < *end) else { return };
            let part = Part { pack: number, start: hole.0, end: end.min(hole.0 + READ_BYTES_MAX) };
            let read = self.reader.range(pack, part.start, part.end);
            let Ok((offset, bytes)) = read else { return };
            self.note(hash, offset, &bytes);
            if hash.lock().hole().0 <= hole.0 {
                // The store gave less than it was asked for.
                return;
            }
        }
    }

    /// Reads what is left of all packs.
    pub(super) fn finish(&self, threads: usize) {
        let numbers = self.packs.keys().copied().collect::<Vec<_>>();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..threads.min(numbers.len()) {
                scope.spawn(|| {
                    while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed))
                        && self.reader.repository().check_cancelled().is_ok()
                    {
                        self.fill(*number, false);
                    }
                });
            }
        });
    }

    /// Says of each whether its bytes are those its name stands for, and its parity is what follows
    /// from them.
    pub(super) fn outcome(self) -> HashMap<PackNumber, bool> {
        let sound = |(number, (pack, hash)): (PackNumber, (PackRecord, Mutex<PackHash>))| {
            (number, hash.into_inner().is(&pack))
        };
        self.packs.into_iter().map(sound).collect()
    }
}

/// The hash of a pack so far.
#[derive(Default)]
struct PackHash {
    hasher: blake3::Hasher,
    bytes: u64,
    /// Parts that were read before what comes before them.
    waiting: BTreeMap<u64, Bytes>,
    /// Of a pack that has the length of one with parity.
    parity: Option<ParityProof>,
}

impl PackHash {
    /// Of a pack of a repository that has parity.
    fn with_parity(pack: &PackRecord, parity: Parity) -> Self {
        let layout = ParityLayout::of_object(u64::from(pack.bytes), parity);
        Self { parity: layout.map(|layout| ParityProof::new(layout, pack.id)), ..Self::default() }
    }

    /// Adds a part that begins at an offset; parts may overlap. Returns how many of its bytes, or
    /// of bytes that waited for it, are new.
    fn add(&mut self, offset: u64, part: &Bytes) -> u64 {
        let before = self.bytes;
        let longer = self.waiting.get(&offset).is_none_or(|known| known.len() < part.len());
        if longer && offset + part.len() as u64 > before {
            self.waiting.insert(offset, part.clone());
        }
        while let Some(first) = self.waiting.first_entry()
            && *first.key() <= self.bytes
        {
            let (offset, part) = first.remove_entry();
            let known = usize::try_from(self.bytes - offset).unwrap_or(usize::MAX);
            let new = part.get(known..).unwrap_or_default();
            self.hasher.update(new);
            if let Some(parity) = &mut self.parity {
                parity.update(new);
            }
            self.bytes += new.len() as u64;
        }
        self.bytes - before
    }

    /// Up to where all is there, and where what was read behind that begins, if anything was.
    fn hole(&self) -> (u64, Option<u64>) {
        (self.bytes, self.waiting.keys().next().copied())
    }

    /// Memory of what waits.
    fn waiting_bytes(&self) -> usize {
        self.waiting.values().map(Bytes::len).sum()
    }

    /// Whether these are all bytes of the pack, and the right ones, with the parity they should have.
    fn is(&self, pack: &PackRecord) -> bool {
        self.bytes == u64::from(pack.bytes)
            && self.hasher.finalize().as_bytes() == pack.id.as_bytes()
            && self.parity.as_ref().is_none_or(ParityProof::holds)
    }
}

#[cfg(test)]
mod tests {
    use cairn_format::ids::{PackId, SessionId, WriterId};
    use cairn_format::names::PackKind;

    use super::*;

    #[test]
    fn parts_are_hashed_in_order_however_they_come() {
        let bytes = Bytes::from((0..200_000_u32).map(|n| n as u8).collect::<Vec<_>>());
        let pack = PackRecord {
            id: PackId::from_bytes(*blake3::hash(&bytes).as_bytes()),
            kind: PackKind::Data,
            bytes: 200_000,
            writer: WriterId::from_bytes([0; 16]),
            session: SessionId::from_bytes([0; 16]),
            frames: 1,
            chunks: 1,
        };
        let mut hash = PackHash::default();
        assert_eq!(hash.add(60_000, &bytes.slice(60_000..150_000)), 0);
        assert_eq!((hash.hole(), hash.waiting_bytes()), ((0, Some(60_000)), 90_000));
        // The same once more, and less of it, changes nothing.
        assert_eq!(hash.add(60_000, &bytes.slice(60_000..70_000)), 0);
        assert_eq!(hash.add(0, &bytes.slice(..70_000)), 150_000);
        assert_eq!((hash.hole(), hash.waiting_bytes()), ((150_000, None), 0));
        assert!(!hash.is(&pack));
        assert_eq!(hash.add(0, &bytes.slice(..10)), 0);
        assert_eq!(hash.add(140_000, &bytes.slice(140_000..)), 50_000);
        assert!(hash.is(&pack));
        let mut other = PackHash::default();
        other.add(0, &bytes.slice(..199_999));
        other.add(199_999, &Bytes::from_static(&[1]));
        assert!(!other.is(&pack));
    }
}
