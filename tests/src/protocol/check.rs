//! Visits every state that a model can get into, nearest first, so that what it shows of a
//! violation is as short as can be.
//!
//! Not the crate `stateright`: it brings a web server and a score of crates along, and remembers
//! states by 64 bits of hash, so that a collision hides what lies behind it. This one compares
//! states.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};

/// What can happen, step by step.
pub trait Model {
    /// Everything that matters at one moment.
    type State: Copy + Eq + Hash + Debug;

    /// Where it begins.
    fn initial(&self) -> Self::State;

    /// Shows every step that is possible in a state, by who makes it, and what it leads to.
    fn steps(&self, state: &Self::State, each: &mut dyn FnMut(&'static str, usize, Self::State));

    /// Whether a state must never be.
    fn is_violation(&self, state: &Self::State) -> bool;
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Checked {
    /// States visited.
    pub states: usize,
    /// Whether these are all.
    pub complete: bool,
    /// The shortest way to a violation, step by step.
    pub violation: Option<Vec<String>>,
}

/// Mixes what derived hashes give it: states are many and small.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// States, each once, in the order in which they were found.
struct Found<S> {
    states: Vec<S>,
    /// The one that each was reached from.
    parents: Vec<u32>,
    /// Where in `states` each is, plus one, at the place that its hash says or the next that was free;
    /// 0: nothing. A power of two in length.
    places: Vec<u32>,
}

impl<S: Copy + Eq + Hash> Found<S> {
    fn new(first: S) -> Self {
        let mut found = Self { states: Vec::new(), parents: Vec::new(), places: vec![0; 1 << 10] };
        found.add(first, 0);
        found
    }

    /// Adds a state unless it is known.
    fn add(&mut self, state: S, parent: u32) {
        let mut place = self.place_of(&state);
        while let Some(number) = self.places.get(place).copied().filter(|number| *number > 0) {
            if self.states.get(number as usize - 1) == Some(&state) {
                return;
            }
            place = (place + 1) & (self.places.len() - 1);
        }
        self.states.push(state);
        self.parents.push(parent);
        self.note(place, self.states.len());
        if self.states.len() > self.places.len() / 4 * 3 {
            self.grow();
        }
    }

    fn place_of(&self, state: &S) -> usize {
        let mut mixer = Mixer::default();
        state.hash(&mut mixer);
        (mixer.finish() as usize) & (self.places.len() - 1)
    }

    fn note(&mut self, place: usize, number: usize) {
        if let Some(place) = self.places.get_mut(place) {
            *place = u32::try_from(number).expect("fewer than 2^32 states");
        }
    }

    fn grow(&mut self) {
        let places = self.places.len() * 2;
        self.places.clear();
        self.places.resize(places, 0);
        for number in 1..=self.states.len() {
            let Some(state) = self.states.get(number - 1) else { return };
            let mut place = self.place_of(state);
            while self.places.get(place).is_some_and(|taken| *taken > 0) {
                place = (place + 1) & (places - 1);
            }
            self.note(place, number);
        }
    }
}

/// Visits states until there are no more, one is a violation, or there were `states_max`.
///
/// # Panics
/// With more than 2^32 states.
pub fn check<M: Model>(model: &M, states_max: usize) -> Checked {
    let mut found = Found::new(model.initial());
    let mut at = 0;
    while let Some(state) = found.states.get(at).copied() {
        let states = found.states.len();
        if model.is_violation(&state) {
            let way = way_to(model, &found.states, &found.parents, at);
            return Checked { states, complete: false, violation: Some(way) };
        }
        if states > states_max {
            return Checked { states, complete: false, violation: None };
        }
        let parent = u32::try_from(at).expect("fewer than 2^32 states");
        model.steps(&state, &mut |_, _, next| found.add(next, parent));
        at += 1;
    }
    Checked { states: found.states.len(), complete: true, violation: None }
}

fn way_to<M: Model>(model: &M, states: &[M::State], parents: &[u32], mut at: usize) -> Vec<String> {
    let mut way = Vec::new();
    while at > 0 {
        let before = parents.get(at).map_or(0, |parent| *parent as usize);
        let (from, to) = (states.get(before), states.get(at));
        if let Some((from, to)) = from.zip(to) {
            let mut step = String::new();
            model.steps(from, &mut |what, actor, next| {
                if next == *to {
                    step =
                        if actor == usize::MAX { what.into() } else { format!("{actor} {what}") };
                }
            });
            way.push(step);
        }
        at = before;
    }
    way.reverse();
    way
}
