//! Time that no backup bears witness to.
//!
//! A clock that was set ahead by three weeks and three weeks without a backup look the same: the next
//! commit is dated three weeks after the one before. Taken for age, that time would evict what is in
//! truth a day old; not taken for age, it keeps for longer what is old. So it does not count, unless
//! something else says that the clock is right: the store's own, or a person.
//!
//! **What bears witness.** Between two snapshots of one job, writer and host time has passed where
//! they follow each other as those backups do: after at most [`TIMES_USUAL`] times what is usual
//! between the newest of them, and in any case within [`SILENCE_MS_MIN`]; or where their sequence
//! numbers tell of backups between them, which were forgotten since, at such a pace. What no series
//! covers is a [`Silence`].
//!
//! **What is thinned out is no silence.** Rules themselves leave gaps. A silence counts against a rule
//! that goes by age only if that rule would have kept what is missing: it reaches to its end, and if
//! it keeps one of each period, some period is empty.

use std::collections::HashMap;
use std::hash::Hash;

use jiff::tz::TimeZone;

use super::calendar::{Age, Period};
use super::policy::{Policy, Rule};

/// Longest time without a commit that is no silence whatever is usual, milliseconds.
pub const SILENCE_MS_MIN: i64 = 2 * 24 * 60 * 60 * 1_000;

/// How many times what is usual between two commits of a series is no silence.
pub const TIMES_USUAL: i64 = 3;

/// Newest intervals of a series that tell what is usual.
const INTERVALS: usize = 9;

/// Eighths of a silence at which it is looked whether a period is empty.
const PARTS: i64 = 8;

/// A commit that counts.
#[derive(Clone, Debug)]
pub struct Commit<S> {
    /// When it was, milliseconds since 1970.
    pub time_ms: i64,
    /// What it is compared within: its job, its writer and its host.
    pub series: S,
    /// Its number among the backups of its host; 0 if that is not known.
    pub sequence: u64,
}

/// Time between two commits in which there is none, and of which nothing tells that it passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The commit before it, milliseconds since 1970.
    pub from_ms: i64,
    /// The commit after it, milliseconds since 1970.
    pub until_ms: i64,
    /// What of it counts as age: what is usual, milliseconds.
    pub counted_ms: i64,
}

impl Silence {
    /// What does not count as age, milliseconds.
    #[must_use]
    pub fn uncounted_ms(&self) -> i64 {
        let length_ms = self.until_ms.saturating_sub(self.from_ms);
        length_ms.saturating_sub(self.counted_ms).max(0)
    }

    /// Whether a period begins and ends within it.
    fn empties(&self, period: Period, zone: &TimeZone) -> bool {
        let key = |time_ms| period.key(time_ms, zone);
        let (first, last) = (key(self.from_ms), key(self.until_ms));
        let part_ms = self.until_ms.saturating_sub(self.from_ms) / PARTS;
        let mut between = (1..PARTS).map(|part| self.from_ms.saturating_add(part_ms * part));
        between.any(|time_ms| ![first, last].contains(&key(time_ms)))
    }
}

/// The silences among these commits, newest first; the order of the commits plays no part.
#[must_use]
pub fn silences<S: Eq + Hash>(commits: &[Commit<S>]) -> Vec<Silence> {
    let mut series = HashMap::<_, Vec<&Commit<S>>>::new();
    for commit in commits {
        series.entry(&commit.series).or_default().push(commit);
    }
    // From, to; and what is usual where the second of them was made.
    let mut covered = Vec::new();
    let mut usual_at = HashMap::<i64, i64>::new();
    for mut members in series.into_values() {
        members.sort_by_key(|commit| (commit.time_ms, commit.sequence));
        let pairs = members.iter().zip(members.iter().skip(1)).collect::<Vec<_>>();
        let lengths = pairs.iter().map(|(a, b)| b.time_ms.saturating_sub(a.time_ms));
        let lengths = lengths.collect::<Vec<_>>();
        for (number, ((before, after), length_ms)) in pairs.iter().zip(&lengths).enumerate() {
            let usual_ms = usual_ms(&lengths, number);
            usual_at.insert(after.time_ms, usual_ms);
            let bearable_ms = usual_ms.saturating_mul(TIMES_USUAL).max(SILENCE_MS_MIN);
            let backups = after.sequence.saturating_sub(before.sequence).max(1);
            let backups = i64::try_from(backups).unwrap_or(i64::MAX);
            if length_ms / backups <= bearable_ms {
                covered.push((before.time_ms, after.time_ms));
            }
        }
    }
    let mut times = commits.iter().map(|commit| commit.time_ms).collect::<Vec<_>>();
    times.sort_unstable();
    covered.sort_unstable();
    let mut found = Vec::new();
    let mut covered = covered.into_iter().peekable();
    let mut reached_ms = i64::MIN;
    for (from_ms, until_ms) in times.iter().copied().zip(times.iter().skip(1).copied()) {
        while let Some((_, end_ms)) = covered.next_if(|(begin_ms, _)| *begin_ms <= from_ms) {
            reached_ms = reached_ms.max(end_ms);
        }
        if reached_ms >= until_ms || until_ms.saturating_sub(from_ms) <= SILENCE_MS_MIN {
            continue;
        }
        let counted_ms = usual_at.get(&until_ms).copied().unwrap_or_default();
        found.push(Silence { from_ms, until_ms, counted_ms });
    }
    found.reverse();
    found
}

/// What is usual between two commits of a series, milliseconds: the median of the newest intervals,
/// oldest first, but for the one in question; 0 where there is no other.
fn usual_ms(lengths: &[i64], but: usize) -> i64 {
    let newest = lengths.iter().enumerate().rev().filter(|(number, _)| *number != but);
    let mut newest = newest.take(INTERVALS).map(|(_, length)| *length).collect::<Vec<_>>();
    newest.sort_unstable();
    let middle = newest.len().saturating_sub(1) / 2;
    newest.get(middle).copied().unwrap_or_default()
}

/// What ages are counted by.
#[derive(Clone, Debug, Default)]
pub struct Ages {
    /// The time that they are counted back from, milliseconds since 1970.
    pub reference_ms: i64,
    /// What does not count, newest first.
    pub silences: Vec<Silence>,
}

/// What a rule that goes by age reaches.
pub(super) struct Reach {
    start_ms: i64,
    /// Newest first: what lies at that time or before is younger by so much than its date says.
    younger: Vec<(i64, i64)>,
}

impl Ages {
    /// Everything counts.
    #[must_use]
    pub const fn since(reference_ms: i64) -> Self {
        Self { reference_ms, silences: Vec::new() }
    }

    /// The silences that keep something for longer by some rule of the policy, newest first.
    #[must_use]
    pub fn uncounted(&self, policy: &Policy) -> Vec<Silence> {
        let of = |rule: &Rule| {
            let period = match rule {
                Rule::NewestWithin(period, _) => Some(*period),
                Rule::Last(_) | Rule::Newest(..) | Rule::Within(_) | Rule::Tag(_) => None,
            };
            let found = rule.age().map(|age| self.not_counted(age, period, policy.zone()));
            found.into_iter().flatten().copied().collect::<Vec<_>>()
        };
        let found = policy.rules().iter().flat_map(of).collect::<Vec<_>>();
        self.silences.iter().filter(|silence| found.contains(silence)).copied().collect()
    }

    /// What a rule reaches that keeps what is not older than `age`: everything, or one of each period.
    pub(super) fn reach(&self, age: Age, period: Option<Period>, zone: &TimeZone) -> Reach {
        let start_ms = age.before(self.reference_ms, zone);
        let younger = self.not_counted(age, period, zone).scan(0_i64, |sum_ms, silence| {
            *sum_ms = sum_ms.saturating_add(silence.uncounted_ms());
            Some((silence.from_ms, *sum_ms))
        });
        Reach { start_ms, younger: younger.collect() }
    }

    /// The silences that make something younger for such a rule.
    fn not_counted<'a>(
        &'a self,
        age: Age,
        period: Option<Period>,
        zone: &'a TimeZone,
    ) -> impl Iterator<Item = &'a Silence> {
        let start_ms = age.before(self.reference_ms, zone);
        let missed = move |silence: &&Silence| period.is_none_or(|of| silence.empties(of, zone));
        let silences = self.silences.iter().filter(missed);
        let mut sum_ms = 0_i64;
        silences.take_while(move |silence| {
            let reached = silence.until_ms.saturating_add(sum_ms) >= start_ms;
            sum_ms = sum_ms.saturating_add(silence.uncounted_ms());
            reached
        })
    }
}

impl Reach {
    /// Whether it reaches what was committed then.
    pub(super) fn holds(&self, time_ms: i64) -> bool {
        let younger = self.younger.iter().rev().find(|(from_ms, _)| time_ms <= *from_ms);
        time_ms.saturating_add(younger.map_or(0, |(_, by_ms)| *by_ms)) >= self.start_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 60 * 60 * 1_000;
    const DAY_MS: i64 = 24 * HOUR_MS;

    fn of(series: u32, sequence: u64, time_ms: i64) -> Commit<u32> {
        Commit { time_ms, series, sequence }
    }

    /// Commits of one series whose numbers are not known.
    fn at(times_ms: impl IntoIterator<Item = i64>) -> Vec<Commit<u32>> {
        times_ms.into_iter().map(|time_ms| of(1, 0, time_ms)).collect()
    }

    fn days(silences: &[Silence]) -> Vec<(i64, i64)> {
        silences.iter().map(|one| (one.from_ms / DAY_MS, one.until_ms / DAY_MS)).collect()
    }

    #[test]
    fn a_pause_longer_than_usual_is_a_silence() {
        let nightly = |skipped: i64| {
            let nights = (0..30).chain(30 + skipped..35 + skipped);
            silences(&at(nights.map(|day| day * DAY_MS)))
        };
        assert_eq!(nightly(0), []);
        assert_eq!(nightly(2), [], "a weekend");
        let three_weeks = nightly(20);
        assert_eq!(days(&three_weeks), [(29, 50)]);
        assert_eq!(three_weeks[0].uncounted_ms(), 20 * DAY_MS);
        // The first commit after it tells nothing about what is usual.
        assert_eq!(days(&silences(&at((0..9).chain([29]).map(|day| day * DAY_MS)))), [(8, 29)]);
        assert_eq!(days(&silences(&at([0, 20 * DAY_MS]))), [(0, 20)]);
        assert_eq!(silences(&at([0])), []);
        assert_eq!(silences(&at([])), []);
    }

    #[test]
    fn what_is_usual_is_that_of_each_series() {
        // Three jobs each week, one after the other, and one by the hour that ended long ago.
        let weekly = (0..20).flat_map(|week| {
            (1..4).map(move |job| of(job, 0, 1_000 * HOUR_MS + week * 7 * DAY_MS + i64::from(job)))
        });
        let hourly = (0..1_000).map(|hour| of(9, 0, hour * HOUR_MS));
        assert_eq!(silences(&weekly.chain(hourly).collect::<Vec<_>>()), []);
    }

    #[test]
    fn others_bear_witness_and_so_do_numbers() {
        let paused = (0..20).chain(40..45).map(|day| of(1, 0, day * DAY_MS));
        let other = (0..45).map(|day| of(2, 0, day * DAY_MS + HOUR_MS));
        assert_eq!(days(&silences(&paused.clone().collect::<Vec<_>>())), [(19, 40)]);
        assert_eq!(silences(&paused.chain(other).collect::<Vec<_>>()), []);
        // One a month is left of what was made each night, and all of this month's.
        let thinned = [0, 30, 60, 90, 120, 121, 122, 123, 124, 125, 126, 127, 128];
        let numbered = thinned.map(|day: i64| of(1, 1 + day.unsigned_abs(), day * DAY_MS));
        assert_eq!(silences(&numbered), []);
        // A clock that jumps makes no backups.
        let jumped = [of(1, 130, 160 * DAY_MS)];
        assert_eq!(days(&silences(&[&numbered[..], &jumped].concat())), [(128, 160)]);
    }

    #[test]
    fn what_rules_thin_out_is_not_held_against_them() {
        let zone = TimeZone::UTC;
        // The ends of months; then each hour of the newest two days. Numbers are not known.
        let months = (1..=12).map(|month| month * 30 * DAY_MS);
        let hours = (0..48).map(|hour| 12 * 30 * DAY_MS + (hour + 1) * HOUR_MS);
        let commits = at(months.chain(hours));
        let reference_ms = 12 * 30 * DAY_MS + 48 * HOUR_MS;
        let ages = Ages { reference_ms, silences: silences(&commits) };
        assert_eq!(ages.silences.len(), 11);
        let reach = ages.reach(Age::months(6), Some(Period::Monthly), &zone);
        let plain = Ages::since(reference_ms).reach(Age::months(6), Some(Period::Monthly), &zone);
        for commit in &commits {
            assert_eq!(reach.holds(commit.time_ms), plain.holds(commit.time_ms));
        }
        // A rule that reaches only what came after has no part in it either.
        let reach = ages.reach(Age::hours(36), None, &zone);
        assert!(!reach.holds(11 * 30 * DAY_MS) && !reach.holds(reference_ms - 37 * HOUR_MS));
    }

    #[test]
    fn what_lies_before_a_silence_is_as_old_as_if_it_had_not_been() {
        let commits = at((0..30).chain([50]).map(|day| day * DAY_MS));
        let ages = Ages { reference_ms: 50 * DAY_MS, silences: silences(&commits) };
        for period in [None, Some(Period::Daily)] {
            let reach = ages.reach(Age::days(14), period, &TimeZone::UTC);
            let oldest = (0..30).find(|day| reach.holds(day * DAY_MS));
            // Day 50 counts as day 30.
            assert_eq!(oldest, Some(16), "{period:?}");
        }
        // Of years nothing is missing.
        let reach = ages.reach(Age::days(14), Some(Period::Yearly), &TimeZone::UTC);
        assert!(!reach.holds(29 * DAY_MS));
    }
}
