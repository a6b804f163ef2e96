//! What people and programs see: lines, tables, JSON, progress, errors.

pub mod errors;
pub mod format;
pub mod json;
pub mod printer;
pub mod progress;
pub mod prompt;
pub mod table;
pub mod timings;
