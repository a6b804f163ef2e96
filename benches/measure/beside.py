#!/usr/bin/env python3
"""Measures how much longer a backup takes while collections run beside it.

Backs up new data again and again, by turns alone and while `gc --full-mark` runs
in a loop from the beginning of the backup to its end, on one machine. Writes a table to
standard output. Everything made in `--work` is deleted at the end.
"""

import argparse
import base64
import os
import random
import shutil
import statistics
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "benches/compare"))
sys.path.insert(0, os.path.join(ROOT, "tests/demo"))

from measure import run
from tools import Cairn

MIB = 1 << 20
# The collections are to have something to read: files, and snapshots of them.
FILES = 20_000
FILE_BYTES = 4096
SNAPSHOTS = 30
RATIO_LIMIT = 1.2


def must(cost):
    if cost.status != 0:
        sys.exit(f"a command ended with status {cost.status}")
    return cost


def write_new_data(path, megabytes, seed):
    """Half of it random, half of it text of random letters."""
    numbers = random.Random(seed)
    with open(path, "wb") as file:
        for at in range(megabytes):
            block = numbers.randbytes(MIB)
            file.write(block if at % 2 else base64.b64encode(block)[:MIB])
        os.fsync(file.fileno())


class Collections:
    """Collects until it is told to stop."""

    def __init__(self, tool):
        self.tool = tool
        self.count = 0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.collect)

    def collect(self):
        while not self.stopped.is_set():
            command = [self.tool.program, "gc", "--full-mark"]
            child = subprocess.Popen(
                command, env=self.tool.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            while child.poll() is None and not self.stopped.wait(0.01):
                pass
            if child.poll() is None:
                child.terminate()
            child.wait()
            self.count += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()


def measure(tool, work, megabytes, runs):
    tree = os.path.join(work, "tree")
    numbers = random.Random(0)
    for number in range(FILES):
        folder = os.path.join(tree, str(number % 100))
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, str(number)), "wb") as file:
            file.write(numbers.randbytes(FILE_BYTES))
    cairn = lambda *arguments: must(
        run([tool.program, *arguments], env=tool.env, stderr_to=subprocess.DEVNULL)
    )
    cairn("init")
    for number in range(SNAPSHOTS):
        for changed in numbers.sample(range(FILES), 200):
            with open(os.path.join(tree, str(changed % 100), str(changed)), "wb") as file:
                file.write(numbers.randbytes(FILE_BYTES))
        cairn("backup", tree)
    alone, beside, collections = [], [], 0
    data = os.path.join(work, "data")
    for round_number in range(2 * runs):
        write_new_data(data, megabytes, round_number + 1)
        os.sync()
        if round_number % 2:
            with Collections(tool) as collecting:
                beside.append(cairn("backup", data))
            collections += collecting.count
        else:
            alone.append(cairn("backup", data))
    return alone, beside, collections


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cairn", required=True, help="the program")
    parser.add_argument("--work", required=True, help="a folder to make, on the disk to measure")
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    os.makedirs(options.work)
    try:
        tool = Cairn(os.path.abspath(options.cairn), options.work)
        alone, beside, collections = measure(tool, options.work, options.megabytes, options.runs)
    finally:
        shutil.rmtree(options.work)
    print("| backup of new data | seconds | CPU s |\n|---|--:|--:|")
    medians = []
    for name, costs in (("alone", alone), (f"beside {collections} collections", beside)):
        seconds = [cost.seconds for cost in costs]
        medians.append(statistics.median(seconds))
        cpu = statistics.median(cost.cpu_seconds for cost in costs)
        print(f"| {name} | {medians[-1]:.2f} ({min(seconds):.2f}-{max(seconds):.2f}) | {cpu:.2f} |")
    ratio = medians[1] / medians[0]
    verdict = "pass" if ratio <= RATIO_LIMIT else "FAIL"
    print(f"\n{ratio:.2f} x (must <= {RATIO_LIMIT} x): {verdict}")


if __name__ == "__main__":
    main()
