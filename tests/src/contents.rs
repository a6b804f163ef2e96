//! What snapshots hold, read without restoring anything to disk.

use std::collections::BTreeMap;

use cairn_engine::error::Error;
use cairn_engine::ops::snapshots::SnapshotInfo;
use cairn_engine::repo::Repository;
use cairn_engine::tree::reader::{self, Visit, Visitor};
use cairn_format::tree::{Content, Entry, Extent, Node};

/// Contents of files by their names, without folders.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The files of a snapshot. Holes are left out.
///
/// # Errors
/// What cannot be read, and why.
pub fn contents(repository: &Repository, snapshot: &SnapshotInfo) -> Result<Files, String> {
    let nodes = repository.nodes(snapshot).map_err(|error| error.to_string())?;
    let mut files = Found { found: BTreeMap::new() };
    reader::walk(&nodes, &snapshot.record.root, &mut Vec::new(), &mut files)
        .map_err(|error| error.to_string())?;
    let mut contents = BTreeMap::new();
    for (name, content) in files.found {
        let mut ids = Vec::new();
        reader::extents(&nodes, &content, &mut |_, extent| {
            if let Extent::Chunk { id, .. } = extent {
                ids.push(id);
            }
            Ok(())
        })
        .map_err(|error| error.to_string())?;
        let chunks = repository.data_chunks(snapshot, &ids).map_err(|error| error.to_string())?;
        contents.insert(name, chunks.concat());
    }
    Ok(contents)
}

struct Found {
    found: BTreeMap<String, Content>,
}

impl Visitor for Found {
    fn entry(&mut self, _: &[u8], entry: &Entry) -> Result<Visit, Error> {
        if let Node::File(content) = &entry.node {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            self.found.insert(name, content.clone());
        }
        Ok(Visit::Descend)
    }
}
