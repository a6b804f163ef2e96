"""SPEC section 9: nodes, extents, entries."""

from dataclasses import dataclass, field

from .encoding import (CHUNK_MAX, CairnError, Cursor, ENTRY_EXTENTS_MAX, ENTRY_MAX, FILE_BYTES_MAX, LABEL_MAX, NAME_MAX,
                       NODE_EXTENTS_MAX, NODE_LEVEL_MAX, SYMLINK_TARGET_MAX, XATTRS_MAX, require_ascending, value)

DIRECTORY_LEAF, DIRECTORY_INNER, EXTENT_LEAF, EXTENT_INNER = 0x44, 0x49, 0x45, 0x4A
FILE, DIRECTORY, SYMLINK, FIFO, CHARACTER_DEVICE, BLOCK_DEVICE, SOCKET = range(1, 8)
DEVICES = (CHARACTER_DEVICE, BLOCK_DEVICE)
MODE_MAX = 0o7777
U32_MAX = (1 << 32) - 1
NANOSECONDS = 10 ** 9

# The table of an entry's fields: tag -> kinds that may have it.
ANY = tuple(range(1, 8))
FIELD_KINDS = {
    1: (FILE,),
    2: ANY,
    3: (FILE,),
    4: ANY,
    5: (DIRECTORY,),
    6: tuple(kind for kind in ANY if kind != DIRECTORY),
    7: (SYMLINK,),
    8: ANY,
    9: DEVICES,
}
REQUIRED_FIELDS = {DIRECTORY: (5,), SYMLINK: (7,), CHARACTER_DEVICE: (9,), BLOCK_DEVICE: (9,)}


@dataclass(frozen=True)
class Entry:
    kind: int
    name: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0                 # file
    extents: tuple = ()           # file with at most 16: ((length, chunk id or None), ...)
    node: bytes = None            # file with more: extent node; directory: its node
    link: tuple = None            # (device, inode)
    target: bytes = None          # symbolic link
    device: tuple = None          # (major, minor)
    xattrs: list = field(default_factory=list)

    @property
    def content(self):
        """What entries with the same `link` must agree in to be one file."""
        return self.kind, self.size, self.extents, self.node, self.target, self.device


def parse_entry(raw, what):
    cursor = Cursor(raw, what)
    kind, name = cursor.u8(), cursor.bytes(NAME_MAX)
    if kind not in ANY:
        cursor.fail(f"unknown kind {kind}")
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        cursor.fail(f"the name {name!r} is not allowed")
    what = f"{what}, entry {name!r}"
    mode, uid, gid = cursor.varint(MODE_MAX), cursor.varint(U32_MAX), cursor.varint(U32_MAX)
    mtime_ns = cursor.zigzag() * NANOSECONDS + cursor.varint(NANOSECONDS - 1)
    found = cursor.fields(FIELD_KINDS, REQUIRED_FIELDS.get(kind, ()))
    for tag in found:
        if kind not in FIELD_KINDS[tag]:
            cursor.fail(f"field {tag} in an entry of kind {kind}")
    get = lambda tag, read, default=None: value(found, tag, what, read, default)
    get(2, lambda c: c.str(LABEL_MAX))
    get(4, lambda c: c.str(LABEL_MAX))
    content = _file_content(found, get, what) if kind == FILE else {}
    if kind == DIRECTORY:
        content["node"] = get(5, lambda c: c.take(32))
    if kind in DEVICES:
        content["device"] = get(9, lambda c: (c.varint(U32_MAX), c.varint(U32_MAX)))
    if kind == SYMLINK:
        content["target"] = _target(found[7], what)
    return Entry(kind, name, mode, uid, gid, mtime_ns, link=get(6, lambda c: (c.varint(), c.varint())),
                 xattrs=get(8, lambda c: _xattrs(c, what), []), **content)


def _file_content(found, get, what):
    if (1 in found) == (3 in found):
        raise CairnError(f"{what}: a file has exactly one of the fields 1 and 3")
    if 3 in found:
        size, node = get(3, lambda c: (c.varint(FILE_BYTES_MAX), c.take(32)))
        return {"size": size, "node": node}
    size, extents = get(1, lambda c: (c.varint(FILE_BYTES_MAX), _extent_list(c, ENTRY_EXTENTS_MAX)))
    if sum(length for length, _ in extents) != size:
        raise CairnError(f"{what}: the extents do not add up to the file's length")
    return {"size": size, "extents": tuple(extents)}


def _target(raw, what):
    if not 1 <= len(raw) <= SYMLINK_TARGET_MAX or b"\0" in raw:
        raise CairnError(f"{what}: the symbolic link's target is not allowed")
    return raw


def _xattrs(cursor, what):
    pairs = cursor.list(lambda: (cursor.bytes(), cursor.bytes()), 3)
    if not pairs or any(not name or b"\0" in name for name, _ in pairs):
        cursor.fail("no extended attributes, or one whose name is not allowed")
    if sum(len(name) + len(content) for name, content in pairs) > XATTRS_MAX:
        cursor.fail("too many bytes of extended attributes")
    require_ascending([name for name, _ in pairs], f"{what}, extended attributes")
    return pairs


# Extents

def _extent_list(cursor, limit):
    """`list of extents`: [(length, chunk id or None for a hole)]."""
    def one():
        number = cursor.varint()
        length, hole = number >> 1, number & 1
        if length == 0 or (not hole and length > CHUNK_MAX):
            cursor.fail(f"an extent of {length} bytes")
        return length, None if hole else cursor.take(32)
    return cursor.list(one, 1, limit)


def file_extents(chunks, entry):
    """Yields (length, chunk id or None) from the file's beginning to its end, checked against its length."""
    total, hole_before = 0, False
    for length, identity in entry.extents if entry.node is None else _walk_extents(chunks, entry.node, None):
        total += length
        if total > entry.size:
            break
        if identity is None and hole_before:
            raise CairnError("two holes follow each other")
        hole_before = identity is None
        yield length, identity
    if total != entry.size:
        raise CairnError("the extents do not add up to the file's length")


def _walk_extents(chunks, identity, level):
    """The extents under one node. `level` is what the parent demands (0 a leaf), None at the root."""
    cursor, kind, stated = _open_node(chunks, identity, level, EXTENT_LEAF, EXTENT_INNER)
    if kind == EXTENT_LEAF:
        extents = _extent_list(cursor, NODE_EXTENTS_MAX)
        cursor.end()
        if not extents:
            cursor.fail("an empty extent node")
        yield from extents
        return
    children = cursor.list(lambda: (cursor.take(32), cursor.varint(FILE_BYTES_MAX)), 33, NODE_EXTENTS_MAX)
    cursor.end()
    if not children:
        cursor.fail("an empty extent node")
    for child, size in children:
        total = 0
        for extent in _walk_extents(chunks, child, stated - 1):
            total += extent[0]
            yield extent
        if total != size:
            cursor.fail("a child does not have the bytes stated for it")


# Directories

def directory_entries(chunks, identity):
    """Yields a directory's entries, strictly ascending by name, each node checked before its entries are used."""
    last = None
    for entry in _walk_directory(chunks, identity, None):
        if last is not None and entry.name <= last:
            raise CairnError(f"node {identity.hex()}: entry {entry.name!r} follows {last!r}")
        last = entry.name
        yield entry


def _walk_directory(chunks, identity, level):
    cursor, kind, stated = _open_node(chunks, identity, level, DIRECTORY_LEAF, DIRECTORY_INNER)
    if kind == DIRECTORY_LEAF:
        entries = [parse_entry(raw, cursor.what) for raw in cursor.list(lambda: cursor.bytes(ENTRY_MAX), 1)]
        cursor.end()
        require_ascending([entry.name for entry in entries], cursor.what)
        if not entries and level is not None:
            cursor.fail("an empty node below the root")
        yield from entries
        return
    children = cursor.list(lambda: (cursor.bytes(NAME_MAX), cursor.take(32), cursor.varint()), 34)
    cursor.end()
    if not children:
        cursor.fail("an empty inner node")
    for first_name, child, stated_count in children:
        count = 0
        for entry in _walk_directory(chunks, child, stated - 1):
            if count == 0 and entry.name != first_name:
                cursor.fail("a child does not begin with the name stated for it")
            count += 1
            yield entry
        if count != stated_count:
            cursor.fail("a child does not have the number of entries stated for it")


def _open_node(chunks, identity, level, leaf, inner):
    """(cursor after the node's head, kind, level). Levels fall by one towards the leaves, so walks end."""
    cursor = Cursor(chunks.node(identity), f"node {identity.hex()}")
    kind = cursor.u8()
    if kind not in (leaf, inner):
        cursor.fail(f"first byte {kind:02x} where {leaf:02x} or {inner:02x} is due")
    stated = 0 if kind == leaf else cursor.u8()
    if kind == inner and not 1 <= stated <= NODE_LEVEL_MAX:
        cursor.fail(f"level {stated}")
    if level not in (None, stated):
        cursor.fail(f"level {stated} where {level} is due")
    return cursor, kind, stated
