//! Walks the trees of snapshots: every node is readable, every chunk is known and sound. What
//! several snapshots share is read once.

use std::cell::Cell;
use std::collections::HashMap;

use cairn_format::ids::{ChunkId, WriterId};
use cairn_format::limits::PATH_DEPTH_MAX;
use cairn_format::names::PackKind;
use cairn_format::pack::ChunkRef;
use cairn_format::tree::{Content, Extent, Extents, Node};

use super::{Affected, Bad, Finding};
use crate::error::{Error, Explain};
use crate::index::catalog::Catalog;
use crate::index::local::{ChunkPlace, PackNumber};
use crate::ops::snapshots::SnapshotInfo;
use crate::repo::chunks::ChunkReader;
use crate::tree::reader::{self, Listing};

/// Paths listed in the report.
pub(super) const AFFECTED_MAX: usize = 1_000;
/// Findings about tree nodes listed in the report.
pub(super) const FINDINGS_MAX: usize = 1_000;
/// Chunks looked up at once.
const LOOKUP_CHUNKS: usize = 512;

/// Checks trees; remembers what it has seen.
pub struct TreeCheck<'a> {
    catalog: &'a Catalog,
    bad: Bad,
    /// Directories and lists of extents seen: whether all below them is sound.
    seen: HashMap<(WriterId, ChunkId), bool>,
    /// The frame with bases looked at last, and whether all its bases can be had.
    based: Cell<Option<((PackNumber, u32), bool)>>,
}

/// What is wrong in the tree of one snapshot.
#[derive(Default)]
pub struct InTree {
    /// Nodes that cannot be had; not chunks of files.
    pub findings: Vec<Finding>,
    /// Paths touched, the first thousand.
    pub affected: Vec<Affected>,
    /// How many paths are touched, at least.
    pub affected_count: u64,
    /// Something is wrong that is no missing chunk.
    damaged: bool,
}

impl InTree {
    /// Whether nothing is wrong but that chunks are in no pack.
    pub const fn only_lacks_chunks(&self) -> bool {
        !self.damaged
    }
}

struct Walk<'w, 'a> {
    check: &'w mut TreeCheck<'a>,
    nodes: &'w ChunkReader<'a>,
    snapshot: &'w SnapshotInfo,
    found: InTree,
}

/// Tells the directory above whether what was below it is sound.
fn close(levels: &mut [Level<'_>], sound: bool) {
    if let Some(above) = levels.last_mut() {
        above.sound &= sound;
    }
}

impl<'a> TreeCheck<'a> {
    /// A check that knows what is bad.
    pub fn new(catalog: &'a Catalog, bad: Bad) -> Self {
        Self { catalog, bad, seen: HashMap::new(), based: Cell::new(None) }
    }

    /// Checks the tree of one snapshot.
    ///
    /// # Errors
    /// Failures of the store or the cache that are not damage.
    pub fn snapshot(
        &mut self,
        nodes: &ChunkReader<'a>,
        snapshot: &SnapshotInfo,
    ) -> Result<InTree, Error> {
        self.based.set(None);
        let mut walk = Walk { check: self, nodes, snapshot, found: InTree::default() };
        walk.directories(snapshot.record.root)?;
        Ok(walk.found)
    }

    /// True when all chunks can be had.
    fn sound(&self, ids: &[(ChunkId, u32)], namespace: WriterId) -> Result<bool, Error> {
        let only = ids.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        let places = self.catalog.places(&only, namespace)?;
        for ((id, bytes), place) in ids.iter().zip(places) {
            let Some(place) = place else { return Ok(false) };
            if self.is_sound(*id, *bytes, &place)? {
                continue;
            }
            let mut sound = false;
            for copy in self.catalog.copies(*id, namespace)? {
                sound = sound || self.is_sound(*id, *bytes, &copy)?;
            }
            if !sound {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_sound(&self, id: ChunkId, bytes: u32, place: &ChunkPlace) -> Result<bool, Error> {
        let readable = place.bytes == bytes && self.can_be_read(&id, place);
        Ok(readable && (!place.based || self.bases_sound(place)?))
    }

    fn can_be_read(&self, id: &ChunkId, place: &ChunkPlace) -> bool {
        !self.bad.packs.contains(&place.pack)
            && !self.bad.frames.contains(&(place.pack, place.frame_number))
            && !self.bad.chunks.contains(&(place.pack, *id))
    }

    /// True when all bases of a frame can be had. They are looked up once for chunks that follow
    /// one another in it.
    fn bases_sound(&self, place: &ChunkPlace) -> Result<bool, Error> {
        let frame = (place.pack, place.frame_number);
        if let Some((known, sound)) = self.based.get()
            && known == frame
        {
            return Ok(sound);
        }
        let kind = self.catalog.pack(place.pack)?.kind;
        let (bases, namespace) = self.catalog.bases(place)?;
        let ids = bases.iter().map(|base| base.id).collect::<Vec<_>>();
        let places = self.catalog.places(&ids, namespace)?;
        let mut sound = true;
        for (base, first) in bases.iter().zip(places) {
            let Some(first) = first else {
                sound = false;
                break;
            };
            let fit = self.catalog.base_place(base, kind, first, namespace)?;
            sound &= match fit {
                Some(fit) if self.can_be_read(&base.id, &fit) => true,
                Some(_) => self.other_base(base, kind, namespace)?,
                None => false,
            };
        }
        self.based.set(Some((frame, sound)));
        Ok(sound)
    }

    /// True when any place of a base may serve and can be read.
    fn other_base(
        &self,
        base: &ChunkRef,
        kind: PackKind,
        namespace: WriterId,
    ) -> Result<bool, Error> {
        for copy in self.catalog.copies(base.id, namespace)? {
            let fits = !copy.based && copy.bytes == base.bytes;
            if fits
                && self.can_be_read(&base.id, &copy)
                && self.catalog.pack(copy.pack)?.kind == kind
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A directory that is being walked.
struct Level<'n> {
    node: ChunkId,
    listing: Listing<'n>,
    path_bytes: usize,
    sound: bool,
}

impl<'w> Walk<'w, '_> {
    /// Walks everything below a directory.
    fn directories(&mut self, root: ChunkId) -> Result<(), Error> {
        let nodes: &'w ChunkReader<'_> = self.nodes;
        let mut path = Vec::new();
        let mut levels: Vec<Level<'_>> = Vec::new();
        // An explicit stack: a hostile tree may be nested more deeply than a thread's stack bears.
        let mut next = Some(root);
        loop {
            if let Some(node) = next.take() {
                match self.known(node, &path, levels.len()) {
                    Some(sound) => close(&mut levels, sound),
                    None => levels.push(Level {
                        node,
                        listing: Listing::new(nodes, node),
                        path_bytes: path.len(),
                        sound: true,
                    }),
                }
            }
            let Some(level) = levels.last_mut() else { return Ok(()) };
            path.truncate(level.path_bytes);
            match level.listing.next() {
                Some(Ok(entry)) => {
                    path.push(b'/');
                    path.extend_from_slice(&entry.name);
                    match &entry.node {
                        Node::Directory(node) => next = Some(*node),
                        Node::File(content) => level.sound &= self.file(content, &path)?,
                        _ => {}
                    }
                }
                Some(Err(error)) if error.is_damage() => {
                    level.sound = false;
                    self.node_damaged(&path, error);
                }
                Some(Err(error)) => return Err(error),
                None => {
                    if let Some(Level { node, sound, .. }) = levels.pop() {
                        self.check.seen.insert((self.snapshot.namespace, node), sound);
                        close(&mut levels, sound);
                    }
                }
            }
        }
    }

    /// Whether everything below a directory is sound, where that is known without reading it.
    fn known(&mut self, node: ChunkId, path: &[u8], depth: usize) -> Option<bool> {
        match self.check.seen.get(&(self.snapshot.namespace, node)) {
            Some(true) => Some(true),
            // What is not sound is walked again, to name the paths of this snapshot too; but not
            // for ever, since a tree may share itself so that it has more paths than atoms.
            Some(false) if self.found.affected.len() >= AFFECTED_MAX => {
                self.found.affected_count += 1;
                Some(false)
            }
            _ if depth > PATH_DEPTH_MAX as usize => {
                self.node_damaged(path, reader::too_deep(node));
                Some(false)
            }
            _ => None,
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
        self.found.damaged |= !matches!(error, Error::ChunkMissing { .. });
        let listed = &mut self.found.findings;
        if listed.len() < FINDINGS_MAX && !listed.iter().any(|known| known.message == found.message)
        {
            listed.push(found);
        }
    }

    fn affected(&mut self, path: &[u8]) {
        self.found.affected_count += 1;
        if self.found.affected.len() < AFFECTED_MAX {
            let path = if path.is_empty() { b"/".to_vec() } else { path.to_vec() };
            self.found.affected.push(Affected { snapshot: self.snapshot.id, path });
        }
    }
}
