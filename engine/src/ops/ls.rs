//! Lists the entries of a snapshot.

use cairn_format::tree::{Entry, Node};

use super::snapshots::SnapshotInfo;
use crate::error::Error;
use crate::repo::Repository;
use crate::tree::reader::{self, Visit, Visitor};

/// Receives entries with their absolute paths.
pub type EachEntry<'a> = &'a mut dyn FnMut(&[u8], &Entry) -> Result<(), Error>;

/// Shows the entries below `path` (`/` for everything) in order: those of the directory itself, or
/// with `recursive` all below it. A path that names something else than a directory shows that.
///
/// # Errors
/// [`Error::NoPath`]; damage; whatever `each` fails with.
pub fn run(
    repository: &Repository,
    snapshot: &SnapshotInfo,
    path: &[u8],
    recursive: bool,
    each: EachEntry<'_>,
) -> Result<(), Error> {
    let nodes = repository.nodes(snapshot)?;
    let mut clean = Vec::new();
    for name in reader::components(path) {
        clean.push(b'/');
        clean.extend_from_slice(name);
    }
    let root = if clean.is_empty() {
        snapshot.record.root
    } else {
        let entry = reader::lookup_path(&nodes, &snapshot.record.root, &clean)?;
        match entry {
            Some(Entry { node: Node::Directory(node), .. }) => node,
            Some(entry) => return each(&clean, &entry),
            None => {
                return Err(Error::NoPath {
                    snapshot: snapshot.id,
                    path: String::from_utf8_lossy(&clean).into_owned(),
                });
            }
        }
    };
    reader::walk(&nodes, &root, &mut clean, &mut Lister { recursive, each })
}

struct Lister<'a> {
    recursive: bool,
    each: EachEntry<'a>,
}

impl Visitor for Lister<'_> {
    fn entry(&mut self, path: &[u8], entry: &Entry) -> Result<Visit, Error> {
        (self.each)(path, entry)?;
        Ok(if self.recursive { Visit::Descend } else { Visit::Skip })
    }
}
