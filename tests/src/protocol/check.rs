//! Visits every state that a model can get into, nearest first, so that what it shows of a
//! violation is as short as can be.
//!
//! Not the crate `stateright`: it brings a web server and a score of crates along, and remembers
//! states by 64 bits of hash, so that a collision hides what lies behind it. This one compares
//! states.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{BuildHasherDefault, Hash, Hasher};

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

/// Visits states until there are no more, one is a violation, or there were `states_max`.
///
/// # Panics
/// With more than 2^32 states.
pub fn check<M: Model>(model: &M, states_max: usize) -> Checked {
    let mut known = HashMap::<M::State, u32, BuildHasherDefault<Mixer>>::default();
    let mut states = vec![model.initial()];
    let mut parents = vec![0_u32];
    known.insert(model.initial(), 0);
    let mut at = 0;
    while let Some(state) = states.get(at).copied() {
        if model.is_violation(&state) {
            let way = way_to(model, &states, &parents, at);
            return Checked { states: states.len(), complete: false, violation: Some(way) };
        }
        if states.len() > states_max {
            return Checked { states: states.len(), complete: false, violation: None };
        }
        let parent = u32::try_from(at).expect("fewer than 2^32 states");
        model.steps(&state, &mut |_, _, next| {
            known.entry(next).or_insert_with(|| {
                states.push(next);
                parents.push(parent);
                parent
            });
        });
        at += 1;
    }
    Checked { states: states.len(), complete: true, violation: None }
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
