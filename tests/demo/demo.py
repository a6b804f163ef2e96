#!/usr/bin/env python3
"""The demo: two days of backups of a database and a file tree, restored and compared.

`demo.py CAIRN [--scale N]` takes the path of the `cairn` program. It makes its
own PostgreSQL, its own data and its own repository in a temporary folder (see
TMPDIR), and leaves nothing behind. It exits with 0 only if everything that was
restored equals what was backed up.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import compare_databases
import crm
import postgres
import tree
from measure import human_bytes, run, table

FREE_BYTES_MIN_AT_SCALE_ONE = 8 << 30
HERE = os.path.dirname(os.path.abspath(__file__))
PASSWORD = "a demo has no secrets"
STREAM = "crm.sql"


class DemoFailed(Exception):
    """A step did not do what it must; the text says which and how."""


class Cairn:
    """Runs `cairn` on one repository and keeps what each step cost."""

    def __init__(self, program, work):
        self.program = program
        self.steps = []
        # Nothing of the user's own configuration or cache takes part.
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CAIRN_")},
            "CAIRN_REPO": os.path.join(work, "repository"),
            "CAIRN_PASSWORD": PASSWORD,
            "XDG_CACHE_HOME": os.path.join(work, "cache"),
            "XDG_CONFIG_HOME": os.path.join(work, "config"),
            "XDG_STATE_HOME": os.path.join(work, "state"),
        }

    def step(self, label, *arguments, size=None):
        """Runs one command with `--json` and returns the objects it printed.

        `size` is the number of bytes the step has to do with: the source of a
        backup, holes left out, or what a restore writes.
        """
        errors = tempfile.TemporaryFile()
        cost = run(
            [self.program, arguments[0], "--json", *arguments[1:]], env=self.env, stderr_to=errors
        )
        objects = [json.loads(line) for line in cost.stdout.splitlines()]
        closing = objects[-1] if objects else {}
        if cost.status != 0 or closing != {**closing, "type": "result", "exit_code": 0}:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
            raise DemoFailed(f"{label}: cairn ended with {cost.status}, closing {closing}\n{said}")
        snapshot = next((one for one in objects if one.get("type") == "snapshot"), None)
        self.steps.append((label, cost, snapshot, size))
        return objects

    def backup(self, label, *arguments, size):
        """Backs up and returns the new snapshot's object."""
        objects = self.step(label, "backup", *arguments, size=size)
        found = [one for one in objects if one.get("type") == "snapshot"]
        if len(found) != 1:
            raise DemoFailed(f"{label}: expected one snapshot, cairn printed {len(found)}")
        return found[0]

    def stream_sha256(self, snapshot, path):
        """SHA-256 of a file of a snapshot, as `cairn dump` prints it."""
        return _sha256_of([self.program, "dump", f"{snapshot}:{path}"], self.env)

    def table(self):
        """The lines of the table of all steps."""
        headings = ["step", "seconds", "CPU s", "size", "GB/s", "read", "new", "stored"]
        headings += ["size/stored", "memory"]
        return table(headings, [self._row(*step) for step in self.steps])

    @staticmethod
    def _row(label, cost, snapshot, size):
        snapshot = snapshot or {}
        stored = snapshot.get("bytes_stored")
        return [
            label,
            f"{cost.seconds:.2f}",
            f"{cost.cpu_seconds:.2f}",
            human_bytes(size),
            f"{size / cost.seconds / 1e9:.2f}" if size else "-",
            human_bytes(snapshot.get("bytes_read")),
            human_bytes(snapshot.get("bytes_new")),
            human_bytes(stored),
            f"{size / stored:.1f}" if stored and size else "-",
            human_bytes(cost.rss_bytes_max),
        ]


def _sha256_of(command, env=None):
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env=env)
    digest = hashlib.sha256()
    size = 0
    while block := child.stdout.read(1 << 20):
        digest.update(block)
        size += len(block)
    child.stdout.close()
    if child.wait() != 0:
        raise DemoFailed(f"{' '.join(command)} ended with {child.returncode}")
    return digest.hexdigest(), size


def _stored_bytes(folder):
    return sum(
        os.lstat(os.path.join(place, name)).st_size
        for place, _, names in os.walk(folder)
        for name in names
    )


class Demo:
    """The story of the demo, step by step."""

    def __init__(self, arguments, work):
        self.scale = arguments.scale
        self.work = work
        self.cairn = Cairn(os.path.abspath(arguments.cairn), work)
        self.tree = os.path.join(work, "tree")
        self.start = time.monotonic()

    def say(self, text):
        """Prints one line with the time since the start."""
        print(f"[{time.monotonic() - self.start:5.1f} s] {text}", flush=True)

    def play(self):
        """Runs all steps; raises if anything restored is not equal."""
        folder = os.path.join(self.work, "postgres")
        os.mkdir(folder)
        self.say("starting a private PostgreSQL")
        with postgres.Server(folder) as server:
            self.make_data(server)
            snapshots = self.back_up_two_days(server)
            self.restore_and_compare(server, *snapshots)
        self.print_report()

    def make_data(self, server):
        """Fills the database and the tree."""
        self.say("loading the CRM database; making the file tree")
        # The one mostly computes and the other mostly waits for the disk.
        builder = [sys.executable, os.path.join(HERE, "tree.py"), self.tree, str(self.scale)]
        building = subprocess.Popen(builder)
        try:
            crm.load(server, "crm", self.scale)
            if building.wait() != 0:
                raise DemoFailed(f"making the tree ended with {building.returncode}")
        finally:
            building.kill()
            building.wait()
        ((size,),) = server.query("crm", "select pg_database_size('crm')")
        self.say(f"database: {human_bytes(int(size))} in PostgreSQL")
        files = sum(len(names) for _, _, names in os.walk(self.tree))
        size = human_bytes(tree.data_bytes(self.tree))
        self.say(f"tree: {files} files, {size}; one of them spans 1 GiB and is mostly holes")

    def back_up_two_days(self, server):
        """Two backups of each source; returns what a comparison needs of them."""
        pg_dump = server.pg_dump("crm")
        self.say("measuring pg_dump alone, which bounds the backup of its output")
        begun = time.monotonic()
        sha256, size = _sha256_of(pg_dump)
        self.dump_alone = time.monotonic() - begun, size
        self.say("day one: init, back up database and tree")
        self.cairn.step("init", "init")
        stream = ["--job", "crm", "--stdin-name", STREAM, "--command", "--", *pg_dump]
        crm_one = self.cairn.backup("day 1: database", *stream, size=size)
        if self.cairn.stream_sha256(crm_one["id"], f"/{STREAM}") != (sha256, size):
            raise DemoFailed(f"snapshot {crm_one['id']}: {STREAM} is not what pg_dump printed")
        files = ["--job", "files", self.tree]
        tree_size = tree.data_bytes(self.tree)
        files_one = self.cairn.backup("day 1: tree", *files, size=tree_size)
        self.cairn.backup("unchanged: tree", *files, size=tree_size)
        self.say("a day passes: rows and files change")
        # The first day's tree, to compare the first snapshot with at the end.
        before = os.path.join(self.work, "tree-before")
        subprocess.run(["cp", "-a", self.tree, before], check=True)
        crm.change(server, "crm")
        tree.change(self.tree)
        self.say("day two: back up both again, then read and check everything")
        # The second dump differs from the first in size by a few rows only.
        crm_two = self.cairn.backup("day 2: database", *stream, size=size)
        files_two = self.cairn.backup("day 2: tree", *files, size=tree.data_bytes(self.tree))
        stored = _stored_bytes(self.cairn.env["CAIRN_REPO"])
        self.cairn.step("verify --level full", "verify", "--level", "full", size=stored)
        return before, crm_two, files_one, files_two

    def restore_and_compare(self, server, before, crm_two, files_one, files_two):
        """Restores into empty folders and compares with the originals."""
        target = os.path.join(self.work, "restored")
        restored = [os.path.join(target, name) for name in ("crm", "files", "files-before")]
        snapshots = [crm_two, files_two, files_one]
        labels = ["restore database", "restore tree", "restore tree, day 1"]
        sizes = [self.dump_alone[1], tree.data_bytes(self.tree), tree.data_bytes(before)]
        self.say("restoring the database's dump and both days of the tree")
        for label, folder, snapshot, size in zip(labels, restored, snapshots, sizes):
            os.makedirs(folder)
            self.cairn.step(label, "restore", snapshot["id"], "--target", folder, size=size)
        self.say("loading the dump into a second database; comparing tree with tree")
        subprocess.run(server.client("createdb", "crm_restored"), check=True)
        dump = os.path.join(restored[0], STREAM)
        loading = subprocess.Popen(
            server.psql("crm_restored", "-1", "-f", dump), stdout=subprocess.DEVNULL
        )
        try:
            for original, folder in ((self.tree, restored[1]), (before, restored[2])):
                self.compare_trees(original, folder + os.path.abspath(self.tree))
            if loading.wait() != 0:
                raise DemoFailed(f"the restored {STREAM} does not load: psql {loading.returncode}")
        finally:
            loading.kill()
            loading.wait()
        self.say("comparing row for row")
        rows = compare_databases.compare(server, "crm", "crm_restored")
        self.say(f"equal: {sum(rows.values())} rows in {len(rows)} tables")

    def compare_trees(self, original, restored):
        """Compares in a process of its own, so that this one stays small."""
        judge = os.path.join(HERE, "compare_trees.py")
        done = subprocess.run(
            [sys.executable, judge, original, restored], capture_output=True, check=False, text=True
        )
        if done.returncode != 0:
            raise DemoFailed(f"trees differ: {(done.stdout or done.stderr).splitlines()[0]}")
        self.say(f"equal: {os.path.basename(original)} and its restore")

    def print_report(self):
        """Prints the table and what one must know to read it."""
        seconds, size = self.dump_alone
        print()
        print("\n".join(self.cairn.table()))
        print()
        print(
            f"pg_dump alone: {human_bytes(size)} in {seconds:.2f} s, {size / seconds / 1e9:.2f} GB/s."
            " A backup of its output cannot be faster,\nand its CPU seconds hold pg_dump's."
            " Files were in the page cache. Memory is the peak of the largest process."
        )
        stored = human_bytes(_stored_bytes(self.cairn.env["CAIRN_REPO"]))
        print(f"The repository with all five snapshots takes {stored}.")
        print(f"demo: everything restored equal, in {time.monotonic() - self.start:.0f} s")


def _check_space(folder, scale):
    free = shutil.disk_usage(folder).free
    wanted = int(FREE_BYTES_MIN_AT_SCALE_ONE * scale)
    if free < wanted:
        raise DemoFailed(
            f"{folder} has {human_bytes(free)} free and the demo needs {human_bytes(wanted)}:"
            " set TMPDIR to a folder with more"
        )


def _stop(number, _frame):
    raise SystemExit(128 + number)


def main():
    """Plays the demo in a temporary folder and removes it, whatever happens."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cairn", help="path of the cairn program")
    parser.add_argument("--scale", type=float, default=1.0, help="1 means about 1 GB of dump")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    work = None
    try:
        _check_space(tempfile.gettempdir(), arguments.scale)
        work = tempfile.mkdtemp(prefix="cairn-demo-")
        # The server's user must be able to enter its own folder in here.
        os.chmod(work, 0o711)
        Demo(arguments, work).play()
    except (DemoFailed, compare_databases.Difference, RuntimeError) as error:
        print(f"demo: FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
