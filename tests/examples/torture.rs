//! `torture [SECONDS] [SEED]`: lets real processes of the program work on one repository and die,
//! for so long. Prints what happened; fails when something was lost.

use std::process::ExitCode;
use std::time::Duration;

use cairn_tests::say;
use cairn_tests::seed::Seed;
use cairn_tests::torture::{Plan, report, run};

/// How long it runs unless told otherwise.
const SECONDS_DEFAULT: u64 = 300;
/// How often everything rests and is looked at.
const QUIET_EVERY: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>().ok());
    let seconds = arguments.next().flatten().unwrap_or(SECONDS_DEFAULT);
    let seed = arguments.next().flatten().unwrap_or_else(|| Seed::new().value());
    say(&format!("seed {seed}, {seconds} s"));
    let plan = Plan {
        seed,
        duration: Duration::from_secs(seconds),
        quiet_every: QUIET_EVERY,
        on_disk: true,
    };
    let course = run(&plan);
    say(&report(&plan, &course));
    if course.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
