//! What is remembered of snapshots that follow one another: which chunks they reach that those before
//! them do not.

use cairn_format::codec::{Reader, Writer};

use super::record::PACK_CHUNKS_MAX;
use crate::collect::marks::{Marks, WORD_BITS};
use crate::collect::reached::Reached;
use crate::index::local::PackNumber;

/// Words of one pack, at most.
const PACK_WORDS_MAX: usize = PACK_CHUNKS_MAX.div_ceil(WORD_BITS);

/// What a span of snapshots reaches. It holds wherever everything in `skipped` is reached by
/// snapshots before these: what a node points to never changes, so what those reach from there is
/// all that these would.
#[derive(Clone, Debug, Default)]
pub struct Span {
    /// What was followed.
    pub own: Reached,
    /// Nodes that were not followed because snapshots before these reach them; no data.
    pub skipped: Reached,
}

/// How words are written that follow one another.
const ZEROS: u64 = 0;
const ONES: u64 = 1;
const LITERAL: u64 = 2;
const STYLES: u64 = 3;

fn style(word: u64) -> u64 {
    match word {
        0 => ZEROS,
        u64::MAX => ONES,
        _ => LITERAL,
    }
}

impl Span {
    /// The packs that chunks are named by; some more than once.
    pub fn packs(&self) -> impl Iterator<Item = PackNumber> + '_ {
        self.own.packs().chain(self.skipped.packs())
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        for marks in self.own.kinds().into_iter().chain(self.skipped.kinds()) {
            put(&mut out, marks);
        }
        out.into_bytes()
    }

    /// Out of bytes.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Reader::new(bytes, "memo");
        let mut span = Self::default();
        for marks in span.own.kinds_mut().into_iter().chain(span.skipped.kinds_mut()) {
            take(&mut fields, marks)?;
        }
        fields.is_empty().then_some(span)
    }
}

fn put(out: &mut Writer, marks: &Marks) {
    let mut packs = marks.words().collect::<Vec<_>>();
    packs.retain(|(_, words)| words.iter().any(|word| *word != 0));
    packs.sort_unstable_by_key(|(pack, _)| *pack);
    out.count(packs.len());
    let mut last = 0;
    for (pack, words) in packs {
        out.varint(u64::from(pack.0 - last));
        last = pack.0;
        // Words without bits at the end are as good as absent.
        let used = words.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        let runs = words.get(..used).unwrap_or_default().chunk_by(|a, b| style(*a) == style(*b));
        out.count(runs.clone().count());
        for run in runs {
            let style = run.first().map_or(ZEROS, |word| style(*word));
            out.varint(run.len() as u64 * STYLES + style);
            if style == LITERAL {
                for word in run {
                    out.raw(&word.to_le_bytes());
                }
            }
        }
    }
}

fn take(fields: &mut Reader<'_>, marks: &mut Marks) -> Option<()> {
    let mut last = 0_u32;
    for _ in 0..fields.varint().ok()? {
        last = last.checked_add(u32::try_from(fields.varint().ok()?).ok()?)?;
        let mut words = Vec::new();
        for _ in 0..fields.varint().ok()? {
            let run = fields.varint().ok()?;
            let (count, style) = (usize::try_from(run / STYLES).ok()?, run % STYLES);
            if count > PACK_WORDS_MAX - words.len() {
                return None;
            }
            let end = words.len() + count;
            match style {
                ZEROS => words.resize(end, 0),
                ONES => words.resize(end, u64::MAX),
                _ => {
                    for _ in 0..count {
                        words.push(u64::from_le_bytes(fields.array().ok()?));
                    }
                }
            }
        }
        marks.set_words(PackNumber(last), &words);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all_marks() -> impl Strategy<Value = Marks> {
        let ranges = proptest::collection::vec(
            (0_u32..5, 0_usize..500, prop_oneof![1_usize..3, 1_usize..300]),
            0..12,
        );
        ranges.prop_map(|ranges| {
            let mut marks = Marks::default();
            for (pack, from, count) in ranges {
                marks.set_all(PackNumber(pack * 1_000), from..from + count);
            }
            marks
        })
    }

    fn listed(span: &Span) -> Vec<Vec<(PackNumber, Vec<usize>)>> {
        let kinds = span.own.kinds().into_iter().chain(span.skipped.kinds());
        let listed = |marks: &Marks| {
            let mut packs = marks.packs().collect::<Vec<_>>();
            packs.sort_unstable();
            let packs = packs.into_iter().map(|pack| (pack, marks.positions(pack)));
            packs.filter(|(_, positions)| !positions.is_empty()).collect()
        };
        kinds.map(listed).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_was_written_is_read(marks in proptest::array::uniform5(all_marks())) {
            let [directories, extents, data, skipped, others] = marks;
            let own = Reached { directories, extents, data };
            let skipped = Reached { directories: skipped, extents: others, ..Reached::default() };
            let span = Span { own, skipped };
            let read = Span::decode(&span.encode()).expect("it was written");
            prop_assert_eq!(listed(&read), listed(&span));
        }

        #[test]
        fn nothing_else_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _span = Span::decode(&bytes);
        }
    }

    #[test]
    fn no_more_words_are_made_than_a_pack_can_have_chunks() {
        let of = |count: u64| {
            let mut out = Writer::new();
            out.count(1).varint(7).count(1).varint(count * STYLES + ONES);
            for _ in 0..5 {
                out.count(0);
            }
            Span::decode(&out.into_bytes()).is_some()
        };
        let most = PACK_WORDS_MAX as u64;
        assert!(of(most) && !of(most + 1) && !of(u64::MAX / STYLES - 1));
    }
}
