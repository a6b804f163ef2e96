//! Reading files anywhere. What is read here and there comes through the cache of decoded frames; what
//! is read from front to back is fetched in windows, ahead of whoever reads, as a restore does it.

use std::collections::{HashMap, HashSet};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use cairn_format::ids::ChunkId;
use cairn_format::tree::{Content, Extent};
use parking_lot::{Condvar, Mutex};

use super::inodes::Folder;
use crate::error::Error;
use crate::repo::chunks::{ByteCache, ChunkReader};
use crate::tree::reader::{self, NodeSource};

/// Plaintext of windows that is kept at hand, bytes; windows of all files together take half of it.
const KEPT_BYTES: usize = 48 << 20;
const WINDOWS_BYTES: u64 = KEPT_BYTES as u64 / 2;
/// A window begins so long, and grows to so much while it is of use, bytes.
const WINDOW_BYTES_MIN: u64 = 512 << 10;
const WINDOW_BYTES_MAX: u64 = 8 << 20;
/// Reads this near to each other are of one course: those of one program may come in disorder, bytes.
const SLACK_BYTES: u64 = 1 << 20;
/// Windows that are fetched at once before they are asked for.
const AHEAD_MAX: usize = 2;
/// Extents that are looked at in search of a hole.
const EXTENTS_SOUGHT_MAX: u32 = 1 << 18;

/// Extents of part of a file, each with its offset.
type Extents = Arc<Vec<(u64, Extent)>>;

/// A file that is open.
pub struct OpenFile {
    pub(super) above: Arc<Folder>,
    pub(super) name: Vec<u8>,
    pub(super) content: Content,
    course: Mutex<Course>,
}

/// How a file is read.
#[derive(Default)]
struct Course {
    begun: bool,
    /// Where the furthest read of this course ended.
    high: u64,
    window: u64,
    /// What was fetched ends here.
    ahead_to: u64,
    ahead_runs: bool,
    /// It is read from front to back.
    stream: Option<Stream>,
    /// Extents that were looked up last.
    range: Range<u64>,
    extents: Extents,
}

/// Counts those that are read from front to back, which share the windows.
struct Stream(Arc<AtomicUsize>);

impl Stream {
    fn new(streams: &Arc<AtomicUsize>) -> Self {
        streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(streams))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl OpenFile {
    pub(super) fn new(above: Arc<Folder>, name: Vec<u8>, content: Content) -> Self {
        Self { above, name, content, course: Mutex::default() }
    }

    /// Length of the file, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.content.bytes
    }

    /// Extents that touch a range, and those behind it as far as a window reaches; and how far that is.
    fn extents(&self, nodes: &dyn NodeSource, range: &Range<u64>) -> Result<(Extents, u64), Error> {
        let window = {
            let course = self.course.lock();
            if course.range.start <= range.start && range.end <= course.range.end {
                return Ok((Arc::clone(&course.extents), course.range.end));
            }
            course.window.max(WINDOW_BYTES_MIN)
        };
        let end = range.end.max(range.start.saturating_add(window)).min(self.content.bytes);
        let found = Arc::new(extents_of(nodes, &self.content, range.start..end)?);
        let mut course = self.course.lock();
        course.range = range.start..end;
        course.extents = Arc::clone(&found);
        Ok((found, end))
    }
}

/// The extents that touch a range.
fn extents_of(
    nodes: &dyn NodeSource,
    content: &Content,
    range: Range<u64>,
) -> Result<Vec<(u64, Extent)>, Error> {
    let mut found = Vec::new();
    reader::extents_within(nodes, content, range, &mut |offset, extent| {
        found.push((offset, extent));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// The chunks among extents that touch a range.
fn chunks_in(extents: &[(u64, Extent)], range: &Range<u64>) -> Vec<ChunkId> {
    let begin = extents.partition_point(|(offset, extent)| offset + extent.bytes() <= range.start);
    let rest = extents.get(begin..).unwrap_or_default();
    rest.iter()
        .take_while(|(offset, _)| *offset < range.end)
        .filter_map(|(_, extent)| match extent {
            Extent::Chunk { id, .. } => Some(*id),
            Extent::Hole { .. } => None,
        })
        .collect()
}

/// Content of files that is at hand or on its way.
pub(super) struct Contents {
    state: Mutex<State>,
    arrived: Condvar,
    streams: Arc<AtomicUsize>,
    ahead: AtomicUsize,
    bytes_read: AtomicU64,
}

struct State {
    kept: ByteCache<ChunkId>,
    on_the_way: HashSet<ChunkId>,
}

/// Chunks that somebody fetches; whoever waits for them is woken also when that fails.
struct Claimed<'c> {
    contents: &'c Contents,
    ids: Vec<ChunkId>,
}

impl Claimed<'_> {
    fn put(&self, id: ChunkId, chunk: Bytes) {
        let mut state = self.contents.state.lock();
        state.kept.put(id, chunk);
        state.on_the_way.remove(&id);
        self.contents.arrived.notify_all();
    }
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        let mut state = self.contents.state.lock();
        for id in &self.ids {
            state.on_the_way.remove(id);
        }
        self.contents.arrived.notify_all();
    }
}

impl Contents {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                kept: ByteCache::new(KEPT_BYTES),
                on_the_way: HashSet::new(),
            }),
            arrived: Condvar::new(),
            streams: Arc::default(),
            ahead: AtomicUsize::new(0),
            bytes_read: AtomicU64::new(0),
        }
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Bytes of a file.
    pub(super) fn read(
        &self,
        reader: &ChunkReader<'_>,
        file: &OpenFile,
        offset: u64,
        bytes: usize,
    ) -> Result<Vec<u8>, Error> {
        let end = offset.saturating_add(bytes as u64).min(file.content.bytes);
        if offset >= end {
            return Ok(Vec::new());
        }
        let range = offset..end;
        let window_end = self.follow(file, &range);
        let (extents, known_to) = file.extents(reader, &range)?;
        let ids = chunks_in(&extents, &range);
        let chunks = match window_end {
            Some(window_end) => {
                let window_end = window_end.min(known_to).max(end);
                let more = chunks_in(&extents, &(end..window_end));
                let (chunks, fetched) = self.obtain(reader, &ids, &more)?;
                if fetched {
                    let mut course = file.course.lock();
                    course.ahead_to = course.ahead_to.max(window_end);
                }
                chunks
            }
            None => self.pick(reader, &ids)?,
        };
        let read = assemble(&extents, &range, &chunks)?;
        self.bytes_read.fetch_add(read.len() as u64, Ordering::Relaxed);
        Ok(read)
    }

    /// Notes a read; where the window ends that it begins, if the file is read from front to back.
    fn follow(&self, file: &OpenFile, range: &Range<u64>) -> Option<u64> {
        let mut course = file.course.lock();
        let near = course.begun
            && range.start <= course.high.saturating_add(SLACK_BYTES)
            && range.start.saturating_add(SLACK_BYTES) >= course.high;
        if !near {
            let (range_known, extents) = (course.range.clone(), Arc::clone(&course.extents));
            let ahead_runs = course.ahead_runs;
            *course = Course {
                begun: true,
                high: range.end,
                ahead_runs,
                range: range_known,
                extents,
                ..Course::default()
            };
            return None;
        }
        course.high = course.high.max(range.end);
        if course.stream.is_none() {
            course.stream = Some(Stream::new(&self.streams));
            course.window = WINDOW_BYTES_MIN;
        }
        Some(range.start.saturating_add(course.window).min(file.content.bytes))
    }

    /// Chunks through the cache of decoded frames.
    fn pick(
        &self,
        reader: &ChunkReader<'_>,
        ids: &[ChunkId],
    ) -> Result<HashMap<ChunkId, Bytes>, Error> {
        let mut found = HashMap::with_capacity(ids.len());
        for id in ids {
            let kept = self.state.lock().kept.get(*id);
            let chunk = match kept {
                Some(chunk) => chunk,
                None => reader.data_chunk(id)?,
            };
            found.insert(*id, chunk);
        }
        Ok(found)
    }

    /// Chunks that are at hand, on their way, or fetched now with `more` that is needed soon; and
    /// whether any were fetched.
    fn obtain(
        &self,
        reader: &ChunkReader<'_>,
        needed: &[ChunkId],
        more: &[ChunkId],
    ) -> Result<(HashMap<ChunkId, Bytes>, bool), Error> {
        let needed = needed.iter().copied().collect::<HashSet<_>>();
        let mut found = HashMap::with_capacity(needed.len());
        let mut fetched = false;
        while let Some(claimed) = self.claim(&needed, more, &mut found) {
            fetched = true;
            let mine = Mutex::new(&mut found);
            self.fetch(reader, &claimed, &|id, chunk| {
                if needed.contains(&id) {
                    mine.lock().insert(id, chunk.clone());
                }
            })?;
            // One by one it turns out why it cannot be had.
            for id in claimed.ids.iter().filter(|id| needed.contains(id)) {
                if !found.contains_key(id) {
                    found.insert(*id, reader.data_chunk(id)?);
                }
            }
        }
        Ok((found, fetched))
    }

    /// Takes what is at hand, and takes on what is missing and nobody fetches; `None` when nothing is
    /// missing.
    fn claim(
        &self,
        needed: &HashSet<ChunkId>,
        more: &[ChunkId],
        found: &mut HashMap<ChunkId, Bytes>,
    ) -> Option<Claimed<'_>> {
        let mut state = self.state.lock();
        loop {
            let missing = |found: &HashMap<ChunkId, Bytes>| {
                needed.iter().filter(|id| !found.contains_key(*id)).copied().collect::<Vec<_>>()
            };
            for id in missing(found) {
                if let Some(chunk) = state.kept.get(id) {
                    found.insert(id, chunk);
                }
            }
            let missing = missing(found);
            if missing.is_empty() {
                return None;
            }
            let mut ids = state.take_on(&missing);
            if !ids.is_empty() {
                ids.extend(state.take_on(more));
                return Some(Claimed { contents: self, ids });
            }
            self.arrived.wait(&mut state);
        }
    }

    /// Fetches what was taken on; what is damaged is left out.
    fn fetch(
        &self,
        reader: &ChunkReader<'_>,
        claimed: &Claimed<'_>,
        each: &(dyn Fn(ChunkId, &Bytes) + Sync),
    ) -> Result<(), Error> {
        reader.each_data_chunk(&claimed.ids, &|nth, chunk| {
            if let (Ok(chunk), Some(id)) = (chunk, claimed.ids.get(nth)) {
                let chunk = Bytes::copy_from_slice(chunk);
                each(*id, &chunk);
                claimed.put(*id, chunk);
            }
            Ok(())
        })
    }

    /// Fetches the next window of a file that is read from front to back, if little is left of it.
    pub(super) fn read_ahead(&self, reader: &ChunkReader<'_>, file: &OpenFile) {
        let Some(range) = self.next_window(file) else { return };
        if self.ahead.fetch_add(1, Ordering::AcqRel) < AHEAD_MAX {
            // Whoever reads it is told what is wrong with it.
            if let Ok(extents) = extents_of(reader, &file.content, range.clone()) {
                let ids = self.state.lock().take_on(&chunks_in(&extents, &range));
                let claimed = Claimed { contents: self, ids };
                let _outcome = self.fetch(reader, &claimed, &|_, _| {});
            }
        } else {
            file.course.lock().ahead_to = range.start;
        }
        self.ahead.fetch_sub(1, Ordering::AcqRel);
        file.course.lock().ahead_runs = false;
    }

    fn next_window(&self, file: &OpenFile) -> Option<Range<u64>> {
        let mut course = file.course.lock();
        let little = course.ahead_to <= course.high.saturating_add(course.window / 2);
        if course.stream.is_none() || course.ahead_runs || !little {
            return None;
        }
        let streams = self.streams.load(Ordering::Relaxed).max(1) as u64;
        let share = (WINDOWS_BYTES / streams).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        course.window = course.window.saturating_mul(2).min(share);
        let start = course.ahead_to.max(course.high);
        let end = course.high.saturating_add(course.window).min(file.content.bytes);
        if start >= end {
            return None;
        }
        course.ahead_runs = true;
        course.ahead_to = end;
        Some(start..end)
    }
}

impl State {
    /// Of these chunks, those that are neither at hand nor fetched by anybody; from now on they are.
    fn take_on(&mut self, ids: &[ChunkId]) -> Vec<ChunkId> {
        let mut taken = Vec::new();
        for id in ids {
            if self.kept.get(*id).is_none() && self.on_the_way.insert(*id) {
                taken.push(*id);
            }
        }
        taken
    }
}

/// Puts the bytes of a range together.
fn assemble(
    extents: &[(u64, Extent)],
    range: &Range<u64>,
    chunks: &HashMap<ChunkId, Bytes>,
) -> Result<Vec<u8>, Error> {
    let length = usize::try_from(range.end - range.start).unwrap_or_default();
    let mut out = Vec::with_capacity(length);
    for (offset, extent) in extents {
        let from = range.start.max(*offset);
        let to = range.end.min(offset.saturating_add(extent.bytes()));
        if from >= to {
            continue;
        }
        let bytes = usize::try_from(to - from).unwrap_or_default();
        match extent {
            Extent::Hole { .. } => out.resize(out.len() + bytes, 0),
            Extent::Chunk { id, bytes: whole } => {
                let chunk = chunks.get(id).filter(|chunk| chunk.len() == *whole as usize);
                let start = usize::try_from(from - offset).unwrap_or(usize::MAX);
                let part = chunk.and_then(|chunk| chunk.get(start..)?.get(..bytes));
                out.extend_from_slice(part.ok_or(Error::ChunkMissing { chunk: *id })?);
            }
        }
    }
    if out.len() == length { Ok(out) } else { Err(Error::Internal { part: "reading a file" }) }
}

/// Where the next hole, or the next data, of a file begins; the end of a file of very many extents
/// may come before its next hole.
pub(super) fn seek(
    nodes: &dyn NodeSource,
    content: &Content,
    offset: u64,
    hole: bool,
) -> Result<Option<u64>, Error> {
    if offset >= content.bytes {
        return Ok(None);
    }
    let (mut found, mut left) = (None, EXTENTS_SOUGHT_MAX);
    reader::extents_within(nodes, content, offset..content.bytes, &mut |begin, extent| {
        left -= 1;
        if matches!(extent, Extent::Hole { .. }) == hole {
            found = Some(begin.max(offset));
        }
        let enough = found.is_some() || left == 0;
        Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(found.or(hole.then_some(content.bytes)))
}
