"""SPEC sections 6 and 7: packs, index segments, and finding and decoding chunks."""

from collections import OrderedDict
from dataclasses import dataclass, field

import blake3
import zstandard

from .crypto import H, MAC, TAG_BYTES
from .encoding import (CHUNK_MAX, CairnError, Cursor, DIRECTORY_PLAINTEXT_MAX, FRAME_BASES_MAX, FRAME_BASES_SUM_MAX,
                       FRAME_CHUNKS_MAX, FRAME_PLAINTEXT_MAX, FRAME_SEALED_MAX, PACK_FRAMES_MAX, PACK_MAX,
                       SEGMENT_LEVEL_MAX, ZSTD_WINDOW_MAX, padme)
from .envelope import (FLAG_PARITY, HEADER_BYTES, KIND_DATA_PACK, KIND_SEGMENT, KIND_TREE_PACK, PACK_FOLDERS,
                       PART_DIRECTORY, PART_FRAME, PART_LOCATOR, SYMMETRIC, data_key, open_body, open_part, pack_name,
                       parse_header, verify_body)
from .keys import CERTIFICATE_MAX, WRITER, parse_certificate, verify_certificate
from . import crypto

CODEC_STORED, CODEC_ZSTD = 0, 1
LOCATOR_BYTES = 32 + TAG_BYTES
PARITY_FOOTER_BYTES = 48
ZSTD_MAGIC = bytes.fromhex("28B52FFD")
FRAME_DESCRIPTION_SMALLEST = 1 + 1 + 1 + 1 + 33 + 1
CACHED_FRAMES = 32
HASH_STEP = 1 << 20


# Section 6.2, frame descriptions

@dataclass(frozen=True)
class Frame:
    number: int
    codec: int
    offset: int           # in the pack
    sealed_length: int
    plain_length: int
    chunks: tuple = field(hash=False)         # ((id, length), ...)
    bases: tuple = field(hash=False)


def parse_frames(cursor):
    """A `list of frame descriptions`; offsets follow from section 6: frames stand without gaps from byte 192."""
    offset = HEADER_BYTES
    frames = []

    def one():
        nonlocal offset
        frame = _parse_frame(cursor, len(frames), offset)
        offset += frame.sealed_length
        frames.append(frame)

    cursor.list(one, FRAME_DESCRIPTION_SMALLEST, PACK_FRAMES_MAX)
    if not frames:
        cursor.fail("a pack without frames")
    return frames


def _parse_frame(cursor, number, offset):
    codec = cursor.u8()
    if codec not in (CODEC_STORED, CODEC_ZSTD):
        cursor.fail(f"unknown codec {codec}")
    sealed_length = cursor.varint(FRAME_SEALED_MAX)
    plain_length = cursor.varint(FRAME_PLAINTEXT_MAX)
    described = lambda: (cursor.take(32), cursor.varint(CHUNK_MAX))
    chunks = tuple(cursor.list(described, 33, FRAME_CHUNKS_MAX))
    bases = tuple(cursor.list(described, 33, FRAME_BASES_MAX))
    if not chunks or any(length == 0 for _, length in chunks + bases):
        cursor.fail("a frame without chunks, or a chunk without bytes")
    if sum(length for _, length in chunks) != plain_length:
        cursor.fail("the chunks of a frame do not add up to its plaintext")
    if sum(length for _, length in bases) > FRAME_BASES_SUM_MAX:
        cursor.fail("the bases of a frame are too large")
    if bases and codec != CODEC_ZSTD:
        cursor.fail("a stored frame with bases")
    if sealed_length <= TAG_BYTES or (codec == CODEC_STORED and sealed_length != plain_length + TAG_BYTES):
        cursor.fail("a frame's sealed length does not fit its plaintext")
    return Frame(number, codec, offset, sealed_length, plain_length, chunks, bases)


# Section 6, one pack

class Pack:
    """A pack whose header has been read and whose data key is known."""

    def __init__(self, repository, kind, name):
        self.repository = repository
        self.object_name = pack_name(kind, name)
        file, self.length = repository.store.open(self.object_name, PACK_MAX)
        with file:
            raw = file.read(HEADER_BYTES)
            self._check_name(file, raw, name)
        self.header = parse_header(raw, kind, repository.ring.rid, self.object_name)
        self.key = data_key(self.header, repository.ring, repository.config.domain_keys)

    def _check_name(self, file, start, name):
        """H of all stored bytes. Only filler, padding and parity depend on it, so damage is reported and reading goes on."""
        hasher = blake3.blake3(start)
        while block := file.read(HASH_STEP):
            hasher.update(block)
        if hasher.digest() != name:
            self.repository.problem(f"{self.object_name}: the stored bytes do not have the hash in the name")

    def read(self, offset, length):
        if offset < 0 or offset + length > self.length:
            raise CairnError(f"{self.object_name}: bytes {offset} to {offset + length} are beyond its end")
        file, _ = self.repository.store.open(self.object_name, PACK_MAX)
        with file:
            file.seek(offset)
            return file.read(length)

    def open_frame(self, frame):
        """Part 1: what is sealed as the frame, still compressed."""
        return open_part(self.header, self.key, PART_FRAME, frame.number, self.read(frame.offset, frame.sealed_length))

    def sealed_end(self):
        """Where the locator ends: the pack's length but for a parity section (section 6.4)."""
        if not self.header.flags & FLAG_PARITY:
            return self.length
        back = self._parity_footer(self.length - PARITY_FOOTER_BYTES)
        if back:
            return back
        length = 1
        while length <= self.length - PARITY_FOOTER_BYTES:
            if self._parity_footer(length) == length:
                self.repository.problem(f"{self.object_name}, parity: its last bytes are damaged")
                return length
            length = padme(length + 1)
        raise CairnError(f"{self.object_name}, parity: neither footer is sound")

    def _parity_footer(self, offset):
        """Where the locator ends, if a sound footer that fits the object stands here."""
        raw = self.read(offset, PARITY_FOOTER_BYTES)
        if H(raw[:16])[:16] != raw[16:32]:
            return None
        footer = Cursor(raw, f"{self.object_name}, parity")
        end, shard, k, m = footer.u64(), footer.u32(), footer.u16(), footer.u16()
        records = 2 * (PARITY_FOOTER_BYTES + 16 * (k + m))
        if (end + m * shard + records != self.length or not (k - 1) * shard < end <= k * shard or min(k, m) < 1
                or shard % 64 or padme(end) != end):
            return None
        return end

    # Section 6.1

    def _locate_directory(self):
        end = self.sealed_end()
        plain = open_part(self.header, self.key, PART_LOCATOR, 0, self.read(end - LOCATOR_BYTES, LOCATOR_BYTES))
        cursor = Cursor(plain, f"{self.object_name}, locator")
        frames_end, offset, length, frame_count = cursor.u64(), cursor.u64(), cursor.u64(), cursor.u32()
        cursor.zeros(4)
        if length > DIRECTORY_PLAINTEXT_MAX + TAG_BYTES or not 1 <= frame_count <= PACK_FRAMES_MAX:
            cursor.fail("a length or count is beyond its limit")
        if not HEADER_BYTES < frames_end <= offset or offset + length != end - LOCATOR_BYTES:
            cursor.fail("the parts of the pack do not follow each other")
        return frames_end, offset, length, frame_count

    # Section 6.2

    def read_directory(self):
        """The pack's frames, after its writer's signature has been verified."""
        frames_end, offset, length, frame_count = self._locate_directory()
        what = f"{self.object_name}, directory"
        plain = open_part(self.header, self.key, PART_DIRECTORY, 0, self.read(offset, length))
        cursor = Cursor(plain, what)
        certificate = parse_certificate(cursor.bytes(CERTIFICATE_MAX), what)
        cursor.take(16)  # session
        frames = parse_frames(cursor)
        signed = plain[:cursor.position]
        signature = cursor.take(64)
        cursor.end()
        verify_certificate(certificate, self.repository.config.owner_key, self.repository.ring.rid, what)
        crypto.verify_ed25519(certificate.public_key, signature, self.header.bound, signed, what)
        end = frames[-1].offset + frames[-1].sealed_length
        if len(frames) != frame_count or end != frames_end:
            cursor.fail("the frames are not those of the locator")
        return frames


# Section 7, index segments

@dataclass(frozen=True)
class PackEntry:
    name: bytes
    kind: int
    domain: int
    epoch: int
    length: int
    frames: list
    namespace: bytes = field(default=None, compare=False)  # as the segment says; nothing depends on it once it was checked


def parse_segment(record, what):
    cursor = Cursor(record, what)
    cursor.varint(SEGMENT_LEVEL_MAX)             # level
    cursor.list(lambda: cursor.take(32), 32)     # segments it replaces: reading those too does no harm
    entries = cursor.list(lambda: _parse_pack_entry(cursor), 32 + 1 + 4 + 4 + 1 + 16 + 16 + 1)
    cursor.end()
    return entries


def _parse_pack_entry(cursor):
    name, kind, domain, epoch = cursor.take(32), cursor.u8(), cursor.u32(), cursor.u32()
    if kind not in PACK_FOLDERS or domain == SYMMETRIC:
        cursor.fail("not a pack's kind and domain")
    length = cursor.varint(PACK_MAX)
    namespace = cursor.take(16)
    cursor.take(16)  # session
    frames = parse_frames(cursor)
    if frames[-1].offset + frames[-1].sealed_length > length - LOCATOR_BYTES:
        cursor.fail("the frames do not fit in the pack")
    return PackEntry(name, kind, domain, epoch, length, frames, namespace)


def read_segment(repository, name, identity):
    raw = repository.store.read("index", name, identity)
    body = open_body(raw, KIND_SEGMENT, repository.ring, {}, name)
    verify_body(body, repository.config.owner_key, repository.ring.rid)
    entries = parse_segment(body.record, name)
    if body.certificate.role != WRITER:
        return entries
    own = [entry for entry in entries if entry.namespace == body.certificate.writer_id]
    if len(own) < len(entries):
        repository.problem(f"{name}: its writer describes packs of others; these are ignored")
    return own


# Section 6.3, frames

def decode_frame(frame, opened, prefix, what):
    """The chunks' plaintexts one after another. Nothing larger than `plain_length` is ever allocated."""
    if frame.codec == CODEC_STORED:
        plain = opened
    else:
        plain = _unzstd(opened, frame.plain_length, prefix, what)
    if len(plain) != frame.plain_length:
        raise CairnError(f"{what}: {len(plain)} bytes where {frame.plain_length} are stated")
    return plain


def _unzstd(compressed, plain_length, prefix, what):
    """Exactly one zstd frame without dictionary id, `prefix` being its raw-content dictionary."""
    try:
        if compressed[:4] != ZSTD_MAGIC:
            raise CairnError(f"{what}: not a zstd frame")
        stated = zstandard.get_frame_parameters(compressed)
        if stated.window_size > ZSTD_WINDOW_MAX or stated.dict_id or stated.has_checksum:
            raise CairnError(f"{what}: a zstd frame with too large a window, with a dictionary id or with a check sum")
        if stated.content_size != plain_length:
            raise CairnError(f"{what}: the zstd frame does not state this length")
        dictionary = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if prefix else None
        decompressor = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=ZSTD_WINDOW_MAX)
        return decompressor.decompress(compressed, max_output_size=plain_length, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CairnError(f"{what}: {error}") from None


# Sections 3, 6.3 and 7: chunks by id

@dataclass(frozen=True)
class Location:
    entry: PackEntry
    frame: Frame
    start: int            # in the frame's plaintext
    length: int


class Chunks:
    """Finds chunks by id. Where several packs hold a chunk, one whose copy is sound is enough; damage is reported."""

    def __init__(self, repository):
        self.repository = repository
        self.locations = {}            # (kind, id) -> [Location]
        self.entries = {}              # pack name -> [PackEntry], one unless descriptions differ
        self.packs = {}                # pack name -> Pack
        self.cache = OrderedDict()     # (pack name, frame) -> plaintext

    def add_pack(self, entry):
        known = self.entries.setdefault(entry.name, [])
        if entry in known:
            return
        if known:
            self.repository.problem(f"{pack_name(entry.kind, entry.name)}: index segments describe it differently")
        known.append(entry)
        for frame in entry.frames:
            start = 0
            for identity, length in frame.chunks:
                self.locations.setdefault((entry.kind, identity), []).append(Location(entry, frame, start, length))
                start += length

    def load_segments(self):
        for name, identity in self.repository.store.list("index"):
            with self.repository.tolerating():
                for entry in read_segment(self.repository, name, identity):
                    self.add_pack(entry)

    def load_directories(self):
        """Section 7: "losing all segments loses nothing"."""
        for kind, folder in PACK_FOLDERS.items():
            for _, name in self.repository.store.list(folder):
                with self.repository.tolerating():
                    pack = self.packs[name] = Pack(self.repository, kind, name)
                    self.add_pack(PackEntry(name, kind, pack.header.domain, pack.header.epoch, pack.length,
                                            pack.read_directory()))

    def data(self, identity, length):
        return self._find(KIND_DATA_PACK, identity, length, self._all(KIND_DATA_PACK, identity))

    def node(self, identity):
        return self._find(KIND_TREE_PACK, identity, None, self._all(KIND_TREE_PACK, identity))

    def _all(self, kind, identity):
        return self.locations.get((kind, identity), ())

    def _find(self, kind, identity, length, locations):
        """The plaintext of a chunk from the first location whose bytes have its id."""
        errors = []
        for location in locations:
            try:
                chunk = self._read(kind, identity, location)
                if length not in (None, len(chunk)):
                    raise CairnError(f"chunk {identity.hex()} has {len(chunk)} bytes where {length} are stated")
                break
            except (CairnError, OSError) as error:
                errors.append(error)
        else:
            reasons = "; ".join(map(str, errors)) or "no pack known to this reader holds it"
            raise CairnError(f"chunk {identity.hex()}: {reasons}")
        for error in errors:
            self.repository.problem(error)
        return chunk

    def _read(self, kind, identity, location):
        plain = self._plaintext(location.entry, location.frame)
        chunk = plain[location.start:location.start + location.length]
        ring = self.repository.ring
        if MAC(ring.data_id_key if kind == KIND_DATA_PACK else ring.tree_id_key, chunk) != identity:
            raise CairnError(f"{pack_name(kind, location.entry.name)}: the bytes stored as a chunk do not have its id")
        return chunk

    def _plaintext(self, entry, frame):
        place = entry.name, frame
        if place in self.cache:
            self.cache.move_to_end(place)
            return self.cache[place]
        pack = self._pack(entry)
        what = f"{pack.object_name}, frame {frame.number}"
        prefix = b"".join(self._base(entry, *base, what) for base in frame.bases)
        plain = decode_frame(frame, pack.open_frame(frame), prefix, what)
        self.cache[place] = plain
        if len(self.cache) > CACHED_FRAMES:
            self.cache.popitem(last=False)
        return plain

    def _base(self, entry, identity, length, what):
        """A base stands in a frame without bases, of the same kind and domain (depth one)."""
        everywhere = self._all(entry.kind, identity)
        fit = [at for at in everywhere if not at.frame.bases and at.entry.domain == entry.domain]
        if everywhere and not fit:
            raise CairnError(f"{what}: base {identity.hex()} stands only in frames with bases or of another domain")
        return self._find(entry.kind, identity, length, fit)

    def _pack(self, entry):
        pack = self.packs.get(entry.name)
        if pack is None:
            pack = self.packs[entry.name] = Pack(self.repository, entry.kind, entry.name)
        if (pack.header.domain, pack.header.epoch, pack.length) != (entry.domain, entry.epoch, entry.length):
            raise CairnError(f"{pack.object_name}: it is not as the index describes it")
        return pack
