//! Sealing the parts of an object under its data key (SPEC §5).
//!
//! Both ciphers run through aws-lc. XChaCha20 is ChaCha20 under a subkey that depends on the
//! first 16 bytes of the nonce; those are the same for all parts of one type, so each object
//! needs one subkey a type.

use core::fmt;

use aws_lc_rs::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use cairn_format::envelope::{BOUND_BYTES, Cipher, Part};
use cairn_format::error::FormatError;
use cairn_format::limits::{PACK_FRAMES_MAX, TAG_BYTES};
use chacha20::cipher::array::Array;
use parking_lot::Mutex;
use zeroize::Zeroize;

use super::error::SealError;
use super::secret::Secret32;

/// Length of an AEAD tag, bytes.
pub const TAG: usize = TAG_BYTES as usize;
/// Bytes of associated data: the bound header, type and counter.
const ASSOCIATED_BYTES: usize = BOUND_BYTES + 1 + 8;
/// Most parts of the types that have one part only.
const TYPES: usize = 4;

/// The data key of one object, ready to seal or open parts.
struct PartKey {
    keys: Keying,
    bound: [u8; BOUND_BYTES],
}

enum Keying {
    Aes(LessSafeKey),
    /// One key for each type of part, 1 to 4.
    XChaCha([LessSafeKey; TYPES]),
}

impl PartKey {
    fn new(
        cipher: Cipher,
        data_key: &Secret32,
        bound: &[u8; BOUND_BYTES],
    ) -> Result<Self, SealError> {
        let keys = match cipher {
            Cipher::Aes256Gcm => Keying::Aes(bind(&AES_256_GCM, data_key)?),
            Cipher::XChaCha20Poly1305 => {
                let of_type = |type_byte: u8| {
                    let mut first_half = [0; 16];
                    first_half[0] = type_byte;
                    bind(&CHACHA20_POLY1305, &subkey(data_key, &first_half))
                };
                Keying::XChaCha([of_type(1)?, of_type(2)?, of_type(3)?, of_type(4)?])
            }
        };
        Ok(Self { keys, bound: *bound })
    }

    fn key(&self, part: Part) -> &LessSafeKey {
        match (&self.keys, part) {
            (Keying::Aes(key), _) => key,
            (Keying::XChaCha([key, _, _, _]), Part::Frame(_))
            | (Keying::XChaCha([_, key, _, _]), Part::Directory)
            | (Keying::XChaCha([_, _, key, _]), Part::Locator)
            | (Keying::XChaCha([_, _, _, key]), Part::Body) => key,
        }
    }

    /// The 12-byte nonce; for XChaCha20 the part of the 24-byte one that the subkey leaves over.
    fn nonce(&self, part: Part) -> Nonce {
        let mut nonce = [0; 12];
        if matches!(self.keys, Keying::Aes(_)) {
            nonce[0] = part.type_byte();
        }
        nonce[4..].copy_from_slice(&part.counter().to_le_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    fn associated(&self, part: Part) -> Aad<[u8; ASSOCIATED_BYTES]> {
        let mut data = [0; ASSOCIATED_BYTES];
        let (head, tail) = data.split_at_mut(BOUND_BYTES);
        head.copy_from_slice(&self.bound);
        tail[0] = part.type_byte();
        tail[1..].copy_from_slice(&part.counter().to_le_bytes());
        Aad::from(data)
    }
}

fn bind(algorithm: &'static Algorithm, key: &Secret32) -> Result<LessSafeKey, SealError> {
    UnboundKey::new(algorithm, key.expose())
        .map(LessSafeKey::new)
        .map_err(|_| SealError::Unusable { what: "data key", why: "the cipher refused it" })
}

/// HChaCha20: the subkey for all nonces that begin with these 16 bytes.
fn subkey(key: &Secret32, first_half: &[u8; 16]) -> Secret32 {
    let mut derived =
        chacha20::hchacha::<chacha20::R20>(key.expose().into(), &Array::from(*first_half));
    let mut secret = Secret32::zeroed();
    secret.expose_mut().copy_from_slice(&derived);
    derived.as_mut_slice().zeroize();
    secret
}

const fn part_name(part: Part) -> &'static str {
    match part {
        Part::Frame(_) => "a frame",
        Part::Directory => "the directory of a pack",
        Part::Locator => "the locator of a pack",
        Part::Body => "the body of an object",
    }
}

/// Seals the parts of one new object. Exists only for a fresh data key, cannot be copied, and
/// seals each part once, so that no nonce is ever used twice under a key.
pub struct PartSealer {
    key: PartKey,
    sealed: Mutex<Sealed>,
}

/// Which parts were sealed already: bit sets.
#[derive(Default)]
struct Sealed {
    types: u8,
    frames: Vec<u64>,
}

impl PartSealer {
    /// Seals under a data key that nothing was sealed under before.
    pub(super) fn new(
        cipher: Cipher,
        data_key: &Secret32,
        bound: &[u8; BOUND_BYTES],
    ) -> Result<Self, SealError> {
        Ok(Self {
            key: PartKey::new(cipher, data_key, bound)?,
            sealed: Mutex::new(Sealed::default()),
        })
    }

    /// Seals the whole of `buf` in place and appends the tag.
    ///
    /// # Errors
    /// [`SealError::SealedTwice`] when this part was sealed before; [`SealError::TooLong`] for a
    /// frame number of [`PACK_FRAMES_MAX`] or more. Then `buf` is unchanged.
    pub fn seal_in_place(&self, part: Part, buf: &mut Vec<u8>) -> Result<(), SealError> {
        let tag = self.seal_detached(part, buf)?;
        buf.extend_from_slice(&tag);
        Ok(())
    }

    /// Seals a region of a larger buffer in place: plaintext, then [`TAG`] bytes of room for the
    /// tag.
    ///
    /// # Errors
    /// As [`Self::seal_in_place`]; [`SealError::Format`] when the region has no room for a tag.
    pub fn seal_region(&self, part: Part, region: &mut [u8]) -> Result<(), SealError> {
        let (plaintext, room) = region
            .split_last_chunk_mut::<TAG>()
            .ok_or(FormatError::Truncated { what: part_name(part) })?;
        *room = self.seal_detached(part, plaintext)?;
        Ok(())
    }

    fn seal_detached(&self, part: Part, plaintext: &mut [u8]) -> Result<[u8; TAG], SealError> {
        self.claim(part)?;
        let too_long = SealError::TooLong { what: part_name(part) };
        let tag = self
            .key
            .key(part)
            .seal_in_place_separate_tag(self.key.nonce(part), self.key.associated(part), plaintext)
            .map_err(|_| too_long.clone())?;
        tag.as_ref().try_into().map_err(|_| too_long)
    }

    /// Marks the part as sealed; fails when it was.
    fn claim(&self, part: Part) -> Result<(), SealError> {
        let twice = SealError::SealedTwice { what: part_name(part) };
        let mut sealed = self.sealed.lock();
        let Part::Frame(number) = part else {
            let bit = 1 << part.type_byte();
            if sealed.types & bit != 0 {
                return Err(twice);
            }
            sealed.types |= bit;
            return Ok(());
        };
        if number >= u64::from(PACK_FRAMES_MAX) {
            return Err(SealError::TooLong { what: "a pack's list of frames" });
        }
        let (word, bit) = ((number / 64) as usize, 1_u64 << (number % 64));
        if sealed.frames.len() <= word {
            sealed.frames.resize(word + 1, 0);
        }
        match sealed.frames.get_mut(word) {
            Some(bits) if *bits & bit == 0 => {
                *bits |= bit;
                Ok(())
            }
            _ => Err(twice),
        }
    }
}

/// Opens the parts of one object.
pub struct PartOpener {
    key: PartKey,
}

impl PartOpener {
    pub(super) fn new(
        cipher: Cipher,
        data_key: &Secret32,
        bound: &[u8; BOUND_BYTES],
    ) -> Result<Self, SealError> {
        PartKey::new(cipher, data_key, bound).map(|key| Self { key })
    }

    /// Opens ciphertext and tag in place and returns the plaintext, [`TAG`] bytes shorter.
    ///
    /// # Errors
    /// [`SealError::Damaged`] when one bit is not as it was sealed; then `sealed` holds nothing of
    /// use.
    pub fn open_in_place<'a>(
        &self,
        part: Part,
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], SealError> {
        self.key
            .key(part)
            .open_in_place(self.key.nonce(part), self.key.associated(part), sealed)
            .map_err(|_| SealError::Damaged { what: part_name(part) })
    }
}

impl fmt::Debug for PartSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PartSealer")
    }
}

impl fmt::Debug for PartOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PartOpener")
    }
}

/// Seals `plaintext` with XChaCha20-Poly1305 under a key that is used with few nonces (slots,
/// wrapped keys, previous roots); the tag follows the ciphertext.
pub(super) fn seal_small(
    key: &Secret32,
    nonce: &[u8; 24],
    associated: &[u8],
    buf: &mut Vec<u8>,
) -> Result<(), SealError> {
    let (first_half, short) = split_nonce(nonce);
    bind(&CHACHA20_POLY1305, &subkey(key, &first_half))?
        .seal_in_place_append_tag(short, Aad::from(associated), buf)
        .map_err(|_| SealError::TooLong { what: "a sealed key" })
}

/// Opens what [`seal_small`] sealed, in place; `None` when it does not open.
pub(super) fn open_small<'a>(
    key: &Secret32,
    nonce: &[u8; 24],
    associated: &[u8],
    sealed: &'a mut [u8],
) -> Option<&'a mut [u8]> {
    let (first_half, short) = split_nonce(nonce);
    bind(&CHACHA20_POLY1305, &subkey(key, &first_half))
        .ok()?
        .open_in_place(short, Aad::from(associated), sealed)
        .ok()
}

fn split_nonce(nonce: &[u8; 24]) -> ([u8; 16], Nonce) {
    let (mut first_half, mut short) = ([0; 16], [0; 12]);
    first_half.copy_from_slice(&nonce[..16]);
    short[4..].copy_from_slice(&nonce[16..]);
    (first_half, Nonce::assume_unique_for_key(short))
}
