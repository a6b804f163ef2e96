//! What the requests to a store cost: their number by kind, and the bytes they moved.

use std::sync::Arc;

use parking_lot::Mutex;

/// The kinds of requests, as providers bill them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestKind {
    /// Reads an object or a part of one.
    Read,
    /// Writes an object.
    Write,
    /// Asks for an object's size.
    Look,
    /// Reads a page of a listing.
    List,
    /// Deletes an object.
    Delete,
    /// Anything else: credentials, redirections, settings of the bucket.
    Other,
}

impl RequestKind {
    /// All kinds, in the order they are shown.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Write, Self::Look, Self::List, Self::Delete, Self::Other];

    /// Stable name, for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Look => "look",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Other => "other",
        }
    }
}

/// Requests of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Requests sent, those that were sent again included.
    pub sent: u64,
    /// Those among them that brought no answer, or one that says that it failed. That an object
    /// is absent counts as failed.
    pub failed: u64,
    /// Bytes of the bodies sent.
    pub bytes_sent: u64,
    /// Bytes of the bodies received.
    pub bytes_received: u64,
}

/// Requests by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    read: Requests,
    write: Requests,
    look: Requests,
    list: Requests,
    delete: Requests,
    other: Requests,
}

impl Traffic {
    /// The requests of one kind.
    #[must_use]
    pub const fn of(&self, kind: RequestKind) -> Requests {
        match kind {
            RequestKind::Read => self.read,
            RequestKind::Write => self.write,
            RequestKind::Look => self.look,
            RequestKind::List => self.list,
            RequestKind::Delete => self.delete,
            RequestKind::Other => self.other,
        }
    }

    const fn of_mut(&mut self, kind: RequestKind) -> &mut Requests {
        match kind {
            RequestKind::Read => &mut self.read,
            RequestKind::Write => &mut self.write,
            RequestKind::Look => &mut self.look,
            RequestKind::List => &mut self.list,
            RequestKind::Delete => &mut self.delete,
            RequestKind::Other => &mut self.other,
        }
    }

    /// The requests of all kinds.
    #[must_use]
    pub fn total(&self) -> Requests {
        RequestKind::ALL.into_iter().fold(Requests::default(), |sum, kind| {
            let of = self.of(kind);
            Requests {
                sent: sum.sent.saturating_add(of.sent),
                failed: sum.failed.saturating_add(of.failed),
                bytes_sent: sum.bytes_sent.saturating_add(of.bytes_sent),
                bytes_received: sum.bytes_received.saturating_add(of.bytes_received),
            }
        })
    }
}

/// Counts requests as they are made. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Mutex<Traffic>>);

impl Meter {
    /// What was counted so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        *self.0.lock()
    }

    /// Counts a request that is sent with a body of `bytes`.
    pub(super) fn sent(&self, kind: RequestKind, bytes: u64) {
        let mut traffic = self.0.lock();
        let of = traffic.of_mut(kind);
        of.sent = of.sent.saturating_add(1);
        of.bytes_sent = of.bytes_sent.saturating_add(bytes);
    }

    /// Counts bytes of an answer.
    pub(super) fn received(&self, kind: RequestKind, bytes: u64) {
        let mut traffic = self.0.lock();
        let of = traffic.of_mut(kind);
        of.bytes_received = of.bytes_received.saturating_add(bytes);
    }

    /// Counts a request that failed.
    pub(super) fn failed(&self, kind: RequestKind) {
        let mut traffic = self.0.lock();
        let of = traffic.of_mut(kind);
        of.failed = of.failed.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_counted_by_itself_and_the_total_is_their_sum() {
        let meter = Meter::default();
        for (count, kind) in (1..).zip(RequestKind::ALL) {
            (0..count).for_each(|_| meter.clone().sent(kind, 10));
            meter.received(kind, count);
        }
        meter.failed(RequestKind::Look);
        let traffic = meter.traffic();
        for (count, kind) in (1..).zip(RequestKind::ALL) {
            let failed = u64::from(kind == RequestKind::Look);
            let expected =
                Requests { sent: count, failed, bytes_sent: 10 * count, bytes_received: count };
            assert_eq!(traffic.of(kind), expected, "{kind:?}");
        }
        let total = Requests { sent: 21, failed: 1, bytes_sent: 210, bytes_received: 21 };
        assert_eq!(traffic.total(), total);
    }
}
