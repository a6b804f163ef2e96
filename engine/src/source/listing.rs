//! The names of one directory, packed: a directory of a million names must stay affordable.

use std::ffi::CStr;

use rustix::fd::BorrowedFd;
use rustix::fs::RawDir;

/// Room for one answer of getdents64, bytes.
const READ_BYTES: usize = 64 << 10;

/// The names of one directory in byte order, handed out one after the other.
///
/// Costs the bytes of the names and 12 bytes for each.
#[derive(Default)]
pub(super) struct Listing {
    bytes: Vec<u8>,
    /// Start and length of each name in `bytes`.
    spans: Vec<(usize, u32)>,
    next: usize,
}

impl Listing {
    /// Reads the names of an open directory (not `O_PATH`); sorted, without `.` and `..`.
    ///
    /// A failure midway keeps the names read so far and is returned beside them.
    pub(super) fn read(directory: BorrowedFd<'_>) -> (Self, Option<rustix::io::Errno>) {
        let mut listing = Self::default();
        let mut buffer = Vec::with_capacity(READ_BYTES);
        let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
        let mut failure = None;
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => listing.push_entry(entry.file_name()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        listing.sort();
        (listing, failure)
    }

    /// Adds names that are not among them yet; before the first is handed out.
    pub(super) fn add<'a>(&mut self, names: impl Iterator<Item = &'a [u8]>) {
        let before = self.spans.len();
        names.for_each(|name| self.push(name));
        if self.spans.len() > before {
            self.sort();
        }
    }

    fn push_entry(&mut self, name: &CStr) {
        let name = name.to_bytes();
        if name != b"." && name != b".." {
            self.push(name);
        }
    }

    fn push(&mut self, name: &[u8]) {
        // The kernel gives no name beyond 64 KiB, so the length always fits.
        let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
        self.spans.push((self.bytes.len(), length));
        self.bytes.extend_from_slice(name);
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.spans.sort_unstable_by(|a, b| slice(bytes, *a).cmp(slice(bytes, *b)));
        // A directory that changes while it is read may name an entry twice.
        self.spans.dedup_by(|a, b| slice(bytes, *a) == slice(bytes, *b));
    }

    /// Whether the name is among them.
    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.spans.binary_search_by(|span| slice(&self.bytes, *span).cmp(name)).is_ok()
    }

    /// The next name in order.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        let span = *self.spans.get(self.next)?;
        self.next += 1;
        Some(slice(&self.bytes, span))
    }
}

fn slice(bytes: &[u8], (start, length): (usize, u32)) -> &[u8] {
    bytes.get(start..start + length as usize).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_byte_order_without_repetition() {
        let names: [&[u8]; 5] = [b"b", b"a", b"\xff", b"a", b"Z"];
        let mut listing = Listing::default();
        listing.add(names.into_iter());
        assert!(listing.contains(b"a") && !listing.contains(b"c"));
        let mut got = Vec::new();
        while let Some(name) = listing.next() {
            got.push(name.to_vec());
        }
        assert_eq!(got, [b"Z".to_vec(), b"a".to_vec(), b"b".to_vec(), b"\xff".to_vec()]);
    }
}
