"""Tests of the reader. Run `python3 -m unittest` in this folder."""

import contextlib
import io
import os
import random
import shutil
import struct
import subprocess
import tempfile
import unittest

import blake3
import nacl.bindings
import zstandard

from cairn_reader import __main__ as command_line
from cairn_reader import crypto, encoding, packs, records, tree
from cairn_reader.encoding import CairnError, Cursor
from cairn_reader.keys import Credential, open_slot, parse_slot
from cairn_reader.repository import Repository
from cairn_reader.restore import Restore
from sample_repository import KEY_FILE, Sample, look
from tiny_writer import (AES, DATA, Frame, H, MAINTAINER, OWNER, READER, SNAPSHOT, TREE, WRITER, Writer, XCHACHA,
                         counted, directory_inner, directory_leaf, entry, extent, extent_inner, extent_leaf, fields, items,
                         u32, varint)

READER_KEY = Credential(2, KEY_FILE)


class RepositoryTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.repo = os.path.join(self.folder, "repo")
        self.targets = self.repositories = 0

    def open(self, credential=READER_KEY):
        return Repository(self.repo, credential)

    def restore(self, repository, snapshot, from_packs=False):
        """(what the target holds, problems)"""
        self.targets += 1
        target = os.path.join(self.folder, f"target{self.targets}")
        found = repository.find_snapshot(snapshot.hex())
        Restore(repository.chunks(from_packs), target, repository.problem).run(found.root)
        return look(target), repository.problems

    def single(self, root_entries, writer=None, data=(), nodes=()):
        """A repository with one snapshot of these entries; (restored, problems) of it."""
        w = writer or Writer(self.repo)
        root = directory_leaf(root_entries)
        if data:
            w.pack(DATA, [Frame([chunk]) for chunk in data])
        w.pack(TREE, [Frame([node]) for node in [*nodes, root]])
        w.config()
        w.slot(2, READER, KEY_FILE)
        return self.restore(self.open(), w.snapshot(w.tree_id(root)))


class WholeSnapshots(RepositoryTest):
    def check_sample(self, cipher, from_packs, **options):
        sample = Sample(self.repo, cipher, **options)
        if from_packs:
            shutil.rmtree(os.path.join(self.repo, "index"))
        found, problems = self.restore(self.open(), sample.snapshot, from_packs)
        if os.geteuid() != 0:
            problems = [problem for problem in problems if "'/a/block'" not in problem and "'/a/char'" not in problem]
        self.assertEqual(problems, [])
        self.assertEqual(found, sample.expected)
        return sample

    def test_aes_by_index(self):
        self.check_sample(AES, False)

    def test_aes_from_packs_alone(self):
        self.check_sample(AES, True)

    def test_xchacha_by_index(self):
        self.check_sample(XCHACHA, False)

    def test_xchacha_from_packs_alone(self):
        self.check_sample(XCHACHA, True, signer_role=MAINTAINER)

    def test_attributes_links_and_holes(self):
        self.check_sample(AES, False)
        top = os.path.join(self.folder, "target1", "a")
        status = os.stat(os.path.join(top, "a"))
        self.assertEqual(status.st_mode & 0o7777, 0o4751)
        self.assertEqual(status.st_mtime_ns, 1_600_000_000_000_000_001)
        self.assertEqual(status.st_nlink, 2)
        self.assertTrue(os.path.samefile(os.path.join(top, "a"), os.path.join(top, "b-same")))
        self.assertEqual(os.getxattr(os.path.join(top, "a"), "user.b"), b"\0\xff")
        if os.geteuid() == 0:
            self.assertEqual((status.st_uid, status.st_gid), (12, 34))
        large = os.stat(os.path.join(top, "large"))
        self.assertEqual(large.st_mtime_ns, -4_000_000_001)
        self.assertLess(large.st_blocks * 512, 1 << 20)
        self.assertEqual(os.stat(os.path.join(top, "many")).st_mtime_ns, 1_600_000_000_123_456_789)
        self.assertEqual(os.lstat(os.path.join(top, "link")).st_mtime_ns, 1_600_000_000_123_456_789)

    def test_a_sound_copy_is_enough_and_damage_of_the_other_is_told(self):
        sample = Sample(self.repo, AES)
        path = os.path.join(self.repo, "packs/data", sample.second_copy[:2], sample.second_copy)
        flip(path, 200)
        for from_packs in (False, True):
            found, problems = self.restore(self.open(), sample.snapshot, from_packs)
            self.assertEqual(found, sample.expected)
        self.assertIn(f"{os.path.relpath(path, self.repo)}: the stored bytes do not have the hash in the name", problems)

    def test_deep_nesting(self):
        w = Writer(self.repo)
        nodes = [directory_leaf([])]
        for _ in range(1500):
            nodes.append(directory_leaf([entry(2, b"dd", 0o755, f5=w.tree_id(nodes[-1]))]))
        w.pack(TREE, [Frame(nodes)])
        w.config()
        w.slot(2, READER, KEY_FILE)
        snapshot = w.snapshot(w.tree_id(nodes[-1]))
        repository = self.open()
        target = os.path.join(self.folder, "deep")
        Restore(repository.chunks(), target, repository.problem).run(repository.find_snapshot(snapshot.hex()).root)
        self.assertEqual(repository.problems, [])
        handle, depth = os.open(target, os.O_RDONLY), 0
        while names := os.listdir(handle):
            below = os.open(names[0], os.O_RDONLY, dir_fd=handle)
            os.close(handle)
            handle, depth = below, depth + 1
        os.close(handle)
        self.assertEqual(depth, 1500)
        subprocess.run(["rm", "-r", target], check=True)

    def test_command_line(self):
        sample = Sample(self.repo, AES)
        key = os.path.join(self.folder, "key")
        with open(key, "wb") as file:
            file.write(KEY_FILE)
        run = lambda *rest: self.run_command(self.repo, "--key-file", key, *rest)
        status, out, _ = run("list")
        self.assertEqual(status, 0)
        self.assertIn(sample.snapshot.hex(), out)
        self.assertIn("'host' 'nightly' '/a'", out)
        target = os.path.join(self.folder, "out")
        self.assertEqual(run("restore", sample.snapshot.hex()[:12], target)[0], 0 if os.geteuid() == 0 else 1)
        self.assertEqual(look(target), sample.expected)
        status, _, err = run("restore", sample.snapshot.hex(), target)
        self.assertEqual((status, "not empty" in err), (2, True))
        self.assertEqual(run("restore", "ffff", target + "2")[0], 2)
        self.assertEqual(self.run_command(self.repo, "--recipient-identity", "00", "list")[0], 2)

    @staticmethod
    def run_command(*arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            return command_line.main(list(arguments)), out.getvalue(), err.getvalue()


class Keys(RepositoryTest):
    def sample(self, *slots):
        """A repository of one empty directory, with these slots."""
        w = Writer(self.repo)
        root = directory_leaf([])
        w.pack(TREE, [Frame([root])])
        w.config()
        for method, role, secret, options in slots:
            w.slot(method, role, secret, **options)
        return w, w.snapshot(w.tree_id(root))

    def check(self, credential, snapshot):
        self.assertEqual(self.restore(self.open(credential), snapshot), ({}, []))

    def test_every_method(self):
        secret = bytes(range(32))
        _, snapshot = self.sample(
            (1, READER, "p\u00e4ss".encode(), {}), (1, OWNER, b"lanes", {"costs": (19456 * 2, 3, 4), "label": "x" * 63}),
            (2, READER, b"k" * 32, {}), (3, READER, b"c" * 32, {}), (4, READER, secret, {}))
        for credential in (Credential(1, "p\u00e4ss".encode()), Credential(1, b"lanes"), Credential(2, b"k" * 32),
                           Credential(3, b"c" * 32 + b"\n"), Credential(3, b"c" * 32), Credential(4, secret)):
            self.check(credential, snapshot)
        for wrong in (Credential(1, b"other"), Credential(2, b"c" * 32), Credential(3, b"c" * 32 + b"\n\n"),
                      Credential(4, secret[::-1]), Credential(2, b"short")):
            with self.assertRaisesRegex(CairnError, "no key slot opens"):
                self.open(wrong)

    def test_every_role(self):
        w = Writer(self.repo)
        w.by = w.signer(MAINTAINER, "maintainer")
        root = directory_leaf([])
        w.pack(TREE, [Frame([root])])
        w.config()
        snapshot = w.snapshot(w.tree_id(root))
        for role, key in ((OWNER, b"o" * 32), (READER, b"r" * 32), (MAINTAINER, b"m" * 32)):
            w.slot(2, role, key)
            self.check(Credential(2, key), snapshot)
        w.slot(2, WRITER, b"w" * 32, signer=w.signer(WRITER, "writer"))
        with self.assertRaisesRegex(CairnError, "can read neither"):
            self.open(Credential(2, b"w" * 32)).snapshots()

    def test_rotated_roots(self):
        """An owner reaches old epochs through the configs, a reader through one slot per epoch."""
        w, first = self.sample((2, READER, b"r" * 32, {}))
        for generation in (2, 3):
            w.rotate()
            w.config(generation)
        new = directory_leaf([entry(1, b"new", f1=varint(0) + items([]))])
        w.pack(TREE, [Frame([new])])
        second = w.snapshot(w.tree_id(new))
        w.slot(2, OWNER, b"o" * 32)
        w.slot(2, READER, b"r" * 32)
        for key in (b"o" * 32, b"r" * 32):
            repository = self.open(Credential(2, key))
            self.assertEqual(repository.config.generation, 3)
            self.assertEqual(self.restore(repository, first), ({}, []))
            self.assertEqual(self.restore(repository, second), ({b"new": ("file", b"")}, []))

    def test_external_domain(self):
        w = Writer(self.repo)
        w.external[5] = bytes(range(32))
        root = directory_leaf([])
        w.pack(TREE, [Frame([root])], domain=5)
        w.config()
        w.slot(2, OWNER, b"o" * 32)
        snapshot = w.snapshot(w.tree_id(root), domain=5)
        repository = self.open(Credential(2, b"o" * 32))
        with self.assertRaisesRegex(CairnError, "0 valid snapshots"):
            repository.find_snapshot(snapshot.hex())
        self.assertIn("no key of domain 5", repository.notes[0])
        repository.ring.domain_secrets[5, 1] = w.external[5]
        self.assertEqual(self.restore(repository, snapshot), ({}, []))

    def test_costs_are_checked_before_they_are_paid(self):
        for costs in ((19455, 2, 1), ((4 << 20) + 1, 2, 1), (19456, 1, 1), (19456, 65, 1), (19456, 2, 17), (19456, 2, 0)):
            slot = parse_slot(passphrase_slot(costs), "slot")
            with self.assertRaisesRegex(CairnError, "beyond the limits"):
                open_slot(slot, Credential(1, b"p"))

    def test_every_byte_of_a_slot_counts(self):
        w = Writer(self.repo)
        w.config()
        name = os.path.join(self.repo, w.slot(2, READER, KEY_FILE, label=""))
        with open(name, "rb") as file:
            raw = file.read()
        os.unlink(name)
        for position in range(len(raw)):
            damaged = bytearray(raw)
            damaged[position] ^= 1
            path = os.path.join(self.repo, w.store(f"keys/{H(damaged).hex()}", damaged))
            with self.assertRaisesRegex(CairnError, "no key slot opens"):
                self.open()
            os.unlink(path)


def passphrase_slot(costs):
    return (b"CAIRN\r\n\x1a" + bytes([9, 1, 1, 2]) + bytes(4 + 16 + 16 + 8) + struct.pack("<III", *costs) + bytes(4)
            + bytes(32 + 32 + 24 + 32 + 64) + bytes(40))


class Authority(RepositoryTest):
    """Who may sign what."""

    def setUp(self):
        super().setUp()
        self.writer = Writer(self.repo)
        self.root = directory_leaf([])
        self.writer.pack(TREE, [Frame([self.root])])
        self.writer.slot(2, READER, KEY_FILE)

    def snapshot(self, **options):
        return self.writer.snapshot(self.writer.tree_id(self.root), **options)

    def assert_snapshots(self, expected, problem=None):
        repository = self.open()
        self.assertEqual({one.id for one in repository.snapshots()}, set(expected))
        if problem is None:
            self.assertEqual(repository.problems, [])
        else:
            self.assertRegex("; ".join(repository.problems), problem)

    def test_a_certificate_that_the_owner_did_not_sign(self):
        self.writer.config()
        stranger = Writer(os.path.join(self.folder, "other"), seed=2).owner
        forged = self.writer.signer(WRITER, "forged", issuer=stranger)
        good = self.snapshot()
        self.snapshot(signer=forged)
        self.assert_snapshots([good], "certificate: the signature does not verify")

    def test_a_second_owner(self):
        self.writer.config()
        second = self.writer.signer(MAINTAINER, "second")
        body = bytes([1, OWNER]) + second.public + bytes(8) + varint(0)
        second.certificate = body + self.writer.owner.sign(b"certificate" + self.writer.rid, body)
        self.snapshot(signer=second)
        self.assert_snapshots([], "another key than the owner")

    def test_a_revoked_writer(self):
        self.writer.config(revoked=[(self.writer.by.writer_id, 5000)])
        before = self.snapshot(time=5000)
        self.snapshot(time=5001)
        self.assert_snapshots([before], "revoked")

    def test_the_highest_valid_config_counts(self):
        w = self.writer
        w.config(1)
        w.config(3, revoked=[(w.by.writer_id, 0)])
        w.config(2)
        self.assertEqual(self.open().config.generation, 3)
        w.config(9, signer=w.by)
        repository = self.open()
        self.assertEqual(repository.config.generation, 3)
        self.assertRegex(repository.problems[0], "not signed by the owner")

    def test_a_config_of_another_owner_is_refused_by_whoever_has_a_pin(self):
        w = self.writer
        w.slot(2, OWNER, b"o" * 32)
        w.slot(2, MAINTAINER, b"m" * 32, signer=w.signer(MAINTAINER, "m"))
        stranger = w.signer(MAINTAINER, "stranger")
        body = bytes([1, OWNER]) + stranger.public + bytes(8) + varint(0)
        stranger.certificate = body + stranger.sign(b"certificate" + w.rid, body)
        w.config(signer=stranger, changes={9: stranger.public})
        for key in (b"o" * 32, b"m" * 32):
            with self.assertRaisesRegex(CairnError, "no valid config"):
                self.open(Credential(2, key))

    def test_a_config_for_another_format_object(self):
        self.writer.config()
        self.writer.config(7, changes={3: bytes(32)})
        repository = self.open()
        self.assertEqual(repository.config.generation, 1)
        self.assertRegex(repository.problems[0], "another `format`")

    def test_a_snapshot_moved_to_another_repository(self):
        self.writer.config()
        other = Writer(os.path.join(self.folder, "other"), seed=3)
        raw = other.body(SNAPSHOT, b"", other.by, domain=0)
        self.writer.store(f"snapshots/{0:016x}-{H(raw).hex()}", raw)
        self.assert_snapshots([], "another repository")

    def test_foreign_objects_are_not_looked_at(self):
        self.writer.config()
        good = self.snapshot()
        for name in ("snapshots/README", f"snapshots/{0:015x}-{bytes(32).hex()}", f"packs/data/ff/{bytes(32).hex()}",
                     f"index/{bytes(32).hex()}.tmp", "lost+found/x"):
            self.writer.store(name, b"foreign")
        repository = self.open()
        self.assertEqual(self.restore(repository, good, from_packs=True), ({}, []))


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

    def fresh(self):
        self.repositories += 1
        self.repo = os.path.join(self.folder, f"fresh{self.repositories}")
        return Writer(self.repo)

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
                ("xattr order", [entry(1, b"n", f1=self.EMPTY, f8=items([varint(1) + b"b\0", varint(1) + b"a\0"]))],
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
        name = self.open().store.list("packs/tree")[0][0]
        flip(os.path.join(self.repo, name), os.path.getsize(os.path.join(self.repo, name)) - 40)
        self.assertRegex("; ".join(self.restore(self.open(), snapshot, True)[1]), "footer|lengths")

    def test_a_base_of_another_domain(self):
        w = Writer(self.repo)
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
        skippable = bytes.fromhex("502a4d1800000000")
        self.assertEqual(packs.decode_frame(self.frame(5000), unsized, b"", "frame"), plain)
        for bad, length in ((good + b"z", 5000), (good + good, 5000), (good[:-1], 5000), (skippable + good, 5000),
                            (good + skippable, 5000), (b"", 5000), (good, 4999), (good, 5001), (unsized, 4999),
                            (unsized, 5001), (wide, 5000), (plain, 5000)):
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
                ("stored with bases", description(codec=0, sealed=26, bases=[1])), ("stored", description(codec=0, sealed=27)),
                ("sealed", description(sealed=16)), ("sealed much", description(sealed=3 * mib)),
                ("frames", varint(65537) + bytes(65537 * 40))):
            with self.subTest(label), self.assertRaises(CairnError):
                packs.parse_frames(Cursor(bad, "description"))


def flip(path, position, bit=1):
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ bit]))


class Damage(RepositoryTest):
    """No flipped bit passes unseen, none gives wrong output: a file is right or absent."""

    def objects(self):
        return sorted(os.path.relpath(os.path.join(folder, name), self.repo)
                      for folder, _, names in os.walk(self.repo) for name in names)

    def positions(self, length):
        """Every region of headers, both ends, and a spread between."""
        wanted = {0, 8, 9, 10, 11, 12, 16, 20, 24, 40, 56, 87, 88, 135, 136, 167, 168, 191, 192}
        wanted |= {length - back for back in (1, 16, 17, 40, 48, 49, 100)} | {length * i // 5 for i in range(1, 5)}
        return sorted(position for position in wanted if 0 <= position < length)

    def outcome(self, snapshot, from_packs):
        """(restored, problems); what cannot be opened at all is a problem too."""
        try:
            return self.restore(self.open(), snapshot, from_packs)
        except CairnError as error:
            return {}, [str(error)]

    def small(self, cipher):
        w = Writer(self.repo, cipher)
        old, new = w.bytes(3000), None
        new = old[:2000] + b"changed"
        w.pack(DATA, [Frame([old]), Frame([new], bases=[old])])
        of = lambda chunk: extent(w.data_id(chunk), len(chunk))
        node = directory_leaf([entry(1, b"f", f1=varint(len(old) + len(new)) + items([of(old), of(new)]))])
        w.pack(TREE, [Frame([node])])
        w.config()
        w.slot(2, READER, KEY_FILE)
        return w.snapshot(w.tree_id(node)), {b"f": ("file", old + new)}

    def check_damage(self, cipher, rename):
        snapshot, expected = self.small(cipher)
        self.assertEqual(self.outcome(snapshot, False), (expected, []))
        for name in self.objects():
            path = os.path.join(self.repo, name)
            for position in self.positions(os.path.getsize(path)):
                flip(path, position)
                with self.subTest(name=name, position=position):
                    self.check_outcome(path, name, snapshot, expected, rename)
                flip(path, position)

    def check_outcome(self, path, name, snapshot, expected, rename):
        """`rename`: as a malicious store does, which can make names fit but not seals."""
        if not rename or name == "format":
            problems = []
            for from_packs in (False, True):
                found, some = self.outcome(snapshot, from_packs)
                problems += some
                self.assertIn(found, ({}, expected))
            self.assertTrue(problems)
            return
        with open(path, "rb") as file:
            digits = H(file.read()).hex()
        prefix, old = name[:-64], name[-64:]
        if prefix.startswith("packs/"):
            prefix = f"{prefix[:11]}{digits[:2]}/"
        other = os.path.join(self.repo, prefix + digits)
        os.makedirs(os.path.dirname(other), exist_ok=True)
        os.rename(path, other)
        snapshot = b""  # whichever there is: a changed snapshot has another id
        self.assertIn(self.outcome(snapshot, False)[0], ({}, expected))
        found, problems = self.outcome(snapshot, True)
        self.assertIn(found, ({}, expected))
        if not prefix.startswith(("packs/", "index/")):
            self.assertTrue(problems)
        elif found == {}:
            self.assertTrue(problems)
        os.rename(other, path)

    def test_aes(self):
        self.check_damage(AES, rename=False)

    def test_xchacha(self):
        self.check_damage(XCHACHA, rename=False)

    def test_a_store_that_makes_names_fit(self):
        self.check_damage(AES, rename=True)

    def test_truncated_objects(self):
        snapshot, expected = self.small(AES)
        for name in self.objects():
            path = os.path.join(self.repo, name)
            with open(path, "rb") as file:
                raw = file.read()
            for length in (0, 100, 192, len(raw) - 1):
                os.truncate(path, min(length, len(raw)))
                problems = []
                for from_packs in (False, True):
                    found, some = self.outcome(snapshot, from_packs)
                    self.assertIn(found, ({}, expected))
                    problems += some
                self.assertTrue(problems or length >= len(raw), name)
                with open(path, "wb") as file:
                    file.write(raw)

    def test_missing_objects(self):
        snapshot, expected = self.small(AES)
        for name in self.objects():
            path = os.path.join(self.repo, name)
            os.rename(path, self.folder + "/away")
            with self.subTest(name):
                if name == "format":
                    with self.assertRaises(OSError):
                        self.open()
                else:
                    found, problems = self.outcome(snapshot, False)
                    self.assertEqual(found, {})
                    self.assertTrue(problems)
                    if name.startswith("index/"):
                        self.assertEqual(self.outcome(snapshot, True), (expected, []))
            os.rename(self.folder + "/away", path)


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
            (fields({1: bytes(16), 3: bytes(32), 5: varint(1), 7: b"\1", 9: bytes(32), 11: items([bytes(42)]), 13: varint(1),
                     15: bytes(5), 17: varint(1)}), lambda raw: records.parse_config(raw, 1, "m")),
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
