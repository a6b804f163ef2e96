"""Where the tools are, and how those that are missing are installed."""

import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))

RUSTIC_VERSION = "0.11.4"
BORG_VERSION = "1.4.5"
DEBIAN_PACKAGES = {"restic": "restic", "borg": "borgbackup", "faketime": "faketime"}


def find_programs(names, cairn):
    """Returns the path of each tool, installing the peers that are missing."""
    return {name: _find(name, cairn) for name in names}


def _find(name, cairn):
    if name == "cairn":
        return os.path.abspath(cairn)
    if name == "rustic":
        return _setup("tool.sh", "rustic-rs", RUSTIC_VERSION, "rustic", "--no-default-features")
    if name == "borg-1.4":
        return _setup("borg.sh", BORG_VERSION)
    return from_debian(name)


def from_debian(name):
    """The path of a program that Debian has, which is installed where it is missing."""
    if shutil.which(name) is None:
        _apt_install(DEBIAN_PACKAGES[name])
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{DEBIAN_PACKAGES[name]} is installed and has no program {name}")
    return found


def _setup(script, *arguments):
    command = [os.path.join(ROOT, "tests/setup", script), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout.strip()


def _apt_install(package):
    print(f"setup: installing with apt: {package}", file=sys.stderr, flush=True)
    become = [] if os.geteuid() == 0 else ["sudo"]
    install = ["apt-get", "-qq", "install", "-y", "--no-install-recommends", package]
    subprocess.run([*become, "apt-get", "-qq", "update"], check=True)
    subprocess.run([*become, *install], check=True, stdout=subprocess.DEVNULL)
