//! Proves the parity section of a pack while that is read from front to back, without holding it.
//!
//! That the bytes are those which were written is proven by the name of the pack. Proven here is that
//! what was written is its parity: every hash and both footers, and of the recovery shards a column that
//! nobody who wrote the pack could choose, as it follows from the name. A program that computed
//! wrongly is found out; whoever falsifies single columns on purpose spoils his own packs only.

use cairn_format::ids::PackId;
use cairn_format::parity::{PARITY_BLOCK_BYTES, ParityLayout, ShardHash, short};

use super::{code, records};

const BLOCK: usize = PARITY_BLOCK_BYTES as usize;

/// What is left to be compared of a pack that is being read.
pub struct ParityProof {
    layout: ParityLayout,
    /// Where the next byte stands.
    at: u64,
    /// Of the shard that is being read.
    hasher: blake3::Hasher,
    hashes: Vec<ShardHash>,
    /// Where the column begins in each shard.
    column: u64,
    /// The column of every shard so far.
    blocks: Vec<u8>,
    front: Vec<u8>,
    back: Vec<u8>,
}

/// What stands at a place of a pack.
enum Part {
    Data,
    Front,
    Recovery,
    Back,
}

impl ParityProof {
    /// Of a pack of this name that is laid out so.
    #[must_use]
    pub fn new(layout: ParityLayout, id: PackId) -> Self {
        let seed = id.as_bytes().first_chunk().copied().map_or(0, u64::from_le_bytes);
        let blocks = u64::from(layout.shard_bytes / PARITY_BLOCK_BYTES).max(1);
        Self {
            layout,
            at: 0,
            hasher: blake3::Hasher::new(),
            hashes: Vec::new(),
            column: seed % blocks * BLOCK as u64,
            blocks: Vec::new(),
            front: Vec::new(),
            back: Vec::new(),
        }
    }

    /// What stands where the next byte does, where that ends, and where it ends with its padding.
    fn part(&self) -> (Part, u64, u64) {
        let shard = u64::from(self.layout.shard_bytes);
        let (front, back) = (self.layout.front_record(), self.layout.back_record());
        if self.at < front.start {
            let end = (self.at / shard + 1) * shard;
            (Part::Data, end.min(front.start), end)
        } else if self.at < front.end {
            (Part::Front, front.end, front.end)
        } else if self.at < back.start {
            let end = front.end + ((self.at - front.end) / shard + 1) * shard;
            (Part::Recovery, end, end)
        } else {
            (Part::Back, u64::MAX, u64::MAX)
        }
    }

    /// Takes the next bytes of the pack.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (part, end, padded_end) = self.part();
            let length = usize::try_from(end - self.at).unwrap_or(usize::MAX).min(rest.len());
            let (piece, after) = rest.split_at(length);
            rest = after;
            match part {
                Part::Front => self.front.extend_from_slice(piece),
                Part::Back if self.back.len() as u64 <= self.layout.record_bytes() => {
                    self.back.extend_from_slice(piece);
                }
                Part::Back => {}
                Part::Data | Part::Recovery => self.shard(piece, end, padded_end),
            }
            self.at += length as u64;
        }
    }

    /// Takes a piece of a shard that ends at `end`, and with its padding at `padded_end`.
    fn shard(&mut self, piece: &[u8], end: u64, padded_end: u64) {
        let start = padded_end - u64::from(self.layout.shard_bytes);
        self.hasher.update(piece);
        self.keep_column(piece, start);
        if self.at + piece.len() as u64 == end {
            let padding = vec![0; usize::try_from(padded_end - end).unwrap_or_default()];
            self.hasher.update(&padding);
            self.hashes.push(short(self.hasher.finalize().as_bytes()));
            self.hasher.reset();
            // The padding may be part of the column.
            self.blocks.resize(self.hashes.len() * BLOCK, 0);
        }
    }

    /// Keeps what a piece has of the column of its shard, which begins at `start`.
    fn keep_column(&mut self, piece: &[u8], start: u64) {
        let column = start + self.column;
        let from = column.max(self.at);
        let to = (column + BLOCK as u64).min(self.at + piece.len() as u64);
        if from < to {
            let (from, to) = ((from - self.at) as usize, (to - self.at) as usize);
            self.blocks.extend_from_slice(piece.get(from..to).unwrap_or_default());
        }
    }

    /// Whether everything was read, and is what it should be.
    #[must_use]
    pub fn holds(&self) -> bool {
        let (front, back) = records(self.layout, &self.hashes);
        let data = usize::from(self.layout.data) * BLOCK;
        let Some((data, recovery)) = self.blocks.split_at_checked(data) else { return false };
        self.at == self.layout.object_bytes()
            && self.front == front
            && self.back == back
            && code::encode_block(data, self.layout.recovery).is_ok_and(|coded| coded == recovery)
    }
}
