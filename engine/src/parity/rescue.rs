//! A damaged pack out of its own parity.

use bytes::Bytes;
use cairn_format::ids::PackId;
use cairn_format::limits::PACK_BYTES_MAX;
use cairn_format::names::{ObjectName, PackKind};

use cairn_format::parity::ParityLayout;

use super::{Damage, layouts, restore};
use crate::error::Error;
use crate::repo::vault::read_object;
use crate::store::{Store, StoreError};

/// A pack that cannot be read as a whole is read in pieces of the first length, those that cannot be
/// read in pieces of the next, down to sectors, bytes.
const PIECES_BYTES: [u64; 3] = [64 << 10, 4 << 10, 512];
/// Reads of one pack that may fail before the rest of it is given up: a disk may try each for seconds.
const FAILED_READS_MAX: u32 = 4096;

/// What can be had of a pack.
#[derive(Clone, Debug)]
pub enum Rescue {
    /// All of it, as it is stored: nothing is damaged.
    Sound(Bytes),
    /// All of it, out of its parity: these bytes are those its name stands for.
    Healed(Bytes, Damage),
    /// It has parity, and more is damaged than that gives back.
    Lost(Damage),
    /// It has no parity, or nothing is left that says where; or it is not there.
    None,
}

/// The shards that are missing where only so many bytes are left.
fn missing(layout: &ParityLayout, bytes: u64) -> Damage {
    let data = (0..layout.data).filter(|shard| layout.data_shard(*shard).end > bytes).count();
    let recovery =
        (0..layout.recovery).filter(|shard| layout.recovery_shard(*shard).end > bytes).count();
    Damage {
        data: data as u32,
        recovery: recovery as u32,
        records: 0,
        shards: layout.shards(),
        spare: u32::from(layout.recovery),
    }
}

/// As much of an object as its medium gives, in place; what it does not give is zero. `None` when not
/// even its length can be had, or that is more than a pack may have.
fn around_unreadable(store: &dyn Store, name: &ObjectName) -> Result<Option<Vec<u8>>, StoreError> {
    let total = match store.size(name) {
        Ok(total) if total <= u64::from(PACK_BYTES_MAX) => total,
        Ok(_) | Err(StoreError::Unreadable { .. } | StoreError::NotFound { .. }) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; usize::try_from(total).unwrap_or_default()];
    let mut failed = 0;
    let mut read = |from: u64, to: u64| {
        if failed >= FAILED_READS_MAX {
            return Ok(true);
        }
        match store.get_range(name, from, to - from) {
            Ok(part) => {
                if let Some(place) = bytes.get_mut(from as usize..to as usize) {
                    place.copy_from_slice(&part);
                }
                Ok(true)
            }
            Err(StoreError::Unreadable { .. } | StoreError::Short { .. }) => {
                failed += 1;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    };
    let mut left = vec![(0, total)];
    for piece_bytes in PIECES_BYTES {
        let mut failing = Vec::new();
        for (from, to) in left {
            for from in (from..to).step_by(piece_bytes as usize) {
                let to = to.min(from + piece_bytes);
                if !read(from, to)? {
                    failing.push((from, to));
                }
            }
        }
        left = failing;
    }
    Ok(Some(bytes))
}

/// Reads a whole pack, and makes good what is damaged of it. Holds about its length in memory.
///
/// # Errors
/// Failures of the store that are not damage.
pub fn rescue(store: &dyn Store, kind: PackKind, id: PackId) -> Result<Rescue, Error> {
    let stored = match store.get(&ObjectName::Pack(kind, id), u64::from(PACK_BYTES_MAX)) {
        Ok(stored) => stored,
        Err(StoreError::NotFound { .. } | StoreError::TooLarge { .. }) => return Ok(Rescue::None),
        Err(StoreError::Short { .. }) => return Ok(Rescue::None),
        Err(StoreError::Unreadable { .. }) => {
            match around_unreadable(store, &ObjectName::Pack(kind, id))? {
                Some(stored) => stored.into(),
                None => return Ok(Rescue::None),
            }
        }
        Err(error) => return Err(error.into()),
    };
    let is_named = |bytes: &[u8]| blake3::hash(bytes).as_bytes() == id.as_bytes();
    if is_named(&stored) {
        return Ok(Rescue::Sound(stored));
    }
    let mut lost = None;
    let found = layouts(&stored);
    let last = found.len().saturating_sub(1);
    let mut stored = Vec::from(stored);
    for (nth, layout) in found.iter().enumerate() {
        let cut = missing(layout, stored.len() as u64);
        if !cut.can_be_made_good() {
            // Also so that a few bytes cannot ask for much memory.
            lost = lost.or(Some(cut));
            continue;
        }
        // The usual case takes no copy.
        let mut object = if nth == last { std::mem::take(&mut stored) } else { stored.clone() };
        object.resize(layout.object_bytes() as usize, 0);
        let damage = restore(&mut object, layout)?;
        if is_named(&object) {
            return Ok(Rescue::Healed(object.into(), damage));
        }
        lost = lost.or(Some(damage).filter(|damage| !damage.can_be_made_good()));
    }
    Ok(lost.map_or(Rescue::None, Rescue::Lost))
}

/// Reads a whole pack whose bytes are those its name stands for; says what is damaged of it where they
/// are only to be had out of its parity.
///
/// # Errors
/// [`Error::Hash`] when it is damaged and parity does not give it; failures of the store.
pub fn read_pack(
    store: &dyn Store,
    kind: PackKind,
    id: PackId,
) -> Result<(Bytes, Option<Damage>), Error> {
    match read_object(store, &ObjectName::Pack(kind, id), PACK_BYTES_MAX) {
        Err(error) if error.is_damage() => match rescue(store, kind, id)? {
            Rescue::Sound(bytes) => Ok((bytes, None)),
            Rescue::Healed(bytes, damage) => Ok((bytes, Some(damage))),
            Rescue::Lost(_) | Rescue::None => Err(error),
        },
        read => read.map(|bytes| (bytes, None)),
    }
}
