//! The local index in files: RocksDB.

mod db;
mod handover;
mod index;
mod layers;
mod load;
mod open;
mod record;
#[cfg(test)]
mod tests;

pub(super) use open::{destroy, open};
