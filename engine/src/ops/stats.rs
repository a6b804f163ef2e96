//! What a repository holds.

use std::collections::HashMap;
use std::ops::ControlFlow;

use cairn_format::names::Folder;
use cairn_format::parity::ParityLayout;
use cairn_format::record::Parity;

use super::snapshots;
use crate::delta::patch;
use crate::error::Error;
use crate::repo::Repository;

/// Sizes and counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatsReport {
    /// Snapshots that can be read; 0 for a key that cannot read.
    pub snapshots: u64,
    /// Bytes in the files of all snapshots, each snapshot counted whole.
    pub bytes_protected: u64,
    /// Packs of data.
    pub packs_data: u64,
    /// Packs of tree nodes.
    pub packs_tree: u64,
    /// Stored bytes of data packs.
    pub bytes_data: u64,
    /// Stored bytes of tree packs.
    pub bytes_tree: u64,
    /// Index segments.
    pub segments: u64,
    /// Stored bytes of index segments.
    pub bytes_index: u64,
    /// Stored bytes of everything else.
    pub bytes_other: u64,
    /// Chunks in the index.
    pub chunks: u64,
    /// Frames in the index.
    pub frames: u64,
    /// Chunks held as deltas against others.
    pub delta_chunks: u64,
    /// Their plaintext, bytes.
    pub delta_bytes: u64,
    /// What they take in the store, bytes, without what names them and their bases.
    pub delta_bytes_stored: u64,
    /// What they would take about, bytes: at the ratio of what is stored without bases.
    pub delta_bytes_whole: u64,
    /// Chunks that deltas need, each counted once; they are kept as long as one delta is.
    pub base_chunks: u64,
    /// Their plaintext, bytes.
    pub base_bytes: u64,
    /// Those of them that are patches: no file has them, they hold what changed.
    pub patch_chunks: u64,
    /// Their plaintext, bytes.
    pub patch_bytes: u64,
    /// What they take in the store, bytes.
    pub patch_bytes_stored: u64,
    /// Parity, if it was chosen for the repository.
    pub parity: Option<Parity>,
    /// What it takes in the packs that the index names, bytes: by their lengths.
    pub parity_bytes: u64,
}

impl StatsReport {
    /// All stored bytes.
    #[must_use]
    pub fn bytes_stored(&self) -> u64 {
        self.bytes_data + self.bytes_tree + self.bytes_index + self.bytes_other
    }
}

/// Counts what is in the store and in the index.
///
/// # Errors
/// Failures of the store or the cache.
pub fn run(repository: &Repository) -> Result<StatsReport, Error> {
    let mut report = StatsReport::default();
    for folder in Folder::ALL {
        let (mut objects, mut bytes) = (0, 0);
        repository.store().list(folder, &mut |_, size| {
            objects += 1;
            bytes += size;
            Ok(())
        })?;
        match folder {
            Folder::DataPacks => (report.packs_data, report.bytes_data) = (objects, bytes),
            Folder::TreePacks => (report.packs_tree, report.bytes_tree) = (objects, bytes),
            Folder::Index => (report.segments, report.bytes_index) = (objects, bytes),
            _ => report.bytes_other += bytes,
        }
    }
    if repository.keys.can_read() {
        let found = snapshots::list(repository)?;
        report.snapshots = found.len() as u64;
        report.bytes_protected =
            found.iter().map(|snapshot| snapshot.record.statistics.bytes_total).sum();
    }
    report.parity = repository.vault().config.parity;
    let counts = repository.catalog()?.index().counts()?;
    report.chunks = counts.chunks;
    report.frames = counts.frames;
    count_deltas(repository, &mut report)?;
    Ok(report)
}

/// Counts what is held as deltas, from what the index says of packs.
fn count_deltas(repository: &Repository, report: &mut StatsReport) -> Result<(), Error> {
    let catalog = repository.catalog()?;
    let mut packs = Vec::new();
    catalog.index().for_each_pack(&mut |number, pack, _| {
        packs.push(number);
        let bytes = u64::from(pack.bytes);
        let layout = report.parity.and_then(|parity| ParityLayout::of_object(bytes, parity));
        report.parity_bytes += layout.map_or(0, |layout| bytes - layout.protected_bytes);
        ControlFlow::Continue(())
    })?;
    let mut bases = HashMap::new();
    let (mut whole, mut whole_stored) = (0_u64, 0_u64);
    for number in packs {
        let frames = catalog.frames(number)?;
        for (at, frame) in frames.iter().enumerate() {
            let (plain, stored) = (u64::from(frame.plain_bytes()), u64::from(frame.sealed_bytes));
            if frame.bases.is_empty() {
                whole += plain;
                whole_stored += stored;
                continue;
            }
            report.delta_chunks += frame.chunks.len() as u64;
            report.delta_bytes += plain;
            report.delta_bytes_stored += stored;
            bases.extend(frame.bases.iter().map(|base| (base.id, base.bytes)));
            let before = at.checked_sub(1).and_then(|at| frames.get(at));
            if let Some(patch) = before.filter(|_| patch::is_patched(before, &frame.bases)) {
                report.patch_chunks += patch.chunks.len() as u64;
                report.patch_bytes += u64::from(patch.plain_bytes());
                report.patch_bytes_stored += u64::from(patch.sealed_bytes);
            }
        }
    }
    report.base_chunks = bases.len() as u64;
    report.base_bytes = bases.values().map(|bytes| u64::from(*bytes)).sum();
    let ratio = whole_stored as f64 / whole.max(1) as f64;
    report.delta_bytes_whole = (report.delta_bytes as f64 * ratio) as u64;
    Ok(())
}
