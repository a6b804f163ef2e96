//! When what expired must be gone. Between two erasures collections may leave dead data where taking
//! it out costs more than it frees; an erasure leaves none.
//!
//! What is dead does not say since when. So each collection notes when it ran, and since when there
//! may be dead data that it left: since the collection before it, which still saw it live or left
//! it too. Where nothing is noted, or the clock went back, everything dead is due at once.
//!
//! Packs that a session at work has stored are spared, whatever is in them: an erasure that finds them
//! has left nothing that it could have taken. So they do not make the next one an erasure too. But
//! they may hold what expired since they were stored, and when their session has ended, that is due
//! when it would have been: each collection notes the sessions that it spared, and since when there
//! may be dead data in their packs. That is since the collection before the one that found them
//! first, because none of their packs was there then.

use std::collections::{BTreeMap, HashSet};

use cairn_format::codec::{Reader, Writer};
use cairn_format::ids::SessionId;

use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::local::PackNumber;

/// Name under which the state is kept.
const NAME: &str = "collected";
/// Stands for "nothing dead was left".
const NOTHING_LEFT: i64 = i64::MIN;
/// Sessions that are noted, at most: with more, their packs count as left.
const SESSIONS_MAX: usize = 4096;

/// What the collections of this host left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// When the last one began, milliseconds since 1970.
    pub last_ms: i64,
    /// Since when there may be dead data that was left; `None` when none was.
    pub dead_since_ms: Option<i64>,
    /// Packs with lower numbers were there.
    pub packs_below: u32,
    /// Sessions that were spared, and since when there may be dead data in their packs.
    pub spared: BTreeMap<SessionId, i64>,
}

/// What a collection left.
#[derive(Clone, Debug, Default)]
pub struct Left {
    /// No dead data, as far as is known, but in packs that were spared.
    pub nothing: bool,
    /// Packs with lower numbers were there.
    pub packs_below: u32,
    /// Sessions whose packs were spared, with the first pack of each.
    pub spared: BTreeMap<SessionId, PackNumber>,
}

impl Past {
    /// What this host remembers of earlier collections.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn read(catalog: &Catalog) -> Result<Option<Self>, Error> {
        let state = catalog.index().meta_get(NAME)?;
        Ok(state.and_then(|state| Self::decode(&state)))
    }

    fn decode(state: &[u8]) -> Option<Self> {
        let mut fields = Reader::new(state, "memo");
        let last_ms = fields.i64().ok()?;
        let since_ms = fields.i64().ok()?;
        let packs_below = fields.u32().ok()?;
        let mut spared = BTreeMap::new();
        while !fields.is_empty() {
            let session = SessionId::from_bytes(fields.array().ok()?);
            spared.insert(session, fields.i64().ok()?);
        }
        let dead_since_ms = (since_ms != NOTHING_LEFT).then_some(since_ms);
        Some(Self { last_ms, dead_since_ms, packs_below, spared })
    }

    fn encode(&self) -> Vec<u8> {
        let mut state = Writer::new();
        state.i64(self.last_ms).i64(self.dead_since_ms.unwrap_or(NOTHING_LEFT));
        state.u32(self.packs_below);
        for (session, since_ms) in &self.spared {
            state.raw(session.as_bytes()).i64(*since_ms);
        }
        state.into_bytes()
    }

    /// Notes a collection that is done, for the next one.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn write(&self, catalog: &Catalog) -> Result<(), Error> {
        Ok(catalog.index().meta_put(NAME, &self.encode())?)
    }

    /// Since when there may be dead data that can be taken now, while these sessions are at work.
    #[must_use]
    pub fn since_ms(&self, at_work: &HashSet<SessionId>) -> i64 {
        // What expired since the last collection may have expired right after it.
        let left_ms = self.dead_since_ms.unwrap_or(self.last_ms);
        let ended = self.spared.iter().filter(|(session, _)| !at_work.contains(*session));
        ended.map(|(_, since_ms)| *since_ms).min().unwrap_or(left_ms).min(left_ms)
    }
}

/// Whether everything dead must go now, so that nothing stays for longer than `within_ms` after it
/// expired: when it would be late at the next collection, which comes after as long as this one did.
#[must_use]
pub fn is_due(
    past: Option<&Past>,
    at_work: &HashSet<SessionId>,
    now_ms: i64,
    within_ms: u64,
) -> bool {
    let Some(past) = past.filter(|past| past.last_ms <= now_ms) else { return true };
    let next_ms = now_ms.saturating_add(now_ms.saturating_sub(past.last_ms));
    let within_ms = i64::try_from(within_ms).unwrap_or(i64::MAX);
    next_ms > past.since_ms(at_work).saturating_add(within_ms)
}

/// What is to be noted of a collection that began at `now_ms`.
#[must_use]
pub fn after(past: Option<&Past>, now_ms: i64, left: &Left) -> Past {
    let known = past.filter(|past| past.last_ms <= now_ms);
    let at_work = left.spared.keys().copied().collect::<HashSet<_>>();
    // Unknown: as old as can be.
    let since_ms = known.map_or(NOTHING_LEFT + 1, |past| past.since_ms(&at_work));
    let mut spared = BTreeMap::new();
    for (session, first) in &left.spared {
        let since_ms = match known {
            None => since_ms,
            Some(past) => match past.spared.get(session) {
                Some(known_ms) => *known_ms,
                None if first.0 >= past.packs_below => past.last_ms,
                // It was there, and was not spared: what was left then may be in it.
                None => since_ms,
            },
        };
        spared.insert(*session, since_ms);
    }
    let nothing = left.nothing && spared.len() <= SESSIONS_MAX;
    if spared.len() > SESSIONS_MAX {
        spared.clear();
    }
    let packs_below = left.packs_below;
    Past { last_ms: now_ms, dead_since_ms: (!nothing).then_some(since_ms), packs_below, spared }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn nothing_left() -> Left {
        Left { nothing: true, ..Left::default() }
    }

    fn none() -> HashSet<SessionId> {
        HashSet::new()
    }

    fn session(number: u64) -> SessionId {
        let mut bytes = [0; SessionId::LEN];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        SessionId::from_bytes(bytes)
    }

    /// The longest that anything dead stayed, hours, when a collection runs every so many hours and
    /// something expires right after each.
    fn longest_stay_hours(every: i64, within: i64) -> i64 {
        let mut past = Past::default();
        let (mut oldest, mut longest) = (0, 0);
        for round in 1..400 {
            let now = round * every;
            let now_ms = now * HOUR_MS;
            if is_due(Some(&past), &none(), now_ms, (within * HOUR_MS).unsigned_abs()) {
                longest = longest.max(now - oldest);
                oldest = now;
                past = after(Some(&past), now_ms, &nothing_left());
            } else {
                past = after(Some(&past), now_ms, &Left::default());
            }
        }
        longest
    }

    #[test]
    fn nothing_stays_longer_than_it_may() {
        for (every, within) in [(1, 72), (7, 72), (24, 72), (35, 72), (1, 2), (5, 24)] {
            let longest = longest_stay_hours(every, within);
            assert!(longest <= within, "every {every} h: {longest} of {within} h");
            assert!(longest > within - 2 * every, "every {every} h: erased at {longest} h");
        }
        // Whoever collects too seldom erases every time.
        assert_eq!(longest_stay_hours(100, 72), 100);
    }

    #[test]
    fn what_is_not_known_is_due() {
        let past = Past { last_ms: 5 * HOUR_MS, ..Past::default() };
        assert!(is_due(None, &none(), HOUR_MS, u64::MAX));
        assert!(is_due(Some(&past), &none(), 4 * HOUR_MS, u64::MAX), "the clock went back");
        let within_ms = 72 * HOUR_MS.unsigned_abs();
        assert!(!is_due(Some(&past), &none(), 6 * HOUR_MS, within_ms));
        // Unknown, and not all could be erased: due again.
        let left = after(None, HOUR_MS, &Left::default());
        assert!(is_due(Some(&left), &none(), 2 * HOUR_MS, within_ms));
        // What an earlier version kept is not understood.
        assert_eq!(Past::decode(&[0; 16]), None);
        let past = after(Some(&past), 6 * HOUR_MS, &Left::default());
        assert_eq!(Past::decode(&past.encode()), Some(past));
    }

    /// How many of a year's hourly collections erase, where each spares the packs of those of these
    /// sessions that are at work: their hours of begin and end.
    fn erasures(sessions: &[(i64, i64)], within: i64) -> Vec<i64> {
        let mut past = Past { dead_since_ms: None, ..Past::default() };
        let mut erased = Vec::new();
        for hour in 1..2_000 {
            let at_work =
                (0_u64..).zip(sessions).filter(|(_, (from, to))| (*from..*to).contains(&hour));
            // Each pack gets its number when it is first seen; so many come in every hour.
            let spared = at_work.map(|(number, (from, _))| {
                (session(number), PackNumber(u32::try_from(from * 10).unwrap()))
            });
            let spared = spared.collect::<BTreeMap<_, _>>();
            let names = spared.keys().copied().collect();
            let within_ms = (within * HOUR_MS).unsigned_abs();
            let nothing = is_due(Some(&past), &names, hour * HOUR_MS, within_ms);
            if nothing {
                erased.push(hour);
            }
            let packs_below = u32::try_from(hour * 10 + 10).unwrap();
            let left = Left { nothing, packs_below, spared };
            past = after(Some(&past), hour * HOUR_MS, &left);
        }
        erased
    }

    #[test]
    fn sessions_that_are_always_at_work_do_not_make_every_collection_an_erasure() {
        let quiet = erasures(&[], 72);
        assert!(quiet.len() <= 2_000 / 70, "{quiet:?}");
        // One after another, at work whenever something is collected; or overlapping, for long.
        let short = (0..2_000).map(|hour| (hour, hour + 1)).collect::<Vec<_>>();
        let long = (0..400).map(|number| (number * 5, number * 5 + 9)).collect::<Vec<_>>();
        for sessions in [short, long] {
            let busy = erasures(&sessions, 72);
            assert!(busy.len() <= quiet.len() * 2, "{busy:?}");
            assert!(busy.windows(2).all(|pair| pair[1] - pair[0] <= 72), "{busy:?}");
        }
    }

    #[test]
    fn what_a_long_session_was_spared_is_due_when_it_ends() {
        // It is found at hour 10, so what is in its packs may have expired since hour 9.
        let erased = erasures(&[(10, 300)], 72);
        assert!(erased.contains(&300), "{erased:?}");
        // One that ends before that is due takes part in the next erasure, in time.
        let erased = erasures(&[(100, 110)], 72);
        assert!(erased.iter().any(|hour| (110..=171).contains(hour)), "{erased:?}");
    }

    #[test]
    fn packs_that_were_there_before_they_were_spared_hide_nothing() {
        // Left at hour 1 and not spared; spared by an erasure at hour 80.
        let past = Past { last_ms: 79, dead_since_ms: Some(1), packs_below: 50, ..Past::default() };
        let spared = |first| BTreeMap::from([(session(1), PackNumber(first))]);
        let left = |first| Left { nothing: true, packs_below: 60, spared: spared(first) };
        let old = after(Some(&past), 80, &left(49));
        assert_eq!((old.since_ms(&none()), old.dead_since_ms), (1, None));
        let new = after(Some(&past), 80, &left(50));
        assert_eq!(new.since_ms(&none()), 79);
    }
}
