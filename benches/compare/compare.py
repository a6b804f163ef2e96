#!/usr/bin/env python3
"""Measures cairn beside restic, Borg and rustic, all in one run on the same data.

Each tool in turn does each step, and the turn rotates from round to round. Data,
repositories and the peers that have to be built live in `--work`. Each measurement is
kept at once in `journal.jsonl` there: a run that is interrupted, started again with the
same options, goes on with the round it was in. The results go to `--results` as
`compare.json`, `compare.md` and two plots. What is restored is compared with its source
in every round; a tool that loses data fails the benchmark.
"""

import argparse
import datetime
import glob
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
sys.path.insert(0, os.path.join(ROOT, "tests/demo"))

import cluster
import install
import plot
import report
import workloads
from harness import ToolFailed, fresh, measured
from journal import Journal
from measure import human_bytes
from samples import by_phase
from tools import TOOLS
from workloads import USUAL, WORKLOADS, stored_bytes

RUNS = 5
DISK_BYTES_LEFT = 4 * 10**9
CONDITION = (
    "All files were read once before each round and stay in the page cache, if their workload"
    " does not say otherwise; written data was synced between steps, not within them. Each tool"
    " restores into a new, empty folder. CPU seconds are user and system time of"
    " the tool's processes; peak memory is the largest resident set of one of them. GB/s is the"
    " size of the source over the time. All encrypt, and compress with zstd."
)


class Bench:
    """One workload, measured for all tools."""

    def __init__(self, workload, programs, work, journal):
        self.workload = workload
        self.programs = programs
        self.work = work
        self.journal = journal
        self.number = 0

    def end(self):
        """Deletes what was restored, also by a run that was interrupted."""
        for place in glob.glob(os.path.join(self.work, "restored-*")):
            shutil.rmtree(place)

    def once(self, number):
        """One round: all steps for all tools, the first tool being another each time."""
        self.number = number
        names = list(self.programs)
        turn = number % len(names)
        names = names[turn:] + names[:turn]
        self.journal.begin(self.workload.name, number)
        for group in [[name] for name in names] if self.workload.one_by_one else [names]:
            self._all_steps(group)
        self.journal.end(self.workload.name, number)

    def _all_steps(self, names):
        self.workload.begin()
        tools = {name: fresh(name, self.programs[name], self.work) for name in names}
        self._each(tools, "first", self._backup)
        self._each(tools, "unchanged", self._backup)
        if self.workload.has_times:
            self.workload.touch()
            self._each(tools, "touched", self._backup)
        self.workload.pass_a_day()
        self._each(tools, "second day", self._backup)
        self._each(tools, "verify", lambda tool, _: measured(tool.verify(), tool.env))
        self._each(tools, "restore", self._restore)
        for name in names:
            shutil.rmtree(os.path.join(self.work, name))

    def _each(self, tools, phase, do):
        source_bytes = self.workload.source_bytes()
        for name, tool in tools.items():
            before = stored_bytes(tool.repository)
            cost = do(tool, phase.replace(" ", "-"))
            after = stored_bytes(tool.repository)
            self.journal.measured(
                self.workload.name,
                self.number,
                phase=phase,
                tool=name,
                source_bytes=source_bytes,
                seconds=cost.seconds,
                cpu_seconds=cost.cpu_seconds,
                rss_bytes_max=cost.rss_bytes_max,
                added_bytes=after - before,
                repository_bytes=after,
                load=os.getloadavg()[0],
            )
            print(
                f"{self.workload.name:6} {phase:10} {name:8} {cost.seconds:7.2f} s"
                f" {cost.cpu_seconds:7.2f} s CPU {(after - before) / 2**20:8.1f} MiB added",
                file=sys.stderr,
                flush=True,
            )

    def _backup(self, tool, label):
        command, feed = self.workload.backup(tool, label)
        return measured(command, tool.env, feed=feed)

    def _restore(self, tool, _label):
        target = tempfile.mkdtemp(prefix="restored-", dir=self.work)
        cost = measured(tool.restore(target, "second-day"), tool.env, cwd=target)
        lost = self.workload.difference(target)
        if lost is not None:
            raise ToolFailed(f"{tool.name}: the restored {self.workload.name} differs: {lost}")
        if not self.workload.many_files or not self._room_for_another(target):
            shutil.rmtree(target)
        return cost

    def _room_for_another(self, target):
        return shutil.disk_usage(target).free > DISK_BYTES_LEFT + 4 * self.workload.source_bytes()


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cairn", help="path of the cairn program")
    parser.add_argument("--runs", type=int, default=RUNS, help="rounds of which medians are taken")
    parser.add_argument("--scale", type=float, default=1.0, help="1: sources of 0.4 to 1.4 GB")
    parser.add_argument("--tools", default=",".join(TOOLS), help=f"of {', '.join(TOOLS)}")
    parser.add_argument(
        "--workloads",
        default=",".join(USUAL),
        help=f"of {', '.join(WORKLOADS)}; `large` is one file of 20 GB and wants 45 GB of disk",
    )
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--report-only", action="store_true", help="of what was measured before")
    parser.add_argument("--work", default=os.path.join(ROOT, ".work/compare"))
    parser.add_argument("--results", default=os.path.join(ROOT, "benches/results"))
    arguments = parser.parse_args()
    arguments.tools = arguments.tools.split(",")
    arguments.workloads = arguments.workloads.split(",")
    for known, chosen in ((TOOLS, arguments.tools), (WORKLOADS, arguments.workloads)):
        for name in chosen:
            if name not in known:
                parser.error(f"{name}: not one of {', '.join(known)}")
    if "cairn" in arguments.tools and arguments.cairn is None:
        parser.error("--cairn PATH is missing: or leave cairn out of --tools")
    if arguments.runs < 1 or arguments.scale <= 0:
        parser.error("--runs is 1 or more, --scale more than 0")
    return arguments


def key_of(arguments, versions):
    """What measurements must have in common to stand in one table."""
    digest = hashlib.sha256()
    for path in [arguments.cairn, workloads.__file__, cluster.__file__]:
        if path is not None:
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    digest.update(json.dumps([arguments.scale, versions], sort_keys=True).encode())
    return digest.hexdigest()[:16]


def tool_versions(programs, work):
    """What each tool says it is, with what a reader has to know of it."""
    versions = {}
    for name, program in programs.items():
        tool = TOOLS[name](program, work)
        versions[name] = f"{tool.version()}{'; ' + tool.remark if tool.remark else ''}"
    return versions


def lacks_room(workload, tools, work):
    """Why a workload cannot be measured on this disk, or None."""
    needed = workload.disk_bytes(tools) + DISK_BYTES_LEFT
    free = shutil.disk_usage(work).free
    if free >= needed:
        return None
    return f"{human_bytes(needed)} of disk are needed and {human_bytes(free)} free"


def measure(arguments, programs, journal, work):
    """Measures what is not yet in the journal; returns what was skipped, and why."""
    skipped = {}
    for name in arguments.workloads:
        workload = WORKLOADS[name](work, arguments.scale)
        missing = [number for number in range(arguments.runs) if not journal.has(name, number)]
        if not missing:
            continue
        reason = lacks_room(workload, len(programs), work)
        if reason is not None:
            skipped[name] = reason
            print(f"bench-compare: {name} is left out: {reason}", file=sys.stderr, flush=True)
            continue
        workload.prepare()
        bench = Bench(workload, programs, work, journal)
        bench.end()
        try:
            for number in missing:
                bench.once(number)
        finally:
            bench.end()
    return skipped


def result_of(arguments, journal, versions, skipped, work):
    """All that is known, as it goes into the JSON file."""
    found = []
    for name in arguments.workloads:
        samples = [
            sample for sample in journal.samples(name) if sample["round"] < arguments.runs
        ]
        if samples:
            found.append(
                {
                    "name": name,
                    "title": WORKLOADS[name](work, arguments.scale).title(),
                    "rounds": len({sample["round"] for sample in samples}),
                    "source_bytes": max(sample["source_bytes"] for sample in samples),
                    "phases": by_phase(samples),
                }
            )
    floor = f" The kernel counts the harness's own {human_bytes(report.rss_bytes_floor())} as floor."
    return {
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": report.machine(),
        "condition": CONDITION + floor,
        "rounds": max((workload["rounds"] for workload in found), default=0),
        "scale": arguments.scale,
        "tools": versions,
        "workloads": found,
        "skipped": skipped,
    }


def write_results(folder, result):
    """Writes JSON, Markdown and plots into `folder` and prints the Markdown."""
    os.makedirs(folder, exist_ok=True)
    texts = {
        "compare.json": json.dumps(result, indent=1) + "\n",
        "compare.md": report.markdown(result),
        "compare-time.svg": plot.times(result),
        "compare-bytes.svg": plot.added_bytes(result),
    }
    for name, text in texts.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as out:
            out.write(text)
    print(texts["compare.md"])


def main():
    """Measures as the command line says, writes the results and prints the tables."""
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    work = os.path.abspath(arguments.work)
    os.makedirs(work, exist_ok=True)
    path = os.path.join(work, "journal.jsonl")
    if arguments.fresh and os.path.exists(path):
        os.unlink(path)
    try:
        host = report.machine()
        programs = install.find_programs(arguments.tools, arguments.cairn)
        versions = tool_versions(programs, work)
        journal = Journal(path, key_of(arguments, versions))
        skipped = {}
        if not arguments.report_only:
            skipped = measure(arguments, programs, journal, work)
    except (ToolFailed, subprocess.CalledProcessError, RuntimeError) as error:
        print(f"bench-compare: FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "bench-compare: interrupted: what was measured is kept, and the same command goes on"
            " with the round that was begun; --report-only makes the report of whole rounds",
            file=sys.stderr,
        )
        return 130
    result = result_of(arguments, journal, versions, skipped, work)
    result["machine"] = host
    if not result["workloads"]:
        print("bench-compare: nothing was measured", file=sys.stderr)
        return 1
    write_results(arguments.results, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
