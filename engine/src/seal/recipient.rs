//! X25519 key pairs: recipients of key slots, and domains (SPEC section 3).

use core::fmt;

use cairn_format::hex;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

use super::error::SealError;
use super::memo;
use super::random::{self, Random};
use super::secret::Secret32;

const RECIPIENT_PREFIX: &str = "cairn-recipient-";
const IDENTITY_PREFIX: &str = "cairn-identity-";
/// Bytes of BLAKE3 that follow the key in the text form, against typing errors.
const CHECK_BYTES: usize = 4;
const TEXT_BYTES: usize = 32 + CHECK_BYTES;

/// A public key that slots can be sealed to. Written `cairn-recipient-` and 72 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

impl Recipient {
    /// The X25519 public key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads the text form; white space around it is ignored.
    ///
    /// # Errors
    /// [`SealError::Unusable`] for anything else, among it a typing error in the digits.
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let key = parse_key(text, RECIPIENT_PREFIX, "recipient")?;
        Ok(Self(*key))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&key_text(RECIPIENT_PREFIX, &self.0))
    }
}

/// The secret that belongs to a [`Recipient`].
#[derive(Clone, Debug)]
pub struct Identity(Secret32);

impl Identity {
    /// A fresh key pair.
    ///
    /// # Errors
    /// [`SealError::RngBroken`].
    pub fn generate(random: &dyn Random) -> Result<Self, SealError> {
        random::secret(random).map(Self)
    }

    /// The public half.
    #[must_use]
    pub fn recipient(&self) -> Recipient {
        Recipient(public_key(&self.0))
    }

    /// The secret's text form, `cairn-identity-` and 72 hexadecimal digits, to be kept outside
    /// the repository.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        key_text(IDENTITY_PREFIX, self.0.expose())
    }

    /// Reads the text form; white space around it is ignored.
    ///
    /// # Errors
    /// [`SealError::Unusable`] for anything else, among it a typing error in the digits.
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let key = parse_key(text, IDENTITY_PREFIX, "identity")?;
        Ok(Self(Secret32::copy_from(&key)))
    }

    pub(super) const fn secret(&self) -> &Secret32 {
        &self.0
    }
}

/// The prefix is part of what is hashed, so that a recipient is not taken for an identity.
fn check_sum(prefix: &str, key: &[u8; 32]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(prefix.as_bytes()).update(key);
    let mut check = [0; CHECK_BYTES];
    let mut output = hasher.finalize_xof();
    output.fill(&mut check);
    output.zeroize();
    hasher.zeroize();
    check
}

fn key_text(prefix: &str, key: &[u8; 32]) -> Zeroizing<String> {
    let digits = Zeroizing::new(hex::encode(key));
    let check = hex::encode(&check_sum(prefix, key));
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + 2 * TEXT_BYTES));
    text.push_str(prefix);
    text.push_str(&digits);
    text.push_str(&check);
    text
}

fn parse_key(
    text: &str,
    prefix: &'static str,
    what: &'static str,
) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let unusable = |why| SealError::Unusable { what, why };
    let digits = text.trim().strip_prefix(prefix).ok_or(unusable("it has another prefix"))?;
    let bytes: Zeroizing<[u8; TEXT_BYTES]> = hex::decode(digits)
        .map(Zeroizing::new)
        .map_err(|_| unusable("it is not 72 lower-case hexadecimal digits"))?;
    let (key, check) = bytes.split_at(32);
    let key = <[u8; 32]>::try_from(key)
        .map(Zeroizing::new)
        .map_err(|_| unusable("it has another length"))?;
    if check_sum(prefix, &key) == *check {
        Ok(key)
    } else {
        Err(unusable("its check digits do not match: a digit is wrong"))
    }
}

/// The X25519 public key of a secret.
#[must_use]
pub fn public_key(secret: &Secret32) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(*secret.expose())).to_bytes()
}

/// X25519; `None` when the result is all zeros, because the public key is of small order.
pub(super) fn agree(secret: &Secret32, public: &[u8; 32]) -> Option<Secret32> {
    memo::agreed(&[secret.expose(), public], || {
        let shared = StaticSecret::from(*secret.expose()).diffie_hellman(&PublicKey::from(*public));
        shared.was_contributory().then(|| Secret32::copy_from(shared.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::super::random::SeededRandom;
    use super::*;

    #[test]
    fn key_pairs_survive_their_text_form() {
        let identity = Identity::generate(&SeededRandom::new(1)).unwrap();
        let again = Identity::parse(&format!("  {}\n", *identity.to_text())).unwrap();
        assert_eq!(again.secret(), identity.secret());
        let recipient = identity.recipient();
        assert_eq!(Recipient::parse(&recipient.to_string()), Ok(recipient));
    }

    #[test]
    fn typing_errors_and_mixed_up_halves_are_seen() {
        let identity = Identity::generate(&SeededRandom::new(1)).unwrap();
        let text = identity.recipient().to_string();
        for index in RECIPIENT_PREFIX.len()..text.len() {
            let mut wrong = text.clone();
            let digit = if &text[index..=index] == "0" { "1" } else { "0" };
            wrong.replace_range(index..=index, digit);
            assert!(Recipient::parse(&wrong).is_err(), "digit {index}");
        }
        assert!(Recipient::parse(&identity.to_text()).is_err());
        assert!(Identity::parse(&text).is_err());
        let renamed = text.replace(RECIPIENT_PREFIX, IDENTITY_PREFIX);
        assert!(Identity::parse(&renamed).is_err());
        assert!(Recipient::parse(&text[..text.len() - 1]).is_err());
        assert!(Recipient::parse("").is_err());
    }

    #[test]
    fn x25519_matches_rfc_7748_and_refuses_small_order() {
        let bytes = |text| hex::decode::<32>(text).unwrap();
        let alice = Secret32::copy_from(&bytes(
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        ));
        let bob = bytes("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
        let shared = bytes("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(
            public_key(&alice),
            bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
        );
        assert_eq!(agree(&alice, &bob).unwrap().expose(), &shared);
        let mut one = [0; 32];
        one[0] = 1;
        assert!(agree(&alice, &[0; 32]).is_none());
        assert!(agree(&alice, &one).is_none());
    }
}
