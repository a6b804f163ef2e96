"""Runs a command and says what it cost: wall clock, processor time, peak memory."""

import os
import subprocess
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What one finished command cost.

    `cpu_seconds` is user plus system time of the command and of every child it
    waited for. `rss_bytes_max` is the largest resident set of any one process
    among them; the kernel counts this program's own few MiB as its floor.
    """

    seconds: float
    cpu_seconds: float
    rss_bytes_max: int
    status: int
    stdout: bytes


def run(command, *, env=None, cwd=None, feed=None, stdout_to=None, stderr_to=None):
    """Runs `command` to its end and returns its `Cost`.

    `feed` is a file whose bytes the command gets on standard input through a
    pipe, as it would from a program; the feeder's own time is not counted.
    Standard output is returned unless `stdout_to` (an open file) takes it.
    A failing command is told by `status`, not raised.
    """
    feeder = None
    if feed is not None:
        feeder = subprocess.Popen(["cat", feed], stdout=subprocess.PIPE)
    start = time.monotonic()
    child = subprocess.Popen(
        command,
        env=env,
        cwd=cwd,
        stdin=feeder.stdout if feeder else subprocess.DEVNULL,
        stdout=stdout_to if stdout_to is not None else subprocess.PIPE,
        stderr=stderr_to,
    )
    if feeder:
        feeder.stdout.close()
    output = b""
    try:
        if child.stdout:
            output = child.stdout.read()
        _, wait_status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - start
        child.returncode = os.waitstatus_to_exitcode(wait_status)
    except BaseException:
        child.kill()
        child.wait()
        raise
    finally:
        if child.stdout:
            child.stdout.close()
        if feeder:
            feeder.kill()
            feeder.wait()
    return Cost(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        rss_bytes_max=usage.ru_maxrss * 1024,
        status=child.returncode,
        stdout=output,
    )


def human_bytes(count):
    """`count` bytes with three digits and a binary unit, such as `81.2 MiB`."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1000 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"


def table(headings, rows):
    """Lines of a table: the first column to the left, the others to the right."""
    cells = [headings, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    lines = []
    for row in cells:
        first, *rest = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        )
        lines.append("  ".join([first, *rest]).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines
