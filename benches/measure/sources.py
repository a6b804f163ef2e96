#!/usr/bin/env python3
"""Makes the sources of `measure.py`, and compares what was restored with them.

A program of its own, so that its memory does not count for the commands that
`measure.py` runs: `sources.py large|small|tiny|same ...`.
"""

import os
import random
import stat
import sys

BLOCK = 1 << 20
# The large file: random data in runs, with holes between them.
RUN_BLOCKS = 96

WORDS = (
    "account invoice customer north delivery open closed Berlin contract renewal support ticket"
    " priority Lagos annual monthly refund partner Lima reseller draft approved pending email"
    " phone Osaka warranty upgrade archived manager quarter"
).split()
FILES_PER_FOLDER = 100
SMALL_BYTES_MAX = 16 << 10


def large(path, apparent_bytes, random_bytes):
    """One file: runs of random data, and holes, spread evenly."""
    dice = random.Random(1)
    blocks = apparent_bytes // BLOCK
    due, spent = 0.0, 0
    with open(path, "wb") as out:
        for first in range(0, blocks, RUN_BLOCKS):
            run = min(RUN_BLOCKS, blocks - first)
            due += run * random_bytes / apparent_bytes
            out.seek(first * BLOCK)
            while spent < due - 0.5:
                out.write(dice.randbytes(BLOCK))
                spent += 1
        out.truncate(apparent_bytes)
        os.fsync(out.fileno())


def small_file_bytes(dice):
    """Sizes as in trees of code, mail and documents: half below 2 KiB, none above 16 KiB."""
    return min(int(dice.lognormvariate(7.6, 1.1)), SMALL_BYTES_MAX)


def small(root, count):
    """`count` files: six of ten text, three do not compress, one is a copy of an earlier one."""
    dice = random.Random(2)
    pool = " ".join(dice.choices(WORDS, k=4 << 20)).encode()
    copied = b"the first"
    for number in range(count):
        place = number // FILES_PER_FOLDER
        folder = os.path.join(root, f"{place // 64:03}", f"{place % 64:02}")
        if number % FILES_PER_FOLDER == 0:
            os.makedirs(folder)
        length, kind = small_file_bytes(dice), dice.random()
        if kind < 0.6:
            start = dice.randrange(len(pool) - length)
            content = (b"%d %d\n" % (number, dice.getrandbits(64)) + pool[start : start + length])[
                :length
            ]
        elif kind < 0.9:
            content = copied = dice.randbytes(length)
        else:
            content = copied
        with open(os.path.join(folder, f"{number:06}"), "wb") as out:
            out.write(content)
    os.sync()


def tiny(root, number):
    """A few files, of which one changes with `number`."""
    os.makedirs(root, exist_ok=True)
    for name, content in (("fixed", "stays"), ("changing", f"state {number}")):
        with open(os.path.join(root, name), "w", encoding="utf-8") as out:
            out.write(content)


def same(one, other):
    """Says what differs between two trees or files first; `None` when nothing does."""
    meta, found = os.lstat(one), os.lstat(other)
    if (meta.st_mode, meta.st_mtime_ns) != (found.st_mode, found.st_mtime_ns):
        return f"{other}: mode or time"
    if stat.S_ISDIR(meta.st_mode):
        names = sorted(os.listdir(one))
        if names != sorted(os.listdir(other)):
            return f"{other}: names"
        paths = ((os.path.join(one, name), os.path.join(other, name)) for name in names)
        return next(filter(None, (same(*pair) for pair in paths)), None)
    if meta.st_size != found.st_size:
        return f"{other}: length"
    with open(one, "rb") as left, open(other, "rb") as right:
        while block := left.read(BLOCK):
            if block != right.read(BLOCK):
                return f"{other}: content before byte {left.tell()}"
    return None


def main():
    """Does what the first argument says."""
    what, *rest = sys.argv[1:]
    if what == "large":
        large(rest[0], int(rest[1]), int(rest[2]))
    elif what == "small":
        small(rest[0], int(rest[1]))
    elif what == "same":
        difference = same(*rest)
        if difference is not None:
            print(difference)
            return 1
    else:
        print(f"sources.py: no such source: {what}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
