//! Roles, and the certificate that says which signing key has which (SPEC section 3).

use crate::codec::{Reader, Writer};
use crate::error::FormatError;
use crate::limits::LABEL_BYTES_MAX;

/// Largest encoded certificate, bytes.
pub const CERTIFICATE_BYTES_MAX: u32 = 1 + 1 + 32 + 8 + 2 + LABEL_BYTES_MAX + 64;
const CERTIFICATE_VERSION: u8 = 1;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// Everything.
    Owner = 0,
    /// Backs up; reads neither chunks nor snapshots, condemns nothing.
    Writer = 1,
    /// Lists, restores, verifies; signs nothing.
    Reader = 2,
    /// A reader that also collects garbage.
    Maintainer = 3,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Owner, Self::Writer, Self::Reader, Self::Maintainer];

    /// The role in one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Writer => "writer",
            Self::Reader => "reader",
            Self::Maintainer => "maintainer",
        }
    }

    /// True for roles that have a signing key.
    #[must_use]
    pub const fn signs(self) -> bool {
        match self {
            Self::Owner | Self::Writer | Self::Maintainer => true,
            Self::Reader => false,
        }
    }
}

impl core::fmt::Display for Role {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<u8> for Role {
    type Error = FormatError;

    fn try_from(value: u8) -> Result<Self, FormatError> {
        Self::ALL
            .into_iter()
            .find(|role| *role as u8 == value)
            .ok_or(FormatError::Value { what: "role" })
    }
}

/// Says which role a signing key has. Means nothing until its signature was verified under the
/// owner's public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The key's role; never [`Role::Reader`].
    pub role: Role,
    /// Ed25519 public key.
    pub public_key: [u8; 32],
    /// When it was issued, milliseconds since 1970.
    pub issued_ms: i64,
    /// Name of the key, at most [`LABEL_BYTES_MAX`] bytes.
    pub name: String,
    /// The owner's Ed25519 signature of [`Self::signed_bytes`].
    pub signature: [u8; 64],
}

impl Certificate {
    /// What the owner signs: everything but the signature.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer
            .u8(CERTIFICATE_VERSION)
            .u8(self.role as u8)
            .raw(&self.public_key)
            .i64(self.issued_ms)
            .str(&self.name);
        writer.into_bytes()
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.signed_bytes();
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`FormatError::Version`] for a newer certificate; another when a field is not allowed.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, "certificate");
        let version = reader.u8()?;
        if version != CERTIFICATE_VERSION {
            return Err(FormatError::Version {
                what: "certificate",
                found: u32::from(version),
                known: u32::from(CERTIFICATE_VERSION),
            });
        }
        let role = Role::try_from(reader.u8()?)?;
        if !role.signs() {
            return Err(FormatError::Value { what: "role of a certificate" });
        }
        let certificate = Self {
            role,
            public_key: reader.array()?,
            issued_ms: reader.i64()?,
            name: reader.str("name of a key", LABEL_BYTES_MAX)?,
            signature: reader.array()?,
        };
        reader.finish()?;
        Ok(certificate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(role: Role) -> Certificate {
        Certificate {
            role,
            public_key: [3; 32],
            issued_ms: 1_700_000_000_000,
            name: "db1 nightly".to_owned(),
            signature: [9; 64],
        }
    }

    #[test]
    fn round_trips_for_every_role_that_signs() {
        for role in Role::ALL {
            let certificate = sample(role);
            let read = Certificate::parse(&certificate.encode());
            if role.signs() {
                assert_eq!(read, Ok(certificate));
            } else {
                assert!(read.is_err());
            }
        }
    }

    #[test]
    fn the_longest_name_fits_the_limit_and_a_longer_one_is_refused() {
        let longest = Certificate { name: "n".repeat(255), ..sample(Role::Writer) };
        assert_eq!(longest.encode().len(), CERTIFICATE_BYTES_MAX as usize);
        assert!(Certificate::parse(&longest.encode()).is_ok());
        let longer = Certificate { name: "n".repeat(256), ..sample(Role::Writer) };
        assert!(Certificate::parse(&longer.encode()).is_err());
    }

    #[test]
    fn malformed_certificates_are_refused() {
        let bytes = sample(Role::Writer).encode();
        for len in 0..bytes.len() {
            assert!(Certificate::parse(&bytes[..len]).is_err());
        }
        assert!(Certificate::parse(&[bytes.as_slice(), &[0]].concat()).is_err());
        for (offset, value) in [(0, 2), (1, 4), (1, 2), (43, 0xff)] {
            let mut wrong = bytes.clone();
            wrong[offset] = value;
            assert!(Certificate::parse(&wrong).is_err(), "offset {offset}");
        }
    }
}
