//! Frames that are kept in memory because others were compressed against them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// Memory of frames that are still needed as bases, bytes.
pub(super) const KEPT_BYTES_MAX: usize = 40 << 20;
/// Buffers of frames that are gone which are kept for those to come.
const SPARE_MAX: usize = 8;

/// What is known of a frame that serves others; nothing, where it is not in memory.
enum State {
    /// Somebody decodes it.
    Decoding,
    /// Its plaintext.
    Plain(Arc<Vec<u8>>),
    /// It does not decode: whoever needs it is left over.
    Failed,
}

/// What is to be had of a frame.
pub(super) enum Found<'k> {
    /// Its plaintext.
    Plain(Arc<Vec<u8>>),
    /// It is not in memory; whoever asked is to decode it.
    Absent(Claim<'k>),
    /// It does not decode.
    Failed,
}

/// Frames that are still needed as bases. When there are too many, that goes which is needed last.
pub(super) struct Kept {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// For each frame those that need it, ascending, by their place in the order of the sweep.
    users: Vec<Vec<u32>>,
}

#[derive(Default)]
struct Inner {
    states: HashMap<u32, State>,
    /// Memory of all plaintext here, bytes.
    bytes: usize,
    /// For each frame how many still need it.
    left: Vec<usize>,
    /// Of those that need frames, these come next: the others are done, or about to be.
    reached: u32,
    /// Memory of frames that are gone, for those to come.
    spare: Vec<Vec<u8>>,
}

/// The duty to decode a frame; one that is given up counts as failed, so that nobody waits for it.
pub(super) struct Claim<'k> {
    kept: &'k Kept,
    node: u32,
    kept_it: bool,
}

impl Claim<'_> {
    /// A buffer to decode into.
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.kept.inner.lock().spare.pop().unwrap_or_default()
    }

    /// Hands over the plaintext. What is much shorter than its buffer gets one of its length:
    /// patches of some hundred bytes follow frames of megabytes.
    pub(super) fn keep(mut self, mut plain: Vec<u8>) -> Arc<Vec<u8>> {
        let mut long = None;
        if plain.capacity() / 2 > plain.len() {
            let short = plain.as_slice().to_vec();
            long = Some(std::mem::replace(&mut plain, short));
        }
        let frame = Arc::new(plain);
        let mut inner = self.kept.inner.lock();
        self.kept_it = true;
        inner.bytes += frame.capacity();
        inner.settle(self.node, State::Plain(Arc::clone(&frame)));
        long.into_iter().for_each(|long| inner.reuse(long));
        self.kept.make_room(&mut inner);
        drop(inner);
        frame
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.kept_it {
            self.kept.inner.lock().settle(self.node, State::Failed);
        }
        self.kept.changed.notify_all();
    }
}

impl Kept {
    /// Nothing yet. `users` are, for each frame, those that need it, ascending.
    pub(super) fn new(users: Vec<Vec<u32>>) -> Self {
        let left = users.iter().map(Vec::len).collect();
        let inner = Inner { left, ..Inner::default() };
        Self { inner: Mutex::new(inner), changed: Condvar::new(), users }
    }

    /// Takes on to decode a frame before anybody asks for it; `None` when nobody will, or somebody
    /// has.
    pub(super) fn claim(&self, node: u32) -> Option<Claim<'_>> {
        let mut inner = self.inner.lock();
        let needed = inner.left.get(node as usize).is_some_and(|left| *left > 0);
        (needed && !inner.states.contains_key(&node)).then(|| {
            inner.states.insert(node, State::Decoding);
            Claim { kept: self, node, kept_it: false }
        })
    }

    /// A frame; waits for whoever decodes it.
    pub(super) fn get(&self, node: u32) -> Found<'_> {
        let mut inner = self.inner.lock();
        loop {
            match inner.states.get(&node) {
                Some(State::Plain(frame)) => return Found::Plain(Arc::clone(frame)),
                Some(State::Failed) => return Found::Failed,
                Some(State::Decoding) => self.changed.wait(&mut inner),
                None => {
                    inner.states.insert(node, State::Decoding);
                    return Found::Absent(Claim { kept: self, node, kept_it: false });
                }
            }
        }
    }

    /// Says that the frame `user` does not need these any more; nobody needs those whose last user
    /// it was.
    pub(super) fn release(&self, nodes: &[u32], user: u32) {
        let mut inner = self.inner.lock();
        inner.reached = inner.reached.max(user.saturating_add(1));
        for node in nodes {
            let Some(left) = inner.left.get_mut(*node as usize) else { continue };
            *left = left.saturating_sub(1);
            if *left == 0 && !matches!(inner.states.get(node), Some(State::Decoding)) {
                inner.remove(*node);
            }
        }
    }

    /// The next of those that need a frame.
    fn next_user(&self, inner: &Inner, node: u32) -> Option<u32> {
        let users = self.users.get(node as usize)?;
        users.get(users.partition_point(|user| *user < inner.reached)).copied()
    }

    fn make_room(&self, inner: &mut Inner) {
        while inner.bytes > KEPT_BYTES_MAX {
            let plain = |(node, state): (&u32, &State)| match state {
                State::Plain(_) => Some((self.next_user(inner, *node), *node)),
                State::Decoding | State::Failed => None,
            };
            let Some((_, last)) = inner.states.iter().filter_map(plain).max() else { return };
            inner.remove(last);
        }
    }
}

impl Inner {
    /// Ends the decoding of a frame. Those that asked for it may have given up meanwhile.
    fn settle(&mut self, node: u32, state: State) {
        self.states.insert(node, state);
        if self.left.get(node as usize).is_none_or(|left| *left == 0) {
            self.remove(node);
        }
    }

    fn remove(&mut self, node: u32) {
        if let Some(State::Plain(frame)) = self.states.remove(&node) {
            self.bytes -= frame.capacity();
            if let Ok(plain) = Arc::try_unwrap(frame) {
                self.reuse(plain);
            }
        }
    }

    fn reuse(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(users: &[&[u32]]) -> Kept {
        Kept::new(users.iter().map(|users| users.to_vec()).collect())
    }

    fn is_there(kept: &Kept, node: u32) -> bool {
        matches!(kept.inner.lock().states.get(&node), Some(State::Plain(_)))
    }

    #[test]
    fn short_frames_in_long_buffers_keep_no_memory_they_do_not_need() {
        let users = vec![vec![7]; 200];
        let kept = Kept::new(users);
        for node in 0..200 {
            let claim = kept.claim(node).unwrap();
            let mut plain = claim.buffer();
            plain.clear();
            plain.reserve_exact(4 << 20);
            plain.resize(if node % 2 == 0 { 4 << 20 } else { 300 }, 7);
            assert_eq!(claim.keep(plain).len() == 300, node % 2 == 1);
            let inner = kept.inner.lock();
            let plain = inner.states.values().filter_map(|state| match state {
                State::Plain(frame) => Some(frame.capacity()),
                State::Decoding | State::Failed => None,
            });
            let held = plain.sum::<usize>();
            assert_eq!(held, inner.bytes);
            assert!(held <= KEPT_BYTES_MAX && inner.spare.len() <= SPARE_MAX, "{held}");
        }
        kept.release(&(0..200).collect::<Vec<_>>(), 7);
        let inner = kept.inner.lock();
        assert!(inner.bytes == 0 && inner.states.is_empty() && inner.spare.len() <= SPARE_MAX);
    }

    #[test]
    fn what_is_needed_last_goes_first_and_is_decoded_again() {
        let third = KEPT_BYTES_MAX / 3 - 10;
        let kept = kept(&[&[0, 9], &[0, 30], &[1, 20], &[1, 2]]);
        for node in 0..4 {
            drop(kept.claim(node).unwrap().keep(vec![0; third]));
            if node == 1 {
                kept.release(&[0, 1], 0);
            }
        }
        assert_eq!([0, 1, 2, 3].map(|node| is_there(&kept, node)), [true, false, true, true]);
        let Found::Absent(claim) = kept.get(1) else { panic!() };
        drop(claim.keep(vec![1; 10]));
        assert!(matches!(kept.get(1), Found::Plain(frame) if frame[..] == [1; 10]));
    }

    #[test]
    fn whoever_asks_waits_for_the_one_who_decodes_and_is_told_when_that_fails() {
        let kept = kept(&[&[0], &[0], &[]]);
        assert!(kept.claim(2).is_none());
        let (one, other) = (kept.claim(0).unwrap(), kept.claim(1).unwrap());
        assert!(kept.claim(0).is_none());
        std::thread::scope(|threads| {
            let waiting = [0, 1].map(|node| {
                let kept = &kept;
                threads.spawn(move || matches!(kept.get(node), Found::Plain(_)))
            });
            drop(one.keep(vec![1]));
            drop(other);
            assert_eq!(waiting.map(|waiting| waiting.join().unwrap()), [true, false]);
        });
        assert!(matches!(kept.get(1), Found::Failed));
    }
}
