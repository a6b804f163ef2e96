//! One actor's way to a service.

use std::collections::BTreeMap;

use bytes::Bytes;
use cairn_engine::store::error::Place;
use cairn_engine::store::lock::KeptFor;
use cairn_engine::store::{Each, Keeping, Listing, Purged, Put, Store, StoreError};
use cairn_format::names::{Folder, ObjectName};

use super::{Kind, LATE_CALLS_MAX, LateCall, Later, Past, Profile, Service, Strike};

/// One actor's way to a service.
#[derive(Clone, Debug)]
pub struct Line {
    pub(super) service: Service,
    pub(super) actor: usize,
}

impl Line {
    /// The service.
    #[must_use]
    pub const fn service(&self) -> &Service {
        &self.service
    }

    /// Counts a call and decides what happens to it.
    fn strike(&self, kind: Kind, name: Option<&ObjectName>) -> Option<Strike> {
        let mut state = self.service.state.lock();
        if state.well {
            return None;
        }
        state.calls += 1;
        let strike = state.decide(self.service.profile, kind, name)?;
        *state.toll.of_actor.entry(self.actor).or_default() += 1;
        Some(strike)
    }

    fn unreachable<T>(&self, name: &ObjectName) -> Result<T, StoreError> {
        Err(StoreError::Unreachable {
            place: Place::object(self.location(), name),
            source: "simulated".into(),
        })
    }

    /// Has it carried out later.
    fn later(&self, name: &ObjectName, call: LateCall) {
        let mut state = self.service.state.lock();
        let due = state.calls + 1 + state.seed.below(LATE_CALLS_MAX);
        state.later.push(Later { due, name: *name, call });
    }

    fn put_later(&self, name: &ObjectName, data: &[u8]) {
        self.later(name, LateCall::Put(Bytes::copy_from_slice(data)));
    }

    /// Notes a change for listings that lack it.
    fn note(&self, name: &ObjectName) {
        if !matches!(self.service.profile, Profile::Stale | Profile::Lingering) {
            return;
        }
        let before = self.service.truth.size(name).ok();
        let mut state = self.service.state.lock();
        let past = Past { call: state.calls, actor: self.actor, name: *name, before };
        state.past.push(past);
    }

    fn put_now(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        self.note(name);
        self.service.way.put(name, data)
    }

    fn delete_now(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.note(name);
        self.service.way.delete(name)
    }

    fn unreachable_folder(&self, folder: Folder) -> StoreError {
        StoreError::Unreachable {
            place: Place::folder(self.location(), folder),
            source: "simulated".into(),
        }
    }

    /// As [`Store::purge`]; shows each object of which something went.
    ///
    /// # Errors
    /// What is simulated.
    pub fn purge_and_show(
        &self,
        folder: Folder,
        may_go: &dyn Fn(&ObjectName) -> bool,
        gone: &mut dyn FnMut(&ObjectName),
    ) -> Result<Purged, StoreError> {
        let shown = self.service.profile.shows_versions();
        let Some(versions) = self.service.versions.as_ref().filter(|_| shown) else {
            return Ok(Purged::default());
        };
        let strike = self.strike(Kind::Purge, None);
        let going = versions.to_purge(folder, may_go);
        // One request each; what comes after one that fails is not asked for.
        let done = match strike {
            None | Some(Strike::FailAfter) => going.len(),
            Some(Strike::Late | Strike::Tear) => {
                let done = self.service.state.lock().seed.below(going.len() as u64 + 1);
                usize::try_from(done).unwrap_or_default()
            }
            Some(_) => 0,
        };
        let (now, rest) = going.split_at(done);
        for (name, version) in now {
            versions.remove(name, *version);
            gone(name);
        }
        if let (Some(Strike::Late), Some((name, version))) = (strike, rest.first()) {
            self.later(name, LateCall::Purge(*version));
        }
        match strike {
            None => Ok(Purged { removed: now.len() as u64, ..Purged::default() }),
            Some(_) => Err(self.unreachable_folder(folder)),
        }
    }

    /// What a listing would show, as far as the service tells; an error at its end if it breaks off.
    fn entries(&self, folder: Folder) -> Result<(Vec<(ObjectName, u64)>, bool), StoreError> {
        let mut entries = BTreeMap::new();
        self.service.way.list(folder, &mut |name, bytes| {
            entries.insert(name, bytes);
            Ok(())
        })?;
        let mut state = self.service.state.lock();
        if state.well {
            return Ok((entries.into_iter().collect(), false));
        }
        let state = &mut *state;
        match self.service.profile {
            Profile::Stale => Ok((state.lag(self.actor, folder, entries), false)),
            Profile::Lingering => Ok((state.linger(folder, entries), false)),
            Profile::Unordered => Ok((state.shuffle(entries), false)),
            Profile::PagesLost => Ok((state.lose_page(entries), false)),
            Profile::ListsBreak if state.seed.below(6) == 0 => {
                let len = entries.len() as u64;
                let until = usize::try_from(state.seed.below(len + 1)).unwrap_or_default();
                *state.toll.of_actor.entry(self.actor).or_default() += 1;
                Ok((entries.into_iter().take(until).collect(), true))
            }
            _ => Ok((entries.into_iter().collect(), false)),
        }
    }
}

impl Store for Line {
    fn location(&self) -> String {
        self.service.place.to_owned()
    }

    fn is_near(&self) -> bool {
        true
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        let strike = self.strike(Kind::Get, Some(name));
        match strike {
            Some(Strike::FailBefore | Strike::FailAfter) => self.unreachable(name),
            _ => self.service.way.get(name, bytes_max).map(|data| flipped(data, strike)),
        }
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        let strike = self.strike(Kind::Get, Some(name));
        match strike {
            Some(Strike::FailBefore | Strike::FailAfter) => self.unreachable(name),
            _ => self.service.way.get_range(name, offset, len).map(|data| flipped(data, strike)),
        }
    }

    fn put(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        match self.strike(Kind::Put, Some(name)) {
            Some(Strike::FailBefore) => self.unreachable(name),
            Some(Strike::FailAfter) => {
                self.put_now(name, data)?;
                self.unreachable(name)
            }
            Some(Strike::Late) => {
                self.put_later(name, data);
                self.unreachable(name)
            }
            Some(Strike::Twice) => {
                self.put_later(name, data);
                self.put_now(name, data)
            }
            Some(Strike::Tear) => {
                self.service.tear(name, data);
                self.unreachable(name)
            }
            Some(Strike::Pretend) => {
                let data = Bytes::copy_from_slice(data);
                self.service.state.lock().toll.lost.insert(*name, (self.actor, data));
                Ok(Put::Written)
            }
            Some(Strike::Flip(_) | Strike::Refuse) | None => self.put_now(name, data),
        }
    }

    fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        match self.strike(Kind::Size, Some(name)) {
            Some(Strike::FailBefore | Strike::FailAfter) => self.unreachable(name),
            _ => self.service.way.size(name),
        }
    }

    fn list(&self, folder: Folder, each: Each<'_>) -> Result<Listing, StoreError> {
        let failed = || self.unreachable_folder(folder);
        if let Some(Strike::FailBefore | Strike::FailAfter) = self.strike(Kind::List, None) {
            return Err(failed());
        }
        let (entries, breaks) = self.entries(folder)?;
        let objects = entries.len() as u64;
        for (name, bytes) in entries {
            each(name, bytes)?;
        }
        if breaks { Err(failed()) } else { Ok(Listing { objects, foreign: 0 }) }
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        match self.strike(Kind::Delete, Some(name)) {
            Some(Strike::FailBefore) => self.unreachable(name),
            Some(Strike::FailAfter) => {
                self.delete_now(name)?;
                self.unreachable(name)
            }
            Some(Strike::Late) => {
                self.later(name, LateCall::Delete);
                self.unreachable(name)
            }
            Some(Strike::Twice) => {
                self.later(name, LateCall::Delete);
                self.delete_now(name)
            }
            Some(Strike::Pretend) => {
                self.service.state.lock().toll.kept.insert(*name);
                Ok(())
            }
            Some(Strike::Refuse) => Err(StoreError::Denied {
                place: Place::object(self.location(), name),
                source: "simulated: it is locked".into(),
            }),
            Some(Strike::Tear | Strike::Flip(_)) | None => self.delete_now(name),
        }
    }

    fn kept(
        &self,
        folder: Folder,
        each: &mut dyn FnMut(ObjectName),
    ) -> Result<Keeping, StoreError> {
        if self.service.profile.shows_versions() && self.strike(Kind::Kept, None).is_some() {
            return Err(self.unreachable_folder(folder));
        }
        self.service.truth.kept(folder, each)
    }

    fn purge(
        &self,
        folder: Folder,
        may_go: &dyn Fn(&ObjectName) -> bool,
    ) -> Result<Purged, StoreError> {
        self.purge_and_show(folder, may_go, &mut |_| {})
    }

    fn kept_for(&self) -> Result<KeptFor, StoreError> {
        self.service.truth.kept_for()
    }
}

fn flipped(data: Bytes, strike: Option<Strike>) -> Bytes {
    let Some(Strike::Flip(bit)) = strike else { return data };
    if data.is_empty() {
        return data;
    }
    let mut data = Vec::from(data);
    let bit = bit % (data.len() as u64 * 8);
    if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| data.get_mut(at)) {
        *byte ^= 1 << (bit % 8);
    }
    data.into()
}
