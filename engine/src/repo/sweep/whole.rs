//! The hash of a pack of which parts are read by several threads, and the proof of its parity.

use std::collections::BTreeMap;

use bytes::Bytes;
use cairn_format::parity::ParityLayout;
use cairn_format::record::Parity;

use crate::index::local::PackRecord;
use crate::parity::ParityProof;

/// The hash of a pack so far.
#[derive(Default)]
pub(super) struct PackHash {
    hasher: blake3::Hasher,
    bytes: u64,
    /// Parts that were read before what comes before them; at most one for each reading thread.
    waiting: BTreeMap<u64, Bytes>,
    /// Of a pack that has the length of one with parity.
    parity: Option<ParityProof>,
}

impl PackHash {
    /// Of a pack of a repository that has parity.
    pub(super) fn with_parity(pack: &PackRecord, parity: Parity) -> Self {
        let layout = ParityLayout::of_object(u64::from(pack.bytes), parity);
        Self { parity: layout.map(|layout| ParityProof::new(layout, pack.id)), ..Self::default() }
    }

    /// Adds a part that begins at an offset; parts may overlap. Returns how many of its bytes, or
    /// of bytes that waited for it, are new.
    pub(super) fn add(&mut self, offset: u64, part: &Bytes) -> u64 {
        let before = self.bytes;
        self.waiting.insert(offset, part.clone());
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

    /// Whether these are all bytes of the pack, and the right ones, with the parity they should have.
    pub(super) fn is(&self, pack: &PackRecord) -> bool {
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
        assert_eq!(hash.add(0, &bytes.slice(..70_000)), 150_000);
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
