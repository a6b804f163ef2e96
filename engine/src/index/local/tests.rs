//! What every local index promises, tested on all kinds against each other.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::*;
use crate::error::{Class, Explain};
use cairn_format::ids::{ChunkId, PackId, SegmentId, SessionId, WriterId};
use cairn_format::names::PackKind;

/// Size of the small worlds that [`content`] reads out.
pub(super) const PACKS: u8 = 8;
pub(super) const CHUNKS: u8 = 24;
pub(super) const FILES: u8 = 4;

pub(super) fn chunk_id(number: u64) -> ChunkId {
    ChunkId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

pub(super) fn pack_id(number: u64) -> PackId {
    PackId::from_bytes(
        *blake3::hash(&[b"pack".as_slice(), &number.to_le_bytes()].concat()).as_bytes(),
    )
}

pub(super) fn segment_id(number: u8) -> SegmentId {
    SegmentId::from_bytes([number; 32])
}

/// A pack of frames that hold these chunks; frames with an odd position have the first chunk of
/// the frame before as base.
pub(super) fn new_pack(number: u64, frames: &[Vec<u64>]) -> NewPack {
    let (mut made, mut offset) = (Vec::new(), 100);
    for (position, chunks) in (0_u8..).zip(frames) {
        let chunks: Vec<(ChunkId, u32)> = chunks
            .iter()
            .map(|chunk| (chunk_id(*chunk), 10 + u32::try_from(*chunk % 7).unwrap()))
            .collect();
        let bases = match made.last() {
            Some(NewFrame { chunks, .. }) if position % 2 == 1 => {
                chunks.iter().take(1).copied().collect()
            }
            _ => Vec::new(),
        };
        made.push(NewFrame {
            offset,
            sealed_bytes: 50,
            plain_bytes: chunks.iter().map(|(_, bytes)| bytes).sum(),
            codec: position,
            chunks,
            bases,
        });
        offset += 50;
    }
    NewPack {
        id: pack_id(number),
        kind: if number.is_multiple_of(2) { PackKind::Data } else { PackKind::Tree },
        bytes: offset + 9,
        writer: WriterId::from_bytes([1; 16]),
        session: SessionId::from_bytes([2; 16]),
        frames: made,
    }
}

/// Everything a caller can read out of an index that was fed from this test's small worlds.
#[derive(Debug, PartialEq)]
pub(super) struct Content {
    places: Vec<Option<ChunkPlace>>,
    packs: Vec<(PackNumber, PackRecord, Option<LedgerEntry>)>,
    numbers: Vec<Option<PackNumber>>,
    bases: Vec<Vec<(ChunkId, u32)>>,
    directories: Vec<Vec<(ChunkId, ChunkPlace)>>,
    ledger: Vec<Option<LedgerEntry>>,
    neediest: Vec<PackAge>,
    pending: Vec<PackId>,
    segments: Vec<SegmentId>,
    files: BTreeMap<u8, Option<Vec<u8>>>,
    counts: Counts,
    all_places: Vec<Vec<ChunkPlace>>,
    sketches: Vec<Option<SketchEntry>>,
    meta: Option<Vec<u8>>,
    memos: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    objects: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    gone: Vec<(PackNumber, Option<GonePack>)>,
}

pub(super) fn content(index: &dyn LocalIndex) -> Result<Content, IndexError> {
    let ids: Vec<ChunkId> = (0..u64::from(CHUNKS)).rev().map(chunk_id).collect();
    let mut places = vec![None; 3];
    index.lookup_many(&ids, &mut places)?;
    let mut packs = Vec::new();
    index.for_each_pack(&mut |number, record, entry| {
        packs.push((number, *record, entry));
        ControlFlow::Continue(())
    })?;
    let (mut bases, mut directories) = (Vec::new(), Vec::new());
    for (number, record, _) in &packs {
        assert_eq!(index.pack(*number)?.as_ref(), Some(record));
        for frame in 0..=record.frames {
            bases.push(index.frame_bases(*number, frame)?);
        }
        let mut directory = Vec::new();
        index.for_each_chunk_of_pack(*number, &mut |id, place| {
            directory.push((*id, *place));
            ControlFlow::Continue(())
        })?;
        directories.push(directory);
    }
    let all_packs = || (0..u64::from(PACKS)).map(pack_id);
    Ok(Content {
        places,
        packs,
        numbers: all_packs().map(|id| index.pack_number(&id)).collect::<Result<_, _>>()?,
        bases,
        directories,
        ledger: all_packs().map(|id| index.ledger_get(&id)).collect::<Result<_, _>>()?,
        neediest: index.least_verified(3)?,
        pending: index.pending_packs()?,
        segments: index.segments()?,
        files: (0..FILES)
            .map(|file| index.get_file(&[file; 32]).map(|value| (file, value)))
            .collect::<Result<_, _>>()?,
        counts: index.counts()?,
        all_places: ids.iter().map(|id| index.copies(id)).collect::<Result<_, _>>()?,
        sketches: index.get_sketches(&[3, 1, 0, 2, 1].map(SketchSlot))?,
        meta: index.meta_get("name")?,
        memos: index
            .memo_keys(b"k")?
            .into_iter()
            .map(|key| Ok((key.clone(), index.get_memo(&key)?)))
            .collect::<Result<_, IndexError>>()?,
        objects: index
            .object_keys(b"k")?
            .into_iter()
            .map(|key| Ok((key.clone(), index.get_object(&key)?)))
            .collect::<Result<_, IndexError>>()?,
        gone: index
            .gone_packs()?
            .into_iter()
            .map(|number| Ok((number, index.gone_pack(number)?)))
            .collect::<Result<_, IndexError>>()?,
    })
}

#[test]
fn a_chunk_of_two_packs_is_found_in_the_other_when_the_first_goes() {
    let index = MemoryIndex::new();
    let first = index.add_pack(&new_pack(1, &[vec![5, 6]]), PackState::Committed).unwrap();
    let second = index.add_pack(&new_pack(2, &[vec![6, 7]]), PackState::Committed).unwrap();
    let mut out = Vec::new();
    let ids = [chunk_id(6), chunk_id(5), chunk_id(9)];
    index.lookup_many(&ids, &mut out).unwrap();
    assert_eq!(
        out.iter().map(|place| place.map(|p| p.pack)).collect::<Vec<_>>(),
        [Some(first), Some(first), None]
    );
    assert!(index.remove_pack(&pack_id(1)).unwrap());
    index.lookup_many(&ids, &mut out).unwrap();
    assert_eq!(
        out.iter().map(|place| place.map(|p| p.pack)).collect::<Vec<_>>(),
        [Some(second), None, None]
    );
}

#[test]
fn the_neediest_packs_come_first() {
    let index = MemoryIndex::new();
    for number in 0..5 {
        index.add_pack(&new_pack(number, &[]), PackState::Committed).unwrap();
    }
    let entry = |verified_ms, ok| LedgerEntry { level: 2, verified_ms, ok };
    index
        .ledger_put(&[
            (pack_id(0), entry(70, true)),
            (pack_id(1), entry(60, true)),
            (pack_id(2), entry(90, false)),
            (pack_id(3), entry(50, true)),
        ])
        .unwrap();
    let order = |limit| -> Vec<PackId> {
        index.least_verified(limit).unwrap().iter().map(|age| age.record.id).collect()
    };
    assert_eq!(order(9), [4, 2, 3, 1, 0].map(pack_id));
    assert_eq!(order(2), [4, 2].map(pack_id));
    assert_eq!(order(0), []);
}

#[test]
fn packs_that_break_a_limit_are_refused_and_leave_nothing() {
    let good = new_pack(1, &[vec![1, 2]]);
    let broken: [fn(&mut NewPack); 4] = [
        |pack| pack.bytes = PACK_BYTES_MAX + 1,
        |pack| pack.frames[0].offset = u32::MAX,
        |pack| pack.frames[0].plain_bytes = 3,
        |pack| pack.frames = vec![pack.frames[0].clone(); PACK_FRAMES_MAX as usize + 1],
    ];
    for break_it in broken {
        let mut pack = good.clone();
        break_it(&mut pack);
        let index = MemoryIndex::new();
        let error = index.add_pack(&pack, PackState::Committed).unwrap_err();
        assert!(matches!(error, IndexError::Invalid { .. }), "{error}");
        assert_eq!(error.class(), Class::Damage);
        assert_eq!(content(&index).unwrap(), content(&MemoryIndex::new()).unwrap());
    }
}

#[test]
fn trouble_with_the_cache_names_its_folder_and_the_way_out() {
    let error = IndexError::Store { folder: "/c/5".into(), reason: "it says so".to_owned() };
    assert_eq!(error.to_string(), "local index /c/5 failed: it says so");
    assert_eq!(error.class(), Class::Failed);
    assert!(error.hint().unwrap().contains("/c/5 can be deleted"));
}

#[test]
fn a_pack_is_pending_until_a_segment_names_it() {
    let index = MemoryIndex::new();
    for number in [2, 1, 3] {
        index.add_pack(&new_pack(number, &[vec![number]]), PackState::Pending).unwrap();
    }
    assert_eq!(index.pending_packs().unwrap(), [2, 1, 3].map(pack_id));
    index.commit_packs(&[pack_id(1), pack_id(9)], &segment_id(4)).unwrap();
    assert_eq!(index.pending_packs().unwrap(), [2, 3].map(pack_id));
    assert_eq!(index.segments().unwrap(), [segment_id(4)]);
    let mut load = index.begin_load().unwrap();
    load.add(&new_pack(2, &[vec![2]])).unwrap();
    drop(load);
    assert_eq!(index.pending_packs().unwrap(), [2, 3].map(pack_id), "a dropped load commits none");
    let mut load = index.begin_load().unwrap();
    load.add(&new_pack(2, &[vec![2]])).unwrap();
    load.finish(&[]).unwrap();
    assert_eq!(index.pending_packs().unwrap(), [pack_id(3)]);
}

/// Of two places in one pack the one counts that can be read as a base too.
#[test]
fn a_chunk_that_stands_twice_in_a_pack_is_found_in_the_frame_without_bases() {
    let index = MemoryIndex::new();
    // The second frame has bases.
    let pack = new_pack(1, &[vec![1], vec![7, 8], vec![8, 7]]);
    assert!(!pack.frames[1].bases.is_empty() && pack.frames[2].bases.is_empty());
    index.add_pack(&pack, PackState::Committed).unwrap();
    for id in [chunk_id(7), chunk_id(8)] {
        let places = index.copies(&id).unwrap();
        assert_eq!(places.iter().map(|place| place.frame_number).collect::<Vec<_>>(), [2]);
    }
}
