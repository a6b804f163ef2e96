#!/usr/bin/env python3
"""Compares two file trees in everything a restore has to bring back.

`compare_trees.py LEFT RIGHT [--content-only]` prints the differences and exits
with 1 when there are any. It shares nothing with cairn: it is the judge of it.

Compared are names, types, content, holes, permission bits, owner and group,
modification times in nanoseconds, targets of symbolic links, numbers of
devices, extended attributes (POSIX ACLs among them), and which names share an
inode. A hole of LEFT must be a hole of RIGHT; RIGHT may have more.
"""

import errno
import itertools
import os
import stat
import sys
from dataclasses import dataclass

BLOCK_BYTES = 1 << 20
# Which label a file gets is the policy of the machine, not the file's own.
ATTRIBUTES_IGNORED = {"security.selinux"}


@dataclass(frozen=True)
class Difference:
    """One aspect in which one name differs."""

    path: bytes
    aspect: str
    left: object
    right: object

    def __str__(self):
        name = os.fsdecode(self.path).encode("utf-8", "backslashreplace").decode()
        return f"{name!r}: {self.aspect} is {self.left!r} and became {self.right!r}"


def differences(left, right, content_only=False):
    """Yields each `Difference` between the trees at `left` and `right`, the roots included."""
    yield from _Comparison(content_only).entries(os.fsencode(left), os.fsencode(right), b".")


class _Comparison:
    def __init__(self, content_only):
        self.content_only = content_only
        # The name under which each inode was met first: equal on both sides if links are.
        self.first_names = ({}, {})

    def entries(self, left, right, path):
        a, b = os.lstat(left), os.lstat(right)
        if stat.S_IFMT(a.st_mode) != stat.S_IFMT(b.st_mode):
            yield Difference(path, "type", _type(a), _type(b))
            return
        if not self.content_only:
            yield from self._metadata(left, right, path, a, b)
        if stat.S_ISREG(a.st_mode):
            yield from self._content(left, right, path, a, b)
        elif stat.S_ISLNK(a.st_mode):
            yield from _unequal(path, "link target", os.readlink(left), os.readlink(right))
        elif stat.S_ISCHR(a.st_mode) or stat.S_ISBLK(a.st_mode):
            yield from _unequal(path, "device", a.st_rdev, b.st_rdev)
        elif stat.S_ISDIR(a.st_mode):
            yield from self._children(left, right, path)

    def _children(self, left, right, path):
        ours, theirs = set(os.listdir(left)), set(os.listdir(right))
        for name in sorted(ours | theirs):
            inner = name if path == b"." else os.path.join(path, name)
            if name not in theirs:
                yield Difference(inner, "presence", "there", "missing")
            elif name not in ours:
                yield Difference(inner, "presence", "missing", "there")
            else:
                yield from self.entries(
                    os.path.join(left, name), os.path.join(right, name), inner
                )

    def _metadata(self, left, right, path, a, b):
        yield from _unequal(
            path, "mode", oct(stat.S_IMODE(a.st_mode)), oct(stat.S_IMODE(b.st_mode))
        )
        yield from _unequal(path, "owner", (a.st_uid, a.st_gid), (b.st_uid, b.st_gid))
        yield from _unequal(path, "time of modification", a.st_mtime_ns, b.st_mtime_ns)
        yield from _unequal(path, "extended attributes", _attributes(left), _attributes(right))
        if not stat.S_ISDIR(a.st_mode):
            names = [
                first.setdefault((found.st_dev, found.st_ino), path)
                for first, found in zip(self.first_names, (a, b))
            ]
            yield from _unequal(path, "hard link to", *names)

    def _content(self, left, right, path, a, b):
        if a.st_size != b.st_size:
            yield Difference(path, "size", a.st_size, b.st_size)
            return
        at = _first_unequal_byte(left, right, a.st_size)
        if at is not None:
            yield Difference(path, "content", f"one thing at byte {at}", "another")
        elif not self.content_only and a.st_blocks * 512 < a.st_size:
            lost = _hole_lost(left, right, a.st_size)
            if lost is not None:
                yield Difference(path, "hole", f"a hole at byte {lost}", "stored zeros")


def _unequal(path, aspect, left, right):
    if left != right:
        yield Difference(path, aspect, left, right)


def _type(found):
    return stat.filemode(found.st_mode)[0]


def _attributes(path):
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in sorted(names)
        if name not in ATTRIBUTES_IGNORED
    }


def _first_unequal_byte(left, right, size):
    with open(left, "rb", buffering=0) as a, open(right, "rb", buffering=0) as b:
        # Where both have holes there is nothing to read.
        for start, end in _ranges_of_either(left, right, size):
            a.seek(start)
            b.seek(start)
            for place in range(start, end, BLOCK_BYTES):
                ours, theirs = (_read(file, min(BLOCK_BYTES, end - place)) for file in (a, b))
                if ours != theirs:
                    pairs = enumerate(itertools.zip_longest(ours, theirs))
                    return place + next(at for at, (x, y) in pairs if x != y)
    return None


def _ranges_of_either(left, right, size):
    merged = []
    for start, end in sorted(_data_ranges(left, size) + _data_ranges(right, size)):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _read(file, wanted):
    parts = []
    while wanted and (part := file.read(wanted)):
        parts.append(part)
        wanted -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _data_ranges(path, size):
    """The ranges of `path` that hold data, as the file system tells them."""
    ranges = []
    descriptor = os.open(path, os.O_RDONLY)
    try:
        end = 0
        while end < size:
            try:
                start = os.lseek(descriptor, end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break
                raise
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
            ranges.append((start, end))
    finally:
        os.close(descriptor)
    return ranges


def _hole_lost(left, right, size):
    """The first byte that is in a hole of `left` and stored in `right`, or None."""
    kept = _data_ranges(left, size)
    for start, end in _data_ranges(right, size):
        place = start
        for kept_start, kept_end in kept:
            if kept_start <= place < kept_end:
                place = kept_end
        if place < end:
            return place
    return None


def main(arguments):
    """Compares as the command line says; returns the exit status."""
    content_only = "--content-only" in arguments
    left, right = (argument for argument in arguments if argument != "--content-only")
    found = list(itertools.islice(differences(left, right, content_only), 20))
    for difference in found:
        print(difference)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
