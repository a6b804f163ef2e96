//! Which packs snapshots need, told without changing anything: neither in the store nor in what
//! collections remember.

use std::collections::{BTreeMap, HashSet};

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
    let mut marked = match remembered(repository, catalog, snapshots) {
        Ok(Some(marked)) => marked,
        Ok(None) | Err(Halt::Unclear | Halt::Useless | Halt::False) => {
            mark(repository, catalog, snapshots, &HashSet::new(), Thoroughness::Careful)?
        }
        Err(Halt::Failed(error)) => return Err(error),
    };
    marked.follow_bases(true, &HashSet::new())?;
    let mut needed = BTreeMap::new();
    for number in marked.live.packs() {
        let record = catalog.pack(number)?;
        needed.insert(record.id, record.kind);
    }
    Ok(needed)
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
