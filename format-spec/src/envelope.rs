//! The plain header of sealed objects, their parts, and the padding of bodies (SPEC section 5).

use crate::certificate::CERTIFICATE_BYTES_MAX;
use crate::codec::{Reader, Writer, padme};
use crate::error::FormatError;
use crate::ids::RepositoryId;
use crate::limits::{PACK_BYTES_MAX, RECORD_BYTES_MAX, SEGMENT_BYTES_MAX, TOMB_BYTES_MAX};

/// The first bytes of every object but `format`.
pub const MAGIC: [u8; 8] = *b"CAIRN\r\n\x1a";
/// The version of every object's layout.
pub const OBJECT_VERSION: u8 = 1;
/// Length of the plain header, bytes.
pub const HEADER_BYTES: usize = 192;
/// Length of the part of the header that everything sealed under it is bound to, bytes.
pub const BOUND_BYTES: usize = 88;
/// Length of a sealed data key, bytes.
pub const WRAPPED_KEY_BYTES: usize = 48;
/// Kind of a key slot, which has a layout of its own (SPEC section 3.1).
pub const KIND_KEY_SLOT: u8 = 9;
/// Kind of a receipt, which is plain (SPEC section 8.6).
pub const KIND_RECEIPT: u8 = 10;
/// Kind of a replica record, which is plain (SPEC section 8.7).
pub const KIND_REPLICA: u8 = 11;
/// The value of the header's domain field that says "symmetric".
pub const DOMAIN_SYMMETRIC: u32 = u32::MAX;
const FLAG_PARITY: u8 = 1;
/// Length of a signature, bytes.
pub const SIGNATURE_BYTES: usize = 64;
/// Length of the length that precedes a body's content, bytes.
const BODY_PREFIX_BYTES: usize = 4;

/// The kinds of objects that begin with the sealed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A pack of chunks of files and streams.
    DataPack = 1,
    /// A pack of tree nodes.
    TreePack = 2,
    /// An index segment.
    Index = 3,
    /// A snapshot.
    Snapshot = 4,
    /// An acknowledgement of a snapshot.
    Ack = 5,
    /// The repository's settings.
    Config = 6,
    /// A liveness hint.
    Lease = 7,
    /// A list of condemned packs.
    Tomb = 8,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::DataPack,
        Self::TreePack,
        Self::Index,
        Self::Snapshot,
        Self::Ack,
        Self::Config,
        Self::Lease,
        Self::Tomb,
    ];

    /// True for a kind sealed to a domain's public key; false for one sealed under a shared key.
    #[must_use]
    pub const fn sealed_to_domain(self) -> bool {
        match self {
            Self::DataPack | Self::TreePack | Self::Snapshot | Self::Ack => true,
            Self::Index | Self::Config | Self::Lease | Self::Tomb => false,
        }
    }

    /// True for the two kinds of pack; every other kind has a body.
    #[must_use]
    pub const fn is_pack(self) -> bool {
        matches!(self, Self::DataPack | Self::TreePack)
    }

    /// Largest object of this kind, bytes (SPEC section 2).
    #[must_use]
    pub const fn object_bytes_max(self) -> u32 {
        match self {
            Self::DataPack | Self::TreePack => PACK_BYTES_MAX,
            Self::Index => SEGMENT_BYTES_MAX,
            Self::Tomb => TOMB_BYTES_MAX,
            Self::Snapshot | Self::Ack | Self::Config | Self::Lease => RECORD_BYTES_MAX,
        }
    }

    /// The kind in words, for errors.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DataPack => "data pack",
            Self::TreePack => "tree pack",
            Self::Index => "index segment",
            Self::Snapshot => "snapshot",
            Self::Ack => "acknowledgement",
            Self::Config => "config",
            Self::Lease => "lease",
            Self::Tomb => "tomb",
        }
    }
}

impl TryFrom<u8> for Kind {
    type Error = FormatError;

    fn try_from(value: u8) -> Result<Self, FormatError> {
        Self::ALL
            .into_iter()
            .find(|kind| *kind as u8 == value)
            .ok_or(FormatError::Value { what: "kind of a sealed object" })
    }
}

/// The ciphers parts are sealed with. Both have 32-byte keys and 16-byte tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Cipher {
    /// AES-256-GCM: the fast one where the processor has AES instructions.
    Aes256Gcm = 1,
    /// XChaCha20-Poly1305.
    XChaCha20Poly1305 = 2,
}

impl TryFrom<u8> for Cipher {
    type Error = FormatError;

    fn try_from(value: u8) -> Result<Self, FormatError> {
        match value {
            1 => Ok(Self::Aes256Gcm),
            2 => Ok(Self::XChaCha20Poly1305),
            _ => Err(FormatError::Value { what: "cipher" }),
        }
    }
}

/// One separately sealed part of an object. The variants carry what tells parts of one type
/// apart, so that two different parts cannot have the same nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// A pack's frame, by its number from 0.
    Frame(u64),
    /// A pack's directory.
    Directory,
    /// A pack's locator.
    Locator,
    /// The body of any object that is not a pack.
    Body,
}

impl Part {
    /// The part's type, `t` of the nonce.
    #[must_use]
    pub const fn type_byte(self) -> u8 {
        match self {
            Self::Frame(_) => 1,
            Self::Directory => 2,
            Self::Locator => 3,
            Self::Body => 4,
        }
    }

    /// The part's counter, `n` of the nonce.
    #[must_use]
    pub const fn counter(self) -> u64 {
        match self {
            Self::Frame(number) => number,
            Self::Directory | Self::Locator | Self::Body => 0,
        }
    }
}

/// How the data key of an object is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keying {
    /// Wrapped to a domain's X25519 public key.
    Domain {
        /// The domain; never `FFFFFFFF`.
        domain: u32,
        /// Ephemeral X25519 public key.
        ephemeral: [u8; 32],
        /// The data key, sealed.
        wrapped: [u8; WRAPPED_KEY_BYTES],
    },
    /// Derived from a key that every role holds.
    Symmetric {
        /// Random salt.
        salt: [u8; 32],
    },
}

/// The plain header of a sealed object. Nothing in it is trusted before the commitment was
/// compared and a part opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the object is.
    pub kind: Kind,
    /// What its parts are sealed with.
    pub cipher: Cipher,
    /// A parity section follows; packs only.
    pub parity: bool,
    /// Epoch of the key or domain it is sealed to.
    pub epoch: u32,
    /// The repository it belongs to.
    pub repository: RepositoryId,
    /// Random, unique to the object.
    pub random: [u8; 16],
    /// How the data key is reached; must fit the kind.
    pub keying: Keying,
    /// Commitment to the data key.
    pub commitment: [u8; 32],
}

impl Header {
    /// The first [`BOUND_BYTES`]: kind, cipher, domain, epoch, repository, identity, salt.
    #[must_use]
    pub fn bound(&self) -> [u8; BOUND_BYTES] {
        let mut bound = [0; BOUND_BYTES];
        for (to, from) in bound.iter_mut().zip(self.encode()) {
            *to = from;
        }
        bound
    }

    /// The stored form, [`HEADER_BYTES`] long.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (domain, public, wrapped) = match self.keying {
            Keying::Domain { domain, ephemeral, wrapped } => (domain, ephemeral, wrapped),
            Keying::Symmetric { salt } => (DOMAIN_SYMMETRIC, salt, [0; WRAPPED_KEY_BYTES]),
        };
        let mut writer = Writer::new();
        writer
            .raw(&MAGIC)
            .u8(self.kind as u8)
            .u8(OBJECT_VERSION)
            .u8(self.cipher as u8)
            .u8(if self.parity { FLAG_PARITY } else { 0 })
            .u32(domain)
            .u32(self.epoch)
            .u32(0)
            .raw(self.repository.as_bytes())
            .raw(&self.random)
            .raw(&public)
            .raw(&wrapped)
            .raw(&self.commitment)
            .raw(&[0; 24]);
        writer.into_bytes()
    }

    /// Reads a header from exactly [`HEADER_BYTES`] bytes.
    ///
    /// # Errors
    /// [`FormatError::Magic`], [`FormatError::Version`], or another when a field has a value it
    /// must not have, including a kind sealed in the way of another kind.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, "object header");
        let kind = Kind::try_from(read_magic(&mut reader, "object header")?)?;
        let cipher = Cipher::try_from(reader.u8()?)?;
        let parity = match reader.u8()? {
            0 => false,
            FLAG_PARITY if kind.is_pack() => true,
            _ => return Err(FormatError::Value { what: "flags of the header" }),
        };
        let domain = reader.u32()?;
        let epoch = reader.u32()?;
        reader.zeros("reserved bytes of the header", 4)?;
        let repository = RepositoryId::from_bytes(reader.array()?);
        let random = reader.array()?;
        let public = reader.array()?;
        let wrapped: [u8; WRAPPED_KEY_BYTES] = reader.array()?;
        let commitment = reader.array()?;
        reader.zeros("reserved bytes of the header", 24)?;
        reader.finish()?;
        let keying = match (kind.sealed_to_domain(), domain == DOMAIN_SYMMETRIC) {
            (true, false) => Keying::Domain { domain, ephemeral: public, wrapped },
            (false, true) if wrapped == [0; WRAPPED_KEY_BYTES] => {
                Keying::Symmetric { salt: public }
            }
            (false, true) => return Err(FormatError::Value { what: "wrapped key of the header" }),
            _ => return Err(FormatError::Value { what: "domain of the header" }),
        };
        Ok(Self { kind, cipher, parity, epoch, repository, random, keying, commitment })
    }
}

/// Reads magic, kind and version, which every object but `format` begins with; returns the kind.
///
/// # Errors
/// [`FormatError::Magic`] or [`FormatError::Version`].
pub fn read_magic(reader: &mut Reader<'_>, what: &'static str) -> Result<u8, FormatError> {
    if reader.array()? != MAGIC {
        return Err(FormatError::Magic { what });
    }
    let kind = reader.u8()?;
    match reader.u8()? {
        OBJECT_VERSION => Ok(kind),
        found => Err(FormatError::Version {
            what,
            found: u32::from(found),
            known: u32::from(OBJECT_VERSION),
        }),
    }
}

/// Largest content of a body of this kind, bytes: the object with header, tag and padding stays in its limit.
#[must_use]
pub const fn content_bytes_max(kind: Kind) -> usize {
    // Padme adds less than an eighth for every length this large.
    kind.object_bytes_max() as usize / 9 * 8 - HEADER_BYTES - 64
}

/// The padded plaintext of a body: `u32 length then content then zeros`. `room` bytes more are
/// reserved behind it, for the tag.
///
/// # Errors
/// [`FormatError::Limit`] when the content is beyond [`content_bytes_max`].
pub fn pad_body(kind: Kind, content: &[u8], room: usize) -> Result<Vec<u8>, FormatError> {
    let limit = content_bytes_max(kind);
    let over = || FormatError::Limit {
        what: "content of a body",
        limit: limit as u64,
        found: content.len() as u64,
    };
    let len = u32::try_from(content.len()).map_err(|_| over())?;
    if content.len() > limit {
        return Err(over());
    }
    let padded = padded_body_bytes(content.len());
    let mut body = Vec::with_capacity(padded + room);
    body.extend_from_slice(&len.to_le_bytes());
    body.extend_from_slice(content);
    body.resize(padded, 0);
    Ok(body)
}

fn padded_body_bytes(content_len: usize) -> usize {
    usize::try_from(padme((BODY_PREFIX_BYTES + content_len) as u64)).unwrap_or(usize::MAX)
}

/// The content of a padded body.
///
/// # Errors
/// [`FormatError::Value`] when the padding is not exactly what [`pad_body`] writes.
pub fn unpad_body(body: &[u8]) -> Result<&[u8], FormatError> {
    let mut reader = Reader::new(body, "body");
    let len = reader.u32()? as usize;
    let content = reader.raw(len)?;
    if padded_body_bytes(len) != body.len() {
        return Err(FormatError::Value { what: "padded length of a body" });
    }
    let rest = reader.remaining();
    reader.zeros("padding of a body", rest)?;
    reader.finish()?;
    Ok(content)
}

/// The content of a body, taken apart: `bytes certificate then record then [64] signature`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content<'a> {
    /// The encoded certificate; empty only where nothing is signed (leases).
    pub certificate: &'a [u8],
    /// The record.
    pub record: &'a [u8],
    /// The signature, or zeros.
    pub signature: [u8; SIGNATURE_BYTES],
    /// What the signature covers: everything before it.
    pub signed: &'a [u8],
}

impl<'a> Content<'a> {
    /// Takes a body's content apart.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] or [`FormatError::Limit`].
    pub fn parse(content: &'a [u8]) -> Result<Self, FormatError> {
        let (signed, signature) = content
            .split_last_chunk::<SIGNATURE_BYTES>()
            .ok_or(FormatError::Truncated { what: "content of a body" })?;
        let mut reader = Reader::new(signed, "content of a body");
        let certificate = reader.bytes("certificate", CERTIFICATE_BYTES_MAX)?;
        Ok(Self { certificate, record: reader.take_rest(), signature: *signature, signed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: Kind) -> Header {
        let keying = if kind.sealed_to_domain() {
            Keying::Domain { domain: 3, ephemeral: [4; 32], wrapped: [5; 48] }
        } else {
            Keying::Symmetric { salt: [6; 32] }
        };
        Header {
            kind,
            cipher: Cipher::XChaCha20Poly1305,
            parity: kind.is_pack(),
            epoch: 9,
            repository: RepositoryId::from_bytes([1; 16]),
            random: [2; 16],
            keying,
            commitment: [3; 32],
        }
    }

    #[test]
    fn headers_round_trip_for_every_kind() {
        for kind in Kind::ALL {
            let header = header(kind);
            let bytes = header.encode();
            assert_eq!(bytes.len(), HEADER_BYTES);
            assert_eq!(Header::parse(&bytes), Ok(header));
            assert_eq!(header.bound()[..], bytes[..BOUND_BYTES]);
            assert_eq!(Kind::try_from(kind as u8), Ok(kind));
        }
    }

    #[test]
    fn every_change_of_a_header_is_refused_or_seen() {
        for kind in Kind::ALL {
            let original = header(kind);
            let bytes = original.encode();
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                if let Ok(other) = Header::parse(&flipped) {
                    assert_ne!(other, original, "bit {bit}");
                    assert_eq!(other.encode(), flipped, "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn reserved_and_contradicting_fields_are_refused() {
        let refused = |kind: Kind, offset: usize, value: &[u8]| {
            let mut bytes = header(kind).encode();
            bytes[offset..offset + value.len()].copy_from_slice(value);
            assert!(Header::parse(&bytes).is_err(), "{kind:?} at {offset}");
        };
        refused(Kind::DataPack, 0, b"X");
        refused(Kind::DataPack, 8, &[0]);
        refused(Kind::DataPack, 8, &[KIND_KEY_SLOT]);
        refused(Kind::DataPack, 9, &[2]);
        refused(Kind::DataPack, 10, &[0]);
        refused(Kind::DataPack, 10, &[3]);
        refused(Kind::DataPack, 11, &[2]);
        refused(Kind::Snapshot, 11, &[1]);
        refused(Kind::DataPack, 12, &[255; 4]);
        refused(Kind::Index, 12, &[0]);
        refused(Kind::Index, 20, &[1]);
        refused(Kind::Index, 88, &[1]);
        refused(Kind::DataPack, 168, &[1]);
        refused(Kind::DataPack, 191, &[1]);
        let bytes = header(Kind::Tomb).encode();
        assert!(Header::parse(&bytes[..191]).is_err());
        assert!(Header::parse(&[bytes.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn nonces_of_different_parts_differ() {
        let parts = [Part::Frame(0), Part::Frame(1), Part::Directory, Part::Locator, Part::Body];
        for (index, one) in parts.iter().enumerate() {
            for other in &parts[index + 1..] {
                assert_ne!((one.type_byte(), one.counter()), (other.type_byte(), other.counter()));
            }
        }
    }

    #[test]
    fn bodies_hide_their_length_and_have_one_spelling() {
        for len in [0, 1, 5, 100, 1000, 12_345] {
            let content = vec![7; len];
            let body = pad_body(Kind::Index, &content, 16).unwrap();
            assert_eq!(body.len() as u64, padme(4 + len as u64));
            assert_eq!(unpad_body(&body), Ok(content.as_slice()));
            assert!(unpad_body(&[body.as_slice(), &[0]].concat()).is_err());
            let shorter = u32::try_from(len).unwrap().wrapping_sub(1).to_le_bytes();
            let mut wrong = body.clone();
            wrong[..4].copy_from_slice(&shorter);
            assert!(unpad_body(&wrong).is_err());
        }
        let mut dirty = pad_body(Kind::Index, &[7; 1000], 0).unwrap();
        *dirty.last_mut().unwrap() = 1;
        assert!(unpad_body(&dirty).is_err());
        assert!(unpad_body(&[0, 0, 0]).is_err());
    }

    #[test]
    fn the_largest_content_stays_within_the_object_limit() {
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_pack()) {
            let body = pad_body(kind, &vec![1; content_bytes_max(kind)], 16).unwrap();
            assert!(HEADER_BYTES + body.len() + 16 <= kind.object_bytes_max() as usize);
            assert!(pad_body(kind, &vec![1; content_bytes_max(kind) + 1], 16).is_err());
        }
    }

    #[test]
    fn content_is_taken_apart() {
        let content = [&[2, 8, 9][..], b"record", &[1; 64]].concat();
        let parts = Content::parse(&content).unwrap();
        assert_eq!(parts.certificate, [8, 9]);
        assert_eq!(parts.record, b"record");
        assert_eq!(parts.signature, [1; 64]);
        assert_eq!(parts.signed, b"\x02\x08\x09record");
        assert!(Content::parse(&content[..63]).is_err());
        assert!(Content::parse(&[&[200, 1][..], &[0; 64]].concat()).is_err());
    }
}
