//! Lower-case hexadecimal, the only spelling object names use.

use crate::error::FormatError;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Encodes bytes as lower-case hexadecimal.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Decodes exactly `N` bytes; upper case is refused so that a name has one spelling.
///
/// # Errors
/// [`FormatError::Hex`] for any other length or character.
pub fn decode<const N: usize>(text: &str) -> Result<[u8; N], FormatError> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return Err(FormatError::Hex);
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = [pair[0], pair[1]].map(digit);
        *byte = (high? << 4) | low?;
    }
    Ok(bytes)
}

fn digit(character: u8) -> Result<u8, FormatError> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        _ => Err(FormatError::Hex),
    }
}
