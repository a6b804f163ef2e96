//! Tests through the library: over stores in memory that fail as planned, and over real folders.

#[path = "engine/access.rs"]
mod access;
#[path = "engine/afar.rs"]
mod afar;
#[path = "engine/away.rs"]
mod away;
#[path = "engine/browse.rs"]
mod browse;
#[path = "engine/calls.rs"]
mod calls;
#[path = "engine/changing.rs"]
mod changing;
#[path = "engine/collect.rs"]
mod collect;
#[path = "engine/copies.rs"]
mod copies;
#[path = "engine/crash.rs"]
mod crash;
#[path = "engine/damage.rs"]
mod damage;
#[path = "engine/delta.rs"]
mod delta;
#[path = "engine/erase/mod.rs"]
mod erase;
#[path = "engine/erasure.rs"]
mod erasure;
#[path = "engine/faults.rs"]
mod faults;
#[path = "engine/fresh.rs"]
mod fresh;
#[path = "engine/frozen.rs"]
mod frozen;
#[path = "engine/heal.rs"]
mod heal;
#[path = "engine/hostile.rs"]
mod hostile;
#[path = "engine/index.rs"]
mod index;
#[path = "engine/matrix.rs"]
mod matrix;
#[path = "engine/memo.rs"]
mod memo;
#[path = "engine/month.rs"]
mod month;
#[path = "engine/parity.rs"]
mod parity;
#[path = "engine/progress.rs"]
mod progress;
#[path = "engine/protocol.rs"]
mod protocol;
#[path = "engine/races.rs"]
mod races;
#[path = "engine/reader.rs"]
mod reader;
#[path = "engine/remembered.rs"]
mod remembered;
#[path = "engine/replicate/mod.rs"]
mod replicate;
#[path = "engine/resume.rs"]
mod resume;
#[path = "engine/retention/mod.rs"]
mod retention;
#[path = "engine/shards.rs"]
mod shards;
#[path = "engine/simulate.rs"]
mod simulate;
#[path = "engine/together.rs"]
mod together;
#[path = "engine/unreadable.rs"]
mod unreadable;
