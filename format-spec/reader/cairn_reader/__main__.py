"""Command line of the reader: `python3 -m cairn_reader REPO (a credential) list | restore SNAPSHOT TARGET`.

Exit status: 0 everything is sound; 1 done, but something was damaged, forged or could not be set (told on standard
error); 2 could not be done.
"""

import argparse
import datetime
import shlex
import subprocess
import sys

from .encoding import CairnError, KEY_FILE_MAX
from .keys import ARGON2_KIB_UNASKED, COMMAND, Credential, KEY_FILE, PASSPHRASE, RECIPIENT, parse_identity
from .repository import Repository
from .restore import Restore


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(prog="cairn_reader", description="Reads cairn repositories in local folders.")
    parser.add_argument("repository", help="the folder that holds `format`")
    keys = parser.add_mutually_exclusive_group(required=True)
    keys.add_argument("--password-file", help="a file with the passphrase; one line end after it is not part of it")
    keys.add_argument("--key-file", help="a key file, all bytes of which count")
    keys.add_argument("--key-command", help="a command whose standard output is the key")
    keys.add_argument("--recipient-identity", metavar="FILE", help="a file with the text cairn-identity-...")
    parser.add_argument("--owner-key", metavar="HEX", help="refuse a repository whose owner has another Ed25519 public key")
    parser.add_argument("--memory-kib", type=int, default=ARGON2_KIB_UNASKED, metavar="N",
                        help="memory that one passphrase slot may ask for (default: 1 GiB)")
    parser.add_argument("--domain-secret", action="append", default=[], metavar="DOMAIN:EPOCH:HEX",
                        help="the secret of an external domain; may be given repeatedly")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the snapshots, oldest first")
    restore = commands.add_parser("restore", help="restore a whole snapshot")
    restore.add_argument("snapshot", help="its id or the beginning of it")
    restore.add_argument("target", help="a folder that is empty or absent")
    restore.add_argument("--from-packs", action="store_true", help="use the packs' own directories, not the index")
    return parser.parse_args(arguments)


def read_credential(options):
    if options.password_file:
        secret = read_key(options.password_file)
        return Credential(PASSPHRASE, secret.removesuffix(b"\n").removesuffix(b"\r"), options.memory_kib)
    if options.key_file:
        return Credential(KEY_FILE, read_key(options.key_file))
    if options.key_command:
        result = subprocess.run(shlex.split(options.key_command), stdout=subprocess.PIPE, check=True)
        return Credential(COMMAND, result.stdout)
    return Credential(RECIPIENT, parse_identity(read_key(options.recipient_identity).decode("ascii")))


def read_key(path):
    with open(path, "rb") as file:
        return file.read(KEY_FILE_MAX + 2)  # longer ones are refused where the limit is checked


def read_hex(digits):
    secret = bytes.fromhex(digits)
    if len(secret) != 32:
        raise CairnError("a key has 64 hexadecimal digits")
    return secret


def list_snapshots(repository):
    for snapshot in repository.snapshots():
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=snapshot.finished_ms)
        paths = " ".join(ascii(path.decode("utf-8", "surrogateescape")) for path in snapshot.paths)
        print(f"{snapshot.id.hex()} {moment:%Y-%m-%dT%H:%M:%S}Z {snapshot.host!a} {snapshot.job!a} {paths}")


def run(options):
    owner_key = read_hex(options.owner_key) if options.owner_key else None
    repository = Repository(options.repository, read_credential(options), owner_key)
    for given in options.domain_secret:
        domain, epoch, digits = given.split(":")
        repository.ring.domain_secrets[int(domain), int(epoch)] = read_hex(digits)
    if options.command == "list":
        list_snapshots(repository)
    else:
        snapshot = repository.find_snapshot(options.snapshot)
        chunks = repository.chunks(options.from_packs)
        Restore(chunks, options.target, repository.problem).run(snapshot.root)
    for note in repository.notes:
        print(f"note: {note}", file=sys.stderr)
    for problem in repository.problems:
        print(f"problem: {problem}", file=sys.stderr)
    return 1 if repository.problems else 0


def main(arguments=None):
    options = parse_arguments(arguments)
    try:
        return run(options)
    except (CairnError, OSError, ValueError, OverflowError, subprocess.CalledProcessError) as error:
        print(f"cairn_reader: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
