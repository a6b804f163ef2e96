//! What every decoder promises: it reads what the encoder writes, and of anything else it neither
//! panics nor allocates much.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use cairn_format::certificate::Certificate;
use cairn_format::envelope::{Content, Header, unpad_body};
use cairn_format::error::FormatError;
use cairn_format::format_object::FormatObject;
use cairn_format::names::ObjectName;
use cairn_format::node::{DirectoryNode, ExtentNode, decode_content, encode_content};
use cairn_format::pack::{Directory, Locator};
use cairn_format::parity::ParityFooter;
use cairn_format::receipt::{Receipt, ReceiptRecord, Replica};
use cairn_format::record::{Ack, Config, Lease, Snapshot, Tomb};
use cairn_format::segment::Segment;
use cairn_format::slot::SlotHead;
use cairn_format::tree::{Entry, Node};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::arbitrary;

/// Most bytes that decoding may hold for one byte of input.
const ALLOCATION_FACTOR: usize = 64;

/// Counts what a thread holds, so that a decoder's appetite can be measured.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn add(bytes: isize) {
    let held = HELD.get() + bytes;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

// SAFETY: every call is handed on to the system's allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size().cast_signed());
        // SAFETY: the caller's promise is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-layout.size().cast_signed());
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Decodes bytes of one structure and encodes what was read.
type Recode = fn(&[u8]) -> Result<Vec<u8>, FormatError>;

/// Structures of which a value has one encoding, unknown even fields left out.
const STRUCTURES: [(&str, Recode); 18] = [
    ("certificate", |bytes| Certificate::parse(bytes).map(|value| value.encode())),
    ("header", |bytes| Header::parse(bytes).map(|value| value.encode())),
    ("slot head", |bytes| SlotHead::parse(bytes).and_then(|value| value.encode())),
    ("config", |bytes| Config::decode(bytes).map(|value| value.encode())),
    ("snapshot", |bytes| Snapshot::decode(bytes).map(|value| value.encode())),
    ("ack", |bytes| Ack::decode(bytes).map(|value| value.encode())),
    ("lease", |bytes| Lease::decode(bytes).map(|value| value.encode())),
    ("tomb", |bytes| Tomb::decode(bytes).map(|value| value.encode())),
    ("receipt", |bytes| Receipt::parse(bytes).map(|(value, _)| value.encode())),
    ("receipt record", |bytes| ReceiptRecord::decode(bytes).map(|value| value.encode())),
    ("replica", |bytes| Replica::parse(bytes).map(|value| value.encode())),
    ("directory", |bytes| Directory::decode(bytes).map(|value| value.encode())),
    ("segment", |bytes| Segment::decode(bytes).map(|value| value.encode())),
    ("directory node", |bytes| DirectoryNode::decode(bytes).map(|value| value.encode())),
    ("extent node", |bytes| ExtentNode::decode(bytes).map(|value| value.encode())),
    ("entry", |bytes| Entry::decode(bytes).map(|value| value.encode())),
    ("content", |bytes| {
        let value = decode_content(bytes)?;
        let mut writer = cairn_format::codec::Writer::new();
        encode_content(&value, &mut writer);
        Ok(writer.into_bytes())
    }),
    ("parity footer", |bytes| {
        // A check sum that random bytes meet now and then.
        fn hash(_: &[u8]) -> [u8; 32] {
            [0; 32]
        }
        ParityFooter::decode(bytes, hash).map(|value| value.encode(hash))
    }),
];

/// Runs a decoder on bytes from anywhere, within its allowance.
fn offer(what: &str, recode: Recode, bytes: &[u8]) {
    HELD.set(0);
    PEAK.set(0);
    let outcome = recode(bytes);
    let peak = PEAK.get();
    let allowed = ALLOCATION_FACTOR * bytes.len() + 1024;
    assert!(peak <= allowed.cast_signed(), "{what}: {peak} for {} bytes", bytes.len());
    if let Ok(encoded) = outcome {
        assert_eq!(recode(&encoded).as_ref(), Ok(&encoded), "{what} has two encodings");
    }
}

fn offer_to_all(bytes: &[u8]) {
    for (what, recode) in STRUCTURES {
        offer(what, recode, bytes);
    }
    let _ = Content::parse(bytes).map(|content| content.record.len());
    let _ = unpad_body(bytes).map(<[u8]>::len);
    let _ = Locator::decode(bytes, bytes.len() as u64);
    let _ = FormatObject::parse(bytes, |_| [0; 32]);
    if let Ok(name) = core::str::from_utf8(bytes)
        .map_err(drop)
        .and_then(|text| ObjectName::parse(text).map(|name| (name, text)).map_err(drop))
    {
        assert_eq!(name.0.to_string(), name.1);
    }
}

/// Changes bytes of a valid structure, cuts it, or puts bytes in.
#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let byte = prop_oneof![Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
    let one = prop_oneof![
        6 => (any::<Index>(), byte).prop_map(|(at, byte)| Damage::Set(at, byte)),
        1 => any::<Index>().prop_map(Damage::Cut),
        1 => (any::<Index>(), vec(any::<u8>(), 1..20)).prop_map(|(at, more)| Damage::Insert(at, more)),
    ];
    vec(one, 1..4)
}

fn damaged(mut bytes: Vec<u8>, damage: &[Damage]) -> Vec<u8> {
    for one in damage {
        if bytes.is_empty() {
            break;
        }
        match one {
            Damage::Set(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Damage::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
        }
    }
    bytes
}

/// Defines, for one structure: the round trip, and the life of damaged bytes.
macro_rules! structure {
    ($name:ident, $what:literal, $strategy:expr, $decode:expr) => {
        proptest! {
            #[test]
            fn $name(value in $strategy, damage in damage()) {
                let bytes = value.encode();
                prop_assert_eq!($decode(&bytes), Ok(value));
                let recode = STRUCTURES.iter().find(|(what, _)| *what == $what).unwrap().1;
                offer($what, recode, &bytes);
                offer($what, recode, &damaged(bytes, &damage));
            }
        }
    };
}

structure!(certificates, "certificate", arbitrary::certificate(), Certificate::parse);
structure!(configs, "config", arbitrary::config(), Config::decode);
structure!(snapshots, "snapshot", arbitrary::snapshot(), Snapshot::decode);
structure!(acks, "ack", arbitrary::ack(), Ack::decode);
structure!(leases, "lease", arbitrary::lease(), Lease::decode);
structure!(tombs, "tomb", arbitrary::tomb(), Tomb::decode);
structure!(receipts, "receipt", arbitrary::receipt(), |bytes| Receipt::parse(bytes).map(|r| r.0));
structure!(replicas, "replica", arbitrary::replica(), Replica::parse);
structure!(directories, "directory", arbitrary::directory(), Directory::decode);
structure!(segments, "segment", arbitrary::segment(), Segment::decode);
structure!(directory_nodes, "directory node", arbitrary::directory_node(), DirectoryNode::decode);
structure!(extent_nodes, "extent node", arbitrary::extent_node(), ExtentNode::decode);
structure!(entries, "entry", arbitrary::entry(), Entry::decode);

proptest! {
    #[test]
    fn contents(entry in arbitrary::entry()) {
        if let Node::File(content) = &entry.node {
            let mut writer = cairn_format::codec::Writer::new();
            encode_content(content, &mut writer);
            prop_assert_eq!(decode_content(writer.as_bytes()), Ok(content.clone()));
        }
    }

    #[test]
    fn object_names(name in arbitrary::object_name()) {
        let text = name.to_string();
        prop_assert!(text.len() <= cairn_format::names::OBJECT_NAME_BYTES_MAX as usize);
        prop_assert_eq!(ObjectName::parse(&text), Ok(name));
    }

    #[test]
    fn noise(bytes in vec(any::<u8>(), 0..600)) {
        offer_to_all(&bytes);
    }

    /// Noise behind each structure's first bytes gets further into it.
    #[test]
    fn noise_of_small_numbers(bytes in vec(0_u8..40, 0..600), first in prop::sample::select(b"DIEJ".to_vec())) {
        offer_to_all(&bytes);
        offer_to_all(&[&[first], bytes.as_slice()].concat());
    }
}

/// Counts that are as large as the bytes that follow let them be.
#[test]
fn greedy_counts() {
    for item in [0_u8, 1, 3] {
        for tag in 1..30_u64 {
            let mut list = cairn_format::codec::Writer::new();
            list.field(tag, |w| {
                w.count(100_000).raw(&vec![item; 100_000]);
            });
            offer_to_all(list.as_bytes());
        }
        for head in [&b"D"[..], b"I\x01", b"E", b"J\x01", b"\x00", b"\x00\x00"] {
            let mut node = cairn_format::codec::Writer::new();
            node.raw(head).count(4096).raw(&vec![item; 5000]);
            offer_to_all(node.as_bytes());
            let mut node = cairn_format::codec::Writer::new();
            node.raw(head).count(500).raw(&vec![item; 50_000]);
            offer_to_all(node.as_bytes());
        }
    }
}
