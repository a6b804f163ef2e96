//! Which stretches of new content stand in its bases already.
//!
//! What is found decides three things: which bases are of use, which bytes no base explains (they
//! are kept as a patch, see the module above), and the frame itself, which consists of copies from
//! bases and little else. zstd's own search finds short matches everywhere in a prefix and pays
//! several bytes for each; here only long ones count, so that one copy spans what did not change.

use std::cell::Cell;
use std::ops::Range;

use cairn_format::limits::FRAME_BASE_BYTES_MAX;

/// Bytes that are compared at once when a stretch is looked for.
const WINDOW_BYTES: usize = 32;
/// Every so many bytes of the bases a stretch can be found, bytes.
const STEP_BYTES: usize = 32;
/// Content that stands in the bases more often than this says nothing about where it is from.
const REPEATS_MAX: u32 = 3;
/// A stretch that lies elsewhere than the one before it counts from this length on, bytes.
const STRANGER_BYTES_MIN: usize = 128;
/// A stretch that goes on where the one before it would have, behind a change, bytes. Rows of
/// tables are alike in most of their bytes: shorter stretches would be pieces of any row.
const SEQUEL_BYTES_MIN: usize = 192;

// No stretch that counts lies between two places where it could be found.
const _: () = assert!(STRANGER_BYTES_MIN >= WINDOW_BYTES + STEP_BYTES - 1);

/// Places of the content at which it is asked whether any of it stands in the bases: so many that
/// what pays is hardly ever overlooked, also where most windows repeat.
const SAMPLES: usize = 256;
/// Content that is so short is searched whole: that takes no longer, bytes.
const SAMPLED_BYTES_MIN: usize = 4 * SAMPLES * STEP_BYTES;

/// Prime: spreads the samples' places within their parts of the content.
const SPREAD: usize = 7_368_787;

/// Table slot of a base in which nothing was found.
const NOWHERE: u32 = u32::MAX;
/// A slot holds the number of a place, how often its window was seen, and some bits of its hash, so
/// that most of what is not there is told without a look at the bases.
const PLACE_BITS: u32 = 20;
const REPEATS_BITS: u32 = 3;
const REPEATS_UNIT: u32 = 1 << PLACE_BITS;
const CHECK_SHIFT: u32 = PLACE_BITS + REPEATS_BITS;

const _: () = assert!(FRAME_BASE_BYTES_MAX as usize / STEP_BYTES <= 1 << PLACE_BITS);
const _: () = assert!(REPEATS_MAX + 1 < 1 << REPEATS_BITS);

thread_local! {
    /// A table that is not used: memory that was used before costs less than new one.
    static SPARE: Cell<Vec<[u32; 2]>> = const { Cell::new(Vec::new()) };
}

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

#[inline]
fn hash(window: &[u8; WINDOW_BYTES]) -> u64 {
    let (words, _) = window.as_chunks::<8>();
    let &[a, b, c, d] = words else { return 0 };
    let [a, b, c, d] = [a, b, c, d].map(u64::from_le_bytes);
    let one = (a ^ c.rotate_left(23)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let other = (b ^ d.rotate_left(41)).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    (one ^ other.rotate_left(31)).wrapping_mul(0x9fb2_1c65_1e98_df25)
}

#[inline]
fn window(data: &[u8], at: usize) -> Option<&[u8; WINDOW_BYTES]> {
    data.get(at..)?.first_chunk()
}

fn equal_ahead(one: &[u8], other: &[u8]) -> usize {
    const BLOCK: usize = 32;
    let blocks = one.as_chunks::<BLOCK>().0.iter().zip(other.as_chunks::<BLOCK>().0);
    let whole = blocks.take_while(|(one, other)| one == other).count() * BLOCK;
    let rest = one.iter().skip(whole).zip(other.iter().skip(whole));
    whole + rest.take_while(|(one, other)| one == other).count()
}

fn equal_behind(one: &[u8], other: &[u8]) -> usize {
    one.iter().rev().zip(other.iter().rev()).take_while(|(one, other)| one == other).count()
}

/// Bases, one after another, prepared so that stretches of them can be found.
pub struct Bases<'b> {
    bytes: &'b [u8],
    /// Two slots for all windows whose hashes begin alike; what is found later comes first.
    slots: Vec<[u32; 2]>,
    shift: u32,
}

/// The slot of a window that was seen once.
const fn first_seen(place: u32, check: u32) -> u32 {
    check << CHECK_SHIFT | REPEATS_UNIT | place
}

/// How often a slot's window was seen, up to a limit.
const fn repeats(slot: u32) -> u32 {
    (slot >> PLACE_BITS) & ((1 << REPEATS_BITS) - 1)
}

impl Drop for Bases<'_> {
    fn drop(&mut self) {
        SPARE.set(std::mem::take(&mut self.slots));
    }
}

impl<'b> Bases<'b> {
    /// Notes where every so many bytes stand.
    #[must_use]
    pub fn new(bytes: &'b [u8]) -> Self {
        let bits = (bytes.len() / STEP_BYTES).next_power_of_two().trailing_zeros().max(8);
        let mut slots = SPARE.take();
        slots.clear();
        slots.resize(1 << bits, [NOWHERE; 2]);
        let mut bases = Self { bytes, slots, shift: u64::BITS - bits };
        let places = bytes.len().saturating_sub(WINDOW_BYTES - 1).div_ceil(STEP_BYTES);
        for place in 0..u32::try_from(places).unwrap_or(0).min(REPEATS_UNIT - 1) {
            let Some(new) = window(bytes, place as usize * STEP_BYTES) else { break };
            let (index, check) = bases.slot(new);
            let Some(pair) = bases.slots.get_mut(index) else { continue };
            match pair.iter_mut().find(|slot| **slot == NOWHERE || **slot >> CHECK_SHIFT == check) {
                Some(slot) if *slot == NOWHERE => *slot = first_seen(place, check),
                Some(slot) if repeats(*slot) <= REPEATS_MAX => *slot += REPEATS_UNIT,
                Some(_) => {}
                None => *pair = [first_seen(place, check), pair[0]],
            }
        }
        bases
    }

    /// The slot of a window, and what is noted there of its hash.
    #[inline]
    fn slot(&self, window: &[u8; WINDOW_BYTES]) -> (usize, u32) {
        let hash = hash(window);
        let check = hash as u32 >> CHECK_SHIFT;
        (usize::try_from(hash >> self.shift).unwrap_or_default(), check)
    }

    /// Where the window may stand.
    #[inline]
    fn find(&self, window: &[u8; WINDOW_BYTES]) -> Option<usize> {
        let (index, check) = self.slot(window);
        let mut pair = self.slots.get(index)?.iter();
        let slot = *pair.find(|slot| **slot >> CHECK_SHIFT == check && **slot != NOWHERE)?;
        (repeats(slot) <= REPEATS_MAX).then_some((slot & (REPEATS_UNIT - 1)) as usize * STEP_BYTES)
    }

    /// The stretch around `at`, not before `end`, that stands elsewhere than the one before it.
    #[inline]
    fn stranger(&self, content: &[u8], at: usize, end: usize) -> Option<Copied> {
        let from = self.find(window(content, at)?)?;
        let ahead = equal_ahead(content.get(at..)?, self.bytes.get(from..)?);
        if ahead < WINDOW_BYTES {
            return None;
        }
        let before = equal_behind(content.get(end..at)?, self.bytes.get(..from)?);
        let bytes = ahead + before;
        let stretch = Copied { at: at - before, from: from - before, bytes };
        (bytes >= STRANGER_BYTES_MIN).then_some(stretch)
    }

    /// Whether any of `content` stands here, told by samples: [`Self::copies`] would find nothing, or
    /// next to nothing, where it is false.
    #[must_use]
    pub fn share(&self, content: &[u8]) -> bool {
        if content.len() < SAMPLED_BYTES_MIN {
            return true;
        }
        let stride = content.len() / SAMPLES;
        let mut places = (0..SAMPLES).flat_map(|sample| {
            // Not in step with pages and records: their beginnings are of one kind.
            let within = sample.wrapping_mul(SPREAD) % (stride - STEP_BYTES);
            let start = sample * stride + within;
            start..start + STEP_BYTES
        });
        places.any(|at| self.stranger(content, at, 0).is_some())
    }

    /// The stretches of `content` that stand here, in order and without overlap.
    #[must_use]
    pub fn copies(&self, content: &[u8]) -> Vec<Copied> {
        let mut found: Vec<Copied> = Vec::new();
        // Where the stretch found last ends, and what would stand at the beginning of the content if
        // it had begun there.
        let (mut end, mut diagonal) = (0, None);
        let mut at = 0;
        while let Some(here) = window(content, at) {
            let sequel = diagonal.and_then(|diagonal: isize| {
                let from = at.checked_add_signed(diagonal)?;
                let other = self.bytes.get(from..)?;
                if other.first_chunk() != Some(here) {
                    return None;
                }
                let bytes = equal_ahead(content.get(at..)?, other);
                (bytes >= SEQUEL_BYTES_MIN).then_some(Copied { at, from, bytes })
            });
            match sequel.or_else(|| self.stranger(content, at, end)) {
                Some(stretch) => {
                    end = stretch.end();
                    diagonal = stretch.from.checked_signed_diff(stretch.at);
                    at = end;
                    found.push(stretch);
                }
                None => at += 1,
            }
        }
        found
    }
}

/// The stretches of `content` that stand in `bases`, in order and without overlap.
#[must_use]
pub fn copies(content: &[u8], bases: &[u8]) -> Vec<Copied> {
    Bases::new(bases).copies(content)
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

    /// Pages whose heads all changed, of records of which a part is always the same.
    #[test]
    fn samples_tell_whether_anything_is_shared_also_of_pages() {
        let records = |seed: u64| {
            let record = |number: u64| [&noise(24, number ^ seed << 32)[..], &[b' '; 104]].concat();
            (0..8_192).flat_map(record).collect::<Vec<_>>()
        };
        let base = records(1);
        let mut content = base.clone();
        for (number, page) in (0_u64..).zip(content.chunks_mut(8 << 10)) {
            page[..600].copy_from_slice(&noise(600, number));
        }
        assert!(Bases::new(&base).share(&content));
        assert!(!Bases::new(&base).share(&records(2)));
        content[..1 << 19].copy_from_slice(&noise(1 << 19, 9));
        assert!(Bases::new(&base).share(&content), "half of it");
        assert!(!Bases::new(&noise(1 << 20, 5)).share(&noise(1 << 20, 6)));
        assert!(Bases::new(&noise(1 << 20, 5)).share(&noise(1 << 20, 5)[77..]));
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
