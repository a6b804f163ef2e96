//! What a process that was not the first learned about files and packs, kept for the next one.
//!
//! Two jobs that always run at the same hour would otherwise never remember what the second one
//! read and verified. Packs and segments are not handed over: they are loaded from the store.

use std::fs;
use std::path::{Path, PathBuf};

use cairn_format::ids::PackId;

use super::db::{Access, Budget, Db, Table};
use super::index::{BATCH_BYTES, RocksIndex};
use super::layers::Layers;
use super::open::{DATABASE, check_identity, random_name, remove_tree};
use super::record::{decode_ledger, encode_ledger};
use crate::index::local::{CopyId, IndexError, LocalIndex, LocalOptions};

const HANDOVER: &str = "handover-";

/// Readies an overlay that is about to be closed; returns the name its folder is to get, or
/// `None` when it holds nothing of use.
pub(super) fn prepare(overlay: &Layers) -> Result<Option<PathBuf>, IndexError> {
    let top = overlay.top();
    let holds = |table| Ok::<bool, IndexError>(top.cursor(table, &[], &[])?.pair()?.is_some());
    if !holds(Table::Files)? && !holds(Table::Ledger)? {
        return Ok(None);
    }
    // An overlay has no log.
    top.flush(Table::Files)?;
    top.flush(Table::Ledger)?;
    let root = overlay.root();
    Ok(Some(root.join(format!("{HANDOVER}{}", random_name(root)?))))
}

/// Takes over what overlays left, and deletes it. What cannot be read is deleted unread.
///
/// # Errors
/// When the folder cannot be listed or tidied.
pub(super) fn take_all(
    index: &RocksIndex,
    root: &Path,
    copy: CopyId,
    options: LocalOptions,
) -> Result<(), IndexError> {
    for entry in fs::read_dir(root).map_err(IndexError::io("list", root))? {
        let entry = entry.map_err(IndexError::io("list", root))?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(HANDOVER)) {
            let folder = entry.path();
            let _ = take(index, &folder, copy, options);
            remove_tree(&folder)?;
        }
    }
    Ok(())
}

fn take(
    index: &RocksIndex,
    folder: &Path,
    copy: CopyId,
    options: LocalOptions,
) -> Result<(), Unread> {
    let budget = Budget::new(options);
    // Errors name, and damage is noted in, the folder that will be deleted.
    let left = Db::open(&folder.join(DATABASE), folder, folder, Access::ReadOnly, &budget)
        .map_err(|_| Unread)?;
    check_identity(&left, copy).map_err(|_| Unread)?;
    take_files(index, &left).map_err(|_| Unread)?;
    take_ledger(index, &left).map_err(|_| Unread)
}

/// What an overlay left could not be taken over, or not all of it.
struct Unread;

fn take_files(index: &RocksIndex, left: &Db) -> Result<(), IndexError> {
    let mut batch = index.layers.batch();
    each_pair(left, Table::Files, |key, value| {
        // An empty value is a deletion: see `Layers`.
        match value.is_empty() {
            true => batch.delete(Table::Files, key)?,
            false => batch.put(Table::Files, key, value)?,
        }
        if batch.bytes() > BATCH_BYTES {
            std::mem::replace(&mut batch, index.layers.batch()).write()?;
        }
        Ok(())
    })?;
    batch.write()
}

/// Of two verifications the newer one counts.
fn take_ledger(index: &RocksIndex, left: &Db) -> Result<(), IndexError> {
    let mut batch = index.layers.batch();
    each_pair(left, Table::Ledger, |key, value| {
        let (Ok(id), Some(entry)) = (PackId::from_slice(key), decode_ledger(value)) else {
            return Ok(());
        };
        let newest =
            index.ledger_get(&id)?.is_none_or(|known| known.verified_ms < entry.verified_ms);
        if newest && index.number_of(&id)?.is_some() {
            batch.put(Table::Ledger, key, &encode_ledger(&entry))?;
        }
        Ok(())
    })?;
    batch.write()
}

fn each_pair(
    left: &Db,
    table: Table,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), IndexError>,
) -> Result<(), IndexError> {
    let mut cursor = left.cursor(table, &[], &[])?;
    while let Some((key, value)) = cursor.pair()? {
        each(key, value)?;
        cursor.advance();
    }
    Ok(())
}
