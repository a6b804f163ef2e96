//! The record types of a cairn repository and their codec.
//!
//! `SPEC.md` beside this crate is the norm; this crate is its Rust form: pure functions between
//! bytes and checked values, without I/O, without secrets, without dependencies.

pub mod certificate;
pub mod codec;
pub mod envelope;
pub mod error;
pub mod format_object;
pub mod hex;
pub mod ids;
pub mod limits;
pub mod names;
pub mod node;
pub mod pack;
pub mod parity;
pub mod receipt;
pub mod record;
pub mod segment;
pub mod slot;
pub mod tree;
