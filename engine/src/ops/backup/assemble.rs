//! The second half of a backup: puts entries and finished content together into the tree, in path
//! order, while the first half is still reading.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::mpsc::Receiver;

use cairn_format::ids::ChunkId;
use cairn_format::tree::{Content, Entry, Extent, LinkGroup, Meta, Node};

use super::cache::FileCache;
use crate::error::Error;
use crate::pipeline::budget::Budget;
use crate::source::meta::Fingerprint;
use crate::tree::NodeSink;
use crate::tree::directory::DirectoryList;
use crate::tree::extents::ExtentList;

/// Numbers one attempt at reading one file.
pub type FileNumber = u64;

/// What the first half tells the second.
///
/// They travel many at a time: to wake a thread for each of a million files costs more than the file.
pub enum Message {
    /// The next step along the tree.
    Step(Step),
    /// Part of a file's content is known; parts may arrive in any order.
    Part {
        /// The file.
        file: FileNumber,
        /// Position of the part, from 0.
        part: u32,
        /// Its extents.
        extents: Vec<Extent>,
    },
    /// A task failed; there is nothing to wait for any more.
    Failed,
}

/// A step along the tree, in path order.
pub enum Step {
    /// A directory begins.
    Enter {
        /// Its name.
        name: Vec<u8>,
        /// Its metadata.
        meta: Box<Meta>,
    },
    /// The directory ends.
    Leave,
    /// Anything without content that has to be waited for; what a known file is recognised by, if
    /// that is to be noted anew.
    Entry(Box<Entry>, Option<([u8; 32], Fingerprint)>),
    /// A file whose content follows in parts.
    File(Box<PendingFile>),
    /// All parts of the file before have been handed over; there are so many.
    FileEnd {
        /// Number of parts.
        parts: u32,
        /// What the file is recognised by next time; `None` when it must be read again.
        recognise: Option<([u8; 32], Fingerprint)>,
    },
    /// The file changed while it was read; it is read again under another number.
    FileAgain(FileNumber),
    /// The file could not be read to its end: it is left out.
    FileGone,
    /// Another name of a file met before.
    Linked {
        /// Its name.
        name: Vec<u8>,
        /// Its metadata, with the group.
        meta: Box<Meta>,
        /// The group.
        group: LinkGroup,
    },
    /// The tree is complete.
    End,
}

/// A file being read.
pub struct PendingFile {
    /// Its number.
    pub number: FileNumber,
    /// Its name.
    pub name: Vec<u8>,
    /// Its metadata.
    pub meta: Meta,
}

struct Current {
    file: PendingFile,
    extents: ExtentList,
    next_part: u32,
}

struct Open {
    name: Vec<u8>,
    meta: Box<Meta>,
    list: DirectoryList,
}

/// What came out of it.
pub struct Assembled {
    /// Node of the root directory.
    pub root: ChunkId,
    /// Regular files and streams.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Other entries.
    pub others: u64,
    /// Bytes in files, holes included.
    pub bytes_total: u64,
}

/// Builds the tree from messages.
pub struct Assembler<'a> {
    nodes: &'a mut dyn NodeSink,
    cache: &'a mut FileCache<'a>,
    steps_free: &'a Budget,
    steps: VecDeque<Step>,
    parts: HashMap<(FileNumber, u32), Vec<Extent>>,
    abandoned: HashSet<FileNumber>,
    current: Option<Current>,
    stack: Vec<Open>,
    root: DirectoryList,
    links: HashMap<LinkGroup, Content>,
    totals: Assembled,
}

impl<'a> Assembler<'a> {
    /// Nothing yet. `steps_free` gets one back for every step taken.
    pub fn new(
        nodes: &'a mut dyn NodeSink,
        cache: &'a mut FileCache<'a>,
        steps_free: &'a Budget,
    ) -> Self {
        let root = ChunkId::from_bytes([0; 32]);
        Self {
            nodes,
            cache,
            steps_free,
            steps: VecDeque::new(),
            parts: HashMap::new(),
            abandoned: HashSet::new(),
            current: None,
            stack: Vec::new(),
            root: DirectoryList::default(),
            links: HashMap::new(),
            totals: Assembled { root, files: 0, directories: 0, others: 0, bytes_total: 0 },
        }
    }

    /// Works until the tree is complete.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the first half failed (it knows why); failures of the store.
    pub fn run(mut self, messages: &Receiver<Vec<Message>>) -> Result<Assembled, Error> {
        loop {
            for message in messages.recv().map_err(|_| Error::Cancelled)? {
                match message {
                    Message::Failed => return Err(Error::Cancelled),
                    Message::Part { file, part, extents } => {
                        if !self.abandoned.contains(&file) {
                            self.parts.insert((file, part), extents);
                        }
                    }
                    Message::Step(step) => self.steps.push_back(step),
                }
            }
            if self.advance()? {
                self.totals.root = self.root.finish(self.nodes)?;
                self.cache.flush()?;
                return Ok(self.totals);
            }
        }
    }

    /// Takes as many steps as can be taken; true at the end.
    fn advance(&mut self) -> Result<bool, Error> {
        let waiting = self.steps.len();
        let outcome = self.take_steps();
        self.steps_free.give(waiting - self.steps.len());
        outcome
    }

    fn take_steps(&mut self) -> Result<bool, Error> {
        loop {
            self.take_parts()?;
            // Steps of the current file's end wait until all its parts are there.
            if let (Some(current), Some(Step::FileEnd { parts, .. })) =
                (&self.current, self.steps.front())
                && current.next_part < *parts
            {
                return Ok(false);
            }
            let Some(step) = self.steps.pop_front() else { return Ok(false) };
            if matches!(step, Step::End) {
                return Ok(true);
            }
            self.step(step)?;
        }
    }

    fn take_parts(&mut self) -> Result<(), Error> {
        let Some(current) = &mut self.current else { return Ok(()) };
        while let Some(extents) = self.parts.remove(&(current.file.number, current.next_part)) {
            for extent in extents {
                current.extents.push(extent, self.nodes)?;
            }
            current.next_part += 1;
        }
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), Error> {
        match step {
            Step::Enter { name, meta } => {
                self.totals.directories += 1;
                self.stack.push(Open { name, meta, list: DirectoryList::default() });
                Ok(())
            }
            Step::Leave => {
                let open = self.stack.pop().ok_or(Error::Internal { part: "the tree builder" })?;
                let node = Node::Directory(open.list.finish(self.nodes)?);
                self.push(&Entry { name: open.name, node, meta: *open.meta })
            }
            Step::Entry(entry, recognise) => {
                match &entry.node {
                    Node::File(content) => {
                        if let Some((key, fingerprint)) = recognise {
                            self.cache.put(key, &fingerprint, content)?;
                        }
                        self.count_file(content, entry.meta.link);
                    }
                    _ => self.totals.others += 1,
                }
                self.push(&entry)
            }
            Step::File(file) => {
                self.current =
                    Some(Current { file: *file, extents: ExtentList::default(), next_part: 0 });
                Ok(())
            }
            Step::FileEnd { recognise, .. } => self.end_file(recognise),
            Step::FileAgain(number) => {
                let current = self.take_current()?;
                self.abandon(current.file.number);
                let file = PendingFile { number, ..current.file };
                self.current = Some(Current { file, extents: ExtentList::default(), next_part: 0 });
                Ok(())
            }
            Step::FileGone => {
                let current = self.take_current()?;
                self.abandon(current.file.number);
                Ok(())
            }
            Step::Linked { name, meta, group } => {
                // Its first name could not be read: reported there.
                let Some(content) = self.links.get(&group) else { return Ok(()) };
                let node = Node::File(content.clone());
                self.totals.files += 1;
                self.push(&Entry { name, node, meta: *meta })
            }
            Step::End => Ok(()),
        }
    }

    fn take_current(&mut self) -> Result<Current, Error> {
        self.current.take().ok_or(Error::Internal { part: "the tree builder" })
    }

    fn abandon(&mut self, number: FileNumber) {
        self.parts.retain(|(file, _), _| *file != number);
        self.abandoned.insert(number);
    }

    fn end_file(&mut self, recognise: Option<([u8; 32], Fingerprint)>) -> Result<(), Error> {
        let Current { file, extents, .. } = self.take_current()?;
        let content = extents.finish(self.nodes)?;
        if let Some((key, fingerprint)) = recognise {
            self.cache.put(key, &fingerprint, &content)?;
        }
        self.count_file(&content, file.meta.link);
        self.push(&Entry { name: file.name, node: Node::File(content), meta: file.meta })
    }

    fn count_file(&mut self, content: &Content, link: Option<LinkGroup>) {
        self.totals.files += 1;
        self.totals.bytes_total += content.bytes;
        if let Some(group) = link {
            self.links.insert(group, content.clone());
        }
    }

    fn push(&mut self, entry: &Entry) -> Result<(), Error> {
        let list = self.stack.last_mut().map_or(&mut self.root, |open| &mut open.list);
        list.push(entry, self.nodes)
    }
}
