//! Knowing where chunks are: index segments in the store, the local index on this host, and the
//! catalog that keeps the second in step with the first; and what else of the store is remembered there.

pub mod catalog;
pub mod local;
pub mod objects;
pub mod segments;
