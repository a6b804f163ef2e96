//! What this host remembers of a replica, from one replication to the next and while one runs. Others
//! may write the same file meanwhile, so it is never written back as it was read: each change is made
//! to what stands there by then.
//!
//! It is a cache: whatever must not be forgotten, above all that something expired there, is noted
//! before it happens, and where nothing is remembered a collection looks.

use parking_lot::Mutex;

use super::Target;
use crate::context::Remark;
use crate::repo::Repository;
use crate::repo::places::{Places, Replication};

/// What is remembered of one replica.
pub(super) struct Memory<'a> {
    home: &'a Repository,
    name: &'a str,
    place: Option<(Places, &'a str)>,
    /// When this replication began, milliseconds since 1970.
    pub(super) now_ms: i64,
    /// When the last one began that went through everything.
    pub(super) last_ms: Option<i64>,
    state: Mutex<Replication>,
}

impl<'a> Memory<'a> {
    /// What is remembered of a replica; with `look_only` nothing new is.
    pub(super) fn new(home: &'a Repository, target: &'a Target, look_only: bool) -> Self {
        let places = Places::new(&home.context.cache_dir).filter(|_| !look_only);
        let place = places.zip(target.place.as_deref());
        let known = place.as_ref().and_then(|(places, place)| places.recall(place));
        let state = known.and_then(|known| known.replication).unwrap_or_default();
        Self {
            home,
            name: &target.name,
            place,
            now_ms: home.context.clock.now_ms(),
            last_ms: state.ran_ms.or(state.done_ms),
            state: Mutex::new(state),
        }
    }

    /// The memory of places, and what this one is called there.
    pub(super) fn place(&self) -> Option<(&Places, &'a str)> {
        self.place.as_ref().map(|(places, place)| (places, *place))
    }

    /// The state as it was last read or changed.
    pub(super) fn state(&self) -> Replication {
        self.state.lock().clone()
    }

    /// Changes the state, as it stands by now.
    pub(super) fn change(&self, change: impl Fn(&mut Replication)) {
        let mut state = self.state.lock();
        let written = self.place.as_ref().map(|(places, place)| places.change(place, &change));
        match written {
            Some(Ok(Some(now))) => *state = now,
            // It is not known yet what is there.
            None | Some(Ok(None)) => change(&mut state),
            Some(Err(error)) => {
                change(&mut state);
                self.home.monitor().warn(Remark {
                    code: "place.remember",
                    subject: self.name.to_owned(),
                    message: error.to_string(),
                });
            }
        }
    }

    /// Notes that something may expire there from now on. To be called before it does.
    pub(super) fn note_dead(&self) {
        // It may have expired right after the last replication.
        let since_ms = self.last_ms.unwrap_or(self.now_ms);
        self.change(|state| {
            state.dead_since_ms = Some(state.dead_since_ms.unwrap_or(since_ms).min(since_ms));
            state.dead_notes += 1;
        });
    }

    /// Notes that nothing expired is left there: unless something was noted since `before`.
    pub(super) fn note_clean(&self, before: &Replication) {
        let notes = before.dead_notes;
        self.change(|state| {
            if state.dead_notes == notes {
                (state.dead_since_ms, state.unclear) = (None, false);
            }
        });
    }
}
