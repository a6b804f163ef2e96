//! Tests of the real program, from the outside: processes that are killed, disks that are full,
//! exit codes, memory.

#[path = "command/disk_full.rs"]
mod disk_full;
#[path = "command/exit_codes.rs"]
mod exit_codes;
#[path = "command/kill.rs"]
mod kill;
#[path = "command/killed.rs"]
mod killed;
#[path = "command/memory.rs"]
mod memory;
#[path = "command/mount.rs"]
mod mount;
#[path = "command/power.rs"]
mod power;
#[path = "command/retention.rs"]
mod retention;
