"""Tests of the reader against ../vectors, which the Rust code computes: both read the text alike."""

import json
import os
import unittest

from cairn_reader import crypto, encoding, envelope, keys, packs, records, tree
from cairn_reader.crypto import H, KDF, MAC
from cairn_reader.encoding import Cursor

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "vectors")
unhex = bytes.fromhex


def load(name):
    with open(os.path.join(FOLDER, name + ".json"), encoding="utf-8") as file:
        return json.load(file)


def owner_ring():
    derive = load("derive")
    ring = keys.KeyRing(unhex(derive["repository_id"]), keys.OWNER)
    ring.add_root(1, unhex(derive["root_epoch_1"]))
    return ring


class Vectors(unittest.TestCase):
    def test_derive(self):
        v, ring = load("derive"), owner_ring()
        found = {"k_id": ring.data_id_key, "k_tree": ring.tree_id_key, "k_index_epoch_1": ring.index_keys[1],
                 "k_config_epoch_1": ring.config_keys[1], "owner_public_key": ring.owner_key}
        for name, key in found.items():
            self.assertEqual(key.hex(), v[name], name)
        for domain in v["domains"]:
            secret = ring.domain_secret(domain["domain"], domain["epoch"])
            self.assertEqual((secret.hex(), crypto.x25519_public(secret).hex()), (domain["secret"], domain["public_key"]))
        for chunk in v["chunk_ids"]:
            plain = chunk["plaintext_ascii"].encode()
            self.assertEqual((MAC(ring.data_id_key, plain).hex(), MAC(ring.tree_id_key, plain).hex()),
                             (chunk["data"], chunk["tree"]))
        previous = v["previous_root"]
        sealed = unhex(previous["nonce"] + previous["sealed_root_epoch_1"])
        config = records.Config(2, ring.rid, b"", 1, b"", {}, {}, sealed)
        self.assertEqual(records.previous_root(config, unhex(previous["root_epoch_2"]), ring.rid).hex(), v["root_epoch_1"])

    def test_slot(self):
        v, ring = load("slot"), owner_ring()
        self.assertEqual(len(v["slots"]), 4)
        for case in v["slots"]:
            raw, key = unhex(case["slot"]), case["key"]
            self.assertEqual(H(raw).hex(), case["slot_id"])
            slot = keys.parse_slot(raw, case["role"])
            self.assertEqual((keys.ROLE_NAMES[slot.role], slot.label), (case["role"], case["role"]))
            secret = {
                keys.PASSPHRASE: lambda: key["passphrase_utf8"].encode(),
                keys.KEY_FILE: lambda: key["key_file_ascii"].encode(),
                keys.COMMAND: lambda: key["stdout_ascii"].encode(),
                keys.RECIPIENT: lambda: keys.parse_identity(key["identity"]),
            }[slot.method]()
            if slot.method == keys.RECIPIENT:
                self.assertEqual(secret.hex(), key["x25519_secret"])
            opened = keys.open_slot(slot, keys.Credential(slot.method, secret))
            self.assertEqual((opened.owner_key, opened.index_keys[1], opened.config_keys[1]),
                             (ring.owner_key, ring.index_keys[1], ring.config_keys[1]))
            if slot.role == keys.MAINTAINER:
                self.assertEqual((sorted(opened.index_keys), sorted(opened.domain_secrets)), ([1, 2], [(0, 1), (0, 2), (5, 1)]))

    def test_envelope(self):
        v, ring = load("envelope"), owner_ring()
        domain_keys = {(d["domain"], d["epoch"]): unhex(d["public_key"]) for d in load("derive")["domains"]}
        for case in v["bodies"]:
            raw = unhex(case["object"])
            body = envelope.open_body(raw, case["kind"], ring, domain_keys, "body")
            self.assertEqual((body.header.cipher, body.record), (case["cipher"], case["record_ascii"].encode()))
            self.assertEqual((body.signed + body.signature).hex(), case["content"])
            self.assertEqual(envelope.data_key(body.header, ring, domain_keys).hex(), case["data_key"])
            envelope.verify_body(body, ring.owner_key, ring.rid)
        for case in v["packs"]:
            header = envelope.parse_header(unhex(case["header"]), envelope.KIND_DATA_PACK, ring.rid, "pack")
            key = envelope.data_key(header, ring, domain_keys)
            self.assertEqual(key.hex(), case["data_key"])
            for part in case["parts"]:
                plain = envelope.open_part(header, key, part["type"], part["counter"], unhex(part["sealed"]))
                self.assertEqual(plain, part["plaintext_ascii"].encode())
            filler = MAC(KDF("cairn v1 filler", key), b"")
            self.assertEqual(filler.hex(), case["filler_first_64_bytes"][:64])

    def test_certificate(self):
        v, ring = load("certificate"), owner_ring()
        for case in [v["owner"], *v["issued"]]:
            certificate = keys.parse_certificate(unhex(case["certificate"]), "certificate")
            keys.verify_certificate(certificate, ring.owner_key, ring.rid, "certificate")
            self.assertEqual((certificate.role, certificate.writer_id.hex(), certificate.issued_ms, certificate.name),
                             (case["role"], case["writer_id"], case["issued_ms"], case["name"]))
        crypto.verify_ed25519(ring.owner_key, unhex(v["signature"]["signature"]), b"context", b"body", "signature")
        receipt = unhex(v["receipt_signed_by_owner"])
        crypto.verify_ed25519(ring.owner_key, receipt[-64:], b"receipt" + ring.rid, receipt[:-64], "receipt")

    def test_padme(self):
        for pair in load("padme"):
            self.assertEqual(encoding.padme(pair["length"]), pair["padded"])

    def test_records(self):
        v = load("records")
        case = v["config"]
        config = records.parse_config(unhex(case["record"]), 2, "config")
        self.assertEqual(
            (config.rid.hex(), config.format_hash.hex(), config.generation, config.owner_key.hex(), config.previous_root.hex()),
            tuple(case[name] for name in ("repository_id", "format_hash", "generation", "owner_key", "previous_root")))
        self.assertEqual(config.domain_keys, {(d["id"], d["epoch"]): unhex(d["public_key"]) for d in case["domains"]})
        self.assertEqual(config.revoked, {unhex(one["writer_id"]): one["time_ms"] for one in case["revoked"]})

        case = v["snapshot"]
        header = envelope.Header(b"", "snapshot", 4, 1, 0, 0, 1, b"", b"", b"")
        signer = keys.Certificate(b"", 1, bytes(32), 0, "db1", b"")
        snapshot = records.parse_snapshot(envelope.Body(header, signer, unhex(case["record"]), b"", b""), "name", b"")
        for name in ("started_ms", "finished_ms", "job", "host", "user", "tags", "sequence"):
            self.assertEqual(getattr(snapshot, name), case[name], name)
        self.assertEqual((snapshot.root.hex(), [path.hex() for path in snapshot.paths], snapshot.counts),
                         (case["root"], case["paths"], case["statistics"]))
        self.assertIsNone(snapshot.remade)
        for role, known in ((0, True), (3, True), (1, False)):
            signer = keys.Certificate(b"", role, bytes(32), 0, "db1", b"")
            body = envelope.Body(header, signer, unhex(case["record_remade"]), b"", b"")
            remade = records.parse_snapshot(body, "name", b"").remade
            expected = records.Remade(unhex(case["former_certificate"]), case["remade_time_ms"], [unhex(one) for one in case["former"]])
            self.assertEqual(remade, expected if known else None)

    def test_other_records(self):
        """A restore does not need these, so the reader has no code for them: fields by the tables of section 8."""
        v = load("records")
        fields = lambda name, known: Cursor(unhex(v[name]["record"]), name).fields(known, known)
        hexed = lambda found, *tags: [found[tag].hex() for tag in tags]
        number = lambda found, tag, read: encoding.value(found, tag, "record", read)

        found, case = fields("ack", {1, 3, 5, 7}), v["ack"]
        self.assertEqual(hexed(found, 1, 5, 7), [case["snapshot"], case["tombs_digest"], case["session"]])
        self.assertEqual(number(found, 3, Cursor.zigzag), case["time_ms"])

        found, case = fields("lease", {1, 3, 5, 7, 9, 11, 13, 15}), v["lease"]
        self.assertEqual(hexed(found, 1, 3), [case["session"], case["writer_id"]])
        self.assertEqual([number(found, tag, Cursor.str) for tag in (5, 9)], [case["host"], case["operation"]])
        self.assertEqual([number(found, tag, Cursor.varint) for tag in (7, 15)], [case["pid"], case["ttl_ms"]])
        self.assertEqual([number(found, tag, Cursor.zigzag) for tag in (11, 13)], [case["started_ms"], case["renewed_ms"]])

        found, case = fields("tomb", {1, 3, 5, 6, 7}), v["tomb"]
        condemned = number(found, 3, lambda c: c.list(lambda: [c.u8(), c.take(32).hex()], 33))
        self.assertEqual(condemned, case["packs"])
        self.assertEqual(condemned, sorted(condemned))
        self.assertEqual(number(found, 6, lambda c: c.list(lambda: c.take(32).hex(), 32)), case["replacements"])
        self.assertEqual((number(found, 1, Cursor.zigzag), found[5][0], found[7].hex()),
                         (case["time_ms"], case["reason"], case["session"]))

        found, case = fields("receipt", {1, 3, 5, 7, 9, 11, 12}), v["receipt"]
        self.assertEqual(number(found, 7, lambda c: c.list(c.str, 1)), case["deleted"])
        self.assertEqual(number(found, 9, lambda c: c.list(lambda: [c.zigzag(), c.u8(), c.u8()], 3)), case["audits"])
        self.assertEqual((number(found, 1, Cursor.varint), number(found, 11, Cursor.zigzag), number(found, 12, Cursor.str)),
                         (case["sequence"], case["time_ms"], case["note"]))
        self.assertEqual(hexed(found, 3, 5), [case["previous"], case["replica"]])

        case = v["replica"]
        cursor = Cursor(unhex(case["object"]), "replica")
        self.assertEqual((cursor.take(10), cursor.take(16).hex()), (keys.MAGIC + b"\x0b\x01", case["repository_id"]))
        found = cursor.fields({1, 3, 4, 6}, {1, 3})
        self.assertEqual((found[1].hex(), number(found, 3, Cursor.zigzag), number(found, 4, Cursor.str)),
                         (case["replica"], case["created_ms"], case["description"]))

    def test_packs(self):
        v = load("packs")
        chunks = lambda listed: tuple((unhex(identity), length) for identity, length in listed)
        expected = [(f["codec"], f["sealed_bytes"], f["plain_bytes"], chunks(f["chunks"]), chunks(f["bases"])) for f in v["frames"]]
        of = lambda frames: [(f.codec, f.sealed_length, f.plain_length, f.chunks, f.bases) for f in frames]

        case = v["directory"]
        cursor = Cursor(unhex(case["plaintext_without_signature"]), "directory")
        self.assertEqual((cursor.bytes().hex(), cursor.take(16).hex()), (case["certificate"], case["session"]))
        self.assertEqual(of(packs.parse_frames(cursor)), expected)
        cursor.end()

        case = v["segment"]
        entry, = packs.parse_segment(unhex(case["record"]), "segment")
        said = case["packs"][0]
        self.assertEqual((entry.name.hex(), entry.kind, entry.domain, entry.epoch, entry.length, entry.namespace.hex()),
                         tuple(said[name] for name in ("name", "kind", "domain", "epoch", "bytes", "namespace")))
        self.assertEqual(of(entry.frames), expected)

    def test_tree(self):
        v = load("tree")
        for case in v["entries"]:
            entry = tree.parse_entry(unhex(case["entry"]), "entry")
            self.assertEqual((entry.kind, entry.name.hex(), entry.mode, entry.uid, entry.gid),
                             tuple(case[name] for name in ("kind", "name", "mode", "uid", "gid")))
            self.assertEqual(entry.mtime_ns, case["mtime"][0] * 10**9 + case["mtime"][1])
            self.assertEqual([[name.hex(), content.hex()] for name, content in entry.xattrs], case["xattrs"])
            self.assertEqual(entry.link, tuple(case["link"]) if case["link"] else None)
            content = case["content"]
            self.assertEqual(entry.size, content.get("bytes", 0))
            self.assertEqual([[length, identity and identity.hex()] for length, identity in entry.extents],
                             content.get("extents", []))
            node = content.get("extent_node") or content.get("directory_node")
            self.assertEqual(entry.node and entry.node.hex(), node)
            self.assertEqual(entry.target and entry.target.hex(), content.get("target"))
            self.assertEqual(entry.device and list(entry.device), content.get("device"))
        whole = {b"d" * 32: v["directory_leaf_of_these_entries"], b"0" * 32: v["empty_directory"],
                 b"e" * 32: v["extent_leaf"]["node"]}
        store = Nodes({identity: unhex(node) for identity, node in whole.items()})
        names = [entry.name.hex() for entry in tree.directory_entries(store, b"d" * 32)]
        self.assertEqual(names, [case["name"] for case in v["entries"]])
        self.assertEqual(list(tree.directory_entries(store, b"0" * 32)), [])
        extents = [[length, identity and identity.hex()] for length, identity in tree._walk_extents(store, b"e" * 32, None)]
        self.assertEqual(extents, v["extent_leaf"]["extents"])
        for name, read in (("directory_inner", lambda c: [c.bytes().hex(), c.take(32).hex(), c.varint()]),
                           ("extent_inner", lambda c: [c.take(32).hex(), c.varint()])):
            cursor = Cursor(unhex(v[name]["node"]), name)
            self.assertEqual(cursor.u8(), {"directory_inner": tree.DIRECTORY_INNER, "extent_inner": tree.EXTENT_INNER}[name])
            self.assertEqual(cursor.u8(), v[name]["level"])
            self.assertEqual(cursor.list(lambda: read(cursor), 33), v[name]["children"])
            cursor.end()


class Nodes:
    """Stands for `Chunks` where nodes are at hand."""

    def __init__(self, nodes):
        self.nodes = nodes

    def node(self, identity):
        return self.nodes[identity]


if __name__ == "__main__":
    unittest.main()
