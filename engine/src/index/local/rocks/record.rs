//! How the local index's records are laid out: fixed width, little-endian, keys big-endian so
//! that they sort.
//!
//! Every decoder takes bytes from a disk that may be damaged: it returns `None` rather than guess.

use cairn_format::ids::{ChunkId, PackId, SessionId, WriterId};
use cairn_format::names::PackKind;

use crate::index::local::{
    ChunkPlace, Counts, GonePack, LedgerEntry, NewPack, PackNumber, PackRecord, SketchEntry,
    SketchSlot,
};

/// Takes fields off the front of a record.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// Nothing may follow the last field.
    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Length of an encoded [`ChunkPlace`], bytes.
pub(super) const PLACE_BYTES: usize = 30;

pub(super) fn encode_place(place: &ChunkPlace) -> [u8; PLACE_BYTES] {
    let mut out = [0; PLACE_BYTES];
    let fields = [
        place.pack.0,
        place.frame_number,
        place.frame_offset,
        place.frame_bytes,
        place.plain_bytes,
        place.offset,
        place.bytes,
    ];
    for (slot, field) in out.chunks_exact_mut(4).zip(fields) {
        slot.copy_from_slice(&field.to_le_bytes());
    }
    let [.., codec, based] = &mut out;
    *codec = place.codec;
    *based = u8::from(place.based);
    out
}

pub(super) fn decode_place(bytes: &[u8]) -> Option<ChunkPlace> {
    let mut fields = Fields(bytes);
    let place = ChunkPlace {
        pack: PackNumber(fields.u32()?),
        frame_number: fields.u32()?,
        frame_offset: fields.u32()?,
        frame_bytes: fields.u32()?,
        plain_bytes: fields.u32()?,
        offset: fields.u32()?,
        bytes: fields.u32()?,
        codec: fields.u8()?,
        based: fields.flag()?,
    };
    fields.end()?;
    Some(place)
}

pub(super) fn encode_record(record: &PackRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(80);
    out.extend_from_slice(record.id.as_bytes());
    out.push(match record.kind {
        PackKind::Data => 0,
        PackKind::Tree => 1,
    });
    out.extend_from_slice(&record.bytes.to_le_bytes());
    out.extend_from_slice(record.writer.as_bytes());
    out.extend_from_slice(record.session.as_bytes());
    out.extend_from_slice(&record.frames.to_le_bytes());
    out.extend_from_slice(&record.chunks.to_le_bytes());
    out
}

pub(super) fn decode_record(bytes: &[u8]) -> Option<PackRecord> {
    let mut fields = Fields(bytes);
    let record = PackRecord {
        id: PackId::from_bytes(fields.bytes()?),
        kind: match fields.u8()? {
            0 => PackKind::Data,
            1 => PackKind::Tree,
            _ => return None,
        },
        bytes: fields.u32()?,
        writer: WriterId::from_bytes(fields.bytes()?),
        session: SessionId::from_bytes(fields.bytes()?),
        frames: fields.u32()?,
        chunks: fields.u32()?,
    };
    fields.end()?;
    Some(record)
}

pub(super) fn encode_ledger(entry: &LedgerEntry) -> [u8; 10] {
    let [a, b, c, d, e, f, g, h] = entry.verified_ms.to_le_bytes();
    [entry.level, u8::from(entry.ok), a, b, c, d, e, f, g, h]
}

pub(super) fn decode_ledger(bytes: &[u8]) -> Option<LedgerEntry> {
    let mut fields = Fields(bytes);
    let level = fields.u8()?;
    let ok = fields.flag()?;
    let verified_ms = fields.u64()?;
    fields.end()?;
    Some(LedgerEntry { level, verified_ms, ok })
}

/// Sorts like the number.
pub(super) fn slot_key(slot: SketchSlot) -> [u8; 4] {
    slot.0.to_be_bytes()
}

pub(super) fn encode_sketch(entry: &SketchEntry) -> [u8; 36] {
    let mut out = [0; 36];
    let (head, tail) = out.split_at_mut(4);
    head.copy_from_slice(&entry.check.to_le_bytes());
    tail.copy_from_slice(entry.chunk.as_bytes());
    out
}

pub(super) fn decode_sketch(bytes: &[u8]) -> Option<SketchEntry> {
    let mut fields = Fields(bytes);
    let entry = SketchEntry { check: fields.u32()?, chunk: ChunkId::from_bytes(fields.bytes()?) };
    fields.end()?;
    Some(entry)
}

/// A list of base chunks with their lengths.
pub(super) fn encode_bases(bases: &[(ChunkId, u32)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bases.len() * 36);
    for (id, bytes) in bases {
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(&bytes.to_le_bytes());
    }
    out
}

pub(super) fn decode_bases(bytes: &[u8]) -> Option<Vec<(ChunkId, u32)>> {
    let mut fields = Fields(bytes);
    let mut bases = Vec::with_capacity(bytes.len() / 36);
    while fields.end().is_none() {
        bases.push((ChunkId::from_bytes(fields.bytes()?), fields.u32()?));
    }
    Some(bases)
}

/// What a removed pack held: who signed for it, then its chunks.
pub(super) fn encode_gone(gone: &GonePack) -> Vec<u8> {
    [gone.writer.as_bytes().as_slice(), &encode_bases(&gone.chunks)].concat()
}

pub(super) fn decode_gone(bytes: &[u8]) -> Option<GonePack> {
    let mut fields = Fields(bytes);
    let writer = WriterId::from_bytes(fields.bytes()?);
    Some(GonePack { writer, chunks: decode_bases(fields.0)? })
}

/// First byte of a layout, so that none is empty: see `Layers`.
const LAYOUT_KIND: u8 = 1;

/// A pack's directory: for each frame its fields and the number of its chunks, then the chunks.
pub(super) fn encode_layout(pack: &NewPack, chunks: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + chunks as usize * 36 + pack.frames.len() * 18);
    out.push(LAYOUT_KIND);
    for frame in &pack.frames {
        for field in [frame.offset, frame.sealed_bytes, frame.plain_bytes] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&[frame.codec, u8::from(!frame.bases.is_empty())]);
        // `NewPack::check` bounds the sum of these counts.
        let count = u32::try_from(frame.chunks.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&encode_bases(&frame.chunks));
    }
    out
}

/// Every chunk a directory lists with its place, in order; ends with `None` at the first byte
/// that makes no sense.
pub(super) fn layout_places(
    layout: &[u8],
    pack: PackNumber,
) -> impl Iterator<Item = Option<(ChunkId, ChunkPlace)>> + '_ {
    let mut fields = Fields(layout);
    let failed = fields.u8() != Some(LAYOUT_KIND);
    LayoutPlaces { fields, pack, frame: None, left: 0, next_frame: 0, failed }
}

struct LayoutPlaces<'a> {
    fields: Fields<'a>,
    pack: PackNumber,
    /// The place of the next chunk of the present frame, without its length.
    frame: Option<ChunkPlace>,
    left: u32,
    next_frame: u32,
    failed: bool,
}

impl LayoutPlaces<'_> {
    fn enter_frame(&mut self) -> Option<()> {
        self.frame = Some(ChunkPlace {
            pack: self.pack,
            frame_number: self.next_frame,
            frame_offset: self.fields.u32()?,
            frame_bytes: self.fields.u32()?,
            plain_bytes: self.fields.u32()?,
            codec: self.fields.u8()?,
            based: self.fields.flag()?,
            offset: 0,
            bytes: 0,
        });
        self.left = self.fields.u32()?;
        self.next_frame = self.next_frame.checked_add(1)?;
        Some(())
    }

    fn chunk(&mut self) -> Option<(ChunkId, ChunkPlace)> {
        let id = ChunkId::from_bytes(self.fields.bytes()?);
        let bytes = self.fields.u32()?;
        let frame = self.frame.as_mut()?;
        let place = ChunkPlace { bytes, ..*frame };
        frame.offset = frame.offset.checked_add(bytes)?;
        self.left = self.left.checked_sub(1)?;
        Some((id, place))
    }
}

impl Iterator for LayoutPlaces<'_> {
    type Item = Option<(ChunkId, ChunkPlace)>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.left == 0 && !self.failed {
            if self.fields.end().is_some() {
                return None;
            }
            self.failed = self.enter_frame().is_none();
        }
        let chunk = if self.failed { None } else { self.chunk() };
        if chunk.is_none() {
            // Say so once, then end.
            *self = Self { fields: Fields(&[]), left: 0, failed: false, ..*self };
        }
        Some(chunk)
    }
}

/// The next pack number and the counts, which are written with every change of them.
#[derive(Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) next: u32,
    pub(super) counts: Counts,
}

impl Tally {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = self.next.to_le_bytes().to_vec();
        let Counts { packs, frames, chunks, pack_bytes } = self.counts;
        for field in [packs, frames, chunks, pack_bytes] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let tally = Self {
            next: fields.u32()?,
            counts: Counts {
                packs: fields.u64()?,
                frames: fields.u64()?,
                chunks: fields.u64()?,
                pack_bytes: fields.u64()?,
            },
        };
        fields.end()?;
        Some(tally)
    }

    pub(super) fn count(&mut self, record: &PackRecord) {
        self.counts.packs += 1;
        self.counts.frames += u64::from(record.frames);
        self.counts.chunks += u64::from(record.chunks);
        self.counts.pack_bytes += u64::from(record.bytes);
    }

    pub(super) fn discount(&mut self, record: &PackRecord) {
        // Saturating: these come from a disk, and wrong counts are no reason to fail.
        let counts = &mut self.counts;
        counts.packs = counts.packs.saturating_sub(1);
        counts.frames = counts.frames.saturating_sub(u64::from(record.frames));
        counts.chunks = counts.chunks.saturating_sub(u64::from(record.chunks));
        counts.pack_bytes = counts.pack_bytes.saturating_sub(u64::from(record.bytes));
    }
}

/// Sorts like the number.
pub(super) fn number_key(number: PackNumber) -> [u8; 4] {
    number.0.to_be_bytes()
}

pub(super) fn decode_number(key: &[u8]) -> Option<PackNumber> {
    key.try_into().ok().map(|bytes| PackNumber(u32::from_be_bytes(bytes)))
}

pub(super) fn base_key(pack: PackNumber, frame_number: u32) -> [u8; 8] {
    let (mut key, frame) = ([0; 8], frame_number.to_be_bytes());
    let (head, tail) = key.split_at_mut(4);
    head.copy_from_slice(&number_key(pack));
    tail.copy_from_slice(&frame);
    key
}

/// Chunk, then pack: the packs that also hold a chunk stand together, first added first.
pub(super) fn other_key(chunk: &ChunkId, pack: PackNumber) -> [u8; 36] {
    let mut key = [0; 36];
    let (head, tail) = key.split_at_mut(32);
    head.copy_from_slice(chunk.as_bytes());
    tail.copy_from_slice(&number_key(pack));
    key
}
