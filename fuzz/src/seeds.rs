//! Small valid inputs to start from, one function for each target. They are committed, so that
//! a run needs nothing built before; a test keeps them in step with the format.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cairn_engine::seal::derive::Grant;
use cairn_engine::seal::slot::{NewSlot, create_slot};
use cairn_engine::seal::{Identity, Kind, Lock, Role, SecretBytes, SeededRandom};
use cairn_format::codec::Writer;
use cairn_format::envelope::{HEADER_BYTES, pad_body};
use cairn_format::format_object::FormatObject;
use cairn_format::ids::{
    ChunkId, ObjectHash, PackId, ReplicaId, SegmentId, SessionId, SlotId, SnapshotId, WriterId,
};
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::node::{DirectoryChild, DirectoryNode, ExtentChild, ExtentNode, encode_content};
use cairn_format::pack::{ChunkRef, Codec, Directory, FrameDescription, Locator, encode_frames};
use cairn_format::parity::{ParityFooter, ParityLayout};
use cairn_format::receipt::{Audit, AuditMethod, AuditResult, Receipt, ReceiptRecord, Replica};
use cairn_format::record::{
    Ack, ChunkerSettings, Config, Domain, DomainOrigin, Lease, Parity, Snapshot, SourceKind,
    SourceRecord, Statistics, Tomb, TombReason,
};
use cairn_format::segment::{PackSection, Segment};
use cairn_format::tree::{
    Content, Entry, Extent, Extents, LinkGroup, Meta, Node, Timestamp, Xattr,
};

use crate::fixture::{KEY_FILE, OWNER, REPOSITORY};
use crate::sealed_objects::OBJECTS;

/// File names and contents of one target's seeds.
pub type Seeds = BTreeMap<String, Vec<u8>>;

fn add(seeds: &mut Seeds, name: &str, selector: u8, bytes: impl AsRef<[u8]>) {
    seeds.insert(name.to_owned(), [&[selector], bytes.as_ref()].concat());
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

fn chunk(byte: u8) -> ChunkId {
    ChunkId::from_bytes([byte; 32])
}

fn written(encode: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    encode(&mut writer);
    writer.into_bytes()
}

fn config() -> Config {
    Config {
        repository: REPOSITORY,
        format_hash: [1; 32],
        generation: 300,
        cipher: 1,
        owner_key: [2; 32],
        domains: vec![Domain {
            id: 0,
            epoch: 1,
            public_key: [3; 32],
            origin: DomainOrigin::Derived,
            name: "default".to_owned(),
        }],
        pack_bytes: 32 << 20,
        chunker: ChunkerSettings {
            algorithm: 1,
            normalisation: 2,
            bytes_min: 64,
            bytes_avg: 256,
            bytes_max: 1024,
        },
        aligned_bytes: 64 << 10,
        parity: Some(Parity { data: 10, recovery: 2 }),
        previous: Some(ObjectHash::from_bytes([4; 32])),
        revoked: vec![(WriterId::from_bytes([5; 16]), -7)],
        previous_root: Some([6; 72]),
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        started_ms: 1_700_000_000_000,
        finished_ms: 1_700_000_060_000,
        job: "nightly".to_owned(),
        host: "db1".to_owned(),
        user: "postgres".to_owned(),
        paths: vec![b"/srv".to_vec(), b"/etc".to_vec()],
        tags: vec!["keep".to_owned()],
        root: chunk(1),
        sequence: 2,
        session: SessionId::from_bytes([2; 16]),
        previous: Some(SnapshotId::from_bytes([3; 32])),
        parents: vec![SnapshotId::from_bytes([3; 32])],
        statistics: Statistics { files: 4, bytes_total: 1 << 40, ..Statistics::default() },
        program: "cairn 0.1.0".to_owned(),
        sources: vec![SourceRecord {
            kind: SourceKind::Command,
            name: "dump".to_owned(),
            argv: vec![b"pg_dump".to_vec(), b"-Fc".to_vec()],
        }],
        excludes: vec!["*.tmp".to_owned()],
        remade: None,
    }
}

fn frame(codec: Codec) -> FrameDescription {
    let chunks = [(1, 100), (2, 65_536)].map(|(id, bytes)| ChunkRef { id: chunk(id), bytes });
    let bases = match codec {
        Codec::Stored => Vec::new(),
        Codec::Zstd => vec![ChunkRef { id: chunk(3), bytes: 4096 }],
    };
    let sealed_bytes = if codec == Codec::Stored { 65_636 + 16 } else { 77 };
    FrameDescription { codec, sealed_bytes, chunks: chunks.to_vec(), bases }
}

fn frames() -> Vec<FrameDescription> {
    vec![frame(Codec::Stored), frame(Codec::Zstd)]
}

fn section() -> PackSection {
    PackSection {
        id: PackId::from_bytes([1; 32]),
        kind: PackKind::Tree,
        domain: 0,
        epoch: 1,
        bytes: 1 << 20,
        namespace: WriterId::from_bytes([2; 16]),
        session: SessionId::from_bytes([3; 16]),
        frames: frames(),
    }
}

fn receipt_record() -> ReceiptRecord {
    ReceiptRecord {
        sequence: 2,
        previous: Some(ObjectHash::from_bytes([3; 32])),
        replica: ReplicaId::from_bytes([4; 16]),
        deleted: vec![ObjectName::Pack(PackKind::Tree, PackId::from_bytes([0xab; 32]))],
        audits: vec![Audit {
            time_ms: -1,
            method: AuditMethod::ByListing,
            result: AuditResult::Gone,
        }],
        time_ms: 5,
        note: Some("note".to_owned()),
    }
}

fn records() -> Seeds {
    let mut seeds = Seeds::new();
    let session = SessionId::from_bytes([2; 16]);
    let ack = Ack {
        snapshot: SnapshotId::from_bytes([1; 32]),
        time_ms: 5,
        tombs_digest: [6; 32],
        session,
    };
    let lease = Lease {
        session,
        writer: WriterId::from_bytes([1; 16]),
        host: "db1".to_owned(),
        pid: 4711,
        operation: "backup".to_owned(),
        started_ms: 1,
        renewed_ms: 2,
        ttl_ms: 60_000,
    };
    let tomb = Tomb {
        time_ms: 1,
        packs: vec![
            (PackKind::Data, PackId::from_bytes([1; 32])),
            (PackKind::Tree, PackId::from_bytes([0; 32])),
        ],
        reason: TombReason::Repacked,
        replacements: vec![PackId::from_bytes([7; 32])],
        session,
    };
    let segment = Segment {
        level: 1,
        replaces: vec![SegmentId::from_bytes([1; 32])],
        packs: vec![section()],
    };
    let receipt = Receipt {
        repository: REPOSITORY,
        certificate: vec![1; 5],
        record: receipt_record(),
        signature: [2; 64],
    };
    let replica = Replica {
        repository: REPOSITORY,
        replica: ReplicaId::from_bytes([1; 16]),
        created_ms: 5,
        description: Some("second site".to_owned()),
    };
    add(&mut seeds, "config", 0, config().encode());
    add(&mut seeds, "snapshot", 1, snapshot().encode());
    let mut newer = snapshot().encode();
    newer.extend_from_slice(&[28, 3, 1, 2, 3]);
    add(&mut seeds, "snapshot-with-unknown-field", 1, newer);
    add(&mut seeds, "ack", 2, ack.encode());
    add(&mut seeds, "lease", 3, lease.encode());
    add(&mut seeds, "tomb", 4, tomb.encode());
    add(&mut seeds, "segment", 5, segment.encode());
    add(&mut seeds, "receipt-record", 6, receipt_record().encode());
    add(&mut seeds, "receipt", 7, receipt.encode());
    add(&mut seeds, "replica", 8, replica.encode());
    seeds
}

fn meta() -> Meta {
    Meta {
        mode: 0o644,
        uid: 1000,
        gid: 100,
        user: Some("user".to_owned()),
        group: Some("users".to_owned()),
        mtime: Timestamp { seconds: 1_700_000_000, nanoseconds: 5 },
        link: Some(LinkGroup { device: 2049, inode: 77 }),
        xattrs: vec![Xattr { name: b"user.a".to_vec(), value: b"value".to_vec() }],
    }
}

fn extents() -> Vec<Extent> {
    vec![Extent::Chunk { id: chunk(1), bytes: 100 }, Extent::Hole { bytes: 900 }]
}

fn file(extents: Extents) -> Node {
    Node::File(Content { bytes: 1000, extents })
}

fn entries() -> Vec<Entry> {
    let nodes = [
        file(Extents::Inline(extents())),
        file(Extents::Tree(chunk(2))),
        Node::Directory(chunk(3)),
        Node::Symlink(b"../target".to_vec()),
        Node::Fifo,
        Node::Socket,
        Node::CharDevice { major: 1, minor: 3 },
        Node::BlockDevice { major: 8, minor: 300 },
    ];
    let entry = |(number, node): (u8, Node)| {
        let link = meta().link.filter(|_| !matches!(node, Node::Directory(_)));
        let meta = if number < 4 { Meta { link, ..meta() } } else { Meta::default() };
        Entry { name: vec![b'a' + number], node, meta }
    };
    (0..).zip(nodes).map(entry).collect()
}

fn directory_inner() -> DirectoryNode {
    let child =
        |byte: u8| DirectoryChild { first_name: vec![byte], node: chunk(byte), entries: 500 };
    DirectoryNode::Inner { level: 1, children: vec![child(b'a'), child(b'm')] }
}

fn tree_nodes() -> Seeds {
    let mut seeds = Seeds::new();
    let child = |byte| ExtentChild { node: chunk(byte), bytes: 1 << 20 };
    let content = |extents| written(|w| encode_content(&Content { bytes: 1000, extents }, w));
    add(&mut seeds, "leaf", 0, DirectoryNode::Leaf(entries()).encode());
    add(&mut seeds, "leaf-empty", 0, DirectoryNode::Leaf(Vec::new()).encode());
    add(&mut seeds, "inner", 0, directory_inner().encode());
    add(&mut seeds, "extent-leaf", 1, ExtentNode::Leaf(extents()).encode());
    let inner = ExtentNode::Inner { level: 2, children: vec![child(1), child(2)] };
    add(&mut seeds, "extent-inner", 1, inner.encode());
    for (entry, kind) in entries().iter().zip(["file", "tree", "dir", "link", "fifo", "socket"]) {
        add(&mut seeds, &format!("entry-{kind}"), 2, entry.encode());
    }
    add(&mut seeds, "content-inline", 3, content(Extents::Inline(extents())));
    add(&mut seeds, "content-tree", 3, content(Extents::Tree(chunk(1))));
    for selector in 4..=6 {
        let bytes = (0..=255).collect::<Vec<u8>>();
        add(&mut seeds, &format!("made-up-{selector}"), selector, bytes);
        add(&mut seeds, &format!("many-{selector}"), selector, [0xa5; 300]);
    }
    seeds
}

fn pack_parts() -> Seeds {
    let mut seeds = Seeds::new();
    let session = SessionId::from_bytes([3; 16]);
    let directory = Directory { certificate: vec![1; 5], session, frames: frames() };
    let locator =
        Locator { frames_end: 300, directory_offset: 400, directory_bytes: 100, frames: 2 };
    let layout = ParityLayout { protected_bytes: 1024, shard_bytes: 128, data: 8, recovery: 2 };
    let footer = ParityFooter { layout, hashes_check: [7; 16] };
    let with_length = |length: u64, bytes: &[u8]| [&length.to_le_bytes(), bytes].concat();
    add(&mut seeds, "frame-stored", 0, written(|w| frame(Codec::Stored).encode(w)));
    add(&mut seeds, "frame-zstd", 0, written(|w| frame(Codec::Zstd).encode(w)));
    add(&mut seeds, "frames", 1, written(|w| encode_frames(&frames(), w)));
    add(&mut seeds, "directory", 2, directory.encode());
    add(&mut seeds, "locator", 3, with_length(548, &locator.encode()));
    add(&mut seeds, "section", 4, written(|w| section().encode(w)));
    add(&mut seeds, "parity", 5, footer.encode(hash));
    add(&mut seeds, "made-up", 6, (0..=255).collect::<Vec<u8>>());
    seeds
}

fn parity() -> Seeds {
    let mut seeds = Seeds::new();
    let changes = [0, 0, 0, 1, 0x10, 0x20, 0, 0xff, 0xff, 0xff, 3, 1];
    add(&mut seeds, "sound", 0, [40, 0, 9, 2, 0, 0, 0, 0]);
    add(&mut seeds, "changed", 0, [&[40, 0, 9, 2, 0, 0, 0, 0], changes.as_slice()].concat());
    add(&mut seeds, "cut", 0, [200, 1, 30, 6, 0x10, 0x20, 0, 0]);
    add(&mut seeds, "hostile", 1, [0; 200]);
    seeds
}

/// The field list of a key slot's payload, as SPEC section 3.1 says.
fn payload(role: Role) -> Vec<u8> {
    let grant = Grant { role, domains: &[(0, 1)], name: "fuzz", issued_ms: 1 };
    let payload = OWNER.grant(&grant, &SeededRandom::new(2)).expect("the owner may");
    crate::plain_objects::payload_bytes(&payload)
}

fn plain_objects() -> Seeds {
    let mut seeds = Seeds::new();
    let hash = |bytes: &[u8]| *blake3::hash(bytes).as_bytes();
    let format = FormatObject {
        required_features: 0,
        optional_features: 1,
        repository: REPOSITORY,
        created_ms: 5,
    };
    add(&mut seeds, "format", 0, format.encode(hash));
    for object in OBJECTS.iter().take(2) {
        let header = &object.object[..HEADER_BYTES];
        add(&mut seeds, &format!("header-{}", object.kind as u8), 1, header);
    }
    let identity = Identity::generate(&SeededRandom::new(5)).expect("seeded");
    let material = SecretBytes::new(KEY_FILE.to_vec());
    let locks = [
        ("file", Lock::KeyFile(material.clone())),
        ("command", Lock::CommandOutput(material)),
        ("recipient", Lock::Recipient(identity.recipient())),
    ];
    let owner = OWNER.own_payload().expect("an owner's keys");
    for (name, lock) in locks {
        let new = NewSlot { repository: REPOSITORY, created_ms: 0, label: name };
        let slot = create_slot(&new, &owner, &lock, &SeededRandom::new(6)).expect("a short label");
        add(&mut seeds, &format!("slot-head-{name}"), 2, &slot[..256]);
        // Damaged, because a slot that opens would be taken for a forged one.
        let mut damaged = slot;
        *damaged.last_mut().expect("it is not empty") ^= 1;
        add(&mut seeds, &format!("slot-{name}"), 3, damaged);
    }
    for role in Role::ALL {
        let bytes = [&[role as u8], payload(role).as_slice()].concat();
        add(&mut seeds, &format!("payload-{role}"), 4, bytes);
    }
    let certificate = OWNER.signer().expect("owners sign").certificate().encode();
    add(&mut seeds, "certificate", 5, certificate);
    let object = ObjectHash::from_bytes([0xcd; 32]);
    let snapshot = SnapshotId::from_bytes([0xab; 32]);
    for name in [
        ObjectName::Format,
        ObjectName::Config(object),
        ObjectName::Key(SlotId::from_bytes([1; 32])),
        ObjectName::Pack(PackKind::Data, PackId::from_bytes([0xef; 32])),
        ObjectName::Index(SegmentId::from_bytes([2; 32])),
        ObjectName::Snapshot { time_ms: 1_700_000_000_000, id: snapshot },
        ObjectName::Ack { snapshot, hash: object },
        ObjectName::Lease { session: SessionId::from_bytes([3; 16]), hash: object },
        ObjectName::Tomb { time_ms: u64::MAX, hash: object },
        ObjectName::Receipt { sequence: 1, hash: object },
        ObjectName::Replica(object),
    ] {
        let text = name.to_string();
        let file = format!("name-{}", text.split('/').next().unwrap_or_default());
        add(&mut seeds, &file, 6, &text);
    }
    add(&mut seeds, "id-bytes", 7, [9; 32]);
    add(&mut seeds, "id-text", 7, chunk(0xa9).to_hex());
    add(&mut seeds, "recipient", 8, identity.recipient().to_string());
    add(&mut seeds, "identity", 8, identity.to_text().as_bytes());
    seeds
}

fn sealed_objects() -> Seeds {
    let mut seeds = Seeds::new();
    add(&mut seeds, "changed", 0, [0, 9, 0, 10, 1, 2, 200, 0, 1, 100, 3, 0, 0, 9]);
    add(&mut seeds, "unchanged", 0, []);
    for (index, object) in (0_u8..).zip(OBJECTS.iter()) {
        let kind = object.kind as u8;
        if object.kind == Kind::Tomb || object.kind == Kind::Ack {
            add(&mut seeds, &format!("object-{kind}-{index}"), 1, &object.object);
            let body = [&[index], &object.object[HEADER_BYTES..]].concat();
            add(&mut seeds, &format!("body-{kind}-{index}"), 2, body);
            let content = [&[index], object.content.as_slice()].concat();
            add(&mut seeds, &format!("content-{kind}-{index}"), 3, content);
        }
        for role in Role::ALL {
            let name = format!("signed-{kind}-{index}-{role}");
            add(&mut seeds, &name, 4, [&[index, role as u8], b"record".as_slice()].concat());
        }
    }
    let certificate = OWNER.signer().expect("owners sign").certificate().encode();
    let session = SessionId::from_bytes([3; 16]);
    let directory = Directory { certificate, session, frames: frames() };
    // Kind, cipher, locator, four times "honest", length of the frames, range; at the end of the
    // input, because numbers are taken from there, nothing.
    let head = [&[0, 0][..], &[0; 32], &[1; 4], &[0, 0], &[0; 8]].concat();
    add(&mut seeds, "pack", 5, [head.as_slice(), &directory.encode()].concat());
    for role in Role::ALL {
        let bytes = [&[role as u8], receipt_record().encode().as_slice()].concat();
        add(&mut seeds, &format!("receipt-{role}"), 6, bytes);
    }
    let padded = pad_body(Kind::Index, &[7; 100], 0).expect("a short content");
    add(&mut seeds, "padded", 7, padded);
    seeds
}

fn frames_target() -> Seeds {
    let mut seeds = Seeds::new();
    let compressed = zstd::bulk::compress(&b"customer,order\n".repeat(40), 3).expect("memory");
    let head = [&[1][..], &600_u32.to_le_bytes(), &[0, 0]].concat();
    add(&mut seeds, "hostile-zstd", 0, [head.as_slice(), &compressed].concat());
    let head = [&[1][..], &600_u32.to_le_bytes(), &[5, 0], b"order"].concat();
    add(&mut seeds, "hostile-prefix", 0, [head.as_slice(), &compressed].concat());
    add(&mut seeds, "hostile-stored", 0, [&[0, 3, 0, 0, 0, 0, 0][..], b"abc"].concat());
    add(&mut seeds, "plain", 1, b"\x08customer,order\n");
    let noise = blake3::hash(b"noise");
    add(&mut seeds, "long", 1, [&[255][..], &noise.as_bytes().repeat(16)].concat());
    add(&mut seeds, "base", 2, [&[7, 0, 3][..], noise.as_bytes()].concat());
    add(&mut seeds, "changed", 3, b"\x05\x00\x01\x20customer,order\n");
    seeds
}

fn texts() -> Seeds {
    let mut seeds = Seeds::new();
    let noise = blake3::hash(b"noise").as_bytes().repeat(100);
    add(&mut seeds, "cutting", 0, noise);
    let with_length = |length: u64, bytes: &[u8]| [&length.to_le_bytes(), bytes].concat();
    let heads: [(&str, &[u8]); 6] = [
        ("sqlite", b"SQLite format 3\0\x10\x00"),
        ("qcow", b"QFI\xfb\x00\x00\x00\x03"),
        ("vmdk", b"KDMV\x01\x00\x00\x00\x03\x00\x00\x00"),
        ("luks", b"LUKS\xba\xbe"),
        ("xfs", b"XFSB"),
        ("vhd", b"conectix"),
    ];
    for (name, head) in heads {
        add(&mut seeds, &format!("profile-{name}"), 1, with_length(1 << 20, head));
    }
    let mut page = vec![0xa7; 4096];
    page[..20].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 32, 0, 0, 15, 0, 16, 4, 16]);
    add(&mut seeds, "profile-postgresql", 1, with_length(4096, &page));
    let mut disk = vec![0; 512];
    disk[446..462].copy_from_slice(&[0, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0, 1, 0]);
    disk[510..].copy_from_slice(&[0x55, 0xaa]);
    add(&mut seeds, "profile-disk", 1, with_length(1 << 20, &disk));
    add(&mut seeds, "roots-lines", 2, "/srv/a b\n/etc\n");
    add(&mut seeds, "roots-zeros", 2, "/srv/a\nb\0/etc\0");
    for (name, text) in [
        ("id", "0123abcd:/srv"),
        ("back", "latest~1"),
        ("job", "job:nightly~2:/a:/b"),
        ("time", "@2026-07-27T10:30:00Z"),
        ("civil", "@2026-07-27 10:30:00"),
        ("date", "@2026-07-27"),
    ] {
        add(&mut seeds, &format!("selector-{name}"), 3, text);
    }
    for (name, text) in [
        ("path", "relative/dir"),
        ("file", "file:///with%20space%25"),
        ("host", "FILE://localhost/backup"),
        ("memory", "memory://"),
        ("s3", "s3://bucket/some/prefix/"),
        ("sftp", "sftp://user@host:22/path"),
        ("secret", "webdav://user:password@host/"),
        ("query", "azblob://container/x?sig=1"),
    ] {
        add(&mut seeds, &format!("location-{name}"), 4, text);
    }
    add(&mut seeds, "names", 5, "a\n..\n.\nb/c\n\n\u{fc}\nx\0y\n...");
    add(&mut seeds, "fingerprint", 6, [3; 48]);
    add(&mut seeds, "patterns", 7, "*.tmp\n!keep\n/a/b\n**/x/y\na??[b-d]\n{x,y}\n#d\ncache/");
    seeds
}

fn hostile_tree() -> Seeds {
    let mut seeds = Seeds::new();
    for (name, step) in [("a", 1_u32), ("b", 7), ("c", 37), ("d", 101)] {
        let bytes = (0..500).map(|number: u32| (number * step * step / 3) as u8);
        seeds.insert(name.to_owned(), bytes.collect());
    }
    // One node, of the kind "deep"; nothing to pick; the word for "to the limit".
    seeds.insert("deep".to_owned(), vec![7, 0, 0xe9, 0xde, 128, 0]);
    // One node, of the kind "overlapping"; 8 levels.
    seeds.insert("overlapping".to_owned(), vec![0, 8, 7]);
    seeds
}

/// Every target with its seeds.
pub fn all() -> Vec<(&'static str, Seeds)> {
    vec![
        ("records", records()),
        ("tree_nodes", tree_nodes()),
        ("pack_parts", pack_parts()),
        ("parity", parity()),
        ("plain_objects", plain_objects()),
        ("sealed_objects", sealed_objects()),
        ("frames", frames_target()),
        ("texts", texts()),
        ("hostile_tree", hostile_tree()),
    ]
}

/// Where seeds and regressions of a target lie.
pub fn folder(of: &str, target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(of).join(target)
}

#[test]
#[ignore = "writes the seeds anew, after the format changed"]
fn write_seeds() {
    for (target, seeds) in all() {
        let folder = folder("seeds", target);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).unwrap();
        }
        std::fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in seeds {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
}

#[test]
fn the_committed_seeds_are_those_of_this_format() {
    for (target, seeds) in all() {
        for (name, bytes) in &seeds {
            let file = folder("seeds", target).join(name);
            assert!(std::fs::read(&file).unwrap() == *bytes, "{}", file.display());
        }
        let files = std::fs::read_dir(folder("seeds", target)).unwrap().count();
        assert_eq!(files, seeds.len(), "{target}");
    }
}

/// A seed that nothing decodes would start from nothing.
#[test]
fn seeds_decode() {
    assert!(Config::decode(&records()["config"][1..]).is_ok());
    assert!(Snapshot::decode(&records()["snapshot"][1..]).is_ok());
    assert!(Segment::decode(&records()["segment"][1..]).is_ok());
    assert!(Receipt::parse(&records()["receipt"][1..]).is_ok());
    assert!(DirectoryNode::decode(&tree_nodes()["leaf"][1..]).is_ok());
    assert!(DirectoryNode::decode(&tree_nodes()["inner"][1..]).is_ok());
    assert!(ExtentNode::decode(&tree_nodes()["extent-inner"][1..]).is_ok());
    assert!(Directory::decode(&pack_parts()["directory"][1..]).is_ok());
    assert!(ParityFooter::decode(&pack_parts()["parity"][1..], hash).is_ok());
    for role in Role::ALL {
        let slot = crate::plain_objects::seal_slot(role, &payload(role));
        assert!(crate::plain_objects::opens(&slot), "{role}");
    }
}
