//! One opened repository without its index: the store, the keys, and sealed objects in and out.

use std::sync::Arc;

use bytes::Bytes;
use cairn_format::envelope::{Cipher, Content, Kind};
use cairn_format::ids::{RepositoryId, WriterId};
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::record::{Config, Domain};
use cairn_format::segment::NAMESPACE_TRUSTED;

use crate::context::{Context, Monitor, Remark};
use crate::error::Error;
use crate::pack::builder::PackBuilder;
use crate::seal::envelope::{KeySource as _, SealTo};
use crate::seal::{Envelope, Keys, Opened, Role, SealError, Trust, VerifiedWriter};
use crate::store::Store;

/// What every operation needs of a repository.
pub struct Vault {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The keys this process holds.
    pub keys: Keys,
    /// Whose signatures count.
    pub trust: Trust,
    /// The settings in force.
    pub config: Config,
    /// Cipher for new objects.
    pub cipher: Cipher,
    /// Surroundings.
    pub context: Context,
}

/// A record whose seal and signature hold.
#[derive(Debug)]
pub struct Signed {
    /// The record's bytes.
    pub record: Vec<u8>,
    /// Who signed.
    pub writer: VerifiedWriter,
    /// The certificate of whoever signed, as it stands in the object.
    pub certificate: Vec<u8>,
}

/// Reads an object and checks that its bytes are those its name stands for.
///
/// # Errors
/// [`Error::Hash`]; failures of the store.
pub fn read_object(store: &dyn Store, name: &ObjectName, bytes_max: u32) -> Result<Bytes, Error> {
    let object = store.get(name, u64::from(bytes_max))?;
    match name.content_hash() {
        Some(hash) if hash != *blake3::hash(&object).as_bytes() => {
            Err(Error::Hash { object: name.to_string() })
        }
        _ => Ok(object),
    }
}

impl Vault {
    /// The repository.
    #[must_use]
    pub fn id(&self) -> RepositoryId {
        self.config.repository
    }

    /// Where progress goes.
    #[must_use]
    pub fn monitor(&self) -> &dyn Monitor {
        self.context.monitor.as_ref()
    }

    /// Removes what writers that died left unfinished in the store. What cannot be removed is warned
    /// about: it only takes room.
    pub fn sweep(&self) {
        self.sweep_these(&|_| false);
    }

    /// The same, and removes what is dead of that of which the place cannot tell.
    pub fn sweep_these(&self, is_dead: &dyn Fn(&str) -> bool) {
        if let Err(error) = self.store.sweep(is_dead) {
            self.monitor().warn(Remark {
                code: "store.sweep",
                subject: self.store.location(),
                message: format!("what dead processes left unfinished is still there: {error}"),
            });
        }
    }

    /// Ends the operation when the person asked to stop.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn check_cancelled(&self) -> Result<(), Error> {
        if self.monitor().is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Namespace of packs that this process writes (SPEC §7).
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn own_namespace(&self) -> Result<WriterId, Error> {
        let signer = self.keys.signer()?;
        Ok(if signer.role() == Role::Writer { signer.writer_id() } else { NAMESPACE_TRUSTED })
    }

    /// Reads an object with a signed body.
    ///
    /// # Errors
    /// Damage; failures of the store; a key that cannot open it.
    pub fn read_signed(
        &self,
        kind: Kind,
        name: &ObjectName,
        bytes_max: u32,
    ) -> Result<Signed, Error> {
        self.read_signed_from(self.store.as_ref(), kind, name, bytes_max)
    }

    /// The same out of the store of another copy, with the keys and the trust of this one.
    ///
    /// # Errors
    /// As [`Self::read_signed`].
    pub fn read_signed_from(
        &self,
        store: &dyn Store,
        kind: Kind,
        name: &ObjectName,
        bytes_max: u32,
    ) -> Result<Signed, Error> {
        let object = read_object(store, name, bytes_max)?;
        self.open_signed(kind, &object).map_err(Error::sealed(name))
    }

    fn open_signed(&self, kind: Kind, object: &[u8]) -> Result<Signed, SealError> {
        let (header, content) = Opened::open_body(object, &self.keys)?;
        if header.kind != kind {
            return Err(SealError::Damaged { what: "kind of an object" });
        }
        let (writer, record) = self.trust.verify_body(&header, &content)?;
        let certificate = Content::parse(&content)?.certificate.to_vec();
        Ok(Signed { record: record.to_vec(), writer, certificate })
    }

    /// Signs and seals a record: to the current domain or under the symmetric key, as its kind wants.
    ///
    /// # Errors
    /// When the key may not sign this.
    pub fn seal_signed(&self, kind: Kind, record: &[u8]) -> Result<Vec<u8>, Error> {
        let envelope = self.envelope(kind)?;
        let content = self.keys.signer()?.sign_body(envelope.header(), record)?;
        Ok(envelope.seal_body(&content)?)
    }

    /// A new pack, in `buffer` (emptied, its memory reused), of at most `bytes_max` bytes, with
    /// parity where that was chosen.
    ///
    /// # Errors
    /// When the key is not at hand.
    pub fn pack(
        &self,
        kind: PackKind,
        buffer: Vec<u8>,
        bytes_max: u32,
    ) -> Result<PackBuilder, Error> {
        let object = match kind {
            PackKind::Data => Kind::DataPack,
            PackKind::Tree => Kind::TreePack,
        };
        let envelope = self.envelope(object)?;
        Ok(PackBuilder::new(kind, envelope, buffer, bytes_max, self.config.parity))
    }

    /// An envelope for a new object of this kind.
    ///
    /// # Errors
    /// When the key is not at hand.
    pub fn envelope(&self, kind: Kind) -> Result<Envelope, Error> {
        let random = self.context.random.as_ref();
        if kind.sealed_to_domain() {
            let domain = self.domain()?;
            let to = SealTo::Domain {
                domain: domain.id,
                epoch: domain.epoch,
                public_key: &domain.public_key,
            };
            let parity = kind.is_pack() && self.config.parity.is_some();
            let create = if parity { Envelope::create_with_parity } else { Envelope::create };
            return Ok(create(kind, self.cipher, self.id(), to, random)?);
        }
        let epoch = self.keys.epoch();
        let key = self.keys.symmetric_key(kind, epoch)?;
        let to = SealTo::Symmetric { epoch, key: &key };
        Ok(Envelope::create(kind, self.cipher, self.id(), to, random)?)
    }

    /// The domain new data goes to.
    ///
    /// # Errors
    /// [`Error::NoConfig`] cannot happen with a config that was decoded.
    pub fn domain(&self) -> Result<&Domain, Error> {
        self.config
            .domains
            .iter()
            .rev()
            .find(|domain| domain.id == 0)
            .ok_or_else(|| Error::NoConfig { location: self.store.location() })
    }

    /// Refuses a key that cannot read content.
    ///
    /// # Errors
    /// [`Error::Role`].
    pub fn require_read(&self, action: &'static str) -> Result<(), Error> {
        if self.keys.can_read() { Ok(()) } else { self.refuse(action) }
    }

    /// Refuses a key that cannot back up.
    ///
    /// # Errors
    /// [`Error::Role`].
    pub fn require_write(&self, action: &'static str) -> Result<(), Error> {
        if self.keys.can_write() { Ok(()) } else { self.refuse(action) }
    }

    /// Refuses a key that cannot collect garbage: it must read, and sign tombs.
    ///
    /// # Errors
    /// [`Error::Role`].
    pub fn require_collect(&self, action: &'static str) -> Result<(), Error> {
        if self.keys.can_collect() { Ok(()) } else { self.refuse(action) }
    }

    /// Refuses every key but an owner's.
    ///
    /// # Errors
    /// [`Error::Role`].
    pub fn require_owner(&self, action: &'static str) -> Result<(), Error> {
        if self.keys.role() == Role::Owner { Ok(()) } else { self.refuse(action) }
    }

    fn refuse(&self, action: &'static str) -> Result<(), Error> {
        Err(Error::Role { role: self.keys.role().name(), action })
    }
}
