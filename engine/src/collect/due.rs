//! When what expired must be gone. Between two erasures collections may leave dead data where taking
//! it out costs more than it frees; an erasure leaves none.
//!
//! What is dead does not say since when. So each collection notes when it ran, and since when there
//! may be dead data that it left: since the collection before it, which still saw it live or left
//! it too. Where nothing is noted, or the clock went back, everything dead is due at once.

use crate::error::Error;
use crate::index::catalog::Catalog;

/// Name under which the state is kept.
const NAME: &str = "collected";
/// Length of the state: two numbers.
const STATE_BYTES: usize = 16;
/// Stands for "nothing dead was left".
const NOTHING_LEFT: i64 = i64::MIN;

/// What the collections of this host left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// When the last one began, milliseconds since 1970.
    pub last_ms: i64,
    /// Since when there may be dead data that was left; `None` when none was.
    pub dead_since_ms: Option<i64>,
}

impl Past {
    /// What this host remembers of earlier collections.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn read(catalog: &Catalog) -> Result<Option<Self>, Error> {
        let Some(state) = catalog.index().meta_get(NAME)? else { return Ok(None) };
        let Ok(state) = <[u8; STATE_BYTES]>::try_from(state.as_slice()) else { return Ok(None) };
        let (last, since) = state.split_at(STATE_BYTES / 2);
        let number = |bytes: &[u8]| bytes.try_into().map(i64::from_le_bytes).unwrap_or_default();
        let since_ms = number(since);
        Ok(Some(Self {
            last_ms: number(last),
            dead_since_ms: (since_ms != NOTHING_LEFT).then_some(since_ms),
        }))
    }

    /// Notes a collection that is done, for the next one.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn write(self, catalog: &Catalog) -> Result<(), Error> {
        let since_ms = self.dead_since_ms.unwrap_or(NOTHING_LEFT);
        let state = [self.last_ms.to_le_bytes(), since_ms.to_le_bytes()].concat();
        Ok(catalog.index().meta_put(NAME, &state)?)
    }
}

/// Whether everything dead must go now, so that nothing stays for longer than `within_ms` after it
/// expired: when it would be late at the next collection, which comes after as long as this one did.
#[must_use]
pub fn is_due(past: Option<Past>, now_ms: i64, within_ms: u64) -> bool {
    let Some(past) = past.filter(|past| past.last_ms <= now_ms) else { return true };
    let next_ms = now_ms.saturating_add(now_ms.saturating_sub(past.last_ms));
    // What expired since the last collection may have expired right after it.
    let since_ms = past.dead_since_ms.unwrap_or(past.last_ms);
    let within_ms = i64::try_from(within_ms).unwrap_or(i64::MAX);
    next_ms > since_ms.saturating_add(within_ms)
}

/// What is to be noted of a collection that began at `now_ms`.
#[must_use]
pub fn after(past: Option<Past>, now_ms: i64, left_nothing: bool) -> Past {
    let known = past.filter(|past| past.last_ms <= now_ms);
    let since_ms = known.map(|past| past.dead_since_ms.unwrap_or(past.last_ms));
    // Unknown: as old as can be.
    let dead_since_ms = (!left_nothing).then_some(since_ms.unwrap_or(NOTHING_LEFT + 1));
    Past { last_ms: now_ms, dead_since_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    /// The longest that anything dead stayed, hours, when a collection runs every so many hours and
    /// something expires right after each.
    fn longest_stay_hours(every: i64, within: i64) -> i64 {
        let mut past = Some(Past { last_ms: 0, dead_since_ms: None });
        let (mut oldest, mut longest) = (0, 0);
        for round in 1..400 {
            let now = round * every;
            if is_due(past, now * HOUR_MS, (within * HOUR_MS).unsigned_abs()) {
                longest = longest.max(now - oldest);
                oldest = now;
                past = Some(after(past, now * HOUR_MS, true));
            } else {
                past = Some(after(past, now * HOUR_MS, false));
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
        let past = Past { last_ms: 5 * HOUR_MS, dead_since_ms: None };
        assert!(is_due(None, HOUR_MS, u64::MAX));
        assert!(is_due(Some(past), 4 * HOUR_MS, u64::MAX), "the clock went back");
        assert!(!is_due(Some(past), 6 * HOUR_MS, 72 * HOUR_MS.unsigned_abs()));
        // Unknown, and not all could be erased: due again.
        let left = after(None, HOUR_MS, false);
        assert!(is_due(Some(left), 2 * HOUR_MS, 72 * HOUR_MS.unsigned_abs()));
    }
}
