//! Behaviour of the module as a whole: roles, slots, envelopes, signatures.

use std::sync::atomic::{AtomicU32, Ordering};

use cairn_format::envelope::{BOUND_BYTES, HEADER_BYTES};
use cairn_format::error::FormatError;
use cairn_format::ids::RepositoryId;
use cairn_format::slot::Argon2Costs;

use super::derive::Grant;
use super::envelope::{KeySource, SealTo};
use super::payload::RoleKeys;
use super::sign::{open_unsigned_body, unsigned_body};
use super::slot::{NewSlot, create_slot, open_slot, slot_id};
use super::*;
use crate::error::{Class, Explain};

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([0x11; 16]);
const OTHER_REPOSITORY: RepositoryId = RepositoryId::from_bytes([0x22; 16]);
const CHEAP: Argon2Costs = Argon2Costs { memory_kib: 19 * 1024, passes: 2, lanes: 1 };
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
    Trust {
        repository: REPOSITORY,
        owner: *owner().signer().unwrap().public_key(),
        revoked: Vec::new(),
    }
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

fn locks() -> [(Lock, Unlock); 4] {
    let bytes = |text: &str| SecretBytes::new(text.as_bytes().to_vec());
    let file = "a key file of at least thirty-two bytes";
    let identity = Identity::generate(&SeededRandom::new(99)).unwrap();
    [
        (
            Lock::Passphrase { passphrase: bytes("correct horse"), costs: CHEAP },
            Unlock::Passphrase(bytes("correct horse")),
        ),
        (Lock::KeyFile(bytes(file)), Unlock::KeyFile(bytes(file))),
        (Lock::CommandOutput(bytes(file)), Unlock::CommandOutput(bytes(&format!("{file}\n")))),
        (Lock::Recipient(identity.recipient()), Unlock::Recipient(identity)),
    ]
}

fn slot_in(repository: RepositoryId, payload: &SlotPayload, lock: &Lock) -> Vec<u8> {
    let new = NewSlot { repository, created_ms: 1_700_000_000_000, label: "ops" };
    create_slot(&new, payload, lock, &SeededRandom::new(5)).unwrap()
}

fn open(slot: &[u8], unlock: &Unlock) -> Result<SlotOutcome, SealError> {
    open_slot(REPOSITORY, &slot_id(slot), slot, unlock)
}

#[test]
fn each_role_gets_its_keys_and_no_others() {
    let owner = owner();
    for role in Role::ALL {
        let keys = keys(role);
        assert_eq!(keys.role(), role);
        assert_eq!(keys.chunk_id(b"x"), owner.chunk_id(b"x"));
        assert_eq!(keys.tree_id(b"x"), owner.tree_id(b"x"));
        assert_ne!(keys.chunk_id(b"x"), keys.tree_id(b"x"));
        for kind in [Kind::Config, Kind::Index, Kind::Lease, Kind::Tomb] {
            assert_eq!(keys.symmetric_key(kind, 1), owner.symmetric_key(kind, 1));
            assert!(matches!(keys.symmetric_key(kind, 2), Err(SealError::KeyNotHeld { .. })));
        }
        let reads = matches!(role, Role::Owner | Role::Reader | Role::Maintainer);
        let writes = matches!(role, Role::Owner | Role::Writer);
        let collects = matches!(role, Role::Owner | Role::Maintainer);
        assert_eq!((keys.can_read(), keys.require_read().is_ok()), (reads, reads));
        assert_eq!((keys.can_write(), keys.require_write().is_ok()), (writes, writes));
        assert_eq!((keys.can_collect(), keys.require_collect().is_ok()), (collects, collects));
        assert_eq!(keys.domain_secret(0, 1).is_ok(), reads);
        assert_eq!(keys.gear_table().is_ok(), writes);
        assert_eq!(keys.signer().is_ok(), role != Role::Reader);
        assert_eq!(keys.roots().is_ok(), role == Role::Owner);
        assert_eq!(keys.own_payload().unwrap(), grant(&owner, role));
    }
    assert_ne!(owner.symmetric_key(Kind::Config, 1), owner.symmetric_key(Kind::Index, 1));
    assert_eq!(keys(Role::Writer).gear_table(), owner.gear_table());
}

#[test]
fn only_the_owner_grants_and_only_domains_it_holds_are_granted() {
    let random = SeededRandom::new(3);
    for role in [Role::Writer, Role::Reader, Role::Maintainer] {
        let wish = Grant { role: Role::Owner, domains: &[], name: "x", issued_ms: 0 };
        let error = keys(role).grant(&wish, &random).unwrap_err();
        assert_eq!(error, SealError::KeyRoleInsufficient { needs: "owner", has: role });
        assert_eq!(error.class(), Class::WrongKey);
        assert!(error.hint().is_some());
        let signer = keys(role).signer().cloned();
        if let Ok(signer) = signer {
            assert!(signer.issue(REPOSITORY, Role::Maintainer, 0, "x", &random).is_err());
        }
    }
    let owner = owner();
    let missing = Grant { role: Role::Reader, domains: &[(0, 2)], name: "", issued_ms: 0 };
    assert!(matches!(owner.grant(&missing, &random), Err(SealError::KeyNotHeld { .. })));
    let reader = keys(Role::Reader);
    assert!(matches!(reader.domain_secret(1, 1), Err(SealError::KeyNotHeld { .. })));
}

#[test]
fn rotation_keeps_ids_and_hands_down_the_roots() {
    let random = SeededRandom::new(4);
    let mut roots = Roots::generate(REPOSITORY, &random).unwrap();
    let first = Keys::from_roots(roots.clone()).unwrap();
    let second_wrap = roots.rotate(&random).unwrap();
    let third_wrap = roots.rotate(&random).unwrap();
    let full = Keys::from_roots(roots).unwrap();
    assert_eq!(full.epoch(), 3);
    assert_eq!(full.chunk_id(b"x"), first.chunk_id(b"x"));
    assert_eq!(full.gear_table(), first.gear_table());
    assert_eq!(full.domain_secret(0, 1), first.domain_secret(0, 1));
    assert_ne!(full.domain_secret(0, 3), first.domain_secret(0, 1));

    let payload = full.own_payload().unwrap();
    assert!(Keys::from_payload(REPOSITORY, &payload).is_err());
    let mut partial = payload.into_roots(REPOSITORY).unwrap();
    assert!(!partial.is_complete());
    assert!(Keys::from_roots(partial.clone()).is_err());
    assert!(partial.add_previous(&second_wrap).is_err());
    partial.add_previous(&third_wrap).unwrap();
    partial.add_previous(&second_wrap).unwrap();
    assert!(partial.is_complete());
    assert!(partial.add_previous(&second_wrap).is_err());
    let restored = Keys::from_roots(partial).unwrap();
    assert_eq!(restored.symmetric_key(Kind::Index, 1), first.symmetric_key(Kind::Index, 1));
    assert_eq!(restored.chunk_id(b"x"), first.chunk_id(b"x"));
}

#[test]
fn slots_of_every_method_and_role_open() {
    let owner = owner();
    for (lock, unlock) in &locks() {
        for role in Role::ALL {
            if matches!(lock, Lock::Passphrase { .. }) && role != Role::Owner {
                continue; // Argon2id is slow, and the payload does not depend on the method.
            }
            let payload = grant(&owner, role);
            match open(&slot_in(REPOSITORY, &payload, lock), unlock).unwrap() {
                SlotOutcome::Opened(opened) => assert_eq!(*opened, payload),
                SlotOutcome::NotThisKey => panic!("{role} slot does not open"),
            }
        }
    }
}

#[test]
fn wrong_keys_and_wrong_methods_are_told_from_damage() {
    let payload = grant(&owner(), Role::Writer);
    let wrong = |text: &str| SecretBytes::new(text.as_bytes().to_vec());
    let other_identity = Identity::generate(&SeededRandom::new(100)).unwrap();
    let wrong_unlocks = [
        Unlock::Passphrase(wrong("correct horsf")),
        Unlock::KeyFile(wrong("another key file of thirty-two bytes or so")),
        Unlock::CommandOutput(wrong("another command with thirty-two bytes or so")),
        Unlock::Recipient(other_identity),
    ];
    for (lock, _) in &locks() {
        let slot = slot_in(REPOSITORY, &payload, lock);
        for unlock in &wrong_unlocks {
            assert!(matches!(open(&slot, unlock), Ok(SlotOutcome::NotThisKey)));
        }
    }
    let (lock, unlock) = &locks()[1];
    let slot = slot_in(REPOSITORY, &payload, lock);
    let mut changed = slot.clone();
    *changed.last_mut().unwrap() ^= 1;
    let named = open_slot(REPOSITORY, &slot_id(&slot), &changed, unlock).unwrap_err();
    assert_eq!(named, SealError::NameMismatch { what: "a key slot" });
    let renamed = open(&changed, unlock).unwrap_err();
    assert_eq!(renamed, SealError::Damaged { what: "a key slot" });
    assert_eq!((named.class(), renamed.class()), (Class::Damage, Class::Damage));
}

#[test]
fn no_slot_opens_with_one_bit_flipped_even_under_the_name_that_fits() {
    let payload = grant(&owner(), Role::Maintainer);
    for (lock, unlock) in &locks()[1..] {
        let slot = slot_in(REPOSITORY, &payload, lock);
        for bit in 0..slot.len() * 8 {
            let mut flipped = slot.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(open(&flipped, unlock), Ok(SlotOutcome::Opened(_))), "bit {bit}");
        }
        for len in (0..slot.len()).step_by(7) {
            assert!(!matches!(open(&slot[..len], unlock), Ok(SlotOutcome::Opened(_))));
        }
    }
}

#[test]
fn a_slot_of_another_repository_is_refused() {
    let payload = grant(&owner_of(OTHER_REPOSITORY, 1), Role::Reader);
    for (lock, unlock) in &locks()[1..] {
        let mut slot = slot_in(OTHER_REPOSITORY, &payload, lock);
        assert!(matches!(open(&slot, unlock), Err(SealError::OtherRepository { .. })));
        slot[16..32].copy_from_slice(REPOSITORY.as_bytes());
        assert!(matches!(open(&slot, unlock), Ok(SlotOutcome::NotThisKey)));
    }
}

#[test]
fn absurd_costs_are_refused_before_they_are_paid() {
    let payload = grant(&owner(), Role::Writer);
    let (lock, unlock) = &locks()[0];
    let slot = slot_in(REPOSITORY, &payload, lock);
    for (offset, cost) in [(56, u32::MAX), (56, 8), (60, u32::MAX), (60, 1), (64, 255), (64, 0)] {
        let mut absurd = slot.clone();
        absurd[offset..offset + 4].copy_from_slice(&cost.to_le_bytes());
        let outcome = open(&absurd, unlock);
        assert!(matches!(outcome, Err(SealError::Format(FormatError::Limit { .. }))));
    }
    let passphrase = SecretBytes::new(b"x".to_vec());
    let costs = Argon2Costs { passes: 1, ..CHEAP };
    let new = NewSlot { repository: REPOSITORY, created_ms: 0, label: "" };
    let lock = Lock::Passphrase { passphrase, costs };
    let error = create_slot(&new, &payload, &lock, &SeededRandom::new(1)).unwrap_err();
    assert_eq!(error.class(), Class::Usage);
}

#[test]
fn unusable_secrets_are_refused_when_a_slot_is_made() {
    let payload = grant(&owner(), Role::Writer);
    let random = SeededRandom::new(1);
    let bytes = |len: usize| SecretBytes::new(vec![b'k'; len]);
    let passphrase = |bytes: &[u8]| Lock::Passphrase {
        passphrase: SecretBytes::new(bytes.to_vec()),
        costs: CHEAP,
    };
    let new = NewSlot { repository: REPOSITORY, created_ms: 0, label: "" };
    for lock in [
        passphrase(b""),
        passphrase(&[0xff]),
        Lock::KeyFile(bytes(31)),
        Lock::KeyFile(bytes((1 << 20) + 1)),
        Lock::CommandOutput(SecretBytes::new([vec![b'k'; 31], vec![b'\n']].concat())),
    ] {
        let error = create_slot(&new, &payload, &lock, &random).unwrap_err();
        assert_eq!(error.class(), Class::Usage, "{lock:?}");
    }
    let long = "x".repeat(64);
    let new = NewSlot { repository: REPOSITORY, created_ms: 0, label: &long };
    let (lock, _) = &locks()[1];
    assert!(create_slot(&new, &payload, lock, &random).is_err());
}

#[test]
fn a_payload_with_keys_beyond_its_role_is_refused() {
    let owner = owner();
    let (RoleKeys::Reader { domains, .. }, RoleKeys::Writer { shared, .. }) =
        (grant(&owner, Role::Reader).keys, grant(&owner, Role::Writer).keys)
    else {
        panic!("grants have other roles");
    };
    let reader = SlotPayload { epoch: 1, keys: RoleKeys::Reader { shared, domains } };
    let encoded = reader.encode(0);
    assert_eq!(SlotPayload::decode(&encoded, Role::Reader).as_ref(), Ok(&reader));
    for role in [Role::Owner, Role::Writer, Role::Maintainer] {
        assert!(SlotPayload::decode(&encoded, role).is_err());
        let bytes = grant(&owner, role).encode(0);
        assert!(SlotPayload::decode(&bytes, Role::Reader).is_err());
    }
    // A signing seed (tag 19) at the end of a reader's payload.
    let beyond = [encoded.as_slice(), &[19, 32], &[1; 32]].concat();
    assert!(matches!(SlotPayload::decode(&beyond, Role::Reader), Err(FormatError::Value { .. })));
    for len in 0..encoded.len() {
        assert!(SlotPayload::decode(&encoded[..len], Role::Reader).is_err());
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
    let elsewhere = Trust { repository: OTHER_REPOSITORY, ..trust };
    let certificate = keys(Role::Writer).signer().unwrap().certificate().encode();
    assert!(elsewhere.verify_certificate(&certificate).is_err());
}

#[test]
fn revoked_signers_count_up_to_their_revocation() {
    let writer = keys(Role::Writer);
    let id = writer.signer().unwrap().writer_id();
    let trust = Trust { revoked: vec![(id, 100)], ..trust() };
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
}
