//! cairn's engine: content-addressed, deduplicating, encrypting backup as a library.
//!
//! Data goes one way. Backup: source -> chunk -> identify -> frame -> seal -> pack -> store ->
//! index -> snapshot. Restore is the same road back. The engine never prints, never reads the
//! environment and never exits; every operation is Options -> Plan -> Report.

pub mod chunk;
pub mod collect;
pub mod context;
pub mod delta;
pub mod error;
pub mod frame;
pub mod index;
pub mod ops;
pub mod pack;
pub mod parity;
pub mod pipeline;
pub mod repo;
pub mod retention;
pub mod seal;

pub mod source;
pub mod store;
pub mod target;
pub mod timings;
pub mod tree;

#[cfg(doc)]
#[doc = include_str!("../../ARCHITECTURE.md")]
pub mod architecture {}
