//! What can go wrong with keys, seals and signatures.

use cairn_format::certificate::Role;
use cairn_format::error::FormatError;
use cairn_format::ids::{RepositoryId, WriterId};

use crate::error::{Class, Explain};

/// Why something could not be sealed, opened, signed or verified. The operation adds which
/// object it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The bytes do not have the layout they must have.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The operating system's random numbers are not random, or there are none.
    #[error("the random number generator does not work: {fact}")]
    RngBroken {
        /// What was seen.
        fact: String,
    },
    /// A part does not open under the data key that the header committed to.
    #[error("{what} was changed after it was sealed")]
    Damaged {
        /// The part.
        what: &'static str,
    },
    /// The bytes of an object do not have the hash that its name states.
    #[error("{what} does not have the hash its name states")]
    NameMismatch {
        /// The object.
        what: &'static str,
    },
    /// The header does not answer to the key that it names.
    #[error("{what} was sealed under another key of epoch {epoch}, or its header was changed")]
    OtherKey {
        /// The object.
        what: &'static str,
        /// Epoch the header names.
        epoch: u32,
    },
    /// The key ring has no key for what the header names.
    #[error("no key at hand for {what} of epoch {epoch}")]
    KeyNotHeld {
        /// Which key.
        what: String,
        /// Its epoch.
        epoch: u32,
    },
    /// The object belongs to another repository.
    #[error("{what} belongs to repository {found}, not to {expected}")]
    OtherRepository {
        /// The object.
        what: &'static str,
        /// The repository at work.
        expected: RepositoryId,
        /// The repository the object names.
        found: RepositoryId,
    },
    /// The keys at hand do not allow the operation.
    #[error("a {has} key cannot do this; it needs one of: {needs}")]
    KeyRoleInsufficient {
        /// Roles that could.
        needs: &'static str,
        /// Role of the keys at hand.
        has: Role,
    },
    /// A signature or certificate does not verify.
    #[error("the signature of {what} is not valid")]
    Signature {
        /// What was signed.
        what: &'static str,
    },
    /// A config names another owner than the key slot does.
    #[error("it names the owner {found}, where the key at hand knows {expected}")]
    OtherOwner {
        /// The owner the keys know.
        expected: WriterId,
        /// The owner stated.
        found: WriterId,
    },
    /// The signer's role does not allow it to sign this.
    #[error("a {role} may not sign {what}")]
    SignerRole {
        /// What was signed.
        what: &'static str,
        /// The signer's role.
        role: Role,
    },
    /// The signer was revoked before the object's time.
    #[error("the signing key {writer} was revoked before this was signed")]
    Revoked {
        /// The signer.
        writer: WriterId,
    },
    /// The same part was to be sealed twice under one data key.
    #[error("{what} was to be sealed twice under one key")]
    SealedTwice {
        /// The part.
        what: &'static str,
    },
    /// Memory for Argon2id could not be had.
    #[error("{memory_kib} KiB of memory for the passphrase could not be allocated")]
    Argon2Memory {
        /// Memory the slot asks for, KiB.
        memory_kib: u32,
    },
    /// A passphrase, key file, command output, label or name cannot be used.
    #[error("{what} cannot be used: {why}")]
    Unusable {
        /// Which input.
        what: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// A primitive refused lengths that can never occur in a valid object.
    #[error("{what} is too long to be sealed")]
    TooLong {
        /// What.
        what: &'static str,
    },
}

impl Explain for SealError {
    fn code(&self) -> &'static str {
        match self {
            Self::Format(_) => "seal.format",
            Self::RngBroken { .. } => "seal.rng_broken",
            Self::Damaged { .. } => "seal.damaged",
            Self::NameMismatch { .. } => "seal.name_mismatch",
            Self::OtherKey { .. } => "seal.other_key",
            Self::KeyNotHeld { .. } => "seal.key_not_held",
            Self::OtherRepository { .. } => "seal.other_repository",
            Self::KeyRoleInsufficient { .. } => "seal.role_insufficient",
            Self::Signature { .. } => "seal.signature",
            Self::OtherOwner { .. } => "seal.other_owner",
            Self::SignerRole { .. } => "seal.signer_role",
            Self::Revoked { .. } => "seal.revoked",
            Self::SealedTwice { .. } => "seal.sealed_twice",
            Self::Argon2Memory { .. } => "seal.argon2_memory",
            Self::Unusable { .. } => "seal.unusable_secret",
            Self::TooLong { .. } => "seal.too_long",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Format(FormatError::Version { .. } | FormatError::Required { .. }) => {
                Class::Refused
            }
            Self::Format(_)
            | Self::Damaged { .. }
            | Self::NameMismatch { .. }
            | Self::OtherRepository { .. }
            | Self::Signature { .. }
            | Self::OtherOwner { .. }
            | Self::SignerRole { .. }
            | Self::Revoked { .. } => Class::Damage,
            Self::OtherKey { .. } | Self::KeyNotHeld { .. } | Self::KeyRoleInsufficient { .. } => {
                Class::WrongKey
            }
            Self::RngBroken { .. }
            | Self::SealedTwice { .. }
            | Self::Argon2Memory { .. }
            | Self::TooLong { .. } => Class::Failed,
            Self::Unusable { .. } => Class::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Format(FormatError::Version { .. } | FormatError::Required { .. }) => {
                Some("use a newer cairn".to_owned())
            }
            Self::Format(_) | Self::Damaged { .. } | Self::NameMismatch { .. } => {
                Some("run `cairn verify` to see what is affected, then `cairn repair`".to_owned())
            }
            Self::OtherKey { .. } => Some(
                "if the key is the right one, the object is damaged: run `cairn verify`".to_owned(),
            ),
            Self::KeyNotHeld { .. } => Some(
                "the keys were rotated or the domain is kept elsewhere: ask the owner for a new key slot"
                    .to_owned(),
            ),
            Self::OtherRepository { .. } => {
                Some("an object was copied from another repository: remove it".to_owned())
            }
            Self::KeyRoleInsufficient { needs, .. } => {
                Some(format!("unlock the repository with a key of one of these roles: {needs}"))
            }
            Self::Signature { .. }
            | Self::OtherOwner { .. }
            | Self::SignerRole { .. }
            | Self::Revoked { .. } => Some(
                "somebody else may have written to the storage: run `cairn verify`".to_owned(),
            ),
            Self::RngBroken { .. } => {
                Some("do not use this machine for backups until its kernel is repaired".to_owned())
            }
            Self::Argon2Memory { .. } => {
                Some("free some memory, or use another key slot".to_owned())
            }
            Self::SealedTwice { .. } | Self::Unusable { .. } | Self::TooLong { .. } => None,
        }
    }
}
