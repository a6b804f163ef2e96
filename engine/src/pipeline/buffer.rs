//! Bytes under way from a source to a worker.

use std::ops::Deref;

/// A buffer that is read into. It is zeroed once, not before every read, and keeps its room when it
/// is emptied, so that it can be used again and again.
#[derive(Debug, Default)]
pub struct Buffer {
    /// What was ever used; initialised.
    bytes: Vec<u8>,
    filled: usize,
}

impl Buffer {
    /// Room for `wanted` more bytes. What is written there counts after [`Self::advance`].
    pub fn room(&mut self, wanted: usize) -> &mut [u8] {
        let end = self.filled.saturating_add(wanted);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes.get_mut(self.filled..end).unwrap_or_default()
    }

    /// Counts `bytes` bytes that were written to the room, at most all of it.
    pub fn advance(&mut self, bytes: usize) {
        self.filled = self.filled.saturating_add(bytes).min(self.bytes.len());
    }

    /// Adds bytes.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.advance(bytes.len());
    }

    /// Forgets all but the first `bytes` bytes.
    pub fn truncate(&mut self, bytes: usize) {
        self.filled = self.filled.min(bytes);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// What it holds.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_was_counted_and_nothing_else() {
        let mut buffer = Buffer::default();
        buffer.extend_from_slice(b"abc");
        buffer.room(5)[..2].copy_from_slice(b"de");
        assert_eq!(buffer.as_slice(), b"abc");
        buffer.advance(2);
        assert_eq!(buffer.as_slice(), b"abcde");
        buffer.truncate(1);
        buffer.extend_from_slice(b"z");
        assert_eq!(buffer.as_slice(), b"az");
        buffer.advance(usize::MAX);
        assert_eq!(buffer.len(), 8, "no more than there was room for");
        buffer.clear();
        assert!(buffer.is_empty());
    }
}
