//! Signatures, and who may sign what (SPEC section 1 and section 3).

use core::fmt;
use std::sync::Arc;

use cairn_format::certificate::{Certificate, Role};
use cairn_format::codec::Writer;
use cairn_format::envelope::{Content, Header, Kind, SIGNATURE_BYTES};
use cairn_format::error::FormatError;
use cairn_format::ids::{RepositoryId, WriterId};
use cairn_format::limits::LABEL_BYTES_MAX;
use cairn_format::receipt::{Receipt, ReceiptRecord};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use parking_lot::Mutex;

use super::error::SealError;
use super::memo;
use super::payload::SignerKey;
use super::random::{self, Random};
use super::secret::Secret32;

/// Name in the owner's own certificate.
const OWNER_NAME: &str = "owner";

/// The writer id of an Ed25519 public key.
#[must_use]
pub fn writer_id(public_key: &[u8; 32]) -> WriterId {
    let mut id = [0; WriterId::LEN];
    blake3::Hasher::new().update(public_key).finalize_xof().fill(&mut id);
    WriterId::from_bytes(id)
}

/// `"cairn v1 signed" then 0 then context then H(body)`.
fn message(context: &[u8], body: &[u8]) -> Vec<u8> {
    [b"cairn v1 signed\0".as_slice(), context, blake3::hash(body).as_bytes()].concat()
}

fn certificate_context(repository: RepositoryId) -> Vec<u8> {
    [b"certificate".as_slice(), repository.as_bytes()].concat()
}

fn receipt_context(repository: RepositoryId) -> Vec<u8> {
    [b"receipt".as_slice(), repository.as_bytes()].concat()
}

/// A signing key and the certificate that goes with everything it signs.
#[derive(Clone)]
pub struct Signer {
    key: SigningKey,
    seed: Secret32,
    certificate: Certificate,
    encoded: Vec<u8>,
    writer: WriterId,
}

impl Signer {
    /// The owner's key, which certifies itself. The certificate follows from the seed, so that
    /// an owner has the same one everywhere.
    #[must_use]
    pub fn owner(seed: &Secret32, repository: RepositoryId) -> Self {
        let key = SigningKey::from_bytes(seed.expose());
        let mut certificate = Certificate {
            role: Role::Owner,
            public_key: key.verifying_key().to_bytes(),
            issued_ms: 0,
            name: OWNER_NAME.to_owned(),
            signature: [0; SIGNATURE_BYTES],
        };
        certify(&key, repository, &mut certificate);
        Self::build(key, seed.clone(), certificate)
    }

    /// The key of a slot.
    ///
    /// # Errors
    /// [`SealError::Format`] when the certificate is that of another key.
    pub fn from_slot(signer: &SignerKey) -> Result<Self, SealError> {
        let key = SigningKey::from_bytes(signer.seed.expose());
        if key.verifying_key().to_bytes() != signer.certificate.public_key {
            return Err(FormatError::Value { what: "key of the certificate in a key slot" }.into());
        }
        Ok(Self::build(key, signer.seed.clone(), signer.certificate.clone()))
    }

    fn build(key: SigningKey, seed: Secret32, certificate: Certificate) -> Self {
        let encoded = certificate.encode();
        let writer = writer_id(&certificate.public_key);
        Self { key, seed, certificate, encoded, writer }
    }

    /// Who signs.
    #[must_use]
    pub const fn writer_id(&self) -> WriterId {
        self.writer
    }

    /// The signer's role.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.certificate.role
    }

    /// The certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Ed25519 public key.
    #[must_use]
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.certificate.public_key
    }

    pub(super) fn to_slot(&self) -> SignerKey {
        SignerKey { seed: self.seed.clone(), certificate: self.certificate.clone() }
    }

    /// `Ed25519(context, body)` of SPEC section 1.
    #[must_use]
    pub fn sign(&self, context: &[u8], body: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.key.sign(&message(context, body)).to_bytes()
    }

    /// The content of a body or pack directory: `bytes certificate then record then signature`.
    ///
    /// # Errors
    /// [`SealError::SignerRole`] when the signer's role may not sign this kind of object.
    pub fn sign_body(&self, header: &Header, record: &[u8]) -> Result<Vec<u8>, SealError> {
        check_role(self.role(), header.kind)?;
        let mut writer = Writer::new();
        writer.bytes(&self.encoded).raw(record);
        let signature = self.sign(&header.bound(), writer.as_bytes());
        writer.raw(&signature);
        Ok(writer.into_bytes())
    }

    /// A receipt with certificate and signature (SPEC section 8.6).
    ///
    /// # Errors
    /// [`SealError::SignerRole`] unless this is the key of an owner or maintainer.
    pub fn sign_receipt(
        &self,
        repository: RepositoryId,
        record: ReceiptRecord,
    ) -> Result<Receipt, SealError> {
        check_receipt_role(self.role())?;
        let certificate = self.encoded.clone();
        let mut receipt =
            Receipt { repository, certificate, record, signature: [0; SIGNATURE_BYTES] };
        receipt.signature = self.sign(&receipt_context(repository), &receipt.signed_bytes());
        Ok(receipt)
    }

    /// A fresh key with a certificate, for a new writer or maintainer.
    ///
    /// # Errors
    /// [`SealError::KeyRoleInsufficient`] unless this is the owner's key;
    /// [`SealError::SignerRole`] for a role that has no key of its own; [`SealError::Unusable`]
    /// for a name beyond [`LABEL_BYTES_MAX`]; [`SealError::RngBroken`].
    pub fn issue(
        &self,
        repository: RepositoryId,
        role: Role,
        issued_ms: i64,
        name: &str,
        random: &dyn Random,
    ) -> Result<SignerKey, SealError> {
        if self.role() != Role::Owner {
            return Err(SealError::KeyRoleInsufficient { needs: "owner", has: self.role() });
        }
        if !matches!(role, Role::Writer | Role::Maintainer) {
            return Err(SealError::SignerRole { what: "with a key of its own", role });
        }
        if name.len() > LABEL_BYTES_MAX as usize {
            return Err(SealError::Unusable { what: "name of a key", why: "it is too long" });
        }
        let seed = random::secret(random)?;
        let mut certificate = Certificate {
            role,
            public_key: SigningKey::from_bytes(seed.expose()).verifying_key().to_bytes(),
            issued_ms,
            name: name.to_owned(),
            signature: [0; SIGNATURE_BYTES],
        };
        certify(&self.key, repository, &mut certificate);
        Ok(SignerKey { seed, certificate })
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({} {})", self.role(), self.writer)
    }
}

fn certify(owner: &SigningKey, repository: RepositoryId, certificate: &mut Certificate) {
    let message = message(&certificate_context(repository), &certificate.signed_bytes());
    certificate.signature = owner.sign(&message).to_bytes();
}

/// The content of a body that nobody signs (leases): no certificate, a signature of zeros.
#[must_use]
pub fn unsigned_body(record: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.bytes(&[]).raw(record).raw(&[0; SIGNATURE_BYTES]);
    writer.into_bytes()
}

/// The record of a body that nobody signs.
///
/// # Errors
/// [`SealError::Format`] when it is signed or malformed.
pub fn open_unsigned_body(content: &[u8]) -> Result<&[u8], SealError> {
    let parts = Content::parse(content)?;
    if parts.signature == [0; SIGNATURE_BYTES] && parts.certificate.is_empty() {
        Ok(parts.record)
    } else {
        Err(FormatError::Value { what: "signature of a lease" }.into())
    }
}

/// Who signed something, after the signature was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedWriter {
    /// The signing key.
    pub id: WriterId,
    /// Its role.
    pub role: Role,
    /// Its name.
    pub name: String,
}

/// What a signature is judged by: the owner's key and the revocations, from the config.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The repository.
    pub repository: RepositoryId,
    /// The owner's Ed25519 public key.
    pub owner: [u8; 32],
    /// Revoked signers with the time from which their signatures no longer count.
    pub revoked: Vec<(WriterId, i64)>,
    verified: VerifiedCertificates,
}

/// Certificates that were verified, so that a thousand objects of one signer cost one verification
/// of its certificate. Shared by clones.
#[derive(Clone, Debug, Default)]
struct VerifiedCertificates(Arc<Mutex<Vec<KnownCertificate>>>);

/// A certificate under the hash of all that its verification depends on.
type KnownCertificate = ([u8; 32], Certificate);

impl VerifiedCertificates {
    /// As many as are kept; the oldest goes first.
    const KEPT_MAX: usize = 64;

    fn get(&self, key: &[u8; 32]) -> Option<Certificate> {
        self.0.lock().iter().find(|(known, _)| known == key).map(|(_, found)| found.clone())
    }

    fn put(&self, key: [u8; 32], certificate: Certificate) {
        let mut kept = self.0.lock();
        if kept.len() >= Self::KEPT_MAX {
            kept.remove(0);
        }
        kept.push((key, certificate));
    }
}

impl Trust {
    /// Trust in an owner, with nobody revoked.
    #[must_use]
    pub fn new(repository: RepositoryId, owner: [u8; 32]) -> Self {
        let verified = VerifiedCertificates::default();
        Self { repository, owner, revoked: Vec::new(), verified }
    }

    /// Verifies a certificate.
    ///
    /// # Errors
    /// [`SealError::Signature`] when the owner did not sign it; [`SealError::Format`].
    pub fn verify_certificate(&self, encoded: &[u8]) -> Result<Certificate, SealError> {
        // Whatever decides the outcome is part of the key.
        let key = *blake3::Hasher::new()
            .update(self.repository.as_bytes())
            .update(&self.owner)
            .update(encoded)
            .finalize()
            .as_bytes();
        if let Some(certificate) = self.verified.get(&key) {
            return Ok(certificate);
        }
        let invalid = SealError::Signature { what: "a certificate" };
        let certificate = Certificate::parse(encoded)?;
        if (certificate.role == Role::Owner) != (certificate.public_key == self.owner) {
            return Err(invalid);
        }
        let context = certificate_context(self.repository);
        let body = certificate.signed_bytes();
        if verify(&self.owner, &context, &body, &certificate.signature) {
            self.verified.put(key, certificate.clone());
            Ok(certificate)
        } else {
            Err(invalid)
        }
    }

    /// Verifies `signature` of `body` under a certificate. `what` names the signed thing.
    ///
    /// # Errors
    /// [`SealError::Signature`] or [`SealError::Format`].
    pub fn verify(
        &self,
        what: &'static str,
        context: &[u8],
        certificate: &[u8],
        body: &[u8],
        signature: &[u8; SIGNATURE_BYTES],
    ) -> Result<VerifiedWriter, SealError> {
        let certificate = self.verify_certificate(certificate)?;
        if !verify(&certificate.public_key, context, body, signature) {
            return Err(SealError::Signature { what });
        }
        Ok(VerifiedWriter {
            id: writer_id(&certificate.public_key),
            role: certificate.role,
            name: certificate.name,
        })
    }

    /// Verifies the content of a body or pack directory, and that its signer may sign this kind.
    /// Returns the signer and the record. The caller then reads the time in the record and calls
    /// [`Self::check_not_revoked`].
    ///
    /// # Errors
    /// [`SealError::Signature`], [`SealError::SignerRole`] or [`SealError::Format`].
    pub fn verify_body<'a>(
        &self,
        header: &Header,
        content: &'a [u8],
    ) -> Result<(VerifiedWriter, &'a [u8]), SealError> {
        let parts = Content::parse(content)?;
        let writer = self.verify(
            header.kind.name(),
            &header.bound(),
            parts.certificate,
            parts.signed,
            &parts.signature,
        )?;
        check_role(writer.role, header.kind)?;
        Ok((writer, parts.record))
    }

    /// Reads a stored receipt and verifies it. The caller then calls [`Self::check_not_revoked`]
    /// with the time in the record.
    ///
    /// # Errors
    /// [`SealError::Format`], [`SealError::OtherRepository`], [`SealError::Signature`] or
    /// [`SealError::SignerRole`].
    pub fn verify_receipt(&self, bytes: &[u8]) -> Result<(VerifiedWriter, Receipt), SealError> {
        let what = "a receipt";
        let (receipt, signed) = Receipt::parse(bytes)?;
        if receipt.repository != self.repository {
            return Err(SealError::OtherRepository {
                what,
                expected: self.repository,
                found: receipt.repository,
            });
        }
        let context = receipt_context(self.repository);
        let (certificate, signature) = (&receipt.certificate, &receipt.signature);
        let writer = self.verify(what, &context, certificate, signed, signature)?;
        check_receipt_role(writer.role)?;
        Ok((writer, receipt))
    }

    /// Refuses a signer that was revoked before `object_time_ms`.
    ///
    /// # Errors
    /// [`SealError::Revoked`].
    pub fn check_not_revoked(
        &self,
        writer: &VerifiedWriter,
        object_time_ms: i64,
    ) -> Result<(), SealError> {
        let revoked = self
            .revoked
            .iter()
            .any(|(id, revoked_ms)| *id == writer.id && *revoked_ms < object_time_ms);
        if revoked { Err(SealError::Revoked { writer: writer.id }) } else { Ok(()) }
    }
}

/// Strict verification: refuses keys and signatures of small order, so that one signature fits
/// one key and one message.
fn verify(
    public_key: &[u8; 32],
    context: &[u8],
    body: &[u8],
    signature: &[u8; SIGNATURE_BYTES],
) -> bool {
    let message = message(context, body);
    memo::verified(&[public_key, &message, signature], || {
        VerifyingKey::from_bytes(public_key)
            .is_ok_and(|key| key.verify_strict(&message, &Signature::from_bytes(signature)).is_ok())
    })
}

fn check_receipt_role(role: Role) -> Result<(), SealError> {
    if matches!(role, Role::Owner | Role::Maintainer) {
        Ok(())
    } else {
        Err(SealError::SignerRole { what: "a receipt", role })
    }
}

/// Who may sign which kind of object (SPEC section 8).
fn check_role(role: Role, kind: Kind) -> Result<(), SealError> {
    let may = match kind {
        Kind::DataPack | Kind::TreePack | Kind::Index | Kind::Snapshot | Kind::Ack => role.signs(),
        Kind::Config => role == Role::Owner,
        Kind::Tomb => matches!(role, Role::Owner | Role::Maintainer),
        Kind::Lease => false,
    };
    if may { Ok(()) } else { Err(SealError::SignerRole { what: kind.name(), role }) }
}
