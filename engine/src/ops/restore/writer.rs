//! Writes a tree into a target, a window of files at a time: entries in path order, content in pack
//! order.

use cairn_format::ids::ChunkId;
use cairn_format::tree::{Entry, Extent, LinkGroup, Meta, Node};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::RestoreReport;
use crate::context::{Counter, Remark};
use crate::error::{Error, Explain};
use crate::repo::Repository;
use crate::repo::chunks::{ChunkReader, Wanted};
use crate::target::contain::SafePath;
use crate::target::create::{Created, Target};
use crate::target::error::TargetError;
use crate::target::file::TargetFile;
use crate::tree::reader::{self, Visit, Visitor};

/// Chunks of one window: with their places about 100 bytes each.
const WINDOW_CHUNKS: usize = 200_000;
/// Entries of one window.
const WINDOW_ENTRIES: usize = 20_000;
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
struct Destination {
    file: usize,
    offset: u64,
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
    unfinished: Vec<Unfinished>,
    /// Files of the window whose content cannot be had, with the reason.
    broken: HashMap<usize, String>,
    /// The same of all windows so far, for files with further names.
    broken_links: HashMap<LinkGroup, String>,
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
        let remark = Remark {
            code: error.code(),
            subject: self.target.path().display().to_string(),
            message: error.to_string(),
        };
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
        let remark =
            Remark { code: error.code(), subject: path.to_owned(), message: error.to_string() };
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
        reader::extents(nodes, content, &mut |offset, extent| {
            match extent {
                Extent::Chunk { id, bytes } => {
                    self.wanted.push((id, bytes, Destination { file: number, offset }));
                    if self.wanted.len() >= WINDOW_CHUNKS {
                        self.write_content()?;
                    }
                }
                Extent::Hole { bytes } => {
                    self.report.bytes_kept += bytes;
                    self.target.clear(&file, offset, bytes)?;
                    self.repository.monitor().count(Counter::BytesRestored, bytes);
                }
            }
            Ok(())
        })?;
        Ok(number)
    }

    /// Fetches and writes the content of the window, then finishes its entries in order.
    fn write_window(&mut self) -> Result<(), Error> {
        self.write_content()?;
        let broken = std::mem::take(&mut self.broken);
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
            if let Some(message) = message {
                let path = entry.path.below(self.target.path()).display().to_string();
                let error = Error::ContentDamaged { path: path.clone(), message };
                self.damage(&path, error)?;
                continue;
            }
            for problem in self.target.finish(&entry.path, &entry.node, &entry.meta) {
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
        let ids = asked.iter().map(|(id, _, _)| *id).collect::<Vec<_>>();
        let places = self.nodes.locate(&ids)?;
        let mut broken = std::mem::take(&mut self.broken);
        let mut wanted = Vec::with_capacity(asked.len());
        for ((id, bytes, tag), place) in asked.into_iter().zip(places) {
            match place {
                Some(place) if place.bytes == bytes => wanted.push(Wanted { id, place, tag }),
                _ => {
                    let message = Error::ChunkMissing { chunk: id }.to_string();
                    if !self.keep_going {
                        let path = self.names.get(tag.file).cloned().unwrap_or_default();
                        return Err(Error::ContentDamaged { path, message });
                    }
                    broken.entry(tag.file).or_insert(message);
                }
            }
        }
        let broken = Mutex::new(broken);
        let (written, kept) = (AtomicU64::new(0), AtomicU64::new(0));
        let (target, monitor, keep_going) =
            (self.target, self.repository.monitor(), self.keep_going);
        let (files, names) = (&self.files, &self.names);
        self.nodes.fetch(wanted, &|wanted, chunk| {
            let Destination { file: number, offset } = wanted.tag;
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) if keep_going && error.is_damage() => {
                    broken.lock().entry(number).or_insert_with(|| error.to_string());
                    return Ok(());
                }
                Err(error) if error.is_damage() => {
                    let path = names.get(number).cloned().unwrap_or_default();
                    return Err(Error::ContentDamaged { path, message: error.to_string() });
                }
                Err(error) => return Err(error),
            };
            let Some(file) = files.get(number) else {
                return Err(Error::Internal { part: "the restore" });
            };
            let bytes = chunk.len() as u64;
            let counter =
                if target.write_if_different(file, offset, chunk)? { &written } else { &kept };
            counter.fetch_add(bytes, Ordering::Relaxed);
            monitor.count(Counter::BytesRestored, bytes);
            Ok(())
        })?;
        self.report.bytes_written += written.into_inner();
        self.report.bytes_kept += kept.into_inner();
        self.broken = broken.into_inner();
        Ok(())
    }
}

impl Visitor for TreeWriter<'_> {
    fn entry(&mut self, path: &[u8], entry: &Entry) -> Result<Visit, Error> {
        self.repository.check_cancelled()?;
        if self.wanted.len() >= WINDOW_CHUNKS || self.unfinished.len() >= WINDOW_ENTRIES {
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
        let created = match self.target.create(&place, &entry.node, &entry.meta) {
            Ok(created) => created,
            Err(error) => {
                self.failed(error)?;
                return Ok(Visit::Skip);
            }
        };
        self.count(&entry.node);
        let mut file = None;
        match created {
            Created::Directory { .. } => {
                // Its metadata comes when it is left: what is made in it changes its times.
                self.above.push(place);
                return Ok(Visit::Descend);
            }
            Created::File(made) => match self.list_content(path, made, entry) {
                Ok(number) => file = Some(number),
                Err(error) => {
                    if let Some(group) = entry.meta.link {
                        self.broken_links.insert(group, error.to_string());
                    }
                    self.damage(&shown(path), error)?;
                    return Ok(Visit::Skip);
                }
            },
            Created::Kept => {
                self.report.files_kept += 1;
                if let Node::File(content) = &entry.node {
                    self.report.bytes_kept += content.bytes;
                    self.repository.monitor().count(Counter::BytesRestored, content.bytes);
                }
            }
            Created::Linked | Created::Node => {}
        }
        let (node, meta) = (entry.node.clone(), entry.meta.clone());
        self.unfinished.push(Unfinished { path: place, node, meta, file });
        Ok(Visit::Skip)
    }

    fn leave(&mut self, _: &[u8], entry: &Entry) -> Result<(), Error> {
        let path = self.above.pop().ok_or(Error::Internal { part: "the restore" })?;
        let (node, meta) = (entry.node.clone(), entry.meta.clone());
        self.unfinished.push(Unfinished { path, node, meta, file: None });
        Ok(())
    }

    fn damaged(&mut self, path: &[u8], error: Error) -> Result<(), Error> {
        self.damage(&shown(path), error)
    }
}
