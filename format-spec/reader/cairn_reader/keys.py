"""SPEC section 3: derived keys, roles, certificates, key slots."""

from dataclasses import dataclass, field

from . import crypto
from .crypto import H, KDF
from .encoding import (ARGON2_KIB_MAX, ARGON2_KIB_MIN, ARGON2_LANES_MAX, ARGON2_LANES_MIN, ARGON2_PASSES_MAX,
                       ARGON2_PASSES_MIN, CairnError, Cursor, GIB, KEY_FILE_MAX, KEY_FILE_MIN, KIB, LABEL_MAX,
                       require_ascending, value)

MAGIC = bytes.fromhex("43 41 49 52 4E 0D 0A 1A")
OWNER, WRITER, READER, MAINTAINER = 0, 1, 2, 3
ROLE_NAMES = {OWNER: "owner", WRITER: "writer", READER: "reader", MAINTAINER: "maintainer"}
PASSPHRASE, KEY_FILE, COMMAND, RECIPIENT = 1, 2, 3, 4
KIND_SLOT = 9
ARGON2_KIB_UNASKED = GIB // KIB
IDENTITY_PREFIX = "cairn-identity-"
SLOT_PLAIN_BYTES = 256
CERTIFICATE_MAX = 1 + 1 + 32 + 8 + 2 + LABEL_MAX + 64


# Section 3, certificates

@dataclass(frozen=True)
class Certificate:
    raw: bytes
    role: int
    public_key: bytes
    issued_ms: int
    name: str
    signature: bytes

    @property
    def writer_id(self):
        return H(self.public_key)[:16]


def parse_certificate(raw, what):
    cursor = Cursor(raw, f"{what}, certificate")
    if cursor.u8() != 1:
        cursor.fail("unknown certificate version")
    role = cursor.u8()
    if role not in (OWNER, WRITER, MAINTAINER):
        cursor.fail(f"role {role} signs nothing")
    certificate = Certificate(raw, role, cursor.take(32), cursor.i64(), cursor.str(LABEL_MAX), cursor.take(64))
    cursor.end()
    return certificate


def verify_certificate(certificate, owner_key, rid, what):
    """The owner signs every certificate, its own (the only one of role 0, which has no other) too."""
    if (certificate.role == OWNER) != (certificate.public_key == owner_key):
        raise CairnError(f"{what}: an owner's certificate for another key than the owner's, or the reverse")
    crypto.verify_ed25519(owner_key, certificate.signature, b"certificate" + rid, certificate.raw[:-64],
                          f"{what}, certificate")


# Section 3, the keys somebody holds

@dataclass
class KeyRing:
    """What the slots that a credential opens give. Keys by epoch where the table in section 3 says `(e)`."""
    rid: bytes
    role: int
    roots: dict = field(default_factory=dict)
    index_keys: dict = field(default_factory=dict)
    config_keys: dict = field(default_factory=dict)
    domain_secrets: dict = field(default_factory=dict)  # (domain, epoch) -> X25519 secret
    data_id_key: bytes = None
    tree_id_key: bytes = None
    owner_key: bytes = None                             # as pinned: by derivation or by the slot

    def add_root(self, epoch, root):
        self.roots[epoch] = root
        material = root + self.rid
        self.index_keys[epoch] = KDF("cairn v1 index", material)
        self.config_keys[epoch] = KDF("cairn v1 config", material)
        if epoch == 1:
            self.data_id_key = KDF("cairn v1 chunk id", material)
            self.tree_id_key = KDF("cairn v1 tree id", material)
            self.owner_key = crypto.ed25519_public(KDF("cairn v1 owner signing", material))

    def domain_secret(self, domain, epoch):
        """The secret of a domain, or None if this ring cannot know it."""
        if (domain, epoch) in self.domain_secrets:
            return self.domain_secrets[domain, epoch]
        if epoch in self.roots:
            return KDF("cairn v1 domain", self.roots[epoch] + self.rid + domain.to_bytes(4, "little"))
        return None

    def merge(self, other):
        if None not in (self.owner_key, other.owner_key) and self.owner_key != other.owner_key:
            raise CairnError("the key slots that this credential opens name different owners: at least one is forged")
        for name in ("roots", "index_keys", "config_keys", "domain_secrets"):
            getattr(self, name).update(getattr(other, name))
        self.data_id_key = self.data_id_key or other.data_id_key
        self.tree_id_key = self.tree_id_key or other.tree_id_key
        self.owner_key = self.owner_key or other.owner_key


# Section 3.1, key slots

@dataclass(frozen=True)
class Credential:
    """What the user brings: the method of section 3.1 and its secret bytes, and how much memory one slot may ask for."""
    method: int
    secret: bytes
    memory_kib_max: int = ARGON2_KIB_UNASKED


def parse_identity(text):
    """A recipient's secret from its text form (section 3.1)."""
    digits = text.strip()
    if not digits.startswith(IDENTITY_PREFIX) or len(digits) != len(IDENTITY_PREFIX) + 72 or digits != digits.lower():
        raise CairnError("an identity is cairn-identity- and 72 lower-case hexadecimal digits")
    raw = bytes.fromhex(digits[len(IDENTITY_PREFIX):])
    if H(IDENTITY_PREFIX.encode() + raw[:32])[:4] != raw[32:]:
        raise CairnError("the identity's check digits do not match")
    return raw[:32]


@dataclass(frozen=True)
class Slot:
    what: str
    plain: bytes
    payload: bytes
    method: int
    role: int
    rid: bytes
    costs: tuple
    salt: bytes
    recipient: bytes
    nonce: bytes
    commitment: bytes
    label: str

    @property
    def cost(self):
        """For trying the cheapest first."""
        return self.costs[0] * self.costs[1] if self.costs else 0


def parse_slot(raw, what):
    cursor = Cursor(raw[:SLOT_PLAIN_BYTES], what)
    if cursor.take(8) != MAGIC or cursor.u8() != KIND_SLOT:
        cursor.fail("not a key slot")
    if cursor.u8() != 1:
        cursor.fail("unknown version")
    method, role = cursor.u8(), cursor.u8()
    if method not in (PASSPHRASE, KEY_FILE, COMMAND, RECIPIENT):
        cursor.fail(f"unknown method {method}")
    if role not in ROLE_NAMES:
        cursor.fail(f"unknown role {role}")
    cursor.zeros(4)
    rid = cursor.take(16)
    cursor.take(16)  # random
    cursor.i64()     # created
    costs = (cursor.u32(), cursor.u32(), cursor.u32()) if method == PASSPHRASE else cursor.zeros(12)
    cursor.zeros(4)
    salt = cursor.take(32)
    recipient = cursor.take(32) if method == RECIPIENT else cursor.zeros(32)
    nonce, commitment = cursor.take(24), cursor.take(32)
    label_bytes = cursor.u8()
    if label_bytes > 63:
        cursor.fail("the label is longer than 63 bytes")
    try:
        label = cursor.take(label_bytes).decode("utf-8")
    except UnicodeDecodeError:
        cursor.fail("the label is not UTF-8")
    cursor.zeros(63 - label_bytes)
    return Slot(what, raw[:SLOT_PLAIN_BYTES], raw[SLOT_PLAIN_BYTES:], method, role, rid, costs, salt, recipient,
                nonce, commitment, label)


def _check_costs(slot):
    memory_kib, passes, lanes = slot.costs
    if not (ARGON2_KIB_MIN <= memory_kib <= ARGON2_KIB_MAX and ARGON2_PASSES_MIN <= passes <= ARGON2_PASSES_MAX
            and ARGON2_LANES_MIN <= lanes <= ARGON2_LANES_MAX):
        raise CairnError(f"{slot.what}: Argon2id costs {slot.costs} are beyond the limits")


def _slot_input(slot, credential):
    """`X` of section 3.1, or None if the slot is for another recipient."""
    secret = credential.secret
    if slot.method == PASSPHRASE:
        _check_costs(slot)
        if slot.costs[0] > credential.memory_kib_max:
            raise CairnError(f"{slot.what}: asks for {slot.costs[0]} KiB of memory, which must be allowed expressly")
        return crypto.argon2id(secret, slot.salt, *slot.costs)
    if slot.method in (KEY_FILE, COMMAND):
        if slot.method == COMMAND and secret.endswith(b"\n"):
            secret = secret[:-1]
        if not KEY_FILE_MIN <= len(secret) <= KEY_FILE_MAX:
            raise CairnError(f"the key has {len(secret)} bytes, not {KEY_FILE_MIN} to {KEY_FILE_MAX}")
        context = "cairn v1 key file" if slot.method == KEY_FILE else "cairn v1 key command"
        return KDF(context, secret)
    if crypto.x25519_public(secret) != slot.recipient:
        return None
    return crypto.x25519(secret, slot.salt)


def open_slot(slot, credential):
    """The key ring in the slot, or None if the credential belongs to another slot."""
    if slot.method != credential.method:
        return None
    x = _slot_input(slot, credential)
    if x is None:
        return None
    kek = KDF("cairn v1 slot", x + slot.plain[:136])
    if KDF("cairn v1 key commitment", kek + slot.plain[:136]) != slot.commitment:
        return None
    payload = crypto.aead_open(crypto.CIPHER_XCHACHA20_POLY1305, kek, slot.nonce, slot.payload, slot.plain, slot.what)
    return _parse_payload(slot, payload)


PAYLOAD_FIELDS = {1, 3, 5, 7, 9, 11, 13, 17, 19, 21, 23}
ROLE_FIELDS = {
    OWNER: (1, 3, 5),
    WRITER: (1, 3, 7, 9, 11, 13, 19, 21, 23),
    READER: (1, 3, 7, 9, 13, 17, 23),
    MAINTAINER: (1, 3, 7, 9, 13, 17, 19, 21, 23),
}


def _parse_payload(slot, payload):
    what = f"{slot.what}, payload"
    found = Cursor(payload, what).fields(PAYLOAD_FIELDS, ROLE_FIELDS[slot.role])
    if set(found) != set(ROLE_FIELDS[slot.role]):
        raise CairnError(f"{what}: fields of another role")
    if value(found, 1, what, Cursor.u8) != slot.role:
        raise CairnError(f"{what}: the sealed role is not the plain one")
    epoch = value(found, 3, what, Cursor.u32)
    if epoch < 1:
        raise CairnError(f"{what}: epoch 0")
    key = lambda tag: value(found, tag, what, lambda cursor: cursor.take(32))
    ring = KeyRing(slot.rid, slot.role)
    if slot.role == OWNER:
        ring.add_root(epoch, key(5))
        return ring
    ring.data_id_key, ring.tree_id_key, ring.owner_key = key(7), key(9), key(23)
    epochs = value(found, 13, what, lambda c: c.list(lambda: (c.u32(), c.take(32), c.take(32)), 68))
    if [one for one, _, _ in epochs] != list(range(1, epoch + 1)):
        raise CairnError(f"{what}: not the keys of every epoch from 1 to {epoch}")
    for one, index_key, config_key in epochs:
        ring.index_keys[one], ring.config_keys[one] = index_key, config_key
    secrets = value(found, 17, what, lambda c: c.list(lambda: ((c.u32(), c.u32()), c.take(32)), 40), [])
    require_ascending([place for place, _ in secrets], f"{what}, domain secrets")
    ring.domain_secrets.update(secrets)
    if 21 in found:
        _check_signer(found, slot, ring, what, key(19))
    return ring


def _check_signer(found, slot, ring, what, seed):
    certificate = parse_certificate(value(found, 21, what, lambda cursor: cursor.bytes(CERTIFICATE_MAX)), what)
    if certificate.role != slot.role:
        raise CairnError(f"{what}: the certificate is for another role")
    if crypto.ed25519_public(seed) != certificate.public_key:
        raise CairnError(f"{what}: the certificate is for another signing key")
    verify_certificate(certificate, ring.owner_key, ring.rid, what)
