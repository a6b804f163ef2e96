//! What goes from some threads to others. Whoever waits for more waits by itself: a channel whose
//! one end several threads share has them wait for the lock on it, which wakes them for nothing.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// Things under way, in order. How many there are is bounded by those who give them.
pub(super) struct Line<T> {
    inner: Mutex<Inner<T>>,
    came: Condvar,
}

struct Inner<T> {
    things: VecDeque<T>,
    givers: usize,
}

/// Puts things into a line. Without givers nobody waits for more.
pub(super) struct Giver<'l, T>(&'l Line<T>);

impl<T> Line<T> {
    /// A line of these things.
    pub(super) fn new(things: impl IntoIterator<Item = T>) -> Self {
        let inner = Inner { things: things.into_iter().collect(), givers: 0 };
        Self { inner: Mutex::new(inner), came: Condvar::new() }
    }

    /// One that more may come from.
    pub(super) fn giver(&self) -> Giver<'_, T> {
        self.inner.lock().givers += 1;
        Giver(self)
    }

    /// Adds a thing at the end.
    pub(super) fn put(&self, thing: T) {
        self.inner.lock().things.push_back(thing);
        self.came.notify_one();
    }

    /// The first thing; waits for it. `None` when there is nothing, nor anybody to give more.
    pub(super) fn take(&self) -> Option<T> {
        let mut inner = self.inner.lock();
        loop {
            match inner.things.pop_front() {
                None if inner.givers > 0 => self.came.wait(&mut inner),
                first => return first,
            }
        }
    }
}

impl<T> Giver<'_, T> {
    /// Adds a thing at the end.
    pub(super) fn give(&self, thing: T) {
        self.0.put(thing);
    }
}

impl<T> Drop for Giver<'_, T> {
    fn drop(&mut self) {
        self.0.inner.lock().givers -= 1;
        self.0.came.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn everything_given_is_taken_once_and_nobody_waits_when_the_last_giver_is_gone() {
        let line = Line::new([1_usize]);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|threads| {
            let givers = [(); 3].map(|()| line.giver());
            for _ in 0..4 {
                threads.spawn(|| {
                    while let Some(thing) = line.take() {
                        sum.fetch_add(thing, Ordering::Relaxed);
                    }
                });
            }
            for giver in givers {
                threads.spawn(move || (0..1_000).for_each(|thing| giver.give(thing)));
            }
        });
        assert_eq!(sum.into_inner(), 1 + 3 * 999 * 1_000 / 2);
        assert_eq!(line.take(), None);
    }
}
