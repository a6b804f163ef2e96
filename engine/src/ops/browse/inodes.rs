//! Which entries are known, by number. Numbers follow from where an entry stands, so that it has the
//! same one after it was forgotten, and names of one file have one.

use std::collections::HashMap;
use std::sync::Arc;

use cairn_format::ids::ChunkId;
use cairn_format::tree::{Entry, Node};
use parking_lot::Mutex;

use super::shelf::Shown;
use super::{ROOT, ViewError};

/// Tells names of files from each other, and from groups of names of one file.
const NAME: u8 = 1;
const LINK_GROUP: u8 = 2;
const SNAPSHOT: u8 = 3;
const TOP: u8 = 4;

/// Numbers up to this one are given to no entry but the first directory.
const NUMBERS_RESERVED: u64 = 16;

/// Room for so many entries is never given back.
const CAPACITY_KEPT: usize = 1 << 12;

/// Identifies an entry: its number, and what tells it from another that has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) number: u64,
    check: u64,
}

impl Key {
    pub(super) const ROOT: Self = Self { number: ROOT, check: 0 };

    fn of(&self, what: u8, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[what]).update(&self.number.to_le_bytes()).update(&self.check.to_le_bytes());
        for part in parts {
            hasher.update(part);
        }
        let (mut number, mut check) = ([0; 8], [0; 8]);
        let mut output = hasher.finalize_xof();
        output.fill(&mut number);
        output.fill(&mut check);
        // Programs that take it for a signed number are spared negative ones.
        let number = u64::from_le_bytes(number) >> 1;
        Self { number: number.max(NUMBERS_RESERVED), check: u64::from_le_bytes(check) }
    }

    /// Of something at the top.
    pub(super) fn top(&self, name: &[u8]) -> Self {
        self.of(TOP, &[name])
    }

    /// Of a snapshot.
    pub(super) fn snapshot(id: &[u8]) -> Self {
        Self::ROOT.of(SNAPSHOT, &[id])
    }
}

/// A directory in a snapshot.
pub(super) struct Folder {
    pub(super) key: Key,
    /// The snapshot it stands in.
    pub(super) shown: Arc<Shown>,
    pub(super) above: Option<Arc<Folder>>,
    pub(super) name: Box<[u8]>,
    pub(super) node: ChunkId,
    pub(super) depth: u32,
}

impl Folder {
    /// The first directory of a snapshot.
    pub(super) fn first(shown: &Arc<Shown>) -> Self {
        Self {
            key: shown.key,
            shown: Arc::clone(shown),
            above: None,
            name: shown.name.as_bytes().into(),
            node: shown.info.record.root,
            depth: 0,
        }
    }

    /// A directory in another.
    pub(super) fn below(above: &Arc<Self>, key: Key, name: &[u8], node: ChunkId) -> Self {
        Self {
            key,
            shown: Arc::clone(&above.shown),
            above: Some(Arc::clone(above)),
            name: name.into(),
            node,
            depth: above.depth + 1,
        }
    }

    /// The key of an entry in it: names of one file have one key in the whole snapshot.
    pub(super) fn child(&self, entry: &Entry) -> Key {
        match (&entry.node, entry.meta.link) {
            (Node::Directory(_), _) | (_, None) => self.key.of(NAME, &[&entry.name]),
            (_, Some(group)) => self
                .shown
                .key
                .of(LINK_GROUP, &[&group.device.to_le_bytes(), &group.inode.to_le_bytes()]),
        }
    }

    /// Where it is, below the first directory of the view.
    pub(super) fn path(&self) -> Vec<u8> {
        let mut names = vec![&self.name];
        let mut above = &self.above;
        while let Some(folder) = above {
            names.push(&folder.name);
            above = &folder.above;
        }
        let mut path = b"snapshots".to_vec();
        for name in names.into_iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path
    }
}

/// Where an entry stands.
#[derive(Clone)]
pub(super) enum Place {
    /// The first directory.
    Root,
    /// The directory of snapshots.
    Snapshots(Key),
    /// The directory of jobs.
    Jobs(Key),
    /// A job.
    Job(Key, Arc<str>),
    /// A link to a snapshot.
    Link { key: Key },
    /// In a snapshot; the first directory of one has none above.
    Tree { key: Key, above: Option<Arc<Folder>>, name: Box<[u8]>, folder: Option<Arc<Folder>> },
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Place").field(&self.key()).finish()
    }
}

impl Place {
    pub(super) fn key(&self) -> Key {
        match self {
            Self::Root => Key::ROOT,
            Self::Snapshots(key)
            | Self::Jobs(key)
            | Self::Job(key, _)
            | Self::Link { key }
            | Self::Tree { key, .. } => *key,
        }
    }

    /// Whether it has no entry in a snapshot.
    pub(super) fn is_top(&self) -> bool {
        match self {
            Self::Root | Self::Snapshots(_) | Self::Jobs(_) | Self::Job(..) | Self::Link { .. } => {
                true
            }
            Self::Tree { above, .. } => above.is_none(),
        }
    }
}

struct Known {
    place: Place,
    lookups: u64,
}

/// The entries that are known.
pub(super) struct Inodes(Mutex<HashMap<u64, Known>>);

impl Inodes {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// Where the entry of this number stands.
    pub(super) fn place(&self, number: u64) -> Result<Place, ViewError> {
        if number == ROOT {
            return Ok(Place::Root);
        }
        let known = self.0.lock();
        known.get(&number).map(|known| known.place.clone()).ok_or(ViewError::Absent)
    }

    /// Makes an entry known, or known once more; returns its number. That is another one than usual
    /// where one that is known has the usual one by chance.
    pub(super) fn add(&self, place: Place) -> u64 {
        let key = place.key();
        let mut known = self.0.lock();
        let mut number = key.number;
        while let Some(there) = known.get_mut(&number) {
            if there.place.key() == key {
                there.lookups = there.lookups.saturating_add(1);
                return number;
            }
            number = number.wrapping_add(1).max(NUMBERS_RESERVED);
        }
        known.insert(number, Known { place, lookups: 1 });
        number
    }

    pub(super) fn forget(&self, number: u64, lookups: u64) {
        let mut known = self.0.lock();
        let Some(there) = known.get_mut(&number) else { return };
        there.lookups = there.lookups.saturating_sub(lookups);
        if there.lookups == 0 {
            known.remove(&number);
            // What was needed once is given back.
            if known.capacity() > CAPACITY_KEPT && known.len() < known.capacity() / 4 {
                known.shrink_to_fit();
            }
        }
    }

    /// How many are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(number: u64, check: u64) -> Place {
        Place::Link { key: Key { number, check } }
    }

    #[test]
    fn an_entry_is_known_until_it_is_forgotten_as_often_as_it_was_looked_up() {
        let inodes = Inodes::new();
        assert_eq!((inodes.add(link(100, 1)), inodes.add(link(100, 1))), (100, 100));
        // Another that has the same number by chance gets one of its own.
        let other = inodes.add(link(100, 2));
        assert_eq!((other, inodes.len()), (101, 2));
        inodes.forget(100, 1);
        assert!(matches!(inodes.place(100), Ok(place) if place.key().check == 1));
        inodes.forget(100, 1);
        assert!(matches!(inodes.place(100), Err(ViewError::Absent)));
        assert!(matches!(inodes.place(other), Ok(place) if place.key().check == 2));
        inodes.forget(other, u64::MAX);
        inodes.forget(other, 1);
        assert_eq!(inodes.len(), 0);
        assert!(matches!(inodes.place(ROOT), Ok(Place::Root)));
        assert_eq!(inodes.add(link(u64::MAX, 1)), u64::MAX);
        assert_eq!(inodes.add(link(u64::MAX, 2)), NUMBERS_RESERVED);
    }
}
