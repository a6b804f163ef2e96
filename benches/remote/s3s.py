"""s3s-fs: a server that keeps objects as files of one folder, and does nothing else with them.

Garage stores each block by its hash, in a database and for as many copies as there are nodes;
what of a backup's time is such a server's is seen beside one that takes as little as possible.
"""

import os
import secrets
import socket
import subprocess
import time

HOST = "127.0.0.1"
START_SECONDS = 30


class FileServer:
    """One process, with one bucket."""

    def __init__(self, program, folder, bucket):
        os.makedirs(os.path.join(folder, bucket))
        self.key = (f"GK{secrets.token_hex(12)}", secrets.token_hex(32))
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.s3_port = free.getsockname()[1]
        self.endpoint = f"http://{HOST}:{self.s3_port}"
        command = [program, "--host", HOST, "--port", str(self.s3_port), folder]
        command += ["--access-key", self.key[0], "--secret-key", self.key[1]]
        quiet = {**os.environ, "RUST_LOG": "off"}
        self.process = subprocess.Popen(
            command, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._wait()

    def _wait(self):
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise RuntimeError(f"s3s-fs ended with {self.process.returncode}")
            try:
                socket.create_connection((HOST, self.s3_port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("s3s-fs does not listen")

    def kill(self):
        """Ends it."""
        self.process.kill()
        self.process.wait()
