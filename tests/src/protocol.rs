//! The protocol of collection (SPEC section 10) as a model small enough to visit all its states:
//! writers and collections on one store, every list, put and delete one step, in any order. Whoever
//! dies is one who makes no more steps, so deaths need none of their own.
//!
//! There are two chunks: the data that every snapshot needs, and its base. A pack holds one of them:
//! the base, the data whole, or the data as what differs from the base. What the model leaves out:
//! segments (a pack is named as soon as it is put), leases, keys that cannot read, and that listings
//! take time. The simulator has all that, and the real code, but does not visit every order.

mod check;
mod collector;
mod same;
mod writer;

pub use check::{Checked, Model, check};
use collector::Collector;
use writer::Writer;

/// Room for packs that one actor stores.
const UPLOADS_ROOM: u8 = 2;
/// Packs that are there at the beginning.
const PACKS_FIRST: usize = 2;
/// Room for snapshots that a writer puts, one after another.
const ATTEMPTS_ROOM: u8 = 3;
/// Actors of each kind, at most.
const ACTORS_MAX: usize = 2;

/// A set of packs, a bit each.
type Packs = u16;

/// The snapshot that is there at the beginning; those of writers follow.
const SNAPSHOT_FIRST: u8 = 1;
/// Stands for any of a writer, where it does not matter which.
const SNAPSHOT_ANY: u8 = 1 << 7;

/// What a pack holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// The base.
    Base = 1,
    /// The data, readable by itself.
    Whole = 2,
    /// The data, readable with the base.
    Delta = 3,
}

/// Ways to weaken the protocol, each of which loses data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A writer does not list tombs after its snapshot is visible.
    Precheck,
    /// A collection does not list snapshots after its tombs are visible.
    NoResweep,
    /// A collection looks for copies with the list of tombs from before it put its own.
    StaleTombs,
    /// A collection drops a copy of a chunk without having read the one it keeps.
    UnreadCopies,
    /// A writer does not look whether bases are in packs that last.
    WriterForgetsBases,
    /// A collection does not follow what it keeps to its bases.
    CollectorForgetsBases,
    /// A collection deletes what tombs condemn that it lists only after the snapshots.
    LateTombs,
    /// A writer does not ask for the snapshot that it relies on once its own is visible.
    WriterTrustsSnapshots,
    /// A writer asks for the snapshot that it relies on only if condemned packs are there by then.
    PresentTombs,
    /// A writer relies on a snapshot that nobody has acknowledged.
    UnprovenSnapshots,
    /// A collection does not list snapshots again when one is gone by the time it reads it.
    VanishedSnapshots,
}

/// What is there at the beginning, and is needed by an acknowledged snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// The base, and the data as a delta. The snapshot may be forgotten at any time.
    Data,
    /// The base. The snapshot may be forgotten at any time.
    Base,
    /// Two copies of the base, of which one is damaged. The snapshot is never forgotten, and
    /// nothing else is needed.
    DamagedBase,
}

/// Who is at work.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// Writers, at most two.
    pub writers: usize,
    /// Collections, at most two.
    pub collectors: usize,
    /// Packs that each writer stores, at most 2: beyond that it goes no further.
    pub uploads_max: u8,
    /// Packs that each collection stores, at most 2: beyond that it goes no further.
    pub copies_max: u8,
    /// How often a writer begins, at most 3: after that it goes no further.
    pub attempts_max: u8,
    /// Writers take their data for stored where a snapshot has it, if they find one, and any snapshot
    /// that is acknowledged may be forgotten.
    pub relies: bool,
    /// What is there at the beginning.
    pub first: First,
    /// What is wrong with it.
    pub flaw: Option<Flaw>,
}

/// Everything at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// Packs in the store.
    present: Packs,
    /// Packs that tombs condemn.
    tombs: Packs,
    /// What each pack holds, two bits each.
    contents: u32,
    /// Snapshots in the store.
    snapshots: u8,
    /// Those that are acknowledged.
    acknowledged: u8,
    writers: [Writer; ACTORS_MAX],
    collectors: [Collector; ACTORS_MAX],
}

impl State {
    /// Packs with this content, whether or not they are there.
    fn holding(&self, content: Content) -> Packs {
        let mut packs = 0;
        for pack in 0..Packs::BITS {
            if (self.contents >> (2 * pack)) & 3 == content as u32 {
                packs |= 1 << pack;
            }
        }
        packs
    }

    /// Packs with the data in either form.
    fn data(&self) -> Packs {
        self.holding(Content::Whole) | self.holding(Content::Delta)
    }

    /// Stores a pack; returns it.
    fn upload(&mut self, actor: usize, uploads: &mut u8, content: Content) -> Packs {
        let number = PACKS_FIRST + actor * usize::from(UPLOADS_ROOM) + usize::from(*uploads);
        *uploads += 1;
        self.contents |= (content as u32) << (2 * number);
        let pack = 1 << number;
        self.present |= pack;
        pack
    }

    /// Whether the data can be had out of these packs alone.
    fn has_data(&self, packs: Packs, follow_bases: bool) -> bool {
        packs & self.holding(Content::Whole) != 0
            || packs & self.holding(Content::Delta) != 0
                && (!follow_bases || packs & self.holding(Content::Base) != 0)
    }
}

/// Each of a set of packs, or of snapshots.
fn each_of(set: Packs) -> impl Iterator<Item = Packs> {
    (0..Packs::BITS).map(|bit| 1 << bit).filter(move |one| set & one != 0)
}

/// The first pack is the damaged one.
const DAMAGED: Packs = 1;

impl Protocol {
    /// Packs with the base that can be read now.
    fn sound_bases(&self, state: &State) -> Packs {
        let bases = state.present & state.holding(Content::Base);
        match self.first {
            First::DamagedBase => bases & !DAMAGED,
            First::Data | First::Base => bases,
        }
    }

    /// Whether the data can be read now.
    fn data_is_readable(&self, state: &State) -> bool {
        state.present & state.holding(Content::Whole) != 0
            || state.present & state.holding(Content::Delta) != 0 && self.sound_bases(state) != 0
    }

    /// Whether a snapshot among these needs the base for itself.
    const fn needs_base(snapshots: u8) -> bool {
        snapshots & SNAPSHOT_FIRST != 0
    }

    /// Whether one among these needs the data.
    const fn needs_data(&self, snapshots: u8) -> bool {
        match self.first {
            First::Data => snapshots != 0,
            First::Base => snapshots & !SNAPSHOT_FIRST != 0,
            First::DamagedBase => false,
        }
    }
}

impl Model for Protocol {
    type State = State;

    fn initial(&self) -> State {
        let second = match self.first {
            First::Data => Content::Delta as u32,
            First::DamagedBase => Content::Base as u32,
            First::Base => 0,
        };
        State {
            present: if second == 0 { 0b01 } else { 0b11 },
            contents: Content::Base as u32 | second << 2,
            snapshots: SNAPSHOT_FIRST,
            acknowledged: SNAPSHOT_FIRST,
            ..State::default()
        }
    }

    fn steps(&self, state: &State, each: &mut dyn FnMut(&'static str, usize, State)) {
        let each: &mut dyn FnMut(&'static str, usize, State) =
            &mut |what, actor, next| each(what, actor, same::representative(self, next));
        let forgettable = match (self.first, self.relies) {
            (First::DamagedBase, _) => 0,
            (_, true) => state.acknowledged,
            (_, false) => SNAPSHOT_FIRST,
        };
        for snapshot in each_of(Packs::from(forgettable & state.snapshots)) {
            let mut next = *state;
            next.snapshots &= !(snapshot as u8);
            next.acknowledged &= !(snapshot as u8);
            each("a snapshot is forgotten", usize::MAX, next);
        }
        for number in 0..self.writers {
            writer::steps(self, state, number, each);
        }
        for number in 0..self.collectors {
            collector::steps(self, state, number, each);
        }
    }

    fn is_violation(&self, state: &State) -> bool {
        let needed = state.acknowledged;
        let lost_base = Self::needs_base(needed) && self.sound_bases(state) == 0;
        lost_base || self.needs_data(needed) && !self.data_is_readable(state)
    }
}
