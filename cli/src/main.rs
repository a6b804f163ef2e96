//! `cairn`: the command line of the backup engine.

use std::process::ExitCode;

use cairn_cli::settings::{self, Environment};

fn main() -> ExitCode {
    let environment = Environment::new(std::env::vars_os());
    // SAFETY: no other thread runs yet, so nothing reads the environment meanwhile. The commands
    // that a backup runs must not inherit the passphrase.
    unsafe { std::env::remove_var(settings::PASSWORD) };
    ExitCode::from(cairn_cli::run(std::env::args_os(), environment))
}
