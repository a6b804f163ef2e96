//! Copies chunks into new packs: out of packs that are to go, and for snapshots whose packs were
//! condemned before they could be acknowledged. Every chunk is checked against its id on the way:
//! damage is not copied, nor a false chunk that a stolen writer's key stored.

use std::collections::HashSet;

use bytes::Bytes;
use cairn_format::envelope::HEADER_BYTES;
use cairn_format::ids::{ChunkId, PackId, SessionId};
use cairn_format::limits::FRAME_CHUNKS_MAX;
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::pack::{ChunkRef, Codec, FrameDescription};
use cairn_format::segment::{NAMESPACE_TRUSTED, PackSection};

use self::anew::{Former, Waiting};
use super::mark::Marked;
use super::marks::Marks;
use super::memo::Memos;
use super::successors::Successors;
use crate::context::Counter;
use crate::delta::patch;
use crate::error::Error;
use crate::frame::{COMPRESSION_LEVEL_DEFAULT, FrameCodec};
use crate::index::catalog::Catalog;
use crate::index::local::{ChunkPlace, MemoChange, PackNumber, PackRecord};
use crate::index::segments;
use crate::pack::builder::PackBuilder;
use crate::pipeline::ingest::{BATCH_BYTES, TREE_PACK_BYTES_MAX};
use crate::repo::Repository;
use crate::repo::chunks::ChunkReader;

mod anew;
pub mod transfer;

/// Bytes of a pack read at once.
const READ_BYTES: u64 = 4 << 20;

/// A frame to be added to a pack.
#[derive(Default)]
struct NewFrame {
    chunks: Vec<ChunkRef>,
    bases: Vec<ChunkRef>,
    /// The frame before it is its patch; no other frame must look so.
    own_patch: bool,
}

/// Packs of one kind in the making.
#[derive(Default)]
struct Lane {
    open: Option<PackBuilder>,
    /// Chunks that become a frame of their own.
    plain: Vec<u8>,
    chunks: Vec<ChunkRef>,
    /// Chunks that become a frame with bases.
    waiting: Waiting,
}

/// Writes chunks into new packs, and names these in segments at the end.
pub struct Copier<'a> {
    repository: &'a Repository,
    catalog: &'a Catalog,
    session: SessionId,
    codec: FrameCodec,
    data: Lane,
    tree: Lane,
    sections: Vec<PackSection>,
    /// Chunks out of packs of writers that were copied to packs that are open.
    open: HashSet<ChunkId>,
    /// What was copied, by where it was.
    copied: Marks,
    successors: Successors,
    /// What is to be remembered of frames that were tried and stored whole.
    declined: Vec<MemoChange>,
    reader: ChunkReader<'a>,
    /// Bytes of packs put.
    pub bytes_written: u64,
    /// Packs put.
    pub packs_written: u64,
    /// Chunks that were stored against others than before.
    pub chunks_rebased: u64,
}

impl<'a> Copier<'a> {
    /// A copier that has copied nothing.
    ///
    /// # Errors
    /// When there is no memory for compression; when the key cannot read.
    pub fn new(
        repository: &'a Repository,
        catalog: &'a Catalog,
        session: SessionId,
    ) -> Result<Self, Error> {
        Ok(Self {
            repository,
            catalog,
            session,
            codec: FrameCodec::new(COMPRESSION_LEVEL_DEFAULT)?,
            data: Lane::default(),
            tree: Lane::default(),
            sections: Vec::new(),
            open: HashSet::new(),
            copied: Marks::default(),
            successors: Successors::default(),
            declined: Vec::new(),
            reader: repository.chunk_reader(NAMESPACE_TRUSTED)?,
            bytes_written: 0,
            packs_written: 0,
            chunks_rebased: 0,
        })
    }

    fn lane(&mut self, kind: PackKind) -> &mut Lane {
        match kind {
            PackKind::Data => &mut self.data,
            PackKind::Tree => &mut self.tree,
        }
    }

    /// Adds one chunk, which was checked against its id.
    ///
    /// # Errors
    /// Failures of the store or the cache.
    pub fn add_chunk(&mut self, kind: PackKind, id: ChunkId, chunk: &[u8]) -> Result<(), Error> {
        let bytes =
            u32::try_from(chunk.len()).map_err(|_| Error::Internal { part: "copying chunks" })?;
        let lane = self.lane(kind);
        if lane.plain.len() + chunk.len() > BATCH_BYTES
            || lane.chunks.len() >= FRAME_CHUNKS_MAX as usize
        {
            self.end_frame(kind)?;
        }
        let lane = self.lane(kind);
        lane.plain.extend_from_slice(chunk);
        lane.chunks.push(ChunkRef { id, bytes });
        Ok(())
    }

    /// Adds chunks whose content is one after another.
    fn add_chunks(
        &mut self,
        kind: PackKind,
        chunks: &[ChunkRef],
        plain: &[u8],
    ) -> Result<(), Error> {
        let mut rest = plain;
        for chunk in chunks {
            let (bytes, tail) = rest
                .split_at_checked(chunk.bytes as usize)
                .ok_or(Error::Internal { part: "copying chunks" })?;
            rest = tail;
            self.add_chunk(kind, chunk.id, bytes)?;
        }
        Ok(())
    }

    fn end_frame(&mut self, kind: PackKind) -> Result<(), Error> {
        let lane = self.lane(kind);
        if lane.chunks.is_empty() {
            return Ok(());
        }
        let mut plain = std::mem::take(&mut lane.plain);
        let chunks = std::mem::take(&mut lane.chunks);
        let (codec, stored) = {
            let (codec, stored) = self.codec.encode(&plain)?;
            (codec, stored.to_vec())
        };
        plain.clear();
        self.lane(kind).plain = plain;
        self.add_frame(kind, (codec, &stored), NewFrame { chunks, ..NewFrame::default() })
    }

    /// Puts the pack that is open unless so many frames fit into it: `stored_bytes` before sealing,
    /// with so many chunks and bases all together.
    fn make_room(
        &mut self,
        kind: PackKind,
        frames: usize,
        stored_bytes: usize,
        names: usize,
    ) -> Result<(), Error> {
        let open = self.lane(kind).open.as_ref();
        if open.is_some_and(|open| !open.fits(frames, stored_bytes, names)) {
            self.put(kind)?;
        }
        Ok(())
    }

    /// Puts the pack that is open unless a patch and its frame fit into it as they are.
    fn make_room_for(
        &mut self,
        kind: PackKind,
        frames: [&FrameDescription; 2],
    ) -> Result<(), Error> {
        let bytes = frames.iter().map(|frame| frame.sealed_bytes as usize).sum();
        let names = frames.iter().map(|frame| frame.chunks.len() + frame.bases.len()).sum();
        self.make_room(kind, frames.len(), bytes, names)
    }

    /// Adds a frame to the pack that is open, or to a new one.
    fn add_frame(
        &mut self,
        kind: PackKind,
        (codec, stored): (Codec, &[u8]),
        frame: NewFrame,
    ) -> Result<(), Error> {
        let vault = self.repository.vault();
        let NewFrame { chunks, bases, own_patch } = frame;
        self.make_room(kind, 1, stored.len(), chunks.len() + bases.len())?;
        let open = self.lane(kind).open.as_ref();
        if !own_patch && open.is_some_and(|open| patch::is_patched(open.frames().last(), &bases)) {
            self.put(kind)?;
        }
        if self.lane(kind).open.is_none() {
            let bytes_max = match kind {
                PackKind::Data => vault.config.pack_bytes,
                PackKind::Tree => vault.config.pack_bytes.min(TREE_PACK_BYTES_MAX),
            };
            let open = vault.pack(kind, Vec::new(), bytes_max)?;
            self.lane(kind).open = Some(open);
        }
        match &mut self.lane(kind).open {
            Some(open) => open.add(codec, stored, chunks, bases),
            None => Err(Error::Internal { part: "copying chunks" }),
        }
    }

    /// Puts the pack that is open.
    fn put(&mut self, kind: PackKind) -> Result<(), Error> {
        let Some(open) = self.lane(kind).open.take().filter(|open| !open.is_empty()) else {
            return Ok(());
        };
        let vault = self.repository.vault();
        let pack = open.finish(vault.keys.signer()?, self.session, vault.own_namespace()?)?;
        vault.store.put(&ObjectName::Pack(kind, pack.section.id), &pack.bytes)?;
        self.packs_written += 1;
        self.bytes_written += pack.bytes.len() as u64;
        vault.monitor().count(Counter::PacksStored, 1);
        vault.monitor().count(Counter::BytesStored, pack.bytes.len() as u64);
        self.catalog.add_pending(&pack.section)?;
        for chunk in pack.section.frames.iter().flat_map(|frame| &frame.chunks) {
            self.open.remove(&chunk.id);
        }
        self.sections.push(pack.section);
        Ok(())
    }

    /// Puts what is left, and names everything put since the last time, and `others`, in segments.
    /// Returns the packs put.
    ///
    /// # Errors
    /// Failures of the store or the cache.
    pub fn finish(&mut self, others: Vec<PackSection>) -> Result<Vec<PackId>, Error> {
        for kind in [PackKind::Data, PackKind::Tree] {
            self.end_waiting(kind)?;
            self.end_frame(kind)?;
            self.put(kind)?;
        }
        let memos = Memos::new(self.repository.vault(), self.catalog);
        memos.put(&std::mem::take(&mut self.declined))?;
        let mut sections = std::mem::take(&mut self.sections);
        let packs = sections.iter().map(|section| section.id).collect();
        sections.extend(others);
        for (segment, named) in segments::write(self.repository.vault(), 0, &[], sections)? {
            self.catalog.commit(segment, &named)?;
        }
        Ok(packs)
    }

    /// Copies what is marked live of a pack and was not copied before: frames as they are stored where
    /// all of it is.
    ///
    /// # Errors
    /// Damage in what has to be copied; [`Error::PackMissing`]; failures of the store or the cache.
    pub fn copy_live(
        &mut self,
        number: PackNumber,
        record: &PackRecord,
        marked: &mut Marked<'_>,
    ) -> Result<u64, Error> {
        let reader = self.repository.chunk_reader(record.writer)?;
        let frames = self.catalog.frames(number)?;
        let mut source = Source::new(&reader, record, Bytes::new());
        let (mut stored, mut plain) = (Vec::new(), Vec::new());
        let (mut offset, mut position, mut copied) = (HEADER_BYTES as u64, 0, 0);
        for (frame_number, frame) in (0_u32..).zip(&frames) {
            let end = offset + u64::from(frame.sealed_bytes);
            let positions = position..position + frame.chunks.len();
            position = positions.end;
            let broken = marked.is_broken(number, frame_number);
            let wanted =
                |at| !broken && marked.live.get(number, at) && !self.copied.get(number, at);
            let mut live = positions.clone().map(wanted).collect::<Vec<_>>();
            if record.writer != NAMESPACE_TRUSTED {
                self.leave_out_trusted(frame, &mut live, marked)?;
            }
            let count = live.iter().filter(|live| **live).count();
            if count > 0 {
                self.repository.check_cancelled()?;
                let place = place_of(number, frame_number, offset, frame)?;
                source.fill(offset, end)?;
                let range = (source.start, source.bytes.as_ref());
                reader.open_frame(record, &place, frame, range, &mut stored, &mut plain)?;
                let before = frame_number.checked_sub(1).and_then(|at| frames.get(at as usize));
                let own_patch = count == live.len() && patch::is_patched(before, &frame.bases);
                let renewed = positions.clone().any(|at| marked.renewed.get(number, at));
                if count == live.len()
                    && !renewed
                    && self.may_move(number, frame_number, record, frame, marked)?
                {
                    let next = frames.get(frame_number as usize + 1);
                    if let Some(next) = next
                        && patch::is_patched(Some(frame), &next.bases)
                    {
                        self.make_room_for(record.kind, [frame, next])?;
                    }
                    let (chunks, bases) = (frame.chunks.clone(), frame.bases.clone());
                    let moved = NewFrame { chunks, bases, own_patch };
                    self.add_frame(record.kind, (frame.codec, &stored), moved)?;
                } else {
                    let needed = only(frame, &live, &mut plain)?;
                    let key = (number, frame_number);
                    if place.based {
                        let prefix = reader.base_prefix(record, &place)?;
                        let former = Former::new(key, &needed, &plain, &prefix);
                        self.store_anew(record.kind, &former, marked)?;
                    } else {
                        let at = positions.clone().zip(&live).filter(|(_, live)| **live);
                        let at = at.map(|(at, _)| at).collect::<Vec<_>>();
                        self.store_again(record.kind, key, (&needed, &at, &plain), marked)?;
                    }
                }
                copied += count as u64;
                for (at, _) in positions.zip(&live).filter(|(_, live)| **live) {
                    self.copied.set(number, at);
                }
            }
            offset = end;
        }
        Ok(copied)
    }

    /// What is copied is trusted from then on: of a writer's chunks only those are copied that no
    /// trusted pack holds, so that none is held twice.
    fn leave_out_trusted(
        &mut self,
        frame: &FrameDescription,
        live: &mut [bool],
        marked: &mut Marked<'_>,
    ) -> Result<(), Error> {
        for (chunk, live) in frame.chunks.iter().zip(live).filter(|(_, live)| **live) {
            *live = !marked.has_trusted(chunk.id)?
                && !self.is_copied(chunk.id)?
                && self.open.insert(chunk.id);
        }
        Ok(())
    }

    /// Whether this copier has put a chunk already.
    fn is_copied(&self, id: ChunkId) -> Result<bool, Error> {
        for place in self.catalog.copies(id, NAMESPACE_TRUSTED)? {
            if self.catalog.pack(place.pack)?.session == self.session {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where a base stands that stays: because it is needed, or because this copier put it there.
    fn place_of_base(
        &self,
        kind: PackKind,
        base: &ChunkRef,
        marked: &mut Marked<'_>,
    ) -> Result<Option<ChunkPlace>, Error> {
        for place in self.catalog.base_copies(base, kind, NAMESPACE_TRUSTED)? {
            let own = self.catalog.pack(place.pack)?.session == self.session;
            if own || marked.stays_as_base(&place)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Whether a frame can be read in a trusted pack as it is stored: its bases are found there.
    fn may_move(
        &self,
        number: PackNumber,
        frame_number: u32,
        record: &PackRecord,
        frame: &FrameDescription,
        marked: &Marked<'_>,
    ) -> Result<bool, Error> {
        if frame.bases.is_empty() {
            return Ok(true);
        }
        if record.writer != NAMESPACE_TRUSTED || marked.orphans.contains(&(number, frame_number)) {
            return Ok(false);
        }
        let condemned = self.catalog.condemned_here();
        for base in &frame.bases {
            let copies = self.catalog.base_copies(base, record.kind, NAMESPACE_TRUSTED)?;
            if copies.first().is_none_or(|place| condemned.contains(&place.pack)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A pack that is read from front to back, a part at a time.
struct Source<'s, 'a> {
    reader: &'s ChunkReader<'a>,
    record: &'s PackRecord,
    start: u64,
    bytes: Bytes,
}

impl<'s, 'a> Source<'s, 'a> {
    /// `bytes` are its first ones, as many as are at hand.
    const fn new(reader: &'s ChunkReader<'a>, record: &'s PackRecord, bytes: Bytes) -> Self {
        Self { reader, record, start: 0, bytes }
    }

    /// Makes the bytes from `offset` to `end` available.
    fn fill(&mut self, offset: u64, end: u64) -> Result<(), Error> {
        if offset >= self.start && end <= self.start + self.bytes.len() as u64 {
            return Ok(());
        }
        let to = end.max(offset + READ_BYTES).min(u64::from(self.record.bytes)).max(end);
        (self.start, self.bytes) = match self.reader.range(self.record, offset, to) {
            // What comes behind may be what cannot be read.
            Err(error) if error.is_damage() && to > end => {
                self.reader.range_left(self.record, offset, end)?
            }
            Err(error) if error.is_damage() && !error.has_vanished() => (offset, Bytes::new()),
            read => read?,
        };
        Ok(())
    }
}

/// A frame with only those of its chunks that are live, whose content `plain` then is.
fn only(
    frame: &FrameDescription,
    live: &[bool],
    plain: &mut Vec<u8>,
) -> Result<FrameDescription, Error> {
    let (mut chunks, mut from, mut to) = (Vec::new(), 0, 0);
    for (chunk, live) in frame.chunks.iter().zip(live) {
        let end = from + chunk.bytes as usize;
        if *live {
            if end > plain.len() {
                return Err(Error::Internal { part: "copying chunks" });
            }
            plain.copy_within(from..end, to);
            to += chunk.bytes as usize;
            chunks.push(*chunk);
        }
        from = end;
    }
    plain.truncate(to);
    Ok(FrameDescription { chunks, ..frame.clone() })
}

fn place_of(
    pack: PackNumber,
    frame_number: u32,
    frame_offset: u64,
    frame: &FrameDescription,
) -> Result<ChunkPlace, Error> {
    Ok(ChunkPlace {
        pack,
        frame_number,
        frame_offset: u32::try_from(frame_offset)
            .map_err(|_| Error::Internal { part: "copying chunks" })?,
        frame_bytes: frame.sealed_bytes,
        plain_bytes: frame.plain_bytes(),
        codec: frame.codec.to_byte(),
        based: !frame.bases.is_empty(),
        offset: 0,
        bytes: 0,
    })
}
