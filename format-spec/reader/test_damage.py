"""Tests of the reader: damaged, cut and missing objects."""

import os
import unittest

from cairn_reader.encoding import CairnError
from repository_case import RepositoryTest, flip
from sample_repository import KEY_FILE
from tiny_writer import AES, DATA, Frame, H, READER, TREE, Writer, XCHACHA, directory_leaf, entry, extent, items, varint


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
        old = w.bytes(3000)
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
        prefix = name[:-64]
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


if __name__ == "__main__":
    unittest.main()
