//! What each role holds, and the slots that bring it.

use cairn_format::error::FormatError;
use cairn_format::slot::Argon2Costs;

use super::super::payload::RoleKeys;
use super::super::slot::{NewSlot, create_slot, open_slot, slot_id};
use super::*;

const CHEAP: Argon2Costs = Argon2Costs { memory_kib: 19 * 1024, passes: 2, lanes: 1 };

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
fn a_slot_of_a_later_epoch_opens_everything_before_it() {
    let random = SeededRandom::new(4);
    let mut roots = Roots::generate(REPOSITORY, &random).unwrap();
    roots.rotate(&random).unwrap();
    roots.rotate(&random).unwrap();
    let owner = Keys::from_roots(roots).unwrap();
    for role in [Role::Writer, Role::Reader, Role::Maintainer] {
        let domains = [(0, 1), (0, 3)];
        let grant = Grant { role, domains: &domains, name: "db1", issued_ms: 7 };
        let payload = owner.grant(&grant, &random).unwrap();
        let read = SlotPayload::decode(&payload.encode(0), role).unwrap();
        assert_eq!(read, payload);
        let keys = Keys::from_payload(REPOSITORY, &read).unwrap();
        assert_eq!(keys.epoch(), 3);
        for (kind, epoch) in [(Kind::Index, 1), (Kind::Config, 2), (Kind::Tomb, 3)] {
            assert_eq!(keys.symmetric_key(kind, epoch), owner.symmetric_key(kind, epoch));
        }
        assert!(matches!(keys.symmetric_key(Kind::Index, 4), Err(SealError::KeyNotHeld { .. })));
        assert_eq!(keys.domain_secret(0, 1).is_ok(), role != Role::Writer);
    }
}

#[test]
fn a_slot_with_a_gap_in_its_epochs_is_refused() {
    let RoleKeys::Reader { mut shared, domains } = grant(&owner(), Role::Reader).keys else {
        panic!("the grant has another role");
    };
    let one = shared.epochs[&1].clone();
    let mut decodes = |epochs: &[u32], epoch| {
        shared.epochs = epochs.iter().map(|epoch| (*epoch, one.clone())).collect();
        let keys = RoleKeys::Reader { shared: shared.clone(), domains: domains.clone() };
        SlotPayload::decode(&SlotPayload { epoch, keys }.encode(0), Role::Reader).is_ok()
    };
    let mut outcomes = Vec::new();
    for (epochs, epoch) in [
        (&[1, 2][..], 2),
        (&[1], 2),
        (&[1, 2], 1),
        (&[2], 2),
        (&[1, 3], 3),
        (&[0, 1], 1),
        (&[], 1),
        (&[0], 0),
    ] {
        outcomes.push(decodes(epochs, epoch));
    }
    assert_eq!(outcomes, [true, false, false, false, false, false, false, false]);
}

#[test]
fn a_slot_with_the_fields_of_an_earlier_draft_is_refused() {
    let encoded = grant(&owner(), Role::Reader).encode(0);
    // Tag 17 (one domain: 43 bytes) and tag 23 (34 bytes) stand at the end; 15 belongs before.
    let (before, after) = encoded.split_at(encoded.len() - 43 - 34);
    assert_eq!((after[0], after[43]), (17, 23));
    let draft = [before, &[15, 32], &[1; 32], after].concat();
    let refused = FormatError::Required { what: "payload of a key slot", unknown: 15 };
    assert_eq!(SlotPayload::decode(&draft, Role::Reader), Err(refused));
}

#[test]
fn every_role_knows_its_owner() {
    let stranger = owner_of(REPOSITORY, 2);
    let theirs = *stranger.signer().unwrap().public_key();
    for role in Role::ALL {
        let keys = keys(role);
        assert_eq!(keys.owner_key(), owner().owner_key());
        let error = keys.check_owner(&theirs).unwrap_err();
        assert!(matches!(error, SealError::OtherOwner { .. }), "{role}");
        assert_eq!(error.class(), Class::Damage);
    }
    // Keys of this repository with the owner's key of another.
    for role in [Role::Writer, Role::Maintainer] {
        let mut payload = grant(&owner(), role);
        match &mut payload.keys {
            RoleKeys::Writer { shared, .. } | RoleKeys::Maintainer { shared, .. } => {
                shared.owner = theirs;
            }
            RoleKeys::Owner { .. } | RoleKeys::Reader { .. } => panic!("another role"),
        }
        let refused = Keys::from_payload(REPOSITORY, &payload).unwrap_err();
        assert_eq!(refused, SealError::Signature { what: "a certificate" });
    }
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
    // A signing seed (tag 19) before the owner's key (tag 23, the last 34 bytes).
    let (before, owner_field) = encoded.split_at(encoded.len() - 34);
    let beyond = [before, &[19, 32], &[1; 32], owner_field].concat();
    assert!(matches!(SlotPayload::decode(&beyond, Role::Reader), Err(FormatError::Value { .. })));
    let unknown = [encoded.as_slice(), &[25, 0]].concat();
    let refused = FormatError::Required { what: "payload of a key slot", unknown: 25 };
    assert_eq!(SlotPayload::decode(&unknown, Role::Reader), Err(refused));
    for len in 0..encoded.len() {
        assert!(SlotPayload::decode(&encoded[..len], Role::Reader).is_err());
    }
}

#[test]
fn secrets_of_external_domains_never_enter_a_slot() {
    let mut owner = owner();
    owner.add_domain_secret(7, 1, Secret32::copy_from(&[9; 32]));
    let wish = Grant { role: Role::Reader, domains: &[(0, 1), (7, 1)], name: "", issued_ms: 0 };
    let error = owner.grant(&wish, &SeededRandom::new(1)).unwrap_err();
    assert!(matches!(error, SealError::Unusable { what: "domain", .. }));
    for role in [Role::Reader, Role::Maintainer] {
        let mut keys = keys(role);
        keys.add_domain_secret(7, 1, Secret32::copy_from(&[9; 32]));
        assert!(keys.domain_secret(7, 1).is_ok());
        assert_eq!(keys.own_payload().unwrap(), grant(&owner, role));
    }
}
