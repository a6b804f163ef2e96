//! Goal: collections lose nothing that an acknowledged snapshot needs and leave nothing that none
//! needs, whatever else works at the same time, wherever they die, and whatever the store does.
//! Method: simulations under seeds (`cairn_tests::simulate`) on services of every profile
//! (`cairn_tests::service`). Each weakening of the protocol, an engine that does not listen to its store,
//! and tampering with what is there must be noticed: else the simulator proves nothing.

use std::sync::Arc;

use cairn_engine::collect::Weakness;
use cairn_tests::say;
use cairn_tests::service::Profile;
use cairn_tests::simulate::mutant::{Careless, Mutant, Tamper};
use cairn_tests::simulate::{Course, Trial, World, run};

/// Seeds that every run of the tests takes; `make simulate` takes as many as one likes.
const SEEDS: u64 = 200;
/// As many for each of the other profiles.
const SEEDS_OF_PROFILES: u64 = 20;
/// As many in which healing condemns what it has not stored elsewhere.
const SEEDS_OF_CONDEMNED: u64 = 40;
/// Seeds within which what is weakened must be noticed.
const SEEDS_OF_MUTANTS: u64 = 1_000;

fn simulate(profile: Profile, seeds: u64) -> Course {
    let world = Arc::new(World::new());
    let mut all = Course::default();
    for seed in 0..seeds {
        match run(&world, &Trial::new(seed, profile)) {
            Ok(course) => all.add(&course),
            Err(violation) => panic!("{violation}"),
        }
    }
    // What the protocol is for must have happened, or nothing was tested.
    say(&format!("{}, {seeds} seeds: {all:?}", profile.name()));
    assert!(all.deleted > 0 && all.deaths > 0);
    assert_eq!(all.strikes > 0, profile != Profile::Strong);
    all
}

#[test]
fn simulations_lose_nothing_and_leave_nothing() {
    let all = simulate(Profile::Strong, SEEDS);
    assert!(all.rescued > 0 && all.repaired + all.repeats > 0);
    assert!(all.deltas > 0 && all.rebased > 0);
    assert!(all.erased > 0 && all.copied > 0 && all.healed > 0);
}

#[test]
fn listings_in_no_order_that_repeat_entries_change_nothing() {
    simulate(Profile::Unordered, SEEDS_OF_PROFILES);
}

#[test]
fn nothing_is_lost_where_listings_go_on_to_show_what_was_deleted() {
    simulate(Profile::Lingering, SEEDS_OF_PROFILES);
}

#[test]
fn calls_that_fail_lose_nothing_whether_or_not_they_were_carried_out() {
    simulate(Profile::Failing, SEEDS_OF_PROFILES);
}

#[test]
fn listings_that_break_off_lose_nothing() {
    simulate(Profile::ListsBreak, SEEDS_OF_PROFILES);
}

#[test]
fn puts_and_deletions_that_are_late_or_doubled_lose_nothing() {
    simulate(Profile::Late, SEEDS_OF_PROFILES);
}

#[test]
fn bits_that_flip_on_the_way_lose_nothing() {
    simulate(Profile::Flipping, SEEDS_OF_PROFILES);
}

#[test]
fn puts_that_leave_part_of_an_object_lose_nothing() {
    simulate(Profile::Torn, SEEDS_OF_PROFILES);
}

#[test]
fn puts_that_are_lost_cost_what_they_held_and_nothing_else() {
    simulate(Profile::Losing, SEEDS_OF_PROFILES);
}

/// A pack whose put was acknowledged and lost, found missing when a replication was tried again, after it
/// had been relied on.
#[test]
fn a_replication_relies_on_nothing_that_it_found_missing() {
    let world = Arc::new(World::new());
    let course = run(&world, &Trial::new(10_139, Profile::Losing));
    assert!(course.unwrap_or_else(|violation| panic!("{violation}")).copied > 0);
}

/// Packs of a writer's key that a replication had put when damage at home made it go on one by one.
#[test]
fn a_replication_relies_on_nothing_that_it_has_not_named() {
    let world = Arc::new(World::new());
    let course = run(&world, &Trial::new(30_004, Profile::Unordered));
    assert!(course.unwrap_or_else(|violation| panic!("{violation}")).copied > 0);
}

#[test]
fn deletions_that_were_not_carried_out_get_no_receipt() {
    simulate(Profile::Keeping, SEEDS_OF_PROFILES);
}

#[test]
fn objects_that_are_locked_for_a_while_go_afterwards() {
    simulate(Profile::Locked, SEEDS_OF_PROFILES);
}

#[test]
fn versions_of_what_nothing_needs_are_purged_and_no_others() {
    let all = simulate(Profile::Versioned, SEEDS_OF_PROFILES);
    assert!(all.purged > 0);
}

#[test]
fn deletions_that_can_be_undone_disturb_nobody() {
    simulate(Profile::SoftDelete, SEEDS_OF_PROFILES);
}

#[test]
fn nothing_rests_on_conditional_puts() {
    simulate(Profile::Unconditional, SEEDS_OF_PROFILES);
}

#[test]
fn a_condition_that_is_ignored_loses_nothing() {
    simulate(Profile::IgnoresCondition, SEEDS_OF_PROFILES);
}

#[test]
fn a_put_that_lies_about_its_condition_loses_nothing() {
    simulate(Profile::LiesAboutCondition, SEEDS_OF_PROFILES);
}

/// Services that do not keep their word about listings may hold no home copy (SPEC section 12). Without
/// collections nothing is lost there either, and beside collections much is: what this rests on is
/// needed.
fn rests_on_listings(profile: Profile) {
    assert!(!profile.keeps_its_word());
    let world = Arc::new(World::new());
    let mut all = Course::default();
    for seed in 0..SEEDS_OF_PROFILES {
        let trial = Trial { collects: false, ..Trial::new(seed, profile) };
        match run(&world, &trial) {
            Ok(course) => all.add(&course),
            Err(violation) => panic!("{violation}"),
        }
    }
    assert!(all.strikes > 0 && all.snapshots > 0, "{all:?}");
    is_noticed(None, profile, "is lost");
}

#[test]
fn listings_that_lag_are_what_no_home_copy_may_have() {
    rests_on_listings(Profile::Stale);
}

#[test]
fn listings_that_lose_pages_are_what_no_home_copy_may_have() {
    rests_on_listings(Profile::PagesLost);
}

/// What is weakened makes some seed show a violation that says so.
fn is_noticed(mutant: impl Into<Option<Mutant>>, profile: Profile, word: &str) {
    let (world, mutant) = (Arc::new(World::new()), mutant.into());
    let mut others = Vec::new();
    let noticed = (0..SEEDS_OF_MUTANTS).find_map(|seed| {
        let violation = run(&world, &Trial { mutant, ..Trial::new(seed, profile) }).err()?;
        if violation.contains(word) {
            return Some((seed, violation));
        }
        others.push(violation);
        None
    });
    let what = format!("{mutant:?}, {}", profile.name());
    let (seed, violation) = noticed.unwrap_or_else(|| {
        let (count, first) = (others.len(), others.first());
        panic!("{what}: no seed shows it; {count} show something else: {first:?}")
    });
    say(&format!("{what}: noticed by seed {seed}: {violation}"));
}

#[test]
fn a_writer_that_does_not_look_again_is_noticed() {
    is_noticed(Mutant::Protocol(Weakness::Precheck), Profile::Strong, "is lost");
}

#[test]
fn a_collection_that_does_not_list_snapshots_again_is_noticed() {
    is_noticed(Mutant::Protocol(Weakness::NoResweep), Profile::Strong, "is lost");
}

#[test]
fn a_collection_that_does_not_list_tombs_again_is_noticed() {
    is_noticed(Mutant::Protocol(Weakness::StaleTombs), Profile::Strong, "is lost");
}

#[test]
fn a_weakened_protocol_is_noticed_on_services_that_are_late() {
    is_noticed(Mutant::Protocol(Weakness::Precheck), Profile::Late, "is lost");
}

#[test]
fn an_erasure_that_leaves_what_it_reports_erased_is_noticed() {
    is_noticed(Mutant::ErasesNothing, Profile::Strong, "which was erased");
}

#[test]
fn a_replication_that_does_not_look_again_is_noticed() {
    is_noticed(Mutant::HastyReplication, Profile::Strong, "replica, after");
}

#[test]
fn a_replication_that_forgets_what_home_has_is_noticed() {
    is_noticed(Mutant::ForgetsOnReplica, Profile::Strong, "which home has");
}

/// A collection does not delete what is needed and stands nowhere else, though healing condemned it.
#[test]
fn healing_that_gives_up_what_is_needed_loses_nothing() {
    let world = Arc::new(World::new());
    let mutant = Some(Mutant::HealsNothing);
    for seed in 0..SEEDS_OF_CONDEMNED {
        let outcome = run(&world, &Trial { mutant, ..Trial::new(seed, Profile::Strong) });
        assert!(!outcome.is_err_and(|violation| violation.contains("is lost")), "seed {seed}");
    }
}

#[test]
fn healing_that_takes_wrong_bytes_is_noticed() {
    is_noticed(Mutant::HealsWrongly, Profile::Strong, "with bytes of another name");
}

#[test]
fn a_reader_that_does_not_ask_the_replica_is_noticed() {
    is_noticed(Mutant::ReadsNotAround, Profile::Strong, "a reader cannot read");
}

#[test]
fn an_engine_that_ignores_failed_puts_is_noticed() {
    let ignores = Mutant::Careless(Careless::Puts);
    for profile in [
        Profile::Failing,
        Profile::Torn,
        Profile::Unconditional,
        Profile::IgnoresCondition,
        Profile::LiesAboutCondition,
    ] {
        is_noticed(ignores, profile, "is lost");
    }
}

#[test]
fn an_engine_that_takes_part_of_a_listing_for_all_of_it_is_noticed() {
    is_noticed(Mutant::Careless(Careless::Lists), Profile::ListsBreak, "is lost");
    is_noticed(Mutant::Careless(Careless::Repeats), Profile::Unordered, "");
}

#[test]
fn an_engine_that_takes_deletions_for_done_is_noticed() {
    for profile in [Profile::Keeping, Profile::Locked] {
        is_noticed(Mutant::Careless(Careless::Deletions), profile, "and it is there");
    }
}

#[test]
fn an_engine_that_does_not_purge_versions_is_noticed() {
    is_noticed(Mutant::Careless(Careless::Versions), Profile::Versioned, "as an older version");
}

/// What somebody deleted though it is needed can be brought back from the version below the mark.
#[test]
fn an_engine_that_purges_versions_that_are_needed_is_noticed() {
    let purges = Mutant::Careless(Careless::NeededVersions);
    is_noticed(purges, Profile::Versioned, "after a purge of");
}

#[test]
fn losses_of_the_service_are_noticed() {
    is_noticed(Mutant::CountsLosses, Profile::Losing, "is lost");
}

#[test]
fn keys_that_are_used_twice_are_noticed() {
    is_noticed(Mutant::RepeatedRandom, Profile::Strong, "with the data key of");
}

#[test]
fn tampering_with_what_is_there_is_noticed() {
    for (tamper, word) in [
        (Tamper::NeededPack, "is lost"),
        (Tamper::FlippedBit, "is lost"),
        (Tamper::ReplicaPack, "replica, "),
        (Tamper::Remade, "it was reported done"),
        (Tamper::DeadPack, "still holds the dead chunk"),
        (Tamper::Segments, "no segment names pack"),
        (Tamper::Receipts, "no receipt says"),
        (Tamper::Reported, "it was reported done"),
    ] {
        is_noticed(Mutant::Tamper(tamper), Profile::Strong, word);
    }
}
