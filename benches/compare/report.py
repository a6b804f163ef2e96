"""The results as JSON and as tables a person reads."""

import os
import platform
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/demo"))

from measure import human_bytes

PHASES = {
    "first": "first backup",
    "unchanged": "backup of the same again",
    "second day": "backup after a day of changes",
    "verify": "verify, reading all data",
    "restore": "restore of the last snapshot",
}


def machine():
    """What the numbers depend on besides the tools."""
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        models = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "load_at_start": os.getloadavg()[0],
    }


def medians(samples):
    """The median of each measure over the runs."""
    return {
        name: statistics.median(sample[name] for sample in samples)
        for name in samples[0]
        if samples[0][name] is not None
    }


def markdown(result):
    """The whole result as markdown."""
    host = result["machine"]
    lines = [
        "# cairn beside its peers",
        "",
        f"Measured {result['when']} on {host['cores']} cores of {host['processor']},"
        f" {human_bytes(host['memory_bytes'])} of memory, Linux {host['kernel']};"
        f" load average at the start {host['load_at_start']:.2f}."
        f" Medians of {result['runs']} run(s).",
        "",
        f"{result['condition']}",
        "",
    ]
    lines += [f"- {name}: {text}" for name, text in result["tools"].items()]
    for workload in result["workloads"]:
        lines += ["", f"## {workload['title']}, {human_bytes(workload['source_bytes'])}"]
        for phase, title in PHASES.items():
            lines += ["", f"**{title}**", "", *_phase_table(workload, phase)]
    return "\n".join(lines) + "\n"


def _phase_table(workload, phase):
    rows = {tool: medians(runs) for tool, runs in workload["phases"][phase].items()}
    peers = {tool: row for tool, row in rows.items() if tool != "cairn"} or rows
    fastest = min(row["seconds"] for row in peers.values())
    thriftiest = min(row["cpu_seconds"] for row in peers.values())
    smallest = min(row["repository_bytes"] for row in peers.values())
    yield "| tool | seconds | x fastest peer | spread | GB/s | CPU s | x thriftiest peer | peak memory | added | repository | x smallest peer |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for tool, row in rows.items():
        seconds = [sample["seconds"] for sample in workload["phases"][phase][tool]]
        cells = [
            tool,
            f"{row['seconds']:.2f}",
            f"{row['seconds'] / fastest:.2f}",
            f"{min(seconds):.2f}-{max(seconds):.2f}",
            f"{workload['source_bytes'] / row['seconds'] / 1e9:.2f}",
            f"{row['cpu_seconds']:.2f}",
            f"{row['cpu_seconds'] / thriftiest:.2f}",
            human_bytes(row["rss_bytes_max"]),
            human_bytes(row["added_bytes"]),
            human_bytes(row["repository_bytes"]),
            f"{row['repository_bytes'] / smallest:.2f}",
        ]
        yield f"| {' | '.join(cells)} |"
