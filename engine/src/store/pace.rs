//! Limits on how many bytes move in a second.

use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets bytes pass at a mean rate. What moves at once, moves as fast as it can; what comes after
/// waits until the rate has caught up with it.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_s: NonZeroU64,
    /// When everything admitted so far is paid for.
    free: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) const fn new(bytes_per_s: NonZeroU64) -> Self {
        Self { bytes_per_s, free: Mutex::new(None) }
    }

    /// Waits for the turn of `bytes`.
    pub(super) fn admit(&self, bytes: u64) {
        let wait = self.turn(Instant::now(), bytes);
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
    }

    /// How long `bytes` that are asked for at `now` have to wait.
    fn turn(&self, now: Instant, bytes: u64) -> Duration {
        let mut free = self.free.lock();
        let begin = free.map_or(now, |free| free.max(now));
        let rate = u128::from(self.bytes_per_s.get());
        let nanos = u128::from(bytes).saturating_mul(1_000_000_000) / rate;
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        // Beyond what a clock can tell there is nothing left to wait for.
        *free = begin.checked_add(takes).or(Some(begin));
        begin.duration_since(now)
    }
}

/// What stores share that are opened with the same options: what goes to all of them together keeps to
/// one rate, since it goes the same way.
#[derive(Debug, Default)]
pub(super) struct Paces {
    upload: OnceLock<Arc<Pace>>,
    download: OnceLock<Arc<Pace>>,
}

impl Paces {
    /// What is sent at this rate.
    pub(super) fn upload(&self, bytes_per_s: Option<NonZeroU64>) -> Option<Arc<Pace>> {
        bytes_per_s.map(|rate| Self::at(&self.upload, rate))
    }

    /// What is received at this rate.
    pub(super) fn download(&self, bytes_per_s: Option<NonZeroU64>) -> Option<Arc<Pace>> {
        bytes_per_s.map(|rate| Self::at(&self.download, rate))
    }

    /// The one that is shared, where it has this rate.
    fn at(shared: &OnceLock<Arc<Pace>>, rate: NonZeroU64) -> Arc<Pace> {
        let pace = shared.get_or_init(|| Arc::new(Pace::new(rate)));
        if pace.bytes_per_s == rate { Arc::clone(pace) } else { Arc::new(Pace::new(rate)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_to_several_stores_keeps_to_one_rate() {
        let paces = Paces::default();
        let rate = NonZeroU64::new(1000);
        let now = Instant::now();
        let turn = |pace: Option<Arc<Pace>>, bytes| pace.map(|pace| pace.turn(now, bytes));
        assert_eq!(turn(paces.upload(rate), 3000), Some(Duration::ZERO));
        assert_eq!(turn(paces.upload(rate), 1000), Some(Duration::from_secs(3)));
        // What comes in does not wait for what goes out, nor does who has a rate of its own.
        assert_eq!(turn(paces.download(rate), 1000), Some(Duration::ZERO));
        assert_eq!(turn(paces.upload(NonZeroU64::new(7)), 7), Some(Duration::ZERO));
        assert!(paces.upload(None).is_none());
    }

    #[test]
    fn bytes_wait_for_those_before_them_and_unused_time_is_not_saved_up() {
        let pace = Pace::new(NonZeroU64::new(1000).unwrap());
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        assert_eq!(pace.turn(at(0), 3000), Duration::ZERO);
        assert_eq!(pace.turn(at(500), 1000), Duration::from_millis(2500));
        assert_eq!(pace.turn(at(4000), 10), Duration::ZERO);
        assert_eq!(pace.turn(at(60_000), 1000), Duration::ZERO);
        assert_eq!(pace.turn(at(60_000), 1000), Duration::from_secs(1));
        pace.turn(at(60_000), u64::MAX);
    }
}
