//! Finds entries by name in many snapshots.

use std::collections::HashMap;

use cairn_format::ids::{ChunkId, WriterId};
use cairn_format::tree::{Entry, Node};
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::snapshots::{self, SnapshotInfo};
use crate::error::Error;
use crate::repo::Repository;
use crate::tree::reader::{self, Visit, Visitor};

/// What to look for, and where.
#[derive(Clone, Debug, Default)]
pub struct FindOptions {
    /// Patterns in gitignore syntax: one without `/` fits a name anywhere, one with `/` a whole path.
    pub patterns: Vec<String>,
    /// Only snapshots of this job.
    pub job: Option<String>,
    /// Only this snapshot.
    pub snapshot: Option<String>,
}

/// Receives what was found.
pub type Found<'a> = &'a mut FoundFn<'a>;

/// A function that receives what was found.
pub type FoundFn<'a> = dyn FnMut(&SnapshotInfo, &[u8], &Entry) -> Result<(), Error> + 'a;

/// Shows every entry that fits a pattern, snapshot by snapshot, oldest first.
///
/// A directory that is the same in several snapshots and holds nothing that fits is read once.
///
/// # Errors
/// [`Error::Usage`] for a malformed pattern; damage; whatever `each` fails with.
pub fn run(repository: &Repository, options: &FindOptions, each: Found<'_>) -> Result<(), Error> {
    let matcher = compile(&options.patterns)?;
    let mut chosen = match &options.snapshot {
        Some(selector) => vec![snapshots::select(repository, selector)?],
        None => snapshots::list(repository)?,
    };
    chosen.retain(|s| options.job.as_ref().is_none_or(|job| s.record.job == *job));
    let mut empty = HashMap::new();
    for snapshot in &chosen {
        let nodes = repository.nodes(snapshot)?;
        let mut finder = Finder {
            matcher: &matcher,
            snapshot,
            each: &mut *each,
            empty: &mut empty,
            below: vec![0],
        };
        reader::walk(&nodes, &snapshot.record.root, &mut Vec::new(), &mut finder)?;
    }
    Ok(())
}

fn compile(patterns: &[String]) -> Result<Gitignore, Error> {
    let usage = |error: ignore::Error| Error::Usage {
        message: format!("a pattern is malformed: {error}"),
        hint: Some("patterns have gitignore syntax, e.g. '*.sql' or '/srv/**/orders'".into()),
    };
    if patterns.is_empty() {
        return Err(Error::Usage { message: "no pattern was given".into(), hint: None });
    }
    let mut builder = GitignoreBuilder::new("/");
    for pattern in patterns {
        builder.add_line(None, pattern).map_err(usage)?;
    }
    builder.build().map_err(usage)
}

/// Directories (by path, since patterns may name one) known to hold nothing that fits.
type Empty = HashMap<(WriterId, ChunkId, Vec<u8>), ()>;

/// Most directories remembered as holding nothing.
const EMPTY_REMEMBERED_MAX: usize = 100_000;

struct Finder<'a, 'f> {
    matcher: &'a Gitignore,
    snapshot: &'a SnapshotInfo,
    each: &'a mut FoundFn<'f>,
    empty: &'a mut Empty,
    /// Number of finds in each directory on the way down.
    below: Vec<u64>,
}

impl Visitor for Finder<'_, '_> {
    fn entry(&mut self, path: &[u8], entry: &Entry) -> Result<Visit, Error> {
        let directory = match &entry.node {
            Node::Directory(node) => Some(*node),
            _ => None,
        };
        let fits = {
            use std::os::unix::ffi::OsStrExt as _;
            let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path));
            self.matcher.matched(path, directory.is_some()).is_ignore()
        };
        if fits {
            if let Some(count) = self.below.last_mut() {
                *count += 1;
            }
            (self.each)(self.snapshot, path, entry)?;
        }
        if let Some(node) = directory {
            let key = (self.snapshot.namespace, node, path.to_vec());
            if self.empty.contains_key(&key) {
                return Ok(Visit::Skip);
            }
            self.below.push(0);
        }
        Ok(Visit::Descend)
    }

    fn leave(&mut self, path: &[u8], entry: &Entry) -> Result<(), Error> {
        let found = self.below.pop().unwrap_or_default();
        if let Some(count) = self.below.last_mut() {
            *count += found;
        }
        if let Node::Directory(node) = &entry.node
            && found == 0
            && self.empty.len() < EMPTY_REMEMBERED_MAX
        {
            self.empty.insert((self.snapshot.namespace, *node, path.to_vec()), ());
        }
        Ok(())
    }
}
