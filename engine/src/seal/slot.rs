//! Key slots: four ways to the keys of a repository (SPEC section 3.1).

use std::ffi::c_void;
use std::mem::MaybeUninit;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use cairn_format::error::FormatError;
use cairn_format::ids::{RepositoryId, SlotId};
use cairn_format::limits::RECORD_BYTES_MAX;
use cairn_format::slot::{
    Argon2Costs, SLOT_BOUND_BYTES, SLOT_HEAD_BYTES, SLOT_LABEL_BYTES_MAX, SlotHead, SlotMethod,
};
use zeroize::Zeroizing;

use super::cipher::{TAG, open_small, seal_small};
use super::error::SealError;
use super::payload::SlotPayload;
use super::random::{self, Random};
use super::recipient::{Identity, Recipient, agree, public_key};
use super::secret::{Secret32, SecretBytes, constant_time_eq, kdf};

/// Shortest key file or command output, bytes.
pub const KEY_MATERIAL_BYTES_MIN: usize = 32;
/// Longest key file or command output, bytes.
pub const KEY_MATERIAL_BYTES_MAX: usize = 1 << 20;

/// Longest pages of memory that Linux has on these processors, bytes.
const PAGE_BYTES_MAX: usize = 64 << 10;

/// How a new slot is to be opened.
#[derive(Clone, Debug)]
pub enum Lock {
    /// A passphrase, UTF-8 and not empty.
    Passphrase {
        /// The passphrase.
        passphrase: SecretBytes,
        /// Costs; [`Argon2Costs::DEFAULT`] unless there is a reason.
        costs: Argon2Costs,
    },
    /// The content of a key file.
    KeyFile(SecretBytes),
    /// The output of a command.
    CommandOutput(SecretBytes),
    /// A public key; whoever has its identity can open the slot.
    Recipient(Recipient),
}

/// What a person has at hand to open a slot.
#[derive(Clone, Debug)]
pub enum Unlock {
    /// A passphrase.
    Passphrase(SecretBytes),
    /// The content of a key file.
    KeyFile(SecretBytes),
    /// The output of a command.
    CommandOutput(SecretBytes),
    /// The secret of a recipient.
    Recipient(Identity),
}

/// What became of an attempt to open a slot.
#[derive(Debug)]
pub enum SlotOutcome {
    /// It opened; its plain head is authentic.
    Opened(Box<SlotPayload>),
    /// The slot is for another passphrase, file, command or identity.
    NotThisKey,
}

/// What the plain head of a new slot says besides the method.
#[derive(Clone, Debug)]
pub struct NewSlot<'a> {
    /// The repository.
    pub repository: RepositoryId,
    /// Time, milliseconds since 1970.
    pub created_ms: i64,
    /// What people call it; public, at most [`SLOT_LABEL_BYTES_MAX`] bytes.
    pub label: &'a str,
}

/// The id, and so the name, of a slot's bytes.
#[must_use]
pub fn slot_id(slot: &[u8]) -> SlotId {
    SlotId::from_bytes(blake3::hash(slot).into())
}

/// Makes a slot; its name is `keys/` and its [`slot_id`].
///
/// # Errors
/// [`SealError::Unusable`] for a label, costs or key material out of bounds;
/// [`SealError::Argon2Memory`]; [`SealError::RngBroken`].
pub fn create_slot(
    new: &NewSlot<'_>,
    payload: &SlotPayload,
    lock: &Lock,
    random: &dyn Random,
) -> Result<Vec<u8>, SealError> {
    if new.label.len() > SLOT_LABEL_BYTES_MAX {
        return Err(SealError::Unusable { what: "label", why: "it is longer than 63 bytes" });
    }
    let (method, x) = lock_slot(lock, random)?;
    let mut head = SlotHead {
        method,
        role: payload.role(),
        repository: new.repository,
        random: random::array(random)?,
        created_ms: new.created_ms,
        nonce: random::array(random)?,
        commitment: [0; 32],
        label: new.label.to_owned(),
    };
    let kek = SlotKey::derive(&x, &head.encode()?)?;
    head.commitment = *kek.commitment.expose();
    let mut slot = head.encode()?;
    let mut sealed = payload.encode(TAG);
    seal_small(&kek.key, &head.nonce, &slot, &mut sealed)?;
    slot.append(&mut sealed);
    if slot.len() > RECORD_BYTES_MAX as usize {
        return Err(SealError::TooLong { what: "the list of domains of a key slot" });
    }
    Ok(slot)
}

/// Opens the slot `keys/<id>` of a repository.
///
/// # Errors
/// [`SealError::NameMismatch`] when the bytes are not those of the name,
/// [`SealError::OtherRepository`] for a slot that was copied here, [`SealError::Format`] for a
/// malformed one or costs out of bounds (nothing is computed with them),
/// [`SealError::Damaged`] when it does not open although the key is the right one,
/// [`SealError::Argon2Memory`].
pub fn open_slot(
    repository: RepositoryId,
    id: &SlotId,
    slot: &[u8],
    unlock: &Unlock,
) -> Result<SlotOutcome, SealError> {
    if slot_id(slot) != *id {
        return Err(SealError::NameMismatch { what: "a key slot" });
    }
    open_unnamed(repository, slot, unlock)
}

fn open_unnamed(
    repository: RepositoryId,
    slot: &[u8],
    unlock: &Unlock,
) -> Result<SlotOutcome, SealError> {
    if slot.len() > RECORD_BYTES_MAX as usize {
        return Err(FormatError::Limit {
            what: "length of a key slot",
            limit: u64::from(RECORD_BYTES_MAX),
            found: slot.len() as u64,
        }
        .into());
    }
    let (plain, sealed) = slot
        .split_at_checked(SLOT_HEAD_BYTES)
        .ok_or(FormatError::Truncated { what: "key slot" })?;
    let head = SlotHead::parse(plain)?;
    if head.repository != repository {
        return Err(SealError::OtherRepository {
            what: "a key slot",
            expected: repository,
            found: head.repository,
        });
    }
    let Some(x) = unlock_slot(&head.method, unlock)? else {
        return Ok(SlotOutcome::NotThisKey);
    };
    let kek = SlotKey::derive(&x, plain)?;
    if !constant_time_eq(kek.commitment.expose(), &head.commitment) {
        return Ok(SlotOutcome::NotThisKey);
    }
    let mut buf = Zeroizing::new(sealed.to_vec());
    let payload = open_small(&kek.key, &head.nonce, plain, buf.as_mut_slice())
        .ok_or(SealError::Damaged { what: "a key slot" })?;
    Ok(SlotOutcome::Opened(Box::new(SlotPayload::decode(payload, head.role)?)))
}

/// The key-encryption key with its commitment.
struct SlotKey {
    key: Secret32,
    commitment: Secret32,
}

impl SlotKey {
    fn derive(x: &Secret32, plain: &[u8]) -> Result<Self, SealError> {
        let bound =
            plain.get(..SLOT_BOUND_BYTES).ok_or(FormatError::Truncated { what: "key slot" })?;
        let key = kdf("cairn v1 slot", &[x.expose(), bound]);
        let commitment = kdf("cairn v1 key commitment", &[key.expose(), bound]);
        Ok(Self { key, commitment })
    }
}

/// Chooses salt or ephemeral key, and computes `X`.
fn lock_slot(lock: &Lock, random: &dyn Random) -> Result<(SlotMethod, Secret32), SealError> {
    Ok(match lock {
        Lock::Passphrase { passphrase, costs } => {
            costs.check().map_err(|_| SealError::Unusable {
                what: "Argon2id costs",
                why: "they are outside the limits of the format",
            })?;
            check_passphrase(passphrase)?;
            let salt = random::array(random)?;
            let x = passphrase_key(passphrase, &salt, costs)?;
            (SlotMethod::Passphrase { costs: *costs, salt }, x)
        }
        Lock::KeyFile(file) => {
            let salt = random::array(random)?;
            (SlotMethod::KeyFile { salt }, key_file_key(file)?)
        }
        Lock::CommandOutput(output) => {
            let salt = random::array(random)?;
            (SlotMethod::Command { salt }, command_key(output)?)
        }
        Lock::Recipient(recipient) => {
            let secret = random::secret(random)?;
            let x = agree(&secret, recipient.as_bytes()).ok_or(SealError::Unusable {
                what: "recipient",
                why: "its public key is of small order",
            })?;
            let ephemeral = public_key(&secret);
            (SlotMethod::Recipient { ephemeral, recipient: *recipient.as_bytes() }, x)
        }
    })
}

/// Computes `X`; `None` when the slot needs something else than what is at hand.
fn unlock_slot(method: &SlotMethod, unlock: &Unlock) -> Result<Option<Secret32>, SealError> {
    Ok(match (method, unlock) {
        (SlotMethod::Passphrase { costs, salt }, Unlock::Passphrase(passphrase)) => {
            Some(passphrase_key(passphrase, salt, costs)?)
        }
        (SlotMethod::KeyFile { .. }, Unlock::KeyFile(file)) => Some(key_file_key(file)?),
        (SlotMethod::Command { .. }, Unlock::CommandOutput(output)) => Some(command_key(output)?),
        (SlotMethod::Recipient { ephemeral, recipient }, Unlock::Recipient(identity)) => {
            if identity.recipient().as_bytes() != recipient {
                return Ok(None);
            }
            let shared = agree(identity.secret(), ephemeral);
            Some(shared.ok_or(FormatError::Value { what: "ephemeral key of a key slot" })?)
        }
        _ => None,
    })
}

fn check_passphrase(passphrase: &SecretBytes) -> Result<(), SealError> {
    let unusable = |why| Err(SealError::Unusable { what: "passphrase", why });
    if passphrase.expose().is_empty() {
        return unusable("it is empty");
    }
    if core::str::from_utf8(passphrase.expose()).is_err() {
        return unusable("it is not UTF-8");
    }
    Ok(())
}

/// Argon2id; all of its memory is wiped afterwards.
fn passphrase_key(
    passphrase: &SecretBytes,
    salt: &[u8; 32],
    costs: &Argon2Costs,
) -> Result<Secret32, SealError> {
    costs.check()?;
    let memory = SealError::Argon2Memory { memory_kib: costs.memory_kib };
    let params = Params::new(costs.memory_kib, costs.passes, costs.lanes, Some(32))
        .map_err(|_| FormatError::Value { what: "Argon2id costs of a key slot" })?;
    let blocks = params.block_count();
    let mut work: Vec<Block> = Vec::new();
    work.try_reserve_exact(blocks).map_err(|_| memory.clone())?;
    touch(work.spare_capacity_mut());
    work.resize(blocks, Block::default());
    // As a slice it is wiped once; a vector wipes its elements and then all of its room.
    let mut work = Zeroizing::new(work.into_boxed_slice());
    let mut key = Secret32::zeroed();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(passphrase.expose(), salt, key.expose_mut(), &mut **work)
        .map_err(|_| SealError::Unusable { what: "passphrase", why: "Argon2id refused it" })?;
    Ok(key)
}

/// Has the kernel provide all pages of the memory at once: one by one they cost twice as much. Only
/// advice: without it they come one by one.
fn touch(memory: &mut [MaybeUninit<Block>]) {
    let before = memory.as_ptr().addr().next_multiple_of(PAGE_BYTES_MAX) - memory.as_ptr().addr();
    let Some(bytes) = size_of_val(memory).checked_sub(before) else { return };
    let pages = memory.as_mut_ptr().cast::<c_void>().wrapping_byte_add(before);
    // SAFETY: the pages lie within memory that is borrowed here alone; the kernel provides them as if
    // each were written to, and changes nothing of what they hold.
    let _advice = unsafe {
        rustix::mm::madvise(
            pages,
            bytes / PAGE_BYTES_MAX * PAGE_BYTES_MAX,
            rustix::mm::Advice::LinuxPopulateWrite,
        )
    };
}

fn key_file_key(file: &SecretBytes) -> Result<Secret32, SealError> {
    check_material("key file", file.expose())?;
    Ok(kdf("cairn v1 key file", &[file.expose()]))
}

fn command_key(output: &SecretBytes) -> Result<Secret32, SealError> {
    let output = output.expose();
    let output = output.strip_suffix(b"\n").unwrap_or(output);
    check_material("output of the key command", output)?;
    Ok(kdf("cairn v1 key command", &[output]))
}

fn check_material(what: &'static str, material: &[u8]) -> Result<(), SealError> {
    if material.len() < KEY_MATERIAL_BYTES_MIN {
        return Err(SealError::Unusable { what, why: "it has fewer than 32 bytes" });
    }
    if material.len() > KEY_MATERIAL_BYTES_MAX {
        return Err(SealError::Unusable { what, why: "it has more than 1 MiB" });
    }
    Ok(())
}
