"""The command lines of cairn and its peers, each set to encrypt and to compress with zstd.

Every tool works as its documentation suggests, with its defaults; where a
default is not zstd at its usual level (Borg's is lz4), zstd level 3 is asked for.

Backups take the `label` of the snapshot, which only Borg uses. For a history, each tool
takes the time of its snapshots from the harness: cairn, which has no option for it, from
libfaketime, the peers from theirs.
"""

import glob
import os
import subprocess

PASSWORD = "a benchmark has no secrets"
STREAM = "crm.sql"

LIBFAKETIME = "/usr/lib/*/faketime/libfaketime.so.1"
# A rule is the name of a period and how many of it are kept.
MISSION_RULES = {"hourly": 24, "daily": 30, "monthly": 12}


def keep_options(rules):
    """Options as all the tools call them."""
    return [part for period, count in rules.items() for part in (f"--keep-{period}", str(count))]


class Tool:
    """One tool with one repository below `folder`. Each method returns a command line."""

    name = ""
    # What `--help` would not tell a reader of the results.
    remark = ""

    def __init__(self, program, folder):
        self.program = program
        self.repository = os.path.join(folder, "repository")
        self.env = {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "HOME": os.path.join(folder, "home"),
            "XDG_CACHE_HOME": os.path.join(folder, "cache"),
            "XDG_CONFIG_HOME": os.path.join(folder, "config"),
            **self.settings(folder),
        }

    def settings(self, folder):
        """The environment variables that name the repository and its password."""
        raise NotImplementedError

    def dated(self, command, when):
        """A backup's command line, and the environment in which it is stamped with `when`."""
        raise NotImplementedError

    def forget(self, rules, when):
        """The commands, with environments, that keep what `rules` keep and free the rest."""
        raise NotImplementedError

    def version(self):
        """What the tool says of itself, on one line."""
        done = subprocess.run(
            [self.program, "--version"], env=self.env, capture_output=True, check=False, text=True
        )
        return (done.stdout or done.stderr).splitlines()[0]


class Cairn(Tool):
    """cairn itself."""

    name = "cairn"

    def settings(self, folder):
        return {"CAIRN_REPO": self.repository, "CAIRN_PASSWORD": PASSWORD}

    def init(self):
        return [self.program, "init"]

    def backup_files(self, path, _label):
        return [self.program, "backup", path]

    def backup_stream(self, _label):
        return [self.program, "backup", "--stdin", "--stdin-name", STREAM]

    def verify(self):
        return [self.program, "verify", "--level", "full"]

    def restore(self, target, _label):
        return [self.program, "restore", "latest", "--target", target]

    def dated(self, command, when):
        # Of the clocks only the calendar's is moved, and no file gets another time.
        libraries = glob.glob(LIBFAKETIME)
        if not libraries:
            raise RuntimeError("no libfaketime is installed: see Debian's package faketime")
        clock = {
            "LD_PRELOAD": libraries[0],
            "FAKETIME": when.strftime("@%Y-%m-%d %H:%M:%S"),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "NO_FAKE_STAT": "1",
            "TZ": "UTC",
        }
        return command, {**self.env, **clock}

    def forget(self, rules, when):
        yield self.dated([self.program, "forget", *keep_options(rules)], when)
        if self.collects():
            yield self.dated([self.program, "gc"], when)

    def collects(self):
        """Whether this version has the command that frees what was forgotten."""
        done = subprocess.run([self.program, "gc", "--help"], capture_output=True, check=False)
        return done.returncode == 0


class Restic(Tool):
    """restic, from Debian."""

    name = "restic"
    remark = "from Debian; format 2, which compresses"

    def settings(self, folder):
        # Its times are local ones.
        return {
            "TZ": "UTC",
            "RESTIC_REPOSITORY": self.repository,
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_CACHE_DIR": os.path.join(folder, "cache"),
        }

    def version(self):
        done = subprocess.run([self.program, "version"], capture_output=True, check=True, text=True)
        return done.stdout.splitlines()[0]

    def init(self):
        return [self.program, "init", "--quiet", "--repository-version", "2"]

    def backup_files(self, path, _label):
        return [self.program, "backup", "--quiet", path]

    def backup_stream(self, _label):
        return [self.program, "backup", "--quiet", "--stdin", "--stdin-filename", STREAM]

    def verify(self):
        return [self.program, "check", "--quiet", "--read-data"]

    def restore(self, target, _label):
        return [self.program, "restore", "--quiet", "latest", "--target", target]

    def dated(self, command, when):
        return [*command, "--time", when.strftime("%Y-%m-%d %H:%M:%S")], self.env

    def forget(self, rules, _when):
        command = [self.program, "forget", "--quiet", "--prune", *keep_options(rules)]
        yield command, self.env


class Rustic(Tool):
    """rustic, from the Rust registry."""

    name = "rustic"
    remark = "built without default features, none of which serve backups; streams with --force"

    def settings(self, folder):
        return {
            "RUSTIC_REPOSITORY": self.repository,
            "RUSTIC_PASSWORD": PASSWORD,
            "RUSTIC_CACHE_DIR": os.path.join(folder, "cache"),
            "RUSTIC_NO_PROGRESS": "true",
            "RUSTIC_LOG_LEVEL": "warn",
        }

    def init(self):
        return [self.program, "init"]

    def backup_files(self, path, _label):
        return [self.program, "backup", path]

    def backup_stream(self, _label):
        # Without --force this version takes a stream of an earlier name for unchanged and
        # reads nothing: rustic's issue 1793. It still stores only what is new.
        return [self.program, "backup", "--force", "--stdin-filename", STREAM, "-"]

    def verify(self):
        return [self.program, "check", "--read-data"]

    def restore(self, target, _label):
        return [self.program, "restore", "latest", target]

    def dated(self, command, when):
        program, backup, *rest = command
        return [program, backup, "--time", when.strftime("%Y-%m-%d %H:%M:%S+0000"), *rest], self.env

    def forget(self, rules, _when):
        # What is pruned would else stay for 23 hours of the real clock.
        prune = ["--prune", "--instant-delete", "--keep-pack", "0s"]
        yield [self.program, "forget", *prune, *keep_options(rules)], self.env


class Borg(Tool):
    """BorgBackup, from Debian."""

    name = "borg"
    remark = "from Debian; repokey-blake2, zstd level 3"

    def settings(self, folder):
        return {
            "BORG_REPO": self.repository,
            "BORG_PASSPHRASE": PASSWORD,
            "BORG_BASE_DIR": os.path.join(folder, "home"),
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }

    def init(self):
        return [self.program, "init", "--encryption", "repokey-blake2"]

    def backup_files(self, path, label):
        return [self.program, "create", "--compression", "zstd,3", f"::{label}", path]

    def backup_stream(self, label):
        compress = ["--compression", "zstd,3", "--stdin-name", STREAM]
        return [self.program, "create", *compress, f"::{label}", "-"]

    def verify(self):
        return [self.program, "check", "--verify-data"]

    def restore(self, _target, label):
        # Borg restores into the current folder; the harness runs it there.
        return [self.program, "extract", f"::{label}"]

    def dated(self, command, when):
        program, create, *rest = command
        stamp = ["--timestamp", when.strftime("%Y-%m-%dT%H:%M:%S")]
        return [program, create, *stamp, *rest], self.env

    def forget(self, rules, _when):
        # Labels are the source, a dash and the number of the step.
        for source in ("dump", "files"):
            keep = ["--glob-archives", f"{source}-*", *keep_options(rules)]
            yield [self.program, "prune", *keep], self.env
        yield [self.program, "compact"], self.env


class NewBorg(Borg):
    """BorgBackup 1.4, from PyPI."""

    name = "borg-1.4"
    remark = "from PyPI; repokey-blake2, zstd level 3"


TOOLS = {tool.name: tool for tool in (Cairn, Restic, Rustic, Borg, NewBorg)}
