//! The operations, each Options -> Plan -> Report. They know nothing of terminals.

mod acknowledge;
pub mod backup;
pub mod browse;
pub mod diff;
pub mod dump;
pub mod erase;
pub mod erasure;
pub mod find;
pub mod forget;
pub mod gc;
pub mod heal;
pub mod lock;
pub mod ls;
pub mod repair_index;
pub mod replicate;
pub mod restore;
mod rollback;
pub mod shard;
pub mod snapshots;
pub mod stats;
pub mod verify;

#[cfg(test)]
mod tests;
