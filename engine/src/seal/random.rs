//! Where all random bytes of the engine come from.

use core::fmt;

use parking_lot::Mutex;

use super::error::SealError;
use super::secret::Secret32;

/// A source of random bytes, shared by threads.
pub trait Random: Send + Sync {
    /// Fills `bytes`, all of it or not at all as far as the caller may rely on it.
    ///
    /// # Errors
    /// [`SealError::RngBroken`]; then nothing may be sealed.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), SealError>;
}

/// `N` random bytes that are not secret (nonces, ids, salts).
///
/// # Errors
/// [`SealError::RngBroken`].
pub fn array<const N: usize>(random: &dyn Random) -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    random.fill(&mut bytes)?;
    Ok(bytes)
}

/// A fresh secret.
///
/// # Errors
/// [`SealError::RngBroken`].
pub fn secret(random: &dyn Random) -> Result<Secret32, SealError> {
    let mut secret = Secret32::zeroed();
    random.fill(secret.expose_mut())?;
    Ok(secret)
}

/// Refuses a source that is stuck: two draws must differ and neither may be all zeros. It finds
/// a dead source, not a weak one.
///
/// # Errors
/// [`SealError::RngBroken`].
pub fn self_test(random: &dyn Random) -> Result<(), SealError> {
    let first = secret(random)?;
    let second = secret(random)?;
    let zeros = Secret32::zeroed();
    if first == zeros || second == zeros {
        return Err(SealError::RngBroken { fact: "it returned zeros".to_owned() });
    }
    if first == second {
        return Err(SealError::RngBroken { fact: "it returned the same bytes twice".to_owned() });
    }
    Ok(())
}

/// The operating system's generator.
#[derive(Clone, Copy, Debug)]
pub struct OsRandom(());

impl OsRandom {
    /// The generator, after [`self_test`].
    ///
    /// # Errors
    /// [`SealError::RngBroken`] when it is stuck or cannot be reached.
    pub fn new() -> Result<Self, SealError> {
        let random = Self(());
        self_test(&random)?;
        Ok(random)
    }
}

impl Random for OsRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), SealError> {
        getrandom::fill(bytes).map_err(|error| SealError::RngBroken { fact: error.to_string() })
    }
}

/// Bytes that follow from a seed: for tests and simulations, which must be repeatable. Keys made
/// with it protect nothing.
pub struct SeededRandom(Mutex<blake3::OutputReader>);

impl SeededRandom {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("cairn v1 seeded random, not secret");
        hasher.update(&seed.to_le_bytes());
        Self(Mutex::new(hasher.finalize_xof()))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), SealError> {
        self.0.lock().fill(bytes);
        Ok(())
    }
}

impl fmt::Debug for SeededRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeededRandom")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Explain;

    struct Stuck(u8);

    impl Random for Stuck {
        fn fill(&self, bytes: &mut [u8]) -> Result<(), SealError> {
            bytes.fill(self.0);
            Ok(())
        }
    }

    #[test]
    fn a_stuck_generator_is_refused() {
        for byte in [0, 7, 255] {
            let error = self_test(&Stuck(byte)).unwrap_err();
            assert_eq!(error.code(), "seal.rng_broken");
        }
    }

    #[test]
    fn the_systems_generator_passes() {
        let random = OsRandom::new().unwrap();
        assert_ne!(array::<32>(&random).unwrap(), array::<32>(&random).unwrap());
    }

    #[test]
    fn seeded_sequences_repeat_and_differ_by_seed() {
        let draw = |seed| {
            let random = SeededRandom::new(seed);
            [array::<16>(&random).unwrap(), array::<16>(&random).unwrap()]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(draw(1)[0], draw(1)[1]);
    }
}
