//! Writes the content of one file of a snapshot to a stream, reading ahead.

use std::io::Write;

use cairn_format::tree::{Entry, Extent, Node};

use super::snapshots::SnapshotInfo;
use crate::context::Counter;
use crate::error::Error;
use crate::repo::Repository;
use crate::tree::reader;

/// Bytes of the file that are fetched at once.
const WINDOW_BYTES: u64 = 16 << 20;

/// Writes the file at `path` to `out`; returns its length in bytes.
///
/// # Errors
/// [`Error::NoPath`], [`Error::PathKind`] when it is not a regular file; damage, before any wrong
/// byte is written; [`Error::Output`] when `out` fails.
pub fn run(
    repository: &Repository,
    snapshot: &SnapshotInfo,
    path: &[u8],
    out: &mut dyn Write,
) -> Result<u64, Error> {
    let nodes = repository.nodes(snapshot)?;
    let shown = || String::from_utf8_lossy(path).into_owned();
    let content = match reader::lookup_path(&nodes, &snapshot.record.root, path)? {
        Some(Entry { node: Node::File(content), .. }) => content,
        Some(_) => {
            let expected = "a regular file";
            return Err(Error::PathKind { snapshot: snapshot.id, path: shown(), expected });
        }
        None => return Err(Error::NoPath { snapshot: snapshot.id, path: shown() }),
    };
    let mut window = Vec::new();
    let mut window_bytes = 0;
    reader::extents(&nodes, &content, &mut |_, extent| {
        window.push(extent);
        if let Extent::Chunk { bytes, .. } = extent {
            window_bytes += u64::from(bytes);
        }
        if window_bytes >= WINDOW_BYTES {
            write_window(repository, snapshot, &std::mem::take(&mut window), out)?;
            window_bytes = 0;
        }
        Ok(())
    })?;
    write_window(repository, snapshot, &window, out)?;
    out.flush().map_err(Error::Output)?;
    Ok(content.bytes)
}

fn write_window(
    repository: &Repository,
    snapshot: &SnapshotInfo,
    extents: &[Extent],
    out: &mut dyn Write,
) -> Result<(), Error> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let ids = extents
        .iter()
        .filter_map(|extent| match extent {
            Extent::Chunk { id, .. } => Some(*id),
            Extent::Hole { .. } => None,
        })
        .collect::<Vec<_>>();
    let mut chunks = repository.data_chunks(snapshot, &ids)?.into_iter();
    for extent in extents {
        match extent {
            Extent::Chunk { id, bytes } => {
                let chunk = chunks.next().ok_or(Error::ChunkMissing { chunk: *id })?;
                if chunk.len() != *bytes as usize {
                    return Err(Error::ChunkMissing { chunk: *id });
                }
                out.write_all(&chunk).map_err(Error::Output)?;
            }
            Extent::Hole { bytes } => {
                let mut left = *bytes;
                while left > 0 {
                    let part = left.min(ZEROS.len() as u64);
                    out.write_all(&ZEROS[..usize::try_from(part).unwrap_or(ZEROS.len())])
                        .map_err(Error::Output)?;
                    left -= part;
                }
            }
        }
        repository.monitor().count(Counter::BytesRestored, extent.bytes());
    }
    Ok(())
}
