//! Snapshots that follow one another, whose reach is remembered together ([`super::memo::span`]): what
//! they reach that those before them do not. So a collection walks again where snapshots came or
//! went, and takes the rest as it was.

use cairn_format::ids::WriterId;

use super::memo::SpanKey;
use super::reached::Reached;
use crate::ops::snapshots::SnapshotInfo;

/// A span ends behind a snapshot with one of so many ids, wherever others come or go.
const SNAPSHOTS_AVG: u8 = 8;
/// And behind so many snapshots.
const SNAPSHOTS_MAX: usize = 64;

/// Spans of snapshots of one namespace, in their order.
pub(super) fn spans<'s, 'o>(
    snapshots: &'o [&'s SnapshotInfo],
) -> impl Iterator<Item = &'o [&'s SnapshotInfo]> {
    let ends = |one: &SnapshotInfo| {
        one.id.as_bytes().first().is_some_and(|byte| byte.is_multiple_of(SNAPSHOTS_AVG))
    };
    snapshots.split_inclusive(move |one| ends(one)).flat_map(|span| span.chunks(SNAPSHOTS_MAX))
}

/// What the reach of a span is remembered as.
pub(super) fn key_of(namespace: WriterId, span: &[&SnapshotInfo]) -> SpanKey {
    SpanKey::new(namespace, span.iter().map(|snapshot| &snapshot.id))
}

/// Whether the same is reached, beyond what `before` reaches.
pub(super) fn is_same(one: &Reached, other: &Reached, before: &[&Reached]) -> bool {
    let within = |inner: &Reached, outer: &Reached| {
        let inner = inner.kinds().into_iter().enumerate();
        inner.into_iter().all(|(kind, inner)| {
            let outers = before.iter().copied().chain([outer]);
            let outers = outers.filter_map(|outer| outer.kinds().get(kind).copied());
            inner.is_within(&outers.collect::<Vec<_>>())
        })
    };
    within(one, other) && within(other, one)
}
