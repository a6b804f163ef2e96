//! What a repository holds.

use std::collections::HashMap;
use std::ops::ControlFlow;

use cairn_format::ids::ChunkId;
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
    count_deltas(repository, &mut report)?;
    Ok(report)
}

/// What one pack says of deltas.
#[derive(Default)]
struct PackDeltas {
    /// Frames with bases.
    based: Vec<u32>,
    /// Chunks in frames without bases, each with its length and what its frame takes. Other chunks
    /// of that frame say 0, so that the sum is right.
    whole: HashMap<ChunkId, (u32, u32)>,
}

/// Counts what is held as deltas, from what the index says of packs. A backup takes its bases from
/// packs that were there before it: a base beside its frame in one pack is the patch of that frame.
fn count_deltas(repository: &Repository, report: &mut StatsReport) -> Result<(), Error> {
    let index = repository.catalog()?.index();
    let mut bases = HashMap::new();
    let (mut whole, mut whole_stored) = (0_u64, 0_u64);
    let mut failure = None;
    index.for_each_pack(&mut |number, _, _| {
        let mut last = None;
        let mut pack = PackDeltas::default();
        let seen = index.for_each_chunk_of_pack(number, &mut |id, place| {
            let begins = last.replace(place.frame_number) != Some(place.frame_number);
            let stored = if begins { place.frame_bytes } else { 0 };
            if place.based {
                report.delta_chunks += 1;
                report.delta_bytes += u64::from(place.bytes);
                report.delta_bytes_stored += u64::from(stored);
                if begins {
                    pack.based.push(place.frame_number);
                }
            } else {
                whole += u64::from(place.bytes);
                whole_stored += u64::from(stored);
                pack.whole.insert(*id, (place.bytes, stored));
            }
            ControlFlow::Continue(())
        });
        let listed = seen.and_then(|()| {
            pack.based.iter().try_for_each(|frame| {
                for (id, bytes) in index.frame_bases(number, *frame)? {
                    if let Some((bytes, stored)) = pack.whole.remove(&id) {
                        report.patch_chunks += 1;
                        report.patch_bytes += u64::from(bytes);
                        report.patch_bytes_stored += u64::from(stored);
                    }
                    bases.insert(id, bytes);
                }
                Ok(())
            })
        });
        match listed {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = failure {
        return Err(error.into());
    }
    report.base_chunks = bases.len() as u64;
    report.base_bytes = bases.values().map(|bytes| u64::from(*bytes)).sum();
    let ratio = whole_stored as f64 / whole.max(1) as f64;
    report.delta_bytes_whole = (report.delta_bytes as f64 * ratio) as u64;
    Ok(())
}
