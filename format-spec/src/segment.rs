//! Index segments: copies of pack directories, so that a repository opens without reading packs
//! (SPEC §7).

use crate::codec::{Reader, Writer};
use crate::error::FormatError;
use crate::ids::{PackId, SegmentId, SessionId, WriterId};
use crate::limits::PACK_BYTES_MAX;
use crate::names::PackKind;
use crate::pack::{FrameDescription, decode_frames, encode_frames};

/// Highest level a segment may claim: each level is a merge of several of the one below.
pub const SEGMENT_LEVEL_MAX: u32 = 64;

/// The namespace of packs that owners and maintainers wrote.
pub const NAMESPACE_TRUSTED: WriterId = WriterId::from_bytes([0; 16]);

/// The record of an index segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// 0 as a backup writes it; merging raises it.
    pub level: u32,
    /// Segments that this one replaces.
    pub replaces: Vec<SegmentId>,
    /// The packs described.
    pub packs: Vec<PackSection>,
}

/// What a segment says of one pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackSection {
    /// The pack.
    pub id: PackId,
    /// What it holds.
    pub kind: PackKind,
    /// Domain it is sealed to.
    pub domain: u32,
    /// Epoch of the domain's key.
    pub epoch: u32,
    /// Length of the stored object, bytes.
    pub bytes: u32,
    /// [`NAMESPACE_TRUSTED`] when an owner or maintainer signed its directory, else the writer.
    pub namespace: WriterId,
    /// The session that wrote it.
    pub session: SessionId,
    /// Its frames, in order.
    pub frames: Vec<FrameDescription>,
}

impl PackKind {
    /// The byte that stands for the kind, in headers and segments.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Tree => 2,
        }
    }

    /// The kind a byte stands for.
    ///
    /// # Errors
    /// [`FormatError::Value`] for an unknown one.
    pub const fn from_byte(byte: u8) -> Result<Self, FormatError> {
        match byte {
            1 => Ok(Self::Data),
            2 => Ok(Self::Tree),
            _ => Err(FormatError::Value { what: "kind of pack" }),
        }
    }
}

impl PackSection {
    /// Appends the encoded form.
    pub fn encode(&self, writer: &mut Writer) {
        writer
            .raw(self.id.as_bytes())
            .u8(self.kind.to_byte())
            .u32(self.domain)
            .u32(self.epoch)
            .varint(u64::from(self.bytes))
            .raw(self.namespace.as_bytes())
            .raw(self.session.as_bytes());
        encode_frames(&self.frames, writer);
    }

    /// Reads one section.
    ///
    /// # Errors
    /// Any [`FormatError`].
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            id: PackId::from_bytes(reader.array()?),
            kind: PackKind::from_byte(reader.u8()?)?,
            domain: reader.u32()?,
            epoch: reader.u32()?,
            bytes: reader.bounded("pack length", PACK_BYTES_MAX)?,
            namespace: WriterId::from_bytes(reader.array()?),
            session: SessionId::from_bytes(reader.array()?),
            frames: decode_frames(reader)?,
        })
    }
}

impl Segment {
    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.varint(u64::from(self.level)).count(self.replaces.len());
        for id in &self.replaces {
            writer.raw(id.as_bytes());
        }
        writer.count(self.packs.len());
        for pack in &self.packs {
            pack.encode(&mut writer);
        }
        writer.into_bytes()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Any [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, "index segment");
        let level = reader.bounded("level of segment", SEGMENT_LEVEL_MAX)?;
        let count = reader.count("replaced segments", SegmentId::LEN)?;
        let replaces = (0..count)
            .map(|_| reader.array().map(SegmentId::from_bytes))
            .collect::<Result<_, _>>()?;
        let count = reader.count("packs of segment", 75)?;
        let packs =
            (0..count).map(|_| PackSection::decode(&mut reader)).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { level, replaces, packs })
    }
}
