//! The road from plaintext to durable packs: chunks are identified, known ones only named, new
//! ones compressed, sealed and uploaded, all cores at once, in bounded memory.

pub mod budget;
pub mod buffer;
pub mod failure;
pub mod inflight;
pub mod ingest;
pub mod upload;
