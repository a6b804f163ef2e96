//! Black-box tests: they run the real `cairn` with an environment of their own.

mod arguments;
mod env;
mod files;
mod help;
mod schema;
mod secrets;
