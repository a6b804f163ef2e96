//! Places of chunks near those that were asked for lately. Backups ask for chunks in the order in
//! which an earlier one stored them, so whoever asks for some chunks of a pack will ask for the
//! others: its whole directory is read once, and answers without a search (locality-preserved
//! caching: Zhu, Li, Patterson, FAST 2008).
//!
//! Directories say where a pack holds a chunk; a look-up says where it is held *first*. Packs with a
//! chunk that an earlier pack holds too are therefore left out.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use cairn_format::ids::ChunkId;
use parking_lot::RwLock;

use crate::index::local::{ChunkPlace, PackNumber};

/// Chunks kept at hand, at most: about a hundred bytes each.
const CHUNKS_MAX: usize = 48 << 10;
/// Directories with more chunks than this are not read for one of them.
pub(super) const PACK_CHUNKS_MAX: usize = 8 << 10;
/// Look-ups that are remembered to tell which packs are in use.
const RECENT_MAX: usize = 256;
/// Of these, how many fall on a pack whose directory is worth reading: it costs about as much as so
/// many searches. Tests compare what is answered from directories with the twin in memory.
const RECENT_HITS_MIN: usize = if cfg!(test) { 2 } else { 12 };
/// Chunks that several packs hold, at most: with more of them nothing is kept.
pub(super) const SHADOWED_CHUNKS_MAX: usize = 4 << 20;

/// Ids are hashes already.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let mut padded = [0; 8];
            for (to, from) in padded.iter_mut().zip(word) {
                *to = *from;
            }
            self.0 = self.0.rotate_left(21) ^ u64::from_le_bytes(padded);
        }
    }
}

/// Changes of the index that were seen. What was read before one may not be kept after it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u64);

/// Packs with chunks that an earlier pack holds too.
#[derive(Default)]
pub(super) enum Shadowed {
    /// It was not found out.
    #[default]
    Unknown,
    /// These.
    Packs(HashSet<PackNumber>),
    /// More than it is worth to know.
    TooMany,
}

#[derive(Default)]
struct Kept {
    places: HashMap<ChunkId, ChunkPlace, BuildHasherDefault<IdHasher>>,
    /// Packs whose chunks are kept, the one added first going first.
    packs: VecDeque<(PackNumber, Vec<ChunkId>)>,
    /// Packs of chunks that had to be searched for.
    recent: VecDeque<PackNumber>,
    shadowed: Shadowed,
    generation: u64,
}

impl Kept {
    fn drop_pack(&mut self, pack: PackNumber) {
        if let Some(at) = self.packs.iter().position(|(number, _)| *number == pack)
            && let Some((_, ids)) = self.packs.remove(at)
        {
            for id in ids {
                self.places.remove(&id);
            }
        }
    }
}

/// The directories of packs in use.
#[derive(Default)]
pub(super) struct Nearby(RwLock<Kept>);

impl Nearby {
    /// Fills in the places of those chunks that are at hand; returns the positions of the others.
    pub(super) fn answer(&self, ids: &[ChunkId], out: &mut [Option<ChunkPlace>]) -> Vec<usize> {
        let kept = self.0.read();
        let mut others = Vec::new();
        for (position, (id, slot)) in ids.iter().zip(out).enumerate() {
            *slot = kept.places.get(id).copied();
            if slot.is_none() {
                others.push(position);
            }
        }
        others
    }

    /// Notes the places of chunks that were searched for; returns packs whose directories are
    /// worth reading now.
    pub(super) fn note(&self, places: impl Iterator<Item = ChunkPlace>) -> Vec<PackNumber> {
        let mut kept = self.0.write();
        let mut worth = Vec::new();
        for place in places {
            if kept.recent.len() >= RECENT_MAX {
                kept.recent.pop_front();
            }
            kept.recent.push_back(place.pack);
            if !worth.contains(&place.pack)
                && kept.recent.iter().filter(|pack| **pack == place.pack).count() >= RECENT_HITS_MIN
            {
                worth.push(place.pack);
            }
        }
        kept.recent.retain(|pack| !worth.contains(pack));
        worth
    }

    /// The state of the index that what is read now belongs to.
    pub(super) fn generation(&self) -> Generation {
        Generation(self.0.read().generation)
    }

    /// Whether [`Self::set_shadowed`] has to be called before anything can be kept.
    pub(super) fn wants_shadowed(&self) -> bool {
        matches!(self.0.read().shadowed, Shadowed::Unknown)
    }

    /// Notes which packs have chunks that earlier ones hold too, as found out in `generation`.
    pub(super) fn set_shadowed(&self, shadowed: Shadowed, generation: Generation) {
        let mut kept = self.0.write();
        if kept.generation == generation.0 {
            kept.shadowed = shadowed;
        }
    }

    /// Keeps a directory that was read in `generation`.
    pub(super) fn keep(
        &self,
        pack: PackNumber,
        chunks: Vec<(ChunkId, ChunkPlace)>,
        generation: Generation,
    ) {
        let mut kept = self.0.write();
        let clear = match &kept.shadowed {
            Shadowed::Packs(shadowed) => !shadowed.contains(&pack),
            Shadowed::Unknown | Shadowed::TooMany => false,
        };
        let present = kept.packs.iter().any(|(number, _)| *number == pack);
        if kept.generation != generation.0 || !clear || present || chunks.len() > PACK_CHUNKS_MAX {
            return;
        }
        while kept.places.len() + chunks.len() > CHUNKS_MAX
            && let Some((oldest, _)) = kept.packs.front()
        {
            let oldest = *oldest;
            kept.drop_pack(oldest);
        }
        let mut ids = Vec::with_capacity(chunks.len());
        for (id, place) in chunks {
            match kept.places.entry(id) {
                Entry::Vacant(vacant) => {
                    vacant.insert(place);
                    ids.push(id);
                }
                Entry::Occupied(mut other) if place.counts_before(other.get()) => {
                    other.insert(place);
                }
                Entry::Occupied(_) => {}
            }
        }
        kept.packs.push_back((pack, ids));
    }

    /// A pack was removed.
    pub(super) fn removed(&self, pack: PackNumber) {
        let mut kept = self.0.write();
        kept.generation += 1;
        kept.drop_pack(pack);
    }

    /// A pack was added that holds chunks of earlier ones.
    pub(super) fn shadowed(&self, pack: PackNumber) {
        let mut kept = self.0.write();
        kept.generation += 1;
        kept.drop_pack(pack);
        if let Shadowed::Packs(shadowed) = &mut kept.shadowed {
            shadowed.insert(pack);
        }
    }

    /// Many packs were added.
    pub(super) fn reset(&self) {
        let mut kept = self.0.write();
        let generation = kept.generation + 1;
        *kept = Kept { generation, ..Kept::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(number: u32) -> ChunkId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        ChunkId::from_bytes(bytes)
    }

    fn place(pack: u32, offset: u32) -> ChunkPlace {
        ChunkPlace {
            pack: PackNumber(pack),
            frame_number: 0,
            frame_offset: 0,
            frame_bytes: 9,
            plain_bytes: 9,
            codec: 0,
            based: false,
            offset,
            bytes: 1,
        }
    }

    fn directory(pack: u32, chunks: u32) -> Vec<(ChunkId, ChunkPlace)> {
        (0..chunks).map(|n| (chunk(pack * 100_000 + n), place(pack, n))).collect()
    }

    fn ready() -> Nearby {
        let nearby = Nearby::default();
        let shadowed = Shadowed::Packs(HashSet::from([PackNumber(7)]));
        nearby.set_shadowed(shadowed, nearby.generation());
        nearby
    }

    fn keep(nearby: &Nearby, pack: u32, chunks: u32) {
        nearby.keep(PackNumber(pack), directory(pack, chunks), nearby.generation());
    }

    fn answers(nearby: &Nearby, pack: u32) -> bool {
        let ids = [chunk(pack * 100_000)];
        let mut out = [None];
        let others = nearby.answer(&ids, &mut out);
        assert_eq!(others.is_empty(), out == [Some(place(pack, 0))]);
        others.is_empty()
    }

    #[test]
    fn a_pack_is_kept_until_it_is_removed_or_others_need_the_room() {
        let nearby = ready();
        keep(&nearby, 1, 10);
        assert!(answers(&nearby, 1) && !answers(&nearby, 2));
        nearby.removed(PackNumber(1));
        assert!(!answers(&nearby, 1));
        let full = u32::try_from(PACK_CHUNKS_MAX).unwrap();
        for pack in 10..30 {
            keep(&nearby, pack, full);
            assert!(answers(&nearby, pack));
            assert!(nearby.0.read().places.len() <= CHUNKS_MAX);
        }
        assert!(!answers(&nearby, 10));
        keep(&nearby, 31, full + 1);
        assert!(!answers(&nearby, 31));
        nearby.reset();
        assert!(!answers(&nearby, 29) && nearby.wants_shadowed());
    }

    #[test]
    fn what_was_read_before_a_change_is_not_kept_after_it() {
        let nearby = ready();
        let before = nearby.generation();
        nearby.removed(PackNumber(3));
        nearby.keep(PackNumber(1), directory(1, 5), before);
        assert!(!answers(&nearby, 1));
        let before = nearby.generation();
        nearby.shadowed(PackNumber(8));
        nearby.set_shadowed(Shadowed::Packs(HashSet::new()), before);
        keep(&nearby, 8, 5);
        keep(&nearby, 7, 5);
        assert!(!answers(&nearby, 8) && !answers(&nearby, 7));
        nearby.reset();
        nearby.set_shadowed(Shadowed::TooMany, nearby.generation());
        keep(&nearby, 1, 5);
        assert!(!answers(&nearby, 1));
    }

    #[test]
    fn a_pack_is_worth_reading_once_it_was_searched_for_often() {
        let nearby = ready();
        let mut worth = Vec::new();
        for searched in 1..=RECENT_HITS_MIN {
            assert!(worth.is_empty(), "after {searched}");
            worth = nearby.note([place(5, 0), place(100 + searched as u32, 0)].into_iter());
        }
        assert_eq!(worth, [PackNumber(5)]);
        assert!(nearby.note([place(5, 0)].into_iter()).is_empty());
    }
}
