//! Finding where chunks end.

use std::hint::black_box;

use cairn_benches::data;
use cairn_engine::chunk::{ALIGNED_BYTES_DEFAULT, CHUNKER_DEFAULT, ContentCutter, Cutter};
use criterion::{Criterion, Throughput};

const BYTES: usize = 4 << 20;

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunk");
    group.throughput(Throughput::Bytes(BYTES as u64));
    let content = Cutter::Content(Box::new(ContentCutter::new(CHUNKER_DEFAULT, gear())));
    let aligned = Cutter::Aligned(ALIGNED_BYTES_DEFAULT);
    for (kind, bytes) in [
        ("random", data::noise(BYTES, 1)),
        ("text", data::text(BYTES, 1)),
        ("pages", data::pages(BYTES, 1)),
    ] {
        group.bench_function(format!("content/{kind}"), |bencher| {
            bencher.iter(|| cut(&content, black_box(&bytes)));
        });
        if kind == "pages" {
            group.bench_function(format!("aligned/{kind}"), |bencher| {
                bencher.iter(|| cut(&aligned, black_box(&bytes)));
            });
        }
    }
    group.finish();
}

/// Returns the number of chunks.
fn cut(cutter: &Cutter, mut rest: &[u8]) -> usize {
    let mut chunks = 0;
    while !rest.is_empty() {
        let (_, after) = rest.split_at(cutter.next(rest));
        rest = after;
        chunks += 1;
    }
    chunks
}

fn gear() -> [u64; 256] {
    let mut bytes = [0; 256 * 8];
    bytes.copy_from_slice(&data::noise(256 * 8, 9));
    let mut table = [0; 256];
    for (value, source) in table.iter_mut().zip(bytes.as_chunks().0) {
        *value = u64::from_le_bytes(*source);
    }
    table
}
