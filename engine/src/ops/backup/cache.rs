//! Recognises files that did not change since an earlier backup, so that they are not read again.
//!
//! An entry counts only while what it names is protected: while the snapshot of the session that
//! wrote it stands, at the end too (see [`super::relied`]), or, for a session that was interrupted, when
//! all its chunks are found in the index one by one.

use std::collections::{HashMap, HashSet};

use cairn_format::codec::Writer;
use cairn_format::ids::{ChunkId, ObjectHash, SessionId, SnapshotId, WriterId};
use cairn_format::names::ObjectName;
use cairn_format::node::{decode_content, encode_content};
use cairn_format::tree::{Content, Extent, Extents};

use super::relied::Relied;
use crate::error::Error;
use crate::index::catalog::{Catalog, Forgotten};
use crate::source::meta::Fingerprint;

/// Where the number of the newest session is noted that a snapshot protects.
const NEWEST_NAME: &str = "session";
/// So many sessions later at most an entry is written anew, under the session that runs: each that entries
/// belong to is a snapshot that is asked for. Half of that at least, and entries differ, so that not all
/// come due in one backup.
const AGE_MAX: u64 = 64;
/// Entries written at once.
const WRITE_ENTRIES: usize = 1024;
/// Chunks that are looked up at once to be forgotten, at most.
const LOOKUPS_MAX: usize = 1 << 20;

/// The key of a path in the cache.
#[must_use]
pub fn key_of(path: &[u8]) -> [u8; 32] {
    *blake3::hash(path).as_bytes()
}

fn session_name(session: SessionId) -> String {
    format!("session/{session}")
}

/// Reads the cache while the source is walked.
pub struct Recogniser<'a> {
    catalog: &'a Catalog,
    namespace: WriterId,
    listed: HashSet<SnapshotId>,
    /// What was found out of each session: which it was, counted, if a snapshot protects what it read.
    sessions: HashMap<SessionId, Option<u64>>,
    /// The newest session.
    newest: u64,
    relied: &'a Relied,
}

impl<'a> Recogniser<'a> {
    /// A recogniser that trusts sessions whose snapshots are among these.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn new(
        catalog: &'a Catalog,
        namespace: WriterId,
        snapshots: &[ObjectName],
        relied: &'a Relied,
    ) -> Result<Self, Error> {
        let listed = snapshots
            .iter()
            .filter_map(|name| match name {
                ObjectName::Snapshot { id, .. } => Some(*id),
                _ => None,
            })
            .collect();
        let newest = newest_session(catalog)?;
        Ok(Self { catalog, namespace, listed, sessions: HashMap::new(), newest, relied })
    }

    /// The content of the file at the path of `key`, if it has not changed since it was last read;
    /// and whether the entry is to be written anew, under the session that runs.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn recognise(
        &mut self,
        key: &[u8; 32],
        fingerprint: &Fingerprint,
    ) -> Result<Option<(Content, bool)>, Error> {
        let Some(value) = self.catalog.index().get_file(key)? else { return Ok(None) };
        let Some((session, known, content)) = decode(&value) else { return Ok(None) };
        if !fingerprint.unchanged_since(&known) {
            return Ok(None);
        }
        if let Some(number) = self.protected(session)?
            && !self.catalog.has_suspects()
        {
            // A long list cannot be checked chunk by chunk once its snapshot is forgotten, so its entry
            // moves on with every backup; others do before there are many snapshots to be asked for.
            let age = self.newest.saturating_sub(number);
            let is_old = age >= AGE_MAX / 2 + u64::from(key[0]) % (AGE_MAX / 2);
            let renew = is_old || matches!(content.extents, Extents::Tree(_));
            return Ok(Some((content, renew)));
        }
        // Otherwise, and while packs are known to be damaged, each chunk must be found in a sound one.
        Ok(if self.is_complete(&content)? { Some((content, true)) } else { None })
    }

    /// The content of the file at the path of `key` when it was read last, whatever it is now: a
    /// hint, of which nothing may be left.
    pub fn former(&self, key: &[u8; 32]) -> Option<Content> {
        let value = self.catalog.index().get_file(key).ok()??;
        decode(&value).map(|(_, _, content)| content)
    }

    /// Which session it was, if a snapshot protects what it read.
    fn protected(&mut self, session: SessionId) -> Result<Option<u64>, Error> {
        if let Some(known) = self.sessions.get(&session) {
            return Ok(*known);
        }
        let noted = self.catalog.index().meta_get(&session_name(session))?;
        let noted = noted.and_then(|bytes| decode_session(&bytes));
        let protected = noted.filter(|(snapshot, _, _)| self.listed.contains(snapshot));
        if let Some((_, ack, _)) = protected {
            self.relied.note_ack(ack);
        }
        let number = protected.map(|(_, _, number)| number);
        self.sessions.insert(session, number);
        Ok(number)
    }

    fn is_complete(&self, content: &Content) -> Result<bool, Error> {
        let Extents::Inline(extents) = &content.extents else { return Ok(false) };
        let ids = extents
            .iter()
            .filter_map(|extent| match extent {
                Extent::Chunk { id, .. } => Some(*id),
                Extent::Hole { .. } => None,
            })
            .collect::<Vec<ChunkId>>();
        Ok(self.relied.known(self.catalog, &ids, self.namespace)?.into_iter().all(|known| known))
    }
}

fn decode(value: &[u8]) -> Option<(SessionId, Fingerprint, Content)> {
    let (session, rest) = value.split_at_checked(SessionId::LEN)?;
    let (fingerprint, content) = rest.split_at_checked(Fingerprint::ENCODED_BYTES)?;
    Some((
        SessionId::from_slice(session).ok()?,
        Fingerprint::from_bytes(fingerprint)?,
        decode_content(content).ok()?,
    ))
}

/// Writes the cache while the tree is built.
pub struct FileCache<'a> {
    catalog: &'a Catalog,
    session: SessionId,
    entries: Vec<([u8; 32], Vec<u8>)>,
}

impl<'a> FileCache<'a> {
    /// A cache whose entries belong to this session.
    #[must_use]
    pub fn new(catalog: &'a Catalog, session: SessionId) -> Self {
        Self { catalog, session, entries: Vec::new() }
    }

    /// Remembers a file's content.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn put(
        &mut self,
        key: [u8; 32],
        fingerprint: &Fingerprint,
        content: &Content,
    ) -> Result<(), Error> {
        let mut value = Writer::new();
        value.raw(self.session.as_bytes()).raw(&fingerprint.to_bytes());
        encode_content(content, &mut value);
        self.entries.push((key, value.into_bytes()));
        if self.entries.len() >= WRITE_ENTRIES { self.flush() } else { Ok(()) }
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.catalog.index().put_files(&self.entries)?;
        self.entries.clear();
        Ok(())
    }
}

/// Forgets what names chunks that are stored no more: entries of files, and sketches. What was
/// forgotten since this was done last says which they can be; where that is not known, every chunk that
/// is named is looked up, which takes that much longer.
///
/// # Errors
/// Failures of the cache.
pub fn forget_gone(catalog: &Catalog, forgotten: Forgotten) -> Result<(), Error> {
    if let Forgotten::These(chunks) = forgotten {
        return forget_these(catalog, &not_stored(catalog, chunks)?);
    }
    let mut named = 0_usize;
    for_each_named(catalog, &mut |_| named += 1)?;
    let parts = u32::try_from(named.div_ceil(LOOKUPS_MAX)).unwrap_or(u32::MAX).max(1);
    for part in 0..parts {
        let mut chunks = HashSet::new();
        for_each_named(catalog, &mut |id| {
            if part_of(id, parts) == part {
                chunks.insert(*id);
            }
        })?;
        forget_these(catalog, &not_stored(catalog, chunks)?)?;
    }
    Ok(())
}

/// In which of so many parts a chunk is, by its id.
fn part_of(id: &ChunkId, parts: u32) -> u32 {
    let beginning = id.as_bytes().first_chunk().copied().map_or(0, u32::from_be_bytes);
    u32::try_from((u64::from(beginning) * u64::from(parts)) >> 32).unwrap_or_default()
}

/// Those of the chunks that are in no pack.
fn not_stored(catalog: &Catalog, mut chunks: HashSet<ChunkId>) -> Result<HashSet<ChunkId>, Error> {
    let mut stored = Vec::new();
    for id in &chunks {
        if catalog.is_stored(*id)? {
            stored.push(*id);
        }
    }
    for id in stored {
        chunks.remove(&id);
    }
    Ok(chunks)
}

/// Calls `each` for every chunk that an entry of a file or a sketch names; it must not use the index.
fn for_each_named(catalog: &Catalog, each: &mut dyn FnMut(&ChunkId)) -> Result<(), Error> {
    let index = catalog.index();
    index.retain_files(&mut |_, value| {
        if let Some((_, _, content)) = decode(value) {
            named(&content).for_each(&mut *each);
        }
        true
    })?;
    index.forget_sketches(&mut |chunk| {
        each(chunk);
        false
    })?;
    Ok(())
}

/// The chunks that the entry of a file names.
fn named(content: &Content) -> impl Iterator<Item = &ChunkId> {
    let (node, extents) = match &content.extents {
        Extents::Tree(node) => (Some(node), [].as_slice()),
        Extents::Inline(extents) => (None, extents.as_slice()),
    };
    node.into_iter().chain(extents.iter().filter_map(|extent| match extent {
        Extent::Chunk { id, .. } => Some(id),
        Extent::Hole { .. } => None,
    }))
}

fn forget_these(catalog: &Catalog, gone: &HashSet<ChunkId>) -> Result<(), Error> {
    if gone.is_empty() {
        return Ok(());
    }
    let index = catalog.index();
    index.retain_files(&mut |_, value| {
        decode(value).is_some_and(|(_, _, content)| !named(&content).any(|id| gone.contains(id)))
    })?;
    index.forget_sketches(&mut |chunk| gone.contains(chunk))?;
    Ok(())
}

/// Notes the acknowledgement that protects what a session read.
///
/// # Errors
/// Failures of the cache.
pub fn protect(catalog: &Catalog, session: SessionId, ack: &ObjectName) -> Result<(), Error> {
    let ObjectName::Ack { snapshot, hash } = ack else { return Ok(()) };
    let number = newest_session(catalog)?.saturating_add(1).to_le_bytes();
    let value = [snapshot.as_bytes().as_slice(), hash.as_bytes(), &number].concat();
    catalog.index().meta_put(&session_name(session), &value)?;
    Ok(catalog.index().meta_put(NEWEST_NAME, &number)?)
}

/// The number of the newest session that is protected.
fn newest_session(catalog: &Catalog) -> Result<u64, Error> {
    let noted = catalog.index().meta_get(NEWEST_NAME)?;
    Ok(noted.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes))
}

/// The snapshot, the acknowledgement, and the number of the session.
fn decode_session(bytes: &[u8]) -> Option<(SnapshotId, ObjectName, u64)> {
    let (snapshot, rest) = bytes.split_at_checked(SnapshotId::LEN)?;
    let (hash, number) = rest.split_at_checked(ObjectHash::LEN)?;
    let snapshot = SnapshotId::from_slice(snapshot).ok()?;
    let hash = ObjectHash::from_slice(hash).ok()?;
    let number = u64::from_le_bytes(number.try_into().ok()?);
    Some((snapshot, ObjectName::Ack { snapshot, hash }, number))
}
