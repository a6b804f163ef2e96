//! Writes a tree into a target, a window of files at a time: entries in path order, content in pack
//! order.

use cairn_format::ids::ChunkId;
use cairn_format::tree::{Content, Entry, Extent, Extents, LinkGroup, Meta, Node};
use parking_lot::Mutex;
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use super::RestoreReport;
use crate::context::{Counter, Monitor, Remark};
use crate::error::Error;
use crate::index::local::{ChunkPlace, PackNumber};
use crate::repo::Repository;
use crate::repo::chunks::{ChunkReader, Wanted};
use crate::target::contain::SafePath;
use crate::target::create::{Created, Target};
use crate::target::direct::Sink;
use crate::target::error::TargetError;
use crate::target::file::TargetFile;
use crate::tree::reader::{self, Visit, Visitor};

/// Chunks of one window: with their places about 100 bytes each.
const WINDOW_CHUNKS: usize = 200_000;
/// Entries of one window.
const WINDOW_ENTRIES: usize = 20_000;
/// Entries that one thread finishes one after another.
const FINISH_MIN: usize = 64;
/// Remarks kept in the report.
const REMARKS_KEPT_MAX: usize = 1_000;

/// An entry whose metadata is still to be set.
struct Unfinished {
    path: SafePath,
    node: Node,
    meta: Meta,
    /// Index of its file in the window, for files with content.
    file: Option<usize>,
}

/// Where a chunk goes.
#[derive(Clone, Copy)]
enum Destination {
    /// Into a file that is made.
    Part {
        /// Its index in the window.
        file: usize,
        /// Where in it, bytes.
        offset: u64,
    },
    /// Into a file of its own, that is made when its content is there: its index among these.
    Whole(usize),
}

/// A file that is one chunk, made when its content is there.
struct Whole {
    path: SafePath,
    /// The path in the snapshot.
    name: Vec<u8>,
    entry: Entry,
}

/// What became of the files of a window that are one chunk.
#[derive(Default)]
struct WholeOutcome {
    /// What could not be applied to files that are made.
    problems: Vec<TargetError>,
    /// To be made the ordinary way, which tells what is wrong.
    left: Vec<usize>,
}

/// Restores what it is shown.
pub struct TreeWriter<'a> {
    repository: &'a Repository,
    nodes: &'a ChunkReader<'a>,
    target: &'a Target,
    keep_going: bool,
    report: RestoreReport,
    /// Directories from the target down to where the walk is.
    above: Vec<SafePath>,
    files: Vec<TargetFile>,
    /// Paths of these files in the snapshot.
    names: Vec<String>,
    wanted: Vec<(ChunkId, u32, Destination)>,
    wholes: Vec<Whole>,
    unfinished: Vec<Unfinished>,
    /// Files of the window whose content cannot be had, with the reason.
    broken: HashMap<usize, String>,
    /// The same of all windows so far, for files with further names.
    broken_links: HashMap<LinkGroup, String>,
}

/// Whether one chunk comes right after another in the same file.
fn follows(one: &Wanted<Destination>, next: &Wanted<Destination>) -> bool {
    match (one.tag, next.tag) {
        (Destination::Part { file, offset }, Destination::Part { file: same, offset: end }) => {
            file == same && offset + u64::from(one.place.bytes) == end
        }
        _ => false,
    }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

impl<'a> TreeWriter<'a> {
    /// A writer that has restored nothing.
    pub fn new(
        repository: &'a Repository,
        nodes: &'a ChunkReader<'a>,
        target: &'a Target,
        keep_going: bool,
    ) -> Self {
        Self {
            repository,
            nodes,
            target,
            keep_going,
            report: RestoreReport::default(),
            above: vec![SafePath::root()],
            files: Vec::new(),
            names: Vec::new(),
            wanted: Vec::new(),
            wholes: Vec::new(),
            unfinished: Vec::new(),
            broken: HashMap::new(),
            broken_links: HashMap::new(),
        }
    }

    /// Writes what is left and says what was done.
    ///
    /// # Errors
    /// As the walk.
    pub fn finish(mut self) -> Result<RestoreReport, Error> {
        self.write_window()?;
        Ok(self.report)
    }

    /// Notes an entry that could not be restored as it was; a medium that is full or broken ends
    /// the restore.
    fn failed(&mut self, error: TargetError) -> Result<(), Error> {
        if error.stops_restore() {
            return Err(error.into());
        }
        let remark = Remark::of(self.target.path().display(), &error);
        self.repository.monitor().warn(remark.clone());
        self.report.failure_count += 1;
        if self.report.failures.len() < REMARKS_KEPT_MAX {
            self.report.failures.push(remark);
        }
        Ok(())
    }

    /// Notes an entry touched by damage; ends the restore unless asked to go on.
    fn damage(&mut self, path: &str, error: Error) -> Result<(), Error> {
        if !self.keep_going || !error.is_damage() {
            return Err(error);
        }
        let remark = Remark::of(path, &error);
        self.repository.monitor().count(Counter::Findings, 1);
        self.repository.monitor().warn(remark.clone());
        self.report.damage_count += 1;
        if self.report.damaged.len() < REMARKS_KEPT_MAX {
            self.report.damaged.push(remark);
        }
        Ok(())
    }

    fn count(&mut self, node: &Node) {
        match node {
            Node::File(content) => {
                self.report.files += 1;
                self.report.bytes_total += content.bytes;
            }
            Node::Directory(_) => self.report.directories += 1,
            _ => self.report.others += 1,
        }
        self.repository.monitor().count(Counter::EntriesRestored, 1);
    }

    /// Lists the chunks of a file, and clears its holes. Content of large files is written meanwhile.
    fn list_content(
        &mut self,
        path: &[u8],
        file: TargetFile,
        entry: &Entry,
    ) -> Result<usize, Error> {
        let Node::File(content) = &entry.node else {
            return Err(Error::Internal { part: "the restore" });
        };
        let number = self.files.len();
        self.files.push(file.clone());
        self.names.push(shown(path));
        let nodes = self.nodes;
        let mut dense = true;
        reader::extents(nodes, content, &mut |offset, extent| {
            match extent {
                Extent::Chunk { id, bytes } => {
                    self.wanted.push((id, bytes, Destination::Part { file: number, offset }));
                    if self.wanted.len() >= WINDOW_CHUNKS {
                        self.write_content()?;
                    }
                }
                Extent::Hole { bytes } => {
                    dense = false;
                    self.report.bytes_kept += bytes;
                    self.target.clear(&file, offset, bytes)?;
                    self.repository.monitor().count(Counter::BytesRestored, bytes);
                }
            }
            Ok(())
        })?;
        if dense {
            self.target.reserve(&file);
        }
        Ok(number)
    }

    /// Fetches and writes the content of the window, then finishes its entries: directories last, since
    /// one may not let its owner in any more.
    fn write_window(&mut self) -> Result<(), Error> {
        while !self.wanted.is_empty() {
            self.write_content()?;
        }
        let broken = std::mem::take(&mut self.broken);
        let mut sound = Vec::with_capacity(self.unfinished.len());
        for entry in std::mem::take(&mut self.unfinished) {
            let message = match (entry.file, entry.meta.link) {
                (Some(file), group) => {
                    let message = broken.get(&file).cloned();
                    if let (Some(message), Some(group)) = (&message, group) {
                        self.broken_links.insert(group, message.clone());
                    }
                    message
                }
                (None, Some(group)) => self.broken_links.get(&group).cloned(),
                (None, None) => None,
            };
            let Some(message) = message else {
                sound.push(entry);
                continue;
            };
            let path = entry.path.below(self.target.path()).display().to_string();
            let error = Error::ContentDamaged { path: path.clone(), message };
            self.damage(&path, error)?;
        }
        let is_directory = |entry: &Unfinished| matches!(entry.node, Node::Directory(_));
        let (directories, others): (Vec<_>, Vec<_>) = sound.into_iter().partition(is_directory);
        let target = self.target;
        let finish = |entry: &Unfinished| target.finish(&entry.path, &entry.node, &entry.meta);
        let problems = others.par_iter().with_min_len(FINISH_MIN).flat_map_iter(finish);
        for problem in problems.collect::<Vec<_>>() {
            self.failed(problem)?;
        }
        for entry in directories {
            for problem in finish(&entry) {
                self.failed(problem)?;
            }
        }
        self.names.clear();
        for file in std::mem::take(&mut self.files) {
            self.target.close(&file);
        }
        Ok(())
    }

    /// Fetches and writes the chunks listed so far. Notes the files whose content cannot be had.
    fn write_content(&mut self) -> Result<(), Error> {
        let asked = std::mem::take(&mut self.wanted);
        let wholes = std::mem::take(&mut self.wholes);
        let ids = asked.iter().map(|(id, _, _)| *id).collect::<Vec<_>>();
        let places = self.nodes.locate(&ids)?;
        let writing = Writing {
            target: self.target,
            monitor: self.repository.monitor(),
            keep_going: self.keep_going,
            files: &self.files,
            names: &self.names,
            wholes: &wholes,
            broken: Mutex::new(std::mem::take(&mut self.broken)),
            outcome: Mutex::default(),
            bytes_written: AtomicU64::new(0),
            bytes_kept: AtomicU64::new(0),
        };
        let (mut wanted, mut absent) = (Vec::with_capacity(asked.len()), Vec::new());
        for ((id, bytes, tag), place) in asked.into_iter().zip(places) {
            match place {
                Some(place) if place.bytes == bytes => wanted.push(Wanted { id, place, tag }),
                None => absent.push(Wanted { id, place: nowhere(bytes), tag }),
                _ => writing.cannot_be_had([tag], Error::ChunkMissing { chunk: id })?,
            }
        }
        let nodes = self.nodes;
        self.target.writing(|sink| {
            for one in absent {
                let found = nodes.elsewhere(&one.id);
                match found.filter(|chunk| chunk.len() == one.place.bytes as usize) {
                    Some(chunk) => writing.write(sink, std::slice::from_ref(&one), &chunk)?,
                    None => {
                        writing.cannot_be_had([one.tag], Error::ChunkMissing { chunk: one.id })?
                    }
                }
            }
            nodes.fetch(wanted, &|run, content| match content {
                Ok(content) => writing.write(sink, run, content),
                Err(error) => writing.cannot_be_had(run.iter().map(|wanted| wanted.tag), error),
            })
        })?;
        self.report.bytes_written += writing.bytes_written.into_inner();
        self.report.bytes_kept += writing.bytes_kept.into_inner();
        self.broken = writing.broken.into_inner();
        let outcome = writing.outcome.into_inner();
        for problem in outcome.problems {
            self.failed(problem)?;
        }
        let left = outcome.left.into_iter().collect::<HashSet<_>>();
        for (number, Whole { path, name, entry }) in wholes.into_iter().enumerate() {
            if left.contains(&number) {
                self.make(path, &name, &entry)?;
            } else {
                self.count(&entry.node);
            }
        }
        Ok(())
    }

    /// Makes anything but a directory, and lists its content.
    fn make(&mut self, place: SafePath, path: &[u8], entry: &Entry) -> Result<(), Error> {
        let created = match self.target.create(&place, &entry.node, &entry.meta) {
            Ok(created) => created,
            Err(error) => return self.failed(error),
        };
        self.count(&entry.node);
        let mut file = None;
        match created {
            Created::File(made) => match self.list_content(path, made, entry) {
                Ok(number) => file = Some(number),
                Err(error) => {
                    if let Some(group) = entry.meta.link {
                        self.broken_links.insert(group, error.to_string());
                    }
                    return self.damage(&shown(path), error);
                }
            },
            Created::Kept => {
                self.report.files_kept += 1;
                if let Node::File(content) = &entry.node {
                    self.report.bytes_kept += content.bytes;
                    self.repository.monitor().count(Counter::BytesRestored, content.bytes);
                }
            }
            Created::Linked | Created::Node | Created::Directory { .. } => {}
        }
        let (node, meta) = (entry.node.clone(), entry.meta.clone());
        self.unfinished.push(Unfinished { path: place, node, meta, file });
        Ok(())
    }
}

/// The content of a window while it is written, from many threads.
struct Writing<'w> {
    target: &'w Target,
    monitor: &'w dyn Monitor,
    keep_going: bool,
    files: &'w [TargetFile],
    names: &'w [String],
    wholes: &'w [Whole],
    broken: Mutex<HashMap<usize, String>>,
    outcome: Mutex<WholeOutcome>,
    bytes_written: AtomicU64,
    bytes_kept: AtomicU64,
}

impl Writing<'_> {
    /// Writes chunks that follow one another in `content` to where they belong.
    fn write(
        &self,
        sink: &Sink<'_>,
        run: &[Wanted<Destination>],
        mut content: &[u8],
    ) -> Result<(), Error> {
        // What follows one another in a frame mostly does so in a file too. Of a file that was
        // there before each chunk is compared by itself.
        let joined = |one: &Wanted<Destination>, next: &Wanted<Destination>| {
            follows(one, next) && self.is_new(one.tag)
        };
        for run in run.chunk_by(joined) {
            let bytes = run.iter().map(|wanted| wanted.place.bytes as usize).sum::<usize>();
            let (Some((part, rest)), Some(first)) = (content.split_at_checked(bytes), run.first())
            else {
                return Err(Error::Internal { part: "the restore" });
            };
            content = rest;
            let wrote = match first.tag {
                Destination::Part { file, offset } => {
                    let file =
                        self.files.get(file).ok_or(Error::Internal { part: "the restore" })?;
                    sink.write_if_different(file, offset, part)?
                }
                Destination::Whole(number) => {
                    if !self.write_whole(number, part)? {
                        continue;
                    }
                    true
                }
            };
            let counter = if wrote { &self.bytes_written } else { &self.bytes_kept };
            counter.fetch_add(bytes as u64, Ordering::Relaxed);
            self.monitor.count(Counter::BytesRestored, bytes as u64);
        }
        Ok(())
    }

    fn is_new(&self, tag: Destination) -> bool {
        match tag {
            Destination::Part { file, .. } => {
                self.files.get(file).is_some_and(|file| file.existing_bytes() == 0)
            }
            Destination::Whole(_) => false,
        }
    }

    /// Makes a file that is one chunk; false when that is left to the ordinary way.
    fn write_whole(&self, number: usize, content: &[u8]) -> Result<bool, Error> {
        let Some(Whole { path, entry, .. }) = self.wholes.get(number) else {
            return Err(Error::Internal { part: "the restore" });
        };
        let made = self.target.create_whole(path, &entry.meta, content)?;
        let done = made.is_some();
        match made {
            Some(problems) if problems.is_empty() => {}
            Some(problems) => self.outcome.lock().problems.extend(problems),
            None => self.outcome.lock().left.push(number),
        }
        Ok(done)
    }

    /// Notes files of which chunks cannot be had because of damage, or ends the restore.
    fn cannot_be_had(
        &self,
        tags: impl IntoIterator<Item = Destination>,
        error: Error,
    ) -> Result<(), Error> {
        if !error.is_damage() {
            return Err(error);
        }
        for tag in tags {
            match tag {
                // Made the ordinary way it is told like any other.
                Destination::Whole(number) => self.outcome.lock().left.push(number),
                Destination::Part { file, .. } if self.keep_going => {
                    self.broken.lock().entry(file).or_insert_with(|| error.to_string());
                }
                Destination::Part { file, .. } => {
                    let path = self.names.get(file).cloned().unwrap_or_default();
                    return Err(Error::ContentDamaged { path, message: error.to_string() });
                }
            }
        }
        Ok(())
    }
}

impl Visitor for TreeWriter<'_> {
    fn entry(&mut self, path: &[u8], entry: &Entry) -> Result<Visit, Error> {
        self.repository.check_cancelled()?;
        let entries = self.unfinished.len() + self.wholes.len();
        if self.wanted.len() >= WINDOW_CHUNKS || entries >= WINDOW_ENTRIES {
            self.write_window()?;
        }
        let joined = match self.above.last() {
            Some(above) => above.join(&entry.name),
            None => return Err(Error::Internal { part: "the restore" }),
        };
        let place = match joined {
            Ok(place) => place,
            Err(error) => {
                self.failed(error)?;
                return Ok(Visit::Skip);
            }
        };
        match (&entry.node, entry.meta.link) {
            (Node::Directory(_), _) => match self.target.create(&place, &entry.node, &entry.meta) {
                Ok(_) => {
                    self.count(&entry.node);
                    // Its metadata comes when it is left: what is made in it changes its times.
                    self.above.push(place);
                    return Ok(Visit::Descend);
                }
                Err(error) => self.failed(error)?,
            },
            (Node::File(Content { bytes: all, extents: Extents::Inline(extents) }), None)
                if self.target.is_fresh() =>
            {
                match extents.as_slice() {
                    [Extent::Chunk { id, bytes }] if u64::from(*bytes) == *all => {
                        let tag = Destination::Whole(self.wholes.len());
                        self.wanted.push((*id, *bytes, tag));
                        let (name, entry) = (path.to_vec(), entry.clone());
                        self.wholes.push(Whole { path: place, name, entry });
                    }
                    _ => self.make(place, path, entry)?,
                }
            }
            _ => self.make(place, path, entry)?,
        }
        Ok(Visit::Skip)
    }

    fn leave(&mut self, _: &[u8], entry: &Entry) -> Result<(), Error> {
        let path = self.above.pop().ok_or(Error::Internal { part: "the restore" })?;
        let (node, meta) = (entry.node.clone(), entry.meta.clone());
        self.unfinished.push(Unfinished { path, node, meta, file: None });
        Ok(())
    }

    fn reads_content(&self) -> bool {
        true
    }

    fn damaged(&mut self, path: &[u8], error: Error) -> Result<(), Error> {
        self.damage(&shown(path), error)
    }
}

/// Stands for the place of a chunk that is in no pack here.
fn nowhere(bytes: u32) -> ChunkPlace {
    ChunkPlace {
        pack: PackNumber(u32::MAX),
        frame_number: 0,
        frame_offset: 0,
        frame_bytes: 0,
        plain_bytes: bytes,
        codec: 0,
        based: false,
        offset: 0,
        bytes,
    }
}
