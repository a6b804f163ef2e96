//! What a repository holds.

use cairn_format::names::Folder;

use super::snapshots;
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
    let counts = repository.catalog()?.index().counts()?;
    report.chunks = counts.chunks;
    report.frames = counts.frames;
    Ok(report)
}
