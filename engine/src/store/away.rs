//! A store that did not answer several times in a row is not asked for a while, where somebody else
//! can be asked: else each call would wait for all attempts.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::StoreError;
use super::error::Place;
use crate::context::Clock;

/// Calls in a row that were not answered, each after all attempts, before the store is not asked.
const UNANSWERED_MAX: u32 = 3;
/// How long it is not asked then, milliseconds; afterwards one call finds out whether it is back.
const AWAY_MS: i64 = 5 * 60 * 1_000;

/// Whether a store answers.
pub struct Away {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In a row.
    unanswered: u32,
    /// From when on it is asked again, milliseconds since 1970.
    until_ms: i64,
}

impl fmt::Debug for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Away").field("unanswered", &self.state.lock().unanswered).finish()
    }
}

impl Away {
    /// One of which nothing is known.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default() }
    }

    /// Makes a call, unless the store is not asked now.
    ///
    /// # Errors
    /// Those of the call; [`StoreError::Unreachable`] at once while the store is not asked.
    pub fn ask<T>(
        &self,
        place: impl FnOnce() -> Place,
        call: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if !self.may_ask() {
            let source = "it did not answer several times in a row, and is not asked for a while";
            return Err(StoreError::Unreachable { place: place(), source: source.into() });
        }
        let answer = call();
        let mut state = self.state.lock();
        match &answer {
            Err(error) if error.is_out_of_reach() => {
                state.unanswered = state.unanswered.saturating_add(1);
                if state.unanswered >= UNANSWERED_MAX {
                    state.until_ms = self.clock.now_ms().saturating_add(AWAY_MS);
                }
            }
            _ => state.unanswered = 0,
        }
        answer
    }

    fn may_ask(&self) -> bool {
        let mut state = self.state.lock();
        if state.unanswered < UNANSWERED_MAX {
            return true;
        }
        let now_ms = self.clock.now_ms();
        let may = now_ms >= state.until_ms || state.until_ms > now_ms.saturating_add(AWAY_MS);
        if may {
            // Only this one, until its answer is known.
            state.until_ms = now_ms.saturating_add(AWAY_MS);
        }
        may
    }

    /// Lets the next call be made in any case; false when it would have been.
    pub fn relent(&self) -> bool {
        let mut state = self.state.lock();
        let away = state.unanswered >= UNANSWERED_MAX;
        if away {
            state.unanswered = UNANSWERED_MAX - 1;
        }
        away
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct At(AtomicI64);

    impl Clock for At {
        fn now_ms(&self) -> i64 {
            self.0.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn it_is_not_asked_after_some_failures_and_then_by_one_until_it_answers() {
        let clock = Arc::new(At::default());
        let away = Away::new(clock.clone());
        let asked = Mutex::new(0);
        let ask = |answers: bool| {
            let call = || {
                *asked.lock() += 1;
                let place = Place::root("there");
                let failed = StoreError::Unreachable { place, source: "it is gone".into() };
                if answers { Ok(()) } else { Err(failed) }
            };
            away.ask(|| Place::root("there"), call).is_ok()
        };
        // An answer in between begins the count anew.
        for answers in [false, false, true, false, false] {
            assert_eq!(ask(answers), answers);
        }
        assert!(!away.relent() && !ask(false));
        assert_eq!(*asked.lock(), 6);
        assert!(!ask(true) && !ask(true));
        assert_eq!(*asked.lock(), 6);
        // One that must have its answer gets it, and the others wait on.
        assert!(away.relent() && !ask(false) && !ask(true));
        assert_eq!(*asked.lock(), 7);
        clock.0.store(AWAY_MS, Ordering::SeqCst);
        assert!(!ask(false) && !ask(true));
        assert_eq!(*asked.lock(), 8);
        clock.0.store(2 * AWAY_MS, Ordering::SeqCst);
        assert!(ask(true) && ask(true));
        assert_eq!(*asked.lock(), 10);
    }
}
