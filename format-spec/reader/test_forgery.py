"""Tests of the reader: objects made by somebody who has keys, or by a faulty writer, each wrong in one thing."""

import os
import struct
import unittest
from unittest import mock

from cairn_reader import envelope, restore
from cairn_reader.encoding import CairnError
from cairn_reader.keys import Credential
from repository_case import RepositoryTest, flip
from sample_repository import KEY_FILE
from tiny_writer import Frame, H, MAINTAINER, READER, TREE, Writer, counted, directory_leaf, entry, items, u32, varint


class Format(RepositoryTest):
    def test_what_is_refused(self):
        good = Writer(self.repo).format
        for label, at, new, problem in (
                ("magic", 0, b"C", "not a cairn repository"), ("version", 16, u32(2), "unknown version"),
                ("reserved", 20, b"\1", "not zero"), ("required feature", 31, b"\x80", "required features")):
            with self.subTest(label):
                first = good[:at] + new + good[at + len(new):64]
                with open(os.path.join(self.repo, "format"), "wb") as file:
                    file.write(first + H(first))
                with self.assertRaisesRegex(CairnError, problem):
                    self.open()
        with open(os.path.join(self.repo, "format"), "wb") as file:
            file.write(good)
        flip(os.path.join(self.repo, "format"), 45)
        with self.assertRaisesRegex(CairnError, "own hash"):
            self.open()

    def test_optional_features_do_not_hinder_reading(self):
        w = Writer(self.repo)
        first = w.format[:32] + b"\1" + w.format[33:64]
        w.format = first + H(first)
        w.store("format", w.format)
        self.assertEqual(self.single([], writer=w), ({}, []))


class Slots(RepositoryTest):
    def refused(self, writer, problem, key=KEY_FILE):
        writer.config()
        with self.assertRaisesRegex(CairnError, problem):
            self.open(Credential(2, key))

    def test_another_role_inside(self):
        w = Writer(self.repo)
        payload = w.payload
        w.payload = lambda role, *rest: payload(role, *rest) | {1: bytes([MAINTAINER])}
        w.slot(2, READER, KEY_FILE)
        self.refused(w, "sealed role")

    def test_a_certificate_for_another_key(self):
        w = Writer(self.repo)
        by = w.signer(MAINTAINER, "m")
        by.seed = bytes(32)
        w.slot(2, MAINTAINER, KEY_FILE, signer=by)
        self.refused(w, "another signing key")

    def test_epochs_with_a_gap_and_fields_that_are_gone(self):
        w = Writer(self.repo)
        w.rotate()
        payload = w.payload
        epoch = lambda number: u32(number) + bytes(64)
        for change, problem in (
                ({13: items([epoch(2)])}, "every epoch"), ({13: items([epoch(1)])}, "every epoch"),
                ({13: items([epoch(2), epoch(1)])}, "every epoch"), ({13: items([epoch(1), epoch(2), epoch(3)])}, "every epoch"),
                ({15: bytes(32)}, "field 15 is unknown"), ({19: bytes(32)}, "fields of another role"), ({23: None}, "23 is missing"),
                ({17: items([u32(1) + u32(1) + bytes(32), u32(0) + u32(1) + bytes(32)])}, "ascending")):
            w.payload = lambda *rest: payload(*rest) | change
            name = w.slot(2, READER, KEY_FILE)
            self.refused(w, problem)
            os.unlink(os.path.join(self.repo, name))

    def test_a_certificate_that_the_slots_owner_did_not_sign(self):
        w = Writer(self.repo)
        payload = w.payload
        w.payload = lambda *rest: payload(*rest) | {23: Writer(self.repo + "2", seed=2).owner.public}
        w.slot(2, MAINTAINER, KEY_FILE, signer=w.signer(MAINTAINER, "m"))
        self.refused(w, "certificate: the signature does not verify")

    def test_slots_that_disagree_on_the_owner(self):
        w = Writer(self.repo)
        w.slot(2, READER, KEY_FILE)
        payload = w.payload
        w.payload = lambda *rest: payload(*rest) | {23: bytes(32)}
        w.slot(2, READER, KEY_FILE)
        self.refused(w, "different owners")

    def test_a_slot_of_another_repository(self):
        w = Writer(self.repo)
        rid, w.rid = w.rid, bytes(16)
        w.slot(2, READER, KEY_FILE)
        w.rid = rid
        self.refused(w, "belongs to another repository")

    def test_keys_of_wrong_lengths(self):
        w = Writer(self.repo)
        for key in (b"k" * 31, b"k" * ((1 << 20) + 1)):
            w.slot(2, READER, key)
            self.refused(w, "the key has", key)


class Sealed(RepositoryTest):
    """A repository of one empty directory; `spoil` wraps a method of the writer or of its signer."""

    def build(self, spoil=None):
        w = self.fresh()
        w.config()
        w.slot(2, READER, KEY_FILE)
        if spoil:
            spoil(w)
        w.pack(TREE, [Frame([directory_leaf([])])])
        snapshot = w.snapshot(w.tree_id(directory_leaf([])))
        return self.open(), snapshot

    def assert_refused(self, spoil, problem, from_packs):
        """Whichever object is spoilt, nothing is restored and the reason told."""
        repository, snapshot = self.build(spoil)
        problems = repository.problems
        try:
            self.restore(repository, snapshot, from_packs)
        except CairnError as error:
            problems.append(str(error))
        self.assertRegex("; ".join(problems), problem)

    def test_signatures_of_every_kind_of_object(self):
        def spoil_after(count):
            """Lets the first `count` signatures be: directory, segment, snapshot are signed in this order."""
            def spoil(w):
                sign, made = w.by.sign, []
                def false(context, body):
                    made.append(body)
                    return sign(context, body + b"x" if len(made) == count + 1 else body)
                w.by.sign = false
            return spoil
        for count, name, from_packs in ((0, "packs/tree/.*directory", True), (1, "index/", False), (2, "snapshots/", True)):
            self.assert_refused(spoil_after(count), name + ".*signature does not verify", from_packs)
        repository, snapshot = self.build(spoil_after(3))
        self.assertEqual(self.restore(repository, snapshot), ({}, []))

    def test_a_pack_of_a_writer_without_certificate(self):
        def spoil(w):
            pack = w.pack
            w.pack = lambda *rest: pack(*rest, signer=w.signer(MAINTAINER, "m", issuer=w.by))
        self.assert_refused(spoil, "packs/tree/.*certificate: the signature does not verify", True)

    def alter(self, part, change):
        """Changes the plaintext of parts of one type before they are sealed."""
        def spoil(w):
            seal = w.seal
            w.seal = lambda header, key, t, n, plain: seal(header, key, t, n, change(plain) if t == part else plain)
        return spoil

    def test_padding(self):
        self.assert_refused(self.alter(4, lambda plain: plain[:-1] + b"\1"), "snapshots/.*not zero", False)
        self.assert_refused(self.alter(4, lambda plain: plain + bytes(64)), "snapshots/.*padme", False)
        self.assert_refused(self.alter(4, lambda plain: u32(1 << 31) + plain[4:]), "snapshots/.*wanted", False)

    def test_locators(self):
        def put(at, form, number):
            return lambda plain: plain[:at] + struct.pack(form, number) + plain[at + struct.calcsize(form):]
        for change, problem in (
                (put(0, "<Q", 193), "not those of the locator"), (put(24, "<I", 2), "not those of the locator"),
                (put(0, "<Q", 1 << 62), "follow each other"), (put(8, "<Q", 200), "follow each other"),
                (put(16, "<Q", 1 << 40), "beyond its limit"), (put(24, "<I", 65537), "beyond its limit"),
                (put(28, "<I", 1), "not zero"), (lambda plain: plain[:-1] + b"", "part 3")):
            self.assert_refused(self.alter(3, change), problem, True)

    def test_segments_that_describe_a_pack_falsely(self):
        def entry_with(at, new):
            def spoil(w):
                segment = w.segment
                w.segment = lambda entries, signer: segment([one[:at] + new + one[at + len(new):] for one in entries], signer)
            return spoil
        self.assert_refused(entry_with(33, u32(9)), "not as the index describes", False)
        self.assert_refused(entry_with(37, u32(9)), "not as the index describes", False)
        self.assert_refused(entry_with(32, b"\3"), "not a pack's kind", False)
        self.assert_refused(entry_with(41, varint(300)), "do not fit in the pack|not as the index", False)

    def test_a_writer_that_describes_packs_of_others(self):
        def spoil(w):
            segment = w.segment
            def claim(entries, signer):
                at = 41 + len(varint(4000))  # packs of this size have lengths of two bytes
                return segment([one[:at] + bytes(16) + one[at + 16:] for one in entries], signer)
            w.segment = claim
        self.assert_refused(spoil, "describes packs of others", False)

    def test_headers(self):
        w = Writer(self.repo)
        w.pack(TREE, [Frame([directory_leaf([])])])
        good = {TREE: w.header(TREE, 0, 1)[0], 3: w.header(3, 0xFFFFFFFF, 1)[0]}
        for kind, header in good.items():
            envelope.parse_header(header, kind, w.rid, "object")
        for kind, at, new, problem in (
                (TREE, 0, b"D", "not an object"), (TREE, 8, b"\1", "not an object"), (TREE, 9, b"\2", "version"),
                (TREE, 10, b"\0", "cipher 0"), (TREE, 10, b"\3", "cipher 3"), (TREE, 11, b"\2", "flags"), (3, 11, b"\1", "flags"),
                (TREE, 12, b"\xff" * 4, "symmetric"), (3, 12, b"\0", "symmetric"), (TREE, 23, b"\1", "not zero"),
                (3, 88, b"\1", "not zero"), (TREE, 191, b"\1", "not zero"), (TREE, 24, bytes(16), "another repository")):
            bad = good[kind][:at] + new + good[kind][at + len(new):]
            with self.subTest(at=at), self.assertRaisesRegex(CairnError, problem):
                envelope.parse_header(bad, kind, w.rid, "object")


class Others(RepositoryTest):
    EMPTY = varint(0) + items([])

    def test_of_two_configs_of_one_generation_the_greater_hash_counts(self):
        w = Writer(self.repo)
        w.slot(2, READER, KEY_FILE)
        written = [(w.config(2, revoked=[(bytes(16), time)]), time) for time in range(1, 6)]
        repository = self.open()
        self.assertEqual(repository.config.revoked, {bytes(16): max(written)[1]})
        self.assertEqual(repository.problems, [])

    def test_a_config_from_a_newer_program(self):
        """Only the owner can say that one is needed."""
        w = Writer(self.repo)
        w.config(1)
        w.slot(2, READER, KEY_FILE)
        w.config(2, signer=w.by, changes={25: b""})
        repository = self.open()
        self.assertEqual(repository.config.generation, 1)
        self.assertRegex(repository.problems[0], "signature does not verify|not signed by the owner")
        w.config(3, changes={24: b"may be ignored"})
        self.assertEqual(self.open().config.generation, 3)
        w.config(2, changes={25: b""})
        with self.assertRaisesRegex(CairnError, "field 25 is unknown"):
            self.open()

    def test_configs_that_may_not_be(self):
        w = Writer(self.repo)
        w.slot(2, READER, KEY_FILE)
        domain = lambda number, epoch: u32(number) + u32(epoch) + bytes(32) + b"\0" + counted(b"")
        for tag, bad in ((7, b"\3"), (11, items([domain(0, 1)] * 2)), (11, items([domain(1, 1)])), (11, items([domain(0, 0)])),
                         (11, items([domain(0, 1), domain(0xFFFFFFFF, 1)])), (13, varint((1 << 20) - 1)), (17, varint(4095)),
                         (15, bytes([2, 2]) + varint(64) + varint(256) + varint(1024)), (9, bytes(31)),
                         (15, bytes([1, 2]) + varint(256) + varint(256) + varint(1024)), (17, None)):
            w.config(2, changes={tag: bad})
        self.assertEqual(len(os.listdir(os.path.join(self.repo, "config"))), 11)
        with self.assertRaisesRegex(CairnError, "no valid config"):
            self.open()

    def test_an_object_of_a_domain_that_the_config_does_not_name(self):
        w = Writer(self.repo)
        w.config()
        w.slot(2, READER, KEY_FILE, domains=[(0, 1), (3, 1)])
        w.pack(TREE, [Frame([directory_leaf([])])])
        w.snapshot(w.tree_id(directory_leaf([])), domain=3)
        repository = self.open()
        self.assertEqual(repository.snapshots(), [])
        self.assertRegex(repository.notes[0], "no key of domain 3")
        w.domains.append(3)
        w.config(2)
        self.assertEqual(len(self.open().snapshots()), 1)

    def test_too_many_bytes_of_extended_attributes(self):
        attributes = items([counted(b"user.a") + counted(bytes((1 << 18) - 5))])
        found, problems = self.single([entry(1, b"f", f1=self.EMPTY, f8=attributes)])
        self.assertEqual(found, {})
        self.assertRegex(problems[0], "extended attributes")

    def test_directories_that_nest_too_deep(self):
        w = Writer(self.repo)
        inner = directory_leaf([])
        outer = directory_leaf([entry(2, b"d", 0o700, f5=w.tree_id(inner))])
        with mock.patch.object(restore, "NESTING_MAX", 1):
            found, problems = self.single([entry(2, b"d", 0o700, f5=w.tree_id(outer))], writer=w, nodes=[inner, outer])
        self.assertEqual(found, {b"d": ("directory", 0o700)})
        self.assertRegex(problems[0], "nest more than 1")


if __name__ == "__main__":
    unittest.main()
