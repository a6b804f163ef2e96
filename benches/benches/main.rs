//! Micro-benchmarks of the engine: `make bench`, or `cargo bench -p cairn-benches -- NAME` for
//! those whose name contains NAME.

use std::time::Duration;

use criterion::Criterion;

mod backup;
mod chunk;
mod frame;
mod identify;
mod local_index;
mod restore;
mod seal;
mod verify;

fn main() {
    // Short, so that everything runs in a few minutes; `--measurement-time` asks for more.
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .nresamples(10_000)
        .configure_from_args();
    chunk::bench(&mut criterion);
    identify::bench(&mut criterion);
    frame::bench(&mut criterion);
    seal::bench(&mut criterion);
    local_index::bench(&mut criterion);
    backup::bench(&mut criterion);
    verify::bench(&mut criterion);
    restore::bench(&mut criterion);
    criterion.final_summary();
}
