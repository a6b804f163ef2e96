//! Reading what is to be backed up: file trees, single files and devices, and byte streams.
//!
//! [`walk::Walk`] names everything below the roots in order; [`file::FileReader`] reads one file
//! and says whether it held still; [`stream`] reads standard input and commands. Nothing here
//! knows of repositories: a failure to read the source ([`error::SourceError`]) is reported and
//! the backup goes on, which must never happen to a failure of the store, so the two are
//! different types.

pub mod error;
pub mod file;
pub mod filter;
pub mod meta;
pub mod profile;
pub mod stream;
pub mod walk;

mod listing;
mod owners;
mod roots;
#[cfg(test)]
mod tests;
mod witness;
