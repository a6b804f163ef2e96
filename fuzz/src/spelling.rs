//! Whether a structure has one spelling only.

use std::collections::BTreeMap;
use std::fmt::Debug;

use cairn_format::codec::{Reader, Writer};
use cairn_format::error::FormatError;

use crate::memory::bounded;

type Decode<T> = fn(&[u8]) -> Result<T, FormatError>;

/// Decodes; what decodes must be written with exactly the same bytes. Returns the value.
pub fn exact<T: Debug>(
    bytes: &[u8],
    decode: Decode<T>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Option<T> {
    let value = bounded(bytes.len(), || decode(bytes)).ok()?;
    assert_eq!(encode(&value), bytes, "{value:?}");
    Some(value)
}

/// Decodes a field list; what decodes must be read again from what is written for it, and each
/// field must be written as it was read, but for unknown even ones. Returns the value.
pub fn field_list<T: Debug + PartialEq>(
    bytes: &[u8],
    decode: Decode<T>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Option<T> {
    let value = bounded(bytes.len(), || decode(bytes)).ok()?;
    let written = encode(&value);
    assert_eq!(decode(&written).as_ref(), Ok(&value));
    same_fields(bytes, &written);
    Some(value)
}

/// Compares two field lists of one value.
pub fn same_fields(read: &[u8], written: &[u8]) {
    let (read, written) = (fields(read), fields(written));
    for (tag, value) in &read {
        match written.get(tag) {
            Some(written) => assert_eq!(written, value, "field {tag}"),
            None => assert!(tag % 2 == 0, "field {tag} was dropped"),
        }
    }
    for tag in written.keys().filter(|tag| !read.contains_key(tag)) {
        assert!(tag % 2 == 0, "field {tag} was made up");
    }
}

fn fields(bytes: &[u8]) -> BTreeMap<u64, &[u8]> {
    let mut found = BTreeMap::new();
    let read = Reader::new(bytes, "fields").fields(|tag, value| {
        found.insert(tag, value.take_rest());
        Ok(true)
    });
    assert_eq!(read, Ok(()));
    found
}

/// Writes a field list again without the fields that are not `1..=tag_max`.
pub fn known_fields(bytes: &[u8], tag_max: u64) -> Vec<u8> {
    let mut writer = Writer::new();
    for (tag, value) in fields(bytes).into_iter().filter(|(tag, _)| (1..=tag_max).contains(tag)) {
        writer.field(tag, |w| {
            w.raw(value);
        });
    }
    writer.into_bytes()
}
