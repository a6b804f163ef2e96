//! All cryptography: keys and roles, key slots, sealed objects, signatures (SPEC section 3 and section 5).
//!
//! Nothing outside this module handles a secret. A secret lives in [`Secret32`] or
//! [`SecretBytes`], which wipe their memory and print nothing.

pub mod cipher;
pub mod derive;
pub mod envelope;
pub mod error;
#[doc(hidden)]
pub mod memo;
pub mod payload;
pub mod random;
pub mod recipient;
pub mod roots;
pub mod secret;
pub mod sign;
pub mod slot;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

pub use cairn_format::certificate::Role;
pub use cairn_format::envelope::{Cipher, Kind, Part};
pub use cipher::{PartOpener, PartSealer};
pub use derive::{Keys, MEMO_CHECK_BYTES};
pub use envelope::{Envelope, Opened};
pub use error::SealError;
pub use payload::SlotPayload;
pub use random::{OsRandom, Random, SeededRandom};
pub use recipient::{Identity, Recipient};
pub use roots::Roots;
pub use secret::{Secret32, SecretBytes};
pub use sign::{Signer, Trust, VerifiedWriter};
pub use slot::{Lock, SlotOutcome, Unlock};
