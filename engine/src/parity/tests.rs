use std::collections::BTreeSet;

use bytes::Bytes;
use cairn_format::codec::padme;
use cairn_format::ids::PackId;
use cairn_format::names::{ObjectName, PackKind};
use proptest::prelude::*;

use super::*;
use crate::store::memory::MemoryStore;

const CHOICE: Parity = Parity { data: 40, recovery: 6 };

fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(b"a pack").finalize_xof().fill(&mut noise);
    noise
}

/// A pack of about so many bytes, as far as parity is concerned.
fn pack(bytes: u64) -> (Vec<u8>, ParityLayout) {
    let mut pack = noise(padme(bytes) as usize);
    let layout = ParityLayout::of(pack.len() as u64, CHOICE).expect("a layout");
    append(&mut pack, CHOICE).expect("parity");
    assert_eq!(pack.len() as u64, layout.object_bytes());
    (pack, layout)
}

fn rescued(sound: &[u8], stored: Vec<u8>) -> Rescue {
    let id = PackId::from_bytes(hash(sound));
    let store = MemoryStore::new();
    store.overwrite(ObjectName::Pack(PackKind::Data, id), Bytes::from(stored));
    rescue(&store, PackKind::Data, id).expect("the store does not fail")
}

/// Where a shard of either kind is stored.
fn place_of(layout: &ParityLayout, shard: u16) -> std::ops::Range<usize> {
    let range = match shard.checked_sub(layout.data) {
        None => layout.data_shard(shard),
        Some(recovery) => layout.recovery_shard(recovery),
    };
    range.start as usize..range.end as usize
}

fn damage(pack: &[u8], layout: &ParityLayout, shards: &BTreeSet<u16>, at: usize) -> Vec<u8> {
    let mut damaged = pack.to_vec();
    for shard in shards {
        let place = place_of(layout, *shard);
        let length = place.len();
        damaged[place.start + at % length] ^= 0x40;
    }
    damaged
}

/// What the padding of a record is not: the ranges of both copies of footer and hashes.
fn record_places(layout: &ParityLayout) -> [std::ops::Range<usize>; 2] {
    [layout.front_record(), layout.back_record()]
        .map(|range| range.start as usize..range.end as usize)
}

#[track_caller]
fn assert_healed(sound: &[u8], stored: Vec<u8>) -> Damage {
    match rescued(sound, stored) {
        Rescue::Healed(bytes, damage) if bytes == sound => damage,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn as_many_shards_as_there_is_parity_may_be_lost(
        bytes in 300_u64..400_000,
        chosen in prop::collection::vec(any::<u16>(), 0..24),
        at in any::<usize>(),
    ) {
        let (pack, layout) = pack(bytes);
        let all = layout.data + layout.recovery;
        let shards: BTreeSet<u16> = chosen.iter().map(|shard| shard % all).collect();
        let stored = damage(&pack, &layout, &shards, at);
        let data = shards.iter().filter(|shard| **shard < layout.data).count() as u32;
        let lost = shards.len() as u32;
        match rescued(&pack, stored) {
            Rescue::Sound(bytes) => prop_assert!(lost == 0 && bytes == pack),
            Rescue::Healed(bytes, found) => {
                prop_assert!(bytes == pack);
                prop_assert!((1..=u32::from(layout.recovery)).contains(&lost));
                prop_assert_eq!((found.data, found.recovery, found.records), (data, lost - data, 0));
            }
            Rescue::Lost(found) => {
                prop_assert!(lost > u32::from(layout.recovery));
                prop_assert_eq!((found.data, found.recovery), (data, lost - data));
                prop_assert_eq!(found.spare, u32::from(layout.recovery));
            }
            Rescue::None => prop_assert!(false, "its footers are sound"),
        }
    }

    #[test]
    fn anything_may_be_stored(mut stored in prop::collection::vec(any::<u8>(), 0..9000)) {
        prop_assert!(matches!(rescued(b"", stored.clone()), Rescue::None | Rescue::Sound(_)));
        // With a footer that says anything.
        if let Some(at) = stored.len().checked_sub(48) {
            let sum = short(&hash(&stored[at..at + 16]));
            stored[at + 16..at + 32].copy_from_slice(&sum);
            rescued(b"", stored);
        }
    }
}

#[test]
fn the_parity_of_a_pack_is_always_the_same() {
    let (first, _) = pack(100_000);
    let (second, _) = pack(100_000);
    assert!(first == second && is_true(&first).expect("it is computed"));
}

#[test]
fn either_copy_of_footer_and_hashes_may_be_lost_with_as_many_shards() {
    let (pack, layout) = pack(150_000);
    for record in record_places(&layout) {
        let shards = [0, 3, layout.data - 1, layout.data].into();
        let mut stored = damage(&pack, &layout, &shards, 100);
        stored[record].fill(0);
        let found = assert_healed(&pack, stored);
        assert_eq!((found.data, found.recovery, found.records), (3, 1, 1));
    }
}

#[test]
fn every_byte_of_the_records_may_be_damaged_in_one_of_them() {
    let (pack, layout) = pack(5_000);
    let [front, back] = record_places(&layout);
    for at in 0..front.len() {
        let mut stored = pack.clone();
        stored[0] ^= 1;
        let place = if at % 2 == 0 { &front } else { &back };
        stored[place.start + at] ^= 0x80;
        assert_eq!(assert_healed(&pack, stored).records, 1, "{at}");
    }
    let mut stored = pack.clone();
    stored[front].fill(0);
    stored[back].fill(0);
    assert!(matches!(rescued(&pack, stored), Rescue::None));
}

#[test]
fn hashes_that_are_damaged_in_different_places_of_both_copies_do_no_harm() {
    let (pack, layout) = pack(150_000);
    let [front, back] = record_places(&layout);
    let mut stored = pack.clone();
    // The hashes of even shards in one copy, of odd ones in the other.
    for shard in 0..layout.shards() as usize {
        let at = if shard % 2 == 0 { front.start + FOOTER } else { back.start };
        stored[at + shard * SHARD_HASH_BYTES] ^= 1;
    }
    stored[0] ^= 1;
    let found = assert_healed(&pack, stored);
    assert_eq!((found.data, found.recovery, found.records), (1, 0, 2));
}

#[test]
fn a_pack_that_was_cut_short_is_whole_again_unless_too_much_is_gone() {
    let (pack, layout) = pack(150_000);
    let shard = layout.shard_bytes as usize;
    let back = layout.record_bytes() as usize;
    let section = pack.len() - layout.protected_bytes as usize;
    for cut in [1, back, back + shard + 5, section - back, section - back + 1] {
        let found = assert_healed(&pack, pack[..pack.len() - cut].to_vec());
        assert!(found.can_be_made_good(), "{cut}");
    }
    // Nothing is left of its parity.
    let stored = pack[..layout.protected_bytes as usize - 1].to_vec();
    assert!(matches!(rescued(&pack, stored), Rescue::None));
    assert!(matches!(rescued(&pack, Vec::new()), Rescue::None));
}

#[test]
fn what_was_appended_to_a_pack_is_left_out() {
    let (pack, _) = pack(20_000);
    let mut stored = pack.clone();
    stored.extend_from_slice(b"junk");
    assert_eq!(assert_healed(&pack, stored).lost(), 0);
}

#[test]
fn a_footer_of_another_pack_misleads_nobody() {
    let (pack, layout) = pack(150_000);
    let [front, back] = record_places(&layout);
    let mut other = noise(1 << 17);
    append(&mut other, Parity { data: 30, recovery: 3 }).expect("parity");
    let mut stored = pack.clone();
    stored[0] ^= 1;
    // It takes the place of the true one at the end.
    let footer = other[other.len() - FOOTER..].to_vec();
    stored[back.end - FOOTER..].copy_from_slice(&footer);
    assert_eq!(assert_healed(&pack, stored.clone()).lost(), 1);
    // And of both: then the name says that it is not the pack.
    stored[front.start..front.start + FOOTER].fill(0);
    assert!(!matches!(rescued(&pack, stored), Rescue::Healed(..) | Rescue::Sound(_)));
}

fn proven(pack: &[u8], layout: ParityLayout, id: PackId, step: usize) -> bool {
    let mut proof = ParityProof::new(layout, id);
    pack.chunks(step).for_each(|piece| proof.update(piece));
    proof.holds()
}

#[test]
fn a_parity_section_is_proven_while_it_is_read() {
    for bytes in [300, 4096, 100_000, 150_000] {
        let (pack, layout) = pack(bytes);
        // The column that is looked at follows from the name: also in the padding.
        for id in 0..=70_u8 {
            let id = PackId::from_bytes([id; 32]);
            assert!(proven(&pack, layout, id, 10_007), "{bytes} {id:?}");
        }
        let id = PackId::from_bytes(hash(&pack));
        assert!(proven(&pack, layout, id, usize::MAX) && proven(&pack, layout, id, 1));
        assert!(!proven(&pack[..pack.len() - 1], layout, id, 1000));
        assert!(!proven(&[pack.as_slice(), b"x"].concat(), layout, id, 1000));
        for place in record_places(&layout) {
            for at in [place.start, place.end - 1] {
                let mut wrong = pack.clone();
                wrong[at] ^= 1;
                assert!(!proven(&wrong, layout, id, 1000), "{at}");
            }
        }
    }
}

#[test]
fn recovery_shards_that_were_computed_wrongly_are_found_out() {
    let (pack, layout) = pack(150_000);
    let mut wrong = pack.clone();
    for shard in layout.data..layout.data + layout.recovery {
        wrong[place_of(&layout, shard)].fill(7);
    }
    // What else they say fits together.
    write_records(&mut wrong, &layout);
    assert!(!proven(&wrong, layout, PackId::from_bytes(hash(&wrong)), 1000));
    assert!(!is_true(&wrong).expect("it is computed"));
    assert!(proven(&pack, layout, PackId::from_bytes(hash(&wrong)), 1000));
}

/// The code as SPEC section 6.4 defines it: slow, and with nothing of the crate that is used.
mod as_specified {
    const BASIS: [u16; 16] = [
        0x0001, 0xACCA, 0x3C0E, 0x163E, 0xC582, 0xED2E, 0x914C, 0x4012, 0x6C98, 0x10D8, 0x6A72,
        0xB900, 0xFDB8, 0xFB34, 0xFF38, 0x991E,
    ];

    /// The element that coordinates stand for.
    pub fn element(coordinates: u16) -> u16 {
        let bits = BASIS.iter().enumerate().filter(|(bit, _)| coordinates >> bit & 1 == 1);
        bits.fold(0, |sum, (_, element)| sum ^ element)
    }

    fn multiply(a: u16, b: u16) -> u16 {
        let mut product = 0_u32;
        for bit in 0..16 {
            if b >> bit & 1 == 1 {
                product ^= u32::from(a) << bit;
            }
        }
        for bit in (16..32).rev() {
            if product >> bit & 1 == 1 {
                product ^= 0x1_002D << (bit - 16);
            }
        }
        product as u16
    }

    fn inverse(a: u16) -> u16 {
        (0..15)
            .fold((1, a), |(power, square), _| {
                let square = multiply(square, square);
                (multiply(power, square), square)
            })
            .0
    }

    /// The value at `x` of the polynomial of least degree through points (x, value).
    pub fn interpolate(points: &[(u16, u16)], x: u16) -> u16 {
        points.iter().fold(0, |sum, (at, value)| {
            let others = points.iter().filter(|(other, _)| other != at);
            let factor = others.fold(1, |factor, (other, _)| {
                multiply(factor, multiply(x ^ other, inverse(at ^ other)))
            });
            sum ^ multiply(*value, factor)
        })
    }
}

#[test]
fn the_code_is_the_one_that_the_specification_states() {
    use as_specified::{element, interpolate};
    for (data, recovery) in [(5_u16, 3_u16), (1, 1), (9, 1), (3, 4), (20, 5)] {
        let blocks = noise(usize::from(data) * 64);
        let coded = code::encode_block(&blocks, recovery).expect("it is computed");
        let symbol = |shards: &[u8], shard: u16, number: usize| {
            let block = &shards[usize::from(shard) * 64..][..64];
            element(u16::from_le_bytes([block[number], block[32 + number]]))
        };
        let first = recovery.next_power_of_two();
        let points = (first + data).next_power_of_two();
        for number in [0, 1, 31] {
            let value = |at: u16| match at - first {
                shard if shard < data => symbol(&blocks, shard, number),
                _ => 0,
            };
            let known = (first..points).map(|at| (element(at), value(at))).collect::<Vec<_>>();
            for shard in 0..recovery {
                let expected = interpolate(&known, element(shard));
                assert_eq!(symbol(&coded, shard, number), expected, "{data} {recovery} {shard}");
            }
        }
    }
}
