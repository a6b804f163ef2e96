//! Packs of the home copy for several replicas at once: each is read once as long as the replicas keep
//! up with one another. One that falls behind reads for itself; nobody waits for another.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use cairn_format::ids::PackId;
use cairn_format::names::PackKind;
use parking_lot::{Condvar, Mutex};

use super::need::Need;
use crate::context::Counter;
use crate::error::Error;
use crate::parity::read_pack;
use crate::repo::Repository;
use crate::store::StoreError;

/// Packs that are kept for replicas that have not asked for them yet, bytes.
const KEPT_BYTES_MAX: u64 = 64 << 20;

/// A replica of which it is not known yet what it wants. It wants nothing if it has not said so by its end.
pub(super) struct Undecided<'a> {
    reads: &'a Reads<'a>,
    number: usize,
    open: bool,
}

impl<'a> Undecided<'a> {
    /// The replica of this number.
    pub(super) const fn new(reads: &'a Reads<'a>, number: usize) -> Self {
        Self { reads, number, open: true }
    }

    /// It wants the packs that it lacks as they are, and that fall to this host.
    ///
    /// # Errors
    /// Failures of the cache.
    pub(super) fn decide(
        &mut self,
        need: &Need<'_>,
        falls_here: impl Fn(&PackId) -> bool,
    ) -> Result<(), Error> {
        if self.open {
            let mut packs = need.whole_packs()?;
            packs.retain(falls_here);
            self.wants(&packs);
        }
        Ok(())
    }

    fn wants(&mut self, packs: &BTreeSet<PackId>) {
        if std::mem::take(&mut self.open) {
            self.reads.decided(self.number, packs);
        }
    }
}

impl Drop for Undecided<'_> {
    fn drop(&mut self) {
        self.wants(&BTreeSet::new());
    }
}

/// Reads packs of the home copy.
pub(super) struct Reads<'a> {
    home: &'a Repository,
    state: Mutex<State>,
    loaded: Condvar,
}

#[derive(Default)]
struct State {
    packs: HashMap<PackId, Pack>,
    order: VecDeque<PackId>,
    bytes: u64,
    /// Replicas that have yet to ask for a pack.
    interest: HashMap<PackId, HashSet<usize>>,
    /// Replicas that have not yet said what they want.
    undecided: usize,
    packs_read: u64,
    bytes_read: u64,
}

enum Pack {
    Loading,
    Kept(Bytes),
}

impl<'a> Reads<'a> {
    /// Nothing read yet, for so many replicas.
    pub(super) fn new(home: &'a Repository, replicas: usize) -> Self {
        let state = State { undecided: replicas, ..State::default() };
        Self { home, state: Mutex::new(state), loaded: Condvar::new() }
    }

    /// A replica has decided what it wants, or has failed.
    fn decided(&self, replica: usize, packs: &BTreeSet<PackId>) {
        let mut state = self.state.lock();
        state.undecided = state.undecided.saturating_sub(1);
        for pack in packs {
            state.interest.entry(*pack).or_default().insert(replica);
        }
        state.trim();
    }

    /// A replica wants nothing more of what it has said by [`Self::decided`].
    pub(super) fn withdraw(&self, replica: usize) {
        let mut state = self.state.lock();
        state.interest.retain(|_, replicas| {
            replicas.remove(&replica);
            !replicas.is_empty()
        });
        state.trim();
    }

    /// Packs and bytes read so far.
    pub(super) fn total(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.packs_read, state.bytes_read)
    }

    /// A whole pack, whose bytes are those its name stands for, also where these are only to be had out
    /// of its parity.
    ///
    /// # Errors
    /// [`Error::PackMissing`]; [`Error::Hash`]; failures of the store.
    pub(super) fn pack(&self, replica: usize, kind: PackKind, id: PackId) -> Result<Bytes, Error> {
        let mut state = self.state.lock();
        loop {
            match state.packs.get(&id) {
                Some(Pack::Kept(bytes)) => {
                    let bytes = bytes.clone();
                    state.lose_interest(id, replica);
                    state.trim();
                    return Ok(bytes);
                }
                Some(Pack::Loading) => self.loaded.wait(&mut state),
                None => break,
            }
        }
        state.packs.insert(id, Pack::Loading);
        drop(state);
        let read = self.read(kind, id);
        let mut state = self.state.lock();
        state.packs.remove(&id);
        state.lose_interest(id, replica);
        if let Ok(bytes) = &read {
            state.packs_read += 1;
            state.bytes_read += bytes.len() as u64;
            state.packs.insert(id, Pack::Kept(bytes.clone()));
            state.order.push_back(id);
            state.bytes += bytes.len() as u64;
            state.trim();
        }
        drop(state);
        self.loaded.notify_all();
        read
    }

    fn read(&self, kind: PackKind, id: PackId) -> Result<Bytes, Error> {
        match read_pack(self.home.store(), kind, id) {
            Ok((bytes, _)) => {
                self.home.monitor().count(Counter::BytesFetched, bytes.len() as u64);
                Ok(bytes)
            }
            Err(Error::Store(StoreError::NotFound { .. })) => Err(Error::PackMissing { pack: id }),
            Err(error) => Err(error),
        }
    }
}

impl State {
    fn lose_interest(&mut self, pack: PackId, replica: usize) {
        if let Some(replicas) = self.interest.get_mut(&pack) {
            replicas.remove(&replica);
            if replicas.is_empty() {
                self.interest.remove(&pack);
            }
        }
    }

    /// Lets go of packs that nobody wants any more, and of the oldest where they are too many; the newest
    /// stays for those that wait for it.
    fn trim(&mut self) {
        let mut kept = VecDeque::with_capacity(self.order.len());
        while let Some(id) = self.order.pop_front() {
            let wanted = self.undecided > 0 || self.interest.contains_key(&id);
            if wanted && (self.bytes <= KEPT_BYTES_MAX || self.order.is_empty()) {
                kept.push_back(id);
            } else if let Some(Pack::Kept(bytes)) = self.packs.remove(&id) {
                self.bytes = self.bytes.saturating_sub(bytes.len() as u64);
            }
        }
        self.order = kept;
    }
}
