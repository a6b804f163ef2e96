//! What changed between two snapshots. Directories with the same node are the same and are not read.

use std::cmp::Ordering;

use cairn_format::ids::ChunkId;
use cairn_format::limits::PATH_DEPTH_MAX;
use cairn_format::tree::{Entry, Extents, Node};

use super::snapshots::SnapshotInfo;
use crate::error::Error;
use crate::repo::Repository;
use crate::tree::reader::{self, NodeSource};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only in the second.
    Added {
        /// Absolute path.
        path: Vec<u8>,
        /// The entry.
        entry: Box<Entry>,
    },
    /// Only in the first.
    Removed {
        /// Absolute path.
        path: Vec<u8>,
        /// The entry.
        entry: Box<Entry>,
    },
    /// In both, not alike.
    Changed {
        /// Absolute path.
        path: Vec<u8>,
        /// In the first.
        before: Box<Entry>,
        /// In the second.
        after: Box<Entry>,
        /// Another kind of entry.
        kind: bool,
        /// Other bytes, another link target or device.
        content: bool,
        /// Another owner, mode, time, or attributes.
        metadata: bool,
    },
}

/// Totals of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiffSummary {
    /// Entries only in the second.
    pub added: u64,
    /// Entries only in the first.
    pub removed: u64,
    /// Entries whose content or kind differs.
    pub changed: u64,
    /// Entries of which only the metadata differs.
    pub metadata: u64,
    /// Bytes in added files.
    pub bytes_added: u64,
    /// Bytes in removed files.
    pub bytes_removed: u64,
}

/// Receives the differences.
pub type EachDifference<'a> = &'a mut dyn FnMut(&Difference) -> Result<(), Error>;

/// Compares two snapshots below `path` (`None` for everything) and shows what differs, in the order of paths.
///
/// # Errors
/// [`Error::NoPath`] when neither has the path; damage; whatever `each` fails with.
pub fn run(
    repository: &Repository,
    first: &SnapshotInfo,
    second: &SnapshotInfo,
    path: Option<&[u8]>,
    each: EachDifference<'_>,
) -> Result<DiffSummary, Error> {
    let (before, after) = (repository.nodes(first)?, repository.nodes(second)?);
    let mut comparison =
        Comparison { before: &before, after: &after, each, summary: DiffSummary::default() };
    let mut here = Vec::new();
    for name in path.into_iter().flat_map(reader::components) {
        here.push(b'/');
        here.extend_from_slice(name);
    }
    if here.is_empty() {
        comparison.directories(Some(first.record.root), Some(second.record.root), &mut here, 0)?;
    } else {
        let one = reader::lookup_path(&before, &first.record.root, &here)?;
        let two = reader::lookup_path(&after, &second.record.root, &here)?;
        if one.is_none() && two.is_none() {
            let path = String::from_utf8_lossy(&here).into_owned();
            return Err(Error::NoPath { snapshot: second.id, path });
        }
        comparison.entries(one, two, &mut here, 0)?;
    }
    Ok(comparison.summary)
}

struct Comparison<'a> {
    before: &'a dyn NodeSource,
    after: &'a dyn NodeSource,
    each: EachDifference<'a>,
    summary: DiffSummary,
}

impl Comparison<'_> {
    fn directories(
        &mut self,
        before: Option<ChunkId>,
        after: Option<ChunkId>,
        path: &mut Vec<u8>,
        depth: u32,
    ) -> Result<(), Error> {
        if before == after {
            return Ok(());
        }
        if depth > PATH_DEPTH_MAX {
            let path = String::from_utf8_lossy(path).into_owned();
            return Err(Error::Usage {
                message: format!("{path} is nested too deeply"),
                hint: None,
            });
        }
        let mut first = load(self.before, before)?.into_iter().peekable();
        let mut second = load(self.after, after)?.into_iter().peekable();
        loop {
            let order = match (first.peek(), second.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(one), Some(two)) => one.name.cmp(&two.name),
            };
            let one = if order == Ordering::Greater { None } else { first.next() };
            let two = if order == Ordering::Less { None } else { second.next() };
            let here = path.len();
            path.push(b'/');
            if let Some(entry) = one.as_ref().or(two.as_ref()) {
                path.extend_from_slice(&entry.name);
            }
            self.entries(one, two, path, depth)?;
            path.truncate(here);
        }
    }

    fn entries(
        &mut self,
        one: Option<Entry>,
        two: Option<Entry>,
        path: &mut Vec<u8>,
        depth: u32,
    ) -> Result<(), Error> {
        let below = |entry: &Option<Entry>| match entry {
            Some(Entry { node: Node::Directory(node), .. }) => Some(*node),
            _ => None,
        };
        let (below_one, below_two) = (below(&one), below(&two));
        let difference = match (one, two) {
            (Some(entry), None) => {
                self.summary.removed += 1;
                self.summary.bytes_removed += file_bytes(&entry);
                Some(Difference::Removed { path: path.clone(), entry: Box::new(entry) })
            }
            (None, Some(entry)) => {
                self.summary.added += 1;
                self.summary.bytes_added += file_bytes(&entry);
                Some(Difference::Added { path: path.clone(), entry: Box::new(entry) })
            }
            (Some(before), Some(after)) => self.compare(before, after, path),
            (None, None) => None,
        };
        if let Some(difference) = difference {
            (self.each)(&difference)?;
        }
        self.directories(below_one, below_two, path, depth + 1)
    }

    fn compare(&mut self, before: Entry, after: Entry, path: &[u8]) -> Option<Difference> {
        let kind = std::mem::discriminant(&before.node) != std::mem::discriminant(&after.node);
        let content = match (&before.node, &after.node) {
            (Node::Directory(_), Node::Directory(_)) => false,
            (Node::File(one), Node::File(two)) => {
                one.bytes != two.bytes || !same_extents(&one.extents, &two.extents)
            }
            (one, two) => one != two,
        };
        let metadata = before.meta != after.meta;
        if !(kind || content || metadata) {
            return None;
        }
        if kind || content {
            self.summary.changed += 1;
        } else {
            self.summary.metadata += 1;
        }
        let (before, after) = (Box::new(before), Box::new(after));
        Some(Difference::Changed { path: path.to_vec(), before, after, kind, content, metadata })
    }
}

/// Lists of equal content are equal as long as cuts are the same, which they are in one repository.
fn same_extents(one: &Extents, two: &Extents) -> bool {
    one == two
}

fn file_bytes(entry: &Entry) -> u64 {
    match &entry.node {
        Node::File(content) => content.bytes,
        _ => 0,
    }
}

fn load(nodes: &dyn NodeSource, root: Option<ChunkId>) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    if let Some(root) = root {
        let mut each = |entry| {
            entries.push(entry);
            Ok(())
        };
        reader::directory(nodes, &root, &mut each, &mut Err)?;
    }
    Ok(entries)
}
