//! Test kit: what public-key operations gave before, for simulations that open the same objects
//! thousands of times and would spend two thirds of their time on that.
//!
//! Nothing is remembered, so that no secret outlives its use, unless a test asks for it. What is
//! remembered stands under the hash of all that the result depends on, and is bounded.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::secret::Secret32;

/// Results of each kind that are kept; then all are dropped.
const KEPT_MAX: usize = 1 << 14;

static ASKED_FOR: AtomicBool = AtomicBool::new(false);
static AGREED: Memo<Option<Secret32>> = Memo(LazyLock::new(Mutex::default));
static VERIFIED: Memo<bool> = Memo(LazyLock::new(Mutex::default));

struct Memo<T>(LazyLock<Mutex<HashMap<[u8; 32], T>>>);

/// From now on, in this process, results are remembered. For tests only: secrets stay in memory.
#[doc(hidden)]
pub fn remember_results() {
    ASKED_FOR.store(true, Ordering::Relaxed);
}

/// A shared secret of two keys.
pub(super) fn agreed(
    inputs: &[&[u8]],
    agree: impl FnOnce() -> Option<Secret32>,
) -> Option<Secret32> {
    AGREED.get(inputs, agree)
}

/// Whether a signature fits.
pub(super) fn verified(inputs: &[&[u8]], verify: impl FnOnce() -> bool) -> bool {
    VERIFIED.get(inputs, verify)
}

impl<T: Clone> Memo<T> {
    fn get(&self, inputs: &[&[u8]], work: impl FnOnce() -> T) -> T {
        if !ASKED_FOR.load(Ordering::Relaxed) {
            return work();
        }
        let mut hasher = blake3::Hasher::new();
        for input in inputs {
            hasher.update(&(input.len() as u64).to_le_bytes()).update(input);
        }
        let key = *hasher.finalize().as_bytes();
        if let Some(known) = self.0.lock().get(&key) {
            return known.clone();
        }
        let result = work();
        let mut kept = self.0.lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, result.clone());
        result
    }
}
