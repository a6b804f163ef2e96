//! The parity section behind a pack: where its parts lie, and the footer that says so (SPEC section
//! 6.4). What Reed-Solomon makes of the shards is not computed here.

use core::ops::Range;

use crate::codec::{Reader, Writer, padme};
use crate::error::FormatError;
use crate::limits::{PACK_BYTES_MAX, PARITY_SHARD_BYTES_MIN, PARITY_SHARDS_MAX};
use crate::record::Parity;

/// Length of a footer, bytes.
pub const PARITY_FOOTER_BYTES: u32 = 48;
/// Bytes of each shard's hash, and of both checks in the footer: the first ones of its BLAKE3.
pub const SHARD_HASH_BYTES: usize = 16;
/// Shards have a multiple of this length, bytes: the code works on blocks of it.
pub const PARITY_BLOCK_BYTES: u32 = 64;

/// Bytes of the footer that its first check covers.
const LAYOUT_BYTES: usize = 16;

/// The first bytes of a hash.
pub type ShardHash = [u8; SHARD_HASH_BYTES];
/// BLAKE3-256, which this crate does not bring along.
pub type Hash = fn(&[u8]) -> [u8; 32];

/// How a pack is cut into shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParityLayout {
    /// Length of the pack up to and with the locator, bytes: what the shards protect.
    pub protected_bytes: u64,
    /// Length of a shard, bytes; the last data shard is padded with zeros that are not stored.
    pub shard_bytes: u32,
    /// Data shards.
    pub data: u16,
    /// Recovery shards, no more than data shards: of all shards together so many may be lost.
    pub recovery: u16,
}

/// Lengths that the part of a pack up to its locator may have, ascending: fewer than 900.
pub fn protected_lengths() -> impl Iterator<Item = u64> {
    core::iter::successors(Some(1), |length| Some(padme(length + 1)))
        .take_while(|length| *length <= u64::from(PACK_BYTES_MAX))
}

impl ParityLayout {
    /// What a writer makes of a pack of `protected_bytes` up to and with its locator; `None` beyond
    /// the limits.
    #[must_use]
    pub fn of(protected_bytes: u64, choice: Parity) -> Option<Self> {
        let (whole, share) = (u64::from(choice.data), u64::from(choice.recovery));
        let block = u64::from(PARITY_BLOCK_BYTES);
        let shard = protected_bytes.div_ceil(whole.max(1)).div_ceil(block) * block;
        let shard = shard.max(u64::from(PARITY_SHARD_BYTES_MIN));
        let data = protected_bytes.div_ceil(shard);
        let layout = Self {
            protected_bytes,
            shard_bytes: u32::try_from(shard).ok()?,
            data: u16::try_from(data).ok()?,
            recovery: u16::try_from((data * share).div_ceil(whole.max(1))).ok()?,
        };
        layout.check().ok().map(|()| layout)
    }

    /// The layout that a writer made an object of `object_bytes` by, if there is one.
    #[must_use]
    pub fn of_object(object_bytes: u64, choice: Parity) -> Option<Self> {
        protected_lengths()
            .take_while(|length| *length < object_bytes)
            .filter_map(|length| Self::of(length, choice))
            .find(|layout| layout.object_bytes() == object_bytes)
    }

    /// How long a pack may be up to its locator so that it has at most `object_bytes_max` with its
    /// parity section.
    #[must_use]
    pub fn protected_bytes_max(object_bytes_max: u64, choice: Parity) -> u64 {
        let fits = |length: &u64| {
            Self::of(*length, choice).is_some_and(|found| found.object_bytes() <= object_bytes_max)
        };
        protected_lengths().filter(fits).last().unwrap_or_default()
    }

    /// Length of the footer with the shards' hashes, which stand twice, bytes.
    #[must_use]
    pub fn record_bytes(&self) -> u64 {
        u64::from(PARITY_FOOTER_BYTES) + SHARD_HASH_BYTES as u64 * u64::from(self.shards())
    }

    /// Shards of both kinds.
    #[must_use]
    pub fn shards(&self) -> u32 {
        u32::from(self.data) + u32::from(self.recovery)
    }

    /// Length of the pack with its parity section, bytes.
    #[must_use]
    pub fn object_bytes(&self) -> u64 {
        let recovery = u64::from(self.recovery) * u64::from(self.shard_bytes);
        self.protected_bytes.saturating_add(2 * self.record_bytes() + recovery)
    }

    /// Where a data shard is stored, without its padding; empty for one that is not there.
    #[must_use]
    pub fn data_shard(&self, index: u16) -> Range<u64> {
        let shard = u64::from(self.shard_bytes);
        let start = (u64::from(index) * shard).min(self.protected_bytes);
        start..(start + shard).min(self.protected_bytes)
    }

    /// Where a recovery shard is stored.
    #[must_use]
    pub fn recovery_shard(&self, index: u16) -> Range<u64> {
        let shard = u64::from(self.shard_bytes);
        let start = self.front_record().end + u64::from(index) * shard;
        start..start + shard
    }

    /// Where the footer stands with the hashes behind it, right behind the locator.
    #[must_use]
    pub fn front_record(&self) -> Range<u64> {
        self.protected_bytes..self.protected_bytes + self.record_bytes()
    }

    /// Where the hashes stand with the footer behind them, at the end.
    #[must_use]
    pub fn back_record(&self) -> Range<u64> {
        let end = self.object_bytes();
        end - self.record_bytes()..end
    }

    /// Refuses what no pack can have.
    ///
    /// # Errors
    /// [`FormatError::Value`], [`FormatError::Limit`].
    pub fn check(&self) -> Result<(), FormatError> {
        let shard = u64::from(self.shard_bytes);
        let covered = u64::from(self.data) * shard;
        let fits = shard > 0
            && self.shard_bytes.is_multiple_of(PARITY_BLOCK_BYTES)
            && are_coded(self.data, self.recovery)
            && self.protected_bytes <= covered
            && self.protected_bytes > covered - shard
            && padme(self.protected_bytes) == self.protected_bytes;
        if !fits {
            return Err(FormatError::Value { what: "parity footer" });
        }
        match self.object_bytes() {
            found if found > u64::from(PACK_BYTES_MAX) => Err(FormatError::Limit {
                what: "pack with parity",
                limit: u64::from(PACK_BYTES_MAX),
                found,
            }),
            _ => Ok(()),
        }
    }
}

/// Whether the code has room for so many data and recovery shards.
pub(crate) fn are_coded(data: u16, recovery: u16) -> bool {
    let rounded = u32::from(recovery).next_power_of_two();
    recovery > 0 && recovery <= data && u32::from(data) + rounded <= PARITY_SHARDS_MAX
}

/// What says where the parts of a parity section lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParityFooter {
    /// Where they lie.
    pub layout: ParityLayout,
    /// The first bytes of the BLAKE3 of all shards' hashes.
    pub hashes_check: ShardHash,
}

impl ParityFooter {
    /// The stored form, [`PARITY_FOOTER_BYTES`] long.
    #[must_use]
    pub fn encode(&self, hash: Hash) -> Vec<u8> {
        let layout = &self.layout;
        let mut writer = Writer::new();
        writer
            .u64(layout.protected_bytes)
            .u32(layout.shard_bytes)
            .u16(layout.data)
            .u16(layout.recovery);
        let check = shard_hash(writer.as_bytes(), hash);
        writer.raw(&check).raw(&self.hashes_check);
        writer.into_bytes()
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`FormatError::Value`] when it is damaged or says what cannot be; [`FormatError::Length`].
    pub fn decode(bytes: &[u8], hash: Hash) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, "parity footer");
        let layout = ParityLayout {
            protected_bytes: reader.u64()?,
            shard_bytes: reader.u32()?,
            data: reader.u16()?,
            recovery: reader.u16()?,
        };
        let check: ShardHash = reader.array()?;
        let footer = Self { layout, hashes_check: reader.array()? };
        reader.finish()?;
        let covered = bytes.get(..LAYOUT_BYTES).unwrap_or_default();
        if shard_hash(covered, hash) != check {
            return Err(FormatError::Value { what: "check sum of parity footer" });
        }
        layout.check()?;
        Ok(footer)
    }
}

/// The hash of a shard, or what stands for one.
#[must_use]
pub fn shard_hash(bytes: &[u8], hash: Hash) -> ShardHash {
    short(&hash(bytes))
}

/// The part of a hash that is kept of a shard.
#[must_use]
pub fn short(hash: &[u8; 32]) -> ShardHash {
    let mut short = ShardHash::default();
    for (to, from) in short.iter_mut().zip(hash) {
        *to = *from;
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> [u8; 32] {
        let mut sum = [0_u8; 32];
        for (at, byte) in bytes.iter().enumerate() {
            sum[at % 16] = sum[at % 16].wrapping_mul(31).wrapping_add(*byte);
        }
        sum
    }

    const CHOICE: Parity = Parity { data: 1000, recovery: 80 };

    #[test]
    fn few_lengths_are_to_be_tried() {
        assert!(protected_lengths().count() < 900);
        assert_eq!(protected_lengths().last(), Some(u64::from(PACK_BYTES_MAX)));
    }

    #[test]
    fn the_parts_of_an_object_follow_one_another() {
        for length in protected_lengths() {
            let Some(layout) = ParityLayout::of(length, CHOICE) else { continue };
            assert_eq!(layout.data_shard(0).start, 0);
            let last = layout.data - 1;
            assert_eq!(layout.data_shard(last).end, length);
            assert!(!layout.data_shard(last).is_empty());
            assert!(layout.data_shard(last + 1).is_empty());
            assert_eq!(layout.front_record().start, length);
            assert_eq!(layout.recovery_shard(0).start, layout.front_record().end);
            let end = layout.recovery_shard(layout.recovery - 1).end;
            assert_eq!(layout.back_record(), end..layout.object_bytes());
        }
    }

    #[test]
    fn a_layout_is_found_by_the_length_of_the_object() {
        for choice in [CHOICE, Parity { data: 1000, recovery: 5 }, Parity { data: 3, recovery: 2 }]
        {
            let mut found = 0;
            for length in protected_lengths() {
                let Some(layout) = ParityLayout::of(length, choice) else { continue };
                let object = layout.object_bytes();
                assert_eq!(ParityLayout::of_object(object, choice), Some(layout));
                assert_eq!(ParityLayout::protected_bytes_max(object, choice), length);
                found += 1;
            }
            assert!(found > 500, "{found}");
        }
    }

    #[test]
    fn shards_are_never_tiny_and_a_part_of_them_is_recovery() {
        let small = ParityLayout::of(1024, CHOICE).expect("a layout");
        assert_eq!((small.shard_bytes, small.data, small.recovery), (4096, 1, 1));
        let large = ParityLayout::of(32 << 20, CHOICE).expect("a layout");
        assert_eq!((large.shard_bytes, large.data, large.recovery), (33_600, 999, 80));
    }

    #[test]
    fn a_footer_accounts_for_every_byte() {
        let layout = ParityLayout { protected_bytes: 1024, shard_bytes: 128, data: 8, recovery: 2 };
        let good = ParityFooter { layout, hashes_check: [7; 16] };
        let bytes = good.encode(sum);
        assert_eq!(ParityFooter::decode(&bytes, sum), Ok(good));
        assert_eq!(layout.object_bytes(), 1024 + 2 * 128 + 2 * (48 + 10 * 16));
        for at in 0..LAYOUT_BYTES + SHARD_HASH_BYTES {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(ParityFooter::decode(&damaged, sum).is_err(), "{at}");
        }
        for layout in [
            ParityLayout { shard_bytes: 0, ..layout },
            ParityLayout { shard_bytes: 126, ..layout },
            ParityLayout { data: 0, ..layout },
            ParityLayout { data: 9, ..layout },
            ParityLayout { data: 7, ..layout },
            ParityLayout { recovery: 0, ..layout },
            ParityLayout { recovery: 9, ..layout },
            ParityLayout { recovery: u16::MAX, ..layout },
            ParityLayout { protected_bytes: 1023, ..layout },
            ParityLayout { protected_bytes: u64::MAX, ..layout },
            ParityLayout { shard_bytes: 1 << 31, data: 1, ..layout },
        ] {
            let bytes = ParityFooter { layout, ..good }.encode(sum);
            assert!(ParityFooter::decode(&bytes, sum).is_err(), "{layout:?}");
        }
    }
}
