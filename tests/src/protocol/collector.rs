//! A collection: `engine/src/ops/gc.rs` in a few steps.

use super::{Content, Flaw, Packs, Protocol, SNAPSHOT_ANY, SNAPSHOT_FIRST, State, each_of};

/// What it does next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum At {
    #[default]
    ListSnapshots,
    ListPacks,
    ListTombs,
    Choose,
    PutTombs,
    /// What it lists here is what it deletes.
    ListTombsToDelete,
    ListSnapshotsAgain,
    /// Each snapshot that it has listed, where that makes a difference.
    ReadSnapshots,
    ListPacksAgain,
    ListTombsAgain,
    Rescue,
    Delete,
    Done,
}

/// A collection at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Collector {
    at: At,
    snapshots: u8,
    packs: Packs,
    /// Tombs it knows of, with its own.
    known: Packs,
    /// Packs it is about to condemn.
    going: Packs,
    /// Packs it is to delete.
    delete: Packs,
    /// Packs were condemned when it began.
    others: bool,
    /// It has to copy the base, or the data, out of condemned packs.
    lacks_base: bool,
    lacks_data: bool,
    uploads: u8,
}

impl Collector {
    /// Packs that it refers to, whether or not they are there.
    pub(super) const fn refers_to(&self) -> Packs {
        self.packs | self.going
    }

    /// All that it refers to.
    pub(super) const fn packs_mut(&mut self) -> [&mut Packs; 4] {
        [&mut self.packs, &mut self.known, &mut self.going, &mut self.delete]
    }

    /// The snapshots that it has seen.
    pub(super) const fn snapshots_mut(&mut self) -> &mut u8 {
        &mut self.snapshots
    }

    /// Without what it does not look at any more.
    pub(super) fn simplify(&mut self, protocol: &Protocol, present: Packs) {
        // What is gone is not deleted again.
        self.delete &= present;
        match self.at {
            At::Delete if self.delete == 0 => *self = Self { at: At::Done, ..Self::default() },
            // It goes on to delete, or looks again at everything.
            At::Rescue => (self.snapshots, self.others) = (0, true),
            // Only what they need.
            At::ListPacksAgain | At::ListTombsAgain => {
                let others = self.snapshots & !SNAPSHOT_FIRST != 0;
                self.snapshots &= SNAPSHOT_FIRST;
                self.snapshots |= if others { SNAPSHOT_ANY } else { 0 };
            }
            // It looks again whether or not these are the same.
            At::PutTombs | At::ListTombsToDelete | At::ListSnapshotsAgain if self.others => {
                self.snapshots = 0;
            }
            _ => {}
        }
        if !self.compares_tombs(protocol) {
            self.known = 0;
        }
    }

    /// Whether it is going to compare the tombs it knows with those that there are.
    fn compares_tombs(&self, protocol: &Protocol) -> bool {
        let looks = !self.others || protocol.flaw == Some(Flaw::StaleTombs);
        let before = matches!(self.at, At::ListSnapshots | At::ListPacks | At::ListTombs);
        looks && !before && !matches!(self.at, At::Delete | At::Done)
    }

    /// Tombs that one knows and the other does not, if it is going to find out.
    pub(super) fn differing_tombs(&self, protocol: &Protocol, tombs: Packs) -> Packs {
        if self.compares_tombs(protocol) { self.known ^ tombs } else { 0 }
    }

    /// Without tombs of these packs.
    pub(super) const fn forget_tombs(&mut self, gone: Packs) {
        self.known &= !gone;
    }
}

type Go<'a> = &'a mut dyn FnMut(&'static str, State, Collector);

pub(super) fn steps(
    protocol: &Protocol,
    state: &State,
    number: usize,
    each: &mut dyn FnMut(&'static str, usize, State),
) {
    let Some(&own) = state.collectors.get(number) else { return };
    let actor = protocol.writers + number;
    let go: Go<'_> = &mut |what, mut next: State, collector: Collector| {
        if let Some(own) = next.collectors.get_mut(number) {
            *own = collector;
        }
        each(what, actor, next);
    };
    let to = |at| Collector { at, ..own };
    match own.at {
        At::ListSnapshots => {
            let next = Collector { snapshots: state.snapshots, ..to(At::ListPacks) };
            go("lists snapshots", *state, next);
        }
        At::ListPacks => {
            go("lists packs", *state, Collector { packs: state.present, ..to(At::ListTombs) });
        }
        At::ListTombs => {
            let others = own.packs & state.tombs != 0;
            let lacks_base = own.packs & state.holding(Content::Base) == 0;
            let packs = own.packs & !state.tombs;
            let known = state.tombs;
            let next = Collector { packs, known, others, lacks_base, ..to(At::Choose) };
            go("lists tombs", *state, next);
        }
        At::Choose => choose(protocol, state, actor, own, go),
        At::PutTombs => {
            let mut next = *state;
            next.tombs |= own.going;
            let known = own.known | own.going;
            let condemned = Collector { known, going: 0, ..to(At::ListTombsToDelete) };
            go("puts tombs", next, condemned);
        }
        At::ListTombsToDelete => {
            let at = match protocol.flaw {
                Some(Flaw::NoResweep) => At::Delete,
                _ => At::ListSnapshotsAgain,
            };
            go(
                "lists tombs to delete by",
                *state,
                forget(Collector { delete: state.tombs, ..to(at) }),
            );
        }
        At::ListSnapshotsAgain => {
            // With the same snapshots, and no tombs but its own, nothing needs what it condemned.
            let same = !own.others && own.snapshots == state.snapshots;
            let at = if protocol.relies { At::ReadSnapshots } else { At::ListPacksAgain };
            let next = Collector { snapshots: state.snapshots, others: !same, ..to(at) };
            go("lists snapshots again", *state, next);
        }
        At::ReadSnapshots => {
            let found = own.snapshots & state.snapshots;
            if found == own.snapshots || protocol.flaw == Some(Flaw::VanishedSnapshots) {
                let others = own.others || found != own.snapshots;
                let next = Collector { snapshots: found, others, ..to(At::ListPacksAgain) };
                go("reads snapshots", *state, next);
            } else {
                let next = Collector { others: true, ..to(At::ListSnapshotsAgain) };
                go("finds a snapshot gone", *state, next);
            }
        }
        At::ListPacksAgain => {
            let next = Collector { packs: state.present, ..to(At::ListTombsAgain) };
            go("lists packs again", *state, next);
        }
        At::ListTombsAgain => look_again(protocol, state, own, go),
        At::Rescue => rescue(protocol, state, actor, own, go),
        At::Delete => delete(state, own, go),
        At::Done => {}
    }
}

/// What does not matter any more when it deletes.
fn forget(collector: Collector) -> Collector {
    if collector.at != At::Delete {
        return collector;
    }
    Collector { at: At::Delete, delete: collector.delete, ..Collector::default() }
}

/// Each pack of a set, or none where the set is empty.
fn one_of(packs: Packs) -> impl Iterator<Item = Packs> {
    each_of(packs).chain((packs == 0).then_some(0))
}

/// Keeps one copy of what is needed, of those that nobody condemned; all else goes.
fn choose(protocol: &Protocol, state: &State, actor: usize, own: Collector, go: Go<'_>) {
    let (free, follow) = (own.packs, protocol.flaw != Some(Flaw::CollectorForgetsBases));
    let (bases, deltas) = (free & state.holding(Content::Base), state.holding(Content::Delta));
    let needs_data = protocol.needs_data(own.snapshots);
    for data in one_of(if needs_data { free & state.data() } else { 0 }) {
        let needs_base = Protocol::needs_base(own.snapshots);
        let as_base = follow && data & deltas != 0;
        if as_base && own.lacks_base {
            // A delta that has lost its base: what else holds the data stays.
            condemn(protocol, state, own, free & state.data(), go);
            continue;
        }
        for base in one_of(if needs_base || as_base { bases } else { 0 }) {
            condemn(protocol, state, own, base | data, go);
            // Packs of which something is dead: the rest is copied. A delta whose base no snapshot
            // needs becomes whole, and the base goes.
            let copied = if data & deltas != 0 { Content::Delta } else { Content::Whole };
            let frees_base = as_base && !needs_base;
            if frees_base {
                repack(protocol, state, actor, own, (0, Content::Whole), go);
            } else if data != 0 {
                repack(protocol, state, actor, own, (base, copied), go);
            }
            if base != 0 {
                repack(protocol, state, actor, own, (data, Content::Base), go);
            }
        }
    }
}

/// Whether no copy goes of which the one that stays cannot be read.
fn is_confirmed(protocol: &Protocol, state: &State, going: Packs, kept: Packs) -> bool {
    if protocol.flaw == Some(Flaw::UnreadCopies) {
        return true;
    }
    let bases = state.holding(Content::Base);
    let unread_base =
        kept & bases != 0 && going & bases != 0 && kept & protocol.sound_bases(state) == 0;
    let unread_data = kept & state.data() != 0
        && going & state.data() != 0
        && kept & state.data() & state.present == 0;
    !unread_base && !unread_data
}

fn condemn(protocol: &Protocol, state: &State, own: Collector, kept: Packs, go: Go<'_>) {
    let going = own.packs & !kept;
    if !is_confirmed(protocol, state, going, kept) {
        return;
    }
    let at = match (going, own.others) {
        (0, false) => At::Done,
        (0, true) => At::ListTombsToDelete,
        _ => At::PutTombs,
    };
    go("chooses", *state, Collector { at, going, packs: 0, lacks_base: false, ..own });
}

/// Copies one of what is needed, keeps the other, and has all else go.
fn repack(
    protocol: &Protocol,
    state: &State,
    actor: usize,
    own: Collector,
    (kept, content): (Packs, Content),
    go: Go<'_>,
) {
    let readable = match content {
        Content::Base => protocol.sound_bases(state) & own.packs != 0,
        Content::Whole => protocol.data_is_readable(state),
        Content::Delta => state.present & own.packs & state.holding(Content::Delta) != 0,
    };
    let going = own.packs & !kept;
    let confirmed = is_confirmed(protocol, state, going, kept);
    if own.uploads == protocol.copies_max || !readable || !confirmed {
        return;
    }
    let (mut next, mut collector) = (*state, own);
    next.upload(actor, &mut collector.uploads, content);
    let condemned = Collector { at: At::PutTombs, going, packs: 0, ..collector };
    go("copies", next, Collector { lacks_base: false, ..condemned });
}

/// Looks what is needed and only in condemned packs.
fn look_again(protocol: &Protocol, state: &State, own: Collector, go: Go<'_>) {
    let mut next = own;
    if protocol.flaw == Some(Flaw::LateTombs) {
        next.delete = state.tombs;
    }
    let tombs = if protocol.flaw == Some(Flaw::StaleTombs) { own.known } else { state.tombs };
    let nothing_new = !own.others && tombs == own.known;
    if !nothing_new {
        let follow = protocol.flaw != Some(Flaw::CollectorForgetsBases);
        let lasting = own.packs & !tombs;
        let lasting_bases = lasting & state.holding(Content::Base);
        let lasting_data = lasting & state.data();
        let whole = lasting & state.holding(Content::Whole);
        let unread = protocol.flaw != Some(Flaw::UnreadCopies)
            && lasting_bases & protocol.sound_bases(state) == 0
            && own.packs & tombs & state.holding(Content::Base) != 0;
        let needs_data = protocol.needs_data(own.snapshots);
        let as_base = follow && needs_data && whole == 0 && lasting_data != 0;
        let needs_base = Protocol::needs_base(own.snapshots) || as_base;
        next.lacks_base = needs_base && (lasting_bases == 0 || unread);
        // What is nowhere is what a writer that has not acknowledged found out, or will.
        next.lacks_data = needs_data && lasting_data == 0 && own.packs & state.data() != 0;
        if own.packs & state.holding(Content::Base) == 0 {
            next.lacks_base = false;
            // A delta that has lost its base: the data is copied from elsewhere, or it stops.
            if as_base && own.packs & state.holding(Content::Whole) == 0 {
                return;
            }
            next.lacks_data |= as_base;
        }
    }
    next.at = if next.lacks_base || next.lacks_data { At::Rescue } else { At::Delete };
    next.packs = 0;
    go("lists tombs again", *state, forget(next));
}

/// Copies what it lacks; where another collection took that away, it looks again.
fn rescue(protocol: &Protocol, state: &State, actor: usize, mut own: Collector, go: Go<'_>) {
    let readable = match own.lacks_data {
        true => protocol.data_is_readable(state),
        false => protocol.sound_bases(state) != 0,
    };
    if !readable {
        let again = Collector { lacks_base: false, lacks_data: false, ..own };
        let again = Collector { at: At::ListSnapshotsAgain, others: true, ..again };
        return go("finds nothing to copy", *state, again);
    }
    if own.uploads == protocol.copies_max {
        return;
    }
    let mut next = *state;
    if std::mem::take(&mut own.lacks_data) {
        next.upload(actor, &mut own.uploads, Content::Whole);
    } else {
        own.lacks_base = false;
        next.upload(actor, &mut own.uploads, Content::Base);
    }
    if !own.lacks_base {
        own.at = At::Delete;
    }
    go("rescues", next, forget(own));
}

fn delete(state: &State, own: Collector, go: Go<'_>) {
    let left = own.delete & state.present;
    for pack in each_of(left) {
        let mut next = *state;
        next.present &= !pack;
        go("deletes a pack", next, own);
    }
    if left == 0 {
        go("is done", *state, Collector { at: At::Done, ..Collector::default() });
    }
}
