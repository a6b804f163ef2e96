//! `simulate [SEEDS] [FIRST]`: runs so many simulations of writers and collections at work on one
//! repository, beginning with a seed, on all cores. Prints the violations with their seeds.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cairn_tests::say;
use cairn_tests::simulate::{World, run};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>().ok());
    let seeds = arguments.next().flatten().unwrap_or(10_000);
    let first = arguments.next().flatten().unwrap_or(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, failed, calls) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let world = Arc::new(World::new());
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= seeds {
                        return;
                    }
                    match run(&world, first.wrapping_add(number), None) {
                        Ok(course) => {
                            calls.fetch_add(course.calls, Ordering::Relaxed);
                        }
                        Err(violation) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            say(&violation);
                        }
                    }
                }
            });
        }
    });
    let (failed, calls) = (failed.into_inner(), calls.into_inner());
    say(&format!(
        "{seeds} simulations from seed {first}, {calls} store calls, {:.0} s: {failed} violations",
        begun.elapsed().as_secs_f64()
    ));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
