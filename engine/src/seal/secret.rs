//! Memory for secrets: wiped when dropped, never printed, compared in constant time.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// 32 secret bytes. They live on the heap, so that moving the value leaves no copy behind.
#[derive(Clone)]
pub struct Secret32(Box<[u8; 32]>);

impl Secret32 {
    /// Thirty-two zeros, to be filled in place.
    #[must_use]
    pub fn zeroed() -> Self {
        Self(Box::new([0; 32]))
    }

    /// Copies a secret; the caller wipes the original.
    #[must_use]
    pub fn copy_from(bytes: &[u8; 32]) -> Self {
        let mut secret = Self::zeroed();
        secret.0.copy_from_slice(bytes);
        secret
    }

    /// The secret.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The secret, to be filled in place.
    pub fn expose_mut(&mut self) -> &mut [u8; 32] {
        &mut self.0
    }
}

impl PartialEq for Secret32 {
    /// In constant time.
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(self.expose(), other.expose())
    }
}

impl Eq for Secret32 {}

impl Drop for Secret32 {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Secret32 {}

impl fmt::Debug for Secret32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret32(..)")
    }
}

/// Secret bytes of any length. They cannot grow, because growing leaves copies behind.
#[derive(Clone)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Takes over bytes, whose buffer is wiped when this is dropped.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The secret.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for SecretBytes {
    /// In time that depends on the lengths only.
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(self.expose(), other.expose())
    }
}

impl Eq for SecretBytes {}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for SecretBytes {}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

/// Compares in time that depends on the lengths only.
#[must_use]
pub fn constant_time_eq(one: &[u8], other: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one, other).is_ok()
}

/// `KDF(context, parts one after another)` of SPEC section 1.
pub(crate) fn kdf(context: &'static str, parts: &[&[u8]]) -> Secret32 {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    let mut secret = Secret32::zeroed();
    let mut output = hasher.finalize_xof();
    output.fill(secret.expose_mut());
    output.zeroize();
    hasher.zeroize();
    secret
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_printed() {
        let secret = Secret32::copy_from(&[0xab; 32]);
        let bytes = SecretBytes::new(b"hunter2".to_vec());
        assert_eq!(format!("{secret:?} {bytes:?}"), "Secret32(..) SecretBytes(..)");
    }

    #[test]
    fn equality_sees_every_byte_and_the_length() {
        let zeros = Secret32::zeroed();
        for index in 0..32 {
            let mut other = Secret32::zeroed();
            other.expose_mut()[index] = 1;
            assert_ne!(zeros, other);
        }
        assert_eq!(zeros, zeros.clone());
        assert_ne!(SecretBytes::new(vec![1, 2]), SecretBytes::new(vec![1, 2, 0]));
    }

    #[test]
    fn derivation_is_blake3_over_the_joined_parts() {
        let joined = blake3::derive_key("cairn v1 test", b"abcdef");
        assert_eq!(kdf("cairn v1 test", &[b"abc", b"", b"def"]).expose(), &joined);
        assert_ne!(kdf("cairn v1 other", &[b"abcdef"]).expose(), &joined);
    }
}
