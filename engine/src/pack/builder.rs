//! Fills a pack in memory: sealed frames one after another, then filler, directory and locator, and
//! parity where that was chosen.

use cairn_format::codec::padme;
use cairn_format::envelope::{HEADER_BYTES, Part, SIGNATURE_BYTES};
use cairn_format::ids::{PackId, SessionId, WriterId};
use cairn_format::limits::{DIRECTORY_BYTES_MAX, PACK_FRAMES_MAX, TAG_BYTES};
use cairn_format::names::PackKind;
use cairn_format::pack::{ChunkRef, Codec, Directory, FrameDescription, LOCATOR_BYTES, Locator};
use cairn_format::parity::ParityLayout;
use cairn_format::record::Parity;
use cairn_format::segment::PackSection;

use crate::error::Error;
use crate::parity;
use crate::seal::{Envelope, Signer};

const TAG: usize = TAG_BYTES as usize;

/// Bytes of a directory besides its frame descriptions: certificate, session, signature, counts.
const DIRECTORY_FIXED_BYTES: usize = 512 + 16 + SIGNATURE_BYTES + 16;

/// A finished pack.
#[derive(Debug)]
pub struct BuiltPack {
    /// What a segment says of it; `id` is its name.
    pub section: PackSection,
    /// The object.
    pub bytes: Vec<u8>,
}

/// A pack being filled.
pub struct PackBuilder {
    kind: PackKind,
    envelope: Envelope,
    buffer: Vec<u8>,
    frames: Vec<FrameDescription>,
    directory_bytes: usize,
    bytes_max: usize,
    parity: Option<Parity>,
}

impl PackBuilder {
    /// Begins a pack in `buffer` (emptied, its memory reused) that is to have at most `bytes_max`
    /// bytes, its parity included. `parity` must be as the header of the envelope says.
    #[must_use]
    pub fn new(
        kind: PackKind,
        envelope: Envelope,
        mut buffer: Vec<u8>,
        bytes_max: u32,
        parity: Option<Parity>,
    ) -> Self {
        let bytes_max = match parity {
            Some(parity) => ParityLayout::protected_bytes_max(u64::from(bytes_max), parity),
            None => u64::from(bytes_max),
        };
        buffer.clear();
        buffer.extend_from_slice(&envelope.header().encode());
        Self {
            kind,
            envelope,
            buffer,
            frames: Vec::new(),
            directory_bytes: DIRECTORY_FIXED_BYTES,
            bytes_max: bytes_max as usize,
            parity,
        }
    }

    /// True when `frames` frames of `stored_bytes` before sealing, with so many chunks and bases
    /// all together, still fit. An empty pack takes what one batch makes.
    #[must_use]
    pub fn fits(&self, frames: usize, stored_bytes: usize, chunks_and_bases: usize) -> bool {
        let directory = self.directory_bytes + 24 * frames + chunks_and_bases * 36;
        let sealed = stored_bytes + TAG * frames;
        let end = self.buffer.len() + sealed + directory + TAG + LOCATOR_BYTES as usize;
        self.frames.is_empty()
            || (end <= self.bytes_max
                && directory <= DIRECTORY_BYTES_MAX as usize
                && self.frames.len() + frames <= PACK_FRAMES_MAX as usize)
    }

    /// Seals a frame's stored plaintext and appends it.
    ///
    /// # Errors
    /// When sealing fails.
    pub fn add(
        &mut self,
        codec: Codec,
        stored: &[u8],
        chunks: Vec<ChunkRef>,
        bases: Vec<ChunkRef>,
    ) -> Result<(), Error> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(stored);
        self.buffer.resize(start + stored.len() + TAG, 0);
        let region = self.buffer.get_mut(start..).unwrap_or_default();
        let number = self.frames.len() as u64;
        self.envelope.sealer().seal_region(Part::Frame(number), region)?;
        let sealed_bytes = u32::try_from(stored.len() + TAG)
            .map_err(|_| Error::Internal { part: "the pack builder" })?;
        let frame = FrameDescription { codec, sealed_bytes, chunks, bases };
        self.directory_bytes += frame.encoded_bytes_max();
        self.frames.push(frame);
        Ok(())
    }

    /// What was added so far.
    #[must_use]
    pub fn frames(&self) -> &[FrameDescription] {
        &self.frames
    }

    /// True when nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Ends the pack.
    ///
    /// # Errors
    /// When sealing fails.
    pub fn finish(
        mut self,
        signer: &Signer,
        session: SessionId,
        namespace: WriterId,
    ) -> Result<BuiltPack, Error> {
        let header = *self.envelope.header();
        let directory = Directory {
            certificate: signer.certificate().encode(),
            session,
            frames: std::mem::take(&mut self.frames),
        };
        let mut plain = directory.encode();
        let signature = signer.sign(&header.bound(), &plain);
        plain.extend_from_slice(&signature);
        self.envelope.sealer().seal_in_place(Part::Directory, &mut plain)?;

        let frames_end = self.buffer.len();
        let least = frames_end + plain.len() + LOCATOR_BYTES as usize;
        let total = usize::try_from(padme(least as u64))
            .map_err(|_| Error::Internal { part: "the pack builder" })?;
        self.buffer.resize(frames_end + total - least, 0);
        if let Some(filler) = self.buffer.get_mut(frames_end..) {
            self.envelope.fill(filler);
        }
        let locator = Locator {
            frames_end: frames_end as u64,
            directory_offset: self.buffer.len() as u64,
            directory_bytes: plain.len() as u64,
            frames: u32::try_from(directory.frames.len()).unwrap_or(u32::MAX),
        };
        self.buffer.append(&mut plain);
        let mut sealed = locator.encode().to_vec();
        self.envelope.sealer().seal_in_place(Part::Locator, &mut sealed)?;
        self.buffer.append(&mut sealed);
        // Checked on the way out as on the way in: what is written must be readable.
        Locator::decode(&locator.encode(), self.buffer.len() as u64)
            .map_err(Error::format("new pack"))?;
        debug_assert!(frames_end >= HEADER_BYTES);
        if header.parity != self.parity.is_some() {
            return Err(Error::Internal { part: "the pack builder" });
        }
        if let Some(choice) = self.parity {
            parity::append(&mut self.buffer, choice)?;
        }

        let domain = match header.keying {
            cairn_format::envelope::Keying::Domain { domain, .. } => domain,
            cairn_format::envelope::Keying::Symmetric { .. } => {
                return Err(Error::Internal { part: "the pack builder" });
            }
        };
        let id = PackId::from_bytes(*blake3::hash(&self.buffer).as_bytes());
        let section = PackSection {
            id,
            kind: self.kind,
            domain,
            epoch: header.epoch,
            bytes: u32::try_from(self.buffer.len())
                .map_err(|_| Error::Internal { part: "the pack builder" })?,
            namespace,
            session,
            frames: directory.frames,
        };
        Ok(BuiltPack { section, bytes: self.buffer })
    }
}
