//! Damages objects, as disks, networks and people do.

use bytes::Bytes;
use cairn_engine::store::Store as _;
use cairn_engine::store::memory::MemoryStore;
use cairn_format::names::ObjectName;

use crate::lab::object;
use crate::seed::{Seed, noise};

/// What happens to one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It ends early: so many bytes are left.
    Truncate(usize),
    /// One bit differs, somewhere in `from..to`.
    Flip {
        /// First byte.
        from: usize,
        /// Behind the last byte.
        to: usize,
    },
    /// It is not there.
    Delete,
    /// Something else of the same length is there.
    Garbage,
    /// It is followed by bytes that do not belong to it.
    Append,
}

impl Damage {
    /// Does it.
    ///
    /// # Panics
    /// When the object is not there.
    pub fn apply(self, store: &MemoryStore, name: &ObjectName, seed: &mut Seed) {
        let mut data = Vec::from(object(store, name));
        match self {
            Self::Truncate(bytes) => data.truncate(bytes),
            Self::Flip { from, to } => {
                let at = from + seed.below((to - from) as u64) as usize;
                let byte = data.get_mut(at).expect("the object is that long");
                *byte ^= 1 << seed.below(8);
            }
            Self::Delete => {
                return store.delete(name).expect("memory deletes");
            }
            Self::Garbage => data = noise(data.len(), seed.next()),
            Self::Append => data.extend_from_slice(b"more"),
        }
        store.overwrite(*name, Bytes::from(data));
    }
}

/// Exchanges the bytes of two objects.
///
/// # Panics
/// When one is not there.
pub fn swap(store: &MemoryStore, one: &ObjectName, other: &ObjectName) {
    let (first, second) = (object(store, one), object(store, other));
    store.overwrite(*one, second);
    store.overwrite(*other, first);
}
