//! The first half of a backup: walks the source, recognises what did not change, reads and cuts
//! the rest into batches, and hands batches to the workers.

use std::collections::HashSet;
use std::sync::mpsc::{self, Sender};

use cairn_format::names::PackKind;
use cairn_format::tree::{Entry, Extent, LinkGroup, Meta, Node, Timestamp};
use parking_lot::Mutex;

use super::assemble::{FileNumber, Message, PendingFile, Step};
use super::cache::{Recogniser, key_of};
use super::former::{Former, Formers};
use crate::chunk::Cutter;
use crate::context::{Counter, Remark};
use crate::delta::Hint;
use crate::error::{Error, Explain};
use crate::pipeline::budget::Budget;
use crate::pipeline::failure::Failure;
use crate::pipeline::ingest::{BATCH_BYTES, Batch, Ingest};
use crate::repo::Vault;
use crate::source::error::SourceError;
use crate::source::file::{FileReader, Place, Segment, Stillness};
use crate::source::profile::{self, ContentKind, HEAD_BYTES, Profile};
use crate::source::stream::StreamSource;
use crate::source::walk::{Event, Leaf, LeafKind, Walk};
use crate::timings::Stage;

/// Batches under way to and in the workers, bytes.
const BATCHES_BYTES_MAX: usize = 24 << 20;
/// Steps under way to the assembler.
const STEPS_MAX: usize = 8192;
/// Messages to the assembler that are sent at once.
const OUTBOX_MAX: usize = 256;
/// Room for at least so many bytes is offered to every read.
const READ_BYTES_MIN: usize = 16 << 10;
/// Entries that a walk hands over at once, and how many such batches it is ahead. Each entry keeps
/// its directory open.
const WALK_BATCH: usize = 32;
const WALK_BATCHES_AHEAD: usize = 4;
/// How often a file that changes while it is read is read.
const READS_MAX: u32 = 3;
/// A file must have rested so long before its fingerprint is trusted later, milliseconds.
const SETTLE_MS: u32 = 2_000;
/// Two changes within this time may leave the same times behind: Linux's clock for files ticks
/// every 1 to 10 ms. Milliseconds.
const TICK_MS: u32 = 20;
/// Remarks on single entries that are kept for the report; all are counted and shown.
const REMARKS_KEPT_MAX: usize = 1_000;
const _: () = assert!(
    cairn_format::limits::CHUNK_BYTES_MAX as usize + READ_BYTES_MIN
        <= cairn_format::limits::FRAME_PLAIN_BYTES_MAX as usize
);

/// Emptied batches kept for reuse.
const SPARE_BATCHES_MAX: usize = 12;

/// What feeder and workers share.
pub struct Shared<'a> {
    pub ingest: &'a Ingest<'a>,
    pub vault: &'a Vault,
    pub steps: Budget,
    batches: Budget,
    failure: &'a Failure,
    spare: Mutex<Vec<Batch>>,
}

impl<'a> Shared<'a> {
    /// Nothing under way yet. Why a task fails is noted in `failure`.
    pub fn new(ingest: &'a Ingest<'a>, vault: &'a Vault, failure: &'a Failure) -> Self {
        Self {
            ingest,
            vault,
            steps: Budget::new(STEPS_MAX),
            batches: Budget::new(BATCHES_BYTES_MAX),
            failure,
            spare: Mutex::default(),
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.failure.check()?;
        self.vault.check_cancelled()
    }

    /// What a worker does with a batch.
    fn work(&self, filled: Filled, messages: &Sender<Vec<Message>>) {
        let Filled { mut batch, parts } = filled;
        let bytes = batch.data.len();
        let stored = self.failure.check().and_then(|()| self.ingest.store(PackKind::Data, &batch));
        match stored {
            Ok(ids) => {
                let mut known = ids.into_iter().zip(batch.chunks.iter().copied());
                let parts = parts.into_iter().map(|Part { file, part, chunks }| {
                    let extents = known.by_ref().take(chunks);
                    let extents = extents.map(|(id, bytes)| Extent::Chunk { id, bytes }).collect();
                    Message::Part { file, part, extents }
                });
                // The assembler is gone only when the backup has failed already.
                let _ = messages.send(parts.collect());
            }
            Err(error) => {
                self.failure.note(error);
                let _ = messages.send(vec![Message::Failed]);
            }
        }
        batch.data.clear();
        batch.chunks.clear();
        batch.hints.clear();
        let mut spare = self.spare.lock();
        if spare.len() < SPARE_BATCHES_MAX {
            spare.push(batch);
        }
        drop(spare);
        self.batches.give(bytes);
    }
}

struct Part {
    file: FileNumber,
    part: u32,
    chunks: usize,
}

/// A batch, and which file each run of its chunks belongs to.
struct Filled {
    batch: Batch,
    parts: Vec<Part>,
}

/// Cutters for each profile.
pub struct Cutters {
    pub content: Cutter,
    pub aligned: Cutter,
}

/// Totals of the first half.
#[derive(Debug, Default)]
pub struct Fed {
    /// Bytes read.
    pub bytes_read: u64,
    /// Entries that could not be read.
    pub unread: u64,
    /// Remarks on them, the first so many.
    pub remarks: Vec<Remark>,
}

/// How files are treated.
pub struct FeedOptions {
    /// Cut every file this way instead of looking at it.
    pub profile: Option<Profile>,
    /// Read files even if they seem unchanged.
    pub reread: bool,
}

fn path_of(place: &Place) -> &[u8] {
    use std::os::unix::ffi::OsStrExt as _;
    place.path().as_os_str().as_bytes()
}

/// Reads sources, in one thread; workers run in `scope`.
pub struct Feeder<'a, 's, 'scope> {
    shared: &'scope Shared<'a>,
    scope: &'s rayon::Scope<'scope>,
    messages: Sender<Vec<Message>>,
    /// What is to be sent next.
    outbox: Vec<Message>,
    recogniser: Recogniser<'a>,
    cutters: &'a Cutters,
    formers: &'a Formers<'a>,
    options: FeedOptions,
    now: Timestamp,
    batch: Batch,
    parts: Vec<Part>,
    files: FileNumber,
    linked: HashSet<LinkGroup>,
    fed: Fed,
}

fn timestamp(ms: i64) -> Timestamp {
    Timestamp {
        seconds: ms.div_euclid(1000),
        nanoseconds: u32::try_from(ms.rem_euclid(1000)).unwrap_or_default() * 1_000_000,
    }
}

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

/// The file being cut into the current batch.
struct Cutting<'c> {
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

/// Walks beside the feeder: most of a walk is waiting for the kernel. Ends when nobody listens.
fn walk_ahead(mut walk: Walk, ahead: &mpsc::SyncSender<Vec<Event>>) {
    loop {
        let batch = walk.by_ref().take(WALK_BATCH).collect::<Vec<_>>();
        if batch.is_empty() || ahead.send(batch).is_err() {
            return;
        }
    }
}

impl<'a, 's, 'scope> Feeder<'a, 's, 'scope>
where
    'a: 'scope,
{
    /// A feeder with nothing read.
    pub fn new(
        shared: &'scope Shared<'a>,
        scope: &'s rayon::Scope<'scope>,
        messages: Sender<Vec<Message>>,
        recogniser: Recogniser<'a>,
        cutters: &'a Cutters,
        formers: &'a Formers<'a>,
        options: FeedOptions,
    ) -> Self {
        let now = timestamp(shared.vault.context.clock.now_ms());
        Self {
            shared,
            scope,
            messages,
            outbox: Vec::new(),
            recogniser,
            cutters,
            formers,
            options,
            now,
            batch: Batch::default(),
            parts: Vec::new(),
            files: 0,
            linked: HashSet::new(),
            fed: Fed::default(),
        }
    }

    /// Ends the tree and hands the last batch over.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when a task failed.
    pub fn finish(mut self) -> Result<Fed, Error> {
        self.flush()?;
        self.step(Step::End)?;
        self.send()?;
        Ok(self.fed)
    }

    /// Reads a file tree.
    ///
    /// # Errors
    /// Failures that are not the source's. What cannot be read is counted and reported.
    pub fn files(&mut self, walk: Walk) -> Result<(), Error> {
        std::thread::scope(|threads| {
            let (ahead, events) = mpsc::sync_channel(WALK_BATCHES_AHEAD);
            threads.spawn(move || walk_ahead(walk, &ahead));
            // When this ends early, nobody takes what the walk sends, and it ends too.
            events.into_iter().flatten().try_for_each(|event| self.event(event))
        })
    }

    fn event(&mut self, event: Event) -> Result<(), Error> {
        self.shared.check()?;
        match event {
            Event::Enter { name, meta, .. } => {
                self.count(Counter::EntriesScanned, 1);
                self.step(Step::Enter { name, meta })?;
            }
            Event::Leave => self.step(Step::Leave)?,
            Event::Leaf(leaf) => {
                self.count(Counter::EntriesScanned, 1);
                self.leaf(*leaf)?;
            }
            Event::Unreadable { path, error } | Event::Incomplete { path, error } => {
                self.remark(&path.display().to_string(), &error);
            }
            Event::Followed { root, real } => self.shared.vault.monitor().warn(Remark {
                code: "source.followed",
                subject: root.display().to_string(),
                message: format!(
                    "{} leads through a symbolic link; {} is backed up",
                    root.display(),
                    real.display()
                ),
            }),
        }
        Ok(())
    }

    fn leaf(&mut self, leaf: Leaf) -> Result<(), Error> {
        let node = match leaf.kind {
            LeafKind::File { ref place, .. } => {
                let place = place.clone();
                return self.file(leaf, &place, ContentKind::File);
            }
            LeafKind::DeviceData { ref place } => {
                let place = place.clone();
                return self.file(leaf, &place, ContentKind::Device);
            }
            LeafKind::Symlink { target } => Node::Symlink(target),
            LeafKind::Fifo => Node::Fifo,
            LeafKind::Socket => Node::Socket,
            LeafKind::CharDevice { major, minor } => Node::CharDevice { major, minor },
            LeafKind::BlockDevice { major, minor } => Node::BlockDevice { major, minor },
        };
        let entry = Entry { name: leaf.name, node, meta: leaf.meta };
        self.step(Step::Entry(Box::new(entry), None))
    }

    fn file(&mut self, leaf: Leaf, place: &Place, kind: ContentKind) -> Result<(), Error> {
        let Leaf { path, name, mut meta, fingerprint, .. } = leaf;
        if let Some(group) = meta.link
            && !self.linked.insert(group)
        {
            let meta = Box::new(meta);
            return self.step(Step::Linked { name, meta, group });
        }
        let key = {
            use std::os::unix::ffi::OsStrExt as _;
            key_of(path.as_os_str().as_bytes())
        };
        if kind == ContentKind::File
            && !self.options.reread
            && let Some((content, renew)) = self.recogniser.recognise(&key, &fingerprint)?
        {
            self.count(Counter::FilesUnchanged, 1);
            self.count(Counter::BytesUnchanged, content.bytes);
            let entry = Entry { name, node: Node::File(content), meta };
            return self.step(Step::Entry(Box::new(entry), renew.then_some((key, fingerprint))));
        }
        let opened = self.time();
        let mut reader = match FileReader::open(place) {
            Ok(reader) => reader,
            Err(error) => {
                self.remark(&path.display().to_string(), &error);
                return Ok(());
            }
        };
        // The walk saw it some entries ago; what is read is of this time.
        let (seconds, nanoseconds) = reader.fingerprint().mtime;
        meta.mtime = Timestamp { seconds, nanoseconds };
        let number = self.next_file();
        self.step(Step::File(Box::new(PendingFile { number, name, meta })))?;
        self.read_until_still((&mut reader, opened), place, number, key, kind)
    }

    fn read_until_still(
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
            let former = self.formers.of(Some((&self.recogniser, &key)), path_of(place));
            let parts = match self.read_file(reader, number, kind, former) {
                Ok(parts) => parts,
                Err(Error::Source(error)) => {
                    self.drop_uncut();
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
                self.step(Step::FileAgain(number))?;
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
            self.count(Counter::FilesDone, 1);
            return self.step(Step::FileEnd { parts, recognise });
        }
        Ok(())
    }

    /// The time of day.
    fn time(&self) -> Timestamp {
        timestamp(self.shared.vault.context.clock.now_ms())
    }

    /// Forgets bytes that are in no chunk, and chunks that are in no part: their file is given up.
    fn drop_uncut(&mut self) {
        let chunks = self.parts.iter().map(|part| part.chunks).sum();
        self.batch.chunks.truncate(chunks);
        self.batch.hints.truncate(chunks);
        let bytes = self.batch.chunks.iter().map(|bytes| *bytes as usize).sum();
        self.batch.data.truncate(bytes);
    }

    fn give_up(&mut self, shown: &str, error: &SourceError) -> Result<(), Error> {
        self.remark(shown, error);
        self.step(Step::FileGone)
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
            self.flush()?;
        }
        let mut cutting = self.cutting(number, profile, former);
        while let Some(segment) = reader.next_segment()? {
            match segment {
                Segment::Data { mut bytes, .. } => loop {
                    let wanted = usize::try_from(bytes).unwrap_or(usize::MAX);
                    let read = self.fill(&mut cutting, wanted, |room| reader.read_into(room))?;
                    bytes = bytes.saturating_sub(read as u64);
                    if read == 0 || bytes == 0 {
                        break;
                    }
                },
                Segment::Hole { bytes, .. } => self.hole(&mut cutting, bytes)?,
            }
        }
        if reader.bytes() == 0 && !reader.is_device() {
            self.read_unsized(reader, &mut cutting)?;
        }
        self.end_cutting(cutting)
    }

    /// Reads a file whose length says nothing, as those below /proc: until nothing more comes.
    fn read_unsized(
        &mut self,
        reader: &FileReader,
        cutting: &mut Cutting<'_>,
    ) -> Result<(), Error> {
        // One byte first: nearly all of these files are truly empty.
        let mut wanted = 1;
        let mut offset = 0;
        loop {
            let read = self.fill(cutting, wanted, |room| reader.read_at(offset, room))?;
            if read == 0 {
                return Ok(());
            }
            offset += read as u64;
            wanted = usize::MAX;
        }
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
        self.count(Counter::EntriesScanned, 1);
        self.step(Step::File(Box::new(PendingFile { number, name, meta })))?;
        let profile = self.options.profile.unwrap_or(Profile::Cdc);
        let mut cutting = self.cutting(number, profile, former);
        loop {
            self.shared.check()?;
            if self.fill(&mut cutting, usize::MAX, |room| source.read(room))? == 0 {
                break;
            }
        }
        source.finish()?;
        let parts = self.end_cutting(cutting)?;
        self.count(Counter::FilesDone, 1);
        self.step(Step::FileEnd { parts, recognise: None })
    }

    fn cutting(&self, file: FileNumber, profile: Profile, former: Former<'a>) -> Cutting<'a> {
        let cutter = match profile {
            Profile::Cdc => &self.cutters.content,
            Profile::Aligned | Profile::Fixed => &self.cutters.aligned,
        };
        let uncut = self.batch.data.len();
        Cutting { file, part: 0, cutter, former, offset: 0, uncut, chunks: 0 }
    }

    /// Reads at most `wanted` bytes into the current batch and cuts what can be cut; returns the
    /// bytes read, 0 at the end.
    fn fill(
        &mut self,
        cutting: &mut Cutting<'_>,
        wanted: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, SourceError>,
    ) -> Result<usize, Error> {
        // There is always room for more than the largest chunk, so that every read makes progress.
        let limit = BATCH_BYTES.max(cutting.cutter.bytes_max() + READ_BYTES_MIN);
        if self.batch.data.len() + READ_BYTES_MIN > limit {
            self.next_batch(cutting)?;
        }
        let end = self.batch.data.len();
        let mut span = self.shared.vault.context.timings.span(Stage::Read, 0);
        let outcome = read(self.batch.data.room(wanted.min(limit - end)));
        let got = *outcome.as_ref().unwrap_or(&0);
        span.bytes(got as u64);
        drop(span);
        self.batch.data.advance(got);
        outcome?;
        self.fed.bytes_read += got as u64;
        self.count(Counter::BytesRead, got as u64);
        self.cut(cutting, false)?;
        Ok(got)
    }

    /// Cuts the bytes that are in no chunk yet; at the end of a run (`end`) all of them.
    fn cut(&mut self, cutting: &mut Cutting<'_>, end: bool) -> Result<(), Error> {
        let vault = self.shared.vault;
        let mut span = vault.context.timings.span(Stage::Cut, 0);
        let mut cut_bytes = 0;
        loop {
            span.bytes(cut_bytes);
            let uncut = self.batch.data.get(cutting.uncut..).unwrap_or_default();
            if uncut.is_empty() || (!end && uncut.len() < cutting.cutter.bytes_max()) {
                return Ok(());
            }
            if self.batch.chunks.len() >= cairn_format::limits::FRAME_CHUNKS_MAX as usize {
                drop(span);
                self.next_batch(cutting)?;
                span = vault.context.timings.span(Stage::Cut, 0);
                cut_bytes = 0;
                continue;
            }
            let moves = matches!(cutting.cutter, Cutter::Content(_));
            let same = cutting.former.starting_at(cutting.offset).filter(|(id, bytes)| {
                let chunk = uncut.get(..*bytes as usize);
                moves && chunk.is_some_and(|chunk| self.shared.vault.keys.chunk_id(chunk) == *id)
            });
            let (bytes, hint) = match same {
                // The same bytes from the same start are cut alike: to cut them costs more.
                Some((id, bytes)) => (bytes, Hint { former: Some(id), same: true, moves }),
                None => {
                    let bytes = u32::try_from(cutting.cutter.next(uncut))
                        .map_err(|_| Error::Internal { part: "the chunker" })?;
                    let former = cutting.former.at(cutting.offset, bytes);
                    (bytes, Hint { former, same: false, moves })
                }
            };
            self.batch.chunks.push(bytes);
            self.batch.hints.push(hint);
            cut_bytes += u64::from(bytes);
            cutting.offset += u64::from(bytes);
            cutting.uncut += bytes as usize;
            cutting.chunks += 1;
        }
    }

    /// Ends the file's part in the current batch.
    fn end_part(&mut self, cutting: &mut Cutting<'_>) {
        if cutting.chunks > 0 {
            let chunks = std::mem::take(&mut cutting.chunks);
            self.parts.push(Part { file: cutting.file, part: cutting.part, chunks });
            cutting.part += 1;
        }
    }

    /// Hands the current batch over; the bytes that are in no chunk yet move to the next.
    fn next_batch(&mut self, cutting: &mut Cutting<'_>) -> Result<(), Error> {
        self.end_part(cutting);
        let tail = self.batch.data.get(cutting.uncut..).unwrap_or_default();
        let mut next = self.shared.spare.lock().pop().unwrap_or_default();
        next.data.extend_from_slice(tail);
        self.batch.data.truncate(cutting.uncut);
        cutting.uncut = 0;
        self.hand_over(next)
    }

    fn hole(&mut self, cutting: &mut Cutting<'_>, bytes: u64) -> Result<(), Error> {
        self.cut(cutting, true)?;
        self.end_part(cutting);
        let extents = vec![Extent::Hole { bytes }];
        let message = Message::Part { file: cutting.file, part: cutting.part, extents };
        cutting.part += 1;
        cutting.offset = cutting.offset.saturating_add(bytes);
        self.post(message)
    }

    fn end_cutting(&mut self, mut cutting: Cutting<'_>) -> Result<u32, Error> {
        self.cut(&mut cutting, true)?;
        self.end_part(&mut cutting);
        if self.batch.is_full() {
            self.flush()?;
        }
        Ok(cutting.part)
    }

    /// Hands the current batch over; no file is being cut.
    fn flush(&mut self) -> Result<(), Error> {
        let next = self.shared.spare.lock().pop().unwrap_or_default();
        self.hand_over(next)
    }

    fn hand_over(&mut self, next: Batch) -> Result<(), Error> {
        self.shared.check()?;
        let batch = std::mem::replace(&mut self.batch, next);
        let parts = std::mem::take(&mut self.parts);
        if batch.chunks.is_empty() {
            return Ok(());
        }
        // Before the parts, which must not come before the file they belong to.
        self.send()?;
        let waiting = self.shared.vault.context.timings.waiting(Stage::Read);
        self.shared.batches.take(batch.data.len());
        drop(waiting);
        let (shared, messages) = (self.shared, self.messages.clone());
        self.scope.spawn(move |_| shared.work(Filled { batch, parts }, &messages));
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), Error> {
        if !self.shared.steps.try_take(1) {
            // The assembler may be waiting for what is in the current batch. While a file is
            // being cut no step is sent, so the batch holds whole chunks only.
            self.flush()?;
            self.send()?;
            self.shared.steps.take(1);
        }
        self.post(Message::Step(step))
    }

    fn post(&mut self, message: Message) -> Result<(), Error> {
        self.outbox.push(message);
        if self.outbox.len() < OUTBOX_MAX { Ok(()) } else { self.send() }
    }

    fn send(&mut self) -> Result<(), Error> {
        let messages = std::mem::take(&mut self.outbox);
        self.messages.send(messages).map_err(|_| Error::Cancelled)
    }

    fn next_file(&mut self) -> FileNumber {
        self.files += 1;
        self.files
    }

    fn count(&self, counter: Counter, amount: u64) {
        self.shared.vault.monitor().count(counter, amount);
    }

    fn remark(&mut self, subject: &str, error: &SourceError) {
        let (code, message) = (error.code(), error.to_string());
        self.note(Remark { code, subject: subject.to_owned(), message });
    }

    fn note(&mut self, remark: Remark) {
        self.fed.unread += 1;
        self.shared.vault.monitor().warn(remark.clone());
        if self.fed.remarks.len() < REMARKS_KEPT_MAX {
            self.fed.remarks.push(remark);
        }
    }
}
