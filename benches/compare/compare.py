#!/usr/bin/env python3
"""Measures cairn beside restic, Borg and rustic, all in one run on the same data.

Each tool in turn does each step, and the turn rotates from run to run. Data,
repositories and the peers that have to be built live in `--work`. The results
go to `--results` as `compare.json` and `compare.md`. After the first run's
restores the content is compared with the source; a tool that loses data fails
the benchmark.
"""

import argparse
import datetime
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests/demo"))

import report
from measure import run
from tools import TOOLS
from workloads import WORKLOADS

RUSTIC_VERSION = "0.11.4"
DEBIAN_PACKAGES = {"restic": "restic", "borg": "borgbackup"}
CONDITION = (
    "All files were read once before each step, so they were in the page cache, and written"
    " data was synced between steps, not within them. CPU seconds are user and system time of"
    " the tool's processes; peak memory is the largest resident set of one of them. GB/s is the"
    " size of the source over the time. All encrypt, and compress with zstd."
)


class ToolFailed(Exception):
    """A tool ended with an error or lost data."""


def find_programs(names, cairn):
    """Returns the path of each tool, installing the peers that are missing."""
    programs = {}
    for name in names:
        if name == "cairn":
            programs[name] = os.path.abspath(cairn)
        elif name == "rustic":
            tool = os.path.join(ROOT, "tests/setup/tool.sh")
            command = [tool, "rustic-rs", RUSTIC_VERSION, "rustic", "--no-default-features"]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            programs[name] = done.stdout.strip()
        else:
            if shutil.which(name) is None:
                _apt_install(DEBIAN_PACKAGES[name])
            programs[name] = shutil.which(name)
    return programs


def _apt_install(package):
    print(f"setup: installing with apt: {package}", file=sys.stderr, flush=True)
    become = [] if os.geteuid() == 0 else ["sudo"]
    install = ["apt-get", "-qq", "install", "-y", "--no-install-recommends", package]
    subprocess.run([*become, "apt-get", "-qq", "update"], check=True)
    subprocess.run([*become, *install], check=True, stdout=subprocess.DEVNULL)


def stored_bytes(folder):
    """The bytes of all files below `folder`."""
    return sum(
        os.lstat(os.path.join(place, name)).st_size
        for place, _, names in os.walk(folder)
        for name in names
    )


class Bench:
    """One workload, measured for all tools."""

    def __init__(self, workload, programs, work):
        self.workload = workload
        self.programs = programs
        self.work = work
        self.phases = {phase: {name: [] for name in programs} for phase in report.PHASES}
        self.tools = {}
        self.source_bytes = 0
        self.end()

    def end(self):
        """Deletes what was restored, also by a run that was interrupted."""
        for place in glob.glob(os.path.join(self.work, "restored-*")):
            shutil.rmtree(place)

    def once(self, number):
        """One run: all phases for all tools, the first tool being another each time."""
        names = list(self.programs)
        turn = number % len(names)
        names = names[turn:] + names[:turn]
        self.workload.begin()
        self.source_bytes = self.workload.source_bytes()
        self.tools = {name: self._fresh(name) for name in names}
        self._each("first", self._backup)
        self._each("unchanged", self._backup)
        self.workload.pass_a_day()
        self._each("second day", self._backup)
        self._each("verify", lambda tool, _: self._measure(tool, tool.verify()))
        self._each("restore", lambda tool, _: self._restore(tool, check=number == 0))
        for name in names:
            shutil.rmtree(os.path.join(self.work, name))

    def _fresh(self, name):
        folder = os.path.join(self.work, name)
        shutil.rmtree(folder, ignore_errors=True)
        for inner in ("home", "cache", "config"):
            os.makedirs(os.path.join(folder, inner))
        tool = TOOLS[name](self.programs[name], folder)
        self._measure(tool, tool.init())
        return tool

    def _each(self, phase, do):
        for name, tool in self.tools.items():
            before = stored_bytes(tool.repository)
            cost = do(tool, phase.replace(" ", "-"))
            after = stored_bytes(tool.repository)
            self.phases[phase][name].append(
                {
                    "seconds": cost.seconds,
                    "cpu_seconds": cost.cpu_seconds,
                    "rss_bytes_max": cost.rss_bytes_max,
                    "added_bytes": after - before,
                    "repository_bytes": after,
                }
            )
            print(
                f"{self.workload.name:5} {phase:10} {name:7} {cost.seconds:7.2f} s"
                f" {cost.cpu_seconds:7.2f} s CPU {after / 2**20:7.1f} MiB",
                file=sys.stderr,
                flush=True,
            )

    def _backup(self, tool, label):
        command, feed = self.workload.backup(tool, label)
        return self._measure(tool, command, feed=feed)

    def _restore(self, tool, check):
        # Deleted at the end only: for minutes after so many deletions ext4 passes over the inodes
        # that came free, one by one, for each file it makes.
        target = tempfile.mkdtemp(prefix="restored-", dir=self.work)
        cost = self._measure(tool, tool.restore(target, "second-day"), cwd=target)
        lost = self.workload.difference(target) if check else None
        if lost is not None:
            raise ToolFailed(f"{tool.name}: the restored {self.workload.name} differs: {lost}")
        return cost

    @staticmethod
    def _measure(tool, command, **options):
        os.sync()
        with tempfile.TemporaryFile() as said:
            cost = run(command, env=tool.env, stdout_to=said, stderr_to=said, **options)
            if cost.status != 0:
                said.seek(0)
                text = said.read().decode(errors="replace")
                raise ToolFailed(f"`{' '.join(command)}` ended with {cost.status}:\n{text}")
        return cost


def main():
    """Measures as the command line says, writes the results and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cairn", help="path of the cairn program")
    parser.add_argument("--runs", type=int, default=3, help="runs of which medians are taken")
    parser.add_argument("--scale", type=float, default=1.0, help="1: a 1 GB dump, 500 MB of files")
    parser.add_argument("--tools", default="cairn,restic,rustic,borg")
    parser.add_argument("--workloads", default="dump,tree")
    parser.add_argument("--work", default=os.path.join(ROOT, ".work/compare"))
    parser.add_argument("--results", default=os.path.join(ROOT, "benches/results"))
    arguments = parser.parse_args()
    names = arguments.tools.split(",")
    if "cairn" in names and arguments.cairn is None:
        parser.error("--cairn PATH is missing: or leave cairn out of --tools")
    work = os.path.abspath(arguments.work)
    os.makedirs(work, exist_ok=True)
    result = {
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": report.machine(),
        "condition": CONDITION,
        "runs": arguments.runs,
    }
    try:
        programs = find_programs(names, arguments.cairn)
        benches = []
        for name in arguments.workloads.split(","):
            bench = Bench(WORKLOADS[name](work, arguments.scale), programs, work)
            benches.append(bench)
            for number in range(arguments.runs):
                bench.once(number)
            bench.end()
    except (ToolFailed, subprocess.CalledProcessError, RuntimeError) as error:
        print(f"bench-compare: FAILED: {error}", file=sys.stderr)
        return 1
    result["tools"] = {
        name: f"{tool.version()}{'; ' + tool.remark if tool.remark else ''}"
        for name, tool in benches[0].tools.items()
    }
    result["workloads"] = [
        {
            "name": bench.workload.name,
            "title": bench.workload.title,
            "source_bytes": bench.source_bytes,
            "phases": bench.phases,
        }
        for bench in benches
    ]
    write_results(arguments.results, result)
    return 0


def write_results(folder, result):
    """Writes `compare.json` and `compare.md` into `folder` and prints the latter."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "compare.json"), "w", encoding="utf-8") as out:
        json.dump(result, out, indent=1)
        out.write("\n")
    text = report.markdown(result)
    with open(os.path.join(folder, "compare.md"), "w", encoding="utf-8") as out:
        out.write(text)
    print(text)


if __name__ == "__main__":
    sys.exit(main())
