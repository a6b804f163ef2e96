//! Copies chunks into new packs: out of packs that are to go, and for snapshots whose packs were
//! condemned before they could be acknowledged. Every chunk is checked against its id on the way:
//! damage is not copied, nor a false chunk that a stolen writer's key stored.

use std::collections::HashSet;

use cairn_format::envelope::HEADER_BYTES;
use cairn_format::ids::{ChunkId, PackId, SessionId};
use cairn_format::limits::{FRAME_BASES_MAX, FRAME_CHUNKS_MAX};
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::pack::{ChunkRef, Codec, FrameDescription};
use cairn_format::segment::{NAMESPACE_TRUSTED, PackSection};

use super::mark::Marked;
use super::marks::Marks;
use super::successors::Successors;
use crate::context::Counter;
use crate::delta::{LISTING_BYTES, PREFIX_BYTES_MAX, patch};
use crate::error::Error;
use crate::frame::{COMPRESSION_LEVEL_DEFAULT, FrameCodec};
use crate::index::catalog::Catalog;
use crate::index::local::{ChunkPlace, PackNumber, PackRecord};
use crate::index::segments;
use crate::pack::builder::PackBuilder;
use crate::pipeline::ingest::{BATCH_BYTES, TREE_PACK_BYTES_MAX};
use crate::repo::Repository;
use crate::repo::chunks::ChunkReader;

pub mod transfer;

/// Bytes of a pack read at once.
const READ_BYTES: u64 = 4 << 20;

/// A frame to be added to a pack.
#[derive(Default)]
struct NewFrame<'f> {
    chunks: Vec<ChunkRef>,
    bases: Vec<ChunkRef>,
    /// The frame before it in the pack it comes from is its patch, and may be so again; no other
    /// frame must look so.
    own_patch: bool,
    /// The frame whose patch this one is: it has to fit in beside it.
    patches: Option<&'f FrameDescription>,
}

/// Packs of one kind in the making.
#[derive(Default)]
struct Lane {
    open: Option<PackBuilder>,
    /// Chunks that become a frame of their own.
    plain: Vec<u8>,
    chunks: Vec<ChunkRef>,
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

    /// Adds a frame to the pack that is open, or to a new one.
    fn add_frame(
        &mut self,
        kind: PackKind,
        (codec, stored): (Codec, &[u8]),
        frame: NewFrame<'_>,
    ) -> Result<(), Error> {
        let vault = self.repository.vault();
        let NewFrame { chunks, bases, own_patch, patches } = frame;
        let mut names = chunks.len() + bases.len();
        let (mut frames, mut bytes) = (1, stored.len());
        if let Some(patched) = patches {
            names += patched.chunks.len() + patched.bases.len();
            (frames, bytes) = (2, bytes + patched.sealed_bytes as usize);
        }
        let fits = self.lane(kind).open.as_ref().is_some_and(|open| {
            open.fits(frames, bytes, names)
                && (own_patch || !patch::is_patched(open.frames().last(), &bases))
        });
        if !fits {
            self.put(kind)?;
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
            self.end_frame(kind)?;
            self.put(kind)?;
        }
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
        let mut source = Source { reader: &reader, record, start: 0, bytes: bytes::Bytes::new() };
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
                if count == live.len()
                    && self.may_move(number, frame_number, record, frame, marked)?
                {
                    let next = frames.get(frame_number as usize + 1);
                    let patches = next.filter(|next| patch::is_patched(Some(frame), &next.bases));
                    let (chunks, bases) = (frame.chunks.clone(), frame.bases.clone());
                    let moved = NewFrame { chunks, bases, own_patch, patches };
                    self.add_frame(record.kind, (frame.codec, &stored), moved)?;
                } else {
                    let frame = only(frame, &live, &mut plain)?;
                    self.encode_anew(record.kind, &frame, &plain, own_patch, marked)?;
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

    /// Stores the chunks of a frame: against those of its bases that stay, and what follows the
    /// others, where that pays, else whole. With `own_patch` the frame before is its patch, which
    /// stays its last base.
    fn encode_anew(
        &mut self,
        kind: PackKind,
        frame: &FrameDescription,
        plain: &[u8],
        own_patch: bool,
        marked: &mut Marked<'_>,
    ) -> Result<(), Error> {
        if !frame.bases.is_empty() {
            let (bases, prefix) = self.bases_for(kind, frame, marked)?;
            let listing_bytes = bases.len() * LISTING_BYTES;
            let stored = match bases.is_empty() {
                true => None,
                false => self.codec.encode_based(plain, &prefix, listing_bytes)?,
            };
            if let Some(stored) = stored {
                let stored = stored.to_vec();
                self.chunks_rebased += frame.chunks.len() as u64;
                let chunks = frame.chunks.clone();
                let frame = NewFrame { chunks, bases, own_patch, patches: None };
                return self.add_frame(kind, (Codec::Zstd, &stored), frame);
            }
            self.successors.note(frame);
        }
        let mut rest = plain;
        for chunk in &frame.chunks {
            let (bytes, tail) = rest
                .split_at_checked(chunk.bytes as usize)
                .ok_or(Error::Internal { part: "copying chunks" })?;
            rest = tail;
            self.add_chunk(kind, chunk.id, bytes)?;
        }
        Ok(())
    }

    /// What a frame may be stored against, with its content.
    fn bases_for(
        &mut self,
        kind: PackKind,
        frame: &FrameDescription,
        marked: &mut Marked<'_>,
    ) -> Result<(Vec<ChunkRef>, Vec<u8>), Error> {
        let mut wanted: Vec<ChunkRef> = Vec::new();
        for base in &frame.bases {
            let stays = self.place_of_base(kind, base, marked)?.is_some();
            let followers =
                if stays { std::slice::from_ref(base) } else { self.successors.of(&base.id) };
            for chunk in followers {
                if !wanted.contains(chunk) && !frame.chunks.contains(chunk) {
                    wanted.push(*chunk);
                }
            }
        }
        let (mut bases, mut prefix) = (Vec::new(), Vec::new());
        for chunk in wanted {
            if bases.len() >= FRAME_BASES_MAX as usize
                || prefix.len() + chunk.bytes as usize > PREFIX_BYTES_MAX
            {
                break;
            }
            let mut place = self.place_of_base(kind, &chunk, marked)?;
            if place.is_none() {
                // It is in a pack that is still being filled.
                self.end_frame(kind)?;
                self.put(kind)?;
                place = self.place_of_base(kind, &chunk, marked)?;
            }
            let Some(place) = place else { continue };
            match self.reader.base(chunk.id, &place) {
                Ok(content) => {
                    prefix.extend_from_slice(&content);
                    bases.push(chunk);
                }
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        Ok((bases, prefix))
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
            if own || marked.is_live(&place)? {
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

/// Part of a pack that is read from front to back.
struct Source<'s, 'a> {
    reader: &'s ChunkReader<'a>,
    record: &'s PackRecord,
    start: u64,
    bytes: bytes::Bytes,
}

impl Source<'_, '_> {
    /// Makes the bytes from `offset` to `end` available.
    fn fill(&mut self, offset: u64, end: u64) -> Result<(), Error> {
        if offset >= self.start && end <= self.start + self.bytes.len() as u64 {
            return Ok(());
        }
        let to = end.max(offset + READ_BYTES).min(u64::from(self.record.bytes));
        (self.start, self.bytes) = self.reader.range_left(self.record, offset, to.max(end))?;
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
