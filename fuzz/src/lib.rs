//! What the fuzz targets do, one module for each. A module's `run` takes any bytes; the first one
//! selects what the others are fed to. It panics when the code under test breaks a promise.

pub mod fixture;
pub mod frames;
pub mod hostile_tree;
pub mod memory;
pub mod pack_parts;
pub mod parity;
pub mod plain_objects;
pub mod records;
pub mod sealed_objects;
pub mod spelling;
pub mod texts;
pub mod tree_nodes;

#[cfg(test)]
mod replay;
#[cfg(test)]
mod seeds;
