//! The time as services tell it: by the date of their answers, or by that of an object just put.

use std::sync::Arc;

use cairn_format::names::ObjectName;
use parking_lot::Mutex;

use super::{ObjectStore, RequestKind};
use crate::store::error::{Place, StoreError};

/// Name, below the folder of what belongs to no repository, of what is put to see its date.
const PATH: &str = "tmp/clock-";
const CONTENT: &[u8] = b"cairn asks what time it is\n";

/// The date of the last answer, milliseconds since 1970: only its headers tell, which the layers above
/// do not hand on. Clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct ClockSeen(Arc<Mutex<Option<i64>>>);

impl ClockSeen {
    /// Notes what the headers `Date` and `Age` say: an answer that a cache kept is as old as that.
    pub(in crate::store) fn note(&self, date: &str, age: Option<&str>) {
        let Ok(date) = jiff::fmt::rfc2822::parse(date) else { return };
        let age_s = age.and_then(|age| age.trim().parse::<u32>().ok()).unwrap_or_default();
        let date_ms = date.timestamp().as_millisecond();
        *self.0.lock() = Some(date_ms.saturating_add(i64::from(age_s) * 1_000));
    }

    fn take(&self) -> Option<i64> {
        self.0.lock().take()
    }
}

impl ObjectStore {
    /// Where what sends the requests notes the dates of answers.
    pub(in crate::store) fn set_clock_seen(&mut self, clock_seen: ClockSeen) {
        self.clock_seen = Some(clock_seen);
    }

    /// The service's time.
    pub(super) fn asked_now_ms(&self) -> Result<Option<i64>, StoreError> {
        let Some(clock_seen) = &self.clock_seen else { return Ok(None) };
        let _before = clock_seen.take();
        match self.stat(&ObjectName::Format) {
            Ok(_) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        match clock_seen.take() {
            Some(now_ms) => Ok(Some(now_ms)),
            None => self.date_of_a_new_object(),
        }
    }

    /// Puts an object to see its date, and deletes it.
    fn date_of_a_new_object(&self) -> Result<Option<i64>, StoreError> {
        let path = format!("{PATH}{:016x}", getrandom::u64().unwrap_or_default());
        let place = || Place::temporary(&self.location);
        let bytes = CONTENT.len() as u64;
        let write = self.operator.write(&path, CONTENT);
        self.wait(RequestKind::Write, place, bytes, write)?;
        let found = self.wait(RequestKind::Look, place, 0, self.operator.stat(&path));
        // In any case.
        let deleted = self.wait(RequestKind::Delete, place, 0, self.operator.delete(&path));
        let found = found?;
        deleted?;
        Ok(found.last_modified().map(|time| time.into_inner().as_millisecond()))
    }

    /// When the service took an object, as it says.
    pub(super) fn asked_taken_ms(&self, name: &ObjectName) -> Result<Option<i64>, StoreError> {
        let path = name.to_string();
        let look = self.operator.stat(&path);
        let found = self.wait(RequestKind::Look, || self.place(name), 0, look)?;
        Ok(found.last_modified().map(|time| time.into_inner().as_millisecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_answers_are_understood_and_nonsense_is_none() {
        let seen = ClockSeen::default();
        let told = |date: &str, age: Option<&str>| {
            seen.note(date, age);
            seen.take()
        };
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(told(date, None), Some(784_111_777_000));
        assert_eq!(told(date, Some("60")), Some(784_111_837_000));
        assert_eq!(told(date, Some("soon")), Some(784_111_777_000));
        for nonsense in ["", "yesterday", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(told(nonsense, None), None, "{nonsense}");
        }
        assert_eq!(seen.take(), None, "it is told once");
    }

    #[test]
    fn what_tells_no_date_is_asked_by_a_new_object_and_nothing_is_left() {
        let mut store = ObjectStore::memory().unwrap();
        let before_ms = jiff::Timestamp::now().as_millisecond();
        assert_eq!(store.asked_now_ms().unwrap(), None, "this machine's memory has no clock");
        store.set_clock_seen(ClockSeen::default());
        let now_ms = store.asked_now_ms().unwrap();
        assert!(now_ms.is_none_or(|now_ms| now_ms >= before_ms - 1_000), "{now_ms:?}");
        let left = store.operator.list("tmp/");
        let left = store.wait(RequestKind::List, || Place::root("memory"), 0, left).unwrap();
        assert!(left.iter().all(|entry| entry.path().ends_with('/')), "{left:?}");
    }
}
