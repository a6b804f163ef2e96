//! What can be read without a key, and key slots.

use cairn_engine::seal::slot::{NewSlot, create_slot, open_slot, slot_id};
use cairn_engine::seal::{
    Identity, Keys, Lock, Recipient, SecretBytes, SeededRandom, SlotOutcome, Unlock,
};
use cairn_format::certificate::{Certificate, Role};
use cairn_format::codec::padme;
use cairn_format::envelope::Header;
use cairn_format::format_object::FormatObject;
use cairn_format::hex;
use cairn_format::ids::{ChunkId, SessionId};
use cairn_format::names::ObjectName;
use cairn_format::slot::{SLOT_BOUND_BYTES, SLOT_HEAD_BYTES, SlotHead, SlotMethod};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::fixture::{KEY_FILE, REPOSITORY};
use crate::memory::bounded;
use crate::spelling::exact;

/// See the module.
pub fn run(data: &[u8]) {
    let Some((selector, bytes)) = data.split_first() else { return };
    match selector % 9 {
        0 => format_object(bytes),
        1 => drop(exact(bytes, Header::parse, Header::encode)),
        2 => drop(exact(bytes, SlotHead::parse, |head| head.encode().expect("it was read"))),
        3 => slot(bytes),
        4 => payload(bytes),
        5 => drop(exact(bytes, Certificate::parse, Certificate::encode)),
        6 => name(bytes),
        7 => ids(bytes),
        _ => key_texts(bytes),
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// As given, and with a check sum that fits.
fn format_object(bytes: &[u8]) {
    let parse = |bytes: &[u8]| FormatObject::parse(bytes, hash);
    let encode = |format: &FormatObject| format.encode(hash);
    exact(bytes, parse, encode);
    if let Some((checked, _)) = bytes.split_at_checked(64) {
        exact(&[checked, &hash(checked)].concat(), parse, encode);
    }
}

fn unlocks() -> [Unlock; 3] {
    let identity = Identity::generate(&SeededRandom::new(5)).expect("seeded");
    [
        Unlock::KeyFile(SecretBytes::new(KEY_FILE.to_vec())),
        Unlock::CommandOutput(SecretBytes::new(KEY_FILE.to_vec())),
        Unlock::Recipient(identity),
    ]
}

/// A slot as given, but named by its hash, and in the repository: never opened.
fn slot(bytes: &[u8]) {
    let mut slot = bytes.to_vec();
    if let Some(repository) = slot.get_mut(16..32) {
        repository.copy_from_slice(REPOSITORY.as_bytes());
    }
    for unlock in unlocks() {
        let opened = bounded(slot.len(), || open_slot(REPOSITORY, &slot_id(&slot), &slot, &unlock));
        assert!(!matches!(opened, Ok(SlotOutcome::Opened(_))), "a slot was forged");
    }
    let other = slot_id(&[slot.as_slice(), b"x"].concat());
    let [unlock, ..] = unlocks();
    assert!(open_slot(REPOSITORY, &other, &slot, &unlock).is_err());
}

/// The key-encryption key of a slot for the key file, by the head's first part.
fn slot_key(head: &[u8]) -> [u8; 32] {
    let key = blake3::derive_key("cairn v1 key file", KEY_FILE);
    blake3::derive_key("cairn v1 slot", &[&key, &head[..SLOT_BOUND_BYTES]].concat())
}

/// Seals any payload into a slot of any role, as SPEC section 3.1 says.
#[must_use]
pub fn seal_slot(role: Role, payload: &[u8]) -> Vec<u8> {
    let nonce = [6; 24];
    let mut head = SlotHead {
        method: SlotMethod::KeyFile { salt: [7; 32] },
        role,
        repository: REPOSITORY,
        random: [8; 16],
        created_ms: 9,
        nonce,
        commitment: [0; 32],
        label: "fuzz".to_owned(),
    };
    let plain = head.encode().expect("a short label");
    let key = slot_key(&plain);
    let committed = [&key, &plain[..SLOT_BOUND_BYTES]].concat();
    head.commitment = blake3::derive_key("cairn v1 key commitment", &committed);
    let plain = head.encode().expect("a short label");
    let sealed = XChaCha20Poly1305::new(&key.into())
        .encrypt(&XNonce::from(nonce), Payload { msg: payload, aad: &plain })
        .expect("a short payload");
    [plain, sealed].concat()
}

/// The field list that the engine makes of a payload.
#[cfg(test)]
pub fn payload_bytes(payload: &cairn_engine::seal::SlotPayload) -> Vec<u8> {
    let new = NewSlot { repository: REPOSITORY, created_ms: 0, label: "" };
    let lock = Lock::KeyFile(SecretBytes::new(KEY_FILE.to_vec()));
    let slot = create_slot(&new, payload, &lock, &SeededRandom::new(6)).unwrap();
    let (plain, sealed) = slot.split_at(SLOT_HEAD_BYTES);
    let nonce = SlotHead::parse(plain).unwrap().nonce;
    XChaCha20Poly1305::new(&slot_key(plain).into())
        .decrypt(&XNonce::from(nonce), Payload { msg: sealed, aad: plain })
        .unwrap()
}

/// Whether the key file opens a slot.
#[cfg(test)]
pub fn opens(slot: &[u8]) -> bool {
    let [unlock, ..] = unlocks();
    matches!(open_slot(REPOSITORY, &slot_id(slot), slot, &unlock), Ok(SlotOutcome::Opened(_)))
}

/// The role, then the payload of a slot whose seal is right: what is accepted can be used, and
/// stored again.
fn payload(bytes: &[u8]) {
    let Some((role, payload)) = bytes.split_first() else { return };
    let Ok(role) = Role::try_from(role % 4) else { return };
    let slot = seal_slot(role, payload);
    let [unlock, ..] = unlocks();
    let outcome = bounded(slot.len(), || open_slot(REPOSITORY, &slot_id(&slot), &slot, &unlock));
    let Ok(outcome) = outcome else { return };
    let SlotOutcome::Opened(payload) = outcome else { panic!("the key is the right one") };
    assert_eq!(payload.role(), role);
    let new = NewSlot { repository: REPOSITORY, created_ms: 0, label: "again" };
    let lock = Lock::KeyFile(SecretBytes::new(KEY_FILE.to_vec()));
    let again = create_slot(&new, &payload, &lock, &SeededRandom::new(3)).expect("it was read");
    assert!(again.len() >= SLOT_HEAD_BYTES);
    match open_slot(REPOSITORY, &slot_id(&again), &again, &unlock) {
        Ok(SlotOutcome::Opened(read)) => assert_eq!(read, payload),
        other => panic!("{other:?}"),
    }
    if let Ok(keys) = Keys::from_payload(REPOSITORY, &payload) {
        assert_eq!(keys.role(), role);
        assert!(keys.own_payload().is_ok_and(|own| own == *payload));
    }
}

fn name(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(name) = ObjectName::parse(text) else { return };
    assert_eq!(name.to_string(), text);
    assert!(text.split('/').all(|part| !matches!(part, "" | "." | "..")));
    assert!(name.folder().is_none_or(|folder| text.starts_with(folder.path())));
    assert!(name.content_hash().is_none_or(|hash| text.ends_with(&hex::encode(&hash))));
}

fn ids(bytes: &[u8]) {
    let length = padme(bytes.len() as u64);
    assert!(length >= bytes.len() as u64 && padme(length) == length);
    assert_eq!(ChunkId::from_slice(bytes).is_ok(), bytes.len() == ChunkId::LEN);
    let text = hex::encode(bytes);
    if let Ok(id) = ChunkId::from_slice(bytes) {
        assert_eq!(ChunkId::from_hex(&text), Ok(id));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(id) = ChunkId::from_hex(text) {
        assert_eq!(id.to_hex(), text);
    }
    if let Ok(id) = SessionId::from_hex(text) {
        assert_eq!(id.to_hex(), text);
    }
}

/// As given, and with check digits that fit.
fn key_texts(bytes: &[u8]) {
    if let Some((key, _)) = bytes.split_at_checked(32) {
        let check = |prefix: &str| {
            let hash = blake3::hash(&[prefix.as_bytes(), key].concat());
            let digits = [key, &hash.as_bytes()[..4]].concat();
            format!("{prefix}{}", hex::encode(&digits))
        };
        let text = check("cairn-recipient-");
        let recipient = Recipient::parse(&text).expect("it was written as it should be");
        assert_eq!((recipient.as_bytes().as_slice(), recipient.to_string()), (key, text));
        let text = check("cairn-identity-");
        let identity = Identity::parse(&text).expect("it was written as it should be");
        assert_eq!(*identity.to_text(), text);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(recipient) = Recipient::parse(text) {
        assert_eq!(recipient.to_string(), text.trim());
    }
    if let Ok(identity) = Identity::parse(text) {
        assert_eq!(*identity.to_text(), text.trim());
    }
}
