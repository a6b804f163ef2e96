#!/usr/bin/env python3
"""Measures cairn on a server that speaks S3, beside a disk and beside restic and rustic.

The server is Garage, one node, on loopback and on the same cores; backups go to s3s-fs as well,
which does little but keep files. A proxy counts requests, and lets answers come 20 ms later where
that is asked for. Each sample is written to `--work` as soon
as it is there: started again with the same options and programs, the run goes on where it was.
Results go to `--results` as `remote.json` and `remote.md`.
"""

import argparse
import datetime
import hashlib
import json
import os
import random
import secrets
import shutil
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
for folder in ("benches/compare", "tests/demo", "tests/cluster"):
    sys.path.insert(0, os.path.join(ROOT, folder))

import garage
from install import find_programs
from measure import human_bytes, run
from proxy import Proxy
from report import machine, machine_line
from s3s import FileServer
from tools import TOOLS

DELAY_SECONDS = 0.020
HOURS = 5
PAGE_BYTES = 8 << 10
FILE_BYTES = 4 << 20
SMALL_FILES = 400
CHANGED_SHARE = 0.01
AIMS = {
    "backup": "backup to S3, times as fast as to the disk",
    "backup to files": "backup to S3 that is files (s3s-fs), times as fast as to the disk",
    "restore": "restore with 20 ms latency, times as fast as without",
    "replicate": "replicate of one hour, times as long as its backup",
}


class MeasureFailed(Exception):
    """A tool ended with an error or lost data."""


class Source:
    """Files such as a database has: pages of text rows and of data that does not compress."""

    def __init__(self, folder, total_bytes):
        self.folder, self.files = folder, max(1, total_bytes // FILE_BYTES)

    def fill(self):
        """Makes it anew, always the same."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(os.path.join(self.folder, "small"))
        rng = random.Random(1)
        for number in range(self.files):
            with open(os.path.join(self.folder, f"table-{number:04}"), "wb") as file:
                for _ in range(FILE_BYTES // PAGE_BYTES):
                    file.write(self.page(rng))
        for number in range(SMALL_FILES):
            with open(os.path.join(self.folder, "small", str(number)), "wb") as file:
                file.write(self.page(rng)[: rng.randrange(PAGE_BYTES)])

    @staticmethod
    def page(rng):
        """Half rows of text, half data that does not compress."""
        rows, used = [], 0
        while used < PAGE_BYTES // 2:
            state = rng.choice(("new", "open", "paid", "gone"))
            customer, day = rng.randrange(10**5), rng.randrange(1, 29)
            row = f"{rng.randrange(10**9)}|{state}|2026-11-{day:02}|customer {customer}\n"
            rows.append(row)
            used += len(row)
        return ("".join(rows).encode() + rng.randbytes(PAGE_BYTES))[:PAGE_BYTES]

    def change(self, hour):
        """One hour: some pages of some tables, some new small files."""
        rng = random.Random(1000 + hour)
        pages = self.files * (FILE_BYTES // PAGE_BYTES)
        for _ in range(max(1, int(pages * CHANGED_SHARE))):
            path = os.path.join(self.folder, f"table-{rng.randrange(self.files):04}")
            with open(path, "r+b") as file:
                file.seek(rng.randrange(FILE_BYTES // PAGE_BYTES) * PAGE_BYTES)
                file.write(self.page(rng))
        for number in range(5):
            with open(os.path.join(self.folder, "small", f"{hour}-{number}"), "wb") as file:
                file.write(self.page(rng))

    def digest(self, folder=None):
        """A sum over names and contents."""
        total = hashlib.sha256()
        folder = folder or self.folder
        for root, folders, files in os.walk(folder):
            folders.sort()
            for name in sorted(files):
                path = os.path.join(root, name)
                total.update(os.path.relpath(path, folder).encode())
                with open(path, "rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()


class Samples:
    """What was measured so far, on disk."""

    def __init__(self, path, key):
        self.path, self.samples = path, {}
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                known = json.load(file)
            if known["key"] == key:
                self.samples = known["samples"]
        self.key = key

    def take(self, name, measure):
        """The sample of that name; measured if it is not there."""
        if name not in self.samples:
            self.samples[name] = measure()
            with open(self.path + ".new", "w", encoding="utf-8") as file:
                json.dump({"key": self.key, "samples": self.samples}, file, indent=1)
            os.replace(self.path + ".new", self.path)
            print(f"{name}: {self.samples[name]}", flush=True)
        return self.samples[name]


class Bench:
    """One run."""

    def __init__(self, options, programs, server, key, files):
        self.options, self.programs, self.server, self.key = options, programs, server, key
        # Another server, for backups alone.
        self.files = files
        self.source = Source(os.path.join(options.work, "source"), options.megabytes << 20)

    def tool(self, name, folder, place=None, port=None):
        """A tool with empty caches in a folder of its own, and its repository at a place of the
        bucket by way of a port, or in the folder."""
        folder = os.path.join(self.options.work, folder)
        for inner in ("home", "cache", "config"):
            os.makedirs(os.path.join(folder, inner), exist_ok=True)
        tool = TOOLS[name](self.programs[name], folder)
        if place is None:
            return tool
        endpoint = f"http://127.0.0.1:{port or self.server.s3_port}"
        tool.env.update(garage.environment(endpoint, self.key))
        if name == "cairn":
            tool.repository = f"s3://{garage.BUCKET}/{place}"
            tool.env["CAIRN_REPO"] = tool.repository
        elif name == "restic":
            tool.repository = f"s3:{endpoint}/{garage.BUCKET}/{place}"
            tool.env["RESTIC_REPOSITORY"] = tool.repository
        else:
            profile = os.path.join(folder, "config", "rustic")
            os.makedirs(profile, exist_ok=True)
            with open(os.path.join(profile, "rustic.toml"), "w", encoding="utf-8") as file:
                file.write(
                    f'[repository]\nrepository = "opendal:s3"\n[repository.options]\n'
                    f'bucket = "{garage.BUCKET}"\nroot = "/{place}"\nendpoint = "{endpoint}"\n'
                    f'region = "{garage.REGION}"\naccess_key_id = "{self.key[0]}"\n'
                    f'secret_access_key = "{self.key[1]}"\n'
                )
            tool.env.pop("RUSTIC_REPOSITORY", None)
        return tool

    def server_cpu_seconds(self):
        """User and system time of the servers so far."""
        ticks = 0
        for server in (self.server, self.files):
            with open(f"/proc/{server.process.pid}/stat", encoding="utf-8") as file:
                fields = file.read().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def cost(self, tool, command):
        """Runs a command after all written data was synced; what it took, also of the server."""
        os.sync()
        load = os.getloadavg()[0]
        served = self.server_cpu_seconds()
        cost = run(command, env=tool.env, stderr_to=subprocess.STDOUT)
        if cost.status != 0:
            said = cost.stdout.decode(errors="replace")
            raise MeasureFailed(f"`{' '.join(command)}` ended with {cost.status}: {said}")
        return {
            "seconds": round(cost.seconds, 3),
            "cpu_seconds": round(cost.cpu_seconds, 3),
            "server_cpu_seconds": round(self.server_cpu_seconds() - served, 3),
            "load": round(load, 2),
        }

    def fresh(self, folder):
        """Removes what an earlier run left."""
        shutil.rmtree(os.path.join(self.options.work, folder), ignore_errors=True)

    def backup(self, kind):
        """The first backup into a new repository."""
        self.fresh("backup")
        place = None if kind == "disk" else f"backup-{secrets.token_hex(4)}"
        tool = self.tool("cairn", "backup", place)
        if kind == "files":
            tool.env.update(garage.environment(self.files.endpoint, self.files.key))
        self.cost(tool, tool.init())
        cost = self.cost(tool, tool.backup_files(self.source.folder, ""))
        self.fresh("backup")
        return cost

    def restore(self, place, delay):
        """A restore on a machine that knows nothing."""
        self.fresh("restore")
        proxy = Proxy(self.server.s3_port, delay)
        tool = self.tool("cairn", "restore", place, proxy.port)
        target = os.path.join(self.options.work, "restore", "target")
        cost = self.cost(tool, tool.restore(target, ""))
        cost["requests"] = proxy.taken()
        proxy.close()
        if self.source.digest(target + self.source.folder) != self.source.digest():
            raise MeasureFailed("what was restored is not what was backed up")
        self.fresh("restore")
        return cost

    def hours(self, name):
        """The first backup and those of some hours: requests and time."""
        self.source.fill()
        self.fresh(name)
        proxy = Proxy(self.server.s3_port)
        tool = self.tool(name, name, f"{name}-{secrets.token_hex(4)}", proxy.port)
        self.cost(tool, tool.init())
        proxy.taken()
        steps = []
        for hour in range(HOURS + 1):
            if hour > 0:
                self.source.change(hour)
            cost = self.cost(tool, tool.backup_files(self.source.folder, ""))
            steps.append({**cost, "requests": proxy.taken()})
        self.fresh("target")
        target = os.path.join(self.options.work, "target")
        restored = self.cost(tool, tool.restore(target, ""))
        restored["requests"] = proxy.taken()
        proxy.close()
        self.fresh("target")
        self.fresh(name)
        return {"steps": steps, "restore": restored}

    def replicate(self, home):
        """Backups of some hours, each followed by a replication to the server."""
        self.source.fill()
        self.fresh("home")
        token = secrets.token_hex(4)
        place = f"home-{token}" if home == "s3" else None
        tool = self.tool("cairn", "home", place)
        tool.env.update(garage.environment(self.server.endpoint, self.key))
        self.cost(tool, tool.init())
        self.cost(tool, tool.backup_files(self.source.folder, ""))
        replicate = [tool.program, "replicate", "--to", f"s3://{garage.BUCKET}/replica-{token}"]
        self.cost(tool, [*replicate, "--create"])
        steps = []
        for hour in range(1, HOURS + 1):
            self.source.change(hour)
            backup = self.cost(tool, tool.backup_files(self.source.folder, ""))
            steps.append({"backup": backup, "replicate": self.cost(tool, replicate)})
        self.fresh("home")
        return steps


def median(samples, field):
    """Median of a field of samples."""
    return statistics.median(sample[field] for sample in samples)


def measure(options, bench, samples):
    """Everything."""
    bench.source.fill()
    rounds = range(options.runs)
    result = {"backup": {}, "restore": {}, "replicate": {}, "tools": {}}
    for number in rounds:
        kinds = ("disk", "s3", "files") if number % 2 == 0 else ("files", "s3", "disk")
        for kind in kinds:
            result["backup"].setdefault(kind, []).append(
                samples.take(f"backup {kind} {number}", lambda kind=kind: bench.backup(kind))
            )
    place = f"restored-{secrets.token_hex(4)}"
    names = [f"restore {delay} {number}" for number in rounds for delay in (0, 20)]
    if any(name not in samples.samples for name in names):
        bench.fresh("prepare")
        tool = bench.tool("cairn", "prepare", place)
        bench.cost(tool, tool.init())
        bench.cost(tool, tool.backup_files(bench.source.folder, ""))
    for number in rounds:
        for delay in (0, 20):
            result["restore"].setdefault(str(delay), []).append(
                samples.take(
                    f"restore {delay} {number}",
                    lambda delay=delay: bench.restore(place, DELAY_SECONDS if delay else 0.0),
                )
            )
    for home in ("disk", "s3"):
        result["replicate"][home] = samples.take(
            f"replicate {home}", lambda home=home: bench.replicate(home)
        )
    for name in options.tools.split(","):
        result["tools"][name] = samples.take(f"hours {name}", lambda name=name: bench.hours(name))
    return result


def aims(result):
    """The measures with their aims: value, aim, and whether it is met."""
    kinds = ("disk", "s3", "files")
    disk, s3, files = (median(result["backup"][kind], "seconds") for kind in kinds)
    near, far = (median(result["restore"][delay], "seconds") for delay in ("0", "20"))
    found = {
        "backup": (disk / s3, ">= 0.8"),
        "backup to files": (disk / files, ">= 0.8"),
        "restore": (near / far, ">= 0.7"),
    }
    for home, steps in result["replicate"].items():
        ratio = statistics.median(
            step["replicate"]["seconds"] / step["backup"]["seconds"] for step in steps
        )
        found[f"replicate, home on {home}"] = (ratio, "<= 2")
    return found


def is_met(value, aim):
    """Whether a value meets its aim."""
    sense, bound = aim.split()
    return value >= float(bound) if sense == ">=" else value <= float(bound)


def table(headings, rows):
    """Lines of a table in Markdown: the first column to the left, the others to the right."""
    rule = ["---", *("---:" for _ in headings[1:])]
    return [f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows)]


def seconds_row(title, costs):
    """Median, spread and processor time of samples."""
    spread = sorted(cost["seconds"] for cost in costs)
    span = f"{spread[0]:.2f} to {spread[-1]:.2f}"
    cpu, served = median(costs, "cpu_seconds"), median(costs, "server_cpu_seconds")
    least = (cpu + served) / os.cpu_count()
    seconds = f"{statistics.median(spread):.2f}"
    return [title, seconds, span, *(f"{number:.2f}" for number in (cpu, served, least))]


def requests_row(title, hours, per_gib):
    """Requests of a tool: for a GiB of the first backup, and for an hour."""
    first, *later = hours["steps"]
    writes = ("PUT", "POST", "DELETE")
    hourly = [step["requests"] for step in later]
    return [
        title,
        f"{sum(first['requests'].values()) * per_gib:.0f}",
        f"{statistics.median(sum(one.values()) for one in hourly):.0f}",
        f"{statistics.median(sum(one.get(kind, 0) for kind in writes) for one in hourly):.0f}",
        f"{median(later, 'seconds'):.2f}",
        f"{sum(hours['restore']['requests'].values()):.0f}",
    ]


def markdown(result):
    """The report."""
    lines = ["# cairn on S3", "", machine_line(result["when"], result["machine"])]
    lines += [
        "",
        f"Server: {result['server']}, one node without compression, on loopback and on the same"
        f" cores; for one measure {result['file_server']}, likewise. Source: {human_bytes(result['source_bytes'])} in tables of 4 MiB, half of each"
        f" page text, and {SMALL_FILES} small files; an hour changes 1 % of the pages. Medians of"
        f" {result['runs']} runs; the load average before each sample is in the JSON.",
        "",
    ]
    rows = []
    for name, (value, aim) in result["aims"].items():
        title = AIMS[name.split(",")[0]] + ("," + name.split(",")[1] if "," in name else "")
        rows.append([title, f"{value:.2f}", aim, "pass" if is_met(value, aim) else "FAIL"])
    lines += table(["measure", "found", "aim", ""], rows)
    lines += ["", "## Seconds", ""]
    rows = [seconds_row(f"backup: {kind}", costs) for kind, costs in result["backup"].items()]
    for delay, costs in result["restore"].items():
        rows.append(seconds_row(f"restore, {delay} ms of latency", costs))
    for home, steps in result["replicate"].items():
        for part in ("backup", "replicate"):
            costs = [step[part] for step in steps]
            rows.append(seconds_row(f"one hour, home on {home}: {part}", costs))
    lines += table(["", "median", "spread", "CPU", "the server's CPU", "least with both"], rows)
    lines += ["", "Least with both: their processor time on all cores, with nothing waited for."]
    lines += ["", "## Requests", ""]
    per_gib = (1 << 30) / result["source_bytes"]
    rows = [
        requests_row(f"{name} ({result['versions'][name]})", hours, per_gib)
        for name, hours in result["tools"].items()
    ]
    headings = ["first backup, per GiB", "one hour", "writes among them", "seconds", "restore"]
    lines += table(["", *headings], rows)
    return "\n".join(lines) + "\n"


def version_of(program):
    """What a server says of itself."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return said.stdout.strip()


def main():
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cairn", required=True)
    parser.add_argument("--garage", required=True)
    parser.add_argument("--s3s-fs", required=True)
    parser.add_argument("--megabytes", type=int, default=512, help="size of the source, MiB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tools", default="cairn,restic,rustic")
    parser.add_argument("--work", default=os.path.join(ROOT, ".work/remote"))
    parser.add_argument("--results", default=os.path.join(ROOT, "benches/results"))
    options = parser.parse_args()
    os.makedirs(options.work, exist_ok=True)
    programs = find_programs(sorted({"cairn", *options.tools.split(",")}), options.cairn)
    stat = os.stat(programs["cairn"])
    key = [options.megabytes, options.runs, stat.st_size, int(stat.st_mtime)]
    samples = Samples(os.path.join(options.work, "samples.json"), key)
    folder = os.path.join(options.work, "garage")
    shutil.rmtree(folder, ignore_errors=True)
    ports = garage.S3_PORT, garage.RPC_PORT
    server = garage.Node(options.garage, folder, secrets.token_hex(32), 1, "127.0.0.1", ports)
    kept = os.path.join(options.work, "s3s-fs")
    shutil.rmtree(kept, ignore_errors=True)
    files = FileServer(options.s3s_fs, kept, garage.BUCKET)
    host, when = machine(), datetime.date.today().isoformat()
    try:
        bench = Bench(options, programs, server, garage.start([server]), files)
        result = measure(options, bench, samples)
        names = options.tools.split(",")
        result["versions"] = {name: bench.tool(name, "version").version() for name in names}
        result["server"] = version_of(options.garage).split("[")[0].strip()
        result["file_server"] = version_of(options.s3s_fs)
    finally:
        server.kill()
        files.kill()
        for inner in os.listdir(options.work):
            if inner != "samples.json":
                shutil.rmtree(os.path.join(options.work, inner), ignore_errors=True)
    result.update(when=when, machine=host, runs=options.runs, source_bytes=options.megabytes << 20)
    result["aims"] = aims(result)
    os.makedirs(options.results, exist_ok=True)
    with open(os.path.join(options.results, "remote.json"), "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
        file.write("\n")
    with open(os.path.join(options.results, "remote.md"), "w", encoding="utf-8") as file:
        file.write(markdown(result))
    print(markdown(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
