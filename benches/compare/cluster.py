"""A PostgreSQL cluster whose days are known: bank accounts as pgbench makes them, and notes.

At scale 1 it is what the research prototype measured: pgbench at scale 60 beside a table
of text and jsonb, about 960 MiB as a plain dump and 1.4 GiB as files, and a day of 40,000
scattered updates, 3,000 edits of text, 600 deletions and 4,000 insertions, which touch a
third of the pages. As a program it prints the notes: `cluster.py SCALE`.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../tests/demo"))

import postgres

DATABASE = "bank"
PGBENCH_SCALE = 60
ACCOUNTS_AT_PGBENCH_SCALE_ONE = 100_000
NOTES = 450_000

DAY = {"updates": 40_000, "edits": 3_000, "deletes": 600, "inserts": 4_000}
# Of a moment: what differs between two copies of the same data, and what only a server
# that runs again needs. The prototype left the log out, too.
LEFT_OUT = ("pg_wal", "postmaster.pid", "postmaster.opts", "pg_stat", "pg_stat_tmp")
STOP_SECONDS_MAX = 120

_PHRASES = 3_000
_WORDS = 2_500
_SYLLABLES = "ba den ri ko lu men tas or vin el ga ster po ni har qu dre zo im fal".split()


class Cluster(postgres.Server):
    """A server with the database `bank`, which can pause and be copied while it does."""

    def __init__(self, scale):
        # Not where the data is wanted, which the server's user may not be able to enter.
        super().__init__(tempfile.mkdtemp(prefix="cairn-cluster-"))
        self.scale = scale
        self.days = 0

    @property
    def accounts(self):
        """How many rows the table of accounts has."""
        return self._pgbench_scale() * ACCOUNTS_AT_PGBENCH_SCALE_ONE

    def _pgbench_scale(self):
        return max(1, round(PGBENCH_SCALE * self.scale))

    def load(self):
        """Makes and fills the database."""
        subprocess.run(self.client("createdb", DATABASE), check=True)
        # pgbench has no seed for what it loads, and needs none: balances begin at 0.
        load = self.client("pgbench", "-i", "-q", "-s", str(self._pgbench_scale()), DATABASE)
        subprocess.run(load, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.query(
            DATABASE,
            "create table notes (id bigint not null, author text not null, body text not null,"
            " doc jsonb not null)",
        )
        rows = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), str(self.scale)], stdout=subprocess.PIPE
        )
        copy = ["-1", "-c", "truncate notes", "-c", "copy notes from stdin with (freeze)"]
        done = subprocess.run(self.psql(DATABASE, *copy), stdin=rows.stdout, check=False)
        rows.stdout.close()
        if rows.wait() != 0 or done.returncode != 0:
            raise RuntimeError("loading the notes failed")
        self.query(DATABASE, "alter table notes add primary key (id)")
        # All is read and marked now, so that reading it later changes no page.
        self.query(DATABASE, "vacuum freeze analyze")

    def pass_time(self, days=1.0):
        """Makes the changes of `days`, which may be a part of one day; never the same again."""
        self.days += 1
        number = self.days
        share = self.scale * days
        count = {what: max(1, round(rows * share)) for what, rows in DAY.items()}
        # Multiplying by a prime that divides no count scatters; each time begins elsewhere.
        self.query(
            DATABASE,
            "update pgbench_accounts a set abalance = abalance + n % 9973 - 4986 from"
            f" (select n, 1 + (hashint8extended(n, {number}) & 9223372036854775807)"
            f" % {self.accounts} as aid from generate_series(1, {count['updates']}) n) r"
            " where a.aid = r.aid",
        )
        note = (
            f"(select 1 + (hashint8extended(n, {number * 7 + 1}) & 9223372036854775807)"
            f" % {self._notes()} as id from generate_series(1, {{}}) n)"
        )
        self.query(
            DATABASE,
            "update notes set body = overlay(body placing ' edited ' || md5(id::text || "
            f"'{number}') || ' ' from 1 + (id % 60)::int for 8) where id in"
            f" {note.format(count['edits'])}",
        )
        self.query(
            DATABASE,
            "delete from notes where id in"
            f" (select {self._notes()} + 1 - id from {note.format(count['deletes'])} d)",
        )
        first = 10_000_000 + number * 100_000
        self.query(
            DATABASE,
            f"insert into notes select {first} + row_number() over (order by id),"
            f" author, md5(id::text || '{number}') || reverse(body), doc from notes"
            f" where id in {note.format(count['inserts'])} order by id",
        )

    def _notes(self):
        return max(1, round(NOTES * self.scale))

    def dump(self, path):
        """Writes a plain dump to `path`."""
        with open(path, "wb") as out:
            subprocess.run(self.pg_dump(DATABASE), stdout=out, check=True)

    def copy_files(self, target):
        """Stops the server as at a maintenance, makes `target` equal its files, starts it."""
        command = self.process.args
        self.process.send_signal(signal.SIGINT)
        if self.process.wait(timeout=STOP_SECONDS_MAX) != 0:
            raise RuntimeError(f"PostgreSQL did not stop cleanly:\n{self._log_tail()}")
        update_tree(os.path.join(self.folder, "data"), target, LEFT_OUT)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        self._wait_until_ready()


def update_tree(source, target, left_out=()):
    """Makes `target` equal `source`: what is the same is not touched, inodes stay.

    Files of equal length and time are taken for equal. `left_out` names entries of the
    root: files that are not copied, and directories that are, empty.
    """
    os.makedirs(target, exist_ok=True)
    wanted = {entry.name: entry for entry in os.scandir(source)}
    for there in list(os.scandir(target)):
        entry = wanted.get(there.name)
        if entry is None or entry.name in left_out or _kind(entry) != _kind(there):
            remove(there.path)
    for name, entry in wanted.items():
        path = os.path.join(target, name)
        if entry.is_symlink():
            if not os.path.islink(path):
                os.symlink(os.readlink(entry.path), path)
        elif not entry.is_dir():
            if name not in left_out:
                _update_file(entry, path)
        elif name in left_out:
            os.makedirs(path, exist_ok=True)
        else:
            update_tree(entry.path, path)


def remove(path):
    """Deletes a file, or a folder with all that is in it."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _kind(entry):
    return "link" if entry.is_symlink() else "folder" if entry.is_dir() else "file"


def _update_file(source, target):
    new = source.stat()
    try:
        old = os.stat(target)
    except FileNotFoundError:
        old = None
    if old is None or (old.st_size, old.st_mtime_ns) != (new.st_size, new.st_mtime_ns):
        shutil.copyfile(source.path, target)
        os.chmod(target, new.st_mode & 0o7777)
        os.utime(target, ns=(new.st_mtime_ns, new.st_mtime_ns))


def print_notes(scale):
    """Prints the rows of the notes in COPY's text format; always the same."""
    dice = random.Random("cairn notes")
    words = ["".join(dice.choices(_SYLLABLES, k=dice.randint(1, 4))) for _ in range(_WORDS)]
    phrases = [" ".join(dice.choices(words, k=dice.randint(2, 9))) for _ in range(_PHRASES)]
    with open(sys.stdout.fileno(), "w", encoding="utf-8", buffering=1 << 20) as out:
        for number in range(1, max(1, round(NOTES * scale)) + 1):
            body = ". ".join(dice.choices(phrases, k=4 + int(dice.random() ** 2 * 50)))
            tag, seats, token = dice.choice(words), dice.randrange(1000), dice.getrandbits(64)
            out.write(
                f"{number}\t{dice.choice(words)}\t{body}\t"
                f'{{"tag": "{tag}", "seats": {seats}, "token": "{token:016x}",'
                f' "read": {"true" if seats % 2 else "false"}}}\n'
            )


if __name__ == "__main__":
    print_notes(float(sys.argv[1]))
