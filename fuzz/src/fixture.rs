//! One repository's keys, the same in every run.

use std::sync::LazyLock;

use cairn_engine::seal::derive::Grant;
use cairn_engine::seal::envelope::{KeySource, SealTo};
use cairn_engine::seal::{Cipher, Envelope, Keys, Kind, Role, Roots, SeededRandom, Trust};
use cairn_format::ids::RepositoryId;

/// The repository.
pub const REPOSITORY: RepositoryId = RepositoryId::from_bytes([0x11; 16]);
/// The content of the key file that opens its slots.
pub const KEY_FILE: &[u8; 40] = b"a key file of forty bytes, not a secret!";

/// Both ciphers.
pub const CIPHERS: [Cipher; 2] = [Cipher::Aes256Gcm, Cipher::XChaCha20Poly1305];

/// The owner's keys.
pub static OWNER: LazyLock<Keys> = LazyLock::new(|| {
    let roots = Roots::generate(REPOSITORY, &SeededRandom::new(1)).expect("seeded");
    Keys::from_roots(roots).expect("the first root")
});

/// Keys of every role, owner first.
pub static ROLES: LazyLock<Vec<Keys>> = LazyLock::new(|| {
    Role::ALL
        .into_iter()
        .map(|role| {
            let grant = Grant { role, domains: &[(0, 1)], name: "fuzz", issued_ms: 1 };
            let payload = OWNER.grant(&grant, &SeededRandom::new(2)).expect("the owner may");
            Keys::from_payload(REPOSITORY, &payload).expect("a payload just made")
        })
        .collect()
});

/// Whose signatures count.
#[must_use]
pub fn trust() -> Trust {
    Trust::new(REPOSITORY, *OWNER.owner_key())
}

/// A new object of this kind.
#[must_use]
pub fn envelope(kind: Kind, cipher: Cipher, seed: u64) -> Envelope {
    let random = SeededRandom::new(seed);
    let public_key = OWNER.domain_public(0, 1).expect("the owner derives it");
    let key = OWNER.symmetric_key(kind, 1).expect("the first epoch");
    let to = if kind.sealed_to_domain() {
        SealTo::Domain { domain: 0, epoch: 1, public_key: &public_key }
    } else {
        SealTo::Symmetric { epoch: 1, key: &key }
    };
    Envelope::create(kind, cipher, REPOSITORY, to, &random).expect("kind and key fit")
}

/// The kinds that have a body.
pub fn body_kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(|kind| !kind.is_pack())
}
