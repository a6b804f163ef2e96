//! How many names a file has in its snapshot. A tree does not say, so the snapshot is walked through
//! when it is first asked; a very large one is not.

use std::collections::HashMap;
use std::sync::Arc;

use cairn_format::ids::SnapshotId;
use cairn_format::tree::{Entry, LinkGroup, Node};
use parking_lot::Mutex;

use crate::error::Error;
use crate::ops::snapshots::SnapshotInfo;
use crate::tree::reader::{self, NodeSource, Visit, Visitor};

/// Entries of a snapshot that are looked at, in a store nearby and in one behind a network.
const ENTRIES_NEAR_MAX: u64 = 1_000_000;
const ENTRIES_FAR_MAX: u64 = 50_000;
/// Files with several names that are counted in a snapshot.
const GROUPS_MAX: usize = 1 << 18;
/// Snapshots of which the counts are kept.
const SNAPSHOTS_MAX: usize = 2;
/// What is said where it is not counted: several.
const SEVERAL: u32 = 2;

type Counts = Arc<HashMap<LinkGroup, u32>>;

/// Numbers of names.
#[derive(Default)]
pub(super) struct Links(Mutex<Vec<(SnapshotId, Counts)>>);

impl Links {
    /// The number of names of a file that has several at its source; at least 1.
    pub(super) fn count(
        &self,
        nodes: &dyn NodeSource,
        near: bool,
        snapshot: &SnapshotInfo,
        group: LinkGroup,
    ) -> u32 {
        // Held meanwhile: nobody else is to walk through the same.
        let mut kept = self.0.lock();
        let known = kept.iter().find(|(id, _)| *id == snapshot.id).map(|(_, counts)| counts);
        let counts = match known {
            Some(counts) => Arc::clone(counts),
            None => {
                let entries_max = if near { ENTRIES_NEAR_MAX } else { ENTRIES_FAR_MAX };
                // Another time, perhaps: it is no more than a number that is missing.
                let Ok(counts) = count_all(nodes, snapshot, entries_max) else { return SEVERAL };
                let counts = Arc::new(counts);
                if kept.len() >= SNAPSHOTS_MAX {
                    kept.remove(0);
                }
                kept.push((snapshot.id, Arc::clone(&counts)));
                counts
            }
        };
        counts.get(&group).copied().unwrap_or(SEVERAL)
    }
}

/// The names of each file with several; none if there is too much to be looked at.
fn count_all(
    nodes: &dyn NodeSource,
    snapshot: &SnapshotInfo,
    entries_max: u64,
) -> Result<HashMap<LinkGroup, u32>, Error> {
    let said = &snapshot.record.statistics;
    let said = said.files.saturating_add(said.directories).saturating_add(said.others);
    let mut counter = Counter { counts: HashMap::new(), left: entries_max, too_many: false };
    if said <= entries_max {
        let root = &snapshot.record.root;
        let walked = reader::walk(nodes, root, &mut Vec::new(), &mut counter);
        if !counter.too_many {
            return walked.map(|()| counter.counts);
        }
    }
    Ok(HashMap::new())
}

struct Counter {
    counts: HashMap<LinkGroup, u32>,
    left: u64,
    too_many: bool,
}

impl Counter {
    fn give_up(&mut self) -> Result<Visit, Error> {
        self.too_many = true;
        Err(Error::Cancelled)
    }
}

impl Visitor for Counter {
    fn entry(&mut self, _: &[u8], entry: &Entry) -> Result<Visit, Error> {
        // What was said of their number may be wrong.
        if self.left == 0 {
            return self.give_up();
        }
        self.left -= 1;
        if let (Some(group), false) = (entry.meta.link, matches!(entry.node, Node::Directory(_))) {
            let count = self.counts.entry(group).or_default();
            *count = count.saturating_add(1);
            if self.counts.len() > GROUPS_MAX {
                return self.give_up();
            }
        }
        Ok(Visit::Descend)
    }

    /// Whoever reads it is told what is damaged.
    fn damaged(&mut self, _: &[u8], _: Error) -> Result<(), Error> {
        Ok(())
    }
}
