//! Which packs most need verifying.

use std::collections::BinaryHeap;
use std::ops::ControlFlow;

use super::{IndexError, LedgerEntry, LocalIndex, PackAge, PackNumber, PackRecord};

/// A pack in the order of need: the least is the neediest.
struct Ranked {
    age: PackAge,
}

impl Ranked {
    /// Never verified, then found damaged, then by time; the number makes the order total.
    fn rank(&self) -> (u8, u64, PackNumber) {
        let (class, verified_ms) = match self.age.verified {
            None => (0, 0),
            Some(entry) => (if entry.ok { 2 } else { 1 }, entry.verified_ms),
        };
        (class, verified_ms, self.age.number)
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

/// See [`LocalIndex::least_verified`].
pub(super) fn least_verified<I: LocalIndex + ?Sized>(
    index: &I,
    limit: usize,
) -> Result<Vec<PackAge>, IndexError> {
    // A heap of the neediest so far, the least needy on top: it is the one that gives way.
    let mut neediest = BinaryHeap::new();
    index.for_each_pack(&mut |number, record: &PackRecord, verified: Option<LedgerEntry>| {
        neediest.push(Ranked { age: PackAge { number, record: *record, verified } });
        if neediest.len() > limit {
            neediest.pop();
        }
        ControlFlow::Continue(())
    })?;
    Ok(neediest.into_sorted_vec().into_iter().map(|ranked| ranked.age).collect())
}
