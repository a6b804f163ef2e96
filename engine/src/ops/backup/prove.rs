//! Proves, after a snapshot is visible, that all it needs lies in packs that nobody has condemned
//! (SPEC section 10). What was condemned while the backup ran is found elsewhere, or stored anew.

use std::collections::{BTreeSet, HashSet};

use cairn_format::ids::{ChunkId, PackId, SessionId, WriterId};
use parking_lot::Mutex;

use super::relied::Relied;
use crate::collect::copy::Copier;
use crate::collect::reach::{Reach, reach};
use crate::error::Error;
use crate::index::catalog::{Before, Catalog};
use crate::repo::Repository;
use crate::repo::chunks::{Wanted, single};

/// How often it is looked again after chunks were stored anew.
const ROUNDS_MAX: usize = 3;
/// Chunks that are stored anew, at most: beyond that the source is read again.
const MISSING_MAX: usize = 200_000;

/// What a proof found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// All is there; so many chunks were stored anew for it.
    Complete(u64),
    /// It is not known that all is there: so many packs were condemned meanwhile.
    Open(usize),
}

/// What is to be proven.
pub struct Claim<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// Its index.
    pub catalog: &'a Catalog,
    /// The session that wrote the snapshot.
    pub session: SessionId,
    /// Node of its root.
    pub root: ChunkId,
    /// Namespace its chunks are looked up in.
    pub namespace: WriterId,
    /// How packs stood when the backup began.
    pub before: Before,
    /// Packs that the session stored.
    pub packs: &'a [PackId],
    /// What else it relies on.
    pub relied: &'a Relied,
}

impl Claim<'_> {
    /// Lists tombs, and proves that no pack that is needed is among those they condemn.
    ///
    /// # Errors
    /// [`Error::TombDamaged`]; failures of the store and the cache.
    pub fn prove(&self) -> Result<Proof, Error> {
        let vault = self.repository.vault();
        let mut copied = 0;
        for _ in 0..ROUNDS_MAX {
            // Also segments: what was condemned may have been copied to packs named since.
            self.catalog.sync_keeping(vault)?;
            self.catalog.require_sound_tombs()?;
            let here = self.catalog.condemned_here().len();
            let since = self.catalog.condemned_since(&self.before);
            // Packs that were condemned may belong to a snapshot that is relied on: the collection that
            // condemned them looks again, and spares what it needs if it is there then. If it is there
            // now, it was; or this one is seen as well, which is visible already.
            let stands = self.relied.stands(self.repository.store(), self.catalog)?;
            if since == 0 && stands {
                return Ok(Proof::Complete(copied));
            }
            let condemned = since.max(here);
            let Some(missing) = self.missing(stands)? else { return Ok(Proof::Open(condemned)) };
            if missing.is_empty() {
                // What took the place of the packs that go has to be there.
                if self.catalog.forget_lost_since(vault, &self.before, self.packs)? {
                    return Ok(Proof::Complete(copied));
                }
                continue;
            }
            match self.copy(&missing)? {
                Some(count) => copied += count,
                None => return Ok(Proof::Open(condemned)),
            }
        }
        Ok(Proof::Open(self.catalog.condemned_since(&self.before)))
    }

    /// The chunks that only condemned packs hold; `None` when that cannot be told. `stands`: what is relied
    /// on as a whole does.
    fn missing(&self, stands: bool) -> Result<Option<Vec<ChunkId>>, Error> {
        let namespace = self.namespace;
        if !self.packs.iter().any(|pack| self.catalog.is_condemned(pack))
            && stands
            && let Some(chunks) = self.relied.chunks()
        {
            let known = self.catalog.known(&chunks, namespace)?;
            let missing = chunks.into_iter().zip(known).filter(|(_, known)| !known);
            let mut missing = missing.map(|(id, _)| id).collect::<BTreeSet<_>>();
            return Ok(self.add_bases(&mut missing)?.then(|| missing.into_iter().collect()));
        }
        if !self.repository.keys.can_read() {
            return Ok(None);
        }
        self.walk(namespace)
    }

    /// Looks at every chunk of the snapshot.
    fn walk(&self, namespace: WriterId) -> Result<Option<Vec<ChunkId>>, Error> {
        let nodes = self.repository.chunk_reader(namespace)?;
        let mut walk = Walk {
            catalog: self.catalog,
            namespace,
            seen: HashSet::new(),
            missing: BTreeSet::new(),
            lost: false,
        };
        reach(&nodes, self.root, &mut walk)?;
        let sound = !walk.lost && self.add_bases(&mut walk.missing)?;
        Ok(sound.then(|| walk.missing.into_iter().collect()))
    }

    /// Adds the bases of frames that this session stored where only condemned packs hold them in
    /// frames without bases; false when that cannot be told, or when all is too much.
    fn add_bases(&self, missing: &mut BTreeSet<ChunkId>) -> Result<bool, Error> {
        for pack in self.packs {
            let Some(number) = self.catalog.index().pack_number(pack)? else { return Ok(false) };
            missing.extend(self.catalog.bases_at_risk(number)?);
            if missing.len() > MISSING_MAX {
                return Ok(false);
            }
        }
        Ok(missing.len() <= MISSING_MAX)
    }

    /// Stores chunks anew out of condemned packs; `None` when one of them cannot be had there.
    fn copy(&self, missing: &[ChunkId]) -> Result<Option<u64>, Error> {
        if !self.repository.keys.can_read() {
            return Ok(None);
        }
        let namespace = self.namespace;
        let reader = self.repository.chunk_reader(namespace)?;
        let mut wanted = Vec::with_capacity(missing.len());
        for (id, place) in missing.iter().zip(self.catalog.places(missing, namespace)?) {
            let Some(place) = place else { return Ok(None) };
            let Ok(pack) = self.catalog.pack(place.pack) else { return Ok(None) };
            wanted.push(Wanted { id: *id, place, tag: pack.kind });
        }
        let count = wanted.len() as u64;
        let copier = Copier::new(self.repository, self.catalog, self.session)?;
        let copier = Mutex::new((copier, false));
        reader.fetch(wanted, &|run, content| {
            let (copier, lost) = &mut *copier.lock();
            match content {
                Ok(content) => single(run, content).try_for_each(|(wanted, chunk)| {
                    copier.add_chunk(wanted.tag, wanted.id, chunk)
                })?,
                Err(error) if error.is_damage() => *lost = true,
                Err(error) => return Err(error),
            }
            Ok(())
        })?;
        let (mut copier, lost) = copier.into_inner();
        copier.finish(Vec::new())?;
        Ok((!lost).then_some(count))
    }
}

struct Walk<'a> {
    catalog: &'a Catalog,
    namespace: WriterId,
    seen: HashSet<ChunkId>,
    missing: BTreeSet<ChunkId>,
    lost: bool,
}

impl Walk<'_> {
    fn look(&mut self, ids: &[ChunkId]) -> Result<(), Error> {
        let known = self.catalog.known(ids, self.namespace)?;
        for (id, _) in ids.iter().zip(known).filter(|(_, known)| !known) {
            if self.missing.len() > MISSING_MAX {
                self.lost = true;
                return Ok(());
            }
            self.missing.insert(*id);
        }
        Ok(())
    }
}

impl Reach for Walk<'_> {
    fn node(&mut self, id: &ChunkId) -> Result<bool, Error> {
        if self.lost || !self.seen.insert(*id) {
            return Ok(false);
        }
        self.look(&[*id])?;
        Ok(true)
    }

    fn data(&mut self, chunks: &[(ChunkId, u32)]) -> Result<(), Error> {
        let ids = chunks.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        self.look(&ids)
    }

    fn unreadable(&mut self, _: &ChunkId, _: Error) -> Result<(), Error> {
        self.lost = true;
        Ok(())
    }
}
