//! One file or stream being cut into chunks, in the batch that is being filled.

use cairn_format::tree::Extent;

use super::outlet::{Outlet, Part};
use crate::chunk::Cutter;
use crate::context::Counter;
use crate::delta::Hint;
use crate::error::Error;
use crate::ops::backup::assemble::{FileNumber, Message};
use crate::ops::backup::former::Former;
use crate::pipeline::ingest::BATCH_BYTES;
use crate::source::error::SourceError;
use crate::source::profile::Profile;
use crate::timings::Stage;

/// Room for at least so many bytes is offered to every read.
const READ_BYTES_MIN: usize = 16 << 10;
const _: () = assert!(
    cairn_format::limits::CHUNK_BYTES_MAX as usize + READ_BYTES_MIN
        <= cairn_format::limits::FRAME_PLAIN_BYTES_MAX as usize
);

/// Cutters for each profile.
pub struct Cutters {
    pub content: Cutter,
    pub aligned: Cutter,
}

impl Cutters {
    const fn of(&self, profile: Profile) -> &Cutter {
        match profile {
            Profile::Cdc => &self.content,
            Profile::Aligned | Profile::Fixed => &self.aligned,
        }
    }
}

/// The file being cut into the current batch.
pub(super) struct Cutting<'c> {
    file: FileNumber,
    part: u32,
    cutter: &'c Cutter,
    former: Former<'c>,
    /// Where in the file the bytes begin that are in no chunk yet.
    offset: u64,
    /// Where the bytes begin in the batch that are in no chunk yet.
    uncut: usize,
    /// Chunks of the file in the current batch that are in no part yet.
    chunks: usize,
}

impl<'c> Cutting<'c> {
    /// Of file `file`, from its beginning, behind what is in the batch.
    pub(super) fn new(
        out: &Outlet<'_, '_, '_>,
        cutters: &'c Cutters,
        profile: Profile,
        file: FileNumber,
        former: Former<'c>,
    ) -> Self {
        let (cutter, uncut) = (cutters.of(profile), out.batch.data.len());
        Self { file, part: 0, cutter, former, offset: 0, uncut, chunks: 0 }
    }

    /// Reads at most `wanted` bytes into the current batch and cuts what can be cut; returns the
    /// bytes read, 0 at the end.
    pub(super) fn fill(
        &mut self,
        out: &mut Outlet<'_, '_, '_>,
        wanted: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, SourceError>,
    ) -> Result<usize, Error> {
        // There is always room for more than the largest chunk, so that every read makes progress.
        let limit = BATCH_BYTES.max(self.cutter.bytes_max() + READ_BYTES_MIN);
        if out.batch.data.len() + READ_BYTES_MIN > limit {
            self.next_batch(out)?;
        }
        let end = out.batch.data.len();
        let mut span = out.shared.vault.context.timings.span(Stage::Read, 0);
        let outcome = read(out.batch.data.room(wanted.min(limit - end)));
        let got = *outcome.as_ref().unwrap_or(&0);
        span.bytes(got as u64);
        drop(span);
        out.batch.data.advance(got);
        outcome?;
        out.bytes_read += got as u64;
        out.count(Counter::BytesRead, got as u64);
        self.cut(out, false)?;
        Ok(got)
    }

    /// Cuts the bytes that are in no chunk yet; at the end of a run (`end`) all of them.
    fn cut(&mut self, out: &mut Outlet<'_, '_, '_>, end: bool) -> Result<(), Error> {
        let vault = out.shared.vault;
        let mut span = vault.context.timings.span(Stage::Cut, 0);
        let mut cut_bytes = 0;
        loop {
            span.bytes(cut_bytes);
            let uncut = out.batch.data.get(self.uncut..).unwrap_or_default();
            if uncut.is_empty() || (!end && uncut.len() < self.cutter.bytes_max()) {
                return Ok(());
            }
            if out.batch.chunks.len() >= cairn_format::limits::FRAME_CHUNKS_MAX as usize {
                drop(span);
                self.next_batch(out)?;
                span = vault.context.timings.span(Stage::Cut, 0);
                cut_bytes = 0;
                continue;
            }
            let moves = matches!(self.cutter, Cutter::Content(_));
            let hint = Hint { file: self.file, moves, ..Hint::default() };
            let same = self.former.starting_at(self.offset).filter(|(id, bytes)| {
                let chunk = uncut.get(..*bytes as usize);
                moves && chunk.is_some_and(|chunk| out.shared.vault.keys.chunk_id(chunk) == *id)
            });
            let (bytes, hint) = match same {
                // The same bytes from the same start are cut alike: to cut them costs more.
                Some((id, bytes)) => (bytes, Hint { former: Some(id), same: true, ..hint }),
                None => {
                    let bytes = u32::try_from(self.cutter.next(uncut))
                        .map_err(|_| Error::Internal { part: "the chunker" })?;
                    let former = self.former.at(self.offset, bytes);
                    (bytes, Hint { former, ..hint })
                }
            };
            out.batch.chunks.push(bytes);
            out.batch.hints.push(hint);
            cut_bytes += u64::from(bytes);
            self.offset += u64::from(bytes);
            self.uncut += bytes as usize;
            self.chunks += 1;
        }
    }

    /// Ends the file's part in the current batch.
    fn end_part(&mut self, out: &mut Outlet<'_, '_, '_>) {
        if self.chunks > 0 {
            let chunks = std::mem::take(&mut self.chunks);
            out.parts.push(Part { file: self.file, part: self.part, chunks });
            self.part += 1;
        }
    }

    /// Hands the current batch over; the bytes that are in no chunk yet move to the next.
    fn next_batch(&mut self, out: &mut Outlet<'_, '_, '_>) -> Result<(), Error> {
        self.end_part(out);
        out.next_batch(std::mem::take(&mut self.uncut))
    }

    /// Ends what is before a hole, and notes the hole.
    pub(super) fn hole(&mut self, out: &mut Outlet<'_, '_, '_>, bytes: u64) -> Result<(), Error> {
        self.cut(out, true)?;
        self.end_part(out);
        let extents = vec![Extent::Hole { bytes }];
        let message = Message::Part { file: self.file, part: self.part, extents };
        self.part += 1;
        self.offset = self.offset.saturating_add(bytes);
        out.post(message)
    }

    /// Cuts what is left; returns the file's number of parts.
    pub(super) fn end(mut self, out: &mut Outlet<'_, '_, '_>) -> Result<u32, Error> {
        self.cut(out, true)?;
        self.end_part(out);
        if out.batch.is_full() {
            out.flush()?;
        }
        Ok(self.part)
    }
}
