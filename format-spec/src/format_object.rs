//! The `format` object: the only plain, fixed-name object; says what the repository is (SPEC section 4.1).

use crate::codec::{Reader, Writer};
use crate::error::FormatError;
use crate::ids::RepositoryId;

/// Length of the object, bytes.
pub const FORMAT_BYTES: usize = 96;
/// Length of what its check sum covers, bytes.
const CHECKED_BYTES: usize = 64;
/// The first bytes of every `format` object.
pub const FORMAT_MAGIC: [u8; 16] = *b"cairn repository";
/// The format version this crate writes and reads.
pub const FORMAT_VERSION: u32 = 1;
/// Required feature bits this crate knows (SPEC section 11): none yet.
pub const REQUIRED_FEATURES_KNOWN: u64 = 0;
/// Optional feature bits this crate knows (SPEC section 11): none yet.
pub const OPTIONAL_FEATURES_KNOWN: u64 = 0;

/// What the `format` object says. Protected against damage by its check sum, and against
/// forgery only by the config that names its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatObject {
    /// Bits of which each must be known to whoever touches the repository.
    pub required_features: u64,
    /// Bits of which each must be known to whoever writes.
    pub optional_features: u64,
    /// The repository's random id.
    pub repository: RepositoryId,
    /// When `init` made it, milliseconds since 1970.
    pub created_ms: i64,
}

impl FormatObject {
    /// True when this crate knows every optional feature, so that it may write.
    #[must_use]
    pub const fn may_write(&self) -> bool {
        self.optional_features & !OPTIONAL_FEATURES_KNOWN == 0
    }

    /// The stored form. `hash` is BLAKE3-256, which this crate does not contain.
    #[must_use]
    pub fn encode(&self, hash: impl FnOnce(&[u8]) -> [u8; 32]) -> Vec<u8> {
        let mut writer = Writer::new();
        writer
            .raw(&FORMAT_MAGIC)
            .u32(FORMAT_VERSION)
            .u32(0)
            .u64(self.required_features)
            .u64(self.optional_features)
            .raw(self.repository.as_bytes())
            .i64(self.created_ms);
        let check = hash(writer.as_bytes());
        writer.raw(&check);
        writer.into_bytes()
    }

    /// Reads the stored form. `hash` is BLAKE3-256.
    ///
    /// # Errors
    /// [`FormatError::Magic`] when it is no `format` object, [`FormatError::Version`] when a newer
    /// cairn wrote it, [`FormatError::Required`] for an unknown required feature, and any other
    /// error when it is damaged.
    pub fn parse(bytes: &[u8], hash: impl FnOnce(&[u8]) -> [u8; 32]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, "format object");
        if reader.array()? != FORMAT_MAGIC {
            return Err(FormatError::Magic { what: "a format object" });
        }
        let version = reader.u32()?;
        if version != FORMAT_VERSION {
            return Err(FormatError::Version {
                what: "format object",
                found: version,
                known: FORMAT_VERSION,
            });
        }
        reader.zeros("reserved bytes of the format object", 4)?;
        let found = Self {
            required_features: reader.u64()?,
            optional_features: reader.u64()?,
            repository: RepositoryId::from_bytes(reader.array()?),
            created_ms: reader.i64()?,
        };
        let check: [u8; 32] = reader.array()?;
        reader.finish()?;
        if bytes.get(..CHECKED_BYTES).map(hash) != Some(check) {
            return Err(FormatError::Value { what: "check sum of the format object" });
        }
        let unknown = found.required_features & !REQUIRED_FEATURES_KNOWN;
        if unknown != 0 {
            return Err(FormatError::Required { what: "format object", unknown });
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not BLAKE3, but enough to see that the check sum is compared.
    fn sum(bytes: &[u8]) -> [u8; 32] {
        let mut state = [0x5a_u8; 32];
        for (index, byte) in bytes.iter().enumerate() {
            let cell = &mut state[index % 32];
            *cell = cell.rotate_left(3) ^ byte;
        }
        state
    }

    fn sample() -> FormatObject {
        FormatObject {
            required_features: 0,
            optional_features: 0,
            repository: RepositoryId::from_bytes([7; 16]),
            created_ms: -5,
        }
    }

    #[test]
    fn round_trips_and_refuses_every_flipped_bit() {
        let bytes = sample().encode(sum);
        assert_eq!(bytes.len(), FORMAT_BYTES);
        assert_eq!(FormatObject::parse(&bytes, sum), Ok(sample()));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(FormatObject::parse(&flipped, sum).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(FormatObject::parse(&bytes[..len], sum).is_err(), "length {len}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(FormatObject::parse(&longer, sum).is_err());
    }

    #[test]
    fn unknown_required_features_forbid_reading_and_optional_ones_writing() {
        let required = FormatObject { required_features: 2, ..sample() };
        assert!(matches!(
            FormatObject::parse(&required.encode(sum), sum),
            Err(FormatError::Required { unknown: 2, .. })
        ));
        let optional = FormatObject { optional_features: 4, ..sample() };
        let read = FormatObject::parse(&optional.encode(sum), sum).unwrap();
        assert!(!read.may_write());
        assert!(sample().may_write());
    }
}
