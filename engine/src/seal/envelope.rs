//! Sealing and opening objects: the header, the data key, and bodies (SPEC section 5).

use core::fmt;

use cairn_format::envelope::{
    BOUND_BYTES, Cipher, HEADER_BYTES, Header, Keying, Kind, Part, WRAPPED_KEY_BYTES, pad_body,
    unpad_body,
};
use cairn_format::error::FormatError;
use cairn_format::ids::RepositoryId;
use zeroize::{Zeroize, Zeroizing};

use super::cipher::{PartOpener, PartSealer, TAG, open_small, seal_small};
use super::error::SealError;
use super::random::{self, Random};
use super::recipient::{agree, public_key};
use super::roots::Roots;
use super::secret::{Secret32, constant_time_eq, kdf};

/// The wrapping key is used once, so its nonce may be constant.
const WRAP_NONCE: [u8; 24] = [0; 24];

/// The X25519 key pair of a domain.
#[derive(Clone, Debug)]
pub struct DomainKey {
    /// The secret half.
    pub secret: Secret32,
    /// The public half.
    pub public: [u8; 32],
}

/// Where the keys of headers come from.
pub trait KeySource {
    /// The repository.
    fn repository(&self) -> RepositoryId;

    /// The X25519 secret of a domain.
    ///
    /// # Errors
    /// [`SealError::KeyRoleInsufficient`] for a role that cannot read, [`SealError::KeyNotHeld`]
    /// for a domain that is not at hand.
    fn domain_secret(&self, domain: u32, epoch: u32) -> Result<Secret32, SealError>;

    /// Both halves of a domain's key. To be overridden where the public half is at hand:
    /// computing it costs half as much as opening an object.
    ///
    /// # Errors
    /// As [`Self::domain_secret`].
    fn domain_key(&self, domain: u32, epoch: u32) -> Result<DomainKey, SealError> {
        let secret = self.domain_secret(domain, epoch)?;
        Ok(DomainKey { public: public_key(&secret), secret })
    }

    /// `K_config(epoch)` for configs, `K_index(epoch)` for the other kinds.
    ///
    /// # Errors
    /// [`SealError::KeyNotHeld`].
    fn symmetric_key(&self, kind: Kind, epoch: u32) -> Result<Secret32, SealError>;
}

impl KeySource for Roots {
    fn repository(&self) -> RepositoryId {
        Self::repository(self)
    }

    fn domain_secret(&self, domain: u32, epoch: u32) -> Result<Secret32, SealError> {
        Self::domain_secret(self, domain, epoch)
    }

    fn symmetric_key(&self, kind: Kind, epoch: u32) -> Result<Secret32, SealError> {
        if kind == Kind::Config { self.config_key(epoch) } else { self.index_key(epoch) }
    }
}

/// What a new object is sealed to; must fit its kind ([`Kind::sealed_to_domain`]).
#[derive(Clone, Copy, Debug)]
pub enum SealTo<'a> {
    /// A domain's public key: only those who hold its secret can open the object.
    Domain {
        /// The domain.
        domain: u32,
        /// Its epoch.
        epoch: u32,
        /// Its X25519 public key.
        public_key: &'a [u8; 32],
    },
    /// A shared key.
    Symmetric {
        /// The key's epoch.
        epoch: u32,
        /// `K_config(epoch)` or `K_index(epoch)`.
        key: &'a Secret32,
    },
}

/// A new object: its header, and what seals its parts.
pub struct Envelope {
    header: Header,
    sealer: PartSealer,
    filler: Secret32,
}

impl Envelope {
    /// A header with a fresh data key.
    ///
    /// # Errors
    /// [`SealError::Format`] when kind and target do not fit; [`SealError::Unusable`] for a
    /// public key of small order; [`SealError::RngBroken`].
    pub fn create(
        kind: Kind,
        cipher: Cipher,
        repository: RepositoryId,
        to: SealTo<'_>,
        random: &dyn Random,
    ) -> Result<Self, SealError> {
        Self::of(kind, cipher, repository, to, random, false)
    }

    /// The same for a pack that a parity section is to follow.
    ///
    /// # Errors
    /// As [`Self::create`]; [`SealError::Format`] for other kinds.
    pub fn create_with_parity(
        kind: Kind,
        cipher: Cipher,
        repository: RepositoryId,
        to: SealTo<'_>,
        random: &dyn Random,
    ) -> Result<Self, SealError> {
        Self::of(kind, cipher, repository, to, random, true)
    }

    fn of(
        kind: Kind,
        cipher: Cipher,
        repository: RepositoryId,
        to: SealTo<'_>,
        random: &dyn Random,
        parity: bool,
    ) -> Result<Self, SealError> {
        let mut header = Header {
            kind,
            cipher,
            parity,
            epoch: match to {
                SealTo::Domain { epoch, .. } | SealTo::Symmetric { epoch, .. } => epoch,
            },
            repository,
            random: random::array(random)?,
            keying: Keying::Symmetric { salt: [0; 32] },
            commitment: [0; 32],
        };
        let data_key = match to {
            SealTo::Domain { domain, public_key, .. } => {
                wrap_data_key(&mut header, domain, public_key, random)?
            }
            SealTo::Symmetric { key, .. } => {
                header.keying = Keying::Symmetric { salt: random::array(random)? };
                symmetric_data_key(key, &header.bound())
            }
        };
        header.commitment = *commitment(&data_key, &header.bound()).expose();
        // What a reader would refuse must not be written.
        Header::parse(&header.encode())?;
        let sealer = PartSealer::new(cipher, &data_key, &header.bound())?;
        let filler = kdf("cairn v1 filler", &[data_key.expose()]);
        Ok(Self { header, sealer, filler })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Seals parts. The encoded header ([`Header::encode`]) stands before them.
    #[must_use]
    pub const fn sealer(&self) -> &PartSealer {
        &self.sealer
    }

    /// Fills a pack's filler, the whole of it at once.
    pub fn fill(&self, filler: &mut [u8]) {
        let mut hasher = blake3::Hasher::new_keyed(self.filler.expose());
        let mut output = hasher.finalize_xof();
        output.fill(filler);
        output.zeroize();
        hasher.zeroize();
    }

    /// The whole object with a body: header then sealed, padded content.
    ///
    /// # Errors
    /// [`SealError::Format`] for a pack, or content beyond the limit of the kind.
    pub fn seal_body(self, content: &[u8]) -> Result<Vec<u8>, SealError> {
        if self.header.kind.is_pack() {
            return Err(FormatError::Value { what: "kind of an object with a body" }.into());
        }
        let mut body = pad_body(self.header.kind, content, TAG)?;
        self.sealer.seal_in_place(Part::Body, &mut body)?;
        let mut object = self.header.encode();
        object.append(&mut body);
        Ok(object)
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Envelope({:?})", self.header)
    }
}

/// An object's header whose data key was recovered.
#[derive(Debug)]
pub struct Opened {
    /// The header. What it says is authentic as far as a part was opened since.
    pub header: Header,
    /// Opens the parts.
    pub opener: PartOpener,
}

impl Opened {
    /// Recovers the data key of the object that begins with these [`HEADER_BYTES`].
    ///
    /// # Errors
    /// [`SealError::Format`] for a malformed header, [`SealError::OtherRepository`],
    /// [`SealError::KeyRoleInsufficient`] or [`SealError::KeyNotHeld`] without the key;
    /// [`SealError::OtherKey`] when the header does not answer to the key that it names. The
    /// last cannot be told from a changed header: who has the whole object checks its hash first.
    pub fn open(header: &[u8], keys: &dyn KeySource) -> Result<Self, SealError> {
        let header = Header::parse(header)?;
        let what = header.kind.name();
        if header.repository != keys.repository() {
            return Err(SealError::OtherRepository {
                what,
                expected: keys.repository(),
                found: header.repository,
            });
        }
        let data_key = recover_data_key(&header, keys)?;
        let opener = PartOpener::new(header.cipher, &data_key, &header.bound())?;
        Ok(Self { header, opener })
    }

    /// Opens a whole object with a body; returns its header and content.
    ///
    /// # Errors
    /// As [`Self::open`]; [`SealError::Damaged`] when the body does not open,
    /// [`SealError::Format`] when its padding or size is wrong.
    pub fn open_body(object: &[u8], keys: &dyn KeySource) -> Result<(Header, Vec<u8>), SealError> {
        let (header, body) = object
            .split_at_checked(HEADER_BYTES)
            .ok_or(FormatError::Truncated { what: "object header" })?;
        let opened = Self::open(header, keys)?;
        let kind = opened.header.kind;
        if kind.is_pack() {
            return Err(FormatError::Value { what: "kind of an object with a body" }.into());
        }
        if object.len() > kind.object_bytes_max() as usize {
            return Err(FormatError::Limit {
                what: kind.name(),
                limit: u64::from(kind.object_bytes_max()),
                found: object.len() as u64,
            }
            .into());
        }
        let mut body = body.to_vec();
        let content = unpad_body(opened.opener.open_in_place(Part::Body, &mut body)?)?.to_vec();
        Ok((opened.header, content))
    }
}

/// Test kit: tells data keys apart without showing them. Two objects of the same fingerprint are
/// sealed with the same key, and so under the same nonces.
///
/// # Errors
/// As [`Opened::open`].
#[doc(hidden)]
pub fn data_key_fingerprint(header: &[u8], keys: &dyn KeySource) -> Result<[u8; 32], SealError> {
    let data_key = recover_data_key(&Header::parse(header)?, keys)?;
    Ok(*kdf("cairn test kit: fingerprint of a data key", &[data_key.expose()]).expose())
}

/// The data key, after the commitment was compared.
pub(super) fn recover_data_key(
    header: &Header,
    keys: &dyn KeySource,
) -> Result<Secret32, SealError> {
    let bound = header.bound();
    let other_key = || SealError::OtherKey { what: header.kind.name(), epoch: header.epoch };
    let data_key = match &header.keying {
        Keying::Domain { domain, ephemeral, wrapped } => {
            let key = keys.domain_key(*domain, header.epoch)?;
            unwrap_data_key(&key, ephemeral, wrapped, &bound).ok_or_else(other_key)?
        }
        Keying::Symmetric { .. } => {
            symmetric_data_key(&keys.symmetric_key(header.kind, header.epoch)?, &bound)
        }
    };
    if constant_time_eq(commitment(&data_key, &bound).expose(), &header.commitment) {
        Ok(data_key)
    } else {
        Err(other_key())
    }
}

fn commitment(data_key: &Secret32, bound: &[u8; BOUND_BYTES]) -> Secret32 {
    kdf("cairn v1 key commitment", &[data_key.expose(), bound])
}

fn symmetric_data_key(key: &Secret32, bound: &[u8; BOUND_BYTES]) -> Secret32 {
    kdf("cairn v1 data key", &[key.expose(), bound])
}

fn wrapping_key(
    shared: &Secret32,
    domain_public: &[u8; 32],
    bound: &[u8; BOUND_BYTES],
) -> Secret32 {
    kdf("cairn v1 data key wrap", &[shared.expose(), domain_public, bound])
}

/// Makes a data key and wraps it into the header.
fn wrap_data_key(
    header: &mut Header,
    domain: u32,
    domain_public: &[u8; 32],
    random: &dyn Random,
) -> Result<Secret32, SealError> {
    let ephemeral = random::secret(random)?;
    let data_key = random::secret(random)?;
    let ephemeral_public = public_key(&ephemeral);
    header.keying =
        Keying::Domain { domain, ephemeral: ephemeral_public, wrapped: [0; WRAPPED_KEY_BYTES] };
    let shared = agree(&ephemeral, domain_public).ok_or(SealError::Unusable {
        what: "public key of the domain",
        why: "it is of small order",
    })?;
    let key = wrapping_key(&shared, domain_public, &header.bound());
    // Room for the tag, so that the plaintext is never moved while it stands here.
    let mut buf = Vec::with_capacity(WRAPPED_KEY_BYTES);
    buf.extend_from_slice(data_key.expose());
    seal_small(&key, &WRAP_NONCE, &[], &mut buf)?;
    let wrapped = buf.try_into().map_err(|_| SealError::TooLong { what: "a data key" })?;
    header.keying = Keying::Domain { domain, ephemeral: ephemeral_public, wrapped };
    Ok(data_key)
}

fn unwrap_data_key(
    domain: &DomainKey,
    ephemeral: &[u8; 32],
    wrapped: &[u8; WRAPPED_KEY_BYTES],
    bound: &[u8; BOUND_BYTES],
) -> Option<Secret32> {
    let shared = agree(&domain.secret, ephemeral)?;
    let key = wrapping_key(&shared, &domain.public, bound);
    let mut buf = Zeroizing::new(*wrapped);
    let data_key = open_small(&key, &WRAP_NONCE, &[], buf.as_mut_slice())?;
    <&[u8; 32]>::try_from(&*data_key).ok().map(Secret32::copy_from)
}
