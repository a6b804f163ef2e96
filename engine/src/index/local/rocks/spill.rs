//! Sorted runs of places in a temporary file, and their merging.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cairn_format::ids::ChunkId;

use super::index::RocksIndex;
use super::open::LOAD_FILES;
use super::record::{PLACE_BYTES, encode_place};
use crate::index::local::{ChunkPlace, IndexError, PackNumber};

/// A chunk's id and its place.
const ENTRY_BYTES: usize = ChunkId::LEN + PLACE_BYTES;
/// Least buffer of a run that is merged, entries.
const BUFFER_ENTRIES_MIN: usize = 64;

/// Sorted runs in one file without a name: it ends with the process.
pub(super) struct Spill {
    file: File,
    /// For errors.
    path: PathBuf,
    /// Where each run ends, bytes; it begins where the one before ends.
    ends: Vec<u64>,
}

impl Spill {
    pub(super) fn create(folder: &Path) -> Result<Self, IndexError> {
        let path = folder.join(format!("{LOAD_FILES}spill"));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&path).map_err(IndexError::io("create", &path))?;
        fs::remove_file(&path).map_err(IndexError::io("delete", &path))?;
        Ok(Self { file, path, ends: Vec::new() })
    }

    /// Adds a run, which must be sorted by chunk and pack.
    pub(super) fn add_run(&mut self, run: &[(ChunkId, ChunkPlace)]) -> Result<(), IndexError> {
        let mut out = BufWriter::with_capacity(1 << 16, &self.file);
        let mut end = self.ends.last().copied().unwrap_or_default();
        let written = run
            .iter()
            .try_for_each(|(id, place)| {
                out.write_all(id.as_bytes())?;
                out.write_all(&encode_place(place))?;
                end += ENTRY_BYTES as u64;
                Ok(())
            })
            .and_then(|()| out.flush());
        written.map_err(IndexError::io("write", &self.path))?;
        self.ends.push(end);
        Ok(())
    }

    /// Begins to read all runs as one, with buffers of about `memory_bytes` in all.
    pub(super) fn merge(&self, memory_bytes: usize) -> Result<Merge<'_>, IndexError> {
        let entries = memory_bytes / ENTRY_BYTES / self.ends.len().max(1);
        let buffer_bytes = entries.max(BUFFER_ENTRIES_MIN) * ENTRY_BYTES;
        let mut merge =
            Merge { spill: self, buffer_bytes, runs: Vec::new(), heap: BinaryHeap::new() };
        let mut start = 0;
        for &end in &self.ends {
            merge.runs.push(Run { next: start, end, buffer: Vec::new(), used: 0 });
            start = end;
        }
        for run in 0..merge.runs.len() {
            merge.refill_heap(run)?;
        }
        Ok(merge)
    }
}

struct Run {
    /// Where in the file the buffer ends.
    next: u64,
    end: u64,
    buffer: Vec<u8>,
    used: usize,
}

/// The next entry of a run. Derived order: by chunk, then pack; a run has each pair once.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    id: [u8; ChunkId::LEN],
    pack: PackNumber,
    place: [u8; PLACE_BYTES],
    run: usize,
}

/// All runs as one, by chunk and pack.
pub(super) struct Merge<'a> {
    spill: &'a Spill,
    buffer_bytes: usize,
    runs: Vec<Run>,
    /// The next entry of each run that is not at its end.
    heap: BinaryHeap<Reverse<Head>>,
}

impl Merge<'_> {
    /// The next place; damage is reported on behalf of `index`.
    pub(super) fn next(
        &mut self,
        index: &RocksIndex,
    ) -> Result<Option<(ChunkId, ChunkPlace)>, IndexError> {
        let Some(Reverse(Head { id, place, run, .. })) = self.heap.pop() else { return Ok(None) };
        self.refill_heap(run)?;
        Ok(Some((ChunkId::from_bytes(id), index.place(&place)?)))
    }

    /// Moves the next entry of a run to the heap.
    fn refill_heap(&mut self, number: usize) -> Result<(), IndexError> {
        let Some(run) = self.runs.get_mut(number) else { return Ok(()) };
        if run.used == run.buffer.len() {
            let left = usize::try_from(run.end - run.next).unwrap_or(usize::MAX);
            run.buffer.resize(left.min(self.buffer_bytes), 0);
            run.used = 0;
            self.spill
                .file
                .read_exact_at(&mut run.buffer, run.next)
                .map_err(IndexError::io("read", &self.spill.path))?;
            run.next += run.buffer.len() as u64;
        }
        let rest = run.buffer.get(run.used..).unwrap_or_default();
        let entry = rest.split_first_chunk().and_then(|(id, rest)| {
            let place: &[u8; PLACE_BYTES] = rest.first_chunk()?;
            Some((*id, *place))
        });
        if let Some((id, place)) = entry {
            // The pack stands first in an encoded place.
            let [a, b, c, d, ..] = place;
            let pack = PackNumber(u32::from_le_bytes([a, b, c, d]));
            self.heap.push(Reverse(Head { id, pack, place, run: number }));
            run.used += ENTRY_BYTES;
        }
        Ok(())
    }
}
