"""Running a tool and failing when it fails: what comparison and history share."""

import os
import shutil
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/demo"))

from measure import run
from tools import TOOLS


class ToolFailed(Exception):
    """A tool ended with an error or lost data."""


def fresh(name, program, work):
    """A tool with a new repository and empty caches in a folder of its own below `work`."""
    folder = os.path.join(work, name)
    shutil.rmtree(folder, ignore_errors=True)
    for inner in ("home", "cache", "config"):
        os.makedirs(os.path.join(folder, inner))
    tool = TOOLS[name](program, folder)
    measured(tool.init(), tool.env)
    return tool


def measured(command, env, **options):
    """Runs `command` after all written data was synced; returns what it cost."""
    os.sync()
    with tempfile.TemporaryFile() as said:
        cost = run(command, env=env, stdout_to=said, stderr_to=said, **options)
        if cost.status != 0:
            said.seek(0)
            text = said.read().decode(errors="replace")
            raise ToolFailed(f"`{' '.join(command)}` ended with {cost.status}:\n{text}")
    return cost
