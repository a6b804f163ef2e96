//! Repeatable randomness.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// The variable that repeats a run.
pub const SEED_VARIABLE: &str = "CAIRN_TEST_SEED";

/// Numbers that follow from a seed. Says the seed when the test that holds it fails.
pub struct Seed {
    seed: u64,
    state: u64,
}

impl Seed {
    /// The seed in `CAIRN_TEST_SEED`, else a new one.
    #[must_use]
    pub fn new() -> Self {
        let given = std::env::var(SEED_VARIABLE).ok().and_then(|text| text.parse().ok());
        Self::of(given.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
            // The low bits are what changes.
            u64::try_from(now % u128::from(u32::MAX)).unwrap_or_default()
        }))
    }

    /// A given seed, where the course of the test should always be the same.
    #[must_use]
    pub const fn of(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// The seed itself.
    #[must_use]
    pub const fn value(&self) -> u64 {
        self.seed
    }

    /// The next number (SplitMix64).
    pub const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is at least 1.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

impl Default for Seed {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SEED_VARIABLE}={}", self.seed)
    }
}

impl Drop for Seed {
    #[expect(clippy::print_stderr, reason = "whoever sees the failure must see the seed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat with {self:?}");
        }
    }
}

/// Bytes that do not compress, and differ for every `seed`.
#[must_use]
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
    data
}
