//! Index segments: copies of pack directories, so that a repository opens without reading packs
//! (SPEC §7).

use crate::codec::{Reader, Writer};
use crate::envelope::{DOMAIN_SYMMETRIC, HEADER_BYTES};
use crate::error::FormatError;
use crate::ids::{PackId, SegmentId, SessionId, WriterId};
use crate::limits::PACK_BYTES_MAX;
use crate::names::PackKind;
use crate::pack::{FrameDescription, LOCATOR_BYTES, decode_frames, encode_frames};

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
    /// Any [`FormatError`]; in particular when the frames do not fit into the pack.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let section = Self {
            id: PackId::from_bytes(reader.array()?),
            kind: PackKind::from_byte(reader.u8()?)?,
            domain: reader.u32()?,
            epoch: reader.u32()?,
            bytes: reader.bounded("pack length", PACK_BYTES_MAX)?,
            namespace: WriterId::from_bytes(reader.array()?),
            session: SessionId::from_bytes(reader.array()?),
            frames: decode_frames(reader)?,
        };
        if section.domain == DOMAIN_SYMMETRIC {
            return Err(FormatError::Value { what: "domain of a pack" });
        }
        let frames = section.frames.iter().map(|frame| u64::from(frame.sealed_bytes)).sum::<u64>();
        if HEADER_BYTES as u64 + frames + u64::from(LOCATOR_BYTES) > u64::from(section.bytes) {
            return Err(FormatError::Value { what: "frames of a pack" });
        }
        Ok(section)
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

    /// Drops what a role-1 writer may not say (SPEC section 7): packs of other namespaces, and
    /// that segments are replaced. Returns how many packs were dropped.
    pub fn keep_own(&mut self, writer: WriterId) -> usize {
        let before = self.packs.len();
        self.packs.retain(|pack| pack.namespace == writer);
        self.replaces.clear();
        before - self.packs.len()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ChunkId;
    use crate::pack::{ChunkRef, Codec};

    fn section(namespace: u8) -> PackSection {
        let chunk = ChunkRef { id: ChunkId::from_bytes([1; 32]), bytes: 100 };
        let frame = FrameDescription {
            codec: Codec::Stored,
            sealed_bytes: 116,
            chunks: vec![chunk],
            bases: Vec::new(),
        };
        PackSection {
            id: PackId::from_bytes([namespace; 32]),
            kind: PackKind::Data,
            domain: 0,
            epoch: 1,
            bytes: 192 + 116 + 48,
            namespace: WriterId::from_bytes([namespace; 16]),
            session: SessionId::from_bytes([3; 16]),
            frames: vec![frame],
        }
    }

    fn read(section: &PackSection) -> Result<PackSection, FormatError> {
        let mut writer = Writer::new();
        section.encode(&mut writer);
        PackSection::decode(&mut Reader::new(writer.as_bytes(), "section"))
    }

    #[test]
    fn frames_must_fit_into_the_pack() {
        assert_eq!(read(&section(1)), Ok(section(1)));
        assert!(read(&PackSection { bytes: 192 + 116 + 47, ..section(1) }).is_err());
        assert!(read(&PackSection { frames: Vec::new(), ..section(1) }).is_err());
        assert!(read(&PackSection { domain: u32::MAX, ..section(1) }).is_err());
    }

    #[test]
    fn a_writer_speaks_for_its_own_packs_only() {
        let mut segment = Segment {
            level: 1,
            replaces: vec![SegmentId::from_bytes([9; 32])],
            packs: vec![section(0), section(1), section(2), section(1)],
        };
        assert_eq!(segment.keep_own(WriterId::from_bytes([1; 16])), 2);
        assert_eq!(segment.packs, [section(1), section(1)]);
        assert!(segment.replaces.is_empty());
    }
}
