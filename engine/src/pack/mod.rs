//! Packs: many frames in one object (SPEC §6). The builder fills one in memory; the reader opens
//! packs, their directories and single frames.

pub mod builder;
pub mod reader;
