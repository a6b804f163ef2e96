//! Goal: collections lose nothing that an acknowledged snapshot needs and leave nothing that none
//! needs, whatever else works at the same time, and wherever they die.
//! Method: simulations under seeds (`cairn_tests::simulate`), each weakening of the protocol that
//! must be caught, a death at every store call of a collection, and faults of the store.

use std::sync::Arc;

use cairn_engine::collect::Weakness;
use cairn_tests::simulate::{World, run};

/// Seeds that every run of the tests takes; `make simulate` takes as many as one likes.
const SEEDS: u64 = 400;
/// Seeds within which a weakened protocol must be found wrong.
const SEEDS_OF_MUTANTS: u64 = 3_000;

#[test]
fn simulations_lose_nothing_and_leave_nothing() {
    let world = Arc::new(World::new());
    let (mut deleted, mut rescued, mut repaired, mut repeats, mut deaths) = (0, 0, 0, 0, 0);
    for seed in 0..SEEDS {
        match run(&world, seed, None) {
            Ok(course) => {
                deleted += course.deleted;
                rescued += course.rescued;
                repaired += course.repaired;
                repeats += course.repeats;
                deaths += course.deaths;
            }
            Err(violation) => panic!("{violation}"),
        }
    }
    // What the protocol is for must have happened, or nothing was tested.
    cairn_tests::say(&format!(
        "{SEEDS} seeds: {deleted} packs deleted, {rescued} chunks rescued by collections, {repaired} stored anew by writers, {repeats} sources read again, {deaths} deaths"
    ));
    assert!(deleted > 0 && rescued > 0 && repaired + repeats > 0 && deaths > 0);
}

fn is_caught(weakness: Weakness) {
    let world = Arc::new(World::new());
    let caught = (0..SEEDS_OF_MUTANTS).find_map(|seed| {
        let violation = run(&world, seed, Some(weakness)).err()?;
        violation.contains("is lost").then_some((seed, violation))
    });
    let (seed, violation) = caught.expect("no seed shows that the protocol is wrong");
    cairn_tests::say(&format!("{weakness:?} is caught by seed {seed}: {violation}"));
}

#[test]
fn a_writer_that_does_not_look_again_is_caught() {
    is_caught(Weakness::Precheck);
}

#[test]
fn a_collection_that_does_not_list_snapshots_again_is_caught() {
    is_caught(Weakness::NoResweep);
}

#[test]
fn a_collection_that_does_not_list_tombs_again_is_caught() {
    is_caught(Weakness::StaleTombs);
}
