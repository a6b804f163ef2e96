//! Which stretches of new content stand in its bases already.
//!
//! What is found decides three things: which bases are of use, which bytes no base explains (they
//! are kept as a patch, see the module above), and the frame itself, which consists of copies from
//! bases and little else. zstd's own search finds short matches everywhere in a prefix and pays
//! several bytes for each; here only long ones count, so that one copy spans what did not change.

use std::ops::Range;

/// Bytes that are compared at once when a stretch is looked for.
const WINDOW_BYTES: usize = 32;
/// Every so many bytes of the bases a stretch can be found, bytes.
const STEP_BYTES: usize = 16;
/// Content that stands in the bases more often than this says nothing about where it is from.
const REPEATS_MAX: u8 = 3;
/// A stretch that lies elsewhere than the one before it counts from this length on, bytes.
const STRANGER_BYTES_MIN: usize = 128;
/// A stretch that goes on where the one before it would have, behind a change, bytes. Rows of
/// tables are alike in most of their bytes: shorter stretches would be pieces of any row.
const SEQUEL_BYTES_MIN: usize = 192;

/// Table slot of a base in which nothing was found.
const NOWHERE: u32 = u32::MAX;

/// A stretch of the content that equals one of the bases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Where it begins in the content, bytes.
    pub at: usize,
    /// Where it begins in the bases, one after another, bytes.
    pub from: usize,
    /// Its length, bytes.
    pub bytes: usize,
}

impl Copied {
    /// Where it ends in the content, bytes.
    #[must_use]
    pub const fn end(&self) -> usize {
        self.at + self.bytes
    }
}

fn hash(window: &[u8; WINDOW_BYTES]) -> u64 {
    let mut words = [0_u64; 4];
    for (word, bytes) in words.iter_mut().zip(window.chunks_exact(8)) {
        *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    let [a, b, c, d] = words;
    let one = (a ^ c.rotate_left(23)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let other = (b ^ d.rotate_left(41)).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    (one ^ other.rotate_left(31)).wrapping_mul(0x9fb2_1c65_1e98_df25)
}

fn window(data: &[u8], at: usize) -> Option<&[u8; WINDOW_BYTES]> {
    data.get(at..)?.first_chunk()
}

fn equal_ahead(one: &[u8], other: &[u8]) -> usize {
    const BLOCK: usize = 32;
    let blocks = one.chunks_exact(BLOCK).zip(other.chunks_exact(BLOCK));
    let whole = blocks.take_while(|(one, other)| one == other).count() * BLOCK;
    let rest = one.iter().skip(whole).zip(other.iter().skip(whole));
    whole + rest.take_while(|(one, other)| one == other).count()
}

fn equal_behind(one: &[u8], other: &[u8]) -> usize {
    one.iter().rev().zip(other.iter().rev()).take_while(|(one, other)| one == other).count()
}

/// Where windows of the bases stand.
struct Table {
    slots: Vec<u32>,
    shift: u32,
}

impl Table {
    fn new(bases: &[u8]) -> Self {
        let bits = (bases.len() / STEP_BYTES * 2).next_power_of_two().trailing_zeros().max(8);
        let mut table = Self { slots: vec![NOWHERE; 1 << bits], shift: u64::BITS - bits };
        let mut repeats = vec![0_u8; 1 << bits];
        for at in (0..bases.len().saturating_sub(WINDOW_BYTES - 1)).step_by(STEP_BYTES) {
            let Some(new) = window(bases, at) else { break };
            let index = table.index(new);
            let (Some(slot), Some(count)) = (table.slots.get_mut(index), repeats.get_mut(index))
            else {
                continue;
            };
            if *slot != NOWHERE && window(bases, *slot as usize) == Some(new) {
                *count = count.saturating_add(1);
            } else {
                *slot = u32::try_from(at).unwrap_or(NOWHERE);
                *count = 1;
            }
        }
        for (slot, count) in table.slots.iter_mut().zip(repeats) {
            if count > REPEATS_MAX {
                *slot = NOWHERE;
            }
        }
        table
    }

    fn index(&self, window: &[u8; WINDOW_BYTES]) -> usize {
        usize::try_from(hash(window) >> self.shift).unwrap_or_default()
    }

    fn find(&self, window: &[u8; WINDOW_BYTES]) -> Option<usize> {
        self.slots.get(self.index(window)).filter(|at| **at != NOWHERE).map(|at| *at as usize)
    }
}

/// The stretches of `content` that stand in `bases`, in order and without overlap.
#[must_use]
pub fn copies(content: &[u8], bases: &[u8]) -> Vec<Copied> {
    let mut found: Vec<Copied> = Vec::new();
    let table = Table::new(bases);
    let mut at = 0;
    while let Some(here) = window(content, at) {
        let rest = content.get(at..).unwrap_or_default();
        let last = found.last();
        let sequel = last.and_then(|last| {
            let from = last.from + (at - last.at);
            let other = bases.get(from..)?;
            if other.first_chunk() != Some(here) {
                return None;
            }
            let bytes = equal_ahead(rest, other);
            (bytes >= SEQUEL_BYTES_MIN).then_some(Copied { at, from, bytes })
        });
        let stretch = sequel.or_else(|| {
            let from = table.find(here)?;
            let bytes = equal_ahead(rest, bases.get(from..)?);
            if bytes < WINDOW_BYTES {
                return None;
            }
            let free = content.get(last.map_or(0, Copied::end)..at)?;
            let before = equal_behind(free, bases.get(..from)?);
            let bytes = bytes + before;
            (bytes >= STRANGER_BYTES_MIN).then_some(Copied {
                at: at - before,
                from: from - before,
                bytes,
            })
        });
        match stretch {
            Some(stretch) => {
                at = stretch.end();
                found.push(stretch);
            }
            None => at += 1,
        }
    }
    found
}

/// Leaves of some copies what stands in bases that are kept, and says where these stand once the
/// others are left out. `bases` are the lengths of the bases in bytes, and whether each is kept.
#[must_use]
pub fn keep(copies: &[Copied], bases: &[(usize, bool)]) -> Vec<Copied> {
    let mut kept: Vec<Copied> = Vec::with_capacity(copies.len());
    for (stretch, base) in by_base(copies, bases.iter().map(|(bytes, _)| *bytes)) {
        let Some((_, true)) = bases.get(base) else { continue };
        let left_out = bases.iter().take(base).filter(|(_, kept)| !kept);
        let shift = left_out.map(|(bytes, _)| bytes).sum::<usize>();
        let moved = Copied { from: stretch.from - shift, ..stretch };
        match kept.last_mut() {
            Some(last) if last.end() == moved.at && last.from + last.bytes == moved.from => {
                last.bytes += moved.bytes;
            }
            _ => kept.push(moved),
        }
    }
    kept
}

/// Bytes of the content that each base explains.
#[must_use]
pub fn shares(copies: &[Copied], bases: &[usize]) -> Vec<usize> {
    let mut shares = vec![0; bases.len()];
    for (stretch, base) in by_base(copies, bases.iter().copied()) {
        if let Some(share) = shares.get_mut(base) {
            *share += stretch.bytes;
        }
    }
    shares
}

/// Copies cut where one base ends and the next begins, with the number of the base of each. `bases`
/// are the lengths of the bases in bytes.
#[must_use]
pub fn by_base(copies: &[Copied], bases: impl Iterator<Item = usize>) -> Vec<(Copied, usize)> {
    let ends = bases.scan(0, |end, bytes| {
        *end += bytes;
        Some(*end)
    });
    let ends = ends.collect::<Vec<_>>();
    let mut cut = Vec::with_capacity(copies.len());
    for stretch in copies {
        let mut rest = *stretch;
        while rest.bytes > 0 {
            let base = ends.partition_point(|end| *end <= rest.from);
            let Some(end) = ends.get(base) else { break };
            let bytes = rest.bytes.min(end - rest.from);
            cut.push((Copied { bytes, ..rest }, base));
            rest =
                Copied { at: rest.at + bytes, from: rest.from + bytes, bytes: rest.bytes - bytes };
        }
    }
    cut
}

/// The stretches of `bytes` bytes of content that no copy explains. Those with less than `gap`
/// bytes between them are joined; what is shorter than `least` then is left out.
#[must_use]
pub fn unexplained(copies: &[Copied], bytes: usize, gap: usize, least: usize) -> Vec<Range<usize>> {
    let mut joined: Vec<Range<usize>> = Vec::new();
    let mut end = 0;
    let after = Copied { at: bytes, from: 0, bytes: 0 };
    for copy in copies.iter().chain([&after]) {
        if copy.at > end {
            match joined.last_mut() {
                Some(last) if end - last.end < gap => last.end = copy.at,
                _ => joined.push(end..copy.at),
            }
        }
        end = copy.end();
    }
    joined.retain(|stretch| stretch.len() >= least);
    joined
}

/// Copies from a patch, which holds `stretches` of the content and stands at `patch_from` behind
/// the bases, take the place of whatever else explains these stretches.
#[must_use]
pub fn with_patch(copies: &[Copied], stretches: &[Range<usize>], patch_from: usize) -> Vec<Copied> {
    let mut all = Vec::with_capacity(copies.len() + stretches.len());
    let mut rest = copies.iter().peekable();
    let mut from = patch_from;
    for stretch in stretches {
        while let Some(copy) = rest.next_if(|copy| copy.at < stretch.end) {
            let bytes = copy.bytes.min(stretch.start.saturating_sub(copy.at));
            if bytes > 0 {
                all.push(Copied { bytes, ..*copy });
            }
        }
        all.push(Copied { at: stretch.start, from, bytes: stretch.len() });
        from += stretch.len();
    }
    all.extend(rest);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(bytes: usize, seed: u64) -> Vec<u8> {
        let mut data = vec![0; bytes];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
        data
    }

    /// Content made of pieces of the bases, of noise, and of what repeats.
    fn content(bases: &[u8], pieces: &[(u8, usize, usize)]) -> Vec<u8> {
        let mut content = Vec::new();
        for (kind, at, bytes) in pieces {
            let at = at % bases.len();
            match kind % 4 {
                0 => content.extend(noise(*bytes, at as u64)),
                1 => content.extend(b"| 0 |".repeat(bytes / 5)),
                _ => content.extend_from_slice(&bases[at..(at + bytes * 4).min(bases.len())]),
            }
        }
        content
    }

    fn assert_true(copies: &[Copied], content: &[u8], bases: &[u8]) {
        let mut end = 0;
        for copy in copies {
            assert!(copy.at >= end && copy.bytes > 0, "{copies:?}");
            end = copy.end();
            assert_eq!(content[copy.at..end], bases[copy.from..copy.from + copy.bytes]);
        }
    }

    proptest! {
        #[test]
        fn copies_are_true_and_so_are_those_that_are_kept_and_patched(
            pieces in prop::collection::vec((any::<u8>(), any::<usize>(), 0_usize..3_000), 0..20),
            lengths in prop::collection::vec((1_usize..20_000, any::<bool>()), 1..8),
            gap in 0_usize..2_000, least in 0_usize..600,
        ) {
            let bases = noise(lengths.iter().map(|(bytes, _)| bytes).sum(), 1);
            let content = content(&bases, &pieces);
            let found = copies(&content, &bases);
            assert_true(&found, &content, &bases);
            let all = lengths.iter().map(|(bytes, _)| *bytes).collect::<Vec<_>>();
            let explained = found.iter().map(|copy| copy.bytes).sum::<usize>();
            prop_assert_eq!(shares(&found, &all).into_iter().sum::<usize>(), explained);
            let mut rest = Vec::new();
            let mut start = 0;
            for (bytes, kept) in &lengths {
                rest.extend_from_slice(if *kept { &bases[start..start + bytes] } else { &[] });
                start += bytes;
            }
            let found = keep(&found, &lengths);
            assert_true(&found, &content, &rest);
            let new = unexplained(&found, content.len(), gap, least);
            let patch_from = rest.len();
            for stretch in &new {
                rest.extend_from_slice(&content[stretch.clone()]);
            }
            let patched = with_patch(&found, &new, patch_from);
            assert_true(&patched, &content, &rest);
            let left = content.len() - patched.iter().map(|copy| copy.bytes).sum::<usize>();
            prop_assert!(left <= found.len() * least.saturating_sub(1) + least, "{left} bytes left");
        }
    }

    #[test]
    fn what_moved_is_found_and_what_is_everywhere_is_not() {
        let bases = noise(300_000, 3);
        let content = [&noise(777, 4), &bases[100_001..250_000], &bases[..90_000]].concat();
        let found = copies(&content, &bases);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found.iter().map(|copy| copy.bytes).sum::<usize>(), content.len() - 777);
        let blank = vec![b' '; 300_000];
        assert_eq!(copies(&blank, &blank).len(), 0);
        assert_eq!(copies(&content, &[]).len(), 0);
        assert_eq!(copies(&[], &bases).len(), 0);
        assert_eq!(copies(&bases[..100], &bases).len(), 0);
    }

    #[test]
    fn changes_near_each_other_are_one_stretch() {
        let bases = noise(100_000, 5);
        let mut content = bases.clone();
        for at in [10_000, 10_250, 50_000] {
            content[at] ^= 1;
        }
        let found = copies(&content, &bases);
        let new = unexplained(&found, content.len(), 300, 1);
        assert_eq!(new, [10_000..10_251, 50_000..50_001]);
        let long = unexplained(&found, content.len(), 300, 100);
        assert_eq!(long, std::iter::once(10_000..10_251).collect::<Vec<_>>());
        assert_eq!(unexplained(&[], 50, 300, 1), std::iter::once(0..50).collect::<Vec<_>>());
        assert!(unexplained(&[], 0, 300, 1).is_empty());
    }
}
