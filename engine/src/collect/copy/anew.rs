//! Chunks of frames that cannot stay as they are, because their bases go or because not all of them
//! are needed: gathered into frames and stored as a backup stores what is new. What an old base
//! explained is looked for in what took its place; what is new against all of them becomes the
//! frame's patch, for later versions to find.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use cairn_format::ids::ChunkId;
use cairn_format::limits::{FRAME_BASES_MAX, FRAME_CHUNKS_MAX};
use cairn_format::names::PackKind;
use cairn_format::pack::{ChunkRef, FrameDescription};
use cairn_format::segment::NAMESPACE_TRUSTED;

use super::{Copier, NewFrame};
use crate::collect::mark::Marked;
use crate::collect::memo::Memos;
use crate::collect::tried::Tried;
use crate::delta::parse::{self, Copied};
use crate::delta::{
    Attempt, FRAME_BYTES, PREFIX_BYTES_MAX, TREE_FRAME_BYTES, TREE_PREFIX_BYTES_MAX,
};
use crate::error::Error;
use crate::index::local::{ChunkPlace, PackNumber};

/// Chunks of which bases explain a smaller share, a quarter, are stored whole.
const EXPLAINED_SHARE_MIN: usize = 4;
/// What holds less of what was copied from a base does not take its place, bytes.
const SUCCEEDED_BYTES_MIN: usize = 256;

/// What a chunk may be stored against.
#[derive(Clone, Copy)]
struct Candidate {
    chunk: ChunkRef,
    /// Where it stands, if not in a pack of this session.
    place: Option<ChunkPlace>,
    /// How much of what is waiting it may explain, bytes.
    bytes: u64,
}

/// A stretch of content that was copied from a base which goes.
#[derive(Clone, Debug)]
struct Origin {
    /// Where it is in the content, bytes.
    at: Range<usize>,
    base: ChunkId,
    /// Where it began in the base, bytes.
    from: u32,
}

/// Chunks that wait until there are enough of them for a frame.
#[derive(Default)]
pub(super) struct Waiting {
    plain: Vec<u8>,
    chunks: Vec<ChunkRef>,
    /// What the content was copied from, in order.
    origins: Vec<Origin>,
    candidates: HashMap<ChunkId, Candidate>,
    /// Length of all candidates, bytes.
    prefix_bytes: usize,
    /// What most of each chunk was copied from, and out of which frame the chunk came.
    mains: HashMap<ChunkId, (PackNumber, u32)>,
}

/// A frame, and what its content was copied from.
pub(super) struct Former<'f> {
    /// Which it is.
    key: (PackNumber, u32),
    /// Its needed chunks, and its bases.
    frame: &'f FrameDescription,
    /// The content of the chunks.
    plain: &'f [u8],
    /// The content of the bases.
    prefix: &'f [u8],
    /// Its chunks stood whole, and may have been bases: what is stored against them follows.
    whole: bool,
}

impl<'f> Former<'f> {
    /// A frame with bases.
    pub(super) const fn new(
        key: (PackNumber, u32),
        frame: &'f FrameDescription,
        plain: &'f [u8],
        prefix: &'f [u8],
    ) -> Self {
        Self { key, frame, plain, prefix, whole: false }
    }
}

/// A base of a frame.
struct OldBase {
    chunk: ChunkRef,
    /// Where it begins among all of them, bytes.
    start: usize,
    /// Where it stands, if it stays.
    place: Option<ChunkPlace>,
}

/// One chunk of a frame that is stored anew.
struct Part<'p> {
    chunk: ChunkRef,
    content: &'p [u8],
    /// What it was copied from: stretches of the chunk, each with the base and where it began there.
    stretches: Vec<(Range<usize>, &'p OldBase, u32)>,
    /// It stood whole, and may have been a base itself.
    whole: bool,
}

impl Part<'_> {
    /// The base that explains most of it, of several the first.
    fn main(&self) -> Option<ChunkId> {
        let mut shares: Vec<(ChunkId, usize)> = Vec::new();
        for (at, base, _) in &self.stretches {
            match shares.iter_mut().find(|(id, _)| *id == base.chunk.id) {
                Some((_, bytes)) => *bytes += at.len(),
                None => shares.push((base.chunk.id, at.len())),
            }
        }
        shares.into_iter().rev().max_by_key(|(_, bytes)| *bytes).map(|(id, _)| id)
    }

    /// What goes of what it was copied from.
    fn origins(&self) -> Vec<Origin> {
        let goes = self.stretches.iter().filter(|(_, base, _)| base.place.is_none());
        let origin = |(at, base, from): &(Range<usize>, &OldBase, u32)| Origin {
            at: at.clone(),
            base: base.chunk.id,
            from: *from,
        };
        let itself = Origin { at: 0..self.content.len(), base: self.chunk.id, from: 0 };
        let itself = self.whole.then_some(itself);
        itself.into_iter().chain(goes.map(origin)).collect()
    }
}

impl Copier<'_> {
    /// Stores the needed chunks of a frame anew.
    pub(super) fn store_anew(
        &mut self,
        kind: PackKind,
        former: &Former<'_>,
        marked: &mut Marked<'_>,
    ) -> Result<(), Error> {
        let frame = former.frame;
        let copies = parse::copies(former.plain, former.prefix);
        let lengths = frame.bases.iter().map(|base| base.bytes as usize);
        let stretches = parse::by_base(&copies, lengths);
        let (mut bases, mut start) = (Vec::with_capacity(frame.bases.len()), 0);
        for chunk in &frame.bases {
            let place = self.place_of_base(kind, chunk, marked)?;
            bases.push(OldBase { chunk: *chunk, start, place });
            start += chunk.bytes as usize;
        }
        let mut start = 0;
        for chunk in &frame.chunks {
            let range = start..start + chunk.bytes as usize;
            start = range.end;
            let content = former.plain.get(range.clone());
            let content = content.ok_or(Error::Internal { part: "copying chunks" })?;
            let stretches = within(&stretches, &bases, &range);
            let part = Part { chunk: *chunk, content, stretches, whole: former.whole };
            self.store_part(kind, former.key, &bases, &part)?;
        }
        Ok(())
    }

    /// Stores the needed chunks of a frame without bases, which stand `at` these positions of their
    /// pack: whole, but for those that are tried once more.
    pub(super) fn store_again(
        &mut self,
        kind: PackKind,
        key: (PackNumber, u32),
        (frame, at, plain): (&FrameDescription, &[usize], &[u8]),
        marked: &mut Marked<'_>,
    ) -> Result<(), Error> {
        let tried_of =
            |(chunk, at): (&ChunkRef, &usize)| marked.tried(chunk.id, key.0, *at).cloned();
        let tried = frame.chunks.iter().zip(at).map(tried_of).collect::<Vec<_>>();
        let mut rest = (frame.chunks.as_slice(), plain);
        let same = |one: &Option<Arc<Tried>>, other: &Option<Arc<Tried>>| match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        for run in tried.chunk_by(same) {
            let (chunks, others) = rest.0.split_at(run.len().min(rest.0.len()));
            let bytes = chunks.iter().map(|chunk| chunk.bytes as usize).sum();
            let (plain, tail) =
                rest.1.split_at_checked(bytes).ok_or(Error::Internal { part: "copying chunks" })?;
            rest = (others, tail);
            let Some(Some(tried)) = run.first() else {
                self.add_chunks(kind, chunks, plain)?;
                continue;
            };
            let (bases, prefix) = self.contents(kind, &tried.bases)?;
            let frame = FrameDescription { chunks: chunks.to_vec(), bases, ..frame.clone() };
            let former = Former { key, frame: &frame, plain, prefix: &prefix, whole: true };
            self.store_anew(kind, &former, marked)?;
        }
        Ok(())
    }

    /// Those of some bases that can still be had, with their content.
    fn contents(
        &self,
        kind: PackKind,
        bases: &[ChunkRef],
    ) -> Result<(Vec<ChunkRef>, Vec<u8>), Error> {
        let (mut found, mut prefix) = (Vec::new(), Vec::new());
        for base in bases {
            let copies = self.catalog.base_copies(base, kind, NAMESPACE_TRUSTED)?;
            let Some(place) = copies.first() else { continue };
            match self.reader.base(base.id, place) {
                Ok(content) => {
                    prefix.extend_from_slice(&content);
                    found.push(*base);
                }
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        Ok((found, prefix))
    }

    /// Lets a chunk wait for others of a frame, or stores it whole where nothing explains enough of it.
    fn store_part(
        &mut self,
        kind: PackKind,
        key: (PackNumber, u32),
        bases: &[OldBase],
        part: &Part<'_>,
    ) -> Result<(), Error> {
        let main = part.main().or_else(|| match kind {
            // zstd finds what is too short to be found here.
            PackKind::Tree => bases.first().map(|base| base.chunk.id),
            PackKind::Data => None,
        });
        let other = main.and_then(|main| self.lane(kind).waiting.mains.get(&main).copied());
        if other.is_some_and(|other| other != key) {
            // Another version of what waits: it is stored against that.
            self.end_waiting(kind)?;
        }
        let (candidates, explained) = self.candidates(kind, bases, part);
        let origins = part.origins();
        let hopeless =
            kind == PackKind::Data && explained * EXPLAINED_SHARE_MIN < part.content.len();
        if hopeless || candidates.is_empty() {
            self.succeed(kind, &origins, &one_by_one(&[part.chunk]));
            return self.add_chunk(kind, part.chunk.id, part.content);
        }
        if !self.lane(kind).waiting.has_room(kind, &part.chunk, &candidates) {
            self.end_waiting(kind)?;
        }
        let waiting = &mut self.lane(kind).waiting;
        waiting.mains.extend(main.map(|main| (main, key)));
        waiting.add(part, origins, candidates);
        Ok(())
    }

    /// What a chunk may be stored against, and how much of it that explains, bytes.
    fn candidates(
        &self,
        kind: PackKind,
        bases: &[OldBase],
        part: &Part<'_>,
    ) -> (Vec<Candidate>, usize) {
        let mut found: Vec<Candidate> = Vec::new();
        let mut add = |chunk: ChunkRef, place: Option<ChunkPlace>, bytes: u64| match found
            .iter_mut()
            .find(|known| known.chunk == chunk)
        {
            Some(known) => known.bytes += bytes,
            None if chunk.id == part.chunk.id => {}
            None => found.push(Candidate { chunk, place, bytes }),
        };
        let mut explained = 0;
        for (at, base, from) in &part.stretches {
            if base.place.is_some() {
                add(base.chunk, base.place, at.len() as u64);
                explained += at.len();
                continue;
            }
            let length = u32::try_from(at.len()).unwrap_or(u32::MAX);
            let mut held = 0;
            for (chunk, bytes) in
                self.successors.of(&base.chunk.id, *from..from.saturating_add(length))
            {
                add(chunk, None, bytes.into());
                held = at.len().min(held + bytes as usize);
            }
            explained += held;
        }
        if kind == PackKind::Tree {
            for base in bases {
                match base.place {
                    Some(_) => add(base.chunk, base.place, 0),
                    None => (self.successors.of(&base.chunk.id, 0..base.chunk.bytes))
                        .for_each(|(chunk, _)| add(chunk, None, 0)),
                }
            }
        }
        (found, explained)
    }

    /// Notes what holds now what was copied from bases that go. Both are in order.
    fn succeed(&mut self, kind: PackKind, origins: &[Origin], now: &[(Range<usize>, ChunkRef)]) {
        let least = match kind {
            PackKind::Data => SUCCEEDED_BYTES_MIN,
            PackKind::Tree => 1,
        };
        let mut shared: HashMap<(ChunkId, ChunkId), (ChunkRef, usize, Range<u32>)> = HashMap::new();
        let mut rest = now;
        for origin in origins {
            while let [(first, _), tail @ ..] = rest
                && first.end <= origin.at.start
            {
                rest = tail;
            }
            for (part, chunk) in rest.iter().take_while(|(part, _)| part.start < origin.at.end) {
                let start = part.start.max(origin.at.start);
                let bytes = part.end.min(origin.at.end).saturating_sub(start);
                let skipped = u32::try_from(start - origin.at.start).unwrap_or(u32::MAX);
                let from = origin.from.saturating_add(skipped);
                let to = from.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
                let (_, all, range) =
                    shared.entry((origin.base, chunk.id)).or_insert_with(|| (*chunk, 0, from..to));
                *all += bytes;
                *range = range.start.min(from)..range.end.max(to);
            }
        }
        for ((base, _), (chunk, bytes, range)) in shared {
            if bytes >= least {
                self.successors.note(base, range, chunk);
            }
        }
    }

    /// Stores what waits, as one frame against bases with its patch where that pays, else whole.
    pub(super) fn end_waiting(&mut self, kind: PackKind) -> Result<(), Error> {
        let waiting = std::mem::take(&mut self.lane(kind).waiting);
        if waiting.chunks.is_empty() {
            return Ok(());
        }
        let Waiting { plain, chunks, origins, candidates, .. } = waiting;
        let mut attempt = self.attempt(kind, plain, &chunks, candidates)?;
        if !attempt.bases.is_empty() {
            attempt.prepare(kind);
        }
        let encoded = match attempt.bases.is_empty() {
            true => None,
            false => {
                let keys = &self.repository.vault().keys;
                let id_of = |data: &[u8]| match kind {
                    PackKind::Data => keys.chunk_id(data),
                    PackKind::Tree => keys.tree_id(data),
                };
                attempt.encode(chunks.clone(), &mut self.codec, &id_of)?
            }
        };
        let Some(frames) = encoded else {
            if attempt.copies.is_some() {
                let tried = Tried { chunks: chunks.clone(), bases: attempt.bases.clone() };
                let memos = Memos::new(self.repository.vault(), self.catalog);
                self.declined.extend(tried.change(&memos));
            }
            self.succeed(kind, &origins, &one_by_one(&chunks));
            return self.add_chunks(kind, &chunks, &attempt.plain);
        };
        self.chunks_rebased += chunks.len() as u64;
        let bases = frames.last().map(|frame| frame.bases.clone()).unwrap_or_default();
        let copies = match &attempt.copies {
            Some(copies) => copies.clone(),
            None => parse::copies(&attempt.plain, &attempt.prefix),
        };
        self.succeed(kind, &origins, &held(&copies, &bases));
        let stored = frames.iter().map(|frame| frame.stored.len()).sum();
        let names = frames.iter().map(|frame| frame.chunks.len() + frame.bases.len()).sum();
        self.make_room(kind, frames.len(), stored, names)?;
        let own_patch = frames.len() > 1;
        for frame in frames {
            let based = !frame.bases.is_empty();
            let (chunks, bases) = (frame.chunks, frame.bases);
            let new = NewFrame { chunks, bases, own_patch: own_patch && based };
            self.add_frame(kind, (frame.codec, &frame.stored), new)?;
        }
        Ok(())
    }

    /// A frame to be tried against those candidates that are likely to explain most of it.
    fn attempt(
        &mut self,
        kind: PackKind,
        plain: Vec<u8>,
        chunks: &[ChunkRef],
        candidates: HashMap<ChunkId, Candidate>,
    ) -> Result<Attempt, Error> {
        let own = chunks.iter().map(|chunk| chunk.id).collect::<HashSet<_>>();
        let mut candidates = candidates.into_values().collect::<Vec<_>>();
        candidates.retain(|candidate| !own.contains(&candidate.chunk.id));
        candidates.sort_by_key(|it| (std::cmp::Reverse(it.bytes), it.chunk.id));
        let prefix_bytes_max = prefix_bytes_max(kind);
        let (mut bases, mut prefix_bytes) = (Vec::new(), 0);
        for candidate in candidates {
            let bytes = candidate.chunk.bytes as usize;
            // One name is left for the patch.
            if bases.len() + 2 >= FRAME_BASES_MAX as usize
                || prefix_bytes + bytes > prefix_bytes_max
            {
                continue;
            }
            let place = match candidate.place {
                Some(place) => Some(place),
                None => self.own_place(kind, &candidate.chunk)?,
            };
            if let Some(place) = place {
                prefix_bytes += bytes;
                bases.push((candidate.chunk, place));
            }
        }
        bases.sort_by_key(|(_, place)| (place.pack, place.frame_number, place.offset));
        let mut attempt = Attempt::of(plain);
        for (chunk, place) in bases {
            match self.reader.base(chunk.id, &place) {
                Ok(content) => attempt.add_base(chunk, &content, place.pack),
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(attempt)
    }

    /// Where this copier put a chunk, in a pack that is put now if it was not.
    fn own_place(&mut self, kind: PackKind, chunk: &ChunkRef) -> Result<Option<ChunkPlace>, Error> {
        let place = self.place_put(kind, chunk)?;
        if place.is_some() {
            return Ok(place);
        }
        self.end_frame(kind)?;
        self.put(kind)?;
        self.place_put(kind, chunk)
    }

    fn place_put(&self, kind: PackKind, chunk: &ChunkRef) -> Result<Option<ChunkPlace>, Error> {
        for place in self.catalog.base_copies(chunk, kind, NAMESPACE_TRUSTED)? {
            if self.catalog.pack(place.pack)?.session == self.session {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }
}

fn prefix_bytes_max(kind: PackKind) -> usize {
    match kind {
        PackKind::Data => PREFIX_BYTES_MAX,
        PackKind::Tree => TREE_PREFIX_BYTES_MAX,
    }
}

/// Which part of the content stands in which base.
fn held(copies: &[Copied], bases: &[ChunkRef]) -> Vec<(Range<usize>, ChunkRef)> {
    let by_base = parse::by_base(copies, bases.iter().map(|base| base.bytes as usize));
    let named = by_base
        .into_iter()
        .filter_map(|(copied, base)| Some((copied.at..copied.end(), *bases.get(base)?)));
    named.collect()
}

/// Chunks that lie one after another.
fn one_by_one(chunks: &[ChunkRef]) -> Vec<(Range<usize>, ChunkRef)> {
    let mut end = 0;
    let parts = chunks.iter().map(|chunk| {
        let start = end;
        end += chunk.bytes as usize;
        (start..end, *chunk)
    });
    parts.collect()
}

/// What a part of a frame's content was copied from.
fn within<'p>(
    stretches: &[(Copied, usize)],
    bases: &'p [OldBase],
    range: &Range<usize>,
) -> Vec<(Range<usize>, &'p OldBase, u32)> {
    let first = stretches.partition_point(|(copied, _)| copied.end() <= range.start);
    let within = stretches.iter().skip(first).take_while(|(copied, _)| copied.at < range.end);
    let cut = within.filter_map(|(copied, base)| {
        let base = bases.get(*base)?;
        let (from, to) = (copied.at.max(range.start), copied.end().min(range.end));
        let in_base = copied.from.checked_sub(base.start)? + (from - copied.at);
        Some((from - range.start..to - range.start, base, u32::try_from(in_base).ok()?))
    });
    cut.collect()
}

impl Waiting {
    fn has_room(&self, kind: PackKind, chunk: &ChunkRef, candidates: &[Candidate]) -> bool {
        let frame_bytes_max = match kind {
            PackKind::Data => FRAME_BYTES,
            PackKind::Tree => TREE_FRAME_BYTES,
        };
        let new = candidates.iter().filter(|it| !self.candidates.contains_key(&it.chunk.id));
        let (mut names, mut bytes) = (self.candidates.len(), self.prefix_bytes);
        for candidate in new {
            (names, bytes) = (names + 1, bytes + candidate.chunk.bytes as usize);
        }
        self.chunks.is_empty()
            || (self.plain.len() + chunk.bytes as usize <= frame_bytes_max
                && self.chunks.len() < FRAME_CHUNKS_MAX as usize
                && bytes <= prefix_bytes_max(kind)
                && names < FRAME_BASES_MAX as usize)
    }

    fn add(&mut self, part: &Part<'_>, origins: Vec<Origin>, candidates: Vec<Candidate>) {
        let start = self.plain.len();
        self.plain.extend_from_slice(part.content);
        self.chunks.push(part.chunk);
        let moved = |origin: Origin| Origin {
            at: origin.at.start + start..origin.at.end + start,
            ..origin
        };
        self.origins.extend(origins.into_iter().map(moved));
        for candidate in candidates {
            match self.candidates.entry(candidate.chunk.id) {
                Entry::Occupied(mut known) => known.get_mut().bytes += candidate.bytes,
                Entry::Vacant(free) => {
                    self.prefix_bytes += candidate.chunk.bytes as usize;
                    free.insert(candidate);
                }
            }
        }
    }
}
