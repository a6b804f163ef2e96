//! What changed between two snapshots. Directories with the same node are the same and are not read.

use std::cmp::Ordering;
use std::iter::{Flatten, Peekable};
use std::option;

use cairn_format::ids::ChunkId;
use cairn_format::limits::PATH_DEPTH_MAX;
use cairn_format::tree::{Entry, Extents, Node};

use super::snapshots::SnapshotInfo;
use crate::error::Error;
use crate::repo::Repository;
use crate::tree::reader::{self, Listing, NodeSource};

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
        comparison.directories(Some(first.record.root), Some(second.record.root), &mut here)?;
    } else {
        let one = reader::lookup_path(&before, &first.record.root, &here)?;
        let two = reader::lookup_path(&after, &second.record.root, &here)?;
        if one.is_none() && two.is_none() {
            let path = String::from_utf8_lossy(&here).into_owned();
            return Err(Error::NoPath { snapshot: second.id, path });
        }
        let (one, two) = comparison.entries(one, two, &here)?;
        comparison.directories(one, two, &mut here)?;
    }
    Ok(comparison.summary)
}

/// Two directories that are being compared.
struct Level<'a> {
    first: Entries<'a>,
    second: Entries<'a>,
    path_bytes: usize,
}

/// The entries of a directory that may not be there.
type Entries<'a> = Peekable<Flatten<option::IntoIter<Listing<'a>>>>;

/// What one name is in the first and in the second.
type Pair = (Option<Entry>, Option<Entry>);

impl Level<'_> {
    /// The next name with what it is in each; `None` at the end of both.
    fn next_pair(&mut self) -> Result<Option<Pair>, Error> {
        let order = match (self.first.peek(), self.second.peek()) {
            (None, None) => return Ok(None),
            (Some(Ok(one)), Some(Ok(two))) => one.name.cmp(&two.name),
            // An error is taken first, and ends the comparison.
            (Some(_), None) | (Some(Err(_)), _) => Ordering::Less,
            (None, Some(_)) | (_, Some(Err(_))) => Ordering::Greater,
        };
        let one = if order == Ordering::Greater { None } else { self.first.next() };
        let two = if order == Ordering::Less { None } else { self.second.next() };
        Ok(Some((one.transpose()?, two.transpose()?)))
    }
}

struct Comparison<'a> {
    before: &'a dyn NodeSource,
    after: &'a dyn NodeSource,
    each: EachDifference<'a>,
    summary: DiffSummary,
}

impl<'a> Comparison<'a> {
    /// Compares two directories, of which one may not be there, and all below them.
    fn directories(
        &mut self,
        before: Option<ChunkId>,
        after: Option<ChunkId>,
        path: &mut Vec<u8>,
    ) -> Result<(), Error> {
        // An explicit stack: a hostile tree may be nested more deeply than a thread's stack bears.
        let mut levels = Vec::new();
        levels.extend(self.open(before, after, path));
        while let Some(level) = levels.last_mut() {
            path.truncate(level.path_bytes);
            let Some((one, two)) = level.next_pair()? else {
                levels.pop();
                continue;
            };
            path.push(b'/');
            if let Some(entry) = one.as_ref().or(two.as_ref()) {
                path.extend_from_slice(&entry.name);
            }
            let (before, after) = self.entries(one, two, path)?;
            if let Some(below) = self.open(before, after, path) {
                if levels.len() > PATH_DEPTH_MAX as usize {
                    let path = String::from_utf8_lossy(path).into_owned();
                    let message = format!("{path} is nested too deeply");
                    return Err(Error::Usage { message, hint: None });
                }
                levels.push(below);
            }
        }
        Ok(())
    }

    /// Two directories to be compared; `None` when they are the same.
    fn open(
        &self,
        before: Option<ChunkId>,
        after: Option<ChunkId>,
        path: &[u8],
    ) -> Option<Level<'a>> {
        let list = |nodes, root: Option<ChunkId>| root.map(|root| Listing::new(nodes, root));
        (before != after).then(|| Level {
            first: list(self.before, before).into_iter().flatten().peekable(),
            second: list(self.after, after).into_iter().flatten().peekable(),
            path_bytes: path.len(),
        })
    }

    /// Compares two entries, of which one may not be there; returns the directories they are.
    fn entries(
        &mut self,
        one: Option<Entry>,
        two: Option<Entry>,
        path: &[u8],
    ) -> Result<(Option<ChunkId>, Option<ChunkId>), Error> {
        let below = |entry: &Option<Entry>| match entry {
            Some(Entry { node: Node::Directory(node), .. }) => Some(*node),
            _ => None,
        };
        let directories = (below(&one), below(&two));
        let difference = match (one, two) {
            (Some(entry), None) => {
                self.summary.removed += 1;
                self.summary.bytes_removed += file_bytes(&entry);
                Some(Difference::Removed { path: path.to_vec(), entry: Box::new(entry) })
            }
            (None, Some(entry)) => {
                self.summary.added += 1;
                self.summary.bytes_added += file_bytes(&entry);
                Some(Difference::Added { path: path.to_vec(), entry: Box::new(entry) })
            }
            (Some(before), Some(after)) => self.compare(before, after, path),
            (None, None) => None,
        };
        if let Some(difference) = difference {
            (self.each)(&difference)?;
        }
        Ok(directories)
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
