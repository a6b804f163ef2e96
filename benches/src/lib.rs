//! What the benchmarks share: made-up data like that of real sources, and repositories in
//! memory and on disk.
//!
//! The benchmarks themselves are in `benches/` (one file a subject, run by `make bench`),
//! `compare/` (side by side with other tools, `make bench-compare`), `history/` (months of backups,
//! `make bench-history`), `examples/` (a large index, `make bench-index`) and `measure/` (memory and
//! time of the finished command, `make measure`).

pub mod data;
pub mod on_disk;
pub mod repository;
pub mod tree;
