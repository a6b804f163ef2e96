//! Bounds the bytes that are under way, so that memory follows the configuration and not the data.

use parking_lot::{Condvar, Mutex};

/// A number of bytes that may be under way at once.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    bytes_used: Mutex<usize>,
    freed: Condvar,
}

/// Bytes taken from a budget; given back when dropped.
#[derive(Debug)]
pub struct Share<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub const fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes_used: Mutex::new(0), freed: Condvar::new() }
    }

    /// Waits until `bytes` are free and takes them. More than the whole budget is granted when
    /// nothing else is under way, so that nobody waits for ever.
    pub fn take(&self, bytes: usize) {
        let mut used = self.bytes_used.lock();
        while *used > 0 && used.saturating_add(bytes) > self.bytes_max {
            self.freed.wait(&mut used);
        }
        *used = used.saturating_add(bytes);
    }

    /// Takes bytes only if that needs no waiting.
    #[must_use]
    pub fn try_take(&self, bytes: usize) -> bool {
        let mut used = self.bytes_used.lock();
        let fits = *used == 0 || used.saturating_add(bytes) <= self.bytes_max;
        if fits {
            *used = used.saturating_add(bytes);
        }
        fits
    }

    /// Takes bytes and gives them back when the share is dropped.
    pub fn share(&self, bytes: usize) -> Share<'_> {
        self.take(bytes);
        Share { budget: self, bytes }
    }

    /// Gives bytes back.
    pub fn give(&self, bytes: usize) {
        let mut used = self.bytes_used.lock();
        *used = used.saturating_sub(bytes);
        self.freed.notify_all();
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.give(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn never_more_than_the_budget_is_under_way_except_one_large_item() {
        let budget = Budget::new(100);
        let under_way = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for worker in 0..8_usize {
                let (budget, under_way) = (&budget, &under_way);
                scope.spawn(move || {
                    for round in 0..200_usize {
                        let bytes = 1 + (worker * 31 + round * 17) % 60;
                        let share = budget.share(bytes);
                        let now = under_way.fetch_add(bytes, Ordering::SeqCst) + bytes;
                        assert!(now <= 100, "{now}");
                        under_way.fetch_sub(bytes, Ordering::SeqCst);
                        drop(share);
                    }
                });
            }
        });
        drop(budget.share(1_000));
    }
}
