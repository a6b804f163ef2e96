"""SPEC sections 1 and 2: how numbers, strings, lists and field lists are written, and the limits."""

import struct

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

# Section 2. Bytes unless the name says otherwise.
CHUNK_MAX = MIB
FRAME_PLAINTEXT_MAX = 2 * MIB
FRAME_SEALED_MAX = 2 * MIB + 16
FRAME_CHUNKS_MAX = 4096
FRAME_BASES_MAX = 1024
FRAME_BASES_SUM_MAX = 16 * MIB
ZSTD_WINDOW_MAX = 1 << 25
PACK_TARGET_MIN, PACK_MAX = MIB, 256 * MIB
ALIGNED_MIN = 4096
PACK_FRAMES_MAX = 65536
DIRECTORY_PLAINTEXT_MAX = 8 * MIB
SEGMENT_OBJECT_MAX = 32 * MIB
SEGMENT_LEVEL_MAX = 64
SMALL_OBJECT_MAX = MIB
NODE_MAX = MIB
ENTRY_MAX = 448 * KIB
NAME_MAX = 1024
SYMLINK_TARGET_MAX = 65536
XATTRS_MAX = 262144
ENTRY_EXTENTS_MAX = 16
NODE_EXTENTS_MAX = 4096
NODE_LEVEL_MAX = 8
NESTING_MAX = 4096
FILE_BYTES_MAX = (1 << 63) - 1
LABEL_MAX = 255
ARGON2_KIB_MIN, ARGON2_KIB_MAX = 19456, 4 * MIB
ARGON2_PASSES_MIN, ARGON2_PASSES_MAX = 2, 64
ARGON2_LANES_MIN, ARGON2_LANES_MAX = 1, 16
KEY_FILE_MIN, KEY_FILE_MAX = 32, MIB

U64_MAX = (1 << 64) - 1
VARINT_BYTES_MAX = 10


class CairnError(Exception):
    """Something in the repository is not as the specification says; the message names it."""


class NewerFormat(CairnError):
    """Not damage: a later version of the format, or a field that may not be ignored."""


class Cursor:
    """Reads one structure from `data` front to back; `what` names the structure in errors."""

    def __init__(self, data, what):
        self.data = data
        self.what = what
        self.position = 0

    def fail(self, fact):
        raise CairnError(f"{self.what}: {fact} at byte {self.position}")

    def remaining(self):
        return len(self.data) - self.position

    def take(self, length):
        """`[n]`: raw bytes."""
        if length > self.remaining():
            self.fail(f"{length} bytes wanted, {self.remaining()} left")
        start = self.position
        self.position += length
        return bytes(self.data[start:self.position])

    def rest(self):
        return self.take(self.remaining())

    def end(self):
        if self.remaining():
            self.fail(f"{self.remaining()} bytes after the end")

    def zeros(self, length):
        if any(self.take(length)):
            self.fail("a reserved field is not zero")

    def _fixed(self, form, length):
        return struct.unpack("<" + form, self.take(length))[0]

    def u8(self):
        return self._fixed("B", 1)

    def u16(self):
        return self._fixed("H", 2)

    def u32(self):
        return self._fixed("I", 4)

    def u64(self):
        return self._fixed("Q", 8)

    def i64(self):
        return self._fixed("q", 8)

    def varint(self, limit=U64_MAX):
        """Unsigned LEB128, at most 10 bytes and 64 bits, shortest form only."""
        value = 0
        for index in range(VARINT_BYTES_MAX):
            byte = self.u8()
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if byte == 0 and index > 0:
                    self.fail("a varint is not in its shortest form")
                break
        else:
            self.fail("a varint is longer than 10 bytes")
        if value > limit:
            self.fail(f"{value} is beyond the limit {limit}")
        return value

    def zigzag(self):
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def bytes(self, limit=U64_MAX):
        """`varint` length, then that many bytes; `take` refuses what is not there."""
        return self.take(self.varint(limit))

    def str(self, limit=U64_MAX):
        raw = self.bytes(limit)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.fail("a string is not UTF-8")

    def list(self, read_item, smallest, limit=U64_MAX):
        """`list of X`. No count is believed that the bytes left cannot hold: an item has `smallest` bytes at least."""
        count = self.varint(limit)
        if count * smallest > self.remaining():
            self.fail(f"a list of {count} items does not fit in {self.remaining()} bytes")
        return [read_item() for _ in range(count)]

    def fields(self, known, required=()):
        """A field list up to the end: {tag: value}. Unknown even tags are left out, unknown odd ones refused."""
        found = {}
        last = -1
        while self.remaining():
            tag = self.varint()
            if tag <= last:
                self.fail(f"field {tag} follows field {last}")
            last = tag
            value = self.bytes()
            if tag in known:
                found[tag] = value
            elif tag % 2 == 1:
                raise NewerFormat(f"{self.what}: field {tag} is unknown and may not be ignored")
        for tag in required:
            if tag not in found:
                self.fail(f"field {tag} is missing")
        return found


def value(found, tag, what, read, default=None):
    """The scalar or list in field `tag`, which `read(cursor)` must use up exactly."""
    if tag not in found:
        return default
    cursor = Cursor(found[tag], f"{what}, field {tag}")
    result = read(cursor)
    cursor.end()
    return result


def require_ascending(items, what):
    for before, after in zip(items, items[1:]):
        if before >= after:
            raise CairnError(f"{what}: a list is not in ascending order")


def padme(length):
    """Section 5: the padded length, at most 12 % more."""
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    mantissa = exponent.bit_length()
    if exponent <= mantissa:
        return length
    step = 1 << (exponent - mantissa)
    return -(-length // step) * step
