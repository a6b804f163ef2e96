"""Tests of the reader: whole snapshots, keys, and who may sign what. Run `python3 -m unittest` in this folder."""

import contextlib
import io
import os
import shutil
import struct
import subprocess
import unittest

from cairn_reader import __main__ as command_line
from cairn_reader.encoding import CairnError
from cairn_reader.keys import Credential, open_slot, parse_identity, parse_slot
from cairn_reader.repository import Repository
from cairn_reader.restore import Restore
from repository_case import RepositoryTest, flip
from sample_repository import KEY_FILE, Sample, look
from tiny_writer import (AES, Frame, H, MAINTAINER, OWNER, READER, SNAPSHOT, TREE, WRITER, Writer, XCHACHA, directory_leaf,
                         entry, items, varint)


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
        self.assertEqual(self.run_command(self.repo, "--recipient-identity", key, "list")[0], 2)
        owner = self.open().config.owner_key.hex()
        self.assertEqual(self.run_command(self.repo, "--key-file", key, "--owner-key", owner, "list")[0], 0)
        status, _, err = self.run_command(self.repo, "--key-file", key, "--owner-key", owner[::-1], "list")
        self.assertEqual((status, "not the one expected" in err), (2, True))

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

    def test_a_slot_of_a_later_epoch_reads_what_is_earlier(self):
        w, first = self.sample()
        w.rotate()
        w.config(2)
        w.slot(2, READER, b"r" * 32)
        self.check(Credential(2, b"r" * 32), first)

    def test_identities_as_text(self):
        digits = "5b4344fd7951a7e6e0255983dc053ecb4ead30b9049208604b13a0c618d90de605f47a1a"
        self.assertEqual(parse_identity(f" cairn-identity-{digits}\n"), bytes.fromhex(digits[:64]))
        for bad in (f"cairn-recipient-{digits}", f"cairn-identity-{digits[:-1]}b", f"cairn-identity-{digits.upper()}",
                    f"cairn-identity-{digits[:-2]}", digits):
            with self.assertRaises(CairnError):
                parse_identity(bad)

    def test_a_recipient_is_told_whose_repository_it_opens(self):
        secret = bytes(range(32))
        w, _ = self.sample((4, READER, secret, {}))
        repository = self.open(Credential(4, secret))
        self.assertIn(w.owner.public.hex(), repository.notes[0])
        self.assertEqual(Repository(self.repo, Credential(4, secret), w.owner.public).notes, [])
        with self.assertRaisesRegex(CairnError, "not the one expected"):
            Repository(self.repo, Credential(4, secret), bytes(32))

    def test_memory_beyond_what_was_allowed(self):
        _, snapshot = self.sample((1, READER, b"p", {"costs": (19456 * 2, 2, 1)}))
        with self.assertRaisesRegex(CairnError, "must be allowed expressly"):
            self.open(Credential(1, b"p", 19456))
        self.check(Credential(1, b"p", 19456 * 2), snapshot)

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

    def test_a_snapshot_made_anew_is_judged_by_both_who_signed(self):
        maker = self.writer.signer(MAINTAINER, "maker")
        former = self.writer.by.certificate
        self.writer.config(revoked=[(self.writer.by.writer_id, 5000), (maker.writer_id, 7000)])
        remade = lambda moment, certificate=former: {"signer": maker, "remade": (certificate, moment, [bytes(32)])}
        good = self.snapshot(time=5000, **remade(7000))
        self.assert_snapshots([good])
        self.snapshot(time=5001, **remade(7000))
        self.assert_snapshots([good], "revoked")
        self.snapshot(time=4000, **remade(7001))
        self.assert_snapshots([good], "revoked")
        self.snapshot(time=4000, **remade(6000, former[:-1] + bytes([former[-1] ^ 1])))
        self.assert_snapshots([good], "does not verify")

    def test_the_earliest_revocation_counts(self):
        self.writer.config(revoked=[(self.writer.by.writer_id, 4000), (self.writer.by.writer_id, 5000)])
        self.snapshot(time=4001)
        self.assert_snapshots([], "revoked")

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
        for key in (b"o" * 32, b"m" * 32, KEY_FILE):
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


if __name__ == "__main__":
    unittest.main()
