#!/usr/bin/env python3
"""What a month of daily changes costs: a database as a plain dump and as files, day by day.

`month.py --kind dump|files --days N [--scale S] NAME=PROGRAM...` makes the database of
`benches/compare/cluster.py` at scale S (1 is a dump of 960 MiB and files of 1.4 GiB), changes
it N times as a day does, and backs each day up with each tool: `cairn` (or any other name
that begins with `cairn`) and `restic`, each with the path of its program. It prints what
every day added, the CPU seconds it took, what the first and last day cost to restore, and two
bounds: `zstd --patch-from` the day before, which no depth-one scheme reaches, and from day 0.
With `--keep FOLDER` the days are left there, and used again by the next run.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../compare"))

PASSWORD = "a benchmark has no secrets"
STREAM = "day.sql"


def make_days(folder, scale, days):
    """Leaves `dayN.sql` and `filesN` in `folder`."""
    # Only here: bounds and tools can be run over days made elsewhere.
    import cluster

    with cluster.Cluster(scale) as server:
        server.load()
        for day in range(days + 1):
            if day:
                server.pass_time()
            server.dump(os.path.join(folder, f"day{day}.sql"))
            target = os.path.join(folder, f"files{day}")
            if day:
                shutil.copytree(os.path.join(folder, f"files{day - 1}"), target)
            server.copy_files(target)
            print(f"day {day} made", file=sys.stderr, flush=True)


def timed(command, env, stdin=None):
    """Runs a command; returns its output and the CPU seconds it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, env=env, stdin=stdin, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, cpu


def bytes_below(folder):
    """Lengths of all files below a folder."""
    return sum(
        os.path.getsize(os.path.join(place, name))
        for place, _, names in os.walk(folder)
        for name in names
    )


class Tool:
    """One tool with a repository of its own."""

    def __init__(self, name, program, work):
        self.name, self.program, self.work = name, program, work
        self.repository = os.path.join(work, "repository")
        own = {"XDG_CACHE_HOME": "cache", "XDG_CONFIG_HOME": "config", "XDG_STATE_HOME": "state"}
        self.env = {key: value for key, value in os.environ.items() if "CAIRN" not in key}
        self.env.update({key: os.path.join(work, value) for key, value in own.items()})
        self.env.update(CAIRN_REPO=self.repository, CAIRN_PASSWORD=PASSWORD)
        self.env.update(RESTIC_REPOSITORY=self.repository, RESTIC_PASSWORD=PASSWORD)
        self.is_restic = name.startswith("restic")
        os.makedirs(work)
        timed([program, "init"], self.env)
        self.before = bytes_below(self.repository)

    def back_up(self, source, is_stream):
        """Backs up; returns bytes added, CPU seconds, and what the tool says of itself."""
        if is_stream:
            how = ["--stdin", "--stdin-name" if not self.is_restic else "--stdin-filename", STREAM]
        else:
            how = [source]
        job = [] if self.is_restic else ["--job", "month"]
        command = [self.program, "backup", "--json", *job, *how]
        with open(source if is_stream else os.devnull, "rb") as stdin:
            output, cpu = timed(command, self.env, stdin)
        now = bytes_below(self.repository)
        added, self.before = now - self.before, now
        report = json.loads(output.splitlines()[-1]).get("report", {})
        return added, cpu, report

    def restore(self, snapshot):
        """CPU seconds of a restore; cairn only."""
        target = os.path.join(self.work, "restored")
        _, cpu = timed([self.program, "restore", snapshot, "--target", target], self.env)
        shutil.rmtree(target)
        return cpu


def patch_bytes(folder, day, base, kind):
    """What `zstd --patch-from` makes of a day."""
    paths = []
    with tempfile.TemporaryDirectory() as work:
        for number in (base, day):
            path = os.path.join(folder, f"day{number}.sql")
            if kind == "files":
                files, path = os.path.join(folder, f"files{number}"), os.path.join(work, str(number))
                subprocess.run(["tar", "cf", path, "--sort=name", "-C", files, "."], check=True)
            paths.append(path)
        out = os.path.join(work, "patch")
        command = ["zstd", "-q", "-3", "--long=31", f"--patch-from={paths[0]}", paths[1], "-o", out]
        subprocess.run(command, check=True)
        return os.path.getsize(out)


def mebibytes(number):
    """As the tables have it."""
    return f"{number / 2**20:.2f}"


def run(arguments, folder, work):
    """All days with all tools."""
    is_stream = arguments.kind == "dump"
    named = (tool.split("=", 1) for tool in arguments.tools)
    tools = [Tool(name, program, os.path.join(work, name)) for name, program in named]
    source = os.path.join(work, "source")
    totals = {tool.name: 0 for tool in tools}
    print("day | " + " | ".join(f"{tool.name}: added, total MiB, CPU s" for tool in tools))
    for day in range(arguments.days + 1):
        place = os.path.join(folder, f"day{day}.sql")
        if not is_stream:
            shutil.rmtree(source, ignore_errors=True)
            shutil.copytree(os.path.join(folder, f"files{day}"), source, copy_function=os.link)
            place = source
        row = []
        for tool in tools:
            added, cpu, report = tool.back_up(place, is_stream)
            totals[tool.name] += added
            deltas = report.get("delta_bytes_stored")
            note = "" if deltas is None else f" (deltas {mebibytes(deltas)})"
            row.append(f"{mebibytes(added)}{note}, {mebibytes(totals[tool.name])}, {cpu:.2f}")
        print(f"{day:3} | " + " | ".join(row), flush=True)
    for tool in tools:
        if not tool.is_restic:
            first = f"latest~{arguments.days}" if arguments.days else "latest"
            costs = [f"{tool.restore(snapshot):.2f}" for snapshot in (first, "latest")]
            print(f"{tool.name}: restoring day 0 and day {arguments.days}: {', '.join(costs)} CPU s")
    last = arguments.days
    for base in sorted({0, max(0, last - 1)}):
        size = patch_bytes(folder, last, base, arguments.kind)
        print(f"zstd --patch-from day {base}: day {last} in {mebibytes(size)} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kind", choices=["dump", "files"], required=True)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--scale", type=float, default=0.2)
    parser.add_argument("--keep", help="folder that the days are kept in")
    parser.add_argument("tools", nargs="+", metavar="NAME=PROGRAM")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cairn-month-") as work:
        folder = arguments.keep or os.path.join(work, "days")
        os.makedirs(folder, exist_ok=True)
        if not os.path.exists(os.path.join(folder, f"day{arguments.days}.sql")):
            make_days(folder, arguments.scale, arguments.days)
        run(arguments, folder, os.path.join(work, "tools"))


if __name__ == "__main__":
    main()
