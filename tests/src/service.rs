//! A store as services are: what it keeps, what its listings say, and which of its calls go wrong,
//! under a seed. Several actors share it; who calls is part of the call.
//!
//! SPEC section 12 says what a home copy may be asked to promise. [`Profile::keeps_its_word`] says
//! which profiles keep that promise, however badly their calls fare otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::repo::read_format;
use cairn_engine::store::Store;
use cairn_engine::store::memory::MemoryStore;
use cairn_format::names::{Folder, ObjectName};
use parking_lot::Mutex;

use crate::lab::object;
use crate::seed::Seed;

pub mod conditions;
mod line;
mod profile;
mod versions;

pub use line::Line;
pub use profile::Profile;
pub use versions::{KEPT_FOR_MS, Stolen};
use versions::{VersionId, Versioned};

/// Calls during which listings may go on to show what was deleted, at most.
const LINGERING_CALLS_MAX: u64 = 120;
/// Calls of others that a stale listing may lack, at most.
pub const STALE_CALLS_MAX: u64 = 60;
/// Calls after which a late one is carried out, at most.
const LATE_CALLS_MAX: u64 = 120;
/// Times an entry is listed, at most, where listings repeat entries.
const REPEATS_MAX: u64 = 3;

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strike {
    /// It fails and has no effect.
    FailBefore,
    /// It is carried out, and fails.
    FailAfter,
    /// It fails, and is carried out later.
    Late,
    /// It is carried out now and once more later.
    Twice,
    /// It fails, and leaves part of the object.
    Tear,
    /// It succeeds without any effect.
    Pretend,
    /// What it returns differs in one bit.
    Flip(u64),
    /// It is refused.
    Refuse,
}

/// What kind of call it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Get,
    Put,
    Size,
    List,
    Delete,
    Kept,
    Purge,
}

/// How a call changes what is there of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// These bytes were put, or were to be put by a process that died.
    Put(Bytes),
    /// It was deleted.
    Delete,
    /// Older versions of it were deleted for good, or were to be.
    Purge,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put(_) => "a put",
            Self::Delete => "a deletion",
            Self::Purge => "a purge",
        })
    }
}

/// A call that is carried out later.
struct Later {
    due: u64,
    name: ObjectName,
    call: LateCall,
}

/// What is carried out later.
enum LateCall {
    Put(Bytes),
    Delete,
    /// This version is deleted for good.
    Purge(VersionId),
}

/// A change that listings may lack.
struct Past {
    call: u64,
    actor: usize,
    name: ObjectName,
    /// Its size before, if it was there.
    before: Option<u64>,
}

/// What went wrong so far.
#[derive(Clone, Debug, Default)]
pub struct Toll {
    /// Calls of each actor that went wrong.
    pub of_actor: BTreeMap<usize, u64>,
    /// Calls that were carried out late or twice.
    pub late: u64,
    /// Objects that are there in part.
    pub torn: BTreeSet<ObjectName>,
    /// Objects that were acknowledged and are not there, and to whom.
    pub lost: BTreeMap<ObjectName, (usize, Bytes)>,
    /// Objects whose deletion was acknowledged and that are there.
    pub kept: BTreeSet<ObjectName>,
    /// Listings that were not as they should be.
    pub listings: u64,
}

impl Toll {
    /// Calls that went wrong, listings among them, and puts that a death tore.
    #[must_use]
    pub fn strikes(&self) -> u64 {
        let torn = self.torn.len() as u64;
        self.of_actor.values().sum::<u64>() + self.late + self.listings + torn
    }
}

struct State {
    seed: Seed,
    calls: u64,
    well: bool,
    later: Vec<Later>,
    past: Vec<Past>,
    toll: Toll,
    /// What somebody has deleted just now who has no business here.
    stolen: Option<ObjectName>,
}

/// The service. Clones are the same one.
#[derive(Clone)]
pub struct Service {
    place: &'static str,
    profile: Profile,
    /// How objects are reached.
    way: Arc<dyn Store>,
    /// What is there.
    truth: Arc<dyn Store>,
    /// The same, where changes leave no older versions.
    bare: Arc<dyn Store>,
    /// Older versions, where there are any.
    versions: Option<Arc<Versioned>>,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service({})", self.profile.name())
    }
}

impl Service {
    /// A service in a place of this name that holds these objects.
    ///
    /// # Panics
    /// When opendal refuses to keep objects in memory.
    #[must_use]
    pub fn new(place: &'static str, objects: &MemoryStore, profile: Profile, seed: u64) -> Self {
        let mut versions = None;
        let (way, truth, bare): (Arc<dyn Store>, Arc<dyn Store>, Arc<dyn Store>) =
            match profile.condition() {
                None if profile.keeps_versions() => {
                    let memory = crate::lab::copy_of(objects);
                    let store = Arc::new(Versioned::new(memory, profile.shows_versions()));
                    versions = Some(Arc::clone(&store));
                    (Arc::clone(&store) as _, Arc::clone(&store) as _, Arc::new(store.bare()))
                }
                None => {
                    let memory = Arc::new(crate::lab::copy_of(objects));
                    (Arc::clone(&memory) as _, Arc::clone(&memory) as _, memory)
                }
                Some(condition) => {
                    let (way, truth) = conditions::services(condition);
                    for name in objects.names() {
                        truth.put(&name, &object(objects, &name)).expect("it is put");
                    }
                    let truth = Arc::new(truth);
                    (Arc::new(way), Arc::clone(&truth) as _, truth)
                }
            };
        let state = State {
            seed: Seed::of(seed),
            calls: 0,
            well: false,
            later: Vec::new(),
            past: Vec::new(),
            toll: Toll::default(),
            stolen: None,
        };
        Self { place, profile, way, truth, bare, versions, state: Arc::new(Mutex::new(state)) }
    }

    /// Its profile.
    #[must_use]
    pub const fn profile(&self) -> Profile {
        self.profile
    }

    /// What is really there, reached without fault.
    #[must_use]
    pub fn truth(&self) -> Arc<dyn Store> {
        Arc::clone(&self.truth)
    }

    /// The same, where changes leave no older versions: for whoever only tries what would be.
    #[must_use]
    pub fn bare(&self) -> Arc<dyn Store> {
        Arc::clone(&self.bare)
    }

    /// Objects that are not there and of which it keeps bytes as older versions.
    #[must_use]
    pub fn kept_bytes_of(&self) -> Vec<ObjectName> {
        self.versions.as_ref().map(|versions| versions.kept_bytes_of()).unwrap_or_default()
    }

    /// Older versions and marks of deletions made and purged so far.
    #[must_use]
    pub fn versions(&self) -> (u64, u64) {
        self.versions.as_ref().map(|versions| versions.counts()).unwrap_or_default()
    }

    /// Somebody who has no business here deletes a pack, a record or an acknowledgement out of this
    /// folder, if there are any and older versions are kept. To be undone with [`Self::give_back`].
    #[must_use]
    pub fn steal(&self, folder: Folder) -> Option<Stolen> {
        const WORTH_IT: [Folder; 4] =
            [Folder::DataPacks, Folder::TreePacks, Folder::Snapshots, Folder::Acks];
        let versions = self.versions.as_ref().filter(|_| WORTH_IT.contains(&folder))?;
        let mut names = Vec::new();
        let listed = self.bare.list(folder, &mut |name, _| {
            names.push(name);
            Ok(())
        });
        listed.expect("a list");
        let mut state = self.state.lock();
        let at = state.seed.below(names.len().max(1) as u64);
        let stolen = versions.steal(names.get(usize::try_from(at).unwrap_or_default())?)?;
        state.stolen = Some(stolen.name);
        Some(stolen)
    }

    /// Whether it is stolen at the moment.
    #[must_use]
    pub fn is_stolen(&self, name: &ObjectName) -> bool {
        self.state.lock().stolen == Some(*name)
    }

    /// It is there again, for good.
    pub fn give_back(&self, stolen: Stolen) {
        self.state.lock().stolen = None;
        if let Some(versions) = &self.versions {
            versions.give_back(stolen);
        }
    }

    /// What went wrong so far.
    #[must_use]
    pub fn toll(&self) -> Toll {
        self.state.lock().toll.clone()
    }

    /// One actor's way to it.
    #[must_use]
    pub fn line(&self, actor: usize) -> Line {
        Line { service: self.clone(), actor }
    }

    /// Nothing goes wrong any more, and what is to be carried out late is carried out now.
    ///
    /// # Panics
    /// When the objects cannot be changed.
    pub fn get_well(&self) -> Vec<(ObjectName, Change)> {
        let mut state = self.state.lock();
        state.well = true;
        state.calls = u64::MAX;
        drop(state);
        self.catch_up()
    }

    /// Carries out what is due; returns what changed. To be called before every call.
    ///
    /// # Panics
    /// When the objects cannot be changed.
    pub fn catch_up(&self) -> Vec<(ObjectName, Change)> {
        let mut state = self.state.lock();
        let calls = state.calls;
        let (due, rest) =
            std::mem::take(&mut state.later).into_iter().partition(|l| l.due <= calls);
        state.later = rest;
        let due: Vec<Later> = due;
        state.toll.late += due.len() as u64;
        drop(state);
        let carry_out = |Later { name, call, .. }| match call {
            LateCall::Put(data) => {
                // Other bytes of that name, or nothing: it is there then.
                let _written = self.truth.put(&name, &data);
                (name, Change::Put(data))
            }
            LateCall::Delete => {
                self.truth.delete(&name).expect("it is deleted");
                (name, Change::Delete)
            }
            LateCall::Purge(version) => {
                self.versions.iter().for_each(|versions| versions.remove(&name, version));
                (name, Change::Purge)
            }
        };
        due.into_iter().map(carry_out).collect()
    }

    /// The process that puts this dies in the middle of it.
    pub fn die_putting(&self, name: &ObjectName, data: &[u8]) {
        if self.profile.tears() && !self.state.lock().well {
            self.tear(name, data);
        }
    }

    fn tear(&self, name: &ObjectName, data: &[u8]) {
        if self.truth.size(name).is_err() {
            let half = data.get(..data.len() / 2).unwrap_or_default();
            self.truth.put(name, half).expect("part of it is put");
            self.state.lock().toll.torn.insert(*name);
        }
    }

    /// Removes what is there in part, as whoever is told of it does.
    ///
    /// # Panics
    /// When it cannot be deleted.
    pub fn remove_torn(&self) {
        for name in &self.state.lock().toll.torn {
            let object = self.truth.get(name, u64::MAX).unwrap_or_default();
            let whole = match name.content_hash() {
                Some(hash) => *blake3::hash(&object).as_bytes() == hash,
                None => read_format(self.truth.as_ref()).is_ok(),
            };
            if !whole {
                self.truth.delete(name).expect("it is deleted");
            }
        }
    }

    /// Does something while those lost objects are there whose loss `counts` not, by name and who put
    /// them. Acknowledgements are not among them: whoever puts one looks whether it is there.
    ///
    /// # Panics
    /// When they cannot be put or deleted.
    pub fn without_loss<T>(
        &self,
        counts: impl Fn(&ObjectName, usize) -> bool,
        look: impl FnOnce() -> T,
    ) -> T {
        let mut back = Vec::new();
        for (name, (actor, data)) in self.toll().lost {
            let looked_for = matches!(name, ObjectName::Ack { .. });
            if !looked_for && !counts(&name, actor) && self.truth.size(&name).is_err() {
                self.truth.put(&name, &data).expect("it is put");
                back.push(name);
            }
        }
        let seen = look();
        for name in back {
            self.truth.delete(&name).expect("it is deleted");
        }
        seen
    }

    /// Brings back what was lost, for good, but for acknowledgements.
    ///
    /// # Panics
    /// When it cannot be put.
    pub fn bring_back(&self) {
        let mut lost = std::mem::take(&mut self.state.lock().toll.lost);
        lost.retain(|name, _| !matches!(name, ObjectName::Ack { .. }));
        for (name, (_, data)) in lost {
            self.truth.put(&name, &data).expect("it is put");
        }
    }
}

impl State {
    /// What happens to a call.
    fn decide(
        &mut self,
        profile: Profile,
        kind: Kind,
        name: Option<&ObjectName>,
    ) -> Option<Strike> {
        let seed = &mut self.seed;
        match (profile, kind) {
            (Profile::Failing, _) => one_in(30, seed)
                .then(|| if one_in(2, seed) { Strike::FailBefore } else { Strike::FailAfter }),
            (Profile::Late, Kind::Put | Kind::Delete) => {
                one_in(8, seed).then(|| if one_in(3, seed) { Strike::Late } else { Strike::Twice })
            }
            (Profile::Flipping, Kind::Get) => one_in(30, seed).then(|| Strike::Flip(seed.next())),
            // Of many requests, any may fail.
            (Profile::Versioned, Kind::Purge) => one_in(20, seed).then(|| match seed.below(4) {
                0 => Strike::FailBefore,
                1 => Strike::FailAfter,
                2 => Strike::Late,
                _ => Strike::Tear,
            }),
            (Profile::Versioned, Kind::Kept) => one_in(30, seed).then_some(Strike::FailBefore),
            (Profile::Losing, Kind::Put) => one_in(30, seed).then_some(Strike::Pretend),
            (Profile::Keeping, Kind::Delete) => one_in(3, seed).then_some(Strike::Pretend),
            (Profile::Locked, Kind::Delete) => {
                let locked = name.is_some_and(|name| !matches!(name, ObjectName::Lease { .. }));
                (locked && one_in(2, seed)).then_some(Strike::Refuse)
            }
            (profile, Kind::Put) if profile.tears() => one_in(12, seed).then_some(Strike::Tear),
            _ => None,
        }
    }

    /// A listing from before the latest changes of others.
    fn lag(
        &mut self,
        actor: usize,
        folder: Folder,
        mut entries: BTreeMap<ObjectName, u64>,
    ) -> Vec<(ObjectName, u64)> {
        let since = self.calls.saturating_sub(self.seed.below(STALE_CALLS_MAX));
        let mut lacks = false;
        let unseen = self.past.iter().rev().take_while(|past| past.call > since);
        let folder = Some(folder);
        for past in unseen.filter(|past| past.actor != actor && past.name.folder() == folder) {
            lacks = true;
            match past.before {
                Some(bytes) => entries.insert(past.name, bytes),
                None => entries.remove(&past.name),
            };
        }
        self.toll.listings += u64::from(lacks);
        entries.into_iter().collect()
    }

    /// A listing with some of what was deleted lately.
    fn linger(
        &mut self,
        folder: Folder,
        mut entries: BTreeMap<ObjectName, u64>,
    ) -> Vec<(ObjectName, u64)> {
        let since = self.calls.saturating_sub(LINGERING_CALLS_MAX);
        let mut lingers = false;
        for past in self.past.iter().rev().take_while(|past| past.call > since) {
            let absent = past.name.folder() == Some(folder) && !entries.contains_key(&past.name);
            if let Some(bytes) = past.before.filter(|_| absent && one_in(2, &mut self.seed)) {
                entries.insert(past.name, bytes);
                lingers = true;
            }
        }
        self.toll.listings += u64::from(lingers);
        entries.into_iter().collect()
    }

    fn shuffle(&mut self, entries: BTreeMap<ObjectName, u64>) -> Vec<(ObjectName, u64)> {
        let mut listed = Vec::new();
        for entry in entries {
            for _ in 0..1 + self.seed.below(REPEATS_MAX) {
                let at = self.seed.below(listed.len() as u64 + 1);
                listed.insert(usize::try_from(at).unwrap_or_default(), entry);
            }
        }
        self.toll.listings += u64::from(listed.len() > 1);
        listed
    }

    fn lose_page(&mut self, entries: BTreeMap<ObjectName, u64>) -> Vec<(ObjectName, u64)> {
        let mut listed = entries.into_iter().collect::<Vec<_>>();
        if !listed.is_empty() && self.seed.below(6) == 0 {
            let len = listed.len() as u64;
            let from = self.seed.below(len);
            let to = from + 1 + self.seed.below(len - from);
            let at = |number: u64| usize::try_from(number).unwrap_or_default();
            listed.drain(at(from)..at(to));
            self.toll.listings += 1;
        }
        listed
    }
}

fn one_in(count: u64, seed: &mut Seed) -> bool {
    seed.below(count) == 0
}
