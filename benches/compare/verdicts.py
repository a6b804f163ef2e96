"""The measures that cairn is to reach, and whether it does, for each workload."""

from dataclasses import dataclass

from samples import PHASES, medians

MIB = 1 << 20
OWN = "cairn"


@dataclass(frozen=True)
class Verdict:
    """One measure of one workload: what must be reached, what is aimed at, what was measured."""

    workload: str
    measure: str
    value: float
    must: float
    aim: float
    unit: str = "x"
    at_least: bool = False
    # What the value was made of.
    detail: str = ""

    def reaches(self, bound):
        """Whether the value is within `bound`; `None` where nothing is asked for."""
        if bound is None:
            return None
        return self.value >= bound if self.at_least else self.value <= bound

    def word(self):
        """`aim`, `pass`, `FAIL`, or `-` where nothing must be reached and the aim is not."""
        if self.reaches(self.aim):
            return "aim"
        return {True: "pass", False: "FAIL", None: "-"}[self.reaches(self.must)]


# Phase, how it is called, what must be reached, what is aimed at: time against the fastest peer.
_WALL = [
    ("first", "first backup, wall", 0.4, 0.3),
    ("second day", "second day, wall", 0.6, 0.4),
    ("verify", "full verify, wall", 0.5, 0.35),
    ("restore", "full restore, wall", 0.5, 0.35),
]
# Of the size of the research prototype's sources.
_ADDED_BYTES = {"pgdata": (10 * MIB, 6 * MIB), "dump": (6 * MIB, 2.9 * MIB)}
_RSS_BYTES = (256 * MIB, 160 * MIB)
_REREAD = {"pgdata": "touched", "dump": "unchanged", "crm": "unchanged"}
_REREAD_BYTES_PER_SECOND = (2e9, 4e9)


def verdicts(workload, scale, cores):
    """All verdicts on one workload of a result; none without cairn or without a peer."""
    phases = {
        phase: {tool: medians(samples) for tool, samples in tools.items()}
        for phase, tools in workload["phases"].items()
    }
    if not phases or OWN not in phases["first"]:
        return []
    found = list(_against_peers(workload["name"], phases))
    found += _absolute(workload, phases, scale, cores)
    return found


def _against_peers(name, phases):
    if len(phases["first"]) < 2:
        return
    for phase, title, must, aim in _WALL:
        yield _ratio(name, title, phases[phase], "seconds", must, aim)
    yield _ratio(name, "first backup, CPU", phases["first"], "cpu_seconds", 0.4, 0.3)
    yield _ratio(
        name, "first backup, repository", phases["first"], "repository_bytes", 1.05, None
    )
    if name in ("small", "tree"):
        yield _ratio(name, "unchanged, wall", phases["unchanged"], "seconds", 0.3, None)


def _ratio(workload, title, rows, value, must, aim):
    best, tool = min((row[value], tool) for tool, row in rows.items() if tool != OWN)
    own = rows[OWN][value]
    if value.endswith("_bytes"):
        detail = f"{own / MIB:.1f} MiB against {best / MIB:.1f} MiB of {tool}"
    else:
        detail = f"{own:.2f} s against {best:.2f} s of {tool}"
    return Verdict(workload, title, own / best, must, aim, detail=detail)


def _absolute(workload, phases, scale, cores):
    name = workload["name"]
    if name in _ADDED_BYTES:
        must, aim = (bound * scale / MIB for bound in _ADDED_BYTES[name])
        added = phases["second day"][OWN]["added_bytes"] / MIB
        yield Verdict(name, "second day, added", added, must, aim, "MiB")
    if name == "small":
        seconds = phases["unchanged"][OWN]["seconds"]
        yield Verdict(name, "unchanged, seconds", seconds, None, 0.5 * scale, "s")
    if name in _REREAD:
        row = phases[_REREAD[name]][OWN]
        must, aim = (bound / 1e9 for bound in _REREAD_BYTES_PER_SECOND)
        rate = workload["source_bytes"] / row["cpu_seconds"] / 1e9
        detail = f"{row['cpu_seconds']:.2f} CPU s, {row['seconds']:.2f} s on {cores} cores"
        yield Verdict(
            name, "re-read, all known, per core", rate, must, aim, "GB/s", True, detail
        )
    peak, phase = max(
        (max(sample["rss_bytes_max"] for sample in tools[OWN]), phase)
        for phase, tools in workload["phases"].items()
    )
    must, aim = (bound / MIB for bound in _RSS_BYTES)
    yield Verdict(name, "peak memory", peak / MIB, must, aim, "MiB", detail=f"in {PHASES[phase]}")
