//! Golden vectors: `format-spec/vectors/*.json` is what these tests compute.
//!
//! With `CAIRN_WRITE_VECTORS=1` in the environment they write the files instead of comparing
//! them; a difference that this makes to a released version is a break of the format.

use std::path::Path;

use cairn_format::certificate::Certificate;
use cairn_format::codec::padme;
use cairn_format::envelope::{HEADER_BYTES, Header};
use cairn_format::hex::encode as hex;
use cairn_format::ids::{ReplicaId, RepositoryId};
use cairn_format::names::ObjectName;
use cairn_format::receipt::ReceiptRecord;
use cairn_format::slot::{Argon2Costs, SlotHead};
use serde_json::{Value, json};

use super::derive::Grant;
use super::envelope::{KeySource, SealTo, recover_data_key};
use super::recipient::public_key;
use super::sign::writer_id;
use super::slot::{NewSlot, create_slot, open_slot, slot_id};
use super::*;

const REPOSITORY: RepositoryId = RepositoryId::from_bytes(*b"vector repo id 1");
const TIME_MS: i64 = 1_767_225_600_000;

fn check(file: &str, computed: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../format-spec/vectors").join(file);
    let text = format!("{}\n", serde_json::to_string_pretty(computed).unwrap());
    if std::env::var_os("CAIRN_WRITE_VECTORS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{file} differs");
}

fn roots() -> Roots {
    let root = core::array::from_fn(|index| u8::try_from(index).unwrap());
    Roots::new(REPOSITORY, 1, Secret32::copy_from(&root))
}

fn owner() -> Keys {
    Keys::from_roots(roots()).unwrap()
}

/// The maintainer's slot is made in epoch 2, so that one case has keys of two epochs.
fn grant(role: Role) -> SlotPayload {
    let mut roots = roots();
    let mut domains = vec![(0, 1), (5, 1)];
    if role == Role::Maintainer {
        roots.rotate(&SeededRandom::new(2)).unwrap();
        domains.push((0, 2));
    }
    let grant = Grant { role, domains: &domains, name: "db1", issued_ms: TIME_MS };
    Keys::from_roots(roots).unwrap().grant(&grant, &SeededRandom::new(1)).unwrap()
}

fn secret_hex(secret: &Secret32) -> String {
    hex(secret.expose())
}

#[test]
fn derive() {
    let (mut roots, keys) = (roots(), owner());
    let gear = keys.gear_table().unwrap();
    let gear_bytes: Vec<u8> = gear.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    let domain = |domain: u32| {
        let secret = keys.domain_secret(domain, 1).unwrap();
        json!({
            "domain": domain,
            "epoch": 1,
            "secret": secret_hex(&secret),
            "public_key": hex(&public_key(&secret)),
        })
    };
    let root_1 = secret_hex(roots.root(1).unwrap());
    let wrapped = roots.rotate(&SeededRandom::new(2)).unwrap();
    let mut handed_down = Roots::new(REPOSITORY, 2, roots.root(2).unwrap().clone());
    handed_down.add_previous(&wrapped).unwrap();
    assert_eq!(secret_hex(handed_down.root(1).unwrap()), root_1);
    let chunk_ids = ["", "abc"].map(|text| {
        json!({
            "plaintext_ascii": text,
            "data": keys.chunk_id(text.as_bytes()).to_hex(),
            "tree": keys.tree_id(text.as_bytes()).to_hex(),
        })
    });
    let first_four: Vec<String> =
        gear.iter().take(4).map(|entry| format!("{entry:016x}")).collect();
    let computed = json!({
        "repository_id": hex(REPOSITORY.as_bytes()),
        "root_epoch_1": root_1,
        "k_id": secret_hex(&roots.chunk_id_key().unwrap()),
        "k_tree": secret_hex(&roots.tree_id_key().unwrap()),
        "k_chunker": secret_hex(&roots.chunker_key().unwrap()),
        "k_index_epoch_1": secret_hex(&roots.index_key(1).unwrap()),
        "k_config_epoch_1": secret_hex(&roots.config_key(1).unwrap()),
        "owner_signing_seed": secret_hex(&roots.signing_seed().unwrap()),
        "owner_public_key": hex(keys.signer().unwrap().public_key()),
        "domains": [domain(0), domain(5)],
        "chunk_ids": chunk_ids,
        "gear": {
            "first_four_u64": first_four,
            "blake3_of_all_as_little_endian_bytes": hex(blake3::hash(&gear_bytes).as_bytes()),
        },
        "previous_root": {
            "root_epoch_2": secret_hex(roots.root(2).unwrap()),
            "nonce": hex(&wrapped.nonce),
            "sealed_root_epoch_1": hex(&wrapped.sealed),
        },
    });
    check("derive.json", &computed);
}

#[test]
fn slot() {
    let text = "a key file or command output, 32 bytes or more";
    let bytes = |text: &str| SecretBytes::new(text.as_bytes().to_vec());
    let identity = Identity::generate(&SeededRandom::new(3)).unwrap();
    let identity_text = identity.to_text().to_string();
    let costs = Argon2Costs { memory_kib: 19 * 1024, passes: 2, lanes: 1 };
    let cases = [
        (
            Role::Owner,
            json!({ "passphrase_utf8": "correct horse battery staple" }),
            Lock::Passphrase { passphrase: bytes("correct horse battery staple"), costs },
            Unlock::Passphrase(bytes("correct horse battery staple")),
        ),
        (
            Role::Writer,
            json!({ "key_file_ascii": text }),
            Lock::KeyFile(bytes(text)),
            Unlock::KeyFile(bytes(text)),
        ),
        (
            Role::Reader,
            json!({ "stdout_ascii": format!("{text}\n") }),
            Lock::CommandOutput(bytes(text)),
            Unlock::CommandOutput(bytes(&format!("{text}\n"))),
        ),
        (
            Role::Maintainer,
            json!({
                "x25519_secret": secret_hex(identity.secret()),
                "identity": identity_text,
                "recipient": identity.recipient().to_string(),
            }),
            Lock::Recipient(identity.recipient()),
            Unlock::Recipient(identity),
        ),
    ];
    let computed = cases.map(|(role, key, lock, unlock)| {
        let payload = grant(role);
        let new = NewSlot { repository: REPOSITORY, created_ms: TIME_MS, label: role.name() };
        let slot = create_slot(&new, &payload, &lock, &SeededRandom::new(4)).unwrap();
        let id = slot_id(&slot);
        let SlotOutcome::Opened(opened) = open_slot(REPOSITORY, &id, &slot, &unlock).unwrap()
        else {
            panic!("the {role} slot does not open");
        };
        assert_eq!(*opened, payload);
        let head = SlotHead::parse(&slot[..256]).unwrap();
        json!({
            "method": head.method.name(),
            "role": role.name(),
            "key": key,
            "slot": hex(&slot),
            "slot_id": id.to_hex(),
            "payload": hex(&payload.encode(0)),
        })
    });
    check("slot.json", &json!({ "repository_id": REPOSITORY.to_hex(), "slots": computed }));
}

fn create(kind: Kind, cipher: Cipher) -> Envelope {
    let keys = owner();
    let random = SeededRandom::new(6);
    let made = if kind.sealed_to_domain() {
        let public_key = keys.domain_public(0, 1).unwrap();
        let to = SealTo::Domain { domain: 0, epoch: 1, public_key: &public_key };
        Envelope::create(kind, cipher, REPOSITORY, to, &random)
    } else {
        let key = keys.symmetric_key(kind, 1).unwrap();
        Envelope::create(
            kind,
            cipher,
            REPOSITORY,
            SealTo::Symmetric { epoch: 1, key: &key },
            &random,
        )
    };
    made.unwrap()
}

fn body_case(kind: Kind, cipher: Cipher) -> Value {
    let envelope = create(kind, cipher);
    let header = *envelope.header();
    let content = owner().signer().unwrap().sign_body(&header, b"a record").unwrap();
    let object = envelope.seal_body(&content).unwrap();
    let opened = Opened::open_body(&object, &owner()).unwrap();
    assert_eq!(opened, (header, content.clone()));
    json!({
        "kind": kind as u8,
        "cipher": cipher as u8,
        "data_key": secret_hex(&recover_data_key(&header, &owner()).unwrap()),
        "record_ascii": "a record",
        "content": hex(&content),
        "object": hex(&object),
    })
}

fn pack_case(cipher: Cipher) -> Value {
    let envelope = create(Kind::DataPack, cipher);
    let header = *envelope.header();
    let mut filler = [0; 64];
    envelope.fill(&mut filler);
    let opened = Opened::open(&header.encode(), &owner()).unwrap();
    let parts = [Part::Frame(0), Part::Frame(258), Part::Directory, Part::Locator].map(|part| {
        let plaintext = format!("plaintext of {part:?}");
        let mut sealed = plaintext.clone().into_bytes();
        envelope.sealer().seal_in_place(part, &mut sealed).unwrap();
        let computed = json!({
            "type": part.type_byte(),
            "counter": part.counter(),
            "plaintext_ascii": plaintext,
            "sealed": hex(&sealed),
        });
        let reopened = opened.opener.open_in_place(part, &mut sealed).unwrap();
        assert_eq!(reopened, plaintext.as_bytes());
        computed
    });
    json!({
        "cipher": cipher as u8,
        "header": hex(&header.encode()),
        "data_key": secret_hex(&recover_data_key(&header, &owner()).unwrap()),
        "parts": parts,
        "filler_first_64_bytes": hex(&filler),
    })
}

#[test]
fn envelope() {
    let ciphers = [Cipher::Aes256Gcm, Cipher::XChaCha20Poly1305];
    let bodies: Vec<Value> = ciphers
        .into_iter()
        .flat_map(|cipher| {
            [Kind::Snapshot, Kind::Index, Kind::Config].map(|kind| body_case(kind, cipher))
        })
        .collect();
    let computed = json!({
        "keys": "those of derive.json; domain 0, epoch 1",
        "bodies": bodies,
        "packs": ciphers.map(pack_case),
    });
    check("envelope.json", &computed);
}

#[test]
fn certificate() {
    let keys = owner();
    let trust = Trust::new(REPOSITORY, *keys.signer().unwrap().public_key());
    let of = |certificate: &Certificate| {
        assert_eq!(trust.verify_certificate(&certificate.encode()).as_ref(), Ok(certificate));
        json!({
            "role": certificate.role as u8,
            "public_key": hex(&certificate.public_key),
            "writer_id": writer_id(&certificate.public_key).to_hex(),
            "issued_ms": certificate.issued_ms,
            "name": certificate.name,
            "certificate": hex(&certificate.encode()),
        })
    };
    let issued = [Role::Writer, Role::Maintainer].map(|role| {
        let keys = Keys::from_payload(REPOSITORY, &grant(role)).unwrap();
        of(keys.signer().unwrap().certificate())
    });
    let object = create(Kind::Snapshot, Cipher::Aes256Gcm).seal_body(b"").unwrap();
    let header = Header::parse(&object[..HEADER_BYTES]).unwrap();
    let body = keys.signer().unwrap().sign_body(&header, b"a record").unwrap();
    let record = ReceiptRecord {
        sequence: 1,
        previous: None,
        replica: ReplicaId::from_bytes([7; 16]),
        deleted: vec![ObjectName::Format],
        audits: Vec::new(),
        time_ms: TIME_MS,
        note: None,
    };
    let receipt = keys.signer().unwrap().sign_receipt(REPOSITORY, record).unwrap().encode();
    assert!(trust.verify_receipt(&receipt).is_ok());
    let computed = json!({
        "repository_id": REPOSITORY.to_hex(),
        "owner_public_key": hex(&trust.owner),
        "owner": of(keys.signer().unwrap().certificate()),
        "issued": issued,
        "signature": {
            "context_ascii": "context",
            "body_ascii": "body",
            "by": "owner",
            "signature": hex(&keys.signer().unwrap().sign(b"context", b"body")),
        },
        "signed_content": {
            "bound_header": hex(&header.bound()),
            "record_ascii": "a record",
            "content": hex(&body),
        },
        "receipt_signed_by_owner": hex(&receipt),
    });
    check("certificate.json", &computed);
}

#[test]
fn padded_lengths() {
    let around = |length: u64| [length - 1, length, length + 1];
    let lengths = (0..=40).chain([6, 8, 10, 12, 16, 20, 24, 28].into_iter().flat_map(|exponent| {
        let power = 1_u64 << exponent;
        around(power).into_iter().chain(around(power + power / 3))
    }));
    let pairs: Vec<Value> =
        lengths.map(|length| json!({ "length": length, "padded": padme(length) })).collect();
    check("padme.json", &Value::Array(pairs));
}
