//! Walks the trees of snapshots: every node is readable, every chunk is known and sound. What
//! several snapshots share is read once.

use std::collections::HashMap;

use cairn_format::ids::{ChunkId, WriterId};
use cairn_format::limits::PATH_DEPTH_MAX;
use cairn_format::tree::{Content, Entry, Extent, Extents, Node};

use super::{Affected, Bad, Finding, VerifyReport};
use crate::error::{Error, Explain};
use crate::index::catalog::Catalog;
use crate::ops::snapshots::SnapshotInfo;
use crate::repo::chunks::ChunkReader;
use crate::tree::reader;

/// Paths listed in the report.
const AFFECTED_MAX: usize = 1_000;
/// Findings about tree nodes listed in the report.
const FINDINGS_MAX: usize = 1_000;
/// Chunks looked up at once.
const LOOKUP_CHUNKS: usize = 512;

/// Checks trees; remembers what it has seen.
pub struct TreeCheck<'a> {
    catalog: &'a Catalog,
    bad: Bad,
    /// Directories and lists of extents seen: whether all below them is sound.
    seen: HashMap<(WriterId, ChunkId), bool>,
}

struct Walk<'w, 'a> {
    check: &'w mut TreeCheck<'a>,
    nodes: &'w ChunkReader<'a>,
    snapshot: &'w SnapshotInfo,
    report: &'w mut VerifyReport,
}

impl<'a> TreeCheck<'a> {
    /// A check that knows what is bad.
    pub fn new(catalog: &'a Catalog, bad: Bad) -> Self {
        Self { catalog, bad, seen: HashMap::new() }
    }

    /// Checks the tree of one snapshot.
    ///
    /// # Errors
    /// Failures of the store or the cache that are not damage.
    pub fn snapshot(
        &mut self,
        nodes: &ChunkReader<'a>,
        snapshot: &SnapshotInfo,
        report: &mut VerifyReport,
    ) -> Result<(), Error> {
        let mut walk = Walk { check: self, nodes, snapshot, report };
        walk.directory(&snapshot.record.root, &mut Vec::new(), 0).map(|_| ())
    }

    /// True when all chunks can be had.
    fn sound(&self, ids: &[(ChunkId, u32)], namespace: WriterId) -> Result<bool, Error> {
        let only = ids.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        let places = self.catalog.places(&only, namespace)?;
        Ok(ids.iter().zip(places).all(|((id, bytes), place)| {
            place.is_some_and(|place| {
                place.bytes == *bytes
                    && !self.bad.packs.contains(&place.pack)
                    && !self.bad.frames.contains(&(place.pack, place.frame_number))
                    && !self.bad.chunks.contains(id)
            })
        }))
    }
}

impl Walk<'_, '_> {
    /// True when everything below is sound.
    fn directory(&mut self, node: &ChunkId, path: &mut Vec<u8>, depth: u32) -> Result<bool, Error> {
        let key = (self.snapshot.namespace, *node);
        // What was found sound needs no second look; what was not is walked again, to name the
        // paths of this snapshot too.
        if self.check.seen.get(&key) == Some(&true) {
            return Ok(true);
        }
        if depth > PATH_DEPTH_MAX {
            let message = "directories are nested too deeply".to_owned();
            self.node_damaged(path, Error::TreeNode { node: *node, message });
            return Ok(false);
        }
        let mut sound = true;
        let (mut entries, mut failures) = (Vec::new(), Vec::new());
        reader::directory(
            self.nodes,
            node,
            &mut |entry| {
                entries.push(entry);
                Ok(())
            },
            &mut |error| {
                if !error.is_damage() {
                    return Err(error);
                }
                failures.push(error);
                Ok(())
            },
        )?;
        for error in failures {
            sound = false;
            self.node_damaged(path, error);
        }
        let here = path.len();
        for entry in entries {
            path.push(b'/');
            path.extend_from_slice(&entry.name);
            sound &= self.entry(&entry, path, depth)?;
            path.truncate(here);
        }
        self.check.seen.insert(key, sound);
        Ok(sound)
    }

    fn entry(&mut self, entry: &Entry, path: &mut Vec<u8>, depth: u32) -> Result<bool, Error> {
        match &entry.node {
            Node::Directory(node) => self.directory(node, path, depth + 1),
            Node::File(content) => self.file(content, path),
            _ => Ok(true),
        }
    }

    fn file(&mut self, content: &Content, path: &[u8]) -> Result<bool, Error> {
        let namespace = self.snapshot.namespace;
        let key = match &content.extents {
            Extents::Tree(node) => Some((namespace, *node)),
            Extents::Inline(_) => None,
        };
        if key.is_some_and(|key| self.check.seen.get(&key) == Some(&true)) {
            return Ok(true);
        }
        let (mut waiting, mut sound) = (Vec::new(), true);
        let check = &*self.check;
        let outcome = reader::extents(self.nodes, content, &mut |_, extent| {
            if let Extent::Chunk { id, bytes } = extent {
                waiting.push((id, bytes));
                if waiting.len() >= LOOKUP_CHUNKS {
                    sound &= check.sound(&waiting, namespace)?;
                    waiting.clear();
                }
            }
            Ok(())
        });
        sound &= check.sound(&waiting, namespace)?;
        match outcome {
            Ok(()) => {}
            Err(error) if error.is_damage() => {
                sound = false;
                self.node_finding(&error);
            }
            Err(error) => return Err(error),
        }
        if let Some(key) = key {
            self.check.seen.insert(key, sound);
        }
        if !sound {
            self.affected(path);
        }
        Ok(sound)
    }

    fn node_damaged(&mut self, path: &[u8], error: Error) {
        self.node_finding(&error);
        self.affected(path);
    }

    fn node_finding(&mut self, error: &Error) {
        let found = Finding {
            code: error.code(),
            object: format!("tree of snapshot {}", self.snapshot.id.short()),
            message: error.to_string(),
        };
        let listed = &mut self.report.findings;
        if listed.len() < FINDINGS_MAX && !listed.iter().any(|known| known.message == found.message)
        {
            listed.push(found);
        }
    }

    fn affected(&mut self, path: &[u8]) {
        self.report.affected_count += 1;
        if self.report.affected.len() < AFFECTED_MAX {
            let path = if path.is_empty() { b"/".to_vec() } else { path.to_vec() };
            self.report.affected.push(Affected { snapshot: self.snapshot.id, path });
        }
        if self.report.findings.is_empty() {
            // A chunk that is in no pack at all, with nothing else wrong.
            self.report.findings.push(Finding {
                code: "chunk.missing",
                object: format!("snapshot {}", self.snapshot.id.short()),
                message: "chunks it needs are in no pack".to_owned(),
            });
        }
    }
}
