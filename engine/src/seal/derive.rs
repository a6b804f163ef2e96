//! The key ring: what each role holds, and what it can do with it (SPEC section 3).

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_format::certificate::Role;
use cairn_format::envelope::Kind;
use cairn_format::ids::{ChunkId, RepositoryId};
use cairn_format::record::Domain;
use parking_lot::Mutex;
use zeroize::{Zeroize, Zeroizing};

use super::envelope::{DomainKey, KeySource};
use super::error::SealError;
use super::payload::{DomainSecrets, EpochKeys, RoleKeys, SharedKeys, SlotPayload, SymmetricKeys};
use super::random::Random;
use super::recipient::public_key;
use super::roots::{FIRST_EPOCH, Roots};
use super::secret::{Secret32, kdf};
use super::sign::{Signer, Trust, writer_id};

/// Entries of the chunker's gear table.
pub const GEAR_ENTRIES: usize = 256;

/// Length of [`Keys::memo_check`], bytes.
pub const MEMO_CHECK_BYTES: usize = 16;

/// The keys of one repository, as far as the role holds them.
#[derive(Clone, Debug)]
pub struct Keys {
    role: Role,
    repository: RepositoryId,
    epoch: u32,
    chunk_id: Secret32,
    tree_id: Secret32,
    chunker: Option<Secret32>,
    epochs: EpochKeys,
    /// Secrets of derived domains as a slot brings them; the owner derives them instead.
    domains: DomainSecrets,
    /// Secrets that are kept outside of the repository, and so never enter a slot.
    external: DomainSecrets,
    /// The domains that the config names, once it is known.
    named: Option<BTreeMap<(u32, u32), [u8; 32]>>,
    /// Keys of domains that were asked for and found to be those the config names.
    checked: Arc<Mutex<BTreeMap<(u32, u32), DomainKey>>>,
    owner: [u8; 32],
    roots: Option<Roots>,
    signer: Option<Signer>,
}

/// What the owner hands to a new key slot.
#[derive(Clone, Debug)]
pub struct Grant<'a> {
    /// The role.
    pub role: Role,
    /// Domains with their epochs that a reader or maintainer may read.
    pub domains: &'a [(u32, u32)],
    /// Name in the certificate of a writer or maintainer.
    pub name: &'a str,
    /// Time of the certificate, milliseconds since 1970.
    pub issued_ms: i64,
}

impl Keys {
    /// The owner's keys.
    ///
    /// # Errors
    /// [`SealError::KeyNotHeld`] unless the roots reach back to the first epoch.
    pub fn from_roots(roots: Roots) -> Result<Self, SealError> {
        let repository = roots.repository();
        let mut epochs = EpochKeys::new();
        for epoch in FIRST_EPOCH..=roots.newest() {
            let keys =
                SymmetricKeys { index: roots.index_key(epoch)?, config: roots.config_key(epoch)? };
            epochs.insert(epoch, keys);
        }
        let signer = Signer::owner(&roots.signing_seed()?, repository);
        Ok(Self {
            role: Role::Owner,
            repository,
            epoch: roots.newest(),
            chunk_id: roots.chunk_id_key()?,
            tree_id: roots.tree_id_key()?,
            chunker: Some(roots.chunker_key()?),
            epochs,
            domains: DomainSecrets::new(),
            external: DomainSecrets::new(),
            named: None,
            checked: Arc::default(),
            owner: *signer.public_key(),
            signer: Some(signer),
            roots: Some(roots),
        })
    }

    /// The keys of an opened slot. An owner's slot of a later epoch needs the roots before it:
    /// see [`SlotPayload::into_roots`].
    ///
    /// # Errors
    /// [`SealError::KeyNotHeld`] for an owner's slot of a later epoch; [`SealError::Format`] when
    /// seed and certificate do not fit; [`SealError::Signature`] when the slot's owner did not
    /// sign its certificate.
    pub fn from_payload(
        repository: RepositoryId,
        payload: &SlotPayload,
    ) -> Result<Self, SealError> {
        let (shared, chunker, domains, signer) = match &payload.keys {
            RoleKeys::Owner { root } => {
                return Self::from_roots(Roots::new(repository, payload.epoch, root.clone()));
            }
            RoleKeys::Writer { shared, chunker, signer } => {
                (shared, Some(chunker.clone()), DomainSecrets::new(), Some(signer))
            }
            RoleKeys::Reader { shared, domains } => (shared, None, domains.clone(), None),
            RoleKeys::Maintainer { shared, domains, signer } => {
                (shared, None, domains.clone(), Some(signer))
            }
        };
        let signer = signer.map(Signer::from_slot).transpose()?;
        if let Some(signer) = &signer {
            let trust = Trust::new(repository, shared.owner);
            trust.verify_certificate(&signer.certificate().encode())?;
        }
        Ok(Self {
            role: payload.role(),
            repository,
            epoch: payload.epoch,
            chunk_id: shared.chunk_id.clone(),
            tree_id: shared.tree_id.clone(),
            chunker,
            epochs: shared.epochs.clone(),
            domains,
            external: DomainSecrets::new(),
            named: None,
            checked: Arc::default(),
            owner: shared.owner,
            roots: None,
            signer,
        })
    }

    /// The role.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The repository.
    #[must_use]
    pub const fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// The epoch that new objects are sealed in.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// True for roles that can open chunks and snapshots.
    #[must_use]
    pub const fn can_read(&self) -> bool {
        matches!(self.role, Role::Owner | Role::Reader | Role::Maintainer)
    }

    /// True for roles that can back up.
    #[must_use]
    pub const fn can_write(&self) -> bool {
        matches!(self.role, Role::Owner | Role::Writer)
    }

    /// True for roles that can collect garbage: they can read, and sign tombs.
    #[must_use]
    pub const fn can_collect(&self) -> bool {
        matches!(self.role, Role::Owner | Role::Maintainer)
    }

    /// Refuses early what [`Self::can_read`] denies.
    ///
    /// # Errors
    /// [`SealError::KeyRoleInsufficient`].
    pub fn require_read(&self) -> Result<(), SealError> {
        self.require(self.can_read(), "reader, maintainer, owner")
    }

    /// Refuses early what [`Self::can_write`] denies.
    ///
    /// # Errors
    /// [`SealError::KeyRoleInsufficient`].
    pub fn require_write(&self) -> Result<(), SealError> {
        self.require(self.can_write(), "writer, owner")
    }

    /// Refuses early what [`Self::can_collect`] denies.
    ///
    /// # Errors
    /// [`SealError::KeyRoleInsufficient`].
    pub fn require_collect(&self) -> Result<(), SealError> {
        self.require(self.can_collect(), "maintainer, owner")
    }

    const fn require(&self, can: bool, needs: &'static str) -> Result<(), SealError> {
        if can { Ok(()) } else { Err(SealError::KeyRoleInsufficient { needs, has: self.role }) }
    }

    /// The id of a data chunk.
    #[must_use]
    pub fn chunk_id(&self, plaintext: &[u8]) -> ChunkId {
        ChunkId::from_bytes(blake3::keyed_hash(self.chunk_id.expose(), plaintext).into())
    }

    /// The id of a tree node.
    #[must_use]
    pub fn tree_id(&self, plaintext: &[u8]) -> ChunkId {
        ChunkId::from_bytes(blake3::keyed_hash(self.tree_id.expose(), plaintext).into())
    }

    /// Checksum of what a collection remembers on this host; each part counts with its length.
    #[must_use]
    pub fn memo_check(&self, parts: [&[u8]; 3]) -> [u8; MEMO_CHECK_BYTES] {
        let context = "cairn v1 local memo";
        let key = kdf(context, &[self.tree_id.expose(), self.repository.as_bytes()]);
        let mut hasher = blake3::Hasher::new_keyed(key.expose());
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let hash = hasher.finalize();
        hasher.zeroize();
        hash.as_bytes().first_chunk().copied().unwrap_or_default()
    }

    fn chunker_key(&self) -> Result<&Secret32, SealError> {
        self.chunker
            .as_ref()
            .ok_or(SealError::KeyRoleInsufficient { needs: "writer, owner", has: self.role })
    }

    /// The gear table of the content-defined chunker (SPEC section 8.8).
    ///
    /// # Errors
    /// [`SealError::KeyRoleInsufficient`] for roles that do not cut.
    pub fn gear_table(&self) -> Result<Zeroizing<[u64; GEAR_ENTRIES]>, SealError> {
        let key = self
            .chunker
            .as_ref()
            .ok_or(SealError::KeyRoleInsufficient { needs: "writer, owner", has: self.role })?;
        let mut hasher = blake3::Hasher::new_keyed(key.expose());
        hasher.update(b"cairn v1 gear");
        let mut output = hasher.finalize_xof();
        let mut table = Zeroizing::new([0; GEAR_ENTRIES]);
        for entry in table.iter_mut() {
            let mut bytes = [0; 8];
            output.fill(&mut bytes);
            *entry = u64::from_le_bytes(bytes);
        }
        output.zeroize();
        hasher.zeroize();
        Ok(table)
    }

    /// The signing key; readers have none.
    ///
    /// # Errors
    /// [`SealError::KeyRoleInsufficient`] for a reader.
    pub fn signer(&self) -> Result<&Signer, SealError> {
        self.signer.as_ref().ok_or(SealError::KeyRoleInsufficient {
            needs: "writer, maintainer, owner",
            has: self.role,
        })
    }

    /// The owner's Ed25519 public key: derived by an owner, from the key slot for everyone else.
    #[must_use]
    pub const fn owner_key(&self) -> &[u8; 32] {
        &self.owner
    }

    /// Checks the owner's key that a config states against the one these keys came with.
    ///
    /// # Errors
    /// [`SealError::OtherOwner`] when the config's owner is another.
    pub fn check_owner(&self, owner: &[u8; 32]) -> Result<(), SealError> {
        if *owner == self.owner {
            Ok(())
        } else {
            Err(SealError::OtherOwner { expected: writer_id(&self.owner), found: writer_id(owner) })
        }
    }

    /// From now on only secrets of these domains are given out, and only while they fit the
    /// public keys stated: an object sealed to anything else does not belong to the repository.
    pub fn restrict_to_domains(&mut self, domains: &[Domain]) {
        let named = domains.iter().map(|domain| ((domain.id, domain.epoch), domain.public_key));
        self.named = Some(named.collect());
        self.checked = Arc::default();
    }

    /// Adds the secret of an external domain. It never enters a key slot.
    pub fn add_domain_secret(&mut self, domain: u32, epoch: u32, secret: Secret32) {
        self.external.insert((domain, epoch), secret);
        self.checked = Arc::default();
    }

    /// The public key that a derived domain of this epoch has; for the config. Only the owner
    /// can derive it.
    ///
    /// # Errors
    /// [`SealError::KeyRoleInsufficient`] for another role; [`SealError::KeyNotHeld`] for an epoch
    /// that does not exist.
    pub fn domain_public(&self, domain: u32, epoch: u32) -> Result<[u8; 32], SealError> {
        self.roots()?.domain_secret(domain, epoch).map(|secret| public_key(&secret))
    }

    /// The roots, of an owner.
    ///
    /// # Errors
    /// [`SealError::KeyRoleInsufficient`] for anyone else.
    pub fn roots(&self) -> Result<&Roots, SealError> {
        self.roots.as_ref().ok_or(SealError::KeyRoleInsufficient { needs: "owner", has: self.role })
    }

    fn shared(&self) -> SharedKeys {
        SharedKeys {
            chunk_id: self.chunk_id.clone(),
            tree_id: self.tree_id.clone(),
            epochs: self.epochs.clone(),
            owner: self.owner,
        }
    }

    /// What a new slot with these same keys must hold: for another passphrase or method.
    ///
    /// # Errors
    /// None for keys that were made by this module.
    pub fn own_payload(&self) -> Result<SlotPayload, SealError> {
        let keys = match self.role {
            Role::Owner => RoleKeys::Owner { root: self.roots()?.root(self.epoch)?.clone() },
            Role::Writer => RoleKeys::Writer {
                shared: self.shared(),
                chunker: self.chunker_key()?.clone(),
                signer: self.signer()?.to_slot(),
            },
            Role::Reader => {
                RoleKeys::Reader { shared: self.shared(), domains: self.domains.clone() }
            }
            Role::Maintainer => RoleKeys::Maintainer {
                shared: self.shared(),
                domains: self.domains.clone(),
                signer: self.signer()?.to_slot(),
            },
        };
        Ok(SlotPayload { epoch: self.epoch, keys })
    }

    /// What a new slot of some role must hold; only the owner can make it. Writers and
    /// maintainers get a signing key of their own.
    ///
    /// # Errors
    /// [`SealError::KeyRoleInsufficient`] unless these are the owner's keys;
    /// [`SealError::KeyNotHeld`] for a domain without secret; [`SealError::Unusable`] for an
    /// external domain, whose secret must stay outside; [`SealError::RngBroken`].
    pub fn grant(&self, grant: &Grant<'_>, random: &dyn Random) -> Result<SlotPayload, SealError> {
        let roots = self.roots()?;
        let issue = || {
            self.signer()?.issue(self.repository, grant.role, grant.issued_ms, grant.name, random)
        };
        let domains = || -> Result<DomainSecrets, SealError> {
            let secrets = grant.domains.iter().map(|place| {
                if self.external.contains_key(place) {
                    let why = "its secret is kept outside of the repository";
                    return Err(SealError::Unusable { what: "domain", why });
                }
                Ok((*place, roots.domain_secret(place.0, place.1)?))
            });
            secrets.collect()
        };
        let keys = match grant.role {
            Role::Owner => RoleKeys::Owner { root: roots.root(self.epoch)?.clone() },
            Role::Writer => RoleKeys::Writer {
                shared: self.shared(),
                chunker: roots.chunker_key()?,
                signer: issue()?,
            },
            Role::Reader => RoleKeys::Reader { shared: self.shared(), domains: domains()? },
            Role::Maintainer => RoleKeys::Maintainer {
                shared: self.shared(),
                domains: domains()?,
                signer: issue()?,
            },
        };
        Ok(SlotPayload { epoch: self.epoch, keys })
    }
}

impl KeySource for Keys {
    fn repository(&self) -> RepositoryId {
        self.repository
    }

    fn domain_secret(&self, domain: u32, epoch: u32) -> Result<Secret32, SealError> {
        self.domain_key(domain, epoch).map(|key| key.secret)
    }

    fn domain_key(&self, domain: u32, epoch: u32) -> Result<DomainKey, SealError> {
        let place = (domain, epoch);
        if let Some(key) = self.checked.lock().get(&place) {
            return Ok(key.clone());
        }
        let not_held = || SealError::KeyNotHeld { what: format!("domain {domain}"), epoch };
        let secret = match self.external.get(&place).or_else(|| self.domains.get(&place)) {
            Some(secret) => secret.clone(),
            None => {
                self.require_read()?;
                self.roots.as_ref().ok_or_else(not_held)?.domain_secret(domain, epoch)?
            }
        };
        let key = DomainKey { public: public_key(&secret), secret };
        match &self.named {
            Some(named) if named.get(&place) != Some(&key.public) => return Err(not_held()),
            Some(_) => self.checked.lock().insert(place, key.clone()),
            None => None,
        };
        Ok(key)
    }

    fn symmetric_key(&self, kind: Kind, epoch: u32) -> Result<Secret32, SealError> {
        let keys = self.epochs.get(&epoch);
        keys.map(|keys| if kind == Kind::Config { &keys.config } else { &keys.index })
            .cloned()
            .ok_or_else(|| SealError::KeyNotHeld { what: format!("the {}", kind.name()), epoch })
    }
}

impl SlotPayload {
    /// The root in an owner's slot, to be completed from the configs
    /// ([`Roots::add_previous`]) and made into [`Keys::from_roots`].
    ///
    /// # Errors
    /// [`SealError::KeyRoleInsufficient`] for another role's slot.
    pub fn into_roots(self, repository: RepositoryId) -> Result<Roots, SealError> {
        let role = self.role();
        match self.keys {
            RoleKeys::Owner { root } => Ok(Roots::new(repository, self.epoch, root)),
            RoleKeys::Writer { .. } | RoleKeys::Reader { .. } | RoleKeys::Maintainer { .. } => {
                Err(SealError::KeyRoleInsufficient { needs: "owner", has: role })
            }
        }
    }
}
