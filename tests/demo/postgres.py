"""A private PostgreSQL: its own folder, its own unix socket, no network, gone at the end."""

import glob
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time

SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    # The data lives for a minute: what protects it from a power cut only costs time.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # Whatever runs by itself would make two runs differ.
    "autovacuum": "off",
    "jit": "off",
    "timezone": "UTC",
}
# The kernel takes 107 bytes for a socket, and the server appends `/.s.PGSQL.5432`.
SOCKET_PATH_BYTES_MAX = 90
START_SECONDS_MAX = 60


def binaries():
    """The folder of the newest installed server, such as `/usr/lib/postgresql/15/bin`."""
    folders = glob.glob("/usr/lib/postgresql/*/bin/initdb")
    if folders:
        newest = max(folders, key=lambda path: int(re.search(r"/(\d+)/bin", path).group(1)))
        return os.path.dirname(newest)
    initdb = shutil.which("initdb")
    if initdb is None:
        raise RuntimeError("no PostgreSQL server is installed: run `make setup`")
    return os.path.dirname(os.path.realpath(initdb))


class Server:
    """A running server below `folder`; use it with `with`, which stops and removes it."""

    def __init__(self, folder):
        self.folder = folder
        self.bin = binaries()
        self.process = None
        self.log = os.path.join(folder, "postgres.log")
        self.sockets = os.path.join(folder, "socket")
        if len(self.sockets) > SOCKET_PATH_BYTES_MAX:
            self.sockets = tempfile.mkdtemp(prefix="cairn-demo-socket-", dir="/tmp")

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def _start(self):
        os.makedirs(self.sockets, exist_ok=True)
        # The server refuses to run as root, so root lends it Debian's own user.
        become = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            os.chown(self.sockets, user.pw_uid, user.pw_gid)
            become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        data = os.path.join(self.folder, "data")
        initdb = [f"{self.bin}/initdb", "-D", data, "-U", "postgres", "-A", "trust"]
        initdb += ["-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        with open(self.log, "ab") as log:
            done = subprocess.run(
                [*become, *initdb], stdout=log, stderr=log, check=False, cwd=self.folder
            )
            if done.returncode != 0:
                raise RuntimeError(f"initdb failed in {data}:\n{self._log_tail()}")
            settings = {**SETTINGS, "unix_socket_directories": self.sockets}
            server = [f"{self.bin}/postgres", "-D", data]
            for name, value in settings.items():
                server += ["-c", f"{name}={value}"]
            # Should this program be killed, the server must not outlive it.
            pdeathsig = (become or ["setpriv"]) + ["--pdeathsig", "INT"]
            self.process = subprocess.Popen(
                [*pdeathsig, *server], stdout=log, stderr=log, cwd=self.folder
            )
        self._wait_until_ready()

    def _wait_until_ready(self):
        deadline = time.monotonic() + START_SECONDS_MAX
        ready = [f"{self.bin}/pg_isready", "-q", "-h", self.sockets]
        while subprocess.run(ready, check=False).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{self._log_tail()}")
            time.sleep(0.05)

    def _log_tail(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-20:])

    def stop(self):
        """Stops the server at once and removes its files. Does nothing the second time."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.sockets, ignore_errors=True)

    def client(self, program, *arguments):
        """The command line of a client program that talks to this server as its superuser."""
        where = ["-h", self.sockets, "-U", "postgres"]
        return [os.path.join(self.bin, program), *where, *arguments]

    def psql(self, database, *arguments):
        """The command line of `psql` that stops at the first error and prints bare values."""
        quiet = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        return self.client("psql", "-d", database, *quiet, *arguments)

    def query(self, database, sql):
        """Runs `sql` and returns its rows as lists of strings."""
        done = subprocess.run(
            self.psql(database, "-F", "\t", "-c", sql), capture_output=True, check=False, text=True
        )
        if done.returncode != 0:
            raise RuntimeError(f"query failed in {database}: {done.stderr.strip()}")
        return [line.split("\t") for line in done.stdout.splitlines()]

    def pg_dump(self, database, *arguments):
        """The command line of a plain `pg_dump` whose output is the same for the same data."""
        command = self.client("pg_dump", "-d", database, *arguments)
        known = subprocess.run(
            [os.path.join(self.bin, "pg_dump"), "--help"], capture_output=True, check=True
        )
        # Since August 2025 each dump carries a random word, unless one is given.
        if b"--restrict-key" in known.stdout:
            command.append("--restrict-key=cairndemo")
        return command
