//! Parity of packs: honest packs that were damaged, and sections that say anything.

use bytes::Bytes;
use cairn_engine::parity::{self, Parity, Rescue, rescue};
use cairn_engine::store::memory::MemoryStore;
use cairn_format::codec::padme;
use cairn_format::ids::PackId;
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::parity::{ParityLayout, shard_hash};

use crate::memory::peak;

/// Memory that looking at a few bytes may take, bytes: tables and stripes of the code.
const BYTES_BASE: usize = 16 << 20;

/// See the module.
pub fn run(data: &[u8]) {
    let Some((selector, bytes)) = data.split_first() else { return };
    match selector % 2 {
        0 => damaged(bytes),
        _ => hostile(bytes),
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

fn rescued(name: [u8; 32], stored: Vec<u8>) -> Rescue {
    let id = PackId::from_bytes(name);
    let store = MemoryStore::new();
    store.overwrite(ObjectName::Pack(PackKind::Data, id), Bytes::from(stored));
    rescue(&store, PackKind::Data, id).expect("the store does not fail")
}

/// Length, shards, what is cut off; then places and what is changed there.
fn damaged(bytes: &[u8]) {
    let Some((head, changes)) = bytes.split_first_chunk::<8>() else { return };
    let [a, b, data, recovery, cut @ ..] = *head;
    let mut pack = vec![0; padme(u64::from(u16::from_le_bytes([a, b])) * 64 + 300) as usize];
    blake3::Hasher::new().update(b"pack").finalize_xof().fill(&mut pack);
    let choice = Parity { data: u16::from(data), recovery: u16::from(recovery) };
    let Some(layout) = ParityLayout::of(pack.len() as u64, choice) else { return };
    parity::append(&mut pack, choice).expect("it has a layout");
    let mut stored = pack.clone();
    for change in changes.chunks_exact(4) {
        let place = usize::from(u16::from_le_bytes([change[0], change[1]])) << (change[2] % 8);
        let length = stored.len();
        stored[place % length] ^= change[3];
    }
    stored.truncate(stored.len() - u32::from_le_bytes(cut) as usize % stored.len());
    let differs = |range: std::ops::Range<u64>| {
        let range = range.start as usize..range.end as usize;
        stored.get(range.clone()) != pack.get(range)
    };
    let lost = (0..layout.data).filter(|shard| differs(layout.data_shard(*shard))).count()
        + (0..layout.recovery).filter(|shard| differs(layout.recovery_shard(*shard))).count();
    let records = [layout.front_record(), layout.back_record()].map(differs);
    let name = hash(&pack);
    let is_sound = stored == pack;
    match rescued(name, stored) {
        Rescue::Sound(bytes) => assert!(is_sound && bytes == pack),
        Rescue::Healed(bytes, _) => assert!(!is_sound && bytes == pack),
        Rescue::Lost(_) | Rescue::None => {
            assert!(lost > usize::from(layout.recovery) || records.iter().all(|differs| *differs));
        }
    }
}

/// Bytes that end with a footer, whose check sum is put right.
fn hostile(bytes: &[u8]) {
    let mut stored = bytes.to_vec();
    if let Some(at) = stored.len().checked_sub(48) {
        let check = shard_hash(&stored[at..at + 16], hash);
        stored[at + 16..at + 32].copy_from_slice(&check);
    }
    let length = stored.len();
    let (found, held) = peak(|| rescued([1; 32], stored));
    assert!(matches!(found, Rescue::Lost(_) | Rescue::None));
    assert!(cfg!(test) || held <= 16 * length + BYTES_BASE, "{held} bytes for {length}");
}
