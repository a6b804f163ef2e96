"""The results of a comparison as tables a person reads."""

import os
import platform
import resource
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/demo"))

from measure import human_bytes
from samples import PHASES, medians
from verdicts import verdicts


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


def rss_bytes_floor():
    """The largest resident set of this process, which the kernel counts for those it starts."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine_line(when, host):
    """Where and when, in one sentence."""
    return (
        f"Measured {when} on {host['cores']} cores of {host['processor']},"
        f" {human_bytes(host['memory_bytes'])} of memory, Linux {host['kernel']};"
        f" load average at the start {host['load_at_start']:.2f}."
    )


def markdown(result):
    """The whole result as markdown."""
    lines = [
        "# cairn beside its peers",
        "",
        machine_line(result["when"], result["machine"])
        + f" Medians of {result['rounds']} round(s), sources at scale {result['scale']:g}.",
        "",
        f"{result['condition']}",
        "",
    ]
    lines += [f"- {name}: {text}" for name, text in result["tools"].items()]
    lines += ["", "![time](compare-time.svg)", "", "![bytes](compare-bytes.svg)"]
    lines += ["", *_verdict_table(result)]
    for workload in result["workloads"]:
        title = f"{workload['name']}: {workload['title']}, {human_bytes(workload['source_bytes'])}"
        lines += ["", f"## {title}"]
        if workload["rounds"] < result["rounds"]:
            lines += ["", f"Only {workload['rounds']} round(s) of this workload."]
        for phase in workload["phases"]:
            lines += ["", f"**{PHASES[phase]}**", "", *_phase_table(workload, phase)]
    for name, reason in result["skipped"].items():
        lines += ["", f"Not measured: {name}: {reason}."]
    return "\n".join(lines) + "\n"


def _verdict_table(result):
    cores = result["machine"]["cores"]
    rows = [
        verdict
        for workload in result["workloads"]
        for verdict in verdicts(workload, result["scale"], cores)
    ]
    if not rows:
        return
    failed = sum(row.word() == "FAIL" for row in rows)
    yield "## The measures"
    yield ""
    yield (
        "Ratios are those of medians, to the best of the peers at that measure."
        f" {len(rows) - failed} of {len(rows)} are reached."
    )
    yield ""
    yield "| workload | measure | measured | must | aim | | of |"
    yield "|---|---|--:|--:|--:|---|---|"
    for row in rows:
        sign = ">=" if row.at_least else "<="
        bounds = [
            "-" if bound is None else f"{sign} {bound:.3g} {row.unit}"
            for bound in (row.must, row.aim)
        ]
        word = f"**{row.word()}**" if row.word() == "FAIL" else row.word()
        cells = [row.workload, row.measure, f"{row.value:.2f} {row.unit}", *bounds, word]
        yield f"| {' | '.join([*cells, row.detail])} |"


def _phase_table(workload, phase):
    rows = {tool: medians(runs) for tool, runs in workload["phases"][phase].items()}
    peers = {tool: row for tool, row in rows.items() if tool != "cairn"} or rows
    fastest = min(row["seconds"] for row in peers.values())
    thriftiest = min(row["cpu_seconds"] for row in peers.values())
    smallest = min(row["repository_bytes"] for row in peers.values())
    yield (
        "| tool | seconds | spread | x fastest peer | GB/s | CPU s | spread | x thriftiest peer"
        " | peak memory | added | repository | x smallest peer |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for tool, row in rows.items():
        samples = workload["phases"][phase][tool]
        cells = [
            tool,
            f"{row['seconds']:.2f}",
            _spread(samples, "seconds"),
            f"{row['seconds'] / fastest:.2f}",
            f"{workload['source_bytes'] / row['seconds'] / 1e9:.2f}",
            f"{row['cpu_seconds']:.2f}",
            _spread(samples, "cpu_seconds"),
            f"{row['cpu_seconds'] / thriftiest:.2f}",
            human_bytes(row["rss_bytes_max"]),
            human_bytes(row["added_bytes"]),
            human_bytes(row["repository_bytes"]),
            f"{row['repository_bytes'] / smallest:.2f}",
        ]
        yield f"| {' | '.join(cells)} |"


def _spread(samples, value):
    values = [sample[value] for sample in samples]
    return f"{min(values):.2f}-{max(values):.2f}"
