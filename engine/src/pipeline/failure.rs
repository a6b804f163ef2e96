//! Why several threads at work on one thing stopped.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::Error;

/// The reason work stopped, noted by whichever thread failed and told once, when all have ended.
///
/// Threads that stop because another failed get [`Error::Cancelled`] and may note that before the
/// other has noted its reason: a reason therefore replaces a cancellation, and nobody takes it
/// before the end.
#[derive(Default)]
pub struct Failure {
    failed: AtomicBool,
    reason: Mutex<Option<Error>>,
}

impl Failure {
    /// Notes why a thread failed; the first reason counts.
    pub fn note(&self, error: Error) {
        let mut reason = self.reason.lock();
        if matches!(*reason, None | Some(Error::Cancelled)) {
            *reason = Some(error);
        }
        self.failed.store(true, Ordering::Release);
    }

    /// Whether a thread failed.
    pub fn is_noted(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// # Errors
    /// [`Error::Cancelled`] after a thread failed.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_noted() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// The reason, for whoever tells it. It stays failed.
    pub fn take(&self) -> Option<Error> {
        self.reason.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_outlasts_the_cancellations_it_causes() {
        let failure = Failure::default();
        failure.check().expect("nothing failed");
        failure.note(Error::Cancelled);
        failure.note(Error::Internal { part: "first" });
        failure.note(Error::Internal { part: "second" });
        failure.note(Error::Cancelled);
        assert!(matches!(failure.check(), Err(Error::Cancelled)));
        assert!(matches!(failure.take(), Some(Error::Internal { part: "first" })));
        assert!(failure.take().is_none());
        assert!(failure.is_noted());
    }
}
