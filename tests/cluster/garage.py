"""Garage, a distributed object store: one node for measurements, or several for tests.

Nodes are ordinary processes with everything in a folder of their own. The program is built from the
registry by `tests/setup/tool.sh`.
"""

import os
import secrets
import signal
import subprocess
import time
import urllib.error
import urllib.request

REGION = "garage"
BUCKET = "bucket"
S3_PORT = 3900
RPC_PORT = 3901
START_SECONDS = 60
# What each node may hold, for the layout; nothing reserves it.
CAPACITY = "10G"

CONFIGURATION = """\
metadata_dir = "{folder}/meta"
data_dir = "{folder}/data"
db_engine = "lmdb"
replication_factor = {copies}
compression_level = "none"
rpc_bind_addr = "{address}:{rpc_port}"
rpc_public_addr = "{address}:{rpc_port}"
rpc_secret = "{secret}"

[s3_api]
s3_region = "{region}"
api_bind_addr = "{address}:{s3_port}"
root_domain = ".s3.invalid"
"""


class GarageFailed(Exception):
    """A node did not start, or refused what it was told."""


class Node:
    """One node: a process and its folder."""

    def __init__(self, program, folder, secret, copies, address, ports, prefix=()):
        self.program, self.folder, self.address = program, folder, address
        self.s3_port, self.rpc_port = ports
        # Put before each command, to run it somewhere else.
        self.prefix = list(prefix)
        self.process = None
        self.peers = []
        os.makedirs(folder)
        self.configuration = os.path.join(folder, "garage.toml")
        with open(self.configuration, "w", encoding="utf-8") as file:
            file.write(
                CONFIGURATION.format(
                    folder=folder,
                    copies=copies,
                    address=address,
                    rpc_port=self.rpc_port,
                    s3_port=self.s3_port,
                    secret=secret,
                    region=REGION,
                )
            )
        os.chmod(self.configuration, 0o600)

    @property
    def endpoint(self):
        """Where S3 is spoken."""
        return f"http://{self.address}:{self.s3_port}"

    def command(self, *arguments):
        """A command line of the program for this node."""
        return [*self.prefix, self.program, "-c", self.configuration, *arguments]

    def ask(self, *arguments):
        """What the program answers."""
        done = subprocess.run(
            self.command(*arguments), capture_output=True, check=False, text=True, timeout=60
        )
        if done.returncode != 0:
            raise GarageFailed(f"garage {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self):
        """Starts it; it answers when this returns."""
        with open(os.path.join(self.folder, "log"), "ab") as log:
            self.process = subprocess.Popen(
                self.command("server"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "RUST_LOG": "garage=warn"},
            )
        end = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > end:
                with open(os.path.join(self.folder, "log"), encoding="utf-8") as log:
                    raise GarageFailed(f"a node does not start: {log.read()[-4000:]}")
            time.sleep(0.1)
        self.join()

    def join(self):
        """Connects to the others of its cluster at once; by itself it would within a minute."""
        for peer in self.peers:
            self.ask("node", "connect", peer)

    def answers(self):
        """Whether it speaks S3, whatever it says."""
        try:
            urllib.request.urlopen(self.endpoint, timeout=2).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def kill(self):
        """Ends it as a power cut would, as far as a process can tell."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def name(self):
        """How other nodes find it."""
        return self.ask("node", "id", "--quiet").strip()


def start(nodes):
    """Starts nodes, makes one cluster of them with a bucket, and returns the key for it: an id and
    a secret."""
    for node in nodes:
        node.start()
    first = nodes[0]
    names = [node.name() for node in nodes]
    for name in names[1:]:
        first.ask("node", "connect", name)
    for node, name in zip(nodes, names):
        node.peers = [other for other in names if other != name]
    for number, name in enumerate(names):
        identity = name.split("@")[0]
        first.ask("layout", "assign", "-z", f"zone{number}", "-c", CAPACITY, identity)
    first.ask("layout", "apply", "--version", "1")
    key = "GK" + secrets.token_hex(12), secrets.token_hex(32)
    first.ask("key", "import", "--yes", "-n", "tests", *key)
    first.ask("bucket", "create", BUCKET)
    first.ask("bucket", "allow", "--read", "--write", "--owner", "--key", key[0], BUCKET)
    return key


def environment(endpoint, key):
    """What cairn and its peers need to find it."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": key[0],
        "AWS_SECRET_ACCESS_KEY": key[1],
        "AWS_EC2_METADATA_DISABLED": "true",
    }
