#!/usr/bin/env python3
"""Measures the cairn program: peak memory, time, and how fast it lists snapshots.

Three subjects: one large file of random data and holes, many small files, and
a repository with many snapshots. What is restored is compared with the source;
a difference fails the measurement. Results go to `--results` as `measure.json`
and `measure.md`. Everything made in `--work` is deleted at the end.
"""

import argparse
import datetime
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "benches/compare"))
sys.path.insert(0, os.path.join(ROOT, "tests/demo"))

import sources
from measure import human_bytes, run
from report import machine
from tools import Cairn

LARGE_BYTES = 20 * 10**9
LARGE_RANDOM_BYTES = 12 * 10**9
SMALL_FILES = 300_000
# Mean room of a small file, in a file system with blocks of 4 KiB.
SMALL_FILE_ROOM_BYTES = 6_000
SNAPSHOTS = 1_000
LIST_RUNS = 9

# Source, repository and restored files are there at the same time.
COPIES = 3
DISK_BYTES_MAX = 45 * 10**9
DISK_BYTES_LEFT = 5 * 10**9
ROOM_SHARE = 0.9

RSS_BYTES_LIMIT = 256 << 20
LIST_SECONDS_LIMIT = 0.3

DROP_CACHES = "/proc/sys/vm/drop_caches"

LIMITED_STEPS = ("first backup", "backup, unchanged", "verify", "restore")
CONDITIONS = {
    False: "The page cache was left as the step before left it; written data was synced between"
    " steps, not within them.",
    True: "The page cache, directory and inode caches were dropped before each step.",
}


class MeasureFailed(Exception):
    """cairn ended with an error or lost data, or there is no room to measure."""


class Subject:
    """A repository of its own, with the environment of the commands that use it."""

    def __init__(self, program, folder, drop_caches):
        os.makedirs(folder)
        self.folder = folder
        self.tool = Cairn(program, folder)
        self.drop_caches = drop_caches
        self.steps = []

    def measure(self, step, arguments, *, note=True):
        """Runs cairn; a status other than 0 fails the measurement."""
        self._settle()
        command = [self.tool.program, *arguments]
        with tempfile.TemporaryFile(dir=self.folder) as said:
            cost = run(command, env=self.tool.env, stdout_to=said, stderr_to=said)
            if cost.status != 0:
                said.seek(0)
                text = said.read().decode(errors="replace")
                raise MeasureFailed(f"`{' '.join(command)}` ended with {cost.status}:\n{text}")
        if note:
            self._note(step, cost)
        return cost

    def _settle(self):
        os.sync()
        if self.drop_caches:
            with open(DROP_CACHES, "w", encoding="ascii") as switch:
                switch.write("3")

    def _note(self, step, cost):
        row = {
            "step": step,
            "seconds": cost.seconds,
            "cpu_seconds": cost.cpu_seconds,
            "rss_bytes_max": cost.rss_bytes_max,
            "repository_bytes": stored_bytes(self.tool.repository),
        }
        if step in LIMITED_STEPS:
            row["rss_bytes_limit"] = RSS_BYTES_LIMIT
            row["within_limit"] = cost.rss_bytes_max <= RSS_BYTES_LIMIT
        self.steps.append(row)
        say(
            f"  {step:20} {cost.seconds:8.2f} s {cost.cpu_seconds:8.2f} s CPU"
            f" {human_bytes(cost.rss_bytes_max):>9} peak"
        )

    def all_steps(self, source):
        """Everything from `init` to a restore, which is compared with the source."""
        self.measure("init", self.tool.init()[1:])
        backup = self.tool.backup_files(source, "")[1:]
        self.measure("first backup", backup)
        self.measure("backup, unchanged", backup)
        self.measure("verify", self.tool.verify()[1:])
        target = os.path.join(self.folder, "restored")
        self.measure("restore", self.tool.restore(target, "")[1:])
        restored = target + source
        compare = [sys.executable, sources.__file__, "same", source, restored]
        done = subprocess.run(compare, stdout=subprocess.PIPE, check=False, text=True)
        if done.returncode != 0:
            raise MeasureFailed(f"what was restored differs from its source: {done.stdout.strip()}")


def say(text):
    """Tells whoever waits."""
    print(text, file=sys.stderr, flush=True)


def stored_bytes(path):
    """The room that a file or all files of a tree take, bytes; holes take none."""
    if not os.path.isdir(path):
        return os.lstat(path).st_blocks * 512
    return sum(stored_bytes(entry.path) for entry in os.scandir(path) if not entry.is_symlink())


def make(what, *arguments):
    """Makes a source, in another process."""
    command = [sys.executable, sources.__file__, what, *map(str, arguments)]
    subprocess.run(command, check=True)


def large_sizes(scale, work):
    """Apparent and random bytes of the large file: less random data where the disk is small."""
    free = min(shutil.disk_usage(work).free - DISK_BYTES_LEFT, DISK_BYTES_MAX)
    room = int(free * ROOM_SHARE) // COPIES
    wanted = int(LARGE_RANDOM_BYTES * scale)
    if room < wanted / 4:
        raise MeasureFailed(f"{work}: {human_bytes(free)} to use: too little for --scale {scale}")
    return int(LARGE_BYTES * scale), min(wanted, room)


def measure_large(program, work, scale, drop_caches):
    """One file of random data and holes."""
    apparent, data = large_sizes(scale, work)
    say(f"large file: {human_bytes(apparent)}, {human_bytes(data)} of it random, the rest holes")
    source = os.path.join(work, "source-large")
    make("large", source, apparent, data)
    subject = Subject(program, os.path.join(work, "large"), drop_caches)
    subject.all_steps(source)
    result = {
        "name": "large",
        "title": f"One file of {apparent / 1e9:.3g} GB, {data / 1e9:.3g} GB of it random data,"
        " the rest holes",
        "source_bytes": apparent,
        "source_room_bytes": stored_bytes(source),
        "restored_room_bytes": stored_bytes(os.path.join(subject.folder, "restored") + source),
        "steps": subject.steps,
    }
    os.unlink(source)
    shutil.rmtree(subject.folder)
    return result


def measure_small(program, work, scale, drop_caches):
    """Many small files."""
    count = max(int(SMALL_FILES * scale), 1)
    free = shutil.disk_usage(work).free - DISK_BYTES_LEFT
    if free < count * SMALL_FILE_ROOM_BYTES * COPIES:
        raise MeasureFailed(f"{work}: {human_bytes(free)} to use: too little for {count} files")
    say(f"small files: {count}")
    source = os.path.join(work, "source-small")
    make("small", source, count)
    subject = Subject(program, os.path.join(work, "small"), drop_caches)
    subject.all_steps(source)
    total = sum(
        os.lstat(os.path.join(place, name)).st_size
        for place, _, names in os.walk(source)
        for name in names
    )
    result = {
        "name": "small",
        "title": f"{count:,} files of 0 to 16 KiB, {total / 1e6:.3g} MB together",
        "source_bytes": total,
        "source_room_bytes": stored_bytes(source),
        "files": count,
        "steps": subject.steps,
    }
    shutil.rmtree(source)
    shutil.rmtree(subject.folder)
    return result


def measure_listing(program, work, scale, drop_caches):
    """How long `cairn snapshots` takes in a repository with many of them."""
    count = max(int(SNAPSHOTS * scale), 1)
    say(f"snapshots: {count}")
    subject = Subject(program, os.path.join(work, "listing"), False)
    env, passphrase = subject.tool.env, subject.tool.env.pop("CAIRN_PASSWORD")
    env["CAIRN_JOB"] = "measure"
    key, password = (os.path.join(subject.folder, name) for name in ("key", "password"))
    with open(key, "wb") as out:
        out.write(os.urandom(32))
    with open(password, "w", encoding="utf-8") as out:
        out.write(passphrase)
    by = {"key file": ["--key-file", key], "passphrase": ["--password-file", password]}
    subject.measure("init", ["init", *by["key file"]], note=False)
    add = ["key", "add", *by["key file"], "--new-password-file", password]
    subject.measure("key add", add, note=False)
    source = os.path.join(work, "source-tiny")
    made = 0.0
    for number in range(count):
        sources.tiny(source, number)
        backup = [subject.tool.program, "backup", *by["key file"], source]
        cost = run(backup, env=env, stderr_to=subprocess.DEVNULL)
        if cost.status != 0:
            raise MeasureFailed(f"`{' '.join(backup)}` ended with {cost.status}")
        made += cost.seconds
    say(f"  {count} backups       {made:8.2f} s")
    subject.drop_caches = drop_caches
    rows = []
    for secret, arguments in by.items():
        for cache in ("filled", "empty"):
            rows.append(_list(subject, count, secret, arguments, cache))
    shutil.rmtree(source)
    shutil.rmtree(subject.folder)
    return {"snapshots": count, "seconds_to_make": made, "runs": LIST_RUNS, "rows": rows}


def _list(subject, count, secret, arguments, cache):
    command = ["snapshots", "--json", *arguments]
    samples = []
    _check_listing(subject, command, count)
    for _ in range(LIST_RUNS):
        if cache == "empty":
            shutil.rmtree(subject.tool.env["XDG_CACHE_HOME"], ignore_errors=True)
        samples.append(subject.measure("snapshots", command, note=False))
    seconds = [sample.seconds for sample in samples]
    row = {
        "key": secret,
        "cache": cache,
        "seconds": statistics.median(seconds),
        "seconds_min": min(seconds),
        "seconds_max": max(seconds),
        "cpu_seconds": statistics.median(sample.cpu_seconds for sample in samples),
        "rss_bytes_max": max(sample.rss_bytes_max for sample in samples),
        "seconds_limit": LIST_SECONDS_LIMIT,
    }
    row["within_limit"] = row["seconds"] < LIST_SECONDS_LIMIT
    say(f"  list by {secret}, cache {cache}: {row['seconds']:.3f} s")
    return row


def _check_listing(subject, command, count):
    cost = run([subject.tool.program, *command], env=subject.tool.env)
    listed = sum(json.loads(line)["type"] == "snapshot" for line in cost.stdout.splitlines())
    if listed != count:
        raise MeasureFailed(f"{count} snapshots were made and {listed} listed")


def markdown(result):
    """The whole result as markdown."""
    host = result["machine"]
    lines = [
        "# Memory and time of cairn",
        "",
        f"Measured {result['when']} with {result['program']} on {host['cores']} cores of"
        f" {host['processor']}, {human_bytes(host['memory_bytes'])} of memory, Linux"
        f" {host['kernel']}; load average at the start {host['load_at_start']:.2f}."
        f" Scale {result['scale']:g} of the full measurement. {result['condition']}",
        "",
        "CPU seconds are user and system time. GB are those of the source,"
        " holes included. Peak memory is the largest resident set, pages of mapped files included;"
        f" {human_bytes(RSS_BYTES_LIMIT)} is the limit. What opens with a passphrase needs 64 MiB"
        " for Argon2id. The kernel counts this program's own"
        f" {human_bytes(result['rss_bytes_floor'])} as the floor.",
    ]
    for subject in result["subjects"]:
        lines += ["", f"## {subject['title']}", "", *_step_table(subject)]
        if "restored_room_bytes" in subject:
            room = human_bytes(subject["source_room_bytes"])
            restored = human_bytes(subject["restored_room_bytes"])
            lines += ["", f"The source takes {room} on disk, what was restored {restored}."]
    listing = result.get("listing")
    if listing:
        lines += ["", f"## Opening a repository and listing {listing['snapshots']:,} snapshots"]
        lines += ["", f"Medians of {listing['runs']} runs; {LIST_SECONDS_LIMIT} s is the limit."]
        lines += ["", *_listing_table(listing)]
    return "\n".join(lines) + "\n"


def _step_table(subject):
    unit, amount = "GB", subject["source_bytes"] / 1e9
    if "files" in subject:
        unit, amount = "files", subject["files"]
    yield f"| step | seconds | CPU s | {unit}/s | peak memory | within limit | repository |"
    yield "|---|--:|--:|--:|--:|---|--:|"
    for row in subject["steps"]:
        moves_data = row["step"] in LIMITED_STEPS
        cells = [
            row["step"],
            f"{row['seconds']:.2f}",
            f"{row['cpu_seconds']:.2f}",
            rate(amount / row["seconds"]) if moves_data else "-",
            human_bytes(row["rss_bytes_max"]),
            yes_no(row.get("within_limit")),
            human_bytes(row["repository_bytes"]),
        ]
        yield f"| {' | '.join(cells)} |"


def _listing_table(listing):
    yield "| key | cache | seconds | spread | CPU s | peak memory | within limit |"
    yield "|---|---|--:|--:|--:|--:|---|"
    for row in listing["rows"]:
        cells = [
            row["key"],
            row["cache"],
            f"{row['seconds']:.3f}",
            f"{row['seconds_min']:.3f}-{row['seconds_max']:.3f}",
            f"{row['cpu_seconds']:.3f}",
            human_bytes(row["rss_bytes_max"]),
            yes_no(row["within_limit"]),
        ]
        yield f"| {' | '.join(cells)} |"


def rate(value):
    """Three digits, or whole numbers with thousands apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def yes_no(value):
    """`-` where there is no limit."""
    return {True: "yes", False: "**no**", None: "-"}[value]


def write_results(folder, result):
    """Writes `measure.json` and `measure.md` into `folder` and prints the latter."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "measure.json"), "w", encoding="utf-8") as out:
        json.dump(result, out, indent=1)
        out.write("\n")
    text = markdown(result)
    with open(os.path.join(folder, "measure.md"), "w", encoding="utf-8") as out:
        out.write(text)
    print(text)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cairn", required=True, help="path of the cairn program")
    full = "1: 20 GB, 300,000 files, 1,000 snapshots"
    parser.add_argument("--scale", type=float, default=1.0, help=full)
    parser.add_argument("--subjects", default="large,small,listing")
    parser.add_argument("--drop-caches", action="store_true", help="before each step; needs root")
    parser.add_argument("--work", default=os.path.join(ROOT, ".work/measure"))
    parser.add_argument("--results", default=os.path.join(ROOT, "benches/results"))
    arguments = parser.parse_args()
    unknown = set(arguments.subjects.split(",")) - {"large", "small", "listing"}
    if unknown:
        parser.error(f"no such subject: {', '.join(sorted(unknown))}")
    if not 0 < arguments.scale <= 1:
        parser.error("--scale is more than 0 and at most 1")
    if arguments.drop_caches and not os.access(DROP_CACHES, os.W_OK):
        parser.error("--drop-caches needs root")
    return arguments


def measure_all(arguments, work):
    """Measures the subjects that were asked for."""
    program = os.path.abspath(arguments.cairn)
    version = subprocess.run([program, "--version"], capture_output=True, check=True, text=True)
    result = {
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "program": version.stdout.strip(),
        "machine": machine(),
        "condition": CONDITIONS[arguments.drop_caches],
        "rss_bytes_floor": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "scale": arguments.scale,
        "subjects": [],
    }
    chosen = arguments.subjects.split(",")
    common = (program, work, arguments.scale, arguments.drop_caches)
    for name, measure in (("large", measure_large), ("small", measure_small)):
        if name in chosen:
            result["subjects"].append(measure(*common))
    if "listing" in chosen:
        result["listing"] = measure_listing(*common)
    return result


def main():
    """Measures as the command line says, writes the results and cleans up."""
    arguments = parse_arguments()
    # So that what was made is deleted also then.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = os.path.abspath(arguments.work)
    os.makedirs(folder, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as work:
            write_results(arguments.results, measure_all(arguments, work))
    except (MeasureFailed, subprocess.CalledProcessError) as error:
        say(f"measure: FAILED: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
