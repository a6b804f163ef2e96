//! What a chunk resembles, in a few numbers: chunks that share most of their content share most of
//! them, wherever in the chunk it lies.
//!
//! The family of Odess (Zou et al., "Odess: speeding up resemblance detection", ICDE 2021): a gear
//! hash rolls over the content, one position in 128 counts, and of the hashes there twelve linear
//! functions are taken, each with its maximum: twelve features. Four make a super-feature. Chunks
//! that differ in one place keep the maxima that lie elsewhere, so most super-features stay; chunks
//! that are strangers share none.

/// Super-features of a sketch.
pub const SUPER_FEATURES: usize = 3;
/// Features of which all must be equal for their super-feature to be.
const FEATURES_PER_SUPER: usize = 4;
const FEATURES: usize = SUPER_FEATURES * FEATURES_PER_SUPER;

/// A position counts when the highest bits of its hash are zero: one in 128. The highest ones
/// depend on the 64 bytes before it, the lowest on the last byte only.
const SAMPLE_SHIFT: u32 = 64 - 7;

/// Bytes that a hash depends on, without the newest.
const WINDOW_BYTES: usize = 63;

/// Stretches that are hashed side by side, so that the processor need not wait for each step.
const LANES: usize = 4;

/// Hashes that count are gathered before their features are taken: so one loop does nothing but roll
/// and look, and the other nothing but multiply.
const GATHERED_MAX: usize = 256;

/// The super-features of one chunk.
pub type Sketch = [u64; SUPER_FEATURES];

/// Odd factors and summands of the linear functions.
const LINEAR: [(u64, u64); FEATURES] = {
    let mut made = [(0, 0); FEATURES];
    let mut index = 0;
    let mut seed = 0;
    while index < FEATURES {
        made[index] = (mix(seed) | 1, mix(seed + 1));
        seed += 2;
        index += 1;
    }
    made
};

/// The finaliser of splitmix64: spreads every bit over all others.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Makes sketches with one table of random numbers. Sketches of different tables have nothing to
/// do with each other.
pub struct Sketcher {
    gear: [u64; 256],
}

/// The maxima so far.
struct Features {
    maxima: [u64; FEATURES],
    gathered: [u64; GATHERED_MAX],
    count: usize,
    /// Whether any hash counted.
    any: bool,
}

impl Features {
    const fn new() -> Self {
        Self { maxima: [0; FEATURES], gathered: [0; GATHERED_MAX], count: 0, any: false }
    }

    /// Gathers those of the hashes that count; there is room for all of them.
    #[inline]
    fn gather<const N: usize>(&mut self, hashes: [u64; N]) {
        for hash in hashes {
            if let Some(slot) = self.gathered.get_mut(self.count) {
                *slot = hash;
            }
            self.count += usize::from(hash >> SAMPLE_SHIFT == 0);
        }
        if self.count + LANES > GATHERED_MAX {
            self.take();
        }
    }

    /// Takes the features of what was gathered.
    #[inline(never)]
    fn take(&mut self) {
        let gathered = self.gathered.get(..self.count).unwrap_or_default();
        let mut maxima = self.maxima;
        for hash in gathered {
            for (maximum, (factor, summand)) in maxima.iter_mut().zip(LINEAR) {
                *maximum = (*maximum).max(hash.wrapping_mul(factor).wrapping_add(summand));
            }
        }
        self.maxima = maxima;
        self.any |= self.count > 0;
        self.count = 0;
    }

    /// The super-features; `None` where no hash counted.
    fn sketch(mut self) -> Option<Sketch> {
        self.take();
        let mut sketch = [0; SUPER_FEATURES];
        for (sum, group) in sketch.iter_mut().zip(self.maxima.chunks(FEATURES_PER_SUPER)) {
            *sum = group.iter().fold(0, |sum, feature| mix(sum ^ feature));
        }
        self.any.then_some(sketch)
    }
}

impl Sketcher {
    /// A sketcher with the repository's own table, so that sketches on a disk say nothing to
    /// whoever does not know it.
    #[must_use]
    pub const fn new(gear: [u64; 256]) -> Self {
        Self { gear }
    }

    #[inline]
    fn step(&self, hash: u64, byte: u8) -> u64 {
        (hash << 1).wrapping_add(self.gear[usize::from(byte)])
    }

    /// The sketch of a chunk; `None` when it is too short or too regular to have one.
    #[must_use]
    pub fn sketch(&self, data: &[u8]) -> Option<Sketch> {
        let mut features = Features::new();
        let lane_bytes = data.len() / LANES;
        if lane_bytes <= WINDOW_BYTES {
            self.scan(0, data, &mut features);
        } else {
            self.scan_lanes(data, lane_bytes, &mut features);
        }
        features.sketch()
    }

    fn scan(&self, mut hash: u64, data: &[u8], features: &mut Features) {
        for byte in data {
            hash = self.step(hash, *byte);
            if hash >> SAMPLE_SHIFT == 0 {
                features.gather([hash]);
            }
        }
    }

    /// As [`Self::scan`] over everything: each lane begins with the hash it would have there.
    fn scan_lanes(&self, data: &[u8], lane_bytes: usize, features: &mut Features) {
        let begin = |lane: usize| {
            let start = lane * lane_bytes;
            let before = data.get(start - WINDOW_BYTES..start).unwrap_or_default();
            before.iter().fold(0, |hash, byte| self.step(hash, *byte))
        };
        let (mut one, mut two, mut three, mut four) = (0, begin(1), begin(2), begin(3));
        let (first, rest) = data.split_at(lane_bytes);
        let (second, rest) = rest.split_at(lane_bytes);
        let (third, rest) = rest.split_at(lane_bytes);
        let (fourth, tail) = rest.split_at(lane_bytes);
        for (((a, b), c), d) in first.iter().zip(second).zip(third).zip(fourth) {
            one = self.step(one, *a);
            two = self.step(two, *b);
            three = self.step(three, *c);
            four = self.step(four, *d);
            // One branch for all four, seldom taken.
            let counts = |hash: u64| hash >> SAMPLE_SHIFT == 0;
            if counts(one) | counts(two) | counts(three) | counts(four) {
                features.gather([one, two, three, four]);
            }
        }
        self.scan(four, tail, features);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sketcher() -> Sketcher {
        let mut gear = [0; 256];
        for (index, value) in (0_u64..).zip(&mut gear) {
            *value = mix(index ^ 0xabcd);
        }
        Sketcher::new(gear)
    }

    fn noise(bytes: usize, seed: u64) -> Vec<u8> {
        let mut data = vec![0; bytes];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
        data
    }

    /// The same, one position after another.
    fn plainly(sketcher: &Sketcher, data: &[u8]) -> Option<Sketch> {
        let mut features = Features::new();
        sketcher.scan(0, data, &mut features);
        features.sketch()
    }

    fn shared(one: &Sketch, other: &Sketch) -> usize {
        one.iter().zip(other).filter(|(one, other)| one == other).count()
    }

    proptest! {
        #[test]
        fn lanes_find_what_one_scan_finds(seed: u64, bytes in 0_usize..3_000) {
            let (sketcher, data) = (sketcher(), noise(bytes, seed));
            prop_assert_eq!(sketcher.sketch(&data), plainly(&sketcher, &data));
            prop_assert_eq!(sketcher.sketch(&data), sketcher.sketch(&data.clone()));
        }
    }

    /// Where content is moved, only hashes near the seams are others. That all super-features change
    /// because of them happens, rarely.
    #[test]
    fn it_hardly_ever_matters_where_content_lies() {
        const CASES: u64 = 400;
        let sketcher = sketcher();
        let found = (0..CASES).filter(|seed| {
            let bytes = 20_000 + usize::try_from(mix(*seed) % 40_000).unwrap();
            let before = 1 + usize::try_from(mix(seed ^ 7) % 300).unwrap();
            let data = noise(bytes, *seed);
            let moved = [&noise(before, seed ^ (1 << 40)), data.as_slice()].concat();
            let (one, other) = (sketcher.sketch(&data).unwrap(), sketcher.sketch(&moved).unwrap());
            shared(&one, &other) >= 1
        });
        let found = found.count();
        assert!(found >= 390, "{found} of {CASES}");
    }

    #[test]
    fn small_edits_leave_most_sketches_findable() {
        let sketcher = sketcher();
        let (mut found, mut all) = (0, 0);
        for seed in 0..300 {
            let data = noise(64 << 10, seed);
            let mut edited = data.clone();
            for edit in 0..4_usize {
                let at = (usize::try_from(seed).unwrap() * 7919 + edit * 15_013) % (60 << 10);
                edited.splice(at..at + 40, noise(40 + edit * 11, seed ^ 77));
            }
            let (one, other) = (sketcher.sketch(&data).unwrap(), sketcher.sketch(&edited).unwrap());
            found += usize::from(shared(&one, &other) > 0);
            all += 1;
        }
        assert!(found * 100 >= all * 97, "{found} of {all}");
    }

    #[test]
    fn strangers_share_nothing() {
        let sketcher = sketcher();
        let sketches = (0..200).map(|seed| sketcher.sketch(&noise(16 << 10, seed)).unwrap());
        let sketches = sketches.collect::<Vec<_>>();
        for (index, one) in sketches.iter().enumerate() {
            for other in &sketches[index + 1..] {
                assert_eq!(shared(one, other), 0);
            }
        }
    }

    #[test]
    fn nothing_and_next_to_nothing_have_no_sketch() {
        assert_eq!(sketcher().sketch(b""), None);
        assert_eq!(sketcher().sketch(b"x"), plainly(&sketcher(), b"x"));
        let zeros = vec![0; 1 << 20];
        assert_eq!(sketcher().sketch(&zeros), plainly(&sketcher(), &zeros));
    }
}
