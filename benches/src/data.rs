//! Made-up data, the same on every machine: noise, the text of a database dump, and pages of
//! PostgreSQL's files.

use std::fmt::Write as _;

/// Length of a page of PostgreSQL, bytes.
pub const PAGE_BYTES: usize = 8 << 10;

/// Header of a page and of a row in it, and one line pointer, bytes.
const PAGE_HEADER_BYTES: usize = 24;
const ROW_HEADER_BYTES: usize = 24;
const POINTER_BYTES: usize = 4;

const WORDS: [&str; 32] = [
    "account",
    "invoice",
    "customer",
    "north",
    "delivery",
    "open",
    "closed",
    "Berlin",
    "contract",
    "renewal",
    "support",
    "ticket",
    "priority",
    "Lagos",
    "annual",
    "monthly",
    "refund",
    "partner",
    "Lima",
    "reseller",
    "draft",
    "approved",
    "pending",
    "email",
    "phone",
    "Osaka",
    "warranty",
    "upgrade",
    "archived",
    "manager",
    "quarter",
    "follow-up",
];

/// SplitMix64: fast, and good enough to make data up.
struct Dice(u64);

impl Dice {
    const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    const fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    fn words(&mut self, count: u64, out: &mut String) {
        for _ in 0..count {
            let number = self.below(WORDS.len() as u64) as usize;
            out.push_str(WORDS[number]);
            out.push(' ');
        }
    }
}

/// `bytes` of what does not compress, like encrypted or compressed files.
#[must_use]
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
    data
}

/// `bytes` of rows as a plain dump of a database has them; they compress to about a quarter.
#[must_use]
pub fn text(bytes: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut rows = String::with_capacity(bytes + 256);
    let mut key = dice.below(1 << 40);
    while rows.len() < bytes {
        key += 1;
        row(&mut dice, key, &mut rows);
        rows.push('\n');
    }
    rows.truncate(bytes);
    rows.into_bytes()
}

fn row(dice: &mut Dice, key: u64, out: &mut String) {
    let (day, second) = (1 + dice.below(28), dice.below(60));
    let cents = dice.below(10_000_000);
    let token = dice.roll();
    // Writing to a `String` cannot fail.
    let _ = write!(out, "{key}\t2026-03-{day:02} 11:20:{second:02}+00\t{cents}\t{token:016x}\t");
    let words = 4 + dice.below(12);
    dice.words(words, out);
}

/// `bytes` of PostgreSQL's heap pages, the last one cut off where `bytes` ends within it: header,
/// line pointers, free space, rows from the end. They compress to about a third.
#[must_use]
pub fn pages(bytes: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut data = Vec::with_capacity(bytes + PAGE_BYTES);
    let mut log_position = dice.below(1 << 40);
    let mut key = dice.below(1 << 40);
    while data.len() < bytes {
        log_position += dice.below(1 << 20);
        data.extend_from_slice(&page(&mut dice, log_position, &mut key));
    }
    data.truncate(bytes);
    data
}

fn page(dice: &mut Dice, log_position: u64, key: &mut u64) -> Vec<u8> {
    let mut rows: Vec<Vec<u8>> = Vec::new();
    let mut used = PAGE_HEADER_BYTES;
    loop {
        *key += 1;
        let mut values = String::new();
        row(dice, *key, &mut values);
        let length = (ROW_HEADER_BYTES + values.len()).next_multiple_of(8);
        used += length + POINTER_BYTES;
        // A tenth stays free, as a fill factor of 90 leaves it.
        if used > PAGE_BYTES * 9 / 10 {
            break;
        }
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&(700_000 + (*key >> 6)).to_le_bytes());
        bytes.resize(ROW_HEADER_BYTES, 0);
        bytes.extend_from_slice(values.as_bytes());
        bytes.resize(length, 0);
        rows.push(bytes);
    }
    let mut page = Vec::with_capacity(PAGE_BYTES);
    page.extend_from_slice(&log_position.to_le_bytes());
    page.extend_from_slice(&(dice.roll() as u16).to_le_bytes());
    page.resize(PAGE_HEADER_BYTES, 0);
    let mut end = PAGE_BYTES;
    for bytes in &rows {
        end -= bytes.len();
        let pointer = (end as u32) | (bytes.len() as u32) << 17;
        page.extend_from_slice(&pointer.to_le_bytes());
    }
    page.resize(end, 0);
    for bytes in rows.iter().rev() {
        page.extend_from_slice(bytes);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_engine::frame::{COMPRESSION_LEVEL_DEFAULT, FrameCodec};

    fn compressed_percent(data: &[u8]) -> usize {
        let mut codec = FrameCodec::new(COMPRESSION_LEVEL_DEFAULT).unwrap();
        codec.encode(data).unwrap().1.len() * 100 / data.len()
    }

    #[test]
    fn data_compresses_as_its_real_counterpart_does() {
        assert_eq!(compressed_percent(&noise(1 << 20, 1)), 100);
        let text = compressed_percent(&text(1 << 20, 1));
        assert!((15..35).contains(&text), "{text} %");
        let pages = compressed_percent(&pages(1 << 20, 1));
        assert!((20..45).contains(&pages), "{pages} %");
    }

    #[test]
    fn data_has_the_length_asked_for_and_follows_the_seed() {
        for make in [noise, text, pages] {
            assert_eq!(make(100_001, 1).len(), 100_001);
            assert_eq!(make(100_001, 1), make(100_001, 1));
            assert_ne!(make(100_001, 1), make(100_001, 2));
        }
    }
}
