//! States from which the same can happen are visited once: writers are all alike, and so are
//! collections, each with what it has stored; what nobody looks at any more, and what is gone and
//! remembered by nobody, makes no difference; and what a writer does next that depends on nobody and
//! that nobody sees, it does at once.
//!
//! What is wrong with a state is wrong with each that it stands for: no violation names an actor, a pack
//! that is gone, or what an actor remembers.

use super::{ATTEMPTS_ROOM, PACKS_FIRST, Packs, Protocol, SNAPSHOT_FIRST, State, UPLOADS_ROOM};

/// The state that stands for all from which the same can happen.
pub(super) fn representative(protocol: &Protocol, state: State) -> State {
    let state = forget(protocol, state);
    let mut least = state;
    let swapped = (protocol.writers == 2).then(|| swap_writers(state));
    for state in [Some(state), swapped].into_iter().flatten() {
        let swapped = (protocol.collectors == 2).then(|| swap_collectors(protocol, state));
        least = swapped.into_iter().chain([state]).fold(least, State::min);
    }
    least
}

/// All sets of packs.
fn sets_mut(state: &mut State) -> [&mut Packs; 12] {
    let State { present, tombs, writers: [w, x], collectors: [c, d], .. } = state;
    let ([w], [x]) = (w.packs_mut(), x.packs_mut());
    let ([c1, c2, c3, c4], [d1, d2, d3, d4]) = (c.packs_mut(), d.packs_mut());
    [present, tombs, w, x, c1, c2, c3, c4, d1, d2, d3, d4]
}

/// Without what nobody looks at any more.
fn forget(protocol: &Protocol, mut state: State) -> State {
    let before = state;
    let mut remembered = state.present;
    for (number, writer) in state.writers.iter_mut().take(protocol.writers).enumerate() {
        if !writer.simplify(protocol, &before) {
            // It looks what it has stored itself, there or not.
            remembered |= writer.seen() | stored_by(number);
        }
    }
    for collector in &mut state.collectors {
        collector.simplify(protocol, state.present);
        remembered |= collector.refers_to();
    }
    // What one knows to be condemned and another has yet to find out does make a difference.
    let differing = |one: &super::Collector| one.differing_tombs(protocol, state.tombs);
    let differs = state.collectors.iter().map(differing).fold(0, |all, one| all | one);
    for pack in (0..Packs::BITS).filter(|pack| remembered & (1 << pack) == 0) {
        state.contents &= !(3 << (2 * pack));
    }
    let gone = !remembered & !differs;
    state.tombs &= !gone;
    state.collectors.iter_mut().for_each(|collector| collector.forget_tombs(gone));
    state
}

/// Room for what an actor stores.
fn stored_by(actor: usize) -> Packs {
    ((1 << UPLOADS_ROOM) - 1) << (PACKS_FIRST + actor * usize::from(UPLOADS_ROOM))
}

fn swap_writers(mut state: State) -> State {
    swap_packs(&mut state, 0, 1);
    state.writers.swap(0, 1);
    let (first, count) = (SNAPSHOT_FIRST.trailing_zeros() + 1, u32::from(ATTEMPTS_ROOM));
    let swap = |snapshots: &mut u8| {
        *snapshots = swap_bits(u32::from(*snapshots), first, first + count, count) as u8;
    };
    swap(&mut state.snapshots);
    swap(&mut state.acknowledged);
    state.collectors.iter_mut().for_each(|collector| swap(collector.snapshots_mut()));
    state.writers.iter_mut().for_each(|writer| swap(writer.relies_on_mut()));
    state
}

fn swap_collectors(protocol: &Protocol, mut state: State) -> State {
    swap_packs(&mut state, protocol.writers, protocol.writers + 1);
    state.collectors.swap(0, 1);
    state
}

/// What one actor has stored becomes what the other has.
fn swap_packs(state: &mut State, one: usize, other: usize) {
    let count = u32::from(UPLOADS_ROOM);
    let first = |actor: usize| (PACKS_FIRST + actor * usize::from(UPLOADS_ROOM)) as u32;
    let (one, other) = (first(one), first(other));
    for set in sets_mut(state) {
        *set = swap_bits(u32::from(*set), one, other, count) as Packs;
    }
    state.contents = swap_bits(state.contents, 2 * one, 2 * other, 2 * count);
}

/// Swaps so many bits from one place on with those from another on.
const fn swap_bits(bits: u32, one: u32, other: u32, count: u32) -> u32 {
    let differ = ((bits >> one) ^ (bits >> other)) & ((1 << count) - 1);
    bits ^ (differ << one) ^ (differ << other)
}
