//! Tests through the library: over stores in memory that fail as planned, and over real folders.

#[path = "engine/crash.rs"]
mod crash;
#[path = "engine/damage.rs"]
mod damage;
#[path = "engine/hostile.rs"]
mod hostile;
#[path = "engine/together.rs"]
mod together;
