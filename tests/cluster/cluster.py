#!/usr/bin/env python3
"""Runs cairn on a cluster of three Garage nodes, of which one is killed or cut off now and then.

Each node is in a network namespace of its own, all of them below one that this program makes for
itself: nothing of it is seen by the machine, and nothing is left. Needs root, or a kernel that
gives namespaces to everyone.

The oracle: whatever a backup acknowledged (exit code 0) restores byte by byte the same, in the end
and on a machine that knows nothing; `verify` reads everything and finds no damage; what failed said
so. Operations may fail while a node is away, and are run again.

A node is killed, and one cut off, in the middle of each kind of operation: begin and end of every run
are noted, and where an event struck before or after, the operation is run again with something to do.
"""

import argparse
import filecmp
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import garage
from overlap import Timeline

INSIDE = "CAIRN_CLUSTER_INSIDE"
NODES = 3
WRITERS = 8
ROUNDS = 3
FILES = 40
FILE_BYTES = 256 << 10
COMMAND_SECONDS = 600
# A place that does not answer at all is given up soon: a person may have mistyped it.
ATTEMPTS = 30
ATTEMPT_SECONDS = 2
# What has to be under way when a node goes, and how a node goes.
OPERATIONS = ("backup", "replicate", "gc", "restore")
EVENTS = ("kill", "cut")
# How often an operation is run until an event strikes in the middle of it.
TRIES = 20
# How many snapshots are restored from each replica.
SAMPLE = 10
# How long a node is away.
AWAY_SECONDS = 8
# What an operation may end with while part of the storage is away: unreachable.
AWAY = (0, 1, 13)
PASSWORD = "a test has no secrets"


class ClusterFailed(Exception):
    """The oracle was contradicted."""


def say(text):
    """Tells on standard output, at once."""
    print(f"cluster: {text}", flush=True)


def do(*command):
    """Runs a command that must succeed."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Network:
    """A bridge with a namespace for each node; a node is cut off by taking its cable down."""

    def __init__(self):
        do("ip", "link", "set", "lo", "up")
        do("ip", "link", "add", "bridge", "type", "bridge")
        do("ip", "addr", "add", "10.1.0.254/24", "dev", "bridge")
        do("ip", "link", "set", "bridge", "up")

    def add(self, number):
        """A namespace; what to put before commands, and its address."""
        name, cable, address = f"node{number}", f"cable{number}", f"10.1.0.{number + 1}"
        do("ip", "netns", "add", name)
        do("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        do("ip", "link", "set", cable, "master", "bridge")
        do("ip", "link", "set", cable, "up")
        inside = ("ip", "netns", "exec", name)
        do(*inside, "ip", "addr", "add", f"{address}/24", "dev", "eth0")
        do(*inside, "ip", "link", "set", "eth0", "up")
        do(*inside, "ip", "link", "set", "lo", "up")
        return inside, address

    @staticmethod
    def cut(number, off):
        """Takes a node's cable out, or puts it back."""
        do("ip", "link", "set", f"cable{number}", "down" if off else "up")


class Host:
    """A machine with cairn, a cache and sources of its own, that talks to one of the nodes."""

    def __init__(self, cairn, folder, name, node, key, place, timeline):
        self.cairn, self.name, self.said, self.timeline = cairn, name, "", timeline
        self.folder = os.path.join(folder, name)
        self.source = os.path.join(self.folder, "source")
        os.makedirs(self.source)
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": self.folder,
            "CAIRN_REPO": place,
            "CAIRN_PASSWORD": PASSWORD,
            "CAIRN_JOB": name,
            **garage.environment(node.endpoint, key),
        }

    def run(self, *arguments, codes=(0,)):
        """Runs cairn; its exit code and the lines of its output. Any other code is a failure."""
        with self.timeline.operation(arguments[0]):
            done = subprocess.run(
                [self.cairn, *arguments, "--json"],
                env=self.env,
                capture_output=True,
                check=False,
                text=True,
                timeout=COMMAND_SECONDS,
            )
        if done.returncode not in codes:
            words = " ".join(arguments)
            said = done.stdout[-2000:] + done.stderr[-2000:]
            raise ClusterFailed(f"{self.name}: `{words}` ended with {done.returncode}: {said}")
        self.said = done.stderr
        if done.returncode != 0 and "error:" not in done.stderr:
            raise ClusterFailed(f"{self.name}: {arguments} failed in silence: {done.stderr}")
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    def persist(self, *arguments):
        """Runs cairn until it succeeds; how often it failed."""
        for failed in range(ATTEMPTS):
            code, lines = self.run(*arguments, codes=AWAY)
            if code == 0:
                return failed, lines
            time.sleep(ATTEMPT_SECONDS)
        words = " ".join(arguments)
        raise ClusterFailed(f"{self.name}: `{words}` failed {ATTEMPTS} times: {self.said[-2000:]}")

    def fill(self, seed):
        """Writes files, or changes some of those that are there."""
        rng = random.Random(f"{self.name} {seed}")
        for number in range(FILES if seed == 0 else FILES // 8):
            path = os.path.join(self.source, f"{rng.randrange(FILES) if seed else number}")
            with open(path, "wb") as file:
                file.write(rng.randbytes(FILE_BYTES))


class Acknowledged:
    """What backups have acknowledged: snapshots and what was in them."""

    def __init__(self, folder):
        self.folder, self.lock, self.snapshots = folder, threading.Lock(), {}
        os.makedirs(folder)

    def backup(self, host):
        """Backs up until it is acknowledged; how often it failed."""
        failed, lines = host.persist("backup", host.source)
        snapshot = lines[-1]["report"]["snapshot"]
        kept = os.path.join(self.folder, snapshot)
        shutil.copytree(host.source, kept)
        with self.lock:
            self.snapshots[snapshot] = (host.source, kept)
        return failed

    def forget_but(self, listed):
        """Snapshots that were forgotten on purpose need not be there any more."""
        with self.lock:
            for snapshot in set(self.snapshots) - listed:
                shutil.rmtree(self.snapshots.pop(snapshot)[1])

    def check(self, host, most=None):
        """Restores each, or so many of them, and compares."""
        listed = {line["id"] for line in host.run("snapshots")[1] if line["type"] == "snapshot"}
        lost = set(self.snapshots) - listed
        if lost:
            raise ClusterFailed(f"acknowledged and not there: {lost}")
        chosen = sorted(self.snapshots.items())
        if most is not None and len(chosen) > most:
            chosen = random.sample(chosen, most)
        for number, (snapshot, (source, kept)) in enumerate(chosen):
            target = os.path.join(host.folder, f"restored-{number}")
            host.run("restore", snapshot, "--target", target)
            same(kept, target + source)
            shutil.rmtree(target)
        say(f"{len(chosen)} of {len(self.snapshots)} acknowledged snapshots restore the same")


def same(kept, restored):
    """Fails unless two folders hold the same files."""
    names = sorted(os.listdir(kept))
    if names != sorted(os.listdir(restored)):
        raise ClusterFailed(f"{restored} has other files than {kept}")
    for name in names:
        if not filecmp.cmp(os.path.join(kept, name), os.path.join(restored, name), shallow=False):
            raise ClusterFailed(f"{restored}/{name} is not what was backed up")


class Course:
    """The course of events."""

    def __init__(self, cairn, program, work):
        self.cairn, self.work = cairn, work
        network = Network()
        self.network = network
        secret = secrets.token_hex(32)
        self.nodes = []
        for number in range(NODES):
            prefix, address = network.add(number)
            folder = os.path.join(work, f"node{number}")
            ports = garage.S3_PORT, garage.RPC_PORT
            self.nodes.append(
                garage.Node(program, folder, secret, NODES, address, ports, prefix)
            )
        self.key, self.writers = None, []
        self.timeline, self.rng = Timeline(), random.Random(secrets.randbits(64))
        self.rounds = 0
        self.acknowledged = Acknowledged(os.path.join(work, "acknowledged"))

    def host(self, name, node, place=f"s3://{garage.BUCKET}/home"):
        """A machine that knows nothing."""
        return Host(self.cairn, self.work, name, node, self.key, place, self.timeline)

    def run(self):
        """All of it."""
        self.key = garage.start(self.nodes)
        self.writers = [self.host(f"writer{n}", self.nodes[n % NODES]) for n in range(WRITERS)]
        self.writers[0].run("init")
        self.eight_at_once("all nodes there")
        self.in_the_middle("backup", "kill", lambda _, event: self.eight_at_once("a kill", event))
        self.in_the_middle("backup", "cut", lambda _, event: self.eight_at_once("a cut", event))
        self.verify("after backups")
        for event in EVENTS:
            self.in_the_middle("replicate", event, self.replicate)
        for event in EVENTS:
            self.in_the_middle("gc", event, self.forget_and_collect)
        for event in EVENTS:
            self.in_the_middle("restore", event, self.restore)
        self.verify("in the end")
        self.acknowledged.check(self.host("nobody", self.nodes[0]))
        self.check_overlaps()

    def kill_and_start(self):
        """Kills a node, and starts it again."""
        self.nodes[1].kill()
        self.timeline.happened("kill")
        time.sleep(AWAY_SECONDS)
        self.nodes[1].start()

    def cut_and_mend(self):
        """Cuts a node off, from the others and from those who ask it."""
        self.network.cut(2, True)
        self.timeline.happened("cut")
        time.sleep(AWAY_SECONDS)
        self.network.cut(2, False)
        self.nodes[2].join()

    def in_the_middle(self, kind, event, work):
        """Runs work until the event strikes while an operation of this kind is under way: at some
        moment of the time that it usually takes. `work` is told which try it is, so that it finds
        something to do, and what strikes: something that waits for the operation to begin, and is to
        be run beside it."""
        strike = {"kill": self.kill_and_start, "cut": self.cut_and_mend}[event]
        met = self.timeline.overlaps(kind, event)

        def struck(over):
            usual = self.timeline.usual_seconds(kind) or 1
            if self.timeline.await_begin(kind, over):
                time.sleep(self.rng.uniform(0, usual))
                strike()

        for number in range(TRIES):
            work(f"{event}-{number}", struck)
            if self.timeline.overlaps(kind, event) > met:
                say(f"{event} in the middle of {kind}: seen at try {number + 1}")
                return
        raise ClusterFailed(f"no {kind} was under way at a {event} in {TRIES} tries")

    def check_overlaps(self):
        """Every kind of operation was under way at a kill and at a cut."""
        missing = self.timeline.missing(OPERATIONS, EVENTS)
        if missing:
            raise ClusterFailed(f"these never met: {missing}")
        for kind in OPERATIONS:
            met = (f"{self.timeline.overlaps(kind, event)} at a {event}" for event in EVENTS)
            say(f"{kind}: under way {', '.join(met)}")

    def meanwhile(self, event, *work):
        """Runs work in threads, and an event beside it, which is told when all work is over; failures
        of either are raised."""
        failures, over = [], threading.Event()

        def guarded(part):
            try:
                part()
            except Exception as failure:  # pylint: disable=broad-exception-caught
                failures.append(failure)

        threads = [threading.Thread(target=guarded, args=(part,)) for part in work]
        beside = threading.Thread(target=guarded, args=(lambda: event(over),))
        for thread in (*threads, beside):
            thread.start()
        for thread in threads:
            thread.join()
        over.set()
        beside.join()
        if failures:
            raise failures[0]

    def eight_at_once(self, name, event=lambda _: None):
        """Eight machines back up at once, some times over."""
        failed = []

        seeds = range(self.rounds, self.rounds + ROUNDS)
        self.rounds += ROUNDS

        def work(host):
            for seed in seeds:
                host.fill(seed)
                failed.append(self.acknowledged.backup(host))

        self.meanwhile(event, *(lambda host=host: work(host) for host in self.writers))
        say(f"{name}: {len(failed)} backups acknowledged, {sum(failed)} failed before and said so")

    def verify(self, when):
        """Reads everything, on a machine that knows nothing."""
        host = self.host(f"verifier {when}".replace(" ", "-"), self.nodes[0])
        host.persist("verify", "--level", "full")
        say(f"verify {when}: clean")

    def replicate(self, name, event):
        """To another repository on the same cluster, which is new or has half of it already."""
        replica = f"s3://{garage.BUCKET}/replica-{name}"
        host, beside = self.writers[0], self.writers[1]
        if name.startswith("kill"):
            host.persist("replicate", "--create", "--to", replica)
            for seed in range(10, 13):
                beside.fill(f"{name} {seed}")
                self.acknowledged.backup(beside)
        failed = []
        arguments = "replicate", "--create", "--to", replica
        self.meanwhile(event, lambda: failed.append(host.persist(*arguments)[0]))
        there = self.host(f"elsewhere-{name}", self.nodes[2], replica)
        there.persist("verify", "--level", "full")
        self.acknowledged.check(there, most=SAMPLE)
        say(f"replicate: done, {sum(failed)} failed before and said so")

    def forget_and_collect(self, name, event):
        """Forgets most, and collects while others back up."""
        host, beside = self.writers[0], self.writers[4]
        for seed in range(3):
            beside.fill(f"{name} {seed}")
            self.acknowledged.backup(beside)
        host.persist("forget", "--keep-last", "2")
        listed = {line["id"] for line in host.run("snapshots")[1] if line["type"] == "snapshot"}
        self.acknowledged.forget_but(listed)
        failed = []
        beside.fill(f"{name} beside")
        arguments = "gc", "--max-dead", "0", "--max-delete", "100"
        self.meanwhile(
            event,
            lambda: failed.append(host.persist(*arguments)[0]),
            lambda: self.acknowledged.backup(beside),
        )
        failed.append(host.persist(*arguments)[0])
        say(f"gc: done, {sum(failed)} failed before and said so")

    def restore(self, name, event):
        """Restores to a machine that knows nothing."""
        snapshot, (source, kept) = sorted(self.acknowledged.snapshots.items())[0]
        failed = []
        host = self.host(f"restorer-{name}", self.nodes[0])
        target = os.path.join(host.folder, "target")
        arguments = "restore", snapshot, "--target", target
        self.meanwhile(event, lambda: failed.append(host.persist(*arguments)[0]))
        same(kept, target + source)
        shutil.rmtree(target)
        say(f"restore: the same, {sum(failed)} failed before and said so")

    def end(self):
        """Ends all nodes."""
        for node in self.nodes:
            node.kill()


def namespaced():
    """Starts this program again in namespaces of its own; its exit code."""
    command = ["unshare", "--net", "--mount"]
    if os.geteuid() != 0:
        command += ["--user", "--map-root-user"]
    command += ["sh", "-c", 'mount -t tmpfs none /run && mkdir /run/netns && exec "$@"', "sh"]
    return subprocess.call([*command, sys.executable, *sys.argv], env={**os.environ, INSIDE: "yes"})


def main():
    """Runs the course."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cairn", required=True, help="the program")
    parser.add_argument("--garage", required=True, help="Garage's program")
    parser.add_argument("--work", help="where to keep data meanwhile")
    options = parser.parse_args()
    if INSIDE not in os.environ:
        return namespaced()
    work = tempfile.mkdtemp(prefix="cairn-cluster-", dir=options.work)
    course = None
    try:
        course = Course(os.path.abspath(options.cairn), os.path.abspath(options.garage), work)
        course.run()
    except (ClusterFailed, garage.GarageFailed) as failure:
        say(f"FAILED: {failure}")
        return 1
    finally:
        if course is not None:
            course.end()
        shutil.rmtree(work, ignore_errors=True)
    say("passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
