//! Any valid value of every structure, for property tests.

use std::collections::BTreeMap;

use cairn_format::certificate::{Certificate, Role};
use cairn_format::ids::*;
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::node::{DirectoryChild, DirectoryNode, ExtentChild, ExtentNode};
use cairn_format::pack::{ChunkRef, Codec, Directory, FrameDescription};
use cairn_format::receipt::*;
use cairn_format::record::*;
use cairn_format::segment::{PackSection, Segment};
use cairn_format::tree::*;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

fn id<T>(wrap: fn([u8; 32]) -> T) -> impl Strategy<Value = T>
where
    T: core::fmt::Debug,
{
    any::<[u8; 32]>().prop_map(wrap)
}

fn short_id<T>(wrap: fn([u8; 16]) -> T) -> impl Strategy<Value = T>
where
    T: core::fmt::Debug,
{
    any::<[u8; 16]>().prop_map(wrap)
}

fn label() -> impl Strategy<Value = String> {
    "\\PC{0,60}"
}

fn raw(len: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..len)
}

fn pack_kind() -> impl Strategy<Value = PackKind> {
    prop_oneof![Just(PackKind::Data), Just(PackKind::Tree)]
}

pub fn certificate() -> impl Strategy<Value = Certificate> {
    let role = prop_oneof![Just(Role::Owner), Just(Role::Writer), Just(Role::Maintainer)];
    let signature = (any::<[u8; 32]>(), any::<[u8; 32]>());
    (role, any::<[u8; 32]>(), any::<i64>(), label(), signature).prop_map(
        |(role, public_key, issued_ms, name, (first, second))| {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&first);
            signature[32..].copy_from_slice(&second);
            Certificate { role, public_key, issued_ms, name, signature }
        },
    )
}

fn chunker() -> impl Strategy<Value = ChunkerSettings> {
    (0_u8..=3, 32_u32..500, 500_u32..50_000, 50_000_u32..=1 << 19).prop_map(
        |(normalisation, bytes_min, bytes_avg, bytes_max)| ChunkerSettings {
            algorithm: 1,
            normalisation,
            // Even, as the format wants them.
            bytes_min: 2 * bytes_min,
            bytes_avg: 2 * bytes_avg,
            bytes_max: 2 * bytes_max,
        },
    )
}

fn domains() -> impl Strategy<Value = Vec<Domain>> {
    let place = (0..u32::MAX, 1..=u32::MAX);
    let rest = (any::<[u8; 32]>(), any::<bool>(), label());
    btree_map(place, rest, 0..5).prop_map(|mut places: BTreeMap<_, _>| {
        places.entry((0, 1)).or_insert_with(|| ([7; 32], false, String::new()));
        let domain = |((id, epoch), (public_key, external, name))| Domain {
            id,
            epoch,
            public_key,
            origin: if external { DomainOrigin::External } else { DomainOrigin::Derived },
            name,
        };
        places.into_iter().map(domain).collect()
    })
}

pub fn config() -> impl Strategy<Value = Config> {
    let identity = (
        short_id(RepositoryId::from_bytes),
        any::<[u8; 32]>(),
        any::<u64>(),
        1_u8..=2,
        any::<[u8; 32]>(),
    );
    let sizes = (1_u32 << 20..=256 << 20, chunker(), 4096_u32..=1 << 20);
    let parity =
        option::of((1_u16..=32_768, 1_u16..=32_768).prop_map(|(a, b)| (a.max(b), a.min(b))));
    let optional = (
        parity,
        option::of(id(ObjectHash::from_bytes)),
        vec((short_id(WriterId::from_bytes), any::<i64>()), 0..4),
        option::of((any::<[u8; 32]>(), any::<[u8; 32]>())),
    );
    (identity, domains(), sizes, optional).prop_map(|(identity, domains, sizes, optional)| {
        let (repository, format_hash, generation, cipher, owner_key) = identity;
        let (pack_bytes, chunker, aligned_bytes) = sizes;
        let (parity, previous, revoked, root) = optional;
        Config {
            repository,
            format_hash,
            generation,
            cipher,
            owner_key,
            domains,
            pack_bytes,
            chunker,
            aligned_bytes,
            parity: parity.map(|(data, recovery)| Parity { data, recovery }),
            previous,
            revoked,
            previous_root: root.map(|(first, second)| {
                let mut root = [9; 72];
                root[..32].copy_from_slice(&first);
                root[40..].copy_from_slice(&second);
                root
            }),
        }
    })
}

fn statistics() -> impl Strategy<Value = Statistics> {
    any::<[u64; 8]>().prop_map(|[a, b, c, d, e, f, g, h]| Statistics {
        files: a,
        directories: b,
        others: c,
        bytes_total: d,
        bytes_read: e,
        bytes_new: f,
        bytes_stored: g,
        unread: h,
    })
}

fn source() -> impl Strategy<Value = SourceRecord> {
    let kind =
        prop_oneof![Just(SourceKind::Files), Just(SourceKind::Stdin), Just(SourceKind::Command)];
    (kind, label(), vec(raw(20), 0..4)).prop_map(|(kind, name, argv)| SourceRecord {
        kind,
        name,
        argv,
    })
}

fn remade() -> impl Strategy<Value = Remade> {
    (raw(300), any::<i64>(), vec(id(SnapshotId::from_bytes), 1..4))
        .prop_map(|(certificate, time_ms, former)| Remade { certificate, time_ms, former })
}

pub fn snapshot() -> impl Strategy<Value = Snapshot> {
    let times = (any::<i64>(), any::<i64>());
    let labels = (label(), label(), label(), label());
    let lists = (vec(raw(40), 0..5), vec(label(), 0..5), vec(label(), 0..5), vec(source(), 0..3));
    let ids = (
        id(ChunkId::from_bytes),
        short_id(SessionId::from_bytes),
        option::of(id(SnapshotId::from_bytes)),
        vec(id(SnapshotId::from_bytes), 0..4),
    );
    let rest = (any::<u64>(), statistics(), option::of(remade()));
    (times, labels, lists, ids, rest).prop_map(
        |(times, labels, lists, ids, (sequence, statistics, remade))| {
            let (job, host, user, program) = labels;
            let (paths, tags, excludes, sources) = lists;
            let (root, session, previous, parents) = ids;
            Snapshot {
                started_ms: times.0,
                finished_ms: times.1,
                job,
                host,
                user,
                paths,
                tags,
                root,
                sequence,
                session,
                previous,
                parents,
                statistics,
                program,
                sources,
                excludes,
                remade,
            }
        },
    )
}

pub fn ack() -> impl Strategy<Value = Ack> {
    let session = short_id(SessionId::from_bytes);
    (id(SnapshotId::from_bytes), any::<i64>(), any::<[u8; 32]>(), session).prop_map(
        |(snapshot, time_ms, tombs_digest, session)| Ack {
            snapshot,
            time_ms,
            tombs_digest,
            session,
        },
    )
}

pub fn lease() -> impl Strategy<Value = Lease> {
    let who = (short_id(SessionId::from_bytes), short_id(WriterId::from_bytes), any::<u32>());
    (who, label(), label(), any::<i64>(), any::<i64>(), any::<u64>()).prop_map(
        |((session, writer, pid), host, operation, started_ms, renewed_ms, ttl_ms)| Lease {
            session,
            writer,
            host,
            pid,
            operation,
            started_ms,
            renewed_ms,
            ttl_ms,
        },
    )
}

pub fn tomb() -> impl Strategy<Value = Tomb> {
    let reason = prop_oneof![
        Just(TombReason::Unreferenced),
        Just(TombReason::Repacked),
        Just(TombReason::Erased),
        Just(TombReason::Damaged)
    ];
    let packs = btree_set((pack_kind(), id(PackId::from_bytes)), 0..6);
    let replacements = vec(id(PackId::from_bytes), 0..4);
    (any::<i64>(), packs, reason, replacements, short_id(SessionId::from_bytes)).prop_map(
        |(time_ms, packs, reason, replacements, session)| Tomb {
            time_ms,
            packs: packs.into_iter().collect(),
            reason,
            replacements,
            session,
        },
    )
}

pub fn object_name() -> impl Strategy<Value = ObjectName> {
    let hash = || id(ObjectHash::from_bytes);
    prop_oneof![
        Just(ObjectName::Format),
        hash().prop_map(ObjectName::Config),
        id(SlotId::from_bytes).prop_map(ObjectName::Key),
        (pack_kind(), id(PackId::from_bytes)).prop_map(|(kind, id)| ObjectName::Pack(kind, id)),
        id(SegmentId::from_bytes).prop_map(ObjectName::Index),
        (any::<u64>(), id(SnapshotId::from_bytes))
            .prop_map(|(time_ms, id)| ObjectName::Snapshot { time_ms, id }),
        (id(SnapshotId::from_bytes), hash())
            .prop_map(|(snapshot, hash)| ObjectName::Ack { snapshot, hash }),
        (short_id(SessionId::from_bytes), hash())
            .prop_map(|(session, hash)| ObjectName::Lease { session, hash }),
        (any::<u64>(), hash()).prop_map(|(time_ms, hash)| ObjectName::Tomb { time_ms, hash }),
        (any::<u64>(), hash()).prop_map(|(sequence, hash)| ObjectName::Receipt { sequence, hash }),
        hash().prop_map(ObjectName::Replica),
    ]
}

fn audit() -> impl Strategy<Value = Audit> {
    let method = prop_oneof![
        Just(AuditMethod::ByName),
        Just(AuditMethod::ByListing),
        Just(AuditMethod::ByVersionListing)
    ];
    let result = prop_oneof![
        Just(AuditResult::Gone),
        Just(AuditResult::StillThere),
        Just(AuditResult::Unknown)
    ];
    (any::<i64>(), method, result).prop_map(|(time_ms, method, result)| Audit {
        time_ms,
        method,
        result,
    })
}

pub fn receipt() -> impl Strategy<Value = Receipt> {
    let place = (
        short_id(RepositoryId::from_bytes),
        short_id(ReplicaId::from_bytes),
        2..=u64::MAX,
        option::of(any::<[u8; 32]>().prop_filter("not the first", |hash| *hash != [0; 32])),
    );
    let content = (vec(object_name(), 0..4), vec(audit(), 0..4), any::<i64>(), option::of(label()));
    (place, content, certificate()).prop_map(|(place, content, certificate)| {
        let (repository, replica, later, previous) = place;
        let (deleted, audits, time_ms, note) = content;
        let sequence = if previous.is_some() { later } else { 1 };
        let previous = previous.map(ObjectHash::from_bytes);
        let record = ReceiptRecord { sequence, previous, replica, deleted, audits, time_ms, note };
        let signature = certificate.signature;
        Receipt { repository, certificate: certificate.encode(), record, signature }
    })
}

pub fn replica() -> impl Strategy<Value = Replica> {
    let ids = (short_id(RepositoryId::from_bytes), short_id(ReplicaId::from_bytes));
    (ids, any::<i64>(), option::of(label())).prop_map(
        |((repository, replica), created_ms, description)| Replica {
            repository,
            replica,
            created_ms,
            description,
        },
    )
}

fn chunk() -> impl Strategy<Value = ChunkRef> {
    let bytes = prop_oneof![1_u32..=300, Just(4096_u32), 1_u32..=200_000];
    (id(ChunkId::from_bytes), bytes).prop_map(|(id, bytes)| ChunkRef { id, bytes })
}

fn frame() -> impl Strategy<Value = FrameDescription> {
    (vec(chunk(), 1..6), vec(chunk(), 0..4), any::<bool>(), 17_u32..=(2 << 20) + 16).prop_map(
        |(chunks, bases, stored, sealed_bytes)| {
            let plain = chunks.iter().map(|chunk| chunk.bytes).sum::<u32>();
            if stored {
                let (codec, bases) = (Codec::Stored, Vec::new());
                FrameDescription { codec, sealed_bytes: plain + 16, chunks, bases }
            } else {
                FrameDescription { codec: Codec::Zstd, sealed_bytes, chunks, bases }
            }
        },
    )
}

pub fn directory() -> impl Strategy<Value = Directory> {
    (certificate(), short_id(SessionId::from_bytes), vec(frame(), 1..5)).prop_map(
        |(certificate, session, frames)| Directory {
            certificate: certificate.encode(),
            session,
            frames,
        },
    )
}

fn section() -> impl Strategy<Value = PackSection> {
    let ids =
        (id(PackId::from_bytes), short_id(WriterId::from_bytes), short_id(SessionId::from_bytes));
    (ids, pack_kind(), 0..u32::MAX, any::<u32>(), vec(frame(), 1..5), 240_u32..1 << 20).prop_map(
        |((id, namespace, session), kind, domain, epoch, frames, rest)| PackSection {
            id,
            kind,
            domain,
            epoch,
            bytes: frames.iter().map(|frame| frame.sealed_bytes).sum::<u32>() + rest,
            namespace,
            session,
            frames,
        },
    )
}

pub fn segment() -> impl Strategy<Value = Segment> {
    (0_u32..=64, vec(id(SegmentId::from_bytes), 0..4), vec(section(), 0..4))
        .prop_map(|(level, replaces, packs)| Segment { level, replaces, packs })
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 1..20)
        .prop_filter("a path component", |name| cairn_format::node::is_name(name))
}

fn extents(range: core::ops::Range<usize>) -> impl Strategy<Value = Vec<Extent>> {
    let chunk = (id(ChunkId::from_bytes), 1_u32..=1 << 20)
        .prop_map(|(id, bytes)| Extent::Chunk { id, bytes });
    let hole = (1_u64..1 << 50).prop_map(|bytes| Extent::Hole { bytes });
    vec(prop_oneof![chunk, hole], range).prop_map(|mut extents| {
        extents.dedup_by(|next, before| {
            matches!((next, before), (Extent::Hole { .. }, Extent::Hole { .. }))
        });
        extents
    })
}

fn content() -> impl Strategy<Value = Content> {
    let tree = (id(ChunkId::from_bytes), 0_u64..1 << 63)
        .prop_map(|(node, bytes)| Content { bytes, extents: Extents::Tree(node) });
    let inline = extents(0..16).prop_map(|extents| Content {
        bytes: extents.iter().map(Extent::bytes).sum(),
        extents: Extents::Inline(extents),
    });
    prop_oneof![inline, tree]
}

fn node() -> impl Strategy<Value = Node> {
    let target = vec(1_u8..=255, 1..50);
    let device = (any::<u32>(), any::<u32>());
    prop_oneof![
        4 => content().prop_map(Node::File),
        2 => id(ChunkId::from_bytes).prop_map(Node::Directory),
        1 => target.prop_map(Node::Symlink),
        1 => Just(Node::Fifo),
        1 => Just(Node::Socket),
        1 => device.prop_map(|(major, minor)| Node::CharDevice { major, minor }),
        1 => device.prop_map(|(major, minor)| Node::BlockDevice { major, minor }),
    ]
}

fn meta() -> impl Strategy<Value = Meta> {
    let numbers = (0_u32..=0o7777, any::<u32>(), any::<u32>());
    let mtime = (any::<i64>(), 0_u32..=999_999_999)
        .prop_map(|(seconds, nanoseconds)| Timestamp { seconds, nanoseconds });
    let link = option::of((any::<u64>(), any::<u64>()))
        .prop_map(|link| link.map(|(device, inode)| LinkGroup { device, inode }));
    let xattrs = btree_map(vec(1_u8..=255, 1..20), raw(40), 0..3).prop_map(|pairs| {
        pairs.into_iter().map(|(name, value)| Xattr { name, value }).collect::<Vec<_>>()
    });
    (numbers, mtime, link, xattrs, option::of(label()), option::of(label())).prop_map(
        |((mode, uid, gid), mtime, link, xattrs, user, group)| Meta {
            mode,
            uid,
            gid,
            user,
            group,
            mtime,
            link,
            xattrs,
        },
    )
}

pub fn entry() -> impl Strategy<Value = Entry> {
    (name(), node(), meta()).prop_map(|(name, node, mut meta)| {
        if matches!(node, Node::Directory(_)) {
            meta.link = None;
        }
        Entry { name, node, meta }
    })
}

pub fn directory_node() -> impl Strategy<Value = DirectoryNode> {
    let leaf = vec(entry(), 0..6).prop_map(|entries| {
        let named = entries.into_iter().map(|entry| (entry.name.clone(), entry));
        DirectoryNode::Leaf(named.collect::<BTreeMap<_, _>>().into_values().collect())
    });
    let below = (id(ChunkId::from_bytes), 1..=u64::MAX);
    let inner = (1_u8..=8, btree_map(name(), below, 1..6)).prop_map(|(level, children)| {
        let child = |(first_name, (node, entries))| DirectoryChild { first_name, node, entries };
        DirectoryNode::Inner { level, children: children.into_iter().map(child).collect() }
    });
    prop_oneof![leaf, inner]
}

pub fn extent_node() -> impl Strategy<Value = ExtentNode> {
    let child = (id(ChunkId::from_bytes), 1_u64..1 << 63)
        .prop_map(|(node, bytes)| ExtentChild { node, bytes });
    let inner = (1_u8..=8, vec(child, 1..6))
        .prop_map(|(level, children)| ExtentNode::Inner { level, children });
    prop_oneof![extents(1..40).prop_map(ExtentNode::Leaf), inner]
}
