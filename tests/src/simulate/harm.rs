//! Damage of what is there, and what it excuses: with the object as it was before, everything must be
//! as it should be, until somebody deleted it; then also without.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use cairn_engine::error::Error;
use cairn_engine::ops::heal;
use cairn_engine::ops::snapshots;
use cairn_engine::ops::verify::{self, Level, VerifyOptions};
use cairn_engine::repo::Repository;
use cairn_engine::store::Store;
use cairn_format::envelope::HEADER_BYTES;
use cairn_format::ids::SnapshotId;
use cairn_format::names::{Folder, ObjectName};

use super::Scene;
use super::site::{Place, Site};
use crate::contents::contents;
use crate::lab::OWNER;

/// What is damaged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    /// Bits all over a pack.
    FlipPack,
    /// A single bit of a pack.
    FlipBit,
    /// The end of a pack.
    CutPack,
    /// A whole pack.
    LosePack,
    /// A bit in a snapshot's record.
    FlipRecord,
    /// The whole record.
    LoseRecord,
}

impl Harm {
    pub(super) const ALL: [Self; 6] = [
        Self::FlipPack,
        Self::FlipBit,
        Self::CutPack,
        Self::LosePack,
        Self::FlipRecord,
        Self::LoseRecord,
    ];

    /// What is left of an object.
    fn left_of(self, object: &Bytes, nth: u64) -> Option<Bytes> {
        const FLIP_EVERY: usize = 500;
        let body = object.len().saturating_sub(HEADER_BYTES).max(1) as u64;
        let at = HEADER_BYTES + usize::try_from(nth % body).unwrap_or_default();
        let mut left = object.to_vec();
        match self {
            Self::LosePack | Self::LoseRecord => return None,
            Self::CutPack => left.truncate(at),
            Self::FlipBit | Self::FlipRecord => {
                left.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
            }
            Self::FlipPack => {
                left.iter_mut().skip(HEADER_BYTES).step_by(FLIP_EVERY).for_each(|byte| *byte ^= 1);
            }
        }
        Some(left.into())
    }
}

impl Scene {
    /// Whether anything was damaged so far.
    pub(super) fn is_harmed(&self) -> bool {
        self.harms.load(Ordering::SeqCst) > 0
    }

    /// Damages an object; nobody else has the turn.
    pub(super) fn harm(&self, at: Place, harm: Harm, nth: u64) {
        let site = self.site(at);
        let folders: &[Folder] = match harm {
            Harm::FlipRecord | Harm::LoseRecord => &[Folder::Snapshots],
            _ => &[Folder::DataPacks, Folder::TreePacks],
        };
        let names = site.names(folders);
        let Some(name) = names.get(usize::try_from(nth % names.len().max(1) as u64).unwrap_or(0))
        else {
            return;
        };
        let before = site.truth().get(name, u64::MAX).expect("it is there");
        let left = harm.left_of(&before, nth / 7);
        self.harms.fetch_add(1, Ordering::SeqCst);
        site.harmed.lock().entry(*name).or_insert(before);
        site.set(name, left.as_ref());
    }

    /// Does something while what was damaged is as it was.
    pub(super) fn as_before_harm<T>(site: &Site, look: impl FnOnce() -> T) -> T {
        let mut now = Vec::new();
        for (name, before) in &*site.harmed.lock() {
            let current = site.truth().get(name, u64::MAX).ok();
            if current.as_ref() != Some(before) {
                site.pretend(name, Some(before));
                now.push((*name, current));
            }
        }
        let seen = look();
        for (name, current) in now {
            site.pretend(&name, current.as_ref());
        }
        seen
    }

    /// At the end: what one copy has damaged is healed from the other. What neither can give is given
    /// up; anything else that is lost then is a violation.
    pub(super) fn heal_at_last(&self) -> Result<(), String> {
        if !self.is_harmed() {
            return Ok(());
        }
        for site in [&self.home, &self.replica] {
            // Nobody relies on them, and of them anything may be missing.
            let acknowledged = site.acknowledged();
            for id in site.snapshots().difference(&acknowledged) {
                site.remove(*id);
            }
        }
        for place in [Place::Home, Place::Replica] {
            let (site, other) = match place {
                Place::Home => (&self.home, &self.replica),
                Place::Replica => (&self.replica, &self.home),
            };
            for salt in [21, 22] {
                self.heal_site(site, other, salt)
                    .map_err(|error| format!("{} cannot be healed: {error}", place.name()))?;
                for id in self.unreadable(site)? {
                    if self.readable(other, id) {
                        let name = place.name();
                        return Err(format!("{name} has lost snapshot {id}: it was not healed"));
                    }
                    self.give_up(id);
                    site.forget(id);
                }
            }
            site.harmed.lock().clear();
        }
        Ok(())
    }

    fn heal_site(&self, site: &Site, other: &Site, salt: u64) -> Result<(), Error> {
        let mut repository = self.world.open_late(site.truth(), site.salt(salt))?;
        let context = repository.context.clone();
        let copy = repository.open_copy(other.truth(), &context)?;
        repository.add_fallback(copy);
        verify::run(&repository, &VerifyOptions { level: Level::Full })?;
        heal::run(&repository, false)?;
        Ok(())
    }

    /// Acknowledged snapshots that a copy alone cannot give, and those of which it has no record.
    fn unreadable(&self, site: &Site) -> Result<Vec<SnapshotId>, String> {
        let repository = self.world.open(site.truth(), OWNER, 23);
        let (listed, _) = snapshots::list_all(&repository).map_err(|error| error.to_string())?;
        let readable = |id: &SnapshotId| {
            let snapshot = listed.iter().find(|snapshot| snapshot.id == *id);
            snapshot.is_some_and(|snapshot| contents(&repository, snapshot).is_ok())
        };
        let forgotten = site.forgotten.lock().clone();
        let acks = site.names(&[Folder::Acks]).into_iter().filter_map(|name| match name {
            ObjectName::Ack { snapshot, .. } => Some(snapshot),
            _ => None,
        });
        Ok(acks.filter(|id| !forgotten.contains(id) && !readable(id)).collect())
    }

    fn readable(&self, site: &Site, id: SnapshotId) -> bool {
        if !site.acknowledged().contains(&id) {
            return false;
        }
        let repository = self.world.open(site.truth(), OWNER, 24);
        let found = snapshots::list(&repository).unwrap_or_default();
        let found = found.iter().find(|snapshot| snapshot.id == id);
        found.is_some_and(|snapshot| contents(&repository, snapshot).is_ok())
    }

    /// Whether the replica has what a snapshot needs.
    pub(super) fn is_covered(&self, id: SnapshotId) -> bool {
        self.replica.harmed.lock().is_empty() && self.replica.acknowledged().contains(&id)
    }

    /// Adds the replica to a repository, for what that cannot give. False when there is none.
    pub(super) fn stand_in(
        repository: &mut Repository,
        replica: Arc<dyn Store>,
    ) -> Result<bool, Error> {
        if repository.fallbacks().is_empty() {
            let context = repository.context.clone();
            match repository.open_copy(replica, &context) {
                Ok(copy) => repository.add_fallback(copy),
                Err(Error::NoRepository { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
