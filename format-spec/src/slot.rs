//! The plain head of a key slot (SPEC section 3.1). The sealed payload is secret and has its codec
//! where secrets are wiped, in the engine.

use crate::certificate::Role;
use crate::codec::{Reader, Writer};
use crate::envelope::{KIND_KEY_SLOT, MAGIC, OBJECT_VERSION, read_magic};
use crate::error::FormatError;
use crate::ids::RepositoryId;
use crate::limits::{ARGON2_LANES, ARGON2_MEMORY_KIB, ARGON2_PASSES};

/// Length of the plain head, bytes; all of it is authenticated with the payload.
pub const SLOT_HEAD_BYTES: usize = 256;
/// Length of the part of the head that the key-encryption key is derived from, bytes.
pub const SLOT_BOUND_BYTES: usize = 136;
/// Longest label, bytes.
pub const SLOT_LABEL_BYTES_MAX: usize = 63;

/// Costs of Argon2id; valid ones are within [`ARGON2_MEMORY_KIB`], [`ARGON2_PASSES`] and
/// [`ARGON2_LANES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2Costs {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Argon2Costs {
    /// What new slots use: the second choice of RFC 9106 (64 MiB, 3 passes, 4 lanes).
    pub const DEFAULT: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 };

    /// Checks the costs before anything is computed or allocated with them: too low would be
    /// weak, too high would be an attack on whoever opens the slot.
    ///
    /// # Errors
    /// [`FormatError::Limit`] that names the nearer limit.
    pub fn check(&self) -> Result<(), FormatError> {
        let within = |what, range: core::ops::RangeInclusive<u32>, found: u32| {
            if range.contains(&found) {
                return Ok(());
            }
            let limit = if found < *range.start() { *range.start() } else { *range.end() };
            Err(FormatError::Limit { what, limit: u64::from(limit), found: u64::from(found) })
        };
        within("Argon2id memory in KiB", ARGON2_MEMORY_KIB, self.memory_kib)?;
        within("number of Argon2id passes", ARGON2_PASSES, self.passes)?;
        within("number of Argon2id lanes", ARGON2_LANES, self.lanes)
    }
}

/// How a slot is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotMethod {
    /// A passphrase, through Argon2id.
    Passphrase {
        /// Costs, checked.
        costs: Argon2Costs,
        /// Random salt.
        salt: [u8; 32],
    },
    /// The content of a file.
    KeyFile {
        /// Random salt.
        salt: [u8; 32],
    },
    /// The output of a command.
    Command {
        /// Random salt.
        salt: [u8; 32],
    },
    /// The secret that belongs to an X25519 public key.
    Recipient {
        /// Ephemeral public key.
        ephemeral: [u8; 32],
        /// The recipient's public key.
        recipient: [u8; 32],
    },
}

impl SlotMethod {
    /// The method's number in the slot.
    #[must_use]
    pub const fn number(&self) -> u8 {
        match self {
            Self::Passphrase { .. } => 1,
            Self::KeyFile { .. } => 2,
            Self::Command { .. } => 3,
            Self::Recipient { .. } => 4,
        }
    }

    /// The method in words.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Passphrase { .. } => "passphrase",
            Self::KeyFile { .. } => "key file",
            Self::Command { .. } => "command",
            Self::Recipient { .. } => "recipient",
        }
    }
}

/// The plain head of a key slot. Everything in it is public, and trusted only once the payload
/// was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotHead {
    /// How the slot is opened.
    pub method: SlotMethod,
    /// What the keys in it may do.
    pub role: Role,
    /// The repository.
    pub repository: RepositoryId,
    /// Random, unique to the slot.
    pub random: [u8; 16],
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
    /// Nonce of the payload.
    pub nonce: [u8; 24],
    /// Commitment to the key-encryption key.
    pub commitment: [u8; 32],
    /// What people call it, at most [`SLOT_LABEL_BYTES_MAX`] bytes.
    pub label: String,
}

impl SlotHead {
    /// The stored form, [`SLOT_HEAD_BYTES`] long.
    ///
    /// # Errors
    /// [`FormatError::Limit`] for a label that is too long or costs out of bounds.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let label_bytes = match u8::try_from(self.label.len()) {
            Ok(len) if self.label.len() <= SLOT_LABEL_BYTES_MAX => len,
            _ => {
                return Err(FormatError::Limit {
                    what: "label of a key slot",
                    limit: SLOT_LABEL_BYTES_MAX as u64,
                    found: self.label.len() as u64,
                });
            }
        };
        let none = Argon2Costs { memory_kib: 0, passes: 0, lanes: 0 };
        let (costs, first, second) = match self.method {
            SlotMethod::Passphrase { costs, salt } => {
                costs.check()?;
                (costs, salt, [0; 32])
            }
            SlotMethod::KeyFile { salt } | SlotMethod::Command { salt } => (none, salt, [0; 32]),
            SlotMethod::Recipient { ephemeral, recipient } => (none, ephemeral, recipient),
        };
        let mut writer = Writer::new();
        writer
            .raw(&MAGIC)
            .u8(KIND_KEY_SLOT)
            .u8(OBJECT_VERSION)
            .u8(self.method.number())
            .u8(self.role as u8)
            .u32(0)
            .raw(self.repository.as_bytes())
            .raw(&self.random)
            .i64(self.created_ms)
            .u32(costs.memory_kib)
            .u32(costs.passes)
            .u32(costs.lanes)
            .u32(0)
            .raw(&first)
            .raw(&second)
            .raw(&self.nonce)
            .raw(&self.commitment)
            .u8(label_bytes)
            .raw(self.label.as_bytes());
        let mut bytes = writer.into_bytes();
        bytes.resize(SLOT_HEAD_BYTES, 0);
        Ok(bytes)
    }

    /// Reads the head from exactly [`SLOT_HEAD_BYTES`] bytes.
    ///
    /// # Errors
    /// [`FormatError::Limit`] for costs out of bounds; another for what is not a slot.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, "key slot");
        if read_magic(&mut reader, "key slot")? != KIND_KEY_SLOT {
            return Err(FormatError::Value { what: "kind of a key slot" });
        }
        let number = reader.u8()?;
        let role = Role::try_from(reader.u8()?)?;
        reader.zeros("reserved bytes of a key slot", 4)?;
        let repository = RepositoryId::from_bytes(reader.array()?);
        let random = reader.array()?;
        let created_ms = reader.i64()?;
        let method = read_method(number, &mut reader)?;
        let nonce = reader.array()?;
        let commitment = reader.array()?;
        let label_bytes = usize::from(reader.u8()?);
        if label_bytes > SLOT_LABEL_BYTES_MAX {
            return Err(FormatError::Limit {
                what: "label of a key slot",
                limit: SLOT_LABEL_BYTES_MAX as u64,
                found: label_bytes as u64,
            });
        }
        let label = core::str::from_utf8(reader.raw(label_bytes)?)
            .map_err(|_| FormatError::Value { what: "label of a key slot" })?
            .to_owned();
        reader.zeros("bytes after the label of a key slot", SLOT_LABEL_BYTES_MAX - label_bytes)?;
        reader.finish()?;
        Ok(Self { method, role, repository, random, created_ms, nonce, commitment, label })
    }
}

/// Reads costs, reserved bytes, salt and recipient as the method has them.
fn read_method(number: u8, reader: &mut Reader<'_>) -> Result<SlotMethod, FormatError> {
    let costs =
        Argon2Costs { memory_kib: reader.u32()?, passes: reader.u32()?, lanes: reader.u32()? };
    reader.zeros("reserved bytes of a key slot", 4)?;
    let first = reader.array()?;
    let second: [u8; 32] = reader.array()?;
    let has_costs = costs != Argon2Costs { memory_kib: 0, passes: 0, lanes: 0 };
    if has_costs != (number == 1) {
        return Err(FormatError::Value { what: "Argon2id costs of a key slot" });
    }
    if number != 4 && second != [0; 32] {
        return Err(FormatError::Value { what: "recipient of a key slot" });
    }
    match number {
        1 => {
            costs.check()?;
            Ok(SlotMethod::Passphrase { costs, salt: first })
        }
        2 => Ok(SlotMethod::KeyFile { salt: first }),
        3 => Ok(SlotMethod::Command { salt: first }),
        4 => Ok(SlotMethod::Recipient { ephemeral: first, recipient: second }),
        _ => Err(FormatError::Value { what: "method of a key slot" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn methods() -> [SlotMethod; 4] {
        [
            SlotMethod::Passphrase { costs: Argon2Costs::DEFAULT, salt: [1; 32] },
            SlotMethod::KeyFile { salt: [2; 32] },
            SlotMethod::Command { salt: [3; 32] },
            SlotMethod::Recipient { ephemeral: [4; 32], recipient: [5; 32] },
        ]
    }

    fn head(method: SlotMethod) -> SlotHead {
        SlotHead {
            method,
            role: Role::Maintainer,
            repository: RepositoryId::from_bytes([6; 16]),
            random: [7; 16],
            created_ms: 1_700_000_000_000,
            nonce: [8; 24],
            commitment: [9; 32],
            label: "ops \u{e4}".to_owned(),
        }
    }

    #[test]
    fn heads_round_trip_and_no_two_byte_strings_mean_the_same() {
        for method in methods() {
            let bytes = head(method).encode().unwrap();
            assert_eq!(bytes.len(), SLOT_HEAD_BYTES);
            assert_eq!(SlotHead::parse(&bytes), Ok(head(method)));
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                if let Ok(other) = SlotHead::parse(&flipped) {
                    assert_ne!(other, head(method), "bit {bit}");
                    assert_eq!(other.encode().as_ref(), Ok(&flipped), "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn costs_out_of_bounds_are_refused_both_ways() {
        let good = Argon2Costs::DEFAULT;
        assert_eq!(good.check(), Ok(()));
        for bad in [
            Argon2Costs { memory_kib: 19 * 1024 - 1, ..good },
            Argon2Costs { memory_kib: u32::MAX, ..good },
            Argon2Costs { passes: 1, ..good },
            Argon2Costs { passes: 65, ..good },
            Argon2Costs { lanes: 0, ..good },
            Argon2Costs { lanes: 17, ..good },
        ] {
            assert!(matches!(bad.check(), Err(FormatError::Limit { .. })));
            let method = SlotMethod::Passphrase { costs: bad, salt: [1; 32] };
            assert!(head(method).encode().is_err());
            let mut bytes = head(methods()[0]).encode().unwrap();
            bytes[56..60].copy_from_slice(&bad.memory_kib.to_le_bytes());
            bytes[60..64].copy_from_slice(&bad.passes.to_le_bytes());
            bytes[64..68].copy_from_slice(&bad.lanes.to_le_bytes());
            assert!(matches!(SlotHead::parse(&bytes), Err(FormatError::Limit { .. })));
        }
    }

    #[test]
    fn fields_of_other_methods_must_be_zero() {
        for method in &methods()[1..] {
            let mut bytes = head(*method).encode().unwrap();
            bytes[56] = 1;
            assert!(SlotHead::parse(&bytes).is_err());
        }
        for method in &methods()[..3] {
            let mut bytes = head(*method).encode().unwrap();
            bytes[104] = 1;
            assert!(SlotHead::parse(&bytes).is_err());
        }
        for offset in [12, 15, 68, 71, 255] {
            let mut bytes = head(methods()[1]).encode().unwrap();
            bytes[offset] = 1;
            assert!(SlotHead::parse(&bytes).is_err(), "offset {offset}");
        }
    }

    #[test]
    fn labels_are_bounded_text() {
        let long = SlotHead { label: "x".repeat(63), ..head(methods()[1]) };
        assert_eq!(SlotHead::parse(&long.encode().unwrap()), Ok(long.clone()));
        assert!(SlotHead { label: "x".repeat(64), ..long }.encode().is_err());
        let mut bytes = head(methods()[1]).encode().unwrap();
        bytes[192] = 64;
        assert!(SlotHead::parse(&bytes).is_err());
        bytes[192] = 1;
        bytes[193] = 0xff;
        assert!(SlotHead::parse(&bytes).is_err());
    }
}
