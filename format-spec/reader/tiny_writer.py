"""A writer of small cairn repositories for the reader's tests, written from ../SPEC.md and sharing no code with the reader."""

import os
import random
import struct

import blake3
import nacl.bindings
import nacl.signing
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

AES, XCHACHA = 1, 2
OWNER, WRITER, READER, MAINTAINER = 0, 1, 2, 3
DATA, TREE, SEGMENT, SNAPSHOT, CONFIG = 1, 2, 3, 4, 6
SYMMETRIC = 0xFFFFFFFF
MAGIC = b"CAIRN\r\n\x1a"
NOW = 1_700_000_000_000


# Section 1

def H(data):
    return blake3.blake3(data).digest()


def KDF(context, data):
    return blake3.blake3(data, derive_key_context=context).digest()


def MAC(key, data):
    return blake3.blake3(data, key=key).digest()


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def zigzag(number):
    return varint((number << 1) ^ (number >> 63))


def counted(data):
    return varint(len(data)) + data


def text(string):
    return counted(string.encode())


def items(encoded):
    return varint(len(encoded)) + b"".join(encoded)


def fields(values):
    return b"".join(varint(tag) + counted(values[tag]) for tag in sorted(values) if values[tag] is not None)


def u32(number):
    return struct.pack("<I", number)


def padme(length):
    if length < 2:
        return length
    e = length.bit_length() - 1
    s = e.bit_length()
    if e <= s:
        return length
    low = (1 << (e - s)) - 1
    return (length + low) & ~low


def xchacha(key, nonce, plain, associated=None):
    return nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plain, associated, nonce, key)


# Sections 6.3 and 6.2

class Frame:
    """`chunks`: plaintexts. `bases`: plaintexts of chunks stored elsewhere."""

    def __init__(self, chunks, codec=1, bases=()):
        self.chunks, self.codec, self.bases = list(chunks), codec, list(bases)

    def encoded(self):
        plain = b"".join(self.chunks)
        if self.codec == 0:
            return plain
        prefix = b"".join(self.bases)
        dictionary = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if prefix else None
        return zstandard.ZstdCompressor(level=19, dict_data=dictionary).compress(plain)

    def describe(self, name, sealed):
        plain_length = sum(map(len, self.chunks))
        described = lambda chunk: name(chunk) + varint(len(chunk))
        return (bytes([self.codec]) + varint(len(sealed)) + varint(plain_length)
                + items([described(chunk) for chunk in self.chunks]) + items([described(base) for base in self.bases]))


class Signer:
    def __init__(self, role, seed, name, certificate):
        self.role, self.seed, self.name, self.certificate = role, seed, name, certificate
        self.key = nacl.signing.SigningKey(seed)
        self.public = bytes(self.key.verify_key)
        self.writer_id = H(self.public)[:16]

    def sign(self, context, body):
        return self.key.sign(b"cairn v1 signed\0" + context + H(body)).signature


class Writer:
    def __init__(self, folder, cipher=AES, seed=1):
        self.folder, self.cipher = folder, cipher
        self.random = random.Random(seed)
        self.rid = self.bytes(16)
        self.roots = {1: self.bytes(32)}
        self.epoch = 1
        self.external = {}     # domain -> secret
        self.domains = [0]     # derived ones
        self.owner = self.signer(OWNER, "owner")
        self.by = self.signer(WRITER, "writer")
        self.segments = []
        self.session = self.bytes(16)
        first = b"cairn repository" + u32(1) + u32(0) + bytes(16) + self.rid + struct.pack("<q", NOW)
        self.format = first + H(first)
        os.makedirs(folder)
        self.store("format", self.format)

    def bytes(self, length):
        return self.random.randbytes(length)

    def store(self, name, raw):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(raw)
        return name

    # Section 3

    def derive(self, what, epoch=1, tail=b""):
        return KDF("cairn v1 " + what, self.roots[epoch] + self.rid + tail)

    def data_id(self, chunk):
        return MAC(self.derive("chunk id"), chunk)

    def tree_id(self, node):
        return MAC(self.derive("tree id"), node)

    def domain_secret(self, domain, epoch):
        return self.external.get(domain) or self.derive("domain", epoch, u32(domain))

    def signer(self, role, name, issuer=None):
        seed = self.derive("owner signing") if role == OWNER else self.bytes(32)
        signer = Signer(role, seed, name, b"")
        body = bytes([1, role]) + signer.public + struct.pack("<q", 0 if role == OWNER else NOW) + text(name)
        issuer = issuer or (signer if role == OWNER else self.owner)
        signer.certificate = body + issuer.sign(b"certificate" + self.rid, body)
        return signer

    # Section 3.1

    def slot(self, method, role, secret=b"", epoch=None, costs=(19456, 2, 1), signer=None, label="test", domains=None):
        """`secret`: passphrase, key file, command output, or recipient's X25519 secret."""
        epoch = epoch or self.epoch
        salt, recipient, tail = self.bytes(32), bytes(32), bytes(12)
        if method == 1:
            tail = struct.pack("<III", *costs)
            x = Argon2id(salt=salt, length=32, iterations=costs[1], lanes=costs[2], memory_cost=costs[0]).derive(secret)
        elif method == 4:
            ephemeral, recipient = salt, nacl.bindings.crypto_scalarmult_base(secret)
            salt = nacl.bindings.crypto_scalarmult_base(ephemeral)
            x = nacl.bindings.crypto_scalarmult(ephemeral, recipient)
        else:
            x = KDF("cairn v1 key file" if method == 2 else "cairn v1 key command", secret)
        plain = (MAGIC + bytes([9, 1, method, role]) + bytes(4) + self.rid + self.bytes(16) + struct.pack("<q", NOW)
                 + tail + bytes(4) + salt + recipient)
        kek = KDF("cairn v1 slot", x + plain)
        nonce = self.bytes(24)
        plain += nonce + KDF("cairn v1 key commitment", kek + plain)
        plain += (bytes([len(label)]) + label.encode()).ljust(64, b"\0")
        payload = fields(self.payload(role, epoch, signer or self.by, domains))
        raw = plain + xchacha(kek, nonce, payload, plain)
        return self.store(f"keys/{H(raw).hex()}", raw)

    def payload(self, role, epoch, signer, domains):
        values = {1: bytes([role]), 3: u32(epoch)}
        if role == OWNER:
            return values | {5: self.roots[epoch]}
        epochs = [u32(e) + self.derive("index", e) + self.derive("config", e) for e in range(1, epoch + 1)]
        values |= {7: self.derive("chunk id"), 9: self.derive("tree id"), 13: items(epochs), 23: self.owner.public}
        if role == WRITER:
            values[11] = self.derive("chunker")
        else:
            places = domains if domains is not None else [(0, e) for e in self.roots]
            values[17] = items([u32(d) + u32(e) + self.domain_secret(d, e) for d, e in places])
        if role in (WRITER, MAINTAINER):
            values |= {19: signer.seed, 21: counted(signer.certificate)}
        return values

    # Section 5

    def header(self, kind, domain, epoch, flags=0):
        """(192 bytes, D)"""
        bound = (MAGIC + bytes([kind, 1, self.cipher, flags]) + u32(domain) + u32(epoch) + bytes(4) + self.rid + self.bytes(16))
        if domain == SYMMETRIC:
            bound += self.bytes(32)
            key = KDF("cairn v1 data key", self.derive("config" if kind == CONFIG else "index", epoch) + bound)
            wrapped = bytes(48)
        else:
            ephemeral, key = self.bytes(32), self.bytes(32)
            public = nacl.bindings.crypto_scalarmult_base(self.domain_secret(domain, epoch))
            bound += nacl.bindings.crypto_scalarmult_base(ephemeral)
            shared = nacl.bindings.crypto_scalarmult(ephemeral, public)
            wrapped = xchacha(KDF("cairn v1 data key wrap", shared + public + bound), bytes(24), key)
        return bound + wrapped + KDF("cairn v1 key commitment", key + bound) + bytes(24), key

    def seal(self, header, key, part, number, plain):
        n = struct.pack("<Q", number)
        associated = header[:88] + bytes([part]) + n
        if self.cipher == AES:
            return AESGCM(key).encrypt(bytes([part]) + bytes(3) + n, plain, associated)
        return xchacha(key, bytes([part]) + bytes(15) + n, plain, associated)

    def body(self, kind, record, signer, domain=SYMMETRIC, epoch=None):
        header, key = self.header(kind, domain, epoch or self.epoch)
        signed = counted(signer.certificate) + record
        content = signed + signer.sign(header[:88], signed)
        plain = (u32(len(content)) + content).ljust(padme(4 + len(content)), b"\0")
        return header + self.seal(header, key, 4, 0, plain)

    # Section 6

    def pack(self, kind, frames, domain=0, signer=None, parity=False):
        """Writes a pack and a segment that describes it."""
        signer = signer or self.by
        name = self.data_id if kind == DATA else self.tree_id
        header, key = self.header(kind, domain, self.epoch, flags=int(parity))
        sealed = [self.seal(header, key, 1, n, frame.encoded()) for n, frame in enumerate(frames)]
        described = items([frame.describe(name, one) for frame, one in zip(frames, sealed)])
        signed = counted(signer.certificate) + self.session + described
        directory = self.seal(header, key, 2, 0, signed + signer.sign(header[:88], signed))
        raw = header + b"".join(sealed)
        frames_end = len(raw)
        total = padme(frames_end + len(directory) + 48)
        offset = total - 48 - len(directory)
        raw += blake3.blake3(b"", key=KDF("cairn v1 filler", key)).digest(length=offset - frames_end) + directory
        raw += self.seal(header, key, 3, 0, struct.pack("<QQQII", frames_end, offset, len(directory), len(frames), 0))
        if parity:
            raw += self.parity(len(raw))
        digits = H(raw).hex()
        self.store(f"packs/{'data' if kind == DATA else 'tree'}/{digits[:2]}/{digits}", raw)
        namespace = signer.writer_id if signer.role == WRITER else bytes(16)
        entry = (H(raw) + bytes([kind]) + u32(domain) + u32(self.epoch) + varint(len(raw)) + namespace + self.session
                 + described)
        self.segment([entry], signer)
        return H(raw)

    def parity(self, length, k=10, m=2):
        """A parity section of the right form (section 6.4); its shards are noise."""
        size = -(-length // k // 64) * 64
        k = -(-length // size)
        hashes = self.bytes(16 * (k + m))
        footer = struct.pack("<QIHH", length, size, k, m)
        footer += H(footer)[:16] + H(hashes)[:16]
        return footer + hashes + self.bytes(m * size) + hashes + footer

    # Section 7

    def segment(self, entries, signer=None, level=0, replaces=()):
        raw = self.body(SEGMENT, varint(level) + items(list(replaces)) + items(entries), signer or self.by)
        return self.store(f"index/{H(raw).hex()}", raw)

    # Section 8

    def config(self, generation=1, revoked=(), signer=None, changes=None):
        domains = [(domain, epoch, 0) for domain in self.domains for epoch in self.roots] + [(domain, 1, 1) for domain in self.external]
        public = lambda d, e: nacl.bindings.crypto_scalarmult_base(self.domain_secret(d, e))
        values = {
            1: self.rid, 3: H(self.format), 5: varint(generation), 7: bytes([self.cipher]), 9: self.owner.public,
            11: items([u32(d) + u32(e) + public(d, e) + bytes([origin]) + text("main") for d, e, origin in domains]),
            13: varint(32 << 20), 15: bytes([1, 2]) + varint(1 << 16) + varint(1 << 18) + varint(1 << 20), 17: varint(1 << 16),
            22: items([writer_id + zigzag(time) for writer_id, time in revoked]) if revoked else None,
        }
        if self.epoch > 1:
            nonce = self.bytes(24)
            values[23] = nonce + xchacha(self.derive("previous root", self.epoch), nonce, self.roots[self.epoch - 1],
                                         u32(self.epoch))
        raw = self.body(CONFIG, fields(values | (changes or {})), signer or self.owner)
        return self.store(f"config/{H(raw).hex()}", raw)

    def rotate(self):
        self.epoch += 1
        self.roots[self.epoch] = self.bytes(32)

    def snapshot(self, root, signer=None, domain=0, time=NOW, remade=None):
        values = {
            1: zigzag(time - 1000), 3: zigzag(time), 5: text("nightly"), 7: text("host"), 8: text("root"),
            9: items([counted(b"/a")]), 10: items([text("tag")]), 11: root, 13: varint(1), 15: self.session, 18: items([]),
            20: b"".join(map(varint, range(8))), 22: text("tiny writer 1"),
            24: items([bytes([2]) + text("dump") + items([counted(b"pg_dump")])]), 26: items([text("*.tmp")]),
        }
        if remade:
            certificate, moment, former = remade
            values[31] = counted(certificate) + zigzag(moment) + items(former)
        raw = self.body(SNAPSHOT, fields(values), signer or self.by, domain)
        self.store(f"snapshots/{time:016x}-{H(raw).hex()}", raw)
        return H(raw)


# Section 9

def extent(chunk_id, length):
    return varint(length * 2 + (chunk_id is None)) + (chunk_id or b"")


def entry(kind, name, mode=0o644, uid=0, gid=0, mtime=(1_600_000_000, 123_456_789), **values):
    """`values`: encoded fields, `f1` the one of tag 1."""
    found = {int(tag[1:]): encoded for tag, encoded in values.items()}
    return (bytes([kind]) + counted(name) + varint(mode) + varint(uid) + varint(gid) + zigzag(mtime[0]) + varint(mtime[1])
            + fields(found))


def directory_leaf(entries):
    return b"D" + items([counted(one) for one in entries])


def directory_inner(level, children):
    """`children`: (first name, node id, number of entries)"""
    return b"I" + bytes([level]) + items([counted(name) + node + varint(count) for name, node, count in children])


def extent_leaf(extents):
    return b"E" + items(extents)


def extent_inner(level, children):
    return b"J" + bytes([level]) + items([node + varint(size) for node, size in children])
