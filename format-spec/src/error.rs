//! What can be wrong with bytes that claim to be a cairn record.

use core::fmt;

/// Why bytes are not a valid record. Carries facts only; the operation that was reading adds
/// which object it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// The bytes end before the record does.
    Truncated {
        /// The field being read.
        what: &'static str,
    },
    /// Bytes remain after the record.
    Trailing {
        /// The record being read.
        what: &'static str,
        /// How many bytes remain.
        bytes: u64,
    },
    /// A field has another length than it must have.
    Length {
        /// The field.
        what: &'static str,
        /// Length it must have, in bytes.
        expected: u64,
        /// Length it has, in bytes.
        found: u64,
    },
    /// A number is beyond its limit (SPEC §2).
    Limit {
        /// The field.
        what: &'static str,
        /// The largest (or smallest) value allowed.
        limit: u64,
        /// The value found.
        found: u64,
    },
    /// The magic bytes are not those of the object.
    Magic {
        /// The object expected.
        what: &'static str,
    },
    /// The object was written by a newer cairn.
    Version {
        /// The object.
        what: &'static str,
        /// Version found.
        found: u32,
        /// Newest version this reader knows.
        known: u32,
    },
    /// The repository, or a record, requires features that this reader does not know.
    Required {
        /// Where the requirement stands.
        what: &'static str,
        /// The unknown flag bits, or the unknown odd field tag.
        unknown: u64,
    },
    /// A field that must be there is not.
    Missing {
        /// The field.
        what: &'static str,
    },
    /// A value is not one of those allowed.
    Value {
        /// The field, and what it must be.
        what: &'static str,
    },
    /// Not lower-case hexadecimal of the right length.
    Hex,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { what } => write!(f, "{what} is cut short"),
            Self::Trailing { what, bytes } => write!(f, "{bytes} bytes follow the end of {what}"),
            Self::Length { what, expected, found } => {
                write!(f, "{what} has {found} bytes where {expected} belong")
            }
            Self::Limit { what, limit, found } => {
                write!(f, "{what} is {found}, beyond the limit of {limit}")
            }
            Self::Magic { what } => write!(f, "the first bytes are not those of {what}"),
            Self::Version { what, found, known } => write!(
                f,
                "{what} has format version {found}; this cairn knows versions up to {known}"
            ),
            Self::Required { what, unknown } => {
                write!(f, "{what} requires features this cairn does not know ({unknown:#x})")
            }
            Self::Missing { what } => write!(f, "{what} is missing"),
            Self::Value { what } => write!(f, "{what} has a value that is not allowed"),
            Self::Hex => f.write_str("not lower-case hexadecimal of the right length"),
        }
    }
}

impl core::error::Error for FormatError {}
