//! Properly encoded structures that say what they must not (SPEC section 8 and section 9).

use cairn_format::error::FormatError;
use cairn_format::ids::ChunkId;
use cairn_format::limits::FILE_BYTES_MAX;
use cairn_format::node::{DirectoryChild, DirectoryNode, ExtentChild, ExtentNode};
use cairn_format::pack::Directory;
use cairn_format::record::{Config, Snapshot, Tomb};
use cairn_format::tree::{Content, Entry, Extent, Extents, LinkGroup, Meta, Node, Xattr};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::arbitrary;

/// One valid value, always the same.
fn sample<T>(strategy: impl Strategy<Value = T>) -> T {
    strategy.new_tree(&mut TestRunner::deterministic()).unwrap().current()
}

const NODE: ChunkId = ChunkId::from_bytes([5; 32]);

fn entry(node: Node) -> Entry {
    Entry { name: b"n".to_vec(), node, meta: Meta::default() }
}

fn inline(bytes: u64, extents: Vec<Extent>) -> Entry {
    entry(Node::File(Content { bytes, extents: Extents::Inline(extents) }))
}

fn refused(entry: &Entry) -> bool {
    Entry::decode(&entry.encode()).is_err()
}

#[test]
fn configs_name_each_domain_once_and_domain_0() {
    let good = sample(arbitrary::config());
    assert_eq!(Config::decode(&good.encode()), Ok(good.clone()));
    let with = |change: &dyn Fn(&mut Config)| {
        let mut config = good.clone();
        change(&mut config);
        Config::decode(&config.encode())
    };
    assert!(with(&|config| config.domains.push(config.domains[0].clone())).is_err());
    assert!(with(&|config| config.domains.retain(|domain| domain.id != 0)).is_err());
    assert!(with(&|config| config.domains[0].id = u32::MAX).is_err());
    assert!(with(&|config| config.domains[0].epoch = 0).is_err());
    for cipher in [0, 3, 255] {
        assert!(with(&|config| config.cipher = cipher).is_err());
    }
    assert!(with(&|config| config.pack_bytes = (1 << 20) - 1).is_err());
    assert!(with(&|config| config.pack_bytes = (256 << 20) + 1).is_err());
    assert!(with(&|config| config.aligned_bytes = 4095).is_err());
    assert!(with(&|config| config.chunker.algorithm = 2).is_err());
    assert!(with(&|config| config.chunker.bytes_avg = config.chunker.bytes_max).is_err());
}

#[test]
fn snapshots_say_what_was_asked_for() {
    let good = sample(arbitrary::snapshot()).encode();
    let mut kept = cairn_format::codec::Writer::new();
    cairn_format::codec::Reader::new(&good, "snapshot")
        .fields(|tag, value| {
            let value = value.take_rest();
            if tag != 9 {
                kept.varint(tag).bytes(value);
            }
            Ok(true)
        })
        .unwrap();
    let missing = FormatError::Missing { what: "paths of snapshot" };
    assert_eq!(Snapshot::decode(kept.as_bytes()), Err(missing));
}

#[test]
fn a_snapshot_made_anew_says_what_of() {
    let mut snapshot = sample(arbitrary::snapshot());
    let former = vec![cairn_format::ids::SnapshotId::from_bytes([3; 32])];
    for (former, allowed) in [(former, true), (Vec::new(), false)] {
        let certificate = vec![1; 9];
        snapshot.remade = Some(cairn_format::record::Remade { certificate, time_ms: 5, former });
        let read = Snapshot::decode(&snapshot.encode());
        assert_eq!(read.is_ok(), allowed);
        assert!(!allowed || read.as_ref() == Ok(&snapshot));
    }
}

#[test]
fn tombs_list_packs_once_and_in_order() {
    let mut tomb = sample(arbitrary::tomb());
    let pack = |kind, byte| (kind, cairn_format::ids::PackId::from_bytes([byte; 32]));
    use cairn_format::names::PackKind::{Data, Tree};
    for (packs, allowed) in [
        (vec![pack(Data, 1), pack(Data, 2), pack(Tree, 0)], true),
        (vec![pack(Data, 1), pack(Data, 1)], false),
        (vec![pack(Tree, 0), pack(Data, 1)], false),
        (vec![], true),
    ] {
        tomb.packs = packs;
        assert_eq!(Tomb::decode(&tomb.encode()).is_ok(), allowed, "{:?}", tomb.packs);
    }
}

#[test]
fn packs_have_frames_and_frames_have_chunks() {
    let mut directory = sample(arbitrary::directory());
    assert!(Directory::decode(&directory.encode()).is_ok());
    directory.frames[0].chunks.clear();
    assert!(Directory::decode(&directory.encode()).is_err());
    directory.frames.clear();
    let missing = FormatError::Missing { what: "frames of pack" };
    assert_eq!(Directory::decode(&directory.encode()), Err(missing));
}

#[test]
fn nodes_below_a_root_hold_something() {
    let inner = |children| ExtentNode::Inner { level: 1, children }.encode();
    let child = |bytes| ExtentChild { node: NODE, bytes };
    assert!(ExtentNode::decode(&inner(vec![child(1), child(FILE_BYTES_MAX)])).is_ok());
    assert!(ExtentNode::decode(&inner(vec![child(0)])).is_err());
    assert!(ExtentNode::decode(&inner(vec![child(FILE_BYTES_MAX + 1)])).is_err());
    assert!(ExtentNode::decode(&inner(vec![])).is_err());
    assert!(ExtentNode::decode(&ExtentNode::Leaf(vec![]).encode()).is_err());

    let inner = |level, children| DirectoryNode::Inner { level, children }.encode();
    let child =
        |name: &[u8], entries| DirectoryChild { first_name: name.to_vec(), node: NODE, entries };
    assert!(DirectoryNode::decode(&inner(1, vec![child(b"a", 1), child(b"b", 9)])).is_ok());
    assert!(DirectoryNode::decode(&inner(1, vec![child(b"a", 0)])).is_err());
    assert!(DirectoryNode::decode(&inner(1, vec![child(b"b", 1), child(b"b", 1)])).is_err());
    assert!(DirectoryNode::decode(&inner(1, vec![child(b"..", 1)])).is_err());
    assert!(DirectoryNode::decode(&inner(1, vec![])).is_err());
    for level in [0, 9] {
        assert!(DirectoryNode::decode(&inner(level, vec![child(b"a", 1)])).is_err());
    }
    assert_eq!(
        DirectoryNode::decode(&DirectoryNode::Leaf(vec![]).encode()),
        Ok(DirectoryNode::Leaf(vec![]))
    );
}

#[test]
fn the_smallest_entries_fill_a_leaf() {
    let fifo = |name: u8| Entry { name: vec![name], ..entry(Node::Fifo) };
    let leaf = DirectoryNode::Leaf((b'a'..=b'z').map(fifo).collect());
    assert_eq!(leaf.encode().len(), 2 + 26 * 9);
    assert_eq!(DirectoryNode::decode(&leaf.encode()), Ok(leaf));
}

#[test]
fn lengths_of_files_add_up_and_fit_63_bits() {
    let (hole, chunk) = (|bytes| Extent::Hole { bytes }, |bytes| Extent::Chunk { id: NODE, bytes });
    assert!(!refused(&inline(FILE_BYTES_MAX, vec![hole(FILE_BYTES_MAX - 9), chunk(9)])));
    assert!(refused(&inline(FILE_BYTES_MAX + 1, vec![hole(FILE_BYTES_MAX), chunk(1)])));
    let tree = |bytes| entry(Node::File(Content { bytes, extents: Extents::Tree(NODE) }));
    assert!(!refused(&tree(FILE_BYTES_MAX)));
    assert!(refused(&tree(FILE_BYTES_MAX + 1)));
    assert!(refused(&inline(9, vec![chunk(8)])));
    assert!(refused(&inline(2, vec![hole(1), hole(1)])));
    assert!(refused(&inline(0, vec![hole(0)])));
    assert!(refused(&inline((1 << 20) + 1, vec![chunk((1 << 20) + 1)])));
    assert!(refused(&inline(17, vec![chunk(1); 17])));
}

#[test]
fn attributes_stay_in_their_ranges() {
    let with = |change: &dyn Fn(&mut Meta)| {
        let mut entry = inline(0, vec![]);
        change(&mut entry.meta);
        refused(&entry)
    };
    let xattr = |name: &[u8], bytes| Xattr { name: name.to_vec(), value: vec![1; bytes] };
    assert!(!with(&|meta| meta.mode = 0o7777));
    assert!(with(&|meta| meta.mode = 0o10000));
    assert!(with(&|meta| meta.mtime.nanoseconds = 1_000_000_000));
    assert!(with(&|meta| meta.user = Some("u".repeat(256))));
    assert!(!with(&|meta| meta.xattrs = vec![xattr(b"a", (256 << 10) - 1)]));
    assert!(with(&|meta| meta.xattrs = vec![xattr(b"a", 256 << 10)]));
    assert!(with(&|meta| meta.xattrs = vec![xattr(b"b", 0), xattr(b"a", 0)]));
    assert!(with(&|meta| meta.xattrs = vec![xattr(b"a", 0), xattr(b"a", 0)]));
    assert!(with(&|meta| meta.xattrs = vec![xattr(b"", 0)]));
    assert!(with(&|meta| meta.xattrs = vec![xattr(b"a\0", 0)]));
    let mut directory = entry(Node::Directory(NODE));
    assert!(!refused(&directory));
    directory.meta.link = Some(LinkGroup { device: 1, inode: 1 });
    assert!(refused(&directory));
    // An empty list of attributes: the field belongs left out.
    let empty = [inline(0, vec![]).encode().as_slice(), &[8, 1, 0]].concat();
    assert!(Entry::decode(&empty).is_err());
}
