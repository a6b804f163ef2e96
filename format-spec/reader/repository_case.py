"""What the tests of whole repositories share."""

import os
import shutil
import subprocess
import tempfile
import unittest

from cairn_reader.keys import Credential
from cairn_reader.repository import Repository
from cairn_reader.restore import Restore
from sample_repository import KEY_FILE, look
from tiny_writer import DATA, Frame, READER, TREE, Writer, directory_leaf

READER_KEY = Credential(2, KEY_FILE)


class RepositoryTest(unittest.TestCase):
    """A repository in a temporary folder, and restores of it."""

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(self.remove)
        self.repo = os.path.join(self.folder, "repo")
        self.targets = self.repositories = 0

    def remove(self):
        """Also what was restored with modes that forbid it."""
        subprocess.run(["chmod", "-R", "u+rwX", self.folder], check=True)
        shutil.rmtree(self.folder)

    def fresh(self):
        self.repositories += 1
        self.repo = os.path.join(self.folder, f"fresh{self.repositories}")
        return Writer(self.repo)

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


def flip(path, position, bit=1):
    """Changes one bit of a file in place."""
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ bit]))
