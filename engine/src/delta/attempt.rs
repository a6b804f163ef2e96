//! A frame that is tried against bases: what stands in them already, what of it is new, and what
//! both take. Backups and collections make such frames alike.

use std::ops::Range;

use cairn_format::ids::ChunkId;
use cairn_format::limits::{CHUNK_BYTES_MAX, FRAME_BASES_MAX};
use cairn_format::names::PackKind;
use cairn_format::pack::{ChunkRef, Codec};

use super::LISTING_BYTES;
use super::parse::{self, Copied};
use crate::error::Error;
use crate::frame::FrameCodec;
use crate::index::local::PackNumber;

/// Plaintext below which a frame is left to zstd's own search, bytes: it finds shorter stretches.
const COPIED_BYTES_MIN: usize = 48 << 10;
/// A base that explains less is not worth its name, bytes.
const EXPLAINED_BYTES_MIN: usize = 256;
/// Changes with less between them are taken into a patch in one piece, bytes.
const PATCH_GAP_BYTES: usize = 300;
/// Shorter changes are left in the frame, bytes.
const PATCH_STRETCH_BYTES_MIN: usize = 16;
/// A shorter patch is not worth its name, bytes: what it would hold is left in the frame.
const PATCH_BYTES_MIN: usize = 256;
/// A frame to be tried: which chunks, and what they are compressed against.
pub struct Attempt {
    /// Positions of its chunks among those asked about, ascending.
    pub chunks: Vec<usize>,
    /// The chunks' content.
    pub plain: Vec<u8>,
    /// The bases, in order.
    pub bases: Vec<ChunkRef>,
    /// Their content; behind it that of the patch.
    pub prefix: Vec<u8>,
    /// How the frame is to be made; `None` leaves it to zstd.
    pub copies: Option<Vec<Copied>>,
    /// Length of the patch, the last part of the prefix, bytes; 0 without one.
    pub patch_bytes: usize,
    /// The pack of each base, ascending.
    pub(super) packs: Vec<PackNumber>,
}

/// A frame as it is to be sealed.
pub struct EncodedFrame {
    /// How it is stored.
    pub codec: Codec,
    /// What is sealed.
    pub stored: Vec<u8>,
    /// Its chunks, in order.
    pub chunks: Vec<ChunkRef>,
    /// What it is stored against, in order.
    pub bases: Vec<ChunkRef>,
}

impl Attempt {
    /// A frame with this content.
    #[must_use]
    pub fn of(plain: Vec<u8>) -> Self {
        Self {
            chunks: Vec::new(),
            plain,
            bases: Vec::new(),
            prefix: Vec::new(),
            copies: None,
            patch_bytes: 0,
            packs: Vec::new(),
        }
    }

    /// Adds a base behind the others. `pack` stands for the day on which it was written; those of
    /// bases that follow each other ascend.
    pub fn add_base(&mut self, base: ChunkRef, content: &[u8], pack: PackNumber) {
        self.prefix.extend_from_slice(content);
        self.bases.push(base);
        self.packs.push(pack);
    }

    /// In how many packs the bases lie: about how many backups wrote them.
    #[must_use]
    pub fn days(&self) -> usize {
        self.packs.chunk_by(|one, other| one == other).count().max(1)
    }

    /// The chunks that the patch is stored as; none without one.
    pub fn patch(&self) -> impl Iterator<Item = &[u8]> {
        let patch = self.prefix.len().checked_sub(self.patch_bytes);
        let patch = patch.and_then(|from| self.prefix.get(from..)).unwrap_or_default();
        patch.chunks(CHUNK_BYTES_MAX as usize)
    }

    /// Bytes that naming its bases costs.
    #[must_use]
    pub fn listing_bytes(&self) -> usize {
        (self.bases.len() + self.patch().count()) * LISTING_BYTES
    }
}

impl Attempt {
    /// Finds out what stands in which base, leaves out bases that are of no use, and takes what no
    /// base explains into a patch; leaves tree nodes and short frames to zstd.
    pub fn prepare(&mut self, kind: PackKind) {
        if kind == PackKind::Data && self.plain.len() >= COPIED_BYTES_MIN {
            self.parse();
        }
    }

    fn parse(&mut self) {
        let lengths = self.bases.iter().map(|base| base.bytes as usize).collect::<Vec<_>>();
        let bases = parse::Bases::new(&self.prefix);
        // Most of what is replaced by something else is told at once.
        let mut copies =
            if bases.share(&self.plain) { bases.copies(&self.plain) } else { Vec::new() };
        drop(bases);
        let shares = parse::shares(&copies, &lengths);
        let useful = shares.iter().map(|share| *share >= EXPLAINED_BYTES_MIN).collect::<Vec<_>>();
        if useful.contains(&false) {
            let kept = lengths.into_iter().zip(useful.iter().copied()).collect::<Vec<_>>();
            copies = parse::keep(&copies, &kept);
            let mut start = 0;
            let mut prefix = Vec::with_capacity(self.prefix.len());
            for (bytes, kept) in kept {
                let content = self.prefix.get(start..start + bytes).unwrap_or_default();
                prefix.extend_from_slice(if kept { content } else { &[] });
                start += bytes;
            }
            self.prefix = prefix;
            let mut kept = useful.iter();
            self.bases.retain(|_| kept.next() == Some(&true));
            let mut kept = useful.iter();
            self.packs.retain(|_| kept.next() == Some(&true));
        }
        if self.bases.is_empty() {
            self.copies = Some(Vec::new());
            return;
        }
        let least = PATCH_STRETCH_BYTES_MIN;
        let new = parse::unexplained(&copies, self.plain.len(), PATCH_GAP_BYTES, least);
        let patch_bytes = new.iter().map(Range::len).sum::<usize>();
        let names = self.bases.len() + patch_bytes.div_ceil(CHUNK_BYTES_MAX as usize);
        if patch_bytes >= PATCH_BYTES_MIN && names <= FRAME_BASES_MAX as usize {
            copies = parse::with_patch(&copies, &new, self.prefix.len());
            for stretch in new {
                self.prefix.extend_from_slice(self.plain.get(stretch).unwrap_or_default());
            }
            self.patch_bytes = patch_bytes;
        }
        self.copies = Some(copies);
    }

    /// The frame of `chunks`, whose content was given, behind its patch if it has one; `None` when
    /// that does not pay. Every frame was decoded and compared. `id_of` names the patch.
    ///
    /// # Errors
    /// [`Error::Frame`] when a frame does not decode to what went in.
    pub fn encode(
        &self,
        chunks: Vec<ChunkRef>,
        codec: &mut FrameCodec,
        id_of: &dyn Fn(&[u8]) -> ChunkId,
    ) -> Result<Option<Vec<EncodedFrame>>, Error> {
        if self.bases.is_empty() {
            return Ok(None);
        }
        let mut frames = Vec::with_capacity(2);
        let mut bases = self.bases.clone();
        let patch = self.patch().collect::<Vec<_>>();
        if !patch.is_empty() {
            let length = |data: &[u8]| u32::try_from(data.len()).unwrap_or(u32::MAX);
            let named = patch.iter().map(|data| ChunkRef { id: id_of(data), bytes: length(data) });
            let chunks = named.collect::<Vec<_>>();
            bases.extend(&chunks);
            let plain = patch.concat();
            let (codec, stored) = codec.encode(&plain)?;
            let (stored, bases) = (stored.to_vec(), Vec::new());
            frames.push(EncodedFrame { codec, stored, chunks, bases });
        }
        let patch_bytes = frames.iter().map(|frame| frame.stored.len()).sum::<usize>();
        let listing = self.listing_bytes();
        let stored = match &self.copies {
            Some(copies) => {
                let besides = (listing, patch_bytes, self.days());
                codec.encode_copied(&self.plain, &self.prefix, copies, besides)?
            }
            None => codec.encode_based(&self.plain, &self.prefix, listing)?,
        };
        let Some(stored) = stored.map(<[u8]>::to_vec) else { return Ok(None) };
        frames.push(EncodedFrame { codec: Codec::Zstd, stored, chunks, bases });
        Ok(Some(frames))
    }
}
