"""What a history consists of, and its report: JSON, Markdown and a plot."""

import datetime
import json
import os
import statistics

import svg
from measure import human_bytes
from report import machine_line

OWN = "cairn"
MIB = 1 << 20
HOURS_PER_NIGHT = 24
# A backup is compared by the median of those around it: one alone tells what else ran.
WINDOW = 10
EARLY = (6, 15)
LATE_RATIO_MAX, LATE_RATIO_AIM = 1.1, 1.0
MONTH_RATIO_MAX, MONTH_RATIO_AIM = 0.15, 0.08
BACKUPS = ("dump", "files")


def path_of(work, name):
    """Where the measurements of a history are kept."""
    return os.path.join(work, f"{name}.jsonl")


def steps(arguments):
    """How many backups there are, and the time between two."""
    if arguments.days:
        return arguments.days, datetime.timedelta(days=1)
    return arguments.hours, datetime.timedelta(hours=1)


def is_night(arguments, step):
    """Whether what the rules do not keep is forgotten after this step."""
    return bool(arguments.days) or step % HOURS_PER_NIGHT == 0


def contents(folder):
    """Bytes and number of all files below `folder`."""
    total = count = 0
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return 0, 0
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            inner = contents(entry.path)
            total, count = total + inner[0], count + inner[1]
        else:
            total, count = total + entry.stat(follow_symlinks=False).st_size, count + 1
    return total, count


def load(path):
    """What a run is, and its lines."""
    lines = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                lines.append(json.loads(line))
    if not lines or lines[0].get("what") != "begin":
        raise RuntimeError(f"{path}: nothing was measured")
    return lines[0], lines[1:]


def write_results(folder, work, name):
    """Writes `NAME.json`, `NAME.md` and `NAME.svg` into `folder` and prints the report."""
    begin, lines = load(path_of(work, name))
    os.makedirs(folder, exist_ok=True)
    image = f"{name}.svg"
    text = markdown(begin, lines, image)
    for target, content in (
        (f"{name}.json", json.dumps({**begin, "lines": lines}, indent=None) + "\n"),
        (f"{name}.md", text),
        (image, chart(begin, lines)),
    ):
        with open(os.path.join(folder, target), "w", encoding="utf-8") as out:
            out.write(content)
    print(text)


def markdown(begin, lines, image):
    """The whole report."""
    backups = max((line["step"] for line in lines if line["what"] in BACKUPS), default=0)
    period = begin["period"]
    rules = ", ".join(f"{count} {name}" for name, count in begin["rules"].items())
    text = [
        f"# {backups} backups, one each {period}",
        "",
        machine_line(begin["when"], begin["machine"]) + f" Scale {begin['scale']:g}.",
        "",
        f"A database that changes, given as {' and '.join(begin['sources'])}; kept are {rules}."
        " After each night the rest is forgotten and freed"
        + (". " if begin["collects"] else " (cairn frees nothing: this version has no `gc`). ")
        + (f"cairn's `gc` ran with --max-dead {begin['max_dead']}. " if begin.get("max_dead") is not None else "")
        + begin["condition"]
        + f" The kernel counts the harness's own {human_bytes(begin['rss_bytes_floor'])} as floor"
        " of memory.",
        "",
    ]
    text += [f"- {name}: {version}" for name, version in begin["tools"].items()]
    text += ["", f"![growth]({image})", ""]
    text += list(_totals(begin, lines))
    if OWN in begin["tools"]:
        for source in begin["sources"]:
            if period == "hour":
                text += ["", *_late_against_early(lines, source)]
            text += ["", *_samples_table(lines, source, backups)]
        text += ["", *_nights(lines)]
    return "\n".join(text) + "\n"


def _of(lines, tool, *whats):
    return [line for line in lines if line["tool"] == tool and line["what"] in whats]


def _totals(begin, lines):
    yield "| tool | stored in the end | x smallest peer | objects | CPU s of all backups | of forget, gc | verify, s | restore, s |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    stored = {
        tool: _of(lines, tool, *BACKUPS, "forget", "gc")[-1]
        for tool in begin["tools"]
        if _of(lines, tool, *BACKUPS)
    }
    peers = [last["repository_bytes"] for tool, last in stored.items() if tool != OWN]
    for tool, last in stored.items():
        ratio = f"{last['repository_bytes'] / min(peers):.3f}" if peers else "-"
        sums = [
            sum(line["cpu_seconds"] for line in _of(lines, tool, *whats))
            for whats in (BACKUPS, ("forget", "gc"))
        ]
        ends = [
            f"{found[-1]['seconds']:.2f}" if (found := _of(lines, tool, what)) else "-"
            for what in ("verify", "restore")
        ]
        cells = [tool, human_bytes(last["repository_bytes"]), ratio, str(last["objects"])]
        cells += [f"{value:.1f}" for value in sums]
        yield f"| {' | '.join(cells + ends)} |"
    if peers and OWN in stored:
        ratio = stored[OWN]["repository_bytes"] / min(peers)
        word = "aim" if ratio <= MONTH_RATIO_AIM else "pass" if ratio <= MONTH_RATIO_MAX else "FAIL"
        yield ""
        yield (
            f"Total stored against the smallest peer: {ratio:.3f}, must be at most"
            f" {MONTH_RATIO_MAX}, aim {MONTH_RATIO_AIM}: **{word}**."
        )


def _late_against_early(lines, source):
    backups = _of(lines, OWN, source)
    early = [line for line in backups if EARLY[0] <= line["step"] <= EARLY[1]]
    late = backups[-WINDOW:]
    if len(backups) <= EARLY[1] + WINDOW:
        return
    tenth, last = next(line for line in backups if line["step"] == WINDOW), backups[-1]
    yield f"## {source}: backup {last['step']} against backup {WINDOW}"
    yield ""
    yield (
        f"Medians of backups {EARLY[0]} to {EARLY[1]} and of the last {WINDOW}; in brackets the two"
        f" backups alone. The time must be at most {LATE_RATIO_MAX} x, aim {LATE_RATIO_AIM} x."
    )
    yield ""
    yield "| | early | late | ratio | | alone |"
    yield "|---|--:|--:|--:|---|--:|"
    for value, title, unit, limit in (
        ("cpu_seconds", "CPU seconds", 1, True),
        ("seconds", "wall seconds", 1, True),
        ("added_bytes", "added, MiB", MIB, False),
        ("rss_bytes_max", "peak memory, MiB", MIB, False),
        ("source_bytes", "size of the source, MiB", MIB, False),
    ):
        first, second = (
            statistics.median(line[value] for line in window) / unit for window in (early, late)
        )
        word = ""
        if limit:
            ratio = second / first
            word = "aim" if ratio <= LATE_RATIO_AIM else "pass" if ratio <= LATE_RATIO_MAX else "**FAIL**"
        alone = f"{tenth[value] / unit:.2f}, {last[value] / unit:.2f}"
        yield f"| {title} | {first:.2f} | {second:.2f} | {second / first:.2f} | {word} | {alone} |"


def _samples_table(lines, source, backups):
    wanted = {1, 2, 10, backups} | {backups * part // 6 for part in range(1, 6)}
    yield f"cairn's backups of the {source}, each alone:"
    yield ""
    yield "| backup | seconds | CPU s | peak memory | added | repository | objects | cache |"
    yield "|--:|--:|--:|--:|--:|--:|--:|--:|"
    for line in _of(lines, OWN, source):
        if line["step"] in wanted:
            cells = [
                str(line["step"]),
                f"{line['seconds']:.2f}",
                f"{line['cpu_seconds']:.2f}",
                human_bytes(line["rss_bytes_max"]),
                human_bytes(line["added_bytes"]),
                human_bytes(line["repository_bytes"]),
                str(line["objects"]),
                human_bytes(line["cache_bytes"]),
            ]
            yield f"| {' | '.join(cells)} |"


def _nights(lines):
    for what in ("forget", "gc"):
        nights = _of(lines, OWN, what)
        if nights:
            seconds = [night["seconds"] for night in nights]
            freed = sum(-night["added_bytes"] for night in nights)
            yield (
                f"{what}: {len(nights)} nights, {statistics.median(seconds):.2f} s in the median,"
                f" {max(seconds):.2f} s at most, {sum(night['cpu_seconds'] for night in nights):.1f}"
                f" CPU s together; the repository shrank by {human_bytes(max(freed, 0))}."
            )


def chart(begin, lines):
    """Growth and cost over the backups."""
    tools = sorted(begin["tools"], key=lambda name: name != OWN)
    width, height = 560, 230
    parts = [
        svg.text(10, 20, f"A history of backups, one each {begin['period']}", 14, weight="bold"),
        *svg.legend(10, 42, tools),
    ]
    panels = [("repository", "MiB", _stored(lines, tools))]
    for source in begin["sources"]:
        for value, title, unit in (
            ("added_bytes", f"added by each backup, {source}", MIB),
            ("cpu_seconds", f"CPU seconds of each backup, {source}", 1),
        ):
            panels.append((title, "MiB" if unit == MIB else "s", _series(lines, tools, source, value, unit)))
    panels.append(("objects", "number", _stored(lines, tools, "objects", 1)))
    for number, (title, unit, series) in enumerate(panels):
        x, y = 10 + number % 2 * (width + 20), 56 + number // 2 * (height + 16)
        parts += svg.curves(x, y, width, height, title, unit, series)
    rows = (len(panels) + 1) // 2
    return svg.document(40 + 2 * width, 60 + rows * (height + 16), parts)


def _stored(lines, tools, value="repository_bytes", unit=MIB):
    series = []
    for tool in tools:
        last = {}
        for line in _of(lines, tool, *BACKUPS, "forget", "gc"):
            last[line["step"]] = line[value] / unit
        series.append((tool, sorted(last.items())))
    return series


def _series(lines, tools, source, value, unit):
    # The first stores everything and would hide what the others do.
    return [
        (
            tool,
            [
                (line["step"], line[value] / unit)
                for line in _of(lines, tool, source)
                if line["step"] > 1
            ],
        )
        for tool in tools
    ]
