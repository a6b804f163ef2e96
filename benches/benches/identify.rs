//! Naming chunks: keyed BLAKE3.

use std::hint::black_box;

use cairn_benches::data;
use cairn_engine::seal::{Keys, Roots, SeededRandom};
use cairn_format::ids::RepositoryId;
use criterion::{Criterion, Throughput};

const BYTES: usize = 64 << 10;

pub fn bench(criterion: &mut Criterion) {
    let keys = keys();
    let chunk = data::noise(BYTES, 1);
    let mut group = criterion.benchmark_group("identify");
    group.throughput(Throughput::Bytes(BYTES as u64));
    group.bench_function("64KiB", |bencher| bencher.iter(|| keys.chunk_id(black_box(&chunk))));
    group.finish();
}

/// An owner's keys of some repository.
pub fn keys() -> Keys {
    let repository = RepositoryId::from_bytes([7; 16]);
    Roots::generate(repository, &SeededRandom::new(1))
        .and_then(Keys::from_roots)
        .expect("keys from a working source of randomness")
}
