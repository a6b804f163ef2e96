"""SPEC sections 8.1 and 8.2: config and snapshot records. Tombs, acks, leases and receipts are no concern of a restore."""

from dataclasses import dataclass, field

from . import crypto
from .crypto import KDF
from .encoding import (ALIGNED_MIN, CHUNK_MAX, CairnError, Cursor, LABEL_MAX, PACK_MAX, PACK_TARGET_MIN, value)
from .envelope import SYMMETRIC
from .keys import CERTIFICATE_MAX, WRITER

CONFIG_FIELDS = {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 22, 23}
CONFIG_REQUIRED = (1, 3, 5, 7, 9, 11, 13, 15, 17)
SNAPSHOT_FIELDS = {1, 3, 5, 7, 8, 9, 10, 11, 13, 15, 16, 18, 20, 22, 24, 26, 28, 31}
SNAPSHOT_REQUIRED = (1, 3, 5, 7, 9, 11, 13, 15)


# Section 8.1

@dataclass(frozen=True)
class Config:
    epoch: int                     # of the key that seals it
    rid: bytes
    format_hash: bytes
    generation: int
    owner_key: bytes
    domain_keys: dict              # (domain, epoch) -> X25519 public key
    revoked: dict                  # writer id -> milliseconds since 1970
    previous_root: bytes = None    # nonce and sealed R(epoch - 1)


def _domains(cursor):
    def one():
        place = cursor.u32(), cursor.u32()
        public = cursor.take(32)
        if cursor.u8() > 1:
            cursor.fail("unknown origin of a domain")
        cursor.str(LABEL_MAX)
        return place, public
    listed = cursor.list(one, 42)
    domains = dict(listed)
    if len(domains) != len(listed) or any(domain == SYMMETRIC or epoch < 1 for domain, epoch in domains):
        cursor.fail("a domain that may not be, or stands twice")
    if not any(domain == 0 for domain, _ in domains):
        cursor.fail("domain 0 is missing")
    return domains


def _chunker(cursor):
    algorithm, normalisation = cursor.u8(), cursor.u8()
    least, average, most = (cursor.varint(CHUNK_MAX) for _ in range(3))
    if algorithm != 1 or normalisation > 3 or not (64 <= least < average < most) or average < 256 or most < 1024:
        cursor.fail("a chunker that may not be")


def _between(least, most):
    def read(cursor):
        if cursor.varint(most) < least:
            cursor.fail(f"a number below {least}")
    return read


def _revoked(cursor):
    earliest = {}
    for writer_id, time in cursor.list(lambda: (cursor.take(16), cursor.zigzag()), 17):
        earliest[writer_id] = min(time, earliest.get(writer_id, time))
    return earliest


def _parity(cursor):
    data, recovery = cursor.u16(), cursor.u16()
    if not 1 <= recovery <= data or data + (1 << (recovery - 1).bit_length()) > 1 << 16:
        cursor.fail("the shards of parity are too many, or too few")
    return data, recovery


def parse_config(record, epoch, what):
    found = Cursor(record, what).fields(CONFIG_FIELDS, CONFIG_REQUIRED)
    get = lambda tag, read, default=None: value(found, tag, what, read, default)
    raw = lambda length: lambda cursor: cursor.take(length)
    if get(7, Cursor.u8) not in (crypto.CIPHER_AES_256_GCM, crypto.CIPHER_XCHACHA20_POLY1305):
        raise CairnError(f"{what}: unknown cipher")
    get(13, _between(PACK_TARGET_MIN, PACK_MAX))
    get(15, _chunker)
    get(17, _between(ALIGNED_MIN, CHUNK_MAX))
    get(19, _parity)
    get(21, raw(32))
    return Config(epoch, get(1, raw(16)), get(3, raw(32)), get(5, Cursor.varint), get(9, raw(32)),
                  get(11, _domains), get(22, _revoked, {}), get(23, raw(24 + 48)))


def previous_root(config, root, rid):
    """R(e-1), which the config of epoch e carries sealed under R(e)."""
    sealed = config.previous_root
    key = KDF("cairn v1 previous root", root + rid)
    return crypto.aead_open(crypto.CIPHER_XCHACHA20_POLY1305, key, sealed[:24], sealed[24:],
                            config.epoch.to_bytes(4, "little"), "config, previous root")


# Section 8.2

@dataclass(frozen=True)
class Remade:
    certificate: bytes             # of who signed the first of the former snapshots
    time_ms: int
    former: list


@dataclass(frozen=True)
class Snapshot:
    name: str                      # the object's
    id: bytes
    started_ms: int
    finished_ms: int
    job: str
    host: str
    user: str
    paths: list
    tags: list
    root: bytes                    # chunk id of the root directory's node
    sequence: int
    writer_id: bytes
    writer_name: str
    counts: list = field(default_factory=list)
    remade: Remade = None          # nobody but owners and maintainers can say so


def parse_snapshot(body, name, identity):
    what = body.header.what
    found = Cursor(body.record, what).fields(SNAPSHOT_FIELDS, SNAPSHOT_REQUIRED)
    get = lambda tag, read, default=None: value(found, tag, what, read, default)
    raw = lambda length: lambda cursor: cursor.take(length)
    label = lambda cursor: cursor.str(LABEL_MAX)
    byte_lists = lambda cursor: cursor.list(cursor.bytes, 1)
    get(15, raw(16))
    get(16, raw(32))
    get(18, lambda cursor: cursor.list(lambda: cursor.take(32), 32))
    get(22, label)
    get(24, lambda cursor: cursor.list(lambda: _source(cursor), 3))
    get(26, lambda cursor: cursor.list(cursor.str, 1))
    remade = get(31, lambda cursor: Remade(cursor.bytes(CERTIFICATE_MAX), cursor.zigzag(), cursor.list(lambda: cursor.take(32), 32)))
    if remade and not remade.former:
        raise CairnError(f"{what}: made anew of nothing")
    return Snapshot(name, identity, get(1, Cursor.zigzag), get(3, Cursor.zigzag), get(5, label), get(7, label),
                    get(8, label, ""), get(9, byte_lists), get(10, lambda c: c.list(lambda: c.str(LABEL_MAX), 1), []),
                    get(11, raw(32)), get(13, Cursor.varint), body.certificate.writer_id, body.certificate.name,
                    get(20, lambda cursor: [cursor.varint() for _ in range(8)], [0] * 8),
                    remade if body.certificate.role != WRITER else None)


def _source(cursor):
    if cursor.u8() > 2:
        cursor.fail("unknown kind of source")
    cursor.str()
    cursor.list(cursor.bytes, 1)
