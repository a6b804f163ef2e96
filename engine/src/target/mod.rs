//! Writing a restored tree, never outside of the target directory.
//!
//! The tree may be hostile and the target may change under way, so nothing is reached by a path
//! that the kernel would resolve freely: [`contain::Root`] resolves every directory beneath the
//! target without following links, and everything else is done to single names in a directory
//! so opened. What is not covered: a process that moves a directory out of the target while an
//! entry is being created in it takes that entry along.
//!
//! A restore has two passes. [`Target::create`] makes the entries in any order that has parents
//! first, private to the process; the content of files follows through [`Target::write_at`] in
//! any order and from any thread. Then [`Target::finish`] gives every entry its owner,
//! permissions, attributes and times, a directory after all that is in it, and [`Target::sync`]
//! makes it durable.

pub mod contain;
pub mod create;
pub mod direct;
pub mod error;
pub mod file;
pub mod finish;

mod edges;
mod line;
mod open_files;
mod regions;
mod small;
#[cfg(test)]
mod tests;

pub use create::{Created, Overwrite, Owners, Target, TargetOptions};
pub use error::TargetError;
pub(crate) use finish::OwnerIds;
