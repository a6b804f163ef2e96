//! Restoring from a store in memory to files in memory.

use cairn_benches::repository::InMemory;
use cairn_benches::tree::{SourceTree, scratch};
use cairn_engine::ops::restore::{self, RestoreOptions};
use cairn_engine::ops::snapshots;
use criterion::{BatchSize, Criterion};

use crate::backup::{SOURCE_BYTES, slow_group};

pub fn bench(criterion: &mut Criterion) {
    let source = SourceTree::new(SOURCE_BYTES).expect("a source");
    let repository = InMemory::new().expect("a repository");
    repository.back_up(source.path(), false).expect("a backup");
    let snapshot = snapshots::select(&repository.repository, "latest").expect("a snapshot");
    let mut group = slow_group(criterion, "restore", source.bytes());
    group.bench_function("all", |bencher| {
        bencher.iter_batched(
            scratch,
            |target| {
                let options = RestoreOptions::new(snapshot.clone(), target.path().to_owned());
                let report = restore::run(&repository.repository, &options).expect("a restore");
                assert_eq!((report.failure_count, report.damage_count), (0, 0));
                // Deleting the files does not count.
                target
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}
