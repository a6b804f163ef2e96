"""Tests of the reader: structures that are properly sealed but not as the text says."""

import contextlib
import os
import random
import unittest

import blake3
import zstandard

from cairn_reader import crypto, encoding, packs, records, tree
from cairn_reader.encoding import CairnError, Cursor
from repository_case import RepositoryTest, flip
from sample_repository import KEY_FILE
from tiny_writer import (DATA, Frame, H, READER, TREE, Writer, counted, directory_inner, directory_leaf, entry, extent,
                         extent_inner, extent_leaf, fields, items, u32, varint)


class Trees(RepositoryTest):
    """Nodes that are properly stored and signed but not as section 9 says."""

    EMPTY = varint(0) + items([])

    def refused(self, root_entries, problem, **more):
        found, problems = self.single(root_entries, **more)
        self.assertRegex("; ".join(problems), problem)
        self.assertEqual(found, {})

    def test_unsafe_names(self):
        for name in (b"", b".", b"..", b"a/b", b"/a", b"a\0b", b"n" * 1025):
            with self.subTest(name=name):
                self.refused([entry(1, name, f1=self.EMPTY)], "not allowed|beyond the limit",
                             writer=self.fresh())

    def test_entries(self):
        good = entry(1, b"n", f1=self.EMPTY)
        for label, entries, problem in (
                ("order", [entry(1, b"b", f1=self.EMPTY), entry(1, b"a", f1=self.EMPTY)], "ascending"),
                ("twice", [good, good], "ascending"),
                ("kind", [b"\x08" + good[1:]], "unknown kind"),
                ("mode", [entry(1, b"n", 0o10000, f1=self.EMPTY)], "beyond the limit"),
                ("nanoseconds", [entry(1, b"n", mtime=(0, 10**9), f1=self.EMPTY)], "beyond the limit"),
                ("no content", [entry(1, b"n")], "exactly one"),
                ("two contents", [entry(1, b"n", f1=self.EMPTY, f3=varint(0) + bytes(32))], "exactly one"),
                ("odd field", [entry(1, b"n", f1=self.EMPTY, f11=b"")], "may not be ignored"),
                ("field of another kind", [entry(4, b"n", f7=b"x")], "in an entry of kind"),
                ("long entry", [entry(1, b"n", f1=self.EMPTY, f12=bytes(448 << 10))], "beyond the limit"),
                ("empty target", [entry(3, b"n", f7=b"")], "target"),
                ("NUL in target", [entry(3, b"n", f7=b"a\0b")], "target"),
                ("no target", [entry(3, b"n")], "missing"),
                ("bytes", [entry(1, b"n", f1=varint(5) + items([extent(None, 4)]))], "add up"),
                ("17 extents", [entry(1, b"n", f1=varint(17) + items([extent(bytes(32), 1)] * 17))], "beyond the limit"),
                ("empty extent", [entry(1, b"n", f1=varint(0) + items([varint(1)]))], "extent of 0"),
                ("long chunk", [entry(1, b"n", f1=varint(1 << 21) + items([extent(bytes(32), 1 << 21)]))], "extent of"),
                ("two holes", [entry(1, b"n", f1=varint(8) + items([extent(None, 4)] * 2))], "two holes"),
                ("missing chunk", [entry(1, b"n", f1=varint(8) + items([extent(bytes(32), 8)]))], "no pack known"),
                ("long user", [entry(1, b"n", f1=self.EMPTY, f2=counted(b"u" * 256))], "beyond the limit"),
                ("device", [entry(5, b"n", f9=varint(1 << 32) + varint(0))], "beyond the limit"),
                ("length", [entry(1, b"n", f3=varint(1 << 63) + bytes(32))], "beyond the limit"),
                ("no xattrs", [entry(1, b"n", f1=self.EMPTY, f8=items([]))], "no extended attributes"),
                ("xattr without name", [entry(1, b"n", f1=self.EMPTY, f8=items([b"\0" + counted(b"v")]))], "not allowed"),
                ("NUL in xattr", [entry(1, b"n", f1=self.EMPTY, f8=items([counted(b"a\0") + counted(b"v")]))], "not allowed"),
                ("xattr order", [entry(1, b"n", f1=self.EMPTY, f8=items([counted(b"b") + counted(b""), counted(b"a") + counted(b"")]))],
                 "ascending")):
            with self.subTest(label):
                self.refused(entries, problem, writer=self.fresh())

    def test_an_unknown_even_field_is_ignored(self):
        found, problems = self.single([entry(1, b"n", f1=self.EMPTY, f12=b"later")])
        self.assertEqual((found, problems), ({b"n": ("file", b"")}, []))

    def test_directory_nodes(self):
        w = self.fresh()
        leaf = directory_leaf([entry(1, b"n", f1=self.EMPTY)])
        other = directory_leaf([entry(1, b"m", f1=self.EMPTY)])
        empty = directory_leaf([])
        of = w.tree_id
        for label, node, problem in (
                ("empty inner", directory_inner(1, []), "empty"),
                ("empty child", directory_inner(1, [(b"n", of(empty), 0)]), "empty"),
                ("level", directory_inner(2, [(b"n", of(leaf), 1)]), "level 0 where 1"),
                ("level 9", directory_inner(9, [(b"n", of(leaf), 1)]), "level 9"),
                ("nothing below", directory_inner(1, [(b"n", of(leaf), 0)]), "number of entries"),
                ("count", directory_inner(1, [(b"n", of(leaf), 2)]), "number of entries"),
                ("first name", directory_inner(1, [(b"o", of(leaf), 1)]), "begin with"),
                ("order", directory_inner(1, [(b"n", of(leaf), 1), (b"m", of(other), 1)]), "follows"),
                ("an extent node", extent_leaf([extent(None, 4)]), "first byte 45"),
                ("bytes after the end", leaf + b"\0", "after the end")):
            with self.subTest(label):
                w = self.fresh()
                found, problems = self.single([entry(2, b"d", 0o700, f5=w.tree_id(node))], writer=w,
                                              nodes=[leaf, other, empty, node])
                self.assertRegex("; ".join(problems), problem)
                self.assertLessEqual(set(found), {b"d", b"d/n"})

    def test_extent_nodes(self):
        chunk = b"chunk"
        w = self.fresh()
        leaf = extent_leaf([extent(w.data_id(chunk), 5), extent(None, 3)])
        hole = extent_leaf([extent(None, 3)])
        of = w.tree_id
        for label, node, size, problem in (
                ("bytes", leaf, 9, "add up"), ("fewer bytes", leaf, 7, "add up"),
                ("a child's bytes", extent_inner(1, [(of(leaf), 9)]), 8, "bytes stated"),
                ("holes meet across nodes", extent_inner(1, [(of(leaf), 8), (of(hole), 3)]), 11, "two holes"),
                ("empty", extent_leaf([]), 0, "empty"), ("empty inner", extent_inner(1, []), 0, "empty"),
                ("too many", extent_leaf([extent(w.data_id(chunk), 5)] * 4097), 5 * 4097, "beyond the limit"),
                ("chunk of another length", extent_leaf([extent(w.data_id(chunk), 4)]), 4, "are stated"),
                ("data as a node", None, 5, "no pack known")):
            with self.subTest(label):
                w = self.fresh()
                identity = w.data_id(chunk) if node is None else w.tree_id(node)
                self.refused([entry(1, b"f", f3=varint(size) + identity)], problem, writer=w, data=[chunk],
                             nodes=[leaf, hole] + ([node] if node else []))

    def test_links_that_differ(self):
        link = varint(1) + varint(1)
        found, problems = self.single([
            entry(1, b"a", f1=self.EMPTY, f6=link), entry(1, b"b", f1=varint(3) + items([extent(None, 3)]), f6=link)])
        self.assertEqual(found, {b"a": ("file", b""), b"b": ("file", bytes(3))})
        self.assertRegex(problems[0], "other content")


class Frames(RepositoryTest):
    def test_depth_one(self):
        """A base that stands only in a frame with bases is refused; a second, plain copy of it will do."""
        base, middle, last = b"a" * 500, b"a" * 499 + b"b", b"a" * 498 + b"cd"
        for plain_copy in (False, True):
            self.repo = os.path.join(self.folder, f"depth{plain_copy}")
            w = Writer(self.repo)
            w.pack(DATA, [Frame([base]), Frame([middle], bases=[base]), Frame([last], bases=[middle])])
            if plain_copy:
                w.pack(DATA, [Frame([middle])])
            content = varint(500) + items([extent(w.data_id(last), 500)])
            found, problems = self.single([entry(1, b"f", f1=content)], writer=w)
            if plain_copy:
                self.assertEqual((found, problems), ({b"f": ("file", last)}, []))
            else:
                self.assertEqual(found, {})
                self.assertRegex(problems[0], "only in frames with bases")

    def test_parity_sections_are_stepped_over(self):
        w = Writer(self.repo)
        root = directory_leaf([])
        w.pack(TREE, [Frame([root])], parity=True)
        w.config()
        w.slot(2, READER, KEY_FILE)
        snapshot = w.snapshot(w.tree_id(root))
        for from_packs in (False, True):
            self.assertEqual(self.restore(self.open(), snapshot, from_packs), ({}, []))
        path = os.path.join(self.repo, self.open().store.list("packs/tree")[0][0])
        length = os.path.getsize(path)
        for back in (40, 20):
            flip(path, length - back)
            found, problems = self.restore(self.open(), snapshot, True)
            self.assertEqual(found, {})
            self.assertRegex("; ".join(problems), "last bytes are damaged")
            flip(path, length - back)
        with open(path, "rb") as file:
            raw = file.read()
        footer = raw[-48:]
        flip(path, length - 40)
        flip(path, raw.index(footer) + 8)
        self.assertRegex("; ".join(self.restore(self.open(), snapshot, True)[1]), "neither footer is sound")

    def test_a_base_of_another_domain(self):
        w = Writer(self.repo)
        w.domains.append(1)
        w.pack(DATA, [Frame([b"base" * 50])], domain=1)
        w.pack(DATA, [Frame([b"last" * 50], bases=[b"base" * 50])])
        w.slot(2, READER, KEY_FILE, domains=[(0, 1), (1, 1)])
        content = varint(200) + items([extent(w.data_id(b"last" * 50), 200)])
        found, problems = self.single([entry(1, b"f", f1=content)], writer=w)
        self.assertEqual(found, {})
        self.assertRegex(problems[0], "another domain")

    def test_a_chunk_that_is_not_what_its_id_says(self):
        """A writer with all keys describes wrong bytes."""
        w = Writer(self.repo)
        true_id = w.data_id
        w.data_id = lambda chunk: true_id(b"other")
        w.pack(DATA, [Frame([b"false"])])
        content = varint(5) + items([extent(true_id(b"other"), 5)])
        found, problems = self.single([entry(1, b"f", f1=content)], writer=w)
        self.assertEqual(found, {})
        self.assertRegex(problems[0], "do not have its id")

    def frame(self, plain_length, codec=1):
        return packs.Frame(0, codec, 192, 0, plain_length, (), ())

    def test_prefixes_as_zstd_makes_them(self):
        """Frames that the C library (1.5.4) made with ZSTD_CCtx_refPrefix from a prefix of 16 MiB, far beyond their windows."""
        prefix = blake3.blake3(b"prefix").digest(length=16 << 20)
        for made, data in (
                ("28b52ffd60d0069d000018e120f90200e5d70700a902e2070000aa3f04", prefix[:1000] + prefix[8 << 20:][:1000]),
                ("28b52ffda0e093040074000018e120f90100faff030000f91f025c0000000100fdff030000f90702450000000100dd131d0001",
                 prefix[:300_000])):
            made = bytes.fromhex(made)
            self.assertEqual(packs.decode_frame(self.frame(len(data)), made, prefix, "frame"), data)
            with self.assertRaises(CairnError):
                packs.decode_frame(self.frame(len(data) + 1), made, prefix, "frame")

    def test_a_prefix_that_looks_like_a_dictionary(self):
        prefix = bytes.fromhex("37a430ec") + blake3.blake3(b"").digest(length=4000)
        encoded = Frame([prefix[:3000]], bases=[prefix]).encoded()
        self.assertLess(len(encoded), 100)
        self.assertEqual(packs.decode_frame(self.frame(3000), encoded, prefix, "frame"), prefix[:3000])

    def test_zstd_frames_that_are_refused(self):
        plain = b"x" * 5000
        good = zstandard.ZstdCompressor().compress(plain)
        unsized = zstandard.ZstdCompressor(write_content_size=False).compress(plain)
        wide = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(
            window_log=26, write_content_size=0)).compressobj()
        wide = wide.compress(plain) + wide.flush()
        summed = zstandard.ZstdCompressor(write_checksum=True).compress(plain)
        skippable = bytes.fromhex("502a4d1800000000")
        self.assertEqual(packs.decode_frame(self.frame(5000), good, b"", "frame"), plain)
        for bad, length in ((good + b"z", 5000), (good + good, 5000), (good[:-1], 5000), (skippable + good, 5000),
                            (good + skippable, 5000), (b"", 5000), (good, 4999), (good, 5001), (unsized, 5000),
                            (summed, 5000), (wide, 5000), (plain, 5000)):
            with self.assertRaises(CairnError):
                packs.decode_frame(self.frame(length), bad, b"", "frame")

    def test_descriptions_beyond_the_limits(self):
        def description(codec=1, sealed=100, plain=10, chunks=((10,)), bases=()):
            listed = lambda lengths: items([bytes(32) + varint(length) for length in lengths])
            return items([bytes([codec]) + varint(sealed) + varint(plain) + listed(chunks) + listed(bases)])
        mib = 1 << 20
        self.assertEqual(len(packs.parse_frames(Cursor(description(bases=[mib] * 16), "d"))), 1)
        for label, bad in (
                ("codec", description(codec=2)), ("sum", description(plain=11)), ("chunk", description(plain=mib + 1, chunks=[mib + 1])),
                ("plain", description(plain=3 * mib, chunks=[mib] * 3)), ("no chunk", description(plain=0, chunks=[])),
                ("empty chunk", description(chunks=[10, 0])), ("chunks", description(plain=4097, chunks=[1] * 4097)),
                ("bases", description(bases=[1] * 1025)), ("base sum", description(bases=[mib] * 16 + [1])),
                ("sealed beyond", description(sealed=2 * mib + 17)), ("no frames", items([])),
                ("stored with bases", description(codec=0, sealed=26, bases=[1])), ("stored", description(codec=0, sealed=27)),
                ("sealed", description(sealed=16)), ("sealed much", description(sealed=3 * mib)),
                ("frames", varint(65537) + bytes(65537 * 40))):
            with self.subTest(label), self.assertRaises(CairnError):
                packs.parse_frames(Cursor(bad, "description"))


class Encoding(unittest.TestCase):
    def test_varints(self):
        for number in (0, 1, 127, 128, 300, (1 << 64) - 1):
            cursor = Cursor(varint(number), "n")
            self.assertEqual(cursor.varint(), number)
            cursor.end()
        for bad in ("", "80", "8000", "ff00", "ff" * 9 + "02", "ff" * 10 + "01", "80" * 9 + "00"):
            with self.subTest(bad), self.assertRaises(CairnError):
                Cursor(bytes.fromhex(bad), "n").varint()

    def test_zigzag(self):
        for code, number in ((0, 0), (1, -1), (2, 1), (3, -2), ((1 << 64) - 1, -(1 << 63)), ((1 << 64) - 2, (1 << 63) - 1)):
            self.assertEqual(Cursor(varint(code), "n").zigzag(), number)

    def test_counts_are_not_believed(self):
        cursor = Cursor(varint(1 << 60) + bytes(100), "list")
        with self.assertRaisesRegex(CairnError, "does not fit"):
            cursor.list(lambda: cursor.take(32), 32)
        with self.assertRaisesRegex(CairnError, "wanted"):
            Cursor(varint(1 << 60), "bytes").bytes()

    def test_field_lists(self):
        read = lambda raw: Cursor(raw, "f").fields({1, 2})
        self.assertEqual(read(fields({1: b"a", 2: b"b", 4: b"c"})), {1: b"a", 2: b"b"})
        for bad in (fields({3: b""}), fields({2: b""}) + fields({1: b""}), fields({1: b""}) * 2, b"\x01", b"\x01\x02a"):
            with self.assertRaises(CairnError):
                read(bad)
        with self.assertRaisesRegex(CairnError, "after the end"):
            encoding.value({1: b"ab"}, 1, "f", Cursor.u8)

    def test_padme(self):
        self.assertEqual([encoding.padme(n) for n in (0, 1, 2, 7, 8, 9, 10, 17, 100, 1000, 100_000)],
                         [0, 1, 2, 7, 8, 10, 10, 18, 104, 1024, 100_352])

    def test_low_order_points(self):
        with self.assertRaises(CairnError):
            crypto.x25519(b"\x01" * 32, bytes(32))

    def test_mutated_structures_raise_nothing_else(self):
        """Hostile bytes inside an authentic envelope end in `CairnError`."""
        rnd = random.Random(7)
        frame = Frame([b"a" * 20], bases=[b"b"]).describe(lambda chunk: H(chunk), bytes(50))
        seeds = (
            (items([frame, frame]), lambda raw: packs.parse_frames(Cursor(raw, "m"))),
            (varint(0) + items([]) + items([bytes(32) + b"\x01" + bytes(8) + varint(500) + bytes(32) + items([frame])]),
             lambda raw: packs.parse_segment(raw, "m")),
            (entry(1, b"name", f1=varint(3) + items([extent(None, 3)]), f8=items([counted(b"a") + counted(b"b")])),
             lambda raw: tree.parse_entry(raw, "m")),
            (fields({1: bytes(16), 3: bytes(32), 5: varint(1), 7: b"\1", 9: bytes(32), 11: items([bytes(4) + u32(1) + bytes(34)]),
                     13: varint(1 << 20), 15: b"\1\0" + varint(64) + varint(256) + varint(1024), 17: varint(4096)}), lambda raw: records.parse_config(raw, 1, "m")),
        )
        for seed, parse in seeds:
            parse(seed)
            for _ in range(1500):
                raw = bytearray(seed)
                for _ in range(rnd.randint(1, 3)):
                    raw[rnd.randrange(len(raw))] = rnd.choice((0, 1, 127, 128, 255, rnd.randrange(256)))
                with contextlib.suppress(CairnError):
                    parse(bytes(raw[:rnd.choice((len(raw), rnd.randrange(len(raw))))]))


if __name__ == "__main__":
    unittest.main()
