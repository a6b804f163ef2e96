//! Writes snapshots by hand: as a hostile owner would, or in ways this version's `backup` does
//! not write though every reader must understand them.

use cairn_engine::error::Error;
use cairn_engine::index::segments;
use cairn_engine::pack::builder::PackBuilder;
use cairn_engine::repo::Repository;
use cairn_format::envelope::Kind;
use cairn_format::ids::{ChunkId, ObjectHash, SessionId, SnapshotId};
use cairn_format::limits::{PACK_BYTES_MAX, PACK_FRAMES_MAX};
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::node::DirectoryNode;
use cairn_format::pack::{ChunkRef, Codec};
use cairn_format::record::{Ack, Snapshot, SourceKind, SourceRecord, Statistics};
use cairn_format::segment::{NAMESPACE_TRUSTED, PackSection};
use cairn_format::tree::{Content, Entry, Extent, Extents, Meta, Node, Timestamp};

/// A snapshot in the making. Packs go to the store when they are full and at the end.
pub struct Craft<'a> {
    repository: &'a Repository,
    session: SessionId,
    open: [Option<(PackBuilder, u32)>; 2],
    sections: Vec<PackSection>,
}

/// Metadata of a plain file or directory.
#[must_use]
pub fn meta(mode: u32) -> Meta {
    let mtime = Timestamp { seconds: 1_600_000_000, nanoseconds: 5 };
    Meta { mode, mtime, ..Meta::default() }
}

/// An entry with plain metadata.
#[must_use]
pub fn entry(name: &str, node: Node) -> Entry {
    let mode = if matches!(node, Node::Directory(_)) { 0o755 } else { 0o644 };
    Entry { name: name.into(), node, meta: meta(mode) }
}

/// A file of one chunk that the entry says has `bytes` bytes.
#[must_use]
pub fn file(id: ChunkId, bytes: u32) -> Node {
    let extents = Extents::Inline(vec![Extent::Chunk { id, bytes }]);
    Node::File(Content { bytes: u64::from(bytes), extents })
}

impl<'a> Craft<'a> {
    /// A snapshot by the owner of this repository.
    #[must_use]
    pub fn new(repository: &'a Repository) -> Self {
        let session = SessionId::from_bytes([7; 16]);
        Self { repository, session, open: [None, None], sections: Vec::new() }
    }

    /// Stores a frame as it is given; nothing is compressed or checked.
    ///
    /// # Errors
    /// Failures of the store.
    pub fn frame(
        &mut self,
        kind: PackKind,
        codec: Codec,
        stored: &[u8],
        chunks: Vec<ChunkRef>,
        bases: Vec<ChunkRef>,
    ) -> Result<(), Error> {
        let vault = self.repository.vault();
        let slot = match kind {
            PackKind::Data => 0,
            PackKind::Tree => 1,
        };
        let builder = match self.open[slot].take() {
            Some((builder, frames)) if frames < PACK_FRAMES_MAX - 1 => (builder, frames),
            full => {
                if let Some((builder, _)) = full {
                    self.put(builder)?;
                }
                (vault.pack(kind, Vec::new(), PACK_BYTES_MAX)?, 0)
            }
        };
        let (mut builder, frames) = builder;
        builder.add(codec, stored, chunks, bases)?;
        self.open[slot] = Some((builder, frames + 1));
        Ok(())
    }

    fn put(&mut self, builder: PackBuilder) -> Result<(), Error> {
        let vault = self.repository.vault();
        let pack = builder.finish(vault.keys.signer()?, self.session, NAMESPACE_TRUSTED)?;
        let name = ObjectName::Pack(pack.section.kind, pack.section.id);
        vault.store().put(&name, &pack.bytes)?;
        self.sections.push(pack.section);
        Ok(())
    }

    /// Stores a chunk in a frame of its own.
    ///
    /// # Errors
    /// Failures of the store.
    pub fn chunk(&mut self, data: &[u8]) -> Result<ChunkId, Error> {
        let id = self.repository.vault().keys.chunk_id(data);
        self.frame(PackKind::Data, Codec::Stored, data, vec![reference(id, data)], Vec::new())?;
        Ok(id)
    }

    /// Stores any bytes as a tree node.
    ///
    /// # Errors
    /// Failures of the store.
    pub fn node(&mut self, node: &[u8]) -> Result<ChunkId, Error> {
        let id = self.repository.vault().keys.tree_id(node);
        self.frame(PackKind::Tree, Codec::Stored, node, vec![reference(id, node)], Vec::new())?;
        Ok(id)
    }

    /// Stores a directory of these entries, in the order given.
    ///
    /// # Errors
    /// Failures of the store.
    pub fn directory(&mut self, entries: &[Entry]) -> Result<ChunkId, Error> {
        let encoded = entries.iter().map(Entry::encode).collect::<Vec<_>>();
        self.node(&DirectoryNode::encode_leaf(encoded.iter().map(Vec::as_slice)))
    }

    /// Ends the packs, and makes and acknowledges a snapshot of the directory `root`.
    ///
    /// # Errors
    /// Failures of the store.
    pub fn publish(mut self, root: ChunkId) -> Result<SnapshotId, Error> {
        for slot in 0..self.open.len() {
            if let Some((builder, _)) = self.open[slot].take() {
                self.put(builder)?;
            }
        }
        let vault = self.repository.vault();
        segments::write(vault, 0, &[], std::mem::take(&mut self.sections))?;
        let now_ms = vault.context.clock.now_ms();
        let record = Snapshot {
            started_ms: now_ms,
            finished_ms: now_ms,
            job: "crafted".to_owned(),
            host: "host".to_owned(),
            user: "user".to_owned(),
            paths: vec![b"/".to_vec()],
            tags: Vec::new(),
            root,
            sequence: 1,
            session: self.session,
            previous: None,
            parents: Vec::new(),
            statistics: Statistics::default(),
            program: "cairn-tests".to_owned(),
            sources: vec![SourceRecord {
                kind: SourceKind::Files,
                name: "/".to_owned(),
                argv: Vec::new(),
            }],
            excludes: Vec::new(),
            remade: None,
        };
        let object = vault.seal_signed(Kind::Snapshot, &record.encode())?;
        let id = SnapshotId::from_bytes(*blake3::hash(&object).as_bytes());
        let time_ms = u64::try_from(now_ms).unwrap_or_default();
        vault.store().put(&ObjectName::Snapshot { time_ms, id }, &object)?;
        let ack = Ack {
            snapshot: id,
            time_ms: now_ms,
            tombs_digest: *blake3::hash(&[]).as_bytes(),
            session: self.session,
        };
        let object = vault.seal_signed(Kind::Ack, &ack.encode())?;
        let hash = ObjectHash::from_bytes(*blake3::hash(&object).as_bytes());
        vault.store().put(&ObjectName::Ack { snapshot: id, hash }, &object)?;
        Ok(id)
    }
}

fn reference(id: ChunkId, data: &[u8]) -> ChunkRef {
    ChunkRef { id, bytes: u32::try_from(data.len()).unwrap_or(u32::MAX) }
}

/// One zstd frame of `plain` that refers to `prefix`, as a frame with bases is stored.
///
/// # Panics
/// When zstd refuses.
#[must_use]
pub fn compress_against(prefix: &[u8], plain: &[u8]) -> Vec<u8> {
    use zstd::zstd_safe::{CCtx, CParameter, compress_bound};
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(3),
        CParameter::ContentSizeFlag(true),
        CParameter::ChecksumFlag(false),
        CParameter::DictIdFlag(false),
        CParameter::WindowLog(20),
    ] {
        context.set_parameter(parameter).expect("zstd knows it");
    }
    let mut stored = Vec::with_capacity(compress_bound(plain.len()));
    context.ref_prefix(prefix).expect("a prefix");
    context.compress2(&mut stored, plain).expect("it compresses");
    stored
}
