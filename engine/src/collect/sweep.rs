//! The second half of a collection: tombs are put, segments written anew without what goes, and
//! packs deleted.

use std::collections::{BTreeSet, HashMap, HashSet};

use cairn_format::envelope::Kind;
use cairn_format::ids::{ObjectHash, PackId, SegmentId, SessionId};
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::record::{Tomb, TombReason};
use rayon::prelude::*;

use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::segments;
use crate::repo::{Repository, Vault};
use crate::store::StoreError;

/// Packs that one tomb condemns, and replacements that it names, at most: with 65 bytes for each
/// pair it stays below the limit of a tomb.
const TOMB_PACKS_MAX: usize = 50_000;

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
    let mut done = Rewritten::default();
    let listed = segments::list(vault)?;
    let mut replaced = BTreeSet::new();
    for id in listed.keys() {
        vault.check_cancelled()?;
        let Some(read) = segments::read(vault, *id)? else { continue };
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
    for id in replaced.into_iter().filter(|id| listed.contains_key(id)) {
        vault.store.delete(&ObjectName::Index(id))?;
        catalog.index().remove_segment(&id)?;
        done.removed.push(id);
    }
    Ok(done)
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
