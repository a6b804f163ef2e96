"""A repository opened with a credential: sections 3.1, 4.1, 8.1 and 8.2 put together, and a place for problems."""

from contextlib import contextmanager

from . import envelope
from .encoding import CairnError, NewerFormat
from .envelope import KIND_CONFIG, KIND_SNAPSHOT, MissingKey, Store, open_body, verify_body
from .keys import (MAINTAINER, OWNER, READER, RECIPIENT, ROLE_NAMES, WRITER, open_slot, parse_certificate, parse_slot,
                   verify_certificate)
from .packs import Chunks
from .records import parse_config, parse_snapshot, previous_root

RIGHTS = (WRITER, READER, MAINTAINER, OWNER)  # ascending


class Repository:
    """`problems`: what is damaged or forged. `notes`: what this credential may not see."""

    def __init__(self, folder, credential, owner_key=None):
        """`owner_key`: the owner's Ed25519 public key as one was told it, if one was."""
        self.problems = []
        self.notes = []
        self.store = Store(folder)
        self.rid, self.format_hash = envelope.read_format(self.store)
        self.ring = self._open_slots(credential)
        self.config = self._open_config()
        if owner_key not in (None, self.config.owner_key):
            raise CairnError(f"the owner's key is {self.config.owner_key.hex()}, not the one expected")
        if credential.method == RECIPIENT and owner_key is None:
            self.notes.append(f"a recipient slot does not prove who made the repository; its owner's key is "
                              f"{self.config.owner_key.hex()}: compare it with what you were told")

    def problem(self, fact):
        if str(fact) not in self.problems:
            self.problems.append(str(fact))

    @contextmanager
    def tolerating(self):
        """One bad object must not hide the sound ones: its failure is written down."""
        try:
            yield
        except MissingKey as error:
            self.notes.append(str(error))
        except (CairnError, OSError) as error:
            self.problem(error)

    # Section 3.1

    def _open_slots(self, credential):
        """All slots that the credential opens, the cheapest tried first: each may bring other domains."""
        slots, rings = [], []
        for name, identity in self.store.list("keys"):
            with self.tolerating():
                slot = parse_slot(self.store.read("keys", name, identity), name)
                if slot.rid != self.rid:
                    raise CairnError(f"{name}: belongs to another repository")
                slots.append(slot)
        for slot in sorted(slots, key=lambda slot: slot.cost):
            with self.tolerating():
                ring = open_slot(slot, credential)
                if ring is not None:
                    rings.append(ring)
        if not rings:
            raise CairnError("; ".join(["no key slot opens with this credential"] + self.problems))
        rings.sort(key=lambda ring: RIGHTS.index(ring.role))
        best = rings.pop()
        for ring in rings:
            best.merge(ring)
        return best

    # Section 8.1

    def _open_config(self):
        """The valid config of the highest generation, then H. Opening one may give the root of the epoch before it."""
        waiting = {}
        for name, identity in self.store.list("config"):
            with self.tolerating():
                waiting[name] = self.store.read("config", name, identity)
        valid = []
        progress = True
        while progress and waiting:
            progress = False
            for name, raw in list(waiting.items()):
                try:
                    config, body = self._read_config(name, raw)
                except MissingKey:
                    continue
                except NewerFormat:
                    raise
                except CairnError as error:
                    self.problem(error)
                else:
                    valid.append((config, name, body))
                del waiting[name]
                progress = True
        for name in waiting:
            self.notes.append(f"{name}: no key for its epoch")
        if self.ring.data_id_key is None:
            raise CairnError("; ".join(["no config leads to the root of epoch 1"] + self.problems + self.notes))
        return self._newest(valid)

    def _read_config(self, name, raw):
        body = open_body(raw, KIND_CONFIG, self.ring, {}, name)
        try:
            config = parse_config(body.record, body.header.epoch, name)
        except NewerFormat as error:
            return error, body
        if (config.rid, config.format_hash) != (self.rid, self.format_hash):
            raise CairnError(f"{name}: it is for another `format` object")
        root = self.ring.roots.get(config.epoch)
        if root and config.previous_root and config.epoch - 1 not in self.ring.roots:
            self.ring.add_root(config.epoch - 1, previous_root(config, root, self.rid))
        return config, body

    def _newest(self, configs):
        """Judged by the owner's key that is derived or stands in the key slot, not by the one that a config names."""
        valid, newer = [], None
        for config, name, body in configs:
            with self.tolerating():
                verify_body(body, self.ring.owner_key, self.rid)
                if body.certificate.role != OWNER:
                    raise CairnError(f"{name}: not signed by the owner")
                if isinstance(config, NewerFormat):
                    newer = config
                elif config.owner_key != self.ring.owner_key:
                    raise CairnError(f"{name}: it names another owner than the key slot does")
                else:
                    valid.append((config.generation, name, config))
        if newer:
            raise newer
        if not valid:
            raise CairnError("; ".join(["no valid config"] + self.problems))
        return max(valid, key=lambda one: one[:2])[2]  # the names differ in H only

    # Section 8.2

    def snapshots(self):
        """All snapshots whose hashes, certificates and signatures hold, oldest first."""
        if self.ring.role == WRITER:
            raise CairnError(f"a {ROLE_NAMES[WRITER]} can read neither snapshots nor chunks")
        found = []
        for name, identity in self.store.list("snapshots"):
            with self.tolerating():
                body = open_body(self.store.read("snapshots", name, identity), KIND_SNAPSHOT, self.ring,
                                 self.config.domain_keys, name)
                verify_body(body, self.config.owner_key, self.rid)
                snapshot = parse_snapshot(body, name, identity)
                signers = [(snapshot.writer_id, snapshot.finished_ms)]
                if snapshot.remade:
                    former = parse_certificate(snapshot.remade.certificate, name)
                    verify_certificate(former, self.config.owner_key, self.rid, name)
                    signers = [(snapshot.writer_id, snapshot.remade.time_ms), (former.writer_id, snapshot.finished_ms)]
                for signer, time in signers:
                    revoked = self.config.revoked.get(signer)
                    if revoked is not None and time > revoked:
                        raise CairnError(f"{name}: its writer was revoked before")
                found.append(snapshot)
        return found

    def find_snapshot(self, digits):
        """The one snapshot whose id begins with these hexadecimal digits."""
        found = [snapshot for snapshot in self.snapshots() if snapshot.id.hex().startswith(digits.lower())]
        if len(found) != 1:
            raise CairnError("; ".join([f"{len(found)} valid snapshots have an id beginning {digits!r}"] + self.problems))
        return found[0]

    def chunks(self, from_packs=False):
        chunks = Chunks(self)
        if from_packs:
            chunks.load_directories()
        else:
            chunks.load_segments()
        return chunks
