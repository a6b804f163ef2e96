"""The command lines of cairn and its peers, each set to encrypt and to compress with zstd.

Every tool works as its documentation suggests, with its defaults; where a
default is not zstd at its usual level (Borg's is lz4), zstd level 3 is asked for.
"""

import os
import subprocess

PASSWORD = "a benchmark has no secrets"
STREAM = "crm.sql"


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


class Restic(Tool):
    """restic, from Debian."""

    name = "restic"
    remark = "format 2, which compresses"

    def settings(self, folder):
        return {
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


class Borg(Tool):
    """BorgBackup, from Debian."""

    name = "borg"
    remark = "repokey-blake2, zstd level 3"

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


TOOLS = {tool.name: tool for tool in (Cairn, Restic, Rustic, Borg)}
