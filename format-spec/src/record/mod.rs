//! The records inside sealed bodies: config, snapshot, ack, lease and tomb
//! (SPEC section 8).

mod config;
mod snapshot;
mod upkeep;

pub use config::{ALIGNED_BYTES_MIN, ChunkerSettings, Config, Domain, DomainOrigin, Parity};
pub use snapshot::{Remade, Snapshot, SourceKind, SourceRecord, Statistics};
pub use upkeep::{Ack, Lease, Tomb, TombReason};

use crate::codec::Reader;
use crate::error::FormatError;

/// A required field that was not met.
pub(crate) fn required<T>(value: Option<T>, what: &'static str) -> Result<T, FormatError> {
    value.ok_or(FormatError::Missing { what })
}

/// A `list`, whose count is bounded by the bytes that follow.
pub(crate) fn list<T>(
    reader: &mut Reader<'_>,
    what: &'static str,
    item_bytes_min: usize,
    mut item: impl FnMut(&mut Reader<'_>) -> Result<T, FormatError>,
) -> Result<Vec<T>, FormatError> {
    let count = reader.count(what, item_bytes_min)?;
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        items.push(item(reader)?);
    }
    Ok(items)
}
