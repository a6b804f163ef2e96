"""What a measurement consists of, and what many of them come to."""

import statistics

PHASES = {
    "first": "first backup",
    "unchanged": "backup of the same again",
    "touched": "backup of the same with new times",
    "second day": "backup after a day of changes",
    "verify": "verify, reading all data",
    "restore": "restore of the last snapshot",
}
VALUES = ("seconds", "cpu_seconds", "rss_bytes_max", "added_bytes", "repository_bytes")


def medians(samples):
    """The median of each value over the rounds."""
    return {
        name: statistics.median(sample[name] for sample in samples)
        for name in VALUES
        if all(sample.get(name) is not None for sample in samples)
    }


def by_phase(samples):
    """Samples by phase and tool; phases in their order, without those that nothing did."""
    found = {}
    for phase in PHASES:
        tools = {}
        for sample in samples:
            if sample["phase"] == phase:
                values = {name: sample[name] for name in (*VALUES, "load")}
                tools.setdefault(sample["tool"], []).append(values)
        if tools:
            found[phase] = dict(sorted(tools.items(), key=lambda item: item[0] != "cairn"))
    return found
