//! A backup: `engine/src/ops/backup` in a few steps.

use super::{ATTEMPTS_ROOM, Content, Flaw, Packs, Protocol, SNAPSHOT_ANY, State, each_of};

/// What it does next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum At {
    #[default]
    ListPacks,
    ListTombs,
    /// And relies on one of them, or on none.
    ListSnapshots,
    Store,
    PutSnapshot,
    ListPacksAgain,
    ListTombsAgain,
    /// Asks for the snapshot that it relies on.
    AskSnapshot,
    Copy,
    Acknowledge,
    Done,
}

/// A backup at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Writer {
    at: At,
    /// Packs it knows of; without those it knows to be condemned once it has listed tombs.
    seen: Packs,
    /// It has to store the base, or the data, out of condemned packs.
    lacks_base: bool,
    lacks_data: bool,
    uploads: u8,
    /// Snapshots it has taken back: each attempt has one of its own.
    attempt: u8,
    /// The snapshot whose data it takes for its own.
    relies_on: u8,
}

impl Writer {
    /// Packs that it refers to.
    pub(super) const fn seen(&self) -> Packs {
        self.seen
    }

    /// All that it refers to.
    pub(super) const fn packs_mut(&mut self) -> [&mut Packs; 1] {
        [&mut self.seen]
    }

    /// The snapshot that it relies on.
    pub(super) const fn relies_on_mut(&mut self) -> &mut u8 {
        &mut self.relies_on
    }

    /// Without what it does not look at any more; true when it takes no more steps, whatever the others
    /// do.
    pub(super) fn simplify(&mut self, protocol: &Protocol, state: &State) -> bool {
        if self.relies_on & !state.snapshots != 0 {
            // It does not come back.
            self.relies_on = SNAPSHOT_ANY;
        }
        match self.at {
            // It looks away from what is condemned anyway.
            At::ListTombs => self.seen &= !state.tombs,
            At::ListTombsAgain if self.relies_on == 0 => self.seen &= !state.tombs,
            At::Store if self.relies_on != 0 => {
                (self.at, self.seen) = (At::PutSnapshot, 0);
            }
            At::Store => {
                let follow = protocol.flaw != Some(Flaw::WriterForgetsBases);
                if state.has_data(self.seen, follow) {
                    // What it does then depends on nobody, and nobody sees it.
                    (self.at, self.seen) = (At::PutSnapshot, 0);
                } else if self.uploads == protocol.uploads_max {
                    self.at = At::Done;
                } else {
                    self.seen &= state.present & state.holding(Content::Base);
                }
            }
            _ => {}
        }
        let ended = self.at == At::Done;
        if ended {
            *self = Self { at: At::Done, ..Self::default() };
        }
        ended
    }

    /// The snapshot of this attempt.
    const fn snapshot(self, number: usize) -> u8 {
        super::SNAPSHOT_FIRST << (1 + ATTEMPTS_ROOM * number as u8 + self.attempt)
    }
}

pub(super) fn steps(
    protocol: &Protocol,
    state: &State,
    number: usize,
    each: &mut dyn FnMut(&'static str, usize, State),
) {
    let Some(&writer) = state.writers.get(number) else { return };
    let snapshot = writer.snapshot(number);
    let mut go = |what, mut next: State, writer: Writer| {
        if let Some(own) = next.writers.get_mut(number) {
            *own = writer;
        }
        each(what, number, next);
    };
    let listed = Writer { seen: state.present, ..writer };
    match writer.at {
        At::ListPacks => {
            go("lists packs", *state, Writer { at: At::ListTombs, ..listed });
            // It may have found the snapshot long before.
            for relies_on in found(protocol, state, writer) {
                go("relies on a snapshot", *state, Writer { at: At::Store, relies_on, ..writer });
            }
        }
        At::ListTombs => {
            let at = if protocol.relies { At::ListSnapshots } else { At::Store };
            go("lists tombs", *state, Writer { at, seen: writer.seen & !state.tombs, ..writer });
        }
        At::ListSnapshots => {
            go("relies on no snapshot", *state, Writer { at: At::Store, ..writer });
            for relies_on in found(protocol, state, writer) {
                let relying = Writer { at: At::Store, relies_on, ..writer };
                go("relies on a snapshot", *state, relying);
            }
        }
        At::Store => store(protocol, state, number, writer, &mut go),
        At::PutSnapshot => {
            let mut next = *state;
            next.snapshots |= snapshot;
            let at = match protocol.flaw {
                Some(Flaw::Precheck) => At::Acknowledge,
                _ => At::ListPacksAgain,
            };
            go("puts its snapshot", next, Writer { at, seen: 0, ..writer });
        }
        At::ListPacksAgain => {
            go("lists packs again", *state, Writer { at: At::ListTombsAgain, ..listed });
        }
        At::ListTombsAgain => look_again(protocol, state, number, writer, &mut go),
        At::AskSnapshot => {
            let is_there = writer.relies_on & state.snapshots != 0;
            let lacks_data = writer.lacks_data && !is_there;
            let at = if writer.lacks_base || lacks_data { At::Copy } else { At::Acknowledge };
            go("asks for the snapshot", *state, Writer { at, lacks_data, ..writer });
        }
        At::Copy => copy(protocol, state, number, writer, &mut go),
        At::Acknowledge => {
            let mut next = *state;
            next.acknowledged |= snapshot;
            go("acknowledges", next, Writer { at: At::Done, ..Writer::default() });
        }
        At::Done => {}
    }
}

/// Snapshots on which it may rely: the second time it relies on none.
fn found(protocol: &Protocol, state: &State, writer: Writer) -> impl Iterator<Item = u8> {
    let snapshots = match protocol.flaw {
        Some(Flaw::UnprovenSnapshots) => state.snapshots,
        _ => state.snapshots & state.acknowledged,
    };
    let may = protocol.relies && writer.attempt == 0;
    let with_data = move |one: &u8| may && protocol.needs_data(*one);
    each_of(Packs::from(snapshots)).map(|one| one as u8).filter(with_data)
}

/// Relies on what it knows, or stores the data: whole, or against a base that it can read.
fn store(
    protocol: &Protocol,
    state: &State,
    number: usize,
    writer: Writer,
    go: &mut dyn FnMut(&'static str, State, Writer),
) {
    let mut stored = Writer { at: At::PutSnapshot, seen: 0, ..writer };
    let follow = protocol.flaw != Some(Flaw::WriterForgetsBases);
    if state.has_data(writer.seen, follow) {
        return go("finds its data stored", *state, stored);
    }
    if writer.uploads == protocol.uploads_max {
        return;
    }
    let uploads = writer.uploads;
    let mut next = *state;
    next.upload(number, &mut stored.uploads, Content::Whole);
    go("stores its data whole", next, stored);
    if protocol.sound_bases(state) & writer.seen != 0 {
        stored.uploads = uploads;
        let mut next = *state;
        next.upload(number, &mut stored.uploads, Content::Delta);
        go("stores its data as a delta", next, stored);
    }
}

/// Looks whether what it relies on, and the bases of what it has stored, are in packs that last.
fn look_again(
    protocol: &Protocol,
    state: &State,
    number: usize,
    writer: Writer,
    go: &mut dyn FnMut(&'static str, State, Writer),
) {
    let follow = protocol.flaw != Some(Flaw::WriterForgetsBases);
    let lasting = writer.seen & !state.tombs;
    let first = super::PACKS_FIRST + number * usize::from(super::UPLOADS_ROOM);
    let own = ((1 << super::UPLOADS_ROOM) - 1) << first & state.holding(Content::Delta);
    let base_lasts = lasting & state.holding(Content::Base) != 0;
    let lacks_base = follow && own != 0 && !base_lasts;
    let lacks_data = !state.has_data(lasting, follow);
    let at = match writer.relies_on {
        0 if lacks_base || lacks_data => At::Copy,
        0 => At::Acknowledge,
        _ if protocol.flaw == Some(Flaw::WriterTrustsSnapshots) => At::Acknowledge,
        _ if protocol.flaw == Some(Flaw::PresentTombs) && writer.seen & state.tombs == 0 => {
            At::Acknowledge
        }
        _ => At::AskSnapshot,
    };
    let next = Writer { at, seen: 0, lacks_base, lacks_data, ..writer };
    go("lists tombs again", *state, next);
}

/// Copies what it lacks out of condemned packs; where that is gone it begins anew.
fn copy(
    protocol: &Protocol,
    state: &State,
    number: usize,
    mut writer: Writer,
    go: &mut dyn FnMut(&'static str, State, Writer),
) {
    let readable = match writer.lacks_data {
        true => protocol.data_is_readable(state),
        false => protocol.sound_bases(state) != 0,
    };
    if !readable {
        let mut next = *state;
        next.snapshots &= !writer.snapshot(number);
        let (uploads, attempt) = (writer.uploads, writer.attempt + 1);
        if attempt < protocol.attempts_max {
            go("begins anew", next, Writer { uploads, attempt, ..Writer::default() });
        }
        return;
    }
    if writer.uploads == protocol.uploads_max {
        return;
    }
    let mut next = *state;
    if std::mem::take(&mut writer.lacks_data) {
        next.upload(number, &mut writer.uploads, Content::Whole);
    } else {
        writer.lacks_base = false;
        next.upload(number, &mut writer.uploads, Content::Base);
    }
    if !writer.lacks_base {
        writer.at = At::ListPacksAgain;
    }
    go("copies out of condemned packs", next, writer);
}
