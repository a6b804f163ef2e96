#!/usr/bin/env python3
"""A large file tree of real data, and a day of changes to it.

`build` copies programs, libraries and documents of this machine until the
tree is large enough, and adds what backup tools get wrong: hard links, holes,
extended attributes, FIFOs, odd names, thousands of tiny files. `change` does
what people do in a day. Both decide by sorted names and a fixed seed. As a
program it builds: `tree.py ROOT SCALE`.
"""

import errno
import os
import random
import shutil
import stat
import sys

SOURCES = [
    (b"/usr/share", 0.40),
    (b"/usr/lib", 0.40),
    (b"/usr/bin", 0.15),
    (b"/usr/include", 0.05),
]
FILES_FROM_SYSTEM_MAX = 40_000
TINY_FILES_AT_SCALE_ONE = 10_000
SPARSE_BYTES = 1 << 30
NOT_SUPPORTED = (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENOSYS)
SOME_TIME_NS = 1_700_000_000_123_456_789


def build(root, scale, oddities=True):
    """Makes the tree at `root`, about 500 MB at scale 1.

    Without `oddities` it holds plain files, folders and symbolic links only.
    """
    root = os.fsencode(root)
    os.mkdir(root)
    for source, part in SOURCES:
        budget = int(500e6 * scale * part)
        _copy_some(source, os.path.join(root, b"system", source[1:]), budget)
    _tiny_files(os.path.join(root, b"mail"), int(TINY_FILES_AT_SCALE_ONE * scale))
    if oddities:
        _oddities(os.path.join(root, b"odd"))


def data_bytes(root):
    """The bytes of all regular files below `root`, each inode once, without holes."""
    seen = {}
    for place, _, names in os.walk(os.fsencode(root)):
        for name in names:
            found = os.lstat(os.path.join(place, name))
            if stat.S_ISREG(found.st_mode):
                seen[found.st_dev, found.st_ino] = min(found.st_size, found.st_blocks * 512)
    return sum(seen.values())


def _copy_some(source, target, budget):
    files = total = 0
    for folder, folders, names in os.walk(source):
        folders.sort()
        if total >= budget or files >= FILES_FROM_SYSTEM_MAX:
            folders.clear()
            continue
        place = os.path.join(target, os.path.relpath(folder, source))
        os.makedirs(place, exist_ok=True)
        for name in sorted(names):
            try:
                size = _copy_one(os.path.join(folder, name), os.path.join(place, name), budget - total)
            except OSError:
                # Not everybody may read everything, and packages come and go.
                continue
            files, total = files + 1, total + size


def _copy_one(path, target, size_max):
    found = os.lstat(path)
    if found.st_size > size_max:
        return 0
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(path), target)
    elif stat.S_ISREG(found.st_mode):
        shutil.copyfile(path, target)
        os.chmod(target, stat.S_IMODE(found.st_mode) | stat.S_IRUSR | stat.S_IWUSR)
    else:
        return 0
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _tiny_files(folder, count):
    rng = random.Random("cairn demo mail")
    words = [f"{rng.getrandbits(24):x}" for _ in range(3000)]
    for number in range(count):
        place = os.path.join(folder, b"%02x" % (number % 251))
        if number < 251:
            os.makedirs(place)
        path = os.path.join(place, b"%d.eml" % number)
        text = " ".join(rng.choices(words, k=rng.randint(0, 300))).encode()
        _write(path, text)
        time_ns = SOME_TIME_NS + number * 1_000_000_007
        os.utime(path, ns=(time_ns, time_ns))


def _oddities(folder):
    os.mkdir(folder)

    def here(name):
        return os.path.join(folder, name)

    _write(here(b"linked"), b"one inode, three names\n" * 1000)
    os.link(here(b"linked"), here(b"linked too"))
    os.makedirs(here(b"deep/er"))
    os.link(here(b"linked"), here(b"deep/er/linked three"))
    os.symlink(b"nowhere/at all", here(b"dangling"))
    os.symlink(b"..", here(b"up"))
    os.mkdir(here(b"empty"), 0o700)
    os.mkdir(here(b"sticky"))
    os.chmod(here(b"sticky"), 0o1777)
    _write(here(b"not utf-8 \xff\xfe"), b"bytes\n")
    _write(here(b"new\nline"), b"x\n")
    _write(here(b"-r --force"), b"looks like an option\n")
    _write(here(b"  blanks  "), b"")
    _write(here(b"n" * 255), b"the longest name\n")
    _write(here(b"read only"), b"r\n")
    os.chmod(here(b"read only"), 0o444)
    _write(here(b"set uid"), b"#!/bin/true\n")
    os.chmod(here(b"set uid"), 0o4755)
    os.mkfifo(here(b"fifo"))
    os.utime(here(b"new\nline"), ns=(1, 1))
    _sparse(here(b"sparse.img"))
    _attributes(here(b"attributes"))
    if os.geteuid() == 0:
        _write(here(b"of others"), b"owner\n")
        os.chown(here(b"of others"), 12345, 54321)
        try:
            os.mknod(here(b"null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
        except OSError as error:
            if error.errno not in NOT_SUPPORTED:
                raise


def _sparse(path):
    rng = random.Random("cairn demo sparse")
    with open(path, "wb") as out:
        for part in range(8):
            out.seek(part * SPARSE_BYTES // 8)
            out.write(rng.randbytes(256 * 1024))
        out.truncate(SPARSE_BYTES)


def _attributes(path):
    _write(path, b"with extended attributes\n")
    try:
        os.setxattr(path, b"user.cairn.note", b"kept")
        os.setxattr(path, b"user.cairn.bytes", bytes(range(256)))
        os.setxattr(path, b"user.cairn.empty", b"")
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise


def _write(path, content):
    with open(path, "wb") as out:
        out.write(content)


def change(root):
    """Changes the tree at `root` as a day of work does."""
    root = os.fsencode(root)
    rng = random.Random("cairn demo day two")
    files = [path for path in _regular_files(os.path.join(root, b"system"))]
    for path in rng.sample(files, len(files) // 100):
        _overwrite_a_little(path, rng)
    for path in rng.sample(files, len(files) // 200):
        os.unlink(path)
    mail = os.path.join(root, b"mail")
    for number in range(len(files) // 50):
        _write(os.path.join(mail, b"00", b"new-%d.eml" % number), rng.randbytes(rng.randint(1, 4000)))
    os.rename(os.path.join(mail, b"03"), os.path.join(mail, b"archive"))
    if os.path.exists(os.path.join(root, b"odd")):
        _change_oddities(os.path.join(root, b"odd"), rng)


def _change_oddities(odd, rng):
    os.unlink(os.path.join(odd, b"linked too"))
    _write(os.path.join(odd, b"linked too"), b"an inode of its own\n")
    os.unlink(os.path.join(odd, b"dangling"))
    os.symlink(b"elsewhere", os.path.join(odd, b"dangling"))
    os.chmod(os.path.join(odd, b"empty"), 0o750)
    os.rmdir(os.path.join(odd, b"sticky"))
    _write(os.path.join(odd, b"sticky"), b"a file where a folder was\n")
    with open(os.path.join(odd, b"sparse.img"), "r+b") as image:
        image.seek(SPARSE_BYTES // 2 + (64 << 20))
        image.write(rng.randbytes(100_000))
    try:
        os.setxattr(os.path.join(odd, b"attributes"), b"user.cairn.note", b"changed")
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise


def _regular_files(folder):
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(place, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                yield path


def _overwrite_a_little(path, rng):
    # Each third of the changes: bytes in the middle, bytes at the end, a whole new file.
    kind = rng.randrange(3)
    size = os.path.getsize(path)
    if kind == 2:
        _write(path, rng.randbytes(min(size, 200_000)))
        return
    with open(path, "r+b") as out:
        out.seek(rng.randrange(size) if kind == 0 and size else size)
        out.write(rng.randbytes(100))


if __name__ == "__main__":
    build(sys.argv[1], float(sys.argv[2]))
