//! Verifying a repository in memory, by structure and by reading everything.

use cairn_benches::repository::InMemory;
use cairn_benches::tree::SourceTree;
use cairn_engine::ops::verify::{self, Level, VerifyOptions};
use criterion::Criterion;

use crate::backup::{SOURCE_BYTES, slow_group};

pub fn bench(criterion: &mut Criterion) {
    let source = SourceTree::new(SOURCE_BYTES).expect("a source");
    let repository = InMemory::new().expect("a repository");
    repository.back_up(source.path(), false).expect("a backup");
    let mut group = slow_group(criterion, "verify", source.bytes());
    for (name, level) in [("structure", Level::Structure), ("full", Level::Full)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let report = verify::run(&repository.repository, &VerifyOptions { level });
                let findings = report.expect("a verification").findings;
                assert!(findings.is_empty(), "{findings:?}");
            });
        });
    }
    group.finish();
}
