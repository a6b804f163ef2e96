//! Rebuilds the index from the packs alone: directories are read, segments written anew.

use cairn_format::ids::PackId;
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::segment::PackSection;
use rayon::prelude::*;

use crate::context::Remark;
use crate::error::Error;
use crate::index::segments;
use crate::pack::reader::PackReader;
use crate::parity::read_pack;
use crate::repo::Repository;
use crate::store::StoreError;
use crate::store::memory::MemoryStore;

/// What a repair did, or with a dry run would do.
#[derive(Clone, Debug, Default)]
pub struct RepairIndexReport {
    /// Packs that no readable segment described, and that now are described.
    pub packs_added: u64,
    /// Segments written.
    pub segments_written: u64,
    /// Damaged segments removed.
    pub segments_removed: u64,
    /// Packs whose directory cannot be read.
    pub unreadable: Vec<Remark>,
}

/// What the directory of a damaged pack says, if the pack's parity gives it.
fn out_of_parity(
    repository: &Repository,
    kind: PackKind,
    id: PackId,
    damage: Error,
) -> Result<PackSection, Error> {
    let bytes = match read_pack(repository.store(), kind, id) {
        Ok((bytes, _)) => bytes,
        Err(error) if error.is_damage() => return Err(damage),
        Err(error) => return Err(error),
    };
    let vault = repository.vault();
    let length = bytes.len() as u64;
    let shelf = MemoryStore::new();
    shelf.overwrite(ObjectName::Pack(kind, id), bytes);
    PackReader::new(&shelf, &vault.keys).directory(kind, id, length, &vault.trust)
}

/// Describes every pack that no readable segment describes, and removes segments that are damaged.
///
/// # Errors
/// [`Error::Role`]: only an owner or maintainer can read directories and vouch for them; failures of
/// the store.
pub fn run(repository: &Repository, dry_run: bool) -> Result<RepairIndexReport, Error> {
    repository.require_owner("repair the index")?;
    let vault = repository.vault();
    let catalog = repository.catalog()?;
    let mut report = RepairIndexReport::default();
    let unlisted = catalog.unlisted_packs(vault)?;
    repository.monitor().stage("reading pack directories", None);
    let reader = PackReader::new(repository.store(), &vault.keys);
    let read = unlisted
        .par_iter()
        .map(|(kind, id, bytes)| {
            vault.check_cancelled()?;
            let section = match reader.directory(*kind, *id, *bytes, &vault.trust) {
                Err(error) if error.is_damage() => out_of_parity(repository, *kind, *id, error),
                section => section,
            };
            Ok((ObjectName::Pack(*kind, *id), section))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let mut sections: Vec<PackSection> = Vec::new();
    for (name, outcome) in read {
        match outcome {
            Ok(section) => sections.push(section),
            Err(Error::Store(StoreError::NotFound { .. })) => {}
            Err(error) if error.is_damage() => {
                let remark = Remark::of(name, &error);
                repository.monitor().warn(remark.clone());
                report.unreadable.push(remark);
            }
            Err(error) => return Err(error),
        }
    }
    // Packs of interrupted runs of this host are in the local index but in no segment.
    let leftovers = catalog.leftover_sections(vault)?;
    report.packs_added = (sections.len() + leftovers.len()) as u64;
    let damaged = catalog.damaged_segments();
    report.segments_removed = damaged.len() as u64;
    if dry_run {
        return Ok(report);
    }
    for section in &sections {
        catalog.add_pending(section)?;
    }
    sections.extend(leftovers);
    for (segment, packs) in segments::write(vault, 0, &[], sections)? {
        report.segments_written += 1;
        catalog.commit(segment, &packs)?;
    }
    // Only now: everything they may have described is described again.
    for remark in damaged {
        if let Ok(name @ ObjectName::Index(_)) = ObjectName::parse(&remark.subject) {
            vault.store.delete(&name)?;
        }
    }
    Ok(report)
}
