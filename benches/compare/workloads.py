"""What is backed up: the demo's dump of a CRM, and a tree of files, on two days each."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/demo"))

import compare_trees
import crm
import postgres
import tree
from tools import STREAM


def warm(folder):
    """Reads all files below `folder` once, so that they are in the page cache, and syncs."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if not os.path.islink(path):
                with open(path, "rb", buffering=0) as file:
                    while file.read(1 << 20):
                        pass
    os.sync()


class Dump:
    """A plain pg_dump, given on standard input through a pipe."""

    name = "dump"
    title = "a plain pg_dump on standard input"

    def __init__(self, folder, scale):
        self.folder = os.path.join(folder, f"dump-{scale:g}-{_age_of(crm.__file__)}")
        self.day = None
        if not os.path.exists(self.folder):
            self._make(scale)

    def _make(self, scale):
        print(f"making two dumps at scale {scale:g}", file=sys.stderr, flush=True)
        making = f"{self.folder}.making"
        shutil.rmtree(making, ignore_errors=True)
        os.makedirs(making)
        # Not below `folder`, which the server's user may not be able to enter.
        with postgres.Server(tempfile.mkdtemp(prefix="cairn-compare-")) as server:
            crm.load(server, "crm", scale)
            self._dump(server, os.path.join(making, "day1.sql"))
            crm.change(server, "crm")
            self._dump(server, os.path.join(making, "day2.sql"))
        os.rename(making, self.folder)

    @staticmethod
    def _dump(server, path):
        with open(path, "wb") as out:
            subprocess.run(server.pg_dump("crm"), stdout=out, check=True)

    def _path(self):
        return os.path.join(self.folder, f"day{self.day}.sql")

    def begin(self):
        """Goes to day one."""
        self.day = 1
        warm(self.folder)

    def pass_a_day(self):
        """Goes to day two."""
        self.day = 2

    def source_bytes(self):
        """The size of the source today."""
        return os.path.getsize(self._path())

    def backup(self, tool, label):
        """The command that backs the source up, and the file it gets on standard input."""
        return tool.backup_stream(label), self._path()

    def difference(self, target):
        """What the restore in `target` lacks, or None."""
        with open(self._path(), "rb") as a, open(os.path.join(target, STREAM), "rb") as b:
            sums = [hashlib.file_digest(file, "sha256").digest() for file in (a, b)]
        return None if sums[0] == sums[1] else f"{STREAM} is another"


class Files:
    """A tree of files."""

    name = "tree"
    title = "a tree of files"

    def __init__(self, folder, scale):
        self.master = os.path.join(folder, f"tree-{scale:g}-{_age_of(tree.__file__)}")
        self.tree = os.path.join(folder, "tree")
        if not os.path.exists(self.master):
            print(f"making a tree at scale {scale:g}", file=sys.stderr, flush=True)
            shutil.rmtree(f"{self.master}.making", ignore_errors=True)
            tree.build(f"{self.master}.making", scale, oddities=False)
            os.rename(f"{self.master}.making", self.master)

    def begin(self):
        """Goes to day one."""
        shutil.rmtree(self.tree, ignore_errors=True)
        subprocess.run(["cp", "-a", self.master, self.tree], check=True)
        warm(self.tree)

    def pass_a_day(self):
        """Goes to day two."""
        tree.change(self.tree)
        warm(self.tree)

    def source_bytes(self):
        """The size of the source today."""
        return tree.data_bytes(self.tree)

    def backup(self, tool, label):
        """The command that backs the source up, and the file it gets on standard input."""
        return tool.backup_files(self.tree, label), None

    def difference(self, target):
        """What the restore in `target` lacks, or None."""
        restored = target + self.tree
        found = next(compare_trees.differences(self.tree, restored, content_only=True), None)
        return None if found is None else str(found)


def _age_of(module):
    # Data made by another version of its generator is other data.
    with open(module, "rb") as source:
        return hashlib.sha256(source.read()).hexdigest()[:8]


WORKLOADS = {workload.name: workload for workload in (Dump, Files)}
