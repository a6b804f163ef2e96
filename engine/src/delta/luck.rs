//! Whether to try the next frame against bases. Fetching bases costs about as much as storing the
//! frame without them, and a file that was replaced by another one has no use for any of them.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// What a frame weighs that has nothing in common with its bases, and one of which they explain too
/// little to pay: the next ones may well do.
const STRANGER_WEIGHT: u32 = 4;
const UNPAID_WEIGHT: u32 = 1;
/// Weight of frames tried in vain, one after another, from which on some are left out.
const WEIGHT_FREE: u32 = 16;
/// At most so many frames are left out between two that are tried: where content is alike again, at
/// most so many are stored whole that need not be.
const SKIPS_MAX: u32 = 7;
/// Subjects remembered. Files are backed up one after another, so the oldest is done.
const SUBJECTS_MAX: usize = 64;

/// What is or is not of use for what: bases found by place say nothing of those found by sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject {
    /// The file; 0 for frames of several files.
    pub file: u64,
    /// Whether some of the bases were found by sketch.
    pub by_sketch: bool,
}

/// How trying went lately.
#[derive(Clone, Copy, Debug, Default)]
struct Luck {
    weight: u32,
    skips_left: u32,
}

/// Why a frame was not stored against its bases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// They have nothing in common with it.
    Stranger,
    /// They explain some of it, which does not pay.
    Unpaid,
}

/// How trying went lately, for each subject.
#[derive(Default)]
pub(super) struct Lucks {
    of: Mutex<BTreeMap<Subject, Luck>>,
}

impl Lucks {
    /// Whether to try. After some frames that were tried in vain one is left out before the next,
    /// then two, then four; never more than some.
    pub(super) fn is_promising(&self, subject: Subject) -> bool {
        let mut all = self.of.lock();
        match all.get_mut(&subject) {
            Some(Luck { skips_left: left @ 1.., .. }) => {
                *left -= 1;
                false
            }
            _ => true,
        }
    }

    /// Notes that bases were of no use.
    pub(super) fn missed(&self, subject: Subject, miss: Miss) {
        let mut all = self.of.lock();
        let luck = all.entry(subject).or_default();
        luck.weight = luck.weight.saturating_add(match miss {
            Miss::Stranger => STRANGER_WEIGHT,
            Miss::Unpaid => UNPAID_WEIGHT,
        });
        // What was tried at the same time by another worker does not begin the count anew.
        if luck.skips_left == 0
            && let Some(more) = luck.weight.checked_sub(WEIGHT_FREE)
        {
            let doublings = more / STRANGER_WEIGHT;
            luck.skips_left = 1_u32.checked_shl(doublings).unwrap_or(SKIPS_MAX).min(SKIPS_MAX);
        }
        if all.len() > SUBJECTS_MAX {
            let of_files = Subject { file: 1, by_sketch: false }..;
            let oldest = all.range(of_files).next().map(|(subject, _)| *subject);
            oldest.and_then(|subject| all.remove(&subject));
        }
    }

    /// Notes that the file is like what it was: bases were of use, or a chunk is the same.
    pub(super) fn alike(&self, file: u64) {
        let mut all = self.of.lock();
        for by_sketch in [false, true] {
            all.remove(&Subject { file, by_sketch });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Subject = Subject { file: 7, by_sketch: false };
    const SKETCH: Subject = Subject { by_sketch: true, ..PLACE };

    /// Which of the next frames are tried when none of them is of use.
    fn tried(lucks: &Lucks, subject: Subject, miss: Miss, frames: usize) -> Vec<usize> {
        let mut tried = Vec::new();
        for frame in 0..frames {
            if lucks.is_promising(subject) {
                tried.push(frame);
                lucks.missed(subject, miss);
            }
        }
        tried
    }

    #[test]
    fn what_is_tried_in_vain_is_tried_less_and_less_often_but_never_given_up() {
        let lucks = Lucks::default();
        let few = tried(&lucks, PLACE, Miss::Stranger, 40);
        assert_eq!(few, [0, 1, 2, 3, 5, 8, 13, 21, 29, 37]);
        assert_eq!(tried(&lucks, SKETCH, Miss::Stranger, 5), [0, 1, 2, 3], "another subject");
        let other = Subject { file: 8, ..PLACE };
        assert!(lucks.is_promising(other));
    }

    #[test]
    fn bases_that_explain_too_little_are_given_up_later() {
        let lucks = Lucks::default();
        let all = (0..16).collect::<Vec<_>>();
        assert_eq!(tried(&lucks, PLACE, Miss::Unpaid, 16), all);
        let many = tried(&lucks, PLACE, Miss::Unpaid, 100).len();
        assert!((15..30).contains(&many), "{many}");
    }

    #[test]
    fn one_success_makes_up_for_all_misses() {
        let lucks = Lucks::default();
        for subject in [PLACE, SKETCH] {
            tried(&lucks, subject, Miss::Stranger, 30);
        }
        lucks.alike(9);
        assert!(!lucks.is_promising(PLACE), "another file is alike");
        lucks.alike(7);
        for subject in [PLACE, SKETCH] {
            assert_eq!(tried(&lucks, subject, Miss::Stranger, 6), [0, 1, 2, 3, 5]);
        }
    }

    #[test]
    fn of_many_files_the_newest_are_remembered() {
        let lucks = Lucks::default();
        for file in 0..=1_000 {
            tried(&lucks, Subject { file, by_sketch: false }, Miss::Stranger, 4);
        }
        assert!(lucks.of.lock().len() <= SUBJECTS_MAX);
        assert!(!lucks.is_promising(Subject { file: 1_000, by_sketch: false }));
        assert!(!lucks.is_promising(Subject { file: 0, by_sketch: false }), "it is no file");
        assert!(lucks.is_promising(Subject { file: 1, by_sketch: false }));
    }
}
