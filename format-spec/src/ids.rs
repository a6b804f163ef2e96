//! Names of things: every id is a type of its own, so that none is mistaken for another.
//!
//! All object ids are the BLAKE3 hash of the object's stored bytes; chunk ids are *keyed*
//! BLAKE3 hashes of the chunk's plaintext (SPEC §3).

use core::fmt;

use crate::error::FormatError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length of the id in bytes.
            pub const LEN: usize = $len;

            /// Wraps raw bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Lower-case hexadecimal, as used in object names.
            #[must_use]
            pub fn to_hex(&self) -> String {
                crate::hex::encode(&self.0)
            }

            /// The first eight hexadecimal digits, for people.
            #[must_use]
            pub fn short(&self) -> String {
                let mut hex = self.to_hex();
                hex.truncate(8);
                hex
            }

            /// Parses exactly the form that [`Self::to_hex`] writes.
            ///
            /// # Errors
            /// [`FormatError::Hex`] for any other length, case or character.
            pub fn from_hex(text: &str) -> Result<Self, FormatError> {
                crate::hex::decode(text).map(Self)
            }

            /// Takes the id from a slice of exactly its length.
            ///
            /// # Errors
            /// [`FormatError::Length`] when the slice has another length.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, FormatError> {
                bytes.try_into().map(Self).map_err(|_| FormatError::Length {
                    what: stringify!($name),
                    expected: $len,
                    found: bytes.len() as u64,
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }
    };
}

id!(
    /// Names a chunk: keyed BLAKE3 of its plaintext (data and tree chunks use different keys).
    ChunkId,
    32
);
id!(
    /// Names a pack: BLAKE3 of its stored bytes.
    PackId,
    32
);
id!(
    /// Names an index segment: BLAKE3 of its stored bytes.
    SegmentId,
    32
);
id!(
    /// Names a snapshot: BLAKE3 of its stored bytes.
    SnapshotId,
    32
);
id!(
    /// Names a key slot: BLAKE3 of its stored bytes.
    SlotId,
    32
);
id!(
    /// BLAKE3 of the stored bytes of any other object.
    ObjectHash,
    32
);
id!(
    /// Names a repository; random, chosen at `init`.
    RepositoryId,
    16
);
id!(
    /// Names one writing session (one run of one operation); random.
    SessionId,
    16
);
id!(
    /// Names one copy of a repository; random, chosen when the copy is made.
    ReplicaId,
    16
);
id!(
    /// Names a signing key: the first 16 bytes of BLAKE3 of its Ed25519 public key.
    WriterId,
    16
);
