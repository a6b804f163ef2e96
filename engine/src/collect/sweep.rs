//! The second half of a collection: tombs are put, segments written anew without what goes, and
//! packs deleted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cairn_format::codec::{Reader, Writer};
use cairn_format::envelope::Kind;
use cairn_format::ids::{ObjectHash, PackId, SegmentId, SessionId};
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::record::{Tomb, TombReason};
use cairn_format::segment::Segment;
use rayon::prelude::*;

use super::memo::Memos;
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::local::MemoChange;
use crate::index::segments;
use crate::repo::{Repository, Vault};
use crate::store::StoreError;

/// Packs that one tomb condemns, and replacements that it names, at most: with 65 bytes for each
/// pair it stays below the limit of a tomb.
const TOMB_PACKS_MAX: usize = 50_000;
/// Bytes of a pack's id that are remembered for a segment: others that begin alike are looked up.
const ID_BYTES: usize = 8;

/// Condemns packs, for ever.
///
/// # Errors
/// Failures of the store.
pub fn condemn(
    vault: &Vault,
    session: SessionId,
    reason: TombReason,
    packs: &BTreeSet<(PackKind, PackId)>,
    replacements: &[PackId],
) -> Result<(), Error> {
    let packs = packs.iter().copied().collect::<Vec<_>>();
    for packs in packs.chunks(TOMB_PACKS_MAX) {
        let tomb = Tomb {
            time_ms: vault.context.clock.now_ms(),
            packs: packs.to_vec(),
            reason,
            // For people who look into what happened: nothing depends on it.
            replacements: replacements.iter().take(TOMB_PACKS_MAX).copied().collect(),
            session,
        };
        let object = vault.seal_signed(Kind::Tomb, &tomb.encode())?;
        let hash = ObjectHash::from_bytes(*blake3::hash(&object).as_bytes());
        let time_ms = u64::try_from(tomb.time_ms).unwrap_or_default();
        vault.store.put(&ObjectName::Tomb { time_ms, hash }, &object)?;
    }
    Ok(())
}

/// What became of the segments.
#[derive(Debug, Default)]
pub struct Rewritten {
    /// Segments put.
    pub written: u64,
    /// Segments deleted.
    pub removed: Vec<SegmentId>,
}

/// Writes segments anew that describe packs which are to go, and deletes those that another one
/// replaces. A segment is deleted when what it says besides is durable elsewhere.
///
/// # Errors
/// Damage; failures of the store and the cache.
pub fn rewrite_segments(
    repository: &Repository,
    catalog: &Catalog,
    gone: &HashMap<PackId, PackKind>,
) -> Result<Rewritten, Error> {
    let vault = repository.vault();
    let memos = Memos::new(vault, catalog);
    let mut done = Rewritten::default();
    let listed = segments::list(vault)?;
    let mut replaced = BTreeSet::new();
    for id in listed.keys() {
        vault.check_cancelled()?;
        if remembered(&memos, id)?.is_some_and(|described| described.may_stay(gone, &listed)) {
            continue;
        }
        let Some(read) = segments::read(vault, *id)? else { continue };
        memos.put(&[described(&memos, id, &read.segment)])?;
        replaced.extend(read.segment.replaces.iter().copied());
        let (level, packs) = (read.segment.level, read.segment.packs);
        if packs.iter().all(|pack| !gone.contains_key(&pack.id)) {
            continue;
        }
        let kept = packs.into_iter().filter(|pack| !gone.contains_key(&pack.id)).collect();
        for (segment, named) in segments::write(vault, level, &[*id], kept)? {
            done.written += 1;
            catalog.commit(segment, &named)?;
        }
        replaced.insert(*id);
    }
    let forgotten = memos.segments()?.into_iter().filter(|id| !listed.contains_key(id));
    let forgotten = forgotten.map(|id| (Memos::segment_key(&id), None)).collect::<Vec<_>>();
    memos.put(&forgotten)?;
    for id in replaced.into_iter().filter(|id| listed.contains_key(id)) {
        vault.store.delete(&ObjectName::Index(id))?;
        catalog.index().remove_segment(&id)?;
        done.removed.push(id);
    }
    Ok(done)
}

/// What a segment was found to say. It tells only which segments need not be read; what becomes of
/// those that are read follows from what they say.
struct Described {
    /// Segments that it replaces.
    replaces: Vec<SegmentId>,
    /// Beginnings of the ids of packs, ascending.
    packs: Vec<[u8; ID_BYTES]>,
}

impl Described {
    /// Nothing follows from what it says.
    fn may_stay(
        &self,
        gone: &HashMap<PackId, PackKind>,
        listed: &BTreeMap<SegmentId, u64>,
    ) -> bool {
        gone.keys().all(|id| self.packs.binary_search(&beginning(id)).is_err())
            && !self.replaces.iter().any(|id| listed.contains_key(id))
    }
}

fn beginning(id: &PackId) -> [u8; ID_BYTES] {
    id.as_bytes().first_chunk().copied().unwrap_or_default()
}

fn remembered(memos: &Memos<'_>, id: &SegmentId) -> Result<Option<Described>, Error> {
    let Some(value) = memos.get(&Memos::segment_key(id), &[])? else { return Ok(None) };
    let mut fields = Reader::new(&value, "memo");
    let Ok(count) = fields.varint() else { return Ok(None) };
    let mut replaces = Vec::new();
    for _ in 0..count {
        let Ok(id) = fields.array() else { return Ok(None) };
        replaces.push(SegmentId::from_bytes(id));
    }
    let packs = fields.take_rest().chunks(ID_BYTES).filter_map(|id| id.try_into().ok());
    Ok(Some(Described { replaces, packs: packs.collect() }))
}

fn described(memos: &Memos<'_>, id: &SegmentId, segment: &Segment) -> MemoChange {
    let mut packs = segment.packs.iter().map(|pack| beginning(&pack.id)).collect::<Vec<_>>();
    packs.sort_unstable();
    let mut value = Writer::new();
    value.count(segment.replaces.len());
    segment.replaces.iter().for_each(|id| {
        value.raw(id.as_bytes());
    });
    value.raw(packs.as_flattened());
    memos.change(Memos::segment_key(id), &[], value.as_bytes())
}

/// Deletes objects.
///
/// # Errors
/// Failures of the store.
pub fn delete(vault: &Vault, names: &[ObjectName]) -> Result<(), Error> {
    names.par_iter().with_max_len(1).try_for_each(|name| {
        vault.check_cancelled()?;
        Ok(vault.store.delete(name)?)
    })
}

/// Those of the names that the store still has when asked for each by its name.
///
/// # Errors
/// Failures of the store.
pub fn still_there(vault: &Vault, names: &[ObjectName]) -> Result<HashSet<ObjectName>, Error> {
    let found = names
        .par_iter()
        .with_max_len(1)
        .map(|name| match vault.store.size(name) {
            Ok(_) => Ok(Some(*name)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(Error::from(error)),
        })
        .collect::<Result<Vec<_>, Error>>()?;
    Ok(found.into_iter().flatten().collect())
}

/// Those of the names that the store still lists.
///
/// # Errors
/// Failures of the store.
pub fn still_listed(vault: &Vault, names: &[ObjectName]) -> Result<HashSet<ObjectName>, Error> {
    let wanted = names.iter().copied().collect::<HashSet<_>>();
    let folders = names.iter().filter_map(ObjectName::folder).collect::<BTreeSet<_>>();
    let mut found = HashSet::new();
    for folder in folders {
        vault.store.list(folder, &mut |name, _| {
            if wanted.contains(&name) {
                found.insert(name);
            }
            Ok(())
        })?;
    }
    Ok(found)
}
