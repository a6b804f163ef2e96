"""One snapshot with everything section 9 knows, written by the tiny writer; and what a restore of it must look like."""

import os
import stat

from tiny_writer import (DATA, Frame, TREE, Writer, counted, directory_inner, directory_leaf, entry, extent, extent_inner,
                         extent_leaf, items, varint)

KEY_FILE = b"k" * 40
FILE, DIRECTORY, SYMLINK, FIFO, CHARACTER, BLOCK, SOCKET = range(1, 8)


class Sample:
    """Writes the repository into `folder`. `expected`: path -> (kind, content), content by kind as `look` gives it."""

    def __init__(self, folder, cipher, signer_role=None):
        self.writer = Writer(folder, cipher)
        if signer_role is not None:
            self.writer.by = self.writer.signer(signer_role, "other")
        self.expected = {}
        self.nodes = []
        root = self._tree()
        self._write_tree_packs()
        self.writer.config()
        self.writer.slot(2, 2, KEY_FILE)
        self.snapshot = self.writer.snapshot(root)

    def _node(self, node):
        self.nodes.append(node)
        return self.writer.tree_id(node)

    def _data(self):
        """Chunks in stored, compressed and delta frames; the last chunk of all stands in two packs."""
        w = self.writer
        old = [w.bytes(5000) for _ in range(3)]
        new = [old[0][:4000] + b"changed" + old[1][:900], old[2][::-1][:10] + old[2]]
        w.pack(DATA, [Frame(old[:2]), Frame(old[2:], codec=0)])
        twice = b"z" * 3000
        w.pack(DATA, [Frame(new, bases=[old[2], old[0], old[1]]), Frame([twice])])
        self.second_copy = w.pack(DATA, [Frame([twice], codec=0)]).hex()
        return old, new, twice

    def _tree(self):
        w = self.writer
        old, new, twice = self._data()
        of = lambda chunk: extent(w.data_id(chunk), len(chunk))
        small = items([of(old[0]), of(new[0]), extent(None, 100_000), of(new[1]), extent(None, 7)])
        small_bytes = old[0] + new[0] + bytes(100_000) + new[1] + bytes(7)
        f1 = varint(len(small_bytes)) + small
        link = varint(66) + varint(77)
        attributes = items([counted(b"user.a") + counted(b"1"), counted(b"user.b") + counted(b"\0\xff")])
        leaves = [self._node(extent_leaf([of(old[i % 3]), extent(None, 1 << 20)] * 5)) for i in range(2)]
        size = 5 * (5000 + (1 << 20))
        inner = self._node(extent_inner(1, [(leaves[0], size), (leaves[1], size)]))
        last = self._node(extent_inner(1, [(self._node(extent_leaf([of(twice)])), 3000)]))
        large = self._node(extent_inner(2, [(inner, 2 * size), (last, 3000)]))
        large_bytes = (old[0] + bytes(1 << 20)) * 5 + (old[1] + bytes(1 << 20)) * 5 + twice
        empty = self._node(directory_leaf([]))
        many = self._many()
        kinds = [
            entry(FILE, b"a", 0o4751, 12, 34, (1_600_000_000, 1), f1=f1, f2=counted(b"someone"), f6=link, f8=attributes),
            entry(FILE, b"b-same", 0o4751, 12, 34, (1_600_000_000, 1), f1=f1, f6=link),
            entry(BLOCK, b"block", f9=varint(7) + varint(300)),
            entry(CHARACTER, b"char", f9=varint(1) + varint(3)),
            entry(DIRECTORY, b"empty", 0o1755, f5=empty),
            entry(FILE, b"empty-file", 0, f1=varint(0) + items([])),
            entry(FIFO, b"fifo", 0o600),
            entry(FILE, b"large", mtime=(-5, 999_999_999), f3=varint(len(large_bytes)) + large),
            entry(SYMLINK, b"link", 0o777, f7=b"../anywhere\xff"),
            entry(DIRECTORY, b"many", 0o500, f5=many),
            entry(SOCKET, b"socket", 0o755),
            entry(FILE, "\u00fc\n".encode() + b"\xfe", f1=varint(0) + items([])),
        ]
        self.expected |= {
            b"a": ("directory", 0o755), b"a/a": ("file", small_bytes),
            b"a/b-same": ("file", small_bytes), b"a/empty": ("directory", 0o1755),
            b"a/large": ("file", large_bytes), b"a/link": ("link", b"../anywhere\xff"), b"a/many": ("directory", 0o500),
            b"a/fifo": ("fifo", 0o600), b"a/socket": ("socket", 0o755), b"a/empty-file": ("file", b""),
            b"a/" + "\u00fc\n".encode() + b"\xfe": ("file", b""),
        }
        if os.geteuid() == 0:
            self.expected |= {b"a/block": ("block", (7, 300)), b"a/char": ("char", (1, 3))}
        return self._node(directory_leaf([entry(DIRECTORY, b"a", 0o755, f5=self._node(directory_leaf(kinds)))]))

    def _many(self):
        """Six leaves below two levels of inner nodes."""
        leaves = []
        for group in range(6):
            names = [b"f%d%d" % (group, i) for i in range(4)]
            self.expected |= {b"a/many/" + name: ("file", b"") for name in names}
            node = self._node(directory_leaf([entry(FILE, name, f1=varint(0) + items([])) for name in names]))
            leaves.append((names[0], node, 4))
        halves = [self._node(directory_inner(1, leaves[:3])), self._node(directory_inner(1, leaves[3:]))]
        return self._node(directory_inner(2, [(b"f00", halves[0], 12), (b"f30", halves[1], 12)]))

    def _write_tree_packs(self):
        """Half of the nodes plainly; the others as deltas against those."""
        half = len(self.nodes) // 2
        self.writer.pack(TREE, [Frame(self.nodes[:3]), Frame(self.nodes[3:half], codec=0)])
        self.writer.pack(TREE, [Frame(self.nodes[half:], bases=self.nodes[:half])])


def look(target):
    """{path: (kind, content)} of a folder, in the terms of `Sample.expected`."""
    found = {}
    top = os.fsencode(target)
    for folder, names, files in os.walk(top):
        for name in names + files:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, top)] = look_at(path)
    return found


def look_at(path):
    status = os.lstat(path)
    kind, mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
    if kind == stat.S_IFREG:
        os.chmod(path, mode | 0o400)
        with open(path, "rb") as file:
            content = file.read()
        os.chmod(path, mode)
        return "file", content
    if kind == stat.S_IFLNK:
        return "link", os.readlink(path)
    if kind in (stat.S_IFBLK, stat.S_IFCHR):
        return "block" if kind == stat.S_IFBLK else "char", (os.major(status.st_rdev), os.minor(status.st_rdev))
    return {stat.S_IFDIR: "directory", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}[kind], mode
