//! Reading one file or stream, as it is cut; a file again while it changes.

use std::os::unix::ffi::OsStrExt as _;

use cairn_format::tree::{Meta, Timestamp};

use super::cut::Cutting;
use super::outlet::Outlet;
use super::{Feeder, SETTLE_MS};
use crate::context::{Counter, Remark};
use crate::error::Error;
use crate::ops::backup::assemble::{FileNumber, PendingFile, Step};
use crate::ops::backup::former::Former;
use crate::pipeline::ingest::BATCH_BYTES;
use crate::source::error::SourceError;
use crate::source::file::{FileReader, Place, Segment, Stillness};
use crate::source::profile::{self, ContentKind, HEAD_BYTES, Profile};
use crate::source::stream::StreamSource;

/// How often a file that changes while it is read is read.
const READS_MAX: u32 = 3;
/// Two changes within this time may leave the same times behind: Linux's clock for files ticks
/// every 1 to 10 ms. Milliseconds.
const TICK_MS: u32 = 20;

/// What the file's times say of the reading that just ended, and whether what was read is its
/// content at one moment.
///
/// A file that only grew is whole up to the length it had, as a log is. Its times do not tell
/// whether the rest was changed too; nor do they tell anything of changes within one tick. Then
/// it is read again and compared.
fn held_still(
    reader: &mut FileReader,
    opened: Timestamp,
) -> Result<(Stillness, bool), SourceError> {
    let still = reader.finish()?;
    let whole = match still {
        Stillness::Unchanged => {
            let certain = reader.is_device() || reader.fingerprint().settled(opened, TICK_MS);
            certain || reader.confirm()?
        }
        Stillness::Grown(_) => reader.is_watched() && reader.confirm()?,
        Stillness::Changed(_) | Stillness::Shrunk(_) => false,
    };
    Ok((still, whole))
}

impl<'a, 'scope> Feeder<'a, '_, 'scope>
where
    'a: 'scope,
{
    /// Reads a file that was opened, again while it changes, and says so when it never held still.
    pub(super) fn read_until_still(
        &mut self,
        (reader, mut opened): (&mut FileReader, Timestamp),
        place: &Place,
        mut number: FileNumber,
        key: [u8; 32],
        kind: ContentKind,
    ) -> Result<(), Error> {
        let shown = place.path().display().to_string();
        for read in 1..=READS_MAX {
            // What changes often is likely to change again: then a second look can tell more.
            if read > 1 || !reader.fingerprint().settled(opened, SETTLE_MS) {
                reader.watch();
            }
            let former = self
                .formers
                .of(Some((&self.recogniser, &key)), place.path().as_os_str().as_bytes());
            let parts = match self.read_file(reader, number, kind, former) {
                Ok(parts) => parts,
                Err(Error::Source(error)) => {
                    self.out.drop_uncut();
                    return self.give_up(&shown, &error);
                }
                Err(error) => return Err(error),
            };
            let (still, whole) = match held_still(reader, opened) {
                Ok(outcome) => outcome,
                Err(error) => return self.give_up(&shown, &error),
            };
            if !whole && read < READS_MAX {
                opened = self.time();
                let again = match FileReader::open(place) {
                    Ok(again) => again,
                    Err(error) => return self.give_up(&shown, &error),
                };
                *reader = again;
                number = self.next_file();
                self.out.step(Step::FileAgain(number))?;
                continue;
            }
            if !whole {
                self.note(Remark {
                    code: "source.changed",
                    subject: shown.clone(),
                    message: format!(
                        "{shown} changed each of the {READS_MAX} times it was read; what is stored may mix old and new"
                    ),
                });
            }
            let fingerprint = reader.fingerprint();
            let recognise = (still == Stillness::Unchanged
                && kind == ContentKind::File
                && fingerprint.settled(self.now, SETTLE_MS))
            .then_some((key, fingerprint));
            self.out.count(Counter::FilesDone, 1);
            return self.out.step(Step::FileEnd { parts, recognise });
        }
        Ok(())
    }

    fn give_up(&mut self, shown: &str, error: &SourceError) -> Result<(), Error> {
        self.remark(shown, error);
        self.out.step(Step::FileGone)
    }

    /// Reads and cuts one file; returns its number of parts.
    fn read_file(
        &mut self,
        reader: &mut FileReader,
        number: FileNumber,
        kind: ContentKind,
        former: Former<'a>,
    ) -> Result<u32, Error> {
        let profile = match self.options.profile {
            Some(profile) => profile,
            None => {
                let mut head = [0; HEAD_BYTES];
                let length = HEAD_BYTES.min(usize::try_from(reader.bytes()).unwrap_or(HEAD_BYTES));
                let head = head.get_mut(..length).unwrap_or_default();
                // Small files are one chunk either way: they need no look.
                let read = if length < HEAD_BYTES / 4 { 0 } else { reader.read_at(0, head)? };
                profile::detect(head.get(..read).unwrap_or_default(), reader.bytes(), kind)
            }
        };
        if profile != Profile::Cdc && reader.bytes() >= BATCH_BYTES as u64 {
            // The same places of the file meet in one batch every day, whatever comes before it: so
            // their deltas have the same bases.
            self.out.flush()?;
        }
        let mut cutting = Cutting::new(&self.out, self.cutters, profile, number, former);
        while let Some(segment) = reader.next_segment()? {
            match segment {
                Segment::Data { mut bytes, .. } => loop {
                    let wanted = usize::try_from(bytes).unwrap_or(usize::MAX);
                    let read =
                        cutting.fill(&mut self.out, wanted, |room| reader.read_into(room))?;
                    bytes = bytes.saturating_sub(read as u64);
                    if read == 0 || bytes == 0 {
                        break;
                    }
                },
                Segment::Hole { bytes, .. } => cutting.hole(&mut self.out, bytes)?,
            }
        }
        if reader.bytes() == 0 && !reader.is_device() {
            read_unsized(&mut self.out, reader, &mut cutting)?;
        }
        cutting.end(&mut self.out)
    }

    /// Reads a stream as a file at the root of the snapshot.
    ///
    /// # Errors
    /// Any failure, the source's included: half a dump is no backup.
    pub fn stream(&mut self, mut source: Box<dyn StreamSource>) -> Result<(), Error> {
        let name = source.name().as_bytes().to_vec();
        let meta = Meta { mode: 0o600, mtime: self.now, ..Meta::default() };
        let former = self.formers.of(None, &name);
        let number = self.next_file();
        self.out.count(Counter::EntriesScanned, 1);
        self.out.step(Step::File(Box::new(PendingFile { number, name, meta })))?;
        let profile = self.options.profile.unwrap_or(Profile::Cdc);
        let mut cutting = Cutting::new(&self.out, self.cutters, profile, number, former);
        loop {
            self.out.shared.check()?;
            if cutting.fill(&mut self.out, usize::MAX, |room| source.read(room))? == 0 {
                break;
            }
        }
        source.finish()?;
        let parts = cutting.end(&mut self.out)?;
        self.out.count(Counter::FilesDone, 1);
        self.out.step(Step::FileEnd { parts, recognise: None })
    }
}

/// Reads a file whose length says nothing, as those below /proc: until nothing more comes.
fn read_unsized(
    out: &mut Outlet<'_, '_, '_>,
    reader: &FileReader,
    cutting: &mut Cutting<'_>,
) -> Result<(), Error> {
    // One byte first: nearly all of these files are truly empty.
    let mut wanted = 1;
    let mut offset = 0;
    loop {
        let read = cutting.fill(out, wanted, |room| reader.read_at(offset, room))?;
        if read == 0 {
            return Ok(());
        }
        offset += read as u64;
        wanted = usize::MAX;
    }
}
