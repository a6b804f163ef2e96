"""Charts as SVG, written by hand: nothing is needed to make them or to read their source."""

import math
from html import escape

FONT = "font-family='sans-serif'"
GREY, DARK = "#666666", "#222222"
# The first is cairn's; the others keep apart in print and for colour-blind readers.
COLOURS = ["#b5301f", "#4878a8", "#8a9a3b", "#7d6a9c", "#b08d57", "#5f9e9f"]


def text(x, y, content, size=11, anchor="start", colour=DARK, weight="normal"):
    """A line of text."""
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' {FONT} font-size='{size}' text-anchor='{anchor}'"
        f" fill='{colour}' font-weight='{weight}'>{escape(content)}</text>"
    )


def box(x, y, width, height, colour):
    """A filled rectangle."""
    return (
        f"<rect x='{x:.1f}' y='{y:.1f}' width='{max(width, 0.5):.1f}' height='{height:.1f}'"
        f" fill='{colour}'/>"
    )


def line(x1, y1, x2, y2, colour=GREY, width=1.0, dash=""):
    """A straight line."""
    dashed = f" stroke-dasharray='{dash}'" if dash else ""
    return (
        f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{colour}'"
        f" stroke-width='{width}'{dashed}/>"
    )


def document(width, height, parts):
    """The whole file."""
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:.0f} {height:.0f}'"
        f" width='{width:.0f}' height='{height:.0f}'>"
    )
    return "\n".join([head, box(0, 0, width, height, "#ffffff"), *parts, "</svg>"]) + "\n"


def legend(x, y, names):
    """Names with their colours, on one line."""
    parts = []
    for name, colour in zip(names, COLOURS):
        parts += [box(x, y - 9, 10, 10, colour), text(x + 14, y, name)]
        x += 24 + 7 * len(name)
    return parts


def ticks(highest):
    """Round values from 0 to `highest` or a little above, three to six of them."""
    if highest <= 0:
        return [0, 1]
    step = 10.0 ** math.floor(math.log10(highest))
    step *= next(part for part in (5, 2, 1, 0.5, 0.2, 0.1) if highest / (step * part) >= 3)
    return [number * step for number in range(math.ceil(highest / step - 1e-9) + 1)]


def curves(x, y, width, height, title, unit, series):
    """Lines over the number of the snapshot. `series`: name and its points, in colour order.

    Returns the parts of a chart whose upper left corner is at `x`, `y`.
    """
    left, right, top, bottom = x + 58, x + width - 12, y + 24, y + height - 26
    points = [point for _, line_points in series for point in line_points]
    if not points:
        return [text(x, y + 12, f"{title}: nothing measured", weight="bold")]
    last = max(place for place, _ in points) or 1
    levels = ticks(max(value for _, value in points))
    parts = [text(x, y + 12, f"{title}, {unit}", 12, weight="bold")]
    for tick in levels:
        level = bottom - (bottom - top) * tick / levels[-1]
        parts += [line(left, level, right, level, "#dddddd", 0.7)]
        parts += [text(left - 5, level + 4, f"{tick:g}", 10, "end", GREY)]
    for place in ticks(last):
        if place <= last:
            across = left + (right - left) * place / last
            parts += [text(across, bottom + 14, f"{place:g}", 10, "middle", GREY)]
    for (_, line_points), colour in zip(series, COLOURS):
        steps = " ".join(
            f"{left + (right - left) * place / last:.1f},"
            f"{bottom - (bottom - top) * value / levels[-1]:.1f}"
            for place, value in line_points
        )
        parts.append(f"<polyline points='{steps}' fill='none' stroke='{colour}' stroke-width='1.3'/>")
    return parts
