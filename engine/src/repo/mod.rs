//! Repositories: making them, opening them, their keys.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use cairn_format::envelope::{Cipher, Kind};
use cairn_format::format_object::{FORMAT_BYTES, FormatObject};
use cairn_format::ids::{ObjectHash, ReplicaId, RepositoryId, SlotId};
use cairn_format::limits::RECORD_BYTES_MAX;
use cairn_format::names::{Folder, ObjectName};
use cairn_format::record::{ChunkerSettings, Config, Domain, DomainOrigin, Parity};

use crate::chunk::{ALIGNED_BYTES_DEFAULT, CHUNKER_DEFAULT};
use crate::context::{Context, Remark};
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::seal::{Keys, Opened, Roots, Trust, Unlock, random};
use crate::store::away::Away;
use crate::store::together::Ahead;
use crate::store::{Store, StoreError};

pub mod chunks;
pub mod identity;
pub mod intent;
pub mod keys;
pub mod places;
pub mod receipts;
pub mod sweep;
pub mod vault;

use chunks::Rescued;

pub use chunks::Fallback;
pub use keys::NewKey;
pub use vault::Vault;

/// Length at which packs are closed unless `init` is told otherwise, bytes.
pub const PACK_BYTES_DEFAULT: u32 = 32 << 20;

/// How a repository is made.
#[derive(Debug)]
pub struct InitOptions {
    /// Cipher of all objects.
    pub cipher: Cipher,
    /// The first key; its role must be owner.
    pub key: NewKey,
    /// Length at which packs are closed, bytes.
    pub pack_bytes: u32,
    /// Where content is cut.
    pub chunker: ChunkerSettings,
    /// Chunk of page files and devices, bytes.
    pub aligned_bytes: u32,
    /// Parity inside packs: for a repository that is the only copy.
    pub parity: Option<Parity>,
}

impl InitOptions {
    /// The usual settings with this first key.
    #[must_use]
    pub fn new(key: NewKey) -> Self {
        Self {
            cipher: Cipher::Aes256Gcm,
            key,
            pack_bytes: PACK_BYTES_DEFAULT,
            chunker: CHUNKER_DEFAULT,
            aligned_bytes: ALIGNED_BYTES_DEFAULT,
            parity: None,
        }
    }
}

/// What `init` made.
#[derive(Clone, Copy, Debug)]
pub struct InitReport {
    /// The repository.
    pub repository: RepositoryId,
    /// The first key slot.
    pub slot: SlotId,
}

fn format_hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// Refuses a store that holds a repository.
///
/// # Errors
/// [`Error::RepositoryExists`]; failures of the store.
pub fn refuse_existing(store: &dyn Store) -> Result<(), Error> {
    match store.size(&ObjectName::Format) {
        Ok(_) => Err(Error::RepositoryExists { location: store.location() }),
        Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes a repository in an empty store. `format` is put last: until then there is no repository.
///
/// # Errors
/// [`Error::RepositoryExists`]; [`Error::Usage`] for settings out of range; failures of the store.
pub fn init(
    store: &dyn Store,
    options: &InitOptions,
    context: &Context,
) -> Result<InitReport, Error> {
    if options.key.role != crate::seal::Role::Owner {
        let message = "the first key must be an owner's".to_owned();
        return Err(Error::Usage { message, hint: None });
    }
    refuse_existing(store)?;
    let random = context.random.as_ref();
    let repository = RepositoryId::from_bytes(random::array(random)?);
    let created_ms = context.clock.now_ms();
    let format =
        FormatObject { required_features: 0, optional_features: 0, repository, created_ms }
            .encode(format_hash);
    let keys = Keys::from_roots(Roots::generate(repository, random)?)?;
    let epoch = keys.epoch();
    let config = Config {
        repository,
        format_hash: format_hash(&format),
        generation: 1,
        cipher: options.cipher as u8,
        owner_key: *keys.signer()?.public_key(),
        domains: vec![Domain {
            id: 0,
            epoch,
            public_key: keys.domain_public(0, epoch)?,
            origin: DomainOrigin::Derived,
            name: "default".to_owned(),
        }],
        pack_bytes: options.pack_bytes,
        chunker: options.chunker,
        aligned_bytes: options.aligned_bytes,
        parity: options.parity,
        previous: None,
        revoked: Vec::new(),
        previous_root: None,
    };
    // Settings are checked by the reader's own rules before anything is written.
    Config::decode(&config.encode()).map_err(|error| Error::Usage {
        message: format!("these settings cannot be used: {error}"),
        hint: Some("SPEC section 2 lists the limits of sizes".to_owned()),
    })?;
    let slot = keys::seal_slot(repository, &keys, &options.key, context)?;
    let trust = Trust::new(repository, config.owner_key);
    let cipher = options.cipher;
    let config_record = config.encode();
    let sealed = {
        let key = crate::seal::envelope::KeySource::symmetric_key(&keys, Kind::Config, epoch)?;
        let to = crate::seal::envelope::SealTo::Symmetric { epoch, key: &key };
        let envelope = crate::seal::Envelope::create(Kind::Config, cipher, repository, to, random)?;
        let content = keys.signer()?.sign_body(envelope.header(), &config_record)?;
        trust.verify_body(envelope.header(), &content)?;
        envelope.seal_body(&content)?
    };
    let name = ObjectName::Config(ObjectHash::from_bytes(*blake3::hash(&sealed).as_bytes()));
    let slot_id = crate::seal::slot::slot_id(&slot);
    store.put(&name, &sealed)?;
    store.put(&ObjectName::Key(slot_id), &slot)?;
    identity::ensure(store, repository, context)?;
    match store.put(&ObjectName::Format, &format) {
        Ok(_) => Ok(InitReport { repository, slot: slot_id }),
        Err(StoreError::Exists { .. }) => {
            Err(Error::RepositoryExists { location: store.location() })
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads and checks the `format` object.
///
/// # Errors
/// [`Error::NoRepository`]; damage; a newer version.
pub fn read_format(store: &dyn Store) -> Result<(FormatObject, [u8; 32]), Error> {
    read_format_bytes(store).map(|(format, bytes)| (format, format_hash(&bytes)))
}

/// As [`read_format`], with the bytes it was read from, which were checked.
///
/// # Errors
/// As [`read_format`].
pub(crate) fn read_format_bytes(store: &dyn Store) -> Result<(FormatObject, Bytes), Error> {
    let bytes = match store.get(&ObjectName::Format, FORMAT_BYTES as u64) {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound { .. }) => {
            return Err(Error::NoRepository { location: store.location() });
        }
        Err(error) => return Err(error.into()),
    };
    let format =
        FormatObject::parse(&bytes, format_hash).map_err(Error::format(ObjectName::Format))?;
    Ok((format, bytes))
}

/// An opened repository.
pub struct Repository {
    vault: Vault,
    catalog: OnceLock<Catalog>,
    /// Held while the catalog is opened, so that this happens once.
    opening: parking_lot::Mutex<()>,
    /// Other copies, for what this one cannot give.
    fallbacks: Vec<Fallback>,
    /// Whether this one answers, and whether it was said that it does not, where there are others.
    away: Away,
    said_away: AtomicBool,
    /// The identities that this copy was given, once they were read.
    replicas: OnceLock<Vec<ReplicaId>>,
    /// What parity gave of damaged packs.
    rescued: parking_lot::Mutex<Rescued>,
}

impl Repository {
    /// Opens a repository with whatever key slot the secret fits.
    ///
    /// # Errors
    /// [`Error::NoRepository`], [`Error::WrongKey`], [`Error::NoKeySlots`], [`Error::NoConfig`];
    /// damage; failures of the store.
    pub fn open(store: Arc<dyn Store>, unlock: &Unlock, context: &Context) -> Result<Self, Error> {
        let (format, hash) = read_format(store.as_ref())?;
        let ahead = Ahead::of(store.as_ref(), &[Folder::Keys, Folder::Config, Folder::Replica]);
        let payload = keys::unlock(&ahead, format.repository, unlock, context)?;
        let mut keys = Keys::from_payload(format.repository, &payload)?;
        let (config, trust) = read_config(&ahead, &keys, hash, context)?;
        keys.restrict_to_domains(&config.domains);
        let cipher = Cipher::try_from(config.cipher).map_err(Error::format("config"))?;
        let replicas = replicas_ahead(&ahead, format.repository);
        let vault = Vault { store, keys, trust, config, cipher, context: context.clone() };
        Ok(Self::with(vault, replicas))
    }

    /// Opens another copy of this repository with the keys at hand; its format and settings are read
    /// and checked there.
    ///
    /// # Errors
    /// [`Error::NoRepository`]; [`Error::OtherRepository`]; as [`Self::open`].
    pub fn open_copy(&self, store: Arc<dyn Store>, context: &Context) -> Result<Self, Error> {
        let (format, hash) = read_format(store.as_ref())?;
        if format.repository != self.vault.id() || hash != self.vault.config.format_hash {
            return Err(Error::OtherRepository {
                location: store.location(),
                found: format.repository,
                expected: self.vault.id(),
            });
        }
        let ahead = Ahead::of(store.as_ref(), &[Folder::Config, Folder::Replica]);
        let (config, trust) = read_config(&ahead, &self.vault.keys, hash, context)?;
        let mut keys = self.vault.keys.clone();
        keys.restrict_to_domains(&config.domains);
        let cipher = Cipher::try_from(config.cipher).map_err(Error::format("config"))?;
        let replicas = replicas_ahead(&ahead, format.repository);
        let vault = Vault { store, keys, trust, config, cipher, context: context.clone() };
        Ok(Self::with(vault, replicas))
    }

    fn with(vault: Vault, replicas: OnceLock<Vec<ReplicaId>>) -> Self {
        Self {
            away: Away::new(Arc::clone(&vault.context.clock)),
            said_away: AtomicBool::new(false),
            vault,
            catalog: OnceLock::new(),
            opening: parking_lot::Mutex::default(),
            fallbacks: Vec::new(),
            replicas,
            rescued: parking_lot::Mutex::new(Rescued::new()),
        }
    }

    /// The identities that this copy was given, the one that counts first; read once.
    ///
    /// # Errors
    /// Failures of the store.
    pub fn replicas(&self) -> Result<&[ReplicaId], Error> {
        if let Some(replicas) = self.replicas.get() {
            return Ok(replicas);
        }
        let found = identity::list(self.vault.store(), self.vault.id())?;
        Ok(self.replicas.get_or_init(|| found))
    }

    /// Reads from another copy, opened by [`Self::open_copy`], what this one turns out not to have, to
    /// have damaged, or not to give. It is opened for good when it is first needed.
    pub fn add_fallback(&mut self, copy: Self) {
        self.fallbacks.push(Fallback::new(copy));
    }

    /// Whether the store answers; nothing where nobody else could be asked.
    pub(crate) fn away(&self) -> Option<&Away> {
        (!self.fallbacks.is_empty()).then_some(&self.away)
    }

    /// Says once that the store does not answer, and that others are read instead.
    pub(crate) fn say_away(&self, error: &Error) {
        if !self.said_away.swap(true, Ordering::Relaxed) {
            let remark = Remark::of(self.store().location(), error);
            let message =
                format!("{}; what it does not give is read from other copies", remark.message);
            self.monitor().warn(Remark { message, ..remark });
        }
    }

    /// The other copies that stand in for this one.
    #[must_use]
    pub fn fallbacks(&self) -> &[Fallback] {
        &self.fallbacks
    }

    /// The store, keys and settings.
    #[must_use]
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The index, opened and brought up to date at first use.
    ///
    /// # Errors
    /// Failures of the store or the cache.
    pub fn catalog(&self) -> Result<&Catalog, Error> {
        if let Some(catalog) = self.catalog.get() {
            return Ok(catalog);
        }
        let _opening = self.opening.lock();
        if self.catalog.get().is_none() {
            let replica = self.replicas()?.first().copied();
            let catalog = Catalog::open(&self.vault, replica)?;
            let _ = self.catalog.set(catalog);
        }
        self.catalog.get().ok_or(Error::Internal { part: "opening the index" })
    }

    /// The index, if it is open.
    #[must_use]
    pub fn open_catalog(&self) -> Option<&Catalog> {
        self.catalog.get()
    }

    /// The index, brought up to date with the store now.
    ///
    /// # Errors
    /// As [`Self::catalog`].
    pub fn current_catalog(&self) -> Result<&Catalog, Error> {
        self.refresh_catalog()?;
        self.catalog()
    }

    /// Brings the index up to date with the store, if it is open.
    ///
    /// # Errors
    /// As [`Self::catalog`].
    pub fn refresh_catalog(&self) -> Result<(), Error> {
        self.catalog.get().map_or(Ok(()), |catalog| catalog.sync(&self.vault))
    }
}

impl std::ops::Deref for Repository {
    type Target = Vault;

    fn deref(&self) -> &Vault {
        &self.vault
    }
}

impl Vault {
    /// The store.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }
}

/// The identities of a copy, if they were read ahead.
fn replicas_ahead(ahead: &Ahead<'_>, repository: RepositoryId) -> OnceLock<Vec<ReplicaId>> {
    let found = OnceLock::new();
    if ahead.has_listed(Folder::Replica)
        && let Ok(replicas) = identity::list(ahead, repository)
        // One that has none may be given one soon.
        && !replicas.is_empty()
    {
        let _ = found.set(replicas);
    }
    found
}

/// The valid config of the highest generation. Invalid ones are warned about: an attacker may add
/// some, but cannot sign them.
fn read_config(
    store: &dyn Store,
    keys: &Keys,
    hash: [u8; 32],
    context: &Context,
) -> Result<(Config, Trust), Error> {
    let mut names = Vec::new();
    store.list(Folder::Config, &mut |name, _| {
        names.push(name);
        Ok(())
    })?;
    names.sort();
    names.dedup();
    let mut best: Option<(Config, Trust)> = None;
    let mut newer = None;
    // Ascending by hash, so that of equal generations the greater hash wins.
    for name in names {
        match open_config(store, keys, &name, hash) {
            Ok((config, trust)) => {
                if best.as_ref().is_none_or(|(known, _)| known.generation <= config.generation) {
                    best = Some((config, trust));
                }
            }
            Err(error @ Error::Format { .. }) if !error.is_damage() => newer = Some(error),
            // Whoever can put objects can put junk here: it must not lock anyone out.
            Err(error @ Error::Internal { .. }) => return Err(error),
            Err(Error::Store(error)) if !is_unusable(&error) => return Err(error.into()),
            Err(error) => {
                context.monitor.warn(Remark::of(name, &error));
            }
        }
    }
    match (newer, best) {
        // A config that only a newer cairn understands may not be passed over.
        (Some(error), _) => Err(error),
        (None, Some(found)) => Ok(found),
        (None, None) => Err(Error::NoConfig { location: store.location() }),
    }
}

/// Whether an object is there and is none, whatever it says.
fn is_unusable(error: &StoreError) -> bool {
    matches!(error, StoreError::Unreadable { .. } | StoreError::TooLarge { .. })
}

fn open_config(
    store: &dyn Store,
    keys: &Keys,
    name: &ObjectName,
    hash: [u8; 32],
) -> Result<(Config, Trust), Error> {
    let object = vault::read_object(store, name, RECORD_BYTES_MAX)?;
    let (header, content) = Opened::open_body(&object, keys).map_err(Error::sealed(name))?;
    // The signature first, with the owner's key this process holds: every role can seal a config, and
    // one that was not signed must not even be decoded.
    let mut trust = Trust::new(keys.repository(), *keys.owner_key());
    let (_, record) = trust.verify_body(&header, &content).map_err(Error::sealed(name))?;
    let config = Config::decode(record).map_err(Error::format(name))?;
    keys.check_owner(&config.owner_key).map_err(Error::sealed(name))?;
    trust.revoked.clone_from(&config.revoked);
    let belongs = config.repository == keys.repository() && config.format_hash == hash;
    if header.kind == Kind::Config && belongs {
        Ok((config, trust))
    } else {
        Err(Error::Hash { object: name.to_string() })
    }
}
