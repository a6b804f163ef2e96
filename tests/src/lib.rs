//! Test kit: surroundings that depend on nothing of this machine, trees to back up, a comparison
//! that overlooks nothing a restore promises, damage, and the real `cairn` program as a process.
//!
//! `simulate` lets writers and collections work on one store under a seed.
//!
//! The tests are in `tests/engine` (through the library) and `tests/command` (through the
//! program). What is random follows from a seed that a failing test prints; `CAIRN_TEST_SEED`
//! repeats it.

pub mod compare;
pub mod craft;
pub mod damage;
pub mod frozen;
pub mod lab;
pub mod process;
pub mod reader;
pub mod seed;
pub mod simulate;
pub mod tree;
pub mod turns;

/// Tells whoever reads the output of the tests something that is no failure.
#[expect(clippy::print_stderr, reason = "the test harness shows it with the test that said it")]
pub fn say(text: &str) {
    eprintln!("{text}");
}
