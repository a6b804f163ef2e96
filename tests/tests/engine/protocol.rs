//! Goal: the protocol of collection loses nothing that was acknowledged, in whatever order writers
//! and collections take their steps, and wherever they die; and every part of it is needed.
//! Method: all states of a model are visited where they are not too many, else those that take the
//! fewest steps. Each way to weaken the protocol has to be found out.

use cairn_tests::protocol::{Checked, First, Flaw, Protocol, check};
use cairn_tests::say;

/// States visited at most: some seconds each, and 200 MB.
const STATES_MAX: usize = 2_500_000;
/// Two writers beside two collections have far too many states where all of them store: so many of the
/// nearest.
const STATES_OF_FOUR: usize = 1_000_000;

fn visited(protocol: Protocol, states_max: usize) -> Checked {
    let checked = check(&protocol, states_max);
    let all = if checked.complete { "all" } else { "the nearest" };
    say(&format!("{protocol:?}: {all} {} states", checked.states));
    checked
}

fn sound(writers: usize, collectors: usize, uploads_max: u8, first: First) -> Protocol {
    let copies_max = uploads_max;
    let (relies, flaw) = (false, None);
    Protocol { writers, collectors, uploads_max, copies_max, attempts_max: 3, relies, first, flaw }
}

/// The same with writers that take what a snapshot has for stored.
fn relying(writers: usize, collectors: usize, uploads_max: u8, first: First) -> Protocol {
    Protocol { relies: true, attempts_max: 2, ..sound(writers, collectors, uploads_max, first) }
}

fn always_holds(protocol: Protocol) {
    let checked = visited(protocol, STATES_MAX);
    assert_eq!(checked.violation, None);
    assert!(checked.complete, "there are more than {STATES_MAX} states");
}

fn is_found(writers: usize, collectors: usize, first: First, flaw: Flaw) {
    found_out(sound(writers, collectors, 2, first), flaw);
}

fn found_out(protocol: Protocol, flaw: Flaw) {
    let protocol = Protocol { flaw: Some(flaw), ..protocol };
    let way = visited(protocol, STATES_MAX).violation;
    let way = way.unwrap_or_else(|| panic!("{flaw:?} is not found out"));
    say(&format!("{flaw:?}: {}", way.join("; ")));
}

#[test]
fn writers_beside_a_collection_lose_nothing() {
    for first in [First::Data, First::Base] {
        always_holds(sound(1, 1, 2, first));
        always_holds(sound(2, 1, 2, first));
    }
}

#[test]
fn two_collections_beside_a_writer_lose_nothing() {
    always_holds(sound(1, 2, 1, First::Base));
    always_holds(sound(1, 2, 1, First::Data));
}

/// Either collections store, and writers rely on what they find, or writers do.
#[test]
fn two_writers_and_two_collections_lose_nothing_where_one_kind_stores() {
    for first in [First::Data, First::Base] {
        always_holds(Protocol { uploads_max: 0, ..sound(2, 2, 1, first) });
    }
    always_holds(Protocol { copies_max: 0, ..sound(2, 2, 2, First::Data) });
}

#[test]
fn two_writers_and_two_collections_lose_nothing_within_the_nearest_states() {
    for first in [First::Data, First::Base] {
        let checked = visited(sound(2, 2, 2, first), STATES_OF_FOUR);
        assert_eq!(checked.violation, None);
    }
}

#[test]
fn writers_that_rely_on_snapshots_lose_nothing() {
    for first in [First::Data, First::Base] {
        always_holds(relying(1, 1, 2, first));
        always_holds(relying(2, 1, 1, first));
        always_holds(relying(1, 2, 1, first));
    }
}

#[test]
fn a_writer_that_does_not_ask_for_the_snapshot_it_relies_on_is_found_out() {
    found_out(relying(1, 1, 1, First::Data), Flaw::WriterTrustsSnapshots);
}

#[test]
fn a_writer_that_asks_for_it_only_if_condemned_packs_are_there_still_is_found_out() {
    found_out(relying(1, 1, 1, First::Data), Flaw::PresentTombs);
}

#[test]
fn a_writer_that_relies_on_what_is_not_acknowledged_is_found_out() {
    found_out(relying(2, 1, 1, First::Data), Flaw::UnprovenSnapshots);
}

#[test]
fn a_collection_that_does_not_list_again_where_a_snapshot_vanished_is_found_out() {
    found_out(relying(2, 1, 1, First::Data), Flaw::VanishedSnapshots);
}

#[test]
fn of_two_copies_the_sound_one_stays() {
    always_holds(sound(0, 2, 2, First::DamagedBase));
}

#[test]
fn a_writer_that_does_not_look_again_is_found_out() {
    is_found(1, 1, First::Data, Flaw::Precheck);
}

#[test]
fn a_collection_that_does_not_list_snapshots_again_is_found_out() {
    is_found(1, 1, First::Data, Flaw::NoResweep);
}

#[test]
fn a_collection_that_looks_for_copies_with_old_tombs_is_found_out() {
    is_found(0, 2, First::Data, Flaw::StaleTombs);
}

#[test]
fn a_collection_that_drops_copies_unread_is_found_out() {
    is_found(0, 1, First::DamagedBase, Flaw::UnreadCopies);
}

#[test]
fn a_writer_that_forgets_bases_is_found_out() {
    is_found(1, 1, First::Base, Flaw::WriterForgetsBases);
}

#[test]
fn a_collection_that_forgets_bases_is_found_out() {
    is_found(1, 1, First::Data, Flaw::CollectorForgetsBases);
}

#[test]
fn a_collection_that_deletes_by_tombs_listed_after_the_snapshots_is_found_out() {
    is_found(1, 2, First::Base, Flaw::LateTombs);
}
