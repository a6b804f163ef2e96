//! Knowing where chunks are: index segments in the store, the local index on this host, and the
//! catalog that keeps the second in step with the first.

pub mod catalog;
pub mod local;
pub mod segments;
