//! What a pack says about itself: locator, directory, frame descriptions (SPEC §6).

use crate::certificate::CERTIFICATE_BYTES_MAX;
use crate::codec::{Reader, Writer};
use crate::envelope::HEADER_BYTES;
use crate::error::FormatError;
use crate::ids::{ChunkId, SessionId};
use crate::limits::{
    CHUNK_BYTES_MAX, FRAME_BASE_BYTES_MAX, FRAME_BASES_MAX, FRAME_CHUNKS_MAX,
    FRAME_PLAIN_BYTES_MAX, FRAME_SEALED_BYTES_MAX, PACK_BYTES_MAX, PACK_FRAMES_MAX, TAG_BYTES,
};

/// Length of the sealed locator at the end of a pack, bytes.
pub const LOCATOR_BYTES: u32 = 32 + TAG_BYTES;

/// How a frame's plaintext is stored inside its seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    Stored,
    /// One zstd frame.
    Zstd,
}

impl Codec {
    /// The byte that stands for it.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Stored => 0,
            Self::Zstd => 1,
        }
    }

    /// The codec a byte stands for.
    ///
    /// # Errors
    /// [`FormatError::Value`] for an unknown one.
    pub const fn from_byte(byte: u8) -> Result<Self, FormatError> {
        match byte {
            0 => Ok(Self::Stored),
            1 => Ok(Self::Zstd),
            _ => Err(FormatError::Value { what: "frame codec" }),
        }
    }
}

/// A chunk and its length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    /// The chunk's id.
    pub id: ChunkId,
    /// Plaintext length, 1 to [`CHUNK_BYTES_MAX`].
    pub bytes: u32,
}

/// One frame of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameDescription {
    /// How the plaintext is stored.
    pub codec: Codec,
    /// Ciphertext and tag, bytes.
    pub sealed_bytes: u32,
    /// The chunks, in order; at least one.
    pub chunks: Vec<ChunkRef>,
    /// The chunks whose concatenation is the zstd prefix; empty for a frame without base.
    pub bases: Vec<ChunkRef>,
}

impl FrameDescription {
    /// Sum of the chunks' lengths, bytes; at most [`FRAME_PLAIN_BYTES_MAX`] once decoded.
    #[must_use]
    pub fn plain_bytes(&self) -> u32 {
        self.chunks.iter().fold(0_u32, |sum, chunk| sum.saturating_add(chunk.bytes))
    }

    /// Bytes that [`Self::encode`] writes, at most.
    #[must_use]
    pub fn encoded_bytes_max(&self) -> usize {
        24 + (self.chunks.len() + self.bases.len()) * (ChunkId::LEN + 4)
    }

    /// Appends the encoded form.
    pub fn encode(&self, writer: &mut Writer) {
        writer
            .u8(self.codec.to_byte())
            .varint(u64::from(self.sealed_bytes))
            .varint(u64::from(self.plain_bytes()));
        for list in [&self.chunks, &self.bases] {
            writer.count(list.len());
            for chunk in list {
                writer.raw(chunk.id.as_bytes()).varint(u64::from(chunk.bytes));
            }
        }
    }

    /// Reads one description and checks it against every limit.
    ///
    /// # Errors
    /// Any [`FormatError`]; in particular when lengths do not add up or a base stands in a stored frame.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let codec = Codec::from_byte(reader.u8()?)?;
        let sealed_bytes = reader.bounded("sealed length of frame", FRAME_SEALED_BYTES_MAX)?;
        let plain_bytes = reader.bounded("plain length of frame", FRAME_PLAIN_BYTES_MAX)?;
        let chunks =
            decode_chunks(reader, "chunks of frame", FRAME_CHUNKS_MAX, FRAME_PLAIN_BYTES_MAX)?;
        let bases = decode_chunks(reader, "bases of frame", FRAME_BASES_MAX, FRAME_BASE_BYTES_MAX)?;
        let frame = Self { codec, sealed_bytes, chunks, bases };
        if frame.chunks.is_empty() || frame.plain_bytes() != plain_bytes {
            return Err(FormatError::Value { what: "plain length of frame" });
        }
        let sealed_ok = match codec {
            Codec::Stored => sealed_bytes == plain_bytes + TAG_BYTES && frame.bases.is_empty(),
            Codec::Zstd => sealed_bytes > TAG_BYTES,
        };
        if sealed_ok {
            Ok(frame)
        } else {
            Err(FormatError::Value { what: "sealed length of frame" })
        }
    }
}

fn decode_chunks(
    reader: &mut Reader<'_>,
    what: &'static str,
    count_max: u32,
    bytes_max: u32,
) -> Result<Vec<ChunkRef>, FormatError> {
    let count = reader.count(what, ChunkId::LEN + 1)?;
    if count > count_max as usize {
        return Err(FormatError::Limit { what, limit: u64::from(count_max), found: count as u64 });
    }
    let mut total = 0_u64;
    let mut chunks = Vec::with_capacity(count);
    for _ in 0..count {
        let id = ChunkId::from_bytes(reader.array()?);
        let bytes = reader.bounded("length of chunk", CHUNK_BYTES_MAX)?;
        if bytes == 0 {
            return Err(FormatError::Value { what: "length of chunk" });
        }
        total += u64::from(bytes);
        chunks.push(ChunkRef { id, bytes });
    }
    if total > u64::from(bytes_max) {
        return Err(FormatError::Limit { what, limit: u64::from(bytes_max), found: total });
    }
    Ok(chunks)
}

/// Appends a list of frame descriptions.
pub fn encode_frames(frames: &[FrameDescription], writer: &mut Writer) {
    writer.count(frames.len());
    for frame in frames {
        frame.encode(writer);
    }
}

/// Reads a list of frame descriptions.
///
/// # Errors
/// Any [`FormatError`]; in particular when there are none or they together exceed a pack.
pub fn decode_frames(reader: &mut Reader<'_>) -> Result<Vec<FrameDescription>, FormatError> {
    let count = reader.count("frames of pack", 5 + ChunkId::LEN)?;
    if count > PACK_FRAMES_MAX as usize {
        return Err(FormatError::Limit {
            what: "frames of pack",
            limit: u64::from(PACK_FRAMES_MAX),
            found: count as u64,
        });
    }
    if count == 0 {
        return Err(FormatError::Missing { what: "frames of pack" });
    }
    let mut end = HEADER_BYTES as u64;
    let mut frames = Vec::with_capacity(count);
    for _ in 0..count {
        let frame = FrameDescription::decode(reader)?;
        end += u64::from(frame.sealed_bytes);
        frames.push(frame);
    }
    if end > u64::from(PACK_BYTES_MAX) {
        return Err(FormatError::Limit {
            what: "bytes of frames in pack",
            limit: u64::from(PACK_BYTES_MAX),
            found: end,
        });
    }
    Ok(frames)
}

/// The plaintext of a pack's directory, without the signature that follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Encoded certificate of the writer.
    pub certificate: Vec<u8>,
    /// The session that wrote the pack.
    pub session: SessionId,
    /// Frames in the order in which they lie in the pack.
    pub frames: Vec<FrameDescription>,
}

impl Directory {
    /// The bytes that are signed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bytes(&self.certificate).raw(self.session.as_bytes());
        encode_frames(&self.frames, &mut writer);
        writer.into_bytes()
    }

    /// Reads the bytes that were signed.
    ///
    /// # Errors
    /// Any [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, "pack directory");
        let certificate = reader.bytes("certificate", CERTIFICATE_BYTES_MAX)?.to_vec();
        let session = SessionId::from_bytes(reader.array()?);
        let frames = decode_frames(&mut reader)?;
        reader.finish()?;
        Ok(Self { certificate, session, frames })
    }
}

/// Where a pack's directory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locator {
    /// End of the last frame, bytes from the start of the pack.
    pub frames_end: u64,
    /// Start of the sealed directory.
    pub directory_offset: u64,
    /// Sealed length of the directory.
    pub directory_bytes: u64,
    /// Number of frames, at least one.
    pub frames: u32,
}

impl Locator {
    /// The 32 bytes that are sealed.
    #[must_use]
    pub fn encode(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (slot, value) in bytes.chunks_exact_mut(8).zip([
            self.frames_end,
            self.directory_offset,
            self.directory_bytes,
            u64::from(self.frames),
        ]) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// Reads the locator of a pack whose locator ends at `pack_bytes`.
    ///
    /// # Errors
    /// [`FormatError::Value`] when the parts do not lie one behind another inside the pack.
    pub fn decode(bytes: &[u8], pack_bytes: u64) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, "pack locator");
        let locator = Self {
            frames_end: reader.u64()?,
            directory_offset: reader.u64()?,
            directory_bytes: reader.u64()?,
            frames: reader.u32()?,
        };
        reader.zeros("pack locator", 4)?;
        reader.finish()?;
        let directory_end = locator.directory_offset.checked_add(locator.directory_bytes);
        let ordered = locator.frames_end > HEADER_BYTES as u64
            && locator.frames_end <= locator.directory_offset
            && directory_end.and_then(|end| end.checked_add(u64::from(LOCATOR_BYTES)))
                == Some(pack_bytes)
            && locator.directory_bytes <= u64::from(crate::limits::DIRECTORY_BYTES_MAX + TAG_BYTES)
            && (1..=PACK_FRAMES_MAX).contains(&locator.frames);
        if ordered { Ok(locator) } else { Err(FormatError::Value { what: "pack locator" }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locator_puts_the_parts_one_behind_another() {
        let good =
            Locator { frames_end: 300, directory_offset: 400, directory_bytes: 100, frames: 2 };
        assert_eq!(Locator::decode(&good.encode(), 548), Ok(good));
        for bad in [
            Locator { frames_end: 192, ..good },
            Locator { frames_end: 401, ..good },
            Locator { directory_offset: u64::MAX, ..good },
            Locator { directory_bytes: 101, ..good },
            Locator { frames: 0, ..good },
            Locator { frames: PACK_FRAMES_MAX + 1, ..good },
        ] {
            assert!(Locator::decode(&bad.encode(), 548).is_err(), "{bad:?}");
        }
        let mut reserved = good.encode();
        reserved[31] = 1;
        assert!(Locator::decode(&reserved, 548).is_err());
    }
}
