//! Looking chunks up in the local index of a repository with a million chunks, in RocksDB and in
//! memory.

use cairn_benches::tree::scratch;
use cairn_engine::index::local::{self, LocalIndex, LocalOptions, MemoryIndex, NewFrame, NewPack};
use cairn_format::ids::{ChunkId, PackId, RepositoryId, SegmentId, SessionId, WriterId};
use cairn_format::names::PackKind;
use criterion::{Criterion, Throughput};

const CHUNKS: u64 = 1 << 20;
const CHUNKS_PER_FRAME: u64 = 16;
const FRAMES_PER_PACK: u64 = 32;
const CHUNK_BYTES: u32 = 64 << 10;

/// Chunks asked for at once: what a worker has in its hands.
const BATCH: u64 = 512;
/// Batches asked for in turn, so that not one of them is always the last one's neighbour.
const BATCHES: u64 = 256;

pub fn bench(criterion: &mut Criterion) {
    let cache = scratch();
    let repository = RepositoryId::from_bytes([7; 16]);
    let rocks = local::open(cache.path(), repository, LocalOptions::default())
        .expect("a local index")
        .index;
    load(rocks.as_ref());
    lookups(criterion, "rocksdb", rocks.as_ref());
    drop(rocks);
    let memory = MemoryIndex::new();
    load(&memory);
    lookups(criterion, "memory", &memory);
}

fn lookups(criterion: &mut Criterion, name: &str, index: &dyn LocalIndex) {
    let mut group = criterion.benchmark_group(format!("local_index/{name}"));
    group.throughput(Throughput::Elements(BATCH));
    for (kind, first, found) in [("hits", 0, BATCH as usize), ("misses", CHUNKS, 0)] {
        let batches: Vec<Vec<ChunkId>> = (0..BATCHES).map(|number| batch(first, number)).collect();
        let (mut turn, mut places) = (batches.iter().cycle(), Vec::new());
        group.bench_function(kind, |bencher| {
            bencher.iter(|| {
                let ids = turn.next().map(Vec::as_slice).unwrap_or_default();
                index.lookup_many(ids, &mut places).expect("a look-up");
                assert_eq!(places.iter().flatten().count(), found);
            });
        });
    }
    group.finish();
}

/// Chunks from all over the index, each in no other batch.
fn batch(first: u64, number: u64) -> Vec<ChunkId> {
    (0..BATCH).map(|place| chunk(first + place * (CHUNKS / BATCH) + number)).collect()
}

fn load(index: &dyn LocalIndex) {
    let packs = CHUNKS / (CHUNKS_PER_FRAME * FRAMES_PER_PACK);
    let mut load = index.begin_load().expect("a load");
    for number in 0..packs {
        load.add(&pack(number)).expect("a pack");
    }
    load.finish(&[SegmentId::from_bytes(hash("segment", 0))]).expect("a finished load");
    assert_eq!(index.counts().expect("counts").chunks, CHUNKS);
}

fn pack(number: u64) -> NewPack {
    let frames = (0..FRAMES_PER_PACK).zip(0_u32..).map(|(frame, place)| {
        let first = (number * FRAMES_PER_PACK + frame) * CHUNKS_PER_FRAME;
        let chunks: Vec<_> =
            (first..first + CHUNKS_PER_FRAME).map(|id| (chunk(id), CHUNK_BYTES)).collect();
        NewFrame {
            offset: place * (1 << 19),
            sealed_bytes: 1 << 19,
            plain_bytes: CHUNK_BYTES * CHUNKS_PER_FRAME as u32,
            codec: 1,
            chunks,
            bases: Vec::new(),
        }
    });
    NewPack {
        id: PackId::from_bytes(hash("pack", number)),
        kind: PackKind::Data,
        bytes: FRAMES_PER_PACK as u32 * (1 << 19) + 4096,
        writer: WriterId::from_bytes([1; 16]),
        session: SessionId::from_bytes([2; 16]),
        frames: frames.collect(),
    }
}

fn chunk(number: u64) -> ChunkId {
    ChunkId::from_bytes(hash("chunk", number))
}

fn hash(kind: &str, number: u64) -> [u8; 32] {
    *blake3::Hasher::new()
        .update(kind.as_bytes())
        .update(&number.to_le_bytes())
        .finalize()
        .as_bytes()
}
