"""A comparison as two charts: how long each step took, and what each backup added."""

import svg
from measure import human_bytes
from samples import PHASES, medians
from verdicts import OWN

_LIMITS = {"first": 0.4, "second day": 0.6, "verify": 0.5, "restore": 0.5}
_PANEL_WIDTH, _BAR, _GAP, _LABELS, _VALUES = 560, 11, 9, 130, 70
_COLUMNS = 2


def times(result):
    """Wall seconds of each step; a dashed line where cairn's bar has to end."""
    title = "Wall seconds of each step, median; the dashed line is what cairn must not exceed"
    return _chart(result, title, list(PHASES), "seconds", lambda value: f"{value:.2f} s", _LIMITS)


def added_bytes(result):
    """What the backups added to the repositories."""
    title = "Bytes that each backup added to the repository, median"
    return _chart(result, title, ["first", "second day"], "added_bytes", human_bytes, {})


def _chart(result, title, phases, value, label, limits):
    tools = [OWN] if OWN in result["tools"] else []
    tools += [name for name in result["tools"] if name != OWN]
    parts = [svg.text(10, 20, title, 14, weight="bold"), *svg.legend(10, 42, tools)]
    bottoms = [60.0] * _COLUMNS
    for workload in result["workloads"]:
        column = bottoms.index(min(bottoms))
        x, y = 10 + column * (_PANEL_WIDTH + 20), bottoms[column]
        drawn, bottoms[column] = _panel(x, y, workload, tools, phases, value, label, limits)
        parts += drawn
    columns = min(_COLUMNS, max(1, len(result["workloads"])))
    width = 20 + columns * (_PANEL_WIDTH + 20)
    return svg.document(max(width, 640), max(bottoms) + 10, parts)


def _panel(x, y, workload, tools, phases, value, label, limits):
    size = human_bytes(workload["source_bytes"])
    parts = [svg.text(x, y + 12, f"{workload['name']}, {size}", 12, weight="bold")]
    y += 22
    for phase in phases:
        samples = workload["phases"].get(phase)
        if samples is None:
            continue
        rows = {tool: medians(samples[tool])[value] for tool in tools if tool in samples}
        longest = max(max(rows.values()), 1e-9)
        room = _PANEL_WIDTH - _LABELS - _VALUES
        top = y
        parts.append(svg.text(x, y + 9, phase))
        for tool, amount in rows.items():
            colour = svg.COLOURS[tools.index(tool) % len(svg.COLOURS)]
            length = room * max(amount, 0) / longest
            parts.append(svg.box(x + _LABELS, y, length, _BAR - 1, colour))
            parts.append(svg.text(x + _LABELS + length + 4, y + 9, label(amount), 10))
            y += _BAR
        peers = [amount for tool, amount in rows.items() if tool != OWN]
        if OWN in rows and peers and phase in limits:
            at = x + _LABELS + room * min(peers) * limits[phase] / longest
            parts.append(svg.line(at, top - 2, at, y + 1, svg.DARK, 1, "3 2"))
        y += _GAP
    return parts, y + 8
