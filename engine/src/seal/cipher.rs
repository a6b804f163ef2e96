//! Sealing the parts of an object under its data key (SPEC section 5).
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

#[cfg(test)]
mod tests {
    use cairn_format::hex;
    use chacha20poly1305::aead::{Aead, KeyInit, Payload};
    use proptest::prelude::*;

    use super::*;

    const CIPHERS: [Cipher; 2] = [Cipher::Aes256Gcm, Cipher::XChaCha20Poly1305];
    const PARTS: [Part; 6] = [
        Part::Frame(0),
        Part::Frame(1),
        Part::Frame(65_535),
        Part::Directory,
        Part::Locator,
        Part::Body,
    ];

    fn pair(cipher: Cipher) -> (PartSealer, PartOpener) {
        let (key, bound) = (Secret32::copy_from(&[7; 32]), [9; BOUND_BYTES]);
        (
            PartSealer::new(cipher, &key, &bound).unwrap(),
            PartOpener::new(cipher, &key, &bound).unwrap(),
        )
    }

    fn bytes(text: &str) -> Vec<u8> {
        text.as_bytes()
            .chunks(2)
            .map(|pair| {
                hex::decode::<1>(core::str::from_utf8(pair).unwrap()).map(|[byte]| byte).unwrap()
            })
            .collect()
    }

    #[test]
    fn parts_round_trip_in_a_vector_and_in_a_region() {
        for cipher in CIPHERS {
            let ((one, opener), (other, _)) = (pair(cipher), pair(cipher));
            for part in PARTS {
                let mut sealed = b"plaintext".to_vec();
                one.seal_in_place(part, &mut sealed).unwrap();
                let mut region = [b"plaintext".as_slice(), &[0xaa; TAG]].concat();
                other.seal_region(part, &mut region).unwrap();
                assert_eq!(sealed, region);
                assert_eq!(opener.open_in_place(part, &mut sealed).unwrap(), b"plaintext");
            }
        }
    }

    #[test]
    fn a_part_does_not_open_as_another_or_with_a_changed_bit() {
        for cipher in CIPHERS {
            let (sealer, opener) = pair(cipher);
            for part in PARTS {
                let mut sealed = b"secret".to_vec();
                sealer.seal_in_place(part, &mut sealed).unwrap();
                for other in PARTS.into_iter().filter(|other| *other != part) {
                    assert!(opener.open_in_place(other, &mut sealed.clone()).is_err());
                }
                for bit in 0..sealed.len() * 8 {
                    let mut flipped = sealed.clone();
                    flipped[bit / 8] ^= 1 << (bit % 8);
                    assert_eq!(
                        opener.open_in_place(part, &mut flipped),
                        Err(SealError::Damaged { what: part_name(part) })
                    );
                    assert!(!flipped.windows(6).any(|window| window == b"secret"));
                }
                for len in 0..sealed.len() {
                    assert!(opener.open_in_place(part, &mut sealed[..len].to_vec()).is_err());
                }
            }
        }
    }

    #[test]
    fn every_byte_of_the_bound_header_counts() {
        for cipher in CIPHERS {
            let key = Secret32::copy_from(&[7; 32]);
            let mut sealed = b"secret".to_vec();
            pair(cipher).0.seal_in_place(Part::Body, &mut sealed).unwrap();
            for index in 0..BOUND_BYTES {
                let mut bound = [9; BOUND_BYTES];
                bound[index] ^= 1;
                let opener = PartOpener::new(cipher, &key, &bound).unwrap();
                assert!(opener.open_in_place(Part::Body, &mut sealed.clone()).is_err());
            }
        }
    }

    #[test]
    fn no_part_is_sealed_twice() {
        for cipher in CIPHERS {
            let (sealer, _) = pair(cipher);
            for part in PARTS {
                sealer.seal_in_place(part, &mut b"one".to_vec()).unwrap();
                let mut second = b"two".to_vec();
                assert_eq!(
                    sealer.seal_in_place(part, &mut second),
                    Err(SealError::SealedTwice { what: part_name(part) })
                );
                assert_eq!(second, b"two");
            }
            sealer.seal_in_place(Part::Frame(2), &mut Vec::new()).unwrap();
            let beyond = Part::Frame(u64::from(PACK_FRAMES_MAX));
            assert!(sealer.seal_in_place(beyond, &mut Vec::new()).is_err());
            assert!(sealer.seal_region(Part::Frame(3), &mut [0; TAG - 1]).is_err());
        }
    }

    #[test]
    fn nonces_are_those_of_the_specification() {
        let (sealer, _) = pair(Cipher::XChaCha20Poly1305);
        let oracle = chacha20poly1305::XChaCha20Poly1305::new(&[7; 32].into());
        for part in PARTS {
            let mut sealed = b"plaintext".to_vec();
            sealer.seal_in_place(part, &mut sealed).unwrap();
            let mut nonce = [0; 24];
            nonce[0] = part.type_byte();
            nonce[16..].copy_from_slice(&part.counter().to_le_bytes());
            let aad = [&[9; 88][..], &[part.type_byte()], &part.counter().to_le_bytes()].concat();
            let payload = Payload { msg: b"plaintext", aad: &aad };
            assert_eq!(oracle.encrypt(&nonce.into(), payload).unwrap(), sealed);
        }
        let (sealer, _) = pair(Cipher::Aes256Gcm);
        let mut sealed = b"plaintext".to_vec();
        sealer.seal_in_place(Part::Frame(258), &mut sealed).unwrap();
        let aad = [&[9; 88][..], &[1, 2, 1, 0, 0, 0, 0, 0, 0]].concat();
        let nonce = Nonce::assume_unique_for_key([1, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        let mut expected = b"plaintext".to_vec();
        bind(&AES_256_GCM, &Secret32::copy_from(&[7; 32]))
            .unwrap()
            .seal_in_place_append_tag(nonce, Aad::from(aad), &mut expected)
            .unwrap();
        assert_eq!(sealed, expected);
    }

    #[test]
    fn aes_256_gcm_matches_the_known_answer_of_nist() {
        // "The Galois/Counter Mode of Operation (GCM)", submission to NIST, test case 16.
        let key: [u8; 32] =
            hex::decode("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")
                .unwrap();
        let nonce = hex::decode("cafebabefacedbaddecaf888").unwrap();
        let mut buf = bytes(concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        ));
        bind(&AES_256_GCM, &Secret32::copy_from(&key))
            .unwrap()
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2")),
                &mut buf,
            )
            .unwrap();
        assert_eq!(
            hex::encode(&buf),
            concat!(
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
                "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
                "76fc6ece0f4e1768cddf8853bb2d551b",
            )
        );
    }

    #[test]
    fn xchacha20_poly1305_matches_the_known_answer_of_the_draft() {
        // draft-irtf-cfrg-xchacha, appendix A.3.1.
        let mut key = Secret32::zeroed();
        for (byte, value) in key.expose_mut().iter_mut().zip(0x80..) {
            *byte = value;
        }
        let nonce = core::array::from_fn(|index| 0x40 + u8::try_from(index).unwrap());
        let mut buf = b"Ladies and Gentlemen of the class of '99: If I could offer you \
            only one tip for the future, sunscreen would be it."
            .to_vec();
        seal_small(&key, &nonce, &bytes("50515253c0c1c2c3c4c5c6c7"), &mut buf).unwrap();
        assert_eq!(
            hex::encode(&buf),
            concat!(
                "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb",
                "731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452",
                "2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9",
                "21f9664c97637da9768812f615c68b13b52e",
                "c0875924c1c7987947deafd8780acf49",
            )
        );
    }

    proptest! {
        #[test]
        fn xchacha20_poly1305_equals_the_portable_implementation(
            key: [u8; 32],
            nonce: [u8; 24],
            aad in proptest::collection::vec(any::<u8>(), 0..200),
            plaintext in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            let secret = Secret32::copy_from(&key);
            let mut sealed = plaintext.clone();
            seal_small(&secret, &nonce, &aad, &mut sealed).unwrap();
            let oracle = chacha20poly1305::XChaCha20Poly1305::new(&key.into())
                .encrypt(&nonce.into(), Payload { msg: &plaintext, aad: &aad })
                .unwrap();
            prop_assert_eq!(&sealed, &oracle);
            let opened = open_small(&secret, &nonce, &aad, &mut sealed).map(|opened| opened.to_vec());
            prop_assert_eq!(opened, Some(plaintext));
        }
    }
}
