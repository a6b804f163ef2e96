"""What collections cost others, and what they leave: `collect.py --cairn PROGRAM [--work DIR] [--states N] [--rounds N]`.

First: a backup alone and one beside a collection that marks everything and leaves nothing dead, by
turns; wall and CPU seconds. Second: a history of which all but some snapshots expire and are erased,
beside a fresh repository to which only the states that are left were backed up; bytes.
"""

import argparse
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import time

FILES = 64
FILE_BYTES = 1 << 20
CHANGED = 12
CHANGES = 8
CHANGE_BYTES = 200


class Cairn:
    def __init__(self, program, repository, cache):
        self.program, self.repository, self.cache = program, str(repository), str(cache)
        self.environment = {**os.environ, "CAIRN_PASSWORD": "bench"}

    def start(self, *arguments):
        command = [self.program, "-r", self.repository, "--cache-dir", self.cache, *arguments]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def run(self, *arguments):
        """Wall and CPU seconds."""
        began = time.monotonic()
        process = self.start(*arguments)
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{arguments}: {said.decode()}")
        return time.monotonic() - began, usage.ru_utime + usage.ru_stime


def change(source, numbers, count=CHANGED):
    for _ in range(count):
        with open(source / f"file-{numbers.randrange(FILES)}", "r+b") as file:
            for _ in range(CHANGES):
                file.seek(numbers.randrange(FILE_BYTES - CHANGE_BYTES))
                file.write(numbers.randbytes(CHANGE_BYTES))


def make(source, numbers):
    source.mkdir(parents=True)
    for number in range(FILES):
        # Half of it compresses.
        content = b"".join(
            numbers.randbytes(512) + b"some text %d\n" % numbers.randrange(99) * 32 for _ in range(1200)
        )
        (source / f"file-{number}").write_bytes(content[:FILE_BYTES])


def bytes_below(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def forget_all_but(cairn, count):
    cairn.run("forget", "--keep-last", str(count))


def beside(program, work, rounds):
    numbers, source = random.Random(1), work / "source"
    make(source, numbers)
    cairn = Cairn(program, work / "repository", work / "cache")
    collector = Cairn(program, work / "repository", work / "collector")
    cairn.run("init")
    for _ in range(12):
        change(source, numbers)
        cairn.run("backup", str(source))
    alone, together = [], []
    for _ in range(rounds):
        change(source, numbers, FILES)
        alone.append(cairn.run("backup", str(source)))
        change(source, numbers, FILES)
        process = collector.start("gc", "--full-mark", "--max-dead", "0", "--max-delete", "100")
        together.append(cairn.run("backup", str(source)))
        if process.wait() != 0:
            sys.exit(process.stderr.read().decode())
        forget_all_but(cairn, 12)
    for name, at in (("wall", 0), ("CPU", 1)):
        one, other = (statistics.median(run[at] for run in runs) for runs in (alone, together))
        print(f"backup alone {one:.2f} s {name}, beside a collection {other:.2f} s: {other / one:.2f} x")


def erased(program, work, states, kept):
    numbers, source = random.Random(2), work / "source"
    make(source, numbers)
    old = Cairn(program, work / "old", work / "cache")
    old.run("init")
    for state in range(states):
        change(source, numbers)
        old.run("backup", str(source))
        if state % 10 == 9:
            forget_all_but(old, kept)
            old.run("gc")
        if state >= states - kept:
            shutil.copytree(source, work / f"state-{state}")
    forget_all_but(old, kept)
    old.run("gc", "--max-dead", "0", "--max-delete", "100")
    left = bytes_below(work / "old")
    fresh = Cairn(program, work / "fresh", work / "fresh-cache")
    fresh.run("init")
    for state in range(states - kept, states):
        shutil.rmtree(source)
        os.rename(work / f"state-{state}", source)
        fresh.run("backup", str(source))
    needed = bytes_below(work / "fresh")
    packs = [bytes_below(work / name / "packs") for name in ("old", "fresh")]
    print(
        f"{states} states, {kept} kept: {left} bytes after erasure, {needed} in a fresh repository:"
        f" {100 * left / needed - 100:+.2f} %; of these packs {packs[0]} and {packs[1]}:"
        f" {100 * packs[0] / packs[1] - 100:+.2f} %"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cairn", required=True)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path(".work/collect"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--states", type=int, default=60)
    parser.add_argument("--kept", type=int, default=12)
    options = parser.parse_args()
    for name, run in (
        ("beside", lambda work: beside(options.cairn, work, options.rounds)),
        ("erased", lambda work: erased(options.cairn, work, options.states, options.kept)),
    ):
        work = options.work / name
        shutil.rmtree(work, ignore_errors=True)
        run(work)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
