//! Reading and writing the primitives of SPEC §1: fixed integers, varints, bytes, lists, field lists.
//!
//! The reader is the only code that looks at raw bytes. It never allocates for a length or count
//! it has not bounded, and accepts each value in one spelling only.

use crate::error::FormatError;

/// Reads a structure from bytes, front to back.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`; `what` names the structure in errors.
    #[must_use]
    pub const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// Bytes not read yet.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// True at the end.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    const fn truncated(&self) -> FormatError {
        FormatError::Truncated { what: self.what }
    }

    /// The next `len` bytes as they are.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] when fewer remain.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.truncated())?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] when fewer remain.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.truncated())?;
        self.rest = rest;
        Ok(*head)
    }

    /// Everything that remains.
    pub fn take_rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    /// A `u8`.
    ///
    /// # Errors
    /// [`FormatError::Truncated`].
    pub fn u8(&mut self) -> Result<u8, FormatError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A `u16`.
    ///
    /// # Errors
    /// [`FormatError::Truncated`].
    pub fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_le_bytes)
    }

    /// A `u32`.
    ///
    /// # Errors
    /// [`FormatError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    /// A `u64`.
    ///
    /// # Errors
    /// [`FormatError::Truncated`].
    pub fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    /// An `i64`.
    ///
    /// # Errors
    /// [`FormatError::Truncated`].
    pub fn i64(&mut self) -> Result<i64, FormatError> {
        self.array().map(i64::from_le_bytes)
    }

    /// A `varint` in its shortest form.
    ///
    /// # Errors
    /// [`FormatError::Truncated`], or [`FormatError::Value`] when longer than needed or beyond 64 bits.
    pub fn varint(&mut self) -> Result<u64, FormatError> {
        let bad = FormatError::Value { what: "varint" };
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(bad);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(bad);
                }
                return Ok(value);
            }
        }
        Err(bad)
    }

    /// A signed number written as `zigzag`.
    ///
    /// # Errors
    /// As [`Self::varint`].
    pub fn zigzag(&mut self) -> Result<i64, FormatError> {
        let raw = self.varint()?;
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    /// A `varint` of at most `limit`.
    ///
    /// # Errors
    /// [`FormatError::Limit`] beyond the limit; else as [`Self::varint`].
    pub fn bounded(&mut self, what: &'static str, limit: u32) -> Result<u32, FormatError> {
        let found = self.varint()?;
        match u32::try_from(found) {
            Ok(value) if value <= limit => Ok(value),
            _ => Err(FormatError::Limit { what, limit: u64::from(limit), found }),
        }
    }

    /// A count of items of which each takes at least `item_bytes_min` (at least 1) bytes, so that it is bounded
    /// by what remains.
    ///
    /// # Errors
    /// [`FormatError::Limit`] when that many items cannot follow.
    pub fn count(
        &mut self,
        what: &'static str,
        item_bytes_min: usize,
    ) -> Result<usize, FormatError> {
        let found = self.varint()?;
        let limit = self.remaining() / item_bytes_min.max(1);
        match usize::try_from(found) {
            Ok(count) if count <= limit => Ok(count),
            _ => Err(FormatError::Limit { what, limit: limit as u64, found }),
        }
    }

    /// A `bytes` value of at most `limit` bytes.
    ///
    /// # Errors
    /// [`FormatError::Limit`] or [`FormatError::Truncated`].
    pub fn bytes(&mut self, what: &'static str, limit: u32) -> Result<&'a [u8], FormatError> {
        let len = self.bounded(what, limit)?;
        self.raw(len as usize)
    }

    /// A `str` value of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Self::bytes`], and [`FormatError::Value`] when it is not UTF-8.
    pub fn str(&mut self, what: &'static str, limit: u32) -> Result<String, FormatError> {
        let bytes = self.bytes(what, limit)?;
        core::str::from_utf8(bytes).map(str::to_owned).map_err(|_| FormatError::Value { what })
    }

    /// Checks that `len` reserved bytes are zero.
    ///
    /// # Errors
    /// [`FormatError::Value`] when one is not.
    pub fn zeros(&mut self, what: &'static str, len: usize) -> Result<(), FormatError> {
        if self.raw(len)?.iter().all(|byte| *byte == 0) {
            Ok(())
        } else {
            Err(FormatError::Value { what })
        }
    }

    /// Ends the structure.
    ///
    /// # Errors
    /// [`FormatError::Trailing`] when bytes remain.
    pub const fn finish(self) -> Result<(), FormatError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(FormatError::Trailing { what: self.what, bytes: self.rest.len() as u64 })
        }
    }

    /// Reads a field list up to the end: calls `field` with each tag and a reader of its value, which
    /// it must read to its end. `field` returns `false` for a tag it does not know.
    ///
    /// # Errors
    /// [`FormatError::Required`] for an unknown odd tag, [`FormatError::Value`] when tags do not ascend.
    pub fn fields(
        mut self,
        mut field: impl FnMut(u64, &mut Reader<'a>) -> Result<bool, FormatError>,
    ) -> Result<(), FormatError> {
        let mut last = None;
        while !self.is_empty() {
            let tag = self.varint()?;
            if last.is_some_and(|last| tag <= last) {
                return Err(FormatError::Value { what: "order of field tags" });
            }
            last = Some(tag);
            let len = self.count("field length", 1)?;
            let mut value = Reader::new(self.raw(len)?, self.what);
            if field(tag, &mut value)? {
                value.finish()?;
            } else if tag % 2 == 1 {
                return Err(FormatError::Required { what: self.what, unknown: tag });
            }
        }
        Ok(())
    }
}

/// Writes a structure to bytes.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty writer.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// What was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// What was written so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of bytes written so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True when nothing was written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// A `u8`.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    /// A `u16`.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// A `u32`.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// A `u64`.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// An `i64`.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// A `varint`.
    pub fn varint(&mut self, mut value: u64) -> &mut Self {
        loop {
            let low = (value & 0x7f) as u8;
            value >>= 7;
            if value == 0 {
                return self.u8(low);
            }
            self.u8(low | 0x80);
        }
    }

    /// A signed number as `zigzag`.
    pub fn zigzag(&mut self, value: i64) -> &mut Self {
        self.varint(((value << 1) ^ (value >> 63)).cast_unsigned())
    }

    /// A count or a length as `varint`.
    pub fn count(&mut self, value: usize) -> &mut Self {
        self.varint(value as u64)
    }

    /// A `bytes` value.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.count(value.len()).raw(value)
    }

    /// A `str` value.
    pub fn str(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// One field of a field list; the caller writes tags in ascending order.
    pub fn field(&mut self, tag: u64, value: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::new();
        value(&mut inner);
        self.varint(tag).bytes(&inner.bytes)
    }
}

/// Length that hides most of `len`: rounds up to at most 12 % more (Padmé; Nikitin et al., PETS 2019).
#[must_use]
pub const fn padme(len: u64) -> u64 {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    let mantissa_bits = if exponent == 0 { 1 } else { exponent.ilog2() + 1 };
    if exponent <= mantissa_bits {
        return len;
    }
    let step = 1_u64 << (exponent - mantissa_bits);
    (len + (step - 1)) & !(step - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_one_spelling() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut writer = Writer::new();
            writer.varint(value);
            let bytes = writer.into_bytes();
            let mut reader = Reader::new(&bytes, "varint");
            assert_eq!(reader.varint(), Ok(value));
            assert!(reader.is_empty());
        }
        assert!(Reader::new(&[0x80, 0x00], "varint").varint().is_err());
        assert!(Reader::new(&[0xff; 9], "varint").varint().is_err());
        let mut too_big = [0xff; 10];
        too_big[9] = 2;
        assert!(Reader::new(&too_big, "varint").varint().is_err());
    }

    #[test]
    fn zigzag_round_trips_at_the_ends() {
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            let mut writer = Writer::new();
            writer.zigzag(value);
            assert_eq!(Reader::new(writer.as_bytes(), "zigzag").zigzag(), Ok(value));
        }
    }

    #[test]
    fn counts_are_bounded_by_what_follows() {
        let mut writer = Writer::new();
        writer.varint(u64::MAX);
        assert!(matches!(
            Reader::new(writer.as_bytes(), "list").count("list", 1),
            Err(FormatError::Limit { .. })
        ));
    }

    #[test]
    fn unknown_even_fields_are_ignored_and_odd_ones_refused() {
        let list = |tag| {
            let mut writer = Writer::new();
            writer.field(1, |w| {
                w.u8(7);
            });
            writer.field(tag, |w| {
                w.u8(9);
            });
            writer.into_bytes()
        };
        let read = |bytes: &[u8]| {
            let mut seen = 0;
            Reader::new(bytes, "record")
                .fields(|tag, value| {
                    if tag == 1 {
                        seen = value.u8()?;
                    }
                    Ok(tag == 1)
                })
                .map(|()| seen)
        };
        assert_eq!(read(&list(2)), Ok(7));
        assert_eq!(read(&list(3)), Err(FormatError::Required { what: "record", unknown: 3 }));
        assert!(read(&list(1)).is_err(), "a tag twice");
        assert!(read(&list(0)).is_err(), "a descending tag");
    }

    #[test]
    fn padme_never_shrinks_and_costs_at_most_12_percent() {
        for len in (0..100_000).chain([1 << 25, (1 << 25) - 1, u64::from(u32::MAX)]) {
            let padded = padme(len);
            assert!(padded >= len && padme(padded) == padded);
            assert!((padded - len) * 100 <= len * 12, "{len} became {padded}");
        }
    }
}
