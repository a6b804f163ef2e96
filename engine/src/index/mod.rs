//! (to be written)

pub mod local;
