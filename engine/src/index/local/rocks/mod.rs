//! The local index in files: RocksDB.

mod db;
mod handover;
mod index;
mod layers;
mod load;
mod lookup;
#[cfg(test)]
mod model;
mod nearby;
mod open;
mod record;
mod remove;
mod spill;
#[cfg(test)]
mod tests;

pub(super) use open::{destroy, open};
