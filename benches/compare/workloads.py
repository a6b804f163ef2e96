"""What is backed up, on two days each. Sources that are made once stay in the work folder."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../tests/demo"))
sys.path.insert(0, os.path.join(HERE, "../measure"))

import cluster
import compare_trees
import crm
import postgres
import sources
import tree
from tools import STREAM

BLOCK = 1 << 20
LOG_BYTES = 400 << 20
LOG_GROWTH = 0.1
SMALL_FILES = 100_000
NOISE_FILES, NOISE_FILE_BYTES = 4, 256 << 20
LARGE_BYTES, LARGE_RANDOM_BYTES = 20 * 10**9, 8 * 10**9


def warm(path):
    """Reads a file, or all files below a folder, so that they are in the page cache."""
    if os.path.isdir(path):
        for entry in os.scandir(path):
            if not entry.is_symlink():
                warm(entry.path)
    else:
        with open(path, "rb", buffering=0) as file:
            while file.read(BLOCK):
                pass


def stored_bytes(folder):
    """The bytes of all files below `folder`."""
    total = 0
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            total += stored_bytes(entry.path)
        elif not entry.is_symlink():
            total += entry.stat().st_size
    return total


def makes(folder, *modules):
    """`folder`, named by the source of what makes it: another version makes other data."""
    digest = hashlib.sha256()
    for module in modules:
        with open(module.__file__, "rb") as source:
            digest.update(source.read())
    return f"{folder}-{digest.hexdigest()[:8]}"


def make_once(folder, make):
    """Calls `make` with a folder that becomes `folder` when it is complete."""
    if os.path.exists(folder):
        return
    making = f"{folder}.making"
    shutil.rmtree(making, ignore_errors=True)
    os.makedirs(making)
    print(f"making {os.path.basename(folder)}", file=sys.stderr, flush=True)
    make(making)
    os.rename(making, folder)


def make_bank(folder, scale):
    """Both days of the prototype's database: plain dumps, and files of the stopped server."""

    def make(making):
        with cluster.Cluster(scale) as server:
            server.load()
            for day in (1, 2):
                if day == 2:
                    server.pass_time()
                server.dump(os.path.join(making, f"day{day}.sql"))
                server.copy_files(os.path.join(making, f"files{day}"))

    folder = makes(os.path.join(folder, f"bank-{scale:g}"), cluster, postgres)
    make_once(folder, make)
    return folder


class Workload:
    """A source with two days. `scale` 1 is its usual size."""

    name = ""
    # Each tool takes all steps before the next one begins, and what it stored is deleted.
    one_by_one = False
    # It fits in memory: files are read once before each round.
    warmed = True
    # So many files that what was restored is better deleted at the end: for minutes after
    # ext4 passes over the inodes that came free, one by one, for each file it makes.
    many_files = False
    # Whether its files can be touched; a stream is always read.
    has_times = True

    def __init__(self, folder, scale):
        self.folder = folder
        self.scale = scale

    def title(self):
        """What it is, for the report."""
        raise NotImplementedError

    def disk_bytes(self, tools):
        """The disk a round takes beside the sources, at most; not exact."""
        return int(self.source_bytes_about() * (1.2 * tools + 1.2))

    def source_bytes_about(self):
        """The size of the source before it is made."""
        raise NotImplementedError

    def prepare(self):
        """Makes what is made once."""

    def begin(self):
        """Goes to day one."""
        raise NotImplementedError

    def pass_a_day(self):
        """Goes to day two."""
        raise NotImplementedError

    def touch(self):
        """Gives all files new times and leaves their content."""

    def source_bytes(self):
        """The size of the source today."""
        raise NotImplementedError

    def backup(self, tool, label):
        """The command that backs the source up, and the file it gets on standard input."""
        raise NotImplementedError

    def difference(self, target):
        """What the restore in `target` lacks, or None."""
        raise NotImplementedError


class Stream(Workload):
    """Two files, of which each is given on standard input through a pipe."""

    has_times = False

    def __init__(self, folder, scale):
        super().__init__(folder, scale)
        self.day = None
        self.place = None

    def _path(self):
        return os.path.join(self.place, f"day{self.day}.sql")

    def source_bytes_about(self):
        return int(1.1e9 * self.scale)

    def begin(self):
        self.day = 1
        for day in (1, 2):
            warm(os.path.join(self.place, f"day{day}.sql"))

    def pass_a_day(self):
        self.day = 2

    def source_bytes(self):
        return os.path.getsize(self._path())

    def backup(self, tool, label):
        return tool.backup_stream(label), self._path()

    def difference(self, target):
        with open(self._path(), "rb") as a, open(os.path.join(target, STREAM), "rb") as b:
            sums = [hashlib.file_digest(file, "sha256").digest() for file in (a, b)]
        return None if sums[0] == sums[1] else f"{STREAM} is another"


class Dump(Stream):
    """The prototype's database."""

    name = "dump"

    def title(self):
        return (
            "a plain pg_dump on standard input: pgbench and a table of text and jsonb;"
            " 40,000 scattered updates, 3,000 edits, 600 deletions, 4,000 insertions"
        )

    def prepare(self):
        self.place = make_bank(self.folder, self.scale)


class CrmDump(Stream):
    """The demo's database, of which more changes in a day."""

    name = "crm"

    def title(self):
        return (
            "a plain pg_dump on standard input: the demo's CRM; 77,000 scattered updates,"
            " 15,600 insertions of new text"
        )

    def prepare(self):
        self.place = makes(os.path.join(self.folder, f"crm-{self.scale:g}"), crm, postgres)
        make_once(self.place, self._make)

    def _make(self, making):
        server_folder = tempfile.mkdtemp(prefix="cairn-compare-")
        with postgres.Server(server_folder) as server:
            crm.load(server, "crm", self.scale)
            for day in (1, 2):
                if day == 2:
                    crm.change(server, "crm")
                with open(os.path.join(making, f"day{day}.sql"), "wb") as out:
                    subprocess.run(server.pg_dump("crm"), stdout=out, check=True)


class Folder(Workload):
    """A folder of files. Day one is brought back in place, so that few inodes come free."""

    def __init__(self, folder, scale):
        super().__init__(folder, scale)
        self.live = os.path.join(folder, f"source-{self.name}")

    def source_bytes(self):
        return stored_bytes(self.live)

    def begin(self):
        """Makes the live folder equal day one again, and reads it."""
        cluster.update_tree(self.first_day(), self.live)
        if self.warmed:
            warm(self.live)

    def first_day(self):
        """The folder that holds day one."""
        raise NotImplementedError

    def touch(self):
        for place, _, names in os.walk(self.live):
            for name in names:
                path = os.path.join(place, name)
                if not os.path.islink(path):
                    os.utime(path)

    def backup(self, tool, label):
        return tool.backup_files(self.live, label), None

    def difference(self, target):
        # In a process of its own: what this one needs would count for the tools it starts.
        judge = [sys.executable, compare_trees.__file__, self.live, target + self.live]
        done = subprocess.run(
            [*judge, "--content-only"], stdout=subprocess.PIPE, check=False, text=True
        )
        return None if done.returncode == 0 else done.stdout.split("\n", 1)[0] or "not comparable"


class DataDirectory(Folder):
    """The files of the prototype's database."""

    name = "pgdata"

    def title(self):
        return (
            "the data directory of a stopped PostgreSQL without its log: the same database,"
            " a third of the pages touched"
        )

    def source_bytes_about(self):
        return int(1.45e9 * self.scale)

    def prepare(self):
        self.place = make_bank(self.folder, self.scale)

    def first_day(self):
        return os.path.join(self.place, "files1")

    def pass_a_day(self):
        cluster.update_tree(os.path.join(self.place, "files2"), self.live)
        warm(self.live)


class Append(Folder):
    """A log that grows."""

    name = "append"

    def title(self):
        return "a log file that grows by a tenth"

    def source_bytes_about(self):
        return int(LOG_BYTES * (1 + LOG_GROWTH) * self.scale)

    def prepare(self):
        self.place = os.path.join(self.folder, f"append-{self.scale:g}")
        make_once(self.place, self._make)

    def _make(self, making):
        os.makedirs(os.path.join(making, "day1"))
        write_log(os.path.join(making, "day1/access.log"), int(LOG_BYTES * self.scale), 1)
        write_log(os.path.join(making, "more"), int(LOG_BYTES * LOG_GROWTH * self.scale), 2)

    def first_day(self):
        return os.path.join(self.place, "day1")

    def pass_a_day(self):
        with open(os.path.join(self.live, "access.log"), "ab") as log:
            with open(os.path.join(self.place, "more"), "rb") as more:
                shutil.copyfileobj(more, log, BLOCK)


def write_log(path, length, seed):
    """Lines as a web server writes them, always the same for the same seed."""
    dice = random.Random(seed)
    hosts = [f"10.{dice.randrange(256)}.{dice.randrange(256)}.{dice.randrange(256)}" for _ in range(900)]
    paths = [f"/{word}/{dice.randrange(10**6)}" for word in sources.WORDS for _ in range(60)]
    agents = [f"Mozilla/5.0 ({word}) Client/{dice.randrange(90)}" for word in sources.WORDS]
    second = seed * 10**6
    with open(path, "wb") as out:
        written = 0
        while written < length:
            lines = []
            for _ in range(5_000):
                second += dice.random() < 0.02
                clock = f"{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}"
                lines.append(
                    f"{dice.choice(hosts)} - - [{second // 86400 % 28 + 1:02}/Mar/2026:{clock} +0000]"
                    f' "GET {dice.choice(paths)} HTTP/1.1" 200 {dice.randrange(90_000)}'
                    f' "{dice.choice(agents)}" {dice.getrandbits(48):012x}\n'
                )
            block = "".join(lines).encode()[: length - written]
            out.write(block)
            written += len(block)


class Tree(Folder):
    """Programs, libraries and documents of this machine."""

    name = "tree"
    many_files = True

    def title(self):
        return "a tree of programs, libraries, documents and mail"

    def source_bytes_about(self):
        return int(6e8 * self.scale)

    def prepare(self):
        self.place = makes(os.path.join(self.folder, f"tree-{self.scale:g}"), tree)
        make_once(self.place, lambda making: tree.build(making + "/day1", self.scale, False))

    def first_day(self):
        return os.path.join(self.place, "day1")

    def pass_a_day(self):
        tree.change(self.live)
        warm(self.live)


class SmallFiles(Folder):
    """A hundred thousand small files."""

    name = "small"
    many_files = True

    def _count(self):
        return max(1, int(SMALL_FILES * self.scale))

    def title(self):
        return (
            f"{self._count():,} files of up to 16 KiB; one of a hundred changes, one of two"
            " hundred goes, as many come, a folder moves"
        )

    def source_bytes_about(self):
        return int(6e8 * self.scale)

    def prepare(self):
        self.place = makes(os.path.join(self.folder, f"small-{self.scale:g}"), sources)
        # In a process of its own, whose memory is gone afterwards.
        maker = [sys.executable, sources.__file__, "small"]
        count = str(self._count())
        make_once(
            self.place,
            lambda making: subprocess.run([*maker, f"{making}/day1", count], check=True),
        )

    def first_day(self):
        return os.path.join(self.place, "day1")

    def pass_a_day(self):
        dice = random.Random("cairn small day two")
        files = [
            os.path.join(place, name)
            for place, folders, names in os.walk(self.live)
            # Sorted as it goes, so that the walk is always the same.
            for name in (folders.sort(), sorted(names))[1]
        ]
        for path in dice.sample(files, len(files) // 100):
            with open(path, "r+b") as file:
                file.seek(dice.randrange(os.path.getsize(path) + 1))
                file.write(dice.randbytes(100))
        for path in dice.sample(files, len(files) // 200):
            os.unlink(path)
        for number in range(len(files) // 200):
            with open(os.path.join(self.live, f"new-{number:06}"), "wb") as file:
                file.write(dice.randbytes(dice.randrange(4_000)))
        folders = sorted(os.listdir(os.path.join(self.live, "000")))
        os.rename(
            os.path.join(self.live, "000", folders[0]), os.path.join(self.live, "000", "moved")
        )


class Noise(Folder):
    """What neither compresses nor repeats."""

    name = "random"

    def title(self):
        return (
            f"{NOISE_FILES} incompressible files; bytes come into the middle of one and another"
            " is replaced"
        )

    def _file_bytes(self):
        return int(NOISE_FILE_BYTES * self.scale)

    def source_bytes_about(self):
        return NOISE_FILES * self._file_bytes()

    def prepare(self):
        self.place = os.path.join(self.folder, f"random-{self.scale:g}")
        make_once(self.place, self._make)

    def _make(self, making):
        for number in range(NOISE_FILES):
            os.makedirs(os.path.join(making, "day1"), exist_ok=True)
            write_noise(os.path.join(making, f"day1/photos-{number}"), self._file_bytes(), number)

    def first_day(self):
        return os.path.join(self.place, "day1")

    def pass_a_day(self):
        write_noise(os.path.join(self.live, "photos-0"), self._file_bytes(), NOISE_FILES)
        path = os.path.join(self.live, "photos-1")
        with open(path, "rb") as old, open(f"{path}.new", "wb") as new:
            for _ in range(self._file_bytes() // BLOCK // 2):
                new.write(old.read(BLOCK))
            new.write(b"a few bytes more")
            shutil.copyfileobj(old, new, BLOCK)
        os.replace(f"{path}.new", path)
        warm(self.live)


def write_noise(path, length, seed):
    """`length` random bytes, always the same for the same seed."""
    dice = random.Random(f"cairn noise {seed}")
    with open(path, "wb") as out:
        for place in range(0, length, BLOCK):
            out.write(dice.randbytes(min(BLOCK, length - place)))


class Large(Folder):
    """One file larger than memory."""

    name = "large"
    one_by_one = True
    warmed = False

    def title(self):
        return (
            f"one file of {LARGE_BYTES * self.scale / 1e9:.3g} GB, of which"
            f" {LARGE_RANDOM_BYTES * self.scale / 1e9:.3g} GB are random and the rest is holes;"
            " a hundredth is overwritten. Not warmed: it is larger than what memory has to spare"
        )

    def source_bytes_about(self):
        return int(LARGE_BYTES * self.scale)

    def disk_bytes(self, tools):
        # The source before and after, one repository, and a restore that may fill the holes.
        random_bytes = int(LARGE_RANDOM_BYTES * self.scale)
        return self.source_bytes_about() + 3 * random_bytes

    def begin(self):
        """Made anew: two copies would not fit on many disks."""
        shutil.rmtree(self.live, ignore_errors=True)
        os.makedirs(self.live)
        random_bytes = int(LARGE_RANDOM_BYTES * self.scale)
        maker = [sys.executable, sources.__file__, "large"]
        path = os.path.join(self.live, "disk.img")
        subprocess.run([*maker, path, str(self.source_bytes_about()), str(random_bytes)], check=True)

    def first_day(self):
        return self.live

    def pass_a_day(self):
        dice = random.Random("cairn large day two")
        length = self.source_bytes_about()
        with open(os.path.join(self.live, "disk.img"), "r+b") as file:
            for _ in range(length // (100 * BLOCK)):
                file.seek(dice.randrange(length // BLOCK) * BLOCK)
                file.write(dice.randbytes(min(BLOCK, length)))


WORKLOADS = {
    workload.name: workload
    for workload in (Dump, DataDirectory, Append, SmallFiles, Noise, Tree, CrmDump, Large)
}
USUAL = ("dump", "pgdata", "append", "small", "random", "tree")
