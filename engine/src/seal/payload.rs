//! What a key slot holds once it is open: exactly the keys of its role (SPEC section 3.1).

use std::collections::BTreeMap;

use cairn_format::certificate::{CERTIFICATE_BYTES_MAX, Certificate, Role};
use cairn_format::codec::{Reader, Writer};
use cairn_format::error::FormatError;

use super::roots::FIRST_EPOCH;
use super::secret::Secret32;

/// X25519 secrets of domains, by domain and epoch.
pub type DomainSecrets = BTreeMap<(u32, u32), Secret32>;
/// The shared keys of every epoch, from [`FIRST_EPOCH`] to the slot's without a gap.
pub type EpochKeys = BTreeMap<u32, SymmetricKeys>;

/// What opens and seals objects that every role may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymmetricKeys {
    /// `K_index` of the epoch.
    pub index: Secret32,
    /// `K_config` of the epoch.
    pub config: Secret32,
}

/// Keys that every role but the owner receives; the owner derives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedKeys {
    /// `K_id`.
    pub chunk_id: Secret32,
    /// `K_tree`.
    pub tree_id: Secret32,
    /// Keys of all epochs up to the slot's.
    pub epochs: EpochKeys,
    /// The owner's Ed25519 public key: only configs that name it are valid.
    pub owner: [u8; 32],
}

/// A signing key with its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignerKey {
    /// Ed25519 seed.
    pub seed: Secret32,
    /// What the owner says of it.
    pub certificate: Certificate,
}

/// The keys of each role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleKeys {
    /// Everything follows from the root.
    Owner {
        /// `R(epoch)`.
        root: Secret32,
    },
    /// May back up.
    Writer {
        /// Keys common to the roles.
        shared: SharedKeys,
        /// `K_chunker`.
        chunker: Secret32,
        /// The writer's own signing key.
        signer: SignerKey,
    },
    /// May read.
    Reader {
        /// Keys common to the roles.
        shared: SharedKeys,
        /// Secrets of the domains it may read.
        domains: DomainSecrets,
    },
    /// May read and collect garbage.
    Maintainer {
        /// Keys common to the roles.
        shared: SharedKeys,
        /// Secrets of the domains it may read.
        domains: DomainSecrets,
        /// The maintainer's own signing key.
        signer: SignerKey,
    },
}

/// The secret content of a key slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotPayload {
    /// The epoch the keys belong to.
    pub epoch: u32,
    /// The keys.
    pub keys: RoleKeys,
}

/// Bytes of one domain's entry: domain, epoch, secret.
const DOMAIN_ENTRY_BYTES: usize = 4 + 4 + 32;
/// Bytes of one epoch's entry: epoch and two keys.
const EPOCH_ENTRY_BYTES: usize = 4 + 32 + 32;
/// Room for everything but domains and epochs, bytes.
const FIXED_ROOM_BYTES: usize = 512 + CERTIFICATE_BYTES_MAX as usize;

impl SlotPayload {
    /// The role these keys make up.
    #[must_use]
    pub const fn role(&self) -> Role {
        match self.keys {
            RoleKeys::Owner { .. } => Role::Owner,
            RoleKeys::Writer { .. } => Role::Writer,
            RoleKeys::Reader { .. } => Role::Reader,
            RoleKeys::Maintainer { .. } => Role::Maintainer,
        }
    }

    const fn parts(&self) -> Parts<'_> {
        let none = Parts { root: None, shared: None, chunker: None, domains: None, signer: None };
        match &self.keys {
            RoleKeys::Owner { root } => Parts { root: Some(root), ..none },
            RoleKeys::Writer { shared, chunker, signer } => {
                Parts { shared: Some(shared), chunker: Some(chunker), signer: Some(signer), ..none }
            }
            RoleKeys::Reader { shared, domains } => {
                Parts { shared: Some(shared), domains: Some(domains), ..none }
            }
            RoleKeys::Maintainer { shared, domains, signer } => {
                Parts { shared: Some(shared), domains: Some(domains), signer: Some(signer), ..none }
            }
        }
    }

    /// The field list, with `room` more bytes reserved behind it so that sealing in place moves
    /// nothing.
    pub(super) fn encode(&self, room: usize) -> Vec<u8> {
        let parts = self.parts();
        let domains = parts.domains.map_or(0, BTreeMap::len) * DOMAIN_ENTRY_BYTES;
        let epochs = parts.shared.map_or(0, |shared| shared.epochs.len()) * EPOCH_ENTRY_BYTES;
        let mut out = Vec::with_capacity(FIXED_ROOM_BYTES + domains + epochs + room);
        field(&mut out, 1, &[self.role() as u8]);
        field(&mut out, 3, &self.epoch.to_le_bytes());
        if let Some(root) = parts.root {
            field(&mut out, 5, root.expose());
        }
        if let Some(shared) = parts.shared {
            field(&mut out, 7, shared.chunk_id.expose());
            field(&mut out, 9, shared.tree_id.expose());
            if let Some(chunker) = parts.chunker {
                field(&mut out, 11, chunker.expose());
            }
            encode_epochs(&mut out, &shared.epochs);
        }
        if let Some(domains) = parts.domains {
            encode_domains(&mut out, domains);
        }
        if let Some(signer) = parts.signer {
            field(&mut out, 19, signer.seed.expose());
            let mut certificate = Writer::new();
            certificate.bytes(&signer.certificate.encode());
            field(&mut out, 21, certificate.as_bytes());
        }
        if let Some(shared) = parts.shared {
            field(&mut out, 23, &shared.owner);
        }
        out
    }

    /// Reads the field list of a slot with this role.
    ///
    /// # Errors
    /// [`FormatError`] unless it has exactly the fields of the role.
    pub(super) fn decode(bytes: &[u8], role: Role) -> Result<Self, FormatError> {
        let mut found = Found::default();
        Reader::new(bytes, "payload of a key slot").fields(|tag, value| found.field(tag, value))?;
        found.finish(role)
    }
}

/// What a payload consists of, in the order of its fields.
struct Parts<'a> {
    root: Option<&'a Secret32>,
    shared: Option<&'a SharedKeys>,
    chunker: Option<&'a Secret32>,
    domains: Option<&'a DomainSecrets>,
    signer: Option<&'a SignerKey>,
}

/// Appends a field without a buffer in between.
fn field(out: &mut Vec<u8>, tag: u64, value: &[u8]) {
    let mut head = Writer::new();
    head.varint(tag).count(value.len());
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(value);
}

/// Appends the head of a field whose value is a list of items of one length.
fn list_head(out: &mut Vec<u8>, tag: u64, items: usize, item_bytes: usize) {
    let mut count = Writer::new();
    count.count(items);
    let mut head = Writer::new();
    head.varint(tag).count(count.len() + items * item_bytes).raw(count.as_bytes());
    out.extend_from_slice(head.as_bytes());
}

fn encode_epochs(out: &mut Vec<u8>, epochs: &EpochKeys) {
    list_head(out, 13, epochs.len(), EPOCH_ENTRY_BYTES);
    for (epoch, keys) in epochs {
        out.extend_from_slice(&epoch.to_le_bytes());
        out.extend_from_slice(keys.index.expose());
        out.extend_from_slice(keys.config.expose());
    }
}

fn encode_domains(out: &mut Vec<u8>, domains: &DomainSecrets) {
    list_head(out, 17, domains.len(), DOMAIN_ENTRY_BYTES);
    for ((domain, epoch), secret) in domains {
        out.extend_from_slice(&domain.to_le_bytes());
        out.extend_from_slice(&epoch.to_le_bytes());
        out.extend_from_slice(secret.expose());
    }
}

/// Fields as they are found, before it is known whether they fit the role.
#[derive(Default)]
struct Found {
    role: Option<Role>,
    epoch: Option<u32>,
    root: Option<Secret32>,
    chunk_id: Option<Secret32>,
    tree_id: Option<Secret32>,
    chunker: Option<Secret32>,
    epochs: Option<EpochKeys>,
    domains: Option<DomainSecrets>,
    seed: Option<Secret32>,
    certificate: Option<Certificate>,
    owner: Option<[u8; 32]>,
}

impl Found {
    fn field(&mut self, tag: u64, value: &mut Reader<'_>) -> Result<bool, FormatError> {
        match tag {
            1 => self.role = Some(Role::try_from(value.u8()?)?),
            3 => self.epoch = Some(value.u32()?),
            5 => self.root = Some(secret(value)?),
            7 => self.chunk_id = Some(secret(value)?),
            9 => self.tree_id = Some(secret(value)?),
            11 => self.chunker = Some(secret(value)?),
            13 => self.epochs = Some(decode_epochs(value)?),
            17 => self.domains = Some(decode_domains(value)?),
            19 => self.seed = Some(secret(value)?),
            21 => {
                let bytes = value.bytes("certificate", CERTIFICATE_BYTES_MAX)?;
                self.certificate = Some(Certificate::parse(bytes)?);
            }
            23 => self.owner = Some(value.array()?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn finish(mut self, role: Role) -> Result<SlotPayload, FormatError> {
        if need(self.role.take(), "role")? != role {
            return Err(FormatError::Value { what: "role in the payload of a key slot" });
        }
        let epoch = need(self.epoch.take(), "epoch")?;
        if epoch == 0 {
            return Err(FormatError::Value { what: "epoch in the payload of a key slot" });
        }
        let keys = match role {
            Role::Owner => RoleKeys::Owner { root: need(self.root.take(), "root")? },
            Role::Writer => RoleKeys::Writer {
                shared: self.shared(epoch)?,
                chunker: need(self.chunker.take(), "chunker key")?,
                signer: self.signer(role)?,
            },
            Role::Reader => RoleKeys::Reader {
                shared: self.shared(epoch)?,
                domains: need(self.domains.take(), "domain secrets")?,
            },
            Role::Maintainer => RoleKeys::Maintainer {
                shared: self.shared(epoch)?,
                domains: need(self.domains.take(), "domain secrets")?,
                signer: self.signer(role)?,
            },
        };
        if self.is_empty() {
            Ok(SlotPayload { epoch, keys })
        } else {
            Err(FormatError::Value { what: "fields of a key slot beyond its role" })
        }
    }

    fn shared(&mut self, epoch: u32) -> Result<SharedKeys, FormatError> {
        let epochs = need(self.epochs.take(), "keys of the epochs")?;
        // They begin with the first and have no gap, so that the last tells all.
        if epochs.last_key_value().map(|(last, _)| *last) != Some(epoch) {
            return Err(FormatError::Value { what: "epochs in the payload of a key slot" });
        }
        Ok(SharedKeys {
            chunk_id: need(self.chunk_id.take(), "chunk id key")?,
            tree_id: need(self.tree_id.take(), "tree id key")?,
            epochs,
            owner: need(self.owner.take(), "owner's public key")?,
        })
    }

    fn signer(&mut self, role: Role) -> Result<SignerKey, FormatError> {
        let seed = need(self.seed.take(), "signing seed")?;
        let certificate = need(self.certificate.take(), "certificate")?;
        if certificate.role != role {
            return Err(FormatError::Value { what: "role of the certificate in a key slot" });
        }
        Ok(SignerKey { seed, certificate })
    }

    const fn is_empty(&self) -> bool {
        self.root.is_none()
            && self.chunk_id.is_none()
            && self.tree_id.is_none()
            && self.chunker.is_none()
            && self.epochs.is_none()
            && self.owner.is_none()
            && self.domains.is_none()
            && self.seed.is_none()
            && self.certificate.is_none()
    }
}

fn need<T>(value: Option<T>, what: &'static str) -> Result<T, FormatError> {
    value.ok_or(FormatError::Missing { what })
}

fn secret(value: &mut Reader<'_>) -> Result<Secret32, FormatError> {
    let bytes = value.raw(32)?;
    let mut secret = Secret32::zeroed();
    secret.expose_mut().copy_from_slice(bytes);
    Ok(secret)
}

fn decode_epochs(value: &mut Reader<'_>) -> Result<EpochKeys, FormatError> {
    let count = value.count("number of epochs", EPOCH_ENTRY_BYTES)?;
    let mut epochs = EpochKeys::new();
    for (expected, _) in (FIRST_EPOCH..).zip(0..count) {
        if value.u32()? != expected {
            return Err(FormatError::Value { what: "order of epochs in a key slot" });
        }
        let keys = SymmetricKeys { index: secret(value)?, config: secret(value)? };
        epochs.insert(expected, keys);
    }
    Ok(epochs)
}

fn decode_domains(value: &mut Reader<'_>) -> Result<DomainSecrets, FormatError> {
    let count = value.count("number of domain secrets", DOMAIN_ENTRY_BYTES)?;
    let mut domains = DomainSecrets::new();
    for _ in 0..count {
        let place = (value.u32()?, value.u32()?);
        if domains.last_key_value().is_some_and(|(last, _)| *last >= place) {
            return Err(FormatError::Value { what: "order of domain secrets in a key slot" });
        }
        domains.insert(place, secret(value)?);
    }
    Ok(domains)
}
