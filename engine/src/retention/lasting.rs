//! For how long snapshots will be needed: what a policy keeps at times to come, if backups go on as
//! they came.

use cairn_format::ids::SnapshotId;

use super::apply::{Candidate, Standing, apply};
use super::policy::Policy;

/// Intervals between the newest snapshots that tell how often backups come.
const INTERVALS: usize = 8;
/// Most backups that are imagined: more within one window say nothing more.
const IMAGINED_MAX: i64 = 10_000;

/// For each candidate, how many of these times, the earliest first, find it still kept; in the order of
/// the candidates. A candidate that some time does not find is not found by later ones.
///
/// Only acknowledged candidates are given. Backups are imagined to go on at the pace of the newest
/// ones; with one candidate, none is, and nothing ages.
#[must_use]
pub fn lasting(policy: &Policy, candidates: &[Candidate], times_ms: &[i64]) -> Vec<usize> {
    let mut found = vec![0; candidates.len()];
    let (newest_ms, every_ms) = pace(candidates);
    for (before, time_ms) in times_ms.iter().enumerate() {
        let mut all = candidates.to_vec();
        let count = match every_ms {
            Some(every_ms) => (time_ms.saturating_sub(newest_ms) / every_ms).clamp(0, IMAGINED_MAX),
            None => 0,
        };
        // The newest of them, should they be too many: the last one is at the time itself.
        let every_ms = every_ms.unwrap_or_default();
        let last_ms = newest_ms.saturating_add(
            (time_ms.saturating_sub(newest_ms) / every_ms.max(1)).saturating_mul(every_ms).max(0),
        );
        all.extend((0..count).map(|back| imagined(back, last_ms - back * every_ms)));
        let reference_ms = all.iter().map(|one| one.time_ms).max().unwrap_or(*time_ms);
        let verdicts = apply(policy, reference_ms, &all, false);
        for (found, verdict) in found.iter_mut().zip(verdicts) {
            if verdict.keeps() && *found == before {
                *found += 1;
            }
        }
    }
    found
}

/// When the newest was made, and the mean time between the newest ones; milliseconds.
fn pace(candidates: &[Candidate]) -> (i64, Option<i64>) {
    let mut times = candidates.iter().map(|one| one.time_ms).collect::<Vec<_>>();
    times.sort_unstable_by_key(|time| std::cmp::Reverse(*time));
    times.truncate(INTERVALS + 1);
    let (Some(newest), Some(oldest)) = (times.first(), times.last()) else { return (0, None) };
    let intervals = i64::try_from(times.len()).unwrap_or(i64::MAX) - 1;
    let every_ms = (intervals > 0).then(|| newest.saturating_sub(*oldest) / intervals);
    (*newest, every_ms.filter(|every_ms| *every_ms > 0))
}

fn imagined(number: i64, time_ms: i64) -> Candidate {
    // No snapshot has such an id: they are hashes.
    let mut id = [0xff; SnapshotId::LEN];
    if let Some(head) = id.first_chunk_mut() {
        *head = number.to_be_bytes();
    }
    let id = SnapshotId::from_bytes(id);
    Candidate { id, time_ms, tags: Vec::new(), standing: Standing::Acknowledged }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    use super::super::{Age, Period, Rule};
    use super::*;

    const HOUR_MS: i64 = 60 * 60 * 1_000;
    const DAY_MS: i64 = 24 * HOUR_MS;

    fn policy(rules: &[Rule]) -> Policy {
        Policy::new(rules.to_vec(), TimeZone::UTC).unwrap()
    }

    fn each_day(count: i64) -> Vec<Candidate> {
        (0..count)
            .map(|day| Candidate {
                id: SnapshotId::from_bytes([0; 32]),
                ..imagined(0, day * DAY_MS)
            })
            .collect()
    }

    #[test]
    fn what_rules_count_lasts_for_as_many_backups_as_they_count() {
        let days = each_day(10);
        let times = (0..=8).map(|day| (9 + day) * DAY_MS).collect::<Vec<_>>();
        let last = lasting(&policy(&[Rule::Last(3)]), &days, &times);
        assert_eq!(last, [0, 0, 0, 0, 0, 0, 0, 1, 2, 3]);
        let daily = lasting(&policy(&[Rule::Newest(Period::Daily, 4)]), &days, &times);
        assert_eq!(daily, [0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
        let within = lasting(&policy(&[Rule::Within(Age::days(5))]), &days, &times);
        assert_eq!(within, [0, 0, 0, 0, 1, 2, 3, 4, 5, 6]);
        let tagged = Candidate { tags: vec!["keep".to_owned()], ..days[0].clone() };
        let forever = lasting(&policy(&[Rule::Tag("keep".to_owned())]), &[tagged], &times);
        assert_eq!(forever, [times.len()]);
    }

    #[test]
    fn nothing_ages_where_no_backups_come() {
        let days = each_day(1);
        let times = [DAY_MS, 1000 * DAY_MS];
        assert_eq!(lasting(&policy(&[Rule::Within(Age::days(5))]), &days, &times), [2]);
        assert!(lasting(&policy(&[Rule::Last(1)]), &[], &times).is_empty());
    }

    proptest! {
        /// Whatever the pace: what is kept when the policy is applied then, was said to be.
        #[test]
        fn it_is_what_applying_the_policy_then_keeps(
            gaps in proptest::collection::vec(1_i64..72, 1..20),
            count in 1_u32..6,
            ahead in 1_i64..30,
        ) {
            let mut time_ms = 0;
            let all = gaps.iter().map(|gap| {
                time_ms += gap * HOUR_MS;
                Candidate { id: SnapshotId::from_bytes([1; 32]), ..imagined(0, time_ms) }
            }).collect::<Vec<_>>();
            let policy = policy(&[Rule::Last(count), Rule::Newest(Period::Daily, count)]);
            let now = lasting(&policy, &all, &[time_ms]);
            let kept = apply(&policy, time_ms, &all, false);
            for (now, kept) in now.iter().zip(&kept) {
                prop_assert_eq!(*now == 1, kept.keeps());
            }
            let then = lasting(&policy, &all, &[time_ms, time_ms + ahead * DAY_MS]);
            for (now, then) in now.iter().zip(&then) {
                prop_assert!(*then <= 2 && then >= now);
            }
        }
    }
}
