//! Test kit: surroundings that depend on nothing of this machine, trees to back up, a comparison
//! that overlooks nothing a restore promises, damage, and the real `cairn` program as a process.
//!
//! `simulate` lets writers and collections work on one store under a seed, on a `service` of any kind;
//! `torture` lets real processes do so, and kills them.
//!
//! `powercut` is a disk whose power can be cut.
//!
//! `protocol` is the protocol of collection as a model of which all states are visited.
//!
//! The tests are in `tests/engine` (through the library), `tests/command` (through the program)
//! and `tests/remote` (through the program, with servers that it reaches over the network). What
//! is random follows from a seed that a failing test prints; `CAIRN_TEST_SEED`
//! repeats it.

pub mod compare;
pub mod contents;
pub mod craft;
pub mod damage;
pub mod frozen;
pub mod garbage;
pub mod ground;
pub mod lab;
pub mod odd;
pub mod powercut;
pub mod process;
pub mod protocol;
pub mod reader;
pub mod seed;
pub mod servers;
pub mod service;
pub mod simulate;
pub mod torture;
pub mod tree;
pub mod turns;

/// Tells whoever reads the output of the tests something that is no failure.
#[expect(clippy::print_stderr, reason = "the test harness shows it with the test that said it")]
pub fn say(text: &str) {
    eprintln!("{text}");
}
