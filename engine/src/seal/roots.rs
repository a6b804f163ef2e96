//! The owner's roots, one for each epoch, and all that is derived from them (SPEC section 3).

use std::collections::BTreeMap;

use cairn_format::ids::RepositoryId;

use super::cipher::{open_small, seal_small};
use super::error::SealError;
use super::random::{self, Random};
use super::secret::{Secret32, kdf};

/// The first epoch, that of `init`.
pub const FIRST_EPOCH: u32 = 1;

/// The root of the epoch before, sealed under the root of an epoch (config field 23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrappedRoot {
    /// Nonce.
    pub nonce: [u8; 24],
    /// Ciphertext and tag.
    pub sealed: [u8; 48],
}

/// The roots an owner holds. A key slot has the newest one; the configs hand down the earlier.
#[derive(Clone, Debug)]
pub struct Roots {
    repository: RepositoryId,
    roots: BTreeMap<u32, Secret32>,
}

impl Roots {
    /// A new repository's first root.
    ///
    /// # Errors
    /// [`SealError::RngBroken`].
    pub fn generate(repository: RepositoryId, random: &dyn Random) -> Result<Self, SealError> {
        Ok(Self::new(repository, FIRST_EPOCH, random::secret(random)?))
    }

    /// The root of one epoch, as a key slot has it.
    #[must_use]
    pub fn new(repository: RepositoryId, epoch: u32, root: Secret32) -> Self {
        Self { repository, roots: BTreeMap::from([(epoch, root)]) }
    }

    /// The repository.
    #[must_use]
    pub const fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// The newest epoch whose root is held.
    #[must_use]
    pub fn newest(&self) -> u32 {
        self.roots.last_key_value().map_or(FIRST_EPOCH, |(epoch, _)| *epoch)
    }

    /// The oldest epoch whose root is held; ids and cuts need the first.
    #[must_use]
    pub fn oldest(&self) -> u32 {
        self.roots.first_key_value().map_or(FIRST_EPOCH, |(epoch, _)| *epoch)
    }

    /// True when every root back to the first is held, so that [`super::Keys`] can be made.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.oldest() == FIRST_EPOCH
    }

    pub(super) fn root(&self, epoch: u32) -> Result<&Secret32, SealError> {
        self.roots
            .get(&epoch)
            .ok_or_else(|| SealError::KeyNotHeld { what: "the root".to_owned(), epoch })
    }

    fn derive(&self, context: &'static str, epoch: u32) -> Result<Secret32, SealError> {
        Ok(kdf(context, &[self.root(epoch)?.expose(), self.repository.as_bytes()]))
    }

    /// `K_config(epoch)`: opens the configs, among them the one with the epoch's
    /// [`WrappedRoot`].
    ///
    /// # Errors
    /// [`SealError::KeyNotHeld`] without the epoch's root.
    pub fn config_key(&self, epoch: u32) -> Result<Secret32, SealError> {
        self.derive("cairn v1 config", epoch)
    }

    pub(super) fn index_key(&self, epoch: u32) -> Result<Secret32, SealError> {
        self.derive("cairn v1 index", epoch)
    }

    pub(super) fn chunk_id_key(&self) -> Result<Secret32, SealError> {
        self.derive("cairn v1 chunk id", FIRST_EPOCH)
    }

    pub(super) fn tree_id_key(&self) -> Result<Secret32, SealError> {
        self.derive("cairn v1 tree id", FIRST_EPOCH)
    }

    pub(super) fn chunker_key(&self) -> Result<Secret32, SealError> {
        self.derive("cairn v1 chunker", FIRST_EPOCH)
    }

    pub(super) fn signing_seed(&self) -> Result<Secret32, SealError> {
        self.derive("cairn v1 owner signing", FIRST_EPOCH)
    }

    /// The X25519 secret of a derived domain.
    ///
    /// # Errors
    /// [`SealError::KeyNotHeld`] without the epoch's root.
    pub fn domain_secret(&self, domain: u32, epoch: u32) -> Result<Secret32, SealError> {
        let root = self.root(epoch)?;
        Ok(kdf(
            "cairn v1 domain",
            &[root.expose(), self.repository.as_bytes(), &domain.to_le_bytes()],
        ))
    }

    fn previous_key(&self, epoch: u32) -> Result<Secret32, SealError> {
        self.derive("cairn v1 previous root", epoch)
    }

    /// Adds a fresh root of the next epoch and returns the one before, sealed for the new config.
    ///
    /// # Errors
    /// [`SealError::RngBroken`]; [`SealError::TooLong`] after 2^32 rotations.
    pub fn rotate(&mut self, random: &dyn Random) -> Result<WrappedRoot, SealError> {
        let previous = self.newest();
        let epoch = previous.checked_add(1).ok_or(SealError::TooLong { what: "the epoch" })?;
        self.roots.insert(epoch, random::secret(random)?);
        self.wrap_previous(epoch, random)
    }

    /// Seals the root of `epoch - 1` under that of `epoch`.
    ///
    /// # Errors
    /// [`SealError::KeyNotHeld`] when one of the two is not held; [`SealError::RngBroken`].
    pub fn wrap_previous(&self, epoch: u32, random: &dyn Random) -> Result<WrappedRoot, SealError> {
        let nonce = random::array(random)?;
        // Room for the tag, so that the plaintext is never moved while it stands here.
        let mut buf = Vec::with_capacity(48);
        buf.extend_from_slice(self.root(epoch.saturating_sub(1))?.expose());
        seal_small(&self.previous_key(epoch)?, &nonce, &epoch.to_le_bytes(), &mut buf)?;
        let sealed = buf.try_into().map_err(|_| SealError::TooLong { what: "a sealed root" })?;
        Ok(WrappedRoot { nonce, sealed })
    }

    /// Adds the root of the epoch before the oldest, from the config of the oldest.
    ///
    /// # Errors
    /// [`SealError::Damaged`] when it does not open.
    pub fn add_previous(&mut self, wrapped: &WrappedRoot) -> Result<(), SealError> {
        let damaged = SealError::Damaged { what: "the previous root in the config" };
        let epoch = self.oldest();
        if epoch <= FIRST_EPOCH {
            return Err(damaged);
        }
        let mut buf = zeroize::Zeroizing::new(wrapped.sealed);
        let key = self.previous_key(epoch)?;
        let root = open_small(&key, &wrapped.nonce, &epoch.to_le_bytes(), buf.as_mut_slice())
            .ok_or_else(|| damaged.clone())?;
        let root = <&[u8; 32]>::try_from(&*root).map_err(|_| damaged)?;
        self.roots.insert(epoch - 1, Secret32::copy_from(root));
        Ok(())
    }
}
