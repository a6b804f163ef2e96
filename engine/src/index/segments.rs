//! Index segments in the store: reading, writing, and merging them so that their number stays
//! small (SPEC §7).

use std::collections::{BTreeMap, HashSet};

use cairn_format::codec::Writer;
use cairn_format::envelope::{Kind, content_bytes_max};
use cairn_format::ids::{SegmentId, WriterId};
use cairn_format::limits::SEGMENT_BYTES_MAX;
use cairn_format::names::{Folder, ObjectName};
use cairn_format::segment::{PackSection, Segment};

use crate::error::Error;
use crate::repo::Vault;
use crate::seal::Role;
use crate::store::StoreError;
use crate::store::error::Place;

/// Packs described by one new segment, bytes of their encoding: bounds memory and the cost of a merge.
const SEGMENT_CONTENT_BYTES: usize = 8 << 20;
/// Segments of this size or more are not merged any further, bytes.
const MERGE_BELOW_BYTES: u64 = 4 << 20;
/// So many segments of like size become one.
const MERGE_FANOUT: usize = 4;
/// Sizes are like when they lie between the same two powers of this.
const SIZE_CLASS_BASE: u64 = 4;
/// Size below which all segments are alike, bytes.
const SIZE_CLASS_FLOOR_BYTES: u64 = 1 << 10;

/// How often a segment is put that is not there afterwards.
const PUTS_MAX: usize = 3;

const _: () = assert!(SEGMENT_CONTENT_BYTES < content_bytes_max(Kind::Index));

/// A segment that was opened and whose signature holds.
#[derive(Debug)]
pub struct ReadSegment {
    /// What it says; packs that its signer may not describe are left out.
    pub segment: Segment,
    /// Who signed it.
    pub signer: WriterId,
    /// Sections left out because a role-1 writer described packs that are not its own.
    pub refused: usize,
}

/// The segments in the store with their sizes in bytes.
///
/// # Errors
/// When the store cannot be listed.
pub fn list(vault: &Vault) -> Result<BTreeMap<SegmentId, u64>, Error> {
    let mut found = BTreeMap::new();
    vault.store.list(Folder::Index, &mut |name, bytes| {
        if let ObjectName::Index(id) = name {
            found.insert(id, bytes);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Reads one segment; `None` when it is gone by now (somebody merged it: list again).
///
/// # Errors
/// Damage; failures of the store.
pub fn read(vault: &Vault, id: SegmentId) -> Result<Option<ReadSegment>, Error> {
    let name = ObjectName::Index(id);
    let signed = match vault.read_signed(Kind::Index, &name, SEGMENT_BYTES_MAX) {
        Ok(signed) => signed,
        Err(Error::Store(StoreError::NotFound { .. })) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut segment = Segment::decode(&signed.record).map_err(Error::format(name))?;
    let mut refused = 0;
    if signed.writer.role == Role::Writer {
        refused = segment.keep_own(signed.writer.id);
    }
    Ok(Some(ReadSegment { segment, signer: signed.writer.id, refused }))
}

/// Writes segments that describe these packs; returns each with the packs it describes.
///
/// # Errors
/// Failures of the store.
pub fn write(
    vault: &Vault,
    level: u32,
    replaces: &[SegmentId],
    sections: Vec<PackSection>,
) -> Result<Vec<(SegmentId, Vec<PackSection>)>, Error> {
    let mut groups: Vec<Vec<PackSection>> = Vec::new();
    let mut bytes = 0;
    for section in sections {
        let mut encoded = Writer::new();
        section.encode(&mut encoded);
        bytes += encoded.len();
        match groups.last_mut() {
            Some(group) if bytes <= SEGMENT_CONTENT_BYTES => group.push(section),
            _ => {
                groups.push(vec![section]);
                bytes = encoded.len();
            }
        }
    }
    let last = groups.len().saturating_sub(1);
    let mut written = Vec::with_capacity(groups.len());
    for (index, packs) in groups.into_iter().enumerate() {
        // Only the last part, put when all others are durable, says what is replaced: a reader
        // that sees it sees everything.
        let replaces = if index == last { replaces.to_vec() } else { Vec::new() };
        let segment = Segment { level, replaces, packs };
        let id = put_segment(vault, &segment)?;
        written.push((id, segment.packs));
    }
    Ok(written)
}

/// Puts a segment, and looks whether it is there: what it replaces, or what its packs replace, goes
/// next. Where it is not, the store lost it, or another has collected or merged it already: then the same
/// is said under another name, since deleted names never return.
fn put_segment(vault: &Vault, segment: &Segment) -> Result<SegmentId, Error> {
    let (record, mut lost) = (segment.encode(), None);
    for _ in 0..PUTS_MAX {
        let object = vault.seal_signed(Kind::Index, &record)?;
        let id = SegmentId::from_bytes(*blake3::hash(&object).as_bytes());
        let name = ObjectName::Index(id);
        vault.store.put(&name, &object)?;
        let sent = object.len() as u64;
        let found = match vault.store.size(&name) {
            Err(StoreError::NotFound { .. }) => 0,
            found => found?,
        };
        if found == sent {
            return Ok(id);
        }
        let place = Place::object(vault.store.location(), &name);
        lost = Some(StoreError::BadWrite { place, sent, found });
    }
    Err(lost.map_or(Error::Internal { part: "putting a segment" }, Error::from))
}

/// What a merge did.
#[derive(Debug, Default)]
pub struct Merged {
    /// Segments that are new.
    pub written: Vec<SegmentId>,
    /// Segments whose packs the new ones describe.
    pub replaced: Vec<SegmentId>,
    /// Segments that are gone.
    pub removed: Vec<SegmentId>,
}

/// Merges segments of like size where there are enough of them. Safe beside anything: the merged
/// segment is durable before the old ones go, and readers that miss one list again.
///
/// A role-1 writer merges its own segments only.
///
/// # Errors
/// Failures of the store. Segments that cannot be read are left alone.
pub fn merge(vault: &Vault) -> Result<Merged, Error> {
    let mut classes: BTreeMap<u32, Vec<SegmentId>> = BTreeMap::new();
    for (id, bytes) in list(vault)? {
        if bytes < MERGE_BELOW_BYTES {
            classes.entry(size_class(bytes)).or_default().push(id);
        }
    }
    let mut merged = Merged::default();
    for ids in classes.into_values().filter(|ids| ids.len() >= MERGE_FANOUT) {
        merge_class(vault, &ids, &mut merged)?;
    }
    Ok(merged)
}

fn size_class(bytes: u64) -> u32 {
    (bytes / SIZE_CLASS_FLOOR_BYTES).max(1).ilog(SIZE_CLASS_BASE)
}

fn merge_class(vault: &Vault, ids: &[SegmentId], merged: &mut Merged) -> Result<(), Error> {
    let own = vault.keys.signer()?;
    let (mut sections, mut replaces, mut level) = (Vec::new(), Vec::new(), 0);
    let mut seen = HashSet::new();
    for id in ids {
        let read = match read(vault, *id) {
            Ok(Some(read)) => read,
            Ok(None) => continue,
            Err(error) if error.is_damage() => continue,
            Err(error) => return Err(error),
        };
        let mine = own.role() != Role::Writer || read.signer == own.writer_id();
        if !mine || read.refused > 0 {
            continue;
        }
        level = level.max(read.segment.level + 1);
        replaces.push(*id);
        sections.extend(read.segment.packs.into_iter().filter(|pack| seen.insert(pack.id)));
    }
    if replaces.len() < 2 {
        return Ok(());
    }
    let level = level.min(cairn_format::segment::SEGMENT_LEVEL_MAX);
    let written = write(vault, level, &replaces, sections)?;
    let new = written.iter().map(|(id, _)| *id).collect::<HashSet<_>>();
    for id in replaces.iter().filter(|id| !new.contains(*id)) {
        match vault.store.delete(&ObjectName::Index(*id)) {
            // A key that may not delete leaves them; readers skip what is replaced.
            Ok(()) | Err(StoreError::Denied { .. }) => merged.removed.push(*id),
            Err(error) => return Err(error.into()),
        }
    }
    merged.written.extend(new);
    merged.replaced.extend(replaces);
    Ok(())
}
