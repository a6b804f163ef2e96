//! Golden vectors of everything that is not a matter of keys: `format-spec/vectors/*.json` is what
//! these tests compute. Values stand in the file beside their encoding; `engine`'s seals do the same.
//!
//! With `CAIRN_WRITE_VECTORS=1` in the environment they write the files instead of comparing
//! them; a difference that this makes to a released version is a break of the format.

use std::path::Path;

use cairn_format::certificate::{Certificate, Role};
use cairn_format::error::FormatError;
use cairn_format::hex::encode as hex;
use cairn_format::ids::*;
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::node::{DirectoryChild, DirectoryNode, ExtentChild, ExtentNode};
use cairn_format::pack::{ChunkRef, Codec, Directory, FrameDescription, Locator};
use cairn_format::parity::{ParityFooter, ParityLayout};
use cairn_format::receipt::*;
use cairn_format::record::*;
use cairn_format::segment::{PackSection, Segment};
use cairn_format::tree::*;
use serde_json::{Value, json};

const TIME_MS: i64 = 1_767_225_600_000;

fn check(file: &str, computed: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file);
    let text = format!("{}\n", serde_json::to_string_pretty(computed).unwrap());
    if std::env::var_os("CAIRN_WRITE_VECTORS").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{file} differs");
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// The encoding, after it was seen to decode to the same value.
fn encoded<T: PartialEq + core::fmt::Debug>(
    value: &T,
    encode: impl FnOnce(&T) -> Vec<u8>,
    decode: impl FnOnce(&[u8]) -> Result<T, FormatError>,
) -> String {
    let bytes = encode(value);
    assert_eq!(decode(&bytes).as_ref(), Ok(value));
    hex(&bytes)
}

fn config() -> Config {
    let domain = |id, epoch, origin, name: &str| Domain {
        id,
        epoch,
        public_key: [u8::try_from(16 * id + epoch).unwrap(); 32],
        origin,
        name: name.to_owned(),
    };
    Config {
        repository: RepositoryId::from_bytes(*b"vector repo id 1"),
        format_hash: [0xf0; 32],
        generation: 300,
        cipher: 1,
        owner_key: [0x0e; 32],
        domains: vec![
            domain(0, 1, DomainOrigin::Derived, "default"),
            domain(0, 2, DomainOrigin::Derived, "default"),
            domain(7, 1, DomainOrigin::External, "customer 7"),
        ],
        pack_bytes: 32 << 20,
        chunker: ChunkerSettings {
            algorithm: 1,
            normalisation: 2,
            bytes_min: 4096,
            bytes_avg: 16_384,
            bytes_max: 65_536,
        },
        aligned_bytes: 65_536,
        parity: Some(Parity { data: 100, recovery: 5 }),
        previous: Some(ObjectHash::from_bytes([0xcf; 32])),
        revoked: vec![(WriterId::from_bytes([0xbd; 16]), TIME_MS)],
        previous_root: Some(core::array::from_fn(|index| u8::try_from(index).unwrap())),
    }
}

fn config_case() -> Value {
    let config = config();
    let domains: Vec<Value> = config
        .domains
        .iter()
        .map(|domain| {
            json!({
                "id": domain.id,
                "epoch": domain.epoch,
                "public_key": hex(&domain.public_key),
                "origin": u8::from(domain.origin == DomainOrigin::External),
                "name": domain.name,
            })
        })
        .collect();
    json!({
        "repository_id": config.repository.to_hex(),
        "format_hash": hex(&config.format_hash),
        "generation": config.generation,
        "cipher": config.cipher,
        "owner_key": hex(&config.owner_key),
        "domains": domains,
        "pack_bytes": config.pack_bytes,
        "chunker": [1, 2, 4096, 16_384, 65_536],
        "aligned_bytes": config.aligned_bytes,
        "parity": [100, 5],
        "previous": config.previous.map(|hash| hash.to_hex()),
        "revoked": [{ "writer_id": config.revoked[0].0.to_hex(), "time_ms": config.revoked[0].1 }],
        "previous_root": config.previous_root.map(|root| hex(&root)),
        "record": encoded(&config, Config::encode, Config::decode),
    })
}

fn snapshot_case() -> Value {
    let snapshot = Snapshot {
        started_ms: TIME_MS - 1000,
        finished_ms: TIME_MS,
        job: "nightly".to_owned(),
        host: "db1".to_owned(),
        user: "postgres".to_owned(),
        paths: vec![b"/var/lib/postgresql".to_vec(), b"/etc/\xff".to_vec()],
        tags: vec!["monthly".to_owned()],
        root: ChunkId::from_bytes([0x20; 32]),
        sequence: 42,
        session: SessionId::from_bytes([0x5e; 16]),
        previous: Some(SnapshotId::from_bytes([0x41; 32])),
        parents: vec![SnapshotId::from_bytes([0x41; 32]), SnapshotId::from_bytes([0x40; 32])],
        statistics: Statistics {
            files: 1,
            directories: 2,
            others: 3,
            bytes_total: 1 << 40,
            bytes_read: 5,
            bytes_new: 6,
            bytes_stored: 7,
            unread: 0,
        },
        program: "cairn 0.1.0".to_owned(),
        sources: vec![SourceRecord {
            kind: SourceKind::Command,
            name: "dump.sql".to_owned(),
            argv: vec![b"pg_dump".to_vec(), b"-Fp".to_vec()],
        }],
        excludes: vec!["*.tmp".to_owned()],
        remade: None,
    };
    let remade = Snapshot {
        remade: Some(Remade {
            certificate: certificate().encode(),
            time_ms: TIME_MS + 7,
            former: vec![SnapshotId::from_bytes([0x43; 32]), SnapshotId::from_bytes([0x44; 32])],
        }),
        ..snapshot.clone()
    };
    json!({
        "started_ms": snapshot.started_ms,
        "finished_ms": snapshot.finished_ms,
        "job": snapshot.job,
        "host": snapshot.host,
        "user": snapshot.user,
        "paths": snapshot.paths.iter().map(|path| hex(path)).collect::<Vec<_>>(),
        "tags": snapshot.tags,
        "root": snapshot.root.to_hex(),
        "sequence": snapshot.sequence,
        "session": snapshot.session.to_hex(),
        "previous": snapshot.previous.map(|id| id.to_hex()),
        "parents": snapshot.parents.iter().map(SnapshotId::to_hex).collect::<Vec<_>>(),
        "statistics": [1, 2, 3, 1_u64 << 40, 5, 6, 7, 0],
        "program": snapshot.program,
        "sources": [{ "kind": 2, "name": "dump.sql", "argv_ascii": ["pg_dump", "-Fp"] }],
        "excludes": snapshot.excludes,
        "record": encoded(&snapshot, Snapshot::encode, Snapshot::decode),
        "remade_time_ms": TIME_MS + 7,
        "former": [hex(&[0x43; 32]), hex(&[0x44; 32])],
        "former_certificate": hex(&certificate().encode()),
        "record_remade": encoded(&remade, Snapshot::encode, Snapshot::decode),
    })
}

fn ack_case() -> Value {
    let ack = Ack {
        snapshot: SnapshotId::from_bytes([0x42; 32]),
        time_ms: TIME_MS,
        tombs_digest: [0x70; 32],
        session: SessionId::from_bytes([0x5e; 16]),
    };
    json!({
        "snapshot": ack.snapshot.to_hex(),
        "time_ms": ack.time_ms,
        "tombs_digest": hex(&ack.tombs_digest),
        "session": ack.session.to_hex(),
        "record": encoded(&ack, Ack::encode, Ack::decode),
    })
}

fn lease_case() -> Value {
    let lease = Lease {
        session: SessionId::from_bytes([0x5e; 16]),
        writer: WriterId::from_bytes([0xbd; 16]),
        host: "db1".to_owned(),
        pid: 4_000_000,
        operation: "backup".to_owned(),
        started_ms: TIME_MS,
        renewed_ms: TIME_MS + 60_000,
        ttl_ms: 600_000,
    };
    json!({
        "session": lease.session.to_hex(),
        "writer_id": lease.writer.to_hex(),
        "host": lease.host,
        "pid": lease.pid,
        "operation": lease.operation,
        "started_ms": lease.started_ms,
        "renewed_ms": lease.renewed_ms,
        "ttl_ms": lease.ttl_ms,
        "record": encoded(&lease, Lease::encode, Lease::decode),
    })
}

fn tomb_case() -> Value {
    let id = |byte| PackId::from_bytes([byte; 32]);
    let tomb = Tomb {
        time_ms: TIME_MS,
        packs: vec![(PackKind::Data, id(9)), (PackKind::Tree, id(1)), (PackKind::Tree, id(2))],
        reason: TombReason::Repacked,
        replacements: vec![id(3)],
        session: SessionId::from_bytes([0x5e; 16]),
    };
    let packs = tomb.packs.iter().map(|(kind, id)| json!([kind.to_byte(), id.to_hex()]));
    json!({
        "time_ms": tomb.time_ms,
        "packs": packs.collect::<Vec<_>>(),
        "reason": 2,
        "replacements": [tomb.replacements[0].to_hex()],
        "session": tomb.session.to_hex(),
        "record": encoded(&tomb, Tomb::encode, Tomb::decode),
    })
}

fn certificate() -> Certificate {
    Certificate {
        role: Role::Maintainer,
        public_key: [0x3a; 32],
        issued_ms: TIME_MS,
        name: "gc".to_owned(),
        signature: [0x51; 64],
    }
}

fn receipt_case() -> Value {
    let record = ReceiptRecord {
        sequence: 2,
        previous: Some(ObjectHash::from_bytes([0x0c; 32])),
        replica: ReplicaId::from_bytes([0x4e; 16]),
        deleted: vec![
            ObjectName::Pack(PackKind::Data, PackId::from_bytes([9; 32])),
            ObjectName::Snapshot {
                time_ms: 1_767_225_600_000,
                id: SnapshotId::from_bytes([4; 32]),
            },
        ],
        audits: vec![Audit {
            time_ms: TIME_MS,
            method: AuditMethod::ByVersionListing,
            result: AuditResult::Gone,
        }],
        time_ms: TIME_MS,
        note: Some("30 days".to_owned()),
    };
    let receipt = Receipt {
        repository: RepositoryId::from_bytes(*b"vector repo id 1"),
        certificate: certificate().encode(),
        record: record.clone(),
        signature: [0x52; 64],
    };
    json!({
        "sequence": record.sequence,
        "previous": record.previous.map(|hash| hash.to_hex()),
        "replica": record.replica.to_hex(),
        "deleted": record.deleted.iter().map(ObjectName::to_string).collect::<Vec<_>>(),
        "audits": [[TIME_MS, 3, 1]],
        "time_ms": record.time_ms,
        "note": record.note,
        "record": encoded(&record, ReceiptRecord::encode, ReceiptRecord::decode),
        "object_with_signatures_that_do_not_verify":
            encoded(&receipt, Receipt::encode, |bytes| Receipt::parse(bytes).map(|(read, _)| read)),
    })
}

fn replica_case() -> Value {
    let replica = Replica {
        repository: RepositoryId::from_bytes(*b"vector repo id 1"),
        replica: ReplicaId::from_bytes([0x4e; 16]),
        created_ms: TIME_MS,
        description: Some("second data centre".to_owned()),
    };
    json!({
        "repository_id": replica.repository.to_hex(),
        "replica": replica.replica.to_hex(),
        "created_ms": replica.created_ms,
        "description": replica.description,
        "object": encoded(&replica, Replica::encode, Replica::parse),
    })
}

#[test]
fn records() {
    let computed = json!({
        "config": config_case(),
        "snapshot": snapshot_case(),
        "ack": ack_case(),
        "lease": lease_case(),
        "tomb": tomb_case(),
        "receipt": receipt_case(),
        "replica": replica_case(),
    });
    check("records.json", &computed);
}

fn frames() -> Vec<FrameDescription> {
    let chunk = |byte, bytes| ChunkRef { id: ChunkId::from_bytes([byte; 32]), bytes };
    vec![
        FrameDescription {
            codec: Codec::Stored,
            sealed_bytes: 5016,
            chunks: vec![chunk(1, 4096), chunk(2, 904)],
            bases: Vec::new(),
        },
        FrameDescription {
            codec: Codec::Zstd,
            sealed_bytes: 300,
            chunks: vec![chunk(3, 1 << 20), chunk(4, 1)],
            bases: vec![chunk(2, 904), chunk(1, 4096)],
        },
    ]
}

fn frames_case() -> Value {
    let list = |chunks: &[ChunkRef]| {
        chunks.iter().map(|chunk| json!([chunk.id.to_hex(), chunk.bytes])).collect::<Vec<_>>()
    };
    let frame = |frame: &FrameDescription| {
        json!({
            "codec": frame.codec.to_byte(),
            "sealed_bytes": frame.sealed_bytes,
            "plain_bytes": frame.plain_bytes(),
            "chunks": list(&frame.chunks),
            "bases": list(&frame.bases),
        })
    };
    frames().iter().map(frame).collect()
}

#[test]
fn packs() {
    let directory = Directory {
        certificate: certificate().encode(),
        session: SessionId::from_bytes([0x5e; 16]),
        frames: frames(),
    };
    let segment = Segment {
        level: 3,
        replaces: vec![SegmentId::from_bytes([0x5a; 32]), SegmentId::from_bytes([0x5b; 32])],
        packs: vec![PackSection {
            id: PackId::from_bytes([0x9a; 32]),
            kind: PackKind::Tree,
            domain: 7,
            epoch: 2,
            bytes: 6144,
            namespace: WriterId::from_bytes([0xbd; 16]),
            session: SessionId::from_bytes([0x5e; 16]),
            frames: frames(),
        }],
    };
    let locator =
        Locator { frames_end: 5508, directory_offset: 5600, directory_bytes: 496, frames: 2 };
    let layout = ParityLayout { protected_bytes: 6144, shard_bytes: 640, data: 10, recovery: 2 };
    let parity = ParityFooter { layout, hashes_check: [0x0f; 16] };
    let computed = json!({
        "frames": frames_case(),
        "directory": {
            "certificate": hex(&directory.certificate),
            "session": directory.session.to_hex(),
            "plaintext_without_signature":
                encoded(&directory, Directory::encode, Directory::decode),
        },
        "segment": {
            "level": segment.level,
            "replaces": segment.replaces.iter().map(SegmentId::to_hex).collect::<Vec<_>>(),
            "packs": [{
                "name": segment.packs[0].id.to_hex(),
                "kind": 2,
                "domain": 7,
                "epoch": 2,
                "bytes": 6144,
                "namespace": segment.packs[0].namespace.to_hex(),
                "session": segment.packs[0].session.to_hex(),
            }],
            "record": encoded(&segment, Segment::encode, Segment::decode),
        },
        "locator": {
            "pack_bytes": 6144,
            "frames_end": 5508,
            "directory_offset": 5600,
            "directory_bytes": 496,
            "frames": 2,
            "plaintext": encoded(
                &locator,
                |locator| locator.encode().to_vec(),
                |bytes| Locator::decode(bytes, 6144),
            ),
        },
        "parity_footer": {
            "object_bytes": layout.object_bytes(),
            "protected_bytes": 6144,
            "shard_bytes": 640,
            "data": 10,
            "recovery": 2,
            "hashes_check": hex(&parity.hashes_check),
            "footer": encoded(
                &parity,
                |footer| footer.encode(hash),
                |bytes| ParityFooter::decode(bytes, hash),
            ),
        },
    });
    check("packs.json", &computed);
}

fn entry(name: &str, node: Node) -> Entry {
    let mtime = Timestamp { seconds: 1_600_000_000, nanoseconds: 123_456_789 };
    let meta = Meta { mode: 0o644, uid: 1000, gid: 100, mtime, ..Meta::default() };
    Entry { name: name.as_bytes().to_vec(), node, meta }
}

fn entries() -> Vec<Entry> {
    let id = |byte| ChunkId::from_bytes([byte; 32]);
    let inline = vec![
        Extent::Chunk { id: id(1), bytes: 5000 },
        Extent::Hole { bytes: 1 << 33 },
        Extent::Chunk { id: id(2), bytes: 1 << 20 },
    ];
    let bytes = inline.iter().map(Extent::bytes).sum();
    let mut full = entry("c-file", Node::File(Content { bytes, extents: Extents::Inline(inline) }));
    full.meta.mode = 0o6755;
    full.meta.user = Some("postgres".to_owned());
    full.meta.group = Some("users".to_owned());
    full.meta.mtime = Timestamp { seconds: -1, nanoseconds: 999_999_999 };
    full.meta.link = Some(LinkGroup { device: 66, inode: u64::MAX });
    full.meta.xattrs = vec![
        Xattr { name: b"user.a".to_vec(), value: Vec::new() },
        Xattr { name: b"user.b".to_vec(), value: b"\0\xff".to_vec() },
    ];
    let tree = Content { bytes: 1 << 40, extents: Extents::Tree(id(3)) };
    let nothing = Content { bytes: 0, extents: Extents::Inline(Vec::new()) };
    vec![
        entry("a-block", Node::BlockDevice { major: 7, minor: 300 }),
        entry("b-char", Node::CharDevice { major: 1, minor: 3 }),
        full,
        entry("d-large", Node::File(tree)),
        entry("e-empty", Node::File(nothing)),
        entry("f-directory", Node::Directory(id(4))),
        entry("g-fifo", Node::Fifo),
        entry("h-link", Node::Symlink(b"../anywhere".to_vec())),
        entry("i-socket", Node::Socket),
    ]
}

fn entry_case(entry: &Entry) -> Value {
    let meta = &entry.meta;
    let xattrs = meta.xattrs.iter().map(|one| json!([hex(&one.name), hex(&one.value)]));
    let content = match &entry.node {
        Node::File(Content { bytes, extents: Extents::Tree(node) }) => {
            json!({ "bytes": bytes, "extent_node": node.to_hex() })
        }
        Node::File(Content { bytes, extents: Extents::Inline(extents) }) => {
            json!({ "bytes": bytes, "extents": extents_case(extents) })
        }
        Node::Directory(node) => json!({ "directory_node": node.to_hex() }),
        Node::Symlink(target) => json!({ "target": hex(target) }),
        Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
            json!({ "device": [major, minor] })
        }
        Node::Fifo | Node::Socket => json!({}),
    };
    json!({
        "kind": entry.encode()[0],
        "name": hex(&entry.name),
        "mode": meta.mode,
        "uid": meta.uid,
        "gid": meta.gid,
        "user": meta.user,
        "group": meta.group,
        "mtime": [meta.mtime.seconds, meta.mtime.nanoseconds],
        "link": meta.link.map(|link| [link.device, link.inode]),
        "xattrs": xattrs.collect::<Vec<_>>(),
        "content": content,
        "entry": encoded(entry, Entry::encode, Entry::decode),
    })
}

fn extents_case(extents: &[Extent]) -> Value {
    let extent = |extent: &Extent| match extent {
        Extent::Chunk { id, bytes } => json!([bytes, id.to_hex()]),
        Extent::Hole { bytes } => json!([bytes, null]),
    };
    extents.iter().map(extent).collect()
}

#[test]
fn tree() {
    let id = |byte| ChunkId::from_bytes([byte; 32]);
    let leaf = DirectoryNode::Leaf(entries());
    let child = |name: &str, byte, entries| DirectoryChild {
        first_name: name.as_bytes().to_vec(),
        node: id(byte),
        entries,
    };
    let inner =
        DirectoryNode::Inner { level: 2, children: vec![child("a", 1, 300), child("b", 2, 1)] };
    let extents = vec![
        Extent::Hole { bytes: 4096 },
        Extent::Chunk { id: id(1), bytes: 1 },
        Extent::Chunk { id: id(1), bytes: 1 },
    ];
    let extent_leaf = ExtentNode::Leaf(extents.clone());
    let extent_inner = ExtentNode::Inner {
        level: 1,
        children: vec![
            ExtentChild { node: id(5), bytes: 4098 },
            ExtentChild { node: id(6), bytes: (1 << 62) - 4098 },
        ],
    };
    let node = |node: &DirectoryNode| encoded(node, DirectoryNode::encode, DirectoryNode::decode);
    let extent_node = |node: &ExtentNode| encoded(node, ExtentNode::encode, ExtentNode::decode);
    let computed = json!({
        "entries": entries().iter().map(entry_case).collect::<Vec<_>>(),
        "directory_leaf_of_these_entries": node(&leaf),
        "empty_directory": node(&DirectoryNode::Leaf(Vec::new())),
        "directory_inner": {
            "level": 2,
            "children": [["61", id(1).to_hex(), 300], ["62", id(2).to_hex(), 1]],
            "node": node(&inner),
        },
        "extent_leaf": { "extents": extents_case(&extents), "node": extent_node(&extent_leaf) },
        "extent_inner": {
            "level": 1,
            "children": [[id(5).to_hex(), 4098], [id(6).to_hex(), (1_u64 << 62) - 4098]],
            "node": extent_node(&extent_inner),
        },
    });
    check("tree.json", &computed);
}
