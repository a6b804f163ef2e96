//! `simulate [SEEDS] [FIRST] [PROFILE|all]`: runs so many simulations of writers and collections at
//! work on one repository, beginning with a seed, on all cores, on a service of this profile, or each
//! of them in turn. Prints the violations with their seeds.
//!
//! Services that do not keep their word about listings (`stale`, `pages-lost`) run without collections,
//! and so have to lose nothing.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cairn_tests::say;
use cairn_tests::service::Profile;
use cairn_tests::simulate::{Course, Trial, World, run};
use parking_lot::Mutex;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = |otherwise| match arguments.next() {
        None => Some(otherwise),
        Some(text) => text.parse::<u64>().ok(),
    };
    let (seeds, first) = (number(10_000), number(0));
    let profiles = match arguments.next().as_deref() {
        None => Some(vec![Profile::Strong]),
        Some("all") => Some(Profile::ALL.to_vec()),
        Some(name) => Profile::named(name).map(|profile| vec![profile]),
    };
    let (Some(seeds), Some(first), Some(profiles)) = (seeds, first, profiles) else {
        let names = Profile::ALL.map(Profile::name).join(", ");
        say(&format!("simulate [SEEDS] [FIRST] [PROFILE]; profiles: all, {names}"));
        return ExitCode::FAILURE;
    };
    let violations = profiles.into_iter().map(|profile| simulate(seeds, first, profile));
    if violations.sum::<u64>() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs so many simulations; returns how many violations there were.
fn simulate(seeds: u64, first: u64, profile: Profile) -> u64 {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let all = Mutex::new(Course::default());
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
                    let mut trial = Trial::new(first.wrapping_add(number), profile);
                    trial.collects = profile.keeps_its_word();
                    match run(&world, &trial) {
                        Ok(course) => all.lock().add(&course),
                        Err(violation) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            say(&violation);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    say(&format!(
        "{seeds} simulations from seed {first}, profile {}, {:.0} s: {failed} violations; {:?}",
        profile.name(),
        begun.elapsed().as_secs_f64(),
        all.into_inner()
    ));
    failed
}
