"""SPEC sections 4 and 5: the store's names, the `format` object, and the sealed envelope."""

import os
import re
import stat
from dataclasses import dataclass

from . import crypto
from .crypto import H, KDF
from .encoding import CairnError, Cursor, NewerFormat, PACK_MAX, SEGMENT_OBJECT_MAX, SMALL_OBJECT_MAX, padme
from .keys import CERTIFICATE_MAX, MAGIC, parse_certificate, verify_certificate

KIND_DATA_PACK, KIND_TREE_PACK, KIND_SEGMENT, KIND_SNAPSHOT = 1, 2, 3, 4
KIND_ACK, KIND_CONFIG, KIND_LEASE, KIND_TOMB = 5, 6, 7, 8
SYMMETRIC = 0xFFFFFFFF
DOMAIN_KINDS = (KIND_DATA_PACK, KIND_TREE_PACK, KIND_SNAPSHOT, KIND_ACK)
HEADER_BYTES = 192
FLAG_PARITY = 1
PART_FRAME, PART_DIRECTORY, PART_LOCATOR, PART_BODY = 1, 2, 3, 4


# Section 4, objects and names

_HASH = "([0-9a-f]{64})"
NAMES = {
    "config": (re.compile(f"config/{_HASH}"), SMALL_OBJECT_MAX),
    "keys": (re.compile(f"keys/{_HASH}"), SMALL_OBJECT_MAX),
    "packs/data": (re.compile(f"packs/data/[0-9a-f]{{2}}/{_HASH}"), PACK_MAX),
    "packs/tree": (re.compile(f"packs/tree/[0-9a-f]{{2}}/{_HASH}"), PACK_MAX),
    "index": (re.compile(f"index/{_HASH}"), SEGMENT_OBJECT_MAX),
    "snapshots": (re.compile(f"snapshots/[0-9a-f]{{16}}-{_HASH}"), SMALL_OBJECT_MAX),
}
PACK_FOLDERS = {KIND_DATA_PACK: "packs/data", KIND_TREE_PACK: "packs/tree"}


def pack_name(kind, name):
    digits = name.hex()
    return f"{PACK_FOLDERS[kind]}/{digits[:2]}/{digits}"


class Store:
    """A repository in a local folder. Objects that the names table does not know are never looked at."""

    def __init__(self, folder):
        self.folder = folder

    def list(self, prefix):
        """[(object name, H)] of one row of the table in section 4, sorted."""
        pattern, _ = NAMES[prefix]
        found = []
        top = os.path.join(self.folder, prefix)
        for folder, _, files in os.walk(top):
            for file in files:
                name = os.path.relpath(os.path.join(folder, file), self.folder)
                match = pattern.fullmatch(name)
                if match and (not prefix.startswith("packs/") or name.split("/")[2] == match[1][:2]):
                    found.append((name, bytes.fromhex(match[1])))
        return sorted(found)

    def open(self, name, limit):
        """(file, length), the length checked against the object's limit."""
        handle = os.open(os.path.join(self.folder, name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        file = os.fdopen(handle, "rb")
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            file.close()
            raise CairnError(f"{name}: not a regular file of at most {limit} bytes")
        return file, status.st_size

    def read(self, prefix, name, expected_hash):
        """A whole object, checked against the hash in its name."""
        file, length = self.open(name, NAMES[prefix][1])
        with file:
            raw = file.read(length)
        if len(raw) != length or H(raw) != expected_hash:
            raise CairnError(f"{name}: the stored bytes do not have the hash in the name")
        return raw


# Section 4.1, format

FORMAT_BYTES = 96


def read_format(store):
    """(repository id, H of the whole object); refuses versions and required features it does not know."""
    file, length = store.open("format", FORMAT_BYTES)
    with file:
        raw = file.read(length)
    cursor = Cursor(raw, "format")
    if cursor.take(16) != b"cairn repository":
        cursor.fail("not a cairn repository")
    if raw[64:] != H(raw[:64]) or len(raw) != FORMAT_BYTES:
        cursor.fail("damaged: its own hash does not match")
    if cursor.u32() != 1:
        cursor.fail("unknown version")
    cursor.zeros(4)
    if cursor.u64():
        cursor.fail("required features that are unknown")
    cursor.u64()  # optional features: reading is allowed
    return cursor.take(16), H(raw)


# Section 5, the envelope

@dataclass(frozen=True)
class Header:
    raw: bytes
    what: str
    kind: int
    cipher: int
    flags: int
    domain: int
    epoch: int
    public: bytes
    wrapped: bytes
    commitment: bytes

    @property
    def bound(self):
        """`header[0..88]`, what keys, parts and signatures are bound to."""
        return self.raw[:88]


def parse_header(raw, kind, rid, what):
    cursor = Cursor(raw[:HEADER_BYTES], f"{what}, header")
    if cursor.take(8) != MAGIC or cursor.u8() != kind:
        cursor.fail(f"not an object of kind {kind}")
    if cursor.u8() != 1:
        raise NewerFormat(f"{what}, header: unknown version")
    cipher, flags = cursor.u8(), cursor.u8()
    if cipher not in (crypto.CIPHER_AES_256_GCM, crypto.CIPHER_XCHACHA20_POLY1305):
        cursor.fail(f"unknown cipher {cipher}")
    if flags & ~(FLAG_PARITY if kind in PACK_FOLDERS else 0):
        cursor.fail(f"unknown flags {flags}")
    domain, epoch = cursor.u32(), cursor.u32()
    if (domain == SYMMETRIC) == (kind in DOMAIN_KINDS):
        cursor.fail("sealed to a domain what should be symmetric, or the reverse")
    cursor.zeros(4)
    if cursor.take(16) != rid:
        cursor.fail("belongs to another repository")
    cursor.take(16)  # random
    public = cursor.take(32)
    wrapped = cursor.zeros(48) if domain == SYMMETRIC else cursor.take(48)
    commitment = cursor.take(32)
    cursor.zeros(24)
    return Header(raw[:HEADER_BYTES], what, kind, cipher, flags, domain, epoch, public, wrapped, commitment)


class MissingKey(CairnError):
    """The object may be sound: this key ring has no key for it."""


def data_key(header, ring, domain_keys):
    """`D`, checked against the commitment. `domain_keys`: {(domain, epoch): public key} of the config."""
    if header.domain == SYMMETRIC:
        keys = ring.config_keys if header.kind == KIND_CONFIG else ring.index_keys
        if header.epoch not in keys:
            raise MissingKey(f"{header.what}: no key of epoch {header.epoch}")
        key = KDF("cairn v1 data key", keys[header.epoch] + header.bound)
    else:
        key = _unwrap(header, ring, domain_keys)
    if KDF("cairn v1 key commitment", key + header.bound) != header.commitment:
        raise CairnError(f"{header.what}: the key commitment does not match")
    return key


def _unwrap(header, ring, domain_keys):
    secret = ring.domain_secret(header.domain, header.epoch)
    public = crypto.x25519_public(secret) if secret else None
    if public is None or domain_keys.get((header.domain, header.epoch)) != public:
        raise MissingKey(f"{header.what}: no key of domain {header.domain}, epoch {header.epoch}")
    shared = crypto.x25519(secret, header.public)
    wrapping = KDF("cairn v1 data key wrap", shared + public + header.bound)
    return crypto.aead_open(crypto.CIPHER_XCHACHA20_POLY1305, wrapping, bytes(24), header.wrapped, None,
                            f"{header.what}, data key")


def open_part(header, key, part, number, sealed):
    place = bytes([part]), number.to_bytes(8, "little")
    zeros = 3 if header.cipher == crypto.CIPHER_AES_256_GCM else 15
    return crypto.aead_open(header.cipher, key, place[0] + bytes(zeros) + place[1], sealed,
                            header.bound + place[0] + place[1], f"{header.what}, part {part}.{number}")


# Section 5, objects with a body

@dataclass(frozen=True)
class Body:
    header: Header
    certificate: object
    record: bytes
    signed: bytes
    signature: bytes


def open_body(raw, kind, ring, domain_keys, what):
    """The opened body; its signature is not verified yet (see `verify_body`)."""
    header = parse_header(raw, kind, ring.rid, what)
    key = data_key(header, ring, domain_keys)
    plain = open_part(header, key, PART_BODY, 0, raw[HEADER_BYTES:])
    cursor = Cursor(plain, what)
    length = cursor.u32()
    content = cursor.take(length)
    if len(plain) != padme(4 + length):
        cursor.fail("not padded to a padme length")
    cursor.zeros(cursor.remaining())
    if length < 64:
        cursor.fail("too short for a signature")
    signed, signature = content[:-64], content[-64:]
    inner = Cursor(signed, what)
    certificate = parse_certificate(inner.bytes(CERTIFICATE_MAX), what)
    return Body(header, certificate, inner.rest(), signed, signature)


def verify_body(body, owner_key, rid):
    """Certificate under the owner's key, then the signature under the certificate's."""
    what = body.header.what
    verify_certificate(body.certificate, owner_key, rid, what)
    crypto.verify_ed25519(body.certificate.public_key, body.signature, body.header.bound, body.signed, what)
