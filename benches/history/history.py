#!/usr/bin/env python3
"""A history of backups of a database that changes, under retention rules.

`--hours 720` backs up each hour of a month with cairn and says whether the last backup
costs what the tenth did. `--days 30` backs up each day with cairn and its peers and says
what all of it takes in the end. The database is that of `make bench-compare`; an hour
makes a twenty-fourth of its day's changes. The calendar is moved: cairn runs under
libfaketime, the peers have options for it. Each night forgets what the rules do not keep
and frees it, where the tool can. Each measurement is kept at once in `--work`, and
`--report-only` makes the report of what is there.
"""

import argparse
import datetime
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "benches/compare"))
sys.path.insert(0, os.path.join(ROOT, "tests/demo"))

import chronicle
import cluster
import compare_trees
import install
from harness import ToolFailed, fresh, measured
from measure import human_bytes
from report import machine, rss_bytes_floor
from tools import MISSION_RULES, STREAM, TOOLS
from workloads import warm

DISK_BYTES_LEFT = 4 * 10**9
# At scale 1, what a peer stores anew each day, at most; and what the sources take.
PEER_DAY_BYTES = {"dump": 85 << 20, "files": 160 << 20}
SOURCE_BYTES = 6 * 10**9
CONDITION = (
    "Sources were written just before they were backed up and were in the page cache; written"
    " data was synced between steps, not within them. CPU seconds are user and system time of"
    " the tool's processes. Wall seconds depend on what else the machine did; CPU seconds and"
    " bytes hardly do. All encrypt, and compress with zstd."
)


class History:
    """Tools with their repositories, a database, and the file that keeps what was measured."""

    def __init__(self, arguments, programs, work, start):
        self.arguments = arguments
        self.work = work
        self.start = start
        self.tools = {name: fresh(name, program, work) for name, program in programs.items()}
        self.files = os.path.join(work, "files")
        self.dump = os.path.join(work, "dump.sql")
        shutil.rmtree(self.files, ignore_errors=True)
        self.out = open(chronicle.path_of(work, arguments.name), "w", encoding="utf-8")

    def close(self):
        """Closes the file and deletes the sources; repositories stay for a closer look."""
        self.out.close()
        shutil.rmtree(self.files, ignore_errors=True)
        if os.path.exists(self.dump):
            os.unlink(self.dump)

    def write(self, **entry):
        """Keeps one line."""
        self.out.write(json.dumps(entry) + "\n")
        self.out.flush()

    def run(self):
        """All steps, and at the end verify and restore."""
        steps, period = chronicle.steps(self.arguments)
        with cluster.Cluster(self.arguments.scale) as server:
            server.load()
            for step in range(1, steps + 1):
                if step > 1:
                    server.pass_time(period / datetime.timedelta(days=1))
                self._step(server, step, self.start + step * period)
        self._end(steps)

    def _step(self, server, step, when):
        sources = self.arguments.sources
        if "files" in sources:
            server.copy_files(self.files)
            warm(self.files)
        if "dump" in sources:
            server.dump(self.dump)
        names = list(self.tools)
        turn = step % len(names)
        for name in names[turn:] + names[:turn]:
            tool = self.tools[name]
            for minute, source in enumerate(sources):
                stamp = when + datetime.timedelta(minutes=minute)
                self._backup(step, tool, source, stamp)
            if chronicle.is_night(self.arguments, step):
                self._night(step, tool, when + datetime.timedelta(minutes=30))
        if step % 10 == 0 or self.arguments.days:
            print(f"step {step}", *self._sizes(), file=sys.stderr, flush=True)

    def _sizes(self):
        for name, tool in self.tools.items():
            yield f"{name} {human_bytes(chronicle.contents(tool.repository)[0])}"

    def _backup(self, step, tool, source, when):
        label = f"{source}-{step:04}"
        if source == "dump":
            command, feed = tool.backup_stream(label), self.dump
        else:
            command, feed = tool.backup_files(self.files, label), None
        command, env = tool.dated(command, when)
        # Only cairn knows it: rules and parents go by job.
        env = {**env, "CAIRN_JOB": source}
        self._measure(step, tool, source, command, env, feed=feed)

    def _night(self, step, tool, when):
        for command, env in tool.forget(MISSION_RULES, when):
            what = "forget"
            if "gc" in command:
                what = "gc"
                if self.arguments.max_dead is not None:
                    command = [*command, "--max-dead", str(self.arguments.max_dead)]
            self._measure(step, tool, what, command, env)

    def _measure(self, step, tool, what, command, env, **options):
        before, _ = chronicle.contents(tool.repository)
        cost = measured(command, env, **options)
        after, objects = chronicle.contents(tool.repository)
        self.write(
            step=step,
            tool=tool.name,
            what=what,
            seconds=cost.seconds,
            cpu_seconds=cost.cpu_seconds,
            rss_bytes_max=cost.rss_bytes_max,
            added_bytes=after - before,
            repository_bytes=after,
            objects=objects,
            cache_bytes=chronicle.contents(os.path.join(os.path.dirname(tool.repository), "cache"))[0],
            source_bytes=self._source_bytes(what),
        )

    def _source_bytes(self, what):
        if what == "dump":
            return os.path.getsize(self.dump)
        return chronicle.contents(self.files)[0] if what == "files" else None

    def _end(self, steps):
        for tool in self.tools.values():
            self._measure(steps, tool, "verify", tool.verify(), tool.env)
            target = tempfile.mkdtemp(prefix="restored-", dir=self.work)
            try:
                # The source that came last is in the latest snapshot.
                source = self.arguments.sources[-1]
                command = tool.restore(target, f"{source}-{steps:04}")
                self._measure(steps, tool, "restore", command, tool.env, cwd=target)
                if not self._equal(source, target):
                    raise ToolFailed(f"{tool.name}: what was restored differs from its source")
            finally:
                shutil.rmtree(target)

    def _equal(self, source, target):
        if source == "files":
            return next(
                compare_trees.differences(self.files, target + self.files, content_only=True), None
            ) is None
        sums = []
        for path in (self.dump, os.path.join(target, STREAM)):
            with open(path, "rb") as file:
                sums.append(hashlib.file_digest(file, "sha256").digest())
        return sums[0] == sums[1]


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cairn", help="path of the cairn program")
    span = parser.add_mutually_exclusive_group()
    span.add_argument("--hours", type=int, help="backups, one each hour (720)")
    span.add_argument("--days", type=int, help="backups, one each day")
    parser.add_argument("--scale", type=float, default=0.25, help="1: a dump of 960 MiB")
    parser.add_argument("--tools", help="cairn by hours, all by days")
    parser.add_argument("--sources", help="dump by hours; files,dump by days")
    parser.add_argument("--max-dead", type=int, help="percent, for cairn's gc (its default)")
    parser.add_argument("--report-only", action="store_true", help="of what was measured before")
    parser.add_argument("--work", default=os.path.join(ROOT, ".work/history"))
    parser.add_argument("--results", default=os.path.join(ROOT, "benches/results"))
    arguments = parser.parse_args()
    if not arguments.days and not arguments.hours:
        arguments.hours = 720
    arguments.name = "month" if arguments.days else "history"
    arguments.tools = (arguments.tools or (",".join(TOOLS) if arguments.days else "cairn")).split(",")
    arguments.sources = (arguments.sources or ("files,dump" if arguments.days else "dump")).split(",")
    if "cairn" in arguments.tools and arguments.cairn is None:
        parser.error("--cairn PATH is missing: or leave cairn out of --tools")
    for known, chosen in ((TOOLS, arguments.tools), (PEER_DAY_BYTES, arguments.sources)):
        for name in chosen:
            if name not in known:
                parser.error(f"{name}: not one of {', '.join(known)}")
    return arguments


def check_room(arguments, work):
    """Refuses a run that the disk cannot hold."""
    steps, _ = chronicle.steps(arguments)
    peers = sum(name != "cairn" for name in arguments.tools)
    daily = sum(PEER_DAY_BYTES[source] for source in arguments.sources)
    # cairn stores the first whole, and little of the others.
    stored = daily * (steps * peers + 1 + steps // 10)
    needed = int(arguments.scale * (stored + SOURCE_BYTES)) + DISK_BYTES_LEFT
    free = shutil.disk_usage(work).free
    if free < needed:
        raise ToolFailed(
            f"{work}: {human_bytes(needed)} of disk are needed and {human_bytes(free)} free:"
            " try a smaller --scale, or fewer --tools"
        )


def measure(arguments, programs, work):
    """Runs the history; what is measured goes to the chronicle in `work`."""
    check_room(arguments, work)
    # In the future, so that no file is younger than its snapshot; at midnight.
    now = datetime.datetime.now(datetime.timezone.utc)
    start = now.replace(hour=0, minute=0, second=0, microsecond=0) + datetime.timedelta(days=1)
    history = History(arguments, programs, work, start)
    versions = {name: tool.version() for name, tool in history.tools.items()}
    history.write(
        what="begin",
        when=now.isoformat(timespec="seconds"),
        machine=machine(),
        condition=CONDITION,
        rss_bytes_floor=rss_bytes_floor(),
        tools=versions,
        rules=MISSION_RULES,
        sources=arguments.sources,
        scale=arguments.scale,
        period="day" if arguments.days else "hour",
        max_dead=arguments.max_dead,
        collects=all(tool.collects() for tool in history.tools.values() if tool.name == "cairn"),
    )
    try:
        history.run()
    finally:
        history.close()


def main():
    """Measures as the command line says, writes the results and prints them."""
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    work = os.path.abspath(arguments.work)
    os.makedirs(work, exist_ok=True)
    try:
        if not arguments.report_only:
            if "cairn" in arguments.tools:
                install.from_debian("faketime")
            measure(arguments, install.find_programs(arguments.tools, arguments.cairn), work)
        chronicle.write_results(arguments.results, work, arguments.name)
    except (ToolFailed, subprocess.CalledProcessError, RuntimeError, OSError) as error:
        print(f"bench-history: FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
