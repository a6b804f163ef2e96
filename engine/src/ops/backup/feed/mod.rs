//! The first half of a backup: walks the source, recognises what did not change, reads and cuts
//! the rest into batches, and hands batches to the workers.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::mpsc::{self, Sender};

use cairn_format::tree::{Entry, LinkGroup, Node, Timestamp};

pub use self::cut::Cutters;
use self::outlet::Outlet;
pub use self::outlet::Shared;
use super::assemble::{FileNumber, Message, PendingFile, Step};
use super::cache::{Recogniser, key_of};
use super::former::Formers;
use crate::context::{Counter, Remark};
use crate::error::{Error, Explain};
use crate::source::error::SourceError;
use crate::source::file::{FileReader, Place};
use crate::source::profile::{ContentKind, Profile};
use crate::source::walk::{Event, Leaf, LeafKind, Walk};

mod cut;
mod outlet;
mod read;

/// Entries that a walk hands over at once, and how many such batches it is ahead. Each entry keeps
/// its directory open.
const WALK_BATCH: usize = 32;
const WALK_BATCHES_AHEAD: usize = 4;
/// A file must have rested so long before its fingerprint is trusted later, milliseconds.
const SETTLE_MS: u32 = 2_000;
/// Remarks on single entries that are kept for the report; all are counted and shown.
const REMARKS_KEPT_MAX: usize = 1_000;

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

/// Reads sources, in one thread.
pub struct Feeder<'a, 's, 'scope> {
    out: Outlet<'a, 's, 'scope>,
    recogniser: Recogniser<'a>,
    cutters: &'a Cutters,
    formers: &'a Formers<'a>,
    options: FeedOptions,
    now: Timestamp,
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
    /// A feeder with nothing read; workers run in `scope`.
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
            out: Outlet::new(shared, scope, messages),
            recogniser,
            cutters,
            formers,
            options,
            now,
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
        self.out.flush()?;
        self.out.step(Step::End)?;
        self.out.send()?;
        Ok(Fed { bytes_read: self.out.bytes_read, ..self.fed })
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
        self.out.shared.check()?;
        match event {
            Event::Enter { name, meta, .. } => {
                self.out.count(Counter::EntriesScanned, 1);
                self.out.step(Step::Enter { name, meta })?;
            }
            Event::Leave => self.out.step(Step::Leave)?,
            Event::Leaf(leaf) => {
                self.out.count(Counter::EntriesScanned, 1);
                self.leaf(*leaf)?;
            }
            Event::Unreadable { path, error } | Event::Incomplete { path, error } => {
                self.remark(&path.display().to_string(), &error);
            }
            Event::Followed { root, real } => self.out.shared.vault.monitor().warn(Remark {
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
        self.out.step(Step::Entry(Box::new(entry), None))
    }

    fn file(&mut self, leaf: Leaf, place: &Place, kind: ContentKind) -> Result<(), Error> {
        let Leaf { path, name, mut meta, fingerprint, .. } = leaf;
        if let Some(group) = meta.link
            && !self.linked.insert(group)
        {
            let meta = Box::new(meta);
            return self.out.step(Step::Linked { name, meta, group });
        }
        let key = key_of(path.as_os_str().as_bytes());
        if kind == ContentKind::File
            && !self.options.reread
            && let Some((content, renew)) = self.recogniser.recognise(&key, &fingerprint)?
        {
            self.out.count(Counter::FilesUnchanged, 1);
            self.out.count(Counter::BytesUnchanged, content.bytes);
            let entry = Entry { name, node: Node::File(content), meta };
            return self
                .out
                .step(Step::Entry(Box::new(entry), renew.then_some((key, fingerprint))));
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
        self.out.step(Step::File(Box::new(PendingFile { number, name, meta })))?;
        self.read_until_still((&mut reader, opened), place, number, key, kind)
    }

    /// The time of day.
    fn time(&self) -> Timestamp {
        timestamp(self.out.shared.vault.context.clock.now_ms())
    }

    fn next_file(&mut self) -> FileNumber {
        self.files += 1;
        self.files
    }

    fn remark(&mut self, subject: &str, error: &SourceError) {
        let (code, message) = (error.code(), error.to_string());
        self.note(Remark { code, subject: subject.to_owned(), message });
    }

    fn note(&mut self, remark: Remark) {
        self.fed.unread += 1;
        self.out.shared.vault.monitor().warn(remark.clone());
        if self.fed.remarks.len() < REMARKS_KEPT_MAX {
            self.fed.remarks.push(remark);
        }
    }
}
