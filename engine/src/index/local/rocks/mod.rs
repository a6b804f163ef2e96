//! The local index in files: RocksDB.

mod db;
mod handover;
mod index;
mod layers;
mod load;
#[cfg(test)]
mod model;
mod nearby;
mod open;
mod record;
mod spill;
#[cfg(test)]
mod tests;

pub(super) use open::{destroy, open};
