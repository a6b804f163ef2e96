//! Which packs snapshots need, and how much only some of them need, told without changing anything:
//! neither in the store nor in what collections remember.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use cairn_format::ids::PackId;
use cairn_format::names::PackKind;

use super::mark::{Marked, Thoroughness, mark};
use super::memo::Memos;
use super::walk::{Halt, Scope, walk};
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::ops::snapshots::SnapshotInfo;
use crate::repo::Repository;

/// The packs that hold what these snapshots need, and what that is stored against.
///
/// # Errors
/// As [`mark`].
pub fn packs_needed(
    repository: &Repository,
    catalog: &Catalog,
    snapshots: &[SnapshotInfo],
) -> Result<BTreeMap<PackId, PackKind>, Error> {
    let marked = marked(repository, catalog, snapshots)?;
    let mut needed = BTreeMap::new();
    for number in marked.live.packs() {
        let record = catalog.pack(number)?;
        needed.insert(record.id, record.kind);
    }
    Ok(needed)
}

/// Stored bytes, frames shared by plaintext, that are needed by some of these snapshots, or as bases of
/// what they need, and by none of those that stay.
///
/// # Errors
/// As [`mark`].
pub fn bytes_needed_by_others(
    repository: &Repository,
    catalog: &Catalog,
    snapshots: &[SnapshotInfo],
    stays: impl Fn(&SnapshotInfo) -> bool,
) -> Result<u64, Error> {
    let staying = snapshots.iter().filter(|one| stays(one)).cloned().collect::<Vec<_>>();
    let all = marked(repository, catalog, snapshots)?.live;
    let staying = marked(repository, catalog, &staying)?.live;
    let mut bytes = 0.0;
    for number in all.packs() {
        repository.check_cancelled()?;
        if all.count_in(number) == staying.count_in(number) {
            continue;
        }
        let mut position = 0;
        catalog.index().for_each_chunk_of_pack(number, &mut |_, place| {
            if all.get(number, position) && !staying.get(number, position) {
                let share = f64::from(place.bytes) / f64::from(place.plain_bytes.max(1));
                bytes += share * f64::from(place.frame_bytes);
            }
            position += 1;
            ControlFlow::Continue(())
        })?;
    }
    Ok(f64::ceil(bytes) as u64)
}

/// What snapshots need, and what that is stored against.
fn marked<'a>(
    repository: &'a Repository,
    catalog: &'a Catalog,
    snapshots: &[SnapshotInfo],
) -> Result<Marked<'a>, Error> {
    let mut marked = match remembered(repository, catalog, snapshots) {
        Ok(Some(marked)) => marked,
        Ok(None) | Err(Halt::Unclear | Halt::Useless | Halt::False) => {
            mark(repository, catalog, snapshots, &HashSet::new(), Thoroughness::Careful)?
        }
        Err(Halt::Failed(error)) => return Err(error),
    };
    marked.follow_bases(true, &HashSet::new())?;
    Ok(marked)
}

/// Marks with what is remembered, and compares some of it; `None` when that differs from what is
/// stored. What is remembered of other snapshots stays.
fn remembered<'a>(
    repository: &'a Repository,
    catalog: &'a Catalog,
    snapshots: &[SnapshotInfo],
) -> Result<Option<Marked<'a>>, Halt> {
    let memos = Memos::new(repository.vault(), catalog);
    let packs = memos.open(catalog, &|_| false)?;
    let mut marked = Marked::new(repository, catalog, &HashSet::new());
    let mut walked = walk(repository, &memos, &packs, (snapshots, Scope::Some), &mut marked)?;
    Ok(walked.recall.compare(repository, catalog)?.then_some(marked))
}
