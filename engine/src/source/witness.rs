//! Remembers what was read of a file, so that a second reading can say whether it held still where
//! its times cannot.

/// A hash of content as it was read: its bytes and its holes.
#[derive(Debug, Default)]
pub struct Witness {
    bytes: u64,
    data: blake3::Hasher,
    holes: blake3::Hasher,
}

impl Witness {
    /// Takes in bytes that follow those before.
    pub fn data(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        self.data.update(data);
    }

    /// Takes in a hole that follows what was before.
    pub fn hole(&mut self, bytes: u64) {
        self.holes.update(&self.bytes.to_le_bytes());
        self.holes.update(&bytes.to_le_bytes());
        self.bytes += bytes;
    }

    /// Whether both saw the same.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        self.bytes == other.bytes
            && self.data.finalize() == other.data.finalize()
            && self.holes.finalize() == other.holes.finalize()
    }
}
