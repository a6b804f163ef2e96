//! Compressing frames (with the probe, and the decoding that proves each) and undoing it.

use std::hint::black_box;

use cairn_benches::data;
use cairn_engine::frame::{COMPRESSION_LEVEL_DEFAULT, FrameCodec};
use criterion::{Criterion, Throughput};

const BYTES: u32 = 1 << 20;

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Bytes(u64::from(BYTES)));
    let mut codec = FrameCodec::new(COMPRESSION_LEVEL_DEFAULT).expect("a codec");
    for (kind, plain) in [
        ("text", data::text(BYTES as usize, 1)),
        ("random", data::noise(BYTES as usize, 1)),
        ("pages", data::pages(BYTES as usize, 1)),
    ] {
        group.bench_function(format!("encode/{kind}"), |bencher| {
            bencher.iter(|| codec.encode(black_box(&plain)).map(|(_, stored)| stored.len()));
        });
        let (stored_as, stored) = codec.encode(&plain).expect("a frame");
        let stored = stored.to_vec();
        let mut decoded = Vec::new();
        codec.decode(stored_as, &stored, BYTES, &[], &mut decoded).expect("the frame again");
        assert_eq!(decoded, plain, "what is timed must succeed");
        group.bench_function(format!("decode/{kind}"), |bencher| {
            bencher.iter(|| codec.decode(stored_as, black_box(&stored), BYTES, &[], &mut decoded));
        });
    }
    group.finish();
}
