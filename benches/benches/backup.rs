//! A whole backup into a store in memory, from files in memory: everything new, nothing changed,
//! and everything read again although it is known.

use cairn_benches::repository::InMemory;
use cairn_benches::tree::SourceTree;
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, SamplingMode, Throughput};

/// Length of the source of whole operations, bytes.
pub const SOURCE_BYTES: usize = 256 << 20;

pub fn bench(criterion: &mut Criterion) {
    let source = SourceTree::new(SOURCE_BYTES).expect("a source");
    let mut group = slow_group(criterion, "backup", source.bytes());
    group.bench_function("first", |bencher| {
        bencher.iter_batched(
            || InMemory::new().expect("a repository"),
            |repository| {
                repository.back_up(source.path(), false).expect("a backup");
                repository
            },
            BatchSize::PerIteration,
        );
    });
    for (name, reread) in [("unchanged", false), ("reread", true)] {
        let repository = InMemory::new().expect("a repository");
        repository.back_up(source.path(), false).expect("a backup");
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let report = repository.back_up(source.path(), reread).expect("a backup");
                assert_eq!(report.statistics.bytes_new, 0);
            });
        });
    }
    group.finish();
}

/// A group for what takes long: few samples of one run each. Criterion warns that this takes
/// longer than the time it was given; it may.
pub fn slow_group<'a>(
    criterion: &'a mut Criterion,
    name: &str,
    bytes: u64,
) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(bytes)).sample_size(10).sampling_mode(SamplingMode::Flat);
    group
}
