//! The index in files and its twin in memory take the same steps, and must answer alike.

use std::path::Path;

use cairn_format::ids::{ChunkId, PackId};
use proptest::prelude::*;

use super::tests::{open_in, overlays};
use crate::index::local::tests::{
    CHUNKS, FILES, PACKS, chunk_id, content, new_pack, pack_id, segment_id,
};
use crate::index::local::{
    LedgerEntry, LocalIndex, MemoChange, MemoryIndex, NewPack, Opened, PackNumber, PackState,
    SketchEntry, SketchSlot,
};

const SEGMENTS: u8 = 3;

#[derive(Clone, Debug)]
enum Step {
    Add(u8, bool),
    Remove(u8),
    Commit(Vec<u8>, u8),
    Load(Vec<u8>, Option<u8>),
    AddSegment(u8),
    RemoveSegment(u8),
    PutFiles(Vec<(u8, Vec<u8>)>),
    RetainFiles(u8),
    Ledger(Vec<(u8, u8, u64, bool)>),
    Meta(Vec<u8>),
    Sketches(Vec<(u32, u32, u8)>),
    Memos(Vec<(u8, Option<Vec<u8>>)>),
    Objects(Vec<(u8, Option<Vec<u8>>)>),
    ForgetGone(Vec<u32>),
    Reopen,
}

/// What the packs of one world hold; the same chunk may stand in several and twice in one.
fn world() -> impl Strategy<Value = Vec<NewPack>> {
    let frame = proptest::collection::vec(0..u64::from(CHUNKS), 0..5);
    let pack = proptest::collection::vec(frame, 0..4);
    proptest::collection::vec(pack, usize::from(PACKS)).prop_map(|packs| {
        (0_u64..).zip(packs).map(|(number, frames)| new_pack(number, &frames)).collect()
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pack = || 0..PACKS;
    let packs = || proptest::collection::vec(pack(), 0..5);
    let value = || proptest::collection::vec(any::<u8>(), 0..9);
    let step = prop_oneof![
        4 => (pack(), any::<bool>()).prop_map(|(pack, pending)| Step::Add(pack, pending)),
        3 => pack().prop_map(Step::Remove),
        1 => (packs(), 0..SEGMENTS).prop_map(|(packs, segment)| Step::Commit(packs, segment)),
        3 => (packs(), proptest::option::of(0..SEGMENTS)).prop_map(|(packs, end)| Step::Load(packs, end)),
        1 => (0..SEGMENTS).prop_map(Step::AddSegment),
        1 => (0..SEGMENTS).prop_map(Step::RemoveSegment),
        1 => proptest::collection::vec((0..FILES, value()), 0..4).prop_map(Step::PutFiles),
        1 => (0..FILES).prop_map(Step::RetainFiles),
        2 => proptest::collection::vec((pack(), 0_u8..3, 0_u64..9, any::<bool>()), 0..4).prop_map(Step::Ledger),
        1 => value().prop_map(Step::Meta),
        1 => proptest::collection::vec((0_u32..4, any::<u32>(), 0..CHUNKS), 0..4).prop_map(Step::Sketches),
        2 => proptest::collection::vec((0_u8..4, proptest::option::of(value())), 0..3).prop_map(Step::Memos),
        2 => proptest::collection::vec((0_u8..4, proptest::option::of(value())), 0..3).prop_map(Step::Objects),
        1 => proptest::collection::vec(0_u32..12, 0..3).prop_map(Step::ForgetGone),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 0..24)
}

/// Changes with keys of which the last one lies outside of what is read out.
fn keyed(changes: &[(u8, Option<Vec<u8>>)]) -> Vec<MemoChange> {
    let key = |key: u8| if key == 3 { b"j".to_vec() } else { vec![b'k', key] };
    changes.iter().map(|(name, value)| (key(*name), value.clone())).collect()
}

/// What a step returned, so that it can be compared too.
fn take(step: &Step, world: &[NewPack], index: &dyn LocalIndex) -> String {
    let pack = |number: &u8| &world[usize::from(*number)];
    match step {
        Step::Add(number, pending) => {
            let state = if *pending { PackState::Pending } else { PackState::Committed };
            format!("{:?}", index.add_pack(pack(number), state).unwrap())
        }
        Step::Remove(number) => format!("{:?}", index.remove_pack(&pack(number).id).unwrap()),
        Step::Commit(packs, segment) => {
            let ids: Vec<PackId> = packs.iter().map(|number| pack(number).id).collect();
            format!("{:?}", index.commit_packs(&ids, &segment_id(*segment)).unwrap())
        }
        Step::Load(packs, end) => {
            let mut load = index.begin_load().unwrap();
            for number in packs {
                load.add(pack(number)).unwrap();
            }
            if let Some(segment) = end {
                load.finish(&[segment_id(*segment)]).unwrap();
            }
            String::new()
        }
        Step::AddSegment(segment) => {
            format!("{:?}", index.add_segment(&segment_id(*segment)).unwrap())
        }
        Step::RemoveSegment(segment) => {
            format!("{:?}", index.remove_segment(&segment_id(*segment)).unwrap())
        }
        Step::PutFiles(files) => {
            let files: Vec<_> =
                files.iter().map(|(file, value)| ([*file; 32], value.clone())).collect();
            format!("{:?}", index.put_files(&files).unwrap())
        }
        Step::RetainFiles(gone) => {
            format!("{:?}", index.retain_files(&mut |key, _| key[0] != *gone).unwrap())
        }
        Step::Ledger(entries) => {
            let entries: Vec<_> = entries
                .iter()
                .map(|&(number, level, verified_ms, ok)| {
                    (pack(&number).id, LedgerEntry { level, verified_ms, ok })
                })
                .collect();
            format!("{:?}", index.ledger_put(&entries).unwrap())
        }
        Step::Meta(value) => format!("{:?}", index.meta_put("name", value).unwrap()),
        Step::Sketches(entries) => {
            let entries: Vec<_> = entries
                .iter()
                .map(|&(slot, check, chunk)| {
                    (SketchSlot(slot), SketchEntry { check, chunk: chunk_id(u64::from(chunk)) })
                })
                .collect();
            format!("{:?}", index.put_sketches(&entries).unwrap())
        }
        Step::Memos(changes) => format!("{:?}", index.put_memos(&keyed(changes)).unwrap()),
        Step::Objects(changes) => format!("{:?}", index.put_objects(&keyed(changes)).unwrap()),
        Step::ForgetGone(numbers) => {
            let numbers: Vec<_> = numbers.iter().map(|number| PackNumber(*number)).collect();
            format!("{:?}", index.forget_gone_packs(&numbers).unwrap())
        }
        Step::Reopen => String::new(),
    }
}

/// Takes the same steps in both; a reopening happens in the first only.
fn walk(
    world: &[NewPack],
    steps: &[Step],
    cache: &Path,
    opened: &mut Option<Opened>,
    twin: &MemoryIndex,
) {
    for step in steps {
        if matches!(step, Step::Reopen) && !opened.as_ref().unwrap().shared {
            *opened = None;
            *opened = Some(open_in(cache));
            assert_eq!(opened.as_ref().unwrap().rebuilt_because, None);
        }
        let index = opened.as_ref().unwrap().index.as_ref();
        assert_eq!(take(step, world, index), take(step, world, twin), "{step:?}");
        assert_eq!(content(index).unwrap(), content(twin).unwrap(), "after {step:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn behaves_like_its_twin_in_memory(world in world(), steps in steps()) {
        let cache = tempfile::tempdir().unwrap();
        let mut opened = Some(open_in(cache.path()));
        walk(&world, &steps, cache.path(), &mut opened, &MemoryIndex::new());
    }

    #[test]
    fn an_overlay_behaves_like_its_twin_and_leaves_the_base_alone(
        world in world(), before in steps(), after in steps(),
    ) {
        let cache = tempfile::tempdir().unwrap();
        let mut first = Some(open_in(cache.path()));
        let (twin, untouched) = (MemoryIndex::new(), MemoryIndex::new());
        walk(&world, &before, cache.path(), &mut first, &twin);
        for step in &before {
            take(step, &world, &untouched);
        }
        let mut second = Some(open_in(cache.path()));
        {
            let second = second.as_ref().unwrap();
            prop_assert!(second.shared && second.rebuilt_because.is_none());
        }
        // The first one's pending packs are its own affair.
        for id in twin.pending_packs().unwrap() {
            twin.remove_pack(&id).unwrap();
        }
        walk(&world, &after, cache.path(), &mut second, &twin);
        drop(second);
        prop_assert_eq!(overlays(cache.path()), 0);
        let first = first.unwrap();
        prop_assert_eq!(content(first.index.as_ref()).unwrap(), content(&untouched).unwrap());
    }
}

/// Repeatable numbers that look random; the failing ones need no seed.
fn numbers() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(20_261_121_u64), |state| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    })
    .map(|state| state >> 33)
}

#[test]
fn a_load_larger_than_memory_behaves_like_its_twin() {
    const POOL: u64 = 30_000;
    let cache = tempfile::tempdir().unwrap();
    let (opened, twin) = (open_in(cache.path()), MemoryIndex::new());
    let indexes: [&dyn LocalIndex; 2] = [opened.index.as_ref(), &twin];
    let mut numbers = numbers();
    let mut pack = |number| {
        let frames =
            [300, 0, 700].map(|count| numbers.by_ref().take(count).map(|n| n % POOL).collect());
        new_pack(number, &frames)
    };
    let packs: Vec<NewPack> = (0..80).map(&mut pack).collect();
    let ids: Vec<ChunkId> = (0..POOL).map(chunk_id).collect();
    let same = |when: &str| {
        let [mut one, mut other] = [Vec::new(), Vec::new()];
        indexes[0].lookup_many(&ids, &mut one).unwrap();
        indexes[1].lookup_many(&ids, &mut other).unwrap();
        assert!(one == other, "{when}");
        assert_eq!(indexes[0].counts().unwrap(), indexes[1].counts().unwrap(), "{when}");
        one.iter().flatten().count()
    };
    // One load into nothing, one over what is there; each spills more than once.
    for half in packs.chunks(40) {
        for index in indexes {
            let mut load = index.begin_load().unwrap();
            half.iter().for_each(|pack| load.add(pack).unwrap());
            load.finish(&[segment_id(1)]).unwrap();
        }
        assert!(same("after a load") > 20_000);
    }
    for index in indexes {
        let mut load = index.begin_load().unwrap();
        (100..140).for_each(|number| {
            load.add(&NewPack { id: pack_id(number), ..packs[3].clone() }).unwrap()
        });
        drop(load);
    }
    same("after a load that was dropped");
    for number in (0..80).filter(|number| number % 3 != 0) {
        assert!(indexes.map(|index| index.remove_pack(&pack_id(number)).unwrap()) == [true, true]);
    }
    same("after removals");
}
