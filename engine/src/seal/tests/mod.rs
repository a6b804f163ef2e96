//! Behaviour of the module as a whole: envelopes and signatures; roles and slots in [`keys`].

mod keys;

use std::sync::atomic::{AtomicU32, Ordering};

use cairn_format::envelope::{BOUND_BYTES, HEADER_BYTES};
use cairn_format::ids::{ReplicaId, RepositoryId};
use cairn_format::receipt::{Receipt, ReceiptRecord};
use cairn_format::record::{Domain, DomainOrigin};

use super::derive::Grant;
use super::envelope::{KeySource, SealTo};
use super::sign::{open_unsigned_body, unsigned_body};
use super::*;
use crate::error::{Class, Explain};

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([0x11; 16]);
const OTHER_REPOSITORY: RepositoryId = RepositoryId::from_bytes([0x22; 16]);
const CIPHERS: [Cipher; 2] = [Cipher::Aes256Gcm, Cipher::XChaCha20Poly1305];
const SIGNED_KINDS: [Kind; 5] = [Kind::Index, Kind::Snapshot, Kind::Ack, Kind::Config, Kind::Tomb];

fn owner_of(repository: RepositoryId, seed: u64) -> Keys {
    Keys::from_roots(Roots::generate(repository, &SeededRandom::new(seed)).unwrap()).unwrap()
}

fn owner() -> Keys {
    owner_of(REPOSITORY, 1)
}

fn grant(owner: &Keys, role: Role) -> SlotPayload {
    let grant = Grant { role, domains: &[(0, 1)], name: "db1", issued_ms: 7 };
    owner.grant(&grant, &SeededRandom::new(role as u64 + 10)).unwrap()
}

fn keys(role: Role) -> Keys {
    Keys::from_payload(REPOSITORY, &grant(&owner(), role)).unwrap()
}

fn trust() -> Trust {
    Trust::new(REPOSITORY, *owner().signer().unwrap().public_key())
}

fn envelope(kind: Kind, cipher: Cipher, seed: u64) -> Envelope {
    let owner = owner();
    let random = SeededRandom::new(seed);
    if kind.sealed_to_domain() {
        let public_key = owner.domain_public(0, 1).unwrap();
        let to = SealTo::Domain { domain: 0, epoch: 1, public_key: &public_key };
        Envelope::create(kind, cipher, REPOSITORY, to, &random).unwrap()
    } else {
        let key = owner.symmetric_key(kind, 1).unwrap();
        let to = SealTo::Symmetric { epoch: 1, key: &key };
        Envelope::create(kind, cipher, REPOSITORY, to, &random).unwrap()
    }
}

#[test]
fn bodies_round_trip_for_every_kind_and_cipher() {
    for cipher in CIPHERS {
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_pack()) {
            let envelope = envelope(kind, cipher, 1);
            let header = *envelope.header();
            let object = envelope.seal_body(b"content").unwrap();
            let opened = Opened::open_body(&object, &owner()).unwrap();
            assert_eq!(opened, (header, b"content".to_vec()));
            assert!(!object.windows(7).any(|window| window == b"content"));
        }
        assert!(envelope(Kind::DataPack, cipher, 1).seal_body(b"").is_err());
    }
}

#[test]
fn no_object_opens_with_one_bit_flipped() {
    for cipher in CIPHERS {
        for kind in [Kind::Snapshot, Kind::Config] {
            let owner = owner();
            let object = envelope(kind, cipher, 1).seal_body(b"content").unwrap();
            for bit in 0..object.len() * 8 {
                let mut flipped = object.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let error = Opened::open_body(&flipped, &owner).unwrap_err();
                if bit / 8 >= HEADER_BYTES {
                    assert_eq!(error.class(), Class::Damage, "bit {bit}");
                }
            }
            for len in 0..object.len() {
                assert!(Opened::open_body(&object[..len], &owner).is_err());
            }
        }
    }
}

#[test]
fn a_writer_cannot_open_what_it_sealed_to_a_domain() {
    let object = envelope(Kind::Snapshot, Cipher::Aes256Gcm, 1).seal_body(b"content").unwrap();
    let error = Opened::open_body(&object, &keys(Role::Writer)).unwrap_err();
    assert!(matches!(error, SealError::KeyRoleInsufficient { has: Role::Writer, .. }));
    for role in [Role::Owner, Role::Reader, Role::Maintainer] {
        assert!(Opened::open_body(&object, &keys(role)).is_ok());
    }
    let index = envelope(Kind::Index, Cipher::Aes256Gcm, 1).seal_body(b"content").unwrap();
    assert!(Opened::open_body(&index, &keys(Role::Writer)).is_ok());
}

#[test]
fn another_key_is_told_from_damage() {
    let stranger = owner_of(REPOSITORY, 2);
    for kind in [Kind::Snapshot, Kind::Index] {
        let object = envelope(kind, Cipher::Aes256Gcm, 1).seal_body(b"content").unwrap();
        let error = Opened::open_body(&object, &stranger).unwrap_err();
        assert_eq!(error, SealError::OtherKey { what: kind.name(), epoch: 1 });
        assert_eq!(error.class(), Class::WrongKey);
        let foreign = owner_of(OTHER_REPOSITORY, 1);
        let error = Opened::open_body(&object, &foreign).unwrap_err();
        assert!(matches!(error, SealError::OtherRepository { .. }));
    }
}

#[test]
fn external_domains_open_with_their_secret_only() {
    let random = SeededRandom::new(8);
    let secret = random::secret(&random).unwrap();
    let public_key = recipient::public_key(&secret);
    let to = SealTo::Domain { domain: 7, epoch: 1, public_key: &public_key };
    let envelope =
        Envelope::create(Kind::Snapshot, Cipher::XChaCha20Poly1305, REPOSITORY, to, &random);
    let object = envelope.unwrap().seal_body(b"content").unwrap();
    let mut keys = owner();
    assert!(matches!(Opened::open_body(&object, &keys), Err(SealError::OtherKey { .. })));
    keys.add_domain_secret(7, 1, secret);
    assert!(Opened::open_body(&object, &keys).is_ok());
}

#[test]
fn only_domains_of_the_config_with_their_keys_are_opened() {
    let object = envelope(Kind::Snapshot, Cipher::Aes256Gcm, 1).seal_body(b"content").unwrap();
    let domain = |id, public_key| Domain {
        id,
        epoch: 1,
        public_key,
        origin: DomainOrigin::Derived,
        name: String::new(),
    };
    let public_key = owner().domain_public(0, 1).unwrap();
    for role in [Role::Owner, Role::Reader] {
        let mut keys = keys(role);
        keys.restrict_to_domains(&[domain(0, public_key), domain(1, [3; 32])]);
        assert!(Opened::open_body(&object, &keys).is_ok());
        for named in [domain(0, [3; 32]), domain(1, public_key)] {
            keys.restrict_to_domains(&[named]);
            let error = Opened::open_body(&object, &keys).unwrap_err();
            assert!(matches!(error, SealError::KeyNotHeld { epoch: 1, .. }));
        }
    }
}

#[test]
fn kinds_are_sealed_in_their_own_way_only() {
    let random = SeededRandom::new(8);
    let key = Secret32::copy_from(&[1; 32]);
    let public_key = recipient::public_key(&key);
    for kind in Kind::ALL {
        let wrong = if kind.sealed_to_domain() {
            SealTo::Symmetric { epoch: 1, key: &key }
        } else {
            SealTo::Domain { domain: 0, epoch: 1, public_key: &public_key }
        };
        let made = Envelope::create(kind, Cipher::Aes256Gcm, REPOSITORY, wrong, &random);
        assert!(made.is_err(), "{kind:?}");
    }
    let reserved = SealTo::Domain { domain: u32::MAX, epoch: 1, public_key: &public_key };
    let small = SealTo::Domain { domain: 0, epoch: 1, public_key: &[0; 32] };
    for to in [reserved, small] {
        let made = Envelope::create(Kind::Ack, Cipher::Aes256Gcm, REPOSITORY, to, &random);
        assert!(made.is_err());
    }
}

#[test]
fn every_object_has_a_key_of_its_own() {
    let random = SeededRandom::new(8);
    let key = Secret32::copy_from(&[1; 32]);
    let seal = |kind| {
        let to = SealTo::Symmetric { epoch: 1, key: &key };
        Envelope::create(kind, Cipher::Aes256Gcm, REPOSITORY, to, &random)
            .unwrap()
            .seal_body(b"the same content")
            .unwrap()
    };
    let (one, other) = (seal(Kind::Index), seal(Kind::Index));
    assert_ne!(one[HEADER_BYTES..], other[HEADER_BYTES..]);
    assert_ne!(one[40..BOUND_BYTES], other[40..BOUND_BYTES]);
}

#[test]
fn a_generator_that_fails_midway_seals_nothing() {
    struct Failing(AtomicU32);
    impl Random for Failing {
        fn fill(&self, bytes: &mut [u8]) -> Result<(), SealError> {
            let left = self
                .0
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            bytes.fill(7);
            left.map(|_| ()).map_err(|_| SealError::RngBroken { fact: "test".to_owned() })
        }
    }
    let failing = |draws| Failing(AtomicU32::new(draws));
    let public_key = owner().domain_public(0, 1).unwrap();
    let to = SealTo::Domain { domain: 0, epoch: 1, public_key: &public_key };
    for draws in 0..3 {
        let made = Envelope::create(Kind::Ack, Cipher::Aes256Gcm, REPOSITORY, to, &failing(draws));
        assert!(matches!(made, Err(SealError::RngBroken { .. })), "{draws} draws");
    }
    assert!(Envelope::create(Kind::Ack, Cipher::Aes256Gcm, REPOSITORY, to, &failing(3)).is_ok());
}

#[test]
fn signatures_bind_signer_object_and_record() {
    let trust = trust();
    for role in [Role::Owner, Role::Writer, Role::Maintainer] {
        let keys = keys(role);
        let signer = keys.signer().unwrap();
        let header = *envelope(Kind::Snapshot, Cipher::Aes256Gcm, 1).header();
        let content = signer.sign_body(&header, b"record").unwrap();
        let (writer, record) = trust.verify_body(&header, &content).unwrap();
        assert_eq!((writer.id, writer.role), (signer.writer_id(), role));
        assert_eq!(record, b"record");
        // Verifying is slow without optimisation: one bit of each byte will do.
        for index in (0..content.len()).filter(|_| role == Role::Writer) {
            let mut flipped = content.clone();
            flipped[index] ^= 1 << (index % 8);
            assert!(trust.verify_body(&header, &flipped).is_err(), "byte {index}");
        }
        let other = *envelope(Kind::Snapshot, Cipher::Aes256Gcm, 2).header();
        assert!(matches!(trust.verify_body(&other, &content), Err(SealError::Signature { .. })));
    }
}

#[test]
fn each_kind_is_signed_by_its_roles_only() {
    let trust = trust();
    for kind in SIGNED_KINDS {
        let header = *envelope(kind, Cipher::Aes256Gcm, 1).header();
        for role in [Role::Owner, Role::Writer, Role::Maintainer] {
            let allowed = match kind {
                Kind::Config => role == Role::Owner,
                Kind::Tomb => role != Role::Writer,
                _ => true,
            };
            let keys = keys(role);
            let signer = keys.signer().unwrap();
            assert_eq!(signer.sign_body(&header, b"r").is_ok(), allowed, "{role} {kind:?}");
            // A malicious signer does not ask.
            let mut content = cairn_format::codec::Writer::new();
            content.bytes(&signer.certificate().encode()).raw(b"r");
            let signature = signer.sign(&header.bound(), content.as_bytes());
            content.raw(&signature);
            let verified = trust.verify_body(&header, content.as_bytes());
            assert_eq!(verified.is_ok(), allowed, "{role} {kind:?}");
        }
    }
}

#[test]
fn strangers_and_self_made_owners_are_not_trusted() {
    let trust = trust();
    let header = *envelope(Kind::Snapshot, Cipher::Aes256Gcm, 1).header();
    let stranger = owner_of(REPOSITORY, 2);
    let content = stranger.signer().unwrap().sign_body(&header, b"r").unwrap();
    assert!(matches!(trust.verify_body(&header, &content), Err(SealError::Signature { .. })));
    assert!(stranger.check_owner(&trust.owner).is_err());
    for role in Role::ALL {
        assert!(keys(role).check_owner(&trust.owner).is_ok());
    }
    // A writer's certificate with the role of an owner or maintainer written into it.
    for role in [Role::Owner, Role::Maintainer] {
        let mut raised = keys(Role::Writer).signer().unwrap().certificate().clone();
        raised.role = role;
        assert!(trust.verify_certificate(&raised.encode()).is_err());
    }
    // The same owner in another repository.
    let mut elsewhere = trust;
    elsewhere.repository = OTHER_REPOSITORY;
    let certificate = keys(Role::Writer).signer().unwrap().certificate().encode();
    assert!(elsewhere.verify_certificate(&certificate).is_err());
}

#[test]
fn revoked_signers_count_up_to_their_revocation() {
    let writer = keys(Role::Writer);
    let id = writer.signer().unwrap().writer_id();
    let mut trust = trust();
    trust.revoked = vec![(id, 100)];
    let header = *envelope(Kind::Snapshot, Cipher::Aes256Gcm, 1).header();
    let content = writer.signer().unwrap().sign_body(&header, b"r").unwrap();
    let (verified, _) = trust.verify_body(&header, &content).unwrap();
    assert_eq!(trust.check_not_revoked(&verified, 100), Ok(()));
    assert_eq!(trust.check_not_revoked(&verified, 101), Err(SealError::Revoked { writer: id }));
    let others = VerifiedWriter { id: keys(Role::Owner).signer().unwrap().writer_id(), ..verified };
    assert_eq!(trust.check_not_revoked(&others, 101), Ok(()));
}

#[test]
fn leases_are_unsigned_and_nothing_else_is() {
    let content = unsigned_body(b"record");
    assert_eq!(open_unsigned_body(&content).unwrap(), b"record");
    let header = *envelope(Kind::Snapshot, Cipher::Aes256Gcm, 1).header();
    assert!(trust().verify_body(&header, &content).is_err());
    let signed = owner().signer().unwrap().sign_body(&header, b"record").unwrap();
    assert!(open_unsigned_body(&signed).is_err());
    // A certificate without a signature is no lease either.
    let mut mixed = signed;
    let end = mixed.len() - 64;
    mixed[end..].fill(0);
    assert!(open_unsigned_body(&mixed).is_err());
}

fn receipt_record() -> ReceiptRecord {
    ReceiptRecord {
        sequence: 1,
        previous: None,
        replica: ReplicaId::from_bytes([3; 16]),
        deleted: Vec::new(),
        audits: Vec::new(),
        time_ms: 50,
        note: None,
    }
}

#[test]
fn receipts_are_signed_by_owners_and_maintainers() {
    let trust = trust();
    for role in [Role::Owner, Role::Maintainer] {
        let keys = keys(role);
        let signer = keys.signer().unwrap();
        let receipt = signer.sign_receipt(REPOSITORY, receipt_record()).unwrap();
        let bytes = receipt.encode();
        let (writer, read) = trust.verify_receipt(&bytes).unwrap();
        assert_eq!((writer.id, writer.role, read), (signer.writer_id(), role, receipt));
        for index in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[index] ^= 1 << (index % 8);
            assert!(trust.verify_receipt(&flipped).is_err(), "byte {index}");
        }
        let elsewhere = signer.sign_receipt(OTHER_REPOSITORY, receipt_record()).unwrap().encode();
        let error = trust.verify_receipt(&elsewhere).unwrap_err();
        assert!(matches!(error, SealError::OtherRepository { .. }));
    }
    let keys = keys(Role::Writer);
    let signer = keys.signer().unwrap();
    let refused = SealError::SignerRole { what: "a receipt", role: Role::Writer };
    assert_eq!(signer.sign_receipt(REPOSITORY, receipt_record()), Err(refused.clone()));
    // A malicious writer does not ask.
    let mut forged = Receipt {
        repository: REPOSITORY,
        certificate: signer.certificate().encode(),
        record: receipt_record(),
        signature: [0; 64],
    };
    let context = [b"receipt".as_slice(), REPOSITORY.as_bytes()].concat();
    forged.signature = signer.sign(&context, &forged.signed_bytes());
    assert_eq!(trust.verify_receipt(&forged.encode()), Err(refused));
}
